"""Weightings beyond the paper: by hand on small label maps, and by the command line."""

import argparse
import json

import numpy as np
import pytest
import torch

from benchmarks.alternatives import cubed, weigh_band, weigh_relabelled
from data.pictures import read_mask, write_mask
from data.rows import pseudo_label_names, read_rows
from tests.conftest import run_script
from train_with_Teacher_weight import weigh_pixels


def batch():
    masks, pseudo = torch.tensor([[[1, 0, 0]], [[0, 0, 1]]]), torch.tensor([[[1, 1, 0]], [[0, 0, 1]]], dtype=torch.uint8)
    return {"mask": masks, "pseudo": pseudo, "weight": torch.tensor([0.25, 1.0])}  # labels (B, H, W)


def test_a_doubted_pixel_counts_as_much_as_its_mask_is_trusted():
    (weights,) = weigh_pixels(argparse.Namespace(min_weight=0.0), None, batch(), 0)
    assert weights.tolist() == [[[1, 0.25, 1]], [[1, 1, 1]]]
    (weights,) = weigh_pixels(argparse.Namespace(min_weight=0.5), None, batch(), 0)
    assert weights.tolist() == [[[1, 0.5, 1]], [[1, 1, 1]]]


def test_only_doubted_masks_are_replaced():
    samples = batch()
    (weights,) = weigh_relabelled(None, samples, 0)
    assert weights.tolist() == [1, 1] and samples["mask"].tolist() == [[[1, 1, 0]], [[0, 0, 1]]]


def test_ignored_pixels_stay_ignored_and_have_no_outline():
    samples = batch()
    samples["mask"][0, 0, 0] = 255
    weigh_relabelled(None, samples, 0)
    assert samples["mask"][0].tolist() == [[255, 1, 0]]
    mask = torch.zeros(1, 1, 9, dtype=torch.long)
    mask[0, 0, 5:] = 255
    (weights,) = weigh_band(2, None, {"mask": mask, "weight": torch.tensor([0.5])}, 0)
    assert weights[0, 0, :5].tolist() == [1] * 5


def test_the_band_lies_to_both_sides_of_the_outline():
    mask = torch.zeros(1, 1, 9, dtype=torch.long)
    mask[0, 0, 4:] = 1
    (weights,) = weigh_band(2, None, {"mask": mask, "weight": torch.tensor([0.5])}, 0)
    assert weights[0, 0].tolist() == [1, 1, 0.5, 0.5, 0.5, 0.5, 1, 1, 1]


def test_curves_over_all_rows():
    assert cubed(np.array([0.5, 1.0])).tolist() == [0.125, 1]


@pytest.mark.slow
def test_pixel_weights_train(csvs, tmp_path):
    train = csvs / "train_noisy_60_PointRend_weight_bfscore.csv"
    rows = read_rows(train)
    for name, mask in zip(pseudo_label_names(rows), rows["mask"]):
        write_mask(tmp_path / "pseudo" / name, 1 - read_mask(mask))  # a teacher that contradicts every pixel
    flags = ["--train_csv", train, "--size", 48, 32, "--width", 4, "--accelerator", "cpu", "--out-dir", tmp_path, "--epochs", 1,
             "--batch-size", 12]
    run_script("train_with_Teacher_weight.py", "--pixels", tmp_path / "pseudo", "--name", "pixels", "--cache", *flags)
    run_script("train_with_Teacher_weight.py", "--name", "samples", *flags)
    run_script("benchmarks/alternatives.py", "--way", "relabel", "--pred-dir", tmp_path / "pseudo", "--name", "relabel", *flags)
    pixels, samples = (json.loads((tmp_path / name / "log.jsonl").read_text()) for name in ("pixels", "samples"))
    assert pixels["loss"] == pytest.approx(samples["loss"], rel=1e-4)  # every pixel is doubted: they weigh as their samples do
    assert pixels["weight"] == pytest.approx(samples["weight"], rel=1e-5)
    (tmp_path / "pseudo" / pseudo_label_names(rows)[3]).unlink()
    lost = run_script("train_with_Teacher_weight.py", "--pixels", tmp_path / "pseudo", "--name", "lost", *flags, check=False)
    assert lost.returncode == 2 and "1 of 12 pseudo-labels are missing" in lost.stderr
