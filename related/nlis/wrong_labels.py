"""Which class labels of instances are wrong? Each is judged by a detector that never saw its picture.

    python related/nlis/wrong_labels.py --train_csv data/coco/train_sn40.json --name trust --folds 2 --epochs 12 --size 96 96

The pictures are split into folds. For each fold a detector is trained on the others (flags of train_nlis.py); it looks at the
given boxes of its fold, and the trust in a label is the probability of the given class among all classes of objects,
p_y / (1 - p_background). Crowds are judged too. Leaves in --out-dir/NAME: scores.csv (annotation, image_id, given, predicted,
trust; in the order of the JSON), weights.json (the JSON with `weight`, the trust in each annotation, for train_nlis.py
--weighted) and the folds' runs. --truth, a JSON with the true labels, is read at the end alone: how well low trust finds the
wrong ones.
"""

from __future__ import annotations

import argparse
import os
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cli.command_line import command_line, positive_int
from cli.files import UserError, atomic_path, progress, read_json, write_json
from cli.lazy import torch
from data.coco_text import CocoText, is_coco
from data.instances import InstanceDataset
from data.transforms import normalised
from engine import lock
from engine.devices import start_fabric
from engine.folds import assign_folds
from engine.instances import INSTANCES, load_detector
from engine.loop import run
from engine.run_folder import inside
from related.nlis.flags import nlis_parser, parse
from related.nlis.objective import RobustLoss, SetCounts
from utils.ranking import auprc, auroc


def judged_by(network: torch.nn.Module, config: dict, rows: pd.DataFrame, device: Any, batch_size: int) -> pd.DataFrame:
    """What a detector says of the instances of rows: DataFrame of `id`, `predicted` (category id) and `trust`.

    Args:
        network, config: of `load_detector`.
        rows: of `read_instances`.
    """
    network, found = network.to(device).eval(), []
    dataset, ids = InstanceDataset(rows, config["size"]), np.array(config["category_ids"])
    instances = rows["instances"].tolist()
    for start in progress(range(0, len(dataset), batch_size), "judging", unit="batch"):
        indices = list(range(start, min(start + batch_size, len(dataset))))
        batch = dataset.__getitems__(indices)
        boxes = [each["boxes"].to(device) for each in batch["targets"]]
        chances: Any = network.probabilities(normalised(batch["image"].to(device)), boxes)  # type: ignore[operator]
        for index, each in zip(indices, chances):
            labels = [one["label"] for one in instances[index]]
            objects = each[:, 1:].cpu().numpy().astype(float)  # (n, K)
            trust = trust_of(objects, np.array(labels, int) - 1)
            found.append(pd.DataFrame({"id": [one["id"] for one in instances[index]], "trust": trust,
                                       "predicted": ids[objects.argmax(1)] if len(labels) else []}))
    return pd.concat(found, ignore_index=True)


def trust_of(objects: np.ndarray, given: np.ndarray) -> np.ndarray:
    """The probability of the given class among the classes of objects, (n,).

    Args:
        objects: probabilities (n, K) without that of the background; a row's sum may be small.
        given: class numbers 0..K-1, (n,).
    """
    totals = objects.sum(1).clip(min=np.finfo(float).tiny)
    return objects[np.arange(len(given)), given] / totals


def train_fold(args: Namespace, rows: pd.DataFrame, held_out: np.ndarray, fold: int) -> Path:
    """Train on the rows that are not held out; the checkpoint."""
    settings = Namespace(**{**vars(args), "name": f"{args.name}/fold{fold}", "valid_csv": None, "test_csv": None})
    task = replace(INSTANCES, rows=lambda args: {"train": rows[~held_out]})
    counts = SetCounts(settings.stage1_epochs)
    run(settings, task=task, objective=RobustLoss(settings, counts), memory=counts, after_epoch=counts.after_epoch)
    return Path(args.out_dir, settings.name, "last.ckpt")


def judge(args: Namespace, rows: pd.DataFrame, folds: int) -> pd.DataFrame:
    """Trust in every annotation of rows of `read_instances`: DataFrame of `id`, `trust`, `predicted`."""
    if folds > rows["image"].nunique():
        raise UserError(f"--folds {folds}: {args.train_csv} has {rows['image'].nunique()} pictures; pass fewer folds")
    fold_of, found = assign_folds(rows["image"], folds, args.seed), []
    for fold in range(folds):
        network, config = load_detector(str(train_fold(args, rows, fold_of == fold, fold)))
        found.append(judged_by(network, config, rows[fold_of == fold], start_fabric(args).device, args.batch_size))
    return pd.concat(found, ignore_index=True)


def write_trust(csv: str, rows: pd.DataFrame, folder: Path, trust: pd.DataFrame) -> pd.DataFrame:
    """Write scores.csv and weights.json; the content of scores.csv.

    Args:
        rows: of the JSON `csv`.
        trust: of `judge`.
    """
    content, paths = read_json(csv), dict(zip(rows["id"], rows["image"]))
    for each in content["images"]:
        each["file_name"] = os.path.abspath(paths[each["id"]])  # the folder is another one now
    given = pd.DataFrame([{"annotation": each["id"], "image_id": each["image_id"], "given": each["category_id"]}
                          for each in content["annotations"]])
    scores = given.join(trust.set_index("id")[["predicted", "trust"]], on="annotation")
    for each, value in zip(content["annotations"], scores["trust"]):
        each["weight"] = round(float(value), 6)
    write_json(folder / "weights.json", content)
    with atomic_path(folder / "scores.csv") as temporary:
        scores.to_csv(temporary, index=False)
    return scores


def true_labels(truth: str, csv: str) -> np.ndarray:
    """The true category ids (N,) of the annotations of a JSON.

    Args:
        truth: the JSON that has them.
        csv: the one that has the given labels.

    Raises:
        UserError: the two JSONs are not of the same annotations and categories.
    """
    true, given = CocoText(truth), CocoText(csv)
    if true.ids != given.ids:
        raise UserError(f"--truth {truth}: has other annotations, or in another order, than {csv}")
    if (true.category_ids, true.names) != (given.category_ids, given.names):
        raise UserError(f"--truth {truth}: has other `categories` than {csv}")
    return np.array(list(map(int, true.labels)))


def measured(scores: pd.DataFrame, csv: str, truth: str) -> dict:
    """How well low trust finds the labels that differ from the true ones: `wrong` (share), `auroc`, `auprc`.

    Args:
        scores: of `write_trust`.
        csv, truth: see `true_labels`.
    """
    wrong = true_labels(truth, csv) != scores["given"].to_numpy()
    trust = scores["trust"].to_numpy()
    return {"annotations": len(wrong), "wrong": float(wrong.mean()), "auroc": auroc(trust, wrong), "auprc": auprc(trust, wrong)}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """--folds, --truth."""
    parser.add_argument("--folds", type=positive_int, default=2, help="detectors that judge, each a part of the pictures")
    parser.add_argument("--truth", metavar="JSON", help="the same JSON with the true labels, to measure what was found")


def refuse_flags(args: Namespace, folds: int) -> None:
    """Raise UserError if flags cannot be those of folds."""
    if not is_coco(args.train_csv):
        raise UserError(f"{args.train_csv}: no COCO JSON; train_on_features.py finds wrong labels of a class CSV")
    for flag in ("valid_csv", "test_csv", "weighted", "load"):
        if getattr(args, flag):
            raise UserError(f"--{flag}: not here, each fold trains on the others and judges its own; leave it out")
    if "WORLD_SIZE" in os.environ:
        raise UserError("wrong_labels.py: runs in one process; start it without torchrun")
    if folds < 2:
        raise UserError("--folds 1: a detector must not judge the labels that it saw; 2 or more are needed")


def decimals(score: float | None) -> str:
    """A score with three decimals, - where there is none."""
    return "-" if score is None else f"{score:.3f}"


def main() -> None:
    parser = nlis_parser(__doc__)
    add_flags(parser)
    args, _ = parse(parser)
    folds, truth = vars(args).pop("folds"), vars(args).pop("truth")
    refuse_flags(args, folds)
    if truth:
        true_labels(truth, args.train_csv)  # before hours of training
    folder = inside(args.out_dir, args.name)
    with lock.folder_lock(folder):
        rows = INSTANCES.rows(args)["train"]
        scores = write_trust(args.train_csv, rows, folder, judge(args, rows, folds))
    (folder / "wrong_labels.json").unlink(missing_ok=True)  # of an earlier run, of other scores
    if truth:
        found = measured(scores, args.train_csv, truth)
        write_json(folder / "wrong_labels.json", found)
        print(f"{100 * found['wrong']:.1f} % of {found['annotations']} labels are wrong; low trust finds them with AUROC "
              f"{decimals(found['auroc'])}, AUPRC {decimals(found['auprc'])}")
    print(f"trust in {len(scores)} labels: {folder / 'scores.csv'}, {folder / 'weights.json'}")


if __name__ == "__main__":
    command_line(main)
