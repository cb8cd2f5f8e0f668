"""An audit of the annotations of many rows, one picture after the other, so that memory does not grow with their number."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cli.files import progress
from data.pictures import read_checked_mask, resize_labels, write_mask
from engine.judges import certain, label_map, resized
from utils.faults import Box, Finding, Scene, scene_of
from utils.mend import mended
from utils.verdict import Verdict, inspect

LARGEST = 800  # px: a mask whose longer side is longer is looked at in that size; offsets and boxes are in its own px


def working_size(size: Sequence[int]) -> tuple[int, int]:
    """The (H, W) in which a mask of a size (H, W) is looked at."""
    scale = min(1.0, LARGEST / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def scene_at(labels: np.ndarray, chances: np.ndarray, background: int | None, tolerance: float | None) -> tuple[Scene, float]:
    """(the scene at the working size, by how much its px are larger than the mask's own).

    Args:
        labels: uint8 (H, W), at its own size.
        chances: of a judge, at any size.
        tolerance: in px of the mask, or None.
    """
    size = working_size(labels.shape)
    scale = labels.shape[0] / size[0]
    scene = scene_of(resize_labels(labels, size), resized(chances, size), background, tolerance and tolerance / scale)
    return scene, scale


def audit_rows(rows: pd.DataFrame, judge: Iterable[np.ndarray], num_classes: int, background: int | None,
               tolerance: float | None, proposal_at: Callable[[int], Path]) -> list[Verdict]:
    """The verdicts on all rows. Writes the judge's label maps.

    Args:
        judge: of `engine.judges`.
        tolerance: px, None = by the size of each mask.
        proposal_at: position of a row -> path of its proposal, the judge's label map at the mask's size.
    """
    verdicts = []
    for position, (path, chances) in enumerate(zip(progress(rows["mask"], "auditing", len(rows), "mask"), judge)):
        labels = read_checked_mask(path, num_classes)
        size = (labels.shape[0], labels.shape[1])
        large = resized(chances, size)
        scene, scale = scene_at(labels, large if working_size(size) == size else chances, background, tolerance)
        write_mask(proposal_at(position), label_map(large), num_classes)
        verdicts.append(in_own_pixels(inspect(scene), scale))
    return verdicts


def mend_rows(rows: pd.DataFrame, verdicts: Sequence[Verdict], num_classes: int, background: int | None,
              tolerance: float | None, proposals: Sequence[Path], mend_at: Callable[[int], Path]) -> list[str]:
    """What was mended in each row, a text; empty: nothing. Writes the mended masks; a mask with nothing to mend gets no file.

    Args:
        verdicts: what they call loose or tight is moved, so they are to be `utils.verdict.settled`.
        tolerance: see `audit_rows`.
        proposals: the judge's label maps.
        mend_at: position of a row -> path of its mended mask.
    """
    notes = [""] * len(rows)
    for position, (path, verdict) in enumerate(zip(progress(rows["mask"], "mending", len(rows), "mask"), verdicts)):
        if not any(found.kind in ("loose", "tight") for found in verdict.findings):
            continue
        labels, proposal = (read_checked_mask(each, num_classes) for each in (path, proposals[position]))
        seen = certain(resize_labels(proposal, working_size(labels.shape)), num_classes)
        scene, scale = scene_at(labels, seen, background, tolerance)
        better, notes[position] = mended(scene, verdict, labels, proposal, scale)
        if better is not None:
            write_mask(mend_at(position), better, num_classes)
    return notes


def in_own_pixels(verdict: Verdict, scale: float) -> Verdict:
    """A verdict whose offsets, lengths and boxes are in px of the mask's file."""
    if scale == 1:
        return verdict

    def larger(box: Box) -> Box:
        x, y, w, h = (round(value * scale) for value in box)
        return x, y, w, h

    def change(found: Finding) -> Finding:
        offset = found.offset if math.isnan(found.offset) else found.offset * scale
        return dataclasses.replace(found, offset=offset, length=round(found.length * scale), box=larger(found.box))

    return dataclasses.replace(verdict, finding=verdict.finding and change(verdict.finding), diagonal=verdict.diagonal * scale,
                               places=list(map(larger, verdict.places)), findings=list(map(change, verdict.findings)))
