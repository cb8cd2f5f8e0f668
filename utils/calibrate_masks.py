"""Corrected masks into a training set, and what they teach of the others: by how many pixels each class lies off.

    python utils/calibrate_masks.py --csv data/csv/NAME/train.csv --fixed DIR --out data/csv/NAME/train_fixed.csv

--fixed is a folder with corrected masks of some pictures of --csv, named after them (STEM.png), or a CSV of such pictures and
their corrected masks. In --out these take the place of the coarse ones, with weight 1; other weights and noise levels stay. If
they show that the others err alike, the outlines of all others are moved by the offset of each class, as a share of the
picture's longest side, into --mask-dir. Choose the masks to correct at random then: the worst ones say nothing of the good
ones, so pass --no-offset with those. The offset is used only if it brings held-out corrected masks nearer to what was drawn,
in five parts. No existing mask is changed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cli.command_line import command_line, positive_int, refuse_given, tool_parser
from cli.files import UserError, check_outputs, progress, together, write_rows
from cli.flags import add_class_flag, add_score_flags
from data.pictures import kinds_of, read_checked_mask, refuse_black_and_white, resize_labels, write_mask
from data.rows import check_shape, pseudo_label_names, read_rows
from utils.class_offsets import class_distances, fit_offsets, held_out_gains, moved, offsets_help


def main() -> None:
    parser = tool_parser(__doc__)
    parser.add_argument("--csv", required=True, help="rows with the masks as they were drawn")
    parser.add_argument("--fixed", required=True, metavar="DIR|CSV", help="the corrected masks, STEM.png; or rows of them")
    parser.add_argument("--out", required=True, help="CSV of all rows")
    parser.add_argument("--mask-dir", help="folder of the moved masks (default: beside --out, NAME_moved)")
    parser.add_argument("--no-offset", action="store_true", help="replace the corrected masks only, move none")
    parser.add_argument("--longest", type=positive_int, default=160, help="longest side at which masks are compared, px")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    add_score_flags(parser)
    add_class_flag(parser)
    args = parser.parse_args()
    if args.no_offset:
        refuse_given(parser, args, {"mask_dir", "longest"}, "is of moved masks, and --no-offset moves none; leave it out")
    rows = read_rows(args.csv)
    fixed = corrected_rows(rows, args.fixed)
    at = matched(rows, fixed, args)
    inputs = [args.csv, args.fixed, *rows["image"], *rows["mask"], *fixed["mask"]]
    targets = {} if args.no_offset else moved_files(rows, at, args)
    check_outputs([*targets.values(), args.out], args.overwrite, inputs)
    shares = None if args.no_offset else offset_shares(rows["mask"].iloc[at].tolist(), fixed["mask"].tolist(), args)
    if shares is None:
        targets = {}
    with together() as written_at:
        for position, target in progress(targets.items(), "moving", len(targets), "mask"):
            mask = read_checked_mask(rows["mask"].iloc[position], args.num_classes)
            distances = class_distances(mask, args.num_classes)
            write_mask(written_at(target), moved(mask, distances, shares * max(mask.shape)), args.num_classes)
        write_rows(written_at(args.out), with_masks(rows, at, fixed, targets), "weight",
                   *["iterations"] * ("iterations" in rows))
    print(f"{args.out}: {len(at)} of {len(rows)} masks are the corrected ones, {len(targets)} are moved"
          + (f", in {Path(next(iter(targets.values()))).parent}" if targets else ""))


def moved_files(rows: pd.DataFrame, at: np.ndarray, args: Any) -> dict[int, str]:
    """Files of the moved masks: position of a row without a corrected mask -> path.

    Raises:
        UserError: they would come to lie among the corrected masks.
    """
    folder = Path(args.mask_dir) if args.mask_dir else Path(args.out).with_name(Path(args.out).stem + "_moved")
    if Path(args.fixed).is_dir() and folder.resolve() == Path(args.fixed).resolve():
        raise UserError(f"--mask-dir {folder}: holds the corrected masks (--fixed); name another folder")
    names = pseudo_label_names(rows)
    return {position: str(folder / names[position]) for position in np.setdiff1d(np.arange(len(rows)), at).tolist()}


def with_masks(rows: pd.DataFrame, at: np.ndarray, fixed: pd.DataFrame, targets: dict[int, str]) -> pd.DataFrame:
    """The rows with the corrected masks, of weight 1 and noise level 0, and the moved ones; all else as it was."""
    result = rows.assign(**({} if "weight" in rows else {"weight": 1.0}))
    for name, values in (("mask", fixed["mask"].tolist()), ("weight", 1.0), ("iterations", 0)):
        if name in result:
            column = result[name].to_numpy(copy=True)
            column[at] = values
            result[name] = column
    masks = result["mask"].to_numpy(dtype=object, copy=True)
    masks[list(targets)] = list(targets.values())
    return result.assign(mask=masks)


def corrected_rows(rows: pd.DataFrame, fixed: str) -> pd.DataFrame:
    """Rows of the corrected masks: those of a CSV, or of the files in a folder that are named after the rows' images.

    Raises:
        UserError: there is none.
    """
    if not Path(fixed).is_dir():
        return read_rows(fixed)
    masks = [str(Path(fixed, name)) for name in pseudo_label_names(rows)]
    there = [Path(mask).is_file() for mask in masks]
    others = sorted({path.name for path in Path(fixed).iterdir()} - {Path(mask).name for mask in masks})
    if others:
        print(f"--fixed {fixed}: {len(others)} of its files are not named STEM.png after a picture and are left out, first "
              f"{others[0]}")
    if not any(there):
        raise UserError(f"--fixed {fixed}: holds no mask that is named after a picture, e.g. {Path(masks[0]).name}")
    return rows.assign(mask=masks)[there]


def matched(rows: pd.DataFrame, fixed: pd.DataFrame, args: Any) -> np.ndarray:
    """Position of each corrected row's picture among the rows, int (corrected,).

    Raises:
        UserError: a picture is not in --csv, stands in either file twice, or a mask is the drawn one itself or not a label map
            of its shape.
    """
    places = {str(Path(image).resolve()): place for place, image in enumerate(rows["image"])}
    if len(places) < len(rows):
        raise UserError(f"{args.csv}: a picture stands in several rows; a corrected mask would not know which one it replaces")
    names = [str(Path(image).resolve()) for image in fixed["image"]]
    for number, (row, name) in enumerate(zip(fixed.index, names)):
        if name not in places:
            raise UserError(f"{args.fixed}: row {row}: {name} is no picture of {args.csv}")
        if name in names[:number]:
            raise UserError(f"{args.fixed}: row {row}: {name} stands there twice")
    kinds = [0, 0]
    for place, mask in zip((places[name] for name in names), fixed["mask"]):
        drawn = rows["mask"].iloc[place]
        if Path(mask).resolve() == Path(drawn).resolve():
            raise UserError(f"--fixed {args.fixed}: {mask} is the mask that {args.csv} names, so not a corrected one")
        pair = [read_checked_mask(path, args.num_classes) for path in (drawn, mask)]
        check_shape(pair[0].shape, pair[1].shape, mask, "the mask that it replaces")
        kinds = [all_kinds | kinds_of(each, args.num_classes) for all_kinds, each in zip(kinds, pair)]
    for all_kinds, source in zip(kinds, (args.csv, args.fixed)):
        refuse_black_and_white(all_kinds, args.num_classes, source)
    return np.array([places[name] for name in names])


def offset_shares(masks: list[str], fixed: list[str], args: Any) -> np.ndarray | None:
    """Offsets of the classes as a share of a mask's longest side, float (C,); None, with a sentence, if they would not help."""
    pairs = [(reduced(mask, args), reduced(right, args)) for mask, right in zip(masks, fixed)]
    pairs = [(mask, resize_labels(right, mask.shape)) for mask, right in pairs]
    before, after = [mask for mask, _ in pairs], [right for _, right in pairs]
    gains = held_out_gains(before, after, args.num_classes, args.theta)
    if not offsets_help(gains):
        print(f"no offset: the {len(pairs)} corrected masks do not show that the others err alike"
              + (f" (held out, moved ones agree by {100 * gains.mean():+.1f} points)" if len(pairs) > 1 else ""))
        return None
    shares = fit_offsets(before, after, args.num_classes, args.theta) / args.longest
    longest = max(max(read_checked_mask(mask, args.num_classes).shape) for mask in masks)
    print(f"offsets, px of a picture of {longest} px (> 0: drawn too wide): "
          + ", ".join(f"class {c}: {longest * share:+.1f}" for c, share in enumerate(shares) if c)
          + f"; held out, moved masks agree better by {100 * gains.mean():.1f} points")
    return shares


def reduced(path: str, args: Any) -> np.ndarray:
    """A label map at --longest px, so that an offset is the same share of each."""
    mask = read_checked_mask(path, args.num_classes)
    scale = args.longest / max(mask.shape)
    return resize_labels(mask, (max(1, round(scale * mask.shape[0])), max(1, round(scale * mask.shape[1]))))


if __name__ == "__main__":
    command_line(main)
