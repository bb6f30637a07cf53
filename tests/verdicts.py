"""The claims of every room, and their verdicts, run once."""

import functools
from dataclasses import dataclass

import numpy as np
from overparam import claims


@dataclass(frozen=True)
class Listed:
    """What the claims of a file must be."""

    papers: tuple[str, ...]  # arXiv numbers: every source names one of them
    page: str  # docs/papers/<page>.md has the equations
    names: tuple[str, ...]
    slow: tuple[str, ...] = ()  # with --runslow only
    seeds: int = 4  # that --runslow tries

    @property
    def cheap(self):
        return tuple(name for name in self.names if name not in self.slow)


LISTED = {
    "dmft": Listed(
        papers=("2601.10483",),
        page="empirical_flow",
        names=(
            "curves",
            "kernels",
            "universality",
            "gaussian-labels",
            "long-time",
            "large-alpha",
            "early-stopping",
            "finite-step",
        ),
        slow=("curves", "kernels", "universality", "large-alpha", "early-stopping"),
    ),
    "empirical_flow": Listed(
        papers=("2601.10483",),
        page="empirical_flow",
        names=(
            "learning-curves",
            "rank",
            "double-descent",
            "vanishing-ridge",
            "thresholds",
            "initialisation",
            "oja-power-laws",
            "convergence",
            "tables",
            "recovery-transition",
            "universality",
            "coexistence",
            "bayes-gap",
            "optimal-ridge",
        ),
        slow=(
            "learning-curves",
            "rank",
            "double-descent",
            "vanishing-ridge",
            "initialisation",
            "oja-power-laws",
            "recovery-transition",
            "universality",
            "optimal-ridge",
        ),
    ),
    "giant_step": Listed(
        papers=("2402.04980",),
        page="giant_step",
        names=(
            "learning-curves",
            "initialisation",
            "spike",
            "vocabulary",
            "floors",
            "finite-alpha0",
            "small-step",
            "double-descent",
            "logistic",
        ),
        slow=(
            "learning-curves",
            "finite-alpha0",
            "small-step",
            "double-descent",
            "logistic",
        ),
    ),
    "hessian": Listed(
        papers=("2604.03068", "2311.03794"),
        page="sgd",
        names=("plateau", "manifold", "path", "empirical-bulk", "saddles"),
        slow=("plateau", "empirical-bulk"),
    ),
    "population_flow": Listed(
        papers=("2311.03794",),
        page="population_flow",
        names=(
            "angles",
            "limit-orthonormal",
            "limit-gaussian",
            "rates",
            "overlap-rates",
            "minimal-overparameterisation",
            "no-spurious-minima",
            "underparameterised",
            "sample-complexity",
        ),
        slow=("limit-gaussian", "sample-complexity"),
    ),
    "random_features": Listed(
        papers=("2303.14083",),
        page="random_features",
        names=(
            "curves",
            "asymptotic-error",
            "learning-rate",
            "width-staircase",
            "exponential-width",
            "time-staircase",
            "gram-spectrum",
            "label-noise",
            "annealing",
        ),
        slow=("curves", "asymptotic-error"),
    ),
    "sgd": Listed(
        papers=("2604.03068",),
        page="sgd",
        names=(
            "ode",
            "exact-law",
            "escape",
            "plateau",
            "constraint",
            "manifold",
            "closest",
            "conserved",
            "late-time",
            "noise-floor",
            "stability",
        ),
        slow=(
            "ode",
            "exact-law",
            "escape",
            "plateau",
            "constraint",
            "manifold",
            "closest",
            "stability",
        ),
        seeds=2,
    ),
}


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


verdicts = functools.cache(Verdicts)


def described(found):
    """Return the checks that failed, in words."""
    return [
        f"{c.quantity}: {c.measured} +- {c.sem}, {c.rule}" for c in found.checks if not c.passed
    ]


def assert_finite_and_tabulated(found):
    assert np.isfinite([check.measured for check in found.checks]).all()
    assert len(found.table) > 2
    assert all(text for row in found.table.texts() for text in row)
