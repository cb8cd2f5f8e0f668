"""How well scores find noisy masks: ours (BF, mIoU, BFmIoU) and cleanlab's, with the same teachers, out-of-fold and in-sample.

    python benchmarks/bench_detectors.py --teacher runs/tables/people/noise60/seed0/teacher_pointrend --size 160 96 \\
        --csv runs/tables/people/noise60/seed0/csv/train_noisy.csv --truth data/csv/people/train.csv \\
        --out docs/results/detectors_people.json

--teacher is the folder that train_teacher.py wrote. Out-of-fold, a network judges a mask that it never saw; in-sample, the next
fold's network does, which was trained on it. AUROC and AUPRC show how well a score separates noisy from untouched masks;
Spearman is its correlation with the true agreement (BFmIoU with --truth's masks).
cleanlab is measured where it is installed (benchmarks/requirements.txt).
"""

import sys
from pathlib import Path

import numpy as np

from benchmarks.measure import keep, table
from cli.command_line import command_line, positive_int, tool_parser
from cli.files import UserError, check_outputs, progress, read_json
from cli.flags import add_class_flag, add_score_flags
from cli.lazy import torch
from data import IGNORE_INDEX
from data.dataset import SegmentationDataset
from data.rows import pseudo_label_names, read_rows
from engine.checkpoint import load_network
from engine.flags import add_flip_flag
from engine.prediction import logits_of
from reports.experiment import SHARP_THETA
from utils.agreement import METRICS, agreement
from utils.get_weight import truth_masks
from utils.ranking import auprc, auroc, spearman


def judged_folds(rows, teacher):
    """(checkpoint of each fold, int (rows,): the fold that judges each row)."""
    folds = read_json(Path(teacher) / "teacher.json")["folds"]
    if len(folds) < 2:
        raise UserError(f"--teacher {teacher}: has one fold; in-sample and out-of-fold need two at least")
    fold_of = {name: number for number, fold in enumerate(folds) for name in fold["judges"]}
    names = pseudo_label_names(rows)
    if set(names) != set(fold_of):
        raise UserError(f"--teacher {teacher}: judged other rows than those of --csv")
    return [fold["checkpoint"] for fold in folds], np.array([fold_of[name] for name in names])


def probabilities(dataset, checkpoints, fold_of, flip):
    """Class probabilities of each sample by the network of its fold, float16 (N, K, H, W); binary masks have K = 2."""
    result = None
    for fold, checkpoint in enumerate(checkpoints):
        network, config = load_network(checkpoint)
        if tuple(config["size"]) != tuple(dataset.size):
            raise UserError(f"--size {dataset.size[0]} {dataset.size[1]}: {checkpoint} was trained at {config['size'][0]} "
                            f"{config['size'][1]}; pass that")
        indices = np.flatnonzero(fold_of == fold)
        for batch in progress(np.array_split(indices, max(1, len(indices) // 16)), f"fold {fold + 1}", unit="batch"):
            samples = dataset.__getitems__(batch.tolist())
            with torch.no_grad():
                logits = logits_of(network, samples["image"], flip)  # (B, C, H, W)
            one = logits.sigmoid()
            given = torch.cat([1 - one, one], 1) if logits.shape[1] == 1 else logits.softmax(1)
            if result is None:
                result = np.empty((len(dataset), *given.shape[1:]), np.float16)
            result[batch] = given.numpy()
    return result


def without_ignored(labels, probs):
    """Labels (N, H, W) whose ignored pixels are the likeliest class, which is never an issue, by probs (N, K, H, W): cleanlab
    knows no ignored ones."""
    return np.where(labels == IGNORE_INDEX, probs.argmax(1), labels)


def our_scores(probs, masks, args):
    """dict of score -> float (N,); `bf, strict` has the smaller tolerance of sharpened weights."""
    classes = torch.from_numpy(probs.argmax(1))  # (N, H, W)
    scores = {metric: agreement(classes, masks, args.num_classes, metric, args.theta) for metric in METRICS}
    scores["bf, strict"] = agreement(classes, masks, args.num_classes, "bf", args.theta * SHARP_THETA)
    return {name: values.numpy() for name, values in scores.items()}


def cleanlab_scores(probs, masks):
    """dict of cleanlab's methods -> float (N,); empty where it is not installed."""
    try:
        from cleanlab.segmentation.rank import get_label_quality_scores
    except ImportError:
        print("cleanlab is not installed, its scores are left out", file=sys.stderr)
        return {}
    labels = without_ignored(masks.numpy(), probs)
    return {f"cleanlab {method}": get_label_quality_scores(labels, probs.astype(np.float32), method=method, verbose=False,
                                                           n_jobs=1)[0] for method in ("softmin", "num_pixel_issues")}


def main():
    parser = tool_parser(__doc__)
    parser.add_argument("--teacher", required=True, help="folder that train_teacher.py left")
    parser.add_argument("--csv", required=True, help="the annotations that it judged, with `iterations`")
    parser.add_argument("--truth", required=True, help="CSV of the same images with their untouched masks")
    parser.add_argument("--size", type=positive_int, nargs=2, default=[160, 160], metavar=("H", "W"))
    parser.add_argument("--out", required=True, help="JSON of the results")
    add_flip_flag(parser)
    add_class_flag(parser)
    add_score_flags(parser)
    args = parser.parse_args()
    check_outputs([args.out], True, [args.csv, args.truth])
    rows = read_rows(args.csv, needs_levels=True)
    truth = rows.assign(mask=truth_masks(args, rows))
    checkpoints, fold_of = judged_folds(rows, args.teacher)
    dataset = SegmentationDataset(rows, args.size, args.num_classes, cache=True)  # it is read three times
    true_masks = SegmentationDataset(truth, args.size, args.num_classes)
    masks, clean = (each.__getitems__(range(len(rows)))["mask"].long() for each in (dataset, true_masks))  # (N, H, W)
    noisy = (rows["iterations"] > 0).to_numpy()
    true = agreement(masks, clean, args.num_classes, "bm", args.theta).numpy()

    figures, lines = [], []
    for kind, folds in (("out-of-fold", fold_of), ("in-sample", (fold_of + 1) % len(checkpoints))):
        probs = probabilities(dataset, checkpoints, folds, args.flip)
        for name, scores in {**our_scores(probs, masks, args), **cleanlab_scores(probs, masks)}.items():
            figures.append({"teacher": kind, "score": name, "auroc": auroc(scores, noisy), "auprc": auprc(scores, noisy),
                            "spearman": spearman(scores, true)})
            values = (figures[-1][key] for key in ("auroc", "auprc", "spearman"))
            lines.append((kind, name, *("-" if value is None else f"{value:.3f}" for value in values)))
    keep(args.out, {"rows": len(rows), "noisy": int(noisy.sum()), "detectors": figures},
         {f"{len(rows)} masks, {noisy.sum()} noisy": table(("teacher", "score", "AUROC", "AUPRC", "Spearman"), lines)},
         ("cleanlab",) if any("cleanlab" in each["score"] for each in figures) else ())


if __name__ == "__main__":
    command_line(main)
