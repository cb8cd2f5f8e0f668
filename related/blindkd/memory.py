"""What Blind Knowledge Distillation remembers while it trains: scores of all labels, the tipping point, groups.

Legend: N training rows, M rows of the whole set (training and validation), in the order of its CSV; a score is the agreement
P_y of a row's given label, see `blind_loss.agreement`; epochs count from 0.

The tipping point's scores are split twice. Training-time scores make the groups of phase 2. Scores of all rows, in eval mode
and without augmentation, make the flags.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from cli.lazy import torch
from engine.evaluation import evaluate
from engine.task import Task
from related.blindkd.blind_loss import agreement, pair_loss
from related.blindkd.otsu import group, split
from related.blindkd.tipping import TipRule
from utils.metrics import over_processes

if TYPE_CHECKING:
    from torch import Tensor

WRONG = 4  # the group whose labels are judged wrong
UNSEEN = -1.0  # where a score is not yet known


class LabelScores:
    """Scorer of a whole split whose `compute` gives the agreement of each row's label: {"scores": float32 (M,)}."""

    def __init__(self, rows: int):
        self.scores = torch.full((rows,), UNSEEN)

    def update(self, output: Tensor, batch: dict) -> None:
        """Add a batch: the sum of both networks' logits, (B, C)."""
        scores = agreement(output.float(), torch.zeros_like(output), batch["label"])
        self.scores[batch["index"].cpu()] = scores.cpu()

    def reduce(self, fabric: Any) -> None:
        """Gather what the processes have scored."""
        self.scores = over_processes(fabric, self.scores.to(fabric.device), "max").cpu()

    def compute(self) -> dict:
        """See the class."""
        return {"scores": self.scores}


class Memory:
    """Scores of the last epochs until there is a tipping point; from then on the groups.

    Args:
        positions: int (N,), of the training rows in the whole set.
        rows: M.
        epochs: of the run.
        rule: of the tipping point.
        fallback: without a tipping point in the first `fallback` epochs, the last of them is used; None: then there is no
            phase 2, and the flags are made of the last epoch's scores.
    """

    def __init__(self, positions: np.ndarray, rows: int, epochs: int, rule: TipRule, fallback: int | None = None):
        self.positions, self.rows, self.epochs, self.rule, self.fallback = positions, rows, epochs, rule, fallback
        self.seen: Tensor | None = None  # (2, N), of this epoch: score, and the student's highest probability
        self.confidence: list[float] = []  # s_e of each finished epoch
        self.trained: dict[int, Tensor] = {}  # epoch -> scores while training, (N,)
        self.whole: dict[int, Tensor] = {}  # epoch -> scores of the whole set, (M,)
        self.judged: dict = {}  # which epoch the flags are of, why, and the two splits; empty = not yet
        self.groups: Tensor | None = None  # int64 (N,), 1..4, in phase 2
        self.detected: Tensor | None = None  # int64 (M,), 1..4, once judged

    def state_dict(self) -> dict:
        """All that changes, as tensors on the CPU and plain values; `judged` as one JSON string: equal dicts can give different
        bytes."""
        return {"seen": None if self.seen is None else self.seen.cpu().clone(),
                "confidence": torch.tensor(self.confidence, dtype=torch.float64),
                "trained": dict(self.trained), "whole": dict(self.whole), "judged": json.dumps(self.judged),
                "groups": self.groups, "detected": self.detected}

    def load_state_dict(self, state: dict) -> None:
        """Take over what `state_dict` gave."""
        self.seen, self.confidence = state["seen"], state["confidence"].tolist()
        self.trained, self.whole, self.judged = dict(state["trained"]), dict(state["whole"]), json.loads(state["judged"])
        self.groups, self.detected = state["groups"], state["detected"]

    # --- while an epoch goes on -----------------------------------------------------------------------------------

    def record(self, index: Tensor, scores: Tensor, confidence: Tensor) -> None:
        """Record the scores of a training batch.

        Args:
            index: int64 (B,), of the training rows.
            scores: float (B,), of their labels.
            confidence: float (B,), the student's highest probability.
        """
        if self.seen is None:
            self.seen = torch.full((2, len(self.positions)), UNSEEN)
        self.seen = self.seen.to(scores.device)
        self.seen[:, index] = torch.stack([scores, confidence]).float()

    # --- after it -------------------------------------------------------------------------------------------------

    def after_epoch(self, fabric: Any, state: Any, stop: Any, loader: Any, task: Task) -> dict:
        """Record an epoch's confidence and, until there is a tipping point, its scores; look for the tipping point.

        Args:
            fabric, state, stop: see `after_epoch` of `engine.loop.run`; one network, a pair.
            loader: of the whole set, each row once, not augmented.
            task: of the network.

        Returns:
            what the log shows: `confidence`, s_e; and `phase` of the epoch, 1 or 2.
        """
        epoch, phase, whole = state.epoch, 1 if self.groups is None else 2, None
        if not self.judged:  # the long part, which may be stopped: nothing has changed so far
            scorer = LabelScores(self.rows)
            whole = evaluate(fabric, state.networks[0], loader, scorer, task, "scoring labels", stop)["scores"]
        scores, confidence = over_processes(fabric, self.seen, "max").cpu()  # (N,) each
        met = scores != UNSEEN
        self.seen = None
        self.confidence.append(confidence[met].double().mean().item())
        if whole is not None:
            # a row that this epoch's order left out has no score of the training
            self.trained[epoch], self.whole[epoch] = torch.where(met, scores, whole[self.positions]), whole
            for past in [past for past in self.whole if past <= epoch - self.rule.kept]:
                del self.trained[past], self.whole[past]
            message = self.judge(epoch)
            if message and fabric.is_global_zero:
                print(message, flush=True)
        return {"confidence": self.confidence[-1], "phase": phase}

    def judge(self, epoch: int) -> str:
        """Split by the tipping point's scores if it is known after `epoch`; the message to print, or an empty string."""
        tip, why = self.rule.find(self.confidence), "tipping point"
        if tip is None and epoch + 1 == self.fallback:
            tip, why = epoch, "fallback"
        if tip is None and epoch + 1 < self.epochs:
            return ""
        at = epoch if tip is None else tip
        by = {"training": None if tip is None else split(self.trained[at].numpy()), "detection": split(self.whole[at].numpy())}
        if tip is not None:
            self.groups = torch.from_numpy(group(self.trained[at].numpy(), by["training"]))
        self.detected = torch.from_numpy(group(self.whole[at].numpy(), by["detection"]))
        self.judged = {"epoch": at, "why": "no tipping point" if tip is None else why,
                       **{name: None if each is None else asdict(each) for name, each in by.items()}}
        self.trained, self.whole = {}, {at: self.whole[at]}
        return self.summary(epoch)

    def summary(self, epoch: int) -> str:
        """The message to print on what was found after `epoch`."""
        assert self.detected is not None  # judged
        at, why = self.judged["epoch"], self.judged["why"]
        flags = f"{self.detected.eq(WRONG).sum()} of {self.rows} labels flagged"
        if self.judged["detection"] is None:
            flags = "no label flagged: all scores are alike"
        if self.groups is None:
            return f"no tipping point in {self.epochs} epochs, so there is no phase 2; by the last epoch's scores: {flags}"
        counts = "/".join(map(str, torch.bincount(self.groups, minlength=5)[1:].tolist()))
        if self.judged["training"] is None:
            counts += " (all scores are alike)"
        rest = f"phase 2 from epoch {epoch + 2} on" if epoch + 1 < self.epochs else "no epoch is left for phase 2"
        first = f"tipping point: epoch {at + 1}"
        if why == "fallback":
            first = f"no tipping point; epoch {at + 1} is used instead (--fallback)"
        return f"{first}; groups G1/G2/G3/G4 {counts}; {flags}; {rest}"


class BlindDistillation:
    """The objective CE(l_T, q) + L_blind of a pair, which records each batch's scores; see engine/objective.py.

    Args:
        alphas: of G1..G4, floats in 0..1.
        unmasked, detach_targets: see `pair_loss`.
    """

    def __init__(self, memory: Memory, alphas: list[float], unmasked: bool = False, detach_targets: bool = False):
        self.memory, self.alphas, self.unmasked, self.detach_targets = memory, alphas, unmasked, detach_targets

    def __call__(self, outputs: list, batch: dict, epoch: int) -> list:
        teacher, student, labels = outputs[0]["teacher"].float(), outputs[0]["student"].float(), batch["label"]
        with torch.no_grad():
            self.memory.record(batch["index"], agreement(teacher, student, labels), student.softmax(1).amax(1))
        alphas = None
        if self.memory.groups is not None:
            groups = self.memory.groups[batch["index"].cpu()]
            alphas = torch.tensor([0.0, *self.alphas])[groups].to(teacher.device)
        return [pair_loss(teacher, student, labels, alphas, self.unmasked, self.detach_targets)]
