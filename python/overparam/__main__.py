"""The command line: list the claims, run them, and describe the build."""

from __future__ import annotations

import argparse
import fnmatch
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from overparam import _check, _core, claims, plot
from overparam._run import Bar, share
from overparam.claims import Claim, Verdict, _report

_EXAMPLES = """\
examples:
  overparam list                                    what can be run
  overparam reproduce sgd/escape --out figures      one claim, with figure and report.html
  overparam reproduce 'sgd/*' --effort full         all claims of a paper, small error bars
  overparam reproduce --all --threads 2             everything
  overparam info                                    compiler, flags, BLAS, threads, versions
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; those of the process by default.

    Returns
    -------
    int
        Exit status: 0, 1 if a claim failed, 130 after Ctrl-C. Wrong usage exits with 2.

    Examples
    --------
    >>> from overparam.__main__ import main
    >>> main(["info"])  # doctest: +ELLIPSIS
    overparam...
    0
    """
    parser, reproduce = _parsers()
    arguments = parser.parse_args(argv)
    if arguments.command == "info":
        return _info()
    if arguments.command == "list":
        return _list()
    if not (arguments.claims or arguments.all):
        reproduce.error(f"name a claim, or use --all; known are {_known()}")
    chosen = claims.list() if arguments.all else []
    for pattern in arguments.claims:
        found = [name for name in claims.list() if _matches(name, pattern)]
        if not found:
            reproduce.error(f"unknown claim {pattern!r}; known are {_known()}")
        chosen += [name for name in found if name not in chosen]
    return _reproduce(
        [claims.get(name) for name in chosen],
        effort=arguments.effort,
        seed=arguments.seed,
        threads=arguments.threads,
        folder=arguments.out,
    )


def _parsers() -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    parser = argparse.ArgumentParser(
        prog="overparam",
        description="Learning dynamics of shallow overparameterised networks:\n"
        "run the claims of the papers, theory against simulation.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    version = _core.build_info()["version"]
    parser.add_argument("--version", action="version", version=f"overparam {version}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("list", help="list the claims")
    commands.add_parser("info", help="describe the build and the libraries in use")
    reproduce = commands.add_parser(
        "reproduce",
        help="run claims; write figures and report.html",
        description="Run claims and print, for each, what was predicted, what was measured\n"
        "and the verdict. The exit status is 1 if a claim fails.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    reproduce.add_argument(
        "claims", nargs="*", metavar="CLAIM", help="an id, a room (sgd) or a pattern (sgd/*)"
    )
    reproduce.add_argument("--all", action="store_true", help="all claims of all rooms")
    reproduce.add_argument(
        "--effort",
        choices=("quick", "full"),
        default="quick",
        help="quick: minutes for everything; full: small error bars (default: %(default)s)",
    )
    reproduce.add_argument(
        "--out",
        type=Path,
        default=Path("figures"),
        metavar="DIR",
        help="folder for the figures and report.html (default: %(default)s)",
    )
    reproduce.add_argument(
        "--threads",
        type=_at_least(1),
        metavar="N",
        help="threads (default: OVERPARAM_NUM_THREADS, else what OpenMP would use)",
    )
    reproduce.add_argument(
        "--seed",
        type=_at_least(0),
        default=0,
        metavar="N",
        help="seed of all random numbers (default: %(default)s)",
    )
    return parser, reproduce


class _at_least:  # noqa: N801 - used like a function
    """Parses an integer that is not below a bound."""

    def __init__(self, minimum: int) -> None:
        self._minimum = minimum

    def __call__(self, text: str) -> int:
        if not text.isdecimal() or int(text) < self._minimum:
            raise argparse.ArgumentTypeError(
                f"must be an integer >= {self._minimum}, but was {text!r}"
            )
        return int(text)


def _matches(name: str, pattern: str) -> bool:
    room = name.partition("/")[0]
    return room == pattern or fnmatch.fnmatchcase(name, pattern)


def _known() -> str:
    return ", ".join(claims.list())


def _say(line: str) -> None:
    """Print a line, unless its reader, such as `head`, has stopped."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        # Further lines are lost, the run and its report are not.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _list() -> int:
    names = claims.list()
    for name in names:
        _say(f"{name:<{max(map(len, names))}}  {claims.get(name).statement}")
    return 0


def _info() -> int:
    import scipy

    build = _core.build_info()
    blas = scipy.show_config(mode="dicts")["Build Dependencies"]["blas"]
    lines = {
        "overparam": build["version"],
        "compiler": build["compiler"],
        "flags": build["flags"],
        "Eigen": build["eigen"],
        "BLAS": f"{blas['name']} {blas['version']}, from SciPy",
        "threads": str(_check.threads(None)),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
    }
    for name, text in lines.items():
        _say(f"{name:<10} {text}")
    return 0


def _reproduce(
    chosen: list[Claim], *, effort: str, seed: int, threads: int | None, folder: Path
) -> int:
    try:
        plot.require_matplotlib()
        drawing = True
    except ImportError as error:
        print(f"no figures and no report.html will be written: {error}", file=sys.stderr)
        drawing = False
    if drawing:
        folder.mkdir(parents=True, exist_ok=True)  # a folder that cannot be made fails now
    outcomes: list[tuple[Claim, Verdict | Exception]] = []
    status = 0
    width = max(len(claim.id) for claim in chosen)
    bar = Bar("reproduce")
    try:
        for claim in chosen:
            outcome: Verdict | Exception
            done = len(outcomes)
            bar(done / len(chosen))
            try:
                outcome = claim.run(effort, seed, threads, share(bar, done, len(chosen)))
                if drawing:
                    _report.draw(outcome, folder)
            except Exception as error:  # one broken claim does not stop the others
                outcome = error
            outcomes.append((claim, outcome))
            bar.clear()
            _say(f"{claim.id:<{width}}  {_line(outcome)}")
            if not (isinstance(outcome, Verdict) and outcome.passed):
                status = 1
    except KeyboardInterrupt:
        bar.clear()
        print(f"interrupted after {len(outcomes)} of {len(chosen)} claims", file=sys.stderr)
        status = 130
    if drawing:
        _say(f"report: {_report.write(outcomes, folder)}")
    return status


def _line(outcome: Verdict | Exception) -> str:
    if not isinstance(outcome, Verdict):
        return f"FAIL  {type(outcome).__name__}: {outcome}"
    passed = sum(check.passed for check in outcome.checks)
    several = f", {passed} of {len(outcome.checks)} checks" if len(outcome.checks) > 1 else ""
    return (
        f"{outcome.quantity}: predicted {_report.number(outcome.predicted)}, "
        f"measured {_report.number(outcome.measured, outcome.measured_sem)}  "
        f"{_report.word(outcome.passed)}{several}  {outcome.seconds:.1f} s"
    )


if __name__ == "__main__":
    sys.exit(main())
