"""Saving and loading networks and whole training states.

A checkpoint is a dict of plain values and tensors, so it loads with `weights_only=True`: a file that would run code is
refused. `networks` holds one entry per network: its `config` (see `engine.task.Task`) and `state`.
"""

from __future__ import annotations

import io
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cli.files import UserError, atomic_path, counted
from cli.lazy import torch
from models import IMAGE_CHANNELS, build_model

FORMAT = "nlkd-1"
CONFIG = {"name", "encoder", "num_classes", "width", "size", "theta"}  # of a segmentation network, see `model_config`


def save(path: Path | str, content: dict[str, Any]) -> None:
    """Write a checkpoint, whole or not at all; equal contents give equal bytes."""
    buffer = io.BytesIO()  # given a path, torch.save stores its name in the file, and a full disk gives an unclear error
    torch.save({"format": FORMAT, **content}, buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getvalue())  # not getbuffer: kept by an exception, it crashes Python 3.12 on exit


def load(path: Path | str, mapped: bool = False) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Args:
        mapped: leave its tensors in the file until they are read; nothing may write to the file meanwhile.

    Raises:
        UserError: the file is missing, damaged, not a checkpoint of this software, or holds anything but tensors and plain
            values.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: no such checkpoint")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # torch passes on any error of zipfile, pickle or the OS
        raise UserError(f"{path}: not a checkpoint of this software or damaged ({type(error).__name__})") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT or not _holds_networks(content):
        raise UserError(f"{path}: not a checkpoint of this software (format {FORMAT} expected)")
    return content


def _holds_networks(content: dict) -> bool:
    networks = content.get("networks")
    return isinstance(networks, list) and all(
        isinstance(each, dict) and isinstance(each.get("state"), dict) and isinstance(each.get("config"), dict)
        for each in networks)


def model_config(args: Namespace, suffix: str = "") -> dict[str, Any]:
    """The config of a segmentation network: what is needed to build it again and to use it.

    Args:
        suffix: of the network's own flags, --model and --encoder.
    """
    return {"name": getattr(args, f"model{suffix}"), "encoder": getattr(args, f"encoder{suffix}"),
            "num_classes": args.num_classes, "width": args.width, "size": list(args.size), "theta": args.theta}


def build_from(config: dict[str, Any], encoder_weights: str | None = None) -> torch.nn.Module:
    """Build the network of a config.

    Args:
        encoder_weights: see `build_model`.

    Raises:
        UserError: `build_model` refuses the config.
    """
    try:
        network = build_model(config["name"], config["encoder"], encoder_weights, config["num_classes"], config["width"])
        if config.get("channels", IMAGE_CHANNELS) > IMAGE_CHANNELS:
            from models.label_channel import widen  # imported here, since it loads PyTorch

            widen(network, config["channels"])
        return network
    except ValueError as error:
        raise UserError(str(error)) from None


def load_network(path: Path | str, index: int = 0) -> tuple[torch.nn.Module, dict[str, Any]]:
    """Load a trained segmentation network in eval mode, and its config.

    Args:
        index: which network of the run (methods with two networks have 0 and 1).

    Raises:
        UserError: see `load`; or the network belongs to another task, or needs more than the image.
    """
    network, config = load_as(path, index, CONFIG, build_from, "a segmentation network")
    if config.get("channels", IMAGE_CHANNELS) > IMAGE_CHANNELS:
        raise UserError(f"{path}: holds a label-assisted teacher, which needs each image's label; use the student that it "
                        "teaches, or related/lad/predict_lad_teacher.py")
    return network, config


def load_as(path: Path | str, index: int, keys: set[str], build: Callable, kind: str,
            content: dict[str, Any] | None = None) -> tuple[torch.nn.Module, dict[str, Any]]:
    """`load_network` of any task.

    Args:
        keys: that the network's config must have.
        build: `Task.build`.
        kind: of network, for the message.
        content: of the checkpoint, if it has been read.
    """
    saved = network_of(path, index, content)
    if not keys <= saved["config"].keys():
        raise UserError(f"{path}: not a checkpoint of {kind}")
    network = build(saved["config"])
    try:
        network.load_state_dict(saved["state"])
    except RuntimeError as error:
        raise UserError(f"{path}: its weights do not fit its own network ({str(error).splitlines()[0]})") from None
    return network.eval(), saved["config"]


def network_of(path: Path | str, index: int, content: dict[str, Any] | None = None) -> dict[str, Any]:
    """What a checkpoint says of one network: dict of `config` and `state`; a UserError if it has no such number."""
    networks = (content or load(path))["networks"]
    if index >= len(networks):
        raise UserError(f"{path}: holds {counted(len(networks), 'network')}; there is no number {index}")
    return networks[index]


def start_from(network: torch.nn.Module, path: Path | str, index: int = 0) -> None:
    """Copy the weights of a checkpoint into `network` (--load). One that takes more than an image keeps its own weights of
    what a network of images lacks.

    Raises:
        UserError: the checkpoint's weights do not fit `network`.
    """
    from models.label_channel import widened  # imported here, since it loads PyTorch

    saved = network_of(path, index)
    try:
        network.load_state_dict(widened(saved["state"], network))
    except RuntimeError as error:
        config = saved["config"]
        classes = f" with {config['num_classes']} classes" if "num_classes" in config else ""
        raise UserError(f"--load {path}: holds {config.get('name', 'a network')}{classes}, which does not fit this run's "
                        f"network ({str(error).splitlines()[1].strip()})") from None


class TrainingState:
    """All that changes while training, so that a run can be stopped and resumed.

    Random numbers need no saving between epochs: order and augmentation are seeded anew by (seed, epoch).

    Args:
        configs: of the trained networks, see `Task.config`.
        networks: the trained ones, in the order of their optimizers.
        precision: Lightning's plugin; in half precision (16-mixed) its gradient scaler has a state too.
        frozen: networks that only give outputs; they are not saved, since nothing changes them.
        memory: what a method remembers from step to step: an object with `state_dict` (tensors and plain values) and
            `load_state_dict`; None = nothing.
    """

    def __init__(self, configs: Sequence[dict], networks: Sequence[torch.nn.Module],
                 optimizers: Sequence[torch.optim.Optimizer], schedulers: Sequence[torch.optim.lr_scheduler.LRScheduler],
                 precision: Any, frozen: Sequence[torch.nn.Module] = (), memory: Any = None) -> None:
        self.configs, self.networks = configs, networks
        self.frozen, self.memory = frozen, memory
        self.optimizers, self.schedulers, self.precision = optimizers, schedulers, precision
        self.epoch = 0  # the next one to train
        self.begun: Any = None  # progress within the epoch, see `begin_epoch`; None between epochs
        self.best_score, self.best_epoch = -1.0, -1

    def begin_epoch(self, device: torch.device) -> float:
        """Set `begun`, the progress within the epoch, unless a checkpoint of an interrupted epoch has set it.

        `begun` is a dict of `step` (steps done), `sums` (2, networks) of losses and weights, `empty` (batches without an
        update, per network), `seconds`, `random` (see `random_state`) and `learning_rate` (at the epoch's first step).

        Returns:
            seconds that the epoch has taken so far.
        """
        if self.begun is None:
            count = len(self.networks)
            self.begun = {"step": 0, "sums": torch.zeros(2, count), "empty": [0] * count, "seconds": 0.0, "random": None,
                          "learning_rate": self.optimizers[0].param_groups[0]["lr"]}
        self.begun["sums"] = self.begun["sums"].to(device)  # stays there until the epoch ends
        return self.begun["seconds"]

    def leave_epoch(self, seconds: float) -> None:
        """Put into `begun` what a later process needs to train the rest of the epoch: time taken and random numbers."""
        self.begun["seconds"], self.begun["random"] = seconds, random_state()

    def weights(self) -> list[dict[str, Any]]:
        """The `networks` of a checkpoint: a dict of `config` and `state` for each network."""
        return [{"config": config, "state": network.state_dict()}
                for config, network in zip(self.configs, self.networks)]

    def load_weights(self, saved_networks: Sequence[dict[str, Any]]) -> None:
        """Load what `weights` returned."""
        for network, saved in zip(self.networks, saved_networks, strict=True):
            network.load_state_dict(saved["state"])

    def content(self) -> dict[str, Any]:
        """The whole state, for `save`."""
        return {"networks": self.weights(), "optimizers": [o.state_dict() for o in self.optimizers],
                "schedulers": [s.state_dict() for s in self.schedulers], "precision": self.precision.state_dict(),
                "epoch": self.epoch,
                "begun": self.begun, "best_score": self.best_score, "best_epoch": self.best_epoch,
                **({} if self.memory is None else {"memory": self.memory.state_dict()})}

    def restore(self, content: dict[str, Any]) -> None:
        """Load what `content` returned.

        Raises:
            UserError: the content holds no training state, or one of other networks or optimizers.
        """
        try:
            self.load_weights(content["networks"])
            for part in ("optimizers", "schedulers"):
                for target, saved in zip(getattr(self, part), content[part], strict=True):
                    target.load_state_dict(saved)
            if content.get("precision"):  # empty without a scaler, missing in older checkpoints
                self.precision.load_state_dict(content["precision"])
            if self.memory is not None:
                self.memory.load_state_dict(content["memory"])
            self.epoch, self.best_score, self.best_epoch = (content[k] for k in ("epoch", "best_score", "best_epoch"))
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"last.ckpt is not of this run ({type(error).__name__}: {str(error).splitlines()[0]}); pass "
                            "--overwrite to begin anew") from None
        self.begun = content.get("begun")  # missing in older checkpoints


def random_state() -> dict[str, Any]:
    """The state of PyTorch's random numbers, of the CPU and of each GPU."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def restore_random_state(state: dict[str, Any]) -> None:
    """Set PyTorch's random numbers to what `random_state` returned."""
    torch.set_rng_state(state["cpu"])
    for device, saved in enumerate(state["cuda"][:torch.cuda.device_count()]):
        torch.cuda.set_rng_state(saved, device)
