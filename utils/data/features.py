"""Reads and validates feature pickles and their JSON description (schema in ``feature/README.md``)."""

import hashlib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from utils.config import MAX_CLASSES, SPLITS
from utils.data.identity import Identity, read_identity
from utils.data.safe_pickle import MEMORY, load_pickle
from utils.errors import InputError, is_printable, shown
from utils.io import bounded_memory, read_file, read_json

LARGEST = 1e9  # a greater value is a mistake and would overflow in the network
_KEYS = ("text_embed", "audio_embed", "label")
_PICKLE = re.compile(rf"(.*_BERT_WAV2VEC)_(?:{'|'.join(SPLITS)})\.pkl")


@dataclass(frozen=True)
class Features:
    """The features of one split.

    Shapes: text [N, D_text] and audio [N, D_audio] in float32, label [N] in int64. ``identity`` describes the N rows.
    """

    path: Path
    text: Tensor
    audio: Tensor
    label: Tensor
    identity: Identity
    sha256: str

    def __len__(self) -> int:
        return self.label.numel()

    @property
    def dims(self) -> tuple[int, int]:
        return self.text.size(1), self.audio.size(1)


def load_features(path: str | Path) -> Features:
    """Read and validate one feature pickle.

    Raises:
        InputError: a row is invalid; names the file, the row (from 0) and the value. No row is ever skipped.
    """
    path = Path(path)
    data = read_file(path)  # read only once, so that the SHA-256 matches the contents
    try:
        with bounded_memory(MEMORY + 8 * len(data)):
            return _features(path, load_pickle(data, path), hashlib.sha256(data).hexdigest())
    except MemoryError as error:
        size = f"a file of {len(data)} bytes should need"
        raise InputError(f"{path}: needs more memory than is available, or more than {size}") from error


def _features(path: Path, rows: object, sha256: str) -> Features:
    if not isinstance(rows, list):
        raise InputError(f"{path}: expected a list of dicts, found a {type(rows).__name__}")
    if not rows:
        raise InputError(f"{path}: the list is empty")
    for i, row in enumerate(rows):
        if not isinstance(row, dict):
            raise InputError(f"{path}: row {i} is a {type(row).__name__}, expected a dict")
        for key in _KEYS:
            if key not in row:
                raise InputError(f"{path}: row {i} has no {key!r} (it has {', '.join(map(shown, row)) or 'nothing'})")
    text, audio = (_embeddings(path, rows, key) for key in _KEYS[:2])
    label = torch.tensor([_label(f"{path}: row {i}: label", row["label"]) for i, row in enumerate(rows)])
    return Features(path, text, audio, label, read_identity(path, label.tolist()), sha256)


def _embeddings(path: Path, rows: list[dict], key: str) -> Tensor:
    """Embeddings [N, D] of one modality in float32."""
    vectors = [_vector(f"{path}: row {i}: {key}", row[key]) for i, row in enumerate(rows)]
    for i, vector in enumerate(vectors):
        if vector.size != vectors[0].size:
            raise InputError(f"{path}: row {i}: {key} has {vector.size} values, row 0 has {vectors[0].size}")
    return torch.from_numpy(np.stack(vectors))


def _vector(where: str, value: object) -> np.ndarray:
    """One embedding [D] in float32, from a tensor, array or list of shape [D] or [1, D]."""
    if isinstance(value, Tensor):  # numpy has no bfloat16
        value = value.detach().float().numpy() if value.is_floating_point() else value.detach().numpy()
    try:
        vector = np.asarray(value)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not a vector of numbers but a {type(value).__name__} of lists") from error
    if vector.dtype.kind not in "iuf" and vector.size:
        raise InputError(f"{where} is not a vector of numbers but a {type(value).__name__} of {vector.dtype}")
    with np.errstate(over="ignore"):  # values out of range for float32 become inf, which is reported below
        vector = vector.astype(np.float32)
    if vector.ndim == 2 and vector.shape[0] == 1:
        vector = vector[0]
    if vector.ndim != 1 or vector.size == 0:
        raise InputError(f"{where} has shape {list(vector.shape)}, expected [D] or [1, D]")
    invalid = np.flatnonzero(~(np.abs(vector) <= LARGEST))  # True for NaN
    if len(invalid):
        raise InputError(f"{where} has the invalid value {vector[invalid[0]]} at position {invalid[0]}")
    if not vector.any():
        raise InputError(f"{where} is a zero vector, which has no cosine similarity")
    return vector


def _label(where: str, value: object) -> int:
    if isinstance(value, Tensor | np.ndarray | np.generic) and math.prod(value.shape) == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"{where} {shown(value)} is not an integer")
    if not 0 <= value < MAX_CLASSES:
        raise InputError(f"{where} {shown(value)} is out of range (0 to {MAX_CLASSES - 1})")
    return value


def load_splits(paths: dict[str, Path], num_classes: int | None) -> tuple[dict[str, Features], int]:
    """Read several splits, including train, and check that they agree.

    Args:
        num_classes: number of classes. None means the greatest train label + 1.

    Returns:
        The features of each split, and the number of classes.

    Raises:
        InputError: the dimensions of a split differ from those of train, a label is >= num_classes, train lacks a
            class, or there is only one class.
    """
    splits = {split: load_features(path) for split, path in paths.items()}
    train = splits["train"]
    num_classes = num_classes or int(train.label.max()) + 1
    if num_classes < 2:
        raise InputError(f"{train.path}: every label is 0; at least two classes are required")
    for features in splits.values():
        check_sizes(features, train.dims, num_classes, train.path)
    missing = (torch.bincount(train.label, minlength=num_classes) == 0).nonzero()
    if len(missing):
        raise InputError(f"{train.path}: class {int(missing[0])} of {num_classes} has no utterance in train")
    return splits, num_classes


def check_disjoint(splits: dict[str, Features]) -> None:
    """Print how many utterances of a split have exactly the same embeddings as one in another split.

    Raises:
        InputError: two splits contain the same utterances.
    """
    rows = {name: [_digest(*row) for row in zip(each.text, each.audio, strict=True)] for name, each in splits.items()}
    for one, other in combinations(splits, 2):
        known, path = set(rows[one]), splits[other].path
        if known == set(rows[other]):
            raise InputError(f"{path}: the {other} split has the same utterances as {one} ({splits[one].path})")
        if shared := sum(row in known for row in rows[other]):
            print(f"note: {shared} of {len(rows[other])} utterances of {path} are also in {splits[one].path}")


def _digest(text: Tensor, audio: Tensor) -> bytes:
    return hashlib.blake2b(text.numpy().tobytes() + audio.numpy().tobytes(), digest_size=16).digest()


def check_sizes(features: Features, dims: tuple[int, int], num_classes: int, reference: Path) -> None:
    """Raise an InputError if the dimensions differ from ``dims`` (those of ``reference``) or a label is too great."""
    if features.dims != dims:
        hint = "; text and audio seem to be swapped" if features.dims == dims[::-1] else ""
        found, expected = (f"text {t}, audio {a}" for t, a in (features.dims, dims))
        raise InputError(f"{features.path}: dimensions are {found}, but {expected} in {reference}{hint}")
    rows = (features.label >= num_classes).nonzero()
    if len(rows):
        where = f"{features.path}: row {int(rows[0])}: label {int(features.label[rows[0]])}"
        raise InputError(f"{where} is out of range ({num_classes} classes, 0 to {num_classes - 1})")


# ---- the JSON written by extract_features.py -------------------------------------------------------------------------


def info_path(feature_path: Path) -> Path | None:
    """``X_BERT_WAV2VEC.json`` for ``X_BERT_WAV2VEC_<split>.pkl``; None for other file names."""
    match = _PICKLE.fullmatch(feature_path.name)
    return feature_path.with_name(f"{match[1]}.json") if match else None


def read_info(feature_path: Path) -> dict | None:
    """Read the JSON file that describes a feature pickle; None if there is none.

    Raises:
        InputError: the JSON was not written by extract_features.py.
    """
    path = info_path(feature_path)
    if path is None or not path.is_file():
        return None
    match read_json(path):
        case {
            "class_names": names,
            "encoders": {"text": {}, "audio": {}} as encoders,
            "files": {"train": {}, "val": {}, "test": {}},
            "leakage": {},
        } as info:
            check_class_names(names, path)
            check_encoders(encoders, path)
            return info
    raise InputError(f"{path}: not written by this version of extract_features.py; move it elsewhere")


def check_class_names(names: object, path: Path) -> None:
    """Raise an InputError unless ``names``, read from ``path``, are at least two distinct printable strings."""
    texts = isinstance(names, list) and all(isinstance(each, str) and is_printable(each) for each in names)
    if not texts or len(set(names)) < max(2, len(names)):
        raise InputError(f"{path}: invalid class names: {shown(names)}")


def check_encoders(encoders: object, path: Path) -> None:
    """Raise an InputError unless ``encoders``, read from ``path``, describes an encoder per modality, or is {}."""
    for each in encoders.values() if isinstance(encoders, dict) else [None]:
        match each:
            case {"name": str(name), "revision": str() | None, "pooling": str(), "weights_sha256": str()}:
                if is_printable(name):
                    continue
        raise InputError(f"{path}: the description of its encoders is invalid")


def encoder_name(description: dict) -> str:
    """The value of ``--text_model`` or ``--audio_model`` that loads an encoder described in the JSON."""
    name, revision = description["name"], description["revision"]
    return f"{name.partition('@')[0]}@{revision}" if revision else name


def check_described(features: Features, split: str, class_names: Iterable[str] | None) -> None:
    """Check a pickle against its JSON description, if there is one. ``class_names`` None accepts any classes.

    Raises:
        InputError: the SHA-256 differs (the files come from two extractions), or the classes differ.
    """
    info = read_info(features.path)
    if info is None:
        return
    if info["files"][split].get("sha256") != features.sha256:
        raise InputError(
            f"{features.path}: not the {split} file that {info_path(features.path).name} describes "
            "(the SHA-256 differs); run extract_features.py again, or remove the JSON"
        )
    if class_names is not None and list(class_names) != info["class_names"]:
        found, expected = ", ".join(info["class_names"]), ", ".join(class_names)
        raise InputError(f"{features.path}: its classes are {found}, but the training used {expected}")
