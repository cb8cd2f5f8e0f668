"""The label as one more input channel: each class gets a number, its code, and each pixel some noise.

Random codes are drawn anew for each image at each draw: shapes stay exact, but nothing tells which class a code stands for, so
a teacher cannot copy its label. Legend: B images, C classes, H x W pixels; code C belongs to the ignored pixels (255).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cli.lazy import torch
from data import IGNORE_INDEX

if TYPE_CHECKING:
    from torch import Tensor

CODES = ("random", "fixed", "zero")
SIGMA = {"random": 0.03, "fixed": 0.02, "zero": 0.0}  # noise of each pixel: of the published teacher, and of its student's
GAIN = 1.4  # 81 grey levels: 1 of a standardised image is 255 x .226 = 57.6 of them; the published 100 would be 1.74


def fixed_codes(num_classes: int) -> Tensor:
    """v_k = (k - (C + 1) / 2) / 10 for k = 0..C, float32 (C + 1,)."""
    return (torch.arange(num_classes + 1) - (num_classes + 1) / 2) / 10


def described(codes: str, num_classes: int, seed: int) -> dict:
    """What tells the codes of a run, JSON-ready: `kind`; `gain` and `sigma`, see `label_channel`; `seed`, from which with epoch
    and row each image's draws follow; of fixed codes their `values`, by class, the ignored pixels' last."""
    values = {"values": [round(value, 6) for value in fixed_codes(num_classes).tolist()]} if codes == "fixed" else {}
    return {"kind": codes, **values, "gain": GAIN, "sigma": SIGMA[codes], "seed": seed}


def normal_numbers(images: int, count: int, seeds: Sequence[int] | None, device: torch.device | str) -> Tensor:
    """Numbers of N(0, 1), float32 (images, count).

    Args:
        seeds: of each image; None: PyTorch's own random numbers.
    """
    if seeds is None:
        return torch.randn(images, count, device=device)
    generator = torch.Generator(device)
    return torch.stack([torch.randn(count, generator=generator.manual_seed(seed), device=device) for seed in seeds])


def label_channel(mask: Tensor, num_classes: int, codes: str = "random", sigma: float | None = None, gain: float = GAIN,
                  seeds: Sequence[int] | None = None, random_share: float = 1.0) -> Tensor:
    """gain (v_{y(i)} + eps_i) of each pixel i, float32 (B, 1, H, W).

    Args:
        mask: integer (B, H, W), 0..C-1 or 255.
        codes: `random`, v_k ~ N(0, 1) of each image; `fixed`, see `fixed_codes`; `zero`, the channel is 0 everywhere.
        sigma: eps ~ N(0, sigma^2) of each pixel (default: as SIGMA has it).
        gain: factor of the channel.
        seeds: of each image's draw; None: PyTorch's own random numbers.
        random_share: r in 0..1, `random` codes become (1 - r) fixed + r random.
    """
    images, pixels = len(mask), mask[0].numel()
    if codes == "zero":
        return torch.zeros(images, 1, *mask.shape[1:], device=mask.device)
    drawn = normal_numbers(images, num_classes + 1 + pixels, seeds, mask.device)
    fixed, share = fixed_codes(num_classes).to(mask.device), random_share if codes == "random" else 0.0
    values = (1 - share) * fixed + share * drawn[:, :num_classes + 1]  # (B, C + 1)
    labels = torch.where(mask == IGNORE_INDEX, num_classes, mask).long()
    noise = (SIGMA[codes] if sigma is None else sigma) * drawn[:, num_classes + 1:]  # (B, H W)
    return gain * (values.gather(1, labels.flatten(1)) + noise).view(images, 1, *mask.shape[1:])
