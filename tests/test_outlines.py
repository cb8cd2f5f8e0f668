"""Distances of outlines against a search through all pixels, and components against SciPy's."""

import math

import numpy as np
import pytest
from scipy import ndimage

from utils.faults import components
from utils.outlines import CHAMFER, NEAR, outline, outline_errors

SIZE = (60, 48)


def blobs(seed, smooth):
    return ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=SIZE), smooth) > 0


def searched(own, other):
    """`outline_errors` by the distances to all pixels on the other side."""
    found = []
    for y, x in np.argwhere(own):
        away = np.argwhere(other != other[y, x])
        distance = np.hypot(*(away - (y, x)).T).min()
        found.append(1 - distance if other[y, x] else distance)
    return np.array(found)


@pytest.mark.parametrize("smooth", [0.7, 2, 6])
def test_distances_are_those_of_a_search(smooth):
    region, other = blobs(1, smooth), blobs(2, smooth)
    own = outline(region, np.ones(SIZE, bool))
    right, found = searched(own, other), outline_errors(own, other)
    away = np.where(right > 0, right, 1 - right)
    assert np.abs(found - right)[away <= NEAR].max() < 1e-3
    assert (np.abs(found - right) <= 0.02 * away + 1e-3).all() and (smooth < 6 or away.max() > NEAR)


def test_the_tables_distances_keep_the_order():
    chamfer, right = CHAMFER
    assert (np.diff(chamfer) > 0).all() and (np.diff(right) >= 0).all()
    near = {math.hypot(x, y) for x in range(6) for y in range(6) if math.hypot(x, y) <= NEAR}
    assert sorted(near) == pytest.approx(sorted(set(right[:-1])))


@pytest.mark.parametrize("region", [blobs(3, 1), blobs(4, 3), np.pad(np.ones((9, 7), bool), ((5, 46), (3, 38))),
                                    np.zeros(SIZE, bool)], ids=["many", "some", "one", "none"])
def test_components_are_scipys_without_specks(region):
    numbers, _ = ndimage.label(region, np.ones((3, 3)))
    sizes = np.bincount(numbers.ravel())[1:]
    parts = [numbers == number + 1 for number in np.flatnonzero(sizes >= 6).tolist()]
    boxes = []
    for rows, columns in (ndimage.find_objects(part.astype(int))[0] for part in parts):
        boxes.append((columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start))
    found = list(components(region, round(6 / 0.0004)))
    assert sorted((box, int(part.sum())) for _, part, box in found) == sorted(zip(boxes, (int(part.sum()) for part in parts)))
    assert all(any(np.array_equal(part, each) for each in parts) for _, part, _ in found)
