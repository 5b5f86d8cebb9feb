"""Run folders: seeds, logs, checkpoints, what a run is of (layout in ``checkpoints/README.md``)."""

import io
import json
import pickle
import platform
import random
import re
import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from utils.errors import InputError
from utils.files import atomic_write, read_json, write_json

SEED_FOLDER = "seed{}"
CHECKPOINT_KEYS = ("weights", "config", "class_names", "text_dim", "audio_dim")


def seed_folders(folder: Path) -> dict[int, Path]:
    """The seed folders of a run folder, in order of the seeds; a copy of another name is none of them."""
    named = {int(match[1]): path for path in folder.glob("seed*") if (match := re.fullmatch(r"seed(\d+)", path.name))}
    return dict(sorted(named.items()))


def set_seed(seed: int) -> None:
    """Seed Python, numpy and torch, all devices."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def write_log(path: Path, log: Sequence[dict]) -> None:
    """A ``log.jsonl`` of these lines."""
    atomic_write(path, "".join(json.dumps(line) + "\n" for line in log).encode())


def read_log(path: Path, epochs: int | None = None) -> list[dict]:
    """The lines of a ``log.jsonl``, or the first ``epochs``; a kill may have cut the last one short.

    Raises:
        InputError: names a line that is no JSON object; or there are fewer than ``epochs``.
    """
    log = []
    for i, line in enumerate(path.read_bytes().splitlines()[:epochs] if path.exists() else (), 1):
        try:
            log.append(json.loads(line))
        except ValueError as error:
            raise InputError(f"{path}: line {i}: not JSON ({error})") from error
        if not isinstance(log[-1], dict) or "epoch" not in log[-1]:
            raise InputError(f"{path}: line {i}: not the line of an epoch")
    if epochs is not None and len(log) < epochs:
        way_out = "--overwrite starts anew (reproduce.sh: remove the folder)"
        raise InputError(f"{path}: {len(log)} epochs, last.pt has {epochs}; {way_out}")
    return log


def save_checkpoint(path: Path, checkpoint: dict) -> None:
    buffer = io.BytesIO()  # torch.save to a full disk raises no OSError, a plain write does
    torch.save(checkpoint, buffer)
    atomic_write(path, buffer.getvalue())


def load_weights_file(path: Path) -> dict:
    """Read a ``.pt`` file with ``weights_only=True``, so that nothing in it can run.

    Raises:
        InputError: missing, damaged, asking for code, or not a dict.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    content = path.read_bytes()
    try:
        data = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(f"{path}: refused: not a file of plain weights; nothing in it was run") from error
    except (RuntimeError, OSError, EOFError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a complete checkpoint ({type(error).__name__})") from error
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected a dict, found a {type(data).__name__}")
    return data


def load_checkpoint(path: Path) -> dict:
    """Read one of our checkpoints (``best.pt``, ``last.pt``): :data:`CHECKPOINT_KEYS` and more.

    Raises:
        InputError: as :func:`load_weights_file`, or not one of ours; a plain state dict gets a hint.
    """
    data = load_weights_file(path)
    missing = [key for key in CHECKPOINT_KEYS if key not in data]
    if missing and all(isinstance(value, torch.Tensor) for value in data.values()):
        raise InputError(f"{path}: a plain state dict; if the published code wrote it, add --profile official")
    if missing:
        raise InputError(f"{path}: not a checkpoint of train.py, {missing[0]!r} is missing")
    return data


def describe_run(config: dict, splits: dict, dims: tuple[int, int], classes: Sequence[str]) -> dict:
    """What ``config.json`` says: configuration, data and its fingerprint, versions, command line."""
    return {
        "config": config,
        "class_names": list(classes),
        "text_dim": dims[0],
        "audio_dim": dims[1],
        "data": {
            name: {"path": str(f.path.resolve()), "sha256": f.sha256, "utterances": len(f)}
            for name, f in splits.items()
        },
        **provenance("torch", "torch-geometric", "numpy"),
    }


def provenance(*libraries: str) -> dict:
    """``versions`` of Python and the libraries, and ``command``, for the JSONs that say how files came about."""
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in libraries}},
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
    }


def config_difference(old: dict, new: dict) -> str | None:
    """The first field in which two configurations differ, said in words; None where none."""
    for name in {**old, **new}:
        before, now = (config.get(name, "(not there)") for config in (old, new))
        if before != now:
            return f"{name} was {before}, now {now}"
    return None


def first_difference(old: dict, new: dict) -> str | None:
    """The first thing in which two run descriptions would give other numbers, said in words; None where none."""
    if difference := config_difference(old["config"], new["config"]):
        return difference
    for split in new["data"]:
        if old["data"].get(split, {}).get("sha256") != new["data"][split]["sha256"]:
            return f"the {split} data is another ({new['data'][split]['path']})"
    if old["class_names"] != new["class_names"]:
        return f"the classes were {', '.join(old['class_names'])}, now {', '.join(new['class_names'])}"
    return None


def claim_folder(folder: Path, description: dict) -> None:
    """Write ``config.json`` into a new folder of results, or check that the one there is of the same run.

    Raises:
        InputError: the folder holds another configuration; the first difference is named, nothing is changed.
    """
    path = folder / "config.json"
    if not path.exists():
        write_json(path, description)
        return
    old = read_json(path)
    if not {"config", "data", "class_names"} <= old.keys():
        raise InputError(f"{path}: not a run's configuration")
    difference = first_difference(old, description)
    if difference:
        raise InputError(
            f"{folder}: holds a run of another configuration ({difference}); choose another folder "
            "(--save_path; --model_name, or --overwrite, where the command has it)"
        )
