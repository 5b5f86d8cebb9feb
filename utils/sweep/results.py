"""What the sweep found: the two CSVs, the cell that validation chooses, the printed report."""

import shlex
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from utils.config import DATASETS
from utils.files import atomic_write
from utils.metrics import REPORTED
from utils.paper import PRINTED
from utils.report import align

SCORED = ("val", "test")
CHOICE = "w_f1"  # of the validation split, which also chooses the epoch in profile paper
K = ["k_text", "k_audio"]
COLUMNS = [f"{split}_{name}" for split in SCORED for name in REPORTED]


def cell_table(results: Sequence[dict]) -> pd.DataFrame:
    """A row a cell and seed; fractions, and seconds of training and evaluation. A failed one has its error alone."""
    rows = []
    for result in results:
        row = {name: result[name] for name in (*K, "seed")}
        row["selected_epoch"] = result.get("selected_epoch")
        for split in SCORED:
            row |= {f"{split}_{name}": result[split][name] if split in result else None for name in REPORTED}
        rows.append(row | {"seconds": result.get("seconds"), "error": result.get("error")})
    frame = pd.DataFrame(rows)
    numbers = dict.fromkeys([*COLUMNS, "seconds"], float)
    return frame.astype({"selected_epoch": "Int64", **numbers})  # also where every cell failed


def summary_table(cells: pd.DataFrame) -> pd.DataFrame:
    """A row for each k_text and k_audio: how many seeds there are, and each figure's mean and sample std over them."""
    groups = cells.groupby(K)
    summary = groups["val_wa"].count().rename("seeds").to_frame()
    for name in COLUMNS:
        summary[f"{name}_mean"] = groups[name].mean()
        summary[f"{name}_std"] = groups[name].std()  # divided by n - 1, empty for a single seed
    summary["seconds_mean"] = groups["seconds"].mean().round(3)
    return summary.reset_index()


def write_tables(folder: Path, cells: pd.DataFrame, summary: pd.DataFrame) -> None:
    for name, table in (("sweep.csv", cells), ("sweep_summary.csv", summary)):
        atomic_write(folder / name, table.to_csv(index=False).encode())


def best_cell(summary: pd.DataFrame, seeds: int, split: str = "val") -> pd.Series | None:
    """The cell with the best mean, of those with all seeds; of equal ones that with the fewest neighbours."""
    complete = summary[summary["seeds"] == seeds]
    if complete.empty:
        return None
    order = complete.assign(neighbours=complete["k_text"] + complete["k_audio"])
    return order.sort_values(
        [f"{split}_{CHOICE}_mean", "neighbours", "k_text"], ascending=[False, True, True], kind="stable"
    ).iloc[0]


def papers_cell(summary: pd.DataFrame, dataset: str) -> pd.Series | None:
    """The cell that the paper found best for the dataset (IV.A), where the grid has it."""
    if dataset not in PRINTED:
        return None
    paper = DATASETS[dataset]
    rows = summary[(summary["k_text"] == paper.k_text) & (summary["k_audio"] == paper.k_audio)]
    return None if rows.empty else rows.iloc[0]


def report(summary: pd.DataFrame, dataset: str, seeds: int) -> str:
    """The chosen cell and the paper's beside each other, and what choosing on test data would have pretended."""
    best = best_cell(summary, seeds)
    if best is None:
        return f"no cell has all {seeds} seeds, so none is chosen"
    rows = [("", "k_text", "k_audio", f"val {REPORTED[CHOICE]}", *(f"test {label}" for label in REPORTED.values()))]
    rows.append(_row("best on validation", best))
    paper = papers_cell(summary, dataset)
    if paper is not None and paper["seeds"] == seeds:
        rows.append(_row("the paper's best", paper))
    return "\n".join([*align(rows), _optimism(summary, best, seeds)])


def _row(title: str, cell: pd.Series) -> tuple[str, ...]:
    names = [f"val_{CHOICE}", *(f"test_{name}" for name in REPORTED)]
    return title, str(int(cell["k_text"])), str(int(cell["k_audio"])), *(_percent(cell, name) for name in names)


def _percent(cell: pd.Series, name: str) -> str:
    mean, std = 100 * cell[f"{name}_mean"], 100 * cell[f"{name}_std"]
    return f"{mean:.2f}" if pd.isna(std) else f"{mean:.2f} ± {std:.2f}"


def _optimism(summary: pd.DataFrame, best: pd.Series, seeds: int) -> str:
    picked = best_cell(summary, seeds, "test")
    label = REPORTED[CHOICE]
    gap = 100 * (picked[f"test_{CHOICE}_mean"] - best[f"test_{CHOICE}_mean"])
    if gap == 0:
        return f"warning: by luck no cell has a better test {label}; the test split is still not what to choose on"
    return (
        f"warning: chosen on the test split it would be k_text {int(picked['k_text'])}, k_audio "
        f"{int(picked['k_audio'])}, with test {label} {_percent(picked, f'test_{CHOICE}')}: {gap:.2f} points of "
        "optimism, not of accuracy"
    )


def training_command(best: pd.Series, dataset: str, options: dict) -> str:
    """The ready line that trains the chosen cell."""
    values = {"k_text": int(best["k_text"]), "k_audio": int(best["k_audio"]), **options}
    words = []
    for name, value in values.items():
        words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return shlex.join(["bash", "run_training.sh", dataset, *words])


class BestSoFar:
    """The cell that is ahead while the sweep runs, by as many seeds as every cell begun has done."""

    def __init__(self, results: Sequence[dict]):
        self._scores: dict[tuple[int, int], list[float]] = {}
        for result in results:
            self.add(result)

    def add(self, result: dict) -> None:
        if "error" not in result:
            cell = result["k_text"], result["k_audio"]
            self._scores.setdefault(cell, []).append(result["val"][CHOICE])

    def __str__(self) -> str:
        if not self._scores:
            return ""
        seeds = min(map(len, self._scores.values()))
        means = {cell: sum(s[:seeds]) / seeds for cell, s in self._scores.items()}
        (k_text, k_audio), mean = max(means.items(), key=lambda item: item[1])
        return f"best k {k_text}, {k_audio}: val {REPORTED[CHOICE]} {100 * mean:.1f} ({seeds} seed{'s' * (seeds > 1)})"
