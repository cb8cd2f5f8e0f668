"""What a batch of masks holds, and whether predictions are larger.

Legend: B samples, C classes, H x W pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cli.lazy import torch
from data import IGNORE_INDEX
from utils.agreement import hard_labels

if TYPE_CHECKING:
    from torch import Tensor


def has_outline(mask: Tensor) -> Tensor:
    """Whether a mask has pixels of two classes at least, bool (B,).

    Args:
        mask: (B, H, W), 255 = ignored.
    """
    labels, ignored = mask.flatten(1), (mask == IGNORE_INDEX).flatten(1)
    return labels.masked_fill(ignored, 0).amax(1) > labels.amin(1)  # where all is ignored, 0 and 255


def held_classes(mask: Tensor, num_classes: int) -> Tensor:
    """Which classes a mask holds, bool (B, C).

    Args:
        mask: (B, H, W), 255 = ignored.
    """
    found = torch.zeros(len(mask), IGNORE_INDEX + 1, device=mask.device)
    return found.scatter_(1, mask.flatten(1).long(), 1)[:, :num_classes] > 0


def prediction_is_larger(logits: Tensor, mask: Tensor) -> Tensor:
    """1 where the predicted region is larger than the mask's, 0 where it is smaller, else 0.5; (B,).

    Args:
        logits: (B, 1, H, W).
        mask: (B, H, W), 0, 1 or 255 (ignored).
    """
    predicted = ((hard_labels(logits) == 1) & (mask != IGNORE_INDEX)).flatten(1).sum(1)
    return 0.5 + 0.5 * (predicted - (mask == 1).flatten(1).sum(1)).sign()
