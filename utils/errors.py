"""The error for bad input, exit codes, and interrupts that wait for the current step."""

import io
import os
import reprlib
import signal
import sys
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

# Categories of control characters, invisible characters that reorder or hide others, lone surrogates, and line ends
_UNPRINTABLE = ("Cc", "Cf", "Cs", "Zl", "Zp")
LONGEST = 2000  # maximum number of characters in a line of a message
# Parts of error messages: of CUDA; of the CPU (two forms); of cuBLAS and cuDNN
_OUT_OF_MEMORY = ("out of memory", "allocate memory", "not enough memory", "ALLOC_FAILED")
_JOINERS = "\u200c\u200d"  # occur in words of several scripts and in emoji


class InputError(Exception):
    """Bad input. One line names the file, the row and the value; scripts exit with 2.

    The message may quote hostile input, so it is made :func:`printable`. ``ways_out`` are additional lines below it.
    """

    def __init__(self, message: str, *ways_out: str):
        super().__init__("\n  ".join(_shortened(printable(line)) for line in (message, *ways_out)))

    def __reduce__(self) -> tuple:  # pickling the message as one line would escape its line ends
        return type(self), tuple(str(self).split("\n  "))


def run_main(main: Callable[[], int | None]) -> None:
    """Run the ``main`` of a script and exit: with 2 and one line for an :class:`InputError`, with 130 for Ctrl-C."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller; otherwise the next opened file would get its descriptor
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
        if isinstance(stream := getattr(sys, name), io.TextIOWrapper):  # not in a notebook
            stream.reconfigure(errors="backslashreplace")  # for characters that the stream cannot encode
    try:
        code = main()
        _flush_output()
        sys.exit(code)
    except InputError as error:
        sys.exit(_fail(f"error: {error}", 2))
    except BrokenPipeError:  # the reader has closed the pipe, as in "| head"
        _drop_output()
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        where = f"{printable(str(error.filename))}: " if error.filename else ""
        sys.exit(_fail(f"error: {where}{error.strerror or error}", 2))
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        way_out = "; try --device cpu" if "CU" in str(error) else ""
        sys.exit(_fail(f"error: out of memory ({one_line(error)}){way_out}", 2))
    except KeyboardInterrupt:
        sys.exit(_fail("interrupted", 130))


def _flush_output() -> None:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:  # a full disk
        _drop_output()
        raise OSError(error.errno, error.strerror, "standard output") from error


def _drop_output() -> None:
    """Discard the rest of standard output, which Python would flush at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Convert errors from damaged contents of a file to an InputError with the file and ``what`` is wrong."""
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:  # pandas raises ValueErrors
        raise InputError(f"{path}: {what} ({type(error).__name__}: {one_line(error)})") from error


def one_line(error: BaseException) -> str:
    """The first line of a library error, to quote it in another error."""
    lines = str(error).strip().splitlines()
    return printable(lines[0][:200]) if lines else type(error).__name__


def problem_of(path: str, error: InputError | str) -> str:
    """The message of an error about a file, without the leading file name."""
    return str(error).removeprefix(f"{printable(path)}: ")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that a GPU or the machine is out of memory. torch uses several error types for this."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in _OUT_OF_MEMORY)


@contextmanager
def fitting_into_memory(what: str, way_out: str) -> Iterator[None]:
    """Convert an out-of-memory error of the block to an InputError that names the option to change."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise InputError(f"{what} does not fit into memory; {way_out}") from error


def _shortened(line: str) -> str:
    return line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}"


def printable(text: str) -> str:
    """Escape characters that a terminal would interpret instead of showing, and those that cannot be encoded."""
    return "".join(ascii(c)[1:-1] if unicodedata.category(c) in _UNPRINTABLE and c not in _JOINERS else c for c in text)


def is_printable(text: str) -> bool:
    """Whether :func:`printable` leaves a text unchanged. Unlike ``str.isprintable``, allows joiners and new signs."""
    return printable(text) == text


def shown(value: object) -> str:
    """The shortened ``repr`` of a value of any size and nesting."""
    try:
        return printable(reprlib.repr(value))
    except (ValueError, RecursionError):  # for example an integer with thousands of digits
        return f"a {type(value).__name__} too large to show"


def _fail(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM was received, and the current epoch was finished first, so the state is complete."""


@contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Defer SIGINT and SIGTERM until the caller checks for them, or the block ends. A second one is not deferred."""
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
    for signum in received:  # after the caller's last check
        signal.raise_signal(signum)
