"""Results: what every theory function and every simulation returns, and what can be done with it.

There are three kinds, `Trajectory`, `Point` and `Spectrum`. A room derives from a kind only to add
array fields, each declared with its named axes (without the replica axis)::

    @record
    class OverlapTrajectory(Trajectory):
        time_label: ClassVar[str] = "t = steps / N"
        M: FloatArray = array_field("time", "student", "teacher")
        P: FloatArray = array_field("teacher", "teacher_2", sampled=False)

A result with replicas is called sampled; it has the replica axis first in every field that is not
declared ``sampled=False``, and `diverged`, which marks the replicas that ended in values that are
not finite. Everything in a result is read-only.
"""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import os
import re
import threading
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Self, TypeVar, cast, dataclass_transform

import numpy as np
from numpy.typing import NDArray

from overparam import _check, _core
from overparam._check import FloatArray as FloatArray
from overparam._core import Status
from overparam._problem import BaseProblem, import_room

__all__ = [
    "ConvergenceError",
    "Point",
    "Result",
    "Spectrum",
    "Status",
    "Table",
    "Trajectory",
    "compare",
    "interrupted",
    "load",
]

BoolArray = NDArray[np.bool_]
PathLike = str | os.PathLike[str]

R = TypeVar("R", bound="Result")

# Differences below this fraction of the values compared are rounding, not disagreement.
_ROUNDING = 1e-12

# Entries of the largest temporary array of a broadened density.
_BLOCK = 2**20


# ---- declaring a result class ----


class _Spec(NamedTuple):
    """How an array field was declared."""

    axes: tuple[str, ...]
    sampled: bool
    dtype: type


def array_field(
    *axes: str,
    sampled: bool = True,
    dtype: type = np.float64,
    default: Any = dataclasses.MISSING,
) -> Any:
    """Declare an array field of a result class.

    Parameters
    ----------
    *axes : str
        Names of the axes, all different, without the replica axis. "time" is the axis of `t`.
    sampled : bool
        Whether the field has the replica axis (first) in sampled results.
    dtype : type
        Type of the entries.
    default : None, optional
        Makes the field optional: None where a result does not have it.

    Returns
    -------
    dataclasses.Field

    Raises
    ------
    ValueError
        If two axes have the same name.

    Examples
    --------
    >>> from overparam import results
    >>> @results.record
    ... class Overlap(results.Point):
    ...     M: results.FloatArray = results.array_field("student", "teacher")
    """
    if len(set(axes)) != len(axes):
        raise ValueError(f"axes must be different names, but was {axes}")
    spec = _Spec(axes, sampled, dtype)
    if default is dataclasses.MISSING:
        return dataclasses.field(metadata={"array": spec})
    return dataclasses.field(default=default, metadata={"array": spec})


@dataclass_transform(
    frozen_default=True,
    kw_only_default=True,
    eq_default=False,
    field_specifiers=(array_field, dataclasses.field),
)
def record(cls: type[R]) -> type[R]:
    """Make a result class of a class body: a frozen, keyword-only dataclass without ``==``.

    Examples
    --------
    >>> from overparam import results
    >>> @results.record
    ... class Overlap(results.Point):
    ...     M: results.FloatArray = results.array_field("student", "teacher")
    """
    return dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)(cls)


def make_origin(seed: np.random.SeedSequence | None = None) -> dict[str, Any]:
    """Return the `origin` of a result made now: version, build and seed.

    Parameters
    ----------
    seed : SeedSequence, optional
        The seed that was used. It is kept in a form that can be passed as ``seed=`` again: an
        integer where that says all, else the seed sequence.

    Returns
    -------
    dict

    Examples
    --------
    >>> import numpy as np
    >>> from overparam import results
    >>> results.make_origin(np.random.SeedSequence(7))["seed"]
    7
    """
    build = dict(_core.build_info())
    origin: dict[str, Any] = {"version": build.pop("version"), "build": build}
    if seed is not None:
        origin["seed"] = plain_seed(seed)
    return origin


def plain_seed(seed: np.random.SeedSequence) -> int | np.random.SeedSequence:
    """Return the integer that makes the same seed sequence, or a fresh copy of the sequence.

    Examples
    --------
    >>> import numpy as np
    >>> from overparam import results
    >>> results.plain_seed(np.random.SeedSequence(7))
    7
    """
    if isinstance(seed.entropy, int) and not seed.spawn_key and seed.pool_size == 4:
        return seed.entropy
    return np.random.SeedSequence(seed.entropy, spawn_key=seed.spawn_key, pool_size=seed.pool_size)


# ---- the three kinds ----

_CLASSES: dict[str, type[Result]] = {}


@record
class Result:
    """What all results have.

    Attributes
    ----------
    problem : Problem or None
        The problem; None for functions that take none.
    inputs : mapping
        Other arguments that define the computation, by name.
    method : str
        The method that was used.
    status : Status
        How the computation ended.
    stats : mapping
        Seconds, steps, threads, residuals and the like.
    origin : mapping
        Version, build and, where random numbers were used, the seed; ``origin["seed"]`` can be
        passed as ``seed=`` to repeat the run.
    diverged : (replicas,) array of bool, or None
        The replicas that diverged; None for results without replicas.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.sgd.Problem(width=2, teacher_width=1, lr=0.1, dim=100)
    >>> start = op.sgd.Overlaps.random(problem)
    >>> result = op.sgd.simulate(problem, start, [0, 1], replicas=3, seed=5)
    >>> result.status.name, result.origin["seed"], int(result.diverged.sum())
    ('SUCCESS', 5, 0)
    """

    kind: ClassVar[str]

    problem: BaseProblem | None = None
    inputs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    method: str
    status: Status
    stats: Mapping[str, float | int | str] = dataclasses.field(default_factory=dict)
    origin: Mapping[str, Any]
    diverged: BoolArray | None = array_field("replica", sampled=False, dtype=np.bool_, default=None)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        _CLASSES[cls._label()] = cls

    def __post_init__(self) -> None:
        for name in ("inputs", "stats", "origin"):
            object.__setattr__(self, name, _freeze(getattr(self, name)))
        sizes: dict[str, int] = {}
        for name, spec in self._specs().items():
            value = getattr(self, name)
            if value is None and name in self._optional():
                continue
            array: NDArray[Any] = np.array(value, dtype=spec.dtype, order="C")
            array.setflags(write=False)
            axes = self._axes(name)
            if array.ndim != len(axes) or any(
                sizes.setdefault(axis, size) != size
                for axis, size in zip(axes, array.shape, strict=True)
            ):
                expected = ", ".join(f"{axis}={sizes.get(axis, 'any')}" for axis in axes)
                raise ValueError(
                    f"{name} must be an array with axes ({expected}), "
                    f"but was of shape {array.shape}"
                )
            # A field without axes is a number.
            object.__setattr__(self, name, array if array.ndim else array.item())

    @classmethod
    def _label(cls) -> str:
        """Return the name of the class in files: room and class."""
        return f"{cls.__module__.rpartition('.')[2]}.{cls.__qualname__}"

    @classmethod
    def _specs(cls) -> dict[str, _Spec]:
        return {f.name: f.metadata["array"] for f in _fields(cls) if "array" in f.metadata}

    @classmethod
    def _optional(cls) -> set[str]:
        return {f.name for f in _fields(cls) if f.default is None}

    def _axes(self, name: str) -> tuple[str, ...]:
        """Return the named axes that a field has in this result."""
        spec = self._specs()[name]
        return ("replica", *spec.axes) if self.sampled and spec.sampled else spec.axes

    def _arrays(self) -> dict[str, NDArray[Any]]:
        """Return the array fields that this result has."""
        arrays = {name: getattr(self, name) for name in self._specs()}
        return {name: np.asarray(array) for name, array in arrays.items() if array is not None}

    def __reduce__(self) -> tuple[Any, ...]:
        fields = {f.name: _thaw(getattr(self, f.name)) for f in _fields(type(self))}
        return _rebuild, (type(self), fields)

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{name} {array.shape}" if array.ndim else f"{name} {array.item():.6g}"
            for name, array in self._arrays().items()
        )
        return f"<{type(self).__name__} by {self.method}, {self.status.name}: {shown}>"

    @property
    def sampled(self) -> bool:
        """Whether this result has replicas.

        Examples
        --------
        >>> import overparam as op
        >>> problem = op.sgd.Problem(width=2, teacher_width=1, lr=0.1, dim=100)
        >>> start = op.sgd.Overlaps.random(problem)
        >>> op.sgd.ode(problem, start, [0, 1]).sampled
        False
        """
        return self.diverged is not None

    @property
    def replicas(self) -> int | None:
        """Number of replicas; None for results without.

        Examples
        --------
        >>> import overparam as op
        >>> problem = op.sgd.Problem(width=2, teacher_width=1, lr=0.1, dim=100)
        >>> start = op.sgd.Overlaps.random(problem)
        >>> op.sgd.simulate(problem, start, [0, 1], replicas=3).replicas
        3
        """
        return None if self.diverged is None else len(self.diverged)

    def mean(self) -> Self:
        """Return the mean over replicas.

        Each entry is the mean of the replicas in which it is finite: a replica contributes until
        it diverges.

        Returns
        -------
        same class
            Without the replica axis; ``stats["left_out"]`` is the number of diverged replicas.

        Raises
        ------
        ValueError
            If the result has no replicas.

        Examples
        --------
        >>> import overparam as op
        >>> problem = op.sgd.Problem(width=2, teacher_width=1, lr=0.1, dim=100)
        >>> start = op.sgd.Overlaps.random(problem)
        >>> op.sgd.simulate(problem, start, [0, 1], replicas=3).mean().risk.shape
        (2,)
        """
        return self._reduce("mean", lambda values: _moments(values)[0])

    def sem(self) -> Self:
        """Return the standard error of the mean over replicas (from the ddof=1 variance).

        Returns
        -------
        same class
            Without the replica axis, NaN where fewer than two replicas contribute. Fields that
            have no replica axis are unchanged. ``stats["left_out"]`` is the number of diverged
            replicas.

        Raises
        ------
        ValueError
            If the result has no replicas.

        Examples
        --------
        >>> import overparam as op
        >>> problem = op.sgd.Problem(width=2, teacher_width=1, lr=0.1, dim=100)
        >>> start = op.sgd.Overlaps.random(problem)
        >>> op.sgd.simulate(problem, start, [0, 1], replicas=3).sem().risk.shape
        (2,)
        """
        return self._reduce("sem", lambda values: _moments(values)[1])

    def quantile(self, q: float) -> Self:
        """Return a quantile over replicas, interpolated linearly.

        Parameters
        ----------
        q : float
            Between 0 and 1.

        Returns
        -------
        same class
            Without the replica axis; ``stats["left_out"]`` is the number of diverged replicas.

        Raises
        ------
        ValueError
            If the result has no replicas, or `q` is out of range.

        Examples
        --------
        >>> import overparam as op
        >>> problem = op.sgd.Problem(width=2, teacher_width=1, lr=0.1, dim=100)
        >>> start = op.sgd.Overlaps.random(problem)
        >>> op.sgd.simulate(problem, start, [0, 1], replicas=3).quantile(0.5).risk.shape
        (2,)
        """
        q = _check.real("q", q, minimum=0.0, maximum=1.0)
        return self._reduce(f"quantile {q:g}", lambda values: _quantile(values, q))

    def _reduce(self, statistic: str, function: Callable[[FloatArray], FloatArray]) -> Self:
        if self.diverged is None:
            raise ValueError(
                f"the result must be sampled to take its {statistic}, "
                f"but was {type(self).__name__} by {self.method}, which has no replicas"
            )
        specs = self._specs()
        changes: dict[str, Any] = {
            name: function(array) for name, array in self._arrays().items() if specs[name].sampled
        }
        counts: dict[str, Any] = {
            "statistic": statistic,
            "replicas": len(self.diverged),
            "left_out": int(self.diverged.sum()),
        }
        return _replace(self, **changes, diverged=None, stats={**self.stats, **counts})

    def save(self, path: PathLike) -> Path:
        """Write the result to a file that `load` reads.

        The file is a NumPy ``.npz`` archive without pickles: one member per array, and a member
        ``header`` with everything else as JSON. It is complete or absent, never half written.

        Parameters
        ----------
        path : path
            Where to; ``.npz`` is appended if missing.

        Returns
        -------
        Path
            The file.

        Examples
        --------
        >>> import tempfile, overparam as op
        >>> problem = op.sgd.Problem(width=2, teacher_width=1, lr=0.1, dim=100)
        >>> result = op.sgd.ode(problem, op.sgd.Overlaps.random(problem), [0, 1])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = result.save(folder + "/run")
        ...     bool((op.load(file).risk == result.risk).all())
        True
        """
        arrays = self._arrays()
        header = {
            "kind": self.kind,
            "class": self._label(),
            "fields": {name: self._axes(name) for name in arrays},
            "problem": None if self.problem is None else self.problem.to_dict(),
            "inputs": self.inputs,
            "method": self.method,
            "status": self.status.name,
            "stats": self.stats,
            "origin": self.origin,
        }
        final = _npz_path(path)
        write_npz(final, _RESULT, header, arrays)
        return final

    def to_xarray(self) -> Any:
        """Return the arrays as an xarray.Dataset with named dimensions (replica, time, ...).

        Returns
        -------
        xarray.Dataset
            With `t` as coordinate on "time"; method, status, version and problem are attributes.

        Raises
        ------
        ImportError
            If xarray is not installed.

        Examples
        --------
        >>> import overparam as op
        >>> problem = op.sgd.Problem(width=2, teacher_width=1, lr=0.1, dim=100)
        >>> result = op.sgd.ode(problem, op.sgd.Overlaps.random(problem), [0, 1])
        >>> result.to_xarray()["risk"].dims
        ('time',)
        """
        try:
            import xarray
        except ImportError as error:
            raise ImportError('to_xarray needs xarray: pip install "overparam[sweep]"') from error
        variables = {name: (self._axes(name), array) for name, array in self._arrays().items()}
        coordinates = {"t": variables.pop("t")} if "t" in variables else {}
        attributes = {
            "problem": repr(self.problem),
            "method": self.method,
            "status": self.status.name,
            "version": self.origin.get("version", ""),
        }
        return xarray.Dataset(variables, coordinates, attributes)


@record
class Trajectory(Result):
    """A result on a grid of times.

    A room's class sets `time_label`, and `headline`: the field that it is mainly about, which is a
    number per time and which figures show unless told otherwise.

    Attributes
    ----------
    t : (T,) array
        Times, in the room's unit, which `time_label` names.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.sgd.Problem(width=2, teacher_width=1, lr=0.1)
    >>> start = op.sgd.Overlaps(Q=[[1, 0], [0, 1]], M=[[0.1], [0.2]], P=[[1]])
    >>> result = op.sgd.ode(problem, start, [0, 1])
    >>> result.t, result.time_label, result.headline
    (array([0., 1.]), 't = steps / N', 'risk')
    """

    kind: ClassVar[str] = "Trajectory"
    time_label: ClassVar[str] = "t"
    headline: ClassVar[str] = "risk"

    t: FloatArray = array_field("time", sampled=False)

    def _until_last_valid(self) -> Self:
        """Return the result up to the last time at which anything was computed (is not NaN)."""
        specs = self._specs()
        valid = np.zeros(len(self.t), dtype=bool)
        for name, array in self._arrays().items():
            if name != "t" and "time" in specs[name].axes:
                axis = self._axes(name).index("time")
                others = tuple(i for i in range(array.ndim) if i != axis)
                valid |= ~np.isnan(array).all(axis=others)
        count = int(valid.nonzero()[0].max(initial=-1)) + 1
        changes: dict[str, Any] = {
            name: array.take(range(count), axis=self._axes(name).index("time"))
            for name, array in self._arrays().items()
            if "time" in specs[name].axes
        }
        return _replace(self, **changes)


@record
class Point(Result):
    """A result that does not depend on time: a solution, or a set of solutions.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.sgd.Problem(width=2, teacher_width=1, lr=0.1)
    >>> isinstance(op.sgd.plateau(problem), op.results.Point)
    True
    """

    kind: ClassVar[str] = "Point"


@record
class Spectrum(Result):
    """A result that describes the eigenvalues of an operator, as a measure of mass one.

    The measure is given as a list of eigenvalues, as nodes with weights, or as a curve with atoms.
    A curve may come with either of the others, for `density` without broadening; `atoms` and
    `edges` then say what is known about them and add nothing to the measure.

    Attributes
    ----------
    eigenvalues : (n,) array or None
        In ascending order.
    multiplicities : (n,) array of int, or None
        By default 1 for each of the eigenvalues.
    nodes, weights : (k,) array or None
        A quadrature: weights add up to one.
    grid, values : (g,) array or None
        A curve: density per eigenvalue at increasing positions, linear in between and 0 beyond
        them. With the atoms' masses its integral is one.
    atom_positions, atom_masses : (a,) array or None
        What `atoms` lists.
    edges : (e,) array
        Edges of the continuous part, sorted: low and high for each interval. Between intervals
        the curve counts as 0. Empty if there are none, or if they are not known.
    size : int or None
        Number of eigenvalues with multiplicity; None if it is not known.

    Raises
    ------
    ValueError
        If there is no measure or more than one, or entries are not in order.

    Examples
    --------
    >>> from overparam import results
    >>> spectrum = results.Spectrum(
    ...     method="exact",
    ...     status=results.Status.SUCCESS,
    ...     origin=results.make_origin(),
    ...     eigenvalues=[-1.0, 0.0, 2.0],
    ...     multiplicities=[1, 5, 2],
    ... )
    >>> spectrum.size, spectrum.moments(1), int(spectrum.count_below(1.0))
    (8, 0.375, 6)
    >>> spectrum.atoms[1]
    (0.0, 0.625)
    """

    kind: ClassVar[str] = "Spectrum"

    eigenvalues: FloatArray | None = array_field("eigenvalue", sampled=False, default=None)
    multiplicities: NDArray[np.int64] | None = array_field(
        "eigenvalue", sampled=False, dtype=np.int64, default=None
    )
    nodes: FloatArray | None = array_field("node", sampled=False, default=None)
    weights: FloatArray | None = array_field("node", sampled=False, default=None)
    grid: FloatArray | None = array_field("grid_point", sampled=False, default=None)
    values: FloatArray | None = array_field("grid_point", sampled=False, default=None)
    atom_positions: FloatArray | None = array_field("atom", sampled=False, default=None)
    atom_masses: FloatArray | None = array_field("atom", sampled=False, default=None)
    edges: FloatArray = array_field("edge", sampled=False, default=())
    size: int | None = array_field(sampled=False, dtype=np.int64, default=None)

    def __post_init__(self) -> None:
        if self.eigenvalues is not None and self.multiplicities is None:
            object.__setattr__(self, "multiplicities", np.ones(np.shape(self.eigenvalues), int))
        counts = np.asarray(1 if self.multiplicities is None else self.multiplicities)
        if counts.dtype.kind not in "iu":
            raise _check.bad("multiplicities", "integers >= 1", self.multiplicities, TypeError)
        if np.any(counts < 1):
            raise _check.bad("multiplicities", "integers >= 1", self.multiplicities)
        if self.eigenvalues is not None and self.size is None:
            object.__setattr__(self, "size", int(counts.sum()))
        super().__post_init__()
        for one, other in (
            ("eigenvalues", "multiplicities"),
            ("nodes", "weights"),
            ("grid", "values"),
            ("atom_positions", "atom_masses"),
        ):
            if (getattr(self, one) is None) != (getattr(self, other) is None):
                raise ValueError(f"{one} and {other} must be given together, but one was None")
        if self.eigenvalues is None and self.nodes is None and self.grid is None:
            raise ValueError("a spectrum must have eigenvalues, nodes or a grid, but has none")
        if self.eigenvalues is not None and self.nodes is not None:
            raise ValueError("nodes must be None beside eigenvalues, but were given")
        if self.eigenvalues is not None and self.size != counts.sum():
            raise _check.bad("size", f"the sum of multiplicities, {counts.sum()}", self.size)
        for name in ("eigenvalues", "grid", "edges"):
            array = getattr(self, name)
            if array is not None and np.any(np.diff(array) < 0):
                raise _check.bad(name, "in ascending order", array)
        if len(self.edges) % 2:
            raise _check.bad("edges", "an even number of positions", self.edges)
        if self.weights is not None and abs(self.weights.sum() - 1) > 1e-6:
            raise _check.bad("weights", "numbers with sum 1 to 1e-6", self.weights)

    @property
    def atoms(self) -> tuple[tuple[float, float], ...]:
        """Position and mass of each atom; those of a list of eigenvalues without a curve are all.

        Examples
        --------
        >>> from overparam import results
        >>> common = dict(method="exact", status=results.Status.SUCCESS, origin={})
        >>> results.Spectrum(eigenvalues=[0.0, 1.0], multiplicities=[3, 1], **common).atoms
        ((0.0, 0.75), (1.0, 0.25))
        """
        positions, masses = self.atom_positions, self.atom_masses
        if positions is None and self.eigenvalues is not None and self.grid is None:
            positions, masses = self._points()
        if positions is None or masses is None:
            return ()
        return tuple(zip(positions.tolist(), masses.tolist(), strict=True))

    def _points(self) -> tuple[FloatArray, FloatArray]:
        """Return the points of the measure and their masses; of a curve its atoms."""
        if self.eigenvalues is not None and self.multiplicities is not None:
            return self.eigenvalues, self.multiplicities / self.multiplicities.sum()
        if self.nodes is not None and self.weights is not None:
            return self.nodes, self.weights
        if self.atom_positions is not None and self.atom_masses is not None:
            return self.atom_positions, self.atom_masses
        return np.empty(0), np.empty(0)

    def _curve(self) -> tuple[FloatArray, FloatArray] | None:
        """Return grid and values, if the measure is a curve."""
        if self.eigenvalues is not None or self.nodes is not None:
            return None
        return cast(FloatArray, self.grid), cast(FloatArray, self.values)

    def density(self, x: Any, width: float = 0.0) -> FloatArray:
        """Return the density per eigenvalue, each eigenvalue broadened to a Lorentzian.

        Parameters
        ----------
        x : array_like
            Positions.
        width : float
            Half-width of the Lorentzians, at least 0. For 0 it is the curve, without the atoms.

        Returns
        -------
        array like `x`
            For a positive width its integral is one.

        Raises
        ------
        ValueError
            If `width` is 0 and the spectrum has no curve.

        Examples
        --------
        >>> import numpy as np
        >>> from overparam import results
        >>> common = dict(method="exact", status=results.Status.SUCCESS, origin={})
        >>> spectrum = results.Spectrum(eigenvalues=[0.0], **common)
        >>> round(float(spectrum.density(0.0, width=0.1)) * np.pi, 12)
        10.0
        """
        x = np.asarray(x, dtype=np.float64)
        width = _check.real("width", width, minimum=0.0)
        if width == 0:
            if self.grid is None or self.values is None:
                must = "> 0 for a spectrum without a tabulated density"
                raise _check.bad("width", must, width)
            density = np.interp(x, self.grid, self.values, left=0.0, right=0.0)
            if len(self.edges):
                inside = (np.searchsorted(self.edges, x, side="right") % 2 == 1) | np.isin(
                    x, self.edges
                )
                density = np.where(inside, density, 0.0)
            return cast(FloatArray, np.asarray(density)[()])
        flat, density = x.ravel(), np.zeros(x.size)
        points, masses = self._points()
        curve = self._curve()
        rows = max(_BLOCK // max(len(points), 1 if curve is None else len(curve[0])), 1)
        for start in range(0, x.size, rows):
            block = flat[start : start + rows, np.newaxis]
            found = (width / np.pi / ((block - points) ** 2 + width**2)) @ masses
            if curve is not None:
                found += _broadened(block, *curve, width)
            density[start : start + rows] = found
        return cast(FloatArray, density.reshape(x.shape)[()])

    def moments(self, k: int) -> float:
        """Return the mean of the k-th power of the eigenvalues.

        Parameters
        ----------
        k : int
            At least 0.

        Returns
        -------
        float
            Of a curve, as accurate as its grid.

        Examples
        --------
        >>> from overparam import results
        >>> common = dict(method="exact", status=results.Status.SUCCESS, origin={})
        >>> results.Spectrum(nodes=[-1.0, 1.0], weights=[0.5, 0.5], **common).moments(2)
        1.0
        """
        k = _check.integer("k", k, minimum=0)
        points, masses = self._points()
        moment = float(points**k @ masses)
        curve = self._curve()
        if curve is not None:  # Simpson's rule for the linear pieces
            grid, values = curve
            middle, half = (grid[1:] + grid[:-1]) / 2, (values[1:] + values[:-1]) / 2
            ends = grid**k * values
            moment += float(np.diff(grid) @ (ends[1:] + ends[:-1] + 4 * middle**k * half)) / 6
        return moment

    def count_below(self, x: Any) -> Any:
        """Return the number of eigenvalues below x, with multiplicity.

        Parameters
        ----------
        x : array_like
            Positions; an eigenvalue at the position is not counted.

        Returns
        -------
        int or float, or array like `x`
            Integers for a list of eigenvalues; for nodes the estimate, size times the weight below.

        Raises
        ------
        ValueError
            If the spectrum is a curve, or its size is not known.

        Examples
        --------
        >>> from overparam import results
        >>> common = dict(method="exact", status=results.Status.SUCCESS, origin={})
        >>> results.Spectrum(eigenvalues=[0.0, 1.0], multiplicities=[3, 1], **common).count_below(1)
        3
        """
        x = np.asarray(x, dtype=np.float64)
        if self._curve() is not None:
            raise ValueError("count_below needs eigenvalues or nodes, but the spectrum is a curve")
        if self.size is None:
            raise ValueError("count_below needs the size of the spectrum, but it was None")
        points, masses = self._points()
        if self.multiplicities is not None:
            below = np.concatenate([[0], np.cumsum(self.multiplicities)])
        else:
            order = np.argsort(points)
            below = self.size * np.concatenate([[0.0], np.cumsum(masses[order])])
            points = points[order]
        counts = below[np.searchsorted(points, x, side="left")]
        return counts if counts.ndim else counts.item()


def _broadened(x: FloatArray, grid: FloatArray, values: FloatArray, width: float) -> FloatArray:
    """Return a piecewise linear curve convolved with a Lorentzian, at positions (n, 1)."""
    lengths = np.diff(grid)
    distance = grid - x
    slope = np.diff(values) / np.where(lengths > 0, lengths, 1.0)
    at_x = values[:-1] - slope * distance[:, :-1]
    angle = np.diff(np.arctan(distance / width), axis=1)
    log = np.diff(np.log(distance**2 + width**2), axis=1)
    pieces = at_x * angle + slope * width / 2 * log
    return np.asarray(pieces[:, lengths > 0].sum(axis=1) / np.pi)


def distinct_values(
    values: FloatArray, counts: NDArray[np.int64], tolerance: float
) -> tuple[FloatArray, NDArray[np.int64]]:
    """Return distinct values in ascending order with their counts.

    Values that differ by less than `tolerance` times the largest become one, their mean; values
    that small become zero.

    Examples
    --------
    >>> import numpy as np
    >>> from overparam import results
    >>> results.distinct_values(np.array([2.0, 1.0, 2.0]), np.array([1, 4, 3]), 1e-12)
    (array([1., 2.]), array([4, 4]))
    """
    order = np.argsort(values, kind="stable")
    values, counts = values[order], counts[order]
    size = float(np.abs(values).max(initial=0.0))
    group = np.cumsum(np.append(False, np.diff(values) > tolerance * size))[: len(values)]
    sums = np.zeros(len(np.unique(group)), dtype=np.int64)
    np.add.at(sums, group, counts)  # bincount would add weights as floats
    means = np.bincount(group, values * counts) / sums
    return np.where(np.abs(means) <= tolerance * size, 0.0, means), sums


def _fields(cls: type[Result]) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(cast(Any, cls))


def _replace(result: R, **changes: Any) -> R:
    return cast(R, dataclasses.replace(cast(Any, result), **changes))


def _rebuild(cls: type[R], fields: dict[str, Any]) -> R:
    return cls(**fields)


def _freeze(value: Any) -> Any:
    """Return a read-only form of plain data; lists become tuples, NumPy scalars Python's."""
    if isinstance(value, Mapping):
        return MappingProxyType({key: _freeze(entry) for key, entry in value.items()})
    if isinstance(value, (list, tuple)):
        return tuple(_freeze(entry) for entry in value)
    if isinstance(value, np.ndarray):
        array = np.array(value, order="C")
        array.setflags(write=False)
        return array
    return value.item() if isinstance(value, np.generic) else value


def _thaw(value: Any) -> Any:
    """Return plain data with dictionaries in the place of read-only mappings, for pickle."""
    if isinstance(value, Mapping):
        return {key: _thaw(entry) for key, entry in value.items()}
    return value


# ---- how a computation ends ----

_FAILURES = (Status.MAX_STEPS, Status.STEP_UNDERFLOW, Status.NOT_CONVERGED, Status.DIVERGED)

_interrupted: Result | None = None


class ConvergenceError(RuntimeError):
    """A computation diverged, or did not converge.

    Attributes
    ----------
    result : Result
        What was computed, its arrays cut at the last valid time.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.sgd.Problem(width=1, teacher_width=1, lr=50.0, dim=100)
    >>> start = op.sgd.Overlaps.random(problem)
    >>> try:
    ...     op.sgd.simulate(problem, start, [0, 10])
    ... except op.ConvergenceError as error:
    ...     print(error.result.status.name)
    DIVERGED
    """

    def __init__(self, message: str, result: Result) -> None:
        super().__init__(message)
        self.result = result

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.args[0], self.result)


def conclude(result: R, throw: bool = True) -> R:
    """Hand a finished result to the user, or raise if the computation failed.

    If all replicas diverged, the status becomes DIVERGED. The arrays of a trajectory that failed
    are cut at the last time at which anything is not NaN, so a room fills what it did not compute
    with NaN.

    Parameters
    ----------
    result : Result
        What the room computed.
    throw : bool
        Raise for a failure; otherwise return the cut result with its status.

    Returns
    -------
    Result

    Raises
    ------
    ConvergenceError
        If the status is that of a failure.

    Examples
    --------
    >>> from overparam import results
    >>> result = results.Point(method="exact", status=results.Status.SUCCESS, origin={})
    >>> results.conclude(result) is result
    True
    """
    if result.diverged is not None and result.diverged.all():
        result = _replace(result, status=Status.DIVERGED)
    if result.status not in _FAILURES:
        return result
    if isinstance(result, Trajectory):
        result = cast(R, result._until_last_valid())
    if throw:
        message = f"{result.method}: {_core.status_message(result.status)}"
        if isinstance(result, Trajectory):
            reached = f"t = {result.t[-1]:g}" if len(result.t) else "no requested time"
            message += f"; it reached {reached}"
        raise ConvergenceError(message + " (see .result for what was computed)", result)
    return result


def keep_interrupted(result: Result) -> None:
    """Store the partial result of a run that was stopped, for `interrupted`."""
    global _interrupted
    _interrupted = result._until_last_valid() if isinstance(result, Trajectory) else result


def interrupted() -> Result | None:
    """Return what the last run that Ctrl-C stopped had computed.

    Returns
    -------
    Result or None
        A result with status INTERRUPTED, cut at the last computed time; None if no run was
        stopped.

    Examples
    --------
    >>> import overparam as op
    >>> op.results.interrupted() is None
    True
    """
    return _interrupted


# ---- statistics over replicas ----


def _moments(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return mean and standard error over the first axis, leaving NaN out.

    Deviations are taken from the smallest value, so that equal replicas have exactly their common
    value as mean and zero as standard error.
    """
    with np.errstate(all="ignore"):
        count = np.sum(~np.isnan(values), axis=0)
        base = np.fmin.reduce(values, axis=0)
        shift = np.nansum(values - base, axis=0) / count
        squares = np.nansum((values - base - shift) ** 2, axis=0)
        sem = np.sqrt(squares / np.where(count > 1, count - 1, np.nan) / count)
    return base + shift, sem


def _quantile(values: FloatArray, q: float) -> FloatArray:
    """Return the q-quantile over the first axis, leaving NaN out."""
    ordered = np.sort(values, axis=0)  # NaN last
    position = q * np.maximum(np.sum(~np.isnan(values), axis=0) - 1, 0)
    low = np.floor(position).astype(np.intp)[np.newaxis]
    high = np.ceil(position).astype(np.intp)[np.newaxis]
    below = np.take_along_axis(ordered, low, axis=0)[0]
    above = np.take_along_axis(ordered, high, axis=0)[0]
    return np.asarray(below + (position - low[0]) * (above - below))


# ---- files ----

_RESULT = "result"

# Version of every file that the package writes; a reader accepts its own and older ones.
FORMAT = 1


def _npz_path(path: PathLike) -> Path:
    path = Path(path)
    return path if path.suffix == ".npz" else path.with_name(path.name + ".npz")


def write_npz(
    path: Path, content: str, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> None:
    """Write arrays and a JSON header to a file, which is then complete or unchanged.

    Parameters
    ----------
    path : Path
        The file, replaced if it exists.
    content : str
        What the file is ("result", "checkpoint"); `read_npz` asks for the same.
    header : mapping
        Plain data; arrays in it become members of the archive.
    arrays : mapping
        Arrays by name.
    """
    members = {f"array/{name}": array for name, array in arrays.items()}

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            name = f"header/{len(members)}"
            members[name] = value
            return {"__array__": name}
        return json_default(value)

    text = json.dumps(
        {"overparam": content, "format": FORMAT, **header}, default=plain, ensure_ascii=False
    )
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with temporary.open("wb") as file:
            # By keyword, save for "file", which is savez's own parameter; names here hold a slash.
            np.savez(file, header=np.array(text), **cast(dict[str, Any], members))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_npz(name: str, path: Path, content: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Read a file of `write_npz`: its header and its arrays.

    Raises
    ------
    ValueError
        Naming the argument `name`, if the file is not one of ours, holds something else, or has a
        newer format.
    """
    must = f"a {content} file written by overparam"
    try:
        if not zipfile.is_zipfile(path):
            path.open("rb").close()  # a missing file is the better error
            raise ValueError("not an archive")
        with np.load(path, allow_pickle=False) as archive:
            stored = {member: archive[member] for member in archive.files}
        header = json.loads(
            stored.pop("header").item(), object_hook=lambda entry: _from_json(entry, stored)
        )
        written, version = header["overparam"], header["format"]
    except (ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{name} must be {must}, but was {str(path)!r} ({error})") from error
    if written != content:
        raise ValueError(f"{name} must be {must}, but was {str(path)!r}, a {written} file")
    if version > FORMAT:
        raise ValueError(
            f"{name} must be {must} of format {FORMAT} or older, but was {str(path)!r} "
            f"of format {version}; a newer overparam can read it"
        )
    prefix = "array/"
    arrays = {
        member.removeprefix(prefix): array
        for member, array in stored.items()
        if member.startswith(prefix)
    }
    return header, arrays


def json_default(value: Any) -> Any:
    """Return the plain form of what JSON does not know; the `default` hook of `json.dumps`."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.random.SeedSequence):
        entropy: Any = value.entropy
        many = not isinstance(entropy, int)
        return {  # integers as text: they may exceed what other readers of JSON can hold
            "__seed__": [str(word) for word in entropy] if many else str(entropy),
            "spawn_key": list(value.spawn_key),
            "pool_size": value.pool_size,
        }
    raise TypeError(f"{type(value).__name__} cannot be written to a file")


def _from_json(entry: dict[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Any:
    if "__array__" in entry:
        return arrays[entry["__array__"]]
    if "__seed__" in entry:
        text = entry["__seed__"]
        entropy: Any = int(text) if isinstance(text, str) else [int(word) for word in text]
        return np.random.SeedSequence(
            entropy, spawn_key=entry["spawn_key"], pool_size=entry["pool_size"]
        )
    return entry


def load(path: PathLike) -> Result:
    """Read a result that `Result.save` wrote.

    Parameters
    ----------
    path : path
        The file; ``.npz`` is appended if there is no file of that name.

    Returns
    -------
    Result
        Of the same class, with the same values bit by bit.

    Raises
    ------
    ValueError
        If the file is not a result file of overparam, or has a newer format.
    FileNotFoundError
        If there is no such file.

    Examples
    --------
    >>> import tempfile, overparam as op
    >>> problem = op.sgd.Problem(width=2, teacher_width=1, lr=0.1, dim=100)
    >>> result = op.sgd.ode(problem, op.sgd.Overlaps.random(problem), [0, 1])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     op.load(result.save(folder + "/run")).problem == problem
    True
    """
    if not isinstance(path, (str, os.PathLike)):
        raise _check.bad("path", "a path", path, TypeError)
    path = Path(path) if Path(path).is_file() else _npz_path(path)
    header, arrays = read_npz("path", path, _RESULT)
    label = str(header["class"])
    import_room(label.partition(".")[0])
    result_class = _CLASSES.get(label)
    if result_class is None:
        raise ValueError(
            f"path must be a file with a result that this version of overparam knows, "
            f"but was {str(path)!r} with {label}"
        )
    problem = header["problem"]
    fields: dict[str, Any] = {
        "problem": None if problem is None else BaseProblem.from_dict(problem),
        "status": Status[header["status"]],
        **{name: header[name] for name in ("inputs", "method", "stats", "origin")},
        **arrays,
    }
    return result_class(**fields)


# ---- tables and comparisons ----


class Table:
    """Columns of equal length, numbers or text, with their names.

    Parameters
    ----------
    columns : mapping
        Sequences by name.

    Raises
    ------
    ValueError
        If the columns are not 1-D and of one length.

    Examples
    --------
    >>> import overparam as op
    >>> table = op.results.Table({"field": ["risk", "risk"], "t": [0.0, 1.0]})
    >>> len(table), table.columns, table.max_abs("t")
    (2, ('field', 't'), 1.0)
    >>> print(table)
    field  t
    -----  -
    risk   0
    risk   1
    """

    _shown_rows: ClassVar[int] = 40

    _values: dict[str, NDArray[Any] | tuple[str, ...]]

    def __init__(self, columns: Mapping[str, Sequence[Any] | NDArray[Any]]) -> None:
        values: dict[str, NDArray[Any] | tuple[str, ...]] = {}
        for name, column in columns.items():
            if not isinstance(column, np.ndarray) and any(isinstance(x, str) for x in column):
                values[name] = tuple(str(entry) for entry in column)
                continue
            array = np.array(column)
            array.setflags(write=False)
            if array.ndim != 1:
                raise _check.bad(name, "a 1-D column", array)
            values[name] = array
        lengths = {name: len(column) for name, column in values.items()}
        if len(set(lengths.values())) > 1:
            raise _check.bad("columns", "of one length", lengths)
        self._values = values

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns.

        Examples
        --------
        >>> import overparam as op
        >>> op.results.Table({"t": [0.0, 1.0]}).columns
        ('t',)
        """
        return tuple(self._values)

    def __len__(self) -> int:
        return len(next(iter(self._values.values()), ()))

    def __getitem__(self, name: str) -> NDArray[Any] | tuple[str, ...]:
        if name not in self._values:
            raise KeyError(f"no column {name!r}; known are {', '.join(self.columns)}")
        return self._values[name]

    def rows(self) -> list[tuple[Any, ...]]:
        """Return the rows as tuples of Python numbers and text.

        Examples
        --------
        >>> import overparam as op
        >>> op.results.Table({"field": ["risk"], "t": [0.5]}).rows()
        [('risk', 0.5)]
        """
        columns = [
            column.tolist() if isinstance(column, np.ndarray) else column
            for column in self._values.values()
        ]
        return list(zip(*columns, strict=True))

    def max_abs(self, column: str) -> float:
        """Return the largest absolute value of a column; NaN if it has any, or is empty.

        Examples
        --------
        >>> import overparam as op
        >>> op.results.Table({"z": [0.5, -2.0]}).max_abs("z")
        2.0
        """
        values = self[column]
        if isinstance(values, tuple):
            raise _check.bad("column", "a column of numbers", column)
        return float(np.max(np.abs(values))) if len(values) else float("nan")

    def to_csv(self, path: PathLike) -> Path:
        """Write the table as comma-separated values, numbers at full precision.

        Parameters
        ----------
        path : path
            The file, replaced if it exists.

        Returns
        -------
        Path
            The file.

        Examples
        --------
        >>> import tempfile, overparam as op
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = op.results.Table({"t": [0.5]}).to_csv(folder + "/table.csv")
        ...     file.read_text().split()
        ['t', '0.5']
        """
        path = Path(path)
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(self.columns)
            writer.writerows(self.rows())
        return path

    def to_markdown(self) -> str:
        """Return the table in Markdown.

        Examples
        --------
        >>> import overparam as op
        >>> print(op.results.Table({"t": [0.5]}).to_markdown())
        | t |
        | --- |
        | 0.5 |
        """
        lines = [self.columns, ("---",) * len(self.columns), *self.texts()]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)

    def texts(self, limit: int | None = None) -> list[tuple[str, ...]]:
        """Return the rows as text; above `limit` rows the middle ones become one row of dots.

        Examples
        --------
        >>> import overparam as op
        >>> op.results.Table({"t": [0.0, 1.0, 2.0]}).texts(limit=2)
        [('0',), ('...',), ('2',)]
        """
        lines = [tuple(_text(entry) for entry in row) for row in self.rows()]
        if limit is not None and len(lines) > limit:
            half = limit // 2
            lines[half : len(lines) - half] = [("...",) * len(self.columns)]
        return lines

    def __str__(self) -> str:
        lines = self.texts(self._shown_rows)
        numeric = [isinstance(column, np.ndarray) for column in self._values.values()]
        widths = [max(map(len, cells)) for cells in zip(self.columns, *lines, strict=True)]
        rule = tuple("-" * width for width in widths)

        def aligned(line: Iterable[str]) -> str:
            cells = zip(line, widths, numeric, strict=True)
            return "  ".join(
                cell.rjust(width) if right else cell.ljust(width) for cell, width, right in cells
            ).rstrip()

        return "\n".join(aligned(line) for line in (self.columns, rule, *lines))

    def __repr__(self) -> str:
        return f"<Table of {len(self)} rows: {', '.join(self.columns)}>"


def _text(entry: Any) -> str:
    return f"{entry:.6g}" if isinstance(entry, float) else str(entry)


def components(result: Result, field: str) -> Iterator[tuple[str, FloatArray]]:
    """Yield label and values of each component of a field, as in ``M[0,1]``.

    Parameters
    ----------
    result : Result
        Theory or sampled.
    field : str
        The name of an array field, for all its components, or the label of one.

    Yields
    ------
    (str, array)
        The values have the replica axis and the time axis that the field has, and no other.

    Raises
    ------
    ValueError
        If the result has no such field or component.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.sgd.Problem(width=2, teacher_width=1, lr=0.1, dim=100)
    >>> result = op.sgd.ode(problem, op.sgd.Overlaps.random(problem), [0, 1])
    >>> [label for label, values in op.results.components(result, "M")]
    ['M[0,0]', 'M[1,0]']
    """
    parts = re.fullmatch(r"(\w+)(?:\[(\d+(?:,\d+)*)\])?", field) if isinstance(field, str) else None
    name, wanted = parts.groups() if parts else (None, None)
    known = [known_name for known_name in result._arrays() if known_name not in ("t", "diverged")]
    if name not in known:
        must = f"one of {', '.join(known)}, or a component of these such as M[0,1]"
        raise _check.bad("field", must, field)
    array = result._arrays()[name]
    axes = result._axes(name)
    kept = [i for i, axis in enumerate(axes) if axis in ("replica", "time")]
    array = np.moveaxis(array, kept, range(len(kept)))
    found = False
    for index in itertools.product(*map(range, array.shape[len(kept) :])):
        text = ",".join(map(str, index))
        if wanted in (None, text):
            found = True
            entry: Any = (..., *index)
            yield (f"{name}[{text}]" if index else name), array[entry]
    if not found:
        raise _check.bad("field", f"a component of {name}{array.shape[len(kept) :]}", field)


def errors_beside(result: Result, field: str) -> list[FloatArray | None]:
    """Return the standard error of each component of a field, None where there is none.

    A result without replicas can have them in a field of the same shape, called ``<field>_sem``.

    Parameters
    ----------
    result : Result
        A result without replicas.
    field : str
        As in `components`.

    Returns
    -------
    list of array or None

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.empirical_flow.Problem(alpha=0.5, kappa=0.5, kappa_star=0.3)
    >>> theory = op.empirical_flow.dmft(problem, [0.0, 0.1], lr=0.02, dim=20)
    >>> op.results.errors_beside(theory, "risk")[0].shape
    (2,)
    """
    count = len(list(components(result, field)))
    name, bracket, index = field.partition("[")
    if f"{name}_sem" not in result._arrays():
        return [None] * count
    return [values for _, values in components(result, f"{name}_sem{bracket}{index}")]


def compare(theory: Result, sampled: Result, fields: Iterable[str] | None = None) -> Table:
    """Set a theory against a simulation, entry by entry.

    Parameters
    ----------
    theory : Result
        A result without replicas.
    sampled : Result
        A result with replicas, at the same times.
    fields : iterable of str, optional
        Names of fields, or labels of components such as ``M[0,1]``. Default: all fields with
        replicas that both results have.

    Returns
    -------
    Table
        One row per component and time, with columns

        field
            Label of the component.
        t
            Time; NaN for fields without.
        theory, mean, sem
            The values, and the standard error of the difference: that of the mean, and that of the
            theory where it has one.
        z
            (mean - theory)/sem; 0 where both numerator and denominator vanish up to rounding
            (1e-12 of the values), infinite where only the denominator does, NaN for one replica.
        relative
            (mean - theory)/abs(theory), NaN where the theory is 0.

    Raises
    ------
    ValueError
        If `theory` has replicas, `sampled` has none, the times differ, a field is missing, or has
        another number of components in one of them, as where a theory has several solutions.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.sgd.Problem(width=2, teacher_width=1, lr=0.1, dim=10**6)
    >>> start, t = op.sgd.Overlaps.random(problem), [0.0, 1.0]
    >>> theory = op.sgd.ode(problem, start, t)
    >>> table = op.compare(theory, op.sgd.simulate(problem, start, t, replicas=8), ["risk"])
    >>> table.columns
    ('field', 't', 'theory', 'mean', 'sem', 'z', 'relative')
    """
    if theory.sampled:
        raise _check.bad("theory", "a result without replicas", theory)
    if not sampled.sampled:
        raise _check.bad("sampled", "a result with replicas", sampled)
    t, t_sampled = (getattr(result, "t", np.empty(0)) for result in (theory, sampled))
    if not np.array_equal(t, t_sampled):
        raise ValueError(
            f"t must be the same in theory and sampled, "
            f"but was {_check.show(t)} and {_check.show(t_sampled)}"
        )
    if fields is None:
        specs = sampled._specs()
        fields = [n for n in sampled._arrays() if specs[n].sampled and n in theory._arrays()]
    mean, sem = sampled.mean(), sampled.sem()
    labels: list[str] = []
    columns: list[FloatArray] = []
    for field in [fields] if isinstance(fields, str) else fields:
        of_theory, of_mean = list(components(theory, field)), list(components(mean, field))
        if len(of_theory) != len(of_mean):
            raise ValueError(
                f"theory must have as many values of {field} as sampled, {len(of_mean)}, "
                f"but was a {type(theory).__name__} with {len(of_theory)}"
            )
        entries = zip(
            of_theory,
            errors_beside(theory, field),
            of_mean,
            components(sem, field),
            strict=True,
        )
        for (label, expected), own, (_, measured), (_, error) in entries:
            times = np.full(1, np.nan) if expected.ndim == 0 else t
            total = error if own is None else np.hypot(error, own)
            block = np.stack(np.broadcast_arrays(times, expected, measured, total))
            labels += [label] * block.shape[1]
            columns.append(block)
    times, expected, measured, error = np.concatenate([np.empty((4, 0)), *columns], axis=1)
    difference = measured - expected
    rounding = _ROUNDING * np.maximum(abs(measured), abs(expected))
    with np.errstate(divide="ignore", invalid="ignore"):
        z = difference / error
        relative = difference / abs(expected)
    z[(abs(difference) <= rounding) & (error <= rounding)] = 0.0
    relative[expected == 0] = np.nan
    return Table(
        {
            "field": labels,
            "t": times,
            "theory": expected,
            "mean": measured,
            "sem": error,
            "z": z,
            "relative": relative,
        }
    )
