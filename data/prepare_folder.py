"""A folder of photographs and masks -> train, valid and test CSVs.

    python data/prepare_folder.py my_photos --out data/csv/my_photos

reads my_photos/images and my_photos/masks, paired by stem (.jpg, .png, .tif, .bmp, .webp; subfolders are not
looked into), and writes train.csv, valid.csv and test.csv to data/csv/my_photos, split at random by --seed. The files
themselves stay where they are.
"""


from cli.command_line import command_line, positive_int, share
from data.pictures import image_size
from data.splits import pair_folder, prepare_parser, split_rows, write_splits


def main() -> None:
    parser = prepare_parser(__doc__, "holds images/ and masks/", valid_of="all")
    parser.add_argument("--test", type=share, default=0.2, help="share for test")
    parser.add_argument("--limit", type=positive_int, help="take so many pairs only, at random")
    args = parser.parse_args()

    rows = pair_folder(args.folder)
    for path in rows["image"].tolist() + rows["mask"].tolist():
        image_size(path)
    write_splits(args.out, split_rows(rows, args.valid, args.test, args.seed, args.limit), args.overwrite)


if __name__ == "__main__":
    command_line(main)
