"""The modified Otsu split of scores, and the four groups of trust that it makes. Legend: N scores in 0..1, high = trusted."""

from dataclasses import dataclass

import numpy as np

from cli.files import UserError

BINS = 1000
CUTS = np.arange(2, 998)  # bins below the cut
LEAST_VARIANCE = 1e-5


@dataclass(frozen=True)
class Split:
    """Where the scores part: means of the low and of the high ones, and the cut between them, in 0..1; and its quality Q."""

    low: float
    cut: float
    high: float
    quality: float


def split(scores: np.ndarray) -> Split | None:
    """The cut that parts the scores best.

    A histogram has 1,000 bins on 0..1; a bin stands for its left edge. Each cut has counts n1, n2, means mu1, mu2 and
    deviations s1, s2 of the scores below and above it (variance at least 1e-5). With mu, the mean of the raw scores, the best
    one, of equals the first, maximises

        Q = [n1 (mu1 - mu)^2 + n2 (mu2 - mu)^2] / (n1 s1 + n2 s2)

    where Otsu's own criterion has no denominator.

    Args:
        scores: float (N,).

    Returns:
        None if no cut has scores on both sides: they are all alike.

    Raises:
        UserError: a score is not a number in 0..1.
    """
    scores = np.asarray(scores, dtype=float)
    if not ((scores >= 0) & (scores <= 1)).all():  # NaN too
        raise UserError("a score of agreement is not a number: the networks' outputs are not finite; lower --lr")
    counts, edges = np.histogram(scores, BINS, (0, 1))
    powers = [np.cumsum(counts * edges[:-1]**power) for power in range(3)]  # (BINS,) each: of the scores up to a bin
    below = np.stack([each[CUTS - 1] for each in powers])  # (3, cuts): count, sum, sum of squares
    above = np.stack([each[-1] for each in powers])[:, None] - below
    possible = (below[0] > 0) & (above[0] > 0)
    if not possible.any():
        return None
    mean, between, within = scores.mean(), 0.0, 0.0
    for count, total, squares in (below, above):
        count = np.maximum(count, 1)  # of an impossible cut
        deviation = np.sqrt(np.maximum(squares / count - (total / count)**2, LEAST_VARIANCE))
        between, within = between + count * (total / count - mean)**2, within + count * deviation
    quality = np.where(possible, between / within, -np.inf)
    best = int(quality.argmax())
    return Split(low=below[1, best] / below[0, best], cut=float(CUTS[best]) / BINS, high=above[1, best] / above[0, best],
                 quality=float(quality[best]))


def group(scores: np.ndarray, by: Split | None) -> np.ndarray:
    """The group of each score, int64 (N,), 1..4: G1 from `high` on, G2 from the cut, G3 from `low`, G4 below.

    Args:
        by: of `split`; None: all are in G1, since nothing tells them apart.
    """
    if by is None:
        return np.ones(len(scores), dtype=np.int64)
    return 4 - np.searchsorted([by.low, by.cut, by.high], np.asarray(scores, dtype=float), side="right")
