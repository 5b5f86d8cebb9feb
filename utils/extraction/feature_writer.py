"""Feature pickles on disk, with the metadata they were made from and a JSON that says how."""

import csv
import hashlib
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from utils.config import feature_path
from utils.corpora import GROUPS
from utils.errors import InputError
from utils.extraction.embedding_cache import EmbeddingCache
from utils.feature_info import info_path, read_info
from utils.features import SPLITS
from utils.files import atomic_write, write_json
from utils.runs import provenance

_LIBRARIES = ("torch", "torchaudio", "transformers", "soundfile", "numpy", "scikit-learn")
# what makes features other features
_IDENTITY = ("corpus", "corpus_dir", "class_names", "split", "utterances_sha256", "encoders")


def metadata_path(feature_dir: Path, dataset: str, split: str) -> Path:
    """The CSV beside a split's pickle."""
    return feature_path(feature_dir, dataset, split).with_suffix(".csv")


def output_paths(folder: Path, dataset: str) -> list[Path]:
    """Pickles and CSVs."""
    return [path(folder, dataset, split) for split in SPLITS for path in (feature_path, metadata_path)]


def check_sources(folder: Path, dataset: str, sources: Sequence[Path]) -> None:
    """Raise an InputError where a file that is read would be written over."""
    outputs = {path.resolve() for path in output_paths(folder, dataset)}
    for source in sources:
        if source.resolve() in outputs:
            raise InputError(f"{source}: would be written over; move it, or give another --dataset or --feature_dir")


def check_target(folder: Path, dataset: str, info: dict, utterances: int, overwrite: bool) -> None:
    """Raise an InputError where features of another extraction, or of more utterances, would be written over."""
    present = [path for path in output_paths(folder, dataset) if path.exists()]
    if overwrite or not present:
        return
    description = info_path(feature_path(folder, dataset, SPLITS[0]))
    old = read_info(feature_path(folder, dataset, SPLITS[0]))
    if old is None:
        raise InputError(
            f"{present[0]}: exists, and extract_features.py did not make it; "
            "give another --dataset or --feature_dir, or --overwrite"
        )
    for key in _IDENTITY:
        if old.get(key) != info[key]:
            what = key.removesuffix("_sha256").replace("_", " ")
            raise InputError(
                f"{description}: features of another extraction (another {what}); "
                "give another --dataset or --feature_dir, or --overwrite"
            )
    before = sum(old["files"][split].get("utterances", 0) for split in SPLITS)
    if utterances < before:
        raise InputError(
            f"{description}: features of {before} utterances, of which {utterances} are left; --overwrite replaces them"
        )


def write_features(
    folder: Path, dataset: str, table: pd.DataFrame, text: EmbeddingCache, audio: dict[str, np.ndarray], info: dict
) -> Path:
    """Write the three pickles, the metadata CSV of each (the same rows in the same order), and the JSON.

    The JSON comes first: with its SHA-256s, a set that was written in part is found out by whoever reads it, and the
    same command may write it again.

    Args:
        table: ``audio_file``, ``raw_text``, ``label``, ``split`` and the groups.
        text: embeddings by transcript.
        audio: embeddings by recording.

    Returns:
        The JSON's path.
    """
    contents, files = {}, {}
    for split in SPLITS:
        rows = table[table["split"] == split]
        path = feature_path(folder, dataset, split)
        contents[path] = pickle.dumps(
            [
                {"text_embed": text[raw_text], "audio_embed": audio[audio_file], "label": int(label)}
                for audio_file, raw_text, label in rows[["audio_file", "raw_text", "label"]].itertuples(index=False)
            ],
            protocol=4,
        )
        contents[metadata_path(folder, dataset, split)] = _csv(rows)
        per_class = rows["label"].value_counts()
        files[split] = {
            "file": path.name,
            "sha256": hashlib.sha256(contents[path]).hexdigest(),
            "metadata_sha256": hashlib.sha256(contents[metadata_path(folder, dataset, split)]).hexdigest(),
            "utterances": len(rows),
            "per_class": {name: int(per_class.get(i, 0)) for i, name in enumerate(info["class_names"])},
        }
    description = info_path(feature_path(folder, dataset, SPLITS[0]))
    write_json(description, {"dataset": dataset, **info, "files": files, **provenance(*_LIBRARIES)})
    for path, data in contents.items():
        atomic_write(path, data)
    return description


def write_csv(path: Path, table: pd.DataFrame) -> None:
    atomic_write(path, _csv(table))


def _csv(table: pd.DataFrame) -> bytes:
    columns = [name for name in ("audio_file", "raw_text", "label", *GROUPS, "reason") if name in table]
    return table[columns].to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n").encode()
