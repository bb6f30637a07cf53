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

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from overparam import _check, _core, spectra
from overparam._problem import BaseProblem
from overparam.results import (
    BoolArray,
    FloatArray,
    Point,
    Trajectory,
    array_field,
    conclude,
    make_origin,
    record,
)

__all__ = [
    "FlowTrajectory",
    "LongTime",
    "Problem",
    "long_time",
    "recovery_threshold",
    "saturation_width",
    "unique_threshold",
]


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
        Ignored if `teacher_spectrum` is given, and may then be None.
    noise_var : float
        Delta >= 0, variance of the label noise.
    ridge : float
        lam >= 0, weight of ||W||_F^2/2 in the loss.
    teacher_scale : float
        a > 0, tr S*/d. Ignored if `teacher_spectrum` is given.
    init_scale : float
        s0 > 0; W starts with independent entries of variance s0^2/m.
    teacher_spectrum : spectra.Law, optional
        Law of the eigenvalues of S*, none of them negative and not all of them 0.

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
    kappa_star: float | None = None
    noise_var: float = 0.0
    ridge: float = 0.0
    teacher_scale: float = 1.0
    init_scale: float = 1.0
    teacher_spectrum: spectra.Law | None = None

    def __post_init__(self) -> None:
        law = self.teacher_spectrum
        names = ["alpha", "kappa", "teacher_scale", "init_scale"]
        if law is not None:
            if not isinstance(law, spectra.Law):
                raise _check.bad("teacher_spectrum", "a law of op.spectra or None", law, TypeError)
            points = [*(law.support or ()), *(position for position, _ in law.atoms)]
            if min(points) < 0 or max(points) == 0:
                must = "a law of eigenvalues >= 0 with mass off 0"
                raise _check.bad("teacher_spectrum", must, law)
        if law is None or self.kappa_star is not None:
            names.append("kappa_star")
        positive = {
            name: _check.real(name, getattr(self, name), minimum=0.0, strict_minimum=True)
            for name in names
        }
        self._set(
            noise_var=_check.real("noise_var", self.noise_var, minimum=0.0),
            ridge=_check.real("ridge", self.ridge, minimum=0.0),
            **positive,
        )

    @property
    def teacher_law(self) -> spectra.Law:
        """Law of the eigenvalues of S*."""
        if self.teacher_spectrum is not None:
            return self.teacher_spectrum
        assert self.kappa_star is not None
        return spectra.marchenko_pastur(self.kappa_star, self.teacher_scale)

    def to_dict(self) -> dict[str, Any]:
        """Return the room and the parameters as plain data that JSON can hold exactly.

        Returns
        -------
        dict

        Raises
        ------
        TypeError
            If `teacher_spectrum` is a law that is not one of op.spectra.

        Notes
        -----
        Source: ``docs/papers/empirical_flow.md`` section 1.

        Examples
        --------
        >>> import overparam as op
        >>> law = op.spectra.discrete([0, 2], [0.5, 0.5])
        >>> problem = op.empirical_flow.Problem(alpha=0.3, kappa=0.5, teacher_spectrum=law)
        >>> problem.to_dict()["teacher_spectrum"]
        {'kind': 'Discrete', 'positions': (0.0, 2.0), 'weights': (0.5, 0.5)}
        """
        data = super().to_dict()
        if self.teacher_spectrum is not None:
            data["teacher_spectrum"] = spectra.to_plain(self.teacher_spectrum)
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild a problem from what `to_dict` returned, also after a passage through JSON.

        Parameters
        ----------
        data : mapping
            Room and parameters. Lists become tuples.

        Returns
        -------
        Problem

        Raises
        ------
        ValueError
            If the room is another one, or a parameter is not as described.

        Notes
        -----
        Source: ``docs/papers/empirical_flow.md`` section 1.

        Examples
        --------
        >>> import json, overparam as op
        >>> law = op.spectra.discrete([0, 2], [0.5, 0.5])
        >>> problem = op.empirical_flow.Problem(alpha=0.3, kappa=0.5, teacher_spectrum=law)
        >>> text = json.dumps(problem.to_dict())
        >>> op.empirical_flow.Problem.from_dict(json.loads(text)) == problem
        True
        """
        law = data.get("teacher_spectrum")
        if isinstance(law, Mapping):
            data = {**data, "teacher_spectrum": spectra.from_plain(law)}
        return super().from_dict(data)


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


@record
class LongTime(Point):
    """States that training reaches after long times: solutions of the static equations.

    Attributes
    ----------
    alpha : (n,) array
        Samples n/d^2, one entry per solution; per replica for `minimise`, like all below.
    risk : (n,) array
        R = (2/d) ||S - S*||_F^2.
    train_risk : (n,) array
        Mean squared residual on the noisy labels, without the regulariser.
    sigma2 : (n,) array
        Variance (R + Delta)/(4 alpha) of the noise on the teacher that the student sees.
    threshold : (n,) array
        tau = lam/c, by which the eigenvalues of the noisy teacher are lowered.
    c : (n,) array
        1 - D/alpha, the share of a perturbation that remains after the response of the student.
    rank : (n,) array
        Rank of S over d.
    trace : (n,) array
        tr S/d.
    overlap : (n,) array
        tr S S*/d.
    objective : (n,) array
        Loss with the regulariser, over d: train_risk/8 + lam trace/2.
    stable : (n,) array of bool
        Whether the iteration sigma2 -> (R + Delta)/(4 alpha) converges to the solution.

    Notes
    -----
    Made by `long_time`, `curve`, `optimal_ridge` and `minimise`. Source:
    ``docs/papers/empirical_flow.md`` section 3.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.empirical_flow.Problem(alpha=0.2, kappa=0.2, kappa_star=0.2)
    >>> point = op.empirical_flow.long_time(problem)
    >>> point.risk.round(3).tolist(), point.stable.tolist()
    ([0.0, 1.333, 5.877], [True, False, True])
    """

    alpha: FloatArray = array_field("root")
    risk: FloatArray = array_field("root")
    train_risk: FloatArray = array_field("root")
    sigma2: FloatArray = array_field("root")
    threshold: FloatArray = array_field("root")
    c: FloatArray = array_field("root")
    rank: FloatArray = array_field("root")
    trace: FloatArray = array_field("root")
    overlap: FloatArray = array_field("root")
    objective: FloatArray = array_field("root")
    stable: BoolArray = array_field("root", dtype=np.bool_)


# ---- long times: the static equations ------------------------------------------------------------

_FIELDS = (
    "alpha",
    "risk",
    "train_risk",
    "sigma2",
    "threshold",
    "c",
    "rank",
    "trace",
    "overlap",
    "objective",
    "stable",
)


def _problem(problem: object) -> Problem:
    if not isinstance(problem, Problem):
        raise _check.bad("problem", "a Problem of op.empirical_flow", problem, TypeError)
    return problem


def _teacher(law: spectra.Law) -> _core.TeacherLaw:
    """Return the form in which the core knows a law."""
    variance = 0.0
    if isinstance(law, spectra.FreeSum):
        law, variance = law.law, law.variance
    atoms: tuple[tuple[float, float], ...] = ()
    ratio = scale = 1.0
    if isinstance(law, spectra.MarchenkoPastur):
        ratio, scale = law.ratio, law.scale
    elif isinstance(law, spectra.Discrete):
        atoms = law.atoms
    else:
        must = "made of Marchenko-Pastur laws, atoms and semicircles"
        raise _check.bad("teacher_spectrum", must, law)
    positions, weights = zip(*atoms, strict=True) if atoms else ((), ())
    return _core.TeacherLaw(
        ratio=ratio,
        scale=scale,
        positions=np.array(positions),
        weights=np.array(weights),
        variance=variance,
    )


def _solutions(
    problem: Problem,
    found: tuple[Any, int, Any],
    began: float,
    inputs: Mapping[str, Any],
    kept: Any = slice(None),
) -> LongTime:
    """Return what the core found, or the part of it that is kept."""
    values, evaluations, status = found
    values = values[:, kept]
    stats = {
        "seconds": time.perf_counter() - began,
        "evaluations": evaluations,
        "residual_sigma2": float(np.abs(values[11]).max(initial=0.0)),
        "residual_c": float(np.abs(values[12]).max(initial=0.0)),
    }
    return LongTime(
        problem=problem,
        inputs=inputs,
        method="static equations",
        status=status,
        stats=stats,
        origin=make_origin(),
        **dict(zip(_FIELDS, values, strict=False)),
    )


def long_time(problem: Problem, *, branch: str = "all", throw: bool = True) -> LongTime:
    """Return the states that training with a ridge reaches after long times.

    Parameters
    ----------
    problem : Problem
        Samples, widths, noise and ridge; a ridge of 0 is the limit 0+, taken after long times.
    branch : {"all", "stable", "largest"}
        All solutions, the stable ones, or that of the largest sigma2. There is one for
        kappa >= 1, but there may be more for a narrow student.
    throw : bool
        Raise if a solution was not found; otherwise return the others with the status.

    Returns
    -------
    LongTime
        By increasing sigma2. A noiseless teacher that is recovered exactly for a ridge 0+ has
        risk, sigma2 and threshold 0. ``stats`` has the number of evaluations of the integrals over
        the spectrum, and the largest residuals of the two equations: (R + Delta)/(4 alpha sigma2)
        - 1, and c - 1 + D/alpha.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.
    ConvergenceError
        If a solution was not found.

    Notes
    -----
    Source: ``docs/papers/empirical_flow.md`` section 3.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.empirical_flow.Problem(
    ...     alpha=0.3, kappa=1.0, kappa_star=0.3, noise_var=0.1, ridge=0.05
    ... )
    >>> point = op.empirical_flow.long_time(problem)
    >>> round(float(point.risk[0]), 6), round(float(point.rank[0]), 6)
    (0.574238, 0.476531)
    """
    began = time.perf_counter()
    law = _teacher(_problem(problem).teacher_law)
    branch = _check.choice("branch", branch, ("all", "stable", "largest"))
    found = law.long_time(problem.alpha, problem.kappa, problem.noise_var, problem.ridge)
    kept: Any = slice(None)
    if branch == "stable":
        kept = found[0][_FIELDS.index("stable")] == 1
    elif branch == "largest":
        kept = slice(-1, None)
    return conclude(_solutions(problem, found, began, {"branch": branch}, kept), throw)


def _positive(name: str, value: object) -> float:
    return _check.real(name, value, minimum=0.0, strict_minimum=True)


def recovery_threshold(kappa: float, kappa_star: float, *, ridge: str = "vanishing") -> float:
    """Return the samples n/d^2 above which a noiseless teacher is recovered exactly.

    Parameters
    ----------
    kappa : float
        Width of the student; positive.
    kappa_star : float
        Width of the teacher; positive.
    ridge : {"vanishing", "none"}
        A ridge 0+, taken to 0 after long times, or none at all.

    Returns
    -------
    float
        inf for a student that is too narrow, ``kappa < min(kappa_star, 1)``.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Notes
    -----
    For kappa close to kappa* other solutions than recovery may be stable above the threshold
    with a ridge 0+, and the threshold without a ridge may be the smaller one.
    Source: ``docs/papers/empirical_flow.md`` section 4.

    Examples
    --------
    >>> import overparam as op
    >>> round(op.empirical_flow.recovery_threshold(1.0, 0.2), 8)
    0.25556197
    """
    kappa, kappa_star = _positive("kappa", kappa), _positive("kappa_star", kappa_star)
    if _check.choice("ridge", ridge, ("vanishing", "none")) == "vanishing":
        return _core.flow_recovery_threshold(kappa, kappa_star)
    if kappa < min(kappa_star, 1.0):
        return float("inf")
    rank = min(kappa_star, 1.0)
    if kappa >= (1.0 + rank) / 2.0:
        return unique_threshold(kappa_star)
    counted = kappa - kappa**2 / 2.0
    return min(_core.flow_interpolation_threshold(kappa, kappa_star, 0.0), counted)


def unique_threshold(kappa_star: float) -> float:
    """Return the samples n/d^2 above which only the teacher interpolates noiseless labels.

    Parameters
    ----------
    kappa_star : float
        Width of the teacher; positive.

    Returns
    -------
    float
        1/2 - (1 - kappa*)^2/4 among positive semi-definite matrices, 1/2 for kappa* >= 1.

    Raises
    ------
    TypeError, ValueError
        If `kappa_star` is not as described.

    Notes
    -----
    Source: ``docs/papers/empirical_flow.md`` section 4.

    Examples
    --------
    >>> import overparam as op
    >>> op.empirical_flow.unique_threshold(0.5)
    0.4375
    """
    return 0.5 - max(1.0 - _positive("kappa_star", kappa_star), 0.0) ** 2 / 4.0


def saturation_width(kappa_star: float) -> float:
    """Return the width kappa_c beyond which the recovery threshold does not depend on the width.

    Parameters
    ----------
    kappa_star : float
        Width of the teacher; positive.

    Returns
    -------
    float
        Rank over d of the solution at the threshold, for a ridge 0+; 1 for kappa* >= 1.

    Raises
    ------
    TypeError, ValueError
        If `kappa_star` is not as described.

    Notes
    -----
    Source: ``docs/papers/empirical_flow.md`` section 4.

    Examples
    --------
    >>> import overparam as op
    >>> round(op.empirical_flow.saturation_width(0.3), 5)
    0.53984
    """
    return _core.flow_saturation_width(_positive("kappa_star", kappa_star))


# ---- the network itself --------------------------------------------------------------------------
