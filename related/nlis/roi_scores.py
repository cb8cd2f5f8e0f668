"""Scores of pictures that stand for regions: is it an object, and which? The task CLASSIFICATION, class 0 = background."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

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


ROI_TITLES = {"class_accuracy": "right class of objects", "foreground_accuracy": "object or background", **CLASS_TITLES}
ROIS = replace(CLASSIFICATION, scorer=lambda args, device: RoiScorer(args.num_classes, device), compared=("class_accuracy",),
               titles=ROI_TITLES)
