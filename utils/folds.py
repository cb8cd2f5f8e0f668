"""Out-of-fold teachers: rows are split into folds, and each fold is judged by a network that never saw its masks."""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from data.files import write_rows
from data.pictures import check_image
from utils.building import build_state
from utils.checkpoint import load_network
from utils.engine import check_files, read_splits, run
from utils.loaders import build_loaders, check_cache, worker_count
from utils.prediction import predict
from utils.weighting import uniform


def assign_folds(images, folds, seed):
    """The fold that judges each row: int (rows,), 0..folds-1, as many images in each within one.

    Rows of one image go together, or a teacher would judge a picture that it has been trained on.
    """
    codes, distinct = pd.factorize(images)
    return (np.random.default_rng(seed).permutation(len(distinct)) % folds)[codes]


def weigh_alike(logits, batch, epoch):
    """w_i = 1, (B,): a first teacher learns from the annotations as they are."""
    return [uniform(batch["weight"])]


def weigh_by_csv(logits, batch, epoch):
    """w_i of the CSV, (B,): a later teacher trusts them as far as the one before did."""
    return [batch["weight"]]


def check_teachers(args, fabric, rows, fold_of, judged):
    """Raise UserError for what the first teacher's run, or the prediction, would refuse: before a folder is made.

    Args:
        rows, judged: DataFrames of `read_rows`, to train on and to predict.
        fold_of: see `train_round`.
    """
    splits = read_splits(args, args.weighted)
    check_files(args, splits)
    for image in [] if judged is rows else judged["image"]:
        check_image(image)
    if args.folds > 1:
        splits["train"] = rows[fold_of != 0]
    if args.cache:
        check_cache(args, fabric, splits)
    build_state(args, fabric, rows=len(splits["train"]))
    build_loaders(argparse.Namespace(**{**vars(args), "cache": False}), splits, fabric)


def train_round(args, fabric, home, rows, fold_of, judged, names):
    """Train one teacher per fold on the other folds' rows, and write the pseudo-labels of all judged rows.

    Args:
        args: flags of `train_parser`; they stand for each teacher.
        home: folder of the round, inside --out-dir; gets fold0/, fold1/, ..., folds/ (their CSVs) and pseudo/.
        rows: training rows, DataFrame of `read_rows`; their `weight`, if any, counts. None: one teacher, trained on
            --train_csv as it is.
        fold_of: int (judged rows,).
        judged: rows to predict; with several folds, the training rows.
        names: file name of each judged row's pseudo-label.

    Returns:
        list, a dict per fold: checkpoint, what it was trained on, its validation scores, what it judges.
    """
    weighted = args.weighted if rows is None else "weight" in rows
    record = []
    for fold in range(fold_of.max() + 1):
        csv, held_out = Path(args.train_csv), fold_of == fold
        if rows is not None:
            csv = home / "folds" / f"train{fold}.csv"
            if fabric.is_global_zero:
                write_rows(csv, rows[~held_out], *["weight"] * weighted)
            fabric.barrier()
        name = (home / f"fold{fold}").relative_to(args.out_dir)
        settings = argparse.Namespace(**{**vars(args), "train_csv": str(csv), "name": str(name)})
        result = run(settings, weigh_by_csv if weighted else weigh_alike, needs_weights=weighted)
        checkpoint = home / f"fold{fold}" / "best.ckpt"
        judges = [name for name, held in zip(names, held_out) if held]
        record.append({"checkpoint": str(checkpoint), "trained_on": str(csv), "weighted": weighted,
                       "training_rows": result["rows"]["train"], "valid": result["valid"], "judges": judges})
        if fabric.is_global_zero:
            predict(fabric, *load_network(checkpoint), judged[held_out], judges, home / "pseudo", args.batch_size,
                    worker_count(args, fabric), args.flip)
    fabric.barrier()
    return record
