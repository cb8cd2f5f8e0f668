"""How a training ends before its last epoch: Ctrl-C and SIGTERM at a safe point, and a loss that is not a number."""

import os
import signal
import threading

from cli.command_line import Terminated
from cli.files import UserError
from cli.lazy import torch

CHECKED_STEPS = 20  # losses are looked at together, since a look makes a GPU wait
SHOWN_SAMPLES = 8


class StopRequest:
    """While it is entered, Ctrl-C and SIGTERM wait until somebody asks: `check` raises KeyboardInterrupt or Terminated.

    A second Ctrl-C does not wait. A signal that this process was started to ignore, as a shell's background job ignores Ctrl-C
    (`nohup ... &`), stays ignored.

    Args:
        active: False leaves signals as they are (several processes that wait for one another).
    """

    def __init__(self, active=True):
        self.active = active and threading.current_thread() is threading.main_thread()
        self.asked, self.process = None, os.getpid()

    def __enter__(self):
        if self.active:
            self.before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)
                           if signal.getsignal(number) is not signal.SIG_IGN}
        return self

    def __exit__(self, *exception):
        if self.active:
            for number, handler in self.before.items():
                signal.signal(number, handler)

    def _ask(self, number, frame):
        if os.getpid() != self.process:
            return  # a loader process that has just been forked
        if self.asked is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = self.asked or number

    def check(self):
        """Raise what was asked for, if anything: to be called where everything is done or not done."""
        if self.asked is not None:
            raise Terminated if self.asked == signal.SIGTERM else KeyboardInterrupt


class LossWatch:
    """Finds the first step whose loss is not finite, and says on which samples.

    Args:
        dataset: with `names`, see `engine.task.Task`.
        epoch: 0-based.
        learning_rate: in this epoch.
        args: flags of `train_parser`.
        folder: of the run.
    """

    def __init__(self, dataset, epoch, learning_rate, args, folder):
        self.dataset, self.epoch, self.learning_rate = dataset, epoch, learning_rate
        self.args, self.folder = args, folder
        self.seen = []

    def add(self, step, losses, index):
        """Note the losses of a step.

        Args:
            step: 1-based.
            losses: list of tensors (), one per network.
            index: int64 (B,), of the samples.

        Raises:
            UserError: see `look`; every CHECKED_STEPS steps.
        """
        self.seen.append((step, torch.stack(losses), index))
        if len(self.seen) == CHECKED_STEPS:
            self.look()

    def look(self):
        """Look at what was noted since the last look.

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
