"""Fixed weights: each annotation counts as much as a teacher agrees with it.

    w_i = w_f(x_i, y_i), scored once, offline, by utils/get_weight.py    (paper, eq. 5; Table 2, "reweight")

    python train_with_Teacher_weight.py --train_csv data/csv/train_noisy_60_PointRend_weight_bmscore.csv \\
        --valid_csv data/csv/valid_noisy_60.csv --test_csv data/csv/test.csv \\
        --name train_noisy_60_bmweight_noKD --epochs 100 --batch-size 4 --learning-rate 0.1

The training CSV needs a third column `weight`; validation uses no weights. There are two controls. --shuffle-weights gives each
row the weight of another one, at random by --seed: if it helps as much, the gain is not due to the weights. --mean-weights
gives every row the mean weight: it shows the effect of a smaller loss alone.

--pixels DIR goes beyond the paper: with the pseudo-labels in DIR, by which the CSV was scored, w_ip = 1 for each pixel p where
annotation and pseudo-label agree, and w_i elsewhere: a doubted annotation counts fully where its teacher confirms it.

The rows of a CSV headed `image,label,weight` have class labels instead of masks; --pixels needs masks.

Sharpened weights, or --pixels, of teachers that hardly agree with the annotations are refused, see utils/judge.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial

from cli.command_line import command_line
from cli.files import UserError
from cli.lazy import torch
from engine.flags import add_weight_flags, train_parser
from engine.loop import run
from engine.tasks import parse_task
from utils.judge import check_weights, loss_scale
from utils.weighting import floored, levelled, scaled, shuffled


def weigh(args: argparse.Namespace, logits: Sequence[torch.Tensor], batch: dict[str, torch.Tensor], epoch: int
          ) -> list[torch.Tensor]:
    """w_i of the CSV, (B,), none below --min-weight."""
    return [floored(batch["weight"], args.min_weight)]


def weigh_pixels(args: argparse.Namespace, logits: Sequence[torch.Tensor], batch: dict[str, torch.Tensor], epoch: int
                 ) -> list[torch.Tensor]:
    """w_ip = 1 where annotation and pseudo-label agree, else w_i; (B, H, W)."""
    (weights,) = weigh(args, logits, batch, epoch)
    return [torch.where(batch["mask"] == batch["pseudo"], 1.0, weights[:, None, None])]


def main() -> None:
    parser = train_parser(__doc__, classes=True)
    add_weight_flags(parser)
    controls = parser.add_mutually_exclusive_group()
    controls.add_argument("--shuffle-weights", action="store_true", help="control: each row gets the weight of another")
    controls.add_argument("--mean-weights", action="store_true", help="control: each row gets the mean of all weights")
    parser.add_argument("--pixels", metavar="DIR", help="pseudo-labels: pixels that agree with them count fully; "
                        "DIR/PATTERN where they have other names, such as sam/{stem}_mask.png")
    args, task = parse_task(parser)
    if args.pixels and args.keep_loss_size:
        raise UserError("--keep-loss-size goes without --pixels: the mean weight of pixels is not known before training")
    check_weights(args)
    level = partial(levelled, minimum=args.min_weight)
    reweigh = partial(shuffled, seed=args.seed) if args.shuffle_weights else level if args.mean_weights else None
    method = weigh_pixels if args.pixels else weigh
    weigh_scaled = scaled(partial(method, args), loss_scale(args))
    run(args, weigh_scaled, needs_weights=True, reweigh=reweigh, pseudo_dir=args.pixels, task=task)


if __name__ == "__main__":
    command_line(main)
