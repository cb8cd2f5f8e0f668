"""A noisy copy of a training set: coarse masks for some rows, and a CSV with the noise level of each row.

    python utils/generate_noisy_label.py --csv data/csv/NAME/train.csv --out data/csv/NAME/train_noisy_60.csv --ratio 0.6

draws a share --ratio of the rows, spreads them evenly over the noise levels --levels LOW HIGH, writes their noisy masks to a
folder beside the CSV (--mask-dir), and writes the CSV with a third column `iterations` (the level, 0 = untouched). Each row has
a noisy mask of its own, named after its image, with a number where several rows have that image. A level is in px at
--reference-size; masks of another size are changed in proportion to their longer side (defaults: paper, section 4). All
appear together, when they are made. --noise chooses the kind of noise, see utils/add_noise.py.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cli.command_line import command_line, positive_int, seed_number, share, tool_parser
from cli.files import UserError, check_outputs, progress, together, write_rows
from cli.flags import add_class_flag, add_noise_flags
from data.pictures import kinds_of, read_checked_mask, refuse_black_and_white, write_mask
from data.rows import pseudo_label_names, read_rows
from utils.add_noise import REFERENCE_SIZE, add_noise, scaled_level


def draw_levels(count: int, ratio: float, low: int, high: int, rng: np.random.Generator) -> np.ndarray:
    """Noise level of each row: int (count,); a random share `ratio` has low..high, spread evenly, the others 0."""
    noisy = rng.permutation(count)[:round(count * ratio)]
    levels = np.zeros(count, dtype=int)
    levels[noisy] = rng.permutation(np.arange(len(noisy)) % (high - low + 1)) + low
    return levels


def noisy_mask_names(rows: pd.DataFrame) -> list[str]:
    """One file name per row for its noisy mask: `pseudo_label_names`, with a number for rows that share an image
    (`stem__1.png`, in their order), since each row has its own mask or level.

    Args:
        rows: DataFrame with a column `image`.

    Returns:
        list of str, all different.
    """
    names = pseudo_label_names(rows)
    taken: Counter[str] = Counter(names)
    counts: Counter[str] = Counter()
    for position, name in enumerate(names):
        if taken[name] > 1:
            candidate = name
            while candidate in taken:  # another picture may have this name
                counts[name] += 1
                candidate = f"{name.removesuffix('.png')}__{counts[name]}.png"
            names[position] = candidate
    return names


def main() -> None:
    parser = tool_parser(__doc__)
    parser.add_argument("--csv", required=True, help="rows with clean masks")
    parser.add_argument("--out", required=True, help="CSV with the noisy masks")
    parser.add_argument("--mask-dir", help="folder of the noisy masks (default: beside --out, named after it)")
    parser.add_argument("--ratio", type=share, default=0.6, help="share of the masks that are made noisy")
    parser.add_argument("--as-drawn", action="store_true",
                        help="the masks are coarse as they are: all get level 1, none is changed")
    parser.add_argument("--levels", type=positive_int, nargs=2, default=[6, 10], metavar=("LOW", "HIGH"),
                        help="noise levels, px at --reference-size")
    parser.add_argument("--reference-size", type=positive_int, default=REFERENCE_SIZE,
                        help="longer side of the masks that --levels are for, px")
    parser.add_argument("--seed", type=seed_number, default=0)
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    add_noise_flags(parser)
    add_class_flag(parser)
    args = parser.parse_args()
    low, high = args.levels
    if low > high:
        raise UserError(f"--levels {low} {high}: LOW must not be above HIGH")

    folder = Path(args.mask_dir) if args.mask_dir else Path(args.out).with_suffix("")
    rows = read_rows(args.csv)
    sources, targets = rows["mask"].tolist(), [str(folder / name) for name in noisy_mask_names(rows)]
    rng = np.random.default_rng(args.seed)
    rows["iterations"] = 1 if args.as_drawn else draw_levels(len(rows), args.ratio, low, high, rng)
    noisy: Any = [] if args.as_drawn else np.flatnonzero(rows["iterations"])
    check_outputs([*(targets[position] for position in noisy), args.out], args.overwrite, [args.csv, *rows["image"], *sources])
    with together() as written_at:
        kinds = 0
        for position in progress(noisy, "noise", unit="mask"):
            labels = read_checked_mask(sources[position], args.num_classes)
            kinds |= kinds_of(labels, args.num_classes)
            level = scaled_level(rows["iterations"].iloc[position], labels.shape, args.reference_size)
            write_mask(written_at(targets[position]), add_noise(labels, level, rng, args.noise, args.background),
                       args.num_classes)
            rows.loc[rows.index[position], "mask"] = targets[position]
        refuse_black_and_white(kinds, args.num_classes, args.csv)
        write_rows(written_at(args.out), rows, "iterations")
    print(f"{args.out}: {len(noisy)} of {len(rows)} masks are made noisy, in {folder}")


if __name__ == "__main__":
    command_line(main)
