"""WA, UA, weighted and macro F1 as the field defines them, the paper's values, and the tables that show both."""

from collections.abc import Callable, Sequence
from math import isnan

import numpy as np
import torch
from torch import Tensor

from utils.config import Config
from utils.io import align

METRICS = {"wa": "WA", "ua": "UA", "w_f1": "w-F1", "macro_f1": "macro-F1"}
REPORTED = {name: METRICS[name] for name in ("wa", "ua", "w_f1")}  # the metrics in the paper

# dataset -> (fusion_type, ablation) -> WA, UA, w-F1 in percent, as printed (Tables I and II)
PRINTED = {
    "IEMOCAP": {
        ("min", "none"): (82.17, 81.85, 81.85),
        ("cls", "none"): (79.55, 78.91, 78.89),
        ("max", "none"): (80.46, 80.11, 80.08),
        ("mean", "none"): (79.50, 79.17, 79.19),
        ("min", "no_xcbam"): (62.49, 62.32, 60.07),
        ("min", "no_chgat"): (79.88, 79.67, 79.65),
    },
    "ESD": {
        ("min", "none"): (95.09, 95.09, 95.09),
        ("cls", "none"): (94.19, 94.19, 94.20),
        ("max", "none"): (94.50, 94.50, 94.52),
        ("mean", "none"): (94.48, 94.48, 94.50),
        ("min", "no_xcbam"): (60.27, 60.27, 60.17),
        ("min", "no_chgat"): (94.86, 94.86, 94.87),
    },
}
SWAPPED = (
    "The paper's WA and UA of IEMOCAP are most likely swapped. Every printed UA is a multiple of 1/2755\n"
    "(5 seeds x 551 test utterances), as plain accuracy must be, and the code computes WA as balanced accuracy.\n"
    "Here, WA is the accuracy over all utterances and UA the mean of the per-class recalls."
)


def confusion(label: Tensor, prediction: Tensor, num_classes: int) -> Tensor:
    """Counts [C, C] in int64, on the device of the labels; rows are true classes.

    Shapes: label [N] and prediction [N], in 0 .. C - 1.
    """
    cells = label * num_classes + prediction
    counts = torch.zeros(num_classes**2, dtype=torch.long, device=label.device)
    return counts.scatter_add_(0, cells, torch.ones_like(cells)).view(num_classes, num_classes)


def metrics_of(confusion: np.ndarray) -> dict:
    """All metrics of one split, as fractions, from its confusion matrix [C, C].

    The values equal scikit-learn's. They take a fiftieth of the time (``benchmarks/speed.py``), since every epoch needs
    them.

    Returns:
        ``wa``: accuracy over all utterances; ``ua``: mean of the per-class recalls, over the classes that occur;
        ``w_f1``, ``macro_f1``: F1 weighted by support, and unweighted over the classes that occur or are predicted;
        ``recall``: one per class, None if it does not occur; ``confusion``: the matrix as lists.
    """
    hits, support, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    occurs, known = support > 0, support + predicted > 0
    recall = hits[occurs] / support[occurs]
    f1 = np.zeros(len(confusion))
    f1[known] = 2 * hits[known] / (support + predicted)[known]
    return {
        "wa": float(hits.sum() / support.sum()),
        "ua": float(recall.mean()),
        "w_f1": float(np.average(f1, weights=support)),
        "macro_f1": float(f1[known].mean()),
        "recall": [float(hit / count) if count else None for hit, count in zip(hits, support, strict=True)],
        "confusion": confusion.tolist(),
    }


def compute_metrics(label: Tensor, prediction: Tensor, num_classes: int) -> dict:
    """:func:`metrics_of` labels [N] and predicted classes [N]."""
    return metrics_of(confusion(label, prediction, num_classes).cpu().numpy())


def metric_over_seeds(name: str) -> Callable[[np.ndarray], float]:
    """A function from counts [seeds, C, C] to the mean of a metric over the seeds.

    For counts [2, seeds, C, C], it returns the second mean minus the first.
    """

    def statistic(counts: np.ndarray) -> float:
        if counts.ndim == 4:
            return statistic(counts[1]) - statistic(counts[0])
        return float(np.mean([metrics_of(of_seed)[name] for of_seed in counts]))

    return statistic


def mean_and_std(per_seed: Sequence[dict]) -> tuple[dict, dict | None]:
    """Mean and sample standard deviation of each metric over seeds; no deviation for a single seed."""
    values = {name: [metrics[name] for metrics in per_seed] for name in METRICS}
    mean = {name: float(np.mean(v)) for name, v in values.items()}
    std = {name: float(np.std(v, ddof=1)) for name, v in values.items()} if len(per_seed) > 1 else None
    return mean, std


def plus_minus(mean: float, std: float | None, digits: int = 2) -> str:
    """``82.17 ± 0.93``; the mean alone for a single seed, which has no deviation (None or NaN)."""
    return f"{mean:.{digits}f}" if std is None or isnan(std) else f"{mean:.{digits}f} ± {std:.{digits}f}"


def printed(config: Config) -> dict[str, float] | None:
    """The paper's values for a configuration, in percent by metric; None if it has none."""
    values = PRINTED.get(config.dataset, {}).get((config.model.fusion_type, config.model.ablation))
    return dict(zip(REPORTED, values, strict=True)) if values else None


def results_table(config: Config, split: str, per_seed: dict[str, dict], title: str) -> str:
    """Metrics in percent: one row per seed, then mean ± sample std and, for test, the paper's; then notes."""
    rows = [("", *METRICS.values())]
    rows += [(row, *(f"{100 * metrics[name]:.2f}" for name in METRICS)) for row, metrics in per_seed.items()]
    mean, std = mean_and_std(list(per_seed.values()))
    if std:
        rows.append(("mean ± std", *(plus_minus(100 * mean[name], 100 * std[name]) for name in METRICS)))
    paper = printed(config) if split == "test" else None
    if paper:
        rows.append(("paper, as printed", *(f"{paper[name]:.2f}" if name in paper else "–" for name in METRICS)))
    notes = [SWAPPED] if paper and config.dataset == "IEMOCAP" else []
    if config.dataset == "DEMO":
        from utils.data.demo import demo_note  # only DEMO needs the simulation

        notes.append(demo_note())
    return "\n".join([title, *align(rows), *notes])


def recall_table(class_names: Sequence[str], per_seed: dict[str, dict]) -> str:
    """Per-class recall in percent, one row per seed; – for a class that does not occur in the split."""
    rows = [("recall", *class_names)]
    for row, metrics in per_seed.items():
        rows.append((row, *("–" if r is None else f"{100 * r:.2f}" for r in metrics["recall"])))
    return "\n".join(align(rows))
