"""NLKD: teacher and student together decide how much each annotation counts.

    W = lambda * w_student + (1 - lambda) * w_teacher                    (paper, eq. 6; Table 2, "reweight + KD")

w_teacher is the weight in the CSV. w_student is the score of the student's current prediction at every step, by the metric
that scored the CSV. lambda is 0 for --lambda-warmup epochs and then grows to --lambda-max in the last one. Beyond the paper,
--student running takes the mean of a row's scores over the epochs so far: a single late score hardly tells good masks from bad.

    python train_with_KDweight.py --train_csv data/csv/train_noisy_60_PointRend_weight_bmscore.csv \\
        --valid_csv data/csv/valid_noisy_60.csv --test_csv data/csv/test.csv \\
        --name train_noisy_60_bmweight_KD --epochs 100 --batch-size 4 --learning-rate 0.1

The JSON that utils/get_weight.py writes beside the CSV holds its metric, --theta and --size. A published CSV has no JSON: its
name shows the metric (miou, bf, bm), or pass --metric. Validation uses no weights. The loss shrinks with the weights, as in
the paper; with --keep-loss-size it does not.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial

from cli.command_line import command_line, nonnegative_int, share
from data.rows import read_header, read_rows
from engine.flags import add_weight_flags, metric_of, train_parser
from engine.loop import run
from engine.own_memory import RunningScores
from utils.agreement import METRICS, agreement, hard_labels
from utils.judge import check_weights, loss_scale
from utils.weighting import floored, lambda_at, mix, scaled


def weigh(args: argparse.Namespace, logits: Sequence, batch: dict, epoch: int, scores: RunningScores | None = None) -> list:
    """W_i = lambda * w_student,i + (1 - lambda) * w_teacher,i, (B,); `scores` remembers the student's, see --student."""
    share_of_student = lambda_at(epoch, args.epochs, args.lambda_warmup, args.lambda_max)
    weights = batch["weight"]
    if share_of_student or scores:
        student = agreement(hard_labels(logits[0]), batch["mask"], args.num_classes, args.metric, args.theta)
        if scores:
            scores.note(batch["index"], student)
            student = scores.running(batch["index"])
        weights = mix(student, weights, share_of_student)
    return [floored(weights, args.min_weight)]


def main() -> None:
    parser = train_parser(__doc__)
    parser.add_argument("--metric", choices=METRICS, help="metric that scored the CSV (default: from its JSON or its name)")
    parser.add_argument("--lambda-warmup", type=nonnegative_int, default=10, help="epochs without the student's weight")
    parser.add_argument("--lambda-max", type=share, default=0.5, help="the student's share in the last epoch")
    parser.add_argument("--student", choices=("now", "running"), default="now",
                        help="the student's weight: its score at this step, or the mean of its scores over the epochs so far")
    add_weight_flags(parser)
    args = parser.parse_args()
    read_header(args.train_csv, needs_weights=True)  # refuse a CSV without weights before metric_of asks for its metric
    args.metric = metric_of(args)
    print(f"the student is scored by {args.metric}, as {args.train_csv} was")
    if args.epochs <= args.lambda_warmup and args.lambda_max:
        print(f"lambda is 0 in all {args.epochs} epochs, since --lambda-warmup is {args.lambda_warmup}: the student's weight "
              "never counts, as in train_with_Teacher_weight.py; pass a smaller --lambda-warmup or more --epochs")
    check_weights(args)
    scores = RunningScores(len(read_rows(args.train_csv))) if args.student == "running" else None
    run(args, scaled(partial(weigh, args, scores=scores), loss_scale(args)), needs_weights=True, memory=scores,
        after_epoch=scores.after_epoch if scores else None)


if __name__ == "__main__":
    command_line(main)
