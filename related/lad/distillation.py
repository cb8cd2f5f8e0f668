"""How far a student's logits are from a teacher's: channel-wise, per pixel, or by correlation.

Legend: B images, C logits per pixel (1 = binary), H x W pixels. No gradient reaches the teacher; 0 = the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cli.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

TEMPERATURE = 4.0


def cwd(student: Tensor, teacher: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Channel-wise distillation, a tensor () >= 0 (Shu et al. 2021, eq. 5): where in the image does each class lie?

        D(s, t) = T^2 / (B C) sum_{b,c} KL(softmax_HW(t / T) || softmax_HW(s / T))

    Args:
        student, teacher: logits (B, C, H, W).
    """
    own, given = ((each.float() / temperature).flatten(2).log_softmax(2) for each in (student, teacher.detach()))
    return temperature ** 2 * (given.exp() * (given - own)).sum(2).mean()


def pixel_kl(student: Tensor, teacher: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """KL of the classes' softmax at temperature T, the mean over all pixels, a tensor () >= 0 (Hinton et al. 2015, without its
    factor T^2).

    Args:
        student, teacher: logits (B, C, H, W).
    """
    own, given = ((class_logits(each) / temperature).log_softmax(1) for each in (student, teacher.detach()))
    return (given.exp() * (given - own)).sum(1).mean()


def dist(student: Tensor, teacher: Tensor) -> Tensor:
    """1 - Pearson correlation, a tensor () in 0..4 (Huang et al. 2022): of each pixel over the classes, plus of each class over
    an image's pixels. With two classes the first part is 0 or 2 for every pixel and teaches nothing.

    Args:
        student, teacher: logits (B, C, H, W).
    """
    own, given = (class_logits(each).softmax(1).flatten(2) for each in (student, teacher.detach()))  # (B, C, H W)
    return (1 - correlation(own, given, 1)).mean() + (1 - correlation(own, given, 2)).mean()


def correlation(one: Tensor, other: Tensor, over: int) -> Tensor:
    """Pearson correlation along a dimension; 0 where one of the two is constant."""
    one, other = (each - each.mean(over, keepdim=True) for each in (one, other))
    return torch.nn.functional.cosine_similarity(one, other, over)


def class_logits(logits: Tensor) -> Tensor:
    """Logits of all classes, float32 (B, C, H, W); one foreground logit z stands for 0 and z."""
    logits = logits.float()
    return torch.cat([torch.zeros_like(logits), logits], 1) if logits.shape[1] == 1 else logits


def pooled(logits: Tensor, stride: int) -> Tensor:
    """Logits (B, C, H, W) averaged over squares of `stride` px, at the edges over what is left of them."""
    return torch.nn.functional.avg_pool2d(logits.float(), stride, ceil_mode=True) if stride > 1 else logits


DISTILLATIONS: dict[str, Callable[..., Tensor]] = {"cwd": cwd, "kl": pixel_kl, "dist": dist}
