"""Oxford-IIIT Pet, binary pet masks -> masks and CSVs.

    python data/prepare_oxford_pet.py data/generated/pets --out data/csv/pets --download

reads oxford-iiit-pet/ in the folder, which --download fetches (torchvision, 0.8 GB). trainval is split into train and valid,
test is the test set. Of the trimaps, pet (1) becomes 1, background (2) becomes 0, the border between them (3) is ignored
(255).
"""

from pathlib import Path

import numpy as np
import pandas as pd

from cli.command_line import command_line
from data import IGNORE_INDEX
from data.converted_masks import convert_masks
from data.pictures import read_checked_mask
from data.splits import divide, download, listed_names, open_output, prepare_parser, require, write_splits

LABEL_OF = np.array([IGNORE_INDEX, 1, 0, IGNORE_INDEX], np.uint8)  # by trimap value; 0 does not occur


def convert(path: Path | str) -> np.ndarray:
    """A trimap as a label map: 0, 1, 255."""
    return LABEL_OF[read_checked_mask(path, len(LABEL_OF)) % IGNORE_INDEX]


def main() -> None:
    parser = prepare_parser(__doc__, "holds oxford-iiit-pet/", valid_of="trainval")
    parser.add_argument("--download", action="store_true", help="fetch the data set into the folder first")
    args = parser.parse_args()

    home, out = Path(args.folder) / "oxford-iiit-pet", Path(args.out)
    if args.download and not home.exists():
        download("OxfordIIITPet", args.folder, split="trainval", target_types="segmentation")
    trimaps = home / "annotations" / "trimaps"
    require(home / "annotations" / "trainval.txt", home / "annotations" / "test.txt", home / "images", trimaps,
            layout="oxford-iiit-pet/ with images/ and annotations/{trimaps/,trainval.txt,test.txt}")
    parts = {split: listed_names(home / "annotations" / f"{split}.txt") for split in ("trainval", "test")}
    rows = {}
    for split, stems in parts.items():
        images = [home / "images" / f"{stem}.jpg" for stem in stems]
        require(*images, *(trimaps / f"{stem}.png" for stem in stems), layout="an image and a trimap for each listed name")
        masks = [str(out / "masks" / f"{stem}.png") for stem in stems]
        rows[split] = pd.DataFrame({"image": map(str, images), "mask": masks})
    train, valid = divide(rows["trainval"], args.valid, args.seed)
    open_output(args)
    jobs = [(trimaps / Path(mask).name, mask) for part in rows.values() for mask in part["mask"]]
    convert_masks(jobs, convert, 2, args.overwrite)
    write_splits(out, {"train": train, "valid": valid, "test": rows["test"]}, args.overwrite)


if __name__ == "__main__":
    command_line(main)
