"""A folder of photographs and masks -> train, valid and test CSVs.

    python data/prepare_folder.py my_photos --out data/csv/my_photos

reads my_photos/images and my_photos/masks, paired by stem (.jpg, .jpeg, .png), and writes train.csv, valid.csv and
test.csv to data/csv/my_photos, split at random by --seed. The files themselves stay where they are.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from data.command_line import command_line, positive_int, share, tool_parser
from data.files import image_size
from data.splits import pair_folder, split_rows, write_splits


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

    rows = pair_folder(args.folder)
    for path in rows["image"].tolist() + rows["mask"].tolist():
        image_size(path)
    write_splits(args.out, split_rows(rows, args.valid, args.test, args.seed, args.limit), args.overwrite)


if __name__ == "__main__":
    command_line(main)
