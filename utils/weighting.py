"""Rules that make weights, on tensors alone. Legend: B samples; every weight lies in 0..1.

A *selection* is a weight of 1 (kept) or 0 (dropped) for each sample.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from cli.files import UserError
from cli.lazy import scipy_special, sklearn_mixture, torch
from data import IGNORE_INDEX
from utils.agreement import agreement, hard_labels, miou
from utils.losses import per_sample_loss

Weigh = Callable[[Any, dict, int], list]  # (logits, batch, epoch) -> weights of each network, see engine/loop.py


def uniform(weights: torch.Tensor) -> torch.Tensor:
    """w = 1 for every sample; (B,) like `weights`."""
    return weights.new_ones(weights.shape)


def lambda_at(epoch: int, epochs: int, warmup: int = 10, maximum: float = 0.5) -> float:
    """The student's share in the weight: 0 for the first `warmup` epochs, then linear, `maximum` in the last one.

    Args:
        epoch: current epoch, 0-based.
        epochs: epochs of the whole run; with `epochs` <= `warmup` the share stays 0.

    Source: paper, section 3 (0 for 10 epochs, then up to 0.5).
    """
    if epoch < warmup:
        return 0.0
    return maximum * (epoch - warmup + 1) / (epochs - warmup)


def mix(student: torch.Tensor, teacher: torch.Tensor, share: float) -> torch.Tensor:
    """W = share * w_student + (1 - share) * w_teacher, (B,) each (paper, eq. 6)."""
    return share * student + (1 - share) * teacher


def floored(weights: torch.Tensor, minimum: float) -> torch.Tensor:
    """Weights (B,), none below `minimum`."""
    return weights.clamp(min=minimum)


def scaled(weigh: Weigh, factor: float) -> Weigh:
    """`weigh` (see engine/loop.py) with its weights times `factor`."""
    if factor == 1:
        return weigh
    return lambda logits, batch, epoch: [factor * weights for weights in weigh(logits, batch, epoch)]


# --- rules over all rows of a CSV, before training: arrays of float (rows,) ----------------------------------------


def dropped_worst(weights: np.ndarray, drop: float) -> np.ndarray:
    """1 for the rows that are kept, 0 for the share `drop` of them with the lowest weights; ties drop the later rows.

    Args:
        weights: float (rows,).
        drop: in 0..1.

    Raises:
        UserError: no row would be left.
    """
    if weights.size == round(drop * len(weights)):
        raise UserError(f"--drop-worst {drop:g}: drops all {len(weights)} rows; pass a smaller share")
    kept = np.zeros(len(weights))
    kept[np.argsort(-weights, kind="stable")[:len(weights) - round(drop * len(weights))]] = 1
    return kept


def shuffled(weights: np.ndarray, seed: int) -> np.ndarray:
    """The weights (rows,) in a random order."""
    return np.random.default_rng(seed).permutation(weights)


def levelled(weights: np.ndarray, minimum: float = 0.0) -> np.ndarray:
    """The mean of the weights (rows,), none of them below `minimum`, for every row."""
    return np.full_like(weights, np.maximum(weights, minimum).mean())


def sharpened(scores: np.ndarray, fitted: np.ndarray | None = None, margin: float = 2) -> np.ndarray:
    """The probability that each score belongs to the higher of two groups, trusted and doubted annotations.

    The groups are two normal distributions of one variance; the result is a logistic curve of the score, so the ranking stays.
    If the scores of coarse and good annotations are far apart, it is nearly 0 or 1; no number of coarse ones is needed.
    If one normal distribution explains the scores as well (Bayesian information criterion), all weights are 1.

    Args:
        scores: float (rows,), about 0..1.
        fitted: bool (rows,), the rows whose scores make the groups; default: all. The others get their weights from the same
            curve. Masks without an outline should not be fitted: agreement with them is all or nothing, so that they would
            be the better group, and all masks with an outline the worse one.
        margin: by how much the criterion of two groups must beat that of one. 2 is positive evidence. Of 60 sets of clean
            scores, chance gives it to 8 with 8 rows each, 3 with 12, and 1 with 20 or 60; a larger margin would miss coarse
            masks in small sets.

    Returns:
        float (rows,) in 0..1; all 1 where the scores do not differ, or form one group.

    Source: a mixture fitted to per-sample losses tells clean from noisy in DivideMix (Li et al. 2020); here it is fitted to the
    paper's agreement scores. Evidence by the criterion: Kass and Raftery, Bayes Factors (1995).
    """
    own = scores if fitted is None else scores[fitted]
    if not len(own) or np.ptp(own) == 0:
        return np.ones_like(scores)
    column = own[:, None]  # (rows that are fitted, 1)
    # reg_covar adds a deviation of 0.01: without it a few equal scores would be a group of their own
    one, two = (sklearn_mixture.GaussianMixture(groups, covariance_type="tied", n_init=5, reg_covar=1e-4,
                                                random_state=0).fit(column) for groups in (1, 2))
    if one.bic(column) - two.bic(column) <= margin:
        return np.ones_like(scores)
    centres, higher = two.means_[:, 0], two.means_[:, 0].argmax()
    slope = np.ptp(centres) / two.covariances_[0, 0]
    return scipy_special.expit(slope * (scores - centres.mean()) + scipy_special.logit(two.weights_[higher]))  # Bayes' rule


# --- selections of two-network methods (paper, section 4; each source stands at its rule) -------------------------


def disagreement(logits_a: torch.Tensor, logits_b: torch.Tensor, num_classes: int, below: float = 0.9) -> torch.Tensor:
    """1 for the samples on which two networks disagree: the mIoU of their hard predictions is below `below`.

    Args:
        logits_a, logits_b: float (B, C, H, W).

    Returns:
        float32 (B,) of 0 and 1.

    Source: Malach & Shalev-Shwartz 2017 (Decoupling), where classes of pictures are compared; here the overlap of label maps.
    """
    return (miou(hard_labels(logits_a), hard_labels(logits_b), num_classes) < below).float()


def trust(logits: torch.Tensor, mask: torch.Tensor, select_by: str, num_classes: int, theta: float = 3.0) -> torch.Tensor:
    """How much a network trusts each annotation, (B,), higher = more; comparable within a batch only.

    Args:
        select_by: `loss`, the negative per-sample loss (the field's small-loss rule); or a metric of `agreement`.

    A sample whose pixels are all ignored has nothing to teach and is trusted least.
    """
    found = -per_sample_loss(logits, mask) if select_by == "loss" else \
        agreement(hard_labels(logits), mask, num_classes, select_by, theta)
    return found.masked_fill((mask == IGNORE_INDEX).flatten(1).all(1), torch.finfo(found.dtype).min)


def keep_share(epoch: int, forget_rate: float, ramp_epochs: int = 10) -> float:
    """R(t) = 1 - tau * min(t / T_k, 1), the share of samples that is kept (Han et al. 2018, Co-teaching).

    Args:
        epoch: t, 0-based: the first epoch keeps everything.
        forget_rate: tau, the share that is dropped in the end.
        ramp_epochs: T_k.
    """
    return 1 - forget_rate * min(epoch / ramp_epochs, 1)


def kept_count(count: Any, share: float) -> Any:
    """How many of `count` samples (int or integer tensor) a `share` in 0..1 keeps, rounded down, see `keep_best`."""
    exact = Fraction(share).limit_denominator(10**9)
    return count * exact.numerator // exact.denominator


def keep_best(scores: torch.Tensor, share: float, among: torch.Tensor | None = None) -> torch.Tensor:
    """1 for the `share` of the samples with the highest scores, else 0.

    The number of kept samples is rounded down, as in the original: with any share below 1, a batch of 4 keeps 3 at most.

    Args:
        scores: float (B,).
        share: in 0..1, of the candidates; a float is taken as the nearest simple fraction, so 1 - 0.9 keeps 1 of 10.
        among: (B,) of 0 and 1, the candidates; None = all.

    Returns:
        float32 (B,) of 0 and 1; computed without waiting for a GPU.

    Source: Han et al. 2018, Algorithm 1; their code keeps int(R(t) * number of samples).
    """
    among = torch.ones_like(scores) if among is None else among
    order = scores.masked_fill(among == 0, -torch.inf).argsort(descending=True, stable=True)
    rank = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))  # 0 = best
    return (rank < kept_count(among.sum().long(), share)).float()
