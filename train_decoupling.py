"""Decoupling: two networks, both updated on the samples on which they disagree.

    w_i = 1 where IoU(A(x_i), B(x_i)) < 0.9, else 0; for both          (Malach & Shalev-Shwartz 2017; paper, Table 5)

    python train_decoupling.py --train_csv data/csv/train_noisy_60.csv --valid_csv data/csv/valid_noisy_60.csv \\
        --test_csv data/csv/test.csv --name train_decoupling --epochs 100 --batch-size 4 --learning-rate 0.1

A = U-Net is the one reported, B = DeepLabv3+. The IoU is that of the two hard predictions of a sample, the mean over its
classes. A batch without disagreement makes no update.
"""

from functools import partial

from cli.command_line import command_line
from engine.flags import add_disagreement_flag, add_pair_flags, train_parser
from engine.loop import run
from utils.weighting import disagreement


def weigh(args, logits, batch, epoch):
    """1 where the two disagree, (B,), for A and for B."""
    differ = disagreement(*logits, args.num_classes, args.disagree_below)
    return [differ, differ]


def main():
    parser = train_parser(__doc__, add_pair_flags)
    add_disagreement_flag(parser)
    args = parser.parse_args()
    run(args, partial(weigh, args), networks=("_a", "_b"), selects=True)


if __name__ == "__main__":
    command_line(main)
