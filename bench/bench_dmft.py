"""Speed of empirical_flow.dmft, as ratios to the plain NumPy version of tests/naive.py.

`pytest bench/bench_dmft.py`; ours on two threads, the peer on one: its products are too small for
more. What is asserted is accuracy, never time.
"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import time
import warnings

import naive
import numpy as np
import overparam as op
import pytest

flow = op.empirical_flow
PROBLEM = flow.Problem(alpha=0.3, kappa=1.5, kappa_star=0.5, noise_var=0.1, ridge=0.02)
LR = 0.02


def _ours(steps, dim, **options):
    options = {"replicas": 6, "groups": 2, "threads": 2, **options}

    def run():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return flow.dmft(PROBLEM, [LR * steps], lr=LR, dim=dim, **options)

    return run


def _seconds(function, rounds=3):
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        function()
        taken.append(time.perf_counter() - began)
    return min(taken)


def _plain(steps, dim, replicas):
    rng = np.random.default_rng(0)
    teacher = np.diag(flow.teacher_eigenvalues(PROBLEM, dim))
    width = round(PROBLEM.kappa * dim)
    draws = naive.dmft_draws(rng, dim, width, teacher, steps, replicas=replicas)
    lr, ridge = np.full(steps, LR), np.full(steps, PROBLEM.ridge)
    return naive.dmft(draws, PROBLEM.alpha, PROBLEM.noise_var, lr, ridge)


def test_dmft_against_numpy(compare):
    """Dimension 100, T = 200, six replicas, one probe."""
    results = {}

    def keep(name, function):
        def run():
            results[name] = function()

        return run

    compare(
        "dmft d=100 T=200 R=6, 2 threads",
        keep("ours", _ours(200, 100)),
        {
            "plain NumPy": keep("theirs", lambda: _plain(200, 100, 6)),
            "itself, 1 thread": _ours(200, 100, threads=1),
            "itself, float32": _ours(200, 100, storage="float32"),
        },
        rounds=1,
    )
    # Both are random: at the middle of the run they agree to a few percent.
    ours, theirs = results["ours"].correlation, results["theirs"]["correlation"]
    assert abs(ours[100, 100] / theirs[100, 100] - 1.0) < 0.1


def _bandwidth():
    """Bytes per second at which one thread reads memory, by a sum of products of long vectors."""
    x = np.ones(2**25)
    return x.nbytes / _seconds(lambda: np.add.reduce(x))


def _gemm_rate(dim):
    a = np.ones((dim, dim))
    return 2.0 * dim**3 * 50 / _seconds(lambda: [a @ a for _ in range(50)])


@pytest.mark.parametrize("dim", [50, 100, 200])
def test_growth(compare, dim):
    """T^2 d^2 for the history and T d^3 for products, beside what the machine can do."""
    replicas, probes = 4, 1
    seconds = {
        steps: _seconds(_ours(steps, dim, replicas=replicas), 2) for steps in (100, 200, 400)
    }
    steps = 400
    history = (2 + probes) * replicas * steps**2 / 2 * dim * (dim + 1) / 2 * 8
    products = (6 + 4 * probes) * replicas * steps * float(dim) ** 3
    exponent = np.polyfit(np.log(list(seconds)), np.log(list(seconds.values())), 1)[0]
    compare(
        f"dmft d={dim} T={steps} R={replicas}, 2 threads",
        _ours(steps, dim, replicas=replicas),
        {f"itself, T={other}": _ours(other, dim, replicas=replicas) for other in (100, 200)},
        rounds=1,
        note=(
            f"time ~ T^{exponent:.2f}; history {history / 2**30:.1f} GiB at "
            f"{history / seconds[steps] / 2**30:.1f} GiB/s (a NumPy sum reads "
            f"{_bandwidth() / 2**30:.1f} GiB/s), products {products / 1e9:.0f} Gflop (dgemm "
            f"{_gemm_rate(dim) / 1e9:.0f} Gflop/s)"
        ),
    )


def test_large_run(benchmark):
    """Dimension 200, T = 1000, R = 4: within 24 GiB."""
    run = benchmark.pedantic(_ours(1000, 200, replicas=4), rounds=1)
    assert run.stats["memory_gib"] < 24.0
    assert (run.risk_sem < 0.05 * run.risk).all()
