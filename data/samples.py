"""One file -> what is known of it and, at the training size, its pixels: each file is looked at once.

Legend: N rows, H x W pixels of the training size, L label maps a row: the mask and, where the rows have one, the pseudo-label.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from data.file_memory import Facts, FileMemory
from data.pictures import check_image, kinds_of, read_checked_mask, resize_labels


class Samples(NamedTuple):
    """Decoded, resized samples of rows.

    images: uint8 (N, H, W, 3).
    labels: uint8 (N, L, H, W).
    """

    images: np.ndarray
    labels: np.ndarray

    @classmethod
    def unread(cls, rows: pd.DataFrame, size: Sequence[int]) -> Samples:
        """Room for the samples of rows at a size (H, W)."""
        count = len(label_columns(rows))
        return cls(np.empty((len(rows), *size, 3), np.uint8), np.empty((len(rows), count, *size), np.uint8))


def label_columns(rows: pd.DataFrame) -> list[str]:
    """The columns that name label maps, in the order of `Samples.labels`."""
    return [column for column in ("mask", "pseudo") if column in rows]


def checked_size(path: Path | str, memory: FileMemory) -> tuple[int, int]:
    """`check_image`, unless the memory knows the file as it is."""
    height, width, _ = memory.facts(path, "image", lambda: (*check_image(path), 0))
    return height, width


def check_mask(path: Path | str, num_classes: int, place: np.ndarray | None = None) -> Facts:
    """(H, W, `kinds_of`) of a mask that holds classes, H and W its own; its labels go to `place`, uint8 of another (H, W)."""
    labels = read_checked_mask(path, num_classes)
    if place is not None:
        place[:] = resize_labels(labels, place.shape)
    height, width = labels.shape
    return height, width, kinds_of(labels, num_classes)
