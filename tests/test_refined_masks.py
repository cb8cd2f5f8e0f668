"""Masks refined by GrabCut and DenseCRF."""

import json
import sys
from functools import partial

import cv2
import numpy as np
import pytest

from benchmarks import refine_masks
from cli.files import UserError
from data.pictures import read_mask, write_image, write_mask
from data.rows import read_rows
from tests.ellipses import SQUARE, call, picture
from utils.agreement_cpu import agreement

METHODS = {"grabcut": refine_masks.grabcut, "densecrf": partial(refine_masks.dense_crf, certainty=0.6, colour=8.0, reach=134.0,
                                                                  rounds=5)}


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


def test_a_dense_crf_does_not_depend_on_the_number_of_pixels(monkeypatch):
    """Its lengths are those of the kernels at 321 px, scaled; at four times the size the same outline is found."""
    pytest.importorskip("pydensecrf.densecrf")
    image, mask = picture()
    coarse = cv2.dilate(mask, SQUARE, iterations=4)
    image, coarse = (cv2.resize(each, None, fx=4, fy=4, interpolation=cv2.INTER_NEAREST) for each in (image, coarse))
    refine = partial(METHODS["densecrf"], image, coarse, 28)
    truth = cv2.resize(mask, None, fx=4, fy=4, interpolation=cv2.INTER_NEAREST)
    scaled = agreement(refine(), truth, 2, "bf", 2.0)
    monkeypatch.setattr(refine_masks, "REFERENCE_SIZE", 4 * refine_masks.REFERENCE_SIZE)  # lengths stay those of the small one
    assert scaled > max(0.9, agreement(refine(), truth, 2, "bf", 2.0))


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
def test_the_rim_of_ignored_pixels_is_no_outline(method, tmp_path):
    """Beside ignored rows lie some of the other side's colours, farther from the object's outline than the band."""
    if method == "densecrf":
        pytest.importorskip("pydensecrf.densecrf")
    labels = np.zeros((96, 80), np.uint8)
    labels[:60, 20:60], labels[:5] = 1, 255
    image = np.where((labels == 1)[..., None], [200, 60, 60], [60, 60, 200]).astype(np.uint8)
    image[5:11, 36:44], image[5:11, :8] = [60, 60, 200], [200, 60, 60]
    write_image(tmp_path / "image.png", image)
    write_mask(tmp_path / "mask.png", labels)
    refined = refine_masks.refined_mask((str(tmp_path / "image.png"), str(tmp_path / "mask.png")), METHODS[method], 20, 2)
    assert (refined[:5] == 255).all() and np.array_equal(refined[5:11, 34:46], labels[5:11, 34:46])
    assert np.array_equal(refined[5:11, :10], labels[5:11, :10])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("mask", [np.zeros((9, 9), np.uint8), np.ones((9, 9), np.uint8), np.full((9, 9), 255, np.uint8),
                                  np.eye(9, dtype=np.uint8) * 255, np.pad([[1]], 4).astype(np.uint8)],
                         ids=["empty", "full", "ignored", "one class", "one pixel"])
def test_a_mask_with_nothing_to_cut_is_kept(method, mask):
    if method == "densecrf":
        pytest.importorskip("pydensecrf.densecrf")
    refined = METHODS[method](np.zeros((9, 9, 3), np.uint8), mask, 3)
    assert refined.dtype == np.uint8 and (refined == mask)[mask == 255].all() and ((refined == mask).all() or mask.sum() == 1)


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
    (["--out", "o.csv", "--method", "densecrf", "--certainty", "1"], "--certainty 1.0: a number in 0.5..1"),
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
