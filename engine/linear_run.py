"""A run that trains no network: features of the rows, a linear classifier on them, and which labels it judges wrong."""

import json
import shutil
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cli.files import atomic_path, read_json, write_json
from cli.lazy import torch
from data.class_sets import class_rows
from data.classification import NORMALISATION, check_class_files
from data.legend import FILE_NAME as NAMES
from engine import run_folder
from engine.classification import complete, read_class_splits
from engine.devices import start_fabric
from engine.features import DEFAULT_SIZE, PIXELS, build_encoder, features_of
from utils.class_scores import CLASS_TITLES, ClassScores
from utils.confident import wrong_labels
from utils.linear import choose_strength, stratified_folds, trained
from utils.metrics import named_scores, score_table

BESIDE = (NAMES, NORMALISATION)  # what a reader of a class CSV finds beside it


def run_linear(args: Namespace) -> dict:
    """Compute features, judge the training rows out-of-fold, train on all of them, test, and leave the run's files.

    Args:
        args: flags of train_on_features.py.

    Returns:
        the content of result.json, with the keys of `engine.loop.run`; besides, `out_of_fold`: dict of `trials` of
        `choose_strength`, the chosen `C`, `flagged`, a number of rows.

    Raises:
        UserError: anything the user can mend, found before the work begins where that is possible.
    """
    asked = complete_flags(args)
    names = asked.classes
    with run_folder.claimed(args) as folder:
        splits = read_class_splits(asked)
        run_folder.refuse_other_rows(args, folder, splits)
        if args.resume and (folder / "result.json").exists():
            print(f"{folder}: finished already, nothing to do")
            return read_json(folder / "result.json")
        train = splits["train"]
        fold_of = stratified_folds(train["label"].to_numpy(), train["image"].tolist(), args.folds, args.seed, names)
        for split, rows in splits.items():
            check_class_files(getattr(args, f"{split}_csv"), rows)
        network = build_encoder(args, max(map(len, splits.values())))
        fabric = start_fabric(Namespace(accelerator=args.accelerator, devices=1, strategy="auto", precision="32-true"))
        run_folder.open_run(args, folder, splits)
        return judge_and_test(args, folder, splits, names, fold_of, network, fabric)


def complete_flags(args: Namespace) -> Namespace:
    """The flags that reading class labels needs, of a run that has no networks to train; `args` gets size and num_classes.

    Raises:
        UserError: see `engine.classification.complete`.
    """
    if args.encoder == PIXELS:
        args.encoder_weights = None  # there is nothing to load them into
    elif args.size is None:
        args.size = list(DEFAULT_SIZE)
    asked = Namespace(**vars(args), valid_csv=None, batch_size=1, padding="zero", shift=0)
    complete(asked)
    args.size, args.num_classes = asked.size, asked.num_classes
    return asked


def judge_and_test(args: Namespace, folder: Path, splits: dict, names: list[str], fold_of: np.ndarray,
                   network: Any, fabric: Any) -> dict:
    """The part of `run_linear` that takes time."""
    train, home = splits["train"], Path(args.features_dir or folder)
    labels = train["label"].to_numpy()
    features, seconds = features_of(args, train, network, fabric.device, home)
    began = time.perf_counter()
    strength, probabilities, trials = choose_strength(features, labels, fold_of, len(names))
    classifier = trained(features, labels, strength)
    seconds += time.perf_counter() - began
    flags = wrong_labels(probabilities, labels)
    write_judgement(folder, args.train_csv, train, names, probabilities, flags)

    test = None
    if "test" in splits:
        tested, _ = features_of(args, splits["test"], network, fabric.device, home)
        test = [scores_of(classifier.predict(tested), splits["test"]["label"].to_numpy(), len(names))]
    found = {"valid": [scores_of(probabilities.argmax(1), labels, len(names))], "test": test, "seconds": seconds,
             "parameters": [(features.shape[1] + 1) * len(np.unique(labels))],
             "out_of_fold": {"C": strength, "trials": trials, "flagged": int(flags.sum())}}
    loss = min(trial["log_loss"] for trial in trials)
    return finish(args, folder, splits, {**found, "features": features.shape[1]}, loss, fabric)


def scores_of(predicted: np.ndarray, labels: np.ndarray, classes: int) -> dict:
    """What `ClassScores.compute` gives of a whole split, int (N,) each."""
    scores = ClassScores(classes)
    scores.update(torch.from_numpy(predicted), torch.from_numpy(labels))
    return scores.compute()


def write_judgement(folder: Path, csv: str, rows: pd.DataFrame, names: list[str], probabilities: np.ndarray,
                    flags: np.ndarray) -> None:
    """scores.csv, weights.csv and flags.npy, in the order of the rows, and the JSON that train scripts read beside weights.csv.

    Args:
        csv: the training CSV.
        probabilities: out-of-fold, float (N, C).
        flags: bool (N,), True = judged wrong.
    """
    texts, labels = np.array(names, object), rows["label"].to_numpy()
    judged = class_rows(rows["image"], labels, names).assign(probability=probabilities[np.arange(len(rows)), labels],
                                                             predicted=texts[probabilities.argmax(1)], wrong=flags.astype(int))
    weights = judged[["image", "label", "probability"]].rename(columns={"probability": "weight"})
    for name, table in (("scores.csv", judged), ("weights.csv", weights)):
        with atomic_path(folder / name) as temporary:
            table.to_csv(temporary, index=False)
    for name in BESIDE:
        if (Path(csv).parent / name).exists():
            with atomic_path(folder / name) as temporary:
                shutil.copyfile(Path(csv).parent / name, temporary)
    with atomic_path(folder / "flags.npy") as temporary:
        np.save(temporary, flags)


def finish(args: Namespace, folder: Path, splits: dict, found: dict, loss: float, fabric: Any) -> dict:
    """Write log.jsonl, of one epoch, and result.json; the content of the latter.

    Args:
        loss: the out-of-fold log-loss.
    """
    count, seconds = len(splits["train"]), found["seconds"]
    entry = {"epoch": 0, "learning_rate": None, "loss": [loss], "weight": [1.0], "valid": found["valid"], "seconds": seconds,
             "images_per_second": count / seconds}
    with atomic_path(folder / "log.jsonl") as temporary:
        temporary.write_text(json.dumps(entry) + "\n", encoding="utf-8")
    result = {"name": args.name, "script": Path(sys.argv[0]).name, "best_epoch": 0, "epochs": 1,
              "compared": ["accuracy"], "titles": CLASS_TITLES, **found, "test_last": found["test"],
              "rows": {split: len(rows) for split, rows in splits.items()}, **run_folder.row_facts(splits),
              "args": {**run_folder.recorded(args), "size": None, "encoder_size": args.size},  # a label has no size
              "machine": {**run_folder.machine(fabric), **run_folder.versions(["scikit-learn"])}}
    write_json(folder / "result.json", result)
    chosen = found["out_of_fold"]
    print(f"out-of-fold accuracy on the given labels {100 * found['valid'][0]['accuracy']:.2f} % (C {chosen['C']:g}); "
          f"{chosen['flagged']} of {count} labels are judged wrong")
    if found["test"]:
        print(f"test:\n{score_table(named_scores(args.name, result, 'test'), CLASS_TITLES)}")
    print(f"results: {folder / 'result.json'}")
    return result
