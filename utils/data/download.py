"""Resumable downloads that are verified by git blob id."""

import errno
import io
import os
import stat
import time
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import BinaryIO
from urllib import request
from urllib.error import HTTPError

from tqdm import tqdm

from utils.errors import InputError, one_line
from utils.io import blob_id, naming, read_file, try_lock

LARGEST = 1 << 30  # bytes; a longer response is an error
TIMEOUT = 30  # seconds without a response
SLOWEST = 1 << 10  # bytes per second; a slower response is an error
PATIENCE = 60  # seconds over which the rate is measured
_CHUNK = 1 << 20


def download_verified(url: str, path: Path, blob: str) -> None:
    """Download ``url`` to ``path`` and verify it. If ``path`` exists, only verify it.

    An interrupted transfer is kept as ``<path>.part`` and resumed by the next call.

    Args:
        blob: the expected git blob id.

    Raises:
        InputError: ``path`` is a different file (it is kept), the transfer fails, the received file is a different one
            (it is removed), or ``<path>.part`` is not a regular file.
        OSError: ``<path>.part`` cannot be written.
    """
    if not os.path.lexists(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part")
        with open(part, "ab", opener=_open_regular) as file, try_lock(file) as locked:
            if not locked:
                raise InputError(f"{part}: another command is downloading this file")
            if path.exists():  # another command has finished it in the meantime
                part.unlink(missing_ok=True)
            else:
                _complete(url, part, file, blob)
                part.replace(path)
    if not path.is_file():
        raise InputError(f"{path}: is a folder or a broken link; move it elsewhere")
    found = blob_id(read_file(path))
    if found != blob:
        raise InputError(f"{path}: not the published file (git blob {found}, not {blob}); move it elsewhere")


def _open_regular(path: str, flags: int) -> int:
    """Open an existing regular file or create one. Never follow a link, and never wait for the reader of a pipe."""
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO, errno.EISDIR):  # a link, a pipe without a reader, a folder
            raise
        descriptor = None
    if descriptor is None or not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise InputError(f"{path}: not a regular file; remove it")
    return descriptor


def _complete(url: str, part: Path, file: BinaryIO, blob: str) -> None:
    """Complete ``part``, which is open as ``file``. Remove it if it stays empty or turns out to be another file."""
    resumed = part.stat().st_size > 0
    try:
        _transfer(url, file, blob)
        if resumed and blob_id(read_file(part)) != blob:  # the partial file belonged to another file
            file.truncate(0)
            _transfer(url, file, blob)
    except (OSError, HTTPException, ValueError) as error:
        kept = part.stat().st_size > 0
        if not kept:
            part.unlink()
        if getattr(error, "filename", None) == str(part):  # an error of the disk, not of the network
            raise
        hint = "; the partial file is kept, and the same command resumes the download" if kept else ""
        raise InputError(f"{url}: {one_line(error)}{hint}") from error
    found = blob_id(read_file(part))
    if found != blob:
        part.unlink()
        raise InputError(f"{url}: not the published file (git blob {found}, not {blob}); removed")


def _transfer(url: str, file: BinaryIO, blob: str) -> None:
    """Append the rest of ``url`` to ``file``. If the server does not support ranges, write it from byte 0."""
    have = file.seek(0, os.SEEK_END)
    opener = request.build_opener(_HTTP, _HTTPS)
    try:
        response = opener.open(request.Request(url, headers={"Range": f"bytes={have}-"}), timeout=TIMEOUT)
    except HTTPError as error:
        if error.code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        return  # nothing is missing, unless the blob id differs
    with response:
        length = response.length
        if response.status == HTTPStatus.PARTIAL_CONTENT:
            if not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                raise HTTPException(f"the server did not send the range from byte {have}")
        elif have:
            shorter = length is not None and length < have
            whole = response.read() if shorter and response.status == HTTPStatus.OK else None
            if response.status != HTTPStatus.OK or (shorter and blob_id(whole) != blob):
                raise HTTPException(f"HTTP {response.status} with {length} bytes, fewer than already received")
            file.truncate(0)
            if shorter:  # the partial file was too long
                _write(file, whole)
                return
            have = 0
        total = None if length is None or length > LARGEST else have + length  # no published file is that long
        with tqdm(
            total=total, initial=have, desc=url.rpartition("/")[2], unit="B", unit_scale=True, dynamic_ncols=True
        ) as bar:
            while chunk := response.read1(_CHUNK):
                have += len(chunk)
                if have > LARGEST:
                    file.truncate(0)
                    raise HTTPException(f"more than {LARGEST >> 20} MiB received")
                _write(file, chunk)
                bar.update(len(chunk))
    if total is not None and have < total:
        raise HTTPException(f"the connection ended after {have} of {total} bytes")


def _write(file: BinaryIO, chunk: bytes) -> None:
    with naming(Path(file.name)):  # the system does not name the file when the disk is full
        file.write(chunk)
        file.flush()


class _Paced(io.RawIOBase):
    """The data that a socket receives, headers included, with a minimum rate and a maximum size."""

    def __init__(self, socket: io.RawIOBase):
        self.socket, self.received = socket, 0
        self.begin, self.before = time.monotonic(), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int | None:
        count = self.socket.readinto(buffer)
        self.received += count or 0
        if self.received > LARGEST + 2 * _CHUNK:
            raise HTTPException(f"more than {LARGEST >> 20} MiB received")
        if (now := time.monotonic()) > self.begin + PATIENCE:
            if self.received - self.before < SLOWEST * PATIENCE:
                raise TimeoutError(f"less than {SLOWEST} bytes per second over {PATIENCE} seconds")
            self.begin, self.before = now, self.received
        return count

    def close(self) -> None:
        self.socket.close()
        super().close()


class _Response(HTTPResponse):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.fp = io.BufferedReader(_Paced(self.fp.detach()))


class _HTTP(request.HTTPHandler):
    def http_open(self, asked: request.Request) -> HTTPResponse:
        return self.do_open(_paced(HTTPConnection), asked)


class _HTTPS(request.HTTPSHandler):
    def https_open(self, asked: request.Request) -> HTTPResponse:
        return self.do_open(_paced(HTTPSConnection), asked)


def _paced(connection: type[HTTPConnection]) -> type[HTTPConnection]:
    return type("Paced", (connection,), {"response_class": _Response})
