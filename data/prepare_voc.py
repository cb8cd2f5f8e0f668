"""PASCAL VOC 2012 segmentation, 21 classes -> CSVs and classes.json.

    python data/prepare_voc.py data/generated/voc --out data/csv/voc --download
    python data/prepare_voc.py data/generated/voc --out data/csv/voc_aug --annotations aug
    python data/prepare_voc.py data/generated/voc --out data/coco/voc --instances

reads VOCdevkit/VOC2012 in the folder, which --download fetches (torchvision, 2 GB). train is split into train and valid, val
is the test set. The masks are read as they are: palette indices are the classes, the border (255) is ignored.

--annotations aug trains on the masks of SegmentationClassAug (Hariharan et al. 2011; put the folder beside SegmentationClass):
all of them whose image is not in val, 10,582.

--instances writes train.json, valid.json and test.json instead, COCO files of the 20 classes of objects; SegmentationObject
tells them apart.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from cli.command_line import command_line
from cli.files import UserError
from data.coco_files import categories
from data.instance_maps import Found, write_instance_splits
from data.legend import write_legend
from data.splits import close_output, divide, download, listed_names, open_output, prepare_parser, require, write_splits

NAMES = ("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
         "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor")


def read_list(home: Path, split: str) -> pd.DataFrame:
    """Rows (`image`, `mask`) that ImageSets/Segmentation/SPLIT.txt names."""
    stems = listed_names(home / "ImageSets" / "Segmentation" / f"{split}.txt")
    return pd.DataFrame({"image": [str(home / "JPEGImages" / f"{stem}.jpg") for stem in stems],
                         "mask": [str(home / "SegmentationClass" / f"{stem}.png") for stem in stems]})


def augmented_rows(home: Path, test: pd.DataFrame) -> pd.DataFrame:
    """Rows of all masks in SegmentationClassAug but those of the test images."""
    taken = {Path(image).stem for image in test["image"]}
    masks = sorted(path for path in (home / "SegmentationClassAug").glob("*.png") if path.stem not in taken)
    if not masks:
        raise UserError(f"{home / 'SegmentationClassAug'}: holds no masks but those of val")
    return pd.DataFrame({"image": [str(home / "JPEGImages" / f"{mask.stem}.jpg") for mask in masks],
                         "mask": list(map(str, masks))})


def instances(row: Any) -> Found:
    """The objects of `row.objects`, each of the class that most of its pixels have in `row.mask`."""
    numbers, classes = (np.asarray(Image.open(path)) for path in (row.objects, row.mask))
    for number in np.unique(numbers).tolist():
        mask = numbers == number
        if number not in (0, 255):  # background, border
            inside = classes[mask]
            inside = inside[(inside > 0) & (inside < len(NAMES))]
            if len(inside):
                yield int(np.bincount(inside).argmax()), mask, False


def main() -> None:
    parser = prepare_parser(__doc__, "holds VOCdevkit/VOC2012", valid_of="train")
    parser.add_argument("--download", action="store_true", help="fetch the data set into the folder first")
    parser.add_argument("--instances", action="store_true", help="write COCO files of instances")
    parser.add_argument("--annotations", choices=("original", "aug"), default="original", help="masks to train on")
    args = parser.parse_args()
    if args.instances and args.annotations == "aug":
        raise UserError("--annotations aug: SegmentationClassAug has no instances; leave out one of the two flags")

    home = Path(args.folder) / "VOCdevkit" / "VOC2012"
    if args.download and not home.exists():
        download("VOCSegmentation", args.folder, year="2012", image_set="trainval")
    lists = home / "ImageSets" / "Segmentation"
    require(lists / "train.txt", lists / "val.txt", home / "JPEGImages", home / "SegmentationClass",
            layout="VOCdevkit/VOC2012 with JPEGImages/, SegmentationClass/ and ImageSets/Segmentation/{train,val}.txt")
    rest, test = read_list(home, "train"), read_list(home, "val")
    if args.annotations == "aug":
        require(home / "SegmentationClassAug", layout="SegmentationClassAug/ beside SegmentationClass/")
        rest = augmented_rows(home, test)
    require(*rest["image"], *rest["mask"], *test["image"], *test["mask"], layout="an image and a mask for each listed name")
    train, valid = divide(rest, args.valid, args.seed)
    splits = {"train": train, "valid": valid, "test": test}
    if args.instances:
        splits = {name: rows.assign(objects=rows["mask"].str.replace("SegmentationClass", "SegmentationObject"))
                  for name, rows in splits.items() if len(rows)}
        require(*(path for rows in splits.values() for path in rows["objects"]), layout="SegmentationObject/ beside "
                "SegmentationClass/")
        open_output(args)
        write_instance_splits(Path(args.out), splits, instances, categories(NAMES[1:]), args.overwrite)
        close_output(args.out)
        return
    del args.instances  # folders that an earlier version made do not know it
    if args.annotations == "original":
        del args.annotations  # nor this one
    open_output(args)
    write_legend(Path(args.out), NAMES, overwrite=args.overwrite)
    write_splits(args.out, splits, args.overwrite)


if __name__ == "__main__":
    command_line(main)
