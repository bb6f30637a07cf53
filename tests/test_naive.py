"""The yardstick itself: naive.py against independently derived numbers and against itself."""

import itertools
import json
import math
import pathlib
from importlib import resources

import naive
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import integrate, linalg, optimize, special, stats

# sgd

REFERENCE = json.loads((pathlib.Path(__file__).parent / "reference" / "sgd.json").read_text())


def inputs(entry):
    """M, Q, P, a, a* and the options of a reference entry; by default a = 1/p and a* = 1/p*."""
    options = {key: value for key, value in entry.items() if key != "alpha"}
    M = np.array(options.pop("M0" if "M0" in options else "M"))
    Q = np.array(options.pop("Q0" if "Q0" in options else "Q"))
    P = np.array(options.pop("P", np.eye(M.shape[1])))
    layers = []
    for key, width in zip(("a", "a_star"), M.shape, strict=True):
        value = options.pop(key, "")
        value = 1 / width if isinstance(value, str) else value
        layers.append(np.array(np.broadcast_to(value, width), float))
    if "B" in options:
        options["batch"] = options.pop("B")
    options.pop("alphas", None)
    return M, Q, P, *layers, options


def uniform(p, p_star):
    return np.full(p, 1 / p), np.full(p_star, 1 / p_star)


def random_overlaps(rng, p, p_star, dim=12):
    return naive.overlaps_from_weights(
        rng.standard_normal((p, dim)), rng.standard_normal((p_star, dim))
    )


MOMENTS = REFERENCE["moments_and_rhs"]
*STATE, OPTIONS = inputs(MOMENTS["input"])
MOMENT_ARGUMENTS = (*STATE, OPTIONS["b"], OPTIONS["Delta"])
RHS_OPTIONS = {
    "plain": {},
    "gradient_flow": {"noise": False},
    "batch4": {"batch": 4},
    "spherical": {"spherical": True},
    "trained_a_gamma_a_0.3": {"gamma_a": 0.3},
}


@pytest.mark.parametrize("name", RHS_OPTIONS)
def test_sgd_drift_reference(name):
    drift = naive.sgd_drift(*STATE, **OPTIONS, **RHS_OPTIONS[name])
    for value, key in zip(drift, ("dM", "dQ", "da"), strict=True):
        assert_allclose(value, MOMENTS["rhs"][name][key], rtol=MOMENTS["tol_rel"], atol=1e-15)


def test_sgd_risk_reference():
    assert_allclose(naive.sgd_risk(*STATE, OPTIONS["b"]), MOMENTS["risk"], rtol=1e-12)


@pytest.mark.parametrize(("dim", "batch"), [(20, 1), (20, 5), (100, 1)])
def test_sgd_mean_step_reference(dim, batch):
    entry = REFERENCE["exact_mean_step"]
    M, Q = naive.sgd_mean_step(*STATE, dim=dim, batch=batch, **OPTIONS)
    assert_allclose(M, entry[f"N{dim}_B{batch}"]["M1"], rtol=entry["tol_rel"])
    assert_allclose(Q, entry[f"N{dim}_B{batch}"]["Q1"], rtol=entry["tol_rel"])


@pytest.mark.parametrize("moment", [naive.error_moment, naive.tilted_moment])
def test_sgd_moments_reference(moment):
    entry = REFERENCE["tilted_moments"]
    values = [moment(*MOMENT_ARGUMENTS, j, []) for j in range(5)]
    assert_allclose(values, entry["E_e"], rtol=entry["tol_rel"])
    cases = {
        "E_e2_z0z0z1z1": (2, [0, 0, 1, 1]),
        "E_e2_z0z1_zlast2": (2, [0, 1, 4, 4]),
        "E_e3_z0z1zpzp": (3, [0, 1, 3, 3]),
        "E_e4_z0z0": (4, [0, 0]),
    }
    for key, (j, indices) in cases.items():
        value = moment(*MOMENT_ARGUMENTS, j, indices)
        assert_allclose(value, entry[key], rtol=entry["tol_rel"])


def test_sgd_increment_covariance_reference():
    entry = REFERENCE["increment_covariance"]
    covariance = naive.increment_covariance(*STATE, **OPTIONS)
    assert_allclose(np.diag(covariance), entry["diag"], rtol=entry["tol_rel"])
    assert_allclose(covariance[0], entry["first_row"], rtol=entry["tol_rel"])
    assert_allclose(np.trace(covariance), entry["trace"], rtol=entry["tol_rel"])


@pytest.mark.parametrize("name", REFERENCE["ode_trajectories"]["cases"])
def test_sgd_ode_reference(name):
    entry = REFERENCE["ode_trajectories"]["cases"][name]
    rtol = REFERENCE["ode_trajectories"]["tol_rel"]
    *state, options = inputs(entry["input"])
    P, a_star = state[2], state[4]
    M, Q, a = naive.sgd_ode(*state, entry["alphas"], **options)
    risk = [
        naive.sgd_risk(*s, P, w, a_star, options.get("b", 0.0))
        for *s, w in zip(M, Q, a, strict=True)
    ]
    for value, key in ((M, "M"), (Q, "Q"), (a, "a"), (risk, "risk")):
        assert_allclose(value, entry[key], rtol=rtol, atol=1e-12)


@pytest.mark.parametrize("row", REFERENCE["plateau"]["table"])
def test_plateau_reference(row):
    p, p_star = row["p"], row["p_star"]
    layers = uniform(p, p_star)
    P, rtol = np.eye(p_star), REFERENCE["plateau"]["tol_rel"]
    problem = {"gamma": max(row["eta"], 1e-12) * p, "Delta": row["Delta"]}
    q, risk, rates = naive.plateau(P, *layers, noise=row["eta"] > 0, **problem)
    assert_allclose(q / p, row["s"], rtol=rtol)
    assert_allclose(risk, row["plateau_risk"], rtol=rtol)
    assert_allclose(rates, row["escape_rate_M"], rtol=rtol, atol=1e-11)
    _, risk, rates = naive.plateau(P, *layers, noise=False, **problem)
    assert_allclose(risk, row["plateau_risk_gf"], rtol=rtol)
    assert_allclose(rates, row["gradient_flow_rate"], rtol=rtol, atol=1e-11)
    largest = naive.plateau_lr_max(P, *layers, Delta=row["Delta"])
    assert_allclose(largest / p, row["eta_max_plateau"], rtol=rtol)


@pytest.mark.parametrize("row", REFERENCE["seed_ratio"]["table"])
def test_seed_ratio_reference(row):
    value = naive.seed_ratio(
        row["p"],
        row["p_star"],
        row["q0"],
        1.0,
        row["a"],
        1 / row["p_star"],
        gamma=row["eta"] / row["a"],
        Delta=row["Delta"],
    )
    assert_allclose(value, row["value"], rtol=REFERENCE["seed_ratio"]["tol_rel"])


@pytest.mark.parametrize("row", REFERENCE["eta_max"]["table"])
@pytest.mark.parametrize(("surplus", "batch"), [(0, 1), (1, 3)])
def test_lr_max_reference(row, surplus, batch):
    sigma = np.array(row["sigma"])
    a, a_star = uniform(len(sigma) + surplus, len(sigma))
    eta_max = a[0] * naive.lr_max(np.diag(sigma * len(sigma)), a, a_star, batch=batch)
    assert_allclose(eta_max / batch, row["eta_max"], rtol=REFERENCE["eta_max"]["tol_rel"])
    assert_allclose(naive.misadjustment(sigma, eta_max, batch), 1.0, rtol=1e-9)


@pytest.mark.parametrize("row", REFERENCE["underparameterised_minimum"]["table"])
def test_global_minimum_reference(row):
    sigma = np.array(row["sigma"])
    risk = naive.global_minimum(
        np.diag(sigma * len(sigma)), *uniform(row["p"], len(sigma)), row["p"], starts=2
    )
    assert_allclose(risk, row["risk"], rtol=REFERENCE["underparameterised_minimum"]["tol_rel"])


@pytest.mark.parametrize("row", REFERENCE["late_time"]["table"])
def test_late_time_reference(row):
    p_star = row["p_star"]
    value = naive.late_time_constant(np.full(p_star, 1 / p_star), row["p"], row["eta"])
    assert_allclose(value, row["L_alpha2"], rtol=REFERENCE["late_time"]["tol_rel"])


def test_conserved_reference():
    entry = REFERENCE["conserved_J"]
    M, Q, P, a, a_star, options = inputs(entry["input"])
    gamma, rtol = options["gamma"], entry["tol_rel"]
    start = naive.conserved_J(M, Q, P, a, a_star, gamma, 0.0)
    assert_allclose(start, entry["J0"], rtol=rtol)
    for noise, key in ((False, "J_at_3"), (True, "J_at_3_with_noise")):
        M1, Q1, _ = naive.sgd_ode(M, Q, P, a, a_star, [3.0], noise=noise, **options)
        value = naive.conserved_J(M1[0], Q1[0], P, a, a_star, gamma, 3.0)
        assert_allclose(value, entry[key], rtol=rtol)


def test_selected_rotation_reference():
    isotropic, ordered = REFERENCE["selection_isotropic"], REFERENCE["selection_anisotropic"]
    M, Q, P, a, a_star, options = inputs(isotropic["input"])
    alpha, atol = isotropic["input"]["alpha"], isotropic["tol_abs"]
    final, _, _ = naive.sgd_ode(M, Q, P, a, a_star, [alpha], noise=False, **options)
    assert_allclose(final[0], isotropic["M_final"], rtol=0, atol=atol)
    assert_allclose(naive.selected_rotation(M, Q, P), isotropic["predicted"], rtol=0, atol=atol)

    M, P = 1e-3 * M, np.diag(ordered["P_diag"])
    final, _, _ = naive.sgd_ode(M, Q, P, a, a_star, [alpha], noise=False, **options)
    learned = final[0] @ np.linalg.inv(P)
    assert_allclose(learned, ordered["O_final"], rtol=0, atol=ordered["tol_abs"])
    predicted = naive.selected_rotation(M, Q, P)
    assert_allclose(predicted, ordered["QR_prediction"], rtol=0, atol=ordered["tol_abs"])
    assert_allclose(np.max(np.abs(learned - predicted)), ordered["dev"], rtol=1e-6)


def test_erf_reference():
    entry = REFERENCE["erf"]
    M, Q, P, a, a_star, options = inputs(entry["input"])
    cov = naive.overlap_matrix(M, Q, P)
    for activation, name in (("erf", "I2"), ("erf", "I3"), ("erf", "I4"), ("relu", "I2")):
        fields = range(int(name[1]))
        value = naive.kernel(activation, name, cov, *fields)
        key = f"{name}_{activation}_{''.join(map(str, fields))}"
        assert_allclose(value, entry[key], rtol=entry["tol_rel"])
    value = naive.kernel("relu", "I3", cov, 0, 1, 2)
    assert_allclose(value, entry["I3_relu_012"], rtol=entry["tol_rel"])
    M, Q, _ = naive.sgd_ode(
        M, Q, P, a, a_star, entry["alphas"], activation="erf", rtol=1e-9, **options
    )
    risk = [naive.committee_risk("erf", M[i], Q[i], P, a, a_star) for i in range(len(M))]
    for value, key in ((M, "M"), (Q, "Q"), (risk, "risk")):
        assert_allclose(value, entry[key], rtol=entry["tol_rel"])


def test_sgd_fluctuations_reference():
    entry = REFERENCE["fluctuations_lna"]
    *state, options = inputs(entry["input"])
    times = entry["input"]["alphas"]
    Sigma, bias = naive.sgd_fluctuations(*state, times, rtol=1e-6, **options)
    variances = np.diagonal(Sigma, axis1=1, axis2=2)
    assert_allclose(variances, entry["N_var"], rtol=entry["tol_rel"])
    assert_allclose(bias, entry["N_bias"], rtol=1e-3)


def test_sgd_drift_is_the_mean_increment():
    """Section 3 against E[e z z] and E[e^2 z z] summed over pairings."""
    _, Q, P, a, _ = STATE
    p, gamma = len(Q), OPTIONS["gamma"]
    dM, dQ, da = naive.sgd_drift(*STATE, gamma_a=0.3, batch=2, **OPTIONS)
    for k, m in itertools.combinations_with_replacement(range(p), 2):
        first, second = (naive.error_moment(*MOMENT_ARGUMENTS, j, [k, m]) for j in (1, 2))
        value = 2 * gamma * (a[k] + a[m]) * first + 4 * gamma**2 / 2 * a[k] * a[m] * second
        assert_allclose(dQ[k, m], value, rtol=1e-12, atol=1e-15)
        if k == m:
            assert_allclose(da[k], 0.3 * first, rtol=1e-12)
    for k, r in itertools.product(range(p), range(len(P))):
        value = 2 * gamma * a[k] * naive.error_moment(*MOMENT_ARGUMENTS, 1, [k, p + r])
        assert_allclose(dM[k, r], value, rtol=1e-12)


@pytest.mark.parametrize("batch", [1, 4])
def test_sgd_mean_step_is_the_mean_of_one_step(batch):
    """Section 3.1 against pairings over the coordinates of x, each an extra unit with a = 0."""
    M, Q, P, a, a_star = STATE
    dim, gamma = 6, OPTIONS["gamma"]
    W, W_star = naive.weights_from_overlaps(M, Q, P, dim)
    _, Q1 = naive.sgd_mean_step(*STATE, dim=dim, batch=batch, **OPTIONS)
    for k, m in ((0, 0), (0, 2)):
        same = other = 0.0
        for i in range(dim):
            column, column_star = W[:, i] / math.sqrt(dim), W_star[:, i] / math.sqrt(dim)
            extended = np.block([[Q, column[:, None]], [column, 1.0]])
            joint = (np.vstack([M, column_star]), extended, P, np.append(a, 0.0), a_star)
            joint += (OPTIONS["b"], OPTIONS["Delta"])
            x = len(Q)
            same += naive.error_moment(*joint, 2, [k, m, x, x])
            other += math.prod(naive.error_moment(*joint, 1, [row, x]) for row in (k, m))
        value = Q[k, m] + 4 * gamma**2 * a[k] * a[m] / dim**2 * (
            same / batch + (1 - 1 / batch) * other
        )
        first = naive.error_moment(*MOMENT_ARGUMENTS, 1, [k, m])
        value += 2 * gamma / dim * (a[k] + a[m]) * first
        assert_allclose(Q1[k, m], value, rtol=1e-13)


def test_increment_covariance_by_pairings():
    """Section 9: two entries against order-12 moments summed over pairings."""
    _, Q, _, a, _ = STATE
    p, gamma = len(Q), OPTIONS["gamma"]
    covariance = naive.increment_covariance(*STATE, **OPTIONS)

    def moment(j, indices):
        return naive.error_moment(*MOMENT_ARGUMENTS, j, indices)

    M00 = [(1, 2 * gamma * a[0], [0, p])]
    Q01 = [(1, 2 * gamma * (a[0] + a[1]), [0, 1]), (2, 4 * gamma**2 * a[0] * a[1], [0, 1])]
    for left, right, entry in ((M00, Q01, covariance[0, 7]), (Q01, Q01, covariance[7, 7])):
        square = sum(
            u * v * moment(i + j, s + t) for (i, u, s), (j, v, t) in itertools.product(left, right)
        )
        means = [sum(u * moment(j, s) for j, u, s in increment) for increment in (left, right)]
        assert_allclose(entry, square - math.prod(means), rtol=1e-12)


def test_committee_drift_of_the_quadratic_network():
    options = {**OPTIONS, "batch": 3}
    for spherical in (False, True):
        dM, dQ, _ = naive.sgd_drift(*STATE, spherical=spherical, **options)
        general = naive.committee_drift("quadratic", *STATE, spherical=spherical, **options)
        assert_allclose(general[0], dM, rtol=1e-12, atol=1e-15)
        assert_allclose(general[1], dQ, rtol=1e-12, atol=1e-15)
    general = naive.committee_risk("quadratic", *STATE, OPTIONS["b"])
    assert_allclose(general, naive.sgd_risk(*STATE, OPTIONS["b"]), rtol=1e-13)


def test_erf_drift_by_quadrature():
    """Section 10 with offset and label noise, against tensor Gauss-Hermite."""
    M, Q, P = (0.2 * x for x in random_overlaps(np.random.default_rng(3), 2, 2))
    a, a_star, gamma, b, Delta = np.array([0.8, -0.5]), np.array([1.0, 0.6]), 0.7, 0.3, 0.2
    nodes, weights = np.polynomial.hermite_e.hermegauss(28)
    grid = np.array(list(itertools.product(nodes, repeat=4))).T
    weight = np.prod(list(itertools.product(weights / weights.sum(), repeat=4)), axis=1)
    z = np.linalg.cholesky(naive.overlap_matrix(M, Q, P)) @ grid
    g, slope = naive.ACTIVATIONS["erf"]
    e = a_star @ g(z[2:]) - a @ g(z[:2]) + b
    force = a[:, None] * slope(z[:2])
    first = gamma * (weight * e * force) @ z.T
    second = gamma**2 * (weight * (e**2 + Delta) * force) @ force.T
    dM, dQ = naive.committee_drift("erf", M, Q, P, a, a_star, gamma=gamma, b=b, Delta=Delta)
    assert_allclose(dM, first[:, 2:], rtol=0, atol=1e-9)
    assert_allclose(dQ, first[:, :2] + first[:, :2].T + second, rtol=0, atol=1e-9)
    risk = naive.committee_risk("erf", M, Q, P, a, a_star, b)
    assert_allclose(risk, weight @ e**2 / 2, rtol=1e-10)


def polar_moment(cov, probability):
    """E[w+ z+ P(rest | w, z)] over the last two components, by quadrature in polar coordinates."""
    inverse, det = np.linalg.inv(cov[-2:, -2:]), np.linalg.det(cov[-2:, -2:])
    slope = cov[:-2, -2:] @ inverse
    given = cov[:-2, :-2] - slope @ cov[-2:, :-2]
    x, weight_x = np.polynomial.legendre.leggauss(60)
    reach = 12 * math.sqrt(np.linalg.eigvalsh(cov[-2:, -2:])[-1])
    total = 0.0
    for i, j in itertools.product(range(60), repeat=2):
        r, angle = reach * (x[i] + 1) / 2, math.pi * (x[j] + 1) / 4
        y = r * np.array([math.cos(angle), math.sin(angle)])
        density = math.exp(-y @ inverse @ y / 2) / (2 * math.pi * math.sqrt(det))
        value = r * y[0] * y[1] * density * probability(slope @ y, given)
        total += weight_x[i] * weight_x[j] * value
    return total * reach / 2 * math.pi / 4


def positive_quadrant(mean, cov):
    """P(both > 0) of a bivariate normal, by Plackett's integral over the angle."""
    h, k = mean / np.sqrt(np.diag(cov))
    arc = math.asin(cov[0, 1] / math.sqrt(cov[0, 0] * cov[1, 1]))
    x, weight = np.polynomial.legendre.leggauss(24)
    sine, cosine = np.sin(arc * (x + 1) / 2), np.cos(arc * (x + 1) / 2)
    integral = weight @ np.exp(-(h**2 + k**2 - 2 * h * k * sine) / (2 * cosine**2)) / 2
    return special.ndtr(h) * special.ndtr(k) + arc / (2 * math.pi) * integral


def test_relu_I4_by_quadrature():
    cov = naive.overlap_matrix(*random_overlaps(np.random.default_rng(0), 2, 2))
    assert_allclose(naive.relu_I4(cov), polar_moment(cov, positive_quadrant), rtol=1e-9)


def test_relu_I4_with_repeated_fields():
    cov = naive.overlap_matrix(*random_overlaps(np.random.default_rng(0), 2, 2))

    def I4(*fields):
        return naive.kernel("relu", "I4", cov, *fields)

    def half_line(mean, given):
        return special.ndtr(mean[0] / math.sqrt(given[0, 0]))

    expected = polar_moment(cov[np.ix_([0, 2, 3], [0, 2, 3])], half_line)
    assert_allclose(I4(0, 0, 2, 3), expected, rtol=1e-9)
    assert_allclose(I4(2, 0, 2, 3), expected, rtol=1e-9)
    assert_allclose(I4(0, 1, 0, 1), naive.kernel("relu", "I2", cov, 0, 1), rtol=1e-13)
    assert_allclose(I4(0, 0, 0, 0), cov[0, 0] / 2, rtol=1e-13)
    ratio, spread = cov[0, 1] / cov[0, 0], math.sqrt(cov[1, 1] - cov[0, 1] ** 2 / cov[0, 0])
    integral, _ = integrate.quad(
        lambda u: (
            u**2 * stats.norm.pdf(u, scale=math.sqrt(cov[0, 0])) * special.ndtr(ratio * u / spread)
        ),
        0,
        np.inf,
    )
    assert_allclose(I4(0, 1, 0, 0), integral, rtol=1e-8)
    stretch = np.diag([1.0, 1.0, 2.0, 1.0])
    doubled = stretch @ cov[np.ix_([0, 1, 0, 3], [0, 1, 0, 3])] @ stretch
    assert_allclose(naive.relu_I4(doubled), 2 * I4(0, 1, 0, 3), rtol=1e-13)


def test_relu_closed_kernels():
    cov = naive.overlap_matrix(*random_overlaps(np.random.default_rng(4), 2, 1))
    assert_allclose(naive.relu_I2(cov[:2, :2]), naive.positive_moment(cov[:2, :2], [0, 1]))
    outer = cov[np.ix_([0, 2], [0, 2])]
    slopes = np.linalg.solve(outer, cov[1, [0, 2]])
    moments = [naive.positive_moment(outer, [i, 1]) for i in (0, 1)]
    assert_allclose(naive.relu_I3(cov), slopes @ moments, rtol=1e-12)


def test_relu_drift_by_sampling():
    """Section 10 with offset and label noise, against 400 000 samples."""
    rng = np.random.default_rng(5)
    M, Q, P = random_overlaps(rng, 2, 2)
    a, a_star, gamma, b, Delta = np.array([0.8, -0.5]), np.array([1.0, 0.6]), 0.7, 0.3, 0.2
    z = np.linalg.cholesky(naive.overlap_matrix(M, Q, P)) @ rng.standard_normal((4, 400_000))
    g, slope = naive.ACTIVATIONS["relu"]
    e = a_star @ g(z[2:]) - a @ g(z[:2]) + b
    force = gamma * a[:, None] * slope(z[:2])
    samples = [e * force[k] * z[2 + r] for k in (0, 1) for r in (0, 1)]
    for k, m in ((0, 0), (0, 1), (1, 1)):
        linear = e * (force[k] * z[m] + force[m] * z[k])
        samples.append(linear + (e**2 + Delta) * force[k] * force[m])
    dM, dQ = naive.committee_drift("relu", M, Q, P, a, a_star, gamma=gamma, b=b, Delta=Delta)
    expected = [*dM.ravel(), dQ[0, 0], dQ[0, 1], dQ[1, 1]]
    samples.append(e**2 / 2)
    expected.append(naive.committee_risk("relu", M, Q, P, a, a_star, b))
    for sample, value in zip(samples, expected, strict=True):
        assert abs(sample.mean() - value) < 4.5 * stats.sem(sample)


class Script:
    """Generator of prepared normals and chi-squares that notes the degrees asked for."""

    def __init__(self, normals, chisquares=()):
        self.normals, self.chisquares, self.degrees = list(normals), list(chisquares), []

    def standard_normal(self, shape):
        return self.normals.pop(0).reshape(shape)

    def chisquare(self, degrees):
        self.degrees.append(degrees)
        return self.chisquares.pop(0)


PATH_CASES = {
    "noise": {"Delta": 0.3, "b": 0.2},
    "spherical": {"spherical": True},
    "trained": {"gamma_a": 0.4},
    "erf": {"activation": "erf"},
    "relu": {"activation": "relu", "b": 0.1},
    "rank_deficient": {},
}


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("case", PATH_CASES)
def test_chain_step_is_the_direct_step(case, batch):
    """Section 8 path by path: x given in the frame of the chain, its part outside scripted."""
    rng, options = np.random.default_rng(11), dict(PATH_CASES[case])
    p, p_star, dim = 3, 2, 9 if batch == 1 else 7
    W, W_star = rng.standard_normal((p, dim)), rng.standard_normal((p_star, dim))
    if case == "rank_deficient":
        W[1], W[2] = W[0], 0.7 * W_star[0]
    a, a_star = rng.standard_normal(p), rng.standard_normal(p_star)
    Bm, Qperp, Lstar = naive.chain_start(*naive.overlaps_from_weights(W, W_star))
    frame = np.hstack([Bm, naive.semidefinite_cholesky(Qperp), np.zeros((p, dim - p - p_star))])
    W, W_star = math.sqrt(dim) * frame, math.sqrt(dim) * np.eye(p_star, dim)
    W_star[:, :p_star] = math.sqrt(dim) * Lstar
    x, xi = rng.standard_normal((batch, dim)), rng.standard_normal(batch)
    x_star, x_frame, x_perp = np.split(x, [p_star, p_star + p], axis=1)
    options["norms"] = np.mean(W**2, axis=1) if options.pop("spherical", False) else None
    options["gamma"] = 0.7

    free, _ = naive.direct_sgd_step(W, W_star, a, a_star, x, xi, **{**options, "norms": None})
    c = np.linalg.pinv(x).T @ (free - W).T / math.sqrt(dim)
    if batch == 1:
        lower = [rng.standard_normal((p, p))]
        script = Script([x_star, x_frame, xi, *lower], [np.sum(x_perp**2), 1.0, 2.0])
    else:
        factor = naive.semidefinite_cholesky(c.T @ c)
        script = Script([x_star, x_frame, xi, np.linalg.pinv(factor) @ c.T @ x_perp])
    Bm, Qperp, a_chain = naive.chain_step(
        script, Bm, Qperp, Lstar, a, a_star, dim=dim, batch=batch, **options
    )
    W, a = naive.direct_sgd_step(W, W_star, a, a_star, x, xi, **options)
    M, Q, _ = naive.overlaps_from_weights(W, W_star)
    assert_allclose(Bm @ Lstar.T, M, rtol=1e-9, atol=1e-12)
    assert_allclose(Qperp + Bm @ Bm.T, Q, rtol=1e-9, atol=1e-12)
    assert_allclose(a_chain, a, rtol=1e-12)
    assert script.degrees == ([4, 3, 2] if batch == 1 else [])


@pytest.mark.parametrize("degrees", [2, 3, 7])
def test_wishart_factor(degrees):
    """Mean and variance of T T^T in three dimensions, from 20 000 draws."""
    rng = np.random.default_rng(14)
    factors = (naive.wishart_factor(rng, 3, degrees) for _ in range(20_000))
    draws = np.array([T @ T.T for T in factors])
    assert np.all(np.abs(draws.mean(axis=0) - degrees * np.eye(3)) < 4 * stats.sem(draws))
    squares = (draws - degrees * np.eye(3)) ** 2
    variance = degrees * (1 + np.eye(3))
    assert np.all(np.abs(squares.mean(axis=0) - variance) < 4 * stats.sem(squares))


@pytest.mark.parametrize("options", [{"Delta": 0.2}, {"batch": 2, "spherical": True}])
def test_chain_has_the_law_of_direct_sgd(options):
    """Section 8: two-sample Kolmogorov-Smirnov on every overlap after four steps."""
    rng, dim = np.random.default_rng(15), 8
    W, W_star = rng.standard_normal((3, dim)), rng.standard_normal((2, dim))
    layers, overlaps = uniform(3, 2), naive.overlaps_from_weights(W, W_star)
    upper, runs = np.triu_indices(3, 1), []
    for run in (naive.direct_sgd, naive.chain):
        start = (W, W_star) if run is naive.direct_sgd else overlaps
        size = {} if run is naive.direct_sgd else {"dim": dim}
        results = [
            run(rng, *start, *layers, [4], gamma=1.0, **size, **options) for _ in range(1500)
        ]
        runs.append([np.concatenate([M.ravel(), Q[0][upper]]) for M, Q, _ in results])
    direct, chain = (np.array(run).T for run in runs)
    pvalues = [stats.ks_2samp(*pair).pvalue for pair in zip(direct, chain, strict=True)]
    assert min(pvalues) * len(pvalues) > 1e-3


def test_direct_increments():
    """One step of direct SGD: the means of M, Q and a against sections 3 and 3.1."""
    M, Q, P, a, a_star = STATE
    dim, batch, rng = 6, 2, np.random.default_rng(13)
    W, W_star = naive.weights_from_overlaps(M, Q, P, dim)
    steps = []
    for _ in range(20_000):
        M1, Q1, a1 = naive.direct_sgd(
            rng, W, W_star, a, a_star, [1], batch=batch, gamma_a=0.3, **OPTIONS
        )
        steps.append(np.concatenate([M1.ravel(), Q1.ravel(), a1.ravel()]))
    mean = naive.sgd_mean_step(*STATE, dim=dim, batch=batch, **OPTIONS)
    _, _, da = naive.sgd_drift(*STATE, gamma_a=0.3, **OPTIONS)
    expected = np.concatenate([mean[0].ravel(), mean[1].ravel(), a + da / dim])
    assert np.all(np.abs(np.mean(steps, axis=0) - expected) < 4 * stats.sem(steps))


def test_chain_increments():
    """One step of the chain: mean against section 3.1, covariance at large N against section 9."""
    rng = np.random.default_rng(12)
    M, Q, P = 0.5 * np.eye(2, 1) + 0.1, np.array([[0.6, 0.1], [0.1, 0.5]]), np.eye(1)
    a, a_star, options = np.array([0.5, 0.3]), np.array([0.8]), {"gamma": 0.4, "Delta": 0.2}
    start = np.concatenate([M.ravel(), Q.ravel()])
    Bm, Qperp, Lstar = naive.chain_start(M, Q, P)

    def increments(dim):
        steps = []
        for _ in range(20_000):
            B, q, _ = naive.chain_step(rng, Bm, Qperp, Lstar, a, a_star, dim=dim, **options)
            steps.append(np.concatenate([(B @ Lstar.T).ravel(), (q + B @ B.T).ravel()]) - start)
        return dim * np.array(steps)

    sample = increments(4)
    mean = naive.sgd_mean_step(M, Q, P, a, a_star, dim=4, **options)
    expected = 4 * (np.concatenate([x.ravel() for x in mean]) - start)
    assert np.all(np.abs(sample.mean(axis=0) - expected) < 4 * stats.sem(sample))
    sample = increments(10**8)
    centred = sample - sample.mean(axis=0)
    products = centred[:, :, None] * centred[:, None, :]
    expected = naive.increment_covariance(M, Q, P, a, a_star, **options)
    assert np.all(np.abs(products.mean(axis=0) - expected) < 4 * stats.sem(products))


@pytest.mark.parametrize(
    ("p", "sigma", "eta", "batch"),
    [(2, [0.5, 0.5], 0.1, 1), (3, [0.5, 1 / 3, 1 / 6], 0.4, 4), (4, [0.5, 0.5], 0.1, 1)],
)
def test_noise_floor(p, sigma, eta, batch):
    """Section 5: R_inf = (Delta / 2) Rmis / (1 - Rmis), also with surplus students."""
    a, a_star = uniform(p, len(sigma))
    P = np.diag(np.array(sigma) * len(sigma))
    floor = naive.noise_floor(
        P, a, a_star, t=300.0, gamma=eta * p, Delta=0.5, batch=batch, rtol=1e-10
    )
    mis = naive.misadjustment(sigma, eta, batch)
    assert_allclose(floor, 0.25 * mis / (1 - mis), rtol=1e-8)


def test_late_time_constant():
    """Section 5: R alpha^2 at alpha = 1e5 of a stiff integration, anisotropic, batch 2."""
    sigma, p, eta = [0.7, 0.4], 3, 0.05
    a, a_star = uniform(p, 2)
    P = np.diag(np.array(sigma) * 2)
    M, Q = naive.solution(P, a, a_star)
    Q[2, 2] += 0.2
    M, Q, _ = naive.sgd_ode(
        M, Q, P, a, a_star, [1e5], method="Radau", rtol=1e-8, gamma=eta * p, batch=2
    )
    constant = naive.late_time_constant(sigma, p, eta, 2)
    assert_allclose(naive.sgd_risk(M[0], Q[0], P, a, a_star) * 1e10, constant, rtol=1e-3)


def test_escape_time():
    """Section 4: against the closed formula, and the drop reached by the flow at that time."""
    rng = np.random.default_rng(6)
    a, a_star = uniform(3, 2)
    P, gamma, drop = 1.2 * np.eye(2), 0.8, 0.005
    M, Q = 1e-4 * rng.standard_normal((3, 2)), random_overlaps(rng, 3, 2)[1]
    time = naive.escape_time(M, Q, P, a, a_star, gamma=gamma, drop=drop)
    sigma = 1.2 * a_star[0]
    seed = np.linalg.norm(np.linalg.inv(linalg.sqrtm(Q)) @ M) ** 2 / 1.2
    formula = math.log(drop / (2 * (2 * sigma / 5) * sigma * seed)) / (8 * gamma * a[0] * sigma)
    assert_allclose(time, formula, rtol=1e-12)
    M, Q, _ = naive.sgd_ode(M, Q, P, a, a_star, [time], gamma=gamma, noise=False, rtol=1e-10)
    _, risk, _ = naive.plateau(P, a, a_star, gamma=gamma, noise=False)
    assert_allclose(risk - naive.sgd_risk(M[0], Q[0], P, a, a_star), drop, rtol=0.01)


def test_principal_angles():
    """Section 6.2 with P = rho I: every cotangent grows as exp(4 eta sigma alpha)."""
    rng = np.random.default_rng(7)
    W, W_star = rng.standard_normal((3, 9)), 3 * math.sqrt(0.8) * np.eye(2, 9)
    M, Q, P = naive.overlaps_from_weights(W, W_star)
    a, a_star = uniform(3, 2)
    grown, Q1, _ = naive.sgd_ode(M, Q, P, a, a_star, [4.0], gamma=0.8, noise=False)
    before, after = naive.principal_angles(M, Q, P), naive.principal_angles(grown[0], Q1[0], P)
    assert before.shape == (2,)
    growth = math.exp(4 * 0.8 * a[0] * a_star[0] * 0.8 * 4.0)
    assert_allclose(np.tan(before) / np.tan(after), growth, rtol=1e-9)


# population_flow

FLOW = json.loads(
    (pathlib.Path(__file__).parent / "reference" / "population_flow.json").read_text()
)
OBSERVABLES = {
    "trS": "trace",
    "fro2": "distance2",
    "loss_no_reg": "loss",
    "overlap_tr_S_Sstar": "overlap",
    "overlap": "overlap",
    "s": "shift",
}


def wave(d, m, amp, phase=0.3):
    """The matrix amp cos(0.7 i j + phase i), indices from 1, of the reference entries."""
    i, j = np.arange(1, d + 1)[:, None], np.arange(1, m + 1)
    return amp * np.cos(0.7 * i * j + phase * i)


def padded(values, d):
    return np.pad(np.array(values, float), (0, d - len(values)))


def start(entry):
    """W0 and mu of an entry with d, m, amp and teacher_eigs."""
    given = entry["inputs"]
    return wave(given["d"], given["m"], given["amp"]), padded(given["teacher_eigs"], given["d"])


def assert_observables(run, entry, **tolerance):
    for key, field in OBSERVABLES.items():
        if key in entry:
            assert_allclose(run[field], entry[key], **tolerance)


def haar_frame(rng, d, m):
    Q, R = np.linalg.qr(rng.standard_normal((d, m)))
    return Q * np.sign(np.diag(R))


def test_flow_loss_reference():
    entry = FLOW["loss_grad_hess"]
    (W, mu), D = start(entry), wave(5, 3, 1.0, 0.11)
    weights = {key: entry["inputs"][key] for key in ("kappa", "lam")}
    gradient = naive.flow_gradient(W, mu, **weights)
    action = naive.flow_hessian_action(W, mu, D, **weights)
    spectrum = naive.flow_hessian_spectrum(W, mu, **weights)
    values = {
        "loss_canonical": naive.flow_loss(W, mu, **weights),
        "grad_fro": np.linalg.norm(gradient),
        "grad_11": gradient[0, 0],
        "hessvec_fro": np.linalg.norm(action),
        "hessvec_dot_D": np.sum(action * D),
        "hess_min_eig": spectrum[0],
        "hess_max_eig": spectrum[-1],
        "hess_trace": np.sum(spectrum),
    }
    for key, value in values.items():
        assert_allclose(value, entry[key], rtol=1e-12)


@pytest.mark.parametrize("entry", FLOW["riccati_kappa0"])
def test_flow_kappa0_reference(entry):
    (W0, mu), given = start(entry), entry["inputs"]
    (S,) = naive.flow_kappa0(W0, mu, [given["tau"]], given["lam"])
    run = naive.matrix_observables(S, mu, kappa=0.0, lam=given["lam"])
    assert_allclose(S[0, :2], [entry["S11"], entry["S12"]], rtol=0, atol=1e-11)
    assert_allclose(run["trace"], entry["trS"], rtol=0, atol=1e-11)
    assert_allclose(run["distance2"], entry["fro2_S_minus_Sstar"], rtol=0, atol=1e-11)


@pytest.mark.parametrize("entry", FLOW["flow_trace_feedback"])
def test_flow_ode_reference(entry):
    (W0, mu), given = start(entry), entry["inputs"]
    weights = {key: given[key] for key in ("kappa", "lam")}
    W, _ = naive.flow_ode(W0, mu, given["tau"], **weights)
    run = naive.flow_observables(W, mu, **weights)
    assert_observables(run, entry, rtol=1e-8, atol=1e-11)
    assert_allclose(np.sum(W[:, 0] ** 2, axis=-1), entry["S11"], rtol=1e-10)


@pytest.mark.parametrize("entry", FLOW["orthonormal_exact"])
def test_orthonormal_flow_reference(entry):
    given = entry["inputs"]
    options = {"scale": given["s0"], "kappa": given["kappa"], "lam": given["lam"]}
    run = naive.orthonormal_flow(
        given["cos2"], given["tau"], teacher_width=given["mstar"], **options
    )
    assert_observables(run, entry, rtol=1e-7, atol=1e-10)
    columns = naive.angle_flow(
        given["cos2"], np.ones(len(given["cos2"])), given["mstar"], given["tau"], **options
    )
    for field, value in run.items():
        assert_allclose(columns[field], value, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("entry", FLOW["wachter"])
def test_jacobi_reference(entry):
    z, *sizes = (entry["inputs"][key] for key in ("z", "gamma", "gamma_star"))
    atoms = [entry["atoms"]["at0"], entry["atoms"]["at1"]]
    assert_allclose(naive.jacobi_edges(*sizes), entry["support"], rtol=1e-12, atol=1e-15)
    assert_allclose(naive.jacobi_atoms(*sizes), atoms, rtol=1e-12, atol=1e-15)
    assert_allclose(naive.jacobi_logdet(z, *sizes), entry["J_logdet_per_d"], rtol=1e-11)
    assert_allclose(-z * naive.jacobi_logdet_slope(z, *sizes), entry["y"], rtol=1e-12)
    nodes, weights = naive.jacobi_nodes(*sizes)
    for k, moment in enumerate(entry["moments_per_d"], start=1):
        assert_allclose(
            sizes[0] * naive.jacobi_mean(lambda x, k=k: x**k, *sizes), moment, rtol=1e-12
        )
        assert_allclose(sizes[0] * nodes**k @ weights, moment, rtol=1e-12)
    integral, _ = integrate.quad(naive.jacobi_logdet_slope, 0, z, tuple(sizes), epsrel=1e-12)
    assert_allclose(integral, entry["J_logdet_per_d"], rtol=1e-11)


@pytest.mark.parametrize("entry", FLOW["limit_orthonormal"])
def test_orthonormal_limit_reference(entry):
    gamma, gamma_star, t = (entry["inputs"][key] for key in ("gamma", "gamma_star", "tau"))
    run = naive.orthonormal_limit(gamma, gamma_star, t)
    assert_allclose(run["distance2"], entry["fro2_per_d"], rtol=1e-8)
    assert_allclose(run["overlap"], entry["overlap_per_d"], rtol=1e-9)
    assert_allclose(run["shift"], entry["s"], rtol=1e-8)
    assert_allclose(run["trace"], gamma_star, rtol=1e-10)
    assert_allclose(np.exp(-2 * run["shift_integral"]), entry["eps"], rtol=1e-8)
    eps, k0, k1 = naive.orthonormal_limit_closed(gamma, gamma_star, t)
    assert_allclose(eps, entry["eps"], rtol=1e-8)
    s0 = gamma_star / gamma
    for tau, null, teacher in zip(t, k0, k1, strict=True):
        u = 1 + 2 * s0 * null
        logdet = naive.jacobi_logdet(2 * s0 * (teacher - null) / u, gamma, gamma_star)
        assert_allclose((gamma * math.log(u) + logdet) / 2, gamma_star * tau, rtol=1e-9)


@pytest.mark.parametrize("entry", FLOW["limit_invariant"])
def test_invariant_limit_reference(entry):
    given = entry["inputs"]
    gamma_star = given["gamma_star"]
    student = naive.marchenko_pastur_nodes(given["gamma"], given["tr0"])
    if given["teacher"].startswith("orthonormal"):
        teacher = naive.projector_law(gamma_star)
    else:
        teacher = naive.marchenko_pastur_nodes(gamma_star, gamma_star)
    run = naive.invariant_limit(
        student, teacher, given["tau"], trace_weight_d=float(given["kappa_d"]), ridge=given["lam"]
    )
    for key in ("fro2_per_d", "overlap_per_d", "trS_per_d", "s"):
        field = OBSERVABLES[key.removesuffix("_per_d")]
        assert_allclose(run[field], entry[key], rtol=1e-7)
    assert_allclose(run["b"], entry["b"], rtol=1e-7)


@pytest.mark.parametrize("entry", FLOW["critical_points"])
def test_flow_critical_point_reference(entry):
    given = entry["inputs"]
    mu, selected = np.array(given["teacher_eigs"], float), given["I"]
    weights = {key: given[key] for key in ("kappa", "lam")}
    s, W = naive.flow_critical_point(mu, selected, given["m"], **weights)
    spectrum = naive.flow_hessian_spectrum(W, mu, **weights)
    assert_allclose(naive.flow_gradient(W, mu, **weights), 0, atol=1e-13)
    assert_allclose(s, entry["s"], rtol=1e-14, atol=1e-15)
    assert_allclose(np.sum(W**2, axis=1)[selected], entry["lambda_I"], rtol=1e-14)
    assert_allclose(naive.flow_loss(W, mu, **weights), entry["loss_no_reg"], atol=1e-14)
    extremes = [entry["hess_min"], entry["hess_max"]]
    assert_allclose(spectrum[[0, -1]], extremes, rtol=0, atol=1e-12)
    counts = [np.sum(spectrum < -1e-10), np.sum(np.abs(spectrum) < 1e-10), len(spectrum)]
    assert counts == [entry[key] for key in ("n_negative", "n_zero", "n_total")]


@pytest.mark.parametrize("entry", FLOW["asymptotics"])
def test_flow_asymptotics_reference(entry):
    given = entry["inputs"]
    mu = padded(given["teacher_eigs_positive"], given["d"])
    # the rate 4 min(mu) of a teacher of full rank is that of kappa = 0
    kappa = 0.0 if np.all(mu > 0) else given["kappa"]
    law = naive.flow_asymptotics(mu, given["m"], kappa=kappa)
    assert_allclose(law["constant"], entry.get("loss_times_tau2", math.nan), rtol=1e-13)
    rate = entry.get("rate_loss", entry.get("rate_excess", math.nan))
    assert_allclose(law["rate"], rate, rtol=1e-12)
    assert_allclose(law["residual"], entry.get("loss_limit", 0.0), rtol=1e-14, atol=1e-28)
    if "s_limit" in entry:
        s, _ = naive.flow_minimum(mu, given["m"], kappa=kappa)
        assert_allclose(s, entry["s_limit"], rtol=1e-13)


@pytest.mark.parametrize("entry", FLOW["signed"])
def test_signed_flow_reference(entry):
    given = entry["inputs"]
    plus = wave(given["d"], given["m_plus"], given["amp"])
    minus = wave(given["d"], given["m_minus"], given["amp"], 0.9)
    mu, kappa = np.array(given["Sstar_diag"]), given["kappa"]
    grown = naive.signed_flow(plus, minus, mu, given["tau"], kappa=kappa)
    squares = [W @ W.transpose(0, 2, 1) for W in grown]
    run = naive.matrix_observables(squares[0] - squares[1], mu, kappa=kappa)
    assert_observables(run, entry, rtol=1e-9)
    invariant = plus.T @ minus
    assert_allclose(np.linalg.norm(invariant), entry["cross_invariant_fro"], rtol=1e-13)
    conserved = grown[0].transpose(0, 2, 1) @ grown[1]
    assert_allclose(conserved, np.broadcast_to(invariant, conserved.shape), rtol=0, atol=1e-11)


@pytest.mark.parametrize("entry", FLOW["sample_thresholds"])
def test_recovery_samples_reference(entry):
    d, m_star = entry["inputs"]["d"], entry["inputs"]["mstar"]
    assert naive.recovery_counts(d, m_star) == (entry["n_dof"], entry["n_count"])
    mean, sem = naive.recovery_samples(np.random.default_rng(0), d, m_star, 400)
    # the entry is a mean of 150 draws
    assert abs(mean - entry["n_half_conic"]) < 4 * sem * math.sqrt(1 + 400 / 150)


@pytest.mark.parametrize("entry", FLOW["sample_threshold_limit"])
def test_recovery_samples_limit_reference(entry):
    limit = naive.recovery_samples_limit(entry["inputs"]["gamma_star"])
    assert_allclose(limit, entry["n_over_d2"], rtol=1e-9)


@pytest.mark.parametrize("entry", FLOW["escape"])
def test_flow_escape_time_reference(entry):
    given = entry["inputs"]
    cosines2 = padded(np.full(given["mstar"], given["cos2"]), given["m"])
    time = naive.flow_escape_time(
        cosines2, teacher_width=given["mstar"], scale=given["s0"], kappa=given["kappa"]
    )
    assert_allclose(time, entry["tau_overlap_half"], rtol=1e-5)


@pytest.mark.parametrize("entry", FLOW["finite_d_means"])
def test_angle_flow_of_random_frames_reference(entry):
    given = entry["inputs"]
    d, t = given["d"], given["tau"]
    m, m_star = round(given["gamma"] * d), round(given["gamma_star"] * d)
    curves = []
    for i in range(given["n_seeds"]):
        rng = np.random.default_rng(1000 + i)
        student, teacher = haar_frame(rng, d, m), haar_frame(rng, d, m_star)
        c = np.minimum(np.linalg.svd(teacher.T @ student, compute_uv=False) ** 2, 1.0)
        run = naive.angle_flow(
            padded(c, m), np.ones(m), m_star, t, scale=m_star / m, kappa=given["kappa"], rtol=1e-8
        )
        curves.append(run["distance2"] / d)
    assert_allclose(np.mean(curves, axis=0), entry["fro2_per_d_mean"], rtol=1e-6)
    assert_allclose(stats.sem(curves), entry["sem"], rtol=1e-4)
    limit = naive.orthonormal_limit(given["gamma"], given["gamma_star"], t)
    assert_allclose(limit["distance2"], entry["limit"], rtol=1e-8)


def test_flow_derivatives():
    """Gradient and Hessian against complex steps, and the dense form of section 3.2."""
    rng = np.random.default_rng(20)
    d, m, weights = 4, 3, {"kappa": 0.7, "lam": 0.3}
    W, D, mu = rng.standard_normal((d, m)), rng.standard_normal((d, m)), rng.random(d)
    moved = W + 1e-30j * D
    gradient, action = (
        f(*args, **weights)
        for f, args in ((naive.flow_gradient, (W, mu)), (naive.flow_hessian_action, (W, mu, D)))
    )
    slope = naive.flow_loss(moved, mu, **weights).imag / 1e-30
    assert_allclose(np.sum(gradient * D), slope, rtol=1e-12)
    bend = naive.flow_gradient(moved, mu, **weights).imag / 1e-30
    assert_allclose(action, bend, rtol=1e-12)

    H = naive.flow_hessian(W, mu, **weights)
    assert_allclose(H @ D.ravel(order="F"), action.ravel(order="F"), rtol=1e-12)
    w, G = W.ravel(order="F"), naive.flow_force(W, mu, **weights)
    swap = np.array(
        [
            [W[a, j] * W[i, b] for j in range(m) for i in range(d)]
            for b in range(m)
            for a in range(d)
        ]
    )
    dense = np.kron(np.eye(m), G) + np.kron(W.T @ W, np.eye(d)) + swap
    dense += 2 * weights["kappa"] * np.outer(w, w)
    assert_allclose(H, 4 * dense, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("selected", "m"), [([0, 2], 3), ([1, 4], 2), ([0, 1, 2], 7)])
@pytest.mark.parametrize("lam", [0.0, 0.15])
def test_flow_hessian_spectrum(selected, m, lam):
    """The list of section 3.2 against the dense Hessian."""
    mu, kappa = np.array([2.0, 1.5, 1.0, 0.5, 0.0, 0.0]), 0.4
    s, W = naive.flow_critical_point(mu, selected, m, kappa=kappa, lam=lam)
    n, others = len(selected), np.setdiff1d(np.arange(6), selected)
    values = mu[selected] - s
    listed = [4 * (s - mu[k]) for k in others for _ in range(m - n)]
    listed += [4 * (mu[i] - mu[k]) for i in selected for k in others]
    listed += [0.0] * (n * (m - n) + n * (n - 1) // 2)
    listed += [4 * (x + y) for x, y in itertools.combinations(values, 2)]
    root = np.sqrt(values)
    listed += list(np.linalg.eigvalsh(8 * (np.diag(values) + kappa * np.outer(root, root))))
    spectrum = naive.flow_hessian_spectrum(W, mu, kappa=kappa, lam=lam)
    assert_allclose(spectrum, np.sort(listed), rtol=0, atol=1e-12)
    loss = n * s**2 + np.sum(mu[others] ** 2) + kappa * (np.sum(mu[others]) + n * s) ** 2
    run = naive.flow_observables(W, mu, kappa=kappa, lam=lam)
    assert_allclose([run["loss"], run["shift"]], [loss, s], rtol=1e-12)


def test_flow_dissipation():
    """Section 1.2: dLc/dtau = -4 ||G W||^2, and the trace equation."""
    W0, mu = wave(5, 3, 0.5), np.array([1.2, 0.7, 0.0, 0.3, 0.0])
    weights, h = {"kappa": 0.6, "lam": 0.1}, 1e-4
    W, _ = naive.flow_ode(W0, mu, 0.5 + h * np.arange(-2, 3), **weights)

    def rate(values):
        return (values[0] - 8 * values[1] + 8 * values[3] - values[4]) / (12 * h)

    middle, G = W[2], naive.flow_force(W[2], mu, **weights)
    loss = rate([naive.flow_loss(w, mu, **weights) for w in W])
    assert_allclose(loss, -4 * np.sum((G @ middle) ** 2), rtol=1e-8)
    run = naive.flow_observables(middle, mu, **weights)
    square = np.sum((middle @ middle.T) ** 2)
    expected = 2 * (run["overlap"] - run["shift"] * run["trace"] - square)
    assert_allclose(rate([np.sum(w**2) for w in W]), expected, rtol=1e-8)


@pytest.mark.parametrize("m", [2, 5])
def test_flow_log_determinant(m):
    """Equation (4): the integral of tr S is half the log-determinant of M."""
    W0, mu, t = wave(4, m, 0.6), np.array([1.0, 0.0, 0.6, 0.2]), np.linspace(0, 3, 301)
    run = naive.flow_trajectory(W0, mu, t, kappa=0.5, lam=0.1, rtol=1e-10)
    integral = integrate.cumulative_simpson(run["trace"], x=t, initial=0)
    logdet = naive.flow_log_determinant(W0, mu, t, run["shift_integral"])
    closure = 0.5 * (logdet / 2 - t * np.sum(mu)) + 0.1 * t
    # Simpson's rule closes at every second point
    assert_allclose(integral[::2], logdet[::2] / 2, rtol=0, atol=1e-6)
    assert_allclose(run["shift_integral"][::2], closure[::2], rtol=0, atol=1e-6)


def test_flow_kappa0_of_the_ode():
    W0, mu, t = wave(5, 3, 0.5), np.array([0.9, 0.0, 0.4, 0.0, 0.3]), [0.3, 1.0, 3.0]
    for lam in (0.0, 0.3):
        W, _ = naive.flow_ode(W0, mu, t, kappa=0.0, lam=lam)
        assert_allclose(W @ W.transpose(0, 2, 1), naive.flow_kappa0(W0, mu, t, lam), atol=1e-10)


def test_orthonormal_network_of_random_frames():
    """Section 2.5: only the principal angles of the two frames matter."""
    rng = np.random.default_rng(21)
    t, options = [0.4, 2.0, 7.0], {"kappa": 0.5, "lam": 0.1}
    for d, m, m_star in ((9, 3, 5), (9, 4, 2), (8, 6, 5)):
        student, teacher = haar_frame(rng, d, m), haar_frame(rng, d, m_star)
        basis = np.linalg.svd(teacher)[0]
        mu = padded(np.ones(m_star), d)
        run = naive.flow_trajectory(math.sqrt(0.7) * basis.T @ student, mu, t, **options)
        c = np.linalg.svd(teacher.T @ student, compute_uv=False) ** 2
        c = padded(np.where(c > 1 - 1e-12, 1.0, c), m)
        small = naive.orthonormal_flow(c, t, teacher_width=m_star, scale=0.7, **options)
        for field, value in run.items():
            assert_allclose(small[field], value, rtol=1e-9, atol=1e-11)


def test_signed_flow_decouples():
    """Section 1.5 at kappa = 0: blocks with W+^T W- = 0 follow S* and -S* on their own."""
    mu, t = np.array([1.0, 0.4, -0.7, -0.2]), [0.5, 2.0]
    frame = linalg.qr(wave(4, 4, 1.0))[0]
    plus, minus = frame[:, :2], 0.5 * frame[:, 2:]
    grown = naive.signed_flow(plus, minus, mu, t, kappa=0.0)
    for W, W0, teacher in zip(grown, (plus, minus), (mu, -mu), strict=True):
        S = W @ W.transpose(0, 2, 1)
        assert_allclose(S, naive.flow_kappa0(W0, teacher, t), rtol=0, atol=1e-11)


def test_flow_descend():
    """k steps of size lr are the time 4 lr k, up to an error that halves with lr."""
    W0, mu, weights = wave(4, 3, 0.5), np.array([1.0, 0.5, 0.0, 0.0]), {"kappa": 0.5, "lam": 0.1}
    exact, _ = naive.flow_ode(W0, mu, [0.8, 2.4], **weights)
    coarse, fine = (
        naive.flow_descend(W0, mu, [n, 3 * n], lr=0.2 / n, **weights) - exact for n in (400, 800)
    )
    assert np.max(np.abs(coarse)) < 1e-3
    assert_allclose(np.linalg.norm(coarse) / np.linalg.norm(fine), 2.0, rtol=0.01)


@pytest.mark.parametrize("kappa", [0.0, 0.5])
def test_flow_polynomial_law(kappa):
    """Section 3.4 with more students than needed, at a time of a stiff integration."""
    mu, tau = np.array([1.0, 0.6, 0.0, 0.0]), 1e5
    run = naive.flow_trajectory(wave(4, 3, 0.5), mu, [tau], kappa=kappa, method="Radau", rtol=1e-8)
    constant = naive.flow_asymptotics(mu, 3, kappa=kappa)["constant"]
    assert_allclose(run["loss"][0] * tau**2, constant, rtol=5e-3)


@pytest.mark.parametrize(
    ("mu", "m", "lam", "t"),
    [
        ([1.0, 0.7, 0.5], 4, 0.0, [12.0, 13.0]),
        ([1.0, 0.5, 0.0], 2, 0.0, [20.0, 22.0]),
        ([1.4, 1.0, 0.5], 1, 0.0, [20.0, 22.0]),
        ([1.0, 1.0, 1.0, 0.0], 2, 0.0, [12.0, 13.0]),
        ([1.5, 1.0, 0.5, 0.0], 4, 1.0, [30.0, 34.0]),
        ([1.5, 1.0, 0.4, 0.0], 4, 0.2, [50.0, 54.0]),
    ],
)
def test_flow_exponential_rate(mu, m, lam, t):
    """Section 3.4 for kappa = 1/2, where the trace stiffens the modes inside the teacher's span."""
    mu = np.array(mu)
    law = naive.flow_asymptotics(mu, m, lam=lam)
    run = naive.flow_trajectory(wave(len(mu), m, 0.7), mu, t, lam=lam)
    excess = np.abs(run["loss"] - law["residual"])
    rate = -np.diff(np.log(excess)) / np.diff(t)
    assert_allclose(rate, law["rate"], rtol=0.02)


def test_flow_minimum():
    """The soft threshold of section 3.4, and the truncated teacher of 3.3."""
    mu = np.array([0.4, 1.5, 0.0, 1.0])
    s, W = naive.flow_minimum(mu, 4, kappa=0.5, lam=0.6)
    assert_allclose(s, 0.24, rtol=1e-13)
    assert_allclose(np.sum(W**2, axis=1), [0.16, 1.26, 0.0, 0.76], rtol=1e-13, atol=1e-15)
    run = naive.flow_trajectory(wave(4, 4, 0.5), mu, [80.0], kappa=0.5, lam=0.6)
    assert_allclose(run["shift"], s, rtol=1e-9)
    s, W = naive.flow_minimum(np.ones(5), 2, kappa=0.5)
    assert_allclose(naive.flow_loss(W, np.ones(5), kappa=0.5), 3 + 0.5 * 9 / 2, rtol=1e-13)


def test_flow_escape_time():
    """Section 3.5: half a logarithm of 1/cos^2."""
    times = [
        naive.flow_escape_time([c, c], teacher_width=2, scale=0.5, level=0.3)
        for c in (1e-5, 1e-6, 1e-7)
    ]
    assert_allclose(np.diff(times), math.log(10) / 2, rtol=1e-3)


def test_jacobi_law_of_random_frames():
    rng = np.random.default_rng(22)
    d, sizes = 400, (0.3, 0.5)
    student, teacher = (haar_frame(rng, d, round(size * d)) for size in sizes)
    c = np.linalg.svd(teacher.T @ student, compute_uv=False) ** 2
    for f in (lambda x: x, lambda x: x**2, lambda x: math.log1p(20 * x)):
        assert_allclose(np.mean([f(x) for x in c]), naive.jacobi_mean(f, *sizes), rtol=0.02)


@pytest.mark.parametrize("ratio", [0.4, 1.0, 3.0])
def test_marchenko_pastur(ratio):
    nodes, weights = naive.marchenko_pastur_nodes(ratio, 0.7)
    moments = [1.0, 0.7, 0.49 * (1 + 1 / ratio)]
    assert_allclose([nodes**k @ weights for k in range(3)], moments, rtol=1e-12)
    mass, _ = integrate.quad(
        lambda root: 2 * root * naive.marchenko_pastur_density(root**2, ratio, 0.7),
        *np.sqrt(naive.marchenko_pastur_edges(ratio, 0.7)),
    )
    assert_allclose(mass, min(1, ratio), rtol=1e-7)
    rng, d = np.random.default_rng(23), 300
    G = rng.standard_normal((d, round(ratio * d)))
    sample = np.linalg.slogdet(np.eye(d) + 5 * 0.7 / G.shape[1] * G @ G.T)[1] / d
    assert_allclose(np.log1p(5 * nodes) @ weights, sample, rtol=0.02)


@pytest.mark.parametrize("excess", [1.0, 2.0])
def test_invariant_limit_of_projectors(excess):
    """Section 4.3 is section 4.1 there; a surplus of the initial trace goes at once."""
    gamma, gamma_star, t = 0.5, 0.3, [0.5, 2.0, 5.0]
    student = naive.projector_law(gamma, excess * gamma_star / gamma)
    run = naive.invariant_limit(student, naive.projector_law(gamma_star), t)
    expected = naive.orthonormal_limit(gamma, gamma_star, t)
    for field in ("distance2", "overlap", "trace", "shift"):
        assert_allclose(run[field], expected[field], rtol=1e-7)
    shed = run["shift_integral"] - expected["shift_integral"]
    assert_allclose(shed, math.log(excess) / 2, atol=1e-8)


def test_invariant_limit_with_finite_trace_weight():
    gamma, gamma_star, t = 0.4, 0.5, [0.5, 2.0, 5.0]
    options = {"trace_weight_d": 8.0, "ridge": 0.1}
    student = naive.projector_law(gamma, 0.9)
    run = naive.invariant_limit(student, naive.projector_law(gamma_star), t, **options)
    c, weights = naive.jacobi_nodes(gamma, gamma_star)
    expected = naive.angle_flow(
        c, gamma * weights, gamma_star, t, scale=0.9, kappa=8.0, lam=0.1, rtol=1e-10
    )
    for field in ("loss", "distance2", "overlap", "trace", "shift", "shift_integral"):
        assert_allclose(run[field], expected[field], rtol=1e-7)


def test_invariant_limit_of_gaussian_networks():
    """Section 4.3 at kappa d = 40 against four matrix flows at d = 80."""
    rng, d, m, m_star, t = np.random.default_rng(24), 80, 40, 24, [0.3, 1.0, 3.0]
    mu, runs = padded(np.ones(m_star), d), []
    for _ in range(4):
        W0 = math.sqrt(m_star / (m * d)) * rng.standard_normal((d, m))
        runs.append(naive.flow_trajectory(W0, mu, t, kappa=0.5, rtol=1e-6))
    law = naive.marchenko_pastur_nodes(0.5, 0.3)
    limit = naive.invariant_limit(law, naive.projector_law(0.3), t, trace_weight_d=40.0)
    for field, rtol in (("distance2", 0.04), ("overlap", 0.02), ("trace", 0.01), ("loss", 0.04)):
        mean = np.mean([run[field] for run in runs], axis=0) / d
        assert_allclose(mean, limit[field], rtol=rtol)


def test_conic_projection():
    """The distance to the polar cone against Dykstra's alternating projections."""
    d, m_star = 5, 2
    G = naive.goe(np.random.default_rng(25), d)
    H, corrections = G, [np.zeros((d, d)), np.zeros((d, d))]

    def traceless(H):
        return H - np.trace(H) / d * np.eye(d)

    def positive_tail(H):
        H = H.copy()
        values, vectors = np.linalg.eigh(H[m_star:, m_star:])
        H[m_star:, m_star:] = (vectors * np.maximum(values, 0)) @ vectors.T
        return H

    for _ in range(300):
        for k, project in enumerate((traceless, positive_tail)):
            corrected = H + corrections[k]
            H = project(corrected)
            corrections[k] = corrected - H
    assert_allclose(naive.conic_distance2(G, m_star), np.sum(H**2), rtol=1e-9)


def test_recovery_samples_approach_their_limit():
    mean, _ = naive.recovery_samples(np.random.default_rng(26), 120, 30, 10)
    assert_allclose(mean / 120**2, naive.recovery_samples_limit(0.25), rtol=0.02)


def test_teacher_is_unique():
    """Section 5 at d = 3, m* = 1, n = 4: the signs of the kernel of X P* decide."""
    rng, found = np.random.default_rng(27), []
    for _ in range(100):
        X = rng.standard_normal((4, 3))
        y = linalg.null_space(X.T * X[:, 0])[:, 0]
        found.append(naive.teacher_is_unique(X, 1))
        assert found[-1] == (np.sum(y > 0) in (1, 3))
    assert abs(np.mean(found) - 0.438) < 4 * math.sqrt(0.438 * 0.562 / 100)
    for n, unique in ((6, False), (21, True)):
        assert naive.teacher_is_unique(rng.standard_normal((n, 6)), 1) is unique


def test_recovery_transition():
    """Half of the draws are unique near the conic count, few well below and most well above."""
    rng, d, m_star = np.random.default_rng(28), 8, 2
    middle, _ = naive.recovery_samples(rng, d, m_star, 200)
    shares = []
    for n in (round(middle) - 5, round(middle) + 5):
        draws = [naive.teacher_is_unique(rng.standard_normal((n, d)), m_star) for _ in range(12)]
        assert None not in draws
        shares.append(np.mean(draws))
    assert shares[0] < 0.4 < 0.6 < shares[1]


def test_sampled_loss():
    """Its mean is the canonical loss at kappa = 1/2, and its gradient is its derivative."""
    rng = np.random.default_rng(29)
    W, D, mu = wave(4, 3, 0.6), rng.standard_normal((4, 3)), np.array([1.0, 0.5, 0.0, 0.2])
    X = rng.standard_normal((20_000, 4))
    terms = [naive.sampled_loss(W, mu, X[i : i + 1]) for i in range(len(X))]
    assert abs(np.mean(terms) - naive.flow_loss(W, mu)) < 4 * stats.sem(terms)
    slope = naive.sampled_loss(W + 1e-30j * D, mu, X[:50]).imag / 1e-30
    assert_allclose(np.sum(naive.sampled_gradient(W, mu, X[:50]) * D), slope, rtol=1e-12)


# empirical_flow

LONG = json.loads((pathlib.Path(__file__).parent / "reference" / "empirical_flow.json").read_text())
PUBLISHED = json.loads(
    (resources.files("overparam.claims") / "empirical_flow_published.json").read_text("utf-8")
)
THREE_ATOMS = (np.array([0.0, 1.0, 3.0]), np.array([0.5, 0.3, 0.2]))


@pytest.mark.parametrize("s2", [1e-8, 1e-4, 0.1, 1.0, 1e3])
@pytest.mark.parametrize("teacher", [(0.05, 1.0), (0.5, 2.0), (1.0, 1.0), (3.0, 0.1)])
def test_free_sum_moments(teacher, s2):
    law = naive.FreeSum(teacher, s2, 160)
    x, w, h = law.nodes()
    a, Q_star = naive.teacher_moments(teacher)
    assert_allclose(np.sum(w), 1, rtol=1e-11)
    assert_allclose(np.sum(w * x), a, rtol=1e-10, atol=1e-11 * math.sqrt(s2))
    assert_allclose(np.sum(w * x**2), Q_star + s2, rtol=1e-10)
    assert_allclose(np.sum(w * x * h), 0.5, rtol=1e-10)
    assert_allclose(np.sum(w * h), 0, atol=1e-11 * np.sum(w * np.abs(h)))


def test_free_resolvents_are_those_of_one_abscissa():
    x = np.linspace(-0.4, 5.7, 30)
    one_by_one = [naive.free_resolvent(z, 0.5, 1.0, 0.1) for z in x]
    assert_allclose(naive.free_resolvents(x, 0.5, 1.0, 0.1), one_by_one, rtol=1e-12)
    assert np.min(np.imag(one_by_one)) > 0


def test_free_sum_by_biane_against_the_cubic():
    atoms, weights = naive.marchenko_pastur_nodes(2.0, n=60)
    both = [naive.FreeSum(teacher, 1.0) for teacher in ((atoms, weights), (2.0, 1.0))]
    quantiles = [law.quantile(0.3) for law in both]
    integrals = [naive.long_time_integrals(law, 0.2, quantiles[0]) for law in both]
    assert_allclose(both[0].edges, both[1].edges, rtol=1e-8)
    assert_allclose(*quantiles, rtol=1e-8)
    for key, value in integrals[1].items():
        assert_allclose(integrals[0][key], value, rtol=1e-8)


@pytest.mark.parametrize("s2", [0.01, 0.1])
def test_free_sum_of_three_atoms(s2):
    law = naive.FreeSum(THREE_ATOMS, s2, 48)
    x, w, h = law.nodes()
    assert len(law.edges) == 6
    assert_allclose([law.tail(edge) for edge in law.edges[::2]], [1, 0.5, 0.2], rtol=1e-11)
    assert_allclose(law.quantile(0.5), law.edges[2], rtol=1e-12)
    assert_allclose([np.sum(w * x), np.sum(w * x**2)], [0.9, 2.1 + s2], rtol=1e-11)
    assert_allclose(np.sum(w * x * h), 0.5, rtol=1e-11)


@pytest.mark.parametrize("entry", LONG["long_time_fixed_points"])
def test_long_time_reference(entry):
    rtol = 1e-5 if entry["lam"] else 1e-4
    given = (entry["alpha"], entry["kappa"], entry["Delta"], entry["lam"])
    state = naive.long_time_at((entry["kappa_star"], 1.0), entry["sigma2"], *given)
    for key, name in {
        "alpha": "alpha",
        "risk": "R",
        "c": "c",
        "threshold": "tau",
        "D": "D",
        "train_risk": "train_mse",
        "rank": "rank_frac",
    }.items():
        assert_allclose(state[key], entry[name], rtol=rtol, atol=1e-9, err_msg=key)
    assert_allclose(state["risk_by_parts"], state["risk"], rtol=1e-9)


def test_long_time_sweeps_reference():
    entry = LONG["double_descent_alpha"]
    teacher = (entry["kappa_star"], 1.0)
    for alpha, risk, train in list(zip(entry["alpha"], entry["R"], entry["train"], strict=True))[
        ::3
    ]:
        (state,) = naive.long_time(teacher, alpha, 1.0, Delta=0.5, points=7)
        assert_allclose(state["risk"], risk, rtol=1e-4)
        assert_allclose(state["train_risk"], train, rtol=0, atol=1e-6)
    entry = LONG["width_sweep"]
    s2 = [(risk + entry["Delta"]) / (4 * entry["alpha"]) for risk in entry["R"]]
    for kappa, start, risk in zip(entry["kappa"], s2, entry["R"], strict=True):
        given = (entry["alpha"], kappa, entry["Delta"], entry["lam"])
        state = naive.long_time_at((entry["kappa_star"], 1.0), start, *given)
        assert_allclose(state["risk"], risk, rtol=1e-4)
        assert_allclose(state["alpha"], entry["alpha"], rtol=1e-4)


def test_long_time_coexistence():
    """Section 4: three roots close to alpha_PR at kappa = kappa*; the middle one is unstable."""
    roots = naive.long_time((0.2, 1.0), 0.19, 0.2, lam=1e-4, points=41, n=32)
    assert [root["stable"] for root in roots] == [True, False, True]
    assert_allclose([root["risk"] for root in roots[1:]], [0.66, 2.87], rtol=5e-3)
    assert roots[0]["risk"] < 1e-4
    for s2, count in {0.75: 1, 0.9: 3, 6.6: 3, 7.9: 1}.items():
        states = naive.long_time_curve((0.25, 1.0), s2, 0.25, lam=1e-3, n=40)
        assert len(states) == count
        for state in states:
            assert_allclose(state["c"], 1e-3 / state["threshold"], rtol=1e-9)


@pytest.mark.parametrize("entry", PUBLISHED["theory"][::4])
def test_long_time_published(entry):
    teacher = (entry["kappastar"], 1.0)
    for i in (1, 4, 7):
        alpha, tau, s2 = (entry[key][i] for key in ("alpha", "q", "xi"))
        law = naive.FreeSum(teacher, s2, 48)
        q = law.quantile(entry["kappa"])
        state = naive.long_time_state(law, q, tau, entry["Delta"], entry["lam"])
        c = entry["lam"] / tau
        loss = (state["train_risk"] + entry["Delta"] * (1 - 2 * c)) / 4
        assert_allclose(state["alpha"], alpha, rtol=2e-4)
        assert_allclose(state["risk"] / 2, entry["mse"][i], rtol=2e-4)
        assert_allclose(state["rank"], entry["rank"][i], rtol=2e-4)
        assert_allclose(state["c"], c, rtol=0, atol=2e-4)
        assert_allclose(loss, entry["loss"][i], rtol=0, atol=2e-4 * entry["mse"][i])


def test_learned_density():
    law, cut = naive.FreeSum((0.3, 1.0), 0.56), 0.42
    mass = integrate.quad(
        lambda s: naive.learned_density(law.teacher, law.s2, cut, s), 0, law.top - cut, limit=200
    )[0]
    assert_allclose(mass, law.tail(cut), rtol=1e-6)


def test_thresholds_reference():
    for entry in LONG["perfect_recovery"]:
        given = (entry["kappa"], entry["kappa_star"])
        assert_allclose(naive.recovery_threshold(*given), entry["alpha_PR"], rtol=0, atol=1e-12)
        assert_allclose(naive.saturation_width(given[1]), entry["kappa_c"], rtol=0, atol=1e-12)
    for entry in LONG["unique_psd_threshold"]:
        assert_allclose(naive.unique_threshold(entry["kappa_star"]), entry["alpha"], rtol=1e-13)
    for entry in LONG["interpolation_threshold"]:
        given = (entry["kappa"], entry["kappa_star"])
        for Delta, key in ((entry["Delta"], "alpha_int"), (0.0, "alpha_int_Delta0")):
            assert_allclose(naive.interpolation_threshold(*given, Delta), entry[key], rtol=1e-8)


@pytest.mark.parametrize(("kappa", "kappa_star"), [(0.21, 0.2), (0.3, 0.2), (1.0, 0.2), (0.6, 0.5)])
def test_thresholds_are_those_of_the_equations(kappa, kappa_star):
    """The alpha at which sigma -> 0 solves the equations without noise, and that of tau = 0."""
    teacher, s2 = (kappa_star, 1.0), 1e-12
    law = naive.FreeSum(teacher, s2)
    q = law.quantile(kappa)

    def excess(tau):
        state = naive.long_time_integrals(law, tau, q)
        return state["risk"] - 4 * s2 * state["D"]

    tau = optimize.brentq(excess, 0, 2 * math.sqrt(s2), xtol=1e-20)
    threshold = naive.long_time_integrals(law, tau, q)["D"]
    assert_allclose(threshold, naive.recovery_threshold(kappa, kappa_star), rtol=1e-5)
    if kappa == 1:
        assert_allclose(law.tail(tau), naive.saturation_width(kappa_star), rtol=1e-5)
    untouched = naive.long_time_integrals(law, 0.0, q)["D"]
    limit = naive.interpolation_threshold(kappa, kappa_star, 0.0)
    assert_allclose(untouched, limit, rtol=1e-5)


@pytest.mark.parametrize("entry", LONG["bayes"])
def test_bayes_risk_reference(entry):
    risk = naive.bayes_risk((entry["kappa_star"], 1.0), entry["alpha"], entry["Delta"])
    assert_allclose(risk, entry["R_bayes"], rtol=1e-8)


def test_optimal_ridge():
    given = {"Delta": 0.5, "n": 24}
    ridge, risk = naive.optimal_ridge((0.2, 1.0), 0.3, 1.0, low=1e-2, high=1.0, **given)
    for factor in (0.9, 1.1):
        (state,) = naive.long_time((0.2, 1.0), 0.3, 1.0, lam=ridge * factor, points=5, **given)
        assert state["risk"] > risk


# empirical_flow: dynamical mean-field theory


def test_dmft_causal_construction_is_the_fixed_point():
    """Whole kernels, iterated on the same random numbers, end at those built row by row."""
    rng = np.random.default_rng(0)
    G = rng.standard_normal((8, 4))
    draws = naive.dmft_draws(rng, 8, 6, G @ G.T / 4, 6, replicas=2, probes=2)
    lr, ridge = np.linspace(0.05, 0.1, 6), np.full(6, 0.1)
    causal = naive.dmft(draws, 0.4, 0.3, lr, ridge)
    for name, kernel in naive.dmft_iteration(draws, 0.4, 0.3, lr, ridge).items():
        assert_allclose(causal[name], kernel, rtol=1e-9, atol=1e-11)


def test_dmft_response_to_a_field():
    """chi by probes against the response of S to a field in every direction, at fixed kernels."""
    rng = np.random.default_rng(1)
    d, m, T, lr, alpha = 4, 3, 4, 0.1, 0.5
    probes = 4000
    W, teacher, Z, P = naive.dmft_draws(rng, d, m, np.diag([2.0, 1.0, 0, 0]), T, probes=probes)
    kernels = naive.dmft((W, teacher, Z, P), alpha, 0.2, np.full(T, lr), np.zeros(T))
    M, L = kernels["memory"], kernels["factor"]
    H = np.tensordot(L[:T, :T], Z[0], 1)

    def path(J, source):
        w, A = W[0], []
        for t in range(T + 1):
            A.append(w @ w.T - teacher[0])
            if t < T:
                B = sum(M[t, s] * A[s] for s in range(t + 1)) + H[t] + (t == source) * J
                w = w - lr * B @ w
        return np.array(A)

    for source in range(T):
        total = np.zeros(T + 1)
        for i, j in itertools.combinations_with_replacement(range(d), 2):
            E = np.zeros((d, d))
            E[i, j] = E[j, i] = 1.0 if i == j else 1 / math.sqrt(2)
            change = (path(1e-5 * E, source) - path(-1e-5 * E, source)) / 2e-5
            total += np.einsum("tij,ij->t", change, E)
        # The first entry below the diagonal is exact, the others are means over the probes.
        chi = kernels["response"][:, source]
        assert_allclose(chi[source + 1], total[source + 1] / d**2, rtol=1e-7)
        assert_allclose(chi[source + 1 :], total[source + 1 :] / d**2, rtol=0.1)


# ---- random_features ----

ONE_UNIT = np.ones(1), np.eye(1)


@pytest.mark.parametrize("g", naive.FEATURES)
def test_feature_kernels_are_integrals(g):
    for gs in naive.FEATURES:
        closed = naive.feature_kernel(g, gs, 0.45, 1.3, 0.7)
        assert_allclose(
            closed, naive.feature_kernel_quadrature(g, gs, 0.45, 1.3, 0.7), atol=1e-12, rtol=0
        )


@pytest.mark.parametrize("g", naive.FEATURES)
def test_feature_taylor(g):
    _, kappa = naive.feature_hermite(g, 12)
    taylor = naive.feature_taylor(g, 400)
    assert_allclose(taylor[:13], kappa, atol=1e-12)
    signs = naive.feature_signs(g, 13)
    mu, _ = naive.feature_hermite(g, 12)
    scale = np.sqrt(np.array([math.factorial(k) for k in range(13)]))
    assert_allclose(signs * np.sqrt(kappa), mu / scale, atol=1e-12)


def test_feature_sgd_in_blocks_is_sgd():
    rng = np.random.default_rng(0)
    W, B, X = rng.standard_normal((6, 5)), rng.standard_normal((2, 5)), rng.standard_normal((90, 5))
    v, lr, start = np.array([0.8, -0.5]), np.linspace(1.5, 0.1, 90), rng.standard_normal(6)
    given = (W, B, v, "erf", "relu", X, lr, start, 0.3 * rng.standard_normal(90))
    last = naive.features_sgd(*given)[-1]
    for block in (1, 7, 64, 100):
        assert_allclose(naive.features_sgd_blocked(*given, block=block), last, rtol=1e-12)


def test_feature_modes_are_the_volterra_equation():
    rng = np.random.default_rng(1)
    W, B = rng.standard_normal((8, 5)), rng.standard_normal((1, 5))
    given = naive.features_population(W, B, np.ones(1), "erf", "erf")
    t = np.linspace(0.0, 2.0, 2001)
    options = {"init_var": 0.3, "noise_var": 0.2}
    volterra = naive.features_volterra(*given, 1.5, t, **options)
    modes = naive.features_modes_flow(
        *given, lambda _: 1.5, t[::500], closure="concentrated", **options
    )
    assert_allclose(volterra[::500], modes, rtol=1e-6)
    steps = naive.features_modes_map(
        *given, lambda _: 1.5, [200_000], closure="concentrated", **options
    )
    late = naive.features_stationary(*given, 1.5, closure="concentrated", noise_var=0.2)
    assert_allclose(steps[0], late, rtol=2e-2)  # modes of tiny eigenvalues are slow


@pytest.mark.parametrize("g", ["erf", "relu", "quad", "sign"])
def test_sphere_series_is_an_integral(g):
    for dim in (4, 9, 40):
        series = naive.sphere_series(naive.feature_taylor(g, 4000), dim, 6)
        assert_allclose(series, naive.sphere_eigenvalues(g, g, dim, 6), rtol=0, atol=2e-8)


def test_sphere_legendre():
    """P_l(1) = 1, and the harmonics add up to those of a plane rotated by an angle."""
    assert_allclose(naive.sphere_legendre(7, 9, 1.0), 1.0, rtol=1e-13)
    theta = 0.7
    cosines = np.cos(theta * np.arange(6))
    assert_allclose(naive.sphere_legendre(2, 5, math.cos(theta)), cosines, rtol=1e-12)
    assert [naive.sphere_multiplicity(3, degree) for degree in range(5)] == [1, 3, 5, 7, 9]


def test_sphere_curve_becomes_proportional():
    """In high dimension, and starts and ends where it must."""
    law = naive.sphere_law("erf", "erf", 100_000, *ONE_UNIT, 3)
    t = [0.5, 2.0, 10.0]
    limit = naive.features_proportional("erf", "erf", *ONE_UNIT, 2.0, 1.5, t, noise_var=0.1)
    curve = naive.sphere_curve(law, 200_000, 1.5, t, noise_var=0.1)
    assert_allclose(curve, limit, rtol=1e-4)
    law = naive.sphere_law("erf", "erf", 12, *ONE_UNIT, 30)
    ends = naive.sphere_curve(law, 20, 1.5, [1e-7, 1e6])
    _, smallest = naive.sphere_best(law, 20)
    assert_allclose(ends, [1 / 6, smallest / (1 - 1.5 / 6)], rtol=1e-6)


def test_sphere_best_fit_is_that_of_random_layers():
    rng = np.random.default_rng(4)
    law = naive.sphere_law("erf", "erf", 20, *ONE_UNIT, 20)
    risks = []
    for _ in range(60):
        layers = [rng.standard_normal((rows, 20)) for rows in (30, 1)]
        W, B = (x * math.sqrt(20) / np.linalg.norm(x, axis=1, keepdims=True) for x in layers)
        given = naive.features_population(W, B, np.ones(1), "erf", "erf")
        risks.append(naive.features_best_fit(*given)[0])
    assert abs(np.mean(risks) - naive.sphere_best(law, 30)[1]) < 4 * stats.sem(risks)


def test_feature_kurtosis():
    rng = np.random.default_rng(5)
    W = rng.standard_normal((30, 40))
    W *= math.sqrt(40) / np.linalg.norm(W, axis=1, keepdims=True)
    phi2 = np.mean(naive.FEATURES["erf"](rng.standard_normal((40_000, 40)) @ W.T / 40**0.5) ** 2, 1)
    chi = np.mean(phi2**2) * 9
    assert_allclose(chi, naive.feature_kurtosis("erf", 30, 40), rtol=3e-3)


FEATURES_REFERENCE = json.loads(
    (pathlib.Path(__file__).parent / "reference" / "random_features.json").read_text()
)


def features_entries(name):
    entries = FEATURES_REFERENCE[name]
    return pytest.mark.parametrize("entry", entries, ids=range(len(entries)))


@features_entries("proportional")
def test_features_proportional_reference(entry):
    given = (entry["activation"], entry["activation"], *ONE_UNIT, entry["delta"])
    smallest = naive.features_proportional_best(*given)
    assert_allclose(2 * smallest, entry["two_eps_min"], rtol=1e-8)
    flow = entry["eps_gf"]
    risk = naive.features_proportional(*given, 1.0, flow["t"], noise=False)
    assert_allclose(risk, flow["value"], rtol=1e-8)
    for run in entry["sgd"]:
        risk = naive.features_proportional(*given, run["eta"], run["tau"])
        assert_allclose(risk, run["eps"], rtol=1e-8)


@features_entries("sphere")
def test_sphere_best_reference(entry):
    law = naive.sphere_law(entry["activation"], entry["activation"], entry["N"], *ONE_UNIT, 40)
    found = [naive.sphere_best(law, K) for K in entry["K"]]
    assert_allclose([nu for nu, _ in found], entry["nu"], rtol=1e-8)
    assert_allclose([2 * risk for _, risk in found], entry["two_eps_min"], rtol=1e-8)


@features_entries("laplace_curves")
def test_sphere_curve_reference(entry):
    law = naive.sphere_law(entry["student"], entry["teacher"], entry["N"], *ONE_UNIT, 40)
    options = {"init_var": entry["var_a0"], "noise_var": entry["label_noise_var"]}
    given = (law, entry["K"], entry["eta"], entry["tau"])
    assert_allclose(naive.sphere_curve(*given, **options), entry["eps"], rtol=1e-6)


@features_entries("kernel_limit_K_inf")
def test_sphere_kernel_limit_reference(entry):
    law = naive.sphere_law(entry["activation"], entry["activation"], entry["N"], *ONE_UNIT, 40)
    risk = naive.sphere_kernel_limit(law, entry["eta"], entry["steps"])
    assert_allclose(risk, entry["eps"], rtol=1e-8, atol=1e-15)


# ---- giant_step ----

STEP_REFERENCE = json.loads(
    (pathlib.Path(__file__).parent / "reference" / "giant_step.json").read_text()
)


def step_unit_rows(rng, rows, dim):
    W = rng.standard_normal((rows, dim))
    return W / np.linalg.norm(W, axis=1, keepdims=True)


@pytest.mark.parametrize("name", naive.STEP_ACTIVATIONS)
def test_step_moments_are_hermite_coefficients(name):
    """Of the function itself, by integration by parts; and the derivative is that."""
    s, ds = naive.STEP_ACTIVATIONS[name]
    e0, e2, h1, h2, h3, hs2 = naive.step_moments(name)
    found = [naive.gauss_mean(lambda z, k=k: special.eval_hermitenorm(k, z) * s(z)) for k in (1, 2)]
    assert_allclose([h1, h2], found, rtol=1e-12, atol=1e-13)
    cubic = naive.gauss_mean(lambda z: special.eval_hermitenorm(3, z) * s(z))
    assert_allclose(h3, cubic, rtol=1e-12, atol=1e-12)
    # Parseval: what the first four leave is not negative, nor more than s' beyond them holds / 3.
    rest = e2 - e0**2 - h1**2 - h2**2 / 2
    assert -1e-13 <= rest <= hs2 / 3 + 1e-13
    z = np.array([-1.7, -0.4, 0.6, 2.3])
    assert_allclose((s(z + 1e-5) - s(z - 1e-5)) / 2e-5, ds(z), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", STEP_REFERENCE["hermites"])
def test_step_moments_reference(name):
    e0, e2, h1, h2, _, hs2 = naive.step_moments(name)
    entry = [STEP_REFERENCE["hermites"][name][key] for key in ("e0", "e2", "h1", "h2", "hs2")]
    assert_allclose([e0, e2, h1, h2, hs2], entry, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["tanh", "relu", "sinlin", "quad1"])
def test_step_features_solve_the_heat_equation(name):
    """mu1 = d mu0/dk and d mu0/dc = (1/2) d^2 mu0/dk^2; and both are parts of E s^2."""
    k, c, h = 0.6, 1.2, 2e-3

    def mean(k, c=c):
        return naive.step_features(name, k, c)[0]

    mu0, mu1, residual, curvature = naive.step_features(name, k, c)
    ends, near = (mean(k + 2 * h), mean(k - 2 * h)), (mean(k + h), mean(k - h))
    assert_allclose((8 * (near[0] - near[1]) - (ends[0] - ends[1])) / (12 * h), mu1, rtol=1e-9)
    second = (16 * sum(near) - sum(ends) - 30 * mu0) / (12 * h * h)
    assert_allclose(second / 2, curvature, rtol=1e-7)
    assert_allclose((mean(k, c + h) - mean(k, c - h)) / (2 * h), curvature, rtol=1e-5)
    # A normal variable of variance r^2 + c in two parts.
    r, total = 0.8, math.sqrt(0.8**2 + c)
    s = naive.STEP_ACTIVATIONS[name][0]
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    weights = weights / weights.sum()
    parts = np.array([naive.step_features(name, r * x, c) for x in nodes]).T
    assert_allclose(
        weights @ parts[0], naive.gauss_mean(lambda z: s(total * z)), rtol=1e-9, atol=1e-12
    )
    energy = weights @ (parts[0] ** 2 + c * parts[1] ** 2 + parts[2])
    assert_allclose(energy, naive.gauss_mean(lambda z: s(total * z) ** 2), rtol=1e-9)
    assert residual > 0


@pytest.mark.parametrize("entry", STEP_REFERENCE["cond"], ids=range(len(STEP_REFERENCE["cond"])))
def test_step_features_reference(entry):
    found = naive.step_features(entry["act"], entry["k"], entry["c"])[:3]
    assert_allclose(found, [entry[key] for key in ("mu0", "mu1", "mustar2")], rtol=0, atol=1e-10)


@pytest.mark.parametrize("gamma", [0.0, 0.7, -0.95])
def test_step_target_has_the_moments_of_the_target(gamma):
    e0, e2, h1, *_ = naive.step_moments("sinlin")
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    weights = weights / weights.sum()
    h, slope, second = np.array([naive.step_target("sinlin", k, gamma) for k in nodes]).T
    rho = math.sqrt(1 - gamma**2)
    assert_allclose(weights @ h, e0, atol=1e-12)
    assert_allclose(weights @ second, e2, rtol=1e-10)
    assert_allclose(weights @ (nodes * h), gamma * h1, atol=1e-10)
    assert_allclose(weights @ slope, rho * h1, rtol=1e-10)


@pytest.mark.parametrize(
    "entry", STEP_REFERENCE["params"], ids=range(len(STEP_REFERENCE["params"]))
)
def test_step_spike_reference(entry):
    given = [entry[key] for key in ("act", "target", "eta", "alpha0", "avals", "pi", "noise")]
    r, c, *rest = naive.step_spike(*given)
    assert_allclose(r, entry["r"], rtol=1e-9)
    assert_allclose(c, entry["c"], rtol=1e-9)
    assert_allclose(rest, [entry[key] for key in ("gamma", "gnorm", "fbar")], rtol=1e-9, atol=1e-12)


def test_step_spike_is_that_of_a_trained_layer():
    """Neither odd: strength, variance and alignment of sampled rows, and the mean output."""
    rng = np.random.default_rng(6)
    d, p, n0, eta, A = 600, 300, 2400, 0.8, np.repeat([1.0, -0.5], 150)
    W = step_unit_rows(rng, p, d)
    X = rng.standard_normal((n0, d))
    y = naive.STEP_ACTIVATIONS["softplus"][0](X[:, 0]) + math.sqrt(0.3) * rng.standard_normal(n0)
    trained, g = naive.step_first_layer(W, X, y, eta, A, "relu")
    r, c, gamma, norm, fbar = naive.step_spike(
        "relu", "softplus", eta, n0 / d, [1.0, -0.5], [0.5, 0.5], 0.3
    )
    v = g / np.linalg.norm(g)
    along = trained @ v
    bulk = (trained**2).sum(axis=1) - along**2
    groups = A > 0, A < 0
    assert_allclose([along[group].mean() for group in groups], r, rtol=0.05)
    assert_allclose([bulk[group].mean() for group in groups], c, rtol=0.05)
    assert_allclose([v[0], np.linalg.norm(g)], [gamma, norm], rtol=0.05)
    assert_allclose(np.mean(naive.STEP_ACTIVATIONS["relu"][0](X @ W.T) @ A / p), fbar, rtol=0.05)


def test_step_first_layer_follows_the_gradient():
    """The rate p eta on the loss (1/2 n0) sum (y - f)^2, by differences."""
    rng = np.random.default_rng(7)
    W, X, y, A = (
        step_unit_rows(rng, 3, 4),
        rng.standard_normal((9, 4)),
        rng.standard_normal(9),
        rng.standard_normal(3),
    )
    s = naive.STEP_ACTIVATIONS["tanh"][0]
    moved, g = naive.step_first_layer(W, X, y, 0.7, A, "tanh")
    slope = np.empty_like(W)
    for i, j in np.ndindex(W.shape):
        shift = np.zeros_like(W)
        shift[i, j] = 1e-5
        ends = [np.mean((y - s(X @ (W + e * shift).T) @ A / 3) ** 2) / 2 for e in (1, -1)]
        slope[i, j] = (ends[0] - ends[1]) / 2e-5
    assert_allclose(moved, W - 0.7 * 3 * slope, rtol=0, atol=1e-9)
    assert_allclose(g, X.T @ (y - s(X @ W.T) @ A / 3) / 9, rtol=1e-12)


@pytest.mark.parametrize("samples", [5, 12])
def test_step_ridge_is_the_minimum(samples):
    rng = np.random.default_rng(8)
    W, X, y = (
        step_unit_rows(rng, 7, 4),
        rng.standard_normal((samples, 4)),
        rng.standard_normal(samples),
    )
    a, train = naive.step_ridge(W, X, y, 0.2, "softplus")
    output = naive.step_output(W, a, X, "softplus")
    phi = np.logaddexp(0, X @ W.T) / math.sqrt(7)
    assert_allclose(phi.T @ (y - output), 0.2 * a, rtol=1e-9)
    assert_allclose(train, np.mean((y - output) ** 2), rtol=1e-12)


@pytest.mark.parametrize(
    "entry", STEP_REFERENCE["resolvent"], ids=range(len(STEP_REFERENCE["resolvent"]))
)
def test_step_resolvent_reference(entry):
    given = [entry[key] for key in ("V1hat", "Lambda", "c", "pi", "beta")]
    v, V1, V2 = naive.step_resolvent(np.array(given[0]), *given[1:])
    for found, name in ((v, "v"), (V1, "V1"), (V2, "V2")):
        assert_allclose(found, entry[name], rtol=1e-10)


def test_step_resolvent_is_that_of_random_rows():
    """Traces of (Lambda + V1h B B^T)^-1, for two groups of 400 rows in 800 dimensions."""
    rng = np.random.default_rng(9)
    c, Lam, V1h = np.array([1.3, 0.7]), np.array([0.5, 0.9]), np.array([[1.1, 0.4], [0.4, 0.8]])
    v, V1, V2 = naive.step_resolvent(V1h, Lam, c, [0.5, 0.5], 1.0)
    B = step_unit_rows(rng, 800, 800) * np.repeat(np.sqrt(c), 400)[:, None]
    group = np.repeat([0, 1], 400)
    gram = B @ B.T
    inverse = np.linalg.inv(np.diag(Lam[group]) + V1h[np.ix_(group, group)] * gram)
    parts = [slice(0, 400), slice(400, 800)]
    assert_allclose([np.trace(inverse[g, g]) / 800 for g in parts], V2, rtol=5e-3)
    overlaps = [[np.sum(inverse[g, h] * gram[g, h]) / 800 for h in parts] for g in parts]
    assert_allclose(overlaps, V1, rtol=2e-2, atol=2e-3)
    assert_allclose(np.sum(V1h * V1) + Lam @ V2, 1.0, rtol=1e-12)
    assert_allclose(V2, v / 2, rtol=1e-12)


def step_errors(entry, **options):
    given = [entry[key] for key in ("act", "target")]
    keys = ("alpha", "beta", "lam", "gamma")
    options = {"Delta": entry.get("noise", 0.0), **options}
    return naive.step_solve(*given, **{key: entry[key] for key in keys}, **options)


def test_step_solve_of_a_linear_network_is_ridge_regression():
    """Wide and without a spike it is linear in x, with the penalty d lam |w|^2."""
    alpha, lam, Delta = 1.7, 0.4, 0.3
    entry = {"act": "linear", "target": "linear", "alpha": alpha, "beta": 1e6, "lam": lam}
    found = step_errors({**entry, "gamma": 0.0}, r=[0.0], c=[1.0], Delta=Delta)

    def trace(lam):
        """Of (X^T X/d + lam)^-1 / d: 1/g = lam + alpha/(1 + g)."""
        b = lam + alpha - 1
        return 2 / (b + math.sqrt(b * b + 4 * lam))

    slope = (trace(lam + 1e-5) - trace(lam - 1e-5)) / 2e-5
    risk = -(lam**2) * slope + Delta * (trace(lam) + lam * slope)
    assert_allclose(found["risk"], risk, rtol=1e-5)


@pytest.mark.parametrize("i", [1, 10, 11, 13])
def test_step_solve_reference(i):
    """One group and two, with a kink, with noise, and of finite width."""
    entry = STEP_REFERENCE["srf"][i]
    width = entry["finite_p"] or math.inf
    keys = ("r", "c", "pi")
    found = step_errors(entry, **{key: entry[key] for key in keys}, finite_p=width, tol=1e-11)
    assert_allclose(found["risk"], entry["test_excess"], rtol=1e-7)
    assert_allclose(found["train_risk"], entry["train"], rtol=1e-7)
    for name in ("m", "theta", "psi", "Q1", "q2", "V1", "V2"):
        size = np.abs(entry[name]).max()
        assert_allclose(found[name], entry[name], rtol=0, atol=1e-5 * size, err_msg=name)


def test_step_solve_of_a_small_step_reference():
    entry = STEP_REFERENCE["small_lr"][-1]
    found = step_errors(entry, r=[0.0], c=[1.0], cv=[1 + entry["r0"] ** 2])
    assert_allclose(found["risk"], entry["test_excess"], rtol=1e-7)
    assert_allclose(found["train_risk"], entry["train"], rtol=1e-7)


def test_step_norm_term_reference():
    entry = STEP_REFERENCE["norm_term"][0]
    keys = ("act", "target", "eta", "alpha0")
    r, c, gamma, norm, _ = naive.step_spike(*(entry[key] for key in keys), [1.0], [1.0], 0.0)
    h3 = naive.step_moments(entry["act"])[4]
    slope = 2 * entry["eta"] * h3 * norm / c
    assert_allclose(slope, entry["norm_slope_iso"], rtol=1e-7)
    found = step_errors({**entry, "gamma": gamma}, r=r, c=c, nu=slope)
    assert_allclose(found["risk"], entry["iso_norm"], rtol=1e-6)


def test_step_from_weights_is_the_mean_of_fits():
    """On fresh samples, of a layer after a real step."""
    rng = np.random.default_rng(10)
    d, p, n, lam, Delta = 300, 300, 600, 0.1, 0.2
    s = naive.STEP_ACTIVATIONS["sin"][0]
    X = rng.standard_normal((8 * d, d))
    W, g = naive.step_first_layer(step_unit_rows(rng, p, d), X, s(X[:, 0]), 3.0, np.ones(p), "tanh")
    w_star = np.eye(d)[0]
    given = ("tanh", "sin", W, g / np.linalg.norm(g), w_star)
    theory = naive.step_from_weights(*given, alpha=n / d, lam=lam, Delta=Delta)
    X2, found = rng.standard_normal((4000, d)), []
    for _ in range(20):
        X = rng.standard_normal((n, d))
        y = s(X[:, 0]) + math.sqrt(Delta) * rng.standard_normal(n)
        a, train = naive.step_ridge(W, X, y, lam, "tanh")
        output = naive.step_output(W, a, X2, "tanh")
        found.append((np.mean((output - s(X2[:, 0])) ** 2), train))
    assert_allclose(np.mean(found, axis=0), theory, rtol=0.03)


def test_logistic_prox_is_a_minimum():
    w0, V, y = np.meshgrid(np.linspace(-9, 9, 13), [0.02, 1.0, 50.0], [-1.0, 1.0])
    f = naive.logistic_prox(y, w0, V)
    assert_allclose((f - w0) / V, y * special.expit(-y * f), atol=1e-12)


@pytest.mark.slow
def test_step_logistic_agrees_with_simulations():
    """Those of the reference."""
    (entry,) = STEP_REFERENCE["logistic"]
    assert entry["target"] == "sign(sinlin)"
    keys = ("alpha", "beta", "lam", "r", "c", "gamma")
    found = naive.step_logistic(
        entry["act"], [0.0], **{key: entry[key] for key in keys}, tol=1e-4, nodes=(12, 12)
    )
    run = entry["sim_d500"]
    assert abs(found[0] - run["class_error"]) < 3 * run["se"]
    assert abs(found[1] - run["train_logloss"]) < 3 * run["se2"]
