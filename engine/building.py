"""The networks of a run: built, tried on its smallest batch, set up with their optimizers."""

import copy

from cli.files import UserError
from cli.lazy import torch
from engine import checkpoint
from engine.optimizers import build_optimizer

SMALL = 64  # px; below, a network may run out of pixels


def build_networks(args, configs, suffixes=("",)):
    """The networks of a run, from --encoder-weights or --load."""
    networks = [checkpoint.build_from(config, getattr(args, "encoder_weights" + suffix)).to(memory_format=torch.channels_last)
                for config, suffix in zip(configs, suffixes)]  # that memory format is the faster one, on CPU and GPU
    if args.load:
        for index, network in enumerate(networks):
            checkpoint.start_from(network, args.load, index)
    if args.compile:
        for network in networks:
            network.compile()  # in place: its weights keep their names
    return networks


def check_smallest_batch(args, networks, samples):
    """Try the networks on a batch as small as training will see.

    Args:
        samples: in the smallest batch of a process.

    Raises:
        UserError: batch normalisation is left a single value, or the picture is smaller than what the network makes of it.
    """
    if samples > 1 and min(args.size) >= SMALL:
        return
    with torch.no_grad(), torch.random.fork_rng():
        for network in networks:
            try:
                copy.deepcopy(network).train()(torch.zeros(samples, 3, *args.size))
            except (ValueError, RuntimeError) as error:
                raise UserError(f"--batch-size {args.batch_size} --size {args.size[0]} {args.size[1]}: too little for the "
                                f"network ({str(error).splitlines()[0]}); pass a larger one") from None


def build_state(args, fabric, suffixes=("",), rows=0):
    """The networks of a run, made from --seed, with their optimizers, set up to train.

    Args:
        rows: of the training set; 0 = many.
    """
    fabric.seed_everything(args.seed, verbose=False)
    configs = [checkpoint.model_config(args, suffix) for suffix in suffixes]
    networks = build_networks(args, configs, suffixes)
    together = min(args.batch_size, rows or args.batch_size)  # a last batch that is not full is dropped
    check_smallest_batch(args, networks, max(1, together // fabric.world_size))
    optimizers, schedulers = zip(*(build_optimizer(args, network.parameters()) for network in networks))
    networks, optimizers = zip(*(fabric.setup(n, o) for n, o in zip(networks, optimizers)))
    return checkpoint.TrainingState(configs, networks, optimizers, schedulers, fabric.strategy.precision)
