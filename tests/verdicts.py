"""What the tests of every room's claims share: verdicts, run once, and what each must have."""

import matplotlib.pyplot as plt
import numpy as np
from overparam import claims


class Verdicts:
    """The verdicts of one room's claims by name, run once for each set of options."""

    def __init__(self, room):
        self._room, self._found = room, {}

    def __call__(self, name, **options):
        key = (name, *sorted(options.items()))
        if key not in self._found:
            self._found[key] = claims.get(f"{self._room}/{name}").run(**options)
        return self._found[key]

    def failed(self, name):
        """Return what a claim checks in vain, run afresh."""
        found = claims.get(f"{self._room}/{name}").run()
        return [check.quantity for check in found.checks if not check.passed]


def described(found):
    """Return the checks that failed, in words."""
    return [
        f"{c.quantity}: {c.measured} +- {c.sem}, {c.rule}" for c in found.checks if not c.passed
    ]


def assert_finite_and_tabulated(found):
    assert np.isfinite([check.measured for check in found.checks]).all()
    assert len(found.table) > 2
    assert all(text for row in found.table.texts() for text in row)


def assert_figure_is_labelled(found, *, legends=any):
    """Every panel has labels, a title and curves; `legends` is any or all: which have a legend."""
    figure = found.figure()
    for ax in figure.axes:
        assert ax.get_xlabel()
        assert ax.get_ylabel()
        assert ax.get_title()
        assert ax.lines
    assert legends(ax.get_legend() is not None for ax in figure.axes)
    plt.close(figure)
