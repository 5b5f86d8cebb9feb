"""Locks on open files, so that commands side by side share work; the system frees them however a process ends."""

import errno
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO


def lock(file: IO, byte: int) -> bool:
    """Lock one byte of a file if no other process has it; never waits."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            raise
        return False
    return True


@contextmanager
def try_lock(file: IO) -> Iterator[bool]:
    """Whether this open file has its file to itself, as long as the block lasts. Never waits."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
        return
    try:
        yield True
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)
