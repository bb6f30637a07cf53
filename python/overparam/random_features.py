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
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from overparam import _check
from overparam._problem import BaseProblem
from overparam.results import FloatArray, Trajectory, array_field, record

__all__ = ["Problem", "RiskTrajectory"]

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
