"""The one configuration, the two profiles, the dataset table."""

import dataclasses
import math
import os
import re
from dataclasses import dataclass, field, fields
from pathlib import Path

from models.cemobam import ABLATIONS
from models.ch_gat import LAST_HEADS, NORMS, RESIDUALS
from models.xcbam import CHANNEL_GATES, FUSIONS
from utils.errors import InputError
from utils.graph import GRAPH_SCOPES, MESSAGE_FLOWS, TOPK_SELF

ROOT = Path(__file__).resolve().parents[1]
SEEDS = (42, 123, 456, 789, 101112)
PROFILES = ("paper", "official")
NAME = r"[\w+=][\w.+=-]*"  # of a dataset or a run, each of which names a folder


@dataclass(frozen=True)
class Dataset:
    """What is known of a dataset by its name: class names in label order, best k of the paper (IV.A), epochs."""

    class_names: tuple[str, ...]
    k_text: int
    k_audio: int
    epochs: int | None = None  # None: as the configuration has it


DATASETS = {
    # its validation w-F1 is at its best before the 12th epoch for four of the five seeds, at the 30th for one
    "DEMO": Dataset(("anger", "happiness", "neutral", "sadness"), 7, 8, epochs=40),
    "IEMOCAP": Dataset(("anger", "happiness", "neutral", "sadness"), 7, 8),
    "ESD": Dataset(("neutral", "angry", "happy", "sad", "surprise"), 5, 4),
}


def _choice(choices: tuple[str, ...], default: str, doc: str):
    return field(default=default, metadata={"choices": choices, "doc": doc})


def _value(default, doc: str):
    return field(default=default, metadata={"doc": doc})


@dataclass(frozen=True)
class Config:
    """Everything that decides a run's numbers. The defaults are the profile ``paper``; see :data:`OFFICIAL`."""

    dataset: str = _value("DEMO", "DEMO, IEMOCAP, ESD, or any name whose pickles lie in the feature folder")
    profile: str = _choice(PROFILES, "paper", "the paper's text, or what its published code does")
    k_text: int = _value(7, "text neighbours of a node")
    k_audio: int = _value(8, "audio neighbours of a node")
    # network
    hidden_dim: int = _value(512, "width of the projections and of both branches")
    heads: int = _value(4, "attention heads, in CH-GAT and in xCBAM")
    num_layers: int = _value(3, "GAT layers, at least 2")
    dropout: float = _value(0.3, "dropout of the projections, CH-GAT, xCBAM and the classifier")
    fusion_type: str = _choice(FUSIONS, "min", "fusion of the two streams of xCBAM")
    ablation: str = _choice(ABLATIONS, "none", "leave a part of the network out")
    gat_norm: str = _choice(NORMS, "layer", "normalisation after a hidden GAT layer")
    gat_last_heads: str = _choice(LAST_HEADS, "average", "heads of the last GAT layer")
    gat_residual: str = _choice(RESIDUALS, "projection", "residual connections of CH-GAT")
    gat_layer_scale: float = _value(0.1, "initial value of the gate on a GAT layer's output, 0 for none")
    channel_gate: str = _choice(CHANNEL_GATES, "sum_then_sigmoid", "channel attention: Eq. (3) or the published code")
    # graph
    message_flow: str = _choice(MESSAGE_FLOWS, "neighbors_to_node", "direction of the edges: Eq. (2) or its reverse")
    topk_self: str = _choice(TOPK_SELF, "mask", "keep a node out of its own Top-K, or drop what ranks first")
    graph_scope: str = _choice(
        GRAPH_SCOPES, "split", "val and test each have a graph of their own, or one with the training utterances in it"
    )
    # training
    epochs: int = _value(100, "full-batch steps")
    lr: float = _value(1e-4, "learning rate of Adam")
    weight_decay: float = _value(5e-4, "L2 penalty of Adam")
    label_smoothing: float = _value(0.1, "label smoothing of the cross entropy")
    lr_schedule: str = _choice(("step", "plateau"), "step", "decay every lr_patience epochs, or when val loss stalls")
    lr_decay: float = _value(0.5, "factor of a decay")
    lr_patience: int = _value(30, "epochs between decays (step), or without improvement before one (plateau)")
    train_mode: str = _choice(("every_step", "first_step"), "every_step", "steps with dropout and batch statistics on")
    selection: str = _choice(
        ("best_val_wf1", "smoothed_val_wf1", "last"),
        "best_val_wf1",
        "epoch whose weights are evaluated: best val w-F1, best moving average of it, or the last",
    )
    matmul_precision: str = _choice(
        ("fp32", "tf32"), "fp32", "matrix products on CUDA: float32, or TF32, faster and rounded to 10 bits"
    )


# Where the published code differs from profile paper (DESIGN.md section 4, and the table in the README).
OFFICIAL = {
    "profile": "official",
    "gat_norm": "shared_batch",
    "gat_last_heads": "single",
    "gat_residual": "middle",
    "gat_layer_scale": 0.0,
    "channel_gate": "sum_of_sigmoids",
    "message_flow": "node_to_neighbors",
    "topk_self": "drop_first",
    "label_smoothing": 0.0,
    "lr_schedule": "plateau",
    "lr_decay": 0.3,
    "lr_patience": 15,
    "train_mode": "first_step",
    "selection": "last",
}


def display_name(dataset: str) -> str:
    """The dataset's name as tables and figures show it."""
    return "DEMO (synthetic)" if dataset == "DEMO" else dataset


def profile_defaults(profile: str, dataset: str) -> dict:
    """Every field's value before any option is given."""
    if profile not in PROFILES:
        raise InputError(f"--profile {profile}: expected one of {', '.join(PROFILES)}")
    values = {f.name: f.default for f in fields(Config)} | {"dataset": dataset}
    if dataset in DATASETS:
        of_dataset = {name: getattr(DATASETS[dataset], name) for name in ("k_text", "k_audio", "epochs")}
        values |= {name: value for name, value in of_dataset.items() if value is not None}
    return values | (OFFICIAL if profile == "official" else {})


def make_config(options: dict) -> Config:
    """The configuration of a profile with some fields given.

    Raises:
        InputError: names the option whose value is out of range.
    """
    defaults = profile_defaults(options.get("profile", "paper"), options.get("dataset", "DEMO"))
    config = Config(**(defaults | options))
    _check(config)
    return config


def config_from_dict(values: dict, where: str) -> Config:
    """The configuration that a checkpoint or ``config.json`` holds.

    Raises:
        InputError: names ``where`` and a field that is missing, unknown or out of range.
    """
    names = {f.name for f in fields(Config)}
    if not isinstance(values, dict) or values.keys() != names:
        odd = sorted(names.symmetric_difference(values)) if isinstance(values, dict) else ["not a dict"]
        raise InputError(f"{where}: written by another version of this repository (configuration: {odd[0]})")
    try:
        config = Config(**values)
        _check(config)
    except (InputError, TypeError) as error:
        raise InputError(f"{where}: {error}") from error
    return config


def _check(config: Config) -> None:
    if not re.fullmatch(NAME, config.dataset):
        raise InputError(f"--dataset {config.dataset}: a name of letters, digits and . _ - +")
    for f in fields(Config):
        value, choices = getattr(config, f.name), f.metadata.get("choices")
        if choices and value not in choices:
            raise InputError(f"--{f.name} {value}: expected one of {', '.join(choices)}")
    for name, ok, expected in (
        ("k_text", config.k_text >= 1, "at least 1"),
        ("k_audio", config.k_audio >= 1, "at least 1"),
        ("heads", config.heads >= 1, "at least 1"),
        ("hidden_dim", config.hidden_dim >= 16, "at least 16, the reduction of the channel attention"),
        ("hidden_dim", config.hidden_dim % max(config.heads, 1) == 0, f"a multiple of the {config.heads} heads"),
        ("num_layers", config.num_layers >= 2, "at least 2"),
        ("epochs", config.epochs >= 1, "at least 1"),
        ("lr", 0 < config.lr < math.inf, "above 0"),
        ("weight_decay", 0 <= config.weight_decay < math.inf, "at least 0"),
        ("dropout", 0 <= config.dropout < 1, "in [0, 1)"),
        ("label_smoothing", 0 <= config.label_smoothing < 1, "in [0, 1)"),
        ("gat_layer_scale", 0 <= config.gat_layer_scale < math.inf, "at least 0"),
        ("lr_decay", 0 < config.lr_decay <= 1, "in (0, 1]"),
        ("lr_patience", config.lr_patience >= 1, "at least 1"),
    ):
        if not ok:
            raise InputError(f"--{name} {getattr(config, name)}: must be {expected}")


def run_name(config: Config) -> str:
    """The profile and whatever differs from it: ``paper``, ``official-ablation=no_chgat``."""
    defaults = profile_defaults(config.profile, config.dataset)
    values = dataclasses.asdict(config)
    return "-".join([config.profile, *(f"{name}={v}" for name, v in values.items() if v != defaults[name])])


def known_class_names(dataset: str, info: dict | None) -> tuple[str, ...] | None:
    """Names in label order: those stored with the features (``info``, their JSON), else the dataset's, if known."""
    if info is not None:
        return tuple(info["class_names"])
    return DATASETS[dataset].class_names if dataset in DATASETS else None


def class_names(dataset: str, num_classes: int, known: tuple[str, ...] | None) -> tuple[str, ...]:
    """``known``, checked; ``class 0``, ``class 1`` … where none are known.

    Raises:
        InputError: there are ``num_classes`` classes, and another number of names.
    """
    if known is None:
        return tuple(f"class {i}" for i in range(num_classes))
    if len(known) != num_classes:
        raise InputError(f"--num_classes {num_classes}: {dataset} has {len(known)} classes ({', '.join(known)})")
    return known


def feature_path(feature_dir: str | Path, dataset: str, split: str) -> Path:
    return Path(feature_dir) / f"{dataset}_BERT_WAV2VEC_{split}.pkl"


def default_feature_dir() -> str:
    """``$FEATURE_DIR``, or the repository's ``feature``."""
    return os.environ.get("FEATURE_DIR") or os.path.relpath(ROOT / "feature")


def default_save_path() -> str:
    """The repository's ``checkpoints``."""
    return os.path.relpath(ROOT / "checkpoints")
