"""CamVid, 11 classes -> CSVs and classes.json.

    python data/prepare_camvid.py CamVid --out data/csv/camvid

reads train/, val/, test/ with their label maps in trainannot/, valannot/, testannot/ (the layout most tutorials share, 11 =
void), or train/images/ and train/labels/ and so on; 11 becomes 255. Street scenes have no background class: make noise with
utils/generate_noisy_label.py --num-classes 11 --background none.
"""

from pathlib import Path

import numpy as np

from cli.command_line import command_line
from data import IGNORE_INDEX
from data.converted_masks import convert_masks
from data.legend import write_legend
from data.pictures import read_mask
from data.splits import open_output, pair_by_stem, prepare_parser, require, write_splits

SPLITS = {"train": "train", "valid": "val", "test": "test"}
VOID = 11
NAMES = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist")
COLOURS = ((128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0), (192, 128, 128),
           (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192))  # the data set's own


def convert(path: Path | str) -> np.ndarray:
    """A label file as a label map: 0..10, 255 = void."""
    labels = read_mask(path, len(NAMES))
    return np.where(labels == VOID, IGNORE_INDEX, labels).astype(np.uint8)


def main() -> None:
    parser = prepare_parser(__doc__, "holds train/, val/, test/")
    args = parser.parse_args()

    root, out = Path(args.folder), Path(args.out)
    nested = (root / "train" / "images").is_dir()
    folders = {split: (root / name / "images", root / name / "labels") if nested else (root / name, root / f"{name}annot")
               for split, name in SPLITS.items()}
    require(*[folder for pair in folders.values() for folder in pair],
            layout="train/ val/ test/ and trainannot/ valannot/ testannot/, or {train,val,test}/{images,labels}/")
    splits = {split: pair_by_stem(*pair) for split, pair in folders.items()}
    open_output(args)
    for split, rows in splits.items():
        targets = [str(out / "masks" / split / f"{Path(mask).stem}.png") for mask in rows["mask"]]
        convert_masks(list(zip(rows["mask"], targets)), convert, len(NAMES), args.overwrite)
        rows["mask"] = targets
    write_legend(out, NAMES, COLOURS, args.overwrite)
    write_splits(out, splits, args.overwrite)


if __name__ == "__main__":
    command_line(main)
