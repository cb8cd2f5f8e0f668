"""Own weights of augmented pictures, by hand and by planted fault: where pixels come from, averages, corrected masks."""

import argparse
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2

from cli.files import write_rows
from data.dataset import SegmentationDataset
from data.make_sample import draw_set
from data.rows import read_rows
from data.splits import pair_folder
from data.transforms import Augmentation
from engine import own_run
from engine.own_memory import AveragedPredictions
from tests.test_own_scores import OneProcess, disc
from utils.own_scores import learnt_mask

SIZE = (48, 40)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Eight drawn portraits."""
    folder = tmp_path_factory.mktemp("portraits")
    draw_set(folder, 8, (64, 48))
    write_rows(folder / "train.csv", pair_folder(folder))
    return read_rows(folder / "train.csv")


# --- where pixels come from -------------------------------------------------------------------------------------


def scaled(factor):
    """The scale of `Augmentation`, always by this factor."""
    fill = {tv_tensors.Image: 0, tv_tensors.Mask: 255}
    return v2.RandomAffine(degrees=0, scale=(factor, factor), fill=fill, interpolation=InterpolationMode.BILINEAR)


# by hand: pixel i of n lies at i - (n - 1) / 2 from the centre; it comes from there divided by the factor, rounded
FLIPPED, ENLARGED, REDUCED = v2.RandomHorizontalFlip(1), v2.Compose([scaled(2)]), v2.Compose([scaled(0.5)])
MOVES = [(FLIPPED, 4, [0, 1, 2, 3], [3, 2, 1, 0]), (ENLARGED, 4, [1, 1, 2, 2], [1, 1, 2, 2]),
         (REDUCED, 5, [-1, 0, 2, 4, -1], [-1, 0, 2, 4, -1]),
         (v2.Compose([FLIPPED, scaled(0.5)]), 5, [-1, 0, 2, 4, -1], [-1, 4, 2, 0, -1])]


def by_hand(y, x, width):
    """Positions, of the y of each line and the x of each column, -1 = outside."""
    return [[line * width + column if min(line, column) >= 0 else -1 for column in x] for line in y]


@pytest.mark.parametrize("move, side, y, x", MOVES, ids=["flipped", "enlarged", "reduced", "flipped and reduced"])
def test_the_source_of_each_pixel(rows, move, side, y, x):
    dataset = SegmentationDataset(rows, (side, side), 2, augment=True, sources=True)
    dataset.augment.joint = move
    source = dataset.__getitems__([0, 1])["source"]
    assert source.dtype == torch.int32 and source.tolist() == [by_hand(y, x, side)] * 2


def test_masks_are_what_their_sources_say_and_pictures_do_not_depend_on_them(rows):
    """At random, on a picture that is not square; and without --augment, or unasked, there are none."""
    plain, unasked = (SegmentationDataset(rows, SIZE, 2, augment) for augment in (False, True))
    asked = SegmentationDataset(rows, SIZE, 2, True, sources=True)
    given = plain.__getitems__(range(8))
    for epoch in (0, 7):
        asked.epoch = unasked.epoch = epoch
        batch, same = asked.__getitems__(range(8)), unasked.__getitems__(range(8))
        source = batch.pop("source")
        assert all(torch.equal(batch[key], same[key]) for key in same) and batch.keys() == same.keys() == given.keys()
        expected = given["mask"].flatten(1).gather(1, source.clamp(min=0).flatten(1).long()).view(8, *SIZE)
        assert torch.equal(torch.where(source < 0, 255, expected), batch["mask"])
        assert (source == -1).any() and source.max() < SIZE[0] * SIZE[1]


@pytest.mark.parametrize("flags, expected", [
    ({}, False), ({"augment": True}, True), ({"augment": True, "scores_only": True}, False),
    ({"augment": True, "scores_only": True, "after": "runs/own"}, True), ({"after": "runs/own"}, False)])
def test_only_a_run_that_needs_them_pays_for_sources(rows, flags, expected):
    args = argparse.Namespace(**{"augment": False, "scores_only": False, "after": None, "size": SIZE, "num_classes": 2,
                                 "cache": False, "seed": 0, **flags})
    assert ("source" in own_run.dataset(rows, args, True).__getitems__([0])) == expected
    assert "source" not in own_run.dataset(rows, args, False).__getitems__([0])


# --- averages ---------------------------------------------------------------------------------------------------


def averaged(p, source):
    """A memory of one row that has noted these probabilities ((H, W) or (C, H, W)) of an augmented picture, once."""
    p = torch.tensor(p)
    memory = AveragedPredictions(1, p.shape, moved=True)
    logits = torch.logit(p)[None, None] if p.ndim == 2 else torch.log(p)[None]
    memory.note(torch.tensor([0]), logits, torch.tensor([source], dtype=torch.int32))
    return memory


def test_averages_by_hand():
    """A picture of 2 x 3, flipped, then enlarged so that its first column is lost and its last one is seen twice."""
    memory = averaged([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]], by_hand([0, 1], [2, 1, 0], 3))
    memory.fold(OneProcess)
    assert memory.average(0) == pytest.approx(np.array([[0.3, 0.2, 0.1], [0.6, 0.5, 0.4]]), abs=1 / 500)
    memory.note(torch.tensor([0]), torch.logit(torch.tensor([[[[0.5, 0.7, 0.9], [0.5, 0.2, 0.4]]]])),
                torch.tensor([by_hand([0, 1], [1, 2, 2], 3)]))
    assert memory.met.tolist() == [[[0, 1, 1], [0, 1, 1]]]
    memory.fold(OneProcess)  # the two predictions of one epoch count as their mean
    assert memory.average(0) == pytest.approx(np.array([[0.3, 0.35, 0.45], [0.6, 0.5, 0.35]]), abs=1 / 250)
    assert memory.counts.tolist() == [[[1, 2, 2], [1, 2, 2]]]


def test_pixels_never_seen_have_no_average_and_a_full_count_takes_no_more():
    source = by_hand([-1, 0], [1, 1, -1], 3)
    memory = averaged([[0.1, 0.2, 0.3], [0.4, 1.0, 0.6]], source)
    for _ in range(300):
        memory.note(torch.tensor([0]), torch.full((1, 1, 2, 3), 9.0), torch.tensor([source]))
        memory.fold(OneProcess)
    assert np.isnan(memory.average(0)).tolist() == [[True, False, True], [True] * 3]
    assert memory.average(0)[0, 1] == 1 and memory.counts.max() == 255 and memory.sums.max() == 255 * 255


def test_classes_are_brought_back_together():
    memory = averaged([[[0.2, 0.6, 0.1]], [[0.5, 0.3, 0.8]], [[0.3, 0.1, 0.1]]], by_hand([0], [2, 0, -1], 3))
    memory.fold(OneProcess)
    expected = [[[0.6, np.nan, 0.2]], [[0.3, np.nan, 0.5]], [[0.1, np.nan, 0.3]]]
    assert memory.average(0) == pytest.approx(np.array(expected), abs=1 / 250, nan_ok=True)
    assert memory.counts.shape == (1, 1, 3)


@pytest.mark.parametrize("fault", [None, "not moved back", "not flipped back"])
def test_a_network_that_is_right_about_moved_pictures_is_right_on_average(rows, fault):
    """Its average is the mask, wherever it has seen it; with a fault it is not."""
    dataset = SegmentationDataset(rows, SIZE, 2, augment=True, sources=True)
    memory = AveragedPredictions(len(rows), SIZE, moved=True)
    for dataset.epoch in range(8):
        batch = dataset.__getitems__(range(len(rows)))
        source = batch["source"]
        if fault == "not moved back":
            source = torch.arange(SIZE[0] * SIZE[1], dtype=torch.int32).view(1, *SIZE).expand_as(source)
        elif fault:
            left, right = source[..., :-1], source[..., 1:]
            flipped = ((left > right) & (right >= 0)).flatten(1).any(1)[:, None, None]
            source = torch.where(flipped & (source >= 0), source + SIZE[1] - 1 - 2 * (source % SIZE[1]), source)
        memory.note(batch["index"], torch.where(batch["mask"] == 1, 9.0, -9.0)[:, None], source)
        memory.fold(OneProcess)
    masks = SegmentationDataset(rows, SIZE, 2).__getitems__(range(len(rows)))["mask"].numpy()
    average = np.stack(list(map(memory.average, range(len(rows)))))
    seen = ~np.isnan(average)
    wrong = (abs(average - masks) > 0.01)[seen].mean()
    assert seen.mean() > 0.99 and (wrong == 0 if fault is None else wrong > 0.05), wrong


# --- corrected masks --------------------------------------------------------------------------------------------


def test_unknown_pixels_do_not_count_and_speak_for_neither():
    """As if they were as likely inside as outside; a mask of which all is unknown is not moved."""
    given = (disc(27) < 0).astype(np.uint8)
    average = (1 / (1 + np.exp(disc(24) / 1.5))).astype(np.float32)
    unknown = np.random.default_rng(0).random(given.shape) < 0.3
    learnt, counted = learnt_mask(given, np.where(unknown, np.nan, average))
    expected, all_counted = learnt_mask(given, np.where(unknown, 0.5, average))
    assert (learnt == expected).all() and (learnt != given).any()
    assert (counted == (all_counted & ~unknown)).all() and counted.any()
    learnt, counted = learnt_mask(given, np.full(given.shape, np.nan))
    assert (learnt == given).all() and not counted.any()
    classes = np.array([[[0.6, np.nan, np.nan]], [[0.4, np.nan, np.nan]], [[0.0, np.nan, np.nan]]])
    learnt, counted = learnt_mask(np.array([[0, 0, 2]], np.uint8), classes)
    assert learnt.tolist() == [[0, 0, 2]] and counted.tolist() == [[True, False, False]]


def test_corrected_masks_are_moved_as_the_picture_is():
    """By hand: row 1 is doubted, row 0 is not; a picture of 1 x 3, flipped, and one whose first column is outside."""
    masks = own_run.CorrectedMasks.__new__(own_run.CorrectedMasks)
    masks.place, masks.learnt = torch.tensor([-1, 0]), torch.tensor([[[0, 1, 2]]], dtype=torch.uint8)
    masks.counted = torch.tensor([[[True, False, True]]])
    batch = {"index": torch.tensor([1, 0, 1]), "mask": torch.tensor([[[1, 1, 1]], [[0, 1, 0]], [[255, 1, 1]]])}
    assert masks.masks(batch).tolist() == [[[0, 1, 2]], [[0, 1, 0]], [[0, 1, 2]]]
    batch["source"] = torch.tensor([[[2, 1, 0]], [[2, 1, 0]], [[-1, 0, 2]]], dtype=torch.int32)
    assert masks.masks(batch).tolist() == [[[2, 1, 0]], [[0, 1, 0]], [[255, 0, 2]]]
    assert masks.pixel_weights(batch).tolist() == [[[1, 0, 1]], [[1, 1, 1]], [[0, 1, 1]]]


def test_an_augmented_pass_may_follow_one_that_was_not_and_the_other_way_round(rows):
    """Corrected masks lie in the picture as it is, whichever predictions they go by."""
    args = SimpleNamespace(size=SIZE, num_classes=2)
    masks = SegmentationDataset(rows, SIZE, 2).__getitems__(range(8))["mask"]
    logits = torch.where(masks == 1, 3.0, -3.0)[:, None]
    here = torch.arange(SIZE[0] * SIZE[1], dtype=torch.int32).view(1, *SIZE).expand(8, *SIZE)
    found = []
    for moved in (False, True):
        memory = AveragedPredictions(8, SIZE, moved)
        memory.note(torch.arange(8), logits, here if moved else None)
        memory.fold(OneProcess)
        memory.counts[3] = 0  # a row that was never predicted is learnt as it is
        found.append(own_run.CorrectedMasks(rows, args, np.linspace(0, 1, 8), memory.state_dict()))
    for corrected in found:
        assert corrected.place.tolist() == [0, 1, 2, -1, -1, -1, -1, -1]
        assert torch.equal(corrected.learnt, found[0].learnt) and torch.equal(corrected.counted, found[0].counted)


def test_predictions_of_the_other_kind_are_refused():
    whole, moved = (AveragedPredictions(2, (4, 6), each) for each in (False, True))
    with pytest.raises(ValueError, match="its memory is of shape"):
        whole.load_state_dict(moved.state_dict())


def test_the_augmentation_moves_any_number_of_maps():
    torch.manual_seed(0)
    maps = [torch.randint(0, 255, (2, 9, 7), dtype=torch.uint8), torch.randint(0, 255, (9, 7), dtype=torch.uint8)]
    image = torch.zeros(3, 9, 7, dtype=torch.uint8)
    moved = []
    for given in (maps, maps[:1], maps[1:]):
        torch.manual_seed(5)
        moved.append(Augmentation()(image, *given))
    assert [len(each) for each in moved] == [3, 2, 2]
    assert torch.equal(moved[0][1], moved[1][1]) and torch.equal(moved[0][2], moved[2][1])
