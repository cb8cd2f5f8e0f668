"""How well two label maps agree: IoU, boundary F1 (BF), Dice, Boundary IoU, per sample and class.

One definition serves the teacher's weights, the student's weights and the test. All functions work on whole batches
on any device, without a loop over samples and without waiting for the device.

Legend: B maps, C classes (2 = binary: background 0, foreground 1), H x W pixels. A label map is an integer tensor
(B, H, W) of 0..C-1, 255 = ignored. Scores lie in 0..1, higher = better agreement. A pixel that either map ignores is
taken out of both, as if the picture ended there. NaN in a per-class score (B, C) means: this class does not count.

Sources: eq. 1-3 and 5 of the paper (BF, mIoU, their mean); Boundary IoU: Cheng et al. 2021.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from cli.lazy import torch
from data import IGNORE_INDEX

METRICS = ("miou", "bf", "bm")
GROUP = 30  # classes that are dilated at once, one bit of an int32 each


def hard_labels(logits: torch.Tensor) -> torch.Tensor:
    """Label map of the logits: sigmoid > 0.5 for one logit, else argmax.

    Args:
        logits: float (B, C, H, W).

    Returns:
        int64 (B, H, W); integers carry no gradient.
    """
    return (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(dim=1)


def agreement(a: torch.Tensor, b: torch.Tensor, num_classes: int, metric: str = "bm", theta: float = 3.0) -> torch.Tensor:
    """The quality score of a mask: how well annotation and pseudo-label agree (paper, eq. 5).

    Args:
        a, b: label maps (B, H, W).
        metric: `miou`, `bf`, or `bm` = (BF + mIoU) / 2.
        theta: see `pixels`.

    Returns:
        float32 (B,), without gradient.

    Raises:
        ValueError: unknown metric, or maps of different shape or not of integers.
    """
    if metric == "miou":
        return miou(a, b, num_classes)
    if metric == "bf":
        return bf(a, b, num_classes, theta)
    if metric == "bm":
        return (bf(a, b, num_classes, theta) + miou(a, b, num_classes)) / 2
    raise ValueError(f"unknown metric {metric!r}; there are {', '.join(METRICS)}")


def pixels(theta: float, height: int, width: int) -> float:
    """theta in pixels, 1..diagonal: a value >= 1 is in pixels, one below 1 a share of the picture's diagonal.

    The limits change no score: two pixels are at least 1 px apart and less than the diagonal.
    """
    diagonal = math.hypot(height, width)
    return min(max(1.0, theta if theta >= 1 else theta * diagonal), diagonal)


# --- regions ----------------------------------------------------------------------------------------------------


def class_counts(a: torch.Tensor, b: torch.Tensor, num_classes: int) -> tuple[torch.Tensor, ...]:
    """Pixels of each class in both maps, in a, and in b.

    Returns:
        (intersection, size of a, size of b), float32 (B, C) each.
    """
    a, b = _common(a, b)
    counts = []
    for c in range(num_classes):
        in_a, in_b = a == c, b == c
        counts.append(torch.stack([_pixels_of(in_a & in_b), _pixels_of(in_a), _pixels_of(in_b)]))
    return torch.stack(counts, dim=-1).float().unbind(0)  # 3 x (B, C)


def iou_per_class(a: torch.Tensor, b: torch.Tensor, num_classes: int) -> torch.Tensor:
    """|A and B| / |A or B|, (B, C); NaN for a class in neither map."""
    both, size_a, size_b = class_counts(a, b, num_classes)
    return both / (size_a + size_b - both)


def miou(a: torch.Tensor, b: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Mean IoU over the classes present in either map, (B,); 1 where no pixel is valid."""
    return _mean_over_classes(iou_per_class(a, b, num_classes), otherwise=1.0)


def dice(a: torch.Tensor, b: torch.Tensor, num_classes: int) -> torch.Tensor:
    """2 |A and B| / (|A| + |B|), mean over the classes present; binary: the foreground's, 1 if both are empty. (B,)"""
    both, size_a, size_b = class_counts(a, b, num_classes)
    scores = 2 * both / (size_a + size_b)
    return _mean_over_classes(scores[:, _scored_classes(num_classes).start:], otherwise=1.0)


# --- boundaries -------------------------------------------------------------------------------------------------


def bf_per_class(a: torch.Tensor, b: torch.Tensor, num_classes: int, theta: float = 3.0) -> torch.Tensor:
    """Boundary F1 of each class (paper, eq. 1-3).

    A boundary pixel is a pixel of the class with at least one of its 8 neighbours, inside the picture and valid, of
    another class. It is matched if a boundary pixel of the other map lies closer than theta (Euclidean, strictly).

    Args:
        a, b: label maps (B, H, W).
        theta: see `pixels`; 3 px is the 5x5 window of the published code.

    Returns:
        float32 (B, C), NaN for a class without a boundary in both maps, 0 where only one map has one. Binary: (B, 1),
        the foreground.
    """
    a, b = _common(a, b)
    reach = pixels(theta, *a.shape[-2:])
    scored, scores = _scored_classes(num_classes), []
    for first in range(scored.start, scored.stop, GROUP):
        size = min(GROUP, scored.stop - first)
        edge_a, edge_b = (_edges(labels, first, size) for labels in (a, b))  # (B, H, W), a bit for each class
        counts = [_count_bits(bits, size) for bits in (edge_a, edge_a & dilate_disk(edge_b, reach),
                                                       edge_b, edge_b & dilate_disk(edge_a, reach))]
        count_a, matched_a, count_b, matched_b = counts  # (B, classes of the group)
        share_a, share_b = matched_a / count_a.clamp(min=1), matched_b / count_b.clamp(min=1)
        score = 2 * share_a * share_b / (share_a + share_b).clamp(min=1e-12)
        scores.append(torch.where(count_a + count_b > 0, score, torch.nan))
    return torch.cat(scores, dim=1)


def bf(a: torch.Tensor, b: torch.Tensor, num_classes: int, theta: float = 3.0) -> torch.Tensor:
    """Mean boundary F1 over the classes that have a boundary in either map (paper, eq. 3), (B,).

    Where no class has one: 1 if the two maps are equal (two empty masks agree), else 0.
    """
    return mean_bf(bf_per_class(a, b, num_classes, theta), a, b)


def mean_bf(scores: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """`bf` from the scores (B, C) that `bf_per_class` gave the maps a and b, (B,)."""
    a, b = _common(a, b)
    equal = (a == b).flatten(1).all(dim=1).float()
    return _mean_over_classes(scores, otherwise=equal)


def boundary_iou(a: torch.Tensor, b: torch.Tensor, num_classes: int, share: float = 0.02) -> torch.Tensor:
    """IoU of the inner boundary bands (Cheng et al. 2021), mean over the classes present, (B,).

    Args:
        share: width of the band as a share of the diagonal (at least 1 px); the picture's frame counts as contour.

    Binary: the foreground's; 1 if both are empty.
    """
    a, b = _common(a, b)
    width = max(1, round(pixels(share, *a.shape[-2:])))
    scores = []
    for c in _scored_classes(num_classes):
        band_a, band_b = _inner_band(a == c, width), _inner_band(b == c, width)
        scores.append(_pixels_of(band_a & band_b) / _pixels_of(band_a | band_b))  # 0 / 0 = NaN: absent
    return _mean_over_classes(torch.stack(scores, dim=1), otherwise=1.0)


def _edges(labels: torch.Tensor, first: int, size: int) -> torch.Tensor:
    """Boundary pixels of the classes first ... first + size - 1, all at once: a bit for each class, one for all others.

    Returns:
        uint8 or int32 (B, H, W).
    """
    dtype = torch.uint8 if size < 8 else torch.int32
    group = torch.where((labels >= first) & (labels < first + size), labels - first, size)
    bits = torch.where(labels == IGNORE_INDEX, 0, 1 << group.to(dtype))
    unlike = (_pool(bits, 1, 1) & ~bits) != 0  # one of the 8 valid neighbours is of another class
    return torch.where(unlike, bits, 0)


def _count_bits(bits: torch.Tensor, size: int) -> torch.Tensor:
    """Pixels of each bit, (B, size)."""
    return torch.stack([_pixels_of(bits == 1 << c) for c in range(size)], dim=1)


def dilate_disk(mask: Any, radius: float, dilate: Callable[[Any, int, int], Any] | None = None,
                within: Sequence[int] | None = None) -> Any:
    """Pixels closer than `radius` (Euclidean, strictly) to a pixel of the mask.

    A disk on the pixel grid is the union of the rectangles inscribed in it.

    Args:
        mask: (B, H, W), bool, or integers whose bits are a mask each.
        radius: pixels, > 0.
        dilate: function (mask, dy, dx) -> mask dilated by a rectangle of (2 dy + 1) x (2 dx + 1) px; default: on tensors.
        within: (H, W) of the picture that holds both pixels; default: the mask's.
    """
    dilate, near = dilate or _pool, None
    for dy, dx in disk_rectangles(radius, *(within or mask.shape[-2:])):
        rectangle = dilate(mask, dy, dx)
        near = rectangle if near is None else near | rectangle
    return near


def disk_rectangles(radius: float, height: int, width: int) -> list[tuple[int, int]]:
    """Rectangles of (2 dy + 1) x (2 dx + 1) px, (dy, dx) each, whose union is the disk of `dilate_disk`.

    Args:
        height, width: of the picture that holds all pixels.
    """
    found, last = [], -1
    for dy in range(min(math.ceil(radius), height) - 1, -1, -1):
        dx = math.ceil(math.sqrt(radius**2 - dy**2)) - 1  # the largest whole number with dx^2 + dy^2 < radius^2
        dx = min(dx, width - 1)
        if dx > last:  # a wider rectangle than the taller ones before
            found.append((dy, dx))
            last = dx
    return found


def _pool(mask: torch.Tensor, dy: int, dx: int) -> torch.Tensor:
    """Dilate (B, H, W), bool or bits, by a rectangle of (2 dy + 1) x (2 dx + 1); outside the picture counts as False."""
    return _spread(_spread(mask, dx, -1), dy, -2)


def _spread(mask: torch.Tensor, radius: int, axis: int) -> torch.Tensor:
    """Dilate a tensor, bool or bits, by `radius` pixels along one axis: shifted copies, or-ed; the reach doubles each time.

    A longer step would miss pixels near the frame: the copy that should fill them lies outside the picture.
    """
    reach = 0
    while reach < radius:
        step = min(reach + 1, radius - reach)
        rest = mask.shape[axis] - step
        spread = mask.clone()
        if rest > 0:
            spread.narrow(axis, step, rest).bitwise_or_(mask.narrow(axis, 0, rest))
            spread.narrow(axis, 0, rest).bitwise_or_(mask.narrow(axis, step, rest))
        mask, reach = spread, reach + step
    return mask


def _inner_band(inside: torch.Tensor, width: int) -> torch.Tensor:
    """Pixels of a region at most `width` (chessboard) from its outside; the frame is outside."""
    outside = torch.nn.functional.pad(~inside, (1, 1, 1, 1), value=True)
    return inside & _pool(outside, width, width)[:, 1:-1, 1:-1]


# --- shared -----------------------------------------------------------------------------------------------------


def _common(a: torch.Tensor, b: torch.Tensor) -> list[torch.Tensor]:
    """Both maps, uint8, with 255 wherever either has it."""
    if a.shape != b.shape or a.dim() != 3:
        raise ValueError(f"two label maps (B, H, W) of one shape are needed, got {tuple(a.shape)} and {tuple(b.shape)}")
    if a.is_floating_point() or b.is_floating_point():
        raise ValueError("label maps hold integers; turn logits into labels with hard_labels")
    ignored = (a == IGNORE_INDEX) | (b == IGNORE_INDEX)
    return [each.masked_fill(ignored, IGNORE_INDEX).to(torch.uint8) for each in (a, b)]


def _pixels_of(mask: torch.Tensor) -> torch.Tensor:
    """Pixels of each bool map (B, H, W), (B,); counted as bytes, since PyTorch sums bools in int64."""
    return mask.view(torch.uint8).flatten(1).sum(1, dtype=torch.int32)


def _scored_classes(num_classes: int) -> range:
    """Binary boundary and Dice scores are the foreground's; with more classes each one counts."""
    return range(1, 2) if num_classes == 2 else range(num_classes)


def _mean_over_classes(scores: torch.Tensor, otherwise: torch.Tensor | float) -> torch.Tensor:
    """Mean over the classes of (B, C) that are not NaN; `otherwise` where none is left."""
    counted = ~scores.isnan()
    mean = torch.where(counted, scores, 0).sum(1) / counted.sum(1).clamp(min=1)
    return torch.where(counted.any(1), mean, otherwise)
