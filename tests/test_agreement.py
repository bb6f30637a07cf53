"""Theory against simulation: |theory - mean| <= standard errors + finite-size term, and its law.

The rules were fixed before any run. Standard errors: as many as four are for one number, for as
many numbers as are compared (`cases.standard_errors`). Finite-size term: where the theory of order
1/N exists (naive.sgd_fluctuations: quadratic network, free norms, fixed second layer, batch 1), the
size of that term; elsewhere none, at dimensions so large that it is below a tenth of a standard
error (N = 20 000 with 64 replicas: the ratio is of order sqrt(64 / 20 000)). For population_flow,
whose limit at finite kappa d has the largest term of order 1/d, 2/d of the value for the others.
For empirical_flow 2/d of the value, and in the slow tests none after an extrapolation in 1/d.
For random_features the correction to the fourth moment of the features, chi - 1 of order 1/K + 1/N
(naive.feature_kurtosis), of the value: the theories take it as zero.
For giant_step, whose theory is solved with the strength and the alignment that each replica
measured, 2/d of the value; and what a theory leaves out, where the test says so.
"""

import math

import cases
import naive
import numpy as np
import overparam as op
import pytest
from cases import sgd_arguments, standard_errors
from numpy.testing import assert_allclose
from overparam import empirical_flow, giant_step, random_features, sgd
from overparam import population_flow as flow
from overparam.sgd import Overlaps, Problem
from scipy import stats

T = [0.0, 0.5, 1.0, 2.0]


def disagreement(theory, sampled, *, fields=None, finite_size=0.0):
    """Largest |theory - mean| - finite-size term, in units of what is allowed; at most 1."""
    table = op.compare(theory, sampled, fields)
    error = np.abs(table["mean"] - table["theory"])
    rounding = 1e-12 * np.maximum(np.abs(table["theory"]), 1e-2)
    moving = np.count_nonzero(table["sem"] > rounding)
    allowed = standard_errors(moving, sampled.replicas) * table["sem"] + finite_size + rounding
    return float(np.max(error / allowed))


# ---- sgd -----------------------------------------------------------------------------------------

LARGE = {
    "batch": {"batch": 4, "noise_var": 0.2},
    "spherical": {"spherical": True},
    "trained": {"second_layer_lr": 0.4, "noise_var": 0.1},
    "centred": {"centred": True, "second_layer": 0.4},
    "signed": {"second_layer": [0.5, -0.3, 0.2], "teacher_second_layer": [0.6, -0.4]},
    "erf": {"activation": "erf", "second_layer": 1.0, "teacher_second_layer": 1.0, "lr": 0.8},
    "erf-batch-spherical": {
        "activation": "erf",
        "second_layer": [1.0, -0.5, 0.8],
        "spherical": True,
        "batch": 2,
        "offset": 0.1,
    },
    "relu": {"activation": "relu", "second_layer": 0.6, "noise_var": 0.1, "offset": 0.1},
    "wide": {"width": 9, "lr": 1.0},
    "narrow": {"width": 1, "teacher_width": 3, "lr": 0.1},
}


def large_problem(name, dim):
    options = {"width": 3, "teacher_width": 2, "lr": 0.4, "dim": dim, **LARGE[name]}
    problem = Problem(**options)
    rng = np.random.default_rng(2)
    p, ps = problem.width, problem.teacher_width
    W, W_star = 0.7 * rng.standard_normal((p, 20)), rng.standard_normal((ps, 20))
    return problem, Overlaps.from_weights(W, W_star)


def assert_agree_at_large_dimension(name, *, dim, replicas, method="chain"):
    problem, start = large_problem(name, dim)
    theory = sgd.ode(problem, start, T)
    sampled = sgd.simulate(problem, start, T, replicas=replicas, method=method, seed=3)
    assert not sampled.diverged.any()
    assert disagreement(theory, sampled) <= 1


@pytest.mark.parametrize("name", LARGE)
def test_sgd_chain_follows_the_equations(name):
    assert_agree_at_large_dimension(name, dim=20_000, replicas=64)


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_sgd_chain_follows_the_equations_at_a_million(name):
    assert_agree_at_large_dimension(name, dim=10**6, replicas=64)


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_direct_sgd_follows_the_equations(name):
    assert_agree_at_large_dimension(name, dim=5000, replicas=16, method="direct")


SMALL = {
    "plain": {},
    "noise": {"noise_var": 0.3},
    "signed": {"second_layer": [0.4, -0.3], "offset": 0.2},
}


def small_problem(name):
    problem = Problem(width=2, teacher_width=2, lr=0.25, **SMALL[name])
    start = Overlaps(
        Q=[[0.6, 0.1], [0.1, 0.5]], M=[[0.3, 0.1], [0.0, 0.2]], P=[[1.0, 0.2], [0.2, 0.8]]
    )
    return problem, start


def overlap_vector(result):
    """M row-major, then Q row-major."""
    return np.concatenate([x.reshape(*x.shape[:-2], -1) for x in (result.M, result.Q)], axis=-1)


def order_one_over_n(problem, start, t):
    """lim N Cov and lim N (mean - ode) of the overlaps, by naive.py."""
    arguments, options = sgd_arguments(problem, start)
    options.pop("batch")
    return naive.sgd_fluctuations(*arguments, t, rtol=1e-6, **options)


@pytest.mark.parametrize("method", ["chain", "direct"])
@pytest.mark.parametrize("name", SMALL)
def test_sgd_at_small_dimension(name, method):
    """N = 100: the mean deviates by the known term of order 1/N, some standard errors."""
    problem, start = small_problem(name)
    dim, replicas = 100, 20_000 if method == "chain" else 4000
    theory = sgd.ode(problem, start, T)
    sampled = sgd.simulate(problem.replace(dim=dim), start, T, replicas=replicas, method=method)
    _, bias = order_one_over_n(problem, start, T)
    finite_size = np.abs(bias / dim).T.ravel()  # component by component, as the table
    assert disagreement(theory, sampled, fields=["M", "Q"], finite_size=finite_size) <= 1
    # With the term added a deviation of order 1/N^2 is left, below a standard error.
    sample = overlap_vector(sampled)[:, 1:]
    corrected = (overlap_vector(theory) + bias / dim)[1:]
    error = np.abs(sample.mean(axis=0) - corrected)
    bound = standard_errors(corrected.size, replicas)
    assert (error <= bound * stats.sem(sample)).all()


def assert_covariances_agree(problem, start, *, dim, replicas):
    """Every entry of N Cov against its sampling error; corrections are of relative order 1/N."""
    t = [0.5, 2.0]
    expected = sgd.fluctuations(problem, start, t)
    run = sgd.simulate(problem.replace(dim=dim), start, t, replicas=replicas, seed=5)
    values = overlap_vector(run)
    centred = values - values.mean(axis=0)
    products = dim * centred[..., :, None] * centred[..., None, :]
    error = np.abs(products.mean(axis=0) - expected)
    bound = standard_errors(expected[:, *np.triu_indices(expected.shape[1])].size, replicas)
    assert (error <= bound * stats.sem(products)).all()


@pytest.mark.parametrize("name", SMALL)
def test_sgd_fluctuations(name):
    assert_covariances_agree(*small_problem(name), dim=5000, replicas=2000)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_sgd_fluctuations_to_three_percent(name):
    assert_covariances_agree(*small_problem(name), dim=50_000, replicas=10_000)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_sgd_deviation_falls_as_one_over_n(name):
    """Slope -1 of the deviation of the mean against N, and its size, along the known bias."""
    problem, start = small_problem(name)
    t = [1.0]
    _, bias = order_one_over_n(problem, start, t)
    direction = bias[0] / np.linalg.norm(bias[0])
    theory = overlap_vector(sgd.ode(problem, start, t))[0] @ direction
    dims, replicas = np.array([100, 200, 400, 800]), 400_000
    deviations, errors = [], []
    for dim in dims:
        run = sgd.simulate(problem.replace(dim=int(dim)), start, t, replicas=replicas, seed=dim)
        sample = overlap_vector(run)[:, 0] @ direction
        deviations.append(sample.mean() - theory)
        errors.append(stats.sem(sample))
    deviations, errors = np.array(deviations), np.array(errors)
    # deviation = b/N + c/N^2: b against theory.
    powers = np.stack([1 / dims, 1 / dims**2], axis=1) / errors[:, None]
    covariance = np.linalg.inv(powers.T @ powers)
    b, c = covariance @ powers.T @ (deviations / errors)
    bound = standard_errors(1, replicas)
    assert abs(b - np.linalg.norm(bias[0])) <= bound * np.sqrt(covariance[0, 0])
    # The slope of a straight line differs from -1 by the next order, of relative size c / (b N).
    weights = (deviations / errors) ** 2
    x, y = np.log(dims), np.log(deviations)
    x = x - np.average(x, weights=weights)
    slope = (weights * x) @ y / ((weights * x) @ x)
    slope_error = 1 / np.sqrt((weights * x) @ x)
    assert abs(slope + 1) <= bound * slope_error + abs(c / b) / dims[0]


# ---- population_flow -----------------------------------------------------------------------------

FLOW_TIMES = [0.25, 1.0, 2.0, 4.0]
FLOW_SIZES = {"surplus": (0.5, 0.3), "narrow": (0.25, 0.5), "equal": (0.4, 0.4)}


def finite_flow(gamma, gamma_star, dim, *, family, replicas, seed=3):
    """Random students of a projector, per dimension, with the trace of the teacher at the start."""
    m, m_star = round(gamma * dim), round(gamma_star * dim)
    problem = flow.Problem(teacher_eigenvalues=np.ones(m_star), dim=dim, width=m)
    run = flow.simulate(problem, FLOW_TIMES, init=family, replicas=replicas, seed=seed, rtol=1e-9)
    return run.per_dimension()


def flow_limit(gamma, gamma_star, dim, family):
    """The limit with the largest correction of a finite dimension, kappa d = d/2."""
    return flow.limit(
        gamma, gamma_star, FLOW_TIMES, student=family, trace_weight_d=dim / 2, rtol=1e-10
    )


@pytest.mark.parametrize("family", ["orthonormal", "gaussian"])
@pytest.mark.parametrize("name", FLOW_SIZES)
def test_population_flow_follows_its_limit(name, family):
    """Besides kappa d the corrections of the mean are of relative order 1/d: at most 2/d."""
    sizes, dim = FLOW_SIZES[name], 120
    theory = flow_limit(*sizes, dim, family)
    sampled = finite_flow(*sizes, dim, family=family, replicas=24)
    fields = ["distance2", "trace", "overlap"]
    scale = [np.maximum(np.abs(getattr(theory, field)), sizes[1]) for field in fields]
    finite_size = 2 / dim * np.concatenate(scale)
    assert disagreement(theory, sampled, fields=fields, finite_size=finite_size) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("family", ["orthonormal", "gaussian"])
@pytest.mark.parametrize("name", FLOW_SIZES)
def test_population_flow_follows_its_limit_at_large_dimension(name, family):
    sizes, dim = FLOW_SIZES[name], 300
    theory = flow_limit(*sizes, dim, family)
    sampled = finite_flow(*sizes, dim, family=family, replicas=8)
    fields = ["distance2", "trace", "overlap"]
    scale = [np.maximum(np.abs(getattr(theory, field)), sizes[1]) for field in fields]
    finite_size = 2 / dim * np.concatenate(scale)
    assert disagreement(theory, sampled, fields=fields, finite_size=finite_size) <= 1


@pytest.mark.slow
def test_population_flow_approaches_the_hard_constraint_as_one_over_d():
    """The deviation of the mean from the limit of infinite kappa d falls with slope -1 in d."""
    sizes, dims, replicas = (0.25, 0.5), np.array([40, 80, 160, 320]), 400
    hard = flow.limit(*sizes, FLOW_TIMES, rtol=1e-10)
    deviations, errors = [], []
    for dim in dims:
        sample = finite_flow(
            *sizes, int(dim), family="orthonormal", replicas=replicas, seed=int(dim)
        ).distance2[:, -1]
        deviations.append(sample.mean() - hard.distance2[-1])
        errors.append(stats.sem(sample))
    deviations, errors = np.array(deviations), np.array(errors)
    powers = np.stack([1 / dims, 1 / dims**2], axis=1) / errors[:, None]
    covariance = np.linalg.inv(powers.T @ powers)
    b, c = covariance @ powers.T @ (deviations / errors)
    weights = (deviations / errors) ** 2
    x, y = np.log(dims), np.log(np.abs(deviations))
    x = x - np.average(x, weights=weights)
    slope = (weights * x) @ y / ((weights * x) @ x)
    slope_error = 1 / np.sqrt((weights * x) @ x)
    bound = standard_errors(1, replicas)
    assert abs(slope + 1) <= bound * slope_error + abs(c / b) / dims[0]
    # The coefficient is that of kappa d in the residual loss (m* - m) + m s^2, s at finite kappa.
    missing, gamma = sizes[1] - sizes[0], sizes[0]
    s = -0.5 * missing * dims / (1 + 0.5 * gamma * dims)
    residual = missing + gamma * s**2 - hard.distance2[-1]
    assert (np.abs(deviations - residual) <= bound * errors + 0.2 * np.abs(residual)).all()


# ---- empirical_flow ------------------------------------------------------------------------------

# Widths that are integers at all dimensions below; the second is narrow, without other roots.
MINIMA = {
    "wide": {"alpha": 0.5, "kappa": 1.25, "kappa_star": 0.75, "noise_var": 0.5, "ridge": 0.1},
    "narrow": {"alpha": 0.5, "kappa": 0.375, "kappa_star": 0.5, "noise_var": 0.2, "ridge": 0.1},
}
MINIMA_FIELDS = ("risk", "train_risk", "trace", "overlap", "objective")


def minima(name, dim, sensing, replicas, seed=3):
    """The fields of minima of the network, (fields, replicas), and those of the theory."""
    problem = empirical_flow.Problem(**MINIMA[name])
    run = {"sensing": sensing, "teacher": "quantile", "replicas": replicas, "seed": seed}
    found = empirical_flow.minimise(problem, dim=dim, **run)
    theory = empirical_flow.long_time(problem)
    assert len(theory.risk) == 1
    return (
        np.array([getattr(found, field) for field in MINIMA_FIELDS]),
        np.array([getattr(theory, field)[0] for field in MINIMA_FIELDS]),
    )


@pytest.mark.parametrize("name", MINIMA)
def test_empirical_flow_minima_follow_the_static_equations(name):
    """With GOE sensing corrections of the mean are of relative order 1/d: at most 2/d."""
    dim, replicas = 40, 16
    values, theory = minima(name, dim, "goe", replicas)
    allowed = standard_errors(len(theory), replicas) * stats.sem(values, axis=1)
    error = np.abs(values.mean(axis=1) - theory)
    assert (error <= allowed + 2 / dim * theory).all()


@pytest.mark.slow
@pytest.mark.parametrize("sensing", ["goe", "network"])
@pytest.mark.parametrize("name", MINIMA)
def test_empirical_flow_minima_approach_the_static_equations(name, sensing):
    """The means at three dimensions, extrapolated by a parabola in 1/d, are the theory."""
    dims, replicas = np.array([16, 32, 64]), np.array([200, 100, 40])
    means, errors = [], []
    for dim, count in zip(dims, replicas, strict=True):
        values, theory = minima(name, int(dim), sensing, int(count), seed=int(dim))
        means.append(values.mean(axis=1))
        errors.append(stats.sem(values, axis=1))
    weights = np.linalg.inv(np.stack([1 / dims**power for power in (0.0, 1.0, 2.0)], axis=1))[0]
    limit = weights @ means
    error = np.sqrt(weights**2 @ np.square(errors))
    assert (np.abs(limit - theory) <= standard_errors(len(theory), replicas.min()) * error).all()


# ---- random_features -----------------------------------------------------------------------------

FEATURES = {
    "erf": {"lr": 2.0},
    "noisy": {"lr": 1.0, "noise_var": 0.2, "init_var": 0.3},
    "relu": {"lr": 1.0, "activation": "relu"},
    "quad": {"lr": 0.3, "activation": "quad"},
    "sign": {"lr": 0.5, "activation": "sign"},
    "erf-relu": {"lr": 1.0, "teacher_activation": "relu"},
    "correlated": {
        "lr": 1.5,
        "teacher_weights": [0.8, -0.3],
        "teacher_overlap": [[1.0, 0.4], [0.4, 1.0]],
    },
}
TAU = [0.25, 0.5, 1.0, 2.0, 5.0, 10.0]


def features_problem(name, dim, width):
    return random_features.Problem(dim=dim, width=width, **FEATURES[name])


def features_correction(problem):
    return naive.feature_kurtosis(problem.activation, problem.width, problem.dim) - 1


@pytest.mark.parametrize("width", [60, 240])
@pytest.mark.parametrize("name", FEATURES)
def test_random_features_follow_the_curve(name, width):
    problem = features_problem(name, 120, width)
    sampled = random_features.simulate(problem, TAU, replicas=16, teachers=20)
    theory = random_features.curve(problem, TAU)
    correction = features_correction(problem) * theory.risk.max()
    assert disagreement(theory, sampled, finite_size=correction) <= 1


@pytest.mark.parametrize("name", ["erf", "noisy", "correlated", "erf-relu"])
def test_random_features_follow_the_proportional_limit(name):
    problem = features_problem(name, 200, 100)
    sampled = random_features.simulate(problem, TAU, replicas=10, teachers=20)
    theory = random_features.proportional(problem, TAU)
    correction = features_correction(problem) * theory.risk.max()
    assert disagreement(theory, sampled, finite_size=correction) <= 1


@pytest.mark.parametrize("name", FEATURES)
def test_random_features_follow_the_modes(name):
    """For one first layer and teacher, over many streams of inputs."""
    problem = features_problem(name, 40, 60)
    rng = np.random.default_rng(7)
    W, B = (rng.standard_normal((rows, 40)) for rows in (60, len(problem.v)))
    if problem.teacher_overlap is not None:
        B = np.linalg.cholesky(problem.T) @ np.linalg.qr(B.T)[0].T
    W, B = (math.sqrt(40) * x / np.linalg.norm(x, axis=1, keepdims=True) for x in (W, B))
    sampled = random_features.simulate(problem, TAU, W=W, B=B, replicas=100)
    theory = random_features.modes(problem, W, B, TAU, time="discrete")
    correction = features_correction(problem) * theory.risk.max()
    assert disagreement(theory, sampled, finite_size=correction) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["erf", "noisy", "relu"])
def test_random_features_follow_the_curve_at_large_size(name):
    problem = features_problem(name, 500, 800)
    sampled = random_features.simulate(problem, TAU[:-1], replicas=8, teachers=40)
    theory = random_features.curve(problem, TAU[:-1])
    correction = features_correction(problem) * theory.risk.max()
    assert disagreement(theory, sampled, finite_size=correction) <= 1


def test_random_features_with_annealing_follow_the_modes():
    problem = features_problem("noisy", 50, 40)
    rng = np.random.default_rng(8)
    W, B = rng.standard_normal((40, 50)), rng.standard_normal((1, 50))

    def schedule(tau):
        return 2.0 / (1.0 + tau / 2.0)

    sampled = random_features.simulate(problem, TAU, W=W, B=B, replicas=100, lr_schedule=schedule)
    theory = random_features.modes(problem, W, B, TAU, time="discrete", lr_schedule=schedule)
    correction = features_correction(problem) * theory.risk.max()
    assert disagreement(theory, sampled, finite_size=correction) <= 1


# ---- giant_step ----------------------------------------------------------------------------------

STEPS = {
    "tanh": {"alpha": 1.0, "ridge": 0.1, "lr": 3.0, "alpha0": 20.0, "target": "sin"},
    "sin": {"alpha": 2.0, "ridge": 0.05, "lr": 1.0, "alpha0": 20.0, "activation": "sin"},
    "relu": {"alpha": 0.7, "ridge": 0.1, "lr": 1.0, "alpha0": 20.0, "activation": "relu"},
    "noisy": {"alpha": 3.0, "ridge": 0.1, "lr": 2.0, "alpha0": 10.0, "noise_var": 0.2},
}
RANDOM = {
    "random-tanh": {"alpha": 1.5, "ridge": 0.1, "target": "sinlin", "noise_var": 0.1},
    "random-relu": {"alpha": 0.6, "ridge": 0.05, "activation": "relu", "target": "quad1"},
}
SPIKED = {
    "one": ({"strength": [2.0], "variance": [1.3], "alignment": 0.8}, [1.0]),
    "two": ({"strength": [1.5, -0.7], "variance": [1.2, 0.9], "alignment": 0.85}, [0.5, 0.5]),
}


def step_problem(**settings):
    return giant_step.Problem(**{"beta": 1.0, "lr": 0.0, "alpha0": 0.0, **settings})


def step_disagreement(differences, theory, dim):
    """Largest mean over replicas of risk and training error minus theory, as `disagreement`."""
    replicas = len(differences)
    error = differences.std(axis=0, ddof=1) / math.sqrt(replicas)
    allowed = standard_errors(2, replicas) * error + 2 / dim * np.abs(theory).max(axis=0)
    return float(np.max(np.abs(differences.mean(axis=0)) / allowed))


def paired_steps(problem, sampled, **numerics):
    """Sampled minus theory at each replica's spike, in two columns, and the theory."""
    variance = giant_step.spike(problem).variance
    pairs = zip(sampled.strength, np.atleast_1d(sampled.alignment), strict=True)
    points = [
        giant_step.solve(
            problem,
            spike=giant_step.Spike(strength=r, variance=variance, alignment=gamma),
            width=sampled.stats["width"],
            **numerics,
        )
        for r, gamma in pairs
    ]
    theory = np.array([(point.risk, point.train_risk) for point in points])
    return np.array([sampled.risk, sampled.train_risk]).T - theory, theory


@pytest.mark.parametrize("name", SPIKED)
@pytest.mark.parametrize("activation", ["tanh", "erf", "relu", "softplus"])
def test_giant_step_of_spiked_features_follows_the_theory(name, activation):
    spike, fractions = SPIKED[name]
    problem = step_problem(
        alpha=2.0,
        ridge=0.1,
        activation=activation,
        target="sinlin",
        noise_var=0.1,
        readout_values=[1.0] * len(fractions),
        readout_fractions=fractions,
    )
    run = {"model": "spiked", "spike": giant_step.Spike(**spike), "test_samples": 2000}
    sampled = giant_step.simulate(problem, dim=300, replicas=12, **run)
    theory = giant_step.solve(problem, spike=run["spike"], width=300)
    values = np.array([theory.risk, theory.train_risk])
    differences = np.array([sampled.risk, sampled.train_risk]).T - values
    assert step_disagreement(differences, values[None], 300) <= 1


@pytest.mark.parametrize("name", RANDOM)
def test_giant_step_of_random_features_follows_the_theory(name):
    problem = step_problem(**RANDOM[name])
    sampled = giant_step.simulate(problem, dim=300, replicas=12, test_samples=2000)
    differences, theory = paired_steps(problem, sampled)
    assert step_disagreement(differences, theory, 300) <= 1


@pytest.mark.parametrize("name", STEPS)
def test_giant_step_follows_the_theory_for_its_weights(name):
    """The plain version of the training, and matrix mode for the layer that it made."""
    problem, dim, differences, theories = step_problem(**STEPS[name]), 160, [], []
    rng = np.random.default_rng(3)
    width, samples = round(problem.beta * dim), round(problem.alpha * dim)
    target = naive.STEP_ACTIVATIONS[problem.target][0]
    for _ in range(12):
        W = rng.standard_normal((width, dim))
        W /= np.linalg.norm(W, axis=1, keepdims=True)
        data = []
        for count in (round(problem.alpha0 * dim), samples, 2000):
            X = rng.standard_normal((count, dim))
            data.append((X, target(X[:, 0])))
        noise = math.sqrt(problem.noise_var) * rng.standard_normal(samples)
        (X, y) = data[0]
        y = y + math.sqrt(problem.noise_var) * rng.standard_normal(len(y))
        W, g = naive.step_first_layer(W, X, y, problem.lr, np.ones(width), problem.activation)
        a, train = naive.step_ridge(
            W, data[1][0], data[1][1] + noise, problem.ridge, problem.activation
        )
        output = naive.step_output(W, a, data[2][0], problem.activation)
        point = giant_step.from_weights(problem, W, g, np.eye(dim)[0])
        theories.append((point.risk, point.train_risk))
        sampled = np.mean((output - data[2][1]) ** 2), train
        differences.append(np.subtract(sampled, theories[-1]))
    assert step_disagreement(np.array(differences), np.array(theories), dim) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("name", STEPS)
def test_giant_step_in_large_dimension_follows_the_theory(name):
    """Paired with the measured spike, isotropic: up to 4 % for what the bulk and its norms do."""
    problem = step_problem(**STEPS[name])
    sampled = giant_step.simulate(problem, dim=1000, replicas=6)
    differences, theory = paired_steps(problem, sampled)
    error = differences.std(axis=0, ddof=1) / math.sqrt(6)
    allowed = standard_errors(2, 6) * error + 0.04 * theory.mean(axis=0)
    assert (np.abs(differences.mean(axis=0)) <= allowed).all()


def test_every_room_is_compared():
    for room in cases.ROOMS:
        assert any(name.startswith(f"test_{room}_") for name in globals()), room


def test_the_measure_of_disagreement():
    """It rejects a theory that is wrong by a few standard errors."""
    problem, start = large_problem("batch", 2000)
    sampled = sgd.simulate(problem, start, T, replicas=64)
    wrong = sgd.ode(problem.replace(lr=0.45), start, T)
    assert disagreement(wrong, sampled) > 2
    assert_allclose(standard_errors(1, 10**6), 4, rtol=1e-4)
