"""A sweep from the features to its tables and its figure."""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from utils.cli import Setup
from utils.config import display_name
from utils.graph_data import find_neighbors
from utils.plots import plot_topk_grid
from utils.report import config_lines
from utils.runs import describe_run
from utils.sweep.folder import SweepFolder
from utils.sweep.grid import Cell, SweepData, without_k
from utils.sweep.progress import Progress
from utils.sweep.results import best_cell, cell_table, papers_cell, report, summary_table, write_tables

Train = Callable[[SweepData, SweepFolder, list[Cell], Progress], None]  # here, or on a cluster


def run_sweep(
    setup: Setup, path: Path, cells: Sequence[Cell], train: Train, where: str
) -> tuple[int, pd.Series | None]:
    """Train what is left of the cells, write the tables and the figure, print the report.

    Args:
        path: the sweep's folder.
        where: it is trained, in words.

    Returns:
        How many cells failed, and the cell that validation chooses, if any has all seeds.
    """
    k_texts, k_audios, seeds = ({getattr(cell, name) for cell in cells} for name in ("k_text", "k_audio", "seed"))
    config = dataclasses.replace(setup.config, k_text=max(k_texts), k_audio=max(k_audios))
    dims = setup.splits["train"].dims
    folder = SweepFolder(path, describe_run(without_k(config), setup.splits, dims, setup.class_names))
    print(f"sweep folder {path}\ndevice {where}\nconfiguration")
    print(config_lines(config, leave_out=("k_text", "k_audio")))
    kept = {cell for cell in cells if folder.is_done(cell)}
    size = f"{len(k_texts)} x {len(k_audios)} values of k, {len(seeds)} seeds: {len(cells)} cells"
    print(size + (f", {len(kept)} of them finished before" if kept else ""))
    try:
        _train_cells(dataclasses.replace(setup, config=config), folder, cells, kept, train)
    except KeyboardInterrupt:
        finished = sum("error" not in result for result in folder.results(cells))
        print(f"{finished} of {len(cells)} cells are done and kept; the same command goes on", file=sys.stderr)
        raise
    with folder.exclusive():
        results = folder.results(cells)
        best = _conclude(config.dataset, results, path, len(seeds))
    failed = [result for result in results if "error" in result]
    for each in failed:
        print(f"failed: {Cell(each['k_text'], each['k_audio'], each['seed'])}: {each['error']}")
    if failed:
        print(f"{len(failed)} of {len(results)} cells failed; the same command tries them again")
    return len(failed), best


def _train_cells(setup: Setup, folder: SweepFolder, cells: Sequence[Cell], kept: set[Cell], train: Train) -> None:
    """Train what is left under a progress bar."""
    config, splits = setup.config, setup.splits
    left = [cell for cell in cells if cell not in kept]
    if not left:
        return
    nodes = {s: find_neighbors(f, config, splits["train"] if s != "train" else None) for s, f in splits.items()}
    data = SweepData(config, nodes, len(setup.class_names))
    progress = Progress(config.epochs, len(cells), folder.results(kept))
    try:
        train(data, folder, left, progress)
    finally:
        progress.close()


def _conclude(dataset: str, results: list[dict], path: Path, seeds: int) -> pd.Series | None:
    cells = cell_table(results)
    summary = summary_table(cells)
    write_tables(path, cells, summary)
    best = best_cell(summary, seeds)
    title = f"{display_name(dataset)}, {path.name}, {seeds} seed{'s' * (seeds > 1)}"
    plot_topk_grid(path / "topk_grid.png", summary, seeds, best, papers_cell(summary, dataset), title)
    print(f"\n{title} (percent)\n{report(summary, dataset, seeds)}")
    print(f"saved in {path}: sweep.csv, sweep_summary.csv, topk_grid.png")
    return best
