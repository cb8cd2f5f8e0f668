"""A Supervisely export, e.g. "Supervisely Person" -> images and binary masks at one size, and CSVs.

    python data/prepare_supervisely.py SuperviselyPerson --out data/csv/supervisely

reads meta.json and, in every data set of the project, img/ and ann/*.json with bitmap objects (base64, zlib, PNG, with an
origin) and polygon objects (exterior, interior), later objects on top. Images and masks are resized to --size (paper,
section 4: 321 x 321) and written to --out. The default shares give 4500 train, 500 valid and 711 test rows for the paper's
5711 portraits.
"""

import base64
import json
import zlib
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from cli.command_line import command_line, given_names, share, side_length
from cli.files import UserError, progress
from data import IGNORE_INDEX
from data.converted_masks import refuse_stale
from data.pictures import read_image, resize_image, resize_labels, write_image, write_mask
from data.rows import check_shape
from data.splits import open_output, prepare_parser, require, split_rows, write_splits

LAYOUT = "meta.json and DATASET/{img/NAME.jpg, ann/NAME.jpg.json}"
LARGEST = 1 << 26  # most bytes and pixels of one bitmap; protects against files made to fill the memory


def find(root: Path) -> pd.DataFrame:
    """Rows of all data sets of a project: `image`, `annotation`, `name` (unique in the project).

    Raises:
        UserError: another layout, or an image without its annotation.
    """
    require(root / "meta.json", layout=LAYOUT)
    found = []
    for folder in sorted(path.parent for path in root.glob("*/ann")):
        for image in sorted((folder / "img").glob("[!.]*")):
            candidates = [folder / "ann" / f"{image.name}.json", folder / "ann" / f"{image.stem}.json"]  # new and old exports
            annotation = next((path for path in candidates if path.exists()), None)
            if annotation is None:
                raise UserError(f"{candidates[0]}: no such annotation of {image}; this is the layout that is read: {LAYOUT}")
            found.append((str(image), str(annotation), f"{folder.name}__{image.stem}"))
    if not found:
        raise UserError(f"{root}: no data set with img/ and ann/; this is the layout that is read: {LAYOUT}")
    counts = Counter(name for _, _, name in found)
    for path, _, name in found:
        if counts[name] > 1:
            raise UserError(f"{path}: {counts[name]} images would be written to {name}.png; rename all but one")
    return pd.DataFrame(found, columns=["image", "annotation", "name"])


def draw_annotation(path: Path | str, foreground: Sequence[str], ignored: Sequence[str]) -> np.ndarray:
    """The label map of an ann/*.json: uint8 (H, W) of 0, 1, 255.

    Args:
        foreground: titles of the classes that are 1; empty = all that are not ignored.
        ignored: titles of the classes that are 255.

    Raises:
        UserError: not such a file, or an object that cannot be drawn.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        height, width = int(content["size"]["height"]), int(content["size"]["width"])
        if not 0 < height * width <= LARGEST:
            raise ValueError(f"a picture of {width} x {height} px")
        labels = np.zeros((height, width), np.uint8)
        for number, item in enumerate(content["objects"]):
            title = item["classTitle"]
            value = IGNORE_INDEX if title in ignored else int(not foreground or title in foreground)
            if item.get("bitmap"):
                _draw_bitmap(labels, item["bitmap"], value)
            elif len(item.get("points", {}).get("exterior", [])) > 2:
                _draw_polygon(labels, item["points"], value)
            else:
                raise ValueError(f"object {number} ({title}) is neither a bitmap nor a polygon")
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, zlib.error, cv2.error) as error:
        raise UserError(f"{path}: not a Supervisely annotation ({type(error).__name__}: {str(error).strip()[:120]})") from None
    return labels


def _draw_bitmap(labels: np.ndarray, bitmap: dict, value: int) -> None:
    """Paint a bitmap object; pixels outside the picture are cut off."""
    unpacker = zlib.decompressobj()
    png = unpacker.decompress(base64.b64decode(bitmap["data"]), LARGEST)
    if unpacker.unconsumed_tail:
        raise ValueError(f"a bitmap of more than {LARGEST} bytes")
    if len(png) < 24 or int.from_bytes(png[16:20], "big") * int.from_bytes(png[20:24], "big") > LARGEST:
        raise ValueError("a bitmap that is no PNG or has too many pixels")
    drawn = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    if drawn is None:
        raise ValueError("a bitmap that is no PNG")
    if drawn.ndim == 3:  # the shape is the alpha channel, or without one every pixel that is not black
        drawn = drawn[:, :, 3] if drawn.shape[2] == 4 else drawn.max(axis=2)
    x, y = (int(v) for v in bitmap["origin"])
    left, top = max(0, -x), max(0, -y)
    drawn = drawn[top:max(top, labels.shape[0] - y), left:max(left, labels.shape[1] - x)]
    labels[y + top:y + top + drawn.shape[0], x + left:x + left + drawn.shape[1]][drawn > 0] = value


def _draw_polygon(labels: np.ndarray, points: dict, value: int) -> None:
    """Paint a polygon object; pixels in its interiors (holes) keep their labels."""
    inside = np.zeros_like(labels)
    for outlines, fill in (([points["exterior"]], 1), (points.get("interior", []), 0)):
        for outline in outlines:
            corners = np.array(outline, dtype=float)
            if not (abs(corners) < LARGEST).all():
                raise ValueError("a polygon whose corners are not finite or far outside")
            cv2.fillPoly(inside, [corners.round().astype(np.int32)], fill)
    labels[inside > 0] = value


def refuse_unknown(folder: Path, given: dict[str, list[str]]) -> None:
    """Raise UserError if a flag names a class that meta.json does not have, so that its objects would be passed over."""
    try:
        titles = [each["title"] for each in json.loads((folder / "meta.json").read_text(encoding="utf-8"))["classes"]]
    except (OSError, ValueError, KeyError, TypeError):
        return  # `find` says what is missing; a list of classes is not needed
    for flag, named in sorted(given.items()):
        unknown = [title for title in named if title not in titles]
        if unknown:
            raise UserError(f"--{flag} {unknown[0]}: meta.json of {folder} has no such class; there are {', '.join(titles)}")


def main() -> None:
    parser = prepare_parser(__doc__, "the project: holds meta.json", valid_of="all", valid=0.0876)
    parser.add_argument("--test", type=share, default=0.1245, help="share of all for test")
    parser.add_argument("--foreground", nargs="*", default=[], metavar="TITLE", help="foreground classes (default: all)")
    parser.add_argument("--ignore", nargs="*", default=["neutral"], metavar="TITLE", help="classes that are ignored (255)")
    parser.add_argument("--size", type=side_length, nargs=2, default=[321, 321], metavar=("H", "W"), help="px")
    args = parser.parse_args()
    given = given_names(parser, args) & {"foreground", "ignore"}
    refuse_unknown(Path(args.folder), {flag: getattr(args, flag) for flag in given})
    out, found = Path(args.out), find(Path(args.folder))
    rows = pd.DataFrame({"image": [str(out / "images" / f"{name}.png") for name in found["name"]],
                         "mask": [str(out / "masks" / f"{name}.png") for name in found["name"]]})
    splits = split_rows(rows, args.valid, args.test, args.seed)
    open_output(args, "supervisely")
    draw = partial(draw_annotation, foreground=args.foreground, ignored=args.ignore)
    pairs: Any = zip(found.itertuples(), rows.itertuples())
    for source, target in progress(pairs, "portraits", len(rows), "portrait"):
        if args.overwrite or not (Path(target.image).exists() and Path(target.mask).exists()):
            labels = draw(source.annotation)
            image = read_image(source.image)
            check_shape(image.shape[:2], labels.shape, source.annotation, f"the picture {source.image}")
            write_mask(target.mask, resize_labels(labels, args.size))
            write_image(target.image, resize_image(image, args.size))
        else:
            refuse_stale(source.annotation, target.mask, lambda path: resize_labels(draw(path), args.size), 2)
    write_splits(out, splits, args.overwrite)


if __name__ == "__main__":
    command_line(main)
