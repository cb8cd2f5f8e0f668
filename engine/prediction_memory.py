"""Whether the averaged predictions of own weights fit the memory of this machine and of its GPU."""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Sequence

from cli.files import UserError
from cli.lazy import torch
from cli.machine import free_memory
from engine.cache_memory import local_processes
from engine.devices import own_gpu, visible_gpus
from engine.lock import is_first_process
from engine.own_memory import AveragedPredictions


def check_memory(args: Namespace, rows: int, shape: Sequence[int]) -> None:
    """Print how much memory the averaged predictions take.

    Raises:
        UserError: that is more than the free memory.
    """
    each = AveragedPredictions.size(rows, shape, args.augment) / 2**30
    training, free = each * local_processes(), free_memory() / 2**30
    needed = training + 2 * each  # saving makes two copies, in one process
    what = f"averaged predictions of {rows} masks of {args.size[0]}x{args.size[1]}, {args.num_classes} classes"
    if visible_gpus(args):
        # of this epoch's predictions, and of the doubted masks of a further pass and where they count
        pixels = math.prod(shape) + math.prod(args.size) * (args.augment + 2 * bool(args.after))
        held, left = rows * pixels / 2**30, torch.cuda.mem_get_info(own_gpu(args))[0] / 2**30
        if held > left:
            raise UserError(f"{what} take up to {held:.2f} GiB of the GPU, {left:.2f} GiB are free; choose a smaller --size, "
                            "or pass --scores-only, which keeps none, so that no run can follow by --after")
    if needed > free:
        raise UserError(f"{what} take {needed:.2f} GiB, {free:.2f} GiB are free; pass --scores-only, which keeps none, so that "
                        "no run can follow by --after, or choose a smaller --size")
    if is_first_process():
        print(f"own weights: {what} take {training:.2f} GiB, and up to {needed:.2f} GiB while they are saved")
