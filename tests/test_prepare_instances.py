"""prepare_cityscapes.py --instances, prepare_voc.py --instances and prepare_coco.py: COCO JSONs that the task reads."""

import json
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image

from data.instances import check_instance_files, decoded, read_categories, read_instances
from tests.conftest import run_script
from tests.script_calls import run
from tests.test_instances import write_set
from tests.test_prepare import cityscapes_tree, image

CITY_CLASSES = {24: "person", 25: "rider", 26: "car", 27: "truck", 28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle"}


def masks_of(row):
    return [(each["label"], each["iscrowd"], decoded(each["segmentation"], row.height, row.width)) for each in row.instances]


@pytest.fixture
def cityscapes(tmp_path):
    """A tree in whose pictures lie a car (rows 0-4), another one (5-9), persons that nobody told apart (10-11), and a road."""
    root = cityscapes_tree(tmp_path / "cityscapes")
    for path in sorted(root.glob("gtFine/*/*/*_labelIds.png")):
        numbers = np.full((20, 30), 7, np.uint16)
        numbers[:5], numbers[5:10], numbers[10:12] = 26000, 26001, 24
        cv2.imwrite(str(path).replace("labelIds", "instanceIds"), numbers)
    return root


def test_cityscapes(cityscapes, tmp_path):
    flags = ("data/prepare_cityscapes.py", cityscapes, "--out", tmp_path / "out", "--instances")
    run_script(*flags)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    run_script(*flags)
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert not list((tmp_path / "out").glob("*.csv"))
    for split, count in (("train", 3), ("valid", 1), ("test", 2)):
        path = tmp_path / "out" / f"{split}.json"
        rows = read_instances(path)
        check_instance_files(path, rows)
        assert len(rows) == count and read_categories(path) == (list(CITY_CLASSES.values()), list(CITY_CLASSES))
        for row in rows.itertuples():
            (_, crowd, persons), (car, _, first), (other, _, second) = masks_of(row)
            assert (car, other, crowd) == (3, 3, 1)
            assert first[:5].all() and first.sum() == 150 and second[5:10].all() and second.sum() == 150
            assert persons[10:12].all() and persons.sum() == 60
            assert row.instances[2]["bbox"] == [0, 5, 30, 5]


def test_coarse_annotations_have_no_instances(cityscapes, tmp_path, monkeypatch, capsys):
    code, error = run(monkeypatch, capsys, tmp_path, "data/prepare_cityscapes.py", cityscapes, "--out", tmp_path / "out",
                      "--instances", "--annotations", "coarse")
    assert code == 2 and "--annotations coarse: has no instances" in error
    shutil.rmtree(cityscapes / "gtFine" / "val")
    code, error = run(monkeypatch, capsys, tmp_path, "data/prepare_cityscapes.py", cityscapes, "--out", tmp_path / "out",
                      "--instances")
    assert code == 2 and "instanceIds.png" in error


def test_voc(tmp_path):
    home = tmp_path / "voc" / "VOCdevkit" / "VOC2012"
    objects, classes = np.zeros((20, 30), np.uint8), np.zeros((20, 30), np.uint8)
    objects[:5], objects[8:12], objects[5] = 1, 2, 255
    classes[:5], classes[8:11], classes[11], classes[5] = 15, 3, 4, 255  # person; bird, a row of boat
    for split, stems in (("train", ["a", "b", "c"]), ("val", ["d"])):
        (home / "ImageSets" / "Segmentation").mkdir(parents=True, exist_ok=True)
        (home / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("\n".join(stems) + "\n")
        for stem in stems:
            image(home / "JPEGImages" / f"{stem}.jpg")
            for folder, values in (("SegmentationObject", objects), ("SegmentationClass", classes)):
                picture = Image.fromarray(values, "P")
                picture.putpalette(sum(([i, 255 - i, i // 2] for i in range(256)), []))
                (home / folder).mkdir(exist_ok=True)
                picture.save(home / folder / f"{stem}.png")
    run_script("data/prepare_voc.py", tmp_path / "voc", "--out", tmp_path / "out", "--instances")
    rows = read_instances(tmp_path / "out" / "test.json")
    (person, _, first), (bird, _, second) = masks_of(next(rows.itertuples()))
    assert (person, bird) == (15, 3) and np.array_equal(first, objects == 1) and np.array_equal(second, objects == 2)
    assert len(read_categories(tmp_path / "out" / "train.json")[0]) == 20


def test_any_coco_json_is_split_by_picture(tmp_path):
    content = write_set(tmp_path, pictures=10)
    run_script("data/prepare_coco.py", tmp_path / "set.json", "--out", tmp_path / "out", "--test", 0.3, "--valid", 0.2)
    parts = {split: json.loads((tmp_path / "out" / f"{split}.json").read_text()) for split in ("train", "valid", "test")}
    assert [len(part["images"]) for part in parts.values()] == [5, 2, 3]
    assert sorted(each["id"] for part in parts.values() for each in part["images"]) == list(range(1, 11))
    of = {each["id"]: each for each in content["annotations"]}
    for split, part in parts.items():
        assert part["annotations"] == [of[each["id"]] for each in part["annotations"]]
        assert part["categories"] == content["categories"]
        assert {each["image_id"] for each in part["annotations"]} == {each["id"] for each in part["images"]}
        read_instances(tmp_path / "out" / f"{split}.json")


def test_two_images_of_one_file_are_refused(tmp_path, monkeypatch, capsys):
    content = write_set(tmp_path)
    content["images"][2]["file_name"] = "images/../images/1.png"
    (tmp_path / "set.json").write_text(json.dumps(content))
    code, error = run(monkeypatch, capsys, tmp_path, "data/prepare_coco.py", "set.json", "--out", "out")
    assert code == 2 and "set.json: images 1 and 3 are one file, " in error and not (tmp_path / "out").exists(), error


def test_super_categories_become_classes(tmp_path, monkeypatch, capsys):
    content = write_set(tmp_path)
    for each, group in zip(content["categories"], ("pet", "pet", "cattle")):
        each["supercategory"] = group
    (tmp_path / "set.json").write_text(json.dumps(content))
    run_script("data/prepare_coco.py", tmp_path / "set.json", "--out", tmp_path / "out", "--test", 0, "--groups")
    assert read_categories(tmp_path / "out" / "train.json") == (["cattle", "pet"], [1, 2])
    found = json.loads((tmp_path / "out" / "train.json").read_text())["annotations"]
    assert [each["category_id"] for each in found] == [1 if each["category_id"] == 9 else 2 for each in content["annotations"]]
    content["categories"][0].pop("supercategory")
    (tmp_path / "set.json").write_text(json.dumps(content))
    for flags, message in ((["--groups"], "category cat has no `supercategory`"), (["--test", 1], "no picture is left")):
        code, error = run(monkeypatch, capsys, tmp_path, "data/prepare_coco.py", tmp_path / "set.json", "--out", tmp_path / "b",
                          *flags)
        assert code == 2 and message in error
