"""Rows -> batches of a run: one loader per split. The order of the samples depends on the seed and the epoch alone."""

from __future__ import annotations

import itertools
import math
import signal
from argparse import Namespace
from collections.abc import Iterator, Sized
from typing import Any

import pandas as pd

from cli.files import UserError
from cli.lazy import lightning_fabric, torch
from cli.machine import usable_cores
from data.dataset import as_it_is
from engine.cache_memory import check_cache, local_processes
from engine.checkpoint import restore_random_state
from engine.task import SEGMENTATION, Task


def build_loaders(args: Namespace, splits: dict[str, pd.DataFrame], fabric: lightning_fabric.Fabric,
                  task: Task = SEGMENTATION, samples: dict[str, Any] | None = None) -> dict[str, torch.utils.data.DataLoader]:
    """DataLoader of each split. --batch-size counts over all processes.

    The training split is shuffled by seed and epoch; for the others see `each_row_once`.

    Args:
        samples: what `Task.check` has read: dict of split -> samples; None = nothing.

    Raises:
        UserError: a batch that the processes cannot share equally; or see `check_cache`.
    """
    ranks = fabric.world_size
    batch = args.batch_size // ranks
    if batch == 0:
        raise UserError(f"--batch-size {args.batch_size}: fewer samples than processes ({ranks})")
    if args.batch_size % ranks:
        raise UserError(f"--batch-size {args.batch_size}: counts over all {ranks} processes and must be a multiple of {ranks}; "
                        f"pass {batch * ranks} or {(batch + 1) * ranks}")
    if getattr(args, "cache", False) and not samples:
        check_cache(args, splits, task.cache_bytes)
    loaders = {}
    for split, rows in splits.items():
        training = split == "train"
        dataset = task.dataset(rows, args, training, **({"samples": samples[split]} if samples else {}))
        sampler = ShuffledRows(dataset, fabric, args.seed) if training else each_row_once(dataset, fabric)
        loaders[split] = torch.utils.data.DataLoader(
            dataset, batch, sampler=sampler, collate_fn=as_it_is,
            num_workers=worker_count(args, fabric), worker_init_fn=leave_stopping,
            drop_last=training and drops_last(args, len(dataset)),
            pin_memory=fabric.device.type == "cuda", generator=torch.Generator())
    return loaders


def drops_last(args: Namespace, rows: int) -> bool:
    """Whether training drops the last batch if it is not full: batch normalisation cannot learn from a batch of 1."""
    return rows >= args.batch_size


def steps_per_epoch(args: Namespace, rows: int, processes: int) -> int:
    """Training steps of an epoch, 1 or more.

    Args:
        rows: number of training rows.
        processes: number of processes that share them.
    """
    share, batch = math.ceil(rows / processes), max(1, args.batch_size // processes)
    return max(1, share // batch if drops_last(args, rows) else math.ceil(share / batch))


def worker_count(args: Namespace, fabric: lightning_fabric.Fabric) -> int:
    """Loader processes of each training process: --workers; else 0 on a CPU, since they would slow the training there, and
    beside a GPU this process's share of the cores, at most 8."""
    if args.workers is not None:
        return args.workers
    return 0 if fabric.device.type == "cpu" else min(8, usable_cores() // local_processes())


class ShuffledRows:
    """Sampler for training: this process's share of an epoch's order, without its first `skipped` rows.

    `skipped` > 0 lets an interrupted epoch go on where it stopped.
    """

    def __init__(self, dataset: Any, fabric: lightning_fabric.Fabric, seed: int) -> None:
        self.order: Any = torch.utils.data.DistributedSampler(dataset, fabric.world_size, fabric.global_rank, seed=seed)
        self.skipped = 0

    def set_epoch(self, epoch: int) -> None:
        """Shuffle anew, as seed and epoch say."""
        self.order.set_epoch(epoch)

    def __iter__(self) -> Iterator[int]:
        return itertools.islice(self.order, self.skipped, None)

    def __len__(self) -> int:
        return len(self.order)


def leave_stopping(worker: int) -> None:
    """Make a loader process ignore Ctrl-C, which reaches it too: the training process ends it in time."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def each_row_once(dataset: Sized, fabric: lightning_fabric.Fabric) -> range:
    """Sampler for scoring: each of n processes takes every n-th row, so that none is dropped or repeated."""
    return range(fabric.global_rank, len(dataset), fabric.world_size)


def on_device(fabric: lightning_fabric.Fabric, batch: dict, task: Task = SEGMENTATION) -> dict:
    """Move a loader's batch to the device and prepare it as the task's networks and losses take it."""
    return task.prepare(fabric.to_device(batch))


def seed_epoch(args: Namespace, loader: Any, epoch: int, rank: int, begun: dict[str, Any] | None = None) -> None:
    """Make an epoch's order, augmentation and random numbers a function of (seed, epoch, rank) alone.

    Args:
        loader: DataLoader of the training split.
        epoch: 0-based.
        rank: of this process.
        begun: of `TrainingState`: an interrupted epoch goes on behind its last step. None: it starts with the first.
    """
    loader.sampler.set_epoch(epoch)
    loader.sampler.skipped = begun["step"] * loader.batch_size if begun else 0
    loader.dataset.epoch = epoch
    seed = (args.seed * 1_000_003 + epoch) * 1_009 + rank
    loader.generator.manual_seed(seed)  # seeds the loader's processes
    torch.manual_seed(seed)
    if begun and begun["random"]:
        restore_random_state(begun["random"])
