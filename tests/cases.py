"""What the tests over all rooms share: each room's functions with arguments that make them cheap.

A room is added by an entry of ROOMS; test_contract.py, test_agreement.py and test_structure.py do
the rest. Its naive formulas are in naive.py.
"""

import dataclasses
import inspect
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from overparam import empirical_flow, giant_step, random_features, sgd, spectra
from overparam import population_flow as flow
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


def bits(value: Any) -> Any:
    """A plain form of a result or of anything in one, for comparisons bit by bit.

    Of a result it has all fields but `stats` and `origin`: time and threads change no result.
    """
    if isinstance(value, Result):
        names = {field.name for field in dataclasses.fields(value)} - {"stats", "origin"}
        return type(value), {name: bits(getattr(value, name)) for name in sorted(names)}
    if isinstance(value, Mapping):
        return {name: bits(entry) for name, entry in value.items()}
    if isinstance(value, (tuple, list)):
        return [bits(entry) for entry in value]
    if isinstance(value, (np.ndarray, float)):
        array = np.asarray(value)
        return array.dtype.str, array.shape, array.tobytes()
    return value


# Values with the error that they are refused with.
WrongValues = list[tuple[Any, type[Exception]]]


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

    `theories` and `simulations` return trajectories of one class, at the same times `t` in one
    room. The first of each are compared, if there are theories. `points` return other results (also
    trajectories whose times are not such a `t`) and `numbers` plain numbers and arrays. Together
    they call every public function, each by a name of its own. Functions need not take a problem.
    """

    problem: BaseProblem
    # Wrong values of each parameter of the problem, with the error.
    wrong: dict[str, WrongValues]
    # Wrong values of the functions' arguments, beside those that test_contract.py knows.
    wrong_arguments: dict[str, WrongValues] = dataclasses.field(default_factory=dict)
    theories: dict[str, Call]
    simulations: dict[str, Call]
    points: dict[str, Call]
    numbers: dict[str, Call]
    # The theories that are computed at once: they have no `progress` and cannot be interrupted.
    at_once: tuple[str, ...] = ()
    # Calls that cannot succeed, with the status of their end; a trajectory reaches some times.
    failing: dict[str, tuple[Call, Status]]
    # A simulation in which all replicas diverge after t = 0, and one in which some do; None in a
    # room where none can.
    diverging: Call | None
    partly_diverging: Call | None
    # Whether the replicas start from random states. The first theory must then start from that of
    # replica 0 of the first simulation with its seed, instead of that of all replicas.
    random_starts: bool = False

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


# ---- population_flow ----


def population_flow_room() -> Room:
    problem = flow.Problem(teacher_eigenvalues=[1.5, 0.0, 0.7], dim=6, width=3, ridge=0.05)
    free = problem.replace(trace_weight=0.0)
    narrow = problem.replace(width=1, ridge=0.0)
    projector = problem.replace(teacher_eigenvalues=[0.0, 2.0, 2.0])
    square = problem.replace(ridge=0.0)
    times = [0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0]
    run = {"problem": problem, "t": times, "replicas": 9, "seed": 5}
    start = flow.random_start(problem, seed=5)
    frame = flow.random_start(projector, seed=5, init="orthonormal")
    angles = {"cosines2": [0.6, 0.1, 0.0, 0.0], "teacher_width": 3}
    waves = np.cos(1.0 + np.arange(60.0).reshape(20, 3) ** 1.5)

    def solve(**changes):
        return Call(flow.flow, {"problem": problem, "W0": start, "t": times, **changes})

    def simulate(**changes):
        return Call(flow.simulate, {**run, **changes})

    def limit(**changes):
        sizes = {"gamma": 0.5, "gamma_star": 0.3, "t": times}
        return Call(flow.limit, {**sizes, **changes})

    def state(function, **changes):
        return Call(function, {"problem": problem, "W": start, **changes})

    def descend(**changes):
        given = {"problem": problem, "W0": start, "steps": 25, "lr": 0.02}
        return Call(flow.descend, {**given, **changes})

    def descend_samples(**changes):
        given = {"problem": small, "X": waves, "W0": waves[:3, :2], "steps": [0, 7, 20]}
        return Call(flow.descend_samples, {**given, "lr": 0.01, **changes})

    small = flow.Problem(teacher_eigenvalues=[1.0], dim=3, width=2, ridge=0.1)
    signed = {"W_plus": waves[:4, :2], "W_minus": waves[4:8, :1], "teacher": [1.2, 0.4, 0.0, -0.8]}
    number = [("1", TypeError), (True, TypeError), (math.nan, ValueError), (math.inf, ValueError)]
    count = [(0, ValueError), (-3, ValueError), (2.0, TypeError), ("2", TypeError)]
    weight = [*number, (-0.5, ValueError), (None, TypeError)]
    matrix = [(None, TypeError), ("X", TypeError), (1.0, ValueError), ([1.0, 2.0], ValueError)]
    matrix += [([[math.nan] * 4], ValueError), (np.ones((4, 2, 2)), ValueError)]
    positive = [*number, (0.0, ValueError), (-1.0, ValueError), (None, TypeError)]
    family = [(None, TypeError), (0.5 + 0.5j, TypeError), (object(), TypeError)]
    return Room(
        problem=problem,
        wrong={
            "teacher_eigenvalues": [
                (None, TypeError),
                ("1", TypeError),
                (1.0, ValueError),
                ([[1.0]], ValueError),
                ([1.0, -1e-300], ValueError),
                ([math.nan], ValueError),
                ([math.inf], ValueError),
                ([1.0] * 7, ValueError),
            ],
            "dim": [*count, (None, TypeError)],
            "width": [*count, (True, TypeError)],
            "trace_weight": weight,
            "ridge": weight,
        },
        wrong_arguments={
            "lr": [(0.0, ValueError), (None, TypeError)],
            "X": [*matrix, (np.empty((0, 3)), ValueError)],
            "W_plus": [*matrix, (np.ones((3, 2)), ValueError)],
            "W_minus": [*matrix, (np.ones((5, 2)), ValueError)],
            "student": family,
            "teacher": family,
            "trace_weight_d": [*number[:3], (-0.5, ValueError), (None, TypeError)],
            "selected": [
                (None, TypeError),
                ("01", TypeError),
                (0, TypeError),
                ([0.0], TypeError),
                ([True], TypeError),
                ([[0]], TypeError),
                ([0, 0], ValueError),
                ([-1], ValueError),
                ([6], ValueError),
                ([0, 1, 2, 3], ValueError),
            ],
            "cosines2": [([], ValueError), ([0.5] * 4, ValueError)],
            "level": [(1e3, ValueError)],
            "draws": [(1, ValueError)],
            "replica": [(-1, ValueError), (1.0, TypeError), (None, TypeError)],
            "max_iterations": [*count, (None, TypeError)],
            "points": [*count, (1, ValueError), (None, TypeError)],
            "C": positive,
            "c_m": positive,
            "eta": positive,
        },
        theories={
            "flow": solve(),
            "flow-reduced": solve(method="reduced", keep=True),
            "flow-restart": solve(method="restart"),
            "flow-direct": solve(problem=free, method="direct"),
            "flow-ode": solve(method="ode", rtol=1e-9),
            "flow-orthonormal": solve(problem=projector, W0=frame, method="orthonormal"),
            "orthonormal_flow": Call(flow.orthonormal_flow, {**angles, "t": times}),
            "signed_flow": Call(flow.signed_flow, {**signed, "t": times, "rtol": 1e-9}),
            "limit": limit(),
            "limit-gaussian": limit(gamma=1.5, student="gaussian", trace=0.2),
            "limit-finite": limit(
                teacher=spectra.discrete([0.0, 1.0, 2.0], [0.7, 0.2, 0.1]),
                trace_weight_d=20.0,
                ridge=0.1,
            ),
        },
        simulations={
            "simulate": simulate(),
            "simulate-orthonormal": simulate(problem=projector, init="orthonormal", trace=1.0),
            "simulate-narrow": simulate(problem=narrow),
            "simulate-narrow-free": simulate(problem=narrow.replace(trace_weight=0.0)),
            "simulate-free": simulate(problem=free),
        },
        points={
            "critical_point": Call(flow.critical_point, {"problem": square, "selected": [2, 0]}),
            "asymptotics": Call(flow.asymptotics, {"problem": problem}),
            "recovery_samples": Call(
                flow.recovery_samples, {"dim": 5, "teacher_width": 2, "draws": 30, "seed": 5}
            ),
            "is_unique": Call(flow.is_unique, {"X": waves, "teacher_width": 1}),
            "descend": descend(),
            "descend_samples": descend_samples(),
            "limit_spectrum": Call(
                flow.limit_spectrum, {"gamma": 0.5, "gamma_star": 0.3, "t": 1.0, "points": 200}
            ),
        },
        numbers={
            "loss": state(flow.loss),
            "gradient": state(flow.gradient),
            "hessian_action": state(flow.hessian_action, D=start),
            "escape_time": Call(flow.escape_time, angles),
            "recovery_samples_limit": Call(flow.recovery_samples_limit, {"gamma_star": 0.3}),
            "angle_law": Call(flow.angle_law, {"gamma": 0.5, "gamma_star": 0.3}),
            "random_start": Call(flow.random_start, {"problem": problem}),
            "time_scale": Call(flow.time_scale, {"C": 0.5, "c_m": 0.1, "eta": 1.0}),
        },
        failing={
            "few steps": (solve(max_steps=3, t=[0.0, 1e-4, 500.0]), Status.MAX_STEPS),
            "few steps of the weights": (
                solve(method="ode", max_steps=3, t=[0.0, 1e-4, 500.0]),
                Status.MAX_STEPS,
            ),
            "few steps of segments": (
                solve(method="restart", max_steps=5, t=[0.0, 1e-4, 500.0]),
                Status.MAX_STEPS,
            ),
            "few steps of the limit": (
                limit(max_steps=3, t=[0.0, 1e-4, 500.0]),
                Status.MAX_STEPS,
            ),
            "no tolerance": (solve(rtol=1e-20), Status.STEP_UNDERFLOW),
            "no tolerance of the limit": (limit(rtol=1e-20), Status.STEP_UNDERFLOW),
            "large rate": (descend(lr=5.0), Status.DIVERGED),
            "large rate on samples": (descend_samples(lr=5.0), Status.DIVERGED),
        },
        diverging=None,
        partly_diverging=None,
        random_starts=True,
    )


# ---- empirical_flow ----


def empirical_flow_room() -> Room:
    problem = empirical_flow.Problem(
        alpha=0.4, kappa=0.5, kappa_star=0.3, noise_var=0.2, ridge=0.05
    )
    times = [0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0]
    # All times of the tests are on the grid of the learning rate.
    run = {"problem": problem, "t": times, "dim": 8, "replicas": 9, "seed": 5}
    widths = {"kappa": 0.4, "kappa_star": 0.3}

    def simulate(**changes):
        return Call(empirical_flow.simulate, {**run, **changes})

    def unstable(**arguments):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return empirical_flow.simulate(**arguments)

    number = [("1", TypeError), (True, TypeError), (math.nan, ValueError), (math.inf, ValueError)]
    positive = [*number, (0.0, ValueError), (-1.0, ValueError), (None, TypeError)]
    weight = [*number, (-0.5, ValueError), (None, TypeError)]
    name = [("fastest", ValueError), (1, TypeError), (None, TypeError)]
    count = [(0, ValueError), (2.0, TypeError), ("2", TypeError), (None, TypeError)]
    negative = spectra.discrete([-1.0, 1.0], [0.5, 0.5])
    return Room(
        problem=problem,
        wrong={
            "alpha": positive,
            "kappa": positive,
            "kappa_star": positive,
            "noise_var": weight,
            "ridge": weight,
            "teacher_scale": positive,
            "init_scale": positive,
            "teacher_spectrum": [(1.0, TypeError), ("gaussian", TypeError), (negative, ValueError)],
        },
        wrong_arguments={
            "alpha": positive,
            "kappa": positive,
            "kappa_star": positive,
            "noise_var": weight,
            "teacher_scale": positive,
            "sigma2": [
                (None, TypeError),
                ([], ValueError),
                ([-1.0], ValueError),
                ([0.0], ValueError),
                ([[1.0]], ValueError),
                ([math.nan], ValueError),
            ],
            "branch": name,
            "root": [(-2, ValueError), (5, ValueError), (0.0, TypeError), (None, TypeError)],
            "lr": [(0.0, ValueError), ([], ValueError), ([[0.1]], ValueError)],
            "sensing": name,
            "teacher": name,
            "eigenvalues": [(1, TypeError), (None, TypeError)],
            "tol": positive,
            "restarts": [(-1, ValueError), (1.0, TypeError), (None, TypeError)],
            "max_iterations": count,
            "groups": [(0, ValueError), (3, ValueError), (2.0, TypeError), ("2", TypeError)],
            "probes": count,
            "momentum": [*weight, (1.0, ValueError)],
            "storage": name,
            "ridges": [("1", TypeError), (0.1, ValueError), ([], ValueError), ([-1.0], ValueError)],
            "extrapolate": [(1, TypeError), (None, TypeError)],
        },
        theories={},
        simulations={
            "simulate": simulate(lr=1 / 220),
            "simulate-goe": simulate(
                lr=1 / 220, sensing="goe", teacher="quantile", eigenvalues=True
            ),
            "simulate-flow": simulate(rtol=1e-10),
            "simulate-many": simulate(
                problem=problem.replace(alpha=1.2), rtol=1e-10, sensing="goe"
            ),
        },
        points={
            "long_time": Call(empirical_flow.long_time, {"problem": problem}),
            "curve": Call(empirical_flow.curve, {"problem": problem, "sigma2": [0.1, 1.0]}),
            "spectrum": Call(empirical_flow.spectrum, {"problem": problem}),
            "minimise": Call(
                empirical_flow.minimise,
                {"problem": problem, "dim": 8, "replicas": 2, "seed": 5},
            ),
            "dmft": Call(
                empirical_flow.dmft,
                {**run, "lr": 1 / 40, "dim": 12, "replicas": 8, "groups": 2, "probes": 4},
            ),
        },
        numbers={
            "optimal_ridge": Call(empirical_flow.optimal_ridge, {"problem": problem}),
            "bayes_risk": Call(
                empirical_flow.bayes_risk, {"alpha": 0.3, "kappa_star": 0.5, "noise_var": 0.2}
            ),
            "recovery_threshold": Call(
                empirical_flow.recovery_threshold, {**widths, "ridge": "none"}
            ),
            "interpolation_threshold": Call(
                empirical_flow.interpolation_threshold, {**widths, "noise_var": 0.2}
            ),
            "unique_threshold": Call(empirical_flow.unique_threshold, {"kappa_star": 0.3}),
            "saturation_width": Call(empirical_flow.saturation_width, {"kappa_star": 0.3}),
            "stable_lr": Call(empirical_flow.stable_lr, {"problem": problem}),
            "teacher_eigenvalues": Call(
                empirical_flow.teacher_eigenvalues, {"problem": problem, "dim": 8}
            ),
        },
        failing={
            "few steps": (
                simulate(rtol=1e-6, max_steps=3, t=[0.0, 1e-4, 500.0], replicas=2),
                Status.MAX_STEPS,
            ),
            "few iterations": (
                Call(empirical_flow.minimise, {"problem": problem, "dim": 8, "max_iterations": 2}),
                Status.NOT_CONVERGED,
            ),
        },
        diverging=Call(unstable, {**run, "t": [0.0, 1000.0, 2000.0], "lr": 10.0}),
        partly_diverging=Call(unstable, {**run, "lr": 0.125, "replicas": 40}),
        random_starts=True,
    )


# ---- random_features ----


def random_features_room() -> Room:
    # With 220 features all times of the tests are steps.
    problem = random_features.Problem(
        dim=9,
        width=220,
        lr=1.0,
        noise_var=0.1,
        teacher_weights=[0.8, -0.5],
        teacher_overlap=[[1.0, 0.3], [0.3, 1.0]],
    )
    single = problem.replace(teacher_weights=[1.0], teacher_overlap=None)
    relu = single.replace(activation="relu", init_var=0.2)
    infinite = problem.replace(width=math.inf)
    times = [0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0]
    run = {"problem": problem, "t": times, "replicas": 9, "seed": 5}
    W = np.cos(1.0 + np.arange(220.0 * 9).reshape(220, 9) ** 1.5)
    W *= 3.0 / np.linalg.norm(W, axis=1, keepdims=True)
    B = np.cos(2.0 + np.arange(9.0).reshape(1, 9) ** 1.3)
    given = {"problem": single, "W": W, "B": B, "t": times}

    def simulate(**changes):
        return Call(random_features.simulate, {**run, **changes})

    def modes(**changes):
        return Call(random_features.modes, {**given, **changes})

    def law(function, **changes):
        return Call(function, {"problem": problem, "t": times, **changes})

    def averages(**changes):
        layers = {"W": W[:7], "B": B, "v": [1.0], "activation": "erf"}
        return Call(random_features.population, {**layers, **changes})

    number = [("1", TypeError), (True, TypeError), (math.nan, ValueError), (math.inf, ValueError)]
    count = [(0, ValueError), (-3, ValueError), ("2", TypeError), (True, TypeError)]
    variance = [*number, (-0.5, ValueError), (None, TypeError)]
    positive = [*variance, (0.0, ValueError)]
    name = [("tanh", ValueError), (2, TypeError)]
    matrix = [("W", TypeError), (1.0, ValueError), ([1.0, 2.0], ValueError)]
    matrix += [(np.ones((2, 2, 2)), ValueError), ([[math.nan] * 9], ValueError)]
    schedule = [
        (1.0, TypeError),
        (lambda tau: tau[:-1], ValueError),
        (lambda tau: -1.0 - tau, ValueError),
        (lambda tau: tau * math.nan, ValueError),
    ]
    return Room(
        problem=problem,
        wrong={
            "dim": [*count, (2.0, TypeError), (None, TypeError)],
            "width": [*count, (2.5, TypeError), (-math.inf, TypeError), (None, TypeError)],
            "lr": positive,
            "activation": [*name, (None, TypeError)],
            "teacher_activation": name,
            "teacher_weights": [
                (None, TypeError),
                ([], ValueError),
                (1.0, ValueError),
                ([math.nan, 1.0], ValueError),
                ([[1.0, 1.0]], ValueError),
            ],
            "teacher_overlap": [
                (1.0, ValueError),
                (np.eye(3), ValueError),
                ([[1.0, 0.5], [0.4, 1.0]], ValueError),
                ([[1.0, 1.5], [1.5, 1.0]], ValueError),
                ([[2.0, 0.0], [0.0, 1.0]], ValueError),
                ([[1.0, math.nan], [math.nan, 1.0]], ValueError),
            ],
            "noise_var": variance,
            "init_var": variance,
            "rows": [*name, (None, TypeError)],
        },
        wrong_arguments={
            "W": matrix,
            "B": matrix,
            "v": [(None, TypeError), ([1.0, 2.0, 3.0], ValueError), ([math.nan], ValueError)],
            "teachers": [*count, (2.0, TypeError)],
            "block": [*count, (2.0, TypeError)],
            "lr_schedule": schedule,
            "closure": [(None, TypeError)],
            "time": [(None, TypeError)],
            "route": [(None, TypeError)],
            "act_x": [(None, TypeError)],
            "act_y": [(None, TypeError)],
            "activation": [(None, TypeError)],
            "teacher_activation": name,
            "cov": [("1", TypeError), (1.5, ValueError), (math.nan, ValueError)],
            "var_x": [("1", TypeError), (-1.0, ValueError)],
            "var_y": [("1", TypeError), (-1.0, ValueError)],
            "order": [(-1, ValueError), (1.0, TypeError), (None, TypeError)],
            "lmax": [(-1, ValueError), (1.0, TypeError), (None, TypeError)],
            "tol": positive,
            "population": [(None, TypeError), (np.eye(2), TypeError)],
            "finite_size": [(1, TypeError), (None, TypeError)],
        },
        theories={
            "curve": law(random_features.curve),
            "curve-relu": law(random_features.curve, problem=relu),
            "proportional": law(random_features.proportional),
            "modes": modes(),
            "modes-gaussian": modes(closure="gaussian", time="discrete"),
            "modes-flow": modes(noise=False),
            "modes-schedule": modes(time="discrete", lr_schedule=lambda tau: 1.0 / (1.0 + tau)),
        },
        simulations={
            "simulate": simulate(teachers=20),
            "simulate-relu": simulate(problem=relu.replace(rows="gaussian")),
            "simulate-given": simulate(problem=single, W=W, B=B),
            "simulate-schedule": simulate(
                lr_schedule=lambda tau: 1.0 / (1.0 + tau), block=50, teachers=3
            ),
        },
        points={
            "hermite": Call(random_features.hermite, {"activation": "erf", "order": 5}),
            "population": averages(),
            "best_fit": Call(random_features.best_fit, {"population": averages()()}),
            "sphere_spectrum": Call(
                random_features.sphere_spectrum, {"dim": 9, "activation": "erf", "lmax": 6}
            ),
            "curve-kernel": Call(
                random_features.curve, {"problem": infinite, "t": [0.0, 1.0, 7.0]}
            ),
        },
        numbers={
            "pair_kernel": Call(
                random_features.pair_kernel, {"act_x": "erf", "act_y": "relu", "cov": 0.3}
            ),
            "minimal_risk": Call(random_features.minimal_risk, {"problem": problem}),
            "stationary_risk": Call(random_features.stationary_risk, {"problem": problem}),
            "lr_max": Call(random_features.lr_max, {"problem": problem}),
            "width_for": Call(random_features.width_for, {"dim": 9, "tol": 0.1}),
        },
        at_once=(
            "curve",
            "curve-relu",
            "proportional",
            "modes",
            "modes-gaussian",
            "modes-flow",
            "modes-schedule",
        ),
        failing={
            "blow-up": (
                Call(
                    random_features.curve,
                    {"problem": problem.replace(lr=20.0), "t": [0.0, 1.0, 500.0]},
                ),
                Status.DIVERGED,
            ),
        },
        diverging=simulate(problem=problem.replace(lr=40.0)),
        partly_diverging=simulate(problem=problem.replace(lr=5.9, dim=3, width=20), replicas=40),
    )


# ---- giant_step ----


def giant_step_room() -> Room:
    problem = giant_step.Problem(
        alpha=1.5, beta=1.0, ridge=0.1, lr=3.0, alpha0=2.0, target="sin", noise_var=0.1
    )
    groups = problem.replace(readout_values=[1.0, -0.5], readout_fractions=[0.4, 0.6])
    spike = giant_step.Spike(strength=[1.2], variance=[1.1], alignment=0.9)
    three = giant_step.Spike(strength=np.ones(3), variance=np.ones(3), alignment=0.9)
    W = np.cos(1.0 + np.arange(24.0 * 30).reshape(30, 24) ** 1.5) / 5
    wide = problem.replace(beta=1.25)
    run = {"problem": problem, "dim": 20, "test_samples": 50, "replicas": 3, "seed": 5}

    def solve(**changes):
        return Call(giant_step.solve, {"problem": problem, **changes})

    def best(function, **changes):
        return Call(function, {"problem": problem, "method": "isotropic", **changes})

    number = [("1", TypeError), (True, TypeError), (math.nan, ValueError), (math.inf, ValueError)]
    variance = [*number, (-0.5, ValueError), (None, TypeError)]
    positive = [*variance, (0.0, ValueError)]
    name = [("gelu", ValueError), (2, TypeError), (None, TypeError)]
    values = [(None, TypeError), ([], ValueError), (1.0, ValueError), ([math.nan], ValueError)]
    values += [([1.0, 2.0, 3.0], ValueError)]
    direction = [(None, TypeError), ("v", TypeError), (1.0, ValueError), (np.zeros(24), ValueError)]
    direction += [(np.ones(23), ValueError), (np.full(24, math.nan), ValueError)]
    count = [(0, ValueError), (-3, ValueError), (2.5, TypeError), ("2", TypeError)]
    return Room(
        problem=problem,
        wrong={
            "alpha": positive,
            "beta": positive,
            "ridge": positive,
            "lr": [*number, (None, TypeError)],
            "alpha0": [
                ("1", TypeError),
                (True, TypeError),
                (math.nan, ValueError),
                (-0.5, ValueError),
                (None, TypeError),
            ],
            "activation": name,
            "target": name,
            "noise_var": variance,
            "readout_values": values,
            "readout_fractions": [
                *values,
                ([0.5], ValueError),
                ([-1.0], ValueError),
                ([0.5, 0.5], ValueError),
            ],
        },
        wrong_arguments={
            "activation": name,
            "kappa": [("1", TypeError), (math.nan, ValueError), ([1.0, math.inf], ValueError)],
            "variance": [("1", TypeError), (0.0, ValueError), ([1.0, -1.0], ValueError)],
            "spike": [(1.0, TypeError), (three, ValueError)],
            "width": [*number, (0.0, ValueError)],
            "small_step": number,
            "modes_dim": [*count, (None, TypeError)],
            "bounds": [(None, TypeError), ([1.0], ValueError), ((2.0, 1.0), ValueError)],
            "direction": direction,
            "target_direction": direction,
            "test_samples": [*count, (None, TypeError)],
        },
        theories={},
        simulations={},
        points={
            "solve": solve(),
            "solve-anisotropic": solve(method="anisotropic", problem=groups),
            "solve-isotropic": solve(method="isotropic", problem=groups, width=200.0),
            "solve-spike": solve(spike=spike),
            "solve-small": solve(small_step=1.5),
            "solve-random": solve(problem=problem.replace(lr=0.0)),
            "solve-relu": solve(problem=problem.replace(activation="relu"), modes_dim=100, seed=3),
            "solve-logistic": solve(loss="logistic"),
            "from_weights": Call(
                giant_step.from_weights,
                {
                    "problem": wide,
                    "W": W,
                    "direction": np.ones(24),
                    "target_direction": np.arange(24.0),
                },
            ),
            "simulate": Call(giant_step.simulate, run),
            "simulate-groups": Call(giant_step.simulate, {**run, "problem": groups}),
            "simulate-spiked": Call(
                giant_step.simulate, {**run, "model": "spiked", "spike": spike}
            ),
        },
        numbers={
            "moments": Call(giant_step.moments, {"activation": "tanh"}),
            "spike": Call(giant_step.spike, {"problem": groups}),
            "features": Call(
                giant_step.features, {"activation": "tanh", "kappa": [0.1, 0.7], "variance": 1.3}
            ),
            "linear_floor": Call(giant_step.linear_floor, {"problem": problem}),
            "projection_floor": Call(giant_step.projection_floor, {"problem": groups}),
            "optimal_ridge": best(giant_step.optimal_ridge, bounds=(1e-3, 10.0)),
            "optimal_lr": best(giant_step.optimal_lr, bounds=(0.5, 10.0)),
        },
        failing={
            "no finite feature": (
                Call(
                    giant_step.simulate,
                    {**run, "problem": problem.replace(activation="he3", lr=1e300)},
                ),
                Status.DIVERGED,
            ),
        },
        diverging=None,
        partly_diverging=None,
    )


ROOMS = {
    "sgd": sgd_room(),
    "population_flow": population_flow_room(),
    "empirical_flow": empirical_flow_room(),
    "random_features": random_features_room(),
    "giant_step": giant_step_room(),
}


def over_rooms(*kinds, rooms=ROOMS):
    """Parametrise a test by the calls of all rooms; kinds are fields of Room with calls by name."""
    return [
        pytest.param(call, id=f"{room}-{name}")
        for room, cases in rooms.items()
        for kind in kinds
        for name, call in getattr(cases, kind).items()
    ]
