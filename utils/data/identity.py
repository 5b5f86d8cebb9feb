"""Which recording and which speaker each row of a feature pickle is: the CSV of the same name beside it."""

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
Identity = dict[str, tuple[str, ...]]  # ID, ATTRIBUTES and TEXT, each with one text per row; "" for what is not known


def read_identity(pickle: Path, label: Sequence[int]) -> Identity:
    """The identity of a pickle's rows.

    What the CSV does not name come from file names as IEMOCAP, ESD and RAVDESS have them. Without a CSV a row is
    named by its place, ``<pickle>:<row>``, and nothing else is known of it.

    Args:
        label: of the rows. Where the CSV has class numbers, they must be these.

    Raises:
        InputError: the CSV is malformed, has another number of rows or other labels, names a recording twice or none,
            or holds a value that cannot be printed; names file and line.
    """
    path = pickle.with_suffix(".csv")
    if not path.exists():
        return {ID: tuple(f"{pickle.stem}:{row}" for row in range(len(label)))} | dict.fromkeys(
            (*ATTRIBUTES, TEXT), ("",) * len(label)
        )
    (_, header), *rows = read_rows(path) or [("", [])]
    for name in (ID, *ATTRIBUTES, TEXT):
        if header.count(name) > 1 or (name == ID and name not in header):
            raise InputError(f"{path}: needs one column {name} (it has {', '.join(header) or 'no rows'})")
    if len(rows) != len(label):
        raise InputError(f"{path}: {len(rows)} rows, but {pickle.name} has {len(label)}")
    identity = {name: [] for name in (ID, *ATTRIBUTES)}
    texts: list[str] = []
    first: dict[str, str] = {}
    for (where, row), number in zip(rows, label, strict=True):
        if len(row) != len(header):
            raise InputError(f"{where}: {len(row)} values for {len(header)} columns")
        cells = dict(zip(header, row, strict=True))
        if cells.get("label", "").isdecimal() and int(cells["label"]) != number:
            raise InputError(f"{where}: label {shown(cells['label'])}, in {pickle.name} it is {number}")
        recording = cells[ID]
        if not recording or first.setdefault(recording, where) != where:
            reason = f"{shown(recording)} is also in {first[recording]}" if recording else f"no {ID}"
            raise InputError(f"{where}: {reason}")
        derived = groups_of_recording(PureWindowsPath(recording).stem)
        values = [recording, *(cells.get(name) or known for name, known in zip(ATTRIBUTES, derived, strict=True))]
        for name, value in zip(identity, values, strict=True):
            if not is_printable(value):
                raise InputError(f"{where}: {name} {shown(value)} cannot be printed")
            identity[name].append(value)
        texts.append(cells.get(TEXT, ""))  # of any signs: whoever shows a transcript makes it printable
    return {name: tuple(values) for name, values in (*identity.items(), (TEXT, texts))}


def read_rows(path: Path) -> list[tuple[str, list[str]]]:
    """The non-blank rows of a CSV as stripped texts, each with the file and line that it starts on.

    ``pandas.read_csv`` has no line numbers and accepts short rows and text after a closing quote.

    Raises:
        InputError: there is no such file, or it is not UTF-8 or not CSV; names file and line.
    """
    data = read_file(path)
    csv.field_size_limit(max(len(data), csv.field_size_limit()))  # a transcript of hours is longer than the default
    rows, line = [], 1
    try:
        reader = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        for row in reader:
            if row:
                rows.append((f"{path}: line {line}", [value.strip() for value in row]))
            line = reader.line_num + 1  # a quoted text may span lines
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(f"{path}: line {line}: not UTF-8 ({error.reason})") from error
    except csv.Error as error:
        raise InputError(f"{path}: line {line}: not CSV ({error})") from error
    return rows


def write_csv(rows: Sequence[Sequence[object]]) -> bytes:
    """Rows as CSV in UTF-8."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue().encode()
