"""The claims about Hessian spectra: they pass, they fail where the physics is broken."""

from dataclasses import replace

import numpy as np
import pytest
from overparam import claims, hessian, population_flow
from overparam.claims import hessian as module
from overparam.sgd import Overlaps, Problem
from verdicts import described, verdicts

verdict = verdicts("hessian")
failed = verdict.failed


def scales_population(monkeypatch, factor):
    """Multiply the eigenvalues that `hessian.population` finds."""
    true = hessian.population

    def wrong(problem, overlaps):
        found = true(problem, overlaps)
        return replace(found, eigenvalues=factor * found.eigenvalues)

    monkeypatch.setattr(hessian, "population", wrong)


# ---- one run ----


def test_threads_and_progress_change_nothing():
    fractions = []
    alone = claims.get("hessian/path").run(threads=1, progress=fractions.append)
    assert [c.measured for c in alone.checks] == [c.measured for c in verdict("path").checks]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


def test_seed_changes_the_simulation_but_not_the_verdict():
    other = verdict("path", seed=1)
    assert other.passed, described(other)
    assert other.checks[0].measured == pytest.approx(verdict("path").checks[0].measured)
    assert other.table.texts() != verdict("path").table.texts()


# ---- claims can fail ----


def test_manifold_fails_off_the_manifold(monkeypatch):
    true = module._solution

    def larger(problem, P, rng):
        state = true(problem, P, rng)
        return Overlaps(Q=1.1**2 * state.Q, M=1.1 * state.M, P=P)

    monkeypatch.setattr(module, "_solution", larger)
    assert len(failed("manifold")) >= 3


def test_manifold_fails_with_a_wrong_spectrum(monkeypatch):
    scales_population(monkeypatch, 1.01)
    assert failed("manifold") == ["eigenvalues against the table, relative to the largest"]


def test_manifold_fails_with_a_wrong_count(monkeypatch):
    monkeypatch.setattr(module, "_tangent_dimension", lambda W: len(W) * (len(W) - 1) // 2)
    assert any("zero modes" in quantity for quantity in failed("manifold"))


def test_path_fails_with_a_wrong_spectrum(monkeypatch):
    scales_population(monkeypatch, 1.01)
    found = failed("path")
    assert any("growth rate" in quantity for quantity in found)
    assert any("on the plateau / (-4 a sigma)" in quantity for quantity in found)


def test_path_fails_for_another_learning_rate(monkeypatch):
    true = module.sgd.simulate

    def faster(problem, start, t, **options):
        return true(problem.replace(lr=1.2 * problem.lr), start, t, **options)

    monkeypatch.setattr(module.sgd, "simulate", faster)
    assert any("against the overlap equations" in quantity for quantity in failed("path"))


def test_saddles_fail_with_a_wrong_closed_form(monkeypatch):
    true = population_flow.critical_point

    def shifted(problem, selected):
        point = true(problem, selected)
        return replace(point, hessian_eigenvalues=point.hessian_eigenvalues + 1.0)

    monkeypatch.setattr(population_flow, "critical_point", shifted)
    found = failed("saddles")
    assert any("counted from mu" in quantity for quantity in found)
    assert any("closed form" in quantity for quantity in found)


def test_saddles_fail_with_a_wrong_hessian(monkeypatch):
    true = population_flow.hessian_action
    monkeypatch.setattr(
        population_flow, "hessian_action", lambda problem, W, D: true(problem, W, D) + 100.0 * D
    )
    assert len(failed("saddles")) == 3


# ---- shared steps ----


def test_weights_have_the_overlaps():
    rng = np.random.default_rng(0)
    problem = Problem(width=3, teacher_width=2, lr=0.1)
    state = module._solution(problem, np.diag([1.5, 0.5]), rng)
    found = Overlaps.from_weights(*module._weights(state, 9, rng))
    for name in ("Q", "M", "P"):
        np.testing.assert_allclose(getattr(found, name), getattr(state, name), atol=1e-14)


def test_gap_compares_step_functions():
    problem = Problem(width=2, teacher_width=1, lr=0.1, dim=10**5)
    state, scale = module._plateau(problem, np.eye(1))
    found = hessian.population(problem, state)
    levels = module._plateau_levels(problem, np.array([1.0]), scale, 10**5)
    assert module._gap(found, levels) < 1e-14
    moved = [(value + 0.2, count) for value, count in levels]
    largest = max(abs(value) for value, _ in moved)
    assert module._gap(found, moved) == pytest.approx(0.2 / largest)
    assert np.isnan(module._gap(found, levels[1:]))


def test_spread_of_one_sample():
    problem = Problem(width=3, teacher_width=1, lr=0.1)
    state, scale = module._plateau(problem, np.eye(1))
    risk = module.sgd.risk(problem, state)
    rng = np.random.default_rng(0)
    fields = np.sqrt(state.Q[0, 0]) * rng.standard_normal((10**6, 3))
    error = rng.standard_normal(10**6) ** 2 - (fields**2).mean(axis=1)
    a = problem.a[0]
    v2 = 4.0 * a**2 * (fields**2).sum(axis=1)
    square = v2**2 - 4.0 * a * error * v2 + 4.0 * a**2 * 3 * error**2
    assert module._spread2(problem, scale, risk, np.array([1.0])) == pytest.approx(
        square.mean() / 3, rel=0.02
    )


def test_index_of_known_points():
    mu = np.array([2.0, 1.0, 0.0])
    assert module._index(mu, (0,), 1, 0.0) == 0
    assert module._index(mu, (1,), 1, 0.0) == 1
    assert module._index(mu, (), 2, 0.0) == 4
    assert module._index(mu, (), 2, 0.5) == 6


# ---- everything, and failures of what takes longer ----


@pytest.mark.slow
def test_plateau_fails_for_other_weights(monkeypatch):
    true = hessian.empirical

    def larger(problem, W, samples, **options):
        return true(problem, 1.3 * W, samples, **options)

    monkeypatch.setattr(hessian, "empirical", larger)
    assert any("samples" in quantity for quantity in failed("plateau"))


@pytest.mark.slow
def test_empirical_bulk_fails_for_another_number_of_samples(monkeypatch):
    true = hessian.bulk
    monkeypatch.setattr(
        hessian,
        "bulk",
        lambda problem, state, ratio, x, width: true(problem, state, 1.2 * ratio, x, width=width),
    )
    assert any("law of the bulk" in quantity for quantity in failed("empirical-bulk"))
