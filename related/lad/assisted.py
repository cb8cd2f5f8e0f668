"""Images with their labels as a further input channel: the dataset, the tasks of teacher and student, the teacher's scores.

What is drawn for a sample depends on (seed, epoch, row) alone, so a resumed run draws the same, and so do several processes.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.files import UserError
from cli.lazy import torch
from data.dataset import SegmentationDataset, sample_seed
from data.samples import Samples
from engine import checkpoint
from engine.lock import is_first_process
from engine.task import SEGMENTATION, SegmentationScorer, Task, check_smallest_batch
from models import IMAGE_CHANNELS, WITH_AUXILIARY
from related.lad.label_codes import label_channel
from utils.losses import AUXILIARY_SHARE
from utils.metrics import TITLES

if TYPE_CHECKING:
    from torch import Tensor

CHANNELS = 4  # of a teacher's input: red, green, blue, label
EVAL_CODES = ("own", "zero", "shuffled")
STRIDE = 8  # px, of the squares whose mean logits are compared


class LabelledImages(SegmentationDataset):
    """Samples with what their label channel needs: `seeds`, for each draw a list of B ints; `random_share`, of their codes;
    where `shuffled` asks for it, `other`, uint8 (B, H, W), the mask of another row. See `SegmentationDataset`.

    Args:
        draws: label channels of each sample.
        random_share: function epoch -> share in 0..1, see `label_channel`.
    """

    def __init__(self, rows: Any, args: Namespace, training: bool, draws: int = 1, random_share: Any = None,
                 shuffled: bool = False, samples: Samples | None = None) -> None:
        super().__init__(rows, args.size, args.num_classes, args.augment and training, args.cache, args.seed, samples=samples)
        self.draws, self.random_share, self.shuffled = draws, random_share or RandomShare(0, 1), shuffled

    def __getitems__(self, indices: list[int]) -> dict:
        batch = super().__getitems__(indices)
        batch["seeds"] = [[sample_seed(self.seed, self.epoch, index, 1 + draw) for index in indices]
                          for draw in range(self.draws)]
        batch["random_share"] = self.random_share(self.epoch)
        if self.shuffled:  # far away, since rows beside one another may be frames of one film
            count = len(self)
            batch["other"] = super().__getitems__([(index + max(1, count // 2)) % count for index in indices])["mask"]
        return batch


class RandomShare:
    """Share of random codes in an epoch: it grows linearly from 0 over the first `ramp` of all epochs, then it is 1. A class,
    so that it can be pickled for loader processes."""

    def __init__(self, ramp: float, epochs: int) -> None:
        self.ramp, self.epochs = ramp, epochs

    def __call__(self, epoch: int) -> float:
        return min(1.0, epoch / (self.ramp * self.epochs)) if self.ramp else 1.0


def labelled(batch: dict, num_classes: int, codes: str, seeds: Sequence[int], mask: Tensor | None = None) -> Tensor:
    """Images with the channel of `mask`, or else of the labels that the batch has for it, float32 (B, 4, H, W)."""
    if mask is None:
        mask = batch.get("pseudo", batch["mask"])
    channel = label_channel(mask, num_classes, codes, seeds=seeds, random_share=batch["random_share"])
    return torch.cat([batch["image"], channel], 1).contiguous(memory_format=torch.channels_last)


# --- the teacher ------------------------------------------------------------------------------------------------


def teacher_task(args: Namespace) -> Task:
    """Segmentation by images with labels. In training two draws of each image are one batch of 2B, whose statistics batch
    normalisation pools; in evaluation an output is a dict of --eval-codes -> logits.

    Args:
        args: besides the flags of segmentation `codes`, `codes_ramp`, `eval_codes`.
    """
    share = RandomShare(args.codes_ramp, args.epochs)

    def dataset(rows: Any, args: Namespace, training: bool, samples: Samples | None = None) -> LabelledImages:
        if training:
            return LabelledImages(rows, args, True, 2, share, samples=samples)
        return LabelledImages(rows, args, False, shuffled="shuffled" in args.eval_codes, samples=samples)

    def forward(network: Any, batch: dict) -> Any:
        if network.training:
            return network(torch.cat([labelled(batch, args.num_classes, args.codes, seeds) for seeds in batch["seeds"]]))
        return {which: network(assisted(batch, args.num_classes, args.codes, which)) for which in args.eval_codes}

    def check(args: Namespace, splits: dict) -> Any:
        if "shuffled" in args.eval_codes:
            for split in splits.keys() & {"valid", "test"}:
                check_shuffled(splits[split], getattr(args, f"{split}_csv"))
        return SEGMENTATION.check(args, splits)

    more = {f"{name}_{which}": f"{TITLES[name]}, {which} label" for which in args.eval_codes[1:] for name in ("miou", "bf")}
    return replace(
        SEGMENTATION, dataset=dataset, forward=forward, check=check, titles={**TITLES, **more},
        config=lambda args, suffix: {**checkpoint.model_config(args, suffix), "channels": CHANNELS, "codes": args.codes},
        scorer=lambda args, device: CodesScorer(args, device),
        check_networks=lambda args, networks, samples: check_smallest_batch(args, networks, 2 * samples, CHANNELS))


def assisted(batch: dict, num_classes: int, codes: str, which: str) -> Tensor:
    """What a teacher sees in evaluation, float32 (B, 4, H, W): its own label, zeros, or another image's label."""
    if which == "zero":
        return labelled(batch, num_classes, "zero", batch["seeds"][0])
    return labelled(batch, num_classes, codes, batch["seeds"][0], batch["other"] if which == "shuffled" else None)


class CodesScorer:
    """Scores of a teacher by each of --eval-codes: those of the first under their usual names, `miou_zero` and so on of others.
    """

    def __init__(self, args: Namespace, device: Any) -> None:
        self.of = {which: SegmentationScorer(args.num_classes, args.theta, device) for which in args.eval_codes}

    def update(self, output: dict, batch: dict) -> None:
        """Add a batch."""
        for which, scorer in self.of.items():
            scorer.update(output[which], batch)

    def reduce(self, fabric: Any) -> None:
        """Sum over processes."""
        for scorer in self.of.values():
            scorer.reduce(fabric)

    def compute(self) -> dict:
        """All scores, in 0..1."""
        (_, first), *others = [(which, scorer.compute()) for which, scorer in self.of.items()]
        return {**first, **{f"{name}_{which}": scores[name] for which, scores in others for name in ("miou", "bf")}}


# --- teachers and flags that cannot be ---------------------------------------------------------------------------


def load_teacher(path: str, num_classes: int | None, kind: str, flag: str = "--teacher") -> tuple[torch.nn.Module, dict]:
    """A trained teacher in eval mode, and its config. If its run is not finished, one line says so.

    Args:
        num_classes: that it must have; None: any.
        kind: `lad`, label-assisted, or `plain`, an ordinary network of images.
        flag: that names it, for messages.

    Raises:
        UserError: it is of the other kind, of other classes, or untrained; or the file cannot be read.
    """
    content = checkpoint.load(path)
    if "optimizers" in content and (content["epoch"] == 0 or content.get("begun")):
        raise UserError(f"{flag} {path}: its training was stopped within an epoch; finish it with --resume")
    network, config = checkpoint.load_as(path, 0, checkpoint.CONFIG, checkpoint.build_from, "a segmentation network", content)
    wide = config.get("channels", IMAGE_CHANNELS) == CHANNELS
    if wide != (kind == "lad"):
        raise UserError(f"{flag} {path}: " + (
            "holds a label-assisted teacher; pass --teacher-kind lad" if wide else
            "holds a network of images alone; a checkpoint of train_lad_teacher.py is needed" +
            (", or --teacher-kind plain" if flag == "--teacher" else "")))
    if num_classes not in (None, config["num_classes"]):
        raise UserError(f"{flag} {path}: has {config['num_classes']} classes, --num-classes is {num_classes}; teacher and "
                        "student need the same")
    if not all(bool(value.isfinite().all()) for value in network.state_dict().values()):
        raise UserError(f"{flag} {path}: its weights are not finite; train it with a smaller --learning-rate")
    home = Path(path).parent
    if (home / "args.json").exists() and not (home / "result.json").exists() and is_first_process():
        print(f"{flag} {path}: its training is not finished, a finished one may teach more (--resume goes on with it)")
    return network, config


def codes_of(path: str, config: dict, asked: str | None) -> str:
    """The codes that a label-assisted teacher gets: those that are `asked` for, else those of its training.

    Args:
        path, config: of its checkpoint.

    Raises:
        UserError: it has seen fixed codes alone, and random ones are asked for; or nobody says which it has seen.
    """
    known = config.get("codes")
    if asked == "random" and known == "fixed":
        raise UserError(f"--codes random: {path} was trained with fixed codes and knows no others; leave the flag out")
    if not (asked or known):
        raise UserError(f"{path}: does not say with which codes it was trained; pass --codes")
    return asked or known or ""


def check_shuffled(rows: Any, csv: str) -> None:
    """Raise UserError if --eval-codes shuffled finds a single row."""
    if len(rows) == 1:
        raise UserError(f"--eval-codes shuffled: {csv} has one row; two or more are needed, whose annotations change places")


def complete(args: Namespace) -> None:
    """Fill in --kd-stride and --aux-weight where they are not given.

    Raises:
        UserError: --kd-stride leaves one square of the picture, where channel-wise distillation compares nothing; or
            --aux-weight is given, and the network has no auxiliary head.
    """
    if args.kd_stride is None:
        args.kd_stride = STRIDE
    if args.kd_stride >= max(args.size):
        raise UserError(f"--kd-stride {args.kd_stride}: leaves one value of a picture of {args.size[0]} x {args.size[1]} px; "
                        "pass a smaller one")
    if args.aux_weight is None:
        args.aux_weight = AUXILIARY_SHARE
    elif args.model not in WITH_AUXILIARY:
        raise UserError(f"--aux-weight: {args.model} has no auxiliary head, {', '.join(WITH_AUXILIARY)} have; leave it out")
