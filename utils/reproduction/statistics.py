"""Means and 95 % intervals over seeds and over test utterances, single and paired."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm, t

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean in percentage points, with the half widths of its 95 % intervals; None where there is none.

    Attributes:
        std: sample standard deviation over the seeds.
        over_seeds: Student's t over the seeds, for the given test utterances.
        over_both: over seeds and test utterances. Only of WA, which is a mean over utterances.
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


def estimate(values: np.ndarray, scores: np.ndarray | None = None, group: int = 1) -> Estimate:
    """The mean of a metric with its intervals.

    Args:
        values: in percent, one per seed.
        scores: in percent, [seeds, N]: what each utterance contributes to the mean in each seed. None for metrics that
            are no mean over utterances (UA, F1); ``over_both`` is then None.
        group: as in :func:`half_width_over_utterances`.
    """
    over_seeds = half_width_over_seeds(values)
    over_both = None
    if over_seeds is not None and scores is not None:
        over_both = math.hypot(over_seeds, half_width_over_utterances(scores, group))
    std = float(values.std(ddof=1)) if len(values) > 1 else None
    return Estimate(float(values.mean()), std, over_seeds, over_both)


def half_width_over_seeds(values: np.ndarray) -> float | None:
    """Half width of the 95 % interval of the mean; None for fewer than two values."""
    if len(values) < 2:
        return None
    return float(t.ppf((1 + LEVEL) / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))


def half_width_over_utterances(scores: np.ndarray, group: int = 1) -> float:
    """What the utterances add to :func:`half_width_over_seeds`, as the root of the sum of squares.

    Seeds and utterances are crossed: every seed scores every utterance. The variance of the utterances' means contains
    a share of the residual, which the variance of the seeds' means contains already; it is subtracted (variance
    components of a two-way layout with random effects).

    Args:
        scores: [seeds, N].
        group: number of consecutive utterances that are dependent and count as one.
    """
    by_group = scores.reshape(len(scores), -1, group).mean(2)
    seeds, groups = by_group.shape
    residual = by_group - by_group.mean(1, keepdims=True) - by_group.mean(0) + by_group.mean()
    unexplained = (residual**2).sum() / ((seeds - 1) * (groups - 1))
    variance = max(by_group.mean(0).var(ddof=1) - unexplained / seeds, 0.0)
    return float(norm.ppf((1 + LEVEL) / 2) * math.sqrt(variance / groups))


def table_of(estimates: dict[str | float, Estimate]) -> pd.DataFrame:
    """One row per estimate; NaN in place of None."""
    return pd.DataFrame(map(vars, estimates.values()), index=list(estimates), dtype=float)


def interval(difference: Estimate | None) -> str:
    """A difference with its interval over seeds and utterances: ``+1.26 [-2.81, 5.33]``; empty for None."""
    return "" if difference is None else points(difference.mean, sign=True) + bounds(difference, difference.over_both)


def bounds(estimate: Estimate, half: float | None) -> str:
    """``" [-2.81, 5.33]"``; empty without an interval."""
    return "" if half is None else f" [{points(estimate.mean - half)}, {points(estimate.mean + half)}]"


def points(value: float, sign: bool = False) -> str:
    """Two digits, never ``-0.00``."""
    value = round(value, 2) + 0.0
    return f"{value:+.2f}" if sign else f"{value:.2f}"
