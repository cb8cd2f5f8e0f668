"""The flags that scripts share. A script adds only its own."""

import argparse
import os
from collections.abc import Callable, Sequence

from cli.command_line import (
    class_count,
    none_or_str,
    nonnegative_float,
    nonnegative_int,
    positive_float,
    positive_int,
    seed_number,
    share,
    side_length,
    tool_parser,
)
from cli.files import UserError
from cli.flags import add_class_flag, add_score_flags
from data.classification import is_class_csv
from data.rows import read_rows
from engine.devices import FAST, FULL, HALF
from models import CLASSIFIERS, NAMES
from utils.agreement import METRICS
from utils.judge import check_mixable, name_metric, read_origin
from utils.weighting import keep_share, kept_count

CLASS_FLAGS = ("mirror", "shift", "padding")  # of `add_move_flags`


def train_parser(docstring: str, add_networks: Callable[..., None] | None = None,
                 classes: bool = False) -> argparse.ArgumentParser:
    """The parser of a script that trains segmentation networks. One of another task combines the same groups itself.

    Args:
        add_networks: adds the flags of the networks; default: `add_model_flags`, one network.
        classes: the script trains on class labels, too; its flags are read by `engine.tasks.parse_task`.
    """
    parser = tool_parser(docstring)
    add_run_flags(parser)
    add_task_flags(parser, add_networks, (*NAMES, *CLASSIFIERS) if classes else NAMES)
    if classes:
        add_move_flags(parser)
    add_optimizer_flags(parser)
    add_training_device_flags(parser)
    return parser


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """The published flags of any training, and --seed, --out-dir, --resume, --overwrite."""
    published = parser.add_argument_group("published flags")
    published.add_argument("-e", "--epochs", type=positive_int, default=100, help="passes over the training set")
    published.add_argument("-b", "--batch-size", type=positive_int, default=4, help="samples per step, over all devices")
    published.add_argument("-l", "--learning-rate", "--lr", type=positive_float, default=0.1, help="initial learning rate")
    published.add_argument("-f", "--load", metavar="CKPT", help="start from the weights of this checkpoint")
    published.add_argument("-train", "--train_csv", "--train-csv", required=True, metavar="CSV", help="training rows")
    published.add_argument("-valid", "--valid_csv", "--valid-csv", metavar="CSV",
                           help="rows that choose the best epoch; without it the last epoch is taken")
    published.add_argument("-test", "--test_csv", "--test-csv", metavar="CSV", help="rows for the final scores")
    published.add_argument("-n", "--name", required=True, help="name of the run, a folder in --out-dir")
    runs = parser.add_argument_group("run")
    runs.add_argument("--seed", type=seed_number, default=0, help="seed of weights, order and augmentation")
    runs.add_argument("--out-dir", default="runs", help="where runs are kept")
    again = runs.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on from the run's last epoch, if there is one")
    again.add_argument("--overwrite", action="store_true", help="replace an existing run of this name")


def add_task_flags(parser: argparse.ArgumentParser, add_networks: Callable[..., None] | None = None,
                   models: Sequence[str] = NAMES) -> None:
    """The flags of segmentation: those of the networks, --size, --num-classes, --theta, --augment, --cache.

    Args:
        add_networks: see `train_parser`.
        models: names of the networks to choose from.
    """
    (add_networks or add_model_flags)(parser, models)
    add_score_flags(parser)
    data = parser.add_argument_group("data")
    data.add_argument("--augment", action="store_true", help="flip, scale and colour at random (off in the paper)")
    data.add_argument("--cache", action="store_true", help="keep decoded, resized samples in memory, 4 bytes a pixel")


def add_class_task_flags(parser: argparse.ArgumentParser, models: Sequence[str] = CLASSIFIERS) -> None:
    """What a script for class labels alone needs: --model, --encoder, --size, --num-classes, --mirror, --shift, --cache.

    `engine.classification.complete` fills in the size and the classes that the training CSV tells; call it before `run`.

    Args:
        models: names of the networks to choose from, the default first.
    """
    group = parser.add_argument_group("network")
    _add_network(group, "", models[0], models)
    group.add_argument("--size", type=side_length, nargs=2, metavar=("H", "W"), help="px (default: the first picture's)")
    group.add_argument("--num-classes", type=class_count, help="(default: as classes.json or the training labels say)")
    add_move_flags(parser).add_argument("--cache", action="store_true", help="keep decoded, resized pictures in memory")


def add_move_flags(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """--mirror, --shift, --padding; returns their group."""
    group = parser.add_argument_group(
        "class labels (a CSV headed image,label)", f"by default the network is {CLASSIFIERS[0]}, --size that of the first "
        "training picture, and --num-classes what classes.json beside the CSV, or the labels, say")
    group.add_argument("--mirror", action="store_true", help="mirror half of the training pictures, left to right")
    group.add_argument("--shift", type=nonnegative_int, default=0, metavar="PX",
                       help="move each training picture at random by up to so many pixels")
    group.add_argument("--padding", choices=("reflect", "zero"), default="reflect", help="what comes in at the edge")
    return group


def add_training_device_flags(parser: argparse.ArgumentParser) -> None:
    """`add_device_flags` and --compile."""
    machine = add_device_flags(parser)
    machine.add_argument("--compile", action="store_true", help="compile the networks: the first step takes minutes, "
                                                                "later ones less")


def add_model_flags(parser: argparse.ArgumentParser, models: Sequence[str] = NAMES) -> None:
    """--model, --encoder, --encoder-weights, and what all networks share."""
    group = parser.add_argument_group("network")
    _add_network(group, "", "unet", models)
    _add_shape_flags(group)


def add_pair_flags(parser: argparse.ArgumentParser, models: Sequence[str] = NAMES) -> None:
    """Two networks, --model-a, --model-b and so on (paper, section 4: A = U-Net, B = DeepLabv3+)."""
    group = parser.add_argument_group("networks: A, the one that is reported, and B")
    _add_network(group, "-a", "unet", models)
    _add_network(group, "-b", "deeplabv3plus", models)
    _add_shape_flags(group)


def _add_network(group: argparse._ArgumentGroup, suffix: str, model: str, models: Sequence[str]) -> None:
    group.add_argument(f"--model{suffix}", default=model, choices=models,
                       help="a network for masks, or for class labels" if {*NAMES, *CLASSIFIERS} <= {*models} else None)
    group.add_argument(f"--encoder{suffix}", default="resnet34", help="any of smp's; the classic unet has none")
    group.add_argument(f"--encoder-weights{suffix}", type=none_or_str, default="none", metavar="imagenet|none|FILE",
                       help="`imagenet` is fetched from the hub; FILE is a .safetensors or .pth of the encoder")


def _add_shape_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--width", type=positive_int, default=64, help="first-level channels of the classic unet")
    group.add_argument("--size", type=side_length, nargs=2, default=[321, 321], metavar=("H", "W"),
                       help="training size, px")
    add_class_flag(group)


def add_selection_flags(parser: argparse.ArgumentParser) -> None:
    """--select-by, --forget-rate, --ramp-epochs: which samples Co-teaching keeps."""
    group = parser.add_argument_group("selection")
    group.add_argument("--select-by", choices=("loss", *METRICS), default="loss",
                       help="a network trusts the samples of the smallest loss, or of the highest score against the annotation")
    group.add_argument("--forget-rate", type=share, metavar="SHARE",
                       help="share of each batch dropped after the ramp (default: the share of noisy rows if the "
                            "training CSV has `iterations`, else 0.2)")
    group.add_argument("--ramp-epochs", type=positive_int, default=10, help="epochs of the ramp")


def add_disagreement_flag(parser: argparse.ArgumentParser) -> None:
    """--disagree-below."""
    parser.add_argument("--disagree-below", type=share, default=0.9,
                        help="two networks disagree on a sample where the mIoU of their predictions is below this")


def add_optimizer_flags(parser: argparse.ArgumentParser) -> None:
    """--optimizer and the schedule of its learning rate; the defaults are the paper's (section 4)."""
    group = parser.add_argument_group("optimizer")
    group.add_argument("--optimizer", default="ranger", choices=("ranger", "adamw", "sgd"))
    group.add_argument("--momentum", type=share, default=0.9, help="momentum of sgd")
    group.add_argument("--weight-decay", type=nonnegative_float, default=5e-4)
    group.add_argument("--schedule", default="step", choices=("step", "poly"),
                       help="schedule of the learning rate: `step` decays it every --lr-step epochs, `poly` at every training "
                            "step, (1 - step / all steps)^0.9")
    group.add_argument("--warmup-steps", type=nonnegative_int, default=0, metavar="N",
                       help="the learning rate grows linearly over the first N training steps; 0 = off")
    group.add_argument("--lr-step", type=positive_int, default=25, help="epochs between two decays of the learning rate")
    group.add_argument("--lr-gamma", type=share, default=0.5, help="factor of each decay")
    group.add_argument("--clip", type=nonnegative_float, default=0.1,
                       help="clip gradient values to this before the step; 0 = off")


def add_weight_flags(parser: argparse.ArgumentParser) -> None:
    """--min-weight, --keep-loss-size, --weak-judge."""
    parser.add_argument("--min-weight", type=share, default=0.0, help="floor of the weights")
    parser.add_argument("--keep-loss-size", action="store_true", help="divide the weights by their mean over the training "
                                                                      "rows, so that the loss is as large as without weights")
    add_judge_flag(parser)


def add_judge_flag(parser: argparse.ArgumentParser) -> None:
    """--weak-judge."""
    parser.add_argument("--weak-judge", choices=("refuse", "use"), default="refuse",
                        help="sharpened weights, or --pixels, by teachers that hardly agree with the annotations")


def add_flip_flag(parser: argparse.ArgumentParser) -> None:
    """--flip."""
    parser.add_argument("--flip", action="store_true", help="average each prediction with that of the mirrored picture; not "
                                                            "where left and right are classes of their own")


def add_device_flags(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """--workers, --accelerator, --devices, --strategy, --precision, --fast; returns their group."""
    group = parser.add_argument_group("machine")
    group.add_argument("--workers", type=nonnegative_int,
                       help="loader processes (default: none on a CPU; beside a GPU as many as cores, at most 8)")
    group.add_argument("--accelerator", default="auto", help="auto, cpu, cuda, mps")
    group.add_argument("--devices", default="auto", help="how many, or which (`0,1`)")
    group.add_argument("--strategy", default="auto", choices=("auto", "dp", "ddp"),
                       help="auto = DataParallel on several GPUs, DDP under torchrun")
    group.add_argument("--precision", default=FULL, choices=(FULL, HALF, "16-mixed", FAST),
                       help=f"{FAST} = {HALF} where the GPU or the processor has instructions for it, else {FULL}")
    group.add_argument("--fast", action="store_const", dest="precision", const=FAST, help=f"the same as --precision {FAST}")
    return group


def metric_of(args: argparse.Namespace) -> str:
    """The metric that scored the CSV: from the JSON beside it, else --metric, else from its name (`..._bmscore.csv`).

    The student's scores must be of the same metric as the teacher's, so there is no default.

    Raises:
        UserError: the metric is unknown, the flag contradicts the JSON, or the CSV's weights are not scores that eq. 6 can mix.
    """
    origin = read_origin(args.train_csv)
    check_mixable(args, origin)
    scored = origin.get("metric")
    if scored and args.metric not in (None, scored):
        raise UserError(f"--metric {args.metric}: {args.train_csv} was scored by {scored}, says the JSON beside it; leave the "
                        "flag out, or score the CSV again")
    found = scored or args.metric or name_metric(args.train_csv)
    if not found:
        raise UserError(f"{args.train_csv}: its name does not say which metric scored it (`..._bmscore.csv`); "
                        "pass --metric miou, bf or bm")
    return found


def processes_of_torchrun() -> int:
    """How many processes torchrun has started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", 1))


def keeps_some(args: argparse.Namespace, rate: float) -> bool:
    """Whether a forget rate leaves a sample of a batch in the last epoch; each process chooses among its own part of it."""
    share_kept = keep_share(args.epochs - 1, rate, args.ramp_epochs)
    return bool(kept_count(args.batch_size // processes_of_torchrun(), share_kept))


def forget_rate_of(args: argparse.Namespace) -> float:
    """The forget rate tau: --forget-rate, else the share of noisy rows if the CSV has `iterations`, else 0.2.

    Where every row is noisy, as in masks that all are coarse as drawn, or nearly so, the share would leave nothing to learn
    from: 0.2, too.

    Raises:
        UserError: --forget-rate keeps no sample of a batch in the last epoch.
    """
    rate = args.forget_rate
    if rate is None:
        rows = None if is_class_csv(args.train_csv) else read_rows(args.train_csv)
        rate = float((rows["iterations"] > 0).mean()) if rows is not None and "iterations" in rows else 0.2
        reason = (", since every row is noisy and a rate of 1 would drop all" if rate == 1 else
                  "" if keeps_some(args, rate) else
                  f", since {rate:.3f}, the share of noisy rows, would keep no sample of a batch")
        rate = 0.2 if reason else rate
        print(f"forget rate: {rate:.3f}{reason}")
    if not keeps_some(args, rate):
        parts = f" in {processes_of_torchrun()} parts" if processes_of_torchrun() > 1 else ""
        raise UserError(f"--forget-rate {rate:g}: the last epoch would keep no sample of a batch of {args.batch_size}{parts}; "
                        "pass a lower one or a larger --batch-size")
    return rate
