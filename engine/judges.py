"""Judges of annotations: where the class probabilities come from that an audit compares each annotation with.

Each gives one array after the other, in the order of the rows, so that memory does not grow with their number: float32
(C, H', W'), 0..1, at whatever size the judge works; binary: (H', W'), of the foreground. NaN: the judge says nothing there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from cli.files import UserError, read_json
from cli.lazy import lightning_fabric, torch
from data import IGNORE_INDEX
from data.dataset import ImageDataset
from data.pictures import image_size, kinds_of, read_checked_mask, refuse_black_and_white
from data.rows import check_shape, pseudo_label_paths
from engine import checkpoint, run_folder
from engine.prediction import logits_of
from utils.own_scores import SURE


def by_own_run(run: Path | str, rows: pd.DataFrame, num_classes: int) -> Iterator[np.ndarray]:
    """The predictions of a finished run of train_with_own_weight.py on these rows, averaged over its epochs.

    The averages stay in the file and are read row by row.

    Raises:
        UserError: it is no such run, one of other rows or classes, or it has kept no predictions.
    """
    folder = Path(run)
    if not (folder / "result.json").is_file():
        raise UserError(f"{run}: not the folder of a finished run, it has no result.json; let it end first, with --resume")
    before = read_json(folder / "args.json", "rows", "num_classes")
    if before["num_classes"] != num_classes:
        raise UserError(f"{run}: was trained with --num-classes {before['num_classes']}, this call has {num_classes}")
    if before["rows"]["train"]["digest"] != run_folder.digest(rows):
        raise UserError(f"{run}: was trained on other rows or files than these; audit the CSV of its own training, "
                        f"{before['train_csv']}")
    memory = checkpoint.load(folder / "last.ckpt", mapped=True).get("memory") or {}
    if not memory.get("predictions"):
        raise UserError(f"{run}: has kept no averaged predictions; name a run of train_with_own_weight.py without "
                        "--scores-only, or its network with --checkpoint")
    sums, counts = memory["predictions"]["sums"], memory["predictions"]["counts"]
    if not counts.any():
        raise UserError(f"{run}: has no averaged predictions yet; train it for more epochs")
    return (_average(sums[row].numpy(), counts[row].numpy()) for row in range(len(rows)))


def trust_of_run(run: Path | str) -> np.ndarray:
    """How far the training of a run trusted each of its rows while it learnt, float (N,) in 0..1; see `utils.verdict.tempered`.

    It is the row's score (mean BF over the epochs) over half the median score, 1 at most; 1 for a row that was never scored. A
    network learns by heart what it sees often, an empty mask first of all; then it agrees with the mask in the end, and only
    the early epochs tell.

    Raises:
        UserError: see `checkpoint.load`.
    """
    scores = (checkpoint.load(Path(run, "last.ckpt"), mapped=True).get("memory") or {})["scores"]
    sums, scored = scores["sums"].numpy(), scores["counts"].numpy() > 0
    if not scored.any():
        return np.ones(len(sums))
    means = sums / np.maximum(scores["counts"].numpy(), 1)
    return np.where(scored, np.clip(means / max(1e-6, float(np.median(means[scored])) * 0.5), 0, 1), 1)


def _average(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """A row's mean probability; NaN where it was never predicted."""
    mean = sums / (np.float32(255) * np.maximum(counts, 1).astype(np.float32))  # counts may be uint8
    return np.where(counts > 0, mean, np.float32(np.nan)).astype(np.float32)


def by_network(fabric: lightning_fabric.Fabric, path: Path | str, rows: pd.DataFrame, num_classes: int, batch_size: int = 8,
               flip: bool = False) -> Iterator[np.ndarray]:
    """The probabilities that a trained network gives each image.

    Args:
        path: of the checkpoint.
        flip: see `logits_of`.

    Raises:
        UserError: it is no segmentation network, or one of other classes.
    """
    network, config = checkpoint.load_network(path)
    if config["num_classes"] != num_classes:
        raise UserError(f"--checkpoint {path}: knows {config['num_classes']} classes, --num-classes is {num_classes}")
    network = fabric.to_device(network)
    images = ImageDataset(rows["image"].tolist(), config["size"])

    def predicted() -> Iterator[np.ndarray]:
        for first in range(0, len(images), batch_size):
            batch = images.__getitems__(list(range(first, min(first + batch_size, len(images)))))
            with torch.no_grad(), fabric.autocast():
                logits = logits_of(network, fabric.to_device(batch["image"]), flip)  # (B, C, H, W)
            chances = logits[:, 0].sigmoid() if logits.shape[1] == 1 else logits.softmax(1)
            yield from chances.cpu().numpy()

    return predicted()


def by_masks(rows: pd.DataFrame, folder: Path | str, pattern: str, num_classes: int) -> Iterator[np.ndarray]:
    """Another model's masks as probabilities: SURE for the class that a mask says, NaN where it is ignored.

    Args:
        folder, pattern: see `pseudo_label_paths`.

    Raises:
        UserError: one is missing, not a label map, or of another shape than the row's mask; with the last one, if all of them
            are black and white though there are more classes.
    """
    paths = pseudo_label_paths(rows, folder, pattern=pattern)

    def read() -> Iterator[np.ndarray]:
        kinds = 0
        for number, (path, mask) in enumerate(zip(paths, rows["mask"]), 1):
            labels = read_checked_mask(path, num_classes)
            check_shape(image_size(mask), labels.shape, path, f"the mask {mask}")
            kinds |= kinds_of(labels, num_classes)
            if number == len(rows):
                refuse_black_and_white(kinds, num_classes, f"--pred-dir {folder}")
            yield certain(labels, num_classes)

    return read()


def certain(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Probabilities, float32 (C, H, W), or (H, W) of a binary label map (H, W), that say its labels; NaN where ignored."""
    if num_classes == 2:
        sure = np.where(labels == 1, np.float32(SURE), np.float32(1 - SURE))
        return np.where(labels == IGNORE_INDEX, np.float32(np.nan), sure)
    chances = np.full((num_classes, *labels.shape), (1 - SURE) / (num_classes - 1), np.float32)
    for c in range(num_classes):
        chances[c][labels == c] = SURE
    chances[:, labels == IGNORE_INDEX] = np.nan
    return chances


def resized(chances: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Probabilities at another size (H, W), bilinear: float32 (C, H, W), or (H, W) as they were.

    A pixel is NaN where most of what it is made of is; else the NaN do not count.
    """
    if chances.shape[-2:] == tuple(size):
        return chances
    if chances.ndim > 2:
        return np.stack([resized(each, size) for each in chances])
    unknown = np.isnan(chances)
    if not unknown.any():
        return cv2.resize(chances, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    share, values = (resized(part.astype(np.float32), size) for part in (~unknown, np.where(unknown, 0, chances)))
    return np.where(share < 0.5, np.float32(np.nan), values / np.maximum(share, 0.5))


def label_map(chances: np.ndarray) -> np.ndarray:
    """The most probable class of each pixel, uint8 (H, W), of probabilities (C, H, W), or (H, W); 255 where they are NaN."""
    labels = chances > 0.5 if chances.ndim == 2 else chances.argmax(0)
    unknown = np.isnan(chances if chances.ndim == 2 else chances[0])
    return np.where(unknown, IGNORE_INDEX, labels).astype(np.uint8)
