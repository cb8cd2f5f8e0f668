"""Any COCO JSON -> train.json, valid.json and test.json, pictures split at random.

    python data/prepare_coco.py data/generated/coco/instances.json --out data/coco/mine --valid 0.1 --test 0.3 --seed 0

Annotations stay as they are; paths of the pictures are written as they are found from here. --groups makes the super-categories
the classes, numbered 1.. in the order of their names. A COCO JSON that is split already needs no preparation: pass its files to
train_nlis.py.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from cli.command_line import command_line, seed_number, share, tool_parser
from cli.files import UserError, read_json
from data.coco_files import categories, image_of, write_coco
from data.coco_text import categories_of
from data.instances import read_instances


def grouped(path: str, content: dict) -> dict:
    """The content of a COCO JSON with its super-categories as classes.

    Raises:
        UserError: a category has none, or there is only one.
    """
    found = categories_of(path, content)
    missing = [each["name"] for each in found if not isinstance(each.get("supercategory"), str)]
    if missing:
        raise UserError(f"{path}: category {missing[0]} has no `supercategory`; leave --groups out")
    groups = sorted({each["supercategory"] for each in found})
    if len(groups) < 2:
        raise UserError(f"{path}: all categories are of one super-category; leave --groups out")
    number = {each["id"]: groups.index(each["supercategory"]) + 1 for each in found}
    return {**content, "categories": categories(groups),
            "annotations": [{**each, "category_id": number[each["category_id"]]} for each in content["annotations"]]}


def part_of(content: dict, images: list[dict]) -> dict[str, Any]:
    """The content of a COCO JSON that has these pictures and their annotations alone."""
    chosen = {each["id"] for each in images}
    return {"images": images, "annotations": [each for each in content["annotations"] if each["image_id"] in chosen],
            "categories": content["categories"]}


def refuse_shared_files(path: str, images: list[str], ids: list[int]) -> None:
    """Raise UserError if two images of a COCO JSON are one file: the split could put one picture on both sides."""
    seen: dict[str, int] = {}
    for image, number in zip(images, ids):
        first = seen.setdefault(os.path.realpath(image), number)
        if first != number:
            raise UserError(f"{path}: images {first} and {number} are one file, {image}, which must not come into two parts; "
                            "put their annotations under one image")


def main() -> None:
    parser = tool_parser(__doc__)
    parser.add_argument("json", help="COCO JSON of instances")
    parser.add_argument("--out", required=True, help="folder of the new JSONs")
    parser.add_argument("--image-dir", metavar="DIR", help="folder of the pictures (default: beside the JSON, in a folder "
                                                           "above it, or in `images` there)")
    parser.add_argument("--valid", type=share, default=0.0, help="share of the pictures that validates")
    parser.add_argument("--test", type=share, default=0.3, help="share of the pictures to test on")
    parser.add_argument("--groups", action="store_true", help="the classes are the super-categories")
    parser.add_argument("--seed", type=seed_number, default=0, help="of the split")
    parser.add_argument("--overwrite", action="store_true", help="replace files of other content")
    args = parser.parse_args()

    rows = read_instances(args.json, args.image_dir)
    content: Any = read_json(args.json)
    if args.groups:
        content = grouped(args.json, content)
    refuse_shared_files(args.json, rows["image"].tolist(), rows["id"].tolist())
    facts = zip(*(rows[name].tolist() for name in ("id", "image", "height", "width")))
    images = [image_of(number, path, (height, width)) for number, path, height, width in facts]
    order = np.random.default_rng(args.seed).permutation(len(images))
    first, second = round(args.test * len(images)), round((args.test + args.valid) * len(images))
    parts = {"train": order[second:], "valid": order[first:second], "test": order[:first]}
    if not len(parts["train"]):
        raise UserError(f"--valid {args.valid:g} --test {args.test:g}: no picture is left to train on; pass smaller shares")
    chosen = {split: [images[place] for place in sorted(part)] for split, part in parts.items() if len(part)}
    write_coco({Path(args.out) / f"{split}.json": part_of(content, part) for split, part in chosen.items()}, args.overwrite)


if __name__ == "__main__":
    command_line(main)
