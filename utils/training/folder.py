"""The files of a run folder: configuration, log, checkpoints, metrics (layout in ``checkpoints/README.md``)."""

import json
from collections.abc import Sequence
from math import isfinite
from pathlib import Path

import numpy as np
import torch

from utils.config import SPLITS
from utils.data.features import Features, check_class_names
from utils.data.identity import ID, TEXT
from utils.data.safe_pickle import load_tensors, save_tensors
from utils.errors import InputError, one_line, out_of_memory, printable, reading, shown
from utils.io import atomic_write, read_file, read_json, write_json
from utils.training.graph import NeighborLists
from utils.training.loop import TrainingState
from utils.training.metrics import METRICS

SEED_FOLDER = "seed{}"
PREDICTIONS = "{}_predictions.csv"  # of a split, see utils.training.predictions
GRAPH_FILE = "training_graph.pt"  # next to the seed folders, see save_training_graph
CHECKPOINT_KEYS = ("weights", "config", "seed", "class_names", "text_dim", "audio_dim", "data")
_CURVES = ("train_loss", "val_loss", "val_w_f1", "seconds")  # keys that every line of a log must have


def seed_folders(folder: Path) -> dict[int, Path]:
    """The seed folders in a folder, ordered by seed. Copies with other names are ignored."""
    seeds = [path.name.removeprefix("seed") for path in folder.glob("seed*")]
    named = sorted(int(seed) for seed in seeds if seed.isdecimal() and seed == str(int(seed)))
    return {seed: folder / SEED_FOLDER.format(seed) for seed in named}


# ---- configuration ---------------------------------------------------------------------------------------------------


def claim_folder(folder: Path, description: dict) -> None:
    """Write ``config.json`` into a new folder, or check that an existing one describes the same run.

    Raises:
        InputError: the folder holds another configuration. The message names the first difference; nothing is changed.
    """
    if (folder / "config.json").exists():
        check_description(folder, description)
    else:
        write_json(folder / "config.json", description)


def check_description(folder: Path, description: dict) -> None:
    """Raise an InputError if ``config.json`` describes another run. Without a given seed, any seed is accepted."""
    old = check_fields(read_json(folder / "config.json"), folder / "config.json")
    if difference := description_difference(old, description):
        raise InputError(
            f"{folder}: contains a run with another configuration ({difference}); choose another folder "
            "with --save_path (or use --model_name or --overwrite, if the command has them)"
        )


def check_fields(description: dict, path: Path) -> dict:
    """Check a description that was read from ``path``, and return it.

    Raises:
        InputError: configuration, data or class names are missing or have the wrong type.
    """
    match description:
        case {"config": dict(), "data": dict(data), "class_names": names}:
            check_class_names(names, path)
            if not isinstance(description.get("device", ""), str):
                raise InputError(f"{path}: invalid device {shown(description['device'])}")
            for split, each in data.items():
                match each:
                    case {"path": str(), "sha256": str(), "utterances": int()} if split in SPLITS:
                        continue
                raise InputError(f"{path}: invalid entry for the {shown(split)} data")
            return description
    raise InputError(f"{path}: not the description of a run")


def _config_difference(old: dict, new: dict) -> str | None:
    """The first option in which two configurations differ, in words; None if they are equal."""
    for name in {**old, **new}:
        before, now = (config.get(name, "(missing)") for config in (old, new))
        if before != now:
            return f"{name} was {before}, now {now}"
    return None


def description_difference(old: dict, new: dict) -> str | None:
    """The first difference between two descriptions that changes results, in words; None if there is none."""
    if difference := _config_difference(old["config"], new["config"]):
        return difference
    for split in new["data"]:
        if old["data"].get(split, {}).get("sha256") != new["data"][split]["sha256"]:
            return f"the {split} data is different ({new['data'][split]['path']})"
    if old["class_names"] != new["class_names"]:
        return f"the classes were {', '.join(old['class_names'])}, now {', '.join(new['class_names'])}"
    if "seed" in new and old.get("seed") != new["seed"]:
        return f"the seed was {old.get('seed')}, now {new['seed']}"
    return None


def begun_on(folder: Path, begun: bool, here: str) -> str:
    """The device on which a training began. It is recorded in ``config.json`` at the start.

    Args:
        begun: whether the training resumes from a saved state.
        here: the current device, in words.
    """
    path = folder / "config.json"
    if not path.exists():  # in a Ray worker, which never resumes
        return here
    description = check_fields(read_json(path), path)
    if begun:
        return description.get("device", here)
    write_json(path, description | {"device": here})
    return here


def moved(before: str, here: str) -> str:
    """The note for a training that continues on another device; "" on the same device."""
    if before == here:
        return ""
    return f"begun on {printable(before)}, continues on {here}: the last bits differ from training on one device"


def read_description(folder: Path) -> dict:
    """Read a run's ``config.json``.

    Raises:
        InputError: it is damaged.
    """
    path = folder / "config.json"
    description = check_fields(read_json(path), path)
    if description["data"].keys() != set(SPLITS) or not isinstance(description.get("versions"), dict):
        raise InputError(f"{path}: not the description of a run")
    return description


# ---- log and metrics -------------------------------------------------------------------------------------------------


def write_log(path: Path, log: Sequence[dict]) -> None:
    """Write a ``log.jsonl``, one line per epoch."""
    atomic_write(path, "".join(json.dumps(line) + "\n" for line in log).encode())


def read_log(path: Path, epochs: int | None = None) -> list[dict]:
    """Read the lines of a ``log.jsonl``, or the first ``epochs`` of them. A kill may have truncated the last line.

    Raises:
        InputError: a line is not a JSON object, or there are fewer than ``epochs``.
    """
    log = []
    for i, line in enumerate(read_file(path).splitlines()[:epochs] if path.exists() else (), 1):
        try:
            log.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}: line {i}: not JSON ({error})") from error
        if not isinstance(log[-1], dict) or "epoch" not in log[-1]:
            raise InputError(f"{path}: line {i}: not the log line of an epoch")
    if epochs is not None and len(log) < epochs:
        way_out = "use --overwrite to start again (selected_topK.sh, reproduce.sh: remove the folder)"
        raise InputError(f"{path}: {len(log)} epochs, but last.pt has {epochs}; {way_out}")
    return log


def read_curves(folder: Path, epochs: int) -> list[dict]:
    """Read the log of a finished run.

    Raises:
        InputError: it is damaged, or has another number of epochs.
    """
    path = folder / "log.jsonl"
    log = read_log(path)
    with reading(path, "not the log of a run"):
        if len(log) != epochs:
            raise ValueError(f"{len(log)} epochs of {epochs}")
        for line in log:
            odd = [name for name in _CURVES if not isfinite(line[name])]
            if odd:
                raise ValueError(f"{odd[0]} {line[odd[0]]}")
    return log


def read_metrics(folder: Path, seed: int, epochs: int) -> dict:
    """Read ``metrics.json`` of a finished run: seed, selected epoch, device, graphs, and the metrics of val and test.

    Raises:
        InputError: it is damaged, has another seed, or its selected epoch is greater than ``epochs``.
    """
    path = folder / "metrics.json"
    metrics = read_json(path)
    with reading(path, "not the metrics of a run"):
        epoch = metrics["selected_epoch"]
        if metrics["seed"] != seed:
            raise ValueError(f"of seed {metrics['seed']}")
        if not (isinstance(epoch, int) and 1 <= epoch <= epochs):
            raise ValueError(f"selected epoch {epoch} of {epochs}")
        if not (isfinite(metrics["temperature"]) and metrics["temperature"] > 0):
            raise ValueError(f"temperature {metrics['temperature']}")
        shares = [metrics["graphs"][split]["homophily"] for split in SPLITS]
        if not (all(0 <= share <= 1 for share in shares) and isinstance(metrics["device"], str)):
            raise ValueError("homophily or device")
        for split in ("val", "test"):
            for name in METRICS:
                if not 0 <= metrics[split][name] <= 1 or isinstance(metrics[split][name], bool):
                    raise ValueError(f"{split} {name} {metrics[split][name]}")
            confusion = np.array(metrics[split]["confusion"])
            if confusion.dtype.kind != "i" or confusion.shape != 2 * (len(metrics[split]["recall"]),):
                raise ValueError(f"{split} confusion")
    return metrics


# ---- checkpoints -----------------------------------------------------------------------------------------------------


def save_state(state: TrainingState, folder: Path, description: dict, resumable: bool) -> None:
    """Write ``best.pt`` (selected weights) and ``last.pt`` (latest weights), both with the run's description.

    Args:
        resumable: also write everything that resuming needs to ``last.pt``.
    """
    best = {**description, "weights": state.best_weights, "epoch": state.best_epoch}
    last = {**description, "weights": state.model.state_dict(), "epoch": state.epoch}
    save_tensors(folder / "best.pt", best)
    save_tensors(folder / "last.pt", {**last, "training": state.state_dict()} if resumable else last)


def restore_state(state: TrainingState, folder: Path, description: dict) -> None:
    """Load ``last.pt`` into a fresh state, if the file exists.

    Raises:
        InputError: the checkpoint is damaged, or of another run.
    """
    path = folder / "last.pt"
    if not path.exists():
        return
    saved = load_checkpoint(path)
    if difference := description_difference(saved, description):
        raise InputError(f"{path}: its configuration differs from config.json in the same folder ({difference})")
    if "training" not in saved:
        return
    try:
        state.load_state_dict(saved["training"])
    except torch.AcceleratorError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        if out_of_memory(error):
            raise
        raise InputError(f"{path}: not a state of this training ({type(error).__name__}: {one_line(error)})") from error


def load_checkpoint(path: Path) -> dict:
    """Read a ``best.pt``, ``last.pt`` or exported model: :data:`CHECKPOINT_KEYS` and more.

    Raises:
        InputError: as for :func:`load_tensors`, or the file is not a checkpoint of train.py.
    """
    data = load_tensors(path)
    missing = [key for key in CHECKPOINT_KEYS if key not in data]
    if missing and all(isinstance(value, torch.Tensor) for value in data.values()):
        raise InputError(f"{path}: a plain state dict; if the published code wrote it, add --profile official")
    if missing:
        raise InputError(f"{path}: not a checkpoint of train.py, {missing[0]!r} is missing")
    for name in ("seed", "text_dim", "audio_dim"):
        if type(data[name]) is not int or not (name != "seed") <= data[name] < 2**45:  # a wider matrix has 2^63 bytes
            raise InputError(f"{path}: invalid {name} {shown(data[name])}")
    temperature = data.get("temperature", 1.0)  # an unfinished training has none yet
    if not (type(temperature) is float and isfinite(temperature) and temperature > 0):
        raise InputError(f"{path}: invalid temperature {shown(temperature)}")
    check_fields(data, path)
    if data["data"].keys() != set(SPLITS):
        raise InputError(f"{path}: must name the data of {', '.join(SPLITS)}")
    return data


def save_training_graph(
    folder: Path, train: Features, lists: NeighborLists, k: tuple[int, int], encoders: dict
) -> None:
    """Write the parts of the training split that inductive inference needs.

    These are the embeddings, neighbours and encoders. The recording, transcript and class of each utterance name it
    when it is shown as a neighbour.

    Args:
        k: text and audio neighbours per node; ``lists`` may be longer.
        encoders: from the features' JSON; {} if there is no JSON.
    """
    save_tensors(
        folder / GRAPH_FILE,
        {
            "text": train.text,
            "audio": train.audio,
            "text_neighbors": lists.text[:, : k[0]].int(),
            "audio_neighbors": lists.audio[:, : k[1]].int(),
            "encoders": encoders,
            "sha256": train.sha256,
            "ids": list(train.identity[ID]),
            "texts": list(train.identity[TEXT]),
            "labels": train.label.tolist(),
        },
    )
