"""A folder of photographs and masks -> train, valid and test CSVs.

    python data/prepare_folder.py my_photos --out data/csv/my_photos

reads my_photos/images and my_photos/masks, paired by stem (.jpg, .png, .tif, .bmp, .webp; subfolders are not
looked into), and writes train.csv, valid.csv and test.csv to data/csv/my_photos, split at random by --seed. The files
themselves stay where they are. --test-names chooses the test rows: your best masks, since coarse ones would measure how well
a network imitates coarse masks.
"""


from cli.command_line import command_line, positive_int
from data.pictures import image_size
from data.splits import add_test_flags, divide, pair_folder, prepare_parser, some_of, split_rows, test_rows_apart, write_splits


def main() -> None:
    parser = prepare_parser(__doc__, "holds images/ and masks/", valid_of="all, or of those that --test-names leaves")
    add_test_flags(parser)
    parser.add_argument("--limit", type=positive_int, help="take so many pairs only, at random, --test-names apart")
    args = parser.parse_args()

    rows = pair_folder(args.folder)
    for path in rows["image"].tolist() + rows["mask"].tolist():
        image_size(path)
    if args.test_names is not None:
        others, test = test_rows_apart(rows, args.test_names)
        train, valid = divide(some_of(others, args.limit, args.seed), args.valid, args.seed)
        splits = {"train": train, "valid": valid, "test": test}
    else:
        splits = split_rows(rows, args.valid, args.test, args.seed, args.limit)
    write_splits(args.out, splits, args.overwrite)


if __name__ == "__main__":
    command_line(main)
