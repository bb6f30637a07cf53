import re
import subprocess
import sys

import overparam
import pytest
import toys
from overparam import __main__, _core
from overparam.__main__ import main

pytestmark = pytest.mark.usefixtures("toy_claims")


def usage_error(capsys, *argv):
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


# ---- list, info, help ----


def test_list(capsys):
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "toy/decay   Toys <decay>."
    assert len(lines) == 4


def test_a_reader_may_stop():
    """As `overparam list | head` does."""
    command = [sys.executable, "-m", "overparam", "list"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        run.stdout.close()
        assert run.stderr.read() == b""
    assert run.returncode == 0


def test_info(capsys, monkeypatch):
    monkeypatch.setenv("OVERPARAM_NUM_THREADS", "3")
    assert main(["info"]) == 0
    lines = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    build = _core.build_info()
    assert lines["overparam"] == overparam.__version__ == build["version"]
    assert lines["compiler"] == build["compiler"]
    assert lines["flags"] == build["flags"]
    assert lines["Eigen"] == build["eigen"]
    assert lines["threads"] == "3"
    assert {"BLAS", "python", "numpy", "scipy"} <= set(lines)


def test_version_and_help(capsys):
    for argv in (["--version"], ["--help"], ["reproduce", "--help"]):
        with pytest.raises(SystemExit) as caught:
            main(argv)
        assert caught.value.code == 0
        text = capsys.readouterr().out
        assert f"overparam {overparam.__version__}" in text or "examples:" in text


def test_usage_errors(capsys):
    assert "known are toy/decay, toy/wrong" in usage_error(capsys, "reproduce")
    assert "unknown claim 'sgd/x'; known are toy/decay" in usage_error(capsys, "reproduce", "sgd/x")
    assert "unknown claim 'foo'" in usage_error(capsys, "reproduce", "toy", "foo")
    for option, value in (("--threads", "0"), ("--seed", "-1"), ("--seed", "x"), ("--effort", "x")):
        assert option in usage_error(capsys, "reproduce", "toy", f"{option}={value}")
    assert "COMMAND" in usage_error(capsys)


# ---- reproduce ----


def test_reproduce_a_claim(capsys, tmp_path):
    out = tmp_path / "new" / "figures"
    assert main(["reproduce", "toy/decay", "--out", str(out), "--threads", "1", "--seed", "5"]) == 0
    captured = capsys.readouterr()
    first, second = captured.out.splitlines()
    number = r"[-+.\de]+"
    assert re.fullmatch(
        rf"toy/decay  risk <at> 1: predicted 0\.1353, measured {number} \+- {number}  "
        rf"PASS, 2 of 2 checks  {number} s",
        first,
    )
    assert second == f"report: {out / 'report.html'}"
    assert "reproduce [" in captured.err
    assert sorted(path.name for path in out.iterdir()) == ["report.html", "toy_decay.png"]
    assert toys.SEEN[-1][0] == "quick"
    assert toys.SEEN[-1][1].entropy == 5


def test_a_failing_claim_is_exit_status_one(capsys, tmp_path):
    assert main(["reproduce", "--all", "--out", str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:4]] == [c.id for c in toys.CLAIMS]
    assert "PASS" in lines[0]
    assert "measured 1.2  FAIL" in lines[1]
    assert "measured nan  FAIL" in lines[2]
    assert lines[3].split(None, 1)[1] == "FAIL  RuntimeError: it <broke>"
    assert "it &lt;broke&gt;" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["toy"], [0, 1, 2, 3]),
        (["toy/*n*"], [1, 2, 3]),
        (["toy/nan", "toy/decay"], [2, 0]),
        (["toy/decay", "toy/d*", "toy/decay"], [0]),
        (["*/w?ong"], [1]),
    ],
)
def test_patterns(patterns, expected, monkeypatch):
    chosen = []
    monkeypatch.setattr(__main__, "_reproduce", lambda claims, **_: chosen.extend(claims) or 0)
    assert main(["reproduce", *patterns, "--effort", "full"]) == 0
    assert chosen == [toys.CLAIMS[i] for i in expected]


def test_a_broken_figure_is_a_failure(capsys, tmp_path, toy_claims):
    def function(**_):
        checks, table, _ = toys.outcome(1.0)()
        return checks, table, [lambda _: 1 / 0]

    toy_claims.CLAIMS = [toys.claim("plot", function)]
    assert main(["reproduce", "toy", "--out", str(tmp_path)]) == 1
    assert "FAIL  ZeroDivisionError" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_without_matplotlib(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    out = tmp_path / "figures"
    assert main(["reproduce", "toy/decay", "--out", str(out)]) == 0
    captured = capsys.readouterr()
    assert "PASS" in captured.out
    assert 'pip install "overparam[plot]"' in captured.err
    assert captured.err.index("no figures") < captured.err.index("reproduce [")
    assert not out.exists()


def test_ctrl_c_reports_what_was_finished(capsys, tmp_path, toy_claims):
    def stop(**_):
        raise KeyboardInterrupt

    toy_claims.CLAIMS = [toys.CLAIMS[1], toys.claim("stop", stop), toys.CLAIMS[0]]
    assert main(["reproduce", "--all", "--out", str(tmp_path)]) == 130
    captured = capsys.readouterr()
    assert "interrupted after 1 of 3 claims" in captured.err
    assert "report: " in captured.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "toy_wrong.png"]


def test_import_is_light():
    code = (
        "import sys, overparam; "
        "print({'matplotlib', 'scipy', 'xarray', 'overparam.claims'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_module_and_all():
    done = subprocess.run(
        [sys.executable, "-m", "overparam", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"overparam {overparam.__version__}"
    for name in overparam.__all__:
        assert getattr(overparam, name) is not None
    assert dir(overparam) == sorted(overparam.__all__)
    with pytest.raises(AttributeError, match="no attribute 'sdg'"):
        _ = overparam.sdg
