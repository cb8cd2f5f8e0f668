"""Maps of instance numbers, as Cityscapes and VOC draw them -> COCO JSONs. Legend: H x W pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from cli.files import UserError, progress
from data.coco_files import annotation_of, image_of, write_coco
from data.pictures import image_size

Found = Iterable[tuple[int, np.ndarray, bool]]  # (category id, mask (H, W), whether it is a crowd)


def read_numbers(path: Path | str) -> np.ndarray:
    """A PNG of one channel of 8 or 16 bits as whole numbers (H, W), int64.

    Raises:
        UserError: it is none.
    """
    try:
        content = np.frombuffer(Path(path).read_bytes(), np.uint8)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    numbers = cv2.imdecode(content, cv2.IMREAD_UNCHANGED) if content.size else None
    if numbers is None or numbers.ndim != 2:
        raise UserError(f"{path}: not a PNG of one channel")
    return numbers.astype(np.int64)


def write_instance_splits(out: Path, splits: Mapping[str, pd.DataFrame], instances: Callable[[Any], Found],
                          categories: list[dict], overwrite: bool) -> None:
    """Write SPLIT.json of each split to a folder.

    Args:
        splits: dict of name -> rows; a row has `image` and what `instances` needs.
        instances: function of a row, as a namedtuple, that gives its instances; those without a pixel are left out.
        categories: of the COCO JSONs.
    """
    contents = {}
    for split, rows in splits.items():
        images: list[dict] = []
        annotations: list[dict] = []
        for number, row in enumerate(progress(rows.itertuples(), f"instances of {split}", len(rows), "picture"), 1):
            size = None
            for category, mask, crowd in instances(row):
                size = mask.shape
                if mask.any():
                    annotations.append(annotation_of(len(annotations) + 1, number, category, mask, crowd))
            images.append(image_of(number, str(row.image), size or image_size(str(row.image))))
        contents[out / f"{split}.json"] = {"images": images, "annotations": annotations, "categories": categories}
    write_coco(contents, overwrite)
