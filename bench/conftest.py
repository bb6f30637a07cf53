"""Ratios to named peers, measured in one run: ours and theirs by turns, medians of both."""

import statistics
import time

import pytest

_ROWS = []


@pytest.fixture
def compare(benchmark):
    """Return a function that times ours against peers, and records what the issue of speed asks.

    compare(label, ours, peers, units=1, rounds=7): `ours` and the values of the dict `peers` are
    functions without arguments, each doing `units` units of work or the number that it returns.
    """

    def run(label, ours, peers, *, units=1, rounds=7, note=""):
        functions = {"overparam": ours, **peers}
        seconds = {name: [] for name in functions}
        for function in functions.values():
            function()
        for _ in range(rounds):
            for name, function in functions.items():
                began = time.perf_counter()
                done = function()
                elapsed = time.perf_counter() - began
                seconds[name].append(elapsed / (done if isinstance(done, int) else units))
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        benchmark.pedantic(ours, rounds=3)
        for name in peers:
            ratio = medians[name] / medians["overparam"]
            benchmark.extra_info[f"ratio to {name}"] = ratio
            _ROWS.append((label, medians["overparam"], name, medians[name], ratio, note))
        return medians

    return run


def pytest_terminal_summary(terminalreporter):
    """Print the table of ratios."""
    if not _ROWS:
        return
    terminalreporter.section("ratios to peers (medians, one run)")
    for label, ours, name, theirs, ratio, note in _ROWS:
        terminalreporter.write_line(
            f"{label:<46} {ours:9.3g} s   {name:<26} {theirs:9.3g} s   x {ratio:<8.3g} {note}"
        )
