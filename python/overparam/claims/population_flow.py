"""The claims about gradient flow on the population risk.

All of arXiv 2311.03794, derived in ``docs/papers/population_flow.md``, whose section a claim names.
Unless a claim says otherwise kappa = 1/2, an orthonormal teacher has eigenvalue one, and the
student starts with the teacher's trace. The paper's teacher has eigenvalue 1/m*, and its time is
t/d: tau = 2 (t/d)/gamma* here, and its phi, the integral of tr S - tr S* over t, is
`shift_integral`.

Pass rules. A statistical check allows `error_limit` standard errors: the two-sided Gaussian or
Student bound that chance exceeds once in 10^4 runs of the check, Bonferroni-corrected where it is
the largest of several. What is added for finite size or finite time is the order of the first term
that the theory leaves out, and is stated beside the check.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from overparam import population_flow, spectra
from overparam.claims import Check, Claim
from overparam.claims._shared import (
    Bench,
    error_bars,
    extrapolated,
    finish,
    hue,
    line_fit,
    mean_and_error,
    mean_check,
    table_of,
    weighted_mean,
    worst,
    z_check,
    z_score,
)
from overparam.population_flow import FlowTrajectory, Problem
from overparam.results import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from overparam.claims._shared import Outcome

KAPPA = 0.5
# (gamma, gamma*) and d of the paper's figures 2, 4 and 6, and their number of repeats.
CASES = ((0.5, 0.25), (0.5, 0.5), (0.25, 0.5))
SIZES = (20, 40, 80, 200)
REPEATS = 5


# ---- shared --------------------------------------------------------------------------------------


class _Bench(Bench):
    """What a run of a claim was asked for, and its simulations."""

    def simulate(
        self, problem: Problem, tau: ArrayLike, replicas: int, **options: Any
    ) -> FlowTrajectory:
        """Simulate with a seed of its own, as one of the claim's jobs."""
        return population_flow.simulate(problem, tau, replicas=replicas, **options, **self.job())


def _source(where: str, *sections: str) -> str:
    page = f"docs/papers/population_flow.md section {', '.join(sections)}"
    return f"arXiv 2311.03794{where}; {page}"


def _orthonormal(d: int, gamma: float, gamma_star: float, **changes: Any) -> Problem:
    """Return a problem with m* = gamma* d eigenvalues one and m = gamma d."""
    rank, width = round(gamma_star * d), round(gamma * d)
    return Problem(teacher_eigenvalues=(1.0,) * rank, dim=d, width=width, **changes)


def _ratios(gamma: float, gamma_star: float) -> str:
    return f"γ = {gamma:g}, γ* = {gamma_star:g}"


def _cosine(run: FlowTrajectory, teacher2: ArrayLike) -> FloatArray:
    """Return tr(S S*)/(||S||_F ||S*||_F); `teacher2` is ||S*||_F^2."""
    square = np.asarray(teacher2, dtype=np.float64)
    student2 = run.distance2 + 2.0 * run.overlap - square
    return np.asarray(run.overlap / np.sqrt(student2 * square))


def _missing(run: FlowTrajectory, teacher2: float) -> FloatArray:
    """Return one minus `_cosine` without cancellation."""
    student = np.sqrt(run.distance2 + 2.0 * run.overlap - teacher2)
    teacher = np.sqrt(teacher2)
    longer = (run.distance2 + 2.0 * (run.overlap - teacher2)) / (student + teacher)
    return np.asarray((run.distance2 - longer**2) / (2.0 * student * teacher))


def _expansion(tau: ArrayLike, gamma: float, gamma_star: float) -> FloatArray:
    """Return d times the parameter of the expansion of overlap and phi in 1/d.

    The shift is that of the limit but for relative corrections of order 1/(kappa tr S), at most
    1/(kappa min(m, m*)); and at gamma = gamma* the smallest angles, which are discrete at the
    scale 1/d, have grown by exp(tau).
    """
    edge = np.exp(tau) if gamma == gamma_star else np.ones_like(tau, dtype=np.float64)
    return np.asarray(1.0 / (KAPPA * min(gamma, gamma_star)) + edge)


def _size_ticks(ax: Axes, sizes: Sequence[int]) -> None:
    """Label a logarithmic axis of d by the sizes."""
    ax.minorticks_off()
    ax.set_xticks(sizes, [str(d) for d in sizes])


def _slope(x: FloatArray, y: FloatArray) -> float:
    """Return the slope of the straight line through the ends."""
    return float((y[-1] - y[0]) / (x[-1] - x[0]))


# ---- principal angles ----------------------------------------------------------------------------


def _cosines2(bench: _Bench, d: int, gamma: float, gamma_star: float) -> FloatArray:
    """Return the squared cosines between two random subspaces, ascending, one for each of m."""
    problem = _orthonormal(d, gamma, gamma_star)
    W = population_flow.random_start(
        problem, init="orthonormal", trace=problem.width, seed=bench.seeds(1)[0]
    )
    facing = W[: problem.teacher_rank]
    values: FloatArray = np.clip(np.linalg.eigvalsh(facing.T @ facing), 0.0, 1.0)
    return values


def _distance(sample: FloatArray, law: spectra.Law) -> float:
    """Return the Kolmogorov-Smirnov distance of an ascending sample from a continuous law."""
    count, below = len(sample), law.cdf(sample)
    steps = np.arange(count + 1) / count
    return float(max((steps[1:] - below).max(), (below - steps[:-1]).max()))


def _angles(bench: _Bench) -> Outcome:
    gamma, gamma_star, largest = 0.3, 0.5, 2000
    draws = {250: 16 * bench.more, 500: 8 * bench.more, 1000: 4 * bench.more, largest: bench.more}
    draws[largest] *= 2
    law = population_flow.angle_law(gamma, gamma_star)
    rows: list[dict[str, Any]] = []
    distances: dict[int, list[float]] = {}
    allowances = []
    samples: list[FloatArray] = []
    squares = []
    for d, count in draws.items():
        samples = [_cosines2(bench, d, gamma, gamma_star) for _ in range(count)]
        distances[d] = [_distance(sample, law) for sample in samples]
        if d == min(draws):
            squares = [float(np.mean(sample**2)) for sample in samples]
        # Eigenvalues are rigid: the largest deviation of the count below x is
        # (sqrt 2/pi) log m + O(1), with exponential tails of scale sqrt 2/(4 pi) or so; the O(1)
        # is three, of which one half is the step and one half the mean's correction.
        width = gamma * d
        allowances.append((np.sqrt(2.0) / np.pi * np.log(width) + 3.0) / width)
        rows.append(
            {
                "d": d,
                "draws": count,
                "mean distance": float(np.mean(distances[d])),
                "largest distance": max(distances[d]),
                "allowed": allowances[-1],
            }
        )
    atoms = []
    for pair in ((0.5, 0.3), (0.7, 0.6), (0.3, 0.9)):
        sample = _cosines2(bench, 200, *pair)
        for position, mass in population_flow.angle_law(*pair).atoms:
            found = float(np.mean(np.abs(sample - position) < 1e-9))
            atoms.append(found - mass)
    checks = [
        Check(
            quantity=f"largest distance of {draws[largest]} distribution functions, d = {largest}",
            predicted=0.0,
            measured=max(distances[largest]),
            tolerance=allowances[-1],
            side="below",
        ),
        Check(
            quantity="largest distance / allowed, all d",
            predicted=1.0,
            measured=max(row["largest distance"] / row["allowed"] for row in rows),
            tolerance=0.0,
            side="below",
        ),
        mean_check(
            f"mean of cos^4, d = {min(draws)}",
            law.moments(2),
            mean_and_error(np.array(squares)),
            1.0 / min(draws),  # the first correction
            len(squares),
        ),
        Check(
            quantity="fraction of angles 0 and 90 degrees - predicted, worst of three pairs",
            predicted=0.0,
            measured=worst(atoms),
            tolerance=1e-9,  # they are counts
        ),
    ]

    def histogram(ax: Axes) -> None:
        assert law.support is not None
        low, high = law.support
        x = 0.5 * (low + high) - 0.5 * (high - low) * np.cos(np.linspace(0.0, np.pi, 400))
        style: dict[str, Any] = {"density": True, "color": hue(0), "alpha": 0.35}
        label = f"d = {largest}, {draws[largest]} draws"
        ax.hist(np.concatenate(samples), bins=60, label=label, **style)
        ax.plot(x, law.density(x), color=hue(3), label="Jacobi law")
        title = f"principal angles, {_ratios(gamma, gamma_star)}"
        finish(ax, "cos²", "density per direction", title=title, ylim=(0.0, 2.0))

    def sizes(ax: Axes) -> None:
        d = np.array([*draws])
        values = [mean_and_error(np.array(distances[size])) for size in draws]
        mean, sem = np.array(values).T
        error_bars(ax, d, mean, sem, hue(0), label="mean of the draws")
        ax.plot(d, [max(distances[size]) for size in draws], "_", color=hue(0), label="largest")
        ax.plot(d, allowances, "--", color="0.4", label="allowed: (√2/π · ln m + 3)/m")
        ylabel = "Kolmogorov–Smirnov distance"
        title = "distance from the law"
        finish(ax, "d", ylabel, xscale="log", yscale="log", title=title, ylim=(2e-3, 0.2))
        _size_ticks(ax, [*draws])

    return checks, table_of(rows), [histogram, sizes]


# ---- the high-dimensional limit ------------------------------------------------------------------

_TIMES = np.array([0.5, 1.0, 1.5, 2.0])  # tau at which finite sizes are compared with the limit


def _quantities(run: FlowTrajectory, teacher2: float) -> FloatArray:
    """Return normalised overlap and phi, (..., T, 2)."""
    return np.stack([_cosine(run, teacher2), run.shift_integral], axis=-1)


def _grid(gamma_star: float, end: float) -> FloatArray:
    """Return tau up to t/d = end, among them the times of the comparison."""
    return np.union1d(np.linspace(0.0, 2.0 * end / gamma_star, 25), _TIMES)


def _limit_rows(
    pair: tuple[float, float],
    found: dict[int, FloatArray],
    laws: dict[str, FloatArray],
    sizes: tuple[int, int],
) -> tuple[list[dict[str, Any]], FloatArray, FloatArray, FloatArray]:
    """Return rows, and value, error and allowance at d = inf, (times, 2), from two sizes.

    `found` has values (replicas, times, 2) by d, `laws` values (times, 2) by name, the first of
    which is that of the limit.
    """
    small, large = sizes
    gamma, gamma_star = pair
    unit = 1.0 + np.abs(next(iter(laws.values()))[:, 1])  # of order one like the overlap, or phi
    allowance = unit * _expansion(_TIMES, gamma, gamma_star) ** 2 / (small * large)
    value, sem = np.empty((2, len(_TIMES), 2))
    rows = []
    for i, j in np.ndindex(len(_TIMES), 2):
        means = {d: mean_and_error(values[:, i, j]) for d, values in found.items()}
        value[i, j], sem[i, j] = extrapolated(means[small], means[large], large / small)
        row: dict[str, Any] = {"gamma": gamma, "gamma*": gamma_star, "tau": _TIMES[i]}
        row |= {"t/d": 0.5 * gamma_star * _TIMES[i], "quantity": ("overlap", "phi")[j]}
        row |= {f"d = {d}": mean for d, (mean, _) in means.items()}
        row |= {"d = inf": value[i, j], "sem": sem[i, j]}
        for name, law in laws.items():
            row |= {name: float(law[i, j]), f"from {name}": float(value[i, j] - law[i, j])}
        rows.append(row)
    return rows, value, sem, np.repeat(allowance[:, None], 2, axis=1)


def _z_scores(
    difference: FloatArray, sem: FloatArray, replicas: int, allowance: FloatArray
) -> list[float]:
    """Return `z_score` of all entries."""
    entries = zip(difference.ravel(), sem.ravel(), allowance.ravel(), strict=True)
    return [z_score(value, error, replicas, finite) for value, error, finite in entries]


def _label(pair: tuple[float, float], index: int) -> str:
    return f"{('overlap', 'φ')[index]}, {_ratios(*pair)}"


def _curve_panel(
    ax: Axes,
    curves: Sequence[tuple[tuple[float, float], FloatArray, list[tuple[FloatArray, str]]]],
    points: Sequence[tuple[FloatArray, FloatArray]],
    index: int,
    title: str,
    **scales: Any,
) -> None:
    """Draw overlap (index 0) or phi (1) against t/d: limits as lines, means as points."""
    for i, ((pair, tau, lines), (at, values)) in enumerate(zip(curves, points, strict=True)):
        for line, style in lines:
            label = _ratios(*pair) if style == "-" else None
            ax.plot(0.5 * pair[1] * tau, line[:, index], style, color=hue(i), label=label)
        value, sem = np.array([mean_and_error(column) for column in values[..., index].T]).T
        error_bars(ax, 0.5 * pair[1] * at, value, sem, hue(i))
    ylabel = ("overlap tr SS*/(‖S‖ ‖S*‖)", "φ = ∫(tr S − tr S*) dt")[index]
    finish(ax, "t/d", ylabel, title=title, **scales)


def _limit_orthonormal(bench: _Bench) -> Outcome:
    repeats, largest = 40 * bench.more, 400
    sizes = (*SIZES, largest)
    fitted = [d for d in sizes if d >= 80]
    bench.jobs = len(CASES) * len(sizes)
    rows: list[dict[str, Any]] = []
    z: list[float] = []
    slopes, tilts, excess = [], [], []
    curves, points, spreads = [], [], []
    for pair in CASES:
        gamma, gamma_star = pair
        tau = _grid(gamma_star, 1.5)
        chosen = np.searchsorted(tau, _TIMES)
        limit = population_flow.limit(gamma, gamma_star, tau)
        law = _quantities(limit, gamma_star)
        found = {}
        for d in sizes:
            problem = _orthonormal(d, gamma, gamma_star)
            run = bench.simulate(problem, tau, repeats, init="orthonormal")
            found[d] = _quantities(run, problem.teacher_rank)
        picked = {d: values[:, chosen] for d, values in found.items()}
        more, value, sem, allowance = _limit_rows(
            pair, picked, {"limit": law[chosen]}, (SIZES[-1], largest)
        )
        rows += more
        z += _z_scores(value - law[chosen], sem, repeats, allowance)
        order = _expansion(_TIMES, gamma, gamma_star)
        deviation = np.abs(picked[SIZES[-1]].mean(axis=0) - law[chosen]).max(axis=1)
        excess.append(deviation * SIZES[-1] / order / (1.0 + np.abs(law[chosen][:, 1])))
        for j in range(2):
            squares = [
                mean_and_error(((picked[d][..., j] - law[chosen, j]) ** 2).mean(axis=1))
                for d in sizes
            ]
            spreads.append((_label(pair, j), np.sqrt([square for square, _ in squares])))
            size, error = np.array(squares)[-len(fitted) :].T
            slopes.append(line_fit(np.log(fitted), 0.5 * np.log(size), 0.5 * error / size))
            tilts.append(order.max() / fitted[0] / np.log(fitted[-1] / fitted[0]))
        curves.append((pair, tau, [(law, "-")]))
        points.append((tau, found[SIZES[-1]][:REPEATS]))
    checks = [
        mean_check(
            f"slope of log rms (one run - limit) against log d, {fitted[0]}..{fitted[-1]}",
            -1.0,
            weighted_mean(slopes),
            max(tilts),  # of the next order
        ),
        z_check(f"overlap and phi extrapolated from d = {SIZES[-1]} and {largest}", z),
        Check(
            quantity=f"largest |mean - limit| at d = {SIZES[-1]}, over the order of 1/d",
            predicted=1.0,
            measured=float(np.max(excess)),
            tolerance=0.0,
            side="below",
        ),
    ]

    def overlaps(ax: Axes) -> None:
        title = f"limit (lines), d = {SIZES[-1]}, {REPEATS} repeats (points)"
        _curve_panel(ax, curves, points, 0, title, ylim=(0.3, 1.03))

    def shifts(ax: Axes) -> None:
        _curve_panel(ax, curves, points, 1, "orthonormal families")

    def sizes_panel(ax: Axes) -> None:
        for i, (label, spread) in enumerate(spreads):
            style = "o-" if i % 2 == 0 else "s--"
            ax.plot(sizes, spread, style, color=hue(i // 2), markersize=4, label=label)
        ax.plot(sizes, 4.0 / np.array(sizes), ":", color="0.3", label="slope −1")
        ylabel = "rms of one run − limit"
        finish(ax, "d", ylabel, xscale="log", yscale="log", title="convergence with d")
        ax.set_ylim(5e-4, 30.0)
        ax.legend(frameon=False, fontsize="x-small", ncols=2)
        _size_ticks(ax, sizes)

    return checks, table_of(rows), [overlaps, shifts, sizes_panel]


def _gaussian_teacher(d: int, rank: int, rng: np.random.Generator) -> FloatArray:
    """Return the eigenvalues of G G^T/d with d x m* normals, whose mean trace is m*."""
    G = rng.standard_normal((d, rank))
    return np.asarray(np.linalg.eigvalsh(G.T @ G / d), dtype=np.float64)


def _limit_gaussian(bench: _Bench) -> Outcome:
    repeats = {20: 40, 40: 40, 80: 32, 200: 10}
    repeats = {d: count * bench.more for d, count in repeats.items()}
    sizes = (80, 200)
    fewest = min(repeats[d] for d in sizes)
    bench.jobs = len(CASES) * sum(repeats.values())
    rng = bench.rng()
    rows: list[dict[str, Any]] = []
    exact, closer, shares = [], [], []
    curves, points = [], []
    for pair in CASES:
        gamma, gamma_star = pair
        tau = _grid(gamma_star, 1.0)
        chosen = np.searchsorted(tau, _TIMES)
        limit = population_flow.limit(
            gamma, gamma_star, tau, student="gaussian", teacher="gaussian"
        )
        second = spectra.marchenko_pastur(gamma_star, gamma_star).moments(2)
        law = _quantities(limit, second)
        orthonormal = _quantities(population_flow.limit(gamma, gamma_star, tau), gamma_star)
        found = {}
        for d, count in repeats.items():
            width, rank = round(gamma * d), round(gamma_star * d)
            runs = []
            for _ in range(count):
                eigenvalues = _gaussian_teacher(d, rank, rng)
                teacher = tuple(eigenvalues.tolist())
                problem = Problem(teacher_eigenvalues=teacher, dim=d, width=width)
                run = bench.simulate(problem, tau, 1, trace=float(rank), rtol=1e-8)
                runs.append(_quantities(run, float(np.sum(eigenvalues**2)))[0])
            found[d] = np.array(runs)
        laws = {"Gaussian": law[chosen], "orthonormal": orthonormal[chosen]}
        picked = {d: values[:, chosen] for d, values in found.items()}
        more, value, sem, allowance = _limit_rows(pair, picked, laws, sizes)
        rows += more
        exact += _z_scores(value - law[chosen], sem, fewest, allowance)
        distances = [np.sqrt(np.mean((value - line[chosen]) ** 2)) for line in (law, orthonormal)]
        closer.append(float(distances[0] / distances[1]))
        # How far the overlap at tau = 1 is from the orthonormal limit to the Gaussian one.
        i = int(np.searchsorted(_TIMES, 1.0))
        gap = (law - orthonormal)[chosen][i, 0]
        share = (value[i, 0] - orthonormal[chosen][i, 0]) / gap
        shares.append((share, sem[i, 0] / abs(gap), allowance[i, 0] / abs(gap)))
        curves.append((pair, tau, [(law, "-"), (orthonormal, ":")]))
        points.append((tau, found[sizes[-1]][:REPEATS]))
    verdict = mean_check(
        "(overlap - orthonormal limit)/(Gaussian - orthonormal limit), tau = 1",
        1.0,
        weighted_mean([(share, sem) for share, sem, _ in shares]),
        max(finite for *_, finite in shares),
        fewest,
    )
    checks = [
        verdict,
        Check(
            quantity="the same, tolerance: the two limits are told apart",
            predicted=0.5,
            measured=verdict.tolerance,
            tolerance=0.0,
            side="below",
        ),
        z_check("overlap and phi against the Gaussian limit", exact),
        Check(
            quantity="rms distance from the Gaussian limit / from the orthonormal one, largest",
            predicted=0.5,
            measured=max(closer),
            tolerance=0.0,
            side="below",
        ),
    ]

    def overlaps(ax: Axes) -> None:
        title = f"Gaussian families, d = {sizes[-1]}, {REPEATS} repeats (points)"
        _curve_panel(ax, curves, points, 0, title, ylim=(0.3, 1.03))

    def shifts(ax: Axes) -> None:
        title = "limits: Gaussian (lines), orthonormal (dotted)"
        _curve_panel(ax, curves, points, 1, title)

    return checks, table_of(rows), [overlaps, shifts]


# ---- rates ---------------------------------------------------------------------------------------


def _rates(bench: _Bench) -> Outcome:
    replicas = 4 * bench.more
    sizes, late = (20, 40, 100), 1e6
    exponential: dict[str, Problem] = {
        f"m = m* = {d // 2}, d = {d}": _orthonormal(d, 0.5, 0.5) for d in sizes
    }
    uneven = (2.0, 1.6, 1.0, 0.6)
    exponential |= {
        "m = m*, uneven": Problem(teacher_eigenvalues=uneven, dim=12, width=4),
        "m = m*, uneven, kappa = 0": Problem(
            teacher_eigenvalues=uneven, dim=12, width=4, trace_weight=0.0
        ),
        "m* = d < m, uneven": Problem(teacher_eigenvalues=(4.0, 3.0, 1.0), dim=3, width=5),
        "m < m*, uneven": Problem(teacher_eigenvalues=uneven, dim=8, width=2),
        "m < m*": _orthonormal(20, 0.2, 0.4),
    }
    polynomial: dict[str, tuple[Problem, str]] = {
        f"m = {d // 2}, m* = {d // 4}, d = {d}": (_orthonormal(d, 0.5, 0.25), "orthonormal")
        for d in sizes
    }
    polynomial["m = 10, uneven, d = 20"] = (
        Problem(teacher_eigenvalues=(1.0, 1.25, 1.5, 1.75, 2.0), dim=20, width=10),
        "gaussian",
    )
    # rho = 8/3: wide students, whose sizes are not too uneven for the leading order.
    slow = Problem(teacher_eigenvalues=(1.0,) * 4, dim=20, width=60)
    bench.jobs = len(exponential) + len(polynomial) + 1
    t = np.geomspace(1.0, late, 49)
    rows: list[dict[str, Any]] = []
    ratios, slopes, rates, approaches, curves = [], [], [], [], []
    for name, (problem, init) in polynomial.items():
        law = population_flow.asymptotics(problem)
        run = bench.simulate(problem, t, replicas, init=init)
        relative = run.loss * t**2 / law.constant
        ratios += relative[:, -1].tolist()
        early = int(np.argmin(np.abs(t - late / 100.0)))
        slopes += [_slope(np.log(t[early:]), np.log(loss[early:])) for loss in run.loss]
        curves.append((name, problem.dim, run.loss.mean(axis=0) * t**2 / law.constant))
        rows.append(
            {"case": name, "law": "tau^-2", "predicted": law.constant}
            | {"measured": float(relative[:, -1].mean()) * law.constant}
            | {"authors' t^2 loss": law.constant / 8.0}
        )
    decays = []
    for name, problem in exponential.items():
        law = population_flow.asymptotics(problem)
        # From e^-20 on, when the next rate has died out; down to where S has digits left: the
        # square of it if the loss vanishes, else the loss itself.
        span = (32.0, 44.0) if law.residual == 0.0 else (18.0, 24.0)
        tau = np.append(np.linspace(0.0, 17.0, 35), np.array(span)) / law.rate
        init = (
            "orthonormal" if problem.mu[0] == problem.mu[problem.teacher_rank - 1] else "gaussian"
        )
        run = bench.simulate(problem, tau, replicas, init=init)
        excess = run.loss - law.residual
        measured = [-_slope(tau[-2:], np.log(values[-2:])) for values in excess]
        rates += [rate / law.rate for rate in measured]
        rows.append(
            {"case": name, "law": "exponential", "predicted": law.rate}
            | {"measured": float(np.mean(measured)), "authors' t^2 loss": np.nan}
        )
        if name.startswith("m = m* ="):
            decays.append((name, problem.dim, tau[:-2], (excess * np.exp(law.rate * tau))[:, :-2]))
    law = population_flow.asymptotics(slow)
    rho = KAPPA * (slow.dim - slow.teacher_rank) / (1.0 + KAPPA * slow.teacher_rank)
    ends = np.array([1e8, 1e10])
    run = bench.simulate(slow, ends, replicas)
    correction = np.abs(1.0 - run.loss * ends**2 / law.constant)
    approaches = [_slope(np.log(ends), np.log(values)) for values in correction]
    rows.append(
        {"case": "m = 60, m* = 4, d = 20: its correction", "law": "power of tau"}
        | {"predicted": -2.0 / (1.0 + rho), "measured": float(np.mean(approaches))}
        | {"authors' t^2 loss": np.nan}
    )
    # Corrections are (log tau + O(log d))/tau, or tau^(-2/(1 + rho)) if that is slower: the spread
    # of the excess eigenvalues. Here rho < 1, but in the last case.
    correction_left = 10.0 * np.log(late) / late
    checks = [
        Check(
            quantity=f"tau^2 loss / constant at tau = {late:g}, worst case",
            predicted=1.0,
            measured=worst(ratios, 1.0),
            tolerance=correction_left,
        ),
        Check(
            quantity="slope of log loss against log tau, last two decades, worst case",
            predicted=-2.0,
            measured=worst(slopes, -2.0),
            tolerance=100.0 * correction_left / np.log(100.0),  # that at their beginning
        ),
        Check(
            quantity="exponential: measured rate / predicted, worst case",
            predicted=1.0,
            measured=worst(rates, 1.0),
            tolerance=1e-2,  # of the next rate
        ),
        Check(
            quantity="rho > 1: exponent of the correction to tau^-2, worst run",
            predicted=-2.0 / (1.0 + rho),
            measured=worst(approaches, -2.0 / (1.0 + rho)),
            # The next orders, tau^(-3/(1 + rho)) and log(tau)/tau, are smaller by
            # tau^(-1/(1 + rho)) times the inverse size d/tr S* of a direction at the start, and by
            # log(tau) tau^(2/(1 + rho) - 1): 0.03 and 0.004 at the first time, to factors of order
            # one.
            tolerance=0.05,
        ),
    ]

    def slow_phase(ax: Axes) -> None:
        for i, (name, _, relative) in enumerate(curves):
            ax.plot(t, relative, color=hue(i), label=name)
        ax.axhline(1.0, linestyle=":", linewidth=1, color="0.3")
        title = "m > m*: t⁻² with its constant"
        finish(ax, "τ", "τ² loss / constant", xscale="log", ylim=(0.0, 2.5), title=title)

    def fast_phase(ax: Axes) -> None:
        for i, (name, d, tau, scaled) in enumerate(decays):
            for number, line in enumerate(scaled):
                label = name if number == 0 else None
                ax.plot(tau, line / d, color=hue(i), linewidth=1, label=label)
        title = "m = m*: each run to its constant"
        finish(ax, "τ", "exp(2 τ) loss / d", yscale="log", title=title)

    return checks, table_of(rows), [slow_phase, fast_phase]


# ---- overlap -------------------------------------------------------------------------------------


def _overlap_rates(bench: _Bench) -> Outcome:
    replicas = REPEATS * bench.more
    bench.jobs = len(CASES) * len(SIZES)
    names = ("t^-2", "sqrt(t) exp(-2 (t/d)/gamma*)", "exp(-4 (t/d)/gamma*)")
    ends = (1e6, 26.0, 14.0)
    grids = [np.geomspace(0.5, ends[0], 60), np.linspace(0.5, ends[1], 52)]
    grids.append(np.linspace(0.5, ends[2], 28))
    measured: list[list[FloatArray]] = []
    limits = []
    for pair, tau in zip(CASES, grids, strict=True):
        final = min(1.0, np.sqrt(pair[0] / pair[1]))
        run = population_flow.limit(*pair, tau)
        below = pair[0] < pair[1]
        limits.append(final - _cosine(run, pair[1]) if below else _missing(run, pair[1]))
        measured.append([])
        for d in SIZES:
            problem = _orthonormal(d, *pair)
            sampled = bench.simulate(problem, tau, replicas, init="orthonormal")
            rank = float(problem.teacher_rank)
            final = np.sqrt(min(1.0, problem.width / rank))
            missing = final - _cosine(sampled, rank) if below else _missing(sampled, rank)
            measured[-1].append(missing)
    rows = [
        {
            "gamma": pair[0],
            "gamma*": pair[1],
            "law": law,
            "tau": float(tau[k]),
            "t/d": 0.5 * pair[1] * float(tau[k]),
            "d = inf": float(line[k]),
        }
        | {f"d = {d}": float(values[:, k].mean()) for d, values in zip(SIZES, found, strict=True)}
        for pair, law, tau, line, found in zip(CASES, names, grids, limits, measured, strict=True)
        for k in range(3, len(tau), 12)
    ]

    # gamma > gamma*: excess eigenvalues gamma*/(2 gamma tau) outside the teacher's span.
    gamma, gamma_star = CASES[0]
    tau = grids[0]
    constant = gamma_star * (gamma - gamma_star) / (8.0 * gamma**2)
    finite = []
    for d, values in zip(SIZES, measured[0], strict=True):
        problem = _orthonormal(d, gamma, gamma_star)
        more, rank = problem.width - problem.teacher_rank, problem.teacher_rank
        rho = KAPPA * more / (1.0 + KAPPA * rank)
        exact = more / (8.0 * rank * (1.0 + rho) ** 2)
        finite += (values[:, -1] * tau[-1] ** 2 / exact).tolist()
    late = int(np.argmin(np.abs(tau - 1e4)))
    left = 10.0 * np.log(tau) / tau  # of the corrections, with log d as well
    # gamma = gamma*: delta = ||S - S*||^2/(2 gamma* d), C sqrt(tau) e^-tau (1 + O(1/tau)).
    edge, edge_gamma = grids[1], CASES[1][0]
    scaled = limits[1] * np.exp(edge) / np.sqrt(edge)
    scaled /= np.sqrt(0.5 * edge_gamma * (1.0 - edge_gamma)) / (2.0 * edge_gamma)
    fitted = edge >= 10.0
    basis = np.stack([np.ones(fitted.sum()), np.log(edge[fitted]), 1.0 / edge[fitted]], axis=1)
    growth = np.linalg.lstsq(basis, np.log(limits[1][fitted]) + edge[fitted], rcond=None)[0]
    half = int(np.argmin(np.abs(edge - 0.5 * edge[-1])))
    amplitude, _ = extrapolated(
        (float(scaled[half]), 0.0), (float(scaled[-1]), 0.0), float(edge[-1] / edge[half])
    )
    beyond = edge >= 20.0
    discrete = [
        _slope(edge[beyond], np.log(line[beyond])) for values in measured[1] for line in values
    ]
    # gamma < gamma*: excess of the eigenvectors outside the teacher's span.
    short = grids[2]
    kept = (short >= 7.0) & (short <= 11.0)
    limit_slope = _slope(short[kept], np.log(limits[2][kept]))
    slopes = [_slope(short[kept], np.log(line[kept])) for values in measured[2] for line in values]
    last = max(float(np.abs(values[:, -1]).max()) for values in measured[2])
    checks = [
        Check(
            quantity="m > m*, limit: exponent of delta in t",
            predicted=-2.0,
            measured=_slope(np.log(tau[late:]), np.log(limits[0][late:])),
            tolerance=left[late] / np.log(tau[-1] / tau[late]),
        ),
        Check(
            quantity="m > m*, limit: delta tau^2 / constant",
            predicted=1.0,
            measured=float(limits[0][-1]) * tau[-1] ** 2 / constant,
            tolerance=left[-1],
        ),
        Check(
            quantity="m > m*, finite d: delta tau^2 / constant, worst run",
            predicted=1.0,
            measured=worst(finite, 1.0),
            tolerance=left[-1],
        ),
        Check(
            quantity="m = m*, limit: exponent of tau in delta exp(tau)",
            predicted=0.5,
            measured=float(growth[1]),
            tolerance=5.0 / edge[fitted][0] ** 2,  # the 1/tau^2 that the fit leaves out
        ),
        Check(
            quantity="m = m*, limit: delta exp(tau)/sqrt(tau) / constant, tau -> inf",
            predicted=1.0,
            measured=amplitude,
            tolerance=5.0 / (edge[half] * edge[-1]),  # of the order 1/tau^2
        ),
        Check(
            quantity="m = m*, finite d beyond log d: slope of log delta, worst run",
            predicted=-2.0,
            measured=worst(discrete, -2.0),
            tolerance=1e-3,  # of the next rate, exp(-2 tau)/cos^2 of the largest angle
        ),
        Check(
            quantity="m < m*, limit: slope of log delta against tau",
            predicted=-2.0,
            measured=limit_slope,
            tolerance=1e-3,  # of the next order, exp(-2 tau)
        ),
        Check(
            quantity="m < m*, finite d: slope of log delta, worst run",
            predicted=-2.0,
            measured=worst(slopes, -2.0),
            tolerance=1e-2,  # exp(-2 tau)/cos^2 of the largest angle
        ),
        Check(
            quantity=f"m < m*, finite d: sqrt(m/m*) - overlap at tau = {short[-1]:g}, largest",
            predicted=0.0,
            measured=last,
            tolerance=100.0 * np.exp(-2.0 * short[-1]),
            side="below",
        ),
    ]
    laws = [
        constant / grids[0] ** 2,
        limits[1] / scaled,
        limits[2][kept][0] * np.exp(-2.0 * (short - short[kept][0])),
    ]
    shown = [(0.5, 2e3), (0.5, 14.0), (0.5, 11.0)]
    titles = ("m > m*: t⁻²", "m = m*: √t exp(−2(t/d)/γ*)", "m < m*: exp(−4(t/d)/γ*)")

    def panel(index: int) -> Any:
        def draw(ax: Axes) -> None:
            unit, (start, end) = 0.5 * CASES[index][1], shown[index]
            grid = grids[index]
            seen = (grid >= start) & (grid <= end)
            for i, (d, values) in enumerate(zip(SIZES, measured[index], strict=True)):
                # Runs differ by factors at gamma = gamma*: geometric means.
                means = [mean_and_error(np.log(column)) for column in values.T[seen]]
                value, sem = np.array(means).T
                bars = np.exp(value) * np.array([1.0 - np.exp(-sem), np.expm1(sem)])
                style = {"linestyle": "-", "linewidth": 0.6, "markersize": 3, "label": f"d = {d}"}
                error_bars(ax, unit * grid[seen], np.exp(value), bars, hue(i), **style)
            ax.plot(unit * grid[seen], limits[index][seen], color="k", label="limit")
            law = laws[index][seen]
            ax.plot(unit * grid[seen], law, "--", color="0.5", label="law")
            xscale = "log" if index == 0 else "linear"
            name = f"{titles[index]}, {_ratios(*CASES[index])}"
            finish(ax, "t/d", "δ", xscale=xscale, yscale="log", title=name)

        return draw

    return checks, table_of(rows), [panel(0), panel(1), panel(2)]


# ---- the global minimum --------------------------------------------------------------------------


def _minimal(bench: _Bench) -> Outcome:
    replicas = 4 * bench.more
    d, rank, late = 100, 25, 1e3
    widths = [*range(5, 20, 5), *range(20, 31), 40, 60, 80, 100, 120]
    uneven = (3.0, 2.6, 2.2, 1.8, 1.4, 1.0)
    cases: dict[str, list[Problem]] = {
        f"orthonormal, d = {d}": [
            Problem(teacher_eigenvalues=(1.0,) * rank, dim=d, width=m) for m in widths if m <= d
        ]
    }
    for kappa in (0.5, 0.0):
        cases[f"Gaussian start, uneven teacher, d = 12, κ = {kappa:g}"] = [
            Problem(teacher_eigenvalues=uneven, dim=12, width=m, trace_weight=kappa)
            for m in (*range(1, 9), 10, 14)
        ]
    bench.jobs = sum(map(len, cases.values()))
    rows: list[dict[str, Any]] = []
    deviations, thresholds = [], []
    for name, problems in cases.items():
        solved = []
        for problem in problems:
            law = population_flow.asymptotics(problem)
            frames = name.startswith("orthonormal")
            # Gaps of 0.4 between eigenvalues leave e^-48 of the loss of narrow students.
            tau = late if problem.width >= problem.teacher_rank or frames else 60.0
            init = "orthonormal" if frames else "gaussian"
            loss = bench.simulate(problem, [tau], replicas, init=init).loss[:, 0]
            square = float(np.sum(problem.mu**2))
            deviations.append(float(np.abs(loss - law.residual).max()) / square)
            solved.append(bool((loss < 1e-6 * square).all()))
            rows.append(
                {
                    "case": name,
                    "m": problem.width,
                    "m*": problem.teacher_rank,
                    "final loss": float(loss.mean()),
                    "largest": float(loss.max()),
                    "residual": law.residual,
                }
            )
        first = solved.index(True) if any(solved) and all(solved[solved.index(True) :]) else None
        thresholds.append(
            np.nan if first is None else problems[first].width - problems[first].teacher_rank
        )
    checks = [
        Check(
            quantity="smallest m that always learns the teacher, minus m*, worst case",
            predicted=0.0,
            measured=worst(thresholds),
            tolerance=0.0,
        ),
        Check(
            quantity="largest |final loss - residual| / ||S*||^2",
            predicted=0.0,
            measured=max(deviations),
            tolerance=0.5 * d / late**2 / rank,  # (m - m*)/(4 tau^2), and as much again
            side="below",
        ),
    ]

    def final(ax: Axes) -> None:
        for i, (name, problems) in enumerate(cases.items()):
            block = [row for row in rows if row["case"] == name]
            square = float(np.sum(problems[0].mu ** 2))
            x = [row["m"] / row["m*"] for row in block]
            ax.plot(x, [row["residual"] / square for row in block], color=hue(i), linewidth=1)
            ax.plot(x, [row["final loss"] / square for row in block], "o", color=hue(i), label=name)
        ax.axvline(1.0, linestyle=":", linewidth=1, color="0.3")
        title = "residual (lines), loss at late times (points)"
        finish(ax, "m/m*", "final loss / ‖S*‖²", title=title, xlim=(0.0, 2.5), ylim=(-0.05, 3.0))

    def logarithmic(ax: Axes) -> None:
        for i, (name, problems) in enumerate(cases.items()):
            block = [row for row in rows if row["case"] == name]
            square = float(np.sum(problems[0].mu ** 2))
            values = [max(row["final loss"] / square, 1e-18) for row in block]
            ax.plot([row["m"] / row["m*"] for row in block], values, "o-", color=hue(i), label=name)
        ax.axvline(1.0, linestyle=":", linewidth=1, color="0.3")
        title = "the same (zeros at 10⁻¹⁸): 1/τ² is left above m*"
        finish(ax, "m/m*", "final loss / ‖S*‖²", legend=False, yscale="log", title=title)

    return checks, table_of(rows), [final, logarithmic]


def _dense_hessian(problem: Problem, W: FloatArray) -> FloatArray:
    """Return the Hessian of the loss at W as a symmetric matrix."""
    units = np.eye(W.size).reshape(W.size, *W.shape)
    columns = [population_flow.hessian_action(problem, W, D).ravel() for D in units]
    return np.array(columns)


def _at_critical_point(
    problem: Problem, chosen: Sequence[int], eigenvalues: FloatArray, rng: np.random.Generator
) -> FloatArray:
    """Return weights of a critical point, with their columns rotated at random."""
    W = np.zeros((problem.dim, problem.width))
    W[list(chosen), np.arange(len(chosen))] = np.sqrt(eigenvalues)
    rotation = np.linalg.qr(rng.standard_normal((problem.width, problem.width)))[0]
    return np.asarray(W @ rotation)


def _no_spurious_minima(bench: _Bench) -> Outcome:
    replicas, late = 50 * bench.more, 1e3
    cases: dict[str, Problem] = {}
    for kappa in (0.5, 0.0, 3.0):
        for m in (1, 2, 3, 4):
            cases[f"uneven, m = {m}, kappa = {kappa:g}"] = Problem(
                teacher_eigenvalues=(2.0, 1.5, 1.0), dim=5, width=m, trace_weight=kappa
            )
    for m in (1, 2, 3, 5):
        cases[f"orthonormal, m = {m}"] = Problem(teacher_eigenvalues=(1.0, 1.0), dim=4, width=m)
    cases["full rank, m = 3"] = Problem(teacher_eigenvalues=(2.0, 1.6, 1.2, 0.8), dim=4, width=3)
    bench.jobs = len(cases)
    rng = bench.rng()
    rows: list[dict[str, Any]] = []
    errors: list[float] = []
    spurious = missed = 0
    heights, curvatures, spectra_pairs = [], [], []
    descents: list[tuple[FloatArray, FloatArray]] = []
    for name, problem in cases.items():
        law = population_flow.asymptotics(problem)
        square = float(np.sum(problem.mu**2))
        saddles = minima = escaped = 0
        lowest = -np.inf
        most = min(problem.width, problem.dim)
        for count in range(most + 1):
            for chosen in itertools.combinations(range(problem.dim), count):
                left = np.delete(problem.mu, chosen)
                shift = -problem.trace_weight * left.sum() / (1.0 + problem.trace_weight * count)
                if any(problem.mu[i] <= shift for i in chosen):
                    continue  # no critical point
                point = population_flow.critical_point(problem, chosen)
                W = _at_critical_point(problem, chosen, point.eigenvalues, rng)
                numerical = np.linalg.eigvalsh(_dense_hessian(problem, W))
                closed = np.repeat(point.hessian_eigenvalues, point.hessian_multiplicities)
                errors.append(float(np.abs(numerical - closed).max()))
                errors.append(float(np.abs(population_flow.gradient(problem, W)).max()))
                spectra_pairs.append((closed, numerical))
                height, least = point.loss - law.residual, float(numerical[0])
                if height <= 1e-9 * square:
                    minima += 1
                    continue
                saddles += 1
                lowest = max(lowest, least)
                spurious += least >= -1e-6
                heights.append(height / square)
                curvatures.append(-least)
                start = W + 1e-3 * rng.standard_normal(W.shape)
                tau = np.append(np.linspace(0.0, 40.0, 41), late)
                run = population_flow.flow(problem, start, tau, rtol=1e-8)
                excess = (run.loss - law.residual) / square
                escaped += bool(excess[-1] < 1e-6)
                if name.startswith("uneven, m = 2, kappa = 0.5"):
                    descents.append((tau, excess))
        final = bench.simulate(problem, [late], replicas, rtol=1e-8).loss[:, 0]
        reached = int(((final - law.residual) / square < 1e-6).sum())
        missed += saddles - escaped + replicas - reached
        rows.append(
            {
                "case": name,
                "global minima": minima,
                "saddles": saddles,
                "lowest curvature, largest": lowest,
                "left when perturbed": escaped,
                "random starts": replicas,
                "at the minimum": reached,
            }
        )
    # Gradient descent, which knows nothing of the solution of the flow.
    problem = cases["uneven, m = 3, kappa = 0.5"]
    first = population_flow.critical_point(problem, (1, 2))
    start = _at_critical_point(problem, (1, 2), first.eigenvalues, rng)
    start = start + 1e-3 * rng.standard_normal(start.shape)
    steps = population_flow.descend(problem, start, [0, 20_000], lr=0.005)
    checks = [
        Check(
            quantity=f"saddles without a negative direction, of {len(heights)}",
            predicted=0.0,
            measured=float(spurious),
            tolerance=0.0,
        ),
        Check(
            quantity="starts, at random or near saddles, that miss the minimum",
            predicted=0.0,
            measured=float(missed),
            tolerance=0.0,
        ),
        Check(
            quantity="Hessian in closed form - numerical, and gradient: largest",
            predicted=0.0,
            measured=max(errors),
            tolerance=1e-10,  # rounding
            side="below",
        ),
        Check(
            quantity="gradient descent from a saddle: final loss",
            predicted=0.0,
            measured=float(steps.loss[-1]),
            tolerance=1e-6,
            side="below",
        ),
    ]

    def saddles_panel(ax: Axes) -> None:
        ax.plot(heights, curvatures, "o", color=hue(0), markersize=4, label="saddles")
        ylabel = "−(smallest eigenvalue of the Hessian)"
        title = f"all {len(heights)} saddles of {len(cases)} problems"
        finish(ax, "(loss − minimum)/‖S*‖²", ylabel, title=title, xscale="log", yscale="log")
        ax.minorticks_off()
        ax.set_yticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])

    def escapes(ax: Axes) -> None:
        for i, (tau, excess) in enumerate(descents):
            label = "from near each saddle" if i == 0 else None
            ax.plot(tau[:-1], excess[:-1], color=hue(0), linewidth=0.8, label=label)
        title = "μ = (2, 1.5, 1, 0, 0), m = 2"
        finish(ax, "τ", "(loss − minimum)/‖S*‖²", yscale="log", title=title, ylim=(1e-7, 3.0))

    return checks, table_of(rows), [saddles_panel, escapes]


def _underparameterised(bench: _Bench) -> Outcome:
    replicas = 4 * bench.more
    sizes, gamma_star, late = (40, 200), 0.5, 40.0
    gammas = (0.1, 0.2, 0.25, 0.3, 0.4, 0.45)
    uneven = (3.0, 2.4, 1.8, 1.2, 0.6)
    kappas = (0.0, 0.5, 2.0)
    bench.jobs = len(gammas) * len(sizes) + (len(uneven) - 1) * len(kappas)
    rows: list[dict[str, Any]] = []
    errors, shifts, tabulated = [], [], []

    def measure(name: str, problem: Problem, init: str) -> None:
        """Compare the final loss with the sum of squares and the trace term."""
        mu, m, kappa = np.sort(problem.mu)[::-1], problem.width, problem.trace_weight
        missing = float(mu[m:].sum())
        shift = -kappa * missing / (1.0 + kappa * m)
        predicted = float(np.sum(mu[m:] ** 2)) + kappa * missing**2 / (1.0 + kappa * m)
        run = bench.simulate(problem, [late], replicas, init=init)
        errors.append(worst(run.loss[:, 0], predicted) / predicted - 1.0)
        shifts.append(worst(run.shift[:, 0], shift) - shift)
        tabulated.append(population_flow.asymptotics(problem).residual / predicted - 1.0)
        rows.append(
            {
                "case": name,
                "d": problem.dim,
                "m": m,
                "kappa": kappa,
                "sum of squares": float(np.sum(mu[m:] ** 2)),
                "predicted": predicted,
                "measured": float(run.loss[:, 0].mean()),
            }
        )

    for gamma in gammas:
        for d in sizes:
            measure("orthonormal", _orthonormal(d, gamma, gamma_star), "orthonormal")
    for kappa in kappas:
        for m in range(1, len(uneven)):
            problem = Problem(teacher_eigenvalues=uneven, dim=12, width=m, trace_weight=kappa)
            measure("uneven", problem, "gaussian")
    found = np.array([population_flow.limit(gamma, gamma_star, [late]).loss[0] for gamma in gammas])
    formula = gamma_star * (gamma_star - np.array(gammas)) / np.array(gammas)
    # (m* - m)^2/(1/kappa + m) instead of (m* - m)^2/m: d times the difference, to relative 1/d.
    large = [row["measured"] for row in rows if row["case"] == "orthonormal" and row["d"] == 200]
    share = (gamma_star - np.array(gammas)) / np.array(gammas)
    corrections = 200.0 * (found - np.array(large) / 200.0) / (share**2 / KAPPA)
    above = [gamma for gamma, value in zip(gammas, found, strict=True) if value > gamma_star]
    checks = [
        Check(
            quantity="final loss / (sum of squares + trace term), worst run",
            predicted=1.0,
            measured=1.0 + worst(errors),
            tolerance=1e-9,  # exp(-2 gap tau) and rounding
        ),
        Check(
            quantity="limit: final loss / (gamma* (gamma* - gamma)/gamma), worst gamma",
            predicted=1.0,
            measured=worst(found / formula, 1.0),
            tolerance=1e-9,
        ),
        Check(
            quantity="d (limit - loss per d)/((gamma* - gamma)^2/(kappa gamma^2)), d = 200, worst",
            predicted=1.0,
            measured=worst(corrections, 1.0),
            tolerance=1.0 / (KAPPA * min(gammas) * 200.0),  # of the next order
        ),
        Check(
            quantity="final shift - predicted, worst run",
            predicted=0.0,
            measured=worst(shifts),
            tolerance=1e-9,
        ),
        Check(
            quantity="residual of `asymptotics` / the same, worst problem",
            predicted=1.0,
            measured=1.0 + worst(tabulated),
            tolerance=1e-12,
        ),
        Check(
            quantity="limit: largest gamma whose final loss exceeds that of S = 0",
            predicted=0.5 * gamma_star,  # where both are equal
            measured=max(above, default=np.nan),
            tolerance=0.0,
            side="below",
        ),
    ]

    def residuals(ax: Axes) -> None:
        grid = np.linspace(0.08, 0.6, 200)
        line = np.where(grid < gamma_star, gamma_star * (gamma_star - grid) / grid, 0.0)
        ax.plot(grid, line, color="k", label="limit: γ*(γ* − γ)/γ")
        for i, d in enumerate(sizes):
            block = [row for row in rows if row["case"] == "orthonormal" and row["d"] == d]
            x = [row["m"] / d for row in block]
            y = [row["measured"] / d for row in block]
            ax.plot(x, y, "o", color=hue(i), markersize=4, label=f"d = {d}")
        ax.axhline(gamma_star, linestyle=":", color="0.3", label="S = 0, without the trace term")
        title = f"orthonormal families, γ* = {gamma_star:g}"
        finish(ax, "γ = m/d", "final loss / d", title=title)

    def spectra_panel(ax: Axes) -> None:
        for i, kappa in enumerate(kappas):
            block = [row for row in rows if row["case"] == "uneven" and row["kappa"] == kappa]
            m = [row["m"] for row in block]
            label = f"κ = {kappa:g}"
            ax.plot(m, [row["predicted"] for row in block], color=hue(i), label=label)
            ax.plot(m, [row["measured"] for row in block], "o", color=hue(i), markersize=4)
        title = "μ = (3, 2.4, 1.8, 1.2, 0.6): formula (lines)"
        finish(ax, "m", "final loss", title=title, yscale="log", xticks=m_ticks)

    m_ticks = list(range(1, len(uneven)))
    return checks, table_of(rows), [residuals, spectra_panel]


# ---- samples -------------------------------------------------------------------------------------


def _half_point(samples: ArrayLike, unique: FloatArray) -> tuple[float, float]:
    """Return where half of the draws are unique, and its standard error.

    `unique` is (numbers of samples, draws), zero at the first number and one at the last. The sum
    of the fractions (Spearman and Karber) needs no model of how they rise.
    """
    numbers = np.asarray(samples, dtype=np.float64)
    step = float(numbers[1] - numbers[0])
    fractions, draws = unique.mean(axis=1), unique.shape[1]
    centre = float(numbers[-1]) + 0.5 * step - step * float(fractions.sum())
    variance = float(np.sum(fractions * (1.0 - fractions))) / (draws - 1)
    return centre, step * variance**0.5


def _sample_complexity(bench: _Bench) -> Outcome:
    draws = 12 if bench.more == 1 else 24
    pairs = [(12, 4), (16, 3), (20, 5)]
    if bench.more > 1:
        # At m* = 1 both formulas agree for such d: 39 and 39.1 samples at d = 20.
        pairs = [(12, 3), *pairs, (20, 2)]
    rng = bench.rng()
    rows: list[dict[str, Any]] = []
    z, undecided = [], []
    curves = []
    # The conic count is that of the mean dimension of the cone, for Gaussian features: that the
    # median of an integer, or features x x^T, may shift the count by one each.
    finite = 2.0
    for d, rank in pairs:
        counts = population_flow.recovery_samples(d, rank, seed=bench.seeds(1)[0])
        # The rise takes about sqrt(d) to either side.
        low = min(counts.count, counts.conic) - 2.5 * np.sqrt(d)
        high = max(counts.count, counts.conic) + 3.0 * np.sqrt(d)
        samples = np.arange(int(low), int(high) + 1, 2)
        outcome = np.array(
            [
                [
                    population_flow.is_unique(rng.standard_normal((n, d)), rank).unique
                    for _ in range(draws)
                ]
                for n in samples
            ]
        )
        undecided.append(float(np.isnan(outcome).mean()))
        unique = np.where(np.isnan(outcome), 0.5, outcome)
        centre, sem = _half_point(samples, unique)
        error = float(np.hypot(sem, counts.conic_sem))
        z.append(z_score(centre - counts.conic, error, draws, finite))
        curves.append((d, rank, samples, unique, counts))
        rows.append(
            {
                "d": d,
                "m*": rank,
                "degrees of freedom": counts.degrees_of_freedom,
                "counting": counts.count,
                "conic": counts.conic,
                "measured": centre,
                "sem": error,
                "undecided": undecided[-1],
            }
        )
    last = next(row for row in rows if (row["d"], row["m*"]) == (20, 5))
    wide = [row for row in rows if row["m*"] > 1]
    conic, counting = (
        np.sqrt(np.mean([(row["measured"] - row[name]) ** 2 for row in wide]))
        for name in ("conic", "counting")
    )
    ends = [(unique[0].mean(), unique[-1].mean()) for _, _, _, unique, _ in curves]
    checks = [
        mean_check(
            "samples at which half of the draws are unique, d = 20, m* = 5",
            last["conic"],
            (last["measured"], last["sem"]),
            finite,
            draws,
        ),
        z_check("all pairs against the conic count", z),
        Check(
            quantity="m* > 1: rms distance from the conic count / from the counting formula",
            predicted=0.5,
            measured=float(conic / counting),
            tolerance=0.0,
            side="below",
        ),
        Check(
            quantity="fraction of draws left undecided, largest",
            predicted=0.0,
            measured=max(undecided),
            tolerance=0.1,
            side="below",
        ),
        Check(
            quantity="fraction unique with the fewest samples, or not with the most, largest",
            predicted=0.0,
            measured=max(max(first, 1.0 - final) for first, final in ends),
            tolerance=0.3,
            side="below",
        ),
    ]

    def rises(ax: Axes) -> None:
        for i, (d, rank, samples, unique, counts) in enumerate(curves):
            fraction = unique.mean(axis=1)
            sem = np.sqrt(fraction * (1.0 - fraction) / (draws - 1))
            x = samples / counts.conic
            label = f"d = {d}, m* = {rank}"
            error_bars(ax, x, fraction, sem, hue(i), linestyle="-", linewidth=0.8, label=label)
            ax.plot(counts.count / counts.conic, 0.02, "v", color=hue(i), markersize=7)
        ax.axvline(1.0, linestyle=":", linewidth=1, color="0.3")
        title = "triangles: counting formula"
        finish(ax, "n / conic count", "fraction unique", title=title)

    def centres(ax: Axes) -> None:
        x = np.arange(len(rows))
        for i, name in enumerate(("conic", "counting")):
            value = [row["measured"] - row[name] for row in rows]
            sem = [row["sem"] for row in rows]
            error_bars(ax, x + 0.1 * (i - 0.5), value, sem, hue(i), label=f"measured − {name}")
        ax.axhline(0.0, linestyle=":", linewidth=1, color="0.3")
        ax.set_xticks(x, [f"({row['d']}, {row['m*']})" for row in rows])
        finish(
            ax, "(d, m*)", "samples at one half − formula", title="distance from the two formulas"
        )

    return checks, table_of(rows), [rises, centres]


CLAIMS = [
    Claim(
        id="population_flow/angles",
        statement="The principal angles between two random subspaces of dimension gamma d and "
        "gamma* d follow the Jacobi law: the distance of their distribution function decreases as "
        "log(d)/d.",
        source=_source(" figure 1", "4.1"),
        function=_Bench.claim(_angles),
    ),
    Claim(
        id="population_flow/limit-orthonormal",
        statement="Overlap and phi of orthonormal families follow the high-dimensional limit, "
        "which two scalar equations give: a run deviates by O(1/d).",
        source=_source(" figure 2", "4.1"),
        function=_Bench.claim(_limit_orthonormal),
    ),
    Claim(
        id="population_flow/limit-gaussian",
        statement="Gaussian families follow their own high-dimensional limit, from the free "
        "log-determinant, and not that of orthonormal families, which the paper's figure shows "
        "beside them.",
        source=_source(" figure 4", "4.3"),
        function=_Bench.claim(_limit_gaussian),
    ),
    Claim(
        id="population_flow/rates",
        statement="With more units than the teacher the loss ends as constant/tau^2, with a "
        "constant that depends on widths only and a correction of order log(tau)/tau, or "
        "tau^(-2/(1 + rho)) if that is slower; otherwise it ends exponentially, at the predicted "
        "rate.",
        source=_source(" figure 5", "3.4"),
        function=_Bench.claim(_rates),
    ),
    Claim(
        id="population_flow/overlap-rates",
        statement="The normalised overlap approaches min(1, sqrt(gamma/gamma*)) as t^-2 for "
        "gamma > gamma*, as sqrt(t) exp(-2 (t/d)/gamma*) at gamma = gamma*, and as "
        "exp(-4 (t/d)/gamma*) for gamma < gamma*; at finite d the second law turns into the third "
        "after a time of order log d.",
        source=_source(" figure 6", "3.4", "4.2"),
        function=_Bench.claim(_overlap_rates),
    ),
    Claim(
        id="population_flow/minimal-overparameterisation",
        statement="Gradient flow learns the teacher from random starts if and only if m >= m*: "
        "the threshold is exactly at m = m*.",
        source=_source("", "3.3", "4.2"),
        function=_Bench.claim(_minimal),
    ),
    Claim(
        id="population_flow/no-spurious-minima",
        statement="Every critical point that is not a global minimum has a direction of negative "
        "curvature, for any widths, and random starts reach the global minimum.",
        source=_source("", "3.1", "3.2", "3.3"),
        function=_Bench.claim(_no_spurious_minima),
    ),
    Claim(
        id="population_flow/underparameterised",
        statement="With m < m* the loss ends at sum_(i>m) mu_i^2 + kappa R^2/(1 + kappa m), "
        "R = sum_(i>m) mu_i: per dimension gamma* (gamma* - gamma)/gamma in the limit, which for "
        "gamma < gamma*/2 exceeds that of S = 0.",
        source=_source("", "3.3", "4.2"),
        function=_Bench.claim(_underparameterised),
    ),
    Claim(
        id="population_flow/sample-complexity",
        statement="Half of all draws of n samples make the teacher the only interpolant at the "
        "conic count, not at the count d(m* + 1) - m*(m* + 1)/2 of degrees of freedom.",
        source=_source("", "5"),
        function=_Bench.claim(_sample_complexity),
    ),
]
