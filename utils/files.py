"""Files that appear whole or not at all, and JSON."""

import hashlib
import json
import tempfile
import uuid
from contextlib import suppress
from pathlib import Path

from utils.errors import InputError


def atomic_write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: a temporary file in the same folder takes its place.

    Raises:
        OSError: names ``path`` also where the system names no file, as it does when the disk is full.
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


def check_writable(folder: Path) -> None:
    """Make a folder, and raise an OSError that names it where nothing can be written to it."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from error


def write_json(path: Path, data: dict) -> None:
    atomic_write(path, (json.dumps(data, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> dict:
    """Raises InputError where the file is missing or is no JSON object."""
    try:
        data = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error})") from error
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected a JSON object, found a {type(data).__name__}")
    return data
