"""The leak into second teachers: how well they find noisy masks if the first ones saw the judged fold, and if not.

    python benchmarks/bench_leak.py --csv data/csv/people/train.csv --runs runs/leak --encoder-weights imagenet \\
        --out docs/results/leak_people.json

In each of --seeds, noise is drawn and the rows are split into three folds. Second teacher k judges fold k; the weights of its
training rows come from first teachers

- plain: trained on the two folds that they do not judge, fold k among them (train_teacher.py --rounds 2);
- nested: trained on the one fold that is neither judged nor k (--nested);
- leaking: trained on fold k alone: as many rows as nested, but every row leaks.

The figures are AUROC and AUPRC of finding noisy masks by BF between pseudo-labels and annotations. Interrupted trainings in
--runs continue; noise of other flags or masks there is refused. Flags that are not listed go to every training.
"""

from pathlib import Path

import numpy as np

from benchmarks.measure import keep, python, table
from benchmarks.training import add_training_flags, keep_settings, training_words
from cli.command_line import command_line, nonnegative_int, share, tool_parser
from cli.files import UserError, read_json, write_rows
from cli.flags import add_class_flag
from data.rows import pseudo_label_names, read_rows
from engine.run_folder import file_digest
from utils.ranking import auprc, auroc
from utils.scoring import score_pairs, score_rows

TITLES = {"first": "first round", "plain": "second round", "nested": "second round, nested",
          "leaking": "second round, weights by the judged fold alone"}


def noisy_csv(args, home, seed):
    """CSV of the noisy masks, drawn if they are not there; a UserError if those there are of other flags or of another CSV."""
    csv = home / "csv" / "noisy.csv"
    if csv.exists() and not (home / "settings.json").exists():
        raise UserError(f"{csv}: nothing says with which flags it was drawn; choose other --runs")
    keep_settings(home, {"csv": file_digest(args.csv), "ratio": args.ratio, "classes": args.num_classes},
                  "masks of another --csv, --ratio or --num-classes")
    if not csv.exists():
        python("utils/generate_noisy_label.py", "--csv", args.csv, "--out", csv, "--ratio", args.ratio, "--seed", seed,
               "--num-classes", args.num_classes)
    return csv


def teachers_of(args, home, seed, csv):
    """Train the teachers of all arms; dict of arm -> folders of pseudo-labels that hold all rows between them."""
    training = ["--folds", 3, *training_words(args, home, seed)]
    for name, flags in (("plain", []), ("nested", ["--nested"])):
        python("train_teacher.py", "--train_csv", csv, "--name", name, "--rounds", 2, *flags, *training)
    rows, folders = read_rows(csv), []
    for fold in range(3):
        train_csv, judged_csv = leaking_csvs(args, home, rows, fold)
        python("train_teacher.py", "--train_csv", train_csv, "--weighted", "--predict_csv", judged_csv, "--name",
               f"leaking{fold}", *training, "--folds", 1)
        folders.append(home / f"leaking{fold}" / "pseudo")
    return {"first": [home / "plain" / "round1" / "pseudo"], "plain": [home / "plain" / "pseudo"],
            "nested": [home / "nested" / "pseudo"], "leaking": folders}


def leaking_csvs(args, home, rows, fold):
    """CSVs for the second teacher of a fold: rows to learn, weighted by the teacher of that fold alone, and to judge."""
    record, names = read_json(home / "nested" / "teacher.json"), np.array(pseudo_label_names(rows))
    judged = np.isin(names, record["folds"][fold]["judges"])
    label = "-".join(str(other) for other in range(3) if other != fold)  # the two folds that this teacher did not train on
    files = [str(home / "nested" / "round1" / f"pseudo{label}" / name) for name in names[~judged]]
    taught = rows[~judged]
    weights = score_pairs(taught["mask"].tolist(), files, args.num_classes, "bf", args.theta, args.size)
    paths = [home / "csv" / f"{kind}{fold}.csv" for kind in ("leaking", "judged")]
    weights = weights if weights.any() else 1.0  # the judge found no outline: train without weights, as train_teacher does
    write_rows(paths[0], taught.assign(weight=weights), "weight")
    write_rows(paths[1], rows[judged])
    return paths


def figures_of(args, rows, folders):
    """AUROC and AUPRC of the pseudo-labels in some folders."""
    scores, names = np.empty(len(rows)), np.array(pseudo_label_names(rows))
    for folder in folders:
        there = np.array([(folder / name).exists() for name in names])
        scores[there] = score_rows(rows[there], folder, args.num_classes, "bf", args.theta, args.size)
    noisy = (rows["iterations"] > 0).to_numpy()
    return {"auroc": auroc(scores, noisy), "auprc": auprc(scores, noisy)}


def lines_of(found, seeds):
    """Lines of the table of all arms and seeds."""
    lines = []
    for arm, title in TITLES.items():
        aurocs, auprcs = ([each[key] for each in found if each["arm"] == arm] for key in ("auroc", "auprc"))
        lines.append((title, *(f"{value:.3f}" for value in (np.mean(aurocs), *aurocs, np.mean(auprcs)))))
    return table(("teachers", "AUROC, mean", *(f"seed {seed}" for seed in seeds), "AUPRC, mean"), lines)


def main():
    parser = tool_parser(__doc__, passes_on=True)
    parser.add_argument("--csv", required=True, help="clean training masks")
    parser.add_argument("--runs", required=True, help="folder of the trainings")
    parser.add_argument("--ratio", type=share, default=0.6, help="of noisy masks")
    parser.add_argument("--seeds", type=nonnegative_int, nargs="+", default=[0, 1, 2], help="of noise, folds and trainings")
    add_training_flags(parser, [96, 64], 1.5, 8)
    parser.add_argument("--out", required=True, help="JSON of what was measured")
    add_class_flag(parser)
    args, args.other = parser.parse_known_args()
    found = []
    for seed in args.seeds:
        home = Path(args.runs).resolve() / f"seed{seed}"
        csv = noisy_csv(args, home, seed)
        arms = teachers_of(args, home, seed, csv)
        found += [{"seed": seed, "arm": arm, **figures_of(args, read_rows(csv), folders)} for arm, folders in arms.items()]
        print(f"seed {seed}: " + ", ".join(f"{each['arm']} {each['auroc']:.3f}" for each in found[-len(arms):]), flush=True)
    keep(args.out, {"leak": found}, {f"{len(read_rows(args.csv))} masks": lines_of(found, args.seeds)})


if __name__ == "__main__":
    command_line(main)
