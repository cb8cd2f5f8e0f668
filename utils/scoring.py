"""Scoring many pairs of label map files: annotations against pseudo-labels, or against better annotations."""

import functools
import itertools
import multiprocessing
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor

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
        workers: processes; 0 = this one, with a thread that reads ahead.

    Raises:
        UserError: one is not a label map.
    """
    pairs, read = zip(masks, others), functools.partial(read_pair, num_classes=num_classes, size=size)
    if not workers:
        scores = (agreement(*maps, num_classes, metric, theta) for maps in map_ahead(read, pairs))
        return _collect(scores, len(masks), metric)
    score = functools.partial(score_pair, read=read, num_classes=num_classes, metric=metric, theta=theta)
    fresh = multiprocessing.get_context("spawn")  # a fork of a process with threads (OpenCV's, PyTorch's) may hang
    with fresh.Pool(workers, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        chunk = min(128, 1 + len(masks) // (8 * workers))  # few enough messages, and none left waiting at the end
        return _collect(pool.imap(score, pairs, chunk), len(masks), metric)


def _collect(scores, count, metric):
    return np.fromiter(progress(scores, f"scoring by {metric}", count, "mask"), dtype=float, count=count)


def score_pair(pair, read, num_classes, metric, theta):
    """Agreement of two label map files."""
    return agreement(*read(pair), num_classes, metric, theta)


def read_pair(pair, num_classes, size):
    """Two label maps of one size, see `score_pairs`."""
    mask, other = (read_checked_mask(path, num_classes) for path in pair)
    if size:
        mask = resize_labels(mask, size)
    return mask, resize_labels(other, mask.shape)


def map_ahead(function, items, count=8):
    """`map`, in a thread that is up to `count` items ahead of whoever takes the results."""
    items = iter(items)
    with ThreadPoolExecutor(1) as thread:
        waiting = deque(thread.submit(function, item) for item in itertools.islice(items, count))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(thread.submit(function, item) for item in itertools.islice(items, 1))
