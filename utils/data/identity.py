"""The recording and speaker of each row of a feature pickle, from the CSV of the same name."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath

from utils.data.corpora import GROUPS, groups_of_recording
from utils.errors import InputError, is_printable, shown
from utils.io import read_file

ID = "audio_file"
ATTRIBUTES = (*GROUPS, "gender")
TEXT = "raw_text"
Identity = dict[str, tuple[str, ...]]  # ID, ATTRIBUTES and TEXT, each with one string per row; "" if unknown


def read_identity(pickle: Path, label: Sequence[int]) -> Identity:
    """Read the identity of the rows of a pickle.

    Attributes that the CSV lacks are derived from file names in the style of IEMOCAP, ESD and RAVDESS. Without a CSV,
    the rows are named ``<pickle>:<row>`` and everything else is unknown.

    Args:
        label: labels of the rows. If the CSV has class numbers, they must be equal to these.

    Raises:
        InputError: the CSV is malformed, has a different number of rows or different labels, repeats or lacks the name
            of a recording, or contains a value that is not printable; names file and line.
    """
    path = pickle.with_suffix(".csv")
    if not path.exists():
        return {ID: tuple(f"{pickle.stem}:{row}" for row in range(len(label)))} | dict.fromkeys(
            (*ATTRIBUTES, TEXT), ("",) * len(label)
        )
    (_, header), *rows = read_rows(path) or [("", [])]
    for name in (ID, *ATTRIBUTES, TEXT):
        if header.count(name) > 1 or (name == ID and name not in header):
            raise InputError(f"{path}: needs exactly one column {name} (it has {', '.join(header) or 'no rows'})")
    if len(rows) != len(label):
        raise InputError(f"{path}: {len(rows)} rows, but {pickle.name} has {len(label)}")
    identity = {name: [] for name in (ID, *ATTRIBUTES)}
    texts: list[str] = []
    first: dict[str, str] = {}
    for (where, row), number in zip(rows, label, strict=True):
        cells = dict(zip(header, row, strict=True))
        if cells.get("label", "").isdecimal() and int(cells["label"]) != number:
            raise InputError(f"{where}: label {shown(cells['label'])}, but {number} in {pickle.name}")
        recording = cells[ID]
        if not recording or first.setdefault(recording, where) != where:
            reason = f"{shown(recording)} is also in {first[recording]}" if recording else f"{ID} is empty"
            raise InputError(f"{where}: {reason}")
        derived = groups_of_recording(PureWindowsPath(recording).stem)
        values = [recording, *(cells.get(name) or known for name, known in zip(ATTRIBUTES, derived, strict=True))]
        for name, value in zip(identity, values, strict=True):
            if not is_printable(value):
                raise InputError(f"{where}: {name} {shown(value)} is not printable")
            identity[name].append(value)
        texts.append(cells.get(TEXT, ""))  # may have any characters; code that shows a transcript makes it printable
    return {name: tuple(values) for name, values in (*identity.items(), (TEXT, texts))}


def read_rows(path: Path) -> list[tuple[str, list[str]]]:
    """Read the non-blank rows of a CSV as stripped strings, each with the file and line at which it starts.

    ``pandas.read_csv`` has no line numbers and accepts short rows and text after a closing quote.

    Raises:
        InputError: the file does not exist, is not UTF-8 or is not CSV, or a row has more or fewer values than the
            first; names file and line.
    """
    data = read_file(path)
    csv.field_size_limit(max(len(data), csv.field_size_limit()))  # the default is too short for a transcript of hours
    rows, line = [], 1
    try:
        reader = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        for row in reader:
            if row:
                rows.append((f"{path}: line {line}", [value.strip() for value in row]))
            line = reader.line_num + 1  # a quoted value may span several lines
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(f"{path}: line {line}: not UTF-8 ({error.reason})") from error
    except csv.Error as error:
        raise InputError(f"{path}: line {line}: not CSV ({error})") from error
    for where, row in rows:
        if len(row) != (columns := len(rows[0][1])):
            raise InputError(f"{where}: {len(row)} values for {columns} columns (a text with a comma needs quotes)")
    return rows


def write_csv(rows: Sequence[Sequence[object]]) -> bytes:
    """Format rows as CSV in UTF-8."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue().encode()
