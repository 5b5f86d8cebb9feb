"""Means and 95 % intervals over seeds and over test utterances, single and paired."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, t

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean in percent points with the half widths of its 95 % intervals; None where one seed gives none.

    Attributes:
        over_seeds: Student's t over the seeds' values: would other seeds say the same on these test utterances?
        over_both: that and the chance of the test utterances, as the root of the sum of squares: would other
            utterances say the same? Verdicts are made with it.
    """

    mean: float
    std: float | None
    over_seeds: float | None
    over_both: float | None

    @property
    def low(self) -> float:
        return self.mean - self.over_both

    @property
    def high(self) -> float:
        return self.mean + self.over_both


def half_width_over_seeds(values: np.ndarray) -> float | None:
    """Of the 95 % interval of the mean; None for fewer than two values."""
    if len(values) < 2:
        return None
    return float(t.ppf((1 + LEVEL) / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))


def half_width_over_utterances(scores: np.ndarray, group: int = 1) -> float:
    """Of the 95 % interval of the mean score, from the scores of the utterances.

    Args:
        scores: [seeds, N].
        group: so many utterances in a row stand or fall together, and count as one.
    """
    of_group = scores.mean(0).reshape(-1, group).mean(1)
    return float(norm.ppf((1 + LEVEL) / 2) * of_group.std(ddof=1) / math.sqrt(len(of_group)))


def estimate(values: np.ndarray, scores: np.ndarray | None = None, group: int = 1) -> Estimate:
    """The mean of a figure.

    Args:
        values: one a seed, in percent.
        scores: what each utterance adds to the mean in each seed, in percent, [seeds, N]; None where it is no mean over
            utterances (UA, F1), which leaves ``over_both`` out.
        group: as in :func:`half_width_over_utterances`.
    """
    over_seeds = half_width_over_seeds(values)
    over_both = None
    if over_seeds is not None and scores is not None:
        over_both = math.hypot(over_seeds, half_width_over_utterances(scores, group))
    std = float(values.std(ddof=1)) if len(values) > 1 else None
    return Estimate(float(values.mean()), std, over_seeds, over_both)
