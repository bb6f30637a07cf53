"""What the claims of every room have in common: names, sources, verdicts, tables, figures."""

import matplotlib.pyplot as plt
import pytest
from overparam import claims
from verdicts import LISTED, assert_finite_and_tabulated, described, verdicts

CHEAP = [(room, name) for room, listed in LISTED.items() for name in listed.cheap]
SEEDED = [
    (room, name, seed)
    for room, listed in LISTED.items()
    for name in listed.names
    for seed in range(listed.seeds)
]


def test_list_of_claims():
    assert sorted(claims.list()) == sorted(
        f"{room}/{name}" for room, listed in LISTED.items() for name in listed.names
    )


@pytest.mark.parametrize("claim", claims.list())
def test_source_names_paper_and_section(claim):
    found, listed = claims.get(claim), LISTED[claim.partition("/")[0]]
    assert any(f"arXiv {paper}" in found.source for paper in listed.papers)
    assert f"docs/papers/{listed.page}.md section" in found.source
    assert found.statement.endswith(".")


@pytest.mark.parametrize(("room", "name"), CHEAP)
def test_cheap_claims_pass(room, name):
    found = verdicts(room)(name)
    assert found.passed, described(found)
    assert_finite_and_tabulated(found)


@pytest.mark.parametrize(("room", "name"), CHEAP)
def test_figure_has_labels_and_curves(room, name):
    figure = verdicts(room)(name).figure()
    for ax in figure.axes:
        assert ax.get_xlabel()
        assert ax.get_ylabel()
        assert ax.get_title()
        assert ax.lines
    assert any(ax.get_legend() is not None for ax in figure.axes)
    plt.close(figure)


@pytest.mark.slow
@pytest.mark.parametrize(("room", "name", "seed"), SEEDED)
def test_all_claims_pass(room, name, seed):
    found = verdicts(room)(name, seed=seed)
    assert found.passed, described(found)
    assert_finite_and_tabulated(found)
    plt.close(found.figure())
