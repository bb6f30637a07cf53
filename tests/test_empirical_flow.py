"""The room empirical_flow against naive.py, independently derived numbers, and its invariants."""

import json
import math
import pathlib
import re
import warnings
from importlib import resources

import cases
import naive
import numpy as np
import overparam as op
import pytest
from cases import FALSE_ALARM, bits, standard_errors
from numpy.testing import assert_allclose, assert_array_equal
from overparam import _blas, _check, _core, _run, spectra
from overparam import empirical_flow as flow
from overparam.empirical_flow import Problem
from overparam.results import Status
from scipy import integrate, optimize, stats

FOLDER = pathlib.Path(__file__).parent / "reference"
REFERENCE = json.loads((FOLDER / "empirical_flow.json").read_text())
PUBLISHED = json.loads(
    (resources.files("overparam.claims") / "empirical_flow_published.json").read_text("utf-8")
)


# ---- long times ----------------------------------------------------------------------------------

FIELDS = (
    "alpha",
    "risk",
    "train_risk",
    "sigma2",
    "threshold",
    "c",
    "rank",
    "trace",
    "overlap",
    "objective",
)


def read(entry, **changes):
    """The problem of an entry of either file of reference values."""
    star = entry["kappa_star"] if "kappa_star" in entry else entry["kappastar"]
    given = {"kappa": entry.get("kappa", 1.0), "kappa_star": star, "noise_var": entry["Delta"]}
    if isinstance(entry.get("lam"), float):
        given["ridge"] = entry["lam"]
    if not isinstance(entry.get("alpha", []), list):
        given["alpha"] = entry["alpha"]
    return Problem(**{"alpha": 1.0} | given | changes)


def only(result):
    """The values of a solution that is alone."""
    assert len(result.alpha) == 1
    return {name: float(getattr(result, name)[0]) for name in (*FIELDS, "stable")}


def teacher_of(problem):
    return problem.kappa_star, problem.teacher_scale


def assert_solutions(result, problem, *, rtol=1e-9, teacher=None, n=160):
    """Every entry solves the equations as naive.py has them, at its own alpha."""
    teacher = teacher or teacher_of(problem)
    for i, s2 in enumerate(result.sigma2):
        law = naive.FreeSum(teacher, s2, n)
        q = law.quantile(problem.kappa)
        state = naive.long_time_state(
            law, q, result.threshold[i], problem.noise_var, problem.ridge, result.c[i]
        )
        for name in FIELDS:
            value = getattr(result, name)[i]
            assert_allclose(value, state[name], rtol=rtol, atol=rtol * 1e-3, err_msg=name)
        if problem.ridge:
            assert_allclose(result.threshold[i] * result.c[i], problem.ridge, rtol=1e-9)
        if problem.ridge or result.threshold[i] == 0:
            assert_allclose(result.c[i], 1 - state["D"] / state["alpha"], rtol=0, atol=rtol)
        else:
            assert result.c[i] == result.train_risk[i] == 0
            assert_allclose(state["D"], state["alpha"], rtol=rtol)


def drawn(count, seed, **changes):
    """Problems of all kinds."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        given = {
            "alpha": rng.uniform(0.08, 1.0),
            "kappa": (rng.uniform(0.1, 0.95), 1.0, rng.uniform(0.2, 0.6))[i % 3],
            "kappa_star": rng.uniform(0.1, 0.9) if i % 4 else rng.uniform(1.0, 3.0),
            "noise_var": rng.uniform(0.02, 1.0) if i % 5 else 0.0,
            "ridge": 10 ** rng.uniform(-3, 0.3) if i % 6 else 0.0,
            "teacher_scale": rng.uniform(0.3, 3.0),
        }
        yield Problem(**given | changes)


# The problem and the class of results.


@pytest.mark.parametrize(
    ("name", "values", "must"),
    [
        ("alpha", (0.0, -1.0, math.nan, math.inf), ""),
        ("kappa", (0.0, -0.5), ""),
        ("kappa_star", (0.0, -0.5), ""),
        ("teacher_scale", (0.0, -1.0), ""),
        ("init_scale", (0.0, -1.0), ""),
        ("noise_var", (-1e-3, math.nan), ""),
        ("ridge", (-1e-3, math.inf), ""),
    ],
)
def test_problem_refuses(name, values, must):
    for value in values:
        with pytest.raises(ValueError, match=rf"^{name} must be .*was {re.escape(str(value))}"):
            Problem(**{"alpha": 0.3, "kappa": 0.5, "kappa_star": 0.2, name: value})
    for value in ("1", None, True, 1j):
        with pytest.raises(TypeError, match=rf"^{name} must be"):
            Problem(**{"alpha": 0.3, "kappa": 0.5, "kappa_star": 0.2, name: value})


def test_problem_is_a_value():
    law = spectra.discrete([0.0, 1.0], [0.5, 0.5])
    problem = Problem(alpha=0.3, kappa=0.5, kappa_star=0.2, teacher_spectrum=law)
    assert problem == Problem(
        alpha=0.3,
        kappa=0.5,
        kappa_star=0.2,
        teacher_spectrum=spectra.discrete([0.0, 1.0], [0.5, 0.5]),
    )
    assert len({problem, problem.replace(alpha=0.3), problem.replace(teacher_spectrum=None)}) == 2
    grid = Problem.grid(alpha=[0.2, 0.3], kappa=[0.5, 1.0], kappa_star=0.2)
    assert [(p.alpha, p.kappa) for p in grid] == [(0.2, 0.5), (0.2, 1.0), (0.3, 0.5), (0.3, 1.0)]
    for wrong in (0.5, [0.0, 1.0]):
        with pytest.raises(TypeError, match=r"^teacher_spectrum must be a law"):
            problem.replace(teacher_spectrum=wrong)
    for negative in (spectra.semicircle(1.0), spectra.discrete([-0.1, 1.0], [0.5, 0.5])):
        with pytest.raises(ValueError, match=r"^teacher_spectrum must"):
            problem.replace(teacher_spectrum=negative)
    with pytest.raises(ValueError, match=r"^teacher_spectrum must"):
        problem.replace(teacher_spectrum=spectra.discrete([0.0], [1.0]))


@pytest.mark.parametrize(
    "law",
    [
        None,
        spectra.discrete([0.0, 1.0, 3.0], [0.5, 0.3, 0.2]),
        spectra.marchenko_pastur(0.3, 2.0),
        spectra.jacobi(0.5, 0.25),
        spectra.free_sum(spectra.discrete([3.0], [1.0]), 0.5),
    ],
)
def test_results_are_saved_with_the_teacher(law, tmp_path):
    problem = Problem(
        alpha=0.3, kappa=0.4, kappa_star=0.3, noise_var=0.5, ridge=0.1, teacher_spectrum=law
    )
    result = flow.long_time(problem)
    result.save(tmp_path / "roots.npz")
    again = op.load(tmp_path / "roots.npz")
    assert again.problem == problem
    assert hash(again.problem) == hash(problem)
    assert type(again) is flow.LongTime
    for name in (*FIELDS, "stable"):
        assert_array_equal(getattr(again, name), getattr(result, name))


def test_long_time_is_a_result():
    problem = Problem(alpha=0.3, kappa=0.4, kappa_star=0.3, noise_var=0.1, ridge=0.05)
    result = flow.long_time(problem)
    assert result.problem == problem
    assert result.status is Status.SUCCESS
    assert result.stable.dtype == bool
    for name in FIELDS:
        values = getattr(result, name)
        assert values.dtype == np.float64
        assert values.shape == (1,)
        assert not values.flags.writeable
    residuals = [value for name, value in result.stats.items() if name.startswith("residual")]
    assert len(residuals) == 2
    assert max(residuals) < 1e-12
    assert_array_equal(flow.long_time(problem, throw=False).risk, result.risk)


# Reference values.


@pytest.mark.parametrize("entry", REFERENCE["long_time_fixed_points"])
def test_long_time_reference(entry):
    found = only(flow.long_time(read(entry)))
    rtol = 1e-5 if entry["lam"] else 1e-4
    names = {"risk": "R", "sigma2": "sigma2", "c": "c", "threshold": "tau"}
    for name, key in (names | {"train_risk": "train_mse", "rank": "rank_frac"}).items():
        assert_allclose(found[name], entry[key], rtol=rtol, atol=1e-12, err_msg=name)
    assert_allclose(entry["alpha"] * (1 - found["c"]), entry["D"], rtol=rtol)
    assert found["alpha"] == entry["alpha"]
    assert found["stable"]


def test_sweeps_reference():
    entry = REFERENCE["double_descent_alpha"]
    for alpha, risk, train in zip(entry["alpha"], entry["R"], entry["train"], strict=True):
        found = only(flow.long_time(read(entry, alpha=alpha)))
        assert_allclose(found["risk"], risk, rtol=1e-4)
        assert_allclose(found["train_risk"], train, rtol=0, atol=1e-6)
    entry = REFERENCE["width_sweep"]
    for kappa, risk, train in zip(entry["kappa"], entry["R"], entry["train"], strict=True):
        found = only(flow.long_time(read({**entry, "kappa": kappa})))
        assert_allclose(found["risk"], risk, rtol=1e-4)
        assert_allclose(found["train_risk"], train, rtol=1e-4)


def test_thresholds_reference():
    for entry in REFERENCE["perfect_recovery"]:
        threshold = flow.recovery_threshold(entry["kappa"], entry["kappa_star"])
        assert_allclose(threshold, entry["alpha_PR"], rtol=0, atol=1e-9)
        width = flow.saturation_width(entry["kappa_star"])
        assert_allclose(width, entry["kappa_c"], rtol=0, atol=1e-9)
    for entry in REFERENCE["unique_psd_threshold"]:
        assert_allclose(flow.unique_threshold(entry["kappa_star"]), entry["alpha"], rtol=1e-12)
    for entry in REFERENCE["interpolation_threshold"]:
        given = (entry["kappa"], entry["kappa_star"])
        for noise_var, key in ((entry["Delta"], "alpha_int"), (0.0, "alpha_int_Delta0")):
            threshold = flow.interpolation_threshold(*given, noise_var)
            assert_allclose(threshold, entry[key], rtol=1e-8)
        at = read(entry, alpha=entry["alpha_int"])
        assert_allclose(only(flow.long_time(at))["risk"], entry["R_at"], rtol=1e-4)


@pytest.mark.parametrize("entry", REFERENCE["bayes"])
def test_bayes_risk_reference(entry):
    risk = flow.bayes_risk(entry["alpha"], entry["kappa_star"], entry["Delta"])
    assert_allclose(risk, entry["R_bayes"], rtol=1e-8)


def test_closed_form_reference():
    (entry,) = REFERENCE["closed_form_MAP"]
    assert_allclose(only(flow.long_time(read(entry)))["risk"], entry["R"], rtol=1e-12)


# The authors' curves.


def published_points(entry):
    """The points of an entry, with our R, and train risk from their in-sample error."""
    for i, alpha in enumerate(entry["alpha"]):
        tau, Delta = entry["q"][i], entry["Delta"]
        train = 4 * entry["loss"][i] - Delta * (1 - 2 * entry["lam"] / tau)
        yield {
            "alpha": alpha,
            "risk": 2 * entry["mse"][i],
            "threshold": tau,
            "sigma2": entry["xi"][i],
            "rank": entry["rank"][i],
            "train_risk": train,
        }


def distance(result, point, i):
    """Relative distance of entry i, train risk relative to the whole in-sample error."""
    scales = {**point, "train_risk": point["risk"] + result.problem.noise_var}
    return max(abs(getattr(result, name)[i] - point[name]) / scales[name] for name in point)


def sensitivity(result, moved, step, i):
    """Largest relative change of a field of entry i for a relative change of what was moved."""
    nearest = np.argmin(np.abs(moved.threshold / result.threshold[i] - 1))
    changes = [
        abs(getattr(moved, name)[nearest] / getattr(result, name)[i] - 1)
        for name in ("alpha", "risk", "threshold", "sigma2", "rank")
    ]
    return max(changes) / step


@pytest.mark.parametrize("entry", PUBLISHED["theory"])
def test_published_curves(entry):
    """Each of their points, good to 1e-4, is one of ours, in both directions."""
    problem, step = read(entry), 1e-6
    sigma2 = np.sort(entry["xi"])
    curve, moved = (flow.curve(problem, sigma2 * factor) for factor in (1, 1 + step))
    for point in published_points(entry):
        at = np.flatnonzero(curve.sigma2 == point["sigma2"])
        nearest = at[np.argmin([distance(curve, point, i) for i in at])]
        slope = sensitivity(curve, moved, step, nearest)
        assert distance(curve, point, nearest) < 2e-4 * max(1, slope)
        problems = (problem.replace(alpha=point["alpha"] * factor) for factor in (1, 1 + step))
        roots, others = map(flow.long_time, problems)
        nearest = np.argmin([distance(roots, point, i) for i in range(len(roots.risk))])
        slope = sensitivity(roots, others, step, nearest)
        assert distance(roots, point, nearest) < 2e-4 * max(1, slope)


# Plain NumPy.


def test_long_time_against_naive():
    for problem in drawn(48, seed=1):
        roots = flow.long_time(problem)
        assert_array_equal(roots.alpha, problem.alpha)
        assert len(roots.risk) > 0
        assert np.all(np.diff(roots.sigma2) > 0)
        positive = roots.sigma2 > 0
        if positive.all():
            assert_solutions(roots, problem)


def test_long_time_finds_what_a_scan_finds():
    for problem in drawn(2, seed=2, noise_var=0.3):
        given = {"Delta": problem.noise_var, "lam": problem.ridge, "points": 7, "n": 96}
        expected = naive.long_time(teacher_of(problem), problem.alpha, problem.kappa, **given)
        roots = flow.long_time(problem)
        assert_allclose(roots.risk, [root["risk"] for root in expected], rtol=1e-8)
        assert_array_equal(roots.stable, [root["stable"] for root in expected])


def test_curve_against_naive():
    for problem in drawn(12, seed=3):
        if problem.ridge:
            sigma2 = np.array([1e-3, 0.05, 1.0, 30.0]) * problem.teacher_scale**2
            curve = flow.curve(problem, sigma2)
            assert_solutions(curve, problem)
            assert set(curve.sigma2) == set(sigma2)
            order = list(zip(curve.sigma2, curve.threshold, strict=True))
            assert order == sorted(order)
    given = {"Delta": 1.0, "lam": 2e-3, "points": 120, "n": 32}
    problem = Problem(alpha=1.0, kappa=0.4, kappa_star=0.3, noise_var=1.0, ridge=2e-3)
    sigma2 = (0.3, 3.0)
    expected = [
        state["alpha"]
        for s2 in sigma2
        for state in naive.long_time_curve(teacher_of(problem), s2, 0.4, **given)
    ]
    assert_allclose(flow.curve(problem, sigma2).alpha, expected, rtol=1e-8)


def test_curve_and_long_time_are_inverse():
    for problem in drawn(12, seed=4):
        roots = flow.long_time(problem)
        if roots.sigma2[0] > 0:
            curve = flow.curve(problem.replace(alpha=7.0), roots.sigma2)
            for i, s2 in enumerate(roots.sigma2):
                found = np.abs(curve.alpha - problem.alpha) < 1e-8 * problem.alpha
                (at,) = np.flatnonzero(found & (curve.sigma2 == s2))
                for name in FIELDS:
                    value = getattr(curve, name)[at]
                    assert_allclose(value, getattr(roots, name)[i], rtol=1e-7, atol=1e-9)


# Closed forms.

# (kappa, kappa*): thresholds with a vanishing ridge, with none, and interpolation without noise,
# from the formulas of section 4 at 40 digits.
THRESHOLDS = {
    (1e-09, 1e-09): (9.9999999950000006e-10, 9.9999999950000006e-10, 9.9999999950000006e-10),
    (1.6878420963284216e-06, 1e-09): (
        2.9983465728346625e-9,
        1.6878406719229505e-6,
        3.3738779919838778e-6,
    ),
    (1.0, 1e-09): (2.9987304243658269e-9, 0.2500000005, 0.2500000005),
    (0.00015454691393986916, 0.0001): (
        0.0001704062895460186,
        0.00015453497156556499,
        0.00020881345837803766,
    ),
    (0.005549236702592929, 0.0001): (
        0.00028764694797400002,
        0.0055338396886022269,
        0.010435355882870739,
    ),
    (0.010000072824975711, 0.01): (
        0.0099501441881326121,
        0.0099500720967233026,
        0.0099501441891826618,
    ),
    (0.08289780068621239, 0.01): (0.02314221116715887, 0.079461778006906889, 0.11464718602508457),
    (0.20000023587188873, 0.2): (0.18000037736638282, 0.18000018869748316, 0.18000037736682787),
    (0.2707615666157608, 0.2): (0.2381215562358529, 0.23410565363765025, 0.25845684406161574),
    (0.43563601683048336, 0.2): (0.25556196638927962, 0.33066839606601123, 0.33066839606601123),
    (1.0, 0.2): (0.25556196641953744, 0.34, 0.34),
    (0.561109086694262, 0.5): (0.40924774902071455, 0.40368738310882757, 0.41336668810058719),
    (0.7406761587372712, 0.7): (0.46896108721213283, 0.46637557267637152, 0.46975769281408688),
    (0.991495926761884, 0.99): (0.49996737898778366, 0.49996384036918038, 0.4999674047117436),
    (0.9999991499999594, 0.999999): (0.49999999999967433, 0.49999999999963875, 0.49999999999967433),
}
SATURATION = {
    1e-09: 5.6238069877614052e-6,
    1e-4: 0.0055546913939869163,
    0.01: 0.082824975710501892,
    0.2: 0.43587188871920255,
    0.5: 0.70369695564753997,
    0.7: 0.83558719579090432,
    0.99: 0.99498642253961355,
    0.999999: 0.99999949999986489,
}


@pytest.mark.parametrize("pair", THRESHOLDS)
def test_thresholds_in_closed_form(pair):
    vanishing, none, interpolation = THRESHOLDS[pair]
    assert_allclose(flow.recovery_threshold(*pair), vanishing, rtol=1e-12)
    assert_allclose(flow.recovery_threshold(*pair, ridge="none"), none, rtol=1e-12)
    assert_allclose(flow.interpolation_threshold(*pair, 0.0), interpolation, rtol=1e-12)


def test_saturation_and_uniqueness_in_closed_form():
    for kappa_star, width in SATURATION.items():
        assert_allclose(flow.saturation_width(kappa_star), width, rtol=1e-12)
    for kappa_star in (1.0, 1.5, 40.0):
        assert flow.saturation_width(kappa_star) == 1
        assert flow.unique_threshold(kappa_star) == 0.5
        for ridge in ("vanishing", "none"):
            assert_allclose(flow.recovery_threshold(1.3, kappa_star, ridge=ridge), 0.5, rtol=1e-14)
            assert flow.recovery_threshold(0.99, kappa_star, ridge=ridge) == math.inf
    for ridge in ("vanishing", "none"):
        assert flow.recovery_threshold(0.2999, 0.3, ridge=ridge) == math.inf
    for kappa_star in (1e-8, 0.1, 0.9):
        expected = 0.25 + kappa_star / 2 - kappa_star**2 / 4
        assert_allclose(flow.unique_threshold(kappa_star), expected, rtol=1e-13)
        assert_allclose(
            flow.recovery_threshold(1.0, kappa_star, ridge="none"), expected, rtol=1e-13
        )


@pytest.mark.parametrize("kappa_star", [0.05, 0.3, 0.7, 0.95])
def test_thresholds_meet_and_are_in_order(kappa_star):
    """Limits of section 4."""
    freedom = kappa_star - kappa_star**2 / 2
    at_teacher = [
        flow.recovery_threshold(kappa_star, kappa_star),
        flow.recovery_threshold(kappa_star, kappa_star, ridge="none"),
        flow.interpolation_threshold(kappa_star, kappa_star, 0.0),
    ]
    assert_allclose(at_teacher, freedom, rtol=1e-12)
    width = flow.saturation_width(kappa_star)
    sides = [flow.recovery_threshold(width * (1 + s * 1e-9), kappa_star) for s in (-1, 1)]
    assert_allclose(*sides, rtol=1e-12)
    assert sides[1] == flow.recovery_threshold(1.0, kappa_star)
    assert sides[1] == flow.recovery_threshold(7.0, kappa_star)
    widths = np.linspace(kappa_star, 1.2, 60)
    curves = {
        ridge: [flow.recovery_threshold(k, kappa_star, ridge=ridge) for k in widths]
        for ridge in ("vanishing", "none")
    }
    interpolation = [flow.interpolation_threshold(k, kappa_star, 0.0) for k in widths]
    for values in (*curves.values(), interpolation):
        assert np.all(np.diff(values) >= -1e-15)
    assert np.all(np.array(curves["none"]) <= np.array(interpolation) + 1e-15)
    assert np.all(np.array(curves["vanishing"]) <= np.array(interpolation) + 1e-15)
    for values in curves.values():
        assert values[0] < values[-1] < 0.5


def test_an_unregularised_flow_may_recover_first():
    """kappa close to kappa*: alpha_PR < alpha_PR+ (section 4)."""
    pair = 0.5 + 1 / 12, 0.5
    assert_allclose(flow.recovery_threshold(*pair, ridge="none"), 0.4132, atol=5e-5)
    assert_allclose(flow.recovery_threshold(*pair), 0.4148, atol=5e-5)


@pytest.mark.parametrize("kappa_star", [0.02, 0.2, 0.6])
def test_recovery_threshold_is_a_statistical_dimension(kappa_star):
    """2 alpha = inf over t of psi(t); t = 0 gives the threshold of uniqueness."""

    def psi(t):
        above = integrate.quad(
            lambda x: (x - t) ** 2 * math.sqrt(4 - x * x) / (2 * math.pi), t, 2, epsabs=1e-13
        )[0]
        null = 1 - kappa_star
        return kappa_star**2 + kappa_star * null * (2 + t**2) + null**2 * above

    best = optimize.minimize_scalar(psi, bounds=(0, 2), method="bounded", options={"xatol": 1e-9})
    assert_allclose(flow.recovery_threshold(1.0, kappa_star), best.fun / 2, rtol=1e-12)
    assert_allclose(flow.unique_threshold(kappa_star), psi(0.0) / 2, rtol=1e-10)


@pytest.mark.parametrize(
    ("kappa", "kappa_star", "noise_var"),
    [(0.15, 0.3, 0.5), (0.3, 0.3, 0.02), (0.45, 0.3, 2.0), (1.0, 0.8, 0.3), (0.7, 2.0, 0.1)],
)
def test_interpolation_threshold(kappa, kappa_star, noise_var):
    """Against plain NumPy; there tau = 0 and c = 0, and the peak of the risk is there."""
    threshold = flow.interpolation_threshold(kappa, kappa_star, noise_var)
    expected = naive.interpolation_threshold(kappa, kappa_star, noise_var)
    assert_allclose(threshold, expected, rtol=1e-10)
    problem = Problem(alpha=threshold, kappa=kappa, kappa_star=kappa_star, noise_var=noise_var)
    above = flow.long_time(problem.replace(alpha=threshold * (1 + 1e-9)))
    below = flow.long_time(problem.replace(alpha=threshold * (1 - 1e-9)))
    assert np.any((above.threshold == 0) & (above.c > 0) & (above.c < 1e-8))
    assert np.any((below.train_risk == 0) & (below.threshold < 1e-3))


def test_interpolation_threshold_limits():
    for kappa, limit in {1.0: 0.25, 0.5: 0.25, 0.3: 0.23656627}.items():
        assert_allclose(flow.interpolation_threshold(kappa, 0.3, 1e6), limit, rtol=1e-6)
    assert_allclose(flow.interpolation_threshold(1.0, 0.3, 1e6), 0.25000018, rtol=0, atol=1e-8)
    assert_allclose(flow.interpolation_threshold(0.3, 0.3, 1e6), 0.23656640, rtol=0, atol=1e-8)
    gaps = [0.3775 - flow.interpolation_threshold(1.0, 0.3, D) for D in (1e-6, 1e-9, 1e-12)]
    assert_allclose(np.divide(gaps[:-1], gaps[1:]), 10, rtol=0.05)
    assert flow.interpolation_threshold(1.0, 3.0, 0.0) == 0.5


@pytest.mark.parametrize("scale", [1.0, 2.5])
@pytest.mark.parametrize(
    ("alpha", "kappa", "noise_var"), [(0.3, 0.2, 0.25), (0.25, 0.2, 1e-3), (1.0, 0.3, 0.05)]
)
def test_maximum_a_posteriori_in_closed_form(alpha, kappa, noise_var, scale):
    """Section 4: kappa = kappa*, lam = Delta kappa*/(4 alpha), an open gap."""
    problem = Problem(
        alpha=alpha,
        kappa=kappa,
        kappa_star=kappa,
        noise_var=noise_var * scale**2,
        ridge=noise_var * kappa / (4 * alpha) * scale,
        teacher_scale=scale,
    )
    found = {
        name: float(getattr(flow.long_time(problem), name)[0]) for name in ("c", "risk", "rank")
    }
    c = 1 - (kappa - kappa**2 / 2) / alpha
    assert_allclose(found["c"], c, rtol=1e-12)
    assert_allclose(found["risk"], noise_var * scale**2 * (1 / c - 1), rtol=1e-12)
    assert_allclose(found["rank"], kappa, rtol=1e-13)


def test_a_teacher_that_is_the_identity():
    """S* = I: Y is a semicircle, and at tau = 0 above the threshold nothing is cut if sigma < 1/2.

    Then D = 1/2, R = 4 sigma^2 D, so that R = 2 sigma^2 and alpha = 1/2 + Delta/(4 sigma^2).
    """
    law = spectra.discrete([1.0], [1.0])
    for alpha, noise_var in ((0.9, 0.2), (5.0, 1.0), (0.6, 0.01)):
        problem = Problem(
            alpha=alpha, kappa=1.0, kappa_star=1.0, noise_var=noise_var, teacher_spectrum=law
        )
        found = only(flow.long_time(problem))
        sigma2 = noise_var / (4 * alpha - 2)
        assert_allclose(found["sigma2"], sigma2, rtol=1e-11)
        assert_allclose(found["risk"], 2 * sigma2, rtol=1e-11)
        assert_allclose(found["c"], 1 - 0.5 / alpha, rtol=1e-11)
        assert_allclose([found["rank"], found["trace"], found["overlap"]], 1, rtol=1e-11)
        # The same with a ridge: all eigenvalues move by tau.
        state = flow.curve(problem.replace(ridge=0.01), [1e-3])
        tau = float(state.threshold[0])
        assert_allclose(state.risk, 2 * (1e-3 + tau**2), rtol=1e-11)
        assert_allclose(state.trace, 1 - tau, rtol=1e-11)


# Identities and limits.


def test_identities():
    for problem in drawn(60, seed=5):
        roots = flow.long_time(problem)
        noisy = roots.risk + problem.noise_var
        assert_allclose(roots.sigma2, noisy / (4 * problem.alpha), rtol=1e-10, atol=1e-300)
        assert_allclose(roots.train_risk, roots.c**2 * noisy, rtol=1e-12)
        objective = roots.train_risk / 8 + problem.ridge / 2 * roots.trace
        assert_allclose(roots.objective, objective, rtol=1e-12)
        assert_allclose(roots.c * roots.threshold, problem.ridge, rtol=1e-10, atol=1e-15)
        assert np.all(roots.rank <= min(problem.kappa, 1) * (1 + 1e-12))
        assert np.all((roots.c >= 0) & (roots.c <= 1))


def test_both_formulas_of_the_risk():
    """R = 2 (tr S^2 - 2 tr S S* + tr S*^2)/d, with tr S^2 of the learned spectrum."""
    for problem in drawn(12, seed=6):
        roots = flow.long_time(problem)
        Q_star = problem.teacher_scale**2 * (1 + 1 / problem.kappa_star)
        for i in np.flatnonzero(roots.sigma2 > 0):
            square = flow.spectrum(problem, root=int(i)).moments(2)
            expected = 2 * (square - 2 * roots.overlap[i] + Q_star)
            assert_allclose(roots.risk[i], expected, rtol=0, atol=1e-4 * Q_star)


def test_the_objective_is_stationary():
    """Its derivative in the ridge at fixed data is tr S/(2 d)."""
    for problem in drawn(12, seed=7, ridge=0.1):
        sides = [flow.long_time(problem.replace(ridge=0.1 + step)) for step in (-1e-4, 1e-4)]
        roots = flow.long_time(problem)
        if len({len(result.risk) for result in (*sides, roots)}) == 1:
            slope = (sides[1].objective - sides[0].objective) / 2e-4
            assert_allclose(slope, roots.trace / 2, rtol=1e-5)


def test_scaling():
    """(S, S*, s0^2), Delta and lam in their units: section 1."""
    g = 3.7
    for problem in drawn(12, seed=8):
        scaled = problem.replace(
            teacher_scale=g * problem.teacher_scale,
            noise_var=g**2 * problem.noise_var,
            ridge=g * problem.ridge,
        )
        one, other = flow.long_time(problem), flow.long_time(scaled)
        powers = {"risk": 2, "train_risk": 2, "sigma2": 2, "overlap": 2, "objective": 2}
        for name in FIELDS:
            power = powers.get(name, 1 if name in ("threshold", "trace") else 0)
            expected = g**power * getattr(one, name)
            assert_allclose(getattr(other, name), expected, rtol=1e-9, atol=1e-12, err_msg=name)


def test_a_width_beyond_the_rank_changes_nothing():
    """kappa >= 1, and kappa >= P(y > tau): the same solution."""
    problem = Problem(alpha=0.25, kappa=1.0, kappa_star=0.2, noise_var=0.5, ridge=1e-3)
    wide = flow.long_time(problem)
    for kappa in (1.0 + 1e-12, 1.7, 40.0):
        other = flow.long_time(problem.replace(kappa=kappa))
        for name in (*FIELDS, "stable"):
            assert_array_equal(getattr(other, name), getattr(wide, name))
    rank = float(wide.rank[0])
    assert rank < 0.5
    for kappa in (rank * (1 + 1e-6), 0.5, 0.7, 0.999):
        other = flow.long_time(problem.replace(kappa=kappa))
        for name in FIELDS:
            assert_allclose(getattr(other, name), getattr(wide, name), rtol=1e-10, atol=1e-15)
    below = only(flow.long_time(problem.replace(kappa=rank * (1 - 1e-3))))
    assert_allclose(below["rank"], rank * (1 - 1e-3), rtol=1e-12)
    assert below["risk"] > wide.risk[0]


def test_bayes_is_never_beaten():
    for problem in drawn(60, seed=9):
        given = (problem.alpha, problem.kappa_star, problem.noise_var)
        bayes = flow.bayes_risk(*given, teacher_scale=problem.teacher_scale)
        assert np.all(flow.long_time(problem).risk >= bayes * (1 - 1e-9))


def test_bayes_risk():
    for alpha, star, noise_var in ((0.1, 0.5, 0.2), (0.4, 0.3, 1e-3), (0.3, 2.0, 0.0)):
        expected = naive.bayes_risk((star, 1.0), alpha, noise_var)
        assert_allclose(flow.bayes_risk(alpha, star, noise_var), expected, rtol=1e-9)
        scaled = flow.bayes_risk(alpha, star, 4 * noise_var, teacher_scale=2.0)
        assert_allclose(scaled, 4 * expected, rtol=1e-9)
    # Recovery at the count of degrees of freedom; linear in the distance below it.
    threshold = 0.3 - 0.3**2 / 2
    assert flow.bayes_risk(threshold * (1 + 1e-9), 0.3, 0.0) == 0
    assert flow.bayes_risk(1.0, 0.3, 0.0) == 0
    risks = [flow.bayes_risk(threshold * (1 - gap), 0.3, 0.0) for gap in (1e-2, 1e-3)]
    assert 0 < risks[1] < risks[0] < 0.2
    # No data: the variance of the teacher.
    assert_allclose(flow.bayes_risk(1e-7, 0.5, 0.3), 4.0, rtol=1e-5)
    # Much noise, or few data: up to the variance of the teacher, never above.
    gaps = [2 / 0.3 - flow.bayes_risk(0.45, 0.3, 10.0**n) for n in (4, 6, 8, 10)]
    assert_allclose(gaps, 40 * 10.0 ** -np.array([4, 6, 8, 10]), rtol=2e-3)
    for noise_var in (1e12, 1e16, 1e30):
        assert_allclose(flow.bayes_risk(0.45, 0.3, noise_var), 2 / 0.3, rtol=1e-11)
    assert 0 < 2 / 0.3 - flow.bayes_risk(1e-8, 0.3, 0.1) < 1e-6
    # The limit of small noise.
    assert_allclose(flow.bayes_risk(1.0, 0.3, 1e-8) / 1e-8, threshold / (1 - threshold), rtol=1e-3)


def test_no_data_and_all_data():
    """alpha -> 0 leaves S = 0; alpha -> infinity the shrunk teacher S = (S* - lam)_+."""
    problem = Problem(alpha=1e-6, kappa=1.0, kappa_star=0.5, noise_var=0.3, ridge=0.2)
    nothing = only(flow.long_time(problem))
    assert_allclose(nothing["risk"], 2 * 3, rtol=1e-2)
    everything = only(flow.long_time(problem.replace(alpha=1e7)))
    nodes, weights = naive.marchenko_pastur_nodes(0.5, n=2000)
    learned = np.maximum(nodes - 0.2, 0)
    assert_allclose(everything["risk"], 2 * weights @ (learned - nodes) ** 2, rtol=1e-5)
    assert_allclose(everything["trace"], weights @ learned, rtol=1e-5)
    assert_allclose(everything["train_risk"], everything["risk"] + 0.3, rtol=1e-5)
    # A ridge above everything: S = 0 exactly.
    zero = only(flow.long_time(problem.replace(alpha=0.5, ridge=100.0)))
    assert zero["trace"] == zero["rank"] == zero["overlap"] == 0
    assert_allclose(zero["risk"], 6.0, rtol=1e-12)
    assert_allclose([zero["c"], zero["threshold"]], [1.0, 100.0], rtol=1e-12)
    assert_allclose(zero["train_risk"], 6.3, rtol=1e-12)


def test_small_ridges_approach_the_limit():
    for alpha in (0.2, 0.45):
        problem = Problem(alpha=alpha, kappa=1.0, kappa_star=0.3, noise_var=0.3)
        limit = only(flow.long_time(problem))
        near = only(flow.long_time(problem.replace(ridge=1e-9)))
        for name in ("risk", "threshold", "c", "rank", "trace"):
            assert_allclose(near[name], limit[name], rtol=1e-6, atol=1e-6, err_msg=name)


def test_continuous_at_the_saturation_width():
    width = flow.saturation_width(0.2)
    problem = Problem(alpha=0.2, kappa=1.0, kappa_star=0.2)
    sides = [only(flow.long_time(problem.replace(kappa=width * (1 + s * 1e-7)))) for s in (-1, 1)]
    for name in FIELDS:
        assert_allclose(sides[0][name], sides[1][name], rtol=1e-5, atol=1e-12)


# Recovery and coexistence.


@pytest.mark.parametrize(("kappa", "kappa_star"), [(1.0, 0.2), (0.3, 0.2), (0.5, 0.3), (3.0, 1.5)])
def test_recovery_is_exact(kappa, kappa_star):
    """Without noise and ridge, R = 0 from alpha_PR on and (alpha_PR - alpha)^2 before it."""
    threshold = flow.recovery_threshold(kappa, kappa_star)
    problem = Problem(alpha=threshold, kappa=kappa, kappa_star=kappa_star)
    for factor in (1 + 1e-6, 1.01, 1.2, 4.0):
        roots = flow.long_time(problem.replace(alpha=threshold * factor))
        for name in ("risk", "sigma2", "train_risk", "threshold", "objective"):
            assert getattr(roots, name)[0] == 0
        assert_allclose([roots.trace[0], roots.overlap[0]], [1, 1 + 1 / kappa_star], rtol=1e-12)
        assert roots.stable[0]
    risks = [
        only(flow.long_time(problem.replace(alpha=threshold * (1 - gap))))["risk"]
        for gap in (1e-2, 1e-3)
    ]
    assert min(risks) > 0
    if kappa_star < 1:
        assert_allclose(risks[0] / risks[1], 100, rtol=0.2)


def test_recovery_table():
    """Section 4: R just below alpha_PR."""
    for kappa, values in {1.0: (0.191, 0.0174, 0.00193), 0.3: (0.255, 0.0243, 0.00274)}.items():
        threshold = flow.recovery_threshold(kappa, 0.2)
        for factor, value in zip((0.90, 0.97, 0.99), values, strict=True):
            problem = Problem(alpha=factor * threshold, kappa=kappa, kappa_star=0.2)
            assert_allclose(only(flow.long_time(problem))["risk"], value, rtol=5e-3)


def test_small_noise_above_recovery():
    """R is proportional to the noise, down to any."""
    problem = Problem(alpha=0.4, kappa=1.0, kappa_star=0.2)
    ratios = [
        only(flow.long_time(problem.replace(noise_var=noise)))["risk"] / noise
        for noise in (1e-6, 1e-12, 1e-20)
    ]
    assert_allclose(ratios[1:], ratios[2], rtol=1e-4)
    assert_allclose(ratios[0], ratios[2], rtol=3e-2)
    ridges = [
        only(flow.long_time(problem.replace(ridge=ridge)))["risk"] / ridge**2
        for ridge in (1e-5, 1e-8, 1e-10)
    ]
    assert_allclose(ridges[1:], ridges[2], rtol=1e-3)


# alpha: risks of the roots at kappa = kappa* = 0.2 without noise (section 4), with lam = 1e-4 and
# in the limit, by naive.py.
COEXISTING = {
    0.185: ((1.81252003e-4, 0.366357864, 1.998432901), (0.0, 0.308333333, 2.030475403)),
    0.19: ((2.66276228e-5, 0.662632457, 2.871382281), (0.0, 0.633333333, 2.899629941)),
    0.2: ((3.96826564e-6, 1.349393622, 5.825957554), (0.0, 1.333333333, 5.876689049)),
    0.22: ((6.64039264e-7, 4.026896343, 41.95614768), (0.0, 3.988262903, 44.08265000)),
    0.23: ((3.887717674e-7,), (0.0,)),
}


@pytest.mark.parametrize("alpha", COEXISTING)
def test_coexistence(alpha):
    problem = Problem(alpha=alpha, kappa=0.2, kappa_star=0.2, ridge=1e-4)
    roots, limit = (flow.long_time(p) for p in (problem, problem.replace(ridge=0.0)))
    for result, expected in zip((roots, limit), COEXISTING[alpha], strict=True):
        assert_allclose(result.risk, expected, rtol=1e-8)
        assert_array_equal(result.stable, [True, False, True][: len(expected)])
    assert_solutions(roots, problem, rtol=1e-8)
    stable, largest = (flow.long_time(problem, branch=name) for name in ("stable", "largest"))
    assert_array_equal(stable.risk, roots.risk[roots.stable])
    assert_array_equal(largest.risk, roots.risk[-1:])
    assert stable.stable.all()


def test_where_solutions_coexist():
    """Numbers of roots that section 4 lists, at kappa* = 0.2 and lam = 1e-4."""
    counts = {
        0.21: {0.18: 1, 0.19: 1, 0.195: 1, 0.2: 3, 0.21: 3, 0.23: 3},
        0.23: {0.23: 3},
        0.26: dict.fromkeys((0.18, 0.19, 0.2, 0.21, 0.22, 0.23), 1),
    }
    for kappa, row in counts.items():
        for alpha, count in row.items():
            problem = Problem(alpha=alpha, kappa=kappa, kappa_star=0.2, ridge=1e-4)
            assert len(flow.long_time(problem).risk) == count


def test_curve_finds_islands():
    """kappa = kappa* = 0.25, lam = 1e-3: three solutions between sigma^2 = 0.9 and 6.6."""
    problem = Problem(alpha=1.0, kappa=0.25, kappa_star=0.25, ridge=1e-3)
    sigma2 = np.array([0.75, 0.9, 1.0, 3.0, 6.6, 7.9])
    curve = flow.curve(problem, sigma2)
    assert [int(np.sum(curve.sigma2 == s2)) for s2 in sigma2] == [1, 3, 3, 3, 3, 1]
    at_three = curve.sigma2 == 3.0
    assert_allclose(curve.alpha[at_three], [0.25418486, 0.23836699, 0.18399450], rtol=1e-7)
    assert_allclose(curve.threshold[at_three], [0.02979408, 0.18306161, 1.13302451], rtol=1e-7)
    assert_solutions(curve, problem)
    # Each of them is a root at its own alpha, and keeps its flag.
    for i in range(len(curve.alpha)):
        roots = flow.long_time(problem.replace(alpha=float(curve.alpha[i])))
        nearest = np.argmin(np.abs(roots.sigma2 - curve.sigma2[i]))
        assert_allclose(roots.sigma2[nearest], curve.sigma2[i], rtol=1e-6)
        assert roots.stable[nearest] == curve.stable[i]


# Learned spectra.


def test_spectrum():
    for problem in drawn(9, seed=10, noise_var=0.4):
        roots = flow.long_time(problem)
        for root in range(len(roots.risk)):
            spectrum = flow.spectrum(problem, root=root)
            tau, s2, rank = (getattr(roots, n)[root] for n in ("threshold", "sigma2", "rank"))
            assert_allclose(spectrum.moments(0), 1, rtol=1e-6)
            assert_allclose(spectrum.moments(1), roots.trace[root], rtol=1e-4)
            ((position, mass),) = spectrum.atoms
            assert position == 0
            assert_allclose(mass, 1 - rank, rtol=1e-10, atol=1e-13)
            edges = spectrum.edges
            if rank == 0:
                assert len(edges) == 0
                continue
            assert len(edges) % 2 == 0
            assert np.all(np.diff(edges) >= 0)
            teacher = teacher_of(problem)
            law = naive.FreeSum(teacher, s2)
            low = max(law.quantile(problem.kappa) - tau, 0.0, law.edges[0] - tau)
            assert_allclose(edges[0], low, rtol=1e-9, atol=1e-12)
            assert_allclose(edges[-1], law.top - tau, rtol=1e-10)
            s = edges[0] + (edges[-1] - edges[0]) * np.array([0.1, 0.35, 0.8])
            expected = [naive.learned_density(teacher, s2, tau, float(at)) for at in s]
            assert_allclose(spectrum.density(s), expected, rtol=1e-3, atol=1e-3)


def test_spectrum_with_a_gap():
    problem = Problem(alpha=0.25, kappa=0.2, kappa_star=0.2, noise_var=0.25, ridge=0.05)
    roots, spectrum = flow.long_time(problem), flow.spectrum(problem)
    (entry,) = [e for e in REFERENCE["long_time_fixed_points"] if e["kappa"] == 0.2]
    assert_allclose(spectrum.edges[0], entry["cut"] - entry["tau"], rtol=1e-5)
    assert_allclose(spectrum.atoms[0], [0.0, 0.8], rtol=1e-9)
    assert_allclose(spectrum.moments(1), roots.trace[0], rtol=1e-5)
    assert spectrum.density(0.5 * spectrum.edges[0]) == 0


def test_spectrum_in_two_pieces():
    """A teacher of two values, little noise: the kept part has a gap inside."""
    law = spectra.discrete([0.0, 1.0, 5.0], [0.5, 0.3, 0.2])
    problem = Problem(
        alpha=1.0, kappa=1.0, kappa_star=1.0, noise_var=0.05, ridge=0.05, teacher_spectrum=law
    )
    spectrum = flow.spectrum(problem)
    assert len(spectrum.edges) >= 4
    masses = [
        np.mean(spectrum.density(np.linspace(low, high, 20_001))) * (high - low)
        for low, high in spectrum.edges.reshape(-1, 2)[-2:]
    ]
    assert_allclose(masses, [0.3, 0.2], rtol=1e-3)


# The ridge with the least risk.


@pytest.mark.parametrize(
    ("alpha", "kappa", "kappa_star", "noise_var"),
    [(0.3, 1.0, 0.2, 0.5), (0.3, 0.4, 0.3, 0.5), (0.15, 1.0, 0.8, 1.0), (0.9, 0.3, 0.5, 0.2)],
)
def test_optimal_ridge_beats_a_grid(alpha, kappa, kappa_star, noise_var):
    problem = Problem(alpha=alpha, kappa=kappa, kappa_star=kappa_star, noise_var=noise_var)
    ridge, best = flow.optimal_ridge(problem)
    assert best.problem == problem.replace(ridge=ridge)
    assert ridge > 0
    risk = float(best.risk[0])
    for other in np.concatenate(
        [[0.0], np.geomspace(1e-4, 10, 40), ridge * np.array([0.99, 1.01])]
    ):
        roots = flow.long_time(problem.replace(ridge=float(other)))
        assert roots.risk[0] >= risk * (1 - 1e-12)
    assert risk >= flow.bayes_risk(alpha, kappa_star, noise_var)
    # The problem's own ridge does not matter.
    assert flow.optimal_ridge(problem.replace(ridge=0.7))[0] == ridge


def test_optimal_ridge_against_naive():
    problem = Problem(alpha=0.3, kappa=1.0, kappa_star=0.2, noise_var=0.5)
    ridge, best = flow.optimal_ridge(problem)
    expected, risk = naive.optimal_ridge(
        (0.2, 1.0), 0.3, 1.0, Delta=0.5, low=0.97 * ridge, high=1.03 * ridge, n=20
    )
    assert_allclose(ridge, expected, rtol=1e-3)
    assert_allclose(best.risk[0], risk, rtol=1e-6)


def test_optimal_ridge_removes_the_peak():
    entry = REFERENCE["double_descent_alpha"]
    risks = []
    for alpha in entry["alpha"]:
        _, best = flow.optimal_ridge(read(entry, alpha=alpha))
        risks.append(only(best)["risk"])
    assert np.all(np.diff(risks) < 0)
    assert np.all(np.array(risks) < entry["R"])
    assert np.any(np.diff(entry["R"]) > 0)


def test_optimal_ridge_that_is_not_found(monkeypatch):
    true = flow._teacher

    class Lost:
        def __init__(self, law):
            self._law = true(law)

        def __getattr__(self, name):
            return getattr(self._law, name)

        def optimal_ridge(self, *_):
            return math.nan

    monkeypatch.setattr(flow, "_teacher", Lost)
    with pytest.raises(op.ConvergenceError) as caught:
        flow.optimal_ridge(Problem(alpha=0.3, kappa=1.0, kappa_star=0.2, ridge=0.1))
    assert caught.value.result.problem.ridge == 0.0


def test_optimal_ridge_without_noise_or_signal():
    """No ridge where the teacher is recovered; little better than S = 0 where noise hides it."""
    problem = Problem(alpha=0.4, kappa=1.0, kappa_star=0.2)
    ridge, best = flow.optimal_ridge(problem)
    assert ridge == best.risk[0] == 0
    ridge, best = flow.optimal_ridge(problem.replace(noise_var=1e4))
    assert 11.99 < best.risk[0] < 12
    assert np.all(flow.long_time(problem.replace(noise_var=1e4, ridge=0.9 * ridge)).risk > 12)
    assert_solutions(best, best.problem, rtol=1e-6)


@pytest.mark.parametrize(
    "given",
    [
        {"alpha": 0.45, "kappa": 1.0, "kappa_star": 0.3},
        {"alpha": 0.2, "kappa": 1.0, "kappa_star": 0.5},
        {"alpha": 0.3, "kappa": 0.3, "kappa_star": 0.3},
        {"alpha": 0.8, "kappa": 0.1, "kappa_star": 2.0, "teacher_scale": 3.0},
        {
            "alpha": 0.45,
            "kappa": 0.5,
            "teacher_spectrum": spectra.discrete([0.0, 1.0, 3.0], [0.5, 0.3, 0.2]),
        },
    ],
)
def test_optimal_ridge_for_any_noise(given):
    for noise_var in (*np.geomspace(1, 1e6, 10), 1420.83, 1e9):
        problem = Problem(**given, noise_var=noise_var)
        ridge, best = flow.optimal_ridge(problem)
        risk = float(best.risk[0])
        scale = math.sqrt(noise_var / (4 * problem.alpha)) + 10 * problem.teacher_scale
        grid = [[0.0], np.geomspace(1e-3, 3 * scale, 12), np.linspace(0.9, 1.1, 21) * ridge]
        for other in np.concatenate(grid):
            solutions = flow.long_time(problem.replace(ridge=float(other)))
            assert solutions.risk[0] >= risk * (1 - 1e-9), (noise_var, other)
        nothing = flow.long_time(problem.replace(ridge=3 * scale))
        assert nothing.rank[0] == 0
        assert 0 < ridge < 3 * scale


def test_ridge_at_the_edge():
    """The limit S = 0 where the threshold is at the edge of the law to rounding."""
    law = spectra.discrete([0.0, 1.0, 3.0], [0.5, 0.3, 0.2])
    second = 0.3 + 0.2 * 9
    for noise_var in (1.0, 30.0, 300.0, 1e3, 3e3, 1e6):
        problem = Problem(alpha=0.45, kappa=1.0, noise_var=noise_var, teacher_spectrum=law)
        variance = (2 * second + noise_var) / (4 * 0.45)

        def empty(ridge, problem=problem):
            return flow.long_time(problem.replace(ridge=ridge)).rank[0] == 0

        low, high = 0.1 * math.sqrt(variance), 3 * math.sqrt(variance) + 10
        while high - low > 4e-16 * high:
            middle = 0.5 * (low + high)
            if middle in (low, high):
                break
            low, high = (low, middle) if empty(middle) else (middle, high)
        for gap in (*10.0 ** -np.arange(10, 17), 0.0, -1e-15, -1e-13):
            result = only(flow.long_time(problem.replace(ridge=high * (1 - gap))))
            assert all(math.isfinite(value) for value in result.values())
            assert_allclose(result["risk"], 2 * second, rtol=1e-8)
            assert 0 <= result["rank"] < 1e-8
    problem = Problem(
        alpha=0.45, kappa=1.0, noise_var=3000.0, teacher_spectrum=law, ridge=82.63926627930302
    )
    assert_allclose(flow.long_time(problem).risk, [2 * second], rtol=1e-12)


def test_curve_at_tiny_variance():
    """The threshold is the ridge to rounding: alpha sigma^2 and the risk are constant."""
    problem = Problem(alpha=0.4, kappa=0.5, kappa_star=0.3, noise_var=0.1, ridge=0.05)
    variances = [1e-30, 1e-20, 1e-17, 1e-16, 1e-15, 1e-13]
    result = flow.curve(problem, variances)
    assert result.status is Status.SUCCESS
    assert_array_equal(result.sigma2, variances)
    assert_allclose(result.threshold, 0.05, rtol=1e-11)
    assert_allclose(result.risk, 2 * 0.3 * 0.05**2, rtol=1e-6)
    assert_allclose(result.alpha * result.sigma2, (result.risk + 0.1) / 4, rtol=1e-12)
    assert np.all(result.stable)
    # No value where rounding leaves nothing of the risk.
    law = spectra.discrete([0.0, 5.0], [0.9, 0.1])
    problem = Problem(
        alpha=0.10466516702103526,
        kappa=0.08482209776797517,
        teacher_spectrum=law,
        ridge=0.0015741388672385166,
    )
    with pytest.raises(op.ConvergenceError):
        flow.curve(problem, [1.2430734384979627e-30])


# General teachers.


def test_marchenko_pastur_given_as_a_spectrum():
    for problem in drawn(12, seed=11):
        law = spectra.marchenko_pastur(problem.kappa_star, problem.teacher_scale)
        own, other = (
            flow.long_time(p)
            for p in (problem, problem.replace(teacher_spectrum=law, kappa_star=0.77))
        )
        for name in FIELDS:
            assert_allclose(
                getattr(other, name), getattr(own, name), rtol=1e-10, atol=1e-13, err_msg=name
            )
        assert_array_equal(own.stable, other.stable)


def test_quantiles_of_marchenko_pastur():
    """Atoms that stand for a law: close to it, the closer the more they are."""
    problem = Problem(alpha=0.3, kappa=0.4, kappa_star=0.5, noise_var=0.5, ridge=0.05)
    own, errors = only(flow.long_time(problem)), []
    for count in (100, 400):
        law = spectra.marchenko_pastur(0.5)
        atoms = law.quantile((np.arange(count) + 0.5) / count)
        values, weights = np.unique(atoms, return_counts=True)
        given = spectra.discrete(values, weights / count)
        other = only(flow.long_time(problem.replace(teacher_spectrum=given)))
        errors.append(abs(other["risk"] / own["risk"] - 1))
    assert errors[1] < errors[0] < 2e-2
    assert errors[1] < 2e-3


TEACHER_LAWS = {
    "three atoms": spectra.discrete([0.0, 1.0, 3.0], [0.5, 0.3, 0.2]),
    "one atom": spectra.discrete([2.0], [1.0]),
    "principal angles": spectra.jacobi(0.5, 0.25),
    "semicircle": spectra.free_sum(spectra.discrete([3.0], [1.0]), 0.5),
}


def plain_law(name):
    """Atoms and weights of a teacher, dense enough to stand for it at the sigma of the test."""
    law = TEACHER_LAWS[name]
    if name == "principal angles":
        nodes, weights = naive.jacobi_nodes(0.5, 0.25, n=120, reach=25.0)
        return nodes[weights > 1e-14], weights[weights > 1e-14]
    if name == "semicircle":
        angle = math.pi * np.arange(1, 80) / 80
        return 3 + 2 * math.sqrt(0.5) * np.cos(angle), np.sin(angle) ** 2 / 40
    return tuple(np.array(law.atoms).T)


@pytest.mark.parametrize("kappa", [0.3, 1.0])
@pytest.mark.parametrize("name", TEACHER_LAWS)
def test_general_teachers_against_naive(name, kappa):
    problem = Problem(
        alpha=0.3,
        kappa=kappa,
        kappa_star=1.0,
        noise_var=1.0,
        ridge=0.05,
        teacher_spectrum=TEACHER_LAWS[name],
    )
    roots = flow.long_time(problem)
    assert_solutions(roots, problem, teacher=plain_law(name), rtol=1e-7, n=120)


@pytest.mark.parametrize("name", TEACHER_LAWS)
def test_spectra_of_general_teachers(name):
    """The law of the teacher plus a semicircle, cut and shifted."""
    law = TEACHER_LAWS[name]
    problem = Problem(
        alpha=0.3, kappa=0.3, kappa_star=1.0, noise_var=0.1, ridge=0.02, teacher_spectrum=law
    )
    (root, *_), spectrum = flow.long_time(problem).sigma2, flow.spectrum(problem)
    tau = float(flow.long_time(problem).threshold[0])
    free = spectra.free_sum(law, float(root))
    assert_allclose(spectrum.edges[-1], free.edges[-1] - tau, rtol=1e-9)
    assert_allclose(spectrum.edges[0], free.quantile(0.7) - tau, rtol=1e-6)
    low, high = spectrum.edges[0], spectrum.edges[-1]
    s = low + (high - low) * np.array([0.2, 0.5, 0.9])
    assert_allclose(spectrum.density(s), free.density(s + tau), rtol=1e-3, atol=1e-4)
    assert_allclose(spectrum.moments(1), flow.long_time(problem).trace[0], rtol=1e-4)


def test_a_semicircle_adds_to_the_noise():
    """A teacher 3 + semicircle: Y is a semicircle of both variances, in closed form."""
    problem = Problem(
        alpha=1.0,
        kappa=1.0,
        kappa_star=1.0,
        noise_var=0.4,
        teacher_spectrum=TEACHER_LAWS["semicircle"],
    )
    found = only(flow.long_time(problem))
    # Nothing is cut: D = 1/2 and R = 4 sigma^2 D as in the case of one atom.
    assert_allclose(found["sigma2"], 0.4 / 2, rtol=1e-10)
    assert_allclose(found["overlap"], 9.5, rtol=1e-10)
    assert_allclose(found["trace"], 3.0, rtol=1e-10)


def test_teachers_at_little_noise():
    """Gaps of a discrete teacher that open as sigma -> 0."""
    law = TEACHER_LAWS["three atoms"]
    problem = Problem(
        alpha=1.0, kappa=0.5, kappa_star=1.0, noise_var=1e-3, ridge=1e-3, teacher_spectrum=law
    )
    roots = flow.long_time(problem)
    assert_solutions(roots, problem, teacher=plain_law("three atoms"), rtol=1e-8, n=60)
    assert_allclose(roots.rank, 0.5, rtol=1e-12)


# Arguments.


@pytest.mark.parametrize("branch", ["upper", "", None, 0])
def test_branch_is_checked(branch):
    problem = Problem(alpha=0.3, kappa=0.5, kappa_star=0.2)
    with pytest.raises((ValueError, TypeError), match=r"^branch must be .*(all|stable|largest)"):
        flow.long_time(problem, branch=branch)


def test_root_is_checked():
    problem = Problem(alpha=0.19, kappa=0.2, kappa_star=0.2, ridge=1e-4)
    atoms = [flow.spectrum(problem, root=root).atoms for root in (0, 1, 2)]
    assert [flow.spectrum(problem, root=root).atoms for root in (-3, -2, -1)] == atoms
    for root in (3, -4, 70):
        with pytest.raises(ValueError, match=rf"^root must be .*{root}"):
            flow.spectrum(problem, root=root)
    for wrong in (0.5, "0", True):
        with pytest.raises(TypeError, match=r"^root must be"):
            flow.spectrum(problem, root=wrong)


@pytest.mark.parametrize("sigma2", [[-1.0], [0.5, math.nan], [[1.0]], [math.inf]])
def test_sigma2_is_checked(sigma2):
    problem = Problem(alpha=0.3, kappa=0.5, kappa_star=0.2)
    with pytest.raises(ValueError, match=r"^sigma2 must"):
        flow.curve(problem, sigma2)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (flow.recovery_threshold, {"kappa": 0.5, "kappa_star": 0.2}),
        (flow.interpolation_threshold, {"kappa": 0.5, "kappa_star": 0.2, "noise_var": 0.1}),
        (flow.unique_threshold, {"kappa_star": 0.2}),
        (flow.saturation_width, {"kappa_star": 0.2}),
        (flow.bayes_risk, {"alpha": 0.3, "kappa_star": 0.2, "noise_var": 0.1}),
    ],
)
def test_numbers_are_checked(function, arguments):
    for name in arguments:
        wrong = (-0.1, math.nan, math.inf) + (() if name == "noise_var" else (0.0,))
        for value in wrong:
            with pytest.raises(ValueError, match=rf"^{name} must be .*{value}"):
                function(**arguments | {name: value})
        with pytest.raises(TypeError, match=rf"^{name} must be"):
            function(**arguments | {name: "1"})
    assert type(function(**arguments)) is float


def test_words_are_checked():
    with pytest.raises(ValueError, match=r"^ridge must be .*vanishing"):
        flow.recovery_threshold(0.5, 0.2, ridge="small")
    with pytest.raises(ValueError, match=r"^teacher_scale must be"):
        flow.bayes_risk(0.3, 0.2, 0.1, teacher_scale=0.0)
    for function in (flow.long_time, flow.spectrum, flow.optimal_ridge):
        with pytest.raises(TypeError, match=r"^problem must be"):
            function({"alpha": 0.3})


# ---- the network itself --------------------------------------------------------------------------

SENSING = ["network", "goe"]
# Samples that fill no block, tiles with a rest, and both sides of n = d (d + 1)/2.
SIZES = [(0.3, 1.0, 7), (0.4, 0.7, 13), (0.9, 1.4, 13), (0.45, 0.2, 17), (0.7, 0.5, 37)]


def network(problem, dim, sensing="goe", teacher="random", *, seed=0, replica=0, threads=1):
    """One replica of a simulation."""
    _blas.load()
    sequence = np.random.SeedSequence(seed)
    experiment = flow._experiment(problem, dim, sensing, teacher, sequence)
    return _core.Network(experiment.core, replica, threads)


@pytest.fixture
def noisy():
    return Problem(alpha=0.4, kappa=0.5, kappa_star=0.3, noise_var=0.3, ridge=0.1)


def simulated(result):
    """The four fields of a simulation, last axis."""
    return np.stack([result.risk, result.train_risk, result.trace, result.overlap], axis=-1)


@pytest.mark.parametrize("sensing", SENSING)
def test_samples_have_the_law_of_the_model(noisy, sensing):
    """Variance 1/d off the diagonal and 2/d on it; labels of the teacher, with the noise."""
    d, replicas = 9, 60
    problem = noisy.replace(alpha=2.0)
    X, noise, traces = [], [], []
    for replica in range(replicas):
        net = network(problem, d, sensing, replica=replica)
        matrices, labels = net.samples()
        assert_allclose(matrices, matrices.transpose(0, 2, 1))
        noise.append(labels - np.einsum("nij,ij->n", matrices, net.teacher))
        X.append(matrices)
        traces.append(np.trace(net.teacher) / d)
    X, noise = np.concatenate(X), np.concatenate(noise)
    i, j = np.triu_indices(d)
    for values, expected in (
        (X[:, i, j].mean(axis=1), 0.0),
        ((X[:, i, j] ** 2 * np.where(i == j, 0.5, 1.0)).mean(axis=1), 1 / d),
        (noise, 0.0),
        (noise**2, problem.noise_var),
        (np.array(traces), 1.0),
    ):
        error = values.std(ddof=1) / math.sqrt(len(values))
        assert abs(values.mean() - expected) < cases.standard_errors(1, len(values)) * error
    if sensing == "network":
        x = X + np.eye(d) / math.sqrt(d)
        assert np.linalg.matrix_rank(x).max() == 1
    else:
        assert abs(np.corrcoef(X[:, 0, 1], X[:, 0, 2])[0, 1]) < 4 / math.sqrt(len(X))


@pytest.mark.parametrize("sensing", SENSING)
@pytest.mark.parametrize(("alpha", "kappa", "dim"), SIZES)
def test_the_gradient_is_that_of_the_loss(noisy, sensing, alpha, kappa, dim):
    problem = noisy.replace(alpha=alpha, kappa=kappa)
    net = network(problem, dim, sensing, replica=3)
    X, y = net.samples()
    W = net.start(1)
    assert W.shape == (dim, math.floor(kappa * dim + 0.5))
    train_risk, gradient = net.loss_gradient(W)
    assert_allclose(train_risk, np.mean(naive.empirical_residuals(W, X, y) ** 2), rtol=1e-13)
    assert_allclose(gradient, naive.empirical_gradient(W, X, y, problem.ridge), atol=1e-13)
    fields = net.measure(W, train_risk)
    assert_allclose(fields[:4], naive.empirical_fields(W, net.teacher, X, y), rtol=1e-12)
    assert_allclose(fields[4:], np.linalg.eigvalsh(W @ W.T), atol=1e-12)
    # Central differences of the loss in a random direction.
    direction = np.random.default_rng(0).standard_normal(W.shape)
    step = 1e-5
    ends = [naive.empirical_loss(W + s * direction, X, y, problem.ridge) for s in (step, -step)]
    assert_allclose(np.sum(gradient * direction), (ends[0] - ends[1]) / (2 * step), rtol=1e-7)


@pytest.mark.parametrize("sensing", SENSING)
@pytest.mark.parametrize(("alpha", "dim"), [(0.45, 60), (0.8, 51)])
def test_threads_change_no_bit_of_a_large_gradient(noisy, sensing, alpha, dim):
    problem = noisy.replace(alpha=alpha, kappa=0.9)
    alone = network(problem, dim, sensing)
    W = alone.start(0)
    for threads in (2, 5):
        shared = network(problem, dim, sensing, threads=threads)
        assert bits(shared.loss_gradient(W)) == bits(alone.loss_gradient(W))


def test_starts_and_teachers_are_gaussian(noisy):
    """Each replica and each attempt has its own, of the variances of the model."""
    problem = noisy.replace(init_scale=1.7, teacher_scale=0.6)
    nets = [network(problem, 20, replica=replica) for replica in range(200)]
    starts = np.array([net.start(attempt).ravel() for net in nets for attempt in (0, 1)])
    assert stats.kstest(starts.ravel() * math.sqrt(10) / 1.7, "norm").pvalue > FALSE_ALARM
    assert abs(np.corrcoef(starts)[np.triu_indices(400, 1)]).max() < 0.5
    eigenvalues = np.linalg.eigvalsh([net.teacher for net in nets])
    assert_allclose(eigenvalues[:, :14], 0.0, atol=1e-13)
    # tr S* is a d/(m* d) times a chi-square with m* d degrees of freedom.
    traces = eigenvalues.sum(axis=1) * 6 / 0.6
    assert stats.kstest(traces, stats.chi2(6 * 20).cdf).pvalue > FALSE_ALARM


@pytest.mark.parametrize("sensing", SENSING)
def test_gradient_descent_step_by_step(noisy, sensing):
    rates = 0.02 / (1 + np.arange(12))
    net = network(noisy, 11, sensing, seed=4)
    X, y = net.samples()
    W, expected = net.start(0), []
    for rate in (*rates, 0.0):
        expected.append(naive.empirical_fields(W, net.teacher, X, y))
        W = W - rate * naive.empirical_gradient(W, X, y, noisy.ridge)
    times = np.concatenate([[0.0], np.cumsum(rates)])
    result = flow.simulate(noisy, times, dim=11, lr=rates, sensing=sensing, seed=4)
    assert_allclose(simulated(result)[0], expected, rtol=1e-12)
    some = flow.simulate(noisy, times[[3, 7]], dim=11, lr=rates.tolist(), sensing=sensing, seed=4)
    assert_array_equal(simulated(some), simulated(result)[:, [3, 7]])


def test_a_constant_schedule_is_a_learning_rate(noisy):
    one = flow.simulate(noisy, [0.0, 0.1, 0.5], dim=10, lr=0.01, replicas=2)
    other = flow.simulate(noisy, [0.0, 0.1, 0.5], dim=10, lr=[0.01] * 60, replicas=2)
    assert_array_equal(simulated(one), simulated(other))


@pytest.mark.parametrize("sensing", SENSING)
def test_small_steps_follow_the_flow(noisy, sensing):
    """Descent is off by a term of first order in its step, which two steps extrapolate away."""
    run = {"problem": noisy, "t": [0.0, 0.5, 2.0, 8.0], "dim": 12, "sensing": sensing}
    exact = simulated(flow.simulate(**run, rtol=1e-10))
    steps = [simulated(flow.simulate(**run, lr=lr)) for lr in (2e-3, 1e-3)]
    errors = [np.abs(step - exact).max(axis=1) for step in steps]
    assert_allclose(errors[0], 2 * errors[1], rtol=0.2)
    assert_allclose(2 * steps[1] - steps[0], exact, rtol=2e-4)


@pytest.mark.parametrize("ridge", [0.0, 0.05])
def test_the_flow_is_accurate_at_long_times(noisy, ridge):
    """At t = 1000 to 1e-4 with a twentieth of the gradients of Euler's method of step 5e-3."""
    run = {"problem": noisy.replace(ridge=ridge), "t": [10.0, 100.0, 1000.0], "dim": 30}
    exact = flow.simulate(**run, rtol=1e-9)
    result = flow.simulate(**run, rtol=1e-4)
    assert_allclose(result.risk, exact.risk, rtol=1e-4)
    assert result.stats["gradients"] * 20 < 1000 / 5e-3


def test_first_values_have_their_means():
    """R_0, T_0 = R_0 + Delta, at any d: E tr S^2/d = s0^4 (1 + (d + 1)/m), S* likewise."""
    problem = Problem(
        alpha=0.4,
        kappa=0.5,
        kappa_star=0.25,
        noise_var=0.7,
        init_scale=1.3,
        teacher_scale=0.8,
    )
    d, m, m_star, replicas = 12, 6, 3, 2000
    s1, a = 1.3**2, 0.8
    risk = 2 * (s1**2 * (1 + (d + 1) / m) + a**2 * (1 + (d + 1) / m_star) - 2 * s1 * a)
    expected = [risk, risk + 0.7, s1, s1 * a]
    for sensing in SENSING:
        result = flow.simulate(problem, [0.0], dim=d, lr=0.01, sensing=sensing, replicas=replicas)
        values = simulated(result)[:, 0]
        errors = values.std(axis=0, ddof=1) / math.sqrt(replicas)
        within = cases.standard_errors(8, replicas)
        assert (np.abs(values.mean(axis=0) - expected) < within * errors).all()


def test_the_first_step_has_its_mean_trace(noisy):
    """Given W and S*, at any d: E G = A, E G^2 = (1 + 1/n) A^2 + (d^2/4n)(1 + 1/d)(R + Delta) I."""
    d, lr, lam, replicas = 10, 0.02, noisy.ridge, 1000
    result = flow.simulate(noisy, [0.0, lr], dim=d, lr=lr, sensing="goe", replicas=replicas)
    n, excess = result.stats["n"], []
    for replica in range(replicas):
        net = network(noisy, d, replica=replica)
        W = net.start(0)
        S = W @ W.T
        A = S - net.teacher
        noise = d**2 / (4 * n) * (1 + 1 / d) * (2 / d * np.sum(A**2) + noisy.noise_var)
        square = (1 + 1 / n) * A @ A + noise * np.eye(d) + 2 * lam * A + lam**2 * np.eye(d)
        mean = np.trace(S) - 2 * lr * np.trace(S @ A + lam * S) + lr**2 * np.trace(S @ square)
        excess.append(result.trace[replica, 1] - mean / d)
    error = np.std(excess, ddof=1) / math.sqrt(replicas)
    assert abs(np.mean(excess)) < cases.standard_errors(1, replicas) * error


def test_many_samples_give_the_oja_flow():
    """The gradient's noise is sigma = sqrt(R/(4 alpha)), here 1e-2."""
    problem = Problem(alpha=20_000.0, kappa=0.8, kappa_star=0.6)
    net = network(problem, 5)
    times = [0.0, 0.3, 1.0, 3.0]
    result = flow.simulate(problem, times, dim=5, rtol=1e-7, sensing="goe")
    for i, t in enumerate(times):
        S = naive.oja_flow(net.start(0), net.teacher, t)
        expected = 2 / 5 * np.sum((S - net.teacher) ** 2)
        assert_allclose(result.risk[0, i], expected, rtol=0.02)
        assert_allclose(result.trace[0, i], np.trace(S) / 5, rtol=0.02)


@pytest.mark.parametrize("sensing", SENSING)
@pytest.mark.parametrize("teacher", ["random", "quantile"])
def test_scaling_invariance(noisy, sensing, teacher):
    """(S, S*) -> g (S, S*), Delta -> g^2 Delta, lam -> g lam, time -> time/g (section 1)."""
    g = 4.0
    scaled = noisy.replace(
        init_scale=2.0, teacher_scale=g, noise_var=g**2 * noisy.noise_var, ridge=g * noisy.ridge
    )
    t = np.array([0.0, 0.5, 2.0])
    run = {"dim": 10, "sensing": sensing, "teacher": teacher, "replicas": 2}
    powers = g ** np.array([2, 2, 1, 2])
    # The integrator's first step has a scale of its own.
    for numerics, other, rtol in (
        ({"rtol": 1e-9}, {"rtol": 1e-9}, 1e-6),
        ({"lr": 0.02}, {"lr": 0.02 / g}, 1e-11),
    ):
        one = simulated(flow.simulate(noisy, t, **run, **numerics))
        two = simulated(flow.simulate(scaled, t / g, **run, **other))
        assert_allclose(two, powers * one, rtol=rtol)


def test_eigenvalues(noisy):
    result = flow.simulate(noisy, [0.0, 1.0, 50.0], dim=13, rtol=1e-6, replicas=3, eigenvalues=True)
    assert result.eigenvalues.shape == (3, 3, 13)
    assert (result.eigenvalues[..., :6] == 0).all()
    assert (np.diff(result.eigenvalues) >= 0).all()
    assert_allclose(result.eigenvalues.mean(axis=2), result.trace, rtol=1e-12)
    W = network(noisy, 13, "network", replica=2).start(0)
    assert_allclose(result.eigenvalues[2, 0], np.linalg.eigvalsh(W @ W.T), atol=1e-12)
    assert flow.simulate(noisy, [0.0], dim=13, rtol=1e-6).eigenvalues is None


TEACHERS = {
    "low rank": {"kappa_star": 0.3, "teacher_scale": 1.4},
    "square": {"kappa_star": 1.0},
    "atoms": {"teacher_spectrum": spectra.discrete([0.0, 0.5, 3.0], [0.45, 0.3, 0.25])},
    "gap": {"teacher_spectrum": spectra.free_sum(spectra.discrete([2.0, 8.0], [0.6, 0.4]), 0.25)},
}


@pytest.mark.parametrize("name", TEACHERS)
@pytest.mark.parametrize("dim", [1, 4, 7])
def test_quantile_teachers(name, dim):
    problem = Problem(**{"alpha": 0.3, "kappa": 0.5, "kappa_star": 0.5, **TEACHERS[name]})
    law = problem.teacher_law
    values = flow.teacher_eigenvalues(problem, dim)
    assert_allclose(values.mean(), law.moments(1), rtol=1e-9)
    assert_allclose(values, naive.quantile_teacher(law.quantile, dim), rtol=1e-4, atol=1e-6)
    S_star = network(problem, max(dim, 4), teacher="quantile").teacher
    assert_array_equal(S_star, np.diag(flow.teacher_eigenvalues(problem, max(dim, 4))))
    many = flow.teacher_eigenvalues(problem, 400)
    assert_allclose(np.mean(many**2), law.moments(2), rtol=2e-3)


def test_a_spectrum_replaces_the_random_teacher(noisy):
    law = spectra.discrete([0.0, 2.0], [0.5, 0.5])
    problem = noisy.replace(teacher_spectrum=law, kappa_star=1e-9)
    runs = [
        flow.simulate(problem, [0.0, 1.0], dim=10, lr=0.02, teacher=teacher, replicas=2)
        for teacher in ("random", "quantile")
    ]
    assert_array_equal(simulated(runs[0]), simulated(runs[1]))
    assert runs[0].stats.keys() >= {"n", "m"}
    assert "m_star" not in runs[0].stats
    assert_allclose(network(problem, 10).teacher, np.diag([0.0] * 5 + [2.0] * 5), atol=1e-12)


def test_sizes_are_rounded(noisy):
    result = flow.simulate(noisy, [0.0], dim=11, lr=0.01)
    assert [result.stats[name] for name in ("n", "m", "m_star")] == [48, 6, 3]


def test_rates_beyond_stability(noisy):
    limit = flow.stable_lr(noisy)
    edge = (1 + 1 / math.sqrt(0.3)) ** 2
    assert_allclose(limit, 2 / (2 * edge * (1 + 1 / math.sqrt(0.8)) ** 2 + 0.1), rtol=1e-12)
    below = flow.simulate(noisy, np.arange(40) * limit, dim=20, lr=limit, replicas=4)
    assert (np.diff(below.train_risk) < 0).all()
    with pytest.warns(UserWarning, match=rf"^lr must be below about {limit:.3g} for gradient"):
        flow.simulate(noisy, [0.0, 1.01 * limit], dim=20, lr=1.01 * limit)
    # No step takes the last rate of all.
    flow.simulate(noisy, [0.0, 0.01], dim=10, lr=[0.01, 5.0])
    flow.dmft(noisy, [0.0], dim=10, lr=5.0)
    with pytest.warns(UserWarning, match="lr must"), pytest.raises(op.ConvergenceError) as caught:
        flow.simulate(noisy, [0.0, 0.5, 50.0], dim=10, lr=0.5, replicas=3)
    partial = caught.value.result
    assert partial.status is Status.DIVERGED
    assert partial.diverged.all()
    assert partial.t.tolist() == [0.0, 0.5]
    assert np.isfinite(simulated(partial)).all()


@pytest.mark.parametrize(
    ("changes", "arguments", "name"),
    [
        ({"alpha": 0.009}, {}, "alpha"),
        ({"kappa": 0.09}, {}, "kappa"),
        ({"kappa_star": 0.09}, {}, "kappa_star"),
        ({}, {"t": [0.0, 0.105]}, "t"),
        ({}, {"lr": [0.01, 0.02]}, "t"),
        ({}, {"t": [0.02], "lr": [0.01, 0.02]}, "t"),
        ({}, {"lr": [0.01, -0.02]}, "lr"),
        ({}, {"lr": [[0.01]]}, "lr"),
        ({}, {"lr": []}, "lr"),
        ({}, {"lr": None}, "lr"),
        ({}, {"rtol": 1e-6}, "lr"),
    ],
)
def test_what_cannot_be_simulated(noisy, changes, arguments, name):
    run = {"t": [0.0, 0.1], "dim": 10, "lr": 0.01, **arguments}
    with pytest.raises(ValueError, match=rf"^{name} must be "):
        flow.simulate(noisy.replace(**changes), **run)


@pytest.mark.parametrize("function", [flow.simulate, flow.dmft])
def test_counts_beyond_all_bounds(noisy, function):
    arguments = {"t": [0.0, 0.02], "lr": 0.02}
    for name in ("alpha", "kappa", "kappa_star"):
        if name == "alpha" and function is flow.dmft:
            continue  # it has no samples
        with pytest.raises(ValueError, match=rf"^{name} must be below \S+ at dim = 10, but was 1"):
            function(noisy.replace(**{name: 1e30}), **arguments, dim=10)
    with pytest.raises(ValueError, match=r"^dim must be less than 2147483648, but was 1"):
        function(noisy, **arguments, dim=10**20)
    for changes, dim in (({}, 10**9), ({"kappa_star": 1e7}, 200), ({"kappa": 1e7}, 200)):
        with pytest.raises(MemoryError, match="GiB are free; reduce"):
            function(noisy.replace(**changes), **arguments, dim=dim, teacher="random")
    with pytest.raises(MemoryError, match="GiB are free; reduce"):
        function(noisy, **arguments, dim=10**9, teacher="quantile")


def test_max_steps_is_not_ignored(noisy):
    with pytest.raises(ValueError, match=r"^max_steps must be None for gradient descent"):
        flow.simulate(noisy, [0.0], dim=10, lr=0.01, max_steps=5)


def test_sizes_at_the_limit_are_accepted():
    problem = Problem(alpha=1 / 49**2, kappa=1 / 49, kappa_star=1 / 49)
    assert flow.simulate(problem, [0.0], dim=49, lr=1e-5).stats["n"] == 1


@pytest.mark.parametrize("sensing", SENSING)
def test_a_dimension_beyond_memory_is_refused(noisy, sensing):
    with pytest.raises(MemoryError, match="reduce replicas, the times in t, dim"):
        flow.simulate(noisy, [0.0], dim=100_000, lr=0.01, sensing=sensing)


@pytest.mark.parametrize("sensing", SENSING)
def test_the_minimum_is_the_end_of_the_flow(noisy, sensing):
    """A ridge that makes the flow converge fast; at kappa = 1.2 there is one minimum."""
    problem = noisy.replace(kappa=1.2, ridge=0.4)
    run = {"problem": problem, "dim": 12, "sensing": sensing, "replicas": 2, "seed": 3}
    end = flow.simulate(t=[3000.0], rtol=1e-8, eigenvalues=True, **run)
    found = flow.minimise(**run)
    assert found.status is Status.SUCCESS
    assert found.stable.all()
    assert found.stats["converged"] == 2
    assert found.stats["gradient"] <= 1e-8
    for name in ("risk", "train_risk", "trace", "overlap"):
        assert_allclose(getattr(found, name), getattr(end, name)[:, 0], rtol=2e-4)
    assert_allclose(found.objective, found.train_risk / 8 + 0.2 * found.trace, rtol=1e-12)
    largest = end.eigenvalues[:, 0, -1:]
    assert_allclose(found.rank, (end.eigenvalues[:, 0] > 1e-4 * largest).mean(axis=1))
    assert_array_equal(found.alpha, [0.4, 0.4])
    assert np.isnan([found.sigma2, found.threshold, found.c]).all()


def test_minima_have_the_replica_axis(noisy):
    problem = noisy.replace(kappa=1.2)
    found = flow.minimise(problem, dim=10, replicas=3)
    assert found.to_xarray()["stable"].dims == ("replica",)
    for reduced in (found.mean(), found.sem(), found.quantile(0.5)):
        assert reduced.stable is True
        assert dict(reduced.to_xarray().sizes) == {}
    loose = flow.minimise(problem, dim=10, replicas=3, max_iterations=1, throw=False)
    assert loose.mean().stable is False
    roots = flow.long_time(Problem(alpha=0.2, kappa=0.2, kappa_star=0.2))
    with pytest.raises(ValueError, match=r"^theory must have .* values of alpha as sampled"):
        op.compare(roots, found)
    single = flow.long_time(problem)
    assert np.isfinite(op.compare(single, found, ["risk"])["z"]).all()


def test_minima_of_the_first_replicas(noisy):
    found = flow.minimise(noisy, dim=15, replicas=3)
    repeated = flow.minimise(noisy, dim=15, replicas=2, threads=2)
    for name in ("risk", "train_risk", "objective"):
        assert_array_equal(getattr(found, name)[:2], getattr(repeated, name))


def test_the_teacher_is_the_minimum_where_it_is_unique(noisy):
    easy = noisy.replace(alpha=0.9, kappa=1.0, noise_var=0.0, ridge=0.0)
    solved = flow.minimise(easy, dim=10, sensing="goe")
    assert solved.risk[0] < 1e-6
    assert solved.train_risk[0] < 1e-6


def test_restarts_lower_the_objective():
    problem = Problem(alpha=0.2, kappa=0.2, kappa_star=0.2, ridge=1e-3)
    run = {"problem": problem, "dim": 20, "sensing": "goe", "replicas": 6}
    once = flow.minimise(**run)
    more = flow.minimise(**run, restarts=4)
    assert (more.objective <= once.objective).all()
    assert (more.objective < 0.9 * once.objective).any()
    assert more.stats["gradients"] > 3 * once.stats["gradients"]


def test_a_minimum_that_is_not_reached_is_flagged(noisy):
    run = {"problem": noisy, "dim": 15, "replicas": 2, "max_iterations": 3}
    with pytest.raises(op.ConvergenceError) as caught:
        flow.minimise(**run)
    partial = caught.value.result
    assert partial.status is Status.NOT_CONVERGED
    assert not partial.stable.any()
    assert partial.stats["converged"] == 0
    assert np.isfinite(partial.risk).all()
    assert partial.stats["gradient"] > 1e-8
    assert_array_equal(flow.minimise(**run, throw=False).risk, partial.risk)


# ---- dynamical mean-field theory -----------------------------------------------------------------

KERNELS = ("correlation", "response", "memory", "residual_correlation")
CURVES = ("risk", "train_risk", "trace", "overlap")
NOISY = Problem(alpha=0.4, kappa=0.6, kappa_star=0.5, noise_var=0.3, ridge=0.1)


def effective(problem, dim, steps, **changes):
    """A run of the core as `dmft` starts it."""
    given = {
        "steps": steps,
        "replicas": 3,
        "groups": 1,
        "probes": 2,
        "momentum": 0.0,
        "lr": np.array([0.03]),
        "ridge": np.array([problem.ridge]),
        "teacher": "quantile",
        "storage": "float64",
        "sequence": np.random.SeedSequence(3),
    }
    run = flow._Effective(problem, dim, **{**given, **changes})
    run.start(1)
    return run


def advance(run, first, count, threads=1):
    with _blas.one_thread():
        return run.model.advance(run.arrays, first, count, threads)


def unpacked(packed, dim):
    """Symmetric matrices from lower triangles by columns, sqrt 2 times off the diagonal."""
    i, j = np.tril_indices(dim)
    order = np.lexsort((i, j))
    i, j = i[order], j[order]
    entries = packed[..., : len(i)] / np.where(i == j, 1.0, math.sqrt(2))
    out = np.zeros((*packed.shape[:-1], dim, dim))
    out[..., i, j] = out[..., j, i] = entries
    return out


def draws_of(run, start):
    """The random numbers that a finished run has used, as naive.dmft takes them."""
    noise, signs, dim = run.arrays["noise"], run.arrays["signs"], run.dim
    replicas, blocks, rows, size = noise.shape
    probes, steps = len(signs) // replicas, signs.shape[1]
    spread = math.sqrt(2 / dim)
    # Four rows in turn, eight entries of each.
    noise = noise.reshape(replicas, blocks, rows // 4, size // 8, 4, 8)
    noise = noise.transpose(0, 2, 4, 1, 3, 5).reshape(replicas, rows, blocks * size)
    bits = signs.reshape(replicas, probes, steps, -1, 1, 8)
    bits = (bits >> np.arange(63, -1, -1, dtype=np.uint64)[:, None]) & np.uint64(1)
    return (
        start.reshape(replicas, -1, dim).swapaxes(1, 2),
        unpacked(run.arrays["teacher"], dim),
        unpacked(spread * noise[:, :steps], dim),
        unpacked(spread * (1.0 - 2.0 * bits.reshape(replicas, probes, steps, -1)), dim),
    )


@pytest.mark.parametrize("teacher", ["quantile", "random"])
@pytest.mark.parametrize(
    ("kappa", "dim", "probes", "momentum", "storage", "rtol"),
    [
        (1.7, 33, 1, 0.0, "float64", 1e-8),
        (0.5, 16, 2, 0.3, "float64", 1e-8),
        (0.8, 5, 3, 0.0, "float64", 1e-8),
        (1.7, 33, 2, 0.3, "float32", 2e-6),
    ],
)
def test_dmft_on_the_same_random_numbers(kappa, dim, probes, momentum, storage, rtol, teacher):
    problem, steps = NOISY.replace(kappa=kappa), 14
    lr, ridge = np.linspace(0.03, 0.01, steps), np.linspace(0.1, 0.2, steps)
    run = effective(
        problem, dim, steps, probes=probes, momentum=momentum, lr=lr, ridge=ridge,
        teacher=teacher, storage=storage,
    )  # fmt: skip
    start = run.arrays["W"][0, :, 0].copy()
    assert advance(run, 0, steps + 1) == steps + 1
    expected = naive.dmft(
        draws_of(run, start), problem.alpha, problem.noise_var, lr, ridge, momentum=momentum
    )
    found = run.fields(steps + 1, np.arange(steps + 1))
    for name in (*KERNELS, "trace", "overlap"):
        scale = np.abs(expected[name]).max()
        assert_allclose(found[name][0], expected[name], rtol=0.0, atol=rtol * scale, err_msg=name)


def test_dmft_draws_have_their_laws():
    """Start, noise and probes of many replicas: first two moments; noise in opposite pairs."""
    dim, replicas, steps = 12, 400, 3
    run = effective(
        NOISY.replace(init_scale=1.3), dim, steps, replicas=replicas, probes=1, teacher="random"
    )
    start = run.arrays["W"][0, :, 0].copy()
    advance(run, 0, steps + 1)
    W, teachers, Z, P = draws_of(run, start)
    assert_array_equal(Z[1::2], -Z[::2])
    P = P[:, 0]
    goe = np.full((dim, dim), 1 / dim) + np.eye(dim) / dim
    m, m_star = W.shape[2], math.floor(NOISY.kappa_star * dim + 0.5)
    z = standard_errors(2, replicas)
    for entries, variance in (
        (W, 1.3**2 / m),
        (Z[::2] / np.sqrt(goe), 1.0),
        (P / np.sqrt(goe), 1.0),
    ):
        means = entries.reshape(len(entries), -1)
        for x, expected in ((means.mean(axis=1), 0.0), ((means**2).mean(axis=1), variance)):
            error = max(x.std(ddof=1) / math.sqrt(len(x)), 1e-14)
            assert abs(x.mean() - expected) < z * error
    assert_allclose(P[0, 0] ** 2, goe)
    second = np.einsum("rij,rij->r", teachers, teachers) / dim
    exact = 1 + (dim + 1) / m_star
    assert abs(second.mean() - exact) < z * second.std(ddof=1) / math.sqrt(replicas)
    # A square root of S_0 stands for more columns.
    wide = effective(NOISY.replace(kappa=3.0), dim, 1, replicas=replicas)
    S = (lambda w: w @ w.swapaxes(1, 2))(draws_of(wide, wide.arrays["W"][0, :, 0])[0])
    for x, mean in (
        (np.trace(S, axis1=1, axis2=2) / dim, 1.0),
        (np.einsum("rij,rij->r", S, S) / dim, 1 + (dim + 1) / (3 * dim)),
    ):
        assert abs(x.mean() - mean) < z * x.std(ddof=1) / math.sqrt(replicas)


def test_dmft_threads_and_slices_change_no_bit(monkeypatch, tmp_path):
    arguments = {"t": [0.0, 0.3, 1.2], "lr": 0.03, "dim": 34, "replicas": 6, "groups": 2}
    arguments |= {"probes": 2, "extrapolate": True, "seed": 4}
    whole = flow.dmft(NOISY, **arguments, threads=1)
    assert bits(flow.dmft(NOISY, **arguments, threads=3)) == bits(whole)
    monkeypatch.setattr(_run, "SLICE", 0.0)
    assert bits(flow.dmft(NOISY, **arguments, threads=2)) == bits(whole)

    def stop(fraction):
        if fraction > 0.7:
            raise KeyboardInterrupt

    file = tmp_path / "run.npz"
    with pytest.raises(KeyboardInterrupt):
        flow.dmft(NOISY, **arguments, checkpoint=file, progress=stop)
    part = op.results.interrupted()
    assert part.status is Status.INTERRUPTED
    rows = len(part.steps)
    assert 0 < rows < len(whole.steps)
    assert_array_equal(part.memory, whole.memory[:rows, :rows])
    assert_array_equal(part.risk[:2], whole.risk[:2])
    assert bits(flow.dmft(NOISY, **arguments, checkpoint=file)) == bits(whole)
    with pytest.raises(ValueError, match="checkpoint"):
        flow.dmft(NOISY, **{**arguments, "probes": 1}, checkpoint=file)


def test_dmft_recorded_times_change_nothing():
    few = flow.dmft(NOISY, [0.6], lr=0.03, dim=20)
    all_steps = flow.dmft(NOISY, 0.03 * np.arange(21), lr=0.03, dim=20)
    assert_array_equal(few.memory, all_steps.memory)
    assert few.risk[0] == all_steps.risk[-1]
    assert_array_equal(all_steps.risk, np.diagonal(all_steps.correlation))
    assert_array_equal(all_steps.train_risk, np.diagonal(all_steps.residual_correlation))
    assert_allclose(all_steps.t, all_steps.step_times, rtol=1e-12)
    assert_allclose(few.memory_sum, few.memory.sum(axis=1), rtol=1e-13)


def test_dmft_structure_of_kernels():
    """Of one group, whose kernels belong together."""
    run = flow.dmft(NOISY, [0.9], lr=0.03, dim=24, groups=1)
    T = len(run.steps)
    chi, M, C, Cr = run.response, run.memory, run.correlation, run.residual_correlation
    assert_array_equal(np.triu(chi), 0.0)
    assert_array_equal(np.triu(M), np.eye(T))
    assert_allclose(M @ (np.eye(T) - chi / NOISY.alpha), np.eye(T), atol=1e-13)
    assert_array_equal(C, C.T)
    assert_array_equal(Cr, Cr.T)
    assert_allclose(Cr, M @ (C + NOISY.noise_var) @ M.T, rtol=1e-10)
    assert (np.diagonal(chi, -1) < 0).all()
    for kernel in (C, Cr):
        values = np.linalg.eigvalsh(kernel)
        assert values[0] > -1e-12 * values[-1]
    for name in (*CURVES, *KERNELS, "memory_sum"):
        assert np.isnan(getattr(run, f"{name}_sem")).all()


@pytest.mark.parametrize("entry", REFERENCE["one_step_exact"], ids=str)
def test_dmft_first_step_in_closed_form(entry):
    """Extrapolated to infinite size, within the errors that the run reports."""
    problem, eta = read(entry), entry["eta"]
    run = flow.dmft(
        problem, [0.0, eta], lr=eta, dim=60, replicas=64, groups=32, extrapolate=True, seed=8
    )
    z = standard_errors(5, 32)
    for found, error, expected in (
        (run.risk[0], run.risk_sem[0], entry["R0"]),
        (run.train_risk[0], run.train_risk_sem[0], entry["train0"]),
        (run.trace[0], run.trace_sem[0], entry["trS0"]),
        (run.trace[1], run.trace_sem[1], entry["trS1"]),
        (run.response[1, 0], run.response_sem[1, 0], entry["chi10"]),
        (run.memory[1, 0], run.memory_sem[1, 0], entry["M10"]),
    ):
        # What is left after the term of order 1/d: a few times (1/30)(1/60).
        assert abs(found - expected) < z * error + 2e-3 * abs(expected)
        assert error < 0.02 * abs(expected)


@pytest.mark.parametrize("entry", REFERENCE["dynamics"], ids=lambda e: str(e["kappa"]))
def test_dmft_reference_curves(entry):
    problem, eta = read(entry), entry["eta"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        run = flow.dmft(problem, eta * np.array(entry["t"]), lr=eta, dim=50, groups=2, seed=2)
    expected, tolerance = entry["dmft_100"], entry["tolerance"]
    train = np.array(expected["train_mse"]["mean"])
    late = train < 0.02 * train[0]
    limits = np.where(late, tolerance["train_rel_when_below_2pct_of_initial"], 0.0)
    limits = np.maximum(limits, tolerance["train_rel"])
    for found, name, limit in (
        (run.risk, "R", tolerance["R_rel"]),
        (run.train_risk, "train_mse", limits),
        (run.trace, "trS_over_d", tolerance["trS_rel"]),
    ):
        difference = found / np.array(expected[name]["mean"]) - 1.0
        assert (np.abs(difference) < limit).all(), (name, difference)


def test_dmft_without_sampling_noise_is_gradient_descent():
    """alpha to infinity: no memory, no noise; steps on the population risk, with momentum."""
    problem = Problem(alpha=1e30, kappa=0.5, kappa_star=0.5, ridge=0.2, init_scale=0.7)
    dim, steps, lr, momentum = 16, 30, 0.05, 0.4
    run = effective(problem, dim, steps, replicas=1, momentum=momentum, lr=np.array([lr]))
    W, teachers, _, _ = draws_of(run, run.arrays["W"][0, :, 0].copy())
    advance(run, 0, steps + 1)
    found = run.fields(steps + 1, np.arange(steps + 1))
    W, before, risks = W[0], W[0], []
    for _ in range(steps + 1):
        error = W @ W.T - teachers[0]
        risks.append(2 / dim * np.sum(error**2))
        step = lr * (error + 0.2 * np.eye(dim)) @ W
        W, before = W + momentum * (W - before) - step, W
    assert_allclose(found["risk"][0], risks, rtol=1e-11)
    assert_allclose(found["train_risk"][0], risks, rtol=1e-11)
    assert_allclose(found["memory"][0], np.eye(steps + 1), atol=1e-25)


def test_dmft_large_alpha_is_the_oja_flow():
    """The closed solution in continuous time, from two step lengths."""
    problem = Problem(alpha=1e30, kappa=1.5, kappa_star=0.5)
    dim, time = 12, 1.0
    risks = []
    for steps in (200, 400):
        run = effective(problem, dim, steps, replicas=1, lr=np.array([time / steps]), probes=1)
        W, teachers, _, _ = draws_of(run, run.arrays["W"][0, :, 0].copy())
        advance(run, 0, steps + 1)
        risks.append(run.fields(steps + 1, np.array([steps]))["risk"][0, 0])
    s = np.diagonal(teachers[0])
    grown = np.exp(s * time)[:, None] * W[0]
    rate = np.where(s > 0, np.expm1(2 * s * time) / np.where(s > 0, s, 1.0), 2 * time)
    inner = np.eye(W.shape[2]) + W[0].T @ (rate[:, None] * W[0])
    S = grown @ np.linalg.solve(inner, grown.T)
    exact = 2 / dim * np.sum((S - np.diag(s)) ** 2)
    assert_allclose(2 * risks[1] - risks[0], exact, rtol=2e-4)


def test_dmft_units():
    """Scales of teacher, start, noise and time can be traded for each other."""
    run = flow.dmft(NOISY, [0.3, 0.9], lr=0.03, dim=20)
    g = 4.0
    scaled = NOISY.replace(
        teacher_scale=g, init_scale=math.sqrt(g), noise_var=0.3 * g**2, ridge=0.1 * g
    )
    other = flow.dmft(scaled, [0.3 / g, 0.9 / g], lr=0.03 / g, dim=20)
    assert_allclose(other.correlation, g**2 * run.correlation, rtol=1e-9)
    assert_allclose(other.response, run.response, rtol=1e-7, atol=1e-12)
    assert_allclose(other.trace, g * run.trace, rtol=1e-9)


def test_dmft_schedules():
    plain = flow.dmft(NOISY, [0.6], lr=0.03, dim=20)
    listed = flow.dmft(NOISY, [0.6], lr=[0.03] * 20, ridges=[0.1, 0.1], dim=20)
    assert_array_equal(listed.correlation, plain.correlation)
    assert_allclose(listed.step_times, plain.step_times, rtol=1e-13)
    ridges = flow.dmft(NOISY.replace(ridge=0.0), [0.6], lr=0.03, ridges=[0.1], dim=20)
    assert_array_equal(ridges.memory, plain.memory)
    uneven = flow.dmft(NOISY, [0.06, 0.1, 0.12], lr=[0.03, 0.03, 0.02, 0.02, 0.02], dim=20)
    assert_array_equal(uneven.correlation[:3, :3], plain.correlation[:3, :3])
    assert_allclose(uneven.step_times, [0.0, 0.03, 0.06, 0.08, 0.1, 0.12][: len(uneven.steps)])
    assert uneven.risk[1] == uneven.correlation[4, 4]


def test_dmft_single_precision_is_close():
    double = flow.dmft(NOISY, [1.2], lr=0.03, dim=40)
    single = flow.dmft(NOISY, [1.2], lr=0.03, dim=40, storage="float32")
    assert single.stats["memory_gib"] < 0.7 * double.stats["memory_gib"]
    for name in KERNELS:
        one, other = getattr(single, name), getattr(double, name)
        difference = np.abs(one - other).max() / np.abs(other).max()
        assert 0.0 < difference < 2e-6


def test_dmft_groups_are_independent_runs():
    """Each has kernels of its own; the mean over groups is reported with its error."""
    run = effective(NOISY, 20, 10, replicas=6, groups=3, probes=1)
    advance(run, 0, 11)
    result = flow.dmft(
        NOISY, [0.3], lr=0.03, dim=20, replicas=6, groups=3, seed=np.random.SeedSequence(3)
    )
    by_group = run.fields(11, np.array([10]))
    assert len(np.unique(by_group["memory"][:, 10, 0])) == 3
    for name, values in by_group.items():
        assert_array_equal(getattr(result, name), values.mean(axis=0))
        error = values.std(axis=0, ddof=1) / math.sqrt(3)
        assert_array_equal(getattr(result, f"{name}_sem"), error)
    for group in range(3):
        kernels = {name: by_group[name][group] for name in KERNELS}
        filtered = kernels["memory"] @ (kernels["correlation"] + 0.3) @ kernels["memory"].T
        assert_allclose(kernels["residual_correlation"], filtered, rtol=1e-10)


def test_dmft_extrapolation():
    arguments = {"t": [0.0, 0.3], "lr": 0.03, "replicas": 4}
    both = flow.dmft(NOISY, **arguments, dim=40, extrapolate=True)
    assert both.stats["dim_coarse"] == 20
    small, large = (flow.dmft(NOISY, **arguments, dim=dim) for dim in (20, 40))
    for name in (*CURVES, *KERNELS):
        expected = 2 * getattr(large, name) - getattr(small, name)
        assert_allclose(getattr(both, name), expected, rtol=1e-12, atol=1e-15)
    effect = np.abs(both.risk / large.risk - 1.0).max()
    assert_allclose(both.stats["size_effect"], effect, rtol=1e-9)
    # Sizes at which the widths are rounded least.
    third = NOISY.replace(kappa=1 / 3)
    odd = flow.dmft(third, [0.04], lr=0.02, replicas=4, dim=45, extrapolate=True)
    assert odd.stats["dim_coarse"] == 24


def test_dmft_finds_its_mean_field():
    """Stein's identity, which ties response, correlation and noise together."""
    run = flow.dmft(NOISY, [0.9], lr=0.03, dim=60, replicas=16, groups=1, probes=2)
    assert 0.0 < run.stats["stein_deviation"] < 0.05
    wrong = effective(NOISY, 60, 30, replicas=16, probes=2)
    advance(wrong, 0, 31)
    wrong.arrays["response"] *= 1.1
    assert wrong.stein_deviation(31) > 0.07


def test_dmft_against_gradient_descent():
    """GOE sensing at the same size: what finite size leaves is below 6 %."""
    t = np.array([0.0, 0.3, 0.9, 2.4])
    theory = flow.dmft(NOISY, t, lr=0.03, dim=32, replicas=16, seed=2)
    sampled = flow.simulate(
        NOISY, t, dim=32, lr=0.03, sensing="goe", teacher="quantile", replicas=32
    )
    table = op.compare(theory, sampled, fields=CURVES)
    z = standard_errors(len(table["z"]), 32)
    sem, difference = table["sem"], np.abs(table["mean"] - table["theory"])
    assert (difference < z * sem + 0.06 * table["theory"]).all()
    # The error of the difference has that of the theory in it.
    expected = np.hypot(sampled.sem().risk, theory.risk_sem)
    assert_allclose(sem[[name == "risk" for name in table["field"]]], expected)


def test_dmft_divergence():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        with pytest.raises(op.ConvergenceError) as caught:
            flow.dmft(NOISY, [0.0, 1.0, 200.0], lr=1.0, dim=16)
        partial = caught.value.result
        returned = flow.dmft(NOISY, [0.0, 1.0, 200.0], lr=1.0, dim=16, throw=False)
    assert partial.status is Status.DIVERGED
    assert_array_equal(partial.t, [0.0, 1.0])
    assert 2 <= len(partial.steps) < 20
    for name in KERNELS:
        assert np.isfinite(getattr(partial, name)).all()
    assert bits(returned) == bits(partial)
    with pytest.warns(UserWarning, match="lr must be below"):
        flow.dmft(NOISY, [1.0], lr=1.0, dim=16, groups=1)


def test_dmft_divergence_of_an_extrapolation():
    """The rows that both sizes reach are kept."""
    arguments = {"problem": NOISY, "t": [0.0, 1.0, 2.0, 200.0], "lr": 1.0, "throw": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        both = flow.dmft(**arguments, dim=20, extrapolate=True)
        small, large = (flow.dmft(**arguments, dim=dim) for dim in (10, 20))
    assert both.status is Status.DIVERGED
    assert len(both.steps) == min(len(small.steps), len(large.steps)) >= 3
    assert_array_equal(both.t, [0.0, 1.0, 2.0])
    assert_allclose(both.risk, 2.0 * large.risk - small.risk, rtol=1e-9)


def test_dmft_warns_of_probe_noise():
    with pytest.warns(UserWarning, match=r"noise of the measured response makes up .* at t = 9"):
        run = flow.dmft(NOISY.replace(noise_var=0.0, ridge=0.0), [3.0, 9.0], lr=0.03, dim=10)
    assert run.stats["probe_noise"] > 0.25
    quiet = flow.dmft(NOISY, [3.0], lr=0.03, dim=40, groups=1)
    assert quiet.stats["probe_noise"] == 0.0


def test_dmft_memory(monkeypatch):
    monkeypatch.setattr(_check, "available_memory", lambda: 2**30)
    with pytest.raises(MemoryError, match=r"the history would take .* GiB.*\(\d+ fit\)") as caught:
        flow.dmft(NOISY, [300.0], lr=0.01, dim=100)
    fitting = int(re.search(r"(\d+) fit\)", str(caught.value))[1])
    run = effective(NOISY, 100, 0, replicas=8, groups=4, probes=1)
    assert run.nbytes(fitting) <= 2**30 < run.nbytes(fitting + 1)
    monkeypatch.setattr(_check, "available_memory", lambda: 24 * 2**30)
    with pytest.raises(MemoryError):
        flow.dmft(NOISY, [3000.0], lr=0.01, dim=200, replicas=4)


def test_dmft_bad_arguments():
    common = {"lr": 0.03, "dim": 16}
    for changes, match in (
        ({"t": [0.1]}, "t must be on the grid"),
        ({"replicas": 6, "groups": 4}, "groups must be a divisor of replicas, 6"),
        ({"dim": 1}, "dim must be"),
        ({"ridges": [0.1, -1.0]}, "ridges must be"),
        ({"problem": NOISY.replace(kappa=0.01)}, "kappa must be at least 1/16"),
        ({"problem": NOISY.replace(kappa_star=0.01)}, "kappa_star must be at least 1/16"),
        ({"momentum": 1.0}, "momentum must be"),
    ):
        with pytest.raises(ValueError, match=match):
            flow.dmft(**{"problem": NOISY, "t": [0.3], **common, **changes})
    # A spectrum stands for the teacher, whose width does not matter.
    law = spectra.discrete([0.0, 2.0], [0.5, 0.5])
    run = flow.dmft(NOISY.replace(teacher_spectrum=law), [0.0], lr=0.03, dim=10, teacher="random")
    assert_allclose(run.overlap[0], run.trace[0], rtol=0.5)


def test_dmft_steady_state():
    """After a long time it is near the solution of the static equations."""
    problem = Problem(alpha=0.5, kappa=1.2, kappa_star=0.8, noise_var=0.5, ridge=1.0)
    run = flow.dmft(problem, [0.0, 7.0], lr=0.035, dim=40, probes=2)
    state = run.steady_state(tolerance=0.2)
    static = flow.long_time(problem)
    assert_array_equal(state.limit, [static.risk[0], static.train_risk[0], static.c[0]])
    assert_array_equal(state.value, [run.risk[-1], run.train_risk[-1], run.memory_sum[-1]])
    assert_array_equal(state.drift[0], run.correlation[-1, -1] - run.correlation[100, 100])
    assert_allclose(state.value, state.limit, rtol=0.12)
    assert not state.drifting.any()
    assert run.steady_state(tolerance=0.0).drifting.all()
    early = flow.dmft(problem, [0.35], lr=0.035, dim=40).steady_state()
    assert early.drifting.all()
    assert early.drift[0] < 0.0
    with pytest.raises(ValueError, match="t must be at least one step"):
        flow.dmft(problem, [0.0], lr=0.035, dim=10).steady_state()
    ridges = flow.dmft(problem, [0.02], lr=0.02, dim=10, ridges=[0.1, 0.2, 0.3])
    assert ridges.steady_state().problem.ridge == 0.1
