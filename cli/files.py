"""Write files whole or not at all, read JSON, write CSV; and the error for faults that a user can mend.

All reading and writing of user files goes through this module or `data.pictures`, so two rules hold everywhere. A fault that
the user can mend is a `UserError` (one clear message, exit code 2, no traceback). An output file gets its name only when it is
complete, and all outputs of a tool appear together.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm


class UserError(Exception):
    """Something the user can mend: the message names the file, row or flag and says what to do."""

    def __init__(self, message: str) -> None:
        # a loader process puts its whole traceback into the message; keep the message alone
        super().__init__(message.rpartition("UserError: ")[2].strip() if message.startswith("Caught UserError") else message)


def counted(count: int, noun: str) -> str:
    """How many there are of a thing, such as `1 seed` or `3 seeds`."""
    return f"{count} {noun}{'s' * (count != 1)}"


def progress(items: Any, title: str, total: int | None = None, unit: str = "it", shown: bool = True) -> tqdm:
    """A progress bar with a rate that disappears when the work is done; in a log file it is drawn at most once a minute.

    Work that ends within a second shows none.
    """
    return tqdm(items, title, total, unit=unit, leave=False, disable=not shown, delay=1, dynamic_ncols=True,
                mininterval=0.2 if sys.stderr.isatty() else 60, maxinterval=10 if sys.stderr.isatty() else 60)


# --- files that are whole or absent -----------------------------------------------------------------------------


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
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


def is_temporary(path: Path | str) -> bool:
    """Whether a file is a temporary file that a killed process left, see `atomic_path`."""
    return re.fullmatch(r"\..+\.\d+(\.\w+)?", Path(path).name) is not None


def write_json(path: Path | str, content: Any) -> None:
    """Write `content` as indented JSON, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_json(path: Path | str, *keys: str) -> Any:
    """The content of a JSON file.

    Args:
        keys: keys that the JSON object must have.

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
        raise UserError(f"{path}: the key `{missing[0]}` is missing; is it the right file?")
    return content


# --- CSVs -------------------------------------------------------------------------------------------------------


def write_rows(path: Path | str, rows: pd.DataFrame, *columns: str) -> None:
    """Write rows as a CSV that every tool here reads, whole or not at all; see `csv_text`."""
    with atomic_path(path) as temporary:
        temporary.write_text(csv_text(rows, *columns), encoding="utf-8")


def csv_text(rows: pd.DataFrame, *columns: str) -> str:
    """Rows as a CSV: `img,filename[,weight][,iterations]`.

    Args:
        rows: DataFrame with columns `image`, `mask` and those asked for.
        columns: names of the columns after the first two.

    Paths under the working directory are written relative to it, others absolute.

    Raises:
        UserError: a file's name is not UTF-8.
    """
    home = os.path.join(os.getcwd(), "")
    paths = {title: [portable(path, home) for path in rows[column]]
             for title, column in (("img", "image"), ("filename", "mask"))}
    refuse_other_than_utf8(paths["img"] + paths["filename"])
    table = pd.DataFrame(paths)
    for column in columns:
        table[column] = rows[column].to_numpy()
    return table.to_csv(index=False)


def is_utf8(path: Path | str) -> bool:
    """Whether a file name is valid UTF-8. Python marks bytes that are not by lone surrogates."""
    return not any("\ud800" <= letter <= "\udfff" for letter in str(path))


def refuse_other_than_utf8(paths: Iterable[Path | str]) -> None:
    """Raise UserError if a file name, which a CSV shall hold, is not valid UTF-8."""
    for path in paths:
        if not is_utf8(path):
            raise UserError(f"{str(path)!r}: a file name that is not UTF-8, which no CSV can hold; rename the file")


def portable(path: str, home: str) -> str:
    """A path relative to `home`, the working directory with a slash behind it, if it lies there, else the whole path."""
    absolute = os.path.abspath(path)
    return (absolute[len(home):] if absolute.startswith(home) else absolute).replace(os.sep, "/")


def refuse_existing(path: Path | str, overwrite: bool) -> None:
    """Raise UserError if the output exists and the user has not asked to replace it."""
    if Path(path).exists() and not overwrite:
        raise UserError(f"{path} exists; pass --overwrite to replace it, or choose another name")


# --- outputs of a tool: all of them, or none --------------------------------------------------------------------


def check_outputs(outputs: Iterable[Path | str], overwrite: bool, inputs: Iterable[Path | str | None] = ()) -> None:
    """Raise UserError unless a tool may write all of its outputs; called before the work begins.

    Args:
        outputs: paths of the files that it will write.
        overwrite: replace those that exist.
        inputs: paths that it reads (None is skipped); they are never replaced, even with `overwrite`.
    """
    spelt = list(map(str, outputs))
    names = {os.path.abspath(path): path for path in spelt}  # whole path -> as the user spells it
    if len(names) < len(spelt):
        twice, times = Counter(map(os.path.abspath, spelt)).most_common(1)[0]
        raise UserError(f"{names[twice]}: {times} outputs have this name; choose others, or rename inputs that share a stem")
    there = {_identity(path): path for path in spelt if os.path.lexists(path)}
    for source in inputs if there else ():
        if source and os.path.exists(source) and _identity(source) in there:
            raise UserError(f"{there[_identity(source)]} is read here and would be lost; choose another output")
    for path in there.values():
        if os.path.isdir(path):
            raise UserError(f"{path} is a folder; pass the name of a file")
        refuse_existing(path, overwrite)
    for folder in dict.fromkeys(map(os.path.dirname, names)):
        _check_folder(folder, names)


def _identity(path: Path | str) -> tuple[int, int]:
    """Device and inode of a file, the same for all its names; of a broken link, the link's own."""
    found = os.stat(path) if os.path.exists(path) else os.lstat(path)
    return found.st_dev, found.st_ino


def _check_folder(folder: str, outputs: dict[str, str]) -> None:
    """Raise UserError unless files can be written to a folder, which need not exist yet.

    Args:
        outputs: dict of the whole path of each output -> as the user spells it.
    """
    for each in (folder, *map(str, Path(folder).parents)):
        if each in outputs:
            raise UserError(f"{outputs[each]}: cannot be an output and the folder of another one; choose another name for it")
        if os.path.isdir(each):
            if not os.access(each, os.W_OK | os.X_OK):
                raise UserError(f"{each}: this folder may not be written to; choose another output")
            return
        if os.path.lexists(each):
            raise UserError(f"{os.path.relpath(each)} is a file and cannot be a folder; choose another output")


@contextlib.contextmanager
def together() -> Iterator[Callable[[Path | str], Path]]:
    """Outputs that appear all at once when the block succeeds, or not at all.

    Yields:
        function of an output's path that returns a temporary path to write to: the same name, in a hidden folder beside it.
        Outputs appear in the order of these calls; an output that was not written does not appear.

    Raises:
        UserError: a folder cannot be made, or an output cannot be put in its place.
    """
    part = f".{socket.gethostname()}-{os.getpid()}.part"
    places: dict[Path, Path] = {}  # temporary path -> path of the output
    parts: set[Path] = set()  # hidden folders
    made: list[Path] = []  # new folders above them

    def written_at(path: Path | str) -> Path:
        path = Path(path)
        folder = path.parent / part
        if folder not in parts:
            made.extend(each for each in folder.parents if not each.exists())
            _make_part(folder, path)
            parts.add(folder)
        places[folder / path.name] = path
        return folder / path.name

    try:
        yield written_at
        for temporary, path in places.items():
            if temporary.exists():
                with _named(path):
                    os.replace(temporary, path)
    except UserError as error:
        raise UserError(str(error).replace(part + os.sep, "")) from None
    except KeyboardInterrupt as stop:
        raise type(stop)(str(stop) or "interrupted; unfinished outputs are removed") from None
    finally:
        _remove_parts(parts, made)


def _remove_parts(parts: Iterable[Path], made: Iterable[Path]) -> None:
    """Remove the hidden folders, and the new folders above them that hold no output."""
    for folder in parts:
        shutil.rmtree(folder, ignore_errors=True)
    for folder in sorted(made, key=lambda each: -len(each.parts)):
        with contextlib.suppress(OSError):  # it holds the outputs
            folder.rmdir()


def _make_part(folder: Path, output: Path) -> None:
    """Make the hidden folder in which an output waits for the others."""
    with _named(output):
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale_parts(folder)
        folder.mkdir()


@contextlib.contextmanager
def _named(path: Path | str) -> Iterator[None]:
    """Turn an OSError into a UserError that names the output."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from None


def _remove_stale_parts(own: Path) -> None:
    """Remove hidden folders that killed processes of this machine left beside `own`, and `own` itself if it exists."""
    import psutil  # seldom needed

    for path in own.parent.iterdir():
        found = re.fullmatch(re.escape(f".{socket.gethostname()}-") + r"(\d+)\.part", path.name)
        if found and (path == own or not psutil.pid_exists(int(found[1]))):
            shutil.rmtree(path, ignore_errors=True)
