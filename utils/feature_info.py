"""The JSON beside feature pickles: where they come from, and what their classes are called."""

import re
from collections.abc import Sequence
from pathlib import Path

from utils.errors import InputError
from utils.features import SPLITS, Features
from utils.files import read_json

_PICKLE = re.compile(rf"(.*_BERT_WAV2VEC)_(?:{'|'.join(SPLITS)})\.pkl")


def info_path(feature_path: Path) -> Path | None:
    """``X_BERT_WAV2VEC.json`` for ``X_BERT_WAV2VEC_train.pkl``, of any split; None for a file of another name."""
    match = _PICKLE.fullmatch(feature_path.name)
    return feature_path.with_name(f"{match[1]}.json") if match else None


def read_info(feature_path: Path) -> dict | None:
    """What the JSON beside a pickle says; None where there is none.

    Raises:
        InputError: the JSON is not one of extract_features.py.
    """
    path = info_path(feature_path)
    if path is None or not path.is_file():
        return None
    info = read_json(path)
    names, files = info.get("class_names"), info.get("files")
    if (
        not (isinstance(names, list) and names and all(isinstance(name, str) for name in names))
        or not (isinstance(files, dict) and all(isinstance(files.get(split), dict) for split in SPLITS))
        or not isinstance(info.get("overlap"), dict)
    ):
        raise InputError(f"{path}: not written by extract_features.py; move it elsewhere")
    return info


def encoder_name(description: dict) -> str:
    """An encoder of the JSON as ``--text_model`` or ``--audio_model`` takes it: of the hub, with its commit."""
    name, revision = description["name"], description["revision"]
    return f"{name.partition('@')[0]}@{revision}" if revision else name


def check_described(features: Features, split: str, class_names: Sequence[str] | None) -> None:
    """Hold a split's pickle against the JSON beside it, where there is one.

    Raises:
        InputError: the pickle is not the one that the JSON describes, as in a mixture of two extractions, or has other
            classes than ``class_names`` (None for any).
    """
    info = read_info(features.path)
    if info is None:
        return
    if info["files"][split].get("sha256") != features.sha256:
        raise InputError(
            f"{features.path}: not the {split} file that {info_path(features.path).name} describes "
            "(another SHA-256); run extract_features.py again, or remove the JSON"
        )
    if class_names is not None and list(class_names) != info["class_names"]:
        found, expected = ", ".join(info["class_names"]), ", ".join(class_names)
        raise InputError(f"{features.path}: its classes are {found}, those of the training {expected}")
