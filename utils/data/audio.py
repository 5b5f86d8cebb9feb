"""Audio input: load recordings as mono float32 at a given sampling rate.

soundfile decodes the recordings. PyAV decodes those that libsndfile does not recognise. torchaudio resamples them.
"""

import math
import mmap
import re
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor
from torchaudio.functional import resample

from utils.data.containers import Decoded, decoded
from utils.data.mp3 import mp3_frames
from utils.errors import InputError
from utils.io import file_sha256

# formats that libsndfile recognises (RAW has no header) and those that PyAV adds
SUFFIXES = frozenset(
    {f".{name.lower()}" for name in soundfile.available_formats()} - {".raw"}
    | {".aif", ".oga", ".opus"}
    | {".3g2", ".3gp", ".aac", ".amr", ".asf", ".m4a", ".m4b", ".mka", ".mkv", ".mov", ".mp4", ".weba", ".webm"}
    | {".wma", ".wmv"}
)
MIN_SECONDS, MAX_SECONDS = 0.1, 24 * 3600
MAX_CHANNELS = 64  # the largest microphone arrays have as many
LOUDEST = 1e6  # full scale is 1, but some float files use 32768
SOURCE_RATES = (1_000, 768_000)  # Hz; other rates mean a damaged header
_FILTER_WIDTH, _ROLLOFF = 6, 0.99  # torchaudio's defaults
_LARGEST_KERNEL = 2_000_000  # values in a resampling kernel
_BLOCK = 2**25  # values decoded at once; soundfile seeks after each read, and lossy decoders are not exact after a seek
_UNKNOWN_SIZE = 0x7FFFF000  # streaming writers use sizes from here on as placeholders
# messages in libsndfile's log: a chunk size beyond the end of the file; a truncated Ogg or VOC file
_WRONG_SIZE, _CUT_OFF = re.compile(r": (\d+) \(should be (\d+)\)"), ("lacks an end-of-stream bit", "truncated file")
_TOLERANCE = 64  # bytes; the sizes of some writers are wrong by up to this
_UNRECOGNISED = 1  # libsndfile's SF_ERR_UNRECOGNISED_FORMAT
# TypeError: headerless *.raw; UnicodeError: a file name that the system's encoding lacks
_UNREADABLE = (soundfile.SoundFileError, OSError, TypeError, UnicodeError)


@dataclass(frozen=True)
class Recording:
    """The header of a recording."""

    path: Path
    frames: int
    rate: int

    @property
    def seconds(self) -> float:
        return self.frames / self.rate

    @property
    def whole(self) -> "Segment":
        return Segment(self, 0, self.frames)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the file's contents, computed once; raises an OSError."""
        return file_sha256(self.path)


@dataclass(frozen=True)
class Segment:
    """Frames ``start`` to ``stop`` (exclusive) of a recording."""

    recording: Recording
    start: int
    stop: int

    @property
    def seconds(self) -> float:
        return (self.stop - self.start) / self.recording.rate


@dataclass(frozen=True)
class Piece(Segment):
    """A part of the segment ``whole`` that is short enough for an encoder."""

    whole: Segment


def probe(path: Path) -> Recording:
    """Read the header of a recording. A file that libsndfile does not recognise is decoded: its header may be wrong.

    Raises:
        InputError: the file is missing, empty, not audio, damaged, truncated, or consists of several joined files; or
            it has more than :data:`MAX_CHANNELS` channels, or is shorter than :data:`MIN_SECONDS` or longer than
            :data:`MAX_SECONDS`.
    """
    try:
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        if path.stat().st_size == 0:
            raise InputError(f"{path}: the file is empty")
        frames, rate, channels = _header(path)
    except _UNREADABLE as error:
        raise InputError(f"{path}: cannot be read as audio ({_reason(error)})") from error
    if not SOURCE_RATES[0] <= rate <= SOURCE_RATES[1]:
        raise InputError(f"{path}: unsupported sampling rate of {rate} Hz")
    if channels > MAX_CHANNELS:
        raise InputError(f"{path}: has {channels} channels; at most {MAX_CHANNELS} are supported")
    recording = Recording(path, frames, rate)
    if recording.seconds < MIN_SECONDS:
        raise InputError(f"{path}: {recording.seconds:.3f} s long, shorter than {MIN_SECONDS} s")
    if recording.seconds > MAX_SECONDS:
        raise InputError(f"{path}: its header states no length, or a length of more than a day; convert it to WAV")
    return recording


def _header(path: Path) -> tuple[int, int, int]:
    """The frames, sampling rate and channels of a file; raises an InputError or one of :data:`_UNREADABLE`."""
    try:
        info = soundfile.info(path)
    except soundfile.LibsndfileError as error:
        samples, rate, channels = _container(path, error)
        return len(samples), rate, channels
    frames = info.frames
    if info.subtype == "MPEG_LAYER_III":
        frames = mp3_frames(path, frames, info.samplerate)
    elif info.format in ("OGG", "FLAC") and _begins_again(path):
        raise InputError(f"{path}: several joined files; only {info.duration:.2f} s can be read; convert it to WAV")
    if any(words in info.extra_info for words in _CUT_OFF):
        raise InputError(f"{path}: truncated")
    for claimed, present in _WRONG_SIZE.findall(info.extra_info):
        if int(present) + _TOLERANCE < int(claimed) < _UNKNOWN_SIZE:
            raise InputError(f"{path}: truncated: its header states {claimed} bytes, but only {present} are present")
    return frames, info.samplerate, info.channels


def _container(path: Path, error: soundfile.LibsndfileError) -> Decoded:
    """Decode a file that libsndfile refused with ``error``. Raise ``error`` unless it means an unknown format."""
    if error.code != _UNRECOGNISED:
        raise error
    return decoded(path, MAX_SECONDS)


def _begins_again(path: Path) -> bool:
    """Whether the first eight bytes of an Ogg or FLAC file, which mark a beginning, occur in it again."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data.find(data[:8], 8) >= 0


def resampling_step(old: int, new: int) -> tuple[int, int]:
    """The two rates divided by their greatest common divisor: the shortest common time step, in samples of each rate.

    If segments start at multiples of it, resampling each one and concatenating gives the same result as resampling the
    whole. If the resampling kernel would be too large (for example at 44101 Hz), ``old`` is rounded to 10, 100 or 1000
    Hz.
    """
    for unit in (1, 10, 100, 1000):
        rate = max(round(old / unit), 1) * unit
        divisor = math.gcd(rate, new)
        if rate // divisor * (new // divisor) <= _LARGEST_KERNEL:
            break
    return rate // divisor, new // divisor


def split(whole: Segment, longest: float, rate: int) -> list[Piece]:
    """Split a segment into the fewest equal pieces of at most ``longest`` seconds.

    Pieces start at sample positions of the segment resampled to ``rate``, so that concatenating them gives the whole.
    """
    step, _ = resampling_step(whole.recording.rate, rate)
    most, frames = longest * whole.recording.rate, whole.stop - whole.start
    # rounding moves a boundary by up to half a step
    count = 1 if frames <= most else math.ceil(frames / (most - step))
    cuts = [whole.start + round(frames * i / count / step) * step for i in range(count)] + [whole.stop]
    return [Piece(whole.recording, start, stop, whole) for start, stop in pairwise(cuts)]


def random_crop(segment: Segment, seconds: float, rate: int, rng: np.random.Generator) -> Segment:
    """A random crop of ``seconds`` for :func:`load_segment` with ``rate``. A shorter segment is returned whole."""
    step, _ = resampling_step(segment.recording.rate, rate)
    frames = round(seconds * segment.recording.rate)
    room = segment.stop - segment.start - frames
    if room <= 0:
        return segment
    start = segment.start + int(rng.integers(room // step + 1)) * step
    return Segment(segment.recording, start, start + frames)


def load_segment(segment: Segment, rate: int) -> Tensor:
    """Decode a segment, average its channels and resample it to ``rate``.

    The resampling filter uses the context around the segment, so the samples equal those of the whole recording
    resampled at once.

    Returns:
        [T] in float32, T = seconds * rate.

    Raises:
        InputError: the file is damaged, is shorter than its header states, does not fit into memory, or has a sample
            that is not finite or is louder than :data:`LOUDEST`.
    """
    recording = segment.recording
    step, new_step = resampling_step(recording.rate, rate)
    reach = math.ceil(_FILTER_WIDTH * step / (_ROLLOFF * min(step, new_step)))  # of the filter, in frames
    margin = 0 if step == new_step else math.ceil(reach / step + 1) * step
    start, stop = max(0, segment.start - margin), min(recording.frames, segment.stop + margin)
    try:
        frames = torch.from_numpy(_decode(recording, start, stop))
        waveform = resample(frames, step, new_step, lowpass_filter_width=_FILTER_WIDTH, rolloff=_ROLLOFF)
    except MemoryError as error:
        raise InputError(f"{recording.path}: a segment of {segment.seconds:.1f} s does not fit into memory") from error
    first = (segment.start - start) // step * new_step
    samples = math.ceil((segment.stop - segment.start) * new_step / step)
    return waveform[first : first + samples].clone()


def _decode(recording: Recording, start: int, stop: int) -> np.ndarray:
    """Frames [stop - start] in float32, averaged over channels."""
    path = recording.path
    try:
        mono, rate = _read(path, start, stop)
    except _UNREADABLE as error:
        raise InputError(f"{path}: cannot be decoded ({_reason(error)})") from error
    if rate != recording.rate:
        raise InputError(f"{path}: the file changed: its sampling rate was {recording.rate} Hz and is now {rate} Hz")
    if len(mono) < stop - start:
        raise InputError(f"{path}: truncated after {start + len(mono)} of {recording.frames} frames")
    valid = np.abs(mono) <= LOUDEST  # False for NaN
    if not valid.all():
        position = int(np.flatnonzero(~valid)[0])
        raise InputError(f"{path}: invalid sample {mono[position]} at frame {start + position}")
    return mono


def _read(path: Path, start: int, stop: int) -> tuple[np.ndarray, int]:
    """At most ``stop - start`` frames in float32, averaged over channels, and their rate. Raises as :func:`_header`."""
    try:
        file = soundfile.SoundFile(path)
    except soundfile.LibsndfileError as error:
        samples, rate, _ = _container(path, error)
        return np.array(samples[start:stop]), rate
    mono = np.empty(stop - start, dtype=np.float32)
    with file:
        at = min(start, file.frames) if file.seekable() else 0  # otherwise read from the beginning
        if at:
            file.seek(at)
        while at < stop:
            channels = file.read(min(stop - at, _BLOCK // file.channels), dtype="float32", always_2d=True)
            if not len(channels):
                break
            kept = channels[max(0, start - at) :]
            at += len(channels)
            if len(kept):
                mono[at - start - len(kept) : at - start] = kept.mean(axis=1)
    return mono[: max(0, at - start)], file.samplerate


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).split(": ")[-1].strip().rstrip(".")
