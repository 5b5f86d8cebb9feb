"""The length of an MP3 file, counted frame by frame."""

import mmap
from pathlib import Path

from utils.errors import InputError

# by code in the frame header, for layer III: kbit/s of MPEG 1, kbit/s of MPEG 2 and 2.5; then Hz of MPEG 1
_BITRATES = (
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0),
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0),
)
_RATES = (44_100, 48_000, 32_000)
_HEADERS = (b"Xing", b"Info")
_SPARE = 8  # inaudible frames: that of the header, and those of the encoder's delay and padding


def mp3_frames(path: Path, stated: int, rate: int) -> int:
    """Count the samples per channel of a file for which libsndfile reports ``stated``.

    libsndfile trusts the header that most encoders write. In joined files, this is the header of the first one. Without
    a header, libsndfile estimates the length from the sizes of the file and of the first frame. It never reads more
    than it reports.

    Raises:
        InputError: libsndfile would not read the whole file.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        count, seconds, at, aligned, headed = 0, 0.0, _id3_size(data), False, False
        while 0 <= at < len(data):
            size, duration = _frame(data, at)
            # two frames in a row cannot be bytes of a tag by chance
            if size and (aligned or _frame(data, at + size)[0]):
                headed |= not count and any(mark in data[at : at + size] for mark in _HEADERS)
                count, seconds, at, aligned = count + 1, seconds + duration, at + size, True
            else:
                at, aligned = data.find(b"\xff", at + 1), False
    if not count:  # free format
        return stated
    present = round(seconds * rate)
    if present - stated > (_SPARE if headed else 1) * present / count:
        what = f"only {stated / rate:.2f} s of its {seconds:.2f} s can be read"
        raise InputError(f"{path}: {what} (several joined files, or no header); convert it to WAV")
    return stated if headed else min(stated, present)


def _id3_size(data: bytes | mmap.mmap) -> int:
    """The size in bytes of the ID3v2 tag at the beginning, which may contain anything; 0 if there is none."""
    if data[:3] != b"ID3":
        return 0
    return 10 + sum((byte & 127) << shift for byte, shift in zip(data[6:10], (21, 14, 7, 0), strict=False))


def _frame(data: bytes | mmap.mmap, at: int) -> tuple[int, float]:
    """The size in bytes and the length in seconds of the layer III frame at a position; zeros if there is none."""
    sync, kind, code = data[at : at + 3].ljust(3, b"\0")
    version, bitrate, rate = kind >> 3 & 3, code >> 4, code >> 2 & 3  # version 3 is MPEG 1, 2 is MPEG 2, 0 is MPEG 2.5
    kilobits = _BITRATES[version != 3][bitrate]
    if sync != 0xFF or kind & 0xE6 != 0xE2 or version == 1 or rate == 3 or not kilobits:
        return 0, 0.0
    samples, hertz = (1152, _RATES[rate]) if version == 3 else (576, _RATES[rate] // (4 - version))
    return samples * kilobits * 125 // hertz + (code >> 1 & 1), samples / hertz
