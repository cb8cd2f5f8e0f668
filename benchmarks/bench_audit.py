"""How well an audit finds, names and measures planted faults, beside cleanlab, confident learning and a linter without a judge.

    python benchmarks/plant_faults.py --csv data/csv/people/all.csv --limit 480 --out data/csv/people/faults.csv
    python train_with_own_weight.py --train_csv data/csv/people/faults.csv --name people_judge --size 160 96 ...
    python benchmarks/bench_audit.py --csv data/csv/people/faults.csv --after runs/people_judge \\
        --out docs/results/audit_people.json

All methods but the linter get the same probabilities, those of --after, averaged over its training:

    audit                audit.py's score, at the masks' own size, as the tool does; also at the judge's size
    own weights          the training's own score of each mask, the mean BF over its epochs
    cleanlab softmin, num_pixel_issues     cleanlab.segmentation's two scores, at the judge's size
    confident learning   share of the pixels that utils/confident.py finds wrong, at the judge's size
    linter               how far area, number of components and length of the outline lie from the data set's medians

AUROC of a kind: masks with that fault against untouched ones; precision: share of faulty masks among the worst, as many as
faults were planted; Spearman: correlation with the true agreement (BFmIoU with the untouched mask), with
its 95 % interval by Fisher's z. Without planted faults,
--truth is a CSV of the same images with better masks, and Spearman alone is shown.
"""

import sys
import time

import cv2
import numpy as np
import pandas as pd

from benchmarks.confident_filter import without_ignored
from benchmarks.measure import keep, table
from cli.command_line import class_or_none, command_line, tool_parser
from cli.files import UserError, check_outputs
from cli.flags import add_class_flag
from data import IGNORE_INDEX
from data.csv_files import read_table
from data.pictures import read_mask, resize_labels
from data.rows import read_rows
from engine import checkpoint
from engine.annotation_audit import in_own_pixels, scene_at
from engine.judges import by_own_run, trust_of_run
from utils.agreement_cpu import agreement
from utils.confident import wrong_labels
from utils.get_weight import truth_masks
from utils.ranking import auprc, auroc, spearman, spearman_interval
from utils.verdict import inspect, settled, tempered

SURE_KINDS = {"polygon": "hasty", "markov": "hasty"}  # planted kind -> the audit's, where the names differ
TOLERANCE = 1  # px: an offset is right within it


def as_layers(chances):
    """Probabilities (N, H, W) of the foreground, or (N, C, H, W), as float32 (N, C, H, W)."""
    return np.stack([1 - chances, chances], 1) if chances.ndim == 3 else chances


def audited(rows, args, small=False):
    """(verdicts, CPU seconds per mask without reading files); `small`: at the judge's size."""
    verdicts, seconds = [], 0.0
    for path, chances in zip(rows["mask"], by_own_run(args.after, rows, args.num_classes)):
        labels = read_mask(path, args.num_classes)
        labels = resize_labels(labels, chances.shape[-2:]) if small else labels
        began = time.process_time()
        scene, scale = scene_at(labels, chances, args.background, None)
        verdicts.append(in_own_pixels(inspect(scene), scale))
        seconds += time.process_time() - began
    trust = trust_of_run(args.after).tolist()
    return [tempered(*pair, args.num_classes) for pair in zip(settled(verdicts), trust)], seconds / len(rows)


def cleanlab_scores(labels, probs):
    """(dict of cleanlab's methods -> float (N,), dict of seconds per mask); empty where it is not installed."""
    try:
        from cleanlab.segmentation.rank import get_label_quality_scores
    except ImportError:
        print("cleanlab is not installed, its scores are left out", file=sys.stderr)
        return {}, {}
    scores, seconds = {}, {}
    for method in ("softmin", "num_pixel_issues"):
        began = time.process_time()
        scores[f"cleanlab {method}"] = get_label_quality_scores(labels, probs, method=method, verbose=False, n_jobs=1)[0]
        seconds[f"cleanlab {method}"] = (time.process_time() - began) / len(labels)
    return scores, seconds


def confident_scores(labels, probs):
    """1 - the share of each mask's pixels that confident learning finds wrong, float (N,)."""
    pixels = np.moveaxis(probs, 1, -1).reshape(-1, probs.shape[1])
    return 1 - wrong_labels(pixels, labels.ravel()).reshape(len(labels), -1).mean(1)


def linted(rows, args):
    """How ordinary each mask is by its shape alone, float (N,), higher = more ordinary."""
    facts = []
    for path in rows["mask"]:
        labels = read_mask(path, args.num_classes)
        parts, length = 0, 0
        for c in set(np.unique(labels).tolist()) - {args.background, IGNORE_INDEX}:
            region = (labels == c).astype(np.uint8)
            outlines = cv2.findContours(region, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)[0]
            parts, length = parts + len(outlines), length + sum(map(len, outlines))
        area = float((labels != (0 if args.background is None else args.background)).mean())
        facts.append((area, parts, length / np.hypot(*labels.shape)))
    facts = np.array(facts)
    off = np.abs(facts - np.median(facts, 0))
    return -(off / (np.median(off, 0) + 1e-6 + 0.01 * np.ptp(facts, 0))).max(1)


def judged_inputs(rows, args):
    """What the others get, at the judge's size: (labels, int64 (N, H, W), without ignored pixels; probabilities, float32
    (N, C, H, W))."""
    probs = as_layers(np.stack(list(by_own_run(args.after, rows, args.num_classes))))
    labels = np.stack([resize_labels(read_mask(path, args.num_classes), probs.shape[-2:]) for path in rows["mask"]])
    return without_ignored(labels.astype(np.int64), probs), probs


def planted_truth(csv, listed):
    """The untouched masks that plant_faults.py names in a CSV; a UserError if it names none."""
    if "truth" not in listed:
        raise UserError(f"{csv}: has no column `truth`; name a CSV of plant_faults.py, or pass --truth with better masks")
    return listed["truth"]


def true_agreement(mask, truth, num_classes):
    """BFmIoU of a mask with its better one."""
    mask, truth = (read_mask(path, num_classes) for path in (mask, truth))
    return agreement(resize_labels(mask, truth.shape), truth, num_classes)


def own_scores(args):
    scores = checkpoint.load(f"{args.after}/last.ckpt")["memory"]["scores"]
    return (scores["sums"] / scores["counts"]).numpy()


def detection(scores, faults, true):
    """(figures of every method, lines of the table by kind)."""
    untouched, kinds = faults == "", sorted(set(faults) - {""})
    figures, lines = {}, []
    for name, values in scores.items():
        worst = np.argsort(values, kind="stable")[:int((~untouched).sum())]
        found = {"auroc": auroc(values, ~untouched), "auprc": auprc(values, ~untouched), "spearman": spearman(values, true),
                 "precision": float((~untouched)[worst].mean()) if len(worst) else None,
                 **{f"auroc {kind}": auroc(values[untouched | (faults == kind)], ~untouched[untouched | (faults == kind)])
                    for kind in kinds}}
        found["spearman_interval"] = interval = spearman_interval(found["spearman"], len(values))
        figures[name] = found
        lines.append([name, *(shown(found[f"auroc {kind}"]) for kind in kinds),
                      *(shown(found[key]) for key in ("auroc", "auprc", "precision", "spearman")),
                      "-" if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}"])
    return figures, [["score", *kinds, "all", "AUPRC", "precision", "Spearman", "its 95 % interval"], lines]


def shown(value):
    return "-" if value is None else f"{value:.3f}"


def confusion(verdicts, faults):
    """Lines of planted kinds (and untouched masks) against found ones."""
    found = [verdict.finding.kind if verdict.finding else "fine" for verdict in verdicts]
    counts = pd.crosstab(pd.Series(np.where(faults == "", "untouched", faults), name="planted"), pd.Series(found, name="found"))
    return [["planted", *counts.columns], [[kind, *map(str, line)] for kind, line in zip(counts.index, counts.to_numpy())]]


def offset_errors(verdicts, faults, offsets):
    """Errors of the offsets of moved masks, px, float (moved,)."""
    moved = np.flatnonzero(np.isin(faults, ["loose", "tight"]))
    return np.array([verdicts[k].finding.offset - offsets[k] for k in moved])


def main():
    parser = tool_parser(__doc__)
    parser.add_argument("--csv", required=True, help="CSV of plant_faults.py, or any with --truth")
    parser.add_argument("--truth", metavar="CSV", help="the same images with better masks")
    parser.add_argument("--after", required=True, metavar="RUN", help="run of train_with_own_weight.py on these rows")
    parser.add_argument("--background", type=class_or_none, default=0, metavar="CLASS|none")
    parser.add_argument("--out", required=True, help="JSON of the results")
    add_class_flag(parser)
    args = parser.parse_args()
    check_outputs([args.out], True, [args.csv])
    rows, listed = read_rows(args.csv), read_table(args.csv, None)
    faults = listed["fault"].fillna("").to_numpy(str) if "fault" in listed else np.full(len(rows), "")
    truth = truth_masks(args, rows) if args.truth else planted_truth(args.csv, listed)
    true = np.array([true_agreement(*pair, args.num_classes) for pair in zip(rows["mask"], truth)])
    verdicts, seconds = audited(rows, args)
    labels, probs = judged_inputs(rows, args)
    others, times = cleanlab_scores(labels, probs)
    small, small_seconds = audited(rows, args, small=True)
    scores = {"audit": np.array([verdict.score for verdict in verdicts]),
              "audit, judge's size": np.array([verdict.score for verdict in small]), "own weights": own_scores(args), **others,
              "confident learning": confident_scores(labels, probs), "linter": linted(rows, args)}
    figures, by_kind = detection(scores, faults, true)
    times = {"audit": seconds, "audit, judge's size": small_seconds, **times}
    tables = {f"{len(rows)} masks, {(faults != '').sum()} with a planted fault": table(*by_kind),
              "Masks per second of CPU time": table(("score", "masks/s"),
                                                   [(name, f"{1 / each:.0f}") for name, each in times.items()])}
    content = {"rows": len(rows), "scores": figures, "seconds": times}
    if (faults != "").any():
        tables["Planted kinds (lines) and kinds found"] = table(*confusion(verdicts, faults))
        errors = offset_errors(verdicts, faults, pd.to_numeric(listed["offset"]).to_numpy())
        content["offset_errors"] = errors.tolist()
        tables["Offsets of masks that are too loose or too tight"] = table(
            ("moved masks", "median error, px", "within 1 px", "within 2 px"),
            [(len(errors), f"{np.nanmedian(np.abs(errors)):.2f}",
              *(f"{100 * (np.abs(errors) <= limit * TOLERANCE).mean():.0f} %" for limit in (1, 2)))])
    keep(args.out, content, tables, ("cleanlab",) if others else ())


if __name__ == "__main__":
    command_line(main)
