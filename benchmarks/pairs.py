"""Pairs of label maps, an annotation and a noisy copy of it, for bench_weights.py to score."""

import os

import cv2
import numpy as np

from cli.files import progress
from data.make_sample import draw_portrait
from data.pictures import read_mask, resize_labels, write_mask
from data.splits import pair_folder
from utils.add_noise import add_noise


def draw_person(rng, photos=None):
    """A person's mask, drawn or from DIR/masks, and a noisy one of it, uint8 (321, 321)."""
    if photos:
        mask = resize_labels(read_mask(rng.choice(pair_folder(photos)["mask"])), (321, 321))
    else:
        mask = draw_portrait(rng, (321, 321))[1]
    return mask, add_noise(mask, int(rng.integers(0, 5)), rng)


def draw_regions(rng, height=1024, width=2048, classes=19, cells=7, level=None):
    """A map of smooth random regions and one with noise of a level (default: 0 to 4 px), uint8 (H, W)."""
    fields = rng.standard_normal((classes, cells, cells * width // height)).astype(np.float32)
    labels = np.argmax([cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC) for field in fields], axis=0)
    labels = labels.astype(np.uint8)
    return labels, add_noise(labels, int(rng.integers(0, 5)) if level is None else level, rng, background=None)


def write_pairs(folder, draw, distinct, rows, num_classes):
    """Files of `distinct` pairs, linked to as many names as there are rows, and their CSV.

    Returns:
        (the CSV, the folder of pseudo-labels)
    """
    rng = np.random.default_rng(0)
    for number in progress(range(distinct), "drawing"):
        for kind, labels in zip(("mask", "pseudo"), draw(rng)):
            write_mask(folder / "drawn" / f"{kind}{number}.png", labels, num_classes)
    lines = ["img,filename"]
    for kind in ("mask", "pseudo"):
        (folder / kind).mkdir()
        for row in range(rows):
            os.link(folder / "drawn" / f"{kind}{row % distinct}.png", folder / kind / f"{row:06d}.png")
    lines += [f"{folder}/mask/{row:06d}.png,{folder}/mask/{row:06d}.png" for row in range(rows)]
    (folder / "rows.csv").write_text("\n".join(lines) + "\n")
    return folder / "rows.csv", folder / "pseudo"


def pair_files(csv, pseudo, count):
    """The first pairs of files that `write_pairs` left."""
    masks = sorted((csv.parent / "mask").iterdir())[:count]
    return [(str(mask), str(pseudo / mask.name)) for mask in masks]
