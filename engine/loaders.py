"""Rows -> batches of a run: one loader per split, the same samples in the same order whatever ran before."""

import itertools
import math
import os
import signal

from cli.files import UserError
from cli.lazy import torch
from cli.machine import free_memory, usable_cores
from data.dataset import as_it_is
from engine.checkpoint import restore_random_state
from engine.task import SEGMENTATION, Task


def build_loaders(args, splits, fabric, task: Task = SEGMENTATION):
    """DataLoader of each split. --batch-size counts over all processes.

    Training shuffles by seed and epoch; elsewhere see `each_row_once`.
    """
    ranks = fabric.world_size
    batch = args.batch_size // ranks
    if batch == 0:
        raise UserError(f"--batch-size {args.batch_size}: fewer samples than processes ({ranks})")
    if getattr(args, "cache", False):
        check_cache(args, fabric, splits, task)
    loaders = {}
    for split, rows in splits.items():
        training = split == "train"
        dataset = task.dataset(rows, args, training)
        sampler = ShuffledRows(dataset, fabric, args.seed) if training else each_row_once(dataset, fabric)
        loaders[split] = torch.utils.data.DataLoader(
            dataset, batch, sampler=sampler, collate_fn=as_it_is,
            num_workers=worker_count(args, fabric), worker_init_fn=leave_stopping,
            drop_last=training and drops_last(args, len(dataset)),
            pin_memory=fabric.device.type == "cuda", generator=torch.Generator())
    return loaders


def drops_last(args, rows: int) -> bool:
    """Whether a last batch that is not full is left out of training: a batch of 1 has no batch statistics."""
    return rows >= args.batch_size


def steps_per_epoch(args, rows: int, processes: int) -> int:
    """Training steps of an epoch, 1 or more.

    Args:
        rows: of the training set.
        processes: that share them.
    """
    share, batch = math.ceil(rows / processes), max(1, args.batch_size // processes)
    return max(1, share // batch if drops_last(args, rows) else math.ceil(share / batch))


def local_processes():
    """Training processes on this machine, as torchrun says; else one."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def worker_count(args, fabric):
    """Loader processes of each training process: --workers, else none where the CPU trains too, which has better to do."""
    if args.workers is not None:
        return args.workers
    return 0 if fabric.device.type == "cpu" else min(8, usable_cores() // local_processes())


def check_cache(args, fabric, splits, task: Task = SEGMENTATION):
    """Say what --cache takes; a UserError if that is more than there is. Each process of a machine has a cache of its own."""
    samples = sum(map(len, splits.values()))
    needed = sum(task.cache_bytes(rows, args) for rows in splits.values()) * local_processes() / 2**30
    free = free_memory() / 2**30
    if needed > free:
        raise UserError(f"--cache: {samples} samples of {args.size[0]}x{args.size[1]} take {needed:.2f} GiB, {free:.2f} GiB "
                        "are free; leave it out and raise --workers, or choose a smaller --size")
    if fabric.is_global_zero:
        print(f"cache: {needed:.2f} GiB for {samples} samples, {free:.2f} GiB are free")


class ShuffledRows:
    """Sampler for training: an epoch's order, cut into as many shares as there are processes; `skipped` rows are left out."""

    def __init__(self, dataset, fabric, seed):
        self.order = torch.utils.data.DistributedSampler(dataset, fabric.world_size, fabric.global_rank, seed=seed)
        self.skipped = 0

    def set_epoch(self, epoch):
        self.order.set_epoch(epoch)

    def __iter__(self):
        return itertools.islice(self.order, self.skipped, None)

    def __len__(self):
        return len(self.order)


def leave_stopping(worker):
    """What a loader process begins with: Ctrl-C reaches it too, but the training decides when it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def each_row_once(dataset, fabric):
    """Sampler for scoring: each of n processes takes every n-th row, so that none is dropped or repeated."""
    return range(fabric.global_rank, len(dataset), fabric.world_size)


def on_device(fabric, batch, task: Task = SEGMENTATION):
    """A loader's batch on the device, as the task's networks and losses take it."""
    return task.prepare(fabric.to_device(batch))


def seed_epoch(args, loader, epoch, rank, begun=None):
    """Make an epoch's order, augmentation and random numbers a function of (seed, epoch, rank), whatever ran before.

    Args:
        begun: of `TrainingState`; an epoch that was left in the middle goes on there. None: from its first step.
    """
    loader.sampler.set_epoch(epoch)
    loader.sampler.skipped = begun["step"] * loader.batch_size if begun else 0
    loader.dataset.epoch = epoch
    seed = (args.seed * 1_000_003 + epoch) * 1_009 + rank
    loader.generator.manual_seed(seed)  # seeds the loader's processes
    torch.manual_seed(seed)
    if begun and begun["random"]:
        restore_random_state(begun["random"])
