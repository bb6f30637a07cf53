"""The claims of the room giant_step: they pass, they fail where the physics is broken."""

from dataclasses import replace

import numpy as np
import pytest
from overparam import claims, giant_step
from overparam.claims import giant_step as room
from overparam.giant_step import Problem, Spike
from verdicts import described, verdicts

verdict = verdicts("giant_step")
failed = verdict.failed

true_solve, true_simulate, true_spike = giant_step.solve, giant_step.simulate, giant_step.spike
BASE = Problem(alpha=2.0, beta=1.0, ridge=0.1, lr=3.0, alpha0=20.0, target="sin")


def solves(monkeypatch, change=lambda problem: problem, factor=1.0, **forced):
    """Solve the problem that `change` makes of the claim's, and multiply its errors."""

    def wrong(problem, **options):
        found = true_solve(change(problem), **{**options, **forced})
        errors = ("risk", "train_risk", "class_error")
        return replace(found, **{name: factor * getattr(found, name) for name in errors})

    monkeypatch.setattr(room, "solve", wrong)


def simulates(monkeypatch, change):
    """Simulate the problem that `change` makes of the claim's."""
    monkeypatch.setattr(
        giant_step,
        "simulate",
        lambda problem, **options: true_simulate(change(problem), **options),
    )


def spikes(monkeypatch, **factors):
    """Multiply what `spike` returns."""

    def wrong(problem):
        law = true_spike(problem)
        return Spike(**{**law._values(), **{k: f * getattr(law, k) for k, f in factors.items()}})

    monkeypatch.setattr(giant_step, "spike", wrong)


def scales(monkeypatch, name, factor):
    """Multiply a number that one of the room's functions returns."""
    true = getattr(giant_step, name)
    monkeypatch.setattr(giant_step, name, lambda *args, **options: factor * true(*args, **options))


# ---- the same for any threads, another one for another seed ----


def test_threads_and_progress_change_nothing():
    fractions = []
    claim = claims.get("giant_step/floors")
    alone = claim.run(threads=1, progress=fractions.append)
    assert [c.measured for c in alone.checks] == [c.measured for c in verdict("floors").checks]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


def test_seed_changes_the_simulation_but_not_the_verdict():
    other = verdict("spike", seed=1)
    assert other.passed, described(other)
    assert other.table.texts() != verdict("spike").table.texts()


# ---- claims can fail ----


@pytest.mark.parametrize(
    ("field", "word"), [("strength", "strength"), ("alignment", "alignment"), ("variance", "norm")]
)
def test_spike_fails_with_a_wrong_formula(field, word, monkeypatch):
    spikes(monkeypatch, **{field: 0.93})
    assert any(word in quantity for quantity in failed("spike"))


def test_spike_fails_without_the_slope_of_the_norms(monkeypatch):
    true = giant_step.moments
    monkeypatch.setattr(giant_step, "moments", lambda name: replace(true(name), h3=0.0))
    assert any("covariance" in quantity for quantity in failed("spike"))


def test_floors_fail_with_wrong_floors(monkeypatch):
    scales(monkeypatch, "projection_floor", 1.05)
    found = failed("floors")
    assert any("smallest" in quantity for quantity in found)
    assert any("least squares" in quantity for quantity in found)


def test_floors_fail_with_floors_that_are_not_reached(monkeypatch):
    scales(monkeypatch, "linear_floor", 0.95)
    assert any("largest" in quantity for quantity in failed("floors"))


def test_floors_fail_for_networks_of_another_width(monkeypatch):
    simulates(monkeypatch, lambda problem: problem.replace(beta=0.7 * problem.beta))
    assert any("networks" in quantity for quantity in failed("floors"))


# ---- shared steps ----


def test_rounded_sizes():
    own = room._sized(BASE.replace(alpha=0.2), 12)
    assert own.alpha == pytest.approx(2 / 12)
    assert own.beta == 1.0
    assert own.alpha0 == 20.0


def test_control_is_one_at_the_predicted_spike():
    law = true_spike(BASE)
    # The network's own output lengthens the gradient by h1^2/p, without a part in the risk.
    longer = np.hypot(law.gradient_norm, giant_step.moments("tanh").h1 / np.sqrt(20))
    scale = longer / law.gradient_norm
    at = law.strength[None] * scale, np.array([law.alignment / scale])
    assert room._control(BASE, *at, 20) == pytest.approx([1.0], rel=1e-12)
    assert (room._control(BASE.replace(lr=0.0), *at, 20) == 1.0).all()


def test_network_takes_the_step_of_the_room():
    problem = BASE.replace(readout_values=(1.0, -0.5), readout_fractions=(0.5, 0.5), noise_var=0.1)
    network = room._Network.trained(problem, 30, np.random.default_rng(0))
    law = network.measured()
    assert law.strength.shape == (2,)
    assert law.alignment == network.direction[0]
    assert np.linalg.norm(network.start, axis=1) == pytest.approx(np.ones(30))
    bulk = network.bulk()
    means = [np.mean(bulk[network.group == g] @ network.direction) for g in (0, 1)]
    assert means == pytest.approx([0.0, 0.0], abs=1e-12)


def test_sine_and_random_features_have_no_norm_effect():
    assert room._norm_allowance(BASE.replace(activation="sin")) == 0.0
    assert room._norm_allowance(BASE.replace(lr=0.0)) == 0.0
    assert room._norm_allowance(BASE.replace(alpha0=1.0)) == pytest.approx(
        20.0 * room._norm_allowance(BASE)
    )


def test_least_squares_floor_of_a_frozen_layer_is_linear():
    # A spike of almost no strength learns the constant and the linear part of the target.
    problem = BASE.replace(activation="relu", target="sinlin", lr=1e-9)
    assert room._projected(problem) == pytest.approx(giant_step.linear_floor(problem), rel=1e-6)


def test_logistic_fit_is_a_minimum():
    rng = np.random.default_rng(0)
    features, labels = rng.standard_normal((40, 7)), np.sign(rng.standard_normal(40))
    best = room._fit_logistic(features, labels, 0.3)
    wrong = 1.0 / (1.0 + np.exp(labels * (features @ best)))
    assert 0.3 * best == pytest.approx(features.T @ (labels * wrong), abs=1e-8)


def test_significance_counts_along_the_prediction():
    predicted, measured = np.array([0.1, -0.1]), np.array([[0.06, 0.01], [-0.06, 0.01]])
    assert room._significance(predicted, measured, 0.01) == pytest.approx(5.0 * 2.0**0.5)
    assert room._significance(-predicted, measured, 0.01) < 0.0


def test_factor_of_measured_deviations():
    predicted = np.array([0.1, -0.2])
    measured = np.array([[0.2, 0.01], [-0.4, 0.01]])
    assert room._along(predicted, measured, np.array([0.05, 0.1])) == pytest.approx(
        (2.0, 0.01 / 0.05**0.5, 0.5)
    )
    assert np.isnan(room._along(0.0 * predicted, measured, predicted)[0])


def test_published_run_deviates_as_one_replica_does():
    problem = BASE.replace(lr=1.0)
    theory = true_solve(problem, width=2000).risk
    point = room._Point(problem, (theory, 0.01 * theory), theory, theory, 0.0, 0.0, 25, 0.0)
    # A replica has the spread 0.05 at dim = 500, and 0.025 at 2000.
    assert room._single(point, problem.alpha, theory, 500) == 0.0
    assert 3.0 < room._single(point, problem.alpha, 1.12 * theory, 500) < 4.8


def test_spike_fails_where_the_second_group_is_wrong(monkeypatch):
    def wrong(problem):
        law = true_spike(problem)
        factors = np.array([1.0, 0.9])[: problem.groups]
        return Spike(**{**law._values(), "strength": law.strength * factors})

    monkeypatch.setattr(giant_step, "spike", wrong)
    assert any("strength" in quantity for quantity in failed("spike"))


def test_sharpness_is_largest_at_the_peak():
    at = [room._sharpness(BASE.replace(alpha=alpha, ridge=1e-3)) for alpha in (0.5, 1.0, 2.0)]
    assert at[1] > max(at[0], at[2])
    assert room._sharpness(BASE.replace(ridge=10.0)) == 1.0


# ---- everything, and failures of what takes longer ----


@pytest.mark.slow
def test_learning_curves_fail_with_a_wrong_theory(monkeypatch):
    solves(
        monkeypatch, factor=1.0, method="isotropic", change=lambda p: p.replace(beta=1.1 * p.beta)
    )
    assert failed("learning-curves")


@pytest.mark.slow
def test_initialisation_fails_where_features_move(monkeypatch):
    scales(monkeypatch, "linear_floor", 1.02)
    assert any("grid" in quantity for quantity in failed("initialisation"))


@pytest.mark.slow
def test_initialisation_fails_without_a_step(monkeypatch):
    simulates(monkeypatch, lambda problem: problem.replace(lr=0.0))
    assert any("networks" in quantity for quantity in failed("initialisation"))


@pytest.mark.slow
def test_vocabulary_fails_with_one_word(monkeypatch):
    simulates(
        monkeypatch,
        lambda problem: problem.replace(
            readout_values=(problem.readout_values[0],) * problem.groups
        ),
    )
    found = failed("vocabulary")
    assert any("decrease" in quantity for quantity in found)


@pytest.mark.slow
def test_vocabulary_fails_without_the_correction_of_finite_width(monkeypatch):
    solves(monkeypatch, width=None)
    assert any("finite width" in quantity for quantity in failed("vocabulary"))


@pytest.mark.slow
def test_finite_alpha0_fails_with_the_isotropic_theory(monkeypatch):
    solves(monkeypatch, method="isotropic")
    found = failed("finite-alpha0")
    assert any("corrected over isotropic" in quantity for quantity in found)


@pytest.mark.slow
def test_finite_alpha0_fails_for_other_weights(monkeypatch):
    true = giant_step.from_weights
    monkeypatch.setattr(
        giant_step,
        "from_weights",
        lambda problem, W, v, target: true(problem, 1.2 * W, v, target),
    )
    assert any("given weights" in quantity for quantity in failed("finite-alpha0"))


@pytest.mark.slow
def test_small_step_fails_with_a_wrong_strength(monkeypatch):
    def wrong(problem, *, small_step=None, **options):
        own = small_step and 2.0 * small_step
        return true_solve(problem, small_step=own, **options)

    monkeypatch.setattr(room, "solve", wrong)
    found = failed("small-step")
    assert any("theory of small steps" in quantity for quantity in found)
    assert any("giant steps of strength" in quantity for quantity in found)


@pytest.mark.slow
def test_small_step_fails_without_the_correction_of_finite_width(monkeypatch):
    solves(monkeypatch, width=None)
    assert any("steps of any size" in quantity for quantity in failed("small-step"))


@pytest.mark.slow
def test_double_descent_fails_at_another_ridge(monkeypatch):
    solves(monkeypatch, change=lambda p: p.replace(ridge=1.5 * p.ridge))
    assert any("across the peak" in quantity for quantity in failed("double-descent"))


@pytest.mark.slow
def test_logistic_fails_with_a_wrong_theory(monkeypatch):
    solves(monkeypatch, factor=1.1)
    assert len(failed("logistic")) >= 2
