"""Find and load trained models by dataset, run folder, seed folder or file."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from models.cemobam import CemoBAM
from models.config import FUSIONS
from models.official import from_official, infer_dimensions
from utils.config import (
    DATASETS,
    Config,
    class_names,
    default_feature_dir,
    feature_path,
    known_class_names,
    make_config,
    read_config,
)
from utils.data.features import Features, check_described, check_sizes, load_features
from utils.data.published import UTTERANCES, features_missing_error, fetch_features
from utils.data.safe_pickle import load_tensors
from utils.errors import InputError, one_line, shown
from utils.training.folder import GRAPH_FILE, SEED_FOLDER, load_checkpoint, seed_folders

EXPORTED_MODEL, EXPORTED_GRAPH = "model.safetensors", "training_graph.safetensors"  # replace best.pt, GRAPH_FILE


@dataclass(frozen=True)
class Trained:
    """A trained model and the contents of its checkpoint; an official one has no ``seed`` and no ``data``."""

    path: Path
    model: CemoBAM
    config: Config
    class_names: tuple[str, ...]
    dims: tuple[int, int]
    seed: int | None
    data: dict[str, dict]
    temperature: float = 1.0  # of the probabilities; 1 if none was fitted

    @property
    def name(self) -> str:
        return self.path.stem if self.seed is None else f"seed {self.seed}"

    @property
    def run_folder(self) -> Path:
        """The folder ``<run>`` of a checkpoint ``<run>/seed<k>/best.pt``; the file may be a symbolic link."""
        return self.path.parent.resolve().parent


def model_file(seed_folder: Path) -> Path:
    """The weights file in a seed folder: that of an export, otherwise that of a training, which may not exist."""
    exported = seed_folder / EXPORTED_MODEL
    return exported if exported.is_file() else seed_folder / "best.pt"


def graph_file(run: Path) -> Path:
    """The training graph of a run: that of an export, otherwise that of a training, which may not exist."""
    exported = run / EXPORTED_GRAPH
    return exported if exported.is_file() else run / GRAPH_FILE


def find_checkpoints(target: str, save_path: Path) -> tuple[Path, list[Path]]:
    """The checkpoints of a target: a file, a seed folder, a run folder or export, or a dataset (its latest run).

    Returns:
        The folder for the results, and the checkpoints ordered by seed.

    Raises:
        InputError: there is no finished checkpoint.
    """
    path = Path(target)
    if path.is_file():
        return path.parent, [path]
    is_run = bool(seed_folders(path)) or model_file(path).is_file()
    # a folder with the name of the dataset may hold its audio files
    if not is_run and ((save_path / target).is_dir() or not path.is_dir()):
        path = _latest_run(save_path, target)
    if model_file(path).is_file():
        return path, [model_file(path)]
    folders = seed_folders(path).values()
    done = [folder for folder in folders if (folder / "metrics.json").is_file()]
    if not done:
        raise InputError(f"{path}: no finished seed in this folder")
    finished = [model_file(folder) for folder in done if model_file(folder).is_file()]
    if not finished:
        raise InputError(f"{path}: its seeds have no weights (reproduce.sh keeps only those of the profiles)")
    left_out = [folder.name for folder in folders if model_file(folder) not in finished]
    if left_out:
        print(f"not finished, skipped: {', '.join(left_out)}", file=sys.stderr)
    return path, finished


def _latest_run(save_path: Path, target: str) -> Path:
    folder = save_path / target
    summaries = [p for p in folder.glob("*/summary.json") if any(p.parent.glob("*/best.pt"))]
    runs = sorted(summaries, key=lambda p: p.stat().st_mtime)
    if not runs:
        raise InputError(f"{target}: neither a file or folder, nor a dataset with a finished run in {save_path}")
    if len(runs) > 1:
        print(f"{len(runs)} runs in {folder}, using the latest, {runs[-1].parent.name}", file=sys.stderr)
    return runs[-1].parent


def load_trained(path: Path) -> Trained:
    """Rebuild the model of a checkpoint of train.py from the file alone.

    Raises:
        InputError: the file is not such a checkpoint, its weights do not fit its configuration, or it is in the folder
            of another seed.
    """
    saved = load_checkpoint(path)
    config = read_config(saved["config"], str(path))
    dims, names = (saved["text_dim"], saved["audio_dim"]), tuple(saved["class_names"])
    folder = path.absolute().parent
    if folder in seed_folders(folder.parent).values() and folder.name != SEED_FOLDER.format(saved["seed"]):
        raise InputError(f"{path}: contains seed {saved['seed']}, but is in the folder of another seed")
    model = _build(path, config, dims, len(names), saved["weights"])
    temperature = saved.get("temperature", 1.0)
    return Trained(path, model, config, names, dims, saved["seed"], saved["data"], temperature)


def load_run(paths: Sequence[Path]) -> list[Trained]:
    """Load the models of a run's checkpoints.

    Raises:
        InputError: as for :func:`load_trained`, or the configurations, the data or the dimensions differ.
    """
    trained = [load_trained(path) for path in paths]
    first = trained[0]
    for other in trained[1:]:
        if (other.config, other.class_names, other.dims) != (first.config, first.class_names, first.dims):
            raise InputError(f"{other.path}: its configuration differs from that of {first.path}")
        for split, each in first.data.items():
            if other.data.get(split, {}).get("sha256") != each["sha256"]:
                raise InputError(f"{other.path}: trained on other {split} data than {first.path}")
    return trained


def load_official(path: Path, options: dict) -> Trained:
    """Rebuild the model of a state dict that the published code saved.

    Dimensions come from the shapes. Dataset and fusion come from ``options`` or the file's name
    (``ESD_HemoGAT_max.pt``). k comes from ``options`` or the dataset.

    Raises:
        InputError: the file is not such a state dict, or the dataset is unknown and k is not given.
    """
    state = load_tensors(path)
    if "weights" in state and "config" in state:
        raise InputError(f"{path}: a checkpoint of train.py, which stores its profile; remove --profile")
    try:
        if not all(isinstance(value, Tensor) for value in state.values()):
            raise ValueError("not a state dict, which holds only tensors")
        sizes = infer_dimensions(state)
        weights = from_official(state, sizes["num_layers"])
    except (ValueError, LookupError, RuntimeError) as error:  # RuntimeError: other shapes or types
        raise InputError(f"{path}: {one_line(error)}") from error
    from_name = {}
    words = path.stem.split("_")
    if words[0] in DATASETS:
        from_name["dataset"] = words[0]
    if words[-1] in FUSIONS:
        from_name["fusion_type"] = words[-1]
    settings = {"profile": "official", "dataset": "UNKNOWN"} | from_name | options
    if settings["dataset"] not in DATASETS and not {"k_text", "k_audio"} <= settings.keys():
        raise InputError(f"{path}: its name does not tell the dataset; add --dataset, or --k_text and --k_audio")
    network = {name: sizes[name] for name in ("hidden_dim", "heads", "num_layers")}
    config = make_config(settings | network)
    dims = (sizes["text_dim"], sizes["audio_dim"])
    model = _build(path, config, dims, sizes["num_classes"], weights)
    names = class_names(config.dataset, sizes["num_classes"], known_class_names(config.dataset, None))
    return Trained(path, model, config, names, dims, None, {})


def load_split(trained: Trained, split: str, given: str | None = None) -> Features:
    """Load a split's features and check them against the model.

    The file is ``given``, otherwise that of the training, otherwise that in the feature folder. A note is printed if
    its contents differ from those of the training.
    """
    recorded = trained.data.get(split, {})
    candidates = (given, recorded.get("path"), feature_path(default_feature_dir(), trained.config.dataset, split))
    paths = [Path(path) for path in candidates if path]
    path = paths[0] if given else next((path for path in paths if path.is_file()), paths[0])
    if not given and not path.is_file() and trained.config.dataset in UTTERANCES:
        raise features_missing_error(trained.config.dataset, path)
    features = load_features(path)
    check_sizes(features, trained.dims, len(trained.class_names), trained.path)
    check_described(features, split, trained.class_names)
    if recorded and recorded["sha256"] != features.sha256:
        print(f"note: {path} differs from the {split} data of the training")
    return features


def fetch_missing(trained: Trained, splits: Sequence[str]) -> None:
    """Download the published features of the splits whose files from the training are missing."""
    recorded = {split: trained.data.get(split, {}).get("path") for split in splits}
    absent = [split for split, path in recorded.items() if path is None or not Path(path).is_file()]
    if absent:
        fetch_features(Path(default_feature_dir()), trained.config.dataset, absent)


def _build(path: Path, config: Config, dims: tuple[int, int], num_classes: int, weights: dict[str, Tensor]) -> CemoBAM:
    """The model with its weights, in evaluation mode. Nothing is allocated before the weights are checked."""
    with torch.device("meta"):
        model = CemoBAM(config.model, *dims, num_classes)
    expected = model.state_dict()
    if not isinstance(weights, dict) or not all(isinstance(each, Tensor) for each in weights.values()):
        raise InputError(f"{path}: its weights are not a dict of tensors")
    if odd := sorted(expected.keys() ^ weights.keys(), key=str):
        raise InputError(f"{path}: the weights do not fit their configuration ({shown(odd[0])})")
    for name, tensor in weights.items():
        wanted = expected[name]
        if tensor.shape != wanted.shape or tensor.is_floating_point() != wanted.is_floating_point():
            both = ", not ".join(f"{list(each.shape)} of {each.dtype}" for each in (tensor, wanted))
            raise InputError(f"{path}: the weights do not fit their configuration ({name} is {both})")
        if not tensor.float().isfinite().all():  # isfinite does not support 8-bit floats
            raise InputError(f"{path}: {name} holds a value that is not finite")
    model.to_empty(device="cpu").load_state_dict(weights)
    return model.eval()
