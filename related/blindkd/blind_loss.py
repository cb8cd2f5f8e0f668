"""The loss of a pair: the teacher learns the labels, the student learns all the teacher's logits except the given label's.

Legend: B samples, C classes; teacher and student are logits, float (B, C); labels int64 (B,), the given ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cli.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


def blind_loss(teacher: Tensor, student: Tensor, labels: Tensor, unmasked: bool = False) -> Tensor:
    """Squared distance of the two networks' logits, the label's own left out; a tensor ().

    L_blind = sum over batch and classes of [(1 - h) (l_T - l_S)]^2 / (B C - 1), h = one-hot label. The denominator is the
    published one. Gradient flows into both networks.

    Args:
        unmasked: the label's own logit counts too (an ablation: the student then sees the label).
    """
    squares = (teacher - student)**2
    if not unmasked:
        squares = squares * (1 - one_hot(labels, squares))
    return squares.sum() / (squares.numel() - 1)


def soft_targets(labels: Tensor, student: Tensor, alphas: Tensor) -> Tensor:
    """What the teacher learns in phase 2: q of each sample, float (B, C), each row a distribution.

    q = (1 - alpha) h + alpha softmax(l_S), then q^(1 + alpha) / sum. Gradient flows into `student` unless it is detached.

    Args:
        alphas: float (B,), in 0..1: how much the student counts against the label.
    """
    alphas = alphas[:, None]
    mixed = (1 - alphas) * one_hot(labels, student) + alphas * student.softmax(1)
    sharpened = mixed**(1 + alphas)
    return sharpened / sharpened.sum(1, keepdim=True)


def pair_loss(teacher: Tensor, student: Tensor, labels: Tensor, alphas: Tensor | None = None, unmasked: bool = False,
              detach_targets: bool = False) -> Tensor:
    """CE(l_T, q) + L_blind, a tensor (): the mean over the batch of the first, and `blind_loss`.

    Args:
        alphas: see `soft_targets`; None, in phase 1, q is the one-hot label.
        detach_targets: no gradient flows through q.
    """
    if alphas is None:
        targets = one_hot(labels, teacher)
    else:
        targets = soft_targets(labels, student.detach() if detach_targets else student, alphas)
    fit = -(targets * teacher.log_softmax(1)).sum(1).mean()
    return fit + blind_loss(teacher, student, labels, unmasked)


def agreement(teacher: Tensor, student: Tensor, labels: Tensor) -> Tensor:
    """The score of each label, float (B,) in 0..1: high where both networks find it likely.

    P_y of P = p_T p_S / sum over classes, which is softmax(l_T + l_S).
    """
    return (teacher + student).softmax(1).gather(1, labels[:, None])[:, 0]


def one_hot(labels: Tensor, like: Tensor) -> Tensor:
    """h (B, C), of the type and on the device of `like` (B, C)."""
    return torch.zeros_like(like).scatter_(1, labels[:, None], 1.0)
