"""`Task`: a problem that the loop trains on, with its data, networks, losses and scores. The default is segmentation.

Legend: B samples, C classes, H x W pixels. `args` is the Namespace of the script's flags.
"""

from __future__ import annotations

import copy
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cli.files import UserError
from cli.lazy import torch
from data.dataset import SegmentationDataset, cache_bytes
from data.rows import check_apart, check_batch, check_rows, pseudo_label_paths, read_rows
from data.transforms import normalised
from engine import checkpoint
from utils.agreement import hard_labels
from utils.losses import main_logits, training_losses
from utils.metrics import TITLES, SplitScores
from utils.weighting import disagreement, trust

SMALL = 64  # px; smaller pictures may vanish in a network's strides


def no_check(*arguments: Any) -> None:
    """Refuse nothing."""


def no_rule(*arguments: Any) -> Any:
    """Raise NotImplementedError: the default of `trust` and `disagree`."""
    raise NotImplementedError("this task does not say which samples a network trusts, or on which two disagree")


def unchanged(batch: dict) -> dict:
    """Return the batch as it is."""
    return batch


@dataclass(frozen=True)
class Task:
    """A problem that the loop can train on: data, networks, losses and scores.

    `rows` and `check` run before PyTorch is loaded, so that a fault in a file is reported at once; they raise UserError.

    Args:
        rows: (args, and `needs_weights` and `pseudo_dir` if `run` got them) -> dict of `train` and, where the user has them,
            `valid` and `test` -> DataFrame. A column is of paths if every value is an existing file.
        dataset: (rows, args, training) -> dataset of whole batches: `__len__`, and `__getitems__(indices)` -> dict with
            `index` int64 (B,), and for `weigh` usually `weight` float32 (B,). The loop sets its `epoch`; `names`, a list of
            str, is for error messages.
        config: (args, suffix of the network's flags) -> dict of plain values, with which `build` makes the network again.
        build: (config, encoder weights or None) -> network.
        forward: (network, batch) -> output; it must call the network itself, never a method of it.
        losses: (output, batch) -> float (B,), with gradient; a task whose `weigh` gives pixel weights takes them as a third
            argument.
        scorer: (args, device) -> scorer of a split: `update(output, batch)`, `reduce(fabric)` sums over processes,
            `compute()` -> JSON-ready dict of score name -> float in 0..1, None, int or list.
        compared: names of the scores that the log shows and whose mean chooses the best epoch; higher is better.
        titles: score name -> its title, for each column of the printed table; default: the compared scores by name.
        prepare: batch on the device -> batch as networks and losses take it.
        check: (args, splits), opens the files.
        check_networks: (args, networks, samples), tries the networks on the smallest batch that a process will see.
        cache_bytes: (rows, args) -> bytes that --cache takes.
        trust: (logits, batch, args) -> float (B,), how much a network trusts each annotation, higher = more.
        disagree: (logits of A, logits of B, args) -> float (B,), 1 for the samples on which two networks disagree, else 0.
    """

    rows: Callable[..., dict]
    dataset: Callable
    config: Callable[[Namespace, str], dict]
    build: Callable
    forward: Callable
    losses: Callable
    scorer: Callable
    compared: tuple[str, ...]
    titles: dict[str, str] = field(default_factory=dict)
    prepare: Callable[[dict], dict] = unchanged
    check: Callable = no_check
    check_networks: Callable = no_check
    cache_bytes: Callable[..., int] = lambda rows, args: 0
    trust: Callable = no_rule
    disagree: Callable = no_rule

    def title(self, name: str) -> str:
        """The title of a score in a table."""
        return self.titles.get(name, name)

    def columns(self) -> dict[str, str]:
        """Score name -> title, of the columns of a printed table."""
        return self.titles or {name: name for name in self.compared}

    def selection_score(self, scores: dict) -> float:
        """The score that chooses the best epoch: the mean of the compared scores on the validation rows."""
        return sum(scores[name] for name in self.compared) / len(self.compared)


# --- segmentation -----------------------------------------------------------------------------------------------


def read_splits(args: Namespace, needs_weights: bool = False, pseudo_dir: str | None = None) -> dict:
    """Rows of each split, their files not yet opened: dict of `train`, `valid`, `test` -> DataFrame."""
    splits = {}
    for split in ("train", "valid", "test"):
        csv = getattr(args, f"{split}_csv")
        if csv:
            splits[split] = read_rows(csv, needs_weights and split == "train")
    check_apart([(getattr(args, f"{split}_csv"), rows) for split, rows in splits.items()])
    if needs_weights and not splits["train"]["weight"].any():
        raise UserError(f"{args.train_csv}: all weights are 0, there is nothing to learn from; see utils/get_weight.py")
    check_batch(args.size, args.batch_size, splits["train"])
    if pseudo_dir:
        splits["train"]["pseudo"] = pseudo_label_paths(splits["train"], pseudo_dir)
    return splits


def check_files(args: Namespace, splits: dict) -> None:
    """`check_rows` of each split of `read_splits`."""
    for split, rows in splits.items():
        check_rows(getattr(args, f"{split}_csv"), rows, args.num_classes)


def check_smallest_batch(args: Namespace, networks: list, samples: int, channels: int = 3) -> None:
    """Try the networks on the smallest batch of the training.

    Args:
        samples: number in the smallest batch of a process.
        channels: of the networks' input.

    Raises:
        UserError: batch normalisation gets a single value, or the picture is too small for the network.
    """
    if samples > 1 and min(args.size) >= SMALL:
        return
    with torch.no_grad(), torch.random.fork_rng():
        for network in networks:
            try:
                copy.deepcopy(network).train()(torch.zeros(samples, channels, *args.size))
            except (ValueError, RuntimeError) as error:
                raise UserError(f"--batch-size {args.batch_size} --size {args.size[0]} {args.size[1]}: too little for the "
                                f"network ({str(error).splitlines()[0]}); pass a larger one") from None


def prepare_pictures(batch: dict) -> dict:
    """A batch of `SegmentationDataset` as networks and losses take it: images normalised, masks int64."""
    return {**batch, "image": normalised(batch["image"]), "mask": batch["mask"].long()}


class SegmentationScorer:
    """`SplitScores` of logits (B, C, H, W) against the masks of their batches."""

    def __init__(self, num_classes: int, theta: float, device: torch.device | str = "cpu") -> None:
        self.scores = SplitScores(num_classes, theta, device)
        self.reduce, self.compute = self.scores.reduce, self.scores.compute

    def update(self, output: Any, batch: dict) -> None:
        """Add a batch."""
        self.scores.update(hard_labels(main_logits(output)), batch["mask"])


SEGMENTATION = Task(
    rows=read_splits,
    dataset=lambda rows, args, training: SegmentationDataset(rows, args.size, args.num_classes, args.augment and training,
                                                             args.cache, args.seed),
    config=checkpoint.model_config,
    build=checkpoint.build_from,
    forward=lambda network, batch: network(batch["image"]),
    losses=lambda output, batch, pixel_weights=None: training_losses(output, batch["mask"], pixel_weights),
    scorer=lambda args, device: SegmentationScorer(args.num_classes, args.theta, device),
    compared=("miou", "bf"),
    titles=TITLES,
    prepare=prepare_pictures,
    check=check_files,
    check_networks=check_smallest_batch,
    cache_bytes=lambda rows, args: cache_bytes(rows, args.size),
    trust=lambda logits, batch, args: trust(logits, batch["mask"], args.select_by, args.num_classes, args.theta),
    disagree=lambda logits_a, logits_b, args: disagreement(logits_a, logits_b, args.num_classes, args.disagree_below))
