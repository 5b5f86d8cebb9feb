"""What a row's run folder holds, read back: every number of the report comes through here."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from utils.demo import SCENE_SIZE
from utils.errors import InputError, reading
from utils.features import SPLITS
from utils.files import read_json
from utils.metrics import METRICS, compute_metrics
from utils.reproduction.rows import Row
from utils.reproduction.statistics import Estimate, estimate
from utils.run_summary import read_curves, read_metrics
from utils.runs import SEED_FOLDER, config_difference

PREDICTIONS = "test_predictions.csv"
MISSING = "missing"  # in place of every number that is not there


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
        with reading(path, "not the summary of a run"):
            covered = set(summary["test"]["seeds"])
            shares = [summary["graphs"][split]["homophily"] for split in SPLITS]
            if not (all(0 <= share <= 1 for share in shares) and isinstance(summary["device"], str)):
                raise ValueError("homophily or device")
        return summary if covered >= set(map(str, self.seeds)) else None

    @property
    def complete(self) -> bool:
        return len(self.seeds) == self.asked and self.summary is not None

    @cached_property
    def data(self) -> dict[str, str]:
        """SHA-256 of each split's features."""
        return sha256_of(self.description)

    @property
    def sizes(self) -> dict[str, int]:
        """Utterances of each split; empty where no seed is finished."""
        return sizes_of(self.description) if self.seeds else {}

    @cached_property
    def metrics(self) -> list[dict]:
        """``metrics.json`` of each finished seed."""
        folders = {seed: self._seed_folder(seed) for seed in self.seeds}
        epochs = self.row.config.epochs
        return [read_metrics(folder / "metrics.json", seed, epochs) for seed, folder in folders.items()]

    @cached_property
    def description(self) -> dict:
        """``config.json`` of the first finished seed."""
        return read_description(self._seed_folder(self.seeds[0]) / "config.json")

    @cached_property
    def predictions(self) -> tuple[np.ndarray, np.ndarray]:
        """Labels of the test split, [N], and what each seed took them for, [seeds, N]."""
        tables = [self._read_predictions(*each) for each in zip(self.seeds, self.metrics, strict=True)]
        for seed, (labels, _) in zip(self.seeds, tables, strict=True):
            if not np.array_equal(labels, tables[0][0]):
                raise InputError(f"{self._seed_folder(seed) / PREDICTIONS}: other labels than the seed before it")
        return tables[0][0], np.stack([prediction for _, prediction in tables])

    @property
    def correct(self) -> np.ndarray:
        """100 where a test utterance was recognised, else 0, [seeds, N]."""
        labels, predictions = self.predictions
        return 100.0 * (predictions == labels)

    @cached_property
    def curves(self) -> dict[int, list[dict]]:
        """The log of each finished seed."""
        return read_curves(self.folder, self.seeds, self.row.config.epochs)

    @property
    def training_seconds(self) -> float:
        """What all epochs of the finished seeds took."""
        return sum(line["seconds"] for log in self.curves.values() for line in log)

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
        if not np.array_equal(self.predictions[0], other.predictions[0]):
            raise InputError(f"{self.folder}: other labels in {PREDICTIONS} than in {other.folder}")
        scores = self.correct - other.correct if metric == "wa" else None
        return estimate(self.values(metric) - other.values(metric), scores, self._group)

    @property
    def _group(self) -> int:
        """The utterances of one of DEMO's scenes share label and neighbours."""
        return SCENE_SIZE if self.row.dataset == "DEMO" else 1

    def _seed_folder(self, seed: int) -> Path:
        return self.folder / SEED_FOLDER.format(seed)

    def _read_predictions(self, seed: int, metrics: dict) -> tuple[np.ndarray, np.ndarray]:
        """Labels and predictions of a seed, held against all figures that its ``metrics.json`` has of them."""
        path = self._seed_folder(seed) / PREDICTIONS
        wanted, classes = self.description["data"]["test"]["utterances"], len(self.description["class_names"])
        with reading(path, "not the predictions of a run"):
            table = pd.read_csv(path)[["label", "prediction"]].to_numpy()
            if len(table) != wanted:
                raise ValueError(f"{len(table)} of {wanted} utterances")
            if table.dtype.kind != "i" or not (table.min() >= 0 and table.max() < classes):
                raise ValueError("not a number of a class")
            figures = compute_metrics(*torch.from_numpy(table.T.copy()), classes)
            for name in (*METRICS, "confusion"):
                if not np.allclose(metrics["test"][name], figures[name], rtol=0, atol=1e-9):
                    raise ValueError(f"metrics.json beside it counts others: {name}")
        return table[:, 0], table[:, 1]


def sizes_of(description: dict) -> dict[str, int]:
    """Utterances of each split."""
    return {split: description["data"][split]["utterances"] for split in SPLITS}


def sha256_of(description: dict) -> dict[str, str]:
    """Of each split's features."""
    return {split: description["data"][split]["sha256"] for split in SPLITS}


def read_description(path: Path) -> dict:
    """A ``config.json`` of a run or a sweep.

    Raises:
        InputError: it is damaged.
    """
    description = read_json(path)
    with reading(path, "not the description of a run"):
        for split in SPLITS:
            each = description["data"][split]
            if not (isinstance(each["sha256"], str) and isinstance(each["utterances"], int)):
                raise ValueError(f"data of {split}")
        if not (isinstance(description["config"], dict) and isinstance(description["versions"], dict)):
            raise ValueError("configuration or versions")
        names = description["class_names"]
        if not (isinstance(names, list) and len(names) > 1 and all(isinstance(name, str) for name in names)):
            raise ValueError("class names")
    return description


def read_result(row: Row, seeds: Sequence[int]) -> Result:
    """What there is of the seeds asked for.

    Raises:
        InputError: the folder holds runs of another configuration, or of several features.
    """
    folders = {seed: row.folder / SEED_FOLDER.format(seed) for seed in seeds}
    finished = [seed for seed, folder in folders.items() if (folder / "metrics.json").is_file()]
    first = None
    for seed in finished:
        path = folders[seed] / "config.json"
        description = read_description(path)
        if difference := config_difference(description["config"], dataclasses.asdict(row.config)):
            way_out = "give another --save_path, or remove it"
            raise InputError(f"{path}: not the configuration of {row.title} ({difference}); {way_out}")
        first = first or description
        if sha256_of(description) != sha256_of(first):
            raise InputError(f"{path}: of other features than the seed before it; remove {row.folder}")
        if description["class_names"] != first["class_names"]:
            raise InputError(f"{path}: of other classes than the seed before it; remove {row.folder}")
    return Result(row, tuple(finished), len(seeds))


Rows = dict[str, Result]  # of a table: by title
