"""Recordings as mono float32 at one sampling rate: soundfile decodes, torchaudio resamples."""

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor
from torchaudio.transforms import Resample

from utils.errors import InputError

MIN_SECONDS = 0.1
SOURCE_RATES = (1_000, 768_000)  # Hz; a rate beyond them is a damaged header
_LARGEST_RATIO = 4_410  # of a resampling kernel; beyond it the rate is taken as the nearest multiple of 10 Hz
_UNKNOWN_SIZE = 0x7FFFF000  # and above: a streaming writer did not know the size
_WRONG_SIZE = re.compile(r": (\d+) \(should be (\d+)\)")  # libsndfile's log, of a chunk and of what the file holds
_SLOP = 64  # bytes by which sloppy writers are wrong


@dataclass(frozen=True)
class Recording:
    """What a file's header says."""

    path: Path
    frames: int
    rate: int

    @property
    def seconds(self) -> float:
        return self.frames / self.rate


@dataclass(frozen=True)
class Segment:
    """Frames ``start`` to ``stop`` of a recording."""

    recording: Recording
    start: int
    stop: int

    @property
    def seconds(self) -> float:
        return (self.stop - self.start) / self.recording.rate


def probe(path: Path) -> Recording:
    """Read a recording's header.

    Raises:
        InputError: names the file: missing, empty, no audio, truncated, or shorter than :data:`MIN_SECONDS`.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: an empty file")
    try:
        info = soundfile.info(path)
    except soundfile.SoundFileError as error:
        raise InputError(f"{path}: cannot be read as audio ({_reason(error)})") from error
    for claimed, present in _WRONG_SIZE.findall(info.extra_info):
        if int(present) + _SLOP < int(claimed) < _UNKNOWN_SIZE:
            raise InputError(f"{path}: truncated: its header says {claimed} bytes, {present} are there")
    if not SOURCE_RATES[0] <= info.samplerate <= SOURCE_RATES[1]:
        raise InputError(f"{path}: a sampling rate of {info.samplerate} Hz")
    recording = Recording(path, info.frames, info.samplerate)
    if recording.seconds < MIN_SECONDS:
        raise InputError(f"{path}: {recording.seconds:.3f} s long, shorter than {MIN_SECONDS} s")
    return recording


def split_into_segments(recording: Recording, longest: float, rate: int) -> list[Segment]:
    """Cut a recording into the fewest equal segments of at most ``longest`` seconds.

    The cuts lie where resampling to ``rate`` has a sample, so that the segments put together are the whole.
    """
    step = _ratio(recording.rate, rate)[0]
    count = math.ceil(recording.frames / (longest * recording.rate - step))  # a cut moves by half a step
    cuts = [round(recording.frames * i / count / step) * step for i in range(count)] + [recording.frames]
    return [Segment(recording, start, stop) for start, stop in pairwise(cuts)]


def load_segment(segment: Segment, rate: int) -> Tensor:
    """Decode a segment, mix its channels by their mean, resample it.

    The samples are those of the whole recording resampled at once: the resampling filter sees what lies around the
    segment.

    Returns:
        [T] in float32, T = seconds * rate.

    Raises:
        InputError: names the file: damaged, shorter than its header says, silent, or holding inf or NaN.
    """
    recording = segment.recording
    step, new_step = _ratio(recording.rate, rate)
    resample = _resampler(step, new_step)
    margin = 0 if step == new_step else math.ceil((resample.width + step) / step) * step
    start, stop = max(0, segment.start - margin), min(recording.frames, segment.stop + margin)
    waveform = resample(torch.from_numpy(_decode(recording, start, stop)))
    first = (segment.start - start) // step * new_step
    samples = math.ceil((segment.stop - segment.start) * new_step / step)
    return waveform[first : first + samples].clone()


def _decode(recording: Recording, start: int, stop: int) -> np.ndarray:
    """Frames [T] in float32, mixed to mono."""
    path = recording.path
    try:
        with soundfile.SoundFile(path) as file:
            file.seek(start)
            channels = file.read(stop - start, dtype="float32", always_2d=True)
    except soundfile.SoundFileError as error:
        raise InputError(f"{path}: cannot be decoded ({_reason(error)})") from error
    if len(channels) != stop - start:
        there = start + len(channels)
        raise InputError(f"{path}: truncated: its header says {recording.frames} frames, {there} are there")
    mono = channels.mean(axis=1)
    if not np.isfinite(mono).all():
        position = start + int(np.flatnonzero(~np.isfinite(mono))[0])
        raise InputError(f"{path}: holds {mono[position - start]} at frame {position}")
    if stop - start == recording.frames and not mono.any():
        raise InputError(f"{path}: digital silence, every sample is 0")
    return mono


def _ratio(old: int, new: int) -> tuple[int, int]:
    """The two rates without their common divisor; an odd old rate is rounded, or its kernel would fill the memory."""
    if old // math.gcd(old, new) > _LARGEST_RATIO:
        old = round(old, -1)
    divisor = math.gcd(old, new)
    return old // divisor, new // divisor


@lru_cache(maxsize=16)
def _resampler(old: int, new: int) -> Resample:
    return Resample(old, new)


def _reason(error: Exception) -> str:
    return str(error).split(": ")[-1].strip().rstrip(".")
