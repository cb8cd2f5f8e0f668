"""Scores of files on one thread; and the two searches for boundary pixels that nothing matches."""

import math

import cv2
import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from cli.files import UserError
from data.pictures import write_mask
from utils import agreement_cpu, scoring
from utils.agreement import pixels

# --- one thread -------------------------------------------------------------------------------------------------


@pytest.fixture
def two_threads():
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    yield
    cv2.setNumThreads(before)


@pytest.fixture
def files(tmp_path):
    """Paths of five masks of three classes and of as many others."""
    dice = np.random.default_rng(0)
    paths = [[str(tmp_path / f"{kind}{number}.png") for number in range(5)] for kind in "ab"]
    for path in paths[0] + paths[1]:
        write_mask(path, cv2.resize(dice.integers(0, 3, (5, 6)).astype(np.uint8), (60, 50), interpolation=cv2.INTER_NEAREST), 3)
    return paths


@pytest.mark.parametrize("size", [None, (24, 32)])
def test_one_thread_gives_the_same_scores(files, two_threads, monkeypatch, size):
    expected = scoring.score_pairs(*files, 3, "all", 2.0, size)
    threads, score = [], scoring.score_decoded

    def noting(*arguments, **settings):
        threads.append(cv2.getNumThreads())
        return score(*arguments, **settings)

    monkeypatch.setattr(scoring, "score_decoded", noting)
    monkeypatch.setattr(scoring, "map_ahead", None)  # no thread reads ahead
    monkeypatch.setattr(scoring, "multiprocessing", None)  # and no other process scores
    found = scoring.score_pairs(*files, 3, "all", 2.0, size, workers=1)
    assert np.array_equal(found, expected) and len(np.unique(found)) > 5
    assert threads == [1] * 5 and cv2.getNumThreads() == 2


def test_the_threads_come_back_after_a_fault_too(files, two_threads):
    write_mask(files[1][2], np.full((50, 60), 7, np.uint8), 8)
    with pytest.raises(UserError, match=r"b2.png holds \[7\]"):
        scoring.score_pairs(*files, 3, "bm", 2.0, workers=1)
    assert cv2.getNumThreads() == 2


# --- many classes: near and far ---------------------------------------------------------------------------------


def regions(dice, classes):
    """Two label maps, alike in most places, with thin lines, single pixels and ignored ones."""
    height, width = dice.integers(20, 90, 2)
    rough = dice.integers(0, classes, (4, 5)).astype(np.uint8)
    a = cv2.resize(rough, (int(width), int(height)), interpolation=cv2.INTER_NEAREST)
    b = np.roll(a, dice.integers(-9, 10, 2), (0, 1))
    for labels in (a, b):
        for _ in range(6):
            start, end = (tuple(map(int, dice.integers(0, (width, height)))) for _ in range(2))
            cv2.line(labels, start, end, int(dice.integers(0, classes)), int(dice.integers(1, 3)))
        if dice.random() < 0.5:
            b[dice.random(b.shape) < 0.02], a[dice.random(a.shape) < 0.02] = 255, 255
    return a | np.where(b == 255, b, 0), b | np.where(a == 255, a, 0)


def matched_by_distances(edge, other, classes, reach):
    """Boundary pixels of each class that have one of theirs in the other map, by distances over whole pictures."""
    return [int((distance_transform_edt(other != c)[edge == c] < reach).sum()) if (other == c).any() else 0
            for c in range(classes)]


@pytest.mark.parametrize("theta", [1, 3.0, 7.5, 19.9, 20.0, 33.3, 60])
def test_both_searches_count_what_whole_pictures_of_distances_count(monkeypatch, theta):
    dice = np.random.default_rng(int(10 * theta))
    for number in range(8):
        classes = (3, 5, 19, 254)[number % 4]
        a, b = regions(dice, classes)
        reach, counts = pixels(theta, *a.shape), []
        for far in (0.0, math.inf):
            monkeypatch.setattr(agreement_cpu, "FAR", far)
            counts.append(agreement_cpu._count(a, b, classes, reach))
        assert counts[0] == counts[1]
        edges = [agreement_cpu._outlines(labels) for labels in (a, b)]
        assert counts[0][1][1] == matched_by_distances(*edges, classes, reach)
        assert counts[0][1][3] == matched_by_distances(*edges[::-1], classes, reach)


def test_the_tolerance_chooses_the_search(monkeypatch):
    class Called(Exception):
        pass

    def stop(*arguments):
        raise Called

    monkeypatch.setattr(agreement_cpu, "_search_extremes", stop)
    a, b = regions(np.random.default_rng(1), 4)
    agreement_cpu._count(a, b, 4, agreement_cpu.FAR)
    with pytest.raises(Called):
        agreement_cpu._count(a, b, 4, agreement_cpu.FAR - 0.1)
