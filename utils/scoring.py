"""Scoring many pairs of label map files: annotations against pseudo-labels, or against better annotations."""

import contextlib
import functools
import itertools
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import pandas as pd

from cli.command_line import LONGEST_SIDE
from cli.files import UserError, progress
from data.mask_files import Decoded
from data.pictures import checked_labels, decode_mask, kinds_of, refuse_black_and_white, resize_labels
from data.rows import OWN_NAMES, check_shape, pseudo_label_paths
from utils.agreement_cpu import agreement

Item = TypeVar("Item")
Result = TypeVar("Result")


def score_rows(rows: pd.DataFrame, pred_dir: Path | str, num_classes: int, metric: str, theta: float,
               size: Sequence[int] | None = None, workers: int = 0, part: slice = slice(None),
               pattern: str = OWN_NAMES) -> np.ndarray:
    """Weight of each row, float (rows,) in 0..1.

    Args:
        metric: of `agreement`; or `all`, then float (rows, 3), in the order of METRICS.
        part, pattern: see `pseudo_label_paths`.

    Raises:
        UserError: a pseudo-label is missing or not a label map.
    """
    predictions = pseudo_label_paths(rows, pred_dir, part, pattern)
    return score_pairs(rows["mask"].tolist()[part], predictions, num_classes, metric, theta, size, workers)


def score_pairs(masks: Sequence[str], others: Sequence[str], num_classes: int, metric: str, theta: float,
                size: Sequence[int] | None = None, workers: int = 0) -> np.ndarray:
    """Agreement of pairs of label map files, float (pairs,) in 0..1.

    Args:
        masks, others: paths.
        size: (H, W) to score at, None = the mask's own; the other one is resized to it, nearest pixel.
        workers: scoring processes; 0 = this process, with a thread that reads ahead; 1 = this process on one thread.

    Raises:
        UserError: one is not a label map, two of a pair differ in shape (not in size), or all masks hold 0 and 255 alone
            though there are more than two classes.
    """
    if size and max(size) > LONGEST_SIDE:
        raise UserError(f"--size {size[0]} {size[1]}: pictures have at most {LONGEST_SIDE} px a side")
    pairs, decode = zip(masks, others), functools.partial(decode_pair, num_classes=num_classes)
    score = functools.partial(score_decoded, num_classes=num_classes, metric=metric, theta=theta, size=size)
    if not workers:
        return _collect(map(score, map_ahead(decode, pairs)), masks, others, num_classes, metric)
    if workers == 1:
        with _one_thread():
            return _collect(map(score, map(decode, pairs)), masks, others, num_classes, metric)
    fresh = multiprocessing.get_context("spawn")  # a fork of a process with threads (OpenCV's, PyTorch's) may hang
    with fresh.Pool(workers, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        chunk = min(128, 1 + len(masks) // (8 * workers))  # few messages, and no worker idles at the end
        scores = pool.imap(functools.partial(score_pair, decode, score), pairs, chunk)
        return _collect(scores, masks, others, num_classes, metric)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Keep OpenCV to one thread."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def _collect(scores: Iterable, masks: Sequence[str], others: Sequence[str], num_classes: int, metric: str) -> np.ndarray:
    """Scores of all pairs; see `score_decoded`."""
    title = "scoring" if metric == "all" else f"scoring by {metric}"
    found, kinds = [], [0, 0]
    for score, *each in progress(scores, title, len(masks), "mask"):
        found.append(score)
        kinds = [all_kinds | one for all_kinds, one in zip(kinds, each)]
    for paths, all_kinds in zip((masks, others), kinds):
        if len(paths):
            refuse_black_and_white(all_kinds, num_classes, f"{paths[0]} and the others scored")
    return np.array(found, dtype=float)


def score_pair(decode: Callable, score: Callable, pair: tuple[str, str]) -> tuple:
    """`score_decoded` of two label map files."""
    return score(decode(pair))


def decode_pair(pair: tuple[str, str], num_classes: int) -> list[tuple[str, Decoded]]:
    """[(path, what it holds), ...] of a pair of paths: most of the work, which releases Python's lock."""
    return [(path, decode_mask(path, num_classes)) for path in pair]


def score_decoded(decoded: list[tuple[str, Decoded]], num_classes: int, metric: str, theta: float,
                  size: Sequence[int] | None) -> tuple:
    """(agreement, `kinds_of` each of the two) of what `decode_pair` gave, see `score_pairs`."""
    mask, other = (checked_labels(values, path, num_classes) for path, values in decoded)
    check_shape(mask.shape, other.shape, decoded[1][0], decoded[0][0])
    kinds = [kinds_of(labels, num_classes) if num_classes > 2 else 0 for labels in (mask, other)]
    if size:
        mask = resize_labels(mask, size)
    return agreement(resize_labels(other, mask.shape), mask, num_classes, metric, theta), *kinds


def map_ahead(function: Callable[[Item], Result], items: Iterable[Item], count: int = 8) -> Iterator[Result]:
    """`map`, in a thread that computes up to `count` results in advance."""
    items = iter(items)
    with ThreadPoolExecutor(1) as thread:
        waiting = deque(thread.submit(function, item) for item in itertools.islice(items, count))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(thread.submit(function, item) for item in itertools.islice(items, 1))
