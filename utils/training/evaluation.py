"""Evaluation of saved checkpoints for eval.py: models, data, figures, and a comparison with the training."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from utils.data.features import Features
from utils.data.published import published_checkpoint
from utils.errors import InputError
from utils.training.calibration import reliability, risk_coverage
from utils.training.folder import read_metrics
from utils.training.graph import GraphData, check_neighbors, prepare
from utils.training.loop import embed, evaluate
from utils.training.metrics import METRICS
from utils.training.trained import (
    Trained,
    fetch_missing,
    find_checkpoints,
    load_official,
    load_run,
    load_split,
    model_file,
)


def load_all(
    target: str, save_path: Path, download: bool, profile: str | None, options: dict
) -> tuple[Path, list[Trained]]:
    """Load the models to evaluate, all with the same configuration. Returns their folder and the models.

    Args:
        options: the given options for a checkpoint of the published code.

    Raises:
        InputError: no model is found, or the options do not fit the models.
    """
    published = published_checkpoint(target, save_path, download)
    folder, paths = find_checkpoints(str(published or target), save_path)
    if published and profile not in (None, "official"):
        raise InputError(f"--profile {profile}: {target} is a checkpoint of the published code")
    if published or (profile == "official" and Path(target).is_file()):
        return folder, [load_official(paths[0], options)]
    if options:
        raise InputError(f"--{next(iter(options))}: only with --profile official; other checkpoints store this option")
    trained = load_run(paths)
    if profile not in (None, trained[0].config.profile):
        raise InputError(f"{trained[0].path}: trained with profile {trained[0].config.profile}, not {profile}")
    return folder, trained


def load_graph(
    trained: Trained, split: str, given: str | None, download: bool, device: torch.device
) -> tuple[Features, GraphData]:
    """The features of a split (from ``given``, or as in training) and its graph."""
    config = trained.config
    whole = config.model.has("text") and config.model.has("audio")
    needs_train = split != "train" and (config.graph_scope == "with_train" or not whole)
    if download:
        fetch_missing(trained, ([] if given else [split]) + ["train"] * needs_train)
    features = load_split(trained, split, given)
    train = load_split(trained, "train") if needs_train else None
    check_neighbors(features, config, train)
    return features, prepare(features, config, device, train)


def evaluate_all(
    trained: list[Trained], data: GraphData, device: torch.device
) -> tuple[dict[str, dict], dict[str, Tensor]]:
    """Metrics and logits [N, C] of each model, by its name.

    Raises:
        InputError: logits are not finite.
    """
    found = {each.name: evaluate(each.model.to(device), data) for each in trained}
    for each in trained:
        if not found[each.name][1].isfinite().all():
            raise InputError(f"{each.path}: the logits are not finite; the checkpoint may be damaged")
    results, logits = ({name: both[i] for name, both in found.items()} for i in range(2))
    return results, logits


def draw(
    out: Path,
    split: str,
    trained: list[Trained],
    results: dict[str, dict],
    probability: dict[str, np.ndarray],
    data: GraphData,
    name: str,
) -> list[str]:
    """Draw the confusion matrix and the calibration of all models, and the t-SNE of the first model.

    Args:
        probability: "plain" and "scaled", [S, N, C].

    Returns:
        The names of the figures.
    """
    from utils import plots  # matplotlib takes a second to import, which only this needs

    first = trained[0]
    label = data.scored_label.cpu().numpy()
    over = f"pooled over {len(trained)} seeds" if len(trained) > 1 else first.name
    confusions = [metrics["confusion"] for metrics in results.values()]
    plots.plot_confusion(out / f"{split}_confusion_matrix.png", confusions, first.class_names, f"{name}\n{over}")
    shown = {"plain softmax (T = 1)": probability["plain"]}
    if any(each.temperature != 1 for each in trained):
        shown["at the fitted temperature"] = probability["scaled"]
    pooled = {kind: reliability(of_kind, label).sum(1) for kind, of_kind in shown.items()}
    plots.plot_reliability(out / f"{split}_reliability.png", pooled, f"Reliability, {name}\n{over}")
    risks = dict(zip(results, risk_coverage(probability["scaled"], label), strict=True))
    plots.plot_risk_coverage(out / f"{split}_risk_coverage.png", risks, f"Risk over coverage, {name}")
    drawn = [f"{split}_confusion_matrix", f"{split}_reliability", f"{split}_risk_coverage"]
    if len(label) < plots.TSNE_LEAST:
        print(f"\nno t-SNE: {len(label)} utterances, at least {plots.TSNE_LEAST} are needed")
        return drawn
    embeddings = embed(first.model, data).cpu().numpy()
    plots.plot_tsne(out / f"{split}_tsne.png", embeddings, label, first.class_names, f"{name}, {first.name}")
    return [*drawn, f"{split}_tsne"]


def compare_with_training(trained: Trained, metrics: dict, features: Features, split: str) -> None:
    """Print the metrics that differ from ``metrics.json`` although the data is the same."""
    folder = trained.path.parent
    if trained.path != model_file(folder) or not (folder / "metrics.json").is_file() or split == "train":
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
