"""Which component is mended, and that nothing is judged where the judge is silent; on drawn shapes."""

import re

import numpy as np
import pandas as pd
import pytest
import torch

from cli.files import UserError
from data.pictures import read_mask, write_image, write_mask
from engine import checkpoint
from engine.annotation_audit import audit_rows, in_own_pixels, mend_rows
from engine.judges import by_masks, label_map, resized, trust_of_run
from utils.faults import scene_of
from utils.mend import component_of, mended
from utils.verdict import inspect, settled


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
    better, note = mended(scene, in_own_pixels(inspect(scene), float(scale)), labels, proposal, float(scale))
    assert note.count("moved in") == 1
    assert np.array_equal(better[far < 70], labels[far < 70])
    assert (better != proposal).sum() < 0.2 * (labels != proposal).sum()


def test_two_parts_of_a_component_are_moved_each_by_its_own_offset():
    """The judge is silent in a strip that parts a bar, loose on the left and tight on the right of it."""
    given, seen = np.zeros((2, 100, 240), np.uint8)
    given[30:70, 10:120], given[40:60, 120:230] = 1, 1
    seen[34:66, 14:120], seen[36:64, 120:226] = 1, 1
    chances = sure(seen == 1)
    chances[:, 110:130] = np.nan
    scene = scene_of(given, chances, tolerance=1.5)
    better, note = mended(scene, inspect(scene), given, label_map(chances), 1.0)
    assert "moved in by 4.0 px" in note and "moved out by 4.0 px" in note
    assert np.array_equal(better[:, 110:130], given[:, 110:130])  # nothing is known there
    assert (better != seen)[:, 20:105].sum() <= 40 and (better != seen)[:, 135:220].sum() <= 40


@pytest.mark.parametrize("scale", [1, 3])  # 3: larger than the size in which masks are looked at
def test_only_the_component_that_stands_out_is_moved(tmp_path, scale):
    """Two discs a mask; judged alone all are loose, but of eight only one stands out from the offsets of all."""
    size = (120 * scale, 300 * scale)
    given = [(np.minimum(radii(size, 70 * scale, 60 * scale) - (30 + a) * scale, radii(size, 220 * scale, 60 * scale)
                         - (30 + b) * scale) < 0).astype(np.uint8) for a, b in ((2, 9), (-2, 2), (2.5, -2.5), (-3, 3))]
    seen = (np.minimum(radii(size, 70 * scale, 60 * scale), radii(size, 220 * scale, 60 * scale)) < 30 * scale).astype(np.uint8)
    for number, labels in enumerate(given):
        write_mask(tmp_path / f"{number}.png", labels)
        write_mask(tmp_path / "judge" / f"{number}.png", seen)
    rows = pd.DataFrame({kind: [str(tmp_path / f"{number}.png") for number in range(4)] for kind in ("image", "mask")})
    proposals = [tmp_path / "out" / f"{number}.png" for number in range(4)]
    found = audit_rows(rows, by_masks(rows, tmp_path / "judge", "{stem}.png", 2), 2, 0, None, proposals.__getitem__)
    assert all(each.kind != "fine" for verdict in found for each in verdict.findings)
    notes = mend_rows(rows, settled(found), 2, 0, None, proposals, lambda number: tmp_path / f"mended{number}.png")
    assert [path.name for path in tmp_path.glob("mended*")] == ["mended0.png"] and notes[1:] == [""] * 3
    assert [float(each) for each in re.findall(r"moved in by ([\d.]+) px", notes[0])] == [pytest.approx(9 * scale, abs=0.6)]
    better = read_mask(tmp_path / "mended0.png")
    middle = 145 * scale
    assert np.array_equal(better[:, :middle], given[0][:, :middle])
    assert (better != seen)[:, middle:].sum() < 0.15 * (given[0] != seen)[:, middle:].sum()


# --- where the judge is silent ------------------------------------------------------------------------------------


@pytest.fixture
def rows(tmp_path):
    """Two pictures of 120 x 160 px: a disc that is right, and a square that the judge does not know of. In judge/ the first
    one's right part is ignored, and all of the second one."""
    given = (radii((120, 160), 50, 60) < 30).astype(np.uint8)
    given[40:80, 110:150] = 1
    seen = given.copy()
    seen[:, 90:] = 255
    for name, predicted in (("a", seen), ("b", np.full_like(given, 255))):
        write_image(tmp_path / f"{name}.jpg", np.zeros((*given.shape, 3), np.uint8))
        write_mask(tmp_path / f"{name}.png", given)
        write_mask(tmp_path / "judge" / f"{name}.png", predicted)
    return pd.DataFrame({kind: [str(tmp_path / f"{name}{suffix}") for name in "ab"]
                         for kind, suffix in (("image", ".jpg"), ("mask", ".png"))})


def test_what_a_judge_ignores_is_neither_doubted_nor_at_fault(tmp_path, rows):
    proposals = [tmp_path / "out" / f"{name}.png" for name in "ab"]
    verdicts = audit_rows(rows, by_masks(rows, tmp_path / "judge", "{stem}.png", 2), 2, 0, None, proposals.__getitem__)
    notes = mend_rows(rows, verdicts, 2, 0, None, proposals, lambda position: tmp_path / "mended.png")
    assert [[each.kind for each in verdict.findings] for verdict in verdicts] == [["fine"], []]
    assert all(verdict.doubt == 0 and verdict.places == [] and verdict.score == 1 for verdict in verdicts)
    assert notes == ["", ""] and not (tmp_path / "mended.png").exists()
    for name, path in zip("ab", proposals):
        assert np.array_equal(read_mask(path), read_mask(tmp_path / "judge" / f"{name}.png"))


@pytest.mark.parametrize("classes", [2, 3])
def test_an_object_at_the_edge_of_what_is_known_is_still_judged(classes):
    given, seen = (radii((120, 160), 70, 60) < radius for radius in (35, 30))
    chances = sure(seen) if classes == 2 else np.stack([sure(~seen), sure(seen), 0 * sure(seen)])
    chances[..., 70:, :] = np.nan
    verdict = inspect(scene_of(given.astype(np.uint8), chances, tolerance=1.5))
    assert verdict.finding.kind == "loose" and verdict.finding.offset == pytest.approx(5, abs=0.6)
    assert all(y + h <= 70 for _, y, _, h in verdict.places)


def test_silence_keeps_its_place_when_probabilities_are_resized():
    chances = np.full((4, 8), 0.9, np.float32)
    chances[:, 4:] = np.nan
    for size in ((8, 16), (4, 8), (2, 4)):
        large = resized(np.stack([chances, 1 - chances]), size)
        half = size[1] // 2
        assert np.isnan(large[:, :, half:]).all() and large[0, :, :half] == pytest.approx(0.9)
        assert large[1, :, :half] == pytest.approx(0.1) and large.dtype == np.float32
        assert label_map(large)[0].tolist() == [0] * half + [255] * half


# --- judges that do not fit ---------------------------------------------------------------------------------------


def test_a_predicted_mask_of_another_shape_is_refused(tmp_path, rows):
    write_mask(tmp_path / "judge" / "a.png", np.ones((60, 80), np.uint8))  # another size alone
    write_mask(tmp_path / "judge" / "b.png", np.ones((160, 120), np.uint8))
    judge = by_masks(rows, tmp_path / "judge", "{stem}.png", 2)
    assert next(judge).shape == (60, 80)
    with pytest.raises(UserError, match=r"judge.b\.png is 160 x 120 px, the mask .*b\.png 120 x 160: another shape"):
        next(judge)


@pytest.mark.parametrize("sums, counts, trust", [([3.2, 0, 0.4, 0], [4, 0, 4, 0], [1, 1, 0.1 / 0.225, 1]),
                                                 ([0, 0], [0, 0], [1, 1]), ([4, 0], [4, 4], [1, 0])])
def test_a_row_that_was_never_scored_is_trusted(tmp_path, sums, counts, trust):
    scores = {"sums": torch.tensor(sums, dtype=torch.float32), "counts": torch.tensor(counts, dtype=torch.float32)}
    checkpoint.save(tmp_path / "last.ckpt", {"networks": [], "memory": {"scores": scores}})
    assert trust_of_run(tmp_path).tolist() == pytest.approx(trust)
