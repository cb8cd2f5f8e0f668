"""The way to an annotation tool and back: the worst masks as a task, corrected masks as a CSV."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

import numpy as np
import pandas as pd

from cli.files import UserError, progress, together
from data.annotation_task import (
    labels_of,
    make_item,
    names_of,
    read_record,
    write_corrected,
    write_record,
)
from data.annotation_tools import TOOLS, Objects, Returned
from data.legend import Legend
from data.pictures import read_checked_mask

README = """\
{count} masks to correct. {words}

Then call

    python audit.py --merge FOLDER --out NEW_FOLDER

with this folder; it reads the corrected masks into a new CSV, and changes no file of the data set.
A mask that comes back unchanged counts as looked at: its weight is 1.
"""


def export_task(folder: Path, tool: str, rows: pd.DataFrame, proposals: Sequence[Path], settings: dict[str, Any],
                legend: Legend, others: pd.DataFrame) -> None:
    """Write a task for an annotation tool to a folder, with a README.txt that says how to open it and how to come back.

    The folder appears when all is written, or not at all.

    Args:
        folder: new.
        tool: a key of TOOLS.
        rows: `image`, `mask` of the masks to correct.
        proposals: paths of the judge's label maps of these rows, with different names, which the task's pictures get.
        settings: `num_classes`, `background` (a class or None).
        others: `image`, `mask`, `weight` of all rows of the data set, for the CSV that comes back.
    """
    names = names_of(legend)
    images, masks = rows["image"].tolist(), rows["mask"].tolist()
    files = [proposal.stem + Path(image).suffix.lower() for proposal, image in zip(proposals, images)]
    settings = {**settings, "names": legend.names,
                "weights": [[os.path.abspath(image), os.path.abspath(mask), weight] for image, mask, weight in
                            zip(others["image"].tolist(), others["mask"].tolist(), others["weight"].astype(float).tolist())]}
    with together() as written_at:
        part = written_at(folder)
        classes = {name: settings[name] for name in ("num_classes", "background")}
        items = [make_item(part, *each, **classes) for each in
                 progress(zip(files, images, masks, proposals), "exporting", len(rows), "mask")]
        TOOLS[tool].write(part, items, names)
        write_record(part, tool, files, images, masks, settings)
        (part / "README.txt").write_text(README.format(count=len(rows), words=TOOLS[tool].words), encoding="utf-8")


def read_task(folder: Path) -> tuple[dict[str, Any], Objects]:
    """(the record, the objects of each picture) of a task that came back.

    Raises:
        UserError: it is no task, or what the tool saved cannot be read without loss.
    """
    record = read_record(folder)
    if record["tool"] not in TOOLS:
        raise UserError(f"{folder}: was exported for {record['tool']!r}; there are {', '.join(TOOLS)}")
    values = {name: value for value, name in names_of(Legend(record["num_classes"], record["names"])).items()}
    try:
        return record, TOOLS[record["tool"]].read(folder, values)
    except FileNotFoundError as error:
        raise UserError(f"--merge {folder}: has no {Path(error.filename).name}; its README.txt says what goes there") from None
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, ParseError) as error:
        reason = f"the key {error} is missing" if isinstance(error, KeyError) else str(error)
        raise UserError(f"--merge {folder}: not what {record['tool']} was given or saves: {reason}") from None


def before_and_after(folder: Path, row: dict[str, str], returned: Returned,
                     record: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """The label maps, uint8 (H, W), of a task's row: of its file, and of what came back; a UserError if they do not fit."""
    before, (size, regions) = read_checked_mask(row["mask"], record["num_classes"]), returned
    try:
        if size and tuple(size) != before.shape:
            raise ValueError(f"came back with {size[0]} x {size[1]} px, its mask has {before.shape[0]} x {before.shape[1]}")
        return before, labels_of(regions, before.shape, record["background"])
    except (ValueError, IndexError) as error:
        raise UserError(f"--merge {folder}: {row['name']}: {error}; was it corrected on another picture?") from None


def merge_task(folder: Path, target_of: Callable[[str], Path],
               final_of: Callable[[str], Path]) -> tuple[pd.DataFrame, int, int]:
    """Write the masks of a task that were changed; all others stay the files they are.

    Args:
        target_of: file name of a mask -> path to write it to; final_of: -> the path that it will have.

    Returns:
        (`image`, `mask`, `weight` of all rows of the data set, 1 for those that came back; number of these; of the changed)

    Raises:
        UserError: see `read_task`; or none came back, or one has another size than its mask.
    """
    record, objects = read_task(folder)
    back: dict[tuple[str, str], str] = {}  # (image, mask) -> its mask now
    corrected: dict[tuple[str, str], np.ndarray] = {}
    changed = 0
    for row in record["rows"]:
        if row["name"] not in objects:
            continue
        before, after = before_and_after(folder, row, objects[row["name"]], record)
        key = row["image"], row["mask"]
        back.setdefault(key, row["mask"])
        if not np.array_equal(before, after):
            if not np.array_equal(after, corrected.setdefault(key, after)):
                raise UserError(f"--merge {folder}: {row['name']} and {Path(back[key]).stem} are one row of the CSV, which "
                                "stands there twice, and were corrected otherwise; leave one of them out")
            name = Path(row["name"]).stem + ".png"
            write_corrected(target_of(name), after, row["mask"], record["num_classes"])
            back[key], changed = str(final_of(name)), changed + 1
    if not back:
        raise UserError(f"--merge {folder}: holds none of the {len(record['rows'])} pictures of the task")
    table = pd.DataFrame(record["weights"], columns=["image", "mask", "weight"])
    keys = list(zip(table["image"], table["mask"]))
    table["mask"] = [back.get(key, key[1]) for key in keys]
    table["weight"] = [1.0 if key in back else weight for key, weight in zip(keys, table["weight"])]
    return table, len(back), changed
