"""What a row's run folder holds, read back: every number of the report comes through here."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from utils.errors import InputError
from utils.reproduction.rows import Row
from utils.reproduction.statistics import Estimate, estimate
from utils.runs import SEED_FOLDER, read_json, read_log


@dataclass(frozen=True)
class Result:
    """The seeds of a row that are finished, of those that were asked for."""

    folder: Path
    seeds: tuple[int, ...]
    asked: int

    @property
    def complete(self) -> bool:
        return len(self.seeds) == self.asked

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
        return estimate(self.values(metric), self.correct if metric == "wa" else None)

    def minus(self, other: "Result", metric: str = "wa") -> Estimate:
        """The difference to another row, paired over the seeds and, for WA, over the utterances."""
        scores = self.correct - other.correct if metric == "wa" else None
        return estimate(self.values(metric) - other.values(metric), scores)

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
        InputError: the folder holds runs of another configuration.
    """
    folders = {seed: row.folder / SEED_FOLDER.format(seed) for seed in seeds}
    finished = [seed for seed, folder in folders.items() if (folder / "metrics.json").is_file()]
    for seed in finished:
        path = folders[seed] / "config.json"
        if read_json(path).get("config") != dataclasses.asdict(row.config):
            raise InputError(f"{path}: not the configuration of {row.title}; give another --save_path, or remove it")
    return Result(row.folder, tuple(finished), len(seeds))
