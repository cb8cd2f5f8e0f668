"""Which component is mended, and that nothing is judged where the judge is silent; on drawn shapes."""

import numpy as np
import pytest

from utils.faults import scene_of
from utils.mend import component_of, mended
from utils.verdict import inspect


def sure(inside):
    """The foreground's probability of a judge that is sure."""
    return np.where(inside, 0.98, 0.02).astype(np.float32)


def radii(size, x, y):
    """Distance of each pixel from a centre, px."""
    rows, columns = np.mgrid[:size[0], :size[1]]
    return np.hypot(rows - y, columns - x)


# --- which component ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("speck", [(11, 5), (10, 5), (12, 6), (9, 40)])
def test_a_finding_names_the_same_component_in_the_whole_picture(speck):
    """OpenCV scans two rows at once: whether the speck or the square comes first changes with the cut's parity."""
    given = np.zeros((80, 200), np.uint8)
    given[10:60, 100:160] = given[speck] = 1
    seen = np.zeros(given.shape, bool)
    seen[14:56, 104:156] = True
    scene = scene_of(given, sure(seen), tolerance=1.5)
    found, = inspect(scene).findings
    square = given == 1
    square[speck] = False
    assert found.kind == "loose" and np.array_equal(component_of(scene, found), square)
    better, note = mended(scene, inspect(scene), given, seen.astype(np.uint8), 1.0)
    assert "moved in by 4.0 px" in note and np.array_equal(better[:, 90:] == 1, seen[:, 90:])
    assert better[speck] == 1  # it was not judged


@pytest.mark.parametrize("scale", [1, 2])
def test_a_loose_ring_is_moved_and_not_the_disc_inside_its_box(scale):
    far = radii((200 * scale, 220 * scale), 110.2 * scale, 100.4 * scale) / scale
    given, seen = (far < 60) | (far > 82) & (far < 94), (far < 60) | (far > 85) & (far < 91)
    labels, proposal = given.astype(np.uint8), seen.astype(np.uint8)
    scene = scene_of(labels[::scale, ::scale], sure(seen[::scale, ::scale]), tolerance=1.5)
    better, note = mended(scene, inspect(scene), labels, proposal, float(scale))
    assert note.count("moved in") == 1
    assert np.array_equal(better[far < 70], labels[far < 70])
    assert (better != proposal).sum() < 0.2 * (labels != proposal).sum()
