"""Co-teaching: two networks, each updated on the samples that the other one trusts most.

    w_i of A = 1 for the R(t) share of the batch that B trusts most, else 0; and the other way round
    R(t) = 1 - tau * min(t / T_k, 1)                                   (Han et al. 2018; paper, Table 5)

    python train_co_teaching.py --train_csv data/csv/train_noisy_60.csv --valid_csv data/csv/valid_noisy_60.csv \\
        --test_csv data/csv/test.csv --name train_co_teaching --epochs 100 --batch-size 4 --learning-rate 0.1

A = U-Net is the one reported, B = DeepLabv3+. tau is --forget-rate, T_k is --ramp-epochs; trust is a small loss, or with
--select-by bm a high score against the annotation. On class labels (a CSV headed `image,label`) trust is a small
cross-entropy, as in the method's own paper.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial

from cli.command_line import command_line
from cli.lazy import torch
from engine.flags import add_pair_flags, add_selection_flags, forget_rate_of, train_parser
from engine.loop import run
from engine.task import SEGMENTATION, Task
from engine.tasks import parse_task
from utils.weighting import keep_best, keep_share


def weigh(args: argparse.Namespace, logits: Sequence[torch.Tensor], batch: dict[str, torch.Tensor], epoch: int,
          task: Task = SEGMENTATION) -> list[torch.Tensor]:
    """1 for what the peer trusts most, (B,), for A and for B."""
    share = keep_share(epoch, args.forget_rate, args.ramp_epochs)
    by_a, by_b = (task.trust(each, batch, args) for each in logits)
    return [keep_best(by_b, share), keep_best(by_a, share)]


def main() -> None:
    parser = train_parser(__doc__, add_pair_flags, classes=True)
    add_selection_flags(parser)
    args, task = parse_task(parser)
    args.forget_rate = forget_rate_of(args)
    run(args, partial(weigh, args, task=task), networks=("_a", "_b"), selects=True, task=task)


if __name__ == "__main__":
    command_line(main)
