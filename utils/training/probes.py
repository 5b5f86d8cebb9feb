"""Probes: simple scikit-learn classifiers on the same embeddings, as baselines for the network."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from utils.data.features import Features
from utils.io import read_json, write_json
from utils.training.folder import PREDICTIONS
from utils.training.graph import TrainingData
from utils.training.metrics import compute_metrics
from utils.training.predictions import write_predictions

PROBE_FILE = "probe.json"  # written last
MODALITIES = {"text": ("text",), "audio": ("audio",), "text + audio": ("text", "audio")}
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # inverse strengths C of the L2 penalty, on standardised embeddings
HIDDEN = 128  # units of the MLP's hidden layer
MOST_EPOCHS = 60  # epochs of the MLP; validation selects one

Splits = dict[str, Features]
Probabilities = dict[str, np.ndarray]  # [N, C] of val and test


@dataclass(frozen=True)
class Probe:
    """A classifier that is fitted on train, with one setting chosen by the cross entropy on val.

    Attributes:
        name: part of the folder name.
        fit: takes the splits, the number of classes and a seed.
        seeded: whether the result depends on the seed.
    """

    name: str
    title: str
    fit: Callable[[Splits, int, int], tuple[Probabilities, str]]
    seeded: bool = False

    def seeds(self, seeds: Sequence[int]) -> Sequence[int]:
        """``seeds``, or only 0 if the result does not depend on the seed."""
        return seeds if self.seeded else (0,)


def logistic_regression(modalities: Sequence[str], splits: Splits, classes: int) -> tuple[Probabilities, str]:
    """Fit a logistic regression on standardised embeddings, with the L2 penalty chosen on validation.

    Args:
        modalities: ``text``, ``audio`` or both.

    Returns:
        The probabilities of val and test, and the choice in words.
    """
    from sklearn.linear_model import LogisticRegression  # takes a second to import

    scaled, label = _standardized(splits, modalities), splits["train"].label.numpy()
    model = LogisticRegression(max_iter=1000, warm_start=True)
    fits = ((f"C = {penalty:g}", model.set_params(C=penalty).fit(scaled["train"], label)) for penalty in PENALTIES)
    return _best_on_validation(fits, scaled, splits, classes)


def mlp(splits: Splits, classes: int, seed: int) -> tuple[Probabilities, str]:
    """Fit a two-layer perceptron on both standardised embeddings, with the epoch selected on validation.

    Returns the same as :func:`logistic_regression`.
    """
    from sklearn.neural_network import MLPClassifier  # takes a second to import

    scaled, label = _standardized(splits, MODALITIES["text + audio"]), splits["train"].label.numpy()
    model = MLPClassifier((HIDDEN,), alpha=1e-2, random_state=seed)
    fits = (
        (f"epoch {epoch}", model.partial_fit(scaled["train"], label, classes=np.unique(label)))
        for epoch in range(1, MOST_EPOCHS + 1)
    )
    return _best_on_validation(fits, scaled, splits, classes)


def _best_on_validation(
    fits: Iterable[tuple[str, object]], scaled: dict[str, np.ndarray], splits: Splits, classes: int
) -> tuple[Probabilities, str]:
    """The first model with the smallest cross entropy on val. Each model may be the previous one, trained further."""
    best = None
    for choice, model in fits:
        found = {split: _every_class(model, scaled[split], classes) for split in ("val", "test")}
        loss = _cross_entropy(found["val"], splits["val"])
        if best is None or loss < best[0]:
            best = loss, found, choice
    return best[1], best[2]


def _linear(name: str) -> Probe:
    def fit(splits: Splits, classes: int, seed: int) -> tuple[Probabilities, str]:
        return logistic_regression(MODALITIES[name], splits, classes)

    return Probe(f"linear-{'-'.join(MODALITIES[name])}", f"logistic regression, {name}", fit)


LINEAR = _linear("text + audio")
PROBES = (_linear("text"), _linear("audio"), LINEAR, Probe("mlp", "MLP, text + audio", mlp, seeded=True))


def fit_probe(probe: Probe, data: TrainingData, seed: int, folder: Path) -> dict:
    """Fit a probe, or read its earlier result on the same embeddings.

    ``folder`` then holds ``probe.json`` and, as a run folder does, the predictions of val and test.

    Returns:
        The contents of ``probe.json``: the ``choice`` in words, and the metrics of ``val`` and ``test``.
    """
    path, fitted_on = folder / PROBE_FILE, {split: each.sha256 for split, each in data.splits.items()}
    if path.exists() and (known := read_json(path)).get("sha256") == fitted_on:
        return known
    found, choice = probe.fit(data.splits, len(data.class_names), seed)
    result = {"probe": probe.title, "choice": choice, "sha256": fitted_on}
    for split, probability in found.items():
        features = data.splits[split]
        write_predictions(
            folder / PREDICTIONS.format(split),
            features.identity,
            data.class_names,
            features.label.numpy(),
            probability,
        )
        predicted = torch.from_numpy(probability.argmax(1))
        result[split] = compute_metrics(features.label, predicted, len(data.class_names))
    write_json(path, result)
    return result


def _standardized(splits: Splits, modalities: Sequence[str]) -> dict[str, np.ndarray]:
    """The concatenated embeddings of each split, standardised with the statistics of train."""
    from sklearn.preprocessing import StandardScaler  # takes a second to import

    values = {
        split: np.concatenate([getattr(features, name).double().numpy() for name in modalities], axis=1)
        for split, features in splits.items()
    }
    scaler = StandardScaler().fit(values["train"])
    return {split: scaler.transform(each) for split, each in values.items()}


def _every_class(model, values: np.ndarray, classes: int) -> np.ndarray:
    """Probabilities [N, classes], 0 for a class without an utterance in train."""
    found = np.zeros((len(values), classes))
    found[:, model.classes_] = model.predict_proba(values)
    return found


def _cross_entropy(probability: np.ndarray, features: Features) -> float:
    of_label = probability[np.arange(len(features)), features.label.numpy()]
    return float(-np.log(np.maximum(of_label, 1e-12)).mean())
