"""Metadata CSVs: reading them strictly, finding their recordings, giving labels to emotions."""

import csv
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from utils.corpora import COLUMNS, CORPORA, GROUPS
from utils.errors import InputError
from utils.features import SPLITS

REQUIRED = ("audio_file", "raw_text", "label")
Classes = dict[str, tuple[str, ...]]  # class names in label order, and the emotions that each joins beside its own name


def read_metadata(path: Path) -> pd.DataFrame:
    """Read a CSV with the columns :data:`REQUIRED`, and ``speaker``, ``session``, ``dialogue``, ``split`` where it has
    them; all values are text, as they stand.

    Returns:
        Those columns, and ``where``: file and line, for errors.

    Raises:
        InputError: names the file, the line and the value.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            lines = [(reader.line_num, row) for row in reader if row]
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a CSV in UTF-8 ({error})") from error
    if len(lines) < 2:
        raise InputError(f"{path}: no rows; expected a header with {', '.join(REQUIRED)} and a row an utterance")
    header = [name.strip() for name in lines[0][1]]
    for name in REQUIRED:
        if header.count(name) != 1:
            raise InputError(f"{path}: needs one column {name} (it has {', '.join(header)})")
    for line, row in lines[1:]:
        if len(row) != len(header):
            raise InputError(
                f"{path}: line {line}: {len(row)} values for {len(header)} columns (a text with a comma needs quotes)"
            )
    table = pd.DataFrame([row for _, row in lines[1:]], columns=header, dtype=str)
    table = table[[name for name in (*REQUIRED, *GROUPS, "split") if name in header]].apply(lambda c: c.str.strip())
    table["where"] = [f"{path}: line {line}" for line, _ in lines[1:]]
    for name in ("audio_file", "label"):
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
        :data:`~utils.corpora.COLUMNS`, ``where``, ``problem`` ("" where the recording was found) and, where the CSVs
        have it, ``split``.
    """
    table = pd.concat(tables, ignore_index=True)
    known = CORPORA.get(dataset)
    names = list(known.classes) if known else None
    table["emotion"] = [
        _emotion(label, names, where) for label, where in zip(table["label"], table["where"], strict=True)
    ]
    found = locate(list(table["audio_file"]), corpus_dir, base)
    table["problem"] = [problem for _, problem in found]
    table["audio_file"] = [str(path) for path, _ in found]
    derived = [known.groups(path.stem) if known else ("", "", "") for path, _ in found]
    for column, name in enumerate(GROUPS):
        if name not in table:
            table[name] = [groups[column] for groups in derived]
    extra = [name for name in ("where", "problem", "split") if name in table]
    return table[[*COLUMNS, *extra]]


def _emotion(label: str, names: list[str] | None, where: str) -> str:
    """A label's name where the dataset is known, else the label as it stands; 2.0 is 2."""
    number = re.fullmatch(r"(\d+)(?:\.0*)?", label)
    if not number:
        return label
    label = str(int(number[1]))
    if names is None:
        return label
    if int(label) >= len(names):
        raise InputError(f"{where}: label {label}, but there are {len(names)} classes (0 first): {', '.join(names)}")
    return names[int(label)]


def locate(files: Sequence[str], corpus_dir: Path | None, base: Path) -> list[tuple[Path, str]]:
    """Find recordings that a CSV names, if need be by paths of another machine.

    A path is taken as it stands (from ``corpus_dir``, then ``base``); else the file of its name in ``corpus_dir`` whose
    last folders agree with it best.

    Returns:
        For each, its path and what is wrong: "" where it was found.
    """
    parts = [[part for part in re.split(r"[\\/]+", file) if part not in ("", ".")] for file in files]
    by_name: dict[str, list[Path]] = {}
    if corpus_dir is not None:
        wanted = {each[-1] for each in parts if each}
        for folder, _, names in os.walk(corpus_dir):
            for name in wanted.intersection(names):
                by_name.setdefault(name, []).append(Path(folder, name).absolute())
    starts = [folder for folder in (corpus_dir, base) if folder is not None]
    return [_locate_one(file, each, starts, by_name, corpus_dir) for file, each in zip(files, parts, strict=True)]


def _locate_one(
    file: str, parts: list[str], starts: list[Path], by_name: dict[str, list[Path]], corpus_dir: Path | None
) -> tuple[Path, str]:
    for start in starts:
        path = (start / file).absolute()  # an absolute file takes the place of start
        if path.is_file():
            return path, ""
    candidates = by_name.get(parts[-1], []) if parts else []
    agreement = [_common_suffix(path.parts, parts) for path in candidates]
    best = [path for path, length in zip(candidates, agreement, strict=True) if length == max(agreement)]
    if len(best) == 1:
        return best[0], ""
    where = f" in {corpus_dir}" if corpus_dir is not None else "; --corpus_dir names the folder to look in"
    return Path(file), f"{len(best)} recordings of this name{where}" if best else f"no such recording{where}"


def _common_suffix(a: Sequence[str], b: Sequence[str]) -> int:
    length = 0
    while length < min(len(a), len(b)) and a[-1 - length] == b[-1 - length]:
        length += 1
    return length


def parse_classes(given: Sequence[str]) -> Classes:
    """``angry happy neutral=neutral+calm``: class names in label order, some joining several emotions.

    Raises:
        InputError: fewer than two, or a name or an emotion twice.
    """
    classes: Classes = {}
    for word in given:
        name, _, members = word.partition("=")
        if not name or name in classes or (members == "" and "=" in word):
            raise InputError(f"--classes {word}: expected NAME or NAME=EMOTION+EMOTION, each name once")
        classes[name] = tuple(members.split("+")) if members else ()
    if len(classes) < 2:
        raise InputError(f"--classes {' '.join(given)}: at least two are needed")
    counts = Counter(emotion for members in _lookup(classes).values() for emotion in members)
    twice = [emotion for emotion, count in counts.items() if count > 1]
    if twice:
        raise InputError(f"--classes {' '.join(given)}: {twice[0]} is in two classes")
    return classes


def classes_of_labels(table: pd.DataFrame, given: Classes | None) -> Classes:
    """The classes of a CSV of an unknown dataset: its numbers in order from 0, or its names in the alphabet's.

    Args:
        given: what ``--classes`` says. Plain names stand for the numbers 0, 1, ... where the labels are numbers.

    Raises:
        InputError: numbers and names mixed, a number left out, or one class alone.
    """
    emotions = sorted(table["emotion"].unique())
    numbers = [emotion for emotion in emotions if emotion.isdecimal()]
    if given is not None:
        plain = len(numbers) == len(emotions) and not any(given.values())
        return {name: (str(i),) for i, name in enumerate(given)} if plain else given
    if numbers and len(numbers) < len(emotions):
        odd = next(emotion for emotion in emotions if emotion not in numbers)
        row = table[table["emotion"] == odd].iloc[0]
        raise InputError(f"{row['where']}: label {odd!r}, where others are numbers")
    if len(emotions) < 2:
        raise InputError(f"{table['where'].iloc[0]}: every label is {emotions[0]!r}; at least two are needed")
    if not numbers:
        return dict.fromkeys(emotions, ())
    greatest = max(map(int, numbers))
    missing = next((i for i in range(greatest) if str(i) not in numbers), None)
    if missing is not None:
        raise InputError(
            f"{table['where'].iloc[0].rsplit(':', 1)[0]}: labels go to {greatest}, but none is {missing}; "
            "numbers count from 0 without a gap, or --classes names them"
        )
    return {f"class {i}": (str(i),) for i in range(greatest + 1)}


def give_labels(table: pd.DataFrame, classes: Classes) -> tuple[pd.DataFrame, Counter]:
    """Add the column ``label``; utterances of no class are left out.

    Returns:
        The rest, and how many utterances of each emotion were left out.
    """
    label_of = {emotion: label for label, emotions in enumerate(_lookup(classes).values()) for emotion in emotions}
    labels = table["emotion"].str.casefold().map(label_of)
    left_out = Counter(table.loc[labels.isna(), "emotion"])
    kept = table[labels.notna()].copy()
    kept["label"] = labels[labels.notna()].astype(int)
    return kept.reset_index(drop=True), left_out


def _lookup(classes: Classes) -> dict[str, set[str]]:
    """Every spelling of a class: its name alone, or the emotions that it joins and its name."""
    return {name: {name.casefold(), *(member.casefold() for member in members)} for name, members in classes.items()}


def check_split_column(table: pd.DataFrame) -> None:
    """Raise an InputError where ``split`` holds anything but the three names."""
    odd = table[~table["split"].isin(SPLITS)]
    if len(odd):
        raise InputError(f"{odd['where'].iloc[0]}: split {odd['split'].iloc[0]!r}: expected {', '.join(SPLITS)}")
