"""Masks mended by their own outlines: each component that is too loose or too tight all along is moved by its offset, if the
judge is sure. The annotator's shape stays; nothing is drawn anew.

Legend: as in utils/faults.py.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from data import IGNORE_INDEX
from data.pictures import resize_labels
from utils.faults import Box, Finding, Scene, components, nearest_component, placed
from utils.outlines import moved, outline, outline_errors
from utils.verdict import Verdict

LEFT = 0.5  # largest share of a component's doubt that may be left after it was moved, or the judge is not sure


def mended(scene: Scene, verdict: Verdict, labels: np.ndarray, proposal: np.ndarray,
           scale: float) -> tuple[np.ndarray | None, str]:
    """(the mended mask, uint8 (H, W), or None where nothing is mended; what was done, or why not, in words; may be empty).

    Args:
        scene: at the working size.
        verdict: on this scene; only components that it calls loose or tight are moved. In px of the annotation's own size.
        labels, proposal: the annotation and the judge's label map at the annotation's own size.
        scale: own px of a px of the scene.
    """
    result, notes = labels.copy(), []
    for found in verdict.findings:
        if found.kind not in ("loose", "tight"):
            continue
        words = f"class {found.label} at {found.box[0]}, {found.box[1]}"
        part = component_of(scene, found, scale)
        left = doubt_after(scene, found.label, found.offset / scale, part)
        if left > LEFT * found.doubt:
            notes.append(f"{words}: not moved, since {100 * left:.0f} % of its outline would stay in doubt")
            continue
        own = own_component(labels == found.label, part)
        here = nearest_to(scene.labels == found.label, part, own) & (proposal != IGNORE_INDEX)
        result = move_component(result, labels, proposal, own, here, found.offset, scene.background)
        way = "in" if found.offset > 0 else "out"
        notes.append(f"{words}: moved {way} by {abs(found.offset):.1f} px; {100 * found.doubt:.0f} % of its outline in "
                     f"doubt before, {100 * left:.0f} % now")
    changed = not np.array_equal(result, labels)
    return (result if changed else None), "; ".join(notes)


def component_of(scene: Scene, found: Finding, scale: float = 1.0) -> np.ndarray:
    """The component of a finding, bool (H, W): the one whose box is nearest; empty where the scene has none of its class.

    Of two in the same box it is the one with the finding's number. It is counted in the same part of the scene as by
    `class_findings`: OpenCV's order changes where a picture is cut.

    Args:
        scale: px of the finding in a px of the scene.
    """
    cut = scene.around(found.label)

    def away(each: tuple[int, np.ndarray, Box]) -> tuple[float, bool]:
        return sum(abs(scale * a - b) for a, b in zip(placed(each[2], cut), found.box)), each[0] != found.number

    whole = np.zeros(scene.labels.shape, bool)
    nearest = min(components(cut.labels == found.label, math.prod(scene.size)), key=away, default=None)
    if nearest:
        (x, y), (h, w) = cut.corner, nearest[1].shape
        whole[y:y + h, x:x + w] = nearest[1]
    return whole


def doubt_after(scene: Scene, label: int, offset: float, part: np.ndarray) -> float:
    """The share of a component's outline, 0..1, that would be in doubt if it were moved by its offset.

    Args:
        label: class of the component.
        offset: px of the scene.
        part: the component, bool (H, W).
    """
    edge = outline(moved(part, offset), scene.valid)
    errors = outline_errors(edge, scene.predicted == label)
    return float((np.abs(errors) > scene.tolerance).mean()) if len(errors) else 1.0


def own_component(region: np.ndarray, part: np.ndarray) -> np.ndarray:
    """The component of a region, bool (H, W), that shares most pixels with `part`, bool at any size; empty if none does."""
    there = resize_labels(part.astype(np.uint8), region.shape) > 0
    _, numbers = cv2.connectedComponents(region.astype(np.uint8), connectivity=8)
    inside = np.bincount(numbers[there], minlength=1)
    inside[0] = 0
    return (numbers == inside.argmax()) & region


def nearest_to(region: np.ndarray, part: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Where `own`, a component in a file, belongs to `part`, the one that was judged; bool, as `own`.

    Both differ where ignored pixels or a smaller size part the file's component in several.

    Args:
        region, part: bool, at the working size; `part` is a component of `region`.
    """
    within = resize_labels(own.astype(np.uint8), region.shape) > 0
    numbers = nearest_component(region & within)
    same = numbers == np.bincount(numbers[part]).argmax()
    return resize_labels(same.astype(np.uint8), own.shape) > 0


def move_component(result: np.ndarray, labels: np.ndarray, proposal: np.ndarray, own: np.ndarray, here: np.ndarray,
                   offset: float, background: int | None) -> np.ndarray:
    """`result` with a component of `labels` moved by its offset, px.

    It grows over everything but ignored pixels. What it leaves becomes what the judge sees there, or, where that is the same
    class, the background or else the nearest other class.

    Args:
        own: the component, bool (H, W), not empty.
        here: bool (H, W), where pixels may change.
    """
    label = int(labels[own][0])
    after = moved(own, offset)
    new, gap = after & here & (labels != IGNORE_INDEX), own & here & ~after
    result = result.copy()
    result[gap] = np.where(proposal[gap] != label, proposal[gap], IGNORE_INDEX)
    unknown = gap & (result == IGNORE_INDEX)
    if unknown.any():
        result[unknown] = background if background is not None else nearest_label(labels, unknown | own)[unknown]
    result[new] = label
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
