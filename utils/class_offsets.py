"""What a few corrected masks teach of all others: by how many pixels the outlines of each class lie off.

If all masks err alike (an annotator draws hair too wide, or the eyes too small), no judge that learns from them can know it. A
few masks that a person has corrected show it: the offset of each class that makes the coarse masks agree best with them.

Legend: C classes, H x W pixels; a mask is uint8 (H, W), 0..C-1, 255 = ignored. Offsets are float (C,), px: the outline between
classes a and b moves by offsets[a] - offsets[b] into a. Class 0 has offset 0, so that a region in it shrinks by its offset.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from cli.lazy import scipy_stats
from data import IGNORE_INDEX
from utils.agreement_cpu import agreement
from utils.own_scores import REACH, signed_distance

SWEEPS = 3  # over the classes; later ones change little
ABSENT = -1e6  # px; distance to a class that a mask does not have, so that no offset makes it appear
CHANCE = 0.05  # one-sided: offsets that help held-out masks no more than this by chance are not used
PARTS = 5  # of the corrected masks, each held out once


def class_distances(mask: np.ndarray, num_classes: int) -> np.ndarray:
    """Signed distance to the outline of each class, float32 (C, H, W), px: positive inside.

    The outline lies midway between two pixels, so that the nearest ones are at 0.5 and -0.5.
    """
    valid = mask != IGNORE_INDEX
    found = np.full((num_classes, *mask.shape), ABSENT, np.float32)
    for c in range(num_classes):
        inside = mask == c
        if inside.any():
            distance = signed_distance(inside, valid)
            found[c] = distance - 0.5 * np.sign(distance)
    return found


def moved(mask: np.ndarray, distances: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """The mask with the outlines of its classes moved, uint8 (H, W); ignored pixels stay ignored.

    Each pixel gets the class in which it lies deepest. Offsets are taken off twice: where both depths are equal, one class has
    grown by as much as the other has shrunk.

    Args:
        distances: of `class_distances`.
    """
    if mask.min() == mask.max():  # one class, or nothing but ignored pixels: it has no outline
        return mask
    labels = (distances - 2 * offsets[:, None, None].astype(np.float32)).argmax(0).astype(np.uint8)
    return np.where(mask == IGNORE_INDEX, mask, labels)


def fit_offsets(masks: Sequence[np.ndarray], corrected: Sequence[np.ndarray], num_classes: int, theta: float) -> np.ndarray:
    """The offsets, in steps of half a px, with which the masks agree best with the corrected ones, by the mean of mIoU and BF.

    First one offset of all classes but class 0, which moves no outline between them; then one class after the other.

    Args:
        masks, corrected: pairs, each of one shape.
        theta: boundary tolerance of BF, see `utils.agreement.pixels`.
    """
    distances = [class_distances(mask, num_classes) for mask in masks]
    reach = max(1, round(REACH * max(math.hypot(*mask.shape) for mask in masks)))

    def score(offsets: np.ndarray) -> float:
        return float(np.mean([agreement(moved(mask, distance, offsets), right, num_classes, "bm", theta)
                              for mask, distance, right in zip(masks, distances, corrected)]))

    def with_class(c: int, value: float) -> float:
        return score(np.where(np.arange(num_classes) == c, value, offsets))

    def of_all(value: float) -> float:
        return score(np.where(np.arange(num_classes) > 0, value, 0.0))

    offsets = np.where(np.arange(num_classes) > 0, _best(of_all, reach), 0.0)
    for _ in range(SWEEPS):
        before = offsets.copy()
        for c in range(1, num_classes):
            offsets[c] = _best(partial(with_class, c), reach)
        if (offsets == before).all():
            break
    return offsets


def _best(score: Callable[[float], float], reach: int) -> float:
    """Of the whole numbers within reach the one with the highest score, or the half beside it, if that is better still.

    Of equally good ones it is the nearest to 0.
    """
    def first_best(values: Sequence[float]) -> float:
        scores = [score(value) for value in values]
        return next(value for value, each in zip(values, scores) if each >= max(scores) - 1e-9)

    whole = first_best(sorted(range(-reach, reach + 1), key=abs))
    return first_best([whole, whole - 0.5, whole + 0.5])


def held_out_gains(masks: Sequence[np.ndarray], corrected: Sequence[np.ndarray], num_classes: int, theta: float) -> np.ndarray:
    """What offsets add to the agreement of masks that they were not fitted on, float (masks,); of a single mask NaN.

    It is (mIoU + BF) / 2 of the moved mask, less that of the mask as it was drawn.
    """
    gains = np.full(len(masks), np.nan)
    for part in range(min(PARTS, len(masks)) if len(masks) > 1 else 0):
        out = np.arange(len(masks)) % PARTS == part
        kept, held = np.flatnonzero(~out).tolist(), np.flatnonzero(out).tolist()
        offsets = fit_offsets([masks[i] for i in kept], [corrected[i] for i in kept], num_classes, theta)
        for i in held:
            after = moved(masks[i], class_distances(masks[i], num_classes), offsets)
            gains[i] = (agreement(after, corrected[i], num_classes, "bm", theta)
                        - agreement(masks[i], corrected[i], num_classes, "bm", theta))
    return gains


def offsets_help(gains: np.ndarray) -> bool:
    """Whether `held_out_gains` are above 0 by more than chance: one-sided t-test at CHANCE. False of fewer than two."""
    if len(gains) < 2 or np.isnan(gains).any():
        return False
    if gains.std() == 0:
        return bool(gains[0] > 0)
    return bool(scipy_stats.ttest_1samp(gains, 0, alternative="greater").pvalue < CHANCE)
