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

import functools
import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike

from overparam import _check, _core, spectra
from overparam._problem import BaseProblem
from overparam.results import (
    BoolArray,
    FloatArray,
    Point,
    Spectrum,
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
    "bayes_risk",
    "curve",
    "interpolation_threshold",
    "long_time",
    "optimal_ridge",
    "recovery_threshold",
    "saturation_width",
    "spectrum",
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
    stable: BoolArray = array_field("root", sampled=False, dtype=np.bool_)

    def _axes(self, name: str) -> tuple[str, ...]:
        """Return the axis of a field: of replicas instead of solutions, none of their mean."""
        axes = super()._axes(name)
        if "root" not in axes:
            return axes
        return axes[:1] if np.ndim(getattr(self, name)) else ()


# ---- long times: the static equations ------------------------------------------------------------

# Points of each interval of a learned spectrum.
_SPECTRUM_POINTS = 1001

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


@functools.lru_cache(maxsize=256)
def _teacher(law: spectra.Law) -> _core.TeacherLaw:
    """Return the form in which the core knows a law."""
    variance = 0.0
    if isinstance(law, spectra.FreeSum):
        variance = law.variance
        law = law.law
    if not isinstance(law, (spectra.MarchenkoPastur, spectra.Discrete, spectra.Jacobi)):
        must = "made of Marchenko-Pastur and Jacobi laws, atoms and semicircles"
        raise _check.bad("teacher_spectrum", must, law)
    closed = isinstance(law, spectra.MarchenkoPastur)
    atoms = () if closed else law.atoms
    return _core.TeacherLaw(
        mean=law.moments(1),
        second=law.moments(2),
        ratio=law.ratio if isinstance(law, spectra.MarchenkoPastur) else 0.0,
        positions=[position for position, _ in atoms],
        weights=[mass for _, mass in atoms],
        interval=law.interval_resolvent if isinstance(law, spectra.Jacobi) else (),
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


def curve(problem: Problem, sigma2: ArrayLike, *, throw: bool = True) -> LongTime:
    """Return all solutions for given values of sigma2, with alpha as an outcome.

    Parameters
    ----------
    problem : Problem
        Widths, noise and ridge; `alpha` is ignored.
    sigma2 : array_like
        Values of (R + Delta)/(4 alpha), positive: a number or a sequence in any order.
    throw : bool
        Raise if there is a value without a solution; otherwise return the others with the status.

    Returns
    -------
    LongTime
        By increasing sigma2, then threshold; sigma2 is repeated where there are several solutions.
        A fine grid shows folds, and solutions apart from the main branch.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.
    ConvergenceError
        If there is a value without a solution.

    Notes
    -----
    Source: ``docs/papers/empirical_flow.md`` section 4.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.empirical_flow.Problem(alpha=1.0, kappa=0.25, kappa_star=0.25, ridge=1e-3)
    >>> found = op.empirical_flow.curve(problem, [0.5, 2.0, 10.0])
    >>> found.sigma2.tolist()
    [0.5, 2.0, 2.0, 2.0, 10.0]
    """
    began = time.perf_counter()
    law = _teacher(_problem(problem).teacher_law)
    if isinstance(sigma2, (int, float)) or np.ndim(sigma2) == 0:
        values = np.array([_positive("sigma2", sigma2)])
    else:
        values = np.sort(_check.vector("sigma2", sigma2))
        if len(values) == 0 or values[0] <= 0:
            raise _check.bad("sigma2", "at least one value, all > 0", values)
    found = law.curve(problem.kappa, problem.noise_var, problem.ridge, values)
    return conclude(_solutions(problem, found, began, {"sigma2": values}), throw)


def spectrum(problem: Problem, *, root: int = 0) -> Spectrum:
    """Return the spectrum of the student after long times.

    Parameters
    ----------
    problem : Problem
        As for `long_time`.
    root : int
        Which of its solutions, from 0; negative numbers count from the last.

    Returns
    -------
    Spectrum
        A curve for the eigenvalues > 0 with its edges, and an atom of mass 1 - rank at 0. Its
        lowest edge is the gap between them, 0 if the ridge limits the rank and not the width.
        Where the teacher is recovered exactly, its own spectrum.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or there is no such solution.
    ConvergenceError
        If a solution was not found.

    Notes
    -----
    Source: ``docs/papers/empirical_flow.md`` section 3.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.empirical_flow.Problem(
    ...     alpha=0.3, kappa=0.4, kappa_star=0.3, noise_var=0.1, ridge=0.05
    ... )
    >>> learned = op.empirical_flow.spectrum(problem)
    >>> position, mass = learned.atoms[0]
    >>> position, round(mass, 6), round(float(learned.edges[0]), 6)
    (0.0, 0.6, 0.258403)
    """
    solutions = long_time(problem)
    index = _check.integer("root", root)
    count = len(solutions.risk)
    if not -count <= index < count:
        raise _check.bad("root", f"from {-count} to {count - 1}", root)
    tau, rank = float(solutions.threshold[index]), float(solutions.rank[index])
    law = spectra.free_sum(problem.teacher_law, float(solutions.sigma2[index]))
    cut = tau
    if problem.kappa < 1.0 and rank >= problem.kappa * (1.0 - 1e-12):
        cut = max(tau, _upper_quantile(law, problem.kappa))
    # Where sigma2 = 0 the student is the teacher.
    learned = list(law.atoms)
    edges: list[float] = []
    grids: list[FloatArray] = []
    values: list[FloatArray] = []
    for low, high in zip(law.edges[::2], law.edges[1::2], strict=True):
        if high <= cut:
            continue
        start = max(low, cut)
        angle = np.linspace(0.0, np.pi, _SPECTRUM_POINTS)
        x = start + (high - start) * np.sin(angle / 2) ** 2
        grids.append(x - tau)
        values.append(law.density(x))
        edges += [start - tau, high - tau]
    atoms = learned if solutions.sigma2[index] == 0.0 else [(0.0, 1.0 - rank)]
    return Spectrum(
        problem=problem,
        inputs={"root": index},
        method="static equations",
        status=solutions.status,
        origin=make_origin(),
        grid=np.concatenate(grids) if grids else np.zeros(1),
        values=np.concatenate(values) if values else np.zeros(1),
        atom_positions=np.array([position for position, _ in atoms]),
        atom_masses=np.array([mass for _, mass in atoms]),
        edges=np.array(edges),
    )


def _upper_quantile(law: spectra.Law, mass: float) -> float:
    """Return the position with a mass above it: in a gap its upper end."""
    x = float(law.quantile(1.0 - mass))
    for low, high in itertools.pairwise(law.edges):
        if abs(x - low) <= 1e-9 * (high - low) and law.density((low + high) / 2) == 0:
            return high
    return x


def bayes_risk(
    alpha: float, kappa_star: float, noise_var: float, *, teacher_scale: float = 1.0
) -> float:
    """Return the risk of the Bayes-optimal estimator, below which no student comes.

    Parameters
    ----------
    alpha : float
        Samples n/d^2; positive.
    kappa_star : float
        Width m*/d of the teacher; positive.
    noise_var : float
        Delta >= 0, variance of the label noise.
    teacher_scale : float
        a > 0, tr S*/d.

    Returns
    -------
    float
        Exactly 0 where a noiseless teacher is recovered: alpha >= kappa* - kappa*^2/2 for
        kappa* < 1.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Notes
    -----
    Source: ``docs/papers/empirical_flow.md`` section 5.

    Examples
    --------
    >>> import overparam as op
    >>> round(op.empirical_flow.bayes_risk(0.3, 0.3, 0.1), 8)
    0.42766723
    """
    return _core.flow_bayes_risk(
        _positive("alpha", alpha),
        _positive("kappa_star", kappa_star),
        _positive("teacher_scale", teacher_scale),
        _check.real("noise_var", noise_var, minimum=0.0),
    )


def optimal_ridge(problem: Problem) -> tuple[float, LongTime]:
    """Return the ridge with the smallest risk after long times.

    Parameters
    ----------
    problem : Problem
        Samples, widths and noise; `ridge` is ignored.

    Returns
    -------
    ridge : float
        0 for the limit 0+. If no estimate is better than S = 0, the smallest ridge that gives it.
    solutions : LongTime
        `long_time` at this ridge. Where there are several solutions the first one is meant.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.
    ConvergenceError
        If a solution was not found.

    Notes
    -----
    Source: ``docs/papers/empirical_flow.md`` section 4.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.empirical_flow.Problem(alpha=0.3, kappa=1.0, kappa_star=0.2, noise_var=0.5)
    >>> ridge, solutions = op.empirical_flow.optimal_ridge(problem)
    >>> round(float(op.empirical_flow.long_time(problem).risk[0]), 3)
    10.482
    >>> round(ridge, 4), round(float(solutions.risk[0]), 4)
    (0.265, 0.9627)
    """
    law = _teacher(_problem(problem).teacher_law)
    ridge = law.optimal_ridge(problem.alpha, problem.kappa, problem.noise_var)
    return ridge, long_time(problem.replace(ridge=ridge))


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


def interpolation_threshold(kappa: float, kappa_star: float, noise_var: float) -> float:
    """Return the samples n/d^2 above which a student with a ridge 0+ does not interpolate.

    Parameters
    ----------
    kappa : float
        Width of the student; positive.
    kappa_star : float
        Width of the teacher, of scale a = 1; positive.
    noise_var : float
        Delta >= 0, variance of the label noise; 0 is the limit of small noise, for a student that
        is at least as wide as the teacher.

    Returns
    -------
    float
        Where the risk has its peak.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Notes
    -----
    Source: ``docs/papers/empirical_flow.md`` section 4.

    Examples
    --------
    >>> import overparam as op
    >>> round(op.empirical_flow.interpolation_threshold(1.0, 0.3, 0.1), 8)
    0.33064541
    >>> op.empirical_flow.interpolation_threshold(1.0, 0.3, 0.0)
    0.3775
    """
    return _core.flow_interpolation_threshold(
        _positive("kappa", kappa),
        _positive("kappa_star", kappa_star),
        _check.real("noise_var", noise_var, minimum=0.0),
    )


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
