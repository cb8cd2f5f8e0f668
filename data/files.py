"""Files that are whole or absent, JSON and CSV, and what a fault is.

Everything that touches the disk on a user's behalf goes through here or through `data.pictures`, so that one rule holds
everywhere: a fault that the user can mend is a `UserError` (one clear message, exit code 2, no traceback), and an output file
appears under its name only once it is complete.
"""

import contextlib
import json
import os
import re
import sys
from pathlib import Path

import pandas as pd
from tqdm import tqdm


class UserError(Exception):
    """Something the user can mend: the message names the file, row or flag and says what to do."""

    def __init__(self, message):
        # a loader process wraps what it raises in the text of its traceback
        super().__init__(message.rpartition("UserError: ")[2].strip() if message.startswith("Caught UserError") else message)


def progress(items, title, total=None, unit="it", shown=True):
    """A progress bar with a rate, gone when it is done; in a log file (no terminal) it is drawn once a minute at most.

    Work that ends within a second shows none.
    """
    return tqdm(items, title, total, unit=unit, leave=False, disable=not shown, delay=1, dynamic_ncols=True,
                mininterval=0.2 if sys.stderr.isatty() else 60, maxinterval=10 if sys.stderr.isatty() else 60)


# --- files that are whole or absent -----------------------------------------------------------------------------


@contextlib.contextmanager
def atomic_path(path):
    """Yield a temporary path beside `path`; rename it to `path` if the block succeeds, remove it if not.

    Raises:
        UserError: the disk is full, or nothing may be written there.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error}); what stood there before is kept") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def is_temporary(path):
    """Whether a file is what a killed `atomic_path` left."""
    return re.fullmatch(r"\..+\.\d+(\.\w+)?", Path(path).name) is not None


def write_json(path, content):
    """Write `content` as indented JSON, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_json(path, *keys):
    """The content of a JSON file.

    Args:
        keys: that its object must have.

    Raises:
        UserError: the file is missing, is not JSON, or has no such object.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not a JSON file ({error})") from None
    missing = [key for key in keys if not isinstance(content, dict) or key not in content]
    if missing:
        raise UserError(f"{path}: not the file that is wanted here, it has no `{missing[0]}`")
    return content


# --- CSVs -------------------------------------------------------------------------------------------------------


def write_rows(path, rows, *columns):
    """Write rows as a CSV that every tool here reads, whole or not at all; see `csv_text`."""
    with atomic_path(path) as temporary:
        temporary.write_text(csv_text(rows, *columns), encoding="utf-8")


def csv_text(rows, *columns):
    """Rows as a CSV: `img,filename[,weight][,iterations]`.

    Args:
        rows: DataFrame with columns `image`, `mask` and those asked for.
        columns: names of the columns behind the first two.

    Paths under the working directory are written relative to it, others absolute.

    Raises:
        UserError: a file's name is not UTF-8.
    """
    home = os.path.join(os.getcwd(), "")
    paths = {title: [_portable(path, home) for path in rows[column]]
             for title, column in (("img", "image"), ("filename", "mask"))}
    for path in paths["img"] + paths["filename"]:
        if not is_utf8(path):
            raise UserError(f"{path!r}: a file name that is not UTF-8, which no CSV can hold; rename the file")
    table = pd.DataFrame(paths)
    for column in columns:
        table[column] = rows[column].to_numpy()
    return table.to_csv(index=False)


def is_utf8(path):
    """Whether a file's name can be written as text; Python stands in for bytes that cannot by lone surrogates."""
    return not any("\ud800" <= letter <= "\udfff" for letter in str(path))


def _portable(path, home):
    absolute = os.path.abspath(path)
    return (absolute[len(home):] if absolute.startswith(home) else absolute).replace(os.sep, "/")


def refuse_existing(path, overwrite):
    """Raise UserError if the output exists and the user has not asked to replace it."""
    if Path(path).exists() and not overwrite:
        raise UserError(f"{path} exists; pass --overwrite to replace it, or choose another name")
