"""CSV -> checked rows -> samples: the one dataset of every script.

A CSV has a header; column 0 is the image, column 1 its mask, and a later column is found by its name: `iterations`
(noise level of that mask, 0 = untouched) or `weight` (trust in that mask). Published files are headed
`img,filename,iterations`, `img,filename,weight`, or `,0` (two columns).

Legend: B samples, H x W pixels of the training size.
"""

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.utils.data import Dataset

from data.files import UserError, image_size, progress, read_checked_mask, read_image, read_mask, resize_image, resize_labels
from data.transforms import build_transforms

SHOWN_FAULTS = 10


def read_rows(csv, needs_weights=False):
    """Read a CSV into rows with resolved paths.

    Args:
        csv: path of the CSV. Paths in it are relative to the working directory, else to the CSV's folder.
        needs_weights: demand a `weight` column.

    Returns:
        DataFrame with columns `image`, `mask` (paths, str), and `iterations` (int) and `weight` (float) where the
        CSV has them; its index is the row number in the file (the header is row 1).

    Raises:
        UserError: unreadable, no rows, missing files, or third-column values out of range: all faults at once.
    """
    table = _read_table(csv, needs_weights)
    folder = Path(csv).resolve().parent
    faults = []
    rows = pd.DataFrame(index=table.index)
    for column, name in ((0, "image"), (1, "mask")):
        rows[name] = [_resolve(path.strip(), folder) for path in table.iloc[:, column]]
        faults += [(i, f"{name} {path!r}: no such file") for i, path in rows[name].items() if not os.path.isfile(path)]
    for name, check in (("weight", _weight_fault), ("iterations", _iterations_fault)):
        if name in table.columns:
            rows[name] = pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=float)
            faults += [(i, f"{name} {table[name][i]!r}: {fault}") for i, value in rows[name].items()
                       if (fault := check(value))]
    _raise_faults(csv, faults)
    if "iterations" in rows:
        rows["iterations"] = rows["iterations"].astype(int)
    return rows


def _read_table(csv, needs_weights):
    """The CSV as strings, its shape and header checked."""
    try:
        table = pd.read_csv(csv, dtype=str, keep_default_na=False, encoding="utf-8-sig", skip_blank_lines=True)
    except FileNotFoundError:
        raise UserError(f"{csv}: no such CSV") from None
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError, IsADirectoryError) as error:
        raise UserError(f"{csv}: not a readable CSV ({str(error).strip()})") from None
    if table.shape[1] < 2:
        raise UserError(f"{csv}: needs two columns at least, image path and mask path; found {list(table.columns)}")
    if Path(str(table.columns[0])).suffix.lower() in (".jpg", ".jpeg", ".png"):
        raise UserError(f"{csv}: the first line is a row, not a header; put `img,filename` above it")
    if table.empty:
        raise UserError(f"{csv}: has a header but no rows")
    if needs_weights and "weight" not in table.columns:
        found = "`iterations` (a noise level, not a weight)" if "iterations" in table.columns else "none"
        raise UserError(f"{csv}: this script needs a third column named `weight`, found {found}; "
                        "make one with utils/get_weight.py")
    table.index = np.arange(2, len(table) + 2)  # row numbers as a spreadsheet shows them
    return table


def _resolve(path, folder):
    beside_csv = folder / path
    return str(beside_csv) if not os.path.exists(path) and beside_csv.exists() else path


def _weight_fault(value):
    if not np.isfinite(value):
        return "not a finite number; score that row again or remove it"
    return None if 0 <= value <= 1 else "weights lie in 0..1"


def _iterations_fault(value):
    return None if value >= 0 and value == int(value) else "a whole number >= 0 is needed"


def _raise_faults(csv, faults):
    if faults:
        shown = "".join(f"\n  row {row}: {fault}" for row, fault in sorted(faults)[:SHOWN_FAULTS])
        more = f"\n  ... and {len(faults) - SHOWN_FAULTS} more" if len(faults) > SHOWN_FAULTS else ""
        raise UserError(f"{csv}: {len(faults)} fault{'s' * (len(faults) > 1)}; mend or remove these rows{shown}{more}")


def check_rows(csv, rows, num_classes):
    """Open every file of the rows: image headers are readable and mask values are classes.

    Raises:
        UserError: one report of all faulty rows, the first 10 shown with their row numbers.
    """
    def fault(row):
        try:
            image_size(row.image)
            read_checked_mask(row.mask, num_classes)
        except UserError as error:
            return str(error)

    items = list(rows.itertuples())
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(progress(pool.map(fault, items), f"checking {Path(csv).name}", len(items), "row"))
    _raise_faults(csv, [(row.Index, message) for row, message in zip(items, found) if message])


def pseudo_label_names(rows):
    """One file name per row for its pseudo-label, the same for whoever writes and whoever reads it.

    The image's stem + `.png`; where two rows share a stem, as many parent folders are put before it
    (`folder__stem.png`) as tell all images apart. Rows of one and the same image share their pseudo-label.

    Args:
        rows: DataFrame with a column `image`.

    Returns:
        list of str, in the order of the rows.
    """
    paths = [Path(os.path.abspath(image)).with_suffix("") for image in rows["image"]]
    distinct = set(paths)
    for depth in range(1, 1 + max(len(path.parts) for path in paths)):
        names = Counter("__".join(path.parts[-depth:]) for path in distinct)
        if len(names) == len(distinct):
            break
    return ["__".join(path.parts[-depth:]).replace("/", "") + ".png" for path in paths]


class ImageDataset(Dataset):
    """Images alone, for prediction.

    Each item is a dict: `image` float32 (3, H, W), ImageNet-normalised, at `size`; `own_size` int64 (2,), the (H, W) that
    the picture has on disk; `index` int.
    """

    def __init__(self, images, size):
        self.images, self.size = images, tuple(size)
        self.transforms = build_transforms(augment=False)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        picture = read_image(self.images[index])
        image = torch.from_numpy(resize_image(picture, self.size)).permute(2, 0, 1)
        image, _ = self.transforms(image, torch.zeros(self.size, dtype=torch.uint8))
        return {"image": image, "own_size": torch.tensor(picture.shape[:2]), "index": index}


class SegmentationDataset(Dataset):
    """Samples of a CSV at one size.

    Args:
        rows: DataFrame of `read_rows`.
        size: (H, W), pixels; images and masks are resized to it.
        num_classes: C; 2 = binary.
        augment: flip, scale and colour at random (training only).
        cache: keep the decoded, resized uint8 samples in memory, 4 * H * W bytes each.

    Each item is a dict: `image` float32 (3, H, W), ImageNet-normalised; `mask` int64 (H, W), 0..C-1 or 255;
    `weight` float32 in 0..1 (1 where the CSV has none); `index` int, position in the rows.
    """

    def __init__(self, rows, size, num_classes, augment=False, cache=False):
        self.images = rows["image"].tolist()
        self.masks = rows["mask"].tolist()
        self.weights = rows["weight"].tolist() if "weight" in rows else [1.0] * len(rows)
        self.size, self.num_classes = tuple(size), num_classes
        self.transforms = build_transforms(augment)
        self.cached = self._fill_cache() if cache else None

    def _fill_cache(self):
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            samples = pool.map(self._load, range(len(self)))
            return list(progress(samples, "filling the cache", len(self), "sample"))

    def _load(self, index):
        image = resize_image(read_image(self.images[index]), self.size)
        labels = resize_labels(read_mask(self.masks[index], self.num_classes), self.size)
        return torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(labels)  # (3, H, W), (H, W), uint8

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        image, mask = self.cached[index] if self.cached else self._load(index)
        image, mask = self.transforms(image, mask)
        return {"image": image, "mask": mask, "weight": torch.tensor(self.weights[index], dtype=torch.float32),
                "index": index}
