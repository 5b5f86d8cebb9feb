"""Where to compute."""

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
GPU_FILES = ("nvidia[0-9]*", "dxg")  # in /dev, where there is a GPU of NVIDIA; the second one under Windows


def pick_device(name: str, strict: bool = False) -> torch.device:
    """``auto`` is CUDA where there is one. On CUDA, two equal runs are then equal to the bit.

    Where ``auto`` finds a GPU that cannot be used (of an old driver, say), a note is printed.

    Args:
        strict: on CUDA, an operation without a deterministic algorithm is an error instead of a warning. The gradient
            of torch's attention is deterministic only then.

    Raises:
        InputError: ``cuda`` is asked for and torch sees none.
    """
    if name == "cpu":
        return torch.device("cpu")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        available = torch.cuda.is_available()  # it warns where it cannot use a GPU
    reason = one_line(caught[-1].message).split(". ")[0] if caught else ""
    if available:
        _make_deterministic(strict)
        return torch.device("cuda")
    if name == "cuda":
        reason = f" ({reason})" if reason else ""
        raise InputError(f"--device cuda: torch sees no CUDA device here{reason}; use --device auto or cpu")
    if reason and any(path for pattern in GPU_FILES for path in Path("/dev").glob(pattern)):
        print(f"note: the GPU is not used: {reason}", file=sys.stderr)
    return torch.device("cpu")


def _make_deterministic(strict: bool) -> None:
    """Algorithms that add in a fixed order; cuBLAS has them with this workspace alone, which it reads at first use."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=not strict)
    torch.utils.deterministic.fill_uninitialized_memory = False  # it finds defects, at the price of a write
    torch.backends.cuda.enable_cudnn_sdp(False)  # it plans anew for each shape of a batch


def set_matmul_precision(precision: str, device: torch.device) -> None:
    """Say how CUDA computes matrix products and convolutions in float32: ``fp32`` exactly, ``tf32`` on tensor cores.

    Raises:
        InputError: ``tf32`` is asked of a CPU.
    """
    if device.type == "cuda":
        # Both switches, both ways: convolutions are in TF32 where nothing is said. After the newer ``fp32_precision``,
        # the getters of these would raise; they themselves leave every getter readable.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    elif precision == "tf32":
        raise InputError("--matmul_precision tf32: only a CUDA device has it")


def open_device(name: str, precision: str = "fp32", strict: bool = False) -> torch.device:
    """:func:`pick_device`, then :func:`set_matmul_precision` there."""
    device = pick_device(name, strict)
    set_matmul_precision(precision, device)
    return device


def seed_everything(seed: int) -> None:
    """Seed the generators of Python, numpy and torch."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)  # of all devices


def device_name(device: torch.device) -> str:
    """``cpu``, or ``cuda`` with the GPU's name: between two of these, results differ in their last bits."""
    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else "cpu"


def describe(device: torch.device) -> str:
    if device.type == "cuda":
        precision = "tf32" if torch.backends.cuda.matmul.allow_tf32 else "fp32"
        return f"cuda ({torch.cuda.get_device_name(device)}, {precision} products)"
    return f"cpu ({torch.get_num_threads()} threads)"
