"""``finetuning.json`` in a fine-tuned encoder's folder: what it was tuned on, so that it is never tested on that."""

from collections.abc import Sequence
from pathlib import Path

from utils.errors import InputError
from utils.files import file_sha256, read_json

PROVENANCE_FILE = "finetuning.json"


def tuned_on(encoder: str) -> set[str]:
    """SHA-256s of the recordings, in train or val, of all fine-tunings that an encoder went through.

    Args:
        encoder: a folder; one of another make, or a name of the hub, went through none that is known.

    Raises:
        InputError: its file is damaged.
    """
    path = Path(encoder) / PROVENANCE_FILE
    if not path.exists():
        return set()
    known = read_json(path).get("recording_sha256")
    if not isinstance(known, list) or not all(isinstance(digest, str) for digest in known):
        raise InputError(f"{path}: no recording_sha256 in it; it is not the file that finetune.py wrote")
    return set(known)


def check_untested(encoder: str, option: str, test_recordings: Sequence[str]) -> None:
    """Hold an encoder against the recordings that it would be tested on.

    Args:
        encoder: as ``option`` has it.

    Raises:
        InputError: it was fine-tuned on one of them, so that its figures would be too good.
    """
    seen = tuned_on(encoder)
    shared = [path for path in test_recordings if file_sha256(Path(path)) in seen] if seen else []
    if shared:
        raise InputError(
            f"{option} {encoder}: was fine-tuned on {len(shared)} of the {len(test_recordings)} test recordings "
            f"(the first is {shared[0]}); fine-tune on train and val of this split"
        )
