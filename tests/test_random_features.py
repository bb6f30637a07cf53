"""The room random_features against naive.py, independently derived numbers, and its invariants."""

import itertools
import json
import math
import pathlib

import cases
import naive
import numpy as np
import overparam as op
import pytest
from cases import bits
from numpy.testing import assert_allclose, assert_array_equal
from overparam import _check
from overparam import random_features as rf
from overparam.random_features import Problem
from overparam.results import Status
from scipy import stats

FOLDER = pathlib.Path(__file__).parent / "reference"
REFERENCE = json.loads((FOLDER / "random_features.json").read_text())
ACTIVATIONS = ("erf", "relu", "quad", "square", "linear", "sign")
ONE = np.ones(1)


def entries(name):
    """The entries of the reference file under a name, as parameters of a test."""
    return pytest.mark.parametrize("entry", REFERENCE[name], ids=range(len(REFERENCE[name])))


def random_layers(seed, K, N, M, *, equal_norms=False):
    """W (K, N), B (M, N) and v (M,), with rows of different norms."""
    rng = np.random.default_rng(seed)
    W, B = rng.standard_normal((K, N)), rng.standard_normal((M, N))
    if equal_norms:
        W *= math.sqrt(N) / np.linalg.norm(W, axis=1, keepdims=True)
        B *= math.sqrt(N) / np.linalg.norm(B, axis=1, keepdims=True)
    return W, B, rng.standard_normal(M)


def assert_close(value, expected, rtol, atol=0.0):
    assert_allclose(value, expected, rtol=rtol, atol=atol)


# ---- activations and population quantities -------------------------------------------------------


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_hermite_reference(name):
    entry = REFERENCE["activation_constants"][name]
    found = rf.hermite(name, 6)
    assert_close(found.mu, entry["mu_k"], 1e-12, 1e-12)
    assert_close(found.kappa, entry["kappa_k"], 1e-12, 1e-13)
    assert_close([found.q, found.mu_star2], [entry["q"], entry["mustarsq"]], 1e-12)
    assert_close(found.mu[0] ** 2, entry["mu0sq"], 1e-12)
    assert_close(found.mu[1] ** 2, entry["mu1sq"], 1e-12)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_hermite(name):
    """Against quadrature, and sum kappa_k rho^k = E g g at correlation rho."""
    found = rf.hermite(name, 20)
    mu, kappa = naive.feature_hermite(name, 20)
    scale = np.sqrt([math.factorial(k) for k in range(21)])
    assert_close(found.mu / scale, mu / scale, 0, 1e-12)
    assert_close(found.kappa, kappa, 0, 1e-12)
    long = rf.hermite(name, 120)
    for rho in (-0.6, 0.3, 0.7):
        total = np.sum(long.kappa * rho ** np.arange(121.0))
        assert_close(total, rf.pair_kernel(name, name, rho), 1e-12, 1e-14)


@entries("pair_kernels")
def test_pair_kernel_reference(entry):
    value = rf.pair_kernel(entry["act_x"], entry["act_y"], entry["cxy"], entry["cxx"], entry["cyy"])
    assert_close(value, entry["value"], 1e-13)


@pytest.mark.parametrize("pair", [*itertools.product(ACTIVATIONS, repeat=2)], ids="-".join)
def test_pair_kernel(pair):
    """Closed forms against two-dimensional quadrature, in both orders, and up to correlation 1."""
    rng = np.random.default_rng(ACTIVATIONS.index(pair[0]) * 6 + ACTIVATIONS.index(pair[1]))
    for rho in rng.uniform(-0.95, 0.95, 2):
        A, C = rng.uniform(0.3, 2.5, 2)
        cov = rho * math.sqrt(A * C)
        expected = naive.feature_kernel_quadrature(*pair, cov, A, C)
        assert_close(rf.pair_kernel(*pair, cov, A, C), expected, 1e-11, 1e-12)
        assert rf.pair_kernel(*pair, cov, A, C) == rf.pair_kernel(*pair[::-1], cov, C, A)
    for sign in (-1.0, 1.0):
        A, C = 1.3, 0.7
        expected = naive.feature_kernel_quadrature(*pair, sign * math.sqrt(A * C), A, C)
        assert_close(rf.pair_kernel(*pair, sign * math.sqrt(A * C), A, C), expected, 1e-11, 1e-12)


def test_pair_kernel_broadcasts():
    cov, var = np.array([[0.1], [0.2]]), np.array([0.5, 1.0, 2.0])
    value = rf.pair_kernel("erf", "relu", cov, var)
    assert value.shape == (2, 3)
    for i, j in np.ndindex(2, 3):
        assert value[i, j] == rf.pair_kernel("erf", "relu", cov[i, 0], var[j])
    assert isinstance(rf.pair_kernel("erf", "erf", 0.5), float)


@pytest.mark.parametrize("name", ["erf", "relu", "sign"])
def test_pair_kernel_near_correlation_one(name):
    """No loss of digits where the kernel has its singularity: the defect has a series there."""
    for gap in (1e-4, 1e-8, 1e-12):
        expected = naive.feature_kernel(name, name, 1.0, 1.0, 1.0)
        if name == "erf":
            expected = 2 / math.pi * math.asin((1 - gap) / 2)
        elif name == "relu":
            theta = 2 * math.asin(math.sqrt(gap / 2))
            expected = (math.sin(theta) + (math.pi - theta) * math.cos(theta)) / (2 * math.pi)
        else:
            expected = 1 - 4 / math.pi * math.asin(math.sqrt(gap / 2))
        assert_close(rf.pair_kernel(name, name, 1 - gap), expected, 2e-12 / gap**0.5 * 1e-4 + 1e-14)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (7, 3, 2), (12, 9, 4)], ids=str)
@pytest.mark.parametrize("pair", [("erf", "erf"), ("relu", "square"), ("quad", "relu")], ids=str)
def test_population(sizes, pair):
    K, N, M = sizes
    W, B, v = random_layers(K, K, N, M)
    found = rf.population(W, B, v, activation=pair[0], teacher_activation=pair[1])
    G, r, Ey2 = naive.features_population(W, B, v, *pair)
    assert_close(found.gram, G, 1e-12, 1e-14)
    assert_close(found.cross, r, 1e-11, 1e-13)
    assert_close(found.teacher_energy, Ey2, 1e-12)


def test_population_of_samples():
    """G, r and E y^2 are averages over inputs."""
    W, B, v = random_layers(3, 4, 5, 2)
    X = np.random.default_rng(0).standard_normal((200_000, 5))
    for g, h in (("erf", "relu"), ("relu", "quad"), ("sign", "erf")):
        found = rf.population(W, B, v, activation=g, teacher_activation=h)
        phi = naive.FEATURES[g](X @ W.T / math.sqrt(5))
        y = naive.FEATURES[h](X @ B.T / math.sqrt(5)) @ v
        for values, expected in ((phi * y[:, None], found.cross), (y**2, found.teacher_energy)):
            assert (np.abs(values.mean(0) - expected) < 5 * stats.sem(values)).all()
        assert np.abs(phi.T @ phi / len(X) - found.gram).max() < 0.02


def cosine_layer(K, N, p0):
    i, j = np.meshgrid(np.arange(K), np.arange(N), indexing="ij")
    W = np.cos(p0 + 2.1 * i + 0.7 * j + 1.7 * i * j + 0.11 * i**2 * j)
    return W * math.sqrt(N) / np.linalg.norm(W, axis=1, keepdims=True)


def fixed(entry):
    """Problem, W and B of an entry of fixed_first_layer."""
    problem = Problem(
        dim=entry["N"],
        width=entry["K"],
        lr=entry["eta"],
        activation=entry["student"],
        teacher_activation=entry["teacher"],
        teacher_weights=entry["v"],
    )
    layers = [(entry["K"], entry["p0_student"]), (entry["M"], entry["p0_teacher"])]
    return problem, *(cosine_layer(rows, entry["N"], p0) for rows, p0 in layers)


def averages(problem, W, B):
    return rf.population(
        W, B, problem.v, activation=problem.activation, teacher_activation=problem.teacher
    )


@entries("fixed_first_layer")
def test_population_reference(entry):
    problem, W, B = fixed(entry)
    found = averages(problem, W, B)
    G, r = found.gram, found.cross
    assert_close([G[0, 1], G[2, 3]], [entry["G_0_1"], entry["G_2_3"]], 1e-8)
    assert_close(np.trace(G), entry["G_trace"], 1e-8)
    assert_close([r[0], r[-1]], [entry["r_0"], entry["r_last"]], 1e-8)
    assert_close(found.teacher_energy, entry["Ey2"], 1e-8)
    fit = rf.best_fit(found)
    assert_close(fit.eigenvalues[[0, -1]], [entry["eig_min"], entry["eig_max"]], 1e-8)
    assert_close(fit.risk, entry["eps_min"], 1e-8)
    a = fit.coefficients
    q = [a @ np.linalg.matrix_power(G, n) @ a / len(a) for n in range(3)]
    assert_close(q, entry["moments_qn_0_1_2_at_a0_zero"], 1e-8)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (5, 3, 2), (30, 11, 3)], ids=str)
@pytest.mark.parametrize("name", ["erf", "relu", "quad"])
def test_best_fit(sizes, name):
    K, N, M = sizes
    given = rf.population(*random_layers(K, K, N, M), activation=name)
    fit = rf.best_fit(given)
    risk, a, s = naive.features_best_fit(given.gram, given.cross, given.teacher_energy)
    assert_close(fit.risk, risk, 1e-9, 1e-13 * given.teacher_energy)
    assert_close(fit.eigenvalues, s, 1e-12, 1e-14 * s[-1])
    at_best = naive.features_risk(fit.coefficients, given.gram, given.cross, given.teacher_energy)
    assert_close(at_best, fit.risk, 1e-8, 1e-12 * given.teacher_energy)
    # Stationary: the residual is orthogonal to the features.
    slope = given.gram @ fit.coefficients / K - given.cross / math.sqrt(K)
    assert np.abs(slope).max() < 1e-12 * max(1.0, np.abs(fit.coefficients).max())
    assert_close(np.linalg.norm(fit.coefficients), np.linalg.norm(a), 1e-5)


def test_best_fit_falls_with_the_width():
    W, B, v = random_layers(8, 40, 10, 2)
    risks = [rf.best_fit(rf.population(W[:K], B, v, activation="erf")).risk for K in (1, 5, 20, 40)]
    assert (np.diff(risks) < 0).all()
    assert min(risks) >= 0


def test_best_fit_is_perfect_where_it_must_be():
    W, B, v = random_layers(9, 30, 10, 2)
    W[[3, 17]] = B
    for name in ACTIVATIONS:
        given = rf.population(W, B, v, activation=name)
        assert rf.best_fit(given).risk < 1e-12 * given.teacher_energy
    # Any quadratic form is a combination of N(N+1)/2 others.
    for K, perfect in ((54, False), (55, True)):
        W, B, v = random_layers(10, K, 10, 2, equal_norms=True)
        given = rf.population(W, B, v, activation="quad")
        assert (rf.best_fit(given).risk < 1e-12 * given.teacher_energy) == perfect


def test_best_fit_is_the_posterior_variance():
    """Of a Gaussian process on the rows of W, without noise, at the teacher's unit."""
    W, B, _ = random_layers(11, 12, 9, 1, equal_norms=True)

    def kernel(x, y):
        return naive.feature_kernel("erf", "erf", x @ y.T / 9, 1.0, 1.0)

    posterior = kernel(B, B) - kernel(B, W) @ np.linalg.solve(kernel(W, W), kernel(W, B))
    fit = rf.best_fit(rf.population(W, B, ONE, activation="erf"))
    assert_close(2 * fit.risk, posterior[0, 0], 1e-9)


# ---- equations for a given first layer -----------------------------------------------------------


@entries("fixed_first_layer")
def test_modes_reference(entry):
    problem, W, B = fixed(entry)
    steps = np.array(entry["steps"])
    for closure, key in (("concentrated", "conc"), ("gaussian", "gauss")):
        found = rf.modes(problem, W, B, steps / problem.width, closure=closure, time="discrete")
        assert_close(found.risk, entry[f"eps_{key}_discrete"], 1e-8)
        late = rf.modes(problem, W, B, [1e9 / problem.width], closure=closure, time="discrete")
        assert_close(late.risk, entry[f"eps_inf_{key}"], 1e-8)
    found = rf.modes(problem, W, B, steps / problem.width)
    assert_close(found.risk, entry["eps_conc_continuous"], 1e-8)
    flow = entry["eps_gf_at_t"]
    times = np.array(flow["t"]) / problem.lr
    assert_close(rf.modes(problem, W, B, times, noise=False).risk, flow["eps"], 1e-8)


MODES = {
    "erf": {"activation": "erf", "lr": 2.0},
    "noisy": {"activation": "erf", "lr": 1.0, "noise_var": 0.3, "init_var": 0.5},
    "relu": {"activation": "relu", "lr": 1.0, "init_var": 0.2},
    "mismatched": {"activation": "erf", "teacher_activation": "relu", "lr": 1.0},
    "square": {"activation": "square", "teacher_activation": "erf", "lr": 0.1, "noise_var": 0.1},
    "singular": {"activation": "linear", "lr": 0.3, "init_var": 0.4},
}


def modes_case(name, K=14, N=9, M=2):
    W, B, v = random_layers(sum(map(ord, name)), K, N, M)
    problem = Problem(dim=N, width=K, teacher_weights=v, **MODES[name])
    given = averages(problem, W, B)
    return problem, W, B, (given.gram, given.cross, given.teacher_energy)


@pytest.mark.parametrize("closure", ["concentrated", "gaussian"])
@pytest.mark.parametrize("name", MODES)
def test_modes(name, closure):
    problem, W, B, given = modes_case(name)
    options = {"init_var": problem.init_var, "noise_var": problem.noise_var, "closure": closure}
    steps = np.array([0, 1, 2, 7, 40, 300])
    times = steps / problem.width
    found = rf.modes(problem, W, B, times, closure=closure, time="discrete")
    expected = naive.features_modes_map(*given, lambda _: problem.lr, steps, **options)
    assert_close(found.risk, expected, 1e-10)
    found = rf.modes(problem, W, B, times, closure=closure)
    expected = naive.features_modes_flow(*given, lambda _: problem.lr, times, **options)
    assert_close(found.risk, expected, 1e-8)


@pytest.mark.parametrize("name", MODES)
def test_gradient_flow_of_modes(name):
    problem, W, B, given = modes_case(name)
    times = np.array([0.0, 0.3, 1.0, 20.0])
    found = rf.modes(problem, W, B, times, noise=False)
    expected = naive.features_modes_flow(
        *given,
        lambda _: problem.lr,
        times,
        closure="concentrated",
        init_var=problem.init_var,
        noise=False,
    )
    assert_close(found.risk, expected, 1e-9)


@pytest.mark.parametrize("closure", ["concentrated", "gaussian"])
def test_modes_with_a_schedule(closure):
    problem, W, B, given = modes_case("noisy")

    def schedule(tau):
        return 2.0 / (1 + tau / 3)

    options = {"init_var": 0.5, "noise_var": 0.3, "closure": closure}
    steps = np.array([0, 3, 50, 400])
    times = steps / problem.width
    found = rf.modes(problem, W, B, times, closure=closure, time="discrete", lr_schedule=schedule)
    assert_close(found.risk, naive.features_modes_map(*given, schedule, steps, **options), 1e-9)
    found = rf.modes(problem, W, B, times, closure=closure, lr_schedule=schedule)
    assert_close(found.risk, naive.features_modes_flow(*given, schedule, times, **options), 1e-7)
    constant = rf.modes(problem, W, B, times, lr_schedule=lambda tau: np.full(len(tau), 1.0))
    assert_close(constant.risk, rf.modes(problem, W, B, times).risk, 1e-7)


def test_modes_are_the_volterra_equation():
    problem, W, B, given = modes_case("noisy")
    grid = np.linspace(0.0, 3.0, 3001)
    expected = naive.features_volterra(
        *given, problem.lr, grid, init_var=problem.init_var, noise_var=problem.noise_var
    )
    found = rf.modes(problem, W, B, grid[::500])
    assert_close(found.risk, expected[::500], 2e-6)


def test_modes_stay_stationary_and_isotropic():
    """D = eta eps_inf for every mode is a fixed point of the equations."""
    problem, W, B, given = modes_case("noisy")
    late = rf.modes(problem, W, B, [1e7]).risk[0]
    expected = naive.features_stationary(
        *given, problem.lr, closure="concentrated", noise_var=problem.noise_var
    )
    assert_close(late, expected, 1e-9)


@pytest.mark.parametrize("name", ["erf", "mismatched"])
def test_modes_approach_gradient_flow_at_small_rates(name):
    problem, W, B, _ = modes_case(name)
    flow = rf.modes(problem.replace(lr=1.0), W, B, [0.5, 3.0], noise=False).risk
    errors = []
    for lr in (1e-2, 1e-3):
        slow = rf.modes(problem.replace(lr=lr), W, B, np.array([0.5, 3.0]) / lr).risk
        errors.append(np.abs(slow / flow - 1).max())
    assert errors[1] < 0.12 * errors[0] < 0.012


def test_modes_beyond_the_stability_limit_grow():
    problem, W, B, _ = modes_case("erf")
    risk = rf.modes(problem.replace(lr=20.0), W, B, [0.0, 1.0, 2.0]).risk
    assert (np.diff(risk) > 0).all()


# ---- proportional limit --------------------------------------------------------------------------


def proportional_problem(entry, **changes):
    dim = 400
    return Problem(
        **{"dim": dim, "width": int(entry["delta"] * dim), "lr": 1.0}
        | {"activation": entry["activation"]}
        | changes
    )


@entries("proportional")
def test_proportional_reference(entry):
    problem = proportional_problem(entry)
    assert_close(2 * rf.minimal_risk(problem), entry["two_eps_min"], 1e-8)
    flow = entry["eps_gf"]
    assert_close(rf.proportional(problem, flow["t"], noise=False).risk, flow["value"], 1e-8)
    for run in entry["sgd"]:
        fast = problem.replace(lr=run["eta"])
        assert_close(rf.proportional(fast, run["tau"]).risk, run["eps"], 1e-8)
        assert_close(rf.stationary_risk(fast, route="proportional"), run["eps_inf"], 1e-8)
        assert_close(rf.lr_max(fast, finite_size=False), run["eta_max"], 1e-12)


@entries("h_fraction")
def test_linear_fraction_reference(entry):
    """h is what remains of the linear part; here of a student with that rho, if there is one."""
    assert_close(naive.linear_fraction(entry["delta"], entry["rho"]), entry["h"], 1e-12)


PROPORTIONAL = {
    "erf": {"lr": 2.0},
    "noisy": {"lr": 1.0, "noise_var": 0.3, "init_var": 0.5},
    "correlated": {
        "lr": 1.5,
        "teacher_weights": [0.8, -0.3, 0.5],
        "teacher_overlap": [[1.0, 0.4, 0.1], [0.4, 1.0, -0.2], [0.1, -0.2, 1.0]],
    },
    "relu": {"lr": 1.0, "activation": "relu", "init_var": 0.2},
    "erf-relu": {"lr": 1.0, "teacher_activation": "relu", "noise_var": 0.1},
    "relu-erf": {"lr": 1.5, "activation": "relu", "teacher_activation": "erf"},
    "sign": {"lr": 0.5, "activation": "sign"},
}


@pytest.mark.parametrize("delta", [0.3, 1.0, 2.6])
@pytest.mark.parametrize("name", PROPORTIONAL)
def test_proportional(name, delta):
    problem = Problem(dim=100, width=round(100 * delta), **PROPORTIONAL[name])
    times = np.array([0.2, 1.0, 10.0])
    for noise in (True, False):
        expected = naive.features_proportional(
            problem.activation,
            problem.teacher,
            problem.v,
            problem.T,
            delta,
            problem.lr,
            times,
            init_var=problem.init_var,
            noise_var=problem.noise_var,
            noise=noise,
        )
        assert_close(rf.proportional(problem, times, noise=noise).risk, expected, 1e-8)


def test_minimal_risk_of_linear_students():
    for width, expected in ((30, 0.35), (100, 0.0), (200, 0.0)):
        problem = Problem(dim=100, width=width, lr=0.5, activation="linear")
        assert_close(rf.minimal_risk(problem), expected, 1e-12, 1e-15)


@pytest.mark.parametrize("units", [1, 2, 3])
def test_minimal_risk_of_wide_erf_students(units):
    """The floor (M/2)(1/3 - 1/pi) of the proportional limit."""
    problem = Problem(dim=100, width=10**9, lr=1.0, teacher_weights=np.ones(units))
    assert_close(rf.minimal_risk(problem), units * (1 / 3 - 1 / math.pi) / 2, 1e-6)


# ---- spheres -------------------------------------------------------------------------------------


@entries("sphere")
def test_sphere_reference(entry):
    name = entry["activation"]
    found = rf.sphere_spectrum(entry["N"], name, entry["lmax"])
    assert_close(found.eigenvalues[:7], entry["lambda"], 1e-8, 1e-300)
    assert_close(found.multiplicities[:7], entry["B"], 1e-12)
    # The reference cuts the series of relu at 4000 terms: 7e-6 of the tail, 6e-11 of the whole.
    assert_close(found.tail, entry["tail_weight_beyond_lmax"], 0, 1e-8 * rf.hermite(name, 1).q)
    for K, expected in zip(entry["K"], entry["two_eps_min"], strict=True):
        problem = Problem(dim=entry["N"], width=int(K), lr=1.0, activation=entry["activation"])
        assert_close(2 * rf.minimal_risk(problem, route="sphere"), expected, 1e-8)


@entries("K_star")
def test_width_for_reference(entry):
    found = rf.width_for(entry["N"], entry["tol"], activation=entry["activation"])
    assert_close(found, entry["K_star"], 1e-5 if entry["activation"] == "relu" else 1e-6)


@pytest.mark.parametrize("dim", [3, 4, 7, 50])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_sphere_spectrum(name, dim):
    """Against quadrature over the angle, and the trace."""
    found = rf.sphere_spectrum(dim, name, 12)
    expected = naive.sphere_eigenvalues(name, name, dim, 12)
    assert_close(found.eigenvalues, expected, 1e-8, 1e-14)
    counts = [naive.sphere_multiplicity(dim, degree) for degree in range(13)]
    assert_close(found.multiplicities, counts, 1e-12)
    total = found.eigenvalues @ found.multiplicities + found.tail
    assert_close(total, rf.hermite(name, 1).q, 1e-12)
    assert (found.eigenvalues >= 0).all()
    assert found.tail >= 0


@pytest.mark.parametrize("name", ["erf", "relu"])
def test_width_for(name):
    for dim, tol in ((5, 0.1), (12, 0.03)):
        expected = naive.sphere_width(name, dim, tol, 40)
        assert_close(rf.width_for(dim, tol, activation=name), expected, 1e-6)


@pytest.mark.parametrize("name", ["quad", "square"])
def test_polynomials_need_polynomial_widths(name):
    """A quadratic student is perfect at K = N (N + 1)/2, and hardly needs fewer for a small tol."""
    for dim in (5, 20):
        enough = dim * (dim + 1) / 2
        assert 0.9 * enough < rf.width_for(dim, 1e-4, activation=name) <= enough
        for width, perfect in ((enough - 1, False), (enough, True)):
            problem = Problem(dim=dim, width=int(width), lr=0.5, activation=name)
            risk = rf.minimal_risk(problem, route="sphere")
            assert (risk < 1e-15) == perfect


def test_tail_of_a_kink():
    """The degrees above lmax, where the plain series takes 30 000 terms."""
    lam = naive.sphere_series(naive.feature_taylor("relu", 30_000), 10, 60)
    counts = [naive.sphere_multiplicity(10, degree) for degree in range(61)]
    assert_close(rf.sphere_spectrum(10, "relu", 60).tail, 0.5 - lam @ counts, 1e-8)


def test_width_for_grows_as_the_smoothness_allows():
    """For relu 2 eps_min falls as K^(-3/(N - 1)), for erf faster than any power."""
    for dim in (4, 6):
        tols = np.array([1e-5, 1e-6])
        widths = [rf.width_for(dim, tol, activation="relu") for tol in tols]
        slope = np.diff(np.log(tols)) / np.diff(np.log(widths))
        assert_close(slope, -3 / (dim - 1), 0.1)
        widths = np.array([rf.width_for(dim, tol) for tol in 10.0 ** np.array([-4, -8, -12])])
        growth = np.diff(widths ** (1 / (dim - 1)))
        assert_close(growth[1], growth[0], 0.15)


# ---- the whole learning curve --------------------------------------------------------------------


def curve_problem(entry, **changes):
    return Problem(
        **{
            "dim": entry["N"],
            "width": entry["K"],
            "lr": entry["eta"],
            "activation": entry["student"],
            "teacher_activation": entry["teacher"],
            "init_var": entry.get("var_a0", 0.0),
            "noise_var": entry.get("label_noise_var", 0.0),
        }
        | changes
    )


@entries("laplace_curves")
def test_curve_reference(entry):
    problem = curve_problem(entry)
    assert_close(rf.curve(problem, entry["tau"]).risk, entry["eps"], 1e-6)
    if entry["eps_gf_at_eta_tau"] is not None:
        flow = rf.curve(problem, entry["tau"], noise=False).risk
        assert_close(flow, entry["eps_gf_at_eta_tau"], 1e-6)
    assert_close(rf.minimal_risk(problem, route="sphere"), entry["eps_min"], 1e-8)
    assert_close(rf.stationary_risk(problem, route="sphere"), entry["eps_inf"], 1e-8)


def test_curve_of_several_units_reference():
    entry = REFERENCE["laplace_multi_unit_teacher"]
    problem = curve_problem(entry, teacher_weights=entry["v"], teacher_overlap=entry["T"])
    assert_close(rf.curve(problem, entry["tau"]).risk, entry["eps"], 1e-6)
    assert_close(rf.stationary_risk(problem, route="sphere"), entry["eps_inf"], 1e-8)


@entries("kernel_limit_K_inf")
def test_kernel_limit_reference(entry):
    problem = Problem(
        dim=entry["N"], width=math.inf, lr=entry["eta"], activation=entry["activation"]
    )
    assert_close(rf.curve(problem, entry["steps"]).risk, entry["eps"], 1e-8, 1e-15)


def test_curve_of_the_trace_mode_reference():
    entry = REFERENCE["sgd_quad_M_equals_N"]
    problem = Problem(
        dim=100, width=100, lr=0.5, activation="quad", teacher_weights=np.full(100, 0.1)
    )
    assert_close(rf.curve(problem, entry["tau"]).risk, entry["eps_laplace"], 1e-6)


CURVES = {
    "erf": {"dim": 20, "width": 64, "lr": 2.0},
    "noisy": {"dim": 12, "width": 30, "lr": 1.0, "noise_var": 0.2, "init_var": 0.3},
    "correlated": {"dim": 15, "width": 500, **PROPORTIONAL["correlated"]},
    "relu": {"dim": 10, "width": 25, "lr": 1.0, "activation": "relu"},
    "erf-relu": {"dim": 30, "width": 60, "lr": 1.0, "teacher_activation": "relu"},
    "relu-erf": {"dim": 30, "width": 60, "lr": 1.0, "activation": "relu"}
    | {"teacher_activation": "erf"},
    "quad": {"dim": 8, "width": 60, "lr": 0.3, "activation": "quad"},
    "sign": {"dim": 9, "width": 20, "lr": 0.5, "activation": "sign"},
}


@pytest.mark.parametrize("name", CURVES)
def test_curve(name):
    """Against a plain inversion; the truncated series of relu and sign leave 1e-6."""
    problem = Problem(**CURVES[name])
    times = np.array([0.1, 1.0, 20.0])
    law = naive.sphere_law(
        problem.activation, problem.teacher, problem.dim, problem.v, problem.T, 40
    )
    for noise in (True, False):
        expected = naive.sphere_curve(
            law,
            problem.width,
            problem.lr,
            times,
            init_var=problem.init_var,
            noise_var=problem.noise_var,
            noise=noise,
        )
        tolerance = 1e-5 if {"relu", "sign"} & {problem.activation, problem.teacher} else 1e-7
        assert_close(rf.curve(problem, times, noise=noise).risk, expected, tolerance, 1e-9)


def test_curve_at_any_size():
    """From one feature to 10^12, from the energy of the teacher to the stationary risk."""
    for width in (1, 10, 10**4, 10**8, 10**12):
        problem = Problem(dim=30, width=width, lr=1.0)
        risk = rf.curve(problem, [0.0, 1e-3, 1.0, 1e15]).risk
        assert_close(risk[0], 1 / 6, 1e-12)
        assert (risk > 0).all()
        assert_close(risk[-1], rf.stationary_risk(problem, route="sphere"), 1e-6, 1e-12)


def test_curve_becomes_proportional():
    problem = Problem(dim=10**6, width=2 * 10**6, lr=2.0, noise_var=0.1)
    times = [0.1, 1.0, 10.0, 100.0]
    assert_close(rf.curve(problem, times).risk, rf.proportional(problem, times).risk, 2e-5)


def test_curve_becomes_that_of_the_kernel():
    problem = Problem(dim=20, width=10**12, lr=2.0)
    steps = np.array([1000, 10_000, 100_000])
    limit = rf.curve(problem.replace(width=math.inf), steps).risk
    assert_close(rf.curve(problem, steps / problem.width).risk, limit, 1e-4)


def test_kernel_limit():
    problem = Problem(dim=10, width=math.inf, lr=1.0, noise_var=0.1, teacher_activation="relu")
    law = naive.sphere_law("erf", "relu", 10, ONE, np.eye(1), 40)
    steps = [0, 1, 7, 500]
    expected = naive.sphere_kernel_limit(law, 1.0, steps, noise_var=0.1)
    assert_close(rf.curve(problem, steps).risk, expected, 1e-8)


def test_curve_beyond_the_stability_limit_grows():
    problem = Problem(dim=50, width=100, lr=8.0)
    risk = rf.curve(problem, [0.5, 1.0, 2.0, 4.0]).risk
    assert np.isfinite(risk).all()
    assert (np.diff(risk) > 0).all()
    assert rf.stationary_risk(problem, route="sphere") == math.inf


# ---- stationary risk and stability ---------------------------------------------------------------


def test_lr_max_reference():
    for entry in REFERENCE["stationary_kurtosis"]["eta_max"]:
        problem = Problem(dim=entry["N"], width=entry["K"], lr=1.0, activation=entry["activation"])
        assert_close(rf.lr_max(problem), entry["eta_max"], 1e-10)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_lr_max(name):
    problem = Problem(dim=60, width=40, lr=0.1, activation=name)
    q = float(naive.feature_kernel(name, name, 1.0, 1.0, 1.0))
    assert_close(rf.lr_max(problem, finite_size=False), 2 / q, 1e-12)
    assert_close(rf.lr_max(problem), 2 / (q * naive.feature_kurtosis(name, 40, 60)), 1e-10)


def test_stationary_risk():
    problem = Problem(dim=80, width=100, lr=2.0, noise_var=0.2)
    for route in ("proportional", "sphere"):
        smallest = 2 * rf.minimal_risk(problem, route=route)
        expected = ((smallest + 0.2) / (1 - 2 / 6) - 0.2) / 2
        assert_close(rf.stationary_risk(problem, route=route), expected, 1e-10)
        unstable = problem.replace(lr=6.0)
        assert rf.stationary_risk(unstable, route=route) == math.inf
        close = problem.replace(lr=5.95)
        assert rf.stationary_risk(close, route=route) < math.inf
        assert rf.stationary_risk(close, route=route, finite_size=True) == math.inf


def test_label_noise_alone():
    """2 eps_inf = sigma^2 x/(1 - x) with x = eta q/2, where the teacher is learned perfectly."""
    problem = Problem(dim=50, width=80, lr=0.5, activation="linear", noise_var=0.3)
    x = 0.25
    assert_close(2 * rf.stationary_risk(problem), 0.3 * x / (1 - x), 1e-10)


# ---- simulation ----------------------------------------------------------------------------------


def stream(problem, *, W=None, B=None, replicas=1, teachers=1, seed=0):
    """What a simulation draws."""
    return rf._stream(
        problem,
        np.empty(0) if W is None else W,
        np.empty(0) if B is None else B,
        replicas,
        teachers,
        128,
        _check.seed_sequence(seed),
        1,
    )


SIMULATIONS = {
    "erf": {"dim": 9, "width": 14, "lr": 2.0},
    "noisy": {"dim": 16, "width": 8, "lr": 1.0, "noise_var": 0.4, "init_var": 0.7},
    "relu": {"dim": 17, "width": 33, "lr": 1.0, "activation": "relu"},
    "quad": {"dim": 5, "width": 70, "lr": 0.2, "activation": "quad"},
    "square": {"dim": 7, "width": 10, "lr": 0.05, "activation": "square"},
    "linear": {"dim": 3, "width": 4, "lr": 0.3, "activation": "linear", "init_var": 1.0},
    "sign": {"dim": 21, "width": 13, "lr": 0.4, "activation": "sign"},
    "erf-relu": {"dim": 8, "width": 9, "lr": 1.0, "teacher_activation": "relu"},
    "units": {"dim": 11, "width": 6, "lr": 1.0, **PROPORTIONAL["correlated"]},
    "gaussian rows": {"dim": 6, "width": 12, "lr": 1.0, "rows": "gaussian"},
    "one": {"dim": 1, "width": 1, "lr": 0.5, "noise_var": 0.1},
}


@pytest.mark.parametrize("teachers", [1, 3])
@pytest.mark.parametrize("name", SIMULATIONS)
def test_simulation_is_sgd(name, teachers):
    """Step by step on the same first layers, teachers, inputs, label noise and starts."""
    problem = Problem(**SIMULATIONS[name])
    K, steps = problem.width, np.array([0, 1, 5, 70, 300])
    found = rf.simulate(problem, steps / K, replicas=2, teachers=teachers, seed=4)
    drawn = stream(problem, replicas=2, teachers=teachers, seed=4)
    starts = drawn.start(problem.init_var)
    for replica in range(2):
        W, B = drawn.first_layer(replica), drawn.teachers(replica)
        X, noise = drawn.stream(replica, 0, steps[-1])
        risks = []
        for i in range(teachers):
            shared = (W, B[i], problem.v, problem.activation, problem.teacher)
            path = naive.features_sgd(*shared, X, problem.lr, starts[replica, :, i], noise[:, i])
            moments = naive.features_population(*shared)
            risks.append([naive.features_risk(a, *moments) for a in path[steps]])
        assert_close(found.risk[replica], np.mean(risks, axis=0), 1e-9, 1e-14)


@entries("fixed_first_layer")
def test_sgd_reference(entry):
    """Twenty steps on inputs in closed form, sequentially and in blocks."""
    problem, W, B = fixed(entry)
    n, j = np.meshgrid(np.arange(20), np.arange(entry["N"]), indexing="ij")
    X = math.sqrt(2) * np.cos(0.9 + 1.1 * n + 2.3 * j + 1.9 * n * j + 0.07 * n**2 * j)
    shared = (W, B, problem.v, problem.activation, problem.teacher, X, problem.lr)
    start = np.zeros(entry["K"])
    expected = entry["sgd20"]
    moments = naive.features_population(*shared[:5])
    for a in (naive.features_sgd(*shared, start)[-1], naive.features_sgd_blocked(*shared, start)):
        assert_close(a[:3], expected["a_first3"], 1e-8)
        assert_close(np.linalg.norm(a), expected["a_norm"], 1e-8)
        assert_close(naive.features_risk(a, *moments), expected["eps"], 1e-8)


def test_simulation_with_given_layers():
    W, B, v = random_layers(1, 9, 6, 2)
    problem = Problem(dim=6, width=9, lr=0.5, teacher_weights=v, noise_var=0.1)
    steps = np.array([0, 40, 200])
    found = rf.simulate(problem, steps / 9, W=W, B=B, replicas=2)
    drawn = stream(problem, W=W, B=B, replicas=2)
    moments = naive.features_population(W, B, v, "erf", "erf")
    for replica in range(2):
        X, noise = drawn.stream(replica, 0, 200)
        path = naive.features_sgd(W, B, v, "erf", "erf", X, 0.5, np.zeros(9), noise[:, 0])
        assert_close(
            found.risk[replica], [naive.features_risk(a, *moments) for a in path[steps]], 1e-10
        )
    # A given first layer with drawn teachers, and the other way round.
    for layers in ({"W": W, "teachers": 3}, {"B": B}):
        assert np.isfinite(rf.simulate(problem, steps / 9, **layers, replicas=2).risk).all()


def test_simulation_with_a_schedule():
    problem = Problem(dim=10, width=12, lr=9.0)
    seen = []

    def schedule(tau):
        seen.append(tau)
        return 3.0 / (1.0 + tau)

    found = rf.simulate(problem, [0.0, 20.0], lr_schedule=schedule)
    drawn = stream(problem)
    shared = (drawn.first_layer(0), drawn.teachers(0)[0], ONE, "erf", "erf")
    tau = np.arange(240) / 12
    assert all(np.isin(times, tau).all() for times in seen)
    X, _ = drawn.stream(0, 0, 240)
    path = naive.features_sgd(*shared, X, schedule(tau), np.zeros(12))
    moments = naive.features_population(*shared)
    assert_close(found.risk[0, -1], naive.features_risk(path[-1], *moments), 1e-10)
    constant = rf.simulate(problem.replace(lr=2.0), [20.0])
    scheduled = rf.simulate(problem, [20.0], lr_schedule=lambda tau: np.full(len(tau), 2.0))
    assert_array_equal(constant.risk, scheduled.risk)


@pytest.mark.parametrize("block", [1, 3, 63, 64, 65, 200, 10_000])
def test_blocks_change_rounding_only(block):
    problem = Problem(dim=10, width=16, lr=2.0, noise_var=0.1)
    usual = rf.simulate(problem, [0.0, 1.0, 30.0], replicas=2, teachers=2)
    other = rf.simulate(problem, [0.0, 1.0, 30.0], replicas=2, teachers=2, block=block)
    assert_close(other.risk, usual.risk, 1e-11)


def test_teachers_share_first_layer_and_inputs():
    """The mean over teachers is that of the runs with each of them."""
    problem = Problem(dim=8, width=10, lr=1.0)
    drawn = stream(problem, teachers=4)
    assert_array_equal(drawn.teachers(0)[:2], stream(problem, teachers=2).teachers(0))
    together = rf.simulate(problem, [5.0], teachers=4).risk[0]
    W = drawn.first_layer(0)
    alone = [rf.simulate(problem, [5.0], W=W, B=B).risk[0] for B in drawn.teachers(0)]
    assert_close(together, np.mean(alone, axis=0), 1e-11)


@pytest.mark.parametrize("rows", ["sphere", "gaussian"])
def test_drawn_first_layers(rows):
    problem = Problem(dim=7, width=3000, lr=1.0, rows=rows)
    drawn = stream(problem, replicas=2)
    W = drawn.first_layer(0)
    norms = np.sum(W**2, axis=1)
    if rows == "sphere":
        assert_close(norms, 7.0, 1e-13)
        law = stats.beta(3, 3, loc=-math.sqrt(7), scale=2 * math.sqrt(7))
        assert stats.kstest(W[:, 2], law.cdf).pvalue > cases.FALSE_ALARM
    else:
        assert stats.kstest(norms, stats.chi2(7).cdf).pvalue > cases.FALSE_ALARM
        assert stats.kstest(W.ravel(), "norm").pvalue > cases.FALSE_ALARM
    assert np.abs(np.corrcoef(W, rowvar=False) - np.eye(7)).max() < 6 / math.sqrt(3000)
    assert not np.isin(W, drawn.first_layer(1)).any()
    # Rows do not depend on how many there are.
    narrow = stream(problem.replace(width=10))
    assert_array_equal(narrow.first_layer(0), W[:10])


def test_drawn_teachers():
    """Exactly the problem's overlap, singular ones included, and a uniform direction."""
    singular = np.array([[1.0, 0.6, 0.8], [0.6, 1.0, 0.0], [0.8, 0.0, 1.0]])
    assert abs(np.linalg.det(singular)) < 1e-15
    for T in (np.eye(3), np.array(PROPORTIONAL["correlated"]["teacher_overlap"]), singular):
        problem = Problem(dim=5, width=4, lr=1.0, teacher_weights=np.ones(3), teacher_overlap=T)
        B = stream(problem, teachers=400).teachers(0)
        assert_close(B @ B.transpose(0, 2, 1) / 5, np.broadcast_to(T, (400, 3, 3)), 0, 1e-13)
        law = stats.beta(2, 2, loc=-math.sqrt(5), scale=2 * math.sqrt(5))
        assert stats.kstest(B[:, 1, 3], law.cdf).pvalue > cases.FALSE_ALARM
    # A teacher of rank 2 fits into two dimensions.
    flat = problem.replace(dim=2)
    assert_close(
        stream(flat).teachers(0)[0] @ stream(flat).teachers(0)[0].T / 2, singular, 0, 1e-13
    )


def test_streams_do_not_overlap():
    problem = Problem(dim=16, width=4, lr=1.0, noise_var=4.0, init_var=9.0)
    drawn = stream(problem, replicas=2, teachers=3)
    X, noise = drawn.stream(0, 0, 2000)
    assert stats.kstest(X.ravel(), "norm").pvalue > cases.FALSE_ALARM
    assert stats.kstest(noise.ravel() / 2, "norm").pvalue > cases.FALSE_ALARM
    starts = stream(problem.replace(width=2000), teachers=3).start(9.0)
    assert stats.kstest(starts.ravel() / 3, "norm").pvalue > cases.FALSE_ALARM
    later, _ = drawn.stream(0, 100, 5)
    assert_array_equal(later, X[100:105])
    others = [drawn.stream(1, 0, 2000)[0], drawn.first_layer(0), drawn.start(1.0)]
    for other in others:
        assert not np.isin(X, other).any()


def test_a_perfect_student_stays_perfect():
    """Its teacher's unit is one of its features; with enough quadratic ones, all are."""
    W, B, _ = random_layers(2, 12, 6, 1)
    W[4] = B[0]
    problem = Problem(dim=6, width=12, lr=1.0)
    risk = rf.simulate(problem, [0.0, 3e4], W=W, B=B).risk[0]
    assert risk[1] < 1e-4 * risk[0]
    quad = Problem(dim=3, width=30, lr=0.2, activation="quad")
    risk = rf.simulate(quad, [0.0, 3e3], replicas=3).risk
    assert (risk[:, 1] < 1e-12).all()


def test_annealing_reaches_the_minimal_risk():
    W, B, v = random_layers(6, 20, 20, 1, equal_norms=True)
    problem = Problem(dim=20, width=20, lr=3.0)
    best = rf.best_fit(rf.population(W, B, v / v, activation="erf")).risk
    run = {"W": W, "B": B, "replicas": 8}
    constant = rf.simulate(problem, [400.0], **run)
    annealed = rf.simulate(problem, [400.0], lr_schedule=lambda tau: 3 / (1 + tau / 5), **run)
    assert best < annealed.risk.mean() < best + 0.1 * (constant.risk.mean() - best)


def test_simulation_beyond_the_stability_limit():
    problem = Problem(dim=20, width=30, lr=25.0)
    result = rf.simulate(problem, [0.0, 1.0, 2000.0], replicas=3, throw=False)
    assert result.status == Status.DIVERGED
    assert result.diverged.all()
    assert_close(result.risk[:, 0], 1 / 6, 1e-12)
    with pytest.raises(op.ConvergenceError) as error:
        rf.simulate(problem, [0.0, 1.0, 2000.0], replicas=3)
    assert bits(error.value.result) == bits(result)


def test_simulation_of_no_steps():
    result = rf.simulate(Problem(dim=5, width=3, lr=1.0), [0.0], replicas=2)
    assert_close(result.risk, 1 / 6, 1e-12)
    assert result.stats["steps"] == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"t": [0.0, 0.33]}, "t must be on the grid"),
        ({"problem": Problem(dim=5, width=math.inf, lr=1.0)}, "width must be finite"),
        ({"W": np.ones((4, 5))}, "W must be"),
        ({"W": np.ones((10, 4))}, "W must be"),
        ({"B": np.ones((2, 5))}, "B must be"),
        ({"B": np.ones((1, 5)), "teachers": 2}, "teachers must be 1 where B is given"),
        ({"block": 0}, "block must be"),
        ({"teachers": 0}, "teachers must be"),
        ({"lr_schedule": 2.0}, "lr_schedule must be a function"),
        ({"lr_schedule": lambda tau: tau[:-1]}, "lr_schedule must be"),
        ({"lr_schedule": lambda tau: -tau}, "lr_schedule must be .* non-negative"),
        ({"lr_schedule": lambda tau: tau * math.nan}, "lr_schedule must be"),
        (
            {"problem": Problem(dim=2, width=10, lr=1.0, teacher_weights=np.ones(3))},
            "dim must be at least the rank",
        ),
    ],
)
def test_simulate_refuses(changes, words):
    given = {"problem": Problem(dim=5, width=10, lr=1.0), "t": [0.0, 1.0]} | changes
    with pytest.raises((ValueError, TypeError), match=words):
        rf.simulate(**given)


def test_simulate_refuses_another_overlap():
    B = np.array([[1.0, 1.0], [1.0, -1.0]])
    problem = Problem(dim=2, width=3, lr=1.0, teacher_weights=[1.0, 1.0])
    mixed = problem.replace(teacher_overlap=[[1.0, 0.5], [0.5, 1.0]])
    with pytest.raises(ValueError, match="B must be of the problem's teacher_overlap"):
        rf.simulate(mixed, [1.0], B=B)
    fitting = problem.replace(teacher_overlap=np.eye(2))
    assert_array_equal(rf.simulate(fitting, [1.0], B=B).risk, rf.simulate(problem, [1.0], B=B).risk)
    # Without an overlap in the problem any teacher is welcome, of any norm.
    assert np.isfinite(rf.simulate(problem, [1.0], B=[[2.0, 0.1], [0.3, 0.4]]).risk).all()


# ---- independent simulations ---------------------------------------------------------------------


def combined(values, entry_mean, entry_error):
    """Deviation of the mean of our replicas from that of others, in combined standard errors."""
    error = np.hypot(stats.sem(values, axis=0), entry_error)
    return np.abs(values.mean(axis=0) - entry_mean) / np.maximum(error, 1e-12)


@entries("simulation")
def test_simulation_reference(entry):
    """40 teachers for each first layer, as there; four combined standard errors."""
    problem = Problem(
        dim=entry["N"],
        width=entry["K"],
        lr=entry["eta"],
        activation=entry["student"],
        teacher_activation=entry["teacher"],
        rows=entry["rows"],
    )
    first, last = entry["late_tau_window"]
    late = np.linspace(first, last, 11)
    t = np.concatenate([entry["tau"], np.round(late * problem.width) / problem.width])
    risk = rf.simulate(problem, t, replicas=8, teachers=40).risk
    early, late = risk[:, : len(entry["tau"])], risk[:, len(entry["tau"]) :].mean(axis=1)
    assert (combined(early, entry["eps_sim"], entry["se"]) < 4).all()
    assert combined(late, entry["late_sim"], entry["late_se"]) < 4


@entries("best_fit_random_first_layer")
def test_best_fit_reference(entry):
    """Of first layers on the sphere; the teachers share a layer, as a simulation draws them."""
    N, K, name = entry["N"], entry["K"], entry["activation"]
    drawn = stream(Problem(dim=N, width=K, lr=1.0, activation=name), replicas=20, teachers=40)
    smallest = []
    for replica in range(20):
        W, B = drawn.first_layer(replica), drawn.teachers(replica)
        s, U = np.linalg.eigh(rf._gram(W, name))
        kept = s > 1e-13 * s[-1]
        r, Ey2 = rf._teacher_moments(W, B, ONE, name, name)
        explained = np.sum((U.T @ r)[kept] ** 2 / s[kept, None], axis=0)
        smallest.append(np.mean(Ey2 - explained))
        one = rf.best_fit(rf.population(W, B[3], ONE, activation=name))
        assert_close(2 * one.risk, Ey2[3] - explained[3], 1e-7)
    assert combined(np.array(smallest), entry["two_eps_min_direct"], entry["se"]) < 4
    problem = Problem(dim=N, width=K, lr=1.0, activation=name)
    theory = 2 * rf.minimal_risk(problem, route="sphere")
    assert_close(theory, entry["two_eps_min_theory"], 1e-8)


def test_trace_mode_reference():
    entry = REFERENCE["sgd_quad_M_equals_N"]
    problem = Problem(
        dim=100, width=100, lr=0.5, activation="quad", teacher_weights=np.full(100, 0.1)
    )
    risk = rf.simulate(problem, entry["tau"], replicas=12).risk
    assert (combined(risk, entry["eps_sim"], entry["se"]) < 4).all()
    # The reference of the modes is that of one first layer and teacher.
    drawn = stream(problem, replicas=12)
    modes = np.array(
        [
            rf.modes(problem, drawn.first_layer(i), drawn.teachers(i)[0], entry["tau"]).risk
            for i in range(12)
        ]
    )
    spread = modes.std(axis=0, ddof=1) * math.sqrt(1 + 1 / 12)
    assert (np.abs(modes.mean(axis=0) - entry["eps_modes_conc"]) < 4 * spread).all()


# ---- bad input of the rest -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: rf.pair_kernel("tanh", "erf", 0.1), "act_x must be .*erf.*relu.*quad"),
        (lambda: rf.pair_kernel("erf", "tanh", 0.1), "act_y must be .*square.*linear.*sign"),
        (lambda: rf.pair_kernel("erf", "erf", 1.1), "cov must be"),
        (lambda: rf.pair_kernel("erf", "erf", 0.1, -1.0), "var_x must be"),
        (lambda: rf.hermite("gelu", 3), "activation must be"),
        (lambda: rf.hermite("erf", -1), "order must be"),
        (lambda: rf.sphere_spectrum(2, "erf", 5), "dim must be"),
        (lambda: rf.sphere_spectrum(5, "erf", -1), "lmax must be"),
        (lambda: rf.width_for(2, 0.1), "dim must be"),
        (lambda: rf.width_for(5, 0.0), "tol must be"),
        (lambda: Problem(dim=0, width=3, lr=1.0), "dim must be"),
        (lambda: Problem(dim=3, width=0, lr=1.0), "width must be"),
        (lambda: Problem(dim=3, width=3, lr=0.0), "lr must be"),
        (lambda: Problem(dim=3, width=3, lr=1.0, activation="tanh"), "activation must be"),
        (
            lambda: Problem(dim=3, width=3, lr=1.0, teacher_activation="tanh"),
            "teacher_activation must be",
        ),
        (
            lambda: Problem(
                dim=3,
                width=3,
                lr=1.0,
                teacher_weights=[1, 1],
                teacher_overlap=[[1.0, 1.5], [1.5, 1.0]],
            ),
            "teacher_overlap must be",
        ),
        (
            lambda: Problem(dim=3, width=3, lr=1.0, teacher_overlap=[[2.0]]),
            "teacher_overlap must be .*diagonal",
        ),
        (
            lambda: rf.curve(Problem(dim=5, width=3, lr=1.0, rows="gaussian"), [1.0]),
            "rows must be",
        ),
        (lambda: rf.curve(Problem(dim=2, width=3, lr=1.0), [1.0]), "dim must be"),
        (
            lambda: rf.minimal_risk(Problem(dim=5, width=3, lr=1.0), route="mean field"),
            "route must be",
        ),
        (
            lambda: rf.curve(Problem(dim=5, width=math.inf, lr=1.0), [0.5]),
            "t must be",
        ),
        (
            lambda: rf.proportional(Problem(dim=5, width=math.inf, lr=1.0), [0.5]),
            "width must be finite",
        ),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises((ValueError, TypeError), match=words):
        call()


def test_tails_are_kept():
    """The degrees that are not listed still cost: no width makes the risk spuriously zero."""
    for name in ("erf", "relu", "sign"):
        problem = Problem(dim=3, width=10**6, lr=0.5, activation=name)
        assert rf.minimal_risk(problem, route="sphere") > 0
        assert rf.sphere_spectrum(3, name, 3).tail > 0


def test_results_survive_files(tmp_path):
    W, B, v = random_layers(0, 4, 3, 1)
    problem = Problem(dim=3, width=4, lr=1.0, teacher_weights=v)
    results = [
        rf.simulate(problem, [0.0, 1.0], replicas=2),
        rf.modes(problem, W, B, [0.0, 1.0]),
        rf.proportional(problem, [0.5, 1.0]),
        rf.curve(problem, [0.5, 1.0]),
        rf.hermite("relu", 4),
        rf.population(W, B, v, activation="erf"),
        rf.best_fit(rf.population(W, B, v, activation="erf")),
        rf.sphere_spectrum(5, "erf", 6),
    ]
    for i, result in enumerate(results):
        path = tmp_path / f"{i}.npz"
        result.save(path)
        assert bits(op.load(path)) == bits(result)
