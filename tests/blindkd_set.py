"""A drawn set of three classes with wrong labels, and calls of BlindKD's scripts on it."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from data.class_sets import class_rows, write_class_set
from data.classification import standardised
from related.blindkd import blind_knowledge_dist_training as training
from related.blindkd import detection

SEED, EPOCHS, BATCH, RATE, ALPHAS = 1, 14, 8, 0.02, (0.30, 0.45, 0.55, 0.70)
NAMES = ["bar", "cross", "dot"]


def draw(label, generator):
    """A noisy picture of a class, uint8 (8, 8)."""
    picture = generator.normal(90, 40, (8, 8))
    {"bar": picture[3:5], "cross": picture[:, 3:5], "dot": picture[2:6, 2:6]}[NAMES[label]][:] += 60
    return picture.clip(0, 255).astype(np.uint8)


def draw_set(folder, rows=40):
    """Three classes in folder/data/csv/drawn, 3 of 10 labels wrong in train_worst.csv; returns the set's folder."""
    generator = np.random.default_rng(0)
    labels = np.arange(rows + 12) % 3
    given = np.where(np.arange(rows) % 10 < 3, (labels[:rows] + 1) % 3, labels[:rows])
    home = folder / "data" / "csv" / "drawn"
    files = [home / "images" / f"{number}.png" for number in range(len(labels))]
    true, noisy = (class_rows(files[:rows], each, NAMES) for each in (labels[:rows], given))
    test = class_rows(files[rows:], labels[rows:], NAMES)
    write_class_set(home, NAMES, {"train_clean": true, "train_worst": noisy, "test": test}, False,
                    [(file, draw(label, generator)) for file, label in zip(files, labels)])
    return home


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return draw_set(tmp_path_factory.mktemp("drawn"))


@pytest.fixture
def call(drawn, tmp_path, monkeypatch):
    """A function that runs one of the scripts on the drawn set, in a working directory of its own; returns the run's folder."""
    monkeypatch.chdir(tmp_path)

    def run(script, *flags, home=None):
        small = ["--model", "small_cnn", "--n_epoch", EPOCHS, "--batch_size", BATCH, "--lr", RATE] if script is training else []
        device = [] if script is detection else ["--accelerator", "cpu"]
        (tmp_path / (home or ".")).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / (home or "."))
        monkeypatch.setattr(sys, "argv", list(map(str, [
            f"{script.__name__.rsplit('.')[-1]}.py", "--dataset", "drawn", "--noise_path", drawn, "--noise_type", "worst",
            "--seed", SEED, *small, *device, *flags])))
        script.main()
        return Path.cwd() / "results" / f"drawn_worst_seed_{SEED}"

    return run


def read(path):
    return json.loads(path.read_text())


# --- both phases, by hand ---------------------------------------------------------------------------------------


def standardised_batch(dataset, index):
    batch = dataset.__getitems__(list(index))
    return standardised(batch["image"], batch["statistics"]), batch["label"]


# --- stopped and resumed ----------------------------------------------------------------------------------------

NAMES_OF_FILES = ("last.ckpt", "best.ckpt", "detection.npy", "scores.npy", "blindkd.json", "student.pth.tar")
