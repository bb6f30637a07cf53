"""The laboratory bench for the learning dynamics of shallow overparameterised networks.

Every model is here twice, as theory and as simulation, in the same units and with the same result
type; every claim of the papers is an executable check. One module per paper:

sgd
    Finite width, one-pass SGD.
population_flow
    Gradient flow on the population risk, exact at finite size and in the high-dimensional limit.
empirical_flow
    Gradient flow on n ~ d^2 samples at extensive width: dynamical mean-field theory, long times,
    thresholds, simulation.
giant_step
    One large gradient step on the first layer, then ridge regression of the readout.
random_features
    Online SGD of the second layer on random features, at any width and dimension.

Shared machinery: `hessian`, `results`, `spectra`, `plot`, `claims`.

Examples
--------
>>> import overparam as op
>>> problem = op.sgd.Problem(width=4, teacher_width=2, lr=0.1, dim=10**6)
>>> start, t = op.sgd.Overlaps.random(problem, scale=0.1, seed=1), [0.0, 5.0, 10.0]
>>> theory = op.sgd.ode(problem, start, t)
>>> sampled = op.sgd.simulate(problem, start, t, replicas=8)
>>> table = op.compare(theory, sampled, fields=["risk"])
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from overparam import _cpu

# Before the core is loaded, whose instructions the machine may not have.
_cpu.check(__path__)

from overparam import _core, results  # noqa: E402
from overparam.results import ConvergenceError, Status, compare, load  # noqa: E402

if TYPE_CHECKING:
    from overparam import claims as claims
    from overparam import empirical_flow as empirical_flow
    from overparam import giant_step as giant_step
    from overparam import hessian as hessian
    from overparam import plot as plot
    from overparam import population_flow as population_flow
    from overparam import random_features as random_features
    from overparam import sgd as sgd
    from overparam import spectra as spectra

__version__: str = _core.build_info()["version"]

# Modules that are imported when they are first used.
_LAZY = (
    "claims",
    "empirical_flow",
    "giant_step",
    "hessian",
    "plot",
    "population_flow",
    "random_features",
    "sgd",
    "spectra",
)

__all__ = [
    "ConvergenceError",
    "Status",
    "__version__",
    "claims",
    "compare",
    "empirical_flow",
    "giant_step",
    "hessian",
    "load",
    "plot",
    "population_flow",
    "random_features",
    "results",
    "sgd",
    "spectra",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return importlib.import_module(f"overparam.{name}")
    raise AttributeError(f"module 'overparam' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
