"""Speed of the room population_flow, as ratios to the peers in peers.py.

`pytest bench/bench_population_flow.py`; one thread, OPENBLAS_NUM_THREADS=1 for the peers, too. What
is asserted is accuracy, never time.
"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import statistics

import numpy as np
import overparam as op
import peers
from timing import by_turns, repeated

flow = op.population_flow


def _network(dim, width, rank, seed=1):
    problem = flow.Problem(teacher_eigenvalues=[1.0] * rank, dim=dim, width=width)
    return problem, flow.random_start(problem, seed=seed)


def _error(loss, exact):
    return float(np.max(np.abs(loss / exact - 1.0)))


def test_flow_against_scipy(compare):
    """Exact flow at d = 1000, m = 500, rank 5, 200 times: SciPy integrates W at rtol 1e-8."""
    problem, W0 = _network(1000, 500, 5)
    t = np.linspace(0.0, 20.0, 200)
    exact = flow.flow(problem, W0, t, rtol=1e-13).loss
    # By other equations, at the first times: segments of the closed solution of the matrix.
    other = flow.flow(problem, W0, t[:5], method="restart", rtol=1e-12).loss
    losses = {}

    def ours():
        losses["ours"] = flow.flow(problem, W0, t).loss

    def scipy():
        losses["theirs"] = peers.flow_scipy(W0, problem.mu, t)

    ours()
    scipy()
    error, peer_error = (_error(losses[name], exact) for name in ("ours", "theirs"))
    assert _error(exact[:5], other) < 1e-11
    assert error < peer_error
    compare(
        "exact flow d=1000 m=500 r=5, 200 times to tau=20",
        repeated(ours, 7),
        {"SciPy DOP853 on W": scipy},
        rounds=1,
        note=f"error {error:.1e}, theirs {peer_error:.1e}",
    )


def test_whole_trajectory(compare):
    """All of a trajectory at d = 1500, m = 700, rank 3, into the late phase of slow decay."""
    problem, W0 = _network(1500, 700, 3)
    late = np.append(0.0, np.geomspace(0.1, 100.0, 199))

    def to(end):
        t = np.linspace(0.0, end, 200)
        return lambda: flow.flow(problem, W0, t)

    compare(
        "exact flow d=1500 m=700 r=3, 200 times to tau=20",
        to(20.0),
        {
            "itself, two times": lambda: flow.flow(problem, W0, [0.0, 1e-9]),
            "itself, to tau=100": lambda: flow.flow(problem, W0, late),
        },
        note="two times: what is done once",
    )


def test_growth_with_dimension(compare):
    """Growth of the cost from d = 250 to 2000 at m = d/2 and rank 5."""
    t = np.linspace(0.0, 20.0, 200)
    dims = (250, 500, 1000, 2000)

    def run(dim):
        problem, W0 = _network(dim, dim // 2, 5)
        return lambda: flow.flow(problem, W0, t)

    runs = {dim: run(dim) for dim in dims}
    medians = [statistics.median(taken) for taken in by_turns(*runs.values(), rounds=5)]
    exponent = np.polyfit(np.log(dims), np.log(medians), 1)[0]
    last = np.log2(medians[-1] / medians[-2])
    compare(
        "exact flow d=2000 m=d/2 r=5, 200 times to tau=20",
        runs[2000],
        {f"itself, d={dim}": runs[dim] for dim in dims[:-1]},
        note=f"time ~ d^{exponent:.2f}, d^{last:.2f} from 1000 to 2000",
    )


def test_limit_against_euler(compare):
    """The limit curve at 200 times, to t/d = 3 in the paper's units."""
    gamma, gamma_star, end = 0.5, 0.25, 24.0
    curves = {}

    def peer(function):
        def run():
            curves[function] = function(gamma, gamma_star, end)

        return run

    scheme, tuned = peers.limit_euler, peers.limit_euler_tuned
    for function in (scheme, tuned):
        peer(function)()
    t = curves[scheme][0][1:]
    exact = flow.limit(gamma, gamma_star, t, rtol=1e-13).loss
    # By other equations: Euler's scheme, its error extrapolated to a step of zero.
    coarse = tuned(gamma, gamma_star, end, step=2e-5)[1][1:]
    assert _error(2.0 * curves[tuned][1][1:] - coarse, exact) < 1e-7
    error = _error(flow.limit(gamma, gamma_star, t).loss, exact)
    peer_errors = [_error(curves[function][1][1:], exact) for function in (scheme, tuned)]
    assert error < min(peer_errors)
    theirs = " / ".join(f"{e:.1e}" for e in peer_errors)
    compare(
        "limit gamma=0.5 gamma*=0.25, 200 times",
        repeated(lambda: flow.limit(gamma, gamma_star, t), 20),
        {"Euler, step 1e-5": peer(scheme), "Euler tuned": peer(tuned)},
        rounds=5,
        note=f"error {error:.1e}, theirs {theirs}",
    )
