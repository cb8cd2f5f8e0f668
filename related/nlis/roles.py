"""The four sets of samples, and the loss that each of them gets in stage 2 (Yang et al., ECCV 2020).

    set  definition                                          stage-2 loss
    NEG  the label is background                             CE
    PSN  the label is a class, the network says background   CE
    PON  other samples of a class with CE > threshold        0
    OS   the other samples of a class                        RCE

PSN and PON stand for pseudo-negative and potentially noisy, OS for other samples. Legend: N samples, C classes, of which 0 is
the background; logits float (N, C); labels int64 (N,).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cli.lazy import torch
from related.nlis.robust_losses import ce

if TYPE_CHECKING:
    from torch import Tensor

BACKGROUND = 0
SETS = ("NEG", "PSN", "PON", "OS")
NEG, PSN, PON, OS = range(4)


def sets_of(logits: Tensor, labels: Tensor, pon: float | None = None) -> Tensor:
    """The set of each sample, a position in SETS: int64 (N,).

    Args:
        pon: samples whose cross-entropy is above this are PON (published: 6, p_y < 0.25 %); None: there are none.
    """
    found = torch.full_like(labels, OS)
    if pon is not None:
        found[ce(logits, labels) > pon] = PON
    found[logits.argmax(1) == BACKGROUND] = PSN
    found[labels == BACKGROUND] = NEG
    return found


def roles(logits: Tensor, labels: Tensor, pon: float | None = None) -> Tensor:
    """How much CE and RCE of each sample count in stage 2, float32 (N, 2); arguments of `sets_of`."""
    return weights_of(sets_of(logits, labels, pon))


def weights_of(sets: Tensor) -> Tensor:
    """How much CE and RCE count, float32 (N, 2), of samples of these sets (N,)."""
    return torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 1.0]], device=sets.device)[sets]
