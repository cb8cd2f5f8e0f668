"""The rules of own weights by hand: tolerance, groups, moved masks, averages, one-sided doubts."""

import numpy as np
import pytest
import torch

from engine import own_memory
from utils.own_scores import (
    REACH,
    STEPS,
    adjusted_for_classes,
    learnt_mask,
    likely_level_set,
    one_sided,
    own_tolerance,
    own_weights,
    signed_distance,
)


def test_the_tolerance_stays_in_its_unit():
    """Below 1 it is a share of the diagonal, so 1 px must not become 0.67 of the diagonal."""
    assert [own_tolerance(theta) for theta in (3, 1.5, 1, 0.9, 0.03)] == pytest.approx([2, 1, 1, 0.6, 0.02])


def test_weights_are_those_of_two_groups_or_all_one():
    dice = np.random.default_rng(0)
    good, coarse = dice.normal(0.8, 0.03, 30), dice.normal(0.4, 0.03, 20)
    weights, reason = own_weights(np.append(np.concatenate([good, coarse]), np.nan).astype(np.float32))
    assert reason is None and (weights[:30] > 0.99).all() and (weights[30:50] < 0.01).all() and weights[50] == 1
    for means, words in ((good, "one group"), (np.append(good[:1], np.zeros(30)), "a few rows have all the weight"),
                         (np.full(4, np.nan), "no scores yet")):
        weights, reason = own_weights(means)
        assert (weights == 1).all() and words in reason


@pytest.mark.parametrize("centre, deviation, share", [(0.5, 0.15, 0.1), (0.64, 0.21, 0.3), (0.73, 0.18, 0.3)])
def test_masks_without_an_outline_make_no_group_of_their_own(centre, deviation, share):
    """Agreement with them is all or nothing: as a group of their own they would have all other masks doubted. Those that the
    student never finds empty are doubted where there are two groups."""
    dice = np.random.default_rng(0)
    outlined = np.arange(240) >= 240 * share
    means = np.where(outlined, dice.normal(centre, deviation, 240).clip(0, 1), 1)
    assert (own_weights(means)[0][outlined] < 0.5).sum() > 50  # the fault, where they are fitted, too
    weights, reason = own_weights(means, outlined)
    assert (weights == 1).all() and "one group" in reason
    means[outlined] = dice.normal(np.repeat([0.8, 0.3], [outlined.sum() - 80, 80]), 0.05)
    means[0] = 0
    weights, reason = own_weights(means, outlined)
    assert reason is None and weights[0] < 0.01 and (weights[1:-80] > 0.9).all() and (weights[-80:] < 0.1).all()
    weights, reason = own_weights(means, np.zeros(240, bool))
    assert (weights == 1).all() and reason


def test_a_class_s_score_counts_relative_to_its_mean():
    """Means of the classes: 0.8, 0.2, -; the rows lie 0.1, -0.05, 0, -0.05 above them; all about the rows' mean, 0.5."""
    nan = np.nan
    by_class = np.array([[0.9, 0.3, nan], [0.7, 0.2, nan], [0.8, nan, nan], [nan, 0.15, nan], [nan] * 3, [nan, 0.15, nan]])
    means = np.array([0.6, 0.45, 0.8, 0.15, 1.0, nan])
    adjusted = adjusted_for_classes(by_class, means)
    assert adjusted[[0, 1, 2, 3]] == pytest.approx([0.7, 0.55, 0.6, 0.55]) and adjusted[4] == 1
    assert adjusted_for_classes(np.full((2, 3), nan), means[:2]).tolist() == [0.6, 0.45]  # of an older run


def test_masks_of_thin_classes_are_no_group_of_coarse_ones():
    """Half of the masks hold a thin class. Coarse ones are 0.2 below in each class: those are found, and nothing else."""
    dice = np.random.default_rng(0)
    by_class, coarse = np.tile([0.9, 0.8, 0.3], (200, 1)) + dice.normal(0, 0.04, (200, 3)), np.arange(200) % 3 == 0
    by_class[::2, 2] = np.nan
    memory = own_memory.OwnMemory(200, None, 1, say=print, num_classes=3)
    for spoilt in (False, True):
        scores = torch.tensor(by_class - 0.2 * (spoilt * coarse)[:, None], dtype=torch.float32)
        memory.scores, memory.by_class = own_memory.RunningScores(200), own_memory.RunningScores(200, 3)
        mask = torch.tensor([[[0, 1, 2]]]).repeat(200, 1, 1)
        mask[::2, 0, 2] = 255
        batch = {"index": torch.arange(200), "mask": mask}
        memory.note(batch, scores.nanmean(1), torch.zeros(200, 3, 1, 3), 0, scores.nan_to_num())  # 0 where predicted astray
        memory.after_epoch(OneProcess(), None, None)
        weights = memory.judged()
        assert ((weights < 0.1) == coarse).all() if spoilt else (weights == 1).all()
        assert (own_weights(scores.nanmean(1).numpy())[0][1::2] < 0.5).all()  # the fault: of means over classes, the thin ones
    other = own_memory.OwnMemory(200, None, 1, say=print, num_classes=3)
    other.load_scores(memory.state_dict())
    assert (other.judged() == weights).all()
    plain = torch.tensor(dice.normal(0.6, 0.1, 200), dtype=torch.float32)
    memory.scores = own_memory.RunningScores(200)
    memory.note(batch, plain, torch.zeros(200, 3, 1, 3), 1, scores.nan_to_num())
    memory.after_epoch(OneProcess(), None, None)
    assert (memory.judged() == 1).all()  # plain means of one group: no mask is doubted, whatever the adjusted ones say


def disc(radius, size=(96, 128)):
    y, x = np.mgrid[:size[0], :size[1]]
    return np.hypot(y - 45.3, x - 60.8) - radius


@pytest.mark.parametrize("error", [-3, 0, 3])
@pytest.mark.parametrize("band", [False, True])
def test_a_disc_that_was_drawn_too_large_or_too_small_is_moved_back(error, band):
    """Within half a pixel of its radius; ignored pixels stay ignored, whatever is predicted there."""
    given = (disc(24 + error) < 0).astype(np.uint8)
    average = 1 / (1 + np.exp(disc(24) / 1.5))
    if band:
        given[:, 58:70] = 255
        average[:, 58:70] = 1
    learnt, counted = learnt_mask(given, average.astype(np.float32))
    valid = given != 255
    assert learnt.dtype == np.uint8 and ((learnt == 255) == ~valid).all()
    if not band:
        assert abs(np.sqrt(learnt.sum() / np.pi) - 24) < 0.5
    assert ((learnt == 1) != (disc(24) < 0))[valid & (abs(disc(24)) > 1)].sum() == 0
    assert (counted == ((learnt == 1) == (average > 0.5)))[valid].all()


def test_the_level_set_is_the_best_of_all_levels():
    """Against every level tried by itself, on random regions and predictions, whole and empty ones too."""
    dice = np.random.default_rng(1)
    for trial in range(30):
        noise = np.cumsum(np.cumsum(dice.normal(size=(2, 40, 50)), 1), 2)
        inside, p = noise[0] > np.median(noise[0]), 1 / (1 + np.exp(-noise[1] / noise[1].std()))
        if trial < 2:
            inside = np.full_like(inside, bool(trial))
        odds = np.log(np.clip(p, 0.02, 0.98) / (1 - np.clip(p, 0.02, 0.98)))
        distance = signed_distance(inside)
        step = round(REACH * np.hypot(40, 50) / STEPS, 1)
        tried = [odds[distance > k * step].sum() for k in range(-STEPS, STEPS + 1)]
        assert odds[likely_level_set(inside, p)].sum() == pytest.approx(max(tried))
        assert (likely_level_set(inside, np.full(p.shape, 0.5)) == inside).all()  # nothing to go by: unmoved


@pytest.mark.parametrize("side, moved", [(6, True), (-6, True), (9, False)])
def test_an_outline_moves_by_four_percent_of_the_diagonal_and_not_by_six(side, moved):
    """Squares on 100 x 100 px, whose diagonal is 141 px: 6 px are 4.2 %, 9 px 6.4 %."""
    right, drawn = np.zeros((2, 100, 100), bool)
    right[30:70, 30:70] = drawn[30 - side:70 + side, 30 - side:70 + side] = True
    found = likely_level_set(drawn, right.astype(float))
    assert (found[50] == right[50]).all() == moved and found.sum() != drawn.sum()


def test_classes_are_not_moved_and_count_where_they_are_most_probable():
    average = np.array([[[0.2, 0.6, 0.1]], [[0.5, 0.3, 0.8]], [[0.3, 0.1, 0.1]]], np.float32)  # (3, 1, 3)
    learnt, counted = learnt_mask(np.array([[1, 2, 255]], np.uint8), average)
    assert learnt.tolist() == [[1, 2, 255]] and counted.tolist() == [[True, False, False]]


class OneProcess:
    world_size = 1


def test_predictions_are_averaged_in_16_bits():
    memory = own_memory.AveragedPredictions(3, (1, 2))
    p = torch.tensor([[[0.1, 0.9]], [[1.0, 0.502]]])
    for epoch in range(300):  # row 1 is met in every epoch, row 0 in the first alone, row 2 never
        index = torch.tensor([0, 1]) if epoch == 0 else torch.tensor([1])
        memory.note(index, torch.logit(p[index], 1e-7)[:, None])
        memory.fold(OneProcess)
    assert memory.counts.tolist() == [1, 257, 0]  # a sum of 16 bits is full
    assert memory.average(0)[0] == pytest.approx([0.1, 0.9], abs=1 / 500)
    assert memory.average(1)[0] == pytest.approx([1, 128 / 255], abs=1e-6)
    assert np.isnan(memory.average(2)).all() and memory.sums.dtype == np.uint16
    moved = own_memory.AveragedPredictions(1, (1, 2), moved=True)
    for epoch in range(260):  # 255 times 1.0 and 0.0, then the other way round; the second pixel is out of sight once
        logits = torch.tensor([[[[9.0, -9.0]]]]) * (3 if epoch < 255 else -3)
        moved.note(torch.tensor([0]), logits, torch.tensor([[[0, -1 if epoch == 9 else 1]]]))
        moved.fold(OneProcess)
    assert moved.counts.tolist() == [[[255, 255]]]  # a count of 8 bits is full; the second one's last is of epoch 256
    assert moved.average(0).ravel() == pytest.approx([1, 1 / 255], abs=1e-6)
    classes = own_memory.AveragedPredictions(1, (3, 1, 1))
    classes.note(torch.tensor([0]), torch.log(torch.tensor([0.2, 0.3, 0.5])).view(1, 3, 1, 1))
    classes.fold(OneProcess)
    assert classes.average(0).ravel() == pytest.approx([0.2, 0.3, 0.5], abs=1 / 255)

def test_doubted_masks_that_are_most_and_err_alike_are_not_doubted():
    """Either these are coarse or the others: 60 of 100 doubted, 39 of them too tight. Not where errors go both ways, where the
    doubted ones are the fewer, where a coin may fall so, or where no direction is known (more than two classes)."""
    weights = np.repeat([0.1, 0.9], [60, 40])
    def seem_tight(count, doubted=60):
        return np.concatenate([np.repeat([0.9, 0.2], [count, doubted - count]), np.full(100 - doubted, 0.9)])
    assert one_sided(weights, seem_tight(39)) == ("60 % of the masks are doubted, and of those that err to one "
                                                  "side 65 % seem too tight: either these are coarse, or all the others")
    assert "65 % seem too loose" in one_sided(weights, seem_tight(21))
    assert one_sided(weights, seem_tight(38)) is None and one_sided(weights, seem_tight(30)) is None
    assert one_sided(np.repeat([0.1, 0.9], [50, 50]), seem_tight(50, 50)) is None
    assert one_sided(weights, np.full(100, np.nan)) is None
    ties = np.concatenate([np.repeat([0.9, 0.2, 0.5], [21, 21, 18]), np.full(40, 0.9)])
    assert one_sided(weights, ties) is None and one_sided(weights, 1 - ties) is None  # as often larger as smaller: no direction
    ties[:42] = np.repeat([0.9, 0.2], [29, 13])
    assert "69 % seem too tight" in one_sided(weights, ties) and "69 % seem too loose" in one_sided(weights, 1 - ties)
    assert one_sided(weights, np.full(100, 0.5)) is None
    ties[:42] = np.repeat([0.9, 0.5], [20, 22])
    assert one_sided(weights, ties) is None  # 20 of 60 have a direction: too few to speak for all
    beside = np.repeat([0.9, 0.1, 0.9], [80, 30, 90])  # masks without an outline beside 60 of 100 doubted: they say nothing
    outlined = np.repeat([True, False, False], [100, 40, 60])
    for empty in (0.1, 0.9):
        many, directions = np.append(weights, np.full(100, empty)), np.append(seem_tight(39), beside[:100])
        assert "60 % of the masks" in one_sided(many, directions, outlined)
        assert one_sided(many, np.append(seem_tight(30), np.full(100, 0.9)), outlined) is None
    assert one_sided(weights, seem_tight(39), np.zeros(100, bool)) is None
    few = np.repeat([0.1, 0.9], [11, 5])
    assert one_sided(few, np.repeat([0.9, 0.1], [8, 8])) is None and one_sided(few, np.repeat([0.9, 0.1], [9, 7])) is not None


def test_which_of_prediction_and_mask_is_larger():
    mask = torch.tensor([[[0, 1, 1, 255]], [[0, 1, 1, 0]], [[1, 1, 1, 0]]])
    logits = torch.tensor([[1.0, 1, 1, -1], [1.0, -1, 1, -1], [-1.0, -1, 1, 1]])[:, None, None]
    assert own_memory.prediction_is_larger(logits, mask).tolist() == [1, 0.5, 0]
    logits[0, 0, 0] = torch.tensor([1.0, 1, -1, 9])  # what is ignored does not count
    assert own_memory.prediction_is_larger(logits, mask).tolist() == [0.5, 0.5, 0]


def test_a_mask_has_an_outline_where_two_classes_meet():
    masks = torch.tensor([[0, 0, 255], [255, 255, 255], [1, 1, 1], [0, 255, 1], [2, 3, 255], [254, 255, 254]])[:, None]
    for kind in (torch.long, torch.uint8):
        assert own_memory.has_outline(masks.to(kind)).tolist() == [False, False, False, True, True, False]


def test_which_classes_a_mask_holds():
    mask = torch.tensor([[[0, 2, 255]], [[255, 255, 255]], [[1, 1, 1]]])
    for kind in (torch.long, torch.uint8):
        assert own_memory.held_classes(mask.to(kind), 3).int().tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]


def test_scores_of_classes_are_folded_and_come_back_within_an_epoch():
    """A score that is NaN counts in no epoch."""
    scores = own_memory.RunningScores(3, 2)
    scores.note(torch.tensor([0, 2]), torch.tensor([[0.5, torch.nan], [1.0, 0.25]]))
    other = own_memory.RunningScores(3, 2)
    other.load_state_dict(scores.state_dict())
    for each in (scores, other):
        each.fold(OneProcess())
        each.note(torch.tensor([0]), torch.tensor([[1.0, torch.nan]]))
        each.fold(OneProcess())
        assert np.array_equal(each.means(), [[0.75, np.nan], [np.nan, np.nan], [1, 0.25]], equal_nan=True)


def test_rows_met_before_a_stop_count_once_in_several_processes(monkeypatch):
    """One process was stopped within an epoch; two go on from its state, and the epoch's end sums what they hold."""
    memory, index = own_memory.OwnMemory(3, (1, 2), 0, say=print), torch.tensor([0, 2])
    batch = {"index": index, "mask": torch.ones(2, 1, 2, dtype=torch.long)}
    memory.note(batch, torch.tensor([0.5, 1.0]), torch.ones(2, 1, 1, 2), 0)
    parts = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        parts.append(own_memory.OwnMemory(3, (1, 2), 0, say=print))
        parts[-1].load_state_dict({name: value for name, value in memory.state_dict().items()})
    for held in (lambda each: each.scores.now, lambda each: each.predictions.now, lambda each: each.predictions.met):
        first, second = map(held, parts)
        assert first.any() and not second.any() and first.shape == second.shape


def test_empty_masks_do_not_bend_the_memory_s_weights():
    """A third of the masks is empty and predicted so; of the others no group stands out. The state keeps which are empty."""
    memory, index = own_memory.OwnMemory(90, None, 1, say=print), torch.arange(90)
    mask = torch.zeros(90, 1, 4, dtype=torch.long)
    mask[30:, :, 0] = 1
    scores = torch.tensor(np.random.default_rng(0).normal(0.6, 0.15, 90).clip(0, 1), dtype=torch.float32)
    scores[:30] = 1
    memory.note({"index": index, "mask": mask}, scores, torch.zeros(90, 1, 1, 4), 0)
    memory.after_epoch(OneProcess(), None, None)
    other = own_memory.OwnMemory(90, None, 1, say=print)
    other.load_scores(memory.state_dict())
    assert (memory.judged() == 1).all() and (other.judged() == 1).all() and "one group" in other.reason
    old = {name: part for name, part in memory.state_dict().items() if name != "outlined"}
    other = own_memory.OwnMemory(90, None, 1, say=print)
    other.load_scores(old)  # of an older version, which did not know
    assert np.isnan(other.outlined.means()).all() and (own_weights(other.scores.means())[0][30:] < 0.5).sum() > 30


def test_one_sided_doubts_give_weights_of_one(monkeypatch):
    memory = own_memory.OwnMemory(100, None, 1, say=lambda word: said.append(word))
    said, index = [], torch.arange(100)
    scores = torch.tensor(np.repeat([0.1, 0.8], [60, 40]), dtype=torch.float32)
    scores += torch.linspace(0, 0.02, 100)
    for tight, expected in ((30, False), (60, True)):  # masks of 1 pixel and of 3; predictions of 2
        mask = torch.zeros(100, 1, 4, dtype=torch.long)
        mask[:, :, 0] = 1
        mask[tight:, :, 1:3] = 1
        memory.larger = own_memory.RunningScores(100)
        memory.note({"index": index, "mask": mask}, scores, torch.tensor([1.0, 1, -1, -1]).expand(100, 1, 1, 4), 0)
        memory.after_epoch(OneProcess(), None, None)
        assert (memory.judged() == 1).all() == expected and bool(said) == expected
    assert "either these are coarse" in said[0] and memory.reason in said[0]
