"""Masks mended by their own outlines: each component that is too loose or too tight all along is moved by its offset, if the
judge is sure. The annotator's shape stays; nothing is drawn anew.

Legend: as in utils/faults.py.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from data import IGNORE_INDEX
from utils.faults import Finding, Scene, components
from utils.outlines import edge_distance, moved, outline, outline_errors
from utils.verdict import Verdict

LEFT = 0.5  # largest share of a component's doubt that may be left after it was moved, or the judge is not sure


def mended(scene: Scene, verdict: Verdict, labels: np.ndarray, proposal: np.ndarray,
           scale: float) -> tuple[np.ndarray | None, str]:
    """(the mended mask, uint8 (H, W), or None where nothing is mended; what was done, or why not, in words; may be empty).

    Args:
        scene, verdict: at the working size.
        labels, proposal: the annotation and the judge's label map at the annotation's own size.
        scale: own px of a px of the scene.
    """
    result, notes = labels.copy(), []
    for found in verdict.findings:
        if found.kind not in ("loose", "tight"):
            continue
        words = f"class {found.label} at {round(found.box[0] * scale)}, {round(found.box[1] * scale)}"
        left = doubt_after(scene, found)
        if left > LEFT * found.doubt:
            notes.append(f"{words}: not moved, since {100 * left:.0f} % of its outline would stay in doubt")
            continue
        result = move_component(result, labels, proposal, found, found.offset * scale, scene.background, scale)
        way = "in" if found.offset > 0 else "out"
        notes.append(f"{words}: moved {way} by {abs(found.offset) * scale:.1f} px; {100 * found.doubt:.0f} % of its outline in "
                     f"doubt before, {100 * left:.0f} % now")
    changed = not np.array_equal(result, labels)
    return (result if changed else None), "; ".join(notes)


def doubt_after(scene: Scene, found: Finding) -> float:
    """The share of a component's outline, 0..1, that would be in doubt if it were moved by its offset."""
    parts = components(scene.labels == found.label, math.prod(scene.size))
    part = next(part for number, part, _ in parts if number == found.number)
    edge = outline(moved(part, found.offset), scene.valid)
    errors = outline_errors(edge, edge_distance(scene.predicted == found.label))
    return float((np.abs(errors) > scene.tolerance).mean()) if len(errors) else 1.0


def move_component(result: np.ndarray, labels: np.ndarray, proposal: np.ndarray, found: Finding, offset: float,
                   background: int | None, scale: float) -> np.ndarray:
    """`result` with a component of `labels` moved by its offset, px.

    It grows over everything but ignored pixels. What it leaves becomes what the judge sees there, or, where that is the same
    class, the background or else the nearest other class.
    """
    region = labels == found.label
    _, numbers = cv2.connectedComponents(region.astype(np.uint8), connectivity=8)
    x, y, w, h = (round(value * scale) for value in found.box)
    inside = np.bincount(numbers[y:y + h + 1, x:x + w + 1].ravel())
    inside[0] = 0
    part = numbers == inside.argmax()
    new = moved(part, offset) & (labels != IGNORE_INDEX)
    gap = part & ~new
    result = result.copy()
    result[gap] = np.where(proposal[gap] != found.label, proposal[gap], IGNORE_INDEX)
    unknown = gap & (result == IGNORE_INDEX)
    if unknown.any():
        result[unknown] = background if background is not None else nearest_label(labels, unknown | part)[unknown]
    result[new] = found.label
    return result


def nearest_label(labels: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """The label of the nearest pixel that is neither hidden nor ignored, for each pixel; uint8 (H, W)."""
    away = (hidden | (labels == IGNORE_INDEX)).astype(np.uint8)
    if away.all():
        return labels.copy()
    _, pixel = cv2.distanceTransformWithLabels(away, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL)
    of_pixel = np.zeros(pixel.max() + 1, np.uint8)
    of_pixel[pixel[away == 0]] = labels[away == 0]
    return of_pixel[pixel]
