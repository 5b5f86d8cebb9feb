"""Provenance of fine-tuned encoders, which must not be evaluated on recordings that they were fine-tuned on."""

from collections.abc import Sequence
from pathlib import Path

from utils.errors import InputError
from utils.io import file_sha256, read_json

PROVENANCE_FILE = "finetuning.json"  # in a fine-tuned encoder's folder


def tuned_on(encoder: str) -> set[str]:
    """SHA-256 of every train and val recording that an encoder has been fine-tuned on, over all fine-tunings.

    Args:
        encoder: a folder or a hub name. The result is empty if it has no :data:`PROVENANCE_FILE`.

    Raises:
        InputError: the file is damaged.
    """
    path = Path(encoder) / PROVENANCE_FILE
    if not path.exists():
        return set()
    known = read_json(path).get("recording_sha256")
    if not isinstance(known, list) or not all(isinstance(digest, str) for digest in known):
        raise InputError(f"{path}: has no recording_sha256; it is not the file that finetune.py wrote")
    return set(known)


def check_untested(encoder: str, option: str, test_recordings: Sequence[str]) -> None:
    """Raise an InputError if ``encoder``, the value of ``option``, was fine-tuned on a test recording."""
    seen = tuned_on(encoder)
    shared = [path for path in test_recordings if file_sha256(Path(path)) in seen] if seen else []
    if shared:
        raise InputError(
            f"{option} {encoder}: was fine-tuned on {len(shared)} of the {len(test_recordings)} test recordings "
            f"(the first is {shared[0]}); fine-tune on train and val of this split"
        )
