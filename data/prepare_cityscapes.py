"""Cityscapes, 19 classes, fine or official coarse annotations -> masks, CSVs and classes.json.

    python data/prepare_cityscapes.py cityscapes --annotations coarse --out data/csv/cityscapes_coarse
    python data/prepare_cityscapes.py cityscapes --instances --out data/coco/cityscapes

reads leftImg8bit/{train,val}/CITY/*_leftImg8bit.png and gtFine or gtCoarse/{train,val}/CITY/*_labelIds.png as the data set's
site packs them. train is split into train and valid, with the annotations asked for; val, fine, is the test set. With coarse
ones and gtFine/train at hand, train_truth.csv and valid_truth.csv hold the same rows with fine masks. Label ids become the 19
train ids, all others 255. Street scenes have no background class: make noise with utils/generate_noisy_label.py
--num-classes 19 --background none.

--instances writes train.json, valid.json and test.json instead, COCO files of the 8 classes that have instances, from
gtFine/.../*_instanceIds.png; regions of several objects that nobody told apart are marked as crowds.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cli.command_line import command_line
from cli.files import UserError
from data import IGNORE_INDEX
from data.coco_files import categories
from data.converted_masks import convert_masks
from data.instance_maps import Found, read_numbers, write_instance_splits
from data.legend import write_legend
from data.pictures import read_mask
from data.splits import close_output, divide, open_output, prepare_parser, refuse_left_over, require, write_splits

CLASSES = (  # label id, name, colour; the train id is the position (the data set's own table)
    (7, "road", (128, 64, 128)), (8, "sidewalk", (244, 35, 232)), (11, "building", (70, 70, 70)), (12, "wall", (102, 102, 156)),
    (13, "fence", (190, 153, 153)), (17, "pole", (153, 153, 153)), (19, "traffic light", (250, 170, 30)),
    (20, "traffic sign", (220, 220, 0)), (21, "vegetation", (107, 142, 35)), (22, "terrain", (152, 251, 152)),
    (23, "sky", (70, 130, 180)), (24, "person", (220, 20, 60)), (25, "rider", (255, 0, 0)), (26, "car", (0, 0, 142)),
    (27, "truck", (0, 0, 70)), (28, "bus", (0, 60, 100)), (31, "train", (0, 80, 100)), (32, "motorcycle", (0, 0, 230)),
    (33, "bicycle", (119, 11, 32)))
TRAIN_ID = np.full(256, IGNORE_INDEX, np.uint8)
TRAIN_ID[[label for label, _, _ in CLASSES]] = range(len(CLASSES))


WITH_INSTANCES = {label: name for label, name, _ in CLASSES if label in (24, 25, 26, 27, 28, 31, 32, 33)}


def convert(path: Path | str) -> np.ndarray:
    """A labelIds file as a label map: 0..18, 255."""
    return TRAIN_ID[read_mask(path, 255)]


def instances(row: Any) -> Found:
    """The instances in the instanceIds file `row.source`: 1000 x label id + number, or, of a crowd, the label id alone."""
    numbers = read_numbers(row.source)
    for number in np.unique(numbers).tolist():
        label = number // 1000 if number >= 1000 else number
        if label in WITH_INSTANCES:
            yield label, numbers == number, number < 1000


def find(root: Path, kind: str, split: str, ids: str = "labelIds") -> pd.DataFrame:
    """Rows of a split: `image`, `source` (the annotation file); images without one are an error.

    Args:
        kind: `gtFine` or `gtCoarse`.
        ids: `labelIds` or `instanceIds`, the kind of file.
    """
    layout = f"leftImg8bit/{split}/CITY/*_leftImg8bit.png with {kind}/{split}/CITY/*_{kind}_{ids}.png"
    require(root / "leftImg8bit" / split, root / kind / split, layout=layout)
    images = sorted((root / "leftImg8bit" / split).glob("*/*_leftImg8bit.png"))
    if not images:
        raise UserError(f"{root / 'leftImg8bit' / split}: no images; this is the layout that is read: {layout}")
    sources = [root / kind / split / image.parent.name / image.name.replace("leftImg8bit", f"{kind}_{ids}")
               for image in images]
    require(*sources, layout=layout)
    return pd.DataFrame({"image": map(str, images), "source": map(str, sources)})


def prepare_instances(args: argparse.Namespace, root: Path, out: Path) -> None:
    """Write the COCO files of --instances."""
    if args.annotations != "fine":
        raise UserError("--annotations coarse: has no instances; leave it out, or --instances")
    train, valid = divide(find(root, "gtFine", "train", "instanceIds"), args.valid, args.seed)
    splits = {"train": train, "valid": valid, "test": find(root, "gtFine", "val", "instanceIds")}
    open_output(args)
    listed = categories(list(WITH_INSTANCES.values()), list(WITH_INSTANCES))
    write_instance_splits(out, {name: rows for name, rows in splits.items() if len(rows)}, instances, listed, args.overwrite)
    close_output(out)


def main() -> None:
    parser = prepare_parser(__doc__, "holds leftImg8bit/, gtFine/ and, for coarse ones, gtCoarse/", valid_of="train")
    parser.add_argument("--annotations", choices=("fine", "coarse"), default="fine", help="of train and valid")
    parser.add_argument("--instances", action="store_true", help="write COCO files of instances, from the fine annotations")
    args = parser.parse_args()

    root, out = Path(args.folder), Path(args.out)
    if args.instances:
        prepare_instances(args, root, out)
        return
    del args.instances  # folders that an earlier version made do not know it
    train, valid = divide(find(root, f"gt{args.annotations.title()}", "train"), args.valid, args.seed)
    splits = {"train": train, "valid": valid, "test": find(root, "gtFine", "val")}
    if args.annotations == "coarse" and (root / "gtFine" / "train").is_dir():
        fine = find(root, "gtFine", "train")
        splits.update({f"{split}_truth": fine[fine["image"].isin(splits[split]["image"])] for split in ("train", "valid")})
    if args.overwrite:
        refuse_left_over(out, splits)
    open_output(args, "cityscapes")
    for split, rows in splits.items():
        splits[split] = rows.assign(mask=[str(out / "masks" / Path(source).name) for source in rows["source"]])
        convert_masks(list(zip(rows["source"], splits[split]["mask"])), convert, len(CLASSES), args.overwrite)
    write_legend(out, [name for _, name, _ in CLASSES], [colour for _, _, colour in CLASSES], args.overwrite)
    write_splits(out, splits, args.overwrite)


if __name__ == "__main__":
    command_line(main)
