import html.parser
import math
import re
import sys

import numpy as np
import overparam as op
import pytest
import toys
from overparam import claims
from overparam.claims import Check, _report
from overparam.results import Table

# ---- registration ----


@pytest.mark.usefixtures("toy_claims")
def test_list_and_get():
    assert claims.list() == ["toy/decay", "toy/wrong", "toy/nan", "toy/broken"]
    assert claims.get("toy/decay") is toys.CLAIMS[0]
    with pytest.raises(ValueError, match=r'claim must be one of "toy/decay", .* but was \'toy/x\''):
        claims.get("toy/x")
    with pytest.raises(AttributeError):
        toys.CLAIMS[0].id = "x"


# ---- the rule ----


def test_check_rules():
    def passed(measured, **options):
        return Check(
            quantity="x", predicted=2.0, measured=measured, tolerance=0.5, **options
        ).passed

    assert [passed(x) for x in (1.4, 1.5, 2.5, 2.6)] == [False, True, True, False]
    assert [passed(x, side="below") for x in (-9, 2.5, 2.6)] == [True, True, False]
    assert [passed(x, side="above") for x in (1.4, 1.5, 9)] == [False, True, True]
    for side in ("both", "below", "above"):
        for value in (math.nan, math.inf, -math.inf):
            assert passed(value, side=side) is False
            assert not Check(
                quantity="x", predicted=value, measured=1.0, tolerance=1.0, side=side
            ).passed


def test_check_rule_in_words():
    check = {"quantity": "x", "predicted": 2, "measured": 1, "tolerance": 0.5}
    assert Check(**check).rule == "2 within 0.5"
    assert Check(**check, side="below").rule == "at most 2.5"
    assert Check(**check, side="above").rule == "at least 1.5"


def test_checks_hold_plain_floats():
    check = Check(quantity="x", predicted=1, measured=np.array(1.0), tolerance=np.float64(0))
    assert check.passed is True
    assert {type(x) for x in (check.predicted, check.measured, check.tolerance)} == {float}


def test_check_refuses_rules_that_cannot_fail():
    check = {"quantity": "x", "predicted": 2, "measured": 1}
    for tolerance in (math.inf, math.nan, -1.0):
        with pytest.raises(ValueError, match="tolerance must be"):
            Check(**check, tolerance=tolerance)
    with pytest.raises(ValueError, match='side must be one of "both"'):
        Check(**check, tolerance=1, side="left")
    with pytest.raises(ValueError, match="checks must be at least one"):
        toys.claim("empty", lambda **_: ([], Table({}), [])).run()


# ---- verdicts ----


def test_verdict():
    verdict = toys.CLAIMS[0].run(threads=2)
    assert verdict.passed
    assert verdict.claim is toys.CLAIMS[0]
    assert verdict.quantity == "risk <at> 1"
    assert verdict.predicted == pytest.approx(math.exp(-2))
    assert verdict.measured == pytest.approx(verdict.predicted, abs=0.05)
    assert verdict.measured_sem > 0
    assert verdict.tolerance == 0.1
    assert (verdict.effort, verdict.seed) == ("quick", 0)
    assert verdict.seconds > 0
    assert len(verdict.checks) == 2
    assert verdict.table.columns[0] == "field"


def test_the_seed_of_a_verdict_repeats_it():
    child = np.random.SeedSequence(5).spawn(2)[1]
    for seed in (3, child, None):
        verdict = toys.CLAIMS[0].run(seed=seed)
        assert toys.CLAIMS[0].run(seed=verdict.seed).measured == verdict.measured
    assert toys.CLAIMS[0].run(seed=3).measured != toys.CLAIMS[0].run(seed=4).measured


def test_every_run_gets_a_fresh_seed_sequence():
    seed = np.random.SeedSequence(5)
    for _ in range(2):
        toys.CLAIMS[0].run(seed=seed)
        assert toys.SEEN[-1][1] is not seed
        assert toys.SEEN[-1][1].n_children_spawned == 0
        toys.SEEN[-1][1].spawn(1)


def test_run_passes_its_arguments_on():
    fractions = []
    toys.CLAIMS[0].run("full", threads=3, progress=fractions.append)
    effort, seed, threads = toys.SEEN[-1]
    assert (effort, seed.entropy, threads) == ("full", 0, 3)
    assert fractions[-1] == 1.0
    for arguments in ({"effort": "long"}, {"seed": -1}, {"threads": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(arguments))} must be"):
            toys.CLAIMS[0].run(**arguments)


def test_failing_claims_fail():
    wrong, nan = toys.CLAIMS[1].run(), toys.CLAIMS[2].run()
    assert not wrong.passed
    assert not nan.passed
    assert math.isnan(nan.measured)
    assert math.isnan(nan.measured_sem)
    with pytest.raises(RuntimeError, match="broke"):
        toys.CLAIMS[3].run()


def test_one_failing_check_fails_the_claim():
    def function(**_):
        good = Check(quantity="a", predicted=1, measured=1, tolerance=0)
        bad = Check(quantity="b", predicted=1, measured=3, tolerance=1)
        return [good, bad], Table({}), []

    verdict = toys.claim("two", function).run()
    assert verdict.measured == verdict.predicted
    assert not verdict.passed


# ---- figures and report ----


def test_figure():
    from matplotlib import pyplot as plt
    from matplotlib.figure import Figure

    verdict = toys.CLAIMS[0].run()
    figure = verdict.figure()
    assert len(figure.axes) == 2
    assert [len(ax.lines) > 0 for ax in figure.axes] == [True, True]
    plt.close(figure)
    own = Figure()
    axes = own.subplots(2)
    assert verdict.figure(*axes) is own
    with pytest.raises(ValueError, match="axes must be 2 axes, one for each panel, but was 1"):
        verdict.figure(axes[0])


def test_figure_without_matplotlib(monkeypatch):
    verdict = toys.CLAIMS[0].run()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "overparam\[plot\]"'):
        verdict.figure()


class Page(html.parser.HTMLParser):
    """Collects the text, and checks that tags are balanced and nothing is loaded."""

    def __init__(self, text):
        super().__init__()
        self.open, self.text, self.images = [], "", []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if tag == "img":
            self.images.append(found["src"])
        assert "onload" not in found
        assert found.get("href", "#").startswith("#")
        assert tag not in ("script", "link", "iframe")
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_report(tmp_path):
    passed, failed = toys.CLAIMS[0].run(), toys.CLAIMS[1].run()
    for verdict in (passed, failed):
        file = _report.draw(verdict, tmp_path)
        assert file.read_bytes().startswith(b"\x89PNG")
    outcomes = [
        (toys.CLAIMS[0], passed),
        (toys.CLAIMS[1], failed),
        (toys.CLAIMS[3], RuntimeError("it <broke>")),
    ]
    file = _report.write(outcomes, tmp_path)
    assert file == tmp_path / "report.html"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "report.html",
        "toy_decay.png",
        "toy_wrong.png",
    ]
    text = file.read_text(encoding="utf-8")
    page = Page(text)
    assert len(page.images) == 2
    assert all(image.startswith("data:image/png;base64,iVBOR") for image in page.images)
    for wanted in (
        "Toys <decay>.",
        "risk <at> 1",
        "at most 4",
        "1 within 0.1",
        "RuntimeError: it <broke>",
        f"overparam {op.__version__}",
        "numpy",
        "M[0,0]",
    ):
        assert wanted in page.text
    assert len(re.findall("PASS", page.text)) == 3  # the summary and the two checks
    assert len(re.findall("FAIL", page.text)) == 3
    assert str(tmp_path) not in text
    again = toys.CLAIMS[0].run(), toys.CLAIMS[1].run()
    _report.draw(again[0], tmp_path)
    _report.write(list(zip(toys.CLAIMS[:2], again, strict=True)) + outcomes[2:], tmp_path)
    assert file.read_text(encoding="utf-8") == text


def test_long_tables_are_abbreviated_in_the_report(tmp_path):
    def function(**_):
        check = Check(quantity="x", predicted=1, measured=1, tolerance=0)
        return [check], Table({"n": range(10**4)}), [lambda ax: ax.plot([1])]

    claim = toys.claim("long", function)
    verdict = claim.run()
    _report.draw(verdict, tmp_path)
    text = _report.write([(claim, verdict)], tmp_path).read_text()
    assert "rows: 10000" in text
    assert text.count("<tr>") < 220


def test_numbers_as_text():
    assert _report.number(1.23456) == "1.235"
    assert _report.number(0.5, 0.0123) == "0.5 +- 0.012"
    assert _report.number(math.nan) == "nan"
