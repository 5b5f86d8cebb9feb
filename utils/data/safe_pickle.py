"""Loads untrusted pickles, ``.pt`` and safetensors files. It rebuilds data and never executes code."""

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
MEMORY = 4 << 30  # bytes; memory that reading a file may use, in addition to a multiple of its size


class _Dtype:
    """Replaces ``numpy.dtype`` and allows only numbers.

    A real dtype restores flags from the pickle, so a crafted file could make numpy follow arbitrary pointers.
    """

    def __init__(self, code: str, align: bool = False, copy: bool = False):
        self.dtype = np.dtype(code) if isinstance(code, str) else None
        if self.dtype is None or self.dtype.kind not in "biuf":
            raise pickle.UnpicklingError(f"an array of {shown(code)} is not allowed; only numbers are")

    def __setstate__(self, state: tuple) -> None:
        byte_order = state[1]
        if byte_order in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(byte_order)


class _Array(np.ndarray):
    """An array that takes its contents with a :class:`_Dtype`."""

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
    """The contents of an array. ``bytes`` of an integer would create that many zeros."""
    if not isinstance(data, bytes | bytearray | memoryview | pickle.PickleBuffer):
        raise pickle.UnpicklingError(f"an array with the contents {shown(data)}")
    return bytes(data)


def _tensor(storage, offset: int, size: tuple, stride: tuple, requires_grad=False, hooks=None) -> Tensor:
    """A tensor [size] that fits into its storage. torch would extend a small storage with undefined memory."""
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
    """The codec that numpy arrays use in protocol 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"codec {shown(encoding)} is not allowed")
    return text.encode("latin1")


_ALLOWED = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("_codecs", "encode"): _encode_latin1,
    ("numpy", "ndarray"): None,  # only passed as an argument, never called
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
            raise pickle.UnpicklingError(f"it requests {module[:80]}.{name[:80]}, which is not on the allow-list")
        return _ALLOWED[module, name]


def load_pickle(data: bytes, path: Path) -> object:
    """Load a pickle of builtin containers, numbers, strings, numpy arrays and torch tensors.

    Args:
        data: the contents of the file ``path``.

    Raises:
        InputError: the file is damaged, or it names something that is not on the allow-list. Nothing is executed.
        MemoryError: it needs more memory than is available.
    """
    try:
        return _AllowListUnpickler(io.BytesIO(data)).load()
    except MemoryError:
        raise
    except Exception as error:  # damaged bytes raise errors of many types in pickle, numpy and torch
        if out_of_memory(error):
            raise MemoryError from error
        if isinstance(error, pickle.UnpicklingError) and "allow" in str(error):
            raise InputError(f"{path}: refused: {one_line(error)}; nothing in it was executed") from error
        raise InputError(f"{path}: not a complete pickle ({one_line(error)})") from error


# ---- files of tensors --------------------------------------------------------------------------------------------


def save_tensors(path: Path, data: dict) -> None:
    """Write a dict of tensors, numbers, strings and containers of these, as safetensors if ``path`` has that suffix.

    Raises:
        OSError: names ``path``.
        TypeError, ValueError: see :func:`~utils.data.safetensors_file.to_safetensors`.
    """
    if path.suffix == SAFETENSORS:
        from utils.data.safetensors_file import to_safetensors  # not needed for training

        atomic_write(path, to_safetensors(data))
        return
    buffer = io.BytesIO()  # on a full disk, a plain write raises an OSError, torch.save does not
    torch.save(data, buffer)
    atomic_write(path, buffer.getvalue())


def load_tensors(path: Path) -> dict:
    """Read a file of :func:`save_tensors` to the CPU. No code in it can run (``weights_only=True`` for ``.pt``).

    Checksums are verified, so a flipped bit is found. torch does not verify them, and safetensors has none.

    Raises:
        InputError: the file is missing, is damaged (names the record), requests code, or is not a dict with string
            keys; or a tensor is not dense or is larger than its contents.
    """
    content = read_file(path)
    try:
        with bounded_memory(MEMORY + 4 * len(content)):
            data = _read_safetensors(content, path) if path.suffix == SAFETENSORS else _read_torch(content, path)
    except InputError:
        raise
    except pickle.UnpicklingError as error:
        raise InputError(f"{path}: refused: not a file of plain weights; nothing in it was executed") from error
    except Exception as error:  # damaged bytes raise errors of many types in torch
        if out_of_memory(error):
            size = f"a file of {len(content)} bytes should need"
            raise InputError(f"{path}: needs more memory than is available, or more than {size}") from error
        raise InputError(f"{path}: not a complete checkpoint ({one_line(error)})") from error
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected a dict, found a {type(data).__name__}")
    if odd := [name for name in data if not isinstance(name, str)]:
        raise InputError(f"{path}: expected strings as keys, found {shown(odd[0])}")
    for tensor in _tensors(data):
        if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized or tensor.is_nested:
            raise InputError(f"{path}: contains a tensor that is not dense")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise InputError(
                f"{path}: contains a tensor of shape {list(tensor.shape)}, which is larger than its contents"
            )
    return data


def _read_safetensors(content: bytes, path: Path) -> dict:
    from utils.data.safetensors_file import from_safetensors  # not needed for training

    return from_safetensors(content, path)


def _read_torch(content: bytes, path: Path) -> object:
    _check_records(content, path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about sparse tensors, which load_tensors refuses
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _check_records(content: bytes, path: Path) -> None:
    """Verify the checksum of every record. torch.save never compresses records; a compressed one could have any size.

    Raises:
        InputError: names the first record that is damaged or not stored uncompressed.
    """
    if not content.startswith(b"PK"):
        raise InputError(
            f"{path}: not a complete checkpoint (not a zip file, which torch.save has written since version 1.6)"
        )
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            records = archive.infolist()
            # a flipped attribute turns a record into a folder, which torch skips
            odd = [each.filename for each in records if each.compress_type or each.external_attr]
            damaged = None if odd else archive.testzip()
    except Exception as error:  # damaged bytes raise errors of many types in zipfile
        raise InputError(f"{path}: not a complete checkpoint ({one_line(error)})") from error
    if odd:
        raise InputError(f"{path}: not a file of torch.save: its record {odd[0]} is compressed or has attributes")
    if damaged:
        raise InputError(f"{path}: damaged: its record {damaged} has a wrong checksum")


def _tensors(data: object) -> Iterator[Tensor]:
    """Yield every tensor in nested containers of any depth."""
    left, seen = [data], set()
    while left:
        each = left.pop()
        if isinstance(each, Tensor):
            yield each
        elif isinstance(each, dict | list | tuple | set) and id(each) not in seen:
            seen.add(id(each))
            left += each.values() if isinstance(each, dict) else each


def check_like(saved: object, fresh: object, name: str) -> None:
    """Raise a ValueError if types, names, lengths, shapes or dtypes differ, or if a number is not finite."""
    if isinstance(fresh, Tensor):
        fits = isinstance(saved, Tensor) and (saved.shape, saved.dtype) == (fresh.shape, fresh.dtype)
        fits = fits and bool(saved.isfinite().all())
    elif isinstance(fresh, dict):
        fits = isinstance(saved, dict) and saved.keys() == fresh.keys()
    elif isinstance(fresh, list | tuple):
        fits = type(saved) is type(fresh) and len(saved) == len(fresh)
    elif isinstance(fresh, float):  # the best score is infinite before the first evaluation
        fits = type(saved) in (int, float) and (abs(saved) <= sys.float_info.max or saved == fresh)
    else:
        fits = type(saved) is type(fresh) and (type(saved) is not int or abs(saved) < 2**63)
    if not fits:
        raise ValueError(f"{name}: {shown(saved)}")
    if isinstance(fresh, dict | list | tuple):
        for key in fresh if isinstance(fresh, dict) else range(len(fresh)):
            check_like(saved[key], fresh[key], str(key))
