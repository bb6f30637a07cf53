"""The claims about `overparam.empirical_flow.dmft`: its curves and kernels are those of networks.

All of arXiv 2601.10483, derived in ``docs/papers/empirical_flow.md`` section 2. Networks and their
replacement by matrices of the Gaussian orthogonal ensemble descend at the learning rate of the
theory, which is exact in discrete time; the teacher's eigenvalues are quantiles of their law.

Pass rules. Theory and descent have standard errors and corrections of order 1/d, of different
sign and size: both are run at two sizes and extrapolated. The difference may have `error_limit`
standard errors of both, by Student's law of the fewest independent runs, beyond an allowance for
the terms of second order: with a first correction of relative size b/d the next is (b/d)^2, of
which an extrapolation leaves b^2 over the product of the sizes, once for the theory and once for
the descent. b is one over the smallest of kappa, kappa* and one, the inverse size of a block, plus
the logarithmic slope in alpha, because symmetric matrices have d(d + 1)/2 entries instead of d^2/2;
for the network at least 10, what quadratic forms of finite rank add. Noise of the theory's measured
response adds to the training risk the share that it reports.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from overparam import empirical_flow, spectra
from overparam.claims import Check, Claim
from overparam.claims._shared import (
    CHANCE,
    Bench,
    error_bars,
    error_limit,
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
from overparam.empirical_flow import DmftTrajectory, FlowTrajectory, Problem
from overparam.results import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from overparam.claims import Panel
    from overparam.claims._shared import Outcome

GROUPS = 8  # independent estimates of the kernels
NETWORK = 10.0  # first correction of the network, times d

_CURVES = {"risk": "correlation", "train_risk": "residual_correlation"}


# ---- shared --------------------------------------------------------------------------------------


class _Bench(Bench):
    """What a run of a claim was asked for, its theory and its simulations."""

    @property
    def full(self) -> bool:
        """Whether the paper's sizes are asked for."""
        return self.more > 1

    def sizes(self) -> dict[int, tuple[int, int]]:
        """Return replicas of the theory and of the descent by dimension."""
        return {50: (64, 48), 100: (32, 12)} if self.full else {20: (128, 240), 40: (64, 96)}

    def dmft(
        self, problem: Problem, steps: int, lr: Any, dim: int, replicas: int, **options: Any
    ) -> DmftTrajectory:
        """Solve the equations at all steps, as one of the claim's jobs."""
        options = {"groups": GROUPS, **self.job(), **options}
        times = np.concatenate([[0.0], np.cumsum(np.broadcast_to(lr, steps))])
        rate: Any = lr
        return empirical_flow.dmft(problem, times, lr=rate, dim=dim, replicas=replicas, **options)

    def descend(
        self, problem: Problem, t: ArrayLike, lr: ArrayLike, dim: int, replicas: int, **options: Any
    ) -> FlowTrajectory:
        """Follow gradient descent, as one of the claim's jobs."""
        options = {"sensing": "goe", "teacher": "quantile", **self.job(), **options}
        rate: Any = lr
        return empirical_flow.simulate(problem, t, lr=rate, dim=dim, replicas=replicas, **options)

    def note(self) -> None:
        """Note that the next of the claim's jobs is done."""
        progress = self.job()["progress"]
        if callable(progress):
            progress(1.0)


def _source(where: str) -> str:
    return f"arXiv 2601.10483{where}; docs/papers/empirical_flow.md section 2"


def _block(problem: Problem) -> float:
    """Return the inverse size of the smallest block of directions."""
    star = 1.0 if problem.kappa_star is None else problem.kappa_star
    return 1.0 / min(problem.kappa, star, 1.0)


def _start(problem: Problem, dim: int, rng: np.random.Generator) -> FloatArray:
    """Return weights at the start."""
    m = int(problem.kappa * dim + 0.5)
    return np.asarray(problem.init_scale / np.sqrt(m) * rng.standard_normal((dim, m)))


class _Theory:
    """Kernels at two sizes, extrapolated to infinite size, and their slope in alpha.

    Parameters
    ----------
    bench : _Bench
        Where to run: 4 jobs.
    problem, steps, lr
        What to solve.
    replicas : dict
        Replicas by dimension, of two.
    """

    def __init__(
        self,
        bench: _Bench,
        problem: Problem,
        steps: int,
        lr: ArrayLike,
        replicas: dict[int, int],
        **options: Any,
    ) -> None:
        self.problem, self.replicas = problem, replicas
        self.runs = {
            d: bench.dmft(problem, steps, lr, d, count, **options) for d, count in replicas.items()
        }
        # Finite differences with the same random numbers, at the smaller size.
        small = min(replicas)
        (seed,) = bench.seeds(1)
        self._change = 0.1
        self._near = [
            bench.dmft(
                problem.replace(alpha=problem.alpha * factor),
                steps,
                lr,
                small,
                GROUPS,
                **{**options, "groups": 1, "seed": seed},
            )
            for factor in (1.0 - self._change, 1.0 + self._change)
        ]

    def at(self, dim: int, kernel: str, t: int, s: int | None = None) -> tuple[float, float]:
        """Return an entry of a kernel, the diagonal one by default, or of a curve."""
        run = self.runs[dim]
        index = (t,) if kernel in ("trace", "overlap") else (t, t if s is None else s)
        return getattr(run, kernel)[index], getattr(run, f"{kernel}_sem")[index]

    def limit(self, kernel: str, t: int, s: int | None = None) -> tuple[float, float]:
        """Return the entry at infinite size and its standard error."""
        small, large = self.replicas
        return extrapolated(
            self.at(small, kernel, t, s), self.at(large, kernel, t, s), large / small
        )

    def allowed(
        self,
        kernel: str,
        t: int,
        s: int | None = None,
        *,
        sizes: Sequence[int],
        first: float = 0.0,
    ) -> float:
        """Return the allowance for terms of second order of the difference to a descent.

        `sizes` are those of the descent; `first` is its first correction if that is larger.
        """
        index = (t,) if kernel in ("trace", "overlap") else (t, t if s is None else s)
        low, high = (getattr(run, kernel)[index] for run in self._near)
        value = self.limit(kernel, t, s)[0]
        slope = abs(high - low) / (2.0 * self._change * abs(value))
        own = _block(self.problem)
        small, large = self.replicas
        theory = (own + slope) ** 2 / (small * large)
        if kernel == "residual_correlation":
            # What the noise of the measured response, of order (lr t/d)^2, adds to it.
            noise = {d: float(run.stats["probe_noise"]) for d, run in self.runs.items()}
            theory += max(large * noise[large], small * noise[small]) / (large - small)
        descent = (max(own, first) + slope) ** 2 / (sizes[0] * sizes[1])
        return float(abs(value) * (theory + descent))

    def z(
        self,
        kernel: str,
        measured: tuple[float, float],
        replicas: int,
        t: int,
        s: int | None = None,
        *,
        sizes: Sequence[int],
        first: float = 0.0,
    ) -> float:
        """Return the deviation of an extrapolated measurement in Gaussian errors of both."""
        value, sem = self.limit(kernel, t, s)
        finite = self.allowed(kernel, t, s, sizes=sizes, first=first)
        error = float(np.hypot(sem, measured[1]))
        return z_score(measured[0] - value, error, min(GROUPS, replicas), finite)


def _draw_points(ax: Axes, x: ArrayLike, points: ArrayLike, colour: str, **style: Any) -> None:
    """Draw pairs of a value and its standard error."""
    value, sem = np.asarray(points, dtype=np.float64).T
    error_bars(ax, x, value, sem, colour, **style)


def _limit_of(values: dict[int, FloatArray]) -> tuple[float, float]:
    """Return the extrapolation to infinite size of values of replicas at two sizes."""
    small, large = values
    ends = mean_and_error(values[small]), mean_and_error(values[large])
    return extrapolated(*ends, large / small)


# ---- curves --------------------------------------------------------------------------------------


def _band(ax: Axes, lr: float, theory: _Theory, kernel: str, colour: str, label: str) -> None:
    """Draw the theory, extrapolated, with a band of two standard errors."""
    count = len(theory.runs[min(theory.runs)].t)
    values, sems = np.array([theory.limit(kernel, i) for i in range(count)]).T
    t = lr * np.arange(count)
    ax.plot(t, values, color=colour, label=label)
    ax.fill_between(t, values - 2.0 * sems, values + 2.0 * sems, color=colour, alpha=0.2)


def _curves(bench: _Bench) -> Outcome:
    sizes = bench.sizes()
    small, large = sizes
    # Width below, at and above one; with and without noise and ridge; paper's figures 5, 12, 14.
    cases: list[tuple[Problem, float]] = [
        (Problem(alpha=0.4, kappa=0.5, kappa_star=0.3, noise_var=0.5, ridge=0.05), 0.025),
        (Problem(alpha=0.5, kappa=1.0, kappa_star=0.5), 0.04),
        (Problem(alpha=0.5, kappa=1.5, kappa_star=0.5, noise_var=0.25), 0.04),
    ]
    sensings = ["goe"]
    if bench.full:
        five = Problem(alpha=0.2, kappa=0.4, kappa_star=0.3, noise_var=0.5, ridge=0.01)
        cases += [
            (Problem(alpha=0.5, kappa=1.2, kappa_star=0.8, ridge=0.1), 0.04),
            (five, 0.015),
            (five.replace(alpha=0.4, noise_var=0.25), 0.02),
            (Problem(alpha=0.3, kappa=0.5, kappa_star=0.2, ridge=0.1), 0.015),
            (Problem(alpha=0.3, kappa=0.5, kappa_star=0.2), 0.015),
        ]
        sensings.append("network")
    steps = 200 if bench.full else 60
    recorded = np.arange(0, steps + 1, steps // 20)
    judged = [4, 10, 20]
    bench.jobs = len(cases) * (4 + 2 * len(sensings))
    rows: list[dict[str, Any]] = []
    z: dict[tuple[str, str], list[float]] = {}
    found: list[tuple[_Theory, float, dict[tuple[str, int], FlowTrajectory]]] = []
    for problem, lr in cases:
        theory = _Theory(bench, problem, steps, lr, {d: own for d, (own, _) in sizes.items()})
        runs = {
            (sensing, d): bench.descend(problem, lr * recorded, lr, d, count, sensing=sensing)
            for sensing in sensings
            for d, (_, count) in sizes.items()
        }
        found.append((theory, lr, runs))
        for i in judged:
            step = int(recorded[i])
            row: dict[str, Any] = {
                "alpha": problem.alpha,
                "kappa": problem.kappa,
                "Delta": problem.noise_var,
                "lam": problem.ridge,
                "t": lr * step,
            }
            for field in ("risk", "train_risk", "trace", "overlap"):
                kernel = _CURVES.get(field, field)
                value, sem = theory.limit(kernel, step)
                row |= {f"{field}, theory": value, f"{field}, sem": sem}
                for sensing in sensings:
                    measured = _limit_of({d: getattr(runs[sensing, d], field)[:, i] for d in sizes})
                    row |= {
                        f"{field}, {sensing}": measured[0],
                        f"{field}, {sensing} sem": measured[1],
                    }
                    deviation = theory.z(
                        kernel,
                        measured,
                        sizes[large][1],
                        step,
                        sizes=[*sizes],
                        first=NETWORK if sensing == "network" else 0.0,
                    )
                    z.setdefault((field, sensing), []).append(deviation)
            rows.append(row)
    names = {"risk": "risk", "train_risk": "training risk", "trace": "trace", "overlap": "overlap"}
    where = {"goe": "GOE", "network": "network"}
    checks = [
        z_check(f"{names[field]}, {where[sensing]}, extrapolated from d = {small}, {large}", values)
        for (field, sensing), values in z.items()
    ]

    def panel(field: str, ylabel: str, first: int) -> Callable[[Axes], None]:
        def draw(ax: Axes) -> None:
            for i, (theory, lr, runs) in enumerate(found[first : first + 4]):
                problem = theory.problem
                label = (
                    f"κ = {problem.kappa:g}, α = {problem.alpha:g}, Δ = {problem.noise_var:g}, "
                    f"λ = {problem.ridge:g}"
                )
                _band(ax, lr, theory, _CURVES[field], hue(i), label)
                for sensing, marker in zip(sensings, ("o", "s"), strict=False):
                    limits = [
                        _limit_of({d: getattr(runs[sensing, d], field)[:, j] for d in sizes})
                        for j in range(len(recorded))
                    ]
                    _draw_points(ax, lr * recorded, limits, hue(i), marker=marker, fillstyle="none")
            title = "theory (lines, 2 errors), descent (points), d → ∞"
            finish(ax, "t", ylabel, title=title, yscale="log")

        return draw

    panels: list[Panel] = [
        panel(field, ylabel, first)
        for first in range(0, len(found), 4)
        for field, ylabel in (("risk", "R"), ("train_risk", "training risk"))
    ]
    return checks, table_of(rows), panels


# ---- descent of networks whose weights are at hand -----------------------------------------------


class _Sample:
    """Samples of one student, whose descent keeps weights and residuals.

    Matrices are vectors of their upper triangles, entries off the diagonal times sqrt 2.
    """

    def __init__(self, problem: Problem, dim: int, sensing: str, rng: np.random.Generator) -> None:
        self.problem, self.dim = problem, dim
        self._rows, self._columns = np.triu_indices(dim)
        self._weights = np.where(self._rows == self._columns, 1.0, np.sqrt(2.0))
        self.n = round(problem.alpha * dim**2)
        if sensing == "goe":
            shape = (self.n, len(self._rows))
            self._X = rng.standard_normal(shape) * np.sqrt(2.0 / dim)
        else:
            x = rng.standard_normal((self.n, dim)) * dim**-0.25
            self._X = x[:, self._rows] * x[:, self._columns] * self._weights
            self._X[:, self._rows == self._columns] -= dim**-0.5
        self._noise = np.sqrt(problem.noise_var) * rng.standard_normal(self.n)
        self.teacher = np.diag(empirical_flow.teacher_eigenvalues(problem, dim))
        self.start = _start(problem, dim, rng)

    def _vectors(self, S: FloatArray) -> FloatArray:
        return np.asarray(S[..., self._rows, self._columns] * self._weights)

    def _matrices(self, v: FloatArray) -> FloatArray:
        S = np.zeros((*v.shape[:-1], self.dim, self.dim))
        S[..., self._rows, self._columns] = v / self._weights
        S[..., self._columns, self._rows] = v / self._weights
        return S

    def errors(self, W: FloatArray) -> FloatArray:
        """Return S - S* of one or several students."""
        return np.asarray(W @ np.swapaxes(W, -1, -2) - self.teacher)

    def residuals(self, W: FloatArray) -> FloatArray:
        """Return the residuals of one or several students, samples last."""
        return np.asarray(self._vectors(self.errors(W)) @ self._X.T - self._noise)

    def feedback(self, r: FloatArray) -> FloatArray:
        """Return the gradient's matrices G = (d/2n) sum_mu r_mu X_mu."""
        return self._matrices(self.dim / (2.0 * self.n) * (r @ self._X))

    def step(
        self, W: FloatArray, lr: float | FloatArray, field: float | FloatArray = 0.0
    ) -> FloatArray:
        """Return the weights after a step, with a field added to the gradient's matrix."""
        B = self.feedback(self.residuals(W)) + field
        return np.asarray(W - lr * (B @ W + self.problem.ridge * W))

    def sharpness(self, W: FloatArray, rng: np.random.Generator, iterations: int = 100) -> float:
        """Return the largest eigenvalue of the loss's Hessian, by power iteration."""
        G = self.feedback(self.residuals(W))
        V = rng.standard_normal(W.shape)
        value = 0.0
        for _ in range(iterations):
            V /= np.linalg.norm(V)
            image = self._vectors(V @ W.T + W @ V.T) @ self._X.T
            product = G @ V + self.problem.ridge * V + self.feedback(image) @ W
            value = float((V * product).sum())
            V = product
        return value


# ---- kernels -------------------------------------------------------------------------------------


def _measured_kernels(
    sample: _Sample, lr: float, steps: Sequence[int], source: int, rng: np.random.Generator
) -> dict[str, FloatArray]:
    """Return the two-time kernels of one descent at some steps.

    The response to a field at step `source` is that to one random direction: NaN until then.
    """
    d, small = sample.dim, 1e-4
    P = rng.standard_normal((d, d)) / np.sqrt(2.0 * d)
    P = P + P.T
    W = sample.start[np.newaxis]
    errors, residuals, response = [], [], []
    for step in range(max(steps) + 1):
        if step in steps:
            A = sample.errors(W)
            errors.append(A[0].ravel())
            residuals.append(sample.residuals(W[0]))
            change = (A[-1] - A[-2]) / (2.0 * small) if len(W) > 1 else np.full((d, d), np.nan)
            response.append(np.sum(P * change) / (2.0 * d))
        if step == source:
            # The student itself, and two that feel the field.
            field = small * P * np.array([0.0, -1.0, 1.0])[:, np.newaxis, np.newaxis]
            W = sample.step(np.repeat(W, 3, axis=0), lr, field)
        else:
            W = sample.step(W, lr)
    A_, r = np.array(errors), np.array(residuals)
    return {
        "correlation": 2.0 / d * (A_ @ A_.T),
        "residual_correlation": r @ r.T / sample.n,
        "response": np.array(response),
    }


def _kernels(bench: _Bench) -> Outcome:
    problem = Problem(alpha=0.4, kappa=0.5, kappa_star=0.3, noise_var=0.25, ridge=0.05)
    lr, steps = 0.025, 160 if bench.full else 60
    sizes = bench.sizes()
    small, large = sizes
    recorded = [*range(0, steps + 1, steps // 4)]
    source = steps // 6
    bench.jobs = 4 + sum(count for _, count in sizes.values())
    theory = _Theory(bench, problem, steps, lr, {d: own for d, (own, _) in sizes.items()})
    found: dict[int, list[dict[str, FloatArray]]] = {d: [] for d in sizes}
    rng = bench.rng()
    for d, (_, count) in sizes.items():
        for _ in range(count):
            sample = _Sample(problem, d, "goe", rng)
            found[d].append(_measured_kernels(sample, lr, recorded, source, rng))
            bench.note()
    rows: list[dict[str, Any]] = []
    names = {
        "correlation": "correlation C(t, s)",
        "residual_correlation": "correlation of residuals C_r(t, s)",
        "response": f"response chi(t, s) at s = {lr * source:g}",
    }
    z: dict[str, list[float]] = {name: [] for name in names}
    limits: dict[tuple[str, int, int], tuple[float, float]] = {}
    for name in names:
        for i, t in enumerate(recorded[1:], 1):
            for j, s in enumerate([source] if name == "response" else recorded[: i + 1]):
                index = (i,) if name == "response" else (i, j)
                values = {
                    d: np.array([one[name][index] for one in runs]) for d, runs in found.items()
                }
                measured = _limit_of(values)
                limits[name, t, s] = measured
                deviation = theory.z(name, measured, sizes[large][1], t, s, sizes=[*sizes])
                z[name].append(deviation)
                value, sem = theory.limit(name, t, s)
                rows.append(
                    {
                        "kernel": name,
                        "t": lr * t,
                        "s": lr * s,
                        "theory": value,
                        "theory sem": sem,
                        **{f"d = {d}": float(own.mean()) for d, own in values.items()},
                        "d = inf": measured[0],
                        "sem": measured[1],
                        "z": deviation,
                    }
                )
    checks = [
        z_check(f"{text}, extrapolated from d = {small}, {large}", z[name])
        for name, text in names.items()
    ]

    def panel(name: str, ylabel: str) -> Callable[[Axes], None]:
        def draw(ax: Axes) -> None:
            sources = [source] if name == "response" else recorded[:-1]
            for k, s in enumerate(sources):
                after = range(s + (name == "response"), steps + 1)
                values, sems = np.array([theory.limit(name, t, s) for t in after]).T
                t_ = lr * np.array(after)
                ax.plot(t_, values, color=hue(k), label=f"s = {lr * s:g}")
                ax.fill_between(
                    t_, values - 2.0 * sems, values + 2.0 * sems, color=hue(k), alpha=0.2
                )
                at = [t for t in recorded if (name, t, s) in limits]
                _draw_points(ax, lr * np.array(at), [limits[name, t, s] for t in at], hue(k))
            title = "theory (lines), GOE descent (points)"
            finish(ax, "t", ylabel, title=title, yscale="linear" if name == "response" else "log")

        return draw

    return (
        checks,
        table_of(rows),
        [
            panel("correlation", "C(t, s)"),
            panel("residual_correlation", "C_r(t, s)"),
            panel("response", "χ(t, s)"),
        ],
    )


# ---- universality --------------------------------------------------------------------------------


def _universality(bench: _Bench) -> Outcome:
    problem = Problem(alpha=0.4, kappa=0.5, kappa_star=0.3, noise_var=0.25, ridge=0.1)
    lr, steps = 0.025, 160 if bench.full else 60
    replicas = {40: 240, 80: 80, 160: 16} if bench.full else {20: 240, 40: 80, 80: 24}
    small, large = [*replicas][-2:]
    judged = [steps // 3, steps]
    own = {d: count for d, (count, _) in bench.sizes().items()}
    bench.jobs = 4 + 2 * len(replicas)
    theory = _Theory(bench, problem, steps, lr, own)
    runs: dict[tuple[str, int], FlowTrajectory] = {}
    for d, count in replicas.items():
        (seed,) = bench.seeds(1)  # the same starts and label noise for both
        for sensing in ("network", "goe"):
            runs[sensing, d] = bench.descend(
                problem, lr * np.array(judged), lr, d, count, sensing=sensing, seed=seed
            )
    rows: list[dict[str, Any]] = []
    gaps: dict[tuple[str, int], FloatArray] = {}
    z: dict[str, list[float]] = {"network": [], "goe": []}
    limits, slopes = [], []
    for field, kernel in _CURVES.items():
        for i, step in enumerate(judged):
            values = []
            for d in replicas:
                network, goe = (getattr(runs[name, d], field)[:, i] for name in ("network", "goe"))
                gap = float(network.mean() / goe.mean()) - 1.0
                _, sem = mean_and_error((network - (1.0 + gap) * goe) / goe.mean())
                values.append((gap, sem))
            gaps[field, step] = np.array(values)
            value, sem = extrapolated(values[-2], values[-1], large / small)
            limits.append(z_score(value, sem, replicas[large], NETWORK**2 / (small * large)))
            gap_, sem_ = np.array(values).T
            if field == "risk":
                slopes.append(line_fit(np.log([*replicas]), np.log(gap_), sem_ / gap_))
            row = {"quantity": field, "t": lr * step}
            for sensing, first in (("network", NETWORK), ("goe", 0.0)):
                measured = _limit_of(
                    {d: getattr(runs[sensing, d], field)[:, i] for d in (small, large)}
                )
                z[sensing].append(
                    theory.z(
                        kernel, measured, replicas[large], step, sizes=[small, large], first=first
                    )
                )
                row |= {f"{sensing}, d = inf": measured[0], f"{sensing}, sem": measured[1]}
            predicted = theory.limit(kernel, step)
            row |= {"theory": predicted[0], "theory sem": predicted[1]}
            row |= {f"gap, d = {d}": v[0] for d, v in zip(replicas, values, strict=True)}
            rows.append(row)
    checks = [
        mean_check(
            f"slope of log relative gap of the risks against log d, d = {min(replicas)}..{large}",
            -1.0,
            weighted_mean(slopes),
            NETWORK / np.sqrt(min(replicas) * large),  # of second order
        ),
        z_check(f"relative gap, extrapolated from d = {small}, {large}", limits),
        z_check("network against theory, extrapolated", z["network"]),
        z_check("GOE against theory, extrapolated", z["goe"]),
    ]

    def in_size(ax: Axes) -> None:
        d = np.array([*replicas])
        for k, ((field, step), values) in enumerate(gaps.items()):
            label = f"{'risk' if field == 'risk' else 'training risk'}, t = {lr * step:g}"
            _draw_points(ax, d, values, hue(k), label=label)
        guide = gaps["risk", steps][0, 0] * d[0] / d
        ax.plot(d, guide, ":", color="0.3", label="slope −1")
        title = "network against GOE sensing"
        finish(ax, "d", "relative gap", title=title, xscale="log", yscale="log")
        ax.minorticks_off()
        ax.set_xticks(d, [str(size) for size in d])

    def towards(ax: Axes) -> None:
        for k, (sensing, label) in enumerate((("network", "network"), ("goe", "GOE"))):
            means = [mean_and_error(runs[sensing, d].risk[:, -1]) for d in replicas]
            _draw_points(ax, [1.0 / d for d in replicas], means, hue(k), label=label)
        means = [theory.at(d, "correlation", steps) for d in own]
        _draw_points(ax, [1.0 / d for d in own], means, hue(2), label="theory")
        value, sem = theory.limit("correlation", steps)
        error_bars(ax, [0.0], [value], [sem], hue(2), fillstyle="none")
        ax.axhline(value, color=hue(2), linewidth=0.8)
        finish(ax, "1/d", f"R at t = {lr * steps:g}", title="risk against size")

    return checks, table_of(rows), [in_size, towards]


# ---- residuals are Gaussian ----------------------------------------------------------------------


def _gaussian_labels(bench: _Bench) -> Outcome:
    problem = Problem(alpha=0.3, kappa=0.4, kappa_star=0.3)
    lr, steps = 0.02, 100 if bench.full else 40
    times = [0, steps // 4, steps]
    replicas = {50: 48, 100: 16} if bench.full else {30: 48, 60: 16}
    small, large = replicas
    own = {d: count for d, (count, _) in bench.sizes().items()}
    bench.jobs = 4 + 2 * sum(replicas.values())
    theory = _Theory(bench, problem, steps, lr, own)
    rng = bench.rng()
    found: dict[tuple[str, int], list[FloatArray]] = {}
    starts: list[float] = []  # fourth cumulants of the network at the start, over the theory's
    for d, count in replicas.items():
        for sensing in ("goe", "network"):
            for _ in range(count):
                sample = _Sample(problem, d, sensing, rng)
                W, kept = sample.start, []
                for step in range(steps + 1):
                    if step in times:
                        kept.append(sample.residuals(W))
                    W = sample.step(W, lr)
                found.setdefault((sensing, d), []).append(np.array(kept))
                if sensing == "network":
                    squares = np.linalg.eigvalsh(sample.errors(sample.start)) ** 2
                    variance = 2.0 / d * squares.sum()
                    fourth = np.mean(kept[0] ** 4) / variance**2 - 3.0
                    starts.append(fourth - 12.0 * (squares**2).sum() / squares.sum() ** 2)
                bench.note()
    # The kurtosis of the network at the start: 12 tr A^4/(tr A^2)^2, of order 1/d.
    d = 200
    W = _start(problem, d, rng)
    target = np.diag(empirical_flow.teacher_eigenvalues(problem, d))
    squares = np.linalg.eigvalsh(W @ W.T - target) ** 2
    first = float(12.0 * np.mean(squares**2) / np.mean(squares) ** 2)
    block = _block(problem)
    # Of second order: a relative correction of each coefficient, or a fluctuation of the variance.
    second = {"network": first * block, "goe": 3.0 * block**2}
    names = {"goe": "GOE", "network": "network"}
    rows: list[dict[str, Any]] = []
    z: dict[str, list[float]] = {"goe": [], "network": [], "variance": []}
    tail: dict[str, list[float]] = {"goe": [], "network": []}
    pooled: dict[tuple[str, int], FloatArray] = {}
    from scipy.stats import kstest, kstwobign

    for sensing in names:
        for i, step in enumerate(times):
            kurtosis, variance = {}, {}
            for d in replicas:
                r = np.array([one[i] for one in found[sensing, d]])
                n = r.shape[1]
                square = np.mean(r**2, axis=1)
                # Without bias for Gaussian residuals.
                kurtosis[d] = (n + 2.0) / n * np.mean(r**4, axis=1) / square**2 - 3.0
                variance[d] = square
            excess = _limit_of(kurtosis)
            finite = second[sensing] / (small * large)
            z[sensing].append(z_score(*excess, replicas[large], finite))
            sample_ = (r / np.sqrt(square)[:, np.newaxis]).ravel()
            pooled[sensing, step] = sample_
            # Edgeworth: the kurtosis moves the distribution by at most 0.551/24 of it.
            moved = 0.551 / 24.0 * ((first / large if sensing == "network" else 0.0) + finite)
            distance = float(kstest(sample_, "norm").statistic)
            chance = kstwobign.isf(CHANCE / len(times)) / np.sqrt(sample_.size)
            tail[sensing].append(distance / (chance + moved))
            row = {"sensing": names[sensing], "t": lr * step}
            row |= {f"kurtosis, d = {d}": float(k.mean()) for d, k in kurtosis.items()}
            row |= {"d = inf": excess[0], "sem": excess[1], f"distance, d = {large}": distance}
            measured = _limit_of(variance)
            if sensing == "goe" and step:
                z["variance"].append(
                    theory.z(
                        "residual_correlation",
                        measured,
                        replicas[large],
                        step,
                        sizes=[*replicas],
                    )
                )
            predicted = theory.limit("residual_correlation", step)
            row |= {"variance": measured[0], "C_r(t, t)": predicted[0]}
            rows.append(row)
    checks = [
        *(
            z_check(
                f"excess kurtosis of residuals, {names[sensing]}, extrapolated from d = {small}, "
                f"{large}",
                z[sensing],
            )
            for sensing in names
        ),
        z_check("variance of residuals, GOE, against C_r(t, t), extrapolated", z["variance"]),
        *(
            Check(
                quantity=f"Kolmogorov distance to a Gaussian, {names[sensing]}, d = {large}, over "
                "chance and Edgeworth's term, largest of three",
                predicted=1.0,
                measured=max(tail[sensing]),
                tolerance=0.0,
                side="below",
            )
            for sensing in names
        ),
        mean_check(
            "excess kurtosis of the network at the start - 12 tr A^4/(tr A^2)^2",
            0.0,
            mean_and_error(np.array(starts)),
            replicas=len(starts),
        ),
    ]

    def histogram(ax: Axes) -> None:
        edges = np.linspace(-4.0, 4.0, 61)
        for k, step in enumerate(times):
            value = np.sqrt(theory.limit("residual_correlation", step)[0])
            for sensing, style in (("goe", "-"), ("network", ":")):
                density, _ = np.histogram(pooled[sensing, step], edges, density=True)
                label = f"{names[sensing]}, t = {lr * step:g}"
                ax.stairs(
                    density / value, value * edges, color=hue(k), linestyle=style, label=label
                )
            x = value * np.linspace(-4.0, 4.0, 201)
            density = np.exp(-0.5 * (x / value) ** 2) / (np.sqrt(2.0 * np.pi) * value)
            ax.plot(x, density, color=hue(k), linewidth=0.8)
        title = f"Gaussians of variance C_r(t, t); d = {large}"
        finish(ax, "residual, in the variance of the theory", "density", title=title, yscale="log")
        ax.set_ylim(1e-4, None)

    def sizes_(ax: Axes) -> None:
        for k, sensing in enumerate(names):
            for i, (step, fill) in enumerate(zip(times, ("none", "left", "full"), strict=True)):
                points = []
                for d in replicas:
                    r = np.array([one[i] for one in found[sensing, d]])
                    n = r.shape[1]
                    excess = (n + 2.0) / n * np.mean(r**4, axis=1) / np.mean(r**2, axis=1) ** 2
                    points.append(mean_and_error(excess - 3.0))
                label = f"{names[sensing]}, t = {lr * step:g}"
                style: dict[str, Any] = {"fillstyle": fill, "linestyle": "-", "linewidth": 0.6}
                _draw_points(ax, [1.0 / d for d in replicas], points, hue(k), label=label, **style)
        ax.axhline(0.0, color="0.4", linewidth=0.8)
        finish(ax, "1/d", "excess kurtosis", title="residuals", xlim=(0.0, None))

    return checks, table_of(rows), [histogram, sizes_]


# ---- long times ----------------------------------------------------------------------------------


def _long_time(bench: _Bench) -> Outcome:
    law = spectra.discrete([0.0, 1.0], [0.7, 0.3])
    atoms = Problem(
        alpha=1.5, kappa=1.0, teacher_spectrum=law, noise_var=0.1, ridge=0.4, init_scale=0.6
    )
    # The threshold in a gap: exponential; in the bulk: a power law.
    cases: list[tuple[Problem, float, int]] = [
        (atoms, 0.2, 150),
        (atoms.replace(kappa=0.4), 0.15, 150),
    ]
    if bench.full:
        bulk = Problem(alpha=0.5, kappa=1.2, kappa_star=0.8, noise_var=0.5, ridge=0.1)
        narrow = Problem(alpha=0.5, kappa=0.36, kappa_star=0.5, noise_var=0.2, ridge=0.1)
        cases += [(bulk, 0.05, 400), (narrow, 0.03, 600)]
    dim, replicas = (100, 32) if bench.full else (40, 16)
    bench.jobs = len(cases)
    rows: list[dict[str, Any]] = []
    z, drifts = [], []
    runs: list[DmftTrajectory] = []
    for problem, lr, steps in cases:
        run = bench.dmft(problem, steps, lr, dim, replicas, extrapolate=True, probes=2)
        runs.append(run)
        state = run.steady_state()
        slopes = _static_slopes(problem)
        sizes = run.stats["dim_coarse"], dim
        for k, name in enumerate(state.names):
            value, sem, limit, drift = (
                float(getattr(state, field)[k])
                for field in ("value", "value_sem", "limit", "drift")
            )
            # What is left of a decay at least as fast as 1/t is at most the change of the second
            # half of the run.
            second = limit * (_block(problem) + slopes[k]) ** 2 / (sizes[0] * sizes[1])
            z.append(z_score(value - limit, sem, GROUPS, second + abs(drift)))
            rows.append(
                {
                    "alpha": problem.alpha,
                    "kappa": problem.kappa,
                    "t": lr * steps,
                    "quantity": name,
                    "end of the run": value,
                    "sem": sem,
                    "drift": drift,
                    "long_time": limit,
                    "z": z[-1],
                }
            )
            if problem.teacher_spectrum is not None:
                drifts.append((drift, float(state.drift_sem[k]), second))
    checks = [
        z_check(f"risk, training risk and memory sum at the end, d = {sizes[0]}, {dim}", z),
        z_check(
            "drift over the second half, threshold in a gap",
            [z_score(drift, sem, GROUPS, second) for drift, sem, second in drifts],
        ),
    ]

    def panel(field: str, names: int, ylabel: str) -> Callable[[Axes], None]:
        def draw(ax: Axes) -> None:
            for k, (run, (problem, *_)) in enumerate(zip(runs, cases, strict=True)):
                values, sems = getattr(run, field), getattr(run, f"{field}_sem")
                label = f"κ = {problem.kappa:g}, α = {problem.alpha:g}, λ = {problem.ridge:g}"
                t = run.step_times if field == "memory_sum" else run.t
                ax.plot(t, values, color=hue(k), label=label)
                ax.fill_between(
                    t, values - 2.0 * sems, values + 2.0 * sems, color=hue(k), alpha=0.2
                )
                limit = run.steady_state().limit[names]
                ax.axhline(limit, color=hue(k), linestyle="--", linewidth=0.8)
            title = "theory in time, static equations (dashed)"
            yscale = "linear" if field == "memory_sum" else "log"
            finish(ax, "t", ylabel, title=title, yscale=yscale)

        return draw

    return (
        checks,
        table_of(rows),
        [
            panel("risk", 0, "R"),
            panel("train_risk", 1, "training risk"),
            panel("memory_sum", 2, "Σ_s M(t, s)"),
        ],
    )


def _static_slopes(problem: Problem, change: float = 0.02) -> FloatArray:
    """Return the logarithmic slopes in alpha of risk, training risk and c after long times."""
    logs = []
    for factor in (1.0 - change, 1.0 + change):
        point = empirical_flow.long_time(
            problem.replace(alpha=problem.alpha * factor), branch="stable"
        )
        logs.append(np.log([point.risk[0], point.train_risk[0], point.c[0]]))
    return np.asarray(np.abs(logs[1] - logs[0]) / (2.0 * change))


# ---- many samples --------------------------------------------------------------------------------


def _oja_descent(problem: Problem, steps: int, lr: float, W: FloatArray) -> FloatArray:
    """Return the risks of a descent on infinitely many samples."""
    dim = len(W)
    target = np.diag(empirical_flow.teacher_eigenvalues(problem, dim))
    risks = []
    for _ in range(steps + 1):
        A = W @ W.T - target
        risks.append(2.0 / dim * (A**2).sum())
        W = W - lr * (A @ W + problem.ridge * W)
    return np.array(risks)


def _oja_flow(problem: Problem, t: FloatArray, W0: FloatArray) -> FloatArray:
    """Return the risks of Oja's flow, in closed form, for a diagonal teacher."""
    dim = len(W0)
    s = empirical_flow.teacher_eigenvalues(problem, dim)
    shifted = s - problem.ridge
    risks = []
    for time in t:
        grown = np.exp(shifted * time)[:, np.newaxis] * W0
        # (e^{2 x t} - 1)/x
        rate = np.where(shifted == 0.0, 1.0, shifted)
        gained = np.where(shifted == 0.0, 2.0 * time, np.expm1(2.0 * rate * time) / rate)
        inner = np.eye(W0.shape[1]) + W0.T @ (gained[:, np.newaxis] * W0)
        S = grown @ np.linalg.solve(inner, grown.T)
        risks.append(2.0 / dim * ((S - np.diag(s)) ** 2).sum())
    return np.array(risks)


def _large_alpha(bench: _Bench) -> Outcome:
    limit = 1e-3  # the accuracy at which the limit is reached
    alphas = np.array([1e2, 1e3, 1e5])
    base = Problem(alpha=1.0, kappa=1.0, kappa_star=0.5, noise_var=0.5, ridge=0.1)
    narrow = base.replace(kappa=0.5)
    steps, lr, dim = 60, 0.05, 40
    starts = 4000 if bench.full else 400
    replicas = 512 if bench.full else 128
    cases = [base, narrow]
    bench.jobs = len(cases) * (len(alphas) + 1)
    rng = bench.rng()
    rows: list[dict[str, Any]] = []
    z: list[float] = []
    sems, changes, memories, exponents = [], [], [], []
    found: list[tuple[Problem, FloatArray, FloatArray, FloatArray, FloatArray]] = []
    judged = [steps // 6, steps // 2, steps]
    for problem in cases:
        (seed,) = bench.seeds(1)
        runs = [
            bench.dmft(problem.replace(alpha=float(a)), steps, lr, dim, replicas, seed=seed)
            for a in (*alphas, 1e12)
        ]
        oja = runs[-1]
        gaps = np.array([np.abs(run.risk / oja.risk - 1.0).max() for run in runs[:-1]])
        changes.append(float(gaps[-1]))
        middle = [abs(run.risk[judged[1]] / oja.risk[judged[1]] - 1.0) for run in runs[:2]]
        exponents.append(float(np.log(middle[1] / middle[0]) / np.log(alphas[1] / alphas[0])))
        memories.append(float(np.abs(runs[len(alphas) - 1].memory - np.eye(steps + 1)).max()))
        direct = np.array(
            [_oja_descent(problem, steps, lr, _start(problem, dim, rng)) for _ in range(starts)]
        )
        for step in judged:
            value, sem = mean_and_error(direct[:, step])
            error = float(np.hypot(sem, oja.risk_sem[step]))
            z.append(z_score(oja.risk[step] - value, error, GROUPS))
            sems.append(error / value)
            row = {"kappa": problem.kappa, "t": lr * step}
            row |= {f"alpha = {a:g}": run.risk[step] for a, run in zip(alphas, runs, strict=False)}
            rows.append({**row, "limit": oja.risk[step], "descent": value, "sem": error})
        found.append((problem, gaps, oja.risk, direct.mean(axis=0), oja.risk_sem))
    # The descent itself becomes the flow of the closed form, linearly in the learning rate.
    t = lr * np.array(judged)
    differences = []
    for problem in cases:
        W0 = _start(problem, dim, rng)
        flow = _oja_flow(problem, t, W0)
        values = [
            _oja_descent(problem, fine * steps, lr / fine, W0)[fine * np.array(judged)]
            for fine in (8, 16)
        ]
        differences += [*((2.0 * values[1] - values[0]) / flow - 1.0)]
    checks = [
        Check(
            quantity=f"risk at alpha = {alphas[-1]:g} / that at 1e12, with the same random numbers "
            "- 1, largest",
            predicted=0.0,
            measured=max(changes),
            tolerance=limit,
            side="below",
        ),
        Check(
            quantity=f"largest |M - 1| at alpha = {alphas[-1]:g}",
            predicted=0.0,
            measured=max(memories),
            tolerance=limit,
            side="below",
        ),
        Check(
            quantity=f"exponent of the distance to the limit in alpha = {alphas[0]:g} ... "
            f"{alphas[1]:g}, t = {lr * judged[1]:g}, worst",
            predicted=-1.0,
            measured=worst(exponents, -1.0),
            # Noise of variance v = (R + Delta)/(4 alpha) shifts R by about 2 v, and moves it in
            # random directions by 4 (v R)^(1/2)/d, which replicas average: by a fifth of the former
            # at the larger alpha. The next order in v is a tenth at the smaller one. Twice both.
            tolerance=0.25,
        ),
        z_check(f"risk in the limit against descent on infinitely many samples, d = {dim}", z),
        Check(
            quantity="that descent at learning rate -> 0 / closed form of Oja's flow - 1, worst",
            predicted=0.0,
            measured=worst(differences),
            tolerance=limit,
        ),
    ]

    def curves(ax: Axes) -> None:
        t_ = lr * np.arange(steps + 1)
        for k, (problem, _, oja, direct, _) in enumerate(found):
            ax.plot(t_, oja, color=hue(k), label=f"theory, α = 10¹², κ = {problem.kappa:g}")
            ax.plot(t_[::6], direct[::6], "o", color=hue(k), markersize=3, label="descent, α = ∞")
        finish(ax, "t", "R", title=f"λ = {base.ridge:g}, κ* = {base.kappa_star:g}", yscale="log")

    def approach(ax: Axes) -> None:
        for k, (problem, gaps, *_) in enumerate(found):
            ax.plot(alphas, gaps, "o-", color=hue(k), label=f"κ = {problem.kappa:g}")
        ax.plot(alphas, found[0][1][0] * alphas[0] / alphas, ":", color="0.3", label="slope −1")
        ax.plot(
            alphas,
            found[0][1][0] * np.sqrt(alphas[0] / alphas),
            "--",
            color="0.6",
            label="slope −1/2",
        )
        title = "distance to the limit, largest in time"
        finish(ax, "α = n/d²", "relative distance", title=title, xscale="log", yscale="log")

    return checks, table_of(rows), [curves, approach]


# ---- early stopping ------------------------------------------------------------------------------


# Early stopping against the best ridge for linear least squares: Ali, Kolter, Tibshirani,
# arXiv 1810.10082, theorem 2.
_LINEAR_BOUND = 1.69


def _early_stopping(bench: _Bench) -> Outcome:
    lr, steps = 0.025, 312 if bench.full else 156
    base = Problem(alpha=0.5, kappa=1.0, kappa_star=0.3, noise_var=1.0, init_scale=0.5)
    cases = [base, base.replace(kappa=0.4)] if bench.full else [base]
    sizes = bench.sizes()
    small, large = sizes
    recorded = np.arange(0, steps + 1, steps // 26)
    bench.jobs = 6 * len(cases)
    rows: list[dict[str, Any]] = []
    checks: list[Check] = []
    z: list[float] = []
    found: list[tuple[Problem, _Theory, list[tuple[float, float]], float, float]] = []
    for problem in cases:
        theory = _Theory(bench, problem, steps, lr, {d: own for d, (own, _) in sizes.items()})
        runs = {
            d: bench.descend(problem, lr * recorded, lr, d, count).risk
            for d, (_, count) in sizes.items()
        }
        limits = [_limit_of({d: r[:, i] for d, r in runs.items()}) for i in range(len(recorded))]
        curve = np.array([theory.limit("correlation", int(step)) for step in recorded])
        at = int(curve[:, 0].argmin())
        lam, point = empirical_flow.optimal_ridge(problem)
        ridge = float(point.risk[0])
        assert problem.kappa_star is not None
        bayes = empirical_flow.bayes_risk(problem.alpha, problem.kappa_star, problem.noise_var)
        found.append((problem, theory, limits, ridge, bayes))
        where = f"kappa = {problem.kappa:g}: "
        value, sem = curve[at]
        checks += [
            Check(
                quantity=f"{where}least risk in time of the theory / risk at the best ridge",
                predicted=_LINEAR_BOUND,
                measured=value / ridge,
                sem=sem / ridge,
                tolerance=0.0,
                side="below",
            ),
            Check(
                quantity=f"{where}least risk in time - Bayes risk, in standard errors",
                predicted=0.0,
                measured=(value - bayes) / sem,
                tolerance=error_limit(1, GROUPS),
                side="above",
            ),
        ]
        rise = mean_and_error(runs[large][:, -1] - runs[large][:, at])
        checks += [
            Check(
                quantity=f"{where}{name}risk at the end - least risk, in standard errors",
                predicted=error_limit(1, count),
                measured=gain / error,
                tolerance=0.0,
                side="above",
            )
            for name, (gain, error), count in (
                (f"GOE descent, d = {large}: ", rise, sizes[large][1]),
            )
        ]
        judged = sorted({at // 2, at, (at + 26) // 2, 26})
        for i in judged:
            step = int(recorded[i])
            deviation = theory.z("correlation", limits[i], sizes[large][1], step, sizes=[*sizes])
            z.append(deviation)
            rows.append(
                {
                    "kappa": problem.kappa,
                    "t": lr * step,
                    "risk, theory": curve[i, 0],
                    "theory sem": curve[i, 1],
                    "risk, GOE": limits[i][0],
                    "sem": limits[i][1],
                    "z": deviation,
                    "best ridge": lam,
                    "its risk": ridge,
                    "Bayes risk": bayes,
                }
            )
    checks.append(z_check(f"risk in time, extrapolated from d = {small}, {large}", z))

    def curves(ax: Axes) -> None:
        for k, (problem, theory, limits, ridge, _) in enumerate(found):
            _band(ax, lr, theory, "correlation", hue(k), f"λ = 0, κ = {problem.kappa:g}")
            _draw_points(ax, lr * recorded, limits, hue(k), markersize=3)
            ax.axhline(ridge, color=hue(k), linestyle="--", linewidth=0.8, label="best ridge")
        ax.axhline(found[0][-1], color="k", linestyle=":", label="Bayes-optimal")
        title = f"α = {base.alpha:g}, κ* = {base.kappa_star:g}, Δ = {base.noise_var:g}"
        finish(ax, "t", "R", title=title, ylim=(0.0, 4.0 * found[0][-2]))

    def ridges(ax: Axes) -> None:
        lams = np.geomspace(0.01, 2.0, 60)
        for k, (problem, theory, *_) in enumerate(found):
            static = [
                empirical_flow.long_time(problem.replace(ridge=float(lam)), branch="stable").risk[0]
                for lam in lams
            ]
            ax.plot(lams, static, color=hue(k), label=f"t → ∞, κ = {problem.kappa:g}")
            least = min(theory.limit("correlation", t)[0] for t in range(steps + 1))
            ax.axhline(least, color=hue(k), linestyle="--", label="λ = 0, best t")
        finish(ax, "λ", "R", title="early stopping against the ridge", xscale="log", yscale="log")

    return checks, table_of(rows), [curves, ridges]


# ---- finite steps --------------------------------------------------------------------------------


def _grows(curves: FloatArray) -> NDArray[np.bool_]:
    """Return whether curves in time, first axis, exceed 1 on average over their second half.

    Those that end, because they diverge, do.
    """
    return np.asarray(~(np.mean(curves[len(curves) // 2 :], axis=0) <= 1.0))


def _critical(ratios: FloatArray, unstable: NDArray[np.bool_]) -> float:
    """Return the middle between the last stable and the first unstable ratio; NaN without one."""
    first = int(np.argmax(unstable))
    if not unstable.any() or first == 0:
        return float("nan")
    return float(0.5 * (ratios[first - 1] + ratios[first]))


def _finite_step(bench: _Bench) -> Outcome:
    problem = Problem(alpha=0.5, kappa=1.0, kappa_star=0.5, noise_var=0.25, ridge=0.1)
    dim, replicas, own = (60, 16, 64) if bench.full else (30, 6, 32)
    warm, lr, steps, width = 80, 0.03, 100, 0.05
    ratios = np.arange(0.75, 1.3, width)
    bench.jobs = replicas + len(ratios)
    rng = bench.rng()
    sharpness, critical = [], []
    curves: list[FloatArray] = []
    unstable = np.zeros((replicas, len(ratios)), dtype=bool)
    for i in range(replicas):
        sample = _Sample(problem, dim, "goe", rng)
        W = sample.start
        for _ in range(warm):
            W = sample.step(W, lr)
        sharpness.append(sample.sharpness(W, rng))
        before = float(np.mean(sample.residuals(W) ** 2))
        # All rates at once; what has diverged stays where it is.
        rates = (2.0 * ratios / sharpness[-1])[:, np.newaxis, np.newaxis]
        states = np.repeat(W[np.newaxis], len(ratios), axis=0)
        kept = [np.full(len(ratios), 1.0)]
        for _ in range(steps):
            moved = sample.step(states, rates)
            bounded = np.abs(moved).max(axis=(1, 2)) < 1e3
            states = np.where(bounded[:, np.newaxis, np.newaxis], moved, states)
            kept.append(np.mean(sample.residuals(states) ** 2, axis=1) / before)
        curves.append(np.array(kept))
        unstable[i] = _grows(curves[-1])
        critical.append(_critical(ratios, unstable[i]))
        bench.note()
    sharp, sharp_sem = mean_and_error(np.array(sharpness))
    theory = []
    (seed,) = bench.seeds(1)  # the same random numbers at all rates
    with warnings.catch_warnings():
        # That the rate is too large is what is measured, and an instability amplifies noise.
        warnings.simplefilter("ignore", UserWarning)
        for ratio in ratios:
            rates_ = np.concatenate([np.full(warm, lr), np.full(steps, 2.0 * ratio / sharp)])
            run = bench.dmft(problem, warm + steps, rates_, dim, own, throw=False, seed=seed)
            # Beyond the end of a diverging run there is nothing.
            found = run.train_risk[warm:] / run.train_risk[warm]
            theory.append(np.append(found, np.full(steps + 1 - len(found), np.nan)))
    grown = np.array([bool(_grows(curve)) for curve in theory])
    predicted = _critical(ratios, grown)
    # Fluctuations of an edge at finite size; growth of a hundredth to order one, at a rate of
    # twice the excess; half a step of the grid.
    finite = dim ** (-2.0 / 3.0) + np.log(100.0) / (2.0 * steps) + 0.5 * width
    value, sem = mean_and_error(np.array(critical))
    checks = [
        Check(
            quantity="lr times the largest curvature over 2 at which the theory becomes unstable",
            predicted=1.0,
            measured=predicted,
            tolerance=finite,
        ),
        Check(
            quantity="that at which descent becomes unstable",
            predicted=1.0,
            measured=value,
            sem=sem,
            tolerance=finite,
        ),
        Check(
            quantity="stable rates above unstable ones, of theory and descent",
            predicted=0.0,
            measured=float(sum((row[:-1] & ~row[1:]).sum() for row in (grown, *unstable))),
            tolerance=0.0,
        ),
    ]
    rows = [
        {
            "lr lambda/2": float(ratio),
            "lr": float(2.0 * ratio / sharp),
            "theory unstable": bool(flag),
            "share of unstable descents": float(share),
            "largest curvature": sharp,
            "sem": sharp_sem,
        }
        for ratio, flag, share in zip(ratios, grown, unstable.mean(axis=0), strict=True)
    ]

    def in_time(ax: Axes) -> None:
        chosen = [i for i, x in enumerate(ratios) if round(abs(x - 1.0), 6) in (0.1, 0.2)]
        for k, i in enumerate(chosen):
            label = f"ηΛ/2 = {ratios[i]:.2f}"
            ax.plot(np.arange(steps + 1), theory[i], color=hue(k), label=label)
            for curve in curves[:3]:
                ax.plot(np.arange(steps + 1), curve[:, i], ":", color=hue(k), linewidth=0.8)
        scales: dict[str, Any] = {"yscale": "log", "ylim": (0.05, 100.0)}
        title = f"theory (lines), descent (dotted), d = {dim}"
        finish(ax, "steps at the rate", "training risk / that before", title=title, **scales)

    def against(ax: Axes) -> None:
        ax.plot(ratios, unstable.mean(axis=0), "o-", color=hue(0), label="descent")
        ax.plot(ratios, grown.astype(float), "s--", color=hue(1), label="theory")
        ax.axvline(1.0, color="0.4", linestyle=":", linewidth=0.8)
        title = f"largest curvature Λ = {sharp:.3g} ± {sharp_sem:.2g}"
        finish(ax, "ηΛ/2", "share of unstable runs", title=title)

    return checks, table_of(rows), [in_time, against]


CLAIMS = [
    Claim(
        id="dmft/curves",
        statement="Dynamical mean-field theory gives the curves of risk and training risk of "
        "gradient descent, for any width, with and without label noise and ridge.",
        source=_source(", figures 5, 12, 14"),
        function=_Bench.claim(_curves),
    ),
    Claim(
        id="dmft/kernels",
        statement="Correlations of weights and residuals at two times and the response to a field "
        "are those of the theory.",
        source=_source(""),
        function=_Bench.claim(_kernels),
    ),
    Claim(
        id="dmft/universality",
        statement="Networks and their replacement by Gaussian matrices follow the same theory, up "
        "to terms of order 1/d.",
        source=_source(", figure 12"),
        function=_Bench.claim(_universality),
    ),
    Claim(
        id="dmft/gaussian-labels",
        statement="Residuals on the samples are Gaussian at all times, with the variance of the "
        "theory.",
        source=_source(", figure 1"),
        function=_Bench.claim(_gaussian_labels),
    ),
    Claim(
        id="dmft/long-time",
        statement="After long times the theory reaches the solution of the static equations.",
        source=_source(""),
        function=_Bench.claim(_long_time),
    ),
    Claim(
        id="dmft/large-alpha",
        statement="As the number of samples grows the theory becomes Oja's flow.",
        source=_source(", figure 13"),
        function=_Bench.claim(_large_alpha),
    ),
    Claim(
        id="dmft/early-stopping",
        statement="Without a ridge the risk on noisy labels has a minimum in time, which is not "
        "better than Bayes' risk and close to that at the best ridge.",
        source=_source(", figure 5"),
        function=_Bench.claim(_early_stopping),
    ),
    Claim(
        id="dmft/finite-step",
        statement="The theory becomes unstable where descent does: where the learning rate times "
        "the largest curvature exceeds 2.",
        source=_source(""),
        function=_Bench.claim(_finite_step),
    ),
]
