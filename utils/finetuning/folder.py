"""Run folder of fine-tuning: checks, resuming, and the best encoder as a transformers folder."""

import shutil
import sys
import time
import uuid
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from models.encoders import AudioEncoder, TextEncoder
from utils.data.provenance import PROVENANCE_FILE
from utils.data.safe_pickle import load_tensors, save_tensors
from utils.device import describe, device_name
from utils.errors import InputError, Interrupted, one_line, out_of_memory
from utils.extraction.hub import WEIGHTS, save_pretrained
from utils.finetuning.config import TuneConfig
from utils.finetuning.source import Source
from utils.finetuning.trainer import Trainer
from utils.io import environment_info, read_json, write_json
from utils.training.folder import begun_on, claim_folder, moved, read_log, write_log

STATE = "last.pt"  # exists until fine-tuning is finished
LOG = "log.jsonl"
ENCODER = "encoder"  # the folder for --audio_model or --text_model
SAVE_SECONDS = 120  # maximum training time that a kill -9 loses


def open_folder(folder: Path, config: TuneConfig, source: Source, encoder: dict, resume: bool, overwrite: bool) -> None:
    """Check the folder before training, and remove old results with ``overwrite``.

    Raises:
        InputError: The folder contains something else or results of another configuration, or it is unfinished and
            neither ``resume`` nor ``overwrite`` is given. In these cases, nothing is changed.
    """
    described = (folder / "config.json").exists()
    old = read_json(folder / "config.json").get("config") if described else {"modality": None}
    if not isinstance(old, dict) or "modality" not in old:
        raise InputError(f"{folder}: not a fine-tuning folder; choose another --model_name")
    present = [name for name in (ENCODER, "metrics.json", STATE, LOG) if (folder / name).exists()]
    if present and not described:
        raise InputError(f"{folder}: contains {present[0]} but no config.json; remove the folder")
    aside = folder.with_name(f".{folder.name}.removed")  # so that its name never has half a folder
    _remove(aside)  # left by a kill -9
    if overwrite and described:
        folder.rename(aside)
        _remove(aside)
        described = False
    for unfinished in folder.glob(f".{ENCODER}.*"):  # left by a kill -9
        shutil.rmtree(unfinished)
    description = {"config": asdict(config), "class_names": list(source.class_names), "data": source.data}
    libraries = ("torch", "torchaudio", "transformers", "numpy", "scikit-learn")
    claim_folder(folder, {**description, "encoder": encoder, **environment_info(*libraries)})
    if described and not resume and not (folder / "metrics.json").exists():
        raise InputError(f"{folder}: unfinished fine-tuning; add --resume, or --overwrite to start from scratch")


def _remove(folder: Path) -> None:
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


def run_finetuning(trainer: Trainer, source: Source, before: set[str], folder: Path) -> dict:
    """Fine-tune or resume. After every epoch, the best encoder so far is on disk.

    Args:
        before: SHA-256s of the recordings that the encoder was fine-tuned on earlier.

    Returns:
        The content of ``metrics.json``: ``device``, ``selected_epoch`` and its metrics of ``val``.
    """
    log = _resume(trainer, folder)
    config = asdict(trainer.config)
    provenance = {"config": config, "data": source.data, "recording_sha256": sorted(before | source.recording_sha256)}
    saved_at = time.monotonic()

    def save() -> None:
        nonlocal saved_at
        save_tensors(folder / STATE, {"config": config, "state": trainer.state()})
        saved_at = time.monotonic()

    def on_step(last: bool) -> None:
        if last or time.monotonic() - saved_at > SAVE_SECONDS:
            save()

    try:
        for line, improved in trainer.fit(on_step):
            if improved:
                save_best(folder / ENCODER, trainer.encoder, provenance)
            log.append(line)
            write_log(folder / LOG, log)
            save()
            print(
                f"epoch {line['epoch']}: training loss {line['train_loss']:.3f}, val WA {100 * line['val_wa']:.2f}, "
                f"UA {100 * line['val_ua']:.2f}{', best so far' if improved else ''} ({line['seconds']:.0f} s)",
                flush=True,
            )
    except Interrupted:
        save()
        done = f"{trainer.epoch} epochs and {trainer.step} steps"
        tqdm.write(f"saved in {folder} after {done}; continue with --resume", file=sys.stderr)
        raise
    best = log[trainer.best_epoch - 1]
    val = {name.removeprefix("val_"): value for name, value in best.items() if name.startswith("val_")}
    metrics = {"device": describe(trainer.device), "selected_epoch": trainer.best_epoch, "val": val}
    from utils.plots import plot_training_curves  # imports matplotlib, which takes a second

    title, name = f"{trainer.config.dataset}, {folder.name}", trainer.config.modality
    plot_training_curves(folder / "training_curves.png", {name: log}, {name: trainer.best_epoch}, title, metric="ua")
    write_json(folder / "metrics.json", metrics)
    (folder / STATE).unlink()
    return metrics


def _resume(trainer: Trainer, folder: Path) -> list[dict]:
    """Restore the last saved state, if there is one; returns the log of its finished epochs.

    Raises:
        InputError: The saved state is damaged or belongs to another configuration.
    """
    path = folder / STATE
    here = device_name(trainer.device)
    if note := moved(begun_on(folder, path.exists(), here), here):
        tqdm.write(f"note: {note}", file=sys.stderr)
    if path.exists():
        saved = load_tensors(path)
        if saved.get("config") != asdict(trainer.config):
            raise InputError(f"{path}: its configuration differs from that of config.json next to it")
        try:
            trainer.restore(saved["state"])
        except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            if out_of_memory(error):
                raise
            raise InputError(f"{path}: damaged ({one_line(error)}); --overwrite starts from scratch") from error
    log = read_log(folder / LOG, trainer.epoch)  # epochs after the last save are repeated
    write_log(folder / LOG, log)
    return log


def finished(folder: Path) -> dict | None:
    """The content of ``metrics.json``, or None if fine-tuning is not finished.

    Raises:
        InputError: The results are damaged or incomplete.
    """
    path = folder / "metrics.json"
    if not path.exists():
        return None
    metrics = read_json(path)
    val = metrics.get("val")
    values = [val.get(name) for name in ("wa", "ua")] if isinstance(val, dict) else [None]
    if "selected_epoch" not in metrics or not all(isinstance(each, float) for each in values):
        raise InputError(f"{path}: not written by finetune.py; --overwrite starts from scratch")
    for name in ("config.json", PROVENANCE_FILE, WEIGHTS):
        if not (folder / ENCODER / name).is_file():
            raise InputError(f"{folder / ENCODER}: {name} is missing; --overwrite starts from scratch")
    (folder / STATE).unlink(missing_ok=True)  # left by a kill -9
    return metrics


def save_best(folder: Path, encoder: TextEncoder | AudioEncoder, provenance: dict) -> None:
    """Write an encoder as a transformers folder, completely or not at all.

    Only the weights change between epochs, so an existing folder gets a new weights file.

    Args:
        provenance: Content of ``finetuning.json``.
    """
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    try:
        save_pretrained(encoder, temporary)
        write_json(temporary / PROVENANCE_FILE, provenance)
        if all((folder / path.name).exists() for path in temporary.iterdir()):
            (temporary / WEIGHTS).replace(folder / WEIGHTS)
        else:
            shutil.rmtree(folder, ignore_errors=True)
            temporary.replace(folder)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from error
    finally:
        with suppress(OSError):
            shutil.rmtree(temporary, ignore_errors=True)
