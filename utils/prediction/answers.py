"""What predict.py is asked and what it answers: rows in, a table or JSON lines out."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import soundfile
from tqdm import tqdm

from utils.errors import InputError
from utils.metadata import locate, read_metadata

# what libsndfile reads by itself; RAW has no header
_SUFFIXES = {f".{name.lower()}" for name in soundfile.available_formats()} - {".raw"} | {".aif", ".oga", ".opus"}


@dataclass(frozen=True)
class Row:
    """A recording, as the user named it, and its transcript; ``problem`` where it was not found."""

    given: str
    path: str
    text: str | None
    problem: str = ""


def rows_of_csv(csv: Path, corpus_dir: Path | None) -> list[Row]:
    """The rows of ``audio_file,raw_text``; without that column, or where it is empty, there is no transcript."""
    if corpus_dir is not None and not corpus_dir.is_dir():
        raise InputError(f"--corpus_dir {corpus_dir}: no such folder")
    table = read_metadata(csv, required=("audio_file",), optional=("raw_text",))
    found = locate(list(table["audio_file"]), corpus_dir, csv.parent)
    texts = table["raw_text"] if "raw_text" in table else [""] * len(table)
    return [
        Row(given, str(path), text or None, problem)
        for given, text, (path, problem) in zip(table["audio_file"], texts, found, strict=True)
    ]


def rows_of_paths(paths: Sequence[str], texts: Sequence[str] | None) -> list[Row]:
    """Recordings as they are given, and all that are in a folder.

    Raises:
        InputError: a folder without recordings, or with a transcript.
    """
    rows = []
    for given, text in zip(paths, texts or [None] * len(paths), strict=True):
        if not given:
            raise InputError("--wav: one of the paths is empty")
        if text is not None and not text.isascii() and text != text.encode(errors="replace").decode():
            raise InputError(f"--text {text!a}: not in UTF-8")
        if not _is_folder(given):
            rows.append(Row(given, str(Path(given)), (text and text.strip()) or None))
            continue
        if text is not None:
            raise InputError(f"--text: {given} is a folder; --csv names a transcript for each of its recordings")
        # macOS puts a ._x.wav beside each x.wav on disks of other systems
        files = sorted(p for p in Path(given).rglob("*") if not p.is_dir() and not p.name.startswith("._"))
        inside = [path for path in files if path.suffix.lower() in _SUFFIXES]
        if not inside:
            raise InputError(f"{given}: no recordings in this folder")
        if len(inside) < len(files):
            others = ", ".join(sorted({path.suffix or path.name for path in files} - {p.suffix for p in inside}))
            print(f"note: {len(files) - len(inside)} other files in {given} were not asked ({others})", file=sys.stderr)
        rows += [Row(str(path), str(path), None) for path in inside]
    return rows


def _is_folder(path: str) -> bool:
    try:
        return Path(path).is_dir()
    except OSError:  # a name too long for any
        return False


class Answers:
    """Prints results as they come, above a progress bar (while entered), and counts what failed."""

    def __init__(self, rows: Sequence[Row], class_names: Sequence[str], as_json: bool):
        self.failed = 0
        self._class_names = class_names
        self._as_json = as_json
        self._width = max(len(row.given) for row in rows)
        self._emotion = max(len(name) for name in (*class_names, "emotion"))
        self._count = len(rows)

    def __enter__(self) -> "Answers":
        self._bar = tqdm(total=self._count, unit="file", disable=self._count < 2, dynamic_ncols=True)
        if not self._as_json:
            self._row("recording", "emotion", self._class_names)
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def add(self, row: Row, probabilities: Sequence[float]) -> None:
        by_class = dict(zip(self._class_names, probabilities, strict=True))
        emotion = max(by_class, key=by_class.get)
        if self._as_json:
            rounded = {name: round(value, 6) for name, value in by_class.items()}
            self._object(row, emotion=emotion, probabilities=rounded)
        else:
            self._row(row.given, emotion, [f"{100 * value:.1f}" for value in probabilities])
        self._bar.update()

    def fail(self, row: Row, reason: str) -> None:
        self.failed += 1
        tqdm.write(f"error: {row.given}: {reason}", file=sys.stderr)
        if self._as_json:
            self._object(row, error=reason)
        self._bar.update()

    def _object(self, row: Row, **found: object) -> None:
        self._write(json.dumps({"audio_file": row.given, "raw_text": row.text, **found}, allow_nan=False))

    def _row(self, recording: str, emotion: str, cells: Sequence[str]) -> None:
        numbers = [cell.rjust(max(len(name), 5)) for cell, name in zip(cells, self._class_names, strict=True)]
        self._write("  ".join([recording.ljust(self._width), emotion.ljust(self._emotion), *numbers]))

    def _write(self, line: str) -> None:
        tqdm.write(line)
        sys.stdout.flush()
