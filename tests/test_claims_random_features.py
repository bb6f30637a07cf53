"""The claims of the room random_features: they pass, they fail where the physics is broken."""

import math
from dataclasses import replace

import numpy as np
import pytest
from overparam import claims, random_features
from overparam._run import fingerprint
from overparam.claims import random_features as room
from overparam.random_features import Problem
from verdicts import described, verdicts

verdict = verdicts("random_features")
failed = verdict.failed

true_simulate = random_features.simulate
_runs = {}


@pytest.fixture(autouse=True)
def _remembered_runs(monkeypatch):
    """Run the same simulation only once: breaking the theory does not change it."""

    def remembered(problem, t, *, seed, progress, threads, lr_schedule=None, **options):
        rates = None if lr_schedule is None else lr_schedule(np.asarray(t))
        key = fingerprint(
            problem, function="simulate", t=np.asarray(t), seed=seed, rates=str(rates), **options
        )
        if key not in _runs:
            _runs[key] = true_simulate(
                problem, t, seed=seed, threads=threads, lr_schedule=lr_schedule, **options
            )
        return _runs[key]

    monkeypatch.setattr(random_features, "simulate", remembered)


def simulates(monkeypatch, change):
    """Simulate the problem that `change` makes of the claim's."""
    monkeypatch.setattr(
        random_features,
        "simulate",
        lambda problem, t, **options: true_simulate(change(problem), t, **options),
    )


def breaks(monkeypatch, name, **factors):
    """Multiply fields of the results of one of the room's functions."""
    true = getattr(random_features, name)

    def wrong(*args, **options):
        result = true(*args, **options)
        scaled = {field: factor * getattr(result, field) for field, factor in factors.items()}
        return replace(result, **scaled)

    monkeypatch.setattr(random_features, name, wrong)


def scales(monkeypatch, name, factor):
    """Multiply a number that one of the room's functions returns."""
    true = getattr(random_features, name)
    monkeypatch.setattr(
        random_features, name, lambda *args, **options: factor * true(*args, **options)
    )


# ---- the list ----


def test_claim_says_where_exponential_holds():
    statement = claims.get("random_features/exponential-width").statement
    assert "polynomial activations" in statement
    assert "does not hold" in statement


# ---- cheap claims ----


def test_threads_and_progress_change_nothing(monkeypatch):
    monkeypatch.setattr(random_features, "simulate", true_simulate)
    fractions = []
    claim = claims.get("random_features/annealing")
    alone = claim.run(threads=1, progress=fractions.append)
    assert [c.measured for c in alone.checks] == [c.measured for c in verdict("annealing").checks]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


def test_seed_changes_the_simulation_but_not_the_verdict():
    other = verdict("label-noise", seed=1)
    assert other.passed, described(other)
    assert other.table.texts() != verdict("label-noise").table.texts()


# ---- claims can fail ----


def test_learning_rate_fails_for_another_rate(monkeypatch):
    simulates(monkeypatch, lambda problem: problem.replace(lr=1.1 * problem.lr))
    assert any("chi_r" in quantity for quantity in failed("learning-rate"))


def test_learning_rate_fails_without_the_fluctuations_of_the_norm(monkeypatch):
    for name in random_features.KURTOSIS:
        monkeypatch.setitem(random_features.KURTOSIS, name, (0.0, 0.0))
    assert any("finite-size limit" in quantity for quantity in failed("learning-rate"))


def test_learning_rate_fails_with_a_limit_that_is_too_high(monkeypatch):
    scales(monkeypatch, "lr_max", 0.7)
    assert any("1.25 lr_max" in quantity for quantity in failed("learning-rate"))


def test_width_staircase_fails_with_a_wrong_minimum(monkeypatch):
    scales(monkeypatch, "minimal_risk", 1.1)
    found = failed("width-staircase")
    assert any("direct" in quantity for quantity in found)
    assert any("formula of the step" in quantity for quantity in found)


def test_width_staircase_fails_where_the_tail_is_dropped(monkeypatch):
    true = random_features.minimal_risk
    monkeypatch.setattr(
        random_features,
        "minimal_risk",
        lambda problem, **options: 1e-300 if problem.width > 1e9 else true(problem, **options),
    )
    assert any("must be positive" in quantity for quantity in failed("width-staircase"))


def test_exponential_width_fails_with_a_wrong_width(monkeypatch):
    scales(monkeypatch, "width_for", 0.9)
    assert any("brackets" in quantity for quantity in failed("exponential-width"))


def test_exponential_width_fails_where_polynomials_need_exponential_widths(monkeypatch):
    true = random_features.width_for
    monkeypatch.setattr(
        random_features,
        "width_for",
        lambda dim, tol, *, activation="erf": true(
            dim, tol, activation="relu" if activation in ("quad", "linear") else activation
        ),
    )
    found = failed("exponential-width")
    assert any(quantity.startswith("quad") for quantity in found)
    assert any(quantity.startswith("linear") for quantity in found)


def test_exponential_width_fails_with_wrong_exponents(monkeypatch):
    true = random_features.width_for
    monkeypatch.setattr(
        random_features,
        "width_for",
        lambda dim, tol, **options: true(dim, tol, **options) ** 1.02,
    )
    found = failed("exponential-width")
    assert any(quantity.startswith("relu, eps -> 0") for quantity in found)
    assert any(quantity.startswith("fixed error") for quantity in found)


def test_time_staircase_fails_with_a_wrong_kernel(monkeypatch):
    breaks(monkeypatch, "sphere_spectrum", eigenvalues=1.1)
    assert any("degree l is learned" in quantity for quantity in failed("time-staircase"))


def test_time_staircase_fails_for_another_rate(monkeypatch):
    simulates(monkeypatch, lambda problem: problem.replace(lr=1.3 * problem.lr))
    assert failed("time-staircase") == [
        "risk of SGD against the curve of any N and K: largest |z| of 10"
    ]


def test_gram_spectrum_fails_with_a_wrong_gram_matrix(monkeypatch):
    breaks(monkeypatch, "population", gram=1.1)
    assert len(failed("gram-spectrum")) >= 4


def test_gram_spectrum_fails_with_a_wrong_law(monkeypatch):
    breaks(monkeypatch, "hermite", kappa=1.2)
    found = failed("gram-spectrum")
    assert any("share of the bulk" in quantity for quantity in found)
    assert any("edges" in quantity for quantity in found)


def test_label_noise_fails_for_another_noise(monkeypatch):
    simulates(monkeypatch, lambda problem: problem.replace(noise_var=1.3 * problem.noise_var))
    found = failed("label-noise")
    assert any("risk of SGD" in quantity for quantity in found)
    assert any("noise alone: eps_inf against" in quantity for quantity in found)


def test_annealing_fails_at_a_constant_rate(monkeypatch):
    def constant(problem, t, *, lr_schedule=None, **options):
        assert lr_schedule is not None
        return true_simulate(problem, t, **options)

    monkeypatch.setattr(random_features, "simulate", constant)
    found = failed("annealing")
    assert any("annealed SGD against" in quantity for quantity in found)
    assert any("over the minimal one" in quantity for quantity in found)


def test_annealing_fails_with_wrong_modes(monkeypatch):
    breaks(monkeypatch, "modes", risk=1.001)
    assert any("quasi-static" in quantity for quantity in failed("annealing"))


# ---- shared steps ----


@pytest.mark.parametrize("activation", ["erf", "relu", "quad"])
def test_direct_algebra_is_the_best_fit(activation, monkeypatch):
    monkeypatch.setattr(room, "TEACHERS", 1)
    problem = Problem(dim=12, width=20, lr=1.0, activation=activation)
    direct = room._Direct(problem, np.random.default_rng(3), 1)
    rng = np.random.default_rng(3)
    W, B = room._sphere(rng, 20, 12), room._sphere(rng, 1, 12)
    averages = random_features.population(W, B, [1.0], activation=activation)
    assert direct.risk[0] == pytest.approx(random_features.best_fit(averages).risk, rel=1e-9)


def test_residual_and_norm_of_sampled_features():
    problem = Problem(dim=20, width=10, lr=1.0, activation="quad")
    direct = room._Direct(problem, np.random.default_rng(0), 4, samples=20000)
    # Both grow with the norm of the input, whose square has the relative variance 2/N.
    assert (direct.norm > 1.1).all()
    assert np.isnan(room._Direct(problem, np.random.default_rng(0), 4).norm).all()


def test_effect_of_the_norm():
    problem = Problem(dim=100, width=50, lr=2.0, activation="relu")
    assert room._load(problem) == pytest.approx(0.5)
    assert room._norm(problem) == pytest.approx(5.0 / 50 + 2.0 / 100)
    chi, x = 1.12, 0.5
    full = 1.0 + x * chi / (1.0 - x * chi)
    assert full * (1.0 - x) - 1.0 == pytest.approx(room._norm_effect(problem))


@pytest.mark.parametrize(
    ("activation", "tol", "degree"), [("erf", 0.1, 1), ("erf", 0.01, 3), ("relu", 0.01, 4)]
)
def test_degree_that_must_be_learned(activation, tol, degree):
    assert room._degree(activation, tol)[0] == degree


def test_limit_removes_the_first_order():
    assert room._limit_z((0.02, 1e-3, 0.0), (0.01, 1e-3, 0.0), 10) == pytest.approx(0.0, abs=1e-9)
    assert room._limit_z((0.01, 1e-4, 0.0), (0.01, 1e-4, 0.0), 10**6) > 10.0


def test_moment_of_a_spectrum_is_exact():
    one = room._Spectra(np.random.default_rng(0), "relu", 8, 6, 4000)
    square = (one.s**2).mean(axis=1)
    sem = square.std(ddof=1) / math.sqrt(len(square))
    assert abs(square.mean() - one.moment()) < 4.5 * sem


# ---- everything, and failures of what takes longer ----


@pytest.mark.slow
def test_curves_fail_for_another_rate(monkeypatch):
    simulates(monkeypatch, lambda problem: problem.replace(lr=1.2 * problem.lr))
    assert len(failed("curves")) >= 2


@pytest.mark.slow
def test_curves_fail_with_a_wrong_theory(monkeypatch):
    breaks(monkeypatch, "curve", risk=1.05)
    found = failed("curves")
    assert any("extrapolated" in quantity for quantity in found)
    assert any("exponent of N" in quantity for quantity in found)


@pytest.mark.slow
def test_asymptotic_error_fails_with_a_wrong_closed_form(monkeypatch):
    scales(monkeypatch, "stationary_risk", 1.0 + 1e-6)
    scales(monkeypatch, "minimal_risk", 1.05)
    found = failed("asymptotic-error")
    assert any("eps_inf / (M/2)" in quantity for quantity in found)
    assert any("best fit" in quantity for quantity in found)
