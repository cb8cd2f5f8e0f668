"""Drawn shapes as instances: a small COCO set on which a detector learns in minutes, with exact boxes, masks and labels.

    python data/make_shapes.py --out data/coco/shapes

writes pictures, train.json and test.json: shapes of six classes in two super-categories, two to five in a picture, on clutter.
Some cover parts of others, and a few crowds of small shapes are marked as such. The same --seed gives the same files. Make
wrong labels with utils/class_noise.py. No claim about photographs rests on this set.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from cli.command_line import command_line, positive_int, seed_number, side_length, tool_parser
from cli.files import UserError, check_outputs, progress, together
from data.coco_files import annotation_of, categories, image_of, write_coco
from data.pictures import write_image

GROUPS = {"disc": "round", "ring": "round", "half moon": "round", "square": "angular", "triangle": "angular", "star": "angular"}
NAMES = list(GROUPS)
CROWD_SHARE = 0.1  # of the pictures
LEAST_SEEN = 0.5  # share of a shape that must be left of it, or it is drawn elsewhere
APART = 90  # least distance in RGB to the background


def corners_of(name: str) -> np.ndarray:
    """The corners (n, 2) of a shape of angles, around 0, within radius 1."""
    count, inner = {"square": (4, None), "triangle": (3, None), "star": (10, 0.45)}[name]
    angles = 2 * np.pi * np.arange(count) / count
    radius = np.where(np.arange(count) % 2, inner or 1, 1)[:, None]
    return radius * np.stack([np.cos(angles), np.sin(angles)], 1)


def shape_mask(name: str, side: Sequence[int], centre: np.ndarray, radius: float, angle: float) -> np.ndarray:
    """A shape as a mask, uint8 (H, W) of 0 and 1.

    Args:
        side: (H, W).
        centre: (2,), x and y in px.
        radius: px.
        angle: by which it is turned, radians.
    """
    mask = np.zeros(side, np.uint8)
    place = tuple(centre.round().astype(int).tolist())
    if GROUPS[name] == "angular":
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        return cv2.fillPoly(mask, [(corners_of(name) @ turn * radius + centre).round().astype(np.int32)], 1)
    cv2.circle(mask, place, round(radius), 1, -1)
    if name == "ring":
        cv2.circle(mask, place, round(radius * 0.55), 0, -1)
    if name == "half moon":
        bite = (centre + 0.6 * radius * np.array([np.cos(angle), np.sin(angle)])).round().astype(int)
        cv2.circle(mask, tuple(bite.tolist()), round(radius * 0.8), 0, -1)
    return mask


def draw_picture(rng: np.random.Generator, size: Sequence[int]) -> tuple[np.ndarray, list[tuple[int, np.ndarray, bool]]]:
    """One picture.

    Returns:
        (image uint8 (H, W, 3), list of (class number, mask uint8 (H, W), whether it is a crowd))
    """
    ground = rng.uniform(40, 215, 3)
    canvas = np.full((*size, 3), ground) + cv2.GaussianBlur(rng.normal(0, 60, (*size, 3)), (0, 0), 3)
    for _ in range(rng.integers(2, 6)):  # lines, which are no instances
        first, last = rng.integers(0, size[::-1], (2, 2)).tolist()
        cv2.line(canvas, first, last, colour_beside(rng, ground).tolist(), 1)
    drawn: list[tuple[int, np.ndarray, bool]] = []
    for _ in range(rng.integers(2, 6)):
        number = int(rng.integers(len(NAMES)))
        mask = shape_mask(NAMES[number], size, rng.uniform(0.15, 0.85, 2) * size[::-1], rng.uniform(0.08, 0.2) * min(size),
                          rng.uniform(0, 2 * np.pi))
        if all(np.count_nonzero(each & ~mask & 1) >= LEAST_SEEN * np.count_nonzero(each) for _, each, _ in drawn):
            drawn = [(other, each & ~mask & 1, crowd) for other, each, crowd in drawn]  # the new one covers parts of others
            drawn.append((number, mask, False))
            canvas[mask > 0] = colour_beside(rng, ground)
    if rng.random() < CROWD_SHARE:
        drawn += draw_crowd(rng, canvas, drawn, colour_beside(rng, ground))
    canvas = canvas + rng.normal(0, 6, canvas.shape)
    return canvas.clip(0, 255).astype(np.uint8), [each for each in drawn if each[1].any()]


def draw_crowd(rng: np.random.Generator, canvas: np.ndarray, drawn: Sequence[tuple], colour: np.ndarray
               ) -> list[tuple[int, np.ndarray, bool]]:
    """Many small discs side by side where nothing else is, as one crowd; drawn into the canvas (H, W, 3)."""
    side = canvas.shape[:2]
    middle, crowd = rng.uniform(0.2, 0.8, 2) * side[::-1], np.zeros(side, np.uint8)
    for _ in range(12):
        crowd |= shape_mask("disc", side, middle + rng.normal(0, 0.08, 2) * side[::-1], 0.03 * min(side), 0)
    for _, mask, _ in drawn:
        crowd &= 1 - mask
    canvas[crowd > 0] = colour
    return [(NAMES.index("disc"), crowd, True)] if crowd.any() else []


def colour_beside(rng: np.random.Generator, ground: np.ndarray) -> np.ndarray:
    """A colour (3,) that differs from the ground's."""
    while True:
        colour = rng.uniform(0, 255, 3)
        if np.linalg.norm(colour - ground) >= APART:
            return colour


def main() -> None:
    parser = tool_parser(__doc__)
    parser.add_argument("--out", required=True, help="folder of train.json, test.json and images/")
    parser.add_argument("--train", type=positive_int, default=150, help="pictures to train on")
    parser.add_argument("--test", type=positive_int, default=100, help="pictures to test on")
    parser.add_argument("--size", type=side_length, nargs=2, default=[96, 96], metavar=("H", "W"), help="px")
    parser.add_argument("--seed", type=seed_number, default=0)
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    args = parser.parse_args()

    out = Path(args.out)
    if min(args.size) < 32:
        raise UserError(f"--size {args.size[0]} {args.size[1]}: 32 px or more are needed to draw shapes")
    paths = [out / f"{split}.json" for split in ("train", "test")]
    files = [out / "images" / f"{number + 1:04d}.png" for number in range(args.train + args.test)]
    check_outputs([*paths, *files], args.overwrite)
    contents = {path: {"images": [], "annotations": [], "categories": categories(NAMES, groups=GROUPS)} for path in paths}
    with together() as written_at:
        for number, file in enumerate(progress(files, "drawing", unit="picture"), 1):
            content = contents[paths[number > args.train]]
            annotations = content["annotations"]
            picture, shapes = draw_picture(np.random.default_rng([args.seed, number]), args.size)
            write_image(written_at(file), picture)
            content["images"].append(image_of(number, file, args.size))
            for kind, mask, crowd in shapes:
                annotations.append(annotation_of(len(annotations) + 1, number, kind + 1, mask, crowd))
    write_coco(contents, args.overwrite)


if __name__ == "__main__":
    command_line(main)
