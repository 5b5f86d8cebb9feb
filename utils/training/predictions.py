"""Predictions with identity: one CSV row per utterance. Every report and comparison reads these files.

Columns: ``audio_file``, ``speaker``, ``session``, ``dialogue``, ``gender`` ("" if unknown), ``label`` and
``prediction`` as class numbers, and the probability of each class in ``p_<class name>``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.data.identity import ATTRIBUTES, ID, Identity, read_rows, write_csv
from utils.errors import InputError, shown
from utils.io import atomic_write

PROBABILITY = "p_"  # prefix of a class name
COLUMNS = (ID, *ATTRIBUTES, "label", "prediction")
TOLERANCE = 1e-3  # for the sum of an utterance's probabilities; files have six digits


@dataclass(frozen=True)
class Predictions:
    """Predictions of the same N utterances by one or several seeds.

    Shapes: label [N], prediction [seeds, N], probability [seeds, N, C]; identity with N values each.
    """

    path: Path
    class_names: tuple[str, ...]
    identity: Identity
    label: np.ndarray
    prediction: np.ndarray
    probability: np.ndarray

    def __len__(self) -> int:
        return len(self.label)

    @property
    def ids(self) -> tuple[str, ...]:
        return self.identity[ID]


def write_predictions(
    path: Path, identity: Identity, class_names: Sequence[str], label: np.ndarray, probability: np.ndarray
) -> None:
    """Write the predictions of one seed. Shapes: label [N], probability [N, C]."""
    rows = _rows(identity, label, probability.argmax(1), probability)
    atomic_write(path, write_csv([_header(class_names), *rows]))


def write_pooled(path: Path, found: Predictions, seeds: Sequence[int], fold: np.ndarray) -> None:
    """Write the predictions of all seeds of a cross-validation, with ``seed`` and ``fold`` as the first columns.

    Shapes: fold [N], the fold in which each utterance is tested.
    """
    rows = [["seed", "fold", *_header(found.class_names)]]
    for seed, prediction, probability in zip(seeds, found.prediction, found.probability, strict=True):
        of_seed = _rows(found.identity, found.label, prediction, probability)
        rows += [[seed, number, *row] for number, row in zip(fold.tolist(), of_seed, strict=True)]
    atomic_write(path, write_csv(rows))


def _header(class_names: Sequence[str]) -> list[str]:
    return [*COLUMNS, *(f"{PROBABILITY}{name}" for name in class_names)]


def _rows(
    identity: Identity, label: np.ndarray, prediction: np.ndarray, probability: np.ndarray
) -> Iterator[list[object]]:
    who = zip(*(identity[name] for name in (ID, *ATTRIBUTES)), strict=True)
    for each, true, predicted, values in zip(who, label, prediction, probability.tolist(), strict=True):
        yield [*each, int(true), int(predicted), *(f"{value:.6f}" for value in values)]


def read_predictions(paths: Sequence[Path]) -> Predictions:
    """Read the predictions of several seeds, one file each.

    Raises:
        InputError: a file was not written by :func:`write_predictions`, a class is out of range, the probabilities are
            no distribution, or the files differ in utterances, labels or classes. The message names file, line, value.
    """
    parts = [_read(path) for path in paths]
    first = parts[0]
    for other in parts[1:]:
        for name in ("class_names", "identity"):
            if getattr(other, name) != getattr(first, name):
                raise InputError(f"{other.path}: utterances or classes differ from those in {first.path}")
        if not np.array_equal(other.label, first.label):
            raise InputError(f"{other.path}: labels differ from those in {first.path}")
    stacked = (np.concatenate([getattr(part, name) for part in parts]) for name in ("prediction", "probability"))
    return Predictions(first.path, first.class_names, first.identity, first.label, *stacked)


def _read(path: Path) -> Predictions:
    (_, header), *rows = read_rows(path) or [("", [])]
    class_names = tuple(name.removeprefix(PROBABILITY) for name in header[len(COLUMNS) :])
    if header != _header(class_names) or len(class_names) < 2 or not rows:
        raise InputError(f"{path}: not the predictions of a run (expected {','.join(COLUMNS)},{PROBABILITY}<class>,…)")
    numbers, identity = [], {name: [] for name in (ID, *ATTRIBUTES)}
    for where, row in rows:
        for name, value in zip(identity, row, strict=False):
            identity[name].append(value)
        for name, value in zip(("label", "prediction"), row[len(identity) :], strict=False):
            if not (value.isdecimal() and int(value) < len(class_names)):
                raise InputError(f"{where}: {name} {shown(value)} is not one of the {len(class_names)} classes")
        numbers.append(row[len(identity) :])
    try:
        table = np.array(numbers, dtype=float)
    except ValueError as error:
        raise InputError(f"{path}: a probability is not a number ({error})") from error
    probability = table[:, 2:]
    off = ~((probability >= 0).all(1) & (np.abs(probability.sum(1) - 1) < TOLERANCE))
    if off.any():
        row = int(off.argmax())
        raise InputError(f"{rows[row][0]}: its probabilities sum to {probability[row].sum():.4f}, or one is negative")
    if len(set(identity[ID])) < len(rows):
        repeated = next(row for row, name in enumerate(identity[ID]) if name in identity[ID][:row])
        raise InputError(f"{rows[repeated][0]}: {ID} {shown(identity[ID][repeated])} occurs twice")
    label, prediction = table[:, :2].astype(int).T
    named = {name: tuple(values) for name, values in identity.items()}
    return Predictions(path, class_names, named, label, prediction[None], probability[None])
