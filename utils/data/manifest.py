"""Manifests (CSVs of utterances, or EmoBox's JSON): reads them strictly, finds recordings, interprets labels."""

import os
import re
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path, PureWindowsPath

import pandas as pd

from utils.config import SPLITS
from utils.data.config import GROUPED
from utils.data.corpora import COLUMNS, CORPORA, GROUPS, check_printable, files_below, normalize
from utils.data.emobox import SUFFIX, read_emobox
from utils.data.identity import read_rows
from utils.errors import InputError, is_printable

REQUIRED = ("audio_file", "raw_text", "label")
OPTIONAL = (*GROUPS, "gender", "split")
_GENDERS = {"female": "F", "f": "F", "male": "M", "m": "M"}
_NAMES = ("label", *OPTIONAL)  # columns whose values are compared with each other


def read_manifest(path: Path, required: Sequence[str] = REQUIRED, optional: Sequence[str] = OPTIONAL) -> pd.DataFrame:
    """Read the ``required`` columns of a CSV, and the ``optional`` ones that it has, as stripped strings.

    Labels, groups and splits are normalised, so that different encodings of the same text are equal.

    Returns:
        These columns, and ``where``: the file and line of each row, for error messages.

    Raises:
        InputError: the file is malformed, a column is missing or duplicated, a required value is empty, or a label,
            group or split is not printable; names file and line.
    """
    rows = read_rows(path)
    if len(rows) < 2:
        raise InputError(f"{path}: no rows; expected a header with {', '.join(required)} and one row per utterance")
    (_, header), *rows = rows
    for name in (*required, *optional):
        if header.count(name) > 1 or (name in required and name not in header):
            raise InputError(f"{path}: needs exactly one column {name} (it has {', '.join(header)})")
    table = pd.DataFrame([row for _, row in rows], columns=header, dtype=str)
    table = table[[name for name in (*required, *optional) if name in header]]
    table = _normalized(table.assign(where=[where for where, _ in rows]))
    for name in required:
        empty = table.loc[table[name] == "", "where"]
        if len(empty) and name != "raw_text":
            raise InputError(f"{empty.iloc[0]}: {name} is empty")
    return table


def _normalized(table: pd.DataFrame) -> pd.DataFrame:
    """Normalise labels, groups and splits that look the same to one form. They must be printable."""
    for name in table.columns.intersection(_NAMES):
        table[name] = table[name].map(normalize)
        for value, where in table[[name, "where"]].drop_duplicates(name).itertuples(index=False):
            if not is_printable(value):
                raise InputError(f"{where}: {name} '{value}' is not printable")
    return table


def utterances_of(
    paths: Sequence[Path], dataset: str, corpus_dir: Path | None, need_texts: bool = True
) -> pd.DataFrame:
    """Combine one or more manifests into one table of utterances, and find their recordings (see :func:`locate`).

    For a known ``dataset``, class numbers become emotions, and missing groups and genders are derived from file names.

    Args:
        paths: one manifest, or one per split (train and val, or train, val and test), which sets ``split``.
        need_texts: whether a CSV needs a column ``raw_text``.

    Returns:
        :data:`~utils.data.corpora.COLUMNS`, ``where`` (file and line) and, if the manifests have it, ``split``.

    Raises:
        InputError: a manifest is malformed, a class number is out of range, a split differs from that of its file, two
            groups differ only in case, the name of a recording is not printable, or two rows name the same recording.
    """
    columns = (REQUIRED, OPTIONAL) if need_texts else (("audio_file", "label"), ("raw_text", *OPTIONAL))
    tables = [
        _normalized(pd.DataFrame(read_emobox(path, dataset, corpus_dir)))
        if path.suffix == SUFFIX
        else read_manifest(path, *columns)
        for path in paths
    ]
    if len(tables) > 1:
        for split, table in zip(SPLITS, tables, strict=False):
            given = table["split"] if "split" in table else [split] * len(table)
            for value, where in zip(given, table["where"], strict=True):
                if value.casefold() not in ("", split):
                    hint = "remove the column, or give one manifest"
                    raise InputError(f"{where}: split {value!r} in the manifest of {split}; {hint}")
            table["split"] = split
    table = pd.concat(tables, ignore_index=True).fillna("")
    if "raw_text" not in table:
        table["raw_text"] = ""
    corpus = CORPORA.get(dataset)
    names = list(corpus.classes) if corpus else None
    table["emotion"] = [_emotion(*row, names) for row in zip(table["label"], table["where"], strict=True)]
    table["given"] = table["audio_file"]
    found, table["problem"] = zip(*locate(list(table["given"]), corpus_dir, paths[0].parent), strict=True)
    table["audio_file"] = [str(path) for path in found]
    columns = [*GROUPS, "gender"]
    groups = [corpus.groups_and_gender(path.stem) if corpus else ("",) * len(columns) for path in found]
    derived = pd.DataFrame(groups, columns=columns)
    for name in columns:
        table[name] = table[name].where(table[name] != "", derived[name]) if name in table else derived[name]
    table["gender"] = table["gender"].map(lambda gender: _GENDERS.get(gender.casefold(), gender))
    for name in GROUPED:
        check_spelling(table.drop_duplicates(name).set_index(name)["where"], name)
    for path, where in zip(table["audio_file"], table["where"], strict=True):
        check_printable(path, f"{where}: ")
    first_row: dict[str, str] = {}
    for path, where in table.loc[table["problem"] == "", ["audio_file", "where"]].itertuples(index=False):
        first = first_row.setdefault(os.path.realpath(path), where)
        if first != where:
            raise InputError(f"{where}: {path}: the same recording as {first}")
    return table[[*COLUMNS, "where", *(["split"] if "split" in table else [])]]


def check_spelling(first: pd.Series, column: str) -> None:
    """Raise an InputError if two values of a column differ only in case; ``first`` is where each value first occurs."""
    spelled: dict[str, str] = {}
    for value in sorted(first.index):
        one = spelled.setdefault(value.casefold(), value)
        if one != value:
            raise InputError(f"{first[value]}: {column} {value!r} is spelled {one!r} in {first[one]}")


def _emotion(label: str, where: str, names: list[str] | None) -> str:
    """The emotion of a class number of a known dataset. Other labels are unchanged, except that 2.0 becomes 2."""
    match = re.fullmatch(r"(\d{1,9})(?:\.0*)?", label)
    if not match:
        return label
    number = int(match[1])
    if names is None:
        return str(number)
    if number >= len(names):
        classes = f"{len(names)} classes, 0 to {len(names) - 1}: {', '.join(names)}"
        raise InputError(f"{where}: label {number} is out of range ({classes})")
    return names[number]


def locate(files: Sequence[str], corpus_dir: Path | None, base: Path) -> list[tuple[Path, str]]:
    """Find the recordings that a manifest names, including by paths of another machine.

    A path that exists relative to ``corpus_dir`` or ``base`` is used as is. Otherwise, the recording is the file of the
    same name below ``corpus_dir`` with the longest common path suffix. If file names are not unique in ``files``, the
    name of the parent folder must also occur in the found path.

    Args:
        corpus_dir: the folder to search. None searches nothing.
        base: the folder of the manifest.

    Returns:
        For each recording, its absolute path and "", or the given path and the reason why it was not found.
    """
    if corpus_dir is not None and not corpus_dir.is_dir():
        raise InputError(f"--corpus_dir {corpus_dir}: no such folder")
    paths = [PureWindowsPath(file) for file in files]  # splits at slashes and backslashes
    wanted = {path.name for path in paths}
    by_name, unread = _files_by_name(corpus_dir, wanted) if corpus_dir else ({}, [])
    starts = [folder for folder in (corpus_dir, base) if folder]
    where = f" in {corpus_dir}" if corpus_dir else "; use --corpus_dir to name the folder to search"
    found = []
    for file, path in zip(files, paths, strict=True):
        best, denied = [], []
        for folder in starts:
            each = (folder / file).absolute()  # joining an absolute path replaces the folder
            try:
                if each.is_file():
                    best = [each]
                    break
            except PermissionError as error:
                denied.append(f"{each}: {error.strerror}")
            except OSError:  # the name is longer than the system allows
                pass
        if not best:
            best = _longest_common_suffix(path, by_name.get(path.name, []))
            if len(wanted) < len(files) and path.parent.name:
                best = [each for each in best if path.parent.name in each.parts]
        problem = f"{len(best)} recordings have this name" if best else "no such recording"
        reason = "".join(f" ({each})" for each in (denied + unread)[:1]) if not best else ""
        found.append((best[0], "") if len(best) == 1 else (Path(path.as_posix()), problem + where + reason))
    return found


def _files_by_name(root: Path, wanted: set[str]) -> tuple[dict[str, list[Path]], list[str]]:
    """Find the files below ``root`` with these names. Also return the unreadable folders, each with the reason."""
    by_name: dict[str, list[Path]] = {}
    unread: list[str] = []
    for path in files_below(root, lambda error: unread.append(f"{error.filename}: {error.strerror}")):
        if path.name in wanted:
            by_name.setdefault(path.name, []).append(path.absolute())
    return by_name, unread


def _longest_common_suffix(path: PureWindowsPath, candidates: list[Path]) -> list[Path]:
    """The candidates that share the most trailing parts with ``path``."""
    pairs = [zip(reversed(each.parts), reversed(path.parts), strict=False) for each in candidates]
    common = [sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], each)) for each in pairs]
    return [each for each, length in zip(candidates, common, strict=True) if length == max(common)]
