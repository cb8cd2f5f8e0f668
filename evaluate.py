"""Scores of a trained network on a CSV: mIoU, IoU per class, Dice, BF, Boundary IoU; as a table and as JSON.

    python evaluate.py --checkpoint runs/NAME/best.ckpt --csv data/csv/test.csv --json runs/NAME/test.json

Images and masks are scored at the size the network was trained at. mIoU comes from one confusion matrix over the split;
BF, Dice and Boundary IoU are means over its images. Of a classifier, on a CSV headed `image,label`: accuracy, balanced accuracy
(the mean recall of the classes that occur) and the recall of each class. Of a detector, on a COCO JSON: average precision of
masks, AP, AP50 and AP75, of all classes and of each.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection
from typing import Any, cast

import pandas as pd

from cli.command_line import command_line, positive_float, positive_int, side_length, tool_parser
from cli.files import UserError, check_outputs, write_json
from cli.lazy import torch
from data.classification import ClassDataset, check_class_files, is_class_csv, read_class_rows
from data.coco_text import is_coco
from data.dataset import SegmentationDataset, as_it_is
from data.instances import InstanceDataset, check_instance_files, read_instances
from data.rows import check_batch, check_rows, read_rows
from engine.checkpoint import load_network
from engine.classification import CLASSIFICATION, ClassScorer, load_classifier, refuse_other_names
from engine.devices import start_fabric
from engine.evaluation import evaluate
from engine.flags import add_device_flags
from engine.instances import (
    INSTANCES,
    InstanceScorer,
    add_image_dir_flag,
    load_detector,
    refuse_data_parallel,
    refuse_other_categories,
)
from engine.loaders import each_row_once, worker_count
from engine.task import SEGMENTATION, SegmentationScorer, Task
from utils.class_scores import CLASS_TITLES, recall_table
from utils.instance_scores import INSTANCE_TITLES, precision_table
from utils.metrics import score_table


def main() -> None:
    parser = tool_parser(__doc__)
    parser.add_argument("--checkpoint", required=True, help="best.ckpt or last.ckpt of a run")
    parser.add_argument("--csv", required=True, help="rows to score, or a COCO JSON")
    add_image_dir_flag(parser)
    parser.add_argument("--json", metavar="FILE", help="write the scores to this file too")
    parser.add_argument("--theta", type=positive_float,
                        help="boundary tolerance: px from 1 on, below 1 a share of the diagonal (default: the run's)")
    parser.add_argument("--size", type=side_length, nargs=2, metavar=("H", "W"), help="px (default: the run's)")
    parser.add_argument("--network", type=int, default=0, choices=(0, 1), help="which network of a two-network run")
    parser.add_argument("-b", "--batch-size", type=positive_int, default=8)
    parser.add_argument("--overwrite", action="store_true", help="replace an existing --json file")
    add_device_flags(parser)
    args = parser.parse_args()

    coco, labels = is_coco(args.csv), is_class_csv(args.csv)
    if (labels or coco) and args.theta:
        raise UserError(f"--theta: goes with masks; {args.csv} holds {'instances' if coco else 'class labels'}")
    if args.image_dir and not coco:
        raise UserError(f"--image-dir: goes with a COCO JSON; {args.csv} holds paths of its own")
    if coco:
        rows = read_instances(args.csv, args.image_dir)
        check_outputs([args.json] * bool(args.json), args.overwrite, [args.csv, args.checkpoint, *rows["image"]])
        evaluate_instances(args, rows)
        return
    # labels are read by the network's classes, later
    rows = read_class_rows(args.csv, None, needs_labels=False) if labels else read_rows(args.csv)
    if args.json:
        check_outputs([args.json], args.overwrite, [args.csv, args.checkpoint, *rows["image"], *rows.get("mask", [])])
    (evaluate_labels if labels else evaluate_masks)(args, rows)


def evaluate_masks(args: argparse.Namespace, rows: pd.DataFrame) -> None:
    """Scores of a segmentation network on rows of `read_rows`."""
    network, config = load_network(args.checkpoint, args.network)
    theta, size = args.theta or config["theta"], args.size or config["size"]
    check_batch(size, args.batch_size, rows)
    check_rows(args.csv, rows, config["num_classes"])
    fabric = start_fabric(args)
    dataset = SegmentationDataset(rows, size, config["num_classes"])
    scorer = SegmentationScorer(config["num_classes"], theta, fabric.device)
    scores = scores_of(args, fabric, network, dataset, scorer, SEGMENTATION)
    if fabric.is_global_zero:
        print_scores(args, score_table({args.csv: scores}), {"theta": theta, "size": size, **scores})


def evaluate_labels(args: argparse.Namespace, rows: pd.DataFrame) -> None:
    """Scores of a classifier on rows of `read_class_rows`."""
    network, config = load_classifier(args.checkpoint, args.network)
    refuse_other_names(args.csv, config["classes"])
    size, rows = args.size or config["size"], read_class_rows(args.csv, config["classes"])
    check_batch(size, args.batch_size, rows)
    check_class_files(args.csv, rows)
    fabric = start_fabric(args)
    dataset = ClassDataset(rows, size, (config["mean"], config["std"]))
    scores = scores_of(args, fabric, network, dataset, ClassScorer(config["num_classes"], fabric.device), CLASSIFICATION)
    if fabric.is_global_zero:
        text = f"{score_table({args.csv: scores}, CLASS_TITLES)}\n\n{recall_table(scores, config['classes'])}"
        print_scores(args, text, {"size": size, "classes": config["classes"], **scores})


def evaluate_instances(args: argparse.Namespace, rows: pd.DataFrame) -> None:
    """Scores of a detector on rows of `read_instances`, at the size that it was trained at."""
    network, config = load_detector(args.checkpoint, args.network)
    refuse_other_categories(args.csv, config["classes"], config["category_ids"])
    refuse_data_parallel(args)
    if args.size not in (None, config["size"]):
        raise UserError(f"--size {args.size[0]} {args.size[1]}: a detector is scored at the size it was trained at, "
                        f"{config['size'][0]} {config['size'][1]}; leave the flag out")
    check_batch(config["size"], args.batch_size, rows)
    check_instance_files(args.csv, rows)
    fabric = start_fabric(args)
    dataset, scorer = InstanceDataset(rows, config["size"]), InstanceScorer(len(config["classes"]), fabric.device)
    scores = scores_of(args, fabric, network, dataset, scorer, INSTANCES)
    if fabric.is_global_zero:
        text = f"{score_table({args.csv: scores}, INSTANCE_TITLES)}\n\n{precision_table(scores, config['classes'])}"
        print_scores(args, text, {"size": config["size"], "classes": config["classes"], **scores})


def scores_of(args: argparse.Namespace, fabric: Any, network: torch.nn.Module, dataset: Any, scorer: Any, task: Task
              ) -> dict[str, Any]:
    """What the scorer says of a dataset's samples, each counted once."""
    loader = torch.utils.data.DataLoader(dataset, args.batch_size, num_workers=worker_count(args, fabric), collate_fn=as_it_is,
                                         sampler=each_row_once(dataset, fabric))
    return evaluate(fabric, fabric.setup_module(network), cast(Collection, loader), scorer, task, title="evaluating")


def print_scores(args: argparse.Namespace, text: str, facts: dict) -> None:
    """Print the scores, and write them to --json."""
    print(text)
    if args.json:
        write_json(args.json, {"checkpoint": args.checkpoint, "csv": args.csv, **facts})


if __name__ == "__main__":
    command_line(main)
