"""Find the CSVs of a data set and choose its validation rows.

The names are those that data/prepare_cifar_n.py and data/make_digits.py give: train_TYPE.csv for each type of noise, test.csv
and classes.json in one folder. The training and learning.py never read the true labels, train_clean.csv.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from cli.files import UserError, read_json
from data.classification import is_class_csv, read_class_rows
from data.rows import check_apart
from engine.run_folder import digest

PROJECT = Path(__file__).resolve().parents[2]
CSVS = Path("data", "csv")


def noisy_csv(args: argparse.Namespace) -> Path:
    """The CSV that --dataset, --noise_type and --noise_path name.

    Raises:
        UserError: there is none, or --noise_path is a file of another kind.
    """
    folders = [CSVS / args.dataset, PROJECT / CSVS / args.dataset]
    if args.noise_path:
        path = Path(args.noise_path)
        if path.is_file():
            if path.suffix.lower() != ".csv":
                raise UserError(f"--noise_path {path}: not a CSV; data/prepare_cifar_n.py makes CSVs of published label files")
            return path
        folders = [path]
    for folder in folders:
        if (folder / f"train_{args.noise_type}.csv").is_file():
            return folder / f"train_{args.noise_type}.csv"
    types = sorted({path.stem.removeprefix("train_") for folder in folders for path in folder.glob("train_*.csv")
                    if is_class_csv(path)})
    if types:
        raise UserError(f"--noise_type {args.noise_type}: {folders[0]} has no train_{args.noise_type}.csv; there are "
                        f"{', '.join(types)}")
    raise UserError(f"{folders[0]}: no such folder with train_{args.noise_type}.csv; make it with data/prepare_cifar_n.py or "
                    "data/make_digits.py, or name another one by --dataset or --noise_path")


def csv_beside(csv: Path, name: str) -> Path:
    """Another CSV of the same data set; a UserError if it is missing."""
    path = csv.with_name(name)
    if not path.is_file():
        raise UserError(f"{path}: no such CSV; it belongs beside {csv.name}")
    return path


def validation_split(rows: int, val_ratio: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the training and of the validation rows, int64, ascending, drawn by the seed.

    Raises:
        UserError: one of them would be empty though it must not be.
    """
    count = round(val_ratio * rows)
    if val_ratio and not 0 < count < rows:
        raise UserError(f"--val_ratio {val_ratio:g}: of {rows} rows {count} would validate and {rows - count} train; pass "
                        "another share, or 0")
    order = np.random.default_rng(seed).permutation(rows)
    return np.sort(order[count:]), np.sort(order[:count])


def split_rows(rows: pd.DataFrame, csv: Path | str, val_ratio: float, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows that train and rows that validate, see `validation_split`.

    Raises:
        UserError: a picture that is listed twice would do both.
    """
    train, valid = (rows.iloc[part] for part in validation_split(len(rows), val_ratio, seed))
    check_apart([(csv, train), (f"--val_ratio {val_ratio:g} of {csv}", valid)])
    return train, valid


def refuse_changed(folder: Path, csv: Path | str, splits: dict[str, pd.DataFrame]) -> None:
    """Raise UserError unless rows are those that a run was trained or tested on.

    Args:
        folder: of the run.
        csv: that the rows are read from, for the message.
        splits: dict of `train`, `valid` or `test` -> rows of `read_class_rows`.
    """
    before = read_json(folder / "args.json", "rows")["rows"]
    for split, rows in splits.items():
        if len(rows) and before.get(split) != {"count": len(rows), "digest": digest(rows)}:
            raise UserError(f"{csv}: its rows or pictures have changed since the training in {folder}; bring them back, or "
                            "train again")


def wrong_labels(csv: Path, clean: Path, names: list) -> np.ndarray:
    """Whether each label of a noisy CSV differs from the true one, bool (M,).

    Raises:
        UserError: the two CSVs are not of the same pictures in the same order.
    """
    given, true = (read_class_rows(path, names) for path in (csv, clean))
    if given["image"].tolist() != true["image"].tolist():
        raise UserError(f"{clean}: other pictures, or in another order, than {csv}")
    return (given["label"] != true["label"]).to_numpy()
