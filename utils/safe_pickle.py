"""Unpickling through an allow-list: data is rebuilt, code is never run."""

import io
import pickle
import struct
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from utils.errors import InputError, one_line


class _Dtype:
    """Stands in for ``numpy.dtype``: plain numbers alone.

    A real dtype takes flags from the pickle, with which a crafted file makes numpy follow pointers of its choice.
    """

    def __init__(self, code: str, align: bool = False, copy: bool = False):
        self.dtype = np.dtype(code) if isinstance(code, str) else None
        if self.dtype is None or self.dtype.kind not in "biuf":
            raise pickle.UnpicklingError(f"an array of {code!r} is not allowed, only numbers are")

    def __setstate__(self, state: tuple) -> None:
        byte_order = state[1]
        if byte_order in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(byte_order)


class _Array:
    """Stands in for ``numpy.ndarray`` while the file is read; :func:`_unwrap` puts the real array in its place."""

    array: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, data = state
        self.array = _from_bytes(data, dtype, shape, "F" if fortran else "C")


def _from_bytes(data: bytes, dtype: _Dtype, shape: tuple, order: str, axis_order: tuple | None = None) -> np.ndarray:
    if axis_order is not None:
        raise pickle.UnpicklingError("an array of permuted axes is not allowed")
    return np.frombuffer(bytes(data), dtype.dtype).reshape(shape, order=order).copy()


def _new_array(cls: object, shape: tuple, code: bytes) -> _Array:
    return _Array()


def _scalar(dtype: _Dtype, data: bytes) -> np.generic:
    return np.frombuffer(data, dtype.dtype)[0]


def _tensor(storage, offset: int, size: tuple, stride: tuple, requires_grad=False, hooks=None) -> Tensor:
    return torch._utils._rebuild_tensor(storage, offset, size, stride)


def _storage(data: bytes):
    """A pickled tensor keeps its storage as ``torch.save`` bytes, which torch would unpickle without limits.

    Features that were pickled on a GPU come to the CPU.
    """
    return torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")


def _encode_latin1(text: str, encoding: str) -> bytes:
    """numpy arrays pickled with protocol 2 ask for ``_codecs.encode(text, "latin1")``; other codecs are not data."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"codec {encoding!r} is not allowed")
    return text.encode("latin1")


_ALLOWED = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("_codecs", "encode"): _encode_latin1,
    ("numpy", "ndarray"): None,  # named in a pickle as an argument, never called
    ("numpy", "dtype"): _Dtype,
}
# numpy 2 moved numpy.core to numpy._core; files of either spelling are read
for _core in ("numpy.core", "numpy._core"):
    _ALLOWED[f"{_core}.multiarray", "_reconstruct"] = _new_array
    _ALLOWED[f"{_core}.multiarray", "scalar"] = _scalar
    _ALLOWED[f"{_core}.numeric", "_frombuffer"] = _from_bytes


class _AllowListUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not on the allow-list")
        return _ALLOWED[module, name]


def _unwrap(value: object) -> object:
    """Real arrays for their stand-ins, inside lists, tuples and dicts."""
    if isinstance(value, _Array):
        if value.array is None:
            raise pickle.UnpicklingError("an array without its contents")
        return value.array
    if isinstance(value, list | tuple):
        return type(value)(_unwrap(item) for item in value)
    if isinstance(value, dict):
        return type(value)((key, _unwrap(item)) for key, item in value.items())
    return value


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
            return _unwrap(_AllowListUnpickler(file).load())
        except pickle.UnpicklingError as error:
            if "allow" in str(error):
                raise InputError(f"{path}: refused: {error}; nothing in it was run") from error
            raise InputError(f"{path}: not a complete pickle ({one_line(error)})") from error
        except _BROKEN as error:
            raise InputError(f"{path}: not a complete pickle ({one_line(error)})") from error
