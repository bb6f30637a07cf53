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

import bisect
import dataclasses
import functools
import itertools
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from overparam import _blas, _check, _core, _run, spectra
from overparam._core import Status
from overparam._problem import BaseProblem
from overparam.results import (
    BoolArray,
    FloatArray,
    PathLike,
    Point,
    Spectrum,
    Trajectory,
    array_field,
    conclude,
    make_origin,
    record,
)

__all__ = [
    "DmftTrajectory",
    "FlowTrajectory",
    "LongTime",
    "Problem",
    "SteadyState",
    "bayes_risk",
    "curve",
    "dmft",
    "interpolation_threshold",
    "long_time",
    "minimise",
    "optimal_ridge",
    "recovery_threshold",
    "saturation_width",
    "simulate",
    "spectrum",
    "stable_lr",
    "teacher_eigenvalues",
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
    eigenvalues : (T, d) array, or None
        Those of S in increasing order, where a simulation was asked for them.
    diverged : (replicas,) array of bool, or None
        Replicas whose values stopped being finite.

    Notes
    -----
    Source: ``docs/papers/empirical_flow.md`` section 1.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.empirical_flow.Problem(alpha=0.4, kappa=0.5, kappa_star=0.2)
    >>> run = op.empirical_flow.simulate(problem, [0, 1], dim=10, lr=0.01, replicas=3)
    >>> run.time_label, run.risk.shape
    ('time t', (3, 2))
    """

    time_label: ClassVar[str] = "time t"
    headline: ClassVar[str] = "risk"

    risk: FloatArray = array_field("time")
    train_risk: FloatArray = array_field("time")
    trace: FloatArray = array_field("time")
    overlap: FloatArray = array_field("time")
    eigenvalues: FloatArray | None = array_field("time", "eigenvalue", default=None)


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
        Whether the iteration sigma2 -> (R + Delta)/(4 alpha) converges to the solution; of
        `minimise`, whether the replica reached its tolerance. A mean or quantile over replicas
        has whether all of them did.

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
        if self.sampled:
            return ("replica",)
        return axes[:1] if np.ndim(getattr(self, name)) else ()

    def _reduce(self, statistic: str, function: Callable[[FloatArray], FloatArray]) -> Self:
        """Reduce `stable`, too: of replicas taken together it is whether all of them are."""
        reduced = super()._reduce(statistic, function)
        return dataclasses.replace(reduced, stable=np.asarray(self.stable.all()))


# ---- long times: the static equations ------------------------------------------------------------

# Points of each interval of a learned spectrum.
_SPECTRUM_POINTS = 2001

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
    throw = _check.boolean("throw", throw)
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
    if isinstance(sigma2, np.ndarray) and sigma2.ndim == 0:
        sigma2 = sigma2[()]
    if np.isscalar(sigma2):
        values = np.array([_positive("sigma2", sigma2)])
    else:
        values = np.sort(_check.vector("sigma2", sigma2))
        if len(values) == 0 or values[0] <= 0:
            raise _check.bad("sigma2", "at least one value, all > 0", values)
    throw = _check.boolean("throw", throw)
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
    began = time.perf_counter()
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
        stats={**solutions.stats, "seconds": time.perf_counter() - began},
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
    Source: ``docs/papers/empirical_flow.md`` section 3.3.

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
    if not math.isfinite(ridge):
        unregularised = long_time(problem.replace(ridge=0.0), throw=False)
        conclude(replace(unregularised, status=Status.NOT_CONVERGED))
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
        Delta >= 0, variance of the label noise; 0 is the limit of small noise, in closed form for
        a student that is at least as wide as the teacher.

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
    >>> round(op.empirical_flow.interpolation_threshold(1.0, 0.3, 0.0), 12)
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


def teacher_eigenvalues(problem: Problem, dim: int) -> FloatArray:
    """Return the eigenvalues of a deterministic teacher that stands for the law of the random one.

    Parameters
    ----------
    problem : Problem
        The teacher.
    dim : int
        How many.

    Returns
    -------
    (dim,) array
        Means of the law over intervals of mass 1/dim, in increasing order. Their mean is exactly
        that of the law.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Notes
    -----
    Replaces the random teacher of a simulation, whose fluctuations it removes. Source:
    ``docs/papers/empirical_flow.md`` section 6.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.empirical_flow.Problem(alpha=0.3, kappa=0.5, kappa_star=0.5)
    >>> op.empirical_flow.teacher_eigenvalues(problem, 4).round(4)
    array([0.    , 0.    , 0.8411, 3.1589])
    """
    _problem(problem)
    dim = _check.integer("dim", dim, minimum=1)
    return np.maximum(problem.teacher_law.bin_means(dim), 0.0)


def stable_lr(problem: Problem) -> float:
    """Return an estimate of the largest stable learning rate of gradient descent.

    Parameters
    ----------
    problem : Problem
        The problem.

    Returns
    -------
    float
        2/(2 S_max (1 + 1/sqrt(2 alpha))^2 + lam), with S_max the larger one of the upper edges of
        the spectra of teacher and start.

    Raises
    ------
    TypeError
        If `problem` is not a problem of this room.

    Notes
    -----
    From an upper estimate of the largest eigenvalue of the Hessian: rates somewhat above may be
    stable. Source: ``docs/papers/empirical_flow.md`` section 6.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.empirical_flow.Problem(alpha=0.3, kappa=1.0, kappa_star=0.5)
    >>> round(op.empirical_flow.stable_lr(problem), 4)
    0.0327
    """
    _problem(problem)
    law = problem.teacher_law
    start = problem.init_scale**2 * (1.0 + 1.0 / math.sqrt(problem.kappa)) ** 2
    largest = max([start, *law.edges, *(position for position, _ in law.atoms)])
    feedback = (1.0 + 1.0 / math.sqrt(2.0 * problem.alpha)) ** 2
    return 2.0 / (2.0 * largest * feedback + problem.ridge)


@dataclass(frozen=True)
class _Experiment:
    """The network at a finite dimension: what all replicas share, and memory for each."""

    make: Callable[[], _core.Experiment]
    sizes: dict[str, int]
    nbytes: float

    @functools.cached_property
    def core(self) -> _core.Experiment:
        """Made when memory was checked: the teacher takes some, too."""
        return self.make()


# Dimensions are smaller, and so are counts over the dimension: indices then fit into 64 bits.
_LARGEST = 2**31


def _dimension(dim: object, minimum: int) -> int:
    d = _check.integer("dim", dim, minimum=minimum)
    if d >= _LARGEST:
        raise _check.bad("dim", f"less than {_LARGEST}", d)
    return d


def _count(name: str, ratio: float, units: int, d: int) -> int:
    """Return a ratio of `units`, rounded, if there is one at all and not too many."""
    if ratio * units < 1.0 - 1e-9:
        raise _check.bad(name, f"at least 1/{units} at dim = {d}", ratio)
    largest = _LARGEST * (units // d)
    if ratio * units >= largest:
        raise _check.bad(name, f"below {largest / units:.3g} at dim = {d}", ratio)
    return math.floor(ratio * units + 0.5)


def _columns(problem: Problem, d: int) -> dict[str, int]:
    """Return the width of the student, and that of a random teacher."""
    sizes = {"m": _count("kappa", problem.kappa, d, d)}
    if problem.teacher_spectrum is None and problem.kappa_star is not None:
        sizes["m_star"] = _count("kappa_star", problem.kappa_star, d, d)
    return sizes


def _warn_of_rates(problem: Problem, rates: FloatArray, steps: int) -> None:
    """Warn of rates beyond stability among those of so many steps."""
    rates = rates[:steps]
    if rates.max(initial=0.0) > stable_lr(problem):
        warnings.warn(
            f"lr must be below about {stable_lr(problem):.3g} for gradient descent to be stable, "
            f"but was {rates.max():g}",
            UserWarning,
            stacklevel=3,
        )


def _experiment(
    problem: Problem,
    dim: object,
    sensing: object,
    teacher: object,
    sequence: np.random.SeedSequence,
) -> _Experiment:
    _problem(problem)
    d = _dimension(dim, 1)
    sensing = _check.choice("sensing", sensing, ("network", "goe"))
    teacher = _check.choice("teacher", teacher, ("random", "quantile"))
    given = problem.teacher_spectrum is not None
    n = _count("alpha", problem.alpha, d * d, d)
    sizes = {"n": n, **_columns(problem, d)}
    m, size = sizes["m"], d * (d + 1) // 2
    if sensing == "network":
        nbytes = 8.0 * n * d
    elif n > size:
        nbytes = 4.0 * size**2 + 12.0 * 256 * size
    else:
        nbytes = 4.0 * n * size
    nbytes += 16.0 * 8.0 * max(d * m, size) + 64.0 * d * (m + d)
    fixed = given or teacher == "quantile"
    if not fixed:
        nbytes += 8.0 * d * sizes["m_star"]

    def make() -> _core.Experiment:
        return _core.Experiment(
            dim=d,
            width=m,
            samples=n,
            sensing=sensing,
            noise_var=problem.noise_var,
            ridge=problem.ridge,
            init_scale=problem.init_scale,
            teacher=teacher_eigenvalues(problem, d) if fixed else np.empty(0),
            teacher_width=sizes.get("m_star", 0),
            teacher_scale=problem.teacher_scale,
            seed=_check.seed_word(sequence),
        )

    return _Experiment(make, sizes, nbytes)


def _clock(lr: Any, times: FloatArray) -> tuple[FloatArray, NDArray[np.int64]]:
    """Return the learning rates, the last of which repeats, and the steps at `times`."""
    if np.ndim(lr) == 0:
        rate = _check.real("lr", lr, minimum=0.0, strict_minimum=True)
        return np.array([rate]), _check.steps("t", times, 1.0 / rate)
    rates = _check.vector("lr", lr)
    if not len(rates) or not (rates > 0.0).all():
        raise _check.bad("lr", "a positive number, or a sequence of them", rates)
    grid = np.concatenate([[0.0], np.cumsum(rates)])
    slack = _check.GRID_TOLERANCE * np.maximum(times, rates.min())
    steps = np.searchsorted(grid, times - slack)
    if steps[-1] > len(rates):
        raise _check.bad("t", f"at most the sum of lr, {grid[-1]:g}", times)
    if not (np.abs(grid[steps] - times) <= slack).all():
        raise _check.bad("t", "on the grid of the partial sums of lr", times)
    return rates, steps


def simulate(
    problem: Problem,
    t: ArrayLike,
    *,
    dim: int,
    lr: float | Sequence[float] | FloatArray | None = None,
    rtol: float | None = None,
    sensing: str = "network",
    teacher: str = "random",
    eigenvalues: bool = False,
    replicas: int = 1,
    seed: int | np.random.SeedSequence | None = 0,
    threads: int | None = None,
    max_steps: int | None = None,
    throw: bool = True,
    progress: bool | Callable[[float], object] = False,
    checkpoint: PathLike | None = None,
) -> FlowTrajectory:
    """Train the network on samples, by gradient descent or along the gradient flow.

    Parameters
    ----------
    problem : Problem
        The problem.
    t : (T,) array
        Physical times, learning rate times steps. With `lr`, multiples of it.
    dim : int
        The input dimension d; n, m and m* are alpha d^2, kappa d and kappa* d, rounded.
    lr : float or sequence of float, optional
        Gradient descent with this learning rate. A sequence gives that of each step, and `t` is
        then among its partial sums.
    rtol : float, optional
        Instead of `lr`: gradient flow, by an adaptive method with this relative tolerance.
    sensing : {"network", "goe"}
        "network": the quadratic network itself. "goe": its matrices (x x^T - I)/sqrt(d) are
        replaced by independent ones of the standard GOE(d), which has the same second moments.
    teacher : {"random", "quantile"}
        "random": S* = a G G^T/m*, drawn for each replica. "quantile": S* diagonal with
        `teacher_eigenvalues`. Both are the latter for a problem with a `teacher_spectrum`;
        as samples and start are rotation-invariant, that S* is diagonal loses nothing.
    eigenvalues : bool
        Record the eigenvalues of S at all times.
    replicas : int
        Independent samples, teachers and starts. The first r do not depend on how many there are.
    seed : int, SeedSequence or None
        None draws fresh entropy; what was used is in ``origin``.
    threads : int, optional
        Default: the environment variable OVERPARAM_NUM_THREADS, else OpenMP's. No bit of the
        result depends on it.
    max_steps : int, optional
        With `rtol`: largest number of steps of the adaptive method; default 1 000 000.
    throw : bool
        Raise `ConvergenceError` if all replicas diverge, or if one reaches `max_steps`; otherwise
        return what was computed.
    progress : bool or callable
        Show a bar, or call with the fraction done.
    checkpoint : path, optional
        A file from which the same call continues after an interruption, to the same bits; it holds
        the replicas that were done.

    Returns
    -------
    FlowTrajectory
        With the replica axis first. A replica that diverges is marked and NaN from then on.
        ``stats`` has "n", "m" and "m_star", and over all replicas "steps" and "gradients". After an
        interruption it holds the replicas that were done, or else the first until then.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.
    MemoryError
        If the run would need more memory than is free.
    ConvergenceError
        If all replicas diverge, or one reaches `max_steps` or a tolerance that cannot be met; its
        ``result`` holds the trajectories until then.

    Warns
    -----
    UserWarning
        If a learning rate is above `stable_lr`.

    Notes
    -----
    A gradient costs 4 n d m operations; with "goe" it reads the smaller one of n d^2/2 numbers in
    single precision and of half the matrix that the samples make of them, d^4/8 in double.
    Source: ``docs/papers/empirical_flow.md`` section 6.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.empirical_flow.Problem(alpha=0.4, kappa=0.5, kappa_star=0.2, ridge=0.1)
    >>> run = op.empirical_flow.simulate(problem, [0, 1, 10], dim=20, rtol=1e-6, replicas=4)
    >>> run.risk.shape, run.stats["n"], bool((run.risk[:, 2] < run.risk[:, 0]).all())
    ((4, 3), 160, True)
    """
    sequence = _check.seed_sequence(seed)
    experiment = _experiment(problem, dim, sensing, teacher, sequence)
    times = _check.times("t", t)
    rates, steps = np.empty(0), np.empty(0, dtype=np.int64)
    if lr is not None:
        rates, steps = _clock(lr, times)
    if rtol is not None:
        rtol = _check.real("rtol", rtol, minimum=0.0, strict_minimum=True)
    if (lr is None) == (rtol is None):
        raise _check.bad("lr", "given, or else rtol, but not both", lr)
    eigenvalues = _check.boolean("eigenvalues", eigenvalues)
    replicas = _check.replicas(replicas)
    workers = _check.threads(threads)
    if max_steps is not None:
        max_steps = _check.integer("max_steps", max_steps, minimum=1)
        if rtol is None:
            raise _check.bad("max_steps", "None for gradient descent, which t ends", max_steps)
    largest = 1_000_000 if max_steps is None else max_steps
    throw = _check.boolean("throw", throw)
    d = int(dim)
    recorded = 4 + (d if eigenvalues else 0)
    # The explicit method of order 8 keeps thirty vectors of the size of the weights.
    working = experiment.nbytes + (0.0 if rtol is None else 240.0 * d * experiment.sizes["m"])
    _check.memory(
        min(workers, replicas) * working + 24.0 * replicas * len(times) * recorded,
        "the samples and the records",
        "replicas, the times in t, dim, alpha or threads",
    )
    if len(rates):
        _warn_of_rates(problem, rates, int(steps[-1]))
    arrays: dict[str, NDArray[Any]] = {
        "values": np.full((replicas, len(times), recorded), np.nan),
        "ended": np.zeros(replicas, dtype=bool),
        "status": np.full(replicas, Status.SUCCESS.value),
        "steps": np.zeros(replicas, dtype=np.int64),
        "gradients": np.zeros(replicas, dtype=np.int64),
    }
    runs: dict[int, _core.Run] = {}

    def launch(replica: int) -> _core.Run:
        network = _core.Network(experiment.core, replica, workers)
        start = network.start(0)
        if rtol is None:
            return network.descent(start, rates, steps.tolist(), eigenvalues)
        atol = rtol * problem.init_scale / math.sqrt(experiment.sizes["m"])
        return network.flow(start, times, rtol, atol, largest, eigenvalues)

    def note(replica: int) -> None:
        run = runs[replica]
        arrays["values"][replica] = _run.padded(run.values, len(times))
        arrays["steps"][replica], arrays["gradients"][replica] = run.steps, run.evaluations

    def advance(_done: int, budget: int) -> int:
        group = np.flatnonzero(~arrays["ended"])[:workers].tolist()
        if not group:
            return 0
        with _blas.one_thread():
            for replica in group:
                if replica not in runs:
                    runs[replica] = launch(replica)
            active = [runs[replica] for replica in group]
            before = sum(run.evaluations for run in active)
            ended = _core.advance_runs(active, max(1, budget // len(group)), workers)
            count = sum(run.evaluations for run in active) - before
        for replica, finished in zip(group, ended, strict=True):
            if finished:
                note(replica)
                arrays["ended"][replica] = True
                arrays["status"][replica] = runs.pop(replica).status.value
        return max(1, count)

    def fraction() -> float:
        if times[-1] == 0.0:
            return 1.0
        # A checkpoint holds whole replicas: only these are then safely done.
        begun = runs.values() if checkpoint is None else ()
        now = arrays["ended"].sum() + sum(run.time / times[-1] for run in begun)
        return min(1.0, float(now) / replicas)

    def build(status: Status, stats: dict[str, float]) -> FlowTrajectory:
        for replica in runs:
            note(replica)
        # After an interruption the replicas before the first that was not done; or that one.
        shown = max(1, int(np.append(arrays["ended"], False).argmin()))
        values = arrays["values"][:shown]
        diverged = arrays["status"][:shown] == Status.DIVERGED.value
        stopped = arrays["status"][:shown][~diverged].tolist()
        if status is Status.SUCCESS and any(stopped):
            status = Status(max(stopped))
        risk, train_risk, trace, overlap = np.moveaxis(values[..., :4], 2, 0)
        return FlowTrajectory(
            problem=problem,
            inputs={
                "dim": d,
                "lr": None if rtol is not None else rates if len(rates) > 1 else rates[0],
                "rtol": rtol,
                "sensing": sensing,
                "teacher": teacher,
            },
            method="gradient descent" if rtol is None else "gradient flow",
            status=status,
            stats={
                "seconds": stats["seconds"],
                "threads": workers,
                "steps": int(arrays["steps"].sum()),
                "gradients": int(arrays["gradients"].sum()),
                **experiment.sizes,
            },
            origin=make_origin(sequence),
            diverged=diverged,
            t=times,
            risk=risk,
            train_risk=train_risk,
            trace=trace,
            overlap=overlap,
            eigenvalues=values[..., 4:] if eigenvalues else None,
        )

    identity = _run.fingerprint(
        problem,
        function="empirical_flow.simulate",
        t=times,
        dim=d,
        lr=rates,
        rtol=rtol,
        sensing=sensing,
        teacher=teacher,
        eigenvalues=eigenvalues,
        replicas=replicas,
        seed=sequence,
        max_steps=largest,
    )
    result = _run.drive(
        None,
        arrays,
        advance,
        build,
        progress=progress,
        label="empirical_flow.simulate",
        fraction=fraction,
        checkpoint=_run.Checkpoint(checkpoint, identity),
    )
    return conclude(result, throw)


def minimise(
    problem: Problem,
    *,
    dim: int,
    sensing: str = "network",
    teacher: str = "random",
    replicas: int = 1,
    seed: int | np.random.SeedSequence | None = 0,
    tol: float = 1e-8,
    restarts: int = 0,
    max_iterations: int = 100_000,
    threads: int | None = None,
    throw: bool = True,
    progress: bool | Callable[[float], object] = False,
    checkpoint: PathLike | None = None,
) -> LongTime:
    """Minimise the loss of the network on samples, from the start of the flow, by L-BFGS.

    Parameters
    ----------
    problem : Problem
        The problem.
    dim : int
        The input dimension d; n, m and m* are alpha d^2, kappa d and kappa* d, rounded.
    sensing : {"network", "goe"}
        As in `simulate`.
    teacher : {"random", "quantile"}
        As in `simulate`.
    replicas : int
        Independent samples, teachers and starts, the same as those of `simulate`.
    seed : int, SeedSequence or None
        None draws fresh entropy; what was used is in ``origin``.
    tol : float
        Largest entry of the gradient over d at which a minimum counts as reached. Beyond the
        recovery threshold the risk is of order ridge^2, and is good to about 1 % for a `tol` of
        1e-4 ridge^2; much below the default, rounding of the objective stops the search.
    restarts : int
        Further starts of each replica; the lowest objective is kept.
    max_iterations : int
        Largest number of iterations from each start.
    threads : int, optional
        Default: the environment variable OVERPARAM_NUM_THREADS, else OpenMP's. No bit of the
        result depends on it.
    throw : bool
        Raise `ConvergenceError` if a replica does not reach `tol`; otherwise return what was
        computed.
    progress : bool or callable
        Show a bar, or call with the fraction done.
    checkpoint : path, optional
        A file from which the same call continues after an interruption, to the same bits.

    Returns
    -------
    LongTime
        One entry for each replica. `stable` says which reached `tol`; `rank` counts eigenvalues of
        S above 1e-4 of the largest; sigma2, threshold and c are NaN. ``stats`` has "n", "m",
        "m_star", the number of replicas that "converged", their largest "gradient" over d, and the
        "gradients" that were computed.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.
    MemoryError
        If the run would need more memory than is free.
    ConvergenceError
        If a replica does not reach `tol`.

    Notes
    -----
    For kappa < 1 minima other than the lowest may be found at small d: compare medians, or use
    `restarts`. Without a ridge the minimum depends on the start and on the method. Source:
    ``docs/papers/empirical_flow.md`` section 6.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.empirical_flow.Problem(alpha=0.4, kappa=1.0, kappa_star=0.3, ridge=0.1)
    >>> found = op.empirical_flow.minimise(problem, dim=20, replicas=3)
    >>> found.stable, found.stats["converged"]
    (array([ True,  True,  True]), 3)
    """
    from scipy.optimize import minimize

    sequence = _check.seed_sequence(seed)
    experiment = _experiment(problem, dim, sensing, teacher, sequence)
    replicas = _check.replicas(replicas)
    tol = _check.real("tol", tol, minimum=0.0, strict_minimum=True)
    attempts = 1 + _check.integer("restarts", restarts, minimum=0)
    max_iterations = _check.integer("max_iterations", max_iterations, minimum=1)
    workers = _check.threads(threads)
    throw = _check.boolean("throw", throw)
    d, m = int(dim), experiment.sizes["m"]
    _check.memory(experiment.nbytes + 320.0 * d * m, "the samples", "dim or alpha")
    fields = ("risk", "train_risk", "trace", "overlap", "objective", "rank", "gradient")
    arrays: dict[str, NDArray[Any]] = {
        **{name: np.full(replicas, np.nan) for name in fields},
        "gradients": np.zeros(1, dtype=np.int64),
    }

    def minimise_from(network: _core.Network, attempt: int) -> dict[str, float]:
        train_risk, count = np.nan, 0

        def objective(weights: FloatArray) -> tuple[float, FloatArray]:
            nonlocal train_risk, count
            count += 1
            train_risk, gradient = network.loss_gradient(weights.reshape(d, m))
            ridge = 0.5 * problem.ridge * float(np.square(weights).sum()) / d
            return train_risk / 8.0 + ridge, gradient.ravel() / d

        weights = network.start(attempt).ravel()
        # A line search that fails at rounding starts once more, without the old curvature.
        for _ in range(3):
            found = minimize(
                objective,
                weights,
                jac=True,
                method="L-BFGS-B",
                options={
                    "gtol": tol,
                    "ftol": 0.0,
                    "maxiter": max_iterations,
                    "maxfun": 2 * max_iterations,
                },
            )
            weights = found.x
            if found.status != 2:
                break
        value, gradient = objective(weights)
        measured = network.measure(weights.reshape(d, m), train_risk)
        eigenvalues = measured[4:]
        arrays["gradients"] += count
        return {
            **dict(zip(fields[:4], measured[:4].tolist(), strict=True)),
            "objective": value,
            "rank": float((eigenvalues > 1e-4 * eigenvalues[-1]).mean()),
            "gradient": float(np.abs(gradient).max()),
        }

    def advance(done: int, _budget: int) -> int:
        with _blas.one_thread():
            network = _core.Network(experiment.core, done, workers)
            found = [minimise_from(network, attempt) for attempt in range(attempts)]
        lowest = min(found, key=lambda entry: (entry["gradient"] > tol, entry["objective"]))
        for name in fields:
            arrays[name][done] = lowest[name]
        return 1

    def build(status: Status, stats: dict[str, float]) -> LongTime:
        count = int(stats["steps"])
        values = {name: arrays[name][:count] for name in fields}
        gradient = values.pop("gradient")
        converged = gradient <= tol
        if status is Status.SUCCESS and not converged.all():
            status = Status.NOT_CONVERGED
        unknown = np.full(count, np.nan)
        return LongTime(
            problem=problem,
            inputs={"dim": d, "sensing": sensing, "teacher": teacher, "tol": tol},
            method="L-BFGS",
            status=status,
            stats={
                "seconds": stats["seconds"],
                "threads": workers,
                "gradients": int(arrays["gradients"][0]),
                "converged": int(converged.sum()),
                "gradient": float(gradient.max(initial=0.0)),
                **experiment.sizes,
            },
            origin=make_origin(sequence),
            alpha=np.full(count, problem.alpha),
            sigma2=unknown,
            threshold=unknown,
            c=unknown,
            stable=converged,
            diverged=~np.isfinite(values["risk"]),
            **values,
        )

    identity = _run.fingerprint(
        problem,
        function="empirical_flow.minimise",
        dim=d,
        sensing=sensing,
        teacher=teacher,
        replicas=replicas,
        seed=sequence,
        tol=tol,
        restarts=attempts,
        max_iterations=max_iterations,
    )
    result = _run.drive(
        replicas,
        arrays,
        advance,
        build,
        progress=progress,
        label="empirical_flow.minimise",
        checkpoint=_run.Checkpoint(checkpoint, identity),
    )
    return conclude(result, throw)


# ---- dynamical mean-field theory -----------------------------------------------------------------

# Probe noise in the train risk, relative to it, from which on the user is warned.
_PROBE_NOISE = 0.25
# Names of kernels: in the core, in the result.
_KERNELS = {
    "correlation": "correlation",
    "response": "response",
    "memory": "memory",
    "residual": "residual_correlation",
}


@record
class DmftTrajectory(FlowTrajectory):
    """Training curves and two-time kernels from dynamical mean-field theory.

    Every quantity x comes with its standard error ``x_sem`` (NaN for one group of replicas).

    Attributes
    ----------
    t, risk, train_risk, trace, overlap : (T,) array
        As in `FlowTrajectory`.
    risk_sem, train_risk_sem, trace_sem, overlap_sem : (T,) array
        Their standard errors.
    steps : (n + 1,) array of int
        All steps of the run, 0 to n: rows and columns of the kernels.
    step_times : (n + 1,) array
        Their physical times.
    correlation, correlation_sem : (n + 1, n + 1) array
        C(t, s) = (2/d) tr (S_t - S*)(S_s - S*); its diagonal is the risk.
    response, response_sem : (n + 1, n + 1) array
        chi(t, s) = Tr dS_t/dJ_s / d^2 for a field J_s added to the gradient's matrix at step s;
        strictly lower triangular.
    memory, memory_sem : (n + 1, n + 1) array
        M = (I - chi/alpha)^-1, unit lower triangular.
    residual_correlation, residual_correlation_sem : (n + 1, n + 1) array
        C_r = M (C + Delta) M^T, the correlation of residuals; its diagonal is the train risk.
    memory_sum, memory_sum_sem : (n + 1,) array
        sum_s M(t, s), which tends to c of `long_time` in a steady state.

    Notes
    -----
    Source: ``docs/papers/empirical_flow.md`` section 2.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.empirical_flow.Problem(alpha=0.5, kappa=0.5, kappa_star=0.3)
    >>> run = op.empirical_flow.dmft(problem, [0.0, 0.1, 0.2], lr=0.02, dim=20, replicas=4)
    >>> run.memory.shape, run.steps[-1]
    ((11, 11), np.int64(10))
    """

    risk_sem: FloatArray = array_field("time")
    train_risk_sem: FloatArray = array_field("time")
    trace_sem: FloatArray = array_field("time")
    overlap_sem: FloatArray = array_field("time")
    steps: NDArray[np.int64] = array_field("step", dtype=np.int64)
    step_times: FloatArray = array_field("step")
    correlation: FloatArray = array_field("step", "step_2")
    correlation_sem: FloatArray = array_field("step", "step_2")
    response: FloatArray = array_field("step", "step_2")
    response_sem: FloatArray = array_field("step", "step_2")
    memory: FloatArray = array_field("step", "step_2")
    memory_sem: FloatArray = array_field("step", "step_2")
    residual_correlation: FloatArray = array_field("step", "step_2")
    residual_correlation_sem: FloatArray = array_field("step", "step_2")
    memory_sum: FloatArray = array_field("step")
    memory_sum_sem: FloatArray = array_field("step")

    def steady_state(self, *, tolerance: float = 0.02) -> SteadyState:
        """Compare the end of the run with the state after infinitely long times.

        Parameters
        ----------
        tolerance : float
            Change over the second half of the run, relative to the value, beyond which a quantity
            counts as drifting.

        Returns
        -------
        SteadyState

        Raises
        ------
        TypeError, ValueError
            If the tolerance is not a number >= 0, or the run has no step.

        Notes
        -----
        Without a ridge, `long_time` gives the limit of a ridge 0+, which is that of the flow only
        where the minimum is unique: beyond `unique_threshold`. Source:
        ``docs/papers/empirical_flow.md`` section 2.

        Examples
        --------
        >>> import overparam as op
        >>> problem = op.empirical_flow.Problem(alpha=0.5, kappa=1.2, kappa_star=0.8, ridge=0.1)
        >>> run = op.empirical_flow.dmft(problem, [1.0], lr=0.04, dim=30)
        >>> state = run.steady_state()
        >>> bool(state.value[1] > state.limit[1])
        True
        """
        tolerance = _check.real("tolerance", tolerance, minimum=0.0)
        if len(self.steps) < 2:
            raise _check.bad("t", "at least one step long for a drift", self.t)
        problem = cast(Problem, self.problem)
        ridges = np.ravel(self.inputs["ridges"])
        used = min(len(self.steps) - 2, len(ridges) - 1)
        problem = problem.replace(ridge=float(ridges[used]))
        rows = [int(np.searchsorted(self.step_times, 0.5 * self.step_times[-1])), -1]
        values, errors = (
            np.array([np.diagonal(C)[rows], np.diagonal(residual)[rows], total[rows]])
            for C, residual, total in (
                (self.correlation, self.residual_correlation, self.memory_sum),
                (self.correlation_sem, self.residual_correlation_sem, self.memory_sum_sem),
            )
        )
        states = long_time(problem, branch="stable")
        root = int(np.argmin(np.abs(states.risk - values[0, 1])))
        drift = values[:, 1] - values[:, 0]
        return SteadyState(
            problem=problem,
            method="long_time",
            status=Status.SUCCESS,
            origin=self.origin,
            value=values[:, 1],
            value_sem=errors[:, 1],
            limit=np.array([states.risk[root], states.train_risk[root], states.c[root]]),
            drift=drift,
            drift_sem=np.hypot(errors[:, 0], errors[:, 1]),
            drifting=np.abs(drift) > tolerance * np.abs(values[:, 1]),
            tolerance=tolerance,
        )


@record
class SteadyState(Point):
    """The end of a run of `dmft` beside the state after infinitely long times.

    All arrays have an entry for each of `names`: risk, train risk, and the memory sum, c.

    Attributes
    ----------
    value, value_sem : (3,) array
        At the end of the run, with the standard error.
    limit : (3,) array
        Of `long_time`: the stable solution whose risk is nearest.
    drift, drift_sem : (3,) array
        Change over the second half of the run.
    drifting : (3,) array of bool
        Whether the drift exceeds the tolerance times the value.
    tolerance : float
        That tolerance.

    Notes
    -----
    Relaxation is a power law: the distance that is left is of the order of the drift. Source:
    ``docs/papers/empirical_flow.md`` section 2.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.empirical_flow.Problem(alpha=0.5, kappa=1.2, kappa_star=0.8, ridge=0.1)
    >>> run = op.empirical_flow.dmft(problem, [1.0], lr=0.04, dim=30)
    >>> op.empirical_flow.SteadyState.names, run.steady_state().drifting.tolist()
    (('risk', 'train_risk', 'memory_sum'), [True, True, True])
    """

    names: ClassVar[tuple[str, ...]] = ("risk", "train_risk", "memory_sum")

    value: FloatArray = array_field("quantity")
    value_sem: FloatArray = array_field("quantity")
    limit: FloatArray = array_field("quantity")
    drift: FloatArray = array_field("quantity")
    drift_sem: FloatArray = array_field("quantity")
    drifting: BoolArray = array_field("quantity", dtype=np.bool_)
    tolerance: float = array_field()


class _Effective:
    """A run of the effective process at one size of matrices: model, arrays, and what they give."""

    def __init__(
        self,
        problem: Problem,
        dim: int,
        *,
        steps: int,
        replicas: int,
        groups: int,
        probes: int,
        momentum: float,
        lr: FloatArray,
        ridge: FloatArray,
        teacher: str,
        storage: str,
        sequence: np.random.SeedSequence,
    ) -> None:
        self.dim = dim
        self.sizes = _columns(problem, dim)
        fixed = "m_star" not in self.sizes or teacher == "quantile"

        def model(steps: int, teacher: FloatArray) -> _core.EffectiveModel:
            return _core.EffectiveModel(
                dim=dim,
                width=self.sizes["m"],
                steps=steps,
                replicas=replicas,
                groups=groups,
                probes=probes,
                alpha=problem.alpha,
                noise_var=problem.noise_var,
                init_scale=problem.init_scale,
                momentum=momentum,
                lr=lr,
                ridge=ridge,
                teacher=teacher,
                teacher_width=self.sizes.get("m_star", 0),
                teacher_scale=problem.teacher_scale,
                seed=_check.seed_word(sequence),
            )

        none = np.empty(0)

        def layout(steps: int) -> dict[str, tuple[str, list[int]]]:
            return model(steps, none).layout(storage)

        def make() -> _core.EffectiveModel:
            return model(steps, teacher_eigenvalues(problem, dim) if fixed else none)

        self._layout_of, self._make = layout, make
        # Columns of random matrices: a wide student is drawn whole and factored.
        m, m_star = self.sizes["m"], self.sizes.get("m_star", 0)
        self._drawn = replicas * ((3 * m if m > dim else 0) + (0 if fixed else m_star))
        self.steps = steps
        self.layout = self._layout_of(steps)
        self.noise_var = problem.noise_var
        self.arrays: dict[str, NDArray[Any]] = {}

    @functools.cached_property
    def model(self) -> _core.EffectiveModel:
        """Made when memory was checked: the teacher takes some, too."""
        return self._make()

    def nbytes(self, steps: int) -> int:
        """Memory that so many steps need: arrays, kernels of the result, working space."""
        layout = self._layout_of(steps)
        held = sum(math.prod(shape) * np.dtype(kind).itemsize for kind, shape in layout.values())
        groups, rows, _ = layout["memory"][1]
        states = math.prod(layout["W"][1][1:3])
        working = 40 * states * self.dim**2 + 8 * self._drawn * self.dim
        return held + 8 * (2 * groups + 20) * rows**2 + working

    def start(self, threads: int) -> None:
        self.arrays = {name: np.zeros(shape, kind) for name, (kind, shape) in self.layout.items()}
        self.model.start(self.arrays, threads)

    def fields(self, done: int, steps: NDArray[np.int64]) -> dict[str, FloatArray]:
        """Return all quantities by group, NaN beyond the rows done at the requested steps."""
        kernels = {
            name: self.arrays[core][:, :done, :done].copy() for core, name in _KERNELS.items()
        }
        reached = steps[steps < done]

        def at_times(values: FloatArray) -> FloatArray:
            out = np.full((len(values), len(steps)), np.nan)
            out[:, : len(reached)] = values[:, reached]
            return out

        def diagonal(kernel: FloatArray) -> FloatArray:
            return at_times(np.diagonal(kernel, axis1=1, axis2=2))

        return {
            "risk": diagonal(kernels["correlation"]),
            "train_risk": diagonal(kernels["residual_correlation"]),
            "trace": at_times(self.arrays["trace"]),
            "overlap": at_times(self.arrays["overlap"]),
            **kernels,
            "memory_sum": kernels["memory"].sum(axis=2),
        }

    def stein_deviation(self, done: int) -> float:
        """Largest deviation between both sides of Stein's identity at the end, in units of one."""
        last = self.layout["memory"][1][1] - 1
        if done <= last or last == 0:
            return math.nan
        chi, L = (self.arrays[name].mean(axis=0) for name in ("response", "factor"))
        expected = chi[last, :last] @ L[:last, :last]
        measured = self.arrays["stein"].mean(axis=0)[:last]
        largest = np.abs(expected).max()
        return float(np.abs(measured - expected).max() / largest) if largest > 0.0 else 0.0


def _probe_noise(fields: dict[str, FloatArray], reached: NDArray[np.int64], Delta: float) -> Any:
    """Return what the noise of M adds to the train risk at the steps, relative to it."""
    memory = fields["memory"][:, reached]
    groups = len(memory)
    if groups < 2:
        return np.zeros(len(reached))
    deviation = memory - memory.mean(axis=0)
    kernel = fields["correlation"].mean(axis=0) + Delta
    variance = np.einsum("gts,gts->t", deviation @ kernel, deviation) / (groups - 1)
    train = np.diagonal(fields["residual_correlation"].mean(axis=0))[reached]
    return variance / train


def _smaller_size(problem: Problem, dim: int) -> int:
    """Return the size near dim/2 at which the widths of student and teacher are rounded least."""
    ratios = [problem.kappa]
    if problem.teacher_spectrum is None and problem.kappa_star is not None:
        ratios.append(problem.kappa_star)

    def rounding(size: int) -> float:
        return sum(abs(math.floor(ratio * size + 0.5) / size - ratio) for ratio in ratios)

    near = range(max(1, math.ceil(0.4 * dim)), max(1, math.floor(0.6 * dim)) + 1)
    return min(near, key=lambda size: (round(rounding(size), 9), abs(2 * size - dim)))


def dmft(
    problem: Problem,
    t: ArrayLike,
    *,
    lr: float | Sequence[float] | FloatArray,
    dim: int = 100,
    replicas: int = 8,
    groups: int | None = None,
    probes: int = 1,
    teacher: str = "quantile",
    ridges: Sequence[float] | FloatArray | None = None,
    momentum: float = 0.0,
    storage: str = "float64",
    extrapolate: bool = False,
    seed: int | np.random.SeedSequence | None = 0,
    threads: int | None = None,
    throw: bool = True,
    progress: bool | Callable[[float], object] = False,
    checkpoint: PathLike | None = None,
) -> DmftTrajectory:
    """Solve the equations of dynamical mean-field theory, exact in discrete time.

    They describe gradient descent in the limit of high dimension. The kernels are built row by
    row from an effective process in matrices of size `dim`, without iteration.

    Parameters
    ----------
    problem : Problem
        The problem.
    t : (T,) array
        Physical times, learning rate times steps: multiples of `lr`.
    lr : float or sequence of float
        The learning rate. A sequence gives that of each step, and `t` is then among its partial
        sums.
    dim : int
        Size of the matrices of the effective process. The bias of all results is of order 1/dim.
    replicas : int
        Copies of the effective process.
    groups : int, optional
        The replicas of a group share kernels, and groups are independent: results are means over
        the groups, with standard errors between them. Must divide `replicas`; default: the
        largest divisor up to 4. With one group there are no standard errors; with four they have
        3 degrees of freedom, and are themselves uncertain by some 40 %.
    probes : int
        Random directions per replica in which the response is measured.
    teacher : {"quantile", "random"}
        "quantile": the teacher's eigenvalues are `teacher_eigenvalues`, the same for all replicas.
        "random": S* = a G G^T/m*, drawn for each. Both are the former for a problem with a
        `teacher_spectrum`.
    ridges : sequence of float, optional
        The ridge of each step, instead of the problem's; the last one repeats.
    momentum : float
        Of the heavy ball: this fraction, in [0, 1), of the last change of the weights is added
        to the next.
    storage : {"float64", "float32"}
        Precision in which the history is kept; sums are accumulated in double precision.
    extrapolate : bool
        Run at about half of `dim`, too, and extrapolate all results in 1/dim to infinite size.
    seed : int, SeedSequence or None
        None draws fresh entropy; what was used is in ``origin``.
    threads : int, optional
        Default: the environment variable OVERPARAM_NUM_THREADS, else OpenMP's. No bit of the
        result depends on it.
    throw : bool
        Raise `ConvergenceError` if the kernels stop being finite; otherwise return what is.
    progress : bool or callable
        Show a bar, or call with the fraction done.
    checkpoint : path, optional
        A file from which the same call continues after an interruption, to the same bits. It is
        as large as the history.

    Returns
    -------
    DmftTrajectory
        ``stats`` has "m" and "m_star", "memory_gib", "stein_deviation" (largest deviation
        from Stein's identity in the last row of the response, relative to its largest entry) and
        "probe_noise" (largest share of the train risk that comes from noise of the response); with
        `extrapolate` also "dim_coarse" and "size_effect" (largest relative change of the risk).

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.
    MemoryError
        If the history would need more memory than is free.
    ConvergenceError
        If the kernels stop being finite; its ``result`` holds all rows before.

    Warns
    -----
    UserWarning
        If a learning rate is above `stable_lr`, or noise of the measured response makes up much
        of the train risk.

    Notes
    -----
    Step t costs about (6 + 4 K) d^2 min(d, m) operations and one pass over (2 + K) t d^2/2 stored
    numbers for each replica, K = `probes`. Source: ``docs/papers/empirical_flow.md`` section 2.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.empirical_flow.Problem(alpha=0.5, kappa=0.5, kappa_star=0.3, ridge=0.1)
    >>> run = op.empirical_flow.dmft(problem, [0.0, 0.5, 1.0], lr=0.02, dim=20)
    >>> bool((run.risk[1:] < run.risk[0]).all()), run.response[0, 1]
    (True, np.float64(0.0))
    """
    _problem(problem)
    times = _check.times("t", t)
    rates, steps = _clock(lr, times)
    dim = _dimension(dim, 2)
    replicas = _check.replicas(replicas)
    if groups is None:
        groups = max(count for count in range(1, min(4, replicas) + 1) if replicas % count == 0)
    groups = _check.integer("groups", groups, minimum=1)
    if replicas % groups:
        raise _check.bad("groups", f"a divisor of replicas, {replicas}", groups)
    probes = _check.integer("probes", probes, minimum=1)
    teacher = _check.choice("teacher", teacher, ("quantile", "random"))
    weights = np.array([problem.ridge]) if ridges is None else _check.vector("ridges", ridges)
    if len(weights) == 0 or not (weights >= 0.0).all():
        raise _check.bad("ridges", "None or a sequence of numbers >= 0", weights)
    momentum = _check.real("momentum", momentum, minimum=0.0, maximum=1.0, strict_maximum=True)
    storage = _check.choice("storage", storage, ("float64", "float32"))
    extrapolate = _check.boolean("extrapolate", extrapolate)
    sequence = _check.seed_sequence(seed)
    workers = _check.threads(threads)
    throw = _check.boolean("throw", throw)
    sizes = [_smaller_size(problem, dim), dim] if extrapolate else [dim]
    total = int(steps[-1]) + 1
    runs = [
        _Effective(
            problem,
            size,
            steps=total - 1,
            replicas=replicas,
            groups=groups,
            probes=probes,
            momentum=momentum,
            lr=rates,
            ridge=weights,
            teacher=teacher,
            storage=storage,
            sequence=sequence,
        )
        for size in sizes
    ]

    def needed(steps: int) -> int:
        # A checkpoint is read as a whole.
        return sum(run.nbytes(steps) for run in runs) * (1 if checkpoint is None else 2)

    nbytes, free = needed(total - 1), _check.available_memory()
    if nbytes > free:
        fitting = bisect.bisect_right(range(total), free, key=needed)
        _check.memory(
            nbytes,
            "the history",
            f"the steps to t ({max(0, fitting - 1)} fit), dim, replicas or probes, "
            "or take storage='float32'",
        )
    _warn_of_rates(problem, rates, total - 1)
    for run in runs:
        run.start(workers)
    arrays = {f"{run.dim}/{name}": array for run in runs for name, array in run.arrays.items()}
    # Rows at most: a smaller size that diverges ends the larger one at the same row.
    arrays["rows"] = np.array([total])
    grid = (
        rates[0] * np.arange(total)
        if len(rates) == 1
        else np.concatenate([[0.0], np.cumsum(rates)])[:total]
    )

    def advance(done: int, budget: int) -> int:
        run, first = runs[done // total], done % total
        budget = min(budget, int(arrays["rows"][0]) - first)
        if budget == 0:
            return 0
        with _blas.one_thread():
            count = run.model.advance(run.arrays, first, budget, workers)
        if count == 0 and run is not runs[-1]:
            arrays["rows"][0] = first
            return total - first
        return int(count)

    def build(status: Status, stats: dict[str, float]) -> DmftTrajectory:
        units = int(stats.pop("steps"))
        if status is Status.SUCCESS and units < len(runs) * total:
            status = Status.DIVERGED
        rows = max(0, units - (len(runs) - 1) * total)
        final = runs[-1].fields(rows, steps)
        quantities = final
        extra: dict[str, float] = {}
        if extrapolate:
            weight = sizes[1] / (sizes[1] - sizes[0])
            coarse = runs[0].fields(rows, steps)
            quantities = {
                name: weight * values + (1.0 - weight) * coarse[name]
                for name, values in final.items()
            }
            change = quantities["risk"].mean(axis=0) / final["risk"].mean(axis=0) - 1.0
            effect = np.abs(change[steps < rows]).max(initial=0.0)
            extra = {"dim_coarse": sizes[0], "size_effect": float(effect)}
        # The last rows of a diverging run are finite, but their squares may not be.
        with np.errstate(over="ignore", invalid="ignore"):
            noise = _probe_noise(final, steps[steps < rows], problem.noise_var)
            mean = {name: values.mean(axis=0) for name, values in quantities.items()}
            errors = {
                f"{name}_sem": np.std(values, axis=0, ddof=1) / math.sqrt(groups)
                if groups > 1
                else np.full(values.shape[1:], np.nan)
                for name, values in quantities.items()
            }
        result = DmftTrajectory(
            problem=problem,
            inputs={
                "dim": dim,
                "lr": rates if len(rates) > 1 else rates[0],
                "ridges": weights,
                "momentum": momentum,
                "replicas": replicas,
                "groups": groups,
                "probes": probes,
                "teacher": teacher,
                "storage": storage,
                "extrapolate": extrapolate,
            },
            method="dmft",
            status=status,
            stats={
                **stats,
                "steps": max(0, rows - 1),
                "threads": workers,
                **runs[-1].sizes,
                "memory_gib": nbytes / 2**30,
                "stein_deviation": runs[-1].stein_deviation(rows),
                "probe_noise": float(noise.max(initial=0.0)),
                **extra,
            },
            origin=make_origin(sequence),
            t=times,
            steps=np.arange(rows),
            step_times=grid[:rows],
            **mean,
            **errors,
        )
        if noise.max(initial=0.0) > _PROBE_NOISE:
            worst = int(np.argmax(noise))
            warnings.warn(
                f"noise of the measured response makes up {noise[worst]:.0%} of the train risk of "
                f"a group at t = {times[worst]:g}; take more replicas, fewer groups, more probes "
                "or a larger dim",
                UserWarning,
                stacklevel=4,
            )
        return result

    identity = _run.fingerprint(
        problem,
        function="empirical_flow.dmft",
        t=times,
        lr=rates,
        ridge=weights,
        sizes=sizes,
        replicas=replicas,
        groups=groups,
        probes=probes,
        teacher=teacher,
        momentum=momentum,
        storage=storage,
        seed=sequence,
    )
    result = _run.drive(
        len(runs) * total,
        arrays,
        advance,
        build,
        progress=progress,
        label="empirical_flow.dmft",
        checkpoint=_run.Checkpoint(checkpoint, identity),
    )
    return conclude(result, throw)
