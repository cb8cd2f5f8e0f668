"""Noise on class labels: transition matrices, and labels drawn by them. Knows nothing of files.

Legend: C classes; N samples (pictures, boxes); a *transition matrix* is a float array (C, C) whose entry [t, g] is the
probability that a sample of the true class t is given the label g. Each row sums to 1. Samples are drawn independently.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

ROUNDING = 0.01  # a row's sum may be off by this much, since printed matrices are rounded

CIFAR10N_WORST = np.array([
    [65.0, 6.6, 7.2, 1.9, 1.9, 2.3, 1.9, 1.7, 8.5, 3.1],
    [4.3, 59.2, 1.5, 2.6, 1.7, 1.5, 1.4, 1.4, 1.6, 24.7],
    [5.5, 3.7, 63.2, 4.6, 5.9, 4.8, 5.0, 3.3, 2.4, 1.7],
    [4.0, 3.4, 7.9, 48.7, 4.3, 20.6, 4.7, 2.4, 2.1, 1.9],
    [3.9, 3.3, 7.0, 4.0, 48.8, 10.6, 3.9, 15.2, 2.1, 1.2],
    [3.3, 2.8, 5.3, 18.3, 4.0, 58.0, 2.7, 2.9, 1.2, 1.3],
    [3.8, 3.8, 8.4, 7.6, 5.1, 5.8, 59.4, 2.9, 2.0, 1.3],
    [4.0, 2.8, 2.4, 2.2, 5.1, 6.2, 2.3, 72.2, 1.7, 1.1],
    [8.2, 7.3, 2.2, 1.4, 2.1, 1.9, 1.6, 2.2, 68.3, 4.8],
    [4.2, 28.2, 1.7, 2.1, 1.8, 1.8, 1.2, 1.4, 2.6, 55.1]])
"""Percent; rows true, columns given: what people gave in CIFAR-10N's `worst` labels (Wei et al., ICLR 2022)."""

CIFAR10N_WRONG = {"worst": None, "rand1": 0.1723, "aggre": 0.0901}
"""Share of wrong labels on average over the classes; None: as the matrix has it, 0.4021."""


def symmetric(num_classes: int, rate: float, original_sampling: bool = False) -> np.ndarray:
    """A label is wrong with probability `rate`, and then any of the other classes alike.

    Args:
        num_classes: C >= 2.
        rate: 0..1.
        original_sampling: as the code of Yang et al. (ECCV 2020) draws: with probability `rate` a class is drawn from all but
            the last. The true class may be drawn for itself, so fewer labels are wrong, rate (C - 2) / (C - 1) in all rows but
            the last, and the last class is never given wrongly.

    Returns:
        transition matrix (C, C).
    """
    matrix = np.full((num_classes, num_classes), rate / (num_classes - 1))
    if original_sampling:
        matrix[:, -1] = 0
        return matrix + (1 - rate) * np.eye(num_classes)
    np.fill_diagonal(matrix, 1 - rate)
    return matrix


def asymmetric(num_classes: int, rate: float, targets: Mapping[int, int | Sequence[int]]) -> np.ndarray:
    """A label of a class in `targets` is wrong with probability `rate`; the other classes stay.

    Args:
        rate: 0..1, of each class in `targets`, not of all samples.
        targets: dict of class number -> class number, or several, which share `rate` evenly.

    Returns:
        transition matrix (C, C).

    Raises:
        ValueError: a class is no number in 0..C-1, or is its own target.
    """
    matrix = np.eye(num_classes)
    for true, given in targets.items():
        others = [given] if isinstance(given, (int, np.integer)) else list(given)
        if not others or not {true, *others} <= set(range(num_classes)) or true in others or len(set(others)) < len(others):
            raise ValueError(f"{true} -> {given} is no change from one class in 0..{num_classes - 1} to another")
        matrix[true, true] = 1 - rate
        matrix[true, others] = rate / len(others)
    return matrix


def drawn_from(num_classes: int, rate: float, lists: Mapping[int, Sequence[int]]) -> np.ndarray:
    """With probability `rate`, the label of a class in `lists` is drawn from the class's list, every element alike.

    Args:
        rate: 0..1; fewer labels are wrong where a list holds the class itself.
        lists: dict of class number -> class numbers, one or more; one that stands twice is drawn twice as often.

    Returns:
        transition matrix (C, C).
    """
    matrix = np.eye(num_classes)
    for true, given in lists.items():
        matrix[true, true] = 1 - rate
        np.add.at(matrix[true], list(given), rate / len(given))
    return matrix


def embedded(matrix: np.ndarray, chosen: Sequence[int], num_classes: int) -> np.ndarray:
    """A transition matrix (C, C) that is `matrix` among the `chosen` classes and leaves the others as they are.

    Args:
        matrix: of len(chosen) classes.
        chosen: class numbers in 0..C-1, ascending.
    """
    whole = np.eye(num_classes)
    whole[np.ix_(chosen, chosen)] = matrix
    return whole


def cifar10n(kind: str) -> np.ndarray:
    """Noise like that of the people who labelled CIFAR-10N, for 10 classes.

    `worst` is the published matrix (CIFAR10N_WORST), its rows brought to a sum of 1. `rand1` and `aggre` are **not** measured
    matrices: they are the off-diagonal pattern of `worst`, scaled so that 17.23 % and 9.01 % of the labels are wrong on
    average over the classes, as in CIFAR-10N.

    Args:
        kind: a key of CIFAR10N_WRONG.

    Returns:
        transition matrix (10, 10).
    """
    worst = checked_matrix(CIFAR10N_WORST)
    wrong = CIFAR10N_WRONG[kind]
    if wrong is None:
        return worst
    scale = wrong / wrong_share(worst)
    return np.eye(10) + scale * (worst - np.eye(10))


def checked_matrix(matrix: np.ndarray, num_classes: int | None = None) -> np.ndarray:
    """A transition matrix whose rows sum to 1 exactly, from one that may be rounded and in percent.

    Args:
        matrix: (C, C), rows true, columns given; the rows sum to 1, or to 100, but for ROUNDING.
        num_classes: C must be this, if given.

    Raises:
        ValueError: it is not square, not of this size, not of finite numbers >= 0, or a row has another sum.
    """
    matrix = np.asarray(matrix, dtype=float)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.shape[0] < 2:
        shape = " x ".join(map(str, matrix.shape)) or "one number"
        raise ValueError(f"its shape is {shape}; a row and a column per class are needed")
    if num_classes is not None and len(matrix) != num_classes:
        raise ValueError(f"the matrix is of {len(matrix)} classes, there are {num_classes}")
    if not np.isfinite(matrix).all() or (matrix < 0).any():
        row = int(np.flatnonzero(~(np.isfinite(matrix) & (matrix >= 0)).all(axis=1))[0])
        raise ValueError(f"row {row} (classes count from 0) holds something that is no number >= 0")
    sums = matrix.sum(axis=1)
    for whole in (1, 100):
        if (np.abs(sums / whole - 1) <= ROUNDING + 1e-9).all():
            return matrix / sums[:, None]
    row = int(np.argmax(np.minimum(np.abs(sums - 1), np.abs(sums / 100 - 1))))
    raise ValueError(f"row {row} (classes count from 0) sums to {sums[row]:.6g}; all rows must sum to 1, or all to 100 percent")


def wrong_share(matrix: np.ndarray, labels: np.ndarray | None = None) -> float:
    """Share of labels that a transition matrix (C, C) makes wrong: expected for `labels` (N,), or with all classes alike."""
    wrong = 1 - np.diag(matrix)
    return float(wrong.mean() if labels is None else wrong[labels].mean())


def draw_labels(labels: np.ndarray, matrix: np.ndarray, seed: int | np.random.Generator = 0) -> np.ndarray:
    """Given labels of samples, drawn by the row of each sample's true class.

    Args:
        labels: true class numbers, int (N,), 0..C-1.
        matrix: transition matrix (C, C), see `checked_matrix`.
        seed: a number, or a generator; one uniform number is drawn per sample, in the samples' order.

    Returns:
        int64 (N,).

    Raises:
        ValueError: a label is no row of the matrix.
    """
    labels = np.asarray(labels, dtype=np.int64)
    if labels.size and not (0 <= labels.min() and labels.max() < len(matrix)):
        raise ValueError(f"labels lie in {labels.min()}..{labels.max()}, the matrix is of {len(matrix)} classes")
    steps = np.cumsum(matrix, axis=1)
    steps /= steps[:, -1:]  # so that the last class that can be given ends at exactly 1, above every number drawn
    drawn = np.random.default_rng(seed).random(len(labels))  # [0, 1)
    given = np.empty_like(labels)
    for true in np.unique(labels):
        chosen = labels == true
        given[chosen] = np.searchsorted(steps[true], drawn[chosen], side="right")
    return given
