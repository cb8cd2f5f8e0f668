"""Calls of the scripts that prepare class labels, and what they leave."""

import re

import pandas as pd

from tests.script_calls import run
from tests.tool_inputs import contents

DIGITS, FOLDERS, CIFAR = "data/make_digits.py", "data/prepare_class_folders.py", "data/prepare_cifar_n.py"


def refused(monkeypatch, capsys, folder, script, message, *flags):
    """The script ends with code 2 and one line, and changes nothing."""
    before = contents(folder)
    code, errors = run(monkeypatch, capsys, folder, script, *flags)
    assert code == 2 and re.search(message, errors) and "Traceback" not in errors, errors
    assert errors.splitlines()[-1].startswith(script.rsplit("/", 1)[1]) and contents(folder) == before, errors


def times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}


def splits_of(folder, names=("train", "valid", "test")):
    return {name: pd.read_csv(folder / f"{name}.csv", dtype=str) for name in names}
