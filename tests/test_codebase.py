"""The code is formatted, lint-free and typed."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CPP = sorted(
    str(path.relative_to(ROOT))
    for folder in ("cpp", "tests/cpp")
    for path in (ROOT / folder).rglob("*.[ch]pp")
)


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check"],
        ["ruff", "format", "--check"],
        [sys.executable, "-m", "mypy"],
        ["clang-format", "--dry-run", "-Werror", *CPP],
    ],
    ids=["ruff-check", "ruff-format", "mypy", "clang-format"],
)
def test_clean(command):
    program, *arguments = command
    if program != sys.executable:
        program = str(Path(sys.executable).with_name(program))
    run = subprocess.run([program, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
