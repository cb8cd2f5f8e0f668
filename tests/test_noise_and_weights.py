"""Noise by hand; weights that find the mask in which noise was planted."""

import json
import os

import numpy as np
import pytest
import torch

from cli.files import UserError, write_rows
from data.pictures import read_mask, resize_labels, write_mask
from data.rows import pseudo_label_names, read_rows
from data.splits import pair_folder
from tests.conftest import run_script
from tests.test_agreement import slow_scores
from utils.add_noise import add_noise, scaled_level
from utils.generate_noisy_label import draw_levels
from utils.get_weight import mixed_rows
from utils.ranking import auprc, auroc, spearman, spearman_interval
from utils.scoring import map_ahead, score_rows


def square(low, high, size=21):
    labels = np.zeros((size, size), np.uint8)
    labels[low:high, low:high] = 1
    return labels


def test_noise_moves_each_edge_by_its_level():
    assert np.array_equal(add_noise(square(8, 13), 3, inward=False), square(5, 16))
    assert np.array_equal(add_noise(square(5, 16), 3, inward=True), square(8, 13))
    assert np.array_equal(add_noise(square(5, 16), 0, inward=True), square(5, 16))


def test_the_frame_does_not_erode_a_region_that_it_cuts():
    labels = np.zeros((9, 9), np.uint8)
    labels[:, 4:] = 1
    expected = np.zeros_like(labels)
    expected[:, 6:] = 1
    assert np.array_equal(add_noise(labels, 2, inward=True), expected)


def test_the_coin_is_fair_and_seeded():
    grown = [add_noise(square(8, 13), 2, np.random.default_rng(seed)).sum() > 25 for seed in range(400)]
    assert 160 < sum(grown) < 240
    assert grown == [add_noise(square(8, 13), 2, np.random.default_rng(seed)).sum() > 25 for seed in range(400)]


def test_multi_class_regions_are_painted_over_each_other_and_ignored_pixels_stay():
    labels = np.zeros((9, 12), np.uint8)
    labels[:, 3:6], labels[:, 6:9], labels[0, :] = 1, 2, 255
    results = {add_noise(labels, 1, np.random.default_rng(seed), inward=False)[4].tobytes() for seed in range(20)}
    later_2 = bytes([0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 0, 0])
    later_1 = bytes([0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 0, 0])
    assert results == {later_2, later_1}
    assert (add_noise(labels, 1, inward=False)[0] == 255).all()
    eroded = add_noise(labels, 1, np.random.default_rng(0), inward=True)
    assert eroded[4].tolist() == [0, 0, 0, 0, 1, 0, 0, 2, 0, 0, 0, 0]


def test_levels_are_spread_evenly_over_a_random_share():
    levels = draw_levels(4500, 0.6, 6, 10, np.random.default_rng(0))
    counts = np.bincount(levels, minlength=11)
    assert counts[0] == 1800 and counts[6:].tolist() == [540] * 5 and counts[1:6].sum() == 0
    assert 0.5 < (levels[:2250] > 0).mean() < 0.7  # a random share, not the first rows


def test_levels_scale_with_the_longer_side():
    assert [scaled_level(level, (321, 200), 321) for level in (0, 6, 10)] == [0, 6, 10]
    assert [scaled_level(level, (112, 160), 321) for level in (6, 8, 10)] == [3, 4, 5]
    assert scaled_level(6, (20, 20), 321) == 1


def test_auroc_by_hand():
    # clean .9 .6 against noisy .5 .6: wins 1 + 1 + 1 + half
    assert auroc(np.array([0.9, 0.6, 0.5, 0.6]), np.array([False, False, True, True])) == 3.5 / 4
    assert auroc(np.array([0.9]), np.array([False])) is None


def test_auprc_by_hand():
    # lowest first: noisy .1 (precision 1), clean .2, then noisy and clean .3 together (precision 2/4): 1 * 1/2 + 2/4 * 1/2
    assert auprc(np.array([0.3, 0.1, 0.2, 0.3]), np.array([True, True, False, False])) == 0.75
    assert auprc(np.array([0.3, 0.1]), np.array([True, True])) is None


def test_the_interval_of_a_spearman_correlation():
    """r = 0.5 of 28: z = 0.5493 -+ 1.96 sqrt(1.125 / 25); and 95 % of drawn samples hold the true correlation, 0.6 of normal
    values, whose ranks correlate by 6 / pi asin(0.3)."""
    assert spearman_interval(0.5, 28) == pytest.approx((0.1327, 0.7465), abs=1e-4)
    assert spearman_interval(None, 9) is None and spearman_interval(0.2, 3) is None and spearman_interval(1.0, 9) == (1, 1)
    dice, right, hits = np.random.default_rng(0), 6 / np.pi * np.arcsin(0.3), 0
    for _ in range(400):
        x, y = dice.normal(size=(2, 42))
        low, high = spearman_interval(spearman(x, 0.6 * x + 0.8 * y), 42)
        hits += low <= right <= high
    assert 0.92 <= hits / 400 <= 0.98


def test_spearman_by_hand():
    assert spearman([0.1, 0.2, 0.9], [1, 2, 3]) == pytest.approx(1)
    assert spearman([3, 2, 1], [0.1, 0.2, 0.9]) == pytest.approx(-1)
    assert spearman([1, 2, 3, 4], [1, 2, 4, 3]) == pytest.approx(1 - 6 * 2 / (4 * 15))  # 1 - 6 sum d^2 / (n (n^2 - 1))
    assert spearman([1, 1, 1], [1, 2, 3]) is None


@pytest.fixture
def planted(photos, tmp_path):
    """Eight real masks as pseudo-labels of themselves, the sixth annotation made coarse."""
    rows = pair_folder(photos).iloc[:8].reset_index(drop=True)
    masks = []
    names = pseudo_label_names(rows)
    for number, row in enumerate(rows.itertuples()):
        labels = read_mask(row.mask)
        write_mask(tmp_path / "pseudo" / names[number], labels)
        masks.append(str(tmp_path / "masks" / f"{number}.png"))
        write_mask(masks[-1], add_noise(labels, 6, inward=True) if number == 5 else labels)
    rows["mask"], rows["iterations"] = masks, [0, 0, 0, 0, 0, 6, 0, 0]
    write_rows(tmp_path / "train.csv", rows, "iterations")
    return tmp_path


def test_weights_of_known_noise(planted):
    run_script("utils/get_weight.py", "--csv", planted / "train.csv", "--known", 0.25, "--out", planted / "known.csv")
    assert read_rows(planted / "known.csv")["weight"].tolist() == [1, 1, 1, 1, 1, 0.25, 1, 1]
    write_rows(planted / "unknown.csv", read_rows(planted / "train.csv"))
    for csv, flags, message in (("unknown", [], "no column `iterations`"),
                                ("train", ["--mix", planted / "train.csv"], "pass --csv and --pred-dir"),
                                ("train", ["--sharpen"], "--sharpen goes with")):
        done = run_script("utils/get_weight.py", "--csv", planted / f"{csv}.csv", "--known", 0, *flags,
                          "--out", planted / "no.csv", check=False)
        assert done.returncode == 2 and message in done.stderr and not (planted / "no.csv").exists()


def test_sharpened_weights_on_the_command_line(planted):
    run_script("utils/get_weight.py", "--csv", planted / "train.csv", "--pred-dir", planted / "pseudo", "--metric", "bf",
               "--sharpen", "--out", planted / "sharp.csv")
    weights = read_rows(planted / "sharp.csv")["weight"]
    assert weights[5 + 2] < 1e-3 and weights.drop(5 + 2).min() > 0.999  # rows are numbered as in the file


@pytest.mark.parametrize("metric", ["miou", "bf", "bm"])
def test_the_planted_mask_gets_the_lowest_weight(planted, metric):
    weights = score_rows(read_rows(planted / "train.csv"), planted / "pseudo", 2, metric, 3.0)
    assert weights.argmin() == 5 and weights[5] < 1
    assert (np.delete(weights, 5) == 1).all()
    rows = read_rows(planted / "train.csv")
    small = score_rows(rows, planted / "pseudo", 2, metric, 3.0, size=[80, 56])
    pseudo = planted / "pseudo" / pseudo_label_names(rows)[5]
    maps = [resize_labels(read_mask(path), (80, 56)) for path in (pseudo, rows["mask"].iloc[5])]
    f1, iou = slow_scores(*maps, 2, 3.0)
    assert small.argmin() == 5
    assert small[5] == pytest.approx({"bf": f1, "miou": iou, "bm": (f1 + iou) / 2}[metric])


def test_get_weight_as_a_user_runs_it(planted):
    out = planted / "train_weight_bfscore.csv"
    command = ["utils/get_weight.py", "--csv", planted / "train.csv", "--pred-dir", planted / "pseudo", "--metric", "bf",
               "--out", out, "--workers", "2"]
    done = run_script(*command)
    assert "noisy masks from untouched ones: AUROC 1.000, AUPRC 1.000" in done.stdout
    rows = read_rows(out, needs_weights=True)
    expected = score_rows(read_rows(planted / "train.csv"), planted / "pseudo", 2, "bf", 3.0)
    np.testing.assert_allclose(rows["weight"], expected)
    assert rows["iterations"].tolist() == [0, 0, 0, 0, 0, 6, 0, 0]  # the noise levels are copied too
    assert json.loads(out.with_suffix(".json").read_text())["auroc"] == 1
    again = run_script(*command, check=False)
    assert again.returncode == 2 and "--overwrite" in again.stderr and "Traceback" not in again.stderr
    broken = next((planted / "pseudo").iterdir())
    broken.write_text("not a picture")
    torn = run_script(*command, "--overwrite", check=False)
    assert torn.returncode == 2 and broken.name in torn.stderr and "Traceback" not in torn.stderr
    (planted / "pseudo").rename(planted / "gone")
    lost = run_script(*command, "--overwrite", check=False)
    assert lost.returncode == 2 and "8 of 8 pseudo-labels are missing" in lost.stderr


def test_parts_scored_apart_join_to_one_whole_run(planted):
    rows = read_rows(planted / "train.csv")
    lines = [",".join((os.path.relpath(row.image, planted), os.path.relpath(row.mask, planted), str(row.iterations)))
             for row in rows.itertuples()]
    (planted / "beside.csv").write_text("\n".join(["img,filename,iterations", *lines]) + "\n")  # paths from the CSV's folder
    command = ["utils/get_weight.py", "--csv", planted / "beside.csv", "--pred-dir", planted / "pseudo", "--metric", "bm"]
    run_script(*command, "--out", planted / "whole.csv")
    join = ["utils/get_weight.py", "--join", "--out", planted / "apart.csv"]
    for part in (2, 3):
        run_script(*command, "--out", planted / "apart.csv", "--shard", f"{part}/3")
    early = run_script(*join, check=False)
    assert early.returncode == 2 and "1 of 3 parts are missing, first --shard 1/3" in early.stderr
    run_script(*command[:-1], "miou", "--out", planted / "apart.csv", "--shard", "1/3")
    unlike = run_script(*join, check=False)
    assert unlike.returncode == 2 and "'metric': 'miou'" in unlike.stderr and not (planted / "apart.csv").exists()
    run_script(*command, "--out", planted / "apart.csv", "--shard", "1/3", "--overwrite")
    assert len(read_rows(planted / "apart.part3of3.csv")) == 2  # of 8 rows, the 3rd and the 6th
    run_script(*join)
    assert (planted / "apart.csv").read_bytes() == (planted / "whole.csv").read_bytes()
    whole, apart = (json.loads((planted / f"{name}.json").read_text()) for name in ("whole", "apart"))
    assert all(whole[key] == apart[key] for key in ("rows", "levels", "auroc", "metric", "csv", "pred_dir"))
    for wrong in ("0/3", "4/3", "3", "a/b"):
        assert "is not I/N" in run_script(*command, "--out", planted / "x.csv", "--shard", wrong, check=False).stderr


@pytest.mark.parametrize("workers", [0, 2])
def test_the_torn_file_is_named_whoever_scores_it(planted, workers):
    rows = read_rows(planted / "train.csv")
    torn = planted / "pseudo" / pseudo_label_names(rows)[3]
    torn.write_bytes(torn.read_bytes()[:60])
    with pytest.raises(UserError, match=torn.name):
        score_rows(rows, planted / "pseudo", 2, "bm", 3.0, workers=workers)


def test_what_is_computed_ahead_comes_whole_in_order_and_not_far_ahead():
    begun = []

    def double(number):
        begun.append(number)
        return 2 * number

    for taken, value in enumerate(map_ahead(double, range(30), count=5)):
        assert value == 2 * taken and len(begun) <= taken + 6
    assert begun == list(range(30)) and list(map_ahead(double, [])) == []


def test_several_teachers_are_averaged_row_by_row(planted):
    rows = read_rows(planted / "train.csv")
    for name, weight in (("a", 0.25), ("b", 0.75)):
        write_rows(planted / f"{name}.csv", rows.assign(weight=weight), "weight")
    assert (mixed_rows([planted / "a.csv", planted / "b.csv"])["weight"] == 0.5).all()
    write_rows(planted / "c.csv", rows.iloc[::-1].assign(weight=0.5), "weight")
    with pytest.raises(UserError, match="c.csv: holds other rows"):
        mixed_rows([planted / "a.csv", planted / "c.csv"])


def test_noisy_set_on_the_command_line(photos, tmp_path):
    run_script("data/prepare_folder.py", photos, "--out", tmp_path / "csv", "--limit", 20)
    run_script("utils/generate_noisy_label.py", "--csv", tmp_path / "csv/train.csv", "--out", tmp_path / "noisy.csv",
               "--ratio", 0.5, "--seed", 3)
    clean, noisy = read_rows(tmp_path / "csv/train.csv"), read_rows(tmp_path / "noisy.csv")
    assert (noisy["iterations"] > 0).sum() == 7 and noisy["image"].equals(clean["image"])
    for before, after in zip(clean.itertuples(), noisy.itertuples()):
        changed = not np.array_equal(read_mask(before.mask), read_mask(after.mask))
        assert changed == (after.iterations > 0)


def test_add_noise_on_the_command_line(photos, tmp_path):
    mask = pair_folder(photos)["mask"][0]
    run_script("utils/add_noise.py", mask, "--out", tmp_path / "n.png", "--iterations", 4, "--sheet", tmp_path / "s.png")
    before, after = torch.from_numpy(read_mask(mask)), torch.from_numpy(read_mask(tmp_path / "n.png"))
    assert before.shape == after.shape and not torch.equal(before, after)
    assert (tmp_path / "s.png").stat().st_size > 1000


@pytest.mark.slow
def test_the_truth_tells_how_well_the_weights_rank(planted):
    """Annotations grown by 0, 1, ... 7 px: a teacher with the true masks ranks them correctly, one
    whose masks are grown by 7 px ranks them in reverse, and one that copies them gives no ranking."""
    rows = read_rows(planted / "train.csv")
    names = pseudo_label_names(rows)
    for number, (mask, name) in enumerate(zip(rows["mask"], names)):
        labels = resize_labels(read_mask(planted / "pseudo" / names[0]), (96, 64))
        for path, level in ((mask, number), (planted / "pseudo" / name, 0), (planted / "grown" / name, 7),
                            (planted / "imitated" / name, number)):
            write_mask(path, add_noise(labels, level, inward=False))
    truth = rows.assign(mask=[str(planted / "truth" / name) for name in names])
    (planted / "pseudo").rename(planted / "truth")
    write_rows(planted / "truth.csv", truth)

    def correlation(teacher, truth_csv="truth.csv", **options):
        done = run_script("utils/get_weight.py", "--csv", planted / "train.csv", "--pred-dir", planted / teacher, "--metric",
                          "miou", "--truth", planted / truth_csv, "--out", planted / "w.csv", "--overwrite", **options)
        return done, json.loads((planted / "w.json").read_text())["spearman"]

    done, right = correlation("truth")
    assert right == pytest.approx(1) and "does: 1.000" in done.stdout
    assert correlation("grown")[1] == pytest.approx(-1)
    assert correlation("imitated")[1] is None
    write_rows(planted / "other.csv", truth.iloc[::-1])
    wrong, _ = correlation("truth", "other.csv", check=False)
    assert wrong.returncode == 2 and "holds other images" in wrong.stderr
