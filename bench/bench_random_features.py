"""Speed of the room random_features, as ratios to the peers in peers.py.

`pytest bench/bench_random_features.py`; one thread, OPENBLAS_NUM_THREADS=1 for the peers, too. What
is asserted is accuracy, never time.
"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import math

import numpy as np
import overparam as op
import peers
import pytest
from scipy import linalg

rf = op.random_features


def layers(dim, width, seed=0):
    """A first layer on the sphere, and one teacher unit."""
    rng = np.random.default_rng(seed)
    W, B = rng.standard_normal((width, dim)), rng.standard_normal((1, dim))
    return tuple(math.sqrt(dim) * x / np.linalg.norm(x, axis=1, keepdims=True) for x in (W, B))


def product(rows, dim, width):
    """A product of matrices of the sizes of a block: the floor of the simulation."""
    X, W = np.ones((rows, dim)), np.ones((width, dim))
    return lambda: X @ W.T


@pytest.mark.parametrize(("dim", "width"), [(400, 800), (100, 200), (800, 1600), (1600, 1600)])
def test_simulation_against_numpy(compare, dim, width):
    """The unit is a step. The floor is the time of the product X W^T alone."""
    W, B = layers(dim, width)
    problem = rf.Problem(dim=dim, width=width, lr=2.0)
    # Long enough for the exact risk, K^2 N operations in all, to be a small part.
    steps, few, block = 25_600, 5120, 256
    risks = {}

    def ours():
        t = [few / width, steps / width]
        run = rf.simulate(problem, t, W=W, B=B, block=block, threads=1)
        risks["ours"] = run.risk[0, 0]
        return steps

    moments = rf.population(W, B, [1.0], activation="erf")

    def blocked():
        rng = np.random.default_rng(1)
        a = peers.features_blocked(W, B, np.zeros(width), 2.0, few, rng, block)
        risk = a @ moments.gram @ a / width - 2 * moments.cross @ a / math.sqrt(width)
        risks["theirs"] = (risk + moments.teacher_energy) / 2
        return few

    def naive():
        peers.features_gemv(W, B, np.zeros(width), 2.0, 512, np.random.default_rng(1))
        return 512

    multiply = product(block, dim, width)

    def floor():
        for _ in range(8):
            multiply()
        return 8 * block

    compare(
        f"SGD step N={dim} K={width}, block {block}",
        ours,
        {"blocked NumPy": blocked, "GEMV loop": naive, "GEMM alone": floor},
        note=f"{2 * dim * width / 1e6:.2g} MFlop",
    )
    # Two streams of inputs to the same student.
    assert abs(risks["ours"] / risks["theirs"] - 1) < 0.3


def test_many_teachers(compare):
    """Forty teachers share the features; the peer runs them one by one."""
    W, B = layers(400, 800)
    problem = rf.Problem(dim=400, width=800, lr=2.0)

    def together():
        rf.simulate(problem, [3.2], W=W, teachers=40, block=256, threads=1)
        return 40 * 2560

    def one():
        rf.simulate(problem, [3.2], W=W, B=B, block=256, threads=1)
        return 2560

    compare("SGD step per teacher N=400 K=800", together, {"one teacher": one})


@pytest.mark.parametrize("width", [100, 10**6, 10**12], ids="K={:.0e}".format)
def test_curve(compare, width):
    """A curve at 50 times, at any width, against the map of kernel SGD by 10^4 of its steps."""
    problem = rf.Problem(dim=100, width=width, lr=2.0)
    t = np.geomspace(0.01, 1000.0, 50)
    kernel = rf.Problem(dim=100, width=math.inf, lr=2.0)

    def curve():
        for _ in range(20):
            rf.curve(problem, t)
        return 20

    compare(
        f"curve N=100 K={width:.0e}, 50 times",
        curve,
        {"kernel limit, 1e4 steps": lambda: rf.curve(kernel, [0.0, 1e4])},
    )
    late = rf.curve(problem, [1e18]).risk[0]
    assert abs(late / rf.stationary_risk(problem, route="sphere") - 1) < 1e-5


def test_proportional(compare):
    problem = rf.Problem(dim=400, width=400, lr=2.0)
    t = np.geomspace(0.01, 1000.0, 50)
    many = problem.replace(dim=10**7, width=10**7)

    def proportional():
        for _ in range(20):
            rf.proportional(problem, t)
        return 20

    compare("proportional, 50 times", proportional, {"curve": lambda: rf.curve(problem, t)})
    both = rf.proportional(many, t).risk, rf.curve(many, t).risk
    assert np.abs(both[0] / both[1] - 1).max() < 1e-5


def test_modes(compare):
    """The modes of a first layer at K = 2000: one symmetric eigenvalue problem bounds them."""
    W, B = layers(1000, 2000)
    problem = rf.Problem(dim=1000, width=2000, lr=2.0)
    t = np.geomspace(0.01, 100.0, 50)
    gram = rf.population(W, B, [1.0], activation="erf").gram
    compare(
        "modes N=1000 K=2000, 50 times",
        lambda: rf.modes(problem, W, B, t),
        {
            "one eigh": lambda: linalg.eigh(gram),
            "eigh without vectors": lambda: linalg.eigvalsh(gram),
        },
        rounds=1,
    )
