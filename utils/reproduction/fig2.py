"""Fig. 2 from a folder of the sweep."""

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from utils.config import DATASETS, Config
from utils.errors import InputError
from utils.reproduction.statistics import Estimate, estimate
from utils.runs import read_json
from utils.sweep.folder import read_cell
from utils.sweep.grid import K_VALUES, grid
from utils.sweep.results import best_cell, cell_table, papers_cell, report, summary_table


@dataclass(frozen=True)
class Sweep:
    """The cells of a grid that are finished, of those that were asked for."""

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
        config = {k: v for k, v in dataclasses.asdict(self.config).items() if k not in ("k_text", "k_audio")}
        if self.description.get("config") != config:
            raise InputError(f"{path}: not the configuration of this reproduction; give another --save_path")
        found = (read_cell(self.folder, cell) for cell in grid(self.k_values, self.k_values, self.seeds))
        return [result for result in found if result is not None]

    @cached_property
    def description(self) -> dict:
        """Its ``config.json``."""
        return read_json(self.folder / "config.json")

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
        cell = best_cell(self.summary, len(self.seeds))
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
