"""What the system refuses, and terminals that cannot show or take everything."""

import cv2
import numpy as np
import pytest

from cli.command_line import command_line
from tests.conftest import ROOT


def ended(monkeypatch, capsys, error):
    """(exit code, stderr) of a command whose main raises the error."""
    def main():
        raise error

    monkeypatch.setattr("sys.argv", ["tool.py"])
    with pytest.raises(SystemExit) as end:
        command_line(main)
    return end.value.code, capsys.readouterr().err


def array_memory_error():
    """NumPy's own error for an array of 8 PiB, whose class has another address in NumPy 1 than in NumPy 2."""
    try:
        return np.empty(2**50)
    except MemoryError as error:
        return error


@pytest.mark.parametrize("error", [
    MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), cv2.error("Failed to allocate 40000 bytes"),
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"),
    RuntimeError("DefaultCPUAllocator: not enough memory"), RuntimeError("CUBLAS_STATUS_ALLOC_FAILED"), OSError(12, "no"),
    array_memory_error()], ids=lambda error: f"{type(error).__name__} {error}"[:30])
def test_memory_that_is_not_there(monkeypatch, capsys, error):
    code, errors = ended(monkeypatch, capsys, error)
    assert code == 2 and errors == "tool.py: error: out of memory; lower --batch-size or --size, or leave out --cache\n"


def test_other_errors_are_not_taken_for_memory(monkeypatch, capsys):
    with pytest.raises(RuntimeError, match="shapes"):
        command_line(lambda: (_ for _ in ()).throw(RuntimeError("shapes differ")))


@pytest.mark.parametrize("error, words", [
    (OSError(28, "No space left on device"), "No space left on device (the system names no file)"),
    (PermissionError(13, "Permission denied", "x.csv"), "x.csv: Permission denied"),
    (OSError(18, "Invalid cross-device link", "a", None, "b"), "a -> b: Invalid cross-device link")])
def test_what_the_system_refuses_is_named(monkeypatch, capsys, error, words):
    assert ended(monkeypatch, capsys, error) == (2, f"tool.py: error: {words}\n")


PRINTS = "from cli.command_line import command_line; command_line(lambda: {what})"


@pytest.mark.parametrize("what", ["print('\u00b1 \udcff')", "print('line\\n' * 100_000)"], ids=["ascii", "a reader that goes"])
def test_terminals(what):
    import os
    import subprocess
    import sys

    command = [sys.executable, "-c", PRINTS.format(root=str(ROOT), what=what.encode("unicode_escape").decode()
                                                   .replace("\\\\", "\\"))]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONIOENCODING": "ascii"}, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    if "line" in what:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait() == 141
    else:
        assert process.communicate() == (b"\\xb1 \\udcff\n", b"") and process.returncode == 0
