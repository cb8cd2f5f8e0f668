"""How well weights find coarse annotations. Legend: N annotations; a low weight means "likely coarse"."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from cli.lazy import scipy_stats, sklearn_metrics


def both_kinds(noisy: np.ndarray) -> bool:
    """Whether there are both noisy and untouched masks; AUROC and AUPRC need both."""
    return bool(noisy.any() and not noisy.all())


def auroc(weights: np.ndarray, noisy: np.ndarray) -> float | None:
    """Probability that an untouched mask weighs more than a noisy one, ties counted half: 1 = always, 0.5 = by chance.

    Args:
        weights: float (N,).
        noisy: bool (N,).

    Returns:
        float in 0..1; None if there is only one kind.
    """
    return float(sklearn_metrics.roc_auc_score(~noisy, weights)) if both_kinds(noisy) else None


def auprc(weights: np.ndarray, noisy: np.ndarray) -> float | None:
    """Average precision, in 0..1, of noisy masks when annotations are sorted by weight, lowest first.

    It is the mean of the precision at each weight, weighted by the recall that this weight adds; chance gives the share of
    noisy masks. Arguments and None: see `auroc`.
    """
    return float(sklearn_metrics.average_precision_score(noisy, -np.asarray(weights))) if both_kinds(noisy) else None


def precision_recall_f1(flags: np.ndarray, noisy: np.ndarray) -> dict[str, float | None]:
    """How well flags ("this annotation is wrong") match the truth.

    Args:
        flags, noisy: bool (N,).

    Returns:
        dict of `precision`, the share of the flagged that is noisy; `recall`, the share of the noisy that is flagged; `f1`,
        2 hits / (flagged + noisy). Each in 0..1, None where it is 0/0: precision without flags, recall without noisy
        annotations, F1 without either. So F1 is 0, not None, where there is noise and nothing is flagged.
    """
    values = sklearn_metrics.precision_recall_fscore_support(noisy, flags, average="binary", zero_division=np.nan)[:3]
    return {name: None if np.isnan(value) else float(value) for name, value in zip(("precision", "recall", "f1"), values)}


def spearman(weights: Sequence[float] | np.ndarray, true: Sequence[float] | np.ndarray) -> float | None:
    """Correlation of two rankings, float (N,) each, -1..1; None if either is the same for all."""
    alike = min(np.ptp(values) for values in (weights, true)) == 0  # all values equal: no order to compare
    return None if alike else float(scipy_stats.spearmanr(weights, true).statistic)


def spearman_interval(correlation: float | None, count: int, level: float = 0.95) -> tuple[float, float] | None:
    """The confidence interval of `spearman`, by Fisher's z with the standard error sqrt((1 + r^2 / 2) / (N - 3)).

    Source: D. Bonett, T. Wright, Sample size requirements for estimating Pearson, Kendall and Spearman correlations, 2000.

    Args:
        correlation: -1..1.
        count: N.

    Returns:
        (low, high); None where there is no correlation, or N is below 4.
    """
    if correlation is None or count < 4:
        return None
    if abs(correlation) == 1:
        return correlation, correlation
    reach = scipy_stats.norm.ppf((1 + level) / 2) * math.sqrt((1 + correlation**2 / 2) / (count - 3))
    centre = math.atanh(correlation)
    return math.tanh(centre - reach), math.tanh(centre + reach)


def summarise(rows: pd.DataFrame) -> tuple[dict, str]:
    """Distribution of the weights, per noise level where it is known, and how well they find the noisy masks.

    Args:
        rows: DataFrame with `weight` and, where it is known, `iterations`.

    Returns:
        (JSON-ready dict of `rows`, `levels`, and, with `iterations`, `auroc` and `auprc`; the same as text)
    """
    groups = rows.assign(level=rows["iterations"] if "iterations" in rows else "all").groupby("level")["weight"]
    table = groups.describe()[["count", "mean", "std", "min", "25%", "50%", "75%", "max"]]
    summary = {"rows": len(rows), "levels": {str(k): v for k, v in table.T.to_dict().items()}}
    text = table.to_string(float_format=lambda v: f"{v:.3f}", formatters={"count": "{:.0f}".format})
    if "iterations" in rows:
        noisy, weights = (rows["iterations"] > 0).to_numpy(), rows["weight"].to_numpy()
        summary.update(auroc=auroc(weights, noisy), auprc=auprc(weights, noisy))
        if summary["auroc"] is not None:
            text += (f"\nweights tell noisy masks from untouched ones: AUROC {summary['auroc']:.3f}, "
                     f"AUPRC {summary['auprc']:.3f}")
    return summary, text
