"""Write the timeline of a recording as CSV, JSON lines and subtitles, one utterance at a time."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from utils.errors import printable
from utils.io import exclusive, naming

SUFFIXES = (".csv", ".jsonl", ".srt")
# columns of the CSV before and after the probabilities
_BEFORE, _AFTER = ("start", "stop", "speaker", "emotion", "confidence"), ("raw_text", "recognized", "short")


@dataclass(frozen=True)
class Moment:
    """An utterance and its emotion.

    Attributes:
        start, stop: in seconds of the recording.
        text: transcript, "" if there is none.
        recognized: whether the transcript comes from speech recognition.
        short: shorter than a second, so that the emotion is unreliable.
        probabilities: one per class.
    """

    start: float
    stop: float
    speaker: str | None
    text: str
    recognized: bool
    short: bool
    emotion: str
    probabilities: Sequence[float]

    @property
    def confidence(self) -> float:
        return max(self.probabilities)


@contextmanager
def writing(stem: Path, class_names: Sequence[str]) -> Iterator[Callable[[Moment], None]]:
    """Yield a function that adds a moment to ``<stem>.csv``, ``<stem>.jsonl`` and ``<stem>.srt``.

    Each moment is written to ``<stem>.csv.part`` and so on at once. When the block ends, these files get their final
    names and replace files of earlier commands. If the block fails, they keep the suffix ``.part``.

    Raises:
        InputError: another command is writing them.
        OSError: names the file.
    """
    files = [stem.with_name(stem.name + suffix) for suffix in SUFFIXES]
    parts = [file.with_name(f"{file.name}.part") for file in files]
    count = 0

    def write(mode: str, texts: Sequence[str]) -> None:
        for part, text in zip(parts, texts, strict=True):
            # a file name or a transcript may contain characters that UTF-8 cannot encode
            with naming(part), part.open(mode, encoding="utf-8", errors="backslashreplace", newline="") as file:
                file.write(text)

    def add(moment: Moment) -> None:
        nonlocal count
        count += 1
        write("a", [_row(moment), _json(moment, class_names), _cue(moment, count)])

    with exclusive(stem):
        write("w", [_line([*_BEFORE, *(f"p_{name}" for name in class_names), *_AFTER]), "", ""])
        yield add
        for part, file in zip(parts, files, strict=True):
            with naming(file):
                part.replace(file)


def _line(cells: Sequence) -> str:
    """A line of a CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _row(moment: Moment) -> str:
    probabilities = [round(value, 6) for value in moment.probabilities]
    times = [f"{seconds:.3f}" for seconds in (moment.start, moment.stop)]
    flags = [str(flag).lower() for flag in (moment.recognized, moment.short)]
    found = [moment.emotion, round(moment.confidence, 6), *probabilities]
    return _line([*times, moment.speaker or "", *found, moment.text, *flags])


def as_dict(moment: Moment, class_names: Sequence[str]) -> dict:
    """A moment as a dict for JSON, with times rounded to 1 ms and probabilities by class."""
    probabilities = [round(value, 6) for value in moment.probabilities]
    return {
        "start": round(moment.start, 3),
        "stop": round(moment.stop, 3),
        "speaker": moment.speaker,
        "emotion": moment.emotion,
        "confidence": round(moment.confidence, 6),
        "probabilities": dict(zip(class_names, probabilities, strict=True)),
        "raw_text": moment.text,
        "recognized": moment.recognized,
        "short": moment.short,
    }


def _json(moment: Moment, class_names: Sequence[str]) -> str:
    return json.dumps(as_dict(moment, class_names), allow_nan=False) + "\n"


def _cue(moment: Moment, number: int) -> str:
    """A numbered subtitle. Its text has no blank line, which would end it, and no arrow, which could begin another."""
    speaker = f"{moment.speaker}: " if moment.speaker else ""
    lines = [f"{speaker}{moment.emotion} {100 * moment.confidence:.0f} %", moment.text]
    shown = [printable(" ".join(line.split())).replace("-->", "→") for line in lines]
    text = "\n".join(line for line in shown if line)
    return f"{number}\n{_clock(moment.start)} --> {_clock(moment.stop)}\n{text}\n\n"


def _clock(seconds: float) -> str:
    minutes, milliseconds = divmod(round(1000 * seconds), 60_000)
    seconds, milliseconds = divmod(milliseconds, 1000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d},{milliseconds:03d}"
