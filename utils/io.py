"""Reading and atomic writing of files, JSON, locks, text tables, and a description of the environment."""

import fcntl
import functools
import hashlib
import json
import os
import platform
import resource
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from math import isfinite
from pathlib import Path
from typing import IO

from utils.errors import InputError


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Make an OSError of the block name ``path``, even if the system names no file (full or failing disk)."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def atomic_write(path: Path, data: bytes) -> None:
    """Write a file completely or not at all, by replacing it with the file ``.part`` of the same folder.

    A kill -9 leaves that file, and the next write in the folder uses it again.

    Raises:
        OSError: names ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path):
        while not _write_part(path.with_name(".part"), path, data):
            pass


def _write_part(part: Path, path: Path, data: bytes) -> bool:
    """Write ``part`` and replace ``path`` with it. False if another process has done this with ``part`` meanwhile."""
    with part.open("ab") as file, try_lock(file, wait=True), suppress(FileNotFoundError):
        if not os.path.samestat(part.stat(), os.fstat(file.fileno())):
            return False
        try:
            file.truncate(0)
            file.write(data)
            file.flush()
            part.replace(path)
        except BaseException:
            with suppress(OSError):  # an error here would hide the error of the write
                part.unlink()
            raise
        return True
    return False


def read_file(path: Path) -> bytes:
    """Read the contents of a file.

    Raises:
        InputError: the file does not exist, or it is a folder, or a pipe or device, which may never end.
        OSError: names ``path``.
    """
    if not path.is_file():
        raise InputError(f"{path}: {'not a regular file' if path.exists() else 'no such file'}")
    with naming(path):
        return path.read_bytes()


@contextmanager
def bounded_memory(most: int) -> Iterator[None]:
    """Limit the block to ``most`` further bytes of address space; beyond, a MemoryError is raised (Linux only).

    This protects from hostile files: a few bytes of a pickle can request any amount of memory. The limit applies to the
    whole process, so two threads must not be in such a block at the same time.
    """
    if sys.platform != "linux":
        yield
        return
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before, highest = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + most
    if before != resource.RLIM_INFINITY:
        limit = min(limit, before)
    resource.setrlimit(resource.RLIMIT_AS, (limit, highest))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, highest))


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file of any size, as hexadecimal digits."""
    digest = hashlib.sha256()
    with naming(path), path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def blob_id(data: bytes) -> str:
    """The git blob id of the contents of a file: the SHA-1 of their length and the contents."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def check_writable(folder: Path) -> None:
    """Create a folder. Raise an OSError that names it if it is not writable."""
    folder.mkdir(parents=True, exist_ok=True)
    with naming(folder):
        tempfile.TemporaryFile(dir=folder).close()


def write_json(path: Path, data: dict) -> None:
    atomic_write(path, (json.dumps(data, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> dict:
    """Read a JSON object.

    Raises:
        InputError: the file is missing, is not a JSON object, or contains a number that is not finite.
    """
    return parse_json(read_file(path), str(path))


def parse_json(text: str | bytes, where: str) -> dict:
    """Parse a JSON object from a text. Errors are those of :func:`read_json` and name ``where``."""
    try:
        data = json.loads(text, parse_int=_number, parse_float=_number, parse_constant=_number)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON ({error})") from error
    if not isinstance(data, dict):
        raise InputError(f"{where}: expected a JSON object, found a {type(data).__name__}")
    return data


def _number(digits: str) -> int | float:
    """Parse a JSON number. Python would also accept NaN, infinities and integers that are too large for a float."""
    number = float(digits)
    if not isfinite(number):
        raise ValueError(f"the number {digits[:20]} is not finite")
    return int(digits) if digits.removeprefix("-").isdecimal() else number


@contextmanager
def try_lock(file: IO, wait: bool = False) -> Iterator[bool]:
    """Lock a file inside the block. Yields whether this succeeded; with ``wait``, it waits until it does.

    The system releases the lock however the process ends.
    """
    try:
        with naming(Path(file.name)):
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        yield False
        return
    try:
        yield True
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


@contextmanager
def lock(path: Path, wait: bool = False) -> Iterator[bool]:
    """:func:`try_lock` the file ``.<name>.lock`` next to a file or folder that only one process may write."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("ab") as file, try_lock(file, wait) as mine:
        yield mine


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the :func:`lock` of a path.

    Raises:
        InputError: another process holds it.
    """
    with lock(path) as mine:
        if not mine:
            raise InputError(f"{path}: another command is writing it")
        yield


_version = functools.cache(version)  # reads a file on each call


def environment_info(*libraries: str) -> dict:
    """The ``versions`` of Python and the libraries, and the ``command`` line, to document the origin of a file."""
    return {
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in libraries}},
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
    }


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Format rows as text columns. The first column is left-aligned, the others are right-aligned."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
