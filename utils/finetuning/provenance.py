"""``finetuning.json`` in a fine-tuned encoder's folder: what it was tuned on, so that it is never tested on that."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from utils.errors import InputError
from utils.runs import read_json

FILE = "finetuning.json"


def recording_sha256(path: str) -> str:
    """Of a recording's file, whatever it is called and wherever it lies."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def check_untested(name: str, option: str, test_recordings: Sequence[str]) -> None:
    """Hold an encoder against the recordings that it would be tested on.

    Args:
        name: the encoder, as ``option`` has it.

    Raises:
        InputError: it was fine-tuned on one of them, in train or val, so that its figures would be too good.
    """
    path = Path(name) / FILE
    if not path.is_file():
        return
    known = read_json(path).get("recording_sha256")
    if not isinstance(known, list):
        raise InputError(f"{path}: no recording_sha256 in it; it is not the file that finetune.py wrote")
    seen = set(known)
    shared = [recording for recording in test_recordings if recording_sha256(recording) in seen]
    if shared:
        raise InputError(
            f"{option} {name}: was fine-tuned on {len(shared)} of the {len(test_recordings)} test recordings "
            f"(the first is {shared[0]}); fine-tune on train and val of this split"
        )
