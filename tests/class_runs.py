"""Short runs on a few handwritten digits, a third of whose labels are wrong."""

import importlib
import sys

import cv2
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits

from engine.classification import complete
from engine.flags import add_class_task_flags, add_optimizer_flags, add_run_flags, add_training_device_flags, tool_parser

SIZES = {"train": 48, "valid": 20, "test": 30}
EPOCHS, BATCH, RATE, SEED = 2, 16, 0.05, 3


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """A folder with train.csv (a third of its labels wrong, weights), valid.csv and test.csv, 8 x 8 px."""
    folder, drawn = tmp_path_factory.mktemp("digits"), load_digits()
    dice, first = np.random.default_rng(0), 0
    for split, count in SIZES.items():
        lines = ["image,label,weight"]
        for number in range(first, first + count):
            cv2.imwrite(str(folder / f"{number}.png"), (drawn.images[number] * 15).astype(np.uint8))
            wrong = split == "train" and number % 3 == 0
            label = (drawn.target[number] + wrong * dice.integers(1, 10)) % 10
            lines.append(f"{number}.png,{label},{dice.random():.3f}")
        first += count
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n")
    return folder


def flags_of(digits, folder, *flags):
    csvs = [word for split in SIZES for word in (f"--{split}_csv", str(digits / f"{split}.csv"))]
    return [*csvs, "--name", "run", "--out-dir", str(folder), "--accelerator", "cpu", "--epochs", str(EPOCHS), "-b", str(BATCH),
            "-l", str(RATE), "--optimizer", "sgd", "--clip", "0", "--lr-step", "1", "--seed", str(SEED), *flags]


def train(monkeypatch, script, *flags):
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *map(str, flags)])
    importlib.import_module(script).main()


def arguments(digits, folder, *flags):
    """Flags of a script for class labels alone."""
    parser = tool_parser("")
    add_run_flags(parser)
    add_class_task_flags(parser)
    add_optimizer_flags(parser)
    add_training_device_flags(parser)
    args = parser.parse_args(flags_of(digits, folder, *flags))
    complete(args)
    return args


def pixels_of(digits, csv):
    """Pictures (N, 8, 8), labels and weights of a CSV, without the project's reading."""
    table = pd.read_csv(digits / csv)
    return (np.stack([cv2.imread(str(digits / name), cv2.IMREAD_GRAYSCALE) for name in table["image"]]),
            table["label"].to_numpy(), table["weight"].to_numpy())
