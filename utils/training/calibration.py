"""Probabilities from logits: a temperature fitted on validation (Guo et al., 2017), and their calibration."""

import numpy as np
import torch
from torch import Tensor

from utils.io import align
from utils.training.metrics import plus_minus

BINS = 15  # number of confidence bins
_RANGE = (0.05, 20.0)  # of a temperature; the ends mean that validation is all correct, or no better than chance
_HALVINGS = 50


def probabilities(logits: Tensor, temperature: float = 1.0) -> np.ndarray:
    """Softmax of ``logits / temperature`` in float64, on the CPU. Shapes: logits and result [..., C]."""
    return (logits.detach().cpu().double() / temperature).softmax(-1).numpy()


def fit_temperature(logits: Tensor, label: Tensor) -> float:
    """Return the temperature that minimises the cross entropy of ``logits / temperature``.

    The cross entropy is convex in the inverse temperature, so bisection finds the root of its derivative.

    Shapes: logits [N, C], label [N].
    """
    logits, label = logits.detach().cpu().double(), label.cpu()
    of_label = logits.gather(1, label[:, None]).mean()

    def falls(temperature: float) -> bool:
        """Whether the cross entropy decreases as the inverse temperature grows."""
        return bool((torch.softmax(logits / temperature, 1) * logits).sum(1).mean() < of_label)

    low, high = _RANGE
    for _ in range(_HALVINGS):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if falls(middle) else (middle, high)
    return round((low * high) ** 0.5, 6)


# ---- calibration of probabilities [S, N, C] of S seeds for labels [N] ------------------------------------------------


def reliability(probability: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Count utterances, confidence and correct predictions in each of :data:`BINS` equal-width confidence bins.

    The confidence of an utterance is its highest probability. A bin includes its upper end (Guo et al., 2017).

    Returns:
        The number of utterances, the sum of their confidences, and the number of correct predictions, [3, S, BINS].
    """
    confidence, correct = probability.max(-1), probability.argmax(-1) == label
    place = np.maximum(np.ceil(confidence * BINS).astype(int) - 1, 0).clip(max=BINS - 1)
    inside = place[..., None] == np.arange(BINS)
    return np.stack([(inside * each[..., None]).sum(-2) for each in (np.ones_like(confidence), confidence, correct)])


def expected_calibration_error(probability: np.ndarray, label: np.ndarray) -> np.ndarray:
    """ECE [S]: the mean of ``|accuracy - confidence|`` over the bins, weighted by their utterances (Guo et al., 2017).

    Only the top label counts. On a finite sample, even calibrated probabilities have an ECE above 0.
    """
    _, confidence, correct = reliability(probability, label)
    return np.abs(correct - confidence).sum(-1) / len(label)


def brier_score(probability: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Brier score [S], 0 to 2: squared errors, summed over the classes, averaged over the utterances (Brier, 1950)."""
    of_label = probability[:, np.arange(len(label)), label]
    return (np.square(probability).sum(-1) - 2 * of_label + 1).mean(-1)


def cross_entropy(probability: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Cross entropy in nats [S]. A probability that float64 rounds to 0 counts as the smallest normal number."""
    of_label = probability[:, np.arange(len(label)), label]
    return -np.log(np.maximum(of_label, np.finfo(float).tiny)).mean(-1)


def risk_coverage(probability: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Error rates [S, N] of the 1, 2, ... N utterances with the highest confidence.

    Utterances with equal confidence share their mean error, so their order does not matter. The mean of a row is the
    area under its curve (Geifman and El-Yaniv, 2017).
    """
    wrong = (probability.argmax(-1) != label).astype(float)
    for errors, confidence in zip(wrong, probability.max(-1), strict=True):
        _, place, size = np.unique(-confidence, return_inverse=True, return_counts=True)
        errors[:] = np.repeat(np.bincount(place, errors) / size, size)
    return wrong.cumsum(-1) / np.arange(1, len(label) + 1)


SCORES = {
    "ece": expected_calibration_error,
    "brier": brier_score,
    "cross_entropy": cross_entropy,
    "risk_coverage_area": lambda probability, label: risk_coverage(probability, label).mean(-1),
}


def calibration_results(
    temperatures: dict[str, float], plain: np.ndarray, scaled: np.ndarray, label: np.ndarray
) -> dict[str, dict]:
    """By seed: ``temperature``, and the :data:`SCORES` of the ``plain`` and ``scaled`` probabilities [S, N, C]."""
    found = {
        kind: {name: score(probability, label).tolist() for name, score in SCORES.items()}
        for kind, probability in (("plain", plain), ("scaled", scaled))
    }
    return {
        name: {"temperature": temperature}
        | {kind: {score: values[i] for score, values in scores.items()} for kind, scores in found.items()}
        for i, (name, temperature) in enumerate(temperatures.items())
    }


def calibration_table(results: dict[str, dict], fitted_here: bool) -> str:
    """A table with one row per seed, then mean ± sample std.

    Args:
        results: the result of :func:`calibration_results`.
        fitted_here: whether the temperatures were fitted on these utterances.
    """
    shown = [("ece", 100, 2, "ECE (%)"), ("brier", 1, 3, "Brier"), ("cross_entropy", 1, 3, "nats")]
    header = ["calibration", "T", *(f"{name}{at}" for *_, name in shown for at in (", plain", ""))]
    kinds = ("plain", "scaled")
    values = [
        [each["temperature"], *(scale * each[kind][score] for score, scale, *_ in shown for kind in kinds)]
        for each in results.values()
    ]
    digits = [3, *(digits for _, _, digits, _ in shown for _ in range(2))]
    rows = [
        [name, *(plus_minus(value, None, n) for value, n in zip(row, digits, strict=True))]
        for name, row in zip(results, values, strict=True)
    ]
    if len(rows) > 1:
        of_all = zip(np.mean(values, 0), np.std(values, 0, ddof=1), digits, strict=True)
        rows.append(["mean ± std", *(plus_minus(*each) for each in of_all)])
    notes = [
        f"ECE: expected calibration error, {BINS} confidence bins; Brier: score from 0 to 2; nats: cross entropy.",
        "Plain: softmax of the logits; otherwise: of the logits divided by T, as in predict.py and the CSV files.",
    ]
    if all(each["temperature"] == 1 for each in results.values()):
        notes[1] = "No temperature was fitted, so T is 1."
    elif fitted_here:
        notes.append("T was fitted on these utterances; on others, the probabilities are less well calibrated.")
    return "\n".join([*align([header, *rows]), *notes])
