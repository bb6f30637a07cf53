"""What the claims of several rooms share: the bench of a run, statistics, tables and panels.

A statistical check allows `error_limit` standard errors: the two-sided Gaussian or Student bound
that chance exceeds once in 10^4 runs of the check, Bonferroni-corrected where it is the largest of
several.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike

from overparam._run import Progress, share
from overparam.claims import Check
from overparam.results import FloatArray, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from overparam.claims import Panel

    Outcome = tuple[list[Check], Table, list[Panel]]

CHANCE = 1e-4  # at which a true statement fails a statistical check


class Bench:
    """What a run of a claim was asked for.

    Parameters
    ----------
    effort, seed, threads, progress
        As a claim's function gets them.

    Attributes
    ----------
    more : int
        By how much there are more replicas than in a quick run.
    jobs : int
        Number of jobs that the claim will do, which share its progress equally.
    """

    def __init__(
        self, *, effort: str, seed: np.random.SeedSequence, threads: int | None, progress: Progress
    ) -> None:
        self.more = 1 if effort == "quick" else 8
        self.jobs = 1
        self._seed, self._threads, self._progress = seed, threads, progress
        self._done = 0

    @classmethod
    def claim(cls, function: Callable[[Self], Outcome]) -> Callable[..., Outcome]:
        """Return a claim's function of the arguments that make its bench."""

        def run(**options: Any) -> Outcome:
            return function(cls(**options))

        return run

    def seeds(self, count: int) -> list[np.random.SeedSequence]:
        """Return seeds that were not used before."""
        return self._seed.spawn(count)

    def rng(self) -> np.random.Generator:
        """Return a random number generator with a seed that was not used before."""
        return np.random.default_rng(self.seeds(1)[0])

    def job(self) -> dict[str, Any]:
        """Return seed, threads and progress of the next of the claim's jobs."""
        self._done += 1
        progress = share(self._progress, self._done - 1, self.jobs)
        return {"seed": self.seeds(1)[0], "threads": self._threads, "progress": progress}


# ---- statistics ----------------------------------------------------------------------------------


def error_limit(count: int = 1, replicas: int | None = None) -> float:
    """Return how many standard errors the largest of `count` deviations may have."""
    from scipy.stats import norm, t

    tail = 1.0 - CHANCE / (2.0 * count)
    return float(norm.ppf(tail) if replicas is None else t.ppf(tail, replicas - 1))


def mean_and_error(values: FloatArray) -> tuple[float, float]:
    """Return the mean over replicas and its standard error."""
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))


def worst(values: Sequence[float] | FloatArray, target: float = 0.0) -> float:
    """Return the value that is furthest from the target; NaN if there is one."""
    array = np.asarray(values, dtype=np.float64).ravel()
    return float(array[np.argmax(np.abs(array - target))])


def z_score(difference: float, sem: float, replicas: int, finite: float = 0.0) -> float:
    """Return a deviation, beyond the finite-size allowance, in Gaussian standard deviations.

    The standard error is one estimated from `replicas` runs: Student's tail probability is
    converted into the Gaussian one. Beside an error of zero any deviation is infinite.
    """
    from scipy.stats import norm, t

    beyond = max(abs(difference) - finite, 0.0)
    if sem == 0:
        return beyond if beyond == 0 else np.inf
    return float(-norm.ppf(t.sf(beyond / sem, replicas - 1)))


def mean_check(
    quantity: str,
    predicted: float,
    measured: tuple[float, float],
    finite: float = 0.0,
    replicas: int | None = None,
) -> Check:
    """Check a value with its standard error; `finite` is the finite-size allowance."""
    value, sem = measured
    known = bool(np.isfinite(sem))
    return Check(
        quantity=quantity,
        predicted=predicted,
        measured=value if known else np.nan,
        sem=sem,
        tolerance=(error_limit(1, replicas) * sem if known else 0.0) + finite,
    )


def z_check(quantity: str, z: ArrayLike) -> Check:
    """Check the largest of several deviations in standard errors."""
    values = np.asarray(z, dtype=np.float64)
    return Check(
        quantity=f"{quantity}: largest |z| of {values.size}",
        predicted=0.0,
        measured=float(np.abs(values).max()),
        tolerance=error_limit(values.size),
        side="below",
    )


def joint_check(quantity: str, z: ArrayLike) -> Check:
    """Check the sum of several independent deviations in standard errors, with their signs.

    It finds an error common to all that is too small for each of them.
    """
    values = np.asarray(z, dtype=np.float64)
    return Check(
        quantity=f"{quantity}: |sum of z| / sqrt({values.size})",
        predicted=0.0,
        measured=float(abs(values.sum()) / np.sqrt(values.size)),
        tolerance=error_limit(),
        side="below",
    )


def weighted_mean(measured: Sequence[tuple[float, float]] | FloatArray) -> tuple[float, float]:
    """Return the weighted mean of values with standard errors, and its own."""
    values, sems = np.array(measured).T
    return float(np.average(values, weights=sems**-2)), float((sems**-2).sum() ** -0.5)


def line_fit(x: ArrayLike, y: ArrayLike, sem: ArrayLike) -> tuple[float, float]:
    """Return the slope of a weighted straight-line fit and its standard error."""
    weights = 1.0 / np.asarray(sem, dtype=np.float64) ** 2
    x_, y_ = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    centred = x_ - np.average(x_, weights=weights)
    spread = float((weights * centred**2).sum())
    return float((weights * centred * y_).sum()) / spread, spread**-0.5


def extrapolated(
    small: tuple[float, float], large: tuple[float, float], ratio: float
) -> tuple[float, float]:
    """Return value and standard error at infinite size from those at two sizes of that ratio.

    What remains is of second order in the inverse size.
    """
    value = (ratio * large[0] - small[0]) / (ratio - 1.0)
    return value, float(np.hypot(ratio * large[1], small[1])) / (ratio - 1.0)


# ---- tables and panels ---------------------------------------------------------------------------


def table_of(rows: list[dict[str, Any]]) -> Table:
    """Return the table with these rows, which have the same columns."""
    return Table({name: [row[name] for row in rows] for name in rows[0]})


def finish(ax: Axes, xlabel: str, ylabel: str, *, legend: bool = True, **scales: Any) -> None:
    """Label a panel; `scales` are further properties of its axes."""
    ax.set(xlabel=xlabel, ylabel=ylabel, **scales)
    ax.grid(visible=True, alpha=0.3, linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    if legend:
        ax.legend(frameon=False, fontsize="small")


def error_bars(
    ax: Axes, x: ArrayLike, y: ArrayLike, sem: ArrayLike | None, colour: str, **style: Any
) -> None:
    """Draw points with error bars, without a line unless asked for."""
    defaults: dict[str, Any] = {"marker": "o", "markersize": 4, "capsize": 2, "linestyle": ""}
    ax.errorbar(x, y, sem, color=colour, **{**defaults, **style})


def hue(index: int) -> str:
    """Return the colour of a series, by its number."""
    return f"C{index}"
