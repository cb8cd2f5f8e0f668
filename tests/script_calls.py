"""Scripts run in this process: what they answer, and what they must leave when they refuse."""

import runpy
import time

import pytest

from tests.conftest import ROOT

TINY = ["--epochs", 1, "--batch-size", 2, "--size", 16, 16, "--width", 4, "--accelerator", "cpu", "--name", "run"]


def run(monkeypatch, capsys, folder, script, *flags):
    """(exit code, stderr) of a script, run in this process and in `folder`."""
    monkeypatch.chdir(folder)
    code, _, errors = answer(monkeypatch, capsys, script, *flags)
    return code, errors


def answer(monkeypatch, capsys, script, *flags):
    """(exit code, stdout, stderr) of a script, run in this process."""
    monkeypatch.setattr("sys.argv", [script, *map(str, flags)])
    capsys.readouterr()
    try:
        runpy.run_path(str(ROOT / script), run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code or 0
    return code, *capsys.readouterr()


def named(cases):
    return [pytest.param(*case[1:3], case[3:], id=case[0]) for case in cases]


def check(monkeypatch, capsys, folder, script, message, *flags):
    """Run a case and check what it promises; returns the error text."""
    before, began = {path for path in folder.rglob("*")}, time.monotonic()
    code, errors = run(monkeypatch, capsys, folder, script, *flags)
    assert "Traceback" not in errors
    if message is None:
        assert code == 0, errors
    else:
        assert code == 2 and message in errors, errors
        assert time.monotonic() - began < 20
        assert len([line for line in errors.splitlines() if "error" in line]) == 1, errors
        assert {path for path in folder.rglob("*")} == before, "a refused command left something"
    return errors
