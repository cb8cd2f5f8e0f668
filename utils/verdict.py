"""The verdict on an annotation as a whole, from what is wrong with its components: score, worst finding, doubtful places.

Legend: as in utils/faults.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np

from data import IGNORE_INDEX
from utils.faults import HASTY, OBJECTS, Box, Finding, Scene, class_findings

STANDS_OUT = 2.0  # deviations above the data set's median, see `settled`
UNSEEN = 0.5  # share of a class's outlines
UNLEARNT = 0.5  # trust below which an empty mask is taken as one that lacks its object
PLACES = 6  # doubtful places that are named, the largest ones


@dataclass(frozen=True)
class Verdict:
    """An annotation as a whole.

    score: 0..1, low = fix it first.
    finding: the one that matters most; None where there is neither an annotated nor a predicted object.
    doubt: share of all outlines in doubt, 0..1.
    places: boxes of the doubtful places, the largest first.
    findings: all of them, in no order.
    diagonal: of the picture, in the px of the offsets.
    """

    score: float
    finding: Finding | None
    doubt: float
    places: list[Box]
    findings: list[Finding]
    diagonal: float


def inspect(scene: Scene) -> Verdict:
    """The verdict on an annotation."""
    findings = [finding for label in scene.classes for finding in class_findings(scene, label)]
    length = sum(each.length for each in findings)
    doubt = sum(each.doubt * each.length for each in findings) / length if length else 0.0
    worst = max(findings, key=lambda each: each.importance, default=None)
    places = doubtful_places(scene.labels, scene.predicted, scene.tolerance)
    return Verdict(score_of(findings), worst, doubt, places, findings, scene.diagonal)


def settled(verdicts: list[Verdict]) -> list[Verdict]:
    """Verdicts in which an outline is loose, tight or hasty only if it stands out in its data set.

    A judge that works at a small size, or hair and leaves, leave some doubt at every outline, and offsets that spread. A doubt
    stands out from the median plus STANDS_OUT deviations on, an offset from STANDS_OUT deviations on either way, so that an
    offset that all masks share does stand out. Deviations are estimated from the median absolute deviation, those of offsets in
    shares of the pictures' diagonals, so that pictures of any sizes may be mixed. What the judge says of `unseen_classes` does
    not count at all.
    """
    seen = [(each.doubt, each.offset / verdict.diagonal) for verdict in verdicts for each in verdict.findings
            if each.kind not in OBJECTS]
    doubts, shares = np.array(seen).reshape(-1, 2).T  # (components,) each; none where the judge sees nothing
    doubtful = np.median(doubts) + STANDS_OUT * deviation(doubts) if seen else HASTY
    far = STANDS_OUT * deviation(shares) if seen else 0.0
    unseen = unseen_classes(verdicts)

    def settle(finding: Finding, diagonal: float) -> Finding:
        if finding.label in unseen:
            return replace(finding, kind="fine", severity=0.0)
        if finding.kind in OBJECTS or finding.kind in ("loose", "tight") and abs(finding.offset) >= far * diagonal:
            return finding
        wanders = finding.kind != "fine" and finding.doubt >= max(HASTY, doubtful)
        return replace(finding, kind="hasty" if wanders else "fine")

    return [judged([settle(found, each.diagonal) for found in each.findings], unseen, each) for each in verdicts]


def judged(findings: list[Finding], unseen: set[int], verdict: Verdict) -> Verdict:
    """A verdict with other findings, whose worst one and score are those of the classes that the judge sees."""
    counted = [each for each in findings if each.label not in unseen]
    worst = max(counted or findings, key=lambda each: each.importance, default=None)
    return replace(verdict, score=score_of(counted), finding=worst, findings=findings)


def unseen_classes(verdicts: list[Verdict]) -> set[int]:
    """Classes that the judge does not see: more than UNSEEN of their annotated outlines, by length, are of objects that it
    takes for something else.

    A small network, or one that was trained briefly, overlooks small and rare classes, and would call each of their objects a
    fault.
    """
    lengths: dict[int, list[int]] = {}  # class -> px of outlines that the judge overlooks, and of all
    for finding in (each for verdict in verdicts for each in verdict.findings if each.number):
        found = lengths.setdefault(finding.label, [0, 0])
        found[0] += finding.length * (finding.kind in OBJECTS)
        found[1] += finding.length
    return {label for label, (overlooked, length) in lengths.items() if overlooked > UNSEEN * length}


def deviation(values: np.ndarray) -> float:
    """The standard deviation that values (N,) would have if they were normal, by their median absolute deviation."""
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def tempered(verdict: Verdict, trust: float, labels: int) -> Verdict:
    """A verdict whose score counts no more than a training trusted the annotation.

    Where annotation and judge are both empty, and the training did not trust that, an object was seen before it was unlearnt.

    Args:
        trust: 0..1, of `engine.judges.trust_of_run`.
        labels: number of classes.
    """
    finding = verdict.finding
    if finding is None and trust < UNLEARNT and labels == 2:
        finding = Finding("missing", 1, None, math.nan, 1.0, 1, (0, 0, 1, 1), 0, 1.0, 1 - trust)
    return replace(verdict, score=verdict.score * trust, finding=finding)


def score_of(findings: list[Finding]) -> float:
    """0..1: how well the outlines agree, times how sure it is that no object is extra, missing or swapped.

    Outlines agree by the mean `error` of all findings, weighted by the length of their outlines.
    """
    length = sum(each.length for each in findings)
    agree = 1 - sum(each.error * each.length for each in findings) / length if length else 1.0
    return agree * (1 - max((each.severity for each in findings if each.kind in OBJECTS), default=0.0))


def doubtful_places(labels: np.ndarray, predicted: np.ndarray, tolerance: float) -> list[Box]:
    """Boxes, px, of where an annotation and its judge differ by more than the tolerance, the PLACES largest, largest first."""
    wrong = doubtful_pixels(labels, predicted, tolerance).astype(np.uint8)
    _, numbers = cv2.connectedComponents(wrong, connectivity=8)
    areas = np.bincount(numbers[wrong > 0])
    order = np.argsort(-areas, kind="stable")[:PLACES]
    boxes = (cv2.boundingRect((numbers == number).astype(np.uint8)) for number in order.tolist() if areas[number])
    return [(x, y, w, h) for x, y, w, h in boxes]


def doubtful_pixels(labels: np.ndarray, predicted: np.ndarray, tolerance: float) -> np.ndarray:
    """Pixels that annotation and judge label otherwise, without strips that are narrower than the tolerance; bool (H, W).

    Args:
        labels, predicted: uint8 (H, W); where either is 255 (ignored) there is no doubt.
    """
    valid = (labels != IGNORE_INDEX) & (predicted != IGNORE_INDEX)
    wrong = ((labels != predicted) & valid).astype(np.uint8)
    side = 2 * math.ceil(tolerance / 2) + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    return cv2.morphologyEx(wrong, cv2.MORPH_OPEN, disc) > 0
