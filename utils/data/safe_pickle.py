"""Pickles, ``.pt`` and safetensors files that may come from anyone: data is rebuilt, code is never executed."""

import io
import math
import pickle
import sys
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from utils.errors import InputError, one_line, out_of_memory, shown
from utils.io import atomic_write, bounded_memory, read_file

SAFETENSORS = ".safetensors"  # suffix
MEMORY = 4 << 30  # bytes that reading a file may take, besides a multiple of its size


class _Dtype:
    """Stand-in for ``numpy.dtype``, limited to numbers.

    A real dtype restores flags from the pickle; a crafted file could make numpy follow arbitrary pointers.
    """

    def __init__(self, code: str, align: bool = False, copy: bool = False):
        self.dtype = np.dtype(code) if isinstance(code, str) else None
        if self.dtype is None or self.dtype.kind not in "biuf":
            raise pickle.UnpicklingError(f"an array of {shown(code)} is not allowed, only numbers")

    def __setstate__(self, state: tuple) -> None:
        byte_order = state[1]
        if byte_order in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(byte_order)


class _Array(np.ndarray):
    """An array whose contents arrive with the stand-in for its dtype."""

    def __setstate__(self, state: tuple) -> None:
        version, shape, dtype, fortran, data = state
        super().__setstate__((version, shape, dtype.dtype, fortran, _bytes(data)))


def _new_array(cls: object, shape: tuple, code: bytes) -> _Array:
    if shape != (0,):
        raise pickle.UnpicklingError(f"an array that is created with shape {shown(shape)}")
    return _Array(shape)


def _from_bytes(data: bytes, dtype: _Dtype, shape: tuple, order: str, axis_order: tuple | None = None) -> np.ndarray:
    if axis_order is not None:
        raise pickle.UnpicklingError("an array with permuted axes is not allowed")
    return np.frombuffer(_bytes(data), dtype.dtype).reshape(shape, order=order).copy()


def _scalar(dtype: _Dtype, data: bytes) -> np.generic:
    return np.frombuffer(data, dtype.dtype)[0]


def _bytes(data: object) -> bytes:
    """The contents of an array; of an integer, ``bytes`` would make that many zeros."""
    if not isinstance(data, bytes | bytearray | memoryview | pickle.PickleBuffer):
        raise pickle.UnpicklingError(f"an array with {shown(data)} for contents")
    return bytes(data)


def _tensor(storage, offset: int, size: tuple, stride: tuple, requires_grad=False, hooks=None) -> Tensor:
    """A tensor [size] whose elements all lie in its storage; torch would enlarge the storage by undefined memory."""
    held, count = storage._size(), math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if min((offset, *size, *stride)) < 0 or count > held or (count and last >= held):
        raise pickle.UnpicklingError(f"a tensor of shape {shown(tuple(size))} in a storage of {held} values")
    return torch._utils._rebuild_tensor(storage, offset, size, stride)


def _storage(data: bytes) -> torch.storage.TypedStorage:
    """Load a tensor's storage, pickled as ``torch.save`` bytes, with ``weights_only`` and to the CPU."""
    storage = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    if not isinstance(storage, torch.storage.TypedStorage):
        raise pickle.UnpicklingError(f"a tensor whose storage is a {type(storage).__name__}")
    return storage


def _encode_latin1(text: str, encoding: str) -> bytes:
    """The codec of numpy arrays in protocol 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"codec {shown(encoding)} is not allowed")
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
            raise pickle.UnpicklingError(f"it asks for {module[:80]}.{name[:80]}, which is not on the allow-list")
        return _ALLOWED[module, name]


def load_pickle(data: bytes, path: Path) -> object:
    """Load a pickle of builtin containers, numbers, strings, numpy arrays and torch tensors.

    Args:
        data: the contents of the file ``path``.

    Raises:
        InputError: the file is damaged, or names anything off the allow-list, which is not executed.
        MemoryError: it asks for more memory than there is.
    """
    try:
        return _AllowListUnpickler(io.BytesIO(data)).load()
    except MemoryError:
        raise
    except Exception as error:  # damaged bytes raise errors of many types in pickle, numpy and torch
        if out_of_memory(error):
            raise MemoryError from error
        if isinstance(error, pickle.UnpicklingError) and "allow" in str(error):
            raise InputError(f"{path}: refused: {one_line(error)}; nothing in it was run") from error
        raise InputError(f"{path}: not a complete pickle ({one_line(error)})") from error


# ---- files of tensors --------------------------------------------------------------------------------------------


def save_tensors(path: Path, data: dict) -> None:
    """Write a dict of tensors, numbers, texts and containers of these: as safetensors if ``path`` ends so.

    Raises:
        OSError: names ``path``.
        TypeError, ValueError: see :func:`~utils.data.safetensors_file.to_safetensors`.
    """
    if path.suffix == SAFETENSORS:
        from utils.data.safetensors_file import to_safetensors  # a training needs none

        atomic_write(path, to_safetensors(data))
        return
    buffer = io.BytesIO()  # on a full disk torch.save raises no OSError, a plain write does
    torch.save(data, buffer)
    atomic_write(path, buffer.getvalue())


def load_tensors(path: Path) -> dict:
    """Read a file of :func:`save_tensors` to the CPU: a ``.pt`` with ``weights_only=True``, so nothing in it can run.

    torch does not check the checksums of the records in the file, and safetensors has none; this does: a flipped bit is
    found.

    Raises:
        InputError: missing, damaged (names the record), asking for code, not a dict by name, or with a tensor that is
            not dense or is larger than its contents.
    """
    content = read_file(path)
    try:
        with bounded_memory(MEMORY + 4 * len(content)):
            data = _read_safetensors(content, path) if path.suffix == SAFETENSORS else _read_torch(content, path)
    except InputError:
        raise
    except pickle.UnpicklingError as error:
        raise InputError(f"{path}: refused: not a file of plain weights; nothing in it was run") from error
    except Exception as error:  # damaged bytes raise errors of many types in torch
        if out_of_memory(error):
            size = f"its {len(content)} bytes need"
            raise InputError(f"{path}: does not fit into memory, or asks for more than {size}") from error
        raise InputError(f"{path}: not a complete checkpoint ({one_line(error)})") from error
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected a dict, found a {type(data).__name__}")
    if odd := [name for name in data if not isinstance(name, str)]:
        raise InputError(f"{path}: expected names for keys, found {shown(odd[0])}")
    for tensor in _tensors(data):
        if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized or tensor.is_nested:
            raise InputError(f"{path}: holds a tensor that is not a dense one")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise InputError(f"{path}: holds a tensor of shape {list(tensor.shape)}, larger than its contents")
    return data


def _read_safetensors(content: bytes, path: Path) -> dict:
    from utils.data.safetensors_file import from_safetensors  # a training needs none

    return from_safetensors(content, path)


def _read_torch(content: bytes, path: Path) -> object:
    _check_records(content, path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on sparse tensors, which load_tensors refuses
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _check_records(content: bytes, path: Path) -> None:
    """Compare every record with its checksum. torch.save stores them as they are; a compressed one may be of any size.

    Raises:
        InputError: names the first record that differs, or is not stored so.
    """
    if not content.startswith(b"PK"):
        raise InputError(f"{path}: not a complete checkpoint (nor a zip file, which torch.save writes since 1.6)")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            records = archive.infolist()
            # a flipped attribute makes a record a folder, of which torch reads nothing
            odd = [each.filename for each in records if each.compress_type or each.external_attr]
            damaged = None if odd else archive.testzip()
    except Exception as error:  # damaged bytes raise errors of many types in zipfile
        raise InputError(f"{path}: not a complete checkpoint ({one_line(error)})") from error
    if odd:
        raise InputError(f"{path}: not a file of torch.save, its record {odd[0]} is not stored as it is")
    if damaged:
        raise InputError(f"{path}: damaged: the checksum of its record {damaged} is wrong")


def _tensors(data: object) -> Iterator[Tensor]:
    """Every tensor in nested containers, however deep."""
    left, seen = [data], set()
    while left:
        each = left.pop()
        if isinstance(each, Tensor):
            yield each
        elif isinstance(each, dict | list | tuple | set) and id(each) not in seen:
            seen.add(id(each))
            left += each.values() if isinstance(each, dict) else each


def check_like(saved: object, fresh: object, name: str) -> None:
    """Raise a ValueError if types, names, lengths, shapes or dtypes differ, or a number is not finite."""
    if isinstance(fresh, Tensor):
        fits = isinstance(saved, Tensor) and (saved.shape, saved.dtype) == (fresh.shape, fresh.dtype)
        fits = fits and bool(saved.isfinite().all())
    elif isinstance(fresh, dict):
        fits = isinstance(saved, dict) and saved.keys() == fresh.keys()
    elif isinstance(fresh, list | tuple):
        fits = type(saved) is type(fresh) and len(saved) == len(fresh)
    elif isinstance(fresh, float):  # a best score so far is infinite before the first
        fits = type(saved) in (int, float) and (abs(saved) <= sys.float_info.max or saved == fresh)
    else:
        fits = type(saved) is type(fresh) and (type(saved) is not int or abs(saved) < 2**63)
    if not fits:
        raise ValueError(f"{name}: {shown(saved)}")
    if isinstance(fresh, dict | list | tuple):
        for key in fresh if isinstance(fresh, dict) else range(len(fresh)):
            check_like(saved[key], fresh[key], str(key))
