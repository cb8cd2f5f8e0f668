"""Plant faults of known kinds in a share of a data set's masks, to measure how well an audit finds and names them.

    python benchmarks/plant_faults.py --folder data/generated/people --limit 480 --out data/csv/people/faults.csv

Kinds, spread evenly over the drawn rows; a level of 3 to 8 px (--levels) is for masks whose longer side is 321 px:

    loose, tight       the region of one class is grown or shrunk by the level: all pixels closer than that to its outline
    polygon, markov    the region of one class is redrawn, see utils/add_noise.py
    missing, extra     the largest component of a class is painted over; one of another mask is added, half as large
    swapped            a component gets another class; of a binary mask, foreground and background change places

The class is drawn at random; binary masks have one. Gaps go to the background, or (--background none) to the nearest other
class.
The CSV has the columns `fault` (the kind, empty = untouched) and `offset` (px in the mask's file, loose is positive), and
`truth`, the path of the untouched mask.
"""

import os
from pathlib import Path

import cv2
import numpy as np

from cli.command_line import class_or_none, command_line, positive_int, seed_number, share, tool_parser
from cli.files import UserError, check_outputs, progress, together, write_rows
from cli.flags import add_class_flag
from data import IGNORE_INDEX
from data.pictures import read_checked_mask, resize_labels, write_mask
from data.rows import read_rows
from data.splits import pair_folder
from utils.add_noise import KINDS, scaled_level
from utils.generate_noisy_label import noisy_mask_names

FAULTS = ("loose", "tight", "polygon", "markov", "missing", "extra", "swapped")
SMALLEST = 0.004  # of the picture: a smaller component is no object


def components_of(region):
    """The connected parts of a region that are objects, largest first: list of bool (H, W)."""
    count, numbers, facts, _ = cv2.connectedComponentsWithStats(region.astype(np.uint8), connectivity=8)
    order = sorted(range(1, count), key=lambda number: -facts[number, cv2.CC_STAT_AREA])
    return [numbers == number for number in order if facts[number, cv2.CC_STAT_AREA] >= SMALLEST * region.size]


def filled(labels, gap, background):
    """Labels whose gap, bool (H, W), has become background or, without one, the nearest other label."""
    result = labels.copy()
    if background is not None:
        result[gap] = background
        return result
    outside = (gap | (labels == IGNORE_INDEX)).astype(np.uint8)
    _, nearest = cv2.distanceTransformWithLabels(outside, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    of_label = np.zeros(nearest.max() + 1, labels.dtype)
    of_label[nearest[outside == 0]] = labels[outside == 0]
    result[gap] = of_label[nearest[gap]]
    return result


def redrawn(labels, number, region, background):
    """Labels in which the class `number` has another region; ignored pixels stay."""
    gap = (labels == number) & ~region
    result = filled(labels, gap, background)
    result[region] = number
    result[labels == IGNORE_INDEX] = IGNORE_INDEX
    return result


def moved_outline(region, distance):
    """A region grown by `distance` px, or shrunk by a negative one."""
    if distance > 0:
        return cv2.distanceTransform((~region).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) <= distance
    return cv2.distanceTransform(region.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) > -distance


def plant(labels, fault, level, rng, background, donor=None):
    """A mask with a fault.

    Args:
        labels: uint8 (H, W).
        fault: one of FAULTS.
        level: px.
        donor: another mask, for `extra`.

    Returns:
        (uint8 (H, W), offset in px or nan); None if the mask has no object to spoil.
    """
    objects = [c for c in np.unique(labels) if c not in (background, IGNORE_INDEX) and components_of(labels == c)]
    if fault == "extra":
        return planted_extra(labels, donor, rng, background)
    if not objects:
        return None
    number = int(rng.choice(objects))
    region, part = labels == number, components_of(labels == number)[0]
    if fault in ("loose", "tight"):
        offset = level if fault == "loose" else -level
        return redrawn(labels, number, moved_outline(region, offset), background), float(offset)
    if fault in KINDS:
        new = KINDS[fault](region.astype(np.uint8), level, rng, bool(rng.random() < 0.5)) > 0
        return redrawn(labels, number, new, background), float("nan")
    if fault == "missing":
        return filled(labels, part, background), float("nan")
    others = sorted({*range(int(labels[labels < IGNORE_INDEX].max()) + 1)} - {number, background})
    result = labels.copy()
    if others:
        result[part] = rng.choice(others)
    else:
        result = np.where(labels == IGNORE_INDEX, labels, 1 - np.minimum(labels, 1)).astype(np.uint8)
    return result, float("nan")


def planted_extra(labels, donor, rng, background):
    """A mask with an object of another mask at half its size, where its class is not; see `plant`."""
    objects = [c for c in np.unique(donor) if c not in (background, IGNORE_INDEX) and components_of(donor == c)]
    if not objects:
        return None
    number = int(rng.choice(objects))
    part = components_of(donor == number)[0]
    x, y, w, h = cv2.boundingRect(part.astype(np.uint8))
    scale = max(0.5, min(1.0, np.sqrt(2 * SMALLEST * part.size / part.sum())))  # a small object stays one
    piece = resize_labels(part[y:y + h, x:x + w].astype(np.uint8), (max(2, round(h * scale)), max(2, round(w * scale)))) > 0
    h, w = piece.shape
    for _ in range(60):
        if h >= labels.shape[0] or w >= labels.shape[1]:
            return None
        top, left = rng.integers(labels.shape[0] - h), rng.integers(labels.shape[1] - w)
        place = np.zeros(labels.shape, bool)
        place[top:top + h, left:left + w] = piece
        if not (moved_outline(place, 4) & ((labels == number) | (labels == IGNORE_INDEX))).any():
            result = labels.copy()
            result[place] = number
            return result, float("nan")
    return None


def planted_rows(args, rows, written_at, targets):
    """Write the faulty masks; the rows with `mask`, `fault`, `offset`, `truth`."""
    rng = np.random.default_rng(args.seed)
    kinds = args.kinds or FAULTS
    order = rng.permutation(len(rows))
    wanted = round(args.share * len(rows))
    table = rows.assign(fault="", offset=np.nan, truth=rows["mask"])
    done = 0
    for turn, position in enumerate(progress(order, "planting", unit="mask")):
        if done == wanted:
            break
        fault = kinds[turn % len(kinds)]  # a mask that cannot have it stays as it is
        labels = read_checked_mask(rows["mask"].iloc[position], args.num_classes)
        donor = read_checked_mask(rows["mask"].iloc[int(rng.integers(len(rows)))], args.num_classes)
        level = scaled_level(int(rng.integers(args.levels[0], args.levels[1] + 1)), labels.shape)
        found = plant(labels, fault, level, rng, args.background, donor)
        if found is None or np.array_equal(found[0], labels):
            continue
        write_mask(written_at(targets[position]), found[0], args.num_classes)
        for column, value in (("mask", targets[position]), ("fault", fault), ("offset", found[1])):
            table.iloc[position, table.columns.get_loc(column)] = value
        done += 1
    return table


def main():
    parser = tool_parser(__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--csv", help="rows with good masks")
    source.add_argument("--folder", help="images/ and masks/, good ones")
    parser.add_argument("--out", required=True, help="CSV of the same rows; faulty masks lie in a folder of its name beside it")
    parser.add_argument("--share", type=share, default=0.2, help="of the rows that get a fault")
    parser.add_argument("--levels", type=positive_int, nargs=2, default=[3, 8], metavar=("LOW", "HIGH"), help="px at 321")
    parser.add_argument("--kinds", nargs="+", choices=FAULTS, help="(default: all)")
    parser.add_argument("--background", type=class_or_none, default=0, metavar="CLASS|none", help="fills gaps")
    parser.add_argument("--limit", type=positive_int, help="take so many rows only, at random")
    parser.add_argument("--rest", nargs=2, metavar=("CSV", "N"), help="write N of the rows that --limit leaves out, at random")
    parser.add_argument("--seed", type=seed_number, default=0)
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    add_class_flag(parser)
    args = parser.parse_args()
    if args.levels[0] > args.levels[1]:
        raise UserError(f"--levels {args.levels[0]} {args.levels[1]}: the lower one stands first")
    if args.rest and not (args.rest[1].isdecimal() and int(args.rest[1])):
        raise UserError(f"--rest {' '.join(args.rest)}: a CSV and a number of rows are needed")
    rows = read_rows(args.csv) if args.csv else pair_folder(args.folder)
    drawn = np.sort(np.random.default_rng(args.seed).permutation(len(rows))[:args.limit])
    rest, rows = rows.drop(rows.index[drawn]), rows.iloc[drawn]
    targets = [str(Path(args.out).with_suffix("") / name) for name in noisy_mask_names(rows)]
    check_outputs([args.out, *targets, *(args.rest or [])[:1]], args.overwrite, [args.csv, *rows["image"], *rows["mask"]])
    if args.rest and int(args.rest[1]) > len(rest):
        raise UserError(f"--rest {' '.join(args.rest)}: {len(rest)} rows are left; see --limit")
    with together() as written_at:
        table = planted_rows(args, rows, written_at, targets)
        table["truth"] = [os.path.abspath(path) for path in table["truth"]]
        write_rows(written_at(args.out), table, "fault", "offset", "truth")
        if args.rest:
            write_rows(written_at(args.rest[0]), rest.sample(int(args.rest[1]), random_state=args.seed))
    print(f"{args.out}: {len(table)} rows, {(table['fault'] != '').sum()} with a planted fault")


if __name__ == "__main__":
    command_line(main)
