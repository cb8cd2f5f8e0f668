"""Pictures with class labels: augmentation and statistics by hand."""

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from cli.files import UserError, write_json
from data.classification import ClassDataset, channel_statistics, read_class_rows, shift_and_mirror, standardised
from engine.classification import CLASSIFICATION
from tests import class_runs
from tests.class_runs import arguments

digits = class_runs.digits


def test_pictures_move_by_hand():
    picture = np.arange(9, dtype=np.uint8).reshape(1, 3, 3, 1).repeat(3, 3)  # 0 1 2 / 3 4 5 / 6 7 8

    def cut(mirror, row, column, shift=1, padding="reflect"):
        found = shift_and_mirror(picture, np.array([mirror]), np.array([[row, column]]), shift, padding)
        assert (found[..., 0] == found[..., 2]).all()
        return found[0, :, :, 0].tolist()

    assert cut(False, 1, 1) == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert cut(True, 1, 1) == [[2, 1, 0], [5, 4, 3], [8, 7, 6]]
    assert cut(False, 0, 1) == [[3, 4, 5], [0, 1, 2], [3, 4, 5]]  # one down; above the first row comes the second
    assert cut(False, 1, 2, padding="zero") == [[1, 2, 0], [4, 5, 0], [7, 8, 0]]  # one to the left
    assert cut(True, 2, 0, padding="zero") == [[0, 5, 4], [0, 8, 7], [0, 0, 0]]
    assert cut(True, 0, 0, shift=0) == [[2, 1, 0], [5, 4, 3], [8, 7, 6]]


@pytest.mark.parametrize("cache", [False, True])
def test_a_sample_moves_the_same_whatever_batch_it_is_in(digits, cache):
    rows = read_class_rows(digits / "train.csv", None)
    statistics = ([0.5] * 3, [0.5] * 3)
    plain = ClassDataset(rows, (8, 8), statistics).__getitems__(range(48))
    dataset = ClassDataset(rows, (8, 8), statistics, mirror=True, shift=2, padding="zero", cache=cache, seed=5)
    whole = dataset.__getitems__(list(range(48)))
    assert whole["image"].shape == (48, 3, 8, 8) and whole["image"].dtype == torch.uint8
    one = dataset.__getitems__([7, 3])
    assert torch.equal(one["image"], whole["image"][[7, 3]]) and one["label"].tolist() == rows["label"].iloc[[7, 3]].tolist()
    found = set()
    for image, moved_image in zip(plain["image"], whole["image"]):  # each is the picture at one of 2 x 25 places
        padded = F.pad(image, (2, 2, 2, 2))
        fits = {(flip, row, column) for flip in (False, True) for row in range(5) for column in range(5)
                if torch.equal((padded.flip(-1) if flip else padded)[:, row:row + 8, column:column + 8], moved_image)}
        assert fits
        found |= fits
    assert {flip for flip, _, _ in found} == {False, True} and len({place[1:] for place in found}) > 15
    dataset.epoch = 1
    assert not torch.equal(dataset.__getitems__(range(48))["image"], whole["image"])
    dataset.epoch = 0
    assert torch.equal(dataset.__getitems__(range(48))["image"], whole["image"])
    other = ClassDataset(rows, (8, 8), statistics, mirror=True, shift=2, padding="zero", seed=6)
    assert not torch.equal(other.__getitems__(range(48))["image"], whole["image"])


def test_only_training_moves_its_pictures(digits, tmp_path):
    args = arguments(digits, tmp_path, "--mirror", "--shift", "1")
    args.mean, args.std = [0.5] * 3, [0.5] * 3
    rows = read_class_rows(digits / "valid.csv", args.classes)
    assert not CLASSIFICATION.dataset(rows, args, False).shift and not CLASSIFICATION.dataset(rows, args, False).mirror
    assert CLASSIFICATION.dataset(rows, args, True).shift == 1 and CLASSIFICATION.dataset(rows, args, True).mirror


def test_statistics_by_hand(tmp_path):
    """Red 0 and 255, green 51 everywhere, blue 0 0 0 255 in the first picture and 0 in the second: 8 pixels."""
    for number, (red, blue) in enumerate((([0, 255, 0, 255], [0, 0, 0, 255]), ([255, 0, 255, 0], [0, 0, 0, 0]))):
        picture = np.stack([blue, [51] * 4, red], 1).astype(np.uint8).reshape(2, 2, 3)  # OpenCV writes blue first
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture)
    mean, std = channel_statistics([str(tmp_path / f"{n}.png") for n in (0, 1)], (2, 2))
    assert mean == pytest.approx([0.5, 0.2, 0.125]) and std == pytest.approx([0.5, 1, (0.125 * 0.875)**0.5])
    found = standardised(torch.tensor([[[[255]], [[51]], [[0]]]], dtype=torch.uint8), 255 * torch.tensor([mean, std]))
    assert found.flatten().tolist() == pytest.approx([1, 0, -0.125 / (0.125 * 0.875)**0.5], abs=1e-6)


def test_published_statistics_are_taken(digits, tmp_path):
    table = pd.read_csv(digits / "train.csv")
    table["image"] = [str(digits / name) for name in table["image"]]
    table.to_csv(tmp_path / "train.csv", index=False)
    write_json(tmp_path / "normalisation.json", {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]})
    args = arguments(digits, tmp_path, "--train_csv", str(tmp_path / "train.csv"))
    CLASSIFICATION.check(args, CLASSIFICATION.rows(args))
    assert CLASSIFICATION.config(args, "")["mean"] == [0.1, 0.2, 0.3] and args.std == [0.4, 0.5, 0.6]
    (tmp_path / "normalisation.json").write_text('{"mean": [0, 0, 0], "std": [0.5, 0, 0.5]}')
    with pytest.raises(UserError, match="normalisation.json: `std` must be three numbers in 1e-06..1"):
        CLASSIFICATION.check(args, CLASSIFICATION.rows(args))
