"""The claims about one-pass SGD of overparameterised quadratic networks.

All of arXiv 2604.03068, derived in ``docs/papers/sgd.md``, whose section a claim names. Unless a
claim says otherwise the second layers are 1/p and 1/p*, the teacher is orthonormal (P = I), and
widths are compared at equal eta = lr/p, on which, with sigma = 1/p*, the rates depend.

Pass rules. A statistical check allows `_limit` standard errors: the two-sided Gaussian or Student
bound that chance exceeds once in 10^4 runs of the check, Bonferroni-corrected where it is the
largest of several. What is added for finite size or finite time is the order of the first term
that the theory leaves out, and is stated beside the check.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from overparam import sgd
from overparam._run import Progress, share
from overparam.claims import Check, Claim
from overparam.results import FloatArray, Status, Table
from overparam.sgd import Overlaps, OverlapTrajectory, Problem

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from overparam.claims import Panel

    Outcome = tuple[list[Check], Table, list[Panel]]

CHANCE = 1e-4  # at which a true statement fails a statistical check


# ---- shared ---------------------------------------------------------------------------------------------


def _limit(count: int = 1, replicas: int | None = None) -> float:
    """Return how many standard errors the largest of `count` deviations may have."""
    from scipy.stats import norm, t

    tail = 1.0 - CHANCE / (2.0 * count)
    return float(norm.ppf(tail) if replicas is None else t.ppf(tail, replicas - 1))


def _source(*sections: str) -> str:
    return f"arXiv 2604.03068; docs/papers/sgd.md section {', '.join(sections)}"


def _problem(width: int, teacher_width: int, eta: float, **changes: Any) -> Problem:
    """Return a problem with second layers 1/p and 1/p*, for a given eta = lr/p."""
    return Problem(width=width, teacher_width=teacher_width, lr=eta * width, **changes)


def _isotropic(problem: Problem, q: float, m: float = 0.0, P: ArrayLike | None = None) -> Overlaps:
    """Return Q = q I, and M with m on the diagonal of its first min(p, p*) units."""
    teacher = np.eye(problem.teacher_width) if P is None else np.array(P, dtype=np.float64)
    M = m * np.eye(problem.width, problem.teacher_width)
    return Overlaps(Q=q * np.eye(problem.width), M=M, P=teacher)


def _solution(problem: Problem, scale: float = 1.0, P: ArrayLike | None = None) -> Overlaps:
    """Return a student whose first p* units are `scale` times a solution, the others zero."""
    teacher = np.eye(problem.teacher_width) if P is None else np.array(P, dtype=np.float64)
    ratio = problem.a_star[0] / problem.a[0]
    frame = np.eye(problem.width, problem.teacher_width)
    return Overlaps(
        Q=scale**2 * ratio * frame @ teacher @ frame.T,
        M=scale * ratio**0.5 * frame @ teacher,
        P=teacher,
    )


def _starts(
    problem: Problem,
    seeds: Sequence[np.random.SeedSequence],
    *,
    scale: float = 1.0,
    P: ArrayLike | None = None,
) -> list[Overlaps]:
    """Return random students, with unit rows if the problem keeps the norms."""
    drawn = [Overlaps.random(problem, scale=scale, P=P, seed=seed) for seed in seeds]
    if not problem.spherical:
        return drawn
    norms = [np.sqrt(np.diag(start.Q)) for start in drawn]
    return [
        Overlaps(Q=start.Q / np.outer(norm, norm), M=start.M / norm[:, None], P=start.P)
        for start, norm in zip(drawn, norms, strict=True)
    ]


def _scaled(start: Overlaps, factor: float) -> Overlaps:
    return Overlaps(Q=start.Q, M=factor * start.M, P=start.P)


def _rotations(M: FloatArray, P: FloatArray, problem: Problem) -> FloatArray:
    """Return O of M = sqrt(a*/a) O P."""
    rotations: FloatArray = M @ np.linalg.inv(P) * np.sqrt(problem.a[0] / problem.a_star[0])
    return rotations


def _polar(matrix: FloatArray) -> FloatArray:
    """Return the polar factors of a stack of matrices."""
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    factor: FloatArray = left @ right
    return factor


def _mean(values: FloatArray) -> tuple[float, float]:
    """Return the mean over replicas and its standard error."""
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))


def _worst(values: Sequence[float] | FloatArray, target: float = 0.0) -> float:
    """Return the value that is furthest from the target; NaN if there is one."""
    array = np.asarray(values, dtype=np.float64).ravel()
    return float(array[np.argmax(np.abs(array - target))])


def _excess_z(difference: ArrayLike, sem: ArrayLike, finite: ArrayLike = 0.0) -> FloatArray:
    """Return deviations in standard errors, of what exceeds the finite-size allowance."""
    beyond = np.maximum(np.abs(np.asarray(difference)) - np.asarray(finite), 0.0)
    z: FloatArray = beyond / np.asarray(sem)
    return z


def _z_check(quantity: str, z: ArrayLike, replicas: int | None = None) -> Check:
    values = np.asarray(z, dtype=np.float64)
    return Check(
        quantity=f"{quantity}: largest |z| of {values.size}",
        predicted=0.0,
        measured=float(np.abs(values).max()),
        tolerance=_limit(values.size, replicas),
        side="below",
    )


def _line_fit(x: ArrayLike, y: ArrayLike, sem: ArrayLike) -> tuple[float, float]:
    """Return the slope of a weighted straight-line fit and its standard error."""
    weights = 1.0 / np.asarray(sem, dtype=np.float64) ** 2
    x_, y_ = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    centred = x_ - np.average(x_, weights=weights)
    spread = float((weights * centred**2).sum())
    return float((weights * centred * y_).sum()) / spread, spread**-0.5


def _extrapolated(
    small: tuple[float, float], large: tuple[float, float], ratio: float
) -> tuple[float, float]:
    """Return value and standard error at N = inf from those at N and at `ratio` times N.

    What remains is of order 1/N^2.
    """
    value = (ratio * large[0] - small[0]) / (ratio - 1.0)
    return value, float(np.hypot(ratio * large[1], small[1])) / (ratio - 1.0)


def _crossing(t: FloatArray, curves: FloatArray, level: float) -> FloatArray:
    """Return when each curve first falls below a level; NaN if it does not."""
    below = curves < level
    after = np.maximum(below.argmax(axis=1), 1)[:, None]
    high = np.take_along_axis(curves, after - 1, axis=1)[:, 0]
    low = np.take_along_axis(curves, after, axis=1)[:, 0]
    i = after[:, 0]
    times = t[i - 1] + (high - level) / (high - low) * (t[i] - t[i - 1])
    return np.where(below.any(axis=1), times, np.nan)


def _table(rows: list[dict[str, Any]]) -> Table:
    return Table({name: [row[name] for row in rows] for name in rows[0]})


def _finish(ax: Axes, xlabel: str, ylabel: str, *, legend: bool = True, **scales: Any) -> None:
    ax.set(xlabel=xlabel, ylabel=ylabel, **scales)
    ax.grid(visible=True, alpha=0.3, linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    if legend:
        ax.legend(frameon=False, fontsize="small")


def _points(
    ax: Axes, x: ArrayLike, y: ArrayLike, sem: ArrayLike | None, colour: str, **style: Any
) -> None:
    defaults: dict[str, Any] = {"marker": "o", "markersize": 4, "capsize": 2, "linestyle": ""}
    ax.errorbar(x, y, sem, color=colour, **{**defaults, **style})


def _colour(index: int) -> str:
    return f"C{index}"


# ---- simulation against theory --------------------------------------------------------------------------


def _deviations(theory: OverlapTrajectory, sampled: OverlapTrajectory) -> FloatArray:
    """Return simulation minus theory of M and Q, (replicas, T, p p* + p^2)."""
    shape = (*sampled.risk.shape, -1)
    parts = [(sampled.M - theory.M).reshape(shape), (sampled.Q - theory.Q).reshape(shape)]
    return np.concatenate(parts, axis=-1)


def _ode(
    *, effort: str, seed: np.random.SeedSequence, threads: int | None, progress: Progress
) -> Outcome:
    more = 1 if effort == "quick" else 8
    pairs = ((1, 1), (2, 2), (4, 2), (8, 4))
    sizes = {10**3: 512 * more, 10**4: 128 * more, 10**5: 32 * more, 10**6: 16 * more}
    bias_sizes, bias_replicas, bias_pair = (64, 256, 1024), 16384 * more, (4, 2)
    jobs = len(pairs) * (len(sizes) + 1) + len(bias_sizes)
    seeds = seed.spawn(jobs)
    done = 0

    def run(problem: Problem, start: Overlaps, t: FloatArray, replicas: int) -> OverlapTrajectory:
        nonlocal done
        done += 1
        return sgd.simulate(
            problem,
            start,
            t,
            replicas=replicas,
            seed=seeds[done - 1],
            threads=threads,
            progress=share(progress, done - 1, jobs),
        )

    def prepare(width: int, teacher_width: int) -> tuple[Problem, Overlaps]:
        # A third of the largest stable rate, where fluctuations are moderate; overlaps of order
        # one, those of a random network in few dimensions, the same for every seed of the claim.
        problem = Problem(width=width, teacher_width=teacher_width, lr=1.0)
        problem = problem.replace(lr=sgd.lr_max(problem) / 3.0)
        few = problem.replace(dim=4 * (width + teacher_width))
        return problem, Overlaps.random(few, scale=0.8, seed=1)

    t, long = np.array([0.5, 1.0]), np.linspace(0.0, 20.0, 21)
    z_of_means: list[FloatArray] = []
    rows, slopes, ratios, curves = [], [], [], []
    for width, teacher_width in pairs:
        problem, start = prepare(width, teacher_width)
        theory = sgd.ode(problem, start, t)
        covariance = sgd.fluctuations(problem, start, t)
        expected = float(np.trace(covariance[-1]))
        scaled, errors = [], []
        for dim, replicas in sizes.items():
            sampled = run(problem.replace(dim=dim), start, t, replicas)
            deviations = _deviations(theory, sampled)
            value, error = _mean(dim * (deviations[:, -1] ** 2).sum(axis=-1))
            scaled.append(value)
            errors.append(error)
            # Sum of squares of the deviations at 1/N; what comes next is relatively n/N.
            finite = expected * (width + teacher_width) / dim
            ratios.append(float(_excess_z(value - expected, error, finite)))
            rows.append(
                {
                    "p": width,
                    "p*": teacher_width,
                    "N": dim,
                    "replicas": replicas,
                    "N x mean square": value,
                    "sem": error,
                    "theory": expected,
                }
            )
        variances = np.diagonal(covariance, axis1=1, axis2=2) / (dim * replicas)
        z_of_means.append((deviations.mean(axis=0) / np.sqrt(variances)).ravel())
        relative = np.divide(errors, scaled)
        slopes.append(_line_fit(np.log([*sizes]), np.log(scaled) - np.log([*sizes]), relative))
        curve = run(problem.replace(dim=10**4), start, long, 64 * more)
        fine = np.linspace(0.0, 20.0, 101)
        curves.append((sgd.ode(problem, start, fine), curve))
    # The deviation of the mean needs many replicas: the spread of a run is 1/sqrt(N), so that the
    # mean of R replicas has the error 1/sqrt(N R), to be compared with 1/N.
    problem, start = prepare(*bias_pair)
    end = np.array([4.0])
    target = sgd.ode(problem, start, end).risk[0]
    biases = [
        _mean(run(problem.replace(dim=dim), start, end, bias_replicas).risk[:, 0] - target)
        for dim in bias_sizes
    ]
    bias, bias_sem = np.array(biases).T
    log_sizes = np.log(bias_sizes)
    slope, slope_sem = _line_fit(log_sizes, np.log(np.abs(bias)), bias_sem / np.abs(bias))
    # The next order is relatively n/N, which tilts the fit by at most this.
    tilt = sum(bias_pair) / bias_sizes[0] / (log_sizes[-1] - log_sizes[0])
    spread_slope, spread_sem = np.array(slopes).T
    checks = [
        Check(
            quantity="slope of log |mean risk - ODE| against log N",
            predicted=-1.0,
            measured=slope,
            sem=slope_sem,
            tolerance=_limit() * slope_sem + tilt,
        ),
        _z_check("means of all overlaps at N = 10^6", np.concatenate(z_of_means)),
        Check(
            quantity="slope of log mean-square deviation against log N, 10^3..10^6",
            predicted=-1.0,
            measured=float(spread_slope.mean()),
            sem=float(np.hypot.reduce(spread_sem)) / len(pairs),
            tolerance=_limit() * float(np.hypot.reduce(spread_sem)) / len(pairs)
            # n/N at N = 10^3, over the range of ln N
            + max(map(sum, pairs)) / 10**3 / np.log(10**3),
        ),
        _z_check("N x mean-square deviation against the linear-noise theory", ratios),
    ]
    for dim, value, error in zip(bias_sizes, bias, bias_sem, strict=True):
        rows.append(
            {
                "p": bias_pair[0],
                "p*": bias_pair[1],
                "N": dim,
                "replicas": bias_replicas,
                "N x mean square": np.nan,
                "sem": np.nan,
                "theory": np.nan,
            }
            | {"N x mean deviation of R": dim * value, "its sem": dim * error}
        )
    blank = {"N x mean deviation of R": np.nan, "its sem": np.nan}
    table = _table([blank | row for row in rows])

    def risks(ax: Axes) -> None:
        for i, ((width, teacher_width), (theory, sampled)) in enumerate(
            zip(pairs, curves, strict=True)
        ):
            ax.plot(theory.t, theory.risk, color=_colour(i), label=f"p = {width}, p* = {teacher_width}")
            _points(ax, sampled.t, sampled.mean().risk, sampled.sem().risk, _colour(i))
        _finish(ax, "t = steps / N", "risk R", title="ODE (lines), SGD at N = 10⁴ (points)")

    def spreads(ax: Axes) -> None:
        N = np.array([*sizes])
        for i, (width, teacher_width) in enumerate(pairs):
            block = [row for row in rows if row["p"] == width][: len(sizes)]
            value, error = (np.array([row[key] for row in block]) for key in ("N x mean square", "sem"))
            ax.plot(N, block[0]["theory"] / N, color=_colour(i), linewidth=1)
            label = f"p = {width}, p* = {teacher_width}"
            _points(ax, N, value / N, error / N, _colour(i), label=label)
        ylabel = "mean square of (M, Q) − ODE"
        title = "one run: linear-noise theory (lines)"
        _finish(ax, "N", ylabel, xscale="log", yscale="log", title=title)

    def mean(ax: Axes) -> None:
        N = np.array(bias_sizes)
        centre = np.average(N * np.abs(bias), weights=1.0 / (N * bias_sem) ** 2)
        ax.plot(N, centre / N, color="0.4", label="slope −1")
        _points(ax, N, np.abs(bias), bias_sem, _colour(2), label="p = 4, p* = 2, t = 4")
        title = f"mean of {bias_replicas} runs"
        _finish(ax, "N", "|mean R − ODE|", xscale="log", yscale="log", title=title)

    return checks, table, [risks, spreads, mean]


CLAIMS = [
    Claim(
        id="sgd/ode",
        statement="SGD at large input dimension follows the overlap ODE for every pair of widths: "
        "the mean deviates by O(1/N), a single run by the linear-noise O(1/sqrt N).",
        source=_source("3", "9"),
        function=_ode,
    ),
]
