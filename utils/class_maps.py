"""Classes that are taken for one another: the published maps of asymmetric noise, class -> class.

A map belongs to the data sets that name all of its classes. Those of Cityscapes, VOC and COCO are Yang et al.'s (ECCV 2020).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence


def both_ways(*pairs: str) -> dict[str, str]:
    """`"a b"` -> {"a": "b", "b": "a"}, of each pair."""
    return {one: other for pair in map(str.split, pairs) for one, other in (pair, pair[::-1])}


CIFAR10 = {"truck": "automobile", "bird": "airplane", "deer": "horse", "cat": "dog", "dog": "cat"}
"""The asymmetric noise of CIFAR-10 that most papers use."""

CITYSCAPES = both_ways("person rider", "truck bus", "motorcycle bicycle")  # car and train are never wrong

VOC = {"bird": "aeroplane", "diningtable": "chair", "bus": "car", "sheep": "horse",
       **both_ways("bicycle motorbike", "cat dog")}

DIGITS = both_ways("1 7", "3 5", "8 9", "0 6", "2 4")
"""Digits that look alike; the choice is this project's."""

PUBLISHED = {"CIFAR-10": CIFAR10, "Cityscapes": CITYSCAPES, "VOC": VOC, "digits": DIGITS}


def fitting_map(names: Iterable[str]) -> dict[str, str] | None:
    """The map of PUBLISHED whose classes are all among `names`; None if there is none."""
    known = {*names}
    return next((each for each in PUBLISHED.values() if {*each, *each.values()} <= known), None)


def published_lists(names: Sequence[str], groups: Sequence[str]) -> Mapping[int, list[int]]:
    """What the code of Yang et al. (ECCV 2020) draws the label of each class from, by number: its group but for the last class.

    The class itself may be drawn. In COCO a person counts as a vehicle, and the list of sports holds the snowboard twice and
    no skis, so that skis are neither drawn nor wrong. A class alone in its group is left out.

    Args:
        names, groups: of each class, by ascending category id.
    """
    is_coco = {"person", "skis", "snowboard"} <= set(names) and "vehicle" in groups
    own = ["vehicle" if is_coco and name == "person" else group for name, group in zip(names, groups)]
    lists: dict[str, list[int]] = {}
    for number, (name, group) in enumerate(zip(names, own)):
        as_listed = list(names).index("snowboard") if is_coco and name == "skis" else number
        lists.setdefault(group, []).append(as_listed)
    return {number: lists[group][:-1] for number, group in enumerate(own)
            if len(lists[group]) > 1 and number in lists[group]}


def within_groups(groups: Sequence[str]) -> Mapping[int, list[int]]:
    """Each class -> the other classes of its group, by number; a class alone in its group is left out.

    Args:
        groups: of each class, such as COCO's super-categories.
    """
    others = {number: [other for other, group in enumerate(groups) if group == own and other != number]
              for number, own in enumerate(groups)}
    return {number: found for number, found in others.items() if found}
