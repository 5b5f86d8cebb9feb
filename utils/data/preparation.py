"""Prepares the labelled utterances of a corpus or of manifests for an extraction."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from utils.data.classes import classes_of_manifest, give_labels, parse_classes
from utils.data.corpora import CORPORA, known_classes
from utils.data.emobox import SUFFIX, emobox_classes
from utils.data.manifest import utterances_of
from utils.errors import InputError


def read_utterances(
    corpus: str,
    corpus_dir: Path | None,
    manifests: Sequence[Path],
    class_words: Sequence[str] | None,
    allow_partial: bool,
    need_texts: bool = True,
) -> tuple[pd.DataFrame, list[str]]:
    """Read a corpus, or manifests if any are given. Assign labels and print the counts.

    Args:
        class_words: as in :func:`~utils.data.classes.parse_classes`. None selects the classes of the corpus or
            manifests.
        allow_partial: accept a corpus whose number of utterances differs from that of its release.
        need_texts: whether an utterance without a transcript is a problem.

    Returns:
        A table of :data:`~utils.data.corpora.COLUMNS`, ``label`` and, if the manifests have it, ``split``; and the
        class names in label order. A row with a ``problem`` cannot be used. It stays in the table and is split like the
        others, so that repairing a file does not move any other utterance to a different split.
    """
    known = known_classes(corpus)
    given = parse_classes(class_words, known) if class_words else None
    if manifests:
        table = utterances_of(manifests, corpus, corpus_dir, need_texts)
        if need_texts and not known and manifests[0].suffix == SUFFIX and not table["raw_text"].any():
            message = "no transcripts (EmoBox has none); add a key raw_text to its lines, or use --transcribe"
            raise InputError(f"{manifests[0]}: {message}")
        classes = classes_of_manifest(table, known or emobox_classes(manifests, set(table["emotion"])), given)
    else:
        table = _read_corpus(corpus, corpus_dir, allow_partial)
        classes = given or known
    table, excluded = give_labels(table, classes)
    if table.empty:
        raise InputError(f"no utterance belongs to the classes {', '.join(classes)}; found: {', '.join(excluded)}")
    counts = Counter(table["label"])
    per_class = ", ".join(f"{counts[i]} {name}" for i, name in enumerate(classes))
    print(f"{corpus}: {len(table)} utterances: {per_class}")
    if excluded:
        print(f"excluded, in no class: {', '.join(f'{count} {emotion}' for emotion, count in excluded.most_common())}")
    if need_texts:
        table.loc[(table["problem"] == "") & (table["raw_text"] == ""), "problem"] = "no transcript"
    return table, list(classes)


def _read_corpus(name: str, folder: Path | None, allow_partial: bool) -> pd.DataFrame:
    """Read a corpus, and compare the number of utterances of its classes with that of its release."""
    if name not in CORPORA:
        raise InputError(
            f"{name}: no reader for this corpus (there are {', '.join(CORPORA)}); "
            "list its utterances with --metadata, a CSV with audio_file,raw_text,label"
        )
    if folder is None:
        raise InputError(f"--corpus_dir: required; give the folder of {name}")
    corpus = CORPORA[name]
    table = corpus.read(folder)
    if table.empty:
        raise InputError(f"--corpus_dir {folder}: contains no utterance of {name}")
    labelled, _ = give_labels(table, corpus.classes)
    expected = corpus.expected(labelled)
    if len(labelled) == expected:
        print(f"{name}: complete, {expected} utterances of {', '.join(corpus.classes)}")
        return table
    groups = Counter(labelled["session"].where(labelled["session"] != "", labelled["speaker"]))
    found = ", ".join(f"{count} of {group}" for group, count in sorted(groups.items()))
    message = f"{folder}: {len(labelled)} utterances, but {name} has {expected} ({found})"
    if not allow_partial:
        raise InputError(f"{message}; use --allow_partial to accept them")
    print(f"note: {message}")
    return table


def utterances_sha256(table: pd.DataFrame) -> str:
    """SHA-256 of the names of the recordings, their transcripts, labels and splits."""
    values = table[["given", "raw_text", "label", "split"]].to_json(orient="values")
    return hashlib.sha256(values.encode()).hexdigest()
