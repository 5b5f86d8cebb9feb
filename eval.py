"""Evaluate saved checkpoints: metrics, per-class recall, confusion matrix, t-SNE. The path is all that is needed."""

import argparse
from pathlib import Path

import torch

from models.config import FUSIONS
from utils.cli import add_device_option
from utils.config import PROFILES, default_save_path, display_name
from utils.data.features import SPLITS, Features, info_path, read_info
from utils.data.leakage import leakage_lines
from utils.data.published import published_checkpoint
from utils.device import describe, pick_device, set_matmul_precision
from utils.errors import InputError, printable, reading, run_main
from utils.io import write_json
from utils.plots import plot_confusion, plot_tsne
from utils.training.folder import read_metrics
from utils.training.graph import GraphData, check_neighbors, prepare
from utils.training.loop import embed, evaluate
from utils.training.metrics import METRICS, recall_table, results_table
from utils.training.trained import Trained, fetch_missing, find_checkpoints, load_official, load_run, load_split

OFFICIAL_OPTIONS = ("dataset", "fusion_type", "k_text", "k_audio")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "target",
        nargs="?",
        default="DEMO",
        help="dataset (its latest run), run or seed folder, .pt file, or the name of a published checkpoint",
    )
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument("--test_path", help="feature pickle of the split (default: the one named in the checkpoint)")
    parser.add_argument("--save_path", default=default_save_path(), help="root of the run folders")
    parser.add_argument("--download", action="store_true", help="fetch the published checkpoint and features")
    parser.add_argument("--out", help="folder of the results (default: eval beside the checkpoints)")
    add_device_option(parser)
    official = parser.add_argument_group("checkpoints of the published code")
    official.add_argument("--profile", choices=PROFILES, help="official: the target is a plain state dict")
    official.add_argument("--dataset", help="default: from the file's name")
    official.add_argument("--fusion_type", choices=FUSIONS, help="likewise, else min")
    official.add_argument("--k_text", type=int, help="default: the dataset's")
    official.add_argument("--k_audio", type=int, help="default: the dataset's")
    return parser.parse_args()


def load_all(args: argparse.Namespace) -> tuple[Path, list[Trained]]:
    """The models to evaluate, all of one configuration, and their folder."""
    options = {name: getattr(args, name) for name in OFFICIAL_OPTIONS if getattr(args, name) is not None}
    published = published_checkpoint(args.target, Path(args.save_path), args.download)
    folder, paths = find_checkpoints(str(published or args.target), Path(args.save_path))
    if published and args.profile not in (None, "official"):
        raise InputError(f"--profile {args.profile}: {args.target} is a checkpoint of the published code")
    if published or (args.profile == "official" and Path(args.target).is_file()):
        return folder, [load_official(paths[0], options)]
    if options:
        raise InputError(f"--{next(iter(options))}: only with --profile official; other checkpoints have their own")
    trained = load_run(paths)
    if args.profile not in (None, trained[0].config.profile):
        raise InputError(f"{trained[0].path}: trained with profile {trained[0].config.profile}, not {args.profile}")
    return folder, trained


def load_graph(trained: Trained, args: argparse.Namespace, device: torch.device) -> tuple[Features, GraphData]:
    """The features of the split and its graph."""
    config = trained.config
    with_train = config.graph_scope == "with_train" and args.split != "train"
    if args.download:
        fetch_missing(trained, ([] if args.test_path else [args.split]) + ["train"] * with_train)
    features = load_split(trained, args.split, args.test_path)
    train = load_split(trained, "train") if with_train else None
    check_neighbors(features, config, train)
    return features, prepare(features, config, device, train)


def main() -> None:
    args = parse_args()
    folder, trained = load_all(args)
    first = trained[0]
    config = first.config
    device = pick_device(args.device)
    if device.type == "cuda":  # a CPU evaluates in float32 what TF32 trained
        set_matmul_precision(config.matmul_precision, device)
    features, data = load_graph(first, args, device)
    print(f"{len(trained)} checkpoint{'s' * (len(trained) > 1)} of {folder}\nfeatures {printable(str(features.path))}")
    print(f"device {describe(device)}\n{data.line(args.split)}")
    if args.split == "test" and (info := read_info(features.path)):
        with reading(info_path(features.path), "its leakage report is damaged"):
            print(leakage_lines(info["leakage"]))

    results = {each.name: evaluate(each.model.to(device), data) for each in trained}
    for each in trained:
        compare_with_training(each, results[each.name], features, args.split)
    run = first.path.name if first.seed is None else f"run {first.run_folder.name}"
    name = f"{display_name(config.dataset)} {args.split}, {run}"
    print(results_table(config, args.split, results, f"\n{name}, {len(features)} utterances (percent)"))
    print("\n" + recall_table(first.class_names, results))

    out = Path(args.out) if args.out else folder / ("eval" if first.seed is not None else f"{first.path.stem}_eval")
    contents = {"features": str(features.path), "class_names": first.class_names, **results}
    write_json(out / f"{args.split}.json", contents)
    draw(out, args.split, trained, results, data, name)


def draw(out: Path, split: str, trained: list[Trained], results: dict[str, dict], data: GraphData, name: str) -> None:
    """The confusion matrix over all models and the t-SNE of the first one."""
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


if __name__ == "__main__":
    run_main(main)
