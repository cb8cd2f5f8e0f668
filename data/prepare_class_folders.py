"""Folders of pictures, one folder per class -> train, valid and test CSVs headed `image,label`, and classes.json.

    python data/prepare_class_folders.py my_classes --out data/csv/my_classes

reads my_classes/CLASS/*.jpg (.png, .tif, .bmp, .webp) and splits at random by --seed, or my_classes/train/CLASS/*.jpg and
my_classes/test/CLASS/*.jpg, of which a share --valid of train/ becomes valid.csv unless there is a valid/ or val/ too. Classes
are sorted by name, by number where all names are numbers. The files themselves stay where they are; folders in a class's folder
are not looked into.
"""

import re
import sys
from pathlib import Path

import pandas as pd

from cli.command_line import command_line, positive_int, share
from cli.files import UserError, progress
from data.class_sets import class_rows, write_class_set
from data.pictures import image_size
from data.splits import divide, is_picture, prepare_parser, require, split_rows

ClassFiles = dict[str, list[Path]]  # name of a class -> its pictures


def class_files(folder: Path) -> ClassFiles:
    """Pictures of each subfolder that is not hidden; an empty one, and what else lies there, is told on stderr.

    Raises:
        UserError: no subfolders, or no picture in any.
    """
    require(folder, layout="DIR/CLASS/*.jpg, or DIR/train/CLASS/*.jpg and DIR/test/CLASS/*.jpg")
    if not folder.is_dir():
        raise UserError(f"{folder}: not a folder; pass one that holds a folder of pictures per class")
    inside = sorted(each for each in folder.iterdir() if not each.name.startswith("."))
    folders = [each for each in inside if each.is_dir()]
    if not folders:
        raise UserError(f"{folder}: no subfolders; each class needs a folder of its own with its pictures")
    files = {each.name: sorted(filter(is_picture, each.iterdir())) for each in folders}
    if not any(files.values()):
        raise UserError(f"{folder}: no pictures in its {len(folders)} subfolders, e.g. {folders[0]}")
    others = [each for each in inside if each not in folders]
    others += [each for part in folders for each in sorted(part.iterdir()) if not is_picture(each) and each.name[0] != "."]
    if others:
        print(f"{folder}: {len(others)} files and folders that are no picture of a class are left out, e.g. {others[0]}",
              file=sys.stderr)
    for name, found in files.items():
        if not found:
            print(f"{folder / name}: no pictures, the class is left out here", file=sys.stderr)
    return {name: found for name, found in files.items() if found}


def ordered_names(names: set[str], folder: Path) -> list[str]:
    """Names of the classes in the order that numbers them.

    Raises:
        UserError: fewer than two, or one with spaces around it, which no CSV keeps.
    """
    if len(names) < 2:
        raise UserError(f"{folder}: one class alone, {', '.join(names)}; two folders with pictures are needed at least")
    for name in names:
        if name != name.strip():
            raise UserError(f"{str(folder)}: the class {name!r} has spaces around its name; rename its folder")
    numbers = all(re.fullmatch("[0-9]+", name) for name in names)
    return sorted(names, key=lambda name: (int(name), name)) if numbers else sorted(names)


def rows_of(files: ClassFiles, names: list[str]) -> pd.DataFrame:
    """Rows of all pictures, class by class; each file's header is read.

    Raises:
        UserError: a file is no image.
    """
    pairs = [(path, number) for number, name in enumerate(names) for path in files.get(name, ())]
    for path, _ in progress(pairs, "looking", unit="picture"):
        image_size(path)
    return class_rows((path for path, _ in pairs), (number for _, number in pairs), names)


def read_splits(folder: Path, valid_share: float, seed: int) -> tuple[list[str], dict[str, pd.DataFrame]]:
    """(names, dict of split -> rows) of a folder with train/ and test/.

    Raises:
        UserError: a class outside train/ is none of train/'s, or there is no test/.
    """
    validation = next((name for name in ("valid", "val") if (folder / name).is_dir()), None)
    require(folder / "test", layout="DIR/train/CLASS/*.jpg and DIR/test/CLASS/*.jpg")
    files = {split: class_files(folder / split) for split in ("train", "test", *([validation] if validation else []))}
    names = ordered_names(set(files["train"]), folder / "train")
    for split, found in files.items():
        strange = sorted(set(found) - set(names))
        if strange:
            raise UserError(f"{folder / split / strange[0]}: a class that does not occur in {folder / 'train'}")
        lacking = [name for name in names if name not in found]
        if lacking:
            print(f"{folder / split}: {len(lacking)} of {len(names)} classes have no pictures, e.g. {lacking[0]}",
                  file=sys.stderr)
    rows = {split: rows_of(found, names) for split, found in files.items()}
    if validation:
        return names, {"train": rows["train"], "valid": rows[validation], "test": rows["test"]}
    train, valid = divide(rows["train"], valid_share, seed)
    return names, {"train": train, "valid": valid, "test": rows["test"]}


def check_training(names: list[str], train: pd.DataFrame) -> None:
    """Raise UserError if the split at random left a class without a picture to train on."""
    lacking = sorted(set(names) - set(train["label"]))
    if lacking:
        raise UserError(f"no picture of the class {lacking[0]} is left to train on; add pictures of it, or choose another "
                        "--seed, --valid or --test")


def main() -> None:
    parser = prepare_parser(__doc__, "holds a folder per class, or train/ and test/ with such folders",
                            valid_of="training pictures")
    parser.add_argument("--test", type=share, default=0.2, help="share for test, where there is no test/")
    parser.add_argument("--limit", type=positive_int, help="take so many pictures only, at random, where there is no test/")
    args = parser.parse_args()

    folder = Path(args.folder)
    train = folder / "train"
    if train.is_dir() and any(each.is_dir() and not each.name.startswith(".") for each in train.iterdir()):
        names, splits = read_splits(folder, args.valid, args.seed)
    else:
        files = class_files(folder)
        names = ordered_names(set(files), folder)
        splits = split_rows(rows_of(files, names), args.valid, args.test, args.seed, args.limit)
    check_training(names, splits["train"])
    write_class_set(Path(args.out), names, splits, args.overwrite)


if __name__ == "__main__":
    command_line(main)
