"""What comes back from an annotation tool on another picture, or cut short, is refused; a half-written task leaves nothing."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from cli.files import UserError
from data import annotation_exchange, mask_codes
from data.annotation_exchange import export_task, merge_task, read_task
from data.annotation_task import names_of
from data.annotation_tools import TOOLS
from data.legend import Legend
from data.pictures import write_image, write_mask

SIZE = (20, 30)


@pytest.fixture
def rows(tmp_path):
    """A picture with one region, and a proposal that says nothing in its lower half; (rows, proposals)."""
    labels = np.zeros(SIZE, np.uint8)
    labels[4:9, 5:12] = 1
    proposal = np.roll(labels, 2, 1)
    proposal[10:] = 255
    write_image(tmp_path / "images" / "a.png", np.zeros((*SIZE, 3), np.uint8))
    write_mask(tmp_path / "masks" / "a.png", labels)
    write_mask(tmp_path / "proposals" / "a.png", proposal)
    line = {kind: [str(tmp_path / f"{kind}s" / "a.png")] for kind in ("image", "mask")}
    return pd.DataFrame({**line, "weight": [0.5]}), [tmp_path / "proposals" / "a.png"]


def exported(folder, tool, rows, legend=None):
    export_task(folder, tool, rows[0], rows[1], {"num_classes": 2, "background": 0}, legend or Legend(2), rows[0])
    return folder


def fault_of(folder):
    with pytest.raises(UserError) as fault:
        merge_task(folder, lambda name: folder / name, lambda name: folder / name)
    assert "\n" not in str(fault.value)
    return str(fault.value)


def changed(folder, name, change):
    """Change the JSON of a task, or the text if it is none."""
    path = folder / name
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        content = json.loads(text)
        change(content)
        text = json.dumps(content)
    else:
        text = change(text)
    path.write_text(text, encoding="utf-8")


def enlarge_coco(content):
    content["images"][0].update(height=40, width=60)
    for each in content["annotations"]:
        region = mask_codes.from_coco(each["segmentation"])
        each["segmentation"] = mask_codes.to_coco(np.pad(region, ((0, 20), (0, 30))))


def enlarge_datumaro(content):
    content["items"][0]["image"]["size"] = [40, 60]
    for each in content["items"][0]["annotations"]:
        each["rle"] = mask_codes.to_coco(np.pad(mask_codes.from_coco(each["rle"]), ((0, 20), (0, 30))))


def enlarge_label_studio(content):
    for each in content[0]["annotations"][0]["result"]:
        region = mask_codes.from_label_studio(each["value"]["rle"], *SIZE)
        each["value"]["rle"] = mask_codes.to_label_studio(np.pad(region, ((0, 20), (0, 30))))
        each.update(original_height=40, original_width=60)


ENLARGE = {"cvat": ("annotations.xml", lambda text: text.replace('width="30" height="20"', 'width="60" height="40"')),
           "labelme": ("images/a.json", lambda content: content.update(imageHeight=40, imageWidth=60)),
           "coco": ("annotations.json", enlarge_coco), "datumaro": ("annotations/default.json", enlarge_datumaro),
           "labelstudio": ("tasks.json", enlarge_label_studio)}


@pytest.mark.parametrize("tool", TOOLS)
def test_a_larger_picture_whose_region_would_fit_is_refused(tmp_path, rows, tool):
    """The region lies within the old size, so that only the picture's size tells."""
    folder = exported(tmp_path / tool, tool, rows)
    changed(folder, *ENLARGE[tool])
    assert "a.png: came back with 40 x 60 px, its mask has 20 x 30; was it corrected on another picture?" in fault_of(folder)


@pytest.mark.parametrize("tool", ["coco", "datumaro", "labelstudio"])
def test_a_mask_of_another_size_than_its_picture_is_refused(tmp_path, rows, tool):
    folder = exported(tmp_path / tool, tool, rows)
    large = np.zeros((40, 60), bool)
    name, _ = ENLARGE[tool]

    def change(content):
        if tool == "coco":
            content["annotations"][0]["segmentation"] = mask_codes.to_coco(large)
        elif tool == "datumaro":
            content["items"][0]["annotations"][-1]["rle"] = mask_codes.to_coco(large)
        else:
            results = content[0]["annotations"][0]["result"]
            results.append({**results[0], "original_height": 40, "original_width": 60, "value": {
                **results[0]["value"], "rle": mask_codes.to_label_studio(large)}})

    changed(folder, name, change)
    assert "a mask has 40 x 60 px, its picture 20 x 30" in fault_of(folder)


@pytest.mark.parametrize("tool, change, words", [
    ("labelme", lambda content: content["shapes"][-1].update(mask=""), "its mask is not a PNG"),
    ("labelme", lambda content: content["shapes"][-1].update(mask="AAAA"), "its mask is not a PNG"),
    ("labelme", lambda content: content["shapes"][-1].update(mask=None), "not what labelme was given or saves"),
    ("labelme", lambda content: content.update(imagePath=7), "not what labelme was given or saves"),
    ("labelstudio", lambda content: content[0]["annotations"][0]["result"].insert(0, {"type": "choices", "value": {}}),
     "holds a choices; only brush labels are read"),
    ("labelstudio", lambda content: content[0]["data"].update(image=["a.png"]), "is no text but ['a.png']"),
    ("labelstudio", lambda content: content[0].update(data=None), "not what labelstudio was given or saves"),
    ("labelstudio", lambda content: content[0].update(annotations=["x"]), "not what labelstudio was given or saves"),
    ("labelstudio", lambda content: content[0]["annotations"][0]["result"][0]["value"].update(rle=[1]), "labelstudio"),
    ("datumaro", lambda content: content["items"][0].update(image=3), "not what datumaro was given or saves"),
    ("coco", lambda content: content["annotations"][0].update(category_id=99), "the key 99 is missing")])
def test_what_is_cut_short_is_said_in_one_line(tmp_path, rows, tool, change, words):
    folder = exported(tmp_path / tool, tool, rows)
    changed(folder, ENLARGE[tool][0], change)
    assert words in fault_of(folder)


@pytest.mark.parametrize("sides", [(None, None), (20, None), (None, 30)])
def test_a_size_that_labelme_left_open_is_no_fault(tmp_path, rows, sides):
    folder = exported(tmp_path / "labelme", "labelme", rows)
    changed(folder, "images/a.json", lambda content: content.update(zip(("imageHeight", "imageWidth"), sides)))
    assert merge_task(folder, lambda name: folder / name, lambda name: folder / name)[1:] == (1, 0)


def test_a_task_that_fails_half_way_leaves_no_folder(tmp_path, rows, monkeypatch):
    def half(folder, items, names):
        (folder / "annotations.json").write_text("{", encoding="utf-8")
        raise UserError("the disk is full")

    monkeypatch.setitem(annotation_exchange.TOOLS, "coco", TOOLS["coco"]._replace(write=half))
    with pytest.raises(UserError, match="disk is full"):
        exported(tmp_path / "out" / "task", "coco", rows)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("tool", TOOLS)
def test_nothing_is_proposed_where_the_judge_says_nothing(tmp_path, rows, tool):
    """255 in a proposal becomes no object; what is annotated there comes back as it was."""
    folder = exported(tmp_path / tool, tool, rows)
    assert merge_task(folder, lambda name: folder / name, lambda name: folder / name)[1:] == (1, 0)
    name = {"coco": "proposals.json"}.get(tool, ENLARGE[tool][0])
    text = (folder / name).read_text(encoding="utf-8")
    assert len(read_task(folder)[1]["a.png"].objects) == 1
    shown = {"cvat": r'<mask label="proposal: (.*?)"', "labelme": r'"label": "proposal: (.*?)"',
             "coco": r'"category_id": (\d+)', "datumaro": r'"proposal": true\s*},\s*"group": 0,\s*"label_id": (\d+)',
             "labelstudio": r'"id": "p\d+"(?:.|\n)*?"brushlabels": \[\s*"(.*?)"'}
    assert re.findall(shown[tool], text) == [{"coco": "2", "datumaro": "1"}.get(tool, "foreground")]


@pytest.mark.parametrize("names, words", [(["a", "a"], "have the same name, 'a'"), (["a", "ignored (255)"], "'ignored (255)'"),
                                          (["a", "proposal: a"], "'proposal: a' is named as the proposals")])
def test_names_that_no_tool_can_tell_apart(names, words):
    with pytest.raises(UserError, match=re.escape(words)):
        names_of(Legend(2, names))
