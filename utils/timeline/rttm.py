"""Read speaker turns from RTTM files, which diarization tools write (NIST, Rich Transcription 2009, appendix A)."""

import math
from dataclasses import dataclass
from pathlib import Path

from utils.data.audio import Recording
from utils.errors import InputError, shown
from utils.io import read_file

TOLERANCE = 0.5  # seconds by which a turn may extend past the end of the recording


@dataclass(frozen=True)
class Turn:
    """An interval of a recording, in seconds, in which a speaker speaks; None if speakers are not distinguished."""

    start: float
    stop: float
    speaker: str | None

    @property
    def seconds(self) -> float:
        return self.stop - self.start


def read_turns(path: Path, recording: Recording) -> list[Turn]:
    """Read the ``SPEAKER`` lines of a recording, in order of their start.

    ``;;`` begins a comment. Lines of other types and of other recordings are skipped. The file id must be the name of
    the recording without its suffix, in which ``_`` may replace a space.

    Raises:
        InputError: the file is not UTF-8, has no turns of the recording, or a turn is not a valid time in the
            recording. The message names the file, line and value.
    """
    turns, others = [], set()
    names = (recording.path.stem, "_".join(recording.path.stem.split()))
    for number, line in enumerate(_text(path).split("\n"), 1):
        fields = line.partition(";;")[0].split()
        if not fields or fields[0] != "SPEAKER":
            continue
        if len(fields) < 8:
            raise InputError(f"{path}: line {number}: {len(fields)} fields; a SPEAKER line has at least 8")
        if fields[1] in names:
            turns.append(_turn(fields, recording, f"{path}: line {number}"))
        else:
            others.add(fields[1])
    if not turns and not others:
        raise InputError(f"{path}: no SPEAKER lines")
    if not turns:
        found = ", ".join(sorted(others)[:5]) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
        raise InputError(f"{path}: has turns of {found}, but none of {names[0]} ({recording.path})")
    return sorted(turns, key=lambda turn: (turn.start, turn.stop))


def _text(path: Path) -> str:
    data = read_file(path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(f"{path}: line {line}: the byte 0x{data[error.start]:02x} is not UTF-8") from error


def _turn(fields: list[str], recording: Recording, where: str) -> Turn:
    start, duration = _number(fields[3], "onset", where), _number(fields[4], "duration", where)
    if start < 0:
        raise InputError(f"{where}: the onset {fields[3]} is negative")
    if duration <= 0:
        raise InputError(f"{where}: the duration {fields[4]} is not above 0")
    stop = start + duration
    if start >= recording.seconds or stop > recording.seconds + TOLERANCE:
        end = f"but {recording.path} ends at {recording.seconds:.3f} s"
        raise InputError(f"{where}: the turn is from {fields[3]} s to {stop:.3f} s, {end}")
    return Turn(start, min(stop, recording.seconds), fields[7])


def _number(text: str, what: str, where: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{where}: the {what} {shown(text)} is not a number of seconds")
    return number
