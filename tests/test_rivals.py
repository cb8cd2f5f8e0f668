"""Rivals to weights: refined masks, small-loss selection, ADELE, confident learning as a filter; by hand, by planted faults."""

import argparse
import json
import math
import os
import signal
import sys
import time
from functools import partial

import cv2
import numpy as np
import pytest
import torch

from benchmarks import adele, confident_filter, refine_masks, small_loss
from cli.files import UserError, write_rows
from data.pictures import read_mask, write_image, write_mask
from data.rows import read_rows
from engine import checkpoint
from utils.agreement_cpu import agreement
from utils.losses import per_sample_loss

SQUARE = np.ones((3, 3), np.uint8)
METHODS = {"grabcut": refine_masks.grabcut, "densecrf": partial(refine_masks.dense_crf, certainty=0.6, colour=8.0, reach=40.0)}


def call(monkeypatch, module, *flags):
    """Run a script's main() on flags."""
    monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, flags)])
    return module.main()


# --- refined masks ------------------------------------------------------------------------------------------------


def picture(seed=0, size=(96, 80)):
    """(image, its mask): an ellipse of one colour before a ground of another, noise on both."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(size, np.uint8)
    cv2.ellipse(mask, (40, 48), (20, 30), 15, 0, 360, 1, -1)
    colours = np.array([[60, 110, 70], [190, 90, 150]])[mask]
    return (colours + rng.normal(0, 12, (*size, 3))).clip(0, 255).astype(np.uint8), mask


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("change", [cv2.dilate, cv2.erode])
def test_a_mask_4_px_off_is_pulled_to_the_edge(method, change):
    if method == "densecrf":
        pytest.importorskip("pydensecrf.densecrf")
    image, mask = picture()
    coarse = change(mask, SQUARE, iterations=4)
    refined = METHODS[method](image, coarse, 7)
    assert agreement(coarse, mask, 2, "bf", 2.0) < 0.1 and agreement(refined, mask, 2, "bf", 2.0) > 0.95
    narrow = METHODS[method](image, coarse, 2)  # the edge lies outside this band
    distance = cv2.distanceTransform(coarse, cv2.DIST_L2, 5) + cv2.distanceTransform(1 - coarse, cv2.DIST_L2, 5)
    assert (narrow != coarse).any() and (narrow == coarse)[distance > 3].all()


@pytest.mark.parametrize("method", METHODS)
def test_several_classes_and_ignored_pixels(method):
    if method == "densecrf":
        pytest.importorskip("pydensecrf.densecrf")
    rng = np.random.default_rng(1)
    truth = np.zeros((96, 80), np.uint8)
    truth[20:70, 10:40], truth[20:70, 40:70] = 3, 7
    colours = np.zeros((8, 3))
    colours[[0, 3, 7]] = [40, 60, 50], [200, 80, 60], [60, 90, 220]
    image = (colours[truth] + rng.normal(0, 10, (96, 80, 3))).clip(0, 255).astype(np.uint8)
    coarse = np.zeros_like(truth)
    coarse[16:74, 6:44], coarse[16:74, 44:74] = 3, 7  # too large, and 7 is too narrow on its left
    coarse[:5] = 255
    refined = METHODS[method](image, coarse, 7)
    assert (refined[:5] == 255).all() and set(np.unique(refined)) == {0, 3, 7, 255}
    assert (refined[5:] == truth[5:]).mean() > 0.99 > (coarse[5:] == truth[5:]).mean() + 0.1


def test_a_pixel_that_several_classes_claim_keeps_its_label(monkeypatch):
    claims = {0: [0, 0, 0, 1], 3: [1, 1, 0, 0], 7: [0, 1, 0, 0]}
    given = np.array([[3, 7, 3, 0, 7]], np.uint8)
    monkeypatch.setattr(refine_masks, "grabcut_region", lambda image, region, band, rounds: np.array(
        [claims[given[region][0]] + [0]], bool) if given[region].size else region)
    assert refine_masks.grabcut(None, given, 3).tolist() == [[3, 7, 3, 0, 7]]
    claims[7] = [0, 0, 1, 0]
    assert refine_masks.grabcut(None, given, 3).tolist() == [[3, 3, 7, 0, 7]]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("mask", [np.zeros((9, 9), np.uint8), np.ones((9, 9), np.uint8), np.full((9, 9), 255, np.uint8),
                                  np.eye(9, dtype=np.uint8) * 255, np.pad([[1]], 4).astype(np.uint8)],
                         ids=["empty", "full", "ignored", "one class", "one pixel"])
def test_a_mask_with_nothing_to_cut_is_kept(method, mask):
    if method == "densecrf":
        pytest.importorskip("pydensecrf.densecrf")
    refined = METHODS[method](np.zeros((9, 9, 3), np.uint8), mask, 3)
    assert refined.dtype == np.uint8 and (refined == mask).all() or mask.sum() == 1


@pytest.fixture
def coarse_set(tmp_path, monkeypatch):
    """Folder with train.csv (4 rows in no order, levels 4 0 4 4) and truth.csv; it is the working directory."""
    for number in range(4):
        image, mask = picture(number)
        write_image(tmp_path / f"images/{number}.png", image)
        write_mask(tmp_path / f"truth/{number}.png", mask)
        write_mask(tmp_path / f"masks/{number}.png", cv2.dilate(mask, SQUARE, iterations=0 if number == 1 else 4))
    order = (2, 1, 3, 0)
    for name, folder in (("train", "masks"), ("truth", "truth")):
        lines = [f"images/{n}.png,{folder}/{n}.png,{0 if n == 1 else 4}\n" for n in order]
        (tmp_path / f"{name}.csv").write_text("img,filename,iterations\n" + "".join(lines))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_refined_rows_keep_order_and_columns(coarse_set, monkeypatch, capsys):
    flags = ["--csv", "train.csv", "--method", "grabcut", "--out", "fine/refined.csv", "--truth", "truth.csv", "--theta", 2,
             "--band", 20]  # 20 px at 321 px are 6 of 96
    before = {path: path.read_bytes() for path in coarse_set.rglob("*") if path.is_file()}
    call(monkeypatch, refine_masks, *flags)
    assert all(path.read_bytes() == content for path, content in before.items())
    given, refined = read_rows("train.csv"), read_rows("fine/refined.csv")
    assert refined["image"].tolist() == given["image"].tolist() and refined["iterations"].tolist() == [4, 0, 4, 4]
    assert list(refined.columns) == list(given.columns)
    assert refined["mask"].tolist() == [f"fine/refined/{n}.png" for n in (2, 1, 3, 0)]
    for number in range(4):
        assert agreement(read_mask(f"fine/refined/{number}.png"), read_mask(f"truth/{number}.png"), 2, "bf", 2.0) > 0.95
    record = json.loads((coarse_set / "fine/refined.json").read_text())
    noisy, untouched = record["agreement"]["noisy"], record["agreement"]["0"]
    assert record["seconds"] > 0 and record["band"] == 20 and (noisy["masks"], untouched["masks"]) == (3, 1)
    assert noisy["given"]["bf"] < 0.1 and noisy["refined"]["bf"] > 0.95 and untouched["given"] == {"miou": 1, "bf": 1}
    with pytest.raises(UserError, match="refined/2.png exists; pass --overwrite"):
        call(monkeypatch, refine_masks, *flags)
    call(monkeypatch, refine_masks, *flags, "--overwrite")


@pytest.mark.parametrize("flags, message", [
    (["--out", "train.csv"], "train.csv is read here and would be lost"),
    (["--out", "o.csv", "--mask-dir", "masks"], "masks/2.png is read here"),
    (["--out", "o.csv", "--truth", "images.csv"], "images.csv: no such CSV"),
    (["--out", "o.csv", "--certainty", "1"], "--certainty 1.0: a number in 0.5..1"),
    (["--out", "o.csv", "--method", "densecrf"], "needs pydensecrf2: pip install -r benchmarks/requirements.txt")])
def test_refinement_refuses(coarse_set, monkeypatch, flags, message):
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    before = sorted(coarse_set.rglob("*"))
    with pytest.raises(UserError, match=message):
        call(monkeypatch, refine_masks, "--csv", "train.csv", "--method", "grabcut", *flags, "--overwrite")
    assert sorted(coarse_set.rglob("*")) == before


def test_a_broken_mask_leaves_nothing(coarse_set, monkeypatch):
    (coarse_set / "masks/3.png").write_bytes(b"\x89PNG")
    before = sorted(coarse_set.rglob("*"))
    with pytest.raises(UserError, match="row 4: .*masks/3.png"):
        call(monkeypatch, refine_masks, "--csv", "train.csv", "--method", "grabcut", "--out", "o.csv")
    assert sorted(coarse_set.rglob("*")) == before


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
    assert [entry["corrected"] for entry in log[:3]] == [[], [], []] and 0 in log[3]["corrected"] + log[4]["corrected"]
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


# --- confident learning as a filter -------------------------------------------------------------------------------


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
