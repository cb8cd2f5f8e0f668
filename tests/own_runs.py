"""Runs with own weights on a few drawn portraits, and the first of two passes."""

import importlib
import sys

import numpy as np
import pytest

from engine import own_memory
from tests.test_loop_by_hand import BATCH, EPOCHS, RATE, SEED, SIZE

SCRIPT = "train_with_own_weight.py"


@pytest.fixture
def call(monkeypatch):
    """A function that runs a script's main() in this process and returns the run's folder."""
    def run(module, *arguments):
        monkeypatch.setattr(sys, "argv", [f"{module}.py", *map(str, arguments)])
        importlib.import_module(module).main()
        if "--out-dir" in arguments:
            return arguments[arguments.index("--out-dir") + 1] / arguments[arguments.index("--name") + 1]

    return run


def small(csv, out, name="run", epochs=EPOCHS):
    return ["--train_csv", csv, "--name", name, "--out-dir", out, "--epochs", epochs, "--batch-size", BATCH, "--size", *SIZE,
            "--learning-rate", RATE, "--width", 4, "--accelerator", "cpu", "--lr-step", 1, "--seed", SEED]


AUGMENT = pytest.mark.parametrize("two_passes", [[], ["--augment"]], indirect=True, ids=["as they are", "augmented"])


@pytest.fixture
def two_passes(request, drawn, tmp_path, call, monkeypatch):
    """Folder of a first pass, and flags of a second one; rows 0, 3 and 6 are doubted. Its parameter: more flags of both."""
    more = getattr(request, "param", [])
    weights = np.where(np.arange(12) % 3 == 0, 0.45, 0.9)
    weights[9] = 0.55
    monkeypatch.setattr(own_memory, "own_weights", lambda means, outlined: (weights, None))
    csv = drawn / "train_noisy_60.csv"
    first = call("train_with_own_weight", *small(csv, tmp_path, "first"), *more)
    return first, [*small(csv, tmp_path, "second"), *more, "--after", first]
