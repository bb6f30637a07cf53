"""Gradient flow of extensive-width quadratic networks on n ~ d^2 samples.

A student f(x) = (x^T S x - tr S)/sqrt(d), S = W W^T with W in R^{d x m}, learns a teacher of the
same form with matrix S* from n = alpha d^2 Gaussian inputs and noisy labels, by gradient flow on

    L(W) = (d/(8 n)) sum_mu (f(x_mu) - y_mu)^2 + (lam/2) ||W||_F^2.

`long_time` and its relatives give the state that is reached under l2 regularisation, in the limit
of high dimension at fixed alpha, kappa = m/d and kappa* = m*/d, with thresholds in closed form;
`simulate` and `minimise` run the network itself. The equations are derived in
``docs/papers/empirical_flow.md``; the model is that of Martin, Biroli and Bach, arXiv 2601.10483.
The risk is R = E (f - f*)^2 = (2/d) ||S - S*||_F^2, without a factor 1/2 and without label noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from overparam import _check, spectra
from overparam._problem import BaseProblem
from overparam.results import FloatArray, Trajectory, array_field, record

__all__ = ["FlowTrajectory", "Problem"]


# ---- the problem and its results -----------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Problem(BaseProblem):
    """A quadratic student of extensive width that learns from n ~ d^2 samples.

    Parameters
    ----------
    alpha : float
        Samples n/d^2; positive.
    kappa : float
        Width m/d of the student; positive.
    kappa_star : float
        Width m*/d of the teacher, S* = a G G^T/m* with G of independent standard entries; positive.
        Ignored if `teacher_spectrum` is given.
    noise_var : float
        Delta >= 0, variance of the label noise.
    ridge : float
        lam >= 0, weight of ||W||_F^2/2 in the loss.
    teacher_scale : float
        a > 0, tr S*/d. Ignored if `teacher_spectrum` is given.
    init_scale : float
        s0 > 0; W starts with independent entries of variance s0^2/m.
    teacher_spectrum : spectra.Law, optional
        Law of the eigenvalues of S*, none of them negative.

    Raises
    ------
    TypeError, ValueError
        Naming the argument that is not as described.

    Notes
    -----
    Source: arXiv 2601.10483; ``docs/papers/empirical_flow.md`` section 1.

    Examples
    --------
    >>> import overparam as op
    >>> op.empirical_flow.Problem(alpha=0.3, kappa=0.5, kappa_star=0.2).noise_var
    0.0
    """

    room: ClassVar[str] = "empirical_flow"

    alpha: float
    kappa: float
    kappa_star: float
    noise_var: float = 0.0
    ridge: float = 0.0
    teacher_scale: float = 1.0
    init_scale: float = 1.0
    teacher_spectrum: spectra.Law | None = None

    def __post_init__(self) -> None:
        if self.teacher_spectrum is not None and not isinstance(self.teacher_spectrum, spectra.Law):
            raise _check.bad(
                "teacher_spectrum", "a law of op.spectra or None", self.teacher_spectrum, TypeError
            )
        positive = {
            name: _check.real(name, getattr(self, name), minimum=0.0, strict_minimum=True)
            for name in ("alpha", "kappa", "kappa_star", "teacher_scale", "init_scale")
        }
        self._set(
            noise_var=_check.real("noise_var", self.noise_var, minimum=0.0),
            ridge=_check.real("ridge", self.ridge, minimum=0.0),
            **positive,
        )


@record
class FlowTrajectory(Trajectory):
    """Risk and order parameters of a student at the requested times.

    Attributes
    ----------
    t : (T,) array
        Physical times, learning rate times steps.
    risk : (T,) array
        R = (2/d) ||S - S*||_F^2; with the replica axis first in a simulation, like all below.
    train_risk : (T,) array
        Mean squared residual on the noisy labels, without the regulariser.
    trace : (T,) array
        tr S/d.
    overlap : (T,) array
        tr S S*/d.
    diverged : (replicas,) array of bool, or None
        Replicas whose values stopped being finite.

    Notes
    -----
    Source: ``docs/papers/empirical_flow.md`` section 1.
    """

    time_label: ClassVar[str] = "time t"
    headline: ClassVar[str] = "risk"

    risk: FloatArray = array_field("time")
    train_risk: FloatArray = array_field("time")
    trace: FloatArray = array_field("time")
    overlap: FloatArray = array_field("time")


# ---- long times: the static equations ------------------------------------------------------------


# ---- the network itself --------------------------------------------------------------------------
