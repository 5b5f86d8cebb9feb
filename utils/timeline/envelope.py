"""The envelope of a waveform of any length, in bounded memory, for the figure."""

import numpy as np
from torch import Tensor

BINS = 8192  # maximum; a long recording has at least half as many, which is more than a figure has pixels
FIRST_WIDTH = 64  # initial number of samples per bin


class Envelope:
    """Minimum and maximum of a waveform in bins of equal width. The width doubles when there are too many bins.

    Attributes:
        samples: number of samples so far.
        width: samples per bin; the last bin may have fewer.
    """

    def __init__(self) -> None:
        self.samples, self.width = 0, FIRST_WIDTH
        self._bins = np.empty((2, 0), np.float32)
        self._rest = np.empty(0, np.float32)  # samples of the last bin, which is not full

    def add(self, waveform: Tensor) -> None:
        """Append samples [T]."""
        self.samples += len(waveform)
        waveform = np.concatenate([self._rest, waveform.numpy()])
        full = len(waveform) // self.width * self.width
        self._rest = waveform[full:].copy()
        self._bins = np.concatenate([self._bins, _bounds(waveform[:full].reshape(-1, self.width))], axis=1)
        while self._bins.shape[1] > BINS:
            self._double()

    def _double(self) -> None:
        bins = self._bins
        if odd := bins.shape[1] % 2:
            # the two bounds of the last bin replace its samples, and fill half of the wider bin
            last = np.resize(bins[:, -1], self.width)
            self._rest = np.concatenate([last, self._rest])
        pairs = bins[:, : bins.shape[1] - odd].reshape(2, -1, 2)
        self._bins = np.stack([pairs[0].min(1), pairs[1].max(1)])
        self.width *= 2

    def bounds(self) -> np.ndarray:
        """Minima and maxima [2, B]."""
        if not len(self._rest):
            return self._bins
        return np.concatenate([self._bins, _bounds(self._rest[None])], axis=1)


def _bounds(rows: np.ndarray) -> np.ndarray:
    """Minimum and maximum [2, B] of each row of [B, W]."""
    return np.stack([rows.min(1), rows.max(1)])
