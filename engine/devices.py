"""The device, the precision and the processes of a command, by Lightning Fabric."""

from __future__ import annotations

import os
from argparse import Namespace

from cli.files import UserError
from cli.lazy import lightning_fabric, torch


def start_fabric(args: Namespace) -> lightning_fabric.Fabric:
    """Start Lightning Fabric with the device, the precision and the processes that the flags or torchrun ask for.

    Raises:
        UserError: the machine has no such device, or not as many.
    """
    torchrun = "LOCAL_WORLD_SIZE" in os.environ
    devices, nodes, strategy = args.devices, 1, args.strategy
    if torchrun:
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    if strategy == "auto":
        strategy = "ddp" if torchrun else "dp" if visible_gpus(args) > 1 else "auto"
    if devices == "auto" and args.accelerator == "cpu":
        devices = 1
    try:
        fabric = lightning_fabric.Fabric(accelerator=args.accelerator, devices=devices, num_nodes=nodes, strategy=strategy,
                                         precision=args.precision)
        fabric.launch()
    except (RuntimeError, ValueError) as error:  # Lightning's misconfiguration errors are ValueErrors
        raise UserError(f"--accelerator {args.accelerator} --devices {args.devices}: {error}") from None
    return fabric


def visible_gpus(args: Namespace) -> int:
    """How many GPUs --accelerator and --devices ask for."""
    if args.accelerator not in ("auto", "cuda", "gpu") or not torch.cuda.is_available():
        return 0
    if args.devices in ("auto", "-1"):
        return torch.cuda.device_count()
    return len(args.devices.strip(",").split(",")) if "," in args.devices else int(args.devices)
