"""Scores of pictures that stand for regions: is it an object, and which? The task CLASSIFICATION, class 0 = background."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from typing import Any

from cli.files import UserError
from engine.classification import CLASSIFICATION, ClassScorer
from utils.class_scores import CLASS_TITLES


class RoiScorer(ClassScorer):
    """`ClassScorer` with two more scores: `class_accuracy`, the share of objects that get the right class; and
    `foreground_accuracy`, the share of all pictures that are rightly told to be an object or none."""

    def __init__(self, num_classes: int, device: Any = "cpu") -> None:
        super().__init__(num_classes, device)
        self.compute = self.roi_scores

    def roi_scores(self) -> dict:
        """All scores, in 0..1, see the class; None where there is no object."""
        confusion = self.scores.confusion  # (C, C)
        objects, total = confusion[1:].sum().item(), confusion.sum().item()
        right = confusion.diag()[1:].sum().item()
        told = (confusion[1:, 1:].sum() + confusion[0, 0]).item()
        return {**self.scores.compute(), "class_accuracy": right / objects if objects else None,
                "foreground_accuracy": told / total}


def read_roi_splits(args: Namespace, needs_weights: bool = False, pseudo_dir: str | None = None) -> dict:
    """Rows of each split, see `engine.task.Task.rows`; a UserError if one has no object, since nothing could be scored."""
    splits = CLASSIFICATION.rows(args, needs_weights, pseudo_dir)
    for split, rows in splits.items():
        if not rows["label"].any():
            raise UserError(f"{getattr(args, f'{split}_csv')}: all rows are background (label 0), there is no object to score")
    return splits


ROI_TITLES = {"class_accuracy": "right class of objects", "foreground_accuracy": "object or background", **CLASS_TITLES}
ROIS = replace(CLASSIFICATION, rows=read_roi_splits, scorer=lambda args, device: RoiScorer(args.num_classes, device),
               compared=("class_accuracy",), titles=ROI_TITLES)
