"""Find and load trained models: by dataset, run folder, seed folder or file."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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
from utils.errors import InputError
from utils.training.folder import load_checkpoint, load_weights_file, seed_folders


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

    @property
    def name(self) -> str:
        return self.path.stem if self.seed is None else f"seed {self.seed}"

    @property
    def run_folder(self) -> Path:
        """The folder ``<run>`` of a checkpoint ``<run>/seed<k>/best.pt``."""
        return self.path.resolve().parent.parent


def find_checkpoints(target: str, save_path: Path) -> tuple[Path, list[Path]]:
    """The checkpoints of a target: a ``.pt`` file, a seed or run folder, or a dataset (its latest run).

    Returns:
        The folder that the results belong to, and the files in order of their seeds.

    Raises:
        InputError: there is nothing, or nothing finished, to evaluate.
    """
    path = Path(target)
    if path.is_file():
        return path.parent, [path]
    is_run = bool(seed_folders(path)) or (path / "best.pt").is_file()
    if not is_run and ((save_path / target).is_dir() or not path.is_dir()):  # a corpus may lie in a folder of its name
        path = _latest_run(save_path / target, target)
    if (path / "best.pt").is_file():
        return path, [path / "best.pt"]
    folders = seed_folders(path).values()
    done = [folder for folder in folders if (folder / "metrics.json").is_file()]
    if not done:
        raise InputError(f"{path}: no finished seed in this folder")
    finished = [folder / "best.pt" for folder in done if (folder / "best.pt").is_file()]
    if not finished:
        raise InputError(f"{path}: its seeds keep no weights (reproduce.sh keeps those of the profiles only)")
    left_out = [folder.name for folder in folders if folder / "best.pt" not in finished]
    if left_out:
        print(f"not finished, skipped: {', '.join(left_out)}", file=sys.stderr)
    return path, finished


def _latest_run(folder: Path, target: str) -> Path:
    summaries = [p for p in folder.glob("*/summary.json") if any(p.parent.glob("*/best.pt"))]
    runs = sorted(summaries, key=lambda p: p.stat().st_mtime)
    if not runs:
        raise InputError(f"{target}: neither a file or folder, nor a dataset with a finished run in {folder.parent}")
    if len(runs) > 1:
        print(f"{len(runs)} runs in {folder}, taking the latest, {runs[-1].parent.name}", file=sys.stderr)
    return runs[-1].parent


def load_trained(path: Path) -> Trained:
    """Rebuild the model of a checkpoint of train.py from the file alone.

    Raises:
        InputError: it is no such checkpoint, or its weights do not fit its configuration.
    """
    saved = load_checkpoint(path)
    config = read_config(saved["config"], str(path))
    dims = (saved["text_dim"], saved["audio_dim"])
    if not all(isinstance(dim, int) and dim > 0 for dim in dims):
        raise InputError(f"{path}: its dimensions are text {dims[0]!r}, audio {dims[1]!r}")
    names, data = saved["class_names"], saved.get("data", {})
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise InputError(f"{path}: its class names are {names!r}")
    if not isinstance(data, dict) or not all(isinstance(each, dict) for each in data.values()):
        raise InputError(f"{path}: does not name the data it was trained on")
    names = tuple(names)
    model = _load_weights(path, CemoBAM(config.model, *dims, len(names)), saved["weights"])
    return Trained(path, model, config, names, dims, saved.get("seed"), data)


def load_run(paths: Sequence[Path]) -> list[Trained]:
    """The models of a run's checkpoints.

    Raises:
        InputError: as :func:`load_trained`, or the configurations differ.
    """
    trained = [load_trained(path) for path in paths]
    for other in trained:
        if other.config != trained[0].config or other.class_names != trained[0].class_names:
            raise InputError(f"{other.path}: another configuration than {trained[0].path}")
    return trained


def load_official(path: Path, options: dict) -> Trained:
    """Rebuild the model of a state dict that the published code saved.

    Dimensions come from the shapes; dataset and fusion from ``options`` or the file's name (``ESD_HemoGAT_max.pt``); k
    from ``options`` or the dataset.

    Raises:
        InputError: it is no such state dict, or the dataset is unknown and k is not given.
    """
    state = load_weights_file(path)
    if "weights" in state and "config" in state:
        raise InputError(f"{path}: a checkpoint of train.py, which knows its profile; remove --profile")
    try:
        if not all(isinstance(value, Tensor) for value in state.values()):
            raise ValueError("not a state dict, which holds tensors alone")
        sizes = infer_dimensions(state)
        weights = from_official(state, sizes["num_layers"])
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
    from_name = {}
    words = path.stem.split("_")
    if words[0] in DATASETS:
        from_name["dataset"] = words[0]
    if words[-1] in FUSIONS:
        from_name["fusion_type"] = words[-1]
    settings = {"profile": "official", "dataset": "UNKNOWN"} | from_name | options
    if settings["dataset"] not in DATASETS and not {"k_text", "k_audio"} <= settings.keys():
        raise InputError(f"{path}: its dataset is not known from its name; add --dataset, or --k_text and --k_audio")
    network = {name: sizes[name] for name in ("hidden_dim", "heads", "num_layers")}
    config = make_config(settings | network)
    dims = (sizes["text_dim"], sizes["audio_dim"])
    model = _load_weights(path, CemoBAM(config.model, *dims, sizes["num_classes"]), weights)
    names = class_names(config.dataset, sizes["num_classes"], known_class_names(config.dataset, None))
    return Trained(path, model, config, names, dims, None, {})


def load_split(trained: Trained, split: str, given: str | None = None) -> Features:
    """A split's features, checked against the model: the given file, else that of the training, else that in the
    feature folder. A note is printed if the contents differ from those of the training.
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
    """Download the published features of the splits that are not where the training had them."""
    recorded = {split: trained.data.get(split, {}).get("path") for split in splits}
    absent = [split for split, path in recorded.items() if path is None or not Path(path).is_file()]
    if absent:
        fetch_features(Path(default_feature_dir()), trained.config.dataset, absent)


def _load_weights(path: Path, model: CemoBAM, weights: dict[str, Tensor]) -> CemoBAM:
    try:
        model.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        detail = str(error).strip().splitlines()[-1].strip()
        raise InputError(f"{path}: the weights do not fit their configuration ({detail})") from error
    return model.eval()
