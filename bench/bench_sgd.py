"""Speed of the room sgd, as ratios to the peers in peers.py: `pytest bench/bench_sgd.py`.

One thread unless a label says otherwise: OPENBLAS_NUM_THREADS=1 is set for the peers, too.
"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
import overparam as op
import peers
from overparam import _core


def _problem(width, teacher_width, dim, eta=0.05):
    problem = op.sgd.Problem(width=width, teacher_width=teacher_width, lr=eta * width, dim=dim)
    return problem, op.sgd.Overlaps.random(problem)


def _simulation(problem, start, steps, **numerics):
    return lambda: op.sgd.simulate(problem, start, [steps / problem.dim], **numerics)


def test_chain_against_numpy(compare):
    problem, start = _problem(4, 2, 10**5)
    replicas, steps, peer_steps = 1000, 4000, 100
    rng = np.random.default_rng(0)
    work = replicas * peer_steps

    def peer(function):
        def run():
            function(replicas, problem.dim, 4, 2, peer_steps, rng, problem.lr)
            return work

        return run

    ours = _simulation(problem, start, steps, replicas=replicas, threads=1)
    compare(
        "chain p=4 p*=2, per step and replica",
        ours,
        {"NumPy": peer(peers.chain_numpy), "NumPy tuned": peer(peers.chain_numpy_tuned)},
        units=replicas * steps,
    )


def test_chain_against_direct_numpy_at_large_dimension(compare):
    problem, start = _problem(4, 2, 10**5)
    replicas, steps, peer_steps = 1000, 4000, 30
    rng = np.random.default_rng(0)
    W, W_star = rng.standard_normal((4, problem.dim)), rng.standard_normal((2, problem.dim))

    def direct():
        peers.direct_numpy(W, W_star, peer_steps, rng, problem.lr)
        return peer_steps

    compare(
        "chain N=1e5 p=4 p*=2, per step and replica",
        _simulation(problem, start, steps, replicas=replicas, threads=1),
        {"direct NumPy": direct},
        units=replicas * steps,
    )


def test_chain_on_two_threads(compare):
    problem, start = _problem(4, 2, 10**5)
    numerics = {"replicas": 1024, "steps": 8000}
    compare(
        "chain p=4 p*=2, two threads",
        _simulation(problem, start, threads=2, **numerics),
        {"one thread": _simulation(problem, start, threads=1, **numerics)},
    )


def test_direct(compare):
    problem, start = _problem(8, 4, 1000)
    steps, peer_steps = 20000, 2000
    rng = np.random.default_rng(0)
    W, W_star = rng.standard_normal((8, 1000)), rng.standard_normal((4, 1000))

    def peer(function):
        def run():
            function(W, W_star, peer_steps, rng, problem.lr)
            return peer_steps

        return run

    compare(
        "direct N=1000 p=8 p*=4, per step",
        _simulation(problem, start, steps, method="direct", threads=1),
        {
            "NumPy": peer(peers.direct_numpy),
            "numba": peer(peers.direct_numba),
            "numba with BLAS": peer(peers.direct_numba_blas),
            "its own normals alone": lambda: _core.normals(0, 10**6).size // problem.dim,
        },
        units=steps,
        note="the last row is the bound",
    )


def test_ode(compare):
    problem, start = _problem(8, 4, 10**4, eta=0.1)
    t = np.linspace(0.0, 50.0, 51)
    numerics = {"rtol": 1e-8, "atol": 1e-10}
    arguments = (start.M, start.Q, start.P, problem.a, problem.a_star, t, problem.lr)
    exact = op.sgd.ode(problem, start, t, rtol=1e-13, atol=1e-15)
    error = np.abs(op.sgd.ode(problem, start, t, **numerics).M - exact.M).max()
    peer_error = np.abs(peers.ode_scipy(*arguments, **numerics)[0] - exact.M).max()

    def ours():
        for _ in range(20):
            op.sgd.ode(problem, start, t, **numerics)
        return 20

    compare(
        "ODE p=8 p*=4 to t=50 at rtol 1e-8",
        ours,
        {
            "SciPy DOP853": lambda: peers.ode_scipy(*arguments, **numerics),
            "SciPy DOP853 tuned": lambda: peers.ode_scipy_tuned(*arguments, **numerics),
        },
        note=f"error {error:.1e}, theirs {peer_error:.1e}",
    )


def test_normals(compare):
    compare(
        "normals, each",
        lambda: _core.normals(0, 10**6),
        {"NumPy Generator": lambda: peers.normals_numpy(10**6, 0)},
        units=10**6,
    )


def test_stiff_late_times(compare):
    problem, start = _problem(5, 2, 1000)
    t = [1e2, 1e4, 1e6]
    compare(
        "ODE p=5 p*=2 to t=1e6",
        lambda: op.sgd.ode(problem, start, t),
        {"itself, explicit": lambda: op.sgd.ode(problem, start, t, method="dop853")},
        rounds=3,
    )
