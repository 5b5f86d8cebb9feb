"""The options of a sweep. This module does not import torch."""

import socket
import sys

from utils.config import Config, profile_defaults, run_name
from utils.errors import InputError

K = ["k_text", "k_audio"]
K_VALUES = tuple(range(1, 11))  # values of each in the paper


def as_published(options: dict) -> dict:
    """The options of a grid's configuration. The published sweep has lr_decay 0.5, the published training 0.3."""
    return {"lr_decay": 0.5, **options} if options.get("profile") == "official" else options


def sweep_name(config: Config) -> str:
    """``topk-`` and the name of a run without k."""
    defaults = profile_defaults(config.profile, config.dataset)
    return "topk-" + run_name(config.replace(**{name: defaults[name] for name in K}))


def check_address(address: str) -> None:
    """Check that Ray is installed and that something listens at the address; Ray itself retries for minutes.

    Raises:
        InputError: Ray is missing, the address is malformed, or nothing answers.
    """
    try:
        import ray  # noqa: F401
    except ImportError as error:
        install = f"{sys.executable} -m pip install -r requirements-ray.txt"
        raise InputError(f"--ray: Ray is not installed; run {install}") from error
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise InputError(f"--ray {address}: expected host:port of the head node, or auto")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"--ray {address}: no Ray cluster at this address ({error})") from error
