"""One-pass SGD of finite-width two-layer networks, by theory and by simulation.

A student of `width` p learns a teacher of `teacher_width` p* from fresh Gaussian inputs x in R^N,
one mini-batch per step. The fields are lambda = W x / sqrt(N) and lambda* = W* x / sqrt(N); the
overlaps are M = W W*^T / N, Q = W W^T / N and P = W* W*^T / N. With the error
e = sum_r a*_r g(lambda*_r) + sqrt(Delta) xi - sum_k a_k g(lambda_k) + b and the loss e^2/2, a step
is w_k += (lr/B) sum_batch e a_k g'(lambda_k) x / sqrt(N), and time is t = steps / N. The risk is
R = E[(e - sqrt(Delta) xi)^2] / 2.

Theory and simulation return the same `OverlapTrajectory`, so `overparam.compare` takes one of each.
The equations are derived in ``docs/papers/sgd.md``; the model is that of Bocchi, Regimbeau,
Lucibello, Saglietti and Cammarota, arXiv 2604.03068.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from overparam import _blas, _check, _core, _run
from overparam._problem import BaseProblem
from overparam.results import (
    ConvergenceError,
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
    "OverlapTrajectory",
    "Overlaps",
    "Plateau",
    "Problem",
    "conserved",
    "drift",
    "escape_time",
    "fluctuations",
    "global_minimum",
    "late_time_constant",
    "lr_max",
    "mean_step",
    "misadjustment",
    "noise_floor",
    "ode",
    "plateau",
    "principal_angles",
    "risk",
    "seed_ratio",
    "selected_rotation",
    "simulate",
]

ACTIVATIONS = ("quadratic", "erf", "relu")

# A joint Gram matrix may have eigenvalues below zero by this fraction of its largest.
PSD_TOLERANCE = 1e-8
# Matrices that agree to this fraction of their size count as equal (multiples of the identity,
# commuting pairs); eigenvalues of P that agree to BLOCK_TOLERANCE belong to one block.
EQUAL_TOLERANCE = 1e-12
BLOCK_TOLERANCE = 1e-9


# Widths up to this one have loops of their own in the core; larger ones use matrix products.
_UNROLLED = 8


# Vectors of the size of the state that the integrator keeps.
_STAGES = 40


# ---- the problem and its state -------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Problem(BaseProblem):
    """A student that learns a teacher by one-pass SGD.

    Parameters
    ----------
    width : int
        Number p of hidden units of the student.
    teacher_width : int
        Number p* of hidden units of the teacher.
    lr : float
        Learning rate gamma >= 0 of the first layer.
    noise_var : float
        Variance Delta >= 0 of the label noise.
    dim : int, optional
        Input dimension N. Theory in the limit of large N does not need it.
    batch : int
        Fresh samples B per step.
    activation : {"quadratic", "erf", "relu"}
        g(u) = u^2, erf(u / sqrt 2) or max(u, 0).
    second_layer : sequence of p floats or float, optional
        Second layer a of the student, of any sign; a number stands for p equal ones. Default 1/p.
    teacher_second_layer : sequence of p* floats or float, optional
        Second layer a* of the teacher. Default 1/p*.
    centred : bool
        Centred activation g(u) = u^2 - 1 for student and teacher: an offset b = sum(a) - sum(a*).
    offset : float, optional
        Scalar b that is added to the error e; overrides `centred`.
    spherical : bool
        Rescale each row of W to its initial norm after every step.
    second_layer_lr : float
        Learning rate gamma_a >= 0 of the second layer, whose step is
        a_k += (gamma_a/(N B)) sum_batch e g(lambda_k).

    Raises
    ------
    TypeError, ValueError
        Naming the argument that is not as described. `centred` and `second_layer_lr` need the
        quadratic activation; `centred` excludes `second_layer_lr` (b would move with a).

    Notes
    -----
    Source: arXiv 2604.03068; ``docs/papers/sgd.md`` section 1.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.sgd.Problem(width=4, teacher_width=2, lr=0.2, dim=10**6)
    >>> problem.a
    array([0.25, 0.25, 0.25, 0.25])
    """

    room: ClassVar[str] = "sgd"

    width: int
    teacher_width: int
    lr: float
    noise_var: float = 0.0
    dim: int | None = None
    batch: int = 1
    activation: str = "quadratic"
    second_layer: tuple[float, ...] | None = None
    teacher_second_layer: tuple[float, ...] | None = None
    centred: bool = False
    offset: float | None = None
    spherical: bool = False
    second_layer_lr: float = 0.0

    def __post_init__(self) -> None:
        width = _check.integer("width", self.width, minimum=1)
        teacher_width = _check.integer("teacher_width", self.teacher_width, minimum=1)
        self._set(
            width=width,
            teacher_width=teacher_width,
            lr=_check.real("lr", self.lr, minimum=0.0),
            noise_var=_check.real("noise_var", self.noise_var, minimum=0.0),
            dim=None if self.dim is None else _check.integer("dim", self.dim, minimum=1),
            batch=_check.integer("batch", self.batch, minimum=1),
            activation=_check.choice("activation", self.activation, ACTIVATIONS),
            second_layer=_weights("second_layer", self.second_layer, width),
            teacher_second_layer=_weights(
                "teacher_second_layer", self.teacher_second_layer, teacher_width
            ),
            centred=_check.boolean("centred", self.centred),
            offset=None if self.offset is None else _check.real("offset", self.offset),
            spherical=_check.boolean("spherical", self.spherical),
            second_layer_lr=_check.real("second_layer_lr", self.second_layer_lr, minimum=0.0),
        )
        if self.activation != "quadratic":
            for name, value in (
                ("centred", self.centred),
                ("second_layer_lr", self.second_layer_lr),
            ):
                if value:
                    raise _check.bad(name, f"off for the activation {self.activation}", value)
        if self.centred and self.second_layer_lr > 0.0:
            raise _check.bad(
                "centred", "False while the second layer is trained (second_layer_lr > 0)", True
            )

    @property
    def a(self) -> FloatArray:
        """Second layer of the student, (p,)."""
        return _resolved(self.second_layer, self.width)

    @property
    def a_star(self) -> FloatArray:
        """Second layer of the teacher, (p*,)."""
        return _resolved(self.teacher_second_layer, self.teacher_width)

    @property
    def b(self) -> float:
        """Scalar added to the error."""
        if self.offset is not None:
            return self.offset
        return float(self.a.sum() - self.a_star.sum()) if self.centred else 0.0


def _weights(name: str, value: Any, length: int) -> tuple[float, ...] | None:
    if value is None:
        return None
    if np.ndim(value) == 0:
        return (_check.real(name, value),) * length
    return tuple(_check.vector(name, value, length).tolist())


def _resolved(weights: tuple[float, ...] | None, length: int) -> FloatArray:
    return np.full(length, 1.0 / length) if weights is None else np.array(weights)


class Overlaps:
    """Overlaps of student and teacher: the state of the theory.

    Parameters
    ----------
    Q : (p, p) array
        Student-student overlaps W W^T / N.
    M : (p, p*) array
        Student-teacher overlaps W W*^T / N.
    P : (p*, p*) array
        Teacher-teacher overlaps W* W*^T / N.

    Raises
    ------
    TypeError, ValueError
        If a shape does not fit, Q or P is not symmetric, an entry is not finite, or the joint Gram
        matrix has an eigenvalue below -1e-8 times its largest. A singular one is accepted.

    Notes
    -----
    Read-only; compares by value. Source: ``docs/papers/sgd.md`` section 1.

    Examples
    --------
    >>> import numpy as np, overparam as op
    >>> op.sgd.Overlaps(Q=0.5 * np.eye(3), M=np.zeros((3, 2)), P=np.eye(2))
    Overlaps(p=3, p*=2)
    """

    __slots__ = ("M", "P", "Q")
    Q: FloatArray
    M: FloatArray
    P: FloatArray

    def __init__(self, Q: ArrayLike, M: ArrayLike, P: ArrayLike) -> None:
        P_ = _check.matrix("P", P, (None, None))
        M_ = _check.matrix("M", M, (None, len(P_)))
        Q_ = _check.matrix("Q", Q, (len(M_), len(M_)))
        joint = np.block([[_symmetric("Q", Q_), M_], [M_.T, _symmetric("P", P_)]])
        eigenvalues = np.linalg.eigvalsh(joint)
        if eigenvalues[0] < -PSD_TOLERANCE * max(eigenvalues[-1], 0.0):
            raise ValueError(
                "Q, M and P must have a positive semi-definite Gram matrix [[Q, M], [M^T, P]], "
                f"but its eigenvalues run from {eigenvalues[0]:.3g} to {eigenvalues[-1]:.3g}"
            )
        for name, array in (("Q", Q_), ("M", M_), ("P", P_)):
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"Overlaps are read-only: {name} cannot be set")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"Overlaps are read-only: {name} cannot be deleted")

    def __reduce__(self) -> tuple[Any, ...]:
        return Overlaps, (self.Q, self.M, self.P)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Overlaps):
            return NotImplemented
        return all(
            np.array_equal(getattr(self, name), getattr(other, name)) for name in ("Q", "M", "P")
        )

    def __hash__(self) -> int:
        # Adding zero makes the two zeros one, as in ==.
        return hash(tuple((array + 0.0).tobytes() for array in (self.Q, self.M, self.P)))

    def __repr__(self) -> str:
        return f"Overlaps(p={len(self.Q)}, p*={len(self.P)})"

    @classmethod
    def from_weights(cls, W: ArrayLike, W_star: ArrayLike) -> Overlaps:
        """Return the overlaps of given first layers.

        Parameters
        ----------
        W : (p, N) array
            First layer of the student.
        W_star : (p*, N) array
            First layer of the teacher.

        Returns
        -------
        Overlaps
            The Gram matrices divided by N.

        Raises
        ------
        TypeError, ValueError
            If the arrays are not matrices of finite real numbers with the same number of columns.

        Notes
        -----
        Source: ``docs/papers/sgd.md`` section 1.

        Examples
        --------
        >>> import overparam as op
        >>> op.sgd.Overlaps.from_weights([[2.0, 0.0]], [[1.0, 1.0]]).M
        array([[1.]])
        """
        student = _check.matrix("W", W, (None, None))
        dim = student.shape[1]
        teacher = _check.matrix("W_star", W_star, (None, dim))
        return cls(
            Q=student @ student.T / dim, M=student @ teacher.T / dim, P=teacher @ teacher.T / dim
        )

    @classmethod
    def random(
        cls, problem: Problem, *, scale: float = 1.0, P: ArrayLike | None = None, seed: Any = 0
    ) -> Overlaps:
        """Draw the overlaps of a random student, exactly in law at the problem's dimension.

        The rows of W are N(0, scale^2) in every entry; the teacher has the overlaps P. The cost is
        O(p^3), whatever the dimension.

        Parameters
        ----------
        problem : Problem
            With `dim` set.
        scale : float
            Standard deviation of the weights, >= 0.
        P : (p*, p*) array, optional
            Overlaps of the teacher; default the identity.
        seed : int, SeedSequence or None
            None draws fresh entropy.

        Returns
        -------
        Overlaps

        Raises
        ------
        ValueError
            If the problem has no dimension, or one below the rank of P.

        Notes
        -----
        In a frame that starts with the teacher's span, M is Gaussian and Q - M P^+ M^T is a Wishart
        matrix, drawn by Bartlett's decomposition. Source: ``docs/papers/sgd.md`` section 8.

        Examples
        --------
        >>> import overparam as op
        >>> problem = op.sgd.Problem(width=4, teacher_width=2, lr=0.1, dim=10**12)
        >>> start = op.sgd.Overlaps.random(problem, scale=0.7)
        >>> bool(abs(start.Q[0, 0] - 0.49) < 1e-5)
        True
        """
        dim = _dimension(problem)
        scale = _check.real("scale", scale, minimum=0.0)
        root, _, rank = _square_root(_teacher_overlaps(problem, P))
        if dim < rank:
            raise _check.bad("dim", f"at least the rank {rank} of P", dim)
        rng = np.random.default_rng(_check.seed_sequence(seed))
        p = problem.width
        _check.memory(40.0 * p * p, "the overlaps of the start", "width")
        frame = rng.standard_normal((p, problem.teacher_width))
        # Columns of `frame` in the null space of P are not overlaps; they are part of the rest.
        values, vectors = np.linalg.eigh(root)
        seen = vectors[:, values > EQUAL_TOLERANCE * max(values[-1], 1e-300)]
        frame = frame @ seen @ seen.T
        free = dim - rank
        if free < p:
            rest = rng.standard_normal((p, free))
        else:
            rest = np.tril(rng.standard_normal((p, p)), -1)
            rest[np.diag_indices(p)] = np.sqrt(rng.chisquare(free - np.arange(p)))
        unit = scale / np.sqrt(dim)
        M = unit * frame @ root
        Q = unit**2 * (frame @ frame.T + rest @ rest.T)
        return cls(Q=0.5 * (Q + Q.T), M=M, P=root @ root)


@record
class OverlapTrajectory(Trajectory):
    """Overlaps, second layer and risk at the requested times t = steps / N.

    Attributes
    ----------
    t : (T,) array
        Times.
    Q, M : (T, p, p) and (T, p, p*) arrays
        Overlaps; with the replica axis first in a simulation.
    P : (p*, p*) array
        Overlaps of the teacher.
    risk : (T,) array
        R, without the label-noise term; with the replica axis first in a simulation.
    second_layer : (T, p) array
        Second layer a; with the replica axis first in a simulation.
    diverged : (replicas,) array of bool, or None
        Replicas whose values stopped being finite; their later entries are NaN.

    Notes
    -----
    Made by `ode` and `simulate`. Source: ``docs/papers/sgd.md`` section 1.

    Examples
    --------
    >>> import numpy as np, overparam as op
    >>> problem = op.sgd.Problem(width=3, teacher_width=2, lr=0.1, dim=1000)
    >>> run = op.sgd.simulate(problem, op.sgd.Overlaps.random(problem), [0, 1, 2], replicas=5)
    >>> run.M.shape, run.mean().risk.shape
    ((5, 3, 3, 2), (3,))
    """

    time_label: ClassVar[str] = "t = steps / N"

    Q: FloatArray = array_field("time", "student", "student_2")
    M: FloatArray = array_field("time", "student", "teacher")
    P: FloatArray = array_field("teacher", "teacher_2", sampled=False)
    risk: FloatArray = array_field("time")
    second_layer: FloatArray = array_field("time", "student")

    def overlaps(self, i: int, *, replica: int = 0) -> Overlaps:
        """Return the overlaps at the i-th time.

        Parameters
        ----------
        i : int
            Index into `t`; negative ones count from the end.
        replica : int
            Which replica of a simulation; 0 for theory.

        Returns
        -------
        Overlaps

        Raises
        ------
        ValueError
            If the replica had diverged, or theory is asked for a replica other than 0.
        IndexError
            If there is no such time or replica.

        Notes
        -----
        Source: ``docs/papers/sgd.md`` section 1.

        Examples
        --------
        >>> import overparam as op
        >>> problem = op.sgd.Problem(width=3, teacher_width=2, lr=0.1, dim=1000)
        >>> op.sgd.ode(problem, op.sgd.Overlaps.random(problem), [0, 5]).overlaps(-1)
        Overlaps(p=3, p*=2)
        """
        if not self.sampled and replica != 0:
            raise _check.bad("replica", "0 for a result without replicas", replica)
        at = (replica, i) if self.sampled else (i,)
        return Overlaps(Q=self.Q[at], M=self.M[at], P=self.P)


@record
class Plateau(Point):
    """The plateau on which learning waits before the student correlates with the teacher.

    Attributes
    ----------
    scale : float
        s = a q, the norm of the units times the second layer: Q = (s/a) I and M = 0.
    risk : float
        R on the plateau.
    escape_rates : (p*,) array
        Growth rates of M per unit t along the teacher's eigendirections, in decreasing order of the
        teacher's eigenvalues.
    lr_max : float
        Largest learning rate at which the plateau exists.

    Notes
    -----
    Made by `plateau`. Source: ``docs/papers/sgd.md`` section 4.

    Examples
    --------
    >>> import overparam as op
    >>> op.sgd.plateau(op.sgd.Problem(width=2, teacher_width=2, lr=0.2)).scale
    0.2928932188134525
    """

    scale: float = array_field()
    risk: float = array_field()
    escape_rates: FloatArray = array_field("teacher")
    lr_max: float = array_field()


# ---- checks --------------------------------------------------------------------------------------


def _symmetric(name: str, matrix: FloatArray) -> FloatArray:
    if matrix.shape[0] != matrix.shape[1]:
        raise _check.bad(name, "a square matrix", matrix)
    if np.abs(matrix - matrix.T).max(initial=0.0) > PSD_TOLERANCE * np.abs(matrix).max(initial=0.0):
        raise _check.bad(name, "symmetric", matrix)
    return matrix


def _problem(problem: object) -> Problem:
    if not isinstance(problem, Problem):
        raise _check.bad("problem", "an overparam.sgd.Problem", problem, TypeError)
    return problem


def _dimension(problem: Problem) -> int:
    if _problem(problem).dim is None:
        raise _check.bad("dim", "set in the problem for this function", None)
    assert problem.dim is not None
    return problem.dim


def _fitting(problem: Problem, overlaps: object, name: str = "overlaps") -> Overlaps:
    _problem(problem)
    if not isinstance(overlaps, Overlaps):
        raise _check.bad(name, "an overparam.sgd.Overlaps", overlaps, TypeError)
    expected = (problem.width, problem.teacher_width)
    if overlaps.M.shape != expected:
        raise ValueError(
            f"{name} must have M of shape {expected} (width and teacher_width of the problem), "
            f"but it was of shape {overlaps.M.shape}"
        )
    if problem.spherical and not (np.diag(overlaps.Q) > 0.0).all():
        raise _check.bad(name, "of units with positive norms (spherical)", np.diag(overlaps.Q))
    return overlaps


def _teacher_overlaps(problem: Problem, P: ArrayLike | None) -> FloatArray:
    size = _problem(problem).teacher_width
    if P is None:
        return np.eye(size)
    matrix = _symmetric("P", _check.matrix("P", P, (size, size)))
    eigenvalues = np.linalg.eigvalsh(matrix)
    if eigenvalues[0] < -PSD_TOLERANCE * max(eigenvalues[-1], 0.0):
        raise _check.bad("P", "positive semi-definite", matrix)
    return matrix


def _require(problem: Problem, **wanted: Any) -> None:
    """Refuse a problem in which a parameter does not have the value that a formula needs."""
    for name, value in wanted.items():
        if getattr(problem, name) != value:
            raise _check.bad(name, f"{value!r} for this function", getattr(problem, name))


def _is_uniform(weights: FloatArray) -> bool:
    return bool((weights == weights[0]).all())


def _is_scalar(matrix: FloatArray) -> bool:
    """Whether a matrix is a multiple of the identity."""
    mean = np.trace(matrix) / len(matrix)
    difference = np.abs(matrix - mean * np.eye(len(matrix))).max()
    return bool(difference <= EQUAL_TOLERANCE * np.abs(matrix).max(initial=0.0))


def _square_root(matrix: FloatArray) -> tuple[FloatArray, FloatArray, int]:
    """Return the symmetric square root of a PSD matrix, its pseudo-inverse and the rank."""
    values, vectors = np.linalg.eigh(matrix)
    kept = values > EQUAL_TOLERANCE * max(values[-1], 0.0)
    roots = np.sqrt(np.where(kept, values, 0.0))
    inverse = np.divide(1.0, roots, out=np.zeros_like(roots), where=kept)
    return (
        (vectors * roots) @ vectors.T,
        (vectors * inverse) @ vectors.T,
        int(kept.sum()),
    )


def _model(problem: Problem, P: FloatArray) -> _core.SgdModel:
    if problem.width > _UNROLLED:
        _blas.load()
    return _core.SgdModel(
        activation=problem.activation,
        a=problem.a,
        a_star=problem.a_star,
        P=P,
        offset=problem.b,
        lr=problem.lr,
        noise_var=problem.noise_var,
        batch=problem.batch,
        spherical=problem.spherical,
        second_layer_lr=problem.second_layer_lr,
    )


# ---- the overlap equations -----------------------------------------------------------------------


def risk(problem: Problem, overlaps: Overlaps) -> float:
    """Return the risk R = E[(yhat - y)^2] / 2 without the label-noise term.

    Parameters
    ----------
    problem : Problem
        Its activation, second layers and offset matter.
    overlaps : Overlaps
        State of the network.

    Returns
    -------
    float
        R >= 0.

    Raises
    ------
    TypeError, ValueError
        If the overlaps do not fit the problem.

    Notes
    -----
    Source: ``docs/papers/sgd.md`` section 2 (quadratic) and 10 (erf, ReLU).

    Examples
    --------
    >>> import numpy as np, overparam as op
    >>> problem = op.sgd.Problem(width=2, teacher_width=2, lr=0.1)
    >>> op.sgd.risk(problem, op.sgd.Overlaps(Q=np.zeros((2, 2)), M=np.zeros((2, 2)), P=np.eye(2)))
    1.0
    """
    _fitting(problem, overlaps)
    model = _model(problem, overlaps.P)
    return float(model.risks(overlaps.Q[None], overlaps.M[None], problem.a[None])[0])


def global_minimum(problem: Problem, P: ArrayLike | None = None) -> float:
    """Return the risk of the best student of the given width.

    Parameters
    ----------
    problem : Problem
        Quadratic, free norms; second layers of any sign.
    P : (p*, p*) array, optional
        Overlaps of the teacher; default the identity.

    Returns
    -------
    float
        Minimum of R over all first layers at the given second layer; 0 for p >= p* unless signs or
        an offset forbid it.

    Raises
    ------
    ValueError
        If the activation is not quadratic, or the norms are constrained.

    Notes
    -----
    The student's matrix has at most as many positive (negative) eigenvalues as it has positive
    (negative) second-layer weights; the best one takes the largest (smallest) teacher eigenvalues
    shifted by half the mean error. Source: ``docs/papers/sgd.md`` section 4.

    Examples
    --------
    >>> import overparam as op
    >>> round(op.sgd.global_minimum(op.sgd.Problem(width=1, teacher_width=2, lr=0.1)), 12)
    0.333333333333
    """
    _require(_problem(problem), activation="quadratic", spherical=False)
    sigma = _teacher_eigenvalues(problem, _teacher_overlaps(problem, P))
    # Directions outside the teacher's span are always there to be used.
    sigma = np.sort(np.append(sigma, np.zeros(problem.width)))
    positive, negative = int((problem.a > 0).sum()), int((problem.a < 0).sum())
    total = float(sigma.sum()) + problem.b

    def learned(tau: float) -> FloatArray:
        shifted = sigma + 0.5 * tau
        values = np.zeros_like(sigma)
        if positive:
            values[-positive:] += np.maximum(shifted[-positive:], 0.0)
        if negative:
            values[:negative] += np.minimum(shifted[:negative], 0.0)
        return values

    # tau = total - sum(learned(tau)) has one solution, since the right-hand side decreases.
    from scipy.optimize import brentq

    bound = 1.0 + abs(total) + 2.0 * float(np.abs(sigma).sum())
    tau = float(
        brentq(lambda x: total - learned(x).sum() - x, -bound, bound, xtol=1e-15, rtol=1e-15)
    )
    return 0.5 * tau**2 + float(((sigma - learned(tau)) ** 2).sum())


def drift(
    problem: Problem, overlaps: Overlaps, *, noise: bool = True
) -> tuple[FloatArray, FloatArray]:
    """Return the right-hand side of the overlap equations per unit t.

    Parameters
    ----------
    problem : Problem
        With its own second layer.
    overlaps : Overlaps
        State of the network.
    noise : bool
        Whether to keep the term in lr^2; without it the flow is gradient flow.

    Returns
    -------
    dQ, dM : (p, p) and (p, p*) arrays
        dQ/dt and dM/dt.

    Raises
    ------
    TypeError, ValueError
        If the overlaps do not fit the problem.

    Notes
    -----
    Closed forms for the quadratic and erf networks; the noise term of ReLU needs four-dimensional
    orthant probabilities, done by a one-dimensional quadrature to about 1e-9. Source:
    ``docs/papers/sgd.md`` sections 3 and 10.

    Examples
    --------
    >>> import numpy as np, overparam as op
    >>> problem = op.sgd.Problem(width=2, teacher_width=2, lr=0.1)
    >>> start = op.sgd.Overlaps(Q=0.5 * np.eye(2), M=np.zeros((2, 2)), P=np.eye(2))
    >>> op.sgd.drift(problem, start, noise=False)[0]
    array([[0., 0.],
           [0., 0.]])
    """
    _fitting(problem, overlaps)
    noise = _check.boolean("noise", noise)
    dQ, dM, _ = _model(problem, overlaps.P).drift(overlaps.Q, overlaps.M, noise)
    return dQ, dM


def mean_step(problem: Problem, overlaps: Overlaps) -> Overlaps:
    """Return the exact mean of the overlaps after one step at finite dimension.

    Parameters
    ----------
    problem : Problem
        With `dim` set; quadratic, free norms, fixed second layer.
    overlaps : Overlaps
        State before the step.

    Returns
    -------
    Overlaps
        Mean over inputs and label noise.

    Raises
    ------
    ValueError
        If the problem is not of that kind, or the overlaps do not fit it.

    Notes
    -----
    Exact for every N >= 1 and batch size. Source: ``docs/papers/sgd.md`` section 3.1.

    Examples
    --------
    >>> import numpy as np, overparam as op
    >>> problem = op.sgd.Problem(width=1, teacher_width=1, lr=0.1, dim=10)
    >>> op.sgd.mean_step(problem, op.sgd.Overlaps(Q=[[1.0]], M=[[0.0]], P=[[1.0]])).Q
    array([[0.9968]])
    """
    dim = _dimension(problem)
    _require(problem, activation="quadratic", spherical=False, second_layer_lr=0.0)
    _fitting(problem, overlaps)
    Q, M = _model(problem, overlaps.P).mean_step(float(dim), overlaps.Q, overlaps.M)
    return Overlaps(Q=Q, M=M, P=overlaps.P)


def ode(
    problem: Problem,
    start: Overlaps,
    t: ArrayLike,
    *,
    noise: bool = True,
    method: str = "auto",
    rtol: float = 1e-9,
    atol: float = 1e-12,
    max_steps: int = 10_000_000,
    throw: bool = True,
    progress: bool | Callable[[float], object] = False,
) -> OverlapTrajectory:
    """Solve the overlap equations, exact as N goes to infinity at fixed t = steps / N.

    Parameters
    ----------
    problem : Problem
        `dim` is not used.
    start : Overlaps
        State at t = 0.
    t : (T,) array
        Times, non-negative and strictly increasing.
    noise : bool
        Whether to keep the term in lr^2; without it the flow is gradient flow.
    method : {"auto", "dop853", "rkc", "modes", "riccati"}
        "dop853": explicit, order 8. "rkc": Runge-Kutta-Chebyshev, for late times. "modes": exact
        reduction to singular values (uniform second layers, P proportional to the identity, Q and
        M M^T commuting). "riccati": gradient flow by its closed solution (uniform second layer),
        for which the conserved quantity is exact. "auto": modes where they apply, else dop853, with
        rkc wherever stability limits it and rkc costs less.
    rtol, atol : float
        Relative and absolute tolerance of a step.
    max_steps : int
        Largest number of steps.
    throw : bool
        Raise `ConvergenceError` if the end is not reached; otherwise return what was computed.
    progress : bool or callable
        Show a bar, or call with the fraction done.

    Returns
    -------
    OverlapTrajectory
        At exactly the times t.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or the method does not apply.
    ConvergenceError
        If the solution diverges, the step underflows or `max_steps` is used up; its ``result``
        holds the trajectory until then.

    Notes
    -----
    Source: ``docs/papers/sgd.md`` sections 3, 3.2, 6 and 10.

    Examples
    --------
    >>> import numpy as np, overparam as op
    >>> problem = op.sgd.Problem(width=4, teacher_width=2, lr=0.2, dim=10**6)
    >>> theory = op.sgd.ode(problem, op.sgd.Overlaps.random(problem), np.linspace(0, 200, 11))
    >>> bool(theory.risk[-1] < 0.5 * theory.risk[0])
    True
    """
    _fitting(problem, start, "start")
    times = _check.times("t", t)
    noise = _check.boolean("noise", noise)
    method = _check.choice("method", method, ("auto", "dop853", "rkc", "modes", "riccati"))
    rtol, atol = _check.tolerance(rtol, atol)
    max_steps = _check.integer("max_steps", max_steps, minimum=1)
    throw = _check.boolean("throw", throw)
    p, ps = problem.width, problem.teacher_width
    _check.memory(
        8.0 * (2 * len(times) + _STAGES) * p * (p + ps), "the solution", "width or the times in t"
    )
    model = _model(problem, start.P)
    numerics = _Numerics(times, rtol, atol, max_steps)
    modes = _find_modes(problem, start) if method in ("auto", "modes") else None
    flow: _Flow
    if modes is not None:
        flow = _ModeFlow(problem, model, modes, noise, numerics)
    elif method == "modes":
        raise _check.bad(
            "method",
            "one that applies: modes need the quadratic activation, uniform fixed second layers, "
            "free norms, P proportional to the identity and Q commuting with M M^T",
            method,
        )
    elif method == "riccati":
        if noise:
            raise _check.bad("noise", "False for the method riccati", noise)
        _require(problem, activation="quadratic", spherical=False, second_layer_lr=0.0)
        if not (_is_uniform(problem.a) and problem.a[0] > 0.0):
            raise _check.bad("second_layer", "uniform and positive for this method", problem.a)
        flow = _RiccatiFlow(problem, model, start, numerics)
    else:
        flow = _OverlapFlow(problem, model, start, noise, method, numerics)

    def advance(_done: int, budget: int) -> int:
        before = flow.evaluations
        return 0 if flow.advance(budget) else max(1, flow.evaluations - before)

    def build(status: Status, stats: dict[str, float]) -> OverlapTrajectory:
        Q, M, a = (_run.padded(values, len(times)) for values in flow.trajectory())
        return OverlapTrajectory(
            problem=problem,
            inputs={"noise": noise, "rtol": rtol, "atol": atol},
            method=flow.method,
            status=status if status is Status.INTERRUPTED else flow.status,
            stats={"seconds": stats["seconds"], "threads": 1, **flow.stats},
            origin=make_origin(),
            t=times,
            Q=Q,
            M=M,
            P=start.P,
            risk=model.risks(Q, M, a),
            second_layer=a,
        )

    result = _run.drive(
        None,
        {},
        advance,
        build,
        progress=progress,
        label="sgd.ode",
        fraction=lambda: flow.time / times[-1] if times[-1] > 0.0 else 1.0,
    )
    return conclude(result, throw)


class _Numerics(NamedTuple):
    t: FloatArray
    rtol: float
    atol: float
    max_steps: int


class _Flow(ABC):
    """A run of one of the equation systems, and how its values become overlaps."""

    method: str
    core: _core.Run

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    @property
    def time(self) -> float:
        return self.core.time

    @property
    def status(self) -> Status:
        return self.core.status

    @property
    def evaluations(self) -> int:
        return self.core.evaluations

    @property
    def stats(self) -> dict[str, float | int]:
        core = self.core
        return {
            "steps": core.steps,
            "rejected": core.rejected,
            "evaluations": self.evaluations,
            "stiff_steps": core.stiff_steps,
        }

    def advance(self, evaluations: int) -> bool:
        return self.core.advance(evaluations)

    @abstractmethod
    def trajectory(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return Q, M and a at the times reached so far."""

    def fixed_second_layer(self, count: int) -> FloatArray:
        return np.tile(self.problem.a, (count, 1))


class _OverlapFlow(_Flow):
    def __init__(
        self,
        problem: Problem,
        model: _core.SgdModel,
        start: Overlaps,
        noise: bool,
        method: str,
        numerics: _Numerics,
    ) -> None:
        super().__init__(problem)
        self._asked = method
        self._upper = np.triu_indices(problem.width)
        trained = [problem.a] if problem.second_layer_lr > 0.0 else []
        state = np.concatenate([start.M.ravel(), start.Q[self._upper], *trained])
        self.core = model.overlap_equations(
            noise, state, numerics.t, *numerics[1:3], method, numerics[3]
        )

    @property
    def method(self) -> str:  # type: ignore[override]  # an attribute of other runs
        if self._asked != "auto":
            return self._asked
        return "dop853+rkc" if self.core.stiff_steps else "dop853"

    def trajectory(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        p, ps = self.problem.width, self.problem.teacher_width
        values = self.core.values
        count, triangle = len(values), p * (p + 1) // 2
        M, upper, a = np.split(values, [p * ps, p * ps + triangle], axis=1)
        Q = np.empty((count, p, p))
        Q[:, self._upper[0], self._upper[1]] = upper
        Q[:, self._upper[1], self._upper[0]] = upper
        if not a.size:
            a = self.fixed_second_layer(count)
        return Q, M.reshape(count, p, ps), a


class _Modes(NamedTuple):
    """M = student diag(m) teacher^T and Q = student diag(q) student^T."""

    student: FloatArray
    teacher: FloatArray
    m: FloatArray
    q: FloatArray


def _find_modes(problem: Problem, start: Overlaps) -> _Modes | None:
    """Return the modes of a start that has them (section 3.2)."""
    if (
        problem.activation != "quadratic"
        or problem.spherical
        or problem.second_layer_lr > 0.0
        or not (_is_uniform(problem.a) and _is_uniform(problem.a_star) and _is_scalar(start.P))
    ):
        return None
    Q, M = start.Q, start.M
    square = M @ M.T
    size = max(np.abs(Q).max(), 1e-300)
    correlation = np.abs(square).max()
    if correlation > 0.0:
        commutator = Q @ square - square @ Q
        if np.abs(commutator).max() > EQUAL_TOLERANCE * size * correlation:
            return None
    # The eigenvectors of a generic combination diagonalise both.
    mixed = Q / size + (np.sqrt(2.0) / correlation) * square if correlation > 0.0 else Q / size
    student = np.linalg.eigh(mixed)[1]
    projected = M.T @ student
    m = np.linalg.norm(projected, axis=0)
    order = np.argsort(-m, kind="stable")
    student, projected, m = student[:, order], projected[:, order], m[order]
    rank = min(problem.width, problem.teacher_width)
    teacher = np.divide(projected, m, out=np.zeros_like(projected), where=m > 0.0)[:, :rank]
    return _Modes(student, teacher, m[:rank], np.einsum("ki,kl,li->i", student, Q, student))


class _ModeFlow(_Flow):
    method = "modes"

    def __init__(
        self,
        problem: Problem,
        model: _core.SgdModel,
        modes: _Modes,
        noise: bool,
        numerics: _Numerics,
    ) -> None:
        super().__init__(problem)
        self._modes = modes
        idle = np.zeros(problem.teacher_width - len(modes.m))
        state = np.concatenate([modes.m, idle, modes.q])
        self.core = model.mode_equations(
            noise, state, numerics.t, *numerics[1:3], "auto", numerics[3]
        )

    def trajectory(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        student, teacher, start, _ = self._modes
        values = self.core.values
        m = values[:, : len(start)]
        q = values[:, self.problem.teacher_width :]
        Q = np.einsum("ki,ti,li->tkl", student, q, student, optimize=True)
        M = np.einsum("ki,ti,ri->tkr", student[:, : len(start)], m, teacher, optimize=True)
        return Q, M, self.fixed_second_layer(len(values))


class _RiccatiFlow(_Flow):
    """Gradient flow in segments, each by the closed solution from the weights at its start.

    In the teacher's eigenbasis and a frame orthogonal to it the weights are (X, Y); section 6.3.
    """

    method = "riccati"

    # A segment ends where the exponents of the closed solution have grown by about this much.
    GROWTH = 6.0

    def __init__(
        self, problem: Problem, model: _core.SgdModel, start: Overlaps, numerics: _Numerics
    ) -> None:
        super().__init__(problem)
        self._model, self._numerics = model, numerics
        root, inverse, _ = _square_root(start.P)
        self._sigma, basis = np.linalg.eigh(root @ (problem.a_star[:, None] * root))
        self._teacher = root @ basis  # W*/sqrt(N) in the eigenbasis, (p*, p*)
        self._unit = np.sqrt(problem.a[0])
        frame = start.M @ inverse
        self._X = self._unit * frame @ basis
        self._Y = self._unit * _square_root(start.Q - frame @ frame.T)[0]
        self._begin, self._saved, self._steps, self._evaluations = 0.0, 0, 0, 0
        p, ps = problem.width, problem.teacher_width
        self._Q = np.empty((len(numerics.t), p, p))
        self._M = np.empty((len(numerics.t), p, ps))
        eta = problem.lr * problem.a[0]
        rate = 8.0 * eta * float(np.abs(self._sigma).max())
        largest = float(np.sum(self._X**2) + np.sum(self._Y**2))
        rate += 4.0 * eta * (float(np.abs(self._sigma).sum()) + abs(problem.b) + largest)
        self._segment = self.GROWTH / rate if rate > 0.0 else float(numerics.t[-1]) + 1.0
        self._next()

    def _next(self) -> None:
        p, ps = self.problem.width, self.problem.teacher_width
        t, rtol, atol, max_steps = self._numerics
        end = self._begin + self._segment
        self._first = self._saved
        inside = t[self._first :]
        self._grid = np.append(inside[inside < end], end) - self._begin
        state = np.concatenate([np.zeros(ps + 3), np.eye(p).ravel()])
        self.core = self._model.riccati_equations(
            self._sigma, self._X, self._Y, state, self._grid, rtol, atol, max_steps
        )

    @property
    def time(self) -> float:
        return self._begin + self.core.time

    @property
    def evaluations(self) -> int:
        return self._evaluations + self.core.evaluations

    @property
    def stats(self) -> dict[str, float | int]:
        return {"steps": self._steps + self.core.steps, "evaluations": self.evaluations}

    def _weights(self, state: FloatArray) -> tuple[FloatArray, FloatArray]:
        p, ps = self.problem.width, self.problem.teacher_width
        eta = self.problem.lr * self.problem.a[0]
        time, phi, integrals, rest = state[0], state[1], state[2 : 2 + ps], state[2 + ps]
        rotation = state[3 + ps :].reshape(p, p)
        B = np.eye(p) + 8.0 * eta * ((self._X * integrals) @ self._X.T + rest * self._Y @ self._Y.T)
        values, vectors = np.linalg.eigh(B)
        left = rotation @ (vectors / np.sqrt(values)) @ vectors.T
        growth = np.exp(2.0 * eta * phi + 4.0 * eta * self._sigma * time)
        return left @ self._X * growth, left @ self._Y * np.exp(2.0 * eta * phi)

    def _collect(self) -> None:
        """Take the requested times that the segment has reached."""
        states = self.core.values[: len(self._grid) - 1]
        for state in states[self._saved - self._first :]:
            X, Y = self._weights(state)
            self._Q[self._saved] = (X @ X.T + Y @ Y.T) / self._unit**2
            self._M[self._saved] = X @ self._teacher.T / self._unit
            self._saved += 1

    def advance(self, evaluations: int) -> bool:
        if not self.core.advance(evaluations):
            return False
        self._collect()
        if self._saved == len(self._numerics.t) or self.core.status is not Status.SUCCESS:
            return True
        self._X, self._Y = self._weights(self.core.values[-1])
        self._begin += self._segment
        self._steps += self.core.steps
        self._evaluations += self.core.evaluations
        self._next()
        return False

    def trajectory(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        self._collect()
        count = self._saved
        return self._Q[:count], self._M[:count], self.fixed_second_layer(count)


# ---- simulation ----------------------------------------------------------------------------------


def simulate(
    problem: Problem,
    start: Overlaps | Sequence[Overlaps],
    t: ArrayLike,
    *,
    method: str = "chain",
    replicas: int = 1,
    seed: int | np.random.SeedSequence | None = 0,
    threads: int | None = None,
    throw: bool = True,
    progress: bool | Callable[[float], object] = False,
    checkpoint: PathLike | None = None,
) -> OverlapTrajectory:
    """Simulate SGD at the problem's input dimension.

    Parameters
    ----------
    problem : Problem
        With `dim` set.
    start : Overlaps or sequence of Overlaps
        State at t = 0, the same for all replicas, or one for each (with the same P).
    t : (T,) array
        Times t = steps / N; each is rounded to the nearest step.
    method : {"chain", "direct"}
        "chain": the Markov chain of the overlaps, exact in law, whose cost does not depend on N
        (needs N >= p + p*). "direct": SGD on W in R^{p x N}.
    replicas : int
        Independent runs. The first r do not depend on how many there are.
    seed : int, SeedSequence or None
        None draws fresh entropy; what was used is in ``origin``.
    threads : int, optional
        Default: the environment variable OVERPARAM_NUM_THREADS, else OpenMP's. No bit of the result
        depends on it.
    throw : bool
        Raise `ConvergenceError` if all replicas diverge; otherwise return what was computed.
    progress : bool or callable
        Show a bar, or call with the fraction done.
    checkpoint : path, optional
        A file from which the same call continues after an interruption, to the same bits.

    Returns
    -------
    OverlapTrajectory
        With the replica axis first. A replica that diverges is marked and NaN from then on.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.
    MemoryError
        If the run would need more memory than is free.
    ConvergenceError
        If all replicas diverged; its ``result`` holds the trajectory until then.

    Notes
    -----
    Source: ``docs/papers/sgd.md`` section 8. At small N and large learning rates the overlaps have
    heavy tails: compare medians, and keep lr well below `lr_max`.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.sgd.Problem(width=4, teacher_width=2, lr=0.2, dim=10**6)
    >>> start = op.sgd.Overlaps.random(problem)
    >>> op.sgd.simulate(problem, start, [0, 1e-4, 2e-4], replicas=8).risk.shape
    (8, 3)
    """
    dim = _dimension(problem)
    times = _check.times("t", t)
    method = _check.choice("method", method, ("chain", "direct"))
    replicas = _check.replicas(replicas)
    sequence = _check.seed_sequence(seed)
    workers = _check.threads(threads)
    throw = _check.boolean("throw", throw)
    starts = _starts(problem, start, replicas)
    p, ps = problem.width, problem.teacher_width
    if method == "chain" and dim < p + ps:
        raise _check.bad(
            "dim",
            f'at least width + teacher_width = {p + ps} for the chain (use method="direct")',
            dim,
        )
    steps = _check.steps("t", times, dim, rounding=True)
    if method == "direct":  # weights, and on each thread the inputs of a whole batch
        stride = _core.sgd_padded(dim)
        stored = 8.0 * stride * (replicas * p + min(workers, replicas) * problem.batch)
    else:
        stored = 8.0 * replicas * p * (p + ps)
    _check.memory(
        stored + 16.0 * replicas * len(times) * p * (p + ps),
        "the weights and the recorded overlaps" if method == "direct" else "the recorded overlaps",
        "replicas, the times in t" + (", dim or batch" if method == "direct" else ""),
    )
    shape = (replicas, len(times))
    arrays: dict[str, NDArray[Any]] = {
        "Q": np.full((*shape, p, p), np.nan),
        "M": np.full((*shape, p, ps), np.nan),
        "second_layer": np.full((*shape, p), np.nan),
        "risk": np.full(shape, np.nan),
        "diverged": np.zeros(replicas, dtype=bool),
        "recorded": np.zeros(1, dtype=np.int64),
        "a": np.tile(problem.a, (replicas, 1)),
    }
    room = (_Chain if method == "chain" else _Direct)(problem, starts, dim, arrays)
    word = _check.seed_word(sequence)

    def record_now() -> None:
        Q, M, excess = room.observe(arrays)
        i = int(arrays["recorded"][0])
        finite = np.isfinite(Q).all(axis=(1, 2)) & np.isfinite(M).all(axis=(1, 2))
        finite &= np.isfinite(arrays["a"]).all(axis=1) & np.isfinite(excess) & ~arrays["diverged"]
        arrays["diverged"] |= ~finite
        for name, values in (("Q", Q), ("M", M), ("risk", excess), ("second_layer", arrays["a"])):
            arrays[name][finite, i] = values[finite]
        arrays["recorded"] += 1

    def advance(done: int, budget: int) -> int:
        end = done + budget
        while done < end:
            i = int(arrays["recorded"][0])
            due = int(steps[i]) if i < len(steps) else end
            stop = min(end, due)
            if stop > done:
                room.advance(arrays, word, done, stop - done, workers)
                done = stop
            if done == due and i < len(steps):
                record_now()
            if arrays["diverged"].all():
                return int(steps[-1]) - (end - budget)
        while int(arrays["recorded"][0]) < len(steps) and steps[arrays["recorded"][0]] == done:
            record_now()
        return budget

    def build(status: Status, stats: dict[str, float]) -> OverlapTrajectory:
        return OverlapTrajectory(
            problem=problem,
            method=method,
            status=status,
            stats={**stats, "threads": workers},
            origin=make_origin(sequence),
            diverged=arrays["diverged"],
            t=times,
            Q=arrays["Q"],
            M=arrays["M"],
            P=starts[0].P,
            risk=arrays["risk"],
            second_layer=arrays["second_layer"],
        )

    identity = _run.fingerprint(
        problem,
        function="sgd.simulate",
        method=method,
        t=times,
        starts=[[s.Q, s.M, s.P] for s in starts],
        replicas=replicas,
        seed=sequence,
    )
    while int(arrays["recorded"][0]) < len(steps) and steps[arrays["recorded"][0]] == 0:
        record_now()
    result = _run.drive(
        int(steps[-1]),
        arrays,
        advance,
        build,
        progress=progress,
        label="sgd.simulate",
        checkpoint=_run.Checkpoint(checkpoint, identity),
    )
    return conclude(result, throw)


def _starts(
    problem: Problem, start: Overlaps | Sequence[Overlaps], replicas: int
) -> list[Overlaps]:
    """Return one start, or as many as there are replicas."""
    if isinstance(start, Overlaps):
        return [_fitting(problem, start, "start")]
    if not isinstance(start, Sequence):
        raise _check.bad(
            "start", "an overparam.sgd.Overlaps or a sequence of them", start, TypeError
        )
    if len(start) != replicas:
        raise ValueError(
            f"start must be one Overlaps or one for each of the {replicas} replicas, "
            f"but was a sequence of {len(start)}"
        )
    starts = [_fitting(problem, item, "start") for item in start]
    if any(not np.array_equal(item.P, starts[0].P) for item in starts):
        raise ValueError("start must have the same P in all replicas, but they differ")
    return starts


def _per_replica(values: list[FloatArray], replicas: int) -> FloatArray:
    return np.tile(values[0], (replicas, 1, 1)) if len(values) == 1 else np.array(values)


class _Chain:
    """The overlap chain (section 8): the state is Bm and Qperp in `arrays`."""

    def __init__(
        self, problem: Problem, starts: list[Overlaps], dim: int, arrays: dict[str, NDArray[Any]]
    ) -> None:
        replicas = len(arrays["diverged"])
        self._dim = float(dim)
        self._root, inverse, _ = _square_root(starts[0].P)
        frames = [start.M @ inverse for start in starts]
        rests = [start.Q - B @ B.T for start, B in zip(starts, frames, strict=True)]
        arrays["Bm"] = _per_replica(frames, replicas)
        arrays["Qperp"] = _per_replica([0.5 * (rest + rest.T) for rest in rests], replicas)
        self._norms = np.einsum("kii->ki", _per_replica([s.Q for s in starts], replicas)).copy()
        self._model = _model(problem, starts[0].P)

    def advance(
        self, arrays: dict[str, NDArray[Any]], seed: int, step: int, steps: int, threads: int
    ) -> None:
        self._model.chain_advance(
            self._dim,
            self._root,
            self._norms,
            arrays["Bm"],
            arrays["Qperp"],
            arrays["a"],
            seed,
            step,
            steps,
            threads,
        )

    def observe(self, arrays: dict[str, NDArray[Any]]) -> tuple[FloatArray, FloatArray, FloatArray]:
        B, rest = arrays["Bm"], arrays["Qperp"]
        with np.errstate(over="ignore", invalid="ignore"):
            Q = rest + B @ B.transpose(0, 2, 1)
            M = B @ self._root
        return Q, M, self._model.frame_risks(self._root, B, rest, arrays["a"])


class _Direct:
    """SGD on the weights; rows are padded with zeros to whole vector registers."""

    def __init__(
        self, problem: Problem, starts: list[Overlaps], dim: int, arrays: dict[str, NDArray[Any]]
    ) -> None:
        replicas = len(arrays["diverged"])
        p, self._dim, stride = problem.width, dim, _core.sgd_padded(dim)
        weights = [_embedded(start, dim, stride) for start in starts]
        self._teacher = weights[0][p:]
        arrays["W"] = _per_replica([w[:p] for w in weights], replicas)
        self._norms = np.einsum("kii->ki", _per_replica([s.Q for s in starts], replicas)).copy()
        self._model = _model(problem, starts[0].P)

    def advance(
        self, arrays: dict[str, NDArray[Any]], seed: int, step: int, steps: int, threads: int
    ) -> None:
        self._model.direct_advance(
            self._dim,
            self._teacher,
            self._norms,
            arrays["W"],
            arrays["a"],
            seed,
            step,
            steps,
            threads,
        )

    def observe(self, arrays: dict[str, NDArray[Any]]) -> tuple[FloatArray, FloatArray, FloatArray]:
        W = arrays["W"]
        with np.errstate(over="ignore", invalid="ignore"):
            Q = W @ W.transpose(0, 2, 1) / self._dim
            M = W @ self._teacher.T / self._dim
        return Q, M, self._model.risks(Q, M, arrays["a"])


def _embedded(overlaps: Overlaps, dim: int, stride: int) -> FloatArray:
    """Return weights (p + p*, stride) with the given overlaps, student first.

    The teacher's rows depend on P alone, so that replicas share them.
    """
    root, inverse, rank = _square_root(overlaps.P)
    frame = overlaps.M @ inverse
    values, vectors = np.linalg.eigh(root)
    teacher = vectors[:, len(values) - rank :]
    # Symmetric roots need no ordering of the units, but the rest may have as many columns as units.
    rest_values, rest_vectors = np.linalg.eigh(overlaps.Q - frame @ frame.T)
    size = max(float(np.abs(overlaps.Q).max()), 1e-300)
    kept = rest_values > EQUAL_TOLERANCE * size
    rest = rest_vectors[:, kept] * np.sqrt(rest_values[kept])
    needed = rank + rest.shape[1]
    if needed > dim:
        raise _check.bad(
            "dim", f"at least the rank {needed} of the joint Gram matrix of start", dim
        )
    p = len(frame)
    weights = np.zeros((p + len(root), stride))
    weights[:p, :rank] = frame @ teacher
    weights[:p, rank:needed] = rest
    weights[p:, :rank] = root @ teacher
    weights *= np.sqrt(dim)
    return weights


# ---- plateau and escape --------------------------------------------------------------------------


def _teacher_eigenvalues(problem: Problem, P: FloatArray) -> FloatArray:
    """Return the eigenvalues of A*^{1/2} P A*^{1/2} (of A* P for signed weights), decreasing."""
    root = _square_root(P)[0]
    matrix: FloatArray = root @ (problem.a_star[:, None] * root)
    return np.sort(np.linalg.eigvalsh(matrix))[::-1]


class _Canonical(NamedTuple):
    """What a uniform student depends on: eta = lr a, the teacher's eigenvalues and the offset."""

    a: float
    eta: float
    sigma: FloatArray
    b: float


def _canonical(problem: Problem, P: ArrayLike | None) -> _Canonical:
    _require(_problem(problem), activation="quadratic", spherical=False, second_layer_lr=0.0)
    a = problem.a
    if not _is_uniform(a) or a[0] == 0.0:
        raise _check.bad("second_layer", "uniform and not zero for this function", a)
    # The sign of student, teacher and offset together is a convention.
    sign = float(np.sign(a[0]))
    sigma = sign * _teacher_eigenvalues(problem, _teacher_overlaps(problem, P))
    weight = float(abs(a[0]))
    return _Canonical(weight, problem.lr * weight, np.sort(sigma)[::-1], sign * problem.b)


def plateau(problem: Problem, P: ArrayLike | None = None) -> Plateau:
    """Return the plateau on which SGD waits before it finds the teacher.

    Parameters
    ----------
    problem : Problem
        Quadratic, free norms, uniform and fixed second layer.
    P : (p*, p*) array, optional
        Overlaps of the teacher; default the identity.

    Returns
    -------
    Plateau
        scale s = a q, risk, escape rates per unit t, and the largest learning rate with a plateau.

    Raises
    ------
    ValueError
        If the problem is not of that kind.
    ConvergenceError
        If the learning rate is above `lr_max`: the norms grow without bound.

    Notes
    -----
    Includes the lr^2 term and label noise; in gradient flow s = T/(p+2), the rates are
    4 eta sigma_j, and the risk is T^2/(p+2) + sum sigma_j^2, with T = sum sigma_j + b. Source:
    ``docs/papers/sgd.md`` section 4.

    Examples
    --------
    >>> import overparam as op
    >>> op.sgd.plateau(op.sgd.Problem(width=2, teacher_width=2, lr=0.2)).escape_rates
    array([0.16568542, 0.16568542])
    """
    a, eta, sigma, b = _canonical(problem, P)
    p, batch = problem.width, problem.batch
    total, square = float(sigma.sum()) + b, float((sigma**2).sum())
    noise = total**2 + 2.0 * square + problem.noise_var
    # Positive root of the condition that the quadratic for s has a double root.
    c2 = 8.0 * total**2 + 4.0 * (p + 4) * (2.0 * square + problem.noise_var)
    root = np.sqrt(16.0 * total**2 + c2 * (p + 2))
    eta_max = (p + 2) / (4.0 * total + root) if c2 > 0.0 else np.inf
    # eta (p+2)(p+4) s^2 - (p+2)(1 + 2 eta T) s + T + eta (T^2 + 2 K + Delta) = 0, eta -> eta/batch.
    small = eta / batch
    constant, slope = total + small * noise, (p + 2) * (1.0 + 2.0 * small * total)
    discriminant = slope**2 - 4.0 * small * (p + 2) * (p + 4) * constant
    exists = small <= eta_max and discriminant >= -1e-12 * slope**2
    scale = 2.0 * constant / (slope + np.sqrt(max(discriminant, 0.0))) if exists else np.nan
    scale = max(scale, 0.0) if exists else scale
    tau, kappa = total - p * scale, square + p * scale**2
    result = Plateau(
        problem=problem,
        method="closed form",
        status=Status.SUCCESS if exists else Status.NOT_CONVERGED,
        origin=make_origin(),
        scale=scale,
        risk=0.5 * tau**2 + kappa,
        escape_rates=2.0 * eta * (2.0 * sigma + total - (p + 2) * scale),
        lr_max=eta_max * batch / a,
    )
    if not exists:
        raise ConvergenceError(
            f"lr must be at most {result.lr_max:.6g} for a plateau to exist, "
            f"but was {problem.lr:g}",
            result,
        )
    return result


def escape_time(problem: Problem, start: Overlaps, *, drop: float) -> float:
    """Return the time at which gradient flow has left the plateau by a given drop of the risk.

    Parameters
    ----------
    problem : Problem
        Quadratic, free norms, uniform and fixed second layer.
    start : Overlaps
        State at t = 0, with Q of full rank.
    drop : float
        Absolute decrease R_plateau - R of the risk, between 0 and the plateau's risk.

    Returns
    -------
    float
        t; negative if the formula puts the drop before the start, inf if M = 0.

    Raises
    ------
    ValueError
        If the problem or the start is not as described.

    Notes
    -----
    For P = rho I this is ln[drop / (2 s sigma |C0|^2)] / (8 eta sigma) with the canonical
    correlations C0 = Q0^{-1/2} M0 P^{-1/2}; other teachers: the root of the same expression summed
    over directions. Exact as long as M is small, so for small drops. Source:
    ``docs/papers/sgd.md`` section 4.

    Examples
    --------
    >>> import numpy as np, overparam as op
    >>> problem = op.sgd.Problem(width=2, teacher_width=2, lr=0.2)
    >>> start = op.sgd.Overlaps(Q=np.eye(2), M=1e-3 * np.eye(2), P=np.eye(2))
    >>> round(op.sgd.escape_time(problem, start, drop=0.05), 6)
    28.782314
    """
    _fitting(problem, start, "start")
    drop = _check.real("drop", drop, minimum=0.0, strict_minimum=True)
    _, eta, sigma, b = _canonical(problem, start.P)
    scale = (float(sigma.sum()) + b) / (problem.width + 2)
    if not scale > 0.0:
        raise _check.bad("problem", "one whose plateau has a positive scale", scale)
    height = scale**2 * (problem.width + 2) + float((sigma**2).sum())
    if drop >= height:
        raise _check.bad("drop", f"less than the risk {height:.6g} of the plateau", drop)
    sign = float(np.sign(problem.a[0]))
    root, inverse, _ = _square_root(start.P)
    values, basis = np.linalg.eigh(root @ (sign * problem.a_star[:, None] * root))
    seeds = _inverse_root("start", start.Q) @ start.M @ inverse @ basis
    # R_plateau - R = 2 s sum_j sigma_j |c_j|^2 exp(8 eta sigma_j t)
    weights = 2.0 * scale * values * (seeds**2).sum(axis=0)
    kept = weights > 0.0
    if not kept.any() or eta == 0.0:
        return np.inf
    weights, rates = weights[kept], 8.0 * eta * values[kept]
    times = np.log(drop / weights) / rates
    high = float(times.min())  # one direction alone would do it
    if len(weights) == 1:
        return high
    from scipy.optimize import brentq
    from scipy.special import logsumexp

    def excess(time: float) -> float:
        return float(logsumexp(np.log(weights) + rates * time) - np.log(drop))

    low = high - np.log(len(weights)) / float(rates.min()) - 1e-9
    return float(brentq(excess, low, high + 1e-9, xtol=1e-13, rtol=1e-14))


def _inverse_root(name: str, Q: FloatArray) -> FloatArray:
    values, vectors = np.linalg.eigh(Q)
    if values[0] <= EQUAL_TOLERANCE * values[-1]:
        raise _check.bad(name, "overlaps with Q of full rank", Q)
    inverse: FloatArray = (vectors / np.sqrt(values)) @ vectors.T
    return inverse


# ---- near zero loss ------------------------------------------------------------------------------


def _learnable(problem: Problem, P: ArrayLike | None) -> tuple[_Canonical, FloatArray]:
    """Return the canonical problem and its positive eigenvalues, if the student can reach R = 0."""
    canonical = _canonical(problem, P)
    sigma = canonical.sigma
    floor = EQUAL_TOLERANCE * float(np.abs(sigma).max())
    if sigma[-1] < -floor:
        raise _check.bad(
            "teacher_second_layer", "of the sign of the student's for this function", problem.a_star
        )
    positive = sigma[sigma > floor]
    if problem.width < len(positive):
        raise _check.bad(
            "width", f"at least the {len(positive)} directions of the teacher", problem.width
        )
    if canonical.b != 0.0:
        raise _check.bad("offset", "zero for this function", canonical.b)
    return canonical, positive


def _misadjustment(eta: float, sigma: FloatArray, batch: int) -> float:
    room = batch - 4.0 * eta * sigma
    return float((2.0 * eta * sigma / room).sum()) if (room > 0.0).all() else np.inf


def misadjustment(problem: Problem, P: ArrayLike | None = None) -> float:
    """Return the misadjustment of SGD near zero loss.

    Parameters
    ----------
    problem : Problem
        Quadratic, free norms, uniform and fixed second layer, p >= p*, no offset.
    P : (p*, p*) array, optional
        Overlaps of the teacher; default the identity.

    Returns
    -------
    float
        sum_j 2 eta sigma_j / (B - 4 eta sigma_j) with eta = lr a; inf beyond 4 eta sigma = B. SGD
        is stable where it is below one.

    Raises
    ------
    ValueError
        If the problem is not of that kind.

    Notes
    -----
    Source: ``docs/papers/sgd.md`` section 5.

    Examples
    --------
    >>> import overparam as op
    >>> op.sgd.misadjustment(op.sgd.Problem(width=2, teacher_width=2, lr=0.2))
    0.25
    """
    canonical, sigma = _learnable(problem, P)
    return _misadjustment(canonical.eta, sigma, problem.batch)


def lr_max(problem: Problem, P: ArrayLike | None = None) -> float:
    """Return the learning rate above which SGD is unstable near zero loss.

    Parameters
    ----------
    problem : Problem
        Quadratic, free norms, uniform and fixed second layer, p >= p*, no offset; its own `lr` is
        not used.
    P : (p*, p*) array, optional
        Overlaps of the teacher; default the identity.

    Returns
    -------
    float
        In units of `lr`, for the problem's batch size.

    Raises
    ------
    ValueError
        If the problem is not of that kind.

    Notes
    -----
    Where the misadjustment reaches one. Source: ``docs/papers/sgd.md`` section 5.

    Examples
    --------
    >>> import overparam as op
    >>> round(op.sgd.lr_max(op.sgd.Problem(width=1, teacher_width=1, lr=0.1)), 12)
    0.166666666667
    """
    canonical, sigma = _learnable(problem, P)
    if not len(sigma):
        return np.inf
    from scipy.optimize import brentq

    # In units of batch/(4 sigma_max): the misadjustment grows from 0 to infinity over (0, 1).
    ratio = sigma / sigma[0]

    def excess(x: float) -> float:
        return float((0.5 * x * ratio / (1.0 - x * ratio)).sum()) - 1.0

    x = float(brentq(excess, 0.0, 1.0 - 1e-15 / len(sigma), xtol=1e-16, rtol=1e-15))
    return x * problem.batch / (4.0 * float(sigma[0]) * canonical.a)


def noise_floor(problem: Problem, P: ArrayLike | None = None) -> float:
    """Return the risk at which SGD settles because of label noise.

    Parameters
    ----------
    problem : Problem
        Quadratic, free norms, uniform and fixed second layer, p >= p*, no offset.
    P : (p*, p*) array, optional
        Overlaps of the teacher; default the identity.

    Returns
    -------
    float
        (Delta/2) r / (1 - r) with the misadjustment r; inf where r >= 1. Exact for p = p*, the
        leading order in Delta for p > p*.

    Raises
    ------
    ValueError
        If the problem is not of that kind.

    Notes
    -----
    Source: ``docs/papers/sgd.md`` section 5.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.sgd.Problem(width=2, teacher_width=2, lr=0.2, noise_var=0.6)
    >>> round(op.sgd.noise_floor(problem), 12)
    0.1
    """
    rate = misadjustment(problem, P)
    return 0.5 * problem.noise_var * rate / (1.0 - rate) if rate < 1.0 else np.inf


def late_time_constant(problem: Problem, P: ArrayLike | None = None) -> float:
    """Return the limit of R t^2 for a student wider than the teacher.

    Parameters
    ----------
    problem : Problem
        Quadratic, free norms, uniform and fixed second layer, p > p*, no offset, no label noise.
    P : (p*, p*) array, optional
        Overlaps of the teacher; default the identity.

    Returns
    -------
    float
        (p - p*)(p* + 2) / (64 eta^2 (p + 2)) / (1 - r) with the misadjustment r, p* being the rank
        of P; inf where r >= 1.

    Raises
    ------
    ValueError
        If the problem is not of that kind.

    Notes
    -----
    The surplus directions decay like 1/t. Source: ``docs/papers/sgd.md`` section 5.

    Examples
    --------
    >>> import overparam as op
    >>> round(op.sgd.late_time_constant(op.sgd.Problem(width=5, teacher_width=2, lr=0.25)), 12)
    12.053571428571
    """
    canonical, sigma = _learnable(problem, P)
    surplus = problem.width - len(sigma)
    if surplus == 0:
        raise _check.bad(
            "width", f"larger than the {len(sigma)} directions of the teacher", problem.width
        )
    if problem.noise_var > 0.0:
        raise _check.bad("noise_var", "zero (see noise_floor)", problem.noise_var)
    if canonical.eta == 0.0:
        raise _check.bad("lr", "positive for this function", problem.lr)
    rate = _misadjustment(canonical.eta, sigma, problem.batch)
    if rate >= 1.0:
        return np.inf
    widths = surplus * (len(sigma) + 2) / (problem.width + 2)
    return widths / (64.0 * canonical.eta**2) / (1.0 - rate)


# ---- symmetry and selection ----------------------------------------------------------------------


def conserved(problem: Problem, overlaps: Overlaps, t: float) -> FloatArray:
    """Return the quantity that gradient flow conserves.

    Parameters
    ----------
    problem : Problem
        Quadratic, free norms, uniform and fixed second layer.
    overlaps : Overlaps
        State at time t, with Q - M P^{-1} M^T and P of full rank.
    t : float
        Time, >= 0.

    Returns
    -------
    (p*, p*) array
        J = E^T M^T Qperp^{-1} M E with E = exp(-4 lr a t A* P) and Qperp = Q - M P^{-1} M^T.

    Raises
    ------
    ValueError
        If the problem is not of that kind or the overlaps are singular.

    Notes
    -----
    Constant without the lr^2 term; it drifts with it. Source: ``docs/papers/sgd.md`` section 6.1.

    Examples
    --------
    >>> import numpy as np, overparam as op
    >>> problem = op.sgd.Problem(width=2, teacher_width=1, lr=0.2)
    >>> start = op.sgd.Overlaps(Q=np.eye(2), M=[[0.1], [0.2]], P=[[1.0]])
    >>> later = op.sgd.ode(problem, start, [3.0], noise=False).overlaps(0)
    >>> J0, J3 = op.sgd.conserved(problem, start, 0.0), op.sgd.conserved(problem, later, 3.0)
    >>> bool(np.allclose(J0, J3))
    True
    """
    _fitting(problem, overlaps)
    _canonical(problem, overlaps.P)
    t = _check.real("t", t, minimum=0.0)
    from scipy.linalg import expm

    root = _inverse_root("overlaps", overlaps.P)
    frame = overlaps.M @ root
    rest = _inverse_root("overlaps", overlaps.Q - frame @ frame.T)
    shrink = expm(-4.0 * problem.lr * problem.a[0] * t * (problem.a_star[:, None] * overlaps.P))
    half = rest @ overlaps.M @ shrink
    J: FloatArray = half.T @ half
    return J


def principal_angles(overlaps: Overlaps) -> FloatArray:
    """Return the principal angles between the row spaces of student and teacher.

    Parameters
    ----------
    overlaps : Overlaps
        State of the network.

    Returns
    -------
    (min(p, p*),) array
        Angles in radians, ascending. A direction that a space lacks (units that are linearly
        dependent) counts as orthogonal.

    Raises
    ------
    TypeError
        If the argument is not an Overlaps.

    Notes
    -----
    Under gradient flow with P = rho I, cot(theta_i) grows as exp(4 eta sigma t) for every angle.
    Source: ``docs/papers/sgd.md`` section 6.2.

    Examples
    --------
    >>> import overparam as op
    >>> op.sgd.principal_angles(op.sgd.Overlaps(Q=[[1.0]], M=[[0.5]], P=[[1.0]]))
    array([1.04719755])
    """
    if not isinstance(overlaps, Overlaps):
        raise _check.bad("overlaps", "an overparam.sgd.Overlaps", overlaps, TypeError)
    p, ps = overlaps.M.shape
    student, teacher = _square_root(overlaps.Q)[1], _square_root(overlaps.P)[1]
    left, cosines, _ = np.linalg.svd(student @ overlaps.M @ teacher)
    # Small angles from their sines: the part of each student direction that the teacher lacks.
    count = min(p, ps)
    frame = overlaps.M @ teacher
    rest = student @ (overlaps.Q - frame @ frame.T) @ student
    directions = left[:, :count]
    sines = np.sqrt(np.maximum(np.einsum("ki,kl,li->i", directions, rest, directions), 0.0))
    cosines = np.clip(cosines[:count], 0.0, 1.0)
    sines = np.where(cosines > 0.0, sines, 1.0)
    return np.sort(np.arctan2(sines, cosines))


def selected_rotation(problem: Problem, start: Overlaps) -> FloatArray:
    """Return which zero-loss solution gradient flow selects from a small start.

    Parameters
    ----------
    problem : Problem
        Quadratic, free norms, uniform second layers, p >= p*.
    start : Overlaps
        State at t = 0, with small M, and Q and P of full rank.

    Returns
    -------
    (p, p*) array
        O with orthonormal columns, such that M ends at sqrt(a*/a) O P.

    Raises
    ------
    ValueError
        If the problem or the start is not of that kind.

    Notes
    -----
    O = GS(Q0^{-1/2} M0 V) V^T with the eigenvectors V of P in decreasing order: Gram-Schmidt
    between eigenspaces, the polar factor within one (eigenvalues equal to 1e-9). For P = rho I this
    is the polar factor of Q0^{-1/2} M0, the solution closest to the start. Source:
    ``docs/papers/sgd.md`` sections 6.4-6.6.

    Examples
    --------
    >>> import numpy as np, overparam as op
    >>> problem = op.sgd.Problem(width=2, teacher_width=1, lr=0.1)
    >>> start = op.sgd.Overlaps(Q=np.eye(2), M=[[3e-3], [4e-3]], P=[[1.0]])
    >>> op.sgd.selected_rotation(problem, start)
    array([[0.6],
           [0.8]])
    """
    _fitting(problem, start, "start")
    _learnable(problem, start.P)
    if not _is_uniform(problem.a_star):
        raise _check.bad("teacher_second_layer", "uniform for this function", problem.a_star)
    if problem.width < problem.teacher_width:
        raise _check.bad(
            "width", f"at least teacher_width = {problem.teacher_width}", problem.width
        )
    _inverse_root("start", start.P)
    values, vectors = np.linalg.eigh(start.P)
    values, vectors = values[::-1], vectors[:, ::-1]
    seeds = _inverse_root("start", start.Q) @ start.M @ vectors
    rotation = np.zeros_like(seeds)
    first = 0
    while first < len(values):
        last = first + 1
        while last < len(values) and values[first] - values[last] <= BLOCK_TOLERANCE * values[0]:
            last += 1
        learned = rotation[:, :first]
        block = seeds[:, first:last]
        block = block - learned @ (learned.T @ block)
        block = block - learned @ (learned.T @ block)
        left, singular, right = np.linalg.svd(block, full_matrices=False)
        if singular[-1] <= EQUAL_TOLERANCE * max(np.abs(seeds).max(), 1e-300):
            raise _check.bad("start", "overlaps with M of full column rank", start.M)
        rotation[:, first:last] = left @ right
        first = last
    selected: FloatArray = rotation @ vectors.T
    return selected


# A start drawn at random has Q = q I up to O(sqrt(p/N)); beyond this the formula does not apply.
_ISOTROPY = 0.3


def seed_ratio(problem: Problem, start: Overlaps) -> float:
    """Return how much SGD noise seeds the escape, relative to the random start.

    Parameters
    ----------
    problem : Problem
        Quadratic, free norms, uniform second layers, batch 1, lr > 0.
    start : Overlaps
        Random start: only q0 = tr Q/p and rho = tr P/p* are used.

    Returns
    -------
    float
        Ratio of the variance of M that SGD noise creates to the one that was there at the start,
        both as seen at the escape. It does not vanish as N goes to infinity.

    Raises
    ------
    ValueError
        If the problem is not of that kind; if P is not proportional to the identity, or Q differs
        from a multiple of it by more than 30 % (relative Frobenius norm).

    Notes
    -----
    int 4 eta^2 m8(t) exp(-2 int r) dt / (q0 rho) along the growth of the norms at M = 0. Source:
    ``docs/papers/sgd.md`` section 4.

    Examples
    --------
    >>> import numpy as np, overparam as op
    >>> problem = op.sgd.Problem(width=2, teacher_width=2, lr=0.16)
    >>> start = op.sgd.Overlaps(Q=0.49 * np.eye(2), M=np.zeros((2, 2)), P=np.eye(2))
    >>> round(op.sgd.seed_ratio(problem, start), 6)
    0.315512
    """
    _fitting(problem, start, "start")
    a, eta, sigma_all, b = _canonical(problem, start.P)
    _require(problem, batch=1)
    if not _is_uniform(problem.a_star):
        raise _check.bad("teacher_second_layer", "uniform for this function", problem.a_star)
    p, ps = problem.width, problem.teacher_width
    q0, rho = float(np.trace(start.Q)) / p, float(np.trace(start.P)) / ps
    if not q0 > 0.0 or not rho > 0.0:
        raise _check.bad("start", "overlaps with positive norms", np.diag(start.Q))
    for name, matrix, limit in (("Q", start.Q, _ISOTROPY), ("P", start.P, BLOCK_TOLERANCE)):
        mean = np.trace(matrix) / len(matrix)
        spread = np.linalg.norm(matrix - mean * np.eye(len(matrix))) / np.linalg.norm(
            mean * np.eye(len(matrix))
        )
        if spread > limit:
            raise _check.bad("start", f"overlaps with {name} proportional to the identity", matrix)
    if eta == 0.0:
        return 0.0
    rest = plateau(problem, start.P)
    sigma, delta = float(sigma_all[0]), problem.noise_var
    total, square = float(sigma_all.sum()) + b, float((sigma_all**2).sum())

    def rates(q: float) -> tuple[float, float, float]:
        """Return dq/dt, the growth rate r of M and m8, all at M = 0."""
        s = a * q
        tau, kappa = total - p * s, square + p * s**2
        energy = tau**2 + 2.0 * kappa + delta
        dq = 4.0 * eta * (tau - 2.0 * s) * q + 4.0 * eta**2 * q * (
            energy - 4.0 * tau * s + 8.0 * s**2
        )
        rate = 2.0 * eta * (tau + 2.0 * sigma - 2.0 * s)
        m8 = q * rho * (energy + 4.0 * tau * (sigma - s) + 8.0 * (s**2 + sigma**2 - s * sigma))
        return dq, rate, m8

    from scipy.integrate import solve_ivp

    def slope(_t: float, y: NDArray[Any]) -> list[float]:
        dq, rate, m8 = rates(float(y[0]))
        return [dq, rate, 4.0 * eta**2 * m8 * np.exp(-2.0 * y[1])]

    # Until the norms have settled; from there on the integrand is a pure exponential.
    horizon = 60.0 / (4.0 * eta * max(float(rest.scale), sigma))
    solution = solve_ivp(
        slope, (0.0, horizon), [q0, 0.0, 0.0], method="DOP853", rtol=1e-11, atol=1e-14
    )
    q, exponent, seeded = solution.y[:, -1]
    _, rate, m8 = rates(float(q))
    return float(seeded + 4.0 * eta**2 * m8 * np.exp(-2.0 * exponent) / (2.0 * rate)) / (q0 * rho)


def fluctuations(problem: Problem, start: Overlaps, t: ArrayLike) -> FloatArray:
    """Return the covariance of the overlaps at order 1/N.

    Parameters
    ----------
    problem : Problem
        Quadratic, free norms, fixed second layer, batch 1; `dim` is not used.
    start : Overlaps
        Deterministic state at t = 0.
    t : (T,) array
        Times, non-negative and strictly increasing.

    Returns
    -------
    (T, n, n) array
        Sigma = lim N Cov(M, Q) with n = p p* + p^2: M row-major, then Q row-major.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.
    ConvergenceError
        If the overlaps diverge before the last time.

    Notes
    -----
    Linear noise dSigma/dt = J Sigma + Sigma J^T + C with the covariance C of one step's increments
    (moments up to order 12, by truncated power series). Source: ``docs/papers/sgd.md`` section 9.

    Examples
    --------
    >>> import numpy as np, overparam as op
    >>> problem = op.sgd.Problem(width=1, teacher_width=1, lr=0.1)
    >>> start = op.sgd.Overlaps(Q=[[0.5]], M=[[0.1]], P=[[1.0]])
    >>> op.sgd.fluctuations(problem, start, [0.0, 1.0]).shape
    (2, 2, 2)
    """
    _fitting(problem, start, "start")
    _require(problem, activation="quadratic", spherical=False, second_layer_lr=0.0, batch=1)
    times = _check.times("t", t)
    n = start.M.size + start.Q.size
    _check.memory(8.0 * (2 * len(times) + 20) * n * (n + 1), "the covariances", "width or t")
    state = np.concatenate([start.M.ravel(), start.Q.ravel(), np.zeros(n * n)])
    core = _model(problem, start.P).fluctuation_equations(state, times, 1e-9, 1e-12, 10**7)

    def advance(_done: int, budget: int) -> int:
        before = core.evaluations
        return 0 if core.advance(budget) else max(1, core.evaluations - before)

    def build(status: Status, stats: dict[str, float]) -> _Covariances:
        values = core.values[:, n:].reshape(-1, n, n)
        return _Covariances(
            problem=problem,
            method="linear noise",
            status=status if status is Status.INTERRUPTED else core.status,
            stats=stats,
            origin=make_origin(),
            t=times,
            covariance=_run.padded(values, len(times)),
        )

    sigma = conclude(_run.drive(None, {}, advance, build)).covariance
    return 0.5 * (sigma + sigma.transpose(0, 2, 1))


@record
class _Covariances(Trajectory):
    covariance: FloatArray = array_field("time", "overlap", "overlap_2")
