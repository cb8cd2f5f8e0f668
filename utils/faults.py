"""What is wrong with an annotation, component by component, by a judge's class probabilities: kinds, offsets, doubtful places.

A *component* is a connected region (8 neighbours) of one class of the annotation. Its outline is compared with the outline of
the judge's region of that class:

    loose, tight    the outline lies outside (inside) the judge's all along, by `offset` px
    hasty           the outline wanders to both sides, cuts corners, or leaves parts out
    extra           the judge sees nothing of its class there
    swapped         the judge sees the same object, of another class
    missing         the judge sees an object that is not annotated
    fine            none of these

Legend: C classes, H x W pixels; labels are uint8 (H, W), 0..C-1, 255 = ignored; probabilities are float (C, H, W), 0..1,
NaN = the judge says nothing. Offsets are in px, positive = too loose. A pixel that is ignored, or of which the judge says
nothing, is no evidence; where the picture ends there is no outline.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np

from data import IGNORE_INDEX
from utils.outlines import outline, outline_errors

OBJECTS = ("missing", "extra", "swapped")
TOLERANCE = 0.0045  # of the diagonal, and 1 px at least: what an outline may be off; 2 px at 321 x 321, see `own_tolerance`
SEEN = 0.25  # share of a component that the judge must see of its class, or it is extra, swapped or missing
ALIKE = 0.5  # IoU of a component and the judge's component of another class: the same object
HASTY = 0.3  # share of an outline in doubt from which on it is hasty
ONE_WAY = 0.75  # share of an outline's errors to one side from which on it is loose or tight
SMALLEST = 0.0004  # of the picture: smaller components are specks; they are no objects for a judge
CAP = 1.5  # tolerances: a larger distance of two outlines counts as this one
NOTABLE = 0.25  # of the diagonal: an object with an outline of that length counts fully, a smaller one less

Box = tuple[int, int, int, int]  # x, y, width, height in px


@dataclass(frozen=True)
class Finding:
    """A component, or an object that the annotation lacks.

    label: class in the annotation; of a missing object the class that the judge sees.
    other: class that the judge sees there, of an extra or swapped component; else None.
    offset: px, positive = too loose, of a component that the judge sees; else NaN.
    doubt: share of the outline in doubt, 0..1.
    length: px of the outline, the annotation's and the judge's, that `doubt` is a share of.
    box: x, y, width, height in px.
    number: of the component, as `components` counts in `Scene.around`, nowhere else; 0 = an object that the annotation lacks.
    error: mean distance of the outlines, cut off at CAP tolerances and divided by that, 0..1.
    severity: 0..1, how much it matters and how sure it is.
    """

    kind: str
    label: int
    other: int | None
    offset: float
    doubt: float
    length: int
    box: Box
    number: int
    error: float
    severity: float

    @property
    def importance(self) -> float:
        """For the order of the findings of one annotation: a long outline counts more."""
        return self.severity * math.sqrt(self.length)


@dataclass(frozen=True)
class Scene:
    """An annotation and its judge: what all rules here look at.

    probability: float (C, H, W); or (H, W), of the foreground of a binary annotation.
    tolerance: px.
    background: class without outlines of its own, or None.
    size: (H, W) of the whole picture; the arrays may be a part of it, see `around`.
    corner: (x, y) of the arrays in the picture.
    whole: the scene of the whole picture; None: this is it.
    """

    labels: np.ndarray
    probability: np.ndarray
    predicted: np.ndarray
    valid: np.ndarray
    tolerance: float
    background: int | None
    size: tuple[int, int]
    corner: tuple[int, int] = (0, 0)
    whole: Scene | None = None

    @property
    def classes(self) -> list[int]:
        """Classes with outlines, that either of the two holds."""
        counts = sum(cv2.calcHist([each], [0], None, [IGNORE_INDEX + 1], [0, IGNORE_INDEX + 1]).ravel()
                     for each in (self.labels, self.predicted))
        return [c for c in np.flatnonzero(counts).tolist() if c not in (self.background, IGNORE_INDEX)]

    @property
    def diagonal(self) -> float:
        """Of the whole picture, px."""
        return math.hypot(*self.size)

    def chance(self, label: int, part: np.ndarray) -> float:
        """The mean probability, 0..1, of a class in a region, bool (H, W)."""
        if self.probability.ndim == 3:
            return float(self.probability[label][part].mean())
        return abs((1 - label) - float(self.probability[part].mean()))

    def around(self, label: int) -> Scene:
        """The part of this scene that holds a class of either map, and a pixel on each side; all outlines stay the same."""
        x, y, w, h = cv2.boundingRect(((self.labels == label) | (self.predicted == label)).astype(np.uint8))
        top, left = max(0, y - 1), max(0, x - 1)
        box = np.s_[..., top:y + h + 1, left:x + w + 1]
        return replace(self, labels=self.labels[box], probability=self.probability[box], predicted=self.predicted[box],
                       valid=self.valid[box], corner=(left, top), whole=self)


def scene_of(labels: np.ndarray, probability: np.ndarray, background: int | None = 0, tolerance: float | None = None) -> Scene:
    """The `Scene` of an annotation.

    Args:
        labels: uint8 (H, W).
        probability: float (C, H, W); or (H, W), of the foreground of a binary annotation; NaN where the judge says nothing:
            these pixels are ignored in both label maps.
        tolerance: px; default: TOLERANCE.
    """
    if tolerance is None:
        tolerance = max(1.0, TOLERANCE * math.hypot(*labels.shape))
    labels = np.where(np.isnan(probability if probability.ndim == 2 else probability[0]), np.uint8(IGNORE_INDEX), labels)
    valid = labels != IGNORE_INDEX
    predicted = (probability > 0.5 if probability.ndim == 2 else probability.argmax(0)).astype(np.uint8)
    predicted[~valid] = IGNORE_INDEX
    return Scene(labels, probability, predicted, valid, tolerance, background, (labels.shape[0], labels.shape[1]))


def components(region: np.ndarray, area: int) -> Iterator[tuple[int, np.ndarray, Box]]:
    """The components of a region that are no specks: (number, bool (H, W), box).

    Numbers count from 1 in OpenCV's order, which is another one where the same region is cut otherwise.

    Args:
        area: of the whole picture, px.
    """
    count, numbers = cv2.connectedComponents(region.astype(np.uint8), connectivity=8)
    areas = np.bincount(numbers.ravel()) if count > 2 else np.array([0, np.count_nonzero(region)])
    for number in np.flatnonzero(areas[1:] >= max(4, SMALLEST * area)).tolist():
        part = numbers == number + 1 if count > 2 else region
        x, y, w, h = cv2.boundingRect(part.astype(np.uint8))  # far quicker than connectedComponentsWithStats
        yield number + 1, part, (x, y, w, h)


# --- one class ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layer:
    """One class of a scene.

    region, seen: bool (H, W), of the annotation and of the judge; `seen` without `missing`.
    missing: objects that the annotation lacks: list of (bool (H, W), box).
    own, beyond: of the outline pixels of `region`, and of those of `seen`: (number of the component of `region` that they are
        part of, or nearest to, int (N,); `outline_errors` to the other region, float (N,)).
    """

    label: int
    region: np.ndarray
    seen: np.ndarray
    missing: list[tuple[np.ndarray, Box]]
    own: tuple[np.ndarray, np.ndarray]
    beyond: tuple[np.ndarray, np.ndarray]


def layer_of(scene: Scene, label: int) -> Layer:
    """The `Layer` of a class."""
    region, seen = scene.labels == label, scene.predicted == label
    missing = []
    for _, part, box in components(seen, math.prod(scene.size)):
        if np.count_nonzero(part & region) < SEEN * np.count_nonzero(part):
            missing.append((part, box))
    for part, _ in missing:
        seen = seen & ~part
    nearest, own, others = nearest_component(region), outline(region, scene.valid), outline(seen, scene.valid)
    return Layer(label, region, seen, missing, (nearest[own], outline_errors(own, seen)),
                 (nearest[others], outline_errors(others, region)))


def nearest_component(region: np.ndarray) -> np.ndarray:
    """The number of each pixel's nearest component, as `components` counts; 0 where there is none. int32 (H, W)."""
    count, numbers = cv2.connectedComponents(region.astype(np.uint8), connectivity=8)
    if count <= 2:
        return np.full(region.shape, count - 1, np.int32)
    _, pixel = cv2.distanceTransformWithLabels((~region).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5,
                                               labelType=cv2.DIST_LABEL_PIXEL)
    of_pixel = np.zeros(pixel.max() + 1, np.int32)
    of_pixel[pixel[region]] = numbers[region]
    return of_pixel[pixel]


def class_findings(scene: Scene, label: int) -> list[Finding]:
    """The findings of one class's components, and of the objects of this class that the annotation lacks."""
    scene = scene.around(label)
    layer = layer_of(scene, label)
    found = [_component(scene, layer, *each) for each in components(layer.region, math.prod(scene.size))]
    for part, box in layer.missing:
        annotated = _twin(scene, "labels", part)
        inverted = any(each.kind == "swapped" and each.other == scene.background for each in found)
        if annotated is None or (annotated == scene.background and not inverted):  # else a component annotated is swapped
            length, sure = int(outline(part, scene.valid).sum()), scene.chance(label, part)
            found.append(_object("missing", scene, label, None, length, box, 0, sure))
    return found


def placed(box: Box, scene: Scene) -> Box:
    """A box of a part of a picture, in the whole picture."""
    return box[0] + scene.corner[0], box[1] + scene.corner[1], box[2], box[3]


def _object(kind: str, scene: Scene, label: int, other: int | None, length: int, box: Box, number: int, sure: float) -> Finding:
    """A finding of OBJECTS; `sure` is the judge's mean probability that it is right, 0..1.

    An object without an outline, which fills the picture or lies within ignored pixels, has its box's in place of it.
    """
    length = length or 2 * (box[2] + box[3])
    weight = min(1.0, length / (NOTABLE * scene.diagonal))
    return Finding(kind, label, other, math.nan, 1.0, length, placed(box, scene), number, 1.0, max(0.0, 2 * sure - 1) * weight)


def _component(scene: Scene, layer: Layer, number: int, part: np.ndarray, box: Box) -> Finding:
    """What is wrong with a component."""
    errors = layer.own[1][layer.own[0] == number]
    if np.count_nonzero(part & layer.seen) < SEEN * np.count_nonzero(part):
        other = _commonest(scene.predicted[part & scene.valid], layer.label)
        kind = "extra" if _twin(scene, "predicted", part) is None else "swapped"
        sure = 1 - scene.chance(layer.label, part)
        return _object(kind, scene, layer.label, other, len(errors), box, number, sure)
    both = np.abs(np.concatenate([errors, layer.beyond[1][layer.beyond[0] == number]]))
    doubt = float((both > scene.tolerance).mean()) if len(both) else 0.0
    error = float(np.minimum(both / (CAP * scene.tolerance), 1).mean()) if len(both) else 0.0
    offset = float(np.median(errors)) if len(errors) else 0.0
    kind = outline_kind(errors, offset, doubt, scene.tolerance)
    weight = min(1.0, len(both) / (NOTABLE * scene.diagonal))
    return Finding(kind, layer.label, None, offset, doubt, len(both), placed(box, scene), number, error, error * weight / 2)


def outline_kind(errors: np.ndarray, offset: float, doubt: float, tolerance: float) -> str:
    """`loose`, `tight`, `hasty` or `fine`.

    Args:
        errors: see `outline_errors`.
        offset: px, of the component.
        doubt: share of its outline in doubt.
        tolerance: px.
    """
    side = 1 if offset > 0 else -1
    if abs(offset) >= tolerance and len(errors) and (side * errors > 0).mean() >= ONE_WAY:
        return "loose" if offset > 0 else "tight"
    return "hasty" if doubt >= HASTY else "fine"


def _commonest(labels: np.ndarray, but: int) -> int | None:
    """The commonest label that is neither `but` nor ignored; None if there is none."""
    counts = np.bincount(labels.ravel(), minlength=IGNORE_INDEX + 1)[:IGNORE_INDEX]
    if but < len(counts):
        counts[but] = 0
    return int(counts.argmax()) if counts.any() else None


def _twin(scene: Scene, name: str, part: np.ndarray) -> int | None:
    """The class that a label map of a scene, `labels` or `predicted`, gives to the same object: of its component with an IoU of
    ALIKE with `part`; None if there is none, so that no component there has this outline."""
    label = _commonest(getattr(scene, name)[part], IGNORE_INDEX)
    if label is None:
        return None
    labels, (x, y) = getattr(scene.whole or scene, name), scene.corner
    below, right = labels.shape[0] - y - part.shape[0], labels.shape[1] - x - part.shape[1]
    part = cv2.copyMakeBorder(part.astype(np.uint8), y, below, x, right, cv2.BORDER_CONSTANT) > 0
    _, numbers = cv2.connectedComponents((labels == label).astype(np.uint8), connectivity=8)
    inside = np.bincount(numbers[part])
    if len(inside) < 2:
        return None
    number = int(inside[1:].argmax()) + 1
    union = part.sum() + (numbers == number).sum() - inside[number]
    return label if inside[number] >= ALIKE * union else None
