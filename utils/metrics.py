"""WA, UA, weighted and macro F1 in the field's definitions."""

import warnings
from collections.abc import Sequence

import numpy as np
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

METRICS = {"wa": "WA", "ua": "UA", "w_f1": "w-F1", "macro_f1": "macro-F1"}


def compute_metrics(y_true: Sequence[int], y_pred: Sequence[int], num_classes: int) -> dict:
    """All figures of one split, as fractions.

    Returns:
        ``wa``: accuracy over all utterances; ``ua``: mean of the per-class recalls, over the classes that occur;
        ``w_f1``, ``macro_f1``: F1 weighted by support, and unweighted; ``recall``: one a class, None where it does
        not occur; ``confusion``: counts [num_classes, num_classes], rows true.
    """
    confusion = confusion_matrix(y_true, y_pred, labels=range(num_classes))
    support = confusion.sum(1)
    recall = [float(hit / n) if n else None for hit, n in zip(confusion.diagonal(), support, strict=True)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning)  # a class without utterances or predictions counts 0
        w_f1, macro_f1 = (float(f1_score(y_true, y_pred, average=kind)) for kind in ("weighted", "macro"))
    return {
        "wa": float(accuracy_score(y_true, y_pred)),
        "ua": float(np.mean([r for r in recall if r is not None])),
        "w_f1": w_f1,
        "macro_f1": macro_f1,
        "recall": recall,
        "confusion": confusion.tolist(),
    }


def mean_and_std(per_seed: Sequence[dict]) -> tuple[dict, dict | None]:
    """Mean and sample standard deviation of each figure over seeds; no deviation from a single seed."""
    values = {name: [metrics[name] for metrics in per_seed] for name in METRICS}
    mean = {name: float(np.mean(v)) for name, v in values.items()}
    std = {name: float(np.std(v, ddof=1)) for name, v in values.items()} if len(per_seed) > 1 else None
    return mean, std
