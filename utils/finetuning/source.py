"""Input of fine-tuning: the utterances of train and val. The test split is never read."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from utils.config import feature_path
from utils.data.audio import Recording
from utils.data.classes import classes_of_manifest, give_labels, parse_classes
from utils.data.corpora import Classes, known_classes
from utils.data.features import info_path, read_info
from utils.data.manifest import utterances_of
from utils.errors import InputError
from utils.extraction.embedding import hash_all, probe_all
from utils.extraction.encoding import stop_at_bad
from utils.extraction.feature_writer import manifest_path
from utils.io import file_sha256

TUNED_ON = ("train", "val")


@dataclass(frozen=True)
class Source:
    """Utterances of train and val (``audio_file``, ``raw_text``, ``label``).

    ``data`` describes the manifest of each split. ``recording_sha256`` contains the digests of all recordings.
    """

    splits: dict[str, pd.DataFrame]
    class_names: tuple[str, ...]
    recordings: dict[str, Recording]
    data: dict[str, dict]
    recording_sha256: set[str]


def read_extracted(feature_dir: str, dataset: str, modality: str, corpus_dir: Path | None) -> tuple[Source, dict]:
    """Read the manifests of train and val that extract_features.py wrote next to a dataset's pickles, and their JSON.

    Args:
        corpus_dir: Folder of the recordings; None if they have not moved since the extraction.

    Raises:
        InputError: A file is missing or does not match the JSON; see also :func:`_read`.
    """
    pickle = feature_path(feature_dir, dataset, "train")
    info = read_info(pickle)
    if info is None:
        raise InputError(
            f"{info_path(pickle)}: no such file; run extract_features.py first, or give --metadata TRAIN.csv VAL.csv"
        )
    paths = [manifest_path(Path(feature_dir), dataset, split) for split in TUNED_ON]
    for split, path in zip(TUNED_ON, paths, strict=True):
        if not path.is_file():
            raise InputError(f"{path}: no such file; run extract_features.py again")
        known = info["files"][split].get("metadata_sha256")
        if known != file_sha256(path):
            how = (
                "not the file that {} describes"
                if known
                else "{} is from an older version and does not record its SHA-256"
            )
            raise InputError(f"{path}: {how.format(info_path(pickle).name)}; run extract_features.py again")
    classes = {name: (str(label),) for label, name in enumerate(info["class_names"])}
    return _read(paths, "", modality, corpus_dir, classes), info


def read_given(
    paths: Sequence[Path], dataset: str, modality: str, corpus_dir: Path | None, given: Sequence[str]
) -> Source:
    """Read the user's manifests of train and val. ``dataset`` and ``given`` are as in extract_features.py."""
    return _read(paths, dataset, modality, corpus_dir, parse_classes(given, known_classes(dataset)) if given else None)


def _read(paths: Sequence[Path], corpus: str, modality: str, corpus_dir: Path | None, given: Classes | None) -> Source:
    """Read both manifests, and the headers and contents of all recordings.

    Raises:
        InputError: A recording is missing, not audio or in both splits, a transcript needed for tuning is empty, a
            split has no utterances, or train has no utterance of a class.
    """
    table = utterances_of(paths, corpus, corpus_dir)
    classes = classes_of_manifest(table, known_classes(corpus), given)
    table, excluded = give_labels(table, classes)
    if excluded:
        print(f"excluded, of no class: {', '.join(f'{count} {emotion}' for emotion, count in excluded.most_common())}")
    for where, path, problem, text in table[["where", "audio_file", "problem", "raw_text"]].itertuples(index=False):
        if problem or (modality == "text" and not text):
            raise InputError(f"{where}: {path}: {problem or 'no transcript'}")
    splits = {split: table[table["split"] == split].reset_index(drop=True) for split in TUNED_ON}
    for split, path in zip(TUNED_ON, paths, strict=True):
        if splits[split].empty:
            raise InputError(f"{path}: no utterance of the classes {', '.join(classes)}")
    for label, name in enumerate(classes):
        if label not in set(splits["train"]["label"]):
            raise InputError(f"{paths[0]}: no utterance of class {label}, {name}")

    both = splits["val"][splits["val"]["audio_file"].isin(splits["train"]["audio_file"])]
    if len(both):
        where, path = both[["where", "audio_file"]].iloc[0]
        raise InputError(f"{where}: {path} is also in {paths[0]}; validation needs other recordings")

    recordings = probe_all(list(table["audio_file"]), stop_at_bad)
    data = {
        split: {"path": str(path.resolve()), "sha256": file_sha256(path), "utterances": len(splits[split])}
        for split, path in zip(TUNED_ON, paths, strict=True)
    }
    digests = set(hash_all(recordings, stop_at_bad).values())
    return Source(splits, tuple(classes), recordings, data, digests)
