"""Benchmarks run in this process, and their commands forked: interpreters of their own would import for seconds each."""

import importlib
import json
import sys
import tempfile
from pathlib import Path

from benchmarks.measured import __file__ as MEASURED
from cli import warm
from tests.conftest import ROOT, environment


def forked(command, **variables):
    """What `measure.run_command` gives of a command, which is forked here: (wall seconds, peak memory in MiB)."""
    with tempfile.TemporaryDirectory() as folder:
        usage = Path(folder, "usage.json")
        done = warm.run_script(MEASURED, list(map(str, [usage, *command])), {**environment(), **variables}, ROOT)
        assert done.returncode == 0, done.stdout + done.stderr
        found = json.loads(usage.read_text())
        return found["seconds"], found["MiB"]


def run_benchmark(monkeypatch, name, *flags, run_command=forked):
    """Run benchmarks/NAME here, in the project's root.

    Args:
        run_command: stands for the one of benchmarks/measure.py, which tests/test_benchmarks.py shows by itself.
    """
    module = importlib.import_module(f"benchmarks.{name.removesuffix('.py')}")
    if hasattr(module, "run_command"):
        monkeypatch.setattr(module, "run_command", run_command)
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [f"benchmarks/{name}", *map(str, flags)])
    module.main()
