"""Checks of arguments, shared by all rooms.

Each check returns the value in the form in which the package uses it, or raises with the one
sentence "<name> must be <what>, but was <value>".
"""

from __future__ import annotations

import math
import os
import reprlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from overparam import _core

FloatArray = NDArray[np.float64]

# Requests below this many bytes are not compared with the free memory.
_SMALL = 2**26

# A time counts as a point of the step grid when it is this close to it, relatively.
GRID_TOLERANCE = 1e-9

_short = reprlib.Repr()
_short.maxother = _short.maxstring = 100


def show(value: object) -> str:
    """Return a short text for a value in a message: long sequences and arrays are abbreviated.

    Examples
    --------
    >>> import numpy as np
    >>> from overparam import _check
    >>> _check.show(np.arange(1000.0))
    '[0., 1., ..., 998., 999.] of shape (1000,)'
    """
    if isinstance(value, np.ndarray) and value.ndim > 0:
        edge = 2 if value.ndim == 1 else 1
        text = np.array2string(
            value, threshold=8, edgeitems=edge, separator=", ", floatmode="unique"
        )
        text = " ".join(text.split()).replace("[ ", "[")
        return f"{text} of shape {value.shape}"
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.item()
    return _short.repr(value)


def bad(name: str, must: str, value: object, error: type[Exception] = ValueError) -> Exception:
    """Return (to be raised) the error for an argument that is not what it must be.

    Parameters
    ----------
    name : str
        The argument, as in the signature of the public function.
    must : str
        What it must be; a remedy may follow in brackets.
    value : object
        What it was.
    error : type
        ValueError, or TypeError for a value of the wrong type.

    Returns
    -------
    Exception
        With the message "<name> must be <must>, but was <value>".

    Examples
    --------
    >>> from overparam import _check
    >>> _check.bad("width", "at least 1", 0)
    ValueError('width must be at least 1, but was 0')
    """
    return error(f"{name} must be {must}, but was {show(value)}")


def integer(name: str, value: object, *, minimum: int | None = None) -> int:
    """Return an integer, NumPy's included; booleans and floats are a TypeError.

    Examples
    --------
    >>> import numpy as np
    >>> from overparam import _check
    >>> _check.integer("width", np.int32(3), minimum=1)
    3
    """
    must = "an integer" if minimum is None else f"an integer >= {minimum}"
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise bad(name, must, value, TypeError)
    if minimum is not None and value < minimum:
        raise bad(name, must, value)
    return int(value)


def real(
    name: str,
    value: object,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    strict_minimum: bool = False,
    strict_maximum: bool = False,
    allow_inf: bool = False,
) -> float:
    """Return a real number within its bounds; NaN never passes, infinity only if allowed.

    Examples
    --------
    >>> from overparam import _check
    >>> _check.real("lr", 1, minimum=0.0, strict_minimum=True)
    1.0
    """
    must = "a real number" if allow_inf else "a finite real number"
    bounds = []
    if minimum is not None:
        bounds.append(f"{'>' if strict_minimum else '>='} {minimum:g}")
    if maximum is not None:
        bounds.append(f"{'<' if strict_maximum else '<='} {maximum:g}")
    if bounds:
        must += " " + " and ".join(bounds)
    known = (int, float, np.integer, np.floating)
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, known):
        raise bad(name, must, value, TypeError)
    try:
        number = float(value)
    except OverflowError:
        raise bad(name, must, value) from None
    if (
        math.isnan(number)
        or (math.isinf(number) and not allow_inf)
        or (minimum is not None and (number <= minimum if strict_minimum else number < minimum))
        or (maximum is not None and (number >= maximum if strict_maximum else number > maximum))
    ):
        raise bad(name, must, value)
    return number


def boolean(name: str, value: object) -> bool:
    """Return True or False; numbers are a TypeError.

    Examples
    --------
    >>> from overparam import _check
    >>> _check.boolean("noise", True)
    True
    """
    if not isinstance(value, (bool, np.bool_)):
        raise bad(name, "True or False", value, TypeError)
    return bool(value)


def choice(name: str, value: object, known: Iterable[str]) -> str:
    """Return a string that is one of the known ones.

    Examples
    --------
    >>> from overparam import _check
    >>> _check.choice("method", "chain", ("chain", "direct"))
    'chain'
    """
    names = tuple(known)
    must = "one of " + ", ".join(f'"{known_name}"' for known_name in names)
    if not isinstance(value, str):
        raise bad(name, must, value, TypeError)
    if value not in names:
        raise bad(name, must, value)
    return value


def _array(name: str, value: Any, must: str) -> FloatArray:
    """Return a contiguous float64 copy of real numbers of any shape, finite or not."""
    try:
        given = np.asarray(value)
    except ValueError:  # nested sequences of different lengths
        raise bad(name, must, value) from None
    if given.dtype.kind not in "iuf":
        raise bad(name, must, value, TypeError)
    return np.array(given, dtype=np.float64, order="C")


def vector(name: str, value: object, length: int | None = None) -> FloatArray:
    """Return a contiguous float64 copy of a 1-D sequence of finite real numbers.

    Examples
    --------
    >>> from overparam import _check
    >>> _check.vector("second_layer", (1, 2), 2)
    array([1., 2.])
    """
    must = "a vector of finite real numbers"
    if length is not None:
        must += f" of length {length}"
    array = _array(name, value, must)
    if array.ndim != 1 or (length is not None and len(array) != length):
        raise bad(name, must, array)
    if not np.isfinite(array).all():
        raise bad(name, must, array)
    return array


def matrix(name: str, value: object, shape: tuple[int | None, int | None]) -> FloatArray:
    """Return a contiguous float64 copy of a matrix of finite real numbers.

    An entry of `shape` that is None may be any length.

    Examples
    --------
    >>> from overparam import _check
    >>> _check.matrix("W", [[1, 2, 3]], (1, None)).shape
    (1, 3)
    """
    sizes = ", ".join("any" if size is None else str(size) for size in shape)
    must = f"a matrix of finite real numbers of shape ({sizes})"
    array = _array(name, value, must)
    if array.ndim != 2 or any(
        size is not None and size != given for size, given in zip(shape, array.shape, strict=True)
    ):
        raise bad(name, must, array)
    if not np.isfinite(array).all():
        raise bad(name, must, array)
    return array


def times(name: str, t: object) -> FloatArray:
    """Return the 1-D array of times: finite, non-negative, strictly increasing, not empty.

    Examples
    --------
    >>> from overparam import _check
    >>> _check.times("t", [0, 0.5, 2])
    array([0. , 0.5, 2. ])
    """
    must = "a 1-D array of at least one time, finite, non-negative and strictly increasing"
    array = _array(name, t, must)
    if (
        array.ndim != 1
        or len(array) == 0
        or not np.isfinite(array).all()
        or array[0] < 0
        or np.any(np.diff(array) <= 0)
    ):
        raise bad(name, must, array)
    return array


def steps(
    name: str, t: FloatArray, per_unit: float, *, rounding: bool = False
) -> NDArray[np.int64]:
    """Return the number of steps that belongs to each time of a discrete clock.

    Parameters
    ----------
    name : str
        The argument that holds the times.
    t : (T,) array
        Times, already checked by `times`.
    per_unit : float
        Steps per unit of time.
    rounding : bool
        Take the nearest step, floor(x + 1/2). Otherwise a time that is not within 1e-9 of a
        step, relatively, is refused.

    Returns
    -------
    (T,) array of int64

    Raises
    ------
    ValueError
        For a time off the grid, or one that needs 2**63 steps or more.

    Examples
    --------
    >>> import numpy as np
    >>> from overparam import _check
    >>> _check.steps("t", np.array([0.0, 0.3]), 10)
    array([0, 3])
    """
    exact = t * per_unit
    if not exact[-1] < 2.0**63:
        raise bad(name, f"less than 2**63 steps of 1/{per_unit:g}", t[-1])
    nearest = np.floor(exact + 0.5)
    if not rounding:
        off = np.abs(exact - nearest) > GRID_TOLERANCE * np.maximum(exact, 1.0)
        if off.any():
            raise bad(name, f"on the grid of steps of {1 / per_unit:g}", t[off][0])
    return nearest.astype(np.int64)


def seed_sequence(seed: object) -> np.random.SeedSequence:
    """Return the seed sequence of an integer >= 0; fresh entropy for None; itself otherwise.

    Examples
    --------
    >>> from overparam import _check
    >>> _check.seed_sequence(7).entropy
    7
    """
    if isinstance(seed, np.random.SeedSequence):
        return seed
    if seed is None:
        return np.random.SeedSequence()
    must = "an integer >= 0, a numpy.random.SeedSequence or None"
    if isinstance(seed, (bool, np.bool_)) or not isinstance(seed, (int, np.integer)):
        raise bad("seed", must, seed, TypeError)
    if seed < 0:
        raise bad("seed", must, seed)
    return np.random.SeedSequence(int(seed))


def seed_word(sequence: np.random.SeedSequence) -> int:
    """Return the 64-bit word by which a seed sequence is known to the core.

    Examples
    --------
    >>> from overparam import _check
    >>> _check.seed_word(_check.seed_sequence(0))
    15793235383387715774
    """
    return int(sequence.generate_state(1, np.uint64)[0])


def threads(value: object) -> int:
    """Return the number of threads; None means OVERPARAM_NUM_THREADS, else OpenMP's default.

    Examples
    --------
    >>> from overparam import _check
    >>> _check.threads(2)
    2
    """
    if value is not None:
        return integer("threads", value, minimum=1)
    variable = "OVERPARAM_NUM_THREADS"
    text = os.environ.get(variable)
    if text is None:
        return int(_core.default_threads())
    if not (text.strip().isdecimal() and int(text) >= 1):
        raise bad(f"the environment variable {variable}", "an integer >= 1", text)
    return int(text)


def replicas(value: object) -> int:
    """Return the number of replicas, at least one.

    Examples
    --------
    >>> from overparam import _check
    >>> _check.replicas(64)
    64
    """
    return integer("replicas", value, minimum=1)


def tolerance(rtol: object, atol: object) -> tuple[float, float]:
    """Return the relative and the absolute tolerance, both positive.

    Examples
    --------
    >>> from overparam import _check
    >>> _check.tolerance(1e-9, 1e-12)
    (1e-09, 1e-12)
    """
    return (
        real("rtol", rtol, minimum=0.0, strict_minimum=True),
        real("atol", atol, minimum=0.0, strict_minimum=True),
    )


def available_memory() -> int:
    """Return the memory that can be taken now, in bytes (in all, where the system tells no more).

    Examples
    --------
    >>> from overparam import _check
    >>> _check.available_memory() > 0
    True
    """
    try:
        with Path("/proc/meminfo").open(encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def memory(nbytes: float, what: str, remedy: str) -> None:
    """Refuse a call that needs more memory than is free, before it takes any.

    Parameters
    ----------
    nbytes : int or float
        Memory that the call needs, in bytes.
    what : str
        What needs it, for the message: "the recorded overlaps".
    remedy : str
        What to reduce: "replicas or the number of times in t".

    Raises
    ------
    MemoryError
        Naming the size, what is free and what to reduce.

    Examples
    --------
    >>> from overparam import _check
    >>> _check.memory(8 * 1000, "the recorded overlaps", "replicas")
    """
    if nbytes < _SMALL:
        return
    free = available_memory()
    if nbytes > free:
        raise MemoryError(
            f"{what} would take {nbytes / 2**30:.3g} GiB, but {free / 2**30:.3g} GiB are free; "
            f"reduce {remedy}"
        )
