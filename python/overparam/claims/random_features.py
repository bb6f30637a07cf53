"""The claims about random features that online SGD learns.

All of arXiv 2303.14083, derived in ``docs/papers/random_features.md``, whose section a claim names.
Rows are on the sphere, and unless a claim says otherwise the teacher is one unit of the student's
activation.

Pass rules. A statistical check allows `error_limit` standard errors, Bonferroni-corrected where it
is the largest of several deviations, over replicas that each have a first layer of their own and
average over `TEACHERS` teachers. Two terms of first order in the inverse size are left out by the
theory of the mean over first layers, and are allowed as `_finite_size` states: those of the
deterministic equivalent, 1/N + 1/K, and the fluctuations of the norm of the features. All other
allowances are the order of the first term that is left out, and are stated beside the check.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from overparam import random_features, spectra
from overparam.claims import Check, Claim
from overparam.claims._shared import (
    Bench,
    error_bars,
    error_limit,
    extrapolated,
    finish,
    hue,
    mean_and_error,
    mean_check,
    table_of,
    weighted_mean,
    worst,
    z_check,
    z_score,
)
from overparam.random_features import Problem, RiskTrajectory
from overparam.results import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from overparam.claims import Panel
    from overparam.claims._shared import Outcome

TEACHERS = 40
ROUNDING = 1e-9  # relative, allowed to exact statements
# Directions of a first layer whose eigenvalue is below this fraction of the largest are null.
NULL = 1e-13
# Mean of the law of Tracy and Widom of the largest eigenvalue of a real Wishart matrix.
TRACY_WIDOM = -1.2065336


# ---- shared --------------------------------------------------------------------------------------


class _Bench(Bench):
    """What a run of a claim was asked for, and its simulations."""

    @property
    def full(self) -> bool:
        """Whether small error bars and large sizes are asked for."""
        return self.more > 1

    def simulate(
        self, problem: Problem, t: ArrayLike, replicas: int = 8, **options: Any
    ) -> RiskTrajectory:
        """Simulate with a seed of its own, as one of the claim's jobs."""
        options = {"teachers": TEACHERS, "replicas": self.more * replicas, **options, **self.job()}
        return random_features.simulate(problem, t, **options)


def _source(where: str, *sections: str) -> str:
    page = f"docs/papers/random_features.md section {', '.join(sections)}"
    return f"arXiv 2303.14083{where}; {page}"


def _load(problem: Problem) -> float:
    """Return x = eta q/2, the share of the noise of SGD in the stationary risk."""
    return problem.lr / random_features.lr_max(problem, finite_size=False)


def _energy(activation: str) -> float:
    """Return q = E g^2."""
    return float(random_features.pair_kernel(activation, activation, 1.0))


def _norm(problem: Problem) -> float:
    """Return E |phi|^4/q^2 - 1, the relative variance of the norm of the features."""
    limit = random_features.lr_max(problem, finite_size=False)
    return limit / random_features.lr_max(problem) - 1.0


def _norm_effect(problem: Problem) -> float:
    """Return the relative growth of the stationary risk by the fluctuations of the norm.

    For a residual that varies with the norm as much as the error does.
    """
    x, excess = _load(problem), _norm(problem)
    return x * excess / (1.0 - x * (1.0 + excess))


def _equivalent(problem: Problem) -> float:
    """Return the relative first order of the deterministic equivalent."""
    return 1.0 / problem.dim + 1.0 / problem.width


def _finite_size(problem: Problem) -> float:
    """Return the relative allowance between SGD and the theory of the mean over first layers."""
    return _equivalent(problem) + _norm_effect(problem)


def _deviations(
    run: RiskTrajectory, predicted: FloatArray, allowed: float, first: int = 0
) -> list[float]:
    """Return the deviations from the theory in Gaussian errors, from an index of the times on."""
    mean, sem, count = run.mean().risk, run.sem().risk, len(run.risk)
    return [
        z_score(float(mean[i] - predicted[i]), float(sem[i]), count, allowed * float(predicted[i]))
        for i in range(first, len(mean))
    ]


def _extrapolated(
    runs: Sequence[RiskTrajectory], predicted: Sequence[FloatArray], allowed: Sequence[float]
) -> list[float]:
    """Return the relative deviations at infinite size of a fixed ratio, in Gaussian errors.

    The second of the two has twice the size. The first order is removed, the second allowed.
    """
    z = []
    for i in range(len(runs[0].t)):
        small, large = (
            (float(run.mean().risk[i] / own[i] - 1.0), float(run.sem().risk[i] / own[i]), first)
            for run, own, first in zip(runs, predicted, allowed, strict=True)
        )
        z.append(_limit_z(small, large, len(runs[0].risk)))
    return z


def _limit_z(
    small: tuple[float, float, float], large: tuple[float, float, float], replicas: int
) -> float:
    """Return a relative deviation at infinite size, in Gaussian errors.

    The arguments are deviation, standard error and first order at two sizes of ratio 2.
    """
    value, sem = extrapolated(small[:2], large[:2], 2.0)
    return z_score(value, sem, replicas, small[2] * large[2])


def _rows(
    run: RiskTrajectory, predicted: FloatArray, allowed: float, **names: Any
) -> list[dict[str, Any]]:
    """Return the rows of the table for a simulation."""
    both = zip(run.t, run.mean().risk, run.sem().risk, predicted, strict=True)
    return [
        {
            **names,
            "tau": tau,
            "simulation": mean,
            "sem": sem,
            "theory": theory,
            "relative": mean / theory - 1.0,
            "allowed": allowed,
        }
        for tau, mean, sem, theory in both
    ]


def _late(run: RiskTrajectory) -> tuple[float, float]:
    """Return the mean over the last times and its standard error over replicas."""
    return mean_and_error(run.risk.mean(axis=1))


def _sphere(rng: np.random.Generator, count: int, dim: int) -> FloatArray:
    rows = rng.standard_normal((count, dim))
    return np.asarray(rows * np.sqrt(dim) / np.linalg.norm(rows, axis=1, keepdims=True))


class _Direct:
    """Best fits of random first layers by plain linear algebra, one teacher unit.

    Attributes
    ----------
    risk : (firsts,) array
        eps_min, in the mean over `TEACHERS` teachers.
    norm : (firsts,) array
        E[r^2 |phi|^2]/(E[r^2] q) of the residual r, from `samples` inputs; NaN without.
    """

    def __init__(
        self, problem: Problem, rng: np.random.Generator, firsts: int, *, samples: int = 0
    ) -> None:
        name, N, K = problem.activation, problem.dim, int(problem.width)
        q = _energy(name)
        self.risk, self.norm = np.empty(firsts), np.full(firsts, np.nan)
        for i in range(firsts):
            W, B = _sphere(rng, K, N), _sphere(rng, TEACHERS, N)
            gram = random_features.pair_kernel(name, name, np.clip(W @ W.T / N, -1.0, 1.0))
            cross = random_features.pair_kernel(name, name, np.clip(W @ B.T / N, -1.0, 1.0))
            s, U = np.linalg.eigh(gram)
            kept = s > NULL * s[-1]
            r = U[:, kept].T @ cross
            residual = q - (r**2 / s[kept, None]).sum(axis=0)
            self.risk[i] = residual.mean() / 2.0
            if samples:
                best = U[:, kept] @ (r / s[kept, None])
                square, weighted = np.zeros(TEACHERS), np.zeros(TEACHERS)
                for _ in range(samples // 1000):
                    xi = rng.standard_normal((1000, N)) / np.sqrt(N)
                    g = ACTIVATIONS[name](xi @ W.T)
                    error2 = (g @ best - ACTIVATIONS[name](xi @ B.T)) ** 2
                    square += error2.sum(axis=0)
                    weighted += (g**2).mean(axis=1) @ error2
                self.norm[i] = weighted.sum() / (square.sum() * q)

    def deviation(self, problem: Problem, predicted: float) -> float:
        """Return the deviation from the theory in Gaussian errors."""
        value, sem = mean_and_error(self.risk)
        allowed = _equivalent(problem) * predicted
        return z_score(value - predicted, sem, len(self.risk), allowed)


def _erf(x: FloatArray) -> FloatArray:
    from scipy.special import erf

    return np.asarray(erf(x / np.sqrt(2.0)))


ACTIVATIONS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "erf": _erf,
    "relu": lambda x: np.maximum(x, 0.0),
    "quad": lambda x: (x**2 - 1.0) / np.sqrt(2.0),
}


def _energies(activation: str, dim: int, lmax: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return eigenvalues, multiplicities and energies of degrees; the last has all above it."""
    found = random_features.sphere_spectrum(dim, activation, lmax)
    energies = found.eigenvalues * found.multiplicities
    energies[-1] += found.tail
    return found.eigenvalues, found.multiplicities, energies


def _minimal(activation: str, dim: int, width: float) -> float:
    """Return 2 eps_min/E y^2 by the law of the sphere."""
    problem = Problem(dim=dim, width=width, lr=1.0, activation=activation)
    q = _energy(activation)
    return 2.0 * random_features.minimal_risk(problem, route="sphere") / q


# ---- learning curves -----------------------------------------------------------------------------


def _curves(bench: _Bench) -> Outcome:
    dim, replicas = (240, 4) if bench.full else (120, 8)
    deltas, small_rate = (0.25, 0.5, 1.0, 2.0, 4.0), 0.1
    t = np.array([1.0 / 3.0, 1.0, 3.0, 10.0, 20.0])
    cases = [
        Problem(dim=dim, width=round(delta * dim), lr=lr)
        for lr, own in ((2.0, deltas), (small_rate, deltas[:3]))
        for delta in own
    ]
    cases += [
        Problem(dim=dim, width=dim, lr=2.0, teacher_weights=(1.0,) * units) for units in (2, 3)
    ]
    given = [problem for problem in cases[: len(deltas)] if problem.width <= 2 * dim][1:]
    bench.jobs = 2 * len(cases) + len(given)
    rows: list[dict[str, Any]] = []
    runs, z, limits_z, flow_z, means, second = [], [], [], [], [], []
    for problem in cases:
        # The small rate is the scaling in which gradient flow is the limit, at fixed eta tau.
        times = t if problem.lr > 1.0 else t[:3] * 2.0 / problem.lr
        sizes = [
            problem.replace(dim=dim // 2, width=int(problem.width) // 2),
            problem,
        ]
        both = [bench.simulate(own, times, replicas=replicas) for own in sizes]
        theory = [random_features.curve(own, times).risk for own in sizes]
        firsts = [_finite_size(own) for own in sizes]
        limits_z += _extrapolated(both, theory, firsts)
        small, large = (
            mean_and_error((run.risk / own - 1.0).mean(axis=1))
            for run, own in zip(both, theory, strict=True)
        )
        means.append(extrapolated(small, large, 2.0))
        second.append(firsts[0] * firsts[1])
        for own, run, predicted in zip(sizes, both, theory, strict=True):
            allowed = _finite_size(own)
            z += _deviations(run, predicted, allowed)
            names = {
                "N": own.dim,
                "K": own.width,
                "eta": problem.lr,
                "M": len(problem.v),
            }
            rows += _rows(run, predicted, allowed, **names)
        runs.append((problem, both[1]))
        if problem.lr < 1.0:
            flow = random_features.curve(problem, times, noise=False).risk
            # The noise of SGD adds at most x/(1 - x).
            x = _load(problem)
            flow_z += _deviations(both[1], flow, _finite_size(problem) + x / (1.0 - x))
    # The equations for a given first layer and teacher: the norm alone is left out. It acts on the
    # stationary state and, by its variance, on the way to it.
    rng, given_z = bench.rng(), []
    for problem in given:
        W, B = _sphere(rng, int(problem.width), dim), _sphere(rng, len(problem.v), dim)
        times = np.round(t * problem.width) / problem.width
        run = bench.simulate(problem, times, replicas=32, W=W, B=B, teachers=1)
        predicted = random_features.modes(problem, W, B, times, time="discrete").risk
        given_z += _deviations(run, predicted, _norm_effect(problem) + _norm(problem))
    # Towards the proportional limit.
    gaps = []
    for size in (1000, 10000):
        wide = [Problem(dim=size, width=round(delta * size), lr=2.0) for delta in deltas]
        gaps.append(
            max(
                float(
                    np.abs(
                        random_features.curve(problem, t).risk
                        / random_features.proportional(problem, t).risk
                        - 1.0
                    ).max()
                )
                for problem in wide
            )
        )
    checks = [
        mean_check(
            f"relative deviation of SGD from theory, mean over {len(cases)} curves, extrapolated "
            f"in 1/N from N = {dim // 2}, {dim}",
            0.0,
            weighted_mean(means),
            max(second),
        ),
        z_check("the same of every point", limits_z),
        z_check("risk of SGD against the curve of any N and K, at each size", z),
        z_check("risk of SGD against the equations for the given first layer and teacher", given_z),
        z_check("risk of SGD at rate 0.1 against gradient flow at t = eta tau", flow_z),
        Check(
            quantity="curve / curve of the proportional limit - 1: exponent of N",
            predicted=-1.0,
            measured=math.log10(gaps[1] / gaps[0]),
            # The next term is smaller by 1/N, with coefficients of order the degree squared.
            tolerance=0.02,
        ),
    ]
    grid = np.geomspace(0.02, 30.0, 120)

    def panel(lr: float, units: Sequence[int], title: str, time: str) -> Callable[[Axes], None]:
        def draw(ax: Axes) -> None:
            chosen = [
                (problem, run)
                for problem, run in runs
                if problem.lr == lr
                and len(problem.v) in units
                and (len(units) == 1 or problem.width == problem.dim)
            ]
            scale = lr if lr < 1.0 else 1.0
            for i, (problem, run) in enumerate(chosen):
                delta, own = problem.width / problem.dim, grid / scale
                name = f"M = {len(problem.v)}" if len(units) > 1 else f"δ = {delta:g}"
                line = random_features.curve(problem, own).risk
                limit = random_features.proportional(problem, own, noise=lr > 1.0).risk
                ax.plot(grid, line, color=hue(i), label=name)
                ax.plot(grid, limit, ":", color="k", linewidth=1.0)
                error_bars(ax, run.t * scale, run.mean().risk, run.sem().risk, hue(i))
            finish(ax, time, "risk ε", title=title, xscale="log", yscale="log")

        return draw

    drawn: list[Panel] = [
        panel(2.0, (1,), f"η = 2: SGD, theory, N → ∞ (dotted), N = {dim}", "τ = steps/K"),
        panel(0.1, (1,), "η = 0.1: SGD, theory, gradient flow (dotted)", "t = ητ"),
        panel(2.0, (1, 2, 3), "δ = 1, η = 2, M teacher units", "τ = steps/K"),
    ]
    return checks, table_of(rows), drawn


# ---- the asymptotic error ------------------------------------------------------------------------


def _asymptotic_error(bench: _Bench) -> Outcome:
    dim, replicas = (240, 2) if bench.full else (120, 8)
    deltas, rates, units = (0.25, 0.5, 1.0, 2.0, 4.0), (1.0, 3.0), (1, 2, 3)
    rho = 1.0 / (math.pi * (1.0 / 3.0 - 1.0 / math.pi))

    def closed(delta: float, lr: float, count: int) -> float:
        b = 1.0 + rho * (delta - 1.0)
        h = (math.sqrt(b * b + 4.0 * rho) - b) / (2.0 * rho)
        return count / 2.0 * (h / math.pi + 1.0 / 3.0 - 1.0 / math.pi) / (1.0 - lr / 6.0)

    def erf(delta: float, lr: float, count: int = 1, size: int = 1000) -> Problem:
        width = round(delta * size)
        return Problem(dim=size, width=width, lr=lr, teacher_weights=(1.0,) * count)

    stationary, minimal = random_features.stationary_risk, random_features.minimal_risk
    exact = [
        found / closed(delta, lr, count) - 1.0
        for delta in (0.01, *deltas, 100.0)
        for count in units
        for lr, found in (
            (0.0, minimal(erf(delta, 1.0, count))),
            *((eta, stationary(erf(delta, eta, count))) for eta in (*rates, 5.9)),
        )
    ]
    wide = 1e6
    floor = 0.5 * (1.0 / 3.0 - 1.0 / math.pi)
    excess = [minimal(erf(wide, 1.0, count)) / (count * floor) - 1.0 for count in units]
    ends = [minimal(erf(delta, 1.0)) / floor for delta in np.geomspace(0.01, 1e4, 61)]
    # Gradient flow, then SGD, at finite size. The slow modes of SGD have a rest, which the curve
    # knows.
    bench.jobs = 2 * len(deltas) * len(rates)
    rows: list[dict[str, Any]] = []
    rng, flow_z, sgd_z, limit_z, points = bench.rng(), [], [], [], []
    late, firsts = np.linspace(30.0, 40.0, 11), 16 * bench.more
    for delta in deltas:
        found = []
        for size in (dim // 2, dim):
            problem = erf(delta, 1.0, size=size)
            predicted = minimal(problem, route="sphere")
            value, sem = mean_and_error(_Direct(problem, rng, firsts).risk)
            found.append((value / predicted - 1.0, sem / predicted, _equivalent(problem)))
        flow_z.append(_limit_z(found[0], found[1], firsts))
        points.append((delta, 0.0, value, sem))
        names = {"delta": delta, "eta": 0.0, "simulation": value, "sem": sem, "theory": predicted}
        rows.append({**names, "N -> inf": closed(delta, 0.0, 1)})
        for lr in rates:
            found = []
            for size in (dim // 2, dim):
                problem = erf(delta, lr, size=size)
                run = bench.simulate(problem, late, replicas=replicas)
                value, sem = _late(run)
                predicted = float(random_features.curve(problem, late).risk.mean())
                allowed = _finite_size(problem)
                sgd_z.append(z_score(value - predicted, sem, len(run.risk), allowed * predicted))
                found.append((value / predicted - 1.0, sem / predicted, allowed))
            limit_z.append(_limit_z(found[0], found[1], len(run.risk)))
            rest = predicted / stationary(problem, route="sphere")
            points.append((delta, lr, value / rest, sem / rest))
            names = {"delta": delta, "eta": lr, "simulation": value / rest, "sem": sem / rest}
            rows.append(
                {**names, "theory": predicted / rest, "N -> inf": closed(delta, lr, 1)},
            )
    end = [
        float(random_features.curve(erf(delta, lr, size=dim), [1e4]).risk[0])
        / stationary(erf(delta, lr, size=dim), route="sphere")
        - 1.0
        for delta in deltas
        for lr in rates
    ]
    checks = [
        z_check(
            "risk of SGD, tau = 30 to 40, against theory, extrapolated in 1/N from "
            f"N = {dim // 2}, {dim}",
            limit_z,
        ),
        z_check("risk of SGD, tau = 30 to 40, against theory, at each size", sgd_z),
        z_check(
            "risk of the best fit, limit of gradient flow, against theory, extrapolated from the "
            "same sizes",
            flow_z,
        ),
        Check(
            quantity="eps_inf / (M/2) [h(delta)/pi + 1/3 - 1/pi]/(1 - eta/6) - 1, worst",
            predicted=0.0,
            measured=worst(exact),
            tolerance=ROUNDING,
        ),
        Check(
            quantity=f"delta (eps_min / ((M/2) (1/3 - 1/pi)) - 1) at delta = {wide:g}",
            predicted=1.0,
            measured=worst(wide * np.array(excess), 1.0),
            # The next order of h in 1/delta, beside the rounding of a difference of order 1/delta.
            tolerance=10.0 / wide + 1e-14 * wide,
        ),
        Check(
            quantity="eps_min in units of the floor, smallest of delta = 0.01 to 10^4",
            predicted=1.0,
            measured=min(ends),
            tolerance=0.0,
            side="above",
        ),
        Check(
            quantity="the theory's curve at tau = 10^4 / eps_inf - 1, worst",
            predicted=0.0,
            measured=worst(end),
            tolerance=1e-6,  # the slowest mode at rate 1 has decayed to exp(-300)
        ),
    ]
    grid = np.geomspace(0.05, 20.0, 120)

    def errors(ax: Axes) -> None:
        for i, lr in enumerate((0.0, *rates)):
            line = [closed(delta, lr, 1) for delta in grid]
            ax.plot(grid, line, color=hue(i), label="η → 0" if lr == 0.0 else f"η = {lr:g}")
            own = np.array([point for point in points if point[1] == lr])
            error_bars(ax, own[:, 0], own[:, 2], own[:, 3], hue(i))
        ax.axhline(floor, color="k", linestyle=":", label="floor, δ → ∞, η → 0")
        title = f"erf: N → ∞ (lines), SGD and best fits at N = {dim}"
        finish(ax, "δ = K/N", "ε∞", title=title, xscale="log", yscale="log")

    def floors(ax: Axes) -> None:
        x = np.geomspace(0.1, 1e4, 120)
        for i, count in enumerate(units):
            line = np.array([closed(delta, 0.0, count) for delta in x])
            ax.plot(x, line / (count * floor) - 1.0, "-" if i == 0 else "--", color=hue(i))
        ax.plot(x, 1.0 / x, "k:", label="1/δ")
        finish(
            ax,
            "δ = K/N",
            "ε_min/floor − 1",
            title="the floor (M/2)(1/3 − 1/π), M = 1, 2, 3",
            xscale="log",
            yscale="log",
        )

    return checks, table_of(rows), [errors, floors]


# ---- the learning rate ---------------------------------------------------------------------------


def _learning_rate(bench: _Bench) -> Outcome:
    dim = 100
    cases = [Problem(dim=dim, width=dim, lr=lr) for lr in (1.0, 2.0, 3.0, 4.0, 4.5)]
    others = [
        Problem(dim=dim, width=dim // 2, lr=2.0, activation="relu"),
        Problem(dim=dim, width=2 * dim, lr=1.0, activation="quad"),
    ]
    bench.jobs = len(cases) + len(others) + 2
    rng = bench.rng()
    # The residual and its dependence on the norm do not depend on the rate.
    direct: dict[tuple[str, float], _Direct] = {}
    rows: list[dict[str, Any]] = []
    z, ratios, refuted = [], [], []
    for problem in (*cases, *others):
        key, replicas = (problem.activation, problem.width), 8 if problem in cases else 16
        if key not in direct:
            direct[key] = _Direct(problem, rng, replicas * bench.more, samples=4000)
        own = direct[key]
        late = np.linspace(40.0, 60.0, 21)
        run = bench.simulate(problem, late, replicas=replicas)
        # What is left of slow modes, in the theory.
        rest = float(random_features.curve(problem, late).risk.mean())
        rest /= random_features.stationary_risk(problem, route="sphere")
        value, sem = (number / rest for number in _late(run))
        residual, residual_sem = mean_and_error(own.risk)
        x, norm, excess = _load(problem), float(own.norm.mean()), _norm(problem)
        full = 1.0 + x * norm / (1.0 - x * (1.0 + excess))
        measured = value / residual
        error = measured * math.hypot(sem / value, residual_sem / residual)
        # Both effects are of first order in the inverse size: the second is their square.
        first = _norm_effect(problem) + x * abs(norm - 1.0) / (1.0 - x * (1.0 + excess))
        z.append(z_score(measured - full, error, len(run.risk), full * first**2))
        plain = 1.0 / (1.0 - x)
        if problem in others:
            refuted.append((measured - plain) / error)
        ratios.append((problem, measured, error))
        rows.append(
            {
                "activation": problem.activation,
                "K": problem.width,
                "eta": problem.lr,
                "eps_inf": value,
                "sem": sem,
                "eps_inf/eps_min": measured,
                "its sem": error,
                "1/(1 - x)": plain,
                "with chi": full,
                "chi": 1.0 + excess,
                "chi_r": norm,
            }
        )
    # Beyond the limit of stability and below it, in the median over replicas.
    base = cases[0]
    limit = random_features.lr_max(base)
    late = np.array([10.0, 60.0])
    growth = []
    for factor in (0.8, 1.25):
        problem = base.replace(lr=factor * limit)
        run = bench.simulate(problem, late, replicas=16, teachers=1, throw=False)
        risk = np.where(np.isfinite(run.risk), run.risk, np.inf)
        growth.append(
            float(np.median(risk[:, 1] / risk[:, 0])) if factor < 1 else _grown(problem, run)
        )
    checks = [
        z_check("eps_inf/eps_min against 1 + x chi_r/(1 - x chi)", z),
        Check(
            quantity="relu, quad: smallest excess over 1/(1 - x), without the fluctuations of the "
            "norm, in standard errors",
            predicted=error_limit(len(refuted), 16 * bench.more),
            measured=min(refuted),
            tolerance=0.0,
            side="above",
        ),
        Check(
            quantity="rate 0.8 lr_max: median of eps(60)/eps(10)",
            predicted=1.0,
            measured=growth[0],
            # A stationary risk; in the median, which wanders by less than a factor of two.
            tolerance=1.0,
            side="below",
        ),
        Check(
            quantity="rate 1.25 lr_max: share of the replicas that grow beyond E y^2 by tau = 60",
            predicted=1.0,
            measured=growth[1],
            tolerance=0.0,
        ),
        Check(
            quantity="finite-size limit of stability, erf, N = 100, K = 50",
            predicted=6.0 / (1.0 + 0.8 / 50 + 6.0 / math.pi**2 / 100),
            measured=random_features.lr_max(base.replace(width=50)),
            tolerance=ROUNDING,
        ),
    ]
    grid = np.linspace(0.05, 0.97 * limit, 150)

    def errors(ax: Axes) -> None:
        def line(finite: bool) -> list[float]:
            return [
                random_features.stationary_risk(
                    base.replace(lr=float(lr)), route="sphere", finite_size=finite
                )
                for lr in grid
            ]

        ax.plot(grid, line(True), color=hue(0), label="with the fluctuations of the norm")
        ax.plot(grid, line(False), "--", color=hue(1), label="without")
        own = [row for row in rows if row["activation"] == "erf"]
        x, y, e = (np.array([row[name] for row in own]) for name in ("eta", "eps_inf", "sem"))
        error_bars(ax, x, y, e, "k", label="SGD")
        ax.axvline(limit, color="k", linestyle=":", linewidth=0.8)
        finish(ax, "learning rate η", "ε∞", title=f"erf, N = K = {dim}", yscale="log")

    def relative(ax: Axes) -> None:
        for i, (problem, value, error) in enumerate(ratios):
            plain = 1.0 / (1.0 - _load(problem))
            error_bars(ax, [i], [value / plain - 1.0], [error / plain], "k")
            ax.plot(i, rows[i]["with chi"] / plain - 1.0, "_", color=hue(0), markersize=18)
        labels = [f"{p.activation}\nη = {p.lr:g}" for p, _, _ in ratios]
        ax.set_xticks(range(len(labels)), labels, fontsize="x-small")
        ax.axhline(0.0, color=hue(1), linestyle="--", label="1/(1 − x)")
        ax.plot([], [], "_", color=hue(0), markersize=12, label="with χ and χ_r")
        title = "finite-size factor: SGD (points)"
        finish(ax, "activation and rate", "(ε∞/ε_min)(1 − x) − 1", title=title)

    return checks, table_of(rows), [errors, relative]


def _grown(problem: Problem, run: RiskTrajectory) -> float:
    """Return the share of the replicas whose risk exceeds E y^2 at the end."""
    assert run.diverged is not None
    if run.diverged.all():
        return 1.0
    q = _energy(problem.activation)
    return float(np.mean(run.diverged | (run.risk[:, -1] > q)))


# ---- the staircase in the width ------------------------------------------------------------------


def _width_staircase(bench: _Bench) -> Outcome:
    names = ("erf", "relu", "quad")
    widths = (8, 32, 128, 512) if not bench.full else (2, 8, 32, 128, 512, 1024)
    dims = (10, 20, 50) if not bench.full else (10, 20, 50, 100)
    rng = bench.rng()
    rows: list[dict[str, Any]] = []
    z, points = [], []
    for name, dim, width in itertools.product(names, dims, widths):
        if name == "quad" and width >= dim * (dim + 1) // 2:
            continue
        problem = Problem(dim=dim, width=width, lr=1.0, activation=name)
        direct = _Direct(problem, rng, (8 if width <= 128 else 4) * bench.more)
        predicted = random_features.minimal_risk(problem, route="sphere")
        z.append(direct.deviation(problem, predicted))
        value, sem = mean_and_error(direct.risk)
        points.append((name, dim, width, value, sem))
        rows.append(
            {
                "activation": name,
                "N": dim,
                "K": width,
                "direct": value,
                "sem": sem,
                "theory": predicted,
                "relative": value / predicted - 1.0,
                "allowed": _equivalent(problem),
            }
        )
    # Large N: steps, and the plateaus between them.
    steps, plateaus = [], []
    for name, degrees in (("erf", (1, 3, 5)), ("relu", (2, 4))):
        dim = 100
        lam, count, energy = _energies(name, dim, 400)
        for degree in degrees:
            above = float(energy[degree + 1 :].sum())
            K = float(round(count[degree]))
            ratio, rho = K / count[degree], energy[degree] / above
            b = 1.0 + rho * (ratio - 1.0)
            h = (math.sqrt(b * b + 4.0 * rho) - b) / (2.0 * rho)
            expected = (energy[degree] * h + above) / energy.sum()
            # The degrees below have left their number, relatively, of the risk and of the width; of
            # that above as much is learned. At K = B_l the logarithm of h has slope -sqrt(rho)/2.
            below = float(count[:degree][lam[:degree] > 0.0].sum()) / count[degree]
            allowed = (below + count[degree] / count[degree + 2]) * (2.0 + math.sqrt(rho) / 2.0)
            steps.append((_minimal(name, dim, K) / expected - 1.0) / allowed)
            middle = float(round(math.sqrt(count[degree] * count[degree + 2])))
            allowed = count[degree] / middle + middle / count[degree + 2]
            plateau = above / energy.sum()
            plateaus.append((_minimal(name, dim, middle) / plateau - 1.0) / allowed)
    grid = np.unique(np.round(np.geomspace(1.0, 1e12, 200)))
    decay = []
    for name, dim in itertools.product(("erf", "relu"), (10, 30, 100)):
        line = np.array([_minimal(name, dim, width) for width in grid])
        decay.append(float(np.max(np.diff(line) / line[:-1])))
    positive = min(
        _minimal(name, dim, 1e12) for name, dim in itertools.product(("erf", "relu"), (10, 30, 100))
    )
    # Polynomials of degree two: all is learned at N(N + 1)/2.
    dim = 10
    whole = dim * (dim + 1) // 2
    best = [
        2.0 * mean_and_error(_Direct(problem, rng, 4).risk)[0]
        for problem in (
            Problem(dim=dim, width=width, lr=1.0, activation="quad") for width in (whole - 1, whole)
        )
    ]
    checks = [
        z_check("best fit by direct linear algebra against theory", z),
        Check(
            quantity="N = 100: risk at K = B_l / formula of the step - 1, over what it leaves out",
            predicted=0.0,
            measured=worst(steps),
            tolerance=1.0,
        ),
        Check(
            quantity="N = 100: risk between two steps / energy above - 1, over what this leaves "
            "out",
            predicted=0.0,
            measured=worst(plateaus),
            tolerance=1.0,
        ),
        Check(
            quantity="erf, relu: largest relative growth of the risk with K up to 10^12",
            predicted=0.0,
            measured=max(decay),
            tolerance=0.0,
            side="below",
        ),
        Check(
            quantity="erf, relu: smallest 2 eps_min/E y^2 at K = 10^12 (must be positive)",
            predicted=1e-285,  # what is resolved
            measured=positive,
            tolerance=0.0,
            side="above",
        ),
        Check(
            quantity="quad, N = 10: 2 eps_min by direct algebra at K = N (N + 1)/2",
            predicted=0.0,
            measured=best[1],
            tolerance=ROUNDING,
        ),
        Check(
            quantity="quad, N = 10: 2 eps_min by direct algebra at one unit less, over E y^2/K",
            predicted=1.0,
            measured=best[0] * whole,
            # One of the harmonics of equal energy is missing, up to the fluctuation of its square.
            tolerance=0.5,
        ),
        Check(
            quantity="quad: 2 eps_min in theory at K = N (N + 1)/2",
            predicted=0.0,
            measured=max(_minimal("quad", n, n * (n + 1) // 2) for n in (3, 10, 100)),
            tolerance=0.0,
        ),
    ]

    def panel(name: str, top: float) -> Callable[[Axes], None]:
        def draw(ax: Axes) -> None:
            x = np.unique(np.round(np.geomspace(1.0, top, 160)))
            q = _energy(name)
            for i, n in enumerate((3, 5, 10, 20, 50, 100)):
                line = np.array([_minimal(name, n, width) for width in x])
                line[line <= 0.0] = np.nan
                ax.plot(x, line, color=hue(i), label=f"N = {n}")
                own = np.array([p[2:] for p in points if p[:2] == (name, n)])
                if len(own):
                    error_bars(ax, own[:, 0], 2.0 * own[:, 1] / q, 2.0 * own[:, 2] / q, hue(i))
            limits = (1e-6, 1.5)
            title = f"{name}: theory, direct algebra (points)"
            finish(
                ax,
                "width K",
                "2 ε_min / E y²",
                title=title,
                xscale="log",
                yscale="log",
                ylim=limits,
            )

        return draw

    return checks, table_of(rows), [panel("erf", 1e12), panel("relu", 1e12), panel("quad", 1e4)]


# ---- the width that an error needs ---------------------------------------------------------------


def _degree(activation: str, tol: float) -> tuple[int, float]:
    """Return the highest degree l that must be learned at large N, and a sensitivity.

    At large N degrees are orders of the Hermite series, and K = B_l r/(tol - r) with the share r of
    the degrees above: the sensitivity is the relative growth of K in units of 1/N, for energies and
    multiplicities that change by the square of the degree over N.
    """
    kappa = random_features.hermite(activation, 100).kappa
    shares = kappa / _energy(activation)
    left = 1.0 - np.cumsum(shares)
    degree = int(np.argmax(left < tol))
    orders = np.arange(degree + 1) ** 2
    moved = float(orders @ shares[: degree + 1]) / (tol - float(left[degree]))
    return degree, moved + degree**2


def _exponential_width(bench: _Bench) -> Outcome:
    needed = random_features.width_for
    tols, dims = (0.1, 0.01, 1e-3), (4, 6, 8, 10, 15, 20, 30, 50, 100)
    names = ("erf", "relu", "quad")
    rows = [
        {"tol": tol, "activation": name}
        | {f"N = {n}": needed(n, tol, activation=name) for n in dims}
        for tol in tols
        for name in names
    ]
    # It is the inverse of the minimal risk.
    brackets = []
    for name, tol, n in itertools.product(("erf", "relu"), tols, (4, 10, 30)):
        width = needed(n, tol, activation=name)
        inside, outside = math.ceil(width), max(math.floor(width), 1)
        if inside > outside:
            brackets += [tol / _minimal(name, n, inside), _minimal(name, n, outside) / tol]
    # Direct linear algebra at that width.
    rng, z, points = bench.rng(), [], []
    cases = [("erf", 10, 0.1), ("erf", 10, 0.01), ("erf", 20, 0.1), ("relu", 6, 0.01)]
    if bench.full:
        cases += [("erf", 15, 0.01), ("relu", 10, 0.01), ("erf", 6, 1e-3), ("relu", 20, 0.1)]
    for name, n, tol in cases:
        width = round(needed(n, tol, activation=name))
        problem = Problem(dim=n, width=width, lr=1.0, activation=name)
        direct = _Direct(problem, rng, 8 * bench.more)
        predicted = random_features.minimal_risk(problem, route="sphere")
        z.append(direct.deviation(problem, predicted))
        value, sem = mean_and_error(direct.risk)
        unit = _energy(name) * tol / 2.0
        points.append((name, n, width, value / unit, sem / unit))
    # And the power of the width itself. What first layers change of the risk is of order 1/N.
    logs = []
    for width in (128, 1024):
        problem = Problem(dim=4, width=width, lr=1.0, activation="relu")
        value, sem = mean_and_error(_Direct(problem, rng, 8 * bench.more).risk)
        theory = random_features.minimal_risk(problem, route="sphere")
        logs.append((math.log(value), sem / value, math.log(theory)))
    span = math.log(8.0)
    slopes = [(logs[1][i] - logs[0][i]) / span for i in (0, 2)]
    slope = (slopes[0], math.hypot(logs[0][1], logs[1][1]) / span)
    # Vanishing error at fixed N: the highest degree L has K = L^(N - 1)/(N - 2)! up to a factor.
    relu, erf = [], []
    for n in (4, 6, 8, 10):
        low, high = (needed(n, tol, activation="relu") for tol in (1e-9, 1e-12))
        exponent = math.log(high / low) / math.log(1e3)
        # eps ~ L^-3, with relative corrections of order N/L, largest at the larger error.
        relu.append((exponent / ((n - 1) / 3.0) - 1.0) / (n / 1e3))
    for n in (3, 4, 6):
        low, high = (needed(n, tol) for tol in (1e-100, 1e-200))
        exponent = math.log(2.0) / math.log(high / low)
        # log(1/eps) is linear in L with slope log(7 + 4 sqrt 3)/2 + O(log(L)/L) of powers of L,
        # not more than L^N.
        degree = math.log(1e100) / math.log(2.0 + math.sqrt(3.0))
        erf.append((exponent * (n - 1) - 1.0) / (n * math.log(degree) / degree))
    # Fixed error at large N: the degree that must be learned.
    sizes = (10**4, 10**5)
    powers = []
    for name, tol in itertools.product(("erf", "relu"), tols):
        low, high = (needed(n, tol, activation=name) for n in sizes)
        degree, sensitivity = _degree(name, tol)
        # Corrections to N^l/l! and to the energies of all that is learned are of order l^2/N.
        allowed = sensitivity / sizes[0] / math.log(10.0)
        powers.append((degree, math.log10(high / low), allowed))
    slack = [(found - degree) / allowed for degree, found, allowed in powers]
    polynomial = max(
        needed(n, tol, activation="quad") / (n * (n + 1) / 2)
        for n in (3, 10, 100, 1000)
        for tol in (1e-3, 1e-9)
    )
    linear = max(needed(n, 1e-9, activation="linear") / n for n in (3, 10, 100, 1000))
    checks = [
        Check(
            quantity="relu, eps -> 0: exponent of 1/eps in K* over (N - 1)/3, - 1, worst over N/L",
            predicted=0.0,
            measured=worst(relu),
            tolerance=1.0,
        ),
        Check(
            quantity="erf, eps -> 0: exponent of K* in log 1/eps over 1/(N - 1), - 1, worst over "
            "N log(L)/L",
            predicted=0.0,
            measured=worst(erf),
            tolerance=1.0,
        ),
        Check(
            quantity="fixed error, N = 10^4 to 10^5: exponent of N in K* - degree, worst over what "
            "this leaves out (polynomial in N, not exponential)",
            predicted=0.0,
            measured=worst(slack),
            tolerance=1.0,
        ),
        Check(
            quantity="quad: K*/(N (N + 1)/2), largest, at errors down to 1e-9 (polynomial in N)",
            predicted=1.0,
            measured=polynomial,
            tolerance=ROUNDING,
            side="below",
        ),
        Check(
            quantity="linear: K*/N, largest, at error 1e-9 (polynomial in N)",
            predicted=1.0,
            measured=linear,
            tolerance=ROUNDING,
            side="below",
        ),
        Check(
            quantity="minimal risk brackets the error at the integers beside K*, smallest ratio",
            predicted=1.0,
            measured=min(brackets),
            tolerance=ROUNDING,
            side="above",
        ),
        z_check("risk by direct linear algebra at K* against theory", z),
        mean_check(
            "relu, N = 4: slope of log risk in log K by direct linear algebra, K = 128 to 1024",
            slopes[1],
            slope,
            1.0 / 4.0 / span,
            8 * bench.more,
        ),
    ]

    def at_fixed_error(ax: Axes) -> None:
        x = np.arange(3, 101)
        for i, (name, tol) in enumerate(
            (("erf", 0.1), ("erf", 0.01), ("erf", 1e-3), ("relu", 0.01), ("relu", 1e-3))
        ):
            style = "-" if name == "erf" else "--"
            line = [needed(int(n), tol, activation=name) for n in x]
            ax.plot(x, line, style, color=hue(i), label=f"{name}, {tol:g}")
        line = [needed(int(n), 1e-3, activation="quad") for n in x]
        ax.plot(x, line, ":", color="k", label="quad, 0.001")
        title = "width for 2 ε_min / E y² = tol"
        finish(ax, "dimension N", "K*", title=title, xscale="log", yscale="log")

    def powers_of_error(ax: Axes) -> None:
        x = np.geomspace(1e-8, 0.1, 60)
        for i, n in enumerate((4, 6, 8, 10)):
            line = [needed(n, float(tol), activation="relu") for tol in x]
            ax.plot(1.0 / x, line, color=hue(i), label=f"relu, N = {n}")
            guide = line[0] * (x / x[0]) ** (-(n - 1) / 3.0)
            ax.plot(1.0 / x, guide, "k:", linewidth=0.8)
        title = "K* ~ ε^(−(N−1)/3) (dotted)"
        finish(ax, "1/tol", "K*", title=title, xscale="log", yscale="log")

    def logarithms(ax: Axes) -> None:
        x = np.geomspace(1e-200, 0.1, 60)
        for i, n in enumerate((3, 4, 6)):
            line = np.array([needed(n, float(tol)) for tol in x])
            ax.plot(-np.log(x), line ** (1.0 / (n - 1)), color=hue(i), label=f"erf, N = {n}")
        finish(ax, "log(1/tol)", "K*^(1/(N−1))", title="erf: log(1/ε) ~ K^(1/(N−1))")

    def tested(ax: Axes) -> None:
        for i, (name, _, _, ratio, sem) in enumerate(points):
            error_bars(ax, [i], [ratio], [sem], hue(names.index(name)))
        labels = [f"{name}\nN = {n}\nK = {width}" for name, n, width, *_ in points]
        ax.set_xticks(range(len(points)), labels, fontsize="x-small")
        ax.axhline(1.0, color="k", linewidth=0.8, label="theory")
        finish(ax, "activation, N, K*", "direct risk / tol", title="direct algebra at K*")

    return checks, table_of(rows), [at_fixed_error, powers_of_error, logarithms, tested]


# ---- the staircase in time -----------------------------------------------------------------------


def _time_staircase(bench: _Bench) -> Outcome:
    # SGD of a wide student.
    cases = [
        Problem(dim=30, width=1500 if bench.full else 1000, lr=2.0),
        Problem(dim=20, width=1000 if bench.full else 600, lr=1.0, activation="relu"),
    ]
    t = (0.03, 0.1, 0.3, 1.0, 3.0, *((10.0,) if bench.full else ()))
    bench.jobs = len(cases)
    rows: list[dict[str, Any]] = []
    z, runs = [], []
    for problem in cases:
        times = np.round(np.array(t) * problem.width) / problem.width
        run = bench.simulate(problem, times, replicas=16 if not bench.full else 4)
        predicted = random_features.curve(problem, times).risk
        allowed = _finite_size(problem)
        z += _deviations(run, predicted, allowed)
        runs.append((problem, run))
        names = {"activation": problem.activation, "N": problem.dim, "K": problem.width}
        rows += _rows(run, predicted, allowed, **names, steps=0)
    for row in rows:
        row["steps"] = round(row["tau"] * row["K"])
    # Infinite width: every degree l is learned after 1/(2 eta lambda_l) steps.
    size, rounding = 1000, 1e-6
    learned, onset, plateaus = [], [], []
    steps: list[tuple[str, int, float]] = []
    for name, degrees in (("erf", (1, 3, 5)), ("relu", (1, 2, 4)), ("quad", (2,))):
        problem = Problem(dim=size, width=math.inf, lr=0.5, activation=name)
        value, _, energy = _energies(name, size, 12)
        mu = random_features.hermite(name, 12).mu
        present = [degree for degree in range(12) if value[degree] > 0.0]
        for degree in degrees:
            above = float(energy[degree + 1 :].sum())
            goal = (above + energy[degree] * math.exp(-1.0)) / 2.0
            time = _crossing(problem, goal)
            steps.append((name, degree, time))
            later = [value[k] for k in present if k > degree][:1] or [0.0]
            earlier = [value[k] for k in present if k < degree][-1:]
            # Degree l + 2 has begun; of the degree below exp(-lambda ratio) is left; a step is
            # discrete by 2 eta lambda.
            left = sum(float(energy[degree - 1]) * math.exp(-e / value[degree]) for e in earlier)
            allowed = (
                3.0 * above / energy[degree] * later[0] / value[degree] + left + 2.0 * value[degree]
            )
            learned.append((2.0 * problem.lr * value[degree] * time - 1.0) / (allowed + rounding))
            # lambda_l = mu_l^2/N^l up to l^2/N.
            predicted = size**degree / (2.0 * problem.lr * mu[degree] ** 2)
            onset.append((time / predicted - 1.0) / (2.0 * degree**2 / size + allowed))
            if not later[0]:
                continue
            # Between two steps S is quasi-static: what is above, with the noise of what is learned.
            middle = 1.0 / (2.0 * problem.lr * math.sqrt(value[degree] * later[0]))
            x = problem.lr * float(energy[: degree + 1].sum()) / 2.0
            found = float(random_features.curve(problem, [float(round(middle))]).risk[0])
            slow = 2.0 * problem.lr * middle * later[0]
            plateaus.append((2.0 * found * (1.0 - x) / above - 1.0) / (2.0 * slow))
    # Finite width with K >> all of this, and no floor.
    late = np.array([1e3, 1e4, 1e5])
    base = Problem(dim=20, width=10**13, lr=2.0)
    kernel = random_features.curve(base.replace(width=math.inf), late).risk
    wide = random_features.curve(base, late / base.width).risk
    ends, bounds, long = [], [], 1e15
    for name in ("erf", "quad"):
        problem = Problem(dim=5, width=math.inf, lr=1.0, activation=name)
        value, _, energy = _energies(name, problem.dim, 60)
        # exp(-y) < 1/(1 + y), with the noise of what is learned.
        bound = float((energy / (1.0 + 2.0 * problem.lr * value * long)).sum())
        bounds.append(bound / 2.0 / (1.0 - _load(problem)))
        ends.append(float(random_features.curve(problem, [long]).risk[0]))
    checks = [
        z_check("risk of SGD against the curve of any N and K", z),
        Check(
            quantity="K = inf: 2 eta lambda_l steps until degree l is learned, - 1, worst over "
            "what this leaves out",
            predicted=0.0,
            measured=worst(learned),
            tolerance=1.0,
        ),
        Check(
            quantity=f"K = inf, N = {size}: steps / (N^l/(2 eta mu_l^2)) - 1, worst over what this "
            "leaves out",
            predicted=0.0,
            measured=worst(onset),
            tolerance=1.0,
        ),
        Check(
            quantity="K = inf: risk between two steps / energy above/(1 - x) - 1, worst over what "
            "this leaves out",
            predicted=0.0,
            measured=worst(plateaus),
            tolerance=1.0,
        ),
        Check(
            quantity="K = 10^13 against K = inf from 10^3 steps on, relative, worst",
            predicted=0.0,
            measured=worst(wide / kernel - 1.0),
            # Continuous time against steps: the degrees that move have 2 eta lambda n of order one.
            tolerance=10.0 / late[0] ** 2 + 1e-5,
        ),
        Check(
            quantity="K = inf, N = 5: risk after 10^15 steps, erf",
            predicted=0.0,
            measured=ends[0],
            tolerance=bounds[0],
            side="below",
        ),
        Check(
            quantity="K = inf, N = 5: risk after 10^15 steps, quad",
            predicted=0.0,
            measured=ends[1],
            tolerance=bounds[1],
            side="below",
        ),
    ]

    def wide_panel(ax: Axes) -> None:
        for i, (p, run) in enumerate(runs):
            q = _energy(p.activation)
            grid = np.geomspace(1.0 / p.width, 1e4, 150)
            line = 2.0 * random_features.curve(p, grid).risk / q
            label = f"{p.activation}, N = {p.dim}, K = {p.width}"
            ax.plot(grid * p.width, line, color=hue(i), label=label)
            error_bars(
                ax, run.t * p.width, 2.0 * run.mean().risk / q, 2.0 * run.sem().risk / q, hue(i)
            )
        finish(ax, "steps", "2ε / E y²", title="K ≫ N: theory, SGD", xscale="log", yscale="log")

    def staircase(ax: Axes) -> None:
        problem = Problem(dim=100, width=10**4, lr=1.0)
        n = np.geomspace(1.0, 1e16, 250)
        for i, width in enumerate((10**2, 10**4, 10**6, 10**8)):
            line = random_features.curve(problem.replace(width=width), n / width).risk
            ax.plot(n, line, color=hue(i), label=f"K = 1e{round(math.log10(width))}")
        limit = random_features.curve(problem.replace(width=math.inf), np.unique(np.round(n))).risk
        ax.plot(np.unique(np.round(n)), limit, "k--", label="K = ∞")
        title = "erf, N = 100, η = 1: degrees 1, 3, 5, 7"
        finish(ax, "steps", "risk ε", title=title, xscale="log", yscale="log", ylim=(1e-6, 0.4))

    def times_panel(ax: Axes) -> None:
        for i, name in enumerate(("erf", "relu")):
            own = np.array([(degree, time) for label, degree, time in steps if label == name])
            ax.plot(own[:, 0], own[:, 1], "o", color=hue(i), label=f"{name}, N = {size}")
            mu = random_features.hermite(name, 12).mu
            line = [size ** int(degree) / (mu[int(degree)] ** 2) for degree in own[:, 0]]
            ax.plot(own[:, 0], line, ":", color=hue(i))
        title = "N^l/(2ημ_l²) (dotted), η = 1/2"
        finish(ax, "degree l", "steps until it is learned", title=title, yscale="log")

    return checks, table_of(rows), [wide_panel, staircase, times_panel]


def _crossing(problem: Problem, goal: float) -> float:
    """Return the number of steps after which gradient flow has the risk `goal`."""
    from scipy.optimize import brentq

    def above(log_steps: float) -> float:
        steps = float(round(math.exp(log_steps)))
        return float(random_features.curve(problem, [steps], noise=False).risk[0]) - goal

    return math.exp(float(brentq(above, 0.0, 43.0, xtol=1e-10)))


# ---- the spectrum of the Gram matrix -------------------------------------------------------------


class _Spectra:
    """Eigenvalues of Gram matrices of random first layers.

    Attributes
    ----------
    s : (draws, K) array
        Ascending.
    """

    def __init__(
        self, rng: np.random.Generator, activation: str, dim: int, width: int, draws: int
    ) -> None:
        self.activation, self.dim, self.width = activation, dim, width
        rows = [_sphere(rng, width, dim) for _ in range(draws)]
        grams = (
            random_features.population(W, W[:1], [1.0], activation=activation).gram for W in rows
        )
        self.s = np.array([np.linalg.eigvalsh(gram) for gram in grams])
        self.hermite = random_features.hermite(activation, 2)
        found = random_features.sphere_spectrum(dim, activation, 60)
        self.square = float(found.multiplicities[1:] @ found.eigenvalues[1:] ** 2)
        self.constant = float(found.eigenvalues[0])

    @property
    def outlier(self) -> bool:
        """Whether the mean over units is an outlier."""
        return self.constant > 0.0

    @property
    def bulk(self) -> FloatArray:
        return self.s[:, :-1] if self.outlier else self.s

    def moment(self) -> float:
        """Return the mean of tr G^2/K, which is exact."""
        square = self.square + self.constant**2
        return float(self.hermite.q**2 + (self.width - 1) * square)

    def largest(self) -> tuple[float, float]:
        """Return the mean of the outlier and what the expansion leaves out.

        The quadratic form of the constant vector, moved by the variance of the bulk; the next term
        is smaller by the width of the bulk over the distance.
        """
        form = self.hermite.q + (self.width - 1) * self.constant
        variance = self.width * self.square
        moved = variance / (form - self.hermite.q)
        return form + moved, moved * math.sqrt(variance) / (form - self.hermite.q)

    def law(self) -> spectra.MarchenkoPastur:
        """Return the law of Q; s = kappa_1 x + mu_*^2."""
        return spectra.marchenko_pastur(self.dim / self.width)

    @property
    def support(self) -> tuple[float, float]:
        """The continuous part of the law of Q."""
        root = math.sqrt(self.width / self.dim)
        return (1.0 - root) ** 2, (1.0 + root) ** 2

    def mapped(self, x: ArrayLike) -> FloatArray:
        return np.asarray(self.hermite.kappa[1] * np.asarray(x) + self.hermite.mu_star2)

    def distance(self) -> float:
        """Return the largest difference between the shares above x in the continuous part."""
        law = self.law()
        x = np.linspace(*self.support, 400)
        above = np.mean(self.bulk.ravel() > self.mapped(x)[:, None], axis=1)
        return float(np.max(np.abs(above - (1.0 - law.cdf(x)))))

    def edges(self) -> list[float]:
        """Return deviations of the extreme eigenvalues of the bulk, in Gaussian errors.

        Those of Q are at the edges up to the mean of the law of Tracy and Widom.
        """
        N, K = self.dim, self.width
        rank = min(N, K - (1 if self.outlier else 0))
        found = []
        for sign, values in ((1.0, self.bulk[:, -1]), (-1.0, self.bulk[:, -rank])):
            edge = (math.sqrt(N) + sign * math.sqrt(K)) ** 2 / N
            scale = abs(math.sqrt(N) + sign * math.sqrt(K)) / N
            scale *= abs(1.0 / math.sqrt(N) + sign / math.sqrt(K)) ** (1.0 / 3.0)
            predicted = float(self.mapped(edge + sign * TRACY_WIDOM * scale))
            value, sem = mean_and_error(values)
            # Relative first order, of the eigenvalues of degrees; and the tail has the variance of
            # the higher degrees, which moves edges by their variance over the fluctuation.
            found.append(
                z_score(value - predicted, sem, len(values), predicted * (1.0 / N + 1.0 / K))
            )
        return found


def _gram_spectrum(bench: _Bench) -> Outcome:
    dim, draws = (400 if bench.full else 200), 2 * bench.more + 6
    deltas = (0.5, 2.0)
    rng = bench.rng()
    found = {
        (name, delta): _Spectra(rng, name, dim, round(delta * dim), draws)
        for name in ("erf", "relu", "quad")
        for delta in deltas
    }
    rows, moments, outliers, distances, edges = [], [], [], [], []
    for (name, delta), one in found.items():
        square = mean_and_error(np.mean(one.s**2, axis=1))
        moments.append(z_score(square[0] - one.moment(), square[1], draws))
        row = {
            "activation": name,
            "delta": delta,
            "mean s": float(one.s.mean()),
            "mean s^2": square[0],
            "its theory": one.moment(),
            "lowest": float(one.bulk[:, 0].mean()),
            "highest of bulk": float(one.bulk[:, -1].mean()),
            "outlier": math.nan,
            "outlier, theory": math.nan,
        }
        if one.outlier:
            value, sem = mean_and_error(one.s[:, -1])
            predicted, allowed = one.largest()
            outliers.append(z_score(value - predicted, sem, draws, allowed))
            row |= {"outlier": value, "outlier, theory": predicted}
        if name != "quad":
            distances.append(one.distance() / (1.0 / one.dim + 1.0 / one.width))
            edges += one.edges()
        rows.append(row)
    traces = [float(one.s.mean()) / one.hermite.q - 1.0 for one in found.values()]
    quad = [float(found["quad", delta].s[:, -1].mean()) / (1.0 + delta) - 1.0 for delta in deltas]
    checks = [
        Check(
            quantity="erf, relu: share of the bulk above s against the law, largest difference "
            "over 1/N + 1/K",
            predicted=0.0,
            measured=max(distances),
            tolerance=1.0,
            side="below",
        ),
        z_check("erf, relu: mean edges of the bulk, with those of the law's fluctuations", edges),
        z_check("relu, quad: mean outlier", outliers),
        Check(
            quantity="quad: outlier / (mu_*^2 + kappa_2 delta) - 1, worst, times N",
            predicted=0.0,
            measured=dim * worst(quad),
            # Moved by the bulk, of variance 2 delta/N, over the distance delta; and one standard
            # error of tr G.
            tolerance=4.0,
        ),
        z_check("tr G^2/K against its exact mean", moments),
        Check(
            quantity="tr G/(K q) - 1, worst",
            predicted=0.0,
            measured=worst(traces),
            tolerance=ROUNDING,
        ),
    ]

    def panel(name: str) -> Callable[[Axes], None]:
        def draw(ax: Axes) -> None:
            for i, delta in enumerate(deltas):
                one = found[name, delta]
                values = one.bulk.ravel()
                top = float(values.max())
                bins = np.linspace(0.0, 1.05 * top, 61)
                counts, _ = np.histogram(values, bins)
                ax.stairs(counts / (one.s.size * np.diff(bins)), bins, color=hue(i), alpha=0.7)
                kappa1 = float(one.hermite.kappa[1])
                if kappa1 > 0.0:
                    law = one.law()
                    x = np.linspace(*one.support, 400)[1:-1]
                    line = law.density(x) / kappa1
                    ax.plot(one.mapped(x), line, color=hue(i), label=f"δ = {delta:g}")
                else:
                    count = float(
                        random_features.sphere_spectrum(one.dim, name, 2).multiplicities[2]
                    )
                    law = spectra.marchenko_pastur(count / one.width)
                    root = math.sqrt(one.width / count)
                    x = np.linspace((1.0 - root) ** 2, (1.0 + root) ** 2, 400)
                    ax.plot(x, law.density(x), color=hue(i), label=f"δ = {delta:g}")
                if one.outlier:
                    height = 0.02 * ax.get_ylim()[1]
                    value = float(one.s[:, -1].mean())
                    ax.plot([value], [height], "v", color=hue(i))
                    ax.plot([one.largest()[0]] * 2, [0.0, 4.0 * height], ":", color=hue(i))
            title = f"{name}, N = {dim}: law (lines), outliers (dotted, ▼)"
            scales: dict[str, Any] = {"xscale": "log"} if name == "relu" else {}
            if name != "quad":
                scales |= {"yscale": "log"}
            finish(ax, "eigenvalue s of G", "density per unit", title=title, **scales)

        return draw

    return checks, table_of(rows), [panel(name) for name in ("erf", "relu", "quad")]


# ---- label noise ---------------------------------------------------------------------------------


def _label_noise(bench: _Bench) -> Outcome:
    dim, replicas = (200, 4) if bench.full else (100, 8)
    t = np.array([1.0, 3.0, 10.0, 20.0])
    cases = [
        Problem(dim=dim, width=round(delta * dim), lr=2.0, noise_var=noise)
        for delta in (0.5, 2.0)
        for noise in (0.03, 0.3)
    ]
    cases.append(Problem(dim=dim, width=dim, lr=1.0, activation="relu", noise_var=0.3))
    only = Problem(dim=dim, width=dim, lr=3.0, noise_var=1.0, teacher_weights=(0.0,))
    bench.jobs = len(cases) + 1
    rows: list[dict[str, Any]] = []
    z, runs = [], []
    for problem in cases:
        times = np.round(t * problem.width) / problem.width
        run = bench.simulate(problem, times, replicas=replicas)
        predicted = random_features.curve(problem, times).risk
        # The norm's effect is on the noise as well, which is no part of the risk.
        share = (predicted[-1] + problem.noise_var / 2.0) / predicted[-1]
        allowed = _equivalent(problem) + _norm_effect(problem) * share
        z += _deviations(run, predicted, allowed)
        runs.append((problem, run))
        names = {"activation": problem.activation, "K": problem.width, "noise": problem.noise_var}
        rows += _rows(run, predicted, allowed, **names)
    # Nothing to learn: the modes heat up to the stationary state.
    late = np.linspace(60.0, 80.0, 11)
    run = bench.simulate(only, late)
    heated = float(random_features.curve(only, late).risk.mean())
    x = _load(only)
    stationary = random_features.stationary_risk(only, route="sphere")
    floor = only.noise_var * x / (1.0 - x) / 2.0
    measured = tuple(number * floor / heated for number in _late(run))
    # Linear in the noise, with the same floor at every width, and absent from gradient flow.
    base, grid = cases[0].replace(noise_var=0.0), np.array([0.3, 1.0, 10.0, 1e3])
    curves = [
        random_features.curve(base.replace(noise_var=noise), grid).risk for noise in (0.0, 0.2, 0.4)
    ]
    linear = (curves[2] - curves[0]) / (curves[1] - curves[0]) - 2.0
    widths = (10, 10**2, 10**4, 10**6)
    share = 0.5 * _load(base) / (1.0 - _load(base))
    floors = [
        (
            random_features.stationary_risk(p.replace(noise_var=1.0), route="sphere")
            - random_features.stationary_risk(p, route="sphere")
        )
        / share
        - 1.0
        for p in (base.replace(width=width) for width in widths)
    ]
    infinite = Problem(dim=5, width=math.inf, lr=base.lr, noise_var=1.0)
    kernel = float(random_features.curve(infinite, [1e12]).risk[0]) / share - 1.0
    flow = [
        random_features.curve(base.replace(noise_var=noise), grid, noise=False).risk
        for noise in (0.0, 0.4)
    ]
    checks = [
        z_check(f"risk of SGD with label noise against theory, N = {dim}", z),
        mean_check(
            "noise alone: eps_inf against sigma^2 x/(1 - x)/2",
            floor,
            (measured[0], measured[1]),
            (_equivalent(only) + _norm_effect(only) / (1.0 - x)) * floor,
            len(run.risk),
        ),
        Check(
            quantity="noise alone: theory's eps_inf / (sigma^2 x/(1 - x)/2) - 1",
            predicted=0.0,
            measured=stationary / floor - 1.0,
            tolerance=ROUNDING,
        ),
        Check(
            quantity="growth of the risk with the noise, 0.4 over 0.2, - 2, worst",
            predicted=0.0,
            measured=worst(linear),
            tolerance=1e-8,  # the inversion's 1e-12 over a growth of order 1e-3
        ),
        Check(
            quantity="eps_inf that noise adds at K = 10 to 10^6, over sigma^2 x/(1 - x)/2, - 1",
            predicted=0.0,
            measured=worst(floors),
            tolerance=ROUNDING,
        ),
        Check(
            quantity="the same at K = inf, N = 5, after 10^12 steps",
            predicted=0.0,
            measured=kernel,
            # The degrees that are not heated have an energy of order 10^-12 of the noise's.
            tolerance=1e-6,
        ),
        Check(
            quantity="gradient flow: change of the risk with the noise",
            predicted=0.0,
            measured=worst(flow[1] - flow[0]),
            tolerance=0.0,
        ),
    ]
    fine = np.geomspace(0.02, 30.0, 100)

    def errors(ax: Axes) -> None:
        for i, (p, run_) in enumerate(runs):
            label = f"{p.activation}, K/N = {p.width / p.dim:g}, σ² = {p.noise_var:g}"
            ax.plot(fine, random_features.curve(p, fine).risk, color=hue(i), label=label)
            error_bars(ax, run_.t, run_.mean().risk, run_.sem().risk, hue(i))
        title = f"label noise, N = {dim}: theory, SGD"
        finish(ax, "τ = steps/K", "risk ε", title=title, xscale="log", yscale="log")

    def against_rate(ax: Axes) -> None:
        rate = np.linspace(0.02, 5.5, 100)
        for i, noise in enumerate((0.0, 0.03, 0.3, 1.0)):
            p = Problem(dim=dim, width=2 * dim, lr=1.0, noise_var=noise)
            line = [random_features.stationary_risk(p.replace(lr=float(lr))) for lr in rate]
            ax.plot(rate, line, color=hue(i), label=f"σ² = {noise:g}")
        finish(ax, "learning rate η", "ε∞", title="erf, K/N = 2, N → ∞", yscale="log")

    return checks, table_of(rows), [errors, against_rate]


# ---- annealing -----------------------------------------------------------------------------------


def _annealing(bench: _Bench) -> Outcome:
    dim, first = 100, 4.0
    base = Problem(dim=dim, width=dim, lr=first)

    def schedule(scale: float) -> Callable[[FloatArray], FloatArray]:
        return lambda tau: first / (1.0 + tau / scale)

    # SGD against the equations for the given first layer and teacher.
    t = np.array([1.0, 5.0, 20.0, 100.0])
    pairs = 4 if bench.full else 2
    bench.jobs = pairs + 1
    rng, z = bench.rng(), []
    rows: list[dict[str, Any]] = []
    shown = []
    for pair in range(pairs):
        W, B = _sphere(rng, dim, dim), _sphere(rng, 1, dim)
        run = bench.simulate(base, t, replicas=16, W=W, B=B, teachers=1, lr_schedule=schedule(5.0))
        theory = random_features.modes(base, W, B, t, lr_schedule=schedule(5.0), time="discrete")
        # The largest rate bounds the effect of the norm.
        allowed = _norm_effect(base) + _norm(base)
        z += _deviations(run, theory.risk, allowed)
        rows += _rows(run, theory.risk, allowed, pair=pair)
        averages = random_features.population(W, B, base.v, activation=base.activation)
        shown.append((run, W, B, random_features.best_fit(averages)))
    # The minimal risk is reached at the rate of a quasi-static state, if all modes can follow: each
    # remembers like a power of time, the slowest like the third.
    run, W, B, best = shown[0]
    scale, late = 1.5 / (first * float(best.eigenvalues[0])), 1e4
    found = random_features.modes(base, W, B, [late], lr_schedule=schedule(scale)).risk[0]
    rate = float(schedule(scale)(np.array(late)))
    power = 2.0 * best.eigenvalues * first * scale
    share = rate / 2.0 * float(np.mean(best.eigenvalues * power / (power - 1.0)))
    excess = found / best.risk - 1.0
    # Left out: that S exceeds its end, twice the share; and the start, which the slowest mode
    # remembers like the power of time, over the rate.
    growth = 1.0 + late / scale
    energy = _energy("erf")
    start = energy / (2.0 * best.risk) / (1.0 - _load(base))
    left_out = 2.0 * share + start * growth ** (-float(power[0])) / share
    plain = random_features.modes(base, W, B, [late]).risk[0] / best.risk - 1.0
    # SGD itself, over the mean of first layers and teachers.
    long = np.array([100.0, 400.0])
    annealed = bench.simulate(base, long, lr_schedule=schedule(scale))
    minimum = random_features.minimal_risk(base, route="sphere")
    ratio = annealed.risk[:, -1] / minimum
    x_end = float(schedule(scale)(long[-1:])[0]) * _load(base) / first
    value, sem = mean_and_error(ratio)
    checks = [
        Check(
            quantity=f"excess of the risk over the minimum at tau = {late:g}, over the "
            "quasi-static one",
            predicted=1.0,
            measured=excess / share,
            tolerance=left_out,
        ),
        Check(
            quantity=f"the same excess over that at the constant first rate, at tau = {late:g}",
            predicted=0.01,
            measured=excess / plain,
            tolerance=0.0,
            side="below",
        ),
        z_check("risk of annealed SGD against the equations for the given first layer", z),
        mean_check(
            f"annealed SGD at tau = {long[-1]:g}: risk over the minimal one in theory",
            1.0,
            (value, sem),
            # The quasi-static excess, twice for modes that lag, and the finite size.
            2.0 * x_end / (1.0 - x_end) + _equivalent(base),
            len(ratio),
        ),
    ]
    fine = np.geomspace(0.05, late, 60)

    def errors(ax: Axes) -> None:
        run, W, B, best = shown[0]
        for i, own in enumerate((5.0, scale)):
            line = random_features.modes(base, W, B, fine, lr_schedule=schedule(own)).risk
            ax.plot(fine, line, color=hue(i), label=f"η = 4/(1 + τ/{own:.3g})")
        ax.plot(fine, random_features.modes(base, W, B, fine).risk, color=hue(2), label="η = 4")
        error_bars(ax, run.t, run.mean().risk, run.sem().risk, hue(0))
        ax.axhline(best.risk, color="k", linestyle=":", label="best fit")
        title = f"erf, N = K = {dim}, one first layer: theory, SGD"
        finish(ax, "τ = steps/K", "risk ε", title=title, xscale="log", yscale="log")

    def excesses(ax: Axes) -> None:
        _, W, B, best = shown[0]
        x = np.geomspace(1.0, late, 40)
        for i, own in enumerate((5.0, scale)):
            line = random_features.modes(base, W, B, x, lr_schedule=schedule(own)).risk
            ax.plot(x, line / best.risk - 1.0, color=hue(i), label=f"η = 4/(1 + τ/{own:.3g})")
        ax.plot(x, schedule(scale)(x) / 6.0, "k:", label=f"η(τ) q/2, τ₀ = {scale:.3g}")
        title = "excess over the best fit"
        finish(ax, "τ = steps/K", "ε/ε_min − 1", title=title, xscale="log", yscale="log")

    return checks, table_of(rows), [errors, excesses]


CLAIMS = [
    Claim(
        id="random_features/curves",
        statement="Differential equations give the risk of online SGD for every ratio of width to "
        "dimension, number of teacher units and scaling of the learning rate.",
        source=_source("", "3, 4, 5, 7"),
        function=_Bench.claim(_curves),
    ),
    Claim(
        id="random_features/asymptotic-error",
        statement="At every finite ratio of width to dimension the asymptotic risk is not zero, "
        "and has a closed form.",
        source=_source("", "4.3, 5"),
        function=_Bench.claim(_asymptotic_error),
    ),
    Claim(
        id="random_features/learning-rate",
        statement="The asymptotic risk grows with the learning rate and diverges at a limit of "
        "stability, both up to the fluctuations of the norm of the features, which are known.",
        source=_source("", "4.3"),
        function=_Bench.claim(_learning_rate),
    ),
    Claim(
        id="random_features/width-staircase",
        statement="At finite dimension the minimal risk falls with the logarithm of the width by "
        "steps, one for each degree, and vanishes at finite width for polynomial activations only.",
        source=_source("", "6"),
        function=_Bench.claim(_width_staircase),
    ),
    Claim(
        id="random_features/exponential-width",
        statement="A vanishing risk needs a width exponential in the dimension where the "
        "activation is no polynomial; for polynomial activations, and at fixed risk for all, it is "
        "polynomial, and the paper's word does not hold.",
        source=_source("", "6"),
        function=_Bench.claim(_exponential_width),
    ),
    Claim(
        id="random_features/time-staircase",
        statement="A wide student learns degree l after N^l/(2 eta mu_l^2) steps, and at infinite "
        "width has no asymptotic error.",
        source=_source("", "7"),
        function=_Bench.claim(_time_staircase),
    ),
    Claim(
        id="random_features/gram-spectrum",
        statement="The Gram matrix of the features has a bulk of the law of Marchenko and Pastur, "
        "scaled and shifted, and one outlier if the activation has an even part.",
        source=_source("", "2, 5, 6"),
        function=_Bench.claim(_gram_spectrum),
    ),
    Claim(
        id="random_features/label-noise",
        statement="Label noise adds a risk in proportion to its variance, the same at every width, "
        "which vanishes with the learning rate.",
        source=_source("", "4.3, 7"),
        function=_Bench.claim(_label_noise),
    ),
    Claim(
        id="random_features/annealing",
        statement="A learning rate that falls like 1/tau takes the risk to its minimum, with an "
        "excess in proportion to the rate.",
        source=_source("", "4.4"),
        function=_Bench.claim(_annealing),
    ),
]
