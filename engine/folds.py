"""Out-of-fold teachers: rows are split into folds, and each fold is judged by a network that never saw its masks."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cli.files import write_json, write_rows
from cli.lazy import lightning_fabric, sklearn_model_selection, torch
from data.file_memory import file_memory
from data.rows import pseudo_label_names
from data.samples import checked_size
from engine import run_folder
from engine.cache_memory import check_cache
from engine.checkpoint import load_network
from engine.devices import start_fabric
from engine.loaders import build_loaders, worker_count
from engine.loop import run
from engine.networks import build_state
from engine.prediction import predict
from engine.task import check_files, read_splits, segmentation_bytes
from utils.agreement import METRICS
from utils.judge import weakness
from utils.scoring import score_pairs, score_rows
from utils.weighting import uniform


def assign_folds(images: pd.Series, folds: int, seed: int) -> np.ndarray:
    """Assign each row to the fold that judges it. The rows of one image share a fold, so no teacher judges an image it knows.

    Args:
        images: path of each row's image.
        folds: number of folds, at most as many as there are images.

    Returns:
        int (rows,) of 0..folds-1; the folds differ by one image at most.
    """
    fold_of = np.zeros(len(images), int)
    if folds > 1:
        parts = sklearn_model_selection.GroupKFold(folds, shuffle=True, random_state=seed).split(images, groups=images)
        for fold, (_, judged) in enumerate(parts):
            fold_of[judged] = fold
    return fold_of


def weigh_alike(logits: list[torch.Tensor], batch: dict, epoch: int) -> list[torch.Tensor]:
    """w_i = 1, (B,): the teachers of the first round learn every annotation alike."""
    return [uniform(batch["weight"])]


def weigh_by_csv(logits: list[torch.Tensor], batch: dict, epoch: int) -> list[torch.Tensor]:
    """w_i of the CSV, (B,): the teachers of a later round use the weights from the round before."""
    return [batch["weight"]]


def check_teachers(args: argparse.Namespace, fabric: lightning_fabric.Fabric, rows: pd.DataFrame, fold_of: np.ndarray,
                   judged: pd.DataFrame) -> None:
    """Check, before a folder is made, everything that the first teacher's run and the prediction check.

    Args:
        rows, judged: DataFrames of `read_rows`, to train on and to predict.
        fold_of: see `train_round`.

    Raises:
        UserError: a file, a flag or a network is refused.
    """
    splits = read_splits(args, args.weighted)
    uncached = argparse.Namespace(**{**vars(args), "cache": False})
    check_files(uncached, splits)
    memory = file_memory()
    for image in [] if judged is rows else judged["image"]:
        checked_size(image, memory)
    memory.save()
    if args.folds > 1:
        splits["train"] = rows[fold_of != 0]
    if args.cache:
        check_cache(args, splits, segmentation_bytes)
    build_state(args, fabric, rows=len(splits["train"]))
    build_loaders(uncached, splits, fabric)


def train_and_judge(args: argparse.Namespace, home: Path, rows: pd.DataFrame, judged: pd.DataFrame) -> None:
    """Train the teachers of all rounds and folds, write their pseudo-labels and teacher.json.

    Args:
        home: folder of the run.
        rows, judged: DataFrames of `read_rows`, to train on and to predict.
    """
    names = pseudo_label_names(judged)
    fold_of = assign_folds(judged["image"], args.folds, args.seed)
    fabric = start_fabric(args)
    check_teachers(args, fabric, rows, fold_of, judged)
    fabric.barrier()  # every process has found the folder free before the first one writes to it
    if fabric.is_global_zero:
        run_folder.open_run(args, home, {"train": rows})
    fabric.barrier()

    columns = ["image", "mask", *["weight"] * args.weighted]
    taught: Any = rows[columns] if args.folds > 1 else None  # one teacher is trained on the CSV as it is
    rounds, weights = [], None
    for number in range(1, args.rounds + 1):
        folder = home if number == args.rounds else home / f"round{number}"
        if args.nested and number == 1:
            record, weights = nested_round(args, fabric, folder, taught, fold_of, names)
            weights = learnable(weights, fold_of)
        else:
            record = train_round(args, fabric, folder, taught, fold_of, judged, names, weights)
            if number < args.rounds:
                scores = score_rows(taught, folder / "pseudo", args.num_classes, "all", args.theta, args.size)  # (rows, 3)
                weights = learnable(np.tile(scores[:, METRICS.index(args.metric)], (args.folds, 1)), fold_of)
                fault = weakness(dict(zip(METRICS, scores.mean(0))))
                if fault and fabric.is_global_zero:
                    print(f"round {number}: {fault}; more epochs may do better than another round")
        rounds.append(record)
    if fabric.is_global_zero:
        write_json(home / "teacher.json", {"csv": args.predict_csv or args.train_csv, "out_of_fold": args.folds > 1,
                                           "nested": args.nested, "model": args.model, "encoder": args.encoder,
                                           "folds": rounds[-1], "earlier_rounds": rounds[:-1]})
        print(f"{len(set(names))} pseudo-labels in {home / 'pseudo'}")
    fabric.barrier()


def learnable(weights: np.ndarray, fold_of: np.ndarray) -> np.ndarray:
    """Replace the weights of a teacher whose training rows all weigh 0 by 1; it could learn nothing.

    That happens where no pseudo-label finds an outline.

    Args:
        weights: float (folds, rows).
        fold_of: int (rows,).

    Returns:
        float (folds, rows).
    """
    nothing = [not row[fold_of != fold].any() for fold, row in enumerate(weights)]
    if any(nothing):
        print(f"all weights of {sum(nothing)} of {len(weights)} teachers are 0, since no pseudo-label finds an outline; "
              "these teachers learn without weights")
    return np.where(np.array(nothing)[:, None], 1.0, weights)


def train_round(args: argparse.Namespace, fabric: lightning_fabric.Fabric, home: Path, rows: pd.DataFrame | None,
                fold_of: np.ndarray, judged: pd.DataFrame, names: Sequence[str],
                weights: np.ndarray | None = None) -> list[dict[str, Any]]:
    """Train one teacher per fold on the other folds' rows, and write the pseudo-labels of all judged rows.

    Args:
        args: flags of `train_parser`, the same for each teacher.
        home: folder of the round, inside --out-dir; gets fold0/, fold1/, ..., folds/ (their CSVs) and pseudo/.
        rows: training rows, DataFrame of `read_rows`; their `weight`, if any, counts. None: one teacher, trained on
            --train_csv as it is.
        fold_of: int (judged rows,).
        judged: rows to predict; with several folds, the training rows.
        names: file name of each judged row's pseudo-label.
        weights: float (folds, rows), of the rows for each fold's teacher; None: those of `rows`, if any.

    Returns:
        list, a dict per fold: the teacher's checkpoint, its training CSV, its validation scores, the names of the
        pseudo-labels that it writes.
    """
    record = []
    for fold in range(fold_of.max() + 1):
        taught = rows if rows is None or weights is None else rows.assign(weight=weights[fold])
        record.append(train_one(args, fabric, home, str(fold), taught, fold_of == fold, judged, names, home / "pseudo"))
    fabric.barrier()
    return record


def train_one(args: argparse.Namespace, fabric: lightning_fabric.Fabric, home: Path, label: str, rows: pd.DataFrame | None,
              held_out: np.ndarray, judged: pd.DataFrame, names: Sequence[str], pseudo_dir: Path) -> dict[str, Any]:
    """Train a teacher on the rows that are not held out, and write its pseudo-labels of the held-out ones; see `train_round`.

    Args:
        label: of the teacher within its round; part of its folder's name.
        held_out: bool (judged rows,).
    """
    csv, weighted = Path(args.train_csv), args.weighted if rows is None else "weight" in rows
    if rows is not None:
        csv = home / "folds" / f"train{label}.csv"
        if fabric.is_global_zero:
            write_rows(csv, rows[~held_out], *["weight"] * weighted)
        fabric.barrier()
    name = (home / f"fold{label}").relative_to(args.out_dir)
    settings = argparse.Namespace(**{**vars(args), "train_csv": str(csv), "name": str(name)})
    result = run(settings, weigh_by_csv if weighted else weigh_alike, needs_weights=weighted)
    checkpoint = home / f"fold{label}" / "best.ckpt"
    judges = [name for name, is_judged in zip(names, held_out) if is_judged]
    if fabric.is_global_zero:
        predict(fabric, *load_network(checkpoint), judged[held_out], judges, pseudo_dir, args.batch_size,
                worker_count(args, fabric), args.flip)
    return {"checkpoint": str(checkpoint), "trained_on": str(csv), "weighted": weighted,
            "training_rows": result["rows"]["train"], "valid": result["valid"], "judges": judges}


def nested_round(args: argparse.Namespace, fabric: lightning_fabric.Fabric, home: Path, rows: pd.DataFrame, fold_of: np.ndarray,
                 names: Sequence[str]) -> tuple[list[dict[str, Any]], np.ndarray]:
    """The first of two rounds, nested: no weight of a second teacher depends on the fold that this teacher will judge.

    For each two folds j and k a teacher trains on the others. Its pseudo-labels of fold j give the weights with which second
    teacher k learns fold j, and those of fold k the weights with which second teacher j learns fold k. Arguments as of
    `train_round`; pseudo-labels stand in home/pseudoJ-K.

    Returns:
        (a dict per pair, as `train_round` gives; float (folds, rows): weights for each second teacher, NaN on its own fold)
    """
    folds, record = fold_of.max() + 1, []
    weights = np.full((folds, len(rows)), np.nan)
    for pair in itertools.combinations(range(folds), 2):
        label, held_out = "{}-{}".format(*pair), np.isin(fold_of, pair)
        pseudo_dir = home / f"pseudo{label}"
        record.append(train_one(args, fabric, home, label, rows, held_out, rows, names, pseudo_dir))
        fabric.barrier()
        for own, other in (pair, pair[::-1]):
            judged = fold_of == other
            files = [str(pseudo_dir / name) for name, is_judged in zip(names, judged) if is_judged]
            weights[own, judged] = score_pairs(rows["mask"][judged].tolist(), files, args.num_classes, args.metric, args.theta,
                                               args.size)
    return record, weights
