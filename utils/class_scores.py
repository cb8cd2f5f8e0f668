"""Scores of class predictions over a split, from one confusion matrix. Legend: B samples, C classes."""

from __future__ import annotations

from typing import Any

from cli.lazy import torch
from utils.metrics import markdown_table, over_processes

CLASS_TITLES = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy"}


class ClassScores:
    """Accumulates predictions of a split: `confusion` (C, C) counts true classes in rows, predicted ones in columns."""

    def __init__(self, num_classes: int, device: Any = "cpu") -> None:
        self.num_classes = num_classes
        self.confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)

    def update(self, predicted: torch.Tensor, truth: torch.Tensor) -> None:
        """Add the classes of a batch, int64 (B,) each."""
        cells = torch.bincount(truth * self.num_classes + predicted, minlength=self.num_classes**2)
        self.confusion += cells.view(self.num_classes, self.num_classes)

    def reduce(self, fabric: Any) -> None:
        """Sum the counts of all processes."""
        self.confusion = over_processes(fabric, self.confusion, "sum")

    def compute(self) -> dict:
        """Scores in 0..1 as a JSON-ready dict.

        `accuracy`: the share of right predictions. `recall_per_class`: of each class, None for one that does not occur.
        `balanced_accuracy`: the mean of those that occur. `images`: how many were scored.
        """
        hits, counts = self.confusion.diag().tolist(), self.confusion.sum(1).tolist()
        recalls = [hit / count if count else None for hit, count in zip(hits, counts)]
        occurring = [recall for recall in recalls if recall is not None]
        return {"accuracy": sum(hits) / sum(counts), "balanced_accuracy": sum(occurring) / len(occurring),
                "recall_per_class": recalls, "images": sum(counts)}


def recall_table(scores: dict, names: list[str]) -> str:
    """A text table of the recall of each class, in percent, of `ClassScores.compute`; `-` for a class that does not occur."""
    recalls = ["-" if recall is None else f"{100 * recall:.2f}" for recall in scores["recall_per_class"]]
    return markdown_table(["class", "recall"], [list(line) for line in zip(names, recalls)])
