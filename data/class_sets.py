"""What the tools that prepare class labels share: pictures in files, CSVs headed `image,label`, and the names of the classes.

Legend: N pictures, C classes; a label is a class number 0..C-1 in arrays and the class's name in a CSV.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cli.files import UserError, atomic_path, portable, progress, refuse_other_than_utf8
from cli.machine import usable_cores
from data.legend import FILE_NAME
from data.pictures import read_image, write_image

Pictures = Sequence[tuple[Path, np.ndarray]]  # (file, uint8 (H, W) or (H, W, 3))


def class_rows(images: Iterable[Path | str], labels: Iterable[int], names: Sequence[str]) -> pd.DataFrame:
    """Rows of a class CSV.

    Args:
        images: N paths.
        labels: N class numbers.
        names: of the C classes.

    Returns:
        DataFrame with columns `image` (str; below the working directory relative to it, others absolute) and `label` (the
        class's name).

    Raises:
        UserError: a file's name is not UTF-8.
    """
    paths = list(map(str, images))
    refuse_other_than_utf8(paths)
    home = os.path.join(os.getcwd(), "")
    return pd.DataFrame({"image": [portable(path, home) for path in paths], "label": [names[label] for label in labels]})


def write_class_set(out: Path, names: Sequence[str], splits: Mapping[str, pd.DataFrame], overwrite: bool,
                    pictures: Pictures = (), facts: Mapping[str, Any] | None = None) -> None:
    """Write pictures, classes.json and a CSV per split, and say so; files that already have this content stay.

    Args:
        out: folder of the CSVs.
        splits: dict of name -> rows, see `class_rows`.
        facts: dict of the name of another JSON -> its content.

    Raises:
        UserError: a file exists with other content, and `overwrite` is not set; nothing is written then.
    """
    contents = {FILE_NAME: {"names": list(names)}, **(facts or {})}
    texts = {out / file: json.dumps(content, indent=2) + "\n" for file, content in contents.items()}
    texts |= {out / f"{split}.csv": rows.to_csv(index=False, lineterminator="\n") for split, rows in splits.items()}
    changed = [path for path, text in texts.items() if path.exists() and _bytes_of(path) != text.encode()]
    with ThreadPoolExecutor(4 * usable_cores()) as pool:  # they wait for the disk
        states = list(progress(pool.map(_state, pictures), "looking", len(pictures), "picture"))
        changed += [path for (path, _), state in zip(pictures, states) if state == "other"]
        if changed and not overwrite:
            raise UserError(f"{changed[0]} exists with other content; pass --overwrite to replace it, or choose another --out")
        missing = [picture for picture, state in zip(pictures, states) if state != "same"]
        for _ in progress(pool.map(_write, missing), "pictures", len(missing), "picture"):
            pass
    for path, text in texts.items():
        with atomic_path(path) as temporary:
            temporary.write_bytes(text.encode())
    for split, rows in splits.items():
        print(f"{out / f'{split}.csv'}: {len(rows)} rows")


def _state(picture: tuple[Path, np.ndarray]) -> str:
    """Whether a picture's file is `missing`, the `same`, or an `other` one."""
    path, array = picture
    if not path.exists():
        return "missing"
    try:
        there = read_image(path)
    except UserError:
        return "other"
    return "same" if np.array_equal(there, array if array.ndim == 3 else np.stack([array] * 3, -1)) else "other"


def _write(picture: tuple[Path, np.ndarray]) -> None:
    write_image(*picture)


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
