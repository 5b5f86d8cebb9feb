"""Training runs. A run is a configuration and a seed on given features, in a self-describing folder.

``train.py`` trains one trial; the sweep, the folds and the reproduction train several. All of them train lists of runs.
"""

import json
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from models.cemobam import CemoBAM
from utils.config import Config, display_name
from utils.device import describe, device_name, seed_everything
from utils.errors import InputError, Interrupted, deferred_interrupt, out_of_memory
from utils.io import environment_info, exclusive, lock, naming, read_json, write_json
from utils.training.calibration import fit_temperature, probabilities
from utils.training.folder import (
    PREDICTIONS,
    SEED_FOLDER,
    begun_on,
    check_description,
    claim_folder,
    moved,
    read_curves,
    read_log,
    read_metrics,
    restore_state,
    save_state,
    seed_folders,
    write_log,
)
from utils.training.graph import TrainingData
from utils.training.loop import TrainingState, evaluate_selected, fit, start_training
from utils.training.metrics import mean_and_std, results_table
from utils.training.predictions import write_predictions

SAVE_SECONDS = 60  # a kill -9 loses at most this much training
POLL_SECONDS = 0.5  # between checks of runs that other processes train


@dataclass(frozen=True)
class Trial:
    """A configuration that is trained with several seeds, with one folder ``seed<k>`` per run.

    Without ``keep_weights``, a finished run keeps only its metrics, log and predictions.
    """

    config: Config
    folder: Path
    keep_weights: bool = True


@dataclass(frozen=True)
class Run:
    """One seed of a trial."""

    trial: Trial
    seed: int
    data: TrainingData | None = None  # not needed to read results

    @property
    def config(self) -> Config:
        return self.trial.config

    @property
    def folder(self) -> Path:
        return self.trial.folder / SEED_FOLDER.format(self.seed)

    @property
    def finished(self) -> bool:
        return all((self.folder / name).exists() for name in ("config.json", "metrics.json"))

    def __str__(self) -> str:
        return f"{self.trial.folder.name}, seed {self.seed}"

    def describe(self) -> dict:
        """The contents of ``config.json``: configuration, data with its fingerprint, versions and command line.

        The device is added when the training begins.
        """
        data = self.data
        return {
            "config": self.config.to_dict(),
            "seed": self.seed,
            "class_names": list(data.class_names),
            "text_dim": data.dims[0],
            "audio_dim": data.dims[1],
            "data": {
                split: {"path": str(features.path.resolve()), "sha256": features.sha256, "utterances": len(features)}
                for split, features in data.splits.items()
            },
            **environment_info("torch", "torch-geometric", "numpy"),
        }

    def error(self) -> str | None:
        """The recorded error of the last attempt; None if it did not fail."""
        path = self.folder / "error.json"
        return str(read_json(path).get("error")) if path.exists() else None

    def outcome(self) -> dict | None:
        """The metrics and the ``seconds`` of training, or the ``error``; None if it neither finished nor failed."""
        if self.finished:
            metrics = read_metrics(self.folder, self.seed, self.config.epochs)
            log = read_curves(self.folder, self.config.epochs)
            return {**metrics, "seconds": round(sum(line["seconds"] for line in log), 3)}
        error = self.error()
        return None if error is None else {"seed": self.seed, "error": error}


def open_runs(runs: Sequence[Run], resume: bool = True, overwrite: bool = False) -> None:
    """Check all folders before anything is trained, remove those to overwrite, and claim all of them.

    Raises:
        InputError: a seed of one of the trials, requested or not, has another configuration or other data; a run is
            unfinished, and neither ``resume`` nor ``overwrite`` is set; or another process trains a run that is to be
            overwritten. In these cases, nothing is changed.
    """
    trials: dict[Path, list[Run]] = {}
    for run in runs:
        trials.setdefault(run.trial.folder, []).append(run)
    for of_trial in trials.values():
        _check(of_trial, resume, overwrite)
    for folder, of_trial in trials.items():
        if not overwrite and all(run.finished for run in of_trial):
            continue
        with lock(folder / "open", wait=True), ExitStack() as locks:
            _check(of_trial, resume, overwrite)  # another process may have been first
            if overwrite:
                for run in of_trial:
                    locks.enter_context(exclusive(run.folder))
            for run in of_trial:
                _remove(run, overwrite)
            for run in of_trial:
                claim_folder(run.folder, run.describe())


def _check(runs: Sequence[Run], resume: bool, overwrite: bool) -> None:
    """Raise the InputErrors of :func:`open_runs` for the runs of one trial."""
    requested = {run.folder for run in runs}
    description = {name: value for name, value in runs[0].describe().items() if name != "seed"}
    for folder in seed_folders(runs[0].trial.folder).values():
        filled = any(not path.name.startswith(".") for path in folder.iterdir())
        if filled and not (overwrite and folder in requested):
            check_description(folder, description)
    for run in runs:
        begun = (run.folder / "log.jsonl").exists() and run.error() is None
        if begun and not (run.finished or resume or overwrite):
            raise InputError(
                f"{run.folder}: holds an unfinished run; add --resume to resume it, or --overwrite to start again"
            )


def _remove(run: Run, overwrite: bool) -> None:
    """Remove what an earlier removal has left, then, to ``overwrite``, the run and the results computed from it."""
    trial = run.trial.folder
    aside = trial / f".{run.folder.name}.removed"  # an interrupted removal leaves no partial run
    shutil.rmtree(aside, ignore_errors=True)
    if not (overwrite and run.folder.exists()):
        return
    run.folder.rename(aside)
    for name in ("summary.json", "training_curves.png", "training_curves.pdf"):
        (trial / name).unlink(missing_ok=True)
    for folder in (trial / "eval", aside):
        shutil.rmtree(folder, ignore_errors=True)


class Progress:
    """A progress bar over the epochs of all runs.

    Args:
        note: returns the text next to the bar after each run. By default, it shows the scores of the epoch.
        on_finish: called with each run that finished or failed, also with those that had finished before.
    """

    stopped = False  # whether all training must stop after the current epoch

    def __init__(
        self,
        runs: Sequence[Run],
        note: Callable[[Run | None], str] | None = None,
        on_finish: Callable[[Run], object] = lambda run: None,
    ):
        self._note, self._on_finish = note, on_finish
        self._count, self._done = len(runs), sum(run.finished for run in runs)
        self._shown: Counter[Path] = Counter()  # epochs of each run that the bar counts
        epochs = sum(run.config.epochs for run in runs)
        before = sum(run.config.epochs for run in runs if run.finished)
        self._bar = tqdm(total=epochs, initial=before, unit="epoch", dynamic_ncols=True, disable=before == epochs)
        self._show(note and note(None))
        for run in runs:
            if run.finished:
                on_finish(run)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def start(self, run: Run) -> None:
        self._bar.set_description(f"{run} ({self._done + 1}/{self._count})", refresh=False)

    def epoch(self, run: Run, line: dict) -> None:
        if self._note is None:
            self._show(f"loss={line['train_loss']:.3f}, val_wf1={100 * line['val_w_f1']:.1f}")
        self._move(run, line["epoch"])

    def finish(self, run: Run) -> None:
        """Count a run that finished or failed, here or in another process."""
        self._done += 1
        self._move(run, run.config.epochs)
        self._on_finish(run)
        if not run.finished:
            self.write(f"failed: {run}: {run.error()}")
        self._show(self._note and self._note(run))

    def write(self, line: str) -> None:
        """Print a line above the bar."""
        self._bar.write(line, file=sys.stderr)

    def _move(self, run: Run, epoch: int) -> None:
        self._bar.update(epoch - self._shown[run.folder])
        self._shown[run.folder] = epoch

    def _show(self, note: str | None) -> None:
        if note is not None:
            self._bar.set_postfix_str(note, refresh=False)


def claim(
    runs: Sequence[Run], progress: Progress, failed_before: dict[Path, int | None] | None = None
) -> Iterator[Run]:
    """Yield each run that still needs training. It is locked until the caller asks for the next one.

    Several processes can share the runs. A run that another process trains is left to that process, and is taken over
    if that process is killed. Runs that failed before this call are tried again.

    Args:
        failed_before: an earlier result of :func:`failures`; only these failures are tried again.

    Raises:
        InputError: the folder of a run now holds another configuration.
    """
    failed_before = failed_before or failures(runs)
    left = [run for run in runs if not run.finished]
    while left and not progress.stopped:
        for run in left:
            with lock(run.folder) as mine:
                if not mine:
                    continue
                claim_folder(run.folder, run.describe())
                left.remove(run)
                if not run.finished and _failed_at(run) in (None, failed_before[run.folder]):
                    yield run
                progress.finish(run)
                break
        else:
            time.sleep(POLL_SECONDS)


def failures(runs: Sequence[Run]) -> dict[Path, int | None]:
    """The time at which the last attempt of each run failed, by folder; None if it did not fail."""
    return {run.folder: _failed_at(run) for run in runs}


def _failed_at(run: Run) -> int | None:
    path = run.folder / "error.json"
    return path.stat().st_mtime_ns if path.exists() else None


def train_run(run: Run, device: torch.device, progress: Progress) -> None:
    """Train or resume a claimed run, even if it was begun on another device. A failure is recorded.

    Raises:
        Interrupted: Ctrl-C or SIGTERM, or ``progress`` is stopped; the run is saved after the current epoch.
        torch.AcceleratorError: the GPU itself is in error and would fail every further run.
    """
    description = run.describe()
    progress.start(run)
    (run.folder / "error.json").unlink(missing_ok=True)
    try:
        seed_everything(run.seed)
        model = CemoBAM(run.config.model, *run.data.dims, len(run.data.class_names))
        state = start_training(model.to(device), run.config)
        restore_state(state, run.folder, description)
        here = device_name(device)
        description["device"] = begun_on(run.folder, state.epoch > 0, here)
        if note := moved(description["device"], here):
            progress.write(f"note: {run}: {note}")
        train, val = (run.data.graph(split, run.config, device) for split in ("train", "val"))
        with _recording(run, state, description, progress) as on_epoch:
            fit(state, train, val, run.config, on_epoch)
        last_weights = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
        test = run.data.graph("test", run.config, device)
        metrics, logits = evaluate_selected(state, val, test)
    except (InputError, RuntimeError, MemoryError) as error:
        if isinstance(error, torch.AcceleratorError) and not out_of_memory(error):
            raise
        write_json(run.folder / "error.json", {"error": _message(error)})
        return
    temperature = fit_temperature(logits["val"], val.scored_label)
    for split, of_split in logits.items():
        features, found = run.data.splits[split], probabilities(of_split, temperature)
        path = run.folder / PREDICTIONS.format(split)
        write_predictions(path, features.identity, run.data.class_names, features.label.numpy(), found)
    if not run.trial.keep_weights:
        for name in ("best.pt", "last.pt"):
            (run.folder / name).unlink(missing_ok=True)
    graphs = {"train": train.describe(), "val": val.describe(), "test": test.describe()}
    facts = {"seed": run.seed, "device": describe(device), "graphs": graphs, "temperature": temperature}
    if run.trial.keep_weights:
        state.model.load_state_dict(last_weights)
        save_state(state, run.folder, {**description, "temperature": temperature}, resumable=True)
    write_json(run.folder / "metrics.json", {**facts, **metrics})
    if run.trial.keep_weights:  # finished, so the state for resuming is not needed
        save_state(state, run.folder, {**description, "temperature": temperature}, resumable=False)


@contextmanager
def _recording(
    run: Run, state: TrainingState, description: dict, progress: Progress
) -> Iterator[Callable[[dict], None]]:
    """Log each epoch and save regularly. On an interrupt, finish the epoch, save, and raise Interrupted."""
    path = run.folder / "log.jsonl"
    write_log(path, read_log(path, state.epoch))  # epochs after the last save are trained again
    saved_at = time.monotonic()

    def on_epoch(line: dict) -> None:
        nonlocal saved_at
        with naming(path):
            log.write(json.dumps(line).encode() + b"\n")
        progress.epoch(run, line)
        if interrupted() or progress.stopped or time.monotonic() - saved_at > SAVE_SECONDS:
            save_state(state, run.folder, description, resumable=True)
            saved_at = time.monotonic()
            if interrupted() or progress.stopped:  # perhaps while it was saved
                progress.write(
                    f"{run}: saved after epoch {state.epoch} in {run.folder}; resume with train.py --resume, "
                    "or repeat the same selected_topK.sh, run_folds.sh or reproduce.sh command"
                )
                raise Interrupted

    with path.open("ab", buffering=0) as log, deferred_interrupt() as interrupted:
        yield on_epoch


def _message(error: Exception) -> str:
    text = " ".join(str(error).split()) or "no message"
    if isinstance(error, InputError):
        return text
    if out_of_memory(error):  # the rest is about torch's allocator
        text = f"{text.split('. GPU ')[0]}; lower --hidden_dim or --heads, or the --jobs of a sweep"
    return f"{type(error).__name__}: {text}"


def finished_seeds(trial: Trial) -> dict[int, dict]:
    """``metrics.json`` of each finished seed of a trial, ordered by seed."""
    runs = [Run(trial, seed) for seed in seed_folders(trial.folder)]
    return {run.seed: read_metrics(run.folder, run.seed, trial.config.epochs) for run in runs if run.finished}


def summarise(trial: Trial, class_names: Sequence[str]) -> dict[int, dict]:
    """Write ``summary.json``: metrics of each finished seed, their mean and sample standard deviation.

    Returns:
        ``metrics.json`` of each finished seed.
    """
    per_seed = finished_seeds(trial)
    first = next(iter(per_seed.values()), None)
    if first is None:
        return {}
    summary = {
        "dataset": display_name(trial.config.dataset),
        "config": trial.config.to_dict(),
        "class_names": list(class_names),
        "device": "; ".join(dict.fromkeys(metrics["device"] for metrics in per_seed.values())),
        "graphs": first["graphs"],
    }
    for split in ("val", "test"):
        mean, std = mean_and_std([metrics[split] for metrics in per_seed.values()])
        seeds = {str(seed): metrics[split] for seed, metrics in per_seed.items()}
        summary[split] = {"seeds": seeds, "mean": mean, "std": std}
    write_json(trial.folder / "summary.json", summary)
    return per_seed


def update_summary(run: Run) -> None:
    """:func:`summarise` the trial of a finished run, unless ``summary.json`` is newer than the run."""
    summary, metrics = run.trial.folder / "summary.json", run.folder / "metrics.json"
    if run.finished and not (summary.exists() and summary.stat().st_mtime_ns >= metrics.stat().st_mtime_ns):
        summarise(run.trial, run.data.class_names)


def report(trial: Trial, runs: list[Run]) -> int:
    """Print the results of all finished seeds and draw their curves. Returns the exit code."""
    from utils.plots import plot_training_curves  # matplotlib takes a second to import, which only this needs
    from utils.training.probes import LINEAR, fit_probe  # so does scikit-learn

    config, data = trial.config, runs[0].data
    per_seed = summarise(trial, data.class_names)
    if per_seed:
        title = f"\n{display_name(config.dataset)} test, {len(data.splits['test'])} utterances, run {trial.folder.name}"
        results = {f"seed {seed}": metrics["test"] for seed, metrics in per_seed.items()}
        print(results_table(config, "test", results, f"{title} (percent)"))
        curves = {f"seed {seed}": read_curves(Run(trial, seed).folder, config.epochs) for seed in per_seed}
        selected = {f"seed {seed}": metrics["selected_epoch"] for seed, metrics in per_seed.items()}
        title = f"{display_name(config.dataset)}, run {trial.folder.name}"
        plot_training_curves(trial.folder / "training_curves.png", curves, selected, title)
        probe = fit_probe(LINEAR, data, 0, trial.folder / "probe")
        wa, ua = (f"{100 * probe['test'][name]:.2f}" for name in ("wa", "ua"))
        print(f"\na logistic regression on the same features reaches WA {wa}, UA {ua} ({probe['choice']})")
        print(f"\nsaved in {trial.folder}: one folder per seed, summary.json, training_curves.png")
        print(f"evaluate with: bash run_eval.sh {trial.folder}")
    failed = [run for run in runs if not run.finished]
    for run in failed:
        print(f"failed: {run}: {run.error()}")
    return 1 if failed else 0
