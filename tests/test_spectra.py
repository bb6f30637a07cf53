import copy
import dataclasses
import functools
import itertools
import json
import math
import pathlib
import pickle

import numpy as np
import overparam as op
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from overparam import spectra
from overparam.spectra import Jacobi, discrete, free_sum, jacobi, marchenko_pastur, semicircle
from scipy import integrate

WACHTER = json.loads(
    (pathlib.Path(__file__).parent / "reference" / "population_flow.json").read_text()
)["wachter"]

SMOOTH = [
    semicircle(0.7),
    marchenko_pastur(0.3),
    marchenko_pastur(2.5, 3.0),
    marchenko_pastur(0.9),
    jacobi(0.5, 0.3),
    jacobi(0.7, 0.6),
    jacobi(0.3, 0.5).scaled(2.0),
    jacobi(0.9, 0.95),
]
# The density diverges at an edge, or nearly so.
HARD = [
    marchenko_pastur(1.0),
    marchenko_pastur(1.001),
    jacobi(0.3, 0.3),
    jacobi(0.3, 0.7),
    jacobi(0.5, 0.5),
]
NEARLY_HARD = [jacobi(0.4, 0.4 + 1e-7), jacobi(0.4 + 1e-7, 0.6), marchenko_pastur(1 + 1e-7)]
ATOMS = [
    discrete([0.0, 1.0, 3.0], [0.5, 0.2, 0.3]),
    discrete([-2.0], [1.0]),
    jacobi(1.0, 0.3),
    jacobi(0.3, 1.0),
]
over_all = pytest.mark.parametrize("law", SMOOTH + HARD + ATOMS, ids=repr)
over_continuous = pytest.mark.parametrize("law", SMOOTH + HARD, ids=repr)


def mean(law, function):
    """E function(x) by adaptive integration of the density, in an angle."""
    total = sum(mass * function(x) for x, mass in law.atoms)
    if law.support:
        low, high = law.support

        def integrand(angle):
            x = low + (high - low) * math.sin(angle / 2) ** 2
            return float(law.density(x)) * function(x) * (high - low) * math.sin(angle) / 2

        total += integrate.quad(integrand, 0, np.pi, epsabs=1e-12, epsrel=1e-12, limit=500)[0]
    return total


def bounds(law):
    points = [x for x, _ in law.atoms] + list(law.edges)
    return min(points), max(points)


def inside(law, count=9):
    low, high = law.support
    return low + (high - low) * (np.arange(count) + 0.5) / count


# ---- the laws against integrals of their density ----


@over_continuous
def test_masses_add_up_to_one(law):
    assert_allclose(mean(law, lambda x: x**0), 1.0, rtol=1e-11)
    low, high = law.support
    assert law.edges == (low, high)
    assert_array_equal(law.density([low - 1, low, high, high + 1]), 0.0)
    assert np.all(law.density(inside(law)) > 0)


@over_continuous
def test_cdf_is_the_integral_of_the_density(law):
    for x in inside(law, 5):
        grid = np.linspace(*law.support, 8)
        grid = np.append(grid[grid < x], x)

        def density(y):
            return float(law.density(y))

        below = sum(mass for place, mass in law.atoms if place <= x)
        below += sum(
            integrate.quad(density, a, b, epsabs=1e-12, limit=200)[0]
            for a, b in itertools.pairwise(grid)
        )
        assert_allclose(law.cdf(x), below, atol=1e-9)
    low, high = bounds(law)
    assert law.cdf(low - 1e-9) == 0
    assert law.cdf(high) == pytest.approx(1, abs=1e-15)
    assert law.cdf([-np.inf, np.inf]).tolist() == [0, pytest.approx(1, abs=1e-15)]


@over_all
def test_transforms_are_those_of_the_density(law):
    low, high = bounds(law)
    for z in (1 + 1j, 0.3 - 0.5j, -2 + 0.3j):
        real = mean(law, lambda x, z=z: (1 / (z - x)).real)
        imaginary = mean(law, lambda x, z=z: (1 / (z - x)).imag)
        assert_allclose(law.cauchy(z), real + 1j * imaginary, rtol=1e-10)
    for z in (high + 0.5, low - 0.2, 40.0, -40.0):
        assert_allclose(law.cauchy(z), mean(law, lambda x, z=z: 1 / (z - x)), rtol=1e-10)
    for k in range(7):
        assert_allclose(law.moments(k), mean(law, lambda x, k=k: x**k), rtol=1e-10, atol=1e-12)
    for z in (0.01, 0.2, 3.0, 1e4, -0.5 / max(high, 0.1)):
        if 1 + z * low > 0 and 1 + z * high > 0:
            expected = mean(law, lambda x, z=z: math.log1p(z * x))
            assert_allclose(law.logdet(z), expected, rtol=1e-10)


@pytest.mark.parametrize("law", SMOOTH + HARD + NEARLY_HARD + ATOMS, ids=repr)
def test_quadrature_agrees_with_the_closed_forms(law):
    low, high = bounds(law)
    x, w = law.quadrature(200)
    assert len(x) == len(w) == len(law.atoms) + 200 * (law.support is not None)
    assert np.all(np.diff(x) >= 0)
    assert np.all(w > 0)
    assert low - 1e-15 <= x[0]
    assert x[-1] <= high + 1e-15
    assert_allclose(w.sum(), 1.0, rtol=1e-14)
    for k in range(9):
        assert_allclose(w @ x**k, law.moments(k), rtol=1e-12, atol=1e-14)
    for z in (1e-3, 0.3, 1.0, 1e3, 1e6):
        if 1 + z * low > 0:
            assert_allclose(w @ np.log1p(z * x), law.logdet(z), rtol=1e-12)
    assert_allclose(w @ np.log1p(0.2 * x), law.logdet(0.2), rtol=1e-12)


@pytest.mark.parametrize("law", HARD + NEARLY_HARD, ids=repr)
def test_quadrature_resolves_poles_close_to_a_hard_edge(law):
    x, w = law.quadrature(200)
    for delta in (1.0, 1e-2, 1e-5, 1e-8):
        assert_allclose(w @ (1 / (x + delta)), -law.cauchy(-delta), rtol=1e-9)
    few, weights = law.quadrature(64)
    assert_allclose(weights @ np.log1p(few), law.logdet(1.0), rtol=1e-7)


def test_quadrature_with_few_nodes():
    for law in SMOOTH + HARD + ATOMS:
        for n in (1, 2, 3):
            _, w = law.quadrature(n)
            assert_allclose(w.sum(), 1.0, rtol=1e-14)
    x, w = semicircle(1.0).quadrature(4)
    assert_allclose([w @ x**k for k in range(6)], [1, 0, 1, 0, 2, 0], atol=1e-14)


# ---- branches ----


@over_all
def test_cauchy_transform_maps_half_planes(law):
    rng = np.random.default_rng(3)
    z = rng.normal(size=400) * 3 + 1j * np.exp(rng.normal(size=400) * 4 - 4)
    transform = law.cauchy(z)
    assert np.all(transform.imag < 0)
    assert_array_equal(law.cauchy(z.conj()), transform.conj())
    assert np.all(np.abs(transform) * z.imag <= 1 + 1e-12)
    far = np.array([1e8, -1e8, 1e8j, -1e8j])
    assert_allclose(far * law.cauchy(far), 1.0, atol=1e-7)


@over_all
def test_real_and_complex_arguments_agree_off_the_law(law):
    low, high = bounds(law)
    z = np.array([low - 3, low - 1e-3, high + 1e-3, high + 5])
    real = law.cauchy(z)
    assert real.dtype == np.float64
    for side in (z + 0j, z - 0j, (z + 0j).conj()):
        assert_allclose(law.cauchy(side), real, rtol=1e-12)
    assert_array_equal(law.hilbert(z), real)
    assert real[0] < 0 < real[-1]


@over_continuous
def test_the_density_is_the_jump_of_the_cauchy_transform(law):
    x = inside(law)
    for side in (1, -1):
        transform = law.cauchy(x + side * 1e-10j)
        assert_allclose(-side * transform.imag / np.pi, law.density(x), rtol=1e-6)
        assert_allclose(transform.real, law.hilbert(x), rtol=1e-6, atol=1e-7)


def test_hilbert_transform_leaves_out_the_atom_at_its_position():
    law = discrete([0.0, 1.0, 3.0], [0.5, 0.2, 0.3])
    assert_allclose(law.hilbert([0.0, 1.0, 2.0]), [-0.3, 0.35, 0.25 + 0.2 - 0.3], rtol=1e-14)
    law = marchenko_pastur(0.25)  # the rest is a quarter of ratio 4 on a scale of 4
    assert_allclose(law.hilbert(0.0), marchenko_pastur(4.0, 4.0).hilbert(0.0) / 4, rtol=1e-14)
    law = jacobi(0.7, 0.6)
    nearby = law.hilbert(1 - 2**-30) + law.atoms[1][1] * 2**30
    assert_allclose(law.hilbert(1.0), nearby, rtol=1e-6)
    # At a hard edge, the limit from inside.
    for law in (marchenko_pastur(1.0), jacobi(0.3, 0.3)):
        assert_allclose(law.hilbert(0.0), law.hilbert(1e-12), rtol=1e-9)


# ---- known values and limits ----


@pytest.mark.parametrize("entry", WACHTER, ids=lambda entry: str(entry["inputs"]))
def test_principal_angles_reference(entry):
    gamma, gamma_star, z = (entry["inputs"][name] for name in ("gamma", "gamma_star", "z"))
    law = jacobi(gamma, gamma_star)
    assert_allclose(law.support, entry["support"], rtol=1e-12, atol=1e-15)
    atoms = dict(law.atoms)
    assert_allclose(atoms.get(0.0, 0.0), entry["atoms"]["at0"], rtol=1e-12)
    assert_allclose(atoms.get(1.0, 0.0), entry["atoms"]["at1"], rtol=1e-12)
    moments = [gamma * law.moments(k) for k in (1, 2, 3)]
    assert_allclose(moments, entry["moments_per_d"], rtol=1e-9)
    per_dimension = Jacobi(gamma, gamma_star, per_dimension=True)
    assert_allclose(per_dimension.logdet(z), entry["J_logdet_per_d"], rtol=1e-9)
    assert_allclose(gamma * law.logdet(z), entry["J_logdet_per_d"], rtol=1e-9)
    assert per_dimension != law
    # y = -z dJ/dz
    step = 1e-5 * z
    slope = (per_dimension.logdet(z + step) - per_dimension.logdet(z - step)) / (2 * step)
    assert_allclose(-z * slope, entry["y"], rtol=1e-8)


def test_simple_laws():
    assert_allclose([semicircle(2.0).moments(k) for k in range(7)], [1, 0, 2, 0, 8, 0, 40])
    assert_allclose([marchenko_pastur(1.0).moments(k) for k in range(6)], [1, 1, 2, 5, 14, 42])
    assert_allclose(marchenko_pastur(0.5, 3.0).moments(1), 3.0)
    assert_allclose(marchenko_pastur(0.5).moments(2), 3.0)
    # The arcsine law: two subspaces of half the dimension.
    law = jacobi(0.5, 0.5)
    x = np.linspace(0.01, 0.99, 9)
    assert_allclose(law.density(x), 1 / (np.pi * np.sqrt(x * (1 - x))), rtol=1e-13)
    assert_allclose(law.cdf(x), 2 / np.pi * np.arcsin(np.sqrt(x)), rtol=1e-12)
    assert_allclose(law.logdet(3.0), 2 * np.log((1 + 2) / 2), rtol=1e-14)


def test_one_subspace_is_the_whole_space():
    assert jacobi(0.4, 1.0).atoms == ((1.0, 1.0),)
    assert jacobi(1.0, 0.25).atoms == ((0.0, 0.75), (1.0, 0.25))
    assert jacobi(1.0, 1.0).atoms == ((1.0, 1.0),)
    law = jacobi(1.0, 0.25)
    assert (law.support, law.edges) == (None, ())
    assert_array_equal(law.density([0.0, 0.5, 1.0]), 0)
    assert law.quantile([0.5, 0.9]).tolist() == [0, 1]
    nearly = jacobi(1 - 1e-7, 0.25)
    assert_allclose(nearly.moments(3), 0.25, rtol=1e-6)
    assert_allclose(nearly.cdf(0.5), 0.75, rtol=1e-6)


@pytest.mark.parametrize("ratio", [1e-6, 1e-3, 1e3, 1e6])
def test_extreme_ratios(ratio):
    """A narrow Marchenko-Pastur law is a semicircle to first order in its relative width."""
    law = marchenko_pastur(ratio)
    mass, scale = min(ratio, 1), max(1, 1 / ratio)
    small = math.sqrt(min(ratio, 1 / ratio))
    assert_allclose(1 - law.cdf(1e-300) if ratio < 1 else 1.0, mass, rtol=1e-9)
    u = np.linspace(-1.5, 1.5, 7)
    circle = semicircle(1.0)
    density = law.density(scale * (1 + small * u)) * scale * small / mass
    assert_allclose(density, circle.density(u), rtol=5 * small)
    below = (law.cdf(scale * (1 + small * u)) - (1 - mass)) / mass
    assert_allclose(below, circle.cdf(u), atol=small + 1e-10)
    assert_allclose(law.moments(2), 1 + 1 / ratio, rtol=1e-14)
    assert_allclose(law.logdet(1e-9), 1e-9, rtol=1e-2 if ratio < 1 else 1e-8)


def test_logdet_at_extreme_arguments():
    for law in SMOOTH + HARD + ATOMS:
        low, _ = bounds(law)
        assert law.logdet(0.0) == 0
        assert_allclose(law.logdet(1e-12), 1e-12 * law.moments(1), rtol=1e-9, atol=1e-23)
        if low >= 0:
            zero = dict(law.atoms).get(0.0, 0.0)
            big = law.logdet(np.array([1e30, 1e40]))
            assert_allclose(big[1] - big[0], (1 - zero) * math.log(1e10), rtol=1e-12)


# ---- random matrices ----


def miscount(law, eigenvalues):
    """Largest difference between the eigenvalues below a point and what the law has there."""
    values = np.sort(eigenvalues)
    n = len(values)
    x = np.concatenate([values - 1e-9, values + 1e-9])  # both sides of an atom
    return np.abs(n * law.cdf(x) - np.searchsorted(values, x, side="right")).max()


def test_laws_of_random_matrices():
    """Eigenvalues are rigid: counts follow the law up to the root of log d."""
    d, rng = 600, np.random.default_rng(11)
    G = rng.standard_normal((d, d))
    assert miscount(semicircle(0.5), np.linalg.eigvalsh((G + G.T) / (2 * np.sqrt(d)))) < 5
    for ratio, scale in ((0.5, 2.0), (2.0, 1.0)):
        m = int(ratio * d)
        G = rng.standard_normal((d, m))
        eigenvalues = np.linalg.eigvalsh(scale / m * (G @ G.T))
        eigenvalues[np.abs(eigenvalues) < 1e-10] = 0.0
        assert miscount(marchenko_pastur(ratio, scale), eigenvalues) < 5
    for gamma, gamma_star in ((0.5, 0.3), (0.3, 0.5), (0.7, 0.6)):
        m, k = round(gamma * d), round(gamma_star * d)
        U = np.linalg.qr(rng.standard_normal((d, m)))[0]
        V = np.linalg.qr(rng.standard_normal((d, k)))[0]
        cosines2 = np.linalg.eigvalsh((U.T @ V) @ (V.T @ U))
        cosines2[np.abs(cosines2) < 1e-10] = 0.0
        cosines2[np.abs(cosines2 - 1) < 1e-10] = 1.0
        assert miscount(jacobi(gamma, gamma_star), cosines2) < 5


# ---- quantiles ----

ratios = st.floats(1e-3, 1e3)
fractions = st.floats(1e-3, 1.0)
laws = st.one_of(
    st.builds(semicircle, ratios),
    st.builds(marchenko_pastur, ratios, ratios),
    st.builds(jacobi, fractions, fractions),
    st.builds(
        lambda x: discrete(x, np.full(len(x), 1 / len(x))),
        st.lists(st.floats(-10, 10), min_size=1, max_size=5),
    ),
)


@given(law=laws, p=st.lists(st.floats(0, 1), min_size=1, max_size=5))
@settings(max_examples=60)
def test_quantile_inverts_the_cdf(law, p):
    p = np.array(p)
    x = law.quantile(p)
    low, high = bounds(law)
    reach = 1e-9 * max(abs(low), abs(high), 1e-300)
    assert np.all((x >= low) & (x <= high))
    # cdf(x) >= p, and less just below; a position is known to its rounding only.
    assert np.all(law.cdf(x + reach) >= p - 1e-12)
    positive = p > 1e-9
    assert np.all(law.cdf(x - reach)[positive] <= p[positive] + 1e-12)


@over_continuous
def test_quantile_and_cdf_are_inverse_on_the_density(law):
    x = inside(law, 50)
    p = law.cdf(x)
    assert_allclose(law.cdf(law.quantile(p)), p, atol=1e-14)
    assert_allclose(law.quantile(p), x, rtol=1e-10, atol=1e-10)


def test_quantiles_at_atoms_and_gaps():
    law = jacobi(0.7, 0.6)
    (_, at_zero), (_, at_one) = law.atoms
    low, high = law.support
    assert law.quantile([0.0, at_zero / 2, 1 - at_one / 2, 1.0]).tolist() == [0, 0, 1, 1]
    assert_allclose(law.quantile([at_zero + 1e-9, 1 - at_one - 1e-9]), [low, high], atol=1e-3)
    assert low <= law.quantile(at_zero + 1e-9)
    assert law.quantile(1 - at_one - 1e-9) <= high
    assert semicircle(1.0).quantile([0, 0.5, 1]).tolist() == [-2, pytest.approx(0, abs=1e-14), 2]
    assert discrete([1, 2], [0.5, 0.5]).quantile([[0, 0.5], [0.6, 1]]).tolist() == [[1, 1], [2, 2]]


class Blocks(spectra.Law):
    """Uniform on [0, 1] and [2, 3], with mass 0.3 each, and atoms at 0.5 and 3."""

    edges = (0.0, 1.0, 2.0, 3.0)
    support = (0.0, 3.0)
    atoms = ((0.5, 0.2), (3.0, 0.2))
    density = cauchy = hilbert = logdet = moments = quadrature = scaled = None

    def cdf(self, x):
        below = 0.3 * (np.clip(x, 0, 1) + np.clip(np.subtract(x, 2), 0, 1))
        return below + 0.2 * (np.asarray(x) >= 0.5) + 0.2 * (np.asarray(x) >= 3)


def test_quantiles_of_laws_with_several_intervals():
    p = [0.0, 0.1, 0.15, 0.2, 0.35, 0.36, 0.5, 0.65, 0.79, 0.81, 1.0]
    x = [0.0, 1 / 3, 0.5, 0.5, 0.5, 0.5 + 0.01 / 0.3, 1.0, 2.5, 2 + 0.29 / 0.3, 3.0, 3.0]
    assert_allclose(Blocks().quantile(p), x, rtol=1e-12, atol=1e-15)


# ---- laws as values ----


@over_all
def test_scaled(law):
    twice = law.scaled(2.0)
    assert type(twice) is type(law)
    assert twice != law
    assert_allclose([x for x, _ in twice.atoms], [2 * x for x, _ in law.atoms])
    assert_allclose(twice.edges, 2 * np.array(law.edges), rtol=1e-14)
    assert_allclose(twice.moments(3), 8 * law.moments(3), rtol=1e-13)
    assert_allclose(twice.logdet(0.1), law.logdet(0.2), rtol=1e-13)
    assert_allclose(twice.cauchy(1 + 2j), law.cauchy(0.5 + 1j) / 2, rtol=1e-13)
    assert_allclose(twice.cdf(1.3), law.cdf(0.65), rtol=1e-13)
    if law.moments(1) > 0:
        assert_allclose(law.scaled(0.3 / law.moments(1)).moments(1), 0.3, rtol=1e-13)
    with pytest.raises(ValueError, match="factor must be"):
        law.scaled(0.0)


@over_all
def test_laws_are_values(law):
    law.quadrature(5)  # fills caches
    for again in (
        pickle.loads(pickle.dumps(law)),
        copy.deepcopy(law),
        eval(repr(law), vars(spectra)),
        dataclasses.replace(law),
    ):
        assert again == law
        assert hash(again) == hash(law)
        assert again.moments(2) == law.moments(2)
    assert isinstance(law, op.spectra.Law)
    with pytest.raises(AttributeError):
        law.anything = 1


def test_laws_of_other_parameters_differ():
    laws = [
        semicircle(1.0),
        semicircle(2.0),
        marchenko_pastur(1.0),
        marchenko_pastur(2.0),
        marchenko_pastur(1.0, 2.0),
        jacobi(0.5, 0.3),
        jacobi(0.3, 0.5),
        Jacobi(0.5, 0.3, per_dimension=True),
        discrete([1.0], [1.0]),
    ]
    assert len(set(laws)) == len(laws)
    assert marchenko_pastur(1) == marchenko_pastur(1.0, np.float64(1.0))
    assert repr(marchenko_pastur(np.float64(0.5))) == "MarchenkoPastur(ratio=0.5)"
    assert repr(Jacobi(0.5, 0.3, per_dimension=True)).endswith("per_dimension=True)")


def test_discrete_laws_are_canonical():
    law = discrete([3.0, -0.0, 3.0, 7.0], [0.25, 0.5, 0.25, 0.0])
    assert law.atoms == ((0.0, 0.5), (3.0, 0.5))
    assert law == discrete((0, 3), (0.5, 0.5))
    thirds = discrete(range(3), [0.3333333333] * 3)
    assert sum(thirds.weights) == pytest.approx(1, abs=1e-15)
    assert eval(repr(thirds), vars(spectra)) == thirds
    many = discrete(np.arange(3000.0), np.full(3000, 1 / 3000))
    x = np.linspace(-1, 3000, 1001)
    direct = (1 / (x[:, None] + 0.1j - np.arange(3000))).mean(axis=1)
    assert_allclose(many.cauchy(x + 0.1j), direct, rtol=1e-10)


@over_all
def test_shapes_follow_the_argument(law):
    for function in (law.density, law.cdf, law.hilbert, law.logdet):
        assert np.ndim(function(0.01)) == 0
        assert isinstance(float(function(0.01)), float)
        assert function(np.full((2, 3), 0.01)).shape == (2, 3)
        assert function(np.empty((0, 2))).shape == (0, 2)
    assert law.quantile(np.full((2, 1), 0.3)).shape == (2, 1)
    assert law.cauchy(np.full((2, 2), 1j)).shape == (2, 2)
    assert isinstance(complex(law.cauchy(1j)), complex)
    assert isinstance(law.moments(2), float)
    assert np.isnan(law.cdf(np.nan))
    assert np.isnan(law.density(np.nan))


# ---- wrong arguments ----


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: marchenko_pastur(0.0), "ratio"),
        (lambda: marchenko_pastur(-1), "ratio"),
        (lambda: marchenko_pastur(np.inf), "ratio"),
        (lambda: marchenko_pastur(np.nan), "ratio"),
        (lambda: marchenko_pastur(1.0, 0.0), "scale"),
        (lambda: semicircle(0.0), "variance"),
        (lambda: jacobi(0.0, 0.5), "gamma"),
        (lambda: jacobi(1.1, 0.5), "gamma"),
        (lambda: jacobi(0.5, 0.0), "gamma_star"),
        (lambda: jacobi(0.5, 1.5), "gamma_star"),
        (lambda: Jacobi(0.5, 0.5, scale=-1.0), "scale"),
        (lambda: discrete([], []), "atoms"),
        (lambda: discrete([np.nan], [1]), "atoms"),
        (lambda: discrete([0, 1], [1.0]), "weights"),
        (lambda: discrete([0, 1], [1.5, -0.5]), "weights"),
        (lambda: discrete([0, 1], [0.5, 0.4]), "weights"),
        (lambda: spectra.Discrete([], []), "positions"),
        (lambda: semicircle(1.0).quantile(1.1), "p"),
        (lambda: semicircle(1.0).quantile([0.5, np.nan]), "p"),
        (lambda: semicircle(1.0).cauchy(0.5), "z"),
        (lambda: semicircle(1.0).cauchy([3.0, 2.0]), "z"),
        (lambda: semicircle(1.0).cauchy(0.5 + 0j), "z"),
        (lambda: marchenko_pastur(0.5).cauchy(0.0), "z"),
        (lambda: discrete([1], [1]).cauchy(1.0), "z"),
        (lambda: semicircle(1.0).logdet(0.5), "z"),
        (lambda: semicircle(1.0).logdet(-0.6), "z"),
        (lambda: marchenko_pastur(1.0).logdet([1.0, -0.3]), "z"),
        (lambda: discrete([2], [1]).logdet(-0.5), "z"),
        (lambda: marchenko_pastur(1.0).logdet(np.inf), "z"),
        (lambda: semicircle(1.0).moments(-1), "k"),
        (lambda: semicircle(1.0).quadrature(0), "n"),
        (lambda: semicircle(1.0).density([[1.0], [1.0, 2.0]]), "x"),
    ],
)
def test_wrong_values_are_named(make, name):
    with pytest.raises(ValueError, match=rf"^{name} must be "):
        make()


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: marchenko_pastur("1"), "ratio"),
        (lambda: semicircle(True), "variance"),
        (lambda: jacobi(0.5, None), "gamma_star"),
        (lambda: Jacobi(0.5, 0.5, per_dimension=1), "per_dimension"),
        (lambda: discrete(["a"], [1]), "atoms"),
        (lambda: semicircle(1.0).density(1j), "x"),
        (lambda: semicircle(1.0).cdf("a"), "x"),
        (lambda: semicircle(1.0).cauchy("a"), "z"),
        (lambda: semicircle(1.0).logdet(1j), "z"),
        (lambda: semicircle(1.0).moments(1.5), "k"),
        (lambda: semicircle(1.0).quadrature(8.0), "n"),
        (lambda: semicircle(1.0).scaled(None), "factor"),
    ],
)
def test_wrong_types_are_named(make, name):
    with pytest.raises(TypeError, match=rf"^{name} must be "):
        make()


# ---- free sums with a semicircle ----

SUMS = [
    free_sum(discrete([1.5], [1.0]), 0.3),
    free_sum(discrete([-1.0, 1.0], [0.5, 0.5]), 0.25),
    free_sum(discrete([0.0, 1.0, 3.0], [0.5, 0.2, 0.3]), 0.05),
    free_sum(marchenko_pastur(0.2, 2.0), 0.1),
    free_sum(marchenko_pastur(0.5), 0.3),
    free_sum(marchenko_pastur(1.0), 0.5),
    free_sum(marchenko_pastur(3.0), 2.0),
    free_sum(jacobi(0.7, 0.6), 0.03),
    free_sum(jacobi(0.5, 0.5), 0.1),
    spectra.FreeSum(semicircle(0.5), 0.25),
]
# A gap that nearly closes, or has just closed; hard edges that have just become soft; extremes.
HARD_SUMS = [
    *(free_sum(discrete([-1.0, 1.0], [0.5, 0.5]), 1 + x) for x in (-1e-3, -1e-9, 0, 1e-9, 1e-4)),
    free_sum(marchenko_pastur(0.5), 0.1),
    free_sum(marchenko_pastur(0.9), 1e-4),
    free_sum(marchenko_pastur(1.0), 1e-2),
    free_sum(jacobi(0.5, 0.5), 1e-6),
    free_sum(jacobi(0.7, 0.6), 1e-3),
    free_sum(jacobi(0.7, 0.6), 1e-8),
    free_sum(discrete([0.0, 1.0], [0.5, 0.5]), 1e-12),
    free_sum(marchenko_pastur(0.5), 1e12),
]
over_sums = pytest.mark.parametrize("law", SUMS, ids=repr)
over_all_sums = pytest.mark.parametrize("law", SUMS + HARD_SUMS, ids=repr)


def within(law, count=21):
    """Points inside the intervals of a law, dense at their ends."""
    fractions = np.sin(np.pi / 2 * (np.arange(count) + 0.5) / count) ** 2
    edges = np.array(law.edges)
    return np.concatenate(
        [a + (b - a) * fractions for a, b in zip(edges[::2], edges[1::2], strict=True)]
    )


def test_free_sums_in_closed_form():
    assert free_sum(marchenko_pastur(0.5), 0) == marchenko_pastur(0.5)
    assert free_sum(semicircle(0.5), 0.25) == semicircle(0.75)
    law = free_sum(jacobi(0.7, 0.6), 0.25)
    assert free_sum(law, 0.5) == free_sum(jacobi(0.7, 0.6), 0.75)
    assert spectra.FreeSum(law, 0.5) == free_sum(law, 0.5)
    assert free_sum(Jacobi(0.5, 0.3, per_dimension=True), 1) == free_sum(jacobi(0.5, 0.3), 1)
    # A semicircle, also as the sum of two, and shifted.
    x = np.linspace(-2, 2, 41)
    z = np.array([3.0 + 0.1j, 0.5 + 1e-9j, -0.1 - 2.0j, -4.0, 2.5])
    for sum_, circle, shift in (
        (spectra.FreeSum(semicircle(0.5), 0.25), semicircle(0.75), 0.0),
        (free_sum(discrete([1.5], [1.0]), 0.3), semicircle(0.3), 1.5),
    ):
        assert_allclose(sum_.edges, np.array(circle.edges) + shift, rtol=1e-14)
        assert_allclose(sum_.density(x + shift), circle.density(x), rtol=1e-12)
        assert_allclose(sum_.cdf(x + shift), circle.cdf(x), rtol=1e-12, atol=1e-15)
        assert_allclose(sum_.hilbert(x + shift), circle.hilbert(x), rtol=1e-12, atol=1e-14)
        assert_allclose(sum_.cauchy(z + shift), circle.cauchy(z), rtol=1e-12)
        p = np.linspace(0, 1, 21)
        assert_allclose(sum_.quantile(p), circle.quantile(p) + shift, rtol=1e-12, atol=1e-14)


def test_free_sums_by_their_polynomials():
    """Two atoms at -1 and 1: a cubic in G; Marchenko-Pastur: the cubic of the theory."""

    def expected(x, *coefficients):
        roots = [np.roots([np.polyval(c, y) for c in coefficients]) for y in x]
        return np.array([root[np.argmin(root.imag)] for root in roots])

    for t in (0.3, 0.8, 2.0):
        law = free_sum(discrete([-1.0, 1.0], [0.5, 0.5]), t)
        x = within(law)
        G = expected(x, [t**2], [-2 * t, 0], [1, 0, t - 1], [-1, 0])
        assert_allclose(law.density(x), -G.imag / np.pi, rtol=1e-9)
        assert_allclose(law.hilbert(x), G.real, rtol=1e-9, atol=1e-12)
    for k, a, t in ((0.5, 1.0, 0.1), (0.2, 2.0, 0.1), (3.0, 0.7, 0.4)):
        law = free_sum(marchenko_pastur(k, a), t)
        x = within(law)
        G = expected(x, [a * t], [-a, -t * k], [k, a - a * k], [-k])
        assert_allclose(law.density(x), -G.imag / np.pi, rtol=1e-9)
        assert_allclose(law.hilbert(x), G.real, rtol=1e-9, atol=1e-12)
        # The edges are zeros of the discriminant.
        A, B, C, D = a * t, -np.array([a, t * k]), np.array([k, a - a * k]), -k
        square = np.polymul(B, C)
        terms = (
            np.polymul([18 * A * D], square),
            -4 * D * np.polymul(B, np.polymul(B, B)),
            np.polymul(square, square),
            -4 * A * np.polymul(C, np.polymul(C, C)),
            [-27 * A**2 * D**2],
        )
        zeros = np.roots(functools.reduce(np.polyadd, terms))
        zeros = np.sort(zeros.real[np.abs(zeros.imag) < 1e-9])
        assert_allclose(law.edges, zeros, rtol=1e-9)


class Disguised(spectra.Law):
    """A law of which only the interface is known."""

    def __init__(self, law):
        self.law = law

    support = property(lambda self: self.law.support)
    atoms = property(lambda self: self.law.atoms)
    edges = property(lambda self: self.law.edges)


for name in ("density", "cdf", "cauchy", "hilbert", "logdet", "moments", "quadrature"):
    setattr(Disguised, name, lambda self, x, name=name: getattr(self.law, name)(x))
Disguised.scaled = lambda self, factor: Disguised(self.law.scaled(factor))
Disguised.__abstractmethods__ = frozenset()


@pytest.mark.parametrize("law", [marchenko_pastur(0.5), marchenko_pastur(3.0), jacobi(0.7, 0.6)])
@pytest.mark.parametrize("variance", [1e-3, 0.2, 5.0])
def test_free_sum_of_a_law_without_closed_forms(law, variance):
    """Also Marchenko-Pastur without its cubic."""
    plain, closed = free_sum(Disguised(law), variance), free_sum(law, variance)
    assert_allclose(plain.edges, closed.edges, rtol=1e-10, atol=1e-12)
    x = within(closed)
    assert_allclose(plain.density(x), closed.density(x), rtol=1e-9)
    assert_allclose(plain.cdf(x), closed.cdf(x), atol=1e-11)
    assert_allclose(plain.quantile([0.1, 0.7]), closed.quantile([0.1, 0.7]), rtol=1e-9)
    assert_allclose(plain.logdet(0.05), closed.logdet(0.05), rtol=1e-11)
    x, w = plain.quadrature(200)
    assert_allclose([w @ x**k for k in range(5)], [closed.moments(k) for k in range(5)], rtol=1e-9)


@over_all_sums
def test_free_sums_solve_their_equation(law):
    """G(z) is the Cauchy transform of the law at z - variance G(z); also on the real axis."""
    t, scale = law.variance, max(np.abs(law.edges))
    rng = np.random.default_rng(5)
    z = scale * (rng.normal(size=200) + 1j * 10 ** rng.uniform(-9, 1, 200))
    G = law.cauchy(z)
    assert np.all(G.imag < 0)
    assert np.all(np.abs(G) * z.imag <= 1 + 1e-12)
    assert np.all(np.abs(G) <= (1 + 1e-9) / math.sqrt(t))
    assert_array_equal(law.cauchy(z.conj()), G.conj())
    kept = np.abs(z - t * G) > 1e-6 * scale  # else the difference is rounded
    assert_allclose(law.law.cauchy(z - t * G)[kept], G[kept], rtol=1e-7)
    assert_allclose(law.law.cauchy(z - t * G), G, rtol=1e-6, atol=1e-6 / math.sqrt(t))
    far = np.array([1e9, -1e9, 1e9j]) * scale
    assert_allclose(far * law.cauchy(far), 1.0, atol=1e-7)
    low, high = law.support
    real = np.array([low - scale, low - 1e-3 * scale, high + 1e-6 * scale, high + 3 * scale])
    assert_allclose(law.cauchy(real + 0j), law.cauchy(real), rtol=1e-14)
    assert_allclose(law.law.cauchy(real - t * law.cauchy(real)), law.cauchy(real), rtol=1e-7)
    assert_array_equal(law.cauchy(real), law.hilbert(real))


@over_sums
def test_free_sums_on_the_real_axis(law):
    x = within(law)
    height = 1e-10 * max(np.abs(law.edges))
    for side in (1, -1):
        G = law.cauchy(x + side * 1j * height)
        assert_allclose(-side * G.imag / np.pi, law.density(x), rtol=1e-5)
        assert_allclose(G.real, law.hilbert(x), rtol=1e-5, atol=1e-6)
    edges = np.array(law.edges)
    assert law.support == (edges[0], edges[-1])
    assert law.atoms == ()
    assert np.all(np.diff(edges) > 0)
    assert_array_equal(law.density(edges), 0)
    assert_array_equal(law.density((edges[1:-1:2] + edges[2::2]) / 2), 0)
    assert np.all(law.density(x) > 0)
    # Square roots at the edges.
    step = 1e-6 * np.min(np.diff(edges)) * np.resize([1, -1], len(edges))
    assert_allclose(law.density(edges + 4 * step) / law.density(edges + step), 2, rtol=1e-2)


@over_all_sums
def test_quadrature_of_free_sums(law):
    x, w = law.quadrature(200)
    intervals = len(law.edges) // 2
    assert len(x) == len(w) == 200 * intervals
    assert np.all(np.diff(x) >= 0)
    assert np.all(w >= 0)
    assert_allclose(w.sum(), 1.0, rtol=1e-14)
    hard = law in HARD_SUMS
    tolerance = 1e-9 if hard else 1e-12
    scale = max(np.abs(law.edges))
    for k in range(9):
        assert abs(w @ x**k - law.moments(k)) < tolerance * scale**k
    for z in (2 * scale, 1j * scale, -0.1 * scale + 0.7j * scale):
        assert_allclose(w @ (1 / (z - x)), law.cauchy(z), rtol=tolerance)
    assert_allclose(w @ np.log1p(0.5 / scale * x), law.logdet(0.5 / scale), rtol=tolerance)
    if law.variance > 1e-10:  # else z is not known to the distance of an atom
        h, rho = law.hilbert(x), law.density(x)
        assert_allclose(w @ (x * h), 0.5, rtol=100 * tolerance)
        assert_allclose(w @ h**2, np.pi**2 / 3 * (w @ rho**2), rtol=100 * tolerance)
    # The masses of the intervals are those of the law between the gaps.
    masses = w.reshape(intervals, 200).sum(axis=1)
    assert_allclose(np.cumsum(masses), law.cdf(np.array(law.edges)[1::2]), rtol=1e-12)
    for n in (1, 2, 3):
        assert_allclose(law.quadrature(n)[1].sum(), 1.0, rtol=1e-14)


@over_sums
def test_cdf_and_quantile_of_free_sums(law):
    for at in law.quantile([0.03, 0.3, 0.5, 0.77, 0.99]):
        # A panel between the lower edge and the point, by adaptive integration.
        start = max(edge for edge in law.edges[::2] if edge <= at)

        def integrand(angle, start=start, at=at):
            x = start + (at - start) * math.sin(angle / 2) ** 2
            return float(law.density(x)) * (at - start) * math.sin(angle) / 2

        part = integrate.quad(integrand, 0, np.pi, epsabs=1e-11, limit=300)[0] if at > start else 0
        assert_allclose(law.cdf(at), law.cdf(start) + part, atol=1e-9)
    low, high = law.support
    assert law.cdf([-np.inf, low - 1, low, high, np.inf]).tolist() == [0, 0, 0, 1, 1]
    assert law.quantile([0.0, 1.0]).tolist() == [low, high]
    x = within(law, 50)
    assert_allclose(law.cdf(law.quantile(law.cdf(x))), law.cdf(x), atol=1e-14)


bases = st.one_of(
    st.builds(marchenko_pastur, st.floats(0.05, 20), st.floats(0.1, 10)),
    st.builds(jacobi, st.floats(0.05, 1.0), st.floats(0.05, 1.0)),
    st.builds(
        lambda x: discrete(x, np.full(len(x), 1 / len(x))),
        st.lists(st.floats(-10, 10), min_size=1, max_size=5),
    ),
)


@given(base=bases, exponent=st.floats(-8, 4), p=st.lists(st.floats(0, 1), min_size=1, max_size=5))
@settings(max_examples=30)
@example(base=marchenko_pastur(0.25, 0.125), exponent=0.0, p=[1 - 2**-53])
def test_free_sums_of_random_laws(base, exponent, p):
    law = free_sum(base, 10.0**exponent)
    p = np.array(p)
    x = law.quantile(p)
    assert_allclose(law.cdf(x), p, atol=1e-8)
    edges = np.array(law.edges).reshape(-1, 2)
    assert np.all(((x[:, None] >= edges[:, 0]) & (x[:, None] <= edges[:, 1])).any(axis=1))
    nodes, weights = law.quadrature(200)
    assert_allclose(weights @ nodes, law.moments(1), rtol=1e-7, atol=1e-7 * max(np.abs(law.edges)))
    second = base.moments(2) + law.variance
    assert_allclose([law.moments(2), weights @ nodes**2], second, rtol=1e-7)


@over_sums
def test_moments_and_logdet_of_free_sums(law):
    t, m = law.variance, [law.law.moments(k) for k in range(5)]
    fourth = m[4] + 4 * t * m[2] + 2 * t * m[1] ** 2 + 2 * t**2
    expected = [1, m[1], m[2] + t, m[3] + 3 * t * m[1], fourth]
    assert_allclose([law.moments(k) for k in range(5)], expected, rtol=1e-13)
    assert law.logdet(0.0) == 0
    assert_allclose(law.logdet(1e-12), 1e-12 * law.moments(1), rtol=1e-9, atol=1e-23)
    low, high = law.support
    x, w = law.quadrature(400)
    for z in (0.9 / max(high, 1e-3) * -1, 0.3 / max(-low, 1e-3)):
        if 1 + z * low > 0 and 1 + z * high > 0:
            assert_allclose(law.logdet(z), w @ np.log1p(z * x), rtol=1e-10)


def test_gaps_open_and_close():
    two = discrete([-1.0, 1.0], [0.5, 0.5])
    assert [len(free_sum(two, 1 + x).edges) for x in (-1e-6, 1e-6)] == [4, 2]
    edges = [np.array(free_sum(marchenko_pastur(0.2), t).edges) for t in np.geomspace(1e-4, 9, 30)]
    counts = [len(edge) for edge in edges]
    assert counts == sorted(counts, reverse=True)
    assert {2, 4} == set(counts)
    inner = [edge[2] - edge[1] for edge in edges if len(edge) == 4]
    assert np.all(np.diff(inner) < 0)
    law = free_sum(marchenko_pastur(0.2), 0.01)
    assert_allclose(law.cdf(np.array(law.edges)[1:3]), 0.8, rtol=1e-14)
    assert law.quantile(0.8) == law.edges[1]
    assert law.quantile(0.8 + 1e-12) >= law.edges[2]
    # At the critical variance the density is that of a cusp: |x|^(1/3).
    law = free_sum(two, 1.0)
    x = 10.0 ** np.array([-12, -9, -6])
    assert_allclose(law.density(x) / x ** (1 / 3), math.sqrt(3) / (2 * np.pi), rtol=1e-3)


def test_extreme_variances():
    law = marchenko_pastur(3.0)
    x = inside(law)
    assert_allclose(free_sum(law, 1e-13).density(x), law.density(x), rtol=1e-9)
    assert_allclose(free_sum(law, 1e-13).cdf(x), law.cdf(x), atol=1e-12)
    assert_allclose(free_sum(law, 1e-13).hilbert(x), law.hilbert(x), rtol=1e-9, atol=1e-9)
    # An atom becomes a semicircle with its share of the variance.
    law, t = free_sum(marchenko_pastur(0.25), 1e-12), 0.75e-12
    assert_allclose(law.edges[:2], semicircle(t).edges, rtol=1e-5)
    x = np.linspace(-1.9, 1.9, 9) * math.sqrt(t)
    assert_allclose(law.density(x), 0.75 * semicircle(t).density(x), rtol=1e-4)
    law = free_sum(jacobi(0.7, 0.6), 1e20)
    x = np.linspace(-1.9e10, 1.9e10, 9)
    assert_allclose(law.density(x), semicircle(1e20).density(x), rtol=1e-9)
    for variance in (1e-30, 1e30):
        law = free_sum(discrete([0.0, 1.0], [0.5, 0.5]), variance)
        assert np.all(np.isfinite(law.edges))
        assert_allclose(law.cdf([-1e16, 1e16]), [0, 1])


def test_free_sums_of_random_matrices():
    d, rng = 1000, np.random.default_rng(12)
    variance = 0.1
    noise = rng.standard_normal((d, d))
    noise = math.sqrt(variance / (2 * d)) * (noise + noise.T)
    for ratio in (0.2, 2.0):
        G = rng.standard_normal((d, int(ratio * d)))
        eigenvalues = np.linalg.eigvalsh(G @ G.T / (ratio * d) + noise)
        law = free_sum(marchenko_pastur(ratio), variance)
        assert miscount(law, eigenvalues) < 5
        assert_allclose(eigenvalues[[0, -1]], law.support, atol=0.05)
        gaps = law.edges[1:-1]
        assert len(gaps) == (2 if ratio < 1 else 0)
        if gaps:
            assert gaps[0] - 0.02 < eigenvalues[799] < gaps[0] + 0.02
            assert gaps[1] - 0.1 < eigenvalues[800] < gaps[1] + 0.1


@over_sums
def test_free_sums_are_values(law):
    law.quadrature(5)
    law.density(0.5)
    for again in (
        pickle.loads(pickle.dumps(law)),
        copy.deepcopy(law),
        eval(repr(law), vars(spectra)),
        dataclasses.replace(law),
    ):
        assert again == law
        assert hash(again) == hash(law)
        assert again.edges == law.edges
    assert isinstance(law, op.spectra.Law)
    with pytest.raises(AttributeError):
        law.anything = 1
    twice = law.scaled(2.0)
    assert_allclose(twice.edges, 2 * np.array(law.edges), rtol=1e-12, atol=1e-13)
    assert_allclose(twice.density(0.4), law.density(0.2) / 2, rtol=1e-10)
    assert_allclose(twice.moments(3), 8 * law.moments(3), rtol=1e-13)
    with pytest.raises(ValueError, match="factor must be"):
        law.scaled(0.0)


@over_sums
def test_shapes_of_free_sums(law):
    for function in (law.density, law.cdf, law.hilbert, law.logdet):
        assert np.ndim(function(0.01)) == 0
        assert isinstance(float(function(0.01)), float)
        assert function(np.full((2, 3), 0.01)).shape == (2, 3)
        assert function(np.empty((0, 2))).shape == (0, 2)
    assert law.quantile(np.full((2, 1), 0.3)).shape == (2, 1)
    assert law.cauchy(np.full((2, 2), 1j)).shape == (2, 2)
    assert isinstance(complex(law.cauchy(1j)), complex)
    assert np.isnan(law.cdf(np.nan))
    assert np.isnan(law.density(np.nan))
    assert np.isnan(law.hilbert(np.nan))


@pytest.mark.parametrize(
    ("make", "error", "name"),
    [
        (lambda: free_sum(marchenko_pastur(1.0), -0.1), ValueError, "variance"),
        (lambda: free_sum(marchenko_pastur(1.0), np.nan), ValueError, "variance"),
        (lambda: free_sum(marchenko_pastur(1.0), np.inf), ValueError, "variance"),
        (lambda: free_sum(marchenko_pastur(1.0), "1"), TypeError, "variance"),
        (lambda: free_sum([0.0, 1.0], 0.1), TypeError, "law"),
        (lambda: free_sum(None, 0.0), TypeError, "law"),
        (lambda: spectra.FreeSum(marchenko_pastur(1.0), 0.0), ValueError, "variance"),
        (lambda: spectra.FreeSum("law", 1.0), TypeError, "law"),
        (lambda: SUMS[1].cauchy(-1.0), ValueError, "z"),
        (lambda: SUMS[1].cauchy(SUMS[1].edges[0]), ValueError, "z"),
        (lambda: SUMS[1].cauchy("a"), TypeError, "z"),
        (lambda: SUMS[1].quantile(1.5), ValueError, "p"),
        (lambda: SUMS[1].logdet(-1.0), ValueError, "z"),
        (lambda: SUMS[1].logdet(np.nan), ValueError, "z"),
        (lambda: SUMS[1].moments(-1), ValueError, "k"),
        (lambda: SUMS[1].quadrature(0), ValueError, "n"),
        (lambda: SUMS[1].density(1j), TypeError, "x"),
    ],
)
def test_wrong_arguments_of_free_sums(make, error, name):
    with pytest.raises(error, match=rf"^{name} must be "):
        make()


@pytest.mark.parametrize("n", [1, 2, 7, 40])
@pytest.mark.parametrize(
    "law",
    [
        marchenko_pastur(0.3, 2.0),
        marchenko_pastur(1.0),
        semicircle(0.7),
        jacobi(0.5, 0.3),
        discrete([-1.0, 0.5, 2.0], [0.2, 0.5, 0.3]),
        free_sum(discrete([-5.0, 5.0], [0.3, 0.7]), 1.0),
    ],
    ids=repr,
)
def test_bin_means(law, n):
    means = law.bin_means(n)
    assert len(means) == n
    assert np.all(np.diff(means) >= 0)
    assert_allclose(means.mean(), law.moments(1), rtol=1e-12, atol=1e-12)
    # Each is the mean of the quantile function over its bin.
    fine = law.quantile((np.arange(200 * n) + 0.5) / (200 * n)).reshape(n, 200).mean(axis=1)
    assert_allclose(means, fine, atol=2e-3 * np.ptp(fine) + 2e-2)
