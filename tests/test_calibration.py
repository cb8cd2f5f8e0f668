"""Offsets of classes from a few corrected masks: utils/class_offsets.py and utils/calibrate_masks.py."""

import re
from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import bench_fixed
from cli.files import UserError, write_rows
from data.pictures import read_mask, resize_labels, write_image, write_mask
from data.rows import read_rows
from tests.conftest import DATASETS, ROOT, run_script
from utils.agreement_cpu import agreement
from utils.class_offsets import _best, class_distances, fit_offsets, held_out_gains, moved, offsets_help


def square(low, high, inner=None, side=40):
    """Class 1 in [low, high)^2 and class 2 in [inner)^2 within it, else 0."""
    mask = np.zeros((side, side), np.uint8)
    mask[low:high, low:high] = 1
    if inner:
        mask[inner[0]:inner[1], inner[0]:inner[1]] = 2
    return mask


def shift(mask, *offsets):
    return moved(mask, class_distances(mask, len(offsets)), np.array(offsets, float))


def test_the_outline_lies_midway_between_pixels():
    mask = np.zeros((1, 7), np.uint8)
    mask[:, 3:] = 1
    assert class_distances(mask, 2).tolist() == [[[2.5, 1.5, .5, -.5, -1.5, -2.5, -3.5]],
                                                 [[-2.5, -1.5, -.5, .5, 1.5, 2.5, 3.5]]]


def test_a_region_shrinks_and_grows_by_its_offset():
    assert (shift(square(8, 32), 0, 2) == square(10, 30)).all()
    grown = shift(square(10, 30), 0, -2)
    assert (grown[20, 8:32] == 1).all() and grown[20].sum() == 24  # 2 px on each straight side; the corners are round
    assert (shift(square(10, 30), 0, 0) == square(10, 30)).all()


def test_a_region_in_another_one_shrinks_alone():
    assert (shift(square(5, 35, (12, 28)), 0, 0, 3) == square(5, 35, (15, 25))).all()
    both = shift(square(5, 35, (12, 28)), 0, 2, 2)  # the outline between 1 and 2 stays, since both shrink alike
    assert (both == square(7, 33, (12, 28))).all()


def test_ignored_pixels_stay_and_no_class_appears():
    mask = square(8, 32)
    mask[:, 20] = 255
    after = shift(mask, 0, 2, -9)
    assert (after[:, 20] == 255).all() and set(np.unique(after)) == {0, 1, 255}
    assert (shift(np.full((4, 4), 255, np.uint8), 0, 1) == 255).all()
    assert (shift(np.zeros((4, 4), np.uint8), 0, -3) == 0).all()


def test_offsets_are_those_that_were_planted():
    right = [square(low, low + 20, (low + 6, low + 14)) for low in (6, 8, 10)]
    drawn = [square(low - 2, low + 22, (low + 5, low + 15)) for low in (6, 8, 10)]  # 2 px too wide, and 1 px within it
    offsets = fit_offsets(drawn, right, 3, 1.0)
    assert all((shift(mask, *offsets) == other).all() for mask, other in zip(drawn, right))
    assert offsets[1] in (1.5, 2) and offsets[2] - offsets[1] in (0.5, 1)  # half a px less moves as far on straight lines


def test_an_offset_is_a_whole_number_or_the_better_half_beside_it():
    assert _best(lambda value: -abs(value - 1.5), 4) == 1.5 and _best(lambda value: -abs(value + 3), 4) == -3
    assert _best(lambda value: 0, 4) == 0 and _best(lambda value: value in (-1, 3), 4) == -1  # of equal ones the nearest to 0


def test_only_what_helps_held_out_masks_is_used():
    right = [square(low, low + 18) for low in range(6, 14)]
    alike = [square(low - 2, low + 20) for low in range(6, 14)]
    mixed = [square(low - side, low + 18 + side) for low, side in zip(range(6, 14), [2, -2] * 4)]
    gains = held_out_gains(alike, right, 2, 1.0)
    assert gains == pytest.approx([1 - agreement(a, b, 2, "bm", 1.0) for a, b in zip(alike, right)])  # all of it
    assert offsets_help(gains) and not offsets_help(held_out_gains(mixed, right, 2, 1.0))
    assert not offsets_help(held_out_gains(right, right, 2, 1.0))
    assert np.isnan(held_out_gains(alike[:1], right[:1], 2, 1.0)).all() and not offsets_help(np.array([np.nan]))


def test_the_test_is_one_sided_and_looks_at_the_spread():
    assert offsets_help(np.array([0.02, 0.03, 0.01])) and not offsets_help(np.array([-0.02, -0.03, -0.01]))
    assert not offsets_help(np.array([0.09, -0.05, 0.02]))


@pytest.fixture
def coarse(tmp_path):
    """Folder with six pictures whose squares are drawn 2 px too wide: train.csv; and right masks of four: fixed.csv."""
    rows = {"train": [], "fixed": []}
    for number in range(6):
        image = tmp_path / "images" / f"{number}.png"
        write_image(image, np.zeros((40, 40, 3), np.uint8))
        for kind, mask in (("train", square(6 + number, 28 + number)), ("fixed", square(8 + number, 26 + number))):
            path = tmp_path / kind / f"{number}.png"
            write_mask(path, mask)
            rows[kind].append((str(image), str(path)))
    pd.DataFrame(rows["train"], columns=["image", "mask"]).to_csv(tmp_path / "train.csv", index=False)
    pd.DataFrame(rows["fixed"][:4], columns=["image", "mask"]).to_csv(tmp_path / "fixed.csv", index=False)
    return tmp_path


def calibrate(folder, *flags, check=True):
    return run_script("utils/calibrate_masks.py", "--csv", folder / "train.csv", "--fixed", folder / "fixed.csv", "--out",
                      folder / "new.csv", "--theta", 1, *flags, check=check)


def test_fixed_masks_replace_and_the_others_are_moved(coarse):
    before = {path: path.read_bytes() for path in coarse.rglob("*.png")}
    done = calibrate(coarse)
    assert "class 1: +2.0" in done.stdout and "4 of 6 masks are the corrected ones, 2 are moved" in done.stdout
    table = pd.read_csv(coarse / "new.csv")
    assert list(table["weight"]) == [1] * 6 and len(table) == 6 and "/new_moved/" in table.iloc[5, 1]
    for number, path in enumerate(table.iloc[:, 1]):
        path = ROOT / path if not path.startswith("/") else path
        assert (read_mask(path) == square(8 + number, 26 + number)).all()
    assert all(path.read_bytes() == content for path, content in before.items())
    again = calibrate(coarse, check=False)
    assert again.returncode == 2 and "--overwrite" in again.stderr


def test_no_offset_only_replaces(coarse):
    done = calibrate(coarse, "--no-offset")
    assert "0 are moved" in done.stdout and not (coarse / "new_moved").exists()
    assert [path.split("/")[-2] for path in pd.read_csv(coarse / "new.csv").iloc[:, 1]] == ["fixed"] * 4 + ["train"] * 2


def test_a_folder_of_corrected_masks_does_as_well(coarse):
    calibrate(coarse)
    for number in (4, 5):
        (coarse / "fixed" / f"{number}.png").unlink()
    again = calibrate(coarse, "--fixed", coarse / "fixed", "--out", coarse / "again.csv")
    assert "4 of 6 masks are the corrected ones, 2 are moved" in again.stdout
    one, other = ((coarse / name).read_text() for name in ("new.csv", "again.csv"))
    assert other.replace("/again_moved/", "/new_moved/") == one
    empty = coarse / "empty"
    empty.mkdir()
    done = calibrate(coarse, "--fixed", empty, "--out", coarse / "third.csv", check=False)
    assert done.returncode == 2 and "holds no mask that is named after a picture, e.g. 0.png" in done.stderr


def test_one_corrected_mask_shows_no_offset(coarse):
    table = (coarse / "fixed.csv").read_text().splitlines()
    (coarse / "fixed.csv").write_text("\n".join(table[:2]) + "\n")
    assert "no offset: the 1 corrected masks do not show" in calibrate(coarse).stdout


@pytest.mark.parametrize("change, words", [
    (lambda lines, folder: [*lines, lines[1]], "row 6: .*0.png stands there twice"),
    (lambda lines, folder: [lines[0], f"{folder}/train/0.png,{folder}/fixed/0.png"], "row 2: .*train/0.png is no picture of"),
])
def test_what_cannot_be_matched_is_said(coarse, change, words):
    lines = (coarse / "fixed.csv").read_text().splitlines()
    (coarse / "fixed.csv").write_text("\n".join(change(lines, coarse)) + "\n")
    done = calibrate(coarse, check=False)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert re.search(words, done.stderr)


def test_weights_and_levels_of_other_rows_stay(coarse):
    lines = (coarse / "train.csv").read_text().splitlines()
    (coarse / "train.csv").write_text("\n".join([f"{lines[0]},weight,iterations",
                                                *(f"{line},0.{number + 1},{number}" for number, line in enumerate(lines[1:]))]))
    calibrate(coarse)
    table = pd.read_csv(coarse / "new.csv")
    assert list(table["weight"]) == [1, 1, 1, 1, 0.5, 0.6] and list(table["iterations"]) == [0, 0, 0, 0, 4, 5]


def test_offsets_are_shares_of_a_picture(coarse):
    """Pictures of 40 and of 320 px, all drawn 5 % too wide: one share fits both."""
    for number in (0, 2, 4):
        write_image(coarse / "images" / f"{number}.png", np.zeros((320, 320, 3), np.uint8))
        for kind, grown in (("train", 16), ("fixed", 0)):
            write_mask(coarse / kind / f"{number}.png", square(80 - grown, 240 + grown, side=320))
    done = calibrate(coarse)
    assert "offsets, px of a picture of 320 px" in done.stdout and "class 1: +16.0" in done.stdout
    masks = [read_mask(path) for path in pd.read_csv(coarse / "new.csv").iloc[4:, 1]]
    assert (masks[0] == square(80, 240, side=320)).all() and (masks[1] == square(13, 31)).all()


def test_corrected_masks_are_never_written_over(coarse):
    before = {path: path.read_bytes() for path in (coarse / "fixed").iterdir()}
    for flags in (["--mask-dir", coarse / "fixed"], ["--out", coarse / "train.csv"]):
        done = calibrate(coarse, "--fixed", coarse / "fixed", *flags, "--overwrite", check=False)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    (coarse / "fixed" / "5.png").unlink()
    calibrate(coarse, "--fixed", coarse / "fixed", "--out", coarse / "fixed.csv", "--overwrite")  # beside the folder `fixed`
    assert {path: path.read_bytes() for path in (coarse / "fixed").iterdir()}.items() <= before.items()
    assert (coarse / "fixed_moved" / "5.png").is_file()


def test_what_is_no_corrected_mask_is_said(coarse):
    (coarse / "fixed" / "4.jpg").write_bytes(b"")
    assert "1 of its files are not named STEM.png after a picture and are left out, first 4.jpg" in calibrate(
        coarse, "--fixed", coarse / "fixed").stdout
    done = calibrate(coarse, "--fixed", coarse / "train", "--overwrite", check=False)
    assert done.returncode == 2 and "so not a corrected one" in done.stderr


def test_a_corrected_mask_of_another_shape_is_refused(coarse):
    write_mask(coarse / "fixed" / "1.png", square(8, 16, side=40)[:20])
    done = calibrate(coarse, check=False)
    assert done.returncode == 2 and "fixed/1.png" in done.stderr and "Traceback" not in done.stderr


def test_the_benchmark_exchanges_the_masks_that_it_says(coarse, monkeypatch):
    fixed = read_rows(coarse / "train.csv").assign(mask=[str(coarse / "fixed" / f"{number}.png") for number in range(6)])
    write_rows(coarse / "truth.csv", fixed)
    learnt = {}

    def trained(args, home, name, csv, seed, *flags, **_):
        learnt[name] = (read_rows(csv)["mask"].tolist(), flags)
        return {"miou": len(learnt) / 100, "bf": 0.5}

    monkeypatch.setattr(bench_fixed, "trained", trained)
    monkeypatch.setattr(bench_fixed, "orders_of", lambda *_: {"worst first": np.array([4, 1, 0, 2, 3, 5])})
    args = Namespace(csv=str(coarse / "train.csv"), truth=str(coarse / "truth.csv"), num_classes=2, theta=1.0, counts=[2, 4],
                     recipes=list(bench_fixed.RECIPES))
    found = bench_fixed.figures_of(args, coarse / "runs", *(read_rows(path) for path in (args.csv, args.truth)), 0)
    folders = {name: [(Path(mask).parent.name, Path(mask).stem) for mask in masks] for name, (masks, _) in learnt.items()}
    assert folders["worst_first2_replaced"] == [("fixed" if number in (1, 4) else "train", str(number)) for number in range(6)]
    assert folders["worst_first2_then_alone"] == [("fixed", "1"), ("fixed", "4")]
    assert [name for name, _ in folders["worst_first4_moved"]] == ["fixed"] * 3 + ["worst_first4_moved_moved",
                                                                                      "fixed", "worst_first4_moved_moved"]
    assert learnt["worst_first2_then_alone"][1] == ("--load", coarse / "runs" / "coarse" / "last.ckpt")
    assert learnt["worst_first2_replaced"][1] == ()
    assert folders["coarse_again"] == folders["coarse"] and learnt["coarse_again"][1] == learnt["worst_first2_then_alone"][1]
    lines = bench_fixed.lines_of(found + [{**each, "seed": 1, "bf": each["bf"] + each["fixed"] / 10} for each in found])
    assert lines[2] == "| 0 | all masks | - | 1 | 1.0 / 50.0 | - | - |"
    assert "| 2 | all masks, corrected ones among them | worst first | 2 | 4.0 / 60.0 | +3.0 ± 0.0 | +10.0 ± 127.1 |" in lines
    assert "| 2 | first the coarse masks, then the corrected ones alone | worst first | 3 |" in "\n".join(lines)
    assert [bench_fixed.cost_of(cell) for cell in (("-", 0, "-"), ("-", 0, "coarse again"), ("random", 2, "then alone"),
                                                   ("random", 2, "moved"))] == [1, 2, 2, 1]


def test_runs_of_other_flags_are_refused(coarse):
    args = Namespace(csv=str(coarse / "train.csv"), truth=str(coarse / "fixed.csv"), test_csv=str(coarse / "fixed.csv"),
                     runs=str(coarse / "runs"), epochs=3, seeds=[0], counts=[2], recipes=["moved"], out="r.json")
    bench_fixed.refuse_other_flags(args)
    bench_fixed.refuse_other_flags(Namespace(**{**vars(args), "seeds": [0, 1], "counts": [2, 4], "out": "s.json"}))
    with pytest.raises(UserError, match="holds trainings of other flags or files"):
        bench_fixed.refuse_other_flags(Namespace(**{**vars(args), "epochs": 4}))
    (coarse / "train.csv").write_text((coarse / "fixed.csv").read_text())
    with pytest.raises(UserError, match="holds trainings of other flags or files"):
        bench_fixed.refuse_other_flags(args)


@pytest.mark.slow
def test_real_coarse_faces_come_nearer_to_the_fine_ones():
    if not DATASETS.is_dir():
        pytest.skip(f"no real photographs at {DATASETS}")
    names = sorted(path.name for path in (DATASETS / "faces" / "fine").glob("test_*.png"))[:20]
    size = (160, 111)
    drawn, right = ([resize_labels(read_mask(DATASETS / "faces" / kind / name, 6), size) for name in names]
                    for kind in ("coarse", "fine"))
    offsets = fit_offsets(drawn[:10], right[:10], 6, 3.0)
    after = [shift(mask, *offsets) for mask in drawn[10:]]
    gains = [agreement(a, b, 6, "bm", 3.0) - agreement(c, b, 6, "bm", 3.0) for a, b, c in zip(after, right[10:], drawn[10:])]
    assert np.mean(gains) > 0
