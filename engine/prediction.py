"""Pseudo-labels from a trained network, and class probabilities from a classifier."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cli.files import portable, progress, refuse_other_than_utf8, together
from cli.lazy import lightning_fabric, torch
from data.classification import ClassDataset, standardised
from data.dataset import ImageDataset, as_it_is
from data.pictures import write_mask
from data.transforms import normalised
from utils.agreement import hard_labels


def logits_of(network: torch.nn.Module, images: torch.Tensor, flip: bool = False) -> torch.Tensor:
    """Logits of a network in eval mode, float32 (B, C, H, W).

    Args:
        images: uint8 (B, 3, H, W).
        flip: average with the logits of the mirrored pictures.
    """
    images = normalised(images)
    logits = network(images).float()
    return (logits + network(images.flip(-1)).float().flip(-1)) / 2 if flip else logits


def predict(fabric: lightning_fabric.Fabric, network: torch.nn.Module, config: dict[str, Any], rows: pd.DataFrame,
            names: Sequence[str], out_dir: Path | str, batch_size: int = 8, workers: int = 0, flip: bool = False) -> None:
    """Write the pseudo-label of each row to `out_dir`: all of them, or none.

    The network sees each image at the training size. Its logits are resized to the image's own size before they become
    labels, so that outlines stay smooth.

    Args:
        network, config: of `checkpoint.load_network`.
        rows: DataFrame with a column `image`.
        names: file name of each row's pseudo-label, see `pseudo_label_names`.
        batch_size: images per forward pass.
        workers: number of loader processes.
        flip: see `logits_of`.
    """
    network = fabric.to_device(network).eval()
    dataset: Any = ImageDataset(rows["image"].tolist(), config["size"])
    loader = torch.utils.data.DataLoader(dataset, batch_size, num_workers=workers, collate_fn=as_it_is)
    with together() as written_at:
        for batch in progress(loader, "predicting", unit="batch"):
            with torch.no_grad(), fabric.autocast():
                logits = logits_of(network, fabric.to_device(batch["image"]), flip)  # (B, C, H, W)
            for one, index, size in zip(logits, batch["index"], batch["own_size"]):
                own = torch.nn.functional.interpolate(one[None], size, mode="bilinear", align_corners=False)
                labels = hard_labels(own)[0].byte().cpu().numpy()
                write_mask(written_at(Path(out_dir) / names[index]), labels, config["num_classes"])


def predict_classes(fabric: lightning_fabric.Fabric, network: torch.nn.Module, config: dict[str, Any], rows: pd.DataFrame,
                    batch_size: int = 8, workers: int = 0, flip: bool = False) -> np.ndarray:
    """The probability of each class for each picture, softmax of the logits: float32 (rows, C).

    Args:
        network, config: of `engine.classification.load_classifier`.
        rows: DataFrame with a column `image`.
        flip: average the logits with those of the mirrored pictures.
    """
    network = fabric.to_device(network).eval()
    dataset: Any = ClassDataset(rows.assign(label=0), config["size"], (config["mean"], config["std"]))
    loader: Any = torch.utils.data.DataLoader(dataset, batch_size, num_workers=workers, collate_fn=as_it_is)
    found = []
    for batch in progress(loader, "predicting", unit="batch"):
        batch = fabric.to_device(batch)
        images = standardised(batch["image"], batch["statistics"])
        with torch.no_grad(), fabric.autocast():
            logits = network(images).float()
            if flip:
                logits = (logits + network(images.flip(-1)).float()) / 2
        found.append(logits.softmax(1).cpu())
    return torch.cat(found).numpy()


def prediction_text(images: Sequence[str], chances: np.ndarray, names: list[str]) -> str:
    """Predictions as a CSV: `image,label,probability,probability_NAME,...`, with `label` the likeliest class's name.

    Args:
        images: paths; those under the working directory are written relative to it.
        chances: float (rows, C), probabilities.
        names: of the classes.

    Raises:
        UserError: a file's name is not UTF-8.
    """
    home = os.path.join(os.getcwd(), "")
    paths = [portable(path, home) for path in images]
    refuse_other_than_utf8(paths)
    table = pd.DataFrame({"image": paths, "label": [names[number] for number in chances.argmax(1)],
                          "probability": chances.max(1)})
    columns = pd.DataFrame(chances, columns=[f"probability_{name}" for name in names])
    return pd.concat([table, columns], axis=1).to_csv(index=False)
