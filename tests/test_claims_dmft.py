"""The claims of dynamical mean-field theory: they pass, they fail where the physics is broken."""

from dataclasses import replace

import numpy as np
import pytest
from overparam import claims, empirical_flow
from overparam.claims import dmft as module
from overparam.empirical_flow import Problem
from verdicts import described, verdicts

verdict = verdicts("dmft")
failed = verdict.failed


@pytest.fixture
def scales(monkeypatch):
    """Multiply kernels of what `empirical_flow.dmft` returns."""

    def scale(**factors):
        true = empirical_flow.dmft

        def wrong(*arguments, **options):
            found = true(*arguments, **options)
            fields = {name: factor * getattr(found, name) for name, factor in factors.items()}
            return replace(found, **fields)

        monkeypatch.setattr(empirical_flow, "dmft", wrong)

    return scale


def runs_for(monkeypatch, **changes):
    """Solve the equations of dynamical mean-field theory for another problem."""
    true = empirical_flow.dmft

    def wrong(problem, *arguments, **options):
        return true(problem.replace(**changes), *arguments, **options)

    monkeypatch.setattr(empirical_flow, "dmft", wrong)


# ---- one run ----


def test_threads_and_progress_change_nothing():
    fractions = []
    alone = claims.get("dmft/long-time").run(threads=1, progress=fractions.append)
    assert [c.measured for c in alone.checks] == [c.measured for c in verdict("long-time").checks]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


def test_seed_changes_the_simulation_but_not_the_verdict():
    other = verdict("long-time", seed=1)
    assert other.passed, described(other)
    assert other.table.texts() != verdict("long-time").table.texts()


# ---- claims can fail ----


def test_long_time_fails_for_another_ridge(monkeypatch):
    true = empirical_flow.long_time
    monkeypatch.setattr(
        empirical_flow,
        "long_time",
        lambda problem, **options: true(problem.replace(ridge=0.7 * problem.ridge), **options),
    )
    assert any("at the end" in quantity for quantity in failed("long-time"))


def test_finite_step_fails_with_a_wrong_curvature(monkeypatch):
    true = module._Sample.sharpness
    monkeypatch.setattr(module._Sample, "sharpness", lambda self, W, rng: 0.8 * true(self, W, rng))
    assert len(failed("finite-step")) >= 2


# ---- shared steps ----


@pytest.mark.parametrize("sensing", ["goe", "network"])
def test_sample_is_that_of_the_room(sensing):
    """Moments of the matrices, residuals and gradient, against differences of the loss."""
    rng = np.random.default_rng(0)
    problem = Problem(alpha=2.0, kappa=0.5, kappa_star=0.5, noise_var=0.3, ridge=0.2)
    sample = module._Sample(problem, 6, sensing, rng)
    W = sample.start
    assert W.shape == (6, 3)

    def loss(W):
        ridge = 0.5 * problem.ridge * (W**2).sum()
        return 6.0 / 8.0 * np.mean(sample.residuals(W) ** 2) + ridge

    gradient = W - sample.step(W, 1.0)
    V, h = rng.standard_normal(W.shape), 1e-5
    slope = (loss(W + h * V) - loss(W - h * V)) / (2.0 * h)
    assert (gradient * V).sum() == pytest.approx(slope, rel=1e-7)
    assert sample._X.var() == pytest.approx(2.0 / 6.0, rel=0.15)


def test_sharpness_is_the_largest_eigenvalue():
    rng = np.random.default_rng(1)
    problem = Problem(alpha=2.0, kappa=0.5, kappa_star=0.5, ridge=0.2)
    sample = module._Sample(problem, 6, "goe", rng)
    W, h = sample.start, 1e-5
    directions = np.eye(W.size).reshape(-1, *W.shape)
    hessian = np.array(
        [(sample.step(W - h * V, 1.0) - sample.step(W + h * V, 1.0)).ravel() for V in directions]
    )
    hessian = np.eye(W.size) + hessian / (2.0 * h)
    largest = np.linalg.eigvalsh(0.5 * (hessian + hessian.T))[-1]
    assert sample.sharpness(W, rng, 2000) == pytest.approx(largest, rel=1e-6)


def test_measured_response_is_that_of_the_first_step():
    """chi(1, 0) = -lr tr(S_0 (1 - lr B_0)) (d + 1)/d^2 on average over directions."""
    rng = np.random.default_rng(2)
    problem = Problem(alpha=1.0, kappa=1.0, kappa_star=0.5)
    lr, d, values, expected = 0.02, 12, [], []
    for _ in range(400):
        sample = module._Sample(problem, d, "goe", rng)
        kernels = module._measured_kernels(sample, lr, [0, 1], 0, rng)
        assert np.isnan(kernels["response"][0])
        values.append(kernels["response"][1])
        W = sample.start
        expected.append(-lr * (W * sample.step(W, lr)).sum() * (d + 1) / d**2)
    difference = np.array(values) - expected
    sem = difference.std() / np.sqrt(len(difference))
    assert abs(difference.mean()) < 4.0 * sem
    assert sem < 0.02 * abs(np.mean(expected))


def test_oja_flow_is_the_limit_of_the_descent():
    rng = np.random.default_rng(3)
    problem = Problem(alpha=1.0, kappa=0.5, kappa_star=0.5, ridge=0.1)
    W = module._start(problem, 8, rng)
    fine = module._oja_descent(problem, 4000, 5e-4, W)[[2000, 4000]]
    np.testing.assert_allclose(module._oja_flow(problem, np.array([1.0, 2.0]), W), fine, rtol=5e-3)


def test_critical_ratio_is_between_the_last_stable_and_the_first_unstable():
    ratios = np.array([0.8, 0.9, 1.0, 1.1])
    assert module._critical(ratios, np.array([False, False, True, True])) == pytest.approx(0.95)
    assert np.isnan(module._critical(ratios, np.zeros(4, dtype=bool)))
    assert np.isnan(module._critical(ratios, np.ones(4, dtype=bool)))


# ---- everything, and failures of what takes longer ----


@pytest.mark.slow
def test_curves_fail_for_another_noise(monkeypatch):
    runs_for(monkeypatch, noise_var=1.0)
    found = failed("curves")
    assert any("training risk" in quantity for quantity in found)


@pytest.mark.slow
def test_kernels_fail_for_another_number_of_samples(monkeypatch):
    runs_for(monkeypatch, alpha=0.8)
    assert any("correlation C(t, s)" in quantity for quantity in failed("kernels"))


@pytest.mark.slow
def test_kernels_fail_with_a_wrong_response_and_residuals(scales):
    scales(response=2.0, residual_correlation=1.6)
    found = failed("kernels")
    assert any("response" in quantity for quantity in found)
    assert any("residuals" in quantity for quantity in found)


@pytest.mark.slow
def test_universality_fails_for_another_teacher(monkeypatch):
    true = empirical_flow.simulate

    def wrong(problem, *arguments, sensing, **options):
        if sensing == "network":
            problem = problem.replace(noise_var=problem.noise_var + 2.0)
        return true(problem, *arguments, sensing=sensing, **options)

    monkeypatch.setattr(empirical_flow, "simulate", wrong)
    assert any("network against theory" in quantity for quantity in failed("universality"))


@pytest.mark.slow
def test_gaussian_labels_fail_for_heavy_tails(monkeypatch):
    true = module._Sample.residuals

    def heavier(self, W):
        r = true(self, W)
        return r * np.where(np.arange(r.shape[-1]) % 2, 1.25, 0.3)

    monkeypatch.setattr(module._Sample, "residuals", heavier)
    assert any("GOE" in quantity for quantity in failed("gaussian-labels"))


@pytest.mark.slow
def test_large_alpha_fails_for_another_ridge(monkeypatch):
    runs_for(monkeypatch, ridge=0.2)
    assert any("infinitely many" in quantity for quantity in failed("large-alpha"))


@pytest.mark.slow
def test_early_stopping_fails_for_more_samples(monkeypatch):
    runs_for(monkeypatch, alpha=4.0)
    found = failed("early-stopping")
    assert any("Bayes" in quantity for quantity in found)
    assert any("in time, extrapolated" in quantity for quantity in found)
