"""Prepare scripts on small trees of the real layouts: outputs and refusals; a second call changes nothing."""

import base64
import json
import zlib
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torchvision

from cli.files import UserError
from data.legend import read_legend
from data.pictures import read_mask, write_image, write_mask
from data.prepare_cityscapes import CLASSES, TRAIN_ID
from data.rows import check_rows, read_rows
from data.splits import download, split_rows
from tests.conftest import run_script

PICTURE = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)


def image(path):
    write_image(path, PICTURE)


def labels(path, values):
    """A mask file with these values, as they are."""
    write_image(path, np.asarray(values, np.uint8))


def full(value):
    return np.full((20, 30), value, np.uint8)


def content(folder):
    """Bytes and times of all files below a folder."""
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def prepare(script, source, out, *flags, csvs=("train", "valid", "test"), num_classes=2):
    """Run a script twice; its CSVs must be readable, and the second call must leave masks alone and CSVs equal.

    Returns:
        dict of split -> rows.
    """
    call = (f"data/{script}.py", source, "--out", out, *flags)
    run_script(*call)
    before = content(out)
    run_script(*call)
    after = content(out)
    assert {path: data for path, (data, _) in before.items()} == {path: data for path, (data, _) in after.items()}
    pictures = [path for path in before if path.suffix == ".png"]
    assert all(before[path] == after[path] for path in pictures)
    if pictures:  # one that is missing is made again
        pictures[0].unlink()
        run_script(*call)
        assert pictures[0].read_bytes() == before[pictures[0]][0]
    rows = {split: read_rows(out / f"{split}.csv") for split in csvs}
    for split, part in rows.items():
        check_rows(split, part, num_classes)
    return rows


def refused(script, source, out, *words, flags=()):
    """The script ends with code 2 and one line that holds these words, and writes nothing."""
    done = run_script(f"data/{script}.py", source, "--out", out, *flags, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert all(word in done.stderr for word in words), done.stderr
    assert not out.exists()


# --- Supervisely ------------------------------------------------------------------------------------------------


def packed(shape):
    """A bitmap as Supervisely stores it: PNG, zlib, base64."""
    return base64.b64encode(zlib.compress(cv2.imencode(".png", shape)[1].tobytes())).decode()


def supervisely_tree(root, objects):
    """Two data sets with one annotated image each, and more images to split."""
    (root / "meta.json").parent.mkdir(parents=True)
    (root / "meta.json").write_text("{}")
    for dataset in ("ds1", "ds2"):
        for number in range(3):
            image(root / dataset / "img" / f"{number}.png")
            annotation = {"size": {"height": 20, "width": 30}, "objects": objects}
            path = root / dataset / "ann" / (f"{number}.png.json" if dataset == "ds1" else f"{number}.json")
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(annotation))
    return root


def test_supervisely_bitmaps_and_polygons(tmp_path):
    alpha = np.zeros((4, 5, 4), np.uint8)
    alpha[1:, :, 3] = 255
    objects = [
        {"classTitle": "person_poly", "bitmap": None, "points": {"exterior": [[2, 2], [11, 2], [11, 11], [2, 11]],
                                                                "interior": [[[5, 5], [7, 5], [7, 7], [5, 7]]]}},
        {"classTitle": "person_bmp", "bitmap": {"data": packed(np.full((3, 4), 255, np.uint8)), "origin": [20, 10]},
         "points": {"exterior": [], "interior": []}},
        {"classTitle": "person_bmp", "bitmap": {"data": packed(alpha), "origin": [27, 18]}},  # cut by the frame
        {"classTitle": "neutral", "points": {"exterior": [[0, 15], [4, 15], [4, 19], [0, 19]], "interior": []}},
    ]
    rows = prepare("prepare_supervisely", supervisely_tree(tmp_path / "project", objects), tmp_path / "out", "--size", 20, 30)
    expected = np.zeros((20, 30), np.uint8)
    expected[2:12, 2:12] = 1
    expected[5:8, 5:8] = 0
    expected[10:13, 20:24] = 1
    expected[19, 27:30] = 1
    expected[15:20, 0:5] = 255
    names = [path.rsplit("/", 1)[1] for part in rows.values() for path in part["mask"]]
    assert sorted(names) == [f"ds{k}__{number}.png" for k in (1, 2) for number in range(3)]
    for part in rows.values():
        for row in part.itertuples():
            assert np.array_equal(read_mask(row.mask), expected)
            assert np.array_equal(cv2.imread(row.image)[:, :, ::-1], PICTURE)


def test_supervisely_resizes_and_chooses_the_foreground(tmp_path):
    objects = [{"classTitle": title, "points": {"exterior": [[x, 0], [x + 9, 0], [x + 9, 19], [x, 19]], "interior": []}}
               for title, x in (("person", 0), ("dog", 20))]
    rows = prepare("prepare_supervisely", supervisely_tree(tmp_path / "project", objects), tmp_path / "out", "--size", 40, 60,
                   "--foreground", "person")
    mask = read_mask(rows["test"]["mask"].iloc[0])
    assert mask.shape == (40, 60) and mask[:, :20].all() and not mask[:, 20:].any()


def test_supervisely_pictures_and_classes_fit_their_annotations(tmp_path):
    root = supervisely_tree(tmp_path / "project", [])
    (root / "meta.json").write_text(json.dumps({"classes": [{"title": "person_poly"}, {"title": "neutral"}]}))
    for flags, words in ((["--foreground", "person"], "--foreground person: meta.json of"),
                         (["--ignore", "dog"], "--ignore dog: meta.json of")):
        done = run_script("data/prepare_supervisely.py", root, "--out", tmp_path / "out", *flags, check=False)
        assert done.returncode == 2 and words in done.stderr and "there are person_poly, neutral" in done.stderr
    (root / "ds1" / "ann" / "1.png.json").write_text(json.dumps({"size": {"height": 30, "width": 20}, "objects": []}))
    done = run_script("data/prepare_supervisely.py", root, "--out", tmp_path / "out", check=False)
    assert done.returncode == 2 and "1.png.json" in done.stderr and "the picture" in done.stderr, done.stderr


@pytest.mark.parametrize("item, words", [
    ({"classTitle": "person", "bitmap": {"data": "no base64 of a png", "origin": [0, 0]}}, ["not a Supervisely annotation"]),
    ({"classTitle": "person", "points": {"exterior": [[1, 1]], "interior": []}}, ["object 0", "neither a bitmap nor"]),
    ({"classTitle": "person", "bitmap": {"data": base64.b64encode(zlib.compress(bytes(1 << 27))).decode(), "origin": [0, 0]}},
     ["more than 67108864 bytes"]),
    ({"bitmap": None}, ["KeyError", "classTitle"])])
def test_supervisely_faults_name_the_file(tmp_path, item, words):
    root = supervisely_tree(tmp_path / "project", [item])
    done = run_script("data/prepare_supervisely.py", root, "--out", tmp_path / "out", check=False)
    assert done.returncode == 2 and ".json" in done.stderr and "Traceback" not in done.stderr
    assert all(word in done.stderr for word in words), done.stderr
    assert not (tmp_path / "out" / "train.csv").exists()


def test_the_papers_split_of_supervisely():
    parts = split_rows(pd.DataFrame({"image": range(5711)}), 0.0876, 0.1245, seed=0)
    assert [len(parts[split]) for split in ("train", "valid", "test")] == [4500, 500, 711]


# --- the others -------------------------------------------------------------------------------------------------


def cityscapes_tree(root):
    for split, cities in (("train", ("aachen", "bonn")), ("val", ("ulm",))):
        for city in cities:
            for number in range(2):
                stem = f"{city}_{number:06d}_000019"
                image(root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png")
                ids = full(7)
                ids[:5], ids[5:8], ids[8:9] = 33, 0, 255  # bicycle, unlabelled, licence plate
                labels(root / "gtFine" / split / city / f"{stem}_gtFine_labelIds.png", ids)
                labels(root / "gtCoarse" / split / city / f"{stem}_gtCoarse_labelIds.png", full(26))
    return root


def test_cityscapes(tmp_path):
    root = cityscapes_tree(tmp_path / "cityscapes")
    rows = prepare("prepare_cityscapes", root, tmp_path / "coarse", "--annotations", "coarse", num_classes=19,
                   csvs=("train", "valid", "test", "train_truth", "valid_truth"))
    assert [len(part) for part in rows.values()] == [3, 1, 2, 3, 1]
    assert rows["train"]["image"].tolist() == rows["train_truth"]["image"].tolist()
    expected = full(0)
    expected[:5], expected[5:9] = 18, 255
    for split in ("test", "train_truth", "valid_truth"):
        assert np.array_equal(read_mask(rows[split]["mask"].iloc[0], 19), expected)
    assert np.array_equal(read_mask(rows["train"]["mask"].iloc[0], 19), full(13))  # car
    legend = read_legend(tmp_path / "coarse" / "classes.json", 19)
    assert legend.names[13] == "car" and legend.paint(full(18))[0, 0].tolist() == [119, 11, 32]
    fine = prepare("prepare_cityscapes", root, tmp_path / "fine", num_classes=19)
    assert np.array_equal(read_mask(fine["train"]["mask"].iloc[0], 19), expected)


def test_cityscapes_train_ids_are_the_official_ones():
    assert len(CLASSES) == 19 and [label for label in range(256) if TRAIN_ID[label] != 255] == [
        7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]


def test_oxford_pet(tmp_path):
    home = tmp_path / "pets" / "oxford-iiit-pet"
    for split, stems in (("trainval", ["Abyssinian_1", "beagle_2", "pug_3"]), ("test", ["pug_4"])):
        for stem in stems:
            image(home / "images" / f"{stem}.jpg")
            trimap = full(2)
            trimap[5:10], trimap[10:12] = 1, 3
            labels(home / "annotations" / "trimaps" / f"{stem}.png", trimap)
        (home / "annotations" / f"{split}.txt").write_text("#comment\n" + "".join(f"{stem} 1 1 1\n" for stem in stems))
    rows = prepare("prepare_oxford_pet", tmp_path / "pets", tmp_path / "out")
    assert [len(part) for part in rows.values()] == [2, 1, 1]
    expected = full(0)
    expected[5:10], expected[10:12] = 1, 255
    for part in rows.values():
        assert np.array_equal(read_mask(part["mask"].iloc[0]), expected)


@pytest.mark.parametrize("folders", [("{0}", "{0}annot"), ("{0}/images", "{0}/labels")])
def test_camvid(tmp_path, folders):
    for split in ("train", "val", "test"):
        for number in range(2):
            image(tmp_path / "CamVid" / folders[0].format(split) / f"{split}_{number}.png")
            values = full(8)
            values[:5], values[5:7] = 0, 11
            labels(tmp_path / "CamVid" / folders[1].format(split) / f"{split}_{number}.png", values)
    rows = prepare("prepare_camvid", tmp_path / "CamVid", tmp_path / "out", num_classes=11)
    expected = full(8)
    expected[:5], expected[5:7] = 0, 255
    assert [len(part) for part in rows.values()] == [2, 2, 2]
    assert np.array_equal(read_mask(rows["valid"]["mask"].iloc[0], 11), expected)
    assert read_legend(tmp_path / "out" / "classes.json", 11).names[8] == "car"


def test_real_camvid(real_datasets, tmp_path):
    rows = prepare("prepare_camvid", real_datasets / "camvid", tmp_path / "out", num_classes=11)
    assert [len(part) for part in rows.values()] == [367, 101, 233]


def test_coarse_and_fine(tmp_path):
    for number in range(6):
        stem = f"{'test' if number < 2 else 'train'}_{number}"
        image(tmp_path / "faces" / "images" / f"{stem}.jpg")
        for folder, value in (("coarse", 1), ("fine", 2)):
            write_mask(tmp_path / "faces" / folder / f"{stem}.png", full(value), 6)
    names = ("train", "valid", "test", "train_truth", "valid_truth")
    rows = prepare("prepare_coarse_fine", tmp_path / "faces", tmp_path / "out", "--test-names", "test_*", csvs=names,
                   num_classes=6)
    assert [len(rows[name]) for name in names] == [3, 1, 2, 3, 1]
    assert all("test_" in path for path in rows["test"]["image"])
    for split in ("train", "valid"):
        assert rows[split]["image"].tolist() == rows[f"{split}_truth"]["image"].tolist()
    assert {name: int(read_mask(rows[name]["mask"].iloc[0], 6)[0, 0]) for name in names} == {
        "train": 1, "valid": 1, "test": 2, "train_truth": 2, "valid_truth": 2}
    other = run_script("data/prepare_coarse_fine.py", tmp_path / "faces", "--out", tmp_path / "out", check=False)
    assert other.returncode == 2 and "other flags" in other.stderr and "--overwrite" in other.stderr
    run_script("data/prepare_coarse_fine.py", tmp_path / "faces", "--out", tmp_path / "out", "--overwrite")


@pytest.mark.parametrize("names", ["best_*", "list.txt"])
def test_the_test_rows_of_a_folder_may_be_named(tmp_path, names):
    """By a pattern, or by a list of stems and file names, blanks in them included; --limit leaves them alone."""
    stems = ["best_1", "best 2", "best_3"] if names == "list.txt" else ["best_1", "best_2", "best_3"]
    for stem in [*stems, *"abcdefgh"]:
        image(tmp_path / "mine" / "images" / f"{stem}.jpg")
        labels(tmp_path / "mine" / "masks" / f"{stem}.png", full(255))
    (tmp_path / "list.txt").write_text("best_1\n# a comment\nbest 2.jpg\n\nbest_3\n")
    named = str(tmp_path / names) if names == "list.txt" else names
    rows = prepare("prepare_folder", tmp_path / "mine", tmp_path / "out", "--test-names", named, "--limit", 5)
    found = {split: [Path(path).stem for path in part["image"]] for split, part in rows.items()}
    assert sorted(found["test"]) == sorted(stems) and [len(found[split]) for split in ("train", "valid")] == [4, 1]
    assert not {*found["train"], *found["valid"]} & set(stems) and found["train"] == sorted(found["train"])
    assert len({*found["train"], *found["valid"]}) == 5


@pytest.mark.parametrize("script, words", [
    ("prepare_supervisely", ["meta.json", "ann/NAME.jpg.json"]), ("prepare_cityscapes", ["leftImg8bit", "gtFine_labelIds.png"]),
    ("prepare_voc", ["VOCdevkit/VOC2012", "ImageSets/Segmentation"]), ("prepare_camvid", ["trainannot", "images,labels"]),
    ("prepare_oxford_pet", ["oxford-iiit-pet", "trimaps"]), ("prepare_coarse_fine", ["images", "no such folder"])])
def test_a_wrong_tree_is_refused_and_told_what_was_looked_for(tmp_path, script, words):
    image(tmp_path / "tree" / "photos" / "0.jpg")
    refused(script, tmp_path / "tree", tmp_path / "out", *words)


def test_a_missing_file_is_named(tmp_path):
    root = cityscapes_tree(tmp_path / "cityscapes")
    missing = "bonn_000001_000019_gtFine_labelIds.png"
    (root / "gtFine" / "train" / "bonn" / missing).unlink()
    refused("prepare_cityscapes", root, tmp_path / "out", missing)


def test_downloads_go_through_torchvision_and_say_when_they_fail(tmp_path, monkeypatch):
    def fetch(folder, year, image_set, download):
        assert (folder, year, image_set, download) == (tmp_path, "2012", "trainval", True)
        raise OSError("no network")

    monkeypatch.setattr(torchvision.datasets, "VOCSegmentation", fetch)
    with pytest.raises(UserError, match="VOCSegmentation could not be fetched.*no network.*by hand"):
        download("VOCSegmentation", tmp_path, year="2012", image_set="trainval")

