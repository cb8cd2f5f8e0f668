"""Average precision of detectors, by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.test_instances import NAMES, rectangle
from utils.instance_scores import InstanceScores, precision_table


def found(mask, label, score):
    return {"masks": torch.tensor(mask)[None, None].float(), "labels": torch.tensor([label]), "scores": torch.tensor([score])}


def true(*instances):
    masks, labels, crowds = zip(*instances)
    return {"masks": torch.tensor(np.array(masks)), "labels": torch.tensor(labels), "crowd": torch.tensor(crowds)}


def test_average_precision_by_hand():
    """Class 1: two pictures, IoU 1 and 13/16: right at .5 to .8, 7 of 10 thresholds, where AP is 1; above it the surer one
    is right and recall .5: 51 of 101 recall levels. Class 2: found as class 1. Class 3 does not occur."""
    scores = InstanceScores(3)
    whole, part = rectangle(0, 0, 10, 16), rectangle(0, 0, 10, 13)
    scores.update([found(whole, 1, .9)], [true((whole, 1, 0))])
    scores.update([found(part, 1, .8)], [true((whole, 1, 0))])
    scores.update([found(whole, 1, .1)], [true((whole, 2, 0))])
    told = scores.compute()
    assert told["ap50_per_class"] == [pytest.approx(1), 0, None] and told["ap75_per_class"][0] == pytest.approx(1)
    assert told["ap_per_class"][0] == pytest.approx((7 + 3 * 51 / 101) / 10, abs=1e-6)
    assert told["ap"] == pytest.approx(told["ap_per_class"][0] / 2) and told["ap50"] == pytest.approx(0.5)
    assert told["images"] == 3
    assert precision_table(told, NAMES).splitlines()[-1] == "| cow | - | - | - |"


def test_unequal_numbers_of_pictures_in_two_processes_are_gathered(monkeypatch):
    """Two pictures here and one in the other process: the scores are those of all three in one."""
    whole, part = rectangle(0, 0, 10, 16), rectangle(0, 0, 10, 13)
    batches = [([found(whole, 1, .9)], [true((whole, 1, 0))]), ([found(part, 1, .8)], [true((whole, 1, 0))]),
               ([found(whole, 1, .1)], [true((whole, 2, 0))])]
    alone, here, there = InstanceScores(3), InstanceScores(3), InstanceScores(3)
    for place, batch in enumerate(batches):
        alone.update(*batch)
        (there if place == 1 else here).update(*batch)
    others = iter(there.metric.metric_state.values())

    def gather(parts, own):
        parts[:] = own, next(others)

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    fabric = SimpleNamespace(world_size=2, device="cpu", all_reduce=lambda value, reduce_op: value + 1)
    here.reduce(fabric)
    assert here.compute() == alone.compute() and here.images == 3


def test_scores_of_masks_without_a_pixel_are_nothing():
    empty = rectangle(0, 0, 0, 0)
    for detections in (found(empty, 1, .9), found(rectangle(0, 0, 5, 5), 1, .9)):
        scores = InstanceScores(2)
        scores.update([detections], [true((empty, 1, 0))])
        told = scores.compute()
        assert told == {**dict.fromkeys(("ap", "ap50", "ap75"), 0.0), "images": 1,
                        **dict.fromkeys(("ap_per_class", "ap50_per_class", "ap75_per_class"), [None, None])}


def test_crowds_do_not_count():
    scores = InstanceScores(1)
    whole, crowd = rectangle(0, 0, 10, 20), rectangle(20, 0, 40, 60)
    both = {name: torch.cat([found(whole, 1, .5)[name], found(rectangle(22, 3, 30, 20), 1, .9)[name]])
            for name in ("masks", "labels", "scores")}
    scores.update([both], [true((whole, 1, 0), (crowd, 1, 1))])
    assert scores.compute()["ap"] == pytest.approx(1)  # the surer one lies in the crowd and is no error
    scores = InstanceScores(1)
    scores.update([both], [true((whole, 1, 0))])
    assert scores.compute()["ap"] == pytest.approx(0.5)
