"""Trainings that meet a full disk."""

import subprocess

import pytest

from cli.files import is_temporary
from engine import checkpoint
from tests.conftest import run_script
from tests.processes import kill, start_script
from tests.small_runs import wait_for

LIMITED = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def started(csvs, out):
    """A run's command, and the run itself, killed after its second epoch."""
    command = ["train_without_weight.py", "--train_csv", csvs / "train_noisy_60.csv", "--name", "run", "--out-dir", out,
               "--size", 48, 32, "--width", 4, "--epochs", 300, "--accelerator", "cpu", "--cache", "--resume"]
    process = start_script(*command)
    log = out / "run" / "log.jsonl"
    wait_for(lambda: log.exists() and log.read_text().count("\n") > 2, process)
    kill(process)
    return command


def check_full_disk(csvs, out, limited=()):
    """Args: limited: a script and its flags that run the command under a limit."""
    command = started(csvs, out)
    before = checkpoint.load(out / "run" / "last.ckpt")["epoch"]
    if not limited:
        with open(out / "filler", "wb", buffering=0) as filler:
            try:
                while filler.write(b"x" * 4096):
                    pass
            except OSError:
                pass
    done = run_script(*limited, *command, check=False)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and "cannot be written" in done.stderr
    assert checkpoint.load(out / "run" / "last.ckpt")["epoch"] >= before  # whole, and none is lost
    assert not any(is_temporary(path) for path in (out / "run").iterdir())


def test_a_disk_that_takes_no_more_leaves_the_last_checkpoint(csvs, tmp_path):
    """By a limit of what a process may write into one file, which fails as a full disk does."""
    (tmp_path / "limited.py").write_text(LIMITED)
    check_full_disk(csvs, tmp_path, [tmp_path / "limited.py"])


def test_a_full_tmpfs_leaves_the_last_checkpoint(csvs, tmp_path):
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", tmp_path], capture_output=True).returncode:
        pytest.skip("no right to mount a small tmpfs; the test with a limit of file sizes stands in for it")
    try:
        check_full_disk(csvs, tmp_path)
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)
