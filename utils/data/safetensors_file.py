"""Stores tensors, and plain data as JSON in the metadata, in a safetensors file, which contains no pickle."""

import hashlib
import json
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor

from utils.errors import InputError
from utils.io import parse_json

_KEY = "cemobam"  # metadata key of the JSON text; only one, because safetensors writes several in arbitrary order
_SEPARATOR = "/"  # separates the names of nested dicts in the name of a tensor


def to_safetensors(data: dict) -> bytes:
    """Serialise a dict of tensors, JSON values and nested dicts of these. Tuples are read back as lists.

    Raises:
        TypeError, ValueError: a tensor is in a list, a key is not a string or contains ``/``, or JSON cannot represent
            a value.
    """
    tensors: dict[str, Tensor] = {}
    rest = _without_tensors(data, "", tensors)
    text = json.dumps({"data": rest, "sha256": _digest(rest, tensors)}, allow_nan=False)
    return save(tensors, {_KEY: text})


def from_safetensors(content: bytes, path: Path) -> dict:
    """The inverse of :func:`to_safetensors`. ``path`` is the file, for error messages.

    Raises:
        InputError: the metadata is not from :func:`to_safetensors`, or the checksum is wrong.
        SafetensorError: the file is damaged.
    """
    tensors = load(content)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])  # safetensors has checked its format
    text = header.get("__metadata__", {}).get(_KEY)
    if text is None:
        raise InputError(f"{path}: its metadata has no entry {_KEY}; not a file of predict.py --export")
    found = parse_json(text, f"{path}: its metadata")
    data = found.get("data")
    if not isinstance(data, dict) or found.get("sha256") != _digest(data, tensors):
        raise InputError(f"{path}: damaged: its checksum is wrong")
    for name, tensor in tensors.items():
        *folders, last = name.split(_SEPARATOR)
        place = data
        for folder in folders:
            place = place[folder]
        if not isinstance(place, dict) or last in place:
            raise InputError(f"{path}: {name} is both a tensor and in the metadata")
        place[last] = tensor
    return data


def _without_tensors(data: dict, prefix: str, tensors: dict[str, Tensor]) -> dict:
    """Return a copy without the tensors, and add these to ``tensors``."""
    rest = {}
    for name, value in data.items():
        if not isinstance(name, str) or _SEPARATOR in name:
            raise ValueError(f"{name!r} is not a valid name for a tensor or a JSON value")
        if isinstance(value, Tensor):
            tensors[prefix + name] = value.detach().cpu().contiguous().clone()  # so that no two share memory
        else:
            rest[name] = (
                _without_tensors(value, f"{prefix}{name}{_SEPARATOR}", tensors) if type(value) is dict else value
            )
    return rest


def _digest(rest: dict, tensors: dict[str, Tensor]) -> str:
    """SHA-256 of the contents of a file. safetensors itself has no checksum."""
    digest = hashlib.sha256(json.dumps(rest).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
