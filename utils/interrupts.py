"""Ctrl-C and SIGTERM, held back until the step under way is done."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


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
