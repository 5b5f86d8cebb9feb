"""Stores embeddings on disk, to resume an extraction and to extract other splits of the same corpus."""

import hashlib
import json
import time
import uuid
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from utils.data.safe_pickle import load_tensors, save_tensors
from utils.errors import InputError
from utils.io import check_writable

SAVE_SECONDS = 30  # at most this much computing time is lost by kill -9


class EmbeddingCache:
    """A store of vectors by key, in the files of one folder. Several processes may add vectors to it.

    Used as a context manager, it saves when the block ends.

    Args:
        folder: Use a separate folder for each encoder and device (see :func:`open_cache`). None keeps vectors only in
            memory.
        dim: Length of the vectors.

    Raises:
        InputError: A file in the folder is damaged, or its vectors have a different length.
    """

    def __init__(self, folder: Path | None, dim: int):
        self.folder = folder
        self._vectors: dict[str, np.ndarray] = {}
        self._unsaved: dict[str, np.ndarray] = {}
        self._saved_at = time.monotonic()
        for path in sorted(folder.glob("*.pt")) if folder else ():
            self._vectors |= _read(path, dim)

    def __len__(self) -> int:
        return len(self._vectors)

    def __contains__(self, key: str) -> bool:
        return _digest(key) in self._vectors

    def __getitem__(self, key: str) -> np.ndarray:
        return self._vectors[_digest(key)]

    def __enter__(self) -> "EmbeddingCache":
        return self

    def __exit__(self, *_: object) -> None:
        self.save()

    def add(self, key: str, vector: np.ndarray) -> None:
        """Add a vector [dim] in float32. Save if more than :data:`SAVE_SECONDS` have passed since the last save."""
        self._vectors[_digest(key)] = self._unsaved[_digest(key)] = vector
        if time.monotonic() - self._saved_at > SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Write the vectors added since the last save to a new file."""
        if self._unsaved and self.folder:
            vectors = torch.from_numpy(np.stack(list(self._unsaved.values())))
            save_tensors(self.folder / f"{uuid.uuid4().hex}.pt", {"keys": list(self._unsaved), "vectors": vectors})
            self._unsaved = {}
        self._saved_at = time.monotonic()


def open_cache(root: Path, modality: str, description: dict, device: str) -> EmbeddingCache:
    """Open the cache of one encoder. Its folder is named after everything that the embeddings depend on."""
    parts = {name: value for name, value in description.items() if name not in ("name", "revision")}
    parts |= {"device": device, "versions": [version(name) for name in ("torch", "torchaudio", "transformers")]}
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    folder = root / f"{modality}-{description['type']}-{digest[:16]}"
    check_writable(folder)
    return EmbeddingCache(folder, description["dim"])


def _digest(key: str) -> str:
    """A fixed-length digest of a key, which may be a whole transcript."""
    return hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()


def _read(path: Path, dim: int) -> dict[str, np.ndarray]:
    try:
        data = load_tensors(path)
    except InputError as error:
        raise InputError(f"{error}; remove this file of the embedding cache") from error
    match data:
        case {"keys": [*keys], "vectors": Tensor() as vectors}:
            texts = all(isinstance(key, str) for key in keys)
            if texts and vectors.dtype == torch.float32 and vectors.shape == (len(keys), dim):
                return dict(zip(keys, vectors.numpy(), strict=True))
    raise InputError(f"{path}: not embeddings of {dim} values; remove this file of the embedding cache")
