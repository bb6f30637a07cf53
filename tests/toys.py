"""The smallest possible room, for the tests of the machinery that all rooms share.

M relaxes as dM/dt = -rate M from the teacher's value; the simulation adds noise. Further down, what
a room may also have: functions without a problem, and a simulation whose unit of work is a whole
replica.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from overparam import _check, plot, results
from overparam._problem import BaseProblem
from overparam._run import Checkpoint, drive, fingerprint
from overparam.claims import Check, Claim

STEPS_PER_UNIT = 100


@dataclass(frozen=True, kw_only=True)
class Problem(BaseProblem):
    room: ClassVar[str] = "toy"

    rate: float
    width: int = 2
    teacher: tuple[float, ...] = (1.0,)
    cutoff: float = np.inf
    label: str | None = None

    def __post_init__(self):
        self._set(
            rate=_check.real("rate", self.rate),
            width=_check.integer("width", self.width, minimum=1),
            teacher=tuple(_check.vector("teacher", self.teacher).tolist()),
            cutoff=_check.real("cutoff", self.cutoff, minimum=0.0, allow_inf=True),
        )

    @property
    def start(self):
        """M at t = 0, shape (width, number of teachers)."""
        return np.tile(self.teacher, (self.width, 1))


@results.record
class DecayTrajectory(results.Trajectory):
    time_label: ClassVar[str] = "t = steps / 100"

    M: results.FloatArray = results.array_field("time", "student", "teacher")
    P: results.FloatArray = results.array_field("teacher", "teacher_2", sampled=False)
    risk: results.FloatArray = results.array_field("time")


@results.record
class DecayPoint(results.Point):
    risk: results.FloatArray = results.array_field()
    modes: results.FloatArray | None = results.array_field("mode", default=None)


def risk(M):
    return (M**2).sum(axis=(-2, -1)) / 2


def theory(problem, t):
    t = _check.times("t", t)
    M = problem.start * np.exp(-problem.rate * t)[:, None, None]
    return DecayTrajectory(
        problem=problem,
        method="exact",
        status=results.Status.SUCCESS,
        origin=results.make_origin(),
        t=t,
        M=M,
        P=np.diag(np.square(problem.teacher)),
        risk=risk(M),
    )


def simulate(
    problem, t, *, replicas=1, seed=0, noise=0.01, throw=True, progress=False, checkpoint=None
):
    t = _check.times("t", t)
    steps = _check.steps("t", t, STEPS_PER_UNIT)
    replicas = _check.replicas(replicas)
    sequence = _check.seed_sequence(seed)
    word = _check.seed_word(sequence)
    shape = problem.start.shape
    arrays = {
        "state": np.tile(problem.start, (replicas, 1, 1)),
        "M": np.full((replicas, len(t), *shape), np.nan),
    }
    arrays["M"][:, steps == 0] = problem.start

    def advance(done, budget):
        for step in range(done, done + budget):
            M = arrays["state"]
            kicks = np.random.Generator(np.random.Philox(key=word, counter=[0, 0, 0, step]))
            M *= 1 - problem.rate / STEPS_PER_UNIT
            M += noise * kicks.standard_normal((replicas, *shape))
            M[np.abs(M).max(axis=(1, 2)) > 1e3] = np.nan
            arrays["M"][:, steps == step + 1] = M[:, None]
            if np.isnan(M).all():
                return 0
        return budget

    def build(status, stats):
        return DecayTrajectory(
            problem=problem,
            inputs={"noise": noise},
            method="euler",
            status=status,
            stats=stats,
            origin=results.make_origin(sequence),
            diverged=np.isnan(arrays["state"]).any(axis=(1, 2)),
            t=t,
            M=arrays["M"],
            P=np.diag(np.square(problem.teacher)),
            risk=risk(arrays["M"]),
        )

    identity = fingerprint(problem, t=t, replicas=replicas, seed=sequence, noise=noise)
    result = drive(
        int(steps[-1]),
        arrays,
        advance,
        build,
        progress=progress,
        label="toy",
        checkpoint=Checkpoint(checkpoint, identity),
    )
    return results.conclude(result, throw)


# ---- without a problem, replica by replica ----


@results.record
class RelaxTrajectory(results.Trajectory):
    time_label: ClassVar[str] = "t = seconds"
    headline: ClassVar[str] = "squared_distance"

    distance: results.FloatArray = results.array_field("time")
    squared_distance: results.FloatArray = results.array_field("time")


def heights(rates, seed, replicas):
    """Starts of the replicas at each rate, (replicas, n); each depends on its own index only."""
    word = _check.seed_word(_check.seed_sequence(seed))
    draws = [np.random.Generator(np.random.Philox(key=word, counter=i)) for i in range(replicas)]
    return np.array([draw.standard_normal(len(rates)) for draw in draws])


def distance(heights, rates, t):
    return np.linalg.norm(np.exp(-np.multiply.outer(t, rates)) * heights, axis=-1)


def relax(heights, rates, t):
    """Theory of a given start; at once, without slices."""
    heights = _check.matrix("heights", heights, (1, None))
    rates = _check.vector("rates", rates, heights.shape[1])
    t = _check.times("t", t)
    found = distance(heights, rates, t)
    return RelaxTrajectory(
        inputs={"heights": heights, "rates": rates},
        method="exact",
        status=results.Status.SUCCESS,
        stats={"seconds": 0.0, "steps": len(t)},
        origin=results.make_origin(),
        t=t,
        distance=found,
        squared_distance=found**2,
    )


def relax_from_random(
    rates, t, *, replicas=1, seed=0, threads=None, throw=True, progress=False, checkpoint=None
):
    rates = _check.vector("rates", rates)
    t = _check.times("t", t)
    replicas = _check.replicas(replicas)
    sequence = _check.seed_sequence(seed)
    threads = _check.threads(threads)
    throw = _check.boolean("throw", throw)
    _check.memory(8.0 * replicas * (len(t) + len(rates)), "the recorded distances", "replicas")
    starts = heights(rates, sequence, replicas)
    arrays = {"distance": np.full((replicas, len(t)), np.nan)}

    def advance(done, budget):
        for replica in range(done, done + budget):
            arrays["distance"][replica] = distance(starts[replica], rates, t)
        return budget

    def build(status, stats):
        found = arrays["distance"][: stats["steps"]]
        return RelaxTrajectory(
            inputs={"rates": rates},
            method="exact",
            status=status,
            stats={**stats, "threads": threads},
            origin=results.make_origin(sequence),
            diverged=np.zeros(len(found), dtype=bool),
            t=t,
            distance=found,
            squared_distance=found**2,
        )

    identity = fingerprint(None, t=t, rates=rates, replicas=replicas, seed=sequence)
    result = drive(
        replicas,
        arrays,
        advance,
        build,
        progress=progress,
        label="toy",
        checkpoint=Checkpoint(checkpoint, identity),
    )
    return results.conclude(result, throw)


def half_life(rates):
    """A point that holds nothing but numbers."""
    rates = _check.vector("rates", rates)
    return DecayPoint(
        inputs={"rates": rates},
        method="exact",
        status=results.Status.SUCCESS,
        origin=results.make_origin(),
        risk=math.log(2) / rates.min(),
    )


# ---- claims ----

# What the toy claim `decay` was called with: effort, seed, threads.
SEEN = []


def decay(*, effort, seed, threads, progress):
    """A toy claim: the simulation follows the exponential."""
    SEEN.append((effort, seed, threads))
    t = [0.0, 0.5, 1.0]
    problem = Problem(rate=1.0)
    exact = theory(problem, t)
    replicas = 16 if effort == "quick" else 64
    sampled = simulate(problem, t, replicas=replicas, seed=seed, progress=progress)
    table = results.compare(exact, sampled)
    mean, sem = sampled.mean().risk[-1], sampled.sem().risk[-1]
    checks = [
        Check(
            quantity="risk <at> 1", predicted=exact.risk[-1], measured=mean, sem=sem, tolerance=0.1
        ),
        Check(quantity="largest |z|", predicted=0, measured=1.5, tolerance=4, side="below"),
    ]

    def curves(ax):
        plot.compare(exact, sampled, ax=ax, yscale="log")

    def deviations(ax):
        ax.plot(table["t"], table["z"], "o")

    return checks, table, [curves, deviations]


def outcome(measured, **options):
    def function(**_):
        check = Check(quantity="x", predicted=1.0, measured=measured, tolerance=0.1, **options)
        return [check], results.Table({"x": [measured]}), [lambda ax: ax.plot([1])]

    return function


def broken(**_):
    raise RuntimeError("it <broke>")


def claim(name, function):
    return Claim(id=f"toy/{name}", statement=f"Toys <{name}>.", source="none", function=function)


CLAIMS = [
    claim("decay", decay),
    claim("wrong", outcome(1.2)),
    claim("nan", outcome(math.nan)),
    claim("broken", broken),
]
