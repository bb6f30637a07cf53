"""The room population_flow against naive.py, independently derived numbers, and its invariants."""

import itertools
import json
import math
import pathlib
import warnings

import naive
import numpy as np
import overparam as op
import pytest
from cases import FALSE_ALARM, standard_errors
from numpy.testing import assert_allclose, assert_array_equal
from overparam import population_flow as flow
from overparam import spectra
from overparam.population_flow import Problem
from overparam.results import Status
from scipy import integrate, stats

FIELDS = ("loss", "distance2", "trace", "overlap", "shift", "shift_integral")


def values(result):
    return {field: getattr(result, field) for field in FIELDS}


def assert_same_flow(result, expected, *, fields=FIELDS, rtol, atol=0.0):
    """`expected` is another result, or a dict as naive.py returns."""
    expected = expected if isinstance(expected, dict) else values(expected)
    for field in fields:
        assert_allclose(
            getattr(result, field), expected[field], rtol=rtol, atol=atol, err_msg=field
        )


# ---- reference values ----------------------------------------------------------------------------

REFERENCE = json.loads(
    (pathlib.Path(__file__).parent / "reference" / "population_flow.json").read_text()
)
# Entries of the reference by the field that they are of.
OBSERVABLES = {
    "trS": "trace",
    "fro2": "distance2",
    "fro2_S_minus_Sstar": "distance2",
    "loss_no_reg": "loss",
    "overlap_tr_S_Sstar": "overlap",
    "overlap": "overlap",
    "s": "shift",
}


def wave(d, m, amp, phase=0.3):
    """The matrix amp cos(0.7 i j + phase i), indices from 1."""
    i, j = np.arange(1, d + 1)[:, None], np.arange(1, m + 1)
    return amp * np.cos(0.7 * i * j + phase * i)


def read(given):
    """Problem and W0 of the inputs of an entry."""
    problem = Problem(
        teacher_eigenvalues=given["teacher_eigs"],
        dim=given["d"],
        width=given["m"],
        trace_weight=given.get("kappa", 0.0),
        ridge=given["lam"],
    )
    return problem, wave(given["d"], given["m"], given["amp"])


def methods_for(problem, W0, keep=False):
    """The methods that apply."""
    found = []
    for method in flow.METHODS:
        try:
            flow.flow(problem, W0, [0.0], method=method, keep=keep)
        except ValueError:
            continue
        found.append(method)
    return found


def assert_reference(result, entry, *, rtol, atol):
    checked = 0
    for key, field in OBSERVABLES.items():
        if key in entry:
            assert_allclose(getattr(result, field), entry[key], rtol=rtol, atol=atol)
            checked += 1
    assert checked >= 2


def test_derivatives_reference():
    entry = REFERENCE["loss_grad_hess"]
    problem, W = read(entry["inputs"])
    D = wave(5, 3, 1.0, 0.11)
    gradient, action = flow.gradient(problem, W), flow.hessian_action(problem, W, D)
    units = np.eye(W.size).reshape(-1, *W.shape)
    dense = np.array([flow.hessian_action(problem, W, unit).ravel() for unit in units])
    eigenvalues = np.linalg.eigvalsh(dense)
    expected = {
        "loss_canonical": flow.loss(problem, W),
        "grad_fro": np.linalg.norm(gradient),
        "grad_11": gradient[0, 0],
        "hessvec_fro": np.linalg.norm(action),
        "hessvec_dot_D": np.sum(action * D),
        "hess_trace": np.trace(dense),
    }
    for key, value in expected.items():
        assert_allclose(value, entry[key], rtol=1e-12)
    extremes = [entry["hess_min_eig"], entry["hess_max_eig"]]
    assert_allclose(eigenvalues[[0, -1]], extremes, rtol=1e-10)


@pytest.mark.parametrize("entry", REFERENCE["riccati_kappa0"])
def test_flow_without_trace_weight_reference(entry):
    problem, W0 = read(entry["inputs"])
    t = [entry["inputs"]["tau"]]
    for method in methods_for(problem, W0, keep=True):
        run = flow.flow(problem, W0, t, method=method, keep=True)
        assert_allclose(run.S[0, 0, :2], [entry["S11"], entry["S12"]], rtol=0, atol=1e-9)
        assert_reference(run, entry, rtol=0, atol=1e-9)


@pytest.mark.parametrize("entry", REFERENCE["flow_trace_feedback"])
def test_flow_reference(entry):
    problem, W0 = read(entry["inputs"])
    for method in methods_for(problem, W0, keep=True):
        run = flow.flow(problem, W0, entry["inputs"]["tau"], method=method, keep=True)
        assert_reference(run, entry, rtol=1e-6, atol=1e-8)
        assert_allclose(run.S[:, 0, 0], entry["S11"], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("entry", REFERENCE["orthonormal_exact"])
def test_orthonormal_flow_reference(entry):
    given = entry["inputs"]
    run = flow.orthonormal_flow(
        given["cos2"],
        given["tau"],
        teacher_width=given["mstar"],
        trace_weight=given["kappa"],
        ridge=given["lam"],
        scale=given["s0"],
    )
    assert_reference(run, entry, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("entry", REFERENCE["wachter"])
def test_angle_law_reference(entry):
    given = entry["inputs"]
    law = flow.angle_law(given["gamma"], given["gamma_star"])
    masses = dict(law.atoms)
    assert_allclose(law.support, entry["support"], rtol=1e-9, atol=1e-15)
    assert_allclose(masses.get(0.0, 0.0), entry["atoms"]["at0"], rtol=1e-9, atol=1e-15)
    assert_allclose(masses.get(1.0, 0.0), entry["atoms"]["at1"], rtol=1e-9, atol=1e-15)
    assert_allclose(law.logdet(given["z"]), entry["J_logdet_per_d"], rtol=1e-9)
    for k, moment in enumerate(entry["moments_per_d"], start=1):
        assert_allclose(given["gamma"] * law.moments(k), moment, rtol=1e-9)


@pytest.mark.parametrize("entry", REFERENCE["limit_orthonormal"])
def test_orthonormal_limit_reference(entry):
    given = entry["inputs"]
    run = flow.limit(given["gamma"], given["gamma_star"], given["tau"])
    assert_allclose(run.loss, entry["fro2_per_d"], rtol=1e-6)
    assert_allclose(run.overlap, entry["overlap_per_d"], rtol=1e-6)
    assert_allclose(run.shift, entry["s"], rtol=1e-6)
    assert_allclose(np.exp(-2 * run.shift_integral), entry["eps"], rtol=1e-6)


@pytest.mark.parametrize("entry", REFERENCE["limit_invariant"])
def test_invariant_limit_reference(entry):
    given = entry["inputs"]
    run = flow.limit(
        given["gamma"],
        given["gamma_star"],
        given["tau"],
        student="gaussian",
        teacher=given["teacher"].split(",")[0].split(":")[0].lower(),
        trace=given["tr0"],
        trace_weight_d=float(given["kappa_d"]),
        ridge=given["lam"],
    )
    for key in ("fro2", "overlap", "trS"):
        assert_allclose(getattr(run, OBSERVABLES[key]), entry[f"{key}_per_d"], rtol=1e-5)
    assert_allclose(run.shift, entry["s"], rtol=1e-5)


@pytest.mark.parametrize("entry", REFERENCE["critical_points"])
def test_critical_point_reference(entry):
    given = entry["inputs"]
    problem = Problem(
        teacher_eigenvalues=given["teacher_eigs"],
        dim=len(given["teacher_eigs"]),
        width=given["m"],
        trace_weight=given["kappa"],
        ridge=given["lam"],
    )
    point = flow.critical_point(problem, given["I"])
    hessian = point.hessian
    assert_allclose(point.shift, entry["s"], rtol=0, atol=1e-10)
    assert_allclose(point.eigenvalues, entry["lambda_I"], rtol=0, atol=1e-10)
    assert_allclose(point.loss, entry["loss_no_reg"], rtol=0, atol=1e-10)
    extremes = [entry["hess_min"], entry["hess_max"]]
    assert_allclose(hessian.eigenvalues[[0, -1]], extremes, rtol=0, atol=1e-10)
    assert hessian.count_below(-1e-10) == entry["n_negative"]
    zero = np.abs(hessian.eigenvalues) < 1e-10
    assert hessian.multiplicities[zero].sum() == entry["n_zero"]
    assert hessian.size == entry["n_total"]


@pytest.mark.parametrize("entry", REFERENCE["asymptotics"])
def test_asymptotics_reference(entry):
    given = entry["inputs"]
    positive = given["teacher_eigs_positive"]
    # A teacher of full rank: the entry has the rate 4 mu_min of uncoupled directions, which
    # holds for kappa = 0 only (with kappa a direction shrinks together with the trace).
    kappa = 0.0 if len(positive) == given["d"] else given["kappa"]
    late = flow.asymptotics(
        Problem(teacher_eigenvalues=positive, dim=given["d"], width=given["m"], trace_weight=kappa)
    )
    assert late.regime == entry["regime"].split()[0]
    assert_allclose(late.constant, entry.get("loss_times_tau2", math.nan), rtol=1e-12)
    rate = entry.get("rate_loss", entry.get("rate_excess", math.nan))
    assert_allclose(late.rate, rate, rtol=1e-12)
    assert_allclose(late.residual, entry.get("loss_limit", 0.0), rtol=1e-12, atol=1e-28)


@pytest.mark.parametrize("entry", REFERENCE["signed"])
def test_signed_flow_reference(entry):
    given = entry["inputs"]
    plus = wave(given["d"], given["m_plus"], given["amp"])
    minus = wave(given["d"], given["m_minus"], given["amp"], 0.9)
    run = flow.signed_flow(
        plus, minus, given["Sstar_diag"], given["tau"], trace_weight=given["kappa"]
    )
    assert_reference(run, entry, rtol=0, atol=1e-8)


@pytest.mark.parametrize("entry", REFERENCE["sample_thresholds"])
def test_recovery_samples_reference(entry):
    counts = flow.recovery_samples(entry["inputs"]["d"], entry["inputs"]["mstar"])
    assert counts.degrees_of_freedom == entry["n_dof"]
    assert counts.count == entry["n_count"]
    assert abs(counts.conic - entry["n_half_conic"]) < float(entry["tol"].split()[1])


@pytest.mark.parametrize("entry", REFERENCE["sample_threshold_limit"])
def test_recovery_samples_limit_reference(entry):
    value = flow.recovery_samples_limit(entry["inputs"]["gamma_star"])
    assert_allclose(value, entry["n_over_d2"], rtol=0, atol=1e-7)


@pytest.mark.parametrize("entry", REFERENCE["escape"])
def test_escape_time_reference(entry):
    given = entry["inputs"]
    cosines2 = np.zeros(given["m"])
    cosines2[: given["mstar"]] = given["cos2"]
    value = flow.escape_time(
        cosines2,
        teacher_width=given["mstar"],
        scale=given["s0"],
        trace_weight=given["kappa"],
    )
    assert_allclose(value, entry["tau_overlap_half"], rtol=0, atol=1e-3)


def haar_frame(rng, d, m):
    Q, R = np.linalg.qr(rng.standard_normal((d, m)))
    return Q * np.sign(np.diag(R))


@pytest.mark.parametrize("entry", REFERENCE["finite_d_means"])
def test_finite_dimension_reference(entry):
    """Random frames made by the recipe of the entry."""
    given = entry["inputs"]
    d, curves = given["d"], []
    m, m_star = round(given["gamma"] * d), round(given["gamma_star"] * d)
    for i in range(given["n_seeds"]):
        rng = np.random.default_rng(1000 + i)
        student, teacher = haar_frame(rng, d, m), haar_frame(rng, d, m_star)
        singular = np.linalg.svd(teacher.T @ student, compute_uv=False)
        cosines2 = np.zeros(m)
        cosines2[: len(singular)] = np.minimum(singular**2, 1.0)
        run = flow.orthonormal_flow(
            cosines2,
            given["tau"],
            teacher_width=m_star,
            trace_weight=given["kappa"],
            scale=m_star / m,
        )
        curves.append(run.distance2 / d)
    assert_allclose(np.mean(curves, axis=0), entry["fro2_per_d_mean"], rtol=1e-9)
    assert_allclose(stats.sem(curves), entry["sem"], rtol=1e-6)
    limit = flow.limit(given["gamma"], given["gamma_star"], given["tau"])
    assert_allclose(limit.loss, entry["limit"], rtol=1e-6)
    simulated = flow.simulate(
        Problem(teacher_eigenvalues=np.ones(m_star), dim=d, width=m, trace_weight=given["kappa"]),
        given["tau"],
        init="orthonormal",
        replicas=8,
        seed=1,
    ).per_dimension()
    both = np.hypot(simulated.sem().distance2, entry["sem"])
    error = np.abs(simulated.mean().distance2 - entry["fro2_per_d_mean"])
    assert (error <= stats.t.isf(FALSE_ALARM / 2 / 4, 12) * both).all()


# ---- loss and derivatives ------------------------------------------------------------------------


def random_problem(rng):
    """Any sizes (m below, at and above r and d), spectra with zeros and equal values in any order,
    with or without ridge and trace weight, and weights of any size."""
    d, m = int(rng.integers(1, 9)), int(rng.integers(1, 11))
    r = int(rng.integers(0, d + 1))
    mu = rng.uniform(0.2, 2.0, r) if rng.random() < 0.6 else rng.choice([0.5, 1.0, 1.5], r)
    problem = Problem(
        teacher_eigenvalues=rng.permutation(np.pad(mu, (0, d - r))),
        dim=d,
        width=m,
        trace_weight=rng.choice([0.0, 0.5, 0.5, 3.0]),
        ridge=rng.choice([0.0, 0.0, 0.1, 0.7, 3.0]),
    )
    return problem, rng.choice([0.01, 0.3, 1.0]) * rng.standard_normal((d, m))


def weights_of(problem):
    return {"kappa": problem.trace_weight, "lam": problem.ridge}


def test_derivatives_against_naive():
    rng = np.random.default_rng(0)
    for _ in range(60):
        problem, W = random_problem(rng)
        D, options = rng.standard_normal(W.shape), weights_of(problem)
        mu = problem.mu
        assert_allclose(flow.loss(problem, W), naive.flow_loss(W, mu, **options), rtol=1e-12)
        for value, expected in (
            (flow.gradient(problem, W), naive.flow_gradient(W, mu, **options)),
            (flow.hessian_action(problem, W, D), naive.flow_hessian_action(W, mu, D, **options)),
        ):
            assert_allclose(value, expected, rtol=1e-11, atol=1e-12)


def test_hessian_of_rotations_at_a_minimum():
    """W Omega with Omega antisymmetric leaves S unchanged."""
    problem = Problem(teacher_eigenvalues=[1.0, 0.4], dim=4, width=3)
    W = np.linalg.qr(np.random.default_rng(1).standard_normal((3, 3)))[0][:2]
    W = np.vstack([np.sqrt([[1.0], [0.4]]) * W, np.zeros((2, 3))])
    Omega = np.array([[0.0, 1.0, -2.0], [-1.0, 0.0, 0.5], [2.0, -0.5, 0.0]])
    assert_allclose(flow.hessian_action(problem, W, W @ Omega), 0.0, atol=1e-14)


@pytest.mark.parametrize(("C", "c_m", "eta"), [(0.5, 1.0, 1.0), (0.25, 0.2, 3.0), (1.0, 1 / 6, 6)])
def test_time_scale(C, c_m, eta):
    """Gradient descent in physical variables, C E[(f_W - f*)^2] with f_W = c_m |W^T x|^2."""
    d, m, mu = 5, 6, np.array([1.0, 0.6, 0.3, 0.0, 0.0])
    W0 = 0.4 * np.random.default_rng(2).standard_normal((d, m)) / math.sqrt(c_m)
    steps, end = 20_000, 2.0
    rate = end / flow.time_scale(C, c_m, eta) / steps * eta

    def slope(W):
        A = c_m * W @ W.T - np.diag(mu)
        # E[(x^T A x)^2] = 2 |A|^2 + (tr A)^2, and dA = c_m (dW W^T + W dW^T).
        return C * (8 * A + 4 * np.trace(A) * np.eye(d)) @ W * c_m

    W = W0
    for _ in range(steps):
        W = W - rate * slope(W - 0.5 * rate * slope(W))
    problem = Problem(teacher_eigenvalues=mu, dim=d, width=m)
    run = flow.flow(problem, math.sqrt(c_m) * W0, [end], keep=True)
    assert_allclose(run.S[0], c_m * W @ W.T, rtol=0, atol=1e-7)
    physical = C * (2 * run.distance2[0] + (run.trace[0] - mu.sum()) ** 2)
    assert_allclose(run.loss[0] * 2 * C, physical, rtol=1e-12)


# ---- starts --------------------------------------------------------------------------------------


def test_problem_pads_its_teacher():
    problem = Problem(teacher_eigenvalues=(0.5, 0, 2), dim=5, width=7)
    assert_array_equal(problem.mu, [0.5, 0.0, 2.0, 0.0, 0.0])
    assert problem.teacher_rank == 2
    assert Problem(teacher_eigenvalues=[], dim=2, width=1).teacher_rank == 0
    with pytest.raises(ValueError, match="signed_flow takes teachers of any sign"):
        problem.replace(teacher_eigenvalues=[-1.0])


def test_gaussian_start():
    problem = Problem(teacher_eigenvalues=[2.0, 1.0], dim=31, width=17)
    draws = np.array([flow.random_start(problem, seed=3, replica=k) for k in range(40)])
    normals = draws.ravel() * math.sqrt(31 * 17 / 3.0)
    assert stats.kstest(normals, "norm").pvalue > FALSE_ALARM
    traces = np.sum(draws**2, axis=(1, 2))
    assert abs(traces.mean() - 3.0) < standard_errors(1, 40) * stats.sem(traces)
    other = flow.random_start(problem, seed=3, trace=0.75)
    assert_allclose(other, draws[0] / 2, rtol=1e-15)
    assert len(np.unique(draws)) == draws.size
    assert not np.isin(flow.random_start(problem, seed=4), draws).any()


def test_orthonormal_start():
    problem = Problem(teacher_eigenvalues=[1.0, 2.0], dim=7, width=3)
    draws = np.array(
        [flow.random_start(problem, init="orthonormal", replica=k) for k in range(4000)]
    )
    grams = draws.swapaxes(1, 2) @ draws
    assert_allclose(grams, np.broadcast_to(np.eye(3), grams.shape), atol=1e-14)
    # Uniform: entries have mean 0, square 1/7 and the law of a coordinate on the sphere; signs of
    # different columns are independent.
    for row, column in itertools.product(range(7), range(3)):
        squares = draws[:, row, column] ** 2
        law = stats.beta(0.5, 3.0)
        assert stats.kstest(squares, law.cdf).pvalue > FALSE_ALARM / 21
        signs = np.sum(draws[:, row, column] > 0)
        assert stats.binomtest(int(signs), 4000).pvalue > FALSE_ALARM / 21
    products = draws[:, 0, 0] * draws[:, 1, 1]
    assert abs(products.mean()) < standard_errors(1, 4000) * stats.sem(products)
    with pytest.raises(ValueError, match="init must be gaussian"):
        flow.random_start(problem.replace(width=8), init="orthonormal")
    square = flow.random_start(problem.replace(width=7), init="orthonormal", trace=14.0)
    assert_allclose(square @ square.T, 2 * np.eye(7), atol=1e-14)


def test_start_of_a_zero_teacher():
    problem = Problem(teacher_eigenvalues=[], dim=3, width=2)
    with pytest.raises(ValueError, match="trace must be given"):
        flow.random_start(problem)
    with pytest.raises(ValueError, match="trace must be given"):
        flow.simulate(problem, [1.0])
    run = flow.simulate(problem, [0.0, 2.0], trace=1.0, replicas=3)
    assert (run.loss[:, 1] < run.loss[:, 0]).all()


# ---- exact flows ---------------------------------------------------------------------------------

TIMES = np.array([0.0, 0.1, 0.7, 3.0, 9.0])


@pytest.mark.parametrize("block", range(8))
def test_flow_against_naive(block):
    """All methods on random problems; both integrators have an error near 1e-11, that grows with
    what leaves a saddle, at most by exp(2 mu t) of the first 3 units of time."""
    rng = np.random.default_rng([7, block])
    used = set()
    for _ in range(6):
        problem, W0 = random_problem(rng)
        W, integral = naive.flow_ode(W0, problem.mu, TIMES, **weights_of(problem))
        expected = naive.flow_observables(W, problem.mu, **weights_of(problem))
        expected["shift_integral"] = integral
        S = W @ W.swapaxes(1, 2)
        for keep in (False, True):
            for method in methods_for(problem, W0, keep):
                run = flow.flow(problem, W0, TIMES, method=method, keep=keep)
                assert run.method == method
                assert_same_flow(run, expected, rtol=1e-7, atol=1e-7)
                assert (run.S is not None) == keep
                if keep:
                    assert_allclose(run.S, S, rtol=0, atol=1e-7)
                    assert_allclose(run.S, run.S.swapaxes(1, 2), rtol=0, atol=1e-12)
                used.add(method)
    assert {"restart", "ode", "reduced"} <= used


@pytest.mark.parametrize("block", range(4))
def test_methods_agree(block):
    """Closed solutions, integrated to 1e-13, against each other."""
    rng = np.random.default_rng([8, block])
    for _ in range(20):
        problem, W0 = random_problem(rng)
        runs = {
            method: flow.flow(problem, W0, TIMES, method=method, rtol=1e-13)
            for method in methods_for(problem, W0)
            if method != "ode"
        }
        for run in runs.values():
            assert_same_flow(run, runs["restart"], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kappa", [0.0, 0.5])
@pytest.mark.parametrize("lam", [0.0, 0.1])
@pytest.mark.parametrize(("m", "r"), [(1, 1), (3, 5), (5, 3), (5, 5), (7, 4), (6, 7)])
def test_flow_of_orthonormal_families(m, r, kappa, lam):
    """W0 = c x orthonormal and S* = mu x projector in 7 dimensions, in any order of rows."""
    rng = np.random.default_rng([9, m, r])
    mu = rng.permutation(np.pad(np.full(r, 1.7), (0, 7 - r)))
    problem = Problem(teacher_eigenvalues=mu, dim=7, width=m, trace_weight=kappa, ridge=lam)
    W0 = 0.8 * haar_frame(rng, 7, m)
    expected = naive.flow_trajectory(W0, mu, TIMES, kappa=kappa, lam=lam)
    automatic = flow.flow(problem, W0, TIMES)
    assert automatic.method == "orthonormal"
    assert_same_flow(automatic, expected, rtol=1e-8, atol=1e-9)
    precise = flow.flow(problem, W0, TIMES, rtol=1e-13)
    for method in methods_for(problem, W0):
        run = flow.flow(problem, W0, TIMES, method=method, rtol=1e-13)
        assert_same_flow(run, precise, rtol=1e-9, atol=1e-10)
    cosines2 = np.zeros(m)
    singular = np.linalg.svd(W0[mu > 0] / 0.8, compute_uv=False) ** 2
    cosines2[: len(singular)] = np.minimum(singular, 1.0)
    units = {"trace_weight": kappa, "ridge": lam / 1.7, "scale": 0.64 / 1.7}
    scaled = flow.orthonormal_flow(cosines2, 1.7 * TIMES, teacher_width=r, **units)
    assert_allclose(1.7**2 * scaled.loss, automatic.loss, rtol=1e-8, atol=1e-10)
    assert_allclose(1.7 * scaled.shift, automatic.shift, rtol=1e-8, atol=1e-10)
    assert_allclose(scaled.shift_integral, automatic.shift_integral, rtol=1e-8, atol=1e-10)


ANGLES = [
    ([0.6, 0.3, 0.1, 0.0, 0.0], 3),
    ([0.5, 0.5, 0.2], 4),
    ([1.0, 1.0, 0.3, 0.0], 3),
    ([1.0], 1),
    ([0.0, 0.0], 2),
    ([1e-6, 0.9, 1e-6], 3),
]


@pytest.mark.parametrize(("cosines2", "teacher_width"), ANGLES)
@pytest.mark.parametrize(("kappa", "lam", "scale"), [(0.5, 0.0, 1.0), (0.0, 0.2, 0.3), (4, 2, 3)])
def test_orthonormal_flow_against_naive(cosines2, teacher_width, kappa, lam, scale):
    options = {"teacher_width": teacher_width, "scale": scale}
    expected = naive.orthonormal_flow(cosines2, TIMES, kappa=kappa, lam=lam, **options)
    run = flow.orthonormal_flow(cosines2, TIMES, trace_weight=kappa, ridge=lam, **options)
    assert_same_flow(run, expected, rtol=1e-8, atol=1e-9)
    assert_array_equal(
        run.loss,
        flow.orthonormal_flow(cosines2[::-1], TIMES, trace_weight=kappa, ridge=lam, **options).loss,
    )


def test_kept_matrices_have_the_order_of_the_rows():
    problem = Problem(teacher_eigenvalues=[0.0, 1.0, 0.0, 0.5], dim=6, width=4)
    W0 = np.random.default_rng(10).standard_normal((6, 4))
    for method in methods_for(problem, W0, keep=True):
        S = flow.flow(problem, W0, [0.0, 30.0], method=method, keep=True).S
        assert_allclose(S[0], W0 @ W0.T, rtol=1e-13, atol=1e-14)
        assert_allclose(np.diag(S[1])[[1, 3]], [1.0, 0.5], atol=0.05)


def test_auto():
    rng = np.random.default_rng(11)
    problem = Problem(teacher_eigenvalues=[1.0, 0.5], dim=5, width=3)
    W0, frame = rng.standard_normal((5, 3)), haar_frame(rng, 5, 3)
    projector = problem.replace(teacher_eigenvalues=[0.7, 0.7])
    narrow = problem.replace(width=1)
    lacking = W0.copy()
    lacking[1] = lacking[0] + 1e-9 * lacking[1]  # rank 2, but hardly

    def chosen(problem, W0, **options):
        return flow.flow(problem, W0, [1.0], **options).method

    assert chosen(problem, W0) == "reduced"
    assert chosen(problem, frame) == "reduced"
    assert chosen(projector, frame) == "orthonormal"
    assert chosen(projector, frame, keep=True) == "reduced"
    assert chosen(projector, W0) == "reduced"
    assert chosen(narrow, W0[:, :1]) == "restart"
    assert chosen(narrow.replace(trace_weight=0.0), W0[:, :1]) == "direct"
    assert chosen(problem, lacking) == "restart"
    assert chosen(problem.replace(trace_weight=0.0), lacking) == "direct"
    assert chosen(problem.replace(teacher_eigenvalues=[]), W0) == "restart"


def test_methods_that_do_not_apply_are_refused():
    rng = np.random.default_rng(12)
    problem = Problem(teacher_eigenvalues=[1.0, 0.5], dim=5, width=3)
    W0, frame = rng.standard_normal((5, 3)), haar_frame(rng, 5, 3)
    projector = problem.replace(teacher_eigenvalues=[1.0, 1.0])
    for method, args, word in (
        ("direct", (problem, W0), "trace_weight = 0"),
        ("orthonormal", (problem, frame), "equal teacher eigenvalues"),
        ("orthonormal", (projector, W0), "orthogonal columns"),
        ("reduced", (problem.replace(width=1), W0[:, :1]), "rank r"),
        ("reduced", (problem.replace(teacher_eigenvalues=[]), W0), "rank r"),
    ):
        with pytest.raises(ValueError, match=f"method must be one that applies: .*{word}"):
            flow.flow(*args, [1.0], method=method)
    with pytest.raises(ValueError, match="keep must be False"):
        flow.flow(projector, frame, [1.0], method="orthonormal", keep=True)
    with pytest.raises(MemoryError, match="the matrices S"):
        flow.flow(
            problem.replace(dim=2000),
            rng.standard_normal((2000, 3)),
            np.arange(100_000.0),
            keep=True,
        )


# ---- invariants ----------------------------------------------------------------------------------

GENERIC = Problem(
    teacher_eigenvalues=[1.2, 0.0, 0.7, 0.7], dim=5, width=3, trace_weight=0.5, ridge=0.05
)
GENERIC_START = 0.5 * np.random.default_rng(13).standard_normal((5, 3))
INVARIANT = ("restart", "reduced", "ode")


@pytest.mark.parametrize("method", INVARIANT)
def test_log_determinant(method):
    """The integral of tr S is half of log det M."""
    t = np.linspace(0.0, 3.0, 8001)
    run = flow.flow(GENERIC, GENERIC_START, t, method=method)
    expected = naive.flow_log_determinant(GENERIC_START, GENERIC.mu, t, run.shift_integral) / 2
    total = integrate.cumulative_simpson(run.trace, x=t, initial=0)
    assert_allclose(total, expected, rtol=0, atol=1e-9)
    integral = integrate.cumulative_simpson(run.shift, x=t, initial=0)
    assert_allclose(run.shift_integral, integral, rtol=0, atol=1e-9)


@pytest.mark.parametrize("method", INVARIANT)
def test_dissipation(method):
    """d Lc/dtau = -|grad Lc|^2/4, by central differences of the recorded loss."""
    h = 1e-3
    for tau in (0.3, 2.0):
        t = tau + h * np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
        run = flow.flow(GENERIC, GENERIC_START, t, method=method, rtol=1e-13, keep=True)
        loss = run.loss + 2 * GENERIC.ridge * run.trace
        slope = loss @ [1, -8, 0, 8, -1] / (12 * h)
        S = run.S[2]
        G = S - np.diag(GENERIC.mu) + run.shift[2] * np.eye(5)
        assert_allclose(slope, -4 * np.trace(G @ S @ G), rtol=1e-7)


@pytest.mark.parametrize("method", INVARIANT)
def test_rank_and_range_are_conserved(method):
    """S(tau) has the range exp(tau S*) range(S0)."""
    run = flow.flow(GENERIC, GENERIC_START, [2.0], method=method, keep=True)
    values_ = np.linalg.eigvalsh(run.S[0])
    assert_allclose(values_[:2], 0.0, atol=1e-12)
    assert values_[2] > 1e-3
    basis = np.linalg.qr(np.exp(2.0 * GENERIC.mu)[:, None] * GENERIC_START)[0]
    assert_allclose(run.S[0] - basis @ (basis.T @ run.S[0]), 0.0, atol=1e-9)


@pytest.mark.parametrize("method", INVARIANT)
def test_student_rotations_change_nothing(method):
    rotation = haar_frame(np.random.default_rng(14), 3, 3)
    runs = [
        flow.flow(GENERIC, W, TIMES, method=method, rtol=1e-13)
        for W in (GENERIC_START, GENERIC_START @ rotation)
    ]
    assert_same_flow(*runs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("method", INVARIANT)
def test_rotations_within_an_eigenspace_change_nothing(method):
    """Rows of equal mu: 1 and 4 (mu = 0), 2 and 3 (mu = 0.7)."""
    W = GENERIC_START.copy()
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    for pair in ([1, 4], [2, 3]):
        W[pair] = turn @ W[pair]
    runs = [flow.flow(GENERIC, W0, TIMES, method=method, rtol=1e-13) for W0 in (GENERIC_START, W)]
    assert_same_flow(*runs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("method", ["restart", "reduced", "ode", "orthonormal"])
def test_wide_student_from_a_multiple_of_the_identity(method):
    """m = d and S0 = s0 I: two scalars, x1' = 2 (1 - s - x1) x1 and x0' = 2 (-s - x0) x0."""
    d, r, s0 = 5, 2, 0.4
    problem = Problem(teacher_eigenvalues=np.ones(r), dim=d, width=d)

    def slope(_, x):
        s = 0.5 * (r * x[0] + (d - r) * x[1] - r)
        return [2 * (1 - s - x[0]) * x[0], 2 * (-s - x[1]) * x[1], s]

    run = flow.flow(problem, math.sqrt(s0) * np.eye(d), TIMES, method=method)
    x = integrate.solve_ivp(
        slope, (0, TIMES[-1]), [s0, s0, 0], "DOP853", TIMES, rtol=1e-12, atol=1e-14
    ).y
    distance2 = r * (1 - x[0]) ** 2 + (d - r) * x[1] ** 2
    assert_allclose(run.distance2, distance2, rtol=1e-8, atol=1e-10)
    assert_allclose(run.trace, r * x[0] + (d - r) * x[1], rtol=1e-9)
    assert_allclose(run.overlap, r * x[0], rtol=1e-9)
    assert_allclose(run.shift_integral, x[2], rtol=1e-8, atol=1e-10)


def test_zero_weights_stay_zero():
    for kappa, lam in ((0.5, 0.0), (0.0, 0.1)):
        problem = Problem(
            teacher_eigenvalues=[1.0, 0.5], dim=3, width=2, trace_weight=kappa, ridge=lam
        )
        for method in ("auto", "restart", "ode", *(["direct"] if kappa == 0 else [])):
            with pytest.warns(UserWarning, match="direction 0, 1 of the teacher"):
                run = flow.flow(problem, np.zeros((3, 2)), [0.0, 5.0], method=method)
            assert_array_equal(run.trace, 0.0)
            assert_allclose(run.loss, 1.25 + kappa * 1.5**2, rtol=1e-15)
            s = lam - 1.5 * kappa
            assert_allclose(run.shift_integral, [0.0, 5.0 * s], rtol=1e-12)


def test_commuting_start():
    """Where S0 commutes with S* every eigenvalue follows x' = 2 (mu - s - x) x."""
    mu, x0 = np.array([1.0, 0.5, 0.0]), np.array([0.01, 0.3, 0.5])
    problem = Problem(teacher_eigenvalues=mu, dim=3, width=3)
    run = flow.flow(problem, np.diag(np.sqrt(x0)), TIMES, keep=True)

    def slope(_, x):
        return 2 * (mu - 0.5 * (x.sum() - 1.5) - x) * x

    x = integrate.solve_ivp(slope, (0, 9), x0, "DOP853", TIMES, rtol=1e-12, atol=1e-14).y
    assert_allclose(np.diagonal(run.S, axis1=1, axis2=2), x.T, rtol=1e-8, atol=1e-10)
    off = run.S - np.array([np.diag(row) for row in x.T])
    assert_allclose(off, 0.0, atol=1e-8)


def test_scales_of_the_teacher():
    """S* -> mu S*, S0 -> mu S0 and tau -> tau/mu multiply S by mu."""
    unit = flow.flow(GENERIC, GENERIC_START, TIMES)
    for mu in (1e-8, 3.0, 1e6):
        scaled = GENERIC.replace(teacher_eigenvalues=mu * GENERIC.mu, ridge=mu * GENERIC.ridge)
        run = flow.flow(scaled, math.sqrt(mu) * GENERIC_START, TIMES / mu)
        assert_allclose(run.loss / mu**2, unit.loss, rtol=1e-7, atol=1e-10)
        assert_allclose(run.trace / mu, unit.trace, rtol=1e-8)
        assert_allclose(run.shift_integral, unit.shift_integral, rtol=1e-7, atol=1e-9)


# ---- accuracy of small losses --------------------------------------------------------------------


def taylor_flow(W0, mu, t, *, kappa, order=26):
    """Loss by Taylor steps of the polynomial flow of W in extended precision.

    A = S - S* is accurate to 1e-16 and better, so that its square is, relatively, at 1e-26.
    """
    real = np.longdouble
    W, now, losses = np.array(W0, real), real(0), []
    identity, kappa = np.eye(len(mu), dtype=real), real(kappa)
    for end in np.array(t, real):
        while now < end:
            terms, forces = [W], []
            for k in range(order):
                S = sum(terms[i] @ terms[k - i].T for i in range(k + 1))
                A = S - np.diag(np.array(mu, real)) if k == 0 else S
                forces.append(A + kappa * np.trace(A) * identity)
                push = sum(forces[i] @ terms[k - i] for i in range(k + 1))
                terms.append(-push / (k + 1))
            with np.errstate(divide="ignore"):  # at the end nothing moves
                reach = (1e-20 * abs(W).max() / abs(terms[-1]).max()) ** (1 / order)
            h = min(reach, end - now)
            W = terms[-1]
            for term in terms[-2::-1]:
                W = term + h * W
            now = end if h == end - now else now + h
        A = W @ W.T - np.diag(np.array(mu, real))
        losses.append(float(np.sum(A**2) + kappa * np.trace(A) ** 2))
    return np.array(losses)


@pytest.mark.parametrize(
    ("mu", "d", "kappa"),
    [
        ([1.0, 0.8], 3, 0.5),
        ([1.0, 1.0], 3, 0.5),
        ([1.0, 0.9, 0.8], 4, 2.0),
        ([1.0, 0.7], 2, 0.5),
        ([1.0], 2, 0.0),
        ([1.3, 0.7], 3, 10.0),
    ],
)
def test_small_losses(mu, d, kappa):
    """As small as 1e-25, to a relative accuracy of one per cent; in fact far better."""
    W0 = 0.4 * np.random.default_rng(15).standard_normal((d, len(mu)))
    t = np.linspace(2.0, 45.0, 44)
    expected = taylor_flow(W0, np.pad(mu, (0, d - len(mu))), t, kappa=kappa)
    kept = expected > 1e-25
    assert np.log10(expected[kept][-1]) < -22
    problem = Problem(teacher_eigenvalues=mu, dim=d, width=len(mu), trace_weight=kappa)
    run = flow.flow(problem, W0, t, method="reduced")
    assert_allclose(run.loss[kept], expected[kept], rtol=1e-2)
    large = expected > 1e-16
    assert_allclose(run.loss[large], expected[large], rtol=1e-7)


@pytest.mark.parametrize(
    ("cosines2", "width", "scale"), [([0.6, 0.3], 2, 1.0), ([0.9, 0.01, 0.2], 3, 2)]
)
def test_small_losses_of_orthonormal_families(cosines2, width, scale):
    W0, mu = naive.orthonormal_network(cosines2, width, scale)
    t = np.linspace(2.0, 35.0, 34)
    expected = taylor_flow(W0, mu, t, kappa=0.5)
    kept = expected > 1e-25
    run = flow.orthonormal_flow(cosines2, t, teacher_width=width, scale=scale)
    assert_allclose(run.loss[kept], expected[kept], rtol=1e-2)
    assert np.log10(expected[kept][-1]) < -23
    problem = Problem(teacher_eigenvalues=mu, dim=len(mu), width=len(cosines2))
    for method in ("reduced", "orthonormal"):
        run = flow.flow(problem, W0, t, method=method)
        assert_allclose(run.loss[kept], expected[kept], rtol=1e-2)


# ---- late times, extreme starts, stiffness -------------------------------------------------------

LATE = {
    "surplus": {"teacher_eigenvalues": [1.3, 0.4]},
    "exact": {"teacher_eigenvalues": [1.3, 0.4, 0.7]},
    "narrow": {"teacher_eigenvalues": [1.3, 0.4, 0.7, 0.2]},
    "ridge": {"teacher_eigenvalues": [1.3, 0.4], "ridge": 0.6},
    "strong ridge": {"teacher_eigenvalues": [1.3, 0.4], "ridge": 2.0},
    "free": {"teacher_eigenvalues": [1.3, 0.4], "trace_weight": 0.0},
    "free narrow": {"teacher_eigenvalues": [1.3, 0.4, 0.7, 0.2], "trace_weight": 0.0},
    "free ridge": {"teacher_eigenvalues": [1.3, 0.4], "trace_weight": 0.0, "ridge": 2.0},
    "projector": {"teacher_eigenvalues": [1.0, 1.0]},
    "narrow projector": {"teacher_eigenvalues": [1.0] * 4},
    "projector with ridge": {"teacher_eigenvalues": [1.0] * 2, "ridge": 1.5},
}


@pytest.mark.parametrize("name", LATE)
def test_times_up_to_a_million(name):
    problem = Problem(dim=5, width=3, **LATE[name])
    late = flow.asymptotics(problem)
    rng = np.random.default_rng(16)
    starts = {"generic": 0.5 * rng.standard_normal((5, 3)), "frame": haar_frame(rng, 5, 3)}
    for W0 in starts.values():
        for method in ("auto", *methods_for(problem, W0)):
            if method in ("ode", "restart") and method != flow.flow(problem, W0, [0.0]).method:
                continue  # those that auto does not take are slow at late times
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                run = flow.flow(problem, W0, [1.0, 1e3, 1e6], method=method)
            for field in FIELDS:
                assert np.isfinite(getattr(run, field)).all()
            expected = late.residual
            if late.regime == "polynomial":
                expected = late.constant / 1e12
            assert_allclose(run.loss[-1], expected, rtol=1e-3, atol=1e-25)


@pytest.mark.parametrize("kappa", [0.0, 0.5])
@pytest.mark.parametrize("scale", [1e-150, 1e-30])
def test_tiny_starts(scale, kappa):
    """All methods agree; the same start, multiplied, escapes later by log(1/scale)/mu."""
    rng = np.random.default_rng(17)
    W0, frame = scale * rng.standard_normal((5, 3)), scale * haar_frame(rng, 5, 3)
    wait = math.log(1 / scale)
    for start, mu in ((W0, [1.3, 0.9]), (frame, [1.0, 1.0]), (W0, [1.3, 0.9, 0.8, 0.7])):
        problem = Problem(teacher_eigenvalues=mu, dim=5, width=3, trace_weight=kappa)
        grown = wait / mu[0]  # the time at which the first direction is learned, kappa = 0
        t = grown * np.array([0.2, 0.5, 0.9, 1.1, 1.6])
        runs = {
            method: flow.flow(problem, start, t, method=method, max_steps=10**6)
            for method in methods_for(problem, start)
        }
        for method, run in runs.items():
            assert_allclose(run.loss, runs["restart"].loss, rtol=1e-6, atol=1e-12, err_msg=method)
        if kappa == 0.0:
            # until then the equation is linear
            rows, early = np.sum(start**2, axis=1)[: len(mu)], t[:2, None] * mu
            overlap = (rows * mu * np.exp(2 * early)).sum(axis=1)
            assert_allclose(runs["restart"].overlap[:2], overlap, rtol=1e-8)


@pytest.mark.parametrize("kappa", [0.0, 0.5, 50.0])
def test_huge_starts(kappa):
    """S0 = 1e10: all methods agree, also within the first moments, when S falls like 1/(2 tau)."""
    rng = np.random.default_rng(18)
    t = np.array([0.0, 1e-12, 1e-10, 1e-7, 1e-3, 1.0, 10.0])
    for start, mu in (
        (1e5 * rng.standard_normal((5, 3)), [1.3, 0.9]),
        (1e5 * haar_frame(rng, 5, 3), [1.0, 1.0]),
        (1e5 * rng.standard_normal((5, 2)), [1.3, 0.9, 0.8]),
    ):
        problem = Problem(teacher_eigenvalues=mu, dim=5, width=start.shape[1], trace_weight=kappa)
        methods = methods_for(problem, start)
        runs = [flow.flow(problem, start, t, method=method, rtol=1e-10) for method in methods]
        for method, run in zip(methods, runs, strict=True):
            assert_allclose(run.loss, runs[0].loss, rtol=1e-5, err_msg=method)
            assert_allclose(run.trace, runs[0].trace, rtol=1e-5, err_msg=method)
    # One dimension, one unit: x' = 2 (mu - kappa (x - mu) - x) x is a logistic equation.
    problem = Problem(teacher_eigenvalues=[1.0], dim=1, width=1, trace_weight=kappa)
    for method in methods_for(problem, [[1e5]]):
        run = flow.flow(problem, [[1e5]], t, method=method)
        rate = 2 * (1 + kappa) * t
        logistic = 1 / (1e-10 * np.exp(-rate) - np.expm1(-rate))
        assert_allclose(run.trace, logistic, rtol=1e-8, err_msg=method)


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")  # in SciPy
@pytest.mark.parametrize("strength", [1e2, 1e4])
def test_stiff_trace(strength):
    """kappa T* = 1e4 against an implicit solver of SciPy (Radau, rtol 1e-10)."""
    rng = np.random.default_rng(19)
    t = np.array([1e-4, 1e-2, 1.0, 5.0, 20.0])
    for width, mu in ((4, np.array([1.0, 0.8, 0.5, 0, 0])), (2, np.array([1.0, 0.8, 0.5, 0, 0]))):
        kappa = strength / mu.sum()
        problem = Problem(teacher_eigenvalues=mu, dim=5, width=width, trace_weight=kappa)
        W0 = 0.5 * rng.standard_normal((5, width))
        expected = naive.flow_trajectory(W0, mu, t, kappa=kappa, method="Radau", rtol=1e-10)
        for method in methods_for(problem, W0):
            run = flow.flow(problem, W0, t, method=method)
            assert_same_flow(run, expected, rtol=1e-6, atol=1e-8, fields=("trace", "overlap"))
            assert_same_flow(run, expected, rtol=1e-6, atol=1e-6, fields=("loss", "distance2"))


def test_strong_trace_weight_is_the_hard_constraint():
    """kappa -> inf at fixed d: the trace is held, and what mismatch there was rescales S0."""
    cosines2, t = [0.6, 0.3, 0.1, 0.0], np.array([0.5, 2.0, 6.0])
    hard = naive.angle_flow(cosines2, np.ones(4), 3, t, scale=0.75)
    for kappa in (1e4, 1e6):
        run = flow.orthonormal_flow(cosines2, t, teacher_width=3, trace_weight=kappa, scale=0.75)
        for field in ("trace", "overlap", "distance2", "shift"):
            assert_allclose(getattr(run, field), hard[field], rtol=10 / kappa, atol=10 / kappa)
        other = flow.orthonormal_flow(cosines2, t, teacher_width=3, trace_weight=kappa, scale=3)
        assert_allclose(other.overlap, hard["overlap"], rtol=30 / kappa)
        shed = other.shift_integral - run.shift_integral
        assert_allclose(shed, 0.5 * math.log(4), rtol=30 / kappa)


# ---- warnings ------------------------------------------------------------------------------------


def test_missing_directions_are_announced():
    problem = Problem(teacher_eigenvalues=[1.0, 0.0, 0.5, 0.7], dim=5, width=3)
    rng = np.random.default_rng(20)
    W0 = rng.standard_normal((5, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flow.flow(problem, W0, [1.0])
        zero = W0.copy()
        zero[[1, 4]] = 0.0  # not the teacher's
        flow.flow(problem, zero, [1.0])
        flow.flow(problem.replace(width=1), W0[:, :1], [1.0])  # fewer units than directions
    lacking = W0.copy()
    lacking[2] = 0.0
    with pytest.warns(UserWarning, match="direction 2 of the teacher, which is never learned"):
        run = flow.flow(problem, lacking, [0.0, 400.0], keep=True)
    assert_array_equal(run.S[:, 2, 2], 0.0)
    assert run.loss[-1] > 0.25 * 0.99
    lacking[2] = 2 * lacking[0] - lacking[3]
    with pytest.warns(UserWarning, match="some direction of the teacher"):
        flow.flow(problem, lacking, [1.0])


# ---- simulations ---------------------------------------------------------------------------------

SIMULATED = {
    "reduced": {},
    "orthonormal": {"teacher_eigenvalues": [0.0, 1.5, 1.5], "init": "orthonormal"},
    "restart": {"width": 1},
    "direct": {"width": 1, "trace_weight": 0.0},
    "frames": {"init": "orthonormal", "trace": 0.4},
    "wide": {"width": 8, "trace": 3.0},
}


@pytest.mark.parametrize("name", SIMULATED)
def test_replicas_are_flows(name):
    options = dict(SIMULATED[name])
    starts = {key: options.pop(key) for key in ("init", "trace") if key in options}
    base = {"teacher_eigenvalues": [1.5, 0.0, 0.7], "dim": 6, "width": 3, "ridge": 0.05}
    problem = Problem(**{**base, **options})
    run = flow.simulate(problem, TIMES, replicas=5, seed=21, rtol=1e-13, **starts)
    if name in ("reduced", "orthonormal", "restart", "direct"):
        assert run.method == name
    assert not run.diverged.any()
    for k in range(5):
        W0 = flow.random_start(problem, seed=21, replica=k, **starts)
        single = flow.flow(problem, W0, TIMES, rtol=1e-13)
        for field in FIELDS:
            expected = getattr(single, field)
            assert_allclose(getattr(run, field)[k], expected, rtol=1e-9, atol=1e-11)


def test_simulations_that_fail():
    problem = Problem(teacher_eigenvalues=[1.0, 0.5], dim=6, width=3)
    with pytest.raises(op.ConvergenceError) as caught:
        flow.simulate(problem, [0.0, 1.0, 50.0], replicas=3, max_steps=2)
    partial = caught.value.result
    assert partial.status is not Status.SUCCESS
    assert partial.diverged.all()


def test_per_dimension():
    problem = Problem(teacher_eigenvalues=[1.0] * 3, dim=10, width=4)
    run = flow.simulate(problem, [0.0, 1.0], replicas=2)
    scaled = run.per_dimension()
    for field in ("loss", "distance2", "trace", "overlap"):
        assert_allclose(getattr(scaled, field), getattr(run, field) / 10, rtol=1e-15)
    for field in ("shift", "shift_integral"):
        assert_array_equal(getattr(scaled, field), getattr(run, field))
    with pytest.raises(ValueError, match="problem"):
        flow.limit(0.5, 0.3, [1.0]).per_dimension()


# ---- the limit of high dimension -----------------------------------------------------------------

LIMIT_TIMES = np.array([0.3, 1.0, 3.0, 8.0])


def assert_limit(run, expected):
    assert_same_flow(run, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("gamma", "gamma_star"),
    [(0.5, 0.3), (0.3, 0.5), (0.4, 0.4), (0.8, 0.7), (0.7, 0.3), (1.0, 0.6)],
)
@pytest.mark.parametrize("trace_weight_d", [math.inf, 8.0, 0.0])
def test_orthonormal_limit_against_naive(gamma, gamma_star, trace_weight_d):
    """The flow of one column per principal angle on the nodes of the law of angles."""
    if gamma == 1.0:
        c, weights = np.array([1.0, 0.0]), np.array([gamma_star, 1 - gamma_star])
    else:
        c, weights = naive.jacobi_nodes(gamma, gamma_star)
    kappa = None if math.isinf(trace_weight_d) else trace_weight_d
    lam = 0.0 if kappa is None else 0.1
    trace = gamma_star if kappa is None else 0.9 * gamma
    t = np.append(0.0, LIMIT_TIMES)
    run = flow.limit(gamma, gamma_star, t, trace=trace, trace_weight_d=trace_weight_d, ridge=lam)
    expected = naive.angle_flow(
        c, gamma * weights, gamma_star, t, scale=trace / gamma, kappa=kappa, lam=lam
    )
    assert_limit(run, expected)


def test_first_integral_of_the_orthonormal_limit():
    """(gamma log u + J(z))/2 = gamma* tau, u and z from integrals of exp(-2 sigma)."""
    for gamma, gamma_star in ((0.5, 0.3), (0.3, 0.5), (0.6, 0.6)):
        t = np.linspace(0.0, 4.0, 4001)
        eps = np.exp(-2 * flow.limit(gamma, gamma_star, t).shift_integral)
        k0 = integrate.cumulative_simpson(eps, x=t, initial=0)
        k1 = integrate.cumulative_simpson(eps * np.exp(2 * t), x=t, initial=0)
        s0, law = gamma_star / gamma, flow.angle_law(gamma, gamma_star)
        u = 1 + 2 * s0 * k0
        z = 2 * s0 * (k1 - k0) / u
        assert_allclose((gamma * np.log(u) + law.logdet(z)) / 2, gamma_star * t, atol=1e-9)


def test_angle_law_is_symmetric():
    z = np.array([1e-8, 0.3, 5.0, 1e6])
    for gamma, gamma_star in ((0.5, 0.3), (0.9, 0.4), (0.2, 0.2)):
        value = flow.angle_law(gamma, gamma_star).logdet(z)
        assert_allclose(value, flow.angle_law(gamma_star, gamma).logdet(z), rtol=1e-12)
        assert_allclose(value[0], 1e-8 * gamma * gamma_star, rtol=1e-7)
        assert_allclose(value[1], naive.jacobi_logdet(0.3, gamma, gamma_star), rtol=1e-10)


MIXED = spectra.discrete([0.0, 0.5, 2.0], [0.5, 0.3, 0.2])
MIXED_NODES = np.array([0.0, 0.5, 2.0]), np.array([0.5, 0.3, 0.2])
FULL = spectra.discrete([0.5, 2.0], [0.6, 0.4])
FULL_NODES = np.array([0.5, 2.0]), np.array([0.6, 0.4])
LIMITS = {
    "wide": ((1.5, 0.4), {"student": "gaussian", "trace": 0.9}, None, None),
    "gaussians": ((0.6, 0.5), {"student": "gaussian", "teacher": "gaussian"}, None, None),
    "wide teacher": ((0.8, 1.7), {"student": "gaussian", "teacher": "gaussian"}, None, None),
    "teacher law": ((0.7, 0.5), {"teacher": MIXED}, None, MIXED_NODES),
    "student law": ((0.5, 0.3), {"student": MIXED}, MIXED_NODES, None),
    "full rank": (
        (0.7, 1.3),
        {"teacher": FULL, "trace_weight_d": 10.0, "ridge": 0.3, "trace": 0.2},
        None,
        FULL_NODES,
    ),
    "both laws": ((0.5, 1.0), {"student": MIXED, "teacher": FULL}, MIXED_NODES, FULL_NODES),
}


def naive_law(nodes, family, ratio, mean):
    if nodes is not None:
        positions, masses = nodes
        return positions * (mean / (positions @ masses)), masses
    if family == "gaussian":
        return naive.marchenko_pastur_nodes(ratio, mean)
    return naive.projector_law(ratio, mean / ratio)


@pytest.mark.parametrize("name", LIMITS)
def test_invariant_limit_against_naive(name):
    (gamma, gamma_star), options, student, teacher = LIMITS[name]
    run = flow.limit(gamma, gamma_star, LIMIT_TIMES, **options)
    own = gamma_star if teacher is None else teacher[0] @ teacher[1]
    expected = naive.invariant_limit(
        naive_law(student, options.get("student"), gamma, options.get("trace", own)),
        naive_law(teacher, options.get("teacher"), gamma_star, own),
        LIMIT_TIMES,
        trace_weight_d=options.get("trace_weight_d", math.inf),
        ridge=options.get("ridge", 0.0),
    )
    assert_same_flow(run, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", LIMITS)
def test_start_of_the_limit(name):
    """At tau = 0, E S0^2 and E S*^2 of free laws; the hard constraint has rescaled S0."""
    (gamma, gamma_star), options, student, teacher = LIMITS[name]
    run = flow.limit(gamma, gamma_star, [0.0], **options)
    own = gamma_star if teacher is None else teacher[0] @ teacher[1]
    hard = "trace_weight_d" not in options
    trace = own if hard else options.get("trace", own)
    x, weights = naive_law(student, options.get("student"), gamma, trace)
    mu, masses = naive_law(teacher, options.get("teacher"), gamma_star, own)
    distance2 = x**2 @ weights - 2 * trace * own + mu**2 @ masses
    assert_allclose(run.distance2, distance2, rtol=1e-8)
    assert_allclose(run.overlap, trace * own, rtol=1e-8)
    assert_allclose(run.trace, trace, rtol=1e-10)


def test_laws_are_families():
    """The names and the laws that they stand for give the same numbers."""
    named = flow.limit(0.5, 0.3, LIMIT_TIMES, student="gaussian", teacher="gaussian")
    given = flow.limit(
        0.5,
        0.3,
        LIMIT_TIMES,
        student=spectra.marchenko_pastur(0.5, 7.0),  # the trace gives the mean
        teacher=spectra.marchenko_pastur(0.3, 0.3),
    )
    assert_same_flow(given, named, rtol=1e-10, atol=1e-13)
    named = flow.limit(0.5, 0.3, LIMIT_TIMES)
    given = flow.limit(
        0.5,
        0.3,
        LIMIT_TIMES,
        student=spectra.discrete([0.0, 2.0], [0.5, 0.5]),
        teacher=spectra.discrete([0.0, 1.0], [0.7, 0.3]),
    )
    assert_same_flow(given, named, rtol=1e-10, atol=1e-13)
    # A teacher in other units: mu S, tau/mu.
    scaled = flow.limit(0.5, 0.3, LIMIT_TIMES / 4, teacher=spectra.discrete([0.0, 4.0], [0.7, 0.3]))
    assert_allclose(scaled.loss / 16, named.loss, rtol=1e-9)


def test_ratios_that_a_limit_refuses():
    for arguments, options, name in (
        ((1.5, 0.3), {}, "gamma"),
        ((0.5, 1.5), {}, "gamma_star"),
        ((0.4, 0.3), {"student": MIXED}, "gamma"),
        ((0.5, 0.3), {"teacher": MIXED}, "gamma_star"),
        ((0.5, 0.9), {"teacher": FULL}, "gamma_star"),
    ):
        with pytest.raises(ValueError, match=rf"^{name} must be"):
            flow.limit(*arguments, [1.0], **options)
    negative = spectra.discrete([-1.0, 1.0], [0.2, 0.8])
    for name in ("student", "teacher"):
        with pytest.raises(ValueError, match=rf"{name} must be a law on \[0, inf\)"):
            flow.limit(1.0, 1.0, [1.0], **{name: negative})
        with pytest.raises(ValueError, match=f'{name} must be one of "gaussian", "orthonormal"'):
            flow.limit(0.5, 0.3, [1.0], **{name: "uniform"})
        with pytest.raises(TypeError, match=name):
            flow.limit(0.5, 0.3, [1.0], **{name: [0.0, 1.0]})
    for function in (flow.angle_law,):
        for sizes in ((0.0, 0.5), (0.5, 1.1), (1.1, 0.5)):
            with pytest.raises(ValueError, match="gamma"):
                function(*sizes)
    for share in (0.0, 1.1):
        with pytest.raises(ValueError, match="gamma_star"):
            flow.recovery_samples_limit(share)


def test_late_limit_with_surplus():
    """gamma > gamma*: loss = gamma* (gamma - gamma*)/(4 gamma tau^2)."""
    t = np.array([200.0, 1000.0, 5000.0, 1e6])
    for gamma, gamma_star in ((0.5, 0.3), (0.9, 0.2)):
        run = flow.limit(gamma, gamma_star, t)
        ratio = run.loss * t**2 / (gamma_star * (gamma - gamma_star) / (4 * gamma))
        assert (np.abs(np.diff(np.abs(ratio - 1)) < 0)).all()
        assert_allclose(ratio[-1], 1.0, rtol=1e-3)
        assert_allclose(run.shift[-1] * 2 * gamma * 1e6 / (gamma - gamma_star), 1.0, rtol=1e-3)
    run = flow.limit(0.5, 0.3, [50.0, 200.0, 1000.0, 5000.0])
    ratio = run.loss * run.t**2 / 0.03
    assert_allclose(ratio, [1.0537, 1.0159, 1.0038, 1.0009], atol=5e-5)


def test_late_limit_at_equality():
    """gamma = gamma*: loss = sqrt(gamma (1 - gamma)/2) sqrt(tau) exp(-tau), the hard edge."""
    t = np.array([15.0, 20.0, 30.0])
    for gamma in (0.3, 0.5, 0.7):
        run = flow.limit(gamma, gamma, t)
        ratio = run.loss / (np.sqrt(t) * np.exp(-t)) / math.sqrt(gamma * (1 - gamma) / 2)
        assert_allclose(ratio, 1.0, atol=0.06)
        # the correction is of order 1/tau
        assert_allclose((ratio - 1) * t, np.mean((ratio - 1) * t), rtol=0.25)


@pytest.mark.parametrize("family", ["orthonormal", "gaussian"])
@pytest.mark.parametrize(
    ("gamma", "gamma_star"), [(0.2, 0.4), (0.3, 0.9), (0.4, 0.41), (0.3, 1.0), (0.01, 0.5)]
)
def test_late_limit_below_threshold(gamma, gamma_star, family):
    """gamma < gamma*: the residual loss gamma* (gamma* - gamma)/gamma, also of finite kappa d."""
    t = [20.0, 50.0, 60.0, 100.0, 200.0, 1e4, 1e6]
    run = flow.limit(gamma, gamma_star, t, student=family)
    assert_allclose(run.loss[1:], gamma_star * (gamma_star - gamma) / gamma, rtol=1e-6)
    assert_allclose(run.shift[1:], 1 - gamma_star / gamma, rtol=1e-6)
    run = flow.limit(gamma, gamma_star, t, student=family, trace_weight_d=50.0)
    missing = gamma_star - gamma
    s = -50.0 * missing / (1 + 50.0 * gamma)
    distance2 = missing + gamma * s**2
    assert_allclose(run.distance2[1:], distance2, rtol=1e-6)
    assert_allclose(run.shift[1:], s, rtol=1e-6)


def test_limit_with_equal_full_ranks():
    run = flow.limit(1.0, 1.0, [0.0, 1.0, 100.0, 1e6])
    assert_allclose(run.loss, 0.0, atol=1e-20)
    assert_allclose(run.trace, 1.0, rtol=1e-10)


@pytest.mark.parametrize(("gamma", "gamma_star"), [(0.5, 0.3), (0.25, 0.5), (0.7, 0.6)])
@pytest.mark.parametrize("tau", [0.3, 1.0])
@pytest.mark.parametrize("student", ["orthonormal", "gaussian"])
def test_spectrum_of_the_limit(gamma, gamma_star, tau, student):
    """Mass one, and the first two moments are tr S and tr S^2 of the limit."""
    spectrum = flow.limit_spectrum(gamma, gamma_star, tau, student=student)
    run = flow.limit(gamma, gamma_star, [tau], student=student)
    x, density = spectrum.grid, spectrum.values
    positions, masses = spectrum.atom_positions, spectrum.atom_masses
    square = run.distance2[0] + 2 * run.overlap[0] - gamma_star
    for k, expected in enumerate((1.0, run.trace[0], square)):
        moment = np.trapezoid(density * x**k, x) + positions**k @ masses
        assert_allclose(moment, expected, rtol=5e-3)
    assert_allclose(masses[positions == 0.0], 1 - gamma, rtol=1e-9)


# ---- critical points and asymptotics -------------------------------------------------------------

SPECTRA = ([1.5, 1.0, 0.0, 0.4], [1.0, 1.0, 0.0, 0.0], [2.0, 2.0, 2.0, 1.0], [0.0] * 4)


@pytest.mark.parametrize("kappa", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("eigenvalues", SPECTRA)
def test_critical_points_of_all_index_sets(eigenvalues, kappa):
    """Spectrum, shift and loss against the dense Hessian; and whether the point exists."""
    mu, found = np.array(eigenvalues), 0
    for m, lam in itertools.product((1, 2, 4, 6), (0.0, 0.2, 5.0)):
        problem = Problem(teacher_eigenvalues=mu, dim=4, width=m, trace_weight=kappa, ridge=lam)
        sizes = range(min(m, 4) + 1)
        sets = itertools.chain(*(itertools.permutations(range(4), n) for n in sizes))
        for chosen in itertools.islice(sets, 0, None, 3):
            selected = list(chosen)
            left = np.delete(mu, selected).sum()
            s = (lam - kappa * left) / (1 + kappa * len(selected))
            if (mu[selected] <= s).any():
                with pytest.raises(ValueError, match="selected must be directions with mu > s"):
                    flow.critical_point(problem, selected)
                continue
            point = flow.critical_point(problem, selected)
            naive_s, W = naive.flow_critical_point(mu, selected, m, kappa=kappa, lam=lam)
            assert_allclose(point.shift, naive_s, rtol=1e-12, atol=1e-13)
            assert_allclose(point.eigenvalues, mu[selected] - naive_s, rtol=1e-12)
            loss = naive.flow_observables(W, mu, kappa=kappa)["loss"]
            assert_allclose(point.loss, loss, rtol=1e-12, atol=1e-13)
            assert_allclose(flow.gradient(problem, W), 0.0, atol=1e-11)
            hessian = point.hessian
            assert (np.diff(hessian.eigenvalues) > 0).all()
            spectrum = np.repeat(hessian.eigenvalues, hessian.multiplicities)
            expected = naive.flow_hessian_spectrum(W, mu, kappa=kappa, lam=lam)
            assert_allclose(spectrum, expected, rtol=0, atol=1e-11)
            assert_allclose(spectrum.sum(), expected.sum(), rtol=1e-11, atol=1e-11)
            found += 1
    assert found >= 12


def test_saddles_have_a_negative_direction():
    """Without ridge every critical point but the global minima has a negative eigenvalue."""
    mu = np.array([1.5, 1.0, 0.0, 0.4, 1.0])
    for kappa, m in itertools.product((0.0, 0.5), range(1, 7)):
        problem = Problem(teacher_eigenvalues=mu, dim=5, width=m, trace_weight=kappa)
        best = flow.asymptotics(problem).residual
        for n in range(min(m, 5) + 1):
            for selected in itertools.combinations(range(5), n):
                try:
                    point = flow.critical_point(problem, selected)
                except ValueError:
                    continue
                lowest = point.hessian.eigenvalues[0]
                assert (lowest < -1e-9) != (point.loss < best + 1e-12)


@pytest.mark.parametrize("block", range(4))
def test_asymptotics_against_naive(block):
    """The dense Hessian at the minimum, and which of its modes the loss feels linearly."""
    rng = np.random.default_rng([22, block])
    for _ in range(60):
        problem, _ = random_problem(rng)
        expected = naive.flow_asymptotics(problem.mu, problem.width, **weights_of(problem))
        s, _ = naive.flow_minimum(problem.mu, problem.width, **weights_of(problem))
        if problem.ridge > 0 and np.isclose(problem.mu, s, rtol=1e-9).any():
            continue  # at the threshold of a direction
        late = flow.asymptotics(problem)
        for field, value in expected.items():
            assert_allclose(
                getattr(late, field), value, rtol=1e-6, atol=1e-9, err_msg=f"{problem} {field}"
            )


DECAYS = [
    ({"teacher_eigenvalues": [1.0, 0.6], "dim": 5, "width": 2}, (8.0, 14.0)),
    ({"teacher_eigenvalues": [1.0, 0.8, 0.6], "dim": 3, "width": 3}, (8.0, 14.0)),
    ({"teacher_eigenvalues": [1.0, 0.8, 0.6], "dim": 3, "width": 5, "trace_weight": 0.0}, (8, 14)),
    ({"teacher_eigenvalues": [2.0, 1.0, 0.5], "dim": 5, "width": 2}, (12.0, 17.0)),
    ({"teacher_eigenvalues": [1.0] * 4, "dim": 5, "width": 2}, (6.0, 9.0)),
    ({"teacher_eigenvalues": [1.5, 1.0, 0.4], "dim": 5, "width": 4, "ridge": 0.6}, (15.0, 25.0)),
    ({"teacher_eigenvalues": [2.0, 2.0, 2.0], "dim": 3, "width": 4, "ridge": 0.1}, (1.5, 3.0)),
    ({"teacher_eigenvalues": [1.0, 0.5], "dim": 4, "width": 4, "ridge": 3.0}, (4.0, 7.0)),
]


@pytest.mark.parametrize(("options", "times"), DECAYS)
def test_exponential_rates_of_flows(options, times):
    problem = Problem(**options)
    late = flow.asymptotics(problem)
    assert late.regime == "exponential"
    W0 = 0.7 * np.random.default_rng(23).standard_normal((problem.dim, problem.width))
    run = flow.flow(problem, W0, times, rtol=1e-13)
    excess = np.abs(run.loss - late.residual)
    rate = math.log(excess[0] / excess[1]) / (times[1] - times[0])
    assert_allclose(rate, late.rate, rtol=0.03)


def test_polynomial_law_of_flows():
    for eigenvalues, d, m, kappa in (
        ([1.0] * 5, 40, 20, 0.0),
        ([1.0] * 5, 40, 20, 0.5),
        ([2.0, 0.5, 1.0], 7, 12, 0.5),
    ):
        problem = Problem(teacher_eigenvalues=eigenvalues, dim=d, width=m, trace_weight=kappa)
        late = flow.asymptotics(problem)
        W0 = flow.random_start(problem, seed=24)
        t = np.array([1e2, 1e3, 1e4, 1e5])
        run = flow.flow(problem, W0, t)
        error = np.abs(run.loss * t**2 / late.constant - 1)
        assert (error[1:] < error[:-1]).all()
        assert error[-1] < 2e-3


def test_threshold_of_a_ridge_is_refused():
    problem = Problem(teacher_eigenvalues=[1.0, 0.5], dim=3, width=3, ridge=1.0)
    with pytest.raises(ValueError, match="ridge must be off the threshold"):
        flow.asymptotics(problem.replace(trace_weight=0.0))


@pytest.mark.parametrize(
    ("cosines2", "options"),
    [
        ([1e-4], {"teacher_width": 1}),
        ([0.01, 0.02, 0.0], {"teacher_width": 2, "scale": 0.3, "level": 0.8}),
        ([0.2, 0.1], {"teacher_width": 3, "trace_weight": 0.0, "level": 0.3}),
        ([1e-3, 1e-3, 0, 0], {"teacher_width": 2, "scale": 1e-3}),
    ],
)
def test_escape_time_against_naive(cosines2, options):
    value = flow.escape_time(cosines2, **options)
    kappa = options.get("trace_weight", 0.5)
    others = {key: value for key, value in options.items() if key != "trace_weight"}
    assert_allclose(value, naive.flow_escape_time(cosines2, kappa=kappa, **others), rtol=1e-8)
    run = flow.orthonormal_flow(
        cosines2,
        [value],
        teacher_width=options["teacher_width"],
        scale=options.get("scale", 1.0),
        trace_weight=kappa,
    )
    level = run.overlap[0] / options["teacher_width"]
    assert_allclose(level, options.get("level", 0.5), rtol=1e-9)


def test_escape_time_grows_like_half_the_logarithm():
    for cosines, width in (([1.0], 1), ([1.0, 0.0], 1), ([1.0, 1.0, 0.0, 0.0], 2)):
        times = [flow.escape_time(np.array(cosines) / d, teacher_width=width) for d in (1e8, 1e12)]
        assert_allclose(np.diff(times) / math.log(1e4), 0.5, rtol=1e-4)
    assert flow.escape_time([0.9], teacher_width=1) == 0.0
    for unreachable in (
        {"cosines2": [0.5], "teacher_width": 3},
        {"cosines2": [0.0], "teacher_width": 1},
    ):
        with pytest.raises(ValueError, match="level must be one that the overlap reaches"):
            flow.escape_time(level=0.9, **unreachable)


# ---- signed second layer -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("d", "plus", "minus", "kappa"),
    [(4, 2, 3, 0.5), (5, 1, 1, 0.0), (3, 5, 2, 2.0), (1, 1, 1, 0.5)],
)
def test_signed_flow_against_naive(d, plus, minus, kappa):
    rng = np.random.default_rng([25, d])
    mu = rng.uniform(-1.0, 1.0, d)
    W_plus, W_minus = 0.5 * rng.standard_normal((d, plus)), 0.5 * rng.standard_normal((d, minus))
    t = [0.0, 0.5, 2.0, 6.0]
    ends = naive.signed_flow(W_plus, W_minus, mu, t, kappa=kappa)
    squares = [W @ W.swapaxes(1, 2) for W in ends]
    expected = naive.matrix_observables(squares[0] - squares[1], mu, kappa=kappa)
    run = flow.signed_flow(W_plus, W_minus, mu, t, trace_weight=kappa)
    for field in ("loss", "distance2", "trace", "overlap", "shift"):
        assert_allclose(getattr(run, field), expected[field], rtol=1e-7, atol=1e-8)
    dense = np.linspace(0.0, 6.0, 6001)
    fine = flow.signed_flow(W_plus, W_minus, mu, dense, trace_weight=kappa)
    integral = integrate.cumulative_simpson(fine.shift, x=dense, initial=0)
    assert_allclose(fine.shift_integral, integral, rtol=0, atol=1e-6)


def test_signed_flow_of_one_sign_is_the_flow():
    W0 = 0.5 * np.random.default_rng(26).standard_normal((4, 3))
    problem = Problem(teacher_eigenvalues=[1.0, 0.4], dim=4, width=3)
    signed = flow.signed_flow(W0, np.zeros((4, 1)), problem.mu, TIMES)
    assert_same_flow(signed, flow.flow(problem, W0, TIMES), rtol=1e-7, atol=1e-8)


def test_signed_flow_conserves_the_product():
    """W+^T W- is conserved: in one dimension with one unit each, u v is, and S = u^2 - v^2."""
    u, v = 0.9, 0.4
    run = flow.signed_flow([[u]], [[v]], [-1.0], [0.0, 1.0, 40.0])
    ends = math.sqrt((-1 + math.sqrt(1 + 4 * (u * v) ** 2)) / 2)  # |W+| at S = -1
    assert_allclose(run.trace[-1], ends**2 - (u * v / ends) ** 2, rtol=1e-9)
    # Blocks that are orthogonal decouple for kappa = 0: two flows of one sign.
    plus, minus = np.array([[0.5], [0.0]]), np.array([[0.0], [0.3]])
    run = flow.signed_flow(plus, minus, [1.0, -0.5], TIMES, trace_weight=0.0)
    free = {"dim": 1, "width": 1, "trace_weight": 0.0}
    first = flow.flow(Problem(teacher_eigenvalues=[1.0], **free), [[0.5]], TIMES)
    second = flow.flow(Problem(teacher_eigenvalues=[0.5], **free), [[0.3]], TIMES)
    assert_allclose(run.trace, first.trace - second.trace, rtol=1e-8, atol=1e-10)
    assert_allclose(run.loss, first.loss + second.loss, rtol=1e-7, atol=1e-10)


# ---- gradient descent ----------------------------------------------------------------------------


def test_descend_against_naive():
    rng = np.random.default_rng(27)
    for _ in range(10):
        problem, W0 = random_problem(rng)
        lr = 0.3 / (8 * (1 + problem.trace_weight * 5) * (4 + np.sum(W0**2) + problem.ridge))
        steps, options = [0, 1, 2, 5, 23], weights_of(problem)
        W = naive.flow_descend(W0, problem.mu, steps, lr=lr, **options)
        run = flow.descend(problem, W0, steps, lr=lr)
        assert_allclose(run.t, 4 * lr * np.array(steps), rtol=1e-15)
        expected = naive.flow_observables(W, problem.mu, **options)
        assert_same_flow(run, expected, fields=list(expected), rtol=1e-10, atol=1e-12)
        each = naive.flow_descend(W0, problem.mu, range(23), lr=lr, **options)
        shifts = naive.flow_observables(each, problem.mu, **options)["shift"]
        assert_allclose(run.shift_integral[-1], 4 * lr * shifts.sum(), rtol=1e-10, atol=1e-12)
        every = flow.descend(problem, W0, 23, lr=lr)
        assert len(every.t) == 24
        assert_array_equal(every.loss[steps], run.loss)


def test_descend_approaches_the_flow():
    """With an error proportional to the rate."""
    errors = []
    for lr in (0.002, 0.001, 0.0005):
        counts = np.rint(np.array([0.5, 2.0]) / (4 * lr)).astype(int)
        run = flow.descend(GENERIC, GENERIC_START, counts, lr=lr)
        exact = flow.flow(GENERIC, GENERIC_START, run.t)
        errors.append([run.loss - exact.loss, run.shift_integral - exact.shift_integral])
    errors = np.array(errors)
    assert np.abs(errors[-1]).max() < 0.01
    assert_allclose(errors[:-1] / errors[1:], 2.0, rtol=0.05)


def test_descend_is_stable_below_two_over_the_curvature():
    problem = Problem(teacher_eigenvalues=[1.0, 0.5], dim=3, width=2)
    point = flow.critical_point(problem, [0, 1])
    rate = 2 / point.hessian.eigenvalues[-1]
    W0 = np.zeros((3, 2))
    W0[[0, 1], [0, 1]] = np.sqrt(point.eigenvalues) * 1.001
    stable = flow.descend(problem, W0, [0, 20_000], lr=0.98 * rate)
    assert stable.loss[1] < 1e-12 * stable.loss[0]
    unstable = flow.descend(problem, W0, [0, 400], lr=1.03 * rate)
    assert unstable.loss[1] > 100 * unstable.loss[0]


def test_descend_diverges_by_name():
    problem = Problem(teacher_eigenvalues=[1.0], dim=3, width=2)
    W0 = flow.random_start(problem)
    with pytest.raises(op.ConvergenceError) as caught:
        flow.descend(problem, W0, [0, 1, 1000], lr=3.0)
    partial = caught.value.result
    assert partial.status is Status.DIVERGED
    assert 1 <= len(partial.t) < 3
    assert np.isfinite(partial.loss).all()


def sample_setting(n, d=5, m=3, seed=28):
    rng = np.random.default_rng([seed, n])
    problem = Problem(teacher_eigenvalues=[1.0, 0.0, 0.5], dim=d, width=m, ridge=0.1)
    return problem, rng.standard_normal((n, d)), 0.4 * rng.standard_normal((d, m))


@pytest.mark.parametrize("n", [1, 2, 7, 127, 128, 129, 255, 257, 2047, 2048, 2049])
def test_descend_samples_against_naive(n):
    problem, X, W0 = sample_setting(n)
    lr = 0.1 / max(20.0, np.max(np.sum(X**2, axis=1)) ** 2 / n)
    run = flow.descend_samples(problem, X, W0, [0, 1, 3], lr=lr, threads=1)
    W, losses, shifts = W0, [], []
    for step in range(4):
        losses.append(naive.sampled_loss(W, problem.mu, X))
        shifts.append(naive.flow_observables(W, problem.mu, lam=0.1)["shift"])
        if step in (0, 1, 3):
            i = [0, 1, 3].index(step)
            expected = naive.flow_observables(W, problem.mu, lam=0.1)
            for field, value in expected.items():
                assert_allclose(getattr(run, field)[i], value, rtol=1e-11)
        W = W - lr * (naive.sampled_gradient(W, problem.mu, X) + 4 * problem.ridge * W)
    assert_allclose(run.train_loss, np.array(losses)[[0, 1, 3]], rtol=1e-11)
    assert_allclose(
        run.shift_integral, 4 * lr * np.array([0, shifts[0], sum(shifts[:3])]), rtol=1e-11
    )
    assert_allclose(run.t, [0, 4 * lr, 12 * lr], rtol=1e-15)


def test_descend_samples_with_any_threads():
    """Tiles and sums do not depend on the threads; odd sizes, and more weights than samples."""
    for n, d, m in ((2049, 5, 3), (333, 7, 1), (128, 3, 9), (1, 4, 2)):
        problem, X, W0 = sample_setting(n, d, m)
        runs = [
            flow.descend_samples(problem, X, W0, [0, 10], lr=1e-4, threads=threads)
            for threads in (1, 2, 5)
        ]
        for run in runs[1:]:
            for field in (*FIELDS, "train_loss"):
                assert_array_equal(getattr(run, field), getattr(runs[0], field))


def test_many_samples_are_the_population():
    """Same descent; the sampled gradient deviates by its standard error, of order 1/sqrt(n)."""
    problem, X, W0 = sample_setting(200_000)
    lr, steps = 0.01, [0, 10, 100]
    sampled = flow.descend_samples(problem, X, W0, steps, lr=lr)
    population = flow.descend(problem, W0, steps, lr=lr)
    assert_allclose(sampled.loss, population.loss, rtol=0.02)
    quadratics = np.sum((X @ W0) ** 2, axis=1) - X**2 @ problem.mu
    sem = stats.sem(quadratics**2 / 2)
    assert abs(sampled.train_loss[0] - population.loss[0]) < 4 * sem


def test_samples_need_the_square_activation():
    problem, X, W0 = sample_setting(10)
    with pytest.raises(ValueError, match=r"trace_weight must be 0\.5"):
        flow.descend_samples(problem.replace(trace_weight=0.0), X, W0, 3, lr=0.01)


# ---- samples -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("d", "rank"), [(1, 1), (4, 4), (7, 1), (7, 3), (12, 11)])
def test_recovery_counts_against_naive(d, rank):
    counts = flow.recovery_samples(d, rank, draws=2000, seed=29)
    assert (counts.degrees_of_freedom, counts.count) == naive.recovery_counts(d, rank)
    rng = np.random.default_rng(30)
    values_ = [1 + naive.conic_distance2(naive.goe(rng, d), rank) for _ in range(500)]
    error = abs(counts.conic - np.mean(values_))
    bound = standard_errors(1, 500) * math.hypot(stats.sem(values_), counts.conic_sem)
    assert error <= bound + 1e-9
    again = flow.recovery_samples(d, rank, draws=2000, seed=29)
    assert again.conic == counts.conic


def test_conic_distances_against_naive():
    """Draw by draw: the minimum over u is exact, also where the solution is at a kink."""
    for d, rank in ((1, 1), (2, 2), (5, 1), (5, 2), (6, 5)):
        mine = flow._conic_distances(np.random.default_rng(31), d, rank, 50)
        G = np.random.default_rng(31).standard_normal((50, d, d))
        expected = [naive.conic_distance2((g + g.T) / 2, rank) for g in G]
        assert_allclose(mine, expected, rtol=1e-6, atol=1e-9)
        assert (mine <= np.array(expected) + 1e-9).all()


def test_recovery_samples_limit():
    for share in (1e-3, 0.1, 0.25, 0.7, 0.999, 1.0):
        value = flow.recovery_samples_limit(share)
        assert_allclose(value, naive.recovery_samples_limit(share), rtol=1e-6)
    assert flow.recovery_samples_limit(1.0) == 0.5
    counts = flow.recovery_samples(120, 30, draws=20)
    assert_allclose(counts.conic / 120**2, flow.recovery_samples_limit(0.25), rtol=0.02)
    # three parameters for each entry of a thin teacher
    assert_allclose(flow.recovery_samples_limit(1e-9) / 1e-9, 3.0, rtol=0.01)


@pytest.mark.parametrize(("d", "rank"), [(3, 1), (5, 1), (5, 2), (6, 4), (4, 3)])
def test_is_unique_against_naive(d, rank):
    """Never a contradiction, and hardly ever undecided."""
    rng, answers, undecided = np.random.default_rng([32, d, rank]), [], 0
    freedom, count = naive.recovery_counts(d, rank)
    for n in range(max(1, freedom - 2), count + 6):
        for _ in range(6):
            X = rng.standard_normal((n, d))
            mine = flow.is_unique(X, rank, max_iterations=3000)
            expected = naive.teacher_is_unique(X, rank, iterations=3000)
            if np.isnan(mine.unique):
                assert mine.status is Status.NOT_CONVERGED
                undecided += 1
                continue
            assert mine.status is Status.SUCCESS
            assert expected is None or mine.unique == expected
            answers.append(mine.unique)
    assert {0.0, 1.0} == set(answers)
    assert undecided <= 0.1 * len(answers)


def test_is_unique_by_signs():
    """d = 3, m* = 1, n = 4: unique exactly if one or three signs of the kernel are positive."""
    rng = np.random.default_rng(33)
    for _ in range(100):
        X = rng.standard_normal((4, 3))
        kernel = np.linalg.svd(X.T * X[:, 0])[2][-1]
        expected = np.count_nonzero(kernel > 0) in (1, 3)
        assert flow.is_unique(X, 1).unique == expected


def test_is_unique_is_monotone_and_certain_at_the_ends():
    rng = np.random.default_rng(34)
    for _ in range(10):
        X = rng.standard_normal((40, 7))
        found = [flow.is_unique(X[:n], 2).unique for n in range(1, 41)]
        decided = [x for x in found if not np.isnan(x)]
        assert decided == sorted(decided)
        assert found[:13] == [0.0] * 13  # fewer than the 13 degrees of freedom, and one more
        assert found[28 - 1] == 1.0  # as many as symmetric matrices have entries
    scaled = flow.is_unique(1e-6 * X[:25], 2).unique
    assert scaled == flow.is_unique(X[:25], 2).unique
    few = flow.is_unique(X[:20], 2, max_iterations=1)
    assert few.iterations <= 1


@pytest.mark.slow
@pytest.mark.parametrize(("d", "rank"), [(8, 2), (10, 1), (12, 3)])
def test_half_of_the_draws_are_unique_at_the_conic_threshold(d, rank):
    """The 50 % point of 60 draws per n lies within 4 % + 1 of the conic threshold."""
    conic = flow.recovery_samples(d, rank).conic
    rng, counts = np.random.default_rng([35, d]), np.arange(int(conic) - 8, int(conic) + 10, 2)
    shares = [
        np.nanmean(
            [
                flow.is_unique(rng.standard_normal((n, d)), rank, max_iterations=1000).unique
                for _ in range(60)
            ]
        )
        for n in counts
    ]
    above = np.flatnonzero(np.array(shares) >= 0.5)[0]
    assert abs(counts[above] - conic) <= 0.04 * conic + 3


@pytest.mark.slow
def test_flow_against_naive_on_many_problems():
    rng = np.random.default_rng(36)
    for _ in range(300):
        problem, W0 = random_problem(rng)
        expected = naive.flow_trajectory(W0, problem.mu, TIMES, **weights_of(problem))
        for method in methods_for(problem, W0):
            run = flow.flow(problem, W0, TIMES, method=method)
            assert_same_flow(run, expected, rtol=1e-7, atol=1e-7)
