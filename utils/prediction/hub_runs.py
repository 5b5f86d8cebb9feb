"""A run by its name: on this machine, else an export on the Hugging Face hub."""

from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import LocalEntryNotFoundError

from utils.extraction.checkpoint import NETWORK_SECONDS, asking_the_hub
from utils.training.trained import find_checkpoints


def find_run(target: str, save_path: Path) -> list[Path]:
    """The checkpoints of a target of :func:`find_checkpoints`, or of ``USER/NAME`` or ``USER/NAME@REVISION``.

    What is on this machine goes before the hub. The network is not used for what is in the hub's cache.

    Raises:
        InputError: there is neither, or the hub cannot be reached.
    """
    here = Path(target).exists() or (save_path / target).exists()
    if not here and target.partition("@")[0].count("/") == 1 and not target.startswith((".", "/", "~")):
        target = str(_snapshot(target))
    return find_checkpoints(target, save_path)[1]


def _snapshot(name: str) -> Path:
    """The folder of the cache with the files of a repository, which are fetched if they are not there."""
    repository, _, revision = name.partition("@")
    with asking_the_hub(name, "--checkpoint"):
        try:
            return Path(huggingface_hub.snapshot_download(repository, revision=revision or None, local_files_only=True))
        except LocalEntryNotFoundError:  # none, or a download that was interrupted
            # fails at once without a network, unlike snapshot_download
            huggingface_hub.model_info(repository, revision=revision or None, timeout=NETWORK_SECONDS)
            return Path(huggingface_hub.snapshot_download(repository, revision=revision or None))
