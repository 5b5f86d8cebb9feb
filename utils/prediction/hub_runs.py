"""Find a run by its name, on this machine or as an export on the Hugging Face hub."""

from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import LocalEntryNotFoundError

from utils.extraction.checkpoint import NETWORK_SECONDS, asking_the_hub
from utils.training.trained import find_checkpoints


def find_run(target: str, save_path: Path) -> list[Path]:
    """Find the checkpoints of a target of :func:`find_checkpoints`, of ``USER/NAME`` or of ``USER/NAME@REVISION``.

    A run on this machine takes precedence over the hub. Files in the hub's cache are used without the network.

    Raises:
        InputError: the run is in neither place, or the hub cannot be reached.
    """
    here = Path(target).exists() or (save_path / target).exists()
    if not here and target.partition("@")[0].count("/") == 1 and not target.startswith((".", "/", "~")):
        target = str(_snapshot(target))
    return find_checkpoints(target, save_path)[1]


def _snapshot(name: str) -> Path:
    """The cache folder with the files of a repository. Missing files are downloaded."""
    repository, _, revision = name.partition("@")
    with asking_the_hub(name, "--checkpoint"):
        try:
            return Path(huggingface_hub.snapshot_download(repository, revision=revision or None, local_files_only=True))
        except LocalEntryNotFoundError:  # not in the cache, or an interrupted download
            # fails at once without a network, unlike snapshot_download
            huggingface_hub.model_info(repository, revision=revision or None, timeout=NETWORK_SECONDS)
            return Path(huggingface_hub.snapshot_download(repository, revision=revision or None))
