"""Per-sample losses. Legend: B samples, C logits per pixel (1 = binary), H x W pixels.

While training, a network returns its logits (B, C, H, W), or a dict with more outputs that have a loss:

    logits        (B, C, H, W)
    auxiliary     (B, C, H, W), logits of a side branch (OCRNet's soft regions, the auxiliary head of DeepLabv3)
    point_logits  (B, C, N), logits at N points (PointRend), and
    points        (B, N, 2), where these lie: x, y in pixels of the picture, 0..W, 0..H
"""

from __future__ import annotations

from typing import Union

from cli.lazy import torch
from data import IGNORE_INDEX

Output = Union["torch.Tensor", dict[str, "torch.Tensor"]]  # a network's output during training
AUXILIARY_SHARE = 0.4  # of a side branch's loss (Yuan et al. 2020, OCRNet)


def main_logits(output: Output) -> torch.Tensor:
    """The logits (B, C, H, W) in a network's output."""
    return output["logits"] if isinstance(output, dict) else output


def training_losses(output: Output, mask: torch.Tensor, pixel_weights: torch.Tensor | None = None,
                    auxiliary_share: float = AUXILIARY_SHARE) -> torch.Tensor:
    """The whole training loss per sample: l(logits) + 0.4 l(auxiliary) + l(points).

    Args:
        output: see the head of this module.
        mask: int64 (B, H, W).
        pixel_weights: see `per_sample_loss`.
        auxiliary_share: how much l(auxiliary) counts.

    Returns:
        float32 (B,).
    """
    losses = per_sample_loss(main_logits(output), mask, pixel_weights)
    if isinstance(output, dict) and "auxiliary" in output:
        losses = losses + auxiliary_share * per_sample_loss(output["auxiliary"], mask, pixel_weights)
    if isinstance(output, dict) and "points" in output:
        labels = values_at(mask, output["points"])[..., None]  # (B, N, 1)
        weights = None if pixel_weights is None else values_at(pixel_weights, output["points"])[..., None]
        losses = losses + per_sample_loss(output["point_logits"][..., None], labels, weights)
    return losses


def values_at(mask: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Values of the pixels that contain the points.

    Args:
        mask: (B, H, W), labels or weights.
        points: float (B, N, 2), x and y in pixels.

    Returns:
        (B, N), of the mask's type.
    """
    height, width = mask.shape[-2:]
    column, row = points[..., 0].long().clamp(0, width - 1), points[..., 1].long().clamp(0, height - 1)
    return mask.flatten(1).gather(1, row * width + column)


def per_sample_loss(logits: torch.Tensor, mask: torch.Tensor, pixel_weights: torch.Tensor | None = None) -> torch.Tensor:
    """Cross-entropy of each sample, averaged over its valid pixels (paper, eq. 4).

    Args:
        logits: float (B, C, H, W). C = 1: one foreground logit, binary cross-entropy; else softmax cross-entropy.
        mask: int64 (B, H, W), labels 0..C-1 (0, 1 for binary); 255 is ignored.
        pixel_weights: float (B, H, W), how much each pixel counts in its sample's average; None = 1.

    Returns:
        float32 (B,), >= 0; 0 for a sample without a valid pixel.
    """
    logits = logits.float()  # a mixed-precision forward pass gives bf16
    valid = mask != IGNORE_INDEX
    if logits.shape[1] == 1:
        target = (mask == 1).to(logits.dtype)
        pixels = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 0], target, reduction="none")  # (B, H, W)
    else:
        pixels = torch.nn.functional.cross_entropy(logits, mask, ignore_index=IGNORE_INDEX, reduction="none")  # (B, H, W)
    if pixel_weights is not None:
        pixels = pixel_weights * pixels
    return torch.where(valid, pixels, 0).sum((1, 2)) / valid.sum((1, 2)).clamp(min=1)


def weighted_loss(losses: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Sum of w_i * loss_i divided by the batch size (paper, eq. 7).

    Args:
        losses: float (B,).
        weights: float (B,), without gradient.
    """
    return (weights * losses).sum() / losses.shape[0]
