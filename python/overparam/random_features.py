"""Random features: a frozen first layer, and a second one that online SGD learns.

A student f(xi) = K^(-1/2) sum_i a_i g(x_i) with pre-activations x_i = W_i . xi/sqrt(N) and a frozen
first layer W in R^{K x N} learns a teacher y(xi) = sum_n v_n g*(B_n . xi/sqrt(N)) + noise from
fresh Gaussian inputs, by the step a <- a - lr e g(x)/sqrt(K) with e = f - y. Time is
tau = steps/K, and the risk eps = E (f - y)^2/2, without the label noise, has the factor 1/2.

`population`, `best_fit` and `modes` are exact for a given first layer, `proportional` for
N, K -> infinity at fixed K/N, `curve` for any N and K and the random first layer on the sphere; all
trajectories are of one class. The equations are derived in ``docs/papers/random_features.md``; the
model is that of Worschech and Rosenow, arXiv 2303.14083.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from overparam import _blas, _check, _core, _run
from overparam._problem import BaseProblem
from overparam.results import (
    FloatArray,
    PathLike,
    Status,
    Trajectory,
    array_field,
    conclude,
    make_origin,
    record,
)

__all__ = ["Problem", "RiskTrajectory", "simulate"]

ACTIVATIONS = ("erf", "relu", "quad", "square", "linear", "sign")
ROWS = ("sphere", "gaussian")

# Eigenvalues of an overlap above minus this count as non-negative, relative to the largest; and
# entries that differ by less than this as equal.
OVERLAP_TOLERANCE = 1e-8


# ---- the problem and its results -----------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Problem(BaseProblem):
    """A student with random features that learns a teacher by online SGD.

    Parameters
    ----------
    dim : int
        Input dimension N.
    width : int or inf
        Width K of the student; infinite in `curve`, for the limit of kernel SGD.
    lr : float
        Learning rate eta > 0 of the step a <- a - eta e g(x)/sqrt(K).
    activation : {"erf", "relu", "quad", "square", "linear", "sign"}
        The student's: erf(x/sqrt 2), max(x, 0), (x^2 - 1)/sqrt 2, x^2, x, sign(x).
    teacher_activation : str, optional
        The teacher's; default the student's.
    teacher_weights : sequence of floats
        The teacher's second layer v.
    teacher_overlap : (M, M) array, optional
        T = B B^T/N, with unit diagonal. None: the identity where B is drawn or absent, taken from B
        where B is given.
    noise_var : float
        Variance of the label noise.
    init_var : float
        Variance of the student's second layer at tau = 0.
    rows : {"sphere", "gaussian"}
        Law of the rows of W: uniform on the sphere of radius sqrt(N), or standard normal.

    Raises
    ------
    TypeError, ValueError
        Naming the argument that is not as described.

    Notes
    -----
    Source: arXiv 2303.14083; ``docs/papers/random_features.md`` section 1.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.random_features.Problem(dim=100, width=200, lr=1.0)
    >>> problem.replace(activation="relu").teacher
    'relu'
    """

    room: ClassVar[str] = "random_features"

    dim: int
    width: int | float
    lr: float
    activation: str = "erf"
    teacher_activation: str | None = None
    teacher_weights: tuple[float, ...] = (1.0,)
    teacher_overlap: tuple[tuple[float, ...], ...] | None = None
    noise_var: float = 0.0
    init_var: float = 0.0
    rows: str = "sphere"

    def __post_init__(self) -> None:
        v = _check.vector("teacher_weights", self.teacher_weights)
        if not len(v):
            raise _check.bad("teacher_weights", "at least one number", v)
        if self.teacher_activation is not None:
            _check.choice("teacher_activation", self.teacher_activation, ACTIVATIONS)
        overlap = None
        if self.teacher_overlap is not None:
            overlap = tuple(map(tuple, _overlap(self.teacher_overlap, len(v)).tolist()))
        self._set(
            dim=_check.integer("dim", self.dim, minimum=1),
            width=_width(self.width),
            lr=_check.real("lr", self.lr, minimum=0.0, strict_minimum=True),
            activation=_check.choice("activation", self.activation, ACTIVATIONS),
            teacher_weights=tuple(v.tolist()),
            teacher_overlap=overlap,
            noise_var=_check.real("noise_var", self.noise_var, minimum=0.0),
            init_var=_check.real("init_var", self.init_var, minimum=0.0),
            rows=_check.choice("rows", self.rows, ROWS),
        )

    @property
    def teacher(self) -> str:
        """The teacher's activation."""
        return self.activation if self.teacher_activation is None else self.teacher_activation

    @property
    def v(self) -> FloatArray:
        """The teacher's second layer, (M,)."""
        return np.array(self.teacher_weights)

    @property
    def T(self) -> FloatArray:
        """The overlap of the teacher's units where B is not given, (M, M)."""
        if self.teacher_overlap is None:
            return np.eye(len(self.teacher_weights))
        return np.array(self.teacher_overlap)


def _width(value: object) -> int | float:
    if isinstance(value, (float, np.floating)):
        if math.isinf(value) and value > 0:
            return math.inf
        if math.isfinite(value) and value == math.floor(value):
            value = int(value)
    must = "an integer >= 1, or inf"
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise _check.bad("width", must, value, TypeError)
    if value < 1:
        raise _check.bad("width", must, value)
    return int(value)


def _overlap(value: object, units: int) -> FloatArray:
    """Return a checked overlap of the teacher's units: symmetric, unit diagonal, PSD."""
    name = "teacher_overlap"
    T = _check.matrix(name, value, (units, units))
    if np.abs(T - T.T).max() > OVERLAP_TOLERANCE:
        raise _check.bad(name, "symmetric", T)
    if np.abs(np.diag(T) - 1.0).max() > OVERLAP_TOLERANCE:
        raise _check.bad(name, "of unit diagonal", T)
    eigenvalues = np.linalg.eigvalsh(T)
    if eigenvalues[0] < -OVERLAP_TOLERANCE * eigenvalues[-1]:
        raise _check.bad(name, f"positive semi-definite (not of {eigenvalues[0]:g})", T)
    return (T + T.T) / 2


@record
class RiskTrajectory(Trajectory):
    """The risk at the requested times tau.

    Attributes
    ----------
    t : (T,) array
        Times tau = steps/K; steps where the width is infinite.
    risk : (T,) array
        eps = E (f - y)^2/2 without the label noise; with the replica axis first in a simulation.
    diverged : (replicas,) array of bool, or None
        Replicas whose values stopped being finite.

    Notes
    -----
    Source: ``docs/papers/random_features.md`` section 1.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.random_features.Problem(dim=100, width=200, lr=1.0)
    """

    time_label: ClassVar[str] = "time τ"
    headline: ClassVar[str] = "risk"

    risk: FloatArray = array_field("time")


# ---- simulation ----------------------------------------------------------------------------------

# A replica has diverged when its risk exceeds the first one, or that of the student zero, by this
# factor: below lr_max no fluctuation is so large, and above it none leads back from there.
DIVERGED = 1e6


def simulate(
    problem: Problem,
    t: ArrayLike,
    *,
    W: ArrayLike | None = None,
    B: ArrayLike | None = None,
    replicas: int = 1,
    teachers: int = 1,
    lr_schedule: Callable[[FloatArray], ArrayLike] | None = None,
    block: int = 128,
    seed: int | np.random.SeedSequence | None = 0,
    threads: int | None = None,
    throw: bool = True,
    progress: bool | Callable[[float], object] = False,
    checkpoint: PathLike | None = None,
) -> RiskTrajectory:
    """Run online SGD of the second layer, with the exact risk at the requested times.

    Parameters
    ----------
    problem : Problem
        With a finite width.
    t : (T,) array
        Times tau = steps/K, each a whole number of steps.
    W : (K, N) array, optional
        First layer of all replicas, with rows of any norm. Default: each replica draws its own by
        the law `rows` of the problem.
    B : (M, N) array, optional
        First layer of the teacher, with rows of any norm. Default: drawn for each replica and
        teacher, uniformly among those with exactly the problem's overlap.
    replicas : int
        Independent runs. The first r do not depend on how many there are.
    teachers : int
        Teachers that share the first layer and the inputs of a replica, each with a student that
        has its own second layer and label noise. `risk` is the mean over them.
    lr_schedule : callable, optional
        The learning rates at an array of times tau, instead of the problem's `lr`. Step n, counted
        from 0, has the rate at n/K.
    block : int
        Inputs whose features are computed together. It changes rounding only.
    seed : int, SeedSequence or None
        None draws fresh entropy; what was used is in ``origin``.
    threads : int, optional
        Default: the environment variable OVERPARAM_NUM_THREADS, else OpenMP's. Replicas run in
        parallel; no bit of the result depends on it.
    throw : bool
        Raise `ConvergenceError` if all replicas diverge; otherwise return what was computed.
    progress : bool or callable
        Show a bar, or call with the fraction done.
    checkpoint : path, optional
        A file from which the same call continues after an interruption, to the same bits.

    Returns
    -------
    RiskTrajectory
        With the replica axis first. A replica that diverges is marked and NaN from then on.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; if B is given with several teachers, or with a
        `teacher_overlap` that is not its own.
    MemoryError
        If the run would need more memory than is free.
    ConvergenceError
        If all replicas diverged; its ``result`` holds the trajectory until then.

    Notes
    -----
    Costs O(N K) operations for each step and O(K^2 N) for each first layer. Near `lr_max` the mean
    over runs is dominated by few of them: compare medians. Source:
    ``docs/papers/random_features.md`` section 3.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.random_features.Problem(dim=50, width=25, lr=1.0)
    >>> op.random_features.simulate(problem, [0, 1, 4], replicas=3, teachers=10).risk.shape
    (3, 3)
    """
    problem = _problem(problem)
    K, N, v = int(problem.width), problem.dim, problem.v
    times = _check.times("t", t)
    weights = np.empty(0) if W is None else _check.matrix("W", W, (K, N))
    units = np.empty(0) if B is None else _given_teacher(problem, B)
    replicas = _check.replicas(replicas)
    teachers = _check.integer("teachers", teachers, minimum=1)
    block = _check.integer("block", block, minimum=1)
    sequence = _check.seed_sequence(seed)
    workers = _check.threads(threads)
    throw = _check.boolean("throw", throw)
    if B is not None and teachers > 1:
        raise _check.bad("teachers", "1 where B is given", teachers)
    steps = _check.steps("t", times, K)
    _check.memory(
        8.0 * (replicas if W is None else 1) * K * (K + N)
        + 8.0 * replicas * teachers * (2 * K + len(v) * N)
        + 8.0 * min(workers, replicas) * block * (K + N)
        + (0 if lr_schedule is None else 8.0 * float(steps[-1])),
        "first layers and their Gram matrices",
        "replicas, teachers, width or block",
    )
    rates = _rates(problem, lr_schedule, int(steps[-1]))
    _blas.load()
    room = _stream(problem, weights, units, replicas, teachers, block, sequence, workers)
    gram = np.array(
        [_gram(room.first_layer(i), problem.activation) for i in range(replicas if W is None else 1)]
    )
    moments = [
        _teacher_moments(problem, room.first_layer(i), room.teachers(i))
        for i in range(1 if W is not None and B is not None else replicas)
    ]
    cross, energy = (np.array([entry[k] for entry in moments]) for k in range(2))
    arrays: dict[str, NDArray[Any]] = {
        "risk": np.full((replicas, len(times)), np.nan),
        "diverged": np.zeros(replicas, dtype=bool),
        "recorded": np.zeros(1, dtype=np.int64),
        "bound": np.full(replicas, np.nan),
        "a": room.start(problem.init_var),
    }
    # A unit of work is a block, so that slices cut none. Blocks start at the recorded steps.
    edges = np.unique(
        np.concatenate(
            [np.arange(a, b, block) for a, b in pairwise(np.append(0, steps))] + [steps[-1:]]
        )
    )

    def record_now() -> None:
        with _blas.one_thread():
            risk = _core.features_risks(gram, cross, energy, arrays["a"], workers)
        i = int(arrays["recorded"][0])
        if i == 0:
            arrays["bound"][:] = DIVERGED * np.maximum(
                risk, (energy.mean(axis=1) + problem.noise_var) / 2
            )
        finite = (risk <= arrays["bound"]) & ~arrays["diverged"]
        arrays["diverged"] |= ~finite
        arrays["risk"][finite, i] = risk[finite]
        arrays["recorded"] += 1

    def advance(done: int, budget: int) -> int:
        end = int(edges[done + budget])
        now = int(edges[done])
        while now < end:
            due = int(steps[arrays["recorded"][0]])
            stop = min(end, due)
            with _blas.one_thread():
                room.advance(rates(now, stop), now, arrays["a"], workers)
            now = stop
            if now == due:
                record_now()
            if arrays["diverged"].all():
                return len(edges) - 1 - done
        return budget

    def build(status: Status, stats: dict[str, float]) -> RiskTrajectory:
        blocks = int(stats["steps"])
        return RiskTrajectory(
            problem=problem,
            inputs={"teachers": teachers, "block": block},
            method="sgd",
            status=status,
            stats={**stats, "steps": int(edges[blocks]), "threads": workers},
            origin=make_origin(sequence),
            diverged=arrays["diverged"],
            t=times,
            risk=arrays["risk"],
        )

    identity = _run.fingerprint(
        problem,
        function="random_features.simulate",
        t=times,
        W=weights,
        B=units,
        replicas=replicas,
        teachers=teachers,
        rates=None if lr_schedule is None else rates(0, int(steps[-1])),
        block=block,
        seed=sequence,
    )
    if steps[0] == 0:
        record_now()
    result = _run.drive(
        len(edges) - 1,
        arrays,
        advance,
        build,
        progress=progress,
        label="random_features.simulate",
        checkpoint=_run.Checkpoint(checkpoint, identity),
    )
    return conclude(result, throw)


def _stream(
    problem: Problem,
    W: FloatArray,
    B: FloatArray,
    replicas: int,
    teachers: int,
    block: int,
    sequence: np.random.SeedSequence,
    threads: int,
) -> _core.FeaturesSimulation:
    """Return first layers, teachers and streams of all replicas; W or B are empty to be drawn."""
    experiment = _core.FeaturesExperiment(
        dim=problem.dim,
        width=int(problem.width),
        replicas=replicas,
        teachers=teachers,
        block=block,
        activation=problem.activation,
        teacher_activation=problem.teacher,
        sphere=problem.rows == "sphere",
        v=problem.v,
        frame=np.empty(0) if B.size else _frame(problem),
        noise_var=problem.noise_var,
        seed=_check.seed_word(sequence),
    )
    return _core.FeaturesSimulation(experiment, W, B, threads)


def _given_teacher(problem: Problem, B: ArrayLike) -> FloatArray:
    """Return a checked first layer of the teacher, whose overlap is that of the problem, if any."""
    units = _check.matrix("B", B, (len(problem.v), problem.dim))
    if problem.teacher_overlap is not None:
        own = units @ units.T / problem.dim
        if np.abs(own - problem.T).max() > OVERLAP_TOLERANCE:
            raise _check.bad("teacher_overlap", "None or B B^T/N where B is given", problem.T)
    return units


def _frame(problem: Problem) -> FloatArray:
    """Return F (M, rank) with F F^T = T, for units sqrt(N) F Q with orthonormal rows of Q."""
    values, vectors = np.linalg.eigh(problem.T)
    kept = values > OVERLAP_TOLERANCE * values[-1]
    if np.count_nonzero(kept) > problem.dim:
        must = "at least the rank of teacher_overlap, for a teacher to be drawn"
        raise _check.bad("dim", must, problem.dim)
    frame: FloatArray = vectors[:, kept] * np.sqrt(values[kept])
    return frame


def _rates(
    problem: Problem, schedule: Callable[[FloatArray], ArrayLike] | None, steps: int
) -> Callable[[int, int], FloatArray]:
    """Return the function of the learning rates of the steps `first` to `end` - 1."""
    if schedule is None:
        return lambda first, end: np.full(end - first, problem.lr)
    if not callable(schedule):
        raise _check.bad("lr_schedule", "a function of times tau, or None", schedule, TypeError)
    all_rates = np.empty(0)
    if steps:
        all_rates = _check.vector("lr_schedule", schedule(np.arange(steps) / problem.width), steps)
    if (all_rates < 0).any():
        raise _check.bad("lr_schedule", "a function with non-negative values", all_rates.min())
    return lambda first, end: all_rates[first:end]


def _gram(W: FloatArray, g: str) -> FloatArray:
    """Return G (K, K)."""
    Q = W @ W.T / W.shape[1]
    A = np.diag(Q)
    return _kernel(g, g, Q, A[:, None], A[None, :])


def _teacher_moments(
    problem: Problem, W: FloatArray, B: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return r (K, teachers) and E y^2 (teachers,) for teachers B (teachers, M, N)."""
    g, h, v, dim = problem.activation, problem.teacher, problem.v, problem.dim
    A, T = np.sum(W * W, axis=1) / dim, B @ B.transpose(0, 2, 1) / dim
    C = np.diagonal(T, axis1=1, axis2=2)
    R = (W @ B.reshape(-1, dim).T / dim).reshape(len(W), len(B), len(v))
    cross: FloatArray = _kernel(g, h, R, A[:, None, None], C[None, :, :]) @ v
    energy: FloatArray = _kernel(h, h, T, C[:, :, None], C[:, None, :]) @ v @ v
    return cross, energy
