"""Atomic writes, JSON, file locks, text tables, and the environment that a file was made in."""

import fcntl
import hashlib
import json
import platform
import shlex
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import IO

from utils.errors import InputError


def atomic_write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: a temporary file in the same folder replaces it.

    Raises:
        OSError: names ``path``, also where the system names no file (full disk).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with suppress(OSError):  # where it cannot be removed, it could not be written: that error is the one to see
            temporary.unlink(missing_ok=True)


def file_sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def blob_id(path: Path) -> str:
    """The git blob id of a file: the SHA-1 of its length and contents."""
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def check_writable(folder: Path) -> None:
    """Create a folder; raise an OSError that names it if nothing can be written to it."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from error


def write_json(path: Path, data: dict) -> None:
    atomic_write(path, (json.dumps(data, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> dict:
    """Read a JSON object.

    Raises:
        InputError: the file is missing or holds something else.
    """
    try:
        data = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error})") from error
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected a JSON object, found a {type(data).__name__}")
    return data


@contextmanager
def try_lock(file: IO) -> Iterator[bool]:
    """Whether no other process holds the lock of a file; it is held inside the block. Never waits.

    The system releases it however the process ends.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
        return
    try:
        yield True
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


def environment_info(*libraries: str) -> dict:
    """``versions`` of Python and the libraries, and the ``command`` line, for files that document their origin."""
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in libraries}},
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
    }


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Format rows as text columns, the first left-aligned, the others right-aligned."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
