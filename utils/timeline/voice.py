"""Detect speech in a recording of any length, block by block, with Silero VAD. Its package includes the weights."""

import math
import warnings
from array import array
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from utils.data.audio import Recording, Segment, load_segment, resampling_step
from utils.timeline.envelope import Envelope

BLOCK_SECONDS = 32  # decoded at once
RATE, WINDOW = 16_000, 512  # Hz and samples of Silero's input
THRESHOLD, MIN_SILENCE, PADDING = 0.5, 0.1, 0.03  # Silero's defaults; seconds
_QUIET = THRESHOLD - 0.15  # Silero's threshold below which speech ends


def blocks(recording: Recording, rate: int, envelope: Envelope | None = None) -> Iterator[Tensor]:
    """Yield consecutive parts [T] of a recording at ``rate``. Concatenated, they equal the recording resampled at once.

    Args:
        envelope: each part is also added to it.

    Raises:
        InputError: as :func:`utils.data.audio.load_segment`.
    """
    step, _ = resampling_step(recording.rate, rate)
    length = math.ceil(BLOCK_SECONDS * recording.rate / step) * step
    for start in range(0, recording.frames, length):
        waveform = load_segment(Segment(recording, start, min(start + length, recording.frames)), rate)
        if envelope is not None:
            envelope.add(waveform)
        yield waveform


class SpeechDetector:
    """Streaming Silero VAD, which finds where speech begins, pauses and ends. It stores 0.5 MB per hour.

    Times are in seconds of the recording.
    """

    def __init__(self, recording: Recording):
        with _one_thread(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Silero uses deprecated functions to load the model
            import silero_vad  # sets the number of threads of the process

            self._model = _Remembering(silero_vad.load_silero_vad())
        silence, padding = round(1000 * MIN_SILENCE), round(1000 * PADDING)
        self._iterator = silero_vad.VADIterator(self._model, THRESHOLD, RATE, silence, padding)
        frames, samples = resampling_step(recording.rate, RATE)
        self._sample = frames / samples / recording.rate  # seconds; 1 / RATE unless the recording's rate was rounded
        self._window = WINDOW * self._sample
        self._rest = torch.empty(0)

    @property
    def seconds(self) -> float:
        """The end of the last whole window that was added."""
        return len(self._model.probabilities) * self._window

    def add(self, waveform: Tensor) -> list[tuple[str, float]]:
        """Append samples [T] at :data:`RATE`. Returns the new edges of speech: ``start`` or ``end``, and the time."""
        waveform = torch.cat([self._rest, waveform])
        full = len(waveform) // WINDOW * WINDOW
        self._rest = waveform[full:].clone()
        with _one_thread():  # a window is too small for more threads
            found = [edge for window in waveform[:full].view(-1, WINDOW) if (edge := self._iterator(window))]
        return [(kind, at * self._sample) for edge in found for kind, at in edge.items()]

    def pause(self, start: float, stop: float) -> float:
        """The middle of the longest pause between two times, or without a pause, of the window least like speech."""
        first, last = round(start / self._window), round(stop / self._window)
        values = np.array(self._model.probabilities[first:last])
        quiet = np.flatnonzero(values < _QUIET)
        runs = np.split(quiet, np.flatnonzero(np.diff(quiet) > 1) + 1) if len(quiet) else [[values.argmin()]]
        longest = max(runs, key=len)
        return (first + (longest[0] + longest[-1] + 1) / 2) * self._window


class _Remembering:
    """Silero's model, which also stores its speech probability of each window."""

    def __init__(self, model: torch.nn.Module):
        self.probabilities = array("f")
        self.reset_states = model.reset_states
        self._model = model

    def __call__(self, window: Tensor, rate: int) -> Tensor:
        probability = self._model(window, rate)
        self.probabilities.append(probability.item())
        return probability


def speech(
    recording: Recording, longest: float, margin: float, envelope: Envelope | None = None
) -> Iterator[tuple[float, float]]:
    """Yield regions of speech, start and stop in seconds, as soon as each is complete.

    Args:
        longest: maximum seconds of a region. A longer one is cut at the longest pause within this time, at least
            ``margin`` from both ends.
    """
    detector, begin = SpeechDetector(recording), None
    for waveform in blocks(recording, RATE, envelope):
        for kind, at in [*detector.add(waveform), ("heard", detector.seconds)]:
            while begin is not None and at - begin > longest:
                middle = detector.pause(begin + margin, begin + longest - margin)
                yield begin, middle
                begin = middle
            if kind == "start":
                begin = at
            elif kind == "end":
                yield begin, at
                begin = None
    if begin is not None:
        yield begin, recording.seconds


@contextmanager
def _one_thread() -> Iterator[None]:
    """Limit torch to one thread inside the block, and restore the number of threads afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
