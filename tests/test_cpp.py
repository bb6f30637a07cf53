"""Builds the compiled core with warnings as errors, and runs its own tests."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# What the configuration says where a library is missing, and what to install.
NEEDS = {
    "Eigen 3.4 or newer was not found": "Eigen: pip install cmeel-eigen",
    "doctest": "doctest: apt-get install doctest-dev, or the package of your system",
}


def program(name):
    """A program of this Python's environment, or the system's."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"the C++ tests need {name}: pip install cmake")
    return found


def run(*command):
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("preset", ["dev", pytest.param("asan", marks=pytest.mark.slow)])
def test_core_builds_without_warnings_and_passes_its_tests(preset):
    cmake, ctest = program("cmake"), program("ctest")
    configured = run(cmake, "--preset", preset, f"-DPython_EXECUTABLE={sys.executable}")
    output = configured.stdout + configured.stderr
    if configured.returncode:
        for symptom, remedy in NEEDS.items():
            if symptom in output:
                pytest.skip(f"the C++ tests need {remedy}")
    assert configured.returncode == 0, output
    built = run(cmake, "--build", "--preset", preset, "--parallel", "2")
    assert built.returncode == 0, built.stdout + built.stderr
    tested = run(ctest, "--preset", preset, "--output-on-failure")
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "100% tests passed" in tested.stdout
