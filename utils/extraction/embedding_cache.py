"""Embeddings kept on disk while they are computed, so that an interrupted extraction goes on, and another split of the
same corpus computes nothing twice."""

import hashlib
import io
import json
import time
import uuid
from importlib.metadata import version
from pathlib import Path

import numpy as np

from utils.errors import InputError, one_line
from utils.files import atomic_write, check_writable

SAVE_SECONDS = 30  # at most this much work is lost to a kill -9


class EmbeddingCache:
    """Vectors by key, in files of one folder; several processes may add to it at once.

    Args:
        folder: one for each encoder and everything else that the vectors depend on; None to keep them in memory alone.
        dim: of the vectors.

    Raises:
        InputError: one of its files is damaged or of another width.
    """

    def __init__(self, folder: Path | None, dim: int):
        self.folder = folder
        self._vectors: dict[str, np.ndarray] = {}
        self._fresh: dict[str, np.ndarray] = {}
        self._saved_at = time.monotonic()
        for path in sorted(folder.glob("*.npz")) if folder else ():
            self._vectors |= _read(path, dim)

    def __len__(self) -> int:
        return len(self._vectors)

    def __contains__(self, key: str) -> bool:
        return _digest(key) in self._vectors

    def __getitem__(self, key: str) -> np.ndarray:
        return self._vectors[_digest(key)]

    def add(self, key: str, vector: np.ndarray) -> None:
        """Keep a vector [dim] in float32; it is on disk after :meth:`save`, which is called every now and then."""
        self._vectors[_digest(key)] = self._fresh[_digest(key)] = vector
        if time.monotonic() - self._saved_at > SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Write what is not on disk yet, to a file of its own."""
        if self._fresh and self.folder:
            buffer = io.BytesIO()
            np.savez(buffer, keys=np.array(list(self._fresh)), vectors=np.stack(list(self._fresh.values())))
            atomic_write(self.folder / f"{uuid.uuid4().hex}.npz", buffer.getvalue())
            self._fresh = {}
        self._saved_at = time.monotonic()


def open_cache(root: Path, modality: str, description: dict, device: str) -> EmbeddingCache:
    """The cache of one encoder, in a folder named by whatever its embeddings depend on beyond rounding."""
    parts = {name: value for name, value in description.items() if name not in ("name", "revision")}
    parts |= {"device": device, "versions": [version(name) for name in ("torch", "torchaudio", "transformers")]}
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    folder = root / f"{modality}-{description['type']}-{digest[:16]}"
    check_writable(folder)
    return EmbeddingCache(folder, description["dim"])


def _digest(key: str) -> str:
    """What stands for a key on disk, where an array's strings are all as wide as the longest."""
    return hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()


def _read(path: Path, dim: int) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            keys, vectors = file["keys"], file["vectors"]
        if keys.ndim != 1 or keys.dtype.kind != "U" or vectors.dtype != np.float32 or vectors.shape != (len(keys), dim):
            raise ValueError(f"not embeddings of {dim} values")
    except Exception as error:  # numpy and zipfile raise what they like on damaged bytes
        raise InputError(f"{path}: a damaged file of the embedding cache ({one_line(error)}); remove it") from error
    return dict(zip(keys.tolist(), vectors, strict=True))
