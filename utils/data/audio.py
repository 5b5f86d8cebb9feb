"""Audio input: recordings as mono float32 at a given sampling rate (decoded by soundfile, resampled by torchaudio)."""

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

from utils.errors import InputError
from utils.io import file_sha256

MIN_SECONDS, MAX_SECONDS = 0.1, 24 * 3600
MAX_CHANNELS = 64  # of the largest microphone arrays
LOUDEST = 1e6  # full scale is 1; float files may use 32768
SOURCE_RATES = (1_000, 768_000)  # Hz; other rates mean a damaged header
_FILTER_WIDTH, _ROLLOFF = 6, 0.99  # torchaudio's defaults
_LARGEST_KERNEL = 2_000_000  # values in a resampling kernel
_BLOCK = 2**25  # values decoded at once; soundfile seeks after each read, and lossy decoders are not exact after it
_UNKNOWN_SIZE = 0x7FFFF000  # sizes from here on are placeholders of streaming writers
# libsndfile's log: a chunk size beyond the end of the file; a truncated Ogg or VOC file
_WRONG_SIZE, _CUT_OFF = re.compile(r": (\d+) \(should be (\d+)\)"), ("lacks an end-of-stream bit", "truncated file")
_TOLERANCE = 64  # bytes by which some writers' sizes are wrong
# kbit/s of MPEG 1 and of MPEG 2 and 2.5, Hz of MPEG 1, all of layer III, by the codes in a frame's header
_MP3_BITRATES = (
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0),
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0),
)
_MP3_RATES = (44_100, 48_000, 32_000)
_MP3_HEADERS = (b"Xing", b"Info")
_MP3_SPARE = 8  # frames that are not heard: the header's own, and the delay and padding of the encoder
# TypeError for headerless *.raw, UnicodeError for file names outside the system's encoding
_UNREADABLE = (soundfile.SoundFileError, OSError, TypeError, UnicodeError)


@dataclass(frozen=True)
class Recording:
    """A recording's header."""

    path: Path
    frames: int
    rate: int

    @property
    def seconds(self) -> float:
        return self.frames / self.rate

    @cached_property
    def sha256(self) -> str:
        """Digest of the file's contents, which are read for it once; raises an OSError."""
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


def probe(path: Path) -> Recording:
    """Read a recording's header.

    Raises:
        InputError: the file is missing, empty, not audio, truncated, joined of several files, of more than
            :data:`MAX_CHANNELS`, or shorter than :data:`MIN_SECONDS` or longer than :data:`MAX_SECONDS`.
    """
    try:
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        if path.stat().st_size == 0:
            raise InputError(f"{path}: an empty file")
        info = soundfile.info(path)
        frames = info.frames
        if info.subtype == "MPEG_LAYER_III":
            frames = _mp3_frames(path, frames, info.samplerate)
        elif info.format in ("OGG", "FLAC") and _begins_again(path):
            raise InputError(f"{path}: several files joined, only {info.duration:.2f} s can be read; convert it to WAV")
    except _UNREADABLE as error:
        raise InputError(f"{path}: cannot be read as audio ({_reason(error)})") from error
    if any(words in info.extra_info for words in _CUT_OFF):
        raise InputError(f"{path}: truncated")
    for claimed, present in _WRONG_SIZE.findall(info.extra_info):
        if int(present) + _TOLERANCE < int(claimed) < _UNKNOWN_SIZE:
            raise InputError(f"{path}: truncated: its header says {claimed} bytes, {present} are there")
    if not SOURCE_RATES[0] <= info.samplerate <= SOURCE_RATES[1]:
        raise InputError(f"{path}: a sampling rate of {info.samplerate} Hz")
    if info.channels > MAX_CHANNELS:
        raise InputError(f"{path}: {info.channels} channels, more than {MAX_CHANNELS}")
    recording = Recording(path, frames, info.samplerate)
    if recording.seconds < MIN_SECONDS:
        raise InputError(f"{path}: {recording.seconds:.3f} s long, shorter than {MIN_SECONDS} s")
    if recording.seconds > MAX_SECONDS:
        raise InputError(f"{path}: its header states no length, or more than a day; convert it to WAV")
    return recording


def _begins_again(path: Path) -> bool:
    """Whether the first eight bytes of a file, in which Ogg and FLAC state what begins here, are in it once more."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data.find(data[:8], 8) >= 0


def _mp3_frames(path: Path, stated: int, rate: int) -> int:
    """The samples per channel of a file in which libsndfile finds ``stated``.

    libsndfile believes the header that most encoders write, which in joined files is that of the first, and estimates
    the rest from the sizes of the file and of the first frame. It reads no more than it finds.

    Raises:
        InputError: it would not read the whole file.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        count, seconds, at, aligned, headed = 0, 0.0, _id3_size(data), False, False
        while 0 <= at < len(data):
            size, duration = _mp3_frame(data, at)
            if size and (aligned or _mp3_frame(data, at + size)[0]):  # two in a row are no chance bytes of a tag
                headed |= not count and any(mark in data[at : at + size] for mark in _MP3_HEADERS)
                count, seconds, at, aligned = count + 1, seconds + duration, at + size, True
            else:
                at, aligned = data.find(b"\xff", at + 1), False
    if not count:  # free format
        return stated
    present = round(seconds * rate)
    if present - stated > (_MP3_SPARE if headed else 1) * present / count:
        what = f"only {stated / rate:.2f} s of its {seconds:.2f} s can be read"
        raise InputError(f"{path}: {what} (several files joined, or no header); convert it to WAV")
    return stated if headed else min(stated, present)


def _id3_size(data: bytes | mmap.mmap) -> int:
    """Bytes of the ID3v2 tag at the beginning, which may hold anything, also audio; 0 if there is none."""
    if data[:3] != b"ID3":
        return 0
    return 10 + sum((byte & 127) << shift for byte, shift in zip(data[6:10], (21, 14, 7, 0), strict=False))


def _mp3_frame(data: bytes | mmap.mmap, at: int) -> tuple[int, float]:
    """Bytes and seconds of the layer III frame at a position; zeros if there is none."""
    sync, kind, code = data[at : at + 3].ljust(3, b"\0")
    version, bitrate, rate = kind >> 3 & 3, code >> 4, code >> 2 & 3  # version 3 is MPEG 1, 2 is MPEG 2, 0 is MPEG 2.5
    kilobits = _MP3_BITRATES[version != 3][bitrate]
    if sync != 0xFF or kind & 0xE6 != 0xE2 or version == 1 or rate == 3 or not kilobits:
        return 0, 0.0
    samples, hertz = (1152, _MP3_RATES[rate]) if version == 3 else (576, _MP3_RATES[rate] // (4 - version))
    return samples * kilobits * 125 // hertz + (code >> 1 & 1), samples / hertz


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
        InputError: the file is damaged, shorter than its header says, does not fit into memory, or has a sample that is
            not finite or louder than :data:`LOUDEST`.
    """
    recording = segment.recording
    step, new_step = _ratio(recording.rate, rate)
    reach = math.ceil(_FILTER_WIDTH * step / (_ROLLOFF * min(step, new_step)))  # of the filter, in frames
    margin = 0 if step == new_step else math.ceil(reach / step + 1) * step
    start, stop = max(0, segment.start - margin), min(recording.frames, segment.stop + margin)
    try:
        frames = torch.from_numpy(_decode(recording, start, stop))
        waveform = resample(frames, step, new_step, lowpass_filter_width=_FILTER_WIDTH, rolloff=_ROLLOFF)
    except MemoryError as error:
        raise InputError(f"{recording.path}: {segment.seconds:.1f} s of it do not fit into memory") from error
    first = (segment.start - start) // step * new_step
    samples = math.ceil((segment.stop - segment.start) * new_step / step)
    return waveform[first : first + samples].clone()


def _decode(recording: Recording, start: int, stop: int) -> np.ndarray:
    """Frames [stop - start] in float32, averaged over channels."""
    path = recording.path
    mono = np.empty(stop - start, dtype=np.float32)
    try:
        with soundfile.SoundFile(path) as file:
            at = start if file.seekable() else 0  # otherwise read from the beginning
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
    except _UNREADABLE as error:
        raise InputError(f"{path}: cannot be decoded ({_reason(error)})") from error
    if at < stop:
        raise InputError(f"{path}: truncated: its header says {recording.frames} frames, {at} are there")
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
