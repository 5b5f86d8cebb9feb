"""Metadata CSVs: reading them strictly, finding their recordings, and what their labels mean."""

import csv
import errno
import io
import os
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from utils.corpora import COLUMNS, CORPORA, GROUPS
from utils.errors import InputError

REQUIRED = ("audio_file", "raw_text", "label")
OPTIONAL = (*GROUPS, "split")


def read_metadata(path: Path, required: Sequence[str] = REQUIRED, optional: Sequence[str] = OPTIONAL) -> pd.DataFrame:
    """Read a CSV's ``required`` columns, and the ``optional`` ones that it has; all values are text, as they stand.

    Returns:
        Those columns, and ``where``: file and line, for errors.

    Raises:
        InputError: names the file, the line and the value.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(f"{path}: line {line}: not UTF-8 ({error.reason})") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    lines, start = [], 1
    try:
        for row in reader:
            lines += [(start, row)] if row else []
            start = reader.line_num + 1  # a text may hold line breaks
    except csv.Error as error:
        raise InputError(f"{path}: line {start}: not CSV ({error})") from error
    if len(lines) < 2:
        raise InputError(f"{path}: no rows; expected a header with {', '.join(required)} and a row an utterance")
    header = [name.strip() for name in lines[0][1]]
    for name in (*required, *optional):
        if header.count(name) > 1 or (name in required and name not in header):
            raise InputError(f"{path}: needs one column {name} (it has {', '.join(header)})")
    for line, row in lines[1:]:
        if len(row) != len(header):
            raise InputError(
                f"{path}: line {line}: {len(row)} values for {len(header)} columns (a text with a comma needs quotes)"
            )
    table = pd.DataFrame([row for _, row in lines[1:]], columns=header, dtype=str)
    table = table[[name for name in (*required, *optional) if name in header]].apply(lambda c: c.str.strip())
    table["where"] = [f"{path}: line {line}" for line, _ in lines[1:]]
    for name in [name for name in required if name != "raw_text"]:
        empty = table[table[name] == ""]
        if len(empty):
            raise InputError(f"{empty['where'].iloc[0]}: no {name}")
    return table


def utterances_of(tables: Sequence[pd.DataFrame], dataset: str, corpus_dir: Path | None, base: Path) -> pd.DataFrame:
    """CSV tables as one table of utterances: recordings found, numbers as emotions, groups from names.

    Args:
        corpus_dir: folder that the recordings are looked for in; None for paths as they stand.
        base: folder that relative paths start from without ``corpus_dir``, or where they are not in it.

    Returns:
        :data:`~utils.corpora.COLUMNS`, ``given`` (the CSV's path), ``where``, ``problem`` ("" where the recording was
        found) and, where the CSVs have it, ``split``.
    """
    table = pd.concat(tables, ignore_index=True).fillna("")
    known = CORPORA.get(dataset)
    names = list(known.classes) if known else None
    table["emotion"] = [
        _emotion(label, names, where) for label, where in zip(table["label"], table["where"], strict=True)
    ]
    table["given"] = table["audio_file"]
    found = locate(list(table["audio_file"]), corpus_dir, base)
    table["problem"] = [problem for _, problem in found]
    table["audio_file"] = [str(path) for path, _ in found]
    derived = [known.groups(path.stem) if known else ("", "", "") for path, _ in found]
    for column, name in enumerate(GROUPS):
        given = table[name] if name in table else [""] * len(table)
        table[name] = [value or groups[column] for value, groups in zip(given, derived, strict=True)]
    _check_twice(table)
    extra = [name for name in ("given", "where", "problem", "split") if name in table]
    return table[[*COLUMNS, *extra]]


def _emotion(label: str, names: list[str] | None, where: str) -> str:
    """A label's name where the dataset is known, else the label as it stands; 2.0 is 2."""
    number = re.fullmatch(r"(\d{1,9})(?:\.0*)?", label)
    if not number:
        return label
    label = str(int(number[1]))
    if names is None:
        return label
    if int(label) >= len(names):
        raise InputError(f"{where}: label {label}, but there are {len(names)} classes (0 first): {', '.join(names)}")
    return names[int(label)]


def _check_twice(table: pd.DataFrame) -> None:
    """Raise an InputError where two rows name one recording, by whichever paths."""
    present = table[table["problem"] == ""]
    real = present["audio_file"].map(os.path.realpath)
    twice = present[real.duplicated(keep=False)]
    if len(twice):
        same = twice[real[twice.index] == real[twice.index[0]]]
        first, second = same["where"].iloc[:2]
        raise InputError(f"{second}: {same['audio_file'].iloc[1]}: the same recording as {first}")


def locate(files: Sequence[str], corpus_dir: Path | None, base: Path) -> list[tuple[Path, str]]:
    """Find recordings that a CSV names, if need be by paths of another machine.

    A path is taken as it stands (from ``corpus_dir``, then ``base``); else the file of its name in ``corpus_dir`` whose
    last folders agree with it best. Where the folder before the name is nowhere in the found path, the name alone must
    tell all recordings of the CSV apart.

    Returns:
        For each, its path and what is wrong: "" where it was found.
    """
    parts = [[part for part in re.split(r"[\\/]+", file) if part not in ("", ".")] for file in files]
    by_name: dict[str, list[Path]] = {}
    if corpus_dir is not None:
        wanted = {each[-1] for each in parts if each}
        seen = set()
        for folder, subfolders, names in os.walk(corpus_dir, followlinks=True):
            seen.add(os.path.realpath(folder))
            subfolders[:] = [each for each in subfolders if os.path.realpath(Path(folder, each)) not in seen]
            for name in wanted.intersection(names):
                by_name.setdefault(name, []).append(Path(folder, name).absolute())
    starts = [folder for folder in (corpus_dir, base) if folder is not None]
    names_suffice = len({each[-1] for each in parts if each}) == len(parts)
    where = f" in {corpus_dir}" if corpus_dir is not None else "; --corpus_dir names the folder to look in"
    found = []
    for file, each in zip(files, parts, strict=True):
        path = _as_it_stands(file, starts)
        if path is not None:
            found.append((path, ""))
            continue
        best = _agreeing_best(each, by_name.get(each[-1], []) if each else [])
        if not names_suffice and len(each) > 1:
            best = [path for path in best if each[-2] in path.parts]
        problem = f"{len(best)} recordings of this name" if best else "no such recording"
        found.append((best[0], "") if len(best) == 1 else (Path(file.replace("\\", "/")), problem + where))
    return found


def _as_it_stands(file: str, starts: list[Path]) -> Path | None:
    for start in starts:
        path = (start / file).absolute()  # an absolute file takes the place of start
        try:
            if path.is_file():
                return path
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                return None
            raise
    return None


def _agreeing_best(parts: list[str], candidates: list[Path]) -> list[Path]:
    agreement = [_common_suffix(path.parts, parts) for path in candidates]
    return [path for path, length in zip(candidates, agreement, strict=True) if length == max(agreement)]


def _common_suffix(a: Sequence[str], b: Sequence[str]) -> int:
    length = 0
    while length < min(len(a), len(b)) and a[-1 - length] == b[-1 - length]:
        length += 1
    return length
