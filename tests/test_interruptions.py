"""Trainings that are killed or stopped, alone and as several processes."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from cli.command_line import Terminated
from cli.files import UserError
from engine import checkpoint, loop
from engine.loaders import leave_stopping
from engine.stopping import StopRequest
from tests import kill_drill
from tests.conftest import ROOT, TORCHRUN, environment, run_script
from tests.processes import run_together
from tests.small_runs import WEIGHTED, arguments, digests, wait_for, weigh

# --- killed -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("script, train, flags", [
    ("train_without_weight.py", "train_noisy_60.csv", []),
    ("train_co_teaching.py", "train_noisy_60.csv", ["--model-b", "unet"]),
    ("train_with_KDweight.py", WEIGHTED, ["--signals", "INT", "TERM", "KILL", "--batch-size", 2])])
def test_25_kills_at_random_moments_change_nothing(csvs, script, train, flags):
    done = run_script("tests/kill_drill.py", script, "--csv", csvs / train, "--valid-csv",
                      csvs / "valid_noisy_60.csv", "--test-csv", csvs / "test.csv",
                      "--kills", 25, *flags)
    found = json.loads(done.stdout)
    assert found["kills"] == 25 and found["differs"] == [] and found["last exit code"] == 0
    if "--signals" in flags:
        assert found["exit codes"].keys() <= {"130", "143", "-9"} and len(found["exit codes"]) == 3
    else:
        assert found["of them amid a checkpoint"] >= 5


# --- stopped ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number, kind", [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_a_stop_amid_an_epoch_is_saved_and_changes_nothing(interruptible, csvs, tmp_path, number, kind):
    """Stopped once within each of the first 5 steps; dropout shows whether random numbers go on where they were."""
    def run(home, at=None):
        steps = iter(range(100))

        def stopping(logits, batch, epoch):
            if next(steps) == at:
                os.kill(os.getpid(), number)
                time.sleep(0.01)  # the signal is there while the step goes on
            return [batch["weight"]]

        flags = ["--model", "deeplabv3plus", "--encoder", "mobilenet_v2", "--batch-size", "4", "--epochs", "2", "--augment"]
        return loop.run(arguments(csvs, home, *flags, *["--resume"] * (at is not None)), stopping)

    whole = run(tmp_path / "whole")
    for step in range(1, 6):
        with pytest.raises(kind, match=rf"stopped in epoch {1 + (step - 1) // 3} after .* of 3 steps, saved"):
            run(tmp_path / "broken", 0)
        assert checkpoint.load(tmp_path / "broken" / "run" / "last.ckpt")["begun"]["step"] == 1 + (step - 1) % 3
    broken = run(tmp_path / "broken", 99)
    assert digests(tmp_path / "broken" / "run") == digests(tmp_path / "whole" / "run")
    assert all(whole[key] == broken[key] for key in ("test", "test_last", "valid", "best_epoch"))


def test_a_second_ctrl_c_amid_a_step_saves_nothing_and_the_run_goes_on_from_the_epoch_before(interruptible, csvs, tmp_path):
    def run(home, at=None):
        steps = iter(range(100))

        def stopping(logits, batch, epoch):
            if next(steps) == at:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)
            return [batch["weight"]]

        return loop.run(arguments(csvs, home, "--batch-size", "4", "--epochs", "2", "--resume"), stopping)

    with pytest.raises(KeyboardInterrupt, match="interrupted at once"):
        run(tmp_path / "broken", 4)  # of three steps an epoch
    saved = checkpoint.load(tmp_path / "broken" / "run" / "last.ckpt")
    assert saved["epoch"] == 1 and saved["begun"] is None
    run(tmp_path / "broken")
    run(tmp_path / "whole")
    assert digests(tmp_path / "broken" / "run") == digests(tmp_path / "whole" / "run")


def test_a_stop_does_not_save_a_loss_that_is_not_finite(csvs, tmp_path):
    def weigh(logits, batch, epoch):
        if epoch == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return [batch["weight"] * (float("nan") if epoch == 1 else 1)]

    with pytest.raises(UserError, match="epoch 2, step 1: the loss is nan"):
        loop.run(arguments(csvs, tmp_path), weigh)
    saved = checkpoint.load(tmp_path / "run" / "last.ckpt")
    assert saved["epoch"] == 1 and saved["begun"] is None


def test_ctrl_c_says_how_to_go_on_and_exits_with_130(interruptible, csvs, tmp_path):
    command = ["train_without_weight.py", "--train_csv", csvs / "train_noisy_60.csv", "--name", "run", "--out-dir", tmp_path,
               "--size", 48, 32, "--width", 4, "--epochs", 5000, "--accelerator", "cpu", "--workers", 1]
    process = subprocess.Popen([sys.executable, *map(str, command)], cwd=ROOT, env=environment(), text=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    wait_for(lambda: (tmp_path / "run" / "last.ckpt").exists(), process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the loader's processes as well
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "with --resume goes on" in errors and "Traceback" not in errors
    assert not (tmp_path / "run" / ".lock").exists()


def test_a_signal_waits_until_somebody_asks_and_a_second_ctrl_c_does_not(interruptible):
    done = []
    with pytest.raises(Terminated), StopRequest() as stop:
        stop.check()
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        done.append("all")
        stop.check()
        done.append("too much")
    with pytest.raises(KeyboardInterrupt), StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        done.append("once")
        os.kill(os.getpid(), signal.SIGINT)
        done.append("too much")
    assert done == ["all", "once"]


@pytest.fixture
def background_job():
    """Ctrl-C is ignored, as in `nohup COMMAND &`, here and in what is started."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_background_job_goes_on_ignoring_ctrl_c(background_job):
    with pytest.raises(Terminated), StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        stop.check()
        os.kill(os.getpid(), signal.SIGTERM)
        stop.check()
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_what_the_kill_drill_starts_can_be_interrupted_from_a_background_job_too(background_job, tmp_path):
    (tmp_path / "sleeper.py").write_text("import sys, time\ntry:\n    open('begun', 'w')\n    time.sleep(60)\n"
                                         "except KeyboardInterrupt:\n    sys.exit(130)")
    child = kill_drill.start([tmp_path / "sleeper.py"], tmp_path)
    while not (tmp_path / "begun").exists():
        time.sleep(0.01)
    assert kill_drill.strike(child, signal.SIGINT, 0, tmp_path, while_writing=False) == (130, False)


def test_loader_processes_leave_ctrl_c_to_the_training_and_end_when_they_are_told():
    with StopRequest():
        leave_stopping(0)
        found = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert found == [signal.SIG_IGN, signal.SIG_DFL]


def test_a_stop_while_testing_says_how_to_go_on(csvs, tmp_path, monkeypatch):
    real, whole = loop.finish, loop.run(arguments(csvs, tmp_path / "whole"), weigh)

    def finish(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "finish", finish)
        with pytest.raises(Terminated, match="stopped while testing; the same command with --resume"):
            loop.run(arguments(csvs, tmp_path), weigh)
    assert loop.run(arguments(csvs, tmp_path, "--resume"), weigh)["test"] == whole["test"]


def test_whoever_ends_tables_ends_their_commands(tmp_path):
    sleeper = f"import time, os; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()) + ' '); time.sleep(600)"
    code = f"""from pathlib import Path
from cli.command_line import command_line
from reports.plan import Job, run_plan
folder = Path({str(tmp_path)!r})
command_line(lambda: run_plan([Job(["-c", {sleeper!r}], folder / "never", [], folder / "log")]))
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().endswith(" "), process)
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 143
    child = int((tmp_path / "pid").read_text())
    until = time.monotonic() + 10
    while os.path.exists(f"/proc/{child}") and time.monotonic() < until:
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{child}")


# --- several processes ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_processes_together_train_as_one(csvs, tmp_path, count):
    """As torchrun does, on CPUs: the same losses as one process with the same batches, each test sample counted once.

    Batch normalisation takes each process's own statistics, so all rows here show one picture, with masks of their own.
    """
    rows = [line.split(",") for line in (csvs / "train_noisy_60.csv").read_text().splitlines()[1:]]
    (tmp_path / "train.csv").write_text("img,filename\n" + "".join(f"{rows[0][0]},{mask}\n" for _, mask, _ in rows[:8]))
    flags = ["train_without_weight.py", "--train_csv", tmp_path / "train.csv", "--test_csv", csvs / "test.csv",
             "--size", 48, 32, "--width", 4, "--epochs", 3, "--batch-size", 8, "--accelerator", "cpu", "--out-dir", tmp_path]
    run_script(*flags, "--name", "one")
    run_together(tmp_path, *flags, "--name", "many", count=count)
    one, many = ([json.loads(line)["loss"][0] for line in (tmp_path / name / "log.jsonl").open()] for name in ("one", "many"))
    assert many == pytest.approx(one, rel=1e-4)
    assert len(set(one)) == 3  # they do learn
    result = json.loads((tmp_path / "many" / "result.json").read_text())
    assert result["machine"]["processes"] == count and result["test"][0]["images"] == 4


@pytest.mark.slow
def test_scores_of_several_processes_are_those_of_the_network_that_is_saved(csvs, tmp_path):
    """On unlike pictures, of which each process has statistics of batch norm of its own."""
    csv, run, cpu = csvs / "test.csv", tmp_path / "run", ["--accelerator", "cpu"]
    run_together(tmp_path, "train_without_weight.py", "--train_csv", csvs / "train_noisy_60.csv", "--test_csv", csv, "--size",
                 48, 32, "--width", 4, "--epochs", 6, "--batch-size", 4, *cpu, "--out-dir", tmp_path, "--name", "run",
                 "-l", 0.02, "--optimizer", "adamw")
    run_script("evaluate.py", "--checkpoint", run / "last.ckpt", "--csv", csv, *cpu, "--json", tmp_path / "told.json")
    scored = json.loads((run / "result.json").read_text())["test_last"][0]
    told = json.loads((tmp_path / "told.json").read_text())
    assert {name: told[name] for name in ("miou", "bf", "images")} == pytest.approx({name: scored[name] for name in (
        "miou", "bf", "images")}, abs=1e-9)


@pytest.mark.slow
def test_a_killed_worker_ends_the_job_within_a_minute(csvs, tmp_path):
    command = [*TORCHRUN, "train_without_weight.py", "--train_csv", csvs / "train_noisy_60.csv", "--size", 48, 32, "--width", 4,
               "--epochs", 100000, "--accelerator", "cpu", "--out-dir", tmp_path, "--name", "run"]
    process = subprocess.Popen([sys.executable, *map(str, command)], cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    wait_for(lambda: (tmp_path / "run" / "last.ckpt").exists(), process)
    import psutil

    workers = psutil.Process(process.pid).children()
    assert len(workers) == 2
    workers[1].kill()
    began = time.monotonic()
    assert process.wait(timeout=60) != 0
    assert time.monotonic() - began < 60
    assert not any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers)
    checkpoint.load(tmp_path / "run" / "last.ckpt")
