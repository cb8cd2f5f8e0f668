"""Class labels as a `Task`: a CSV headed `image,label`, networks that give logits (B, C), cross-entropy, accuracy.

Legend: B samples, C classes.
"""

from __future__ import annotations

import os
from argparse import Namespace
from typing import Any

from cli.files import UserError
from cli.lazy import torch
from data.classification import (
    MOST_CLASSES,
    ClassDataset,
    channel_statistics,
    check_class_files,
    class_cache_bytes,
    read_class_names,
    read_class_rows,
    read_statistics,
    standardised,
)
from data.legend import FILE_NAME
from data.pictures import image_size
from data.rows import check_apart, check_batch
from engine import checkpoint
from engine.task import Task, check_smallest_batch
from models import build_classifier
from utils.class_scores import CLASS_TITLES, ClassScores
from utils.losses import main_logits

CONFIG = {"task", "name", "encoder", "num_classes", "classes", "size", "mean", "std"}  # of a classifier, see `class_config`


def complete(args: Namespace) -> None:
    """Fill in what the training CSV tells, to be called before `run`: `classes` (names, list of str), `num_classes` and `size`.

    Classes are those of classes.json; without one the numbers 0..C-1, where C is --num-classes, else the largest label + 1. The
    size, unless --size gives it, is that of the first training picture.

    Raises:
        UserError: the CSV's rows are at fault, or --num-classes contradicts classes.json.
    """
    names = read_class_names(args.train_csv)
    if names is None:
        rows = read_class_rows(args.train_csv, None)
        count = args.num_classes or int(rows["label"].max()) + 1
        if count > MOST_CLASSES:
            raise UserError(f"{args.train_csv}: row {rows['label'].idxmax()}: label {count - 1} makes {count} classes; correct "
                            "it, or name the classes in a classes.json beside the CSV")
        names = [str(number) for number in range(count)]
    elif args.num_classes not in (None, len(names)):
        raise UserError(f"--num-classes {args.num_classes}: the classes.json beside {args.train_csv} names {len(names)} "
                        "classes; leave the flag out")
    args.classes, args.num_classes = names, len(names)
    if args.size is None:
        args.size = list(image_size(read_class_rows(args.train_csv, names)["image"].iloc[0]))
    if args.padding == "reflect" and args.shift >= min(args.size):
        raise UserError(f"--shift {args.shift}: as large as the pictures ({args.size[0]} x {args.size[1]} px); pass less")


def read_class_splits(args: Namespace, needs_weights: bool = False, pseudo_dir: str | None = None) -> dict:
    """Rows of each split, their files not yet opened: dict of `train`, `valid`, `test` -> DataFrame of `read_class_rows`."""
    if pseudo_dir:
        raise UserError(f"{args.train_csv}: holds class labels, pseudo-labels of pixels ({pseudo_dir}) go with masks")
    splits = {}
    for split in ("train", "valid", "test"):
        csv = getattr(args, f"{split}_csv")
        if csv:
            refuse_other_names(csv, args.classes)
            splits[split] = read_class_rows(csv, args.classes, needs_weights and split == "train")
        if split == "train":
            refuse_one_class(csv, splits[split], args.classes)
    check_apart([(getattr(args, f"{split}_csv"), rows) for split, rows in splits.items()])
    if needs_weights and not splits["train"]["weight"].any():
        raise UserError(f"{args.train_csv}: all weights are 0, there is nothing to learn from")
    check_batch(args.size, args.batch_size, splits["train"])
    return splits


def refuse_one_class(csv: str, rows: Any, classes: list[str]) -> None:
    """Raise UserError if all training rows have one label."""
    if rows["label"].nunique() < 2:
        raise UserError(f"{csv}: all rows have the label {classes[rows['label'].iloc[0]]}, there is nothing to tell apart; two "
                        "classes or more are needed")


def refuse_other_names(csv: str, classes: list[str]) -> None:
    """Raise UserError if the classes.json beside a CSV names other classes than a run's, or in another order."""
    names = read_class_names(csv)
    if names not in (None, classes):
        raise UserError(f"{os.path.join(os.path.dirname(csv), FILE_NAME)}: names other classes, or in another order, than the "
                        f"run has ({', '.join(classes[:5])}{', ...' * (len(classes) > 5)})")


def check_splits(args: Namespace, splits: dict) -> None:
    """Open every picture, and set `args.mean` and `args.std`: of normalisation.json, else of the training pictures."""
    for split, rows in splits.items():
        check_class_files(getattr(args, f"{split}_csv"), rows)
    found = read_statistics(args.train_csv)
    args.mean, args.std = found or channel_statistics(splits["train"]["image"].tolist(), args.size)


def class_config(args: Namespace, suffix: str = "") -> dict:
    """What a checkpoint must know to rebuild and use its network; see `engine.task.Task`."""
    return {"task": "classification", "name": getattr(args, f"model{suffix}"), "encoder": getattr(args, f"encoder{suffix}"),
            "num_classes": args.num_classes, "classes": list(args.classes), "size": list(args.size), "mean": list(args.mean),
            "std": list(args.std)}


def build_from_config(config: dict, encoder_weights: str | None = None) -> Any:
    """The network of a config, of one with `pair` a pair of networks; a UserError if `build_classifier` refuses it."""
    try:
        networks = [build_classifier(config["name"], config["encoder"], encoder_weights, config["num_classes"])
                    for _ in range(2 if config.get("pair") else 1)]
    except ValueError as error:
        raise UserError(str(error)) from None
    if len(networks) == 1:
        return networks[0]
    from models.pair import Pair  # loads PyTorch

    return Pair(*networks)


def load_classifier(path: str, index: int = 0) -> tuple[Any, dict]:
    """A trained classifier in eval mode, and its config; index and errors as of `checkpoint.load_network`."""
    return checkpoint.load_as(path, index, CONFIG, build_from_config, "a network for class labels")


def is_classifier(path: str, index: int = 0) -> bool:
    """Whether a checkpoint's network is a classifier; errors as of `checkpoint.load_network`."""
    return CONFIG <= checkpoint.network_of(path, index)["config"].keys()


def class_dataset(rows: Any, args: Namespace, training: bool) -> ClassDataset:
    """The batches of a split; only training moves its pictures."""
    return ClassDataset(rows, args.size, (args.mean, args.std), training and args.mirror, args.shift if training else 0,
                        args.padding, args.cache, args.seed)


def class_losses(output: Any, batch: dict) -> torch.Tensor:
    """Cross-entropy of each sample, float32 (B,).

    Args:
        output: logits (B, C), or a dict that holds them as `logits`.
        batch: `label` int64 (B,).
    """
    return torch.nn.functional.cross_entropy(main_logits(output).float(), batch["label"], reduction="none")


def class_disagreement(logits_a: torch.Tensor, logits_b: torch.Tensor, args: Namespace) -> torch.Tensor:
    """1 for the samples on which two networks predict other classes, else 0: float32 (B,) (Malach & Shalev-Shwartz 2017).

    Args:
        logits_a, logits_b: float (B, C).
    """
    return (logits_a.argmax(1) != logits_b.argmax(1)).float()


class ClassScorer:
    """`ClassScores` of logits (B, C) against the labels of their batches."""

    def __init__(self, num_classes: int, device: Any = "cpu") -> None:
        self.scores = ClassScores(num_classes, device)
        self.reduce, self.compute = self.scores.reduce, self.scores.compute

    def update(self, output: Any, batch: dict) -> None:
        """Add a batch."""
        self.scores.update(main_logits(output).argmax(1), batch["label"])


CLASSIFICATION = Task(
    rows=read_class_splits,
    dataset=class_dataset,
    config=class_config,
    build=build_from_config,
    forward=lambda network, batch: network(batch["image"]),
    losses=class_losses,
    scorer=lambda args, device: ClassScorer(args.num_classes, device),
    compared=("accuracy",),
    titles=CLASS_TITLES,
    prepare=lambda batch: {**batch, "image": standardised(batch["image"], batch["statistics"])},
    check=check_splits,
    check_networks=check_smallest_batch,
    cache_bytes=lambda rows, args: class_cache_bytes(rows, args.size),
    trust=lambda logits, batch, args: -class_losses(logits, batch),
    disagree=class_disagreement)
