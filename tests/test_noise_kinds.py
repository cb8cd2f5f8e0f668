"""Kinds of noise by hand-made maps and on real masks; label maps without a background; legends."""

import json

import cv2
import numpy as np
import pytest
import torch

from cli.files import UserError, write_json
from data.legend import Legend, read_legend, write_legend
from data.pictures import read_mask
from data.rows import read_rows
from data.splits import pair_folder
from tests.conftest import run_script
from utils.add_noise import KINDS, _closed_walk, add_noise, polygon, score_levels
from utils.agreement import bf


def rng(seed=0):
    return np.random.default_rng(seed)


def disc(radius, size=61):
    y, x = np.mgrid[:size, :size] - size // 2
    return (x**2 + y**2 <= radius**2).astype(np.uint8)


def vertices(region):
    return sum(len(cv2.approxPolyDP(c, 1, True)) for c in cv2.findContours(region, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)[0])


# --- polygons ---------------------------------------------------------------------------------------------------


def test_a_polygon_stays_as_it_is_holes_islands_and_frame_too():
    labels = np.zeros((30, 40), np.uint8)
    labels[3:27, 3:37] = 1
    labels[8:22, 8:32] = 0
    labels[12:18, 15:25] = 1
    cut = np.zeros((12, 20), np.uint8)
    cut[:, 12:] = 1
    cut[5:8, 15:18] = 0
    for map_ in (labels, 1 - labels, cut, 1 - cut, np.ones_like(cut), np.zeros_like(cut)):
        assert np.array_equal(polygon(map_, 1, None, None), map_)


def test_a_redrawn_outline_has_few_vertices_and_stays_within_epsilon():
    region = disc(25)
    coarse = polygon(region, 4, None, None)
    assert 3 <= vertices(coarse) <= 8 < 12 <= vertices(region)
    away = cv2.distanceTransform(1 - region, cv2.DIST_L2, 5), cv2.distanceTransform(region, cv2.DIST_L2, 5)
    wrong = coarse != region
    assert wrong.any() and np.where(region > 0, away[1], away[0])[wrong].max() <= 5.5  # epsilon, and a pixel for the raster


def test_regions_too_small_for_a_polygon_are_missed():
    labels = disc(20)
    labels[2:4, 2:4] = 1
    assert not polygon(labels, 3, None, None)[:8, :8].any()


# --- walks ------------------------------------------------------------------------------------------------------


def test_a_walk_is_closed_correlated_and_as_wide_as_asked():
    walks = np.array([_closed_walk(400, 32, 4, rng(seed)) for seed in range(200)])
    assert abs(walks.mean()) < 0.5 and 2 < walks.std() < 4.5
    steps = np.abs(np.diff(np.concatenate([walks, walks[:, :1]], axis=1), axis=1))  # the last step closes the walk
    assert steps.max() < 1.5  # neighbours move alike

    def correlation(lag):
        return (walks * np.roll(walks, lag, axis=1)).mean() / walks.var()

    assert correlation(4) > 0.8 > 0.35 > correlation(100)


def test_a_walking_outline_leans_out_or_in_by_half_the_level():
    region = disc(40, 121)
    radius = {inward: np.mean([np.sqrt(KINDS["markov"](region, 8, rng(seed), inward).sum() / np.pi) for seed in range(20)])
              for inward in (True, False)}
    assert radius[False] - 40 == pytest.approx(4, abs=1.5) and 40 - radius[True] == pytest.approx(4, abs=1.5)
    both = KINDS["markov"](region, 8, rng(1), False) != KINDS["morphology"](region, 4, None, False)
    assert both.any()  # it wanders, it does not just grow


# --- all kinds --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_noise_is_seeded_keeps_ignored_pixels_and_grows_with_its_level(photos, kind):
    masks = pair_folder(photos)["mask"].iloc[:6].tolist()
    labels = read_mask(masks[0])
    labels[:7] = 255
    assert np.array_equal(add_noise(labels, 6, rng(3), kind), add_noise(labels, 6, rng(3), kind))
    assert (add_noise(labels, 6, rng(3), kind)[:7] == 255).all() and np.array_equal(add_noise(labels, 0, rng(3), kind), labels)
    scores = score_levels(masks, 2, 0, 3.0, seed=0, levels=(2, 6, 10))[kind]
    assert 1 > scores["2"]["miou"] > scores["6"]["miou"] > scores["10"]["miou"]
    assert 1 > scores["2"]["bf"] > scores["6"]["bf"] >= scores["10"]["bf"]  # which may be 0 already
    noisy = [add_noise(read_mask(mask), 6, rng(k), kind) for k, mask in enumerate(masks)]
    pair = torch.from_numpy(noisy[0])[None], torch.from_numpy(read_mask(masks[0]))[None]
    assert bf(*pair, 2).item() < 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("inward", [True, False])
def test_without_a_background_every_pixel_stays_a_class_of_the_map(kind, inward):
    labels = np.zeros((40, 60), np.uint8)
    labels[:, 20:40], labels[10:20, 40:], labels[30:, :15], labels[0, :5] = 1, 2, 3, 255
    for seed in range(5):
        noisy = add_noise(labels, 3, rng(seed), kind, None, inward)
        assert set(np.unique(noisy)) <= {0, 1, 2, 3, 255} and np.array_equal(noisy == 255, labels == 255)
        if kind != "polygon":  # these outlines are polygons already
            assert (noisy != labels).any()


def test_erosion_without_a_background_hands_the_edge_to_a_neighbour_and_loses_thin_things():
    labels = np.zeros((12, 40), np.uint8)
    labels[:, 20:] = 1
    labels[:, 9:12] = 2  # a pole
    results = [add_noise(labels, 2, rng(seed), "morphology", None, True)[6] for seed in range(30)]
    edges = {int((row == 1).sum()) for row in results}
    assert edges == {18, 22}  # two pixels won or lost, by the order of painting
    assert all((row != 2).all() for row in results)
    thick = [add_noise(labels, 2, rng(seed), "morphology", None, False)[6] for seed in range(30)]
    assert {int((row == 2).sum()) for row in thick} == {0, 3 + 4}  # wider, or painted over from both sides


@pytest.mark.slow
def test_noise_of_street_scenes(real_datasets, tmp_path):
    labels = sorted((real_datasets / "camvid" / "train" / "labels").iterdir())[0]
    out = tmp_path / "noisy.png"
    for kind in KINDS:
        run_script("utils/add_noise.py", labels, "--num-classes", 11, "--background", "none", "--noise", kind, "--level", 6,
                   "--out", out, "--overwrite")
        before, after = read_mask(labels, 11), read_mask(out, 11)
        assert np.array_equal(before == 255, after == 255)
        share = (before != after).mean()
        assert 0.005 < share < 0.3, (kind, share)


@pytest.mark.slow
def test_levels_are_scored_and_drawn_on_the_command_line(photos, tmp_path):
    folder = tmp_path / "masks"
    folder.mkdir()
    for mask in pair_folder(photos)["mask"].iloc[:3]:
        (folder / mask.rsplit("/", 1)[1]).symlink_to(mask)
    done = run_script("utils/add_noise.py", folder, "--table", tmp_path / "levels.json", "--sheet", tmp_path / "levels.png")
    scores = json.loads((tmp_path / "levels.json").read_text())["levels"]
    assert f"{100 * scores['polygon']['10']['miou']:.1f} / {100 * scores['polygon']['10']['bf']:.1f} |" in done.stdout
    sheet = cv2.imread(str(tmp_path / "levels.png"))
    assert sheet.shape[0] == 5 * (160 + 26)
    run_script("data/prepare_folder.py", photos, "--out", tmp_path / "csv", "--limit", 12)
    run_script("utils/generate_noisy_label.py", "--csv", tmp_path / "csv" / "train.csv", "--out", tmp_path / "noisy.csv",
               "--noise", "polygon", "--ratio", 1)
    clean, noisy = read_rows(tmp_path / "csv" / "train.csv"), read_rows(tmp_path / "noisy.csv")
    assert all(vertices(read_mask(b)) < vertices(read_mask(a)) for a, b in zip(clean["mask"], noisy["mask"]))
    wrong = run_script("utils/add_noise.py", folder, "--out", tmp_path / "x", "--background", "999", check=False)
    assert wrong.returncode == 2 and "--background" in wrong.stderr


# --- legends ----------------------------------------------------------------------------------------------------


def test_legends_by_hand(tmp_path):
    write_legend(tmp_path, ["sky", "road", "car"], [(1, 2, 3), (4, 5, 6), (7, 8, 9)])
    legend = read_legend(tmp_path / "classes.json", 3)
    assert legend.names == ["sky", "road", "car"]
    assert legend.paint(np.array([[0, 2, 255]], np.uint8)).tolist() == [[[1, 2, 3], [7, 8, 9], [255, 255, 255]]]
    write_legend(tmp_path, ["sky", "road", "car"], [(9, 9, 9)] * 3)  # a second call keeps colours that may be the user's own
    assert read_legend(tmp_path / "classes.json", 3).colours.tolist() == legend.colours.tolist()
    with pytest.raises(UserError, match="exists with other names; pass --overwrite"):
        write_legend(tmp_path, ["sky", "road"])
    write_legend(tmp_path, ["sky", "road", "car"], [(9, 9, 9)] * 3, overwrite=True)
    assert read_legend(tmp_path / "classes.json", 3).colours.tolist() == [[9, 9, 9]] * 3
    with pytest.raises(UserError, match="names 3 classes, --num-classes is 4"):
        read_legend(tmp_path / "classes.json", 4)
    write_json(tmp_path / "list.json", [1, 2])
    with pytest.raises(UserError, match="key `names` is missing"):
        read_legend(tmp_path / "list.json", 2)
    plain = Legend(19)
    assert len({tuple(colour) for colour in plain.colours.tolist()}) == 19 and plain.names[3] == "class 3"
    image = np.full((10, 10, 3), 100, np.uint8)
    labels = np.zeros((10, 10), np.uint8)
    labels[:, 5:] = 1
    tinted = Legend(2, colours=[[0, 0, 0], [200, 0, 0]]).overlay(image, labels, strength=0.5)
    assert tinted[5, 0].tolist() == [100, 100, 100] and tinted[5, 7].tolist() == [150, 50, 50]
