"""One configuration over several seeds: the engine at work inside a run folder."""

import dataclasses
import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from tqdm import tqdm

from utils.config import Config, display_name
from utils.engine import TrainingState, build_model, evaluate_selected, fit, start_training
from utils.errors import InputError
from utils.features import Features
from utils.files import atomic_write, write_json
from utils.graph_data import GraphData, prepare
from utils.interrupts import Interrupted
from utils.plots import plot_training_curves
from utils.run_summary import finished_seeds, read_curves, summarise
from utils.runs import (
    SEED_FOLDER,
    claim_folder,
    describe_run,
    load_checkpoint,
    read_log,
    save_checkpoint,
    seed_folders,
    set_seed,
    write_log,
)

SAVE_SECONDS = 60  # at most this much training is lost to a kill -9


@dataclass(frozen=True)
class Experiment:
    """What the seeds of a run share. The test split is evaluated once for each seed, when its training is over.

    Without ``keep_weights`` a finished seed keeps its figures, log and predictions alone.
    """

    config: Config
    folder: Path
    splits: dict[str, Features]
    class_names: tuple[str, ...]
    device: torch.device
    keep_weights: bool = True

    @property
    def dims(self) -> tuple[int, int]:
        return self.splits["train"].dims

    @cached_property
    def test(self) -> GraphData:
        return prepare(self.splits["test"], self.config, self.device, self.splits["train"])

    def describe(self, seed: int) -> dict:
        description = describe_run(dataclasses.asdict(self.config), self.splits, self.dims, self.class_names)
        return {**description, "seed": seed}

    def seed_folder(self, seed: int) -> Path:
        return self.folder / SEED_FOLDER.format(seed)


def open_run(experiment: Experiment, seeds: Sequence[int], resume: bool, overwrite: bool) -> None:
    """Check the run folder before anything is trained, and clear what is to be overwritten.

    Raises:
        InputError: one of its seeds, requested or not, holds another configuration; or an unfinished run that neither
            ``resume`` nor ``overwrite`` says what to do with. Nothing is changed then.
    """
    requested = {experiment.seed_folder(seed) for seed in seeds}
    present = {path for path in seed_folders(experiment.folder).values() if (path / "config.json").exists()}
    for folder in present - requested if overwrite else present:
        claim_folder(folder, experiment.describe(0))
    if overwrite:
        for path in (*requested, experiment.folder / "eval"):
            if path.exists():
                shutil.rmtree(path)
        for name in ("summary.json", "training_curves.png"):
            (experiment.folder / name).unlink(missing_ok=True)
        return
    unfinished = [folder for folder in present & requested if not (folder / "metrics.json").exists()]
    if unfinished and not resume:
        raise InputError(
            f"{unfinished[0]}: holds an unfinished run; add --resume to go on, or --overwrite to start anew"
        )


def train_run(experiment: Experiment, seeds: Sequence[int], train: GraphData, val: GraphData) -> dict[int, dict]:
    """Train what is left of the seeds, then write what the run folder says of all of them.

    Returns:
        What ``metrics.json`` holds of each finished seed, those of earlier commands too.
    """
    for i, seed in enumerate(seeds, 1):
        run_seed(experiment, seed, train, val, title=f"seed {seed} ({i}/{len(seeds)})")
    epochs = experiment.config.epochs
    per_seed = finished_seeds(experiment.folder, epochs)
    graphs = {"train": train, "val": val, "test": experiment.test}
    summarise(experiment.folder, experiment.config, experiment.class_names, per_seed, graphs)
    plot_training_curves(
        experiment.folder / "training_curves.png",
        read_curves(experiment.folder, list(per_seed), epochs),
        {seed: metrics["selected_epoch"] for seed, metrics in per_seed.items()},
        title=f"{display_name(experiment.config.dataset)}, run {experiment.folder.name}",
    )
    return per_seed


def run_seed(experiment: Experiment, seed: int, train: GraphData, val: GraphData, title: str) -> None:
    """Train one seed, or go on where it was interrupted, unless it is finished: ``metrics.json`` is there."""
    folder = experiment.seed_folder(seed)
    if (folder / "metrics.json").exists():
        print(f"{title}: finished before, kept ({folder})")
        return
    description = experiment.describe(seed)
    claim_folder(folder, description)
    state = _fresh_or_saved_state(experiment, seed, folder)
    _train(experiment.config, state, train, val, folder, description, title)

    last_weights = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
    figures, predictions = evaluate_selected(state, val, experiment.test)
    rows = zip(experiment.splits["test"].label.tolist(), predictions.tolist(), strict=True)
    lines = ["label,prediction", *(f"{label},{prediction}" for label, prediction in rows)]
    atomic_write(folder / "test_predictions.csv", ("\n".join(lines) + "\n").encode())
    if not experiment.keep_weights:
        for name in ("best.pt", "last.pt"):  # before the seed counts as finished: what lies there then is to be kept
            (folder / name).unlink(missing_ok=True)
    write_json(folder / "metrics.json", {"seed": seed, **figures})
    if experiment.keep_weights:
        state.model.load_state_dict(last_weights)
        _save(state, folder, description, resumable=False)  # finished: what going on would need is only weight


def _fresh_or_saved_state(experiment: Experiment, seed: int, folder: Path) -> TrainingState:
    set_seed(seed)
    model = build_model(experiment.config, *experiment.dims, len(experiment.class_names))
    state = start_training(model.to(experiment.device), experiment.config)
    if (folder / "last.pt").exists():
        saved = load_checkpoint(folder / "last.pt")
        if saved["config"] != dataclasses.asdict(experiment.config):
            raise InputError(f"{folder / 'last.pt'}: a checkpoint of another configuration than config.json beside it")
        if "training" in saved:
            state.restore(saved["training"])
    return state


def _train(
    config: Config,
    state: TrainingState,
    train: GraphData,
    val: GraphData,
    folder: Path,
    description: dict,
    title: str,
) -> None:
    """Run the epochs that are left; the log, ``last.pt`` and ``best.pt`` are on disk when this returns or raises."""
    log_path = folder / "log.jsonl"
    kept = read_log(log_path, state.epoch)  # lines after the last save are trained again
    write_log(log_path, kept)
    saved_at = time.monotonic()
    bar = tqdm(total=config.epochs, initial=state.epoch, desc=title, unit="epoch", dynamic_ncols=True)
    with log_path.open("a") as log, bar:

        def on_epoch(line: dict) -> None:
            nonlocal saved_at
            log.write(json.dumps(line) + "\n")
            log.flush()
            bar.set_postfix(loss=f"{line['train_loss']:.3f}", val_wf1=f"{100 * line['val_w_f1']:.1f}", refresh=False)
            bar.update()
            if time.monotonic() - saved_at > SAVE_SECONDS:
                _save(state, folder, description, resumable=True)
                saved_at = time.monotonic()

        try:
            fit(state, train, val, config, on_epoch)
        except Interrupted:
            _save(state, folder, description, resumable=True)
            message = f"{title}: saved after epoch {state.epoch} in {folder}; "
            message += "--resume goes on (reproduce.sh: the same command)"
            tqdm.write(message, file=sys.stderr)
            raise
    _save(state, folder, description, resumable=True)


def _save(state: TrainingState, folder: Path, description: dict, resumable: bool) -> None:
    """``best.pt``, the chosen weights, and ``last.pt``, the latest; ``resumable`` adds all that going on needs."""
    best = {**description, "weights": state.best_weights, "epoch": state.best_epoch}
    last = {**description, "weights": state.model.state_dict(), "epoch": state.epoch}
    save_checkpoint(folder / "best.pt", best)
    save_checkpoint(folder / "last.pt", {**last, "training": state.to_dict()} if resumable else last)
