"""What eval.py needs of saved checkpoints: the models with their data, figures, a comparison with the training."""

from pathlib import Path

import torch

from utils.data.features import Features
from utils.data.published import published_checkpoint
from utils.errors import InputError
from utils.training.folder import read_metrics
from utils.training.graph import GraphData, check_neighbors, prepare
from utils.training.loop import embed
from utils.training.metrics import METRICS
from utils.training.trained import Trained, fetch_missing, find_checkpoints, load_official, load_run, load_split


def load_all(
    target: str, save_path: Path, download: bool, profile: str | None, options: dict
) -> tuple[Path, list[Trained]]:
    """The models to evaluate, all of one configuration, and their folder.

    Args:
        options: those given of a checkpoint of the published code.

    Raises:
        InputError: there are none, or the options do not fit them.
    """
    published = published_checkpoint(target, save_path, download)
    folder, paths = find_checkpoints(str(published or target), save_path)
    if published and profile not in (None, "official"):
        raise InputError(f"--profile {profile}: {target} is a checkpoint of the published code")
    if published or (profile == "official" and Path(target).is_file()):
        return folder, [load_official(paths[0], options)]
    if options:
        raise InputError(f"--{next(iter(options))}: only with --profile official; other checkpoints have their own")
    trained = load_run(paths)
    if profile not in (None, trained[0].config.profile):
        raise InputError(f"{trained[0].path}: trained with profile {trained[0].config.profile}, not {profile}")
    return folder, trained


def load_graph(
    trained: Trained, split: str, given: str | None, download: bool, device: torch.device
) -> tuple[Features, GraphData]:
    """The features of the split, ``given`` or as in training, and its graph."""
    config = trained.config
    with_train = config.graph_scope == "with_train" and split != "train"
    if download:
        fetch_missing(trained, ([] if given else [split]) + ["train"] * with_train)
    features = load_split(trained, split, given)
    train = load_split(trained, "train") if with_train else None
    check_neighbors(features, config, train)
    return features, prepare(features, config, device, train)


def draw(out: Path, split: str, trained: list[Trained], results: dict[str, dict], data: GraphData, name: str) -> None:
    """The confusion matrix over all models and the t-SNE of the first one."""
    from utils.plots import plot_confusion, plot_tsne  # matplotlib takes a second to import, which only this needs

    first = trained[0]
    confusions = [metrics["confusion"] for metrics in results.values()]
    over = f"mean of {len(trained)} seeds" if len(trained) > 1 else first.name
    plot_confusion(out / f"{split}_confusion_matrix.png", confusions, first.class_names, f"{name}\n{over}")
    print(f"\nsaved in {out}: {split}.json, {split}_confusion_matrix.png", end="")
    labels = data.scored_label.cpu().numpy()
    if len(labels) < 4:
        print(f"; no t-SNE of {len(labels)} utterances")
        return
    embeddings = embed(first.model, data).cpu().numpy()
    plot_tsne(out / f"{split}_tsne.png", embeddings, labels, first.class_names, f"{name}, {first.name}")
    print(f", {split}_tsne.png")


def compare_with_training(trained: Trained, metrics: dict, features: Features, split: str) -> None:
    """Print where the metrics on the same data differ from ``metrics.json``."""
    folder = trained.path.parent
    if trained.path.name != "best.pt" or not (folder / "metrics.json").is_file() or split == "train":
        return
    if trained.data[split]["sha256"] != features.sha256:
        return
    before = read_metrics(folder, trained.seed, trained.config.epochs)[split]
    for name, label in METRICS.items():
        if before[name] != metrics[name]:
            print(
                f"note: {trained.name}: {label} was {100 * before[name]:.2f} in training, "
                f"is {100 * metrics[name]:.2f} here (another device or library version?)"
            )
