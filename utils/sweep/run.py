"""The Top-K grid (Fig. 2): its trials, and a sweep over them from features to tables and figure."""

import sys
from collections.abc import Sequence
from pathlib import Path

from utils.config import Config, display_name
from utils.sweep.config import K
from utils.sweep.results import (
    best_so_far,
    best_trial,
    outcomes,
    papers_trial,
    report,
    run_table,
    summary_table,
    write_tables,
)
from utils.training.graph import TrainingData
from utils.training.jobs import TrainAll
from utils.training.run import Progress, Run, Trial, open_runs


def grid_runs(
    config: Config,
    folder: Path,
    k_texts: Sequence[int],
    k_audios: Sequence[int],
    seeds: Sequence[int],
    data: TrainingData | None = None,
) -> list[Run]:
    """Every run of the grid, seed by seed, so that the first seed already covers the whole grid."""
    trials = [
        Trial(config.replace(k_text=k_text, k_audio=k_audio), folder / f"k{k_text}_{k_audio}", keep_weights=False)
        for k_text in k_texts
        for k_audio in k_audios
    ]
    return [Run(trial, seed, data) for seed in seeds for trial in trials]


def run_sweep(runs: Sequence[Run], folder: Path, train_all: TrainAll) -> tuple[int, Config | None]:
    """Train the remaining runs, write the tables and the figure, and print the report.

    Returns:
        The number of failed runs, and the configuration that validation selects, if any has all seeds.
    """
    k_texts, k_audios = (len({getattr(run.config, name) for run in runs}) for name in K)
    seeds = len({run.seed for run in runs})
    try:
        open_runs(runs)
        finished = [run for run in runs if run.finished]
        before = f", {len(finished)} of them already finished" if finished else ""
        sizes = f"{seeds} seed{'s' * (seeds > 1)}: {len(runs)} run{'s' * (len(runs) > 1)}"
        print(f"sweep folder {folder}\n{k_texts} x {k_audios} values of k, {sizes}{before}")
        if len(finished) < len(runs):
            runs[0].data.prepare([run.config for run in runs])
        results = outcomes(finished)

        def note(run: Run | None) -> str:
            results.extend(outcomes([run]) if run else ())
            return best_so_far(results)

        with Progress(runs, note) as progress:
            train_all(runs, progress)
    except KeyboardInterrupt:
        done = sum(run.finished for run in runs)
        print(f"{done} of {len(runs)} runs are finished; repeat the command to resume", file=sys.stderr)
        raise
    return _conclude(runs, folder, seeds)


def _conclude(runs: Sequence[Run], folder: Path, seeds: int) -> tuple[int, Config | None]:
    from utils.plots import plot_topk_grid  # matplotlib takes a second to import, which only this needs

    dataset = runs[0].config.dataset
    table = run_table(outcomes(runs))
    summary = summary_table(table)
    write_tables(folder, table, summary)
    best = best_trial(summary, seeds)
    title = f"{display_name(dataset)}, {folder.name}, {seeds} seed{'s' * (seeds > 1)}"
    plot_topk_grid(folder / "topk_grid.png", summary, seeds, best, papers_trial(summary, dataset), title)
    print(f"\n{title} (percent)\n{report(summary, dataset, seeds)}")
    print(f"saved in {folder}: sweep.csv, sweep_summary.csv, topk_grid.png")
    failed = table[table["error"].notna()]
    for each in failed.itertuples():
        print(f"failed: k_text {each.k_text}, k_audio {each.k_audio}, seed {each.seed}: {each.error}")
    if len(failed):
        print(f"{len(failed)} of {len(table)} runs failed; repeat the command to try them again")
    selected = (run.config for run in runs if best is not None and (run.config.k_text, run.config.k_audio) == best.name)
    return len(failed), next(selected, None)
