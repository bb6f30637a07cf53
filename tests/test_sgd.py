import itertools
import json
import math
import os
import pathlib
import subprocess
import sys
import time

import naive
import numpy as np
import overparam as op
import pytest
from cases import FALSE_ALARM, sgd_arguments, smallest_pvalue, standard_errors
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from overparam import _check, _core, sgd
from overparam.results import Status
from overparam.sgd import Overlaps, Problem
from scipy import stats

# ---- reference values ----------------------------------------------------------------------------

REFERENCE = json.loads((pathlib.Path(__file__).parent / "reference" / "sgd.json").read_text())

PARAMETERS = {
    "gamma": "lr",
    "Delta": "noise_var",
    "b": "offset",
    "B": "batch",
    "N": "dim",
    "gamma_a": "second_layer_lr",
    "spherical": "spherical",
    "a": "second_layer",
    "a_star": "teacher_second_layer",
}


def read(entry, **changes):
    """Problem and overlaps of a reference entry; a second layer in words is the default."""
    M = np.array(entry["M0"] if "M0" in entry else entry["M"])
    Q = np.array(entry["Q0"] if "Q0" in entry else entry["Q"])
    P = np.array(entry.get("P", np.eye(M.shape[1])))
    given_ = {
        PARAMETERS[key]: value
        for key, value in entry.items()
        if key in PARAMETERS and not isinstance(value, str)
    }
    problem = Problem(width=M.shape[0], teacher_width=M.shape[1], **{"lr": 0.1, **given_})
    return problem.replace(**changes), Overlaps(Q=Q, M=M, P=P)


def mean_convention(p, sigma, eta, **options):
    """Problem with a = 1/p, a* = 1/p* and eta = lr a, and P of the teacher eigenvalues sigma."""
    sigma = np.asarray(sigma)
    problem = Problem(width=p, teacher_width=len(sigma), lr=eta * p, **options)
    return problem, np.diag(sigma * len(sigma))


def core(problem, P):
    """The compiled model of a problem."""
    return sgd._model(problem, np.asarray(P, dtype=float))


RIGHT_HAND_SIDES = {
    "plain": {},
    "gradient_flow": {},
    "batch4": {"batch": 4},
    "spherical": {"spherical": True},
    "trained_a_gamma_a_0.3": {"second_layer_lr": 0.3},
}


@pytest.mark.parametrize("name", RIGHT_HAND_SIDES)
def test_drift_reference(name):
    entry = REFERENCE["moments_and_rhs"]
    problem, state = read(entry["input"], **RIGHT_HAND_SIDES[name])
    noise = name != "gradient_flow"
    dQ, dM = sgd.drift(problem, state, noise=noise)
    _, _, da = core(problem, state.P).drift(state.Q, state.M, noise)
    for key, value in {"dM": dM, "dQ": dQ, "da": da}.items():
        # Entries are sums of terms of order one: rounding of a few 1e-16, also where they cancel.
        assert_allclose(value, entry["rhs"][name][key], rtol=entry["tol_rel"], atol=1e-15)


def test_risk_reference():
    entry = REFERENCE["moments_and_rhs"]
    assert_allclose(sgd.risk(*read(entry["input"])), entry["risk"], rtol=entry["tol_rel"])


@pytest.mark.parametrize(("dim", "batch"), [(20, 1), (20, 5), (100, 1)])
def test_mean_step_reference(dim, batch):
    entry = REFERENCE["exact_mean_step"]
    inputs = read(REFERENCE["moments_and_rhs"]["input"], dim=dim, batch=batch)
    step = sgd.mean_step(*inputs)
    expected = entry[f"N{dim}_B{batch}"]
    assert_allclose(step.M, expected["M1"], rtol=entry["tol_rel"])
    assert_allclose(step.Q, expected["Q1"], rtol=entry["tol_rel"])


def test_increment_covariance_reference():
    entry = REFERENCE["increment_covariance"]
    problem, state = read(REFERENCE["moments_and_rhs"]["input"])
    covariance = core(problem, state.P).increment_covariance(state.Q, state.M)
    assert_allclose(np.diag(covariance), entry["diag"], rtol=entry["tol_rel"])
    assert_allclose(covariance[0], entry["first_row"], rtol=entry["tol_rel"])
    assert_allclose(np.trace(covariance), entry["trace"], rtol=entry["tol_rel"])


TRAJECTORIES = [
    (name, method)
    for name, case in REFERENCE["ode_trajectories"]["cases"].items()
    for method in ("auto", "dop853", "rkc", "riccati")
    if method != "riccati" or case["input"].get("noise") is False
]


@pytest.mark.parametrize(("name", "method"), TRAJECTORIES)
def test_ode_reference(name, method):
    entry = REFERENCE["ode_trajectories"]["cases"][name]
    rtol = REFERENCE["ode_trajectories"]["tol_rel"]
    problem, start = read(entry["input"])
    result = sgd.ode(
        problem,
        start,
        entry["alphas"],
        noise=entry["input"].get("noise", True),
        method=method,
        rtol=1e-12,
        atol=1e-15,
    )
    values = {"M": result.M, "Q": result.Q, "a": result.second_layer, "risk": result.risk}
    for key, value in values.items():
        assert_allclose(value, entry[key], rtol=rtol, atol=1e-12)


@pytest.mark.parametrize("row", REFERENCE["plateau"]["table"])
def test_plateau_reference(row):
    rtol, teacher = REFERENCE["plateau"]["tol_rel"], np.full(row["p_star"], 1 / row["p_star"])
    problem, P = mean_convention(row["p"], teacher, row["eta"], noise_var=row["Delta"])
    plateau = sgd.plateau(problem, P)
    assert_allclose(plateau.scale, row["s"], rtol=rtol)
    assert_allclose(plateau.risk, row["plateau_risk"], rtol=rtol)
    assert_allclose(plateau.escape_rates, [row["escape_rate_M"]] * row["p_star"], rtol=rtol)
    assert_allclose(plateau.lr_max / row["p"], row["eta_max_plateau"], rtol=rtol)
    # Gradient flow is the limit of small lr.
    slow = sgd.plateau(problem.replace(lr=1e-13), P)
    assert_allclose(slow.risk, row["plateau_risk_gf"], rtol=rtol)
    rates = slow.escape_rates * (problem.lr / 1e-13)
    assert_allclose(rates, [row["gradient_flow_rate"]] * row["p_star"], rtol=rtol)


@pytest.mark.parametrize("row", REFERENCE["seed_ratio"]["table"])
def test_seed_ratio_reference(row):
    p, ps = row["p"], row["p_star"]
    problem = Problem(
        width=p,
        teacher_width=ps,
        lr=row["eta"] / row["a"],
        second_layer=row["a"],
        noise_var=row["Delta"],
    )
    start = Overlaps(Q=row["q0"] * np.eye(p), M=np.zeros((p, ps)), P=np.eye(ps))
    value = sgd.seed_ratio(problem, start)
    assert_allclose(value, row["value"], rtol=REFERENCE["seed_ratio"]["tol_rel"])


@pytest.mark.parametrize("row", REFERENCE["eta_max"]["table"])
@pytest.mark.parametrize(("surplus", "batch"), [(0, 1), (1, 3)])
def test_lr_max_reference(row, surplus, batch):
    p = len(row["sigma"]) + surplus
    problem, P = mean_convention(p, row["sigma"], 0.1, batch=batch)
    limit = sgd.lr_max(problem, P)
    assert_allclose(limit / p / batch, row["eta_max"], rtol=REFERENCE["eta_max"]["tol_rel"])
    assert_allclose(sgd.misadjustment(problem.replace(lr=limit), P), 1.0, rtol=1e-9)


@pytest.mark.parametrize("row", REFERENCE["underparameterised_minimum"]["table"])
def test_global_minimum_reference(row):
    value = sgd.global_minimum(*mean_convention(row["p"], row["sigma"], 0.1))
    rtol = REFERENCE["underparameterised_minimum"]["tol_rel"]
    assert_allclose(value, row["risk"], rtol=rtol)


@pytest.mark.parametrize("row", REFERENCE["late_time"]["table"])
def test_late_time_reference(row):
    teacher = np.full(row["p_star"], 1 / row["p_star"])
    value = sgd.late_time_constant(*mean_convention(row["p"], teacher, row["eta"]))
    assert_allclose(value, row["L_alpha2"], rtol=REFERENCE["late_time"]["tol_rel"])


@pytest.mark.parametrize("method", ["dop853", "riccati"])
def test_conserved_reference(method):
    entry = REFERENCE["conserved_J"]
    problem, start = read(entry["input"])
    assert_allclose(sgd.conserved(problem, start, 0.0), entry["J0"], rtol=entry["tol_rel"])
    tight = {"rtol": 1e-12, "atol": 1e-15}
    flow = sgd.ode(problem, start, [1.0, 3.0], noise=False, **tight, method=method)
    for i, t in enumerate(flow.t):
        J = sgd.conserved(problem, flow.overlaps(i), t)
        assert_allclose(J, entry["J_at_3"], rtol=entry["tol_rel"])
    noisy = sgd.ode(problem, start, [3.0], **tight).overlaps(0)
    J = sgd.conserved(problem, noisy, 3.0)
    assert_allclose(J, entry["J_at_3_with_noise"], rtol=entry["tol_rel"])


@pytest.mark.parametrize("method", ["auto", "riccati"])
def test_selected_rotation_reference(method):
    isotropic, ordered = REFERENCE["selection_isotropic"], REFERENCE["selection_anisotropic"]
    problem, start = read(isotropic["input"])
    options = {"noise": False, "method": method, "rtol": 1e-10, "atol": 1e-14}
    t, atol = [isotropic["input"]["alpha"]], isotropic["tol_abs"]
    M = sgd.ode(problem, start, t, **options).M[0]
    chosen = sgd.selected_rotation(problem, start)
    assert_allclose(M, isotropic["M_final"], rtol=0, atol=atol)
    assert_allclose(chosen, isotropic["predicted"], rtol=0, atol=atol)
    assert_allclose(np.abs(M - chosen).max(), isotropic["pred_dev"], rtol=0, atol=atol)
    left, _, right = np.linalg.svd(start.M)
    assert_allclose(np.abs(M - left @ right).max(), isotropic["polar_M0_dev"], rtol=0, atol=atol)

    P = np.diag(ordered["P_diag"])
    start = Overlaps(Q=start.Q, M=1e-3 * start.M, P=P)
    chosen = sgd.selected_rotation(problem, start)
    learned = sgd.ode(problem, start, t, **options).M[0] @ np.linalg.inv(P)
    atol = ordered["tol_abs"]
    assert_allclose(learned, ordered["O_final"], rtol=0, atol=atol)
    assert_allclose(chosen, ordered["QR_prediction"], rtol=0, atol=atol)
    assert_allclose(np.abs(learned - chosen).max(), ordered["dev"], rtol=0, atol=atol)


def committee(activation, state, a, a_star):
    """Problem with lr 1 and the given second layers."""
    p, ps = state.M.shape
    return Problem(
        width=p,
        teacher_width=ps,
        lr=1.0,
        activation=activation,
        second_layer=a,
        teacher_second_layer=a_star,
    )


def kernels(activation, state):
    """I2(0, 1), I3(0, 1, 2) and I4(0, 1, 2, 3) of two units each, from risk and drift alone."""

    def risk(*a):
        return sgd.risk(committee(activation, state, a, (0, 0)), state)

    def dQ01(a, a_star, noise):
        return sgd.drift(committee(activation, state, a, a_star), state, noise=noise)[0][0, 1]

    # Polarisation: the risk is quadratic in a, the drift of Q linear (noise: quadratic) in a*.
    I2 = risk(1, 1) - risk(1, 0) - risk(0, 1)
    I3 = dQ01((1, 0), (1, 0), False) - dQ01((1, 0), (0, 0), False)
    corners = itertools.product((1, 0), repeat=2)
    I4 = sum((-1) ** sum(c) * dQ01((1, 1), c, True) for c in corners) / 2
    return {"I2": I2, "I3": I3, "I4": I4}


def test_committee_kernels_reference():
    entry = REFERENCE["erf"]
    _, state = read(entry["input"])
    for activation in ("erf", "relu"):
        for name, value in kernels(activation, state).items():
            key = f"{name}_{activation}_{'0123'[: int(name[1])]}"
            if key in entry:
                assert_allclose(value, entry[key], rtol=entry["tol_rel"])


@pytest.mark.parametrize("method", ["auto", "rkc"])
def test_erf_ode_reference(method):
    entry = REFERENCE["erf"]
    problem, start = read(entry["input"], activation="erf")
    result = sgd.ode(problem, start, entry["alphas"], method=method)
    for key in ("M", "Q", "risk"):
        assert_allclose(getattr(result, key), entry[key], rtol=entry["tol_rel"])


FINITE = REFERENCE["finite_N_sgd"]["cases"]
FINITE_RUNS = [
    pytest.param("noise_N50", "chain", 20_000, id="noise_N50-chain"),
    pytest.param("noise_N50", "direct", 6000, id="noise_N50-direct"),
    pytest.param("batch_spherical_N100", "chain", 20_000, id="batch_spherical_N100-chain"),
    pytest.param(
        *("batch_spherical_N100", "direct", 6000),
        id="batch_spherical_N100-direct",
        marks=pytest.mark.slow,
    ),
]


def flattened(M, Q):
    """M row-major, then Q row-major, behind the other axes."""
    return np.concatenate([x.reshape(*x.shape[:-2], -1) for x in (M, Q)], axis=-1)


@pytest.mark.parametrize(("name", "method", "replicas"), FINITE_RUNS)
def test_finite_dimension_reference(name, method, replicas):
    """The rule of the reference: 5 standard errors, 12 % of variances, 0.1 deviations of quantiles.

    The direct reference has too few replicas for the last two.
    """
    problem, start = read(FINITE[name]["input"])
    reduced, direct = (FINITE[name][kind]["at_step"] for kind in ("reduced", "brute"))
    t = [int(step) / problem.dim for step in reduced]
    run = sgd.simulate(problem, start, t, replicas=replicas, method=method, seed=1)
    assert not run.diverged.any()
    values = flattened(run.M, run.Q)
    for i, step in enumerate(reduced):
        sample, excess = values[:, i], run.risk[:, i]
        mean, deviation = sample.mean(axis=0), sample.std(axis=0, ddof=1)
        for reference in (reduced[step], direct[step]):
            error = np.hypot(reference["se"], deviation / math.sqrt(replicas))
            assert (np.abs(mean - reference["mean"]) <= 5 * error + 1e-12).all()
        reference = reduced[step]
        moving = np.array(reference["var"]) > 1e-20  # norms that are kept only round
        variance = np.array(reference["var"])[moving]
        assert_allclose(deviation[moving] ** 2, variance, rtol=0.12)
        for q in (10, 50, 90):
            gap = np.abs(np.percentile(sample, q, axis=0) - reference[f"q{q}"])
            assert (gap <= 0.1 * deviation + 1e-12).all()
        assert abs(np.median(excess) - reference["risk_median"]) <= 0.1 * excess.std()


def test_fluctuations_reference():
    entry = REFERENCE["fluctuations_lna"]
    problem, start = read(entry["input"])
    sigma = sgd.fluctuations(problem, start, entry["input"]["alphas"])
    variances = np.diagonal(sigma, axis1=1, axis2=2)
    assert_allclose(variances, entry["N_var"], rtol=entry["tol_rel"])


# ---- the equations against naive.py --------------------------------------------------------------

# Widths on both sides of the borders of the unrolled loops (8) and of vector registers.
SIZES = [(1, 1), (1, 4), (2, 3), (3, 2), (4, 5), (5, 1), (6, 3), (7, 2), (8, 3), (9, 1), (10, 5)]
SIZES += [(17, 2), (130, 7)]
OPTIONS = {
    "plain": {},
    "noise": {"noise_var": 0.3},
    "batch": {"batch": 4, "noise_var": 0.1},
    "centred": {"centred": True},
    "offset": {"offset": -0.4, "noise_var": 0.2},
    "spherical": {"spherical": True, "noise_var": 0.2},
    "trained": {"second_layer_lr": 0.3, "offset": 0.2},
    "together": {"spherical": True, "batch": 3, "offset": 0.3, "noise_var": 0.2},
}


def random_problem(rng, p, ps, *, signed=True, **options):
    """Second layers of order 1/width, of any sign; lr of order one."""
    layers = {"second_layer": p, "teacher_second_layer": ps}
    for name, width in layers.items():
        weights = rng.uniform(0.5, 1.5, width) / width
        layers[name] = weights * rng.choice([-1, 1], width) if signed else weights
    return Problem(width=p, teacher_width=ps, **{"lr": rng.uniform(0.2, 0.6), **layers, **options})


def random_overlaps(rng, p, ps, *, dim=None, scale=0.8):
    """Overlaps of Gaussian weights, of full rank unless dim is below p + p*."""
    dim = dim or 2 * (p + ps)
    W, W_star = scale * rng.standard_normal((p, dim)), rng.standard_normal((ps, dim))
    return Overlaps.from_weights(W, W_star)


def naive_drift(problem, state, noise=True):
    """(dM, dQ, da) of naive.py."""
    arguments, options = sgd_arguments(problem, state)
    if problem.activation == "quadratic":
        return naive.sgd_drift(*arguments, noise=noise, **options)
    dM, dQ = naive.committee_drift(problem.activation, *arguments, noise=noise, **options)
    return dM, dQ, np.zeros(problem.width)


def assert_same_drift(problem, state, *, noise=True, rtol=1e-11):
    dQ, dM = sgd.drift(problem, state, noise=noise)
    _, _, da = core(problem, state.P).drift(state.Q, state.M, noise)
    for value, expected in zip((dM, dQ, da), naive_drift(problem, state, noise), strict=True):
        # Where norms are kept, terms of order one cancel.
        assert_allclose(value, expected, rtol=rtol, atol=rtol * max(np.abs(expected).max(), 1e-2))


@pytest.mark.parametrize(("p", "ps"), SIZES)
@pytest.mark.parametrize("name", OPTIONS)
def test_drift_and_risk_are_naive(p, ps, name):
    rng = np.random.default_rng(p + 20 * ps)
    for _ in range(3):
        problem = random_problem(rng, p, ps, **OPTIONS[name])
        state = random_overlaps(rng, p, ps)
        for noise in (True, False):
            assert_same_drift(problem, state, noise=noise)
        expected = naive.sgd_risk(*sgd_arguments(problem, state)[0], problem.b)
        assert_allclose(sgd.risk(problem, state), expected, rtol=1e-12)


COMMITTEE_OPTIONS = [
    {},
    {"noise_var": 0.3, "batch": 3},
    {"offset": 0.4, "noise_var": 0.1},
    {"offset": -0.2, "spherical": True},
]


@pytest.mark.parametrize(("p", "ps"), [(1, 1), (2, 3), (3, 2), (5, 1), (9, 1)])
def test_erf_drift_and_risk_are_naive(p, ps):
    rng = np.random.default_rng(p)
    for options in COMMITTEE_OPTIONS:
        problem = random_problem(rng, p, ps, activation="erf", **options)
        state = random_overlaps(rng, p, ps)
        for noise in (True, False):
            assert_same_drift(problem, state, noise=noise)
        expected = naive.committee_risk("erf", *sgd_arguments(problem, state)[0], problem.b)
        assert_allclose(sgd.risk(problem, state), expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(("p", "ps"), [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_relu_drift_and_risk_are_naive(p, ps):
    rng = np.random.default_rng(10 * p + ps)
    for options in COMMITTEE_OPTIONS[1:]:
        problem = random_problem(rng, p, ps, activation="relu", **options)
        state = random_overlaps(rng, p, ps)
        assert_same_drift(problem, state, rtol=1e-9)  # the accuracy that the docstring states
        assert_same_drift(problem, state, noise=False)
        expected = naive.committee_risk("relu", *sgd_arguments(problem, state)[0], problem.b)
        assert_allclose(sgd.risk(problem, state), expected, rtol=1e-12)


def test_relu_drift_of_dependent_units():
    """Equal, proportional and opposite units: correlations of one and of minus one."""
    rng = np.random.default_rng(4)
    W, W_star = rng.standard_normal((3, 12)), rng.standard_normal((2, 12))
    W[1], W[2] = 2 * W[0], W_star[0]
    state = Overlaps.from_weights(W, W_star)
    problem = random_problem(rng, 3, 2, activation="relu", offset=0.2, noise_var=0.1)
    assert_same_drift(problem, state, rtol=1e-9)
    W[1] = -W[0]
    assert_same_drift(problem, Overlaps.from_weights(W, W_star), rtol=1e-9)


@pytest.mark.parametrize("activation", ["quadratic", "erf", "relu"])
def test_drift_is_the_mean_increment_of_direct_sgd(activation):
    """At large N one step moves M and Q by drift/N in the mean: 200 000 samples of the fields."""
    rng = np.random.default_rng(7)
    options = {"activation": activation, "noise_var": 0.2, "offset": 0.3}
    problem = random_problem(rng, 2, 2, **options)
    state = random_overlaps(rng, 2, 2)
    omega = naive.overlap_matrix(state.M, state.Q, state.P)
    samples = 200_000
    fields, fields_star = np.split(
        rng.standard_normal((samples, 4)) @ np.linalg.cholesky(omega).T, 2, axis=1
    )
    g, slope = naive.ACTIVATIONS[activation]
    e = g(fields_star) @ problem.a_star - g(fields) @ problem.a + problem.b
    e += math.sqrt(problem.noise_var) * rng.standard_normal(samples)
    c = problem.lr * e[:, None] * problem.a * slope(fields)
    dM = c[:, :, None] * fields_star[:, None, :]
    half = c[:, :, None] * fields[:, None, :]
    dQ = half + half.transpose(0, 2, 1) + c[:, :, None] * c[:, None, :]
    sample, (drift_Q, drift_M) = flattened(dM, dQ), sgd.drift(problem, state)
    error = sample.mean(axis=0) - flattened(drift_M, drift_Q)
    assert (np.abs(error) < standard_errors(8, samples) * stats.sem(sample)).all()


@pytest.mark.parametrize(("p", "ps"), SIZES)
def test_mean_step_is_naive(p, ps):
    rng = np.random.default_rng(p + 20 * ps)
    for dim, batch, offset in ((1, 1, 0.0), (7, 4, 0.3), (1000, 2000, -0.5)):
        options = {"dim": dim, "batch": batch, "offset": offset, "noise_var": 0.3}
        problem = random_problem(rng, p, ps, **options)
        state = random_overlaps(rng, p, ps)
        arguments, options = sgd_arguments(problem, state)
        step = sgd.mean_step(problem, state)
        M, Q = naive.sgd_mean_step(*arguments, dim=dim, **options)
        assert_allclose(step.M, M, rtol=1e-11, atol=1e-13)
        assert_allclose(step.Q, Q, rtol=1e-11, atol=1e-13)
        assert_array_equal(step.P, state.P)


@pytest.mark.parametrize(("p", "ps"), [(1, 1), (2, 3), (5, 1), (4, 2)])
def test_increment_covariance_is_naive(p, ps):
    rng = np.random.default_rng(p + 20 * ps)
    problem = random_problem(rng, p, ps, offset=0.3, noise_var=0.2)
    state = random_overlaps(rng, p, ps)
    arguments, options = sgd_arguments(problem, state)
    options.pop("batch")
    covariance = core(problem, state.P).increment_covariance(state.Q, state.M)
    expected = naive.increment_covariance(*arguments, **options)
    assert_allclose(covariance, expected, rtol=1e-11, atol=1e-11 * np.abs(expected).max())


@pytest.mark.parametrize(("p", "ps"), [(1, 1), (2, 1), (1, 3), (3, 2)])
def test_fluctuations_are_naive(p, ps):
    rng = np.random.default_rng(p + 20 * ps)
    problem = random_problem(rng, p, ps, lr=0.2, offset=0.1, noise_var=0.2)
    state, t = random_overlaps(rng, p, ps), [0.0, 0.3, 1.0]
    arguments, options = sgd_arguments(problem, state)
    options.pop("batch")
    expected, _ = naive.sgd_fluctuations(*arguments, t, **options)
    sigma = sgd.fluctuations(problem, state, t)
    assert_allclose(sigma, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())
    assert_array_equal(sigma, sigma.transpose(0, 2, 1))


ODE_CASES = [
    ((1, 1), "noise"),
    ((2, 3), "offset"),
    ((5, 2), "batch"),
    ((4, 1), "spherical"),
    ((3, 2), "trained"),
    ((8, 3), "centred"),
    ((9, 2), "together"),
    ((17, 1), "plain"),
]


def assert_same_trajectory(result, expected, *, rtol=1e-7):
    """Against M, Q and a of naive.py, and the risk of these."""
    problem, P = result.problem, result.P
    if problem.activation == "quadratic":
        risk = [
            naive.sgd_risk(M, Q, P, a, problem.a_star, problem.b)
            for M, Q, a in zip(*expected, strict=True)
        ]
    else:
        arguments = (P, problem.a, problem.a_star, problem.b)
        risk = [
            naive.committee_risk(problem.activation, M, Q, *arguments)
            for M, Q, _ in zip(*expected, strict=True)
        ]
    values = (result.M, result.Q, result.second_layer, result.risk)
    for value, wanted in zip(values, (*expected, risk), strict=True):
        assert_allclose(value, wanted, rtol=rtol, atol=rtol * np.abs(wanted).max())


@pytest.mark.parametrize("method", ["auto", "dop853", "rkc"])
@pytest.mark.parametrize(("size", "name"), ODE_CASES)
def test_ode_is_naive(size, name, method):
    rng = np.random.default_rng(sum(size))
    problem = random_problem(rng, *size, signed=False, **{"lr": 0.06 * size[0], **OPTIONS[name]})
    start, t = random_overlaps(rng, *size), [0.3, 1.0, 4.0]
    arguments, options = sgd_arguments(problem, start)
    expected = naive.sgd_ode(*arguments, t, **options)
    result = sgd.ode(problem, start, t, method=method)
    assert_same_trajectory(result, expected, rtol=1e-6)
    tight = sgd.ode(problem, start, t, method=method, rtol=1e-11, atol=1e-13)
    assert_same_trajectory(tight, expected, rtol=1e-7)


@pytest.mark.parametrize(
    ("activation", "size"), [("erf", (2, 3)), ("erf", (3, 1)), ("relu", (1, 1))]
)
def test_committee_ode_is_naive(activation, size):
    rng = np.random.default_rng(2)
    options = {"lr": 0.4, "activation": activation, "offset": 0.1, "noise_var": 0.1}
    problem = random_problem(rng, *size, signed=False, **options)
    start, t = random_overlaps(rng, *size), [0.5, 2.0]
    arguments, options = sgd_arguments(problem, start)
    expected = naive.sgd_ode(*arguments, t, activation=activation, rtol=1e-8, **options)
    assert_same_trajectory(sgd.ode(problem, start, t), expected, rtol=1e-6)


# ---- reductions against the full equations -------------------------------------------------------


def rotation(rng, n):
    return stats.ortho_group.rvs(n, random_state=rng) if n > 1 else np.ones((1, 1))


def commuting_overlaps(rng, p, ps, rho=1.0):
    """Q and M M^T commute, P = rho I: M = X diag(m) Y^T and Q = X diag(q) X^T."""
    X, Y, r = rotation(rng, p), rotation(rng, ps), min(p, ps)
    q = rng.uniform(0.3, 0.9, p)
    m = rng.uniform(0.02, 0.3, r)
    return Overlaps(Q=(X * q) @ X.T, M=(X[:, :r] * m) @ Y[:, :r].T, P=rho * np.eye(ps))


@pytest.mark.parametrize("noise", [True, False])
@pytest.mark.parametrize(("p", "ps"), [(1, 1), (1, 3), (3, 1), (3, 3), (5, 2), (2, 5), (12, 4)])
def test_modes_are_the_full_equations(p, ps, noise):
    rng = np.random.default_rng(p + 20 * ps)
    problem = Problem(width=p, teacher_width=ps, lr=0.2 * p, noise_var=0.1, offset=0.05, batch=2)
    start, t = commuting_overlaps(rng, p, ps, rho=1.3), [0.0, 1.0, 5.0, 30.0]
    options = {"noise": noise, "rtol": 1e-11, "atol": 1e-14}
    full = sgd.ode(problem, start, t, method="dop853", **options)
    for method in ("modes", "auto"):
        modes = sgd.ode(problem, start, t, method=method, **options)
        assert modes.method == "modes"
        assert_same_trajectory(modes, (full.M, full.Q, full.second_layer), rtol=1e-8)


def test_modes_of_a_wide_student():
    """p = 2000 in O(p): Q proportional to the identity needs no decomposition of its own."""
    p = 300
    problem = Problem(width=p, teacher_width=2, lr=0.1 * p)
    start = Overlaps(Q=0.5 * np.eye(p), M=0.01 * np.eye(p, 2), P=np.eye(2))
    result = sgd.ode(problem, start, [100.0])
    assert result.method == "modes"
    surplus = np.diag(result.Q[0])[2:]
    assert_allclose(surplus, surplus[0], rtol=1e-12)


RICCATI = [
    ((1, 1), 0.0),
    ((2, 3), 0.1),
    ((3, 3), 0.0),
    ((5, 2), 0.0),
    ((9, 2), -0.05),
    ((4, 1), 0.0),
]


@pytest.mark.parametrize(("size", "offset"), RICCATI)
def test_riccati_is_gradient_flow(size, offset):
    rng = np.random.default_rng(sum(size))
    p, ps = size
    a_star = rng.uniform(0.3, 1.0, ps)
    problem = Problem(
        width=p, teacher_width=ps, lr=0.3 * p, teacher_second_layer=a_star, offset=offset
    )
    start, t = random_overlaps(rng, p, ps), [0.0, 0.5, 2.0, 10.0, 60.0]
    options = {"noise": False, "rtol": 1e-10, "atol": 1e-13}
    full = sgd.ode(problem, start, t, method="dop853", **options)
    closed = sgd.ode(problem, start, t, method="riccati", **options)
    assert closed.method == "riccati"
    assert_same_trajectory(closed, (full.M, full.Q, full.second_layer), rtol=1e-7)


def test_riccati_of_signed_teachers_and_dependent_starts():
    rng = np.random.default_rng(3)
    problem = Problem(width=3, teacher_width=2, lr=0.6, teacher_second_layer=[0.6, -0.4])
    W, W_star = 0.6 * rng.standard_normal((3, 9)), rng.standard_normal((2, 9))
    W[1] = W[0]
    t, options = [1.0, 20.0], {"noise": False, "rtol": 1e-10}
    start = Overlaps.from_weights(W, W_star)
    full = sgd.ode(problem, start, t, method="dop853", **options)
    closed = sgd.ode(problem, start, t, method="riccati", **options)
    assert_allclose(closed.risk, full.risk, rtol=1e-7)
    assert_same_trajectory(closed, (full.M, full.Q, full.second_layer), rtol=1e-7)


def test_late_times():
    """A surplus unit: a decay of R as 1/t^2 with fast modes around it, to t = 10^6 in seconds."""
    problem = Problem(width=3, teacher_width=2, lr=0.3, dim=1000)
    start = Overlaps.random(problem, scale=0.7)
    began = time.perf_counter()
    result = sgd.ode(problem, start, [1e3, 1e4, 1e6])
    assert time.perf_counter() - began < 10
    assert result.method == "dop853+rkc"
    limit = sgd.late_time_constant(problem)
    assert_allclose(result.risk[2], limit / 1e12, rtol=0, atol=1e-12)  # the absolute tolerance
    # R t^2 = limit (1 + c/t + O(1/t^2)): without the term in 1/t the next order is left.
    first, second = result.risk[:2] * result.t[:2] ** 2 / limit
    assert 1 < second < first < 1.2
    assert_allclose((10 * second - first) / 9, 1.0, rtol=0, atol=(first - 1) ** 2)


# ---- analysis against naive.py -------------------------------------------------------------------


def spread(rng, ps, *, low=0.6, high=1.4):
    """Overlaps of a teacher with eigenvalues of order one."""
    U = rotation(rng, ps)
    P = (U * rng.uniform(low, high, ps)) @ U.T
    return 0.5 * (P + P.T)


MINIMA = [
    (1, 1, {}),
    (1, 3, {}),
    (2, 4, {"offset": 0.3}),
    (3, 3, {"offset": -0.5}),
    (2, 3, {"offset": -3.0}),
    (3, 2, {"second_layer": [0.5, -0.4, 0.3]}),
    (2, 2, {"second_layer": [0.5, -0.4], "teacher_second_layer": [-0.3, 0.6]}),
    (2, 3, {"second_layer": [-0.5, -0.4]}),
    (2, 1, {"second_layer": [0.0, 0.7], "offset": -1.0}),
]


@pytest.mark.parametrize(("p", "ps", "options"), MINIMA)
def test_global_minimum_is_naive(p, ps, options):
    problem = Problem(width=p, teacher_width=ps, lr=0.1, **options)
    P = spread(np.random.default_rng(p + 20 * ps), ps)
    expected = naive.global_minimum(P, problem.a, problem.a_star, p, problem.b, starts=6)
    assert_allclose(sgd.global_minimum(problem, P), expected, rtol=1e-7, atol=1e-9)


def test_global_minimum_is_reached_by_the_flow():
    problem = Problem(width=2, teacher_width=4, lr=0.2, dim=50)
    start = Overlaps.random(problem, P=np.diag([2.0, 1.5, 1.0, 0.6]))
    final = sgd.ode(problem, start, [3000.0], noise=False)
    assert_allclose(final.risk[0], sgd.global_minimum(problem, start.P), rtol=1e-9)


@pytest.mark.parametrize(("p", "ps"), [(1, 1), (2, 3), (4, 2), (9, 3)])
@pytest.mark.parametrize("options", [{}, {"noise_var": 0.4, "batch": 3}, {"offset": 0.2}])
def test_plateau_is_naive(p, ps, options):
    rng = np.random.default_rng(p + 20 * ps)
    P, a_star = spread(rng, ps), rng.uniform(0.3, 1.0, ps)
    problem = Problem(
        width=p, teacher_width=ps, lr=0.04, second_layer=0.8, teacher_second_layer=a_star, **options
    )
    plateau = sgd.plateau(problem, P)
    noise = {"b": problem.b, "Delta": problem.noise_var, "batch": problem.batch}
    arguments = (P, problem.a, problem.a_star)
    q, risk, rates = naive.plateau(*arguments, gamma=problem.lr, **noise)
    assert_allclose(plateau.scale, 0.8 * q, rtol=1e-9)
    assert_allclose(plateau.risk, risk, rtol=1e-9)
    assert_allclose(plateau.escape_rates, rates, rtol=1e-8)
    assert_allclose(plateau.lr_max, naive.plateau_lr_max(*arguments, **noise), rtol=1e-9)
    with pytest.raises(op.ConvergenceError) as caught:
        sgd.plateau(problem.replace(lr=1.001 * plateau.lr_max), P)
    assert caught.value.result.status is Status.NOT_CONVERGED
    assert_allclose(caught.value.result.lr_max, plateau.lr_max, rtol=1e-13)


def test_the_plateau_is_a_fixed_point():
    problem = Problem(width=3, teacher_width=2, lr=0.2, noise_var=0.2, batch=2, offset=0.1)
    q = float(sgd.plateau(problem).scale) / problem.a[0]
    state = Overlaps(Q=q * np.eye(3), M=np.zeros((3, 2)), P=np.eye(2))
    dQ, dM = sgd.drift(problem, state)
    assert_allclose(dQ, 0, atol=1e-15)
    assert_allclose(dM, 0, atol=0)
    assert_allclose(sgd.risk(problem, state), sgd.plateau(problem).risk, rtol=1e-13)


@pytest.mark.parametrize(("p", "ps", "batch"), [(1, 1, 1), (3, 3, 1), (3, 2, 4), (4, 1, 2)])
def test_stability_is_naive(p, ps, batch):
    rng = np.random.default_rng(p + 20 * ps)
    P = spread(rng, ps)
    problem = Problem(
        width=p, teacher_width=ps, lr=0.1, batch=batch, second_layer=0.7, teacher_second_layer=0.9
    )
    limit = sgd.lr_max(problem, P)
    expected = naive.lr_max(P, problem.a, problem.a_star, batch=batch)
    assert_allclose(limit, expected, rtol=1e-7)  # an eigenvalue of 1e-11 counts as zero there
    sigma = 0.9 * np.linalg.eigvalsh(P)
    value = sgd.misadjustment(problem, P)
    assert_allclose(value, naive.misadjustment(sigma, 0.07, batch), rtol=1e-13)
    if p > ps:
        constant = sgd.late_time_constant(problem, P)
        expected = naive.late_time_constant(sigma, p, 0.07, batch)
        assert_allclose(constant, expected, rtol=1e-12)
    assert sgd.misadjustment(problem.replace(lr=100.0 * batch), P) == np.inf
    assert sgd.noise_floor(problem.replace(lr=1.01 * limit, noise_var=0.1), P) == np.inf


@pytest.mark.parametrize(("p", "batch"), [(2, 1), (2, 3), (3, 1)])
def test_the_noise_floor_is_reached(p, batch):
    problem = Problem(width=p, teacher_width=2, lr=0.15 * p, noise_var=0.4, batch=batch)
    P = np.diag([1.2, 0.7])
    M = math.sqrt(problem.a_star[0] / problem.a[0]) * np.eye(p, 2) @ P
    Q = problem.a_star[0] / problem.a[0] * np.eye(p, 2) @ P @ np.eye(2, p)
    solved = Overlaps(Q=Q, M=M, P=P)
    assert sgd.risk(problem, solved) < 1e-15
    final = sgd.ode(problem, solved, [1e3], rtol=1e-11)
    assert_allclose(final.risk[0], sgd.noise_floor(problem, P), rtol=1e-8)


ESCAPES = [(1, 1), (3, 2), (2, 4)]


@pytest.mark.parametrize(("p", "ps"), ESCAPES)
@pytest.mark.parametrize("isotropic", [True, False])
def test_escape_time_is_naive(p, ps, isotropic):
    rng = np.random.default_rng(p + 20 * ps)
    P = 1.2 * np.eye(ps) if isotropic else spread(rng, ps)
    problem = Problem(width=p, teacher_width=ps, lr=0.5)
    start = Overlaps(Q=random_overlaps(rng, p, ps).Q, M=1e-4 * rng.standard_normal((p, ps)), P=P)
    arguments, _ = sgd_arguments(problem, start)
    for drop in (1e-6, 1e-2):
        expected = naive.escape_time(*arguments, gamma=problem.lr, drop=drop)
        assert_allclose(sgd.escape_time(problem, start, drop=drop), expected, rtol=1e-9)


def test_escape_time_of_unequal_teachers():
    """a*_r and |w*_r|^2 enter by their product alone."""
    rng = np.random.default_rng(8)
    problem = Problem(width=2, teacher_width=3, lr=0.3, teacher_second_layer=[0.2, 0.5, 0.3])
    P = spread(rng, 3)
    start = Overlaps(Q=0.5 * np.eye(2), M=1e-4 * rng.standard_normal((2, 3)), P=P)
    D = np.sqrt(problem.a_star)
    equal = Overlaps(Q=start.Q, M=start.M * D, P=P * D * D[:, None])
    expected = sgd.escape_time(problem.replace(teacher_second_layer=1.0), equal, drop=1e-3)
    assert_allclose(sgd.escape_time(problem, start, drop=1e-3), expected, rtol=1e-12)


def test_escape_time_is_that_of_the_flow():
    problem = Problem(width=3, teacher_width=2, lr=0.4, dim=10**9)
    start = Overlaps.random(problem, scale=0.6, seed=2)
    drop = 1e-3
    t = sgd.escape_time(problem, start, drop=drop)
    flow = sgd.ode(problem, start, [t], noise=False)
    fallen = sgd.plateau(problem.replace(lr=1e-9)).risk - flow.risk[0]
    # The formula is linear in the drop: a relative error of the order of drop / R.
    assert_allclose(fallen, drop, rtol=10 * drop)
    assert sgd.escape_time(problem, start, drop=1e-30) < 0
    orthogonal = Overlaps(Q=start.Q, M=np.zeros((3, 2)), P=start.P)
    assert sgd.escape_time(problem, orthogonal, drop=drop) == np.inf


@pytest.mark.parametrize(("p", "ps"), [(1, 1), (3, 2), (2, 4), (10, 3)])
def test_symmetry_functions_are_naive(p, ps):
    rng = np.random.default_rng(p + 20 * ps)
    problem = Problem(
        width=p, teacher_width=ps, lr=0.5, teacher_second_layer=rng.uniform(0.2, 0.8, ps)
    )
    state = random_overlaps(rng, p, ps)
    arguments, _ = sgd_arguments(problem, state)
    for t in (0.0, 1.7):
        expected = naive.conserved_J(*arguments, problem.lr, t)
        assert_allclose(sgd.conserved(problem, state, t), expected, rtol=1e-9, atol=1e-12)
    angles = sgd.principal_angles(state)
    assert angles.shape == (min(p, ps),)
    # scipy.linalg.subspace_angles and ours are accurate at both ends.
    assert_allclose(angles, naive.principal_angles(*arguments[:3]), rtol=1e-7, atol=1e-9)


def test_principal_angles_of_special_spaces():
    M = 0.7 * np.eye(3, 2)
    inside = Overlaps(Q=M @ M.T, M=M, P=np.eye(2))
    assert_allclose(sgd.principal_angles(inside), 0, atol=1e-7)
    apart = Overlaps(Q=np.eye(3), M=np.zeros((3, 2)), P=np.eye(2))
    assert_allclose(sgd.principal_angles(apart), math.pi / 2)
    # One direction common, the other tilted by a tiny angle.
    tiny = 1e-6
    M = np.diag([1.0, math.cos(tiny)])
    tilted = Overlaps(Q=np.eye(2), M=M, P=np.eye(2))
    assert_allclose(sgd.principal_angles(tilted)[1], tiny, rtol=1e-3)


@pytest.mark.parametrize("eigenvalues", [[1.0], [2.0, 1.0, 0.5], [1.5, 1.5, 0.7], [1.0, 1.0, 1.0]])
def test_selected_rotation_is_naive(eigenvalues):
    rng = np.random.default_rng(len(eigenvalues))
    ps = len(eigenvalues)
    for p in (ps, ps + 2):
        U = rotation(rng, ps)
        P = (U * eigenvalues) @ U.T
        P = 0.5 * (P + P.T)
        start = Overlaps(Q=random_overlaps(rng, p, 1).Q, M=1e-3 * rng.standard_normal((p, ps)), P=P)
        chosen = sgd.selected_rotation(Problem(width=p, teacher_width=ps, lr=0.1), start)
        expected = naive.selected_rotation(start.M, start.Q, start.P)
        assert_allclose(chosen, expected, atol=1e-9)
        assert_allclose(chosen.T @ chosen, np.eye(ps), atol=1e-13)


@pytest.mark.parametrize(("p", "ps"), [(1, 1), (3, 2), (2, 4)])
def test_seed_ratio_is_naive(p, ps):
    problem = Problem(
        width=p,
        teacher_width=ps,
        lr=0.07,
        second_layer=0.6,
        teacher_second_layer=0.8 / ps,
        noise_var=0.3,
    )
    start = Overlaps(Q=0.4 * np.eye(p), M=np.zeros((p, ps)), P=1.3 * np.eye(ps))
    expected = naive.seed_ratio(p, ps, 0.4, 1.3, 0.6, 0.8 / ps, gamma=0.07, Delta=0.3)
    assert_allclose(sgd.seed_ratio(problem, start), expected, rtol=1e-6)
    # Only the traces count: a random start at finite N is as good.
    tilted = Overlaps(
        Q=0.4 * np.eye(p) + 0.02 * (np.ones((p, p)) - np.eye(p)), M=start.M, P=start.P
    )
    assert_allclose(sgd.seed_ratio(problem, tilted), expected, rtol=1e-6)
    assert sgd.seed_ratio(problem.replace(lr=0.0), start) == 0.0


# ---- simulation, path by path --------------------------------------------------------------------


def inputs_of(problem, seed, step, replica):
    """The batch of inputs x (B, N) that direct SGD draws at a step."""
    word = _check.seed_word(_check.seed_sequence(seed))
    stride = _core.sgd_padded(problem.dim)
    x = _core.normals(word, problem.batch * stride, step, replica)
    return x.reshape(problem.batch, stride)[:, : problem.dim]


def replayed(problem, M, steps, seed, replica):
    """(M, Q, a) after each step by naive.py, for P = I and a student in the teacher's span."""
    arguments, options = sgd_arguments(problem, Overlaps(Q=M @ M.T, M=M, P=np.eye(M.shape[1])))
    batch, spherical = options.pop("batch"), options.pop("spherical", False)
    W, W_star = np.zeros((len(M), problem.dim)), np.eye(M.shape[1], problem.dim)
    W[:, : M.shape[1]] = M
    W, W_star = math.sqrt(problem.dim) * W, math.sqrt(problem.dim) * W_star
    a, a_star = arguments[3:]
    options["norms"] = np.mean(W**2, axis=1) if spherical else None
    options["activation"] = problem.activation
    states = []
    for step in range(steps):
        x = inputs_of(problem, seed, step, replica)
        W, a = naive.direct_sgd_step(W, W_star, a, a_star, x, np.zeros(batch), **options)
        states.append((*naive.overlaps_from_weights(W, W_star)[:2], a))
    return states


# Widths across the unrolled sizes, dimensions and replicas across the vector registers.
PATHS = [
    ((1, 1, 5), 1, {}),
    ((2, 2, 16), 7, {"activation": "erf"}),
    ((3, 1, 17), 8, {"batch": 3}),
    ((4, 5, 31), 9, {"spherical": True}),
    ((5, 2, 7), 17, {"second_layer_lr": 0.2}),
    ((6, 3, 33), 3, {"activation": "relu", "offset": 0.3}),
    ((7, 4, 64), 2, {"offset": -0.2}),
    ((8, 2, 100), 2, {"spherical": True, "batch": 2}),
    ((9, 3, 15), 9, {"centred": True}),
    ((10, 1, 40), 1, {"batch": 2, "activation": "erf", "spherical": True}),
    ((17, 5, 6), 2, {"second_layer_lr": 0.1, "batch": 4}),
]


@pytest.mark.parametrize(("sizes", "replicas", "options"), PATHS)
def test_direct_sgd_is_naive_path_by_path(sizes, replicas, options):
    p, ps, dim = sizes
    rng = np.random.default_rng(p)
    problem = random_problem(rng, p, ps, dim=dim, **options)
    M, steps, seed = 0.5 * rng.standard_normal((p, ps)), 4, 11
    start = Overlaps(Q=M @ M.T, M=M, P=np.eye(ps))
    t = np.arange(1, steps + 1) / dim
    run = sgd.simulate(problem, start, t, method="direct", replicas=replicas, seed=seed)
    for replica in {0, replicas // 2, replicas - 1}:
        states = replayed(problem, M, steps, seed, replica)
        for i, expected in enumerate(states):
            values = (run.M, run.Q, run.second_layer)
            for value, wanted in zip(values, expected, strict=True):
                assert_allclose(value[replica, i], wanted, rtol=1e-9, atol=1e-11)


# Of numbers of order one, with the condition numbers of the overlaps used here (some 100).
ROUNDING = 1e-12


def recovered_inputs(problem, start, M1, Q1):
    """Fields (lambda, lambda*) and |x|^2 of the input that explains one step from start.

    With c = (2 lr / N) e a lambda a step is dM = c lambda*^T and
    dQ = c lambda^T + lambda c^T + |x|^2 c c^T. Everything but the input is known, so that most
    entries are redundant: the step is checked for its form on the way. Quadratic network with
    b = Delta = 0, unequal a and p, p* >= 2.
    """
    a, a_star = problem.a, problem.a_star
    dM, dQ = M1 - start.M, Q1 - start.Q
    rounding = ROUNDING * max(1, np.abs(Q1).max())
    left, singular, right = np.linalg.svd(dM)
    u, v = left[:, 0], singular[0] * right[0]  # c = alpha u and lambda* = v / alpha
    assert singular[1] < rounding
    others = np.eye(len(u)) - np.outer(u, u)
    assert np.abs(others @ dQ @ others).max() < rounding
    # lambda is proportional to u / a; its part across u is in dQ u.
    r = u / a
    cross, direction = others @ dQ @ u, others @ r
    h = cross @ direction / (direction @ direction)
    assert np.abs(cross - h * direction).max() < rounding
    # e from its definition and from c.
    alpha4 = 2 * problem.lr * h * (a_star @ v**2 - h**2 * (a @ r**2)) / problem.dim
    assert alpha4 > 0
    alpha = alpha4**0.25
    fields = h / alpha * r
    norm2 = (u @ dQ @ u - 2 * alpha * (u @ fields)) / alpha**2
    return np.concatenate([fields, v / alpha]), norm2, alpha


def whitened(problem, starts, M, Q):
    """Independent parts of the inputs that explain a step of each replica.

    These are standard normals (replicas, p + p*), up to a common sign, and |x|^2 without their
    squares, which is chi-square with N - p - p* degrees of freedom; then alpha of the step.
    """
    white, rest, alphas = [], [], []
    for start, M1, Q1 in zip(starts, M, Q, strict=True):
        fields, norm2, alpha = recovered_inputs(problem, start, M1, Q1)
        omega = naive.overlap_matrix(start.M, start.Q, start.P)
        white.append(np.linalg.solve(np.linalg.cholesky(omega), fields))
        rest.append(norm2 - white[-1] @ white[-1])
        alphas.append(alpha)
    return np.array(white), np.array(rest), np.array(alphas)


# Few degrees of freedom outside the network's span have branches of their own.
STEPS = [(3, 2, 5), (2, 2, 5), (3, 2, 7), (3, 2, 8), (2, 3, 40), (9, 2, 12)]


def assert_steps_have_gaussian_inputs(method, p, ps, dim, replicas):
    rng = np.random.default_rng(p)
    problem = random_problem(rng, p, ps, dim=dim)
    start, degrees = random_overlaps(rng, p, ps), dim - p - ps
    run = sgd.simulate(problem, start, [1 / dim], method=method, replicas=replicas)
    white, rest, alphas = whitened(problem, [start] * replicas, run.M[:, 0], run.Q[:, 0])
    white *= rng.choice([-1, 1], (replicas, 1))  # x and -x make the same step
    pvalues = [stats.kstest(component, "norm").pvalue for component in white.T]
    if degrees:
        pvalues.append(stats.kstest(rest, "chi2", (degrees,)).pvalue)
        white = np.column_stack([white, rest])
    else:
        # What it adds to Q, against what the rest of the input adds.
        added = (white**2).sum(axis=1) * alphas**2
        assert (np.abs(rest) * alphas**2 < ROUNDING * np.maximum(1, added)).all()
    pvalues += [
        stats.spearmanr(*pair).pvalue for pair in itertools.combinations(np.abs(white.T), 2)
    ]
    assert min(pvalues) * len(pvalues) > FALSE_ALARM


@pytest.mark.parametrize("method", ["chain", "direct"])
@pytest.mark.parametrize(("p", "ps", "dim"), STEPS)
def test_a_step_is_one_of_sgd_with_a_gaussian_input(method, p, ps, dim):
    assert_steps_have_gaussian_inputs(method, p, ps, dim, replicas=1000)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["chain", "direct"])
@pytest.mark.parametrize(("p", "ps", "dim"), [*STEPS, (2, 2, 1000)])
def test_a_step_is_one_of_sgd_with_a_gaussian_input_to_a_percent(method, p, ps, dim):
    assert_steps_have_gaussian_inputs(method, p, ps, dim, replicas=40_000)


@pytest.mark.parametrize("method", ["chain", "direct"])
def test_inputs_are_independent_over_steps_and_replicas(method):
    rng = np.random.default_rng(1)
    problem = random_problem(rng, 3, 2, dim=12)
    start, replicas = random_overlaps(rng, 3, 2), 1200
    run = sgd.simulate(problem, start, [1 / 12, 2 / 12], method=method, replicas=replicas)
    between = [run.overlaps(0, replica=r) for r in range(replicas)]
    first, second = (
        np.column_stack([np.abs(white), rest])
        for white, rest, _ in (
            whitened(problem, starts, run.M[:, i], run.Q[:, i])
            for i, starts in enumerate(([start] * replicas, between))
        )
    )
    pairs = [(first, second), (first[:-1], first[1:]), (first[:-8], first[8:])]
    pvalues = [
        stats.spearmanr(x, y).pvalue
        for one, other in pairs
        for x, y in itertools.product(one.T, other.T)
    ]
    assert min(pvalues) * len(pvalues) > FALSE_ALARM


MEAN_STEPS = [
    ((3, 2), {"dim": 6, "noise_var": 0.3, "offset": 0.2}),
    ((2, 1), {"dim": 3, "batch": 3, "noise_var": 0.1}),
    ((2, 2), {"dim": 5, "batch": 40, "offset": -0.1}),
    ((9, 1), {"dim": 30, "noise_var": 0.2}),
    ((1, 3), {"dim": 4}),
]


@pytest.mark.parametrize("method", ["chain", "direct"])
@pytest.mark.parametrize(("size", "options"), MEAN_STEPS)
def test_the_mean_of_one_step(size, options, method):
    rng = np.random.default_rng(sum(size))
    problem = random_problem(rng, *size, lr=0.1 * size[0], **options)
    start = random_overlaps(rng, *size)
    replicas = 100_000 if problem.batch * problem.dim < 100 else 20_000
    run = sgd.simulate(problem, start, [1 / problem.dim], replicas=replicas, method=method, seed=2)
    step = sgd.mean_step(problem, start)
    sample = flattened(run.M, run.Q)[:, 0]
    error = np.abs(sample.mean(axis=0) - flattened(step.M, step.Q))
    assert (error < standard_errors(sample.shape[1], replicas) * stats.sem(sample)).all()


# ---- simulation, in law --------------------------------------------------------------------------


def observed(run):
    """M, upper triangle of Q, second layer and risk at all times, one row per replica."""
    upper = np.triu_indices(run.Q.shape[-1], k=1 if run.problem.spherical else 0)
    columns = [run.M, run.Q[..., upper[0], upper[1]], run.risk]
    if run.problem.second_layer_lr > 0:
        columns.append(run.second_layer)
    # The test takes ranks: values equal but for rounding (a ReLU unit that is off does not move)
    # are made equal, and replicas that diverged are beyond all others.
    rows = np.concatenate([x.reshape(len(x), -1) for x in columns], axis=1).round(12)
    return np.nan_to_num(rows, nan=np.inf)


def dependent_overlaps(rng, dim):
    """A duplicate unit and one in the teacher's direction."""
    W, W_star = 0.7 * rng.standard_normal((3, dim)), rng.standard_normal((2, dim))
    W[1], W[2] = W[0], 0.7 * W_star[0]
    return Overlaps.from_weights(W, W_star)


def singular_teacher(rng, dim):
    W, W_star = 0.7 * rng.standard_normal((3, dim)), rng.standard_normal((2, dim))
    W_star[1] = -0.5 * W_star[0]
    return Overlaps.from_weights(W, W_star)


LAWS = {
    "plain": ((3, 2, 50), {}),
    "four": ((4, 2, 100), {}),
    "wide": ((9, 2, 30), {}),
    "noise": ((3, 2, 50), {"noise_var": 0.3}),
    "signed": ((3, 2, 50), {"second_layer": [0.3, -0.2, 0.4]}),
    "centred": ((3, 2, 50), {"centred": True, "second_layer": 0.4}),
    "batch": ((3, 2, 50), {"batch": 4, "noise_var": 0.3}),
    "batch-beyond": ((3, 2, 20), {"batch": 30}),
    "batch-small-rest": ((3, 2, 7), {"batch": 5, "lr": 0.3}),
    "spherical": ((3, 2, 50), {"spherical": True}),
    "trained": ((3, 2, 50), {"second_layer_lr": 0.3, "batch": 2}),
    "tight": ((3, 2, 6), {"lr": 0.05}),
    "no-rest": ((3, 2, 5), {"lr": 0.05, "noise_var": 0.1}),
    "erf": ((3, 2, 50), {"activation": "erf", "lr": 1.0}),
    "relu": ((3, 2, 50), {"activation": "relu", "lr": 0.8, "offset": 0.1}),
}


def law_case(name):
    (p, ps, dim), options = LAWS[name]
    problem = Problem(width=p, teacher_width=ps, dim=dim, **{"lr": 0.3, **options})
    start = Overlaps.random(problem, scale=0.7, seed=4)
    if problem.spherical:
        norms = np.sqrt(np.diag(start.Q))
        start = Overlaps(Q=start.Q / np.outer(norms, norms), M=start.M / norms[:, None], P=start.P)
    return problem, start


def assert_same_law(problem, start, replicas=2000):
    t = np.array([1, 6, 30, 90]) / problem.dim
    runs = [
        sgd.simulate(problem, start, t, replicas=replicas, method=method, seed=seed)
        for seed, method in enumerate(("chain", "direct"))
    ]
    assert smallest_pvalue(*map(observed, runs)) > FALSE_ALARM


@pytest.mark.parametrize("name", LAWS)
def test_chain_has_the_law_of_direct_sgd(name):
    assert_same_law(*law_case(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", LAWS)
def test_chain_has_the_law_of_direct_sgd_to_a_percent(name):
    assert_same_law(*law_case(name), replicas=40_000)


@pytest.mark.parametrize("make", [dependent_overlaps, singular_teacher])
@pytest.mark.parametrize("batch", [1, 4])
def test_chain_has_the_law_of_direct_sgd_at_singular_starts(make, batch):
    start = make(np.random.default_rng(3), 30)
    problem = Problem(width=3, teacher_width=2, lr=0.3, dim=30, batch=batch)
    assert_same_law(problem, start)


@pytest.mark.parametrize("dim", [2, 3, 4])
def test_direct_sgd_below_the_dimension_of_the_chain(dim):
    """N < p + p*: against naive.py, and N + 1 columns of weights do not fit."""
    rng = np.random.default_rng(dim)
    W, W_star = 0.7 * rng.standard_normal((3, dim)), rng.standard_normal((2, dim))
    problem = Problem(width=3, teacher_width=2, lr=0.02, dim=dim, noise_var=0.1)
    start = Overlaps.from_weights(W, W_star)
    steps, replicas = [1, 4, 12], 1200
    run = sgd.simulate(problem, start, np.array(steps) / dim, method="direct", replicas=replicas)
    draws = [
        naive.direct_sgd(rng, W, W_star, problem.a, problem.a_star, steps, gamma=0.02, Delta=0.1)
        for _ in range(replicas)
    ]
    M, Q = (np.array([draw[i] for draw in draws]) for i in (0, 1))
    sample, others = flattened(run.M, run.Q), flattened(M, Q)
    # Columns that occur twice (Q is symmetric) only make the rule stricter.
    assert smallest_pvalue(sample.reshape(replicas, -1), others.reshape(replicas, -1)) > FALSE_ALARM
    message = r'dim must be at least width \+ teacher_width = 5 for the chain \(use method="direct'
    with pytest.raises(ValueError, match=message):
        sgd.simulate(problem, start, [1.0])
    full = random_overlaps(rng, 3, 2)
    with pytest.raises(ValueError, match="dim must be at least the rank 5 of the joint Gram"):
        sgd.simulate(problem, full, [1.0], method="direct")


RANDOM_STARTS = [
    ((3, 2, 12), None),
    ((3, 2, 4), None),  # fewer columns than units are left
    ((2, 2, 2), None),  # none are left
    ((3, 2, 5), [[1.0, -2.0], [-2.0, 4.0]]),  # of rank one
    ((2, 3, 2), np.ones((3, 3)).tolist()),  # of rank one, in fewer dimensions than units
    ((9, 1, 30), [[2.0]]),
]


@pytest.mark.parametrize(("sizes", "P"), RANDOM_STARTS)
def test_random_starts_have_the_law_of_gaussian_weights(sizes, P):
    p, ps, dim = sizes
    draws = 1500
    problem = Problem(width=p, teacher_width=ps, lr=0.1, dim=dim)
    P = np.eye(ps) if P is None else np.array(P)
    values, vectors = np.linalg.eigh(P)
    root = vectors[:, ::-1] * np.sqrt(np.maximum(values[::-1], 0))
    W_star = math.sqrt(dim) * root @ np.eye(ps, dim)
    rng, upper = np.random.default_rng(1), np.triu_indices(p)
    samples = []
    for seed in np.random.SeedSequence(5).spawn(draws):
        start = Overlaps.random(problem, scale=0.7, P=P, seed=seed)
        assert_allclose(start.P, P, atol=1e-12)
        M, Q, _ = naive.overlaps_from_weights(0.7 * rng.standard_normal((p, dim)), W_star)
        samples.append([np.append(x.M, x.Q[upper]) for x in (start, Overlaps(Q=Q, M=M, P=P))])
    assert smallest_pvalue(*np.array(samples).transpose(1, 0, 2)) > FALSE_ALARM


def test_random_starts_at_huge_dimension():
    """N = 10^12: sqrt(N) M and sqrt(N/2) (Q - 1) are normal to 10^-6."""
    problem = Problem(width=3, teacher_width=2, lr=0.2, dim=10**12)
    starts = [Overlaps.random(problem, seed=seed) for seed in range(400)]
    M = 1e6 * np.array([start.M for start in starts])
    Q = 1e6 * np.array([start.Q - np.eye(3) for start in starts])
    diagonal = np.einsum("kii->ki", Q) / math.sqrt(2)
    columns = np.hstack([M.reshape(400, -1), diagonal, Q[:, *np.triu_indices(3, 1)]])
    pvalues = [stats.kstest(column, "norm").pvalue for column in columns.T]
    assert min(pvalues) * len(pvalues) > FALSE_ALARM
    run = sgd.simulate(problem, starts[0], [0.0, 1e-9], replicas=4)
    assert run.stats["steps"] == 1000
    assert np.abs(run.Q[:, 1] - run.Q[:, 0]).max() < 1e-6
    assert (run.Q[:, 1] != run.Q[:, 0]).all()


def test_random_starts_are_repeatable():
    problem = Problem(width=3, teacher_width=2, lr=0.2, dim=100)
    assert Overlaps.random(problem, seed=7) == Overlaps.random(problem, seed=7)
    assert Overlaps.random(problem, seed=7) != Overlaps.random(problem, seed=8)
    assert Overlaps.random(problem, seed=None) != Overlaps.random(problem, seed=None)
    child = np.random.SeedSequence(7).spawn(1)[0]
    assert Overlaps.random(problem, seed=child) == Overlaps.random(problem, seed=child)
    assert_array_equal(Overlaps.random(problem, scale=0.0).Q, 0.0)


# ---- simulation, the rest of its signature -------------------------------------------------------


def test_times_are_rounded_to_the_nearest_step():
    problem = Problem(width=2, teacher_width=1, lr=0.2, dim=10)
    start = Overlaps.random(problem)
    for method in ("chain", "direct"):
        exact = sgd.simulate(problem, start, [0.0, 0.1, 0.2], method=method)
        rounded = sgd.simulate(problem, start, [0.049, 0.05, 0.14, 0.15, 0.249], method=method)
        assert rounded.stats["steps"] == 2
        assert_array_equal(rounded.M[0], exact.M[0, [0, 1, 1, 2, 2]])
        assert rounded.t.tolist() == [0.049, 0.05, 0.14, 0.15, 0.249]


@pytest.mark.parametrize("method", ["chain", "direct"])
def test_a_start_for_each_replica(method):
    problem = Problem(width=3, teacher_width=2, lr=0.3, dim=20)
    starts = [Overlaps.random(problem, seed=seed) for seed in range(9)]
    together = sgd.simulate(problem, starts, [0.0, 1.0], replicas=9, method=method)
    for i in (0, 4, 8):
        alone = sgd.simulate(problem, starts[i], [0.0, 1.0], replicas=i + 1, method=method)
        assert_array_equal(together.M[i], alone.M[i])
        assert_allclose(together.M[i, 0], starts[i].M, rtol=1e-12, atol=1e-14)
        assert_allclose(together.Q[i, 0], starts[i].Q, rtol=1e-12, atol=1e-14)


def test_the_chain_loses_no_digits_when_learning_succeeds():
    """Q - M P^-1 M^T goes to zero; the risk decays to far below rounding of Q."""
    problem = Problem(width=2, teacher_width=2, lr=0.3, dim=200)
    start = Overlaps.random(problem, scale=0.7, seed=1)
    run = sgd.simulate(problem, start, np.linspace(0, 400, 4), replicas=8)
    assert (run.risk[:, -1] < 1e-20).all()
    assert (run.risk[:, -1] > 0).all()


@pytest.mark.parametrize("method", ["chain", "direct"])
@pytest.mark.parametrize("batch", [1, 3])
def test_spherical_runs_keep_the_norms(method, batch):
    problem = Problem(width=9, teacher_width=2, lr=0.5, dim=30, spherical=True, batch=batch)
    start = Overlaps.random(problem, scale=0.8)
    run = sgd.simulate(problem, start, [0.1, 1.0, 5.0], replicas=3, method=method)
    norms = np.einsum("...kk->...k", run.Q)
    assert_allclose(norms, np.broadcast_to(np.diag(start.Q), norms.shape), rtol=1e-13)


def test_simulation_without_learning_rate_stays():
    problem = Problem(width=3, teacher_width=2, lr=0.0, dim=30)
    start = Overlaps.random(problem)
    for method in ("chain", "direct"):
        run = sgd.simulate(problem, start, [0.0, 2.0], method=method)
        assert_array_equal(run.M[0, 1], run.M[0, 0])
        assert_array_equal(run.Q[0, 1], run.Q[0, 0])
    flow = sgd.ode(problem, start, [0.0, 2.0])
    assert_allclose(flow.Q[1], start.Q, rtol=1e-14)


# ---- invariants ----------------------------------------------------------------------------------

seeds = st.integers(0, 2**32 - 1)
widths = st.integers(1, 10)
teacher_widths = st.integers(1, 4)
over_states = given(seed=seeds, p=widths, ps=teacher_widths)
over_small_states = given(seed=seeds, p=st.integers(1, 5), ps=st.integers(1, 3))
few = settings(max_examples=20)


def close(value, expected, *, rtol=1e-10):
    """Equal up to rounding of numbers of the size of the largest."""
    assert_allclose(value, expected, rtol=rtol, atol=rtol * max(np.abs(expected).max(), 1e-3))


def transformed(state, left, right=None):
    """Overlaps of the units left W and right W*."""
    right = np.eye(len(state.P)) if right is None else right
    Q, P = left @ state.Q @ left.T, right @ state.P @ right.T
    return Overlaps(Q=0.5 * (Q + Q.T), M=left @ state.M @ right.T, P=0.5 * (P + P.T))


def assert_transforms(problem, state, other, there, left, right=None):
    """Drift and risk of `other` at `there` are those at `state`, for units left W, right W*."""
    right = np.eye(len(state.P)) if right is None else right
    for noise in (True, False):
        dQ, dM = sgd.drift(problem, state, noise=noise)
        turned_Q, turned_M = sgd.drift(other, there, noise=noise)
        close(turned_Q, left @ dQ @ left.T)
        close(turned_M, left @ dM @ right.T)
    close(sgd.risk(other, there), sgd.risk(problem, state))


@few
@given(seed=seeds, p=widths, ps=teacher_widths, c=st.floats(0.3, 3.0), d=st.floats(0.3, 3.0))
def test_only_products_of_scales_matter(seed, p, ps, c, d):
    """(W, a, lr) -> (c W, a/c^2, c^2 lr) and (W*, a*) -> (d W*, a*/d^2)."""
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, p, ps, offset=0.2, noise_var=0.1, batch=2)
    state = random_overlaps(rng, p, ps)
    other = problem.replace(
        second_layer=problem.a / c**2,
        teacher_second_layer=problem.a_star / d**2,
        lr=c**2 * problem.lr,
    )
    left, right = c * np.eye(p), d * np.eye(ps)
    assert_transforms(problem, state, other, transformed(state, left, right), left, right)


@pytest.mark.parametrize("method", ["chain", "direct"])
def test_only_products_of_scales_matter_replica_by_replica(method):
    problem = Problem(width=3, teacher_width=2, lr=0.3, dim=20, noise_var=0.1)
    start, c = Overlaps.random(problem, scale=0.7), 1.7
    other = problem.replace(second_layer=problem.a / c**2, lr=c**2 * problem.lr)
    ours, theirs = (
        sgd.simulate(problem_, start_, [0.5, 3.0], replicas=9, method=method)
        for problem_, start_ in ((problem, start), (other, transformed(start, c * np.eye(3))))
    )
    assert_allclose(theirs.M, c * ours.M, rtol=1e-7, atol=1e-9)
    assert_allclose(theirs.Q, c**2 * ours.Q, rtol=1e-7, atol=1e-9)
    assert_allclose(theirs.risk, ours.risk, rtol=1e-7, atol=1e-9)


@few
@over_states
def test_rotations_of_the_units(seed, p, ps):
    """A uniform second layer leaves the units free up to O(p), and the teacher's up to O(p*)."""
    rng = np.random.default_rng(seed)
    problem = Problem(width=p, teacher_width=ps, lr=0.4, noise_var=0.1, offset=0.1, batch=3)
    state = random_overlaps(rng, p, ps)
    left, right = rotation(rng, p), rotation(rng, ps)
    assert_transforms(problem, state, problem, transformed(state, left, right), left, right)


@few
@over_states
def test_permutations_and_signs_of_the_units(seed, p, ps):
    rng = np.random.default_rng(seed)
    for options in ({}, {"spherical": True}, {"activation": "erf"}):
        problem = random_problem(rng, p, ps, noise_var=0.1, **options)
        state = random_overlaps(rng, p, ps)
        order, order_star = rng.permutation(p), rng.permutation(ps)
        left, right = np.eye(p)[order], np.eye(ps)[order_star]
        signs, signs_star = problem.a[order], problem.a_star[order_star]
        if problem.activation == "erf":  # odd: the sign of a row goes with that of its weight
            flips = rng.choice([-1, 1], p)
            left, signs = flips[:, None] * left, flips * signs
        else:  # even: the sign of a row is free
            left = rng.choice([-1, 1], p)[:, None] * left
        other = problem.replace(second_layer=signs, teacher_second_layer=signs_star)
        there = transformed(state, left, right)
        assert_transforms(problem, state, other, there, left, right)


@few
@over_states
def test_the_common_sign_is_a_convention(seed, p, ps):
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, p, ps, offset=0.3, noise_var=0.1)
    other = problem.replace(
        second_layer=-problem.a, teacher_second_layer=-problem.a_star, offset=-0.3
    )
    state = random_overlaps(rng, p, ps)
    assert_transforms(problem, state, other, state, np.eye(p))


@few
@over_states
def test_a_unit_of_no_weight_changes_nothing(seed, p, ps):
    """One more unit with a = 0, and one more in the teacher: across the unrolled widths too."""
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, p, ps, noise_var=0.1, offset=0.2)
    wider = problem.replace(
        width=p + 1,
        teacher_width=ps + 1,
        second_layer=np.append(problem.a, 0.0),
        teacher_second_layer=np.append(problem.a_star, 0.0),
    )
    there = random_overlaps(rng, p + 1, ps + 1)
    state = Overlaps(Q=there.Q[:p, :p], M=there.M[:p, :ps], P=there.P[:ps, :ps])
    dQ, dM = sgd.drift(wider, there)
    expected_Q, expected_M = sgd.drift(problem, state)
    close(dQ[:p, :p], expected_Q)
    close(dM[:p, :ps], expected_M)
    assert dQ[p, p] == 0
    assert not dM[p].any()
    close(sgd.risk(wider, there), sgd.risk(problem, state))


def gentle(problem, start):
    """The problem at a learning rate at which its norms do not blow up."""
    return problem.replace(lr=0.01 * problem.width / math.sqrt(1 + sgd.risk(problem, start)))


@few
@over_small_states
def test_the_flow_stays_among_gram_matrices(seed, p, ps):
    """`overlaps` checks it; it starts from singular matrices half of the time."""
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, p, ps, signed=False, noise_var=0.1)
    start = random_overlaps(rng, p, ps, dim=rng.choice([max(p, ps), 2 * (p + ps)]))
    result = sgd.ode(gentle(problem, start), start, [0.1, 1.0, 10.0])
    for i in range(3):
        result.overlaps(i)
    assert (result.risk >= 0).all()


@few
@over_small_states
def test_gradient_flow_descends(seed, p, ps):
    """dR/dt = -4 lr tr(A [tau^2 Q + 4 tau G + 4 H] A) <= 0, and R falls along the solution."""
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, p, ps, offset=0.1)
    state = random_overlaps(rng, p, ps)
    dQ, dM = sgd.drift(problem, state, noise=False)
    a, a_star, b = problem.a, problem.a_star, problem.b
    # R is quadratic in (M, Q): the central difference is its derivative.
    ahead, behind = (
        naive.sgd_risk(state.M + s * dM, state.Q + s * dQ, state.P, a, a_star, b) for s in (1, -1)
    )
    A, C = np.diag(a), np.diag(naive.output_weights(a, a_star))
    omega = naive.overlap_matrix(state.M, state.Q, state.P)
    tau, X = np.trace(C @ omega) + b, omega @ C @ omega
    bracket = (tau**2 * omega + 4 * tau * X + 4 * X @ C @ omega)[:p, :p]
    slope = -4 * problem.lr * np.trace(A @ bracket @ A)
    assert_allclose((ahead - behind) / 2, slope, rtol=1e-9, atol=1e-9)
    assert slope <= 1e-12
    t = np.linspace(0, 10, 30)
    risk = sgd.ode(problem, state, t, noise=False, rtol=1e-12, atol=1e-14).risk
    assert (np.diff(risk) <= 1e-11 * risk[0]).all()


@few
@over_states
def test_large_batches_are_gradient_flow(seed, p, ps):
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, p, ps, noise_var=0.3, batch=10**15)
    state = random_overlaps(rng, p, ps)
    for value, flow in zip(
        sgd.drift(problem, state), sgd.drift(problem, state, noise=False), strict=True
    ):
        close(value, flow)


@few
@over_states
def test_one_step_at_large_dimension_is_the_drift(seed, p, ps):
    """N (mean step - state) - drift is exactly of order 1/N."""
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, p, ps, noise_var=0.2, offset=0.1, batch=2)
    state = random_overlaps(rng, p, ps)
    rate = flattened(*sgd.drift(problem, state)[::-1])
    excess = []
    for dim in (10**3, 10**4):
        step = sgd.mean_step(problem.replace(dim=dim), state)
        moved = flattened(step.M - state.M, step.Q - state.Q)
        excess.append(dim * (dim * moved - rate))
    size = np.abs(rate).max() + 1
    # N^2 times rounding of numbers of order one.
    assert_allclose(excess[1], excess[0], rtol=1e-6, atol=1e-7 * size)


@few
@over_small_states
def test_the_flow_can_be_taken_up_anywhere(seed, p, ps):
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, p, ps, signed=False, noise_var=0.1)
    start = random_overlaps(rng, p, ps)
    problem = gentle(problem, start)
    whole = sgd.ode(problem, start, [1.5, 4.0])
    rest = sgd.ode(problem, whole.overlaps(0), [2.5])
    close(rest.M[0], whole.M[1], rtol=1e-6)
    close(rest.Q[0], whole.Q[1], rtol=1e-6)


@few
@given(seed=seeds, p=st.integers(1, 9), ps=st.integers(1, 3))
def test_the_spherical_flow_keeps_the_norms(seed, p, ps):
    rng = np.random.default_rng(seed)
    activation = rng.choice(["quadratic", "erf"])
    problem = random_problem(
        rng, p, ps, spherical=True, noise_var=0.1, activation=str(activation), lr=0.2
    )
    start = random_overlaps(rng, p, ps)
    result = sgd.ode(problem, start, [0.5, 3.0])
    for Q in result.Q:
        assert_allclose(np.diag(Q), np.diag(start.Q), rtol=1e-12)


def flow_to(problem, start, t, method="dop853"):
    result = sgd.ode(problem, start, [t], noise=False, method=method, rtol=1e-11, atol=1e-14)
    return result.overlaps(0)


@few
@given(seed=seeds, p=st.integers(2, 5), ps=st.integers(1, 3))
def test_gradient_flow_conserves_J(seed, p, ps):
    rng = np.random.default_rng(seed)
    a_star = rng.uniform(0.3, 0.8, ps)
    problem = Problem(width=p, teacher_width=ps, lr=0.3 * p, teacher_second_layer=a_star)
    start = random_overlaps(rng, p, ps, dim=4 * (p + ps))
    J = sgd.conserved(problem, start, 0.0)
    close(sgd.conserved(problem, flow_to(problem, start, 2.0), 2.0), J, rtol=1e-6)


@few
@given(seed=seeds, p=st.integers(1, 5), ps=st.integers(1, 3))
def test_cotangents_of_principal_angles_grow_at_one_rate(seed, p, ps):
    rng = np.random.default_rng(seed)
    problem = Problem(width=p, teacher_width=ps, lr=0.3 * p)
    random = random_overlaps(rng, p, ps, dim=4 * (p + ps))
    root = np.linalg.inv(np.linalg.cholesky(random.P / 0.8))
    start = transformed(random, np.eye(p), root)
    before = sgd.principal_angles(start)
    after = sgd.principal_angles(flow_to(problem, start, 2.0))
    growth = math.exp(4 * problem.lr / p * 0.8 / ps * 2.0)
    assert_allclose(np.tan(before), growth * np.tan(after), rtol=1e-6)


@few
@given(seed=seeds, p=st.integers(1, 5), ps=st.integers(1, 4), noise=st.booleans())
def test_singular_vectors_are_frozen(seed, p, ps, noise):
    """Q and M M^T commute: the polar factor of M stays, with the lr^2 term too."""
    rng = np.random.default_rng(seed)
    problem = Problem(width=p, teacher_width=ps, lr=0.06 * p, noise_var=0.1)
    start = commuting_overlaps(rng, p, ps)
    result = sgd.ode(problem, start, [5.0], noise=noise, method="dop853")
    frame = np.linalg.eigh(start.Q)[1]
    Q, before, after = frame.T @ result.Q[0] @ frame, frame.T @ start.M, frame.T @ result.M[0]
    assert_allclose(Q, np.diag(np.diag(Q)), atol=1e-8)
    square = (before**2).sum(axis=1)
    grown = np.divide((after * before).sum(axis=1), square, where=square > 1e-20, out=0 * square)
    assert_allclose(after, grown[:, None] * before, atol=1e-8)


def test_learning_ends_at_the_selected_solution():
    rng = np.random.default_rng(6)
    problem = Problem(width=3, teacher_width=2, lr=0.9, teacher_second_layer=0.8)
    start = Overlaps(
        Q=random_overlaps(rng, 3, 1).Q, M=1e-7 * rng.standard_normal((3, 2)), P=1.1 * np.eye(2)
    )
    final = flow_to(problem, start, 1e4)
    expected = math.sqrt(0.8 / problem.a[0]) * sgd.selected_rotation(problem, start) @ start.P
    # Up to |M0| and to the decay as 1/t of the surplus unit.
    assert_allclose(final.M, expected, atol=1e-3)


# ---- wrong input ---------------------------------------------------------------------------------

EYE = np.eye(2)
BASE = Problem(width=2, teacher_width=2, lr=0.1, dim=10)
START = Overlaps(Q=0.5 * EYE, M=0.1 * EYE, P=EYE)
LONG = Overlaps(Q=0.5 * np.eye(3), M=np.zeros((3, 2)), P=EYE)
LOPSIDED = Overlaps(Q=np.diag([0.5, 0.6]), M=[[0.1, 0.0], [0.1, 0.1]], P=EYE)
SKEW = [[1.0, 0.2], [0.0, 1.0]]


def refused(name, error, function, *arguments, **options):
    label = getattr(function, "__qualname__", "call")
    return pytest.param(name, error, lambda: function(*arguments, **options), id=f"{label}-{name}")


def problem_with(**changes):
    return lambda: BASE.replace(**changes)


REFUSED = [
    # Problem: what goes together
    refused("centred", ValueError, problem_with(activation="erf", centred=True)),
    refused("second_layer_lr", ValueError, problem_with(activation="relu", second_layer_lr=0.1)),
    refused("centred", ValueError, problem_with(centred=True, second_layer_lr=0.1)),
    refused("quadratic.*erf.*relu", ValueError, problem_with(activation="tanh")),
    # Overlaps
    refused("Q", ValueError, Overlaps, Q=SKEW, M=EYE, P=EYE),
    refused("P", ValueError, Overlaps, Q=EYE, M=0.1 * EYE, P=SKEW),
    refused("Q", ValueError, Overlaps, Q=np.ones((2, 3)), M=EYE, P=EYE),
    refused("P", ValueError, Overlaps, Q=EYE, M=EYE, P=np.ones((2, 3))),
    refused("M", ValueError, Overlaps, Q=EYE, M=np.zeros((2, 3)), P=EYE),
    refused("Q", ValueError, Overlaps, Q=np.eye(3), M=EYE, P=EYE),
    refused("M", ValueError, Overlaps, Q=EYE, M=np.zeros(2), P=EYE),
    refused("Q", ValueError, Overlaps, Q=[[math.nan, 0], [0, 1]], M=EYE, P=EYE),
    refused("M", ValueError, Overlaps, Q=EYE, M=[[math.inf, 0], [0, 0]], P=EYE),
    refused("P", TypeError, Overlaps, Q=EYE, M=EYE, P="P"),
    refused("Q", TypeError, Overlaps, Q=1j * EYE, M=EYE, P=EYE),
    refused("Q, M and P", ValueError, Overlaps, Q=EYE, M=1.1 * EYE, P=EYE),
    refused("Q, M and P", ValueError, Overlaps, Q=-EYE, M=0 * EYE, P=EYE),
    refused("Q, M and P", ValueError, Overlaps, Q=EYE, M=(1 + 1e-7) * EYE, P=EYE),
    # from_weights and random
    refused("W", ValueError, Overlaps.from_weights, [1.0, 2.0], [[1.0, 2.0]]),
    refused("W_star", ValueError, Overlaps.from_weights, [[1.0, 2.0]], [[1.0, 2.0, 3.0]]),
    refused("W", TypeError, Overlaps.from_weights, [["a"]], [[1.0]]),
    refused("problem", TypeError, Overlaps.random, None),
    refused("dim", ValueError, Overlaps.random, BASE.replace(dim=None)),
    refused("dim", ValueError, Overlaps.random, BASE.replace(dim=1)),
    refused("scale", ValueError, Overlaps.random, BASE, scale=-1.0),
    refused("scale", TypeError, Overlaps.random, BASE, scale="1"),
    refused("P", ValueError, Overlaps.random, BASE, P=np.eye(3)),
    refused("P", ValueError, Overlaps.random, BASE, P=-EYE),
    refused("seed", ValueError, Overlaps.random, BASE, seed=-1),
    # overlaps that do not fit
    refused("overlaps", ValueError, sgd.risk, BASE, LONG),
    refused("overlaps", ValueError, sgd.drift, BASE, LONG),
    refused("start", ValueError, sgd.ode, BASE, LONG, [1.0]),
    refused("start", ValueError, sgd.simulate, BASE, LONG, [1.0]),
    refused(
        *("overlaps", ValueError, sgd.drift, BASE.replace(spherical=True)),
        Overlaps(Q=np.diag([1.0, 0.0]), M=0 * EYE, P=EYE),
    ),
    # mean_step and fluctuations
    refused("dim", ValueError, sgd.mean_step, BASE.replace(dim=None), START),
    refused("activation", ValueError, sgd.mean_step, BASE.replace(activation="erf"), START),
    refused("spherical", ValueError, sgd.mean_step, BASE.replace(spherical=True), START),
    refused("second_layer_lr", ValueError, sgd.mean_step, BASE.replace(second_layer_lr=1), START),
    refused("batch", ValueError, sgd.fluctuations, BASE.replace(batch=2), START, [1.0]),
    refused("activation", ValueError, sgd.fluctuations, BASE.replace(activation="erf"), START, [1]),
    refused("spherical", ValueError, sgd.fluctuations, BASE.replace(spherical=True), START, [1.0]),
    # ode
    refused(
        "method", ValueError, sgd.ode, BASE.replace(spherical=True), START, [1], method="modes"
    ),
    refused("noise", ValueError, sgd.ode, BASE, START, [1.0], method="riccati"),
    refused(
        *("activation", ValueError, sgd.ode, BASE.replace(activation="erf"), START, [1.0]),
        noise=False,
        method="riccati",
    ),
    refused(
        *("second_layer", ValueError, sgd.ode, BASE.replace(second_layer=[1, 2]), START, [1.0]),
        noise=False,
        method="riccati",
    ),
    # simulate
    refused("dim", ValueError, sgd.simulate, BASE.replace(dim=None), START, [1.0]),
    refused("direct", ValueError, sgd.simulate, BASE.replace(dim=3), START, [1.0]),
    refused("dim", ValueError, sgd.simulate, BASE.replace(dim=2), START, [1.0], method="direct"),
    refused("start", ValueError, sgd.simulate, BASE, [START], [1.0], replicas=2),
    refused("start", TypeError, sgd.simulate, BASE, [START, None], [1.0], replicas=2),
    refused(
        *("start", ValueError, sgd.simulate, BASE),
        [START, Overlaps(Q=START.Q, M=START.M, P=2 * EYE)],
        [1.0],
        replicas=2,
    ),
    refused("t", ValueError, sgd.simulate, BASE, START, [1e18]),
    refused(
        "dim", MemoryError, sgd.simulate, BASE.replace(dim=10**12), START, [1], method="direct"
    ),
    # plateau and escape
    refused("activation", ValueError, sgd.plateau, BASE.replace(activation="relu")),
    refused("spherical", ValueError, sgd.plateau, BASE.replace(spherical=True)),
    refused("second_layer_lr", ValueError, sgd.plateau, BASE.replace(second_layer_lr=0.1)),
    refused("second_layer", ValueError, sgd.plateau, BASE.replace(second_layer=[0.5, 0.4])),
    refused("second_layer", ValueError, sgd.plateau, BASE.replace(second_layer=0.0)),
    refused("drop", ValueError, sgd.escape_time, BASE, START, drop=0.0),
    refused("drop", TypeError, sgd.escape_time, BASE, START, drop=None),
    refused("start", TypeError, sgd.escape_time, BASE, None, drop=0.1),
    refused(
        *("start", ValueError, sgd.escape_time, BASE),
        Overlaps(Q=np.ones((2, 2)), M=0 * EYE, P=EYE),
        drop=0.1,
    ),
    refused("problem", ValueError, sgd.escape_time, BASE.replace(offset=-2.0), START, drop=0.1),
    refused("activation", ValueError, sgd.global_minimum, BASE.replace(activation="erf")),
    refused("spherical", ValueError, sgd.global_minimum, BASE.replace(spherical=True)),
    # near zero loss
    refused("width", ValueError, sgd.lr_max, BASE.replace(width=1)),
    refused("offset", ValueError, sgd.misadjustment, BASE.replace(offset=0.1)),
    refused(
        *("teacher_second_layer", ValueError, sgd.noise_floor),
        BASE.replace(teacher_second_layer=[0.5, -0.5]),
    ),
    refused("width", ValueError, sgd.late_time_constant, BASE),
    refused("noise_var", ValueError, sgd.late_time_constant, BASE.replace(width=3, noise_var=0.1)),
    refused("lr", ValueError, sgd.late_time_constant, BASE.replace(width=3, lr=0.0)),
    # symmetry and selection
    refused("overlaps", ValueError, sgd.conserved, BASE, Overlaps(Q=EYE, M=EYE, P=EYE), 0.0),
    refused(
        *("overlaps", ValueError, sgd.conserved, BASE),
        Overlaps(Q=EYE, M=0 * EYE, P=np.ones((2, 2))),
        0.0,
    ),
    refused("second_layer", ValueError, sgd.conserved, BASE.replace(second_layer=[1, 2]), START, 0),
    refused("overlaps", TypeError, sgd.principal_angles, EYE),
    refused(
        *("width", ValueError, sgd.selected_rotation, BASE.replace(width=1)),
        Overlaps(Q=[[1.0]], M=[[0.1, 0.1]], P=EYE),
    ),
    refused(
        *("teacher_second_layer", ValueError, sgd.selected_rotation),
        BASE.replace(teacher_second_layer=[0.5, 0.4]),
        START,
    ),
    refused(
        *("start", ValueError, sgd.selected_rotation, BASE),
        Overlaps(Q=EYE, M=0.1 * np.ones((2, 2)), P=EYE),
    ),
    refused("batch", ValueError, sgd.seed_ratio, BASE.replace(batch=2), START),
    refused(
        *("start", ValueError, sgd.seed_ratio, BASE),
        Overlaps(Q=0.5 * EYE, M=0 * EYE, P=np.diag([1.0, 2.0])),
    ),
    refused(
        *("start", ValueError, sgd.seed_ratio, BASE),
        Overlaps(Q=np.diag([0.1, 2.0]), M=0 * EYE, P=EYE),
    ),
]


@pytest.mark.parametrize(("name", "error", "function"), REFUSED)
def test_wrong_input_is_named(name, error, function):
    with pytest.raises(error, match=rf"\b{name}\b") as caught:
        function()
    assert type(caught.value) is error


def test_memory_of_a_batch_is_counted(monkeypatch):
    """Direct SGD keeps a whole batch of inputs: 10^10 numbers here."""
    monkeypatch.setattr(_check, "available_memory", lambda: 2**30)
    problem = BASE.replace(dim=10**6, batch=10**4)
    with pytest.raises(MemoryError, match="reduce"):
        sgd.simulate(problem, START, [0.0], method="direct")
    assert sgd.simulate(problem, START, [0.0]).risk.shape == (1, 1)


def test_overlaps_within_rounding_of_a_gram_matrix_are_accepted():
    Overlaps(Q=EYE, M=EYE, P=EYE)
    Overlaps(Q=EYE, M=(1 + 1e-9) * EYE, P=EYE)
    Overlaps(Q=0 * EYE, M=0 * EYE, P=0 * EYE)
    Overlaps(Q=EYE + np.diag([1e-12], 1), M=0 * EYE, P=EYE)


def test_overlaps_are_values():
    Q = 0.5 * np.eye(2)
    state = Overlaps(Q=Q, M=0.1 * EYE, P=EYE)
    Q[:] = 7
    assert state == START
    assert hash(state) == hash(START)
    assert state != Overlaps(Q=0.6 * EYE, M=0.1 * EYE, P=EYE)
    assert state != "overlaps"
    for change in (lambda: setattr(state, "Q", EYE), lambda: delattr(state, "M")):
        with pytest.raises(AttributeError, match="read-only"):
            change()
    with pytest.raises(ValueError, match="read-only"):
        state.M[0, 0] = 1


def test_overlaps_of_a_trajectory():
    theory = sgd.ode(BASE, START, [0.0, 1.0])
    assert_allclose(theory.overlaps(0).M, START.M)
    assert theory.overlaps(-1) == theory.overlaps(1)
    with pytest.raises(ValueError, match="replica must be 0"):
        theory.overlaps(0, replica=1)
    run = sgd.simulate(BASE, START, [0.0, 1.0], replicas=2)
    assert_array_equal(run.overlaps(1, replica=1).M, run.M[1, 1])
    for index in ({"i": 2}, {"i": 0, "replica": 2}):
        with pytest.raises(IndexError):
            run.overlaps(**index)


@pytest.mark.parametrize("tolerance", [1e-20, 1e-100, 1e-300])
def test_an_impossible_tolerance_is_no_divergence(tolerance):
    result = sgd.ode(BASE, START, [0.0, 1.0], rtol=tolerance, atol=tolerance, throw=False)
    assert result.status is Status.STEP_UNDERFLOW
    assert result.t.tolist() == [0.0]


# ---- Ctrl-C --------------------------------------------------------------------------------------

INTERRUPTED = """
import os, signal, threading, time
import numpy as np
import overparam as op
from overparam import sgd

{setup}
sent = []

def interrupt():
    sent.append(time.monotonic())
    os.kill(os.getpid(), signal.SIGINT)

threading.Timer({after}, interrupt).start()
try:
    {call}
except KeyboardInterrupt:
    print(time.monotonic() - sent[0])
partial = op.results.interrupted()
print(partial.status.name, len(partial.t))
"""

SETUP = """
import scipy.linalg  # what a wide student loads before it runs
problem = sgd.Problem(width={p}, teacher_width=2, lr=0.1, dim={dim}, activation="{activation}")
W = np.random.default_rng(0).standard_normal(({p} + 2, 4 * ({p} + 2)))
start = sgd.Overlaps.from_weights(W[2:], W[:2])
t = np.linspace(0.0, {t}, 5)
"""

LONG_RUNS = {
    "chain": ((4, 10**7, "quadratic", 1e4), "sgd.simulate(problem, start, t, replicas=500)"),
    "direct": (
        (4, 10**5, "quadratic", 1e4),
        'sgd.simulate(problem, start, t, method="direct", replicas=20)',
    ),
    "wide": ((60, 10**4, "quadratic", 1e9), 'sgd.ode(problem, start, t, method="dop853")'),
    "relu": ((6, 10**4, "relu", 1e9), "sgd.ode(problem, start, t)"),
    "fluctuations": ((7, 10**4, "quadratic", 1e6), "sgd.fluctuations(problem, start, t)"),
}


def run_script(script):
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "OVERPARAM_NUM_THREADS": "1"},
    )
    return done.stdout.split()


@pytest.mark.parametrize("name", LONG_RUNS)
def test_ctrl_c_is_answered_within_half_a_second(name):
    sizes, call = LONG_RUNS[name]
    setup = SETUP.format(**dict(zip(("p", "dim", "activation", "t"), sizes, strict=True)))
    script = INTERRUPTED.format(setup=setup, call=call, after=0.7)
    delay, status, times = run_script(script)
    assert float(delay) < 0.5
    assert status == "INTERRUPTED"
    assert int(times) >= 1  # t = 0 at least


def test_a_run_stopped_by_ctrl_c_continues_from_its_checkpoint(tmp_path):
    path = tmp_path / "run.npz"
    setup = SETUP.format(p=4, dim=10**5, activation="quadratic", t=3.0)
    call = f"sgd.simulate(problem, start, t, replicas=64, checkpoint={str(path)!r})"
    _, status, times = run_script(INTERRUPTED.format(setup=setup, call=call, after=0.3))
    assert status == "INTERRUPTED"
    assert 1 <= int(times) < 5
    scope = {"sgd": sgd, "np": np}
    exec(setup, scope)
    problem, start, t = (scope[name] for name in ("problem", "start", "t"))
    seen = []
    resumed = sgd.simulate(problem, start, t, replicas=64, checkpoint=path, progress=seen.append)
    assert 0 < seen[0] < 1
    whole = sgd.simulate(problem, start, t, replicas=64)
    for name in ("Q", "M", "risk"):
        assert getattr(resumed, name).tobytes() == getattr(whole, name).tobytes()
