"""Runs of label-assisted distillation that are stopped, go on, or have two processes."""

import signal

import pytest
import torch

from engine import checkpoint, loop
from tests.conftest import TORCHRUN, run_script
from tests.script_calls import run
from tests.small_runs import epochs_of
from tests.test_lad import STUDENT, TEACHER, flags_of, trained

trained = trained  # the fixture
WHICH = {"teacher": TEACHER, "student": STUDENT}


def training(which, csvs, home, trained):
    """Script and flags of a teacher whose codes change from epoch to epoch, or of a student."""
    more = {"teacher": ["--load", trained / "image" / "last.ckpt", "--codes-ramp", 1, "--consistency-from", 0],
            "student": ["--teacher", trained / "teacher" / "last.ckpt"]}
    return [WHICH[which], *flags_of(csvs, home, "run"), *more[which]]


def state_of(home):
    return checkpoint.load(home / "run" / "last.ckpt")["networks"][0]["state"]


@pytest.mark.parametrize("which", WHICH)
def test_a_stopped_run_goes_on_bit_exactly(which, csvs, trained, tmp_path, monkeypatch, capsys):
    """Stopped by SIGTERM in its second epoch, after one of 3 steps."""
    script, *flags = training(which, csvs, tmp_path / "whole", trained)
    code, error = run(monkeypatch, capsys, ".", script, *flags)
    assert code == 0, error
    own, step = loop.train_step, {"count": 0}

    def stopping(*inputs):
        step["count"] += 1
        if step["count"] == 4:
            signal.raise_signal(signal.SIGTERM)
        return own(*inputs)

    monkeypatch.setattr(loop, "train_step", stopping)
    script, *flags = training(which, csvs, tmp_path, trained)
    for expected in (143, 0):
        code, error = run(monkeypatch, capsys, ".", script, *flags, "--resume")
        assert code == expected, error
    whole, parts = state_of(tmp_path / "whole"), state_of(tmp_path)
    assert step["count"] == 6 and all(torch.equal(value, parts[name]) for name, value in whole.items())
    assert epochs_of(tmp_path / "whole") == epochs_of(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("which", WHICH)
def test_two_processes_give_what_one_gives(which, csvs, trained, tmp_path):
    """Up to rounding, and without batch norm, whose statistics are those of each process."""
    flags = training(which, csvs, tmp_path / "one", trained)
    flags = [flag for flag in flags if flag != "--load" and flag != trained / "image" / "last.ckpt"]
    if which == "student":  # the teacher has the norm of the student here
        run_script("tests/without_batch_norm.py", TEACHER, *flags_of(csvs, tmp_path, "teacher"))
        flags[flags.index("--teacher") + 1] = tmp_path / "teacher" / "last.ckpt"
    run_script("tests/without_batch_norm.py", *flags)
    run_script(*TORCHRUN, "tests/without_batch_norm.py", *flags, "--out-dir", tmp_path / "two")
    losses = [[entry["loss"][0] for entry in epochs_of(tmp_path / home)] for home in ("one", "two")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4) and losses[0][0] != losses[0][1]
    for name, value in state_of(tmp_path / "one").items():
        torch.testing.assert_close(state_of(tmp_path / "two")[name], value, rtol=1e-3, atol=2e-4)
