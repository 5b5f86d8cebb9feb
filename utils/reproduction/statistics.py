"""Means and 95 % intervals over seeds and over test utterances, single and paired."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, t

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean in percent points with the half widths of its 95 % intervals; None where there is none.

    Attributes:
        over_seeds: Student's t over the seeds' values: would other seeds say the same on these test utterances?
        over_both: that and the chance of the test utterances: would other utterances say the same, too? Of WA alone,
            which is a mean over utterances.
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


def interval(estimate: Estimate, sign: bool = False) -> str:
    """``+1.26 [-2.81, 5.33]``, over seeds and utterances."""
    return points(estimate.mean, sign) + bounds(estimate, estimate.over_both)


def bounds(estimate: Estimate, half: float | None) -> str:
    """``" [-2.81, 5.33]"``; nothing where there is no interval."""
    return "" if half is None else f" [{points(estimate.mean - half)}, {points(estimate.mean + half)}]"


def points(value: float, sign: bool = False) -> str:
    """Two digits, and no ``-0.00``."""
    value = round(value, 2) + 0.0
    return f"{value:+.2f}" if sign else f"{value:.2f}"


def half_width_over_seeds(values: np.ndarray) -> float | None:
    """Of the 95 % interval of the mean; None for fewer than two values."""
    if len(values) < 2:
        return None
    return float(t.ppf((1 + LEVEL) / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))


def half_width_over_utterances(scores: np.ndarray, group: int = 1) -> float:
    """What the utterances add to :func:`half_width_over_seeds`, as root of the sum of squares.

    Seeds and utterances are crossed: each utterance is scored by each seed. The variance of the utterances' means holds
    a share of what neither explains, which is in the variance of the seeds' means already; it is taken out here (the
    variance components of a two-way layout with random effects).

    Args:
        scores: [seeds, N].
        group: so many utterances in a row stand or fall together, and count as one.
    """
    of_group = scores.reshape(len(scores), -1, group).mean(2)
    seeds, groups = of_group.shape
    rest = of_group - of_group.mean(1, keepdims=True) - of_group.mean(0) + of_group.mean()
    unexplained = (rest**2).sum() / ((seeds - 1) * (groups - 1))
    variance = max(of_group.mean(0).var(ddof=1) - unexplained / seeds, 0.0)
    return float(norm.ppf((1 + LEVEL) / 2) * math.sqrt(variance / groups))


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
