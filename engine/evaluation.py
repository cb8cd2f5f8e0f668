"""Scores of networks over a whole split."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Collection
from typing import Any

from cli.files import progress
from cli.lazy import lightning_fabric, torch
from engine import checkpoint
from engine.loaders import on_device
from engine.stopping import StopRequest
from engine.task import SEGMENTATION, Task


def evaluate_all(args: Namespace, fabric: lightning_fabric.Fabric, state: checkpoint.TrainingState,
                 loader: Collection[dict] | None, task: Task, stop: StopRequest) -> list[dict[str, Any]] | None:
    """Scores of each network on a split; None without a loader."""
    if loader is None:
        return None
    return [evaluate(fabric, network, loader, task.scorer(args, fabric.device), task, stop=stop) for network in state.networks]


def evaluate(fabric: lightning_fabric.Fabric, network: torch.nn.Module, loader: Collection[dict], scorer: Any,
             task: Task = SEGMENTATION, title: str = "validating", stop: StopRequest | None = None) -> dict[str, Any]:
    """Scores of one network over a whole split, every sample counted once: what `scorer.compute` gives.

    Args:
        scorer: of `Task.scorer`, new.
        stop: checked after each batch.
    """
    network.eval()
    # processes may have unequal numbers of batches, so DDP's collective calls must not run here
    forward: Any = network.module if fabric.world_size > 1 else network
    if fabric.world_size > 1:  # statistics of batch norm are each process's own; the first one's are saved, and scored
        for buffer in forward.buffers():
            torch.distributed.broadcast(buffer, 0)
    for batch in progress(loader, title, unit="batch", shown=fabric.is_global_zero):
        batch = on_device(fabric, batch, task)
        with torch.no_grad(), fabric.autocast():
            output = task.forward(forward, batch)
        scorer.update(output, batch)
        if stop:
            stop.check()
    scorer.reduce(fabric)
    return scorer.compute()
