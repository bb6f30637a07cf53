"""Speed of op.hessian and of free sums, as ratios to the peers in peers.py and to libraries.

`pytest bench/bench_hessian.py`; one thread, OPENBLAS_NUM_THREADS=1 for the peers, too. Libraries
that are not installed are skipped. What is asserted is accuracy, never time.
"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import math
import statistics
import time

import numpy as np
import overparam as op
import peers
import pytest
from timing import by_turns


def _network(p, p_star, dim, samples=0, seed=0):
    """Return problem, student, teacher, and inputs with labels."""
    rng = np.random.default_rng(seed)
    problem = op.sgd.Problem(width=p, teacher_width=p_star, lr=0.1, dim=dim)
    W, W_star = rng.standard_normal((p, dim)), rng.standard_normal((p_star, dim))
    X = rng.standard_normal((samples, dim))
    return problem, W, W_star, X, np.mean((X @ W_star.T) ** 2, axis=1) / dim


# ---- products ------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [1, 8])
def test_product(compare, block):
    """Product at N = 1000, p = 50, n = 20000, in memory: the rate of GEMM from the same run."""
    p, dim, samples = 50, 1000, 20_000
    problem, W, _, X, y = _network(p, 5, dim, samples)
    operator = op.hessian.empirical(problem, W, X, y, threads=1)
    plain = peers.HessianNumpy(W, X, y)
    V = np.random.default_rng(1).standard_normal((p * dim, block))
    expected = plain @ V
    assert np.abs(operator @ V - expected).max() < 1e-11 * np.abs(expected).max()
    A, B = X.copy(), np.random.default_rng(2).standard_normal((dim, block * p))
    functions = {"explicit NumPy": lambda: plain @ V}
    flops = 4.0 * samples * p * dim * block

    def gemm():
        # As many operations: the two products without what is between them.
        C = A @ B
        A.T @ C

    functions["GEMM of NumPy alone"] = gemm
    taken = by_turns(gemm, lambda: operator @ V, rounds=5)
    rate, own = (flops / statistics.median(seconds) for seconds in taken)
    compare(
        f"product on samples N=1000 p=50 n=20000, block {block}",
        lambda: operator @ V,
        functions,
        rounds=3,
        note=f"{own / 1e9:.0f} Gflop/s, NumPy's GEMM {rate / 1e9:.0f}",
    )


# Importing curvlinops uses a part of torch that torch calls deprecated.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")
@pytest.mark.parametrize(("p", "dim", "samples"), [(50, 100, 5000), (50, 1000, 20_000)])
def test_product_against_curvlinops(compare, p, dim, samples):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("curvlinops", reason="curvlinops is not installed")
    torch.set_num_threads(1)
    problem, W, _, X, y = _network(p, 5, dim, samples)
    operator = op.hessian.empirical(problem, W, X, y, threads=1)
    theirs, plain = peers.hessian_curvlinops(W, X, y), peers.HessianNumpy(W, X, y)
    v = np.random.default_rng(1).standard_normal(p * dim)
    expected = operator @ v
    assert np.abs(theirs @ v - expected).max() < 1e-9 * np.abs(expected).max()
    compare(
        f"product on samples N={dim} p={p} n={samples}",
        lambda: operator @ v,
        {"curvlinops": lambda: theirs @ v, "explicit NumPy": lambda: plain @ v[:, None]},
        rounds=5,
    )


def test_product_with_samples_drawn_again(compare):
    """At p N = 10^5 and n = 10^5: a density is as many such products as there are steps."""
    p, dim, samples, block = 50, 2000, 100_000, 8
    problem, W, W_star, _, _ = _network(p, 5, dim)
    drawn = op.hessian.Samples(count=samples, W_star=W_star)
    operator = op.hessian.empirical(problem, W, drawn, threads=1)
    V = np.random.default_rng(1).standard_normal((p * dim, block))
    B = np.random.default_rng(2).standard_normal((dim, block * p))
    A = np.random.default_rng(3).standard_normal((5000, dim))

    def gemm():
        for _ in range(samples // len(A)):
            A.T @ (A @ B)

    medians = compare(
        "product on samples drawn again, pN=n=10^5, block 8",
        lambda: operator @ V,
        {"GEMM of NumPy alone": gemm},
        rounds=1,
        note="a density of 8 probes takes 80 of them",
    )
    assert medians["overparam"] > 0


# ---- the population ------------------------------------------------------------------------------


def test_population(compare):
    """At p = 32, p* = 8, N = 10^6, against a dense eigensolve, extrapolated to p N = 30000."""
    problem, W, W_star, _, _ = _network(32, 8, 64)
    overlaps = op.sgd.Overlaps.from_weights(W, W_star)
    exact = op.hessian.population(problem, overlaps)
    dense = peers.hessian_dense(W, W_star)
    ours = np.repeat(exact.eigenvalues, exact.multiplicities)
    assert np.abs(ours - dense).max() < 1e-12 * np.abs(dense).max()
    large = problem.replace(dim=10**6)
    began = time.perf_counter()
    peers.hessian_dense(W, W_star)
    seconds = (time.perf_counter() - began) * (30_000 / dense.size) ** 3
    compare(
        "population spectrum p=32 p*=8 N=10^6",
        lambda: op.hessian.population(large, overlaps),
        {"dense eigensolve, N=64": lambda: peers.hessian_dense(W, W_star)},
        rounds=3,
        note=f"dense at p N = 30000, by the cube: {seconds:.0f} s",
    )


# ---- free sums -----------------------------------------------------------------------------------

VARIANCE = 0.3
BASES = {
    "MP ratio 2": op.spectra.marchenko_pastur(2.0),
    "MP ratio 1/2": op.spectra.marchenko_pastur(0.5),
    "three atoms": op.spectra.discrete([0.0, 1.0, 3.0], [0.5, 0.2, 0.3]),
}


def _freealg(name):
    """Return freealg's free sum of a law and a semicircle; skip where it is not installed."""
    laws = pytest.importorskip("freealg.distributions", reason="freealg is not installed")
    root = math.sqrt(VARIANCE)
    if name == "three atoms":
        return laws.DeformedWigner([0.0, 1.0, 3.0], [0.5, 0.2, 0.3], sigma=root)
    ratio = {"MP ratio 2": 2.0, "MP ratio 1/2": 0.5}[name]
    return laws.FreeLevy([1 / ratio], [1.0], ratio, sigma=root)


def _error(law, x, density):
    """Median relative error of a density, against G of the law at z - variance G."""
    w = x - law.variance * (law.hilbert(x) - 1j * math.pi * law.density(x))
    exact = -law.law.cauchy(w).imag / math.pi
    return float(np.median(np.abs(density / exact - 1)))


@pytest.mark.filterwarnings("ignore")  # the peer's
@pytest.mark.parametrize("name", BASES)
def test_free_sum(compare, name):
    theirs = _freealg(name)
    law = op.spectra.free_sum(BASES[name], VARIANCE)
    low, high = law.support
    x = low + (high - low) * (np.arange(2000) + 0.5) / 2000
    x = x[law.density(x) > 0]
    sparse = x[::10]

    def peer_density():
        theirs.density(sparse)
        return len(sparse)

    error = _error(law, x, law.density(x))
    assert error < 1e-9
    compare(
        f"free sum, density, {name}, per point",
        lambda: law.density(x),
        {"freealg": peer_density},
        units=len(x),
        note=f"error {error:.0e}, theirs {_error(law, sparse, theirs.density(sparse)):.0e}",
    )


@pytest.mark.filterwarnings("ignore")  # the peer's
def test_free_sum_with_its_set_up(compare):
    theirs, base = _freealg("three atoms"), BASES["three atoms"]
    low, high = op.spectra.free_sum(base, VARIANCE).support
    x = np.linspace(low, high, 502)[1:-1]

    def ours():
        op.spectra.free_sum(base, VARIANCE).density(x)

    compare(
        "free sum, edges and 500 points, three atoms", ours, {"freealg": lambda: theirs.density(x)}
    )
