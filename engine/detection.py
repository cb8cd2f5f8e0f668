"""What a trained detector finds in pictures, as COCO's list of results and as drawings.

Legend: n instances of a picture, H x W its own size in pixels.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from cli.files import progress, together
from cli.lazy import lightning_fabric, torch
from data.dataset import ImageDataset, as_it_is
from data.legend import Legend
from data.mask_codes import to_coco
from data.pictures import read_image, write_image
from data.transforms import normalised

FONT_SIZE = 11  # px


def overlay_names(images: Sequence[str]) -> list[str]:
    """A file name for the drawing of each picture: its stem, with its position where pictures share one; no name stands twice.

    Names that differ in upper and lower case alone count as one, since some file systems take them for one.
    """
    stems = [Path(path).stem for path in images]
    often = Counter(map(str.lower, stems))
    taken = {stem for stem, count in often.items() if count == 1}
    names = []
    for number, stem in enumerate(stems, 1):
        name = stem
        if often[stem.lower()] > 1:
            name = f"{stem}_{number}"
            while name.lower() in taken:
                name += "_"
            taken.add(name.lower())
        names.append(f"{name}.jpg")
    return names


def write_detections(fabric: lightning_fabric.Fabric, network: torch.nn.Module, config: dict[str, Any], rows: pd.DataFrame,
                     out: Path, names: Sequence[str], batch_size: int, workers: int, least: float) -> int:
    """Write predictions.json and overlays/ to a folder, all or none; returns the number of instances.

    Args:
        network, config: of `engine.instances.load_detector`.
        rows: DataFrame with `image`, `id`, `height` and `width`.
        names: of the drawings.
        least: score of the instances that are drawn, 0..1; predictions.json has all.
    """
    network = fabric.to_device(network).eval()
    dataset: Any = ImageDataset(rows["image"].tolist(), config["size"])
    loader = torch.utils.data.DataLoader(dataset, batch_size, num_workers=workers, collate_fn=as_it_is)
    legend, results = Legend(len(config["classes"]), config["classes"]), []
    with together() as written_at:
        for batch in progress(loader, "predicting", unit="batch"):
            with torch.no_grad(), fabric.autocast():
                found = network(normalised(fabric.to_device(batch["image"])))
            for each, index in zip(found, batch["index"]):
                row = rows.iloc[int(index)]
                own = at_own_size(each, config["size"], (row["height"], row["width"]))
                results += results_of(own, row["id"], config["category_ids"])
                drawing = drawn(read_image(row["image"]), own, least, legend)
                write_image(written_at(out / "overlays" / names[int(index)]), drawing)
        written_at(out / "predictions.json").write_text(json.dumps(results) + "\n", encoding="utf-8")
    return len(results)


def at_own_size(found: dict, size: Sequence[int], own_size: Sequence[int]) -> dict[str, np.ndarray]:
    """Detections at a picture's own size: `boxes` (n, 4), x0, y0, x1, y1; `masks` bool (n, H, W); `labels`, `scores` (n,).

    Args:
        found: of the network, at `size` (H, W).
        own_size: (H, W).
    """
    scale = torch.tensor([own_size[1] / size[1], own_size[0] / size[0]] * 2)
    resize = torch.nn.functional.interpolate
    masks = [resize(mask[None].float(), tuple(own_size), mode="bilinear", align_corners=False)[0, 0] > 0.5
             for mask in found["masks"]]  # one by one: a hundred large ones at once take much memory
    return {"boxes": (found["boxes"].float().cpu() * scale).numpy(), "labels": found["labels"].cpu().numpy(),
            "scores": found["scores"].float().cpu().numpy(),
            "masks": np.array([mask.cpu().numpy() for mask in masks], bool).reshape(-1, *own_size)}


def results_of(found: dict[str, np.ndarray], image: int, category_ids: Sequence[int]) -> list[dict]:
    """Detections of `at_own_size` as elements of COCO's list of results, masks as compressed run lengths."""
    results = []
    for box, label, score, mask in zip(*(found[name] for name in ("boxes", "labels", "scores", "masks"))):
        x0, y0, x1, y1 = (round(float(side), 2) for side in box)
        results.append({"image_id": int(image), "category_id": category_ids[label - 1], "score": round(float(score), 5),
                        "bbox": [x0, y0, round(x1 - x0, 2), round(y1 - y0, 2)],
                        "segmentation": to_coco(mask)})
    return results


def drawn(image: np.ndarray, found: dict[str, np.ndarray], least: float, legend: Legend) -> np.ndarray:
    """A picture (H, W, 3) with the outline, the tint, the class and the score of each detection of a score >= `least`."""
    picture, texts = image.copy(), []
    order = np.argsort(found["scores"])  # the surest last, on top
    for place in order[found["scores"][order] >= least]:
        mask, label = found["masks"][place].astype(np.uint8), found["labels"][place] - 1
        colour = legend.colours[label].tolist()
        picture[mask > 0] = (0.6 * picture[mask > 0] + 0.4 * np.array(colour)).astype(np.uint8)
        outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, outlines, -1, colour, 1)
        corner = found["boxes"][place][:2].round().astype(int)
        texts.append(((int(corner[0]), max(FONT_SIZE + 1, int(corner[1]) - 2)),
                      f"{readable(legend.names[label], label + 1)} {100 * found['scores'][place]:.0f}"))
    return written(picture, texts)


@cache
def text_font() -> tuple[ImageFont.FreeTypeFont, frozenset[int]]:
    """DejaVu Sans, which comes with matplotlib, and the code points that it can draw; OpenCV's own font knows ASCII alone."""
    import matplotlib
    from matplotlib.ft2font import FT2Font

    path = str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))
    return ImageFont.truetype(path, FONT_SIZE), frozenset(FT2Font(path).get_charmap())


def readable(name: str, number: int) -> str:
    """The name of a class, or `class N` if the font lacks a character of it."""
    return name if {ord(letter) for letter in name} <= text_font()[1] else f"class {number}"


def written(picture: np.ndarray, texts: Sequence[tuple[tuple[int, int], str]]) -> np.ndarray:
    """A picture (H, W, 3) with texts in white and black, each above and right of its place, x and y in px."""
    canvas = Image.fromarray(picture)
    pen = ImageDraw.Draw(canvas)
    for place, text in texts:
        pen.text(place, text, "white", text_font()[0], "ls", stroke_width=1, stroke_fill="black")
    return np.asarray(canvas)
