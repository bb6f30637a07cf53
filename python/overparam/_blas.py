"""The BLAS that SciPy brings, for the core."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from overparam import _core


def load() -> None:
    """Give the core SciPy's BLAS and LAPACK, for matrices too large for its own loops.

    A function that works on such matrices calls this first, always, so that its bits do not
    depend on what else was run.

    Examples
    --------
    >>> from overparam import _blas, _core
    >>> _blas.load()
    >>> _core.has_blas()
    True
    """
    if not _core.has_blas():
        from scipy.linalg import cython_blas, cython_lapack

        names = ("dgemm", "dsyrk", "dtrsm")
        routines = {name: cython_blas.__pyx_capi__[name] for name in names}
        _core.set_blas(**routines, dpotrf=cython_lapack.__pyx_capi__["dpotrf"])


def _thread_functions() -> tuple[Callable[..., Any], Callable[..., Any]] | None:
    """Return the functions that read and set the threads of SciPy's BLAS, where it has them."""
    from scipy.linalg import cython_blas

    library = ctypes.CDLL(cython_blas.__file__)
    for prefix in ("scipy_openblas", "openblas"):
        for suffix in ("", "64_"):
            try:
                get = getattr(library, f"{prefix}_get_num_threads{suffix}")
                return get, getattr(library, f"{prefix}_set_num_threads{suffix}")
            except AttributeError:
                continue
    return None


@contextmanager
def one_thread() -> Iterator[None]:
    """Give the core SciPy's BLAS, and let it use one thread while the block runs.

    For matrices inside the core's own parallel loops.

    Examples
    --------
    >>> from overparam import _blas
    >>> with _blas.one_thread():
    ...     pass
    """
    load()
    functions = _thread_functions()
    if functions is None:
        yield
        return
    get, put = functions
    before = int(get())
    put(1)
    try:
        yield
    finally:
        put(before)
