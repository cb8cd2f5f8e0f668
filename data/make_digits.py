"""scikit-learn's handwritten digits, 8x8 px, 10 classes: a real set of class labels that needs no download.

    python data/make_digits.py --out data/csv/digits
    python data/make_digits.py --background --out data/csv/rois

writes the 1,797 pictures as PNGs (0..16 grey levels spread over 0..255), classes.json, train_clean.csv (1,200 rows) and
test.csv (597 rows). The split is fixed: the first 1,200 pictures, in scikit-learn's order, train; the last 597 test. Nothing
is drawn at random. Make wrong labels with utils/class_noise.py.

With --background there is an eleventh class, `background`, which comes first (number 0): as many patches, each glued from
halves of two unlike digits of its own split, each half on the side where it does not belong. So the pictures are like the
regions that a detector classifies: an object, or parts of some. Which halves, --seed says.
"""

from pathlib import Path

import numpy as np

from cli.command_line import command_line, seed_number, tool_parser
from data.class_sets import class_rows, write_class_set

TRAINING = 1200  # pictures; the other 597 are the test set
LEVELS = 16  # grey levels above black


def digits() -> tuple[np.ndarray, np.ndarray]:
    """(pictures uint8 (1797, 8, 8) of 0..255, labels int64 (1797,) of 0..9), in scikit-learn's order."""
    from sklearn.datasets import load_digits  # not needed for --help

    data = load_digits()
    return np.rint(data.images * (255 / LEVELS)).astype(np.uint8), data.target.astype(np.int64)


def glued(pictures: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
    """As many patches as pictures: half of each picture and half of one of another label, either of them on the wrong side.

    Args:
        pictures: uint8 (N, S, S), S even.
        labels: int (N,), of two classes or more.

    Returns:
        uint8 (N, S, S).
    """
    numbers, patches = np.random.default_rng(seed), np.empty_like(pictures)
    half = pictures.shape[1] // 2
    for patch, own, label in zip(patches, pictures, labels):
        other = pictures[numbers.choice(np.flatnonzero(labels != label))]
        if numbers.random() < 0.5:
            patch[:half], patch[half:] = own[half:], other[:half]
        else:
            patch[:, :half], patch[:, half:] = own[:, half:], other[:, :half]
    return patches


def with_background(pictures: np.ndarray, labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Digits and, behind each split's, as many patches of background: (pictures (2N, 8, 8), labels (2N,), 0 = background)."""
    parts = [slice(None, TRAINING), slice(TRAINING, None)]
    patches = [glued(pictures[part], labels[part], seed + number) for number, part in enumerate(parts)]
    images = [each for part, glue in zip(parts, patches) for each in (pictures[part], glue)]
    numbers = [each for part in parts for each in (labels[part] + 1, np.zeros_like(labels[part]))]
    return np.concatenate(images), np.concatenate(numbers)


def main() -> None:
    parser = tool_parser(__doc__)
    parser.add_argument("--out", required=True, help="folder of the CSVs")
    parser.add_argument("--images", help="folder of the pictures (default: images/ in --out)")
    parser.add_argument("--background", action="store_true", help="add patches of the class `background`, number 0")
    parser.add_argument("--seed", type=seed_number, default=0, help="of --background")
    parser.add_argument("--overwrite", action="store_true", help="replace files of other content")
    args = parser.parse_args()

    out = Path(args.out)
    folder = Path(args.images) if args.images else out / "images"
    pictures, labels = digits()
    names, training = [str(digit) for digit in range(10)], TRAINING
    if args.background:
        pictures, labels = with_background(pictures, labels, args.seed)
        names, training = ["background", *names], 2 * TRAINING
    files = [folder / f"{number:04d}.png" for number in range(len(pictures))]
    rows = class_rows(files, labels, names)
    write_class_set(out, names, {"train_clean": rows[:training], "test": rows[training:]}, args.overwrite,
                    list(zip(files, pictures)))


if __name__ == "__main__":
    command_line(main)
