"""The error that users are meant to see, exit codes, and interrupts that wait for the step in progress."""

import io
import os
import reprlib
import signal
import sys
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

# Categories of control characters, invisible ones that reorder or hide others, lone surrogates, and ends of lines
_UNPRINTABLE = ("Cc", "Cf", "Cs", "Zl", "Zp")
LONGEST = 2000  # characters of a message
# In what torch and the system say: CUDA; the CPU, in several words; cuBLAS and cuDNN
_OUT_OF_MEMORY = ("out of memory", "allocate memory", "not enough memory", "ALLOC_FAILED")
_JOINERS = "\u200c\u200d"  # parts of words in several scripts, and of emoji


class InputError(Exception):
    """Bad input, said in one line that names the file, the row and the value; scripts exit with 2.

    What the message quotes may be hostile, so it is made :func:`printable`. ``ways_out`` are lines below it.
    """

    def __init__(self, message: str, *ways_out: str):
        super().__init__("\n  ".join(_shortened(printable(line)) for line in (message, *ways_out)))

    def __reduce__(self) -> tuple:  # pickled as one line, it would come back with an escape for each end of a line
        return type(self), tuple(str(self).split("\n  "))


def run_main(main: Callable[[], int | None]) -> None:
    """Run a script's ``main`` and exit: 2 and one line for an :class:`InputError`, 130 for Ctrl-C."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller; the next file opened would get its descriptor
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
        if isinstance(stream := getattr(sys, name), io.TextIOWrapper):  # a notebook has others
            stream.reconfigure(errors="backslashreplace")  # for file names and signs that it cannot encode
    try:
        code = main()
        _flush_output()
        sys.exit(code)
    except InputError as error:
        sys.exit(_fail(f"error: {error}", 2))
    except BrokenPipeError:  # the reader has enough, as in "| head"
        _drop_output()
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        where = f"{printable(str(error.filename))}: " if error.filename else ""
        sys.exit(_fail(f"error: {where}{error.strerror or error}", 2))
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        way_out = "; --device cpu uses the machine's" if "CU" in str(error) else ""
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
    """Discard what is left for standard output, which Python flushes at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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
    """The first line of a library's error, for an error of ours that quotes it."""
    lines = str(error).strip().splitlines()
    return printable(lines[0][:200]) if lines else type(error).__name__


def problem_of(path: str, error: InputError | str) -> str:
    """What an error says of a file, without the file's name before it."""
    return str(error).removeprefix(f"{printable(path)}: ")


def out_of_memory(error: BaseException) -> bool:
    """Whether there is not enough memory, of a GPU or of the machine; torch says so in errors of several types."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in _OUT_OF_MEMORY)


@contextmanager
def fitting_into_memory(what: str, way_out: str) -> Iterator[None]:
    """Turn an error of the block for lack of memory into an InputError that says which option to change."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise InputError(f"{what} does not fit into memory; {way_out}") from error


def _shortened(line: str) -> str:
    return line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}"


def printable(text: str) -> str:
    """Escape what a terminal would obey instead of showing, and what no encoding has."""
    return "".join(ascii(c)[1:-1] if unicodedata.category(c) in _UNPRINTABLE and c not in _JOINERS else c for c in text)


def is_printable(text: str) -> bool:
    """Whether :func:`printable` changes nothing; unlike ``str.isprintable``, also for joiners and new signs."""
    return printable(text) == text


def shown(value: object) -> str:
    """The ``repr`` of a value of any size and nesting, shortened."""
    try:
        return printable(reprlib.repr(value))
    except (ValueError, RecursionError):  # an integer of thousands of digits
        return f"a {type(value).__name__} too large to show"


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
