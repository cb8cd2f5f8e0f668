"""The published flags of the three scripts, and those that this project adds."""

import argparse
from pathlib import Path
from typing import Any

from cli.command_line import nonnegative_float, nonnegative_int, positive_float, positive_int, seed_number, share, tool_parser
from cli.files import UserError
from engine.flags import add_class_task_flags, add_device_flags, add_optimizer_flags, add_training_device_flags
from related.blindkd.noisy_set import noisy_csv

RESULTS = "results"  # default of --results, below the working directory
IDLE = ("print_freq", "clean_test_freq", "noisy_val_freq")  # published, of no effect here
PUBLISHED = {"epochs": 300, "learning_rate": 0.02, "val_ratio": 0.1}


def fallback_epoch(text: str) -> int | None:
    """`end` -> None, else a number of epochs."""
    return None if text == "end" else positive_int(text)


def odd_number(text: str) -> int:
    """An odd whole number > 0."""
    value = positive_int(text)
    if value % 2 == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not odd; pass an odd number, so that the window has a middle")
    return value


def add_published_flags(parser: argparse.ArgumentParser, noise_type: str, defaults: dict[str, Any]) -> Any:
    """The flags that all three scripts have; returns their group.

    Args:
        noise_type: the default of --noise_type.
        defaults: of `epochs`, `learning_rate` and `val_ratio`.
    """
    group = parser.add_argument_group("published flags")
    group.add_argument("--dataset", help="a folder in data/csv, here or in the project, and the run's name (default: the "
                       "folder of --noise_path, else cifar10)")
    group.add_argument("--noise_type", "--noise-type", default=noise_type, help="trains on the folder's train_TYPE.csv")
    group.add_argument("--noise_path", "--noise-path", metavar="PATH",
                       help="folder of the CSVs, or the training CSV, that is read in place of --dataset's")
    group.add_argument("--val_ratio", "--val-ratio", type=share, default=defaults["val_ratio"],
                       help="share of the noisy rows, drawn by --seed, that choose the best epoch; 0: the last one is taken")
    group.add_argument("--n_epoch", "--epochs", dest="epochs", type=positive_int, default=defaults["epochs"], help="epochs")
    group.add_argument("--lr", "--learning-rate", dest="learning_rate", type=positive_float, default=defaults["learning_rate"],
                       help="initial learning rate")
    group.add_argument("--seed", type=seed_number, default=0, help="seed of the split, weights, order and augmentation")
    group.add_argument("--results", default=RESULTS, metavar="DIR", help="where runs are kept (not a published flag)")
    group.add_argument("--num_workers", dest="workers", type=nonnegative_int, help="the same as --workers")
    group.add_argument("--print_freq", type=int, help="no effect: a line is printed after each epoch")
    return group


def training_parser(docstring: str | None) -> argparse.ArgumentParser:
    """The parser of blind_knowledge_dist_training.py."""
    parser = tool_parser(docstring)
    group = add_published_flags(parser, "worst", PUBLISHED)
    group.add_argument("--batch_size", "--batch-size", type=positive_int, default=128, help="samples per step")
    group.add_argument("--weight_decay", type=nonnegative_float, help="the same as --weight-decay")
    group.add_argument("--clean_test_freq", type=int, help="no effect: the test set is read once, at the end")
    group.add_argument("--noisy_val_freq", type=int, help="no effect: each epoch is validated (published: every 10th)")
    for number, alpha in enumerate((0.30, 0.45, 0.55, 0.70), 1):
        group.add_argument(f"--alpha{number}", type=share, default=alpha,
                           help=f"share of the student in the targets of G{number}")
    add_method_flags(parser)
    add_class_task_flags(parser)
    parser.add_argument("--no-mirror", dest="mirror", action="store_false", help="no mirroring, on CIFAR too")
    add_optimizer_flags(parser)
    add_training_device_flags(parser)
    again = parser.add_argument_group("run").add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on where the run was stopped, if there is one")
    again.add_argument("--overwrite", action="store_true", help="replace an existing run; *.log files stay")
    parser.set_defaults(model="preact_resnet18", optimizer="sgd", weight_decay=5e-4, momentum=0.9, lr_step=150, lr_gamma=0.1,
                        clip=0.0, mirror=None, shift=None, padding=None)
    return parser


def add_method_flags(parser: argparse.ArgumentParser) -> None:
    """--smooth, --min-epoch, --fallback, --detach-targets, --unmasked."""
    group = parser.add_argument_group("method: beyond the published flags")
    group.add_argument("--smooth", type=odd_number, default=1, metavar="N",
                       help="look for the tipping point in the mean confidence of N epochs around each, odd")
    group.add_argument("--min-epoch", type=nonnegative_int, default=0, metavar="N",
                       help="the first N epochs cannot be the tipping point")
    group.add_argument("--fallback", type=fallback_epoch, default="end", metavar="N|end",
                       help="without a tipping point in the first N epochs, use the last of them; `end`: no phase 2, labels "
                            "are judged by the last epoch's scores")
    group.add_argument("--detach-targets", action="store_true", help="no gradient flows through the soft targets (phase 2)")
    group.add_argument("--unmasked", action="store_true", help="ablation: the student sees the label's own logit too")


def reading_parser(docstring: str | None, noise_type: str) -> argparse.ArgumentParser:
    """The parser of learning.py and detection.py: --n_epoch, --lr and --val_ratio are those of the run."""
    parser = tool_parser(docstring)
    add_published_flags(parser, noise_type, dict.fromkeys(PUBLISHED))
    parser.add_argument("--overwrite", action="store_true", help="replace an existing JSON")
    add_device_flags(parser)
    return parser


def run_name(args: argparse.Namespace) -> str:
    """The run's folder in --results."""
    return f"{args.dataset}_{args.noise_type}_seed_{args.seed}"


def settle(args: argparse.Namespace) -> None:
    """Print which of the given flags have no effect, and reset them; --dataset is by default what --noise_path names."""
    if args.dataset is None:
        path = Path(args.noise_path or "cifar10").resolve()
        args.dataset = path.parent.name if path.is_file() else path.name
    for flag in IDLE:
        if vars(args).pop(flag, None) is not None:
            print(f"--{flag}: has no effect here, see related/blindkd/README.md")


def refuse_other_run(args: argparse.Namespace, trained: dict) -> None:
    """Raise UserError if a flag contradicts the run.

    Args:
        trained: flags that the run was trained with.
    """
    for flag, spelt in (("epochs", "n_epoch"), ("learning_rate", "lr"), ("val_ratio", "val_ratio")):
        asked, used = getattr(args, flag), trained[flag]
        if asked is not None and asked != used:
            raise UserError(f"--{spelt} {asked}: {args.results}/{run_name(args)} was trained with {used}; leave the flag out")
    if args.noise_path and Path(trained["train_csv"]).resolve() != noisy_csv(args).resolve():
        raise UserError(f"--noise_path {args.noise_path}: {args.results}/{run_name(args)} was trained on "
                        f"{trained['train_csv']}; leave the flag out")
