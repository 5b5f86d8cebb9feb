"""Feature pickles: reading, checking, and their SHA-256 (schema in ``feature/README.md``)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from utils.errors import InputError
from utils.files import file_sha256
from utils.safe_pickle import load_pickle

SPLITS = ("train", "val", "test")
MAX_CLASSES = 10_000  # a greater label is a mistake, and would be a network that fills the memory
_KEYS = ("text_embed", "audio_embed", "label")


@dataclass(frozen=True)
class Features:
    """One split. Shapes: text [N, D_text] and audio [N, D_audio] in float32, label [N] in int64."""

    path: Path
    text: Tensor
    audio: Tensor
    label: Tensor
    sha256: str

    def __len__(self) -> int:
        return self.label.numel()

    @property
    def dims(self) -> tuple[int, int]:
        return self.text.size(1), self.audio.size(1)


def load_features(path: str | Path) -> Features:
    """Read and check one feature pickle.

    Raises:
        InputError: names the file, the row (from 0) and the value; no row is ever skipped.
    """
    path = Path(path)
    rows = load_pickle(path)
    if not isinstance(rows, list):
        raise InputError(f"{path}: expected a list of dicts, found a {type(rows).__name__}")
    if not rows:
        raise InputError(f"{path}: the list is empty")
    for i, row in enumerate(rows):
        if not isinstance(row, dict):
            raise InputError(f"{path}: row {i} is a {type(row).__name__}, expected a dict")
        for key in _KEYS:
            if key not in row:
                raise InputError(f"{path}: row {i} has no {key!r} (it has {', '.join(map(repr, row)) or 'nothing'})")
    return Features(
        path=path,
        text=_embeddings(path, rows, "text_embed"),
        audio=_embeddings(path, rows, "audio_embed"),
        label=torch.tensor([_label(path, i, row["label"]) for i, row in enumerate(rows)]),
        sha256=file_sha256(path),
    )


def _embeddings(path: Path, rows: list[dict], key: str) -> Tensor:
    vectors = [_vector(f"{path}: row {i}: {key}", row[key]) for i, row in enumerate(rows)]
    width = vectors[0].size
    for i, vector in enumerate(vectors):
        if vector.size != width:
            raise InputError(f"{path}: row {i}: {key} has {vector.size} values, row 0 has {width}")
    return torch.from_numpy(np.stack(vectors))


def _vector(where: str, value: object) -> np.ndarray:
    """One embedding as float32 [D], from a tensor, array or list of shape [D] or [1, D]."""
    if value is None:
        raise InputError(f"{where} is None")
    if isinstance(value, Tensor):  # numpy has no bfloat16
        value = value.detach().float().numpy() if value.is_floating_point() else value.detach().numpy()
    try:
        vector = np.asarray(value)
    except ValueError as error:  # lists of unequal length
        raise InputError(f"{where} is not a vector of numbers but a {type(value).__name__}") from error
    if vector.dtype.kind not in "iuf" and vector.size:
        raise InputError(f"{where} is not a vector of numbers but a {type(value).__name__} of {vector.dtype}")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes inf and is named below
        vector = vector.astype(np.float32)
    if vector.ndim == 2 and vector.shape[0] == 1:
        vector = vector[0]
    if vector.ndim != 1 or vector.size == 0:
        raise InputError(f"{where} has shape {list(vector.shape)}, expected [D] or [1, D]")
    finite = np.isfinite(vector)
    if not finite.all():
        column = int(np.flatnonzero(~finite)[0])
        raise InputError(f"{where} holds {vector[column]} at position {column}")
    if not vector.any():
        raise InputError(f"{where} is a zero vector, which has no cosine similarity")
    return vector


def _label(path: Path, row: int, value: object) -> int:
    if isinstance(value, Tensor):
        value = value.detach().numpy()
    if isinstance(value, np.ndarray | np.generic) and value.size == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"{path}: row {row}: label {value!r} is not an integer")
    if value < 0:
        raise InputError(f"{path}: row {row}: label {value} is negative")
    if value >= MAX_CLASSES:
        raise InputError(f"{path}: row {row}: label {value} is beyond {MAX_CLASSES} classes")
    return value


def load_splits(paths: dict[str, Path], num_classes: int | None) -> tuple[dict[str, Features], int]:
    """Read the given splits and hold them against each other.

    Args:
        paths: file of each split; train, with which the others must agree, among them.
        num_classes: classes there must be; None for the greatest label of train + 1.

    Raises:
        InputError: other dimensions than train's, a label >= num_classes, a class missing from train.
    """
    splits = {split: load_features(path) for split, path in paths.items()}
    train = splits["train"]
    num_classes = num_classes or int(train.label.max()) + 1
    for features in splits.values():
        check_dims(features, train.dims, str(train.path))
        check_labels(features, num_classes)
    missing = (torch.bincount(train.label, minlength=num_classes) == 0).nonzero()
    if len(missing):
        raise InputError(f"{train.path}: class {int(missing[0])} of {num_classes} has no utterance in train")
    return splits, num_classes


def check_dims(features: Features, dims: tuple[int, int], reference: str) -> None:
    """Raise an InputError where the text and audio dimensions are not those of ``reference``."""
    if features.dims == dims:
        return
    hint = "; text and audio look swapped" if features.dims == dims[::-1] else ""
    found, expected = (f"text {t}, audio {a}" for t, a in (features.dims, dims))
    raise InputError(f"{features.path}: dimensions are {found}, in {reference} they are {expected}{hint}")


def check_labels(features: Features, num_classes: int) -> None:
    """Raise an InputError that names the first row whose label is not below ``num_classes``."""
    rows = (features.label >= num_classes).nonzero()
    if len(rows):
        row = int(rows[0])
        label = int(features.label[row])
        raise InputError(f"{features.path}: row {row}: label {label}, but there are {num_classes} classes (0 first)")
