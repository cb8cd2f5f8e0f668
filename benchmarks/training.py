"""Trainings of benchmarks: their common flags, whole runs of them, and parts that can be timed."""

import functools

import train_with_KDweight
import train_with_Teacher_weight
import train_without_weight
from benchmarks.measure import python, seconds_of
from cli.command_line import positive_float, positive_int
from cli.files import UserError, read_json, write_json
from cli.lazy import torch
from engine import loop
from engine.flags import train_parser
from engine.objective import WeightedLoss
from engine.stopping import LossWatch, StopRequest
from engine.task import SEGMENTATION

SCORES = ("miou", "bf")


def add_training_flags(parser, size, theta, epochs):
    """The flags of a benchmark's trainings, with its own defaults: --size (H, W) px, --theta px, --epochs."""
    parser.add_argument("--size", type=positive_int, nargs=2, default=size, metavar=("H", "W"))
    parser.add_argument("--theta", type=positive_float, default=theta, help="boundary tolerance of BF, px")
    parser.add_argument("--model", default="smp_unet")
    parser.add_argument("--encoder", default="mobilenet_v2")
    parser.add_argument("--encoder-weights", default="imagenet")
    parser.add_argument("--epochs", type=positive_int, default=epochs)
    parser.add_argument("--batch-size", type=positive_int, default=8)


def training_words(args, home, seed):
    """The words of these flags for a train script, and of those that all of the benchmark's trainings share.

    Args:
        args: of `add_training_flags` and --num-classes; `other`: words that go to every training.
        home: folder of the runs.
    """
    return ["--out-dir", home, "--seed", seed, "--resume", "--num-classes", args.num_classes, "--size", *args.size, "--theta",
            args.theta, "--epochs", args.epochs, "--batch-size", args.batch_size, "--model", args.model, "--encoder",
            args.encoder, "--encoder-weights", args.encoder_weights, "--optimizer", "adamw", "--learning-rate", 0.001,
            "--lr-step", max(1, args.epochs // 3), "--cache", *args.other]


def keep_settings(folder, settings, other):
    """Note in a folder of runs what its files were made with; a UserError if they were made with other settings.

    Args:
        settings: JSON-ready dict.
        other: words for what would lie there else.
    """
    kept = folder / "settings.json"
    if kept.exists() and read_json(kept) != settings:
        raise UserError(f"{folder}: holds {other}; choose other --runs")
    write_json(kept, settings)


def trained(args, home, name, csv, seed, *flags, script="train_without_weight.py"):
    """Train a network if it is not there yet; its mIoU and BF on --test_csv, last epoch.

    A run of other flags or rows is refused, an interrupted one goes on.
    """
    python(script, "--train_csv", csv, "--test_csv", args.test_csv, "--name", name, *training_words(args, home, seed), *flags)
    scores = read_json(home / name / "result.json", "test_last")["test_last"][0]
    return {score: scores[score] for score in SCORES}


def flags_of(*words):
    """The flags of a run, `words` and else the defaults; KD's student counts from the first epoch."""
    args = train_parser("").parse_args(["--train_csv", "-", "--name", "-", *map(str, words)])
    vars(args).update(min_weight=0.0, metric="bm", lambda_warmup=0, lambda_max=0.5)
    return args


def weigh_of(method, flags):
    """The `weigh` of a script, by name; a function is taken as it is."""
    if callable(method):
        return method
    return {"plain": train_without_weight.weigh, "Teacher": functools.partial(train_with_Teacher_weight.weigh, flags),
            "KD": functools.partial(train_with_KDweight.weigh, flags)}[method]


def batch_of(size, side, classes):
    """A batch as the loader gives it: `size` random images, and label maps of smooth regions, `side` px or (height, width)."""
    shape = [side] * 2 if isinstance(side, int) else list(side)
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(size, classes, 7, 7, generator=generator)
    regions = torch.nn.functional.interpolate(coarse, shape, mode="bilinear").argmax(1).byte()
    images = torch.randint(0, 256, (size, *shape, 3), generator=generator, dtype=torch.uint8)
    return {"image": images.permute(0, 3, 1, 2), "mask": regions, "weight": torch.rand(size, generator=generator),
            "index": torch.arange(size)}


def epoch_seconds(flags, fabric, state, loader, method="plain"):
    """Seconds of one epoch of the engine's loop; it ends by reading the mean loss, which waits for the device."""
    state.epoch, state.begun = 1, None
    state.begin_epoch(fabric.device)
    watch, stop = LossWatch(None, 1, flags.learning_rate, flags, "-"), StopRequest(active=False)
    objective = WeightedLoss(fabric, SEGMENTATION, weigh_of(method, flags))
    return seconds_of(loop.train_one_epoch, flags, fabric, state, loader, SEGMENTATION, objective, watch, stop)
