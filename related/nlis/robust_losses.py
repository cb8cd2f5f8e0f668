"""Losses of class labels that may be wrong: cross-entropy and three that a wrong label pulls less.

Legend: N samples (RoIs, or pictures), C classes, the background among them; logits float (N, C), p = softmax(logits), labels
int64 (N,), the given ones; p_y is the probability of the given label. All losses are float32 (N,), >= 0, with gradient.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

LOWEST = 1e-7  # p is clamped to this, so that p^q has a finite slope
LABEL_FLOOR = 1e-4  # what stands for ln 0 in the one-hot label of `rce`
A = -math.log(LABEL_FLOOR)  # 9.21034, the largest value of `rce`
SCE_SHARE = 0.1  # of RCE in SCE, as Yang et al. set it
GCE_POWER = 0.3  # q of GCE, as Yang et al. set it


def ce(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy, -ln p_y. Its slope at the given logit is p_y - 1: the less likely a label, the harder it pulls."""
    return -logits.float().log_softmax(1).gather(1, labels[:, None])[:, 0]


def rce(logits: Tensor, labels: Tensor) -> Tensor:
    """Reverse cross-entropy (Wang et al., ICCV 2019), -sum_k p_k ln q_k = A (1 - p_y), at most A.

    q is the one-hot label, its zeros replaced by LABEL_FLOOR. The slope at the given logit is -A p_y (1 - p_y): a label that
    the network finds unlikely hardly pulls. Summed over all labels a sample could have, it is A (C - 1) whatever p.
    """
    return A * (1 - likelihood(logits, labels))


def sce(logits: Tensor, labels: Tensor) -> Tensor:
    """Symmetric cross-entropy (Wang et al., ICCV 2019), CE + 0.1 RCE."""
    return ce(logits, labels) + SCE_SHARE * rce(logits, labels)


def gce(logits: Tensor, labels: Tensor) -> Tensor:
    """Generalised cross-entropy (Zhang & Sabuncu, NeurIPS 2018), (1 - p_y^q) / q with q = 0.3; at most 1 / q."""
    return (1 - likelihood(logits, labels)**GCE_POWER) / GCE_POWER


def likelihood(logits: Tensor, labels: Tensor) -> Tensor:
    """p_y, float32 (N,), in LOWEST..1."""
    return logits.float().softmax(1).gather(1, labels[:, None])[:, 0].clamp(LOWEST, 1)

