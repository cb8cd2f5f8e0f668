"""The flags of train_nlis.py, and the task that its training rows ask for: a class CSV, or a COCO JSON."""

from __future__ import annotations

import argparse

from cli.command_line import nonnegative_int, positive_float, tool_parser
from cli.files import UserError
from data.classification import read_class_names
from data.coco_text import is_coco
from engine import classification, instances
from engine.flags import add_class_task_flags, add_optimizer_flags, add_run_flags, add_training_device_flags
from engine.task import Task
from engine.tasks import given_flags, refuse
from models import CLASSIFIERS, DETECTORS
from related.nlis.objective import NAMES
from related.nlis.roi_scores import ROIS

CSV_FLAGS = ("shift", "padding", "num_classes", "cache")  # go with a class CSV alone
JSON_FLAGS = ("norm", "rois", "width", "anchor", "image_dir")  # go with a COCO JSON alone


def nlis_parser(docstring: str | None) -> argparse.ArgumentParser:
    """The parser of train_nlis.py; defaults are the published ones where the data set does not decide."""
    parser = tool_parser(docstring)
    add_run_flags(parser)
    group = parser.add_argument_group("method")
    group.add_argument("--loss", choices=NAMES, default="nlis", help="of the class labels, in stage 2")
    group.add_argument("--stage1-epochs", type=nonnegative_int, metavar="E", help="first epochs, with cross-entropy (default: "
                       "half of --epochs for nlis, 0 for the others)")
    group.add_argument("--pon-threshold", type=positive_float, metavar="CE", help="nlis: samples of a class whose "
                       "cross-entropy is above this do not count (published: 6; default: off)")
    group.add_argument("--weighted", action="store_true", help="nlis: multiply RCE by the trust in each label: the column "
                       "`weight` of the CSV, or `weight` of each annotation")
    add_class_task_flags(parser, (*CLASSIFIERS, *DETECTORS))
    instances.add_detector_flags(parser)
    add_optimizer_flags(parser)
    add_training_device_flags(parser)
    parser.set_defaults(epochs=12, batch_size=8, learning_rate=0.01, optimizer="sgd", weight_decay=1e-4, lr_step=8,
                        lr_gamma=0.1, clip=0.0)
    return parser


def parse(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, Task]:
    """The flags of the command line, completed, and the task.

    Args:
        parser: of `nlis_parser`, to which flags may have been added; it is of no further use.

    Raises:
        UserError: flags that contradict one another or the rows.
    """
    args = parser.parse_args()
    given = given_flags(parser)
    if args.loss != "nlis":
        refuse(given, ("pon_threshold", "weighted"), f"goes with --loss nlis, not with {args.loss}")
    if args.stage1_epochs is None:
        args.stage1_epochs = args.epochs // 2 if args.loss == "nlis" else 0
    elif args.stage1_epochs > args.epochs:
        raise UserError(f"--stage1-epochs {args.stage1_epochs}: the run has {args.epochs} epochs; pass fewer")
    if is_coco(args.train_csv):
        refuse(given, CSV_FLAGS, f"goes with a class CSV; {args.train_csv} is a COCO JSON")
        for flag in CSV_FLAGS:
            delattr(args, flag)
        args.model = given.get("model", DETECTORS[0])
        if args.model not in DETECTORS:
            raise UserError(f"--model {args.model}: not a network for instances; choose from {', '.join(DETECTORS)}")
        args.encoder = given.get("encoder", instances.ENCODERS[0])
        instances.complete(args)
        return args, instances.INSTANCES
    refuse(given, JSON_FLAGS, f"goes with a COCO JSON; {args.train_csv} is none")
    for flag in JSON_FLAGS:
        delattr(args, flag)
    if args.model not in CLASSIFIERS:
        raise UserError(f"--model {args.model}: not a network for class labels; choose from {', '.join(CLASSIFIERS)}")
    classification.complete(args)
    names = read_class_names(args.train_csv)
    if names and names[0] != "background":
        raise UserError(f"{args.train_csv}: the first class is `{names[0]}`, and must be `background`: pictures without "
                        "an object; data/make_digits.py --background shows how")
    return args, ROIS
