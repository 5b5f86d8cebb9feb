"""Where to compute."""

import torch

from utils.errors import InputError


def pick_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is one.

    Raises:
        InputError: ``cuda`` is asked for and torch sees none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch sees no CUDA device here; use --device auto or cpu")
    return torch.device("cuda" if name == "auto" and torch.cuda.is_available() else name.replace("auto", "cpu"))


def describe(device: torch.device) -> str:
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return f"cpu ({torch.get_num_threads()} threads)"
