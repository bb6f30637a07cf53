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
import time as clock
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
    Point,
    Status,
    Trajectory,
    array_field,
    conclude,
    make_origin,
    record,
)

__all__ = [
    "BestFit",
    "Hermite",
    "Population",
    "Problem",
    "RiskTrajectory",
    "SphereSpectrum",
    "best_fit",
    "curve",
    "hermite",
    "lr_max",
    "minimal_risk",
    "modes",
    "pair_kernel",
    "population",
    "proportional",
    "simulate",
    "sphere_spectrum",
    "stationary_risk",
    "width_for",
]

ACTIVATIONS = ("erf", "relu", "quad", "square", "linear", "sign")
ROWS = ("sphere", "gaussian")

ROUTES = ("proportional", "sphere")
CLOSURES = ("concentrated", "gaussian")
CLOCKS = ("continuous", "discrete")

# Eigenvalues of the Gram matrix below this fraction of the largest count as zero.
RANK_TOLERANCE = 1e-13
# A covariance may exceed sqrt(var_x var_y) by this fraction, as rounding.
COVARIANCE_TOLERANCE = 1e-9
# An energy that is less than this fraction of the whole is rounding.
ENERGY_ROUNDING = 1e-14
# Steps of the integration with a schedule: tolerance relative to S, first and smallest one over
# the last time.
SCHEDULE_TOLERANCE, SCHEDULE_FIRST, SCHEDULE_SMALLEST = 1e-11, 1e-3, 1e-13
# A negative risk that is less than this fraction of the first one is zero.
RISK_ROUNDING = 1e-9
# Relative variance of g(x)^2 at unit variance, and half the squared second Hermite coefficient of
# g^2 over the squared energy: the corrections to E |phi|^4 of order 1/K and 1/N.
KURTOSIS = {
    "erf": (4 / 5, 6 / math.pi**2),
    "relu": (5.0, 2.0),
    "quad": (14.0, 8.0),
    "square": (32 / 3, 8.0),
    "linear": (2.0, 2.0),
    "sign": (0.0, 0.0),
}

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
    must = "an integer >= 1, or inf"
    if isinstance(value, (float, np.floating)):
        if value == math.inf:
            return math.inf
        if math.isfinite(value) and value == math.floor(value):
            value = int(value)
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
        Replicas whose risk grew without bound.

    Notes
    -----
    Source: ``docs/papers/random_features.md`` section 1.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.random_features.Problem(dim=100, width=200, lr=1.0)
    >>> op.random_features.curve(problem, [0.0, 1.0]).risk.round(6)
    array([0.166667, 0.082965])
    """

    time_label: ClassVar[str] = "time τ"
    headline: ClassVar[str] = "risk"

    risk: FloatArray = array_field("time")


@record
class Hermite(Point):
    """An activation at unit variance, by its Hermite series.

    Attributes
    ----------
    mu : (order + 1,) array
        mu_k = E[g(x) He_k(x)], probabilists' polynomials.
    kappa : (order + 1,) array
        mu_k^2/k!: E[g(x) g(y)] is their power series in the covariance.
    q : float
        E g(x)^2.
    mu_star2 : float
        q - kappa_0 - kappa_1: the energy that is neither constant nor linear.

    Notes
    -----
    Made by `hermite`. Source: ``docs/papers/random_features.md`` section 1.

    Examples
    --------
    >>> import overparam as op
    >>> op.random_features.hermite("relu", 3).kappa.round(6)
    array([0.159155, 0.25    , 0.079577, 0.      ])
    """

    mu: FloatArray = array_field("order")
    kappa: FloatArray = array_field("order")
    q: float = array_field()
    mu_star2: float = array_field()


@record
class Population(Point):
    """The averages over inputs that decide everything for a given first layer.

    Attributes
    ----------
    gram : (K, K) array
        G_ij = E g(x_i) g(x_j).
    cross : (K,) array
        r_i = E g(x_i) y.
    teacher_energy : float
        E y^2 without the label noise.

    Notes
    -----
    Made by `population`. Source: ``docs/papers/random_features.md`` section 2.

    Examples
    --------
    >>> import overparam as op
    >>> W, B = [[1.0, 1.0], [1.0, -1.0]], [[1.0, 1.0]]
    >>> op.random_features.population(W, B, [1.0], activation="linear").gram
    array([[1., 0.],
           [0., 1.]])
    """

    gram: FloatArray = array_field("unit", "unit_2")
    cross: FloatArray = array_field("unit")
    teacher_energy: float = array_field()


@record
class BestFit(Point):
    """The best second layer of a given first layer.

    Attributes
    ----------
    risk : float
        eps_min, half the residual variance.
    coefficients : (K,) array
        a* in the basis of the features: f = a* . g(x)/sqrt(K); the shortest where there are many.
    eigenvalues : (K,) array
        Those of the Gram matrix, ascending.

    Notes
    -----
    Made by `best_fit`. Source: ``docs/papers/random_features.md`` section 2.

    Examples
    --------
    >>> import overparam as op
    >>> W, B = [[1.0, 1.0], [1.0, -1.0]], [[1.0, 1.0]]
    >>> population = op.random_features.population(W, B, [1.0], activation="erf")
    >>> op.random_features.best_fit(population).coefficients.round(12) + 0.0
    array([1.41421356, 0.        ])
    """

    risk: float = array_field()
    coefficients: FloatArray = array_field("unit")
    eigenvalues: FloatArray = array_field("eigenvalue")


@record
class SphereSpectrum(Point):
    """The kernel of an activation on the sphere, by degree.

    Attributes
    ----------
    eigenvalues : (lmax + 1,) array
        lambda_l: E[g(x) g(y)] of two uniform points, as an operator on the sphere.
    multiplicities : (lmax + 1,) array
        Numbers of harmonics.
    tail : float
        Energy of the degrees above lmax: the products up to there and the tail sum to E g^2.

    Notes
    -----
    Made by `sphere_spectrum`. Source: ``docs/papers/random_features.md`` section 6.

    Examples
    --------
    >>> import overparam as op
    >>> op.random_features.sphere_spectrum(5, "quad", 3).multiplicities
    array([ 1.,  5., 14., 30.])
    """

    eigenvalues: FloatArray = array_field("degree")
    multiplicities: FloatArray = array_field("degree")
    tail: float = array_field()


# ---- checks and shared steps ---------------------------------------------------------------------


def _problem(problem: object, *, infinite: bool = False) -> Problem:
    if not isinstance(problem, Problem):
        raise _check.bad("problem", "an overparam.random_features.Problem", problem, TypeError)
    if math.isinf(problem.width) and not infinite:
        raise _check.bad("width", "finite here (curve takes an infinite one)", problem.width)
    return problem


def _reals(name: str, value: object) -> FloatArray:
    """Return a float64 array of finite real numbers of any shape."""
    must = "finite real numbers"
    try:
        array = np.asarray(value)
    except ValueError:  # nested sequences of different lengths
        raise _check.bad(name, must, value) from None
    if array.dtype.kind not in "iuf":
        raise _check.bad(name, must, value, TypeError)
    if not np.isfinite(array).all():
        raise _check.bad(name, must, array)
    return array.astype(np.float64)


def _activation(name: str, value: object) -> str:
    return _check.choice(name, value, ACTIVATIONS)


def _finished(
    problem: Problem,
    t: FloatArray,
    two_eps: FloatArray,
    *,
    method: str,
    began: float,
    throw: bool,
    inputs: dict[str, Any],
) -> RiskTrajectory:
    """Make the result of a theory, which diverged from the first value that is not finite."""
    risk = two_eps / 2
    risk[(risk < 0) & (risk > -RISK_ROUNDING * np.abs(two_eps[0]))] = 0.0
    bad = ~np.isfinite(risk)
    status = Status.SUCCESS
    if bad.any():
        first = int(np.argmax(bad))
        status = Status.NOT_CONVERGED if np.isnan(risk[first]) else Status.DIVERGED
        risk[first:] = np.nan
    result = RiskTrajectory(
        problem=problem,
        inputs=inputs,
        method=method,
        status=status,
        stats={"seconds": clock.perf_counter() - began, "steps": len(t), "threads": 1},
        origin=make_origin(),
        t=t,
        risk=risk,
    )
    return conclude(result, throw)


# ---- population quantities -----------------------------------------------------------------------


def _over(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Return the quotient, 0 where the denominator is: for fields of variance zero."""
    quotient = np.zeros(np.broadcast_shapes(numerator.shape, denominator.shape))
    np.divide(numerator, denominator, out=quotient, where=denominator > 0)
    return quotient


def _arc_cosine(c: FloatArray, A: FloatArray, C: FloatArray) -> FloatArray:
    scale = np.sqrt(A * C)
    cosine = np.clip(_over(c, scale), -1.0, 1.0)
    sine = np.sqrt((1.0 - cosine) * (1.0 + cosine))
    value: FloatArray = scale / (2 * np.pi) * (sine + (np.pi - np.arccos(cosine)) * cosine)
    return value


def _arc_sine(c: FloatArray, scale: FloatArray) -> FloatArray:
    value: FloatArray = 2 / np.pi * np.arcsin(np.clip(_over(c, scale), -1.0, 1.0))
    return value


_ODD = ("erf", "sign", "linear")

# E[g(x) h(y)] for g and h in this order, by covariance c and variances A of x, C of y. Pairs of an
# odd and an even activation are absent: their kernel is zero.
_KERNELS: dict[tuple[str, str], Callable[[FloatArray, FloatArray, FloatArray], FloatArray]] = {
    ("erf", "erf"): lambda c, A, C: _arc_sine(c, np.sqrt((1 + A) * (1 + C))),
    ("erf", "sign"): lambda c, A, C: _arc_sine(c, np.sqrt((1 + A) * C)),
    ("sign", "sign"): lambda c, A, C: _arc_sine(c, np.sqrt(A * C)),
    ("erf", "linear"): lambda c, A, _: math.sqrt(2 / math.pi) * c / np.sqrt(1 + A),
    ("erf", "relu"): lambda c, A, _: math.sqrt(0.5 / math.pi) * c / np.sqrt(1 + A),
    ("sign", "linear"): lambda c, A, _: math.sqrt(2 / math.pi) * _over(c, np.sqrt(A)),
    ("sign", "relu"): lambda c, A, _: math.sqrt(0.5 / math.pi) * _over(c, np.sqrt(A)),
    ("linear", "linear"): lambda c, *_: c,
    ("linear", "relu"): lambda c, *_: c / 2,
    ("relu", "relu"): _arc_cosine,
    ("relu", "quad"): lambda c, A, C: np.sqrt(A / (4 * np.pi)) * (C + _over(c * c, A) - 1),
    ("relu", "square"): lambda c, A, C: np.sqrt(A / (2 * np.pi)) * (C + _over(c * c, A)),
    ("quad", "quad"): lambda c, A, C: (A * C + 2 * c * c - A - C + 1) / 2,
    ("quad", "square"): lambda c, A, C: (A * C + 2 * c * c - C) / math.sqrt(2),
    ("square", "square"): lambda c, A, C: A * C + 2 * c * c,
}


def _kernel(g: str, h: str, c: FloatArray, A: FloatArray, C: FloatArray) -> FloatArray:
    """Return E[g(x) h(y)] without checks."""
    if (g, h) in _KERNELS:
        return _KERNELS[g, h](c, A, C)
    if (h, g) in _KERNELS:
        return _KERNELS[h, g](c, C, A)
    return np.zeros(np.broadcast_shapes(c.shape, A.shape, C.shape))


def pair_kernel(
    act_x: str,
    act_y: str,
    cov: ArrayLike,
    var_x: ArrayLike = 1.0,
    var_y: ArrayLike = 1.0,
) -> Any:
    """Return E[g(x) h(y)] for centred Gaussian x and y.

    Parameters
    ----------
    act_x, act_y : {"erf", "relu", "quad", "square", "linear", "sign"}
        g and h.
    cov : array_like
        Covariances of x and y.
    var_x, var_y : array_like
        Variances; all three are broadcast.

    Returns
    -------
    float or array
        Of the broadcast shape.

    Raises
    ------
    TypeError, ValueError
        If an activation is unknown, a variance is negative, or abs(cov) exceeds
        sqrt(var_x var_y) by more than rounding.

    Notes
    -----
    Source: ``docs/papers/random_features.md`` section 2.

    Examples
    --------
    >>> import overparam as op
    >>> round(op.random_features.pair_kernel("erf", "erf", 1.0), 12)
    0.333333333333
    """
    g, h = _activation("act_x", act_x), _activation("act_y", act_y)
    c, A, C = _reals("cov", cov), _reals("var_x", var_x), _reals("var_y", var_y)
    for name, variance in (("var_x", A), ("var_y", C)):
        if (variance < 0).any():
            raise _check.bad(name, "non-negative", variance)
    try:
        c, A, C = np.broadcast_arrays(c, A, C)
    except ValueError:
        shapes = f"of shapes that fit those of var_x {A.shape} and var_y {C.shape}"
        raise _check.bad("cov", shapes, c.shape) from None
    bound = np.sqrt(A * C)
    if (np.abs(c) > bound * (1 + COVARIANCE_TOLERANCE)).any():
        raise _check.bad("cov", "at most sqrt(var_x var_y) in absolute value", cov)
    value = np.array(_kernel(g, h, np.clip(c, -bound, bound), A, C))
    return value if value.ndim else value.item()


def hermite(activation: str, order: int) -> Hermite:
    """Return the Hermite coefficients of an activation.

    Parameters
    ----------
    activation : {"erf", "relu", "quad", "square", "linear", "sign"}
        g.
    order : int
        Highest order.

    Returns
    -------
    Hermite

    Raises
    ------
    TypeError, ValueError
        If the activation is unknown, or a coefficient up to the order exceeds the largest float.

    Notes
    -----
    Source: ``docs/papers/random_features.md`` section 1.

    Examples
    --------
    >>> import overparam as op
    >>> op.random_features.hermite("quad", 3).mu.round(6)
    array([0.      , 0.      , 1.414214, 0.      ])
    """
    name = _activation("activation", activation)
    order = _check.integer("order", order, minimum=0)
    mu, kappa = _core.feature_hermite(name, order)
    if not np.isfinite(mu).all():
        highest = int(np.argmin(np.isfinite(mu))) - 1
        raise _check.bad("order", f"at most {highest}, where mu is a finite float", order)
    q = float(_kernel(name, name, *np.ones((3, 1)))[0])
    first = _core.feature_hermite(name, 1)[1]
    energy = q - float(first[0]) - float(first[1])
    return Hermite(
        inputs={"activation": name, "order": order},
        method="recursion",
        status=Status.SUCCESS,
        origin=make_origin(),
        mu=mu,
        kappa=kappa,
        q=q,
        mu_star2=energy if energy > ENERGY_ROUNDING * q else 0.0,
    )


def population(
    W: ArrayLike,
    B: ArrayLike,
    v: ArrayLike,
    *,
    activation: str,
    teacher_activation: str | None = None,
) -> Population:
    """Return the averages over inputs for a given first layer and teacher, exactly.

    Parameters
    ----------
    W : (K, N) array
        First layer of the student; rows of any norm.
    B : (M, N) array
        First layer of the teacher; rows of any norm.
    v : (M,) array
        Second layer of the teacher.
    activation : {"erf", "relu", "quad", "square", "linear", "sign"}
        The student's.
    teacher_activation : str, optional
        The teacher's; default the student's.

    Returns
    -------
    Population

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.
    MemoryError
        If the Gram matrix would need more memory than is free.

    Notes
    -----
    Costs O(K^2 N). The risk of any second layer a is
    (a.G a/K - 2 r.a/sqrt(K) + E y^2)/2. Source: ``docs/papers/random_features.md`` section 2.

    Examples
    --------
    >>> import overparam as op
    >>> W, B = [[1.0, 1.0], [1.0, -1.0]], [[1.0, 1.0]]
    >>> op.random_features.population(W, B, [2.0], activation="linear").teacher_energy
    4.0
    """
    weights = _check.matrix("W", W, (None, None))
    if 0 in weights.shape:
        raise _check.bad("W", "not empty", weights)
    _check.memory(40.0 * len(weights) ** 2, "the Gram matrix", "the number of rows of W")
    dim = weights.shape[1]
    teacher = _check.matrix("B", B, (None, dim))
    second = _check.vector("v", v, len(teacher))
    g = _activation("activation", activation)
    h = g if teacher_activation is None else _activation("teacher_activation", teacher_activation)
    cross, energy = _teacher_moments(weights, teacher[None], second, g, h)
    return Population(
        inputs={
            "W": weights,
            "B": teacher,
            "v": second,
            "activation": g,
            "teacher_activation": h,
        },
        method="exact",
        status=Status.SUCCESS,
        origin=make_origin(),
        gram=_gram(weights, g),
        cross=cross[:, 0],
        teacher_energy=float(energy[0]),
    )


def _gram(W: FloatArray, g: str) -> FloatArray:
    """Return G (K, K)."""
    Q = W @ W.T / W.shape[1]
    A = np.diag(Q)
    return _kernel(g, g, Q, A[:, None], A[None, :])


def _teacher_moments(
    W: FloatArray, B: FloatArray, v: FloatArray, g: str, h: str
) -> tuple[FloatArray, FloatArray]:
    """Return r (K, teachers) and E y^2 (teachers,) for teachers B (teachers, M, N)."""
    dim = W.shape[1]
    T = B @ B.transpose(0, 2, 1) / dim
    A, C = np.sum(W * W, axis=1) / dim, np.diagonal(T, axis1=1, axis2=2)
    R = (W @ B.reshape(-1, dim).T / dim).reshape(len(W), len(B), len(v))
    cross: FloatArray = _kernel(g, h, R, A[:, None, None], C[None, :, :]) @ v
    energy: FloatArray = _kernel(h, h, T, C[:, :, None], C[:, None, :]) @ v @ v
    return cross, energy


def _diagonal(given: Population) -> tuple[FloatArray, FloatArray, FloatArray, float]:
    """Return eigenvalues s, eigenvectors U, U^T r and the residual variance of the best fit.

    Entries of U^T r in the null space are set to zero.
    """
    from scipy.linalg import eigh

    s, U = eigh(given.gram)
    r = U.T @ given.cross
    r[s <= RANK_TOLERANCE * s[-1]] = 0.0
    explained = float(np.sum(_over(r * r, np.maximum(s, 0.0))))
    return s, U, r, max(given.teacher_energy - explained, 0.0)


def best_fit(population: Population) -> BestFit:
    """Return the best second layer of a given first layer.

    Parameters
    ----------
    population : Population
        Averages over inputs.

    Returns
    -------
    BestFit

    Raises
    ------
    TypeError
        If `population` is not a `Population`.

    Notes
    -----
    Eigenvalues of G below 1e-13 of the largest count as zero, and a risk below 1e-12 of the
    teacher's energy is rounding. Twice the risk is, for one teacher unit, also the posterior
    variance at this unit of a noiseless Gaussian process on the rows of W. Source:
    ``docs/papers/random_features.md`` section 2.

    Examples
    --------
    >>> import numpy as np, overparam as op
    >>> W = np.random.default_rng(0).standard_normal((5, 20))
    >>> population = op.random_features.population(W, W[:1], [1.0], activation="erf")
    >>> op.random_features.best_fit(population).risk < 1e-15
    True
    """
    if not isinstance(population, Population):
        must = "an overparam.random_features.Population"
        raise _check.bad("population", must, population, TypeError)
    s, U, r, residual = _diagonal(population)
    return BestFit(
        inputs={
            "population": {
                "gram": population.gram,
                "cross": population.cross,
                "teacher_energy": population.teacher_energy,
            }
        },
        method="eigenvalues",
        status=Status.SUCCESS,
        origin=make_origin(),
        risk=residual / 2,
        coefficients=math.sqrt(len(s)) * (U @ _over(r, np.maximum(s, 0.0))),
        eigenvalues=s,
    )


# ---- a given first layer -------------------------------------------------------------------------


def _rates(name: str, schedule: object, tau: FloatArray) -> FloatArray:
    """Return the values of a schedule of learning rates at times tau, checked."""
    if not callable(schedule):
        raise _check.bad(name, "a function of arrays of tau", schedule, TypeError)
    rates = _reals(name, schedule(tau))
    if rates.ndim == 0:
        rates = np.full(tau.shape, rates.item())
    if rates.shape != tau.shape:
        raise _check.bad(name, f"a function with values of shape {tau.shape}", rates)
    if (rates < 0).any():
        raise _check.bad(name, "a function with non-negative values", rates[rates < 0][0])
    return rates


def modes(
    problem: Problem,
    W: ArrayLike,
    B: ArrayLike,
    t: ArrayLike,
    *,
    closure: str = "concentrated",
    time: str = "continuous",
    noise: bool = True,
    lr_schedule: Callable[[FloatArray], ArrayLike] | None = None,
    throw: bool = True,
) -> RiskTrajectory:
    """Solve the second moments of the modes of a given first layer.

    Parameters
    ----------
    problem : Problem
        Learning rate, activations, label noise, start; `dim` and `width` are those of `W`.
    W : (K, N) array
        First layer of the student.
    B : (M, N) array
        First layer of the teacher; its overlap is that of the problem, if the problem has one.
    t : (T,) array
        Times tau; on the grid of 1/K in discrete time.
    closure : {"concentrated", "gaussian"}
        Fourth moments: features of a norm that concentrates, or Gaussian features.
    time : {"continuous", "discrete"}
        Differential equations in tau, or the map from step to step.
    noise : bool
        Whether the square of the learning rate and the label noise count. Without them this is
        gradient flow, or the map without these terms.
    lr_schedule : callable, optional
        The learning rate at times tau, an array, in place of the problem's.
    throw : bool
        Raise if the risk leaves the range of floats; otherwise return what there is.

    Returns
    -------
    RiskTrajectory

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.
    MemoryError
        If the Gram matrix, or the learning rates of all steps, would need more memory than is free.
    ConvergenceError
        If the risk diverges within the times and `throw` is true.

    Notes
    -----
    The mean of the student is exact; the second moments need the closure. Costs one eigenvalue
    problem of size K, and O(K^2) for all times together; with a schedule O(K) per step. Source:
    ``docs/papers/random_features.md`` section 4.

    Examples
    --------
    >>> import numpy as np, overparam as op
    >>> rng = np.random.default_rng(0)
    >>> W, B = rng.standard_normal((50, 20)), rng.standard_normal((1, 20))
    >>> problem = op.random_features.Problem(dim=20, width=50, lr=1.0, rows="gaussian")
    >>> run = op.random_features.modes(problem, W, B, [0.0, 1.0, 10.0])
    >>> bool((np.diff(run.risk) < 0).all())
    True
    """
    began = clock.perf_counter()
    _problem(problem)
    weights = _check.matrix("W", W, (int(problem.width), problem.dim))
    teacher = _check.matrix("B", B, (len(problem.v), problem.dim))
    _matching_overlap(problem, teacher)
    times = _check.times("t", t)
    _check.choice("closure", closure, CLOSURES)
    _check.choice("time", time, CLOCKS)
    noise, throw = _check.boolean("noise", noise), _check.boolean("throw", throw)
    averages = population(
        weights,
        teacher,
        problem.v,
        activation=problem.activation,
        teacher_activation=problem.teacher,
    )
    s, _, r, residual = _diagonal(averages)
    kept = s > RANK_TOLERANCE * s[-1]
    s, r, width = s[kept], r[kept], int(problem.width)
    # lambda_k D_k at tau = 0, where D_k = a*_k^2 + init_var.
    load = r * r / s + s * problem.init_var / width
    source = residual + (problem.noise_var if noise else 0.0)
    inputs = {"closure": closure, "time": time, "noise": noise}
    gaussian, discrete = closure == "gaussian", time == "discrete"
    if lr_schedule is not None:
        two_eps = _scheduled(
            s / width, load, source, times, width, lr_schedule, gaussian, discrete, noise
        )
    else:
        eta, clock_times = problem.lr, times
        if discrete:
            clock_times = _check.steps("t", times, width).astype(np.float64)
        rates = s / width if discrete else s  # per unit of the clock
        if noise:
            two_eps = _core.rank_one_response(
                poles=-2 * eta * rates + (2 * eta**2 * rates * s / width if gaussian else 0.0),
                weights=eta**2 * rates * s / width,
                load=load,
                source=source,
                t=clock_times,
                steps=discrete,
            )
        elif discrete:
            two_eps = source + (1 - 2 * eta * rates) ** clock_times[:, None] @ load
        else:
            two_eps = source + np.exp(-2 * eta * rates * clock_times[:, None]) @ load
    if noise:
        two_eps = two_eps - problem.noise_var
    return _finished(
        problem, times, two_eps, method="modes", began=began, throw=throw, inputs=inputs
    )


def _scheduled(
    lam: FloatArray,
    load: FloatArray,
    source: float,
    times: FloatArray,
    width: int,
    schedule: Callable[[FloatArray], ArrayLike],
    gaussian: bool,
    discrete: bool,
    noise: bool,
) -> FloatArray:
    """Return S at the times for a learning rate that changes; `lam` is s/K."""
    if discrete:
        steps = _check.steps("t", times, width)
        _check.memory(24.0 * float(steps[-1]), "the learning rates of all steps", "the times in t")
        rates = _rates("lr_schedule", schedule, np.arange(steps[-1]) / width)
        return _core.rank_one_steps(lam, load, source, rates, steps.tolist(), gaussian, noise)

    def coefficients(tau: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return rates of decay, and rates at which S feeds the modes, (K, nodes)."""
        eta = _rates("lr_schedule", schedule, tau)
        s = lam[:, None] * width
        square = eta**2 if noise else np.zeros_like(eta)
        decay = -2 * eta * s + (2 * square * s * lam[:, None] if gaussian else 0.0)
        return decay, square * s * lam[:, None]

    def step(x: FloatArray, start: float, h: float) -> FloatArray:
        """Advance by one step of Radau IIA, in which only S couples the modes."""
        decay, feed = coefficients(start + h * _RADAU_NODES)
        matrix = h * _RADAU_WEIGHTS
        left = np.eye(len(_RADAU_NODES)) - matrix * decay[:, None, :]
        right = np.concatenate(
            (np.broadcast_to(x[:, None, None], (*feed.shape, 1)), matrix * feed[:, None, :]), axis=2
        )
        solved = np.linalg.solve(left, right)
        both = solved.sum(axis=0)
        S = np.linalg.solve(np.eye(len(both)) - both[:, 1:], source + both[:, 0])
        end: FloatArray = solved[:, -1, 0] + solved[:, -1, 1:] @ S
        return end

    values = np.empty(len(times))
    x, tau, h = load, 0.0, times[-1] * SCHEDULE_FIRST
    for i, goal in enumerate(times):
        while tau < goal:
            h = min(h, goal - tau)
            half = step(step(x, tau, h / 2), tau + h / 2, h / 2)
            error = np.abs(half - step(x, tau, h)).sum()
            error /= SCHEDULE_TOLERANCE * (source + np.abs(half).sum())
            if not np.isfinite(error):
                values[i:] = np.inf
                return values
            if error <= 1 or h <= SCHEDULE_SMALLEST * times[-1]:
                x, tau = half, goal if h == goal - tau else tau + h
            h *= min(4.0, max(0.1, 0.9 * error ** (-1 / 10))) if error > 0 else 4.0
        values[i] = source + x.sum()
    return values


def _radau(stages: int) -> tuple[FloatArray, FloatArray]:
    """Return nodes and weights of the Radau IIA method, of order 2 stages - 1."""
    from numpy.polynomial import Legendre, Polynomial

    roots = (Legendre.basis(stages) - Legendre.basis(stages - 1)).roots()
    nodes = np.append((np.sort(roots.real)[:-1] + 1) / 2, 1.0)
    weights = np.empty((stages, stages))
    for j in range(stages):
        others = Polynomial.fromroots(np.delete(nodes, j))
        integral = (others / others(nodes[j])).integ()
        weights[:, j] = integral(nodes) - integral(0.0)
    return nodes, weights


_RADAU_NODES, _RADAU_WEIGHTS = _radau(5)


def _matching_overlap(problem: Problem, B: FloatArray) -> None:
    """Refuse a first layer of the teacher that is not of the problem's overlap."""
    if problem.teacher_overlap is None:
        return
    T = B @ B.T / problem.dim
    if np.abs(T - problem.T).max() > OVERLAP_TOLERANCE:
        raise _check.bad("B", "of the problem's teacher_overlap B B^T/N, or that None", T)


# ---- laws of the random first layer --------------------------------------------------------------


def _second_moment(problem: Problem) -> float:
    """Return E y^2 without the label noise, for the problem's own overlap."""
    one = np.ones((1, 1))
    return float(
        problem.v @ _kernel(problem.teacher, problem.teacher, problem.T, one, one) @ problem.v
    )


def _proportional_modes(problem: Problem) -> _core.FeatureModes:
    """Return the law's modes per input dimension, in which the width is K/N."""
    order = 2
    kappa = _core.feature_hermite(problem.activation, order)[1]
    mu_star = _core.feature_hermite(problem.teacher, order)[0]
    v, T = problem.v, problem.T
    energy = _second_moment(problem)
    linear = float(mu_star[1] ** 2 * (v @ T @ v)) if kappa[1] > 0 else 0.0
    constant = float(mu_star[0] * v.sum()) ** 2 if kappa[0] > 0 else 0.0
    rest = energy - linear - constant
    return _core.FeatureModes(
        eigenvalue=[kappa[1]] if kappa[1] > 0 else [],
        multiplicity=[1.0] if kappa[1] > 0 else [],
        teacher=[linear] if kappa[1] > 0 else [],
        tail=hermite(problem.activation, 0).mu_star2,
        rest=rest if rest > ENERGY_ROUNDING * energy else 0.0,
        mean=float(kappa[0]),
    )


def _sphere_modes(problem: Problem) -> _core.FeatureModes:
    """Return the modes of the sphere of dimension N, after checks that there is one."""
    if problem.rows != "sphere":
        raise _check.bad("rows", '"sphere" here (the law holds for no other)', problem.rows)
    if problem.dim < 3:
        raise _check.bad("dim", "an integer >= 3 here", problem.dim)
    if problem.teacher_overlap is None and len(problem.v) > problem.dim:
        must = f"at most dim = {problem.dim} numbers, where the units are orthogonal"
        raise _check.bad("teacher_weights", must, problem.v)
    return _core.feature_sphere_modes(
        problem.activation,
        problem.dim,
        problem.teacher,
        problem.v,
        problem.T,
        _second_moment(problem),
    )


def _training(problem: Problem, width: float, noise: bool) -> dict[str, Any]:
    return {
        "width": width,
        "lr": problem.lr,
        "noise_var": problem.noise_var,
        "init_var": problem.init_var,
        "flow": not noise,
    }


def proportional(
    problem: Problem,
    t: ArrayLike,
    *,
    noise: bool = True,
    throw: bool = True,
) -> RiskTrajectory:
    """Return the learning curve for N, K -> infinity at fixed K/N.

    Parameters
    ----------
    problem : Problem
        Only the ratio of its width and its dim matters.
    t : (T,) array
        Times tau.
    noise : bool
        Whether the square of the learning rate and the label noise count; gradient flow otherwise.
    throw : bool
        Raise if the risk leaves the range of floats; otherwise return what there is.

    Returns
    -------
    RiskTrajectory

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or the width is infinite.
    ConvergenceError
        If the risk diverges within the times and `throw` is true.

    Notes
    -----
    Where the activation has a mean, the mean mode relaxes within some steps, that is at tau = 0;
    the curve is what follows. Source: ``docs/papers/random_features.md`` sections 5 and 7.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.random_features.Problem(dim=100, width=400, lr=2.0)
    >>> op.random_features.proportional(problem, [0.0, 1.0, 10.0]).risk.round(6)
    array([0.166667, 0.026836, 0.014841])
    """
    began = clock.perf_counter()
    _problem(problem)
    times, noise = _check.times("t", t), _check.boolean("noise", noise)
    throw = _check.boolean("throw", throw)
    ratio = problem.width / problem.dim
    two_eps = _proportional_modes(problem).learning_curve(times, **_training(problem, ratio, noise))
    return _finished(
        problem,
        times,
        two_eps,
        method="proportional",
        began=began,
        throw=throw,
        inputs={"noise": noise},
    )


def curve(
    problem: Problem,
    t: ArrayLike,
    *,
    noise: bool = True,
    throw: bool = True,
) -> RiskTrajectory:
    """Return the learning curve for any N and K, in the mean over first layers on the sphere.

    Parameters
    ----------
    problem : Problem
        With rows on the sphere and N >= 3. An infinite width is the limit of kernel SGD.
    t : (T,) array
        Times tau; numbers of steps where the width is infinite.
    noise : bool
        Whether the square of the learning rate and the label noise count; gradient flow otherwise.
    throw : bool
        Raise if the risk leaves the range of floats; otherwise return what there is.

    Returns
    -------
    RiskTrajectory

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.
    ConvergenceError
        If the risk diverges within the times and `throw` is true.

    Notes
    -----
    The cost does not depend on N or K. A learning rate above `lr_max` is allowed, and gives a risk
    that grows. Source: ``docs/papers/random_features.md`` section 7.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.random_features.Problem(dim=20, width=512, lr=2.0)
    >>> op.random_features.curve(problem, [1.0, 10.0, 100.0]).risk.round(6)
    array([0.009972, 0.009133, 0.007708])
    """
    began = clock.perf_counter()
    _problem(problem, infinite=True)
    times, noise = _check.times("t", t), _check.boolean("noise", noise)
    throw = _check.boolean("throw", throw)
    groups = _sphere_modes(problem)
    if math.isinf(problem.width):
        method = "kernel limit"
        two_eps = _kernel_limit(problem, groups, times, noise)
    else:
        method = "curve"
        training = _training(problem, float(problem.width), noise)
        two_eps = groups.learning_curve(times, **training)
    return _finished(
        problem,
        times,
        two_eps,
        method=method,
        began=began,
        throw=throw,
        inputs={"noise": noise},
    )


def _kernel_limit(
    problem: Problem, groups: _core.FeatureModes, times: FloatArray, noise: bool
) -> FloatArray:
    """Return 2 eps after numbers of steps of a student of infinite width."""
    steps = _check.steps("t", times, 1).astype(np.float64)
    eigenvalue, energy, eta = groups.eigenvalue, groups.energy, problem.lr
    load = groups.teacher + problem.init_var * energy
    # Degrees that do not move within these steps.
    still = 2 * eta * eigenvalue * max(steps[-1], 1.0) < ENERGY_ROUNDING
    source = groups.rest + problem.init_var * groups.tail + float(load[still].sum())
    eigenvalue, energy, load = eigenvalue[~still], energy[~still], load[~still]
    if not noise:
        return np.asarray(source + np.exp(-2 * eta * eigenvalue * steps[:, None]) @ load)
    response = _core.rank_one_response(
        poles=-2 * eta * eigenvalue,
        weights=eta**2 * eigenvalue * energy,
        load=load,
        source=source + problem.noise_var,
        t=steps,
        steps=True,
    )
    return np.asarray(response - problem.noise_var)


def _route(problem: Problem, route: object) -> tuple[_core.FeatureModes, float]:
    """Return the modes of a law and the width in their units."""
    name = _check.choice("route", route, ROUTES)
    _problem(problem)
    if name == "proportional":
        return _proportional_modes(problem), problem.width / problem.dim
    return _sphere_modes(problem), float(problem.width)


def minimal_risk(problem: Problem, *, route: str = "proportional") -> float:
    """Return the risk of the best second layer, in the mean over first layers.

    Parameters
    ----------
    problem : Problem
        Width, dim, activations and teacher.
    route : {"proportional", "sphere"}
        The law for N, K -> infinity, or that of any N >= 3 and K for rows on the sphere.

    Returns
    -------
    float
        eps_min.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or the width is infinite.

    Notes
    -----
    Also the limit of every learning curve as lr -> 0 at fixed lr tau, then tau -> infinity. Source:
    ``docs/papers/random_features.md`` sections 5 and 6.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.random_features.Problem(dim=100, width=100, lr=1.0)
    >>> round(op.random_features.minimal_risk(problem), 7)
    0.0385357
    """
    groups, width = _route(problem, route)
    return float(groups.minimal(width)) / 2


def _chi(problem: Problem) -> float:
    """Return E |phi|^4/q^2 up to the orders 1/K and 1/N."""
    if problem.rows != "sphere":
        must = '"sphere" where finite_size is True'
        raise _check.bad("rows", must, problem.rows)
    by_width, by_dim = KURTOSIS[problem.activation]
    return 1 + by_width / problem.width + by_dim / problem.dim


def _energy(problem: Problem) -> float:
    return float(_kernel(problem.activation, problem.activation, *np.ones((3, 1)))[0])


def stationary_risk(
    problem: Problem,
    *,
    route: str = "proportional",
    finite_size: bool = False,
) -> float:
    """Return the risk that SGD tends to.

    Parameters
    ----------
    problem : Problem
        Width, dim, learning rate, activations, teacher and label noise.
    route : {"proportional", "sphere"}
        The law for N, K -> infinity, or that of any N >= 3 and K for rows on the sphere.
    finite_size : bool
        Whether to correct for the fluctuations of the norm of the features, of orders 1/K and 1/N.

    Returns
    -------
    float
        eps_inf; infinite where the learning rate is too high.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or the width is infinite.

    Notes
    -----
    The correction assumes that all modes have relaxed, and takes the residual of the best fit as
    independent of the norm. Source: ``docs/papers/random_features.md`` section 4.3.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.random_features.Problem(dim=100, width=100, lr=2.0)
    >>> round(op.random_features.stationary_risk(problem), 7)
    0.0578035
    >>> op.random_features.stationary_risk(problem.replace(lr=6.0))
    inf
    """
    groups, width = _route(problem, route)
    chi = _chi(problem) if _check.boolean("finite_size", finite_size) else 1.0
    x = problem.lr * _energy(problem) / 2
    if x * chi >= 1:
        return math.inf
    minimum = groups.minimal(width)
    return float(minimum + (minimum + problem.noise_var) * x / (1 - x * chi)) / 2


def lr_max(problem: Problem, *, finite_size: bool = True) -> float:
    """Return the learning rate above which the risk diverges.

    Parameters
    ----------
    problem : Problem
        Activation and, for the correction, width and dim.
    finite_size : bool
        Whether to correct for the fluctuations of the norm of the features, of orders 1/K and 1/N;
        for rows on the sphere.

    Returns
    -------
    float
        2/(q chi), with chi = 1 in the limit.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Notes
    -----
    Source: ``docs/papers/random_features.md`` section 4.3.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.random_features.Problem(dim=100, width=50, lr=1.0)
    >>> round(op.random_features.lr_max(problem), 6)
    5.870386
    """
    _problem(problem, infinite=True)
    chi = _chi(problem) if _check.boolean("finite_size", finite_size) else 1.0
    return 2 / (_energy(problem) * chi)


def width_for(dim: int, tol: float, *, activation: str = "erf") -> float:
    """Return the width at which a student on the sphere can learn one unit to a given fraction.

    Parameters
    ----------
    dim : int
        N >= 3.
    tol : float
        2 eps_min/E y^2, between 0 and 1.
    activation : {"erf", "relu", "quad", "square", "linear", "sign"}
        The student's and the teacher's.

    Returns
    -------
    float
        K*, the smallest real K with at most this error.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or the width exceeds the largest float.

    Notes
    -----
    Source: ``docs/papers/random_features.md`` section 6.

    Examples
    --------
    >>> import overparam as op
    >>> round(op.random_features.width_for(10, 0.01), 4)
    231.0967
    """
    problem = Problem(
        dim=_check.integer("dim", dim, minimum=3), width=1, lr=1.0, activation=activation
    )
    bounds: dict[str, Any] = {"minimum": 0.0, "strict_minimum": True}
    bounds |= {"maximum": 1.0, "strict_maximum": True}
    fraction = _check.real("tol", tol, **bounds)
    width = float(_sphere_modes(problem).width_for(fraction))
    if not math.isfinite(width):
        raise _check.bad("tol", "so large that the width is a finite float", tol)
    return width


def sphere_spectrum(dim: int, activation: str, lmax: int) -> SphereSpectrum:
    """Return the eigenvalues of the kernel of an activation on the sphere.

    Parameters
    ----------
    dim : int
        N >= 3.
    activation : {"erf", "relu", "quad", "square", "linear", "sign"}
        g.
    lmax : int
        Highest degree.

    Returns
    -------
    SphereSpectrum

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or a multiplicity exceeds the largest float.

    Notes
    -----
    All terms of the series are positive, and those of relu and sign are summed in closed form.
    Source: ``docs/papers/random_features.md`` section 6.

    Examples
    --------
    >>> import overparam as op
    >>> op.random_features.sphere_spectrum(10, "relu", 4).eigenvalues.round(6)
    array([1.67301e-01, 2.50000e-02, 1.38300e-03, 0.00000e+00, 8.00000e-06])
    """
    dim = _check.integer("dim", dim, minimum=3)
    name = _activation("activation", activation)
    lmax = _check.integer("lmax", lmax, minimum=0)
    eigenvalues, multiplicities, tail = _core.feature_sphere_kernel(name, dim, lmax)
    if not np.isfinite(multiplicities).all():
        highest = int(np.argmin(np.isfinite(multiplicities))) - 1
        raise _check.bad("lmax", f"at most {highest}, where multiplicities are finite", lmax)
    return SphereSpectrum(
        inputs={"dim": dim, "activation": name, "lmax": lmax},
        method="series",
        status=Status.SUCCESS,
        origin=make_origin(),
        eigenvalues=eigenvalues,
        multiplicities=multiplicities,
        tail=tail,
    )


# ---- simulation ----------------------------------------------------------------------------------

# A replica has diverged when its risk exceeds the first one, and that of the student zero, by this
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
        The learning rates at times tau, an array, in place of the problem's. Step n, counted from
        0, has the rate at n/K.
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
    units = np.empty(0)
    if B is not None:
        units = _check.matrix("B", B, (len(v), N))
        _matching_overlap(problem, units)
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
    rates = np.empty(0)
    if lr_schedule is not None:
        rates = _rates("lr_schedule", lr_schedule, np.arange(steps[-1]) / K)
    _blas.load()
    room = _stream(problem, weights, units, replicas, teachers, block, sequence, workers)
    gram = np.array(
        [
            _gram(room.first_layer(i), problem.activation)
            for i in range(replicas if W is None else 1)
        ]
    )
    moments = [
        _teacher_moments(
            room.first_layer(i), room.teachers(i), v, problem.activation, problem.teacher
        )
        for i in range(1 if W is not None and B is not None else replicas)
    ]
    cross, energy = (np.array([entry[k] for entry in moments]) for k in range(2))
    arrays: dict[str, NDArray[Any]] = {
        "risk": np.full((replicas, len(times)), np.nan),
        "diverged": np.zeros(replicas, dtype=bool),
        "recorded": np.zeros(1, dtype=np.int64),
        "a": room.start(problem.init_var),
    }
    # A unit of work is a block, so that slices cut none. Blocks start at the recorded steps.
    edges = np.unique(
        np.concatenate(
            [np.arange(a, b, block) for a, b in pairwise(np.append(0, steps))] + [steps[-1:]]
        )
    )

    def risks() -> FloatArray:
        with _blas.one_thread():
            return _core.features_risks(gram, cross, energy, arrays["a"], workers)

    bound = DIVERGED * np.maximum(risks(), (energy.mean(axis=1) + problem.noise_var) / 2)

    def record_now() -> None:
        risk = risks()
        finite = (risk <= bound) & ~arrays["diverged"]
        arrays["diverged"] |= ~finite
        arrays["risk"][finite, arrays["recorded"][0]] = risk[finite]
        arrays["recorded"] += 1

    def rates_of(first: int, end: int) -> FloatArray:
        return np.full(end - first, problem.lr) if lr_schedule is None else rates[first:end]

    def advance(done: int, budget: int) -> int:
        end = int(edges[done + budget])
        now = int(edges[done])
        while now < end:
            due = int(steps[arrays["recorded"][0]])
            stop = min(end, due)
            with _blas.one_thread():
                room.advance(rates_of(now, stop), now, arrays["a"], workers)
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
        rates=rates,
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


def _frame(problem: Problem) -> FloatArray:
    """Return F (M, rank) with F F^T = T, for units sqrt(N) F Q with orthonormal rows of Q."""
    values, vectors = np.linalg.eigh(problem.T)
    kept = values > OVERLAP_TOLERANCE * values[-1]
    if np.count_nonzero(kept) > problem.dim:
        must = "at least the rank of teacher_overlap, for a teacher to be drawn"
        raise _check.bad("dim", must, problem.dim)
    frame: FloatArray = vectors[:, kept] * np.sqrt(values[kept])
    return frame
