"""Feature pickles on disk, with the metadata they were made from and a JSON that says how."""

import csv
import hashlib
import io
import pickle
import platform
import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

from utils.config import feature_path
from utils.corpora import GROUPS
from utils.errors import InputError
from utils.feature_info import info_path
from utils.features import SPLITS
from utils.runs import atomic_write, read_json, write_json

_LIBRARIES = ("torch", "torchaudio", "transformers", "soundfile", "numpy", "scikit-learn")
_IDENTITY = ("class_names", "split", "encoders", "corpus")  # what makes features other features


def check_target(folder: Path, dataset: str, info: dict) -> None:
    """Raise an InputError where the dataset's files exist and are not of the same extraction."""
    present = [path for split in SPLITS if (path := feature_path(str(folder), dataset, split)).exists()]
    if not present:
        return
    description = info_path(present[0])
    if not description.is_file():
        raise InputError(
            f"{present[0]}: exists, and extract_features.py did not make it; "
            "give another --dataset or --feature_dir, or --overwrite"
        )
    old = read_json(description)
    for key in _IDENTITY:
        if old.get(key) != info[key]:
            raise InputError(
                f"{description}: features of another extraction (another {key.replace('_', ' ')}); "
                "give another --dataset or --feature_dir, or --overwrite"
            )


def write_features(
    folder: Path,
    dataset: str,
    table: pd.DataFrame,
    text: dict[str, np.ndarray],
    audio: dict[str, np.ndarray],
    info: dict,
) -> Path:
    """Write the three pickles, the metadata CSV of each (the same rows in the same order), and last the JSON.

    Args:
        table: ``audio_file``, ``raw_text``, ``label``, ``split`` and the groups.
        text: embeddings by transcript.
        audio: embeddings by recording.

    Returns:
        The JSON's path.
    """
    files = {}
    for split in SPLITS:
        rows = table[table["split"] == split]
        atomic_write(folder / f"{dataset}_metadata_{split}.csv", _csv(rows))
        data = pickle.dumps(
            [
                {"text_embed": text[raw_text], "audio_embed": audio[path], "label": int(label)}
                for path, raw_text, label in rows[["audio_file", "raw_text", "label"]].itertuples(index=False)
            ],
            protocol=4,
        )
        path = feature_path(str(folder), dataset, split)
        atomic_write(path, data)
        per_class = rows["label"].value_counts()
        files[split] = {
            "file": path.name,
            "sha256": hashlib.sha256(data).hexdigest(),
            "utterances": len(rows),
            "per_class": {name: int(per_class.get(i, 0)) for i, name in enumerate(info["class_names"])},
        }
    versions = {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}}
    command = shlex.join([Path(sys.executable).name, *sys.argv])
    path = info_path(feature_path(str(folder), dataset, SPLITS[0]))
    write_json(path, {"dataset": dataset, **info, "files": files, "versions": versions, "command": command})
    return path


def write_report(path: Path, bad: Sequence[tuple[str, str]]) -> None:
    """The recordings that were left out, or stopped the extraction, and why."""
    atomic_write(path, _csv(pd.DataFrame(bad, columns=["audio_file", "reason"])))


def _csv(table: pd.DataFrame) -> bytes:
    columns = [name for name in ("audio_file", "raw_text", "label", *GROUPS, "reason") if name in table]
    buffer = io.StringIO()
    table[columns].to_csv(buffer, index=False, quoting=csv.QUOTE_MINIMAL, lineterminator="\n")
    return buffer.getvalue().encode()
