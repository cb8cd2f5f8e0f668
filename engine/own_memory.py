"""What a training with own weights remembers of each row: its scores and its averaged prediction.

A memory is for `engine.loop.run`. What an epoch adds stays on the device, apart from the rest, until `fold` at the epoch's end,
so that no step waits for the host and all processes get the same sums.

Legend: N training rows, B samples of a batch, C classes, H x W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cli.lazy import torch
from engine.lock import is_first_process
from utils.mask_facts import has_outline, held_classes, prediction_is_larger
from utils.metrics import over_processes
from utils.own_scores import adjusted_for_classes, one_sided, own_weights

if TYPE_CHECKING:
    from torch import Tensor

MOST = 65535 // 255  # predictions that a sum of 16 bits holds; later ones are not added
CHUNK = 64  # rows that are gathered at once


class RunningScores:
    """Sum and count of the scores of each row; a score that is NaN does not count.

    Args:
        rows: N.
        columns: None for one score a row; C for C scores, and an axis of this length everywhere.
    """

    def __init__(self, rows: int, columns: int | None = None) -> None:
        shape = (rows,) if columns is None else (rows, columns)
        self.sums, self.counts = torch.zeros(shape), torch.zeros(shape)
        self.now: Tensor | None = None  # (2, N): score and count of this epoch; None = nothing yet

    def note(self, index: Tensor, scores: Tensor) -> None:
        """Add the scores (B,) of the rows `index` (B,), each of them once an epoch."""
        if self.now is None or self.now.device != scores.device:
            self._move(scores.device)
        assert self.now is not None
        self.now[:, index] = torch.stack([scores.nan_to_num(), (~scores.isnan()).to(scores.dtype)])

    def _move(self, device: torch.device) -> None:
        self.sums, self.counts = self.sums.to(device), self.counts.to(device)
        self.now = torch.zeros(2, *self.sums.shape, device=device) if self.now is None else self.now.to(device)

    def running(self, index: Tensor) -> Tensor:
        """Means (B,) of all scores of rows that this epoch has noted, its own included."""
        assert self.now is not None
        return (self.sums[index] + self.now[0, index]) / (self.counts[index] + self.now[1, index])

    def means(self) -> np.ndarray:
        """Means over the epochs that are over, float32 (N,); NaN for a row without a score."""
        counts = self.counts.cpu()
        return torch.where(counts > 0, self.sums.cpu() / counts.clamp(min=1), torch.nan).numpy()

    def fold(self, fabric: Any) -> None:
        """End an epoch: add what all processes have noted."""
        if self.now is not None:
            scores, counts = over_processes(fabric, self.now, "sum")
            self.sums, self.counts, self.now = self.sums + scores, self.counts + counts, None

    def after_epoch(self, fabric: Any, state: Any, stop: Any) -> dict:
        """`fold`, as a hook of `engine.loop.run`."""
        self.fold(fabric)
        return {}

    def state_dict(self) -> dict:
        """All that changes, as tensors on the CPU."""
        return {"sums": self.sums.cpu(), "counts": self.counts.cpu(), "now": None if self.now is None else self.now.cpu()}

    def load_state_dict(self, state: dict) -> None:
        """Take over what `state_dict` gave; a ValueError if it is of another number of rows."""
        refuse_other_shape(self.sums, state["sums"])
        self.sums, self.counts, self.now = state["sums"], state["counts"], of_the_first(state["now"])


def of_the_first(noted: Tensor | None) -> Tensor | None:
    """What a saved epoch had noted, for the first process; zeros for others, since an epoch's end sums over all of them."""
    return noted if noted is None or is_first_process() else torch.zeros_like(noted)


class AveragedPredictions:
    """Sum and count of the predicted probabilities of each row: uint16 sums of round(255 p).

    Predictions of augmented pictures are brought back to where their pixels come from, and counted for each pixel.

    A sum holds the first 257 predictions (MOST) of a row; the count of a pixel, of 8 bits, the first 255. Later ones are not
    added: in a longer training the average stays that of these epochs.

    Args:
        rows: N.
        shape: of a row's probabilities: (H, W) for one logit, else (C, H, W).
        moved: the pictures are augmented.
    """

    def __init__(self, rows: int, shape: Sequence[int], moved: bool = False) -> None:
        self.sums = np.zeros((rows, *shape), np.uint16)
        self.counts = np.zeros((rows, *shape[-2:]), np.uint8) if moved else np.zeros(rows, np.int64)
        self.now: Tensor | None = None  # uint8 (N, *shape), round(255 p) of this epoch
        self.met: Tensor | None = None  # uint8, shaped as `counts`, 1 for the rows or pixels of this epoch

    @staticmethod
    def size(rows: int, shape: Sequence[int], moved: bool) -> int:
        """Bytes while training: 2 a value for the sums, 1 for the epoch that goes on; `moved`: 2 more a row and pixel."""
        return rows * (3 * math.prod(shape) + (2 * math.prod(shape[-2:]) if moved else 0))

    def note(self, index: Tensor, logits: Tensor, source: Tensor | None = None) -> None:
        """Add the predictions of the rows `index` (B,), each of them once an epoch.

        Args:
            logits: (B, 1 or C, H, W).
            source: of augmented pictures, see `SegmentationDataset`.
        """
        assert (source is not None) == (self.counts.ndim > 1), "augmented pictures need a source, others have none"
        if self.now is None or self.met is None:
            self.now = torch.zeros(self.sums.shape, dtype=torch.uint8, device=logits.device)
            self.met = torch.zeros(self.counts.shape, dtype=torch.uint8, device=logits.device)
        self.now, self.met = self.now.to(logits.device), self.met.to(logits.device)
        p = logits[:, 0].float().sigmoid() if logits.shape[1] == 1 else logits.float().softmax(1)
        values = (255 * p).round().to(torch.uint8)
        if source is None:
            self.now[index], self.met[index] = values, 1
        else:
            self.now[index], self.met[index] = brought_back(values, source)

    def average(self, row: int) -> np.ndarray:
        """The averaged prediction of a row, float32 of `shape`, 0..1; NaN where there is none."""
        with np.errstate(invalid="ignore"):
            return (self.sums[row] / (np.float32(255) * self.counts[row].astype(np.float32))).astype(np.float32)

    def fold(self, fabric: Any) -> None:
        """End an epoch: add what all processes have noted."""
        if self.now is None or self.met is None:
            return
        for first in range(0, len(self.sums), CHUNK):
            rows = slice(first, first + CHUNK)
            met, added = self.met[rows].int(), self.now[rows].int()
            added = added * self._of_values(met)
            met, added = (each.cpu().numpy() for each in over_processes(fabric, (met, added), "sum"))
            fits = self.counts[rows] + met <= min(MOST, np.iinfo(self.counts.dtype).max)
            self.sums[rows] += (added * self._of_values(fits)).astype(np.uint16)
            self.counts[rows] += (met * fits).astype(self.counts.dtype)
        self.now = self.met = None

    def _of_values(self, counts: Any) -> Any:
        """Some rows of an array shaped as `counts`, so shaped that each value of these rows meets its own."""
        pixels = self.counts.shape[1:]
        return counts.reshape(len(counts), *[1] * (self.sums.ndim - 1 - len(pixels)), *pixels)

    def state_dict(self) -> dict:
        """All that changes, as tensors on the CPU."""
        return {"sums": torch.from_numpy(self.sums), "counts": torch.from_numpy(self.counts),
                "now": None if self.now is None else self.now.cpu(), "met": None if self.met is None else self.met.cpu()}

    def load_state_dict(self, state: dict) -> None:
        """Take over what `state_dict` gave; a ValueError if it is of other rows or sizes."""
        refuse_other_shape(self.sums, state["sums"])
        refuse_other_shape(self.counts, state["counts"])
        self.sums, self.counts = state["sums"].numpy(), state["counts"].numpy()
        self.now, self.met = of_the_first(state["now"]), of_the_first(state["met"])


def brought_back(values: Tensor, source: Tensor) -> tuple[Tensor, Tensor]:
    """What was predicted of augmented pictures, at the pixels that it was predicted of.

    Args:
        values: uint8 (B, H, W) or (B, C, H, W), of the augmented pictures.
        source: see `SegmentationDataset`.

    Returns:
        (uint8, shaped as values: the mean where an enlarged pixel was predicted several times, 0 where it never was;
        uint8 (B, H, W), 1 = it was)
    """
    pixels = source[0].numel()
    place = torch.where(source < 0, pixels, source).long().flatten(1)  # (B, H * W), what lies outside goes behind the last one
    hits = torch.zeros(len(place), pixels + 1, dtype=torch.int32, device=values.device)
    hits.scatter_add_(1, place, torch.ones_like(place, dtype=torch.int32))  # integers: any order of adding gives the same
    layers = values.int().reshape(len(place), -1, pixels)  # (B, 1 or C, H * W)
    sums = torch.zeros(*layers.shape[:2], pixels + 1, dtype=torch.int32, device=values.device)
    sums.scatter_add_(2, place[:, None].expand_as(layers), layers)
    hits, sums = hits[:, None, :pixels], sums[..., :pixels]
    means = (sums + hits // 2) // hits.clamp(min=1)
    return means.reshape(values.shape).to(torch.uint8), (hits > 0).reshape(source.shape).to(torch.uint8)


def refuse_other_shape(own: Any, saved: Any) -> None:
    """Raise ValueError if what was saved has another shape."""
    if tuple(own.shape) != tuple(saved.shape):
        raise ValueError(f"its memory is of shape {tuple(saved.shape)}, this run's of {tuple(own.shape)}")


class OwnMemory:
    """Scores and averaged predictions of all rows, and the weights that the scores give.

    It also holds which masks are `outlined`, and of binary ones how often a prediction was `larger` than the mask, see
    `utils.own_scores.own_weights` and `one_sided`.

    Args:
        rows: N.
        shape: of a row's probabilities, see `AveragedPredictions`; None = none are kept.
        from_epoch: the first epoch with weights and the first whose predictions count.
        change: a control: changes the weights of all rows, float (N,) -> (N,).
        say: function that tells the user a sentence.
        origin: of the run that this one follows, a text; a run must go on after the same one.
        moved: see `AveragedPredictions`.
        num_classes: C; of more than two it holds the scores of each, see `utils.own_scores.adjusted_for_classes`.
    """

    def __init__(self, rows: int, shape: Sequence[int] | None, from_epoch: int,
                 change: Callable[[np.ndarray], np.ndarray] | None = None, say: Callable[[str], None] = print,
                 origin: str = "", moved: bool = False, num_classes: int = 2) -> None:
        self.scores, self.from_epoch, self.change, self.say, self.origin = RunningScores(rows), from_epoch, change, say, origin
        self.predictions = AveragedPredictions(rows, shape, moved) if shape else None
        self.larger, self.outlined = RunningScores(rows), RunningScores(rows)
        self.by_class = RunningScores(rows, num_classes) if num_classes > 2 else None
        self.current: tuple[int, Tensor] | None = None  # epoch and its weights, float32 (N,)
        self.said = ""
        self.reason: str | None = None  # why all weights were 1 when they were last judged

    def note(self, batch: dict, scores: Tensor, logits: Tensor, epoch: int, by_class: Tensor | None = None) -> None:
        """Take note of a batch: its scores (B,) and logits (B, 1 or C, H, W); of more than two classes the scores of each,
        (B, C), NaN = absent."""
        index = batch["index"]
        self.scores.note(index, scores)
        if self.by_class and by_class is not None:
            held = held_classes(batch["mask"], by_class.shape[1])  # a class that is predicted astray is no part of the mask
            self.by_class.note(index, torch.where(held, by_class, torch.nan))
        self.outlined.note(index, has_outline(batch["mask"]).float())
        if logits.shape[1] == 1:
            self.larger.note(index, prediction_is_larger(logits, batch["mask"]))
        if self.predictions and epoch >= self.from_epoch:
            self.predictions.note(index, logits, batch.get("source"))

    def weights(self, epoch: int, device: torch.device) -> Tensor:
        """Weights of all rows in an epoch, float32 (N,), by the scores of the epochs before it; 1 before `from_epoch`."""
        if self.current is None or self.current[0] != epoch:
            found = self.judged() if epoch >= self.from_epoch else np.ones(len(self.scores.sums))
            self.current = epoch, torch.tensor(found, dtype=torch.float32, device=device)
        return self.current[1]

    def judged(self) -> np.ndarray:
        """Weights of all rows by all scores so far, float (N,); tells once why all are 1."""
        means, outlined = self.scores.means(), self.outlined.means() != 0  # NaN: not known, of an older run
        weights, reason = own_weights(means, outlined)
        if self.by_class and not reason:
            weights, reason = own_weights(adjusted_for_classes(self.by_class.means(), means), outlined)
        reason = reason or one_sided(weights, self.larger.means(), outlined)
        weights = np.ones_like(weights) if reason else weights
        if reason and reason != self.said:
            self.say(f"own weights: all are 1, since {reason}")
            self.said = reason
        self.reason = reason
        return self.change(weights) if self.change else weights

    def after_epoch(self, fabric: Any, state: Any, stop: Any) -> dict:
        """End an epoch, see `engine.loop`; returns its mean score for the log."""
        for part in (self.scores, self.larger, self.outlined, self.by_class, self.predictions):
            if part:
                part.fold(fabric)
        return {"own_score": float(np.nanmean(self.scores.means()))}

    def state_dict(self) -> dict:
        """All that changes; the weights follow from it."""
        return {"scores": self.scores.state_dict(), "larger": self.larger.state_dict(), "outlined": self.outlined.state_dict(),
                "by_class": self.by_class.state_dict() if self.by_class else None, "origin": self.origin,
                "predictions": self.predictions.state_dict() if self.predictions else None}

    def load_state_dict(self, state: dict) -> None:
        """Take over what `state_dict` gave; a ValueError if it is not of this run."""
        if state["origin"] != self.origin:
            raise ValueError("the run named by --after is not the one that it followed")
        self.load_scores(state)
        if self.predictions:
            self.predictions.load_state_dict(state["predictions"])
        self.current = None

    def load_scores(self, state: dict) -> None:
        """Take over what `state_dict` says of the scores alone, of this run or of the one before it."""
        self.scores.load_state_dict(state["scores"])
        self.larger.load_state_dict(state["larger"])
        for name in ("outlined", "by_class"):  # older runs have none
            if state.get(name):
                getattr(self, name).load_state_dict(state[name])

    def keep_predictions(self, state: dict) -> None:
        """Take over the averaged predictions of a `state_dict` of another run, moved ones or not, if any are kept."""
        if self.predictions:
            moved = state["predictions"]["counts"].ndim > 1
            self.predictions = AveragedPredictions(len(self.scores.sums), self.predictions.sums.shape[1:], moved)
            self.predictions.load_state_dict(state["predictions"])
