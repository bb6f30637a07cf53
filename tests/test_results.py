import copy
import csv
import dataclasses
import json
import pickle
import sys

import numpy as np
import overparam as op
import pytest
import toys
from numpy.testing import assert_allclose, assert_array_equal
from overparam import results
from overparam.results import Status, Table, compare, components, load
from scipy import integrate

T = [0.0, 0.5, 1.0]
PROBLEM = toys.Problem(rate=1.0, width=2, teacher=(1.0, 0.5))


@pytest.fixture
def theory():
    return toys.theory(PROBLEM, T)


@pytest.fixture
def sampled():
    return toys.simulate(PROBLEM, T, replicas=5)


@pytest.fixture
def diverged(sampled):
    """The last replica diverged after t = 0.5."""
    M, risk = sampled.M.copy(), sampled.risk.copy()
    M[4, 2], risk[4, 2] = np.nan, np.nan
    return changed(sampled, M=M, risk=risk, diverged=[False] * 4 + [True])


def changed(result, **changes):
    return dataclasses.replace(result, **changes)


def same(one, other):
    assert type(one) is type(other)
    assert repr(one) == repr(other)
    for field in dataclasses.fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype
            assert_array_equal(a, b)
        else:
            assert a == b


# ---- the types ----


def test_arrays_are_read_only_copies(sampled):
    M = sampled.M.copy()
    result = changed(sampled, M=M)
    M[:] = 0
    assert_array_equal(result.M, sampled.M)
    for name in ("t", "M", "P", "risk", "diverged"):
        array = getattr(result, name)
        assert array.flags.c_contiguous
        assert array.dtype == (bool if name == "diverged" else np.float64)
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_results_are_frozen(sampled):
    for name in ("M", "status", "anything"):
        with pytest.raises(AttributeError):
            setattr(sampled, name, None)
    with pytest.raises(AttributeError):
        del sampled.M
    for mapping in (sampled.inputs, sampled.stats, sampled.origin, sampled.origin["build"]):
        with pytest.raises(TypeError):
            mapping["x"] = 1
    with pytest.raises(TypeError, match="positional"):
        toys.DecayTrajectory(PROBLEM)


def test_sampled_and_replicas(theory, sampled):
    assert (theory.sampled, theory.replicas, theory.diverged) == (False, None, None)
    assert (sampled.sampled, sampled.replicas) == (True, 5)
    assert sampled.M.shape == (5, 3, 2, 2)
    assert sampled.P.shape == theory.P.shape == (2, 2)
    assert sampled.t.shape == (3,)


def test_wrong_shapes_name_the_field(theory, sampled):
    with pytest.raises(ValueError, match=r"M must be an array with axes \(time=3.*shape \(3,\)"):
        changed(theory, M=[1, 2, 3])
    with pytest.raises(ValueError, match="risk must be an array"):
        changed(theory, risk=[1.0, 2.0])
    with pytest.raises(ValueError, match="risk must be an array"):
        changed(sampled, risk=sampled.risk[0])
    with pytest.raises(ValueError, match="axes must be different names"):
        results.array_field("student", "student")
    with pytest.raises(ValueError, match="risk must be an array"):
        changed(theory, risk=None)


def test_optional_fields():
    point = toys.DecayPoint(method="m", status=Status.SUCCESS, origin={}, risk=1.0)
    assert point.modes is None
    assert point.problem is None
    assert point.risk == 1.0
    assert type(point.risk) is float
    assert changed(point, modes=[1, 2]).modes.tolist() == [1.0, 2.0]


def test_plain_data_is_normalised(theory):
    array = np.arange(3)
    result = changed(theory, inputs={"k": [1, [2]], "x": np.float64(2), "array": array})
    assert result.inputs["k"] == (1, (2,))
    assert type(result.inputs["x"]) is float
    array[0] = 7
    assert result.inputs["array"][0] == 0


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda r: pickle.loads(pickle.dumps(r))]
)
def test_copies_are_equal_and_frozen(theory, sampled, duplicate):
    for result in (theory, sampled, sampled.mean()):
        again = duplicate(result)
        same(result, again)
        with pytest.raises(ValueError, match="read-only"):
            again.M[...] = 0
        with pytest.raises(TypeError):
            again.stats["x"] = 1


def test_repr_is_one_short_line(theory, sampled):
    assert repr(theory) == (
        "<DecayTrajectory by exact, SUCCESS: t (3,), M (3, 2, 2), P (2, 2), risk (3,)>"
    )
    assert "risk (5, 3)" in repr(sampled)


def test_the_seed_in_the_origin_repeats_the_run():
    child = np.random.SeedSequence([1, 2**70]).spawn(3)[2]
    for seed in (7, None, child):
        first = toys.simulate(PROBLEM, T, seed=seed)
        again = toys.simulate(PROBLEM, T, seed=first.origin["seed"])
        assert_array_equal(first.M, again.M)
    assert toys.simulate(PROBLEM, T, seed=7).origin["seed"] == 7
    assert first.origin["version"] == op.__version__
    assert "seed" not in toys.theory(PROBLEM, T).origin


# ---- statistics ----


def test_statistics_without_divergence(sampled):
    assert_allclose(sampled.mean().M, sampled.M.mean(axis=0), rtol=1e-14)
    assert_allclose(
        sampled.sem().M, sampled.M.std(axis=0, ddof=1) / np.sqrt(5), rtol=1e-12, atol=1e-18
    )
    for q in (0, 0.1, 0.5, 0.77, 1):
        assert_allclose(sampled.quantile(q).M, np.quantile(sampled.M, q, axis=0), rtol=1e-14)
    mean = sampled.mean()
    assert type(mean) is toys.DecayTrajectory
    assert not mean.sampled
    assert_array_equal(mean.P, sampled.P)
    assert mean.stats["left_out"] == 0
    assert mean.stats["replicas"] == 5
    assert mean.stats["seconds"] == sampled.stats["seconds"]


def test_a_diverged_replica_contributes_until_it_diverged(diverged, sampled):
    for reduce in (lambda r: r.mean(), lambda r: r.sem(), lambda r: r.quantile(0.3)):
        result, full = reduce(diverged), reduce(sampled)
        four = reduce(
            changed(sampled, M=sampled.M[:4], risk=sampled.risk[:4], diverged=[False] * 4)
        )
        assert_array_equal(result.M[:2], full.M[:2])
        assert_array_equal(result.M[2], four.M[2])
        assert result.stats["left_out"] == 1


def test_entries_without_replicas_are_nan(sampled):
    M = sampled.M.copy()
    M[:, 2] = np.nan
    result = changed(sampled, M=M, diverged=[True] * 5)
    for reduced in (result.mean(), result.sem(), result.quantile(0.5)):
        assert np.isnan(reduced.M[2]).all()
        assert np.isfinite(reduced.M[:2]).all()
        assert reduced.stats["left_out"] == 5


def test_one_replica_has_no_standard_error():
    result = toys.simulate(PROBLEM, T, replicas=1)
    assert np.isnan(result.sem().M).all()
    assert_array_equal(result.mean().M, result.M[0])
    assert_array_equal(result.quantile(0.3).M, result.M[0])


def test_equal_replicas_have_their_value_as_mean_and_no_spread():
    result = toys.simulate(toys.Problem(rate=0.7, teacher=(0.1,)), T, replicas=3, noise=0.0)
    assert_array_equal(result.mean().M, result.M[1])
    assert_array_equal(result.sem().M, 0)


def test_statistics_need_replicas(theory, sampled):
    for result in (theory, sampled.mean()):
        for reduce in (result.mean, result.sem, lambda result=result: result.quantile(0.5)):
            with pytest.raises(ValueError, match="must be sampled"):
                reduce()
    for q in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match="q must be"):
            sampled.quantile(q)


# ---- failures ----


def test_failure_raises_with_the_partial_result():
    problem = toys.Problem(rate=-500.0)
    with pytest.raises(op.ConvergenceError, match=r"euler: .*diverged.*t = 0") as caught:
        toys.simulate(problem, T, replicas=3)
    result = caught.value.result
    assert result.status is Status.DIVERGED
    assert result.t.tolist() == [0.0]
    assert result.M.shape == (3, 1, 2, 1)
    assert result.P.shape == (1, 1)
    assert np.isfinite(result.M).all()
    assert_array_equal(toys.simulate(problem, T, replicas=3, throw=False).M, result.M)
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert_array_equal(again.result.M, result.M)


def test_one_diverged_replica_is_no_failure(diverged):
    assert results.conclude(diverged) is diverged


@pytest.mark.parametrize("status", list(Status))
def test_which_statuses_are_failures(theory, status):
    M, risk = theory.M.copy(), theory.risk.copy()
    M[2], risk[2] = np.nan, np.nan
    result = changed(theory, status=status, M=M, risk=risk)
    if status in (Status.SUCCESS, Status.STEADY_STATE, Status.INTERRUPTED):
        assert results.conclude(result) is result
    else:
        cut = results.conclude(result, throw=False)
        assert cut.t.tolist() == [0.0, 0.5]
        assert cut.status is status
        with pytest.raises(op.ConvergenceError):
            results.conclude(result)


def test_nothing_computed_and_points():
    nothing = toys.theory(PROBLEM, T)
    nothing = changed(
        nothing, M=nothing.M * np.nan, risk=nothing.risk * np.nan, status=Status.DIVERGED
    )
    with pytest.raises(op.ConvergenceError, match="no requested time"):
        results.conclude(nothing)
    point = toys.DecayPoint(method="newton", status=Status.NOT_CONVERGED, origin={}, risk=np.nan)
    assert results.conclude(point, throw=False) is point
    with pytest.raises(op.ConvergenceError, match="newton"):
        results.conclude(point)


# ---- spectra ----

EIGENVALUES = {"eigenvalues": [-1.0, 0.0, 2.0], "multiplicities": [1, 5, 2]}
NODES = {"nodes": [2.0, -1.0], "weights": [0.25, 0.75], "size": 8}
# Two triangles of mass 0.4 and 0.2 around a gap, and an atom.
CURVE = {
    "grid": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
    "values": [0.0, 0.4, 0.0, 0.0, 0.2, 0.0],
    "edges": [1.0, 3.0, 4.0, 6.0],
    "atom_positions": [0.0],
    "atom_masses": [0.4],
}
over_measures = pytest.mark.parametrize("fields", [EIGENVALUES, NODES, CURVE])


def spectrum(**fields):
    return results.Spectrum(
        method="m", status=Status.SUCCESS, origin=results.make_origin(), **fields
    )


def test_spectrum_of_eigenvalues():
    result = spectrum(**EIGENVALUES)
    assert result.size == 8
    assert result.multiplicities.dtype == np.int64
    assert result.atoms == ((-1.0, 0.125), (0.0, 0.625), (2.0, 0.25))
    assert result.edges.shape == (0,)
    assert [result.moments(k) for k in range(4)] == [1, 0.375, 1.125, 1.875]
    assert result.count_below([-2, -1, 0, 1e-9, 2, 3]).tolist() == [0, 0, 1, 6, 6, 8]
    assert type(result.count_below(1.0)) is int
    assert spectrum(eigenvalues=[1.0, 1.0, 4.0]).count_below(2) == 2


def test_spectrum_of_nodes():
    result = spectrum(**NODES)
    assert result.atoms == ()
    assert [result.moments(k) for k in range(3)] == [1, -0.25, 1.75]
    assert result.count_below([-1, 0, 3]).tolist() == [0, 6, 8]
    with pytest.raises(ValueError, match="count_below needs the size"):
        spectrum(nodes=[1.0], weights=[1.0]).count_below(0)


def test_spectrum_of_a_curve():
    result = spectrum(**CURVE)
    assert result.size is None
    assert result.atoms == ((0.0, 0.4),)
    x = [0.0, 1.0, 1.5, 2.0, 3.5, 4.5, 7.0]
    assert_allclose(result.density(x), [0, 0, 0.2, 0.4, 0, 0.1, 0])
    # Between the intervals the curve counts as 0, whatever the grid says.
    assert spectrum(**{**CURVE, "values": [1.0] * 6}).density([2.9, 3.5, 4.0]).tolist() == [1, 0, 1]
    expected = [1, 0.4 * 2 + 0.2 * 5, 0.4 * (4 + 1 / 6) + 0.2 * (25 + 1 / 6)]
    assert_allclose([result.moments(k) for k in range(3)], expected, rtol=1e-14)
    with pytest.raises(ValueError, match="count_below needs eigenvalues or nodes"):
        result.count_below(1.0)


def test_a_curve_beside_another_measure_serves_the_density():
    law = op.spectra.marchenko_pastur(0.5)
    grid = np.linspace(*law.support, 20001)
    nodes, weights = law.quadrature(200)
    result = spectrum(
        nodes=nodes,
        weights=weights,
        grid=grid,
        values=law.density(grid),
        atom_positions=[0.0],
        atom_masses=[0.5],
        edges=law.edges,
    )
    assert_allclose(result.moments(2), law.moments(2), rtol=1e-12)
    assert_allclose(result.density(1.0), law.density(1.0), rtol=1e-6)
    curve = changed(result, nodes=None, weights=None)
    assert_allclose(curve.moments(2), law.moments(2), rtol=1e-5)
    assert result.atoms == law.atoms
    x = np.linspace(-1, 7, 9)
    broadened = -law.cauchy(x + 0.2j).imag / np.pi
    assert_allclose(curve.density(x, width=0.2), broadened, rtol=1e-5)
    assert_allclose(result.density(x, width=0.2), broadened, rtol=1e-8)


@over_measures
def test_a_broadened_density_integrates_to_one(fields):
    result, width = spectrum(**fields), 0.05
    x = width * np.sinh(np.linspace(-16, 16, 200001))  # as far as 2e5
    assert_allclose(integrate.trapezoid(result.density(x, width=width), x), 1.0, rtol=1e-4)
    for points in (0.3, [[0.1, 0.2]], []):
        assert result.density(points, width=1.0).shape == np.shape(points)


def test_a_density_without_broadening_needs_a_curve():
    for fields in (EIGENVALUES, NODES):
        with pytest.raises(ValueError, match="width must be > 0 for a spectrum without"):
            spectrum(**fields).density(0.0)
    with pytest.raises(ValueError, match="width must be"):
        spectrum(**CURVE).density(0.0, width=-1.0)
    with pytest.raises(ValueError, match="k must be"):
        spectrum(**CURVE).moments(-1)


@over_measures
def test_spectra_are_kept_and_copied(tmp_path, fields):
    result = spectrum(**fields)
    same(result, load(result.save(tmp_path / "x")))
    same(result, pickle.loads(pickle.dumps(result)))
    same(result, copy.deepcopy(result))
    assert result.to_xarray()["edges"].dims == ("edge",)
    for name in fields:
        if name != "size":
            with pytest.raises(ValueError, match="read-only"):
                getattr(result, name)[0] = 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "must have eigenvalues, nodes or a grid"),
        ({**EIGENVALUES, "nodes": [1.0], "weights": [1.0]}, "nodes must be None beside"),
        ({**EIGENVALUES, "size": 7}, "size must be the sum of multiplicities, 8, but was 7"),
        ({"eigenvalues": [1.0, 0.0]}, "eigenvalues must be in ascending order"),
        ({"eigenvalues": [1.0], "multiplicities": [0]}, "multiplicities must be integers >= 1"),
        ({"eigenvalues": [1.0], "multiplicities": [1, 2]}, "multiplicities must be an array"),
        ({"multiplicities": [1]}, "eigenvalues and multiplicities must be given together"),
        ({"nodes": [1.0]}, "nodes and weights must be given together"),
        ({"nodes": [1.0], "weights": [0.5]}, "weights must be numbers with sum 1"),
        ({**CURVE, "atom_masses": None}, "atom_positions and atom_masses must be given together"),
        ({**CURVE, "edges": [1.0, 3.0, 4.0]}, "edges must be an even number"),
        ({**CURVE, "edges": [3.0, 1.0]}, "edges must be in ascending order"),
        ({**CURVE, "values": [1.0]}, "values must be an array"),
    ],
)
def test_spectra_are_checked(fields, message):
    with pytest.raises(ValueError, match=message):
        spectrum(**fields)


def test_multiplicities_are_integers():
    with pytest.raises(TypeError, match="multiplicities must be integers"):
        spectrum(eigenvalues=[1.0], multiplicities=[1.5])


# ---- files ----


def test_save_and_load(tmp_path, theory, sampled, diverged):
    for number, result in enumerate((theory, sampled, diverged, sampled.sem())):
        file = result.save(tmp_path / f"run.v{number}")
        assert file == tmp_path / f"run.v{number}.npz"
        same(op.load(file), result)
        same(op.load(tmp_path / f"run.v{number}"), result)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"run.v{n}.npz" for n in range(4)]


def test_awkward_values_survive(tmp_path, theory):
    inputs = {
        "inf": np.inf,
        "nested": {"list": [1, (2.5, None)], "flag": True},
        "array": np.arange(4).reshape(2, 2),
        "text": "\u03b1 \u2192 0",
        "tiny": 5e-324,
    }
    seed = np.random.SeedSequence(2**127 + 1, spawn_key=(3, 4))
    problem = PROBLEM.replace(cutoff=np.inf, rate=0.1 + 0.2, label="x")
    origin = results.make_origin(seed)
    result = changed(
        theory, inputs=inputs, problem=problem, origin=origin, stats={"n": np.int64(3)}
    )
    again = load(result.save(str(tmp_path / "x.npz")))
    assert again.problem == problem
    assert_array_equal(again.inputs["array"], inputs["array"])
    assert {k: v for k, v in again.inputs.items() if k != "array"} == {
        k: v for k, v in result.inputs.items() if k != "array"
    }
    assert again.stats == {"n": 3}
    assert again.origin["seed"].entropy == seed.entropy
    assert_array_equal(again.origin["seed"].generate_state(4), seed.generate_state(4))


def test_the_header_is_json_and_there_is_no_pickle(tmp_path, sampled):
    with np.load(sampled.save(tmp_path / "x"), allow_pickle=False) as archive:
        header = json.loads(archive["header"].item())
        assert_array_equal(archive["array/M"], sampled.M)
    assert header["overparam"] == "result"
    assert header["format"] == results.FORMAT
    assert (header["kind"], header["class"]) == ("Trajectory", "toys.DecayTrajectory")
    assert header["fields"]["M"] == ["replica", "time", "student", "teacher"]
    assert header["problem"]["rate"] == 1.0


def test_a_failed_save_leaves_the_old_file(tmp_path, theory, monkeypatch):
    file = theory.save(tmp_path / "x")
    old = file.read_bytes()

    def fail(file, **_):
        file.write(b"half of it")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="disk full"):
        theory.save(file)
    assert file.read_bytes() == old
    assert list(tmp_path.iterdir()) == [file]


def test_what_cannot_be_written_is_named(tmp_path, theory):
    with pytest.raises(TypeError, match="object cannot be written"):
        changed(theory, inputs={"x": object()}).save(tmp_path / "x")


def rewritten(path, **changes):
    with np.load(path) as archive:
        members = dict(archive)
    header = json.loads(members.pop("header").item())
    np.savez(path, header=np.array(json.dumps({**header, **changes})), **members)
    return path


def test_files_that_are_not_ours(tmp_path, theory):
    text = tmp_path / "text.npz"
    text.write_text("hello")
    other = tmp_path / "other.npz"
    np.savez(other, x=np.ones(3))
    pickled = tmp_path / "pickled.npz"
    np.savez(pickled, header=np.array({"a": 1}, dtype=object))
    strange = tmp_path / "strange.npz"
    np.savez(strange, header=np.array("[1, 2]"))
    broken = theory.save(tmp_path / "broken")
    broken.write_bytes(broken.read_bytes()[:-100])
    for file in (text, other, pickled, strange, broken):
        with pytest.raises(ValueError, match="path must be a result file written by overparam"):
            load(file)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "absent")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(IsADirectoryError):
        load(tmp_path / "folder")


def test_newer_formats_and_unknown_classes(tmp_path, theory):
    file = theory.save(tmp_path / "x")
    with pytest.raises(ValueError, match=r"of format 1 or older, but was .* of format 99"):
        load(rewritten(file, format=99))
    with pytest.raises(ValueError, match=r"no_room\.Thing"):
        load(rewritten(file, **{"format": 1, "class": "no_room.Thing"}))
    with pytest.raises(ValueError, match=r"path must be a result file .* a checkpoint file"):
        load(rewritten(file, overparam="checkpoint"))


# ---- xarray ----


def test_to_xarray(sampled, theory):
    data = sampled.to_xarray()
    assert data["M"].dims == ("replica", "time", "student", "teacher")
    assert data["P"].dims == ("teacher", "teacher_2")
    assert data["t"].dims == ("time",)
    assert "t" in data.coords
    assert data["diverged"].dims == ("replica",)
    assert data.attrs["method"] == "euler"
    assert_array_equal(data["risk"], sampled.risk)
    assert theory.to_xarray()["M"].dims == ("time", "student", "teacher")


def test_without_xarray(sampled, monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(ImportError, match=r'pip install "overparam\[sweep\]"'):
        sampled.to_xarray()


# ---- comparison ----


def test_components(theory, sampled):
    assert [label for label, _ in components(theory, "M")] == [
        "M[0,0]",
        "M[0,1]",
        "M[1,0]",
        "M[1,1]",
    ]
    ((label, values),) = components(sampled, "M[1,0]")
    assert label == "M[1,0]"
    assert_array_equal(values, sampled.M[:, :, 1, 0])
    ((label, values),) = components(sampled, "risk")
    assert label == "risk"
    assert_array_equal(values, sampled.risk)
    assert [values.shape for _, values in components(sampled, "P")] == [()] * 4
    for wrong in ("loss", "t", "M[2,0]", "M[0]", "M[0, 0]", "risk[0]", "", "M[", 3):
        with pytest.raises(ValueError, match="field must be"):
            [*components(sampled, wrong)]


def test_compare_agrees_with_the_definition(theory, sampled):
    table = compare(theory, sampled)
    assert table.columns == ("field", "t", "theory", "mean", "sem", "z", "relative")
    assert table["field"][:6] == ("M[0,0]",) * 3 + ("M[0,1]",) * 3
    assert table["field"][-3:] == ("risk",) * 3
    assert len(table) == 15
    assert_array_equal(table["t"], np.tile(T, 5))
    row = dict(zip(table.columns, table.rows()[5], strict=True))
    mean, sem, value = sampled.mean().M[2, 0, 1], sampled.sem().M[2, 0, 1], theory.M[2, 0, 1]
    assert row["field"] == "M[0,1]"
    assert (row["theory"], row["mean"], row["sem"]) == (value, mean, sem)
    assert row["z"] == (mean - value) / sem
    assert row["relative"] == (mean - value) / abs(value)


def test_compare_chosen_fields(theory, sampled):
    assert set(compare(theory, sampled, ["risk", "M[0,1]"])["field"]) == {"risk", "M[0,1]"}
    assert len(compare(theory, sampled, "risk")) == 3
    static = compare(theory, sampled, ["P"])
    assert np.isnan(static["t"]).all()
    assert static["z"].tolist() == [0.0] * 4
    assert len(compare(theory, sampled, [])) == 0


def test_z_and_relative_at_zero(theory):
    def z(value, replicas):
        one = changed(theory, risk=[value, 1, 1])
        many = toys.simulate(PROBLEM, T, replicas=len(replicas), noise=0.0)
        many = changed(many, risk=[[r, 1, 1] for r in replicas])
        table = compare(one, many, ["risk"])
        return table["z"][0], table["relative"][0]

    assert z(0.3, [0.3, 0.3, 0.3]) == (0.0, 0.0)
    assert z(0.3, [0.3 * (1 + 1e-15)] * 3)[0] == 0.0
    assert z(0.3, [0.4, 0.4]) == (np.inf, pytest.approx(1 / 3))
    assert z(0.5, [0.4, 0.4])[0] == -np.inf
    assert z(0.0, [0.1, 0.3]) == (pytest.approx(2.0), pytest.approx(np.nan, nan_ok=True))
    assert np.isnan(z(0.3, [0.4])[0])


def test_compare_refuses(theory, sampled):
    with pytest.raises(ValueError, match="theory must be a result without replicas"):
        compare(sampled, sampled)
    with pytest.raises(ValueError, match="sampled must be a result with replicas"):
        compare(theory, sampled.mean())
    with pytest.raises(ValueError, match=r"t must be the same.*0\.5, 1\..*0\.5, 2\."):
        compare(theory, toys.simulate(PROBLEM, [0, 0.5, 2], replicas=2))
    with pytest.raises(ValueError, match="field must be one of M, P, risk"):
        compare(theory, sampled, ["loss"])


def test_compare_points():
    common = {"method": "m", "status": Status.SUCCESS, "origin": {}}
    theory = toys.DecayPoint(**common, risk=2.0, modes=[1.0, 2.0])
    sampled = toys.DecayPoint(**common, risk=[1.0, 3.0], diverged=[False, False])
    table = compare(theory, sampled)
    assert table["field"] == ("risk",)
    assert table.rows()[0][2:6] == (2.0, 2.0, 1.0, 0.0)


# ---- tables ----


def test_table_is_immutable_and_typed():
    values = np.arange(3.0)
    table = Table({"name": ["a", "b", "c"], "x": values, "n": [1, 2, 3]})
    values[0] = 9
    assert table["x"].tolist() == [0.0, 1.0, 2.0]
    with pytest.raises(ValueError, match="read-only"):
        table["x"][0] = 1
    assert table.rows() == [("a", 0.0, 1), ("b", 1.0, 2), ("c", 2.0, 3)]
    assert len(table) == 3
    assert repr(table) == "<Table of 3 rows: name, x, n>"
    with pytest.raises(KeyError, match="no column 'y'; known are name, x, n"):
        table["y"]
    with pytest.raises(ValueError, match="columns must be of one length"):
        Table({"a": [1], "b": [1, 2]})
    with pytest.raises(ValueError, match="a must be a 1-D column"):
        Table({"a": np.ones((2, 2))})


def test_table_max_abs():
    table = Table({"z": [1.0, -3.0], "bad": [1.0, np.nan], "name": ["a", "b"]})
    assert table.max_abs("z") == 3.0
    assert np.isnan(table.max_abs("bad"))
    assert np.isnan(Table({"z": []}).max_abs("z"))
    with pytest.raises(ValueError, match="column of numbers"):
        table.max_abs("name")


def test_table_text(tmp_path):
    table = Table({"name": ["a", "long, b"], "x": [1 / 3, -2.0]})
    assert (
        str(table) == "name            x\n-------  --------\na        0.333333\nlong, b        -2"
    )
    assert table.to_markdown().splitlines()[-1] == "| long, b | -2 |"
    with table.to_csv(tmp_path / "table.csv").open(newline="") as file:
        assert [*csv.reader(file)] == [["name", "x"], ["a", repr(1 / 3)], ["long, b", "-2.0"]]
    long = str(Table({"n": range(1000)})).splitlines()
    assert len(long) == 2 + 41
    assert long[2].strip() == "0"
    assert long[22] == "..."
    assert long[-1] == "999"
    assert len(str(Table({"n": range(40)})).splitlines()) == 42
    assert str(Table({})) == "\n"
