"""COCO JSON -> checked rows -> batches of pictures with boxes, class labels and masks of their instances.

An instance's `segmentation` is a list of polygons, or a run-length encoding, compressed or not; `iscrowd` 1 marks a region of
many objects, which is not trained on and does not count in scores. `weight`, which COCO does not know, is the trust in its
class label, 0..1.

Legend: B pictures, n instances of one, K classes of objects, H x W pixels. Labels are 1..K, in the order of the category ids;
0 is the background.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cli.files import UserError, counted, progress, read_json
from cli.lazy import coco_masks, torch
from cli.machine import usable_cores
from data.coco_text import categories_of, is_whole
from data.csv_files import SHOWN_FAULTS, resolve, weight_fault
from data.file_memory import file_memory
from data.pictures import read_image, resize_image, resize_labels
from data.samples import checked_size

LEAST_SIDE = 1.0  # px, of a box at the training size; smaller ones are not trained on
SLACK, SLACK_SHARE = 2.0, 0.1  # px, and share of the longer side, that a box may differ from the box around its mask
FAR = 1e6  # px; coordinates of instances lie below


def read_categories(path: Path | str) -> tuple[list[str], list[int]]:
    """(names, category ids) of the K classes of a COCO JSON, by ascending id."""
    categories = categories_of(path, read_json(path))
    return [each["name"] for each in categories], [each["id"] for each in categories]


def read_instances(path: Path | str, image_dir: Path | str | None = None, needs_weights: bool = False) -> pd.DataFrame:
    """Rows of a COCO JSON, a picture each; the pictures are not opened.

    Args:
        image_dir: folder of the pictures; None: names are relative to the working directory, to the JSON's folder or one above
            it, or to `images` in one of these.
        needs_weights: each annotation must have a `weight`.

    Returns:
        DataFrame with columns `image` (path, str), `id`, `height`, `width` (px) and `instances`: list of dicts of `id`, `label`
        (1..K), `bbox` ([x, y, w, h], px), `segmentation`, `iscrowd` (0 or 1) and `weight`. Its index counts from 1.

    Raises:
        UserError: it is no COCO JSON; or all faults of its pictures and annotations at once.
    """
    content = read_json(path)
    labels = {each["id"]: place for place, each in enumerate(categories_of(path, content), 1)}
    images, annotations = content.get("images"), content.get("annotations")
    if not isinstance(images, list) or not isinstance(annotations, list) or not images:
        raise UserError(f"{path}: not a COCO JSON: `images` and `annotations` must be lists, and there must be an image")
    faults: list[str] = []
    rows = [_image_row(path, each, image_dir, faults) for each in images]
    places = {row["id"]: row for row in rows}
    if len(places) < len(rows):
        faults.append("`images`: two of them have the same id")
    for each in annotations:
        fault = annotation_fault(each, labels, places, needs_weights)
        if fault:
            faults.append(fault)
            continue
        places[each["image_id"]]["instances"].append({
            "id": each["id"], "label": labels[each["category_id"]], "bbox": list(map(float, each["bbox"])),
            "segmentation": each["segmentation"], "iscrowd": int(each.get("iscrowd", 0)), "weight": each.get("weight", 1.0)})
    numbers = [each.get("id") for each in annotations if isinstance(each, dict)]
    if not faults and len(set(numbers)) < len(numbers):
        faults.append("`annotations`: two of them have the same id")
    _raise(path, faults)
    return pd.DataFrame(rows, index=range(1, len(rows) + 1))


def _image_row(path: Path | str, image: Any, image_dir: Path | str | None, faults: list[str]) -> dict:
    """The row of an element of `images`, without instances; what is wrong with it is added to `faults`."""
    if not isinstance(image, dict) or not isinstance(image.get("file_name"), str) or not all(
            is_whole(image.get(key)) for key in ("id", "height", "width")):
        raise UserError(f"{path}: an element of `images` lacks a `file_name`, or a whole `id`, `height` or `width`")
    name = image["file_name"]
    if image_dir is not None:
        found = os.path.join(image_dir, name)
    else:
        folder = Path(path).resolve().parent
        found = next((each for each in (resolve(name, folder), resolve(os.path.join("images", name), folder))
                      if os.path.isfile(each)), name)
    if not os.path.isfile(found):
        faults.append(f"image {name!r}: no such file" + ("" if image_dir else "; pass --image-dir"))
    return {"image": found, "id": image["id"], "height": image["height"], "width": image["width"], "instances": []}


def annotation_fault(each: Any, labels: dict[int, int], images: dict[int, dict], needs_weights: bool) -> str | None:
    """What is wrong with an annotation, None if nothing is.

    Args:
        labels: category id -> label.
        images: image id -> row.
        needs_weights: it must have a `weight`.
    """
    if not isinstance(each, dict) or not is_whole(each.get("id")):
        return "an element of `annotations` has no whole id"
    where, box, shape = f"annotation {each['id']}", each.get("bbox"), each.get("segmentation")
    if not is_whole(each.get("image_id")) or each["image_id"] not in images:
        return f"{where}: image_id {each.get('image_id')!r} is none of `images`"
    if not is_whole(each.get("category_id")) or each["category_id"] not in labels:
        return f"{where}: category_id {each.get('category_id')!r} is none of `categories`"
    if not isinstance(box, list) or len(box) != 4 or not all(
            isinstance(side, (int, float)) and abs(side) < FAR for side in box) or min(box[2:]) < 0:
        return f"{where}: bbox {box!r} is not [x, y, width, height]"
    row = images[each["image_id"]]
    if not _is_shape(shape, row["height"], row["width"]):
        return (f"{where}: segmentation is neither polygons of three points or more, nor a run-length encoding of "
                f"{row['height']} x {row['width']} px")
    if not _agree(box, shape, row["height"], row["width"]):
        return f"{where}: bbox {box!r} is not the box around its segmentation"
    if each.get("iscrowd", 0) not in (0, 1):
        return f"{where}: iscrowd {each['iscrowd']!r} is neither 0 nor 1"
    weight = each.get("weight", None if needs_weights else 1.0)
    if not isinstance(weight, (int, float)):
        return f"{where}: has no weight, which --weighted needs; related/nlis/wrong_labels.py makes them"
    fault = weight_fault(weight)
    return f"{where}: weight {weight!r}: {fault}" if fault else None


def _is_shape(shape: Any, height: int, width: int) -> bool:
    """Whether a segmentation is one that `decoded` can draw."""
    if isinstance(shape, list):
        return bool(shape) and all(isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0
                                   and all(isinstance(each, (int, float)) and abs(each) < FAR for each in polygon)
                                   for polygon in shape)
    if not isinstance(shape, dict) or shape.get("size") != [height, width]:
        return False
    counts = shape.get("counts")
    if isinstance(counts, list):
        return all(map(is_whole, counts)) and sum(counts) == height * width and min(counts) >= 0
    return isinstance(counts, str) and _is_compressed(shape, height, width)


def _agree(box: Sequence[float], shape: Any, height: int, width: int) -> bool:
    """Whether a box [x, y, w, h] is that around a segmentation: no side of it is further off than rounding by hand explains."""
    if isinstance(shape, list):
        points = np.concatenate([np.asarray(polygon, float).reshape(-1, 2) for polygon in shape])  # (n, 2)
        around = [*points.min(0), *points.max(0)]
    else:
        code = coco_masks.frPyObjects(shape, height, width) if isinstance(shape["counts"], list) else shape
        x, y, w, h = coco_masks.toBbox(code)
        around = [x, y, x + w, y + h]
    sides = np.array([*box[:2], box[0] + box[2], box[1] + box[3]], float).reshape(2, 2)
    most = np.array([width, height])
    apart = np.abs(sides.clip(0, most) - np.reshape(around, (2, 2)).clip(0, most)).max()
    return bool(apart <= SLACK + SLACK_SHARE * max(box[2:]))


def _is_compressed(shape: dict, height: int, width: int) -> bool:
    """Whether compressed run lengths can be decoded."""
    try:
        return bool(shape["counts"]) and coco_masks.decode(shape).shape == (height, width)
    except (ValueError, RuntimeError, TypeError):
        return False


def _raise(path: Path | str, faults: list[str]) -> None:
    """Raise UserError with the number of faults and the first of them; return if there is none."""
    if faults:
        more = f"\n  ... and {len(faults) - SHOWN_FAULTS} more" if len(faults) > SHOWN_FAULTS else ""
        raise UserError(f"{path}: {counted(len(faults), 'fault')}; mend or remove these\n  "
                        + "\n  ".join(faults[:SHOWN_FAULTS]) + more)


def check_instance_files(path: Path | str, rows: pd.DataFrame) -> None:
    """Look at every picture; one UserError tells of all that are none, cut short or of another size than the JSON says."""
    def fault(row: Any) -> str | None:
        try:
            size = checked_size(row.image, memory)
        except UserError as error:
            return str(error)
        found, stated = f"{size[0]} x {size[1]}", f"{row.height} x {row.width}"
        return None if found == stated else f"image {row.image}: has {found} px, the JSON says {stated}"

    memory = file_memory()
    with ThreadPoolExecutor(usable_cores()) as pool:
        found = list(progress(pool.map(fault, rows.itertuples()), f"checking {Path(path).name}", len(rows), "picture"))
    memory.save()
    _raise(path, [each for each in found if each])


def decoded(segmentation: Any, height: int, width: int) -> np.ndarray:
    """A segmentation as a mask, uint8 (H, W) of 0 and 1."""
    shapes = coco_masks.frPyObjects(segmentation, height, width) if not isinstance(segmentation, dict) or isinstance(
        segmentation["counts"], list) else segmentation
    return coco_masks.decode(coco_masks.merge(shapes) if isinstance(shapes, list) else shapes)


class InstanceDataset:
    """Pictures of a COCO JSON at one size, with their instances.

    Args:
        rows: of `read_instances`.
        size: (H, W), px; pictures, boxes and masks are resized to it.
        training: leave out crowds and boxes of less than LEAST_SIDE, mirror if asked.
        mirror: mirror half of the pictures, at random.
        seed: of mirroring and of what a network draws, together with `epoch`, which the loop sets.

    A batch is a dict: `image` uint8 (B, 3, H, W); `index` int64 (B,); `targets`: list of B dicts of `boxes` float32 (n, 4), x0,
    y0, x1, y1 in px; `labels` int64 (n,); `masks` uint8 (n, H, W); `weight` float32 (n,); `crowd` int64 (n,); and `seeds`,
    list of B int: equal for equal seed, epoch and row, whichever process and batch it comes in.
    """

    def __init__(self, rows: pd.DataFrame, size: Sequence[int], training: bool = False, mirror: bool = False,
                 seed: int = 0) -> None:
        self.names, self.size, self.training, self.mirror = rows["image"].tolist(), tuple(size), training, mirror
        self.own_sizes = list(zip(rows["height"], rows["width"]))
        self.instances = rows["instances"].tolist()
        self.seed, self.epoch = seed, 0

    def __len__(self) -> int:
        return len(self.names)

    def __getitems__(self, indices: list[int]) -> dict:
        images, targets, seeds = [], [], []
        for index in indices:
            chance = np.random.default_rng((self.seed, self.epoch, index))
            image, target = resize_image(read_image(self.names[index]), self.size), self._target(index)
            seeds.append(int(chance.integers(2**31)))
            if self.training and self.mirror and chance.random() < 0.5:
                image, target = mirrored(image, target)
            images.append(np.ascontiguousarray(image))
            targets.append({name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in target.items()})
        return {"image": torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), "targets": targets, "seeds": seeds,
                "index": torch.tensor(indices)}

    def _target(self, index: int) -> dict[str, np.ndarray]:
        """Boxes, labels, masks, weights and crowd flags of a picture at the size of the batch."""
        height, width = self.own_sizes[index]
        scale = np.array([self.size[1] / width, self.size[0] / height] * 2)
        boxes = np.array([each["bbox"] for each in self.instances[index]], float).reshape(-1, 4)
        boxes = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1) * scale  # (n, 4)
        boxes = boxes.clip(0, np.array([self.size[1], self.size[0]] * 2))
        crowd = np.array([each["iscrowd"] for each in self.instances[index]], np.int64)
        sides = (boxes[:, 2:] - boxes[:, :2]).min(1) if len(boxes) else np.zeros(0)
        kept = [place for place in range(len(boxes)) if not self.training or (sides[place] >= LEAST_SIDE and not crowd[place])]
        chosen = [self.instances[index][place] for place in kept]
        masks = [resize_labels(decoded(each["segmentation"], height, width), self.size) for each in chosen]
        return {"boxes": boxes[kept].astype(np.float32), "labels": np.array([each["label"] for each in chosen], np.int64),
                "masks": np.array(masks, np.uint8).reshape(-1, *self.size), "crowd": crowd[kept],
                "weight": np.array([each["weight"] for each in chosen], np.float32)}


def mirrored(image: np.ndarray, target: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A picture (H, W, 3) and its `_target`, left and right exchanged."""
    boxes = target["boxes"].copy()
    boxes[:, [0, 2]] = image.shape[1] - target["boxes"][:, [2, 0]]
    return image[:, ::-1], {**target, "boxes": boxes, "masks": target["masks"][..., ::-1]}
