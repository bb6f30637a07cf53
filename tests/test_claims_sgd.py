"""The claims of the room sgd: they pass, they fail where the physics is broken, they are drawn."""

import numpy as np
import pytest
from overparam import claims, sgd
from overparam._run import fingerprint
from overparam.claims import _shared
from overparam.claims import sgd as room
from scipy import stats
from verdicts import described, verdicts

verdict = verdicts("sgd")
failed = verdict.failed


def scaled(function, factor):
    return lambda *args, **options: factor * function(*args, **options)


def faster_plateau(problem, P=None):
    """The plateau with its norm wrong by 10 %, as a wrong coefficient would make it."""
    true = sgd_plateau(problem, P)
    eta = problem.lr * float(problem.a[0])
    values = {
        "problem": problem,
        "method": true.method,
        "status": true.status,
        "origin": true.origin,
        "scale": 1.1 * true.scale,
        "risk": 1.1 * true.risk,
        "escape_rates": true.escape_rates - 0.1 * 2.0 * eta * (problem.width + 2) * true.scale,
        "lr_max": 1.1 * true.lr_max,
    }
    return sgd.Plateau(**values)


sgd_plateau, sgd_simulate = sgd.plateau, sgd.simulate
_simulations = {}


@pytest.fixture(autouse=True)
def _remembered_simulations(monkeypatch):
    """Simulate the same only once: breaking the theory does not change the simulations."""

    def simulate(problem, start, t, *, seed, progress, **options):
        starts = [start] if isinstance(start, sgd.Overlaps) else start
        key = fingerprint(
            problem,
            t=np.array(t),
            seed=seed,
            M=[s.M for s in starts],
            Q=[s.Q for s in starts],
            **options,
        )
        if key not in _simulations:
            _simulations[key] = sgd_simulate(
                problem, start, t, seed=seed, progress=progress, **options
            )
        return _simulations[key]

    monkeypatch.setattr(sgd, "simulate", simulate)


# ---- one run ----


def test_threads_and_progress_change_nothing(monkeypatch):
    monkeypatch.setattr(sgd, "simulate", sgd_simulate)
    fractions = []
    alone = claims.get("sgd/conserved").run(threads=1, progress=fractions.append)
    assert [c.measured for c in alone.checks] == [c.measured for c in verdict("conserved").checks]
    assert fractions == sorted(fractions)
    assert 0.0 <= fractions[0] < 0.1
    assert fractions[-1] == 1.0


def test_seed_changes_the_simulation_but_not_the_verdict():
    other = verdict("late-time", seed=1)
    assert other.passed, described(other)
    assert other.checks[-1].measured != verdict("late-time").checks[-1].measured


# ---- claims can fail ----


def test_late_time_fails_with_a_wrong_constant(monkeypatch):
    monkeypatch.setattr(sgd, "late_time_constant", scaled(sgd.late_time_constant, 1.1))
    assert any("constant of R t^2" in quantity for quantity in failed("late-time"))


def test_noise_floor_fails_with_a_wrong_floor(monkeypatch):
    monkeypatch.setattr(sgd, "noise_floor", scaled(sgd.noise_floor, 1.1))
    assert len(failed("noise-floor")) == 4


def test_stability_fails_with_a_wrong_limit(monkeypatch):
    monkeypatch.setattr(sgd, "lr_max", scaled(sgd.lr_max, 1.1))
    assert len(failed("stability")) == 3


def test_conserved_fails_with_a_wrong_exponent(monkeypatch):
    true = sgd.conserved
    monkeypatch.setattr(sgd, "conserved", lambda problem, state, t: true(problem, state, 1.1 * t))
    assert any("largest relative change" in quantity for quantity in failed("conserved"))


def test_check_without_a_finite_value_fails():
    assert not _shared.z_check("z", [0.0, np.nan]).passed


# ---- shared statistics ----


def test_limit_is_the_stated_chance():
    assert stats.norm.sf(_shared.error_limit()) * 2 == pytest.approx(_shared.CHANCE)
    assert stats.norm.sf(_shared.error_limit(50)) * 100 == pytest.approx(_shared.CHANCE)
    assert stats.t.sf(_shared.error_limit(1, 8), 7) * 2 == pytest.approx(_shared.CHANCE)


def test_z_converts_student_into_gauss():
    assert _shared.z_score(2.0, 1.0, 10**6) == pytest.approx(2.0, rel=1e-4)
    assert stats.norm.sf(_shared.z_score(-6.0, 2.0, 8, 2.0)) == pytest.approx(stats.t.sf(2.0, 7))
    assert _shared.z_score(1.0, 1.0, 8, 2.0) == 0.0
    assert np.isnan(_shared.z_score(np.nan, 1.0, 8))
    assert (_shared.z_score(1.0, 0.0, 8, 2.0), _shared.z_score(-3.0, 0.0, 8, 2.0)) == (0.0, np.inf)


def test_deviations_too_small_for_each_are_found_together():
    z = np.full(16, 1.5)
    assert _shared.z_check("each", z).passed
    assert not _shared.joint_check("all", z).passed
    assert _shared.joint_check("all", z * (-1.0) ** np.arange(16)).passed


def test_line_fit_is_weighted_least_squares():
    x, sem = np.array([0.0, 1.0, 3.0]), np.array([0.1, 0.2, 0.1])
    y = np.array([1.0, 2.5, 4.0])
    (slope, _), covariance = np.polyfit(x, y, 1, w=1 / sem, cov="unscaled")
    assert _shared.line_fit(x, y, sem) == pytest.approx((slope, covariance[0, 0] ** 0.5))


def test_extrapolation_removes_the_first_order():
    value, sem = _shared.extrapolated((3.0 + 4.0 / 10, 0.1), (3.0 + 4.0 / 40, 0.2), 4.0)
    assert value == pytest.approx(3.0)
    assert sem == pytest.approx(np.hypot(0.8, 0.1) / 3)


def test_ratio_of_means_has_the_error_of_the_residual():
    rng = np.random.default_rng(2)
    denominator = 2.0 + rng.normal(size=(2000, 400))
    numerator = 3.0 * denominator + rng.normal(size=(2000, 400))
    ratios = np.array([room._ratio(*pair) for pair in zip(numerator, denominator, strict=True)])
    assert ratios[:, 0].mean() == pytest.approx(3.0, abs=0.01)
    assert ratios[:, 0].std() == pytest.approx(ratios[:, 1].mean(), rel=0.1)


def test_crossing_interpolates_and_marks_what_never_falls():
    t = np.array([0.0, 1.0, 2.0])
    curves = np.array([[3.0, 2.0, 0.0], [3.0, 3.0, 3.0]])
    np.testing.assert_allclose(room._crossing(t, curves, 1.0), [1.5, np.nan])


def test_kolmogorov_smirnov_agrees_with_scipy_also_for_ties_and_infinities():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 6, (2, 400, 3)).astype(float)
    second[:, 1] += rng.normal(size=400)
    first[:5, 2] = np.inf
    test = room._KolmogorovSmirnov(first, second)
    for column, p in enumerate(test.observed()):
        reference = stats.ks_2samp(first[:, column], second[:, column], method="asymp")
        exact = stats.kstwobign.sf(np.sqrt(200) * reference.statistic)
        assert p == pytest.approx(exact)


def test_shuffled_tests_are_those_of_the_null_hypothesis():
    rng = np.random.default_rng(1)
    sample = rng.normal(size=(2, 500, 4))
    test = room._KolmogorovSmirnov(sample[0], sample[1] + 1.0)
    assert test.observed().max() < 1e-6
    shuffled = np.array([test.shuffled(rng) for _ in range(100)])
    assert abs((shuffled < 0.05).mean() - 0.05) < 0.03


def test_spherical_rate_is_the_linearised_drift():
    problem = sgd.Problem(width=3, teacher_width=2, lr=0.3, noise_var=0.2, spherical=True)
    start = room._isotropic(problem, 1.0, 1e-6)
    _, dM = sgd.drift(problem, start)
    assert dM[0, 0] / start.M[0, 0] == pytest.approx(room._spherical_rate(problem), rel=1e-6)


@pytest.mark.parametrize("P", [None, np.diag([1.5, 0.5])])
def test_solution_has_no_risk(P):
    problem = sgd.Problem(width=4, teacher_width=2, lr=0.1)
    assert sgd.risk(problem, room._solution(problem, P=P)) == pytest.approx(0.0, abs=1e-15)
    assert sgd.risk(problem, room._solution(problem, 1.01, P)) > 1e-5


# ---- everything, and failures of what takes longer ----


@pytest.mark.slow
def test_plateau_and_escape_fail_with_a_wrong_plateau(monkeypatch):
    monkeypatch.setattr(sgd, "plateau", faster_plateau)
    assert len(failed("plateau")) >= 5
    assert any("escape time x 2 r" in quantity for quantity in failed("escape"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["escape", "closest"])
def test_claims_fail_without_the_seeds_of_sgd(monkeypatch, name):
    monkeypatch.setattr(sgd, "seed_ratio", scaled(sgd.seed_ratio, 0.0))
    assert failed(name)


@pytest.mark.slow
def test_ode_and_exact_law_fail_with_a_wrong_chain(monkeypatch):
    true = sgd.simulate

    def wrong(problem, start, t, *, method="chain", **options):
        if method == "chain":
            problem = problem.replace(lr=1.1 * problem.lr)
        return true(problem, start, t, method=method, **options)

    monkeypatch.setattr(sgd, "simulate", wrong)
    assert len(failed("exact-law")) == 2
    assert len(failed("ode")) >= 3


@pytest.mark.slow
def test_constraint_and_manifold_fail_for_the_other_kind_of_norms(monkeypatch):
    true = sgd.simulate

    def wrong(problem, start, t, **options):
        return true(problem.replace(spherical=not problem.spherical), start, t, **options)

    monkeypatch.setattr(sgd, "simulate", wrong)
    assert len(failed("constraint")) >= 4
    assert failed("manifold")
