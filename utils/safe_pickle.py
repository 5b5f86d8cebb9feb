"""Unpickling through an allow-list: data is rebuilt, code is never run."""

import io
import pickle
import struct
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from utils.errors import InputError

_NUMPY_RECONSTRUCT = np.ndarray(0).__reduce__()[0]
_NUMPY_SCALAR = np.float64(0).__reduce__()[0]
_NUMPY_FROMBUFFER = np.zeros(1).__reduce_ex__(5)[0]


def _load_storage(data: bytes):
    """A pickled tensor keeps its storage as ``torch.save`` bytes, which torch would unpickle without limits.

    Features that were pickled on a GPU come to the CPU.
    """
    return torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")


def _encode_latin1(text: str, encoding: str) -> bytes:
    """numpy arrays pickled with protocol 2 ask for ``_codecs.encode(text, "latin1")``; other codecs are not data."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"codec {encoding!r} is not allowed")
    return text.encode("latin1")


def _rebuild_tensor(*args) -> Tensor:
    return torch._utils._rebuild_tensor_v2(*args)


_ALLOWED = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch.storage", "_load_from_bytes"): _load_storage,
    ("_codecs", "encode"): _encode_latin1,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}
# numpy 2 moved numpy.core to numpy._core; files of either spelling are read
for _core in ("numpy.core", "numpy._core"):
    _ALLOWED[f"{_core}.multiarray", "_reconstruct"] = _NUMPY_RECONSTRUCT
    _ALLOWED[f"{_core}.multiarray", "scalar"] = _NUMPY_SCALAR
    _ALLOWED[f"{_core}.numeric", "_frombuffer"] = _NUMPY_FROMBUFFER


class _AllowListUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not on the allow-list")
        return _ALLOWED[module, name]


# what damaged or hostile bytes make the pickle machine, numpy and torch raise
_BROKEN = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    MemoryError,
    RuntimeError,
    ImportError,
    struct.error,
)


def load_pickle(path: str | Path) -> object:
    """Read one pickle of builtin containers, numbers, strings, numpy arrays and torch tensors.

    Raises:
        InputError: the file is missing, truncated, or asks for anything off the allow-list (named; not run).
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    with path.open("rb") as file:
        try:
            return _AllowListUnpickler(file).load()
        except pickle.UnpicklingError as error:
            if "allow-list" in str(error) or "not allowed" in str(error):
                raise InputError(f"{path}: refused: {error}; nothing in it was run") from error
            raise InputError(f"{path}: not a complete pickle ({_one_line(error)})") from error
        except _BROKEN as error:
            raise InputError(f"{path}: not a complete pickle ({_one_line(error)})") from error


def _one_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
