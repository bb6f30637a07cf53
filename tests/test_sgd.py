import itertools
import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import naive
import numpy as np
import overparam as op
import pytest
from cases import FALSE_ALARM, sgd_arguments, smallest_pvalue, standard_errors
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from overparam import _check, _core, _run, sgd
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
        rtol=1e-8 if method == "rkc" else 1e-10,
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
    flow = sgd.ode(problem, start, [1.0, 3.0], noise=False, method=method, rtol=1e-12, atol=1e-15)
    for i, t in enumerate(flow.t):
        J = sgd.conserved(problem, flow.overlaps(i), t)
        assert_allclose(J, entry["J_at_3"], rtol=entry["tol_rel"])
    noisy = sgd.ode(problem, start, [3.0], rtol=1e-12, atol=1e-15).overlaps(0)
    J = sgd.conserved(problem, noisy, 3.0)
    assert_allclose(J, entry["J_at_3_with_noise"], rtol=entry["tol_rel"])


@pytest.mark.parametrize("method", ["auto", "riccati"])
def test_selected_rotation_reference(method):
    isotropic, ordered = REFERENCE["selection_isotropic"], REFERENCE["selection_anisotropic"]
    problem, start = read(isotropic["input"])
    options = {"noise": False, "method": method, "rtol": 1e-11, "atol": 1e-20}
    t, atol = [isotropic["input"]["alpha"]], isotropic["tol_abs"]
    M = sgd.ode(problem, start, t, **options).M[0]
    O = sgd.selected_rotation(problem, start)  # noqa: E741
    assert_allclose(M, isotropic["M_final"], rtol=0, atol=atol)
    assert_allclose(O, isotropic["predicted"], rtol=0, atol=atol)
    assert_allclose(np.abs(M - O).max(), isotropic["pred_dev"], rtol=0, atol=atol)
    left, _, right = np.linalg.svd(start.M)
    assert_allclose(np.abs(M - left @ right).max(), isotropic["polar_M0_dev"], rtol=0, atol=atol)

    P = np.diag(ordered["P_diag"])
    start = Overlaps(Q=start.Q, M=1e-3 * start.M, P=P)
    O = sgd.selected_rotation(problem, start)  # noqa: E741
    learned = sgd.ode(problem, start, t, **options).M[0] @ np.linalg.inv(P)
    atol = ordered["tol_abs"]
    assert_allclose(learned, ordered["O_final"], rtol=0, atol=atol)
    assert_allclose(O, ordered["QR_prediction"], rtol=0, atol=atol)
    assert_allclose(np.abs(learned - O).max(), ordered["dev"], rtol=0, atol=atol)


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


@pytest.mark.parametrize("method", ["chain", "direct"])
@pytest.mark.parametrize("name", FINITE)
def test_finite_dimension_reference(name, method):
    """Means within 5 standard errors, variances within 12 %, quantiles within 0.1 deviations."""
    entry = FINITE[name]
    problem, start = read(entry["input"])
    reference = entry["reduced"]
    steps = sorted(map(int, reference["at_step"]))
    replicas = reference["replicas"]
    run = sgd.simulate(
        problem, start, np.array(steps) / problem.dim, replicas=replicas, method=method, seed=1
    )
    assert not run.diverged.any()
    flat = np.concatenate([run.M.reshape(*run.M.shape[:2], -1), run.Q.reshape(*run.Q.shape[:2], -1)], axis=2)
    for i, step in enumerate(steps):
        sample = flat[:, i]
        moving = np.array(reference["at_step"][str(step)]["var"]) > 1e-20
        deviation = sample.std(axis=0)
        for kind in ("reduced", "brute"):
            expected = {key: np.array(x) for key, x in entry[kind]["at_step"][str(step)].items()}
            error = np.hypot(expected["se"], deviation / math.sqrt(replicas))
            gap = np.abs(sample.mean(axis=0) - expected["mean"])
            assert (gap <= 5 * error + 1e-12).all()
            for q in (10, 50, 90):
                gap = np.abs(np.quantile(sample, q / 100, axis=0) - expected[f"q{q}"])
                assert (gap <= 0.1 * deviation + 1e-12).all()
            median = np.median(run.risk[:, i])
            assert abs(median - expected["risk_median"]) <= 0.1 * run.risk[:, i].std()
        variance = np.array(reference["at_step"][str(step)]["var"])[moving]
        assert_allclose(sample.var(axis=0, ddof=1)[moving], variance, rtol=0.12)


def test_fluctuations_reference():
    entry = REFERENCE["fluctuations_lna"]
    problem, start = read(entry["input"])
    sigma = sgd.fluctuations(problem, start, entry["input"]["alphas"])
    variances = np.diagonal(sigma, axis1=1, axis2=2)
    assert_allclose(variances, entry["N_var"], rtol=entry["tol_rel"])
