"""Plans on the workers of a Dask scheduler: workers and schedulers that are killed, and what a serial run would have left."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from cli.files import UserError, write_json
from engine import lock
from reports import workers
from reports.command import Command
from reports.plan import Job, run_plan
from tests import sweep_drill
from tests.conftest import ROOT, environment
from tests.dask_cluster import DaskCluster
from tests.kill_drill import outcome
from tests.small_runs import wait_for

EPOCHS = 24


@pytest.fixture
def trainings(csvs):
    """A function that plans two trainings and what is made of both, with paths that count from the working directory."""
    def plan():
        runs = Path("runs")
        made = sweep_drill.trainings(csvs / "train_noisy_60.csv", csvs / "valid_noisy_60.csv", csvs / "test.csv", EPOCHS, 2)
        code = "import shutil; shutil.copy('runs/run0/result.json', 'runs/both.json'); open('runs/run1/result.json')"
        return Job(["-c", code], runs / "both.json", made, runs / "both.out", runs)

    return plan


@pytest.fixture
def serial(trainings, tmp_path, monkeypatch):
    """What a run of one after the other leaves: dict of run -> `outcome`."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (tmp_path / "serial").mkdir()
    (tmp_path / "cluster").mkdir()
    monkeypatch.chdir(tmp_path / "serial")
    run_plan([trainings()])
    found = {name: outcome(Path("runs", name)) for name in ("run0", "run1")}
    monkeypatch.chdir(tmp_path / "cluster")
    return found


def begun(epochs):
    """Name of a training that is amid its work, and lines of its log but for the last epoch, whose checkpoint may not be there
    yet; None if there is no such training."""
    for name in ("run0", "run1"):
        log, taken = Path("runs", name, "log.jsonl"), Path("runs", name, lock.FILE_NAME)
        if log.exists() and taken.exists():
            lines = log.read_text().splitlines()
            if epochs <= len(lines) < EPOCHS // 2:
                return name, lines[:epochs - 1]
    return None


def wait_for_end(process, seconds=120):
    """One that nobody has asked for its exit code counts as ended."""
    until = time.monotonic() + seconds
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.slow
def test_killed_workers_and_schedulers_change_nothing(trainings, serial, tmp_path, capfd, caplog):
    """Kill a worker amid a training, then the scheduler amid the one that goes on; the repeated call ends as a serial run."""
    with DaskCluster(tmp_path / "first", "gpu=1", "gpu=1") as cluster, ThreadPoolExecutor(1) as pool:
        call = pool.submit(run_plan, [trainings()], workers.DaskWorkers(str(cluster.file)))
        wait_for(lambda: begun(3) or call.done(), cluster.scheduler, 900)
        name, epochs = begun(3)
        training = psutil.Process(json.loads(Path("runs", name, lock.FILE_NAME).read_text())["pid"])
        lost = next(worker for worker in cluster.workers if worker.pid in [each.pid for each in training.parents()])
        lost.kill()
        wait_for_end(training)  # it ends with its worker

        def elsewhere():
            taken = Path("runs", name, lock.FILE_NAME)
            text = taken.read_text() if taken.exists() else ""
            return call.done() or (text.endswith("}") and json.loads(text)["pid"] != training.pid)

        wait_for(elsewhere, cluster.scheduler, 900)
        assert not call.done(), call.exception()
        again = psutil.Process(json.loads(Path("runs", name, lock.FILE_NAME).read_text())["pid"])
        assert Path("runs", name, "log.jsonl").read_text().splitlines()[:2] == epochs  # it did not begin anew
        cluster.scheduler.kill()
        with pytest.raises(UserError, match="the scheduler is gone; .* the same call goes on from here"):
            call.result(timeout=60)
        assert "Traceback" not in capfd.readouterr().err + caplog.text
        wait_for_end(again)  # its worker ended it
    assert not Path("runs", "both.json").exists()
    with DaskCluster(tmp_path / "second", "gpu=1", "gpu=1", nanny=True) as cluster:
        run_plan([trainings()], workers.DaskWorkers(str(cluster.file), gpus=1))
    assert {each: outcome(Path("runs", each)) for each in serial} == serial
    assert Path("runs", name, "log.jsonl").read_text().splitlines()[:2] == epochs  # with their times: never trained twice
    assert trainings().finished()
    run_plan([trainings()], workers.DaskWorkers("nowhere:1"))  # nothing to do needs no scheduler


@pytest.mark.slow
def test_a_job_gets_what_it_asks_for_and_ends_with_its_call(tmp_path, capfd):
    """Two workers, one of which has cores; then the call is ended, by SIGTERM and by SIGKILL."""
    with DaskCluster(tmp_path / "dask", "cores=3", "gpu=1") as cluster:
        seen = "import os; open({!r}, 'w').write(f'{{os.getppid()}} ' + os.environ['OMP_NUM_THREADS']"
        seen += " + ' slow' * ('MALLOC_TRIM_THRESHOLD_' in os.environ))"
        jobs = [Job(["-c", seen.format(str(tmp_path / f"job{n}"))], tmp_path / f"job{n}", [], tmp_path / f"job{n}.out")
                for n in range(4)]
        run_plan(jobs, workers.DaskWorkers(str(cluster.file), cores=3))
        assert {job.result.read_text() for job in jobs} == {f"{cluster.workers[0].pid} 3"}
        code = "import os, sys; [open(path, 'w').write(str(os.getpid())) for path in sys.argv[2:]]"
        shared = [Job(["-c", code, "--out", str(path)], path, [], tmp_path / "shared.out", listed=("--out",))
                  for path in (tmp_path / "one", tmp_path / "two")]
        run_plan(shared, workers.DaskWorkers(str(cluster.file)))
        assert len({job.result.read_text() for job in shared}) == 1 and all(job.finished() for job in shared)
        bad = Job(["-c", "raise SystemExit('the reason')"], tmp_path / "bad", [], tmp_path / "bad.out")
        after = Job(["-c", "raise SystemExit('never')"], tmp_path / "after", [bad], tmp_path / "after.out")
        with pytest.raises(UserError, match=r"1 of 2 commands failed(.|\n)*the reason"):
            run_plan([after], workers.DaskWorkers(str(cluster.file)))
        assert not after.log.exists()
        for number in (signal.SIGTERM, signal.SIGKILL):
            file = tmp_path / f"pid{number}"
            sleeper = f"import time, os; open({str(file)!r}, 'w').write(str(os.getpid()) + ' '); time.sleep(600)"
            code = f"""from pathlib import Path
from cli.command_line import command_line
from reports.plan import Job, run_plan
from reports.workers import DaskWorkers
folder = Path({str(tmp_path)!r})
job = Job(["-c", {sleeper!r}], folder / "never", [], folder / "log")
command_line(lambda: run_plan([job], DaskWorkers({str(cluster.file)!r})))
"""
            call = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment())
            wait_for(lambda: file.exists() and file.read_text().endswith(" "), call, 300)  # noqa: B023
            child = psutil.Process(int(file.read_text()))
            call.send_signal(number)
            assert call.wait(60) == (143 if number == signal.SIGTERM else -9)
            wait_for_end(child)
        assert all(worker.poll() is None for worker in cluster.workers)


def test_a_scheduler_that_is_not_there_is_named(tmp_path, monkeypatch):
    job = Job(["-c", "pass"], tmp_path / "a", [], tmp_path / "a.out")
    pytest.importorskip("distributed")
    monkeypatch.setattr(workers, "PATIENCE", 0.5)
    with pytest.raises(UserError, match="--scheduler 127.0.0.1:1: no Dask scheduler answers there"):
        run_plan([job], workers.DaskWorkers("127.0.0.1:1"))
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UserError, match="needs Dask; pip install -r requirements-cluster.txt"):
        run_plan([job], workers.DaskWorkers("127.0.0.1:1"))


def test_flags_choose_the_workers():
    parser = argparse.ArgumentParser()
    workers.add_worker_flags(parser, jobs=2)
    assert workers.workers_of(parser.parse_args([])).slots == 2
    with pytest.raises(UserError, match="--gpus 1: asks the workers of --scheduler"):
        workers.workers_of(parser.parse_args(["--gpus", "1"]))
    there = workers.workers_of(parser.parse_args(["--scheduler", "a:1", "--gpus", "1", "--cores", "4"]))
    command = Command("name", ["train_teacher.py"], (), "l", ".", networks=True)
    assert there.asks(command) == {"gpu": 1, "cores": 4}
    assert there.asks(Command("name", ["utils/get_weight.py"], (), "l", ".")) == {"cores": 4}


def test_a_lock_of_the_same_job_on_a_lost_worker_is_taken_over(tmp_path, monkeypatch):
    write_json(tmp_path / lock.FILE_NAME, {"host": "elsewhere", "pid": 1, "job": "a"})
    monkeypatch.setenv(lock.JOB, "b")
    with pytest.raises(UserError, match="process 1 on elsewhere"), lock.folder_lock(tmp_path):
        pass
    monkeypatch.setenv(lock.JOB, "a")
    with lock.folder_lock(tmp_path):
        assert json.loads((tmp_path / lock.FILE_NAME).read_text())["pid"] == os.getpid()


@pytest.mark.slow
def test_a_command_ends_with_the_process_that_started_it(tmp_path):
    """SIGKILL leaves nothing that works on, which a second call would meet."""
    script = tmp_path / "sleeper.py"
    script.write_text(f"import os, time\nopen({str(tmp_path / 'pid')!r}, 'w').write(f'{{os.getpid()}} ')\ntime.sleep(600)\n")
    code = "import os; from cli import warm; warm.PRELOADED = ['torch', 'cli.warm']; "
    code += f"warm.exit_code(warm.start_script({str(script)!r}, [], os.environ))"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment())
    wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().endswith(" "), process, 300)
    child = psutil.Process(int((tmp_path / "pid").read_text()))
    process.kill()
    process.wait()
    wait_for_end(child)
