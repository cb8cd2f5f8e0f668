"""Scores of detected instances over a split: COCO's average precision of masks, by torchmetrics and faster-coco-eval.

Legend: K classes, n instances of a picture, H x W pixels.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from cli.lazy import torch, torchmetrics_detection
from utils.metrics import markdown_table, mean_percent, over_processes

INSTANCE_TITLES = {"ap": "AP", "ap50": "AP50", "ap75": "AP75"}
AT = {"ap": slice(None), "ap50": slice(0, 1), "ap75": slice(5, 6)}  # of the thresholds .50, .55, ..., .95
MOST = 100  # detections of a picture that count


class InstanceScores:
    """Accumulates detections of a split.

    Args:
        num_classes: K; labels are 1..K.
        device: of the batches.
    """

    def __init__(self, num_classes: int, device: Any = "cpu") -> None:
        self.num_classes, self.images = num_classes, 0
        self.metric = torchmetrics_detection.MeanAveragePrecision(
            iou_type="segm", backend="faster_coco_eval", extended_summary=True, class_metrics=True,
            max_detection_thresholds=[1, 10, MOST], sync_on_compute=False).to(device)
        self.metric.warn_on_many_detections = False

    def update(self, detections: Sequence[dict], targets: Sequence[dict]) -> None:
        """Add a batch.

        Args:
            detections: of each picture `masks` (n, 1, H, W), probabilities; `labels`, `scores` (n,).
            targets: of each picture `masks` (n, H, W), `labels`, `crowd` (n,); masks without a pixel do not count.
        """
        found = [{"masks": each["masks"][:, 0] > 0.5, "labels": each["labels"], "scores": each["scores"].float()}
                 for each in detections]
        true = []
        for each in targets:
            kept = each["masks"].flatten(1).bool().any(1)
            true.append({"masks": each["masks"][kept].bool(), "labels": each["labels"][kept], "iscrowd": each["crowd"][kept]})
        self.metric.update(found, true)
        self.images += len(found)

    def reduce(self, fabric: Any) -> None:
        """Gather the pictures of all processes. torchmetrics' own way waits for ever where their numbers differ."""
        self.images = int(over_processes(fabric, torch.tensor(self.images, device=fabric.device), "sum"))
        for name, own in self.metric.metric_state.items() if fabric.world_size > 1 else ():
            parts: list[Any] = [None] * fabric.world_size
            own = [each.cpu() if isinstance(each, torch.Tensor) else each for each in own]  # masks are run lengths
            torch.distributed.all_gather_object(parts, own)
            setattr(self.metric, name, [each for part in parts for each in part])

    def compute(self) -> dict:
        """Scores in 0..1 as a JSON-ready dict.

        `ap`: the mean over IoU thresholds .50 to .95 and over the classes that occur; `ap50`, `ap75`: at one threshold.
        `ap_per_class`, `ap50_per_class`, `ap75_per_class`: lists of K, None for a class that does not occur. `images`: how
        many were scored.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pictures without detections
            found = self.metric.compute()
        if "precision" not in found:  # neither a detection nor an instance has a pixel
            return {**dict.fromkeys(AT, 0.0), **{f"{name}_per_class": [None] * self.num_classes for name in AT},
                    "images": self.images}
        precision = found["precision"][..., 0, -1]  # (thresholds, recalls, classes that occur); any area, 100 detections
        places = {int(label): place for place, label in enumerate(found["classes"].reshape(-1).tolist())}
        scores: dict[str, Any] = {}
        for name, at in AT.items():
            each = [_mean(precision[at, :, places[label]]) if label in places else None
                    for label in range(1, self.num_classes + 1)]
            occurring = [value for value in each if value is not None]
            scores |= {name: sum(occurring) / len(occurring) if occurring else 0.0, f"{name}_per_class": each}
        return {**scores, "images": self.images}


def _mean(precision: torch.Tensor) -> float | None:
    """The mean of a class's precisions; None for a class that has no instance, whose precisions are -1."""
    return None if (precision < 0).all() else float(precision[precision >= 0].double().mean())


def precision_table(scores: dict, names: Sequence[str]) -> str:
    """A text table of the scores of each class, in percent, of `InstanceScores.compute`."""
    lines = [[name, *(mean_percent([scores[f"{score}_per_class"][place]]) for score in INSTANCE_TITLES)]
             for place, name in enumerate(names)]
    return markdown_table(["class", *INSTANCE_TITLES.values()], lines)
