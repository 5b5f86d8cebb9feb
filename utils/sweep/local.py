"""Train the cells one after another in this process."""

import time
from collections.abc import Sequence

import torch

from utils.sweep.folder import SweepFolder
from utils.sweep.grid import Cell, SweepData, attempt_cell
from utils.sweep.progress import Progress

POLL_SECONDS = 0.5  # between looks at the cells that other processes have


def run_local(
    data: SweepData, folder: SweepFolder, cells: Sequence[Cell], progress: Progress, device: torch.device
) -> None:
    """Train what no other process is training; what others have is theirs, or ours once they were killed."""
    data = data.to(device)
    left = list(cells)
    while left:
        cell = folder.claim_one(left)
        if cell is None:
            time.sleep(POLL_SECONDS)
            continue
        left.remove(cell)
        try:
            train_and_keep(data, folder, cell, progress, device)
        finally:
            folder.release(cell)


def train_and_keep(data: SweepData, folder: SweepFolder, cell: Cell, progress: Progress, device: torch.device) -> None:
    """One claimed cell, from its graph to its file."""
    if not folder.is_done(cell):
        folder.write(cell, attempt_cell(data, cell, device, progress.epoch_done))
    progress.cell_done(cell, folder.read(cell))
