"""Fig. 2 from a folder of the sweep."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from utils.config import DATASETS, Config
from utils.errors import InputError
from utils.reproduction.results import read_description, sizes_of
from utils.reproduction.statistics import Estimate, estimate
from utils.runs import config_difference
from utils.sweep.folder import read_cell
from utils.sweep.grid import K_VALUES, grid, without_k
from utils.sweep.results import best_cell, cell_table, papers_cell, report, summary_table


@dataclass(frozen=True)
class Sweep:
    """The cells that are finished, of the paper's grid and of ``k_values``."""

    folder: Path
    config: Config
    k_values: tuple[int, ...]
    seeds: tuple[int, ...]

    @property
    def dataset(self) -> str:
        return self.config.dataset

    @cached_property
    def results(self) -> list[dict]:
        """What each finished cell found; a failed one has its ``error``.

        Raises:
            InputError: the folder holds a sweep of another configuration, or a damaged cell.
        """
        path = self.folder / "config.json"
        if not path.is_file():
            return []
        if difference := config_difference(self.description["config"], without_k(self.config)):
            raise InputError(f"{path}: not the configuration of Fig. 2 ({difference}); give another --save_path")
        k_values = sorted({*self.k_values, *K_VALUES})
        found = (read_cell(self.folder, cell) for cell in grid(k_values, k_values, self.seeds))
        return [result for result in found if result is not None]

    @cached_property
    def description(self) -> dict:
        """Its ``config.json``."""
        return read_description(self.folder / "config.json")

    @property
    def sizes(self) -> dict[str, int]:
        """Utterances of each split; empty where nothing is trained."""
        return sizes_of(self.description) if self.results else {}

    @property
    def complete(self) -> bool:
        """Whether every training of the paper's own grid is there."""
        return self._trained == len(K_VALUES) ** 2 * len(self.seeds)

    @property
    def progress(self) -> str:
        return f"{self._trained} of {len(K_VALUES) ** 2 * len(self.seeds)} trainings"

    @property
    def papers(self) -> tuple[int, int]:
        return DATASETS[self.dataset].k_text, DATASETS[self.dataset].k_audio

    @cached_property
    def summary(self) -> pd.DataFrame:
        return summary_table(cell_table(self.results))

    @property
    def marked(self) -> tuple[pd.Series | None, pd.Series | None]:
        """The cell that is best on validation, and the paper's."""
        return best_cell(self.summary, len(self.seeds)), papers_cell(self.summary, self.dataset)

    @property
    def best(self) -> tuple[int, int]:
        """Of the paper's own grid."""
        own = self.summary[self.summary["k_text"].isin(K_VALUES) & self.summary["k_audio"].isin(K_VALUES)]
        cell = best_cell(own, len(self.seeds))
        return int(cell["k_text"]), int(cell["k_audio"])

    @property
    def best_minus_papers(self) -> Estimate:
        """Test w-F1 of the cell that is best on validation minus that of the paper's, paired over the seeds."""
        best, papers = (
            cell_table(self.results).set_index(["k_text", "k_audio", "seed"]).sort_index()["test_w_f1"].loc[k]
            for k in (self.best, self.papers)
        )
        return estimate(100 * (best - papers).to_numpy())

    @property
    def report(self) -> str:
        return report(self.summary, self.dataset, len(self.seeds))

    @property
    def _trained(self) -> int:
        """Of the paper's own grid."""
        own = (r for r in self.results if r["k_text"] in K_VALUES and r["k_audio"] in K_VALUES)
        return sum("error" not in result for result in own)
