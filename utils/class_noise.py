"""Noise on class labels: a copy of a class CSV or a COCO JSON with some labels made wrong at random, by a transition matrix.

    python utils/class_noise.py --csv data/csv/digits/train_clean.csv --noise worst --out data/csv/digits/train_worst_0.csv
    python utils/class_noise.py --csv data/coco/train.json --noise symmetric --rate 0.4 --out data/coco/train_sn40.json

--noise chooses the matrix, rows true, columns given:

    symmetric   each label is wrong with probability --rate, all other classes alike, the last one too. The true class is never
                drawn, unless --original-sampling asks for it (the code of Yang et al., ECCV 2020, which also never draws the
                last class). Classes of --keep stay right and are never drawn
    asymmetric  a class of --map is wrong with probability --rate, the others never. --map is a JSON, {"cat": "dog"} or
                {"cat": ["dog", "fox"]}; without it the published map of CIFAR-10, Cityscapes, VOC or digits, whichever fits
                the names (utils/class_maps.py), else the other classes of the same super-category of a COCO JSON; with
                --original-sampling all of them but the last, the true one too (utils/class_maps.py: published_lists)
    matrix      --matrix FILE, .csv (numbers alone), .json or .npy; the rows sum to 1, or to 100
    worst       what people gave in CIFAR-10N's `worst` labels, 40.2 % wrong; 10 classes
    rand1, aggre
                the same pattern off the diagonal, scaled to 17.23 % and 9.01 % wrong on average over the classes, as in
                CIFAR-10N; the matrices of these two are not known here

Only labels change; every other byte of the file stays, of a COCO JSON all but the annotations' `category_id`. Beside OUT lie
OUT_flips.csv (row, true, given of each wrong label; the header is row 1; of a COCO JSON annotation, true, given), which no
training reads, and OUT_noise.json (kind, rates asked and got, matrix, counts). Names come from classes.json beside the CSV,
else labels are numbers.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cli.command_line import command_line, positive_int, seed_number, share, tool_parser
from cli.files import UserError, atomic_path, check_outputs, read_json, together, write_json
from data.class_text import ClassText, class_numbers
from data.classification import label_like, read_class_names
from data.coco_text import CocoText, is_coco
from data.legend import FILE_NAME
from utils.class_maps import fitting_map, published_lists, within_groups
from utils.transition import (
    CIFAR10N_WRONG,
    asymmetric,
    checked_matrix,
    cifar10n,
    draw_labels,
    drawn_from,
    embedded,
    symmetric,
    wrong_share,
)

KINDS = ("symmetric", "asymmetric", "matrix", *CIFAR10N_WRONG)
BELONGS = {"rate": ("symmetric", "asymmetric"), "map": ("asymmetric",), "matrix": ("matrix",),
           "original_sampling": ("symmetric", "asymmetric"), "keep": ("symmetric",)}  # flag -> kinds that know it


@dataclass(frozen=True)
class Labels:
    """The labels of a file, N of C classes.

    Args:
        true: int64 (N,), class numbers.
        texts: N labels, as they stand in the file.
        names: of the classes, None = labels are numbers.
        num_classes: C.
        groups: of each class, None = there are none.
        key, keys: what the file of flips calls a sample: the column's title, N values.
        like: (old text, class number) -> label.
        with_labels: N labels -> the text of the file with these.
    """

    true: np.ndarray
    texts: list[str]
    names: list[str] | None
    num_classes: int
    groups: list[str] | None
    key: str
    keys: Sequence[Any]
    like: Callable[[str, int], str]
    with_labels: Callable[[Sequence[str]], str]


def read_labels(args: argparse.Namespace) -> Labels:
    """The labels of --csv."""
    if is_coco(args.csv):
        for flag, value in (("classes", args.classes), ("num-classes", args.num_classes)):
            if value:
                raise UserError(f"--{flag}: goes with a class CSV; {args.csv} names its own categories")
        coco = CocoText(args.csv)
        return Labels(coco.numbers, coco.labels, coco.names, len(coco.names), coco.groups, "annotation", coco.ids,
                      lambda old, number: str(coco.category_ids[number]), coco.with_labels)
    csv, names = ClassText(args.csv), read_class_names(args.csv, args.classes)
    true, num_classes = class_numbers(args.csv, csv.labels, names, args.num_classes)
    return Labels(true, csv.labels, names, num_classes, None, "row", range(2, len(true) + 2),
                  lambda old, number: label_like(old, number, names), csv.with_labels)


def read_matrix(path: Path | str) -> np.ndarray:
    """The numbers of a matrix in a .csv without a header, a .json (a list of rows, or an object with `matrix`), or a .npy.

    Raises:
        UserError: it cannot be read as a table of numbers.
    """
    suffix = Path(path).suffix.lower()
    try:
        if suffix == ".json":
            content = read_json(path)
            return np.array(content.get("matrix") if isinstance(content, dict) else content, dtype=float)
        if suffix == ".npy":
            return np.asarray(np.load(path, allow_pickle=False), dtype=float)
        if suffix == ".csv":
            return pd.read_csv(path, header=None, encoding="utf-8-sig").to_numpy(dtype=float)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    except (ValueError, TypeError, EOFError) as error:
        raise UserError(f"{path}: not a matrix of numbers ({str(error).splitlines()[0]})") from None
    raise UserError(f"{path}: a matrix is read from .csv, .json or .npy")


def read_map(path: Path | str, names: list[str] | None, num_classes: int) -> dict[int, list[int]]:
    """A JSON object of class -> class, or a list of several; by name or number.

    Returns:
        dict of class number -> class numbers.
    """
    content = read_json(path)
    if not isinstance(content, dict) or not content:
        raise UserError(f'{path}: an object of class -> class is needed, such as {{"cat": "dog"}}')
    chosen = {}
    for true, given in content.items():
        words = [str(each) for each in [true, *(given if isinstance(given, list) else [given])]]
        numbers, _ = class_numbers(path, words, names, None if names else num_classes)
        chosen[int(numbers[0])] = numbers[1:].tolist()
    return chosen


def matrix_of(args: argparse.Namespace, labels: Labels) -> np.ndarray:
    """The transition matrix (C, C) that the flags ask for."""
    num_classes = labels.num_classes
    if args.noise == "symmetric":
        kept = kept_classes(args, labels)
        chosen = [number for number in range(num_classes) if number not in kept]
        if len(chosen) < 2:
            raise UserError(f"--keep {' '.join(args.keep)}: leaves {len(chosen)} of {num_classes} classes; two are needed")
        return embedded(symmetric(len(chosen), args.rate, args.original_sampling), chosen, num_classes)
    if args.noise == "asymmetric":
        return _asymmetric_of(args, labels)
    if args.noise in CIFAR10N_WRONG:
        if num_classes != 10:
            raise UserError(f"--noise {args.noise}: is of 10 classes, {args.csv} has {num_classes}")
        return cifar10n(args.noise)
    try:
        return checked_matrix(read_matrix(args.matrix), num_classes)
    except ValueError as error:
        raise UserError(f"{args.matrix}: {error}") from None


def kept_classes(args: argparse.Namespace, labels: Labels) -> set[int]:
    """Numbers of the classes of --keep."""
    names = labels.names or [str(number) for number in range(labels.num_classes)]
    for name in args.keep or ():
        if name not in names:
            raise UserError(f"--keep {name}: {args.csv} has no such class; it has {', '.join(names[:5])}"
                            f"{', ...' * (len(names) > 5)}")
    return {names.index(name) for name in args.keep or ()}


def _asymmetric_of(args: argparse.Namespace, labels: Labels) -> np.ndarray:
    names = labels.names
    if args.map and args.original_sampling:
        raise UserError("--original-sampling: nothing is published of your own --map; leave one of them out")
    published, groups = fitting_map(names or ()), within_groups(labels.groups or ())
    targets: Any
    if args.map:
        targets = read_map(args.map, names, labels.num_classes)
    elif published:
        assert names
        targets = {names.index(true): [names.index(given)] for true, given in published.items()}
    elif groups and args.original_sampling:
        assert names and labels.groups
        return drawn_from(labels.num_classes, args.rate, published_lists(names, labels.groups))
    elif groups:
        targets = groups
    else:
        raise UserError("--noise asymmetric: there is no published map for these classes; pass --map FILE")
    try:
        return asymmetric(labels.num_classes, args.rate, targets)
    except ValueError as error:
        raise UserError(f"{args.map}: {error}") from None


def check_flags(args: argparse.Namespace) -> None:
    """Raise UserError where a flag is missing, or does not belong to the kind of noise."""
    for flag, kinds in BELONGS.items():
        spelt, given = f"--{flag.replace('_', '-')}", not any(getattr(args, flag) is none for none in (None, False))
        if given and args.noise not in kinds:
            raise UserError(f"{spelt}: belongs to --noise {' and '.join(kinds)}, not to {args.noise}")
        if not given and args.noise in kinds and flag in ("rate", "matrix"):
            raise UserError(f"--noise {args.noise}: needs {spelt}")


def record_of(args: argparse.Namespace, labels: Labels, given: np.ndarray, matrix: np.ndarray) -> dict[str, Any]:
    """What OUT_noise.json says: the flags, the rates asked, expected and got, the matrix, and `counts` [true][given]."""
    counts, true = np.zeros(matrix.shape, int), labels.true
    np.add.at(counts, (true, given), 1)
    return {"noise": args.noise, "csv": args.csv, "seed": args.seed, "original_sampling": args.original_sampling,
            "keep": args.keep or [], "rows": len(true), "wrong": int((true != given).sum()), "rate_asked": args.rate,
            "rate_expected": wrong_share(matrix, true), "rate_got": float((true != given).mean()),
            "classes": labels.names or len(matrix), "matrix": matrix.tolist(), "counts": counts.tolist()}


def noise_parser() -> argparse.ArgumentParser:
    """The flags of this tool."""
    parser = tool_parser(__doc__)
    parser.add_argument("--csv", required=True, help="class CSV headed image,label, or COCO JSON, with the true labels")
    parser.add_argument("--out", required=True, help="the same file with the wrong labels")
    parser.add_argument("--noise", choices=KINDS, required=True, help="kind of noise")
    parser.add_argument("--rate", type=share, help="of symmetric and asymmetric: probability that a label is wrong")
    parser.add_argument("--map", metavar="JSON", help="of asymmetric: class -> class, by name or number")
    parser.add_argument("--matrix", metavar="FILE", help="of matrix: rows true, columns given")
    parser.add_argument("--original-sampling", action="store_true", help="of symmetric and asymmetric: draw as the published "
                                                                         "code does")
    parser.add_argument("--keep", nargs="+", metavar="CLASS", help="of symmetric: classes that noise leaves alone")
    parser.add_argument("--seed", type=seed_number, default=0)
    parser.add_argument("--classes", metavar="JSON", help=f"names of the classes (default: {FILE_NAME} beside the CSV, if any)")
    parser.add_argument("--num-classes", type=positive_int, help="where no names are (default: the largest label + 1)")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    return parser


def make_noise(args: argparse.Namespace) -> None:
    """Write the file with wrong labels, its flips and its record, all of them or none.

    Args:
        args: flags of `noise_parser`.
    """
    check_flags(args)
    out = Path(args.out)
    if is_coco(out) != is_coco(args.csv):
        raise UserError(f"--out {out}: {args.csv} is copied as it is; the names of both must end alike")
    flips, record = out.with_name(f"{out.stem}_flips.csv"), out.with_name(f"{out.stem}_noise.json")
    check_outputs([out, flips, record], args.overwrite, [args.csv, args.classes, args.map, args.matrix])
    labels = read_labels(args)
    matrix = matrix_of(args, labels)
    given = draw_labels(labels.true, matrix, args.seed)
    texts = [old if before == after else labels.like(old, after)
             for old, before, after in zip(labels.texts, labels.true.tolist(), given.tolist())]
    wrong = np.flatnonzero(labels.true != given).tolist()
    changes = pd.DataFrame({labels.key: [labels.keys[i] for i in wrong], "true": [labels.texts[i] for i in wrong],
                            "given": [texts[i] for i in wrong]})
    content = record_of(args, labels, given, matrix)
    with together() as written_at:
        with atomic_path(written_at(flips)) as temporary:
            temporary.write_bytes(changes.to_csv(index=False, lineterminator="\n").encode())
        write_json(written_at(record), content)
        with atomic_path(written_at(out)) as temporary:
            temporary.write_bytes(labels.with_labels(texts).encode())
    print(f"{out}: {len(wrong)} of {len(given)} labels are wrong ({100 * content['rate_got']:.1f} %; expected "
          f"{100 * content['rate_expected']:.1f} %); which ones: {flips}")


def main() -> None:
    make_noise(noise_parser().parse_args())


if __name__ == "__main__":
    command_line(main)
