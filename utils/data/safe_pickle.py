"""Unpickling with an allow-list: data is rebuilt, code is never executed."""

import io
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from utils.errors import InputError, one_line


class _Dtype:
    """Stand-in for ``numpy.dtype``, limited to numbers.

    A real dtype restores flags from the pickle; a crafted file could make numpy follow arbitrary pointers.
    """

    def __init__(self, code: str, align: bool = False, copy: bool = False):
        self.dtype = np.dtype(code) if isinstance(code, str) else None
        if self.dtype is None or self.dtype.kind not in "biuf":
            raise pickle.UnpicklingError(f"an array of {code!r} is not allowed, only numbers")

    def __setstate__(self, state: tuple) -> None:
        byte_order = state[1]
        if byte_order in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(byte_order)


class _Array(np.ndarray):
    """An array whose contents arrive with the stand-in for its dtype."""

    def __setstate__(self, state: tuple) -> None:
        version, shape, dtype, fortran, data = state
        super().__setstate__((version, shape, dtype.dtype, fortran, bytes(data)))


def _new_array(cls: object, shape: tuple, code: bytes) -> _Array:
    if shape != (0,):
        raise pickle.UnpicklingError(f"an array that is created with shape {shape}")
    return _Array(shape)


def _from_bytes(data: bytes, dtype: _Dtype, shape: tuple, order: str, axis_order: tuple | None = None) -> np.ndarray:
    if axis_order is not None:
        raise pickle.UnpicklingError("an array with permuted axes is not allowed")
    return np.frombuffer(bytes(data), dtype.dtype).reshape(shape, order=order).copy()


def _scalar(dtype: _Dtype, data: bytes) -> np.generic:
    return np.frombuffer(data, dtype.dtype)[0]


def _tensor(storage, offset: int, size: tuple, stride: tuple, requires_grad=False, hooks=None) -> Tensor:
    return torch._utils._rebuild_tensor(storage, offset, size, stride)


def _storage(data: bytes):
    """Load a tensor's storage, pickled as ``torch.save`` bytes, with ``weights_only`` and to the CPU."""
    return torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")


def _encode_latin1(text: str, encoding: str) -> bytes:
    """The codec of numpy arrays in protocol 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"codec {encoding!r} is not allowed")
    return text.encode("latin1")


_ALLOWED = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("_codecs", "encode"): _encode_latin1,
    ("numpy", "ndarray"): None,  # an argument, never called
    ("numpy", "dtype"): _Dtype,
}
# numpy 2 renamed numpy.core to numpy._core
for _core in ("numpy.core", "numpy._core"):
    _ALLOWED[f"{_core}.multiarray", "_reconstruct"] = _new_array
    _ALLOWED[f"{_core}.multiarray", "scalar"] = _scalar
    _ALLOWED[f"{_core}.numeric", "_frombuffer"] = _from_bytes


class _AllowListUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not on the allow-list")
        return _ALLOWED[module, name]


def load_pickle(path: Path) -> object:
    """Load a pickle of builtin containers, numbers, strings, numpy arrays and torch tensors.

    Raises:
        InputError: the file is missing or damaged, or names anything off the allow-list, which is not executed.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    with path.open("rb") as file:
        try:
            return _AllowListUnpickler(file).load()
        except OSError:
            raise
        except Exception as error:  # damaged bytes raise errors of many types in pickle, numpy and torch
            if isinstance(error, pickle.UnpicklingError) and "allow" in str(error):
                raise InputError(f"{path}: refused: {error}; nothing in it was run") from error
            raise InputError(f"{path}: not a complete pickle ({one_line(error)})") from error
