"""Confident learning as a filter of masks."""

import json
import sys

import numpy as np
import pytest

from benchmarks import confident_filter
from cli.files import UserError
from data.pictures import read_mask, write_image, write_mask
from data.rows import read_rows
from tests.ellipses import call, picture


@pytest.fixture
def judged_set(tmp_path, monkeypatch):
    """6 rows; the mask of row 2 is empty, that of row 4 has a square too much; teachers that know the truth."""
    truth, lines = [], []
    for number in range(6):
        image, mask = picture(number)
        given = np.zeros_like(mask) if number == 2 else mask.copy()
        if number == 4:
            given[2:10, 2:10] = 1
        truth.append(mask)
        write_image(tmp_path / f"images/{number}.png", image)
        write_mask(tmp_path / f"masks/{number}.png", given)
        lines.append(f"images/{number}.png,masks/{number}.png,{4 * (number in (2, 4))}\n")
    (tmp_path / "train.csv").write_text("img,filename,iterations\n" + "".join(lines))
    sure = np.where(np.stack(truth) == 1, 0.95, 0.05)
    probs = np.stack([1 - sure, sure], 1).astype(np.float16)
    monkeypatch.setattr(confident_filter, "judged_folds", lambda rows, teacher: ([], np.zeros(6, int)))
    monkeypatch.setattr(confident_filter, "probabilities", lambda *arguments: probs)
    monkeypatch.chdir(tmp_path)
    return np.stack(truth)


@pytest.mark.parametrize("rule", ["thresholds", "cleanlab"])
def test_the_filter_drops_a_planted_wrong_mask(judged_set, rule, monkeypatch):
    if rule == "cleanlab":
        pytest.importorskip("cleanlab")
    flags = ["--csv", "train.csv", "--teacher", "t", "--size", 96, 80, "--rule", rule]
    limit = [] if rule == "thresholds" else ["--threshold", 0.5]
    call(monkeypatch, confident_filter, *flags, "--drop", "rows", *limit, "--out", "rows.csv")
    rows, given = read_rows("rows.csv", needs_weights=True), read_rows("train.csv")
    assert rows["weight"].tolist()[2] == 0 and rows["weight"].tolist()[:2] == [1, 1] and rows["weight"].tolist()[5] == 1
    assert rows[["image", "mask", "iterations"]].equals(given)
    record = json.loads(open("rows.json").read())
    assert record["dropped"] == (rows["weight"] == 0).sum() == record["dropped_noisy"] and record["rule"] == rule

    call(monkeypatch, confident_filter, *flags, "--drop", "pixels", "--out", "pixels.csv")
    rows = read_rows("pixels.csv", needs_weights=True)
    assert rows["weight"].tolist() == [1] * 6 and rows["iterations"].tolist() == [0, 0, 4, 0, 4, 0]
    for number, mask in enumerate(rows["mask"]):
        wrong = read_mask(given["mask"].iloc[number]) != judged_set[number]
        found = read_mask(mask) == 255
        assert not (found & ~wrong).any() and found.sum() >= 0.9 * wrong.sum()
        assert (read_mask(mask)[~found] == read_mask(given["mask"].iloc[number])[~found]).all()
    with pytest.raises(UserError, match="exists; pass --overwrite"):
        call(monkeypatch, confident_filter, *flags, "--drop", "pixels", "--out", "pixels.csv")


def test_ignored_pixels_have_no_issue(judged_set, monkeypatch):
    labels = read_mask("masks/4.png")
    labels[2:10, 2:10] = labels[40:56, 32:48] = 255  # beside the object and within it
    write_mask("masks/4.png", labels)
    flags = ["--csv", "train.csv", "--teacher", "t", "--size", 96, 80, "--rule", "thresholds", "--drop", "rows"]
    call(monkeypatch, confident_filter, *flags, "--threshold", 0.99, "--out", "rows.csv")
    assert read_rows("rows.csv", needs_weights=True)["weight"].tolist() == [1, 1, 0, 1, 1, 1]
    monkeypatch.setattr(confident_filter, "by_thresholds", lambda labels, probs: (labels >= 0, np.ones(6)))
    call(monkeypatch, confident_filter, *flags, "--out", "all.csv")
    assert json.loads(open("all.json").read())["pixels_with_issues"] == 1 - (8 * 8 + 16 * 16) / (6 * 96 * 80)


def test_scores_are_shares_of_the_labelled_pixels():
    """One of two labelled pixels contradicted is a half, however many are ignored; none labelled, none wrong."""
    truth = np.array([[[1, 1, 0, 0]], [[1, 0, 0, 0]], [[1, 0, 1, 0]]])
    labels = np.array([[[1, 1, 0, 0]], [[1, 1, 255, 255]], [[255] * 4]])
    issues, scores = confident_filter.by_thresholds(labels, np.where(np.stack([truth == 0, truth == 1], 1), 0.9, 0.1))
    assert scores.tolist() == [1, 0.5, 1] and np.argwhere(issues).tolist() == [[1, 0, 1]]


def test_the_filter_refuses(judged_set, monkeypatch, tmp_path):
    flags = ["--csv", "train.csv", "--teacher", "t", "--size", 96, 80, "--out", "o.csv", "--drop", "rows"]
    for number in range(6):
        write_mask(f"masks/{number}.png", 1 - judged_set[number])
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="--threshold 0.9: every mask has a lower score"):
        monkeypatch.setattr(confident_filter, "by_thresholds", lambda labels, probs: (labels > 0, np.full(6, 0.5)))
        call(monkeypatch, confident_filter, *flags, "--rule", "thresholds", "--threshold", 0.9)
    monkeypatch.setitem(sys.modules, "cleanlab", None)
    with pytest.raises(UserError, match="--rule cleanlab: it is not installed; pip install -r benchmarks/requirements.txt, or"):
        call(monkeypatch, confident_filter, *flags)
    for number in range(6):
        write_mask(f"masks/{number}.png", 2 * judged_set[number], 3)
    with pytest.raises(UserError, match="--num-classes 3: the teachers know 2 classes"):
        call(monkeypatch, confident_filter, *flags, "--rule", "thresholds", "--num-classes", 3)
    assert sorted(tmp_path.rglob("*")) == before
