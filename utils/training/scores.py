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
    def counts(self) -> np.ndarray:
        """Confusion counts [clusters, seeds, C, C]."""
        found = self.predictions
        _, cluster = clusters_of(found.identity)
        return cluster_counts(found.label, found.prediction, cluster, len(found.class_names))

    def estimate(self, metric: str) -> Clustered:
        return clustered(self.counts, metric_over_seeds(metric))

    def minus(self, other: "Scored", metric: str) -> Clustered:
        """The difference to other predictions of the same utterances."""
        seeds = max(self.counts.shape[1], other.counts.shape[1])  # one without seeds is repeated for each seed
        both = [np.repeat(each.counts, seeds // each.counts.shape[1], axis=1) for each in (other, self)]
        return clustered(np.stack(both, axis=1), metric_over_seeds(metric), (-100, 100))
