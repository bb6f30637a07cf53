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

__all__ = [
    "DmftTrajectory",
    "FlowTrajectory",
    "Problem",
    "dmft",
    "simulate",
    "stable_lr",
    "teacher_eigenvalues",
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
        ``stats`` has "n", "m" and "m_star", and "gradients" over all replicas.

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
    if (lr is None) == (rtol is None):
        raise _check.bad("lr", "given, or else rtol, but not both", lr)
    if rtol is not None:
        rtol = _check.real("rtol", rtol, minimum=0.0, strict_minimum=True)
        rates, steps = np.empty(0), np.empty(0, dtype=np.int64)
    else:
        rates, steps = _clock(lr, times)
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
        "dim, alpha, threads, replicas or the times in t",
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
        arrays["gradients"][replica] = run.evaluations

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
        now = arrays["ended"].sum() + sum(run.time / times[-1] for run in runs.values())
        return min(1.0, float(now) / replicas)

    def build(status: Status, stats: dict[str, float]) -> FlowTrajectory:
        for replica in runs:
            note(replica)
        started = int(arrays["ended"].sum()) + len(runs)
        values = arrays["values"][:started]
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
                "gradients": int(arrays["gradients"].sum()),
                **experiment.sizes,
            },
            origin=make_origin(sequence),
            diverged=arrays["failed"][:started],
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
        given = problem.teacher_spectrum is not None
        self.dim = dim
        self.width = math.floor(problem.kappa * dim + 0.5)
        teacher_width = 0 if given else math.floor(problem.kappa_star * dim + 0.5)
        fixed = given or teacher == "quantile"
        self.model = _core.EffectiveModel(
            dim=dim,
            width=self.width,
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
            teacher=teacher_eigenvalues(problem, dim) if fixed else np.empty(0),
            teacher_width=teacher_width,
            teacher_scale=problem.teacher_scale,
            seed=_check.seed_word(sequence),
        )
        self.layout = self.model.layout(storage)
        self.noise_var = problem.noise_var
        self.arrays: dict[str, NDArray[Any]] = {}

    @property
    def nbytes(self) -> float:
        """Memory that the run needs: its arrays, kernels of the result, working space."""
        held = sum(
            math.prod(shape) * np.dtype(kind).itemsize for kind, shape in self.layout.values()
        )
        groups, rows, _ = self.layout["memory"][1]
        states = math.prod(self.layout["W"][1][1:3])
        return float(held + 8 * (2 * groups + 20) * rows**2 + 40 * states * self.dim**2)

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
    """Return the size near dim/2 at which width and teacher are rounded least."""

    def rounding(size: int) -> float:
        return abs(math.floor(problem.kappa * size + 0.5) / size - problem.kappa)

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
    ridge: Sequence[float] | FloatArray | None = None,
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
        largest divisor up to 4. With one group there are no standard errors.
    probes : int
        Random directions per replica in which the response is measured.
    teacher : {"quantile", "random"}
        "quantile": the teacher's eigenvalues are `teacher_eigenvalues`, the same for all replicas.
        "random": S* = a G G^T/m*, drawn for each. Both are the former for a problem with a
        `teacher_spectrum`.
    ridge : sequence of float, optional
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
        ``stats`` has "m", "memory_gib", "stein_deviation" (largest deviation from Stein's identity
        for the last row of the response, relative to its largest entry) and "probe_noise" (largest
        share of the train risk that comes from noise of the measured response).

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
    >>> run = op.empirical_flow.dmft(problem, [0.0, 1.0, 2.0], lr=0.05, dim=20)
    >>> bool((run.risk[1:] < run.risk[0]).all()), run.response[0, 1]
    (True, np.float64(0.0))
    """
    _problem(problem)
    times = _check.times("t", t)
    rates, steps = _clock(lr, times)
    dim = _check.integer("dim", dim, minimum=2)
    replicas = _check.replicas(replicas)
    if groups is None:
        groups = max(count for count in range(1, min(4, replicas) + 1) if replicas % count == 0)
    groups = _check.integer("groups", groups, minimum=1)
    if replicas % groups:
        raise _check.bad("groups", f"a divisor of replicas, {replicas}", groups)
    probes = _check.integer("probes", probes, minimum=1)
    teacher = _check.choice("teacher", teacher, ("quantile", "random"))
    ridges = np.array([problem.ridge]) if ridge is None else _check.vector("ridge", ridge)
    if len(ridges) == 0 or not (ridges >= 0.0).all():
        raise _check.bad("ridge", "None or a sequence of numbers >= 0", ridges)
    momentum = _check.real("momentum", momentum, minimum=0.0, maximum=1.0, strict_maximum=True)
    storage = _check.choice("storage", storage, ("float64", "float32"))
    extrapolate = _check.boolean("extrapolate", extrapolate)
    sequence = _check.seed_sequence(seed)
    workers = _check.threads(threads)
    throw = _check.boolean("throw", throw)
    sizes = [_smaller_size(problem, dim), dim] if extrapolate else [dim]
    for size in sizes:
        _check_sizes(problem, size)
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
            ridge=ridges,
            teacher=teacher,
            storage=storage,
            sequence=sequence,
        )
        for size in sizes
    ]
    nbytes = sum(run.nbytes for run in runs)
    fraction = _check.available_memory() / nbytes
    _check.memory(
        nbytes,
        "the history",
        f"the steps to t (about {int(fraction * total)} fit), dim (about "
        f"{int(math.sqrt(fraction) * dim)} fits), replicas or probes, or take storage='float32'",
    )
    if rates.max() > stable_lr(problem):
        warnings.warn(
            f"lr must be below about {stable_lr(problem):.3g} for gradient descent to be stable, "
            f"but was {rates.max():g}",
            UserWarning,
            stacklevel=2,
        )
    for run in runs:
        run.start(workers)
    arrays = {f"{run.dim}/{name}": array for run in runs for name, array in run.arrays.items()}
    grid = (
        rates[0] * np.arange(total)
        if len(rates) == 1
        else np.concatenate([[0.0], np.cumsum(rates)])[:total]
    )

    def advance(done: int, budget: int) -> int:
        run, first = runs[done // total], done % total
        with _blas.one_thread():
            return run.model.advance(run.arrays, first, min(budget, total - first), workers)

    def build(status: Status, stats: dict[str, float]) -> DmftTrajectory:
        units = int(stats.pop("steps"))
        if status is Status.SUCCESS and units < len(runs) * total:
            status = Status.DIVERGED
        rows = max(0, units - (len(runs) - 1) * total)
        final = runs[-1].fields(rows, steps)
        quantities, extra = final, {}
        if extrapolate:
            weight = sizes[1] / (sizes[1] - sizes[0])
            coarse = runs[0].fields(rows, steps)
            quantities = {
                name: weight * values + (1.0 - weight) * coarse[name]
                for name, values in final.items()
            }
            extra = {"dim_coarse": sizes[0]}
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
                "ridge": ridges if len(ridges) > 1 else ridges[0],
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
                "steps": rows,
                "threads": workers,
                "m": runs[-1].width,
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
        ridge=ridges,
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


def _check_sizes(problem: Problem, dim: int) -> None:
    """Refuse matrices so small that student or teacher would have no column."""
    names = ["kappa"] if problem.teacher_spectrum is not None else ["kappa", "kappa_star"]
    for name in names:
        if getattr(problem, name) * dim < 0.5:
            raise _check.bad(name, f"at least 1/{2 * dim} at dim = {dim}", getattr(problem, name))
