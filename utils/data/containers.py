"""Decodes recordings that libsndfile does not recognise with PyAV. Phones, browsers and cameras make such files."""

import errno
import mmap
import os
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from utils.errors import InputError

# mov includes MP4, M4A and 3GP; matroska includes WebM; asf includes WMA. Other FFmpeg formats are not allowed, because
# some are playlists, which open further files and addresses.
_FORMATS = "mov,matroska,asf,aac,amr"
_JITTER = 0.1  # seconds; tolerated error of timestamps, as in FFmpeg's aresample (browsers write whole milliseconds)
_KEPT = 4  # decoded recordings that each process keeps
_BUFFER = 1 << 20  # bytes
_EBML, _ASF, _FTYP = b"\x1aE\xdf\xa3", b"0&\xb2u", b"ftyp"  # first bytes of Matroska, ASF and most MP4 files
_BODIES = (b"\x18S\x80g", b"6&\xb2u", b"moov", b"moof", b"mdat")  # the parts of these formats that contain the streams


class Decoded(NamedTuple):
    """The default audio stream of a file, or its first one: [T] in float32, averaged over channels."""

    samples: np.ndarray
    rate: int
    channels: int


def decoded(path: Path, longest: float) -> Decoded:
    """Decode a file, or return the cached result.

    Parts that the container marks as inaudible are dropped (the encoder's delay and padding, and what an edit list
    cuts). A gap between timestamps becomes silence, as in a player.

    Args:
        longest: The maximum length in seconds. A longer file is an error.

    Raises:
        InputError: PyAV is not installed; or the file has no audio that PyAV can decode, is damaged, truncated or made
            of several joined files, changes its sampling rate, or changes while it is read.
        OSError: The file cannot be read.
    """
    status = path.stat()
    return _decoded(path, status.st_mtime_ns, status.st_size, longest)


# Lossy codecs are exact only from the beginning of a stream. A file is therefore decoded once and as a whole, to a
# temporary file. The system deletes that file with its last mapping, even if the process is killed. Worker processes
# are forked and inherit what the main process has decoded. Each worker decodes again what is no longer in the cache.
@lru_cache(maxsize=_KEPT)
def _decoded(path: Path, mtime_ns: int, size: int, longest: float) -> Decoded:
    try:
        import av  # optional
    except ImportError as error:
        what = "libsndfile cannot read it as audio"
        raise InputError(f"{path}: {what}; for m4a, webm and similar formats: pip install av") from error
    try:
        with path.open("rb") as file, tempfile.TemporaryFile(buffering=_BUFFER) as samples:
            try:
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                    _check_whole(path, data)
                # an open file, because FFmpeg interprets some names as addresses
                with av.open(file, options={"format_whitelist": _FORMATS}, metadata_errors="replace") as container:
                    rate, channels = _decode(path, container, samples, longest)
            except av.FFmpegError as error:
                raise InputError(f"{path}: cannot be read as audio ({error.strerror})") from error
            finally:
                status = os.fstat(file.fileno())
                if (status.st_mtime_ns, status.st_size) != (mtime_ns, size):
                    raise InputError(f"{path}: the file changed while it was read")
            return Decoded(np.memmap(samples, np.float32, mode="r"), rate, channels)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InputError(
            f"{path}: not enough space for its samples in {tempfile.gettempdir()} (set by TMPDIR)"
        ) from error


def _decode(path: Path, container, samples: IO[bytes], longest: float) -> tuple[int, int]:
    """Write the samples of an open container; returns their rate and the number of channels before mixing."""
    from av.stream import Disposition

    streams = container.streams.audio
    if not streams:
        raise InputError(f"{path}: no audio stream")
    stream = next((stream for stream in streams if stream.disposition & Disposition.default), streams[0])
    if stream.codec_context is None:  # PyAV would crash
        raise InputError(f"{path}: PyAV cannot decode its audio format")
    unit = float(stream.time_base)
    origin, rate, count, channels, last = None, 0, 0, 0, 0
    for packet in container.demux(stream):
        if packet.is_corrupt:
            raise InputError(f"{path}: damaged or truncated after {count / max(rate, 1):.2f} s")
        for frame in packet.decode():
            if rate not in (0, frame.sample_rate):
                change = f"changes from {rate} to {frame.sample_rate} Hz after {count / rate:.2f} s"
                raise InputError(f"{path}: its sampling rate {change}; convert it to WAV")
            rate, channels, last = frame.sample_rate, max(channels, frame.layout.nb_channels), frame.samples
            if frame.pts is not None:
                position = round(frame.pts * unit * rate)
                origin = position if origin is None else origin
                gap = position - origin - count
                if gap > _JITTER * rate:
                    samples.seek(4 * gap, os.SEEK_CUR)  # a hole in the file reads as zeros
                    count += gap
            count += frame.samples
            if count > longest * rate:
                raise InputError(f"{path}: longer than {longest / 3600:g} h")
            samples.write(_mono(frame).tobytes())
    if not count:
        raise InputError(f"{path}: its audio stream is empty")
    if "mov" in container.format.name and stream.duration:  # FFmpeg does not remove the encoder's padding
        audible = round(stream.duration * stream.time_base * rate)
        if count - last < audible < count:
            samples.truncate(4 * audible)
    return rate, channels


def _mono(frame) -> np.ndarray:
    """The samples of a frame, [T] in float32, averaged over channels."""
    values = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(-1, frame.layout.nb_channels).T
    if values.dtype.kind in "iu":
        limits = np.iinfo(values.dtype)
        full_scale = (int(limits.max) - int(limits.min) + 1) // 2
        values = (values - np.float64(limits.min + full_scale)) / full_scale
    return values[0].astype(np.float32) if len(values) == 1 else values.mean(axis=0, dtype=np.float32)


def _check_whole(path: Path, data: mmap.mmap) -> None:
    """Raise an InputError if a Matroska, ASF or MP4 file is truncated or consists of several joined files."""
    if (data[:4] in (_EBML, _ASF) or data[4:8] == _FTYP) and data.find(data[:8], 8) >= 0:
        raise InputError(f"{path}: several joined files; convert it to WAV")
    start, end = -1, 0
    while start < end < len(data):
        start, end = end, _end_of_part(data, end)
        if end > len(data) and (data[start : start + 4] in _BODIES or data[start + 4 : start + 8] in _BODIES):
            raise InputError(f"{path}: truncated: its header states {end} bytes, but only {len(data)} are present")


def _end_of_part(data: mmap.mmap, at: int) -> int:
    """The end of the part that begins at a position; 0 if its size is unknown, as in a stream."""
    if data[:4] == _ASF:
        return at + int.from_bytes(data[at + 16 : at + 24], "little")
    if data[:4] == _EBML:  # the number of leading zeros gives the length of a number in bytes
        at += 9 - data[at].bit_length()
        width = 9 - data[at : at + 1].ljust(1, b"\0")[0].bit_length()
        unknown = (1 << 7 * width) - 1
        length = int.from_bytes(data[at : at + width], "big") & unknown
        return 0 if length == unknown else at + width + length
    size = int.from_bytes(data[at : at + 4], "big")
    return at + (int.from_bytes(data[at + 8 : at + 16], "big") if size == 1 else size)
