"""What --cache takes of the machine's memory."""

import os
from argparse import Namespace
from collections.abc import Callable

import pandas as pd

from cli.files import UserError
from cli.machine import free_memory
from engine.lock import is_first_process


def local_processes() -> int:
    """Number of training processes on this machine: from torchrun's environment, without torchrun 1."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def check_cache(args: Namespace, splits: dict[str, pd.DataFrame], cache_bytes: Callable[..., int]) -> None:
    """Print how much memory --cache takes. Each process of a machine has a cache of its own.

    Args:
        cache_bytes: of the `Task`.

    Raises:
        UserError: that is more than the free memory.
    """
    samples = sum(map(len, splits.values()))
    needed = sum(cache_bytes(rows, args) for rows in splits.values()) * local_processes() / 2**30
    free = free_memory() / 2**30
    if needed > free:
        raise UserError(f"--cache: {samples} samples of {args.size[0]}x{args.size[1]} take {needed:.2f} GiB, {free:.2f} GiB "
                        "are free; leave it out and raise --workers, or choose a smaller --size")
    if is_first_process():
        print(f"cache: {needed:.2f} GiB for {samples} samples, {free:.2f} GiB are free")
