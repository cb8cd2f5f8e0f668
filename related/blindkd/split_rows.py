"""The rows that train and the rows that validate in blind_knowledge_dist_training.py, as CSVs for the other scripts.

    python related/blindkd/split_rows.py --csv data/csv/digits/train_worst_0.csv --seed 0 --out data/csv/digits/worst_0_seed_0

writes train.csv and valid.csv to --out, and classes.json and normalisation.json where the CSV has them beside it. So a baseline
learns and validates on just the rows that the method does.
"""

from pathlib import Path

from cli.command_line import command_line, seed_number, share, tool_parser
from cli.files import UserError, read_json
from data.class_sets import class_rows, write_class_set
from data.classification import NORMALISATION, read_class_names, read_class_rows
from related.blindkd.flags import PUBLISHED
from related.blindkd.noisy_set import split_rows


def main() -> None:
    parser = tool_parser(__doc__)
    parser.add_argument("--csv", required=True, help="class CSV, headed image,label")
    parser.add_argument("--val_ratio", "--val-ratio", type=share, default=PUBLISHED["val_ratio"], help="share that validates")
    parser.add_argument("--seed", type=seed_number, default=0, help="of the split")
    parser.add_argument("--out", required=True, help="folder of the CSVs")
    parser.add_argument("--overwrite", action="store_true", help="replace files of other content")
    args = parser.parse_args()

    names = read_class_names(args.csv)
    rows = read_class_rows(args.csv, names)
    if not 0 < args.val_ratio < 1:
        raise UserError(f"--val_ratio {args.val_ratio:g}: a share between 0 and 1 is needed, or there is nothing to split")
    parts = zip(("train", "valid"), split_rows(rows, args.csv, args.val_ratio, args.seed))
    texts = names or [str(number) for number in range(int(rows["label"].max()) + 1)]
    splits = {name: class_rows(part["image"], part["label"], texts) for name, part in parts}
    beside = Path(args.csv).with_name(NORMALISATION)
    facts = {NORMALISATION: read_json(beside)} if beside.exists() else {}
    write_class_set(Path(args.out), texts, splits, args.overwrite, facts=facts)


if __name__ == "__main__":
    command_line(main)
