"""Train the cells one after another in this process."""

from collections.abc import Sequence

import torch

from utils.sweep.folder import SweepFolder
from utils.sweep.grid import Cell, SweepData, attempt_cell
from utils.sweep.progress import Progress


def run_local(
    data: SweepData, folder: SweepFolder, cells: Sequence[Cell], progress: Progress, device: torch.device
) -> None:
    """Train what no other process is training; then wait for what others have, and train it if they were killed."""
    data = data.to(device)
    left = list(cells)
    for wait in (False, True):
        for cell in list(left):
            if not folder.claim(cell, wait):
                continue
            left.remove(cell)
            try:
                train_and_keep(data, folder, cell, progress)
            finally:
                folder.release(cell)


def train_and_keep(data: SweepData, folder: SweepFolder, cell: Cell, progress: Progress) -> None:
    """One claimed cell, from its graph to its file."""
    if not folder.is_done(cell):
        folder.write(cell, attempt_cell(data, cell, progress.epoch_done))
    progress.cell_done(cell, folder.read(cell))
