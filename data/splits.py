"""Functions that the prepare scripts share: pair files, split rows, write outputs that a second call does not change."""

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from cli.command_line import seed_number, share, tool_parser
from cli.files import UserError, csv_text, read_json, refuse_other_than_utf8, write_json, write_rows
from data.pictures import IMAGE_SUFFIXES

SPLITS = ("train", "valid", "test")
RECORD = "prepared.json"


def files_by_stem(folder: Path) -> dict[str, Path]:
    """dict of stem -> path of the images in a folder; other files are named on stderr.

    Raises:
        UserError: no such folder, no images, two files of one stem, or a name that is not UTF-8.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; images and masks are needed side by side, paired by stem")
    found, others, folders = defaultdict(list), [], []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            folders.append(path.name)
        elif path.suffix.lower() in IMAGE_SUFFIXES:
            found[path.stem].append(path)
        else:
            others.append(path.name)
    suffixes = ", ".join(IMAGE_SUFFIXES)
    if not found:
        inside = f"; its folders are not looked into, e.g. {folders[0]}" if folders else ""
        raise UserError(f"{folder}: no {suffixes} in it{inside}")
    for paths in found.values():
        if len(paths) > 1:
            raise UserError(f"{folder}: {paths[0].name} and {paths[1].name} share a stem; rename or remove one")
        refuse_other_than_utf8(paths)
    for names, reason in ((folders, "folders, which are not looked into,"), (others, f"files that are none of {suffixes}")):
        if names:
            print(f"{folder}: {len(names)} {reason} are left out, e.g. {names[0]}", file=sys.stderr)
    return {stem: paths[0] for stem, paths in found.items()}


def is_picture(path: Path) -> bool:
    """Whether a file is one that `files_by_stem` pairs."""
    return path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def pair_folder(folder: Path | str, masks_in: str = "masks") -> pd.DataFrame:
    """`pair_by_stem` of the folders images/ and `masks_in` in `folder`."""
    return pair_by_stem(Path(folder) / "images", Path(folder) / masks_in)


def pair_by_stem(image_folder: Path, mask_folder: Path) -> pd.DataFrame:
    """Rows (`image`, `mask`) of all images that have a mask of the same stem, sorted by it; a line on stderr counts the others.

    Raises:
        UserError: nothing pairs.
    """
    images, masks = files_by_stem(image_folder), files_by_stem(mask_folder)
    for folder, lack, alone in ((image_folder, "mask", images.keys() - masks.keys()),
                                (mask_folder, "image", masks.keys() - images.keys())):
        if alone:
            print(f"{folder}: {len(alone)} files have no {lack} and are left out, e.g. {min(alone)}", file=sys.stderr)
    stems = sorted(images.keys() & masks.keys())
    if not stems:
        raise UserError(f"{image_folder} and {mask_folder}: no image and mask share a stem")
    return pd.DataFrame({"image": [str(images[s]) for s in stems], "mask": [str(masks[s]) for s in stems]})


def split_rows(rows: pd.DataFrame, valid_share: float, test_share: float, seed: int,
               limit: int | None = None) -> dict[str, pd.DataFrame]:
    """Rows in random order, cut into train, valid and test, each with one row at least.

    Args:
        limit: take so many rows only.

    Returns:
        dict of split -> rows, each in the order of `rows`.
    """
    order = np.random.default_rng(seed).permutation(len(rows))[:limit]
    valid, test = (max(1, round(len(order) * part)) for part in (valid_share, test_share))
    if valid + test >= len(order):
        raise UserError(f"{len(order)} pairs cannot be split into {valid} for validation, {test} for test and some to train on")
    parts = np.split(order, [len(order) - valid - test, len(order) - test])
    return {split: rows.iloc[np.sort(part)] for split, part in zip(SPLITS, parts)}


def some_of(rows: pd.DataFrame, limit: int | None, seed: int) -> pd.DataFrame:
    """At most `limit` of the rows, at random, in their order; None = all."""
    return rows.iloc[np.sort(np.random.default_rng(seed).permutation(len(rows))[:limit])]


def add_test_flags(parser: argparse.ArgumentParser) -> None:
    """--test-names and --test: which rows are for test."""
    parser.add_argument("--test-names", metavar="PATTERN|FILE",
                        help="stems of the test images: a pattern, e.g. 'test_*', or a text file, a stem or file name a line")
    parser.add_argument("--test", type=share, default=0.2, help="share for test, without --test-names")


def test_rows_apart(rows: pd.DataFrame, names: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of training and of test, as --test-names says.

    Args:
        names: a pattern of stems of images, or a text file that lists stems or file names.

    Raises:
        UserError: a listed name fits no image, or one side is empty.
    """
    if not names.strip():
        raise UserError("--test-names: is empty; pass a pattern of stems, or a file that lists them")
    paths = rows["image"].map(Path)
    if Path(names).is_file():
        wanted = [line.strip() for line in lines_of(names)]
        known = {name for path in paths for name in (path.stem, path.name)}
        unknown = [name for name in wanted if name not in known]
        if unknown:
            more = f", and {len(unknown) - 1} more" * (len(unknown) > 1)
            raise UserError(f"--test-names {names}: {unknown[0]!r}{more}: no image of a pair has this stem or name")
        chosen = paths.map(lambda path: not {path.stem, path.name}.isdisjoint(wanted))
    else:
        chosen = paths.map(lambda path: Path(path.stem).match(names))
    if chosen.all() or not chosen.any():
        what = "" if chosen.any() or Path(names).is_file() else " (as a pattern of stems; there is no such file)"
        raise UserError(f"--test-names {names}: fits {chosen.sum()} of {len(rows)} images{what}; both sides need some")
    return rows[~chosen], rows[chosen]


def divide(rows: pd.DataFrame, share_taken: float, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows, cut at random into (the rest, the share that is taken), both in their order and with one row at least.

    Raises:
        UserError: fewer than two rows.
    """
    taken = min(len(rows) - 1, max(1, round(share_taken * len(rows))))
    if taken < 1:
        raise UserError(f"{len(rows)} row cannot be split into training and validation")
    chosen = np.zeros(len(rows), bool)
    chosen[np.random.default_rng(seed).permutation(len(rows))[:taken]] = True
    return rows[~chosen], rows[chosen]


def prepare_parser(docstring: str | None, folder: str, valid_of: str | None = None,
                   valid: float = 0.1) -> argparse.ArgumentParser:
    """The parser of a prepare script: the folder to read, --out, --overwrite; where rows are split at random, --valid, --seed.

    Args:
        folder: help of the folder.
        valid_of: what --valid is a share of; None = the data set has its own split.
        valid: default of --valid.
    """
    parser = tool_parser(docstring)
    parser.add_argument("folder", help=folder)
    parser.add_argument("--out", required=True, help="folder for the CSVs and the other outputs")
    parser.add_argument("--overwrite", action="store_true", help="make existing files again")
    if valid_of:
        parser.add_argument("--valid", type=share, default=valid, help=f"share of {valid_of} for validation")
        parser.add_argument("--seed", type=seed_number, default=0, help="of the split")
    return parser


def require(*paths: Path | str, layout: str) -> None:
    """Raise a UserError that names the missing path and the expected layout."""
    for path in paths:
        if not Path(path).exists():
            raise UserError(f"{path}: not found; this is the layout that is read: {layout}")


def lines_of(path: Path | str) -> list[str]:
    """The lines of a list, without empty ones and comments (#).

    Raises:
        UserError: the file is not UTF-8.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except ValueError as error:
        raise UserError(f"{path}: not a text in UTF-8 ({error})") from None
    return [line for line in lines if line.strip() and not line.startswith("#")]


def listed_names(path: Path | str) -> list[str]:
    """The names that a list of a data set holds, the first word of each line; files are read and written under them.

    Raises:
        UserError: the file is not UTF-8, or a name holds a folder (such as ../x).
    """
    names = [line.split()[0] for line in lines_of(path)]
    for name in names:
        if Path(name).name != name:
            raise UserError(f"{path}: {name!r} is not the name of a file without its folder")
    return names


def download(name: str, folder: Path | str, **choice: str) -> None:
    """Fetch a data set by the torchvision class of that name.

    Raises:
        UserError: it could not be fetched.
    """
    from torchvision import datasets  # heavy, and not needed without --download

    try:
        getattr(datasets, name)(folder, download=True, **choice)
    except Exception as error:  # network, archive and disk raise many kinds
        raise UserError(f"--download: {name} could not be fetched into {folder} ({type(error).__name__}: {error}); fetch it by "
                        "hand and pass its folder") from None


def open_output(args: argparse.Namespace, data_set: str | None = None) -> None:
    """Make --out; refuse one that was made with other flags. A second call with the same flags continues an interrupted one;
    one that replaces files is noted as `unfinished` until `write_splits`, since it leaves files of both calls if it is stopped.

    Args:
        data_set: name of one of the paper's data sets, noted for `prepared_data_set`.

    Raises:
        UserError: --out was made with other flags, or files were being replaced, and --overwrite is not given.
    """
    settings = {key: value for key, value in vars(args).items() if key not in ("out", "overwrite", "download")}
    record = Path(args.out) / RECORD
    if record.exists() and not args.overwrite:
        before = {**read_json(record), "data_set": None}
        if before.pop("unfinished", False):
            raise UserError(f"{args.out}: a call that replaced its files was stopped ({record}); pass --overwrite again")
        if before != {**settings, "data_set": None}:
            raise UserError(f"{args.out} was made with other flags ({record}); pass --overwrite to make it anew, or another "
                            "--out")
    replaced = {"unfinished": True} if record.exists() and args.overwrite else {}
    write_json(record, {**settings, "data_set": data_set, **replaced})


def close_output(out: Path | str) -> None:
    """Note that a call of a prepare script has ended, see `open_output`."""
    record = Path(out) / RECORD
    if record.exists():
        write_json(record, {key: value for key, value in read_json(record).items() if key != "unfinished"})


def refuse_left_over(out: Path | str, splits: Iterable[str]) -> None:
    """Raise UserError if --out has CSVs of an earlier call that this one does not write: they would be read beside the new."""
    others = (Path(out) / f"{split}.csv" for split in ("valid", "train_truth", "valid_truth") if split not in splits)
    old = next((path for path in others if path.exists()), None)
    if old:
        raise UserError(f"{old}: is of an earlier call and would be read beside the new files; remove it, and call again")


def prepared_data_set(folder: Path | str) -> str | None:
    """Which of the paper's data sets a prepared folder holds; None if it holds another one or does not say."""
    record = Path(folder) / RECORD
    return read_json(record).get("data_set") if record.exists() else None


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None


def write_splits(out: Path | str, splits: dict[str, pd.DataFrame], overwrite: bool) -> None:
    """Write a CSV per split to a folder and say so; one that exists with the same content is left alone.

    Args:
        splits: dict of name -> rows (`image`, `mask`).

    Raises:
        UserError: a CSV exists with other content, and `overwrite` is not set; or with it there is one of an earlier call that
            would not be replaced and be read beside the others. No CSV is written then.
    """
    tables = {Path(out) / f"{split}.csv": rows for split, rows in splits.items()}
    changed = [path for path, rows in tables.items() if path.exists() and _bytes_of(path) != csv_text(rows).encode()]
    if changed and not overwrite:
        raise UserError(f"{changed[0]} exists with other rows; pass --overwrite to replace it, or choose another --out")
    if overwrite:
        refuse_left_over(out, splits)
    for path, rows in tables.items():
        write_rows(path, rows)
        print(f"{path}: {len(rows)} rows")
    close_output(out)

