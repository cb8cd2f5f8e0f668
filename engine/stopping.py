"""How a training ends before its last epoch: Ctrl-C and SIGTERM at a safe point, and a loss that is not finite."""

from __future__ import annotations

import os
import signal
import threading
from argparse import Namespace
from pathlib import Path
from types import FrameType
from typing import Any

from cli.command_line import Terminated
from cli.files import UserError
from cli.lazy import torch

CHECKED_STEPS = 20  # losses are read together, since each read makes the GPU wait
SHOWN_SAMPLES = 8  # of a faulty batch, in the error message


class StopRequest:
    """A context in which Ctrl-C and SIGTERM wait for the next `check`, which raises KeyboardInterrupt or Terminated.

    A second Ctrl-C does not wait (`at_once`): the state may be that of half a step, and must not be saved. A signal that this
    process was started to ignore, as a shell's background job ignores Ctrl-C (`nohup ... &`), stays ignored.

    Args:
        active: False leaves signals as they are, for several processes that wait for one another.
    """

    def __init__(self, active: bool = True) -> None:
        self.active = active and threading.current_thread() is threading.main_thread()
        self.asked: int | None = None
        self.at_once = False
        self.process = os.getpid()

    def __enter__(self) -> StopRequest:
        if self.active:
            self.before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)
                           if signal.getsignal(number) is not signal.SIG_IGN}
        return self

    def __exit__(self, *exception: object) -> None:
        if self.active:
            for number, handler in self.before.items():
                signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.process:
            return  # a loader process that has just been forked
        if self.asked is not None and number == signal.SIGINT:
            self.at_once = True
            raise KeyboardInterrupt("interrupted at once, perhaps amid a step; what was saved before is kept")
        self.asked = self.asked or number

    def check(self) -> None:
        """Raise the exception of a signal that came. Call it between two steps, where the state is consistent.

        Raises:
            KeyboardInterrupt: Ctrl-C.
            Terminated: SIGTERM.
        """
        if self.asked is not None:
            raise Terminated if self.asked == signal.SIGTERM else KeyboardInterrupt


class LossWatch:
    """Finds the first step whose loss is not finite, and names its samples.

    Args:
        dataset: with `names`, see `engine.task.Task`.
        epoch: 0-based.
        learning_rate: in this epoch.
        args: flags of `train_parser`.
        folder: of the run.
    """

    def __init__(self, dataset: Any, epoch: int, learning_rate: float, args: Namespace, folder: Path) -> None:
        self.dataset, self.epoch, self.learning_rate = dataset, epoch, learning_rate
        self.args, self.folder = args, folder
        self.seen: list[tuple[int, torch.Tensor, torch.Tensor]] = []

    def add(self, step: int, losses: list[torch.Tensor], index: torch.Tensor) -> None:
        """Record the losses of a step; `look` at them every CHECKED_STEPS steps.

        Args:
            step: 1-based.
            losses: list of tensors (), one per network.
            index: int64 (B,), of the samples.

        Raises:
            UserError: see `look`.
        """
        self.seen.append((step, torch.stack(losses), index))
        if len(self.seen) == CHECKED_STEPS:
            self.look()

    def look(self) -> None:
        """Check the losses that were recorded since the last call.

        Raises:
            UserError: a loss is not finite.
        """
        seen, self.seen = self.seen, []
        finite = torch.stack([losses for _, losses, _ in seen]).isfinite().all(1).tolist() if seen else []
        if all(finite):
            return
        step, losses, index = seen[finite.index(False)]
        names = [self.dataset.names[i] for i in index.tolist()]
        more = f" and {len(names) - SHOWN_SAMPLES} more" if len(names) > SHOWN_SAMPLES else ""
        kept = f"last.ckpt holds epoch {self.epoch}" if self.epoch else "no epoch was finished"
        values = ", ".join(f"{loss:g}" for loss in losses.tolist())
        raise UserError(f"epoch {self.epoch + 1}, step {step}: the loss is {values}, at learning rate {self.learning_rate:g}, "
                        f"on {', '.join(names[:SHOWN_SAMPLES])}{more}; look at these or lower --learning-rate "
                        f"({self.args.learning_rate:g}); {self.folder}: {kept}")
