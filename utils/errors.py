"""The error that users are meant to see, exit codes, and interrupts that wait for the step in progress."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


class InputError(Exception):
    """Bad input, said in one line that names the file, the row and the value; scripts exit with 2."""


def run_main(main: Callable[[], int | None]) -> None:
    """Run a script's ``main`` and exit: 2 and one line for an :class:`InputError`, 130 for Ctrl-C."""
    try:
        sys.exit(main())
    except InputError as error:
        sys.exit(_fail(f"error: {error}", 2))
    except BrokenPipeError:  # the reader has enough, as in "| head"
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes at its end
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        sys.exit(_fail(f"error: {where}{error.strerror or error}", 2))
    except KeyboardInterrupt:
        sys.exit(_fail("interrupted", 130))


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Turn what a damaged file's contents raise into an InputError: the file, and ``what`` it is not."""
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:  # pandas' are ValueErrors
        raise InputError(f"{path}: {what} ({type(error).__name__}: {one_line(error)})") from error


def one_line(error: BaseException) -> str:
    """The first line of a library's error, for an error of ours that quotes it; what it quotes may be hostile."""
    lines = str(error).strip().splitlines()
    return "".join(c if c.isprintable() else "?" for c in lines[0][:200]) if lines else type(error).__name__


def _fail(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM came, and the epoch under way was finished first: the state is whole."""


@contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Hold SIGINT and SIGTERM back until asked for; a second one is not held back."""
    received = []

    def remember(signum, frame):
        received.append(signum)
        signal.signal(signum, previous[signum])

    previous = {signum: signal.signal(signum, remember) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received)
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
