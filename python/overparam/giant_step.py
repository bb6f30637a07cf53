"""One giant gradient step on the first layer, then ridge regression of the readout.

A network f(x) = p^(-1/2) sum_i a_i s(w_i . x) with p = beta d units learns y = s*(w* . x) + noise
from Gaussian inputs in d dimensions. Rows of the first layer start uniformly on the unit sphere and
take one gradient step of a rate proportional to p on n0 = alpha0 d samples; then the readout is
fitted to n = alpha d fresh samples with a ridge. Errors are squared, without a factor 1/2.

`spike` maps the step to spiked random features, `solve` gives the errors of the fitted network in
the limit of high dimension, `from_weights` those of given trained weights, and `simulate` trains
networks. All return a `ReadoutPoint`. The equations are derived in ``docs/papers/giant_step.md``;
the model is that of Cui et al., arXiv 2402.04980.
"""

from __future__ import annotations

import functools
import math
import time as clock
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from overparam import _blas, _check, _core, _run
from overparam._problem import BaseProblem
from overparam.results import (
    FloatArray,
    PathLike,
    Point,
    Status,
    array_field,
    conclude,
    make_origin,
    record,
)

__all__ = [
    "Function",
    "HermiteMoments",
    "Problem",
    "ReadoutPoint",
    "Spike",
    "features",
    "from_weights",
    "linear_floor",
    "moments",
    "optimal_lr",
    "optimal_ridge",
    "projection_floor",
    "simulate",
    "solve",
    "spike",
]

ArrayFunction = Callable[[Any], Any]

METHODS = ("corrected", "anisotropic", "isotropic")
LOSSES = ("square", "logistic")
MODELS = ("one_step", "spiked")

# Fractions of the readout values sum to one within this.
FRACTION_TOLERANCE = 1e-9
# Moments contain squared derivatives, so that their lattice is finer: that of this deviation.
MOMENT_DEVIATION = 0.2
# Hermite moments below this are zero, for a function whose mean square is one.
MOMENT_ROUNDING = 1e-12
# Values of a Function on [-2, 2] are below this, so that their sixth powers are finite.
LARGEST_VALUE = 1e50
# Fourth powers of variances of rows below this are finite; and strengths have square roots of it.
LARGEST_VARIANCE = 1e75
LARGEST_STRENGTH = math.sqrt(LARGEST_VARIANCE)
# Tables of a Function in simulations: spacing, and how far they reach at first and at most.
LATTICE, FIRST_RADIUS, LARGEST_RADIUS = 2.0**-8, 2.0**4, 2.0**12
# Iterations of `from_weights` at most, the relative change that it must reach, and rounding.
MATRIX_ITERATIONS, MATRIX_TOLERANCE, ROUNDING = 200, 1e-11, 1e-14
# And the relative defect of the number of degrees of freedom that it may have.
FREEDOM_TOLERANCE = 1e-6
# What a simulation measures in each replica.
MEASURES = ("risk", "train_risk", "class_error", "alignment", "gradient_norm")


# ---- activations ---------------------------------------------------------------------------------


class _Pair(NamedTuple):
    """A function of an array and its derivative."""

    f: ArrayFunction
    df: ArrayFunction


def _erf(x: FloatArray) -> FloatArray:
    from scipy.special import erf

    return np.asarray(erf(x / math.sqrt(2)))


def _logistic_function(x: FloatArray) -> FloatArray:
    from scipy.special import expit

    return np.asarray(expit(x))


BUILT_IN: dict[str, _Pair] = {
    "tanh": _Pair(np.tanh, lambda x: 1 / np.cosh(np.clip(x, -350, 350)) ** 2),
    "relu": _Pair(lambda x: np.maximum(x, 0.0), lambda x: np.heaviside(x, 0.5)),
    "erf": _Pair(_erf, lambda x: math.sqrt(2 / math.pi) * np.exp(-x * x / 2)),
    "sin": _Pair(np.sin, np.cos),
    "softplus": _Pair(lambda x: np.logaddexp(0.0, x), _logistic_function),
    "linear": _Pair(lambda x: x + 0.0, np.ones_like),
    "sinlin": _Pair(lambda x: np.sin(2 * x) + x, lambda x: 2 * np.cos(2 * x) + 1),
    "sin2": _Pair(lambda x: np.sin(2 * x), lambda x: 2 * np.cos(2 * x)),
    "he3": _Pair(
        lambda x: x + (x**3 - 3 * x) / math.sqrt(6), lambda x: 1 + (3 * x**2 - 3) / math.sqrt(6)
    ),
    "quad1": _Pair(lambda x: x + (x**2 - 1) / 2, lambda x: 1 + x),
}

_functions: dict[str, Function] = {}


@dataclass(frozen=True)
class Function:
    """An activation or a target of one's own, by its name.

    It is known by its name from its creation on, so that files with results, which hold the name
    alone, can be read once it was created.

    Parameters
    ----------
    name : str
        Not that of a built-in activation, nor of another function.
    f : callable
        The function on arrays: an array of the same shape.
    df : callable
        Its derivative.

    Raises
    ------
    TypeError
        If the name is no text, or `f` or `df` is not callable or not hashable.
    ValueError
        If the name is taken, or values have another shape, are not finite or above 1e50.

    Notes
    -----
    Compares and hashes by name, `f` and `df`; pickled if these can be. Source:
    ``docs/papers/giant_step.md`` section 3.3.

    Examples
    --------
    >>> import numpy as np, overparam as op
    >>> cosine = op.giant_step.Function("cos", np.cos, lambda x: -np.sin(x))
    >>> round(op.giant_step.moments(cosine).mean, 6)
    0.606531
    """

    name: str
    f: ArrayFunction
    df: ArrayFunction

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise _check.bad("name", "a string", self.name, TypeError)
        if not self.name or self.name in BUILT_IN:
            raise _check.bad("name", "a name that no built-in activation has", self.name)
        for name in ("f", "df"):
            if not callable(getattr(self, name)):
                raise _check.bad(name, "callable", getattr(self, name), TypeError)
            try:
                hash(getattr(self, name))
            except TypeError:
                raise _check.bad(name, "hashable", getattr(self, name), TypeError) from None
            values = _evaluate(self, np.linspace(-2.0, 2.0, 8), name)
            if np.abs(values).max() > LARGEST_VALUE:
                raise _check.bad(name, f"a function of values below {LARGEST_VALUE:g}", values)
        if _functions.setdefault(self.name, self) != self:
            raise _check.bad("name", "one that no other Function has", self.name)

    def __reduce__(self) -> tuple[Any, ...]:
        return Function, (self.name, self.f, self.df)


Activation = str | Function


def _activation(name: str, value: object) -> Activation:
    """Return a built-in activation by its name, or the function."""
    if isinstance(value, Function):
        return value
    known = ", ".join(f'"{built_in}"' for built_in in (*BUILT_IN, *_functions))
    must = f"an overparam.giant_step.Function or one of {known}"
    if not isinstance(value, str):
        raise _check.bad(name, must, value, TypeError)
    if value not in BUILT_IN and value not in _functions:
        raise _check.bad(name, must, value)
    return _functions.get(value, value)


def _evaluate(activation: Activation, x: FloatArray, name: str = "f") -> FloatArray:
    """Return the values of an activation, or of its derivative ("df")."""
    if isinstance(activation, str):
        return np.asarray(getattr(BUILT_IN[activation], name)(x), dtype=np.float64)
    values = np.asarray(getattr(activation, name)(x.copy()))
    if values.shape != x.shape:
        raise ValueError(
            f"{name} of the Function {activation.name!r} must return an array of the shape "
            f"{x.shape} of its input, but was of shape {values.shape}"
        )
    if values.dtype.kind not in "iuf" or not np.isfinite(values).all():
        raise _check.bad(name, f"finite and real for the Function {activation.name!r}", values)
    return values.astype(np.float64)


@dataclass(frozen=True, kw_only=True)
class HermiteMoments:
    """Gaussian averages of an activation s at unit variance.

    Attributes
    ----------
    mean : float
        e0 = E s(z).
    second : float
        e2 = E s(z)^2.
    h1, h2, h3 : float
        E s'(z), E z s'(z), E (z^2 - 1) s'(z): the first three Hermite coefficients.
    rest : float
        E s'(z)^2 - h1^2 - h2^2, the variance of s' that is not linear.

    Notes
    -----
    Made by `moments`. Source: ``docs/papers/giant_step.md`` section 2.

    Examples
    --------
    >>> import overparam as op
    >>> op.giant_step.moments("linear")
    HermiteMoments(mean=0.0, second=1.0, h1=1.0, h2=0.0, h3=0.0, rest=0.0)
    """

    mean: float
    second: float
    h1: float
    h2: float
    h3: float
    rest: float


# ---- the problem and its results -----------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Problem(BaseProblem):
    """A network that takes one giant gradient step and then fits its readout.

    Parameters
    ----------
    alpha : float
        Samples of the readout's fit over the dimension, n/d > 0.
    beta : float
        Width over the dimension, p/d > 0.
    ridge : float
        Strength lambda > 0 of the penalty lambda |a|^2/2 beside the sum of squares over 2.
    lr : float
        Learning rate eta of the first layer, in units of the width; 0 for random features.
    alpha0 : float
        Samples of the gradient step over the dimension, n0/d >= 0; may be infinite.
    activation : str or Function
        The student's s: "tanh", "relu", "erf" (erf(x/sqrt 2)), "sin", "softplus", "linear",
        "sinlin" (sin 2x + x), "sin2" (sin 2x), "he3" (x + (x^3 - 3x)/sqrt 6), "quad1"
        (x + (x^2 - 1)/2), or a `Function`.
    target : str or Function
        The target s*, of the same kinds.
    noise_var : float
        Variance of the label noise.
    readout_values : sequence of floats
        Values A_g of the initial readout times sqrt p: the network has a group of units for each.
    readout_fractions : sequence of floats
        Fractions pi_g of the groups, positive with sum 1.

    Raises
    ------
    TypeError, ValueError
        Naming the argument that is not as described.

    Notes
    -----
    Source: arXiv 2402.04980; ``docs/papers/giant_step.md`` section 1.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.giant_step.Problem(
    ...     alpha=1.5, beta=1.0, ridge=0.1, lr=3.0, alpha0=20.0, target="sin"
    ... )
    >>> problem.replace(readout_values=(1.0, -1.0), readout_fractions=(0.5, 0.5)).groups
    2
    """

    room: ClassVar[str] = "giant_step"

    alpha: float
    beta: float
    ridge: float
    lr: float
    alpha0: float
    activation: Activation = "tanh"
    target: Activation = "tanh"
    noise_var: float = 0.0
    readout_values: tuple[float, ...] = (1.0,)
    readout_fractions: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        positive: dict[str, Any] = {"minimum": 0.0, "strict_minimum": True}
        values = _check.vector("readout_values", self.readout_values)
        if not len(values):
            raise _check.bad("readout_values", "at least one number", values)
        fractions = _check.vector("readout_fractions", self.readout_fractions)
        if len(fractions) != len(values):
            must = f"as long as readout_values ({len(values)})"
            raise _check.bad("readout_fractions", must, fractions)
        if (fractions <= 0).any() or abs(fractions.sum() - 1) > FRACTION_TOLERANCE:
            raise _check.bad("readout_fractions", "positive numbers with sum 1", fractions)
        self._set(
            alpha=_check.real("alpha", self.alpha, **positive),
            beta=_check.real("beta", self.beta, **positive),
            ridge=_check.real("ridge", self.ridge, **positive),
            lr=_check.real("lr", self.lr),
            alpha0=_check.real("alpha0", self.alpha0, minimum=0.0, allow_inf=True),
            activation=_activation("activation", self.activation),
            target=_activation("target", self.target),
            noise_var=_check.real("noise_var", self.noise_var, minimum=0.0),
            readout_values=tuple(values.tolist()),
            readout_fractions=tuple(fractions.tolist()),
        )

    @property
    def groups(self) -> int:
        """The number K of initial readout values."""
        return len(self.readout_values)

    @property
    def has_step(self) -> bool:
        """Whether the first layer moves at all."""
        return self.lr != 0 and self.alpha0 > 0

    def to_dict(self) -> dict[str, Any]:
        """Return the room and the parameters as plain data; a `Function` becomes its name.

        Returns
        -------
        dict
            ``{"room": ..., name: value, ...}``; `from_dict` is the inverse.

        Raises
        ------
        ValueError
            By `from_dict`, if no function of that name was created.

        Notes
        -----
        Source: ``docs/papers/giant_step.md`` section 1.

        Examples
        --------
        >>> import overparam as op
        >>> problem = op.giant_step.Problem(alpha=1, beta=1, ridge=0.1, lr=3, alpha0=20)
        >>> op.giant_step.Problem.from_dict(problem.to_dict()) == problem
        True
        """
        values = super().to_dict()
        return {k: v.name if isinstance(v, Function) else v for k, v in values.items()}


class Spike:
    """The first layer after the step: rows sqrt(c_g) w + r_g v, with w on the unit sphere.

    Parameters
    ----------
    strength : (K,) array
        r_g, of either sign, for each group of units.
    variance : (K,) array
        c_g > 0, the mean squared norm of a row without its part along v.
    alignment : float
        gamma, the overlap of the unit vector v with the target's direction.
    gradient_norm : float
        |g|, the norm of the gradient's mean direction; NaN if it is not known.
    offset : float
        Mean output of the network before the step, which the target is compared with.

    Raises
    ------
    TypeError, ValueError
        Naming the argument that is not as described.

    Notes
    -----
    Read-only; compares by value. Source: ``docs/papers/giant_step.md`` section 2.

    Examples
    --------
    >>> import overparam as op
    >>> op.giant_step.Spike(strength=[1.2], variance=[1.1], alignment=0.9)
    Spike(strength=[1.2], variance=[1.1], alignment=0.9)
    """

    __slots__ = ("alignment", "gradient_norm", "offset", "strength", "variance")
    strength: FloatArray
    variance: FloatArray
    alignment: float
    gradient_norm: float
    offset: float

    def __init__(
        self,
        *,
        strength: ArrayLike,
        variance: ArrayLike,
        alignment: float,
        gradient_norm: float = math.nan,
        offset: float = 0.0,
    ) -> None:
        r = _check.vector("strength", strength)
        if not len(r):
            raise _check.bad("strength", "at least one number", r)
        c = _check.vector("variance", variance, len(r))
        if (c <= 0).any():
            raise _check.bad("variance", "positive", c)
        gamma = _check.real("alignment", alignment, minimum=-1.0, maximum=1.0)
        if isinstance(gradient_norm, (float, np.floating)) and math.isnan(gradient_norm):
            norm = math.nan
        else:
            norm = _check.real("gradient_norm", gradient_norm, minimum=0.0)
        for array in (r, c):
            array.setflags(write=False)
        for name, value in (
            ("strength", r),
            ("variance", c),
            ("alignment", gamma),
            ("gradient_norm", norm),
            ("offset", _check.real("offset", offset)),
        ):
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Spike is read-only: {name} cannot be set")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a Spike is read-only: {name} cannot be deleted")

    def _values(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}

    def _key(self) -> tuple[Any, ...]:
        norm = None if math.isnan(self.gradient_norm) else self.gradient_norm
        arrays = (tuple(self.strength.tolist()), tuple(self.variance.tolist()))
        return (*arrays, self.alignment, norm, self.offset)

    def __reduce__(self) -> tuple[Any, ...]:
        return _spike_of, (self._values(),)

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, Spike) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        r, c = self.strength.tolist(), self.variance.tolist()
        return f"Spike(strength={r}, variance={c}, alignment={self.alignment!r})"


def _spike_of(values: dict[str, Any]) -> Spike:
    return Spike(**values)


@record
class ReadoutPoint(Point):
    """The fitted network: its errors, and the order parameters of the theory.

    Attributes
    ----------
    risk : float
        E (s*(w* . x) - f)^2, without the label noise; NaN with the logistic loss.
    train_risk : float
        (1/n) sum (y - f)^2 on the noisy labels of the fit; the mean loss with the logistic one.
    class_error : float
        Probability of the wrong sign on noisy labels: with the logistic loss, and measured by
        `simulate`; NaN in the theory of the square loss.
    alignment : float
        gamma, the overlap of the spike's direction v with that of the target.
    strength : (K,) array
        Strength r_g of the spike for each group of units.
    m : (K,) array, or None
        Sums of the readout over a group, the coefficients of mu0_g. The shortest where they are
        not unique.
    theta : (K,) array, or None
        Weighted sums of the readout with the overlaps of the bulk and v.
    psi : (K,) array, or None
        The same with the target's direction orthogonal to v.
    Q1 : (K, K) array, or None
        Overlaps of the readout's directions in the bulk.
    q2 : (K,) array, or None
        Mean squared readout |a_g|^2/p.
    V1 : (K, K) array, or None
        Variance that belongs to Q1.
    V2 : (K,) array, or None
        Variance that belongs to q2.

    Notes
    -----
    Simulations have the replica axis first, and none of the order parameters. Source:
    ``docs/papers/giant_step.md`` section 3.2.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.giant_step.Problem(
    ...     alpha=1.5, beta=1.0, ridge=0.1, lr=3.0, alpha0=20.0, target="sin"
    ... )
    >>> op.giant_step.spike(problem).strength.round(4)
    array([1.1341])
    """

    risk: float = array_field()
    train_risk: float = array_field()
    class_error: float = array_field()
    alignment: float = array_field()
    strength: FloatArray = array_field("group")
    m: FloatArray | None = array_field("group", default=None)
    theta: FloatArray | None = array_field("group", default=None)
    psi: FloatArray | None = array_field("group", default=None)
    Q1: FloatArray | None = array_field("group", "group_2", default=None)
    q2: FloatArray | None = array_field("group", default=None)
    V1: FloatArray | None = array_field("group", "group_2", default=None)
    V2: FloatArray | None = array_field("group", default=None)


def _problem(problem: object) -> Problem:
    if not isinstance(problem, Problem):
        raise _check.bad("problem", "an overparam.giant_step.Problem", problem, TypeError)
    return problem


# ---- from the gradient step to the spike ---------------------------------------------------------


def moments(activation: str | Function) -> HermiteMoments:
    """Return the Gaussian averages of an activation at unit variance.

    Parameters
    ----------
    activation : str or Function
        As in `Problem`.

    Returns
    -------
    HermiteMoments

    Raises
    ------
    TypeError, ValueError
        If the activation is not known, or its values are not finite or of another shape.

    Notes
    -----
    In closed form but for tanh, softplus and functions of one's own. Source:
    ``docs/papers/giant_step.md`` section 2.

    Examples
    --------
    >>> import overparam as op
    >>> found = op.giant_step.moments("relu")
    >>> found.h1, round(found.rest, 6)
    (0.5, 0.090845)
    """
    return _moments(_activation("activation", activation))


@functools.lru_cache(maxsize=64)
def _moments(activation: Activation) -> HermiteMoments:
    if activation == "relu":
        density = 1 / math.sqrt(2 * math.pi)
        rest = 1 / 4 - 1 / (2 * math.pi)
        return HermiteMoments(mean=density, second=0.5, h1=0.5, h2=density, h3=0.0, rest=rest)
    if activation == "erf":
        h1 = 1 / math.sqrt(math.pi)
        rest = 2 / (math.pi * math.sqrt(3)) - h1**2
        return HermiteMoments(mean=0.0, second=1 / 3, h1=h1, h2=0.0, h3=-h1 / 2, rest=rest)
    if activation in SINES:
        slope, w = SINES[activation]
        decay = math.exp(-w * w / 2)
        return HermiteMoments(
            mean=0.0,
            second=slope**2 + 2 * slope * w * decay - math.expm1(-2 * w * w) / 2,
            h1=slope + w * decay,
            h2=0.0,
            h3=-(w**3) * decay,
            rest=(w * math.expm1(-w * w)) ** 2 / 2,
        )
    if activation in POLYNOMIALS:
        p0, p1, p2, p3 = POLYNOMIALS[activation]
        h1, h2, h3 = p1 + 3 * p3, 2 * p2, 6 * p3
        mean = p0 + p2
        second = mean**2 + h1**2 + h2**2 / 2 + h3**2 / 6
        return HermiteMoments(mean=mean, second=second, h1=h1, h2=h2, h3=h3, rest=h3**2 / 2)
    lattices = []
    for coefficient, _, z in _lattices(activation, -REACH, REACH, MOMENT_DEVIATION):
        weight = np.exp(-z * z / 2)
        weight *= coefficient / weight.sum()
        s, ds = _evaluate(activation, z), _evaluate(activation, z, "df")
        lattices.append((weight, z, s, ds))
    # Powers of two as units, so that squares of large or small functions are finite and not zero.
    largest = max(max(np.abs(s).max(), np.abs(ds).max()) for _, _, s, ds in lattices)
    unit = 2.0 ** (math.frexp(largest)[1] - 1)
    total = np.zeros(6)
    for weight, z, s, ds in lattices:
        s, ds = s / unit, ds / unit
        total += [weight @ x for x in (s, s * s, z * s, (z * z - 1) * s, z**3 * s, ds * ds)]
    mean, second, h1, h2, cubic, slope2 = total.tolist()
    rounding = MOMENT_ROUNDING * math.sqrt(max(second, 0.0))
    mean, h1, h2, cubic = (0.0 if abs(x) <= rounding else x for x in (mean, h1, h2, cubic))
    rest = slope2 - h1**2 - h2**2
    return HermiteMoments(
        mean=mean * unit,
        second=max(second, 0.0) * unit**2,
        h1=h1 * unit,
        h2=h2 * unit,
        h3=(cubic - 3 * h1) * unit,
        rest=rest * unit**2 if rest > MOMENT_ROUNDING * slope2 else 0.0,
    )


def _largest_argument(problem: Problem) -> tuple[str, object]:
    """Return name and value of the argument that makes a step largest."""
    sizes = {
        "lr": abs(problem.lr),
        "readout_values": max(map(abs, problem.readout_values)),
        "alpha0": 1 / max(problem.alpha0, np.finfo(float).tiny),
        "noise_var": problem.noise_var,
    }
    name = max(sizes, key=lambda key: sizes[key])
    return name, getattr(problem, name)


class _Gradient(NamedTuple):
    """The mean direction of the first-stage gradient, and the effective label."""

    norm: float  # |g|
    alignment: float
    offset: float  # mean output before the step
    mean: float  # of the label minus the offset
    second: float


def _gradient(problem: Problem) -> _Gradient:
    student, target = _moments(problem.activation), _moments(problem.target)
    values, fractions = problem.readout_values, problem.readout_fractions
    offset = student.mean * sum(A * pi for A, pi in zip(values, fractions, strict=True))
    mean = target.mean - offset
    second = target.second + problem.noise_var - 2 * offset * target.mean + offset * offset
    norm = math.inf
    if problem.alpha0 > 0:
        norm = math.sqrt(target.h1**2 + second / problem.alpha0)
    alignment = target.h1 / norm if norm > 0 else 0.0
    return _Gradient(norm, alignment, offset, mean, second)


def _is_moderate(strength: FloatArray, variance: FloatArray) -> bool:
    """Return whether all powers of a spike's parameters that are needed are finite."""
    small = np.abs(strength).max() <= LARGEST_STRENGTH
    return bool(small and variance.max() <= LARGEST_VARIANCE)


def spike(problem: Problem) -> Spike:
    """Return the spiked first layer that the gradient step makes of the initial one.

    Parameters
    ----------
    problem : Problem
        Step, activations and initial readout; alpha, beta and the ridge are ignored.

    Returns
    -------
    Spike
        Without a step (a rate or alpha0 of 0): strengths 0, variances 1, alignment 0.

    Raises
    ------
    TypeError
        If `problem` is not a `Problem`.
    ValueError
        If the step leaves nothing of a row but its spike, or is too large for finite numbers.

    Notes
    -----
    An activation with h1 = 0 gets no spike: its strengths are 0, its variances are not 1. Source:
    ``docs/papers/giant_step.md`` section 2.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.giant_step.Problem(
    ...     alpha=1, beta=1, ridge=0.1, lr=3, alpha0=20, activation="tanh", target="sin"
    ... )
    >>> found = op.giant_step.spike(problem)
    >>> found.strength.round(6), found.variance.round(6), round(found.alignment, 6)
    (array([1.134056]), array([1.018973]), 0.971854)
    """
    return _spike(_problem(problem))


def _spike(problem: Problem) -> Spike:
    if not problem.has_step:
        none = np.zeros(problem.groups)
        return Spike(strength=none, variance=none + 1, alignment=0.0)
    student, g = _moments(problem.activation), _gradient(problem)
    sampled = g.second / problem.alpha0
    with np.errstate(over="ignore", invalid="ignore"):  # refused below
        step = problem.lr * np.array(problem.readout_values)
        # The part of 1 + 2 e h2 y1 + (e h2 y1)^2 is a square.
        variance = (1 + step * student.h2 * g.mean) ** 2
        variance += step**2 * (student.h2**2 + student.rest) * sampled
        strength = step * student.h1 * g.norm
    if not _is_moderate(strength, variance):
        name, value = _largest_argument(problem)
        size = "large" if name == "alpha0" else "small"
        must = f"{size} enough for variances and squared strengths of the spike below"
        raise _check.bad(name, f"{must} {LARGEST_VARIANCE:g}", value)
    return Spike(
        strength=strength,
        variance=variance,
        alignment=max(-1.0, min(1.0, g.alignment)),
        gradient_norm=g.norm,
        offset=g.offset,
    )


# ---- conditional features ------------------------------------------------------------------------

# slope x + sin(frequency x), and polynomials by their coefficients.
SINES = {"sin": (0.0, 1.0), "sin2": (0.0, 2.0), "sinlin": (1.0, 2.0)}
POLYNOMIALS = {
    "linear": (0.0, 1.0, 0.0, 0.0),
    "he3": (0.0, 1 - 3 / math.sqrt(6), 0.0, 1 / math.sqrt(6)),
    "quad1": (-0.5, 1.0, 0.5, 0.0),
}

# Half-width of Gaussian averages in standard deviations.
REACH = 9.0
# Averages are taken with Gauss's rule below the first deviation, else on a lattice, and above the
# second as corrections to the piecewise linear function that tanh and softplus approach.
SMALL_DEVIATION, LARGE_DEVIATION = 1e-3, 30.0
# Second derivatives are differences over the first deviation or more, and all that is left of a
# function's values below the second, where their rounding would dominate.
DIFFERENCE_DEVIATION, CURVED_DEVIATION = 1e-5, 1e-4
# Beyond this distance from zero tanh and softplus are constant, linear or exponential.
SATURATION = 40.0
# A Function is averaged over so many values in all at most.
LARGEST_WORK = 2.5e9
# Means of strengths below this are expanded, and vanish where they are below this part of the rest.
TINY_STRENGTH, MEAN_ROUNDING = 1e-6, 1e-13
# Nodes of a panel of the kappa grid, longest panel, largest number of panels on one side.
PANEL_NODES, PANEL_LENGTH, PANELS = 16, 1.0, 10**4
# Their nodes resolve what varies over this fraction of the panels that are asked for.
SPARE = 0.25

Features = tuple[FloatArray, FloatArray, FloatArray, FloatArray]


def _lattices(
    activation: Activation, low: float, high: float, deviation: float
) -> list[tuple[float, float, FloatArray]]:
    """Return coefficients, steps and points of lattices for averages over `deviation`.

    The rule is exponentially accurate for the built-in activations. For others the error of
    midpoints, to which kinks at integers add even powers of the step, is extrapolated.
    """
    if isinstance(activation, str):
        steps = [(1.0, min(0.25, 0.5 * deviation))]
    else:
        step = 1 / math.ceil(max(16.0, 8 / deviation))
        steps = [(1 / 45, step), (-20 / 45, step / 2), (64 / 45, step / 4)]
    lattices = []
    for coefficient, step in steps:
        first, last = math.floor(low / step) - 1, math.ceil(high / step) + 1
        points = (np.arange(first, last, dtype=np.float64) + 0.5) * step
        lattices.append((coefficient, step, points))
    return lattices


def _features(activation: Activation, k: FloatArray, deviation: float) -> Features:
    """Return mu0, mu1, mus^2 and d mu0/dc at 1-D points, at one positive deviation sqrt c."""
    if isinstance(activation, str) and activation not in ("tanh", "softplus"):
        return _core.giant_closed_features(activation, k, np.full(len(k), deviation**2))
    if deviation < SMALL_DEVIATION:
        return _narrow_features(activation, k, deviation)
    if isinstance(activation, str) and deviation > LARGE_DEVIATION:
        return _wide_features(activation, k, deviation)
    reach = REACH * deviation
    if isinstance(activation, str):
        near = np.abs(k) <= SATURATION + reach + deviation**2
        if near.all():
            out = _lattice_features(activation, k, deviation)
        else:
            out = np.empty((4, len(k)))
            out[:, ~near] = _saturated_features(activation, k[~near], deviation)
            if near.any():
                out[:, near] = _lattice_features(activation, k[near], deviation)
    else:
        order = np.argsort(k, kind="stable")
        out = np.empty((4, len(k)))
        # Lattices leave gaps out.
        for here in np.split(order, np.nonzero(np.diff(k[order]) > 2 * reach + 1)[0] + 1):
            out[:, here] = _lattice_features(activation, k[here], deviation)
    return out[0], out[1], np.maximum(out[2], 0.0), out[3]


def _lattice_features(activation: Activation, k: FloatArray, deviation: float) -> FloatArray:
    sums = np.zeros((4, len(k)))
    reach = REACH * deviation
    for coefficient, step, x in _lattices(activation, k.min() - reach, k.max() + reach, deviation):
        values = _evaluate(activation, x)
        parts = _core.giant_lattice_features(values, x[0], step, k, deviation)
        sums += coefficient * np.array(parts)
    return sums


def _narrow_features(activation: Activation, k: FloatArray, deviation: float) -> Features:
    """Return the features at a small deviation: slopes from the derivative."""
    z, weight = np.polynomial.hermite_e.hermegauss(20)
    weight = weight / weight.sum()
    s = _evaluate(activation, k[:, None] + deviation * z)
    mean = s @ weight
    rest = s - mean[:, None]
    rest -= (rest @ (weight * z))[:, None] * z
    slope = _evaluate(activation, k[:, None] + deviation * z, "df") @ weight
    width = max(deviation, DIFFERENCE_DEVIATION)
    curvature = _evaluate(activation, k[:, None] + width * z, "df") @ (weight * z) / (2 * width)
    if deviation < CURVED_DEVIATION:
        return mean, slope, 2 * (deviation**2 * curvature) ** 2, curvature
    return mean, slope, rest**2 @ weight, curvature


def _saturated_features(activation: str, k: FloatArray, deviation: float) -> Features:
    """Return the features of tanh or softplus far from zero."""
    from scipy.special import gammainc

    zero = np.zeros_like(k)
    if activation == "tanh":
        return np.sign(k), zero, zero, zero
    c = deviation**2
    linear = k > 0
    exponent = np.where(linear, -np.inf, k + c / 2)
    small = np.exp(exponent)
    mean, slope = np.where(linear, k, small), np.where(linear, 1.0, small)
    # e^(2 exponent) (e^c - 1 - c)
    return mean, slope, np.exp(2 * exponent + c) * gammainc(2.0, c), small / 2


def _wide_features(activation: str, k: FloatArray, deviation: float) -> Features:
    """Return the features of tanh or softplus at a large deviation.

    They differ from the sign or relu in a range only that is small beside the deviation.
    """
    from scipy.special import erf

    c, t = deviation**2, k / deviation
    reach = 0.5 * SATURATION if activation == "tanh" else SATURATION
    x, weight = _on_panels(reach * np.linspace(-1, 1, 41), PANEL_NODES)
    z = (x - k[:, None]) / deviation
    density = np.exp(-z * z / 2) * (weight / (math.sqrt(2 * math.pi) * deviation))
    s = _evaluate(activation, x)
    if activation == "tanh":
        bump = 2 * np.exp(-t * t / 2) / math.sqrt(2 * math.pi)
        plain, square = np.sign(x), s * s - 1
        mean, slope, curvature = erf(t / math.sqrt(2)), bump / deviation, -t * bump / (2 * c)
        residual = 1 - mean**2 - bump**2
    else:
        plain = np.maximum(x, 0.0)
        square = (s - plain) * (s + plain)
        mean, slope, residual, curvature = _core.giant_closed_features(
            "relu", k, np.full(len(k), c)
        )
    rest = s - plain
    more, tilt, bend = density @ rest, (density * z) @ rest, (density * (z * z - 1)) @ rest
    residual = residual + density @ square - more * (2 * mean + more)
    residual -= tilt * (2 * deviation * slope + tilt)
    return (
        mean + more,
        slope + tilt / deviation,
        np.maximum(residual, 0.0),
        curvature + bend / (2 * c),
    )


def features(
    activation: str | Function, kappa: ArrayLike, variance: ArrayLike
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return mean, slope and residual variance of an activation of a normal variable.

    Parameters
    ----------
    activation : str or Function
        As in `Problem`.
    kappa : array_like
        Means of the variable.
    variance : array_like
        Its variances c > 0, a number or an array that broadcasts against `kappa`.

    Returns
    -------
    mu0 : array like `kappa`
        E s(kappa + sqrt(c) z).
    mu1 : array like `kappa`
        E s'(kappa + sqrt(c) z).
    mustar2 : array like `kappa`
        E s^2 - mu0^2 - c mu1^2 >= 0.

    Raises
    ------
    TypeError, ValueError
        Naming the argument that is not as described.

    Notes
    -----
    Here `kappa` is the whole mean, r_g times the component along the spike. Source:
    ``docs/papers/giant_step.md`` section 3.3.

    Examples
    --------
    >>> import overparam as op
    >>> mu0, mu1, mustar2 = op.giant_step.features("sin", [0.0, 1.2], 2.0)
    >>> mu0.round(6), mustar2.round(6)
    (array([0.      , 0.342878]), array([0.220172, 0.353648]))
    """
    activation = _activation("activation", activation)
    k, c = _reals("kappa", kappa), _reals("variance", variance)
    if (c <= 0).any():
        raise _check.bad("variance", "positive", c)
    try:
        c = np.broadcast_to(c, k.shape)
    except ValueError:
        must = f"a number or an array that broadcasts to the shape {k.shape} of kappa"
        raise _check.bad("variance", must, c) from None
    out = np.empty((3, k.size))
    for one in np.unique(c):
        here = np.ravel(c == one)
        if _work(activation, int(here.sum()), math.sqrt(one)) > LARGEST_WORK:
            must = f"such that averages of a Function take less than {LARGEST_WORK:g} values"
            raise _check.bad("variance", must, one)
        out[:, here] = _features(activation, np.ravel(k)[here], math.sqrt(one))[:3]
    mu0, mu1, mustar2 = out.reshape(3, *k.shape)
    return np.asarray(mu0), np.asarray(mu1), np.asarray(mustar2)


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


class _Scale(NamedTuple):
    """Length of the panels that a function needs up to `extent`; beyond it they may grow."""

    length: float
    extent: float


def _student_scale(activation: Activation, strength: float, variance: float) -> _Scale:
    deviation = math.sqrt(variance)
    # Averages over a large deviation are smooth, and those over a small one like the function.
    wide = 0.45 * deviation
    smooth = min(1.0, max(deviation, 0.3))
    if activation == "relu":
        length, extent = 0.75 * deviation, REACH * deviation
    elif activation in ("tanh", "softplus", "erf"):
        length, extent = 1.2 * max(1.0, wide), 10 + REACH * deviation
    elif activation in SINES:
        frequency = SINES[activation][1]
        length, extent = 0.8 * min(1 / frequency, smooth), math.inf
        if frequency * deviation > REACH:  # nothing is left of the sine
            length = math.inf
    elif activation in POLYNOMIALS:
        length, extent = 0.7 * max(smooth, wide), 3 * (1 + deviation)
    else:
        length, extent = 0.7 * max(min(1.0, deviation), wide), math.inf
    return _Scale(length / abs(strength), extent / abs(strength))


def _check_spike(name: str, value: object, activation: Activation, spike: Spike) -> None:
    """Refuse a spike of too large strengths or variances for the tables of a student."""
    if not _is_moderate(spike.strength, spike.variance):
        must = f"such that variances and squared strengths are below {LARGEST_VARIANCE:g}"
        raise _check.bad(name, must, value)
    for r, c in zip(spike.strength.tolist(), spike.variance.tolist(), strict=True):
        if r == 0:
            continue
        scale = _student_scale(activation, r, max(c, 1.0))
        largest = abs(r) * scale.length * PANELS / (REACH * SPARE)
        if scale.extent == math.inf and abs(r) > largest:
            must = f"such that the spike's strengths, here {r:.4g}, are at most {largest:.4g}"
            raise _check.bad(name, f"{must} (steeper ones are not resolved)", value)
        nodes = 2 * PANEL_NODES * min(REACH / min(scale.length, PANEL_LENGTH) + 1, PANELS)
        if _work(activation, nodes, math.sqrt(c)) > LARGEST_WORK:
            must = f"such that averages of a Function over the spike's variance, here {c:.4g},"
            raise _check.bad(name, f"{must} take less than {LARGEST_WORK:g} values", value)


def _own_spike(problem: Problem) -> Spike:
    """Return the spike of a problem's step, refused if it cannot be tabulated."""
    own = _spike(problem)
    _check_spike(*_largest_argument(problem), problem.activation, own)
    return own


def _work(activation: Activation, points: float, deviation: float) -> float:
    """Return how many values enter the averages of a Function."""
    if isinstance(activation, str) or deviation < SMALL_DEVIATION:
        return 0.0
    return points * 2 * REACH * deviation * 7 * max(16.0, 8 / deviation)


def _kappa_grid(
    activation: Activation, target: Activation, spike: Spike, more: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return nodes and weights (of sum one) of Gauss panels that resolve student and target.

    The panels have `more` ends than that takes.
    """
    scales = {
        _student_scale(activation, r, c)
        for r, c in zip(spike.strength.tolist(), spike.variance.tolist(), strict=True)
        if r != 0
    }
    gamma = abs(spike.alignment)
    width = math.sqrt(1 - gamma**2)
    if width < gamma and (target == "relu" or isinstance(target, Function)):
        # Kinks are as wide as this; one at 0 is resolved however narrow it is.
        kink = max(width / gamma, 1e-9)
        extent = math.inf if isinstance(target, Function) and kink > 0.1 else REACH * kink
        scales.add(_Scale(0.75 * kink, extent))
    shortest = REACH / PANELS
    edges = [0.0]
    while edges[-1] < REACH:
        k = edges[-1]
        length = PANEL_LENGTH
        for scale in scales:
            if scale.extent == math.inf:
                length = min(length, max(scale.length, shortest))
            else:
                length = min(length, scale.length + max(k - scale.extent, 0.0) / 2)
        edges.append(min(k + length, REACH))
    ends = np.array(edges)
    ends = np.unique(np.concatenate([-ends, ends, more[np.abs(more) < REACH]]))
    kappa, weight = _on_panels(ends, PANEL_NODES)
    weight *= np.exp(-kappa * kappa / 2)
    return kappa, weight / weight.sum()


def _on_panels(ends: FloatArray, count: int) -> tuple[FloatArray, FloatArray]:
    """Return nodes and weights of Gauss-Legendre rules of `count` nodes between the ends."""
    x, w = _legendre(count)
    half = np.diff(ends)[:, None] / 2
    return ((ends[:-1, None] + half) + half * x).ravel(), (half * w).ravel()


@functools.cache
def _legendre(count: int) -> tuple[FloatArray, FloatArray]:
    return np.polynomial.legendre.leggauss(count)


@functools.lru_cache(maxsize=64)
def _tables(activation: Activation, target: Activation, spike: Spike) -> _core.GiantTables:
    return _core.GiantTables(**_table_arrays(activation, target, spike))


def _group_features(
    activation: Activation, kappa: FloatArray, strength: float, deviation: float
) -> Features:
    """Return the features of rows of one strength at nodes of kappa."""
    tiny = abs(strength) * REACH < TINY_STRENGTH * min(1.0, deviation)
    if not tiny:
        return _features(activation, strength * kappa, deviation)
    # The mean varies less than it is rounded, and all of it may be rounding.
    mean, linear, residual, curvature = (
        float(x[0]) for x in _features(activation, np.zeros(1), deviation)
    )
    if abs(mean) < MEAN_ROUNDING * math.hypot(math.sqrt(residual), deviation * linear):
        mean = 0.0
    if strength == 0:
        means = np.full(len(kappa), mean)
        return means, means * 0 + linear, means * 0 + residual, means * 0 + curvature
    k = strength * kappa
    _, *others = _features(activation, k, deviation)
    return mean + k * (linear + k * curvature), others[0], others[1], others[2]


def _table_arrays(
    activation: Activation, target: Activation, spike: Spike, more: Sequence[float] = ()
) -> dict[str, FloatArray]:
    """Return kappa nodes, and features and target there, as `_core.GiantTables` takes them.

    The panels of nodes have `more` ends than these functions take.
    """
    kappa, weight = _kappa_grid(activation, target, spike, np.array(more))
    groups = [
        _group_features(activation, kappa, r, math.sqrt(c))
        for r, c in zip(spike.strength.tolist(), spike.variance.tolist(), strict=True)
    ]
    mean, linear, residual, curvature = np.array(groups).transpose(1, 0, 2)
    gamma = spike.alignment
    rho = math.sqrt((1 - gamma) * (1 + gamma))
    if rho == 0:
        h = _evaluate(target, gamma * kappa)
        h1, second = np.zeros_like(h), h * h
    else:
        h, slope, rest, _ = _features(target, gamma * kappa, rho)
        h1 = rho * slope
        second = h * h + h1 * h1 + rest
    return {
        "kappa": kappa,
        "weight": weight,
        "mean": mean,
        "linear": linear,
        "residual": residual,
        "curvature": curvature,
        "target": h,
        "target_linear": h1,
        "target_second": second,
    }


# ---- the bulk's spectral measure -----------------------------------------------------------------

# The target is tabulated on panels of this width and number of nodes within this range of its
# argument, which split at its zeros and halve towards them; zeros are looked for at so many points.
LABEL_RANGE, LABEL_PANEL, LABEL_NODES, LABEL_POINTS = 12.0, 0.5, 12, 4801
# Nodes whose share of all moments of the label up to the sixth is below this are left out.
LABEL_NEGLIGIBLE = 1e-22


@functools.lru_cache(maxsize=64)
def _zeros(target: Activation, offset: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return where a target minus an offset changes its sign, and all its zeros with slopes there.

    The ends of an interval of zeros count as changes, touching zeros only in the second array.
    """
    x = np.linspace(-LABEL_RANGE, LABEL_RANGE, LABEL_POINTS)
    y = _evaluate(target, x) - offset
    sign = np.sign(y)
    at = np.nonzero(sign[1:] != sign[:-1])[0]
    low, high, left = x[at], x[at + 1], sign[at]
    for _ in range(60):
        middle = 0.5 * (low + high)
        same = np.sign(_evaluate(target, middle) - offset) == left
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    changes = np.unique(np.round(high, 14))
    # Local minima of |y| without a change of sign, by golden section.
    size = np.abs(y)
    inner = (size[1:-1] < size[:-2]) & (size[1:-1] <= size[2:])
    inner &= (sign[:-2] == sign[1:-1]) & (sign[1:-1] == sign[2:])
    dips = np.nonzero(inner)[0] + 1
    low, high = x[dips - 1], x[dips + 1]
    for _ in range(60):
        a, b = high - 0.618034 * (high - low), low + 0.618034 * (high - low)
        less = np.abs(_evaluate(target, a) - offset) < np.abs(_evaluate(target, b) - offset)
        low, high = np.where(less, low, a), np.where(less, b, high)
    near = np.concatenate([changes, 0.5 * (low + high)])
    step = x[1] - x[0]
    slope = np.abs(_evaluate(target, near + step) - _evaluate(target, near - step)) / (2 * step)
    for array in (changes, near, slope):
        array.setflags(write=False)
    return changes, near, slope


def _label_nodes(
    target: Activation, offset: float, scale: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return nodes and weights of a normal variable and the target minus an offset there.

    For averages of functions that vary with the label within `scale` of zero, and smoothly beyond.
    """
    _, near, slope = _zeros(target, offset)
    edges = [np.arange(-LABEL_RANGE, LABEL_RANGE + 0.1, LABEL_PANEL), near]
    for zero, steepness in zip(near.tolist(), slope.tolist(), strict=True):
        width = min(scale, 0.5) / max(steepness, 1.0)
        halvings = math.ceil(math.log2(LABEL_PANEL / width)) + 2
        widths = LABEL_PANEL * 0.5 ** np.arange(halvings)
        edges += [zero - widths, zero + widths]
    edge = np.unique(np.clip(np.concatenate(edges), -LABEL_RANGE, LABEL_RANGE))
    omega, weight = _on_panels(edge, LABEL_NODES)
    weight *= np.exp(-omega * omega / 2)
    label = _evaluate(target, omega) - offset
    kept = weight * (1 + label**6) * (1 + omega**2) > LABEL_NEGLIGIBLE
    return omega[kept], weight[kept] / weight.sum(), label[kept]


@functools.lru_cache(maxsize=64)
def _step_modes(
    target: Activation, offset: float, noise_var: float, alpha0: float, spread: tuple[float, ...]
) -> _core.GiantModes:
    """Return the measure of Sigma_g = 1 + spread_g M2."""
    # Labels within this matter to the resolvent next to the spectrum.
    nearest = math.sqrt(0.5 * alpha0 / max(spread))
    scale = max(nearest, math.sqrt(noise_var))
    omega, weight, label = _label_nodes(target, offset, scale)
    return _core.giant_step_modes(
        omega=omega,
        weight=weight,
        label=label,
        noise_var=noise_var,
        samples=alpha0,
        spread=np.array(spread),
    )


# A sample takes about this many seconds for each of (1 + alpha0) modes_dim^3, and at most so many.
SAMPLE_SECONDS, LONGEST_SAMPLE = 1.5e-10, 300.0


def _first_samples(alpha0: float, modes_dim: int) -> int:
    return max(math.floor(alpha0 * modes_dim + 0.5), 1)


@functools.lru_cache(maxsize=2)
def _first_step(
    problem: Problem, offset: float, modes_dim: int, seed_word: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return sums over samples of the first step: y x, y x x^T and y^2 x x^T."""
    samples = _first_samples(problem.alpha0, modes_dim)
    rng = np.random.default_rng(seed_word)
    gradient = np.zeros(modes_dim)
    first = np.zeros((modes_dim, modes_dim))
    second = np.zeros((modes_dim, modes_dim))
    block = 4 * modes_dim
    for start in range(0, samples, block):
        x = rng.standard_normal((min(block, samples - start), modes_dim))
        noise = math.sqrt(problem.noise_var) * rng.standard_normal(len(x))
        label = _evaluate(problem.target, x[:, 0].copy()) + noise - offset
        gradient += label @ x
        # Products of an array with its own transpose take half the time of others.
        scaled = label[:, None] * x
        second += scaled.T @ scaled
        for sign in (1.0, -1.0):
            part = sign * label > 0
            scaled = np.sqrt(sign * label[part])[:, None] * x[part]
            first += sign * (scaled.T @ scaled)
    for array in (gradient, first, second):
        array.setflags(write=False)
    return gradient, first, second


@functools.lru_cache(maxsize=16)
def _sampled_modes(
    problem: Problem, offset: float, modes_dim: int, seed_word: int
) -> _core.GiantModes:
    """Return the measure of one sample of the first step, for one group.

    Random are the inputs of the step and their label noise, and with them Sigma and the directions
    of spike and target in its eigenbasis. Their weights sum to one; strength, variance and
    alignment of the spike stay those of the limit.
    """
    from scipy.linalg import eigh

    student = _moments(problem.activation)
    e = problem.lr * problem.readout_values[0]
    gradient, first, second = _first_step(problem.replace(lr=1.0), offset, modes_dim, seed_word)
    samples = _first_samples(problem.alpha0, modes_dim)
    linear = (e * student.h2 / samples) * first
    linear[np.diag_indices(modes_dim)] += 1.0
    covariance = linear @ linear
    covariance += (e**2 * student.rest * modes_dim / samples**2) * second
    eigenvalues, vectors = eigh(covariance, overwrite_a=True, driver="evd")
    v = gradient / np.linalg.norm(gradient)
    z = -v[0] * v
    z[0] += 1.0
    z /= np.linalg.norm(z)
    along, teacher = vectors.T @ v, vectors.T @ z
    return _core.GiantModes(
        weight=[1 / modes_dim] * modes_dim,
        covariance=[eigenvalues.tolist()],
        along=(along**2).tolist(),
        across=(along * teacher).tolist(),
        orthogonal=(teacher**2).tolist(),
    )


def _isotropic_modes(spike: Spike) -> _core.GiantModes:
    """Return the measure of rows without a preferred direction."""
    return _core.GiantModes(
        weight=[1],
        covariance=spike.variance[:, None].tolist(),
        along=[1],
        across=[0],
        orthogonal=[1],
    )


def _endless_modes(problem: Problem, offset: float) -> _core.GiantModes:
    """Return the measure after a step on endless samples, where only the spike's direction differs.

    There M1 = E[y x x^T] has the eigenvalue E[y omega^2] along the target, which the spike is.
    """
    target = _moments(problem.target)
    slope = problem.lr * problem.readout_values[0] * _moments(problem.activation).h2
    root = 1 + slope * (target.mean - offset)
    return _core.GiantModes(
        weight=[1.0, 0.0],
        covariance=[[root**2, (root + slope * target.h2) ** 2]],
        along=[0.0, 1.0],
        across=[0.0, 0.0],
        orthogonal=[1.0, 0.0],
    )


def _is_sampled(problem: Problem) -> bool:
    """Return whether the bulk's spectrum after a step is that of a sample."""
    return _moments(problem.activation).h2 != 0 and not math.isinf(problem.alpha0)


def _modes(
    problem: Problem,
    spike: Spike,
    method: str,
    modes_dim: int,
    sequence: np.random.SeedSequence,
) -> _core.GiantModes:
    """Return the spectral measure of the bulk after a step.

    Deterministic where the student's s' has no linear part, sampled in `modes_dim` dimensions
    otherwise.
    """
    student = _moments(problem.activation)
    if student.h2 != 0:
        if problem.groups > 1:
            must = (
                '"isotropic" for several readout values and an activation whose E[z s\'(z)] is '
                f"not zero (it is {student.h2:.4g})"
            )
            raise _check.bad("method", must, method)
        if not _is_sampled(problem):
            return _endless_modes(problem, spike.offset)
        seconds = SAMPLE_SECONDS * (1 + problem.alpha0) * float(modes_dim) ** 3
        if seconds > LONGEST_SAMPLE:
            fitting = (LONGEST_SAMPLE / SAMPLE_SECONDS / (1 + problem.alpha0)) ** (1 / 3)
            advice = f"at most {int(fitting)}, " if fitting >= 100 else ""
            must = (
                f"smaller at alpha0 = {problem.alpha0:g}: {advice}or alpha0 = inf, which needs no "
                f"sample (this one takes about {seconds / 60:.2g} minutes)"
            )
            raise _check.bad("modes_dim", must, modes_dim)
        step = problem.replace(alpha=1.0, beta=1.0, ridge=1.0)  # all that the sample depends on
        return _sampled_modes(step, spike.offset, modes_dim, _check.seed_word(sequence))
    values = np.array(problem.readout_values)
    spread = (problem.lr * values) ** 2 * student.rest / problem.alpha0
    if not spread.any():
        return _isotropic_modes(spike)
    return _step_modes(
        problem.target, spike.offset, problem.noise_var, problem.alpha0, tuple(spread.tolist())
    )


# ---- the readout ---------------------------------------------------------------------------------


# Small steps beyond this have the limit's risk.
LARGEST_SMALL_STEP = 1e8


class _Regime(NamedTuple):
    """What `solve` is to solve."""

    name: str
    spike: Spike
    slope_variance: float = 1.0


def _regime(problem: Problem, spike: Spike | None, small_step: float | None) -> _Regime:
    if spike is not None:
        if not isinstance(spike, Spike):
            raise _check.bad("spike", "an overparam.giant_step.Spike or None", spike, TypeError)
        if len(spike.strength) != problem.groups:
            must = f"of as many groups as the problem ({problem.groups})"
            raise _check.bad("spike", must, spike)
        _check_spike("spike", spike, problem.activation, spike)
    none = np.zeros(problem.groups)
    if small_step is not None:
        alignment = _gradient(problem).alignment if spike is None else spike.alignment
        still = Spike(strength=none, variance=none + 1, alignment=alignment)
        values, fractions = np.array(problem.readout_values), np.array(problem.readout_fractions)
        if np.abs(values).max() > LARGEST_STRENGTH:
            must = f"of sizes of at most {LARGEST_STRENGTH:.2g}"
            raise _check.bad("readout_values", must, problem.readout_values)
        spread = float(fractions @ values**2)
        if _moments(problem.activation).mean != 0:  # the mean feature pins the mean readout
            spread -= float(fractions @ values) ** 2
        # Larger steps change nothing but the last digits.
        step = min(abs(small_step), LARGEST_SMALL_STEP)
        slope_variance = 1 + step**2 * max(spread, 0.0)
        return _Regime("small step" if small_step else "random features", still, slope_variance)
    if spike is not None:
        return _Regime("given spike", spike)
    own = _own_spike(problem)
    if not problem.has_step:
        return _Regime("random features", own)
    return _Regime("giant step" if own.strength.any() else "no spike", own)


def solve(
    problem: Problem,
    *,
    method: str = "corrected",
    spike: Spike | None = None,
    width: float | None = None,
    small_step: float | None = None,
    loss: str = "square",
    modes_dim: int = 2000,
    seed: int | np.random.SeedSequence | None = 0,
    throw: bool = True,
) -> ReadoutPoint:
    """Return the errors of the fitted network in the limit of high dimension.

    Parameters
    ----------
    problem : Problem
        With a rate or alpha0 of 0: random features.
    method : {"corrected", "anisotropic", "isotropic"}
        "isotropic" are the paper's spiked random features. "anisotropic" takes the bulk's
        covariance at finite alpha0 into account, "corrected" the norms of the rows as well.
    spike : Spike, optional
        First layer to use in place of `spike(problem)`; the rate and alpha0 are then ignored.
    width : float, optional
        Number of units, for the correction of the mean part at finite width; square loss only.
    small_step : float, optional
        r0 of a step that is sqrt(dim) smaller, with strengths r0 A_g/sqrt(dim); the rate is
        ignored, the alignment is that of `spike`, or of the problem's gradient.
    loss : {"square", "logistic"}
        "logistic": log(1 + exp(-y f)) on the signs of the noisy labels, for one group.
    modes_dim : int
        Dimension in which the bulk's spectrum is sampled, for activations that are not odd, finite
        alpha0 and methods other than "isotropic". That costs about (1 + alpha0) modes_dim^3 / 7e9
        seconds, 5 s at alpha0 = 3 by default, once for all alpha, beta and ridges.
    seed : int, SeedSequence or None
        Of that sample.
    throw : bool
        Raise if an iteration does not converge; otherwise return the result with its status.

    Returns
    -------
    ReadoutPoint
        ``method`` is the one that was used: given spikes, random features, small steps, steps
        without a spike and the logistic loss are isotropic. ``stats`` has the regime, iterations,
        the last relative change, and the defect of an identity of the resolvent.

    Raises
    ------
    TypeError, ValueError
        Naming the argument that is not as described or that a method cannot honour, and
        `modes_dim` if a sample of this dimension takes more than some minutes.
    ConvergenceError
        If an iteration does not converge, with the result.

    Notes
    -----
    Norms that vary independently of the rows' overlap with the spike are left out. They shift the
    risk by 0.4 % for relu, but by 8 % for quad1 at alpha0 = 20, lr = 1: `from_weights` has them.

    Source: ``docs/papers/giant_step.md`` sections 4, 5, 6.1, 6.2 and 7.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.giant_step.Problem(
    ...     alpha=2.0, beta=1.0, ridge=0.1, lr=3.0, alpha0=20.0, target="sin"
    ... )
    >>> after = op.giant_step.solve(problem, method="isotropic")
    >>> before = op.giant_step.solve(problem.replace(lr=0.0))
    >>> round(after.risk, 4), round(before.risk, 4)
    (0.0354, 0.2376)
    >>> before.stats["regime"]
    'random features'
    """
    began = clock.perf_counter()
    problem = _problem(problem)
    method = _check.choice("method", method, METHODS)
    loss = _check.choice("loss", loss, LOSSES)
    if small_step is not None:
        small_step = _check.real("small_step", small_step)
    if width is not None:
        width = _check.real("width", width, minimum=0.0, strict_minimum=True)
        if loss != "square":
            raise _check.bad("width", 'None unless loss is "square"', width)
    modes_dim = _check.integer("modes_dim", modes_dim, minimum=2)
    sequence = _check.seed_sequence(seed)
    throw = _check.boolean("throw", throw)
    regime = _regime(problem, spike, small_step)
    if regime.name != "giant step" or loss == "logistic":
        method = "isotropic"
    if loss == "logistic":
        if problem.groups > 1:
            raise _check.bad("loss", '"square" for several readout values', loss)
        arrays, law = _sign_problem(
            problem.activation, problem.target, regime.spike, problem.noise_var
        )
        tables = _core.GiantTables(**arrays)
    else:
        tables = _tables(problem.activation, problem.target, regime.spike)
    if method == "isotropic":
        modes = _isotropic_modes(regime.spike)
    else:
        modes = _modes(problem, regime.spike, method, modes_dim, sequence)
    norm_slope = np.zeros(problem.groups)
    if method == "corrected":
        h3 = _moments(problem.activation).h3
        step = 2 * problem.lr * np.array(problem.readout_values)
        norm_slope = step * h3 * regime.spike.gradient_norm / modes.variance_along()
    setting = _core.GiantSetting(
        alpha=problem.alpha,
        beta=problem.beta,
        ridge=problem.ridge,
        noise_var=problem.noise_var,
        fraction=np.array(problem.readout_fractions),
        norm_slope=norm_slope,
        slope_variance=regime.slope_variance,
        inverse_width=0.0 if width is None else 1 / width,
    )
    if loss == "logistic":
        found = _core.giant_logistic(
            tables, regime.spike.variance[0], regime.spike.alignment, law, setting
        )
        class_error = _sign_error(problem, regime.spike, found)
    else:
        class_error = math.nan
        found = _core.giant_square(tables, modes, setting)
    return conclude(
        ReadoutPoint(
            problem=problem,
            inputs=_given(spike=spike, width=width, small_step=small_step, loss=loss),
            method=method,
            status=found.status,
            stats={
                "seconds": clock.perf_counter() - began,
                "regime": regime.name,
                "iterations": found.iterations,
                "residual": found.residual,
                "identity": found.identity,
                "nodes": tables.nodes,
                "modes": modes.count,
            },
            origin=make_origin(sequence),
            alignment=regime.spike.alignment,
            strength=regime.spike.strength,
            class_error=class_error,
            **{name: getattr(found, name) for name in READOUT_FIELDS},
        ),
        throw,
    )


READOUT_FIELDS = (
    "risk",
    "train_risk",
    "m",
    "theta",
    "psi",
    "Q1",
    "q2",
    "V1",
    "V2",
)


def _given(*, spike: Spike | None, loss: str, **others: object) -> dict[str, Any]:
    """Return the arguments that were given, as plain data."""
    inputs: dict[str, Any] = {name: x for name, x in others.items() if x is not None}
    if spike is not None:
        inputs["spike"] = spike._values()
    return {"loss": loss, **inputs}


# ---- floors and the best settings ----------------------------------------------------------------

# Relative singular values below this belong to dependent functions.
DEPENDENCE = 1e-12
# Floors of strengths below this, in deviations of the bulk, are interpolated.
FLOOR_STRENGTH = 0.02
# Spacing of the first scan for a minimum, last width of its bracket, and step of the differences
# that refine it, in units of the logarithm.
SCAN, BRACKET, DIFFERENCE = 0.6, 0.01, 0.02


def linear_floor(problem: Problem) -> float:
    """Return the risk that no network with an untrained first layer falls below.

    Parameters
    ----------
    problem : Problem
        Activation and target; the rest is ignored.

    Returns
    -------
    float
        The target's energy without its linear part, and without its mean if the activation has
        one. The linear part stays if the activation has none.

    Raises
    ------
    TypeError
        If `problem` is not a `Problem`.

    Notes
    -----
    A small step does not help. Source: ``docs/papers/giant_step.md`` section 5.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.giant_step.Problem(
    ...     alpha=1, beta=1, ridge=0.1, lr=0, alpha0=0, activation="tanh", target="sin"
    ... )
    >>> round(op.giant_step.linear_floor(problem), 6)
    0.064453
    """
    problem = _problem(problem)
    student, target = _moments(problem.activation), _moments(problem.target)
    floor = target.second
    if student.h1 != 0:
        floor -= target.h1**2
    if student.mean != 0:
        floor -= target.mean**2
    return max(floor, 0.0)


def projection_floor(problem: Problem) -> float:
    """Return the risk of the best readout after the step, with any number of units and samples.

    Parameters
    ----------
    problem : Problem
        Step, activations and initial readout; alpha, beta and the ridge are ignored.

    Returns
    -------
    float
        The limit of the isotropic theory for alpha, beta -> infinity.

    Raises
    ------
    TypeError
        If `problem` is not a `Problem`.
    ValueError
        If there is no step: see `linear_floor`.

    Notes
    -----
    Not the linear floor in the limit of small steps. Those of several initial readout values have
    functions that are dependent to rounding, of which a strength of 0.05 may leave out some.
    Source: ``docs/papers/giant_step.md`` section 5.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.giant_step.Problem(
    ...     alpha=1, beta=1, ridge=0.1, lr=3, alpha0=20, activation="tanh", target="sin"
    ... )
    >>> floors = op.giant_step.projection_floor, op.giant_step.linear_floor
    >>> [round(floor(problem), 5) for floor in floors]
    [0.00671, 0.06445]
    """
    problem = _problem(problem)
    if not problem.has_step:
        raise _check.bad("lr", "nonzero, with alpha0 > 0 (there is no step)", problem.lr)
    own = _own_spike(problem)
    strength = float(own.strength[0])
    if problem.groups > 1 or not 0 < abs(strength) < FLOOR_STRENGTH * math.sqrt(own.variance[0]):
        return _projection_floor(problem, own)
    # The span's functions coincide but for powers of the strength: a polynomial in it.
    unit = FLOOR_STRENGTH * math.sqrt(own.variance[0])
    nodes = np.array([-3.0, -2.0, -1.0, 1.0, 2.0, 3.0])
    floors = [
        _projection_floor(
            problem,
            Spike(strength=[node * unit], variance=own.variance, alignment=own.alignment),
        )
        for node in nodes
    ]
    powers = np.vander(nodes)
    return max(float(np.linalg.solve(powers, floors) @ np.vander([strength / unit], 6)[0]), 0.0)


def _projection_floor(problem: Problem, spike: Spike) -> float:
    t = _table_arrays(problem.activation, problem.target, spike)
    weight, h, h1 = t["weight"], t["target"], t["target_linear"]
    unlearnable = weight @ (t["target_second"] - h * h - h1 * h1)
    nonlinear = np.concatenate([t["mean"], t["kappa"] * t["linear"]])
    floor = unlearnable + _distance2(h, nonlinear, weight) + _distance2(h1, t["linear"], weight)
    return max(float(floor), 0.0)


def _distance2(function: FloatArray, others: FloatArray, weight: FloatArray) -> float:
    """Return the squared distance of a function from the span of others."""
    root = np.sqrt(weight)
    largest = np.abs(others).max(axis=1)
    others = others[largest > 0] / largest[largest > 0, None]
    norms = np.sqrt(others**2 @ weight)
    basis = (others[norms > 0] / norms[norms > 0, None] * root).T
    left, values, _ = np.linalg.svd(basis, full_matrices=False)
    if len(values):
        left = left[:, values > DEPENDENCE * values[0]]
    rest = root * function
    for _ in range(2):  # twice is enough for orthogonality
        rest = rest - left @ (left.T @ rest)
    return float(rest @ rest)


def _best(risk: Callable[[float], float], bounds: tuple[float, float]) -> tuple[float, bool]:
    """Return where a function of a positive number is smallest, and whether at a bound."""
    low, high = math.log(bounds[0]), math.log(bounds[1])
    known: dict[float, float] = {}

    def f(x: float) -> float:
        if x not in known:
            known[x] = risk(min(max(math.exp(x), bounds[0]), bounds[1]))
        return known[x]

    grid = np.linspace(low, high, 2 + math.ceil((high - low) / SCAN)).tolist()
    best = min(range(len(grid)), key=lambda i: f(grid[i]))
    a, b = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    golden = (3 - math.sqrt(5)) / 2
    x, y = a + golden * (b - a), b - golden * (b - a)
    while b - a > BRACKET:
        if f(x) <= f(y):
            b, y = y, x
            x = a + golden * (b - a)
        else:
            a, x = x, y
            y = b - golden * (b - a)
    for end, bound in zip((low, high), bounds, strict=True):
        if min(abs(a - end), abs(b - end)) < BRACKET and f(end) <= min(f(x), f(y)):
            return bound, True
    x = (a + b) / 2
    for _ in range(3):  # Newton's method with differences of fourth order
        h = min(DIFFERENCE, (x - low) / 2, (high - x) / 2)
        outer, inner = (f(x + 2 * h), f(x - 2 * h)), (f(x + h), f(x - h))
        slope = (8 * (inner[0] - inner[1]) - (outer[0] - outer[1])) / (12 * h)
        curvature = (16 * sum(inner) - sum(outer) - 30 * f(x)) / (12 * h * h)
        if not curvature > 0 or abs(slope) > 2 * BRACKET * curvature:
            break
        x -= slope / curvature
    return math.exp(x), False


def _bounds(value: object) -> tuple[float, float]:
    must = "two positive numbers in increasing order"
    bounds = _check.vector("bounds", value)
    if len(bounds) != 2 or not 0 < bounds[0] < bounds[1]:
        raise _check.bad("bounds", must, bounds)
    return float(bounds[0]), float(bounds[1])


def optimal_ridge(
    problem: Problem,
    *,
    method: str = "corrected",
    bounds: tuple[float, float] = (1e-8, 1e4),
    modes_dim: int = 2000,
    seed: int | np.random.SeedSequence | None = 0,
) -> tuple[float, ReadoutPoint]:
    """Return the ridge with the smallest risk.

    Parameters
    ----------
    problem : Problem
        Its ridge is ignored.
    method : {"corrected", "anisotropic", "isotropic"}
        As in `solve`.
    bounds : pair of floats
        Smallest and largest ridge.
    modes_dim : int
        As in `solve`.
    seed : int, SeedSequence or None
        As in `solve`: one sample for all ridges.

    Returns
    -------
    ridge : float
        A bound where the risk is smallest there.
    point : ReadoutPoint
        `solve` at this ridge. Its status is NOT_CONVERGED if the ridge is a bound.

    Raises
    ------
    TypeError, ValueError
        Naming the argument that is not as described or that the method cannot honour.
    ConvergenceError
        If an iteration does not converge.

    Notes
    -----
    A scan of the whole range, and a refinement of its best point. Source:
    ``docs/papers/giant_step.md`` section 5.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.giant_step.Problem(
    ...     alpha=1.0, beta=1.0, ridge=1.0, lr=3.0, alpha0=20.0, noise_var=0.1
    ... )
    >>> ridge, point = op.giant_step.optimal_ridge(problem, method="isotropic")
    >>> round(ridge, 3), round(point.risk, 4)
    (2.138, 0.0285)
    """
    return _optimal(problem, "ridge", bounds, method=method, modes_dim=modes_dim, seed=seed)


def optimal_lr(
    problem: Problem,
    *,
    method: str = "corrected",
    bounds: tuple[float, float] = (1e-2, 1e2),
    modes_dim: int = 2000,
    seed: int | np.random.SeedSequence | None = 0,
) -> tuple[float, ReadoutPoint]:
    """Return the positive learning rate of the step with the smallest risk.

    Parameters
    ----------
    problem : Problem
        With alpha0 > 0; its rate is ignored.
    method : {"corrected", "anisotropic", "isotropic"}
        As in `solve`.
    bounds : pair of floats
        Smallest and largest rate.
    modes_dim : int
        As in `solve`. The spectrum of the sample is computed for about 45 rates.
    seed : int, SeedSequence or None
        As in `solve`: one sample for all rates.

    Returns
    -------
    lr : float
        A bound where the risk is smallest there.
    point : ReadoutPoint
        `solve` at this rate. Its status is NOT_CONVERGED if the rate is a bound.

    Raises
    ------
    TypeError, ValueError
        Naming the argument that is not as described or that the method cannot honour.
    ConvergenceError
        If an iteration does not converge.

    Notes
    -----
    The limit of small rates is not that of random features, see `solve` with `small_step`. Source:
    ``docs/papers/giant_step.md`` section 5.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.giant_step.Problem(
    ...     alpha=2.0, beta=1.0, ridge=0.1, lr=1.0, alpha0=20.0, target="sin", noise_var=0.1
    ... )
    >>> lr, point = op.giant_step.optimal_lr(problem, method="isotropic")
    >>> round(lr, 3), round(point.risk, 4)
    (5.248, 0.0576)
    """
    if not _problem(problem).alpha0 > 0:
        raise _check.bad("alpha0", "positive (there is no step)", problem.alpha0)
    return _optimal(problem, "lr", bounds, method=method, modes_dim=modes_dim, seed=seed)


def _optimal(
    problem: Problem,
    name: str,
    bounds: tuple[float, float],
    *,
    method: str,
    modes_dim: int,
    seed: int | np.random.SeedSequence | None,
) -> tuple[float, ReadoutPoint]:
    problem, bounds = _problem(problem), _bounds(bounds)
    sequence = _check.seed_sequence(seed)

    def at(value: float) -> ReadoutPoint:
        changed = problem.replace(**{name: value})
        return solve(changed, method=method, modes_dim=modes_dim, seed=sequence)

    value, bound = _best(lambda x: at(x).risk, bounds)
    point = at(value)
    if bound:
        point = replace(point, status=Status.NOT_CONVERGED)
    return value, point


# ---- logistic loss -------------------------------------------------------------------------------

# Panels for the probability of a label under noise, in units of the deviation of its argument given
# the component along the spike, and the smallest difference to a certain label that counts.
SIGN_PANEL, SIGN_NEGLIGIBLE = 0.7, 1e-17


def _probability(target: Activation, noise_var: float, u: FloatArray) -> FloatArray:
    """Return the probability of a positive label at arguments of the target."""
    from scipy.special import ndtr

    value = _evaluate(target, u)
    if noise_var == 0:
        return np.heaviside(value, 0.5)
    return np.asarray(ndtr(value / math.sqrt(noise_var)))


@functools.lru_cache(maxsize=64)
def _sign_problem(
    activation: Activation,
    target: Activation,
    spike: Spike,
    noise_var: float,
    more: tuple[float, ...] = (),
) -> tuple[dict[str, FloatArray], _core.GiantSignLaw]:
    """Return the tables of a student, and the law of the signs of the target with noise.

    Panels of the nodes kappa have `more` ends than these take.
    """
    changes, _, slope = _zeros(target, 0.0)
    slope = slope[: len(changes)]
    bounds = np.concatenate([[-LABEL_RANGE], changes, [LABEL_RANGE]])
    sign = np.sign(_evaluate(target, 0.5 * (bounds[:-1] + bounds[1:])))
    if noise_var == 0 and not sign.all():
        name = target if isinstance(target, str) else target.name
        must = "different from 0 but at single points where labels are its signs without noise"
        raise _check.bad("target", must, name)
    turns = (sign[1:] > 0) != (sign[:-1] > 0)
    sigma = math.sqrt(noise_var)
    widths = sigma / np.maximum(slope, 1e-3)
    gamma = spike.alignment
    rho = math.sqrt((1 - gamma) * (1 + gamma))

    # Nodes of kappa: labels turn at changes/gamma, over a width of rho/gamma or that of the noise.
    ends = list(more)
    if gamma != 0:
        for change, width in zip(changes.tolist(), widths.tolist(), strict=True):
            ends += _graded(change / gamma, math.hypot(rho, width) / abs(gamma))
    arrays = _table_arrays(activation, target, spike, ends)
    certain = np.zeros(0)
    if rho == 0:
        certain = _probability(target, noise_var, gamma * arrays["kappa"])

    node = rest = np.zeros(0)
    if noise_var > 0 and rho > 0:
        edges = [np.arange(-LABEL_RANGE, LABEL_RANGE, min(LABEL_PANEL, SIGN_PANEL * rho))]
        for change, width in zip(changes.tolist(), widths.tolist(), strict=True):
            edges.append(np.array(_graded(change, width)))
        node, weight = _on_panels(np.unique(np.concatenate(edges)), LABEL_NODES)
        rest = _probability(target, noise_var, node) - (_evaluate(target, node) > 0)
        kept = np.abs(rest) > SIGN_NEGLIGIBLE
        node, rest = node[kept], (rest * weight)[kept]
    law = _core.GiantSignLaw(
        first=1.0 if sign[0] > 0 else -1.0,
        changes=changes[turns],
        node=node,
        rest=rest,
        certain=certain,
    )
    return arrays, law


def _sign_error(problem: Problem, spike: Spike, found: _core.GiantReadout) -> float:
    """Return the probability of a wrong sign, on panels that split where the mean output does."""
    of = (problem.activation, problem.target, spike, problem.noise_var)
    arrays, _ = _sign_problem(*of)
    kappa, mu1 = arrays["kappa"], arrays["linear"][0]
    mean = found.m[0] * arrays["mean"][0] + found.theta[0] * kappa * mu1
    deviation = np.sqrt(mu1**2 * found.Q1[0, 0] + arrays["residual"][0] * found.q2[0])
    ends: list[float] = []
    for i in np.nonzero(mean[1:] * mean[:-1] <= 0)[0].tolist():
        slope = (mean[i + 1] - mean[i]) / (kappa[i + 1] - kappa[i])
        if slope != 0:
            ends += _graded(kappa[i] - mean[i] / slope, float(deviation[i] / abs(slope)))
    arrays, law = _sign_problem.__wrapped__(*of, tuple(ends))
    return _core.giant_sign_error(_core.GiantTables(**arrays), spike.alignment, law, found)


def _graded(centre: float, width: float) -> list[float]:
    """Return ends of panels around a point, which double from a width on."""
    ends = [centre]
    reach = max(width, 1e-9)
    while width > 0 and reach < PANEL_LENGTH:
        ends += [centre - reach, centre + reach]
        reach *= 2
    return ends


# ---- given weights -------------------------------------------------------------------------------


def _unit(name: str, value: object, dim: int) -> FloatArray:
    """Return a vector of length `dim`, normalised."""
    vector = _check.vector(name, value, dim)
    largest = np.abs(vector).max()
    if largest == 0:
        raise _check.bad(name, "other than zero", vector)
    vector = vector / largest
    return np.asarray(vector / np.linalg.norm(vector))


def _rows_and_spike(
    W: FloatArray, v: FloatArray, gamma: float, target: FloatArray
) -> tuple[Spike, FloatArray, FloatArray]:
    """Return the spike of given rows, the spectrum D of B B^T and U^T (1, s, eps, B zeta)."""
    from scipy.linalg import eigh

    along = W @ v
    strength = float(along.mean())
    bulk = W - along[:, None] * v
    norms = np.einsum("ij,ij->i", bulk, bulk)
    variance = float(norms.mean())
    if variance == 0:
        raise _check.bad("W", "of rows that are not all parallel to direction", W)
    rest = target - gamma * v
    length = np.linalg.norm(rest)
    zeta = rest / length if length > ROUNDING else np.zeros_like(rest)
    columns = np.array([np.ones(len(W)), along - strength, norms - variance, bulk @ zeta]).T
    values, vectors = eigh(bulk @ bulk.T, overwrite_a=True, check_finite=False, driver="evd")
    law = Spike(strength=[strength], variance=[variance], alignment=gamma)
    return law, np.maximum(values, 0.0), vectors.T @ columns


def from_weights(
    problem: Problem,
    W: ArrayLike,
    direction: ArrayLike,
    target_direction: ArrayLike,
    *,
    throw: bool = True,
) -> ReadoutPoint:
    """Return the errors of the readout's fit on top of a given first layer.

    Parameters
    ----------
    problem : Problem
        With one initial readout value. Its `lr` and `alpha0` are not used: W is what training made
        of the first layer, by whatever steps.
    W : (p, d) array
        The first layer, with p = beta d rows to the nearest whole number.
    direction : (d,) array
        The direction v of the spike, of any length: the only one along which rows may have
        overlaps that are not small. After one step, that of the gradient X^T (y - f0).
    target_direction : (d,) array
        The direction w* of the target, of any length.
    throw : bool
        Raise `ConvergenceError` if the iteration does not converge; otherwise return what was
        computed.

    Returns
    -------
    ReadoutPoint
        For this W, averaged over the samples of the fit and the test. `strength` is the mean
        overlap of the rows with v.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.
    ConvergenceError
        If the iteration did not converge; its ``result`` holds the last iterate.

    Notes
    -----
    Needs no assumption on the law of W beyond the one direction: neither on the spectrum of its
    rows nor on how their norms depend on their overlaps with v. Costs one eigenvalue problem of
    order p. Source: ``docs/papers/giant_step.md`` section 6.3.

    Examples
    --------
    >>> import numpy as np, overparam as op
    >>> problem = op.giant_step.Problem(alpha=2, beta=1, ridge=0.1, lr=0, alpha0=0)
    >>> rows = np.random.default_rng(0).standard_normal((100, 100))
    >>> W = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    >>> point = op.giant_step.from_weights(problem, W, np.ones(100), np.eye(100)[0])
    >>> bool(0 < point.train_risk < point.risk < op.giant_step.moments("tanh").second)
    True
    """
    began = clock.perf_counter()
    problem = _problem(problem)
    if problem.groups > 1:
        raise _check.bad("problem", "one with a single initial readout value", problem)
    weights = _check.matrix("W", W, (None, None))
    p, d = weights.shape
    if d < 2 or p < 1 or abs(p - problem.beta * d) > 0.5 + 1e-9 * p:
        must = "an array of shape (p, d) with d >= 2 and p = beta d to the nearest whole number"
        raise _check.bad("W", must, weights)
    largest = LARGEST_STRENGTH / math.sqrt(weights.size)
    if np.abs(weights).max() > largest:
        raise _check.bad("W", f"of entries of at most {largest:g}", weights)
    v = _unit("direction", direction, d)
    target = _unit("target_direction", target_direction, d)
    throw = _check.boolean("throw", throw)
    gamma = float(np.clip(v @ target, -1.0, 1.0))
    law, values, columns = _rows_and_spike(weights, v, gamma, target)
    _check_spike("W", weights, problem.activation, law)
    tables = _table_arrays(problem.activation, problem.target, law)
    kappa, weight = tables["kappa"], tables["weight"]
    mu0, mu1, residual, curvature = (
        tables[name][0] for name in ("mean", "linear", "residual", "curvature")
    )
    h, h1, hh = tables["target"], tables["target_linear"], tables["target_second"]
    R = problem.alpha * d / p
    shapes = np.array([mu1**2, residual])
    powers = np.array([values, np.ones(p)])

    # (V1h, V2h) = R E[shapes/(1 + V)] and V = shapes . mean(powers/S) with S = ridge + V2h + V1h D.
    hats, change, iterations, last = R * shapes @ weight, math.inf, 0, math.inf
    while iterations < MATRIX_ITERATIONS:
        iterations += 1
        S = problem.ridge + hats[1] + hats[0] * values
        Vk = (powers / S).mean(axis=1) @ shapes
        image = R * shapes @ (weight / (1 + Vk))
        hatted = (R * shapes * (weight / (1 + Vk) ** 2)) @ shapes.T
        slope = hatted @ ((powers / S**2) @ powers.T / p)
        newton = hats + np.linalg.solve(np.eye(2) - slope, image - hats)
        change = float(np.abs(image - hats).max() / image.max()) if image.max() > 0 else 0.0
        if change < ROUNDING or (change < MATRIX_TOLERANCE and change >= last):
            break
        last = change
        hats = newton if (newton >= 0).all() and (newton <= R * shapes @ weight).all() else image
    # ridge V2 = 1 - R + R E[1/(1 + V)], in which nothing cancels where the ridge vanishes at R = 1.
    terms = problem.ridge * float((1 / S).mean()), R - 1, -R * float(weight @ (1 / (1 + Vk)))
    freedom = abs(sum(terms)) / max(abs(term) for term in terms)
    converged = change < MATRIX_TOLERANCE and freedom < FREEDOM_TOLERANCE

    damped = weight / (1 + Vk)
    K = columns.T @ (columns / S[:, None])
    F = np.array([mu0, kappa * mu1, curvature])
    G, epsi = (F * damped) @ F.T, float(damped @ (mu1 * h1))
    source = K[:3, :3] @ (F @ (damped * h)) + K[:3, 3] * epsi
    th = np.linalg.solve(np.eye(3) + R * K[:3, :3] @ G, R * source)
    mean = th @ F
    e = np.append(F @ (damped * (h - mean)), epsi)
    psi = R * float(K[3] @ e)
    a = R * (columns @ e) / S
    base = hh + problem.noise_var + mean**2 - 2 * mean * h - 2 * psi * mu1 * h1
    response = (powers / S**2) @ powers.T / p
    squared = R * weight / (1 + Vk) ** 2
    start = response @ (shapes @ (squared * base)) + powers @ a**2
    q = np.linalg.solve(np.eye(2) - response @ ((shapes * squared) @ shapes.T), start)
    E2 = base + q @ shapes
    V = (powers / S).mean(axis=1)
    result = ReadoutPoint(
        problem=problem,
        inputs={"dim": d, "width": p},
        method="weights",
        status=Status.SUCCESS if converged else Status.NOT_CONVERGED,
        stats={
            "seconds": clock.perf_counter() - began,
            "steps": iterations,
            "threads": 1,
            "residual": change,
        },
        origin=make_origin(),
        risk=float(weight @ E2) - problem.noise_var,
        train_risk=float(weight @ (E2 / (1 + Vk) ** 2)),
        class_error=math.nan,
        alignment=gamma,
        strength=law.strength,
        m=th[:1],
        theta=th[1:2],
        psi=np.array([psi]),
        Q1=q[:1, None],
        q2=q[1:],
        V1=V[:1, None],
        V2=V[1:],
    )
    return conclude(result, throw)


# ---- simulation ----------------------------------------------------------------------------------


def _table(activation: Function, radius: float) -> _core.GiantFunction:
    """Return the table of a function, on a lattice that reaches to plus and minus `radius`."""
    half = math.ceil(radius / LATTICE)
    x = LATTICE * np.arange(-half, half + 1, dtype=np.float64)
    return _core.GiantFunction(_evaluate(activation, x), _evaluate(activation, x, "df"), LATTICE)


def _core_function(activation: Activation, radius: float) -> _core.GiantFunction:
    if isinstance(activation, Function):
        return _table(activation, radius)
    return _core.GiantFunction(activation)


def _size(name: str, ratio: float, dim: int) -> int:
    """Return ratio * dim to the nearest whole number, at least 1."""
    count = math.floor(ratio * dim + 0.5)
    if count < 1:
        raise _check.bad("dim", f"large enough that {name} dim rounds to 1 or more", dim)
    return count


def _group_sizes(problem: Problem, width: int) -> list[int]:
    """Return the numbers of units of the groups, by largest remainder; the first of equal ones."""
    shares = width * np.array(problem.readout_fractions)
    sizes = np.floor(shares).astype(int)
    largest = np.argsort(sizes - shares, kind="stable")
    sizes[largest[: width - sizes.sum()]] += 1
    return [int(size) for size in sizes]


def simulate(
    problem: Problem,
    *,
    dim: int,
    model: str = "one_step",
    spike: Spike | None = None,
    replicas: int = 1,
    seed: int | np.random.SeedSequence | None = 0,
    test_samples: int = 4000,
    threads: int | None = None,
    throw: bool = True,
    progress: bool | Callable[[float], object] = False,
    checkpoint: PathLike | None = None,
) -> ReadoutPoint:
    """Train networks: the gradient step, then the ridge regression of the readout.

    Parameters
    ----------
    problem : Problem
        The numbers of samples n and n0 and the width p are alpha, alpha0 and beta times `dim`,
        rounded to the nearest whole number; the sizes of the groups are rounded by largest
        remainder.
    dim : int
        Input dimension d.
    model : {"one_step", "spiked"}
        The first layer after a real gradient step, or spiked random features: rows sqrt(c_g) w +
        r_g v with w uniform on the unit sphere, without any step.
    spike : Spike, optional
        Of the spiked model; default ``spike(problem)``.
    replicas : int
        Independent networks. The first r do not depend on how many there are.
    seed : int, SeedSequence or None
        None draws fresh entropy; what was used is in ``origin``.
    test_samples : int
        Fresh inputs on which the risk is measured.
    threads : int, optional
        Default: the environment variable OVERPARAM_NUM_THREADS, else OpenMP's. No bit of the
        result depends on it.
    throw : bool
        Raise `ConvergenceError` if the regression fails in all replicas; otherwise return what was
        computed.
    progress : bool or callable
        Show a bar, or call with the fraction done.
    checkpoint : path, optional
        A file from which the same call continues after an interruption, to the same bits.

    Returns
    -------
    ReadoutPoint
        With the replica axis first and no order parameters; after an interruption, of the finished
        replicas. `strength` and `alignment` are those
        measured: lr A_g h1 |g| and the overlap of g and the target's direction, with g = X^T (y -
        f0)/n0; without a step both are 0, and with the spiked model they are those of the spike. A
        replica whose weights are not finite, or whose regression cannot be solved in double
        precision, counts as diverged.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; if `alpha0` is infinite with the one-step model; if
        `spike` is given with it.
    MemoryError
        If the run would need more memory than is free.
    ConvergenceError
        If all replicas failed; its ``result`` holds what was measured.

    Notes
    -----
    Samples of the step, of the regression and of the test are all fresh. The target's direction is
    the first axis, which changes no law. Costs 4 n0 p d + 2 (n + test_samples) p d + n p min(n, p)
    operations for each replica. A `Function` is evaluated once, in a table of spacing 1/256 with
    its values and slopes, and interpolated by cubics: for a smooth one to (1/256)^4/384 of its
    fourth derivative. Source: ``docs/papers/giant_step.md`` section 1.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.giant_step.Problem(
    ...     alpha=1.5, beta=1.0, ridge=0.1, lr=3.0, alpha0=2.0, target="sin"
    ... )
    >>> op.giant_step.simulate(problem, dim=50, replicas=3, test_samples=500).risk.shape
    (3,)
    """
    problem = _problem(problem)
    dim = _check.integer("dim", dim, minimum=2)
    model = _check.choice("model", model, MODELS)
    replicas = _check.replicas(replicas)
    sequence = _check.seed_sequence(seed)
    test_samples = _check.integer("test_samples", test_samples, minimum=1)
    workers = _check.threads(threads)
    throw = _check.boolean("throw", throw)
    spiked = model == "spiked"
    if not spiked and math.isinf(problem.alpha0):
        raise _check.bad("alpha0", 'finite with model="one_step"', problem.alpha0)
    # A network with a step has neither of the two before it.
    law = _regime(problem if spiked else problem.replace(lr=0.0), spike, None).spike
    if spike is not None and not spiked:
        raise _check.bad("spike", 'None unless model="spiked"', spike)
    samples = _size("alpha", problem.alpha, dim)
    width = _size("beta", problem.beta, dim)
    stepping = problem.has_step and not spiked
    first = _size("alpha0", problem.alpha0, dim) if stepping else 0
    groups = _group_sizes(problem, width)
    scale = problem.lr * moments(problem.activation).h1 * np.array(problem.readout_values)
    _blas.load()

    def room_of(radius: float) -> _core.GiantSimulation:
        experiment = _core.GiantExperiment(
            dim=dim,
            width=width,
            samples=samples,
            first_samples=first,
            test_samples=test_samples,
            group=groups,
            readout=problem.readout_values,
            lr=problem.lr,
            ridge=problem.ridge,
            noise_var=problem.noise_var,
            spiked=spiked,
            strength=law.strength,
            variance=law.variance,
            alignment=law.alignment,
            activation=_core_function(problem.activation, radius),
            target=_core_function(problem.target, radius),
            seed=_check.seed_word(sequence),
        )
        return _core.GiantSimulation(experiment)

    radius = FIRST_RADIUS
    room = room_of(radius)
    _check.memory(
        min(replicas, room.together(workers)) * room.memory + 8.0 * len(MEASURES) * replicas,
        "first layers, features and their Gram matrices",
        "replicas, dim, alpha or beta",
    )
    arrays: dict[str, NDArray[Any]] = {"measures": np.full((replicas, len(MEASURES)), np.nan)}

    def advance(done: int, budget: int) -> int:
        nonlocal radius, room
        while True:
            with _blas.one_thread():
                room.advance(done, budget, arrays["measures"], workers)
            if room.largest < radius:
                return budget
            if room.largest >= LARGEST_RADIUS:
                must = f"a built-in one where its argument exceeds {LARGEST_RADIUS:g}, as here"
                raise _check.bad("activation", must, problem.activation)
            # The same again, with longer tables.
            while radius <= room.largest:
                radius *= 2
            room = room_of(radius)

    def build(status: Status, stats: dict[str, float]) -> ReadoutPoint:
        finished = int(stats["steps"]) // room.units
        measured = dict(zip(MEASURES, arrays["measures"][:finished].T, strict=True))
        strength = measured["gradient_norm"][:, None] * scale
        if spiked:
            strength = np.tile(law.strength, (finished, 1))
        sizes = {"samples": samples, "width": width, "first_samples": first}
        return ReadoutPoint(
            problem=problem,
            inputs={"dim": dim, "test_samples": test_samples},
            method=model,
            status=status,
            stats={**stats, **sizes, "steps": finished, "threads": workers},
            origin=make_origin(sequence),
            diverged=np.isnan(measured["risk"]),
            risk=measured["risk"],
            train_risk=measured["train_risk"],
            class_error=measured["class_error"],
            alignment=measured["alignment"],
            strength=strength,
        )

    identity = _run.fingerprint(
        problem,
        function="giant_step.simulate",
        dim=dim,
        model=model,
        strength=law.strength,
        variance=law.variance,
        alignment=law.alignment,
        replicas=replicas,
        seed=sequence,
        test_samples=test_samples,
    )
    result = _run.drive(
        replicas * room.units,
        arrays,
        advance,
        build,
        progress=progress,
        label="giant_step.simulate",
        checkpoint=_run.Checkpoint(checkpoint, identity),
    )
    return conclude(result, throw)
