"""Coarse-annotation noise: masks grown or shrunk at their edges.

    python utils/add_noise.py mask.png --out noisy.png --iterations 8
    python utils/add_noise.py masks/ --out noisy/ --iterations 8 --sheet levels.png

A fair coin picks erosion or dilation with a 3x3 square, repeated --iterations times (paper, section 4, "manual coarse").
--sheet draws the first mask at several levels, both ways, as one picture.
"""

import sys
from pathlib import Path

import cv2
import numpy as np

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from data import IGNORE_INDEX
from data.command_line import command_line, nonnegative_int, tool_parser
from data.files import IMAGE_SUFFIXES, UserError, read_mask, refuse_existing, resize_labels, write_image, write_mask
from utils.options import add_class_flag

SQUARE = np.ones((3, 3), np.uint8)
SHEET_LEVELS = (0, 2, 4, 6, 8, 10)


def add_noise(labels, iterations, rng=None, erode=None):
    """A coarser copy of a label map.

    Each region of classes 1, 2, ... is grown or shrunk and painted onto class 0, in random order, later regions on top; a
    pixel that no region keeps is class 0. For a binary mask that is the erosion or dilation of its foreground. One coin is
    thrown per mask. Ignored pixels (255) stay ignored. The picture's frame does not erode a region that it cuts.

    Args:
        labels: uint8 (H, W), 0..C-1 or 255.
        iterations: times the 3x3 square is applied, i.e. pixels that an edge moves; 0 leaves the mask as it is.
        rng: numpy Generator, for the coin and the order.
        erode: True or False instead of the coin.

    Returns:
        uint8 (H, W).
    """
    rng = rng if rng is not None else np.random.default_rng()
    if erode is None:
        erode = rng.random() < 0.5
    if iterations == 0:
        return labels.copy()
    morph = cv2.erode if erode else cv2.dilate
    noisy = np.zeros_like(labels)
    classes = [c for c in np.unique(labels) if c not in (0, IGNORE_INDEX)]
    for c in rng.permutation(np.array(classes, dtype=np.uint8)):
        region = (labels == c).astype(np.uint8)
        noisy[morph(region, SQUARE, iterations=int(iterations)) > 0] = c
    noisy[labels == IGNORE_INDEX] = IGNORE_INDEX
    return noisy


def scaled_level(level, shape, reference_size):
    """Iterations that do to a mask of `shape` what `level` does to one of `reference_size` px: in proportion to the longer
    side, and at least 1 for a level above 0."""
    return max(1, round(level * max(shape[:2]) / reference_size)) if level else 0


def contact_sheet(labels, levels=SHEET_LEVELS, height=160):
    """A picture of the mask at several levels: dilated above, eroded below, RGB uint8."""
    labels = resize_labels(labels, (height, max(1, round(labels.shape[1] * height / labels.shape[0]))))
    spread = max(1, 255 // max(1, int(labels[labels != IGNORE_INDEX].max(initial=1))))
    lines = []
    for erode, word in ((False, "dilated"), (True, "eroded")):
        tiles = []
        for level in levels:
            noisy = add_noise(labels, scaled_level(level, labels.shape, 321), np.random.default_rng(0), erode)
            tile = cv2.cvtColor(noisy * np.uint8(spread), cv2.COLOR_GRAY2RGB)
            tile = cv2.copyMakeBorder(tile, 22, 4, 4, 4, cv2.BORDER_CONSTANT, value=(70, 70, 70))
            cv2.putText(tile, f"{word} {level}" if level else "as it is", (6, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.4,
                        (255, 255, 255), 1, cv2.LINE_AA)
            tiles.append(tile)
        lines.append(np.hstack(tiles))
    return np.vstack(lines)


def main():
    parser = tool_parser(__doc__)
    parser.add_argument("mask", help="a mask, or a folder of masks")
    parser.add_argument("--out", help="noisy mask (.png), or folder of noisy masks of the same stems")
    parser.add_argument("--iterations", type=nonnegative_int, default=8, help="px that an edge moves")
    parser.add_argument("--sheet", metavar="PNG", help="draw the first mask at several levels (for 321 px) there")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    add_class_flag(parser)
    args = parser.parse_args()
    if not args.out and not args.sheet:
        raise UserError("nothing to do: pass --out, --sheet or both")

    source = Path(args.mask)
    masks = [source]
    if source.is_dir():
        masks = sorted(path for path in source.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        if not masks:
            raise UserError(f"{source}: no masks ({', '.join(IMAGE_SUFFIXES)}) in it")
    if args.sheet:
        refuse_existing(args.sheet, args.overwrite)
        write_image(args.sheet, contact_sheet(read_mask(masks[0], args.num_classes)))
        print(args.sheet)
    if args.out:
        targets = [Path(args.out) / f"{mask.stem}.png" if source.is_dir() else Path(args.out) for mask in masks]
        for target in targets:
            refuse_existing(target, args.overwrite)
        rng = np.random.default_rng(args.seed)
        for mask, target in zip(masks, targets):
            write_mask(target, add_noise(read_mask(mask, args.num_classes), args.iterations, rng), args.num_classes)
        print(f"{len(masks)} noisy masks: {args.out}")


if __name__ == "__main__":
    command_line(main)
