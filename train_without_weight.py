"""Baseline: every annotation counts the same; or, with --drop-worst, all but the worst count the same.

    w_i = 1                                                        (the paper's "baseline", Table 2)
    w_i = 0 for the given share of the training rows with the lowest weights in the CSV, else 1      (--drop-worst)

    python train_without_weight.py --train_csv data/csv/train_noisy_60.csv --valid_csv data/csv/valid_noisy_60.csv \\
        --test_csv data/csv/test.csv --name train_noisy_60_noweight --epochs 100 --batch-size 4 --learning-rate 0.1

A training CSV headed `image,label` holds class labels instead of masks: plain cross-entropy of a classifier.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from cli.command_line import command_line, share
from cli.lazy import torch
from engine.flags import train_parser
from engine.loop import run
from engine.tasks import parse_task
from utils.weighting import dropped_worst, uniform


def weigh(logits: Sequence[torch.Tensor], batch: dict[str, torch.Tensor], epoch: int) -> list[torch.Tensor]:
    """w_i = 1, (B,)."""
    return [uniform(batch["weight"])]


def weigh_kept(logits: Sequence[torch.Tensor], batch: dict[str, torch.Tensor], epoch: int) -> list[torch.Tensor]:
    """w_i = 1 for the rows that are kept, else 0, (B,): the weights that `dropped_worst` made."""
    return [batch["weight"]]


def main() -> None:
    parser = train_parser(__doc__, classes=True)
    parser.add_argument("--drop-worst", type=share, metavar="SHARE", help="drop this share of rows, the lowest weights first")
    args, task = parse_task(parser)
    if args.drop_worst is None:
        run(args, weigh, task=task)
    else:
        run(args, weigh_kept, needs_weights=True, selects=True, reweigh=partial(dropped_worst, drop=args.drop_worst),
            task=task)


if __name__ == "__main__":
    command_line(main)
