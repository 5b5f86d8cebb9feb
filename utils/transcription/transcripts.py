"""Stores recognised transcripts in a CSV. People may edit it, and edited transcripts are used as they are."""

import time
from pathlib import Path

from utils.data.audio import Segment
from utils.data.identity import read_rows, write_csv
from utils.errors import InputError, shown
from utils.extraction.embedding_cache import SAVE_SECONDS
from utils.io import atomic_write, check_writable, lock

KEY = ("sha256", "recognizer", "start", "stop")
COLUMNS = ("audio_file", "raw_text", *KEY)
_Key = tuple[str, ...]


class Transcripts:
    """Transcripts by segment and recogniser: rows of :data:`COLUMNS`, one per segment.

    Recordings are identified by SHA-256, so a moved recording is found again and a changed one is not. ``start`` and
    ``stop`` are seconds. They are empty for a whole recording. Used as a context manager, it saves when the block ends.

    Args:
        recognizer: Name of the recogniser whose transcripts are read and added.

    Raises:
        InputError: The file is malformed, or has two rows for one segment; names file and line.
        OSError: The folder cannot be written.
    """

    def __init__(self, path: Path, recognizer: str):
        check_writable(path.parent)
        self.path = path
        self._recognizer = recognizer
        self._rows = _read(path)
        self._unsaved: dict[_Key, tuple[str, str]] = {}
        self._saved_at = time.monotonic()

    def __enter__(self) -> "Transcripts":
        return self

    def __exit__(self, *_: object) -> None:
        self.save()

    def get(self, segment: Segment) -> str | None:
        """The transcript of a segment; "" if no words were recognised, None if it is unknown.

        Raises:
            OSError: The recording cannot be read.
        """
        row = self._rows.get(self._key(segment))
        return row and row[1]

    def add(self, segment: Segment, text: str) -> None:
        """Add a transcript. Save if more than :data:`SAVE_SECONDS` have passed since the last save."""
        key = self._key(segment)
        self._rows[key] = self._unsaved[key] = (str(segment.recording.path), text)
        if time.monotonic() - self._saved_at > SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Write what was added since the last save. Rows that the file has gained in the meantime are not changed.

        Raises:
            InputError: The file was damaged in the meantime. The new rows are in another file, which the error names.
        """
        if self._unsaved:
            with lock(self.path, wait=True):
                try:
                    known = _read(self.path)
                except InputError as error:
                    aside = self.path.with_suffix(".unsaved.csv")
                    _write(aside, self._unsaved)
                    raise InputError(f"{error}; the new transcripts are in {aside}") from error
                _write(self.path, known | self._unsaved | known)
            self._unsaved = {}
        self._saved_at = time.monotonic()

    def _key(self, segment: Segment) -> _Key:
        recording = segment.recording
        bounds = (segment.start, segment.stop) if segment != recording.whole else ()
        seconds = [f"{frame / recording.rate:.3f}" for frame in bounds] or ["", ""]
        return (recording.sha256, self._recognizer, *seconds)


def _write(path: Path, rows: dict[_Key, tuple[str, str]]) -> None:
    atomic_write(path, write_csv([COLUMNS, *((*row, *key) for key, row in rows.items())]))


def _read(path: Path) -> dict[_Key, tuple[str, str]]:
    if not path.exists():
        return {}
    (_, header), *rows = read_rows(path) or [("", [])]
    if tuple(header) != COLUMNS:
        raise InputError(f"{path}: expected the columns {', '.join(COLUMNS)} (it has {', '.join(header) or 'no rows'})")
    found: dict[_Key, tuple[str, str]] = {}
    first: dict[_Key, str] = {}
    for where, row in rows:
        audio_file, raw_text, sha256, recognizer, *bounds = row
        try:  # a spreadsheet may write 0.100 as 0.1
            seconds = [f"{float(bound):.3f}" if bound else "" for bound in bounds]
        except ValueError as error:
            raise InputError(f"{where}: start and stop {shown(bounds)} are not seconds") from error
        key = (sha256, recognizer, *seconds)
        if first.setdefault(key, where) != where:
            raise InputError(f"{where}: has the same segment and recogniser as {first[key]}")
        found[key] = (audio_file, raw_text)
    return found
