"""Results of a sweep: the two CSVs, the trial that validation selects, and the printed report."""

import shlex
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from utils.config import DATASETS, Config, changed_options
from utils.io import align, atomic_write
from utils.sweep.config import K
from utils.training.metrics import PRINTED, REPORTED, plus_minus
from utils.training.run import Run

SELECTION = "w_f1"  # metric of the validation split
METRIC_COLUMNS = [f"{split}_{name}" for split in ("val", "test") for name in REPORTED]


def outcomes(runs: Sequence[Run]) -> list[dict]:
    """The outcome of each run that has one, with its k.

    Raises:
        InputError: a file of a run is damaged.
    """
    found = [(run.config, run.outcome()) for run in runs]
    return [{"k_text": config.k_text, "k_audio": config.k_audio, **outcome} for config, outcome in found if outcome]


def run_table(results: Sequence[dict]) -> pd.DataFrame:
    """One row per run, sorted by k and seed: metrics as fractions, seconds of training and validation.

    A failed run has only an error.
    """
    columns = [*K, "seed", "selected_epoch", *METRIC_COLUMNS, "seconds", "error"]
    table = pd.json_normalize(results, sep="_").reindex(columns=columns)
    return table.astype({"selected_epoch": "Int64"}).sort_values([*K, "seed"], ignore_index=True)


def summary_table(table: pd.DataFrame) -> pd.DataFrame:
    """One row per trial, indexed by k: number of finished seeds, mean and sample std of each metric over them."""
    groups = table.groupby(K)
    summary = groups[METRIC_COLUMNS].agg(["mean", "std"])  # the std of a single seed is NaN
    summary.columns = ["_".join(names) for names in summary.columns]
    summary.insert(0, "seeds", groups["val_wa"].count())
    return summary.assign(seconds_mean=groups["seconds"].mean().round(3))


def write_tables(folder: Path, runs: pd.DataFrame, summary: pd.DataFrame) -> None:
    for name, table in (("sweep.csv", runs), ("sweep_summary.csv", summary.reset_index())):
        atomic_write(folder / name, table.to_csv(index=False).encode())


def best_trial(summary: pd.DataFrame, seeds: int, split: str = "val") -> pd.Series | None:
    """The trial with the best mean among those with all seeds; the fewest neighbours win ties."""
    scores = summary.loc[summary["seeds"] == seeds, f"{split}_{SELECTION}_mean"]
    return None if scores.empty else summary.loc[min(scores.index, key=lambda k: (-scores[k], sum(k), k))]


def papers_trial(summary: pd.DataFrame, dataset: str) -> pd.Series | None:
    """The trial that the paper found best for the dataset (IV.A), if the grid has it."""
    known = DATASETS[dataset] if dataset in PRINTED else None
    return (
        summary.loc[known.k_text, known.k_audio] if known and (known.k_text, known.k_audio) in summary.index else None
    )


def report(summary: pd.DataFrame, dataset: str, seeds: int) -> str:
    """The selected trial next to the paper's, and the optimism of selecting on test data."""
    best = best_trial(summary, seeds)
    if best is None:
        return f"no trial has all {seeds} seeds, so none is selected"
    rows = [("", *K, f"val {REPORTED[SELECTION]}", *(f"test {label}" for label in REPORTED.values()))]
    for title, trial in (("best on validation", best), ("the paper's best", papers_trial(summary, dataset))):
        if trial is not None and trial["seeds"] == seeds:
            names = (f"val_{SELECTION}", *(f"test_{name}" for name in REPORTED))
            rows.append((title, *map(str, trial.name), *(_percent(trial, name) for name in names)))
    return "\n".join([*align(rows), _optimism(best, best_trial(summary, seeds, "test"))])


def _percent(trial: pd.Series, name: str) -> str:
    return plus_minus(100 * trial[f"{name}_mean"], 100 * trial[f"{name}_std"])


def _optimism(best: pd.Series, best_on_test: pd.Series) -> str:
    name, label = f"test_{SELECTION}", REPORTED[SELECTION]
    gap = 100 * (best_on_test[f"{name}_mean"] - best[f"{name}_mean"])
    if gap == 0:
        return f"note: no trial has a better test {label}; still, do not select on the test split"
    k_text, k_audio = best_on_test.name
    return (
        f"warning: selection on the test split would choose k_text {k_text}, k_audio {k_audio}, with test {label} "
        f"{_percent(best_on_test, name)}, which is too optimistic by {gap:.2f} points"
    )


def training_command(config: Config, arguments: dict[str, object]) -> str:
    """The command that trains one trial of the sweep.

    Args:
        arguments: additional options, which are not part of the configuration.
    """
    profile = {"profile": config.profile} if config.profile != Config.profile else {}
    k = {name: getattr(config, name) for name in K}
    words = []
    for name, value in {**k, **profile, **changed_options(config), **arguments}.items():
        words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return shlex.join(["bash", "run_training.sh", config.dataset, *words])


def best_so_far(results: Sequence[dict]) -> str:
    """The leading trial while a sweep runs, compared over as many seeds as every trial has finished.

    Args:
        results: the results of :func:`outcomes`, in the order in which the runs finished.
    """
    scores: dict[tuple[int, int], list[float]] = {}
    for result in results:
        if "error" not in result:
            scores.setdefault((result["k_text"], result["k_audio"]), []).append(result["val"][SELECTION])
    if not scores:
        return ""
    seeds = min(map(len, scores.values()))
    means = {k: sum(of_trial[:seeds]) / seeds for k, of_trial in scores.items()}
    (k_text, k_audio), mean = max(means.items(), key=lambda item: item[1])
    return f"best k {k_text}, {k_audio}: val {REPORTED[SELECTION]} {100 * mean:.1f} ({seeds} seed{'s' * (seeds > 1)})"
