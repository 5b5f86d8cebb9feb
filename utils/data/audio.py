"""Audio input: recordings as mono float32 at a given sampling rate (decoded by soundfile, resampled by torchaudio)."""

import math
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor
from torchaudio.functional import resample

from utils.errors import InputError

MIN_SECONDS, MAX_SECONDS = 0.1, 24 * 3600
LOUDEST = 1e6  # full scale is 1; float files may use 32768
SOURCE_RATES = (1_000, 768_000)  # Hz; other rates mean a damaged header
_FILTER_WIDTH, _ROLLOFF = 6, 0.99  # torchaudio's defaults
_LARGEST_KERNEL = 2_000_000  # values in a resampling kernel
_UNKNOWN_SIZE = 0x7FFFF000  # sizes from here on are placeholders of streaming writers
# libsndfile's log: a chunk size beyond the end of the file; a truncated Ogg or VOC file
_WRONG_SIZE, _CUT_OFF = re.compile(r": (\d+) \(should be (\d+)\)"), ("lacks an end-of-stream bit", "truncated file")
_TOLERANCE = 64  # bytes by which some writers' sizes are wrong
# TypeError for headerless *.raw, UnicodeError for file names outside the system's encoding
_UNREADABLE = (soundfile.SoundFileError, OSError, TypeError, UnicodeError)


@dataclass(frozen=True)
class Recording:
    """A recording's header, and the file's size and modification time when it was read."""

    path: Path
    frames: int
    rate: int
    size: int = 0
    mtime_ns: int = 0

    @property
    def seconds(self) -> float:
        return self.frames / self.rate


@dataclass(frozen=True)
class Segment:
    """Frames ``start`` to ``stop`` (exclusive) of a recording."""

    recording: Recording
    start: int
    stop: int

    @property
    def seconds(self) -> float:
        return (self.stop - self.start) / self.recording.rate


def probe(path: Path) -> Recording:
    """Read a recording's header.

    Raises:
        InputError: the file is missing, empty, not audio, truncated, or shorter than :data:`MIN_SECONDS` or longer than
            :data:`MAX_SECONDS`.
    """
    try:
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        status = path.stat()
        if status.st_size == 0:
            raise InputError(f"{path}: an empty file")
        info = soundfile.info(path)
    except _UNREADABLE as error:
        raise InputError(f"{path}: cannot be read as audio ({_reason(error)})") from error
    if any(words in info.extra_info for words in _CUT_OFF):
        raise InputError(f"{path}: truncated")
    for claimed, present in _WRONG_SIZE.findall(info.extra_info):
        if int(present) + _TOLERANCE < int(claimed) < _UNKNOWN_SIZE:
            raise InputError(f"{path}: truncated: its header says {claimed} bytes, {present} are there")
    if not SOURCE_RATES[0] <= info.samplerate <= SOURCE_RATES[1]:
        raise InputError(f"{path}: a sampling rate of {info.samplerate} Hz")
    recording = Recording(path, info.frames, info.samplerate, status.st_size, status.st_mtime_ns)
    if recording.seconds < MIN_SECONDS:
        raise InputError(f"{path}: {recording.seconds:.3f} s long, shorter than {MIN_SECONDS} s")
    if recording.seconds > MAX_SECONDS:
        raise InputError(f"{path}: its header states no length, or more than a day; convert it to WAV")
    return recording


def split_into_segments(recording: Recording, longest: float, rate: int) -> list[Segment]:
    """Split a recording into the fewest equal segments of at most ``longest`` seconds.

    Segments start at sample positions of the recording resampled to ``rate``: concatenated, they are the whole.
    """
    step = _ratio(recording.rate, rate)[0]
    most = longest * recording.rate
    # rounding moves a boundary by up to half a step
    count = 1 if recording.frames <= most else math.ceil(recording.frames / (most - step))
    cuts = [round(recording.frames * i / count / step) * step for i in range(count)] + [recording.frames]
    return [Segment(recording, start, stop) for start, stop in pairwise(cuts)]


def random_crop(segment: Segment, seconds: float, rate: int, rng: np.random.Generator) -> Segment:
    """A random crop of ``seconds``, for :func:`load_segment` with ``rate``; all of a shorter segment."""
    step = _ratio(segment.recording.rate, rate)[0]
    frames = round(seconds * segment.recording.rate)
    room = segment.stop - segment.start - frames
    if room <= 0:
        return segment
    start = segment.start + int(rng.integers(room // step + 1)) * step
    return Segment(segment.recording, start, start + frames)


def load_segment(segment: Segment, rate: int) -> Tensor:
    """Decode a segment, average its channels and resample it to ``rate``.

    The resampling filter includes the context around the segment: the samples equal those of the whole recording
    resampled at once.

    Returns:
        [T] in float32, T = seconds * rate.

    Raises:
        InputError: the file is damaged, shorter than its header says, or has a sample that is not finite or louder than
            :data:`LOUDEST`.
    """
    recording = segment.recording
    step, new_step = _ratio(recording.rate, rate)
    reach = math.ceil(_FILTER_WIDTH * step / (_ROLLOFF * min(step, new_step)))  # of the filter, in frames
    margin = 0 if step == new_step else math.ceil(reach / step + 1) * step
    start, stop = max(0, segment.start - margin), min(recording.frames, segment.stop + margin)
    frames = torch.from_numpy(_decode(recording, start, stop))
    waveform = resample(frames, step, new_step, lowpass_filter_width=_FILTER_WIDTH, rolloff=_ROLLOFF)
    first = (segment.start - start) // step * new_step
    samples = math.ceil((segment.stop - segment.start) * new_step / step)
    return waveform[first : first + samples].clone()


def _decode(recording: Recording, start: int, stop: int) -> np.ndarray:
    """Frames [stop - start] in float32, averaged over channels."""
    path = recording.path
    try:
        with soundfile.SoundFile(path) as file:
            if start:
                file.seek(start) if file.seekable() else file.read(start, dtype="float32")
            channels = file.read(stop - start, dtype="float32", always_2d=True)
    except _UNREADABLE as error:
        raise InputError(f"{path}: cannot be decoded ({_reason(error)})") from error
    if len(channels) != stop - start:
        present = start + len(channels)
        raise InputError(f"{path}: truncated: its header says {recording.frames} frames, {present} are there")
    mono = channels.mean(axis=1)
    valid = np.abs(mono) <= LOUDEST  # False for NaN
    if not valid.all():
        position = int(np.flatnonzero(~valid)[0])
        raise InputError(f"{path}: holds {mono[position]} at frame {start + position}")
    return mono


def _ratio(old: int, new: int) -> tuple[int, int]:
    """The two rates divided by their greatest common divisor.

    If the resampling kernel would be too large (44101 Hz, for example), ``old`` is rounded to 10, 100 or 1000 Hz.
    """
    for unit in (1, 10, 100, 1000):
        rate = max(round(old / unit), 1) * unit
        divisor = math.gcd(rate, new)
        if rate // divisor * (new // divisor) <= _LARGEST_KERNEL:
            break
    return rate // divisor, new // divisor


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).split(": ")[-1].strip().rstrip(".")
