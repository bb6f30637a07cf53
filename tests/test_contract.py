"""What every room promises, whatever it computes: one test per promise, over all rooms' cases.

The toy room takes part, for what only some rooms have: functions without a problem, theories
without slices, replicas that start at random and are computed one by one, nothing that diverges.
"""

import copy
import dataclasses
import inspect
import json
import math
import pickle
from dataclasses import fields

import cases
import numpy as np
import overparam as op
import pytest
import toys
from cases import ROOMS, Call, Room, array_fields, bits
from numpy.testing import assert_allclose, assert_array_equal
from overparam import _run, plot, results
from overparam.__main__ import main
from overparam._problem import BaseProblem
from overparam.results import Result, Status, Trajectory


def toy_room():
    rates, times = [0.5, 2.0, 3.0], [0.0, 0.25, 0.5, 1.0, 2.0]
    start = toys.heights(rates, seed=5, replicas=1)
    wrong = [(None, TypeError), ("1", TypeError), (1.0, ValueError), ([math.nan], ValueError)]
    run = {"rates": rates, "t": times, "replicas": 9, "seed": 5}
    return Room(
        problem=toys.Problem(rate=1.0, label="x"),
        wrong={
            "rate": wrong_numbers(),
            "width": [(0, ValueError), (1.5, TypeError)],
            "teacher": wrong,
            "cutoff": [(-1.0, ValueError), (None, TypeError)],
            "label": [],
        },
        wrong_arguments={"rates": wrong, "heights": wrong},
        theories={"relax": Call(toys.relax, {"heights": start, "rates": rates, "t": times})},
        at_once=("relax",),
        simulations={"relax_from_random": Call(toys.relax_from_random, run)},
        points={"half_life": Call(toys.half_life, {"rates": rates})},
        numbers={},
        failing={},
        diverging=None,
        partly_diverging=None,
        random_starts=True,
    )


def wrong_numbers(*bad_ones):
    """What is no finite number, and numbers that are refused."""
    wrong = [("1", TypeError), (True, TypeError), (math.nan, ValueError), (math.inf, ValueError)]
    return wrong + [(value, ValueError) for value in bad_ones]


CASES = {**ROOMS, "toy": toy_room()}


def over(*kinds):
    return pytest.mark.parametrize("call", cases.over_rooms(*kinds, rooms=CASES))


def over_those(condition, *kinds):
    params = cases.over_rooms(*kinds, rooms=CASES)
    return pytest.mark.parametrize("call", [p for p in params if condition(*p.values)])


over_simulations = over("simulations")
over_trajectories = over("theories", "simulations")
over_results = over("theories", "simulations", "points")
over_all = over("theories", "simulations", "points", "numbers")
over_sliced = over_those(lambda call: call.takes("progress"), "theories", "simulations")
over_the_rooms = pytest.mark.parametrize("room", CASES.values(), ids=CASES)
COMPARED = {key: room for key, room in CASES.items() if room.theories}
over_the_rooms_compared = pytest.mark.parametrize("room", COMPARED.values(), ids=COMPARED)


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No earlier interruption; one thread, since the cases are too small to share."""
    monkeypatch.setattr(results, "_interrupted", None)
    monkeypatch.setenv("OVERPARAM_NUM_THREADS", "1")


@pytest.fixture
def tiny_slices(monkeypatch):
    monkeypatch.setattr(_run, "SLICE", 0.0)


def same(one, other):
    """Everything but the time it took and the threads that it used."""
    assert bits(one) == bits(other)


def headline(result):
    return getattr(result, result.headline)


def stop_at(wanted):
    """A progress function that stops a run like Ctrl-C between two slices."""

    def progress(fraction):
        if fraction >= wanted:
            raise KeyboardInterrupt

    return progress


def assert_refused(function, error, name):
    with pytest.raises(error, match=rf"\b{name}\b") as caught:
        function()
    assert type(caught.value) is error


# ---- determinism ----


@over_simulations
def test_a_seed_repeats_the_run(call):
    first = call()
    same(first, call())
    same(first, call(seed=np.random.SeedSequence(call.arguments["seed"])))
    assert bits(first) != bits(call(seed=call.arguments["seed"] + 1))
    fresh = call(seed=None)
    same(fresh, call(seed=fresh.origin["seed"]))


@over_trajectories
def test_repeated_calls_give_the_same_bits(call):
    same(call(), call())


@over_simulations
def test_threads_change_no_bit(call):
    alone = call(replicas=17, threads=1)
    for threads in (2, 5):
        shared = call(replicas=17, threads=threads)
        same(alone, shared)
        assert shared.stats["threads"] == threads


@over_simulations
def test_threads_come_from_the_environment(call, monkeypatch):
    monkeypatch.setenv("OVERPARAM_NUM_THREADS", "3")
    assert call().stats["threads"] == 3
    monkeypatch.setenv("OVERPARAM_NUM_THREADS", "many")
    assert_refused(call, ValueError, "OVERPARAM_NUM_THREADS")


@over_sliced
def test_slices_change_no_bit(call, monkeypatch):
    whole = call()
    seen = []
    monkeypatch.setattr(_run, "SLICE", 0.0)
    same(whole, call(progress=seen.append))
    assert len(seen) > 5


@over_simulations
def test_the_first_replicas_do_not_depend_on_the_others(call):
    many = call(replicas=17)
    for count in (1, 7, 8, 9):
        assert_first_replicas(call(replicas=count), many, count)


def assert_first_replicas(few, many, count):
    """`few` has the first replicas of `many`, bit by bit, and all else that it has."""
    assert few.replicas == count
    assert array_fields(few).keys() == array_fields(many).keys()
    for name, array in array_fields(few).items():
        expected = getattr(many, name)
        expected = expected[:count] if "replica" in many._axes(name) else expected
        assert array.shape == expected.shape
        assert array.tobytes() == expected.tobytes()


@over_trajectories
def test_recorded_times_change_rounding_only(call):
    t = np.array(call.arguments["t"])
    all_times = call()
    alone = call(t=t[-1:])
    more = call(t=np.append(np.linspace(0, t[-1], 23)[:-1], t[-1]))
    for other in (alone, more):
        for name, axes in fields_in_time(all_times).items():
            last = [np.take(getattr(r, name), -1, axes.index("time")) for r in (all_times, other)]
            assert_allclose(*last, rtol=1e-7, atol=1e-9)


def fields_in_time(result):
    """Axes of the fields that have a time axis, without t itself."""
    axes = {name: result._axes(name) for name in array_fields(result) if name != "t"}
    return {name: names for name, names in axes.items() if "time" in names}


# ---- times ----


@over_trajectories
def test_results_are_at_exactly_the_times(call):
    assert_array_equal(call().t, call.arguments["t"])
    for t in ([0.0], [0.0, 1.2], [0.5], np.float32([0.5]), (0, 1)):
        assert call(t=t).t.tolist() == np.asarray(t, dtype=float).tolist()


@over_the_rooms_compared
def test_theory_and_simulation_start_at_the_start(room):
    """At t = 0 nothing has happened: all methods agree on every field."""
    theory, *_ = room.theories.values()
    simulation, *_ = room.simulations.values()
    exact = theory(t=[0.0])
    sampled = simulation(t=[0.0], replicas=1 if room.random_starts else 2)
    table = op.compare(exact, sampled)
    assert_allclose(table["mean"], table["theory"], rtol=1e-12, atol=1e-15)
    assert exact.status is sampled.status is Status.SUCCESS
    assert not sampled.diverged.any()


# ---- results ----


@over_the_rooms
def test_theory_and_simulation_return_the_same_type(room):
    trajectories = [call() for call in (*room.theories.values(), *room.simulations.values())]
    assert len({type(result) for result in trajectories}) <= 1
    for result in trajectories:
        assert isinstance(result, Trajectory)
        assert result.time_label != "t"
        assert {"t", result.headline} <= set(array_fields(result))
        assert result._specs()[result.headline].axes == ("time",)
    for call in room.simulations.values():
        assert call().sampled
    for call in (*room.theories.values(), *room.points.values()):
        assert "replicas" in call.arguments or not call().sampled


@over_results
def test_results_say_where_they_come_from(call):
    result = call()
    assert result.problem == call.arguments.get("problem")
    if result.problem is None:
        elsewhere = {"t", "method", "seed", "replicas"}
        assert call.arguments.keys() - elsewhere <= result.inputs.keys()
    assert result.status is Status.SUCCESS
    assert result.method
    assert result.origin["version"] == op.__version__
    assert result.origin["build"]["compiler"]
    if isinstance(result, Trajectory):
        assert result.stats["seconds"] >= 0
        assert result.stats["steps"] > 0
    if "seed" in call.arguments:
        assert result.origin["seed"] == call.arguments["seed"]
    assert not result.sampled or "seed" in result.origin


@over_results
def test_results_are_read_only(call):
    result = call()
    for name, array in array_fields(result).items():
        assert array.dtype == result._specs()[name].dtype
        assert array.dtype in (np.float64, np.int64, bool)
        assert array.flags.c_contiguous
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
        with pytest.raises(AttributeError):
            setattr(result, name, None)


@over_results
def test_results_survive_files_and_pickle(call, tmp_path):
    result = call()
    for again in (
        op.load(result.save(tmp_path / "run")),
        pickle.loads(pickle.dumps(result)),
        copy.deepcopy(result),
    ):
        same(result, again)
        assert again.stats == result.stats
        assert again.origin == result.origin
        for array in array_fields(again).values():
            with pytest.raises(ValueError, match="read-only"):
                array[...] = 0


@over_simulations
def test_statistics_over_replicas(call):
    result = call(replicas=8)
    mean, sem, low = result.mean(), result.sem(), result.quantile(0.0)
    assert type(mean) is type(sem) is type(low) is type(result)
    values = headline(result)
    expected = values.std(axis=0, ddof=1) / math.sqrt(8)
    assert_allclose(headline(mean), values.mean(axis=0), rtol=1e-13)
    assert_allclose(headline(sem), expected, rtol=1e-9, atol=1e-13)
    assert_array_equal(headline(low), values.min(axis=0))
    assert mean.stats["left_out"] == 0


@over_all
def test_inputs_are_untouched(call):
    """Arrays and lists among the arguments, and all else, are as they were."""
    arguments = {
        name: np.array(value) if isinstance(value, list) else value
        for name, value in call.arguments.items()
    }
    before = copy.deepcopy(arguments)
    call(**arguments)
    for name, value in arguments.items():
        if isinstance(value, Result):
            assert bits(value) == bits(before[name])
        else:
            assert np.array_equal(value, before[name])


# ---- progress, interruption, checkpoints ----


@over_the_rooms
def test_trajectories_are_computed_in_slices(room):
    assert set(room.at_once) <= room.theories.keys()
    for name, call in (room.theories | room.simulations).items():
        assert call.takes("progress") == (name not in room.at_once)
    for call in room.simulations.values():
        assert call.takes("checkpoint")


@over_sliced
def test_progress(call, capsys):
    whole, seen = call(), []
    same(whole, call(progress=seen.append))
    assert seen[0] == 0.0
    assert seen[-1] == 1.0
    assert seen == sorted(seen)
    assert capsys.readouterr().err == ""
    same(whole, call(progress=True))
    assert "100%" in capsys.readouterr().err


@over_sliced
@pytest.mark.usefixtures("tiny_slices")
def test_an_interrupted_run_leaves_what_it_computed(call):
    """All replicas until some time; or, where they are computed one by one, the first of them."""
    whole = call()
    with pytest.raises(KeyboardInterrupt):
        call(progress=stop_at(0.5))
    partial = results.interrupted()
    assert partial.status is Status.INTERRUPTED
    if whole.sampled and partial.replicas != whole.replicas:
        assert 0 < partial.replicas < whole.replicas
        assert_first_replicas(partial, whole, partial.replicas)
        return
    count = len(partial.t)
    assert 0 < count < len(whole.t)
    assert_array_equal(partial.t, whole.t[:count])
    for name, axes in fields_in_time(partial).items():
        computed = np.take(getattr(whole, name), range(count), axes.index("time"))
        assert_array_equal(getattr(partial, name), computed)


@over_simulations
@pytest.mark.usefixtures("tiny_slices")
def test_a_checkpoint_continues_to_the_same_bits(call, tmp_path):
    path = tmp_path / "run.npz"
    whole = call()
    for wanted in (0.3, 0.7):
        with pytest.raises(KeyboardInterrupt):
            call(progress=stop_at(wanted), checkpoint=path)
    seen = []
    same(whole, call(progress=seen.append, checkpoint=path))
    assert seen[0] >= 0.7
    same(whole, call(checkpoint=path))
    assert_refused(lambda: call(checkpoint=path, replicas=3), ValueError, "checkpoint")


# ---- failures ----


FAILING = [
    pytest.param(*case, id=f"{key}-{name}")
    for key, room in CASES.items()
    for name, case in room.failing.items()
]


@pytest.mark.parametrize(("call", "status"), FAILING)
def test_a_call_that_fails_gives_status_and_partial_result(call, status):
    with pytest.raises(op.ConvergenceError) as caught:
        call()
    partial = caught.value.result
    assert partial.status is status
    same(partial, call(throw=False))
    if not isinstance(partial, Trajectory):
        return
    assert len(partial.t) > 0
    if call.takes("t"):
        count = len(partial.t)
        assert count < len(call.arguments["t"])
        assert_array_equal(partial.t, call.arguments["t"][:count])
    for name in fields_in_time(partial):
        assert np.isfinite(getattr(partial, name)).all()


def over_rooms_with(name):
    """The rooms that have the optional case of that name."""
    found = {key: room for key, room in CASES.items() if getattr(room, name) is not None}
    return pytest.mark.parametrize("room", found.values(), ids=found)


@over_rooms_with("diverging")
def test_all_replicas_diverge(room):
    with pytest.raises(op.ConvergenceError) as caught:
        room.diverging()
    partial = caught.value.result
    assert partial.status is Status.DIVERGED
    assert partial.diverged.all()
    assert partial.t.tolist() == [0.0]
    same(partial, room.diverging(throw=False))


@over_rooms_with("partly_diverging")
def test_single_replicas_diverge(room):
    result = room.partly_diverging()
    values = headline(result)
    assert result.status is Status.SUCCESS
    lost = result.diverged
    assert 0 < lost.sum() < len(lost)
    assert np.isfinite(values[~lost]).all()
    assert np.isnan(values[lost, -1]).all()
    gone = np.isnan(values)
    assert (gone[:, 1:] >= gone[:, :-1]).all()
    with np.errstate(over="ignore"):
        reduced = result.mean(), result.sem(), result.quantile(0.5)
    for statistics in reduced:
        assert statistics.stats["left_out"] == lost.sum()
        assert np.isfinite(headline(statistics)[0]).all()
    assert_array_equal(headline(reduced[2]), np.nanmedian(values, axis=0))


# ---- wrong arguments ----

FLAG = [(1, TypeError), (None, TypeError)]
NAME = [("fastest", ValueError), (1, TypeError), (None, TypeError)]
COUNT = [(0, ValueError), (-1, ValueError), (2.0, TypeError), ("2", TypeError), (True, TypeError)]
POSITIVE = [*wrong_numbers(0.0, -1.0), (None, TypeError)]

# Wrong values of the arguments that several rooms have, with the error.
WRONG = {
    "problem": [(None, TypeError), (toys.Problem(rate=1.0), TypeError)],
    "start": [(None, TypeError), (3, TypeError)],
    "overlaps": [(None, TypeError), (np.eye(2), TypeError)],
    "t": [
        (None, TypeError),
        ("1", TypeError),
        ([True], TypeError),
        ([1j], TypeError),
        (1.0, ValueError),
        ([], ValueError),
        ([[0.0, 1.0]], ValueError),
        ([0.0, math.nan], ValueError),
        ([0.0, math.inf], ValueError),
        ([-1.0, 1.0], ValueError),
        ([1.0, 0.5], ValueError),
        ([0.0, 1.0, 1.0], ValueError),
        ([[0.0], [0.0, 1.0]], ValueError),
    ],
    "replicas": COUNT,
    "seed": [(-1, ValueError), (1.0, TypeError), ("0", TypeError), (True, TypeError)],
    "threads": [(0, ValueError), (-2, ValueError), (1.5, TypeError), (True, TypeError)],
    "throw": FLAG,
    "progress": [(1, TypeError), ("yes", TypeError), (None, TypeError)],
    "checkpoint": [(3, TypeError), (True, TypeError)],
    "noise": FLAG,
    "keep": FLAG,
    "method": NAME,
    "init": NAME,
    "rtol": [(0.0, ValueError), (-1e-9, ValueError), (math.nan, ValueError), ("1", TypeError)],
    "atol": [(0.0, ValueError), (math.inf, ValueError), (None, TypeError)],
    "max_steps": [(0, ValueError), (1e3, TypeError)],
    "P": [
        ("P", TypeError),
        (1.0, ValueError),
        ([1.0], ValueError),
        ([[math.nan]], ValueError),
        (-np.eye(2), ValueError),
        ([[1.0, 0.5], [0.0, 1.0]], ValueError),
    ],
    "steps": [
        (None, TypeError),
        ("3", TypeError),
        ([True], TypeError),
        ([], ValueError),
        ([-1, 3], ValueError),
        ([3, 1], ValueError),
        ([[1, 2]], ValueError),
    ],
    "dim": [*COUNT, (None, TypeError)],
    "teacher_width": [*COUNT, (None, TypeError)],
    "draws": [*COUNT, (None, TypeError)],
    "lr": wrong_numbers(-0.1),
    "trace": wrong_numbers(0.0, -1.0),  # where None is the default
    "scale": POSITIVE,
    "level": POSITIVE,
    "gamma": POSITIVE,
    "gamma_star": POSITIVE,
    "ridge": [*wrong_numbers(-1.0), (None, TypeError)],
    "trace_weight": [
        ("1", TypeError),
        (True, TypeError),
        (None, TypeError),
        (-0.5, ValueError),
        (math.nan, ValueError),
    ],
}
# A time of a function of one state, and a number of steps that is no list, are numbers.
WRONG_NUMBERS = {
    "t": [(None, TypeError), ([1.0], TypeError), (-1.0, ValueError), (math.nan, ValueError)],
    "steps": [(None, TypeError), ("3", TypeError), (1.5, TypeError), (-1, ValueError)],
}


def wrong_matrices(right):
    """Wrong values of a matrix whose shape the problem fixes, made of the right one."""
    right = np.array(right, dtype=float)
    rows, columns = right.shape
    wrong = [(None, TypeError), ("W", TypeError), (right + 1j, TypeError), (right > 0, TypeError)]
    wrong += [(1.0, ValueError), (right[0], ValueError), (right[None], ValueError)]
    wrong += [(np.ones((rows + 1, columns)), ValueError)]
    wrong += [(right.T, ValueError)] if rows != columns else []
    for number in (math.nan, math.inf):
        wrong.append((right.copy(), ValueError))
        wrong[-1][0][-1, -1] = number
    return wrong


def wrong_fractions(right):
    """Wrong values of a vector of numbers in [0, 1], made of the right one."""
    wrong = [(None, TypeError), ("1", TypeError), (0.5, ValueError), ([right], ValueError)]
    return wrong + [([*right[:-1], x], ValueError) for x in (1.5, -0.5, math.nan, math.inf)]


WRONG_FROM_RIGHT = {
    "W": wrong_matrices,
    "W0": wrong_matrices,
    "D": wrong_matrices,
    "cosines2": wrong_fractions,
}


def wrong_values(room, call, name):
    """Wrong values of an argument, with their errors."""
    right = call.arguments.get(name)
    # A function without a problem takes a W of any shape.
    fixed = "problem" in call.arguments or name == "cosines2"
    if name in WRONG_FROM_RIGHT and right is not None and fixed:
        known = WRONG_FROM_RIGHT[name](right)
    elif name in WRONG_NUMBERS and np.ndim(right) == 0:
        known = WRONG_NUMBERS[name]
    elif isinstance(right, str):
        known = NAME
    else:
        known = WRONG.get(name, [])
    wrong = [*known, *room.wrong_arguments.get(name, [])]
    optional = inspect.signature(call.function).parameters[name].default is None
    return [entry for entry in wrong if not (optional and entry[0] is None)]


CALLS = [
    pytest.param(room, call, id=f"{key}-{name}")
    for key, room in CASES.items()
    for name, call in room.calls.items()
]


@pytest.mark.parametrize(("room", "call"), CALLS)
def test_each_wrong_argument_is_named(room, call):
    tried = 0
    for name in inspect.signature(call.function).parameters:
        for value, error in wrong_values(room, call, name):
            assert_refused(lambda name=name, value=value: call(**{name: value}), error, name)
            tried += 1
    assert tried > 0


def test_the_extra_wrong_arguments_of_a_room_are_arguments():
    for room in CASES.values():
        functions = {call.function for call in room.calls.values()}
        names = set().union(*(inspect.signature(f).parameters for f in functions))
        assert room.wrong_arguments.keys() <= names


def may_lack_a_dimension(call):
    """Whether the problem of a call has a dimension that other functions do without."""
    problem = call.arguments.get("problem")
    optional = {} if problem is None else {f.name: f.default is None for f in fields(problem)}
    return optional.get("dim", False) and problem.dim is not None


@over_those(may_lack_a_dimension, "simulations")
def test_a_missing_dimension_is_named(call):
    assert_refused(call.with_problem(dim=None), ValueError, "dim")


@over_simulations
def test_absurd_memory_is_refused_before_it_is_taken(call):
    with pytest.raises(MemoryError, match=r"GiB, but .* GiB are free; reduce replicas"):
        call(replicas=10**13)


PARAMETERS = [
    pytest.param(room, name, id=f"{key}-{name}")
    for key, room in CASES.items()
    for name in room.wrong
]


@pytest.mark.parametrize(("room", "name"), PARAMETERS)
def test_each_wrong_parameter_of_the_problem_is_named(room, name):
    for value, error in room.wrong[name]:
        assert_refused(
            lambda value=value: room.problem.replace(**{name: value}),
            error,
            name,
        )
        assert_refused(
            lambda value=value: type(room.problem).grid(
                **{**dataclasses.asdict(room.problem), name: [value]}
            ),
            error,
            name,
        )


# ---- problems ----


@over_the_rooms
def test_the_problem_is_a_value(room):
    problem = room.problem
    kind = type(problem)
    assert set(room.wrong) == {field.name for field in fields(problem)}
    assert problem == kind(**dataclasses.asdict(problem))
    assert hash(problem) == hash(kind(**dataclasses.asdict(problem)))
    text = json.dumps(problem.to_dict())
    for again in (
        BaseProblem.from_dict(json.loads(text)),
        pickle.loads(pickle.dumps(problem)),
        copy.deepcopy(problem),
    ):
        assert again == problem
    for name in room.wrong:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(problem, name, 1)
    with pytest.raises(TypeError, match="positional"):
        kind(1)
    with pytest.raises(TypeError, match="no parameter 'widht'"):
        problem.replace(widht=3)
    assert kind.grid(**dataclasses.asdict(problem)) == [problem]


# ---- plots, tables, labelled arrays ----


@over_the_rooms_compared
def test_theory_against_simulation_is_one_call(room):
    from matplotlib import pyplot as plt

    theory = next(iter(room.theories.values()))()
    sampled = next(iter(room.simulations.values()))(replicas=5)
    table = op.compare(theory, sampled)
    assert table.columns == ("field", "t", "theory", "mean", "sem", "z", "relative")
    assert np.isfinite(table["mean"]).all()
    for draw in (plot.trajectory, plot.compare):
        ax = draw(theory, sampled)
        assert ax.get_xlabel() == theory.time_label
        assert ax.get_ylabel() == theory.headline.replace("_", " ")
        assert_array_equal(ax.lines[0].get_ydata(), headline(theory))
        plt.close(ax.figure)


@over_results
def test_to_xarray(call):
    result = call()
    data = result.to_xarray()
    for name, array in array_fields(result).items():
        assert data[name].dims == result._axes(name)
        assert_array_equal(data[name].values, array)
    assert data.attrs["status"] == "SUCCESS"
    assert ("Problem(" in data.attrs["problem"]) == (result.problem is not None)


def test_the_command_line_lists_the_claims(capsys):
    assert main(["list"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == op.claims.list()
    assert set(ROOMS) <= {name.split("/")[0] for name in listed}


def test_every_public_function_has_a_case():
    for name, room in ROOMS.items():
        module = getattr(op, name)
        public = {getattr(module, entry) for entry in module.__all__}
        functions = {entry for entry in public if inspect.isfunction(entry)}
        assert functions == {call.function for call in room.calls.values()}
        kinds = (room.theories, room.simulations, room.points, room.numbers)
        assert len(room.calls) == sum(map(len, kinds)), "a name has two cases"


def test_the_level_of_false_alarms():
    """One comparison of many replicas is judged by four standard errors."""
    assert_allclose(cases.standard_errors(1, 10**9), 4.0, rtol=1e-6)
    assert 4 < cases.standard_errors(50, 64) < 6
