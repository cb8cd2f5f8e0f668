"""What is resumed: the same rows, after a torn log or a killed --overwrite, with the scale of half precision."""

import contextlib
import os
import signal

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision

from cli.command_line import Terminated
from cli.files import UserError, is_temporary
from engine import checkpoint, loop
from tests.small_runs import arguments, digests, weigh

# --- the same run or another one ---------------------------------------------------------------------------------


def test_the_same_flags_with_other_rows_are_not_the_same_run(csvs, tmp_path):
    copy = tmp_path / "train.csv"
    copy.write_text((csvs / "train_noisy_60.csv").read_text())
    def args(*flags):
        changed = arguments(csvs, tmp_path, *flags)
        changed.train_csv = str(copy)
        return changed

    loop.run(args(), weigh)
    (tmp_path / "run" / "result.json").unlink()
    copy.write_text("\n".join(copy.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(UserError, match=r"cannot resume, .*train.csv holds other rows .*12 rows then, 11 now"):
        loop.run(args("--resume"), weigh)
    loop.run(args("--overwrite"), weigh)


def test_what_a_killed_overwrite_left_is_not_taken_for_a_run(csvs, tmp_path, monkeypatch):
    """Killed once the last checkpoint is gone: then the old result must be gone too, or it would pass for the new one."""
    first = loop.run(arguments(csvs, tmp_path), weigh)
    class Killed(Exception):
        pass

    def unlink(path, *a, **k):
        os.remove(path)
        if path.name == "last.ckpt":
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.unlink", lambda path, *a, **k: unlink(path) if path.parent.name == "run" and not
                      is_temporary(path) and path.name != ".lock" else os.path.exists(path) and os.remove(path))
        with pytest.raises(Killed):
            loop.run(arguments(csvs, tmp_path, "--overwrite"), weigh)
    assert not (tmp_path / "run" / "result.json").exists() and (tmp_path / "run" / "args.json").exists()
    again = loop.run(arguments(csvs, tmp_path, "--resume"), weigh)
    assert first["test"] == again["test"]


def test_a_torn_log_does_not_stop_a_resumption(csvs, tmp_path):
    loop.run(arguments(csvs, tmp_path), weigh)
    (tmp_path / "run" / "result.json").unlink()
    log = tmp_path / "run" / "log.jsonl"
    whole = log.read_text()
    log.write_text(whole + '{"epoch": 2, "los')
    loop.run(arguments(csvs, tmp_path, "--resume"), weigh)
    assert log.read_text() == whole


# --- half precision ---------------------------------------------------------------------------------------------


class CoarseScaler(torch.amp.GradScaler):
    """A gradient scaler of the CPU that doubles its scale every third step, so that a few steps show its state."""

    def __init__(self):
        super().__init__("cpu", init_scale=4.0, growth_interval=3)


@pytest.fixture
def scaled(monkeypatch):
    """Trainings scale their losses as 16-mixed does on a GPU; returns the precision plugin of each one started."""
    plugins = []

    def start_fabric(args):
        plugins.append(MixedPrecision("16-mixed", "cpu", CoarseScaler()))
        plugins[-1].forward_context = contextlib.nullcontext  # the networks themselves stay in 32 bit
        plugins[-1]._desired_input_dtype = torch.float32
        return Fabric(accelerator="cpu", devices=1, plugins=plugins[-1])

    monkeypatch.setattr(loop, "start_fabric", start_fabric)
    return plugins


def test_a_resumed_run_goes_on_with_the_scale_of_its_losses(csvs, tmp_path, scaled):
    def run(home, stopped_in=None, *flags):
        def stopping(logits, batch, epoch):
            if epoch == stopped_in:
                os.kill(os.getpid(), signal.SIGTERM)
            return [batch["weight"]]

        return loop.run(arguments(csvs, home, "--epochs", "4", *flags), stopping)  # 2 steps an epoch

    run(tmp_path / "whole")
    with pytest.raises(Terminated):
        run(tmp_path / "broken", 2)  # after 5 steps: the scale is 8, two steps into the next three
    run(tmp_path / "broken", None, "--resume")
    states = [plugin.state_dict() for plugin in scaled]
    assert [(state["scale"], state["_growth_tracker"]) for state in states] == [(16, 2), (8, 2), (16, 2)]
    assert digests(tmp_path / "broken" / "run") == digests(tmp_path / "whole" / "run")


def test_a_checkpoint_without_a_scale_resumes_and_one_with_it_does_without_a_scaler(csvs, tmp_path, scaled, monkeypatch):
    loop.run(arguments(csvs, tmp_path, "--epochs", "3"), weigh)
    path = tmp_path / "run" / "last.ckpt"
    content = checkpoint.load(path)
    assert content["precision"]["scale"] == 16
    (tmp_path / "run" / "result.json").unlink()
    checkpoint.save(path, {key: value for key, value in content.items() if key not in ("precision", "format")})
    loop.run(arguments(csvs, tmp_path, "--epochs", "3", "--resume"), weigh)
    assert scaled[-1].state_dict()["scale"] == 4
    (tmp_path / "run" / "result.json").unlink()
    checkpoint.save(path, {key: value for key, value in content.items() if key != "format"})
    monkeypatch.undo()
    loop.run(arguments(csvs, tmp_path, "--epochs", "3", "--resume"), weigh)
