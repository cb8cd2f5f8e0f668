"""The device, the precision and the processes of a command, by Lightning Fabric."""

from __future__ import annotations

import ctypes
import os
from argparse import Namespace
from pathlib import Path

from cli.files import UserError, read_json
from cli.lazy import lightning_fabric, torch
from cli.machine import processor_features
from engine.lock import is_first_process

FAST = "fast"  # --fast: a precision that depends on the machine
FULL, HALF = "32-true", "bf16-mixed"
HALF_FEATURES = {"avx512_bf16", "amx_bf16"}  # of processors on which HALF was measured to be faster
AMPERE = (8, 0)  # the first GPUs that compute in bf16
KEPT = {"M_TRIM_THRESHOLD": (-1, -1), "M_MMAP_MAX": (-4, 0)}  # glibc's malloc.h: name -> (option, value)


def start_fabric(args: Namespace) -> lightning_fabric.Fabric:
    """Start Lightning Fabric with the device, the precision and the processes that the flags or torchrun ask for.

    Raises:
        UserError: the machine has no such device, or not as many.
    """
    choose_precision(args)
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
    if "," in args.devices:
        return len(args.devices.strip(",").split(","))
    if not args.devices.isdecimal():
        raise UserError(f"--devices {args.devices}: a number of devices, a list of them such as 0,1, or auto")
    return int(args.devices)


def own_gpu(args: Namespace) -> int:
    """The index of this process's GPU; of DataParallel the first one, which holds what the others do not share."""
    if "," in args.devices:
        return int(args.devices.split(",")[int(os.environ.get("LOCAL_RANK", 0))])
    return int(os.environ.get("LOCAL_RANK", 0))


def choose_precision(args: Namespace, folder: Path | None = None) -> None:
    """Put the precision of this machine in the place of --fast, and say which.

    So the flags that are recorded name it, and the same command may resume a run on another machine.

    Args:
        args: its `precision` is changed, if it is FAST.
        folder: of a run: if that goes on, its own precision is taken, else none yet.
    """
    if getattr(args, "precision", None) != FAST:
        return
    if folder:
        if not (args.resume and (folder / "args.json").exists()):
            return
        args.precision, why = read_json(folder / "args.json", "precision")["precision"], "as the run began"
    else:
        args.precision, why = fastest_precision(args.accelerator)
    if is_first_process():
        print(f"--fast: --precision {args.precision}, {why}")


def fastest_precision(accelerator: str) -> tuple[str, str]:
    """(the fastest precision that keeps the scores, why), on this machine."""
    gpu = gpu_capability() if accelerator in ("auto", "cuda", "gpu") else None
    if gpu:
        if gpu >= AMPERE:
            return HALF, "the GPU computes in bf16"
        return FULL, "the GPU does not compute in bf16"
    if accelerator == "mps" or (accelerator == "auto" and torch.backends.mps.is_available()):
        return FULL, "nothing else was measured on Apple's GPUs"
    found = sorted(HALF_FEATURES & processor_features())
    return (HALF, f"the processor has {' and '.join(found)}") if found else (FULL, "the processor has no instructions for bf16")


def gpu_capability() -> tuple[int, int] | None:
    """The compute capability of the first NVIDIA GPU, (8, 0) = Ampere; None without one."""
    return torch.cuda.get_device_capability() if torch.cuda.is_available() else None


def keep_memory() -> None:
    """Keep freed memory in this process, where the system's library is glibc: steps of a training need the same again.

    glibc would give the memory of each large tensor back to the system, which fills it with zeros before the next step gets
    it. Results do not change.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt:
        for option, value in KEPT.values():
            mallopt(option, value)
