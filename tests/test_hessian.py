"""Hessian spectra: exact and sampled Hessians against dense matrices, and Lanczos against both."""

import dataclasses
import functools
import json
import pathlib
import pickle

import naive
import numpy as np
import overparam as op
import pytest
from cases import standard_errors
from numpy.testing import assert_allclose, assert_array_equal
from overparam import hessian, results
from overparam.sgd import Overlaps, Problem
from scipy.sparse import diags_array
from scipy.sparse.linalg import LinearOperator, eigsh
from scipy.stats import kstest
from scipy.stats import t as student

REFERENCE = json.loads((pathlib.Path(__file__).parent / "reference" / "sgd.json").read_text())


def rng(seed=0):
    return np.random.default_rng(seed)


def problem_of(p, p_star, **options):
    return Problem(width=p, teacher_width=p_star, lr=0.1, **options)


def expanded(spectrum):
    """The eigenvalues, each as often as it occurs."""
    return np.repeat(spectrum.eigenvalues, spectrum.multiplicities)


def assert_spectrum(spectrum, expected, atol=1e-9):
    """Distinct values with exact multiplicities; expected are pairs, in any order."""
    values, counts = [], []
    for value, count in sorted(expected):
        if values and value - values[-1] < atol:
            counts[-1] += count
        elif count:
            values.append(value)
            counts.append(count)
    assert_allclose(spectrum.eigenvalues, values, atol=atol)
    assert spectrum.multiplicities.tolist() == counts
    assert spectrum.size == sum(counts)


def both_layers(problem):
    return problem.a, problem.a_star, problem.b


# ---- the population ------------------------------------------------------------------------------

# Widths, dimension and options of networks, in every regime.
NETWORKS = {
    "p < p*": (2, 3, 7, {}),
    "p = p*": (2, 2, 6, {}),
    "p > p*": (4, 1, 6, {}),
    "one": (1, 1, 3, {}),
    "signed": (3, 2, 7, {"second_layer": [0.5, -0.8, 0.3], "teacher_second_layer": [-0.4, 1.0]}),
    "offset": (2, 2, 6, {"offset": -0.7}),
    "centred": (3, 1, 6, {"centred": True, "second_layer": 0.9}),
    "some units without output": (3, 1, 6, {"second_layer": [0.5, 0.0, 0.3]}),
    "N = rank": (3, 2, 5, {}),
    "N < p + p*": (3, 3, 2, {"second_layer": [0.5, -0.8, 0.3]}),
    "one dimension": (2, 1, 1, {}),
}
over_networks = pytest.mark.parametrize("name", NETWORKS)


def network(name, seed=0, **changes):
    """Problem, W and W_star."""
    p, p_star, dim, options = NETWORKS[name]
    random = rng([seed, p, p_star, dim])
    problem = problem_of(p, p_star, dim=dim, **{**options, **changes})
    return problem, random.standard_normal((p, dim)), random.standard_normal((p_star, dim))


@over_networks
@pytest.mark.parametrize("seed", range(4))
def test_population_agrees_with_the_dense_hessian(name, seed):
    problem, W, W_star = network(name, seed)
    dense = naive.population_hessian(W, W_star, *both_layers(problem))
    spectrum = hessian.population(problem, Overlaps.from_weights(W, W_star))
    expected = np.linalg.eigvalsh(dense)
    assert_allclose(expanded(spectrum), expected, atol=3e-11 * abs(expected).max())
    assert spectrum.size == len(dense)
    assert spectrum.problem == problem
    assert spectrum.method == "exact"
    assert spectrum.status is results.Status.SUCCESS


@pytest.mark.parametrize(
    "degenerate",
    {
        "equal units": lambda W, W_star: (W[[0, 0, 2]], W_star),
        "opposite units": lambda W, W_star: (
            W * [[1], [1], [0]] - W[[2, 2, 0]] * [[0], [0], [1]],
            W_star,
        ),
        "a dead unit": lambda W, W_star: (W * [[1], [0], [1]], W_star),
        "dead": lambda W, W_star: (0 * W, W_star),
        "no signal": lambda W, W_star: (W, 0 * W_star),
        "nothing": lambda W, W_star: (0 * W, 0 * W_star),
        "student in the teacher's span": lambda _, W_star: (
            np.array([[1.0, 2.0], [0.3, -1.0], [0.7, 0.1]]) @ W_star,
            W_star,
        ),
        "solution": lambda _, W_star: (
            np.sqrt(3 / 2) * np.linalg.qr(rng().standard_normal((3, 2)))[0] @ W_star,
            W_star,
        ),
    }.items(),
    ids=lambda item: item[0],
)
def test_population_of_weights_that_depend_on_each_other(degenerate):
    W, W_star = degenerate[1](rng(1).standard_normal((3, 8)), rng(2).standard_normal((2, 8)))
    problem = problem_of(3, 2, dim=8)
    dense = naive.population_hessian(W, W_star, *both_layers(problem))
    expected = np.linalg.eigvalsh(dense)
    spectrum = hessian.population(problem, Overlaps.from_weights(W, W_star))
    size = max(abs(expected).max(), 1e-300)
    assert_allclose(expanded(spectrum), expected, atol=1e-10 * size)


def test_the_dense_hessian_is_the_derivative_of_the_gradient():
    for name in NETWORKS:
        problem, W, W_star = network(name)
        layers = both_layers(problem)
        dense = naive.population_hessian(W, W_star, *layers)
        slope = naive.numerical_hessian(
            lambda V, W_star=W_star, layers=layers: naive.population_gradient(V, W_star, *layers), W
        )
        assert_allclose(dense, slope, atol=1e-12 * abs(dense).max())
    gradient = naive.population_gradient(W, W_star, *layers)
    for k, i in ((0, 0), (1, 0)):
        step = 1e-5 * (np.arange(2)[:, None] == k)
        ends = [
            naive.sgd_risk(*naive.overlaps_from_weights(V, W_star), *layers)
            for V in (W + step, W - step)
        ]
        assert_allclose((ends[0] - ends[1]) / 2e-5, gradient[k, i], rtol=1e-7)


@pytest.mark.parametrize(
    ("p", "p_star", "dim", "options"),
    [
        (1, 1, 4, {}),
        (2, 1, 4, {}),
        (2, 2, 4, {"offset": 0.3}),
        (3, 1, 3, {"second_layer": [0.6, -0.5, 0.2]}),
        (2, 2, 3, {"centred": True}),
    ],
)
def test_spherical_population_is_the_second_derivative_along_geodesics(p, p_star, dim, options):
    problem = problem_of(p, p_star, dim=dim, spherical=True, **options)
    W, W_star = rng(p).standard_normal((p, dim)), rng(5).standard_normal((p_star, dim))
    dense = naive.spherical_hessian(W, W_star, *both_layers(problem))
    expected = np.linalg.eigvalsh(dense)
    spectrum = hessian.population(problem, Overlaps.from_weights(W, W_star))
    assert_allclose(expanded(spectrum), expected, atol=1e-6 * abs(expected).max())
    assert dict(zip(spectrum.eigenvalues, spectrum.multiplicities, strict=True))[0.0] >= p


def test_spherical_population_in_many_dimensions():
    problem = problem_of(3, 2, spherical=True, second_layer=[0.5, -0.8, 0.3])
    overlaps = Overlaps.random(problem.replace(dim=40), scale=0.9, seed=2)
    small = hessian.population(problem.replace(dim=9), overlaps)
    large = hessian.population(problem.replace(dim=10**12), overlaps)
    assert_array_equal(small.eigenvalues, large.eigenvalues)
    grown = large.multiplicities - small.multiplicities
    assert sorted(grown[grown > 0].tolist()) == [10**12 - 9] * 3
    assert large.size == 3 * 10**12


@pytest.mark.parametrize("case", REFERENCE["hessian"]["cases"], ids=lambda case: case["kind"])
def test_population_reference(case):
    state, atol = case["input"], REFERENCE["hessian"]["tol_abs"]
    problem = problem_of(len(state["Q"]), len(state["P"]), dim=state["N"])
    overlaps = Overlaps(Q=state["Q"], M=state["M"], P=state["P"])
    spectrum = hessian.population(problem, overlaps)
    expected = np.sort(np.r_[np.repeat(case["bulk"], case["bulk_multiplicity"]), case["spikes"]])
    assert_allclose(expanded(spectrum), expected, atol=atol)
    assert spectrum.size == case["n_total"]
    assert spectrum.count_below(-atol) == case["n_negative"]
    assert spectrum.count_below(atol) - spectrum.count_below(-atol) == case["n_zero"]


def teacher_of(p_star, dim, seed=0):
    """W_star and the eigenvalues sigma of its matrix S*, for a* = 1/p*."""
    W_star = rng(seed).standard_normal((p_star, dim))
    return W_star, np.linalg.eigvalsh(W_star @ W_star.T) / (p_star * dim)


@pytest.mark.parametrize("dim", [12, 10**6, 10**12])
@pytest.mark.parametrize(("p", "p_star"), [(1, 1), (1, 3), (3, 2), (2, 2), (5, 3)])
def test_the_table_of_the_plateau(p, p_star, dim):
    W_star, sigma = teacher_of(p_star, 30)
    a, s = 1 / p, sigma.sum() / (p + 2)
    state = Overlaps(Q=s / a * np.eye(p), M=np.zeros((p, p_star)), P=W_star @ W_star.T / 30)
    spectrum = hessian.population(problem_of(p, p_star, dim=dim), state)
    expected = [(-4 * a * x, p) for x in sigma]
    expected += [(0.0, p * (dim - p - p_star)), (0.0, p * (p - 1) // 2)]
    expected += [(8 * a * s, p * (p + 1) // 2 - 1), (4 * a * s * (p + 2), 1)]
    assert_spectrum(spectrum, expected)
    assert spectrum.size == p * dim
    assert spectrum.count_below(-1e-9) == p * p_star


@pytest.mark.parametrize("dim", [12, 10**6, 10**12])
@pytest.mark.parametrize(("p", "p_star"), [(1, 1), (3, 2), (2, 2), (5, 3)])
def test_the_table_of_the_solutions(p, p_star, dim):
    W_star, sigma = teacher_of(p_star, 30)
    turn = np.linalg.qr(rng(3).standard_normal((p, p_star)))[0]
    a = 1 / p
    state = Overlaps.from_weights(turn @ W_star * np.sqrt(p / p_star), W_star)
    spectrum = hessian.population(problem_of(p, p_star, dim=dim), state)
    root = np.sqrt(sigma)
    expected = [(4 * a * x, dim - p_star) for x in sigma]
    expected += [
        (4 * a * (sigma[i] + sigma[j]), 1) for i in range(p_star) for j in range(i + 1, p_star)
    ]
    collective = np.linalg.eigvalsh(4 * a * (2 * np.diag(sigma) + np.outer(root, root)))
    expected += [(x, 1) for x in collective]
    expected += [(0.0, p_star * (p_star - 1) // 2 + (p - p_star) * dim)]
    assert_spectrum(spectrum, expected)
    # More zero modes than the manifold of solutions has dimensions: quartic directions.
    zeros = spectrum.count_below(1e-9)
    assert spectrum.count_below(-1e-9) == 0
    manifold = p * p_star - p_star * (p_star + 1) // 2
    assert zeros - manifold == (p - p_star) * (dim - p_star)


@over_networks
def test_the_trace_of_the_population(name):
    problem, W, W_star = network(name)
    spectrum = hessian.population(problem, Overlaps.from_weights(W, W_star))
    a, dim = problem.a, problem.dim
    q = np.sum(W**2, axis=1) / dim
    tau = problem.a_star @ np.sum(W_star**2, axis=1) / dim - a @ q + problem.b
    trace = -2 * dim * tau * a.sum() - 4 * (tau - problem.b) * a.sum() + 4 * (dim + 2) * a**2 @ q
    size = abs(spectrum.eigenvalues).max() * spectrum.size
    assert_allclose(spectrum.moments(1) * spectrum.size, trace, atol=1e-13 * size)


@pytest.mark.parametrize("dim", [5, 6, 100, 10**6, 10**12])
def test_multiplicities_add_up(dim):
    problem = problem_of(3, 2, dim=dim, second_layer=[0.5, -0.8, 0.3])
    spectrum = hessian.population(problem, Overlaps.random(problem.replace(dim=50), seed=4))
    assert spectrum.multiplicities.dtype == np.int64
    assert spectrum.size == spectrum.multiplicities.sum() == 3 * dim
    assert spectrum.count_below(np.inf) == 3 * dim


def test_the_spectrum_does_not_depend_on_conventions():
    """(W, a, teacher) -> (c W, a/c^2): the Hessian with respect to W becomes c^-2 times itself."""
    problem, W, W_star = network("signed")
    plain = hessian.population(problem, Overlaps.from_weights(W, W_star))
    scaled = problem.replace(second_layer=problem.a / 4)
    other = hessian.population(scaled, Overlaps.from_weights(2 * W, W_star))
    assert_allclose(4 * other.eigenvalues, plain.eigenvalues, atol=1e-11)
    turn = np.linalg.qr(rng(3).standard_normal((7, 7)))[0]
    turned = hessian.population(problem, Overlaps.from_weights(W @ turn, W_star @ turn))
    assert_allclose(turned.eigenvalues, plain.eigenvalues, atol=1e-11)


def test_label_noise_does_not_enter_the_population():
    problem, W, W_star = network("p > p*")
    state = Overlaps.from_weights(W, W_star)
    noisy = hessian.population(problem.replace(noise_var=0.5), state)
    assert_array_equal(noisy.eigenvalues, hessian.population(problem, state).eigenvalues)


def test_population_refuses():
    problem = problem_of(3, 2, dim=10)
    state = Overlaps.random(problem, seed=0)
    for function in (hessian.population, lambda *args: hessian.bulk(*args, 2.0, [0.0])):
        with pytest.raises(TypeError, match=r"^problem must be an overparam.sgd.Problem"):
            function("plateau", state)
        flow = op.population_flow.Problem(teacher_eigenvalues=[1.0], dim=3, width=2)
        with pytest.raises(TypeError, match=r"^problem must be an overparam.sgd.Problem"):
            function(flow, state)
        with pytest.raises(ValueError, match=r"^activation must be 'quadratic'"):
            function(problem.replace(activation="erf"), state)
        with pytest.raises(TypeError, match=r"^overlaps must be an overparam.sgd.Overlaps"):
            function(problem, state.Q)
        with pytest.raises(ValueError, match=r"^overlaps must have M of shape \(3, 2\)"):
            function(problem, Overlaps(Q=np.eye(2), M=np.zeros((2, 2)), P=np.eye(2)))
    with pytest.raises(ValueError, match=r"^dim must be set in the problem"):
        hessian.population(problem.replace(dim=None), state)
    with pytest.raises(ValueError, match=r"^dim must be at least the rank 5 of overlaps"):
        hessian.population(problem.replace(dim=4), state)
    with pytest.raises(ValueError, match=r"^overlaps must be of units with positive norms"):
        hessian.population(
            problem.replace(spherical=True),
            Overlaps(Q=np.diag([1, 0, 1]), M=0 * state.M, P=state.P),
        )


def test_population_of_a_wide_network_does_not_fit():
    problem = problem_of(900, 1, dim=10**6)
    state = Overlaps(Q=np.eye(900), M=np.zeros((900, 1)), P=np.eye(1))
    with pytest.raises(MemoryError, match=r"span of all weights .* reduce width"):
        hessian.population(problem, state)


# ---- the population as an operator ---------------------------------------------------------------


@over_networks
def test_population_operator_is_the_dense_hessian(name):
    problem, W, W_star = network(name)
    operator = hessian.population_operator(problem, W, W_star)
    dense = naive.population_hessian(W, W_star, *both_layers(problem))
    assert operator.shape == dense.shape
    assert operator.dtype == np.float64
    size = abs(dense).max()
    assert_allclose(operator @ np.eye(len(dense)), dense, atol=1e-13 * size)
    exact = hessian.population(problem, Overlaps.from_weights(W, W_star))
    eigenvalues = np.linalg.eigvalsh(operator @ np.eye(len(dense)))
    assert_allclose(eigenvalues, expanded(exact), atol=3e-11 * size)
    for x in dense[:2]:
        assert_allclose(operator @ x, dense @ x, atol=1e-12 * size**2)
        assert_allclose(operator.rmatvec(x), dense @ x, atol=1e-12 * size**2)
    assert_allclose(operator.T @ dense, dense @ dense, atol=1e-12 * size**2)


def test_population_operator_of_a_wide_network():
    """The extremes of the plateau by Lanczos are those of its table."""
    p, dim = 60, 90
    W_star, sigma = teacher_of(2, dim)
    s = sigma.sum() / (p + 2)
    free = np.linalg.svd(W_star)[2][2 : 2 + p]
    W = np.sqrt(dim * s * p) * free
    operator = hessian.population_operator(problem_of(p, 2), W, W_star)
    pairs = hessian.extremes(operator, 3)
    assert_allclose(pairs.eigenvalues[:3], -4 / p * sigma[-1], atol=1e-9)
    assert_allclose(pairs.eigenvalues[-1], 4 / p * s * (p + 2), atol=1e-9)
    assert_allclose(pairs.eigenvalues[3:5], 8 / p * s, atol=1e-9)


def test_population_operator_refuses():
    problem, W, W_star = network("signed")
    call = hessian.population_operator
    with pytest.raises(ValueError, match=r"^spherical must be False"):
        call(problem.replace(spherical=True), W, W_star)
    with pytest.raises(ValueError, match=r"^W must be"):
        call(problem, W[:2], W_star)
    with pytest.raises(ValueError, match=r"^W must be of at least one column"):
        call(problem, W[:, :0], W_star[:, :0])
    with pytest.raises(ValueError, match=r"^W_star must be"):
        call(problem, W, W_star[:, :-1])
    with pytest.raises(ValueError, match=r"^W must be"):
        call(problem, W * np.nan, W_star)
    with pytest.raises(ValueError, match=r"^activation must be"):
        call(problem.replace(activation="relu"), W, W_star)
    with pytest.raises(TypeError, match=r"^problem must be"):
        call(None, W, W_star)


# ---- samples -------------------------------------------------------------------------------------


def sampled(name, n, seed=0, **changes):
    """Problem, W, X and labels with noise."""
    problem, W, W_star = network(name, seed, **changes)
    random = rng([seed, n])
    X = random.standard_normal((n, problem.dim))
    y = (X @ W_star.T) ** 2 @ problem.a_star / problem.dim + 0.3 * random.standard_normal(n)
    return problem, W, X, y


def matrix_form(operator):
    return operator @ np.eye(operator.shape[0])


@over_networks
@pytest.mark.parametrize("n", [1, 2, 13])
def test_empirical_is_the_dense_hessian(name, n):
    problem, W, X, y = sampled(name, n)
    operator = hessian.empirical(problem, W, X, y)
    dense = naive.empirical_hessian(W, X, y, problem.a, problem.b)
    size = abs(dense).max()
    found = matrix_form(operator)
    assert operator.shape == dense.shape
    assert operator.dtype == np.float64
    assert_allclose(found, dense, atol=1e-13 * size)
    assert_allclose(found, found.T, atol=1e-14 * size)
    slope = naive.numerical_hessian(
        lambda V: naive.empirical_loss_gradient(V, X, y, problem.a, problem.b), W
    )
    assert_allclose(dense, slope, atol=1e-12 * size)


@pytest.mark.parametrize("n", [255, 256, 257, 511, 512, 513, 4097])
def test_empirical_around_every_tile_boundary(n):
    problem, W, X, y = sampled("signed", n)
    fields = X @ W.T / np.sqrt(problem.dim)
    slopes = np.einsum("ik,ij->ikj", 2 * fields * problem.a, X).reshape(n, -1)
    error = y + problem.b - fields**2 @ problem.a
    dense = slopes.T @ slopes - np.kron(2 * np.diag(problem.a), X.T * error @ X)
    found = matrix_form(hessian.empirical(problem, W, X, y))
    assert_allclose(found, dense / n, atol=1e-13 * abs(dense).max() / n)


def test_empirical_blocks_are_single_columns():
    problem, W, X, y = sampled("signed", 600)
    operator = hessian.empirical(problem, W, X, y)
    V = rng(9).standard_normal((21, 5))
    block = operator @ V
    assert block.shape == (21, 5)
    size = abs(block).max()
    for v, h in zip(V.T, block.T, strict=True):
        assert_allclose(operator @ v, h, atol=1e-14 * size)
        assert_allclose((operator @ v[:, None])[:, 0], h, atol=1e-14 * size)
        assert_allclose(operator.rmatvec(v), h, atol=1e-14 * size)
    assert_allclose(operator @ np.asfortranarray(V), block, atol=1e-14 * size)
    assert_allclose(operator @ (2 * V[:, :1] - V[:, 1:2]), 2 * block[:, :1] - block[:, 1:2])
    assert_array_equal(operator @ np.zeros((21, 2)), np.zeros((21, 2)))
    assert (operator @ np.empty((21, 0))).shape == (21, 0)
    integers = np.arange(21)
    assert_array_equal(operator @ integers, operator @ integers.astype(float))


def test_labels_enter_with_the_offset_and_linearly():
    problem, W, X, y = sampled("offset", 40)
    found = matrix_form(hessian.empirical(problem, W, X, y))
    shifted = problem.replace(offset=problem.b - 1.5)
    assert_allclose(matrix_form(hessian.empirical(shifted, W, X, y + 1.5)), found, atol=1e-12)
    noise = rng(4).standard_normal(40)
    change = matrix_form(hessian.empirical(problem, W, X, y + noise)) - found
    expected = -2 / 40 * np.kron(np.diag(problem.a), X.T * noise @ X)
    assert_allclose(change, expected, atol=1e-12)


def test_inputs_are_copied():
    problem, W, X, y = sampled("signed", 50)
    operator = hessian.empirical(problem, W, X, y)
    before = matrix_form(operator)
    for array in (W, X, y):
        array[:] = 7.0
    assert_array_equal(matrix_form(operator), before)


@pytest.mark.parametrize("drawn", [False, True])
def test_no_bit_of_a_product_depends_on_threads(drawn):
    problem, W, X, y = sampled("signed", 6000)
    if drawn:
        X, y = hessian.Samples(count=6000, W_star=np.ones((2, 7)), seed=3), None
    V = rng().standard_normal((21, 3))
    one = hessian.empirical(problem, W, X, y, threads=1)
    for threads in (2, 3, 7):
        assert_array_equal(hessian.empirical(problem, W, X, y, threads=threads) @ V, one @ V)
        assert_array_equal(one.with_threads(threads) @ V, one @ V)
    spectrum, other = (hessian.density(one, threads=k, probes=2, steps=8) for k in (1, 3))
    assert_array_equal(spectrum.nodes, other.nodes)
    assert other.stats["threads"] == 3


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("n", [1, 300])
def test_samples_are_those_in_memory(name, n):
    problem, W, W_star = network(name)
    samples = hessian.Samples(count=n, W_star=W_star, seed=5)
    X = samples.inputs(0, n)
    y = (X @ W_star.T) ** 2 @ problem.a_star / problem.dim
    drawn = matrix_form(hessian.empirical(problem, W, samples))
    given = matrix_form(hessian.empirical(problem, W, X, y))
    assert_allclose(drawn, given, atol=1e-13 * abs(given).max())


def test_samples_are_normal_and_functions_of_seed_and_number():
    W_star = np.ones((1, 50))
    samples = hessian.Samples(count=400, W_star=W_star, seed=5)
    X = samples.inputs(0, 400)
    assert X.shape == (400, 50)
    assert kstest(X.ravel(), "norm").pvalue > 1e-4
    assert abs(np.corrcoef(X.T) - np.eye(50)).max() < 6 / np.sqrt(400)
    assert_array_equal(samples.inputs(100, 7), X[100:107])
    more = hessian.Samples(count=401, W_star=W_star, seed=np.random.SeedSequence(5))
    assert_array_equal(more.inputs(0, 400), X)
    assert np.all(hessian.Samples(count=400, W_star=W_star, seed=6).inputs(0, 400) != X)
    first, second = (hessian.Samples(count=2, W_star=W_star, seed=None) for _ in "ab")
    assert np.all(first.inputs(0, 2) != second.inputs(0, 2))


def test_labels_of_samples_are_noisy():
    """The labels' noise, recovered from the Hessian: it enters with one x x^T for each sample."""
    problem = problem_of(1, 1, noise_var=0.36)
    n, dim = 300, 30
    W = rng().standard_normal((1, dim))
    samples = hessian.Samples(count=n, W_star=np.ones((1, dim)), seed=5)
    X = samples.inputs(0, n)
    quiet = matrix_form(hessian.empirical(problem.replace(noise_var=0.0), W, samples))
    change = matrix_form(hessian.empirical(problem, W, samples)) - quiet
    designs = np.einsum("ij,ik->ijk", X, X).reshape(n, -1)
    noise, residual, rank, _ = np.linalg.lstsq(-2 / n * designs.T, change.ravel())
    assert rank == n
    assert residual < 1e-20
    assert kstest(noise, "norm", args=(0.0, 0.6)).pvalue > 1e-4
    assert abs(np.corrcoef(noise, X[:, 0])[0, 1]) < 4 / np.sqrt(n)
    stronger = matrix_form(hessian.empirical(problem.replace(noise_var=1.44), W, samples)) - quiet
    assert_allclose(stronger, 2 * change, atol=1e-12)


def test_the_mean_of_empirical_hessians_is_the_population():
    problem, W, W_star = network("signed")
    dense = naive.population_hessian(W, W_star, *both_layers(problem))
    draws = [
        matrix_form(
            hessian.empirical(
                problem.replace(noise_var=0.2),
                W,
                hessian.Samples(count=4000, W_star=W_star, seed=seed),
            )
        )
        for seed in range(24)
    ]
    error = abs(np.mean(draws, axis=0) - dense)
    sem = np.std(draws, axis=0, ddof=1) / np.sqrt(len(draws))
    assert np.all(error < standard_errors(dense.size, len(draws)) * sem)


def test_empirical_refuses():
    problem, W, X, y = sampled("signed", 20)
    call = hessian.empirical
    samples = hessian.Samples(count=20, W_star=np.ones((2, 7)), seed=0)
    for arguments, name in (
        ((W[:2], X, y), "W"),
        ((W * np.inf, X, y), "W"),
        ((W[:, :0], X[:, :0], y), "W"),
        ((W, X[:, :-1], y), "X"),
        ((W, np.where(X > 2, np.nan, X), y), "X"),
        ((W, X[:0], y[:0]), "X"),
        ((W, X, y[:-1]), "y"),
        ((W, X, y[:, None]), "y"),
        ((W, X, y * np.nan), "y"),
        ((W, samples, y), "y"),
        ((W, hessian.Samples(count=2, W_star=np.ones((3, 7))), None), "W_star"),
        ((W, hessian.Samples(count=2, W_star=np.ones((2, 6))), None), "W_star"),
    ):
        with pytest.raises(ValueError, match=f"^{name} must be"):
            call(problem, *arguments)
    with pytest.raises((TypeError, ValueError), match=r"^y must be"):
        call(problem, W, X)
    with pytest.raises(ValueError, match=r"^spherical must be False"):
        call(problem.replace(spherical=True), W, X, y)
    with pytest.raises(ValueError, match=r"^activation must be"):
        call(problem.replace(activation="erf"), W, X, y)
    with pytest.raises(ValueError, match=r"^threads must be"):
        call(problem, W, X, y, threads=0)
    with pytest.raises(TypeError, match=r"^problem must be"):
        call(3, W, X, y)
    operator = call(problem, W, X, y)
    for wrong in (np.ones(20), np.ones((20, 2))):
        with pytest.raises(ValueError, match="dimension mismatch"):
            operator @ wrong


def test_samples_refuse():
    W_star = np.ones((2, 3))
    for changes, error in (
        ({"count": 0}, ValueError),
        ({"count": 2.5}, TypeError),
        ({"W_star": np.ones(3)}, ValueError),
        ({"W_star": [[np.nan]]}, ValueError),
        ({"seed": -1}, ValueError),
        ({"seed": "x"}, TypeError),
    ):
        (name,) = changes
        with pytest.raises(error, match=f"^{name} must be"):
            hessian.Samples(**{"count": 2, "W_star": W_star, **changes})
    samples = hessian.Samples(count=2, W_star=W_star)
    W_star[:] = 5.0
    assert_array_equal(samples.W_star, np.ones((2, 3)))
    with pytest.raises(ValueError, match="read-only"):
        samples.W_star[0] = 1.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        samples.count = 3
    for arguments, name in (((-1, 1), "first"), ((0, -1), "count"), ((1, 2), "count")):
        with pytest.raises(ValueError, match=f"^{name} must be"):
            samples.inputs(*arguments)
    with pytest.raises(TypeError, match=r"^first must be"):
        samples.inputs(0.5, 1)
    assert samples.inputs(2, 0).shape == (0, 3)
    assert len({samples, hessian.Samples(count=2, W_star=W_star), samples}) == 2


def test_lanczos_on_an_empirical_hessian():
    """Density, counts and extremes of the operator, drawn and given, against its matrix."""
    problem, p, dim, n = problem_of(3, 2, noise_var=0.1), 3, 70, 400
    W, W_star = rng(1).standard_normal((p, dim)), rng(2).standard_normal((2, dim))
    samples = hessian.Samples(count=n, W_star=W_star, seed=3)
    X = samples.inputs(0, n)
    y = (X @ W_star.T) ** 2 @ problem.a_star / dim
    for operator in (
        hessian.empirical(problem, W, samples),
        hessian.empirical(problem, W, X, y),
        hessian.population_operator(problem, W, W_star),
    ):
        eigenvalues = np.linalg.eigvalsh(matrix_form(operator))
        spectrum = hessian.density(operator, probes=10, steps=60)
        assert spectrum.size == p * dim
        for k in range(1, 5):
            exact = np.mean(eigenvalues**k)
            assert abs(spectrum.moments(k) - exact) < 6 * spectrum.moments_sem(k)
        x = np.linspace(eigenvalues[0], eigenvalues[-1], 30)
        exact = lorentzian(x, eigenvalues, 0.2)
        error = abs(spectrum.density(x, 0.2) - exact)
        assert np.all(error < 6 * spectrum.density_sem(x, 0.2) + 1e-6)
        negative = np.sum(eigenvalues < 0)
        assert abs(spectrum.count_below(0.0) - negative) < 6 * spectrum.count_below_sem(0.0) + 2
        for which in ("both", "smallest", "largest"):
            pairs = hessian.extremes(operator, 3, which=which)
            assert pairs.converged.all()
            expected = expected_extremes(eigenvalues, 3, which)
            assert_allclose(pairs.eigenvalues, expected, atol=1e-8 * abs(eigenvalues).max())


# ---- the law of the bulk -------------------------------------------------------------------------

BULKS = {
    "plain": (2, 1, {}),
    "signed": (2, 1, {"second_layer": [0.6, -0.5], "offset": 0.4}),
    "narrow": (1, 2, {"second_layer": 0.8}),
    "noise": (1, 1, {"noise_var": 0.3}),
    "noise and units": (2, 1, {"noise_var": 0.3}),
    "quasi-random nodes": (3, 2, {}),
}
over_bulks = pytest.mark.parametrize("name", BULKS)
over_hermite_bulks = pytest.mark.parametrize("name", list(BULKS)[:-1])


def bulk_case(name):
    p, p_star, options = BULKS[name]
    problem = problem_of(p, p_star, **options)
    return problem, Overlaps.random(problem.replace(dim=12), scale=0.8, seed=3)


@pytest.mark.parametrize("case", REFERENCE["empirical_hessian_bulk"]["cases"])
def test_bulk_reference(case):
    state = case["input"]
    problem = problem_of(len(state["Q"]), len(state["P"]), noise_var=state["Delta"])
    overlaps = Overlaps(Q=state["Q"], M=state["M"], P=state["P"])
    found = hessian.bulk(problem, overlaps, state["alpha"], case["x"], width=state["imag"])
    assert_allclose(found, case["density"], rtol=REFERENCE["empirical_hessian_bulk"]["tol_rel"])


@over_hermite_bulks
@pytest.mark.parametrize("ratio", [0.5, 6.0])
def test_bulk_solves_the_matrix_equation(name, ratio, monkeypatch):
    """With the same nodes as the plain solution, a matrix for each."""
    problem, state = bulk_case(name)
    nodes = 8
    monkeypatch.setattr(hessian, "HERMITE_NODES", dict.fromkeys(range(1, 5), nodes))
    monkeypatch.setattr(hessian, "NEGLIGIBLE_WEIGHT", 0.0)
    x = np.array([-1.0, 0.2, 2.0])
    found = hessian.bulk(problem, state, ratio, x, width=0.1)
    for position, density in zip(x, found, strict=True):
        g = naive.bulk_resolvent(
            position + 0.1j,
            state.M,
            state.Q,
            state.P,
            problem.a,
            problem.a_star,
            ratio,
            b=problem.b,
            Delta=problem.noise_var,
            nodes=nodes,
        )
        assert_allclose(density, np.trace(g).imag / (np.pi * len(g)), rtol=1e-6)


@over_hermite_bulks
def test_bulk_is_converged_in_the_nodes(name, monkeypatch):
    problem, state = bulk_case(name)
    x = np.array([-1.5, 0.0, 0.4])
    for width, atol in ((0.0, 4e-4), (0.1, 1e-4)):
        found = hessian.bulk(problem, state, 4.0, x, width=width)
        with monkeypatch.context() as patch:
            more = {1: 240, 2: 224, 3: 100, 4: 34}
            patch.setattr(hessian, "HERMITE_NODES", more)
            finer = hessian.bulk(problem, state, 4.0, x, width=width)
        assert_allclose(found, finer, atol=atol)


def test_bulk_is_converged_in_the_quasi_random_nodes(monkeypatch):
    problem, state = bulk_case("plain")
    x = np.array([-1.0, 0.0, 0.4, 1.5])
    found = hessian.bulk(problem, state, 4.0, x, width=0.1)
    monkeypatch.setattr(hessian, "HERMITE_NODES", {})
    assert_allclose(hessian.bulk(problem, state, 4.0, x, width=0.1), found, atol=1e-3)


@pytest.mark.parametrize(("name", "ratio"), [("narrow", 0.7), ("narrow", 5.0), ("plain", 5.0)])
def test_bulk_integrates_to_one(name, ratio):
    """On x = 3 tan(angle), which reaches all of the tails; so does the Lorentzian."""
    problem, state = bulk_case(name)
    angle = (np.arange(60) + 0.5) / 60 * np.pi - np.pi / 2
    density = hessian.bulk(problem, state, ratio, 3 * np.tan(angle), width=1.0)
    assert np.all(density > 0)
    assert abs(np.mean(3 * density / np.cos(angle) ** 2) * np.pi - 1) < 1e-3


def test_bulk_without_broadening_integrates_to_one():
    problem, state = problem_of(1, 1), Overlaps(Q=[[0.8]], M=[[0.3]], P=[[1.0]])
    angle = (np.arange(400) + 0.5) / 400 * np.pi - np.pi / 2
    density = hessian.bulk(problem, state, 5.0, np.tan(angle))
    assert np.all(density >= 0)
    assert abs(np.mean(density / np.cos(angle) ** 2) * np.pi - 1) < 3e-3


@over_bulks
def test_bulk_of_many_samples_is_that_of_the_population(name):
    problem, state = bulk_case(name)
    spectrum = hessian.population(problem.replace(dim=10**9), state)
    x = np.linspace(-3, 3, 7)
    found = hessian.bulk(problem, state, 1e10, x, width=0.2)
    assert_allclose(found, spectrum.density(x, 0.2), rtol=1e-6)


@over_bulks
def test_bulk_is_that_of_empirical_hessians(name):
    """Of pN eigenvalues at most p (p + p*) are not of the bulk, and its own error is of order 1/N.

    The allowance for both, two times (p + p*)/N of the density, was fixed before any run.
    """
    problem, state = bulk_case(name)
    p, p_star = state.M.shape
    dim, ratio, width = 200 // p, 4, 0.15
    W, W_star = naive.weights_from_overlaps(state.M, state.Q, state.P, dim)
    x = np.array([-1.0, -0.4, 0.0, 0.3, 0.8, 2.0])
    draws = []
    for seed in range(12):
        samples = hessian.Samples(count=ratio * dim, W_star=W_star, seed=seed)
        eigenvalues = np.linalg.eigvalsh(matrix_form(hessian.empirical(problem, W, samples)))
        draws.append(lorentzian(x, eigenvalues, width))
    sem = np.std(draws, axis=0, ddof=1) / np.sqrt(len(draws))
    law = hessian.bulk(problem, state, ratio, x, width=width)
    allowed = standard_errors(len(x), len(draws)) * sem + 2 * (p + p_star) / dim * law
    assert np.all(abs(np.mean(draws, axis=0) - law) < allowed)


def test_fewer_samples_than_dimensions_leave_a_kernel():
    """Of rank p for each sample: an atom of mass 1 - n/N at zero."""
    for name in ("plain", "signed", "narrow"):
        problem, state = bulk_case(name)
        for ratio in (0.2, 0.7):
            peak = hessian.bulk(problem, state, ratio, [0.0], width=1e-5)
            assert_allclose(np.pi * 1e-5 * peak, 1 - ratio, atol=1e-3)


def test_bulk_is_the_solution_with_positive_imaginary_part(monkeypatch):
    """A case in which acceleration alone would end in the other half-plane."""
    monkeypatch.setattr(hessian, "HERMITE_NODES", {2: 8})
    problem = problem_of(1, 1)
    state = Overlaps.random(problem.replace(dim=12), scale=0.8, seed=218)
    (found,) = hessian.bulk(problem, state, 0.3, [0.5])
    M, Q, P = state.M, state.Q, state.P
    g = naive.bulk_resolvent(0.5 + 1e-6j, M, Q, P, problem.a, problem.a_star, 0.3, nodes=8)
    assert_allclose(found, g[0, 0].imag / np.pi, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("case", REFERENCE["empirical_hessian_bulk"]["cases"])
def test_bulk_reference_is_that_of_empirical_hessians(case):
    state, width = case["input"], case["input"]["imag"]
    Q, M, P = (np.array(state[name]) for name in "QMP")
    p, p_star = M.shape
    problem, dim, ratio = problem_of(p, p_star), 250, int(state["alpha"])
    W, W_star = naive.weights_from_overlaps(M, Q, P, dim)
    draws = []
    for seed in range(100):
        samples = hessian.Samples(count=ratio * dim, W_star=W_star, seed=seed)
        eigenvalues = np.linalg.eigvalsh(matrix_form(hessian.empirical(problem, W, samples)))
        draws.append(lorentzian(case["x"], eigenvalues, width))
    sem = np.std(draws, axis=0, ddof=1) / np.sqrt(len(draws))
    law = np.array(case["density"])
    allowed = standard_errors(len(law), len(draws)) * sem + 2 * (p + p_star) / dim * law
    assert np.all(abs(np.mean(draws, axis=0) - law) < allowed)


def test_the_plain_bulk_reference():
    case = REFERENCE["empirical_hessian_bulk"]["cases"][0]
    state = case["input"]
    Q, M, P = (np.array(state[name]) for name in "QMP")
    for x, density in zip(case["x"], case["density"], strict=True):
        z = x + 1j * state["imag"]
        g = naive.bulk_resolvent(z, M, Q, P, np.ones(1), np.ones(1), state["alpha"], nodes=96)
        assert_allclose(g[0, 0].imag / np.pi, density, rtol=2e-4)


def test_bulk_without_solution_is_an_error(monkeypatch):
    monkeypatch.setattr(hessian, "DYSON_ITERATIONS", 2)
    problem, state = bulk_case("narrow")
    with pytest.raises(results.ConvergenceError) as error:
        hessian.bulk(problem, state, 2.0, [1.0, -1.0])
    result = error.value.result
    assert result.status is results.Status.NOT_CONVERGED
    assert_array_equal(result.grid, [-1.0, 1.0])
    assert np.isnan(result.values).all()


def test_bulk_refuses():
    problem, state = bulk_case("plain")
    for arguments, name in (
        ((0.0, [0.0]), "samples_per_dim"),
        ((-1.0, [0.0]), "samples_per_dim"),
        ((np.inf, [0.0]), "samples_per_dim"),
        ((1.0, [np.nan]), "x"),
        ((1.0, 0.5), "x"),
        ((1.0, [[0.5]]), "x"),
    ):
        with pytest.raises((ValueError, TypeError), match=f"^{name} must be"):
            hessian.bulk(problem, state, *arguments)
    with pytest.raises(ValueError, match=r"^width must be"):
        hessian.bulk(problem, state, 1.0, [0.0], width=-0.1)
    with pytest.raises(ValueError, match=r"^spherical must be False"):
        hessian.bulk(problem.replace(spherical=True), state, 1.0, [0.0])


# ---- Lanczos: spectra with known eigenvalues -----------------------------------------------------


METHODS = ("slq", "kpm")
over_methods = pytest.mark.parametrize("method", METHODS)


@functools.cache
def basis_of(n, seed):
    return np.linalg.qr(rng(seed).standard_normal((n, n)))[0]


def matrix_of(eigenvalues, seed=0):
    """A dense symmetric matrix with these eigenvalues."""
    Q = basis_of(len(eigenvalues), seed)
    A = (Q * eigenvalues) @ Q.T
    return (A + A.T) / 2


def lorentzian(x, eigenvalues, width):
    return (width / np.pi / ((np.asarray(x)[..., None] - eigenvalues) ** 2 + width**2)).mean(-1)


def exact_counts(eigenvalues, x):
    return np.sum(eigenvalues[:, None] < x, axis=0)


SPECTRA = {
    "normal": np.sort(rng(1).standard_normal(300)),
    "uniform": np.linspace(-1.0, 3.0, 300),
    "outliers": np.sort(np.r_[-9.0, -8.0, rng(2).uniform(0, 1, 297), 5.0]),
    "plateau": np.sort(np.r_[np.full(6, -4.0), np.full(6, -2.0), rng(3).uniform(1, 2, 288)]),
    "low rank": np.sort(np.r_[np.zeros(290), rng(4).standard_normal(10)]),
    "clusters": np.sort(np.r_[np.full(100, -1.0), np.full(199, 0.5), 2.0]),
    "tiny": 1e-12 * np.linspace(-1.0, 3.0, 300),
    "huge": 1e12 * np.linspace(-1.0, 3.0, 300),
}
over_spectra = pytest.mark.parametrize("name", SPECTRA)


def stop_at(limit):
    def progress(fraction):
        if fraction >= limit:
            raise KeyboardInterrupt

    return progress


# ---- density -------------------------------------------------------------------------------------


@over_methods
@over_spectra
def test_density_agrees_with_the_spectrum(name, method):
    eigenvalues = SPECTRA[name]
    spectrum = hessian.density(matrix_of(eigenvalues), method=method, probes=12, steps=60)
    spread = np.ptp(eigenvalues)
    assert spectrum.size == 300
    assert spectrum.probes == 12
    assert abs(spectrum.weights.sum() - 1) < 1e-12
    assert spectrum.weights.min() > -1e-15
    width = 0.05 * spread
    # Jackson's kernel smooths further, by about a fifth of the Lorentzian's peaks here.
    slack = 1e-9 if method == "slq" else 0.25
    x = np.linspace(eigenvalues[0] - 0.2 * spread, eigenvalues[-1] + 0.2 * spread, 40)
    exact = lorentzian(x, eigenvalues, width)
    error = abs(spectrum.density(x, width) - exact)
    assert np.all(error < 6 * spectrum.density_sem(x, width) + slack * exact + 1e-6 / spread)
    counts = spectrum.count_below(np.r_[x[0], x[-1] + spread])
    assert_allclose(counts, [0, 300], atol=1e-6)
    for k in range(5):
        error = abs(spectrum.moments(k) - np.mean(eigenvalues**k))
        assert error < 6 * spectrum.moments_sem(k) + 1e-10 * np.mean(abs(eigenvalues) ** k)


def test_each_probe_is_an_exact_quadrature():
    """Moments up to 2 steps - 1 are those of the probe vector itself."""
    eigenvalues, steps = SPECTRA["uniform"] / 3, 7
    A = matrix_of(eigenvalues)
    spectrum = hessian.density(A, probes=3, steps=steps, seed=4)
    vectors = hessian._unit_vectors(np.random.SeedSequence(4), hessian._PROBES, range(3), 300)
    values, basis = np.linalg.eigh(A)
    masses = (vectors @ basis) ** 2
    for one, mass in zip(spectrum.per_probe(), masses, strict=True):
        for k in range(2 * steps):
            assert_allclose(one.moments(k), mass @ values**k, rtol=1e-11, atol=1e-14)
    assert abs(spectrum.moments(2 * steps) - np.mean(masses @ values ** (2 * steps))) > 1e-9


def test_kernel_moments_are_exact_and_not_damped():
    eigenvalues, steps = SPECTRA["uniform"] / 3, 10
    A = matrix_of(eigenvalues)
    spectrum = hessian.density(A, method="kpm", probes=3, steps=steps, seed=4)
    vectors = hessian._unit_vectors(np.random.SeedSequence(4), hessian._PROBES, range(3), 300)
    values, basis = np.linalg.eigh(A)
    masses = (vectors @ basis) ** 2
    low, high = spectrum.interval
    assert low < values[0] < values[-1] < high
    assert high - low < 1.04 * (values[-1] - values[0])
    angles = np.arccos((2 * values - low - high) / (high - low))
    chebyshev = masses @ np.cos(np.outer(angles, np.arange(2 * steps + 1)))
    assert_allclose(spectrum.chebyshev, chebyshev, atol=1e-12)
    for k in range(2 * steps + 1):
        assert_allclose(spectrum.moments(k), np.mean(masses @ values**k), atol=1e-12)
    with pytest.raises(ValueError, match=r"^k must be at most 20, twice the number of steps"):
        spectrum.moments(21)
    slq = hessian.density(A, probes=3, steps=steps, seed=4)
    assert_allclose(spectrum.moments(5), slq.moments(5), rtol=1e-11)
    assert_allclose(spectrum.moments_sem(5), slq.moments_sem(5), rtol=1e-9)


def test_the_kernel_is_that_of_jackson():
    """One eigenvalue becomes a positive peak of the documented resolution."""
    A = diags_array(np.r_[np.full(50, -1.0), np.full(1, 0.0), np.full(49, 1.0)])
    spectrum = hessian.density(A, method="kpm", steps=50, probes=2)
    low, high = spectrum.interval
    x = np.linspace(low, high, 4001)
    curve = spectrum.density(x)
    assert curve.min() >= -1e-12
    assert abs(np.trapezoid(curve, x) - 1) < 5e-3  # peaks at the ends, where the grid is dense
    assert_allclose(spectrum.density([low - 1e-9, high + 1e-9]), 0.0)
    angle = np.pi / (2 * 50 + 2)
    assert_allclose(spectrum.stats["resolution"], np.pi * (high - low) / 2 / 101)
    # Second moment of the kernel about an eigenvalue x: half (1 - g2 + ...) in scaled units.
    one = hessian._damped(np.cos(np.outer([np.pi / 2], np.arange(101))), np.array([-1.0, 1.0]))
    spread = np.sqrt(one["nodes"] ** 2 @ one["weights"])
    assert_allclose(spread, angle, rtol=0.02)


def test_kernel_density_without_broadening():
    eigenvalues = np.sin(np.linspace(-np.pi / 2, np.pi / 2, 4001))[1:-1]  # arcsine law
    spectrum = hessian.density(diags_array(eigenvalues), method="kpm", probes=8, steps=60)
    x = np.linspace(-0.8, 0.8, 30)
    exact = 1 / (np.pi * np.sqrt(1 - x**2))
    sem = spectrum.density_sem(x)
    assert np.all(abs(spectrum.density(x) - exact) < 5 * sem + 0.02 * exact)
    assert np.all(sem < 0.1 * exact)
    whole = np.trapezoid(spectrum.values, spectrum.grid)
    assert abs(whole - 1) < 1e-3


def test_quadrature_has_no_density_without_broadening():
    spectrum = hessian.density(np.eye(5))
    with pytest.raises(ValueError, match=r"^width must be > 0"):
        spectrum.density(0.0)


def test_distribution_function_is_that_of_the_spectrum():
    """Kolmogorov-Smirnov distance: two nodes' weights and the noise of the probes."""
    for name in ("normal", "uniform", "plateau"):
        eigenvalues = SPECTRA[name]
        spectrum = hessian.density(matrix_of(eigenvalues), probes=30, steps=100)
        x = (eigenvalues[1:] + eigenvalues[:-1]) / 2
        distance = abs(spectrum.count_below(x) - exact_counts(eigenvalues, x)) / 300
        assert distance.max() < 0.03


@over_methods
def test_standard_errors_are_honest(method):
    """Over seeds, the deviation in standard errors follows Student's t."""
    eigenvalues = np.sort(rng(7).standard_normal(200))
    A, probes, width, x = diags_array(eigenvalues), 6, 0.5, np.array([-1.0, 0.0, 1.5])
    z = []
    for seed in range(100):
        s = hessian.density(A, method=method, probes=probes, steps=25, seed=seed)
        z.append(
            np.r_[
                (s.moments(1) - eigenvalues.mean()) / s.moments_sem(1),
                (s.moments(2) - np.mean(eigenvalues**2)) / s.moments_sem(2),
            ]
        )
        if method == "slq":
            density = (s.density(x, width) - lorentzian(x, eigenvalues, width)) / s.density_sem(
                x, width
            )
            z[-1] = np.r_[z[-1], density]
    z = np.array(z)
    for level in (0.5, 0.95):
        covered = np.mean(abs(z) < student.ppf((1 + level) / 2, probes - 1), axis=0)
        assert np.all(abs(covered - level) < 4 * np.sqrt(level * (1 - level) / len(z)))
    assert np.all(abs(z.mean(axis=0)) < 4 * z.std(axis=0) / np.sqrt(len(z)))


def test_standard_errors_have_the_known_variance():
    """For uniform directions 2/(n + 2) times the variance over the spectrum, in any basis."""
    eigenvalues = SPECTRA["uniform"]
    for A in (diags_array(eigenvalues), matrix_of(eigenvalues)):
        spectrum = hessian.density(A, probes=400, steps=3)
        expected = np.sqrt(2 / 302 * eigenvalues.var() / 400)
        assert_allclose(spectrum.moments_sem(1), expected, rtol=0.15)


def test_counts_have_standard_errors():
    eigenvalues = SPECTRA["plateau"]
    spectrum = hessian.density(matrix_of(eigenvalues), probes=20)
    assert abs(spectrum.count_below(0.0) - 12) < 4 * spectrum.count_below_sem(0.0)
    assert isinstance(spectrum.count_below_sem(0.0), float)
    assert spectrum.count_below_sem([-5.0, 0.0, 5.0]).shape == (3,)
    assert_allclose(spectrum.count_below_sem([-5.0, 5.0]), 0.0, atol=1e-9)
    single = hessian.density(matrix_of(eigenvalues), probes=1)
    assert np.isnan(single.moments_sem(1))
    assert np.isnan(single.density_sem([0.0, 1.0], 0.1)).all()


def test_outliers_and_gaps_are_nodes():
    eigenvalues = SPECTRA["outliers"]
    spectrum = hessian.density(matrix_of(eigenvalues), probes=4, steps=60)
    for one in spectrum.per_probe():
        assert_allclose(one.nodes[[0, 1, -1]], [-9.0, -8.0, 5.0], rtol=1e-12)
        assert not np.any((one.nodes > -7.9) & (one.nodes < -0.01))


@pytest.mark.parametrize(
    ("eigenvalues", "distinct"),
    [
        ([0.0] * 50, 1),
        ([3.0] * 50, 1),
        ([-2.5], 1),
        ([1.0] * 30 + [2.0] * 20, 2),
        ([0.0] * 47 + [1.0, 2.0, 3.0], 4),
    ],
)
def test_an_invariant_space_is_a_complete_measure(eigenvalues, distinct):
    A = np.diag(eigenvalues) if distinct == 1 else matrix_of(np.array(eigenvalues))
    products = []
    operator = LinearOperator(A.shape, matvec=lambda x: A @ x, matmat=count_into(products, A))
    spectrum = hessian.density(operator, probes=5, steps=20)
    values = np.unique(eigenvalues)
    for one in spectrum.per_probe():
        heavy = one.weights > 1e-20
        clusters = np.unique(np.round(one.nodes[heavy], 9) + 0.0)
        assert_allclose(clusters, values, atol=1e-9)
    assert spectrum.stats["products"] == sum(products)
    if distinct == 1:
        assert spectrum.stats["breakdowns"] == 5
        assert_allclose(spectrum.density_sem(eigenvalues[0], 0.1), 0.0, atol=1e-12)
    assert spectrum.stats["products"] <= 2 + 5 * (distinct + 1)
    kernel = hessian.density(A, method="kpm", steps=10, probes=2)
    assert_allclose(kernel.moments(1), spectrum.moments(1), atol=1.0)
    assert kernel.interval[0] < values[0] <= values[-1] < kernel.interval[1]


def count_into(widths, A):
    def matmat(X):
        widths.append(X.shape[1])
        return A @ X

    return matmat


def test_steps_beyond_the_dimension_are_cut_and_said():
    eigenvalues = np.array([-1.0, 0.5, 2.0, 7.0])
    spectrum = hessian.density(matrix_of(eigenvalues), steps=80, probes=3)
    assert spectrum.stats["steps"] == 4
    assert spectrum.stats["clamped"] == "steps from 80 to the dimension 4"
    assert spectrum.inputs["steps"] == 80
    for one in spectrum.per_probe():
        assert_allclose(one.nodes, eigenvalues, rtol=1e-12)
    assert "clamped" not in hessian.density(matrix_of(eigenvalues), steps=4).stats


def test_vectors_stay_orthogonal():
    """With an outlier, plain Lanczos would find it again and again."""
    eigenvalues = np.r_[np.linspace(0, 1, 399), 100.0]
    products = hessian._Products(matrix_of(eigenvalues))
    starts = hessian._unit_vectors(np.random.SeedSequence(0), 0, range(2), 400)
    lanczos = hessian._Lanczos(products, starts, 150)
    while not lanczos.ended:
        lanczos.step()
    for basis in lanczos._basis:
        assert abs(basis @ basis.T - np.eye(150)).max() < 1e-13
    assert np.sum(lanczos.measure(0)[0] > 50) == 1


@over_methods
def test_the_first_probes_do_not_depend_on_how_many_there_are(method):
    A = matrix_of(SPECTRA["normal"])
    few = hessian.density(A, method=method, probes=3, steps=20, seed=11).per_probe()
    many = hessian.density(A, method=method, probes=9, steps=20, seed=11).per_probe()
    for one, other in zip(few, many, strict=False):
        assert_allclose(one.nodes, other.nodes, atol=1e-10)
        assert_allclose(one.weights, other.weights, atol=1e-10)


@over_methods
def test_blocks_change_rounding_only(method):
    A = matrix_of(SPECTRA["normal"])
    whole = hessian.density(A, method=method, probes=5, steps=20)
    for block in (1, 2, 5, 7):
        parts = hessian.density(A, method=method, probes=5, steps=20, block=block)
        assert parts.stats["block"] == min(block, 5)
        assert_allclose(parts.nodes, whole.nodes, atol=1e-10)
        assert_allclose(parts.weights, whole.weights, atol=1e-10)
    single = LinearOperator(A.shape, matvec=lambda x: A @ x, dtype=np.float64)
    one_by_one = hessian.density(single, method=method, probes=5, steps=20)
    assert_allclose(one_by_one.weights, whole.weights, atol=1e-10)


@over_methods
def test_memory_limits_the_block(method, monkeypatch):
    monkeypatch.setattr(hessian, "_BASIS_BYTES", 8 * 300 * 20 * 2)
    spectrum = hessian.density(matrix_of(SPECTRA["normal"]), method=method, probes=5, steps=20)
    assert spectrum.stats["block"] == (2 if method == "slq" else 5)
    operator = LinearOperator((10**11, 10**11), matvec=lambda x: x, dtype=float)
    monkeypatch.setattr(hessian._Products, "_check_symmetry", lambda _: None)
    with pytest.raises(MemoryError, match="reduce"):
        hessian.density(operator, method=method, block=3)


@over_methods
def test_the_same_seed_has_the_same_bits(method):
    A = matrix_of(SPECTRA["normal"])
    first, second = (hessian.density(A, method=method, probes=2, steps=9, seed=5) for _ in "ab")
    assert_array_equal(first.nodes, second.nodes)
    assert_array_equal(first.weights, second.weights)
    assert first.origin["seed"] == 5
    fresh = hessian.density(A, method=method, probes=2, steps=9, seed=None)
    again = hessian.density(A, method=method, probes=2, steps=9, seed=fresh.origin["seed"])
    assert_array_equal(fresh.weights, again.weights)
    assert np.any(fresh.weights != first.weights)
    child = np.random.SeedSequence(5).spawn(1)[0]
    other = hessian.density(A, method=method, probes=2, steps=9, seed=child)
    assert child.n_children_spawned == 0
    assert np.any(other.weights != first.weights)


def test_kernel_reports_eigenvalues_outside_its_interval(monkeypatch):
    eigenvalues = SPECTRA["uniform"]
    monkeypatch.setattr(hessian, "_MARGIN", -0.2)
    with pytest.raises(results.ConvergenceError, match=r"^kpm: ") as error:
        hessian.density(matrix_of(eigenvalues), method="kpm", steps=80)
    assert error.value.result.status is results.Status.DIVERGED
    assert abs(error.value.result.chebyshev).max() <= 1 + 1e-6


def test_threads_are_those_of_the_operator():
    class Threaded(LinearOperator):
        def __init__(self, threads=None):
            super().__init__(np.float64, (3, 3))
            self.threads = threads

        def with_threads(self, threads):
            seen.append(threads)
            return Threaded(threads)

        def _matmat(self, X):
            seen.append(self.threads)
            return 2.0 * X

    seen = []
    spectrum = hessian.density(Threaded(), threads=2, probes=1)
    assert set(seen) == {2}
    assert spectrum.stats["threads"] == 2
    with pytest.raises(ValueError, match=r"^threads must be None for an operator"):
        hessian.density(np.eye(3), threads=2)
    with pytest.raises(ValueError, match=r"^threads must be an integer >= 1"):
        hessian.density(Threaded(), threads=0)


# ---- extremes ------------------------------------------------------------------------------------


def expected_extremes(eigenvalues, k, which):
    n = len(eigenvalues)
    low = 0 if which == "largest" else k
    high = 0 if which == "smallest" else min(k, n - low)
    return np.r_[eigenvalues[:low], eigenvalues[n - high :]]


def check_pairs(pairs, A, eigenvalues, k, which, tol=1e-8):
    norm = abs(eigenvalues).max()
    assert_allclose(pairs.eigenvalues, expected_extremes(eigenvalues, k, which), atol=tol * norm)
    assert np.all(np.diff(pairs.eigenvalues) >= 0)
    assert pairs.converged.dtype == bool
    assert pairs.converged.all()
    X = pairs.vectors
    assert_allclose(X.T @ X, np.eye(X.shape[1]), atol=1e-12)
    residuals = np.linalg.norm(A @ X - X * pairs.eigenvalues, axis=0)
    assert_allclose(pairs.residuals, residuals, atol=1e-13 * norm)
    assert np.all(residuals <= tol * norm)


@over_spectra
@pytest.mark.parametrize("which", ["both", "smallest", "largest"])
@pytest.mark.parametrize("k", [1, 4, 7])
def test_extremes_agree_with_the_spectrum(name, which, k):
    eigenvalues = SPECTRA[name]
    A = matrix_of(eigenvalues)
    pairs = hessian.extremes(A, k, which=which)
    assert pairs.status is results.Status.SUCCESS
    assert pairs.method == ("lanczos" if k < 7 else pairs.method)
    check_pairs(pairs, A, eigenvalues, k, which)


@pytest.mark.parametrize("size", [None, 40])
def test_degenerate_eigenvalues_are_found_as_often_as_they_occur(size, monkeypatch):
    """A plateau: p-fold negative eigenvalues, and a p-fold largest one; more copies than k too."""
    bulk = rng(5).uniform(0.0, 1.0, 976)
    eigenvalues = np.sort(np.r_[np.full(5, -4.0), np.full(5, -4.0 + 1e-3), np.full(14, 1.1), bulk])
    A = matrix_of(eigenvalues)
    if size:
        monkeypatch.setattr(hessian, "_BASIS_BYTES", 8 * 1000 * size)
    for k in (3, 5, 8):
        pairs = hessian.extremes(A, k)
        assert pairs.stats["basis"] == (max(size, 5 * k) if size else 2 * k + max(24 * k, 96))
        check_pairs(pairs, A, eigenvalues, k, "both")


def test_restarts_converge(monkeypatch):
    eigenvalues = np.linspace(-1.0, 1.0, 600)
    A = diags_array(eigenvalues)
    monkeypatch.setattr(hessian, "_BASIS_BYTES", 8 * 600 * 30)
    pairs = hessian.extremes(A, 3, tol=1e-10)
    assert pairs.stats["restarts"] > 10
    assert_allclose(pairs.vectors.T @ pairs.vectors, np.eye(6), atol=1e-13)
    assert pairs.stats["basis"] == 30
    check_pairs(pairs, A, eigenvalues, 3, "both", tol=1e-10)


@pytest.mark.parametrize("low_rank", [0, 1, 2, 6])
@pytest.mark.parametrize("which", ["both", "smallest", "largest"])
def test_breakdown_goes_on_from_new_vectors(low_rank, which):
    """Zero, identity plus low rank: the first Krylov spaces are invariant and too small."""
    n = 700
    for base in (0.0, 2.0):
        eigenvalues = np.sort(base + np.r_[np.zeros(n - low_rank), np.arange(1.0, low_rank + 1)])
        for A in (diags_array(eigenvalues), matrix_of(eigenvalues)):
            pairs = hessian.extremes(A, 5, which=which)
            assert pairs.method == "lanczos"
            assert pairs.stats["products"] < 100
            norm = abs(eigenvalues).max()
            assert_allclose(
                pairs.eigenvalues,
                expected_extremes(eigenvalues, 5, which),
                atol=1e-10 * max(norm, 1e-9),
            )
            assert_allclose(
                pairs.vectors.T @ pairs.vectors, np.eye(len(pairs.eigenvalues)), atol=1e-12
            )
            assert pairs.converged.all()


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 20, 60])
@pytest.mark.parametrize("which", ["both", "smallest", "largest"])
def test_small_operators_are_dense(n, which):
    eigenvalues = np.sort(rng(n).standard_normal(n))
    A = matrix_of(eigenvalues)
    for k in {1, min(3, n), n}:
        pairs = hessian.extremes(A, k, which=which)
        assert pairs.method == "dense"
        check_pairs(pairs, A, eigenvalues, k, which)


@pytest.mark.parametrize("n", [2, 5, 12, 60])
def test_small_operators_without_the_dense_way(n):
    """A basis that fills the space ends with an invariant one."""
    eigenvalues = np.sort(rng(n).standard_normal(n))
    A = matrix_of(eigenvalues)
    for k in {1, max(n // 3, 1), max(n - 1, 1)}:
        high = min(k, n - k)
        subspace = hessian._Subspace(hessian._Products(A), k, high, k, n, np.random.SeedSequence(0))
        while not subspace.exhausted:
            subspace.step()
        assert subspace.complete
        values, vectors, residuals = subspace.pairs()
        assert_allclose(values, expected_extremes(eigenvalues, k, "both"), atol=1e-12)
        assert_allclose(vectors @ vectors.T, np.eye(len(vectors)), atol=1e-12)
        assert_allclose(residuals, 0.0, atol=1e-12)


def test_extremes_agree_with_scipy():
    """And on a spectrum with gaps they find the same as its implicitly restarted Lanczos."""
    H = rng(8).standard_normal((400, 400))
    A = (H + H.T) / np.sqrt(800)
    pairs = hessian.extremes(A, 4)
    theirs = np.sort(eigsh(A, k=8, which="BE", return_eigenvectors=False, tol=1e-12))
    assert_allclose(pairs.eigenvalues, theirs, atol=1e-10)
    dense, basis = np.linalg.eigh(A)
    assert_allclose(pairs.eigenvalues, dense[np.r_[:4, 396:400]], atol=1e-12)
    overlap = abs(np.sum(pairs.vectors * basis[:, np.r_[:4, 396:400]], axis=0))
    assert_allclose(overlap, 1.0, atol=1e-9)


def test_no_convergence_is_an_error_that_keeps_all_pairs():
    eigenvalues = np.sort(np.r_[-5.0, np.linspace(0.0, 1.0, 1999)])
    A = diags_array(eigenvalues)
    with pytest.raises(results.ConvergenceError, match="of 8 eigenpairs have not conv") as error:
        hessian.extremes(A, 4, max_products=120)
    result = error.value.result
    assert result.status is results.Status.NOT_CONVERGED
    flagged = hessian.extremes(A, 4, max_products=120, throw=False)
    assert_array_equal(flagged.eigenvalues, result.eigenvalues)
    assert flagged.stats["products"] <= 120
    assert flagged.converged[0]
    assert not flagged.converged[1:4].any()
    assert_allclose(flagged.eigenvalues[0], -5.0)
    residuals = np.linalg.norm(A @ flagged.vectors - flagged.vectors * flagged.eigenvalues, axis=0)
    assert_allclose(flagged.residuals, residuals, atol=1e-12)
    assert_array_equal(flagged.converged, residuals <= 1e-8 * 5.0)
    # Residuals bound the distance to an eigenvalue, converged or not.
    distance = abs(eigenvalues[:, None] - flagged.eigenvalues).min(axis=0)
    assert np.all(distance <= residuals + 1e-12)
    assert pickle.loads(pickle.dumps(error.value)).result.converged[0]


def test_an_impossible_tolerance_is_flagged():
    A = matrix_of(SPECTRA["uniform"])
    result = hessian.extremes(A, 2, tol=1e-20, max_products=500, throw=False)
    assert result.status is results.Status.NOT_CONVERGED
    assert not result.converged.any()
    assert_allclose(result.eigenvalues[0], -1.0, rtol=1e-12)


def test_the_same_seed_has_the_same_pairs():
    A = matrix_of(SPECTRA["normal"])
    first, second, other = (hessian.extremes(A, 2, seed=seed) for seed in (3, 3, 4))
    assert_array_equal(first.vectors, second.vectors)
    assert first.origin["seed"] == 3
    assert_allclose(abs(np.sum(first.vectors * other.vectors, axis=0)), 1.0, atol=1e-9)
    assert np.any(first.vectors != other.vectors)


# ---- both ----------------------------------------------------------------------------------------

CALLS = {
    "slq": lambda operator, **options: hessian.density(operator, steps=20, **options),
    "kpm": lambda operator, **options: hessian.density(operator, method="kpm", steps=20, **options),
    "extremes": lambda operator, **options: hessian.extremes(operator, 1, **options),
}
over_calls = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@over_calls
@pytest.mark.parametrize(
    ("operator", "error", "message"),
    [
        (np.ones((3, 2)), ValueError, r"operator must be square .* of shape \(3, 2\)"),
        (np.zeros((0, 0)), ValueError, "operator must be square with at least one row"),
        (np.triu(np.ones((40, 40))), ValueError, "operator must be symmetric"),
        (np.array([[0.0, 1.0], [-1.0, 0.0]]), ValueError, "operator must be symmetric"),
        (np.eye(3) + 1e-6 * np.triu(np.ones((3, 3))), ValueError, "operator must be symmetric"),
        (np.eye(3) * 1j, ValueError, "operator must be real, but was of type complex"),
        (np.array([["a"]]), ValueError, "operator must be real"),
        (np.diag([1.0, np.nan]), ValueError, "operator must have finite products"),
        (np.diag([1.0, np.inf]), ValueError, "operator must have finite products"),
        ("no matrix", TypeError, "operator must be a SciPy LinearOperator or a matrix"),
        (3.0, TypeError, "operator must be"),
        (np.ones((2, 2, 2)), ValueError, "operator must be"),
    ],
)
def test_operators_that_cannot_be_used(call, operator, error, message):
    with pytest.raises(error, match=f"^{message}"):
        call(operator)


@over_calls
def test_products_that_go_wrong_later(call):
    A, calls = np.diag(np.linspace(0, 1, 2000)), []

    def matmat(X):
        calls.append(X)
        return A @ X if len(calls) < 6 else np.full_like(X, np.nan)

    with pytest.raises(ValueError, match=r"^operator must have finite products"):
        call(LinearOperator(A.shape, matvec=matmat, matmat=matmat, dtype=np.float64))
    lying = LinearOperator((5, 5), matvec=lambda x: 1j * x, dtype=np.float64)
    with pytest.raises(ValueError, match=r"^operator must be real, but its products were"):
        call(lying)


@over_calls
@pytest.mark.parametrize("scale", [1e-150, 1.0, 1e150])
def test_symmetry_is_relative_to_the_operator(call, scale):
    A = scale * matrix_of(SPECTRA["normal"][:50])
    call(A)
    A += 1e-6 * np.triu(A, 1)
    with pytest.raises(ValueError, match=r"^operator must be symmetric"):
        call(A)


@over_calls
def test_kinds_of_operators(call):
    """Dense, sparse, integer, single precision storage, and without a type."""
    dense = np.diag(np.arange(400))
    reference = call(dense.astype(float))
    for operator in (
        dense,
        dense.astype(np.float32),
        diags_array(np.arange(400.0)),
        LinearOperator(dense.shape, matvec=lambda x: dense @ x),
    ):
        result = call(operator)
        name = "eigenvalues" if reference.kind == "Point" else "nodes"
        assert_allclose(getattr(result, name), getattr(reference, name), atol=1e-6)


@over_calls
def test_bad_arguments(call):
    A = np.eye(200)
    for name, value in (
        ("seed", -1),
        ("seed", 0.5),
        ("progress", 1),
    ):
        with pytest.raises((ValueError, TypeError), match=f"^{name} must be"):
            call(A, **{name: value})


@pytest.mark.parametrize(
    ("function", "name", "value"),
    [
        ("density", "probes", 0),
        ("density", "probes", 2.0),
        ("density", "steps", 0),
        ("density", "block", 0),
        ("density", "method", "exact"),
        ("density", "threads", 1),
        ("extremes", "k", 0),
        ("extremes", "k", 201),
        ("extremes", "which", "middle"),
        ("extremes", "tol", 0.0),
        ("extremes", "tol", np.nan),
        ("extremes", "max_products", 17),
        ("extremes", "throw", 1),
    ],
)
def test_arguments_are_named(function, name, value):
    with pytest.raises((ValueError, TypeError), match=f"^{name} must be"):
        getattr(hessian, function)(np.eye(200), **{name: value})


@over_calls
def test_inputs_are_untouched(call):
    A = matrix_of(SPECTRA["normal"])
    kept = A.copy()
    call(A)
    assert_array_equal(A, kept)


@over_calls
def test_an_operator_may_reuse_its_output(call):
    A = matrix_of(SPECTRA["normal"])
    buffers = {}

    def matmat(X):
        buffer = buffers.setdefault(X.shape, np.empty(X.shape))
        return np.matmul(A, X, out=buffer)

    reused = call(LinearOperator(A.shape, matvec=matmat, matmat=matmat, dtype=np.float64))
    name = "eigenvalues" if reused.kind == "Point" else "weights"
    assert_allclose(getattr(reused, name), getattr(call(A), name), atol=1e-12)


@over_calls
def test_results_survive_files_and_pickle(call, tmp_path):
    result = call(matrix_of(SPECTRA["normal"]))
    for other in (
        results.load(result.save(tmp_path / "result")),
        pickle.loads(pickle.dumps(result)),
    ):
        assert type(other) is type(result)
        assert other.stats == result.stats
        assert other.inputs == result.inputs
        for name, array in result._arrays().items():
            assert_array_equal(getattr(other, name), array)
    assert result.to_xarray().attrs["method"] == result.method
    with pytest.raises(AttributeError):
        result.method = "other"
    name = "vectors" if result.kind == "Point" else "weights"
    with pytest.raises(ValueError, match="read-only"):
        getattr(result, name)[0] = 1.0


@over_calls
def test_progress_rises_to_one(call):
    seen = []
    slow = diags_array(np.linspace(0, 1, 1000))
    call(slow, progress=seen.append)
    assert seen[0] == 0.0
    assert seen[-1] == 1.0
    assert np.all(np.diff(seen) >= 0)


@over_calls
@pytest.mark.parametrize("limit", [0.0, 0.05, 0.7])
def test_interrupt_keeps_what_was_computed(call, limit, monkeypatch, tmp_path):
    monkeypatch.setattr(results, "_interrupted", None)
    monkeypatch.setattr("overparam._run.SLICE", 1e-9)
    with pytest.raises(KeyboardInterrupt):
        call(diags_array(np.linspace(0, 1, 1000)), progress=stop_at(limit))
    partial = results.interrupted()
    assert partial.status is results.Status.INTERRUPTED
    assert type(results.load(partial.save(tmp_path / "partial"))) is type(partial)
    if partial.kind == "Spectrum" and limit == 0.7:
        assert 0.0 < partial.moments(1) < 1.0
        assert abs(partial.weights.sum() - 1) < 1e-12
        assert partial.stats["products"] < 250
    elif partial.kind == "Spectrum" and limit == 0.0:
        assert np.isnan(partial.nodes).all()
    elif limit == 0.7:
        assert not partial.converged.all()
        assert partial.vectors.shape == (1000, len(partial.eigenvalues))


def test_interrupt_of_groups_keeps_whole_probes(monkeypatch):
    monkeypatch.setattr(results, "_interrupted", None)
    monkeypatch.setattr("overparam._run.SLICE", 1e-9)
    A = matrix_of(SPECTRA["normal"])
    for method in METHODS:
        with pytest.raises(KeyboardInterrupt):
            hessian.density(A, method=method, probes=6, block=2, steps=20, progress=stop_at(0.75))
        partial = results.interrupted()
        assert 2 <= partial.probes <= 6
        whole = hessian.density(A, method=method, probes=6, steps=20)
        for one, other in list(zip(partial.per_probe(), whole.per_probe(), strict=False))[:2]:
            assert_allclose(one.weights, other.weights, atol=1e-10)


def test_a_sampled_spectrum_is_of_one_kind():
    common = {"method": "slq", "status": results.Status.SUCCESS, "origin": {}}
    measure = {"nodes": [0.0], "weights": [1.0]}
    with pytest.raises(ValueError, match="one of probe_index and chebyshev"):
        hessian.SampledSpectrum(**measure, **common)
    with pytest.raises(ValueError, match="chebyshev and interval"):
        hessian.SampledSpectrum(**measure, chebyshev=[[1.0]], **common)
