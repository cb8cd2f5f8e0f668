"""Trainings that meet a full disk."""

import resource
import subprocess
import sys

import pytest

from cli.files import is_temporary
from engine import checkpoint
from tests.conftest import ROOT, environment
from tests.small_runs import wait_for


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
