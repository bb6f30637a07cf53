import os
import sys
import types

import pytest
from hypothesis import settings

os.environ["MPLBACKEND"] = "Agg"
if "PYTEST_XDIST_WORKER" in os.environ:
    # Several processes share the cores: one thread each, where a test does not ask for more.
    os.environ.setdefault("OVERPARAM_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Compiled code is fast at the second call and slow at the first: no deadline per example. The fast
# tier takes the same examples in every run, the slow one looks for new ones.
settings.register_profile("fast", deadline=None, derandomize=True)
settings.register_profile("slow", deadline=None)


def pytest_addoption(parser):
    parser.addoption("--runslow", action="store_true", help="run the tests marked slow as well")


def pytest_configure(config):
    settings.load_profile("slow" if config.getoption("--runslow") else "fast")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--runslow"):
        return
    skip = pytest.mark.skip(reason="slow: only with --runslow")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)


@pytest.fixture
def toy_claims(monkeypatch):
    """Registers the claims of toys.py, and no other; returns the module that holds them."""
    import toys
    from overparam import claims

    module = types.ModuleType("overparam.claims.toy")
    module.CLAIMS = toys.CLAIMS
    monkeypatch.setitem(sys.modules, module.__name__, module)
    found = [types.SimpleNamespace(name=name) for name in ("toy", "_report")]
    monkeypatch.setattr(claims.pkgutil, "iter_modules", lambda _: found)
    return module
