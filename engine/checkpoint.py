"""Saving and loading networks and whole training states.

A checkpoint is a dict of plain values and tensors, so it loads with `weights_only=True`: a file that would run code is
refused. `networks` holds one entry per network: its `config` (see `engine.task.Task`) and `state`.
"""

import io
from pathlib import Path

from cli.files import UserError, atomic_path
from cli.lazy import torch
from models import build_model

FORMAT = "nlkd-1"
CONFIG = {"name", "encoder", "num_classes", "width", "size", "theta"}  # of a segmentation network, see `model_config`


def save(path, content):
    """Write a checkpoint, whole or not at all; equal contents give equal bytes."""
    buffer = io.BytesIO()  # torch's own writing puts the file's name into it, and a full disk ends it in many words
    torch.save({"format": FORMAT, **content}, buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getvalue())  # not getbuffer: in an exception's frames that crashes Python 3.12 at its end


def load(path):
    """Read a checkpoint onto the CPU.

    Raises:
        UserError: missing, cut short, not ours, or holding anything but tensors and plain values.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: no such checkpoint")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever zipfile, pickle or the OS raise
        raise UserError(f"{path}: not a checkpoint of this software or damaged ({type(error).__name__})") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT or not _holds_networks(content):
        raise UserError(f"{path}: not a checkpoint of this software (format {FORMAT} expected)")
    return content


def _holds_networks(content):
    networks = content.get("networks")
    return isinstance(networks, list) and all(
        isinstance(each, dict) and isinstance(each.get("state"), dict) and isinstance(each.get("config"), dict)
        for each in networks)


def model_config(args, suffix=""):
    """What a checkpoint must know to rebuild and use its network.

    Args:
        suffix: of the network's own flags, --model and --encoder.
    """
    return {"name": getattr(args, f"model{suffix}"), "encoder": getattr(args, f"encoder{suffix}"),
            "num_classes": args.num_classes, "width": args.width, "size": list(args.size), "theta": args.theta}


def build_from(config, encoder_weights=None):
    """The network of a config.

    Raises:
        UserError: `build_model` refuses it.
    """
    try:
        return build_model(config["name"], config["encoder"], encoder_weights, config["num_classes"], config["width"])
    except ValueError as error:
        raise UserError(str(error)) from None


def load_network(path, index=0):
    """A trained segmentation network in eval mode, and its config.

    Args:
        index: which network of the run (methods with two networks have 0 and 1).

    Raises:
        UserError: see `load`; or the network is one of another task.
    """
    return load_as(path, index, CONFIG, build_from, "a segmentation network")


def load_as(path, index, keys, build, kind):
    """`load_network` of any task.

    Args:
        keys: set of str that the network's config must have.
        build: `Task.build`.
        kind: of network, for the message.
    """
    saved = network_of(path, index)
    if not keys <= saved["config"].keys():
        raise UserError(f"{path}: not a checkpoint of {kind}")
    network = build(saved["config"])
    try:
        network.load_state_dict(saved["state"])
    except RuntimeError as error:
        raise UserError(f"{path}: its weights do not fit its own network ({str(error).splitlines()[0]})") from None
    return network.eval(), saved["config"]


def network_of(path, index):
    """What a checkpoint says of one network: dict of `config` and `state`; a UserError if it has no such number."""
    networks = load(path)["networks"]
    if index >= len(networks):
        raise UserError(f"{path}: holds {len(networks)} network{'s' * (len(networks) > 1)}; there is no number {index}")
    return networks[index]


def start_from(network, path, index=0):
    """Copy the weights of a checkpoint into `network` (--load).

    Raises:
        UserError: the checkpoint's network is another one.
    """
    saved = network_of(path, index)
    try:
        network.load_state_dict(saved["state"])
    except RuntimeError as error:
        held = saved["config"]
        classes = f" with {held['num_classes']} classes" if "num_classes" in held else ""
        raise UserError(f"--load {path}: holds {held.get('name', 'a network')}{classes}, which does not fit this run's network "
                        f"({str(error).splitlines()[1].strip()})") from None


class TrainingState:
    """All that changes while training, so that a run can be stopped and resumed.

    Random numbers need no saving between epochs: order and augmentation are seeded anew by (seed, epoch).

    Args:
        networks: those that are trained, in the order of their optimizers.
        precision: Lightning's plugin; in half precision (16-mixed) its gradient scaler has a state too.
        frozen: networks that only give outputs; they are not saved, since nothing changes them.
        memory: what a method remembers from step to step: an object with `state_dict` (tensors and plain values) and
            `load_state_dict`; None = nothing.
    """

    def __init__(self, configs, networks, optimizers, schedulers, precision, frozen=(), memory=None):
        self.configs, self.networks = configs, networks
        self.frozen, self.memory = frozen, memory
        self.optimizers, self.schedulers, self.precision = optimizers, schedulers, precision
        self.epoch = 0  # the next one to train
        self.begun = None  # of an epoch that was left in the middle: see `engine.train_one_epoch`
        self.best_score, self.best_epoch = -1.0, -1

    def begin_epoch(self, device):
        """Set `begun`, unless a checkpoint has: how far the epoch is, in steps, sums of losses and weights (2, networks),
        empty batches per network and seconds, and its first learning rate. Returns the seconds."""
        if self.begun is None:
            count = len(self.networks)
            self.begun = {"step": 0, "sums": torch.zeros(2, count), "empty": [0] * count, "seconds": 0.0, "random": None,
                          "learning_rate": self.optimizers[0].param_groups[0]["lr"]}
        self.begun["sums"] = self.begun["sums"].to(device)  # stays there until the epoch ends
        return self.begun["seconds"]

    def leave_epoch(self, seconds):
        """Note what else the rest of the epoch needs."""
        self.begun["seconds"], self.begun["random"] = seconds, random_state()

    def weights(self):
        """The networks alone, as a checkpoint holds them."""
        return [{"config": config, "state": network.state_dict()}
                for config, network in zip(self.configs, self.networks)]

    def load_weights(self, saved_networks):
        """Take over what `weights` gave."""
        for network, saved in zip(self.networks, saved_networks, strict=True):
            network.load_state_dict(saved["state"])

    def content(self):
        """Everything, as a checkpoint holds it."""
        return {"networks": self.weights(), "optimizers": [o.state_dict() for o in self.optimizers],
                "schedulers": [s.state_dict() for s in self.schedulers], "precision": self.precision.state_dict(),
                "epoch": self.epoch,
                "begun": self.begun, "best_score": self.best_score, "best_epoch": self.best_epoch,
                **({} if self.memory is None else {"memory": self.memory.state_dict()})}

    def restore(self, content):
        """Take over a checkpoint's content.

        Raises:
            UserError: it is no state of a training, or of another one.
        """
        try:
            self.load_weights(content["networks"])
            for part in ("optimizers", "schedulers"):
                for target, saved in zip(getattr(self, part), content[part], strict=True):
                    target.load_state_dict(saved)
            if content.get("precision"):  # empty without a scaler; a checkpoint may be older than this, too
                self.precision.load_state_dict(content["precision"])
            if self.memory is not None:
                self.memory.load_state_dict(content["memory"])
            self.epoch, self.best_score, self.best_epoch = (content[k] for k in ("epoch", "best_score", "best_epoch"))
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"last.ckpt is not of this run ({type(error).__name__}: {str(error).splitlines()[0]}); pass "
                            "--overwrite to begin anew") from None
        self.begun = content.get("begun")  # a checkpoint may be older than this


def random_state():
    """The state of PyTorch's random numbers, of the CPU and of each GPU."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def restore_random_state(state):
    """Go on with the random numbers where `random_state` was."""
    torch.set_rng_state(state["cpu"])
    for device, saved in enumerate(state["cuda"][:torch.cuda.device_count()]):
        torch.cuda.set_rng_state(saved, device)
