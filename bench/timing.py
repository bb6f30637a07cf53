"""Wall-clock times of functions that run by turns, so that what else runs delays all alike."""

import time


def by_turns(*functions, rounds):
    """Return the seconds of each call: a list for each function."""
    seconds = [[] for _ in functions]
    for _ in range(rounds):
        for function, taken in zip(functions, seconds, strict=True):
            began = time.perf_counter()
            function()
            taken.append(time.perf_counter() - began)
    return seconds


def shortest(*functions, rounds):
    """Return the shortest time of each, which other work on the machine delays least."""
    return [min(taken) for taken in by_turns(*functions, rounds=rounds)]


def repeated(function, times):
    """Return a function that calls another a number of times, and returns that number."""

    def run():
        for _ in range(times):
            function()
        return times

    return run
