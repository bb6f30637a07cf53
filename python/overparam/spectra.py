"""Laws of eigenvalues: Marchenko-Pastur, semicircle, principal angles, atoms, and free sums.

A law is a probability measure on the real line: atoms, and a part with a density. Laws are frozen,
and compare and hash by value, so that they can be parameters of a problem.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from overparam import _check
from overparam._check import FloatArray

__all__ = [
    "Discrete",
    "FreeSum",
    "Jacobi",
    "Law",
    "MarchenkoPastur",
    "Semicircle",
    "discrete",
    "free_sum",
    "jacobi",
    "marchenko_pastur",
    "semicircle",
]

# Minus the logarithm of what a quadrature may cut off at the ends of a density.
_CUTS = np.linspace(2.0, 42.0, 161)

# Weights of a discrete law may miss the sum 1 by this much; they are then normalised.
_SUM_TOLERANCE = 1e-9

# Entries of the largest temporary array of a sum over atoms.
_BLOCK = 2**20

_EPS = float(np.finfo(np.float64).eps)

# Nodes per interval from which the solution of a free sum's equation starts.
_TABLE = 192

# Relative distance of singular points from an end of an arc below which equal angles do not do;
# that from a cusp below which no nodes are needed; and the angle, over pi/2, of the singular points
# that other nodes allow for, without and with narrow places.
_CLOSE, _CUSP, _STRIP = 0.01, 3e-4, (0.35, 0.55)

# Panels of Gauss-Legendre nodes on which a law without closed forms integrates its logarithm.
_LEGENDRE = np.polynomial.legendre.leggauss(16)


def _numbers(name: str, value: object, must: str, kinds: str = "iuf") -> NDArray[Any]:
    """Return an array of numbers of any shape."""
    try:
        array = np.asarray(value)
    except ValueError:  # nested sequences of different lengths
        raise _check.bad(name, must, value) from None
    if array.dtype.kind not in kinds:
        raise _check.bad(name, must, value, TypeError)
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def _reals(name: str, value: object) -> FloatArray:
    return _numbers(name, value, "a real number or an array of them")


def _answer(values: NDArray[Any]) -> NDArray[Any]:
    """Return a number for a number."""
    return values[()]


class Law(ABC):
    """A law of eigenvalues: what `marchenko_pastur`, `semicircle`, `jacobi` and others return.

    Functions of a position take numbers, or arrays of any shape, and return the same shape. The
    Cauchy transform has the sign of G(z) = E 1/(z - x), so that the density is
    -Im G(x + i0)/pi.

    Examples
    --------
    >>> import overparam as op
    >>> law = op.spectra.marchenko_pastur(0.5)
    >>> isinstance(law, op.spectra.Law), law.atoms
    (True, ((0.0, 0.5),))
    >>> law == op.spectra.marchenko_pastur(0.5), law == law.scaled(2.0)
    (True, False)
    >>> float(law.cdf(0.0)), float(law.quantile(0.25))
    (0.5, 0.0)
    """

    @property
    @abstractmethod
    def support(self) -> tuple[float, float] | None:
        """Lowest and highest point of the part with a density; None if there is no such part."""

    @property
    @abstractmethod
    def atoms(self) -> tuple[tuple[float, float], ...]:
        """Position and mass of each atom, by increasing position."""

    @property
    @abstractmethod
    def edges(self) -> tuple[float, ...]:
        """Edges of the part with a density, sorted: (low, high) for each of its intervals."""

    @abstractmethod
    def density(self, x: ArrayLike) -> FloatArray:
        """Return the density of the continuous part; 0 outside it and at its edges.

        Parameters
        ----------
        x : array_like
            Real positions.

        Returns
        -------
        array like `x`
            Integrates to one minus the mass of the atoms.
        """

    @abstractmethod
    def cdf(self, x: ArrayLike) -> FloatArray:
        """Return the mass of (-inf, x], atoms included.

        Parameters
        ----------
        x : array_like
            Real positions.

        Returns
        -------
        array like `x`
        """

    def quantile(self, p: ArrayLike) -> FloatArray:
        """Return the lowest x with ``cdf(x) >= p``; for p = 0 the lowest point of the law.

        Parameters
        ----------
        p : array_like
            Between 0 and 1.

        Returns
        -------
        array like `p`
            Never in a gap; the position of an atom for all p that fall on it.

        Raises
        ------
        ValueError
            If an entry of `p` is not between 0 and 1.

        Examples
        --------
        >>> import overparam as op
        >>> op.spectra.discrete([0.0, 1.0], [0.25, 0.75]).quantile([0.0, 0.25, 0.3]).tolist()
        [0.0, 0.0, 1.0]
        """
        p = _reals("p", p)
        if not np.all((p >= 0) & (p <= 1)):
            raise _check.bad("p", "between 0 and 1", p)
        atoms = dict(self.atoms)
        left, right = np.array(self._pieces()).T
        at_right = [atoms.get(b, 0.0) if a < b else 0.0 for a, b in zip(left, right, strict=True)]
        tops = np.maximum.accumulate(self.cdf(right) - at_right)
        bottoms = np.concatenate([[0.0], tops[:-1]])
        piece = np.minimum(np.searchsorted(tops, p), len(tops) - 1)
        left, right, bottom, top = left[piece], right[piece], bottoms[piece], tops[piece]
        # Bisection in an angle, which resolves both ends of an interval.
        low, high = np.zeros(p.shape), np.full(p.shape, np.pi)
        for _ in range(60 if np.any(left < right) else 0):
            middle = (low + high) / 2
            short = self.cdf(_between(left, right, middle)) < p
            low, high = np.where(short, middle, low), np.where(short, high, middle)
        inside = _between(left, right, high)
        return _answer(np.where(p <= bottom, left, np.where(p >= top, right, inside)))

    def _pieces(self) -> list[tuple[float, float]]:
        """Return the law in ascending pieces: atoms, and intervals without an atom inside."""
        atoms = [position for position, _ in self.atoms]
        pieces = [(position, position) for position in atoms]
        for start, stop in zip(self.edges[::2], self.edges[1::2], strict=True):
            pieces += itertools.pairwise([start, *(x for x in atoms if start < x < stop), stop])
        return sorted(pieces)

    def bin_means(self, n: int) -> FloatArray:
        """Return the means of the law over n bins of equal mass: its n representative eigenvalues.

        Parameters
        ----------
        n : int
            Number of bins.

        Returns
        -------
        (n,) array
            In increasing order. Their mean is exactly that of the law.

        Raises
        ------
        TypeError, ValueError
            If `n` is not a positive integer.

        Examples
        --------
        >>> import overparam as op
        >>> op.spectra.discrete([0.0, 1.0], [0.25, 0.75]).bin_means(2).tolist()
        [0.5, 1.0]
        """
        n = _check.integer("n", n, minimum=1)
        atoms = dict(self.atoms)
        total, bottom = np.zeros(n), 0.0
        # Fewer bins are wider.
        nodes, weights = np.polynomial.legendre.leggauss(16 + 64 // n)
        for left, right in self._pieces():
            if left == right:
                top = bottom + atoms[left]
            else:
                top = float(self.cdf(right)) - atoms.get(right, 0.0)
            levels = np.arange(n + 1) / n
            levels = np.concatenate([[bottom], levels[(levels > bottom) & (levels < top)], [top]])
            bins = np.minimum((0.5 * (levels[1:] + levels[:-1]) * n).astype(int), n - 1)
            if left == right:
                moments = left * np.diff(levels)
            else:
                # By parts, in an angle in which the distribution function is smooth at both ends.
                x = np.concatenate([[left], self.quantile(levels[1:-1]), [right]])
                angles = np.arccos(np.clip(1.0 - 2.0 * (x - left) / (right - left), -1.0, 1.0))
                half = 0.5 * np.diff(angles)[:, np.newaxis]
                theta = 0.5 * (angles[1:] + angles[:-1])[:, np.newaxis] + half * nodes
                below = self.cdf(left + (right - left) * np.sin(0.5 * theta) ** 2)
                rise = 0.5 * (right - left) * np.sin(theta)
                moments = np.diff(x * levels) - ((below * rise * half) @ weights)
            np.add.at(total, bins, moments)
            bottom = top
        return np.sort(total * n)

    @abstractmethod
    def cauchy(self, z: ArrayLike) -> NDArray[Any]:
        """Return the Cauchy transform G(z) = E 1/(z - x).

        Parameters
        ----------
        z : array_like
            Complex numbers in either half plane, or real ones away from the law.

        Returns
        -------
        array like `z`
            Complex for complex `z`, real for real `z`.

        Raises
        ------
        ValueError
            If an entry of `z` is a real number on the support or at an atom.
        """

    @abstractmethod
    def hilbert(self, x: ArrayLike) -> FloatArray:
        """Return the real part of the Cauchy transform on the real axis.

        Parameters
        ----------
        x : array_like
            Real positions, on the law or outside.

        Returns
        -------
        array like `x`
            Principal value of E 1/(x - y) over y; at an edge its limit from inside, at an atom
            without that atom.
        """

    @abstractmethod
    def logdet(self, z: ArrayLike) -> FloatArray:
        """Return the log-determinant per eigenvalue, E log(1 + z x).

        Parameters
        ----------
        z : array_like
            Real numbers with 1 + z x > 0 everywhere on the law.

        Returns
        -------
        array like `z`

        Raises
        ------
        ValueError
            If 1 + z x is not positive on the law for an entry of `z`.
        """

    @abstractmethod
    def moments(self, k: int) -> float:
        """Return the k-th moment, E x^k.

        Parameters
        ----------
        k : int
            Order, at least 0.

        Returns
        -------
        float
        """

    @abstractmethod
    def quadrature(self, n: int) -> tuple[FloatArray, FloatArray]:
        """Return nodes and weights that integrate functions over the law.

        Parameters
        ----------
        n : int
            Number of nodes on the continuous part, at least 1. For functions without poles
            between the law's edges and 0 (or, for principal angles, 1) 64 give about ten digits;
            200 give twelve, also where the density diverges at an edge: Marchenko-Pastur of
            ratio 1, principal angles that reach 0 or 1. The nodes are then so dense at that edge
            that 1/(x + delta) is integrated for small delta as well.

        Returns
        -------
        nodes : array
            In increasing order, with one more for each atom.
        weights : array
            Positive, with sum 1.
        """

    @abstractmethod
    def scaled(self, factor: float) -> Law:
        """Return the law of `factor` times x; ``law.scaled(T / law.moments(1))`` has mean T.

        Parameters
        ----------
        factor : float
            Positive.

        Returns
        -------
        Law
        """

    # What a free sum asks of its law, above the real axis or off the law.

    def _resolvents(self, z: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the Cauchy transform and its derivative, by differences."""
        value = np.asarray(self.cauchy(z))
        slope = np.empty_like(value)
        real = z.imag == 0
        points = np.array([*self.edges, *(position for position, _ in self.atoms)])
        if real.any():
            u = z.real[real]
            reach = np.abs(u[:, np.newaxis] - points).min(axis=1)
            slope[real] = self.cauchy(u + 1e-8j * reach).imag / (1e-8 * reach)
        z = z[~real]
        step = 5e-4 * z.imag
        near = self.cauchy(z + step) - self.cauchy(z - step)
        far = self.cauchy(z + 2 * step) - self.cauchy(z - 2 * step)
        slope[~real] = (8 * near - far) / (12 * step)
        return value, slope

    def _potential(self, z: NDArray[Any]) -> NDArray[Any]:
        """Return E log(z - x), by integrating the Cauchy transform downwards."""
        points = [*self.edges, *(position for position, _ in self.atoms)]
        middle, length = (max(points) + min(points)) / 2, max(points) - min(points)
        top = 4 * np.maximum(length, z.imag) + np.abs(z.real - middle)
        nodes, weights = self.quadrature(64)
        value = np.log(z.real[:, np.newaxis] + 1j * top[:, np.newaxis] - nodes) @ weights
        rise = np.log(top / z.imag)
        panels = max(math.ceil(rise.max()), 1) if len(rise) else 1
        for x, w in zip(*_LEGENDRE, strict=True):
            for panel in range(panels):
                height = z.imag * np.exp(rise * (panel + (1 + x) / 2) / panels)
                value -= 1j * self.cauchy(z.real + 1j * height) * height * rise * w / (2 * panels)
        return np.asarray(value)


class _Atoms(Law):
    """A law of atoms, and what laws with an interval as well derive from it.

    The methods `_interval_...` give the share of the interval: of none here.
    """

    def __repr__(self) -> str:
        fields = [
            f"{field.name}={value!r}"
            for field in dataclasses.fields(cast(Any, self))
            if (value := getattr(self, field.name)) != field.default
        ]
        return f"{type(self).__name__}({', '.join(fields)})"

    @property
    def support(self) -> tuple[float, float] | None:
        """Lowest and highest point of the part with a density; None if there is no such part."""
        return None

    @property
    def atoms(self) -> tuple[tuple[float, float], ...]:
        """Position and mass of each atom, by increasing position."""
        return ()

    @property
    def edges(self) -> tuple[float, ...]:
        """Edges of the part with a density, sorted: (low, high), or nothing."""
        return self.support or ()

    @cached_property
    def _positions(self) -> FloatArray:
        return np.array([position for position, _ in self.atoms])

    @cached_property
    def _masses(self) -> FloatArray:
        return np.array([mass for _, mass in self.atoms])

    def _over_atoms(
        self, term: Callable[[NDArray[Any], FloatArray], NDArray[Any]], x: NDArray[Any]
    ) -> NDArray[Any]:
        """Return the sum of mass times term(x, position) over the atoms."""
        flat, total = x.ravel(), np.zeros(x.size, dtype=x.dtype)
        rows = max(_BLOCK // max(len(self._positions), 1), 1)
        for start in range(0, x.size if len(self._positions) else 0, rows):
            block = slice(start, start + rows)
            total[block] = term(flat[block, np.newaxis], self._positions) @ self._masses
        return total.reshape(x.shape)

    def _on_support(self, x: FloatArray) -> NDArray[np.bool_]:
        if not self.edges:
            return np.zeros(x.shape, dtype=bool)
        return np.asarray((x >= self.edges[0]) & (x <= self.edges[1]))

    def density(self, x: ArrayLike) -> FloatArray:
        x = _reals("x", x)
        density = self._interval_density(x)
        density[np.isnan(x)] = np.nan
        return _answer(density)

    def cdf(self, x: ArrayLike) -> FloatArray:
        x = _reals("x", x)
        heaps = np.concatenate([[0.0], np.cumsum(self._masses)])
        total = heaps[np.searchsorted(self._positions, x, side="right")] + self._interval_cdf(x)
        return _answer(np.where(np.isnan(x), np.nan, np.minimum(total, 1.0)))

    def cauchy(self, z: ArrayLike) -> NDArray[Any]:
        z = _numbers("z", z, "a complex number or an array of them", kinds="iufc")
        on_law = (z.imag == 0) & (np.isin(z.real, self._positions) | self._on_support(z.real))
        if on_law.any():
            raise _check.bad("z", "off the law's support and atoms where it is real", z[on_law])
        if z.dtype == np.float64:
            return self.hilbert(z)
        transform = self._over_atoms(lambda z, position: 1 / (z - position), z)
        return _answer(transform + self._interval_cauchy(z))

    def hilbert(self, x: ArrayLike) -> FloatArray:
        x = _reals("x", x)

        def term(x: NDArray[Any], position: FloatArray) -> NDArray[Any]:
            distance = x - position
            return np.divide(1.0, distance, out=np.zeros_like(distance), where=distance != 0)

        return _answer(self._over_atoms(term, x) + self._interval_hilbert(x))

    def _resolvents(self, z: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        value, slope = self._interval_resolvents(z)
        rows = max(_BLOCK // max(len(self._positions), 1), 1)
        for start in range(0, len(z) if len(self._positions) else 0, rows):
            block = slice(start, start + rows)
            inverse = 1 / (z[block, np.newaxis] - self._positions)
            value[block] += inverse @ self._masses
            inverse *= inverse
            slope[block] -= inverse @ self._masses
        return value, slope

    def _potential(self, z: NDArray[Any]) -> NDArray[Any]:
        value = self._over_atoms(lambda z, position: np.log(z - position), z)
        return np.asarray(value + self._interval_potential(z))

    def logdet(self, z: ArrayLike) -> FloatArray:
        z = _invertible(z, [*self._positions, *self.edges])
        value = self._over_atoms(lambda z, position: np.log1p(z * position), z)
        return _answer(value + self._interval_logdet(z))

    def moments(self, k: int) -> float:
        k = _check.integer("k", k, minimum=0)
        with np.errstate(over="ignore"):
            moment = float(self._masses @ self._positions**k) if len(self._masses) else 0.0
            return moment + self._interval_moment(k)

    def quadrature(self, n: int) -> tuple[FloatArray, FloatArray]:
        n = _check.integer("n", n, minimum=1)
        inner, shares = self._interval_quadrature(n)
        nodes = np.concatenate([self._positions, inner])
        weights = np.concatenate([self._masses, shares])
        order = np.argsort(nodes, kind="stable")
        return nodes[order], weights[order] / weights.sum()

    def _interval_density(self, x: FloatArray) -> FloatArray:
        return np.zeros(x.shape)

    def _interval_cdf(self, x: FloatArray) -> FloatArray:
        return np.zeros(x.shape)

    def _interval_cauchy(self, z: NDArray[Any]) -> NDArray[Any]:
        return np.zeros_like(z)

    def _interval_hilbert(self, x: FloatArray) -> FloatArray:
        return np.zeros(x.shape)

    def _interval_resolvents(self, z: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        return np.zeros_like(z), np.zeros_like(z)

    def _interval_potential(self, z: NDArray[Any]) -> NDArray[Any]:
        return np.zeros_like(z)

    def _interval_logdet(self, z: FloatArray) -> NDArray[Any]:
        return np.zeros(z.shape)

    def _interval_moment(self, k: int) -> float:  # noqa: ARG002 - that of no interval is 0
        return 0.0

    def _interval_quadrature(self, n: int) -> tuple[FloatArray, FloatArray]:  # noqa: ARG002 - no interval, no nodes
        return np.empty(0), np.empty(0)


class _ClosedForm(_Atoms):
    """A law of atoms and an interval, on which everything is known in closed form.

    Its mass may be zero, at the ends of a family; then it counts as absent.

    The interval is that of a standard law of mass 1, on `_ends`, scaled by `_unit`. The methods
    with an underscore are about the standard law. Their angle is that of
    u = low + (high - low) sin(angle/2)^2, from 0 to pi.
    """

    @property
    @abstractmethod
    def _mass(self) -> float:
        """Mass of the interval."""

    @property
    @abstractmethod
    def _unit(self) -> float:
        """Scale of the standard law."""

    @property
    @abstractmethod
    def _ends(self) -> tuple[float, float]:
        """Ends of the standard interval."""

    @property
    def _gaps(self) -> tuple[float, float]:
        """Distance of the poles of `_tilt` from the ends, relative to the interval's length."""
        return np.inf, np.inf

    @abstractmethod
    def _tilt(self, left: FloatArray, right: FloatArray) -> FloatArray:
        """Return density / sqrt(left right) at the distances `left` and `right` from the ends."""

    @abstractmethod
    def _below(self, angle: FloatArray) -> FloatArray:
        """Return the mass below an angle."""

    @abstractmethod
    def _resolvent(self, z: NDArray[Any], root: NDArray[Any]) -> NDArray[Any]:
        """Return the Cauchy transform, given sqrt((z - low)(z - high)) ~ z."""

    @property
    def _resolvent_slopes(self) -> tuple[float, float]:
        """Numbers a, b for which the Cauchy transform is 2 a/(b z - constant + root)."""
        return 1.0, 1.0

    @abstractmethod
    def _centre(self, u: FloatArray) -> FloatArray:
        """Return the real part of the Cauchy transform on the interval."""

    @abstractmethod
    def _mean_log(self, z: NDArray[Any]) -> NDArray[Any]:
        """Return E log(1 + z x), for real z or in the upper half plane."""

    @abstractmethod
    def _power(self, k: int) -> float:
        """Return the k-th moment of the standard law."""

    @property
    def support(self) -> tuple[float, float] | None:
        """Lowest and highest point of the part with a density; None if there is no such part."""
        if self._mass == 0:
            return None
        low, high = self._ends
        return low * self._unit, high * self._unit

    def _interval_density(self, x: FloatArray) -> FloatArray:
        if self._mass == 0:
            return super()._interval_density(x)
        density = np.zeros(x.shape)
        low, high = self._ends
        left, right = x / self._unit - low, high - x / self._unit
        inside = self._on_support(x) & ~np.isin(x, self.edges) & (left > 0) & (right > 0)
        left, right = left[inside], right[inside]
        tilt = self._tilt(left, right)
        density[inside] = self._mass / self._unit * np.sqrt(left * right) * tilt
        return density

    def _interval_cdf(self, x: FloatArray) -> FloatArray:
        if self._mass == 0:
            return super()._interval_cdf(x)
        low, high = self._ends
        u = np.clip(x / self._unit, low, high)
        angle = 2 * np.arctan2(np.sqrt(u - low), np.sqrt(high - u))
        below = np.where(x < self.edges[1], np.clip(self._below(angle), 0.0, 1.0), 1.0)
        return np.asarray(self._mass * below)

    def _interval_cauchy(self, z: NDArray[Any]) -> NDArray[Any]:
        if self._mass == 0:
            return super()._interval_cauchy(z)
        low, high = self._ends
        u = z / self._unit
        root = np.sqrt(u - low) * np.sqrt(u - high)
        return self._mass / self._unit * self._resolvent(u, root)

    def _interval_hilbert(self, x: FloatArray) -> FloatArray:
        if self._mass == 0:
            return super()._interval_hilbert(x)
        low, high = self._ends
        u, inside = x / self._unit, self._on_support(x)
        outside = u[~inside]
        root = np.sqrt(np.abs(outside - low)) * np.sqrt(np.abs(outside - high))
        value = np.empty(u.shape)
        value[inside] = self._centre(u[inside])
        value[~inside] = self._resolvent(outside, np.copysign(root, outside - low))
        return self._mass / self._unit * value

    def _interval_resolvents(self, z: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        if self._mass == 0:
            return super()._interval_resolvents(z)
        low, high = self._ends
        first, second = self._resolvent_slopes
        u = z / self._unit
        root = np.sqrt(u - low) * np.sqrt(u - high)
        part = self._resolvent(u, root)
        turn = second + (u - (low + high) / 2) / root
        scale = self._mass / self._unit
        return scale * part, -scale / self._unit / (2 * first) * part**2 * turn

    def _interval_potential(self, z: NDArray[Any]) -> NDArray[Any]:
        if self._mass == 0:
            return super()._interval_potential(z)
        return np.asarray(self._mass * (np.log(z) + self._mean_log(-self._unit / z)))

    def _interval_logdet(self, z: FloatArray) -> NDArray[Any]:
        if self._mass == 0:
            return super()._interval_logdet(z)
        return self._mass * self._mean_log(z * self._unit)

    def _interval_moment(self, k: int) -> float:
        if self._mass == 0:
            return super()._interval_moment(k)
        return self._mass * self._power(k) * float(np.float64(self._unit) ** k)

    def _interval_quadrature(self, n: int) -> tuple[FloatArray, FloatArray]:
        if self._mass == 0:
            return super()._interval_quadrature(n)
        low, high = self._ends
        width = high - low
        left, right, spacing = _angles(n, self._gaps)
        tilted = left * right * self._tilt(width * left, width * right) * spacing
        return self._unit * (low + width * left), self._mass * tilted / tilted.sum()


@dataclass(frozen=True, repr=False)
class Semicircle(_ClosedForm):
    """Wigner's semicircle; see `semicircle`.

    Parameters
    ----------
    variance : float
        Positive.

    Examples
    --------
    >>> import overparam as op
    >>> op.spectra.Semicircle(variance=4.0).edges
    (-4.0, 4.0)
    """

    variance: float

    def __post_init__(self) -> None:
        variance = _check.real("variance", self.variance, minimum=0.0, strict_minimum=True)
        object.__setattr__(self, "variance", variance)

    def scaled(self, factor: float) -> Semicircle:
        """Return the law of `factor` times x."""
        return Semicircle(self.variance * _factor(factor) ** 2)

    @property
    def _mass(self) -> float:
        return 1.0

    @property
    def _unit(self) -> float:
        return math.sqrt(self.variance)

    @property
    def _ends(self) -> tuple[float, float]:
        return -2.0, 2.0

    def _tilt(self, left: FloatArray, right: FloatArray) -> FloatArray:  # noqa: ARG002 - constant
        return np.full(left.shape, 1 / (2 * np.pi))

    def _below(self, angle: FloatArray) -> FloatArray:
        return np.asarray((angle - np.sin(2 * angle) / 2) / np.pi)

    def _resolvent(self, z: NDArray[Any], root: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(2 / (z + root))

    def _centre(self, u: FloatArray) -> FloatArray:
        return u / 2

    def _mean_log(self, z: NDArray[Any]) -> NDArray[Any]:
        square = (2 * z / (1 + np.sqrt(1 - 2 * z) * np.sqrt(1 + 2 * z))) ** 2
        return np.asarray(square / 2 - np.log1p(square))

    def _power(self, k: int) -> float:
        value = float(k % 2 == 0)
        for j in range(k // 2):  # Catalan numbers
            value *= 2 * (2 * j + 1) / (j + 2)
        return value


@dataclass(frozen=True, repr=False)
class MarchenkoPastur(_ClosedForm):
    """The law of Marchenko and Pastur; see `marchenko_pastur`.

    Parameters
    ----------
    ratio : float
        Columns of the Gaussian matrix over its rows; positive.
    scale : float
        The mean; positive.

    Examples
    --------
    >>> import overparam as op
    >>> op.spectra.MarchenkoPastur(ratio=4.0, scale=2.0).edges
    (0.5, 4.5)
    """

    ratio: float
    scale: float = 1.0

    def __post_init__(self) -> None:
        for name in ("ratio", "scale"):
            value = _check.real(name, getattr(self, name), minimum=0.0, strict_minimum=True)
            object.__setattr__(self, name, value)

    def scaled(self, factor: float) -> MarchenkoPastur:
        """Return the law of `factor` times x."""
        return MarchenkoPastur(self.ratio, self.scale * _factor(factor))

    @property
    def atoms(self) -> tuple[tuple[float, float], ...]:
        """Position and mass of each atom: the null space, for a ratio below 1."""
        return ((0.0, 1 - self.ratio),) if self.ratio < 1 else ()

    # The standard law is that of ratio 1/aspect >= 1 and mean 1. Ratios below 1 have the same
    # eigenvalues other than 0: those of G^T G.
    @property
    def _aspect(self) -> float:
        return min(self.ratio, 1 / self.ratio)

    @property
    def _excess(self) -> float:
        """1 - aspect, without its rounding."""
        return abs(self.ratio - 1) / max(self.ratio, 1.0)

    @property
    def _mass(self) -> float:
        return min(self.ratio, 1.0)

    @property
    def _unit(self) -> float:
        return self.scale / self._mass

    @property
    def _ends(self) -> tuple[float, float]:
        root = math.sqrt(self._aspect)
        return (self._excess / (1 + root)) ** 2, (1 + root) ** 2

    @property
    def _gaps(self) -> tuple[float, float]:
        low, high = self._ends
        return low / (high - low), np.inf

    def _tilt(self, left: FloatArray, right: FloatArray) -> FloatArray:  # noqa: ARG002 - of left only
        return 1 / (2 * np.pi * self._aspect * (self._ends[0] + left))

    def _below(self, angle: FloatArray) -> FloatArray:
        aspect, root = self._aspect, math.sqrt(self._aspect)
        sine, cosine = np.sin(angle), np.cos(angle)
        turn = np.arctan2(root * sine, 1 - root * cosine)
        below = aspect * angle + root * sine - self._excess * turn
        return np.asarray(below / (np.pi * aspect))

    def _resolvent(self, z: NDArray[Any], root: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(2 / (z - self._excess + root))

    def _centre(self, u: FloatArray) -> FloatArray:
        return (1 - _over(self._excess, u)) / (2 * self._aspect)

    def _mean_log(self, z: NDArray[Any]) -> NDArray[Any]:
        low, high = self._ends
        root = np.sqrt(1 + z * low) * np.sqrt(1 + z * high)
        eta = 2 / (1 + z * self._excess + root)  # E 1/(1 + z x)
        mixed = self._aspect * z * eta
        ratio = z / (1 + mixed)  # 1/eta - 1
        return np.asarray(np.log1p(ratio) + np.log1p(mixed) / self._aspect - ratio / (1 + ratio))

    def _power(self, k: int) -> float:
        value, term = float(k == 0), 1.0
        for j in range(k):  # Narayana numbers
            value += term
            term *= self._aspect * (k - j) * (k - 1 - j) / ((j + 1) * (j + 2))
        return value


@dataclass(frozen=True, repr=False)
class Jacobi(_ClosedForm):
    """The law of Wachter, also Jacobi's: squared cosines of principal angles; see `jacobi`.

    Parameters
    ----------
    gamma, gamma_star : float
        Dimensions of the two subspaces over that of the space, in (0, 1].
    per_dimension : bool
        Whether `logdet` is per dimension of the space instead of per direction of the first
        subspace: (1/d) log det(1 + z P Q P) for projections P and Q, `gamma` times the mean over
        the law.
    scale : float
        Factor by which all positions are multiplied; positive.

    Examples
    --------
    >>> import overparam as op
    >>> law = op.spectra.Jacobi(0.5, 0.25, per_dimension=True)
    >>> round(float(law.logdet(1.0)) / float(op.spectra.jacobi(0.5, 0.25).logdet(1.0)), 12)
    0.5
    """

    gamma: float
    gamma_star: float
    per_dimension: bool = False
    scale: float = 1.0

    def __post_init__(self) -> None:
        checked: dict[str, Any] = {
            name: _check.real(
                name, getattr(self, name), minimum=0.0, maximum=1.0, strict_minimum=True
            )
            for name in ("gamma", "gamma_star")
        }
        checked["per_dimension"] = _check.boolean("per_dimension", self.per_dimension)
        checked["scale"] = _check.real("scale", self.scale, minimum=0.0, strict_minimum=True)
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def scaled(self, factor: float) -> Jacobi:
        """Return the law of `factor` times x."""
        return dataclasses.replace(self, scale=self.scale * _factor(factor))

    @property
    def atoms(self) -> tuple[tuple[float, float], ...]:
        """Position and mass of each atom: directions orthogonal to, or in, the other subspace."""
        masses = (
            (0.0, (self.gamma - self.gamma_star) / self.gamma),
            (self.scale, (self.gamma - (1 - self.gamma_star)) / self.gamma),
        )
        return tuple((position, mass) for position, mass in masses if mass > 0)

    def logdet(self, z: ArrayLike) -> FloatArray:
        """Return E log(1 + z x), times `gamma` if `per_dimension`."""
        value = super().logdet(z)
        return value * self.gamma if self.per_dimension else value

    # The standard law is that of the pair small <= large with small + large <= 1, which has no
    # atoms: one subspace of each pair, or its complement.
    @cached_property
    def _pair(self) -> tuple[float, float]:
        small, large = sorted((self.gamma, self.gamma_star))
        return (small, large) if small + large <= 1 else (1 - large, 1 - small)

    @property
    def _low_gap(self) -> float:
        """The difference of the pair: sqrt(low high)."""
        return abs(self.gamma - self.gamma_star)

    @property
    def _high_gap(self) -> float:
        """1 - the sum of the pair: sqrt((1 - low)(1 - high))."""
        return abs(1 - self.gamma - self.gamma_star)

    @cached_property
    def _roots(self) -> tuple[float, float, float, float]:
        """Square roots by which low, high = (b -+ a)^2 and 1 - low, 1 - high = (d +- c)^2."""
        small, large = self._pair
        return (
            math.sqrt(small * (1 - large)),
            math.sqrt(large * (1 - small)),
            math.sqrt(small * large),
            math.sqrt((1 - small) * (1 - large)),
        )

    @property
    def _mass(self) -> float:
        return self._pair[0] / self.gamma

    @property
    def _unit(self) -> float:
        return self.scale

    @cached_property
    def _ends(self) -> tuple[float, float]:
        a, b, _, _ = self._roots
        return (self._low_gap / (a + b)) ** 2, (a + b) ** 2

    @cached_property
    def _to_one(self) -> float:
        """1 - high, without its rounding."""
        _, _, c, d = self._roots
        return (self._high_gap / (c + d)) ** 2

    @property
    def _gaps(self) -> tuple[float, float]:
        low, high = self._ends
        return low / (high - low), self._to_one / (high - low)

    def _tilt(self, left: FloatArray, right: FloatArray) -> FloatArray:
        product = (self._ends[0] + left) * (self._to_one + right)
        return 1 / (2 * np.pi * self._pair[0] * product)

    def _below(self, angle: FloatArray) -> FloatArray:
        small = self._pair[0]
        a, b, c, d = self._roots
        sine, cosine = np.sin(angle), np.cos(angle)
        low = self._low_gap * np.arctan2(a * sine, b - a * cosine)
        high = self._high_gap * np.arctan2(c * sine, d + c * cosine)
        return np.asarray((small * angle - low + high) / (np.pi * small))

    def _resolvent(self, z: NDArray[Any], root: NDArray[Any]) -> NDArray[Any]:
        small = self._pair[0]
        return np.asarray(2 * (1 - small) / ((1 - 2 * small) * z - self._low_gap + root))

    @property
    def _resolvent_slopes(self) -> tuple[float, float]:
        small = self._pair[0]
        return 1 - small, 1 - 2 * small

    @property
    def interval_resolvent(self) -> tuple[float, float, float, float, float, float, float]:
        """Ends low and high, unit, factor, slope, shift and mass of the part with a density.

        Its Cauchy transform at z = unit u is factor/(slope u - shift + root), with
        root = sqrt(u - low) sqrt(u - high).
        """
        first, second = self._resolvent_slopes
        factor = 2 * first * self._mass / self._unit
        return *self._ends, self._unit, factor, second, self._low_gap, self._mass

    def _centre(self, u: FloatArray) -> FloatArray:
        return (_over(self._high_gap, 1 - u) - _over(self._low_gap, u)) / (2 * self._pair[0])

    def _mean_log(self, z: NDArray[Any]) -> NDArray[Any]:
        # y in (-small, 0) for z > 0 solves z (small + y)(large + y) + y (1 + y) = 0.
        small, large = self._pair
        low, high = self._ends
        root = np.sqrt(1 + z * low) * np.sqrt(1 + z * high)
        kappa = 2 / (1 + z * (small + large) + root)
        y = -z * small * large * kappa
        shifted = 2 * small * (1 - small) / (1 - 2 * small + z * self._low_gap + root)  # small + y
        value = y * np.log(kappa) + (1 + y) * np.log1p(y)
        value -= _shifted_log(shifted, small, y) + _shifted_log(shifted + self._low_gap, large, y)
        return np.asarray(value / small)

    def _power(self, k: int) -> float:
        if k == 0:
            return 1.0
        # small k m_k = E (k - A - B)_+ for A, B binomial(k) with 1 - small, 1 - large.
        small, large = self._pair
        one = np.convolve([small, 1 - small], [large, 1 - large])
        mass = np.ones(1)
        for _ in range(k):
            mass = np.convolve(mass, one)[:k]
        return float(mass @ np.arange(k, k - len(mass), -1)) / (small * k)


@dataclass(frozen=True, repr=False)
class Discrete(_Atoms):
    """A finite set of atoms; see `discrete`.

    Parameters
    ----------
    positions : (n,) sequence
        In any order; equal ones become one atom.
    weights : (n,) sequence
        Not negative, with sum 1 to 1e-9. Atoms of weight 0 are left out.

    Examples
    --------
    >>> import overparam as op
    >>> op.spectra.Discrete([1.0, 0.0, 1.0], [0.25, 0.5, 0.25])
    Discrete(positions=(0.0, 1.0), weights=(0.5, 0.5))
    """

    positions: tuple[float, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        positions, weights = _checked_atoms("positions", self.positions, self.weights)
        object.__setattr__(self, "positions", positions)
        object.__setattr__(self, "weights", weights)

    def scaled(self, factor: float) -> Discrete:
        """Return the law of `factor` times x."""
        factor = _factor(factor)
        return Discrete(tuple(x * factor for x in self.positions), self.weights)

    @property
    def atoms(self) -> tuple[tuple[float, float], ...]:
        """Position and mass of each atom, by increasing position."""
        return tuple(zip(self.positions, self.weights, strict=True))


@dataclass(frozen=True)
class FreeSum(Law):
    """The free sum of a law and a semicircle, by Biane's parametrisation; see `free_sum`.

    With G the Cauchy transform of the law, that of the sum at z = w + variance G(w) is G(w), for w
    on or above a curve u + i v(u); the curve itself belongs to real z, with density
    v/(pi variance). Above the curve the map from w to z is one to one, and every w with a positive
    imaginary part that gives the z wanted is on or above it.

    Parameters
    ----------
    law : Law
        The free sum of a law and a semicircle is replaced by that law, and the variances add up.
    variance : float
        Of the semicircle; positive.

    Examples
    --------
    >>> import overparam as op
    >>> law = op.spectra.FreeSum(op.spectra.discrete([1.0], [1.0]), 0.25)
    >>> law.edges, round(float(law.density(1.0)), 12) == round(2 / 3.141592653589793, 12)
    ((0.0, 2.0), True)
    """

    law: Law
    variance: float

    def __post_init__(self) -> None:
        if not isinstance(self.law, Law):
            raise _check.bad("law", "a law of op.spectra", self.law, TypeError)
        law: Law = self.law
        variance = _check.real("variance", self.variance, minimum=0.0, strict_minimum=True)
        if isinstance(law, FreeSum):
            variance += law.variance
            law = law.law
        if isinstance(law, Jacobi) and law.per_dimension:
            law = dataclasses.replace(law, per_dimension=False)
        object.__setattr__(self, "law", law)
        object.__setattr__(self, "variance", variance)

    def scaled(self, factor: float) -> FreeSum:
        """Return the law of `factor` times x."""
        factor = _factor(factor)
        return FreeSum(self.law.scaled(factor), self.variance * factor**2)

    # ---- edges ----

    @cached_property
    def _root(self) -> float:
        return math.sqrt(self.variance)

    @cached_property
    def _curve(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Ends of the curve's arcs in u, narrow places between them, and how narrow they are.

        An arc ends where E 1/(u - x)^2 = 1/variance. In each gap of the law that function is
        convex; where its minimum is just above 1/variance, an arc nearly ends.
        """
        t = self.variance
        blocks = sorted(
            [
                *zip(self.law.edges[::2], self.law.edges[1::2], strict=True),
                *((x, x) for x, _ in self.law.atoms),
            ]
        )
        merged = [list(blocks[0])]
        for low, high in blocks[1:]:
            if low > merged[-1][1]:
                merged.append([low, high])
            else:
                merged[-1][1] = max(merged[-1][1], high)
        lows, highs = np.array(merged).T
        left, right = highs[:-1], lows[1:]

        def bisected(a: FloatArray, b: FloatArray, before: Callable[..., Any]) -> FloatArray:
            low, high = np.zeros(a.shape), np.full(a.shape, np.pi)
            for _ in range(64 if len(a) else 0):
                middle = (low + high) / 2
                short = before(_between(a, b, middle))
                low, high = np.where(short, middle, low), np.where(short, high, middle)
            return _between(a, b, (low + high) / 2)

        def fall(u: FloatArray) -> FloatArray:  # E 1/(u - x)^2
            with np.errstate(all="ignore"):
                value = -self._at(u + 0j)[1].real
            return np.where(np.isnan(value), np.inf, value)

        def bend(u: FloatArray) -> FloatArray:  # its derivative, by a complex step
            step = 1e-6 * np.minimum(u - left, right - u)
            with np.errstate(all="ignore"):
                value = -self._at(u + 1j * step)[1].imag / step
            return np.where(np.isnan(value), np.where(u - left < right - u, -np.inf, np.inf), value)

        lowest = bisected(left, right, lambda u: bend(u) < 0)
        open_ = t * fall(lowest) < 1
        near = np.concatenate([lows[:1], highs[-1:], left[open_], right[open_]])
        far = np.concatenate(
            [lows[:1] - self._root, highs[-1:] + self._root, lowest[open_], lowest[open_]]
        )
        ends = np.sort(bisected(near, far, lambda u: t * fall(u) > 1))
        shut = lowest[~open_]
        # Near a cusp v^2 = 3 ((u - lowest)^2 + width^2).
        return ends, shut, self._height(shut) / math.sqrt(3)

    @cached_property
    def _edges(self) -> FloatArray:
        ends = self._curve[0]
        with np.errstate(all="ignore"):
            edges = ends + self.variance * self._at(ends + 0j)[0].real
        return np.maximum.accumulate(np.where(np.isfinite(edges), edges, ends))

    @cached_property
    def _heaps(self) -> FloatArray:
        """Mass up to the end of each interval."""
        ends = self._curve[0]
        gaps = (ends[1:-1:2] + ends[2::2]) / 2
        return np.append(np.asarray(self.law.cdf(gaps)), 1.0)

    @property
    def support(self) -> tuple[float, float] | None:
        """Lowest and highest point of the law."""
        return self.edges[0], self.edges[-1]

    @property
    def atoms(self) -> tuple[tuple[float, float], ...]:
        """Nothing: those of the law are spread by the semicircle."""
        return ()

    @cached_property
    def edges(self) -> tuple[float, ...]:
        """Edges of the part with a density, sorted: (low, high) for each of its intervals."""
        return tuple(self._edges.tolist())

    # ---- the curve ----

    def _height(self, u: FloatArray) -> FloatArray:
        """Return v(u), where E 1/((u - x)^2 + v^2) = 1/variance.

        The reciprocal of the left-hand side is increasing and concave in v^2: Newton's steps reach
        the solution from below.
        """
        square = np.full(u.shape, self.variance)
        active = np.arange(u.size)
        for _ in range(80):
            at, v = square[active], np.sqrt(square[active])
            with np.errstate(all="ignore"):
                value, slope = self._at(u[active] + 1j * v)
                mean = -value.imag / v
                factor = 1 - 2 * mean * (1 - self.variance * mean) / (mean + slope.real)
            factor = np.where(factor > 0.01, np.minimum(factor, 100.0), 0.01)
            square[active] = np.clip(at * factor, 1e-200, self.variance)
            active = active[np.abs(factor - 1) > 4 * _EPS]
            if not len(active):
                break
        return np.asarray(np.sqrt(square))

    def _masses(self, u: FloatArray) -> tuple[NDArray[Any], FloatArray, FloatArray]:
        """Return w on the curve, z, and v dz/du."""
        w = u + 1j * self._height(u)
        value, slope = self._at(w)
        turn = 1 + self.variance * slope
        with np.errstate(all="ignore"):
            mass = w.imag * np.abs(turn) ** 2 / turn.real
        return w, u + self.variance * value.real, np.where(mass < np.inf, np.abs(mass), 0.0)

    def _nodes(self, n: int, arc: int) -> tuple[FloatArray, FloatArray]:
        """Return n nodes u on an arc, and their weights in an integral over u.

        At equal angles, where the function to be integrated has no singular point close to them;
        else those of `_graded`, cut where the mass is as small as the error exp(-c/step) of
        equal steps. The singular points of a hard edge that has just become soft are not beyond
        the end, but above and below it: this makes c smaller.
        """
        ends, lowest, narrow = self._curve
        low, high = ends[2 * arc], ends[2 * arc + 1]
        length = high - low
        # Close to an end are the law's own edge, and the other end of a narrow gap.
        blocks = np.array([*self.law.edges, *(x for x, _ in self.law.atoms)])
        gaps = [np.abs(blocks - end).min() for end in (low, high)]
        gaps += [low - ends[2 * arc - 1]] if arc > 0 else []
        gaps += [ends[2 * arc + 2] - high] if 2 * arc + 2 < len(ends) else []
        inside = (lowest > low) & (lowest < high)
        angle = np.arccos(1 - 2 * (lowest[inside] - low + 1j * narrow[inside]) / length)
        if min(gaps) > _CLOSE * length and np.all(2 * n * np.abs(angle.imag) > 33):
            angle = (np.arange(n) + 0.5) * np.pi / n
            left, right = np.sin(angle / 2) ** 2, np.cos(angle / 2) ** 2
            spacing = np.sin(angle) / 2 * np.pi / n
        else:
            place = np.log(angle / (np.pi - angle))
            place = place[np.abs(place.imag) < 1]
            if len(place) > n / 8:
                place = place[:0]
            # A cusp's mass falls with the fourth power of the distance.
            places, widths = place.real, np.maximum(np.abs(place.imag), _CUSP)
            grid = np.linspace(-100.0, 100.0, 401)
            left, right, spacing = _graded(grid, places, widths)
            u = np.where(left < 0.5, low + length * left, high - length * right)
            with np.errstate(divide="ignore"):
                size = np.log(self._masses(u)[2] * spacing)
            size -= size.max()
            first = np.searchsorted(np.maximum.accumulate(size), -_CUTS)
            last = np.searchsorted(np.maximum.accumulate(size[::-1]), -_CUTS)
            start, stop = grid[np.maximum(first - 1, 0)], -grid[np.maximum(last - 1, 0)]
            strip = _STRIP[len(places) > 0]
            fine = _CUTS * (stop - start) <= strip * np.pi**2 * n
            k = max(int(np.count_nonzero(fine)) - 1, 0)
            step = (stop[k] - start[k]) / n
            y = start[k] + (np.arange(n) + 0.5) * step
            left, right, spacing = _graded(y, places, widths)
            spacing = spacing * step
        u = np.where(left < 0.5, low + length * left, high - length * right)
        return u, length * spacing

    def _arcs(self, n: int) -> list[tuple[NDArray[Any], FloatArray, FloatArray]]:
        """Return n points w of the curve, z and the mass of each, for each interval."""
        arcs = []
        for arc, total in enumerate(np.diff(self._heaps, prepend=0.0)):
            u, spacing = self._nodes(n, arc)
            w, x, mass = self._masses(u)
            x = np.clip(x, self._edges[2 * arc], self._edges[2 * arc + 1])
            mass *= spacing
            if mass.sum() == 0:  # one node, at a cusp
                mass = spacing
            arcs.append((w, np.maximum.accumulate(x), mass * (total / mass.sum())))
        return arcs

    @cached_property
    def _table(self) -> list[tuple[FloatArray, FloatArray, FloatArray, FloatArray]]:
        """z, u, v^2 and the mass below, at points of each arc, its ends included."""
        table = []
        ends, edges = self._curve[0], self._edges
        for arc, (w, x, mass) in enumerate(self._arcs(_TABLE)):
            two = slice(2 * arc, 2 * arc + 2)
            start, stop = self._heaps[arc] - mass.sum(), self._heaps[arc]
            below = np.clip(start + np.cumsum(mass) - mass / 2, start, stop)
            table.append(
                (
                    np.concatenate([edges[two][:1], x, edges[two][1:]]),
                    np.concatenate([ends[two][:1], w.real, ends[two][1:]]),
                    np.concatenate([[0.0], w.imag**2, [0.0]]),
                    np.concatenate([[start], below, [stop]]),
                )
            )
        return table

    # ---- from z to w ----

    def _at(self, w: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the law's G(w) and G'(w), infinite or NaN where they are singular."""
        with np.errstate(all="ignore"):
            return self.law._resolvents(w)

    def _above(self, z: NDArray[Any], w: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return w above or on the curve, and G(w), for z = w + variance G(w), from a start."""
        t, floor = self.variance, z.imag
        value = np.empty_like(w)
        active = np.arange(w.size)
        for count in range(40):
            at, goal = w[active], z[active]
            with np.errstate(all="ignore"):
                here, slope = self._at(at)
                shift = t * here
                rest = at + shift - goal
                step = rest / (1 + t * slope)
            value[active] = here
            # Rounding: later iterates are as good as they get.
            slack = 4 * 4.0 ** max(count - 11, 0) * _EPS if count < 18 else 2**14 * _EPS
            size = np.abs(at.real)
            done = np.abs(rest.real) <= slack * (size + np.abs(shift))
            spread = at.imag + np.abs(shift.imag) + t * np.abs(slope.imag) * size
            done &= np.abs(rest.imag) <= slack * spread
            moved = at - np.where(np.isfinite(step), step, 0.25 * at.imag)
            low = np.maximum(floor[active], 0.1 * at.imag)
            low = np.where(
                floor[active] > 0, np.minimum(low, np.maximum(floor[active], moved.imag)), low
            )
            w[active] = np.where(done, at, moved.real + 1j * np.maximum(moved.imag, low))
            active = active[~done]
            if not len(active):
                return w, value
        w[active] = self._bisected(z[active])
        value[active] = self._at(w[active])[0]
        return w, value

    def _bisected(self, z: NDArray[Any]) -> NDArray[Any]:
        """Return w for z by nested bisection, which cannot fail: both maps are monotone."""
        t, root = self.variance, self._root
        low, high = z.real - root, z.real + root

        def height(u: FloatArray) -> FloatArray:
            below = np.maximum(z.imag, 1e-30 * root)
            above = z.imag + root
            for _ in range(60):
                v = np.sqrt(below) * np.sqrt(above)
                short = v + t * self._at(u + 1j * v)[0].imag < z.imag
                below, above = np.where(short, v, below), np.where(short, above, v)
            return np.asarray(np.sqrt(below) * np.sqrt(above))

        for _ in range(56):
            u = (low + high) / 2
            w = u + 1j * height(u)
            short = u + t * self._at(w)[0].real < z.real
            low, high = np.where(short, u, low), np.where(short, high, u)
        return w

    def _inside(self, x: FloatArray) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return w and G(w) for x between the edges of an interval."""
        law = self.law
        if isinstance(law, MarchenkoPastur):
            # 1/G solves a cubic with real coefficients, of which the other solution is real.
            unit = max(map(abs, self.edges))
            first, second = law.scale / unit, law.scale / (law.ratio * unit)
            y, s = x / unit, (self._root / unit) ** 2
            b, c, d = first - y - second, second * y + s, -second * s
            q = (b**2 - 3 * c) / 9
            r = (b * (2 * b**2 - 9 * c) + 27 * d) / 54
            cube = -np.sign(r) * np.cbrt(np.abs(r) + np.sqrt(np.maximum(r**2 - q**3, 0.0)))
            pair = np.divide(q, cube, out=np.zeros_like(q), where=cube != 0)
            real, imaginary = -(cube + pair) / 2 - b / 3, math.sqrt(0.75) * np.abs(cube - pair)
            square = real**2 + imaginary**2
            with np.errstate(all="ignore"):
                w = unit * ((y - s * real / square) + 1j * s * imaginary / square)
            w = np.where(np.isfinite(w) & (w.imag > 0), w, x + 1j * self._root)
        else:
            w = np.empty(x.shape, dtype=np.complex128)
            arc = np.searchsorted(self._edges, x) // 2
            for k, (at, u, square, _) in enumerate(self._table):
                here = arc == k
                y = x[here]
                w[here] = np.interp(y, at, u) + 1j * np.sqrt(np.interp(y, at, square))
            w.imag = np.where(w.imag > 0, w.imag, 1e-3 * self._root)
        return self._above(x + 0j, w)

    def _outside(self, x: FloatArray) -> FloatArray:
        """Return the real w for x off the intervals, or at their edges."""
        ends, t = self._curve[0], self.variance
        gap = np.searchsorted(self._edges, x, side="left")
        gap = (gap + (gap < len(ends)) * np.isin(x, self._edges)) // 2
        low = np.maximum(np.append(-np.inf, ends[1::2])[gap], x - self._root)
        high = np.minimum(np.append(ends[::2], np.inf)[gap], x + self._root)
        high = np.maximum(low, high)
        u = np.clip(x, low, high)
        for _ in range(120 if u.size else 0):
            with np.errstate(all="ignore"):
                value, slope = self._at(u + 0j)
                rest = u + t * value.real - x
                moved = u - rest / (1 + t * slope.real)
            low, high = np.where(rest < 0, u, low), np.where(rest > 0, u, high)
            tame = (moved > low) & (moved < high)
            moved = np.where(rest == 0, u, np.where(tame, moved, (low + high) / 2))
            still = np.abs(moved - u) <= _EPS * np.abs(u)
            u = moved
            if still.all():
                break
        return u

    def _interior(self, x: FloatArray) -> NDArray[np.bool_]:
        return np.asarray(
            (np.searchsorted(self._edges, x) % 2 == 1) & ~np.isin(x, self._edges) & np.isfinite(x)
        )

    # ---- the law ----

    def density(self, x: ArrayLike) -> FloatArray:
        """Return the density; 0 at the edges and outside."""
        x = _reals("x", x)
        density = np.zeros(x.shape)
        inside = self._interior(x)
        density[inside] = self._inside(x[inside])[0].imag / (math.pi * self.variance)
        density[np.isnan(x)] = np.nan
        return _answer(density)

    def cdf(self, x: ArrayLike) -> FloatArray:
        """Return the mass of (-inf, x]."""
        x = _reals("x", x)
        inside = self._interior(x)
        heaps = np.append(0.0, self._heaps)
        total = np.asarray(heaps[np.searchsorted(self._edges[1::2], x, side="right")])
        total[inside] = self._below(x[inside], *self._inside(x[inside]))
        return _answer(np.where(np.isnan(x), np.nan, total))

    def _below(self, x: FloatArray, w: NDArray[Any], value: NDArray[Any]) -> FloatArray:
        """Return the mass below x: -Im(E log(w - x) + variance G^2/2)/pi, up to a constant."""
        turn = self.law._potential(w).imag + self.variance * value.real * value.imag
        heaps = np.append(0.0, self._heaps)
        arc = np.searchsorted(self._edges, x) // 2
        return np.asarray(np.clip(1 - turn / math.pi, heaps[arc], heaps[arc + 1]))

    def quantile(self, p: ArrayLike) -> FloatArray:
        """Return the lowest x with ``cdf(x) >= p``, never inside a gap."""
        p = _reals("p", p)
        if not np.all((p >= 0) & (p <= 1)):
            raise _check.bad("p", "between 0 and 1", p)
        shape, p = p.shape, p.ravel()
        arc = np.minimum(np.searchsorted(self._heaps, p), len(self._heaps) - 1)
        start, stop = self._edges[2 * arc], self._edges[2 * arc + 1]
        bottom, top = np.append(0.0, self._heaps)[arc], self._heaps[arc]
        # Newton's steps between bounds, in an angle that resolves both ends of an interval.
        angle = np.empty(p.shape)
        for k, (at, _, _, below) in enumerate(self._table):
            here = arc == k
            angles = 2 * np.arctan2(np.sqrt(at - at[0]), np.sqrt(at[-1] - at))
            angle[here] = np.interp(p[here], below, angles)
        low, high = np.zeros(p.shape), np.full(p.shape, np.pi)
        active = np.nonzero((p > bottom) & (p < top) & (start < stop))[0]
        for _ in range(80 if len(active) else 0):
            at, width = angle[active], (stop - start)[active]
            x = _between(start[active], stop[active], at)
            inside = self._interior(x)
            rest = np.where(at < np.pi / 2, bottom[active], top[active]) - p[active]
            speed = np.zeros(x.shape)
            w, value = self._inside(x[inside])
            rest[inside] = self._below(x[inside], w, value) - p[active][inside]
            speed[inside] = w.imag / (math.pi * self.variance)
            speed *= width * np.sin(at) / 2
            short = rest < 0
            low[active] = np.where(short, at, low[active])
            high[active] = np.where(short, high[active], at)
            with np.errstate(all="ignore"):
                step = rest / speed
            moved = at - step
            tame = (moved > low[active]) & (moved < high[active])
            moved = np.where(tame, moved, (low[active] + high[active]) / 2)
            done = (np.abs(rest) <= _EPS / 2) | (np.abs(step) <= 2 * _EPS * at)
            angle[active] = np.where(done, at, moved)
            active = active[~done & (high[active] - low[active] > _EPS * at)]
            if not len(active):
                break
        inner = _between(start, stop, angle)
        return _answer(np.where(p <= bottom, start, np.where(p >= top, stop, inner)).reshape(shape))

    def cauchy(self, z: ArrayLike) -> NDArray[Any]:
        """Return the Cauchy transform G(z) = E 1/(z - x)."""
        z = _numbers("z", z, "a complex number or an array of them", kinds="iufc")
        x = z.real
        off = (np.searchsorted(self._edges, x) % 2 == 0) & ~np.isin(x, self._edges)
        on_law = (z.imag == 0) & ~off
        if on_law.any():
            raise _check.bad("z", "off the law's support where it is real", z[on_law])
        if z.dtype == np.float64:
            return self.hilbert(z)
        transform = np.empty(z.shape, dtype=np.complex128)
        real = z.imag == 0
        transform[real] = self.hilbert(x[real])
        goal = x[~real] + 1j * np.abs(z.imag[~real])
        start = goal + 1j * self._root
        for _ in range(2):
            start = goal - self.variance * self._at(start)[0]
        value = self._above(goal, start)[1]
        transform[~real] = np.where(z.imag[~real] > 0, value, value.conj())
        return _answer(transform)

    def hilbert(self, x: ArrayLike) -> FloatArray:
        """Return the real part of the Cauchy transform on the real axis."""
        x = _reals("x", x)
        value = np.empty(x.shape)
        inside = self._interior(x)
        value[inside] = self._inside(x[inside])[1].real
        w = self._outside(x[~inside])
        value[~inside] = self._at(w + 0j)[0].real
        return _answer(value)

    def logdet(self, z: ArrayLike) -> FloatArray:
        """Return the log-determinant per eigenvalue, E log(1 + z x)."""
        z = _invertible(z, self.edges)
        value = np.zeros(z.shape)
        moved = z != 0
        slope = z[moved]
        # E log(y - x) is that of the law at w, plus variance G^2/2.
        y = -1 / slope
        w = self._outside(y)
        transform = self._at(w + 0j)[0].real
        part = np.empty(w.shape)
        same = w * y > 0
        part[same] = self.law.logdet(-1 / w[same])
        part[same] += np.log1p(slope[same] * self.variance * transform[same])
        u = w[~same]
        reach = np.abs(u[:, np.newaxis] - self._curve[0]).min(axis=1, initial=np.inf)
        part[~same] = self.law._potential(u + 1e-9j * reach).real + np.log(np.abs(slope[~same]))
        value[moved] = part + self.variance * transform**2 / 2
        return _answer(value)

    def moments(self, k: int) -> float:
        """Return the k-th moment, E x^k."""
        k = _check.integer("k", k, minimum=0)
        # The sum over j of C(k, j)/(j + 1) variance^j times the coefficient of order k - 2 j of
        # M^(j + 1), M the generating function of the law's moments.
        series = np.array([self.law.moments(j) for j in range(k + 1)])
        power, moment, factor = series, 0.0, 1.0
        with np.errstate(over="ignore"):
            for j in range(k // 2 + 1):
                moment += factor / (j + 1) * float(power[k - 2 * j])
                factor *= self.variance * (k - j) / (j + 1)
                power = np.convolve(power, series)[: k + 1]
        return moment

    def quadrature(self, n: int) -> tuple[FloatArray, FloatArray]:
        """Return nodes and weights that integrate functions over the law.

        Parameters
        ----------
        n : int
            Number of nodes on each interval, at least 1. 200 give twelve digits of smooth
            functions, and of the law's own Hilbert transform; nine or more where a hard edge
            has only just become soft, or a gap is about to open. A law of many atoms that
            nearly separate asks for some twenty for each.

        Returns
        -------
        nodes : array
            In increasing order.
        weights : array
            Not negative, with sum 1.
        """
        n = _check.integer("n", n, minimum=1)
        arcs = self._arcs(n)
        nodes = np.concatenate([x for _, x, _ in arcs])
        weights = np.concatenate([mass for _, _, mass in arcs])
        return nodes, weights / weights.sum()


def _graded(
    y: FloatArray, places: FloatArray, widths: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return sin^2 and cos^2 of half of angles, and the derivative of the former by y.

    With s = log(angle/(pi - angle)), y = s + the sum of asinh((s - place)/width): equal steps in y
    see singular points close to an end, and those at place + i width.
    """
    low, high = np.full(y.shape, -100.0), np.full(y.shape, 100.0)
    for _ in range(60):
        s = (low + high) / 2
        short = s + np.arcsinh((s[:, np.newaxis] - places) / widths).sum(axis=1) < y
        low, high = np.where(short, s, low), np.where(short, high, s)
    s = (low + high) / 2
    speed = 1 + (1 / np.hypot(s[:, np.newaxis] - places, widths)).sum(axis=1)
    near, far = 1 / (1 + np.exp(-s)), 1 / (1 + np.exp(s))
    left, right = np.sin(np.pi * near / 2), np.sin(np.pi * far / 2)
    return left**2, right**2, np.pi * left * right * near * far / speed


def _angles(n: int, ends: tuple[float, float]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return sin^2 and cos^2 of half of n angles, and the spacing of these.

    Midpoints of equal angles converge like rate^(2n), given by the nearest pole of the tilt.
    Where that is slow, angle = pi/(1 + exp(-w)) with equal steps in w: this converges like
    exp(-pi^2/step), however close to the ends the tilt or the integrand has its poles.
    """
    gaps = np.array(ends)
    rate = np.max((np.sqrt(gaps) + np.sqrt(1 + gaps)) ** -2.0)
    # Towards an end the integrand in w falls as angle^3/(angle^2 + 4 gap); it is cut where that
    # is as small as the error of the steps, for n steps between the cuts.
    cuts = np.exp(-_CUTS[:, np.newaxis])
    cubic = np.cbrt(4 * np.minimum(gaps, 1.0) * cuts)
    reaches = np.log(np.pi / np.maximum(cubic, cuts))
    fine = _CUTS * reaches.sum(axis=1) <= np.pi**2 * n
    reach = reaches[max(np.count_nonzero(fine) - 1, 0)]
    if rate**2 <= math.exp(-(np.pi**2) / reach.sum()):
        angle = (np.arange(n) + 0.5) * np.pi / n
        return np.sin(angle / 2) ** 2, np.cos(angle / 2) ** 2, np.ones(n)
    w = -reach[0] + (np.arange(n) + 0.5) * reach.sum() / n
    angle, rest = np.pi / (1 + np.exp(-w)), np.pi / (1 + np.exp(w))
    return np.sin(angle / 2) ** 2, np.sin(rest / 2) ** 2, angle * rest


def _invertible(z: object, points: Sequence[float]) -> FloatArray:
    """Return real z with 1 + z x > 0 between the points."""
    z = _reals("z", z)
    low, high = min(points), max(points)
    with np.errstate(invalid="ignore"):
        allowed = np.isfinite(z) & (1 + z * low > 0) & (1 + z * high > 0)
    if not allowed.all():
        must = f"finite, with 1 + z x > 0 for x from {low:g} to {high:g}"
        raise _check.bad("z", must, z[~allowed])
    return z


def _between(start: FloatArray, stop: FloatArray, angle: FloatArray) -> FloatArray:
    """Return points from `start` (angle 0) to `stop` (angle pi), beyond neither by rounding."""
    between = start + (stop - start) * np.sin(angle / 2) ** 2
    return np.asarray(np.clip(between, np.minimum(start, stop), np.maximum(start, stop)))


def _factor(factor: object) -> float:
    return _check.real("factor", factor, minimum=0.0, strict_minimum=True)


def _over(numerator: float, x: FloatArray) -> FloatArray:
    """Return numerator / x, 0 for a numerator 0: the limit from inside at an edge at 0."""
    return numerator / x if numerator else np.zeros(x.shape)


def _shifted_log(shifted: NDArray[Any], base: float, y: NDArray[Any]) -> NDArray[Any]:
    """Return shifted log(shifted/base) for shifted = base + y."""
    if np.iscomplexobj(shifted):
        return np.asarray(shifted * np.log(shifted / base))
    change = y / base
    return np.asarray(
        shifted
        * np.where(change > -0.5, np.log1p(np.maximum(change, -0.5)), np.log(shifted / base))
    )


def _checked_atoms(
    name: str, positions: object, weights: object
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return sorted positions and the positive weights of each."""
    places = _check.vector(name, positions)
    if len(places) == 0:
        raise _check.bad(name, "at least one position", places)
    masses = _check.vector("weights", weights, len(places))
    if masses.min() < 0:
        raise _check.bad("weights", ">= 0", masses)
    total = math.fsum(masses)
    if abs(total - 1) > _SUM_TOLERANCE:
        raise _check.bad("weights", f"numbers with sum 1 to {_SUM_TOLERANCE:g}", masses)
    if abs(total - 1) > 1e-15:  # weights that are normalised already keep their bits
        masses /= total
    merged: dict[float, float] = {}
    for place, mass in zip((places + 0.0).tolist(), masses.tolist(), strict=True):
        if mass > 0:
            merged[place] = merged.get(place, 0.0) + mass
    kept = sorted(merged)
    return tuple(kept), tuple(merged[place] for place in kept)


def semicircle(variance: float) -> Semicircle:
    """Return Wigner's semicircle: eigenvalues of large symmetric matrices with random entries.

    Parameters
    ----------
    variance : float
        Of the law, which is centred at 0 and has the radius 2 sqrt(variance); positive.

    Returns
    -------
    Law

    Raises
    ------
    ValueError
        If `variance` is not positive.

    Examples
    --------
    >>> import overparam as op
    >>> law = op.spectra.semicircle(0.25)
    >>> law.support, law.moments(2)
    ((-1.0, 1.0), 0.25)
    """
    return Semicircle(variance)


def marchenko_pastur(ratio: float, scale: float = 1.0) -> MarchenkoPastur:
    """Return the law of the eigenvalues of (scale/m) G G^T, for G standard normal, d times m.

    Parameters
    ----------
    ratio : float
        m/d for d to infinity; positive.
    scale : float
        The mean of the law; positive.

    Returns
    -------
    Law
        For a ratio below 1 with an atom 1 - ratio at 0.

    Raises
    ------
    ValueError
        If `ratio` or `scale` is not positive.

    Examples
    --------
    >>> import overparam as op
    >>> law = op.spectra.marchenko_pastur(0.25)
    >>> law.support, law.atoms, law.moments(2)
    ((1.0, 9.0), ((0.0, 0.75),), 5.0)
    """
    return MarchenkoPastur(ratio, scale)


def jacobi(gamma: float, gamma_star: float) -> Jacobi:
    """Return the law of squared cosines of the angles between two independent subspaces.

    The subspaces are uniformly random, of dimensions gamma d and gamma_star d in d dimensions. The
    law is that of the eigenvalues of P Q P, for the projections P and Q, on the first subspace.

    Parameters
    ----------
    gamma : float
        Relative dimension of the first subspace, in (0, 1].
    gamma_star : float
        Relative dimension of the second subspace, in (0, 1].

    Returns
    -------
    Law
        Per direction of the first subspace, with atoms 1 - gamma_star/gamma at 0 and
        (gamma + gamma_star - 1)/gamma at 1 where these are positive. If one of the subspaces is
        the whole space, there are atoms only.

    Raises
    ------
    ValueError
        If `gamma` or `gamma_star` is not in (0, 1].

    Examples
    --------
    >>> import overparam as op
    >>> law = op.spectra.jacobi(0.5, 0.25)
    >>> law.atoms, round(law.moments(1), 12)
    (((0.0, 0.5),), 0.25)
    """
    return Jacobi(gamma, gamma_star)


def discrete(atoms: ArrayLike, weights: ArrayLike) -> Discrete:
    """Return a law of finitely many atoms.

    Parameters
    ----------
    atoms : (n,) sequence
        Positions, in any order; equal ones become one atom.
    weights : (n,) sequence
        Masses of the atoms, with sum 1 to 1e-9.

    Returns
    -------
    Law

    Raises
    ------
    ValueError
        If `atoms` is empty, or `weights` are negative, of another length, or do not add up to 1.

    Examples
    --------
    >>> import overparam as op
    >>> law = op.spectra.discrete([0.0, 2.0], [0.5, 0.5])
    >>> law.moments(3), law.support, law.edges
    (4.0, None, ())
    """
    return Discrete(*_checked_atoms("atoms", atoms, weights))


def free_sum(law: Law, variance: float) -> Law:
    """Return the free sum of a law and a semicircle.

    The law of the eigenvalues of A + B, for a large symmetric matrix A with eigenvalues of the
    given law, and an independent B with Gaussian entries of variance `variance`/d.

    Parameters
    ----------
    law : Law
        Any law; its atoms are spread by the semicircle.
    variance : float
        Of the semicircle; at least 0.

    Returns
    -------
    Law
        `law` itself for `variance` 0; a semicircle for a semicircle.

    Raises
    ------
    TypeError
        If `law` is not a law.
    ValueError
        If `variance` is negative.

    Examples
    --------
    >>> import overparam as op
    >>> law = op.spectra.free_sum(op.spectra.discrete([-1.0, 1.0], [0.5, 0.5]), 0.25)
    >>> len(law.edges) // 2, law.moments(2), float(law.quantile(0.5)) == law.edges[1]
    (2, 1.25, True)
    >>> op.spectra.free_sum(op.spectra.semicircle(1.0), 2.0)
    Semicircle(variance=3.0)
    """
    if not isinstance(law, Law):
        raise _check.bad("law", "a law of op.spectra", law, TypeError)
    variance = _check.real("variance", variance, minimum=0.0)
    if variance == 0:
        return law
    if isinstance(law, Semicircle):
        return Semicircle(law.variance + variance)
    return FreeSum(law, variance)


def to_plain(law: Law) -> dict[str, Any]:
    """Return a law as plain data that JSON can hold exactly; `from_plain` makes it a law again.

    Raises
    ------
    TypeError
        If the law is not one of this module.

    Examples
    --------
    >>> from overparam import spectra
    >>> spectra.to_plain(spectra.semicircle(2.0))
    {'kind': 'Semicircle', 'variance': 2.0}
    """
    if _LAWS.get(type(law).__name__) is not type(law):
        raise _check.bad("law", "one of op.spectra to become plain data", law, TypeError)
    plain: dict[str, Any] = {"kind": type(law).__name__}
    for field in dataclasses.fields(cast(Any, law)):
        value = getattr(law, field.name)
        plain[field.name] = to_plain(value) if isinstance(value, Law) else value
    return plain


def from_plain(data: Mapping[str, Any]) -> Law:
    """Return the law of `to_plain`, also after a passage through JSON.

    Raises
    ------
    ValueError
        If the data do not name a law of this module.

    Examples
    --------
    >>> from overparam import spectra
    >>> spectra.from_plain({"kind": "Semicircle", "variance": 2.0})
    Semicircle(variance=2.0)
    """
    kind = _LAWS.get(data.get("kind", ""))
    if kind is None:
        raise _check.bad("data", "those of a law of op.spectra", dict(data))
    return kind(
        **{
            name: from_plain(value) if isinstance(value, Mapping) else value
            for name, value in data.items()
            if name != "kind"
        }
    )


_LAWS: dict[str, Callable[..., Law]] = {
    kind.__name__: kind for kind in (Discrete, FreeSum, Jacobi, MarchenkoPastur, Semicircle)
}
