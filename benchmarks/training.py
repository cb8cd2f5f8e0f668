"""Runs as the train scripts would have them, in pieces that can be timed."""

import functools

import train_with_KDweight
import train_with_Teacher_weight
import train_without_weight
from benchmarks.measure import seconds_of
from utils import checkpoint, engine
from utils.optimizers import build_optimizer
from utils.options import train_parser


def flags_of(*words):
    """The flags of a run, defaults where `words` do not say otherwise; KD's student counts from the first epoch."""
    args = train_parser("").parse_args(["--train_csv", "-", "--name", "-", *map(str, words)])
    vars(args).update(min_weight=0.0, metric="bm", lambda_warmup=0, lambda_max=0.5)
    return args


def weigh_of(method, flags):
    """The `weigh` of a script."""
    return {"plain": train_without_weight.weigh, "Teacher": functools.partial(train_with_Teacher_weight.weigh, flags),
            "KD": functools.partial(train_with_KDweight.weigh, flags)}[method]


def build_state(flags, fabric):
    """A network and its optimizer, ready to train."""
    fabric.seed_everything(flags.seed, verbose=False)
    config = checkpoint.model_config(flags)
    network, = engine.build_networks(flags, [config])
    optimizer, scheduler = build_optimizer(flags, network.parameters())
    network, optimizer = fabric.setup(network, optimizer)
    return checkpoint.TrainingState([config], [network], [optimizer], [scheduler])


def epoch_seconds(flags, fabric, state, loader, method="plain"):
    """Seconds of one epoch of the engine's loop; the mean loss that it ends with waits for the device."""
    return seconds_of(engine.train_one_epoch, flags, fabric, state, loader, weigh_of(method, flags), False, 1)
