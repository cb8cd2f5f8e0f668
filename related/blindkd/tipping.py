"""The tipping point: the epoch from which on the networks learn wrong labels by heart, seen as a peak of their confidence.

Legend: s_e = mean over the samples of epoch e of the student's highest probability while training; epochs count from 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass

RECORDED = 6  # values that there must be
BESIDE = 2  # values on each side that must be lower


@dataclass(frozen=True)
class TipRule:
    """When an epoch is the tipping point.

    Args:
        smooth: length of the moving mean centred at e (odd, epochs), shorter in the first epochs; 1 = none.
        min_epoch: the first `min_epoch` epochs cannot be the tipping point.
    """

    smooth: int = 1
    min_epoch: int = 0

    @property
    def kept(self) -> int:
        """Number of epochs whose scores are kept.

        A peak at epoch e is confirmed after e + 2 (e = 2: after 5, since 6 epochs are needed), and smoothing adds smooth // 2
        epochs.
        """
        return BESIDE + 2 + self.smooth // 2

    def find(self, confidence: Sequence[float]) -> int | None:
        """The tipping point, None if there is none yet.

        From 6 recorded epochs on: the first e >= 2 with s_e strictly above s_{e-2}, s_{e-1}, s_{e+1} and s_{e+2}.

        Args:
            confidence: s_e of each finished epoch.
        """
        values = self.smoothed(confidence)
        if len(values) < RECORDED:
            return None
        for epoch in range(max(BESIDE, self.min_epoch), len(values) - BESIDE):
            beside = values[epoch - BESIDE:epoch] + values[epoch + 1:epoch + BESIDE + 1]
            if values[epoch] > max(beside):
                return epoch
        return None

    def smoothed(self, confidence: Sequence[float]) -> list[float]:
        """Moving mean of s_e, for each epoch that has smooth // 2 later ones."""
        reach = self.smooth // 2
        windows = [list(confidence[max(0, epoch - reach):epoch + reach + 1]) for epoch in range(len(confidence) - reach)]
        return [sum(window) / len(window) for window in windows]
