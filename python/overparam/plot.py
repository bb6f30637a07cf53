"""Figures of results: curves in time, scans over a parameter, theory against simulation.

Every function draws on the axes it is given, or on new ones, and returns them. Nothing global is
changed. Needs matplotlib, which the extra `plot` installs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from overparam import _check
from overparam._check import FloatArray
from overparam.results import Result, Trajectory, components

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["compare", "scan", "trajectory"]

PANEL = (5.0, 3.6)  # inches
_BAND: dict[str, Any] = {"alpha": 0.25, "linewidth": 0}


def require_matplotlib() -> None:
    """Raise ImportError naming the extra to install, if matplotlib is missing.

    Examples
    --------
    >>> from overparam import plot
    >>> plot.require_matplotlib()
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise ImportError('plotting needs matplotlib: pip install "overparam[plot]"') from error


def panels(count: int) -> list[Axes]:
    """Return new axes side by side on one new figure.

    Examples
    --------
    >>> from overparam import plot
    >>> len(plot.panels(2))
    2
    """
    require_matplotlib()
    from matplotlib import pyplot as plt

    size = (PANEL[0] * count, PANEL[1])
    _, grid = plt.subplots(1, count, figsize=size, layout="constrained", squeeze=False)
    return list(grid[0])


def trajectory(
    *results: Trajectory,
    field: str = "risk",
    ax: Axes | None = None,
    quantiles: tuple[float, float] | None = None,
    xscale: str = "linear",
    yscale: str = "linear",
    **line: Any,
) -> Axes:
    """Plot a field against time.

    Sampled results appear as the mean over replicas with a band of one standard error.

    Parameters
    ----------
    *results : Trajectory
        One or several results.
    field : str
        A field, with a curve per component, or one component such as ``M[0,1]``.
    ax : matplotlib.axes.Axes, optional
        Where to draw; new axes by default.
    quantiles : (float, float), optional
        Draw the median with a band between these quantiles of the replicas instead.
    xscale, yscale : str
        Scales of the axes, such as "log".
    **line
        Properties of the curves, as `matplotlib.axes.Axes.plot` takes them. A `label` replaces
        the automatic ones, which give method and component.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        Without results, or if a result is no trajectory or has no such field.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.sgd.Problem(width=2, teacher_width=1, lr=0.1, dim=100)
    >>> start = op.sgd.Overlaps.random(problem)
    >>> ax = op.plot.trajectory(op.sgd.ode(problem, start, [0, 1, 2]), yscale="log")
    >>> ax.get_xlabel()
    't = steps / N'
    """
    if not results:
        raise ValueError("results must be at least one trajectory, but was none")
    for result in results:
        _require_time(result)
        next(components(result, field))
    ax = ax or panels(1)[0]
    curves: list[tuple[str, FloatArray, FloatArray | None, FloatArray | None]]
    for result in results:
        if not result.sampled:
            curves = [(label, y, None, None) for label, y in components(result, field)]
        elif quantiles is None:
            curves = [
                (label, y, y - error, y + error)
                for (label, y), (_, error) in zip(
                    components(result.mean(), field), components(result.sem(), field), strict=True
                )
            ]
        else:
            low, middle, high = (
                components(result.quantile(q), field) for q in (quantiles[0], 0.5, quantiles[1])
            )
            curves = [
                (label, y, lower, upper)
                for (label, y), (_, lower), (_, upper) in zip(middle, low, high, strict=True)
            ]
        for label, y, lower, upper in curves:
            name = result.method if len(curves) == 1 else f"{result.method} {label}"
            (curve,) = ax.plot(result.t, y, **{"label": name, **line})
            if lower is not None and upper is not None:
                ax.fill_between(result.t, lower, upper, color=curve.get_color(), **_BAND)
    return _finish(ax, results[0].time_label, field, xscale, yscale)


def scan(
    x: str | Sequence[float] | FloatArray,
    values: Sequence[Result | float] | FloatArray,
    *,
    field: str = "risk",
    ax: Axes | None = None,
    xlabel: str | None = None,
    ylabel: str | None = None,
    xscale: str = "linear",
    yscale: str = "linear",
    **line: Any,
) -> Axes:
    """Plot a quantity against a parameter.

    Parameters
    ----------
    x : str or (n,) sequence
        Name of a parameter of the results' problems, or the positions.
    values : (n,) sequence
        Numbers; or results, of which `field` is drawn. Sampled results appear as the mean with
        one standard error, trajectories at their last time.
    field : str
        A field with one component, or one component such as ``M[0,1]``.
    ax : matplotlib.axes.Axes, optional
        Where to draw; new axes by default.
    xlabel, ylabel : str, optional
        Labels of the axes; names of parameter and field by default.
    xscale, yscale : str
        Scales of the axes, such as "log".
    **line
        Properties of the curve, as `matplotlib.axes.Axes.errorbar` takes them.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If lengths differ, a field has several components, or a parameter is unknown.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import overparam as op
    >>> ax = op.plot.scan([1, 10, 100], [0.5, 0.2, 0.1], xscale="log", ylabel="risk")
    >>> ax.get_ylabel()
    'risk'
    """
    entries = [_entry(value, field) for value in values]
    if isinstance(x, str):
        positions = [_parameter(value, x) for value in values]
        xlabel = x.replace("_", " ") if xlabel is None else xlabel
    else:
        positions = list(_check.vector("x", x, len(entries)))
    if ylabel is None and any(isinstance(value, Result) for value in values):
        ylabel = _axis_name(field)
    ax = ax or panels(1)[0]
    errors = [error for _, error in entries]
    ax.errorbar(
        positions,
        [value for value, _ in entries],
        None if all(error is None for error in errors) else [error or 0.0 for error in errors],
        **{"marker": "o", "markersize": 4, "capsize": 2, **line},
    )
    return _finish(ax, xlabel or "", ylabel or "", xscale, yscale)


def compare(
    theory: Trajectory,
    sampled: Trajectory,
    *,
    field: str = "risk",
    ax: Axes | None = None,
    xscale: str = "linear",
    yscale: str = "linear",
    **line: Any,
) -> Axes:
    """Plot a theory as curves and a simulation as points with one standard error.

    Parameters
    ----------
    theory : Trajectory
        A result without replicas.
    sampled : Trajectory
        A result with replicas; its times need not be those of the theory.
    field : str
        A field, with a colour per component, or one component such as ``M[0,1]``.
    ax : matplotlib.axes.Axes, optional
        Where to draw; new axes by default.
    xscale, yscale : str
        Scales of the axes, such as "log".
    **line
        Properties of the theory's curves.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If `theory` has replicas, `sampled` has none, or a field is missing.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.sgd.Problem(width=2, teacher_width=1, lr=0.1, dim=10**6)
    >>> start, t = op.sgd.Overlaps.random(problem), [0.0, 1.0, 2.0]
    >>> sampled = op.sgd.simulate(problem, start, t, replicas=8)
    >>> ax = op.plot.compare(op.sgd.ode(problem, start, t), sampled)
    >>> ax.get_ylabel()
    'risk'
    """
    _require_time(theory)
    _require_time(sampled)
    if theory.sampled:
        raise _check.bad("theory", "a result without replicas", theory)
    if not sampled.sampled:
        raise _check.bad("sampled", "a result with replicas", sampled)
    curves = list(components(theory, field))
    measured = zip(components(sampled.mean(), field), components(sampled.sem(), field), strict=True)
    ax = ax or panels(1)[0]
    for (label, expected), ((_, mean), (_, error)) in zip(curves, measured, strict=True):
        several = f" {label}" if len(curves) > 1 else ""
        (curve,) = ax.plot(theory.t, expected, **{"label": theory.method + several, **line})
        ax.errorbar(
            sampled.t,
            mean,
            error,
            linestyle="",
            marker="o",
            markersize=4,
            capsize=2,
            color=curve.get_color(),
            label=f"{sampled.method}{several}, {sampled.replicas} replicas",
        )
    return _finish(ax, theory.time_label, field, xscale, yscale)


def _require_time(result: object) -> None:
    if not isinstance(result, Trajectory):
        raise _check.bad("results", "trajectories", result, TypeError)


def _entry(value: Result | float, field: str) -> tuple[float, float | None]:
    """Return what a point of a scan shows: value and standard error."""
    if not isinstance(value, Result):
        return _check.real("values", value, allow_inf=True), None
    centre = _single(value.mean() if value.sampled else value, field)
    return centre, _single(value.sem(), field) if value.sampled else None


def _single(result: Result, field: str) -> float:
    found = [array for _, array in components(result, field)]
    if len(found) != 1:
        raise _check.bad("field", f"one component such as {field}[0]", field)
    return float(found[0].flat[-1])


def _parameter(value: Result | float, name: str) -> float:
    problem = value.problem if isinstance(value, Result) else None
    if not hasattr(problem, name):
        raise _check.bad("x", "positions, or a parameter of the problems of all results", name)
    return cast(float, getattr(problem, name))


def _axis_name(field: str) -> str:
    return field.replace("_", " ")


def _finish(ax: Axes, xlabel: str, ylabel: str, xscale: str, yscale: str) -> Axes:
    ax.set(xlabel=xlabel, ylabel=_axis_name(ylabel), xscale=xscale, yscale=yscale)
    ax.grid(visible=True, alpha=0.3, linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    entries = len(ax.get_legend_handles_labels()[1])
    if entries:
        size = "medium" if entries <= 6 else "small"
        ax.legend(frameon=False, fontsize=size, ncols=1 + (entries - 1) // 8)
    return ax
