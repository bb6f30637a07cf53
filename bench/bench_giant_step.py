"""Speed of the room giant_step, as ratios to the peers in peers.py.

`pytest bench/bench_giant_step.py`; one thread, OPENBLAS_NUM_THREADS=1 for the peers, too. What is
asserted is accuracy, never time.
"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import itertools

import numpy as np
import overparam as op
import peers
from scipy import linalg
from timing import repeated

gs = op.giant_step

SETTING = {"beta": 1.0, "lr": 3.0, "alpha0": 20.0, "target": "sin"}


def first_points(problem):
    """Solve points of which each needs tables of its own."""
    rates = itertools.count(1)
    return lambda: gs.solve(problem.replace(lr=3.0 + 1e-6 * next(rates)), method="isotropic")


def further_points(problem, method="isotropic"):
    """Solve points that differ in the ridge alone."""
    ridges = itertools.count(1)
    return lambda: gs.solve(problem.replace(ridge=0.1 + 1e-9 * next(ridges)), method=method)


def test_solve_against_scipy(compare):
    problem = gs.Problem(alpha=1.5, ridge=0.1, **SETTING)
    spike = gs.spike(problem)
    (r,), (c,) = spike.strength, spike.variance
    found = {}

    def notebook():
        found["theirs"] = peers.giant_step_scipy(1.5, 1.0, 0.1, r, c, spike.alignment)

    ours = repeated(first_points(problem), 50)
    compare("solve, first point", ours, {"notebook's method": notebook}, rounds=1)
    # The peer has the fluctuations of one sampled spectrum, and stops at 1e-4.
    assert abs(found["theirs"] / gs.solve(problem, method="isotropic").risk - 1) < 2e-2


def test_solve_further_points(compare):
    problem = gs.Problem(alpha=1.5, ridge=0.1, **SETTING)
    peer = {"first point": repeated(first_points(problem), 50)}
    compare("solve, further point", repeated(further_points(problem), 200), peer)


def test_solve_corrected(compare):
    problem = gs.Problem(alpha=1.5, ridge=0.1, **SETTING)
    peer = {"isotropic": repeated(further_points(problem), 200)}
    compare(
        "solve, corrected, further point",
        repeated(further_points(problem, "corrected"), 200),
        peer,
    )


def test_solve_with_groups(compare):
    """Three initial readout values, new tables each time."""
    problem = gs.Problem(
        alpha=1.5,
        ridge=0.1,
        **SETTING,
        readout_values=[1.0, 0.5, -2.0],
        readout_fractions=[0.3, 0.3, 0.4],
    )
    single = problem.replace(readout_values=[1.0], readout_fractions=[1.0])
    compare(
        "solve, three groups",
        repeated(first_points(problem), 50),
        {"one group": repeated(first_points(single), 50)},
    )


def test_simulation_against_numpy(compare):
    """Against the same in NumPy, and against its products and its Cholesky factor alone."""
    d = p = 2000
    n = tests = 4000
    n0 = 2000
    problem = gs.Problem(alpha=2.0, ridge=0.1, **{**SETTING, "alpha0": 1.0})
    rng = np.random.default_rng(0)
    W, X = rng.standard_normal((p, d)), rng.standard_normal((n, d))
    positive = np.asfortranarray(W @ W.T + p * np.eye(p))
    risks = {}

    def ours():
        run = gs.simulate(problem, dim=d, test_samples=tests, threads=1)
        risks["ours"] = run.risk[0]

    def numpy():
        risks["theirs"] = peers.giant_step_numpy(d, p, n, n0, tests, 3.0, 0.1, rng)

    def floor():
        X[:n0] @ W.T
        W.T @ X[:n0].T
        X @ W.T
        linalg.blas.dsyrk(1.0, X.T)
        linalg.lapack.dpotrf(positive, lower=1)
        X[:tests] @ W.T

    compare(
        f"simulate d=p={d}, n={n}",
        ours,
        {"NumPy": numpy, "products and Cholesky": floor},
        rounds=3,
    )
    # Two networks.
    assert abs(risks["ours"] / risks["theirs"] - 1) < 0.3


def test_from_weights(compare):
    """The theory for given weights is bounded by one symmetric eigenvalue problem."""
    d = p = 1000
    rng = np.random.default_rng(0)
    W = rng.standard_normal((p, d)) / np.sqrt(d)
    gram = W @ W.T
    problem = gs.Problem(alpha=1.5, ridge=0.1, **SETTING)
    axes = np.eye(d)
    compare(
        f"from_weights d=p={d}",
        lambda: gs.from_weights(problem, W, axes[0], axes[0] + axes[1]),
        {"one eigh": lambda: linalg.eigh(gram, driver="evd")},
        rounds=3,
    )
