"""Tasks in the formats of annotation tools, written and read: CVAT, labelme, COCO, Datumaro, Label Studio.

`write(folder, items, names)` leaves what the tool opens, `read(folder, values)` gives what it saved: file name of a picture ->
`Returned`. Proposals are a second layer: in CVAT and labelme objects of labels that begin with PROPOSAL, in
Datumaro objects with an attribute, in COCO a file of their own, in Label Studio predictions. Reading passes over them.

Legend: names is value -> name of a class, values is name -> value. Reading raises ValueError or KeyError at what it cannot
take.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, unquote
from xml.etree import ElementTree

import numpy as np

from cli.files import write_json
from data import mask_codes
from data.annotation_task import PICTURES, PROPOSAL, Item, MaskObject
from data.mask_codes import to_coco


class Returned(NamedTuple):
    """What a tool saved of a picture: its size (H, W), None where the format does not say; its objects, lowest first."""

    size: tuple[int, int] | None
    objects: list[MaskObject]


Objects = dict[str, Returned]  # by file name


class Tool(NamedTuple):
    """An annotation tool: how a task is written and read, and what a person does with it."""

    write: Callable[[Path, list[Item], dict[int, str]], None]
    read: Callable[[Path, dict[str, int]], Objects]
    words: str


def cut_out(label: int, whole: np.ndarray, size: tuple[int, int] | None) -> MaskObject:
    """The object of a region in a whole picture, bool (H, W); of an empty one a single pixel that is outside.

    Args:
        size: (H, W) of the picture, or None; a ValueError if the region has another one.
    """
    if size and whole.shape != tuple(size):
        raise ValueError(f"a mask has {whole.shape[0]} x {whole.shape[1]} px, its picture {size[0]} x {size[1]}")
    rows, columns = np.flatnonzero(whole.any(1)), np.flatnonzero(whole.any(0))
    if not len(rows):
        return MaskObject(label, 0, 0, np.zeros((1, 1), bool))
    y, x = int(rows[0]), int(columns[0])
    return MaskObject(label, x, y, whole[y:rows[-1] + 1, x:columns[-1] + 1])


def layered(item: Item, names: dict[int, str]) -> Iterator[tuple[str, MaskObject]]:
    """(label, object) of the proposals, then of the annotation, so that this lies on top."""
    yield from ((PROPOSAL + names[each.label], each) for each in item.proposals)
    yield from ((names[each.label], each) for each in item.objects)


def value_of(label: str, values: dict[str, int]) -> int | None:
    """The value of a label; None for a proposal.

    Raises:
        ValueError: the task has no such label.
    """
    if label.startswith(PROPOSAL):
        return None
    if label not in values:
        raise ValueError(f"the label {label!r} is none of the task's: {', '.join(values)}")
    return values[label]


# --- CVAT: "CVAT for images 1.1" ----------------------------------------------------------------------------------


def write_cvat(folder: Path, items: list[Item], names: dict[int, str]) -> None:
    """annotations.xml, and labels.json for the labels' raw editor."""
    used = sorted({label for item in items for label, _ in layered(item, names)} | set(names.values()))
    write_json(folder / "labels.json", [{"name": name, "type": "mask", "attributes": []} for name in used])
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    labels = ElementTree.SubElement(ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task"), "labels")
    for name in used:
        label = ElementTree.SubElement(labels, "label")
        for tag, text in (("name", name), ("type", "mask"), ("attributes", "")):
            ElementTree.SubElement(label, tag).text = text
    for number, item in enumerate(items):
        image = ElementTree.SubElement(root, "image", id=str(number), name=item.name, width=str(item.size[1]),
                                       height=str(item.size[0]))
        for order, (name, each) in enumerate(layered(item, names)):
            height, width = each.region.shape
            runs = ", ".join(map(str, mask_codes.to_cvat(each.region)))
            ElementTree.SubElement(image, "mask", label=name, source="manual", occluded="0", rle=runs, left=str(each.x),
                                   top=str(each.y), width=str(width), height=str(height), z_order=str(order))
    ElementTree.ElementTree(root).write(folder / "annotations.xml", encoding="utf-8", xml_declaration=True)


def read_cvat(folder: Path, values: dict[str, int]) -> Objects:
    """What CVAT exports as "CVAT for images 1.1": annotations.xml; masks alone, no polygons."""
    found: Objects = {}
    for image in ElementTree.parse(folder / "annotations.xml").getroot().iter("image"):
        other = [each.tag for each in image if each.tag not in ("mask", "tag")]
        if other:
            raise ValueError(f"{image.get('name')} holds a {other[0]}; only masks are read, draw it with the brush")
        masks = sorted(image.iter("mask"), key=lambda mask: int(mask.get("z_order", 0)))
        size = int(image.attrib["height"]), int(image.attrib["width"])
        objects = found.setdefault(Path(image.get("name", "")).name, Returned(size, [])).objects
        for mask in masks:
            value = value_of(mask.get("label", ""), values)
            if value is not None:
                height, width, left, top = (int(mask.attrib[key]) for key in ("height", "width", "left", "top"))
                runs = list(map(int, mask.attrib["rle"].split(",")))
                objects.append(MaskObject(value, left, top, mask_codes.from_cvat(runs, height, width)))
    return found


# --- labelme ------------------------------------------------------------------------------------------------------


def write_labelme(folder: Path, items: list[Item], names: dict[int, str]) -> None:
    """A JSON beside each picture, as labelme opens and saves it."""
    for item in items:
        shapes: list[dict[str, Any]] = []
        for name, each in layered(item, names):
            height, width = each.region.shape
            shapes.append({"label": name, "points": [[each.x, each.y], [each.x + width - 1, each.y + height - 1]],
                           "group_id": None, "description": "", "shape_type": "mask", "flags": {},
                           "mask": mask_codes.to_png(each.region)})
        content: dict[str, Any] = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": item.name, "imageData": None,
                   "imageHeight": item.size[0], "imageWidth": item.size[1]}
        write_json((folder / PICTURES / item.name).with_suffix(".json"), content)


def read_labelme(folder: Path, values: dict[str, int]) -> Objects:
    """The JSON files beside the pictures; masks alone, no polygons."""
    found: Objects = {}
    for path in sorted((folder / PICTURES).glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        sides = content["imageHeight"], content["imageWidth"]
        size = sides if all(sides) else None  # null: not known
        objects = found.setdefault(Path(content["imagePath"].replace("\\", "/")).name, Returned(size, [])).objects
        for shape in content["shapes"]:
            if shape["shape_type"] != "mask":
                raise ValueError(f"{path.name} holds a {shape['shape_type']}; only masks are read")
            value = value_of(shape["label"], values)
            if value is not None:
                x, y = (round(each) for each in shape["points"][0])
                objects.append(MaskObject(value, x, y, mask_codes.from_png(shape["mask"])))
    return found


# --- COCO ---------------------------------------------------------------------------------------------------------


def coco_content(items: list[Item], names: dict[int, str],
                 objects_of: Callable[[Item], Sequence[MaskObject]]) -> dict[str, Any]:
    """COCO's JSON. Category ids are values + 1, since many readers take 0 for background."""
    images = [{"id": number + 1, "file_name": item.name, "height": item.size[0], "width": item.size[1]}
              for number, item in enumerate(items)]
    annotations: list[dict[str, Any]] = []
    for number, item in enumerate(items):
        for each in objects_of(item):
            height, width = each.region.shape
            annotations.append({"id": len(annotations) + 1, "image_id": number + 1, "category_id": each.label + 1, "iscrowd": 1,
                                "segmentation": to_coco(each.whole(item.size)), "area": int(each.region.sum()),
                                "bbox": [each.x, each.y, width, height]})
    categories = [{"id": value + 1, "name": name, "supercategory": ""} for value, name in names.items()]
    return {"info": {}, "licenses": [], "images": images, "annotations": annotations, "categories": categories}


def write_coco(folder: Path, items: list[Item], names: dict[int, str]) -> None:
    """annotations.json, and the proposals as proposals.json."""
    write_json(folder / "annotations.json", coco_content(items, names, lambda item: item.objects))
    write_json(folder / "proposals.json", coco_content(items, names, lambda item: item.proposals))


def read_coco(folder: Path, values: dict[str, int]) -> Objects:
    """annotations.json, whatever ids its tool gave; run lengths alone, no polygons."""
    content = json.loads((folder / "annotations.json").read_text(encoding="utf-8"))
    labels = {each["id"]: value_of(each["name"], values) for each in content["categories"]}
    name_of = {each["id"]: Path(each["file_name"]).name for each in content["images"]}
    found: Objects = {name_of[each["id"]]: Returned((each["height"], each["width"]), []) for each in content["images"]}
    for each in content["annotations"]:
        value = labels[each["category_id"]]
        if not isinstance(each["segmentation"], dict):
            raise ValueError(f"annotation {each['id']} is a polygon; only masks (run lengths) are read")
        if value is not None:
            picture = found[name_of[each["image_id"]]]
            picture.objects.append(cut_out(value, mask_codes.from_coco(each["segmentation"]), picture.size))
    return found


# --- Datumaro -----------------------------------------------------------------------------------------------------


def write_datumaro(folder: Path, items: list[Item], names: dict[int, str]) -> None:
    """annotations/default.json, Datumaro's own format; its pictures lie in images/default."""
    entries = []
    order_of = {value: number for number, value in enumerate(names)}
    for item in items:
        layers = [(each, True) for each in item.proposals] + [(each, False) for each in item.objects]
        annotations = [{"id": number, "type": "mask", "attributes": {"proposal": proposal}, "group": 0,
                        "label_id": order_of[each.label], "rle": to_coco(each.whole(item.size)), "z_order": number}
                       for number, (each, proposal) in enumerate(layers)]
        entries.append({"id": Path(item.name).stem, "annotations": annotations,
                        "image": {"path": item.name, "size": list(item.size)}})
    labels = [{"name": name, "parent": "", "attributes": []} for name in names.values()]
    write_json(folder / "annotations" / "default.json",
               {"infos": {}, "categories": {"label": {"labels": labels, "attributes": []}}, "items": entries})


def read_datumaro(folder: Path, values: dict[str, int]) -> Objects:
    """All subsets in annotations/; masks alone."""
    found: Objects = {}
    for path in sorted((folder / "annotations").glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        labels = [value_of(each["name"], values) for each in content["categories"]["label"]["labels"]]
        for entry in content["items"]:
            size = tuple(entry["image"]["size"]) if entry["image"].get("size") else None
            objects = found.setdefault(Path(entry["image"]["path"]).name, Returned(size, [])).objects
            for each in sorted(entry["annotations"], key=lambda each: each.get("z_order", 0)):
                if each["type"] != "mask":
                    raise ValueError(f"{entry['id']} holds a {each['type']}; only masks are read")
                value = labels[each["label_id"]]
                if value is not None and not each.get("attributes", {}).get("proposal"):
                    objects.append(cut_out(value, mask_codes.from_coco(each["rle"]), size))
    return found


# --- Label Studio -------------------------------------------------------------------------------------------------


def brushes(objects: Iterable[MaskObject], item: Item, names: dict[int, str], prefix: str) -> list[dict[str, Any]]:
    """Results of Label Studio's brush."""
    return [{"id": f"{prefix}{number}", "type": "brushlabels", "from_name": "label", "to_name": "image", "image_rotation": 0,
             "original_width": item.size[1], "original_height": item.size[0],
             "value": {"format": "rle", "rle": mask_codes.to_label_studio(each.whole(item.size)),
                       "brushlabels": [names[each.label]]}} for number, each in enumerate(objects)]


def write_label_studio(folder: Path, items: list[Item], names: dict[int, str]) -> None:
    """tasks.json, whose predictions are the proposals, and label_config.xml, the labelling interface."""
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name="image", value="$image", zoom="true")
    labels = ElementTree.SubElement(view, "BrushLabels", name="label", toName="image")
    for name in names.values():
        ElementTree.SubElement(labels, "Label", value=name)
    ElementTree.ElementTree(view).write(folder / "label_config.xml", encoding="utf-8")
    write_json(folder / "tasks.json", [
        {"data": {"image": "/data/local-files/?d=" + quote(f"{folder.name}/{PICTURES}/{item.name}")},
         "annotations": [{"result": brushes(item.objects, item, names, "a")}],
         "predictions": [{"model_version": "audit", "result": brushes(item.proposals, item, names, "p")}]} for item in items])


def read_label_studio(folder: Path, values: dict[str, int]) -> Objects:
    """tasks.json, Label Studio's JSON export; of several annotations of a picture the last one, brushes alone."""
    found: Objects = {}
    for task in json.loads((folder / "tasks.json").read_text(encoding="utf-8")):
        submitted = [each for each in task["annotations"] if not each.get("was_cancelled")]
        if not submitted:  # skipped, or nobody looked at it yet: it did not come back
            continue
        address, results = task["data"]["image"], submitted[-1]["result"]
        if not isinstance(address, str):
            raise ValueError(f"the image of a task is no text but {address!r}")
        other = next((each["type"] for each in results if each["type"] != "brushlabels"), None)
        if other:
            raise ValueError(f"{address} holds a {other}; only brush labels are read")
        size = (results[0]["original_height"], results[0]["original_width"]) if results else None
        objects = found.setdefault(unquote(address).rsplit("/", 1)[-1], Returned(size, [])).objects
        for each in results:
            own = each["original_height"], each["original_width"]
            value = value_of(each["value"]["brushlabels"][0], values)
            if value is not None:
                objects.append(cut_out(value, mask_codes.from_label_studio(each["value"]["rle"], *own), size))
    return found


TOOLS = {
    "cvat": Tool(write_cvat, read_cvat, """\
Create a task: paste labels.json into the labels' raw editor, upload images/, then upload annotations.xml as "CVAT 1.1". When
all is corrected, export the task as "CVAT for images 1.1" and put its annotations.xml here."""),
    "labelme": Tool(write_labelme, read_labelme, """\
Open images/ with labelme (5.5 or newer) and save; it writes the JSON files in place."""),
    "coco": Tool(write_coco, read_coco, """\
annotations.json holds the masks, proposals.json the judge's. Put the corrected COCO file here as annotations.json, with run
lengths and the same file names."""),
    "datumaro": Tool(write_datumaro, read_datumaro, """\
A dataset in Datumaro's format: masks with the attribute `proposal` are the judge's. Save the corrected one here, in
annotations/."""),
    "labelstudio": Tool(write_label_studio, read_label_studio, """\
Create a project with label_config.xml, serve this folder's parent as local files, import tasks.json. When all is corrected,
export as JSON and put it here as tasks.json."""),
}
