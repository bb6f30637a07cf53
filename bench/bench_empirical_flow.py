"""Speed of the room empirical_flow, as ratios to the peers in peers.py.

`pytest bench/bench_empirical_flow.py`; one thread, OPENBLAS_NUM_THREADS=1 for the peers, too. Torch
is skipped where it is not installed. What is asserted is accuracy, never time.
"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import time

import numpy as np
import overparam as op
import peers
import pytest
from overparam import _core

flow = op.empirical_flow


def _shortest(*functions, rounds=50):
    """Seconds of each, by turns; the shortest, which other work on the machine delays least."""
    seconds = [[] for _ in functions]
    for _ in range(rounds):
        for function, taken in zip(functions, seconds, strict=True):
            began = time.perf_counter()
            function()
            taken.append(time.perf_counter() - began)
    return [min(taken) for taken in seconds]


def _repeated(function, times):
    def run():
        for _ in range(times):
            function()
        return times

    return run


# ---- long times ----------------------------------------------------------------------------------

POINTS = {
    "kappa=1": {"alpha": 0.3, "kappa": 1.0, "kappa_star": 0.3, "noise_var": 0.1, "ridge": 0.05},
    "kappa=0.4": {"alpha": 0.3, "kappa": 0.4, "kappa_star": 0.3, "noise_var": 0.1, "ridge": 0.05},
    "kappa=0.5, kappa*=1.5": {
        "alpha": 0.6,
        "kappa": 0.5,
        "kappa_star": 1.5,
        "noise_var": 0.5,
        "ridge": 0.02,
    },
}
# By tests/naive.py with 160 nodes between any two corners of the law.
RISKS = {
    "kappa=1": 0.57423844264021,
    "kappa=0.4": 0.57811293358843,
    "kappa=0.5, kappa*=1.5": 1.23153068371349,
}


@pytest.mark.parametrize("name", POINTS)
def test_long_time(compare, name):
    """All roots of one point, against one root of a plain SciPy version."""
    point = POINTS[name]
    problem, risks = flow.Problem(**point), {}

    def scipy():
        risks["theirs"] = peers.long_time_scipy(**point)

    scipy()
    error = abs(flow.long_time(problem).risk[0] / RISKS[name] - 1)
    assert error < 1e-10
    medians = compare(
        f"long_time {name}",
        _repeated(lambda: flow.long_time(problem), 20),
        {"SciPy quad, brentq": scipy},
        rounds=3,
        note=f"error {error:.1e}, theirs {abs(risks['theirs'] / RISKS[name] - 1):.1e}",
    )
    assert medians["overparam"] > 0


def test_curve(compare):
    """A sweep that keeps every solution, per point of it."""
    problem = flow.Problem(alpha=1.0, kappa=0.25, kappa_star=0.25, ridge=1e-3)
    sigma2 = np.geomspace(1e-3, 1e2, 200)
    found = len(flow.curve(problem, sigma2).alpha)
    one = problem.replace(alpha=0.24)
    compare(
        "curve kappa=kappa*=0.25, per sigma^2",
        lambda: flow.curve(problem, sigma2),
        {"itself, long_time": _repeated(lambda: flow.long_time(one), len(sigma2))},
        units=len(sigma2),
        rounds=3,
        note=f"{found} solutions at {len(sigma2)} sigma^2",
    )


# ---- one gradient --------------------------------------------------------------------------------


def _network(dim, sensing, *, alpha=0.4, kappa=0.7, ridge=0.01):
    """Return a network at one start, with one thread."""
    problem = flow.Problem(alpha=alpha, kappa=kappa, kappa_star=0.5, ridge=ridge)
    sequence = np.random.SeedSequence(0)
    experiment = flow._experiment(problem, dim, sensing, "random", sequence)
    network = _core.Network(experiment.core, 0, 1)
    return network, network.start(0), experiment.sizes["n"]


def _relative(value, expected):
    return float(np.abs(value - expected).max() / np.abs(expected).max())


def test_gradient(compare):
    """The quadratic network at d = 100, alpha = 0.4, kappa = 0.7: the rate of GEMM in this run."""
    small, V, _ = _network(20, "network")
    dense, labels = small.samples()
    expected = peers.goe_gradient_numpy(dense, labels, 0.01)(V)
    assert _relative(small.loss_gradient(V)[1], expected) < 1e-12
    network, W, samples = _network(100, "network")
    dim, width = W.shape
    X = np.random.default_rng(0).standard_normal((samples, dim))
    y = np.random.default_rng(1).standard_normal(samples)

    def gemm():
        # As many operations: the two products without what is between them.
        Z = X @ W
        X.T @ Z

    def ours():
        network.loss_gradient(W)

    ours()
    gemm()
    flops = 4.0 * samples * dim * width
    own, other = _shortest(ours, gemm)
    compare(
        "gradient, network d=100 alpha=0.4 kappa=0.7",
        _repeated(ours, 10),
        {
            "GEMM of NumPy alone": _repeated(gemm, 10),
            "NumPy": _repeated(lambda: peers.network_gradient_numpy(W, X, y, 0.01), 10),
        },
        note=f"{flops / own / 1e9:.1f} Gflop/s, {other / own:.0%} of GEMM",
    )


def test_gradient_with_goe_sensing(compare):
    """GOE sensing, streamed from memory: a dense einsum in torch, and the memory's bandwidth."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    torch.set_num_threads(1)
    network, W, samples = _network(100, "goe")
    dim = len(W)
    dense, labels = network.samples()
    theirs = peers.goe_gradient_torch(dense, labels, 0.01)
    assert _relative(network.loss_gradient(W)[1], theirs(W)) < 1e-5
    single = peers.goe_gradient_torch(*(a.astype(np.float32) for a in (dense, labels)), 0.01)
    W32 = W.astype(np.float32)
    nbytes = 4.0 * samples * dim * (dim + 1) / 2
    block = np.ones(int(nbytes / 8))
    own, read = _shortest(lambda: network.loss_gradient(W), block.sum)
    compare(
        "gradient, GOE d=100 alpha=0.4 kappa=0.7",
        _repeated(lambda: network.loss_gradient(W), 5),
        {"torch einsum": lambda: theirs(W), "torch einsum, float32": lambda: single(W32)},
        rounds=5,
        note=f"{nbytes / own / 1e9:.1f} GB/s of samples, NumPy's sum {nbytes / read / 1e9:.1f}",
    )


# ---- the flow ------------------------------------------------------------------------------------


def test_flow_to_long_times(compare):
    """To t = 1000 at 1e-4 of the risk: gradients of the adaptive flow and of Euler's method."""
    problem = flow.Problem(alpha=0.4, kappa=0.7, kappa_star=0.5, noise_var=0.1, ridge=0.01)
    t = np.concatenate([[0.0], np.geomspace(0.5, 1000, 12).round(1)])
    runs = {}

    def run(name, **numerics):
        def function():
            runs[name] = flow.simulate(problem, t, dim=30, threads=1, **numerics)

        return function

    exact, adaptive, euler = (
        run("exact", rtol=1e-11),
        run("adaptive", rtol=1e-5),
        run("Euler", lr=5e-3),
    )
    for function in (exact, adaptive, euler):
        function()
    errors = {
        name: float(np.max(np.abs(runs[name].risk / runs["exact"].risk - 1)))
        for name in ("adaptive", "Euler")
    }
    counts = {name: int(runs[name].stats["gradients"]) for name in errors}
    assert errors["adaptive"] < 1e-4
    compare(
        "flow to t=1000, d=30",
        adaptive,
        {"Euler, step 5e-3": euler},
        rounds=1,
        note=" / ".join(f"{counts[n]} gradients, error {errors[n]:.1e}" for n in counts),
    )
