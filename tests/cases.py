"""What the tests over all rooms share: each room's functions with arguments that make them cheap.

A room is added by an entry of ROOMS; test_contract.py, test_agreement.py and test_structure.py do
the rest. Its naive formulas are in naive.py.
"""

import dataclasses
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from overparam import sgd
from overparam._problem import BaseProblem
from overparam.results import Result, Status
from scipy import stats

# Two-sided probability of four standard errors: how often a statistical test may raise a false
# alarm. Tests of several numbers divide it among them (Bonferroni).
FALSE_ALARM = 2 * stats.norm.sf(4)


def standard_errors(comparisons, replicas):
    """The number of standard errors within which that many means of replicas lie."""
    return stats.t.isf(FALSE_ALARM / 2 / comparisons, replicas - 1)


def smallest_pvalue(samples, others):
    """Two-sample Kolmogorov-Smirnov p-value over all columns, Bonferroni-corrected."""
    pvalues = [stats.ks_2samp(*pair).pvalue for pair in zip(samples.T, others.T, strict=True)]
    return min(pvalues) * len(pvalues)


def array_fields(result: Result) -> dict[str, np.ndarray]:
    """The arrays of a result by name."""
    values = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}


def bits(result: Result) -> dict[str, tuple]:
    """Shape and bytes of every array of a result, for comparisons bit by bit."""
    return {name: (array.shape, array.tobytes()) for name, array in array_fields(result).items()}


@dataclass(frozen=True)
class Call:
    """A function with arguments by name; calling it replaces some of them."""

    function: Callable[..., Any]
    arguments: dict[str, Any]

    def __call__(self, **changes):
        return self.function(**{**self.arguments, **changes})

    def takes(self, name):
        return name in inspect.signature(self.function).parameters

    def with_problem(self, **changes):
        problem = self.arguments["problem"].replace(**changes)
        return Call(self.function, {**self.arguments, "problem": problem})


@dataclass(frozen=True, kw_only=True)
class Room:
    """One room's cases.

    `theories` and `simulations` return trajectories, at the same times in one room, `points` other
    results and `numbers` plain numbers and arrays; together they call every public function.
    """

    problem: BaseProblem
    # Wrong values of each parameter of the problem, with the error.
    wrong: dict[str, list[tuple[Any, type[Exception]]]]
    theories: dict[str, Call]
    simulations: dict[str, Call]
    points: dict[str, Call]
    numbers: dict[str, Call]
    # A theory that cannot succeed, with the status of its end; it reaches some of the times.
    failing: dict[str, tuple[Call, Status]]
    # A simulation in which all replicas diverge after t = 0, and one in which some do.
    diverging: Call
    partly_diverging: Call

    @property
    def calls(self) -> dict[str, Call]:
        return {**self.theories, **self.simulations, **self.points, **self.numbers}


# ---- sgd ----


def sgd_arguments(problem: sgd.Problem, start: sgd.Overlaps):
    """M, Q, P, a, a* and the options of the functions of naive.py."""
    options = {"gamma": problem.lr, "b": problem.b, "Delta": problem.noise_var}
    options["batch"] = problem.batch
    if problem.spherical:
        options["spherical"] = True
    if problem.second_layer_lr > 0:
        options["gamma_a"] = problem.second_layer_lr
    return (start.M, start.Q, start.P, problem.a, problem.a_star), options


def sgd_room() -> Room:
    problem = sgd.Problem(width=3, teacher_width=2, lr=0.2, noise_var=0.1, dim=40)
    quiet = problem.replace(noise_var=0.0)
    trained = problem.replace(second_layer_lr=0.2)
    spherical = problem.replace(spherical=True, batch=3)
    erf = problem.replace(activation="erf", second_layer=1.0, teacher_second_layer=1.0)
    wide = problem.replace(width=9)
    start = sgd.Overlaps.random(problem, scale=0.7, seed=3)
    aligned = sgd.Overlaps(Q=0.5 * np.eye(3), M=0.1 * np.eye(3, 2), P=np.eye(2))
    times = [0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0]
    flow = {"problem": problem, "start": start, "t": times}
    run = {**flow, "replicas": 9, "seed": 5}

    def ode(**changes):
        return Call(sgd.ode, {**flow, **changes})

    def simulate(**changes):
        return Call(sgd.simulate, {**run, **changes})

    def state(function, **changes):
        return Call(function, {"problem": problem, "overlaps": start, **changes})

    def seeds(function, **changes):
        return Call(function, {"problem": problem, "start": start, **changes})

    def teacher(function, **changes):
        return Call(function, {"problem": problem, "P": np.diag([1.2, 0.8]), **changes})

    number = [(math.nan, ValueError), (math.inf, ValueError), ("1", TypeError), (True, TypeError)]
    rate = [*number, (-1.0, ValueError), (None, TypeError)]
    count = [(0, ValueError), (-3, ValueError), (2.0, TypeError), ("2", TypeError)]
    flag = [(1, TypeError), (None, TypeError), ("yes", TypeError)]
    layer = [([1.0], ValueError), ([[1.0], [1.0]], ValueError), ("ones", TypeError)]
    layer += [([math.nan] * 3, ValueError), (math.inf, ValueError)]
    return Room(
        problem=problem,
        wrong={
            "width": [*count, (None, TypeError)],
            "teacher_width": [*count, (True, TypeError)],
            "lr": rate,
            "noise_var": rate,
            "dim": count,
            "batch": count,
            "activation": [("tanh", ValueError), (2, TypeError), (None, TypeError)],
            "second_layer": layer,
            "teacher_second_layer": layer,
            "centred": flag,
            "offset": number,
            "spherical": flag,
            "second_layer_lr": rate,
        },
        theories={
            "ode": ode(),
            "ode-rkc": ode(method="rkc", rtol=1e-6),
            "ode-modes": ode(method="modes", start=aligned),
            "ode-riccati": ode(method="riccati", noise=False),
            "ode-trained": ode(problem=trained),
            "ode-erf": ode(problem=erf),
        },
        simulations={
            "chain": simulate(),
            "chain-batch-spherical": simulate(problem=spherical),
            "chain-trained": simulate(problem=trained),
            "chain-erf": simulate(problem=erf),
            "chain-wide": simulate(problem=wide, start=sgd.Overlaps.random(wide, scale=0.7)),
            "direct": simulate(method="direct"),
            "direct-batch-spherical": simulate(problem=spherical, method="direct"),
            "direct-trained": simulate(problem=trained, method="direct"),
        },
        points={"plateau": teacher(sgd.plateau)},
        numbers={
            "risk": state(sgd.risk),
            "drift": state(sgd.drift),
            "mean_step": state(sgd.mean_step),
            "global_minimum": teacher(sgd.global_minimum),
            "lr_max": teacher(sgd.lr_max),
            "misadjustment": teacher(sgd.misadjustment),
            "noise_floor": teacher(sgd.noise_floor),
            "late_time_constant": teacher(sgd.late_time_constant, problem=quiet),
            "escape_time": seeds(sgd.escape_time, drop=0.01),
            "conserved": state(sgd.conserved, t=0.3),
            "principal_angles": Call(sgd.principal_angles, {"overlaps": start}),
            "selected_rotation": seeds(sgd.selected_rotation),
            "seed_ratio": seeds(sgd.seed_ratio, start=aligned),
            "fluctuations": seeds(sgd.fluctuations, t=[0.0, 0.2]),
        },
        failing={
            "few steps": (ode(max_steps=3, t=[0.0, 1e-4, 500.0]), Status.MAX_STEPS),
            "no tolerance": (ode(rtol=1e-20, atol=1e-20), Status.STEP_UNDERFLOW),
            "blow-up": (ode(problem=problem.replace(lr=30.0)), Status.DIVERGED),
        },
        diverging=simulate(problem=problem.replace(lr=200.0)),
        partly_diverging=simulate(problem=problem.replace(lr=0.8), replicas=40),
    )


ROOMS = {"sgd": sgd_room()}


def over_rooms(*kinds):
    """Parametrise a test by the calls of all rooms; kinds are fields of Room with calls by name."""
    return [
        pytest.param(call, id=f"{room}-{name}")
        for room, cases in ROOMS.items()
        for kind in kinds
        for name, call in getattr(cases, kind).items()
    ]
