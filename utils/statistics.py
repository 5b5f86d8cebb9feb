"""Means and 95 % intervals over seeds, and over clusters of test utterances, single and paired."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.stats import t

LEVEL = 0.95
POWER = 0.8
MOST_SWAPPED = 16  # with up to this many clusters, all swaps are tried
RANDOM_SWAPS, BLOCK = 100_000, 1000
FEWEST = 3  # seeds or clusters for an interval; with two, Student's t is 12.7


@dataclass(frozen=True)
class Estimate:
    """A mean in percentage points, with the half widths of its 95 % intervals; None if there is no interval.

    Attributes:
        std: sample standard deviation over the seeds.
        over_seeds: Student's t over the seeds, for the given test utterances.
        over_both: over seeds and clusters of test utterances.
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


def over_seeds(values: np.ndarray) -> Estimate:
    """The mean of a metric in percent, one value per seed, with its interval over the seeds."""
    half = None
    if len(values) >= FEWEST:
        half = float(t.ppf((1 + LEVEL) / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))
    std = float(values.std(ddof=1)) if len(values) > 1 else None
    return Estimate(float(values.mean()), std, half, None)


def estimate(counts: np.ndarray, statistic: Callable[[np.ndarray], float]) -> Estimate:
    """The mean of a statistic over seeds, with its intervals over seeds, and over seeds and clusters.

    Seeds and clusters are crossed: every seed scores every cluster. The jackknife gives a pseudo-value for each seed
    and cluster (Tukey, 1958). For the WA of clusters of one size, it is the WA of the cluster. The variance of the
    clusters' mean pseudo-values contains a share of the residual. It is subtracted, since the variance over the seeds
    already contains it (variance components of a two-way layout with random effects).

    Args:
        counts: [clusters, seeds, C, C], or [clusters, 2, seeds, C, C] for a difference.
        statistic: as for :func:`clustered`.
    """
    clusters, seeds = len(counts), counts.shape[-3]
    by_seed = [counts.take([seed], axis=-3) for seed in range(seeds)]
    values = np.array([100 * statistic(each.sum(0)) for each in by_seed])
    found = over_seeds(values)
    if found.over_seeds is None or clusters < FEWEST:
        return found
    without = np.stack([_leave_one_out(each, statistic) for each in by_seed])
    pseudo = clusters * values[:, None] - (clusters - 1) * without  # [seeds, clusters]
    residual = pseudo - pseudo.mean(1, keepdims=True) - pseudo.mean(0) + pseudo.mean()
    unexplained = (residual**2).sum() / ((seeds - 1) * (clusters - 1))
    variance = max(pseudo.mean(0).var(ddof=1) - unexplained / seeds, 0.0)
    half = float(t.ppf((1 + LEVEL) / 2, clusters - 1)) * math.sqrt(variance / clusters)
    return replace(found, over_both=math.hypot(found.over_seeds, half))


@dataclass(frozen=True)
class Clustered:
    """A metric in percent, or a difference in points, with its 95 % interval over clusters of utterances.

    Attributes:
        std_error, low, high: None for fewer than three clusters.
        clusters: the number of clusters.
    """

    value: float
    std_error: float | None
    low: float | None
    high: float | None
    clusters: int


def clusters_of(identity: Mapping[str, Sequence[str]]) -> tuple[str, np.ndarray]:
    """The kind of the clusters, and the cluster of each utterance as a code [N] from 0.

    Utterances of one speaker are similar, so an interval that treats them as independent is too narrow. The kind is
    ``speaker`` if every utterance has one and there are two or more. Otherwise, it is ``dialogue`` under the same
    condition. Otherwise, it is ``utterance``, and each utterance is a cluster.
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
    """A statistic of counts, with its interval from a jackknife that leaves out one cluster at a time.

    The jackknife works for any smooth statistic of the sums: WA, UA, F1 and their differences. With Student's t with
    (clusters - 1) degrees of freedom, it is also valid for few clusters.

    Args:
        counts: [clusters, ...].
        statistic: a function of ``counts.sum(0)`` that returns a fraction; also called without one cluster.
        limits: limits in percent at which the interval is cut off; (-100, 100) for differences.
    """
    total, clusters = counts.sum(0), len(counts)
    value = 100 * statistic(total)
    if clusters < FEWEST:
        return Clustered(value, None, None, None, clusters)
    without = _leave_one_out(counts, statistic)
    std_error = math.sqrt((clusters - 1) / clusters * ((without - without.mean()) ** 2).sum())
    half = t.ppf((1 + LEVEL) / 2, clusters - 1) * std_error
    low, high = (float(np.clip(bound, *limits)) for bound in (value - half, value + half))
    return Clustered(value, std_error, low, high, clusters)


def _leave_one_out(counts: np.ndarray, statistic: Callable[[np.ndarray], float]) -> np.ndarray:
    """The statistic in percent without each cluster, [clusters]."""
    total = counts.sum(0)
    # equal rows are computed once; if clusters are utterances, few rows differ
    rows, row_of = np.unique(counts.reshape(len(counts), -1), axis=0, return_inverse=True)
    return np.array([100 * statistic(total - row.reshape(total.shape)) for row in rows])[row_of.reshape(-1)]


def detectable(difference: Clustered) -> float | None:
    """The smallest true difference that such a test set shows with 80 % power at the 5 % level.

    None without an interval, or without any spread between the clusters.
    """
    if not difference.std_error:
        return None
    return float(t.ppf([(1 + LEVEL) / 2, POWER], difference.clusters - 1).sum() * difference.std_error)


@dataclass(frozen=True)
class Swaps:
    """A permutation test of a sum of differences by cluster.

    Attributes:
        p: share of the swaps with a sum at least as far from zero as the observed sum, which is one of them.
        smallest: the smallest p that is possible with this number of clusters.
        swaps: the number of swaps that were tried.
        exact: whether all swaps were tried, instead of random ones.
    """

    p: float
    smallest: float
    swaps: int
    exact: bool


def swap_test(differences: np.ndarray) -> Swaps:
    """Test whether two systems are equal. If so, each difference [clusters] could as well have the other sign.

    All signs are tried for up to 16 clusters, otherwise :data:`RANDOM_SWAPS` random ones with a fixed seed.
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
    """One row per estimate, with NaN instead of None."""
    return pd.DataFrame(map(vars, estimates.values()), index=list(estimates), dtype=float)


def interval(difference: Estimate | None) -> str:
    """A difference with its interval over seeds and clusters: ``+1.26 [-2.81, 5.33]``; empty for None."""
    if difference is None:
        return ""
    return points(difference.mean, sign=True) + bounds(difference, difference.over_both, -100)


def bounds(estimate: Estimate, half: float | None, least: float = 0) -> str:
    """``" [77.52, 82.48]"``, cut off at ``least`` and at 100; empty without an interval.

    Args:
        least: the smallest possible value: 0, or -100 for a difference.
    """
    if half is None:
        return ""
    return f" [{points(max(estimate.mean - half, least))}, {points(min(estimate.mean + half, 100))}]"


def with_interval(value: Clustered, sign: bool = False) -> str:
    """``61.52 [57.03, 66.01]``; the value alone if there is no interval."""
    bounds = "" if value.low is None else f" [{points(value.low, sign)}, {points(value.high, sign)}]"
    return points(value.value, sign) + bounds


def points(value: float, sign: bool = False) -> str:
    """Two digits, never ``-0.00``."""
    value = round(value, 2) + 0.0
    return f"{value:+.2f}" if sign else f"{value:.2f}"
