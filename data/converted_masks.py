"""Masks that a prepare script makes from another data set's annotations."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from cli.files import UserError, progress
from data.pictures import read_mask, write_mask


def convert_masks(jobs: Sequence[tuple[Path | str, Path | str]], convert: Callable[[Path | str], np.ndarray], num_classes: int,
                  overwrite: bool) -> None:
    """Write masks that are not there yet.

    Args:
        jobs: list of (source, target path).
        convert: function of a source that gives its label map, uint8 (H, W).

    Raises:
        UserError: two sources would be written to one file; or see `refuse_stale`.
    """
    sources: dict[str, Path | str] = {}
    for source, target in jobs:
        if sources.setdefault(str(target), source) != source:
            raise UserError(f"{source} and {sources[str(target)]} would both be written to {target}; rename one")
    for source, target in progress(jobs, "masks", unit="mask"):
        if overwrite or not Path(target).exists():
            write_mask(target, convert(source), num_classes)
        else:
            refuse_stale(source, target, convert, num_classes)


def refuse_stale(source: Path | str, target: Path | str, convert: Callable[[Path | str], np.ndarray], num_classes: int) -> None:
    """Raise UserError if a mask is older than its source and holds other labels: the source was corrected since.

    Args:
        convert: see `convert_masks`.
    """
    newer = os.path.getmtime(source) > os.path.getmtime(target)
    if newer and not np.array_equal(read_mask(target, num_classes), convert(source)):
        raise UserError(f"{source}: has changed since {target} was made from it; pass --overwrite to make all of them anew")
