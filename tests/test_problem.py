import copy
import dataclasses
import json
import math
import pickle

import numpy as np
import pytest
import toys
from hypothesis import given
from hypothesis import strategies as st
from overparam._problem import BaseProblem


def test_a_problem_is_a_value():
    problem = toys.Problem(rate=1, teacher=[1, 2])
    assert problem == toys.Problem(rate=1.0, teacher=(1.0, 2.0))
    assert hash(problem) == hash(toys.Problem(rate=1.0, teacher=(1.0, 2.0)))
    assert problem != toys.Problem(rate=2)
    assert pickle.loads(pickle.dumps(problem)) == copy.deepcopy(problem) == problem
    with pytest.raises(dataclasses.FrozenInstanceError):
        problem.rate = 2.0
    with pytest.raises(TypeError, match="positional"):
        toys.Problem(1.0)


def test_replace_changes_and_validates():
    problem = toys.Problem(rate=1, width=3)
    assert problem.replace(rate=2) == toys.Problem(rate=2, width=3)
    assert problem.rate == 1
    with pytest.raises(ValueError, match="width must be an integer >= 1, but was 0"):
        problem.replace(width=0)
    with pytest.raises(TypeError, match=r"toy\.Problem has no parameter 'widht'.*rate, width"):
        problem.replace(widht=3)


def test_grid_is_the_product_with_the_last_axis_fastest():
    problems = toys.Problem.grid(
        width=range(1, 3), rate=np.array([0.5, 1.5, 2.5]), teacher=(1.0, 2.0), label="a"
    )
    assert [(p.width, p.rate) for p in problems] == [
        (1, 0.5),
        (1, 1.5),
        (1, 2.5),
        (2, 0.5),
        (2, 1.5),
        (2, 2.5),
    ]
    assert {p.teacher for p in problems} == {(1.0, 2.0)}
    assert {p.label for p in problems} == {"a"}


def test_grid_takes_lists_of_tuples_and_single_values():
    assert toys.Problem.grid(rate=1) == [toys.Problem(rate=1)]
    problems = toys.Problem.grid(rate=1, teacher=[(1.0,), (1.0, 2.0)])
    assert [p.teacher for p in problems] == [(1.0,), (1.0, 2.0)]
    assert toys.Problem.grid(rate=np.float64(2.0))[0].rate == 2.0
    assert toys.Problem.grid(rate=[]) == []


def test_grid_refuses_what_is_no_axis():
    with pytest.raises(TypeError, match="no parameter 'rates'"):
        toys.Problem.grid(rates=[1, 2])
    with pytest.raises(ValueError, match=r"rate must be a 1-D array.*\(2, 2\)"):
        toys.Problem.grid(rate=np.ones((2, 2)))
    with pytest.raises(ValueError, match="width"):
        toys.Problem.grid(rate=1, width=[1, 0])


@given(
    rate=st.floats(allow_nan=False, allow_infinity=False),
    teacher=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=3),
    cutoff=st.floats(min_value=0),
    label=st.none() | st.text(),
)
def test_json_round_trip_is_exact(rate, teacher, cutoff, label):
    problem = toys.Problem(rate=rate, teacher=tuple(teacher), cutoff=cutoff, label=label)
    data = json.loads(json.dumps(problem.to_dict()))
    again = BaseProblem.from_dict(data)
    assert type(again) is toys.Problem
    assert again == problem
    assert hash(again) == hash(problem)


def test_from_dict_knows_rooms():
    data = toys.Problem(rate=1, cutoff=math.inf).to_dict()
    assert data["room"] == "toy"
    assert toys.Problem.from_dict(data).cutoff == math.inf
    for wrong in ({"rate": 1.0}, {"room": "no_such_room"}, {"room": "../toy"}, {"room": 3}):
        with pytest.raises(ValueError, match="data must be a problem"):
            BaseProblem.from_dict(wrong)
