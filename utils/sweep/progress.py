"""The sweep's progress bar."""

import sys
from collections.abc import Sequence

from tqdm import tqdm

from utils.sweep.grid import Cell
from utils.sweep.results import BestSoFar


class Progress:
    """One bar over the epochs of all cells, so that the time left is known early; the best cell so far beside it."""

    def __init__(self, epochs: int, total: int, results: Sequence[dict]):
        self._epochs, self._total, self._done = epochs, total, len(results)
        self._best = BestSoFar(results)
        self._bar = tqdm(total=total * epochs, initial=self._done * epochs, unit="epoch", dynamic_ncols=True)
        self._show()

    def epoch_done(self, line: dict) -> None:
        self._bar.update()

    def cell_done(self, cell: Cell, result: dict) -> None:
        self._done += 1
        self._best.add(result)
        self._bar.update(self._done * self._epochs - self._bar.n)  # the epochs that were not seen here
        if "error" in result:
            self.write(f"failed: {cell}: {result['error']}")
        self._show()

    def write(self, line: str) -> None:
        """Print a line above the bar."""
        self._bar.write(line, file=sys.stderr)

    def close(self) -> None:
        self._bar.close()

    def _show(self) -> None:
        self._bar.set_description(f"cell {min(self._done + 1, self._total)}/{self._total}", refresh=False)
        self._bar.set_postfix_str(str(self._best))
