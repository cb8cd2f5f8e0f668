"""Instances as a `Task`."""

from __future__ import annotations

import argparse
from typing import Any

from cli.lazy import torch

ENCODERS = ("resnet18", "resnet50", "mobilenet_v2")
INSTANCES: Any = None


def add_detector_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("detector")
    group.add_argument("--norm", choices=("frozen", "group"))
    group.add_argument("--rois", type=int, default=512)


def complete(args: argparse.Namespace) -> None:
    pass


def share_of(samples: int, device: torch.device) -> torch.Tensor | float:
    """By how much a process's mean over its samples counts in the mean over those of all processes; 1 without others.

    Gradients are averaged over processes, so each one's mean is multiplied by its share of all samples times the number of
    processes.
    """
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return 1.0
    total = torch.tensor(float(samples), device=device)
    torch.distributed.all_reduce(total)
    return samples * torch.distributed.get_world_size() / total.clamp(min=1)
