"""The claims of the room empirical_flow: they pass, they fail where the physics is broken."""

from dataclasses import replace

import numpy as np
import pytest
from overparam import claims, empirical_flow, population_flow
from overparam._run import fingerprint
from overparam.claims import empirical_flow as room
from verdicts import verdicts

verdict = verdicts("empirical_flow")
failed = verdict.failed

true_minimise, true_simulate = empirical_flow.minimise, empirical_flow.simulate
_runs = {}


@pytest.fixture(autouse=True)
def _remembered_runs(monkeypatch):
    """Run the same network only once: breaking the theory does not change it."""

    def remembered(function):
        def run(problem, *args, seed, progress, threads, **options):
            key = fingerprint(
                problem, function=function.__name__, args=str(args), seed=seed, **options
            )
            if key not in _runs:
                _runs[key] = function(problem, *args, seed=seed, threads=threads, **options)
            return _runs[key]

        return run

    monkeypatch.setattr(empirical_flow, "minimise", remembered(true_minimise))
    monkeypatch.setattr(empirical_flow, "simulate", remembered(true_simulate))


def breaks(monkeypatch, name, **factors):
    """Multiply fields of the results of one of the room's functions."""
    true = getattr(empirical_flow, name)

    def wrong(*args, **options):
        result = true(*args, **options)
        scaled = {field: factor * getattr(result, field) for field, factor in factors.items()}
        return replace(result, **scaled)

    monkeypatch.setattr(empirical_flow, name, wrong)


def scales(monkeypatch, name, factor):
    """Multiply a number that one of the room's functions returns."""
    true = getattr(empirical_flow, name)
    monkeypatch.setattr(
        empirical_flow, name, lambda *args, **options: factor * true(*args, **options)
    )


# ---- one run ----


def test_threads_and_progress_change_nothing(monkeypatch):
    monkeypatch.setattr(empirical_flow, "minimise", true_minimise)
    fractions = []
    claim = claims.get("empirical_flow/bayes-gap")
    alone = claim.run(threads=1, progress=fractions.append)
    assert [c.measured for c in alone.checks] == [c.measured for c in verdict("bayes-gap").checks]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


# ---- claims can fail ----


def test_thresholds_fail_with_wrong_closed_forms(monkeypatch):
    scales(monkeypatch, "recovery_threshold", 1.001)
    assert len(failed("thresholds")) >= 3


def test_thresholds_fail_with_a_wrong_interpolation_threshold(monkeypatch):
    scales(monkeypatch, "interpolation_threshold", 1.0001)
    assert any("wrong side" in quantity for quantity in failed("thresholds"))


def test_thresholds_fail_with_wrong_risks(monkeypatch):
    true = empirical_flow.long_time

    def shifted(problem, **options):
        return true(problem.replace(alpha=0.999 * problem.alpha), **options)

    monkeypatch.setattr(empirical_flow, "long_time", shifted)
    assert any("zero of R" in quantity for quantity in failed("thresholds"))


def test_tables_fail_with_a_wrong_normalisation(monkeypatch):
    breaks(monkeypatch, "curve", risk=1.001, threshold=1.001)
    found = failed("tables")
    assert any("risk against" in quantity for quantity in found)
    assert any("threshold against" in quantity for quantity in found)


def test_tables_fail_where_runs_are_half_the_theory(monkeypatch):
    breaks(monkeypatch, "long_time", risk=2.0)
    assert any("gradient descent" in quantity for quantity in failed("tables"))


def test_convergence_fails_with_a_wrong_response(monkeypatch):
    breaks(monkeypatch, "long_time", c=1.5)
    assert any("t^3" in quantity or "rate" in quantity for quantity in failed("convergence"))


def test_convergence_fails_with_another_ridge(monkeypatch):
    true = empirical_flow.simulate

    def other(problem, t, **options):
        return true(problem.replace(ridge=1.1 * problem.ridge), t, **options)

    monkeypatch.setattr(empirical_flow, "simulate", other)
    assert failed("convergence")


def test_coexistence_fails_with_one_solution(monkeypatch):
    true = empirical_flow.long_time

    def lowest(problem, **options):
        found = true(problem, **options)
        fields = ("alpha", "risk", "train_risk", "sigma2", "threshold", "c", "rank", "trace")
        names = (*fields, "overlap", "objective", "stable")
        return replace(found, **{name: getattr(found, name)[:1] for name in names})

    monkeypatch.setattr(empirical_flow, "long_time", lowest)
    assert any("number of solutions" in quantity for quantity in failed("coexistence"))


def test_bayes_gap_fails_with_a_wrong_bayes_risk(monkeypatch):
    scales(monkeypatch, "bayes_risk", 1.01)
    assert any("smallest risk" in quantity for quantity in failed("bayes-gap"))


def test_bayes_gap_fails_with_a_wrong_risk(monkeypatch):
    breaks(monkeypatch, "long_time", risk=2.0)
    found = failed("bayes-gap")
    assert any("prior's ridge" in quantity for quantity in found)
    assert any("extrapolated" in quantity for quantity in found)


# ---- shared steps ----


def test_published_data_is_complete():
    published = room._published()
    assert len(published["theory"]) == 58
    assert len(published["gd"]) == 24
    for row in published["theory"]:
        sizes = {len(row[name]) for name in ("alpha", "mse", "q", "xi", "rank", "loss")}
        assert sizes == {8}
    for row in published["gd"]:
        assert len(row["alpha"]) == len(row["mse_mean"]) == len(row["mse_std"]) == 10


def test_second_order_is_that_of_the_inverse_size():
    problem = empirical_flow.Problem(alpha=0.3, kappa=0.5, kappa_star=0.25, ridge=0.1)
    small = room._second_order(problem, "risk", 1.0, (20, 40))
    large = room._second_order(problem, "risk", 1.0, (80, 160))
    assert small / large == pytest.approx(16.0)
    assert small > 4.0**2 / 800.0
    assert room._first_order(problem, "risk", 1.0, 30) ** 2 == pytest.approx(
        room._second_order(problem, "risk", 1.0, (30, 30))
    )


def test_share_above_is_the_rank():
    problem = empirical_flow.Problem(alpha=0.3, kappa=0.35, kappa_star=0.3, ridge=0.05)
    rank = empirical_flow.long_time(problem).rank[0]
    assert room._share_above(problem, np.array([1e-6, 8.0]))[0] == pytest.approx(rank, abs=1e-3)


def test_half_point_and_its_error():
    rng = np.random.default_rng(1)
    x = np.linspace(0.7, 1.5, 9)
    chance = 1.0 / (1.0 + np.exp(-(x - 1.08) / 0.05))
    found = np.array(
        [room._half_point(x, rng.uniform(size=(len(x), 24)) < chance[:, None]) for _ in range(200)]
    )
    assert found[:, 0].mean() == pytest.approx(1.08, abs=0.005)
    assert found[:, 0].std() == pytest.approx(found[:, 1].mean(), rel=0.25)


@pytest.mark.parametrize("kappa", [1.5, 0.25])
def test_oja_limit_is_that_of_large_networks(kappa):
    rng = np.random.default_rng(0)
    t = np.array([0.5, 2.0, 4.0])
    oja = room._Oja(kappa, 0.5)
    theory = np.array([oja.distance(float(s)) for s in t])
    runs = np.array([room._oja_distance(rng, 120, kappa, 0.5, t) for _ in range(6)])
    np.testing.assert_allclose(runs.mean(axis=0), theory, rtol=0.12)


@pytest.mark.parametrize("kappa", [1.0, 0.25])
def test_oja_distance_is_that_of_the_exact_flow(kappa):
    t, d = np.array([2.5, 5.0, 20.0]), 24
    found = room._oja_distance(np.random.default_rng(3), d, kappa, 0.5, t)
    rng = np.random.default_rng(3)
    A = rng.standard_normal((d, d))
    mu = np.linalg.eigvalsh((A + A.T) / np.sqrt(2.0 * d))[::-1] + 0.5
    lift = -mu[-1]  # a ridge that makes up for eigenvalues that must not be negative
    problem = population_flow.Problem(
        teacher_eigenvalues=mu + lift, dim=d, width=int(kappa * d), trace_weight=0.0, ridge=lift
    )
    W = rng.standard_normal((d, problem.width)) / np.sqrt(problem.width)
    run = population_flow.flow(problem, W, t, method="direct", keep=True)
    limit = np.diag(np.where(np.arange(d) < problem.width, np.maximum(mu, 0.0), 0.0))
    expected = np.sum((run.S - limit) ** 2, axis=(1, 2)) / d
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_recovery_threshold_is_that_of_a_known_trace():
    """The samples from which on only the teacher interpolates, in another room's convention."""
    for kappa_star in (0.1, 0.3, 0.7):
        expected = population_flow.recovery_samples_limit(kappa_star)
        assert room._statistical_dimension(kappa_star) / 2.0 == pytest.approx(expected, abs=1e-8)


def test_oja_limit_starts_at_the_start():
    """||W W^T - T||^2/d of W with independent entries of variance 1/m, and T the limit."""
    oja = room._Oja(0.5, 0.5)
    limit = oja._limit
    start = 1.0 + 1.0 / 0.5 - 2.0 * np.sum(oja._mass * limit) + np.sum(oja._mass * limit**2)
    assert oja.distance(1e-9) == pytest.approx(start, rel=1e-6)


# ---- everything, and failures of what takes longer ----


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "learning-curves",
        "double-descent",
        "vanishing-ridge",
        "initialisation",
        "bayes-gap",
        "optimal-ridge",
    ],
)
def test_extrapolated_risks_fail_with_a_wrong_theory(monkeypatch, name):
    breaks(monkeypatch, "long_time", risk=1.5)
    assert any("extrapolated" in quantity for quantity in failed(name))


@pytest.mark.slow
def test_rank_fails_with_a_wrong_rank(monkeypatch):
    breaks(monkeypatch, "long_time", rank=1.15)
    assert any("extrapolated" in quantity for quantity in failed("rank"))


@pytest.mark.slow
def test_initialisation_fails_where_the_start_is_forgotten(monkeypatch):
    true = empirical_flow.simulate

    def forgetful(problem, *args, **options):
        return true(problem.replace(init_scale=0.1), *args, **options)

    monkeypatch.setattr(empirical_flow, "simulate", forgetful)
    assert len([quantity for quantity in failed("initialisation") if "s0^2 = 1 -" in quantity]) == 4


@pytest.mark.slow
def test_universality_fails_without_a_gap(monkeypatch):
    true = empirical_flow.simulate

    def gaussian(problem, t, *, sensing, **options):
        return true(problem, t, sensing="goe", **options)

    monkeypatch.setattr(empirical_flow, "simulate", gaussian)
    assert any("relative gap" in quantity for quantity in failed("universality"))


@pytest.mark.slow
def test_recovery_transition_fails_at_another_threshold(monkeypatch):
    scales(monkeypatch, "recovery_threshold", 0.7)
    assert failed("recovery-transition")


@pytest.mark.slow
def test_oja_power_laws_fail_for_another_start(monkeypatch):
    true = room._oja_distance
    monkeypatch.setattr(room, "_oja_distance", lambda *args: 1.3 * true(*args))
    assert any("extrapolated" in quantity for quantity in failed("oja-power-laws"))
