"""The claims of the papers as executable checks: prediction against measurement.

A room registers its claims in ``claims/<room>.py`` as the plain list `CLAIMS`::

    def _escape(*, effort, seed, threads, progress):
        ...
        checks = [
            Check(quantity="rate / (8 eta sigma)", predicted=1, measured=m, sem=s, tolerance=0.02),
            Check(quantity="largest |z|", predicted=0, measured=z, tolerance=4, side="below"),
        ]
        def panel(ax):
            plot.compare(theory, sampled, ax=ax, yscale="log")
        return checks, table, [panel]

    CLAIMS = [Claim(id="sgd/escape", statement="...", source="arXiv ...", function=_escape)]

The function gets its arguments checked: `effort` is "quick" or "full", `seed` a fresh SeedSequence
to spawn from, and `threads` and `progress` go on to the room's functions. The first check is the
headline; the claim passes if all its checks pass. Tolerances are fixed in the code, never taken
from the measurement that they judge.
"""

from __future__ import annotations

import importlib
import math
import pkgutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from overparam import _check
from overparam._run import Progress
from overparam.plot import panels
from overparam.results import Table, plain_seed

if TYPE_CHECKING:
    import builtins

    from matplotlib.figure import Figure

__all__ = ["Check", "Claim", "Verdict", "get", "list"]

# Draws one panel of a claim's figure on the axes that it is given.
Panel = Callable[[Any], object]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One measured number against its prediction, with the rule that decides.

    Attributes
    ----------
    quantity : str
        What is measured.
    predicted, measured : float
        The two values. One that is not finite never passes.
    tolerance : float
        Allowed deviation, fixed in advance, >= 0.
    sem : float
        Standard error of the measured value; NaN if it has none.
    side : {"both", "below", "above"}
        Whether the measured value must be within the tolerance of the predicted one, at most
        ``predicted + tolerance``, or at least ``predicted - tolerance``.

    Examples
    --------
    >>> from overparam.claims import Check
    >>> Check(quantity="slope", predicted=-1.0, measured=-1.04, sem=0.03, tolerance=0.1).passed
    True
    """

    quantity: str
    predicted: float
    measured: float
    tolerance: float
    sem: float = math.nan
    side: str = "both"

    def __post_init__(self) -> None:
        _check.choice("side", self.side, ("both", "below", "above"))
        _check.real("tolerance", self.tolerance, minimum=0.0)
        for name in ("predicted", "measured", "tolerance", "sem"):
            object.__setattr__(self, name, float(getattr(self, name)))

    @property
    def passed(self) -> bool:
        """Whether the measured value obeys the rule.

        Examples
        --------
        >>> from overparam.claims import Check
        >>> Check(quantity="slope", predicted=-1.0, measured=float("nan"), tolerance=0.1).passed
        False
        """
        excess = self.measured - self.predicted
        deviation = {"both": abs(excess), "below": excess, "above": -excess}[self.side]
        return math.isfinite(excess) and deviation <= self.tolerance

    @property
    def rule(self) -> str:
        """The rule in words.

        Examples
        --------
        >>> from overparam.claims import Check
        >>> Check(quantity="z", predicted=0, measured=1.2, tolerance=4, side="below").rule
        'at most 4'
        """
        if self.side == "below":
            return f"at most {self.predicted + self.tolerance:.4g}"
        if self.side == "above":
            return f"at least {self.predicted - self.tolerance:.4g}"
        return f"{self.predicted:.4g} within {self.tolerance:.4g}"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a claim's run found.

    Attributes
    ----------
    claim : Claim
        The claim.
    checks : tuple of Check
        All checks, the headline first.
    table : Table
        The numbers behind the figure.
    panels : tuple of callables
        The figure's panels; `figure` draws them.
    effort : str
        "quick" or "full".
    seed : int or SeedSequence
        The seed, which repeats the run.
    seconds : float
        Duration of the run.
    passed : bool
        Whether all checks passed.
    quantity : str
        What the headline number is.
    predicted, measured, measured_sem, tolerance : float
        The headline's values.

    Examples
    --------
    >>> from overparam.claims import Check, Claim
    >>> from overparam.results import Table
    >>> def half(*, effort, seed, threads, progress):
    ...     draws = seed.generate_state(1000) / 2**32
    ...     mean, sem = draws.mean(), draws.std() / 1000**0.5
    ...     check = Check(quantity="mean", predicted=0.5, measured=mean, sem=sem, tolerance=0.05)
    ...     return [check], Table({"draw": draws}), [lambda ax: ax.hist(draws)]
    >>> claim = Claim(id="toy/half", statement="The mean is 1/2.", source="", function=half)
    >>> verdict = claim.run(seed=1)
    >>> verdict.passed, verdict.quantity, verdict.predicted, round(verdict.measured, 3)
    (True, 'mean', 0.5, 0.496)
    """

    claim: Claim
    checks: tuple[Check, ...]
    table: Table
    panels: tuple[Panel, ...]
    effort: str
    seed: int | np.random.SeedSequence
    seconds: float

    def __post_init__(self) -> None:
        if not self.checks:
            raise _check.bad("checks", "at least one, or the claim cannot fail", self.checks)

    @property
    def passed(self) -> bool:
        """Whether all checks passed."""
        return all(check.passed for check in self.checks)

    @property
    def quantity(self) -> str:
        """What the headline number is."""
        return self.checks[0].quantity

    @property
    def predicted(self) -> float:
        """The headline's predicted value."""
        return self.checks[0].predicted

    @property
    def measured(self) -> float:
        """The headline's measured value."""
        return self.checks[0].measured

    @property
    def measured_sem(self) -> float:
        """Standard error of the headline's measured value; NaN if it has none."""
        return self.checks[0].sem

    @property
    def tolerance(self) -> float:
        """The headline's allowed deviation."""
        return self.checks[0].tolerance

    def figure(self, *axes: Any) -> Figure:
        """Draw the claim's figure.

        Parameters
        ----------
        *axes : matplotlib.axes.Axes
            One for each panel; without any, a new figure with the panels side by side.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ValueError
            If the number of axes is not that of the panels.
        ImportError
            If matplotlib is not installed.

        Examples
        --------
        >>> from overparam.claims import Check, Claim
        >>> from overparam.results import Table
        >>> def one(**arguments):
        ...     check = Check(quantity="one", predicted=1, measured=1, tolerance=0)
        ...     return [check], Table({"one": [1]}), [lambda ax: ax.plot([1])]
        >>> claim = Claim(id="toy/one", statement="One is one.", source="", function=one)
        >>> len(claim.run().figure().axes)
        1
        """
        count = len(self.panels)
        if axes and len(axes) != count:
            raise _check.bad("axes", f"{count} axes, one for each panel", len(axes))
        drawn = axes or tuple(panels(count))
        for panel, ax in zip(self.panels, drawn, strict=True):
            panel(ax)
        figure: Figure = drawn[0].figure
        return figure


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A statement of a paper that can be run.

    Attributes
    ----------
    id : str
        Room and name: "sgd/escape".
    statement : str
        The paper's statement, in one sentence.
    source : str
        Where it is made.
    function : callable
        ``function(*, effort, seed, threads, progress)`` returns the checks, the table and the
        panels of the figure.

    Examples
    --------
    >>> import overparam as op
    >>> op.claims.get("sgd/escape").source
    'arXiv 2604.03068; docs/papers/sgd.md section 4'
    """

    id: str
    statement: str
    source: str
    function: Callable[..., tuple[Sequence[Check], Table, Sequence[Panel]]]

    def run(
        self,
        effort: str = "quick",
        seed: int | np.random.SeedSequence | None = 0,
        threads: int | None = None,
        progress: Progress = False,
    ) -> Verdict:
        """Measure what the claim predicts.

        Parameters
        ----------
        effort : {"quick", "full"}
            Seconds to a minute, or long enough for small error bars.
        seed : int, SeedSequence or None
            Seed of all random numbers.
        threads : int, optional
            Number of threads; changes no bit of the verdict.
        progress : bool or callable
            True for a bar on stderr; or a function of the fraction done.

        Returns
        -------
        Verdict

        Raises
        ------
        ValueError
            For an unknown effort, an invalid seed or number of threads.

        Examples
        --------
        >>> import overparam as op
        >>> verdict = op.claims.get("sgd/conserved").run(effort="quick", seed=1)
        """
        effort = _check.choice("effort", effort, ("quick", "full"))
        repeatable = plain_seed(_check.seed_sequence(seed))
        began = time.perf_counter()
        checks, table, drawn = self.function(
            effort=effort,
            seed=_check.seed_sequence(repeatable),
            threads=_check.threads(threads),
            progress=progress,
        )
        return Verdict(
            claim=self,
            checks=tuple(checks),
            table=table,
            panels=tuple(drawn),
            effort=effort,
            seed=repeatable,
            seconds=time.perf_counter() - began,
        )


def _all() -> dict[str, Claim]:
    """Return all claims by id: those of every module of this package, in their order."""
    rooms = [module.name for module in pkgutil.iter_modules(__path__)]
    modules = [importlib.import_module(f"{__name__}.{room}") for room in rooms if room[0] != "_"]
    return {claim.id: claim for module in modules for claim in module.CLAIMS}


def list() -> builtins.list[str]:  # noqa: A001 - op.claims.list() is its public name
    """Return the ids of all claims.

    Returns
    -------
    list of str
        "room/name", in the order of the rooms' lists.

    Examples
    --------
    >>> import overparam as op
    >>> "sgd/escape" in op.claims.list()
    True
    """
    return [*_all()]


def get(claim: str) -> Claim:
    """Return a claim.

    Parameters
    ----------
    claim : str
        Its id.

    Returns
    -------
    Claim

    Raises
    ------
    ValueError
        If there is no such claim; the known ones are listed.

    Examples
    --------
    >>> import overparam as op
    >>> op.claims.get("sgd/escape").id
    'sgd/escape'
    """
    known = _all()
    return known[_check.choice("claim", claim, known)]
