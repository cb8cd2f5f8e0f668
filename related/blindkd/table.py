"""Compare Blind Knowledge Distillation with its baselines: accuracy, and how well wrong labels are found.

    bash run.sh blindkd                                           digits, three types of noise, seeds 0 1 2
    bash run.sh blindkd --noise worst --val_ratio 0 --name digits_all_rows
    bash run.sh blindkd --data data/csv/cifar10n --noise worst aggre rand1 --size 32 32 --shift 4 --mirror --epochs 30 \\
        --batch-size 128 --lr-step 15 --encoder mobilenet_v2 --encoder-weights imagenet --features-size 128 128

Rows: cross-entropy without a method, Co-teaching, BlindKD, its ablation without the mask, a linear classifier on frozen
features (train_on_features.py), and cross-entropy on the true labels. A share of the noisy rows, --val_ratio, is kept out of
the training of networks and chooses the best epoch of each; the linear classifier has all rows. Each seed draws new noise
for the digits; with --data it changes the split and the training alone.

Finished runs are skipped, broken ones go on; other flags need another --name. Leaves --out/NAME/table.json and table.md;
--json FILE prints the tables of such a file again.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from cli.command_line import (
    command_line,
    nonnegative_int,
    positive_int,
    seed_number,
    share,
    side_length,
    tool_parser,
)
from cli.files import UserError, counted, read_json
from data.classification import read_class_names
from engine.run_folder import inside
from models import CLASSIFIERS
from related.blindkd.comparison_plan import DETECTING, TITLES, Cell
from related.blindkd.flags import PUBLISHED
from related.blindkd.noisy_set import wrong_labels
from reports.comparison import difference, spread
from reports.comparison_files import run_and_write
from reports.plan import Job
from reports.workers import add_worker_flags, workers_of
from utils.metrics import markdown_table
from utils.ranking import auroc, precision_recall_f1

RANDOM_DRAWS = 100  # of as many random flags
Cells = dict[tuple[str, int, str], Job]  # by noise, seed, row


def parse() -> argparse.Namespace:
    parser = tool_parser(__doc__)
    parser.add_argument("--json", metavar="FILE", help="print the tables of a table.json; runs nothing")
    parser.add_argument("--data", metavar="DIR", help="folder of train_NOISE.csv, train_clean.csv, test.csv (default: digits)")
    parser.add_argument("--noise", nargs="+", default=["worst", "aggre", "rand1"],
                        help="types: worst, rand1, aggre, symmetric for digits; else names of train_NOISE.csv in --data")
    parser.add_argument("--seeds", type=seed_number, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", choices=tuple(TITLES), default=list(TITLES))
    add_worker_flags(parser, jobs=2)
    parser.add_argument("--out", default="runs/blindkd", help="where the runs of all tables are kept")
    parser.add_argument("--name", help="folder in --out (default: digits, or the name of --data)")
    parser.add_argument("--val_ratio", "--val-ratio", type=share, default=PUBLISHED["val_ratio"],
                        help="share of the rows that validates")
    parser.add_argument("--forget-rate", type=share, help="Co-teaching's (default: the noise's own share of wrong labels)")
    parser.add_argument("--model", default="small_cnn", choices=CLASSIFIERS)
    parser.add_argument("--size", type=side_length, nargs=2, default=[8, 8], metavar=("H", "W"), help="training size, px")
    parser.add_argument("--shift", type=nonnegative_int, default=1, help="px that training pictures move at most")
    parser.add_argument("--mirror", action="store_true", help="mirror training pictures at random")
    parser.add_argument("--epochs", type=positive_int, default=100)
    parser.add_argument("--batch-size", type=positive_int, default=64)
    parser.add_argument("--lr-step", type=positive_int, default=50, help="epochs until the learning rate is a tenth")
    parser.add_argument("--encoder", default="pixels", help="encoder of the row `features`")
    parser.add_argument("--encoder-weights", default="none", metavar="imagenet|none|FILE")
    parser.add_argument("--features-size", type=side_length, nargs=2, metavar=("H", "W"), help="size of the row `features`, px")
    args = parser.parse_args()
    args.home = inside(args.out, args.name or (Path(args.data).name if args.data else "digits"))
    if "ce" not in args.rows:
        raise UserError("--rows: needs ce, with which all others are compared")
    if args.forget_rate is not None and len(args.noise) > 1:
        raise UserError(f"--forget-rate {args.forget_rate:g}: goes with one --noise, whose share of wrong labels it is")
    return args


# --- figures ----------------------------------------------------------------------------------------------------


def accuracies(job: Job, row: str) -> dict[str, float | None]:
    """Test accuracy of a finished row, in 0..1: `last` epoch, and the `best` one by noisy validation, None without it; of a
    pair, also `teacher` and `student`, each alone at the last epoch."""
    if row in ("blindkd", "unmasked"):
        told = read_json(job.result.with_name("learning.json"), "best", "last")
        result = read_json(job.result.with_name("result.json"), "valid")
        return {"last": told["last"]["both"], "best": told["best"]["both"] if result["valid"] else None,
                **{name: told["last"][name] for name in ("teacher", "student")}}
    result = read_json(job.result, "test", "test_last", "valid")
    chosen = result["valid"] and row != "features"
    return {"last": result["test_last"][0]["accuracy"], "best": result["test"][0]["accuracy"] if chosen else None}


def detections(cell: Cell, job: Job, row: str) -> dict:
    """How well a row finds the wrong labels: `precision`, `recall`, `f1`, `auroc`; of BlindKD also its baselines:
    random flags, all rows below the cut, all rows."""
    names = read_class_names(cell.csv)
    wrong = wrong_labels(cell.csv, cell.truth, names or [])
    if row == "features":
        folder = job.result.parent
        flags, scores = np.load(folder / "flags.npy"), _probabilities(folder / "scores.csv")
        return {**precision_recall_f1(flags, wrong), "auroc": auroc(scores, wrong)}
    told = read_json(job.result, "precision", "recall", "f1", "auroc", "all", "below_cut")
    flags = np.load(job.result.with_name("detection.npy"))
    numbers = np.random.default_rng(cell.seed)
    chance = [precision_recall_f1(numbers.permutation(flags), wrong)["f1"] or 0.0 for _ in range(RANDOM_DRAWS)]
    return {**{key: told[key] for key in ("precision", "recall", "f1", "auroc")}, "below_cut_f1": told["below_cut"]["f1"],
            "all_f1": told["all"]["f1"], "random_f1": float(np.mean(chance))}


def _probabilities(scores: Path) -> np.ndarray:
    return pd.read_csv(scores)["probability"].to_numpy()


def collect(args: argparse.Namespace, jobs: Cells) -> dict:
    """What the tables show, of finished jobs, JSON-ready: noise -> row -> seed -> figures."""
    found: dict = {}
    for (noise, seed, row), job in jobs.items():
        cell = Cell(args, noise, seed, {})
        figures: dict = {"accuracy": accuracies(job, row)}
        if row in DETECTING:
            figures["detection"] = detections(cell, job, row)
        seconds = read_json(job.result.with_name("result.json"), "seconds")["seconds"]
        found.setdefault(noise, {}).setdefault(row, {})[str(seed)] = {**figures, "seconds": seconds}
    first = next(iter(jobs.values())).result.with_name("result.json")
    kept = {flag: value for flag, value in vars(args).items() if flag not in ("home", "json", "out")}
    kept["data"] = args.data and Path(args.data).name  # no path of this machine
    kept["encoder_weights"] = Path(args.encoder_weights).name
    return {"args": kept, "machine": read_json(first, "machine")["machine"], "noise": found}


# --- text -------------------------------------------------------------------------------------------------------


def title_of(row: str, encoder: str) -> str:
    """What the reader sees of a row; the linear classifier's names what it reads."""
    on_pixels = row == "features" and encoder == "pixels"
    return "linear classifier on the pixels" if on_pixels else TITLES[row].format(encoder=encoder)


def accuracy_table(rows: dict, encoder: str) -> str:
    """Accuracy of each row of a noise type, and its difference to cross-entropy at the last epoch."""
    last = {row: {int(seed): each["accuracy"]["last"] for seed, each in seeds.items()} for row, seeds in rows.items()}
    lines = []
    for row, seeds in rows.items():
        best = spread([each["accuracy"]["best"] for each in seeds.values()])
        seconds = f"{np.mean([each['seconds'] for each in seeds.values()]):.0f}"
        lines.append([title_of(row, encoder), spread(list(last[row].values())), best,
                      "-" if row == "ce" else difference(last[row], last["ce"]), seconds])
        for name in ("teacher", "student"):
            alone = {int(seed): each["accuracy"].get(name) for seed, each in seeds.items()}
            if None not in alone.values():
                lines.append([f"{title_of(row, encoder)}, its {name} alone", spread(list(alone.values())), "-",
                              difference(alone, last["ce"]), "-"])
    return markdown_table(["accuracy, %", "last epoch ± sd", "best epoch by noisy validation ± sd", "last epoch - CE ± 95 %",
                           "seconds of training"], lines)


def pair_table(rows: dict) -> str:
    """Paired differences of BlindKD to its ablation and to Co-teaching, where these rows are there; else nothing."""
    def of(row: str, *keys: str) -> dict:
        found = {}
        for seed, value in rows.get(row, {}).items():
            for key in keys:
                value = value.get(key, {})
            found[int(seed)] = value
        return found

    pairs = [("accuracy, last epoch: BlindKD - unmasked", "unmasked", ("accuracy", "last")),
             ("F1 of wrong labels: BlindKD - unmasked", "unmasked", ("detection", "f1")),
             ("accuracy, last epoch: BlindKD - Co-teaching", "co_teaching", ("accuracy", "last"))]
    lines = [[title, difference(of("blindkd", *keys), of(other, *keys))] for title, other, keys in pairs
             if rows.get("blindkd", {}).keys() & rows.get(other, {}).keys()]
    return markdown_table(["paired over the seeds", "points ± 95 %"], lines) if lines else ""


def detection_table(rows: dict, encoder: str) -> str:
    """How well each detecting row finds the wrong labels, and what flagging by chance, by the cut or all gives."""
    found = {row: [each["detection"] for each in seeds.values()] for row, seeds in rows.items() if row in DETECTING}
    lines = [[title_of(row, encoder), *(spread([each[key] for each in seeds])
                                           for key in ("precision", "recall", "f1", "auroc"))]
             for row, seeds in found.items()]
    chance = found.get("blindkd") or found.get("unmasked")
    for key, title in (("below_cut_f1", "all scores below the cut"), ("random_f1", "as many flags at random"),
                       ("all_f1", "every label flagged")):
        if chance:
            lines.append([title, "-", "-", spread([each[key] for each in chance]), "-"])
    return markdown_table(["wrong labels found, %", "precision ± sd", "recall ± sd", "F1 ± sd", "AUROC ± sd"], lines)


def text_of(content: dict) -> str:
    """All tables of a table.json as Markdown."""
    parts, encoder = [], content["args"]["encoder"]
    for noise, rows in content["noise"].items():
        if not rows.get("ce"):
            raise UserError(f"noise {noise}: there is no row ce, with which the others are compared")
        parts += [f"Noise `{noise}`, {counted(len(rows['ce']), 'seed')}", accuracy_table(rows, encoder), pair_table(rows)]
        parts += [detection_table(rows, encoder)] if set(rows) & set(DETECTING) else []
    return "\n\n".join([part for part in parts if part] + [reading_note(content)])


def reading_note(content: dict) -> str:
    """What a reader of the tables must know, as one paragraph."""
    ratio = content["args"]["val_ratio"]
    chosen = ", the others choose the best epoch" if ratio else ""
    return (f"Networks train on {100 * (1 - ratio):g} % of the rows{chosen}. The linear classifier has all rows and no epochs. "
            "Cross-entropy is one network, Co-teaching the first of two, BlindKD the sum of both networks' logits. Seconds are "
            "those of trainings beside others on the same machine.")


def main() -> None:
    args = parse()
    if args.json:
        content = read_json(args.json, "noise", "args")
        missing = [flag for flag in ("encoder", "val_ratio") if flag not in content["args"]]
        if missing:
            raise UserError(f"{args.json}: its `args` lack {' and '.join(missing)}; it is not a table.json of this script")
        print(text_of(content))
        return
    shared: dict[Path, Job] = {}
    jobs: Cells = {(noise, seed, row): Cell(args, noise, seed, shared).job(row)
                   for noise in args.noise for seed in args.seeds for row in args.rows}
    run_and_write(args.home, jobs.values(), workers_of(args), lambda: collect(args, jobs), text_of)


if __name__ == "__main__":
    command_line(main)
