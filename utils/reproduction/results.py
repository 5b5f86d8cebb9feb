"""What a row's run folder holds, read back: every number of the report comes through here."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from utils.demo import SCENE_SIZE
from utils.errors import InputError
from utils.reproduction.rows import Row
from utils.reproduction.statistics import Estimate, estimate
from utils.runs import SEED_FOLDER, read_json, read_log


@dataclass(frozen=True)
class Result:
    """The seeds of a row that are finished, of those that were asked for."""

    row: Row
    seeds: tuple[int, ...]
    asked: int

    @property
    def folder(self) -> Path:
        return self.row.folder

    @cached_property
    def summary(self) -> dict | None:
        """``summary.json``, where it covers the finished seeds: it is written after the last one."""
        path = self.folder / "summary.json"
        summary = read_json(path) if path.is_file() else {}
        try:
            covered = set(summary["test"]["seeds"]) >= set(map(str, self.seeds)) and summary["graphs"]["test"]
        except (LookupError, TypeError):
            return None  # of an earlier command, or of another version: train_rows writes it anew
        return summary if covered else None

    @property
    def complete(self) -> bool:
        return len(self.seeds) == self.asked and self.summary is not None

    @cached_property
    def data(self) -> dict[str, str]:
        """SHA-256 of each split's features."""
        return {split: each["sha256"] for split, each in self.description["data"].items()}

    @cached_property
    def metrics(self) -> list[dict]:
        """``metrics.json`` of each finished seed."""
        return [read_json(self._seed_folder(seed) / "metrics.json") for seed in self.seeds]

    @cached_property
    def description(self) -> dict:
        """``config.json`` of the first finished seed."""
        return read_json(self._seed_folder(self.seeds[0]) / "config.json")

    @cached_property
    def correct(self) -> np.ndarray:
        """100 where a test utterance was recognised, else 0, [seeds, N]."""
        return np.stack([self._read_correct(seed) for seed in self.seeds])

    @property
    def training_seconds(self) -> float:
        """What all epochs of the finished seeds took."""
        logs = [read_log(self._seed_folder(seed) / "log.jsonl") for seed in self.seeds]
        return sum(line["seconds"] for log in logs for line in log)

    def values(self, metric: str) -> np.ndarray:
        """A figure of the test split in percent, one a seed."""
        return np.array([100 * metrics["test"][metric] for metrics in self.metrics])

    def estimate(self, metric: str) -> Estimate:
        return estimate(self.values(metric), self.correct if metric == "wa" else None, self._group)

    def minus(self, other: "Result", metric: str = "wa") -> Estimate:
        """The difference to another row, paired over the seeds and, for WA, over the utterances.

        Raises:
            InputError: the two rows are of other features.
        """
        if self.data != other.data:
            raise InputError(f"{self.folder}: of other features than {other.folder}; give each its own --save_path")
        scores = self.correct - other.correct if metric == "wa" else None
        return estimate(self.values(metric) - other.values(metric), scores, self._group)

    @property
    def _group(self) -> int:
        """The utterances of one of DEMO's scenes share label and neighbours."""
        return SCENE_SIZE if self.row.dataset == "DEMO" else 1

    def _seed_folder(self, seed: int) -> Path:
        return self.folder / SEED_FOLDER.format(seed)

    def _read_correct(self, seed: int) -> np.ndarray:
        path = self._seed_folder(seed) / "test_predictions.csv"
        try:
            rows = pd.read_csv(path)
            correct = 100.0 * (rows["label"] == rows["prediction"]).to_numpy()
        except FileNotFoundError as error:
            raise InputError(f"{path}: no such file") from error
        except (ValueError, KeyError, pd.errors.ParserError) as error:
            raise InputError(f"{path}: not the predictions of a run ({error})") from error
        wa = 100 * read_json(path.with_name("metrics.json"))["test"]["wa"]
        if not len(correct) or abs(correct.mean() - wa) > 1e-6:
            raise InputError(f"{path}: not the predictions that metrics.json beside it counts (WA {wa:.2f})")
        return correct


def read_result(row: Row, seeds: Sequence[int]) -> Result:
    """What there is of the seeds asked for.

    Raises:
        InputError: the folder holds runs of another configuration, or of several features.
    """
    folders = {seed: row.folder / SEED_FOLDER.format(seed) for seed in seeds}
    finished = [seed for seed, folder in folders.items() if (folder / "metrics.json").is_file()]
    data = None
    for seed in finished:
        path = folders[seed] / "config.json"
        description = read_json(path)
        if description.get("config") != dataclasses.asdict(row.config):
            raise InputError(f"{path}: not the configuration of {row.title}; give another --save_path, or remove it")
        try:
            of_seed = {split: each["sha256"] for split, each in description["data"].items()}
        except (LookupError, TypeError, AttributeError) as error:
            raise InputError(f"{path}: does not say which features it is of") from error
        data = data or of_seed
        if of_seed != data:
            raise InputError(f"{path}: of other features than the seed before it; remove {row.folder}")
    return Result(row, tuple(finished), len(seeds))


Rows = dict[str, Result]  # of a table: by title
