"""Compares the CPU with the instruction set for which the extension module was compiled."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path


def missing(needed: str, cpuinfo: str) -> list[str]:
    r"""Return the features of `needed` (one a line) that no flags line of `cpuinfo` lists.

    Examples
    --------
    >>> from overparam import _cpu
    >>> _cpu.missing("avx2\navx512f\n", "flags : sse avx2")
    ['avx512f']
    """
    flags: set[str] = set()
    for line in cpuinfo.splitlines():
        key, _, values = line.partition(":")
        if key.strip() == "flags":
            flags.update(values.split())
            break
    return [feature for feature in needed.split() if feature not in flags]


def check(folders: Iterable[str], cpuinfo: Path = Path("/proc/cpuinfo")) -> None:
    """Raise ImportError if the installed extension needs what this CPU does not have.

    Parameters
    ----------
    folders : iterable of str
        Folders of the installed package; the build leaves ``cpu_features.txt`` in one of them.
    cpuinfo : Path
        Where Linux lists the CPU's flags; other systems are not checked.

    Raises
    ------
    ImportError
        Naming the missing features and the remedy.

    Examples
    --------
    >>> import overparam
    >>> from overparam import _cpu
    >>> _cpu.check(overparam.__path__)
    """
    if not (sys.platform.startswith("linux") and cpuinfo.is_file()):
        return
    for folder in folders:
        listing = Path(folder) / "cpu_features.txt"
        if listing.is_file():
            lacking = missing(listing.read_text(encoding="ascii"), cpuinfo.read_text("utf-8"))
            if lacking:
                raise ImportError(
                    "this build of overparam uses CPU features that this machine lacks: "
                    f"{', '.join(lacking)}. Reinstall it from source on this machine, or build it "
                    "for older CPUs: "
                    "pip install . --config-settings=cmake.define.OVERPARAM_ARCH=x86-64-v3"
                )
