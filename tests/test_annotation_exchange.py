"""Masks go to annotation tools and come back unchanged: every tool, on what breaks such exchanges elsewhere."""

import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cli.files import UserError
from data import mask_codes
from data.annotation_exchange import export_task, merge_task
from data.annotation_task import MaskObject, labels_of, objects_of, write_corrected
from data.annotation_tools import PROPOSAL, TOOLS
from data.legend import Legend
from data.pictures import read_mask, write_image, write_mask

SIZE = (40, 61)
NAMES = ["sky", "tree", "Köter", "车"]
STEMS = ("plain", "ж é 1", "漢字", "noise")


def hard(classes):
    """Disconnected components, a hole with an island in it, single pixels in corners, ignored pixels, regions that touch."""
    labels = np.zeros(SIZE, np.uint8)
    labels[5:20, 5:30] = 1
    labels[9:14, 10:20] = 0
    labels[11, 12] = 1
    labels[0, 0] = labels[39, 60] = labels[30, 50] = classes - 1
    labels[25:35, 5:12] = 255
    labels[18:26, 28:36] = classes - 1
    labels[22:24, 40:60] = min(2, classes - 1)
    return labels


@pytest.fixture
def data_set(tmp_path):
    """(rows with weights, proposals) of four masks of four classes: plain, under other alphabets, with a palette, and noise."""
    dice = np.random.default_rng(0)
    lines, proposals = [], []
    for stem in STEMS:
        labels = dice.integers(0, 4, SIZE).astype(np.uint8) if stem == "noise" else hard(4)
        image, mask, proposal = (tmp_path / folder / f"{stem}.{kind}" for folder, kind in
                                 (("images", "jpg"), ("masks", "png"), ("proposals", "png")))
        write_image(image, dice.integers(0, 256, (*SIZE, 3)).astype(np.uint8))
        write_mask(mask, labels, 4)
        if stem == "漢字":
            file = Image.fromarray(labels)
            file.putpalette(list(range(255, -1, -1)) * 3)
            file.save(mask)
        write_mask(proposal, np.roll(labels, 2, 1), 4)
        lines.append((str(image), str(mask), 0.25))
        proposals.append(proposal)
    return pd.DataFrame(lines, columns=["image", "mask", "weight"]), proposals


def exported(folder, tool, data_set, background=0, count=4):
    rows, proposals = data_set
    export_task(folder, tool, rows.head(count), proposals, {"num_classes": 4, "background": background}, Legend(4, NAMES), rows)
    return folder


def merged(folder):
    """(rows, number that came back, number of changed masks)."""
    return merge_task(folder, lambda name: folder / name, lambda name: folder / name)


def test_a_correction_of_a_row_that_stands_twice_is_kept_whichever_copy_it_was(tmp_path, data_set):
    rows, proposals = data_set
    twice = pd.concat([rows.head(1), rows.head(1)], ignore_index=True)
    other = proposals[0].with_name("plain__2.png")
    other.write_bytes(proposals[0].read_bytes())
    folder = exported(tmp_path / "task", "coco", (twice, [proposals[0], other]))
    content = json.loads((folder / "annotations.json").read_text(encoding="utf-8"))
    first, second = (each["id"] for each in content["images"])

    def without(*images):
        kept = [each for each in content["annotations"] if each["image_id"] not in images or each["category_id"] > 2]
        (folder / "annotations.json").write_text(json.dumps({**content, "annotations": kept}), encoding="utf-8")
        return merged(folder)

    for image in (first, second):
        found, back, changed = without(image)
        assert (back, changed) == (1, 1) and found["mask"].nunique() == 1 and found["mask"].iloc[0] != rows["mask"].iloc[0]
        assert not np.array_equal(read_mask(found["mask"].iloc[0], 4), read_mask(rows["mask"].iloc[0], 4))
    assert without(first, second)[2] == 2
    content["annotations"] = [each for each in content["annotations"] if each["image_id"] != second]
    with pytest.raises(UserError, match="are one row of the CSV, which stands there twice, and were corrected otherwise"):
        without(first)


@pytest.mark.parametrize("colours", [2, 4, 16, 256])
def test_a_corrected_mask_with_a_short_palette_holds_what_was_corrected(tmp_path, colours):
    """PNG writers take as few bits as the palette needs: 255 would come out as another class."""
    old = Image.fromarray(np.eye(6, 8, dtype=np.uint8))
    old.putpalette([0, 0, 0, 200, 10, 10, *[90] * 3 * (colours - 2)])
    old.save(tmp_path / "old.png")
    classes = 2 if colours == 2 else 4
    after = np.where(np.eye(6, 8, k=2), 255, np.eye(6, 8)).astype(np.uint8)
    write_corrected(tmp_path / "new.png", after, str(tmp_path / "old.png"), classes)
    assert np.array_equal(read_mask(tmp_path / "new.png", classes), after)
    with Image.open(tmp_path / "new.png") as new:
        assert new.mode == "P" and new.getpalette()[:6] == [0, 0, 0, 200, 10, 10]


@pytest.mark.parametrize("background", [0, None])
@pytest.mark.parametrize("tool", TOOLS)
def test_masks_come_back_to_the_byte(tmp_path, data_set, tool, background):
    masks = data_set[0]["mask"].tolist()
    before = [Path(mask).read_bytes() for mask in masks]
    rows, back, changed = merged(exported(tmp_path / tool, tool, data_set, background))
    assert (back, changed) == (4, 0) and rows["mask"].tolist() == masks and (rows["weight"] == 1).all()
    assert [Path(mask).read_bytes() for mask in masks] == before


@pytest.mark.parametrize("tool", TOOLS)
def test_what_was_corrected_comes_back_and_nothing_else(tmp_path, data_set, tool, monkeypatch):
    """The second and third mask of three that were exported are redrawn in the tool: their proposals are taken."""
    folder = exported(tmp_path / tool, tool, data_set, count=3)
    rows, proposals = data_set
    redrawn = rows.assign(mask=[rows["mask"][0], *map(str, proposals[1:])])
    other = exported(tmp_path / "other", tool, (redrawn, proposals), count=3)
    for file in other.rglob("*"):
        if file.is_file() and file.name != "audit_task.json":
            (folder / file.relative_to(other)).write_bytes(file.read_bytes())
    found, back, changed = merged(folder)
    assert (back, changed) == (3, 2) and found["weight"].tolist() == [1, 1, 1, 0.25]
    assert [Path(mask).parent == folder for mask in found["mask"]] == [False, True, True, False]
    for mask, proposal in zip(found["mask"][1:3], proposals[1:3]):
        assert np.array_equal(read_mask(mask, 4), read_mask(proposal, 4))
    with Image.open(found["mask"][2]) as new, Image.open(rows["mask"][2]) as old:  # a palette stays
        assert new.mode == "P" and new.getpalette() == old.getpalette()


@pytest.mark.parametrize("tool", TOOLS)
def test_a_binary_mask_of_ignored_pixels_alone_comes_back(tmp_path, tool):
    for number, labels in enumerate((hard(2), np.full(SIZE, 255, np.uint8), np.zeros(SIZE, np.uint8), np.ones(SIZE, np.uint8))):
        image, mask = tmp_path / f"{number}.jpg", tmp_path / f"{number}.png"
        write_image(image, np.zeros((*SIZE, 3), np.uint8))
        write_mask(mask, labels)
        rows = pd.DataFrame({"image": [str(image)], "mask": [str(mask)], "weight": [0.5]})
        export_task(tmp_path / f"{tool}{number}", tool, rows, [mask], {"num_classes": 2, "background": 0}, Legend(2), rows)
        assert merged(tmp_path / f"{tool}{number}")[1:] == (1, 0)


def test_a_picture_of_another_size_is_shown_at_the_size_of_its_mask(tmp_path, data_set):
    rows, _ = data_set
    write_image(rows["image"][0], np.zeros((80, 122, 3), np.uint8))
    folder = exported(tmp_path / "coco", "coco", data_set)
    assert cv2.imread(str(folder / "images" / "plain.jpg")).shape[:2] == SIZE and merged(folder)[2] == 0
    copied = (folder / "images" / "noise.jpg").read_bytes()
    assert copied == Path(rows["image"][3]).read_bytes()


def test_later_objects_lie_on_top():
    one, two = np.ones((4, 4), bool), np.ones((2, 2), bool)
    painted = labels_of([MaskObject(3, 0, 0, one), MaskObject(0, 1, 1, two)], (5, 6), None)
    assert painted.tolist() == [[3, 3, 3, 3, 255, 255], [3, 0, 0, 3, 255, 255], [3, 0, 0, 3, 255, 255], [3, 3, 3, 3, 255, 255],
                                [255] * 6]
    found = objects_of(painted, 3)
    assert [(each.label, each.x, each.y, each.region.sum()) for each in found] == [(0, 1, 1, 4), (255, 0, 0, 14)]


def test_corners_that_touch_are_one_object():
    assert len(objects_of(np.eye(5, dtype=np.uint8), 0)) == 1


def test_cvats_order_is_its_own_and_not_that_of_the_file(tmp_path, data_set):
    """A mask of the whole picture, written last and lying lowest, fills the background alone."""
    folder = exported(tmp_path / "cvat", "cvat", data_set, count=1)
    text = (folder / "annotations.xml").read_text(encoding="utf-8")
    box = f'left="0" top="0" width="{SIZE[1]}" height="{SIZE[0]}"'
    whole = f'<mask label="tree" rle="0, {SIZE[0] * SIZE[1]}" {box} z_order="-1"/>'
    (folder / "annotations.xml").write_text(text.replace("</image>", whole + "</image>"), encoding="utf-8")
    rows, _, changed = merged(folder)
    before, after = hard(4), read_mask(rows["mask"][0], 4)
    assert changed == 1 and np.array_equal(after, np.where(before == 0, 1, before))


# --- the codes, worked out by hand --------------------------------------------------------------------------------

REGION = np.array([[0, 1, 1], [1, 0, 0]], bool)


def test_run_lengths_by_hand():
    """CVAT goes row by row, COCO column by column; both begin outside."""
    assert mask_codes.to_cvat(REGION) == [1, 3, 2] and mask_codes.to_cvat(~REGION) == [0, 1, 3, 2]
    assert np.array_equal(mask_codes.from_coco({"size": [2, 3], "counts": [1, 2, 1, 1, 1]}), REGION)
    assert np.array_equal(mask_codes.from_coco(mask_codes.to_coco(REGION)), REGION)
    head = f"{24:032b}" + "00111" + "0010" "0011" "0111" "1111"  # 24 values of 8 bits; lengths of 3, 4, 8 or 16 bits
    runs = "1" "00" "011" "00000000" + "1" "01" "1011" "11111111" + "1" "00" "111" "00000000"  # 4, 12 and 8 values
    bits = "".join(f"{byte:08b}" for byte in mask_codes.to_label_studio(REGION))
    assert bits == head + runs + "0" * (-len(head + runs) % 8)


def test_label_studio_reads_runs_that_are_not_repeated():
    """Its own editor writes them: 4 values 0, 0, 0, 255, one by one, then 4 times 255."""
    bits = f"{8:032b}" + "00111" + "0010" "0011" "0111" "1111"
    bits += "0" + "00" + "011" + f"{0:08b}" * 3 + f"{255:08b}"  # 3 bits of length: 4 - 1
    bits += "1" + "00" + "011" + f"{255:08b}"
    bits += "0" * (-len(bits) % 8)
    code = [int(bits[k:k + 8], 2) for k in range(0, len(bits), 8)]
    assert mask_codes.from_label_studio(code, 1, 2).tolist() == [[True, True]]
    code[0] = 1
    with pytest.raises(ValueError, match="1 x 2 are needed"):
        mask_codes.from_label_studio(code, 1, 2)


@pytest.mark.parametrize("code", ["cvat", "coco", "png", "label_studio"])
def test_random_regions_come_back(code):
    dice = np.random.default_rng(1)
    for share in (0, 0.01, 0.3, 0.5, 0.99, 1):
        region = dice.random((47, 83)) < share
        text = getattr(mask_codes, f"to_{code}")(region)
        again = getattr(mask_codes, f"from_{code}")(text, *(region.shape if code in ("cvat", "label_studio") else ()))
        assert again.dtype == bool and np.array_equal(again, region)


def test_the_libraries_of_the_tools_read_the_same():
    """Where it is installed: the decoder of Label Studio's SDK gives our masks, and we read its encoder's."""
    brush = pytest.importorskip("label_studio_sdk.converter.brush")
    region = np.random.default_rng(2).random((31, 45)) < 0.4
    assert np.array_equal(brush.decode_rle(mask_codes.to_label_studio(region)).reshape(31, 45, 4)[:, :, 3] > 0, region)
    assert np.array_equal(mask_codes.from_label_studio(brush.mask2rle(region.astype(np.uint8) * 255), 31, 45), region)


def test_datumaro_reads_its_task_and_cvats(tmp_path, data_set):
    datumaro = pytest.importorskip("datumaro")
    values = {**{name: value for value, name in enumerate(NAMES)}, "ignored (255)": 255}
    for tool in ("datumaro", "cvat"):
        found = datumaro.Dataset.import_from(str(exported(tmp_path / tool, tool, data_set)), tool)
        names = found.categories()[datumaro.AnnotationType.label]
        for item in found:
            labels = np.zeros(SIZE, np.uint8)
            for each in sorted(item.annotations, key=lambda each: each.z_order):
                if not each.attributes.get("proposal") and not names[each.label].name.startswith(PROPOSAL):
                    labels[np.asarray(each.image, bool)] = values[names[each.label].name]
            mask = data_set[0]["mask"][STEMS.index(Path(item.id).stem)]
            assert np.array_equal(labels, read_mask(mask, 4)), (tool, item.id)


# --- what cannot be read is said ----------------------------------------------------------------------------------


def fault_of(folder):
    with pytest.raises(UserError) as fault:
        merged(folder)
    assert "\n" not in str(fault.value)
    return str(fault.value)


def test_faults_of_a_task_that_came_back(tmp_path, data_set):
    assert "has no audit_task.json" in fault_of(tmp_path)
    folder = exported(tmp_path / "cvat", "cvat", data_set)
    text = (folder / "annotations.xml").read_text(encoding="utf-8")
    for old, new, words in (("<mask", '<polygon points="1,1" /><mask', "holds a polygon; only masks are read"),
                            ('<mask label="tree"', '<mask label="house"', "the label 'house' is none of the task's"),
                            ('rle="', 'rle="7, ', "are needed"), ("</annotations>", "", "no element found"),
                            (' left="', ' left="9', "lies outside its picture"), ('name="', 'name="x', "holds none of the 4"),
                            (' top="', ' up="', "the key 'top' is missing")):
        (folder / "annotations.xml").write_text(text.replace(old, new), encoding="utf-8")
        assert words in fault_of(folder), words
    (folder / "annotations.xml").unlink()
    assert "has no annotations.xml; its README.txt says" in fault_of(folder)
    folder = exported(tmp_path / "coco", "coco", data_set)
    content = json.loads((folder / "annotations.json").read_text())
    content["annotations"][0]["segmentation"] = [[1, 1, 2, 2, 3, 1]]
    (folder / "annotations.json").write_text(json.dumps(content))
    assert "is a polygon" in fault_of(folder)


def test_two_classes_of_one_name_are_refused(tmp_path, data_set):
    rows, proposals = data_set
    with pytest.raises(UserError, match="same name"):
        export_task(tmp_path / "x", "coco", rows, proposals, {}, Legend(4, ["a", "b", "a", "c"]), rows)
