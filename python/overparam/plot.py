"""Figures of results: curves in time, scans, theory against simulation, spectra, kernels.

Every function draws on the axes it is given, or on new ones, and returns them. Nothing global is
changed. Needs matplotlib, which the extra `plot` installs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import ArrayLike

from overparam import _check
from overparam._check import FloatArray
from overparam.results import Result, Spectrum, Trajectory, components, errors_beside
from overparam.spectra import Law

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["aging", "compare", "kernel", "scan", "spectrum", "trajectory"]

PANEL = (5.0, 3.6)  # inches
_BAND: dict[str, Any] = {"alpha": 0.25, "linewidth": 0}
_BINS = 50
_POINTS = 1000  # of a density curve
_OUTSIDE = 1e-3  # of the largest density of the bulk: an outlier is where it is less


def require_matplotlib() -> None:
    """Raise ImportError naming the extra to install, if matplotlib is missing.

    Examples
    --------
    >>> from overparam import plot
    >>> plot.require_matplotlib()
    """
    try:
        import matplotlib.figure  # noqa: F401 - only whether it can be imported
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
    field: str | None = None,
    ax: Axes | None = None,
    quantiles: tuple[float, float] | None = None,
    xscale: str = "linear",
    yscale: str = "linear",
    **line: Any,
) -> Axes:
    """Plot a field against time.

    Sampled results appear as the mean over replicas with a band of one standard error, theories
    that have standard errors with a band, too.

    Parameters
    ----------
    *results : Trajectory
        One or several results.
    field : str, optional
        A field, with a curve per component, or one component such as ``M[0,1]``. Default: the
        `headline` of the first result, such as ``risk``.
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
        Without results, or if a result is no trajectory or has no such field over t.
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
    field = _headline(results) if field is None else field
    for result in results:
        _require_time(result)
        next(components(result, field))
        over_time = [name for name, spec in result._specs().items() if "time" in spec.axes]
        if field.partition("[")[0] not in over_time:
            raise _check.bad("field", f"over t: one of {', '.join(over_time[1:])}", field)
    ax = ax or panels(1)[0]
    curves: list[tuple[str, FloatArray, FloatArray | None, FloatArray | None]]
    for result in results:
        if not result.sampled:
            curves = [
                (
                    label,
                    y,
                    None if error is None else y - error,
                    None if error is None else y + error,
                )
                for (label, y), error in zip(
                    components(result, field), errors_beside(result, field), strict=True
                )
            ]
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
    field: str | None = None,
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
    field : str, optional
        A field with one component, or one component such as ``M[0,1]``. Default: the `headline`
        of the first trajectory, and ``risk`` where there is none.
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
    field = _headline(values) if field is None else field
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
    field: str | None = None,
    ax: Axes | None = None,
    xscale: str = "linear",
    yscale: str = "linear",
    **line: Any,
) -> Axes:
    """Plot a theory as curves and a simulation as points with one standard error.

    Standard errors that the theory has appear as bands.

    Parameters
    ----------
    theory : Trajectory
        A result without replicas.
    sampled : Trajectory
        A result with replicas; its times need not be those of the theory.
    field : str, optional
        A field, with a colour per component, or one component such as ``M[0,1]``. Default: the
        `headline` of the theory, such as ``risk``.
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
    field = theory.headline if field is None else field
    curves = list(components(theory, field))
    measured = zip(components(sampled.mean(), field), components(sampled.sem(), field), strict=True)
    own = errors_beside(theory, field)
    ax = ax or panels(1)[0]
    for (label, expected), band, ((_, mean), (_, error)) in zip(curves, own, measured, strict=True):
        several = f" {label}" if len(curves) > 1 else ""
        (curve,) = ax.plot(theory.t, expected, **{"label": theory.method + several, **line})
        if band is not None:
            lower, upper = expected - band, expected + band
            ax.fill_between(theory.t, lower, upper, color=curve.get_color(), **_BAND)
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


def spectrum(
    *results: Spectrum | Law,
    ax: Axes | None = None,
    width: float = 0.0,
    bins: int | ArrayLike | None = None,
    bulk: tuple[ArrayLike, ArrayLike] | None = None,
    outliers: ArrayLike | None = None,
    xscale: str = "linear",
    yscale: str = "linear",
    **line: Any,
) -> Axes:
    """Plot densities of eigenvalues: laws as curves, lists of eigenvalues as histograms.

    Atoms of laws and of tabulated spectra appear as spikes as high as their mass, eigenvalues
    outside of the bulk as triangles on the axis.

    Parameters
    ----------
    *results : Spectrum or Law
        One or several spectra or laws.
    ax : matplotlib.axes.Axes, optional
        Where to draw; new axes by default.
    width : float
        Half-width of the Lorentzians to which all eigenvalues and atoms are broadened, at least 0.
        With a positive width everything is a curve.
    bins : int or sequence of float, optional
        Number of the histograms' bins, or their edges; 50 by default.
    bulk : pair of sequences of float, optional
        Ascending positions, and the density of the bulk there, such as `hessian.bulk` gives:
        drawn over the rest. They must reach beyond the bulk if outliers are to be marked.
    outliers : sequence of float, optional
        Eigenvalues, such as those of `hessian.extremes`. Those are marked that are outside of the
        bulk: where the density of `bulk` is less than a thousandth of its maximum or, without it,
        off the edges of all the laws.
    xscale, yscale : str
        Scales of the axes, such as "log".
    **line
        Properties of the curves, as `matplotlib.axes.Axes.plot` takes them. A `label` replaces
        the automatic ones, which give the method or the law.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        Without results; if `bins` are given and nothing is drawn as a histogram; if `outliers` are
        given without a bulk or a law; if `bulk` is not as described.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np, overparam as op
    >>> G = np.random.default_rng(0).standard_normal((200, 100))
    >>> sampled = op.results.Spectrum(
    ...     eigenvalues=np.linalg.eigvalsh(G.T @ G / 200),
    ...     method="sample",
    ...     status=op.Status.SUCCESS,
    ...     origin=op.results.make_origin(),
    ... )
    >>> ax = op.plot.spectrum(sampled, op.spectra.marchenko_pastur(2.0), bins=20)
    >>> ax.get_ylabel()
    'density'
    """
    if not results:
        raise ValueError("results must be at least one spectrum or law, but was none")
    for result in results:
        if not isinstance(result, (Spectrum, Law)):
            raise _check.bad("results", "spectra or laws", result, TypeError)
    width = _check.real("width", width, minimum=0.0)
    barred = [width == 0 and isinstance(r, Spectrum) and r.grid is None for r in results]
    if bins is not None and not any(barred):
        raise _check.bad("bins", "None where nothing is drawn as a histogram", bins)
    curve = None if bulk is None else _bulk(bulk)
    marked = None
    if outliers is not None:
        laws = [result for result in results if isinstance(result, Law)]
        if bulk is None and not laws:
            raise _check.bad("outliers", "None without a bulk or a law to compare with", outliers)
        marked = _outside(_check.vector("outliers", outliers), curve, laws)
    ax = ax or panels(1)[0]
    for result, bars in zip(results, barred, strict=True):
        style = {"label": _name(result), **line}
        if bars:
            _histogram(ax, cast(Spectrum, result), _BINS if bins is None else bins, style)
            continue
        x, density = _density(result, width)
        (drawn,) = ax.plot(x, density, **style)
        if width == 0:
            heads = dict(result.atoms)
            color = drawn.get_color()
            ax.vlines(list(heads), 0.0, list(heads.values()), color=color)
            ax.plot(list(heads), list(heads.values()), "o", color=color, markersize=4)
    if curve is not None:
        ax.plot(*curve, color="black", linewidth=1.2, label="bulk")
    if marked is not None and len(marked):
        on_axis = ax.get_xaxis_transform()
        ax.plot(
            marked,
            np.full(len(marked), 0.02),
            "v",
            color="tab:red",
            transform=on_axis,
            clip_on=False,
            label="outliers",
        )
    return _finish(ax, "eigenvalue", "density", xscale, yscale)


def kernel(
    result: Trajectory,
    field: str = "correlation",
    *,
    ax: Axes | None = None,
    **mesh: Any,
) -> Axes:
    """Plot a two-time kernel as a heat map.

    Parameters
    ----------
    result : Trajectory
        A result with kernels, such as that of `empirical_flow.dmft`.
    field : str
        A kernel: "correlation", "response", "memory" or "residual_correlation". Of those that are
        lower triangular only the part below the diagonal appears, with colours on both sides of 0.
    ax : matplotlib.axes.Axes, optional
        Where to draw; new axes by default.
    **mesh
        Properties of the map, as `matplotlib.axes.Axes.pcolormesh` takes them.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If the result has no such kernel.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.empirical_flow.Problem(alpha=0.5, kappa=0.5, kappa_star=0.3)
    >>> run = op.empirical_flow.dmft(problem, [0.2], lr=0.02, dim=20)
    >>> ax = op.plot.kernel(run, "response")
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('time s', 'time t')
    """
    times, values = _kernel(result, field)
    causal = not np.triu(values, 1).any()
    style: dict[str, Any] = {"cmap": "viridis", "rasterized": True}
    if causal:
        values = np.where(np.tri(len(values), k=-1, dtype=bool), values, np.nan)
        largest = np.nanmax(np.abs(values), initial=0.0)
        style |= {"cmap": "RdBu_r", "vmin": -largest, "vmax": largest}
    ax = ax or panels(1)[0]
    image = ax.pcolormesh(times, times, values, **{**style, **mesh})
    ax.figure.colorbar(image, ax=ax, label=_axis_name(field))
    ax.set(xlabel="time s", ylabel="time t", aspect="equal")
    return ax


def aging(
    result: Trajectory,
    waiting_times: Sequence[float] | FloatArray,
    *,
    field: str = "correlation",
    normalised: bool = True,
    ax: Axes | None = None,
    xscale: str = "log",
    yscale: str = "linear",
    **line: Any,
) -> Axes:
    """Plot a two-time kernel against the time since some waiting times, K(t_w + s, t_w).

    Parameters
    ----------
    result : Trajectory
        A result with kernels, such as that of `empirical_flow.dmft`.
    waiting_times : sequence of float
        Times t_w; of the run's steps the nearest ones are taken.
    field : str
        A kernel, as in `kernel`.
    normalised : bool
        Divide by K(t_w, t_w).
    ax : matplotlib.axes.Axes, optional
        Where to draw; new axes by default.
    xscale, yscale : str
        Scales of the axes.
    **line
        Properties of the curves, as `matplotlib.axes.Axes.plot` takes them.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If the result has no such kernel, a waiting time is not within the run, or `normalised`
        would divide by zero.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import overparam as op
    >>> problem = op.empirical_flow.Problem(alpha=0.5, kappa=0.5, kappa_star=0.3)
    >>> run = op.empirical_flow.dmft(problem, [0.4], lr=0.02, dim=20)
    >>> ax = op.plot.aging(run, [0.0, 0.2])
    >>> len(ax.lines)
    2
    """
    times, values = _kernel(result, field)
    waits = _check.vector("waiting_times", waiting_times)
    if not ((waits >= 0.0) & (waits <= times[-1])).all():
        raise _check.bad("waiting_times", f"within the run, 0 to {times[-1]:g}", waits)
    rows = [int(np.argmin(np.abs(times - wait))) for wait in waits]
    if normalised and not values[rows, rows].all():
        raise _check.bad("normalised", f"False for {field}, which vanishes at equal times", True)
    ax = ax or panels(1)[0]
    for row in rows:
        curve = values[row:, row] / (values[row, row] if normalised else 1.0)
        first = 1 if xscale == "log" else 0  # the time 0 has no place on a logarithmic scale
        label = f"$t_w$ = {times[row]:.4g}"
        ax.plot((times[row:] - times[row])[first:], curve[first:], **{"label": label, **line})
    name = f"{field}, normalised" if normalised else field
    return _finish(ax, "time since $t_w$", name, xscale, yscale)


def _kernel(result: Trajectory, field: str) -> tuple[FloatArray, FloatArray]:
    """Return the times of all steps and the kernel."""
    _require_time(result)
    specs = result._specs()
    known = [name for name in specs if specs[name].axes == ("step", "step_2")]
    if field not in known:
        must = "one of " + ", ".join(known) if known else "of a result with kernels"
        raise _check.bad("field", must, field)
    arrays = result._arrays()
    return arrays["step_times"], arrays[field]


def _bulk(bulk: object) -> tuple[FloatArray, FloatArray]:
    """Return positions and density of the bulk, checked."""
    must = "a pair: ascending positions, and as many densities"
    if not isinstance(bulk, (tuple, list)) or len(bulk) != 2:
        raise _check.bad("bulk", must, bulk, TypeError)
    x, density = _check.vector("bulk", bulk[0]), _check.vector("bulk", bulk[1])
    if len(x) < 2 or len(x) != len(density) or not np.all(np.diff(x) > 0):
        raise _check.bad("bulk", must, bulk)
    return x, density


def _outside(
    eigenvalues: FloatArray, curve: tuple[FloatArray, FloatArray] | None, laws: list[Law]
) -> FloatArray:
    """Return the eigenvalues that are outside of the bulk."""
    if curve is not None:
        x, density = curve
        if max(density[0], density[-1]) >= _OUTSIDE * density.max():
            raise _check.bad("bulk", "positions that reach beyond the bulk to mark outliers", x)
        there = np.interp(eigenvalues, x, density, left=0.0, right=0.0)
        return np.asarray(eigenvalues[there < _OUTSIDE * density.max()])
    inside = np.zeros(len(eigenvalues), dtype=bool)
    for law in laws:
        inside |= np.searchsorted(law.edges, eigenvalues) % 2 == 1
        inside |= np.isin(eigenvalues, [*law.edges, *(position for position, _ in law.atoms)])
    return np.asarray(eigenvalues[~inside])


def _name(result: Spectrum | Law) -> str:
    """Return what a legend calls a spectrum or a law: a law with its parameters, if they fit."""
    if isinstance(result, Spectrum):
        return result.method
    text = repr(result)
    return text if len(text) <= 40 else type(result).__name__


def _histogram(ax: Axes, result: Spectrum, bins: int | ArrayLike, style: dict[str, Any]) -> None:
    """Draw bars whose areas are the masses in the bins."""
    points, masses = result.nodes, result.weights
    if result.eigenvalues is not None:
        points, masses = result.eigenvalues, result.multiplicities / cast(Any, result.size)
    heights, edges = np.histogram(cast(FloatArray, points), cast(Any, bins), weights=masses)
    look = {name: style[name] for name in ("label", "color") if name in style}
    ax.stairs(heights / np.diff(edges), edges, fill=True, alpha=0.4, **look)


def _density(result: Spectrum | Law, width: float) -> tuple[FloatArray, FloatArray]:
    """Return a curve, with NaN between the intervals of a law."""
    parts = [np.asarray(result.edges), np.array([position for position, _ in result.atoms])]
    if isinstance(result, Spectrum):
        parts += [array for array in (result.nodes, result.grid) if array is not None]
    if width > 0:
        places = np.concatenate(parts)
        low, high = places.min() - 8 * width, places.max() + 8 * width
        count = int(np.clip(5 * (high - low) / width, _POINTS, 20 * _POINTS))
        x = np.linspace(low, high, count)
        if isinstance(result, Law):
            return x, -result.cauchy(x + 1j * width).imag / np.pi
        return x, result.density(x, width)
    if isinstance(result, Spectrum):
        x = np.union1d(cast(FloatArray, result.grid), result.edges)
        return x, result.density(x)
    intervals = zip(result.edges[::2], result.edges[1::2], strict=True)
    pieces = [np.append(np.linspace(low, high, _POINTS), np.nan) for low, high in intervals]
    x = np.concatenate([np.empty(0), *pieces])
    return x, result.density(x)


def _require_time(result: object) -> None:
    if not isinstance(result, Trajectory):
        raise _check.bad("results", "trajectories", result, TypeError)


def _headline(values: Iterable[object]) -> str:
    """Return the field that the first trajectory is mainly about; a trajectory's, without any."""
    return next((v.headline for v in values if isinstance(v, Trajectory)), Trajectory.headline)


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
