"""The sweep's folder: a file for each finished cell, and locks so that sweeps started side by side share the work."""

import fcntl
import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from utils.errors import InputError
from utils.files import read_json, write_json
from utils.locks import lock
from utils.metrics import REPORTED
from utils.runs import claim_folder
from utils.sweep.grid import Cell

_FINISHED = {"k_text", "k_audio", "seed", "selected_epoch", "val", "test", "seconds"}
_FAILED = {"k_text", "k_audio", "seed", "error"}
_WHOLE_FOLDER = 0  # byte of the lock file that stands for the folder; the others stand for cells


class SweepFolder:
    """``cells/<cell>.json`` holds what a cell found, or its error; a file is written whole or not at all.

    A cell is locked while it is trained: one byte of the file ``.lock``, by the system, which frees it when the process
    ends, however it ends. So a killed sweep leaves no lock behind, and two sweeps never train the same cell.

    Raises:
        InputError: the folder holds a sweep of another configuration or other data.
    """

    def __init__(self, path: Path, description: dict):
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self._lock_file = (path / ".lock").open("ab")
        with self.exclusive():
            claim_folder(path, description)
        self._there_before = {file: file.stat().st_mtime_ns for file in (path / "cells").glob("*.json")}

    def read(self, cell: Cell) -> dict | None:
        """What the cell found, its failure, or None.

        Raises:
            InputError: the file is damaged or not of this cell.
        """
        return read_cell(self.path, cell)

    def is_done(self, cell: Cell) -> bool:
        """Whether there is nothing left to do: a failure from before this sweep began is tried again."""
        result = self.read(cell)
        if result is None or "error" not in result:
            return result is not None
        path = self._file(cell)
        return path.stat().st_mtime_ns != self._there_before.get(path)

    def write(self, cell: Cell, result: dict) -> None:
        write_json(self._file(cell), result)

    def results(self, cells: Iterable[Cell]) -> list[dict]:
        """Those that there are, in order of k and seed."""
        return [result for result in map(self.read, sorted(cells)) if result is not None]

    def claim_one(self, cells: Iterable[Cell]) -> Cell | None:
        """Lock the first cell that no other process has; None where they have all. Never waits."""
        for cell in cells:
            if lock(self._lock_file, _byte(cell)):
                return cell
        return None

    def release(self, cell: Cell) -> None:
        fcntl.lockf(self._lock_file, fcntl.LOCK_UN, 1, _byte(cell))

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep other sweeps from writing what belongs to the folder as a whole; waits until they have."""
        fcntl.lockf(self._lock_file, fcntl.LOCK_EX, 1, _WHOLE_FOLDER)
        try:
            yield
        finally:
            fcntl.lockf(self._lock_file, fcntl.LOCK_UN, 1, _WHOLE_FOLDER)

    def _file(self, cell: Cell) -> Path:
        return _cell_path(self.path, cell)


def read_cell(folder: Path, cell: Cell) -> dict | None:
    """What a cell in the folder of a sweep found, its failure, or None.

    Raises:
        InputError: the file is damaged or not of this cell.
    """
    path = _cell_path(folder, cell)
    if not path.exists():
        return None
    result = read_json(path)
    whole = result.keys() in (_FINISHED, _FAILED) and all(result[name] == k for name, k in vars(cell).items())
    for split in ("val", "test") if "error" not in result else ():
        figures = result.get(split)
        numbers = [figures.get(name) for name in REPORTED] if isinstance(figures, dict) else [None]
        whole = whole and all(isinstance(number, int | float) and 0 <= number <= 1 for number in numbers)
        whole = whole and isinstance(result["selected_epoch"], int) and isinstance(result["seconds"], int | float)
    if not whole:
        raise InputError(f"{path}: not a result of this cell; remove the file, and the cell is trained again")
    return result


def _cell_path(folder: Path, cell: Cell) -> Path:
    return folder / "cells" / f"{cell.name}.json"


def _byte(cell: Cell) -> int:
    """A byte of its own for each cell, the same in every process; the file itself stays empty."""
    return 1 + int.from_bytes(hashlib.sha256(cell.name.encode()).digest()[:7], "big")
