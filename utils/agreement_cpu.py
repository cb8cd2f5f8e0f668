"""The scores of utils/agreement.py for one pair of label maps, many times faster on a CPU than on tensors.

utils/agreement.py holds the definitions; tests compare the scores of both modules on thousands of maps. The computation
differs: on a GPU every class is dilated as a whole picture; here OpenCV dilates two binary maps in one call, and for many
classes the lowest and the highest label around each boundary pixel, all classes at once; the few pixels that these leave
open, and those that differ where theta is large, are searched one by one.

Legend: C classes (2 = binary), H x W pixels; a label map is a uint8 array (H, W) of 0..C-1, 255 = ignored.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from PIL import Image

from data import IGNORE_INDEX
from utils.agreement import METRICS, dilate_disk, disk_rectangles, pixels

Counts = tuple[tuple[list[int], list[int]], Any]  # arguments of `_miou`, of `_bf`
SQUARE = np.ones((3, 3), np.uint8)
FAR = 20.0  # px: from this tolerance on, a search of single pixels is faster than dilating whole pictures
AT_ONCE = 4096  # pixels that the search looks at in one call


def agreement(a: np.ndarray, b: np.ndarray, num_classes: int, metric: str = "bm",
              theta: float = 3.0) -> Any:
    """The quality score of a mask (paper, eq. 5): `miou`, `bf`, or `bm`, their mean; in 0..1.

    Args:
        a, b: label maps.
        metric: one of them; `all` gives the three in the order of METRICS.
        theta: boundary tolerance, see `utils.agreement.pixels`.

    Raises:
        ValueError: unknown metric, or maps of different shape or not of uint8.
    """
    if metric not in (*METRICS, "all"):
        raise ValueError(f"unknown metric {metric!r}; there are {', '.join(METRICS)}")
    if a.shape != b.shape or a.ndim != 2 or a.dtype != np.uint8 or b.dtype != np.uint8:
        raise ValueError(f"uint8 label maps (H, W) of one shape are needed, got {a.dtype} {a.shape} and {b.dtype} {b.shape}")
    valid, either = a.size, np.bitwise_or(a, b)
    if either.max(initial=0) == IGNORE_INDEX:
        ignored = cv2.inRange(np.maximum(a, b), IGNORE_INDEX, IGNORE_INDEX)  # 255 wherever either has it
        a, b, valid = a | ignored, b | ignored, valid - cv2.countNonZero(ignored)
    reach = pixels(theta, *a.shape)
    regions, boundaries = (_count_binary(a, b, _box_around(either), valid, reach) if num_classes == 2
                           else _count(a, b, num_classes, reach))
    miou, bf = _miou(*regions), _bf(*boundaries)
    if bf is None:  # no class has a boundary: two empty masks agree
        bf = float(np.array_equal(a, b))
    return {"miou": miou, "bf": bf, "bm": (bf + miou) / 2, "all": (miou, bf, (bf + miou) / 2)}[metric]


def _miou(intersections: Sequence[int], unions: Sequence[int]) -> float:
    """Mean IoU over the classes present in either map; 1 where no pixel is valid. Arguments: pixels of each class."""
    scores = [intersection / union for intersection, union in zip(intersections, unions) if union]
    return sum(scores) / len(scores) if scores else 1.0


def _bf(counts_a: Sequence[int], matched_a: Sequence[int], counts_b: Sequence[int], matched_b: Sequence[int]) -> float | None:
    """Mean boundary F1 over the classes that have a boundary in either map (paper, eq. 1-3); None where no class has one.

    Args: boundary pixels of each class in each map, and those that the other map matches.
    """
    scores = []
    for count_a, found_a, count_b, found_b in zip(counts_a, matched_a, counts_b, matched_b):
        if found_a and found_b:
            share_a, share_b = found_a / count_a, found_b / count_b
            scores.append(2 * share_a * share_b / (share_a + share_b))
        elif count_a or count_b:
            scores.append(0.0)
    return sum(scores) / len(scores) if scores else None


# --- binary: whole pictures -------------------------------------------------------------------------------------


def _count_binary(a: np.ndarray, b: np.ndarray, box: tuple[slice, slice], valid: int, reach: float) -> Counts:
    """Arguments of `_miou` and `_bf`. One picture holds both maps, one above the other, so each step is one call.

    Args:
        box: see `_box_around`.
        valid: pixels that are not ignored.
    """
    a, b = a[box], b[box]
    height, width = a.shape
    reach = min(reach, math.hypot(height, width))
    gap = math.ceil(reach)  # no dilated pixel of one map reaches the other
    labels = np.full((2 * height + gap, width + -width % 64), IGNORE_INDEX, np.uint8)  # OpenCV is fast with multiples of 64
    labels[:height, :width], labels[-height:, :width] = a, b
    inside = (labels == 1).view(np.uint8)
    edge = np.greater(inside, cv2.erode(labels, SQUARE)).view(np.uint8)  # 255 is never the lowest beside a label
    near = dilate_disk(edge, reach, _dilate, within=(height, width))

    def both(of_a: np.ndarray, of_b: np.ndarray) -> int:
        return cv2.countNonZero(of_a[:height] & of_b[-height:])

    size_a, size_b = cv2.countNonZero(inside[:height]), cv2.countNonZero(inside[-height:])
    foreground = both(inside, inside)
    either = size_a + size_b - foreground
    count_a, count_b = cv2.countNonZero(edge[:height]), cv2.countNonZero(edge[-height:])
    boundaries = [count_a], [both(edge, near)], [count_b], [both(near, edge)]
    return ([valid - either, foreground], [valid - foreground, either]), boundaries


def _box_around(either: np.ndarray) -> tuple[slice, slice]:
    """Where a map is not background, with a margin of one pixel."""
    left, top, width, height = cv2.boundingRect(either)
    return np.s_[max(top - 1, 0):top + height + 1, max(left - 1, 0):left + width + 1]


def _dilate(mask: np.ndarray, dy: int, dx: int) -> np.ndarray:
    """Dilate a mask by a rectangle of (2 dy + 1) x (2 dx + 1)."""
    return cv2.dilate(mask, _ones(dy, dx))


def _ones(dy: int, dx: int) -> np.ndarray:
    return np.ones((2 * dy + 1, 2 * dx + 1), np.uint8)


# --- many classes: all at once ----------------------------------------------------------------------------------


def _count(a: np.ndarray, b: np.ndarray, num_classes: int, reach: float) -> Counts:
    """Arguments of `_miou` and `_bf`."""
    differ = np.flatnonzero(a != b)
    only_a, only_b = (np.bincount(labels.ravel()[differ], minlength=num_classes) for labels in (a, b))
    sizes_a = _class_sizes(a)[:num_classes]
    edge_a, edge_b = _outlines(a), _outlines(b)
    count_a, count_b = _class_sizes(edge_a), _class_sizes(edge_b)
    if reach < math.hypot(*a.shape):
        unlike = np.flatnonzero(edge_a != edge_b)  # all other boundary pixels match at their own place
        matched_a = count_a - _lonely(edge_a, edge_b, unlike, count_b, reach)
        matched_b = count_b - _lonely(edge_b, edge_a, unlike, count_a, reach)
    else:  # every pixel of the other map is close enough
        matched_a, matched_b = np.where(count_b, count_a, 0), np.where(count_a, count_b, 0)
    boundaries = [counts[:num_classes].tolist() for counts in (count_a, matched_a, count_b, matched_b)]
    return ((sizes_a - only_a).tolist(), (sizes_a + only_b).tolist()), boundaries


def _class_sizes(labels: np.ndarray) -> np.ndarray:
    """Pixels of each label, (256,); several times faster than NumPy's bincount."""
    return np.array(Image.fromarray(labels).histogram())


def _outlines(labels: np.ndarray) -> np.ndarray:
    """The map with everything but its boundary pixels ignored.

    A boundary pixel's 3 x 3 square holds another label: its lowest one is not its highest one.
    """
    lowest = cv2.erode(labels, SQUARE)  # 255 is never the lowest beside a label
    valid = labels
    if labels.max(initial=0) == IGNORE_INDEX:
        valid = np.where(labels == IGNORE_INDEX, np.uint8(0), labels)  # 0 is never the highest beside a label
    uniform = cv2.compare(lowest, cv2.dilate(valid, SQUARE), cv2.CMP_EQ)  # 255 where it holds
    return np.bitwise_or(labels, uniform, out=uniform)


def _lonely(own: np.ndarray, other: np.ndarray, unlike: np.ndarray, count_other: np.ndarray, reach: float) -> np.ndarray:
    """Boundary pixels of each class in `own` with none of their class in `other` closer than `reach`, (256,).

    Args:
        own, other: `_outlines`.
        unlike: places where these are unlike, in the flattened pictures.
        count_other: boundary pixels of each class in `other`, (256,).
    """
    places = unlike[own.ravel()[unlike] != IGNORE_INDEX]
    labels = own.ravel()[places]
    missed = count_other[labels] == 0  # nowhere
    some = np.flatnonzero(~missed)
    missed[some] = (_search if reach >= FAR else _search_extremes)(labels[some], other, places[some], reach)
    return np.bincount(labels[missed], minlength=IGNORE_INDEX + 1)


def _search_extremes(labels: np.ndarray, other: np.ndarray, places: np.ndarray, reach: float) -> np.ndarray:
    """The same as `_search`, faster if `reach` is small.

    The lowest and the highest label of the boundary pixels around decide, unless a label lies between them: such places,
    where three classes meet, are searched pixel by pixel.
    """
    rectangles = disk_rectangles(reach, *other.shape)
    lowest = functools.reduce(np.minimum, (cv2.erode(other, _ones(*each)) for each in rectangles)).ravel()[places]
    after = other + np.uint8(1)  # labels from 1 on, and 0 where there is no boundary
    highest = functools.reduce(np.maximum, (_dilate(after, *each) for each in rectangles)).ravel()[places]
    missed = (labels != lowest) & (labels + np.uint8(1) != highest)
    open_places = np.flatnonzero(missed & (labels > lowest) & (labels + np.uint8(1) < highest))
    missed[open_places] = _search(labels[open_places], other, places[open_places], reach)
    return missed


def _search(labels: np.ndarray, other: np.ndarray, places: np.ndarray, reach: float) -> np.ndarray:
    """Whether no pixel of `other` closer than `reach` to each place (places,) has the place's label (places,), bool.

    All places look at their nearest pixels, then those that are left at the next ones, and so on.
    """
    lonely = np.arange(len(places))
    if len(places):
        margin = math.ceil(reach)
        rows, columns = np.divmod(places, other.shape[1])
        other = cv2.copyMakeBorder(other, margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=IGNORE_INDEX)
        places = (rows + margin) * other.shape[1] + columns + margin
        offsets, begin = _disk_offsets(reach, other.shape[1]), 0
        while begin < len(offsets) and len(lonely):
            end = begin + max(1, AT_ONCE // len(lonely))
            found = other.ravel()[places[lonely] + offsets[begin:end, None]] == labels[lonely]  # (offsets, places)
            lonely, begin = lonely[~found.any(0)], end
    missed = np.zeros(len(places), bool)
    missed[lonely] = True
    return missed


@functools.lru_cache
def _disk_offsets(radius: float, width: int) -> np.ndarray:
    """Steps to the pixels closer than `radius` in a flattened picture of that width, nearest first, (pixels,)."""
    reach = math.ceil(radius)
    dy, dx = np.mgrid[-reach:reach + 1, -reach:reach + 1].reshape(2, -1)
    squared = dy**2 + dx**2
    order = np.argsort(squared, kind="stable")
    return (dy * width + dx)[order][squared[order] < radius**2]
