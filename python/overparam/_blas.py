"""The BLAS that SciPy brings, for the core."""

from __future__ import annotations

from overparam import _core


def load() -> None:
    """Give the core SciPy's dgemm, for products of matrices too large for its own loops.

    A function that multiplies such matrices calls this first, always, so that its bits do not
    depend on what else was run.

    Examples
    --------
    >>> from overparam import _blas, _core
    >>> _blas.load()
    >>> _core.has_blas()
    True
    """
    if not _core.has_blas():
        from scipy.linalg import cython_blas

        _core.set_dgemm(cython_blas.__pyx_capi__["dgemm"])
