"""Hessian spectra of quadratic networks: exact on the population, large on samples.

For a network of `overparam.sgd` the Hessian is N times the second derivative of the risk with
respect to the first layer W; its eigenvalues are of order one, and under gradient flow a mode grows
at lr times minus its eigenvalue, per unit t. `population` gives the spectrum from the overlaps
alone, at any N; `empirical` is the Hessian of the loss on n samples as an operator, of which
`density` and `extremes` give spectra without ever forming a matrix; `bulk` is the law of its bulk.
The equations are derived in ``docs/papers/sgd.md`` section 7.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse.linalg import LinearOperator

from overparam import _blas, _check, _core, _run
from overparam._problem import BaseProblem
from overparam.results import (
    ConvergenceError,
    FloatArray,
    Point,
    Spectrum,
    Status,
    array_field,
    conclude,
    distinct_values,
    make_origin,
    record,
)

if TYPE_CHECKING:
    from scipy.sparse import sparray, spmatrix

    Operator: TypeAlias = LinearOperator | NDArray[Any] | sparray | spmatrix

__all__ = [
    "Extremes",
    "SampledSpectrum",
    "Samples",
    "bulk",
    "density",
    "empirical",
    "extremes",
    "population",
    "population_operator",
]

# Eigenvalues of a Gram matrix below this fraction of the largest are zero.
RANK_TOLERANCE = 1e-12
# Eigenvalues that agree to this fraction of the largest are listed as one.
EQUAL_TOLERANCE = 1e-11
# Largest change of the resolvent at which the Dyson equation counts as solved.
DYSON_TOLERANCE = 1e-8
DYSON_ITERATIONS, MEMORY = 300, 6
# It is solved at this distance from the real axis at least.
SHARP = 1e-6
# Nodes of the expectation in the Dyson equation: this many per dimension, less those of negligible
# weight, for an error of 1e-4 (without broadening a few times that where the density is small: the
# integrand is sharp there); in more dimensions quasi-random ones, for one of about 1e-3.
HERMITE_NODES, SOBOL_NODES = {1: 192, 2: 160, 3: 80, 4: 28}, 2**15
NEGLIGIBLE_WEIGHT = 1e-12


_EPS = float(np.finfo(np.float64).eps)

# <u, A v> and <v, A u> of random vectors may differ by this fraction of their typical size.
_SYMMETRY_TOLERANCE = 1e-8

# Couplings below this fraction of the largest one mean that a Krylov space is invariant. Nothing
# depends on its value: what lies beyond such a coupling has a weight of the order of its square.
_BREAKDOWN = 64 * _EPS

# Bytes that the vectors of one group of probes, or of one basis, take unless told otherwise.
_BASIS_BYTES = 2**30

# The interval of the kernel polynomial method: the bounds are good when the residuals of the
# extreme Ritz values are this fraction of the spread; then the interval is wider by the margin.
# Several start vectors: one may have next to nothing of the extreme eigenvector.
_BOUND_RESIDUAL = 0.005
_BOUND_VECTORS = 4
_BOUND_STEPS = 64
_MARGIN = 0.01

# Nodes per Chebyshev moment of the tabulated density: its linear interpolation is good to 1e-3.
_NODES_PER_MOMENT = 8

# Independent random streams below one seed.
_PROBES, _BOUNDS, _START, _REFILL = range(4)


# ---- the population ------------------------------------------------------------------------------


def _quadratic(problem: Any) -> Any:
    """Return a problem of the room sgd with the quadratic activation."""
    if not isinstance(problem, BaseProblem) or problem.room != "sgd":
        raise _check.bad("problem", "an overparam.sgd.Problem", problem, TypeError)
    checked = cast(Any, problem)  # rooms are not imported here
    if checked.activation != "quadratic":
        raise _check.bad("activation", "'quadratic' for Hessians", checked.activation)
    return checked


def _gram(problem: Any, overlaps: Any) -> FloatArray:
    """Return the joint Gram matrix [[Q, M], [M^T, P]]."""
    if not all(hasattr(overlaps, name) for name in ("Q", "M", "P")):
        raise _check.bad("overlaps", "an overparam.sgd.Overlaps", overlaps, TypeError)
    Q, M, P = overlaps.Q, overlaps.M, overlaps.P
    if M.shape != (problem.width, problem.teacher_width):
        raise ValueError(
            f"overlaps must have M of shape {(problem.width, problem.teacher_width)} (width and "
            f"teacher_width of the problem), but it was of shape {M.shape}"
        )
    gram: FloatArray = np.block([[Q, M], [M.T, P]])
    return gram


def _error_mean(problem: Any, gram: FloatArray) -> tuple[FloatArray, float]:
    """Return the diagonal of C and tau, the mean of the error e = z^T C z + b."""
    signs = np.concatenate([-problem.a, problem.a_star])
    return signs, float(signs @ np.diag(gram)) + problem.b


def population(problem: Any, overlaps: Any) -> Spectrum:
    """Return the exact spectrum of N times the Hessian of the population risk.

    Parameters
    ----------
    problem : overparam.sgd.Problem
        Quadratic activation; with `dim` set. With ``spherical=True`` the Hessian is the Riemannian
        one on the product of spheres, which is zero along the p normals.
    overlaps : overparam.sgd.Overlaps
        State of the network.

    Returns
    -------
    Spectrum
        Distinct eigenvalues with integer multiplicities, p N in all.

    Raises
    ------
    TypeError, ValueError
        If the arguments are not as described, or N is below the rank of the overlaps.
    MemoryError
        If the part inside the span of student and teacher is too large: (p r)^2 numbers for rank r.
        `population_operator` has no such limit.

    Notes
    -----
    Orthogonally to the span of all weights every direction is alike, so the cost does not depend on
    N. Source: ``docs/papers/sgd.md`` section 7.

    Examples
    --------
    >>> import numpy as np, overparam as op
    >>> problem = op.sgd.Problem(width=3, teacher_width=2, lr=0.1, dim=10**6)
    >>> s = op.sgd.plateau(problem.replace(lr=0.0)).scale
    >>> plateau = op.sgd.Overlaps(Q=3 * s * np.eye(3), M=np.zeros((3, 2)), P=np.eye(2))
    >>> spectrum = op.hessian.population(problem, plateau)
    >>> spectrum.size, int(spectrum.count_below(-1e-9)), spectrum.eigenvalues[0].round(12)
    (3000000, 6, np.float64(-0.666666666667))
    """
    problem = _quadratic(problem)
    if problem.dim is None:
        raise _check.bad("dim", "set in the problem for this function", None)
    gram = _gram(problem, overlaps)
    signs, tau = _error_mean(problem, gram)
    a, p, dim = problem.a, problem.width, problem.dim
    values, vectors = np.linalg.eigh(gram)
    kept = values > RANK_TOLERANCE * max(float(values[-1]), 1e-300)
    rank = int(kept.sum())
    if rank > dim:
        raise _check.bad("dim", f"at least the rank {rank} of overlaps", dim)
    _check.memory(40.0 * (p * rank) ** 2, "the Hessian in the span of all weights", "width")
    # Rows: weights over sqrt N in an orthonormal basis of their span.
    rows = vectors[:, kept] * np.sqrt(values[kept])
    outside = 4.0 * np.outer(a, a) * gram[:p, :p] - 2.0 * tau * np.diag(a)
    D = rows.T @ (signs[:, None] * rows)
    student = rows[:p]
    pairs = 4.0 * np.outer(a, a)
    inside = np.einsum("kl,ij->kilj", pairs * gram[:p, :p], np.eye(rank))
    inside += np.einsum("kl,ki,lj->kilj", pairs, student, student)
    inside += np.einsum("kl,li,kj->kilj", pairs, student, student)
    inside -= np.einsum("kl,ij->kilj", np.diag(2.0 * a), tau * np.eye(rank) + 2.0 * D)
    matrix = inside.reshape(p * rank, p * rank)
    if problem.spherical:
        lengths = np.einsum("ki,ki->k", student, student)
        if (lengths <= 0.0).any():
            raise _check.bad("overlaps", "of units with positive norms (spherical)", lengths)
        gradient = -2.0 * a[:, None] * (tau * student + 2.0 * student @ D)
        pull = np.einsum("ki,ki->k", student, gradient) / lengths
        outside = outside - np.diag(pull)
        matrix = matrix - np.diag(np.repeat(pull, rank))
        unit = student / np.sqrt(lengths)[:, None]
        tangent = np.zeros((p, rank, p, rank))
        tangent[np.arange(p), :, np.arange(p), :] = np.eye(rank) - np.einsum(
            "ki,kj->kij", unit, unit
        )
        projection = tangent.reshape(p * rank, p * rank)
        matrix = projection @ matrix @ projection
    eigenvalues = [np.linalg.eigvalsh(matrix)]
    counts = [np.ones(p * rank, dtype=np.int64)]
    if dim > rank:
        eigenvalues.append(np.linalg.eigvalsh(outside))
        counts.append(np.full(p, dim - rank, dtype=np.int64))
    distinct, multiplicities = distinct_values(
        np.concatenate(eigenvalues), np.concatenate(counts), EQUAL_TOLERANCE
    )
    return Spectrum(
        problem=problem,
        method="exact",
        status=Status.SUCCESS,
        origin=make_origin(),
        eigenvalues=distinct,
        multiplicities=multiplicities,
    )


def population_operator(problem: Any, W: ArrayLike, W_star: ArrayLike) -> LinearOperator:
    """Return N times the Hessian of the population risk as an operator on W.ravel().

    Parameters
    ----------
    problem : overparam.sgd.Problem
        Quadratic activation, free norms.
    W : (p, N) array
        First layer of the student.
    W_star : (p*, N) array
        First layer of the teacher.

    Returns
    -------
    scipy.sparse.linalg.LinearOperator
        Of shape (p N, p N), symmetric.

    Raises
    ------
    TypeError, ValueError
        If the arguments are not as described.

    Notes
    -----
    A product costs O(p N (p + p*)). Source: ``docs/papers/sgd.md`` section 7.

    Examples
    --------
    >>> import numpy as np, overparam as op
    >>> problem = op.sgd.Problem(width=2, teacher_width=1, lr=0.1)
    >>> rng = np.random.default_rng(0)
    >>> W, W_star = rng.standard_normal((2, 30)), rng.standard_normal((1, 30))
    >>> operator = op.hessian.population_operator(problem, W, W_star)
    >>> dense = operator @ np.eye(60)
    >>> exact = op.hessian.population(
    ...     problem.replace(dim=30), op.sgd.Overlaps.from_weights(W, W_star)
    ... )
    >>> bool(abs(np.linalg.eigvalsh(dense)[0] - exact.eigenvalues[0]) < 1e-12)
    True
    """
    problem = _quadratic(problem)
    if problem.spherical:
        raise _check.bad("spherical", "False for this function", True)
    student = _check.matrix("W", W, (problem.width, None))
    dim = student.shape[1]
    if not dim:
        raise _check.bad("W", "of at least one column", student)
    teacher = _check.matrix("W_star", W_star, (problem.teacher_width, dim))
    a, a_star = problem.a, problem.a_star
    unit = 1.0 / np.sqrt(dim)
    rows, taught = unit * student, unit * teacher
    gram = rows @ rows.T
    tau = float(a_star @ np.sum(taught**2, axis=1) - a @ np.diag(gram)) + problem.b
    pairs = 4.0 * np.outer(a, a) * gram

    def product(vectors: FloatArray) -> FloatArray:
        count = vectors.shape[1]
        V = vectors.T.reshape(count, len(a), dim)
        fields, seen = V @ rows.T, V @ taught.T  # (count, unit, other)
        curved = (seen * a_star) @ taught - (fields * a) @ rows
        out = -2.0 * a[:, None] * (tau * V + 2.0 * curved)
        out += pairs @ V
        # w_k (sum_l a_l w_l . v_l), and sum_l a_l w_l (w_k . v_l).
        own = np.einsum("bll,l->b", fields, a)
        out += 4.0 * own[:, None, None] * (a[:, None] * rows)
        out += 4.0 * a[:, None] * ((fields.transpose(0, 2, 1) * a) @ rows)
        flat: FloatArray = out.reshape(count, -1).T
        return flat

    return _Symmetric(len(a) * dim, product)


class _Symmetric(LinearOperator):  # type: ignore[misc]  # SciPy has no types
    """A real symmetric operator given by its product with (size, count) blocks."""

    def __init__(self, size: int, product: Callable[[FloatArray], FloatArray]) -> None:
        super().__init__(np.dtype(np.float64), (size, size))
        self._product = product

    def _matmat(self, X: ArrayLike) -> FloatArray:
        block = np.asarray(X, dtype=np.float64)
        return np.asarray(self._product(block))

    def _matvec(self, x: ArrayLike) -> FloatArray:
        vector = np.asarray(x, dtype=np.float64).reshape(-1, 1)
        return self._matmat(vector)[:, 0]

    def _adjoint(self) -> _Symmetric:
        return self


# ---- samples -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """Samples that are drawn again whenever they are used, so that they take no memory.

    Sample i is a function of the seed and i: inputs N(0, 1), labels of the teacher with noise.

    Parameters
    ----------
    count : int
        Number n of samples.
    W_star : (p*, N) array
        First layer of the teacher.
    seed : int, SeedSequence or None
        None draws fresh entropy.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Examples
    --------
    >>> import numpy as np, overparam as op
    >>> samples = op.hessian.Samples(count=1000, W_star=np.ones((1, 20)), seed=3)
    >>> samples.inputs(0, 2).shape
    (2, 20)
    """

    count: int
    W_star: FloatArray
    seed: Any = 0

    def __post_init__(self) -> None:
        W_star = _check.matrix("W_star", self.W_star, (None, None))
        W_star.setflags(write=False)
        sequence = _check.seed_sequence(self.seed)
        for name, value in (
            ("count", _check.integer("count", self.count, minimum=1)),
            ("W_star", W_star),
            ("seed", sequence),
        ):
            object.__setattr__(self, name, value)

    def inputs(self, first: int, count: int) -> FloatArray:
        """Return the inputs of samples `first` to `first + count`, (count, N)."""
        first = _check.integer("first", first, minimum=0)
        count = _check.integer("count", count, minimum=0)
        if first + count > self.count:
            raise _check.bad("count", f"at most {self.count - first}, the samples left", count)
        word = _check.seed_word(self.seed)
        dim = self.W_star.shape[1]
        rows = [_core.normals(word, dim, step=i)[:dim] for i in range(first, first + count)]
        return np.array(rows).reshape(count, dim)


def empirical(
    problem: Any,
    W: ArrayLike,
    X: ArrayLike | Samples,
    y: ArrayLike | None = None,
    *,
    threads: int | None = None,
) -> LinearOperator:
    """Return the Hessian of the loss on samples as an operator on W.ravel().

    Parameters
    ----------
    problem : overparam.sgd.Problem
        Quadratic activation, free norms. Its `noise_var` is the label noise of `Samples`.
    W : (p, N) array
        First layer of the student.
    X : (n, N) array, or Samples
        Inputs in memory, or drawn again at each product.
    y : (n,) array, optional
        Labels of the inputs, of the teacher without offset; none for `Samples`.
    threads : int, optional
        Default: the environment variable OVERPARAM_NUM_THREADS, else OpenMP's. No bit of a product
        depends on it.

    Returns
    -------
    scipy.sparse.linalg.LinearOperator
        (N/n) sum_mu d^2(e_mu^2/2)/dW^2, of shape (p N, p N), symmetric; `matmat` takes blocks.

    Raises
    ------
    TypeError, ValueError
        If the arguments are not as described.

    Notes
    -----
    Two matrix products with the inputs, 4 n p N operations for each vector. Source:
    ``docs/papers/sgd.md`` section 7.1.

    Examples
    --------
    >>> import numpy as np, overparam as op
    >>> rng = np.random.default_rng(0)
    >>> W, W_star, X = (rng.standard_normal((k, 50)) for k in (2, 1, 400))
    >>> y = ((X @ W_star.T) ** 2 / 50).sum(axis=1)
    >>> problem = op.sgd.Problem(width=2, teacher_width=1, lr=0.1)
    >>> operator = op.hessian.empirical(problem, W, X, y)
    >>> operator.shape, (operator @ np.ones((100, 3))).shape
    ((100, 100), (100, 3))
    """
    problem = _quadratic(problem)
    if problem.spherical:
        raise _check.bad("spherical", "False for this function", True)
    student = _check.matrix("W", W, (problem.width, None))
    p, dim = student.shape
    if not dim:
        raise _check.bad("W", "of at least one column", student)
    workers = _check.threads(threads)
    if isinstance(X, Samples):
        if y is not None:
            raise _check.bad("y", "None for Samples, which have labels of their own", y)
        teacher = _check.matrix("W_star", X.W_star, (problem.teacher_width, dim))
        noise = float(np.sqrt(problem.noise_var))
        word = _check.seed_word(X.seed)
        curvature = _core.QuadraticCurvature.drawn(
            student, problem.a, problem.b, X.count, word, teacher, problem.a_star, noise
        )
    else:
        inputs = _check.matrix("X", X, (None, dim))
        if not len(inputs):
            raise _check.bad("X", "at least one sample", inputs)
        labels = _check.vector("y", y, len(inputs))
        with _blas.one_thread():
            curvature = _core.QuadraticCurvature.given(
                student, problem.a, problem.b, inputs, labels
            )

    return _Empirical(curvature, p * dim, workers)


class _Empirical(_Symmetric):
    """The Hessian on samples; its products use several threads."""

    def __init__(self, curvature: _core.QuadraticCurvature, size: int, threads: int) -> None:
        self._curvature = curvature

        def product(vectors: FloatArray) -> FloatArray:
            with _blas.one_thread():
                flat: FloatArray = curvature.apply(np.ascontiguousarray(vectors.T), threads).T
            return flat

        super().__init__(size, product)

    def with_threads(self, threads: int) -> _Empirical:
        """Return the same operator on another number of threads."""
        return _Empirical(self._curvature, self.shape[0], threads)


# ---- the law of the bulk -------------------------------------------------------------------------


def bulk(
    problem: Any,
    overlaps: Any,
    samples_per_dim: float,
    x: ArrayLike,
    *,
    width: float = 0.0,
) -> FloatArray:
    """Return the density of the bulk of the empirical Hessian as N -> inf at fixed n/N.

    Parameters
    ----------
    problem : overparam.sgd.Problem
        Quadratic activation, free norms; label noise counts.
    overlaps : overparam.sgd.Overlaps
        State of the network, independent of the samples.
    samples_per_dim : float
        n/N, positive.
    x : (k,) array
        Positions.
    width : float
        Half-width of the Lorentzian with which the density is broadened, >= 0.

    Returns
    -------
    (k,) array
        Per eigenvalue; integrates to one. Accurate to 1e-4 where the fields of student, teacher and
        label noise span at most three dimensions. Beyond, the quadrature samples them: about 3e-4
        of the largest density where it is broadened by a tenth of the bulk, 3e-3 where it is sharp.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.
    ConvergenceError
        If the equation could not be solved; its ``result`` has the values that were found.

    Notes
    -----
    The p x p resolvent solves the matrix Dyson equation
    g = (E[T (1 + g T N/n)^-1] - z)^-1 with T = 4 (a lambda)(a lambda)^T - 2 e diag(a). Source:
    ``docs/papers/sgd.md`` section 7.1.

    Examples
    --------
    >>> import numpy as np, overparam as op
    >>> problem = op.sgd.Problem(width=2, teacher_width=1, lr=0.1)
    >>> start = op.sgd.Overlaps(Q=np.eye(2), M=[[0.3], [0.1]], P=[[1.0]])
    >>> op.hessian.bulk(problem, start, 6.0, [0.0, 1.0], width=0.1).shape
    (2,)
    """
    problem = _quadratic(problem)
    if problem.spherical:
        raise _check.bad("spherical", "False for this function", True)
    gram = _gram(problem, overlaps)
    ratio = _check.real("samples_per_dim", samples_per_dim, minimum=0.0, strict_minimum=True)
    positions = _check.vector("x", x)
    width = _check.real("width", width, minimum=0.0)
    equation = _Dyson(problem, gram, ratio)
    found = np.full(len(positions), np.nan)
    for i, position in enumerate(positions):
        found[i] = equation.density(float(position), width)
    if np.isnan(found).any():
        conclude(
            Spectrum(
                problem=problem,
                method="matrix Dyson equation",
                status=Status.NOT_CONVERGED,
                origin=make_origin(),
                grid=np.sort(positions),
                values=found[np.argsort(positions)],
            )
        )
    return found


def _gaussian_nodes(dimension: int) -> tuple[FloatArray, FloatArray]:
    """Return nodes (count, dimension) and weights of the standard normal law."""
    if dimension in HERMITE_NODES:
        from numpy.polynomial.hermite_e import hermegauss

        x, w = hermegauss(HERMITE_NODES[dimension])
        w = w / w.sum()
        grids = np.meshgrid(*[x] * dimension, indexing="ij")
        weights = np.prod(np.meshgrid(*[w] * dimension, indexing="ij"), axis=0).ravel()
        kept = weights > NEGLIGIBLE_WEIGHT
        return np.stack([grid.ravel()[kept] for grid in grids], axis=1), weights[kept]
    from scipy.stats import norm, qmc

    uniform = qmc.Sobol(dimension, seed=0).random(SOBOL_NODES)
    nodes = norm.ppf(np.clip(uniform, 1e-12, 1.0 - 1e-12))
    # With the first two moments of the normal law the mean of the Hessian is exact.
    nodes -= nodes.mean(axis=0)
    factor = np.linalg.cholesky(nodes.T @ nodes / SOBOL_NODES)
    return np.linalg.solve(factor, nodes.T).T, np.full(SOBOL_NODES, 1.0 / SOBOL_NODES)


class _Dyson:
    """The matrix Dyson equation of the bulk (section 7.1)."""

    def __init__(self, problem: Any, gram: FloatArray, ratio: float) -> None:
        p = problem.width
        values, vectors = np.linalg.eigh(gram)
        kept = values > RANK_TOLERANCE * max(float(values[-1]), 1e-300)
        root = vectors[:, kept] * np.sqrt(values[kept])
        noisy = problem.noise_var > 0.0
        nodes, self._weights = _gaussian_nodes(root.shape[1] + noisy)
        fields = nodes[:, : root.shape[1]] @ root.T
        signs = np.concatenate([-problem.a, problem.a_star])
        self._error = np.square(fields) @ signs + problem.b
        if noisy:
            self._error = self._error + np.sqrt(problem.noise_var) * nodes[:, -1]
        self._arrows = 2.0 * fields[:, :p] * problem.a
        self._a, self._ratio = problem.a, ratio

    def _mean(self, g: NDArray[np.complex128]) -> NDArray[np.complex128]:
        """Return E[T (1 + g T/ratio)^-1], T = v v^T - 2 e diag(a), by Woodbury's identity.

        With A g/ratio = R diag(l) R^-1 all samples share the eigenvectors R.
        """
        scaled = g / self._ratio
        levels, R = np.linalg.eig(self._a[:, None] * scaled)
        inverse = np.linalg.inv(R)
        shrink = 1.0 / (1.0 - 2.0 * self._error[:, None] * levels)
        plain = (R * (self._weights * -2.0 * self._error @ shrink)) @ inverse * self._a
        turned = (self._arrows @ inverse.T) * shrink @ R.T  # P v
        length = np.einsum("ik,ik->i", self._arrows @ scaled, turned)
        weighted = turned * (self._weights / (1.0 + length))[:, None]
        return np.asarray(plain + weighted.T @ turned)

    def density(self, x: float, width: float) -> float:
        """Return the density."""
        p = len(self._a)
        g = self._solve(x + 1j * max(width, SHARP), 1j * np.eye(p, dtype=np.complex128))
        return float(np.trace(g).imag / (np.pi * p))

    def _solve(self, z: complex, g: NDArray[np.complex128]) -> NDArray[np.complex128]:
        """Iterate g -> (E[...] - z)^-1 with Anderson's mixing; NaN if it does not converge."""
        p = len(self._a)
        points: list[NDArray[np.complex128]] = []
        steps: list[NDArray[np.complex128]] = []
        for _ in range(DYSON_ITERATIONS):
            step = (np.linalg.inv(self._mean(g) - z * np.eye(p)) - g).ravel()
            if np.abs(step).max() <= DYSON_TOLERANCE * np.abs(g).max():
                return g + step.reshape(p, p)
            points.append(g.ravel())
            steps.append(step)
            points, steps = points[-MEMORY:], steps[-MEMORY:]
            new = points[-1] + 0.5 * step
            if len(steps) > 1:
                change = np.stack([step - other for other in steps[:-1]], axis=1)
                weights = np.linalg.lstsq(change, step, rcond=1e-10)[0]
                moved = np.stack([points[-1] - other for other in points[:-1]], axis=1)
                new = points[-1] + step - (moved + change) @ weights
            # The map keeps g symmetric, with a positive imaginary part; among such matrices its
            # fixed point is unique and attracts from everywhere (Earle and Hamilton).
            candidate = new.reshape(p, p)
            if not np.linalg.eigvalsh(candidate.imag)[0] > 0.0:
                candidate = g + 0.5 * step.reshape(p, p)
                points, steps = [], []
            g = candidate
        return np.full_like(g, complex(np.nan, np.nan))


# ---- results -------------------------------------------------------------------------------------


@record
class SampledSpectrum(Spectrum):
    """A spectrum that was estimated with random probe vectors: the average of one measure each.

    Attributes
    ----------
    probe_index : (k,) array of int, or None
        For stochastic Lanczos quadrature: the probe that each of the nodes belongs to.
    chebyshev : (probes, orders) array, or None
        For the kernel polynomial method: the moments <v, T_n(B) v> of each probe v, where B is
        the operator, shifted and scaled so that `interval` becomes [-1, 1]. They are not damped.
    interval : (2,) array or None
        For the kernel polynomial method: the interval that holds the spectrum.

    Notes
    -----
    Nodes and weights of the kernel polynomial method are those of the damped measure, with the
    curve in `grid` and `values`; its `moments` are the undamped ones. Standard errors are those of
    the mean over probes (ddof=1), NaN for one probe; the probes are few, so that intervals should
    be taken from Student's t with ``probes - 1`` degrees of freedom.

    Examples
    --------
    >>> import numpy as np, overparam as op
    >>> spectrum = op.hessian.density(np.diag(np.arange(100.0)), probes=8, steps=20)
    >>> spectrum.probes, len(spectrum.nodes)
    (8, 160)
    >>> abs(spectrum.moments(1) - 49.5) < 4 * spectrum.moments_sem(1)
    True
    """

    probe_index: NDArray[np.int64] | None = array_field(
        "node", sampled=False, dtype=np.int64, default=None
    )
    chebyshev: FloatArray | None = array_field("probe", "order", sampled=False, default=None)
    interval: FloatArray | None = array_field("end", sampled=False, default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.probe_index is None) == (self.chebyshev is None):
            raise ValueError("one of probe_index and chebyshev must be given, and not both")
        if (self.chebyshev is None) != (self.interval is None):
            raise ValueError("chebyshev and interval must be given together, but one was None")

    @property
    def probes(self) -> int:
        """Number of probes.

        Examples
        --------
        >>> import numpy as np, overparam as op
        >>> op.hessian.density(np.eye(10), probes=3).probes
        3
        """
        if self.chebyshev is not None:
            return len(self.chebyshev)
        return len(np.unique(cast(NDArray[np.int64], self.probe_index)))

    def per_probe(self) -> tuple[SampledSpectrum, ...]:
        """Return the measure of each probe.

        They are independent and identically distributed, and their mean is unbiased (of the
        kernel polynomial method, for the damped measure). So the standard error of any average
        over the spectrum is that of its values here.

        Returns
        -------
        tuple of SampledSpectrum
            Each with one probe.

        Examples
        --------
        >>> import numpy as np, overparam as op
        >>> spectrum = op.hessian.density(np.diag(np.arange(1.0, 101.0)), steps=20)
        >>> traces = [np.log(one.nodes) @ one.weights for one in spectrum.per_probe()]
        >>> error = np.std(traces, ddof=1) / np.sqrt(len(traces))
        >>> bool(abs(np.mean(traces) - np.log(np.arange(1.0, 101.0)).mean()) < 4 * error)
        True
        """
        changes: list[dict[str, Any]]
        if self.chebyshev is not None:
            interval = cast(FloatArray, self.interval)
            changes = [_damped(row[np.newaxis], interval) for row in self.chebyshev]
        else:
            nodes, weights = self._points()
            index = cast(NDArray[np.int64], self.probe_index)
            changes = [
                {
                    "nodes": nodes[own],
                    "weights": weights[own] / weights[own].sum(),
                    "probe_index": index[own],
                }
                for own in (index == probe for probe in np.unique(index))
            ]
        return tuple(dataclasses.replace(cast(Any, self), **change) for change in changes)

    def moments(self, k: int) -> float:
        """Return the mean of the k-th power of the eigenvalues.

        Parameters
        ----------
        k : int
            At least 0. Up to twice the number of steps (less one for Lanczos quadrature) nothing
            but the choice of probes makes an error.

        Returns
        -------
        float

        Raises
        ------
        ValueError
            If the kernel polynomial method has fewer moments.

        Examples
        --------
        >>> import numpy as np, overparam as op
        >>> op.hessian.density(2 * np.eye(10), method="kpm", steps=5).moments(3)
        8.0
        """
        if self.chebyshev is None:
            return super().moments(k)
        k = _check.integer("k", k, minimum=0)
        orders = self.chebyshev.shape[1]
        if k >= orders:
            raise _check.bad("k", f"at most {orders - 1}, twice the number of steps", k)
        # Gauss-Chebyshev quadrature with more than k nodes: exact for these powers.
        coefficients = self.chebyshev[:, : k + 1].mean(axis=0)
        nodes, weights = _gauss_chebyshev(coefficients, cast(FloatArray, self.interval))
        return float(nodes**k @ weights)

    def density_sem(self, x: ArrayLike, width: float = 0.0) -> FloatArray:
        """Return the standard error of `density` over probes.

        Parameters
        ----------
        x : array_like
            Positions.
        width : float
            As for `density`.

        Returns
        -------
        array like `x`

        Raises
        ------
        ValueError
            As for `density`.

        Examples
        --------
        >>> import numpy as np, overparam as op
        >>> spectrum = op.hessian.density(np.diag(np.arange(100.0)), steps=30)
        >>> bool(spectrum.density_sem(50.0, width=10.0) < 0.2 * spectrum.density(50.0, width=10.0))
        True
        """
        return self._sem(lambda one: one.density(x, width))

    def moments_sem(self, k: int) -> float:
        """Return the standard error of `moments` over probes.

        Parameters
        ----------
        k : int
            At least 0.

        Returns
        -------
        float

        Raises
        ------
        ValueError
            As for `moments`.

        Examples
        --------
        >>> import numpy as np, overparam as op
        >>> op.hessian.density(np.eye(10)).moments_sem(0) < 1e-12
        True
        """
        return float(self._sem(lambda one: one.moments(k)))

    def count_below_sem(self, x: ArrayLike) -> Any:
        """Return the standard error of `count_below` over probes.

        Parameters
        ----------
        x : array_like
            Positions.

        Returns
        -------
        float, or array like `x`

        Examples
        --------
        >>> import numpy as np, overparam as op
        >>> spectrum = op.hessian.density(np.diag(np.repeat([-1.0, 0.5, 2.0], [10, 50, 40])))
        >>> abs(spectrum.count_below(0.0) - 10) < 4 * spectrum.count_below_sem(0.0)
        True
        """
        errors = self._sem(lambda one: one.count_below(x))
        return errors if errors.ndim else errors.item()

    def _sem(self, statistic: Callable[[SampledSpectrum], Any]) -> FloatArray:
        values = np.stack([np.asarray(statistic(one)) for one in self.per_probe()])
        if len(values) < 2:
            return np.full(values.shape[1:], np.nan)
        return np.asarray(values.std(axis=0, ddof=1) / np.sqrt(len(values)))


@record
class Extremes(Point):
    """Eigenvalues at the ends of a spectrum, with eigenvectors.

    Attributes
    ----------
    eigenvalues : (count,) array
        In ascending order, each as often as its multiplicity.
    vectors : (dimension, count) array
        Orthonormal eigenvectors in the columns.
    residuals : (count,) array
        Norms of A v - lambda v, from a product with v at the end (for a computation that was
        interrupted: from the recurrence). An eigenvalue of A is at most this far away.
    converged : (count,) array of bool
        Whether the residual is at most `tol` times the norm of A.

    Examples
    --------
    >>> import numpy as np, overparam as op
    >>> pairs = op.hessian.extremes(np.diag(np.arange(200.0)), k=2)
    >>> np.round(pairs.eigenvalues, 6) + 0.0
    array([  0.,   1., 198., 199.])
    >>> pairs.vectors.shape, bool(pairs.converged.all())
    ((200, 4), True)
    """

    eigenvalues: FloatArray = array_field("pair", sampled=False)
    vectors: FloatArray = array_field("coordinate", "pair", sampled=False)
    residuals: FloatArray = array_field("pair", sampled=False)
    converged: NDArray[np.bool_] = array_field("pair", sampled=False, dtype=np.bool_)


# ---- operators -----------------------------------------------------------------------------------


class _Products:
    """Products of a symmetric operator with blocks of vectors, which are rows here; counts them."""

    def __init__(self, operator: Operator, threads: int | None = None) -> None:
        from scipy.sparse.linalg import aslinearoperator

        given: Any = operator
        if threads is not None:
            threads = _check.threads(threads)
            if not hasattr(given, "with_threads"):
                must = "None for an operator that has no method `with_threads`"
                raise _check.bad("threads", must, threads)
            given = given.with_threads(threads)
        try:
            linear = aslinearoperator(given)
        except (TypeError, ValueError) as error:
            must = "a SciPy LinearOperator or a matrix"
            raise _check.bad("operator", must, operator, type(error)) from None
        rows, columns = linear.shape
        if rows != columns or rows < 1:
            raise ValueError(
                f"operator must be square with at least one row, but was of shape {linear.shape}"
            )
        if linear.dtype is not None and np.dtype(linear.dtype).kind not in "biuf":
            raise ValueError(f"operator must be real, but was of type {linear.dtype}")
        self._matmat = linear.matmat
        self.dimension = int(rows)
        self.count = 0
        self._check_symmetry()

    def __call__(self, vectors: FloatArray) -> FloatArray:
        """Return the products with the rows of `vectors`, as rows of a new array."""
        found = np.asarray(self._matmat(vectors.T))
        self.count += len(vectors)
        if found.dtype.kind not in "biuf":
            raise ValueError(f"operator must be real, but its products were of type {found.dtype}")
        products: FloatArray = np.array(found.T, dtype=np.float64, order="C")
        if not np.isfinite(products).all():
            raise ValueError(
                "operator must have finite products with finite vectors, "
                "but one had entries that are infinite or NaN"
            )
        return products

    def _check_symmetry(self) -> None:
        vectors = np.random.default_rng(0).standard_normal((2, self.dimension))
        products = self(vectors)
        gram = vectors @ products.T
        # A component of A v against a normal vector is typically of the size of A v.
        scale = np.linalg.norm(products, axis=1).max()
        difference = abs(gram[0, 1] - gram[1, 0])
        if difference > _SYMMETRY_TOLERANCE * scale:
            raise ValueError(
                f"operator must be symmetric to {_SYMMETRY_TOLERANCE:g}, but <u, A v> and "
                f"<v, A u> of random vectors differ by {difference / scale:.3g} of their size"
            )


def _generator(sequence: np.random.SeedSequence, *key: int) -> np.random.Generator:
    """Return the generator of a stream of its own below a seed."""
    child = np.random.SeedSequence(
        sequence.entropy, spawn_key=(*sequence.spawn_key, *key), pool_size=sequence.pool_size
    )
    return np.random.default_rng(child)


def _unit_vectors(sequence: np.random.SeedSequence, purpose: int, indices: range, n: int) -> Any:
    """Return vectors of uniform directions, (len(indices), n), each of a stream of its own."""
    vectors = np.empty((len(indices), n))
    for vector, index in zip(vectors, indices, strict=True):
        _generator(sequence, purpose, index).standard_normal(out=vector)
        vector /= np.linalg.norm(vector)
    return vectors


# ---- density -------------------------------------------------------------------------------------


class _Lanczos:
    """Lanczos recurrences of several vectors, each for itself, with products in one block.

    Every new vector is orthogonalised twice against all its predecessors. A recurrence ends when
    its Krylov space is invariant: its measure is then complete.
    """

    def __init__(self, products: _Products, starts: FloatArray, steps: int) -> None:
        self._products = products
        self._basis = np.empty((len(starts), steps, starts.shape[1]))
        self._basis[:, 0] = starts
        self._active = np.arange(len(starts))
        self._diagonal = np.zeros((len(starts), steps))
        self._coupling = np.zeros((len(starts), steps))  # of a vector to the next one
        self.taken = np.zeros(len(starts), dtype=np.int64)
        self.breakdowns = 0

    @property
    def ended(self) -> bool:
        return len(self._active) == 0

    def step(self) -> None:
        j = int(self.taken.max())
        going = []
        block = self._products(self._basis[self._active, j])
        for r, vector in zip(self._active, block, strict=True):
            basis = self._basis[r, : j + 1]
            if j:
                vector -= self._coupling[r, j - 1] * basis[-2]
            diagonal = basis[-1] @ vector
            vector -= diagonal * basis[-1]
            for _ in range(2):
                overlaps = basis @ vector
                vector -= overlaps @ basis
                diagonal += overlaps[-1]
            self._diagonal[r, j] = diagonal
            self.taken[r] = j + 1
            norm = np.linalg.norm(vector)
            size = max(np.abs(self._diagonal[r]).max(), self._coupling[r].max())
            if norm <= _BREAKDOWN * size:
                self.breakdowns += 1
                continue
            self._coupling[r, j] = norm
            if j + 1 < self._basis.shape[1]:
                np.divide(vector, norm, out=self._basis[r, j + 1])
                going.append(r)
        self._active = np.array(going, dtype=np.int64)

    def measure(self, r: int) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return Ritz values of vector r, their weights, and their residuals."""
        taken = self.taken[r]
        off = self._coupling[r, : taken - 1]
        tridiagonal = np.diag(self._diagonal[r, :taken]) + np.diag(off, -1)
        nodes, vectors = np.linalg.eigh(tridiagonal)  # reads the lower triangle
        weights = vectors[0] ** 2
        return nodes, weights / weights.sum(), self._coupling[r, taken - 1] * abs(vectors[-1])


class _Quadrature:
    """Stochastic Lanczos quadrature, group after group of probes."""

    def __init__(
        self,
        products: _Products,
        sequence: np.random.SeedSequence,
        probes: int,
        steps: int,
        block: int | None,
    ) -> None:
        n = products.dimension
        self._products, self._sequence, self._probes = products, sequence, probes
        self._steps = min(steps, n)
        self._block = min(block or max(_BASIS_BYTES // (8 * n * self._steps), 1), probes)
        _check.memory(
            8.0 * n * self._block * (self._steps + 4),
            "the Lanczos vectors",
            "steps or block",
        )
        self._measures: list[tuple[FloatArray, FloatArray]] = []
        self._breakdowns = 0
        self._begin()
        self.stats: dict[str, float | int | str] = {"block": self._block}
        if self._steps < steps:
            self.stats["clamped"] = f"steps from {steps} to the dimension {n}"

    def _begin(self) -> None:
        first = len(self._measures)
        group = range(first, min(first + self._block, self._probes))
        starts = _unit_vectors(self._sequence, _PROBES, group, self._products.dimension)
        self._lanczos = _Lanczos(self._products, starts, self._steps)

    def _current(self) -> list[tuple[FloatArray, FloatArray]]:
        lanczos = self._lanczos
        return [lanczos.measure(r)[:2] for r in lanczos.taken.nonzero()[0].tolist()]

    def advance(self, _: int, budget: int) -> int:
        for count in range(budget):
            if len(self._measures) == self._probes:
                return count
            self._lanczos.step()
            if self._lanczos.ended:
                self._measures += self._current()
                self._breakdowns += self._lanczos.breakdowns
                if len(self._measures) < self._probes:
                    self._begin()
        return budget

    def fraction(self) -> float:
        left = self._probes - len(self._measures)
        taken = int(self._lanczos.taken.max()) / self._steps if left else 0.0
        return (len(self._measures) + min(self._block, left) * taken) / self._probes

    def fields(self) -> dict[str, Any]:
        measures = self._measures
        if len(measures) < self._probes:  # interrupted
            measures = measures + self._current() or [(np.array([np.nan]), np.ones(1))]
        self.stats |= {"steps": self._steps, "breakdowns": self._breakdowns}
        return {
            "nodes": np.concatenate([nodes for nodes, _ in measures]),
            "weights": np.concatenate([weights for _, weights in measures]) / len(measures),
            "probe_index": np.repeat(np.arange(len(measures)), [len(m[0]) for m in measures]),
        }


class _Kernel:
    """The kernel polynomial method: bounds of the spectrum first, then Chebyshev moments."""

    def __init__(
        self,
        products: _Products,
        sequence: np.random.SeedSequence,
        probes: int,
        steps: int,
        block: int | None,
    ) -> None:
        n = products.dimension
        self._products, self._sequence = products, sequence
        self._probes, self._steps = probes, steps
        self._block = min(block or max(_BASIS_BYTES // (8 * n * 4), 1), probes)
        bound_steps = min(_BOUND_STEPS, n)
        vectors = min(max(_BASIS_BYTES // (8 * n * bound_steps), 2), _BOUND_VECTORS)
        _check.memory(
            8.0 * n * max(4 * self._block, vectors * (bound_steps + 4)),
            "the vectors of the kernel polynomial method",
            "block",
        )
        starts = _unit_vectors(sequence, _BOUNDS, range(vectors), n)
        self._lanczos: _Lanczos | None = _Lanczos(products, starts, bound_steps)
        self._interval = np.full(2, np.nan)
        self._moments = np.full((probes, 2 * steps + 1), np.nan)
        self._first = 0  # probe of the group at work
        self._done = 0  # its steps
        self._start = self._before = products.count  # before and after the bounds
        self.diverged = False
        self.stats: dict[str, float | int | str] = {"block": self._block, "steps": steps}

    def advance(self, _: int, budget: int) -> int:
        for count in range(budget):
            if self._lanczos is not None:
                self._bound(self._lanczos)
            elif self._first == self._probes or self.diverged:
                return count
            else:
                self._step()
        return budget

    def _bound(self, lanczos: _Lanczos) -> None:
        lanczos.step()
        measures = [lanczos.measure(r) for r in range(len(lanczos.taken))]
        ends = np.array([nodes[[0, -1]] for nodes, _, _ in measures])
        residuals = np.array([residuals[[0, -1]] for _, _, residuals in measures])
        low, high = ends[:, 0].min(), ends[:, 1].max()
        if lanczos.ended or residuals.max() <= _BOUND_RESIDUAL * (high - low):
            margin = _MARGIN * ((high - low) or abs(low) or 1.0)
            outside = residuals.max(axis=0) + margin
            self._interval = np.array([low - outside[0], high + outside[1]])
            self._lanczos = None
            self._before = self._products.count

    def _step(self) -> None:
        group = slice(self._first, min(self._first + self._block, self._probes))
        moments, k = self._moments[group], self._done
        centre, half = self._interval.mean(), np.diff(self._interval)[0] / 2
        if k == 0:
            indices = range(group.start, group.stop)
            n = self._products.dimension
            self._now = _unit_vectors(self._sequence, _PROBES, indices, n)
            self._last = np.zeros_like(self._now)
            moments[:, 0] = 1.0
        following = self._products(self._now)
        following -= centre * self._now
        following *= (1.0 if k == 0 else 2.0) / half
        following -= self._last
        self._last, self._now = self._now, following
        cross = np.einsum("ri,ri->r", self._now, self._last)
        square = np.einsum("ri,ri->r", self._now, self._now)
        if k == 0:
            moments[:, 1] = cross
        else:
            moments[:, 2 * k + 1] = 2 * cross - moments[:, 1]
        moments[:, 2 * k + 2] = 2 * square - 1.0
        # All eigenvalues of T_k(B) are within [-1, 1] if the spectrum is in the interval.
        self.diverged = bool(np.any(square > 1.0 + 1e-6))
        self._done += 1
        if self._done == self._steps:
            self._first, self._done = group.stop, 0

    def fraction(self) -> float:
        bounds = self._before - self._start or _BOUND_VECTORS * _BOUND_STEPS
        used = self._products.count - self._start
        return used / (bounds + self._probes * self._steps)

    def fields(self) -> dict[str, Any]:
        moments = self._moments
        if self._first < self._probes:  # interrupted or diverged: what all used probes have
            moments = self._moments[: self._first]
            if self._first == 0:
                moments = self._moments[: self._block, : 2 * self._done + 1 - 2 * self.diverged]
                if moments.shape[1] <= 1:
                    moments = np.ones((1, 1))
        return _damped(moments, self._interval)


def _gauss_chebyshev(
    coefficients: FloatArray, interval: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return Gauss-Chebyshev nodes, ascending, and weights of a series of Chebyshev moments."""
    from scipy.fft import dct

    count = len(coefficients)
    cosines = np.cos(np.pi * (np.arange(count) + 0.5) / count)
    weights = dct(coefficients, type=3) / count
    half = (interval[1] - interval[0]) / 2
    return (interval.mean() + half * cosines)[::-1], weights[::-1]


def _damped(moments: FloatArray, interval: FloatArray) -> dict[str, Any]:
    """Return the fields of a spectrum from Chebyshev moments, damped by Jackson's kernel."""
    orders = moments.shape[1]
    n, q = np.arange(orders), np.pi / (orders + 1)
    damping = ((orders - n + 1) * np.cos(q * n) + np.sin(q * n) / np.tan(q)) / (orders + 1)
    coefficients = np.zeros(_NODES_PER_MOMENT * orders)
    coefficients[:orders] = damping * moments.mean(axis=0)
    nodes, weights = _gauss_chebyshev(coefficients, interval)
    root = np.sqrt((nodes - interval[0]) * (interval[1] - nodes))
    return {
        "nodes": nodes,
        "weights": weights,
        "grid": nodes,
        "values": weights * len(nodes) / (np.pi * root),
        "chebyshev": moments,
        "interval": interval,
    }


def density(
    operator: Operator,
    *,
    method: str = "slq",
    probes: int = 8,
    steps: int = 80,
    block: int | None = None,
    seed: int | np.random.SeedSequence | None = 0,
    threads: int | None = None,
    progress: _run.Progress = False,
) -> SampledSpectrum:
    """Estimate the spectral density of a symmetric operator from products with random vectors.

    Parameters
    ----------
    operator : LinearOperator or matrix
        Real and symmetric. Products are taken in blocks, by `matmat`.
    method : {"slq", "kpm"}
        "slq" is stochastic Lanczos quadrature with full reorthogonalisation: it finds outliers
        and gaps, and its broadened density is the most accurate. "kpm" is the kernel polynomial
        method with Jackson damping: it has a density without broadening, of the resolution that
        ``stats["resolution"]`` tells, and it needs less memory.
    probes : int
        Number of random vectors, of uniform directions. The relative error of a smoothed density
        is of the order of 1/sqrt(probes * eigenvalues within the width).
    steps : int
        Products per probe, each of which adds two moments. For "slq" at most the dimension: more
        are cut to it, which ``stats["clamped"]`` says. The bias of a broadened density is below its
        standard error when the width is at least about twice the length of the spectrum / steps.
    block : int, optional
        Probes that advance together. By default as many as have their vectors in 1 GiB. It
        changes rounding only.
    seed : int, SeedSequence or None
        Of the probes. The first ones do not depend on how many there are.
    threads : int, optional
        For operators with a method ``with_threads(threads)`` that returns the same operator on so
        many threads, as that of `empirical` has.
    progress : bool or callable
        True for a progress bar; or a function of the fraction done.

    Returns
    -------
    SampledSpectrum
        With nodes and weights; for "kpm" with a curve as well.

    Raises
    ------
    TypeError, ValueError
        Naming the argument that is not as described: also an operator that is not square, not
        symmetric (random vectors show it), or has products that are not finite.
    ConvergenceError
        If an eigenvalue is far outside of the bounds that "kpm" found.
    MemoryError
        If the vectors of one block do not fit.

    Notes
    -----
    Probes are normal vectors divided by their norm. In contrast to random signs the law of the
    estimate depends on the spectrum alone and not on the basis, no eigenvector is missed, and the
    variance of the mean of f is 2/(dimension + 2)/probes times the variance of f over the
    spectrum. A probe whose Krylov space is invariant has a complete measure and is finished
    earlier (``stats["breakdowns"]``). Source: Ubaru, Chen and Saad, SIAM J. Matrix Anal. Appl. 38,
    1075 (2017); Weisse, Wellein, Alvermann and Fehske, Rev. Mod. Phys. 78, 275 (2006).

    Examples
    --------
    >>> import numpy as np, overparam as op
    >>> eigenvalues = np.linspace(-1.0, 1.0, 1000) ** 3
    >>> spectrum = op.hessian.density(np.diag(eigenvalues), probes=8)
    >>> exact = np.mean(0.1 / np.pi / ((0.5 - eigenvalues) ** 2 + 0.1**2))
    >>> error = spectrum.density(0.5, width=0.1) - exact
    >>> bool(abs(error) < 4 * spectrum.density_sem(0.5, width=0.1))
    True
    """
    method = _check.choice("method", method, ("slq", "kpm"))
    probes = _check.integer("probes", probes, minimum=1)
    steps = _check.integer("steps", steps, minimum=1)
    if block is not None:
        block = _check.integer("block", block, minimum=1)
    sequence = _check.seed_sequence(seed)
    products = _Products(operator, threads)
    n = products.dimension
    estimator: _Quadrature | _Kernel
    if method == "slq":
        estimator = _Quadrature(products, sequence, probes, steps, block)
    else:
        estimator = _Kernel(products, sequence, probes, steps, block)

    def build(status: Status, stats: dict[str, float]) -> SampledSpectrum:
        fields = estimator.fields()
        own: dict[str, Any] = {**stats, **estimator.stats, "products": products.count}
        if threads is not None:
            own["threads"] = threads
        if method == "kpm":
            low, high = fields["interval"]
            own["resolution"] = float(np.pi * (high - low) / 2 / fields["chebyshev"].shape[1])
            status = Status.DIVERGED if cast(_Kernel, estimator).diverged else status
        return SampledSpectrum(
            inputs={"dimension": n, "probes": probes, "steps": steps},
            method=method,
            status=status,
            stats=own,
            origin=make_origin(sequence),
            size=n,
            **fields,
        )

    result = _run.drive(
        None,
        {},
        estimator.advance,
        build,
        progress=progress,
        label="hessian.density",
        fraction=estimator.fraction,
    )
    return conclude(result)


# ---- extremes ------------------------------------------------------------------------------------

# Directions of a block below this fraction of its largest one are orthogonalised once more.
_SMALL_DIRECTION = 0.1

# Eigenvalues, eigenvectors as rows, and residuals.
_Pairs: TypeAlias = tuple[FloatArray, FloatArray, FloatArray]


class _Subspace:
    """Block Lanczos with full reorthogonalisation and thick restarts.

    The rows of `basis` are `count` vectors V whose projection V A V^T is known, and then the next
    block of `width` vectors Q, with A V^T = V^T H + Q^T coupling on the last block of V. A restart
    keeps Ritz vectors and Q, which preserves this relation.
    """

    def __init__(
        self,
        products: _Products,
        low: int,
        high: int,
        block: int,
        size: int,
        sequence: np.random.SeedSequence,
    ) -> None:
        n = products.dimension
        self._products, self._low, self._high = products, low, high
        self._block, self._size = block, size
        self._refill = _generator(sequence, _REFILL)
        self._basis = np.empty((min(size + block, n), n))
        self._projection = np.zeros((size, size))
        self._count = 0
        self._values = self._residuals = np.empty(0)
        self._vectors = np.empty((0, 0))
        self._width = block
        self._basis[:block] = _unit_vectors(sequence, _START, range(block), n)
        self._basis[:block] = _orthonormal(self._basis[:block], self._basis[:0], 0.0)[0]
        self.restarts = 0

    @property
    def norm(self) -> float:
        """The largest absolute Ritz value: the norm of the operator, from below."""
        return float(abs(self._values).max(initial=0.0))

    @property
    def next_products(self) -> int:
        return self._width

    def wanted(self) -> NDArray[np.int64]:
        """Return the indices of the wanted ones among the Ritz values, as far as there are any."""
        count = len(self._values)
        low = min(self._low, count)
        high = min(self._high, count - low)
        return np.concatenate([np.arange(low), np.arange(count - high, count)])

    @property
    def complete(self) -> bool:
        """Whether there are Ritz values enough."""
        return self._count >= self._low + self._high

    def worst(self) -> float:
        """Return the largest residual of the wanted pairs."""
        return float(self._residuals[self.wanted()].max(initial=0.0))

    def step(self) -> None:
        if self._count + self._width > self._size:
            self._restart()
        j, width = self._count, self._width
        new = slice(j, j + width)
        active = self._basis[: j + width]
        block = self._products(self._basis[new])
        overlaps = np.zeros((j + width, width))
        for _ in range(2):
            found = active @ block.T
            block -= found.T @ active
            overlaps += found
        projection = self._projection
        projection[: j + width, new] = overlaps
        projection[new, :j] = overlaps[:j].T
        projection[new, new] = (overlaps[j:] + overlaps[j:].T) / 2
        self._count = j + width
        size = abs(projection[: self._count, : self._count]).max()
        room = len(self._basis[0]) - self._count
        following, coupling = _orthonormal(block, active, _BREAKDOWN * size)
        following, coupling = following[:room], coupling[:room]
        if len(following) == 0 and room and not self.complete:
            # The space is invariant, but too small: go on from new vectors.
            fresh = self._refill.standard_normal((min(self._block, room), block.shape[1]))
            for _ in range(2):
                fresh -= (fresh @ active.T) @ active
            following = _orthonormal(fresh, active, 0.0)[0]
            coupling = np.zeros((len(following), width))
        self._width = len(following)
        self._values, self._vectors = np.linalg.eigh(projection[: self._count, : self._count])
        self._residuals = np.linalg.norm(coupling @ self._vectors[new], axis=0)
        self._basis[self._count : self._count + self._width] = following

    @property
    def exhausted(self) -> bool:
        """Whether the space is invariant, so that nothing can be added."""
        return self._width == 0

    def _restart(self) -> None:
        count, following = self._count, self._basis[self._count :][: self._width].copy()
        # Beside the wanted ones their neighbours, which speeds up convergence.
        spare = max((self._size - self._width - self._low - self._high) // 2, 0)
        ends = self._low + self._high
        low = self._low + spare * self._low // ends
        high = self._high + spare * self._high // ends
        keep = np.r_[:low, count - high : count]
        self._rotate(self._vectors[:, keep])
        self._basis[len(keep) : len(keep) + self._width] = following
        self._projection[:] = 0.0
        self._projection[np.arange(len(keep)), np.arange(len(keep))] = self._values[keep]
        self._count = len(keep)
        self.restarts += 1

    def _rotate(self, vectors: FloatArray) -> None:
        """Replace the basis by combinations of it, a stretch of coordinates at a time."""
        for start in range(0, self._basis.shape[1], 2**14):
            part = self._basis[: self._count, start : start + 2**14]
            self._basis[: vectors.shape[1], start : start + 2**14] = vectors.T @ part

    def pairs(self) -> _Pairs:
        """Return the wanted Ritz values, vectors as rows, and residuals by the recurrence."""
        wanted = self.wanted()
        vectors = self._vectors[:, wanted].T @ self._basis[: self._count]
        return self._values[wanted], vectors, self._residuals[wanted]


def _orthonormal(
    block: FloatArray, basis: FloatArray, threshold: float
) -> tuple[FloatArray, FloatArray]:
    """Return orthonormal rows Q, orthogonal to those of a basis, and C with block = C^T Q.

    The block was projected out of the basis already. Directions in which it is not larger than
    the threshold are left out.
    """
    orthogonal, triangle = np.linalg.qr(block.T)
    left, sizes, right = np.linalg.svd(triangle)
    kept = sizes > threshold
    rows = (orthogonal @ left[:, kept]).T
    coupling = sizes[kept, np.newaxis] * right[kept]
    # A direction in which the block is smaller than in others is less orthogonal to the basis.
    small = len(rows) > 0 and sizes[kept][-1] < _SMALL_DIRECTION * sizes[0]
    for _ in range(2 if small else 0):
        rows -= (rows @ basis.T) @ basis
        orthogonal, triangle = np.linalg.qr(rows.T)
        rows, coupling = np.ascontiguousarray(orthogonal.T), triangle @ coupling
    return rows, coupling


def extremes(
    operator: Operator,
    k: int = 4,
    *,
    which: str = "both",
    tol: float = 1e-8,
    max_products: int = 20_000,
    seed: int | np.random.SeedSequence | None = 0,
    throw: bool = True,
    progress: _run.Progress = False,
) -> Extremes:
    """Find the extreme eigenvalues of a symmetric operator, with multiplicities and eigenvectors.

    Parameters
    ----------
    operator : LinearOperator or matrix
        Real and symmetric. Products are taken in blocks, by `matmat`.
    k : int
        Number of eigenvalues at an end, with multiplicity; at most the dimension.
    which : {"both", "smallest", "largest"}
        "both": k at each end, 2k in all (all of them, once, if there are fewer than 2k).
    tol : float
        A pair has converged when its residual is at most `tol` times the norm of the operator.
        The error of its eigenvalue is then at most that, and of the order of the square of it
        divided by the distance to the rest of the spectrum.
    max_products : int
        Products with a vector that may be taken, about.
    seed : int, SeedSequence or None
        Of the vectors to start from.
    throw : bool
        Raise if a pair has not converged; otherwise return all, with `converged`.
    progress : bool or callable
        True for a progress bar; or a function of the fraction done, in the logarithm of the
        largest residual.

    Returns
    -------
    Extremes

    Raises
    ------
    TypeError, ValueError
        Naming the argument that is not as described: also an operator that is not square, not
        symmetric (random vectors show it), or has products that are not finite.
    ConvergenceError
        If one of the pairs has not converged; `result` has all of them, with their residuals.
    MemoryError
        If the basis does not fit.

    Notes
    -----
    Thick-restart block Lanczos with full reorthogonalisation. A block has k vectors, so that an
    eigenvalue is found up to k times at each end. Small operators are applied to the identity and
    diagonalised (method "dense"). Source: Wu and Simon, SIAM J. Matrix Anal. Appl. 22, 602 (2000);
    Grimes, Lewis and Simon, SIAM J. Matrix Anal. Appl. 15, 228 (1994).

    Examples
    --------
    >>> import numpy as np, overparam as op
    >>> matrix = np.diag(np.repeat([-2.0, 0.0, 1.0], [3, 500, 1]))
    >>> pairs = op.hessian.extremes(matrix, k=4, which="smallest")
    >>> np.round(pairs.eigenvalues, 6) + 0.0
    array([-2., -2., -2.,  0.])
    """
    k = _check.integer("k", k, minimum=1)
    which = _check.choice("which", which, ("both", "smallest", "largest"))
    tol = _check.real("tol", tol, minimum=0.0, strict_minimum=True)
    max_products = _check.integer("max_products", max_products, minimum=1)
    throw = _check.boolean("throw", throw)
    sequence = _check.seed_sequence(seed)
    products = _Products(operator)
    n = products.dimension
    if k > n:
        raise _check.bad("k", f"at most the dimension of the operator, {n}", k)
    low = 0 if which == "largest" else k
    high = 0 if which == "smallest" else min(k, n - low)
    wanted = low + high
    # Products of the smallest computation: a space as large as needed, and the residuals.
    if max_products < 2 * wanted + products.count:
        raise _check.bad("max_products", f"at least {2 * wanted + products.count}", max_products)
    # A large basis saves products; beyond this size (measured) no longer many.
    size = wanted + max(24 * k, 96)
    size = max(min(size, _BASIS_BYTES // (8 * n)), wanted + 3 * k)
    dense = n <= size + k and products.count + n + wanted <= max_products
    size = min(size, n)
    _check.memory(8.0 * n * (n if dense else size + 4 * k + wanted), "the basis", "k")
    subspace = _Subspace(products, low, high, k, size, sequence)
    first, furthest = 0.0, 0.0
    pairs: _Pairs | None = None
    norm = 0.0

    def solve() -> int:
        """Finish by a dense computation."""
        nonlocal pairs, norm
        matrix = products(np.eye(n))
        values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
        chosen = np.r_[:low, n - high : n]
        norm = abs(values).max()
        pairs = confirm(values[chosen], vectors[:, chosen].T)
        return 1

    def confirm(values: FloatArray, vectors: FloatArray) -> _Pairs:
        """Return pairs with their residuals, from products with the vectors."""
        rest = products(np.ascontiguousarray(vectors)) - values[:, np.newaxis] * vectors
        return values, vectors, np.linalg.norm(rest, axis=1)

    def advance(_: int, budget: int) -> int:
        nonlocal pairs, norm, first, furthest
        for count in range(budget):
            if pairs is not None:
                return count
            if dense:
                return solve()
            subspace.step()
            norm = subspace.norm
            # Half of the tolerance: rounding may make the residual larger than the recurrence says.
            goal, worst = 0.5 * tol * norm, subspace.worst()
            reached = subspace.complete and worst <= goal
            spent = products.count + subspace.next_products + wanted > max_products
            if reached or spent or subspace.exhausted:
                pairs = confirm(*subspace.pairs()[:2])
            first = first or worst
            if 0 < worst < first and goal > 0 and subspace.complete:
                furthest = max(furthest, np.log(first / worst) / np.log(first / goal))
        return budget

    def build(status: Status, stats: dict[str, float]) -> Extremes:
        values, vectors, residuals = subspace.pairs() if pairs is None else pairs
        converged = residuals <= tol * norm
        if status is Status.SUCCESS and not (converged.all() and len(values) == wanted):
            status = Status.NOT_CONVERGED
        own: dict[str, Any] = {
            **stats,
            "products": products.count,
            "restarts": subspace.restarts,
            "block": k,
            "basis": n if dense else size,
        }
        return Extremes(
            inputs={"dimension": n, "k": k, "which": which, "tol": tol},
            method="dense" if dense else "lanczos",
            status=status,
            stats=own,
            origin=make_origin(sequence),
            eigenvalues=values,
            vectors=vectors.T,
            residuals=residuals,
            converged=converged,
        )

    result = _run.drive(
        None,
        {},
        advance,
        build,
        progress=progress,
        label="hessian.extremes",
        fraction=lambda: min(furthest, 1.0),
    )
    if result.status is Status.NOT_CONVERGED and throw:
        left = int(np.sum(~result.converged))
        raise ConvergenceError(
            f"{left} of {wanted} eigenpairs have not converged to tol={tol:g} within "
            f"{products.count} products: residuals reach {result.residuals.max():.3g}, the norm of "
            f"the operator is {norm:.3g}; increase max_products or tol (see .result for all pairs)",
            result,
        )
    return result
