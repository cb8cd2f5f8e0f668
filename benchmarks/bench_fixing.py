"""What fixing masks brings, worst first against at random: the labels' and the models' mIoU and BF against masks fixed.

    python benchmarks/bench_fixing.py --csv data/csv/people/faults.csv --ranking runs/audit_people/ranking.csv \\
        --test_csv data/csv/people/fixing_test.csv --runs runs/fixing_people --out docs/results/audit_people_fixing.json \\
        --size 160 96 --epochs 8 ...

A mask is fixed by its untouched one, the column `truth` of plant_faults.py. Labels: mean agreement of all masks with the
untouched ones; at random it is the mean over all orders. Models: trainings without weights on --rows of the rows, drawn at
random in each of --seeds, the same ones for each training of the seed; tested on --test_csv at the last epoch. Differences are
paired, seed by seed, with 95 % intervals (Student's t). Flags that are not listed go to the trainings.
A second call does only what is missing; runs of other flags or masks are refused.
"""

from pathlib import Path

import numpy as np

from benchmarks.bench_audit import planted_truth
from benchmarks.measure import keep, table
from benchmarks.training import SCORES, add_training_flags, trained
from cli.command_line import command_line, nonnegative_int, positive_int, share, tool_parser
from cli.files import UserError, check_outputs, counted, progress, write_rows
from cli.flags import add_class_flag
from data.csv_files import read_table
from data.pictures import read_mask, resize_labels
from data.rows import read_rows
from reports.comparison import difference
from utils.agreement_cpu import agreement


def label_scores(rows, args):
    """mIoU and BF of each mask with its untouched one, float (rows, 2)."""
    found = []
    for line in progress(rows.itertuples(), "scoring", len(rows), "mask"):
        mask, truth = (read_mask(path, args.num_classes) for path in (line.mask, line.truth))
        found.append(agreement(resize_labels(mask, truth.shape), truth, args.num_classes, "all", args.theta)[:2])
    return np.array(found)


def label_curve(scores, order, shares):
    """Mean mIoU and BF of the labels when shares of them are fixed: two (shares, 2), worst first and the mean of all orders."""
    worst, chance = [], []
    for each in shares:
        left = scores.copy()
        left[order[:round(each * len(order))]] = 1
        worst.append(left.mean(0))
        chance.append(each + (1 - each) * scores.mean(0))
    return np.array(worst), np.array(chance)


def model_curve(args, rows, ranked, seed):
    """dict of kind and share -> mIoU and BF on the test rows, of models on rows that are drawn by a seed.

    Args:
        ranked: positions of all rows, worst first.
    """
    drawn = np.sort(np.random.default_rng(seed).permutation(len(rows))[:args.rows])
    inside = {row: position for position, row in enumerate(drawn)}
    order = np.array([inside[row] for row in ranked if row in inside])
    rows = rows.iloc[drawn].reset_index(drop=True)
    home, found, scores_of = Path(args.runs).resolve() / f"seed{seed}", {}, {}  # the latter by the training's name
    for kind, chosen in (("worst", order), ("random", np.random.default_rng(seed).permutation(len(order)))):
        for each in args.shares:
            count = round(each * len(order))
            name = f"{kind}{100 * each:g}" if count else "none"
            if name not in scores_of:  # without fixed masks both orders are one training
                fixed = np.isin(np.arange(len(rows)), chosen[:count])
                csv = home / f"{name}.csv"
                write_rows(csv, rows.assign(mask=np.where(fixed, rows["truth"], rows["mask"])))
                scores_of[name] = trained(args, home, name, csv, seed)
            found[f"{kind}{100 * each:g}"] = [scores_of[name][score] for score in SCORES]
    return found


def model_lines(models, shares):
    """Lines of the models' table: means over the seeds, and the paired difference of BF between the two orders.

    Args:
        models: dict of seed -> `model_curve`.
    """
    lines = []
    for each in shares:
        worst, chance = ({seed: found[f"{kind}{100 * each:g}"] for seed, found in models.items()}
                         for kind in ("worst", "random"))
        lines.append((f"{100 * each:g} %", *(percent(np.mean(list(found.values()), 0)) for found in (worst, chance)),
                      difference(*({seed: pair[1] for seed, pair in found.items()} for found in (worst, chance)))))
    return lines


def ranked_rows(args, rows):
    """Positions of the rows, worst first, as the ranking has them.

    Raises:
        UserError: it is no ranking of these rows, or a mask has two rows, in it or in the CSV.
    """
    masks, ranked = ([Path(mask).resolve() for mask in table["mask"]] for table in (rows, read_rows(args.ranking)))
    for source, paths in ((args.csv, masks), (f"--ranking {args.ranking}", ranked)):
        check_distinct(source, paths)
    place = {path: position for position, path in enumerate(masks)}
    if len(ranked) != len(masks) or any(path not in place for path in ranked):
        raise UserError(f"--ranking {args.ranking}: ranks {len(ranked)} masks, which are not the {len(masks)} of {args.csv}; "
                        "audit that CSV")
    return np.array([place[path] for path in ranked])


def check_distinct(source, paths):
    """Raise UserError if a path occurs twice; rows are numbered as a spreadsheet shows them."""
    first = {}
    for row, path in enumerate(paths, 2):
        if first.setdefault(path, row) != row:
            raise UserError(f"{source}: rows {first[path]} and {row} have the same mask, {path}; remove one of them")


def percent(pair):
    return f"{100 * pair[0]:.1f} / {100 * pair[1]:.1f}"


def main():
    parser = tool_parser(__doc__, passes_on=True)
    parser.add_argument("--csv", required=True, help="CSV of plant_faults.py")
    parser.add_argument("--ranking", required=True, help="ranking.csv of an audit of these rows")
    parser.add_argument("--test_csv", help="rows with good masks; without them only labels are measured")
    parser.add_argument("--rows", type=positive_int, default=160, help="that models are trained on")
    parser.add_argument("--shares", type=share, nargs="+", default=[0, 0.05, 0.1, 0.2, 0.5], help="of the masks that are fixed")
    parser.add_argument("--runs", default="runs/fixing", help="folder of the trainings")
    parser.add_argument("--seeds", type=nonnegative_int, nargs="+", default=[0, 1, 2],
                        help="of the drawn rows, the random order, the trainings")
    parser.add_argument("--out", required=True, help="JSON of the results")
    add_class_flag(parser)
    add_training_flags(parser, [160, 96], 3.0, 8)
    args, args.other = parser.parse_known_args()
    check_outputs([args.out], True, [args.csv, args.ranking])
    rows = read_rows(args.csv).reset_index(drop=True)
    rows["truth"] = planted_truth(args.csv, read_table(args.csv, None)).to_numpy()
    ranked = ranked_rows(args, rows)
    scores = label_scores(rows, args)
    worst, chance = label_curve(scores, ranked, args.shares)
    titles = ("masks fixed", "worst first", "at random")
    lines = [(f"{100 * each:g} %", percent(a), percent(b)) for each, a, b in zip(args.shares, worst, chance)]
    tables = {f"Labels, mIoU / BF, % ({len(rows)} masks)": table(titles, lines)}
    content = {"shares": args.shares, "labels": {"worst": worst.tolist(), "random": chance.tolist()}}
    if args.test_csv:
        content["models"] = {seed: model_curve(args, rows, ranked, seed) for seed in args.seeds}
        counts = f"{min(args.rows, len(rows))} masks, {counted(len(args.seeds), 'seed')}"
        tables[f"Models, mIoU / BF, % ({counts})"] = table((*titles, "difference of BF ± 95 %"),
                                                           model_lines(content["models"], args.shares))
    keep(args.out, content, tables)


if __name__ == "__main__":
    command_line(main)
