"""Confident learning: which given labels are contradicted by a classifier that never saw them.

Legend: N samples, C classes; probabilities are out-of-fold, float (N, C), 0..1; labels are as given, int (N,) of 0..C-1.
Source: Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 70, 2021, section 3.1.
"""

import numpy as np

ROUNDING = 1e-6  # a class whose samples all have one probability has it as its threshold, but for the last bits


def class_thresholds(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean self-confidence of each class: of the samples labelled c, the mean probability of c (eq. 2).

    Returns:
        float (C,), 0..1; infinity for a class that no sample is labelled as, so that no sample reaches it.
    """
    thresholds = np.full(probabilities.shape[1], np.inf)
    for c in np.unique(labels):
        thresholds[c] = probabilities[labels == c, c].mean(dtype=float)
    return thresholds


def confident_classes(probabilities: np.ndarray, thresholds: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The likeliest class of each sample among those whose probability reaches their threshold (eq. 1).

    Returns:
        int (N,) of 0..C-1, or -1 where no class reaches its threshold; of equally likely classes the given one, else the first.
    """
    confident = np.where(probabilities >= thresholds - ROUNDING, probabilities, -1.0)  # (N, C)
    highest = confident.max(1)
    given = confident[np.arange(len(labels)), labels]
    return np.where(highest < 0, -1, np.where(given == highest, labels, confident.argmax(1)))


def wrong_labels(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Flags, bool (N,): the sample is confidently of another class than given. A sample without a confident
    class is not flagged."""
    found = confident_classes(probabilities, class_thresholds(probabilities, labels), labels)
    return (found >= 0) & (found != labels)
