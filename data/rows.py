"""CSV -> checked rows.

A CSV has a header; column 0 is the image, column 1 its mask, and a later column is found by its name: `iterations`
(noise level of that mask, 0 = untouched) or `weight` (trust in that mask); capitals and spaces around a name do not matter.
Published files are headed `img,filename,iterations`, `img,filename,weight`, or `,0` (two columns).
"""

import bisect
import functools
import hashlib
import itertools
import operator
import os
import re
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cli.files import UserError, progress
from cli.machine import free_memory, usable_cores
from data.csv_files import raise_faults, read_table, refuse_labels, resolve, weight_fault
from data.file_memory import file_memory
from data.pictures import IMAGE_SUFFIXES, read_image, refuse_black_and_white, resize_image
from data.samples import Samples, check_mask, checked_size, label_columns

BYTES_PER_PIXEL = 16  # of a picture in a batch: 3 bytes, a label, the three channels as floats
ANY_CASE = sys.platform in ("darwin", "win32")  # whose disks take A.png and a.png for one file
OWN_NAMES = "{stem}.png"  # as predict.py names pseudo-labels
NAMED_COLUMNS = ("weight", "iterations")


def read_rows(csv: Path | str, needs_weights: bool = False, needs_levels: bool = False) -> pd.DataFrame:
    """Read a CSV into rows with resolved paths.

    Args:
        csv: path of the CSV. Paths in it are relative to the working directory, else to the CSV's folder or to
            one above it.
        needs_weights: demand a `weight` column.
        needs_levels: demand an `iterations` column.

    Returns:
        DataFrame with columns `image`, `mask` (paths, str), and `iterations` (int) and `weight` (float) where the
        CSV has them; its index is the row number in the file (the header is row 1).

    Raises:
        UserError: unreadable, no rows, missing files, or third-column values out of range: all faults at once.
    """
    table = read_header(csv, needs_weights, rows=None)
    if needs_levels and "iterations" not in table.columns:
        raise UserError(f"{csv}: has no column `iterations`, which marks the noisy masks")
    folder = Path(csv).resolve().parent
    faults = []
    rows = pd.DataFrame(index=table.index)
    for column, name in ((0, "image"), (1, "mask")):
        rows[name] = [resolve(path.strip(), folder) for path in table.iloc[:, column]]
        faults += [(i, f"{name} {path!r}: no such file") for i, path in rows[name].items() if not os.path.isfile(path)]
    for name, check in (("weight", weight_fault), ("iterations", _iterations_fault)):
        if name in table.columns:
            rows[name] = pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=float)
            faults += [(i, f"{name} {text!r}: {fault}") for (i, value), text in zip(rows[name].items(), table[name])
                       if (fault := check(value))]
    raise_faults(csv, faults)
    if "iterations" in rows:
        rows["iterations"] = rows["iterations"].astype(int)
    return rows


def read_header(csv: Path | str, needs_weights: bool = False, rows: int | None = 1) -> pd.DataFrame:
    """The first rows of a CSV as strings (None: all of them), its shape and header checked; see `read_rows`."""
    table = read_table(csv, rows)
    refuse_labels(csv, table.columns.tolist())
    if not isinstance(table.index, pd.RangeIndex):  # pandas makes the extra fields an index
        raise UserError(f"{csv}: not a readable CSV (rows have more fields than the header; name all columns)")
    if table.shape[1] < 2:
        raise UserError(f"{csv}: needs two columns at least, image path and mask path; found {list(table.columns)}")
    if Path(str(table.columns[0])).suffix.strip().lower() in (*IMAGE_SUFFIXES, ".gif"):
        raise UserError(f"{csv}: the first line is a row, not a header; put `img,filename` above it")
    if table.empty:
        raise UserError(f"{csv}: has a header but no rows")
    table.columns = _known_names(csv, [str(name) for name in table.columns])
    if needs_weights and "weight" not in table.columns:
        found = "`iterations` (a noise level, not a weight)" if "iterations" in table.columns else "none"
        raise UserError(f"{csv}: this script needs a third column named `weight`, found {found}; "
                        "make one with utils/get_weight.py")
    table.index = np.arange(2, len(table) + 2)  # row numbers as a spreadsheet shows them
    return table


def _known_names(csv: Path | str, columns: list[str]) -> list[str]:
    """The columns' names; from the third on, `weight` and `iterations` are matched without case and outer spaces.

    Raises:
        UserError: two columns have one of these names.
    """
    names = [f"column {number}" for number in (1, 2)] + [
        name.strip().lower() if name.strip().lower() in NAMED_COLUMNS else name for name in columns[2:]]
    for name in NAMED_COLUMNS:
        same = [each for each in names if each == name or re.fullmatch(rf"\s*{name}\s*\.\d+", each, re.I)]  # as pandas numbers
        if len(same) > 1:
            raise UserError(f"{csv}: {len(same)} columns are named `{name}`; remove or rename all but one")
    return names


def _iterations_fault(value: float) -> str | None:
    return None if 0 <= value < 2**31 and value == int(value) else "a whole number >= 0 is needed"


def check_apart(splits: list[tuple[Path | str, pd.DataFrame]]) -> None:
    """Raise UserError if two splits share a picture: scores on it would be too good.

    Args:
        splits: list of (CSV, rows).
    """
    files = [(csv, rows, [os.path.realpath(path) for path in rows["image"]]) for csv, rows in splits]
    for (first, _, others), (csv, rows, paths) in itertools.combinations(files, 2):
        seen = set(others)
        shared = [path for path, real in zip(rows["image"], paths) if real in seen]
        if shared:
            raise UserError(f"{csv}: {len(shared)} of its {len(rows)} images are in {first} too, first {shared[0]}; scores "
                            "on pictures that were trained on are too good, leave them out of one")


def check_rows(csv: Path | str, rows: pd.DataFrame, num_classes: int, size: Sequence[int] | None = None) -> Samples | None:
    """Look at every file of the rows: images are whole, mask values are classes, and masks have about their images' shape.

    A file that was looked at before and has not changed is not opened, see `data.file_memory`.

    Args:
        size: (H, W) in px; also read the samples at this size, so that no file is decoded twice.

    Raises:
        UserError: one report of all faulty rows, the first 10 shown with their row numbers; or masks that hold 0 and 255 alone
            though there are more than two classes.
    """
    memory, items, columns = file_memory(), list(rows.itertuples()), label_columns(rows)
    samples = Samples.unread(rows, size) if size else None

    def look(position: int, row: Any) -> tuple[str | None, list[int]]:
        """(fault or None, `kinds_of` each of its label maps)."""
        kinds = []
        try:
            shape = checked_size(row.image, memory)
            for layer, column in enumerate(columns):
                path, place = getattr(row, column), samples.labels[position, layer] if samples else None
                check = functools.partial(check_mask, path, num_classes, place)
                *mask_shape, kind = memory.facts(path, f"mask of {num_classes}", check, again=samples is not None)
                check_shape(shape, mask_shape, path)
                kinds.append(kind)
            if samples:
                samples.images[position] = resize_image(read_image(row.image), samples.images.shape[1:3])
        except UserError as error:
            return str(error), kinds
        return None, kinds

    with ThreadPoolExecutor(usable_cores()) as pool:
        title = f"{'reading' if size else 'checking'} {Path(csv).name}"
        found = list(progress(pool.map(look, range(len(items)), items), title, len(items), "row"))
    memory.save()
    raise_faults(csv, [(row.Index, message) for row, (message, _) in zip(items, found) if message])
    for kinds in zip(*(kinds for _, kinds in found)):
        refuse_black_and_white(functools.reduce(operator.or_, kinds), num_classes, csv)
    return samples


def check_batch(size: Sequence[int], batch_size: int, rows: pd.DataFrame) -> None:
    """Raise UserError if a batch of pictures does not fit the free memory, before anything is read.

    Args:
        size: (H, W) in px.
    """
    count = min(batch_size, len(rows))
    need, free = count * size[0] * size[1] * BYTES_PER_PIXEL, free_memory()
    if need > free:
        raise UserError(f"--size {size[0]} {size[1]}, --batch-size {batch_size}: the pictures of one batch alone take "
                        f"{need / 2**30:.0f} GiB of memory, {free / 2**30:.0f} are free; lower one of them")


def check_shape(size: Sequence[int], mask_size: Sequence[int], path: Path | str, other: object = "its image") -> None:
    """Raise UserError if a mask's aspect ratio is not its image's, by more than 5 % and two pixels.

    Args:
        size, mask_size: (H, W) in px. They may differ, as both are resized.
        path: of the mask.
        other: what has `size`, for the message.
    """
    (height, width), (mask_height, mask_width) = size, mask_size
    off = abs(mask_width * height - width * mask_height)
    if off > max(0.05 * width * mask_height, 2 * max(height, width)):
        raise UserError(f"mask {path} is {mask_height} x {mask_width} px, {other} {height} x {width}: another shape; is one "
                        "of them turned or cropped?")


def pseudo_label_names(rows: pd.DataFrame) -> list[str]:
    """One file name per row for its pseudo-label, for writing and for reading it.

    The image's stem + `.png`; where two rows share a stem, as many parent folders are put before it
    (`folder__stem.png`) as make all names different. Images that differ only in their suffix keep it (`stem.jpg.png`).
    Rows of one and the same image share their pseudo-label.

    Args:
        rows: DataFrame with a column `image`.

    Returns:
        list of str, in the order of the rows.
    """
    paths = [os.path.abspath(image) for image in rows["image"]]
    stems = {path: os.path.splitext(path)[0] for path in paths}
    times = Counter(stems.values())
    shared = {path: stem if times[stem] == 1 else path for path, stem in stems.items()}
    for name_of in (shared, dict(zip(stems, stems))):  # first try: drop suffixes that are not needed; second try: keep all
        for depth in range(1, 1 + max(path.count(os.sep) for path in paths)):
            names = {path: _last_parts(name, depth) for path, name in name_of.items()}
            if len({name.casefold() if ANY_CASE else name for name in names.values()}) == len(names):
                return [names[path] + ".png" for path in paths]
    # folders with `__` in their names: a digest of the path makes the names different
    return [f"{_last_parts(stems[path], 1)}__{hashlib.sha1(os.fsencode(path)).hexdigest()[:16]}.png" for path in paths]


def pseudo_label_paths(rows: pd.DataFrame, folder: Path | str, part: slice = slice(None),
                       pattern: str = OWN_NAMES) -> list[str]:
    """Paths of the rows' pseudo-labels in a folder.

    Args:
        part: return only the paths of these rows. The names depend on all rows, so pass them all.
        pattern: of the file names; `{stem}` stands for the name that `pseudo_label_names` gives, without its suffix. `*` and
            `?` stand for other characters, as in a shell; then exactly one picture must match. A folder may end in a pattern
            too: `masks/{stem}_mask.png`.

    Raises:
        UserError: one is missing, several match, or the pattern has no `{stem}`.
    """
    if "{stem}" in os.path.basename(folder):
        folder, pattern = os.path.split(folder)
    if "{stem}" not in pattern:
        raise UserError(f"--pred-name {pattern}: {{stem}} is needed in it; it stands for the image's name without its suffix")
    stems = [name.removesuffix(".png") for name in pseudo_label_names(rows)[part]]
    if re.search(r"[*?]", pattern):
        found = _matching_files(folder, stems, pattern)
    else:
        names = [pattern.replace("{stem}", stem) for stem in stems]
        found = [[name] if os.path.isfile(os.path.join(folder, name)) else [] for name in names]
    missing = [pattern.replace("{stem}", stem) for stem, files in zip(stems, found) if not files]
    if missing:
        hint = ("write them with predict.py --csv on the same CSV, or name those of another model with --pred-name"
                if pattern == OWN_NAMES else f"files are looked for by the pattern {pattern}")
        raise UserError(f"{len(missing)} of {len(found)} pseudo-labels are missing, first {os.path.join(folder, missing[0])}; "
                        f"{hint}")
    several = next(((stem, files) for stem, files in zip(stems, found) if len(files) > 1), None)
    if several:
        raise UserError(f"{folder}: {len(several[1])} files match {pattern.replace('{stem}', several[0])}, {several[1][0]} and "
                        f"{several[1][1]} among them; --pred-name {pattern} must name one file per image")
    owner: dict[str, str] = {}
    for image, (name, *_) in zip(rows["image"][part], found):
        if os.path.abspath(owner.setdefault(name, image)) != os.path.abspath(image):
            raise UserError(f"{folder}/{name}: matches the images {owner[name]} and {image}; --pred-name {pattern} must name "
                            "one file per image, is one missing?")
    return [os.path.join(folder, files[0]) for files in found]


def _matching_files(folder: Path | str, stems: list[str], pattern: str) -> list[list[str]]:
    """For each stem, the names (list of str) of the folder's pictures that match the pattern."""
    try:
        names = sorted(name for name in os.listdir(folder) if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES)
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror})") from None
    found = []
    for stem in stems:
        parts = [re.split(r"([*?])", text) for text in pattern.split("{stem}")]
        regex = re.escape(stem).join("".join({"*": ".*", "?": "."}.get(word, re.escape(word)) for word in part)
                                     for part in parts)
        start = parts[0][0] + (stem if len(parts[0]) == 1 else "")  # these names stand together in the sorted list
        from_start = itertools.islice(names, bisect.bisect_left(names, start), None)
        near = itertools.takewhile(functools.partial(_begins, start), from_start)
        found.append([name for name in near if re.fullmatch(regex, name)])
    return found


def _begins(start: str, name: str) -> bool:
    return name.startswith(start)


def _last_parts(path: str, depth: int) -> str:
    """`a/b/c` -> `b__c` at depth 2."""
    return "__".join(path.rsplit(os.sep, depth)[-depth:])
