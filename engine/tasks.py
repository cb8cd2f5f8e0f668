"""Choose the task by the header of the training CSV, before PyTorch is loaded.

A script for both tasks makes its parser with `train_parser(..., classes=True)` and reads it by `parse_task`. Flags of one task
are refused by the other and left out of its result.json.
"""

from __future__ import annotations

import argparse

from cli.files import UserError
from data.classification import is_class_csv
from data.csv_files import read_table
from engine.classification import CLASSIFICATION, complete
from engine.flags import CLASS_FLAGS
from engine.task import SEGMENTATION, Task
from models import CLASSIFIERS, NAMES

MASK_FLAGS = ("width", "theta", "augment", "select_by", "disagree_below", "pixels")


def task_of(args: argparse.Namespace) -> Task:
    """CLASSIFICATION if the training CSV is headed `image,label`, else SEGMENTATION."""
    return CLASSIFICATION if is_class_csv(args.train_csv) else SEGMENTATION


def parse_task(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, Task]:
    """The flags of a command line, completed for its task, and the task.

    Raises:
        UserError: a flag of the other task was given, or see `complete`.
    """
    args = parser.parse_args()
    task, given = task_of(args), given_flags(parser)
    if task is SEGMENTATION:
        if set(given) & {*CLASS_FLAGS, *models_of(args)}:
            read_table(args.train_csv, 0)  # a CSV that cannot be read gets its own message; it is not called one of masks
        refuse(given, CLASS_FLAGS, f"goes with class labels, a CSV headed `image,label`; {args.train_csv} holds masks")
        check_models(args, NAMES, f"masks ({args.train_csv})")
        for flag in CLASS_FLAGS:
            delattr(args, flag)
        return args, task
    refuse(given, MASK_FLAGS, f"goes with masks; {args.train_csv} holds class labels")
    for flag in MASK_FLAGS:
        if flag in vars(args) and flag != "pixels":
            delattr(args, flag)
    for flag in ("num_classes", "size"):
        setattr(args, flag, given.get(flag))
    for flag in models_of(args):
        setattr(args, flag, given.get(flag, CLASSIFIERS[0]))
    check_models(args, CLASSIFIERS, f"class labels ({args.train_csv})")
    complete(args)
    return args, task


def given_flags(parser: argparse.ArgumentParser) -> dict:
    """The flags that stand on the command line, by name; the parser loses its defaults and is of no further use."""
    missing = object()
    parser.set_defaults(**dict.fromkeys(vars(parser.parse_args()), missing))
    return {flag: value for flag, value in vars(parser.parse_args()).items() if value is not missing}


def refuse(given: dict, flags: tuple[str, ...], reason: str) -> None:
    """Raise UserError if one of the flags is given."""
    for flag in flags:
        if flag in given:
            raise UserError(f"--{flag.replace('_', '-')}: {reason}")


def models_of(args: argparse.Namespace) -> list[str]:
    """Names of the flags that name networks."""
    return [flag for flag in ("model", "model_a", "model_b") if flag in vars(args)]


def check_models(args: argparse.Namespace, names: tuple[str, ...], what: str) -> None:
    """Raise UserError unless the networks are among `names`, those for `what`."""
    for flag in models_of(args):
        if getattr(args, flag) not in names:
            raise UserError(f"--{flag.replace('_', '-')} {getattr(args, flag)}: not a network for {what}; choose from "
                            f"{', '.join(names)}")
