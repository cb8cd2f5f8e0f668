"""Drawn scenes: discs, squares and triangles in noise, on which shapes are hard to see and their class harder.

    python data/make_scenes.py --out data/csv/scenes

writes pictures and masks of 4 classes (background, disc, square, triangle), classes.json, train.csv, valid.csv and test.csv.
Each scene holds two to five objects of radius 4 to 10 px on grey; the colour of a class varies from object to object, and the
noise of a pixel is as large as the difference of two classes. The same --seed gives the same files. No claim about photographs
rests on this set.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from cli.command_line import command_line, nonnegative_int, positive_int, seed_number, side_length, tool_parser
from cli.files import UserError, check_outputs, progress, together
from data.legend import write_legend
from data.pictures import write_image, write_mask
from data.splits import write_splits

NAMES = ("background", "disc", "square", "triangle")
GREY = 0.5
COLOURS = np.array([[0.68, 0.45, 0.45], [0.45, 0.68, 0.45], [0.45, 0.45, 0.68]])  # means of classes 1 to 3, in 0..1
OBJECT_SD, PIXEL_SD = 0.12, 0.25  # of the colour of an object, and of each pixel


def shape_mask(kind: int, size: Sequence[int], centre: np.ndarray, radius: float, angle: float) -> np.ndarray:
    """An object of class `kind`, uint8 (H, W) of 0 and 1.

    Args:
        size: (H, W).
        centre: (2,), x and y, px.
        radius: to its corners, px.
        angle: by which it is turned, radians.
    """
    mask = np.zeros(size, np.uint8)
    if kind == NAMES.index("disc"):
        return cv2.circle(mask, tuple(centre.round().astype(int).tolist()), round(radius), 1, -1)
    corners = {"square": 4, "triangle": 3}[NAMES[kind]]
    angles = angle + 2 * np.pi * np.arange(corners) / corners
    outline = centre + radius * np.stack([np.cos(angles), np.sin(angles)], 1)
    return cv2.fillPoly(mask, [outline.round().astype(np.int32)], 1)


def draw_scene(rng: np.random.Generator, size: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """One scene: (image uint8 (H, W, 3), mask uint8 (H, W) of class numbers). Later objects cover earlier ones."""
    canvas, labels = np.full((*size, 3), GREY), np.zeros(size, np.uint8)
    for _ in range(rng.integers(2, 6)):
        kind = int(rng.integers(1, len(NAMES)))
        inside = shape_mask(kind, size, rng.uniform(0, 1, 2) * size[::-1], rng.uniform(4, 10), rng.uniform(0, 2 * np.pi)) > 0
        canvas[inside] = COLOURS[kind - 1] + rng.normal(0, OBJECT_SD, 3)
        labels[inside] = kind
    canvas = canvas + rng.normal(0, PIXEL_SD, canvas.shape)
    return np.rint(255 * canvas.clip(0, 1)).astype(np.uint8), labels


def main() -> None:
    parser = tool_parser(__doc__)
    parser.add_argument("--out", required=True, help="folder of the CSVs, images/ and masks/")
    parser.add_argument("--train", type=positive_int, default=2000, help="scenes to train on")
    parser.add_argument("--valid", type=nonnegative_int, default=100, help="scenes that choose an epoch")
    parser.add_argument("--test", type=positive_int, default=400, help="scenes to test on")
    parser.add_argument("--size", type=side_length, nargs=2, default=[48, 48], metavar=("H", "W"), help="px")
    parser.add_argument("--seed", type=seed_number, default=0)
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    args = parser.parse_args()

    out, number = Path(args.out), 0
    if min(args.size) < 16:
        raise UserError(f"--size {args.size[0]} {args.size[1]}: 16 px or more are needed to draw objects")
    splits, scenes = {}, []
    for split, count in (("train", args.train), ("valid", args.valid), ("test", args.test)):
        names = [f"{number + index:05d}.png" for index in range(count)]
        scenes += names
        number += count
        if names:
            splits[split] = pd.DataFrame({"image": [str(out / "images" / name) for name in names],
                                          "mask": [str(out / "masks" / name) for name in names]})
    csvs = {split: out / f"{split}.csv" for split in ("train", "valid", "test")}
    check_outputs([*csvs.values(), *(out / folder / name for folder in ("images", "masks") for name in scenes)], args.overwrite)
    for split in csvs.keys() - splits.keys():  # of an earlier call, whose scenes may be others now
        csvs[split].unlink(missing_ok=True)
    with together() as written_at:
        for index, name in enumerate(progress(scenes, "drawing", unit="scene")):
            image, labels = draw_scene(np.random.default_rng([args.seed, index]), args.size)
            write_image(written_at(out / "images" / name), image)
            write_mask(written_at(out / "masks" / name), labels, len(NAMES))
    write_legend(out, NAMES, overwrite=args.overwrite)
    write_splits(out, splits, args.overwrite)


if __name__ == "__main__":
    command_line(main)
