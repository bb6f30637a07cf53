"""The room giant_step against naive.py, independently derived numbers, and its invariants."""

import dataclasses
import json
import math
import pathlib
import pickle

import cases
import naive
import numpy as np
import overparam as op
import pytest
from cases import bits
from numpy.testing import assert_allclose, assert_array_equal
from overparam import _check, _core, _run, results
from overparam import giant_step as gs
from overparam.giant_step import Problem, Spike
from overparam.results import Status

FOLDER = pathlib.Path(__file__).parent / "reference"
REFERENCE = json.loads((FOLDER / "giant_step.json").read_text())
ACTIVATIONS = tuple(naive.STEP_ACTIVATIONS)
ORDERS = ("m", "theta", "psi", "Q1", "q2", "V1", "V2")
BASE = {"alpha": 1.5, "beta": 1.0, "ridge": 0.1, "lr": 3.0, "alpha0": 2.0, "target": "sin"}
# A relu among the reference's functions is known there to four digits.
RELU_DIGITS = 1e-4


def cosine(x):
    return np.cos(x) + 2 * x


def cosine_slope(x):
    return 2 - np.sin(x)


COSINE = gs.Function("cos plus 2x", cosine, cosine_slope)


def entries(name):
    """The entries of the reference file under a name, as parameters of a test."""
    return pytest.mark.parametrize("entry", REFERENCE[name], ids=range(len(REFERENCE[name])))


def problem_of(entry, **changes):
    """The problem of an entry of the reference; without a step where it has none."""
    names = {"act": "activation", "target": "target", "alpha": "alpha", "beta": "beta"}
    names |= {"lam": "ridge", "eta": "lr", "alpha0": "alpha0", "noise": "noise_var"}
    names |= {"avals": "readout_values", "pi": "readout_fractions"}
    values = {"alpha": 1.0, "beta": 1.0, "ridge": 0.1, "lr": 1.0, "alpha0": 1.0}
    values |= {names[key]: entry[key] for key in names if key in entry}
    if "pi" in entry:
        values.setdefault("readout_values", [1.0] * len(entry["pi"]))
    return Problem(**(values | changes))


def spike_of(entry):
    return Spike(strength=entry["r"], variance=entry["c"], alignment=entry["gamma"])


def relative(entry, tolerance):
    return RELU_DIGITS if "relu" in (entry["act"], entry.get("target")) else tolerance


def assert_close(value, expected, rtol, atol=0.0):
    assert_allclose(value, expected, rtol=rtol, atol=atol)


# ---- moments, spike, features --------------------------------------------------------------------


@pytest.mark.parametrize("name", REFERENCE["hermites"])
def test_moments_reference(name):
    entry, found = REFERENCE["hermites"][name], gs.moments(name)
    value = (found.mean, found.second, found.h1, found.h2, found.rest)
    assert_close(value, [entry[key] for key in ("e0", "e2", "h1", "h2", "hs2")], 0, 1e-8)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_moments(name):
    found = dataclasses.astuple(gs.moments(name))
    assert_close(found, naive.step_moments(name), 1e-12, 1e-13)


def test_moments_of_a_function():
    """cos z + 2 z: E cos z = e^(-1/2), and only the odd part 2 z has a slope on average."""
    e = math.exp(-0.5)
    expected = (e, (1 + e**4) / 2 + 4, 2.0, -e, 0.0, (1 - e**4) / 2 - e**2)
    assert_close(dataclasses.astuple(gs.moments(COSINE)), expected, 1e-11, 1e-12)


@pytest.mark.parametrize("size", [1e-20, 1e-7, 1e-3, 1e6])
def test_units_of_functions_do_not_matter(size):
    """Of a target, with those of the noise and the rate; and of a student."""
    scaled = gs.Function(
        f"{size} tanh",
        lambda x: size * np.tanh(x),
        lambda x: size / np.cosh(np.minimum(x, 300)) ** 2,
    )
    found, unit = dataclasses.astuple(gs.moments(scaled)), dataclasses.astuple(gs.moments("tanh"))
    powers = size ** np.array([1.0, 2, 1, 1, 1, 2])
    assert_close(found, unit * powers, 1e-10)
    one = Problem(**{**BASE, "target": "tanh"}, noise_var=0.1)
    same = one.replace(target=scaled, lr=one.lr / size, noise_var=one.noise_var * size**2)
    assert_close(gs.solve(same).risk, size**2 * gs.solve(one).risk, 1e-8)
    student = one.replace(
        activation=scaled, ridge=one.ridge * size**2, readout_values=(size,), lr=one.lr / size**2
    )
    assert_close(gs.solve(student).risk, gs.solve(one).risk, 1e-8)


def test_large_even_functions_have_no_slope():
    even = gs.Function("1e7 he2", lambda x: 1e7 * (x * x - 1), lambda x: 2e7 * x)
    found = gs.moments(even)
    assert (found.mean, found.h1, found.h3, found.rest) == (0, 0, 0, 0)
    point = gs.solve(Problem(**{**BASE, "lr": 1e-9}, activation=even), modes_dim=50)
    assert point.stats["regime"] == "no spike"


@entries("params")
def test_spike_reference(entry):
    found = gs.spike(problem_of(entry))
    assert_close(found.strength, entry["r"], 1e-7)
    assert_close(found.variance, entry["c"], 1e-7)
    value = (found.alignment, found.gradient_norm, found.offset)
    assert_close(value, [entry["gamma"], entry["gnorm"], entry["fbar"]], 1e-7, 1e-12)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_spike(activation):
    rng = np.random.default_rng(ACTIVATIONS.index(activation))
    for target in rng.choice(ACTIVATIONS, 3, replace=False):
        eta, alpha0, noise = rng.uniform(-2, 2), rng.uniform(0.2, 5), rng.uniform(0, 0.5)
        values, fractions = rng.standard_normal(2), (0.3, 0.7)
        found = gs.spike(
            Problem(
                alpha=1,
                beta=1,
                ridge=1,
                lr=eta,
                alpha0=alpha0,
                activation=activation,
                target=str(target),
                noise_var=noise,
                readout_values=values,
                readout_fractions=fractions,
            )
        )
        r, c, gamma, norm, offset = naive.step_spike(
            activation, target, eta, alpha0, values, fractions, noise
        )
        assert_close(found.strength, r, 1e-11)
        assert_close(found.variance, c, 1e-11)
        assert_close([found.alignment, found.gradient_norm], [gamma, norm], 1e-11)
        assert_close(found.offset, offset, 1e-11, 1e-13)


def test_spike_without_a_step_and_with_infinitely_many_samples():
    problem = Problem(**BASE)
    for still in (problem.replace(lr=0.0), problem.replace(alpha0=0.0)):
        found = gs.spike(still)
        assert (found.strength[0], found.variance[0], found.alignment) == (0, 1, 0)
    limit = gs.spike(problem.replace(alpha0=math.inf))
    assert (limit.variance[0], limit.alignment) == (1.0, 1.0)
    near = gs.spike(problem.replace(alpha0=1e9))
    assert_close(limit.strength, near.strength, 1e-8)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("more", [{"lr": 1e308}, {"lr": 1e200}, {"readout_values": [1e200]}])
def test_rates_beyond_the_largest_number_are_named(more):
    problem = Problem(**{**BASE, "activation": "relu", **more})
    for function in (gs.spike, gs.solve, gs.projection_floor):
        with pytest.raises(ValueError, match=f"{next(iter(more))} must be small enough"):
            function(problem)


@entries("cond")
def test_features_reference(entry):
    found = gs.features(entry["act"], entry["k"], entry["c"])
    assert_close(found, [entry[key] for key in ("mu0", "mu1", "mustar2")], 0, 1e-9)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_features(name):
    rng = np.random.default_rng(8)
    kappa = np.append(rng.uniform(-6, 6, 10), 0.0)
    for c in (0.05, 1.0, 7.0):
        expected = np.array([naive.step_features(name, k, c)[:3] for k in kappa]).T
        # The plain rule is known to about 1e-11 of the largest second moment.
        size = 1 + expected[0] ** 2 + c
        for value, right in zip(gs.features(name, kappa, c), expected, strict=True):
            assert value.shape == kappa.shape
            assert (np.abs(value - right) <= 1e-11 * size).all()


def test_features_of_large_and_small_variance():
    for name in ("tanh", "erf", "softplus"):
        mu0, mu1, rest = gs.features(name, [0.3, 2.0], 1e-10)
        s, slope = naive.STEP_ACTIVATIONS[name]
        assert_close(mu0, s(np.array([0.3, 2.0])), 1e-9)
        assert_close(mu1, slope(np.array([0.3, 2.0])), 1e-8)
        assert (rest >= 0).all()
        assert (rest < 1e-18).all()
    mu0, mu1, _ = gs.features("tanh", [3.0], 1e6)
    assert_close(mu0, math.erf(3.0 / 1000 / math.sqrt(2)), 1e-4)
    assert_close(mu1, 2 / math.sqrt(2 * math.pi) / 1000, 1e-4)


def test_features_broadcast():
    mu0, mu1, rest = gs.features("sin", [[0.1, 0.2, 0.3]] * 2, [[1.0], [2.0]])
    assert mu0.shape == mu1.shape == rest.shape == (2, 3)
    for i, j in np.ndindex(2, 3):
        one = gs.features("sin", (0.1, 0.2, 0.3)[j], (1.0, 2.0)[i])
        assert_close([mu0[i, j], mu1[i, j], rest[i, j]], one, 1e-15)


def test_features_of_a_function():
    """Against the same function built in, with and without a kink."""
    pair = naive.STEP_ACTIVATIONS["tanh"]
    same = gs.Function("the same tanh", *pair)
    kappa = np.linspace(-4, 4, 9)
    for c in (0.3, 2.0):
        assert_close(gs.features(same, kappa, c), gs.features("tanh", kappa, c), 0, 1e-10)
    kinked = gs.Function("a relu", *naive.STEP_ACTIVATIONS["relu"])
    for c in (0.3, 2.0):
        assert_close(gs.features(kinked, kappa, c), gs.features("relu", kappa, c), 0, 1e-7)


def test_slopes_at_tiny_variance():
    """E s' is s' there, and the residual variance is (s'' c)^2/2."""
    for c in (1e-12, 1e-20, 1e-32, 1e-320):
        mu0, mu1, rest = gs.features("tanh", [0.3, 1.0], c)
        t = np.tanh([0.3, 1.0])
        assert_close(mu0, t, 1e-11)
        assert_close(mu1, 1 - t**2, 1e-11)
        assert_close(rest, 2 * (c * t * (1 - t**2)) ** 2, 1e-6)


@pytest.mark.parametrize("name", ["tanh", "softplus"])
def test_features_join(name):
    """Lattices and expansions, where one takes over from the other."""
    for c, digits, reach in ((1e-8, 1e-7, 4), (1e-6, 1e-7, 4), (30.0**2, 1e-13, 400)):
        kappa = np.linspace(-reach, reach, 101)
        below, above = (np.array(gs.features(name, kappa, c * x)) for x in (1 - 1e-15, 1 + 1e-15))
        size = np.array([1 + np.abs(kappa) + math.sqrt(c), 1 + 0 * kappa, c**2 + 0 * kappa])
        assert (np.abs(above - below) <= digits * size).all()
    for c in (1e-2, 1.0, 25.0):
        far = np.array([-1e9, -1e3, 1e3, 1e9])
        mu0, mu1, rest = gs.features(name, far, c)
        assert_close(mu0, np.sign(far) if name == "tanh" else np.maximum(far, 0), 1e-12, 1e-30)
        assert_close(mu1, far * (name == "softplus") > 0, 1e-12, 1e-30)
        assert_close(rest, 0, 0, 1e-30)


def test_features_of_far_points_of_a_function():
    kappa = [1e10, 0.0, -1e10, 0.5]
    for value, right in zip(
        gs.features(COSINE, [0.0, 0.5], 1.0), gs.features(COSINE, kappa, 1.0), strict=True
    ):
        assert_close(right[[1, 3]], value, 1e-12)
    with pytest.raises(ValueError, match="variance"):
        gs.features(COSINE, kappa, 1e14)


# ---- solve ---------------------------------------------------------------------------------------


@entries("srf")
def test_solve_reference(entry):
    point = gs.solve(
        problem_of(entry, lr=1.0, alpha0=1.0), spike=spike_of(entry), width=entry["finite_p"]
    )
    digits = relative(entry, 1e-6)
    assert_close(point.risk, entry["test_excess"], digits)
    assert_close(point.train_risk, entry["train"], digits)
    for name in ORDERS:
        expected = np.array(entry[name])
        size = max(np.abs(expected).max(), 1e-9)
        assert_close(getattr(point, name), expected, 0, max(digits, 1e-5) * size)


def solved(problem, spike=None, **numerics):
    """Risk and training error by the isotropic theory."""
    point = gs.solve(problem, method="isotropic", spike=spike, **numerics)
    return point.risk, point.train_risk


@pytest.mark.parametrize(
    ("activation", "target", "groups"),
    [("softplus", "tanh", 1), ("relu", "he3", 1), ("quad1", "sinlin", 1), ("erf", "softplus", 2)],
)
def test_solve_agrees_with_damped_iteration(activation, target, groups):
    rng = np.random.default_rng(groups)
    alpha, beta, ridge = rng.uniform(0.3, 3.0, 3)
    r, c = rng.standard_normal(groups), rng.uniform(0.6, 1.4, groups)
    spike = Spike(strength=r, variance=c, alignment=0.7)
    pi = [1.0] if groups == 1 else [0.4, 0.6]
    problem = Problem(
        alpha=alpha,
        beta=beta,
        ridge=ridge,
        lr=1,
        alpha0=1,
        activation=activation,
        target=target,
        noise_var=0.1,
        readout_values=[1.0] * groups,
        readout_fractions=pi,
    )
    right = naive.step_solve(
        activation, target, alpha=alpha, beta=beta, lam=ridge, r=r, c=c, gamma=0.7, pi=pi, Delta=0.1
    )
    point = gs.solve(problem, spike=spike)
    # The plain version stops its iteration at 1e-14 and differentiates by differences.
    assert_close(point.risk, right["risk"], 1e-7)
    assert_close(point.train_risk, right["train_risk"], 1e-7)
    for name in ORDERS:
        assert_close(getattr(point, name), right[name], 1e-6, 1e-7 * np.abs(right[name]).max())


@entries("onestep_exact")
def test_solve_of_the_trained_network_reference(entry):
    problem = problem_of(entry)
    point = gs.solve(problem, method="anisotropic")
    assert_close([point.risk, point.train_risk], [entry["test_exact"], entry["train_exact"]], 1e-6)
    for name in ("theta", "psi", "V1", "V2", "Q1", "q2"):
        assert_close(np.ravel(getattr(point, name)), entry[name], 1e-5)
    assert_close(solved(problem), [entry["test_iso"], entry["train_iso"]], 1e-6)


@entries("norm_term")
def test_solve_with_the_norm_term_reference(entry):
    problem = problem_of(entry)
    for method, name in (
        ("isotropic", "iso"),
        ("anisotropic", "aniso"),
        ("corrected", "aniso_norm"),
    ):
        assert_close(gs.solve(problem, method=method).risk, entry[name], 1e-6)


@entries("small_lr")
def test_solve_of_a_small_step_reference(entry):
    problem = problem_of(entry)
    still = Spike(strength=[0.0], variance=[1.0], alignment=entry["gamma"])
    point = gs.solve(problem, small_step=entry["r0"], spike=still)
    assert_close([point.risk, point.train_risk], [entry["test_excess"], entry["train"]], 1e-6)
    if entry["r0"] == 0:
        plain = gs.solve(problem.replace(lr=0.0))
        assert_close(point.risk, plain.risk, 1e-12)


@entries("logistic")
def test_solve_with_logistic_loss_agrees_with_the_simulation_of_the_reference(entry):
    problem = problem_of({**entry, "target": "sinlin"})
    spike = spike_of({**entry, "r": [entry["r"]], "c": [entry["c"]]})
    point = gs.solve(problem, spike=spike, loss="logistic")
    # The reference's own class error, .1286, is not compared: it is 2.4 % below this one, as the
    # equations are on a grid that does not resolve the label's jump (docs/papers/giant_step.md,
    # section 7). The next test has the digits.
    assert_close(point.class_error, entry["sim_d500"]["class_error"], 0.0, entry["sim_d500"]["se"])
    assert_close(point.train_risk, entry["sim_d500"]["train_logloss"], 0.08)
    assert math.isnan(point.risk)
    assert point.method == "isotropic"


def test_solve_with_logistic_loss_agrees_with_damped_iteration():
    problem = Problem(alpha=1.5, beta=1, ridge=0.5, lr=1, alpha0=1, target="sinlin")
    spike = Spike(strength=[1.5], variance=[1.2], alignment=0.6)
    point = gs.solve(problem, spike=spike, loss="logistic")
    # sin 2x + x has the sign of x.
    right = naive.step_logistic(
        "tanh", [0.0], alpha=1.5, beta=1, lam=0.5, r=1.5, c=1.2, gamma=0.6, tol=1e-8, nodes=(12, 12)
    )
    assert_close([point.class_error, point.train_risk], right, 1e-6)


@pytest.mark.parametrize("entry", REFERENCE["invariants_limits"]["ridgeless"])
def test_ridgeless_reference(entry):
    base = REFERENCE["invariants_limits"]["base"]
    problem = problem_of(base, alpha=entry["alpha"], ridge=entry["lam"])
    # The smallest training error has four digits there.
    assert_close(solved(problem, spike_of(base)), [entry["test"], entry["train"]], 1e-6, 5e-13)


def test_small_and_giant_steps_join_at_finite_width():
    entry = REFERENCE["invariants_limits"]["crossover"]
    problem = Problem(alpha=1, beta=1, ridge=0.05, lr=1, alpha0=1, target="sinlin")
    for p, expected in zip(entry["p"], entry["test"], strict=True):
        spike = Spike(strength=[3 / math.sqrt(p)], variance=[1.0], alignment=0.85)
        assert_close(solved(problem, spike, width=p)[0], expected, 1e-6)
    still = Spike(strength=[0.0], variance=[1.0], alignment=0.85)
    limit = gs.solve(problem, small_step=3.0, spike=still).risk
    assert_close(limit, entry["limit"], 1e-6)


# ---- invariants (section 9 of the theory) --------------------------------------------------------


@pytest.fixture(scope="module")
def base():
    """The problem and the spike of the reference's base case, and its risk."""
    entry = REFERENCE["invariants_limits"]["base"]
    return problem_of(entry), spike_of(entry), entry["test"]


def test_groups_that_are_the_same_are_one(base):
    problem, spike, risk = base
    one = solved(problem, spike)
    assert_close(one[0], risk, 1e-9)
    halves = problem.replace(readout_values=[1, 1], readout_fractions=[0.4, 0.6])
    for sign in (1, -1):  # tanh is odd
        twice = Spike(strength=[1.2, sign * 1.2], variance=[1.1, 1.1], alignment=0.9)
        assert_close(solved(halves, twice), one, 1e-10)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_signs_of_the_spike(base, activation):
    problem, spike, _ = base
    problem = problem.replace(activation=activation)

    def at(r, gamma):
        return solved(problem, Spike(strength=[r], variance=spike.variance, alignment=gamma))

    assert_close(at(-1.2, -0.9), at(1.2, 0.9), 1e-11)
    if activation == "tanh":
        assert_close(at(-1.2, 0.9), at(1.2, 0.9), 1e-11)


def test_random_features_do_not_depend_on_the_alignment(base):
    problem, *_ = base
    risks = [
        solved(problem, Spike(strength=[0.0], variance=[1.0], alignment=gamma))
        for gamma in (-1.0, 0.0, 0.4, 0.99)
    ]
    assert_close(risks, [solved(problem.replace(lr=0.0))] * 4, 1e-10)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_many_samples_of_the_step_leave_the_bulk_isotropic(activation):
    problem = Problem(**BASE, activation=activation)
    gaps = []
    for alpha0 in (10.0, 100.0, math.inf):
        one = problem.replace(alpha0=alpha0)
        exact = gs.solve(one, method="anisotropic", modes_dim=400).risk
        gaps.append(abs(exact / solved(one)[0] - 1))
    assert gaps[1] < gaps[0] / 5
    assert gaps[2] < 1e-12


def test_the_norm_term_does_nothing_to_a_sine():
    problem = Problem(**BASE, activation="sin")
    corrected = gs.solve(problem)
    assert corrected.method == "corrected"
    assert_close(corrected.risk, gs.solve(problem, method="anisotropic").risk, 1e-9)


def test_a_vanishing_step_of_finite_width_is_random_features(base):
    problem, *_ = base
    weak = Spike(strength=[1e-6], variance=[1.0], alignment=0.9)
    assert_close(solved(problem, weak, width=1000.0), solved(problem.replace(lr=0.0)), 1e-6)


def test_the_training_error_is_below_that_of_the_test():
    rng = np.random.default_rng(1)
    for _ in range(5):
        alpha, beta, ridge = rng.uniform(0.2, 3, 3)
        noise = 0.1
        problem = Problem(**(BASE | {"alpha": alpha, "beta": beta}), noise_var=noise)
        ridges = [gs.solve(problem.replace(ridge=x)) for x in (0.1 * ridge, ridge, 10 * ridge)]
        for point in ridges:
            assert point.train_risk <= point.risk + noise
        assert sorted(p.train_risk for p in ridges) == [p.train_risk for p in ridges]


def test_more_samples_never_hurt_at_the_best_ridge():
    problem = Problem(**BASE, noise_var=0.2)
    risks = [
        gs.optimal_ridge(problem.replace(alpha=alpha), method="isotropic")[1].risk
        for alpha in (0.3, 0.8, 1.0, 1.3, 3.0)
    ]
    assert sorted(risks, reverse=True) == risks


def test_a_linear_network_is_ridge_regression():
    """At r = 0: p random projections of the input; the reference's value for its base case."""
    problem = Problem(**BASE, activation="linear").replace(lr=0.0)
    assert_close(gs.solve(problem).risk, 0.20978, 1e-4)


def test_the_trace_identity_and_iterations_are_reported():
    point = gs.solve(Problem(**BASE))
    assert abs(point.stats["identity"]) < 1e-10
    assert 1 <= point.stats["iterations"] < 100


@pytest.mark.parametrize("ridge", [1e-8, 1e-14, 1e-300])
def test_at_the_interpolation_peak_there_is_no_garbage(ridge):
    point = gs.solve(Problem(**BASE).replace(alpha=1.0, ridge=ridge), throw=False)
    if point.status is Status.SUCCESS:
        assert point.risk > 1
        assert point.train_risk >= 0
        assert np.isfinite(point.q2).all()


@pytest.mark.parametrize(
    ("changes", "power"),
    [
        ({"lr": 0.0}, 0.5),
        ({"lr": 0.0, "alpha": 0.5, "beta": 0.5, "noise_var": 0.1}, 0.5),
        ({"readout_values": (1.0, 0.5), "readout_fractions": (0.5, 0.5), "lr": 0.0}, 0.5),
        ({"activation": "linear", "target": "linear", "lr": 0.0, "noise_var": 0.1}, 1 / 3),
    ],
)
def test_the_interpolation_peak_follows_its_power_law(changes, power):
    base = Problem(**BASE).replace(**{"alpha": 1.0, "beta": 1.0, **changes})
    risks = []
    for ridge in (1e-16, 1e-20, 1e-24, 1e-28):
        point = gs.solve(base.replace(ridge=ridge))
        risks.append(point.risk * ridge**power)
    assert_close(risks[1:], risks[-1], 1e-5)
    assert_close(risks[0], risks[-1], 1e-4)
    # Smaller ridges have the right value or a status.
    for ridge in (1e-60, 1e-100, 1e-300):
        point = gs.solve(base.replace(ridge=ridge), throw=False)
        if point.status is Status.SUCCESS:
            assert_close(point.risk * ridge**power, risks[-1], 1e-4)


@pytest.mark.parametrize("lr", [0.0, 3.0])
@pytest.mark.parametrize("activation", ["linear", "tanh"])
@pytest.mark.parametrize(("alpha", "beta"), [(0.5, 1.0), (1.5, 2.0), (0.5, 2.0), (2.0, 1.0)])
def test_vanishing_ridges_away_from_the_peak(activation, alpha, beta, lr):
    problem = Problem(**BASE, activation=activation, noise_var=0.1).replace(
        alpha=alpha, beta=beta, lr=lr, ridge=1e-30
    )
    expected = solved(problem)[0]
    for ridge in (1e-20, 1e-25):  # after a step the limit is reached slowly
        assert_close(solved(problem.replace(ridge=ridge))[0], expected, 1e-2)
    for ridge in (1e-40, 1e-60, 1e-80, 1e-100):
        assert_close(solved(problem.replace(ridge=ridge))[0], expected, 1e-4)
    for ridge in (1e-200, 1e-300):
        point = gs.solve(problem.replace(ridge=ridge), method="isotropic", throw=False)
        if point.status is Status.SUCCESS:
            assert_close(point.risk, expected, 1e-7)


def test_huge_ridges_leave_the_mean():
    problem = Problem(**BASE)
    expected = solved(problem.replace(ridge=1e50))[0]
    for ridge in (1e100, 1e200, 1e300):
        assert_close(solved(problem.replace(ridge=ridge))[0], expected, 1e-12)


def test_huge_small_steps_have_a_limit():
    limit = gs.solve(Problem(**BASE), small_step=1e6).risk
    for step in (1e12, 1e60, 1e80, 1e100, 1e200):
        assert_close(gs.solve(Problem(**BASE), small_step=step).risk, limit, 1e-8)


@pytest.mark.parametrize("activation", ["tanh", "relu", "erf", "sin", "softplus", "he3", COSINE])
def test_tiny_steps_have_the_limit_of_small_ones(activation):
    """Unlike random features: the mean feature is free, however small its slope is."""
    problem = Problem(**BASE, activation=activation).replace(alpha0=20.0)
    limit = solved(problem.replace(lr=1e-6))[0]
    for lr in (1e-8, 1e-12, 1e-13, 1e-20, 1e-100, 1e-154, 1e-160, 1e-200):
        assert_close(solved(problem.replace(lr=lr))[0], limit, 1e-6)


def test_a_student_without_slope_gets_no_spike():
    even = gs.Function("a square", lambda x: x**2, lambda x: 2 * x)
    problem = Problem(**BASE, activation=even)
    assert_array_equal(gs.spike(problem).strength, [0.0])
    point = gs.solve(problem)
    assert point.stats["regime"] == "no spike"
    assert_array_equal(point.strength, [0.0])
    # Only the mean and what is even can be learned of the sine: nothing.
    assert point.risk > gs.moments("sin").second - 1e-9


@pytest.mark.parametrize("activation", ["tanh", "softplus", "relu", "erf", "he3"])
def test_endless_steps_have_a_limit(activation):
    """Features become those of a scale-free function, with corrections of order 1/lr."""
    problem = Problem(**BASE, activation=activation)
    risks = [solved(problem.replace(lr=lr))[0] for lr in (1e4, 1e6, 1e12, 1e24)]
    assert abs(risks[1] - risks[2]) <= 0.02 * abs(risks[0] - risks[2]) + 1e-8 * risks[2]
    assert_close(risks[3], risks[2], 1e-8)
    risks = [solved(problem.replace(alpha0=x))[0] for x in (1e-8, 1e-12, 1e-16)]
    assert_close(risks[1:], risks[0], 1e-4)


@pytest.mark.parametrize("activation", ["he3", "quad1", "sin", "sinlin", "tanh"])
def test_rows_of_no_variance(activation):
    problem = Problem(**BASE, activation=activation)
    points = [
        gs.solve(problem, spike=Spike(strength=[1.2], variance=[c], alignment=0.9))
        for c in (1e-12, 1e-300)
    ]
    assert_close(points[0].risk, points[1].risk, 1e-8)
    assert max(point.stats["nodes"] for point in points) < 2000


CONSTANTS = [gs.Function(f"constant {c}", lambda x, c=c: c + 0 * x, np.zeros_like) for c in (0, 1)]


@pytest.mark.parametrize("constant", CONSTANTS, ids=("zero", "one"))
@pytest.mark.parametrize("still", [True, False])
def test_constant_activations_learn_a_mean(constant, still):
    """Of a student, with and without a step; and a constant target is learned exactly."""
    problem = Problem(**BASE, activation=constant, noise_var=0.1)
    problem = problem.replace(target="quad1", lr=0.0 if still else 3.0)
    wide = problem.replace(readout_values=(1.0, 2.0), readout_fractions=(0.5, 0.5))
    for one in (problem, wide, problem.replace(target="relu")):
        target, point = gs.moments(one.target), gs.solve(one)
        learned = target.mean**2 if constant is CONSTANTS[1] else 0.0
        assert point.status == Status.SUCCESS
        assert_close(point.risk, target.second - learned, 1e-10)
        assert_close(point.train_risk, point.risk + 0.1, 1e-10)
        assert gs.linear_floor(one) == pytest.approx(point.risk)
    flat = gs.solve(problem.replace(target=constant))
    assert_close([flat.risk, flat.train_risk], [0, 0.1], 1e-10, 1e-12)


def test_constant_targets():
    """Zero is learned by all, and one by the mean feature at initialisation."""
    zero, one = (Problem(**{**BASE, "target": constant}) for constant in CONSTANTS)
    points = [gs.solve(zero.replace(lr=lr, activation="erf")) for lr in (0.0, 3.0)]
    points.append(gs.solve(one.replace(lr=0.0, activation="relu")))
    assert_close([point.risk for point in points], 0, 0, 1e-12)


def test_what_cannot_be_tabulated_is_refused():
    steep = Spike(strength=[1e7], variance=[1.0], alignment=0.5)
    wide = Spike(strength=[1.0], variance=[1e14], alignment=0.5)
    huge = Spike(strength=[1e200], variance=[1.0], alignment=0.5)
    problem = Problem(**BASE, activation=COSINE)
    for spike in (steep, wide, huge):
        with pytest.raises(ValueError, match=r"^spike must .*such that"):
            gs.solve(problem, spike=spike)
    with pytest.raises(ValueError, match="spike must"):
        gs.solve(problem.replace(activation="sin"), spike=steep)
    for name, value in (("lr", 1e9), ("alpha0", 1e-14), ("noise_var", 1e16)):
        far = problem.replace(**{name: value})
        for call in (gs.solve, gs.projection_floor):
            with pytest.raises(ValueError, match=f"^{name} must"):
                call(far)


@pytest.mark.filterwarnings("error")
def test_overflow_is_an_error_of_the_argument():
    problem = Problem(**BASE)
    changes = {"lr": -1e160, "readout_values": (1e200,), "alpha0": 1e-320, "noise_var": 1e150}
    for name, value in changes.items():
        for call in (gs.spike, gs.solve, gs.projection_floor):
            with pytest.raises(ValueError, match=f"^{name} must"):
                call(problem.replace(**{name: value}))
    limit = [gs.solve(problem, small_step=r0).risk for r0 in (1e6, 1e200, -1e300)]
    assert_close(limit, limit[0], 1e-9)
    with pytest.raises(ValueError, match=r"^readout_values must"):
        gs.solve(problem.replace(readout_values=(1e200,)), small_step=1.0)
    for size in (1e160, 1e308):
        with pytest.raises(ValueError, match=r"^W must"):
            gs.from_weights(problem, size * np.eye(20), np.ones(20), np.eye(20)[0])


# ---- floors and the best settings ----------------------------------------------------------------


def test_linear_floor():
    problem = Problem(**BASE, activation="relu").replace(target="quad1")
    _, e2, h1, *_ = naive.step_moments("quad1")
    e0 = naive.step_moments("quad1")[0]
    assert_close(gs.linear_floor(problem), e2 - h1**2 - e0**2, 1e-11)
    assert_close(gs.linear_floor(problem.replace(activation="tanh")), e2 - h1**2, 1e-11)
    many = problem.replace(activation="tanh", target="sin", lr=0.0, alpha=1e4, beta=100.0)
    assert_close(gs.solve(many).risk, gs.linear_floor(many), 3e-2)
    assert gs.solve(many).risk > gs.linear_floor(many)


def test_projection_floor():
    problem = Problem(**BASE)
    floor = gs.projection_floor(problem)
    rich = problem.replace(alpha=1e7, beta=1e5)
    assert_close(solved(rich)[0], floor, 2e-2)
    assert solved(rich)[0] > floor
    with pytest.raises(ValueError, match="lr"):
        gs.projection_floor(problem.replace(lr=0.0))


def test_projection_floor_of_small_steps():
    """The span's limit for an odd student: k and k^3."""
    problem = Problem(**BASE).replace(alpha0=20.0)
    gamma = gs.spike(problem).alignment
    x = np.arange(-9, 9.01, 0.05)
    w = np.exp(-x * x / 2) / np.exp(-x * x / 2).sum()
    h = math.exp((gamma**2 - 1) / 2) * np.sin(gamma * x)
    left = h - sum((w @ (h * f)) * f for f in (x, (x**3 - 3 * x) / math.sqrt(6)))
    h1 = math.sqrt(1 - gamma**2) * math.exp((gamma**2 - 1) / 2) * np.cos(gamma * x)
    limit = (1 - math.exp(-2)) / 2 - w @ h**2 - (w @ h1) ** 2 + w @ left**2
    for lr in (1e-3, 1e-4, 1e-6, 1e-9, 1e-100, 1e-200):
        assert_close(gs.projection_floor(problem.replace(lr=lr)), limit, 2e-6)
    # No jump where floors are interpolated.
    near = [gs.projection_floor(problem.replace(lr=lr)) for lr in (0.05, 0.0529, 0.053, 0.055)]
    assert abs(near[1] - near[2]) < abs(near[3] - near[0])


def test_more_initial_readout_values_span_more():
    one = Problem(**BASE).replace(target="sin2", alpha0=20.0)
    two = one.replace(readout_values=[1.0, 2.0], readout_fractions=[0.5, 0.5])
    assert gs.projection_floor(two) < gs.projection_floor(one)


@pytest.mark.parametrize("name", ["ridge", "lr"])
def test_best_settings(name):
    """Against a scan; and a bound says so."""
    problem = Problem(**BASE, noise_var=0.3)
    function = {"ridge": gs.optimal_ridge, "lr": gs.optimal_lr}[name]
    best, point = function(problem, method="isotropic")
    assert point.problem == problem.replace(**{name: best})
    for factor in (0.5, 0.9, 1.1, 2.0):
        assert solved(problem.replace(**{name: factor * best}))[0] > point.risk
    low, at_bound = function(problem, method="isotropic", bounds=(2 * best, 4 * best))
    assert_close(low, 2 * best, 1e-12)
    assert at_bound.status is Status.NOT_CONVERGED


# ---- given weights -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("activation", "target", "p", "d", "ridge"),
    [
        ("tanh", "sin", 61, 45, 0.1),
        ("relu", "sinlin", 33, 70, 1e-3),
        ("softplus", "he3", 40, 30, 1e-7),
        ("linear", "sin", 30, 33, 0.1),
    ],
)
def test_from_weights_agrees_with_the_plain_matrices(activation, target, p, d, ridge):
    rng = np.random.default_rng(3)
    v = rng.standard_normal(d)
    w_star = v + 1.2 * rng.standard_normal(d)
    W = rng.standard_normal((p, d)) / math.sqrt(d) + 1.3 * v / np.linalg.norm(v)
    problem = Problem(
        alpha=1.3,
        beta=p / d,
        ridge=ridge,
        lr=0,
        alpha0=0,
        activation=activation,
        target=target,
        noise_var=0.2,
    )
    point = gs.from_weights(problem, W, v, w_star)
    right = naive.step_from_weights(
        activation,
        target,
        W,
        v / np.linalg.norm(v),
        w_star / np.linalg.norm(w_star),
        alpha=1.3,
        lam=ridge,
        Delta=0.2,
    )
    assert_close([point.risk, point.train_risk], right, 1e-8)
    # The length of the directions does not count, nor does the sign of the spike's.
    again = gs.from_weights(problem, W, -1e200 * v, 1e-200 * w_star)
    assert_close(again.risk, point.risk, 1e-9)
    assert_close(again.strength, -point.strength, 1e-12)


def test_from_weights_of_a_large_isotropic_layer_is_solve():
    rng = np.random.default_rng(4)
    d, p = 1200, 900
    W = rng.standard_normal((p, d))
    W /= np.linalg.norm(W, axis=1, keepdims=True)
    W[:, 0] += 1.5
    problem = Problem(**BASE).replace(beta=p / d, noise_var=0.1)
    target = np.zeros(d)
    target[:2] = 0.8, 0.6
    point = gs.from_weights(problem, W, np.eye(d)[0], target)
    spike = Spike(strength=[1.5], variance=[1.0], alignment=0.8)
    theory = gs.solve(problem, spike=spike, width=p)
    # One layer fluctuates by about d^(-1/2).
    assert_close([point.risk, point.train_risk], [theory.risk, theory.train_risk], 0.03)
    assert_close(point.V2, theory.V2, 0.01)


def test_from_weights_at_the_peak_is_right_or_says_so():
    problem = Problem(**BASE).replace(alpha=1.0, beta=1.0)
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((60, 60))
    rows /= np.linalg.norm(rows, axis=1)[:, None]
    for ridge in (1e-100, 1e-300):
        point = gs.from_weights(
            problem.replace(ridge=ridge), rows, np.ones(60), np.eye(60)[0], throw=False
        )
        assert point.status is not Status.SUCCESS
    assert gs.from_weights(problem, rows, np.ones(60), np.eye(60)[0]).status is Status.SUCCESS


def test_from_weights_of_parallel_directions():
    problem = Problem(**BASE).replace(beta=2.0)
    W = np.random.default_rng(5).standard_normal((40, 20)) / math.sqrt(20)
    v = np.ones(20)
    point = gs.from_weights(problem, W, v, v)
    assert point.alignment == pytest.approx(1.0, abs=1e-14)
    nearly = gs.from_weights(problem, W, v, v + 1e-5 * np.eye(20)[0])
    assert_close(nearly.risk, point.risk, 1e-3)


def test_from_weights_refuses():
    problem = Problem(**BASE)
    W, e = np.eye(20), np.eye(20)
    groups = problem.replace(readout_values=[1, 2], readout_fractions=[0.5, 0.5])
    for arguments, name in (
        ((groups, W, e[0], e[1]), "problem"),
        ((problem, W[:18], e[0], e[1]), "W"),
        ((problem, W, 0 * e[0], e[1]), "direction"),
        ((problem, W, e[0], 0 * e[1]), "target_direction"),
        ((problem, W, e[0][1:], e[1]), "direction"),
        ((problem, W, e[0], e[1] * math.nan), "target_direction"),
        ((problem, np.outer(np.ones(20), e[0]), e[0], e[1]), "W"),
    ):
        with pytest.raises(ValueError, match=rf"\b{name}\b"):
            gs.from_weights(*arguments)


@pytest.mark.slow
@entries("matrix_mode")
def test_from_weights_reference(entry):
    """The mean over sampled layers; the reference has its own, of about the same number."""
    problem, d = problem_of(entry), entry["d"]
    risks = []
    for seed in range(entry["seeds"]):
        W, g, w_star = trained_layer(problem, d, seed)
        risks.append(gs.from_weights(problem, W, g, w_star).risk)
    error = np.std(risks, ddof=1) * math.sqrt(2 / len(risks))
    assert abs(np.mean(risks) - entry["matrix"]) < 4 * error


def trained_layer(problem, d, seed):
    """A first layer after the step of a network with one group, g, and w*."""
    rng = np.random.default_rng(seed)
    W = rng.standard_normal((round(problem.beta * d), d))
    W /= np.linalg.norm(W, axis=1, keepdims=True)
    X = rng.standard_normal((round(problem.alpha0 * d), d))
    y = naive.STEP_ACTIVATIONS[problem.target][0](X[:, 0])
    y = y + math.sqrt(problem.noise_var) * rng.standard_normal(len(y))
    W, g = naive.step_first_layer(W, X, y, problem.lr, np.ones(len(W)), problem.activation)
    return W, g, np.eye(d)[0]


# ---- simulation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_vector_functions(name):
    """To 1e-15 of the larger of one and the value, for any number of entries, far out as well."""
    x = np.concatenate([np.linspace(-30, 30, 3001), [1e-300, -1e5, 1e5, 3e6, -3e6, 1e100, -1e100]])
    f, slope = naive.STEP_ACTIVATIONS[name]
    with np.errstate(over="ignore"):
        right = f(x), slope(x)
    for found, expected in zip(_core.GiantFunction(name)(x), right, strict=True):
        kept = np.isfinite(expected)
        if name == "relu":
            kept &= x != 0
        size = np.maximum(1.0, np.abs(expected[kept]))
        assert (np.abs(found[kept] - expected[kept]) < 1e-15 * size).all()
    for count in range(1, 18):
        assert_array_equal(
            _core.GiantFunction(name)(x[:count])[0], _core.GiantFunction(name)(x)[0][:count]
        )


def test_tables_of_functions():
    table = gs._table(COSINE, 5.0)
    x = np.random.default_rng(0).uniform(-4.999, 4.999, 1000)
    value, slope = table(x)
    assert np.abs(value - cosine(x)).max() < gs.LATTICE**4 / 384 * 1.1 + 2e-14
    assert np.abs(slope - cosine_slope(x)).max() < gs.LATTICE**3 / 50
    beyond, _ = table(np.array([5.1, -5.1, math.nan]))
    assert np.isnan(beyond).all()


def sampled_room(problem, dim, *, model="one_step", spike=None, seed=0, test_samples=100):
    """What replica 1 of `simulate` draws, and the plain version of its training."""
    spiked = model == "spiked"
    law = spike if spike is not None else gs.spike(problem.replace(lr=0.0))
    width, samples = gs._size("beta", problem.beta, dim), gs._size("alpha", problem.alpha, dim)
    stepping = problem.has_step and not spiked
    groups = gs._group_sizes(problem, width)
    room = _core.GiantSimulation(
        _core.GiantExperiment(
            dim=dim,
            width=width,
            samples=samples,
            first_samples=gs._size("alpha0", problem.alpha0, dim) if stepping else 0,
            test_samples=test_samples,
            group=groups,
            readout=problem.readout_values,
            lr=problem.lr,
            ridge=problem.ridge,
            noise_var=problem.noise_var,
            spiked=spiked,
            strength=law.strength,
            variance=law.variance,
            alignment=law.alignment,
            activation=_core.GiantFunction(problem.activation),
            target=_core.GiantFunction(problem.target),
            seed=_check.seed_word(np.random.SeedSequence(seed)),
        )
    )
    W, X0, noise0, X1, noise1, X2, noise2 = room.sample(1)
    target = naive.STEP_ACTIVATIONS[problem.target][0]
    w_star = np.eye(dim)[0]
    if spiked:
        w_star = law.alignment * w_star + math.sqrt(1 - law.alignment**2) * np.eye(dim)[1]
    alignment, strength = law.alignment, law.strength
    if stepping:
        A = np.repeat(problem.readout_values, groups)
        y = target(X0 @ w_star) + noise0
        W, g = naive.step_first_layer(W, X0, y, problem.lr, A, problem.activation)
        h1 = naive.step_moments(problem.activation)[2]
        norm = np.linalg.norm(g)
        alignment, strength = g @ w_star / norm, problem.lr * np.array(problem.readout_values)
        strength = strength * h1 * norm
    y = target(X1 @ w_star) + noise1
    a, train_risk = naive.step_ridge(W, X1, y, problem.ridge, problem.activation)
    output, y = naive.step_output(W, a, X2, problem.activation), target(X2 @ w_star)
    wrong = np.mean((y + noise2 >= 0) != (output >= 0))
    return np.mean((output - y) ** 2), train_risk, wrong, alignment, strength


def assert_like_the_plain_version(problem, dim, **numerics):
    result = gs.simulate(problem, dim=dim, replicas=2, **{"test_samples": 100, **numerics})
    expected = sampled_room(problem, dim, **numerics)
    names = ("risk", "train_risk", "class_error", "alignment", "strength")
    for name, value in zip(names, expected, strict=True):
        assert_close(getattr(result, name)[1], value, 1e-11, 1e-13)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_simulate_agrees_with_the_plain_version(activation):
    """Both sides of n = p, sizes that are no multiple of a vector, groups that are rounded."""
    problem = Problem(
        alpha=1.3,
        beta=0.9,
        ridge=0.1,
        lr=0.5,
        alpha0=2.1,
        activation=activation,
        target="sinlin",
        noise_var=0.3,
        readout_values=[1.0, -2.0, 0.5],
        readout_fractions=[0.2, 0.5, 0.3],
    )
    assert_like_the_plain_version(problem, 37)
    wide = problem.replace(alpha=0.7, beta=1.9, target="relu")
    spike = Spike(strength=[1.0, -0.5, 2.0], variance=[1.0, 0.5, 2.0], alignment=-0.6)
    assert_like_the_plain_version(wide, 41, model="spiked", spike=spike)


@pytest.mark.parametrize("beta", [0.9, 2.2])
def test_simulate_in_several_blocks_and_tiles(beta):
    problem = Problem(**BASE).replace(beta=beta, noise_var=0.1)
    assert_like_the_plain_version(problem, 601, test_samples=777)


def test_simulate_without_a_step():
    problem = Problem(**BASE)
    for still in (problem.replace(lr=0.0), problem.replace(alpha0=0.0)):
        assert_like_the_plain_version(still, 50)
        result = gs.simulate(still, dim=50, replicas=2)
        assert_array_equal(result.alignment, [0, 0])
        assert_array_equal(result.strength, [[0], [0]])


def test_simulate_of_a_function_follows_the_built_in_one():
    """The table costs about 1e-10 of the gradient, and grows where pre-activations are large."""
    same = gs.Function("the same tanh", *naive.STEP_ACTIVATIONS["tanh"])
    for strength in (1.0, 40.0):
        problem = Problem(**BASE).replace(lr=3.0 * strength)
        mine = problem.replace(activation=same, target=COSINE)
        result = gs.simulate(mine, dim=40, replicas=2, test_samples=100)
        right = gs.simulate(mine.replace(activation="tanh"), dim=40, replicas=2, test_samples=100)
        assert_close(result.risk, right.risk, 1e-7)
        assert_close(result.train_risk, right.train_risk, 1e-7)
    far = problem.replace(activation=same, lr=1e9)
    with pytest.raises(ValueError, match="activation"):
        gs.simulate(far, dim=40)


def test_sizes_are_rounded():
    problem = Problem(**BASE).replace(alpha=0.55, beta=0.25, alpha0=0.35)
    stats = gs.simulate(problem, dim=10, test_samples=10).stats
    assert (stats["samples"], stats["width"], stats["first_samples"]) == (6, 3, 4)
    three = problem.replace(readout_values=[1, 2, 3], readout_fractions=[0.25, 0.5, 0.25])
    assert gs._group_sizes(three, 5) == [1, 3, 1]
    assert gs._group_sizes(three, 6) == [2, 3, 1]
    assert gs._group_sizes(three, 1) == [0, 1, 0]
    for name in ("alpha", "beta", "alpha0"):
        with pytest.raises(ValueError, match="dim"):
            gs.simulate(problem.replace(**{name: 0.01}), dim=10)


def test_simulate_refuses():
    problem = Problem(**BASE)
    spike = gs.spike(problem)
    pair = Spike(strength=[1, 2], variance=[1, 1], alignment=0.5)
    for changes, name in (
        ({"problem": problem.replace(alpha0=math.inf)}, "alpha0"),
        ({"spike": spike}, "spike"),
        ({"spike": pair, "model": "spiked"}, "spike"),
        ({"model": "two_step"}, "model"),
        ({"dim": 1}, "dim"),
        ({"test_samples": 0}, "test_samples"),
    ):
        with pytest.raises(ValueError, match=rf"\b{name}\b"):
            gs.simulate(**{"problem": problem, "dim": 20, **changes})
    limit = problem.replace(alpha0=math.inf)
    assert gs.simulate(limit, dim=20, model="spiked").alignment == [1.0]


SMALL = {"dim": 41, "test_samples": 50, "seed": 5}


@pytest.mark.parametrize("model", ["one_step", "spiked"])
def test_threads_slices_and_replicas_change_no_bit(model, monkeypatch):
    problem = Problem(**BASE).replace(noise_var=0.1)
    run = {**SMALL, "model": model}
    many = gs.simulate(problem, **run, replicas=7, threads=1)
    assert bits(many) == bits(gs.simulate(problem, **run, replicas=7, threads=3))
    few = gs.simulate(problem, **run, replicas=3)
    for name, array in cases.array_fields(few).items():
        assert array.tobytes() == getattr(many, name)[:3].tobytes()
    seen = []
    monkeypatch.setattr(_run, "SLICE", 0.0)
    assert bits(many) == bits(gs.simulate(problem, **run, replicas=7, progress=seen.append))
    assert len(seen) > 7
    other = gs.simulate(problem, **{**run, "seed": 6}, replicas=7)
    assert not (other.risk == many.risk).any()


def test_threads_within_a_replica_change_no_bit(monkeypatch):
    monkeypatch.setattr(_run, "SLICE", 0.0)  # one unit at a time, so that no replica is alone
    for beta in (0.8, 2.0):
        problem = Problem(**BASE).replace(beta=beta)
        one = gs.simulate(problem, dim=700, threads=1, test_samples=600)
        assert bits(one) == bits(gs.simulate(problem, dim=700, threads=3, test_samples=600))


def stop_at(wanted):
    def progress(fraction):
        if fraction >= wanted:
            raise KeyboardInterrupt

    return progress


def test_interruption_and_checkpoint(monkeypatch, tmp_path):
    problem = Problem(**BASE)
    monkeypatch.setattr(_run, "SLICE", 0.0)
    path, run = tmp_path / "run.npz", {**SMALL, "replicas": 6}
    whole = gs.simulate(problem, **run)
    for wanted in (0.3, 0.6):
        with pytest.raises(KeyboardInterrupt):
            gs.simulate(problem, **run, progress=stop_at(wanted), checkpoint=path)
        partial = results.interrupted()
        assert partial.status is Status.INTERRUPTED
        assert 0 < partial.replicas < 6
        assert_array_equal(partial.risk, whole.risk[: partial.replicas])
    assert bits(whole) == bits(gs.simulate(problem, **run, checkpoint=path))
    with pytest.raises(ValueError, match="checkpoint"):
        gs.simulate(problem.replace(ridge=0.2), **run, checkpoint=path)


@pytest.mark.parametrize(
    "changes",
    [
        {"activation": "he3", "lr": 1e300},
        {"activation": "linear", "beta": 2.0, "alpha": 3.0, "ridge": 1e-300},
    ],
)
def test_failed_replicas(changes):
    """Features that overflow, and a singular Gram matrix."""
    problem = Problem(**{**BASE, **changes})
    with pytest.raises(op.ConvergenceError) as caught:
        gs.simulate(problem, **SMALL, replicas=2)
    assert caught.value.result.status is Status.DIVERGED
    lost = gs.simulate(problem, **SMALL, replicas=2, throw=False)
    assert lost.diverged.all()
    assert np.isnan(lost.risk).all()
    assert np.isfinite(lost.alignment).all()


def test_absurd_memory_is_refused():
    problem = Problem(**BASE)
    for changes in ({"dim": 10**6}, {"replicas": 10**13}):
        with pytest.raises(MemoryError, match="reduce replicas, dim"):
            gs.simulate(problem, **{**SMALL, **changes})


# ---- functions of one's own ----------------------------------------------------------------------


def test_functions_are_known_by_name():
    assert gs.Function("cos plus 2x", cosine, cosine_slope) == COSINE
    assert pickle.loads(pickle.dumps(COSINE)) == COSINE
    with pytest.raises(ValueError, match="name"):
        gs.Function("cos plus 2x", np.cos, cosine_slope)
    with pytest.raises(ValueError, match="name"):
        gs.Function("tanh", np.tanh, np.tanh)
    problem = Problem(**BASE, activation=COSINE)
    assert Problem.from_dict(json.loads(json.dumps(problem.to_dict()))) == problem
    with pytest.raises(ValueError, match="activation"):
        Problem.from_dict({**problem.to_dict(), "activation": "unheard of"})


class Unhashable:
    """A function that is equal to others, and has no hash."""

    __hash__ = None

    def __call__(self, x):
        return x


@pytest.mark.parametrize(
    ("f", "df", "error", "name"),
    [
        (1.0, np.cos, TypeError, "f"),
        (np.sin, None, TypeError, "df"),
        (lambda x: x[:-1], np.cos, ValueError, "f"),
        (lambda _: 1.0, np.cos, ValueError, "f"),
        (np.sin, lambda x: x * math.nan, ValueError, "df"),
        (lambda x: x + 1j, np.cos, ValueError, "f"),
        (Unhashable(), np.cos, TypeError, "f"),
        (np.sin, Unhashable(), TypeError, "df"),
        (lambda x: 1e100 * np.sin(x), np.cos, ValueError, "f"),
    ],
)
def test_functions_are_checked(f, df, error, name):
    with pytest.raises(error, match=rf"^{name} "):
        gs.Function("never known", f, df)


def test_results_with_functions_survive_files(tmp_path):
    point = gs.solve(Problem(**BASE, activation=COSINE), method="isotropic")
    assert bits(op.load(point.save(tmp_path / "point"))) == bits(point)


def test_unknown_activations_are_listed():
    with pytest.raises(ValueError, match=r"activation .*tanh.*relu.*sinlin"):
        Problem(**BASE, activation="gelu")
    with pytest.raises(ValueError, match="target"):
        Problem(**{**BASE, "target": "gelu"})


def test_methods_that_a_problem_cannot_honour():
    pair = {"readout_values": [1, -2], "readout_fractions": [0.5, 0.5]}
    relu = Problem(**BASE, activation="relu", **pair)
    for method in ("corrected", "anisotropic"):
        with pytest.raises(ValueError, match="method"):
            gs.solve(relu, method=method)
    gs.solve(relu, method="isotropic")
    with pytest.raises(ValueError, match="loss"):
        gs.solve(Problem(**BASE, **pair), loss="logistic")
    with pytest.raises(ValueError, match="width"):
        gs.solve(Problem(**BASE), loss="logistic", width=100)
