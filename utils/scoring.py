"""Scoring many pairs of label map files: annotations against pseudo-labels, or against better annotations."""

import functools
import multiprocessing
import os

import cv2
import numpy as np

from data.files import UserError, progress, read_checked_mask, resize_labels
from data.rows import pseudo_label_names
from utils.agreement_cpu import agreement


def score_rows(rows, pred_dir, num_classes, metric, theta, size=None, workers=0, part=slice(None)):
    """Weight of each row, float (rows,) in 0..1.

    Args:
        part: score these rows alone. The others are needed all the same: by their images, pseudo-labels are named.

    Raises:
        UserError: a pseudo-label is missing or not a label map.
    """
    predictions = [os.path.join(pred_dir, name) for name in pseudo_label_names(rows)[part]]
    missing = [path for path in predictions if not os.path.isfile(path)]
    if missing:
        raise UserError(f"--pred-dir {pred_dir}: {len(missing)} of {len(predictions)} pseudo-labels are missing, first "
                        f"{os.path.basename(missing[0])}; write them with predict.py --csv on the same CSV")
    return score_pairs(rows["mask"].tolist()[part], predictions, num_classes, metric, theta, size, workers)


def score_pairs(masks, others, num_classes, metric, theta, size=None, workers=0):
    """Agreement of two label map files each, float (pairs,) in 0..1.

    Args:
        masks, others: paths.
        size: (H, W) to score at, None = the mask's own; the other one is resized to it, nearest pixel.
        workers: processes; 0 = this one alone.

    Raises:
        UserError: one is not a label map.
    """
    score = functools.partial(score_pair, num_classes=num_classes, metric=metric, theta=theta, size=size)
    pairs = zip(masks, others)
    if not workers:
        return _collect(map(score, pairs), len(masks), metric)
    with multiprocessing.Pool(workers, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        chunk = min(128, 1 + len(masks) // (8 * workers))  # few enough messages, and none left waiting at the end
        return _collect(pool.imap(score, pairs, chunk), len(masks), metric)


def _collect(scores, count, metric):
    return np.fromiter(progress(scores, f"scoring by {metric}", count, "mask"), dtype=float, count=count)


def score_pair(pair, num_classes, metric, theta, size):
    """Agreement of the two label maps, see `score_pairs`."""
    mask, other = (read_checked_mask(path, num_classes) for path in pair)
    if size:
        mask = resize_labels(mask, size)
    return agreement(resize_labels(other, mask.shape), mask, num_classes, metric, theta)
