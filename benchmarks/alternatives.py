"""A train script for weightings beyond the paper; `tables.py alternatives` runs them all.

    python benchmarks/alternatives.py --way band --pred-dir runs/teacher/pseudo --train_csv train_noisy_sharp_bfscore.csv \\
        --test_csv test.csv --name band

The CSV holds the trust t_i in each mask; y_i is the mask and f(x_i) its out-of-fold pseudo-label in --pred-dir.

    cubed      w_i = t_i^3
    band       w_ip = t_i within --band px of the outline of y_i, else 1: a doubted mask counts fully away from its outline
    relabel    w_i = 1, and masks with t_i < 0.5 are replaced by f(x_i)
"""

from functools import partial

from cli.command_line import command_line, positive_int
from cli.files import UserError
from cli.lazy import torch
from data import IGNORE_INDEX
from engine.flags import train_parser
from engine.folds import weigh_by_csv
from engine.loop import run
from utils.weighting import uniform


def weigh_band(band, logits, batch, epoch):
    """w_ip = t_i near the outline of y_i, else 1; (B, H, W)."""
    mask = batch["mask"][:, None].float()  # (B, 1, H, W)
    ignored = mask == IGNORE_INDEX  # no class, and its rim no outline
    highest, lowest = (sign * torch.nn.functional.max_pool2d((sign * mask).masked_fill(ignored, -torch.inf), 2 * band + 1, 1,
                                                             band) for sign in (1, -1))
    return [torch.where((highest != lowest)[:, 0], batch["weight"][:, None, None], 1.0)]


def weigh_relabelled(logits, batch, epoch):
    """w_i = 1, (B,); the batch's doubted masks become pseudo-labels."""
    doubted = (batch["weight"] < 0.5)[:, None, None] & (batch["mask"] != IGNORE_INDEX)
    batch["mask"][:] = torch.where(doubted, batch["pseudo"].long(), batch["mask"])
    return [uniform(batch["weight"])]


def cubed(weights):
    """t^3, (rows,)."""
    return weights**3


def main():
    parser = train_parser(__doc__)
    parser.add_argument("--way", required=True, choices=("cubed", "band", "relabel"))
    parser.add_argument("--pred-dir", help="out-of-fold pseudo-labels of the training rows, for relabel")
    parser.add_argument("--band", type=positive_int, default=5, help="px on both sides of an outline")
    args = parser.parse_args()
    if args.way == "relabel" and not args.pred_dir:
        raise UserError("--way relabel needs --pred-dir")
    weigh = {"band": partial(weigh_band, args.band), "relabel": weigh_relabelled}.get(args.way, weigh_by_csv)
    run(args, weigh, needs_weights=True, reweigh=cubed if args.way == "cubed" else None,
        pseudo_dir=args.pred_dir if args.way == "relabel" else None)


if __name__ == "__main__":
    command_line(main)
