"""What the options of a sweep stand for. Needs no torch."""

import socket
import sys

from utils.config import Config, profile_defaults, run_name
from utils.errors import InputError

K = ["k_text", "k_audio"]
K_VALUES = tuple(range(1, 11))  # of each, in the paper


def as_published(options: dict) -> dict:
    """The options of a grid's configuration: the published sweep decays by 0.5, the published training by 0.3."""
    return {"lr_decay": 0.5, **options} if options.get("profile") == "official" else options


def sweep_name(config: Config) -> str:
    """``topk-`` and the name of a run, without k."""
    defaults = profile_defaults(config.profile, config.dataset)
    return "topk-" + run_name(config.replace(**{name: defaults[name] for name in K}))


def check_address(address: str) -> None:
    """Check that Ray is installed and that something listens at the address; Ray itself would try for minutes.

    Raises:
        InputError: Ray is missing, the address is malformed, or nobody answers.
    """
    try:
        import ray  # noqa: F401
    except ImportError as error:
        install = f"{sys.executable} -m pip install -r requirements-ray.txt"
        raise InputError(f"--ray: Ray is not installed here; {install}") from error
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise InputError(f"--ray {address}: expected host:port of the head node, or auto")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"--ray {address}: no Ray cluster there ({error})") from error
