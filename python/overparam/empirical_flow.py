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

import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from overparam import _blas, _check, _core, _run, spectra
from overparam._core import Status
from overparam._problem import BaseProblem
from overparam.results import (
    FloatArray,
    PathLike,
    Trajectory,
    array_field,
    conclude,
    make_origin,
    record,
)

__all__ = ["FlowTrajectory", "Problem", "simulate", "stable_lr", "teacher_eigenvalues"]


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
    eigenvalues : (T, d) array, or None
        Those of S in increasing order, where a simulation was asked for them.
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
    eigenvalues: FloatArray | None = array_field("time", "eigenvalue", default=None)


# ---- long times: the static equations ------------------------------------------------------------


# ---- the network itself --------------------------------------------------------------------------


def _problem(problem: object) -> Problem:
    if not isinstance(problem, Problem):
        raise _check.bad("problem", "an overparam.empirical_flow.Problem", problem, TypeError)
    return problem


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
    law = problem.teacher_spectrum
    if law is None:
        law = spectra.marchenko_pastur(problem.kappa_star, problem.teacher_scale)
    atoms = dict(law.atoms)
    pieces = [(position, position) for position in atoms]
    for start, stop in zip(law.edges[::2], law.edges[1::2], strict=True):
        cuts = [start, *(x for x in atoms if start < x < stop), stop]
        pieces += itertools.pairwise(cuts)
    # The law as a list of atoms and of parts of intervals, none across the edge of a bin.
    total, bottom = np.zeros(dim), 0.0
    nodes, weights = np.polynomial.legendre.leggauss(16)
    for left, right in sorted(pieces):
        if left == right:
            top = bottom + atoms[left]
        else:
            top = float(law.cdf(right)) - atoms.get(right, 0.0)
        levels = np.arange(dim + 1) / dim
        levels = np.concatenate([[bottom], levels[(levels > bottom) & (levels < top)], [top]])
        bins = np.minimum((0.5 * (levels[1:] + levels[:-1]) * dim).astype(int), dim - 1)
        if left == right:
            moments = left * np.diff(levels)
        else:
            # By parts, in an angle in which the distribution function is smooth at both ends.
            x = np.concatenate([[left], law.quantile(levels[1:-1]), [right]])
            angles = np.arccos(np.clip(1.0 - 2.0 * (x - left) / (right - left), -1.0, 1.0))
            half = 0.5 * np.diff(angles)[:, np.newaxis]
            theta = 0.5 * (angles[1:] + angles[:-1])[:, np.newaxis] + half * nodes
            below = law.cdf(left + (right - left) * np.sin(0.5 * theta) ** 2)
            rise = 0.5 * (right - left) * np.sin(theta)
            moments = np.diff(x * levels) - ((below * rise * half) @ weights)
        np.add.at(total, bins, moments)
        bottom = top
    return np.sort(np.maximum(total * dim, 0.0))


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
    law = problem.teacher_spectrum
    if law is None:
        law = spectra.marchenko_pastur(problem.kappa_star, problem.teacher_scale)
    start = problem.init_scale**2 * (1.0 + 1.0 / math.sqrt(problem.kappa)) ** 2
    largest = max([start, *law.edges, *(position for position, _ in law.atoms)])
    feedback = (1.0 + 1.0 / math.sqrt(2.0 * problem.alpha)) ** 2
    return 2.0 / (2.0 * largest * feedback + problem.ridge)


class _Experiment(NamedTuple):
    """The network at a finite dimension: what all replicas share, and memory for each."""

    core: _core.Experiment
    sizes: dict[str, int]
    nbytes: float


def _experiment(
    problem: Problem,
    dim: object,
    sensing: object,
    teacher: object,
    sequence: np.random.SeedSequence,
) -> _Experiment:
    _problem(problem)
    d = _check.integer("dim", dim, minimum=1)
    sensing = _check.choice("sensing", sensing, ("network", "goe"))
    teacher = _check.choice("teacher", teacher, ("random", "quantile"))
    given = problem.teacher_spectrum is not None
    for name, units in (("alpha", d * d), ("kappa", d), ("kappa_star", d)):
        value = getattr(problem, name)
        if value * units < 1.0 - 1e-9 and not (given and name == "kappa_star"):
            raise _check.bad(name, f"at least 1/{units} at dim = {d}", value)
    m, n = math.floor(problem.kappa * d + 0.5), math.floor(problem.alpha * d * d + 0.5)
    sizes = {"n": n, "m": m}
    if not given:
        sizes["m_star"] = math.floor(problem.kappa_star * d + 0.5)
    size = d * (d + 1) // 2
    if sensing == "network":
        nbytes = 8.0 * n * d
    elif n > size:
        nbytes = 4.0 * size**2 + 12.0 * 256 * size
    else:
        nbytes = 4.0 * n * size
    core = _core.Experiment(
        dim=d,
        width=m,
        samples=n,
        sensing=sensing,
        noise_var=problem.noise_var,
        ridge=problem.ridge,
        init_scale=problem.init_scale,
        teacher=teacher_eigenvalues(problem, d) if given or teacher == "quantile" else np.empty(0),
        teacher_width=sizes.get("m_star", 0),
        teacher_scale=problem.teacher_scale,
        seed=_check.seed_word(sequence),
    )
    return _Experiment(core, sizes, nbytes + 16.0 * 8.0 * max(d * m, size) + 64.0 * d * (m + d))


def _clock(lr: object, times: FloatArray) -> tuple[FloatArray, NDArray[np.int64]]:
    """Return the learning rates, the last of which repeats, and the steps at `times`."""
    if np.ndim(lr) == 0:  # type: ignore[arg-type]
        rate = _check.real("lr", lr, minimum=0.0, strict_minimum=True)
        return np.array([rate]), _check.steps("t", times, 1.0 / rate)
    rates = _check.vector("lr", lr)
    if not (rates > 0.0).all():
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
    max_steps: int = 1_000_000,
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
    max_steps : int
        Largest number of steps of the adaptive method.
    throw : bool
        Raise `ConvergenceError` if all replicas fail; otherwise return what was computed.
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
        If all replicas fail; its ``result`` holds the trajectory until then.

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
    max_steps = _check.integer("max_steps", max_steps, minimum=1)
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
    if len(rates) and rates.max() > stable_lr(problem):
        warnings.warn(
            f"lr must be below about {stable_lr(problem):.3g} for gradient descent to be stable, "
            f"but was {rates.max():g}",
            UserWarning,
            stacklevel=2,
        )
    arrays: dict[str, NDArray[Any]] = {
        "values": np.full((replicas, len(times), recorded), np.nan),
        "ended": np.zeros(replicas, dtype=bool),
        "failed": np.zeros(replicas, dtype=bool),
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
        return network.flow(start, times, rtol, atol, max_steps, eigenvalues)

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
                arrays["failed"][replica] = runs.pop(replica).status is not Status.SUCCESS
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
            diverged=arrays["failed"][:shown],
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
        max_steps=max_steps,
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
