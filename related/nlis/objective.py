"""The objective of a training with robust losses, with its two stages, and the counts of the sets that its samples fall in.

Stage 1 is cross-entropy on all samples, stage 2 the loss that --loss names. Legend: N samples, of a batch of pictures or the
RoIs of one; C classes, of which 0 is the background.
"""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from cli.lazy import torch
from engine.instances import share_of
from related.nlis.robust_losses import ce, gce, rce, sce
from related.nlis.roles import SETS, sets_of, weights_of
from utils.metrics import over_processes

if TYPE_CHECKING:
    from torch import Tensor

LOSSES = {"ce": ce, "sce": sce, "gce": gce}  # nlis combines ce and rce, see `RobustLoss.losses`
NAMES = (*LOSSES, "nlis")


class RobustLoss:
    """The objective, see engine/objective.py: the mean over all samples, and the detector's other losses.

    Args:
        args: `loss`; `stage1_epochs`, so many epochs are stage 1; `pon_threshold`, see `sets_of`; `weighted`: the class losses
            (RCE) of nlis are multiplied by the trust in each sample's label.
        counts: gets the set of every sample.
    """

    def __init__(self, args: Namespace, counts: SetCounts) -> None:
        self.args, self.counts = args, counts

    def __call__(self, outputs: list, batch: dict, epoch: int) -> list:
        logits, labels, weights, rest = samples_of(outputs[0], batch)
        with torch.no_grad():
            sets = sets_of(logits, labels, self.args.pon_threshold)
            self.counts.add(sets)
        losses = ce(logits, labels) if epoch < self.args.stage1_epochs else self.losses(logits, labels, sets, weights)
        return [losses.mean() * share_of(len(losses), losses.device) + rest]

    def losses(self, logits: Tensor, labels: Tensor, sets: Tensor, weights: Tensor) -> Tensor:
        """The loss of each sample in stage 2, (N,); NLIS: CE of NEG and PSN, RCE of OS, both divided by all N later.

        Args:
            sets: of `sets_of`.
            weights: float (N,) in 0..1, trust in each label.
        """
        if self.args.loss != "nlis":
            return LOSSES[self.args.loss](logits, labels)
        of_ce, of_rce = weights_of(sets).unbind(1)
        if self.args.weighted:
            of_rce = of_rce * weights
        return of_ce * ce(logits, labels) + of_rce * rce(logits, labels)


def samples_of(output: Any, batch: dict) -> tuple[Tensor, Tensor, Tensor, Tensor | float]:
    """(logits (N, C), labels (N,), trust in the labels (N,), the sum of all other losses) of a classifier or a detector."""
    if isinstance(output, dict) and "labels" in output:
        return output["logits"], output["labels"], output["weights"], output["other"]
    return output, batch["label"], batch["weight"], 0.0


class SetCounts:
    """How many samples of an epoch fall in each of SETS: a memory of the loop.

    Args:
        stage1_epochs: of the run.
    """

    def __init__(self, stage1_epochs: int) -> None:
        self.stage1_epochs = stage1_epochs
        self.counts = torch.zeros(len(SETS), dtype=torch.int64)  # of this epoch so far
        self.last: dict = {}  # of the epoch before

    def add(self, sets: Tensor) -> None:
        """Count samples of these sets, int64 (N,)."""
        self.counts = self.counts.to(sets.device) + torch.bincount(sets, minlength=len(SETS))

    def state_dict(self) -> dict:
        """All that changes."""
        return {"counts": self.counts.cpu().clone(), "last": dict(self.last)}

    def load_state_dict(self, state: dict) -> None:
        """Take over what `state_dict` gave."""
        self.counts, self.last = state["counts"], dict(state["last"])

    def after_epoch(self, fabric: Any, state: Any, stop: Any) -> dict:
        """What the log shows of an epoch: `stage`, 1 or 2, and the number of samples in each set; over all processes."""
        counts = over_processes(fabric, self.counts.to(fabric.device), "sum").tolist()
        self.counts = torch.zeros(len(SETS), dtype=torch.int64)
        self.last = dict(zip(SETS, counts))
        stage = 1 if state.epoch < self.stage1_epochs else 2
        if fabric.is_global_zero:
            named = "  ".join(f"{name} {count}" for name, count in self.last.items())
            print(f"stage {stage}: {named}", flush=True)
        return {"stage": stage, "sets": dict(self.last)}

    def facts(self, rows: Any) -> dict:
        """What result.json says: `sets`, of the last epoch."""
        return {"sets": self.last}
