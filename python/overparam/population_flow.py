"""Gradient flow of networks with quadratic activation on the population risk.

A student f(x) = x^T S x, S = W W^T with W in R^{d x m}, learns a teacher x^T S* x from Gaussian
inputs. In canonical variables the loss is

    Lc = ||S - S*||_F^2 + kappa (tr S - tr S*)^2 + 2 lam tr S,

kappa = 1/2 for the activation z^2 and 0 for the Wick-ordered z^2 - |w|^2, and gradient flow is
dW/dtau = (S* - S - s I) W with the shift s = kappa (tr S - tr S*) + lam. The teacher is diagonal:
row i of W belongs to its i-th eigenvalue.

`flow` and `simulate` are exact at every finite size, `limit` is exact as d goes to infinity at
fixed m/d = gamma and m*/d = gamma*; all return the same `FlowTrajectory`. The equations are derived
in ``docs/papers/population_flow.md``; the model is that of Martin, Bach and Biroli, arXiv
2311.03794. Times in physical conventions follow from `time_scale`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from overparam import _blas, _check, _core, _run, spectra
from overparam._problem import BaseProblem
from overparam.results import (
    FloatArray,
    PathLike,
    Point,
    Spectrum,
    Status,
    Trajectory,
    array_field,
    conclude,
    distinct_values,
    make_origin,
    record,
)

__all__ = [
    "Asymptotics",
    "CriticalPoint",
    "FlowTrajectory",
    "Problem",
    "RecoveryCount",
    "Uniqueness",
    "angle_law",
    "asymptotics",
    "critical_point",
    "descend",
    "descend_samples",
    "escape_time",
    "flow",
    "gradient",
    "hessian_action",
    "is_unique",
    "limit",
    "limit_spectrum",
    "loss",
    "orthonormal_flow",
    "random_start",
    "recovery_samples",
    "recovery_samples_limit",
    "signed_flow",
    "simulate",
    "time_scale",
]

METHODS = ("direct", "restart", "reduced", "orthonormal", "ode")
FAMILIES = ("gaussian", "orthonormal")

# What the core records at each time, in its order.
FIELDS = ("loss", "distance2", "trace", "overlap", "shift", "shift_integral")

# Values that agree to this fraction count as equal (eigenvalues, multiples of the identity).
EQUAL_TOLERANCE = 1e-12
# The reduced equations need the inverse of the rows of W0 that face the teacher: `auto` takes them
# up to the first condition number, and `method="reduced"` up to the second.
GOOD_CONDITION, WORST_CONDITION = 1e6, 1e10
# Absolute tolerance of the integrators. Where variables vanish with the loss, it is far below the
# square root of any loss of interest.
ATOL = {"reduced": 1e-20, "orthonormal": 1e-20, "limit": 1e-18}
ATOL_WEIGHTS = 1e-15
# Weights that are integrated themselves must not start far below one, at the risk of losing the
# growth of those that matter in the absolute tolerance.
SMALLEST_WEIGHT = 1e-6
# Nodes by which a continuous law enters `limit`, and a continuous teacher `limit_spectrum`.
LAW_NODES, SPECTRUM_NODES = 96, 600
# A density counts as zero below this, in units of one over the mean positive eigenvalue: the first
# for a sharp one, the second for a broadened one. A spectrum counts as wrong if its mass differs
# from one by more than the third.
SHARP_FLOOR, BROAD_FLOOR, MISSING_MASS = 1e-5, 1e-2, 0.02
# Bands narrower than this, relatively, count as atoms.
NARROW = 1e-9
# Heights through which a solution is followed, rounds in which cells without a band are divided,
# and the mass for which they are.
LEVELS, DIVISIONS, CELL_MASS = 50, 10, 1e-3
# Broadening by a continuous teacher, in units of the largest distance between its nodes.
BROADENING = 2.0
# Alternating projections end when the smallest eigenvalue, over the norm, passes one of these.
CERTIFIED, UNCHANGED = 1e-9, 1e-7


# ---- the problem and its results -----------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Problem(BaseProblem):
    """A quadratic student that learns a quadratic teacher, in canonical variables.

    Parameters
    ----------
    teacher_eigenvalues : sequence of at most `dim` floats
        Eigenvalues mu_i >= 0 of S*, in any order; padded with zeros to `dim`. Row i of W belongs to
        entry i.
    dim : int
        Input dimension d.
    width : int
        Width m of the student; may exceed d.
    trace_weight : float
        kappa >= 0: 1/2 for the activation z^2, 0 for the Wick-ordered z^2 - |w|^2.
    ridge : float
        lam >= 0, weight of 2 lam tr S in the loss.

    Raises
    ------
    TypeError, ValueError
        Naming the argument that is not as described. Negative eigenvalues need `signed_flow`.

    Notes
    -----
    Source: arXiv 2311.03794; ``docs/papers/population_flow.md`` section 1.

    Examples
    --------
    >>> import overparam as op
    >>> op.population_flow.Problem(teacher_eigenvalues=[2, 1], dim=4, width=3).mu
    array([2., 1., 0., 0.])
    """

    room: ClassVar[str] = "population_flow"

    teacher_eigenvalues: tuple[float, ...]
    dim: int
    width: int
    trace_weight: float = 0.5
    ridge: float = 0.0

    def __post_init__(self) -> None:
        eigenvalues = _check.vector("teacher_eigenvalues", self.teacher_eigenvalues)
        dim = _check.integer("dim", self.dim, minimum=1)
        if len(eigenvalues) > dim:
            raise _check.bad("teacher_eigenvalues", f"at most dim = {dim} numbers", eigenvalues)
        if (eigenvalues < 0).any():
            must = "non-negative (signed_flow takes teachers of any sign)"
            raise _check.bad("teacher_eigenvalues", must, eigenvalues)
        self._set(
            teacher_eigenvalues=tuple(eigenvalues.tolist()),
            dim=dim,
            width=_check.integer("width", self.width, minimum=1),
            trace_weight=_check.real("trace_weight", self.trace_weight, minimum=0.0),
            ridge=_check.real("ridge", self.ridge, minimum=0.0),
        )

    @property
    def mu(self) -> FloatArray:
        """Eigenvalues of the teacher with the zeros, (d,)."""
        return np.pad(self.teacher_eigenvalues, (0, self.dim - len(self.teacher_eigenvalues)))

    @property
    def teacher_rank(self) -> int:
        """Number of positive eigenvalues of the teacher."""
        return int(np.count_nonzero(self.teacher_eigenvalues))


@record
class FlowTrajectory(Trajectory):
    """Loss and order parameters at the requested times tau.

    `flow`, `simulate` and others give totals; `limit` gives values per dimension.

    Attributes
    ----------
    t : (T,) array
        Times tau.
    loss : (T,) array
        Lc without the ridge term; with the replica axis first in a simulation, like all below.
    distance2 : (T,) array
        ||S - S*||_F^2.
    trace : (T,) array
        tr S.
    overlap : (T,) array
        tr S S*.
    shift : (T,) array
        s = kappa (tr S - tr S*) + lam.
    shift_integral : (T,) array
        Integral of s from 0 to tau.
    train_loss : (T,) array, or None
        Of `descend_samples`: the same loss on the samples, without the ridge term.
    S : (T, d, d) array, or None
        The student's matrix, where it was asked for.
    diverged : (replicas,) array of bool, or None
        Replicas whose values stopped being finite.

    Notes
    -----
    Source: ``docs/papers/population_flow.md`` section 1.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.population_flow.Problem(teacher_eigenvalues=[1.0] * 10, dim=40, width=20)
    >>> run = op.population_flow.simulate(problem, [0.0, 1.0, 2.0], replicas=3)
    >>> run.loss.shape, bool((run.loss[:, 2] < run.loss[:, 0]).all())
    ((3, 3), True)
    """

    time_label: ClassVar[str] = "time τ"
    headline: ClassVar[str] = "loss"

    loss: FloatArray = array_field("time")
    distance2: FloatArray = array_field("time")
    trace: FloatArray = array_field("time")
    overlap: FloatArray = array_field("time")
    shift: FloatArray = array_field("time")
    shift_integral: FloatArray = array_field("time")
    train_loss: FloatArray | None = array_field("time", default=None)
    S: FloatArray | None = array_field("time", "row", "column", default=None)

    def per_dimension(self) -> FlowTrajectory:
        """Return the result in the units of `limit`: loss, distance, trace and overlap over d.

        Returns
        -------
        FlowTrajectory

        Raises
        ------
        ValueError
            If the result has no problem that says what d is.

        Notes
        -----
        Source: ``docs/papers/population_flow.md`` section 4.

        Examples
        --------
        >>> import overparam as op
        >>> problem = op.population_flow.Problem(teacher_eigenvalues=[1.0] * 10, dim=40, width=20)
        >>> run = op.population_flow.simulate(problem, [0.0, 1.0], replicas=3, init="orthonormal")
        >>> run.per_dimension().trace[:, 0].round(12)
        array([0.25, 0.25, 0.25])
        """
        if not isinstance(self.problem, Problem):
            raise _check.bad("problem", "that of a finite network, which has a dim", self.problem)
        from dataclasses import replace

        dim = self.problem.dim
        names = ("loss", "distance2", "trace", "overlap", "train_loss")
        scaled = {name: value / dim for name in names if (value := getattr(self, name)) is not None}
        return replace(self, **scaled)


@record
class CriticalPoint(Point):
    """A point at which the gradient vanishes: S = sum over i in I of (mu_i - s) v_i v_i^T.

    Attributes
    ----------
    shift : float
        s at this point.
    eigenvalues : (n,) array
        mu_i - s for the selected directions, in the order in which they were given.
    loss : float
        Lc without the ridge term.
    hessian_eigenvalues : (k,) array
        Distinct eigenvalues of the Hessian of Lc (ridge included), ascending.
    hessian_multiplicities : (k,) array of int
        Their multiplicities, d m in all.

    Notes
    -----
    Made by `critical_point`. Source: ``docs/papers/population_flow.md`` section 3.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.population_flow.Problem(teacher_eigenvalues=[2, 1], dim=3, width=1)
    >>> point = op.population_flow.critical_point(problem, [1])
    >>> point.hessian.size, int(point.hessian.count_below(0))
    (3, 1)
    """

    shift: float = array_field()
    eigenvalues: FloatArray = array_field("direction")
    loss: float = array_field()
    hessian_eigenvalues: FloatArray = array_field("eigenvalue")
    hessian_multiplicities: NDArray[np.int64] = array_field("eigenvalue", dtype=np.int64)

    @property
    def hessian(self) -> Spectrum:
        """Spectrum of the Hessian."""
        return Spectrum(
            problem=self.problem,
            inputs=self.inputs,
            method=self.method,
            status=self.status,
            origin=self.origin,
            eigenvalues=self.hessian_eigenvalues,
            multiplicities=self.hessian_multiplicities,
        )


@record
class Asymptotics(Point):
    """How the loss approaches its limit from almost every start.

    Attributes
    ----------
    residual : float
        Limit of the loss (without the ridge term).
    exponent : float
        -2 where loss - residual decays like constant tau^exponent, else NaN.
    constant : float
        The constant of that law, else NaN.
    rate : float
        Where loss - residual decays like exp(-rate tau), else NaN.

    Notes
    -----
    Made by `asymptotics`. Source: ``docs/papers/population_flow.md`` section 3.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.population_flow.Problem(teacher_eigenvalues=[1.0, 0.5], dim=9, width=2)
    >>> late = op.population_flow.asymptotics(problem)
    >>> late.regime, late.rate
    ('exponential', 1.0)
    """

    residual: float = array_field()
    exponent: float = array_field()
    constant: float = array_field()
    rate: float = array_field()

    @property
    def regime(self) -> str:
        """The law of the decay: "polynomial" or "exponential"."""
        return "exponential" if np.isnan(self.exponent) else "polynomial"


@record
class RecoveryCount(Point):
    """Numbers of samples at which the teacher becomes the only interpolant.

    Attributes
    ----------
    degrees_of_freedom : float
        Those of a teacher of rank m*: fewer samples never suffice.
    count : float
        The count of Sarao Mannelli et al., which is not the threshold.
    conic : float
        The threshold of conic geometry: half of all draws are unique there.
    conic_sem : float
        Its standard error over the draws.

    Notes
    -----
    Made by `recovery_samples`. Source: ``docs/papers/population_flow.md`` section 5.

    Examples
    --------
    >>> import overparam as op
    >>> counts = op.population_flow.recovery_samples(20, 2)
    >>> counts.degrees_of_freedom, counts.count
    (39.0, 57.0)
    """

    degrees_of_freedom: float = array_field()
    count: float = array_field()
    conic: float = array_field()
    conic_sem: float = array_field()


@record
class Uniqueness(Point):
    """Whether the teacher is the only positive semi-definite interpolant of its labels.

    Attributes
    ----------
    unique : float
        1 if it is, with a certificate; 0 if it is not; NaN if the iteration did not decide.
    margin : float
        Smallest eigenvalue of the certificate (of size one) where it is unique, of the direction
        along which the labels do not change otherwise.
    iterations : float
        Number of alternating projections.

    Notes
    -----
    Made by `is_unique`. Source: ``docs/papers/population_flow.md`` section 5.

    Examples
    --------
    >>> import numpy as np, overparam as op
    >>> X = np.random.default_rng(0).standard_normal((60, 10))
    >>> op.population_flow.is_unique(X, 1).unique
    1.0
    """

    unique: float = array_field()
    margin: float = array_field()
    iterations: float = array_field()


# ---- checks and shared steps ---------------------------------------------------------------------


def _problem(problem: object) -> Problem:
    if not isinstance(problem, Problem):
        raise _check.bad("problem", "an overparam.population_flow.Problem", problem, TypeError)
    return problem


def _weights(name: str, problem: Problem, W: object) -> FloatArray:
    return _check.matrix(name, W, (_problem(problem).dim, problem.width))


def _model(problem: Problem) -> _core.FlowModel:
    return _core.FlowModel(
        mu=problem.mu, width=problem.width, kappa=problem.trace_weight, lam=problem.ridge
    )


class _Numerics(NamedTuple):
    t: FloatArray
    rtol: float
    max_steps: int
    throw: bool
    progress: bool | Callable[[float], object]

    def core(self, method: str, scale: float = 1.0) -> _core.FlowNumerics:
        return _core.FlowNumerics(
            t=self.t * scale,
            rtol=self.rtol,
            atol=ATOL.get(method, ATOL_WEIGHTS),
            max_steps=self.max_steps,
        )


def _numerics(
    t: object,
    rtol: object,
    max_steps: object,
    throw: object,
    progress: bool | Callable[[float], object],
) -> _Numerics:
    return _Numerics(
        _check.times("t", t),
        _check.real("rtol", rtol, minimum=0.0, strict_minimum=True),
        _check.integer("max_steps", max_steps, minimum=1),
        _check.boolean("throw", throw),
        progress,
    )


def _integrate(
    run: _core.Run,
    numerics: _Numerics,
    *,
    label: str,
    method: str,
    problem: Problem | None = None,
    inputs: dict[str, Any] | None = None,
    unit: float = 1.0,
    keep: int = 0,
) -> FlowTrajectory:
    """Run to the end and make the result; `unit` is that of S, whose time is tau * unit."""
    times = numerics.t
    units = np.array([unit**2, unit**2, unit, unit**2, unit, 1.0])

    def advance(_done: int, budget: int) -> int:
        before = run.evaluations
        return 0 if run.advance(budget) else max(1, run.evaluations - before)

    def build(status: Status, stats: dict[str, float]) -> FlowTrajectory:
        values = _run.padded(run.values, len(times))
        fields = values[:, : len(FIELDS)] * units
        ended = run.status if status is Status.SUCCESS else status
        if ended is Status.SUCCESS and not np.isfinite(fields).all():
            ended = Status.DIVERGED
        more: dict[str, Any] = {}
        if keep:
            more["S"] = values[:, len(FIELDS) :].reshape(len(times), keep, keep)
        return FlowTrajectory(
            problem=problem,
            inputs=inputs or {},
            method=method,
            status=ended,
            stats={
                "seconds": stats["seconds"],
                "threads": 1,
                "steps": run.steps,
                "rejected": run.rejected,
                "evaluations": run.evaluations,
                "stiff_steps": run.stiff_steps,
            },
            origin=make_origin(),
            t=times,
            **dict(zip(FIELDS, fields.T, strict=True)),
            **more,
        )

    last = times[-1] * unit
    result = _run.drive(
        None,
        {},
        advance,
        build,
        progress=numerics.progress,
        label=label,
        fraction=lambda: min(1.0, run.time / last) if last > 0.0 else 1.0,
    )
    return conclude(result, numerics.throw)


def _projector_value(mu: FloatArray) -> float | None:
    """Return the eigenvalue of a teacher proportional to a projector; None for another teacher."""
    positive = mu[mu > 0.0]
    if not len(positive) or np.ptp(positive) > EQUAL_TOLERANCE * positive[0]:
        return None
    return float(positive[0])


def _frame_scale(W0: FloatArray) -> float | None:
    """Return s0 where W0^T W0 = s0 I with s0 > 0, else None."""
    if W0.shape[1] > W0.shape[0]:
        return None
    gram = W0.T @ W0
    scale = float(np.trace(gram)) / len(gram)
    off = np.abs(gram - scale * np.eye(len(gram))).max()
    return scale if scale > 0.0 and off <= EQUAL_TOLERANCE * scale else None


# ---- loss and derivatives ------------------------------------------------------------------------


def time_scale(C: float, c_m: float, eta: float) -> float:
    """Return tau per unit of physical time.

    Parameters
    ----------
    C : float
        Prefactor of the physical loss C E[(f_W - f*)^2]; positive.
    c_m : float
        Prefactor of the network c_m sum_j (w_j . x)^2; positive.
    eta : float
        Learning rate of dW/dt = -eta grad L; positive.

    Returns
    -------
    float
        8 C eta c_m: tau = time_scale * t.

    Raises
    ------
    TypeError, ValueError
        If an argument is not a positive number.

    Notes
    -----
    The canonical student matrix is S = c_m W W^T, and the canonical loss Lc = L/(2 C). Other
    conventions are listed in ``docs/conventions.md``. Source: ``docs/papers/population_flow.md``
    section 1.3.

    Examples
    --------
    >>> import overparam as op
    >>> op.population_flow.time_scale(C=0.25, c_m=1.0, eta=1.0)
    2.0
    """
    positive = {
        name: _check.real(name, value, minimum=0.0, strict_minimum=True)
        for name, value in (("C", C), ("c_m", c_m), ("eta", eta))
    }
    return 8.0 * positive["C"] * positive["eta"] * positive["c_m"]


def loss(problem: Problem, W: ArrayLike) -> float:
    """Return the canonical loss Lc, ridge term included.

    Parameters
    ----------
    problem : Problem
        The teacher, kappa and lam.
    W : (d, m) array
        Weights, row i belonging to the teacher's i-th eigenvalue.

    Returns
    -------
    float
        ||S - S*||_F^2 + kappa (tr S - tr S*)^2 + 2 lam tr S.

    Raises
    ------
    TypeError, ValueError
        If `W` is not a matrix of that shape.

    Notes
    -----
    Source: ``docs/papers/population_flow.md`` section 1.2.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.population_flow.Problem(teacher_eigenvalues=[1.0], dim=2, width=1)
    >>> op.population_flow.loss(problem, [[0.0], [0.0]])
    1.5
    """
    weights = _weights("W", problem, W)
    A = weights @ weights.T - np.diag(problem.mu)
    trace = float(np.sum(weights**2))
    kappa, lam = problem.trace_weight, problem.ridge
    return float(np.sum(A**2)) + kappa * float(np.trace(A)) ** 2 + 2.0 * lam * trace


def _force(problem: Problem, W: FloatArray, D: FloatArray) -> FloatArray:
    """Return G D with G = S - S* + s I at W."""
    s = problem.trace_weight * (np.sum(W**2) - problem.mu.sum()) + problem.ridge
    product: FloatArray = W @ (W.T @ D) + (s - problem.mu)[:, None] * D
    return product


def gradient(problem: Problem, W: ArrayLike) -> FloatArray:
    """Return the gradient of the canonical loss with respect to W.

    Parameters
    ----------
    problem : Problem
        The teacher, kappa and lam.
    W : (d, m) array
        Weights.

    Returns
    -------
    (d, m) array
        4 G W with G = S - S* + s I.

    Raises
    ------
    TypeError, ValueError
        If `W` is not a matrix of that shape.

    Notes
    -----
    Source: ``docs/papers/population_flow.md`` section 1.2.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.population_flow.Problem(teacher_eigenvalues=[1.0], dim=2, width=1)
    >>> op.population_flow.gradient(problem, [[1.0], [0.0]])
    array([[0.],
           [0.]])
    """
    weights = _weights("W", problem, W)
    return 4.0 * _force(problem, weights, weights)


def hessian_action(problem: Problem, W: ArrayLike, D: ArrayLike) -> FloatArray:
    """Return the Hessian of the canonical loss at W, applied to D.

    Parameters
    ----------
    problem : Problem
        The teacher, kappa and lam.
    W, D : (d, m) array
        Weights, and the direction.

    Returns
    -------
    (d, m) array
        4 (G D + D W^T W + W D^T W + 2 kappa <W, D> W).

    Raises
    ------
    TypeError, ValueError
        If `W` or `D` is not a matrix of that shape.

    Notes
    -----
    Costs O(d m min(d, m)). Source: ``docs/papers/population_flow.md`` section 3.2.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.population_flow.Problem(teacher_eigenvalues=[1.0], dim=2, width=1)
    >>> op.population_flow.hessian_action(problem, [[1.0], [0.0]], [[1.0], [0.0]])
    array([[12.],
           [ 0.]])
    """
    weights, direction = _weights("W", problem, W), _weights("D", problem, D)
    inner = float(np.sum(weights * direction))
    curved = direction @ (weights.T @ weights) + weights @ (direction.T @ weights)
    curved += 2.0 * problem.trace_weight * inner * weights
    return 4.0 * (_force(problem, weights, direction) + curved)


# ---- exact flow ----------------------------------------------------------------------------------


def random_start(
    problem: Problem,
    *,
    init: str = "gaussian",
    trace: float | None = None,
    seed: int | np.random.SeedSequence | None = 0,
    replica: int = 0,
) -> FloatArray:
    """Draw the weights with which a replica of `simulate` starts.

    Parameters
    ----------
    problem : Problem
        Its `dim` and `width`, and the teacher's trace.
    init : {"gaussian", "orthonormal"}
        Independent normals; or orthonormal columns, uniformly distributed, times a number.
    trace : float, optional
        tr S0, in the mean for "gaussian"; default tr S*.
    seed : int, SeedSequence or None
        None draws fresh entropy.
    replica : int
        Number of the replica, from 0.

    Returns
    -------
    (d, m) array

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or the width is larger than d for "orthonormal".

    Notes
    -----
    Source: ``docs/papers/population_flow.md`` section 2.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.population_flow.Problem(teacher_eigenvalues=[1.0, 1.0], dim=5, width=2)
    >>> W = op.population_flow.random_start(problem, init="orthonormal")
    >>> bool(abs(W.T @ W - [[1, 0], [0, 1]]).max() < 1e-14)
    True
    """
    init, mean = _family(problem, init, trace)
    word = _check.seed_word(_check.seed_sequence(seed))
    replica = _check.integer("replica", replica, minimum=0)
    return _core.flow_start(problem.dim, problem.width, init, mean, word, replica)


def _family(problem: Problem, init: object, trace: float | None) -> tuple[str, float]:
    """Return a checked init and the trace of its S0."""
    name = _check.choice("init", init, FAMILIES)
    if name == "orthonormal" and _problem(problem).width > problem.dim:
        raise _check.bad("init", "gaussian for a width above dim", init)
    mean = float(_problem(problem).mu.sum())
    if trace is not None:
        mean = _check.real("trace", trace, minimum=0.0, strict_minimum=True)
    elif mean == 0.0:
        raise _check.bad("trace", "given where the teacher is zero", trace)
    return name, mean


def flow(
    problem: Problem,
    W0: ArrayLike,
    t: ArrayLike,
    *,
    method: str = "auto",
    keep: bool = False,
    rtol: float = 1e-11,
    max_steps: int = 10_000_000,
    throw: bool = True,
    progress: bool | Callable[[float], object] = False,
) -> FlowTrajectory:
    """Solve gradient flow from given weights, exactly at finite size.

    Parameters
    ----------
    problem : Problem
        The teacher, kappa and lam.
    W0 : (d, m) array
        Weights at tau = 0, row i belonging to the teacher's i-th eigenvalue.
    t : (T,) array
        Times tau, non-negative and strictly increasing.
    method : {"auto", "direct", "restart", "reduced", "orthonormal", "ode"}
        "reduced": the closed solution and r + 2 scalars, for a teacher of rank r <= m; O(d m^2)
        once, then O(m r^2). "orthonormal": both networks multiples of projectors; three scalars.
        "direct": kappa = 0, the closed solution without any integration. "restart": the closed
        solution in segments, for any size and spectrum. "ode": the equation for W, step by step.
        "auto": the cheapest that applies, never "ode".
    keep : bool
        Whether to return the matrices S, (T, d, d).
    rtol : float
        Relative tolerance of the integration of the scalars (of W for "ode").
    max_steps : int
        Largest number of steps.
    throw : bool
        Raise `ConvergenceError` if the end is not reached; otherwise return what was computed.
    progress : bool or callable
        Show a bar, or call with the fraction done.

    Returns
    -------
    FlowTrajectory
        At exactly the times t.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or the method does not apply.
    MemoryError
        If the matrices S would need more memory than is free.
    ConvergenceError
        If the tolerance cannot be met or `max_steps` is used up; its ``result`` holds the
        trajectory until then.

    Warns
    -----
    UserWarning
        If W0 lacks a direction that the teacher needs: it is never learned.

    Notes
    -----
    Losses keep their relative accuracy down to 1e-25 by "reduced" and "orthonormal"; the others
    have an absolute error in S of about 1e-15. Source: ``docs/papers/population_flow.md`` section
    2.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.population_flow.Problem(teacher_eigenvalues=[1.0, 0.5], dim=30, width=6)
    >>> W0 = op.population_flow.random_start(problem, seed=1)
    >>> run = op.population_flow.flow(problem, W0, [0.0, 10.0, 100.0])
    >>> run.method, bool((run.loss[1:] < run.loss[:-1]).all())
    ('reduced', True)
    """
    start = _weights("W0", problem, W0)
    numerics = _numerics(t, rtol, max_steps, throw, progress)
    keep = _check.boolean("keep", keep)
    method = _check.choice("method", method, ("auto", *METHODS))
    if keep:
        size = 8.0 * problem.dim**2
        _check.memory((2.0 * len(numerics.t) + 4.0) * size, "the matrices S", "dim or the times t")
    model = _model(problem)
    _warn_of_missing(problem, start)
    method = _chosen(problem, start, method, keep, model)
    value = _projector_value(problem.mu)
    if method == "orthonormal" and value is not None:
        scale = _frame_scale(start)
        assert scale is not None
        facing = start[problem.mu > 0.0] / np.sqrt(scale)
        cosines2 = np.zeros(problem.width)
        singular = np.linalg.svd(facing, compute_uv=False)
        cosines2[: len(singular)] = np.minimum(singular**2, 1.0)
        run = _core.flow_orthonormal(
            cosines2,
            np.ones(problem.width),
            problem.teacher_rank,
            problem.trace_weight,
            problem.ridge / value,
            scale / value,
            numerics.core(method, value),
        )
    else:
        value = None
        run = model.run(method, start, numerics.core(method), _minimum(problem)[2], keep)
    return _integrate(
        run,
        numerics,
        label="population_flow.flow",
        method=method,
        problem=problem,
        inputs={"rtol": numerics.rtol},
        unit=1.0 if value is None else value,
        keep=problem.dim if keep else 0,
    )


def _warn_of_missing(problem: Problem, W0: FloatArray) -> None:
    facing = W0[problem.mu > 0.0]
    needed = min(facing.shape)
    if needed and np.linalg.matrix_rank(facing) < needed:
        zero = np.flatnonzero((problem.mu > 0.0) & ~W0.any(axis=1))
        which = f"direction {', '.join(map(str, zero))}" if len(zero) else "some direction"
        warnings.warn(
            f"W0 has no component along {which} of the teacher, which is never learned",
            UserWarning,
            stacklevel=3,
        )


def _chosen(
    problem: Problem, W0: FloatArray, method: str, keep: bool, model: _core.FlowModel
) -> str:
    """Return the method that "auto" stands for; refuse one that does not apply."""
    r, m = problem.teacher_rank, problem.width
    automatic = method == "auto"
    if method in ("auto", "orthonormal"):
        applies = _projector_value(problem.mu) is not None and _frame_scale(W0) is not None
        if applies and not keep:
            return "orthonormal"
        if not automatic and applies:
            raise _check.bad("keep", "False for the method orthonormal", keep)
        if not automatic:
            must = (
                "one that applies: orthonormal needs equal teacher eigenvalues and W0 with "
                "orthogonal columns of one length"
            )
            raise _check.bad("method", must, method)
    if method in ("auto", "reduced"):
        fits = 1 <= r <= m
        condition = model.condition(W0) if fits else np.inf
        if condition <= (GOOD_CONDITION if automatic else WORST_CONDITION):
            return "reduced"
        if not automatic:
            must = (
                "one that applies: reduced needs a teacher of rank r with 1 <= r <= width, and r "
                "well-conditioned rows of W0 that face it"
            )
            raise _check.bad("method", must, method)
    if method == "ode" and W0.any() and np.abs(W0).max() < SMALLEST_WEIGHT:
        must = f"one that applies: ode needs weights W0 of at least {SMALLEST_WEIGHT:g}"
        raise _check.bad("method", must, method)
    if method in ("auto", "direct"):
        if problem.trace_weight == 0.0:
            return "direct"
        if not automatic:
            raise _check.bad("method", "one that applies: direct needs trace_weight = 0", method)
    return "restart" if automatic else method


def simulate(
    problem: Problem,
    t: ArrayLike,
    *,
    init: str = "gaussian",
    trace: float | None = None,
    replicas: int = 1,
    seed: int | np.random.SeedSequence | None = 0,
    threads: int | None = None,
    rtol: float = 1e-11,
    max_steps: int = 10_000_000,
    throw: bool = True,
    progress: bool | Callable[[float], object] = False,
    checkpoint: PathLike | None = None,
) -> FlowTrajectory:
    """Solve gradient flow exactly from random weights.

    Parameters
    ----------
    problem : Problem
        The teacher, kappa and lam.
    t : (T,) array
        Times tau, non-negative and strictly increasing.
    init : {"gaussian", "orthonormal"}
        Independent normals; or orthonormal columns, uniformly distributed, times a number.
    trace : float, optional
        tr S0, in the mean for "gaussian"; default tr S*.
    replicas : int
        Independent starts. The first r do not depend on how many there are.
    seed : int, SeedSequence or None
        None draws fresh entropy; what was used is in ``origin``.
    threads : int, optional
        Default: the environment variable OVERPARAM_NUM_THREADS, else OpenMP's. No bit of the
        result depends on it.
    rtol : float
        Relative tolerance of the integration.
    max_steps : int
        Largest number of steps of a replica.
    throw : bool
        Raise `ConvergenceError` if all replicas fail; otherwise return what was computed.
    progress : bool or callable
        Show a bar, or call with the fraction done.
    checkpoint : path, optional
        A file from which the same call continues after an interruption, to the same bits.

    Returns
    -------
    FlowTrajectory
        With the replica axis first. After an interruption it holds the replicas that were done.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.
    MemoryError
        If the run would need more memory than is free.
    ConvergenceError
        If all replicas fail.

    Notes
    -----
    The start of replica k is ``random_start(problem, ..., replica=k)``, whose flow is that of
    `flow`. Source: ``docs/papers/population_flow.md`` section 2.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.population_flow.Problem(teacher_eigenvalues=[1.0] * 10, dim=40, width=20)
    >>> run = op.population_flow.simulate(problem, [0.0, 1.0, 5.0], replicas=4, init="orthonormal")
    >>> run.method, run.mean().loss.shape
    ('orthonormal', (3,))
    """
    init, mean = _family(problem, init, trace)
    numerics = _numerics(t, rtol, max_steps, throw, progress)
    times = numerics.t
    replicas = _check.replicas(replicas)
    sequence = _check.seed_sequence(seed)
    workers = _check.threads(threads)
    # Weights, their blocks and factors for each replica at work.
    working = 64.0 * problem.dim * problem.width + 64.0 * min(problem.dim, problem.width) ** 2
    stored = 16.0 * replicas * len(times) * len(FIELDS)
    _check.memory(
        stored + working * min(workers, replicas),
        "the weights and the records",
        "replicas, the times in t, dim or width",
    )
    value = _projector_value(problem.mu)
    unit = 1.0
    if init == "orthonormal" and value is not None:
        method, unit = "orthonormal", value
    elif 1 <= problem.teacher_rank <= problem.width:
        method = "reduced"
    else:
        method = "restart" if problem.trace_weight > 0.0 else "direct"
    scaled = problem.replace(teacher_eigenvalues=problem.mu / unit, ridge=problem.ridge / unit)
    model, core, limit = _model(scaled), numerics.core(method, unit), _minimum(scaled)[2]
    word = _check.seed_word(sequence)
    units = np.array([unit**2, unit**2, unit, unit**2, unit, 1.0])
    arrays: dict[str, NDArray[Any]] = {
        "values": np.full((replicas, len(times), len(FIELDS)), np.nan)
    }

    def advance(done: int, budget: int) -> int:
        arrays["values"][done : done + budget] = model.simulate(
            init, mean / unit, method, limit, core, word, done, budget, workers
        )
        return budget

    def build(status: Status, stats: dict[str, float]) -> FlowTrajectory:
        values = arrays["values"][: int(stats["steps"])] * units
        return FlowTrajectory(
            problem=problem,
            inputs={"init": init, "trace": mean, "rtol": numerics.rtol},
            method=method,
            status=status,
            stats={**stats, "threads": workers},
            origin=make_origin(sequence),
            diverged=~np.isfinite(values).all(axis=(1, 2)),
            t=times,
            **dict(zip(FIELDS, np.moveaxis(values, 2, 0), strict=True)),
        )

    identity = _run.fingerprint(
        problem,
        function="population_flow.simulate",
        t=times,
        init=init,
        trace=mean,
        replicas=replicas,
        seed=sequence,
        rtol=numerics.rtol,
        max_steps=numerics.max_steps,
    )
    result = _run.drive(
        replicas,
        arrays,
        advance,
        build,
        progress=numerics.progress,
        label="population_flow.simulate",
        checkpoint=_run.Checkpoint(checkpoint, identity),
    )
    return conclude(result, numerics.throw)


def orthonormal_flow(
    cosines2: ArrayLike,
    t: ArrayLike,
    *,
    teacher_width: int,
    trace_weight: float = 0.5,
    ridge: float = 0.0,
    scale: float = 1.0,
    rtol: float = 1e-11,
    max_steps: int = 10_000_000,
    throw: bool = True,
    progress: bool | Callable[[float], object] = False,
) -> FlowTrajectory:
    """Solve gradient flow of orthonormal families from their principal angles alone.

    The teacher is a projector of rank m*, the student starts at s0 times a projector of rank m.

    Parameters
    ----------
    cosines2 : (m,) array
        Squared cosines of the principal angles, one for each direction of the student; zero for
        those orthogonal to the teacher, so at most m* are positive.
    t : (T,) array
        Times tau, non-negative and strictly increasing.
    teacher_width : int
        m*.
    trace_weight : float
        kappa >= 0.
    ridge : float
        lam >= 0.
    scale : float
        s0 > 0.
    rtol : float
        Relative tolerance of the integration of the scalars.
    max_steps : int
        Largest number of steps.
    throw : bool
        Raise `ConvergenceError` if the end is not reached; otherwise return what was computed.
    progress : bool or callable
        Show a bar, or call with the fraction done.

    Returns
    -------
    FlowTrajectory
        Totals, not per dimension.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.
    ConvergenceError
        If the tolerance cannot be met or `max_steps` is used up.

    Notes
    -----
    The cost does not depend on d, and only on the number of different angles. Source:
    ``docs/papers/population_flow.md`` section 2.5.

    Examples
    --------
    >>> import overparam as op
    >>> run = op.population_flow.orthonormal_flow([0.6, 0.3, 0.1, 0, 0], [2.0], teacher_width=3)
    >>> run.trace.round(6)
    array([3.00234])
    """
    cosines, rank = _cosines(cosines2, teacher_width)
    kappa = _check.real("trace_weight", trace_weight, minimum=0.0)
    lam = _check.real("ridge", ridge, minimum=0.0)
    scale = _check.real("scale", scale, minimum=0.0, strict_minimum=True)
    numerics = _numerics(t, rtol, max_steps, throw, progress)
    return _integrate(
        _orthonormal_run(cosines, rank, kappa, lam, scale, numerics),
        numerics,
        label="population_flow.orthonormal_flow",
        method="orthonormal",
        inputs={
            "cosines2": cosines,
            "teacher_width": rank,
            "trace_weight": kappa,
            "ridge": lam,
            "scale": scale,
            "rtol": numerics.rtol,
        },
    )


def _cosines(cosines2: object, teacher_width: object) -> tuple[FloatArray, int]:
    cosines = _check.vector("cosines2", cosines2)
    rank = _check.integer("teacher_width", teacher_width, minimum=1)
    if not len(cosines) or (cosines < 0.0).any() or (cosines > 1.0).any():
        raise _check.bad("cosines2", "at least one number, all between 0 and 1", cosines)
    if np.count_nonzero(cosines) > rank:
        raise _check.bad("cosines2", f"positive for at most teacher_width = {rank}", cosines)
    return cosines, rank


def _orthonormal_run(
    cosines: FloatArray, rank: int, kappa: float, lam: float, scale: float, numerics: _Numerics
) -> _core.Run:
    distinct, counts = np.unique(cosines, return_counts=True)
    return _core.flow_orthonormal(
        distinct, counts.astype(float), rank, kappa, lam, scale, numerics.core("orthonormal")
    )


def escape_time(
    cosines2: ArrayLike,
    *,
    teacher_width: int,
    scale: float = 1.0,
    trace_weight: float = 0.5,
    level: float = 0.5,
) -> float:
    """Return when orthonormal families have left the plateau.

    Parameters
    ----------
    cosines2 : (m,) array
        Squared cosines of the principal angles, as in `orthonormal_flow`.
    teacher_width : int
        m*.
    scale : float
        s0 > 0.
    trace_weight : float
        kappa >= 0.
    level : float
        Fraction of tr(S S*)/m* that is to be reached; positive.

    Returns
    -------
    float
        The first tau at which the overlap is `level` times m*; 0 if it is at the start.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or the overlap never reaches that level.

    Notes
    -----
    For small cosines it is (1/2) log(1/cos^2) + O(1), whatever the widths. Source:
    ``docs/papers/population_flow.md`` section 3.5.

    Examples
    --------
    >>> import overparam as op
    >>> round(op.population_flow.escape_time([1e-4], teacher_width=1), 5)
    5.15249
    """
    from scipy.optimize import brentq

    cosines, rank = _cosines(cosines2, teacher_width)
    scale = _check.real("scale", scale, minimum=0.0, strict_minimum=True)
    kappa = _check.real("trace_weight", trace_weight, minimum=0.0)
    level = _check.real("level", level, minimum=0.0, strict_minimum=True)
    target = level * rank
    if scale * cosines.sum() >= target:
        return 0.0

    def overlaps(t: FloatArray) -> FloatArray:
        numerics = _Numerics(t, 1e-11, 10_000_000, True, False)
        run = _orthonormal_run(cosines, rank, kappa, 0.0, scale, numerics)
        while not run.advance(100_000):
            pass
        return run.values[:, FIELDS.index("overlap")]

    # All is decided once the smallest cosine has grown: growth is at least exp(2 tau) in the end.
    positive = cosines[cosines > 0.0]
    waiting = float(np.log1p(1.0 / (scale * positive.min()))) if len(positive) else 1.0
    grid = np.linspace(0.0, 4.0 * (waiting + 20.0), 1000)
    reached = np.flatnonzero(overlaps(grid) >= target)
    if not len(reached):
        limit = overlaps(grid[-1:])[0] / rank
        raise _check.bad("level", f"one that the overlap reaches (it ends at {limit:.6g})", level)
    high = int(reached[0])

    def missing(tau: float) -> float:
        return float(overlaps(np.array([tau]))[0]) - target

    return float(brentq(missing, grid[high - 1], grid[high], xtol=1e-13, rtol=1e-13))


def signed_flow(
    W_plus: ArrayLike,
    W_minus: ArrayLike,
    teacher: ArrayLike,
    t: ArrayLike,
    *,
    trace_weight: float = 0.5,
    rtol: float = 1e-11,
    max_steps: int = 10_000_000,
    throw: bool = True,
    progress: bool | Callable[[float], object] = False,
) -> FlowTrajectory:
    """Solve gradient flow with a second layer of both signs, S = W+ W+^T - W- W-^T.

    Parameters
    ----------
    W_plus, W_minus : (d, m+) and (d, m-) arrays
        Weights at tau = 0 of the units with second-layer weight +1 and -1.
    teacher : (d,) array
        Eigenvalues of S*, of any sign.
    t : (T,) array
        Times tau, non-negative and strictly increasing.
    trace_weight : float
        kappa >= 0.
    rtol : float
        Relative tolerance of a step.
    max_steps : int
        Largest number of steps.
    throw : bool
        Raise `ConvergenceError` if the end is not reached; otherwise return what was computed.
    progress : bool or callable
        Show a bar, or call with the fraction done.

    Returns
    -------
    FlowTrajectory
        At exactly the times t.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.
    ConvergenceError
        If the tolerance cannot be met or `max_steps` is used up.

    Notes
    -----
    dW+/dtau = -G W+ and dW-/dtau = G W-, so that W+^T W- is conserved. Source:
    ``docs/papers/population_flow.md`` section 1.5.

    Examples
    --------
    >>> import overparam as op
    >>> run = op.population_flow.signed_flow(
    ...     [[0.5], [0.1]], [[0.1], [0.5]], [1.0, -1.0], [0.0, 20.0]
    ... )
    >>> bool(run.loss[1] < 1e-3 * run.loss[0])
    True
    """
    eigenvalues = _check.vector("teacher", teacher)
    dim = len(eigenvalues)
    if dim == 0:
        raise _check.bad("teacher", "at least one number", eigenvalues)
    plus = _check.matrix("W_plus", W_plus, (dim, None))
    minus = _check.matrix("W_minus", W_minus, (dim, None))
    for name, weights in (("W_plus", plus), ("W_minus", minus)):
        if weights.any() and np.abs(weights).max() < SMALLEST_WEIGHT:
            raise _check.bad(name, f"zero, or of at least {SMALLEST_WEIGHT:g} in size", weights)
    kappa = _check.real("trace_weight", trace_weight, minimum=0.0)
    numerics = _numerics(t, rtol, max_steps, throw, progress)
    model = _core.FlowModel(mu=eigenvalues, width=plus.shape[1], kappa=kappa, lam=0.0)
    return _integrate(
        model.signed_run(plus, minus, numerics.core("ode")),
        numerics,
        label="population_flow.signed_flow",
        method="ode",
        inputs={
            "W_plus": plus,
            "W_minus": minus,
            "teacher": eigenvalues,
            "trace_weight": kappa,
            "rtol": numerics.rtol,
        },
    )


# ---- gradient descent ----------------------------------------------------------------------------


def descend(
    problem: Problem,
    W0: ArrayLike,
    steps: int | Sequence[int] | NDArray[np.int64],
    *,
    lr: float,
    throw: bool = True,
    progress: bool | Callable[[float], object] = False,
) -> FlowTrajectory:
    """Perform gradient descent on the population loss, W <- W - lr grad Lc.

    Parameters
    ----------
    problem : Problem
        The teacher, kappa and lam.
    W0 : (d, m) array
        Weights at the start.
    steps : int or (T,) sequence of int
        Number of steps, each of which is recorded; or the numbers of steps, increasing, after
        which to record.
    lr : float
        Learning rate of the canonical loss; positive.
    throw : bool
        Raise `ConvergenceError` if the weights diverge; otherwise return what was computed.
    progress : bool or callable
        Show a bar, or call with the fraction done.

    Returns
    -------
    FlowTrajectory
        At the times tau = 4 lr step, so that small rates approach `flow`; the shift is summed
        accordingly.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.
    ConvergenceError
        If the weights diverge; its ``result`` holds the trajectory until then.

    Notes
    -----
    Stable below lr = 2 over the largest eigenvalue of the Hessian. Source:
    ``docs/papers/population_flow.md`` section 1.3.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.population_flow.Problem(teacher_eigenvalues=[1.0], dim=5, width=2)
    >>> W0 = op.population_flow.random_start(problem)
    >>> run = op.population_flow.descend(problem, W0, [0, 100, 1000], lr=0.01)
    >>> run.t
    array([ 0.,  4., 40.])
    """
    weights = _weights("W0", problem, W0)
    model, rate = _model(problem), 4.0 * _rate(lr)

    def advance(arrays: dict[str, NDArray[Any]], count: int) -> None:
        arrays["sigma"] += model.descend(rate, arrays["W"], count)

    return _descent(
        problem, weights, steps, rate, advance, throw, progress, "population_flow.descend", {}, 1
    )


def _rate(lr: object) -> float:
    return _check.real("lr", lr, minimum=0.0, strict_minimum=True)


def _descent(
    problem: Problem,
    weights: FloatArray,
    steps: object,
    rate: float,
    move: Callable[[dict[str, NDArray[Any]], int], None],
    throw: object,
    progress: bool | Callable[[float], object],
    label: str,
    inputs: dict[str, Any],
    threads: int,
    train: Callable[[FloatArray], float] | None = None,
) -> FlowTrajectory:
    """Descend by `move`, recording after the given steps."""
    counts = _step_counts(steps)
    throw = _check.boolean("throw", throw)
    model = _model(problem)
    arrays: dict[str, NDArray[Any]] = {
        "W": weights.copy(),
        "sigma": np.zeros(1),
        "values": np.full((len(counts), len(FIELDS) + 1), np.nan),
        "recorded": np.zeros(1, dtype=np.int64),
    }

    def record_at(step: int) -> bool:
        """Record if it is time to; return whether the weights are finite."""
        i = int(arrays["recorded"][0])
        finite = bool(np.isfinite(arrays["W"]).all())
        if i < len(counts) and counts[i] == step and finite:
            with np.errstate(over="ignore", invalid="ignore"):
                fields = model.measure(arrays["W"])
            if not np.isfinite(fields).all():
                return False
            arrays["values"][i, :-1] = fields
            arrays["values"][i, len(FIELDS) - 1] = arrays["sigma"][0]
            arrays["values"][i, -1] = np.nan if train is None else train(arrays["W"])
            arrays["recorded"] += 1
        return finite

    def advance(done: int, budget: int) -> int:
        end = done + budget
        while done < end:
            i = int(arrays["recorded"][0])
            stop = min(end, int(counts[i]))
            move(arrays, stop - done)
            done = stop
            if not record_at(done):
                return 0
        return budget

    def build(status: Status, stats: dict[str, float]) -> FlowTrajectory:
        values = arrays["values"]
        complete = int(arrays["recorded"][0]) == len(counts)
        if status is Status.SUCCESS and not complete:
            status = Status.DIVERGED
        more = {} if train is None else {"train_loss": values[:, -1]}
        return FlowTrajectory(
            problem=problem,
            inputs={"lr": rate / 4.0, "steps": counts, **inputs},
            method="gradient descent",
            status=status,
            stats={**stats, "threads": threads},
            origin=make_origin(),
            t=rate * counts.astype(np.float64),
            **dict(zip(FIELDS, values[:, :-1].T, strict=True)),
            **more,
        )

    record_at(0)
    result = _run.drive(int(counts[-1]), arrays, advance, build, progress=progress, label=label)
    return conclude(result, throw)


def _step_counts(steps: object) -> NDArray[np.int64]:
    """Return the numbers of steps after which to record."""
    if isinstance(steps, (int, np.integer)) and not isinstance(steps, bool):
        return np.arange(_check.integer("steps", steps, minimum=1) + 1)
    must = "an integer >= 1, or increasing integers >= 0"
    counts = np.asarray(steps) if isinstance(steps, (Sequence, np.ndarray)) else np.empty(())
    if isinstance(steps, str) or (counts.dtype.kind not in "iu" and counts.shape != (0,)):
        raise _check.bad("steps", must, steps, TypeError)
    if counts.ndim != 1 or not len(counts) or counts[0] < 0 or (np.diff(counts) <= 0).any():
        raise _check.bad("steps", must, steps)
    return counts.astype(np.int64)


def descend_samples(
    problem: Problem,
    X: ArrayLike,
    W0: ArrayLike,
    steps: int | Sequence[int] | NDArray[np.int64],
    *,
    lr: float,
    threads: int | None = None,
    throw: bool = True,
    progress: bool | Callable[[float], object] = False,
) -> FlowTrajectory:
    """Perform gradient descent on the loss of n samples with the teacher's labels.

    Parameters
    ----------
    problem : Problem
        With ``trace_weight=0.5``, that of the activation z^2, for which the loss on many samples is
        the population loss.
    X : (n, d) array
        Inputs, in the teacher's eigenbasis.
    W0 : (d, m) array
        Weights at the start.
    steps : int or (T,) sequence of int
        As in `descend`.
    lr : float
        Learning rate of the canonical loss; positive.
    threads : int, optional
        Default: the environment variable OVERPARAM_NUM_THREADS, else OpenMP's. No bit of the
        result depends on it.
    throw : bool
        Raise `ConvergenceError` if the weights diverge; otherwise return what was computed.
    progress : bool or callable
        Show a bar, or call with the fraction done.

    Returns
    -------
    FlowTrajectory
        `loss` and all others are those of the population; `train_loss` is
        (1/2n) sum_mu (x_mu^T (S - S*) x_mu)^2, whose mean over inputs is `loss`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.
    ConvergenceError
        If the weights diverge.

    Notes
    -----
    Costs O(n d m) a step. Source: ``docs/papers/population_flow.md`` section 5.

    Examples
    --------
    >>> import numpy as np, overparam as op
    >>> problem = op.population_flow.Problem(teacher_eigenvalues=[1.0], dim=6, width=6)
    >>> X = np.random.default_rng(0).standard_normal((40, 6))
    >>> W0 = op.population_flow.random_start(problem, trace=0.1)
    >>> run = op.population_flow.descend_samples(problem, X, W0, [0, 2000], lr=0.02)
    >>> bool(run.train_loss[1] < 1e-3 * run.train_loss[0])
    True
    """
    weights = _weights("W0", problem, W0)
    inputs = _check.matrix("X", X, (None, problem.dim))
    if not len(inputs):
        raise _check.bad("X", "at least one sample", inputs)
    if problem.trace_weight != 0.5:
        raise _check.bad("trace_weight", "0.5 for samples", problem.trace_weight)
    workers = _check.threads(threads)
    rate = 4.0 * _rate(lr)
    labels = np.square(inputs) @ problem.mu

    def move(arrays: dict[str, NDArray[Any]], count: int) -> None:
        with _blas.one_thread():
            traces = _core.quadratic_descend(
                inputs, labels, arrays["W"], rate, problem.ridge, count, workers
            )
        excess = traces - count * problem.mu.sum()
        arrays["sigma"] += rate * (problem.trace_weight * excess + problem.ridge * count)

    def train(W: FloatArray) -> float:
        with _blas.one_thread():
            return 0.5 * _core.quadratic_loss_gradient(inputs, labels, W, workers)[0]

    return _descent(
        problem,
        weights,
        steps,
        rate,
        move,
        throw,
        progress,
        "population_flow.descend_samples",
        {"samples": len(inputs)},
        workers,
        train,
    )


# ---- critical points and asymptotics -------------------------------------------------------------


def critical_point(problem: Problem, selected: Sequence[int]) -> CriticalPoint:
    """Return a critical point of the loss with the spectrum of its Hessian.

    Parameters
    ----------
    problem : Problem
        The teacher, kappa and lam.
    selected : sequence of int
        Distinct indices, from 0, into the padded eigenvalues: the directions that the student has.
        At most min(m, d) of them; may be empty.

    Returns
    -------
    CriticalPoint

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or no critical point has these directions: mu_i > s is
        needed for each.

    Notes
    -----
    Without a ridge every critical point other than the global minima has a negative eigenvalue.
    Source: ``docs/papers/population_flow.md`` sections 3.1 and 3.2.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.population_flow.Problem(teacher_eigenvalues=[2, 1.5, 1, 0.5], dim=6, width=2)
    >>> point = op.population_flow.critical_point(problem, [0, 1])
    >>> point.shift, point.loss, point.hessian.size
    (-0.375, 1.8125, 12)
    """
    mu, m, kappa, lam = _problem(problem).mu, problem.width, problem.trace_weight, problem.ridge
    chosen = _selected(problem, selected)
    n, d = len(chosen), problem.dim
    left = np.delete(mu, chosen)
    missing = float(left.sum())
    s = (lam - kappa * missing) / (1.0 + kappa * n)
    own = mu[chosen] - s
    if (own <= 0.0).any():
        must = f"directions with mu > s, which is {s:.6g} for these"
        raise _check.bad("selected", must, tuple(chosen.tolist()))
    pairs = np.add.outer(own, own)[np.triu_indices(n, 1)]
    radial = np.diag(own) + kappa * np.sqrt(np.outer(own, own))
    parts: list[tuple[FloatArray, int]] = [
        (4.0 * (s - left), m - n),
        (4.0 * np.subtract.outer(mu[chosen], left).ravel(), 1),
        (np.zeros(1), n * (m - n) + len(pairs)),
        (4.0 * pairs, 1),
        (8.0 * np.linalg.eigvalsh(radial).astype(np.float64) if n else np.empty(0), 1),
    ]
    values = np.concatenate([part for part, _ in parts])
    counts = np.concatenate([np.full(len(part), count) for part, count in parts])
    eigenvalues, multiplicities = distinct_values(
        values[counts > 0], counts[counts > 0], EQUAL_TOLERANCE
    )
    assert multiplicities.sum() == d * m
    return CriticalPoint(
        problem=problem,
        inputs={"selected": tuple(chosen.tolist())},
        method="closed form",
        status=Status.SUCCESS,
        origin=make_origin(),
        shift=s,
        eigenvalues=own,
        loss=n * s**2 + float(np.sum(left**2)) + kappa * (missing + n * s) ** 2,
        hessian_eigenvalues=eigenvalues,
        hessian_multiplicities=multiplicities,
    )


def _selected(problem: Problem, selected: object) -> NDArray[np.int64]:
    most = min(problem.width, problem.dim)
    must = f"at most {most} distinct integers from 0 to {problem.dim - 1}"
    chosen = np.asarray(selected) if isinstance(selected, (Sequence, np.ndarray)) else np.empty(())
    if isinstance(selected, str) or (chosen.size and chosen.dtype.kind not in "iu"):
        raise _check.bad("selected", must, selected, TypeError)
    if chosen.ndim != 1:
        raise _check.bad("selected", must, selected, TypeError)
    indices: NDArray[np.int64] = chosen.astype(np.int64)
    if (
        len(indices) > most
        or len(np.unique(indices)) < len(indices)
        or (indices < 0).any()
        or (indices >= problem.dim).any()
    ):
        raise _check.bad("selected", must, selected)
    return indices


def _minimum(problem: Problem) -> tuple[int, float, float]:
    """Return rank, shift and loss (without the ridge term) of the global minimum.

    It has the largest eigenvalues, as many as exceed their own shift.
    """
    mu = np.sort(problem.mu)[::-1]
    kappa, lam = problem.trace_weight, problem.ridge
    left = np.append(np.cumsum(mu[::-1])[::-1], 0.0)
    for n in range(min(problem.width, problem.dim), -1, -1):
        s = (lam - kappa * float(left[n])) / (1.0 + kappa * n)
        if n == 0 or mu[n - 1] > s:
            break
    residual = n * s**2 + float(np.sum(mu[n:] ** 2)) + kappa * (float(left[n]) + n * s) ** 2
    return n, s, residual


def asymptotics(problem: Problem) -> Asymptotics:
    """Return how the loss decays at late times, from almost every start.

    Parameters
    ----------
    problem : Problem
        The teacher, widths, kappa and lam.

    Returns
    -------
    Asymptotics
        With more units than the teacher needs the last phase is slow, loss - residual =
        constant/tau^2; otherwise it is exponential.

    Raises
    ------
    TypeError, ValueError
        If the problem is not one, or its ridge is exactly at the threshold of a direction, where
        the decay is of neither kind.

    Notes
    -----
    The polynomial law is reached slowly: its relative correction decays like the slower of
    log(tau)/tau and tau^(-2/(1 + rho)), rho = kappa (M - r)/(1 + kappa r) with M = min(m, d).
    Source:
    ``docs/papers/population_flow.md`` section 3.4.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.population_flow.Problem(teacher_eigenvalues=[1.0] * 5, dim=40, width=20)
    >>> late = op.population_flow.asymptotics(problem)
    >>> late.regime, late.exponent, round(late.constant, 6)
    ('polynomial', -2.0, 1.193182)
    """
    mu = np.sort(_problem(problem).mu)[::-1]
    kappa, lam = problem.trace_weight, problem.ridge
    most, r = min(problem.width, problem.dim), problem.teacher_rank
    exponent = constant = rate = np.nan
    n, s, residual = _minimum(problem)
    if lam == 0.0 and most > r:
        exponent, residual = -2.0, 0.0
        constant = (most - r) / (4.0 * (1.0 + kappa * (most - r) / (1.0 + kappa * r)))
    else:
        own = mu[:n] - s
        rates = []
        if n:
            # Sizes of learned directions, equal ones together: the trace couples their sums. With a
            # ridge the loss without it is linear in these.
            values, counts = distinct_values(own, np.ones(n, dtype=np.int64), EQUAL_TOLERANCE)
            root = np.sqrt(counts * values)
            sums = np.linalg.eigvalsh(np.diag(values) + kappa * np.outer(root, root))
            rates.append((2.0 if lam > 0.0 else 4.0) * float(sums[0]))
        if n > 1:  # all else among them
            rates.append(2.0 * float(own[-1] + own[-2]))
        gaps = np.subtract.outer(np.unique(mu[:n]), np.unique(mu[n:]))
        if (gaps > 0.0).any():  # learned directions against the others
            rates.append(2.0 * float(gaps[gaps > 0.0].min()))
        if n < most:
            gap = s - float(mu[n])
            if gap <= EQUAL_TOLERANCE * max(s, float(mu[0])):
                raise _check.bad(
                    "ridge", "off the threshold at which a direction is just not learned", lam
                )
            rates.append(2.0 * gap)
        rate = min(rates)
    return Asymptotics(
        problem=problem,
        method="closed form",
        status=Status.SUCCESS,
        origin=make_origin(),
        residual=residual,
        exponent=exponent,
        constant=constant,
        rate=rate,
    )


# ---- the limit of high dimension -----------------------------------------------------------------


def angle_law(gamma: float, gamma_star: float) -> spectra.Law:
    """Return the law of the squared cosines of principal angles of two random subspaces.

    Parameters
    ----------
    gamma, gamma_star : float
        m/d and m*/d, in (0, 1].

    Returns
    -------
    spectra.Law
        Per direction of the student, of mass one. Its `logdet` is per dimension:
        logdet(z) = (1/d) log det(I + z P0 P* P0).

    Raises
    ------
    TypeError, ValueError
        If a ratio is not in (0, 1].

    Notes
    -----
    Source: ``docs/papers/population_flow.md`` section 4.1.

    Examples
    --------
    >>> import overparam as op
    >>> law = op.population_flow.angle_law(0.5, 0.3)
    >>> law.atoms, round(float(law.logdet(3.7)), 9)
    (((0.0, 0.4),), 0.292765117)
    """
    return spectra.Jacobi(gamma, gamma_star, per_dimension=True)


class _Setting(NamedTuple):
    """The laws of S0 and S*, their nodes and weights, and what says so in a result."""

    learner: spectra.Law
    taught: spectra.Law
    student: tuple[FloatArray, FloatArray]
    teacher: tuple[FloatArray, FloatArray]
    kappa_d: float
    lam: float
    inputs: dict[str, Any]


def _law(name: str, value: object, ratio: float, mean: float) -> spectra.Law:
    """Return the law of a family, or a given law with the mean `mean` (its own if NaN)."""
    if isinstance(value, str):
        if _check.choice(name, value, FAMILIES) == "gaussian":
            return spectra.marchenko_pastur(ratio, mean)
        if ratio > 1.0:
            of = "gamma_star" if name == "teacher" else "gamma"
            raise _check.bad(of, "at most 1 for an orthonormal family", ratio)
        masses = [1.0 - ratio, ratio] if ratio < 1.0 else [1.0]
        return spectra.discrete([0.0, mean / ratio][-len(masses) :], masses)
    if not isinstance(value, spectra.Law):
        must = 'one of "gaussian", "orthonormal", or an overparam.spectra.Law'
        raise _check.bad(name, must, value, TypeError)
    lowest = [position for position, _ in value.atoms] + list(value.edges)
    own = value.moments(1)
    if min(lowest) < 0.0 or not own > 0.0:
        raise _check.bad(name, "a law on [0, inf) with a positive mean", value)
    null = sum(mass for position, mass in value.atoms if position == 0.0)
    if abs(min(ratio, 1.0) - (1.0 - null)) > 1e-9:
        of = "gamma_star" if name == "teacher" else "gamma"
        must = f"the rank {1.0 - null:.9g} of the law that {name} is (any value >= 1 for rank 1)"
        raise _check.bad(of, must, ratio)
    return value if np.isnan(mean) else value.scaled(mean / own)


def _setting(
    gamma: float,
    gamma_star: float,
    student: object,
    teacher: object,
    trace: float | None,
    trace_weight_d: float,
    ridge: float,
) -> _Setting:
    gamma = _check.real("gamma", gamma, minimum=0.0, strict_minimum=True)
    gamma_star = _check.real("gamma_star", gamma_star, minimum=0.0, strict_minimum=True)
    own = gamma_star if isinstance(teacher, str) else np.nan
    taught = _law("teacher", teacher, gamma_star, own)
    mean = taught.moments(1)
    if trace is not None:
        mean = _check.real("trace", trace, minimum=0.0, strict_minimum=True)
    learner = _law("student", student, gamma, mean)
    kappa_d = _check.real("trace_weight_d", trace_weight_d, minimum=0.0, allow_inf=True)
    lam = _check.real("ridge", ridge, minimum=0.0)
    return _Setting(
        learner,
        taught,
        learner.quadrature(LAW_NODES),
        taught.quadrature(LAW_NODES),
        kappa_d,
        lam,
        {
            "gamma": gamma,
            "gamma_star": gamma_star,
            "student": student if isinstance(student, str) else repr(student),
            "teacher": teacher if isinstance(teacher, str) else repr(teacher),
            "trace": mean,
            "trace_weight_d": kappa_d,
            "ridge": lam,
        },
    )


def _limit_run(setting: _Setting, numerics: _Numerics) -> _core.Run:
    return _core.flow_limit(
        *setting.student,
        *setting.teacher,
        setting.kappa_d,
        setting.lam,
        numerics.core("limit"),
    )


def limit(
    gamma: float,
    gamma_star: float,
    t: ArrayLike,
    *,
    student: str | spectra.Law = "orthonormal",
    teacher: str | spectra.Law = "orthonormal",
    trace: float | None = None,
    trace_weight_d: float = np.inf,
    ridge: float = 0.0,
    rtol: float = 1e-11,
    max_steps: int = 1_000_000,
    throw: bool = True,
    progress: bool | Callable[[float], object] = False,
) -> FlowTrajectory:
    """Solve gradient flow in the limit d -> inf at fixed m/d and m*/d.

    Parameters
    ----------
    gamma, gamma_star : float
        m/d and m*/d; positive, at most 1 for orthonormal families.
    t : (T,) array
        Times tau, in units in which an orthonormal teacher has eigenvalue 1.
    student : {"orthonormal", "gaussian"} or spectra.Law
        Law of S0: a multiple of a projector, (tr S0/m) G G^T, or any law on [0, inf) whose rank is
        min(gamma, 1). It gives the shape; `trace` gives the mean.
    teacher : {"orthonormal", "gaussian"} or spectra.Law
        Law of S*: a projector, (gamma*/m*) G G^T, or any law on [0, inf) of rank min(gamma*, 1).
    trace : float, optional
        (1/d) tr S0; default that of the teacher.
    trace_weight_d : float
        kappa d. Infinite, as it is in the limit: the hard constraint tr S = tr S*. A finite value
        keeps the largest correction of a finite dimension.
    ridge : float
        lam >= 0; without effect under the hard constraint, which absorbs it.
    rtol : float
        Relative tolerance of the integration.
    max_steps : int
        Largest number of steps.
    throw : bool
        Raise `ConvergenceError` if the end is not reached; otherwise return what was computed.
    progress : bool or callable
        Show a bar, or call with the fraction done.

    Returns
    -------
    FlowTrajectory
        Per dimension. `loss` is `distance2` under the hard constraint, else
        distance2 + trace_weight_d (trace - trace*)^2.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.
    ConvergenceError
        If the tolerance cannot be met or `max_steps` is used up.

    Notes
    -----
    S0 and S* are asymptotically free. All follows from the free log-determinant, which for two
    orthonormal families is the closed one of `angle_law`. Source:
    ``docs/papers/population_flow.md`` sections 4.1 and 4.3.

    Examples
    --------
    >>> import overparam as op
    >>> op.population_flow.limit(0.5, 0.3, [0.25, 1.0]).loss.round(6)
    array([0.240893, 0.115327])
    """
    numerics = _numerics(t, rtol, max_steps, throw, progress)
    setting = _setting(gamma, gamma_star, student, teacher, trace, trace_weight_d, ridge)
    return _integrate(
        _limit_run(setting, numerics),
        numerics,
        label="population_flow.limit",
        method="free log-determinant",
        inputs={**setting.inputs, "rtol": numerics.rtol},
    )


def limit_spectrum(
    gamma: float,
    gamma_star: float,
    t: float,
    *,
    student: str | spectra.Law = "orthonormal",
    teacher: str | spectra.Law = "orthonormal",
    trace: float | None = None,
    trace_weight_d: float = np.inf,
    ridge: float = 0.0,
    points: int = 400,
    rtol: float = 1e-11,
) -> Spectrum:
    """Return the law of the eigenvalues of S(tau) in the limit d -> inf.

    Parameters
    ----------
    gamma, gamma_star : float
        As in `limit`.
    t : float
        The time tau.
    student, teacher, trace, trace_weight_d, ridge
        As in `limit`.
    points : int
        Number of positions at which the density is computed.
    rtol : float
        Relative tolerance of the integration.

    Returns
    -------
    Spectrum
        Density and atoms per dimension; the mass at 0 is 1 - gamma for a student of low rank. For
        a continuous teacher the density is broadened by about a hundredth of the teacher's range.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.
    ConvergenceError
        If bands are too narrow to be resolved, as they become at late times; orthonormal families
        are exact at any time.

    Notes
    -----
    The resolvent of S follows from the free log-determinant at complex arguments. Source:
    ``docs/papers/population_flow.md`` section 4.4.

    Examples
    --------
    >>> import overparam as op
    >>> spectrum = op.population_flow.limit_spectrum(0.5, 0.3, 1.0)
    >>> [(round(position, 4), round(mass, 4)) for position, mass in spectrum.atoms]
    [(0.0, 0.5), (0.3303, 0.2)]
    """
    time = _check.real("t", t, minimum=0.0)
    points = _check.integer("points", points, minimum=10)
    numerics = _numerics([time], rtol, 1_000_000, True, False)
    setting = _setting(gamma, gamma_star, student, teacher, trace, trace_weight_d, ridge)
    inputs = {**setting.inputs, "t": time, "points": points, "rtol": numerics.rtol}
    if time == 0.0:
        start = setting.learner
        if np.isinf(setting.kappa_d):  # the constraint acts at once
            start = start.scaled(setting.taught.moments(1) / start.moments(1))
        return _law_spectrum(start, points, inputs)
    nodes, weights = setting.taught.quadrature(SPECTRUM_NODES)
    run = _limit_run(setting._replace(teacher=(nodes, weights)), numerics)
    while not run.advance(100_000):
        pass
    growth, y = run.values[0, len(FIELDS) :].reshape(2, -1)
    if student == teacher == "orthonormal" and len(nodes) == 2:
        scale = setting.inputs["trace"] / setting.inputs["gamma"]
        return _plane_spectrum(gamma, gamma_star, scale, growth, y, points, inputs)
    # Directions that an eigenspace of S0 and one of S* share.
    atoms = [(0.0, sum(mass for position, mass in setting.learner.atoms if position == 0.0))]
    for value, mass in setting.learner.atoms:
        for mu, share in setting.taught.atoms:
            if value > 0.0 and mass + share > 1.0 + EQUAL_TOLERANCE:
                i = int(np.argmin(np.abs(nodes - mu)))
                grown = 1.0 / (1.0 + np.exp(-growth[i]))
                position = grown / ((1.0 - grown) / value + 2.0 * y[i])
                atoms.append((float(position), mass + share - 1.0))
    unit = float(run.values[0, FIELDS.index("trace")]) / min(setting.inputs["gamma"], 1.0)
    atoms = sorted(atom for atom in atoms if atom[1] > 0.0)
    width = 0.0
    if setting.taught.support is not None:
        width = BROADENING * float(np.diff(nodes[nodes > 0.0]).max())
    resolvent = _Resolvent(setting.learner, weights, growth, y, atoms, unit, width)
    return _curve_spectrum(*resolvent.curve(points), atoms, inputs)


def _plane_spectrum(
    gamma: float,
    gamma_star: float,
    scale: float,
    growth: FloatArray,
    y: FloatArray,
    points: int,
    inputs: dict[str, Any],
) -> Spectrum:
    """Return the spectrum of orthonormal families, the image of the law of angles.

    In the plane of a direction with cos^2 = c the eigenvalue is a ratio of linear functions of c.
    """
    decay, start = np.exp(growth[0] - growth[1]), np.exp(-growth[1])
    null, own = start / scale + 2.0 * y[0] * (start + decay), start / scale
    own += 2.0 * y[1] * (1.0 + start)

    def eigenvalue(c: Any) -> Any:
        return (decay * (1.0 - c) + c) / (null * (1.0 - c) + own * c)

    law = spectra.jacobi(gamma, gamma_star)
    assert law.support is not None
    low, high = law.support
    atoms = [(0.0, 1.0 - gamma)] if gamma < 1.0 else []
    atoms += [(float(eigenvalue(c)), gamma * mass) for c, mass in law.atoms]
    angle = np.pi * (np.arange(points) + 0.5) / points
    c = 0.5 * (low + high) - 0.5 * (high - low) * np.cos(angle)
    grid, edges = eigenvalue(c), np.sort(eigenvalue(np.array([low, high])))
    if edges[1] - edges[0] <= NARROW * edges[1]:
        band = gamma * (1.0 - sum(mass for _, mass in law.atoms))
        atoms.append((float(edges.mean()), band))
        return _curve_spectrum(np.empty(0), np.empty(0), np.empty(0), sorted(atoms), inputs)
    slope = np.abs(null - decay * own) / (null * (1.0 - c) + own * c) ** 2
    values = gamma * law.density(c) / slope
    order = np.argsort(grid)
    return _curve_spectrum(grid[order], values[order], edges, sorted(atoms), inputs)


def _law_spectrum(law: spectra.Law, points: int, inputs: dict[str, Any]) -> Spectrum:
    grid = np.empty(0)
    if law.support is not None:
        low, high = law.support
        angle = np.linspace(0.0, np.pi, points)
        grid = 0.5 * (low + high) - 0.5 * (high - low) * np.cos(angle)
    return _curve_spectrum(grid, law.density(grid), np.array(law.edges), list(law.atoms), inputs)


def _curve_spectrum(
    grid: FloatArray,
    values: FloatArray,
    edges: FloatArray,
    atoms: list[tuple[float, float]],
    inputs: dict[str, Any],
) -> Spectrum:
    positions, masses = np.array(atoms).reshape(-1, 2).T
    total = float(masses.sum() + np.sum(0.5 * (values[1:] + values[:-1]) * np.diff(grid)))
    complete = abs(total - 1.0) < MISSING_MASS
    spectrum = Spectrum(
        inputs=inputs,
        method="free log-determinant",
        status=Status.SUCCESS if complete else Status.NOT_CONVERGED,
        stats={"mass": total},
        origin=make_origin(),
        grid=grid,
        values=values,
        atom_positions=positions,
        atom_masses=masses,
        edges=edges,
    )
    return conclude(spectrum)


class _Resolvent:
    """The resolvent of S from the free log-determinant at complex arguments (section 4.4).

    With x = 2 (tau mu - sigma) and y = k/(1 + e^x) of each teacher node, as `limit` records them.
    `unit` is the size of an eigenvalue, `width` the height above the real axis of the result.
    """

    def __init__(
        self,
        student: spectra.Law,
        weights: FloatArray,
        growth: FloatArray,
        y: FloatArray,
        atoms: list[tuple[float, float]],
        unit: float,
        width: float,
    ) -> None:
        self._student, self._atoms, self._unit = student, atoms, unit
        # Height above the real axis to which a solution is followed down.
        self._sharp = 1e-9 * unit
        self._height = max(self._sharp, width)
        self._floor = (BROAD_FLOOR if width > 0.0 else SHARP_FLOOR) / unit
        kept = weights > 0.0
        self._weights, self._y = weights[kept], y[kept]
        self._grown = 1.0 / (1.0 + np.exp(-growth[kept]))
        self._null = 1.0 / (1.0 + np.exp(growth[kept]))

    def _equation(self, log_b: NDArray[Any], moved: NDArray[Any]) -> NDArray[Any]:
        """Return what must vanish; `moved` is 2 y - L/z, (points, nodes)."""
        w = self._null * np.exp(-log_b)[:, None]
        p = (moved / (w + moved)) @ self._weights
        left = (w / (w + moved)) @ self._weights
        z = -left / p * np.exp(log_b)  # -1/a
        return np.asarray(1.0 - z * self._student.cauchy(z) - p)

    def density(self, x: FloatArray, height: FloatArray | None = None) -> FloatArray:
        """Return the density at positive positions, or that seen from given heights above them."""
        log_b = np.full(len(x), np.log(self._student.moments(1)), dtype=complex)
        step = 1e-6
        last = np.full(len(x), self._height) if height is None else height
        for level in np.geomspace(np.full(len(x), 1e3 * self._unit), last, LEVELS):
            z = x + 1j * level
            moved = 2.0 * self._y - self._grown / z[:, None]
            for _ in range(12):
                value = self._equation(log_b, moved)
                slope = (self._equation(log_b + step, moved) - value) / step
                change = -value / slope
                change *= np.minimum(1.0, 1.0 / np.maximum(np.abs(change), 1e-300))
                log_b = log_b + change
                if np.all(np.abs(change) < 1e-8):
                    break
        w = self._null * np.exp(-log_b)[:, None]
        resolvent = (1.0 + (self._grown / (z[:, None] * (w + moved))) @ self._weights) / z
        for position, mass in self._atoms:
            resolvent -= mass / (z - position)
        density: FloatArray = np.maximum(-resolvent.imag / np.pi, 0.0)
        return density

    def _scan(self) -> tuple[FloatArray, NDArray[np.bool_]]:
        """Return positions that see every band, ascending, and whether they are in one.

        Logarithmic cells in which no band is seen, but some mass from a height of their width, are
        divided.
        """
        ends = self._unit * np.geomspace(1e-6, 1e2, 401)
        low, high = ends[:-1], ends[1:]
        seen: list[FloatArray] = []
        inside: list[NDArray[np.bool_]] = []
        for _ in range(DIVISIONS):
            middle = np.sqrt(low * high)
            seen.append(middle)
            inside.append(self.density(middle) > self._floor)
            low, high = low[~inside[-1]], high[~inside[-1]]
            width = high - low
            if self._height > self._sharp or not len(low):
                break
            mass = self.density(np.sqrt(low * high), width) * width
            low, high = low[mass > CELL_MASS], high[mass > CELL_MASS]
            if not len(low):
                break
            cuts = low[:, None] * (high / low)[:, None] ** (np.arange(5) / 4)
            low, high = cuts[:, :-1].ravel(), cuts[:, 1:].ravel()
        positions, flags = np.concatenate(seen), np.concatenate(inside)
        order = np.argsort(positions)
        return positions[order], flags[order]

    def curve(self, points: int) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return grid, density and edges, by a scan and bisection."""
        coarse, inside = self._scan()
        changes = np.flatnonzero(np.diff(inside.astype(int)))
        if not len(changes):
            return np.empty(0), np.empty(0), np.empty(0)
        low, high = coarse[changes], coarse[changes + 1]
        rising = ~inside[changes]
        for _ in range(30):
            middle = np.sqrt(low * high)
            up = (self.density(middle) > self._floor) != rising
            low, high = np.where(up, middle, low), np.where(up, high, middle)
        edges = np.where(rising, high, low)
        if inside[0]:
            edges = np.append(0.0, edges)
        intervals = edges[: 2 * (len(edges) // 2)].reshape(-1, 2)
        each = max(10, points // len(intervals))
        angle = np.pi * (np.arange(each) + 0.5) / each
        grid = np.concatenate([0.5 * (a + b) - 0.5 * (b - a) * np.cos(angle) for a, b in intervals])
        return grid, self.density(grid), intervals.ravel()


# ---- samples -------------------------------------------------------------------------------------


def recovery_samples(
    dim: int,
    teacher_width: int,
    *,
    draws: int = 1000,
    seed: int | np.random.SeedSequence | None = 0,
) -> RecoveryCount:
    """Return how many samples make the teacher the only interpolant, by three counts.

    Parameters
    ----------
    dim : int
        Input dimension d.
    teacher_width : int
        Rank m* <= d of the teacher.
    draws : int
        Random matrices for the conic threshold, at least 2.
    seed : int, SeedSequence or None
        None draws fresh entropy.

    Returns
    -------
    RecoveryCount

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Notes
    -----
    Source: ``docs/papers/population_flow.md`` section 5.

    Examples
    --------
    >>> import overparam as op
    >>> counts = op.population_flow.recovery_samples(20, 5)
    >>> counts.degrees_of_freedom, counts.count, abs(counts.conic - 123.2) < 3
    (90.0, 105.0, True)
    """
    dim = _check.integer("dim", dim, minimum=1)
    rank = _check.integer("teacher_width", teacher_width, minimum=1)
    if rank > dim:
        raise _check.bad("teacher_width", f"at most dim = {dim}", rank)
    draws = _check.integer("draws", draws, minimum=2)
    sequence = _check.seed_sequence(seed)
    rng = np.random.default_rng(sequence)
    _check.memory(32.0 * dim**2, "a random matrix", "dim")
    at_once = max(1, int(2e6 / dim**2))
    distances = np.concatenate(
        [
            _conic_distances(rng, dim, rank, min(at_once, draws - done))
            for done in range(0, draws, at_once)
        ]
    )
    freedom = dim * rank - rank * (rank - 1) / 2
    return RecoveryCount(
        inputs={"dim": dim, "teacher_width": rank, "draws": draws},
        method="conic geometry",
        status=Status.SUCCESS,
        origin=make_origin(sequence),
        degrees_of_freedom=freedom,
        count=freedom + dim - rank,
        conic=1.0 + float(distances.mean()),
        conic_sem=float(distances.std(ddof=1)) / np.sqrt(draws),
    )


def _conic_distances(rng: np.random.Generator, dim: int, rank: int, draws: int) -> FloatArray:
    """Return squared distances of Gaussian matrices to the cone of the descent directions."""
    G = rng.standard_normal((draws, dim, dim))
    G = 0.5 * (G + G.transpose(0, 2, 1))
    own = G[:, :rank, :rank]
    traces = np.trace(own, axis1=1, axis2=2)
    fixed = np.sum(own**2, axis=(1, 2)) + 2.0 * np.sum(G[:, :rank, rank:] ** 2, axis=(1, 2))
    # min over u of m* u^2 - 2 u tr + sum (lambda - u)_+^2: the slope is piecewise linear in u.
    values = -np.sort(-np.linalg.eigvalsh(G[:, rank:, rank:]), axis=1)
    sums = np.cumsum(np.pad(values, ((0, 0), (1, 0))), axis=1)
    counts = np.arange(values.shape[1] + 1)
    candidates = (traces[:, None] + sums) / (rank + counts)
    beyond = np.sum(values[:, None, :] > candidates[:, :, None], axis=2)
    right = np.argmax(beyond == counts, axis=1)
    u = candidates[np.arange(draws), right]
    excess = np.sum(np.maximum(values - u[:, None], 0.0) ** 2, axis=1)
    return np.asarray(fixed + rank * u**2 - 2.0 * u * traces + excess)


def recovery_samples_limit(gamma_star: float) -> float:
    """Return n/d^2 at the conic threshold as d -> inf.

    Parameters
    ----------
    gamma_star : float
        m*/d in (0, 1].

    Returns
    -------
    float

    Raises
    ------
    TypeError, ValueError
        If `gamma_star` is not in (0, 1].

    Notes
    -----
    Source: ``docs/papers/population_flow.md`` section 5.

    Examples
    --------
    >>> import overparam as op
    >>> round(op.population_flow.recovery_samples_limit(0.25), 7)
    0.2939418
    """
    from scipy.optimize import brentq

    share = _check.real("gamma_star", gamma_star, minimum=0.0, maximum=1.0, strict_minimum=True)
    rest = 1.0 - share

    def slope(u: float) -> float:
        """Return half the derivative with respect to u, over 1 - gamma*."""
        excess = np.sqrt(1.0 - u * u) * (2.0 + u * u) / 3.0 - u * np.arccos(u)
        return 2.0 * share * u - rest * (2.0 / np.pi) * float(excess)

    u = float(brentq(slope, 0.0, 1.0, xtol=1e-16, rtol=1e-15)) if rest > 0.0 else 0.0
    root = np.sqrt(1.0 - u * u)
    phi = (1.0 + 4.0 * u * u) / 8.0 * np.arccos(u) - u * root * (13.0 + 2.0 * u * u) / 24.0
    ends = 0.5 * share**2 + share * rest * (1.0 + 2.0 * u * u)
    return float(ends + 4.0 / np.pi * rest**2 * phi)


def is_unique(X: ArrayLike, teacher_width: int, *, max_iterations: int = 20_000) -> Uniqueness:
    """Decide whether the teacher is the only positive semi-definite interpolant.

    The teacher spans the first `teacher_width` coordinates; only that matters.

    Parameters
    ----------
    X : (n, d) array
        Inputs.
    teacher_width : int
        Rank m* < d of the teacher.
    max_iterations : int
        Largest number of alternating projections.

    Returns
    -------
    Uniqueness
        With status NOT_CONVERGED where the iteration did not decide, which happens at the
        threshold only.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Notes
    -----
    Unique if and only if no H != 0 has x^T H x = 0 on all samples and a positive semi-definite
    block outside the teacher's span. Source: ``docs/papers/population_flow.md`` section 5.

    Examples
    --------
    >>> import numpy as np, overparam as op
    >>> X = np.random.default_rng(0).standard_normal((12, 10))
    >>> op.population_flow.is_unique(X, 1).unique
    0.0
    """
    inputs = _check.matrix("X", X, (None, None))
    n, d = inputs.shape
    rank = _check.integer("teacher_width", teacher_width, minimum=1)
    if not n:
        raise _check.bad("X", "at least one sample", inputs)
    if rank >= d:
        raise _check.bad("teacher_width", f"below the dimension {d} of X", rank)
    max_iterations = _check.integer("max_iterations", max_iterations, minimum=1)
    _check.memory(16.0 * n * d * d, "the linear map of the samples", "the samples or dim")
    unique, margin, iterations = _alternate(inputs, rank, max_iterations)
    return Uniqueness(
        inputs={"X": inputs, "teacher_width": rank, "max_iterations": max_iterations},
        method="alternating projections",
        status=Status.NOT_CONVERGED if np.isnan(unique) else Status.SUCCESS,
        origin=make_origin(),
        unique=unique,
        margin=margin,
        iterations=iterations,
    )


def _alternate(X: FloatArray, rank: int, max_iterations: int) -> tuple[float, float, int]:
    d = X.shape[1]
    rows, columns = np.triu_indices(d)
    # Isometric coordinates of symmetric matrices: off-diagonal entries times sqrt 2.
    factors = np.where(rows == columns, 1.0, np.sqrt(2.0))
    features = X[:, rows] * X[:, columns] * factors
    outside = rows >= rank
    tangent, complement = features[:, ~outside], features[:, outside]
    left, singular, _ = np.linalg.svd(tangent, full_matrices=True)
    if len(singular) < tangent.shape[1] or singular[-1] <= 1e-10 * singular[0]:
        return 0.0, 0.0, 0  # some H has no block outside the teacher's span at all
    # What the samples say about that block alone, orthonormal.
    kernel = left[:, tangent.shape[1] :].T @ complement
    _, size, basis = np.linalg.svd(kernel, full_matrices=False)
    basis = basis[size > 1e-10 * max(float(size.max(initial=0.0)), 1e-300)]
    free = d - rank
    upper = np.triu_indices(free)
    weights = factors[outside]
    if len(basis) == complement.shape[1]:
        return 1.0, 1.0 / np.sqrt(free), 0  # no H is left

    def matrix(vector: FloatArray) -> FloatArray:
        out = np.zeros((free, free))
        out[upper] = vector / weights
        return np.asarray(out + np.triu(out, 1).T)

    point = np.eye(free)[upper] * weights / np.sqrt(free)
    for iteration in range(1, max_iterations + 1):
        seen = (point @ basis.T) @ basis
        hidden = point - seen
        length = float(np.linalg.norm(seen))
        lowest = float(np.linalg.eigvalsh(matrix(seen))[0]) if length > 0.0 else -1.0
        if lowest > CERTIFIED * length:
            return 1.0, lowest / length, iteration
        norm = float(np.linalg.norm(hidden))
        values, vectors = np.linalg.eigh(matrix(hidden))
        if values[0] > -UNCHANGED * norm:
            return 0.0, float(values[0]) / norm, iteration
        positive = (vectors * np.maximum(values, 0.0)) @ vectors.T
        point = positive[upper] * weights
        point /= np.linalg.norm(point)
    return np.nan, np.nan, max_iterations
