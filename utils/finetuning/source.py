"""What a fine-tuning reads: the utterances of train and val. The test split is no business of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from utils.audio import Recording
from utils.classes import Classes, give_labels, parse_classes
from utils.config import feature_path
from utils.corpora import known_classes
from utils.errors import InputError
from utils.extraction.embedding import probe_all
from utils.extraction.encoding import stop_at_bad
from utils.extraction.feature_writer import metadata_path
from utils.feature_info import info_path, read_info
from utils.files import file_sha256
from utils.preparation import labelled_metadata

TUNED_ON = ("train", "val")


@dataclass(frozen=True)
class Source:
    """Utterances (``audio_file``, ``raw_text``, ``label``) of train and val.

    ``data`` says of each split which file it is; ``recording_sha256`` has the contents of all recordings.
    """

    splits: dict[str, pd.DataFrame]
    class_names: tuple[str, ...]
    recordings: dict[str, Recording]
    data: dict[str, dict]
    recording_sha256: set[str]


def extracted_metadata(feature_dir: str, dataset: str) -> tuple[list[Path], dict]:
    """The CSVs of train and val that extract_features.py wrote beside a dataset's pickles, and what its JSON says.

    Raises:
        InputError: they are not there, or not of the extraction that the JSON describes.
    """
    pickle = feature_path(feature_dir, dataset, "train")
    info = read_info(pickle)
    if info is None:
        raise InputError(
            f"{info_path(pickle)}: no such file; run extract_features.py first, or give --metadata TRAIN.csv VAL.csv"
        )
    paths = [metadata_path(Path(feature_dir), dataset, split) for split in TUNED_ON]
    for split, path in zip(TUNED_ON, paths, strict=True):
        if not path.is_file():
            raise InputError(f"{path}: no such file; run extract_features.py again")
        known = info["files"][split].get("metadata_sha256")
        if known != file_sha256(path):
            how = "not the file that {} describes" if known else "{} has no SHA-256 of it, an older version wrote it"
            raise InputError(f"{path}: {how.format(info_path(pickle).name)}; run extract_features.py again")
    return paths, info


def read_extracted(feature_dir: str, dataset: str, modality: str, corpus_dir: Path | None) -> tuple[Source, dict]:
    """The source that :func:`extracted_metadata` finds, and the JSON's contents.

    Args:
        corpus_dir: where the recordings are by now; None for where they were.
    """
    paths, info = extracted_metadata(feature_dir, dataset)
    classes = {name: (str(label),) for label, name in enumerate(info["class_names"])}
    return _read(paths, "", modality, corpus_dir, classes), info


def read_metadata_files(
    paths: Sequence[Path], dataset: str, modality: str, corpus_dir: Path | None, given: Sequence[str]
) -> Source:
    """The source of two CSVs of the user's, train and val; arguments as those of extract_features.py."""
    return _read(paths, dataset, modality, corpus_dir, parse_classes(given, known_classes(dataset)) if given else None)


def _read(paths: Sequence[Path], corpus: str, modality: str, corpus_dir: Path | None, given: Classes | None) -> Source:
    """Read both CSVs and the headers and contents of all recordings.

    Raises:
        InputError: as the readers; a recording is missing or no audio, a transcript that is to be tuned on is empty,
            a split has no utterance, or train none of a class.
    """
    table, classes = labelled_metadata(paths, corpus, corpus_dir, given)
    table, left_out = give_labels(table, classes)
    if left_out:
        print(f"left out, of no class: {', '.join(f'{count} {emotion}' for emotion, count in left_out.most_common())}")
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

    recordings = probe_all(list(table["audio_file"]), stop_at_bad)
    data = {
        split: {"path": str(path.resolve()), "sha256": file_sha256(path), "utterances": len(splits[split])}
        for split, path in zip(TUNED_ON, paths, strict=True)
    }
    digests = {file_sha256(Path(path)) for path in recordings}
    return Source(splits, tuple(classes), recordings, data, digests)
