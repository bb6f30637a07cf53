"""Generates the type stub of the compiled core: `python tests/stubs.py` writes it.

tests/test_structure.py checks that the committed stub is what this makes.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from overparam import _core

PATH = Path(__file__).parents[1] / "python" / "overparam" / "_core.pyi"


def generate() -> str:
    """Return the stub that pybind11-stubgen makes, with the enumeration's members spelled out."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pybind11_stubgen", "overparam._core", "-o", folder]
        subprocess.run(command, check=True, capture_output=True)
        text = (Path(folder) / "overparam" / "_core.pyi").read_text(encoding="utf-8")
    # The generator gives members a type, which type checkers no longer read as a member.
    members = "".join(f"    {status.name} = {status.value}\n" for status in _core.Status)
    text, count = re.subn(
        r"(class Status\(enum\.Enum\):\n    \"\"\"[\s\S]*?\"\"\"\n)(?:    .*\n)+",
        rf"\g<1>{members}",
        text,
        count=1,
    )
    assert count == 1
    return text


if __name__ == "__main__":
    PATH.write_text(generate(), encoding="utf-8")
