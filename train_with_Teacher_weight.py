"""Fixed weights: each annotation counts as much as a teacher agrees with it.

    w_i = w_f(x_i, y_i), scored once, offline, by utils/get_weight.py    (paper, eq. 5; Table 2, "reweight")

    python train_with_Teacher_weight.py --train_csv data/csv/train_noisy_60_PointRend_weight_bmscore.csv \\
        --valid_csv data/csv/valid_noisy_60.csv --test_csv data/csv/test.csv \\
        --name train_noisy_60_bmweight_noKD --epochs 100 --batch-size 4 --learning-rate 0.1

The training CSV needs a third column `weight`; validation does not weigh its masks. --shuffle-weights gives each row the
weight of another one, at random by --seed: a control that must not help, or the gain was not the weights'.
"""

from functools import partial

from data.command_line import command_line, share
from data.dataset import read_rows
from utils.engine import run
from utils.options import train_parser
from utils.weighting import floored, shuffled


def weigh(args, logits, batch, epoch):
    """w_i of the CSV, (B,), none below --min-weight."""
    return [floored(batch["weight"], args.min_weight)]


def weigh_shuffled(args, weights, logits, batch, epoch):
    """w_i of another row, (B,), none below --min-weight.

    Args:
        weights: float (rows,), the CSV's in another order.
    """
    return [floored(weights.to(batch["weight"].device)[batch["index"]], args.min_weight)]


def main():
    parser = train_parser(__doc__)
    parser.add_argument("--min-weight", type=share, default=0.0, help="floor of the weights")
    parser.add_argument("--shuffle-weights", action="store_true", help="control: each row gets the weight of another")
    args = parser.parse_args()
    method = partial(weigh, args)
    if args.shuffle_weights:
        weights = shuffled(read_rows(args.train_csv, needs_weights=True)["weight"], args.seed)
        method = partial(weigh_shuffled, args, weights)
    run(args, method, needs_weights=True)


if __name__ == "__main__":
    command_line(main)
