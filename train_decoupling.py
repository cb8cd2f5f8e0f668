"""Decoupling: two networks, both updated on the samples on which they disagree.

    w_i = 1 where IoU(A(x_i), B(x_i)) < 0.9, else 0; for both          (Malach & Shalev-Shwartz 2017; paper, Table 5)

    python train_decoupling.py --train_csv data/csv/train_noisy_60.csv --valid_csv data/csv/valid_noisy_60.csv \\
        --test_csv data/csv/test.csv --name train_decoupling --epochs 100 --batch-size 4 --learning-rate 0.1

A = U-Net is the one reported, B = DeepLabv3+. The IoU is that of the two hard predictions of a sample, the mean over its
classes. A batch without disagreement makes no update. On class labels (a CSV headed `image,label`) the two disagree where
they predict other classes, as in the method's own paper.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial

from cli.command_line import command_line
from cli.lazy import torch
from engine.flags import add_disagreement_flag, add_pair_flags, train_parser
from engine.loop import run
from engine.task import SEGMENTATION, Task
from engine.tasks import parse_task


def weigh(args: argparse.Namespace, logits: Sequence[torch.Tensor], batch: dict[str, torch.Tensor], epoch: int,
          task: Task = SEGMENTATION) -> list[torch.Tensor]:
    """1 where the two disagree, (B,), for A and for B."""
    differ = task.disagree(*logits, args)
    return [differ, differ]


def main() -> None:
    parser = train_parser(__doc__, add_pair_flags, classes=True)
    add_disagreement_flag(parser)
    args, task = parse_task(parser)
    run(args, partial(weigh, args, task=task), networks=("_a", "_b"), selects=True, task=task)


if __name__ == "__main__":
    command_line(main)
