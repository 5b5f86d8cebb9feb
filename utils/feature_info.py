"""The JSON beside feature pickles: where they come from, and what their classes are called."""

from pathlib import Path

from utils.errors import InputError
from utils.features import SPLITS, Features
from utils.runs import read_json

_KEYS = {"class_names", "files", "overlap"}


def info_path(feature_path: Path) -> Path:
    """``X_BERT_WAV2VEC.json`` for ``X_BERT_WAV2VEC_train.pkl``, of any split."""
    stem = feature_path.stem
    for split in SPLITS:
        stem = stem.removesuffix(f"_{split}")
    return feature_path.with_name(f"{stem}.json")


def read_info(feature_path: Path) -> dict | None:
    """What the JSON beside a pickle says; None where there is none.

    Raises:
        InputError: the JSON is not one of extract_features.py.
    """
    path = info_path(feature_path)
    if not path.is_file():
        return None
    info = read_json(path)
    names = info.get("class_names")
    if not info.keys() >= _KEYS or not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path}: not written by extract_features.py; move it elsewhere")
    return info


def check_described(features: Features, split: str, info: dict | None) -> None:
    """Raise an InputError where a pickle is not the one that its JSON describes, as in a mixture of two extractions."""
    if info is not None and info["files"].get(split, {}).get("sha256") != features.sha256:
        raise InputError(
            f"{features.path}: not the {split} file that {info_path(features.path).name} describes "
            "(another SHA-256); run extract_features.py again, or remove the JSON"
        )
