"""Parts of a training, as the train scripts run it, that benchmarks can time."""

import functools

import train_with_KDweight
import train_with_Teacher_weight
import train_without_weight
from benchmarks.measure import seconds_of
from cli.lazy import torch
from engine import loop
from engine.flags import train_parser
from engine.objective import WeightedLoss
from engine.stopping import LossWatch, StopRequest
from engine.task import SEGMENTATION


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
