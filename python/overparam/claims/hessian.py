"""The claims about Hessian spectra of quadratic networks, of two papers.

The networks are those of arXiv 2604.03068 and, for the saddles, of arXiv 2311.03794; the spectra
are derived in ``docs/papers/sgd.md`` section 7 and ``docs/papers/population_flow.md`` section 3.
Unless a claim says otherwise the second layers are a = 1/p and 1/p*, and the Hessian is N times the
second derivative of the risk.

Pass rules. Statements about exact spectra allow 1e-9 of the largest eigenvalue for rounding, and
counts must agree exactly. A statistical check allows `error_limit` standard errors: the two-sided
Gaussian or Student bound that chance exceeds once in 10^4 runs of the check, Bonferroni-corrected
where it is the largest of several. What is added for finite size is the order of the first term
that the theory leaves out, and is stated beside the check.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from overparam import hessian, population_flow, sgd
from overparam.claims import Check, Claim
from overparam.claims._shared import (
    Bench,
    error_bars,
    extrapolated,
    finish,
    hue,
    mean_and_error,
    mean_check,
    table_of,
    worst,
    z_check,
    z_score,
)
from overparam.results import FloatArray, Spectrum
from overparam.sgd import Overlaps, Problem

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from overparam.claims._shared import Outcome

ROUNDING = 1e-9  # of the largest eigenvalue, allowed to exact spectra
# A few copies of an eigenvalue in the tables: value and how often.
Levels = list[tuple[float, int]]


# ---- shared --------------------------------------------------------------------------------------


def _source(*pages: str) -> str:
    return f"arXiv 2604.03068; {'; '.join(pages)}"


_PAGE = "docs/papers/sgd.md section"


def _orthogonal(rng: np.random.Generator, rows: int, columns: int) -> FloatArray:
    """Return a random matrix with orthonormal columns."""
    return np.asarray(np.linalg.qr(rng.standard_normal((rows, columns)))[0])


def _weights(overlaps: Overlaps, dim: int, rng: np.random.Generator) -> tuple[FloatArray, ...]:
    """Return W and W* with exactly these overlaps, in random directions."""
    Q, M, P = overlaps.Q, overlaps.M, overlaps.P
    values, vectors = np.linalg.eigh(np.block([[Q, M], [M.T, P]]))
    frame = _orthogonal(rng, dim, len(values)).T
    values = np.where(values > 1e-12 * values[-1], values, 0.0)  # singular on the manifold
    rows = np.sqrt(dim) * (vectors * np.sqrt(values)) @ frame
    return rows[: len(Q)], rows[len(Q) :]


def _plateau(problem: Problem, P: FloatArray) -> tuple[Overlaps, float]:
    """Return the plateau of gradient flow and its scale s = a q."""
    scale = sgd.plateau(problem.replace(lr=0.0), P).scale
    p, p_star = problem.width, problem.teacher_width
    Q = scale / problem.a[0] * np.eye(p)
    return Overlaps(Q=Q, M=np.zeros((p, p_star)), P=P), scale


def _solution(problem: Problem, P: FloatArray, rng: np.random.Generator) -> Overlaps:
    """Return a random point of the zero-loss manifold."""
    ratio = problem.a_star[0] / problem.a[0]
    frame = _orthogonal(rng, problem.width, problem.teacher_width)
    return Overlaps(Q=ratio * frame @ P @ frame.T, M=np.sqrt(ratio) * frame @ P, P=P)


def _expand(levels: Levels) -> FloatArray:
    """Return the eigenvalues of levels one by one, ascending."""
    values, counts = zip(*levels, strict=True)
    return np.sort(np.repeat(values, counts))


def _gap(spectrum: Spectrum, levels: Levels) -> float:
    """Return the largest deviation of a spectrum from levels, relative to the largest eigenvalue.

    NaN where their numbers of eigenvalues differ. Both are step functions of the rank of an
    eigenvalue, so that their size does not matter.
    """
    assert spectrum.eigenvalues is not None
    assert spectrum.multiplicities is not None
    levels = [(value, count) for value, count in levels if count]
    order = np.argsort([value for value, _ in levels])
    values = np.array([levels[i][0] for i in order])
    ends = np.cumsum([levels[i][1] for i in order])
    own = np.cumsum(spectrum.multiplicities)
    if own[-1] != ends[-1]:
        return np.nan
    ranks = np.union1d(own, ends) - 1
    ours = spectrum.eigenvalues[np.searchsorted(own, ranks, side="right")]
    theirs = values[np.searchsorted(ends, ranks, side="right")]
    return float(np.abs(ours - theirs).max() / np.abs(values).max())


def _dense(problem: Problem, W: FloatArray, W_star: FloatArray) -> FloatArray:
    """Return all eigenvalues of the Hessian, from its products with unit vectors."""
    operator = hessian.population_operator(problem, W, W_star)
    return np.asarray(np.linalg.eigvalsh(operator @ np.eye(W.size)))


def _second_difference(
    problem: Problem, W: FloatArray, W_star: FloatArray, V: FloatArray, step: float
) -> float:
    """Return N V.(d^2 R)V from values of the risk, up to terms of the fourth order in the step.

    The risk is of fourth order in W, so that differences at two steps leave rounding only.
    """

    def risk(h: float) -> float:
        return sgd.risk(problem, Overlaps.from_weights(W + h * V, W_star))

    def difference(h: float) -> float:
        return (risk(h) - 2.0 * risk(0.0) + risk(-h)) / h**2

    return float(W.shape[1] * (4.0 * difference(step) - difference(2.0 * step)) / 3.0)


def _name(problem: Problem, dim: int) -> str:
    return f"p = {problem.width}, p* = {problem.teacher_width}, N = {dim}"


def _stairs(ax: Axes, values: FloatArray, colour: str, **style: Any) -> None:
    """Draw eigenvalues over their rank."""
    ax.plot(np.arange(1, len(values) + 1), values, color=colour, **style)


# ---- the plateau ---------------------------------------------------------------------------------


def _plateau_levels(problem: Problem, sigma: FloatArray, scale: float, dim: int) -> Levels:
    a, p, p_star = float(problem.a[0]), problem.width, problem.teacher_width
    return [
        *((-4.0 * a * float(s), p) for s in sigma),
        (0.0, p * (dim - p - p_star) + p * (p - 1) // 2),
        (8.0 * a * scale, p * (p + 1) // 2 - 1),
        (4.0 * a * scale * (p + 2), 1),
    ]


def _spread2(problem: Problem, scale: float, risk: float, sigma: FloatArray) -> float:
    """Return E[tr T^2]/p of the matrices T of one sample, on the plateau.

    n/N times the variance of the eigenvalues that a sample adds to the bulk at zero.
    """
    a, p = float(problem.a[0]), problem.width
    tau = float(sigma.sum()) - p * scale
    fourth = 16.0 * a**2 * scale**2 * p * (p + 2)
    cross = 16.0 * a**2 * scale * p * (tau - 2.0 * scale)
    return (fourth - cross + 8.0 * a**2 * p * risk) / p


def _negative_at_plateau(bench: Bench) -> Outcome:
    bench.jobs = 1
    rng = bench.rng()
    cases = [
        (2, np.diag([1.0])),
        (3, np.diag([1.0, 1.0])),
        (3, np.diag([1.6, 0.4])),
        (6, np.diag([2.0, 1.2, 0.7])),
    ]
    rows: list[dict[str, Any]] = []
    gaps: list[float] = []
    negative: list[int] = []
    slopes: list[float] = []
    stairs: list[tuple[str, FloatArray, FloatArray]] = []
    for p, P in cases:
        problem = Problem(width=p, teacher_width=len(P), lr=0.1)
        sigma = np.sort(np.diag(P))[::-1] * problem.a_star[0]
        state, scale = _plateau(problem, P)
        a = float(problem.a[0])
        for dim in (p + len(P), 24, 10**6):
            levels = _plateau_levels(problem, sigma, scale, dim)
            found = hessian.population(problem.replace(dim=dim), state)
            assert found.eigenvalues is not None
            size = max(abs(value) for value, _ in levels)
            count = int(found.count_below(-ROUNDING * size))
            gaps.append(_gap(found, levels))
            negative.append(count - p * len(P))
            rows.append(
                {
                    "case": _name(problem, dim),
                    "teacher": ", ".join(f"{value:g}" for value in np.diag(P)),
                    "lowest": float(found.eigenvalues[0]),
                    "-4 a sigma": -4.0 * a * float(sigma[0]),
                    "negative": count,
                    "p p*": p * len(P),
                }
            )
        W, W_star = _weights(state, 24, rng)
        numerical, closed = (
            _dense(problem, W, W_star),
            _expand(_plateau_levels(problem, sigma, scale, 24)),
        )
        gaps.append(float(np.abs(numerical - closed).max() / np.abs(closed).max()))
        stairs.append((_name(problem, 24), closed, numerical))
        # The risk itself, along unit k and teacher direction j.
        for j in range(len(P)):
            V = np.zeros_like(W)
            V[rng.integers(p)] = W_star[j] / np.linalg.norm(W_star[j])
            curvature = _second_difference(problem, W, W_star, V, 0.05)
            slopes.append(curvature / (-4.0 * a * P[j, j] * problem.a_star[0]) - 1.0)
    # Samples: the p p* lowest eigenvalues, their mean extrapolated in N/n.
    problem = Problem(width=2, teacher_width=1, lr=0.1)
    state, scale = _plateau(problem, np.eye(1))
    sigma = np.array([1.0])
    predicted, dim, replicas = -4.0 * float(problem.a[0]), 60, 16 * bench.more
    risk = sgd.risk(problem, state)
    ratios = (100, 200)
    job = bench.job()
    seeds = job["seed"].spawn(replicas * len(ratios) + 1)
    found_at: list[tuple[float, float]] = []
    lowest: dict[int, FloatArray] = {}
    for i, ratio in enumerate(ratios):
        values = []
        for r in range(replicas):
            W, W_star = _weights(state, dim, rng)
            samples = hessian.Samples(
                count=ratio * dim, W_star=W_star, seed=seeds[i * replicas + r]
            )
            operator = hessian.empirical(problem, W, samples, threads=job["threads"])
            pairs = hessian.extremes(operator, k=3, which="smallest")
            values.append(pairs.eigenvalues)
        lowest[ratio] = np.array(values)
        found_at.append(mean_and_error(lowest[ratio][:, :2].mean(axis=1)))
    # Repulsion by the bulk, whose variance is (N/n) E[tr T^2]/p, is of first order in N/n; the
    # first term left out is of second order.
    shifts = [_spread2(problem, scale, risk, sigma) / predicted**2 / ratio for ratio in ratios]
    allowed = abs(predicted) * shifts[0] * shifts[1]
    target = extrapolated(found_at[0], found_at[1], 2.0)
    # The number of negative directions from a density, below half of their eigenvalue.
    dim, ratio, probes = 200, 200, 64
    W, W_star = _weights(state, dim, rng)
    samples = hessian.Samples(count=ratio * dim, W_star=W_star, seed=seeds[-1])
    operator = hessian.empirical(problem, W, samples, threads=job["threads"])
    density = hessian.density(
        operator, probes=probes, steps=24, seed=bench.seeds(1)[0], progress=job["progress"]
    )
    below = float(density.count_below(0.5 * predicted))
    # Of probes of uniform directions, exactly; the estimate from so few events is worse.
    sem = float(np.sqrt(2.0 * 2.0 * (W.size - 2.0) / (W.size + 2.0) / probes))
    checks = [
        Check(
            quantity="eigenvalues against the table, relative to the largest",
            predicted=0.0,
            measured=worst(gaps),
            tolerance=ROUNDING,
        ),
        Check(
            quantity="number of negative eigenvalues - p p*",
            predicted=0.0,
            measured=worst(np.array(negative, dtype=np.float64)),
            tolerance=0.0,
        ),
        Check(
            quantity="curvature of the risk along teacher directions / (-4 a sigma) - 1",
            predicted=0.0,
            measured=worst(slopes),
            tolerance=1e-6,  # rounding of second differences at a step of 0.05
        ),
        mean_check(
            f"samples, n = {ratios[0]} N and {ratios[1]} N: lowest p p* eigenvalues at n -> inf",
            predicted,
            target,
            allowed,
            replicas,
        ),
        mean_check(
            f"samples, n = {ratio} N: number below -2 a sigma, from a density",
            2.0,
            (below, sem),
        ),
    ]

    def draw_stairs(ax: Axes) -> None:
        for i, (name, closed, numerical) in enumerate(stairs):
            _stairs(ax, numerical, hue(i), linestyle="", marker="o", markersize=3, alpha=0.5)
            _stairs(ax, closed, hue(i), linewidth=1.0, label=name)
        title = "on the plateau: table and dense Hessian"
        finish(ax, "rank of the eigenvalue", "eigenvalue", title=title)

    def draw_samples(ax: Axes) -> None:
        for i, name in enumerate(("lowest", "second", "third, of the bulk")):
            measured = np.array([mean_and_error(lowest[ratio][:, i]) for ratio in ratios])
            error_bars(
                ax, 1.0 / np.array(ratios), measured[:, 0], measured[:, 1], hue(i), label=name
            )
        ax.plot(
            [0.0, 1.0 / ratios[0]],
            [predicted] * 2,
            "k--",
            linewidth=0.8,
            label="-4 a σ, p p* = 2 times",
        )
        error_bars(ax, [0.0], [target[0]], [target[1]], "k", marker="s", label="extrapolated mean")
        finish(ax, "N/n", "eigenvalue", title="on samples, p = 2, p* = 1")

    return checks, table_of(rows), [draw_stairs, draw_samples]


# ---- the zero-loss manifold ----------------------------------------------------------------------


def _manifold_levels(problem: Problem, sigma: FloatArray, dim: int) -> Levels:
    a, p, p_star = float(problem.a[0]), problem.width, problem.teacher_width
    root = np.sqrt(sigma)
    radial = np.linalg.eigvalsh(4.0 * a * (2.0 * np.diag(sigma) + np.outer(root, root)))
    return [
        *((4.0 * a * float(s), dim - p_star) for s in sigma),
        *((4.0 * a * float(s + t), 1) for s, t in itertools.combinations(sigma, 2)),
        *((float(value), 1) for value in radial),
        (0.0, p_star * (p_star - 1) // 2 + (p - p_star) * dim),
    ]


def _tangent_dimension(W: FloatArray) -> int:
    """Return the dimension of the orbit of W under rotations of its units: rank of its tangents."""
    p = len(W)
    tangents = []
    for k, m in itertools.combinations(range(p), 2):
        V = np.zeros_like(W)
        V[k], V[m] = W[m], -W[k]
        tangents.append(V.ravel())
    return int(np.linalg.matrix_rank(np.array(tangents))) if tangents else 0


def _zero_modes_on_manifold(bench: Bench) -> Outcome:
    bench.jobs = 1
    rng, dim = bench.rng(), 20
    cases = [
        (p, np.diag(P))
        for P in ([1.0], [1.0, 1.0], [1.6, 0.4], [1.5, 1.0, 0.5])
        for p in range(len(P), len(P) + 3)
    ]
    rows: list[dict[str, Any]] = []
    gaps: list[float] = []
    lowest: list[float] = []
    excess: list[int] = []
    quartic: list[float] = []
    stairs: list[tuple[str, FloatArray, FloatArray]] = []
    curves: list[tuple[str, FloatArray, FloatArray]] = []
    for p, P in cases:
        p_star = len(P)
        problem = Problem(width=p, teacher_width=p_star, lr=0.1)
        sigma = np.diag(P) * problem.a_star[0]
        state = _solution(problem, P, rng)
        W, W_star = _weights(state, dim, rng)
        levels = _manifold_levels(problem, sigma, dim)
        exact = hessian.population(problem.replace(dim=dim), state)
        numerical, closed = _dense(problem, W, W_star), _expand(levels)
        size = float(closed[-1])
        huge = hessian.population(problem.replace(dim=10**6), state)
        gaps += [
            _gap(exact, levels),
            _gap(huge, _manifold_levels(problem, sigma, 10**6)),
            float(np.abs(numerical - closed).max() / size),
        ]
        assert exact.eigenvalues is not None
        lowest += [float(exact.eigenvalues[0]) / size, float(numerical[0]) / size]
        zero = int((np.abs(numerical) <= ROUNDING * size).sum())
        flat = _tangent_dimension(W)
        excess.append(zero - flat - (p - p_star) * (dim - p_star))
        rows.append(
            {
                "case": _name(problem, dim),
                "teacher": ", ".join(f"{value:g}" for value in np.diag(P)),
                "lowest": float(numerical[0]),
                "zero modes": zero,
                "manifold": flat,
                "(p - p*)(N - p*)": (p - p_star) * (dim - p_star),
            }
        )
        if p - p_star != 1:
            continue
        stairs.append((_name(problem, dim), closed, numerical))
        # A surplus direction: units turned out of the solution, inputs out of the teacher.
        units = np.linalg.svd(state.M)[0][:, p_star]
        inputs = np.linalg.svd(W_star)[2][-1]
        V = np.outer(units, inputs) * np.sqrt(dim)
        steps = np.geomspace(0.01, 1.0, 9)
        risks = [sgd.risk(problem, Overlaps.from_weights(W + step * V, W_star)) for step in steps]
        curves.append((_name(problem, dim), steps, np.array(risks)))
        quartic.append(float(np.log(risks[-1] / risks[4]) / np.log(steps[-1] / steps[4])) - 4.0)
    # Samples, as many as parameters: a sum of squares where the error vanishes, at any n.
    problem, job = Problem(width=3, teacher_width=1, lr=0.1), bench.job()
    W, W_star = _weights(_solution(problem, np.eye(1), rng), 40, rng)
    samples = hessian.Samples(count=120, W_star=W_star, seed=job["seed"])
    operator = hessian.empirical(problem, W, samples, threads=job["threads"])
    pairs = hessian.extremes(operator, k=1)
    on_samples = float(pairs.eigenvalues[0] / pairs.eigenvalues[-1])
    checks = [
        Check(
            quantity="zero modes - dimension of the manifold - (p - p*)(N - p*)",
            predicted=0.0,
            measured=worst(np.array(excess, dtype=np.float64)),
            tolerance=0.0,
        ),
        Check(
            quantity="lowest eigenvalue / largest",
            predicted=0.0,
            measured=min(lowest),
            tolerance=ROUNDING,
            side="above",
        ),
        Check(
            quantity="eigenvalues against the table, relative to the largest",
            predicted=0.0,
            measured=worst(gaps),
            tolerance=ROUNDING,
        ),
        Check(
            quantity="exponent of the risk along a surplus direction - 4",
            predicted=0.0,
            measured=worst(quartic),
            tolerance=1e-6,  # rounding of risks of 1e-4
        ),
        Check(
            quantity="samples: lowest eigenvalue / largest",
            predicted=0.0,
            measured=on_samples,
            tolerance=ROUNDING,
            side="above",
        ),
    ]

    def draw_stairs(ax: Axes) -> None:
        for i, (name, closed, numerical) in enumerate(stairs):
            _stairs(ax, numerical, hue(i), linestyle="", marker="o", markersize=3, alpha=0.5)
            _stairs(ax, closed, hue(i), linewidth=1.0, label=name)
        finish(ax, "rank of the eigenvalue", "eigenvalue", title="at zero loss: table and dense")

    def draw_counts(ax: Axes) -> None:
        predicted = np.array([row["(p - p*)(N - p*)"] for row in rows])
        measured = np.array([row["zero modes"] - row["manifold"] for row in rows])
        ax.plot([0, predicted.max()], [0, predicted.max()], color="k", linewidth=0.8)
        ax.plot(predicted, measured, "o", color=hue(0))
        finish(
            ax,
            "(p - p*)(N - p*)",
            "zero modes - dimension of the manifold",
            legend=False,
            title="surplus zero modes",
        )

    def draw_quartic(ax: Axes) -> None:
        for i, (name, steps, risks) in enumerate(curves):
            ax.plot(steps, risks, "o-", color=hue(i), markersize=3, label=name)
        ax.plot(steps, risks[-1] * steps**4, "k--", linewidth=0.8, label="fourth power")
        finish(
            ax, "distance", "risk", xscale="log", yscale="log", title="along a surplus direction"
        )

    return checks, table_of(rows), [draw_stairs, draw_counts, draw_quartic]


# ---- from plateau to solution --------------------------------------------------------------------


def _half_time(t: FloatArray, values: FloatArray, half: float) -> float:
    """Return the last time at which falling values cross a level, by linear interpolation."""
    last = int(np.nonzero(values >= half)[0][-1])
    share = (values[last] - half) / (values[last] - values[last + 1])
    return float(t[last] + share * (t[last + 1] - t[last]))


def _lowest_along(
    problem: Problem, M: FloatArray, Q: FloatArray, P: FloatArray, bound: float
) -> FloatArray:
    """Return lowest eigenvalue, mean of the p p* lowest, and number below a bound, in three rows.

    For a stack of overlaps.
    """
    found_at = []
    wanted = problem.width * problem.teacher_width
    for one, own in zip(M, Q, strict=True):
        found = hessian.population(problem, Overlaps(Q=own, M=one, P=P))
        assert found.eigenvalues is not None
        assert found.multiplicities is not None
        copies = np.minimum(found.multiplicities, wanted)
        few = np.repeat(found.eigenvalues, copies)[:wanted]
        found_at.append((few[0], few.mean(), found.count_below(bound)))
    return np.array(found_at, dtype=np.float64).T


def _along_path(bench: Bench) -> Outcome:
    p, p_star, eta, dim, replicas = 4, 2, 0.1, 50_000, 16 * bench.more
    P = np.eye(p_star)
    problem = Problem(width=p, teacher_width=p_star, lr=eta * p, dim=dim)
    sigma, a = 1.0 / p_star, 1.0 / p
    state, _ = _plateau(problem, P)
    level = -4.0 * a * sigma
    rate = 4.0 * eta * sigma  # of gradient flow, in t
    frame = _orthogonal(bench.rng(), p, p_star)

    def from_plateau(overlap: float) -> Overlaps:
        M = overlap * frame
        return Overlaps(Q=state.Q + M @ M.T, M=M, P=P)

    t = np.linspace(0.0, 100.0, 101)
    flow = sgd.ode(problem, from_plateau(1e-4), t, noise=False)
    lowest, _, negative = _lowest_along(problem, flow.M, flow.Q, P, 0.5 * level)
    plateau_risk = sgd.risk(problem, state)
    waiting = int(np.nonzero(np.abs(flow.risk / plateau_risk - 1.0) < 1e-4)[0][-1])
    size = np.linalg.norm(flow.M, axis=(1, 2))
    growth = float(np.log(size[waiting] / size[0]) / t[waiting])
    waited = float(np.trapezoid(lowest[: waiting + 1], t[: waiting + 1]) / t[waiting])
    drop = _half_time(t, flow.risk / plateau_risk, 0.5)
    vanishing = _half_time(t, lowest / level, 0.5)
    # SGD from an overlap that is far above the noise of its start, 1/sqrt(N).
    overlap, few = 0.03, np.linspace(0.0, 40.0, 21)
    theory = sgd.ode(problem, from_plateau(overlap), few)
    _, with_noise, _ = _lowest_along(problem, theory.M, theory.Q, P, 0.5 * level)
    bench.jobs = 1
    run = sgd.simulate(problem, from_plateau(overlap), few, replicas=replicas, **bench.job())
    sampled = np.array(
        [_lowest_along(problem, run.M[r], run.Q[r], P, 0.5 * level)[1] for r in range(replicas)]
    )
    means = np.array([mean_and_error(column) for column in sampled.T[1:]])
    # Noise adds of the order of 1/N to the square of the overlap, which then grows with it.
    finite = abs(level) / (dim * overlap**2)
    scores = [
        z_score(value - law, sem, replicas, finite)
        for (value, sem), law in zip(means, with_noise[1:], strict=True)
    ]
    checks = [
        Check(
            quantity="growth rate of M on the plateau / (-lr * lowest eigenvalue)",
            predicted=1.0,
            measured=growth / (-problem.lr * waited),
            tolerance=1e-3,  # ten times the change of the risk while the rate is measured
        ),
        Check(
            quantity="lowest eigenvalue on the plateau / (-4 a sigma)",
            predicted=1.0,
            measured=waited / level,
            tolerance=1e-3,
        ),
        Check(
            quantity="eigenvalues below -2 a sigma on the plateau - p p*",
            predicted=0.0,
            measured=worst(negative[: waiting + 1] - p * p_star),
            tolerance=0.0,
        ),
        Check(
            quantity="lowest eigenvalue at the end / (-4 a sigma)",
            predicted=0.0,
            measured=float(lowest[-1] / level),
            tolerance=0.02,
            side="below",
        ),
        Check(
            quantity="half of the eigenvalue after half of the risk, in e-folding times",
            predicted=0.0,
            measured=rate * (vanishing - drop),
            tolerance=1.0,  # the duration of the escape itself
        ),
        z_check(f"SGD at N = {dim}, {replicas} runs, against the overlap equations", scores),
    ]
    rows = [
        {
            "t": float(time),
            "risk": float(theory.risk[i]),
            "lowest, overlap equations": float(with_noise[i]),
            "lowest, SGD": float(sampled[:, i].mean()),
            "standard error": mean_and_error(sampled[:, i])[1],
        }
        for i, time in enumerate(few)
    ]

    def draw_flow(ax: Axes) -> None:
        ax.plot(t, flow.risk / plateau_risk, color="k", label="risk / plateau")
        ax.plot(t, lowest / level, color=hue(0), label="lowest eigenvalue / (-4 a σ)")
        ax.plot(t, negative / (p * p_star), "--", color=hue(2), label="number below -2 a σ / p p*")
        finish(ax, "t", "ratio", title="gradient flow, p = 4, p* = 2")

    def draw_lowest(ax: Axes) -> None:
        ax.plot(few, with_noise, color="k", label="overlap equations")
        measured = np.array([mean_and_error(column) for column in sampled.T])
        error_bars(ax, few, measured[:, 0], measured[:, 1], hue(1), label=f"SGD, N = {dim}")
        ax.axhline(level, color="0.5", linestyle="--", linewidth=0.8, label="-4 a σ")
        finish(ax, "t", "mean of the p p* lowest eigenvalues", title="SGD from the plateau")

    return checks, table_of(rows), [draw_flow, draw_lowest]


# ---- the bulk on samples -------------------------------------------------------------------------


def _empirical_bulk(bench: Bench) -> Outcome:
    p, p_star, ratio = 4, 1, 2.0
    # Densities vary by order 1/sqrt(n) between samples: each probe has samples of its own.
    dim, bench.jobs = (2000, 16) if bench.more == 1 else (25_000, 6)
    width, steps = 0.2, 56
    x = np.array([-0.6, -0.2, 0.0, 0.3, 0.8, 1.5])
    rng = bench.rng()
    problem = Problem(width=p, teacher_width=p_star, lr=0.1, noise_var=0.1, dim=dim)
    # Overlaps of order one, none of them special.
    mixing = np.array([[1.0, 0.1, 0.0, 0.2], [0.1, 0.8, 0.1, 0.0], [0.0, 0.1, 0.6, 0.1]])
    Q = np.eye(p) * 0.3 + mixing.T @ mixing * 0.4
    state = Overlaps(Q=Q, M=np.array([[0.4], [0.1], [-0.2], [0.0]]), P=np.eye(p_star))
    W, W_star = _weights(state, dim, rng)
    found = []
    for _ in range(bench.jobs):
        job = bench.job()
        sample_seed, probe_seed = job.pop("seed").spawn(2)
        samples = hessian.Samples(count=round(ratio * dim), W_star=W_star, seed=sample_seed)
        operator = hessian.empirical(problem, W, samples)
        found.append(hessian.density(operator, probes=1, steps=steps, seed=probe_seed, **job))

    def sampled(positions: FloatArray) -> tuple[FloatArray, FloatArray]:
        each = np.array([result.density(positions, width=width) for result in found])
        return each.mean(axis=0), each.std(axis=0, ddof=1) / np.sqrt(len(each))

    law = hessian.bulk(problem, state, ratio, x, width=width)
    population = hessian.population(problem, state)
    measured, sem = sampled(x)
    # p + p* directions of each unit are outside of the bulk, of N: each of them may be anywhere,
    # and one eigenvalue contributes at most 1/(pi width). The law itself is good to 3e-4.
    finite = (p + p_star) / dim / (np.pi * width) + 3e-4
    scores = [
        z_score(value - theory, error, bench.jobs, finite)
        for value, theory, error in zip(measured, law, sem, strict=True)
    ]
    levels = population.density(x, width=width)
    checks = [
        z_check(
            f"density at p N = {p * dim}, n = {ratio:g} N, against the law of the bulk", scores
        ),
        Check(
            quantity="largest deviation of the population's spectrum from the density",
            predicted=0.1,  # far above the errors, and a small part of the density
            measured=float(np.abs(levels - measured).max()),
            tolerance=0.0,
            side="above",
        ),
    ]
    rows = [
        {
            "x": float(position),
            "density": float(measured[i]),
            "standard error": float(sem[i]),
            "law": float(law[i]),
            "population": float(levels[i]),
        }
        for i, position in enumerate(x)
    ]

    def draw(ax: Axes) -> None:
        grid = np.linspace(-1.5, 3.0, 400)
        curve, error = sampled(grid)
        ax.plot(grid, curve, color=hue(0), label=f"samples, p N = {p * dim}, n = {ratio:g} N")
        ax.fill_between(grid, curve - error, curve + error, color=hue(0), alpha=0.3, linewidth=0)
        ax.plot(
            grid,
            population.density(grid, width=width),
            color=hue(1),
            linewidth=0.9,
            label="population",
        )
        ax.plot(x, law, "ks", markersize=5, fillstyle="none", label="law of the bulk")
        finish(
            ax,
            "eigenvalue",
            f"density, width {width:g}",
            title="bulk of the empirical Hessian",
        )

    def draw_residuals(ax: Axes) -> None:
        error_bars(ax, x, measured - law, sem, hue(0), label="samples - law")
        for sign in (-1.0, 1.0):
            ax.axhline(sign * finite, color="0.5", linestyle="--", linewidth=0.8)
        ax.plot([], [], color="0.5", linestyle="--", label="finite-size allowance")
        finish(ax, "eigenvalue", "difference of densities", title="samples minus law")

    return checks, table_of(rows), [draw, draw_residuals]


# ---- saddles of the population flow --------------------------------------------------------------


def _index(mu: FloatArray, chosen: tuple[int, ...], width: int, kappa: float) -> int:
    """Return the number of negative directions at a critical point, counted from mu alone."""
    left = [i for i in range(len(mu)) if i not in chosen]
    shift = -kappa * sum(mu[i] for i in left) / (1.0 + kappa * len(chosen))
    empty = (width - len(chosen)) * sum(bool(mu[k] > shift) for k in left)
    return empty + sum(bool(mu[k] > mu[i]) for i in chosen for k in left)


def _saddles(bench: Bench) -> Outcome:
    rng = bench.rng()
    bench.jobs = 1
    spectra = ((2.0, 1.5, 1.0), (1.0, 1.0), (2.0, 1.6, 1.2, 0.8))
    dim, kappa = 5, 0.5
    rows: list[dict[str, Any]] = []
    wrong: list[int] = []
    gaps: list[float] = []
    heights: list[float] = []
    indices: list[int] = []
    stable: list[int] = []
    cases: list[str] = []
    for mu_ in spectra:
        for m in (1, 2, 3, 5):
            flow = population_flow.Problem(
                teacher_eigenvalues=mu_, dim=dim, width=m, trace_weight=kappa
            )
            # The same network of the other room: second layers one, risk = L_c at kappa = 1/2.
            network = Problem(
                width=m,
                teacher_width=len(mu_),
                lr=0.1,
                dim=dim,
                second_layer=(1.0,) * m,
                teacher_second_layer=(1.0,) * len(mu_),
            )
            mu = np.asarray(flow.mu, dtype=np.float64)
            W_star = np.sqrt(dim * mu[: len(mu_), None]) * np.eye(len(mu_), dim)
            residual = population_flow.asymptotics(flow).residual
            highest, count = 0, 0
            for n in range(min(m, dim) + 1):
                for chosen in itertools.combinations(range(dim), n):
                    left = np.delete(mu, chosen)
                    shift = -kappa * left.sum() / (1.0 + kappa * n)
                    if any(mu[i] <= shift for i in chosen):
                        continue  # no critical point
                    point = population_flow.critical_point(flow, chosen)
                    W = np.zeros((dim, m))
                    W[list(chosen), np.arange(n)] = np.sqrt(point.eigenvalues)
                    W = W @ _orthogonal(rng, m, m)
                    closed = np.repeat(point.hessian_eigenvalues, point.hessian_multiplicities)
                    size = float(np.abs(closed).max())
                    units = np.eye(W.size).reshape(-1, *W.shape)
                    dense = np.linalg.eigvalsh(
                        [population_flow.hessian_action(flow, W, D).ravel() for D in units]
                    )
                    overlaps = Overlaps.from_weights(np.sqrt(dim) * W.T, W_star)
                    other = hessian.population(network, overlaps)
                    assert other.eigenvalues is not None
                    gaps.append(float(np.abs(dense - closed).max()) / size)
                    levels = list(
                        zip(
                            point.hessian_eigenvalues.tolist(),
                            point.hessian_multiplicities.tolist(),
                            strict=True,
                        )
                    )
                    gaps.append(_gap(other, levels))
                    predicted = _index(mu, chosen, m, kappa)
                    counted = (
                        int(point.hessian.count_below(-ROUNDING * size)),
                        int((dense < -ROUNDING * size).sum()),
                        int(other.count_below(-ROUNDING * size)),
                    )
                    wrong += [one - predicted for one in counted]
                    height = (point.loss - residual) / float(np.sum(mu**2))
                    if height <= 1e-9:
                        continue
                    count += 1
                    stable.append(int(counted[1] == 0))
                    heights.append(height)
                    indices.append(counted[1])
                    cases.append(f"m = {m}")
                    highest = max(highest, counted[1])
            rows.append(
                {
                    "teacher": ", ".join(f"{value:g}" for value in mu_),
                    "m": m,
                    "saddles": count,
                    "largest index": highest,
                    "m d": m * dim,
                }
            )
    checks = [
        Check(
            quantity=f"indices of {len(indices)} saddles and of the minima - counted from mu",
            predicted=0.0,
            measured=worst(np.array(wrong, dtype=np.float64)),
            tolerance=0.0,
        ),
        Check(
            quantity="saddles without a negative direction",
            predicted=0.0,
            measured=float(sum(stable)),
            tolerance=0.0,
        ),
        Check(
            quantity="eigenvalues: dense Hessian, and spectrum from overlaps, against closed form",
            predicted=0.0,
            measured=worst(gaps),
            tolerance=ROUNDING,
        ),
    ]

    def draw(ax: Axes) -> None:
        names = np.array(cases)
        for i, name in enumerate(dict.fromkeys(cases)):
            own = names == name
            ax.plot(np.array(heights)[own], np.array(indices)[own], "o", color=hue(i), label=name)
        finish(
            ax,
            "excess loss / square of the teacher",
            "index: negative directions",
            title="all saddles, d = 5",
        )

    return checks, table_of(rows), [draw]


CLAIMS = [
    Claim(
        id="hessian/plateau",
        statement="On the plateau exactly p p* eigenvalues are negative: -4 a sigma_j, p times for "
        "each teacher direction j, at any N; on n samples they are found up to terms of order N/n.",
        source=_source(f"{_PAGE} 4, 7, 7.1"),
        function=Bench.claim(_negative_at_plateau),
    ),
    Claim(
        id="hessian/manifold",
        statement="At zero loss no eigenvalue is negative, and there are (p - p*)(N - p*) more "
        "zero modes than the manifold of solutions has dimensions: along them the risk grows as "
        "the fourth power.",
        source=_source(f"{_PAGE} 7"),
        function=Bench.claim(_zero_modes_on_manifold),
    ),
    Claim(
        id="hessian/path",
        statement="From plateau to solution the lowest eigenvalue vanishes when the network "
        "escapes; on the plateau lr times it is minus the rate of the escape.",
        source=_source(f"{_PAGE} 4, 7"),
        function=Bench.claim(_along_path),
    ),
    Claim(
        id="hessian/empirical-bulk",
        statement="The density of the eigenvalues of the Hessian on n samples follows the law of "
        "a p x p matrix equation at n/N of order one, where the population's does not.",
        source=_source(f"{_PAGE} 7.1"),
        function=Bench.claim(_empirical_bulk),
    ),
    Claim(
        id="hessian/saddles",
        statement="Every saddle of the population flow has as many negative directions as counted "
        "from the teacher's eigenvalues: (m - n) for each left out above the shift, and one for "
        "each pair of a selected and a larger one that is left out.",
        source="arXiv 2311.03794; docs/papers/population_flow.md section 3.1, 3.2; "
        "docs/papers/sgd.md section 7",
        function=Bench.claim(_saddles),
    ),
]
