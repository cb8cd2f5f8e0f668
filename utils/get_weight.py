"""Weights: how well each annotation agrees with a teacher's pseudo-label, as a CSV that the train scripts read.

    python utils/get_weight.py --csv data/csv/train_noisy_60.csv --pred-dir runs/teacher/pseudo --metric bm \\
        --out data/csv/train_noisy_60_teacher_weight_bmscore.csv

    python utils/get_weight.py --mix A_weight_bmscore.csv B_weight_bmscore.csv --out AB_weight_bmscore.csv

    python utils/get_weight.py --csv data/csv/faces/train.csv --pred-dir runs/teacher/pseudo --num-classes 6 --metric bf \\
        --truth data/csv/faces/train_truth.csv --out data/csv/faces/train_weight_bfscore.csv

scores every row by mIoU, BF or their mean (bm; paper, eq. 5), or averages the weights of several teachers, row by row. Where
the CSV knows which masks are noisy (`iterations`), the summary says how well the weights tell them from clean ones: AUROC, 1 =
every clean mask weighs more than every noisy one, 0.5 = the weights know nothing. Where better masks of the same images exist
(--truth), it says how well the weights rank the annotations as their true agreement with those does: Spearman's correlation.
"""

import functools
import multiprocessing
import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from data.command_line import command_line, nonnegative_int, positive_int, tool_parser
from data.files import UserError, progress, read_checked_mask, refuse_existing, resize_labels, write_json, write_rows
from data.rows import pseudo_label_names, read_rows
from utils.agreement import METRICS
from utils.agreement_cpu import agreement
from utils.options import add_class_flag, add_score_flags


def score_rows(rows, pred_dir, num_classes, metric, theta, size=None, workers=0):
    """Weight of each row, float (rows,) in 0..1.

    Raises:
        UserError: a pseudo-label is missing or not a label map.
    """
    predictions = [os.path.join(pred_dir, name) for name in pseudo_label_names(rows)]
    missing = [path for path in predictions if not os.path.isfile(path)]
    if missing:
        raise UserError(f"--pred-dir {pred_dir}: {len(missing)} of {len(rows)} pseudo-labels are missing, first "
                        f"{Path(missing[0]).name}; write them with predict.py --csv on the same CSV")
    return score_pairs(rows["mask"].tolist(), predictions, num_classes, metric, theta, size, workers)


def score_pairs(masks, others, num_classes, metric, theta, size=None, workers=0):
    """Agreement of two label map files each, float (pairs,) in 0..1.

    Args:
        masks, others: paths.
        size: (H, W) to score at, None = the mask's own; the other one is resized to it, nearest pixel.
        workers: processes; 0 = this one alone.

    Raises:
        UserError: one is not a label map.
    """
    score = functools.partial(score_pair, num_classes=num_classes, metric=metric, theta=theta, size=size)
    pairs = zip(masks, others)
    if not workers:
        return _collect(map(score, pairs), len(masks), metric)
    with multiprocessing.Pool(workers, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        return _collect(pool.imap(score, pairs, chunksize=16), len(masks), metric)


def _collect(scores, count, metric):
    return np.fromiter(progress(scores, f"scoring by {metric}", count, "mask"), dtype=float, count=count)


def score_pair(pair, num_classes, metric, theta, size):
    """Agreement of the two label maps, see `score_pairs`."""
    mask, other = (read_checked_mask(path, num_classes) for path in pair)
    if size:
        mask = resize_labels(mask, size)
    return agreement(resize_labels(other, mask.shape), mask, num_classes, metric, theta)


def mixed_rows(csvs):
    """Rows of the first CSV with the mean weight of all.

    Raises:
        UserError: the CSVs do not hold the same rows in the same order.
    """
    tables = [read_rows(csv, needs_weights=True) for csv in csvs]
    for csv, table in zip(csvs[1:], tables[1:]):
        if not table[["image", "mask"]].equals(tables[0][["image", "mask"]]):
            raise UserError(f"--mix {csv}: holds other rows, or another order, than {csvs[0]}")
    return tables[0].assign(weight=np.mean([table["weight"] for table in tables], axis=0))


def auroc(weights, noisy):
    """Probability that a clean mask weighs more than a noisy one, ties counted half; None if there is only one kind."""
    if noisy.all() or not noisy.any():
        return None
    ranks, clean = pd.Series(weights).rank().to_numpy(), int((~noisy).sum())  # equal weights share their mean rank
    wins = ranks[~noisy].sum() - clean * (clean + 1) / 2  # Mann and Whitney's U
    return float(wins / (clean * noisy.sum()))


def summarise(rows):
    """Distribution of the weights, per noise level where it is known.

    Returns:
        (JSON-ready dict, the same as text)
    """
    groups = rows.assign(level=rows["iterations"] if "iterations" in rows else "all").groupby("level")["weight"]
    table = groups.describe()[["count", "mean", "std", "min", "25%", "50%", "75%", "max"]]
    summary = {"rows": len(rows), "levels": {str(k): v for k, v in table.T.to_dict().items()}}
    text = table.to_string(float_format=lambda v: f"{v:.3f}", formatters={"count": "{:.0f}".format})
    if "iterations" in rows:
        summary["auroc"] = auroc(rows["weight"].to_numpy(), (rows["iterations"] > 0).to_numpy())
        if summary["auroc"] is not None:
            text += f"\nAUROC, weight tells clean from noisy: {summary['auroc']:.3f}"
    return summary, text


def rank_correlation(args, rows):
    """Spearman's correlation of the weights and the annotations' true agreement with --truth's masks, -1..1; None if either
    is the same for all.

    Raises:
        UserError: --truth holds other images than the rows, or another order.
    """
    truth = read_rows(args.truth)
    if truth["image"].tolist() != rows["image"].tolist():
        raise UserError(f"--truth {args.truth}: holds other images, or another order, than the scored rows")
    true = score_pairs(rows["mask"].tolist(), truth["mask"].tolist(), args.num_classes, args.metric, args.theta, args.size,
                       args.workers)
    ranks = [pd.Series(values).rank().to_numpy() for values in (rows["weight"].to_numpy(), true)]
    alike = min(np.ptp(each) for each in ranks) == 0  # then there is no order to compare
    return None if alike else float(np.corrcoef(*ranks)[0, 1])


def main():
    parser = tool_parser(__doc__)
    parser.add_argument("--csv", help="rows to score: images and their annotations")
    parser.add_argument("--pred-dir", help="the teacher's pseudo-labels, named as predict.py names them")
    parser.add_argument("--metric", choices=METRICS, default="bm", help="mIoU, BF, or their mean")
    parser.add_argument("--truth", metavar="CSV", help="the same rows with better masks, to see how well the weights rank")
    parser.add_argument("--mix", nargs="+", metavar="CSV", help="average the weights of these CSVs instead")
    parser.add_argument("--out", required=True, help="CSV with a third column `weight`")
    parser.add_argument("--size", type=positive_int, nargs=2, metavar=("H", "W"),
                        help="score at this size, px, as the student is at its training size (default: each annotation's own)")
    parser.add_argument("--workers", type=nonnegative_int, default=0, help="scoring processes")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing --out")
    add_class_flag(parser)
    add_score_flags(parser)
    args = parser.parse_args()
    if bool(args.mix) == bool(args.csv and args.pred_dir):
        raise UserError("pass either --csv and --pred-dir (score) or --mix (average several weight CSVs)")

    refuse_existing(args.out, args.overwrite)
    if args.mix:
        rows = mixed_rows(args.mix)
    else:
        rows = read_rows(args.csv)
        rows["weight"] = score_rows(rows, args.pred_dir, args.num_classes, args.metric, args.theta, args.size, args.workers)
    write_rows(args.out, rows, "weight")
    summary, text = summarise(rows)
    if args.truth:
        summary["spearman"] = rank_correlation(args, rows)
        if summary["spearman"] is not None:
            text += f"\nSpearman, weight ranks as the true agreement ({args.metric}) does: {summary['spearman']:.3f}"
    write_json(Path(args.out).with_suffix(".json"), {"out": args.out, **vars(args), **summary})
    print(f"{args.out}: weights of {len(rows)} rows\n{text}")


if __name__ == "__main__":
    command_line(main)
