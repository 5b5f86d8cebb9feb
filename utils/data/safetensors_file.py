"""Tensors, and plain data as one JSON text in the metadata, in a safetensors file, which holds no pickle."""

import hashlib
import json
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor

from utils.errors import InputError
from utils.io import parse_json

_KEY = "cemobam"  # of the JSON text; a single one, as safetensors writes several in any order
_SEPARATOR = "/"  # between the names of nested dicts, in the name of a tensor


def to_safetensors(data: dict) -> bytes:
    """The contents of a file with a dict by name: tensors, in nested dicts too, and all else that JSON has.

    Tuples come back as lists.

    Raises:
        TypeError, ValueError: a tensor is in a list, a name is no text or has a ``/``, or JSON has no such value.
    """
    tensors: dict[str, Tensor] = {}
    rest = _without_tensors(data, "", tensors)
    text = json.dumps({"data": rest, "sha256": _digest(rest, tensors)}, allow_nan=False)
    return save(tensors, {_KEY: text})


def from_safetensors(content: bytes, path: Path) -> dict:
    """The inverse of :func:`to_safetensors`, of the file ``path``.

    Raises:
        InputError: the metadata is not that of such a file, or the checksum is wrong.
        SafetensorError: damaged.
    """
    tensors = load(content)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])  # safetensors has checked its form
    text = header.get("__metadata__", {}).get(_KEY)
    if text is None:
        raise InputError(f"{path}: its metadata has no {_KEY}; not a file of predict.py --export")
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
            raise InputError(f"{path}: {name} is a tensor, and in its metadata, too")
        place[last] = tensor
    return data


def _without_tensors(data: dict, prefix: str, tensors: dict[str, Tensor]) -> dict:
    """A copy without the tensors, which are added to ``tensors``."""
    rest = {}
    for name, value in data.items():
        if not isinstance(name, str) or _SEPARATOR in name:
            raise ValueError(f"the name {name!r} cannot be that of a tensor or a JSON value")
        if isinstance(value, Tensor):
            tensors[prefix + name] = value.detach().cpu().contiguous().clone()  # no two of them share memory
        else:
            rest[name] = (
                _without_tensors(value, f"{prefix}{name}{_SEPARATOR}", tensors) if type(value) is dict else value
            )
    return rest


def _digest(rest: dict, tensors: dict[str, Tensor]) -> str:
    """SHA-256 of a file's contents; safetensors has no checksum of its own."""
    digest = hashlib.sha256(json.dumps(rest).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
