"""Read and check the results of trials. Every number of the report comes from here."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from utils.config import DATASETS, PROFILES, SPLITS, feature_path
from utils.data.features import Features
from utils.data.published import is_published
from utils.errors import InputError, reading
from utils.io import file_sha256
from utils.reproduction.trials import Plan
from utils.statistics import Estimate, estimate, over_seeds
from utils.sweep.config import K_VALUES, K
from utils.sweep.results import best_trial, outcomes, run_table, summary_table
from utils.training.folder import PREDICTIONS, description_difference, read_description
from utils.training.graph import TrainingData
from utils.training.metrics import METRICS, compute_metrics, metric_over_seeds
from utils.training.predictions import Predictions, read_predictions
from utils.training.run import Run, Trial
from utils.training.scores import Scored

TEST_PREDICTIONS = PREDICTIONS.format("test")
MISSING = "missing"  # replaces every number that is not available


@dataclass(frozen=True)
class Result:
    """The finished runs of a trial among the requested ones."""

    trial: Trial
    runs: tuple[Run, ...]
    requested: int

    @property
    def complete(self) -> bool:
        return len(self.runs) == self.requested

    @property
    def progress(self) -> str:
        return f"{len(self.runs)} of {self.requested} seeds"

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(run.seed for run in self.runs)

    @cached_property
    def description(self) -> dict:
        """``config.json`` of the first finished run."""
        return read_description(self.runs[0].folder)

    @cached_property
    def sha256(self) -> dict[str, str]:
        """SHA-256 of the features of each split."""
        return {split: self.description["data"][split]["sha256"] for split in SPLITS}

    @property
    def sizes(self) -> dict[str, int]:
        """Number of utterances of each split; empty if no run is finished."""
        return {split: self.description["data"][split]["utterances"] for split in SPLITS} if self.runs else {}

    @cached_property
    def outcomes(self) -> list[dict]:
        """The outcome of each run: its metrics and the seconds of training."""
        return [run.outcome() for run in self.runs]

    @property
    def homophily(self) -> dict[str, float]:
        """Edge homophily of the graph of each split, as a fraction."""
        return {split: self.outcomes[0]["graphs"][split]["homophily"] for split in SPLITS}

    @cached_property
    def predictions(self) -> Predictions:
        """The predictions on the test split, checked against each run's ``metrics.json``."""
        found = read_predictions([run.folder / TEST_PREDICTIONS for run in self.runs])
        for run, outcome, prediction in zip(self.runs, self.outcomes, found.prediction, strict=True):
            path = run.folder / TEST_PREDICTIONS
            with reading(path, "not the predictions of this run"):
                if len(found) != self.sizes["test"]:
                    raise ValueError(f"{len(found)} of {self.sizes['test']} utterances")
                if list(found.class_names) != self.description["class_names"]:
                    raise ValueError(f"classes {', '.join(found.class_names)}")
                metrics = compute_metrics(*map(torch.from_numpy, (found.label, prediction)), len(found.class_names))
                for name in (*METRICS, "confusion"):
                    if not np.allclose(outcome["test"][name], metrics[name], rtol=0, atol=1e-9):
                        raise ValueError(f"{name} differs from metrics.json in the same folder")
        return found

    @cached_property
    def scored(self) -> Scored:
        return Scored(self.predictions)

    def values(self, metric: str) -> np.ndarray:
        """A metric of the test split in percent, one per seed."""
        return np.array([100 * outcome["test"][metric] for outcome in self.outcomes])

    def estimate(self, metric: str) -> Estimate:
        return estimate(self.scored.counts, metric_over_seeds(metric))

    def minus(self, other: "Result", metric: str = "wa") -> Estimate | None:
        """The difference to another trial, paired over the seeds and the test utterances.

        Returns:
            None unless both are complete.

        Raises:
            InputError: the features or the labels differ.
        """
        if not (self.complete and other.complete):
            return None
        if self.sha256 != other.sha256:
            raise different_features(self.trial.folder, other.trial.folder)
        if not np.array_equal(self.predictions.label, other.predictions.label):
            raise InputError(
                f"{self.trial.folder}: the labels in {TEST_PREDICTIONS} differ from those of {other.trial.folder}"
            )
        return estimate(self.scored.paired(other.scored), metric_over_seeds(metric))


def read_result(trial: Trial, seeds: Sequence[int]) -> Result:
    """Read the finished runs of a trial among ``seeds``.

    Raises:
        InputError: a run has another configuration, or the runs differ in features or classes.
    """
    runs = tuple(run for seed in seeds if (run := Run(trial, seed)).finished)
    result = Result(trial, runs, len(seeds))
    for run in runs:
        first = {name: result.description[name] for name in ("data", "class_names")}
        expected = {"config": trial.config.to_dict(), **first}
        if difference := description_difference(read_description(run.folder), expected):
            way_out = f"choose another --save_path, or remove {trial.folder}"
            raise InputError(f"{run.folder / 'config.json'}: not a run of this trial ({difference}); {way_out}")
    return result


@dataclass(frozen=True)
class TopKGrid:
    """Results of Fig. 2.

    Attributes:
        runs: the table of :func:`~utils.sweep.results.run_table`, on the paper's grid and on ``--k_values``.
        sizes: number of utterances of each split; empty if no run is finished.
    """

    dataset: str
    seeds: tuple[int, ...]
    runs: pd.DataFrame
    sizes: dict[str, int]

    @cached_property
    def papers_grid(self) -> pd.DataFrame:
        """The finished runs of the paper's grid."""
        return self.runs[self.runs[K].isin(K_VALUES).all(axis=1) & self.runs["error"].isna()]

    @property
    def complete(self) -> bool:
        return len(self.papers_grid) == len(K_VALUES) ** 2 * len(self.seeds)

    @property
    def progress(self) -> str:
        return f"{len(self.papers_grid)} of {len(K_VALUES) ** 2 * len(self.seeds)} runs"

    @property
    def papers(self) -> tuple[int, int]:
        """The k_text and k_audio that the paper found best."""
        return DATASETS[self.dataset].k_text, DATASETS[self.dataset].k_audio

    @property
    def best(self) -> tuple[int, int]:
        """The k_text and k_audio that validation selects on the paper's grid, which must be complete."""
        return best_trial(summary_table(self.papers_grid), len(self.seeds)).name

    @property
    def best_minus_papers(self) -> Estimate:
        """Test w-F1 of the selected trial minus that of the paper's, paired over the seeds."""
        scores = self.papers_grid.set_index([*K, "seed"])["test_w_f1"]
        return over_seeds(100 * (scores.loc[self.best] - scores.loc[self.papers]).to_numpy())


class Results:
    """The results of a plan's trials, each read once."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self._read: dict[Trial, Result] = {}
        self._grids: dict[tuple[str, str], TopKGrid] = {}

    def __getitem__(self, trial: Trial) -> Result:
        if trial not in self._read:
            self._read[trial] = read_result(trial, self.plan.seeds)
        return self._read[trial]

    def row(self, dataset: str, profile: str, row: tuple[str, str]) -> Result:
        """A row of Table I or II."""
        return self[self.plan.trial(dataset, profile, row)]

    def grid(self, dataset: str, profile: str) -> TopKGrid:
        """Fig. 2 of a dataset and a profile."""
        if (dataset, profile) not in self._grids:
            runs = self._grid_runs(dataset, profile)
            results = [self[trial] for trial in dict.fromkeys(run.trial for run in runs)]
            sizes = next((result.sizes for result in results if result.runs), {})
            self._grids[dataset, profile] = TopKGrid(dataset, self.plan.seeds, run_table(outcomes(runs)), sizes)
        return self._grids[dataset, profile]

    def of_published_test(self, result: Result) -> bool:
        """Whether a trial was tested on the paper's own utterances; this needs the published pickle."""
        path = feature_path(self.plan.feature_dir, result.trial.config.dataset, "test")
        return is_published(path) and file_sha256(path) == result.sha256["test"]

    def check_data(self, dataset: str, required: dict[str, Features] | None = None) -> None:
        """Raise an InputError unless all runs of a dataset have the same features, ``required`` if given."""
        trials = self.plan.trials([dataset], ["tables", "ablation"])
        for profile in self.plan.profiles:
            trials += dict.fromkeys(run.trial for run in self._grid_runs(dataset, profile))
        found = [(result.trial.folder, result.sha256) for trial in trials if (result := self[trial]).runs]
        if required is not None:
            found.insert(0, ("this command", {split: required[split].sha256 for split in SPLITS}))
        for folder, sha256 in found[1:]:
            if sha256 != found[0][1]:
                raise different_features(folder, found[0][0])

    def _grid_runs(self, dataset: str, profile: str) -> list[Run]:
        return self.plan.grid_runs(dataset, profile, {*K_VALUES, *self.plan.k_values})


def check_finished(plan: Plan, data: dict[Path, TrainingData]) -> None:
    """Raise an InputError if finished runs of any profile have other features than ``data``, by folder of the trials.

    Args:
        data: the result of :func:`~utils.reproduction.trials.read_features`.
    """
    results = Results(replace(plan, profiles=tuple(PROFILES)))
    for dataset in plan.datasets:
        if plan.folder(dataset) in data:
            results.check_data(dataset, data[plan.folder(dataset)].splits)


def different_features(folder: Path, other: Path | str) -> InputError:
    return InputError(f"{folder}: features differ from those of {other}; use a separate --save_path for each")
