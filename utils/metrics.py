"""WA, UA, weighted and macro F1 in the field's definitions."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

METRICS = {"wa": "WA", "ua": "UA", "w_f1": "w-F1", "macro_f1": "macro-F1"}
REPORTED = {name: METRICS[name] for name in ("wa", "ua", "w_f1")}  # those that the paper has


def compute_metrics(label: Tensor, prediction: Tensor, num_classes: int) -> dict:
    """All figures of one split, as fractions; equal to scikit-learn's, which takes milliseconds an epoch.

    Shapes: label [N] and prediction [N], on any device, in 0 .. num_classes - 1.

    Returns:
        ``wa``: accuracy over all utterances; ``ua``: mean of the per-class recalls, over the classes that occur;
        ``w_f1``, ``macro_f1``: F1 weighted by support, and unweighted over the classes that occur or are predicted;
        ``recall``: one a class, None where it does not occur; ``confusion``: counts [num_classes, num_classes], rows
        true.
    """
    pairs = torch.bincount(label * num_classes + prediction, minlength=num_classes**2)
    confusion = pairs.view(num_classes, num_classes).cpu().numpy()
    hits, support, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    occurs, known = support > 0, support + predicted > 0
    recall = hits[occurs] / support[occurs]
    f1 = np.zeros(num_classes)
    f1[known] = 2 * hits[known] / (support + predicted)[known]
    return {
        "wa": float(hits.sum() / support.sum()),
        "ua": float(recall.mean()),
        "w_f1": float(np.average(f1, weights=support)),
        "macro_f1": float(f1[known].mean()),
        "recall": [float(hits[i] / support[i]) if occurs[i] else None for i in range(num_classes)],
        "confusion": confusion.tolist(),
    }


def mean_and_std(per_seed: Sequence[dict]) -> tuple[dict, dict | None]:
    """Mean and sample standard deviation of each figure over seeds; no deviation from a single seed."""
    values = {name: [metrics[name] for metrics in per_seed] for name in METRICS}
    mean = {name: float(np.mean(v)) for name, v in values.items()}
    std = {name: float(np.std(v, ddof=1)) for name, v in values.items()} if len(per_seed) > 1 else None
    return mean, std
