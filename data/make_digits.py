"""scikit-learn's handwritten digits, 8x8 px, 10 classes: a real set of class labels that needs no download.

    python data/make_digits.py --out data/csv/digits

writes the 1,797 pictures as PNGs (0..16 grey levels spread over 0..255), classes.json, train_clean.csv (1,200 rows) and
test.csv (597 rows). The split is fixed: the first 1,200 pictures, in scikit-learn's order, train; the last 597 test. Nothing
is drawn at random. Make wrong labels with utils/class_noise.py.
"""

from pathlib import Path

import numpy as np

from cli.command_line import command_line, tool_parser
from data.class_sets import class_rows, write_class_set

TRAINING = 1200  # pictures; the other 597 are the test set
LEVELS = 16  # grey levels above black


def digits() -> tuple[np.ndarray, np.ndarray]:
    """(pictures uint8 (1797, 8, 8) of 0..255, labels int64 (1797,) of 0..9), in scikit-learn's order."""
    from sklearn.datasets import load_digits  # not needed for --help

    data = load_digits()
    return np.rint(data.images * (255 / LEVELS)).astype(np.uint8), data.target.astype(np.int64)


def main() -> None:
    parser = tool_parser(__doc__)
    parser.add_argument("--out", required=True, help="folder of the CSVs")
    parser.add_argument("--images", help="folder of the pictures (default: images/ in --out)")
    parser.add_argument("--overwrite", action="store_true", help="replace files of other content")
    args = parser.parse_args()

    out = Path(args.out)
    folder = Path(args.images) if args.images else out / "images"
    pictures, labels = digits()
    names = [str(digit) for digit in range(10)]
    files = [folder / f"{number:04d}.png" for number in range(len(pictures))]
    rows = class_rows(files, labels, names)
    write_class_set(out, names, {"train_clean": rows[:TRAINING], "test": rows[TRAINING:]}, args.overwrite,
                    list(zip(files, pictures)))


if __name__ == "__main__":
    command_line(main)
