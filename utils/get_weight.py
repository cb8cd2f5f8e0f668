"""Weights: how well each annotation agrees with a teacher's pseudo-label, as a CSV that the train scripts read.

    python utils/get_weight.py --csv data/csv/train_noisy_60.csv --pred-dir runs/teacher/pseudo --metric bm \\
        --out data/csv/train_noisy_60_teacher_weight_bmscore.csv

    python utils/get_weight.py --csv data/csv/train_noisy_60.csv --pred-dir runs/teacher/pseudo --metric miou bf bm \\
        --out weight_miouscore.csv weight_bfscore.csv weight_bmscore.csv

    python utils/get_weight.py --mix A_weight_bmscore.csv B_weight_bmscore.csv --out AB_weight_bmscore.csv

    python utils/get_weight.py --csv data/csv/train_noisy_60.csv --pred-dir runs/teacher/pseudo --metric bf --sharpen \\
        --out sharp_bfscore.csv

    python utils/get_weight.py --csv data/csv/train_noisy_60.csv --known 0.5 --out known.csv

    python utils/get_weight.py --csv data/csv/train.csv --pred-dir sam_masks --pred-name "{stem}_mask.png" \\
        --out data/csv/train_sam_weight_bmscore.csv

    python utils/get_weight.py --csv data/csv/faces/train.csv --pred-dir runs/teacher/pseudo --num-classes 6 --metric bf \\
        --truth data/csv/faces/train_truth.csv --out data/csv/faces/train_weight_bfscore.csv

The teacher may be any model: --pred-dir is the folder of its masks (label maps, as the annotations are), --pred-name the
pattern of their names.

This tool scores every row by mIoU, BF or their mean (bm; paper, eq. 5), in one pass by several of them, or averages the weights
of several teachers row by row (--mix), or gives a fixed weight to masks that are known to be noisy (--known; paper, Table 1; 0
drops them, as a control).

If the CSV has a column `iterations` (noise levels), the summary shows how well the weights find noisy masks. AUROC: 1 = every
clean mask weighs more than every noisy one, 0.5 = chance. AUPRC: average precision of noisy masks when rows are sorted by
weight, lowest first. With better masks of the same images (--truth), it shows Spearman's correlation between the weights and
the annotations' true agreement with those masks.

One line shows the judge's mean agreement with the annotations, the mean weight, and the effective share of the rows,
(sum w)^2 / (n sum w^2). The JSON beside --out holds these values and all flags; the train scripts read it. --sharpen gives
every row the weight 1 in three cases: the judge hardly agrees (see utils/judge.py), less than a tenth of the rows would
count, or the scores form one group.

On several machines score one part in each of N jobs, then join them (reports/score_in_parts.py does both on a Dask scheduler's
workers). --sharpen and --truth go with --join, for they need all rows; parts of several metrics are joined one --out at a time:

    python utils/get_weight.py --csv train.csv --pred-dir pseudo --out weight.csv --shard 3/8        (I = 1 ... 8)
    python utils/get_weight.py --join --out weight.csv
"""

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cli.command_line import command_line, nonnegative_int, positive_int, refuse_given, shard, share, tool_parser
from cli.files import UserError, check_outputs, read_json, together, write_json, write_rows
from cli.flags import add_class_flag, add_score_flags
from data.rows import OWN_NAMES, read_rows
from utils.agreement import METRICS
from utils.judge import mean_agreement, mixed_origin, outlined, read_origin, sharp_rows, weight_facts
from utils.ranking import spearman, summarise
from utils.scoring import score_pairs, score_rows

SCORING = ("csv", "pred_dir", "pred_name", "metric", "num_classes", "theta", "size")  # flags that all parts of one job share


def mixed_rows(csvs: Sequence[Path | str]) -> pd.DataFrame:
    """Rows of the first CSV with the mean weight of all.

    Raises:
        UserError: the CSVs do not hold the same rows in the same order.
    """
    tables = [read_rows(csv, needs_weights=True) for csv in csvs]
    for csv, table in zip(csvs[1:], tables[1:]):
        if files_of(table) != files_of(tables[0]):
            raise UserError(f"--mix {csv}: holds other rows, or another order, than {csvs[0]}")
    return tables[0].assign(weight=np.mean([table["weight"] for table in tables], axis=0))


def files_of(rows: pd.DataFrame, *columns: str) -> list[list[str]]:
    """Absolute paths of the rows' files, by default of images and masks; equal for equal files in any spelling."""
    return [[os.path.abspath(path) for path in rows[column]] for column in columns or ("image", "mask")]


def true_scores(args: argparse.Namespace, rows: pd.DataFrame) -> np.ndarray:
    """The annotations' true agreement with --truth's masks by all METRICS, float (rows, 3) in 0..1.

    Raises:
        UserError: --truth holds other images than the rows, or another order.
    """
    return score_pairs(rows["mask"].tolist(), truth_masks(args, rows), args.num_classes, "all", args.theta, args.size,
                       args.workers)


def truth_masks(args: argparse.Namespace, rows: pd.DataFrame) -> list[str]:
    """The masks of --truth, list of str; a UserError if it holds other images than the rows, or another order."""
    truth = read_rows(args.truth)
    if files_of(truth, "image") != files_of(rows, "image"):
        raise UserError(f"--truth {args.truth}: holds other images, or another order, than the scored rows")
    return truth["mask"].tolist()


def part_path(out: Path | str, number: object, count: object) -> Path:
    """File of the `number`-th of `count` parts: out.csv -> out.part2of8.csv."""
    return Path(out).with_suffix(f".part{number}of{count}.csv")


def joined_rows(args: argparse.Namespace) -> tuple[pd.DataFrame, dict]:
    """Rows with their weights from the parts of --out that --shard left beside it, and the mean agreement of their judge; sets
    the flags they were scored with.

    Raises:
        UserError: parts are missing, were scored unlike, or hold other rows than their CSV.
    """
    out = Path(args.out)
    pattern = re.escape(out.stem) + r"\.part\d+of\d+\.csv"
    parts = sorted(path for path in out.parent.glob("*.csv") if re.fullmatch(pattern, path.name))
    counts = {path.stem.rpartition("of")[2] for path in parts}
    if len(counts) != 1:
        raise UserError(f"--join: {len(parts)} parts named {part_path(out, 'I', 'N')}"
                        + (f", of {' and of '.join(sorted(counts))}; remove those of other jobs" if parts else ""))
    count = int(counts.pop())
    missing = [number for number in range(1, count + 1) if part_path(out, number, count) not in parts]
    if missing:
        raise UserError(f"--join: {len(missing)} of {count} parts are missing, first --shard {missing[0]}/{count}")
    settings = [{flag: read_json(path.with_suffix(".json"), *SCORING)[flag] for flag in SCORING} for path in parts]
    for path, other in zip(parts, settings):
        if other != settings[0]:
            raise UserError(f"{path}: scored with {other}, but {parts[0].name} with {settings[0]}")
    vars(args).update(settings[0])
    rows = read_rows(args.csv)
    weights, judged = np.empty(len(rows)), []
    for number in range(1, count + 1):
        part, scored = slice(number - 1, None, count), read_rows(part_path(out, number, count), needs_weights=True)
        if files_of(scored) != files_of(rows[part]):
            raise UserError(f"{part_path(out, number, count)}: holds other rows than {args.csv}; score it again")
        weights[part] = scored["weight"]
        judged.append((read_origin(part_path(out, number, count)).get("agreement"), len(scored)))
    return rows.assign(weight=weights), {"agreement": mean_agreement(*zip(*judged))}


def each_output(args: argparse.Namespace) -> list[argparse.Namespace]:
    """The flags of each --out alone, with its own --metric."""
    return [argparse.Namespace(**{**vars(args), "metric": metric, "out": out}) for metric, out in zip(args.metric, args.out)]


def weighted_rows(outputs: Sequence[argparse.Namespace]) -> list[tuple[pd.DataFrame, dict]]:
    """For each output its rows with their weights, mixed, joined or scored, as the flags say; and facts about their judge for
    the JSON. One pass over the files scores them for all outputs."""
    args = outputs[0]
    if args.mix:
        return [(mixed_rows(args.mix), mixed_origin(args.mix))]
    if args.join:
        rows, facts = joined_rows(args)
        fitted = outlined(rows["mask"].tolist(), args.num_classes) if args.sharpen else None
        return [(rows if fitted is None else sharp_rows(args, rows, facts, fitted), facts)]
    rows = read_rows(args.csv, needs_levels=args.known is not None)
    if args.known is not None:
        return [(rows.assign(weight=np.where(rows["iterations"] > 0, args.known, 1.0)), {})]
    if args.shard and args.shard[1] > len(rows):
        raise UserError(f"--shard {args.shard[0]}/{args.shard[1]}: {args.csv} has only {len(rows)} rows; take fewer parts")
    part = slice(args.shard[0] - 1, None, args.shard[1]) if args.shard else slice(None)
    scores = score_rows(rows, args.pred_dir, args.num_classes, "all", args.theta, args.size, args.workers, part,
                        args.pred_name)  # (rows, 3)
    fitted = outlined(rows["mask"][part].tolist(), args.num_classes) if args.sharpen else None
    found = [scored_rows(each, rows[part], scores, fitted) for each in outputs]
    if not args.size:
        print("scored at each annotation's own size; a KD run scores its student at its training size, see --size")
    return found


def scored_rows(args: argparse.Namespace, rows: pd.DataFrame, scores: np.ndarray,
                fitted: np.ndarray | None) -> tuple[pd.DataFrame, dict]:
    """Rows with their weights by --metric, and facts about their judge.

    Args:
        scores: by all METRICS, float (rows, 3); fitted: with --sharpen, see `sharp_rows`.
    """
    facts: dict = {"agreement": dict(zip(METRICS, scores.mean(0).tolist()))}
    rows = rows.assign(weight=scores[:, METRICS.index(args.metric)])
    return (rows if fitted is None else sharp_rows(args, rows, facts, fitted)), facts


def summary_path(out: Path | str) -> Path:
    """File of the summary, beside a CSV of weights."""
    return Path(out).with_suffix(".json")


def check_written(outputs: Sequence[argparse.Namespace], *inputs: str) -> None:
    """Raise UserError if an --out or its summary cannot be written, or would replace an input or a file of another tool."""
    args, outs = outputs[0], [each.out for each in outputs]
    besides = list(map(summary_path, outs))
    for out, beside in zip(outs, besides):
        if beside == Path(out):
            raise UserError(f"--out {out}: the summary goes there; give the CSV another suffix, such as .csv")
    read = [args.csv, args.truth, *(args.mix or []), *inputs]
    check_outputs(outs, args.overwrite, read)
    check_outputs(besides, True, read)  # an old summary without its weights may be replaced
    for out, beside in zip(outs, besides):
        if beside.exists() and not _is_summary(beside, out):
            raise UserError(f"{beside}: exists and is not the summary of {out}; choose another --out")


def _is_summary(path: Path, out: Path | str) -> bool:
    try:
        return Path(read_json(path, "out", "levels")["out"]).name == Path(out).name
    except (UserError, TypeError):
        return False


def weight_parser() -> argparse.ArgumentParser:
    """The parser of this tool's flags."""
    parser = tool_parser(__doc__)
    parser.add_argument("--csv", help="rows to score: images and their annotations")
    parser.add_argument("--pred-dir", help="folder of the teacher's pseudo-labels, or of another model's masks")
    parser.add_argument("--pred-name", default=OWN_NAMES, metavar="PATTERN", help="how files in --pred-dir are named, such as "
                        "{stem}_mask.png or {stem}*.png; {stem} is the image's name without its suffix")
    parser.add_argument("--metric", choices=METRICS, nargs="+", default=["bm"],
                        help="mIoU, BF, or their mean (default: bm); several, each with an --out, read the files once")
    parser.add_argument("--sharpen", action="store_true", help="weigh by the probability of being one of the good annotations, "
                        "from a mixture of two groups fitted to the scores")
    parser.add_argument("--weak-judge", choices=("even", "use"), default="even", help="weights of --sharpen if the teachers "
                        "hardly agree with the annotations: even = all 1; use = sharpened nevertheless")
    parser.add_argument("--truth", metavar="CSV", help="the same rows with better masks, to see how well the weights rank")
    parser.add_argument("--mix", nargs="+", metavar="CSV", help="average the weights of these CSVs instead")
    parser.add_argument("--known", type=share, metavar="W", help="instead: noisy masks (by `iterations`) weigh W, others 1")
    parser.add_argument("--out", required=True, nargs="+", metavar="CSV", help="CSV with a third column `weight`; one for each "
                        "--metric, in the same order")
    parser.add_argument("--size", type=positive_int, nargs=2, metavar=("H", "W"),
                        help="score at this size, px; use the student's training size (default: each annotation's own)")
    parser.add_argument("--workers", type=nonnegative_int, default=0,
                        help="scoring processes; 0 = this one, which reads ahead; 1 = this one, on one thread")
    parser.add_argument("--shard", type=shard, metavar="I/N", help="score every N-th row from the I-th, into a part of --out")
    parser.add_argument("--join", action="store_true", help="put the parts of --out together")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing --out")
    add_class_flag(parser)
    add_score_flags(parser)
    return parser


def check_flags(args: argparse.Namespace) -> None:
    """Raise UserError if the flags contradict one another."""
    by_truth = args.known is not None
    if [bool(args.mix), args.join, bool(args.csv and args.pred_dir), bool(args.csv and by_truth)].count(True) != 1:
        raise UserError("pass --csv and --pred-dir (score), --mix (average), --join (parts of one), or --csv and --known")
    if len(args.metric) != len(args.out):
        raise UserError(f"--metric {' '.join(args.metric)}: needs an --out for each, in the same order; there "
                        f"{'is' if len(args.out) == 1 else 'are'} {len(args.out)}")
    if len(args.out) > 1 and (args.mix or args.join or by_truth):
        raise UserError("--metric, --out: several go with --csv and --pred-dir; average, join or --known one at a time")
    if args.sharpen and (args.shard or not (args.pred_dir or args.join)):
        raise UserError("--sharpen goes with --csv and --pred-dir, or with --join: it needs the scores of all rows")
    if args.shard and (args.mix or args.join or args.truth or by_truth):
        raise UserError("--shard goes with --csv and --pred-dir; pass --truth to --join")


def write_weights(outputs: Sequence[argparse.Namespace], found: Sequence[tuple[pd.DataFrame, dict]],
                  true: np.ndarray | None) -> None:
    """Write the rows with their weights to each --out and its summary beside it, all of them or none, and print the summaries.

    Args:
        found: of each output, see `weighted_rows`.
        true: see `true_scores`; None without --truth.
    """
    texts = []
    with together() as written_at:
        for args, (rows, judge) in zip(outputs, found, strict=True):
            facts, line = weight_facts(rows["weight"].to_numpy(), judge.get("agreement"))
            summary, text = summarise(rows)
            if true is not None:
                rank = spearman(rows["weight"].to_numpy(), true[:, METRICS.index(args.metric)])
                summary["spearman"] = rank
                if rank is not None:
                    text += f"\nSpearman, weight ranks as the true agreement ({args.metric}) does: {rank:.3f}"
            write_json(written_at(summary_path(args.out)), {"out": args.out, **vars(args), **summary, **judge, **facts})
            write_rows(written_at(args.out), rows, "weight", *["iterations"] * ("iterations" in rows))
            texts.append(f"{args.out}: weights of {len(rows)} rows\n{line}\n{text}")
    print("\n".join(texts))


def main() -> None:
    parser = weight_parser()
    args = parser.parse_args()
    check_flags(args)
    refuse_given(parser, args, set(SCORING) if args.join else set(), "is that of the parts, leave it out")
    if args.shard:  # --join will write these files
        check_outputs(args.out, True, [args.csv])
        args.out = [str(part_path(out, *args.shard)) for out in args.out]
    outputs = each_output(args)
    check_written(outputs)
    if args.truth and args.csv:
        truth_masks(args, read_rows(args.csv))  # refuses a wrong --truth before hours of scoring
    found = weighted_rows(outputs)
    rows = found[0][0]
    check_written(outputs, *rows["image"], *rows["mask"])  # again: --join knows only now which CSV was scored
    write_weights(outputs, found, true_scores(outputs[0], rows) if args.truth else None)


if __name__ == "__main__":
    command_line(main)
