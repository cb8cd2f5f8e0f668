"""Teachers whose pseudo-labels judge the annotations, out-of-fold: no teacher judges a mask it was fitted on.

The rows are split at random into K folds; teacher k trains, with weight 1, on all folds but the k-th and then predicts the
k-th. A teacher that is asked about its own training masks has learnt their noise by heart and finds them fine.

    python train_teacher.py --train_csv data/csv/train_noisy_60.csv --valid_csv data/csv/valid_noisy_60.csv --name teacher \\
        --model smp_unet --encoder resnet34 --encoder-weights imagenet --folds 3

leaves one run per fold, runs/teacher/fold0 ..., the pseudo-labels of all rows in runs/teacher/pseudo, and
runs/teacher/teacher.json, which says who judged what. With --folds 1 one teacher trains on all of --train_csv and
predicts --predict_csv (default: the same rows, which only suits a teacher trained on other data).
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from data.command_line import command_line, positive_int
from data.dataset import pseudo_label_names, read_rows
from data.files import UserError, write_json, write_rows
from utils import run_folder
from utils.checkpoint import load_network
from utils.engine import run, start_fabric
from utils.options import train_parser
from utils.prediction import predict
from utils.weighting import uniform


def assign_folds(images, folds, seed):
    """The fold that judges each row: int (rows,), 0..folds-1, as many images in each within one.

    Rows of one image go together, or a teacher would judge a picture that it has been trained on.
    """
    codes, distinct = pd.factorize(images)
    return (np.random.default_rng(seed).permutation(len(distinct)) % folds)[codes]


def weigh(logits, batch, epoch):
    """w_i = 1, (B,): a teacher learns from the annotations as they are."""
    return [uniform(batch["weight"])]


def main():
    parser = train_parser(__doc__)
    parser.add_argument("--folds", type=positive_int, default=2, help="teachers; each judges the rows it never saw")
    parser.add_argument("--predict_csv", "--predict-csv", metavar="CSV", help="with --folds 1: rows to predict")
    args = parser.parse_args()
    rows = read_rows(args.train_csv)
    if args.predict_csv and args.folds > 1:
        raise UserError("--predict_csv needs --folds 1; with more folds each teacher predicts its own fold of --train_csv")
    if args.folds > rows["image"].nunique():
        raise UserError(f"--folds {args.folds}: more folds than images ({rows['image'].nunique()}) in {args.train_csv}")

    home = Path(args.out_dir) / args.name
    run_folder.check(args, home)
    if args.resume and (home / "teacher.json").exists():
        print(f"{home}: finished already, nothing to do")
        return
    judged = read_rows(args.predict_csv) if args.predict_csv else rows
    names = pseudo_label_names(judged)
    fold_of = assign_folds(judged["image"], args.folds, args.seed)
    csvs = [home / "folds" / f"train{k}.csv" if args.folds > 1 else Path(args.train_csv) for k in range(args.folds)]
    fabric = start_fabric(args)
    if fabric.is_global_zero:
        run_folder.open_new(args, home)
        for fold, csv in enumerate(csvs if args.folds > 1 else []):
            write_rows(csv, rows[fold_of != fold])
    fabric.barrier()

    record = []
    for fold, csv in enumerate(csvs):
        settings = argparse.Namespace(**{**vars(args), "train_csv": str(csv), "name": f"{args.name}/fold{fold}"})
        result = run(settings, weigh)
        checkpoint, held_out = home / f"fold{fold}" / "best.ckpt", fold_of == fold
        judges = [name for name, held in zip(names, held_out) if held]
        record.append({"checkpoint": str(checkpoint), "trained_on": str(csv), "valid": result["valid"], "judges": judges})
        if fabric.is_global_zero:
            predict(fabric, *load_network(checkpoint), judged[held_out], judges, home / "pseudo", args.batch_size, args.workers)
    if fabric.is_global_zero:
        write_json(home / "teacher.json", {"csv": args.predict_csv or args.train_csv, "out_of_fold": args.folds > 1,
                                           "folds": record})
        print(f"{len(set(names))} pseudo-labels in {home / 'pseudo'}")
    fabric.barrier()


if __name__ == "__main__":
    command_line(main)
