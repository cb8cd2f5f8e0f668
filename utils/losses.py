"""Per-sample losses. Legend: B samples, C logits per pixel (1 = binary), H x W pixels."""

import torch
from torch.nn import functional as F

from data import IGNORE_INDEX


def per_sample_loss(logits, mask):
    """Cross-entropy of each sample, averaged over its valid pixels (paper, eq. 4).

    Args:
        logits: float (B, C, H, W). C = 1: one foreground logit, binary cross-entropy; else softmax cross-entropy.
        mask: int64 (B, H, W), labels 0..C-1 (0, 1 for binary); 255 is ignored.

    Returns:
        float32 (B,), >= 0; 0 for a sample without a valid pixel.
    """
    logits = logits.float()  # a mixed-precision forward pass gives bf16
    valid = mask != IGNORE_INDEX
    if logits.shape[1] == 1:
        target = (mask == 1).to(logits.dtype)
        pixels = F.binary_cross_entropy_with_logits(logits[:, 0], target, reduction="none")  # (B, H, W)
    else:
        pixels = F.cross_entropy(logits, mask, ignore_index=IGNORE_INDEX, reduction="none")  # (B, H, W)
    return torch.where(valid, pixels, 0).sum((1, 2)) / valid.sum((1, 2)).clamp(min=1)


def weighted_loss(losses, weights):
    """Sum of w_i * loss_i divided by the batch size (paper, eq. 7).

    Args:
        losses: float (B,).
        weights: float (B,), without gradient.
    """
    return (weights * losses).sum() / losses.shape[0]
