"""The claims of the room population_flow: they pass, they fail where the physics is broken."""

from dataclasses import replace

import numpy as np
import pytest
from overparam import claims, population_flow, spectra
from overparam.claims import population_flow as room
from verdicts import described, verdicts

verdict = verdicts("population_flow")
failed = verdict.failed


def breaks(monkeypatch, name, **changes):
    """Multiply fields of the results of one of the room's functions."""
    true = getattr(population_flow, name)

    def wrong(*args, **options):
        result = true(*args, **options)
        scaled = {field: factor * getattr(result, field) for field, factor in changes.items()}
        return replace(result, **scaled)

    monkeypatch.setattr(population_flow, name, wrong)


# ---- one run ----


def test_threads_and_progress_change_nothing():
    fractions = []
    claim = claims.get("population_flow/overlap-rates")
    alone = claim.run(threads=1, progress=fractions.append)
    assert [c.measured for c in alone.checks] == [
        c.measured for c in verdict("overlap-rates").checks
    ]
    assert fractions == sorted(fractions)
    assert 0.0 <= fractions[0] < 0.1
    assert fractions[-1] == 1.0


def test_seed_changes_the_simulation_but_not_the_verdict():
    other = verdict("overlap-rates", seed=1)
    assert other.passed, described(other)
    assert other.checks[2].measured != verdict("overlap-rates").checks[2].measured


# ---- claims can fail ----


def test_angles_fail_for_another_law(monkeypatch):
    true = population_flow.angle_law
    monkeypatch.setattr(population_flow, "angle_law", lambda g, h: true(g, 1.04 * h))
    assert len(failed("angles")) == 4


def test_limit_fails_with_a_wrong_time(monkeypatch):
    true = population_flow.limit
    monkeypatch.setattr(
        population_flow, "limit", lambda g, h, t, **options: true(g, h, 1.2 * t, **options)
    )
    assert len(failed("limit-orthonormal")) == 3


def test_limit_fails_with_another_trace_term(monkeypatch):
    true = population_flow.limit
    monkeypatch.setattr(
        population_flow,
        "limit",
        lambda g, h, t, **options: true(g, h, t, trace_weight_d=10.0, **options),
    )
    assert any("extrapolated" in quantity for quantity in failed("limit-orthonormal"))


def test_rates_fail_with_a_wrong_constant_or_rate(monkeypatch):
    breaks(monkeypatch, "asymptotics", constant=1.01, rate=1.05)
    found = failed("rates")
    assert any("tau^2 loss / constant" in quantity for quantity in found)
    assert any("measured rate / predicted" in quantity for quantity in found)


def test_overlap_rates_fail_with_a_wrong_time(monkeypatch):
    true = population_flow.limit
    monkeypatch.setattr(
        population_flow, "limit", lambda g, h, t, **options: true(g, h, 1.05 * t, **options)
    )
    assert len(failed("overlap-rates")) >= 3


def test_minimal_overparameterisation_fails_for_narrower_students(monkeypatch):
    true = population_flow.simulate

    def narrower(problem, t, **options):
        return true(problem.replace(width=max(1, problem.width - 1)), t, **options)

    monkeypatch.setattr(population_flow, "simulate", narrower)
    assert len(failed("minimal-overparameterisation")) == 2


def test_no_spurious_minima_fails_with_a_wrong_hessian(monkeypatch):
    true = population_flow.hessian_action

    def tilted(problem, W, D):
        return true(problem, W, D) + 100.0 * D

    monkeypatch.setattr(population_flow, "hessian_action", tilted)
    found = failed("no-spurious-minima")
    assert len(found) == 2
    assert any("without a negative direction" in quantity for quantity in found)


def test_no_spurious_minima_fails_where_descent_stops_early(monkeypatch):
    true = population_flow.flow
    monkeypatch.setattr(
        population_flow, "flow", lambda problem, W, t, rtol: true(problem, W, 1e-3 * t, rtol=rtol)
    )
    assert any("miss the minimum" in quantity for quantity in failed("no-spurious-minima"))


def test_underparameterised_fails_with_a_wrong_trace_term(monkeypatch):
    true = population_flow.simulate

    def other(problem, t, **options):
        return true(problem.replace(trace_weight=1.1 * problem.trace_weight), t, **options)

    monkeypatch.setattr(population_flow, "simulate", other)
    assert len(failed("underparameterised")) >= 2


def test_underparameterised_fails_with_a_wrong_residual(monkeypatch):
    breaks(monkeypatch, "asymptotics", residual=1.001)
    assert len(failed("underparameterised")) == 1


def decided_by(counts):
    """Return `is_unique` for a rule: unique from some number of samples on."""

    def is_unique(X, teacher_width, **_):
        enough = len(X) >= counts(X.shape[1], teacher_width)
        return replace(example, unique=float(enough))

    example = population_flow.is_unique(np.eye(3), 1)
    return is_unique


def counting(d, rank):
    return d * (rank + 1) - rank * (rank + 1) / 2


def test_sample_complexity_fails_at_the_counting_formula(monkeypatch):
    monkeypatch.setattr(population_flow, "is_unique", decided_by(counting))
    assert len(failed("sample-complexity")) == 3


def test_sample_complexity_passes_at_the_conic_count(monkeypatch):
    def conic(d, rank):
        return population_flow.recovery_samples(d, rank, draws=200).conic

    monkeypatch.setattr(population_flow, "is_unique", decided_by(conic))
    assert not failed("sample-complexity")


def test_sample_complexity_fails_if_nothing_is_decided(monkeypatch):
    monkeypatch.setattr(population_flow, "is_unique", decided_by(lambda *_: np.nan))
    breaks(monkeypatch, "is_unique", unique=np.nan)
    assert any("undecided" in quantity for quantity in failed("sample-complexity"))


# ---- shared steps ----


def test_missing_is_one_minus_the_cosine():
    run = population_flow.limit(0.5, 0.3, [0.3, 1.0, 3.0])
    np.testing.assert_allclose(room._missing(run, 0.3), 1.0 - room._cosine(run, 0.3), rtol=1e-12)


def test_cosine_is_that_of_the_matrices():
    problem = population_flow.Problem(teacher_eigenvalues=(2.0, 1.0), dim=6, width=3)
    W = population_flow.random_start(problem, seed=3)
    run = population_flow.flow(problem, W, [0.7], keep=True)
    S, mu = run.S[0], problem.mu
    direct = np.trace(S @ np.diag(mu)) / np.linalg.norm(S) / np.linalg.norm(mu)
    assert room._cosine(run, float(np.sum(mu**2))) == pytest.approx([direct], rel=1e-10)


def test_phi_is_the_shift_integral():
    """The paper's phi in its own variables: teacher U U^T/m*, loss Lc/2, time t/d."""
    problem = room._orthonormal(20, 0.5, 0.25)
    tau = np.linspace(0.0, 3.0, 4001)
    run = population_flow.simulate(problem, tau, init="orthonormal")
    t = 0.5 * 0.25 * tau * 20
    excess = (run.trace[0] - problem.teacher_rank) / problem.teacher_rank
    phi = np.trapezoid(excess, t)
    assert run.shift_integral[0, -1] == pytest.approx(phi, abs=1e-5)


def test_distance_agrees_with_scipy():
    from scipy import stats

    law = spectra.semicircle(0.25)
    sample = np.sort(np.random.default_rng(0).uniform(-1.0, 1.0, 50))
    expected = stats.kstest(sample, law.cdf).statistic
    assert room._distance(sample, law) == pytest.approx(expected)


def test_half_point_and_its_error():
    rng = np.random.default_rng(1)
    samples = np.arange(10, 60, 2)
    chance = 1.0 / (1.0 + np.exp(-(samples - 33.3) / 2.5))
    found = np.array(
        [
            room._half_point(samples, rng.uniform(size=(len(samples), 24)) < chance[:, None])
            for _ in range(500)
        ]
    )
    assert found[:, 0].mean() == pytest.approx(33.3, abs=0.1)
    assert found[:, 0].std() == pytest.approx(found[:, 1].mean(), rel=0.1)


# ---- everything, and failures of what takes longer ----


@pytest.mark.slow
@pytest.mark.parametrize("family", ["student", "teacher"])
def test_limit_gaussian_fails_for_the_orthonormal_limit(monkeypatch, family):
    """The overlap at tau = 1 depends on the teacher's family, but hardly on the student's."""
    true = population_flow.limit

    def orthonormal(*args, **options):
        return true(*args, **{**options, family: "orthonormal"})

    monkeypatch.setattr(population_flow, "limit", orthonormal)
    found = failed("limit-gaussian")
    assert any("against the Gaussian limit" in quantity for quantity in found)
    assert any("rms distance" in quantity for quantity in found)
    assert any("told apart" in quantity for quantity in found) == (family == "teacher")


@pytest.mark.slow
def test_overlap_rates_fail_for_another_width(monkeypatch):
    true = population_flow.simulate

    def narrower(problem, t, **options):
        return true(problem.replace(width=problem.width - 1), t, **options)

    monkeypatch.setattr(population_flow, "simulate", narrower)
    assert len([quantity for quantity in failed("overlap-rates") if "finite d" in quantity]) >= 3
