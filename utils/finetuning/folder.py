"""A fine-tuning in its folder: going on after an interruption, and the best encoder as transformers loads it."""

import dataclasses
import shutil
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path

from tqdm import tqdm

from models.encoders import AudioEncoder, TextEncoder
from utils.errors import InputError, one_line
from utils.extraction.hub import WEIGHTS, save_pretrained
from utils.files import read_json, write_json
from utils.finetuning.batches import Recordings, Transcripts
from utils.finetuning.provenance import PROVENANCE_FILE
from utils.finetuning.source import Source
from utils.finetuning.trainer import Trainer, TuneConfig
from utils.interrupts import Interrupted
from utils.plots import plot_finetuning
from utils.runs import claim_folder, load_weights_file, provenance, read_log, save_checkpoint, write_log

STATE = "last.pt"  # while it lasts
LOG = "log.jsonl"
ENCODER = "encoder"  # the folder that --audio_model or --text_model takes
SAVE_SECONDS = 120  # at most this much training is lost to a kill -9


def open_folder(folder: Path, config: TuneConfig, source: Source, encoder: dict, resume: bool, overwrite: bool) -> None:
    """Check the folder before anything is trained, and clear what is to be overwritten.

    Raises:
        InputError: it holds a fine-tuning of another configuration; or an unfinished one that neither ``resume`` nor
            ``overwrite`` says what to do with. Nothing is changed then.
    """
    described = (folder / "config.json").exists()
    old = read_json(folder / "config.json").get("config") if described else {"modality": None}
    if not isinstance(old, dict) or "modality" not in old:
        raise InputError(f"{folder}: holds something else than a fine-tuning; choose another --model_name")
    left = [name for name in (ENCODER, "metrics.json", STATE, LOG) if (folder / name).exists()]
    if left and not described:
        raise InputError(f"{folder}: holds {left[0]} without its config.json; remove the folder")
    if overwrite and described:
        aside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")  # a part of it would be taken for a whole
        folder.rename(aside)
        aside.unlink() if aside.is_symlink() else shutil.rmtree(aside)
        described = False
    for unfinished in folder.glob(f".{ENCODER}.*"):  # left by a kill -9
        shutil.rmtree(unfinished)
    claim_folder(
        folder,
        {
            "config": dataclasses.asdict(config),
            "class_names": list(source.class_names),
            "data": source.data,
            "encoder": encoder,
            **provenance("torch", "torchaudio", "transformers", "numpy", "scikit-learn"),
        },
    )
    if described and not resume and not (folder / "metrics.json").exists():
        raise InputError(
            f"{folder}: holds an unfinished fine-tuning; add --resume to go on, or --overwrite to start anew"
        )


def run_finetuning(
    trainer: Trainer,
    train: Recordings | Transcripts,
    val: Recordings | Transcripts,
    source: Source,
    before: set[str],
    folder: Path,
) -> dict:
    """Tune, or go on where it was interrupted; the best encoder is on disk after every epoch.

    Args:
        before: SHA-256s of the recordings that the encoder was tuned on before.

    Returns:
        What ``metrics.json`` holds: ``selected_epoch`` and the figures of ``val`` in it.
    """
    state_path, log = folder / STATE, _go_on(trainer, folder)
    saved_at = time.monotonic()

    def save() -> None:
        nonlocal saved_at
        save_checkpoint(state_path, {"config": dataclasses.asdict(trainer.config), "state": trainer.state()})
        saved_at = time.monotonic()

    def on_step(last: bool) -> None:
        if last or time.monotonic() - saved_at > SAVE_SECONDS:
            save()

    def on_epoch(line: dict, improved: bool) -> None:
        if improved:
            save_best(folder / ENCODER, trainer.encoder, source, trainer.config, before | source.recording_sha256)
        log.append(line)
        write_log(folder / LOG, log)
        save()
        print(
            f"epoch {line['epoch']}: training loss {line['train_loss']:.3f}, val WA {100 * line['val_wa']:.2f}, "
            f"UA {100 * line['val_ua']:.2f}{', the best so far' if improved else ''} ({line['seconds']:.0f} s)",
            flush=True,
        )

    try:
        trainer.fit(train, val, on_step, on_epoch)
    except Interrupted:
        save()
        message = f"saved in {folder}, after {trainer.epoch} epochs and {trainer.step} steps; --resume goes on"
        tqdm.write(message, file=sys.stderr)
        raise
    best = log[trainer.best_epoch - 1]
    metrics = {"selected_epoch": trainer.best_epoch, "val": {k[4:]: v for k, v in best.items() if k[:4] == "val_"}}
    plot_finetuning(folder / "training_curves.png", log, trainer.best_epoch, f"{trainer.config.dataset}, {folder.name}")
    write_json(folder / "metrics.json", metrics)
    state_path.unlink()  # finished: what going on would need is only weight
    return metrics


def _go_on(trainer: Trainer, folder: Path) -> list[dict]:
    """Put a trainer where the last save was, if there is one; the log of the epochs until then.

    Raises:
        InputError: what was saved is damaged, or of another configuration.
    """
    path = folder / STATE
    if path.exists():
        saved = load_weights_file(path)
        if saved.get("config") != dataclasses.asdict(trainer.config):
            raise InputError(f"{path}: of another configuration than config.json beside it")
        try:
            trainer.restore(saved["state"])
        except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise InputError(f"{path}: damaged ({one_line(error)}); --overwrite starts anew") from error
    log = read_log(folder / LOG, trainer.epoch)  # an epoch after the last save is trained again
    write_log(folder / LOG, log)
    return log


def finished(folder: Path) -> dict | None:
    """What a finished fine-tuning found, else None.

    Raises:
        InputError: its results are damaged or not all there.
    """
    path = folder / "metrics.json"
    if not path.exists():
        return None
    metrics = read_json(path)
    val = metrics.get("val")
    figures = [val.get(name) for name in ("wa", "ua")] if isinstance(val, dict) else [None]
    if "selected_epoch" not in metrics or not all(isinstance(each, float) for each in figures):
        raise InputError(f"{path}: not what finetune.py wrote; --overwrite starts anew")
    for name in ("config.json", PROVENANCE_FILE, WEIGHTS):
        if not (folder / ENCODER / name).is_file():
            raise InputError(f"{folder / ENCODER}: has no {name} any more; --overwrite starts anew")
    return metrics


def save_best(
    folder: Path, encoder: TextEncoder | AudioEncoder, source: Source, config: TuneConfig, recordings: set[str]
) -> None:
    """Write an encoder as a folder of transformers, whole or not at all.

    Only the weights differ from one epoch to the next: where the folder is there, their file takes the old one's place.

    Args:
        recordings: SHA-256s of all that it was ever tuned on.
    """
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    try:
        save_pretrained(encoder, temporary)
        write_json(
            temporary / PROVENANCE_FILE,
            {"config": dataclasses.asdict(config), "data": source.data, "recording_sha256": sorted(recordings)},
        )
        if all((folder / path.name).is_file() for path in temporary.iterdir()):
            (temporary / WEIGHTS).replace(folder / WEIGHTS)
        else:
            shutil.rmtree(folder, ignore_errors=True)
            temporary.replace(folder)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from error
    finally:
        with suppress(OSError):
            shutil.rmtree(temporary, ignore_errors=True)
