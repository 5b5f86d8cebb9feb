"""Embeddings on disk, for resuming an extraction and for other splits of the same corpus."""

import hashlib
import io
import json
import time
import uuid
from importlib.metadata import version
from pathlib import Path

import numpy as np

from utils.errors import InputError, one_line
from utils.io import atomic_write, check_writable

SAVE_SECONDS = 30  # computing time that a kill -9 loses at most


class EmbeddingCache:
    """Vectors by key, in the files of one folder, to which several processes may add.

    As a context manager, it saves when the block ends.

    Args:
        folder: A separate one for each encoder and device (see :func:`open_cache`); None keeps vectors in memory only.
        dim: Length of the vectors.

    Raises:
        InputError: A file of the folder is damaged, or its vectors have another length.
    """

    def __init__(self, folder: Path | None, dim: int):
        self.folder = folder
        self._vectors: dict[str, np.ndarray] = {}
        self._unsaved: dict[str, np.ndarray] = {}
        self._saved_at = time.monotonic()
        for path in sorted(folder.glob("*.npz")) if folder else ():
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
        """Add a vector [dim] in float32, and save if the last time is :data:`SAVE_SECONDS` ago."""
        self._vectors[_digest(key)] = self._unsaved[_digest(key)] = vector
        if time.monotonic() - self._saved_at > SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Write the vectors added since the last time to a new file."""
        if self._unsaved and self.folder:
            buffer = io.BytesIO()
            np.savez(buffer, keys=np.array(list(self._unsaved)), vectors=np.stack(list(self._unsaved.values())))
            atomic_write(self.folder / f"{uuid.uuid4().hex}.npz", buffer.getvalue())
            self._unsaved = {}
        self._saved_at = time.monotonic()


def open_cache(root: Path, modality: str, description: dict, device: str) -> EmbeddingCache:
    """The cache of one encoder, in a folder named after everything that its embeddings depend on."""
    parts = {name: value for name, value in description.items() if name not in ("name", "revision")}
    parts |= {"device": device, "versions": [version(name) for name in ("torch", "torchaudio", "transformers")]}
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    folder = root / f"{modality}-{description['type']}-{digest[:16]}"
    check_writable(folder)
    return EmbeddingCache(folder, description["dim"])


def _digest(key: str) -> str:
    """Fixed-length form of a key: in a numpy array, all strings take the space of the longest."""
    return hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()


def _read(path: Path, dim: int) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            keys, vectors = file["keys"], file["vectors"]
        if keys.ndim != 1 or keys.dtype.kind != "U" or vectors.dtype != np.float32 or vectors.shape != (len(keys), dim):
            raise ValueError(f"not embeddings of {dim} values")
    except Exception as error:  # numpy and zipfile raise many types on damaged files
        raise InputError(f"{path}: a damaged file of the embedding cache ({one_line(error)}); remove it") from error
    return dict(zip(keys.tolist(), vectors, strict=True))
