"""Class CSVs from digits and folders: what is written, what is refused; a second call changes nothing."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from data.pictures import read_image
from tests.class_sets import CIFAR, DIGITS, FOLDERS, refused, splits_of, times
from tests.conftest import ROOT, bash_commands
from tests.script_calls import run
from tests.tool_inputs import contents

# --- digits -----------------------------------------------------------------------------------------------------


def test_digits_are_those_of_scikit_learn(tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, capsys, tmp_path, DIGITS, "--out", "digits") == (0, "")
    rows = [pd.read_csv(tmp_path / "digits" / f"{name}.csv", dtype=str) for name in ("train_clean", "test")]
    assert [len(part) for part in rows] == [1200, 597] and rows[0].columns.tolist() == ["image", "label"]
    data = load_digits()
    rows = pd.concat(rows)
    assert rows.label.astype(int).tolist() == data.target.tolist()
    for number in (0, 700, 1796):  # 0..16 grey levels spread over 0..255
        picture = read_image(tmp_path / rows.image.iloc[number])
        assert np.array_equal(np.round(picture[:, :, 1] / 255 * 16), data.images[number]) and picture.shape == (8, 8, 3)
        assert picture.max() == round(data.images[number].max() * 255 / 16)
    assert json.loads((tmp_path / "digits/classes.json").read_text())["names"] == list("0123456789")
    before, then = contents(tmp_path), times(tmp_path)
    assert run(monkeypatch, capsys, tmp_path, DIGITS, "--out", "digits") == (0, "")
    assert contents(tmp_path) == before and times(tmp_path) == then
    (tmp_path / "digits/images/0003.png").write_bytes(b"x")
    refused(monkeypatch, capsys, tmp_path, DIGITS, "0003.png exists with other content; pass --overwrite", "--out", "digits")
    assert run(monkeypatch, capsys, tmp_path, DIGITS, "--out", "digits", "--overwrite") == (0, "")
    assert contents(tmp_path) == before


@pytest.mark.slow
def test_the_commands_of_the_guide_run(tmp_path, monkeypatch, capsys):
    guide = (ROOT / "docs/guide.md").read_text(encoding="utf-8")
    section = guide[guide.index("\n## Class labels\n"):].split("\n## ")[1]
    commands = [line.split()[1:] for line in bash_commands(section)]
    assert len(commands) == 9 == section.count("python ")  # no command stands outside the blocks
    assert {script for script, *_ in commands} > {DIGITS, FOLDERS, CIFAR, "utils/class_noise.py", "train_on_features.py"}
    grow(tmp_path / "my_classes", "a", "b")
    for script, *flags in commands:
        if script == CIFAR:  # nothing is fetched here
            refused(monkeypatch, capsys, tmp_path, CIFAR, "cifar-10-batches-py: not found", *flags[:-1])
        else:
            short = ["1" if before == "--epochs" else flag for before, flag in zip(["", *flags], flags)]
            assert run(monkeypatch, capsys, tmp_path, script, *short)[0] == 0
    assert (tmp_path / "data/csv/digits/train_worst_0_flips.csv").exists()
    runs = ("digits_ce", "digits_co_teaching", "digits_features", "digits_weighted")
    scores = {run: json.loads((tmp_path / "runs" / run / "result.json").read_text())["test"][0] for run in runs}
    assert all(score["images"] == 597 for score in scores.values())
    assert scores["digits_features"]["accuracy"] > 0.6  # chance is 0.1; the networks have trained for one epoch


# --- folders ----------------------------------------------------------------------------------------------------


def grow(folder, *classes, count=10, suffix="jpg"):
    """Class folders with pictures, named after their numbers."""
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            Image.new("RGB", (5, 4), (number, 0, 0)).save(folder / name / f"{number}.{suffix}")
    return folder


def test_folders_split_at_random(tmp_path, monkeypatch, capsys):
    grow(tmp_path / "animals", "cat", "dog, big", "ant")
    grow(tmp_path / "animals", "cat", suffix="png", count=5)  # stems of other pictures
    grow(tmp_path / "animals", ".hidden")
    (tmp_path / "animals/empty").mkdir()
    (tmp_path / "animals/cat/notes.txt").write_text("")
    code, errors = run(monkeypatch, capsys, tmp_path, FOLDERS, "animals", "--out", "out", "--seed", 1)
    assert code == 0 and "animals/empty: no pictures, the class is left out" in errors
    assert "1 files and folders that are no picture of a class are left out, e.g. animals/cat/notes.txt" in errors
    parts = splits_of(tmp_path / "out")
    assert [len(part) for part in parts.values()] == [24, 4, 7]  # of 35: a tenth, a fifth
    rows = pd.concat(parts.values())
    assert rows.label.value_counts().to_dict() == {"cat": 15, "ant": 10, "dog, big": 10}
    assert all(image.split("/")[1] == label and (tmp_path / image).is_file() for image, label in rows.to_numpy())
    assert rows.image.is_unique
    assert json.loads((tmp_path / "out/classes.json").read_text())["names"] == ["ant", "cat", "dog, big"]
    before = contents(tmp_path)
    assert run(monkeypatch, capsys, tmp_path, FOLDERS, "animals", "--out", "out", "--seed", 1)[0] == 0
    assert contents(tmp_path) == before
    refused(monkeypatch, capsys, tmp_path, FOLDERS, "train.csv exists with other content", "animals", "--out", "out", "--seed",
            2)


@pytest.mark.parametrize("validation", [None, "val", "valid"])
def test_folders_with_their_own_split(tmp_path, monkeypatch, capsys, validation):
    """Names that are all numbers count as numbers."""
    for part in ("train", "test", *([validation] if validation else [])):
        grow(tmp_path / "set" / part, "10", "9")
    code, errors = run(monkeypatch, capsys, tmp_path, FOLDERS, "set", "--out", "out", "--valid", 0.3)
    assert (code, errors) == (0, "")
    parts = splits_of(tmp_path / "out")
    assert [len(part) for part in parts.values()] == ([20, 20, 20] if validation else [14, 6, 20])
    for name, part in parts.items():
        home = {"train": "train", "valid": validation or "train", "test": "test"}[name]
        assert all(image.startswith(f"set/{home}/{label}/") for image, label in part.to_numpy())
    assert json.loads((tmp_path / "out/classes.json").read_text())["names"] == ["9", "10"]


def spaced(folder):
    grow(folder, " a", "b")


BAD_FOLDERS = [
    ("nothing there", lambda f: None, "set: not found"),
    ("a file", lambda f: f.write_text(""), "set: not a folder"),
    ("no subfolders", lambda f: (f.mkdir(), Image.new("RGB", (3, 3)).save(f / "a.jpg")), "set: no subfolders"),
    ("empty ones alone", lambda f: [(f / name).mkdir(parents=True) for name in "ab"], "no pictures in its 2 subfolders"),
    ("one class", lambda f: grow(f, "a"), "set: one class alone, a"),
    ("one with pictures", lambda f: (grow(f, "a"), (f / "b").mkdir()), "set: one class alone, a"),
    ("no test folder", lambda f: grow(f / "train", "a", "b"), "set/test: not found"),
    ("a class of the test alone", lambda f: (grow(f / "train", "a", "b"), grow(f / "test", "a", "c")),
     "set/test/c: a class that does not occur"),
    ("a picture that is none", lambda f: (grow(f, "a", "c"), (f / "c/0.jpg").write_text("no")), "c/0.jpg: not a readable"),
    ("too few", lambda f: grow(f, "a", "b", count=1), "cannot be split"),
    ("spaces", spaced, "the class ' a' has spaces"),
    ("a class without training pictures", lambda f: (grow(f, "a"), grow(f, "b", count=1)), "no picture of the class b"),
]


@pytest.mark.parametrize("make, message", [case[1:] for case in BAD_FOLDERS], ids=[case[0] for case in BAD_FOLDERS])
def test_bad_folders(tmp_path, monkeypatch, capsys, make, message):
    make(tmp_path / "set")
    refused(monkeypatch, capsys, tmp_path, FOLDERS, message, "set", "--out", "out", "--valid", 0.4, "--test", 0.5)
