"""Do teachers judge or mend coarse masks better if they see them? Out-of-fold teachers with and without a label channel.

    python benchmarks/bench_label_assisted.py --csv data/csv/people/train.csv --runs runs/label_assisted --size 160 96 \\
        --encoder-weights imagenet --out docs/results/lad_assisted_people.json

In each of --seeds, noise is drawn, and the rows are split into folds; a teacher of each fold trains on the others' noisy masks:

- image: it sees images alone (train_teacher.py);
- longer: it goes on from there for as many epochs again, still with images alone (train_without_weight.py);
- assisted: as longer, but with the noisy mask as label channel (related/lad/train_lad_teacher.py): it judges a mask that it
  sees, which is also what it must predict, so it may learn to repeat it. An epoch has two draws of each image;
- blind: the same teacher, with zeros in the place of the mask;
- mending: as assisted, but in training the channel shows each mask made coarser once more, so that it learns to undo that.

AUROC: how well BF between prediction and mask finds the noisy masks. Spearman: of that BF with the masks' true agreement
(BFmIoU with the untouched ones). BF, mIoU: of the predictions with the untouched masks. Differences to `image` and to `longer`
are taken seed by seed; those to `longer` leave longer training out of what the label channel brings, though an assisted epoch
has two draws, and so twice the passes. Finished trainings in --runs are kept.
Flags that are not listed go to every training, and those of the machine (--accelerator, --precision ...) to predictions, too.
"""

import argparse
from pathlib import Path

import numpy as np

from benchmarks.measure import keep, python, table
from benchmarks.training import add_training_flags, keep_settings, training_words
from cli.command_line import command_line, nonnegative_int, positive_int, share, tool_parser
from cli.files import read_json, write_rows
from cli.flags import add_class_flag
from data.rows import pseudo_label_names, read_rows
from engine.flags import add_device_flags
from engine.run_folder import file_digest
from reports.comparison import paired_difference
from utils.ranking import auroc, spearman
from utils.scoring import score_pairs

ARMS = {"image": "image alone", "longer": "image alone, as many epochs as those below", "assisted": "image and mask",
        "blind": "the same, without the mask", "mending": "image and mask, trained on coarser ones"}
COARSER_SEED = 1000  # is added to a seed for the masks that are made coarser once more
FIGURES = {"auroc": "AUROC", "spearman": "Spearman", "bf": "BF, true", "miou": "mIoU, true"}


def noisy_csvs(args, home, seed):
    """(CSV of the noisy masks, folder of masks that are coarser still)."""
    noisy, coarser = home / "csv" / "noisy.csv", home / "csv" / "coarser.csv"
    coarser_seed = seed + COARSER_SEED
    keep_settings(home, {"csv": file_digest(args.csv), "ratio": args.ratio, "classes": args.num_classes,
                         "coarser_seed": coarser_seed},
                  "masks of another --csv, --ratio or --num-classes, or of an earlier version")
    for source, out, ratio, drawn in ((args.csv, noisy, args.ratio, seed), (noisy, coarser, 1, coarser_seed)):
        if not out.exists():
            python("utils/generate_noisy_label.py", "--csv", source, "--out", out, "--ratio", ratio, "--seed", drawn,
                   "--num-classes", args.num_classes)
    return noisy, coarser.with_suffix("")


def machine_words(other):
    """Those of a training's words that a prediction knows, too: --accelerator, --precision and so on."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    add_device_flags(parser)
    found, _ = parser.parse_known_args(list(map(str, other)))
    return [word for flag, value in vars(found).items() if value is not None for word in (f"--{flag}", value)]


def image_teachers(args, home, csv, training):
    """Train the teachers of images alone; a dict per fold: `checkpoint`, `trained_on` (CSV), `judges` (names)."""
    python("train_teacher.py", "--train_csv", csv, "--name", "image", "--folds", args.folds, *training)
    return read_json(home / "image" / "teacher.json", "folds")["folds"]


def judged_csv(home, rows, number, fold):
    """The CSV of the rows that a fold's teacher judges."""
    csv = home / "csv" / f"judged{number}.csv"
    write_rows(csv, rows[np.isin(pseudo_label_names(rows), fold["judges"])])
    return csv


def longer_predictions(args, home, rows, folds, training):
    """Train each fold's teacher of images alone for as many epochs again, and predict the rows that it judges."""
    for number, fold in enumerate(folds):
        name = f"longer{number}"
        python("train_without_weight.py", "--train_csv", fold["trained_on"], "--load", fold["checkpoint"], "--name", name,
               *training)
        python("predict.py", "--checkpoint", home / name / "last.ckpt", "--csv", judged_csv(home, rows, number, fold),
               "--out-dir", home / "longer" / "pseudo", "--overwrite", *machine_words(args.other))


def assisted_predictions(args, home, rows, folds, training, arm, more):
    """Train the label-assisted teachers of an arm, and predict each fold's rows with and without their masks."""
    for number, fold in enumerate(folds):
        name = f"{arm}{number}"
        python("related/lad/train_lad_teacher.py", "--train_csv", fold["trained_on"], "--load", fold["checkpoint"], "--name",
               name, *more, *training)
        judged = judged_csv(home, rows, number, fold)
        for codes, folder in (("own", arm), ("zero", f"{arm}_blind")):
            python("related/lad/predict_lad_teacher.py", "--checkpoint", home / name / "last.ckpt", "--csv", judged,
                   "--eval-codes", codes, "--out-dir", home / folder / "pseudo", "--overwrite", *machine_words(args.other))


def figures_of(args, rows, truth, folder):
    """The figures of the predictions in a folder, see FIGURES."""
    files = [str(folder / name) for name in pseudo_label_names(rows)]

    def scores(masks, others, metric):
        return score_pairs(masks.tolist(), others, args.num_classes, metric, args.theta, args.size)

    trust, true = scores(rows["mask"], files, "bf"), scores(truth["mask"], rows["mask"].tolist(), "bm")
    noisy = (rows["iterations"] > 0).to_numpy()
    return {"auroc": auroc(trust, noisy), "spearman": spearman(trust, true),
            **{metric: float(np.nanmean(scores(truth["mask"], files, metric))) for metric in ("bf", "miou")}}


def measure_seed(args, seed):
    """The figures of all arms at a seed: a list of dict."""
    home = Path(args.runs).resolve() / f"seed{seed}"
    csv, coarser = noisy_csvs(args, home, seed)
    training = ["--schedule", "poly", *training_words(args, home, seed)]
    rows, truth = read_rows(csv), read_rows(args.csv)
    folds = image_teachers(args, home, csv, training)
    longer_predictions(args, home, rows, folds, training)
    assisted_predictions(args, home, rows, folds, training, "assisted", [])
    assisted_predictions(args, home, rows, folds, training, "mending", ["--channel-dir", coarser])
    folders = {"image": "image", "longer": "longer", "assisted": "assisted", "blind": "assisted_blind", "mending": "mending"}
    return [{"seed": seed, "arm": arm, **figures_of(args, rows, truth, home / folder / "pseudo")}
            for arm, folder in folders.items()]


def lines_of(found):
    """Lines of the table: the mean of each figure over the seeds, and its range."""
    lines = []
    for arm, title in ARMS.items():
        cells = []
        for key in FIGURES:
            values = [each[key] for each in found if each["arm"] == arm]
            cells.append("-" if None in values else f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})")
        lines.append((title, *cells))
    return table(("the teacher sees", *FIGURES.values()), lines)


def difference_lines(found, base):
    """Lines of the table of the arms' differences to the arm `base`, seed by seed, with 95 % intervals (Student's t)."""
    def by_seed(arm, key):
        return {each["seed"]: each[key] for each in found if each["arm"] == arm and each[key] is not None}

    def cell(arm, key):
        mean, half, _ = paired_difference(by_seed(arm, key), by_seed(base, key))
        return "-" if mean is None else f"{mean:+.3f}" + (f" ± {half:.3f}" if half is not None else "")

    return table(("the teacher sees", *(f"{title} ± 95 %" for title in FIGURES.values())),
                 [(title, *(cell(arm, key) for key in FIGURES)) for arm, title in ARMS.items() if arm != base])


def main():
    parser = tool_parser(__doc__, passes_on=True)
    parser.add_argument("--csv", required=True, help="untouched training masks")
    parser.add_argument("--runs", required=True, help="folder of the trainings")
    parser.add_argument("--ratio", type=share, default=0.6, help="of noisy masks")
    parser.add_argument("--seeds", type=nonnegative_int, nargs="+", default=[0, 1, 2], help="of noise, folds and trainings")
    parser.add_argument("--folds", type=positive_int, default=3)
    add_training_flags(parser, [160, 96], 3, 10)
    parser.add_argument("--out", required=True, help="JSON of what was measured")
    add_class_flag(parser)
    args, args.other = parser.parse_known_args()
    found = []
    for seed in args.seeds:
        found += measure_seed(args, seed)
        print(f"seed {seed}: " + ", ".join(f"{each['arm']} {each['bf']:.3f}" for each in found[-len(ARMS):]), flush=True)
    tables = {f"{len(read_rows(args.csv))} masks, {len(args.seeds)} seeds": lines_of(found)}
    tables.update((f"Difference to {ARMS[base]}", difference_lines(found, base)) for base in ("longer", "image"))
    keep(args.out, {"assisted": found}, tables)


if __name__ == "__main__":
    command_line(main)
