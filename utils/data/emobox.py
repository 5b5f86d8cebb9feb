"""EmoBox's metadata (https://github.com/emo-box/EmoBox): the utterances and test folds of a corpus as JSON lines.

A corpus consists of:

- ``<corpus>.jsonl``: one utterance per line, with ``key``, ``wav`` and ``emo``;
- ``label_map.json``, in the same folder or the one above: the class of each emotion;
- for each fold, the test utterances: ``fold_1/<corpus>_test_fold_1.jsonl`` or ``folds/test_fold_1.jsonl``.

EmoBox has neither transcripts nor speakers. You can add them to each line with the key ``raw_text`` or ``text``, and
``speaker`` or ``spk``. Does not import pandas or torch.
"""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PureWindowsPath

from utils.data.corpora import CORPORA, Classes, normalize
from utils.errors import InputError, one_line, shown
from utils.io import read_file, read_json

SUFFIX = ".jsonl"
_LABEL_MAP = "label_map.json"
_TEST_FOLD = re.compile(r"(?:.*_)?test_fold_([1-9]\d{0,3})\.jsonl")


def read_emobox(path: Path, dataset: str, corpus_dir: Path | None) -> list[dict[str, str]]:
    """Read the utterances of a file.

    The label is the class of the emotion in ``label_map.json``. It is the emotion itself if there is no such file, or
    if ``dataset`` is known, because a known dataset has its own classes. If the file of a known dataset lacks
    transcripts, they are read from its release in ``corpus_dir``. Unknown values are "".

    Returns:
        Rows with ``audio_file``, ``raw_text``, ``label``, ``speaker`` and ``where`` (file and line).

    Raises:
        InputError: a line is not JSON, lacks a key, repeats an utterance, is only a part of a recording, or has an
            emotion without a class; names file and line.
    """
    corpus, classes = CORPORA.get(dataset), _label_map(path)
    rows, first = [], {}
    for where, row in _lines(path):
        key, wav, emotion = (_required(row, where, name) for name in ("key", "wav", "emo"))
        if "start_time" in row:
            raise InputError(
                f"{where}: start_time {shown(row['start_time'])}: this is a part of a recording; cut it out first"
            )
        for name, value in (("key", key), ("wav", wav)):
            if other := first.get((name, value)):
                raise InputError(f"{where}: {name} {value!r} is also in {other}")
            first[name, value] = where
        if classes and emotion not in classes:
            raise InputError(f"{where}: emo {emotion!r} is not in {_LABEL_MAP} ({', '.join(classes)})")
        rows.append(
            {
                "audio_file": wav,
                "raw_text": _optional(row, where, "raw_text", "text"),
                "label": emotion if corpus or not classes else classes[emotion],
                "speaker": _optional(row, where, "speaker", "spk"),
                "where": where,
            }
        )
    if not rows:
        raise InputError(f"{path}: no utterances; expected one JSON object per line, with key, wav and emo")
    if corpus and corpus_dir and not all(row["raw_text"] for row in rows):
        texts = {recording.stem: text for recording, text, _ in corpus.find(corpus_dir)}
        for row in rows:
            row["raw_text"] = row["raw_text"] or texts.get(PureWindowsPath(row["audio_file"]).stem, "")
    return rows


def emobox_classes(paths: Sequence[Path], emotions: set[str]) -> Classes:
    """The ``emotions`` that are classes in the ``label_map.json`` of these files, in the order of that file."""
    names = dict.fromkeys(name for path in paths if path.suffix == SUFFIX for name in _label_map(path).values())
    return {name: () for name in names if name in emotions}


def read_folds(folder: Path) -> dict[str, int]:
    """The fold (from 1) that tests each utterance, by the name of the recording without folder and suffix.

    Args:
        folder: EmoBox's folder of a corpus, or its folder of folds.

    Raises:
        InputError: there are no fold files; a fold file is missing, present twice, or damaged; or an utterance occurs
            twice.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    files: dict[int, Path] = {}
    for path in sorted((*folder.glob(f"*{SUFFIX}"), *folder.glob(f"*/*{SUFFIX}"))):
        if match := _TEST_FOLD.fullmatch(path.name):
            other = files.setdefault(int(match[1]), path)
            if other != path:
                raise InputError(f"{path}: fold {match[1]} is also in {other}")
    if not files:
        raise InputError(f"{folder}: no fold files found (test_fold_1.jsonl, or fold_1/<corpus>_test_fold_1.jsonl)")
    if absent := sorted(set(range(1, max(files) + 1)) - set(files)):
        raise InputError(f"{folder}: fold {absent[0]} of {max(files)} has no file")
    folds: dict[str, int] = {}
    first: dict[str, str] = {}
    for fold, path in sorted(files.items()):
        for where, row in _lines(path):
            name = _name(row, where)
            if name in folds:
                raise InputError(f"{where}: utterance {name!r} is also in {first[name]}")
            folds[name], first[name] = fold, where
    return folds


def _name(row: dict, where: str) -> str:
    """The name ``Ses01F_impro04_F000`` from the path of a recording or from the key ``iemocap-Ses01F_impro04_F000``."""
    if "wav" in row:
        return PureWindowsPath(_required(row, where, "wav")).stem
    key = _required(row, where, "key")
    return key.partition("-")[2] or key


def _lines(path: Path) -> Iterator[tuple[str, dict]]:
    """The location (file and line) and JSON object of each line that is not blank."""
    for number, line in enumerate(read_file(path).splitlines(), 1):
        if not line.strip():
            continue
        where = f"{path}: line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: not JSON ({one_line(error)})") from error
        if not isinstance(row, dict):
            raise InputError(f"{where}: expected a JSON object, found {shown(row)}")
        yield where, row


def _text(row: dict, where: str, name: str) -> str:
    """The text value of a key. An integer is accepted too, because speakers may be numbered."""
    if name not in row:
        raise InputError(f"{where}: has no key {name} (it has {', '.join(row)})")
    value = str(row[name]) if type(row[name]) is int else row[name]
    try:
        value.encode()
    except (AttributeError, UnicodeEncodeError) as error:  # not a string, or a lone surrogate
        raise InputError(f"{where}: {name} {shown(value)}: expected a string") from error
    return value.strip()


def _required(row: dict, where: str, name: str) -> str:
    value = _text(row, where, name)
    if not value:
        raise InputError(f"{where}: {name} is empty")
    return value


def _optional(row: dict, where: str, *names: str) -> str:
    return next((_text(row, where, name) for name in names if name in row), "")


def _label_map(path: Path) -> dict[str, str]:
    """The class of each emotion in the ``label_map.json`` of a file's folder or the folder above; {} without one."""
    found = next((each for folder in path.absolute().parents[:2] if (each := folder / _LABEL_MAP).is_file()), None)
    if found is None:
        return {}
    label_map = {
        emotion: normalize(_required({emotion: name}, str(found), emotion))
        for emotion, name in read_json(found).items()
    }
    spelled: dict[str, str] = {}
    for name in label_map.values():
        if (other := spelled.setdefault(name.casefold(), name)) != name:
            raise InputError(f"{found}: class {name!r} is spelled {other!r} elsewhere")
    return label_map
