import sys

import numpy as np
import pytest
import toys
from numpy.testing import assert_allclose, assert_array_equal
from overparam import empirical_flow, plot
from overparam.results import Spectrum, Status
from overparam.spectra import discrete, free_sum, jacobi, semicircle

T = [0.0, 0.5, 1.0]
PROBLEM = toys.Problem(rate=1.0, width=2)


@pytest.fixture
def theory():
    return toys.theory(PROBLEM, T)


@pytest.fixture
def sampled():
    return toys.simulate(PROBLEM, T, replicas=5)


@pytest.fixture(autouse=True)
def closed():
    from matplotlib import pyplot as plt

    before = dict(plt.rcParams)
    yield
    assert dict(plt.rcParams) == before
    plt.close("all")


@pytest.fixture
def relaxing():
    """A theory and a simulation of a class with a headline of its own, without a problem."""
    exact = toys.relax([[1.0, -2.0]], [0.5, 1.0], T)
    return exact, toys.relax_from_random([0.5, 1.0], T, replicas=4)


def spectrum(**fields):
    return Spectrum(method="sample", status=Status.SUCCESS, origin={}, **fields)


def labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def heights(ax):
    return ax.lines[0].get_ydata().astype(float)  # errorbar keeps objects


def test_trajectory_of_theory(theory):
    ax = plot.trajectory(theory)
    assert_allclose(ax.lines[0].get_xydata(), np.column_stack([theory.t, theory.risk]))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("t = steps / 100", "risk")
    assert labels(ax) == ["exact"]
    assert len(ax.collections) == 0


def test_trajectory_of_a_simulation_has_a_band_of_one_standard_error(sampled):
    ax = plot.trajectory(sampled)
    mean, sem = sampled.mean().risk, sampled.sem().risk
    assert_allclose(ax.lines[0].get_ydata(), mean)
    (band,) = ax.collections
    corners = band.get_paths()[0].vertices
    assert_allclose(corners[:, 1].max(), (mean + sem).max())
    assert_allclose(corners[:, 1].min(), (mean - sem).min())


def test_trajectory_with_quantiles(sampled):
    ax = plot.trajectory(sampled, quantiles=(0.0, 1.0))
    assert_allclose(ax.lines[0].get_ydata(), np.median(sampled.risk, axis=0))
    corners = ax.collections[0].get_paths()[0].vertices
    assert_allclose(corners[:, 1].min(), sampled.risk.min())


def test_trajectory_of_several_results_and_components(theory, sampled):
    from matplotlib.figure import Figure

    own = Figure().subplots()
    ax = plot.trajectory(
        theory, sampled, field="M", ax=own, xscale="log", yscale="symlog", linewidth=3
    )
    assert ax is own
    assert len(ax.lines) == 4
    assert {line.get_linewidth() for line in ax.lines} == {3}
    assert labels(ax) == ["exact M[0,0]", "exact M[1,0]", "euler M[0,0]", "euler M[1,0]"]
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "symlog")
    assert len(plot.trajectory(theory, field="M[1,0]", label="mine").lines) == 1


def test_trajectory_refuses(theory):
    point = toys.DecayPoint(method="m", status=Status.SUCCESS, origin={}, risk=1.0)
    with pytest.raises(ValueError, match="results must be at least one trajectory"):
        plot.trajectory()
    with pytest.raises(TypeError, match="results must be trajectories"):
        plot.trajectory(point)
    with pytest.raises(ValueError, match="field must be one of M, P, risk"):
        plot.trajectory(theory, field="loss")


def test_the_headline_is_what_figures_show(relaxing, theory):
    exact, random = relaxing
    ax = plot.trajectory(exact, random)
    assert_allclose(ax.lines[0].get_ydata(), exact.squared_distance)
    assert_allclose(ax.lines[1].get_ydata(), random.mean().squared_distance)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("t = seconds", "squared distance")
    ax = plot.compare(exact, random)
    assert_allclose(ax.lines[0].get_ydata(), exact.squared_distance)
    assert_allclose(ax.lines[1].get_ydata(), random.mean().squared_distance)
    assert ax.get_ylabel() == "squared distance"
    ax = plot.scan([1, 2], [exact, random])
    last = exact.squared_distance[-1], random.mean().squared_distance[-1]
    assert_allclose(heights(ax), last)
    assert ax.get_ylabel() == "squared distance"
    for draw in (plot.trajectory, plot.compare):
        assert draw(exact, random, field="distance").get_ylabel() == "distance"
    assert plot.scan([1], [exact], field="distance").get_ylabel() == "distance"
    # Of several results the first decides; numbers have no say.
    with pytest.raises(ValueError, match=r"field must be one of M, .* was 'squared_distance'"):
        plot.trajectory(exact, theory)
    assert plot.scan([1, 2], [0.5, exact]).get_ylabel() == "squared distance"
    with pytest.raises(ValueError, match="x must be positions, or a parameter"):
        plot.scan("rate", [exact])


def test_compare(theory, sampled):
    ax = plot.compare(theory, sampled, yscale="log")
    assert_allclose(ax.lines[0].get_ydata(), theory.risk)
    assert_allclose(ax.lines[1].get_ydata(), sampled.mean().risk)
    assert ax.lines[1].get_linestyle() == "None"
    assert labels(ax) == ["exact", "euler, 5 replicas"]
    assert (ax.get_yscale(), ax.get_xlabel()) == ("log", "t = steps / 100")
    ax = plot.compare(theory, sampled, field="M", ax=ax)
    assert set(labels(ax)) == {
        "exact",
        "exact M[0,0]",
        "exact M[1,0]",
        "euler, 5 replicas",
        "euler M[0,0], 5 replicas",
        "euler M[1,0], 5 replicas",
    }
    for wrong in ((sampled, sampled), (theory, theory)):
        with pytest.raises(ValueError, match="must be a result with"):
            plot.compare(*wrong)


def test_scan_of_numbers():
    ax = plot.scan([1, 10, 100], np.array([3.0, 2.0, 1.0]), xscale="log", xlabel="N", ylabel="risk")
    assert ax.lines[0].get_xdata().tolist() == [1, 10, 100]
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_xscale()) == ("N", "risk", "log")
    assert ax.get_legend() is None
    assert labels(plot.scan([1], [2], ax=ax, label="mine")) == ["mine"]


def test_scan_of_results(theory):
    problems = toys.Problem.grid(rate=[0.5, 1.0, 2.0])
    ax = plot.scan("rate", [toys.theory(problem, T) for problem in problems])
    assert ax.lines[0].get_xdata().tolist() == [0.5, 1.0, 2.0]
    assert_allclose(heights(ax), [np.exp(-2 * rate) for rate in (0.5, 1.0, 2.0)])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("rate", "risk")
    runs = [toys.simulate(problem, T, replicas=4) for problem in problems]
    ax = plot.scan([1, 2, 3], runs, field="M[0,0]", yscale="log")
    assert_allclose(heights(ax), [run.mean().M[-1, 0, 0] for run in runs])
    (bars,) = ax.containers
    assert bars.has_yerr
    with pytest.raises(ValueError, match="field must be one component"):
        plot.scan("rate", [theory], field="M")
    with pytest.raises(ValueError, match="x must be positions, or a parameter"):
        plot.scan("speed", [theory])
    with pytest.raises(ValueError, match=r"x must be a vector .* of length 1"):
        plot.scan([1, 2], [theory])
    with pytest.raises(TypeError, match="values must be"):
        plot.scan([1], ["a"])


def test_scan_of_points():
    points = [
        toys.DecayPoint(method="m", status=Status.SUCCESS, origin={}, risk=value)
        for value in (1, 2)
    ]
    ax = plot.scan([0.1, 0.2], points)
    assert ax.lines[0].get_ydata().tolist() == [1.0, 2.0]
    assert ax.get_ylabel() == "risk"


def test_spectrum_of_a_law():
    law = jacobi(0.7, 0.6)
    ax = plot.spectrum(law)
    curve, heads = ax.lines
    x, y = curve.get_data()
    assert_allclose(np.nanmin(x), law.support[0])
    assert_allclose(np.nanmax(x), law.support[1])
    assert_allclose(y[~np.isnan(x)], law.density(x[~np.isnan(x)]))
    assert_allclose(heads.get_xydata(), law.atoms)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("eigenvalue", "density")
    assert labels(ax) == ["Jacobi(gamma=0.7, gamma_star=0.6)"]
    ax = plot.spectrum(discrete(range(4), [0.25] * 4))
    assert_allclose(ax.lines[1].get_ydata(), 0.25)
    assert labels(ax) == ["Discrete"]


def test_spectrum_of_eigenvalues_is_a_histogram():
    result = spectrum(eigenvalues=[0.0, 1.0, 3.0], multiplicities=[6, 1, 1])
    ax = plot.spectrum(result, semicircle(1.0), bins=[0.0, 2.0, 4.0])
    (bars,) = ax.patches
    assert bars.get_data().values.tolist() == [7 / 8 / 2, 1 / 8 / 2]
    assert labels(ax) == ["sample", "Semicircle(variance=1.0)"]
    nodes = spectrum(nodes=[1.0, 2.0], weights=[0.5, 0.5])
    (bars,) = plot.spectrum(nodes, bins=10, color="red", label="mine").patches
    values, edges, _ = bars.get_data()
    assert_allclose(np.diff(edges) @ values, 1.0)
    assert len(plot.spectrum(nodes).patches[0].get_data().values) == 50


def test_broadened_spectra_are_curves():
    law = discrete([-1.0, 1.0], [0.5, 0.5])
    points = spectrum(eigenvalues=[-1.0, 1.0])
    ax = plot.spectrum(law, points, width=0.01, xscale="linear", yscale="log", linewidth=3)
    first, second = ax.lines
    assert_allclose(first.get_xydata(), second.get_xydata(), rtol=1e-10)
    assert_allclose(first.get_ydata().max(), 0.5 / (np.pi * 0.01), rtol=0.05)
    assert (first.get_linewidth(), ax.get_yscale()) == (3, "log")
    assert not ax.patches


def test_spectrum_of_a_curve():
    from matplotlib.figure import Figure

    own = Figure().subplots()
    result = spectrum(
        grid=[0.0, 1.0, 2.0],
        values=[0.0, 0.5, 0.0],
        edges=[0.0, 2.0],
        atom_positions=[-1.0],
        atom_masses=[0.5],
    )
    assert plot.spectrum(result, ax=own) is own
    curve, heads = own.lines
    assert curve.get_xydata().tolist() == [[0, 0], [1, 0.5], [2, 0]]
    assert heads.get_xydata().tolist() == [[-1, 0.5]]
    assert len(plot.spectrum(result, width=0.1).lines) == 1


def test_spectrum_marks_outliers():
    law = semicircle(1.0)
    few = spectrum(eigenvalues=[-1.0, 0.0, 5.0])
    ax = plot.spectrum(few, law, outliers=[-3.0, -2.0, 0.0, 2.0, 2.1])
    (marks,) = [line for line in ax.lines if line.get_label() == "outliers"]
    assert marks.get_xdata().tolist() == [-3.0, 2.1]
    # Atoms are no outliers, gaps between intervals are outside.
    law = free_sum(discrete([-5.0, 5.0], [0.5, 0.5]), 1.0)
    ax = plot.spectrum(few, law, discrete([1.0], [1.0]), outliers=[-5.0, 0.0, 1.0])
    assert ax.lines[-1].get_xdata().tolist() == [0.0]
    # The bulk given as a curve decides alone, also in a gap of its own.
    x = np.array([-1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    density = [0.0, 0.2, 0.4, 0.0, 1e-4, 0.2, 0.0]
    ax = plot.spectrum(few, law, bulk=(x, density), outliers=[-5.0, 0.0, 2.0, 2.5, 3.0, 3.9, 5.1])
    curve, marks = ax.lines[-2:]
    assert (curve.get_label(), curve.get_ydata().tolist()) == ("bulk", density)
    assert marks.get_xdata().tolist() == [-5.0, 2.0, 2.5, 3.0, 5.1]
    # With none outside, and with a bulk alone, there is nothing to mark.
    ax = plot.spectrum(few, bulk=(x, density), outliers=[0.5])
    assert [line.get_label() for line in ax.lines] == ["bulk"]


@pytest.mark.parametrize(
    ("bulk", "error"),
    [
        ([1.0, 2.0, 3.0], TypeError),
        (1.0, TypeError),
        (([0.0, 1.0], [1.0]), ValueError),
        (([1.0, 0.0], [1.0, 1.0]), ValueError),
        (([1.0], [1.0]), ValueError),
        (([0.0, np.nan], [1.0, 1.0]), ValueError),
    ],
)
def test_spectrum_refuses_a_bulk(bulk, error):
    with pytest.raises(error, match="bulk must be a"):
        plot.spectrum(spectrum(eigenvalues=[1.0]), bulk=bulk)


def test_spectrum_refuses(theory):
    few = spectrum(eigenvalues=[1.0])
    with pytest.raises(ValueError, match="bulk must be positions that reach beyond the bulk"):
        plot.spectrum(few, bulk=([0.0, 1.0], [0.1, 0.0]), outliers=[1.0])
    with pytest.raises(ValueError, match="outliers must be None without a bulk or a law"):
        plot.spectrum(few, outliers=[1.0])
    with pytest.raises(ValueError, match="results must be at least one spectrum or law"):
        plot.spectrum()
    with pytest.raises(TypeError, match="results must be spectra or laws"):
        plot.spectrum(theory)
    with pytest.raises(ValueError, match="bins must be None where nothing is drawn"):
        plot.spectrum(semicircle(1.0), bins=10)
    with pytest.raises(ValueError, match="bins must be None where nothing is drawn"):
        plot.spectrum(spectrum(eigenvalues=[1.0]), bins=10, width=0.1)
    with pytest.raises(ValueError, match="width must be"):
        plot.spectrum(semicircle(1.0), width=-1.0)


def test_without_matplotlib(theory, sampled, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    for draw in (
        lambda: plot.trajectory(theory),
        lambda: plot.compare(theory, sampled),
        lambda: plot.scan([1], [1]),
        lambda: plot.spectrum(semicircle(1.0)),
    ):
        with pytest.raises(ImportError, match=r'needs matplotlib: pip install "overparam\[plot\]"'):
            draw()


@pytest.fixture(scope="module")
def mean_field():
    problem = empirical_flow.Problem(alpha=0.5, kappa=0.5, kappa_star=0.3, noise_var=0.2)
    return empirical_flow.dmft(problem, [0.0, 0.1, 0.2, 0.4], lr=0.02, dim=16, seed=1)


def test_theories_with_errors_have_bands(mean_field):
    ax = plot.trajectory(mean_field)
    assert_allclose(ax.lines[0].get_ydata(), mean_field.risk)
    (band,) = ax.collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert_allclose(heights.max(), (mean_field.risk + mean_field.risk_sem).max())
    assert_allclose(heights.min(), (mean_field.risk - mean_field.risk_sem).min())
    assert len(plot.trajectory(mean_field, field="train_risk_sem").collections) == 0


def test_comparison_with_errors_of_the_theory(mean_field):
    sampled = empirical_flow.simulate(
        mean_field.problem, mean_field.t, dim=10, lr=0.02, replicas=3, seed=2
    )
    ax = plot.compare(mean_field, sampled)
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert_allclose(band.max(), (mean_field.risk + mean_field.risk_sem).max())
    assert labels(ax) == ["dmft", "gradient descent, 3 replicas"]


def test_kernels(mean_field):
    ax = plot.kernel(mean_field)
    (mesh,) = ax.collections
    assert_allclose(mesh.get_array().reshape(21, 21), mean_field.correlation)
    assert [text.get_text() for text in (ax.xaxis.label, ax.yaxis.label)] == ["time s", "time t"]
    assert_allclose(ax.get_xlim(), (-0.01, 0.41))
    for field in ("response", "memory"):
        ax = plot.kernel(mean_field, field)
        shown = ax.collections[0].get_array().reshape(21, 21)
        below = np.tri(21, k=-1, dtype=bool)
        assert_array_equal(np.ma.getmaskarray(shown), ~below)
        assert_allclose(shown[below], getattr(mean_field, field)[below])
        low, high = ax.collections[0].get_clim()
        assert low == -high == -np.abs(shown).max()
    assert plot.kernel(mean_field, cmap="magma").collections[0].get_cmap().name == "magma"
    with pytest.raises(ValueError, match=r"field must be one of correlation, .* but was 'risk'"):
        plot.kernel(mean_field, "risk")


def test_kernels_of_other_results(theory):
    with pytest.raises(ValueError, match="field must be of a result with kernels"):
        plot.kernel(theory)


def test_fields_that_are_not_over_t(mean_field):
    for field in ("memory_sum", "correlation", "step_times", "memory_sum[3]"):
        with pytest.raises(ValueError, match="field must be over t: one of risk, train_risk"):
            plot.trajectory(mean_field, field=field)


def test_aging_of_a_kernel_without_diagonal(mean_field):
    with pytest.raises(ValueError, match="normalised must be False for response"):
        plot.aging(mean_field, [0.0, 0.2], field="response")
    ax = plot.aging(mean_field, [0.2], field="response", normalised=False)
    assert_allclose(ax.lines[0].get_ydata(), mean_field.response[11:, 10])


def test_aging(mean_field):
    ax = plot.aging(mean_field, [0.0, 0.2])
    assert labels(ax) == ["$t_w$ = 0", "$t_w$ = 0.2"]
    C = mean_field.correlation
    x, y = ax.lines[1].get_data()
    assert_allclose(x, mean_field.step_times[1:11])
    assert_allclose(y, C[11:, 10] / C[10, 10])
    ax = plot.aging(
        mean_field, [0.1], field="residual_correlation", normalised=False, xscale="linear"
    )
    assert_allclose(ax.lines[0].get_ydata(), mean_field.residual_correlation[5:, 5])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("time since $t_w$", "residual correlation")
    for waiting_times in ([0.5], [-0.1], 0.1):
        with pytest.raises(ValueError, match="waiting_times must be"):
            plot.aging(mean_field, waiting_times)
