"""The configuration of a run, the three profiles and the known datasets. Does not import torch."""

import dataclasses
import os
import re
import reprlib
from dataclasses import dataclass, field, fields
from pathlib import Path

from models.config import ModelConfig, check_options, option, within
from utils.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
SPLITS = ("train", "val", "test")
MAX_CLASSES = 10_000  # a greater label is a mistake, and its classifier would fill the memory
SEEDS = (42, 123, 456, 789, 101112)
MOST = 1_000_000  # epochs or neighbours; a greater number is a mistake
NAME = r"[\w+=][\w.+=-]*"  # of a dataset or a run; both are used as file or folder names


@dataclass(frozen=True)
class Dataset:
    """Defaults of a dataset: class names in label order, the best k of the paper (IV.A), epochs by profile."""

    class_names: tuple[str, ...]
    k_text: int
    k_audio: int
    epochs: dict[str, int] = field(default_factory=dict)


DATASETS = {
    # chosen on the validation split: benchmarks/epochs.py
    "DEMO": Dataset(("anger", "happiness", "neutral", "sadness"), 7, 8, {"official": 17, "paper": 12, "refined": 31}),
    "IEMOCAP": Dataset(("anger", "happiness", "neutral", "sadness"), 7, 8),
    "ESD": Dataset(("neutral", "angry", "happy", "sad", "surprise"), 5, 4),
}


@dataclass(frozen=True)
class Step:
    """One difference between two profiles: a title, and the values of the profile that is not ``paper``."""

    title: str
    values: dict[str, object]


# All fields in which a profile differs from `paper`. The defaults of Config and ModelConfig are those of `paper`.
OFFICIAL_TO_PAPER = (
    Step("a node is never its own neighbour", {"topk_self": "drop_first"}),
    Step("edges as in Eq. (2)", {"message_flow": "node_to_neighbors"}),
    Step("channel gate of Eq. (3)", {"channel_gate": "sum_of_sigmoids"}),
    Step("4 averaged heads in the last GAT layer", {"gat_last_heads": "single"}),
    Step("decay every 30 epochs", {"lr_schedule": "plateau", "lr_patience": 15}),
)
PAPER_TO_REFINED = (
    Step("train mode at every step", {"train_mode": "every_step"}),
    Step("one LayerNorm per GAT layer", {"gat_norm": "layer"}),
    Step("a residual around every GAT layer", {"gat_residual": "projection"}),
    Step("LayerScale on each GAT layer (ours)", {"gat_layer_scale": 0.1}),
    Step("width 256", {"hidden_dim": 256}),
    Step("decay factor 0.9 over 200 epochs", {"lr_decay": 0.9, "epochs": 200}),
    Step("best validation epoch", {"selection": "best_val_wf1"}),
)
# official: what the published code does. paper: the text of the paper, completed with the code where the paper is
# silent. refined: the paper, completed with good practice where it is silent.
PROFILES: dict[str, dict[str, object]] = {
    "official": {name: value for step in OFFICIAL_TO_PAPER for name, value in step.values.items()},
    "paper": {},
    "refined": {name: value for step in PAPER_TO_REFINED for name, value in step.values.items()},
}


@dataclass(frozen=True)
class Config:
    """Everything that determines the results of a run except its seed and features. Defaults: profile ``paper``.

    Raises:
        ValueError: names the field that has an invalid value.
    """

    dataset: str = option("DEMO", "DEMO, IEMOCAP, ESD, or the name of any other features in the feature folder")
    profile: str = option(
        "paper", "set of default values: the published code (official), the paper, or our refinement", PROFILES
    )
    k_text: int = option(7, "number of text neighbours per node", rule=within(1, MOST, "[]"))
    k_audio: int = option(8, "number of audio neighbours per node", rule=within(1, MOST, "[]"))
    model: ModelConfig = field(default_factory=ModelConfig)
    # graph
    message_flow: str = option(
        "neighbors_to_node",
        "direction of the edges: as in Eq. (2) (neighbors_to_node), or reversed",
        ("neighbors_to_node", "node_to_neighbors"),
    )
    topk_self: str = option(
        "mask",
        "exclude each node from its own Top-K (mask), or drop the node that ranks first (drop_first)",
        ("mask", "drop_first"),
    )
    graph_scope: str = option(
        "split", "graph of val and test: only the split, or the split and train", ("split", "with_train")
    )
    # training
    epochs: int = option(100, "number of epochs, each one full-batch step", rule=within(1, MOST, "[]"))
    lr: float = option(1e-4, "learning rate of Adam", rule=within(0, ends="()"))
    weight_decay: float = option(5e-4, "L2 penalty of Adam", rule=within(0))
    label_smoothing: float = option(0.0, "label smoothing of the cross entropy (ours)", rule=within(0, 1))
    lr_schedule: str = option(
        "step", "decay every lr_patience epochs (step), or when the val loss stalls (plateau)", ("step", "plateau")
    )
    lr_decay: float = option(0.3, "decay factor of the learning rate", rule=within(0, 1, "(]"))
    lr_patience: int = option(
        30,
        "epochs between decays (step), or epochs without improvement before a decay (plateau)",
        rule=within(1, MOST, "[]"),
    )
    train_mode: str = option(
        "first_step",
        "use train mode at every step, or only at the first one; later, dropout is off and BatchNorm frozen",
        ("every_step", "first_step"),
    )
    selection: str = option(
        "last", "epoch to evaluate: the one with the best val w-F1, or the last one", ("best_val_wf1", "last")
    )
    matmul_precision: str = option("fp32", "precision of matrix products on CUDA: float32 or TF32", ("fp32", "tf32"))

    def __post_init__(self):
        check_options(self)
        if not re.fullmatch(NAME, self.dataset):
            name = reprlib.repr(self.dataset)[1:-1]
            raise ValueError(f"dataset {name}: must consist of letters, digits and . _ - + =")

    @property
    def neighbors(self) -> tuple[int, int]:
        """The number of text and audio neighbours per node; 0 for a modality that the ablation removes."""
        return self.k_text * self.model.has("text"), self.k_audio * self.model.has("audio")

    def to_dict(self) -> dict[str, object]:
        """All options of the run and its model by name, as stored in ``config.json`` and checkpoints."""
        return {name: getattr(self.model if name in _MODEL else self, name) for name in OPTIONS}

    @classmethod
    def from_dict(cls, values: dict[str, object]) -> "Config":
        """The inverse of :meth:`to_dict`. Missing options have their defaults."""
        model = ModelConfig(**{name: value for name, value in values.items() if name in _MODEL})
        return cls(model=model, **{name: value for name, value in values.items() if name not in _MODEL})

    def replace(self, **changes: object) -> "Config":
        """Return a copy with some options changed, including those of the model."""
        return Config.from_dict(self.to_dict() | changes)


_MODEL = {f.name: f for f in fields(ModelConfig)}
# Every option by name; those of the model take the place of `model`
OPTIONS: dict[str, dataclasses.Field] = {}
for _field in fields(Config):
    OPTIONS |= _MODEL if _field.name == "model" else {_field.name: _field}

PARTS = {  # of the reproduction report, each with what it requires
    "tables": "features",
    "folds": "features whose CSVs name sessions or speakers",
    "ablation": "all three profiles and a dataset other than DEMO",
    "homophily": "DEMO",
    "grid": "IEMOCAP or ESD",
}


def profile_defaults(profile: str, dataset: str) -> dict[str, object]:
    """The default value of every option."""
    if profile not in PROFILES:
        raise InputError(f"--profile {profile}: expected one of {', '.join(PROFILES)}")
    values = {name: f.default for name, f in OPTIONS.items()} | {"profile": profile, "dataset": dataset}
    if known := DATASETS.get(dataset):
        values |= {"k_text": known.k_text, "k_audio": known.k_audio}
    values |= PROFILES[profile]
    if known and profile in known.epochs:
        values["epochs"] = known.epochs[profile]
    return values


def make_config(options: dict[str, object]) -> Config:
    """Create the configuration of a profile with some options changed.

    Raises:
        InputError: names the option that has an invalid value.
    """
    defaults = profile_defaults(options.get("profile", "paper"), options.get("dataset", "DEMO"))
    try:
        return Config.from_dict(defaults | options)
    except ValueError as error:
        raise InputError(f"--{error}") from error


def read_config(values: object, where: str) -> Config:
    """Read the configuration stored in a checkpoint or ``config.json``.

    Raises:
        InputError: names ``where`` and an option that is missing, unknown or out of range.
    """
    if not isinstance(values, dict) or values.keys() != OPTIONS.keys():
        odd = min(OPTIONS.keys() ^ values.keys(), key=str) if isinstance(values, dict) else "not a dict"
        raise InputError(f"{where}: written by another version of this repository (configuration: {odd})")
    try:
        return Config.from_dict(values)
    except ValueError as error:
        raise InputError(f"{where}: --{error}") from error


def changed_options(config: Config) -> dict[str, object]:
    """The options that differ from the defaults of the profile and the dataset."""
    defaults = profile_defaults(config.profile, config.dataset)
    return {name: value for name, value in config.to_dict().items() if value != defaults[name]}


def run_name(config: Config) -> str:
    """The profile and the options that differ from it, for example ``paper`` or ``official-ablation=no_chgat``."""
    return "-".join([config.profile, *(f"{name}={value}" for name, value in changed_options(config).items())])


def display_name(dataset: str) -> str:
    """The name of the dataset in tables and figures."""
    return "DEMO (synthetic)" if dataset == "DEMO" else dataset


def known_class_names(dataset: str, info: dict | None) -> tuple[str, ...] | None:
    """Class names in label order from the JSON of the features (``info``) or of a known dataset; otherwise None."""
    if info is not None:
        return tuple(info["class_names"])
    return DATASETS[dataset].class_names if dataset in DATASETS else None


def class_names(dataset: str, num_classes: int, known: tuple[str, ...] | None) -> tuple[str, ...]:
    """Check ``known`` class names. If there are none, return ``class 0``, ``class 1``, ....

    Raises:
        InputError: the number of names differs from ``num_classes``.
    """
    if known is None:
        return tuple(f"class {i}" for i in range(num_classes))
    if len(known) != num_classes:
        raise InputError(f"--num_classes {num_classes}: {dataset} has {len(known)} classes ({', '.join(known)})")
    return known


def feature_path(feature_dir: str | Path, dataset: str, split: str) -> Path:
    """The feature pickle of a split."""
    return Path(feature_dir) / f"{dataset}_BERT_WAV2VEC_{split}.pkl"


def default_feature_dir() -> str:
    """``$FEATURE_DIR``, or the repository's ``feature``."""
    return os.environ.get("FEATURE_DIR") or os.path.relpath(ROOT / "feature")


def default_save_path() -> str:
    """The repository's ``checkpoints``."""
    return os.path.relpath(ROOT / "checkpoints")
