"""CIFAR-10 or CIFAR-100 with the labels that people gave (CIFAR-10N, CIFAR-100N) -> PNGs, class CSVs, classes.json.

    python data/prepare_cifar_n.py data/generated/cifar --labels CIFAR-10_human.pt --out data/csv/cifar10 --download
    python data/prepare_cifar_n.py --arrays images.npz --labels labels.npz --out data/csv/cifar10

reads torchvision's copy in the folder, which --download fetches (0.2 GB), or arrays x_train, y_train, x_test, y_test (uint8
(N, 32, 32, 3), labels (N,)) of a .npz. --labels is the published label file (.pt, in which nothing but arrays of int64 is let
in) or a .npz of arrays; its clean_label must equal the data set's own labels, so that a file in another order is found out.
Each array becomes a CSV of the same pictures in the same order:

    clean_label train_clean.csv, aggre_label train_aggre.csv, worse_label train_worst.csv, random_label1..3 train_rand1..3.csv,
    noisy_label (CIFAR-100N) train_noisy100.csv

test.csv has the true labels; normalisation.json has the mean and deviation that most papers use for the data set.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from cli.command_line import command_line, positive_int, tool_parser
from cli.files import UserError
from data.class_sets import class_rows, write_class_set
from data.classification import NORMALISATION
from data.label_files import read_arrays, read_label_file
from data.splits import close_output, download, open_output, require

KEYS = {"clean_label": "clean", "aggre_label": "aggre", "worse_label": "worst", "random_label1": "rand1",
        "random_label2": "rand2", "random_label3": "rand3", "noisy_label": "noisy100"}  # of the label file -> of the CSV
CIFAR10_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CONSTANTS = {"cifar10": {"mean": [0.4914, 0.4822, 0.4465], "std": [0.2023, 0.1994, 0.2010]},
             "cifar100": {"mean": [0.5071, 0.4867, 0.4408], "std": [0.2675, 0.2565, 0.2761]}}
FOLDERS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}
CLASSES = {"cifar10": 10, "cifar100": 100}
SPLITS = ("train", "test")
Arrays = dict[str, np.ndarray]  # x_train, y_train, x_test, y_test


def from_torchvision(args: argparse.Namespace) -> tuple[Arrays, list[str]]:
    """(arrays, names of the classes) of torchvision's copy, whose check sums torchvision compares before it unpacks.

    Raises:
        UserError: it is not there, or is damaged.
    """
    name = args.dataset.upper()
    home = Path(args.folder) / FOLDERS[args.dataset]
    if args.download and not home.exists():
        download(name, args.folder)
    require(home, layout=f"{FOLDERS[args.dataset]}/ as torchvision unpacks it; --download fetches it")
    from torchvision import datasets  # heavy

    try:
        parts = {split: getattr(datasets, name)(args.folder, train=split == "train") for split in SPLITS}
    except RuntimeError as error:  # a file is missing, or has another check sum
        raise UserError(f"{home}: {str(error).splitlines()[0]}; remove it and fetch it anew with --download") from None
    arrays: Arrays = {}
    for split, part in parts.items():
        arrays |= {f"x_{split}": part.data, f"y_{split}": np.array(part.targets, np.int64)}
    return arrays, list(parts["train"].classes)


def from_arrays(path: Path | str, dataset: str) -> tuple[Arrays, list[str]]:
    """(arrays, names of the classes) of a .npz; classes of CIFAR-100 are numbered there.

    Raises:
        UserError: an array is missing, or of another shape, type or range.
    """
    found = read_arrays(path)
    arrays: Arrays = {}
    for split in SPLITS:
        for key in (f"x_{split}", f"y_{split}"):
            if key not in found:
                raise UserError(f"{path}: has no array {key}; x_train, y_train, x_test, y_test are needed")
        pictures, labels = found[f"x_{split}"], found[f"y_{split}"]
        if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[3] != 3 or not pictures.size:
            raise UserError(f"{path}: x_{split} is {pictures.dtype} {pictures.shape}; uint8 (N, H, W, 3) is needed")
        if labels.dtype.kind not in "iu" or labels.shape != pictures.shape[:1]:
            raise UserError(f"{path}: y_{split} is {labels.dtype} {labels.shape}; whole numbers ({len(pictures)},) are needed")
        check_range(path, f"y_{split}", labels, CLASSES[dataset])
        arrays |= {f"x_{split}": pictures, f"y_{split}": labels.astype(np.int64)}
    return arrays, list(CIFAR10_NAMES) if dataset == "cifar10" else [str(number) for number in range(CLASSES[dataset])]


def check_range(path: Path | str, key: str, labels: np.ndarray, num_classes: int) -> None:
    """Raise UserError unless all labels (N,) are classes."""
    if labels.size and not (0 <= labels.min() and labels.max() < num_classes):
        raise UserError(f"{path}: {key} holds labels {labels.min()}..{labels.max()}, classes are 0..{num_classes - 1}; see "
                        "--dataset")


def noisy_labels(path: Path | str, true: np.ndarray, num_classes: int) -> Arrays:
    """The label file's arrays by noise type (`aggre`, `worst`, ...), int64 (N,); arrays of unknown names are told on stderr.

    Args:
        true: labels (N,) of the training pictures, in their order.

    Raises:
        UserError: an array has another length or range, or clean_label is not `true`.
    """
    found = read_label_file(path)
    if "clean_label" not in found:
        raise UserError(f"{path}: has no clean_label; without it the order cannot be checked; use the published file")
    others = sorted(found.keys() - KEYS.keys())
    if others:
        print(f"{path}: {len(others)} arrays of unknown names are left out, e.g. {others[0]}", file=sys.stderr)
    labels = {kind: found[key] for key, kind in KEYS.items() if key in found}
    for kind, each in labels.items():
        if each.shape != true.shape:
            raise UserError(f"{path}: the labels of {kind} are {each.shape}, there are {len(true)} training pictures")
        check_range(path, kind, each, num_classes)
    wrong = np.flatnonzero(labels["clean"] != true)
    if len(wrong):
        raise UserError(f"{path}: its clean_label differs from the data set's own labels at {len(wrong)} of {len(true)} "
                        f"pictures, first {wrong[0]}: the order is another one, or the file belongs to another data set")
    return labels


def cifar_parser() -> argparse.ArgumentParser:
    """The flags of this script."""
    parser = tool_parser(__doc__)
    parser.add_argument("folder", nargs="?", help="of torchvision's copy; not with --arrays")
    parser.add_argument("--out", required=True, help="folder of the CSVs and of the pictures, images/")
    parser.add_argument("--dataset", choices=tuple(CLASSES), default="cifar10")
    parser.add_argument("--arrays", metavar="NPZ", help="read pictures and true labels from these arrays")
    parser.add_argument("--labels", metavar="FILE", help="label file, .pt or .npz; without it only train_clean.csv is written")
    parser.add_argument("--download", action="store_true", help="fetch the data set into the folder first")
    parser.add_argument("--limit", type=positive_int, help="take only the first N training and test pictures")
    parser.add_argument("--overwrite", action="store_true", help="make existing files anew")
    return parser


def main() -> None:
    args = cifar_parser().parse_args()
    if (args.folder is None) == (args.arrays is None):
        raise UserError("pass the folder of torchvision's copy, or --arrays FILE.npz: one of the two")
    if args.arrays and args.download:
        raise UserError("--download: fetches into a folder; --arrays reads none")
    arrays, names = from_arrays(args.arrays, args.dataset) if args.arrays else from_torchvision(args)
    labels = {"clean": arrays["y_train"]}
    if args.labels:
        labels = noisy_labels(args.labels, arrays["y_train"], len(names))

    out, files, pictures = Path(args.out), {}, []
    for split in SPLITS:
        kept = arrays[f"x_{split}"][:args.limit]
        files[split] = [out / "images" / split / f"{number:05d}.png" for number in range(len(kept))]
        pictures += list(zip(files[split], kept))
    open_output(args)
    splits = {f"train_{kind}": class_rows(files["train"], each[:args.limit].tolist(), names) for kind, each in labels.items()}
    splits["test"] = class_rows(files["test"], arrays["y_test"][:args.limit].tolist(), names)
    facts: dict[str, Any] = {NORMALISATION: CONSTANTS[args.dataset]}
    write_class_set(out, names, splits, args.overwrite, pictures, facts)
    close_output(out)


if __name__ == "__main__":
    command_line(main)
