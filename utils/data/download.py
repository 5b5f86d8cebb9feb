"""Resumable downloads, verified by git blob ids."""

import os
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tqdm import tqdm

from utils.errors import InputError, one_line
from utils.io import blob_id, try_lock

LARGEST = 1 << 30  # bytes; a longer response is an error
TIMEOUT = 30  # seconds without a response
_CHUNK = 1 << 20


def download_verified(url: str, path: Path, blob: str) -> None:
    """Download ``url`` to ``path`` and verify it; a file that is already there is only verified.

    An interrupted transfer is kept as ``<path>.part`` and resumed by the next call.

    Args:
        blob: git blob id of the file.

    Raises:
        InputError: ``path`` is another file (it is kept), the transfer fails, or the received file is another one (it
            is removed).
        OSError: ``<path>.part`` cannot be written.
    """
    if not os.path.lexists(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part")
        with part.open("ab") as file, try_lock(file) as locked:
            if not locked:
                raise InputError(f"{part}: another command is fetching this file")
            if path.exists():  # another command has finished it in the meantime
                part.unlink(missing_ok=True)
            else:
                _complete(url, part, file, blob)
                part.replace(path)
    if not path.is_file():
        raise InputError(f"{path}: a folder or a broken link; move it elsewhere")
    found = blob_id(path)
    if found != blob:
        raise InputError(f"{path}: not the published file (git blob {found}, not {blob}); move it elsewhere")


def _complete(url: str, part: Path, file: BinaryIO, blob: str) -> None:
    """Complete ``part``, open as ``file``; remove it if nothing was received, or something else."""
    resumed = part.stat().st_size > 0
    try:
        _transfer(url, file)
        if resumed and blob_id(part) != blob:  # the part was the beginning of another file
            file.truncate(0)
            _transfer(url, file)
    except (OSError, HTTPException, ValueError) as error:
        kept = part.stat().st_size > 0
        if not kept:
            part.unlink()
        if getattr(error, "filename", None) == str(part):  # an error of the disk, not of the network
            raise
        hint = "; the partial file is kept, the same command resumes" if kept else ""
        raise InputError(f"{url}: {one_line(error)}{hint}") from error
    found = blob_id(part)
    if found != blob:
        part.unlink()
        raise InputError(f"{url}: not the published file (git blob {found}, not {blob}); removed")


def _transfer(url: str, file: BinaryIO) -> None:
    """Append the missing rest of ``url`` to ``file``, or write it from byte 0 if the server does not support ranges."""
    have = file.seek(0, os.SEEK_END)
    try:
        response = urlopen(Request(url, headers={"Range": f"bytes={have}-"}), timeout=TIMEOUT)
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
            if response.status != HTTPStatus.OK or (length is not None and length < have):
                raise HTTPException(f"HTTP {response.status} with {length} bytes, fewer than already received")
            file.truncate(0)
            have = 0
        total = None if length is None else have + length
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
    try:
        file.write(chunk)
        file.flush()
    except OSError as error:  # name the file, which the system does not do for a full disk
        raise OSError(error.errno, error.strerror, str(file.name)) from error
