"""A run that trains no network: features of the rows, a linear classifier on them, and which labels it judges wrong."""

import json
import shutil
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd

from cli.files import UserError, atomic_path, read_json, write_json
from data.classification import NORMALISATION, check_class_files, read_class_names, read_class_rows
from data.legend import FILE_NAME as NAMES
from data.rows import check_apart
from engine import run_folder
from engine.devices import start_fabric
from engine.features import PIXELS, features_of, size_of
from utils.confident import wrong_labels
from utils.linear import choose_strength, stratified_folds, trained
from utils.metrics import named_scores, score_table

TITLES = {"accuracy": "accuracy"}
BESIDE = (NAMES, NORMALISATION)  # what a reader of a class CSV finds beside it


def run_linear(args) -> dict:
    """Compute features, judge the training rows out-of-fold, train on all of them, test, and leave the run's files.

    Args:
        args: flags of train_on_features.py.

    Returns:
        the content of result.json, with the keys of `engine.loop.run`; besides, `out_of_fold`: dict of `trials` of
        `choose_strength`, the chosen `C`, `flagged`, a number of rows.

    Raises:
        UserError: anything the user can mend, found before the work begins where that is possible.
    """
    if args.encoder == PIXELS:
        args.encoder_weights = None  # there is nothing to load them into
    with run_folder.claimed(args) as folder:
        splits, names = read_splits(args)
        run_folder.refuse_other_rows(args, folder, splits)
        if args.resume and (folder / "result.json").exists():
            print(f"{folder}: finished already, nothing to do")
            return read_json(folder / "result.json")
        train = splits["train"]
        fold_of = stratified_folds(train["label"].to_numpy(), train["image"].tolist(), args.folds, args.seed, names)
        for split, rows in splits.items():
            check_class_files(getattr(args, f"{split}_csv"), rows)
        fabric = start_fabric(SimpleNamespace(accelerator=args.accelerator, devices=1, strategy="auto", precision="32-true"))
        run_folder.open_run(args, folder, splits)
        return judge_and_test(args, folder, splits, names, fold_of, fabric)


def read_splits(args) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Rows of each CSV, and the names of the classes.

    Returns:
        (dict of `train` and, with --test_csv, `test` -> DataFrame of `image`, `label`; names, list of str).
    """
    names = read_class_names(args.train_csv)
    csvs = {"train": args.train_csv, **({"test": args.test_csv} if args.test_csv else {})}
    splits = {split: read_class_rows(csv, names)[["image", "label"]] for split, csv in csvs.items()}
    check_apart([(csv, splits[split]) for split, csv in csvs.items()])
    names = names or [str(c) for c in range(int(splits["train"]["label"].max()) + 1)]
    strange = splits.get("test", splits["train"]).query("label >= @len(@names)")
    if len(strange):
        raise UserError(f"{args.test_csv}: row {strange.index[0]} has label {strange['label'].iloc[0]}, but the largest one of "
                        f"{args.train_csv} is {len(names) - 1}")
    return splits, names


def judge_and_test(args, folder: Path, splits: dict, names: list[str], fold_of: np.ndarray, fabric) -> dict:
    """The part of `run_linear` that takes time."""
    train, home = splits["train"], Path(args.features_dir or folder)
    labels, size = train["label"].to_numpy(), size_of(args, train)
    features, seconds = features_of(args, train, size, fabric.device, home)
    began = time.perf_counter()
    strength, probabilities, trials = choose_strength(features, labels, fold_of, len(names))
    classifier = trained(features, labels, strength)
    seconds += time.perf_counter() - began
    flags = wrong_labels(probabilities, labels)
    write_judgement(folder, args.train_csv, train, names, probabilities, flags)

    test = None
    if "test" in splits:
        tested, _ = features_of(args, splits["test"], size, fabric.device, home)
        test = [accuracy_of(classifier.predict(tested), splits["test"]["label"].to_numpy())]
    found = {"valid": [accuracy_of(probabilities.argmax(1), labels)], "test": test, "seconds": seconds,
             "parameters": [(features.shape[1] + 1) * len(np.unique(labels))],
             "out_of_fold": {"C": strength, "trials": trials, "flagged": int(flags.sum())}}
    loss = min(trial["log_loss"] for trial in trials)
    return finish(args, folder, splits, {**found, "features": {"count": features.shape[1], "size": list(size)}}, loss, fabric)


def accuracy_of(predicted: np.ndarray, labels: np.ndarray) -> dict:
    """The scores of a split: `accuracy` in 0..1, and its number of `images`."""
    return {"accuracy": float((predicted == labels).mean()), "images": len(labels)}


def write_judgement(folder: Path, csv: str, rows: pd.DataFrame, names: list[str], probabilities: np.ndarray,
                    flags: np.ndarray) -> None:
    """scores.csv, weights.csv and flags.npy, in the order of the rows, and what a reader of weights.csv looks for beside it.

    Args:
        csv: the training CSV.
        probabilities: out-of-fold, float (N, C).
        flags: bool (N,), True = judged wrong.
    """
    texts, labels = np.array(names, object), rows["label"].to_numpy()
    judged = pd.DataFrame({"image": rows["image"].tolist(), "label": texts[labels],
                           "probability": probabilities[np.arange(len(rows)), labels],
                           "predicted": texts[probabilities.argmax(1)], "wrong": flags.astype(int)})
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


def finish(args, folder: Path, splits: dict, found: dict, loss: float, fabric) -> dict:
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
              "compared": list(TITLES), "titles": TITLES, **found, "test_last": found["test"],
              "rows": {split: len(rows) for split, rows in splits.items()}, **run_folder.row_facts(splits),
              "args": run_folder.recorded(args),
              "machine": {**run_folder.machine(fabric), **run_folder.versions(["scikit-learn"])}}
    write_json(folder / "result.json", result)
    chosen = found["out_of_fold"]
    print(f"out-of-fold accuracy on the given labels {100 * found['valid'][0]['accuracy']:.2f} % (C {chosen['C']:g}); "
          f"{chosen['flagged']} of {count} labels are judged wrong")
    if found["test"]:
        print(f"test:\n{score_table(named_scores(args.name, result, 'test'), TITLES)}")
    print(f"results: {folder / 'result.json'}")
    return result
