"""Outlines of regions, and how far one region's outline lies from another's: distances in px, positive = too loose.

Legend: a region is bool (H, W); its *edge* is the line between its pixels and those beside them, so a pixel at the edge is half
a pixel away from it. *loose* means that a region reaches too far out, *tight* that it stops too early.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)
STEP = 0.5  # px between two levels
NEAR = 5.0  # px


def _chamfer_table() -> tuple[np.ndarray, np.ndarray]:
    """(chamfer distances of OpenCV's 5 x 5 mask, the Euclidean ones of the same pixels), both rising, up to NEAR px.

    Its steps are 1 to the side, 1.4 across, and 2.1969 as a knight moves in chess. Up to NEAR px both distances put pixels in
    the same order, so that each chamfer distance belongs to one Euclidean one; beyond, it stays as it is.
    """
    pairs = {}
    for x in range(int(NEAR) + 1):
        for y in range(x + 1):
            if math.hypot(x, y) <= NEAR:
                steps = y * 2.1969 + (x - 2 * y) if x >= 2 * y else (x - y) * 2.1969 + (2 * y - x) * 1.4
                pairs[steps] = math.hypot(x, y)
    pairs[1e6] = 1e6
    return np.array(sorted(pairs)), np.array([pairs[steps] for steps in sorted(pairs)])


CHAMFER = _chamfer_table()


def edge_distance(region: np.ndarray) -> np.ndarray:
    """Distance in px of each pixel's centre to the region's edge, float32 (H, W): positive inside, negative outside.

    A region without an edge has none: then the values are beyond the picture's diagonal.
    """
    inside = region.astype(np.uint8)
    if inside.all() or not inside.any():
        return np.full(region.shape, (1 if inside.any() else -1) * float(np.hypot(*region.shape) + 1), np.float32)
    to_outside = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    to_inside = cv2.distanceTransform(1 - inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.where(region, to_outside - 0.5, 0.5 - to_inside)


def outline(region: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Pixels of the region with one of their four neighbours outside it, bool (H, W); only neighbours that are valid and inside
    the picture count.

    Args:
        valid: bool (H, W), pixels that are not ignored.
    """
    outside = (valid & ~region).astype(np.uint8)
    return region & valid & (cv2.dilate(outside, CROSS) > 0)


def moved(region: np.ndarray, offset: float) -> np.ndarray:
    """The region without its error of `offset` px: shrunk by a positive one, grown by a negative one; bool (H, W)."""
    return edge_distance(region) > offset if abs(offset) >= STEP / 2 else region.copy()


def outline_errors(own: np.ndarray, other: np.ndarray) -> np.ndarray:
    """How far a region's outline lies outside another region's, px, for each of its outline pixels, float (N,): positive = too
    loose there.

    Distances are exact up to NEAR px and within 2 % beyond: the quick 5 x 5 chamfer distance (G. Borgefors, Distance
    transformations in digital images, 1986), corrected.

    Args:
        own: bool (H, W), outline pixels of the region, see `outline`.
        other: bool (H, W), the other region.
    """
    inside, at = other.astype(np.uint8), np.flatnonzero(own)
    if inside.all() or not inside.any():
        return 0.5 - edge_distance(other)[own]
    within = other.ravel()[at]
    distance = np.empty(len(at))
    for here, away in ((within, inside), (~within, 1 - inside)):
        if here.any():
            distance[here] = cv2.distanceTransform(away, cv2.DIST_L2, cv2.DIST_MASK_5).ravel()[at[here]]
    distance = np.interp(distance, *CHAMFER)
    return np.where(within, 1 - distance, distance)
