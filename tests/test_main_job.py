"""What each command of the main job takes, as benchmarks/bench_main_job.py measures it."""

import json

import pytest

import quick
from benchmarks.bench_main_job import lines_of, words_of_run_sh
from benchmarks.measured import __file__ as MEASURED
from tests.benchmark_calls import run_benchmark
from tests.conftest import run_script

MIB = 300


def usage_of(folder, text, check=True):
    """(what a script took, its process)."""
    script, usage = folder / "script.py", folder / "usage.json"
    script.write_text(text)
    done = run_script(MEASURED, usage, script, "word", check=check)
    return json.loads(usage.read_text()), done


def test_memory_is_that_of_each_script_alone(tmp_path):
    """The scripts are forked from one process: no peak of another script, or of that process, is counted."""
    filled = f"import numpy as np\nnp.ones({MIB} << 20, np.uint8)\n"
    child = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {filled!r}])\n"
    before, large, after = (usage_of(tmp_path, text)[0]["MiB"] for text in ("", filled, ""))
    assert large > before + 0.95 * MIB and after == pytest.approx(before, abs=0.1 * MIB)
    assert usage_of(tmp_path, child)[0]["MiB"] > MIB


def test_seconds_of_a_script_and_of_its_children(tmp_path):
    asleep, _ = usage_of(tmp_path, "import time\ntime.sleep(0.5)\n")
    assert asleep["seconds"] >= 0.5 > asleep["processor"]
    busy = "import time\nwhile time.process_time() < 0.3:\n    pass\n"
    working, _ = usage_of(tmp_path, f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {busy!r}])\n{busy}")
    assert working["processor"] >= 0.5  # what the process had taken before the script began is not the script's


def test_a_script_sees_its_words_and_keeps_its_exit_code(tmp_path):
    usage, done = usage_of(tmp_path, "import sys\nprint(__name__, sys.argv[1:])\nsys.exit(3)\n", check=False)
    assert done.returncode == 3 and done.stdout == "__main__ ['word']\n" and usage["seconds"] >= 0


def test_the_flags_are_those_of_run_sh(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    drawing, training = words_of_run_sh()
    args = quick.parse(["photos", *training, "--epochs", "3"])
    assert drawing == [] and args.model == "unet" and args.folds == 3 and args.size == [96, 96]
    assert args.training[args.training.index("--epochs") + 1] == "3"


def test_shares_and_the_whole_by_hand():
    stages = {name: {"script": "-" if name == "libraries" else "a.py", "seconds": seconds, "processor": 2 * seconds, "MiB": mib}
              for name, seconds, mib in (("libraries", 1, 300), ("sample", 10, 400), ("noisy", 60, 900), ("report", 20, 500))}
    lines = lines_of(stages, seconds=90, jobs=1)
    assert lines[0] == ["libraries", "-", "1.0", "-", "2.0", "300"]  # no part of the whole
    assert lines[2] == ["noisy", "a.py", "60.0", "60.0 %", "120.0", "900"]
    assert lines[-2] == ["starting the commands", "-", "10.0", "10.0 %", "-", "-"]  # of 100 s in all, 90 were a stage's
    assert lines[-1] == ["all", "-", "100.0", "100.0 %", "180.0", "900"]
    assert [line[0] for line in lines_of(stages, 50, 2)] == ["libraries", "sample", "noisy", "report", "all"]


@pytest.mark.slow
def test_the_main_job_is_measured_command_by_command(tmp_path, monkeypatch):
    out = tmp_path / "main_job.json"
    run_benchmark(monkeypatch, "bench_main_job.py", "--out", out, "--limit", 20, "--size", 32, 32, "--width", 4, "--epochs", 1,
                  "--folds", 2, "--accelerator", "cpu", "--jobs", 1)
    content = json.loads(out.read_text())
    trainings = {name for name, stage in content["stages"].items() if stage["script"].startswith("train_")}
    students = {f"{name}_result" for name in ("noisy", "kd_bm", "own", "own2", "own3", "clean")}
    assert trainings == {"teacher_unet_teacher", *students}
    floor = content["stages"]["libraries"]["MiB"]
    assert all(content["stages"][name]["MiB"] > floor and content["stages"][name]["processor"] > 0 for name in trainings)
    lines = content["tables"]["The main job, by stage, 1 at a time"]
    assert len(lines) == 2 + len(content["stages"]) + 2
