import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from overparam import _check, _core, _cpu

NAN, INF = float("nan"), float("inf")


def refuses(error, text, function, *args, **options):
    with pytest.raises(error, match=re.escape(text)) as caught:
        function(*args, **options)
    assert type(caught.value) is error
    assert re.search("must be .*but was ", str(caught.value))


def test_integer():
    assert _check.integer("width", 3, minimum=3) == 3
    assert type(_check.integer("width", np.uint8(3))) is int
    refuses(
        ValueError,
        "width must be an integer >= 1, but was 0",
        _check.integer,
        "width",
        0,
        minimum=1,
    )
    for wrong in (True, np.True_, 3.0, np.float64(3), "3", None, [3]):
        refuses(TypeError, "width must be an integer", _check.integer, "width", wrong)


def test_real():
    assert _check.real("lr", np.float32(0.5)) == 0.5
    assert type(_check.real("lr", 1)) is float
    assert _check.real("lr", INF, minimum=0.0, allow_inf=True) == INF
    assert _check.real("lr", 0, minimum=0.0) == 0.0
    refuses(
        ValueError,
        "lr must be a finite real number > 0, but was 0",
        _check.real,
        "lr",
        0,
        minimum=0,
        strict_minimum=True,
    )
    refuses(
        ValueError,
        ">= 0 and < 1, but was 1.0",
        _check.real,
        "q",
        1.0,
        minimum=0,
        maximum=1,
        strict_maximum=True,
    )
    refuses(ValueError, ">= 0 and <= 1, but was -0.1", _check.real, "q", -0.1, minimum=0, maximum=1)
    refuses(ValueError, "but was inf", _check.real, "lr", INF)
    refuses(ValueError, "but was nan", _check.real, "lr", NAN, allow_inf=True)
    refuses(ValueError, "lr must be", _check.real, "lr", 10**400)
    for wrong in (True, "1", None, 1j, np.complex128(1), [1.0], np.ones(1)):
        refuses(TypeError, "lr must be", _check.real, "lr", wrong)


def test_boolean_and_choice():
    assert _check.boolean("noise", np.True_) is True
    refuses(TypeError, "noise must be True or False, but was 1", _check.boolean, "noise", 1)
    assert _check.choice("method", "chain", ("chain", "direct")) == "chain"
    refuses(
        ValueError,
        'method must be one of "chain", "direct", but was \'dirct\'',
        _check.choice,
        "method",
        "dirct",
        ("chain", "direct"),
    )
    refuses(TypeError, "method must be one of", _check.choice, "method", None, ("chain",))


def test_arrays_are_contiguous_float64_copies():
    given_array = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    result = _check.matrix("Q", given_array, (2, 3))
    assert result.flags.c_contiguous
    assert result.flags.owndata
    assert not np.shares_memory(result, given_array)
    assert _check.matrix("W", np.ones((2, 7), np.int32), (2, None)).dtype == np.float64
    assert _check.vector("a", [1, 2, 3], 3).tolist() == [1.0, 2.0, 3.0]
    assert _check.vector("a", []).shape == (0,)


@pytest.mark.parametrize(
    "value",
    [[1.0], [1.0, NAN], [1.0, INF], [[1.0, 2.0]], 1.0, [[1.0], [1.0, 2.0]]],
)
def test_vector_refuses_values(value):
    refuses(
        ValueError,
        "a must be a vector of finite real numbers of length 2",
        _check.vector,
        "a",
        value,
        2,
    )


@pytest.mark.parametrize("value", [[1j, 2.0], ["1", "2"], None, [True, False], [None, 1.0]])
def test_vector_refuses_types(value):
    refuses(TypeError, "a must be", _check.vector, "a", value, 2)


def test_matrix_names_the_shape():
    refuses(
        ValueError,
        "Q must be a matrix of finite real numbers of shape (2, 2)",
        _check.matrix,
        "Q",
        np.ones((2, 3)),
        (2, 2),
    )
    refuses(
        ValueError,
        "shape (any, 2), but was [1., 1.] of shape (2,)",
        _check.matrix,
        "W",
        np.ones(2),
        (None, 2),
    )
    refuses(ValueError, "nan", _check.matrix, "Q", [[NAN]], (1, 1))


def test_long_values_are_abbreviated():
    assert len(_check.show(np.random.default_rng(0).normal(size=(100, 100)))) < 250
    assert len(_check.show(list(range(10**5)))) < 100
    assert len(_check.show("x" * 10**5)) < 150
    assert _check.show(np.float64(1.5)) == "1.5"
    assert _check.show(np.array(2)) == "2"


def test_times():
    assert _check.times("t", range(3)).tolist() == [0.0, 1.0, 2.0]
    for wrong in ([], [1.0, 1.0], [2.0, 1.0], [-1.0, 0.0], [0.0, NAN], [0.0, INF], [[1.0]], 1.0):
        refuses(ValueError, "t must be a 1-D array of at least one time", _check.times, "t", wrong)


def test_steps():
    t = np.array([0.0, 0.1 + 0.2, 0.7])
    assert _check.steps("t", t, 10).tolist() == [0, 3, 7]
    assert _check.steps("t", np.array([0.25, 0.34]), 10, rounding=True).tolist() == [3, 3]
    assert _check.steps("t", np.array([1.0]), 10**12).tolist() == [10**12]
    refuses(
        ValueError,
        "t must be on the grid of steps of 0.1, but was 0.25",
        _check.steps,
        "t",
        np.array([0.0, 0.25]),
        10,
    )
    refuses(ValueError, "but was 5e-08", _check.steps, "t", np.array([0.5e-7]), 10)
    refuses(ValueError, "2**63", _check.steps, "t", np.array([1e12]), 10**12)


@given(st.integers(0, 10**9), st.integers(1, 10**6))
def test_every_multiple_of_the_step_is_on_the_grid(step, per_unit):
    assert _check.steps("t", np.array([step / per_unit]), per_unit)[0] == step


def test_seeds():
    assert _check.seed_sequence(3).entropy == 3
    assert _check.seed_sequence(np.uint64(3)).entropy == 3
    child = np.random.SeedSequence(3).spawn(2)[1]
    assert _check.seed_sequence(child) is child
    assert _check.seed_sequence(None).entropy != _check.seed_sequence(None).entropy
    words = {_check.seed_word(s) for s in (child, *map(_check.seed_sequence, range(50)))}
    assert len(words) == 51
    assert all(0 <= word < 2**64 for word in words)
    refuses(ValueError, "seed must be an integer >= 0", _check.seed_sequence, -1)
    for wrong in (1.0, True, "1", [1]):
        refuses(TypeError, "seed must be", _check.seed_sequence, wrong)


def test_threads(monkeypatch):
    monkeypatch.delenv("OVERPARAM_NUM_THREADS", raising=False)
    assert _check.threads(None) == _core.default_threads()
    monkeypatch.setenv("OVERPARAM_NUM_THREADS", "3")
    assert _check.threads(None) == 3
    assert _check.threads(5) == 5
    refuses(ValueError, "threads must be an integer >= 1, but was 0", _check.threads, 0)
    for wrong in ("0", "many", "", "-1", "1.5"):
        monkeypatch.setenv("OVERPARAM_NUM_THREADS", wrong)
        refuses(ValueError, "OVERPARAM_NUM_THREADS must be an integer >= 1", _check.threads, None)


def test_replicas_and_tolerance():
    assert _check.replicas(2) == 2
    refuses(ValueError, "replicas", _check.replicas, 0)
    assert _check.tolerance(1e-30, 1) == (1e-30, 1.0)
    refuses(ValueError, "rtol", _check.tolerance, 0, 1e-9)
    refuses(ValueError, "atol", _check.tolerance, 1e-9, -1.0)


def test_memory(monkeypatch):
    _check.memory(1, "a byte", "nothing")
    assert _check.available_memory() > 2**20
    monkeypatch.setattr(_check, "available_memory", lambda: 2**31)
    text = r"the overlaps would take 3 GiB, but 2 GiB are free; reduce replicas"
    with pytest.raises(MemoryError, match=text):
        _check.memory(3 * 2**30, "the overlaps", "replicas")


def test_memory_without_proc(monkeypatch):
    absent = Path("/no/such/folder")
    monkeypatch.setattr(_check, "Path", lambda path: absent / path[1:])
    assert _check.available_memory() > 2**20


def test_uniform_sentence_for_rooms():
    error = _check.bad("dim", 'at least 6 (use method="direct")', 5)
    assert str(error) == 'dim must be at least 6 (use method="direct"), but was 5'
    assert type(error) is ValueError


def test_cpu_check_names_what_is_missing_and_the_remedy(tmp_path, monkeypatch):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nflags\t\t: fpu avx2 fma\nbugs : none\n")
    listing = tmp_path / "cpu_features.txt"
    _cpu.check([str(tmp_path)], cpuinfo)  # a build for no particular CPU has no listing
    listing.write_text("avx2\nfma\n")
    _cpu.check([str(tmp_path)], cpuinfo)
    listing.write_text("avx2\navx512f\navx512vl\n")
    with pytest.raises(ImportError, match=r"avx512f, avx512vl.*OVERPARAM_ARCH=x86-64-v3"):
        _cpu.check(["/nowhere", str(tmp_path)], cpuinfo)
    _cpu.check([str(tmp_path)], tmp_path / "absent")
    monkeypatch.setattr("sys.platform", "darwin")
    _cpu.check([str(tmp_path)], cpuinfo)


def test_real_accepts_every_finite_float():
    @given(st.floats(allow_nan=False, allow_infinity=False))
    def exact(value):
        assert _check.real("x", value) == value
        assert math.copysign(1, _check.real("x", value)) == math.copysign(1, value)

    exact()
