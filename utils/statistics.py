"""Means and 95 % intervals over seeds, over test utterances, and over clusters of them, single and paired."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm, t

LEVEL = 0.95
POWER = 0.8
MOST_SWAPPED = 16  # clusters up to which all swaps are tried, 2^16
RANDOM_SWAPS, BLOCK = 100_000, 1000
FEWEST = 3  # seeds or clusters with an interval; Student's t from two is a factor of 12.7


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
    """Half width of the 95 % interval of the mean; None for fewer than three values."""
    if len(values) < FEWEST:
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


@dataclass(frozen=True)
class Clustered:
    """A metric in percent, or a difference in points, with its 95 % interval over clusters of utterances.

    Attributes:
        std_error, low, high: None for fewer than three clusters.
        clusters: how many.
    """

    value: float
    std_error: float | None
    low: float | None
    high: float | None
    clusters: int


def clusters_of(identity: Mapping[str, Sequence[str]]) -> tuple[str, np.ndarray]:
    """What the utterances are clustered by, and the cluster of each as a code [N] from 0.

    Utterances of one speaker are alike, so an interval that takes them for independent is too narrow. The clusters are
    ``speaker`` where every utterance names one and there are two or more, else ``dialogue`` likewise, else each
    ``utterance`` is one.
    """
    for kind in ("speaker", "dialogue"):
        names, codes = np.unique(identity[kind], return_inverse=True)
        if all(names) and len(names) > 1:
            return kind, codes
    return "utterance", np.arange(len(identity["speaker"]))


def cluster_counts(label: np.ndarray, prediction: np.ndarray, cluster: np.ndarray, num_classes: int) -> np.ndarray:
    """Confusion counts [clusters, seeds, C, C] in int64; rows are true classes.

    Shapes: label [N] and prediction [seeds, N] in 0 .. C - 1, cluster [N] in 0 .. clusters - 1.
    """
    shape = int(cluster.max()) + 1, len(prediction), num_classes, num_classes
    seed = np.arange(len(prediction))[:, None]
    cells = np.ravel_multi_index(np.broadcast_arrays(cluster, seed, label, prediction), shape)
    return np.bincount(cells.ravel(), minlength=math.prod(shape)).reshape(shape)


def clustered(
    counts: np.ndarray, statistic: Callable[[np.ndarray], float], limits: tuple[float, float] = (0, 100)
) -> Clustered:
    """A statistic of counts with its interval by the jackknife that leaves out one cluster at a time.

    The jackknife serves any smooth statistic of the sums, so WA, UA, F1 and their differences alike, and with Student's
    t of one degree of freedom less than there are clusters it holds with few of them.

    Args:
        counts: [clusters, ...].
        statistic: of ``counts.sum(0)``, as a fraction; also of the counts without any one cluster.
        limits: in percent, where the interval is cut off; (-100, 100) for differences.
    """
    total, clusters = counts.sum(0), len(counts)
    value = 100 * statistic(total)
    if clusters < FEWEST:
        return Clustered(value, None, None, None, clusters)
    rows, times = np.unique(counts.reshape(clusters, -1), axis=0, return_counts=True)  # single utterances: few kinds
    without = np.array([100 * statistic(total - row.reshape(total.shape)) for row in rows])
    mean = (times * without).sum() / clusters
    std_error = math.sqrt((clusters - 1) / clusters * (times * (without - mean) ** 2).sum())
    half = t.ppf((1 + LEVEL) / 2, clusters - 1) * std_error
    low, high = (float(np.clip(bound, *limits)) for bound in (value - half, value + half))
    return Clustered(value, std_error, low, high, clusters)


def detectable(difference: Clustered) -> float | None:
    """The smallest true difference that such a test set shows four times of five: power 80 % at the 5 % level.

    None without an interval, or without any spread to judge by.
    """
    if not difference.std_error:
        return None
    return float(t.ppf([(1 + LEVEL) / 2, POWER], difference.clusters - 1).sum() * difference.std_error)


@dataclass(frozen=True)
class Swaps:
    """A permutation test of a sum of differences by cluster.

    Attributes:
        p: share of the swaps with a sum at least as far from zero as the observed one, which is one of them.
        smallest: the least p that so many clusters can give.
        swaps: how many were tried: all, or random ones.
        exact: whether these are all.
    """

    p: float
    smallest: float
    swaps: int
    exact: bool


def swap_test(differences: np.ndarray) -> Swaps:
    """Test whether two systems are alike: if they are, each difference [clusters] may as well have the other sign.

    All signs are tried for up to 16 clusters, else :data:`RANDOM_SWAPS` with a fixed seed.
    """
    size, times = np.unique(np.abs(differences), return_counts=True)
    clusters, least = len(differences), abs(differences.sum()) - 1e-9 * np.abs(differences).sum()  # rounding
    if clusters <= MOST_SWAPPED:
        signs = 1 - 2 * (np.arange(2**clusters)[:, None] >> np.arange(clusters) & 1)
        return Swaps(float((np.abs(signs @ differences) >= least).mean()), 2.0 ** (1 - clusters), len(signs), True)
    rng, beyond = np.random.default_rng(0), 1
    for _ in range(RANDOM_SWAPS // BLOCK):
        positive = rng.binomial(times, 0.5, (BLOCK, len(size)))  # of the clusters with a difference of this size
        beyond += int((np.abs((2 * positive - times) @ size) >= least).sum())
    smallest = max(2.0 ** (1 - clusters), 1 / (RANDOM_SWAPS + 1))
    return Swaps(beyond / (RANDOM_SWAPS + 1), smallest, RANDOM_SWAPS, False)


def table_of(estimates: dict[str | float, Estimate]) -> pd.DataFrame:
    """One row per estimate; NaN in place of None."""
    return pd.DataFrame(map(vars, estimates.values()), index=list(estimates), dtype=float)


def interval(difference: Estimate | None) -> str:
    """A difference with its interval over seeds and utterances: ``+1.26 [-2.81, 5.33]``; empty for None."""
    if difference is None:
        return ""
    return points(difference.mean, sign=True) + bounds(difference, difference.over_both, -100)


def bounds(estimate: Estimate, half: float | None, least: float = 0) -> str:
    """``" [77.52, 82.48]"``, cut off at ``least`` and at 100; empty without an interval.

    Args:
        least: what the metric can be at least: 0, or -100 for a difference.
    """
    if half is None:
        return ""
    return f" [{points(max(estimate.mean - half, least))}, {points(min(estimate.mean + half, 100))}]"


def with_interval(value: Clustered, sign: bool = False) -> str:
    """``61.52 [57.03, 66.01]``; the value alone where there is no interval."""
    bounds = "" if value.low is None else f" [{points(value.low, sign)}, {points(value.high, sign)}]"
    return points(value.value, sign) + bounds


def points(value: float, sign: bool = False) -> str:
    """Two digits, never ``-0.00``."""
    value = round(value, 2) + 0.0
    return f"{value:+.2f}" if sign else f"{value:.2f}"
