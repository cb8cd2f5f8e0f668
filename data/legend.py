"""Names and colours of classes, for pictures and tables.

A data set's names stand in `classes.json`, which the prepare scripts write beside the CSVs:

    {"names": ["sky", "building", ...], "colours": [[128, 128, 128], ...]}          colours may be left out
"""

from __future__ import annotations

import colorsys
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np

from cli.files import UserError, read_json, write_json
from data import IGNORE_INDEX

FILE_NAME = "classes.json"


class Legend:
    """Names (list of str, C of them) and colours (uint8 (C, 3), RGB) of classes."""

    def __init__(self, num_classes: int, names: list[str] | None = None,
                 colours: Sequence[Sequence[int]] | None = None) -> None:
        self.names = names or (["background", "foreground"] if num_classes == 2 else [f"class {c}" for c in range(num_classes)])
        self.colours = np.array(colours or _distinct_colours(num_classes), dtype=np.uint8)

    def paint(self, labels: np.ndarray) -> np.ndarray:
        """A label map (H, W) as a picture: uint8 (H, W, 3); ignored pixels are white."""
        table = np.full((256, 3), 255, np.uint8)
        table[:len(self.colours)] = self.colours
        return table[labels]

    def overlay(self, image: np.ndarray, labels: np.ndarray, strength: float = 0.25) -> np.ndarray:
        """The picture (H, W, 3), tinted by its labels (H, W), outlines drawn; a binary map's background is left alone."""
        tinted = image.copy()
        for c in range(1 if len(self.names) == 2 else 0, len(self.names)):
            inside = (labels == c).astype(np.uint8)
            colour = self.colours[c].astype(float)
            tinted[inside > 0] = ((1 - strength) * tinted[inside > 0] + strength * colour).astype(np.uint8)
            outlines, _ = cv2.findContours(inside, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(tinted, outlines, -1, self.colours[c].tolist(), 2)
        tinted[labels == IGNORE_INDEX] //= 2
        return tinted


def read_legend(path: Path | str | None, num_classes: int) -> Legend:
    """The legend of a classes.json, or, with None, numbered names and colours far apart.

    Raises:
        UserError: no such file, or it names another number of classes.
    """
    if path is None:
        return Legend(num_classes)
    content = read_json(path, "names")
    names, colours = content["names"], content.get("colours")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: `names` must be a list of texts")
    if not isinstance(colours or [], list):
        raise UserError(f"{path}: `colours` must be a list of [red, green, blue], 0..255 each")
    if len(names) != num_classes or len(colours or names) != num_classes:
        raise UserError(f"{path}: names {len(names)} classes, --num-classes is {num_classes}")
    if colours and not all(isinstance(each, list) and len(each) == 3 and all(value in range(256) for value in each)
                           for each in colours):
        raise UserError(f"{path}: `colours` must be a list of [red, green, blue], 0..255 each")
    return Legend(num_classes, names, colours)


def write_legend(folder: Path, names: Iterable[str], colours: Iterable[Sequence[int]] | None = None,
                 overwrite: bool = False) -> None:
    """Write classes.json to a folder; one with the same names stays as it is, since its colours may be a user's own.

    Raises:
        UserError: there is one with other names, and `overwrite` is not set.
    """
    path, names = folder / FILE_NAME, list(names)
    if path.exists() and not overwrite:
        if read_json(path, "names")["names"] != names:
            raise UserError(f"{path}: exists with other names; pass --overwrite to replace it, or choose another --out")
        return
    write_json(path, {"names": names, **({"colours": [list(c) for c in colours]} if colours else {})})


def _distinct_colours(count: int) -> list[list[int]]:
    """Dark grey for the background, then hues a golden angle apart, every second one darker."""
    hues = [colorsys.hsv_to_rgb((0.46 + 0.618034 * c) % 1, 0.85, 1.0 if c % 2 else 0.75) for c in range(count)]
    return [[40, 40, 40]] + [[round(255 * part) for part in hue] for hue in hues[1:]]
