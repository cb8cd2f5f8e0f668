"""The losses that a training step minimises, one for each network.

An objective is a function `(outputs, batch, epoch) -> [loss of network 1, loss of network 2, ...]` of tensors (). `outputs`
are those of `Task.forward`, first of the networks that are trained, then of the frozen ones, which carry no gradient.
`WeightedLoss` is the default.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cli.lazy import lightning_fabric, torch
from engine.task import Task
from utils.losses import main_logits, weighted_loss
from utils.metrics import over_processes


class WeightedLoss:
    """loss_k = mean_i w_k[i] * l(net_k(x_i), y_i), with the weights that a method's `weigh` gives.

    After each call `means` (networks,) holds the mean weight of each network. Of a method that selects, `kept` (networks,)
    holds the number of samples that each network keeps, over all processes; of others it is None.

    Args:
        weigh: see the head of engine/loop.py.
        selects: `weigh` gives selections; the loss is averaged over the samples that are kept.
    """

    def __init__(self, fabric: lightning_fabric.Fabric, task: Task, weigh: Callable, selects: bool = False) -> None:
        self.fabric, self.task, self.weigh, self.selects = fabric, task, weigh, selects
        self.means: torch.Tensor | None = None
        self.kept: torch.Tensor | None = None

    def __call__(self, outputs: list, batch: dict, epoch: int) -> list:
        with torch.no_grad():
            weights = self.weigh([main_logits(output).detach() for output in outputs], batch, epoch)
        self.means = torch.stack([each.mean() for each in weights])
        if self.selects:
            weights, self.kept = averaged_over_kept(self.fabric, weights)
        return [batch_loss(self.task, output, batch, each) for output, each in zip(outputs, weights)]


def batch_loss(task: Task, output: Any, batch: dict, weights: torch.Tensor) -> torch.Tensor:
    """The loss of a batch, a tensor (), with the weights of its samples or of its pixels.

    Args:
        weights: float, without gradient: (B,), of samples; or (B, H, W), how much each pixel counts in its sample's loss.
    """
    if weights.dim() > 1:
        return task.losses(output, batch, weights).mean()
    return weighted_loss(task.losses(output, batch), weights)


def averaged_over_kept(fabric: lightning_fabric.Fabric,
                       selections: list[torch.Tensor]) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Scale selections so that eq. 7 divides by the number of samples kept, over all processes, not by the batch size.

    Args:
        selections: (B,) of 0 and 1 per network.

    Returns:
        (the selections, scaled; number of samples kept (networks,))
    """
    kept = over_processes(fabric, torch.stack([each.sum() for each in selections]), "sum")
    scaled = [each * (len(each) * fabric.world_size / total.clamp(min=1)) for each, total in zip(selections, kept)]
    return scaled, kept
