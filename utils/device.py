"""Device selection, precision and seeds."""

import os
import random
import sys
import warnings
from pathlib import Path

import numpy as np
import torch

from utils.errors import InputError, one_line

# glibc's settings for large activations, exported by utils/environment.sh
ALLOCATOR_SETTINGS = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")
GPU_FILES = ("nvidia[0-9]*", "dxg")  # present in /dev if there is an NVIDIA GPU; the second one under Windows


def pick_device(name: str, strict: bool = False) -> torch.device:
    """Select a device. ``auto`` selects CUDA if it is available. Equal runs on CUDA then give bit-identical results.

    If ``auto`` finds a GPU that cannot be used, for example because of an old driver, a note is printed.

    Args:
        strict: on CUDA, an operation without a deterministic algorithm raises an error instead of a warning. Only then
            is the gradient of torch's attention deterministic.

    Raises:
        InputError: ``cuda`` is requested, but torch finds no CUDA device.
    """
    if name == "cpu":
        return torch.device("cpu")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        available = torch.cuda.is_available()  # warns if a GPU cannot be used
    reason = one_line(caught[-1].message).split(". ")[0] if caught else ""
    if available:
        _make_deterministic(strict)
        return torch.device("cuda")
    if name == "cuda":
        reason = f" ({reason})" if reason else ""
        raise InputError(f"--device cuda: torch finds no CUDA device{reason}; use --device auto or cpu")
    if reason and any(path for pattern in GPU_FILES for path in Path("/dev").glob(pattern)):
        print(f"note: the GPU is not used: {reason}", file=sys.stderr)
    return torch.device("cpu")


def _make_deterministic(strict: bool) -> None:
    """Use algorithms that add in a fixed order. cuBLAS needs this workspace for them, and reads it at first use."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=not strict)
    torch.utils.deterministic.fill_uninitialized_memory = False  # helps only to find defects, and costs a write
    torch.backends.cuda.enable_cudnn_sdp(False)  # it would make a new plan for each batch shape


def set_matmul_precision(precision: str, device: torch.device) -> None:
    """Set how CUDA computes float32 matrix products and convolutions: ``fp32`` exactly, ``tf32`` on tensor cores.

    Raises:
        InputError: ``tf32`` is requested on a CPU.
    """
    if device.type == "cuda":
        # Set both switches for both values, because convolutions use TF32 by default. The newer ``fp32_precision`` is
        # not used: after it is set, the getters of these switches raise. Setting these keeps every getter readable.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    elif precision == "tf32":
        raise InputError("--matmul_precision tf32: requires a CUDA device")


def open_device(name: str, precision: str = "fp32", strict: bool = False) -> torch.device:
    """Call :func:`pick_device`, then :func:`set_matmul_precision` for that device."""
    device = pick_device(name, strict)
    set_matmul_precision(precision, device)
    return device


def seed_everything(seed: int) -> None:
    """Seed the generators of Python, numpy and torch."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)  # seeds all devices


def device_name(device: torch.device) -> str:
    """``cpu``, or ``cuda`` with the name of the GPU. Results on different devices differ in their last bits."""
    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else "cpu"


def describe(device: torch.device) -> str:
    if device.type == "cuda":
        precision = "tf32" if torch.backends.cuda.matmul.allow_tf32 else "fp32"
        return f"cuda ({torch.cuda.get_device_name(device)}, {precision} products)"
    return f"cpu ({torch.get_num_threads()} threads)"
