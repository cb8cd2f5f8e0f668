"""A folder of photographs and masks -> train, valid and test CSVs.

    python data/prepare_folder.py my_photos --out data/csv/my_photos

reads my_photos/images and my_photos/masks, paired by stem (.jpg, .jpeg, .png), and writes train.csv, valid.csv and
test.csv to data/csv/my_photos, split at random by --seed. The files themselves stay where they are.
"""

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from data.command_line import command_line, positive_int, share, tool_parser
from data.files import IMAGE_SUFFIXES, UserError, image_size, refuse_existing, write_rows

SPLITS = ("train", "valid", "test")


def files_by_stem(folder):
    """dict of stem -> path of the images in a folder.

    Raises:
        UserError: no such folder, no images, or two files of one stem.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; images/ and masks/ are needed side by side")
    found = defaultdict(list)
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."):
            found[path.stem].append(path)
    if not found:
        raise UserError(f"{folder}: no {', '.join(IMAGE_SUFFIXES)} in it")
    for paths in found.values():
        if len(paths) > 1:
            raise UserError(f"{folder}: {paths[0].name} and {paths[1].name} share a stem; rename or remove one")
    return {stem: paths[0] for stem, paths in found.items()}


def pair_folder(folder):
    """Rows (`image`, `mask`) of all images in `folder` that have a mask, sorted by stem; the rest is told on stderr.

    Raises:
        UserError: nothing pairs.
    """
    images, masks = files_by_stem(Path(folder) / "images"), files_by_stem(Path(folder) / "masks")
    for have, lack, alone in (("images", "mask", images.keys() - masks.keys()),
                              ("masks", "image", masks.keys() - images.keys())):
        if alone:
            print(f"{folder}: {len(alone)} {have} have no {lack} and are left out, e.g. {min(alone)}", file=sys.stderr)
    stems = sorted(images.keys() & masks.keys())
    if not stems:
        raise UserError(f"{folder}: no image and mask share a stem")
    return pd.DataFrame({"image": [str(images[s]) for s in stems], "mask": [str(masks[s]) for s in stems]})


def split_rows(rows, valid_share, test_share, seed, limit=None):
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


def main():
    parser = tool_parser(__doc__)
    parser.add_argument("folder", help="holds images/ and masks/")
    parser.add_argument("--out", required=True, help="folder of the CSVs")
    parser.add_argument("--valid", type=share, default=0.1, help="share for validation")
    parser.add_argument("--test", type=share, default=0.2, help="share for test")
    parser.add_argument("--limit", type=positive_int, help="take so many pairs only, at random")
    parser.add_argument("--seed", type=int, default=0, help="of the split")
    parser.add_argument("--overwrite", action="store_true", help="replace existing CSVs")
    args = parser.parse_args()

    targets = {split: Path(args.out) / f"{split}.csv" for split in SPLITS}
    for path in targets.values():
        refuse_existing(path, args.overwrite)
    rows = pair_folder(args.folder)
    for path in rows["image"].tolist() + rows["mask"].tolist():
        image_size(path)
    for split, part in split_rows(rows, args.valid, args.test, args.seed, args.limit).items():
        write_rows(targets[split], part)
        print(f"{targets[split]}: {len(part)} rows")


if __name__ == "__main__":
    command_line(main)
