"""Scores of a whole split: counts are summed over its batches, ratios are taken once at the end.

Legend: B images, C classes, H x W pixels.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from cli.lazy import lightning_fabric, torch
from data import IGNORE_INDEX
from utils.agreement import bf_per_class, boundary_iou, dice, mean_bf

TITLES = {"miou": "mIoU", "dice": "Dice", "bf": "BF", "boundary_iou": "Boundary IoU", "iou_per_class": "IoU per class"}


class SplitScores:
    """Accumulates predictions of a split.

    mIoU and the IoU of each class come from one confusion matrix over all pixels of the split; BF, Dice and Boundary
    IoU are means over its images.
    """

    IMAGE_SCORES = ("dice", "bf", "boundary_iou")

    def __init__(self, num_classes: int, theta: float, device: torch.device | str = "cpu") -> None:
        self.num_classes, self.theta = num_classes, theta
        exact = torch.float32 if torch.device(device).type == "mps" else torch.float64  # Apple's GPUs have no float64
        self.confusion = torch.zeros(num_classes, num_classes, dtype=exact, device=device)
        self.sums = torch.zeros(len(self.IMAGE_SCORES) + 1, dtype=exact, device=device)  # last: images
        self.bf_sums = torch.zeros(2, num_classes, dtype=exact, device=device)  # sum, images that count

    def update(self, predicted: torch.Tensor, truth: torch.Tensor) -> None:
        """Add a batch of label maps (B, H, W)."""
        classes, theta = self.num_classes, self.theta
        valid = truth != IGNORE_INDEX
        cells = truth[valid] * classes + predicted[valid]
        self.confusion += torch.bincount(cells, minlength=classes**2).view(classes, classes)
        bf_classes = bf_per_class(predicted, truth, classes, theta)  # (B, C); binary: (B, 1)
        scores = (dice(predicted, truth, classes), mean_bf(bf_classes, predicted, truth),
                  boundary_iou(predicted, truth, classes))
        self.sums += torch.stack([s.sum() for s in scores] + [torch.ones_like(scores[0]).sum()])
        if classes > 2:
            self.bf_sums += torch.stack([bf_classes.nansum(0), (~bf_classes.isnan()).sum(0)])

    def reduce(self, fabric: lightning_fabric.Fabric) -> None:
        """Sum the counts of all processes."""
        self.confusion, self.sums, self.bf_sums = over_processes(fabric, (self.confusion, self.sums, self.bf_sums), "sum")

    def compute(self) -> dict[str, Any]:
        """Scores in 0..1 as a JSON-ready dict; a class that occurs nowhere has None and does not count in `miou`."""
        true = self.confusion.diag()
        union = self.confusion.sum(0) + self.confusion.sum(1) - true
        iou = true / union  # (C,), NaN where absent
        images = self.sums[-1].item()
        result: dict[str, Any] = {"miou": iou.nanmean().item(), "iou_per_class": [_or_none(v) for v in iou.tolist()]}
        result.update((name, value / images) for name, value in zip(self.IMAGE_SCORES, self.sums.tolist()))
        if self.num_classes > 2:
            result["bf_per_class"] = [_or_none(v) for v in (self.bf_sums[0] / self.bf_sums[1]).tolist()]
        result["images"] = int(images)
        return result


def over_processes(fabric: lightning_fabric.Fabric, tensors: Any, how: str) -> Any:
    """`sum` or `mean` of tensors over all processes, element by element.

    A single process returns them as they are: there Lightning's DataParallel strategy would average over the elements.

    Args:
        tensors: a tensor, or a tuple, list or dict of them.
        how: `sum` or `mean`.
    """
    return fabric.all_reduce(tensors, reduce_op=how) if fabric.world_size > 1 else tensors


def _or_none(value: float) -> float | None:
    return None if value != value else value


def markdown_table(titles: Collection[str], lines: Iterable[Sequence[str]]) -> str:
    """Titles and lines of text as a Markdown table."""
    rule = "|---" * len(titles) + "|"
    return "\n".join([f"| {' | '.join(titles)} |", rule, *(f"| {' | '.join(line)} |" for line in lines)])


def score_table(named_scores: dict, titles: dict = TITLES) -> str:
    """A text table of scores, in percent.

    Args:
        named_scores: dict of row name -> dict of score name -> float in 0..1, None, or a list of them.
        titles: score name -> title, of each column.
    """
    lines = [[name, *(_percent(scores[column]) for column in titles)] for name, scores in named_scores.items()]
    return markdown_table(["run", *titles.values()], lines)


def _percent(value: float | list[float | None] | None) -> str:
    """A score in 0..1, or a list of them, in percent; `-` for None."""
    if isinstance(value, list):
        return " ".join(mean_percent([each]) for each in value)
    return "-" if value is None else f"{100 * value:.2f}"


def mean_percent(values: Iterable[float | None]) -> str:
    """Mean of values in 0..1, in percent; None (not measured) does not count."""
    measured = [100 * value for value in values if value is not None]
    return f"{statistics.fmean(measured):.1f}" if measured else "-"


def named_scores(name: str, result: dict[str, Any], which: str) -> dict[str, dict]:
    """Rows of `score_table` from a run's result.json.

    Args:
        name: of the run.
        result: content of result.json.
        which: `test` (best epoch by validation) or `test_last` (last epoch).

    Returns:
        dict of "name, epoch E of N" -> scores; with "network 2" at the end for a second network.
    """
    epoch = result["best_epoch"] + 1 if which == "test" else result["epochs"]
    return {f"{name}, epoch {epoch} of {result['epochs']}" + (f", network {k + 1}" if k else ""): scores
            for k, scores in enumerate(result[which])}
