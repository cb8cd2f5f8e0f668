"""Instances as a `Task`: COCO JSON, Mask R-CNN, average precision of masks.

Legend: B pictures, N sampled RoIs of all of them, K classes of objects; class 0 is the background.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

from cli.command_line import positive_int
from cli.files import UserError
from cli.lazy import torch
from data.instances import InstanceDataset, check_instance_files, read_categories, read_instances
from data.pictures import image_size
from data.rows import check_apart, check_batch
from data.transforms import normalised
from engine import checkpoint
from engine.devices import visible_gpus
from engine.task import Task
from models import build_detector
from utils.instance_scores import INSTANCE_TITLES, InstanceScores

ENCODERS = ("resnet18", "resnet50", "mobilenet_v2")
LEAST_SIZE = 32  # px, of a side: the stride of the deepest feature map
CONFIG = {"task", "name", "encoder", "norm", "rois", "width", "num_classes", "classes", "category_ids",
          "size"}  # see `detector_config`; checkpoints without `anchor` have ANCHOR
ANCHOR = 32  # px


def add_detector_flags(parser: argparse.ArgumentParser) -> None:
    """--norm, --rois, --width, --anchor, --image-dir."""
    group = parser.add_argument_group(
        "instances (a COCO JSON)", "by default the network is maskrcnn with resnet18, --size the first picture's")
    group.add_argument("--norm", choices=("frozen", "group"), help="`frozen`: batch norm and first stages of a pretrained "
                       "encoder stay as they are; `group`: group norm, trained (default: frozen with --encoder-weights, "
                       "else group)")
    group.add_argument("--rois", type=positive_int, default=512, help="regions sampled from each training picture")
    group.add_argument("--width", type=positive_int, default=256, help="channels of the feature pyramid and of the heads")
    group.add_argument("--anchor", type=positive_int, help="side of the smallest anchors, px, twice as large on each level of "
                       f"the pyramid (default: {ANCHOR}, the published one, which fits short sides of 800 px)")
    add_image_dir_flag(group)


def add_image_dir_flag(parser: argparse._ActionsContainer) -> None:
    """--image-dir."""
    parser.add_argument("--image-dir", metavar="DIR", help="folder of a COCO JSON's pictures (default: beside the JSON, in a "
                        "folder above it, or in `images` there)")


def complete(args: argparse.Namespace) -> None:
    """Fill in what the training JSON tells, to be called before `run`: classes, --size and --norm.

    Raises:
        UserError: flags that instances cannot have, or see `read_instances`.
    """
    refuse_data_parallel(args)
    if args.compile:
        raise UserError("--compile: not with instances, whose number changes from picture to picture; leave it out")
    args.classes, args.category_ids = read_categories(args.train_csv)
    args.num_classes = len(args.classes) + 1
    if args.size is None:
        args.size = list(image_size(read_instances(args.train_csv, args.image_dir)["image"].iloc[0]))
    if min(args.size) < LEAST_SIZE:
        raise UserError(f"--size {args.size[0]} {args.size[1]}: {LEAST_SIZE} px or more are needed, one place of the "
                        "network's deepest map")
    if args.load:
        take_over(args, checkpoint.network_of(args.load, 0)["config"])
    args.norm = args.norm or ("frozen" if args.encoder_weights else "group")
    if args.norm == "frozen" and not (args.encoder_weights or args.load):
        raise UserError("--norm frozen: norms and first stages would stay as drawn at random; pass --encoder-weights, or leave "
                        "it out")
    args.anchor = args.anchor or ANCHOR


def take_over(args: argparse.Namespace, config: dict) -> None:
    """Set what weights do not show, --norm and --anchor, as the network of --load has them.

    Raises:
        UserError: a flag says otherwise.
    """
    if not CONFIG <= config.keys():
        return  # no detector: its weights are refused later
    for flag, loaded in (("norm", config["norm"]), ("anchor", config.get("anchor", ANCHOR))):
        given = getattr(args, flag)
        if given not in (None, loaded):
            raise UserError(f"--{flag} {given}: {args.load} was trained with {loaded}; leave the flag out")
        setattr(args, flag, loaded)


def refuse_data_parallel(args: argparse.Namespace) -> None:
    """Raise UserError if the run would use DataParallel: it cuts tensors in parts, not lists of instances."""
    several = args.strategy == "auto" and "LOCAL_WORLD_SIZE" not in os.environ and args.accelerator != "cpu" and (
        visible_gpus(args) > 1)
    if args.strategy == "dp" or several:
        raise UserError("--strategy dp: DataParallel cannot split lists of instances, whose number differs from picture to "
                        "picture; start one process per device with torchrun, or pass --devices 1")


def read_instance_splits(args: argparse.Namespace, needs_weights: bool = False, pseudo_dir: str | None = None) -> dict:
    """Rows of each split, their files not yet opened: dict of `train`, `valid`, `test` -> DataFrame of `read_instances`."""
    if pseudo_dir:
        raise UserError(f"{args.train_csv}: holds instances, pseudo-labels of pixels ({pseudo_dir}) go with masks")
    splits = {}
    for split in ("train", "valid", "test"):
        path = getattr(args, f"{split}_csv")
        if not path:
            continue
        refuse_other_categories(path, args.classes, args.category_ids)
        splits[split] = read_instances(path, args.image_dir, needs_weights and split == "train")
        if not any(each["iscrowd"] == 0 for instances in splits[split]["instances"] for each in instances):
            raise UserError(f"{path}: has no instance that is not a crowd; there is nothing to learn or to score")
    check_apart([(getattr(args, f"{split}_csv"), rows) for split, rows in splits.items()])
    check_batch(args.size, args.batch_size, splits["train"])
    return splits


def refuse_other_categories(path: str, classes: list[str], ids: list[int]) -> None:
    """Raise UserError if the categories of a JSON are not those of a run."""
    if read_categories(path) != (classes, ids):
        some = ", ".join(classes[:5]) + ", ..." * (len(classes) > 5)
        raise UserError(f"{path}: its `categories` are not those of the run ({some}), by id and name; write it with the same "
                        "list")


def check_splits(args: argparse.Namespace, splits: dict) -> None:
    """`check_instance_files` of each split."""
    for split, rows in splits.items():
        check_instance_files(getattr(args, f"{split}_csv"), rows)


def detector_config(args: argparse.Namespace, suffix: str = "") -> dict:
    """What a checkpoint must know to rebuild and use its network; see `engine.task.Task`."""
    return {"task": "instances", "name": args.model, "encoder": args.encoder, "norm": args.norm, "rois": args.rois,
            "width": args.width, "anchor": args.anchor, "num_classes": args.num_classes, "classes": list(args.classes),
            "category_ids": list(args.category_ids), "size": list(args.size)}


def build_from_config(config: dict, encoder_weights: str | None = None) -> Any:
    """The network of a config; a UserError if `build_detector` refuses it."""
    try:
        return build_detector(config["name"], config["encoder"], encoder_weights, config["num_classes"], tuple(config["size"]),
                              config["norm"], config["rois"], config["width"], config.get("anchor", ANCHOR))
    except ValueError as error:
        raise UserError(str(error)) from None


def load_detector(path: str, index: int = 0) -> tuple[Any, dict]:
    """A trained detector in eval mode, and its config; index and errors as of `checkpoint.load_network`."""
    return checkpoint.load_as(path, index, CONFIG, build_from_config, "a network for instances")


def is_detector(path: str, index: int = 0) -> bool:
    """Whether a checkpoint's network is a detector; errors as of `checkpoint.load_network`."""
    return CONFIG <= checkpoint.network_of(path, index)["config"].keys()


def detect(network: torch.nn.Module, batch: dict) -> Any:
    """What `models.maskrcnn.Detector` gives for a batch; while training with `other`, the sum of its other four losses, a
    tensor (), each weighed by `share_of`."""
    output = network(batch["image"], batch["targets"], batch["seeds"])
    if isinstance(output, dict):
        device = output["logits"].device
        output["other"] = sum(part * share_of(output["counts"][name], device) for name, part in output["parts"].items())
    return output


def instance_losses(output: dict, batch: dict) -> torch.Tensor:
    """The whole loss of a batch, as one sample: float (1,), cross-entropy of the RoIs and the other losses."""
    losses = torch.nn.functional.cross_entropy(output["logits"].float(), output["labels"], reduction="none")  # (N,)
    return (losses.mean() * share_of(len(losses), losses.device) + output["other"])[None]


def share_of(samples: int, device: torch.device) -> torch.Tensor | float:
    """By how much a process's mean over its samples counts, so that all processes together give the mean over all samples.

    Gradients are averaged over processes: each one's mean is multiplied by its share of all samples times the number of
    processes. 1 without other processes.
    """
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return 1.0
    total = torch.tensor(float(samples), device=device)
    torch.distributed.all_reduce(total)
    return samples * torch.distributed.get_world_size() / total.clamp(min=1)


class InstanceScorer:
    """`InstanceScores` of detections against the instances of their batches."""

    def __init__(self, num_classes: int, device: Any = "cpu") -> None:
        self.scores = InstanceScores(num_classes, device)
        self.reduce, self.compute = self.scores.reduce, self.scores.compute

    def update(self, output: Any, batch: dict) -> None:
        """Add a batch."""
        self.scores.update(output, batch["targets"])


INSTANCES = Task(
    rows=read_instance_splits,
    dataset=lambda rows, args, training: InstanceDataset(rows, args.size, training, args.mirror, args.seed),
    config=detector_config,
    build=build_from_config,
    forward=detect,
    losses=instance_losses,
    scorer=lambda args, device: InstanceScorer(args.num_classes - 1, device),
    compared=("ap",),
    titles=INSTANCE_TITLES,
    prepare=lambda batch: {**batch, "image": normalised(batch["image"])},
    check=check_splits)
