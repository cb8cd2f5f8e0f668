"""Confident learning as a filter: drop the masks, or ignore the pixels, that out-of-fold teachers contradict.

    python benchmarks/confident_filter.py --csv train_noisy.csv --teacher runs/teacher --size 160 96 --drop pixels \\
        --out train_filtered.csv

--teacher is the folder that train_teacher.py left; each fold's network judges the masks that it never saw, at --size. A pixel
has a label issue if it is confidently of another class than the one given (Northcutt, Jiang and Chuang, JAIR 2021).

    pixels     masks are written with 255, ignored, where a pixel has an issue; every row keeps weight 1
    rows       weight 0 for a mask of a low quality score, else 1; no mask is written

--rule cleanlab takes cleanlab's filter (find_label_issues) and, of rows, its softmin score below --threshold, both of
cleanlab.segmentation; it needs benchmarks/requirements.txt. --rule thresholds takes utils/confident.py: a pixel has an issue by
the mean self-confidence of its class, and the score of a mask is the share of its pixels without an issue.

Ignored pixels (255) have no issue. A JSON beside --out holds flags, counts and seconds.
"""

import time
from pathlib import Path

import numpy as np

from benchmarks.bench_detectors import judged_folds, probabilities, without_ignored
from cli.command_line import command_line, positive_int, share, tool_parser
from cli.files import UserError, check_outputs, progress, together, write_json, write_rows
from cli.flags import add_class_flag
from data import IGNORE_INDEX
from data.dataset import SegmentationDataset
from data.pictures import read_checked_mask, resize_labels, write_mask
from data.rows import check_rows, read_rows
from engine.flags import add_flip_flag
from utils.confident import wrong_labels
from utils.generate_noisy_label import noisy_mask_names

THRESHOLDS = {"cleanlab": 0.1, "thresholds": 0.95}


def by_cleanlab(labels, probs):
    """(pixels with an issue, bool (N, H, W); score of each mask, float (N,) in 0..1)."""
    from cleanlab.segmentation.filter import find_label_issues
    from cleanlab.segmentation.rank import get_label_quality_scores

    labels, probs = without_ignored(labels, probs), probs.astype(np.float32)
    scores = get_label_quality_scores(labels, probs, method="softmin", n_jobs=1, verbose=False)[0]
    return find_label_issues(labels, probs, n_jobs=1, verbose=False), scores


def by_thresholds(labels, probs):
    """The same by utils/confident.py, pixel by pixel; ignored ones count nowhere, and a mask without others has score 1."""
    judged, issues = labels != IGNORE_INDEX, np.zeros(labels.shape, bool)
    issues[judged] = wrong_labels(np.moveaxis(probs, 1, -1)[judged].astype(np.float32), labels[judged])
    return issues, 1 - issues.sum((1, 2)) / np.maximum(judged.sum((1, 2)), 1)


def judged(args, rows):
    """(pixels with an issue, bool (N, H, W) at --size; score of each mask, float (N,))."""
    checkpoints, fold_of = judged_folds(rows, args.teacher)
    dataset = SegmentationDataset(rows, args.size, args.num_classes)
    labels = dataset.__getitems__(range(len(rows)))["mask"].numpy().astype(np.int64)  # (N, H, W)
    probs = probabilities(dataset, checkpoints, fold_of, args.flip)
    if probs.shape[1] != args.num_classes:
        raise UserError(f"--num-classes {args.num_classes}: the teachers know {probs.shape[1]} classes")
    issues, scores = (by_cleanlab if args.rule == "cleanlab" else by_thresholds)(labels, probs)
    return issues & (labels != IGNORE_INDEX), scores


def without_issues(mask, issues, num_classes):
    """The label map of a file, pixels with an issue (bool, of any size) ignored."""
    labels = read_checked_mask(mask, num_classes).copy()
    labels[resize_labels(issues.astype(np.uint8), labels.shape) > 0] = IGNORE_INDEX
    return labels


def parse():
    parser = tool_parser(__doc__)
    parser.add_argument("--csv", required=True, help="the annotations that the teachers judged")
    parser.add_argument("--teacher", required=True, help="folder that train_teacher.py left")
    parser.add_argument("--out", required=True, help="CSV with a column `weight`")
    parser.add_argument("--mask-dir", help="pixels: folder of the masks (default: beside --out, named after it)")
    parser.add_argument("--drop", required=True, choices=("pixels", "rows"))
    parser.add_argument("--rule", choices=("cleanlab", "thresholds"), default="cleanlab")
    parser.add_argument("--threshold", type=share,
                        help="rows: masks of a lower score are dropped (default: cleanlab's own, 0.1; of thresholds 0.95)")
    parser.add_argument("--size", type=positive_int, nargs=2, default=[160, 160], metavar=("H", "W"))
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    add_flip_flag(parser)
    add_class_flag(parser)
    args = parser.parse_args()
    if args.threshold is not None and args.drop == "pixels":
        raise UserError(f"--threshold {args.threshold}: is of --drop rows; leave it out")
    if args.threshold is None:
        args.threshold = THRESHOLDS[args.rule]
    if args.rule == "cleanlab":
        try:
            import cleanlab  # noqa: F401
        except ImportError:
            raise UserError("--rule cleanlab: it is not installed; pip install -r benchmarks/requirements.txt, or pass "
                            "--rule thresholds") from None
    return args


def main():
    args = parse()
    rows, record = read_rows(args.csv), Path(args.out).with_suffix(".json")
    folder = Path(args.mask_dir) if args.mask_dir else Path(args.out).with_suffix("")
    targets = [str(folder / name) for name in noisy_mask_names(rows)] if args.drop == "pixels" else []
    check_outputs([*targets, args.out, record], args.overwrite, [args.csv, *rows["image"], *rows["mask"]])
    check_rows(args.csv, rows, args.num_classes)
    began = time.perf_counter()
    issues, scores = judged(args, rows)
    dropped = scores < args.threshold if args.drop == "rows" else np.zeros(len(rows), bool)
    if dropped.all():
        raise UserError(f"--threshold {args.threshold}: every mask has a lower score (highest {scores.max():.3f}), none would "
                        "be left; pass a lower one")
    found = {"rows": len(rows), "dropped": int(dropped.sum()), "pixels_with_issues": float(issues.mean())}
    if "iterations" in rows:
        found["dropped_noisy"] = int((dropped & (rows["iterations"] > 0)).sum())
    with together() as written_at:
        for target, mask, each in zip(targets, progress(rows["mask"], "filtering", len(rows), "mask"), issues):
            write_mask(written_at(target), without_issues(mask, each, args.num_classes), args.num_classes)
        filtered = rows.assign(mask=targets or rows["mask"], weight=1.0 - dropped)
        write_rows(written_at(args.out), filtered, "weight", *["iterations"] * ("iterations" in rows))
        seconds = time.perf_counter() - began
        write_json(written_at(record), {**vars(args), **found, "scores": scores.tolist(), "seconds": seconds})
    print(f"{args.out}: {found}")


if __name__ == "__main__":
    command_line(main)
