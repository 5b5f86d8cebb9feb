"""Metrics of predictions, single and paired, with intervals over speakers."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from utils.statistics import Clustered, cluster_counts, clustered, clusters_of
from utils.training.metrics import metric_over_seeds
from utils.training.predictions import Predictions


@dataclass(frozen=True)
class Scored:
    """Predictions with their metrics, as means over the seeds."""

    predictions: Predictions

    @cached_property
    def clusters(self) -> tuple[str, np.ndarray]:
        """See :func:`~utils.statistics.clusters_of`."""
        return clusters_of(self.predictions.identity)

    @cached_property
    def counts(self) -> np.ndarray:
        """Confusion counts [clusters, seeds, C, C]."""
        return self._counts_of(self.predictions)

    def estimate(self, metric: str) -> Clustered:
        return clustered(self.counts, metric_over_seeds(metric))

    def minus(self, other: "Scored", metric: str) -> Clustered:
        """The difference to other predictions of the same utterances."""
        return clustered(self.paired(other), metric_over_seeds(metric), (-100, 100))

    def paired(self, other: "Scored") -> np.ndarray:
        """The counts of both in the clusters of this one, the other's first: [clusters, 2, seeds, C, C]."""
        both = self._counts_of(other.predictions), self.counts
        seeds = max(each.shape[1] for each in both)  # one without seeds is repeated for each seed
        return np.stack([np.repeat(each, seeds // each.shape[1], axis=1) for each in both], axis=1)

    def _counts_of(self, found: Predictions) -> np.ndarray:
        _, cluster = self.clusters
        return cluster_counts(found.label, found.prediction, cluster, len(found.class_names))
