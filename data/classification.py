"""CSVs of class labels -> checked rows -> batches.

Such a CSV is headed `image,label`; a third column is found by its name: `weight` (trust in that label, 0..1). A label is the
name of a class or its number 0..C-1. Names stand in `classes.json` beside the CSV (see data/legend.py), in the numbers' order.

Legend: B samples, N rows, C classes, H x W pixels.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from cli.files import UserError, progress, read_json
from cli.lazy import torch
from cli.machine import usable_cores
from data.csv_files import names_labels, raise_faults, read_table, resolve, weight_fault
from data.file_memory import file_memory
from data.legend import FILE_NAME
from data.pictures import read_image, resize_image
from data.samples import checked_size

NORMALISATION = "normalisation.json"  # {"mean": [r, g, b], "std": [r, g, b]} of the training pictures, 0..1
SHOWN_NAMES = 5
MOST_CLASSES = 10_000  # that labels may imply; a mistyped one would ask for a giant confusion matrix


def is_class_csv(csv: Path | str) -> bool:
    """Whether a CSV is headed `image,label`; False for an unreadable file; the code that reads it reports the error."""
    try:
        return names_labels(read_table(csv, 0).columns.tolist())
    except UserError:
        return False


def read_class_names(csv: Path | str, legend: Path | str | None = None) -> list[str] | None:
    """Names of the classes, in their order, from the classes.json beside a CSV; None where there is none.

    Args:
        legend: such a file somewhere else.

    Raises:
        UserError: the file is not such a one, or names a class twice, or fewer than two.
    """
    path = Path(legend) if legend else Path(csv).parent / FILE_NAME
    if not legend and not path.exists():
        return None
    names = read_json(path, "names")["names"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: `names` must be a list of texts")
    names = [name.strip() for name in names]
    if len(names) < 2 or len(set(names)) < len(names):
        raise UserError(f"{path}: {len(names)} classes, {len(set(names))} different ones; two or more are needed, each of its "
                        "own name")
    return names


def read_class_rows(csv: Path | str, names: list[str] | None, needs_weights: bool = False,
                    needs_labels: bool = True) -> pd.DataFrame:
    """Read a CSV of class labels into rows with resolved paths.

    Args:
        csv: path of the CSV. Paths in it are relative to the working directory, else to the CSV's folder or to
            one above it.
        names: of the classes; a label is one of them, or, unless names are numbers themselves, its position. None: labels are
            whole numbers.
        needs_weights: demand a `weight` column.
        needs_labels: False: images alone are read.

    Returns:
        DataFrame with columns `image` (path, str), `label` (int, 0..C-1) and, where the CSV has it, `weight` (float, 0..1); its
        index is the row number in the file (the header is row 1).

    Raises:
        UserError: unreadable, no rows, missing files, unknown labels, weights out of range: all faults of the rows at once.
    """
    table = _checked_table(csv, needs_weights)
    folder = Path(csv).resolve().parent
    rows = pd.DataFrame(index=table.index)
    rows["image"] = [resolve(path.strip(), folder) for path in table.iloc[:, 0]]
    faults = [(i, f"image {path!r}: no such file") for i, path in rows["image"].items() if not os.path.isfile(path)]
    if not needs_labels:
        raise_faults(csv, faults)
        return rows
    numbers = None if names is None else numbers_of(names)
    labels = [label_number(text.strip(), numbers) for text in table.iloc[:, 1]]
    wanted = ("a whole number is needed, or names of the classes in classes.json beside the CSV" if names is None else
              f"none of the {len(names)} classes ({', '.join(names[:SHOWN_NAMES])}{', ...' * (len(names) > SHOWN_NAMES)})")
    faults += [(row, f"label {text!r}: {wanted}") for row, text, label in zip(table.index, table["label"], labels)
               if label is None]
    if "weight" in table.columns:
        rows["weight"] = pd.to_numeric(table["weight"], errors="coerce").to_numpy(dtype=float)
        faults += [(i, f"weight {text!r}: {fault}") for (i, value), text in zip(rows["weight"].items(), table["weight"])
                   if (fault := weight_fault(value))]
    raise_faults(csv, faults)
    rows.insert(1, "label", labels)
    return rows


def _checked_table(csv: Path | str, needs_weights: bool) -> pd.DataFrame:
    """All rows as strings, shape and header checked; a column `weight` has this name."""
    table = read_table(csv, None)
    if not names_labels(table.columns.tolist()):
        raise UserError(f"{csv}: not a CSV of class labels, which is headed `image,label`; found "
                        f"`{','.join(map(str, table.columns[:2]))}`")
    if not isinstance(table.index, pd.RangeIndex):  # pandas makes the extra fields an index
        raise UserError(f"{csv}: not a readable CSV (rows have more fields than the header; name all columns)")
    if table.empty:
        raise UserError(f"{csv}: has a header but no rows")
    names = [str(name).strip().lower() for name in table.columns]
    same = [name for name in names if re.fullmatch(r"weight(\.\d+)?", name)]  # as pandas numbers
    if len(same) > 1:
        raise UserError(f"{csv}: {len(same)} columns are named `weight`; remove or rename all but one")
    if needs_weights and not same:
        raise UserError(f"{csv}: this script needs a column named `weight`, found {', '.join(names)}")
    table.columns = ["image", "label", *names[2:]]
    table.index = np.arange(2, len(table) + 2)  # row numbers as a spreadsheet shows them
    return table


def numbers_of(names: list[str]) -> dict[str, int]:
    """dict of accepted label -> number: each name, and each position unless a name is a number itself."""
    numbers = {name: number for number, name in enumerate(names)}
    return {**{str(n): n for n in range(len(names))}, **numbers} if positions_are_labels(names) else numbers


def positions_are_labels(names: Sequence[str]) -> bool:
    """Whether the positions of the classes are labels beside their names: unless a name is a number itself."""
    return not any(map(str.isdecimal, names))


def label_like(old: str, number: int, names: list[str] | None) -> str:
    """The label of a class number, as a name or a position, whichever `old`, a label of the same CSV, is; see `numbers_of`."""
    if names is not None and (old in names or not positions_are_labels(names)):
        return names[number]
    return str(number)


def label_number(text: str, numbers: dict[str, int] | None) -> int | None:
    """The class number of a label, None if it has none; `numbers` as of `numbers_of`, None = labels are whole numbers."""
    if numbers is not None and text in numbers:
        return numbers[text]
    if not re.fullmatch(r"[0-9]{1,9}", text):
        return None
    return int(text) if numbers is None else numbers.get(str(int(text)))


def check_class_files(csv: Path | str, rows: pd.DataFrame) -> None:
    """Look at every image, see `data.file_memory`; one UserError tells of all that are missing, cut short or none."""
    def fault(path: str) -> str | None:
        try:
            checked_size(path, memory)
        except UserError as error:
            return str(error)
        return None

    memory = file_memory()
    with ThreadPoolExecutor(usable_cores()) as pool:
        found = list(progress(pool.map(fault, rows["image"]), f"checking {Path(csv).name}", len(rows), "row"))
    memory.save()
    raise_faults(csv, [(row, message) for row, message in zip(rows.index, found) if message])


# --- mean and standard deviation of the channels ----------------------------------------------------------------


def read_statistics(csv: Path | str) -> tuple[list[float], list[float]] | None:
    """Mean and standard deviation of each channel, in 0..1, from the normalisation.json beside a CSV; None without one."""
    path = Path(csv).parent / NORMALISATION
    if not path.exists():
        return None
    content = read_json(path, "mean", "std")
    for key, lowest in (("mean", 0.0), ("std", 1e-6)):
        values = content[key]
        if not isinstance(values, list) or len(values) != 3 or not all(
                isinstance(value, (int, float)) and lowest <= value <= 1 for value in values):
            raise UserError(f"{path}: `{key}` must be three numbers in {lowest:g}..1")
    return content["mean"], content["std"]


def channel_statistics(images: Sequence[str], size: Sequence[int]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel over all pixels of pictures, resized to (H, W); in 0..1.

    Sums are whole numbers, so that the order of the pictures changes nothing. A constant channel gets standard deviation 1.
    """
    def sums(path: str) -> np.ndarray:
        pixels = resize_image(read_image(path), size).reshape(-1, 3).astype(np.int64)
        return np.stack([pixels.sum(0), (pixels**2).sum(0)])  # (2, 3)

    total = np.zeros((2, 3), np.int64)
    with ThreadPoolExecutor(usable_cores()) as pool:
        for each in progress(pool.map(sums, images), "mean and deviation of the pictures", len(images), "picture"):
            total += each
    mean, square = total / (len(images) * size[0] * size[1])
    deviation = np.sqrt(np.maximum(square - mean**2, 0)) / 255
    return (mean / 255).tolist(), np.where(deviation < 1e-6, 1, deviation).tolist()


# --- batches ----------------------------------------------------------------------------------------------------


def class_cache_bytes(rows: pd.DataFrame, size: Sequence[int]) -> int:
    """Memory that the cached pictures of rows take at a size (H, W)."""
    return len(rows) * size[0] * size[1] * 3


def standardised(images: torch.Tensor, statistics: torch.Tensor) -> torch.Tensor:
    """Images as networks take them, made on the device: bytes are a quarter of the size of floats.

    Args:
        images: uint8 (B, 3, H, W).
        statistics: float32 (2, 3), mean and standard deviation of the channels, in 0..255.

    Returns:
        float32 (B, 3, H, W), channels last in memory.
    """
    mean, std = statistics.view(2, 3, 1, 1)
    return images.to(torch.float32, memory_format=torch.channels_last).sub_(mean).div_(std)


def shift_and_mirror(images: np.ndarray, mirror: np.ndarray, corners: np.ndarray, shift: int, padding: str) -> np.ndarray:
    """Pictures mirrored left to right where `mirror` says so, then padded on all sides and cut to their size again.

    Args:
        images: uint8 (B, H, W, 3).
        mirror: bool (B,).
        corners: int (B, 2), row and column of the cut's upper left corner in the padded picture, 0..2 * shift.
        shift: px of padding.
        padding: `reflect`, without the edge pixel, or `zero`, black.
    """
    images = np.where(mirror[:, None, None, None], images[:, :, ::-1], images)
    if not shift:
        return images
    height, width = images.shape[1:3]
    mode = "reflect" if padding == "reflect" else "constant"
    padded = np.pad(images, ((0, 0), (shift, shift), (shift, shift), (0, 0)), mode=mode)  # type: ignore[call-overload]
    rows, columns = corners[:, :1] + np.arange(height), corners[:, 1:] + np.arange(width)  # (B, H), (B, W)
    return padded[np.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None, :]]


class ClassDataset:
    """Samples of a CSV of class labels at one size.

    Args:
        rows: DataFrame of `read_class_rows`.
        size: (H, W), pixels; images are resized to it.
        statistics: (mean, std) of the channels, in 0..1.
        mirror: mirror half of the pictures, at random (training only, as `shift`).
        shift: px; move each picture at random by up to as much, up, down, left and right.
        padding: what comes in at the edge, see `shift_and_mirror`.
        cache: keep the decoded, resized pictures in memory, see `class_cache_bytes`.
        seed: of the augmentation, together with `epoch`, which the loop sets.

    A batch is a dict: `image` uint8 (B, 3, H, W), channels last in memory; `label` int64 (B,); `weight` float32 (B,) in 0..1 (1
    where the CSV has none); `index` int64 (B,), position in the rows; `statistics` float32 (2, 3), see `standardised`.
    """

    def __init__(self, rows: pd.DataFrame, size: Sequence[int], statistics: tuple[Sequence[float], Sequence[float]],
                 mirror: bool = False, shift: int = 0, padding: str = "reflect", cache: bool = False, seed: int = 0) -> None:
        self.names, self.size = rows["image"].tolist(), tuple(size)
        self.labels = torch.tensor(rows["label"].tolist())
        self.weights = torch.tensor(rows["weight"].tolist() if "weight" in rows else [1.0] * len(rows), dtype=torch.float32)
        self.statistics = 255 * torch.tensor(statistics, dtype=torch.float32)
        self.mirror, self.shift, self.padding = mirror, shift, padding
        self.seed, self.epoch = seed, 0
        self.drawn: tuple[int, np.ndarray] | None = None
        self.cached = self._fill_cache() if cache else None

    def _fill_cache(self) -> np.ndarray:
        with ThreadPoolExecutor(usable_cores()) as pool:
            return np.stack(list(progress(pool.map(self._load, range(len(self))), "filling the cache", len(self), "sample")))

    def _load(self, index: int) -> np.ndarray:
        """The picture (H, W, 3), uint8."""
        return resize_image(read_image(self.names[index]), self.size)

    def _moves(self) -> np.ndarray:
        """Mirror, row, column of each row in this epoch, int (N, 3), the same whichever process and batch it comes in."""
        if self.drawn is None or self.drawn[0] != self.epoch:
            chance = np.random.default_rng((self.seed, self.epoch)).random((len(self), 3))
            self.drawn = self.epoch, (chance * [2, 2 * self.shift + 1, 2 * self.shift + 1]).astype(int)
        return self.drawn[1]

    def __len__(self) -> int:
        return len(self.names)

    def __getitems__(self, indices: list[int]) -> dict:
        images = np.stack([self._load(index) for index in indices]) if self.cached is None else self.cached[indices]
        if self.mirror or self.shift:
            moves = self._moves()[indices]  # (B, 3)
            images = shift_and_mirror(images, self.mirror & (moves[:, 0] == 1), moves[:, 1:], self.shift, self.padding)
        return {"image": torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2), "label": self.labels[indices],
                "weight": self.weights[indices], "index": torch.tensor(indices), "statistics": self.statistics}
