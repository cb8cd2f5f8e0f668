"""A task for an annotation tool: the pictures, the masks and proposals as objects, and a record for the way back.

A label map becomes one object for each connected component (8 neighbours) of each of its values but the background's, 255
(ignored) too: no polygon is drawn, so that holes, single pixels and components stay as they are. On the way back objects are
painted in their order, later ones on top, over the background; without a background class, what no object covers is ignored.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from cli.files import UserError, read_json, write_json
from data import IGNORE_INDEX
from data.legend import Legend
from data.mask_files import decode_mask
from data.pictures import image_size, read_checked_mask, read_image, resize_image, write_image, write_mask

RECORD = "audit_task.json"
IGNORED_NAME = "ignored (255)"
PROPOSAL = "proposal: "  # before the name of a class, where a tool keeps proposals as objects of other labels
PICTURES = "images"  # folder of the pictures in a task


@dataclass(frozen=True)
class MaskObject:
    """A region of one label: bool (h, w), the pixels of its box whose upper left corner lies at x, y."""

    label: int
    x: int
    y: int
    region: np.ndarray

    def whole(self, size: Sequence[int]) -> np.ndarray:
        """The region in a picture of a size (H, W), bool; ValueError if it lies outside."""
        height, width = self.region.shape
        if min(self.x, self.y) < 0 or self.y + height > size[0] or self.x + width > size[1]:
            raise ValueError(f"a mask of {height} x {width} px at {self.x}, {self.y} lies outside its picture")
        result = np.zeros(size, bool)
        result[self.y:self.y + height, self.x:self.x + width] = self.region
        return result


@dataclass(frozen=True)
class Item:
    """A picture of a task.

    name: of its file in the task.
    size: (H, W) of the mask, and of the picture in the task.
    objects, proposals: of the annotation and of the judge.
    """

    name: str
    size: tuple[int, int]
    objects: list[MaskObject]
    proposals: list[MaskObject]


def objects_of(labels: np.ndarray, background: int | None) -> list[MaskObject]:
    """The objects of a label map, uint8 (H, W)."""
    found = []
    for value in np.unique(labels).tolist():
        if value == background:
            continue
        count, numbers, facts, _ = cv2.connectedComponentsWithStats((labels == value).astype(np.uint8), connectivity=8)
        for number in range(1, count):
            x, y, w, h, _ = facts[number].tolist()
            found.append(MaskObject(value, x, y, numbers[y:y + h, x:x + w] == number))
    return found


def labels_of(objects: Iterable[MaskObject], size: Sequence[int], background: int | None) -> np.ndarray:
    """The label map of objects, uint8 (H, W)."""
    labels = np.full(size, IGNORE_INDEX if background is None else background, np.uint8)
    for each in objects:
        labels[each.whole(size)] = each.label
    return labels


def names_of(legend: Legend) -> dict[int, str]:
    """The name of each value.

    Raises:
        UserError: two classes share theirs, or one is named as a proposal.
    """
    names = {**dict(enumerate(legend.names)), IGNORE_INDEX: IGNORED_NAME}
    for name in legend.names:
        if list(names.values()).count(name) > 1:
            raise UserError(f"two classes have the same name, {name!r}, so that no annotation tool could tell them apart; see "
                            "--classes")
        if name.startswith(PROPOSAL):
            raise UserError(f"the class {name!r} is named as the proposals are that go to annotation tools; see --classes")
    return names


# --- the task's folder --------------------------------------------------------------------------------------------


def make_item(folder: Path, name: str, image: str, mask: str, proposal: Path, num_classes: int,
              background: int | None) -> Item:
    """Copy a picture into a task and give its `Item`. A picture of another size than its mask is copied at the mask's size."""
    labels, proposed = (read_checked_mask(path, num_classes) for path in (mask, proposal))
    target = folder / PICTURES / name
    target.parent.mkdir(parents=True, exist_ok=True)
    if image_size(image) == labels.shape:
        shutil.copyfile(image, target)
    else:
        write_image(target, resize_image(read_image(image), labels.shape))
    proposals = [each for each in objects_of(proposed, background) if each.label != IGNORE_INDEX]  # nothing is proposed there
    return Item(name, (labels.shape[0], labels.shape[1]), objects_of(labels, background), proposals)


def write_record(folder: Path, tool: str, names: Sequence[str], images: Sequence[str], masks: Sequence[str],
                 settings: dict) -> None:
    """Leave what the way back needs: which picture of the task belongs to which mask.

    Args:
        settings: `num_classes`, `background`, `names` of the classes, `weights` (image, mask and weight of all rows).
    """
    rows = [{"name": name, "image": os.path.abspath(image), "mask": os.path.abspath(mask)}
            for name, image, mask in zip(names, images, masks)]
    write_json(folder / RECORD, {"tool": tool, **settings, "rows": rows})


def read_record(folder: Path) -> dict:
    """What `write_record` left.

    Raises:
        UserError: the folder is no task.
    """
    if not (folder / RECORD).is_file():
        raise UserError(f"--merge {folder}: has no {RECORD}; name the folder that --export left, with the corrected "
                        "annotations in it")
    return read_json(folder / RECORD, "tool", "rows", "num_classes", "background", "names", "weights")


def write_corrected(path: Path, labels: np.ndarray, like: str, num_classes: int) -> None:
    """Write a corrected label map in the format of an older mask file: with a palette if that had one."""
    if decode_mask(like, num_classes).are_labels:
        with Image.open(like) as old:
            palette = old.getpalette() if old.mode == "P" else None
        if palette:
            file = Image.fromarray(labels.astype(np.uint8))
            file.putpalette(palette + [0] * (3 * 256 - len(palette)))  # whole, or it is saved with too few bits for 255
            file.save(path, "PNG")
            return
    write_mask(path, labels, num_classes)
