"""Coarse-annotation noise: grow, shrink or redraw the outlines of masks, or move them by a random walk.

    python utils/add_noise.py mask.png --out noisy.png --iterations 8
    python utils/add_noise.py masks/ --out noisy/ --iterations 8 --noise polygon
    python utils/add_noise.py masks/ --sheet levels.png --table levels.json

The level (--iterations) is in pixels, and what it means depends on --noise:

    morphology  a fair coin picks erosion or dilation with a 3x3 square; the level is the number of repetitions (paper,
                section 4, "manual coarse")
    polygon     outlines become polygons with few vertices that stay within the level of them (Douglas-Peucker), as
                annotators click coarse polygons; regions too small for a polygon vanish
    markov      a smooth random walk moves the points of each outline, so that near points move alike; its mean is half the
                level outside or inside (a fair coin), its standard deviation about half the level

--sheet draws the first mask at several levels by all kinds, --table scores noisy masks against their own originals.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from cli.command_line import command_line, nonnegative_int, seed_number, tool_parser
from cli.files import UserError, check_outputs, progress, together, write_json
from cli.flags import add_class_flag, add_legend_flag, add_noise_flags, add_score_flags
from data import IGNORE_INDEX
from data.legend import Legend, read_legend
from data.pictures import IMAGE_SUFFIXES, read_checked_mask, resize_labels, write_image, write_mask
from utils.agreement_cpu import agreement

Scores = dict[str, dict[str, dict[str, float]]]  # kind of noise -> level -> metric -> mean
SQUARE = np.ones((3, 3), np.uint8)
LEVELS = (0, 2, 4, 6, 8, 10)
REFERENCE_SIZE = 321  # longer side, px, of the masks that the paper's levels are for


def add_noise(labels: np.ndarray, level: int, rng: np.random.Generator | None = None, kind: str = "morphology",
              background: int | None = 0, inward: bool | None = None) -> np.ndarray:
    """A coarser copy of a label map.

    The region of each class except the background is made coarser separately; regions are painted in random order, later
    ones on top (paper, section 4). One coin is thrown per mask. Pixels that no region covers become background. Without a
    background class, as in street scenes, they go to the regions beside them, in the same order. Ignored pixels (255) stay
    ignored. An outline at the picture's frame stays there.

    Args:
        labels: uint8 (H, W), 0..C-1 or 255.
        level: px that an outline moves, see the head of this module; 0 leaves the mask as it is.
        rng: numpy Generator, for the coin, the order of the regions and the walk.
        kind: a key of KINDS.
        background: class number of the background, or None.
        inward: True (erosion) or False (dilation) instead of the coin; polygons have no such choice.

    Returns:
        uint8 (H, W).
    """
    rng = rng if rng is not None else np.random.default_rng()
    inward = rng.random() < 0.5 if inward is None else inward
    if level == 0:
        return labels.copy()
    classes = np.array([c for c in np.unique(labels) if c not in (background, IGNORE_INDEX)], dtype=np.uint8)
    regions = {c: KINDS[kind]((labels == c).astype(np.uint8), int(level), rng, inward) for c in rng.permutation(classes)}
    noisy = np.full_like(labels, IGNORE_INDEX if background is None else background)
    for c, region in regions.items():
        noisy[region > 0] = c
    if background is None:
        _fill(noisy, regions, 2 * int(level) + 1)
        noisy = np.where(noisy == IGNORE_INDEX, labels, noisy)
    noisy[labels == IGNORE_INDEX] = IGNORE_INDEX
    return noisy


def _fill(noisy: np.ndarray, regions: dict[int, np.ndarray], reach: int) -> None:
    """Give pixels that no region covers to the regions within `reach` px, later ones on top."""
    gap = noisy == IGNORE_INDEX
    for c, region in regions.items():
        noisy[(cv2.dilate(region, SQUARE, iterations=reach) > 0) & gap] = c


# --- one region: uint8 (H, W) of 0 and 1 in, the same out ---------------------------------------------------------


def morphology(region: np.ndarray, level: int, rng: np.random.Generator, inward: bool) -> np.ndarray:
    """Erode or dilate by `level` steps of a 3x3 square."""
    return (cv2.erode if inward else cv2.dilate)(region, SQUARE, iterations=level)


def polygon(region: np.ndarray, level: int, rng: np.random.Generator, inward: bool) -> np.ndarray:
    """Replace each outline, also of holes, by a polygon that stays within `level` px of it."""
    height, width = region.shape
    outlines = []
    for value, part in ((1, region), (0, 1 - region)):
        found, tree = cv2.findContours(part, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        for outline, (_, _, _, parent) in zip(found, tree[0] if found else []):
            x, y, w, h = cv2.boundingRect(outline)
            at_frame = x == 0 or y == 0 or x + w == width or y + h == height
            if parent >= 0 or value == 0 and at_frame:
                continue  # a hole is drawn as an outer outline of what is not the region
            outlines.append((cv2.contourArea(outline), value, cv2.approxPolyDP(outline, level, closed=True)))
    redrawn = np.zeros_like(region)
    for _, value, vertices in sorted(outlines, key=lambda each: -each[0]):  # larger first: inner ones are smaller
        if len(vertices) > 2:
            cv2.fillPoly(redrawn, [vertices], value)
    return redrawn


def markov(region: np.ndarray, level: int, rng: np.random.Generator, inward: bool) -> np.ndarray:
    """Move each outline by a random walk around half the level outside (or inside)."""
    if region.all() or not region.any():
        return region
    offsets = np.zeros(region.shape)
    edge = np.zeros(region.shape, bool)
    for outline in cv2.findContours(region, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)[0]:
        x, y = outline[:, 0].T
        offsets[y, x] = _closed_walk(len(outline), 4 * level, level / 2, rng) + (-level / 2 if inward else level / 2)
        edge[y, x] = True
    _, nearest = cv2.distanceTransformWithLabels((~edge).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    of_label = np.zeros(nearest.max() + 1)
    of_label[nearest[edge]] = offsets[edge]
    outside = cv2.distanceTransform(1 - region, cv2.DIST_L2, 5)
    inside = cv2.distanceTransform(region, cv2.DIST_L2, 5)
    signed = np.where(region > 0, 0.5 - inside, outside - 0.5)  # px beyond the line between region and rest
    return (signed <= of_label[nearest]).astype(np.uint8)


def _closed_walk(count: int, length: float, deviation: float, rng: np.random.Generator) -> np.ndarray:
    """A closed random walk of `count` steps: an autoregressive process of mean 0 and a memory of about `length` steps, smoothed
    over an eighth of that (a hand does not shake at every pixel)."""
    # white noise, filtered in the frequency domain: so the walk is periodic
    keep = 1 - 1 / max(2, length)
    frequency = 2 * np.pi * np.fft.rfftfreq(count)
    gain = np.sqrt(1 - keep**2) / np.abs(1 - keep * np.exp(-1j * frequency)) * np.exp(-(frequency * length / 8) ** 2 / 2)
    return np.fft.irfft(np.fft.rfft(rng.normal(0, deviation, count)) * gain, count)


KINDS = {"morphology": morphology, "polygon": polygon, "markov": markov}


# --- levels, pictures, tables -------------------------------------------------------------------------------------


def scaled_level(level: int, shape: Sequence[int], reference_size: int = REFERENCE_SIZE) -> int:
    """`level`, given for masks of `reference_size` px, scaled to a mask of `shape` in proportion to the longer side; at least 1
    for a level above 0."""
    return max(1, round(level * max(shape[:2]) / reference_size)) if level else 0


def contact_sheet(labels: np.ndarray, legend: Legend, background: int | None = 0, levels: Sequence[int] = LEVELS,
                  height: int = 160) -> np.ndarray:
    """A picture of a label map at several levels, a line per kind of noise, RGB uint8."""
    labels = resize_labels(labels, (height, max(1, round(labels.shape[1] * height / labels.shape[0]))))
    lines = []
    for kind, inward, word in (("morphology", False, "dilated"), ("morphology", True, "eroded"), ("polygon", None, "polygon"),
                               ("markov", False, "markov, out"), ("markov", True, "markov, in")):
        tiles = []
        for level in levels:
            noisy = add_noise(labels, scaled_level(level, labels.shape), np.random.default_rng(0), kind, background, inward)
            tile = cv2.copyMakeBorder(legend.paint(noisy), 22, 4, 4, 4, cv2.BORDER_CONSTANT, value=(90, 90, 90))
            cv2.putText(tile, f"{word} {level}" if level else "as it is", (6, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.4,
                        (255, 255, 255), 1, cv2.LINE_AA)
            tiles.append(tile)
        lines.append(np.hstack(tiles))
    return np.vstack(lines)


def score_levels(masks: Sequence[Path], num_classes: int, background: int | None, theta: float, seed: int,
                 levels: Sequence[int] = LEVELS[1:]) -> Scores:
    """Mean agreement of noisy masks with their originals.

    Returns:
        dict of kind -> dict of level (px at 321) -> {"miou", "bf"}, means over the masks, 0..1.
    """
    maps = [read_checked_mask(mask, num_classes) for mask in masks]
    scores: Scores = {}
    for kind in KINDS:
        for level in progress(levels, kind, unit="level"):
            rng, pairs = np.random.default_rng(seed), []
            for labels in maps:
                noisy = add_noise(labels, scaled_level(level, labels.shape), rng, kind, background)
                pairs.append([agreement(noisy, labels, num_classes, metric, theta) for metric in ("miou", "bf")])
            mean = np.mean(pairs, axis=0)
            scores.setdefault(kind, {})[str(level)] = {"miou": float(mean[0]), "bf": float(mean[1])}
    return scores


def level_table(scores: Scores) -> str:
    """A text table of `score_levels`: mIoU / BF in percent."""
    levels = list(next(iter(scores.values())))
    lines = ["| noise, mIoU / BF | " + " | ".join(f"level {level}" for level in levels) + " |",
             "|---" * (len(levels) + 1) + "|"]
    for kind, by_level in scores.items():
        cells = [f"{100 * each['miou']:.1f} / {100 * each['bf']:.1f}" for each in by_level.values()]
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def masks_of(source: Path) -> list[Path]:
    """The mask itself, or all masks in a folder, sorted.

    Raises:
        UserError: the folder holds no mask.
    """
    if not source.is_dir():
        return [source]
    masks = sorted(path for path in source.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not masks:
        raise UserError(f"{source}: no masks ({', '.join(IMAGE_SUFFIXES)}) in it")
    return masks


def noisy_paths(args: argparse.Namespace, masks: Sequence[Path]) -> list[Path]:
    """Where the noisy masks go; none without --out.

    Raises:
        UserError: a mask would be written in a format that changes it.
    """
    if not args.out:
        return []
    if Path(args.mask).is_dir():
        return [Path(args.out) / f"{mask.stem}.png" for mask in masks]
    if Path(args.out).suffix.lower() != ".png":
        raise UserError(f"--out {args.out}: a mask is written as .png, which keeps its values")
    return [Path(args.out)]


def main() -> None:
    parser = tool_parser(__doc__)
    parser.add_argument("mask", help="a mask, or a folder of masks")
    parser.add_argument("--out", help="noisy mask (.png), or folder of noisy masks of the same stems")
    parser.add_argument("--iterations", "--level", type=nonnegative_int, default=8, help="px that an outline moves")
    parser.add_argument("--sheet", metavar="PNG", help=f"draw the first mask at several levels (for {REFERENCE_SIZE} px) there")
    parser.add_argument("--table", metavar="JSON", help=f"score noisy masks at several levels (for {REFERENCE_SIZE} px)")
    parser.add_argument("--seed", type=seed_number, default=0)
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    add_noise_flags(parser)
    add_class_flag(parser)
    add_score_flags(parser)
    add_legend_flag(parser)
    args = parser.parse_args()
    if not (args.out or args.sheet or args.table):
        raise UserError("nothing to do: pass --out, --sheet or --table")

    masks = masks_of(Path(args.mask))
    targets = noisy_paths(args, masks)
    outputs = [path for path in (*targets, args.sheet, args.table) if path]
    check_outputs(outputs, args.overwrite, [*masks, args.classes])
    said = []
    with together() as written_at:
        if args.sheet:
            labels, legend = read_checked_mask(masks[0], args.num_classes), read_legend(args.classes, args.num_classes)
            write_image(written_at(args.sheet), contact_sheet(labels, legend, args.background))
            said.append(args.sheet)
        if args.table:
            scores = score_levels(masks, args.num_classes, args.background, args.theta, args.seed)
            write_json(written_at(args.table), {"masks": len(masks), "theta": args.theta, "seed": args.seed, "levels": scores})
            said.append(level_table(scores))
        rng = np.random.default_rng(args.seed)
        for mask, target in zip(masks, targets):
            noisy = add_noise(read_checked_mask(mask, args.num_classes), args.iterations, rng, args.noise, args.background)
            write_mask(written_at(target), noisy, args.num_classes)
    print(*said, *[f"{len(targets)} noisy masks: {args.out}"] * bool(targets), sep="\n")


if __name__ == "__main__":
    command_line(main)
