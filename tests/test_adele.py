"""ADELE by hand and as a run, and small-loss selection."""

import argparse
import json
import math
import os
import signal
import time

import cv2
import pytest
import torch

from benchmarks import adele, small_loss
from cli.files import UserError, write_rows
from data.pictures import read_mask, write_image, write_mask
from data.rows import read_rows
from engine import checkpoint
from tests.ellipses import SQUARE, call, picture
from utils.losses import per_sample_loss

# --- small-loss selection -----------------------------------------------------------------------------------------


def test_small_loss_keeps_exactly_the_smallest():
    flags = argparse.Namespace(select_by="loss", num_classes=2, theta=3.0, forget_rate=0.5, ramp_epochs=4)
    mask = torch.ones(5, 4, 4, dtype=torch.long)
    logits = torch.tensor([0.3, 2.0, -1.0, 1.0, 5.0])[:, None, None, None].expand(5, 1, 4, 4)  # loss log(1 + exp(-z))
    assert per_sample_loss(logits, mask).argsort().tolist() == [4, 1, 3, 0, 2]
    kept = [small_loss.weigh(flags, [logits], {"mask": mask}, epoch)[0].tolist() for epoch in (0, 1, 2, 4, 9)]
    # R(t) of 5: 1 -> 5; 0.875 -> 4; 0.75 -> 3; 0.5 -> 2
    assert kept == [[1, 1, 1, 1, 1], [1, 1, 0, 1, 1], [0, 1, 0, 1, 1], [0, 1, 0, 0, 1], [0, 1, 0, 0, 1]]


# --- ADELE --------------------------------------------------------------------------------------------------------


def test_a_curve_is_fitted_and_its_switch_is_known():
    """With g = 1, f'(t) / f'(1) = exp(-b (t - 1)): the change passes 0.9 after t = 1 + ln 10 / b, 5.6 for b = 0.5."""
    curve = [0.8 * (1 - math.exp(-0.5 * t)) for t in range(1, 11)]
    changes = [adele.slope_change(curve[:epochs]) for epochs in range(1, 11)]
    assert changes[:3] == [0, 0, 0]
    assert changes[3:] == pytest.approx([1 - math.exp(-0.5 * (t - 1)) for t in range(4, 11)], abs=1e-3)
    assert [change > 0.9 for change in changes].index(True) + 1 == 6
    step = 1e-6  # the slope by differences, for an exponent below 1
    by_hand = (adele.iou_curve(3 + step, 0.9, 0.7, 0.6) - adele.iou_curve(3 - step, 0.9, 0.7, 0.6)) / (2 * step)
    assert adele.slope(3.0, 0.9, 0.7, 0.6) == pytest.approx(by_hand, rel=1e-6)


def test_a_flat_or_missing_curve_never_switches():
    assert adele.slope_change([0.0] * 8) == 0 and adele.slope_change([0.5, math.nan, 0.6, 0.7, 0.7]) == 0


class Pointwise(torch.nn.Module):
    """Logits are the first channel of the normalised picture; the second channel counts at small pictures alone."""

    def forward(self, images):
        return images[:, :1] + (images[:, 1:2] if images.shape[-1] < 20 else 0)


def test_only_what_the_average_is_sure_of_is_corrected():
    images = torch.zeros(1, 3, 10, 20)
    images[:, 0, :, :10], images[:, 0, :, 10:] = math.log(9), -math.log(3)  # P = 0.9 and 0.25
    labels = adele.sure_labels(Pointwise(), images, [1.0], 0.8)[0]
    assert (labels[:, :10] == 1).all() and (labels[:, 10:] == adele.KEPT).all()
    assert (adele.sure_labels(Pointwise(), images, [1.0], 0.7)[0, :, 10:] == 0).all()
    images[:, 0], images[:, 1] = math.log(9), -math.log(9) - math.log(3)  # 0.9 at its own size, 0.25 at half of it
    assert adele.probabilities(adele.scaled_logits(Pointwise(), images, 0.5))[0, 1].mean() == pytest.approx(0.25, abs=1e-4)
    assert (adele.sure_labels(Pointwise(), images, [1.0, 0.5], 0.8) == adele.KEPT).all()  # 0.575
    assert (adele.sure_labels(Pointwise(), images, [1.0, 1.0, 1.0, 0.5], 0.7) == 1).all()  # 0.7375


def test_divergence_by_hand():
    a, b = torch.full((1, 1, 1, 2), math.log(9)), torch.full((1, 1, 1, 2), math.log(3))
    b[..., 1] = -math.log(9)  # the mean of the second pixel is 0.5: it does not count
    mean = (0.9 + 0.75) / 2
    by_hand = sum(p * math.log(p / mean) + (1 - p) * math.log((1 - p) / (1 - mean)) for p in (0.9, 0.75)) / 2
    assert adele.divergence([a, b], 0.8).item() == pytest.approx(by_hand, rel=1e-4)
    assert adele.divergence([a, a], 0.8).item() == pytest.approx(0, abs=1e-7)


def memory_of(rows=2, classes=2):
    return adele.Memory(rows, (2, 3), classes)


def test_memory_counts_and_corrects_and_comes_back():
    memory = memory_of()
    mask = torch.tensor([[[1, 1, 0], [0, 255, 0]]])
    memory.count(torch.tensor([[[1, 0, 0], [1, 1, 0]]]), mask)
    assert memory.iou().tolist() == [pytest.approx(2 / 4), pytest.approx(1 / 3)]  # 255 is in neither map
    memory.labels[1, 0] = torch.tensor([0, adele.KEPT, 1])
    memory.labels[1, 1, 1] = 1
    assert memory.corrected(mask, torch.tensor([1])).tolist() == [[[0, 1, 1], [0, 255, 0]]]
    assert (memory.corrected(mask, torch.tensor([0])) == mask).all()
    memory.switched[1] = 3
    other = memory_of()
    other.load_state_dict(memory.state_dict())
    assert all((getattr(other, name) == value).all() for name, value in vars(memory).items())


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """train.csv of 12 pictures with masks 4 px too large, and valid.csv of 4 others with exact ones."""
    folder = tmp_path_factory.mktemp("adele")
    rows = {"train": [], "valid": []}
    for number in range(16):
        split = "train" if number < 12 else "valid"
        image, mask = picture(number)
        write_image(folder / f"images/{number}.png", image)
        write_mask(folder / f"masks/{number}.png", cv2.dilate(mask, SQUARE, iterations=4) if split == "train" else mask)
        rows[split].append(f"{folder}/images/{number}.png,{folder}/masks/{number}.png,{4 * (split == 'train')}\n")
    for split, lines in rows.items():
        (folder / f"{split}.csv").write_text("img,filename,iterations\n" + "".join(lines))
    return folder


def adele_flags(drawn, home, *more):
    return ["--train_csv", drawn / "train.csv", "--valid_csv", drawn / "valid.csv", "--name", "run", "--out-dir", home,
            "--model", "unet", "--width", 4, "--size", 48, 40, "--batch-size", 4, "--epochs", 5, "--accelerator", "cpu",
            "--optimizer", "adamw", "--learning-rate", 0.02, "--slope-change", 0.02, "--confidence", 0.6, *more]


@pytest.mark.slow
def test_adele_corrects_and_a_stop_changes_nothing(drawn, tmp_path, monkeypatch, interruptible):
    call(monkeypatch, adele, *adele_flags(drawn, tmp_path / "whole"))
    log = [json.loads(line) for line in (tmp_path / "whole/run/log.jsonl").read_text().splitlines()]
    assert [entry["corrected"] for entry in log[:3]] == [[], [], []] and 1 in log[3]["corrected"] + log[4]["corrected"]
    once = [c for entry in log for c in entry["corrected"]]
    assert len(once) == len(set(once)) and log[-1]["corrected_share"] > 0.1
    assert all(0 < entry["training_iou"][0] < 1 for entry in log)
    plain, steps = adele.objective, iter(range(100))

    def stopping(*arguments):
        if next(steps) == 13:  # in the last epoch, after a correction
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
        return plain(*arguments)

    monkeypatch.setattr(adele, "objective", stopping)
    with pytest.raises(KeyboardInterrupt, match="stopped in epoch 5 after 2 of 3 steps"):
        call(monkeypatch, adele, *adele_flags(drawn, tmp_path / "broken"))
    saved = checkpoint.load(tmp_path / "broken/run/last.ckpt")["memory"]
    assert len(saved["curves"]) == 4 and saved["counts"].sum() > 0
    call(monkeypatch, adele, *adele_flags(drawn, tmp_path / "broken", "--resume"))
    whole, broken = (checkpoint.load(tmp_path / name / "run/last.ckpt") for name in ("whole", "broken"))
    assert all(torch.equal(value, broken["memory"][name]) for name, value in whole["memory"].items())
    for name, value in whole["networks"][0]["state"].items():
        assert torch.equal(value, broken["networks"][0]["state"][name]), name


@pytest.mark.slow
def test_adele_with_consistency_trains_several_classes(drawn, tmp_path, monkeypatch):
    call(monkeypatch, adele, *adele_flags(drawn, tmp_path, "--consistency", 1, "--num-classes", 3, "--epochs", 1,
                                          "--train_csv", as_labels(drawn, tmp_path, "train"), "--valid_csv",
                                          as_labels(drawn, tmp_path, "valid")))
    (entry,) = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert len(entry["training_iou"]) == 3 and math.isfinite(entry["loss"][0])


def as_labels(drawn, folder, split):
    """The same rows with masks of class numbers 0, 2."""
    rows = read_rows(drawn / f"{split}.csv")
    masks = [folder / "labels" / os.path.basename(mask) for mask in rows["mask"]]
    for mask, target in zip(rows["mask"], masks):
        write_mask(target, 2 * read_mask(mask), 3)
    write_rows(folder / f"{split}.csv", rows.assign(mask=list(map(str, masks))))
    return folder / f"{split}.csv"


@pytest.mark.parametrize("flags, message", [
    (["--augment"], "--augment: corrected labels belong to the picture as it is"),
    (["--consistency", "1", "--scales", "1"], "--consistency needs --scales besides 1")])
def test_adele_refuses(drawn, tmp_path, monkeypatch, flags, message):
    with pytest.raises(UserError, match=message):
        call(monkeypatch, adele, *adele_flags(drawn, tmp_path, *flags))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="torchrun: labels are corrected by one process"):
        call(monkeypatch, adele, *adele_flags(drawn, tmp_path))


def test_corrections_by_hand():
    """Into classes of the picture's annotation alone; labels of classes that are not corrected stay, and ignored ones."""
    kept = adele.KEPT
    given = torch.tensor([[[0, 1, 1, 2, 255]], [[0, 0, 2, 2, 2]]])
    found = torch.tensor([[[1, 0, kept, 0, 0]], [[1, 2, 0, 2, kept]]], dtype=torch.uint8)
    assert adele.corrections(found, given, [0, 1]).tolist() == [[[1, 0, kept, kept, kept]], [[kept, kept, kept, kept, kept]]]
    assert adele.corrections(found, given, [0, 2]).tolist() == [[[kept, kept, kept, 0, kept]], [[kept, 2, 0, kept, kept]]]
    whole = torch.tensor([[[1, 1, 255]]])  # no pixel of class 0, and yet too large
    assert adele.corrections(torch.tensor([[[0, 1, 0]]], dtype=torch.uint8), whole, [0, 1]).tolist() == [[[0, kept, kept]]]
