"""Writes feature pickles, with a manifest of their rows and a JSON that describes their origin."""

import csv
import hashlib
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from utils.config import SPLITS, feature_path
from utils.data.corpora import GROUPS
from utils.data.features import info_path, read_info
from utils.errors import InputError, reading
from utils.extraction.embedding_cache import EmbeddingCache
from utils.io import atomic_write, environment_info, write_json

_LIBRARIES = ("torch", "torchaudio", "transformers", "soundfile", "numpy", "scikit-learn")
# entries of the JSON that determine the features
_IDENTITY = ("corpus", "corpus_dir", "class_names", "split", "utterances_sha256", "encoders")
_ELSEWHERE = "give another --dataset or --feature_dir"


def manifest_path(feature_dir: Path, dataset: str, split: str) -> Path:
    """The manifest that belongs to the pickle of a split."""
    return feature_path(feature_dir, dataset, split).with_suffix(".csv")


def report_path(feature_dir: Path, dataset: str) -> Path:
    """The list of recordings that cannot be used. It is removed if there are none."""
    return feature_dir / f"{dataset}_bad_recordings.csv"


def output_paths(folder: Path, dataset: str) -> list[Path]:
    """All pickles and manifests of a dataset."""
    return [path(folder, dataset, split) for split in SPLITS for path in (feature_path, manifest_path)]


def check_sources(folder: Path, dataset: str, sources: Sequence[Path]) -> None:
    """Raise an InputError if an input file, or a link to it, would be overwritten or removed."""
    described = info_path(feature_path(folder, dataset, SPLITS[0]))
    outputs = [*output_paths(folder, dataset), described, report_path(folder, dataset)]
    present = [path for path in outputs if path.exists()]
    for source in sources:
        if source.exists() and any(path.samefile(source) for path in present):
            raise InputError(f"{source}: would be overwritten; move it, or {_ELSEWHERE}")


def check_target(folder: Path, dataset: str, info: dict, utterances: int, overwrite: bool) -> None:
    """Raise an InputError if this would overwrite features of another extraction or of more utterances."""
    present = [path for path in output_paths(folder, dataset) if path.exists()]
    if overwrite or not present:
        return
    description = info_path(feature_path(folder, dataset, SPLITS[0]))
    old = read_info(feature_path(folder, dataset, SPLITS[0]))
    if old is None:
        raise InputError(
            f"{present[0]}: exists and was not written by extract_features.py; {_ELSEWHERE}, or use --overwrite"
        )
    for key in _IDENTITY:
        if old.get(key) != info[key]:
            what = key.removesuffix("_sha256").replace("_", " ")
            raise InputError(
                f"{description}: features of another extraction (different {what}); {_ELSEWHERE}, or use --overwrite"
            )
    with reading(description, "has no valid utterance counts"):
        before = sum(old["files"][split]["utterances"] for split in SPLITS)
    if utterances < before:
        raise InputError(
            f"{description}: has features of {before} utterances, but only {utterances} are usable now; "
            "use --overwrite to replace them"
        )


def write_features(
    folder: Path, dataset: str, table: pd.DataFrame, text: EmbeddingCache, audio: dict[str, np.ndarray], info: dict
) -> Path:
    """Write the three pickles, the manifest of each (same rows in the same order), and the JSON.

    The JSON is written first. Its SHA-256 values let readers detect an incomplete set of files. Each manifest is
    written before its pickle, because readers verify the pickle alone.

    Args:
        table: Columns ``audio_file``, ``raw_text``, ``label``, ``split`` and the groups.
        text: Embeddings by transcript.
        audio: Embeddings by recording.
        info: Further content of the JSON.

    Returns:
        Path of the JSON.
    """
    contents, files = {}, {}
    for split in SPLITS:
        rows = table[table["split"] == split]
        path, manifest = feature_path(folder, dataset, split), manifest_path(folder, dataset, split)
        features = [
            {"text_embed": text[raw_text], "audio_embed": audio[audio_file], "label": int(label)}
            for audio_file, raw_text, label in rows[["audio_file", "raw_text", "label"]].itertuples(index=False)
        ]
        contents |= {manifest: csv_bytes(rows), path: pickle.dumps(features, protocol=4)}
        per_class = rows["label"].value_counts()
        files[split] = {
            "file": path.name,
            "sha256": hashlib.sha256(contents[path]).hexdigest(),
            "metadata_sha256": hashlib.sha256(contents[manifest]).hexdigest(),
            "utterances": len(rows),
            "per_class": {name: int(per_class.get(i, 0)) for i, name in enumerate(info["class_names"])},
        }
    description = info_path(feature_path(folder, dataset, SPLITS[0]))
    write_json(description, {"dataset": dataset, **info, "files": files, **environment_info(*_LIBRARIES)})
    for path, data in contents.items():
        atomic_write(path, data)
    return description


def csv_bytes(table: pd.DataFrame) -> bytes:
    """Format a manifest or report as CSV."""
    names = ("audio_file", "raw_text", "label", *GROUPS, "gender", "recognizer", "reason")
    columns = [name for name in names if name in table]
    return table[columns].to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n").encode()
