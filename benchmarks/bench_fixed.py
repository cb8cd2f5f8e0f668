"""How many corrected masks does a coarse data set need, which ones, and what else can be done with them?

    python benchmarks/bench_fixed.py --csv data/csv/faces/train.csv --truth data/csv/faces/train_truth.csv \\
        --test_csv data/csv/faces/test.csv --num-classes 6 --runs runs/fixed --out docs/results/faces_fixed.json

In each of --seeds and for each of --counts, so many coarse masks are exchanged for those of --truth: at random, or the worst
first, by the scores of one training with own weights. Then a network is trained without weights

- replaced: on all masks, the corrected ones among them;
- moved: the same, the others moved by the offsets that the corrected ones show (utils/calibrate_masks.py);
- then alone: first on all coarse masks, then the same network on the corrected ones alone, for as many epochs.

A control, coarse again, goes on with all coarse masks instead. Runs of other flags than those of a call are refused.

The figures are the last epoch's on --test_csv. Interrupted trainings in --runs continue. Flags that are not listed go to every
training.
"""

from pathlib import Path

import numpy as np

from benchmarks.measure import keep, python, table
from benchmarks.training import SCORES, add_training_flags, trained
from cli.command_line import command_line, nonnegative_int, positive_int, tool_parser
from cli.files import UserError, read_json, write_json, write_rows
from cli.flags import add_class_flag
from data.rows import read_rows
from engine import checkpoint
from engine.own_memory import RunningScores
from engine.run_folder import file_digest
from reports.comparison import difference

CONTROL = {"coarse again": "the coarse masks, and once more"}
RECIPES = {"replaced": "all masks, corrected ones among them", "moved": "the same, the others moved by the classes' offsets",
           "then alone": "first the coarse masks, then the corrected ones alone"}
COARSE = ("-", 0, "-")  # the cell of no corrected mask, see `cell_of`
ORDERS = ("random", "worst first")


def orders_of(args, home, rows, seed):
    """Positions of the rows, at random and the worst first by own scores; dict of order -> int (rows,)."""
    trained(args, home, "own", args.csv, seed, "--scores-only", script="train_with_own_weight.py")
    scores = RunningScores(len(rows))
    scores.load_state_dict(checkpoint.load(home / "own" / "last.ckpt")["memory"]["scores"])
    return dict(zip(ORDERS, (np.random.default_rng(seed).permutation(len(rows)), np.argsort(scores.means(), kind="stable"))))


def csvs_of(args, home, rows, truth, chosen, name):
    """CSVs of a choice of corrected masks: dict of recipe -> path."""
    fixed = rows.iloc[chosen].assign(mask=truth["mask"].iloc[chosen])
    paths = {recipe: home / "csv" / f"{name}_{recipe.replace(' ', '_')}.csv" for recipe in RECIPES}
    if not paths["then alone"].exists():
        write_rows(paths["then alone"], fixed)
    for recipe, flags in (("replaced", ["--no-offset"]), ("moved", [])):
        if not paths[recipe].exists():
            python("utils/calibrate_masks.py", "--csv", args.csv, "--fixed", paths["then alone"], "--out", paths[recipe],
                   "--num-classes", args.num_classes, "--theta", args.theta, *flags)
    return paths


def figures_of(args, home, rows, truth, seed):
    """All figures of a seed: list of dicts with `order`, `fixed`, `recipe` and the scores."""
    coarse = trained(args, home, "coarse", args.csv, seed)
    again = trained(args, home, "coarse_again", args.csv, seed, "--load", home / "coarse" / "last.ckpt")
    found = [{"seed": seed, "order": "-", "fixed": 0, "recipe": "-", **coarse},
             {"seed": seed, "order": "-", "fixed": 0, "recipe": "coarse again", **again},
             {"seed": seed, "order": "-", "fixed": len(rows), "recipe": "-", **trained(args, home, "clean", args.truth, seed)}]
    for order, positions in orders_of(args, home, rows, seed).items():
        for count in args.counts:
            name = f"{order.replace(' ', '_')}{count}"
            for recipe, csv in csvs_of(args, home, rows, truth, np.sort(positions[:count]), name).items():
                if recipe not in args.recipes:
                    continue
                load = ["--load", home / "coarse" / "last.ckpt"] if recipe == "then alone" else []
                scores = trained(args, home, f"{name}_{recipe.replace(' ', '_')}", csv, seed, *load)
                found.append({"seed": seed, "order": order, "fixed": count, "recipe": recipe, **scores})
                words = " / ".join(f"{100 * scores[score]:.1f}" for score in SCORES)
                print(f"seed {seed}, {count} {order}, {recipe}: {words}", flush=True)
    return found


def cell_of(figure):
    """What stands for a row of the table: (order, corrected masks, recipe)."""
    return figure["order"], figure["fixed"], figure["recipe"]


def cost_of(cell):
    """What a row of the table costs, in trainings: its own, the one that the network comes from, and the one that ranks."""
    order, _, recipe = cell
    return 1 + (recipe in ("then alone", *CONTROL)) + (order == "worst first")


def lines_of(found):
    """Lines of the table: each recipe's mean scores, and its differences to no corrected mask, paired by seed."""
    def of(score, *cell):
        return {each["seed"]: each[score] for each in found if cell_of(each) == cell}

    lines, cells = [], dict.fromkeys(map(cell_of, found))
    for cell in sorted(cells, key=lambda cell: (cell[1], cell[2], cell[0])):
        means = " / ".join(f"{100 * np.mean(list(of(score, *cell).values())):.1f}" for score in SCORES)
        gains = [difference(of(score, *cell), of(score, *COARSE)) if cell != COARSE else "-" for score in SCORES]
        lines.append((cell[1], {**RECIPES, **CONTROL}.get(cell[2], "all masks"), cell[0], cost_of(cell), means, *gains))
    return table(("corrected masks", "trained on", "which", "cost, trainings", "mIoU / BF", "Δ mIoU ± 95 %", "Δ BF ± 95 %"),
                 lines)


def refuse_other_flags(args):
    """Raise UserError if --runs holds trainings of other flags or files than this call's."""
    record = Path(args.runs) / "bench.json"
    now = {name: value for name, value in vars(args).items() if name not in ("counts", "recipes", "seeds", "out", "runs")}
    now["files"] = [file_digest(path) for path in (args.csv, args.truth, args.test_csv)]
    if record.exists() and read_json(record) != now:
        raise UserError(f"--runs {args.runs}: holds trainings of other flags or files; name another folder")
    write_json(record, now)


def main():
    parser = tool_parser(__doc__, passes_on=True)
    parser.add_argument("--csv", required=True, help="coarse training masks")
    parser.add_argument("--truth", required=True, help="the better masks of the same pictures, in the same order")
    parser.add_argument("--test_csv", required=True)
    parser.add_argument("--runs", required=True, help="folder of the trainings")
    parser.add_argument("--counts", type=positive_int, nargs="+", default=[5, 10, 20], help="of corrected masks")
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--seeds", type=nonnegative_int, nargs="+", default=[0, 1, 2], help="of the order and the trainings")
    add_training_flags(parser, [160, 112], 3.0, 30)
    parser.add_argument("--out", required=True, help="JSON of what was measured")
    add_class_flag(parser)
    args, args.other = parser.parse_known_args()
    rows, truth = read_rows(args.csv), read_rows(args.truth)
    if list(rows["image"]) != list(truth["image"]):
        raise UserError(f"{args.truth}: must name the pictures of {args.csv} in the same order")
    if max(args.counts) > len(rows):
        raise UserError(f"--counts {max(args.counts)}: {args.csv} has {len(rows)} rows")
    refuse_other_flags(args)
    found = []
    for seed in args.seeds:
        found += figures_of(args, Path(args.runs).resolve() / f"seed{seed}", rows, truth, seed)
    keep(args.out, {"fixed": found}, {f"{len(rows)} masks": lines_of(found)})


if __name__ == "__main__":
    command_line(main)
