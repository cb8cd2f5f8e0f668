"""Rules of the audit on drawn shapes whose faults are known: kinds, offsets, doubtful places, scores, and what mending does."""

import dataclasses
import re

import numpy as np
import pytest

from engine.annotation_audit import in_own_pixels
from utils.faults import Scene, class_findings, scene_of
from utils.mend import mended
from utils.outlines import edge_distance, moved, outline, outline_errors
from utils.verdict import doubtful_places, inspect, settled, tempered, unseen_classes

SIZE = (120, 160)  # a diagonal of 200 px


def disc(radius, x=70.3, y=60.8, size=SIZE):
    """Signed distance to a circle, negative inside."""
    rows, columns = np.mgrid[:size[0], :size[1]]
    return np.hypot(rows - y, columns - x) - radius


def sure(inside):
    """The foreground's probability of a judge that is sure."""
    return np.where(inside, 0.98, 0.02).astype(np.float32)


def labels(inside):
    return inside.astype(np.uint8)


def kinds(verdict):
    return sorted(each.kind for each in verdict.findings)


# --- outlines -----------------------------------------------------------------------------------------------------


def test_edges_lie_between_pixels():
    region = np.zeros((5, 7), bool)
    region[:, 2:5] = True  # its edges are at 1.5 and 4.5
    assert edge_distance(region)[2].tolist() == [-1.5, -0.5, 0.5, 1.5, 0.5, -0.5, -1.5]
    assert moved(region, 1.0)[2].nonzero()[0].tolist() == [3]
    assert moved(region, -1.0)[2].nonzero()[0].tolist() == [1, 2, 3, 4, 5]
    assert (moved(region, 0.2) == region).all()
    for whole in (np.ones((4, 4), bool), np.zeros((4, 4), bool)):
        assert (np.abs(edge_distance(whole)) > np.hypot(4, 4)).all() and (edge_distance(whole) > 0).all() == whole.all()


def test_no_outline_at_the_frame_or_beside_ignored_pixels():
    region = np.zeros((6, 6), bool)
    region[:, 3:] = True
    valid = np.ones((6, 6), bool)
    assert outline(region, valid).nonzero()[1].tolist() == [3] * 6
    valid[2:4, 2] = False
    assert outline(region, valid).nonzero()[0].tolist() == [0, 1, 4, 5]


@pytest.mark.parametrize("error", [-5, -2, 0, 1, 4])
def test_errors_of_an_outline_are_how_far_it_lies_outside(error):
    own, other = disc(25 + error) < 0, disc(25) < 0
    errors = outline_errors(outline(own, np.ones(SIZE, bool)), other)
    assert abs(np.median(errors) - error) <= 0.5 and np.abs(errors - error).max() <= 1.1


# --- kinds --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error, kind", [(6, "loose"), (2.5, "loose"), (-2.5, "tight"), (-6, "tight"), (0, "fine"),
                                         (0.4, "fine")])
def test_a_disc_drawn_too_large_or_too_small(error, kind):
    verdict = inspect(scene_of(labels(disc(25 + error) < 0), sure(disc(25) < 0), tolerance=1.5))
    found, = verdict.findings
    assert found.kind == kind == verdict.finding.kind and abs(found.offset - error) <= 0.5
    assert verdict.score == pytest.approx(1 - min(1, abs(error) / 2.25), abs=0.25)


def wavy(depth):
    """A disc whose radius goes in and out by `depth` px, nine times around."""
    rows, columns = np.mgrid[:SIZE[0], :SIZE[1]]
    angle = np.arctan2(rows - 60.8, columns - 70.3)
    return disc(35) < depth * np.sin(9 * angle)


def test_an_outline_that_wanders_to_both_sides_is_hasty():
    found, = inspect(scene_of(labels(wavy(5)), sure(disc(35) < 0), tolerance=1.5)).findings
    assert found.kind == "hasty" and abs(found.offset) < 1 and found.doubt > 0.5
    assert inspect(scene_of(labels(wavy(0.7)), sure(disc(35) < 0), tolerance=1.5)).finding.kind == "fine"


def test_objects_that_are_missing_or_too_many():
    left, right = disc(20, 40) < 0, disc(18, 115) < 0
    missing = inspect(scene_of(labels(left), sure(left | right)))
    assert kinds(missing) == ["fine", "missing"] and missing.finding.kind == "missing" and missing.finding.number == 0
    assert missing.finding.box == (98, 43, 35, 36) and len(missing.places) == 1
    assert np.abs(np.subtract(missing.places[0], missing.finding.box)).max() <= 2  # a disc's tips are narrow
    extra = inspect(scene_of(labels(left | right), sure(left)))
    assert kinds(extra) == ["extra", "fine"] and extra.finding.kind == "extra" and extra.finding.other == 0
    unsure = inspect(scene_of(labels(left), np.where(right, 0.55, sure(left))))
    assert unsure.finding.kind == "missing" and missing.score < unsure.score < 1  # a judge that hesitates counts less


def test_all_at_once_where_nothing_is_annotated_or_seen():
    empty, person = np.zeros(SIZE, bool), disc(30) < 0
    both, missing = (inspect(scene_of(labels(empty), sure(seen))) for seen in (empty, person))
    assert both.score == 1 and both.finding is None and both.places == []
    assert inspect(scene_of(labels(person), sure(empty))).finding.kind == "extra"
    assert missing.finding.kind == "missing" and missing.score < 0.1


def test_what_fills_the_picture_counts_too():
    """An object over most of it that nobody annotated, so that the background has its shape; an annotation without outline."""
    half, small, empty = np.indices(SIZE)[1] < 0.6 * SIZE[1], disc(20) < 0, np.zeros(SIZE, bool)
    cases = zip((empty, ~empty, ~empty), (half, small, ~empty))
    missed, whole, good = (inspect(scene_of(labels(mask), sure(seen))) for mask, seen in cases)
    assert missed.finding.kind == "missing" and missed.score < 0.1
    assert whole.finding.kind == "swapped" and whole.score < 0.1 and whole.finding.length == 2 * sum(SIZE) and good.score == 1


def test_swapped_classes():
    """Foreground and background of a binary mask; and one object of three classes, whose twin is named."""
    person = disc(30) < 0
    inverted = inspect(scene_of(labels(~person), sure(person)))
    assert inverted.finding.kind == "swapped" and (inverted.finding.label, inverted.finding.other) == (1, 0)
    assert inverted.score < 0.1
    left, right = disc(20, 40) < 0, disc(18, 115) < 0
    given, true = np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.uint8)
    given[left], given[right] = 1, 1
    true[left], true[right] = 1, 2
    chances = np.where(np.arange(3)[:, None, None] == true, 0.96, 0.02).astype(np.float32)
    verdict = inspect(scene_of(given, chances))
    assert kinds(verdict) == ["fine", "swapped"] and (verdict.finding.label, verdict.finding.other) == (1, 2)
    covered = np.where(given > 0, given, 0).astype(np.uint8)
    covered[right] = 0  # without a background class it is the region beside that covers an object
    assert "missing" in kinds(inspect(scene_of(covered, chances, background=None)))


def test_each_component_has_its_own_offset():
    left, right = disc(20, 40), disc(20, 115)
    given = (left < 4) | (right < -3)
    verdict = inspect(scene_of(labels(given), sure((left < 0) | (right < 0)), tolerance=1.5))
    found = sorted(verdict.findings, key=lambda each: each.box)
    assert [each.kind for each in found] == ["loose", "tight"]
    assert [each.offset for each in found] == pytest.approx([4, -3], abs=0.5)


def test_a_bad_outline_casts_no_doubt_on_the_component_beside_it():
    given, seen = (disc(20, 40) < 0) | (disc(20, 115) < 6), (disc(20, 40) < 0) | (disc(20, 115) < 0)
    left, right = sorted(inspect(scene_of(labels(given), sure(seen), tolerance=1.5)).findings, key=lambda each: each.box)
    assert (left.doubt, left.kind) == (0, "fine") and right.doubt == 1 and right.kind == "loose"


def test_ignored_pixels_are_no_evidence():
    given, chances = labels(disc(25) < 0), sure(disc(25) < 0)
    given[:, 66:75] = 255
    chances[:, 66:75] = 0.98
    verdict = inspect(scene_of(given, chances, tolerance=1.5))
    assert verdict.score > 0.85 and verdict.places == [] and set(kinds(verdict)) == {"fine"}


def test_a_region_cut_by_the_frame_has_no_outline_there():
    given, seen = np.zeros(SIZE, bool), np.zeros(SIZE, bool)
    given[:, :80], seen[:, :76] = True, True
    found, = inspect(scene_of(labels(given), sure(seen), tolerance=1.5)).findings
    assert found.kind == "loose" and found.offset == pytest.approx(4) and found.length == 2 * SIZE[0]


def test_looking_at_a_part_of_the_picture_changes_nothing(monkeypatch):
    dice = np.random.default_rng(0)
    for _ in range(20):
        noise = dice.normal(size=(2, 12, 16)).repeat(10, 1).repeat(10, 2)
        given, chances = labels(noise[0] > 0.8), 1 / (1 + np.exp(-3 * (noise[0] + 0.4 * noise[1] - 0.8)))
        given[dice.random(SIZE) < 0.02] = 255
        scene = scene_of(given, chances)
        found = class_findings(scene, 1)
        with monkeypatch.context() as patch:
            patch.setattr(Scene, "around", lambda self, label: self)
            whole = class_findings(scene, 1)
        assert len(found) > 3 and [repr(each) for each in found] == [repr(each) for each in whole]


def test_doubtful_places_are_boxes_without_narrow_strips():
    given = np.zeros((40, 60), np.uint8)
    given[5:35, 5:40] = 1
    seen = given.copy()
    seen[5:35, 5:7] = 0  # 2 px: within the tolerance
    seen[10:20, 40:52] = 1  # 10 x 12 px
    assert doubtful_places(given, seen, 2.0) == [(40, 10, 12, 10)]
    given[:, 40:] = 255
    assert doubtful_places(given, seen, 2.0) == []


def test_hasty_outlines_stand_out_from_the_data_set():
    """With a rough judge every outline is in some doubt: only one far above the median is hasty."""
    one = inspect(scene_of(labels(wavy(5)), sure(disc(35) < 0), tolerance=1.5))
    rough = [dataclasses.replace(one, findings=[dataclasses.replace(one.finding, doubt=doubt)],
                                 finding=dataclasses.replace(one.finding, doubt=doubt)) for doubt in
             (*np.linspace(0.3, 0.4, 21), 0.9)]
    assert [each.finding.kind for each in settled(rough)] == ["fine"] * 21 + ["hasty"]
    assert settled([]) == []


def test_classes_that_the_judge_does_not_see_are_not_judged():
    """It takes three of four objects of class 2 for background; the one of class 1 is loose."""
    one = inspect(scene_of(labels(disc(29) < 0), sure(disc(25) < 0), tolerance=1.5))
    lost = dataclasses.replace(one.finding, kind="extra", label=2, offset=float("nan"), severity=0.9, error=1.0)
    seen = dataclasses.replace(one.finding, kind="fine", label=2, offset=0.0, error=0.1)
    verdicts = [dataclasses.replace(one, finding=lost, findings=[one.finding, lost], score=0.1) for _ in range(3)]
    verdicts.append(dataclasses.replace(one, finding=seen, findings=[one.finding, seen]))
    assert unseen_classes(verdicts) == {2} and unseen_classes(verdicts[2:]) == set()  # half is not more than half
    for each in settled(verdicts):
        assert each.finding.kind == "loose" and [found.kind for found in each.findings] == ["loose", "fine"]
        assert each.score == pytest.approx(1 - one.finding.error)
    assert settled(verdicts[2:])[0].finding.kind == "extra"


def test_a_judge_that_sees_nothing_judges_nothing():
    """All objects are too many for it; it is the judge that is at fault."""
    person, empty = disc(30) < 0, np.zeros(SIZE, bool)
    blind = [inspect(scene_of(labels(person), sure(empty))) for _ in range(3)]
    assert blind[0].finding.kind == "extra" and unseen_classes(blind) == {1}
    assert [(each.score, each.finding.kind) for each in settled(blind)] == [(1.0, "fine")] * 3


def test_offsets_of_pictures_of_mixed_sizes_stand_out_by_their_shares():
    """A judge is off by 2 % of each picture, so that its offsets spread in px as the pictures' sizes do: none stands out."""
    one = inspect(scene_of(labels(disc(29) < 0), sure(disc(25) < 0), tolerance=1.5))
    verdicts = []
    for diagonal, share in ((100, 0.02), (100, -0.02), (100, 0.021), (1000, -0.02), (1000, 0.02), (100, 0.08)):
        each = dataclasses.replace(one.finding, offset=share * diagonal, kind="loose" if share > 0 else "tight", doubt=0.2)
        verdicts.append(dataclasses.replace(one, finding=each, findings=[each], diagonal=diagonal))
    assert [each.finding.kind for each in settled(verdicts)] == ["fine"] * 5 + ["loose"]  # 20 px of 1000 is not; 8 of 100 is


def test_offsets_stand_out_from_their_spread_and_not_from_their_mean():
    one = inspect(scene_of(labels(disc(29) < 0), sure(disc(25) < 0), tolerance=1.5))

    def all_of(offsets):
        found = [dataclasses.replace(one.finding, offset=offset, kind="loose" if offset > 0 else "tight") for offset in offsets]
        verdicts = [dataclasses.replace(one, finding=each, findings=[each]) for each in found]
        return [each.finding.kind for each in settled(verdicts)]

    assert all_of([4.0] * 9 + [4.2]) == ["loose"] * 10  # all masks are 4 px too loose by another model
    spread = [-3.0, -2.0, -1.5, 1.5, 2.0, 3.0, 9.0]  # median 1.5, deviation 1.4826 * 1.5
    assert all_of(spread)[-1] == "loose" and "loose" not in all_of(spread)[:-1] and "tight" not in all_of(spread)


# --- mending ------------------------------------------------------------------------------------------------------


def test_only_what_the_judge_is_sure_of_is_moved():
    left, right = disc(20, 40), disc(22, 115)
    given = labels((left < 4) | (right < 0))
    given[100:110, 20:60] = 255
    seen = (left < 0) | (right < 0)
    scene = scene_of(given, sure(seen), tolerance=1.5)
    better, note = mended(scene, inspect(scene), given, labels(seen), 1.0)
    assert ((better == 1) != seen)[:, :80].sum() < 0.06 * seen[:, :80].sum() and (better[:, 80:] == given[:, 80:]).all()
    assert ((better == 255) == (given == 255)).all() and "moved in by 4.0 px" in note and "class 1 at 17, 37" in note
    fine = scene_of(labels(seen), sure(seen))
    assert mended(fine, inspect(fine), labels(seen), labels(seen), 1.0) == (None, "")


def test_what_grows_leaves_ignored_pixels_alone():
    beside = disc(14, 130) < 0
    given, seen = labels((disc(25) < -4) | beside), (disc(25) < 0) | beside
    given[:, 92:94] = 255  # the disc ends at 95
    scene = scene_of(given, sure(seen), tolerance=1.5)
    better, note = mended(scene, inspect(scene), given, labels(seen), 1.0)
    assert re.search(r"moved out by [34]\.\d px", note) and (better[60, 94] == 1) and better.sum() > given.sum() + 300
    assert ((better == 255) == (given == 255)).all()
    assert (better[:, 100:] == given[:, 100:]).all()  # nor is the one beside moved


def test_a_mask_that_would_not_fit_after_the_move_is_left_alone():
    """A square around a disc is loose all along, but no square fits the disc."""
    square = np.zeros(SIZE, bool)
    square[20:102, 30:112] = True
    seen = disc(36, 70.5, 60.5) < 0
    scene = scene_of(labels(square), sure(seen), tolerance=1.0)
    better, note = mended(scene, inspect(scene), labels(square), labels(seen), 1.0)
    assert inspect(scene).finding.kind == "loose" and better is None and "not moved" in note


def test_a_larger_mask_is_mended_at_its_own_size():
    given, seen = disc(60, 140, 120, (240, 320)) < 0, disc(52, 140, 120, (240, 320)) < 0
    scene = scene_of(labels(given[::2, ::2]), sure(seen[::2, ::2]), tolerance=1.5)
    better, _ = mended(scene, in_own_pixels(inspect(scene), 2.0), labels(given), labels(seen), 2.0)
    assert abs(np.sqrt((better == 1).sum() / np.pi) - 52) < 1


def test_an_empty_mask_that_was_learnt_by_heart_lacks_its_object():
    """The averaged predictions agree with it, but the training's early epochs did not."""
    empty, person = np.zeros(SIZE, bool), disc(30) < 0
    learnt = inspect(scene_of(labels(empty), sure(empty)))
    assert tempered(learnt, 1.0, 2) == learnt and tempered(learnt, 0.2, 2).finding.kind == "missing"
    assert tempered(learnt, 0.2, 2).score == pytest.approx(0.2)
    seen = inspect(scene_of(labels(person), sure(person)))
    assert tempered(seen, 0.2, 2).finding == seen.finding and tempered(seen, 0.2, 2).score == pytest.approx(0.2 * seen.score)
