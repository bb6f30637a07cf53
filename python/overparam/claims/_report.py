"""Writes the figures of claims and one self-contained HTML page about them."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from overparam import _core
from overparam.claims import Claim, Verdict
from overparam.plot import PANEL, require_matplotlib
from overparam.results import Table

_ROWS = 200  # of a table, above which its middle is left out
_DPI = 120

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
       color: #1a1a1a; background: #fff; }
h2 { margin: 2.5rem 0 0.3rem; border-top: 1px solid #ccc; padding-top: 1rem; }
table { border-collapse: collapse; font-size: 0.85rem; margin: 0.6rem 0; }
th, td { padding: 0.15rem 0.7rem; text-align: right; border-bottom: 1px solid #e4e4e4; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; height: auto; }
.pass { color: #17692b; } .fail { color: #b00020; } .pass, .fail { font-weight: 600; }
.source, footer { color: #555; font-size: 0.9rem; }
details { overflow-x: auto; }
"""


def number(value: float, sem: float = math.nan) -> str:
    """Return a number as text, with its standard error where it has one.

    Examples
    --------
    >>> from overparam.claims._report import number
    >>> number(1.23456, 0.01)
    '1.235 +- 0.01'
    """
    return f"{value:.4g}" + ("" if math.isnan(sem) else f" +- {sem:.2g}")


def word(passed: bool) -> str:
    """Return PASS or FAIL.

    Examples
    --------
    >>> from overparam.claims._report import word
    >>> word(True)
    'PASS'
    """
    return "PASS" if passed else "FAIL"


def draw(verdict: Verdict, folder: Path) -> Path:
    """Write a verdict's figure as ``<room>_<name>.png`` to an existing folder.

    Parameters
    ----------
    verdict : Verdict
        What to draw.
    folder : Path
        Where to.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    count = len(verdict.panels)
    figure = Figure(figsize=(PANEL[0] * count, PANEL[1]), layout="constrained")
    axes: Any = figure.subplots(1, count, squeeze=False)
    verdict.figure(*axes[0])
    file = _picture(verdict.claim, folder)
    figure.savefig(file, dpi=_DPI)
    return file


def write(outcomes: Sequence[tuple[Claim, Verdict | Exception]], folder: Path) -> Path:
    """Write ``report.html``: every claim with its figure, which `draw` left in the same folder.

    Parameters
    ----------
    outcomes : sequence
        Claims, each with its verdict or with the error that stopped it.
    folder : Path
        Where the figures are.

    Returns
    -------
    Path
        The page.
    """
    sections: list[str] = []
    summary: list[tuple[str, ...]] = []
    for claim, outcome in outcomes:
        anchor = _picture(claim, folder).stem
        link = f'<a href="#{html.escape(anchor)}">{html.escape(claim.id)}</a>'
        heading = (
            f'<h2 id="{html.escape(anchor)}">{html.escape(claim.id)}</h2>\n'
            f"<p>{html.escape(claim.statement)}</p>\n"
            f'<p class="source">{html.escape(claim.source)}</p>\n'
        )
        if isinstance(outcome, Verdict):
            image = _picture(claim, folder).read_bytes()
            sections.append(heading + _section(outcome, image))
            cells = (
                outcome.quantity,
                number(outcome.predicted),
                number(outcome.measured, outcome.measured_sem),
            )
            passed = outcome.passed
        else:
            error = f"{type(outcome).__name__}: {outcome}"
            sections.append(f'{heading}<p class="fail">{html.escape(error)}</p>')
            cells, passed = (type(outcome).__name__, "", ""), False
        summary.append((link, *map(html.escape, cells), _colour(passed)))
    headings = ("claim", "quantity", "predicted", "measured", "verdict")
    page = folder / "report.html"
    page.write_text(
        "<!DOCTYPE html>\n"
        '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>overparam: claims</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        "<h1>Claims, predicted and measured</h1>\n"
        f"{_grid(headings, summary)}\n" + "\n".join(sections) + "\n"
        f"<footer><p>{html.escape(', '.join(_versions()))}</p></footer>\n</body>\n</html>\n",
        encoding="utf-8",
    )
    return page


def _section(verdict: Verdict, image: bytes) -> str:
    checks = [
        (
            html.escape(check.quantity),
            html.escape(number(check.predicted)),
            html.escape(number(check.measured, check.sem)),
            html.escape(check.rule),
            _colour(check.passed),
        )
        for check in verdict.checks
    ]
    columns = ("check", "predicted", "measured", "rule", "verdict")
    picture = base64.b64encode(image).decode("ascii")
    return (
        f"{_grid(columns, checks)}\n"
        f'<img alt="figure of {html.escape(verdict.claim.id)}" '
        f'src="data:image/png;base64,{picture}">\n'
        f"<p>Effort {html.escape(verdict.effort)}, seed {html.escape(str(verdict.seed))}.</p>\n"
        f"<details><summary>Table, rows: {len(verdict.table)}</summary>\n"
        f"{_rows(verdict.table)}\n</details>"
    )


def _rows(table: Table) -> str:
    lines = [tuple(map(html.escape, line)) for line in table.texts(_ROWS)]
    return _grid(tuple(map(html.escape, table.columns)), lines)


def _grid(columns: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    """Return an HTML table of cells that are HTML already."""
    head = "".join(f"<th>{column}</th>" for column in columns)
    body = "\n".join(
        "<tr>" + "".join(f"<td>{cell}</td>" for cell in line) + "</tr>" for line in lines
    )
    return f"<table>\n<tr>{head}</tr>\n{body}\n</table>"


def _colour(passed: bool) -> str:
    return f'<span class="{word(passed).lower()}">{word(passed)}</span>'


def _picture(claim: Claim, folder: Path) -> Path:
    return folder / f"{claim.id.replace('/', '_')}.png"


def _versions() -> list[str]:
    import matplotlib as mpl
    import scipy

    build = _core.build_info()
    return [
        f"overparam {build['version']} ({build['compiler']}, {build['flags']})",
        f"numpy {np.__version__}",
        f"scipy {scipy.__version__}",
        f"matplotlib {mpl.__version__}",
    ]
