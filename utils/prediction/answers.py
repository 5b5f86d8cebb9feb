"""Requests and answers of predict.py: recordings in, a table or JSON lines out."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import soundfile
from tqdm import tqdm

from utils.data.corpora import files_below
from utils.data.manifest import locate, read_manifest
from utils.errors import InputError, printable

# formats that libsndfile recognises; RAW has no header
_SUFFIXES = {f".{name.lower()}" for name in soundfile.available_formats()} - {".raw"} | {".aif", ".oga", ".opus"}

UNCERTAIN = "uncertain"  # the emotion where no class is probable enough


@dataclass(frozen=True)
class Request:
    """A recording as the user named it, and its transcript; ``problem`` if it was not found."""

    given: str
    path: str
    text: str | None
    problem: str = ""


def requests_of_csv(csv: Path, corpus_dir: Path | None) -> list[Request]:
    """Requests of a CSV with ``audio_file`` and, optionally, ``raw_text``; an empty cell is no transcript."""
    table = read_manifest(csv, required=("audio_file",), optional=("raw_text",))
    found = locate(list(table["audio_file"]), corpus_dir, csv.parent)
    texts = table["raw_text"] if "raw_text" in table else [""] * len(table)
    return [
        Request(given, str(path), text or None, problem)
        for given, text, (path, problem) in zip(table["audio_file"], texts, found, strict=True)
    ]


def requests_of_paths(paths: Sequence[str], texts: Sequence[str] | None) -> list[Request]:
    """Requests of recordings, and of all recordings in a folder; a folder below it that cannot be read is a failed one.

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
            rows.append(Request(given, str(Path(given)), (text and text.strip()) or None))
            continue
        if text is not None:
            raise InputError(f"--text: {given} is a folder; --csv names a transcript for each of its recordings")
        # macOS puts a ._x.wav beside each x.wav on disks of other systems
        unread: list[OSError] = []
        files = sorted(path for path in files_below(Path(given), unread.append) if not path.name.startswith("._"))
        inside = [path for path in files if path.suffix.lower() in _SUFFIXES]
        if not inside and not unread:
            raise InputError(f"{given}: no recordings in this folder")
        if len(inside) < len(files):
            others = ", ".join(sorted({path.suffix or path.name for path in files} - {p.suffix for p in inside}))
            note = f"note: {len(files) - len(inside)} other files in {given} were skipped ({others})"
            print(printable(note), file=sys.stderr)
        rows += [Request(str(path), str(path), None) for path in inside]
        rows += [Request(each.filename, each.filename, None, f"cannot be read ({each.strerror})") for each in unread]
    return rows


def _is_folder(path: str) -> bool:
    try:
        return Path(path).is_dir()
    except OSError:  # a name too long for any
        return False


class Answers:
    """Print results as they come, above a progress bar inside the ``with`` block, and count the failures.

    Args:
        min_confidence: where the highest probability is below it, the emotion is :data:`UNCERTAIN`.
    """

    def __init__(
        self, requests: Sequence[Request], class_names: Sequence[str], as_json: bool, min_confidence: float = 0.0
    ):
        self.failed = 0
        self._min_confidence = min_confidence
        self._class_names = class_names
        self._as_json = as_json
        self._width = max(len(printable(request.given)) for request in requests)
        self._emotion = max(len(name) for name in (*class_names, "emotion", UNCERTAIN if min_confidence else ""))
        self._count = len(requests)

    def __enter__(self) -> "Answers":
        self._bar = tqdm(total=self._count, unit="file", disable=self._count < 2, dynamic_ncols=True)
        if not self._as_json:
            self._row("recording", "emotion", self._class_names)
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def add(self, request: Request, probabilities: Sequence[float]) -> None:
        by_class = dict(zip(self._class_names, probabilities, strict=True))
        emotion = max(by_class, key=by_class.get)
        if by_class[emotion] < self._min_confidence:
            emotion = UNCERTAIN
        if self._as_json:
            rounded = {name: round(value, 6) for name, value in by_class.items()}
            self._object(request, emotion=emotion, probabilities=rounded)
        else:
            self._row(printable(request.given), emotion, [f"{100 * value:.1f}" for value in probabilities])
        self._bar.update()

    def fail(self, request: Request, reason: str) -> None:
        self.failed += 1
        tqdm.write(printable(f"error: {request.given}: {reason}"), file=sys.stderr)
        if self._as_json:
            self._object(request, error=reason)
        self._bar.update()

    def _object(self, request: Request, **found: object) -> None:
        self._write(json.dumps({"audio_file": request.given, "raw_text": request.text, **found}, allow_nan=False))

    def _row(self, recording: str, emotion: str, cells: Sequence[str]) -> None:
        numbers = [cell.rjust(max(len(name), 5)) for cell, name in zip(cells, self._class_names, strict=True)]
        self._write("  ".join([recording.ljust(self._width), emotion.ljust(self._emotion), *numbers]))

    def _write(self, line: str) -> None:
        tqdm.write(line)
        sys.stdout.flush()
