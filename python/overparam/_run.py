"""Sliced runs: progress, Ctrl-C and checkpoints for every long computation.

A room keeps all that a slice changes (the state and the outputs recorded so far) in one dictionary
of arrays, and hands `drive` a function that performs one bounded slice on them. The pattern::

    arrays = {
        "M": ..., "Q": ...,                                   # the state
        "risk": np.full((replicas, len(t)), np.nan), ...      # outputs; NaN where not yet computed
    }

    def advance(done: int, budget: int) -> int:
        '''Perform steps done .. done + count, count <= budget, on `arrays`, in place.'''
        _core.room_advance(arrays["M"], arrays["Q"], arrays["risk"], steps, done, budget, ...)
        return budget                                         # 0 where nothing is left to do

    def build(status: Status, stats: dict[str, float]) -> RoomTrajectory:
        return RoomTrajectory(problem=problem, method=method, status=status, stats=stats | {...},
                              origin=make_origin(sequence), t=t, risk=arrays["risk"], ...)

    saved = Checkpoint(checkpoint, fingerprint(problem, method=method, t=t, M=start.M, Q=start.Q,
                                               replicas=replicas, seed=sequence))
    result = drive(int(steps[-1]), arrays, advance, build,
                   progress=progress, label="sgd.simulate", checkpoint=saved)
    return conclude(result, throw)

`done` is a number of units of work (steps, saved times, ...) that the room chooses; `drive` alone
counts it. How the work is cut into slices must change no bit of the result. Where the total is not
known beforehand (an adaptive integrator), it is None, and the run ends when `advance` returns 0;
`build` then takes the status from the integrator, unless the one that it is given is INTERRUPTED.

After Ctrl-C the partial result is at `overparam.results.interrupted`, and the checkpoint holds the
last whole slice; the same call continues from there. A finished checkpoint is kept: the same call
returns at once.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from overparam import _check, _core
from overparam._problem import BaseProblem
from overparam.results import (
    FORMAT,
    PathLike,
    Result,
    Status,
    json_default,
    keep_interrupted,
    read_npz,
    write_npz,
)

R = TypeVar("R", bound=Result)
Arrays = dict[str, NDArray[Any]]
Progress = bool | Callable[[float], object]

# Seconds that a slice should take, so that Ctrl-C is answered within half a second.
SLICE = 0.2
# A checkpoint is written no more often than this, and takes at most 5 % of the time.
SAVE_EVERY = 5.0
SAVE_SHARE = 0.05


class Bar:
    """A progress bar on stderr: percentage, elapsed and remaining time.

    Examples
    --------
    >>> from overparam import _run
    >>> bar = _run.Bar("sgd.simulate")
    >>> bar(0.5)
    >>> bar.close()
    """

    def __init__(self, label: str) -> None:
        self._label = label
        self._began = time.monotonic()
        self._first: float | None = None
        self._drawn = -np.inf
        self._width = 0

    def __call__(self, fraction: float) -> None:
        """Draw the bar at a fraction between 0 and 1, unless it was drawn a moment ago."""
        now = time.monotonic()
        pause = 0.1 if sys.stderr.isatty() else 10.0
        self._first = fraction if self._first is None else self._first
        if now - self._drawn < pause and fraction < 1:
            return
        self._drawn = now
        elapsed, progress = now - self._began, fraction - self._first
        left = _clock(elapsed * (1 - fraction) / progress) if progress > 0 else "-:--"
        filled = "#" * int(20 * fraction)
        line = f"{self._label} [{filled:.<20}] {fraction:4.0%} {_clock(elapsed)} < {left}"
        self._write(f"\r{line:<{self._width}}")
        self._width = len(line)

    def clear(self) -> None:
        """Blank the line, so that something else can be printed there."""
        if self._width:
            self._write(f"\r{'':{self._width}}\r")
            self._width, self._drawn = 0, -np.inf

    def close(self) -> None:
        """Leave the bar as it stands and end its line."""
        if self._width:
            self._write("\n")
            self._width = 0

    @staticmethod
    def _write(text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


def share(progress: Progress, part: int, parts: int) -> Progress:
    """Return the progress argument for the `part`-th (from 0) of several equal parts of a job.

    Examples
    --------
    >>> from overparam import _run
    >>> _run.share(print, 1, 4)(0.5)
    0.375
    """
    if not callable(progress):
        return progress
    return lambda fraction: progress((part + fraction) / parts)


def padded(values: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Return an array with its first axis extended to `count` by NaN: what was not computed.

    Examples
    --------
    >>> import numpy as np
    >>> from overparam import _run
    >>> _run.padded(np.ones(2), 3)
    array([ 1.,  1., nan])
    """
    out = np.full((count, *values.shape[1:]), np.nan)
    out[: len(values)] = values
    return out


def fingerprint(problem: BaseProblem | None, **numerics: Any) -> str:
    """Return a hash of all that determines the bits of a run, and of version and file format.

    Parameters
    ----------
    problem : Problem or None
        The problem.
    **numerics
        Other arguments by name: numbers, text, tuples, arrays, seed sequences. Not the number of
        threads, which changes no bit.

    Returns
    -------
    str

    Examples
    --------
    >>> import numpy as np
    >>> from overparam import _run
    >>> _run.fingerprint(None, t=np.arange(3)) == _run.fingerprint(None, t=np.arange(4))
    False
    """

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            content = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
            return [str(value.dtype), value.shape, content]
        return json_default(value)

    described = {
        "format": FORMAT,
        "version": _core.build_info()["version"],
        "problem": None if problem is None else problem.to_dict(),
        "numerics": numerics,
    }
    text = json.dumps(described, default=plain, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


class Checkpoint:
    """A file from which an interrupted run continues.

    Parameters
    ----------
    path : path or None
        The file; with None nothing is stored.
    fingerprint : str
        Of the run, from `fingerprint`.

    Raises
    ------
    TypeError
        If the path is not a path.

    Examples
    --------
    >>> from overparam import _run
    >>> _run.Checkpoint(None, _run.fingerprint(None, steps=3)).load() is None
    True
    """

    _content = "checkpoint"

    def __init__(self, path: PathLike | None, fingerprint: str) -> None:
        if not isinstance(path, (str, os.PathLike, type(None))):
            raise _check.bad("checkpoint", "a path or None", path, TypeError)
        self._path = None if path is None else Path(path)
        self._fingerprint = fingerprint
        self._next_save = 0.0

    def load(self) -> tuple[int, float, Arrays] | None:
        """Return units done, seconds used and arrays; None if there is no file yet.

        Raises
        ------
        ValueError
            If the file is not a checkpoint, or is one of another run.
        """
        if self._path is None or not self._path.exists():
            return None
        header, arrays = read_npz("checkpoint", self._path, self._content)
        if header["fingerprint"] != self._fingerprint:
            raise ValueError(
                "checkpoint must be the file of the same run (problem, numerics, seed and version "
                f"of overparam), but was {str(self._path)!r}, which belongs to another"
            )
        return int(header["done"]), float(header["seconds"]), arrays

    def save(self, done: int, seconds: float, arrays: Arrays, *, now: bool = True) -> None:
        """Write the file; with ``now=False`` only if the last time was long enough ago."""
        began = time.monotonic()
        if self._path is None or (not now and began < self._next_save):
            return
        header = {"fingerprint": self._fingerprint, "done": done, "seconds": seconds}
        write_npz(self._path, self._content, header, arrays)
        ended = time.monotonic()
        self._next_save = ended + max(SAVE_EVERY, (ended - began) / SAVE_SHARE)


@contextmanager
def _one_piece() -> Iterator[None]:
    """Raise the KeyboardInterrupt of a Ctrl-C only when the block is done; a second one at once.

    Where Ctrl-C is not Python's own affair (other threads, a foreign handler) nothing is changed.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    pending = False

    def hold(number: int, frame: Any) -> None:
        nonlocal pending
        if pending:
            signal.default_int_handler(number, frame)
        pending = True

    signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if pending:
        raise KeyboardInterrupt


def drive(
    total: int | None,
    arrays: Arrays,
    advance: Callable[[int, int], int],
    build: Callable[[Status, dict[str, float]], R],
    *,
    progress: Progress = False,
    label: str = "",
    fraction: Callable[[], float] | None = None,
    checkpoint: Checkpoint | None = None,
) -> R:
    """Perform a computation in slices of about 0.2 s.

    Parameters
    ----------
    total : int or None
        Units of work in all; None if not known, and then `advance` ends the run by returning 0.
    arrays : dict of arrays
        All that slices change: state and recorded outputs.
    advance : callable
        ``advance(done, budget)`` performs at most `budget` units on `arrays`, the first of them
        being unit `done`, and returns how many it performed. Returning 0 ends the run.
    build : callable
        ``build(status, stats)`` makes the result of what `arrays` now hold. `stats` has "seconds"
        (over all sessions of a checkpointed run) and "steps" (units done), to be added to.
    progress : bool or callable
        True for a bar on stderr; or a function of the fraction done.
    label : str
        What the bar calls the run.
    fraction : callable, optional
        The fraction done, where it is not that of the units: where the total is not known.
    checkpoint : Checkpoint, optional
        Where to continue from and to save to.

    Returns
    -------
    Result
        What `build` makes with status SUCCESS.

    Raises
    ------
    KeyboardInterrupt
        On Ctrl-C, after the partial result was stored with status INTERRUPTED for
        `overparam.results.interrupted` and the checkpoint was saved.
    TypeError
        If `progress` is neither a boolean nor callable.
    ValueError
        If the checkpoint belongs to another run.

    Examples
    --------
    >>> import numpy as np
    >>> from overparam import _run, results
    >>> arrays = {"count": np.zeros(1)}
    >>> def advance(done, budget):
    ...     arrays["count"] += budget
    ...     return budget
    >>> def build(status, stats):
    ...     return results.Point(method="count", status=status, stats=stats, origin={})
    >>> _run.drive(1000, arrays, advance, build).stats["steps"], arrays["count"]
    (1000, array([1000.]))
    """
    report = _reporter(progress, label)
    checkpoint = checkpoint or Checkpoint(None, "")
    stored = checkpoint.load()
    done, before = 0, 0.0
    if stored is None:
        checkpoint.save(0, 0.0, arrays)  # a file that cannot be written fails now, not later
    else:
        done, before, values = stored
        for name, value in values.items():
            arrays[name][...] = value
    began = time.monotonic()

    def seconds() -> float:
        return before + time.monotonic() - began

    budget, whole = 1, True
    try:
        while total is None or done < total:
            report(fraction() if fraction else done / total if total else 0.0)
            whole = False
            with _one_piece():
                start = time.perf_counter()
                count = advance(done, budget if total is None else min(budget, total - done))
                done += count
                whole = True
            if count == 0:
                break
            pace = SLICE * count / max(time.perf_counter() - start, 1e-9)
            budget = max(1, min(16 * budget, int(pace)))
            checkpoint.save(done, seconds(), arrays, now=False)
        report(1.0)
        if stored is None or stored[0] < done:
            checkpoint.save(done, seconds(), arrays)
    except KeyboardInterrupt:
        if whole:  # otherwise the arrays are ahead of the count: the last file stays
            checkpoint.save(done, seconds(), arrays)
        keep_interrupted(build(Status.INTERRUPTED, {"seconds": seconds(), "steps": done}))
        raise
    finally:
        if isinstance(report, Bar):
            report.close()
    return build(Status.SUCCESS, {"seconds": seconds(), "steps": done})


def _reporter(progress: Progress, label: str) -> Callable[[float], object]:
    if callable(progress):
        return progress
    if not isinstance(progress, bool):
        raise _check.bad("progress", "True, False or a function", progress, TypeError)
    return Bar(label) if progress else lambda _: None
