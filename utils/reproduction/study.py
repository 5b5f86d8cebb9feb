"""The whole of what a report is about: rows, sweeps and where they lie."""

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from utils.config import PROFILES, feature_path, make_config, run_name
from utils.errors import InputError
from utils.features import SPLITS
from utils.files import file_sha256
from utils.paper import PRINTED
from utils.published import is_published
from utils.reproduction.fig2 import Sweep
from utils.reproduction.results import Result, Rows, read_result, sha256_of
from utils.reproduction.rows import AGREEMENTS, WALKED, Row, homophily_rows, table_rows, walk_rows
from utils.sweep.grid import K_VALUES, as_published, sweep_name


@dataclass(frozen=True)
class Study:
    """What is trained and reported: ``datasets`` by ``profiles`` by ``seeds``, in folders below ``root``.

    Attributes:
        shared: options of every configuration, where they are not the profile's (``epochs`` of a quick study).
        k_values: the grid of Fig. 2, for text and for audio.
        agreements: of DEMO's scenes, for the curve over homophily.
    """

    root: Path
    feature_dir: Path
    datasets: tuple[str, ...]
    seeds: tuple[int, ...]
    profiles: tuple[str, ...] = PROFILES
    shared: dict = field(default_factory=dict)
    k_values: tuple[int, ...] = K_VALUES
    agreements: tuple[float, ...] = AGREEMENTS
    _read: dict[Row, Result] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def tables(self) -> dict[tuple[str, str], tuple[dict[str, Row], dict[str, Row]]]:
        """Tables I and II by dataset and profile."""
        return {
            (dataset, profile): table_rows(self.root, dataset, profile, self.shared)
            for dataset in self.datasets
            for profile in self.profiles
        }

    @cached_property
    def walks(self) -> dict[str, dict[str, dict[str, Row]]]:
        """By dataset and row of Table II.

        On synthetic features they would say nothing, and from one profile they lead nowhere.
        """
        real = [d for d in self.datasets if d != "DEMO"] if self.profiles == PROFILES else []
        return {dataset: {of: walk_rows(self.root, dataset, of, self.shared) for of in WALKED} for dataset in real}

    @cached_property
    def homophily(self) -> dict[tuple[str, float, bool], Row]:
        """DEMO with and without CH-GAT, where DEMO is among the datasets."""
        if "DEMO" not in self.datasets:
            return {}
        return homophily_rows(self.root, self.profiles, self.agreements, self.shared)

    @cached_property
    def sweeps(self) -> dict[tuple[str, str], Sweep]:
        """Fig. 2 by dataset and profile, for the datasets that the paper has it for."""
        found = {}
        for dataset in (d for d in self.datasets if d in PRINTED):
            for profile in self.profiles:
                config = make_config(as_published({"dataset": dataset, "profile": profile, **self.shared}))
                folder = self.root / dataset / sweep_name(config)
                found[dataset, profile] = Sweep(folder, config, self.k_values, self.seeds)
        return found

    def missing_features(self, dataset: str) -> list[Path]:
        """The pickles that are not there; DEMO's are made."""
        if dataset == "DEMO":
            return []
        paths = [feature_path(self.feature_dir, dataset, split) for split in SPLITS]
        return [path for path in paths if not path.is_file()]

    def result(self, row: Row) -> Result:
        """What a row has found, read once."""
        if row not in self._read:
            self._read[row] = read_result(row, self.seeds)
        return self._read[row]

    def results(self, rows: dict[str, Row]) -> Rows:
        return {title: self.result(row) for title, row in rows.items()}

    def of_published_test(self, result: Result) -> bool:
        """Whether a row was tested on the very utterances of the paper; the published pickle must be there to tell."""
        path = feature_path(self.feature_dir, result.row.dataset, "test")
        return is_published(path) and file_sha256(path) == result.data["test"]

    def check_data(self, dataset: str, wanted: dict[str, str] | None = None) -> None:
        """Raise an InputError where the runs of a dataset are not all of the same features.

        Args:
            wanted: SHA-256 of each split's features, where the runs must be of these; those of both profiles then.
        """
        study = self if wanted is None else dataclasses.replace(self, profiles=PROFILES)
        there = [] if wanted is None else [("those of this command", wanted)]
        results = [study.result(row) for row in study.table_rows(dataset) + study.walk_rows(dataset)]
        there += [(result.folder, result.data) for result in results if result.seeds]
        for (d, _), sweep in study.sweeps.items():
            if d == dataset and sweep.results:
                there.append((sweep.folder, sha256_of(sweep.description)))
        for folder, data in there[1:]:
            if data != there[0][1]:
                raise InputError(f"{folder}: of other features than {there[0][0]}; give each its own --save_path")

    @property
    def is_of_the_profiles(self) -> bool:
        """Whether the shared options leave the profiles as they are, on every dataset."""
        return all(run_name(tables[0]["MIN"].config) == profile for (_, profile), tables in self.tables.items())

    def table_rows(self, dataset: str) -> list[Row]:
        """The rows of Tables I and II, each once; the headlines first."""
        rows = [row for (d, _), tables in self.tables.items() if d == dataset for t in tables for row in t.values()]
        unique = {row.folder: row for row in rows}
        return sorted(unique.values(), key=lambda row: not row.headline)

    def walk_rows(self, dataset: str) -> list[Row]:
        """The rows of the walks between their ends, which are in the tables."""
        ends = {row.folder for row in self.table_rows(dataset)}
        rows = (row for walk in self.walks.get(dataset, {}).values() for row in walk.values())
        return [row for row in rows if row.folder not in ends]
