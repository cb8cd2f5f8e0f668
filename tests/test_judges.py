"""Judges of an audit: where the probabilities come from, by hand, and what is refused."""

import numpy as np
import pandas as pd
import pytest
import torch

from cli.files import UserError, write_json
from data.pictures import write_image, write_mask
from engine import checkpoint, run_folder
from engine.judges import by_masks, by_own_run, certain, resized, trust_of_run


@pytest.fixture
def rows(tmp_path):
    """Two pictures of 4 x 6 px and their masks."""
    for name in "ab":
        write_image(tmp_path / f"{name}.jpg", np.zeros((4, 6, 3), np.uint8))
        write_mask(tmp_path / f"{name}.png", np.eye(4, 6, dtype=np.uint8))
    return pd.DataFrame({"image": [str(tmp_path / f"{name}.jpg") for name in "ab"],
                         "mask": [str(tmp_path / f"{name}.png") for name in "ab"]})


def run_of(folder, rows, predictions, classes=2, scores=(0.8, 0.1)):
    """A finished run as train_with_own_weight.py leaves it, as far as a judge reads it."""
    write_json(folder / "args.json", {"num_classes": classes, "train_csv": "x.csv",
                                      "rows": {"train": {"digest": run_folder.digest(rows)}}})
    write_json(folder / "result.json", {})
    memory = {"predictions": predictions, "scores": {"sums": 4 * torch.tensor(scores), "counts": torch.tensor([4.0, 4.0])}}
    checkpoint.save(folder / "last.ckpt", {"networks": [], "memory": memory})
    return folder


def sums_of(shape, counts):
    sums = torch.zeros(2, *shape, dtype=torch.uint16)
    sums[0] = 255
    return {"sums": sums, "counts": torch.tensor(counts, dtype=torch.uint16)}


def test_averages_are_sums_over_counts(tmp_path, rows):
    predictions = sums_of((2, 3), [2, 0])
    first, never = by_own_run(run_of(tmp_path / "run", rows, predictions), rows, 2)
    assert first.dtype == np.float32 and (first == 0.5).all() and np.isnan(never).all()  # 255 / (2 * 255); unknown
    first, never = by_own_run(run_of(tmp_path / "many", rows, sums_of((3, 2, 3), [1, 0]), classes=3), rows, 3)
    assert first.shape == (3, 2, 3) and (first == 1).all() and never.shape == first.shape and np.isnan(never).all()
    moved = sums_of((2, 3), np.ones((2, 2, 3)).tolist())  # counted for each pixel, since the pictures were augmented
    moved["counts"][0, 0, 0] = 0
    first, _ = by_own_run(run_of(tmp_path / "moved", rows, moved), rows, 2)
    assert np.isnan(first[0, 0]) and (first.ravel()[1:] == 1).all()
    moved["counts"] = torch.full((2, 2, 3), 3, dtype=torch.uint8)  # as a run with --augment keeps them
    first, _ = by_own_run(run_of(tmp_path / "bytes", rows, moved), rows, 2)
    assert first == pytest.approx(1 / 3)


def test_trust_is_the_score_over_half_the_median(tmp_path, rows):
    assert trust_of_run(run_of(tmp_path / "run", rows, None)).tolist() == pytest.approx([1, 0.1 / 0.225])


@pytest.mark.parametrize("change, message", [
    (lambda folder, rows: (folder / "result.json").unlink(), "not the folder of a finished run"),
    (lambda folder, rows: write_mask(rows["mask"][1], np.zeros((4, 6), np.uint8)), "was trained on other rows or files"),
    (lambda folder, rows: run_of(folder, rows, None, classes=5), "--num-classes 5, this call has 2"),
    (lambda folder, rows: run_of(folder, rows, None), "has kept no averaged predictions"),
    (lambda folder, rows: run_of(folder, rows, sums_of((2, 3), [0, 0])), "no averaged predictions yet")])
def test_runs_that_are_no_judges(tmp_path, rows, change, message):
    folder = run_of(tmp_path / "run", rows, sums_of((2, 3), [1, 1]))
    change(folder, rows)
    with pytest.raises(UserError, match=message):
        by_own_run(folder, rows, 2)


def test_masks_are_probabilities(tmp_path, rows):
    labels = np.array([[0, 1, 2], [255, 2, 0]], np.uint8)
    chances = certain(labels, 3)
    assert chances[:, labels != 255].sum(0) == pytest.approx(np.ones(5)) and np.isnan(chances[:, 1, 0]).all()
    assert (chances.argmax(0) == labels)[labels != 255].all() and np.nanmax(chances) == pytest.approx(0.98)
    assert certain(np.array([[0, 1, 255]], np.uint8), 2).tolist() == [pytest.approx([0.02, 0.98, np.nan], nan_ok=True)]
    first, second = by_masks(rows, tmp_path, "{stem}.png", 2)
    assert np.array_equal(first > 0.5, np.eye(4, 6)) and np.array_equal(first, second)


def test_black_and_white_masks_of_several_classes_are_no_judge(tmp_path, rows):
    """Whose foreground would be ignored; one that holds 0 and 255 beside one of class numbers is a mask like others."""
    for name in "ab":
        write_image(tmp_path / f"sam/{name}.png", 255 * np.eye(4, 6, dtype=np.uint8))
    with pytest.raises(UserError, match=r"--pred-dir .*sam: the masks hold 0 and 255 alone, no class number in 1\.\.2"):
        list(zip(range(2), by_masks(rows, tmp_path / "sam", "{stem}.png", 3)))
    write_mask(tmp_path / "sam/a.png", np.eye(4, 6, dtype=np.uint8), 3)
    assert len(list(by_masks(rows, tmp_path / "sam", "{stem}.png", 3))) == 2


def test_a_step_is_resized_without_a_shift():
    """The edge at a half stays at a half: a probability of 0.5 is crossed there."""
    small = np.repeat(np.array([[0.1, 0.1, 0.9, 0.9]], np.float32), 2, 0)
    large = resized(small, (8, 16))
    assert large.shape == (8, 16) and (large[:, :8] < 0.5).all() and (large[:, 8:] > 0.5).all()
    assert resized(np.stack([small, 1 - small]), (8, 16))[1] == pytest.approx(1 - large)


def test_a_listing_changes_with_the_files(tmp_path, rows):
    before = run_folder.listing(rows["mask"])
    assert run_folder.listing(rows["mask"]) == before
    write_mask(rows["mask"][0], np.zeros((9, 9), np.uint8))
    assert run_folder.listing(rows["mask"]) != before
