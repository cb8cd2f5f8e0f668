"""Build the networks of a run, check them on the smallest batch, set up their optimizers."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import Any

from cli.lazy import lightning_fabric, torch
from engine import checkpoint
from engine.devices import keep_memory
from engine.loaders import steps_per_epoch
from engine.optimizers import build_optimizer
from engine.task import SEGMENTATION, Task


def build_networks(args: Namespace, configs: Sequence[dict], suffixes: Sequence[str] = ("",),
                   build: Callable[..., torch.nn.Module] = checkpoint.build_from) -> list[torch.nn.Module]:
    """The networks of a run, from --encoder-weights or --load.

    Args:
        configs: of each network, see `Task.config`.
        suffixes: of each network's flags.
        build: `Task.build`.
    """
    networks = [build(config, getattr(args, "encoder_weights" + suffix, None)).to(memory_format=torch.channels_last)
                for config, suffix in zip(configs, suffixes)]  # channels_last is the faster format, on CPU and GPU
    if args.load:
        for index, network in enumerate(networks):
            checkpoint.start_from(network, args.load, index)
    if args.compile:
        for network in networks:
            network.compile()  # in place: its weights keep their names
    return networks


def build_state(args: Namespace, fabric: lightning_fabric.Fabric, suffixes: Sequence[str] = ("",), rows: int = 0,
                task: Task = SEGMENTATION, frozen: Sequence[torch.nn.Module] | Callable[[Namespace], Sequence] = (),
                memory: Any = None) -> checkpoint.TrainingState:
    """The networks of a run, made from --seed, with their optimizers, set up to train.

    Args:
        rows: number of training rows; 0 = enough for a full batch.
        task, frozen, memory: see `engine.loop.run`.
    """
    keep_memory()
    fabric.seed_everything(args.seed, verbose=False)
    configs = [task.config(args, suffix) for suffix in suffixes]
    networks = build_networks(args, configs, suffixes, task.build)
    together = min(args.batch_size, rows or args.batch_size)  # a last batch that is not full is dropped
    task.check_networks(args, networks, smallest_part(together, fabric))
    steps = steps_per_epoch(args, rows or args.batch_size, fabric.world_size)
    optimizers, schedulers = zip(*(build_optimizer(args, network.parameters(), steps) for network in networks))
    wrapped, optimizers = zip(*(fabric.setup(n, o) for n, o in zip(networks, optimizers)))
    fixed = [freeze(fabric, network) for network in (frozen(args) if callable(frozen) else frozen)]
    return checkpoint.TrainingState(configs, wrapped, optimizers, schedulers, fabric.strategy.precision, fixed, memory)


def smallest_part(batch: int, fabric: lightning_fabric.Fabric) -> int:
    """How many samples the smallest part of a batch has, where processes or the devices of DataParallel share it."""
    devices = getattr(fabric.strategy, "parallel_devices", None) or [None]
    if fabric.world_size > 1 or len(devices) < 2:
        return max(1, batch // fabric.world_size)
    part = -(-batch // len(devices))  # as torch.chunk cuts it: parts of equal size, and the rest
    return batch - part * ((batch - 1) // part)


def freeze(fabric: lightning_fabric.Fabric, network: torch.nn.Module) -> torch.nn.Module:
    """A network on the device, in eval mode, without gradients; it gets no optimizer and DDP does not wrap it."""
    return fabric.to_device(network).eval().requires_grad_(False)
