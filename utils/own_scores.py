"""Own weights: a student's scores, averaged over time, tell doubted annotations; and what a further pass learns of those.

While a network trains, it fits annotations that agree with one another earlier than wrong ones. So the mean over the epochs of
how well each prediction, at its own step, agrees with its annotation ranks the annotations, without a teacher.

Legend: N rows, C classes, H x W pixels; a mask is uint8 (H, W), 0..C-1, 255 = ignored; probabilities lie in 0..1.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from data import IGNORE_INDEX
from utils.judge import weakness
from utils.weighting import sharpened

TOLERANCE = 2 / 3  # of theta, in the scores: a smaller one finds coarse masks better (docs/results)
ONE_SIDED = 0.65  # share of the doubted masks that err the same way; see `one_sided`
DOUBTED = 0.5  # a mask of a lower weight is doubted
SURE = 0.98  # probabilities count as SURE at most and 1 - SURE at least, so that few pixels cannot outvote many
REACH = 0.045  # how far a doubted outline may move either way, as a share of the picture's diagonal
STEPS = 16  # levels each way


def own_tolerance(theta: float) -> float:
    """The tolerance of the student's scores: two thirds of theta; at least 1 px where theta is in pixels, see `pixels`."""
    return max(1.0, TOLERANCE * theta) if theta >= 1 else TOLERANCE * theta


def adjusted_for_classes(by_class: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Mean scores as if all masks held the same classes.

    Thin classes have low scores in every mask, so that a mean over classes tells as much of which classes a mask holds as of
    how well it is drawn. Here each class's score counts by how far it lies above that class's mean over all rows. In a trial
    on CamVid (60 % noise, another seed than those of docs/results) it raised the AUROC from 0.91 to 0.96. It is for weights
    where the plain means form two groups: adjusted scores of clean masks have a tail that passes for a second group (in trials,
    not kept, up to 53 of 367 masks).

    Args:
        by_class: float (N, C), mean score of each class; NaN = the mask does not hold it. (A class that is predicted astray in
            some epoch would score 0 for ever, and make its class easy for all other masks.)
        means: float (N,), mean scores of the rows; NaN = no score yet.

    Returns:
        float (N,), about the mean of `means`; `means` for a row without a class's score.
    """
    known = ~np.isnan(by_class)
    if not known.any():
        return means
    scores = np.where(known, by_class, 0).astype(float)
    above = np.where(known, scores - scores.sum(0) / np.maximum(known.sum(0), 1), 0)
    adjusted = above.sum(1) / np.maximum(known.sum(1), 1) + np.nanmean(means)
    return np.where(known.any(1), adjusted, means)


def own_weights(means: np.ndarray, outlined: np.ndarray | None = None) -> tuple[np.ndarray, str | None]:
    """The weights of all rows by their mean scores, and the reason, as text, where all are 1.

    Args:
        means: float (N,), about 0..1; NaN = no score yet.
        outlined: bool (N,), masks that have an outline: they alone make the groups of scores, see `sharpened`; default: all.

    Returns:
        (float (N,) in 0..1, `sharpened` scores, 1 for a row without one; reason or None)
    """
    weights, known = np.ones(len(means)), ~np.isnan(means)
    if not known.any():
        return weights, "there are no scores yet"
    weights[known] = sharpened(means[known].astype(float), None if outlined is None else outlined[known])
    few = weakness(None, weights)
    if few or (weights == 1).all():
        return np.ones(len(means)), few or "the scores form one group: no mask stands out as coarse"
    return weights, None


def one_sided(weights: np.ndarray, larger: np.ndarray, outlined: np.ndarray | None = None) -> str | None:
    """The reason, as text, not to trust weights because the doubted masks are the most and err alike; None if there is none.

    If all masks are drawn coarsely, some too loose and some too tight, a network may side with one kind. Its scores then
    look as if the other kind were coarse and this one good, and its weights would teach the error. Coarse masks among good ones
    err both ways, or are the fewer ones. In trials at 60 % noise 51 to 57 % of the doubted masks erred to the commoner side
    (people and portraits), and 74 to 92 % where every mask was noisy: ONE_SIDED is half-way. In
    docs/results/portraits.md, with every mask noisy, they are 66 to 69 %: the margin is small.

    Args:
        weights: float (N,), of `own_weights`.
        larger: float (N,), how often a prediction's region was larger than the mask's, 0..1; NaN = not known.
        outlined: bool (N,), the masks that have an outline, which alone count; default: all.
    """
    if outlined is not None:
        weights, larger = weights[outlined], larger[outlined]
    doubted = (weights < DOUBTED) & ~np.isnan(larger)
    if not len(weights) or doubted.mean() <= 0.5:
        return None
    decided = larger[doubted & (larger != 0.5)]  # as often larger as smaller is no direction
    if len(decided) < doubted.sum() / 2:
        return None
    share = float((decided > 0.5).mean())
    commoner = max(share, 1 - share)
    if commoner < max(ONE_SIDED, 0.5 + 1 / math.sqrt(len(decided))):  # the second is two standard errors from chance
        return None
    return (f"{100 * doubted.mean():.0f} % of the masks are doubted, and of those that err to one side {100 * commoner:.0f} % "
            f"seem too {'tight' if share > 0.5 else 'loose'}: either these are coarse, or all the others")


def signed_distance(inside: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
    """Distance in px to the nearest valid pixel of the other kind, float32 (H, W): positive inside, negative outside.

    Args:
        inside: bool (H, W).
        valid: bool (H, W), pixels that are one or the other; default: all. The distance of the others means nothing.
    """
    outside = ~inside if valid is None else valid & ~inside
    to_outside, to_inside = (cv2.distanceTransform((~each).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
                             for each in (outside, inside))
    return np.where(inside, to_outside, -to_inside)


def likely_level_set(inside: np.ndarray, probability: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
    """The region moved inwards or outwards to where it is most likely, bool (H, W); its shape stays the annotator's.

    Of the regions {signed distance > t} it is the one with the largest sum of log(p / (1 - p)) over its pixels: the likeliest
    one, if pixels were independent. Of equally likely ones the least moved; t reaches from -REACH to REACH of the diagonal.

    Args:
        inside: bool (H, W).
        probability: float (H, W), that a pixel is inside; NaN = unknown, which speaks for neither.
        valid: bool (H, W), pixels that count; default: all.
    """
    distance = signed_distance(inside, valid)
    odds = np.clip(probability, 1 - SURE, SURE).astype(float)
    odds = np.nan_to_num(np.log(odds / (1 - odds))) * (1 if valid is None else valid)
    step = round(REACH * math.hypot(*inside.shape) / STEPS, 1) or REACH
    levels = np.arange(-STEPS, STEPS + 1) * step
    # the sum over {distance > t}: of all pixels in bins above t
    sums = np.bincount(np.searchsorted(levels, distance.ravel(), side="left"), odds.ravel(), len(levels) + 1)
    likelihood = sums[::-1].cumsum()[::-1][1:]  # (levels,)
    best = np.flatnonzero(likelihood >= likelihood.max() - 1e-9)
    return distance > levels[best[np.abs(levels[best]).argmin()]]


def learnt_mask(mask: np.ndarray, average: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a further pass learns of a doubted mask, and which of its pixels count: (uint8 (H, W), bool (H, W)).

    A binary mask is moved to its most likely level set, and counts where that and the average agree. One of more classes stays
    as it is, and counts where it is the average's most probable class. Ignored pixels stay ignored.

    Args:
        average: float, the averaged prediction: binary (H, W), of the foreground; else (C, H, W). A pixel that is NaN was never
            predicted: it does not count, and says nothing of where the mask is likely.
    """
    if average.ndim == 3:
        return mask, (mask == average.argmax(0)) & ~np.isnan(average[0])
    valid = mask != IGNORE_INDEX
    moved = likely_level_set(mask == 1, average, valid)
    return np.where(valid, moved, mask).astype(np.uint8), (moved == (average > 0.5)) & ~np.isnan(average)
