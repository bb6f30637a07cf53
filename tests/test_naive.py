"""The yardstick itself: naive.py against independently derived numbers and against itself."""

import itertools
import json
import math
import pathlib

import naive
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import integrate, linalg, special, stats

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
