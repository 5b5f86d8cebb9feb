"""Where to compute."""

import torch

from utils.errors import InputError

# glibc's settings for large activations, exported by utils/environment.sh
ALLOCATOR_SETTINGS = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")


def pick_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is one.

    Raises:
        InputError: ``cuda`` is asked for and torch sees none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch sees no CUDA device here; use --device auto or cpu")
    return torch.device("cuda" if name == "auto" and torch.cuda.is_available() else name.replace("auto", "cpu"))


def set_matmul_precision(precision: str, device: torch.device) -> None:
    """Say how CUDA computes matrix products and convolutions in float32: ``fp32`` exactly, ``tf32`` on tensor cores.

    Raises:
        InputError: ``tf32`` is asked of a CPU.
    """
    if device.type == "cuda":
        mode = "tf32" if precision == "tf32" else "ieee"
        torch.backends.cuda.matmul.fp32_precision = mode
        torch.backends.cudnn.conv.fp32_precision = mode  # tf32 where nothing is said
    elif precision == "tf32":
        raise InputError("--matmul_precision tf32: only a CUDA device has it")


def describe(device: torch.device) -> str:
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)}, {torch.backends.cuda.matmul.fp32_precision} products)"
    return f"cpu ({torch.get_num_threads()} threads)"
