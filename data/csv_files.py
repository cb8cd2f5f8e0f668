"""Read a CSV as strings, find from the header whether it lists masks or labels, and report faulty rows."""

import csv as csv_reader
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cli.files import UserError, counted

SHOWN_FAULTS = 10


def read_table(csv: Path | str, rows: int | None) -> pd.DataFrame:
    """The CSV as strings; a file of this machine, never fetched or unpacked.

    Args:
        rows: how many to read; None = all of them.

    Raises:
        UserError: missing, no regular file, or not readable as a CSV.
    """
    if not os.path.exists(csv):
        raise UserError(f"{csv}: no such CSV" + ("; download it first" if "://" in str(csv) else ""))
    if not os.path.isfile(csv):  # a folder, or a pipe, which cannot be read twice
        raise UserError(f"{csv}: not a readable CSV (not a regular file)")
    try:
        with open(csv, "rb") as file:
            return pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig", skip_blank_lines=True, nrows=rows)
    except (ValueError, OSError, csv_reader.Error) as error:  # pandas' errors are ValueErrors
        reason = error.strerror if isinstance(error, OSError) else str(error).strip()
        raise UserError(f"{csv}: not a readable CSV ({reason}); it must be UTF-8 text, not compressed") from None


def names_labels(columns: Sequence[str]) -> bool:
    """Whether the first two columns are `image` or `img`, and `label`; capitals and spaces around a name do not matter."""
    first, second = ([str(name).strip().lower() for name in columns] + ["", ""])[:2]
    return first in ("image", "img") and second == "label"


def refuse_labels(csv: Path | str, columns: Sequence[str]) -> None:
    """Raise UserError if the header is one of class labels, where masks are read."""
    if names_labels(columns):
        raise UserError(f"{csv}: holds class labels (headed `{','.join(map(str, columns[:2]))}`), masks are wanted here; a CSV "
                        "of masks is headed `img,filename`")


def resolve(path: str, folder: Path) -> str:
    """A path of a CSV: as it stands, or, where only that exists, beside the CSV or in a folder above it.

    So a CSV of data/csv is read from any working directory, though its paths are relative to the project.

    Args:
        folder: of the CSV, absolute.
    """
    if not path or os.path.exists(path):
        return path
    return next(filter(os.path.exists, (os.path.join(each, path) for each in (folder, *folder.parents))), path)


def weight_fault(value: float) -> str | None:
    """What is wrong with a weight; None if it is one."""
    if not np.isfinite(value):
        return "not a finite number; score that row again or remove it"
    return None if 0 <= value <= 1 else "weights lie in 0..1"


def raise_faults(csv: Path | str, faults: list) -> None:
    """Raise UserError with the number of faults, a list of (row, message), and the first of them; return if there is none."""
    if faults:
        shown = "".join(f"\n  row {row}: {fault}" for row, fault in sorted(faults)[:SHOWN_FAULTS])
        more = f"\n  ... and {len(faults) - SHOWN_FAULTS} more" if len(faults) > SHOWN_FAULTS else ""
        raise UserError(f"{csv}: {counted(len(faults), 'fault')}; mend or remove these rows{shown}{more}")
