"""Make COCO JSONs: annotations of masks, and the whole file. Legend: H x W pixels, K classes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cli.files import UserError, portable, refuse_other_than_utf8, together


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """A mask (H, W) as COCO's uncompressed run-length encoding: lengths of runs down the columns, the first one of zeros."""
    flat = np.asarray(mask, bool).ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}


def annotation_of(number: int, image: int, category: int, mask: np.ndarray, crowd: bool = False) -> dict[str, Any]:
    """An annotation of a mask (H, W), which has a pixel; its box is the smallest whole one around it.

    Args:
        number: id of the annotation.
        image, category: their ids.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = [int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1)]
    return {"id": number, "image_id": image, "category_id": category, "iscrowd": int(crowd),
            "area": int(np.count_nonzero(mask)), "bbox": box, "segmentation": run_lengths(mask)}


def image_of(number: int, path: Path | str, size: Sequence[int]) -> dict[str, Any]:
    """An element of `images`: a picture of a size (H, W), its path relative to the working directory where it lies below it."""
    refuse_other_than_utf8([str(path)])
    return {"id": number, "file_name": portable(str(path), os.path.join(os.getcwd(), "")), "height": size[0], "width": size[1]}


def categories(names: Sequence[str], ids: Sequence[int] | None = None, groups: Mapping[str, str] | None = None) -> list[dict]:
    """The list `categories`; ids are 1..K where none are given.

    Args:
        groups: class -> super-category.
    """
    return [{"id": number, "name": name, **({"supercategory": groups[name]} if groups else {})}
            for number, name in zip(ids or range(1, len(names) + 1), names)]


def write_coco(contents: Mapping[Path, dict], overwrite: bool) -> None:
    """Write COCO JSONs, all or none, and say so; one that has this content already stays.

    Args:
        contents: path -> dict of `images`, `annotations`, `categories`.

    Raises:
        UserError: a file exists with other content, and `overwrite` is not set.
    """
    texts = {path: (json.dumps(content) + "\n").encode() for path, content in contents.items()}
    for path, text in texts.items():
        if path.exists() and path.read_bytes() != text and not overwrite:
            raise UserError(f"{path} exists with other content; pass --overwrite to replace it, or choose another --out")
    with together() as written_at:
        for path, text in texts.items():
            written_at(path).write_bytes(text)
    for path, content in contents.items():
        print(f"{path}: {len(content['images'])} pictures, {len(content['annotations'])} instances of "
              f"{len(content['categories'])} classes")
