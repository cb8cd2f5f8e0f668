"""One set of images with coarse and with fine masks -> coarse CSVs to train on, fine ones to test on and to compare with.

    python data/prepare_coarse_fine.py faces --coarse coarse --fine fine --out data/csv/faces --test-names "test_*"

reads faces/images and the two mask folders, paired by stem, and writes

    train.csv, valid.csv              coarse masks
    test.csv                          fine masks
    train_truth.csv, valid_truth.csv  the rows of train.csv and valid.csv with their fine masks: for trainings on clean masks,
                                      and for utils/get_weight.py --truth

Test rows are those whose stem fits --test-names, else a random share --test. The files stay where they are.
"""

from pathlib import Path

from cli.command_line import command_line
from cli.files import UserError
from data.legend import write_legend
from data.splits import add_test_flags, divide, open_output, pair_folder, prepare_parser, test_rows_apart, write_splits


def main() -> None:
    parser = prepare_parser(__doc__, "holds images/ and the two mask folders", valid_of="the other rows", valid=0.15)
    parser.add_argument("--coarse", default="coarse", help="folder of the coarse masks, in `folder`")
    parser.add_argument("--fine", default="fine", help="folder of the fine masks, in `folder`")
    add_test_flags(parser)
    parser.add_argument("--class-names", nargs="*", default=[], metavar="NAME", help="class 0, 1, ...: written to classes.json")
    args = parser.parse_args()

    rows = pair_folder(args.folder, args.coarse).merge(
        pair_folder(args.folder, args.fine).rename(columns={"mask": "fine"}), on="image")
    if rows.empty:
        raise UserError(f"{args.folder}: no image has a mask in both {args.coarse} and {args.fine}")
    if args.test_names is not None:
        rest, test = test_rows_apart(rows, args.test_names)
    else:
        rest, test = divide(rows, args.test, args.seed)
    train, valid = divide(rest, args.valid, args.seed)
    open_output(args)
    if args.class_names:
        write_legend(Path(args.out), args.class_names, overwrite=args.overwrite)
    fine = {name: part.assign(mask=part["fine"]) for name, part in (("train", train), ("valid", valid), ("test", test))}
    write_splits(args.out, {"train": train, "valid": valid, "test": fine["test"], "train_truth": fine["train"],
                            "valid_truth": fine["valid"]}, args.overwrite)


if __name__ == "__main__":
    command_line(main)
