"""What a row's run folder holds, read back: every number of the report comes through here."""

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from utils.demo import SCENE_SIZE
from utils.errors import InputError, one_line
from utils.features import SPLITS
from utils.metrics import REPORTED
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
        if not path.is_file():
            return None
        summary = read_json(path)
        with _named(path, "not the summary of a run"):
            covered = set(summary["test"]["seeds"])
            graphs = {split: float(summary["graphs"][split]["homophily"]) for split in SPLITS}
            known = all(0 <= share <= 1 for share in graphs.values()) and isinstance(summary["device"], str)
            if not known:
                raise ValueError("homophily or device")
        return summary if covered >= set(map(str, self.seeds)) else None

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
        return [_read_metrics(self._seed_folder(seed) / "metrics.json", seed) for seed in self.seeds]

    @cached_property
    def description(self) -> dict:
        """``config.json`` of the first finished seed."""
        return _read_description(self._seed_folder(self.seeds[0]) / "config.json")

    @cached_property
    def correct(self) -> np.ndarray:
        """100 where a test utterance was recognised, else 0, [seeds, N]."""
        return np.stack([self._read_correct(seed) for seed in self.seeds])

    @property
    def training_seconds(self) -> float:
        """What all epochs of the finished seeds took."""
        total = 0.0
        for seed in self.seeds:
            path = self._seed_folder(seed) / "log.jsonl"
            log = read_log(path)
            with _named(path, "not the log of a run"):
                if len(log) != self.row.config.epochs:
                    raise ValueError(f"{len(log)} epochs of {self.row.config.epochs}")
                total += sum(float(line["seconds"]) for line in log)
        return total

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
        wanted = self.description["data"]["test"]["utterances"]
        with _named(path, "not the predictions of a run"):
            rows = pd.read_csv(path)
            correct = 100.0 * (rows["label"] == rows["prediction"]).to_numpy()
            if len(correct) != wanted:
                raise ValueError(f"{len(correct)} of {wanted} utterances")
        wa = 100 * _read_metrics(path.with_name("metrics.json"), seed)["test"]["wa"]
        if abs(correct.mean() - wa) > 1e-6:
            raise InputError(f"{path}: not the predictions that metrics.json beside it counts (WA {wa:.2f})")
        return correct


@contextmanager
def _named(path: Path, what: str) -> Iterator[None]:
    """Turn what reading a damaged file raises into an InputError that names it."""
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (LookupError, TypeError, ValueError, AttributeError) as error:  # pandas' errors are ValueErrors
        raise InputError(f"{path}: {what} ({type(error).__name__}: {one_line(error)})") from error


def _read_metrics(path: Path, seed: int) -> dict:
    metrics = read_json(path)
    with _named(path, "not the figures of a run"):
        if metrics["seed"] != seed:
            raise ValueError(f"of seed {metrics['seed']}")
        for name in REPORTED:
            if not 0 <= metrics["test"][name] <= 1:  # also where it is no number at all
                raise ValueError(f"test {name} {metrics['test'][name]}")
        np.array(metrics["test"]["confusion"], dtype=int).reshape(len(metrics["test"]["recall"]), -1)
    return metrics


def _read_description(path: Path) -> dict:
    description = read_json(path)
    with _named(path, "not the description of a run"):
        for split in SPLITS:
            each = description["data"][split]
            if not (isinstance(each["sha256"], str) and isinstance(each["utterances"], int)):
                raise ValueError(f"data of {split}")
        if not (isinstance(description["config"], dict) and isinstance(description["versions"], dict)):
            raise ValueError("configuration or versions")
        if not all(isinstance(name, str) for name in description["class_names"]):
            raise ValueError("class names")
    return description


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
        description = _read_description(path)
        if description["config"] != dataclasses.asdict(row.config):
            raise InputError(f"{path}: not the configuration of {row.title}; give another --save_path, or remove it")
        of_seed = {split: each["sha256"] for split, each in description["data"].items()}
        data = data or of_seed
        if of_seed != data:
            raise InputError(f"{path}: of other features than the seed before it; remove {row.folder}")
    return Result(row, tuple(finished), len(seeds))


Rows = dict[str, Result]  # of a table: by title
