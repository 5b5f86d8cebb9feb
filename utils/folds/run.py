"""Train networks and fit probes on every fold, and pool the predictions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from utils.config import Config, run_name
from utils.data.identity import ID
from utils.errors import InputError
from utils.folds.protocol import Protocol
from utils.training.folder import PREDICTIONS, SEED_FOLDER
from utils.training.jobs import train_here
from utils.training.predictions import Predictions, read_predictions
from utils.training.probes import PROBE_FILE, PROBES, Probe, fit_probe
from utils.training.run import Progress, Run, Trial, open_runs, update_summary

SINGLE = {"text_only": "text alone", "audio_only": "audio alone"}
TEST = PREDICTIONS.format("test")


@dataclass(frozen=True)
class Row:
    """A row of the tables: a network with its configuration, or a probe, on every fold and seed."""

    title: str
    source: Config | Probe

    def folder(self, protocol: Protocol) -> Path:
        """``<protocol>/<row>``, which contains ``fold<k>/seed<s>``."""
        name = f"probe-{self.source.name}" if isinstance(self.source, Probe) else run_name(self.source)
        return protocol.folder / name

    def seeds(self, seeds: Sequence[int]) -> Sequence[int]:
        return self.source.seeds(seeds) if isinstance(self.source, Probe) else seeds

    def trial(self, protocol: Protocol, fold: int) -> Trial:
        return Trial(self.source, self.folder(protocol) / f"fold{fold}", keep_weights=False)

    def runs(self, protocol: Protocol, seeds: Sequence[int]) -> list[Run]:
        """The trainings of a network."""
        trials = {fold: self.trial(protocol, fold) for fold in protocol.folds}
        return [Run(trials[fold], seed, protocol.data[fold]) for fold in protocol.folds for seed in seeds]


def rows_of(config: Config, with_probes: bool) -> list[Row]:
    """The row of a configuration; with probes, also rows for single modalities and for simple classifiers."""
    rows = [Row("CemoBAM", config)]
    if with_probes:
        if config.model.ablation == "none":
            rows += [Row(f"CemoBAM, {title}", config.replace(ablation=name)) for name, title in SINGLE.items()]
        rows += [Row(probe.title, probe) for probe in PROBES]
    return rows


def cross_validate(
    protocols: Sequence[Protocol], rows: Sequence[Row], seeds: Sequence[int], device: torch.device, jobs: int
) -> list[str]:
    """Train and probe every row on every fold of the protocols; returns the failed runs, each with its error.

    Raises:
        InputError: a folder holds other folds or runs, or a fold is too small for k.
    """
    networks = [row for row in rows if isinstance(row.source, Config)]
    runs = [run for protocol in protocols for row in networks for run in row.runs(protocol, seeds)]
    for run in runs:
        run.data.check(run.config)
    for protocol in protocols:
        protocol.write()
    open_runs(runs)
    _fit_probes(protocols, [row for row in rows if row not in networks], seeds)
    with Progress(runs, on_finish=update_summary) as progress:
        train_here(runs, progress, device, jobs)
    return [f"{run.trial.folder.parent.name}, {run}: {run.error()}" for run in runs if not run.finished]


def _fit_probes(protocols: Sequence[Protocol], rows: Sequence[Row], seeds: Sequence[int]) -> None:
    """Fit the probes on every fold."""
    todo = [
        (row, protocol, fold, seed)
        for protocol in protocols
        for row in rows
        for fold in protocol.folds
        for seed in row.seeds(seeds)
    ]
    for row, protocol, fold, seed in tqdm(todo, "probes", unit="fit", dynamic_ncols=True, disable=not todo):
        folder = row.folder(protocol) / f"fold{fold}" / SEED_FOLDER.format(seed)
        fit_probe(row.source, protocol.data[fold], seed, folder)


def pooled(row: Row, protocol: Protocol, seeds: Sequence[int]) -> Predictions | None:
    """The predictions of a row for every utterance, in the pool's order; None unless all its runs are finished.

    Raises:
        InputError: a prediction file is damaged, or contains other utterances.
    """
    seeds, pool = row.seeds(seeds), protocol.pool
    last_written = PROBE_FILE if isinstance(row.source, Probe) else "metrics.json"
    folders = {
        fold: [row.folder(protocol) / f"fold{fold}" / SEED_FOLDER.format(seed) for seed in seeds]
        for fold in protocol.folds
    }
    if not all((folder / last_written).exists() for of_fold in folders.values() for folder in of_fold):
        return None
    count = len(pool.features)
    prediction = np.empty((len(seeds), count), dtype=int)
    probability = np.empty((len(seeds), count, len(pool.class_names)))
    for fold in protocol.folds:
        found, rows = read_predictions([folder / TEST for folder in folders[fold]]), protocol.rows(fold)
        if found.ids != tuple(pool.features.identity[ID][row] for row in rows) or found.class_names != pool.class_names:
            raise InputError(f"{found.path}: not the utterances of fold {fold} in {protocol.path}")
        prediction[:, rows], probability[:, rows] = found.prediction, found.probability
    identity, label = pool.features.identity, pool.features.label.numpy()
    return Predictions(row.folder(protocol), pool.class_names, identity, label, prediction, probability)
