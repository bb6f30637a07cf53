import re
import signal
import threading

import numpy as np
import pytest
import toys
from numpy.testing import assert_array_equal
from overparam import _run, results
from overparam.results import Status

T = [0.0, 0.5, 1.0, 2.0]
PROBLEM = toys.Problem(rate=1.0)


def stop_at(wanted):
    """A progress function that stops the run like Ctrl-C between two slices."""

    def progress(fraction):
        if fraction >= wanted:
            raise KeyboardInterrupt

    return progress


def counter(total, *, fail=None):
    """A run that counts its units; `fail` is called with the number of units done."""
    arrays = {"count": np.zeros(1)}
    budgets = []

    def advance(done, budget):
        assert arrays["count"][0] == done
        budgets.append(budget)
        arrays["count"] += budget
        if fail:
            fail(done)
        return budget

    def build(status, stats):
        return results.Point(method="count", status=status, stats=stats, origin={})

    return total, arrays, advance, build, budgets


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    monkeypatch.setattr(results, "_interrupted", None)


# ---- slices ----


def test_every_unit_is_done_once_and_slices_adapt(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(_run.time, "perf_counter", lambda: clock[0])
    pace = [1 / 128]  # seconds per unit

    def work(done):
        clock[0] += pace[0] * budgets[-1]
        if done == 1:
            pace[0] = 1 / 8

    *run, budgets = counter(50, fail=work)
    result = _run.drive(*run)
    assert (result.status, result.stats["steps"]) == (Status.SUCCESS, 50)
    assert budgets == [1, 16, 25] + 8 * [1]
    assert results.interrupted() is None


def test_nothing_to_do():
    *run, budgets = counter(0)
    assert _run.drive(*run).stats["steps"] == 0
    assert budgets == []


def test_unknown_total_ends_with_zero():
    arrays, seen = {}, []
    left = [3, 2, 1, 0]

    def build(status, stats):
        return results.Point(method="m", status=status, stats=stats, origin={})

    result = _run.drive(
        None,
        arrays,
        lambda *_: left.pop(0),
        build,
        progress=seen.append,
        fraction=lambda: 1 - len(left) / 4,
    )
    assert result.stats["steps"] == 6
    assert seen == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_early_end():
    problem = toys.Problem(rate=-500.0)
    result = toys.simulate(problem, T, replicas=2, throw=False)
    assert result.status is Status.DIVERGED
    assert result.stats["steps"] < 200


def test_slices_change_no_bit(monkeypatch):
    whole = toys.simulate(PROBLEM, T, replicas=3)
    monkeypatch.setattr(_run, "SLICE", 0.0)
    assert_array_equal(toys.simulate(PROBLEM, T, replicas=3).M, whole.M)


# ---- progress ----


def test_progress_function():
    seen = []
    toys.simulate(PROBLEM, T, progress=seen.append)
    assert seen[0] == 0.0
    assert seen[-1] == 1.0
    assert seen == sorted(seen)


def test_progress_bar(capsys):
    toys.simulate(PROBLEM, T, progress=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.search(r"\rtoy \[#{20}\] 100% 0:00 < 0:00\n$", captured.err)
    toys.simulate(PROBLEM, T)
    assert capsys.readouterr().err == ""
    with pytest.raises(TypeError, match="progress must be True, False or a function, but was 1"):
        toys.simulate(PROBLEM, T, progress=1)


def test_bar_text(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(_run.time, "monotonic", lambda: now[0])
    bar = _run.Bar("job")
    bar(0.25)  # the part done before, from a checkpoint
    now[0] = 50.0
    bar(0.5)
    bar(0.5)  # too soon after the last
    bar.clear()
    bar.close()
    lines = capsys.readouterr().err.split("\r")
    assert lines[1].rstrip() == "job [#####...............]  25% 0:00 < -:--"
    assert lines[2].rstrip() == "job [##########..........]  50% 0:50 < 1:40"
    assert len(lines) == 5
    assert lines[3].strip() == lines[4] == ""


def test_share():
    seen = []
    assert _run.share(False, 1, 2) is False
    assert _run.share(True, 1, 2) is True
    for part in range(2):
        progress = _run.share(seen.append, part, 2)
        progress(0.0)
        progress(1.0)
    assert seen == [0.0, 0.5, 0.5, 1.0]


# ---- Ctrl-C ----


def test_interrupt_between_slices_keeps_the_partial_result(monkeypatch):
    monkeypatch.setattr(_run, "SLICE", 0.0)
    with pytest.raises(KeyboardInterrupt):
        toys.simulate(PROBLEM, T, replicas=3, progress=stop_at(0.6))
    partial = results.interrupted()
    assert partial.status is Status.INTERRUPTED
    assert partial.t.tolist() == T[:3]
    whole = toys.simulate(PROBLEM, T, replicas=3)
    assert_array_equal(partial.M, whole.M[:, :3])
    assert partial.stats["steps"] == 120
    assert partial.mean().M.shape == (3, 2, 1)


def test_ctrl_c_within_a_slice_waits_for_its_end():
    def press(done):
        if done == 1:
            signal.raise_signal(signal.SIGINT)

    *run, _ = counter(1000, fail=press)
    with pytest.raises(KeyboardInterrupt):
        _run.drive(*run)
    assert 1 < run[1]["count"] == results.interrupted().stats["steps"] < 1000
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_second_ctrl_c_does_not_wait(tmp_path):
    def press(done):
        if done == 1:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            raise AssertionError

    *run, _ = counter(1000, fail=press)
    checkpoint = _run.Checkpoint(tmp_path / "c", "f")
    with pytest.raises(KeyboardInterrupt):
        _run.drive(*run, checkpoint=checkpoint)
    assert results.interrupted().stats["steps"] == 1
    done, _, arrays = checkpoint.load()
    assert done == arrays["count"]  # the count is behind the arrays: nothing was saved


def test_ctrl_c_in_the_last_slice_is_not_lost():
    *run, _ = counter(1, fail=lambda _: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        _run.drive(*run)
    assert results.interrupted().stats["steps"] == 1


def test_other_threads_and_handlers_are_left_alone():
    found = []

    def work():
        *run, _ = counter(10)
        found.append(_run.drive(*run).stats["steps"])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [10]

    pressed = []
    old = signal.signal(signal.SIGINT, lambda *_: pressed.append(1))
    try:
        *run, _ = counter(5, fail=lambda done: done or signal.raise_signal(signal.SIGINT))
        assert _run.drive(*run).status is Status.SUCCESS
    finally:
        signal.signal(signal.SIGINT, old)
    assert pressed == [1]


# ---- checkpoints ----


def test_a_continued_run_ends_with_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr(_run, "SLICE", 0.0)
    file = tmp_path / "run.checkpoint"
    for wanted in (0.2, 0.7):
        with pytest.raises(KeyboardInterrupt):
            toys.simulate(PROBLEM, T, replicas=3, checkpoint=file, progress=stop_at(wanted))
    seen = []
    result = toys.simulate(PROBLEM, T, replicas=3, checkpoint=file, progress=seen.append)
    assert seen[0] >= 0.7
    assert_array_equal(result.M, toys.simulate(PROBLEM, T, replicas=3).M)
    assert result.stats["steps"] == 200
    assert list(tmp_path.iterdir()) == [file]


def test_a_finished_checkpoint_returns_at_once(tmp_path):
    file = tmp_path / "c"
    first = toys.simulate(PROBLEM, T, checkpoint=str(file))
    content = file.read_bytes()
    seen = []
    again = toys.simulate(PROBLEM, T, checkpoint=str(file), progress=seen.append)
    assert seen == [1.0]
    assert_array_equal(again.M, first.M)
    assert file.read_bytes() == content


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"noise": 0.02},
        {"replicas": 2},
        {"t": [0.0, 0.5]},
        {"problem": PROBLEM.replace(rate=2)},
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, changes):
    file = tmp_path / "c"
    toys.simulate(PROBLEM, T, checkpoint=file)
    arguments = {"problem": PROBLEM, "t": T, "checkpoint": file, **changes}
    with pytest.raises(ValueError, match="checkpoint must be the file of the same run"):
        toys.simulate(arguments.pop("problem"), arguments.pop("t"), **arguments)


def test_what_is_no_checkpoint(tmp_path):
    file = tmp_path / "c"
    file.write_text("something else")
    with pytest.raises(ValueError, match="checkpoint must be a checkpoint file"):
        toys.simulate(PROBLEM, T, checkpoint=file)
    assert file.read_text() == "something else"
    result = toys.simulate(PROBLEM, T).save(tmp_path / "result")
    with pytest.raises(ValueError, match=r"checkpoint must be .* a result file"):
        toys.simulate(PROBLEM, T, checkpoint=result)
    with pytest.raises(TypeError, match="checkpoint must be a path or None, but was 3"):
        toys.simulate(PROBLEM, T, checkpoint=3)
    with pytest.raises(FileNotFoundError):  # before the run, not after it
        toys.simulate(PROBLEM, T, checkpoint=tmp_path / "no folder" / "c", progress=stop_at(0))


def test_checkpoints_are_written_now_and_then(tmp_path, monkeypatch):
    saved = []
    save = _run.write_npz
    monkeypatch.setattr(
        _run, "write_npz", lambda *args: (saved.append(args[2]["done"]), save(*args))
    )
    monkeypatch.setattr(_run, "SLICE", 0.0)
    toys.simulate(PROBLEM, T, checkpoint=tmp_path / "c")
    assert saved == [0, 200]
    monkeypatch.setattr(_run, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(_run, "SAVE_SHARE", 1e9)
    saved.clear()
    toys.simulate(PROBLEM, T, checkpoint=tmp_path / "d")
    assert saved[:4] == [0, 1, 2, 3]


def test_fingerprint():
    t = np.array(T)
    seed = np.random.SeedSequence(1)
    base = _run.fingerprint(PROBLEM, t=t, seed=seed, method="a")
    assert base == _run.fingerprint(PROBLEM.replace(rate=1), method="a", seed=seed, t=t.copy())
    others = [
        _run.fingerprint(PROBLEM.replace(width=3), t=t, seed=seed, method="a"),
        _run.fingerprint(PROBLEM, t=t + 1e-16 + t * 1e-15, seed=seed, method="a"),
        _run.fingerprint(PROBLEM, t=t.astype(np.float32), seed=seed, method="a"),
        _run.fingerprint(PROBLEM, t=t.reshape(2, 2), seed=seed, method="a"),
        _run.fingerprint(PROBLEM, t=t, seed=seed.spawn(1)[0], method="a"),
        _run.fingerprint(PROBLEM, t=t, seed=seed, method="b"),
        _run.fingerprint(None, t=t, seed=seed, method="a"),
    ]
    assert len({base, *others}) == 8
