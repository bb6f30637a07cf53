"""The smallest possible room, for the tests of the machinery that all rooms share.

M relaxes as dM/dt = -rate M from the teacher's value; the simulation adds noise.
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
