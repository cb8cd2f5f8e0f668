"""A training with own weights as a whole: its flags, its memory, and the run that it follows (--after).

Legend: N training rows, D doubted ones among them, B samples of a batch, C classes, H x W pixels.
"""

from __future__ import annotations

import dataclasses
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cli.command_line import nonnegative_int
from cli.files import UserError, progress, read_json, write_rows
from cli.lazy import torch
from cli.machine import usable_cores
from data import IGNORE_INDEX
from data.dataset import SegmentationDataset
from data.pictures import read_mask, resize_labels
from data.rows import read_rows
from data.samples import Samples
from engine import checkpoint, run_folder
from engine.lock import is_first_process
from engine.own_memory import AveragedPredictions, OwnMemory
from engine.prediction_memory import check_memory
from engine.task import SEGMENTATION, check_files
from utils.losses import training_losses
from utils.own_scores import DOUBTED, learnt_mask
from utils.weighting import levelled, shuffled

if TYPE_CHECKING:
    from torch import Tensor

SCRIPT = "train_with_own_weight.py"
SHARED = ("size", "num_classes", "theta")  # flags that a run and the one that it follows must have in common


def add_own_flags(parser: ArgumentParser) -> None:
    """--from-epoch, --after, --from-scratch, --fixed, --scores-only, --shuffle-weights, --mean-weights."""
    parser.add_argument("--from-epoch", type=nonnegative_int, metavar="E", help="first epoch with weights, from 0 "
                        "(default: after 3 of 10 epochs)")
    parser.add_argument("--after", metavar="RUN", help="a further pass: folder of a finished run of this script on these rows")
    parser.add_argument("--from-scratch", action="store_true",
                        help="a further pass starts from a new network, not from that of --after")
    parser.add_argument("--fixed", metavar="DIR|CSV", help="masks that a person has corrected: rows whose masks lie below DIR "
                        "or stand in CSV weigh 1, whatever their scores")
    parser.add_argument("--scores-only", action="store_true", help="keep no averaged predictions; no run can follow by --after")
    controls = parser.add_mutually_exclusive_group()
    controls.add_argument("--shuffle-weights", action="store_true", help="control: each row gets the weight of another")
    controls.add_argument("--mean-weights", action="store_true", help="control: each row gets the mean of all weights")


def complete(args: Namespace) -> None:
    """Set --from-epoch and, of a further pass, --load.

    Raises:
        UserError: flags that contradict one another.
    """
    if args.after and args.from_epoch:
        raise UserError("--from-epoch goes without --after: a further pass has its weights from the start")
    if args.from_scratch and (args.load or not args.after):
        raise UserError("--from-scratch: goes with --after and without --load, which names the network to start from")
    if args.after and not args.load and not args.from_scratch:
        args.load = str(Path(args.after, "last.ckpt"))
    if args.from_epoch is None:
        args.from_epoch = 0 if args.after else min(max(1, round(0.3 * args.epochs)), args.epochs - 1)
    elif args.from_epoch == 0 and not args.after:
        raise UserError("--from-epoch 0: there are no scores before the first epoch; pass 1 or more")
    elif args.from_epoch >= args.epochs:
        raise UserError(f"--from-epoch {args.from_epoch}: no epoch would have weights, there are {args.epochs}, counted from 0")


class OwnRun:
    """What `engine.loop.run` needs of a training with own weights.

    Args:
        args: the flags, see `complete`.

    It is a memory of the loop; `task` is segmentation whose losses are those of the corrected masks. Once the rows are checked
    there are `memory`, in a further pass `corrected`, and, if there is nothing to learn, `keeps`, see `engine.loop`.
    """

    def __init__(self, args: Namespace) -> None:
        self.args = args
        self.task = dataclasses.replace(SEGMENTATION, check=self.open, losses=self.losses, dataset=dataset)
        self.corrected: CorrectedMasks | None = None
        self.memory: Any = None  # an OwnMemory
        self.keeps: Path | None = None

    def open(self, args: Namespace, splits: dict[str, pd.DataFrame]) -> dict[str, Samples]:
        """Check the files and --after, and make the memory; `Task.check`."""
        rows = splits["train"]
        before = earlier_run(args, rows) if args.after else None
        samples = check_files(args, splits)
        shape = None if args.scores_only else shape_of(args)
        if shape:
            check_memory(args, len(rows), shape)
        say = print if is_first_process() else no_word
        change = change_of(args, rows)
        origin = run_folder.file_digest(Path(args.after, "last.ckpt")) if args.after else ""
        self.memory = OwnMemory(len(rows), shape, args.from_epoch, change, say, origin, args.augment, args.num_classes)
        if before is not None:
            self.memory.load_scores(before)
            self.corrected = CorrectedMasks(rows, args, self.memory.judged(), before["predictions"])
            last = Path(args.after, "last.ckpt").resolve()
            goes_on = args.load and Path(args.load).resolve() == last
            if goes_on and not len(self.corrected.learnt) and not args.fixed and control_of(args) is None:
                self.keeps = Path(args.after)
                self.memory.keep_predictions(before)
                say(f"--after {args.after}: its scores give no reason to learn more, so this run keeps its network")
                return samples
            say(f"--after {args.after}: {len(self.corrected.learnt)} of {len(rows)} masks are doubted"
                + (" and moved to where its predictions make them most likely" if args.num_classes == 2 else ""))
        return samples

    def losses(self, output: Any, batch: dict, pixel_weights: Tensor | None = None) -> Tensor:
        """`Task.losses`, of the masks that are learnt."""
        mask = self.corrected.masks(batch) if self.corrected else batch["mask"]
        return training_losses(output, mask, pixel_weights)

    def state_dict(self) -> dict:
        """See `OwnMemory`."""
        return self.memory.state_dict()

    def load_state_dict(self, state: dict) -> None:
        """See `OwnMemory`."""
        self.memory.load_state_dict(state)

    def after_epoch(self, fabric: Any, state: Any, stop: Any) -> dict:
        """See `OwnMemory`."""
        return self.memory.after_epoch(fabric, state, stop)

    def facts(self, rows: pd.DataFrame) -> dict:
        """What result.json says of the last weights of the training rows: as `found_by`, why all are 1 (`fallback`) where they
        are, and of a further pass how many masks were `doubted`, and whether it has `kept_network`."""
        facts = run_folder.found_by(rows.assign(weight=self.memory.judged()))
        fallback = {"fallback": f"since {self.memory.reason}"} if self.memory.reason else {}
        kept = {"kept_network": True} if self.keeps else {}
        return {**kept, "weights": {**facts, **fallback, **({"doubted": len(self.corrected.learnt)} if self.corrected else {})}}

    def write_weights(self) -> None:
        """Leave the last weights of a finished run as weights.csv in its folder, unless they are there."""
        folder = Path(self.args.out_dir, self.args.name)
        if not is_first_process() or (folder / "weights.csv").exists():
            return
        rows = SEGMENTATION.rows(self.args)["train"]
        memory = OwnMemory(len(rows), None, 0, change_of(self.args, rows), no_word, num_classes=self.args.num_classes)
        memory.load_scores(checkpoint.load(folder / "last.ckpt")["memory"])
        write_rows(folder / "weights.csv", rows.assign(weight=memory.judged()), "weight",
                   *["iterations"] * ("iterations" in rows))


def dataset(rows: pd.DataFrame, args: Namespace, training: bool, samples: Samples | None = None) -> SegmentationDataset:
    """`Task.dataset`, which says where the pixels of augmented pictures come from, if predictions or masks are moved."""
    found = SEGMENTATION.dataset(rows, args, training, samples)
    found.sources = training and args.augment and (not args.scores_only or bool(args.after))
    return found


def no_word(*words: object) -> None:
    """Say nothing."""


def control_of(args: Namespace) -> Callable[[np.ndarray], np.ndarray] | None:
    """How a control changes the weights of all rows; None: it is none."""
    return partial(shuffled, seed=args.seed) if args.shuffle_weights else levelled if args.mean_weights else None


def change_of(args: Namespace, rows: pd.DataFrame) -> Callable[[np.ndarray], np.ndarray] | None:
    """What happens to the weights of all rows, float (N,) -> (N,): a control, then 1 for corrected masks; None: nothing.

    Raises:
        UserError: --fixed names no mask of the rows.
    """
    control = control_of(args)
    if not args.fixed:
        return control
    fixed = Path(args.fixed)
    masks = [Path(mask).resolve() for mask in rows["mask"]]
    named = {Path(mask).resolve() for mask in read_rows(fixed)["mask"]} if not fixed.is_dir() else {fixed.resolve()}
    corrected = np.array([not named.isdisjoint([mask, *mask.parents]) for mask in masks])
    if not corrected.any():
        raise UserError(f"--fixed {fixed}: {args.train_csv} has none of its masks; name them in the CSV first, see "
                        "utils/calibrate_masks.py")
    return lambda weights: np.where(corrected, 1.0, control(weights) if control else weights)


def shape_of(args: Namespace) -> tuple[int, ...]:
    """The shape of a row's averaged prediction: (H, W), or (C, H, W) of more than two classes."""
    return (args.num_classes, *args.size) if args.num_classes > 2 else tuple(args.size)


# --- a further pass ---------------------------------------------------------------------------------------------


def earlier_run(args: Namespace, rows: pd.DataFrame) -> dict:
    """The memory of the run that --after names, as `OwnMemory.state_dict` gave it.

    Raises:
        UserError: it is not a finished run of this script, or one of other rows, size, classes or tolerance, or it kept no
            predictions.
    """
    folder, after = Path(args.after), f"--after {args.after}"
    if folder.resolve() == Path(args.out_dir, args.name).resolve():
        raise UserError(f"{after}: is the folder of this run itself; choose another --name")
    if not (folder / "result.json").is_file():
        raise UserError(f"{after}: not the folder of a finished run, it has no result.json; let it end first, with --resume")
    before = read_json(folder / "args.json", "rows", *SHARED)
    if "from_epoch" not in before:
        raise UserError(f"{after}: not a run of {SCRIPT}; name one of those")
    for flag in SHARED:
        if before[flag] != getattr(args, flag):
            then, now = (" ".join(map(str, each)) if isinstance(each, list) else each
                         for each in (before[flag], getattr(args, flag)))
            name = flag.replace("_", "-")
            raise UserError(f"{after}: was trained with --{name} {then}, this run has {now}; pass --{name} {then}")
    if before["rows"]["train"]["digest"] != run_folder.digest(rows):
        raise UserError(f"{after}: was trained on other rows or files than {args.train_csv} holds now; pass the CSV of its own "
                        f"training, {before['train_csv']}")
    memory = checkpoint.load(folder / "last.ckpt").get("memory") or {}
    if not memory.get("predictions") or not memory["predictions"]["counts"].any():
        raise UserError(f"{after}: has kept no averaged predictions; train it without --scores-only")
    return memory


class CorrectedMasks:
    """What a further pass learns: doubted masks as `learnt_mask` gives them, all others as they are.

    A batch of augmented pictures has `source`, see `SegmentationDataset`: corrected masks are moved in the same way.

    Args:
        rows: of training.
        args: `size` and `num_classes`.
        weights: float (N,), of the rows, by the earlier scores.
        predictions: the earlier run's, as `AveragedPredictions.state_dict` gave them.
    """

    def __init__(self, rows: pd.DataFrame, args: Namespace, weights: np.ndarray, predictions: dict) -> None:
        averages = AveragedPredictions(len(rows), shape_of(args), moved=predictions["counts"].ndim > 1)
        averages.load_state_dict(predictions)
        doubted = np.flatnonzero((weights < DOUBTED) & averages.counts.reshape(len(rows), -1).any(1))

        def correct(row: int) -> tuple[np.ndarray, np.ndarray]:
            mask = resize_labels(read_mask(rows["mask"].iloc[row], args.num_classes), tuple(args.size))
            return learnt_mask(mask, averages.average(row))

        with ThreadPoolExecutor(usable_cores()) as pool:
            found = list(progress(pool.map(correct, doubted), "correcting", len(doubted), "mask"))
        self.place = torch.full((len(rows),), -1)  # of each row in the next two, -1 = not doubted
        self.place[doubted] = torch.arange(len(doubted))
        empty = np.zeros((0, *args.size))
        self.learnt = torch.from_numpy(np.array([each for each, _ in found] or empty, np.uint8))  # (D, H, W)
        self.counted = torch.from_numpy(np.array([each for _, each in found] or empty, bool))  # (D, H, W)

    def masks(self, batch: dict) -> Tensor:
        """The masks (B, H, W) that a batch learns, int64."""
        self._follow(batch["mask"].device)
        return self._chosen(batch, self.learnt, batch["mask"], IGNORE_INDEX)

    def pixel_weights(self, batch: dict) -> Tensor:
        """1 for the pixels that count, else 0; float32 (B, H, W)."""
        self._follow(batch["mask"].device)
        return self._chosen(batch, self.counted, torch.ones_like(batch["mask"]), 0).float()

    def _follow(self, device: torch.device) -> None:
        """Move to the device of the batches."""
        if self.place.device != device:
            self.place, self.learnt, self.counted = (each.to(device) for each in (self.place, self.learnt, self.counted))

    def _chosen(self, batch: dict, corrected: Tensor, others: Tensor, outside: int) -> Tensor:
        """`corrected` for the doubted rows of a batch, `outside` the picture that value; `others` (B, H, W) for the rest."""
        if not len(corrected):
            return others
        place = self.place[batch["index"]]
        found, source = corrected[place.clamp(min=0)].to(others.dtype), batch.get("source")
        if source is not None:
            moved = found.flatten(1).gather(1, source.clamp(min=0).long().flatten(1)).view_as(found)
            found = torch.where(source < 0, outside, moved)
        return torch.where((place >= 0)[:, None, None], found, others)
