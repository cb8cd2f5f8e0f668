"""Trainings that are stopped or killed, meet a full disk, or share a folder with another one."""

import contextlib
import fcntl
import hashlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision

from cli.command_line import Terminated
from cli.files import UserError, is_temporary, write_json
from engine import checkpoint, lock, loop
from engine.loaders import leave_stopping
from engine.stopping import StopRequest
from tests import kill_drill
from tests.conftest import ROOT, TORCHRUN, environment, run_script
from tests.small_runs import arguments

WEIGHTED = "train_noisy_60_PointRend_weight_bmscore.csv"


def weigh(logits, batch, epoch):
    return [batch["weight"]]


def digests(folder):
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("last.ckpt", "best.ckpt")}


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


def wait_for(there, process, seconds=90):
    until = time.monotonic() + seconds
    while not there():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)


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


# --- a full disk ------------------------------------------------------------------------------------------------


def started(csvs, out):
    """A run's command, and the run itself, killed after its second epoch."""
    command = ["train_without_weight.py", "--train_csv", csvs / "train_noisy_60.csv", "--name", "run", "--out-dir", out,
               "--size", 48, 32, "--width", 4, "--epochs", 300, "--accelerator", "cpu", "--cache", "--resume"]
    process = subprocess.Popen([sys.executable, *map(str, command)], cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL)
    log = out / "run" / "log.jsonl"
    wait_for(lambda: log.exists() and log.read_text().count("\n") > 2, process)
    process.kill()
    process.wait()
    return command


def check_full_disk(csvs, out, **limits):
    command = started(csvs, out)
    before = checkpoint.load(out / "run" / "last.ckpt")["epoch"]
    if not limits:
        with open(out / "filler", "wb", buffering=0) as filler:
            try:
                while filler.write(b"x" * 4096):
                    pass
            except OSError:
                pass
    done = subprocess.run([sys.executable, *map(str, command)], cwd=ROOT, env=environment(), capture_output=True, text=True,
                          **limits)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and "cannot be written" in done.stderr
    assert checkpoint.load(out / "run" / "last.ckpt")["epoch"] >= before  # whole, and none is lost
    assert not any(is_temporary(path) for path in (out / "run").iterdir())


def test_a_disk_that_takes_no_more_leaves_the_last_checkpoint(csvs, tmp_path):
    """By a limit of what a process may write into one file, which fails as a full disk does."""
    check_full_disk(csvs, tmp_path, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)))


def test_a_full_tmpfs_leaves_the_last_checkpoint(csvs, tmp_path):
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", tmp_path], capture_output=True).returncode:
        pytest.skip("no right to mount a small tmpfs; the test with a limit of file sizes stands in for it")
    try:
        check_full_disk(csvs, tmp_path)
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)


# --- one process per run ----------------------------------------------------------------------------------------

HOLD = "import sys, time; from engine import lock\n" \
       "with lock.folder_lock(sys.argv[1]): print('held', flush=True); time.sleep(600)"


@pytest.fixture
def holder(tmp_path):
    """A process that holds tmp_path/run."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "run"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_run_that_another_process_works_on_is_refused_until_that_one_is_dead(csvs, tmp_path, holder):
    with pytest.raises(UserError, match=f"process {holder.pid} on {socket.gethostname()} is at work"):
        loop.run(arguments(csvs, tmp_path), weigh)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [".lock"]
    holder.kill()
    holder.wait()
    assert (tmp_path / "run" / ".lock").exists()  # stale
    loop.run(arguments(csvs, tmp_path), weigh)
    assert (tmp_path / "run" / "result.json").exists() and not (tmp_path / "run" / ".lock").exists()


def test_tables_that_another_process_makes_are_refused(csvs, tmp_path, holder):
    (tmp_path / "splits").mkdir()
    for split, name in (("train", "train_noisy_60.csv"), ("test", "test.csv")):
        (tmp_path / "splits" / f"{split}.csv").write_text((csvs / name).read_text())
    done = run_script("tables.py", "table1", "--data", tmp_path / "splits", "--out", tmp_path, "--name", "run", check=False)
    assert done.returncode == 2 and f"process {holder.pid} on" in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_lock_of_another_machine_is_not_ours_to_break(tmp_path):
    write_json(tmp_path / "run" / ".lock", {"host": "elsewhere", "pid": 1})
    with pytest.raises(UserError, match=r"process 1 on elsewhere was at work on it; if that one is gone, remove .*\.lock"):
        with lock.folder_lock(tmp_path / "run"):
            pass


def test_of_many_that_come_at_once_one_gets_in(tmp_path):
    code = "import sys; from engine import lock\nprint('ready', flush=True); input()\n" \
           "with lock.folder_lock(sys.argv[1]): print('in', flush=True); input()"
    processes = [subprocess.Popen([sys.executable, "-c", code, tmp_path / "run"], cwd=ROOT, stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    assert {process.stdout.readline() for process in processes} == {"ready\n"}
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.stdout.readline() for process in processes]  # of those who are refused: nothing, they end
    assert sorted(answers) == [""] * 3 + ["in\n"]
    for process, answer in zip(processes, answers):
        _, errors = process.communicate("end\n" if answer else None)
        assert (process.returncode == 0) == bool(answer) and (answer or "is at work on it" in errors)
    assert not (tmp_path / "run").exists()  # nothing came into it


def test_a_lock_file_that_its_holder_removes_meanwhile_is_not_held(tmp_path, monkeypatch):
    """The holder removes the file after this process opens it and before it locks it: a third could then make a new one."""
    real, calls = fcntl.flock, []

    def flock(file, operation):
        if not calls:
            (tmp_path / ".lock").unlink()
        calls.append(operation)
        return real(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with lock.folder_lock(tmp_path):
        assert len(calls) > 1 and (tmp_path / ".lock").exists()


def test_loader_processes_that_outlive_their_parent_do_not_keep_the_lock(tmp_path):
    code = "import os, sys, time; from engine import lock\nwith lock.folder_lock(sys.argv[1]):\n" \
           "    if not os.fork(): time.sleep(20)\n    print('held', flush=True); time.sleep(20)"
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path / "run"], cwd=ROOT, stdout=subprocess.PIPE, text=True,
                               start_new_session=True)
    try:
        assert process.stdout.readline() == "held\n"
        process.kill()
        process.wait()
        with lock.folder_lock(tmp_path / "run"):
            pass
    finally:
        os.killpg(process.pid, signal.SIGKILL)


def test_a_refused_command_leaves_no_folder(csvs, tmp_path):
    args = arguments(csvs, tmp_path / "new" / "out")
    args.train_csv = "nowhere.csv"
    with pytest.raises(UserError, match="no such CSV"):
        loop.run(args, weigh)
    assert not list(tmp_path.iterdir())


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


# --- several processes ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_processes_together_train_as_one(csvs, tmp_path, count):
    """torchrun on CPUs: the same losses as one process with the same batches, each test sample counted once.

    Batch normalisation takes each process's own statistics, so all rows here show one picture, with masks of their own.
    """
    rows = [line.split(",") for line in (csvs / "train_noisy_60.csv").read_text().splitlines()[1:]]
    (tmp_path / "train.csv").write_text("img,filename\n" + "".join(f"{rows[0][0]},{mask}\n" for _, mask, _ in rows[:8]))
    flags = ["train_without_weight.py", "--train_csv", tmp_path / "train.csv", "--test_csv", csvs / "test.csv",
             "--size", 48, 32, "--width", 4, "--epochs", 3, "--batch-size", 8, "--accelerator", "cpu", "--out-dir", tmp_path]
    torchrun = (*TORCHRUN[:-1], count)
    run_script(*flags, "--name", "one")
    run_script(*torchrun, *flags, "--name", "many")
    one, many = ([json.loads(line)["loss"][0] for line in (tmp_path / name / "log.jsonl").open()] for name in ("one", "many"))
    assert many == pytest.approx(one, rel=1e-4)
    assert len(set(one)) == 3  # they do learn
    result = json.loads((tmp_path / "many" / "result.json").read_text())
    assert result["machine"]["processes"] == count and result["test"][0]["images"] == 4


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
