"""One process per run: who gets in, who is refused, and whose lock is stale."""

import fcntl
import os
import signal
import socket
import subprocess
import sys

import pytest

from cli.files import UserError, write_json
from engine import lock, loop
from tests.conftest import ROOT, run_script
from tests.small_runs import arguments, weigh

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
    # nothing came into it; the folder itself stays if one that was refused had made it
    assert not (tmp_path / "run").exists() or not any((tmp_path / "run").iterdir())


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
