"""Evaluate saved checkpoints: metrics, per-class recall, confusion matrix, t-SNE. The path is all that is needed."""

import argparse
from pathlib import Path

from models.xcbam import FUSIONS
from utils.checkpoints import Trained, find_checkpoints, load_official, load_run, load_split
from utils.cli import add_device_option
from utils.config import PROFILES, default_feature_dir, default_save_path, display_name
from utils.device import describe, pick_device, set_matmul_precision
from utils.engine import embed, evaluate
from utils.errors import InputError, reading, run_main
from utils.feature_info import info_path, read_info
from utils.features import SPLITS, Features
from utils.files import read_json, write_json
from utils.graph_data import check_neighbors, prepare
from utils.metrics import METRICS
from utils.overlap import overlap_lines
from utils.plots import plot_confusion, plot_tsne
from utils.published import fetch_features, published_checkpoint
from utils.report import graph_line, recall_table, results_table
from utils.runs import SEED_FOLDER

OFFICIAL_OPTIONS = ("dataset", "fusion_type", "k_text", "k_audio")


def parse_args() -> tuple[argparse.Namespace, dict]:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "target",
        nargs="?",
        default="DEMO",
        help="dataset (its latest run), run or seed folder, .pt file, or the name of one that the authors publish",
    )
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument("--test_path", help="feature pickle of the split (default: the one named in the checkpoint)")
    parser.add_argument("--save_path", default=default_save_path(), help="where the runs of a dataset are looked for")
    parser.add_argument("--download", action="store_true", help="fetch what the authors publish: checkpoint, features")
    parser.add_argument("--out", help="folder of the results (default: eval beside the checkpoints)")
    add_device_option(parser)
    official = parser.add_argument_group("checkpoints of the published code")
    official.add_argument("--profile", choices=PROFILES, help="official: the target is a plain state dict")
    official.add_argument("--dataset", default=argparse.SUPPRESS, help="default: from the file's name")
    official.add_argument("--fusion_type", choices=FUSIONS, default=argparse.SUPPRESS, help="likewise, else min")
    official.add_argument("--k_text", type=int, default=argparse.SUPPRESS, help="default: the dataset's")
    official.add_argument("--k_audio", type=int, default=argparse.SUPPRESS, help="default: the dataset's")
    args = vars(parser.parse_args())
    options = {name: args.pop(name) for name in OFFICIAL_OPTIONS if name in args}
    return argparse.Namespace(**args), options


def load_all(args: argparse.Namespace, options: dict) -> tuple[Path, list[Trained]]:
    """The models to evaluate, all of one configuration, and the folder that they lie in."""
    published = published_checkpoint(args.target, Path(args.save_path), args.download)
    folder, paths = find_checkpoints(str(published or args.target), Path(args.save_path))
    if published and args.profile not in (None, "official"):
        raise InputError(f"--profile {args.profile}: {args.target} is a checkpoint of the published code")
    if published or (args.profile == "official" and Path(args.target).is_file()):
        return folder, [load_official(paths[0], options)]
    if options:
        raise InputError(f"--{next(iter(options))}: the checkpoint has its own; only --profile official needs it")
    trained = load_run(paths)
    if args.profile not in (None, trained[0].config.profile):
        raise InputError(f"{trained[0].path}: trained with profile {trained[0].config.profile}, not {args.profile}")
    return folder, trained


def main() -> None:
    args, options = parse_args()
    folder, trained = load_all(args, options)
    first = trained[0]
    device = pick_device(args.device)
    if device.type == "cuda":  # a CPU evaluates what tf32 trained, in float32
        set_matmul_precision(first.config.matmul_precision, device)
    with_train = first.config.graph_scope == "with_train" and args.split != "train"
    if args.download:
        fetch_missing(first, ([] if args.test_path else [args.split]) + ["train"] * with_train)
    features = load_split(first, args.split, args.test_path)
    train = load_split(first, "train") if with_train else None
    check_neighbors(features, first.config, train)
    data = prepare(features, first.config, device, train)
    print(f"{len(trained)} checkpoint{'s' * (len(trained) > 1)} of {folder}\nfeatures {features.path}")
    print(f"device {describe(device)}")
    print(graph_line(args.split, data.graph, data.label))
    show_overlap(features, args.split)

    results = {each.name: evaluate(each.model.to(device), data) for each in trained}
    compare_with_training(trained, results, features, args.split)
    name = f"{display_name(first.config.dataset)} {args.split}, {run_label(folder, first)}"
    print(results_table(first.config, args.split, results, f"\n{name}, {len(features)} utterances (percent)"))
    print("\n" + recall_table(first.class_names, results))

    out = Path(args.out) if args.out else folder / ("eval" if first.seed is not None else f"{first.path.stem}_eval")
    contents = {"features": str(features.path), "class_names": first.class_names, **results}
    write_json(out / f"{args.split}.json", contents)
    confusions = [figures["confusion"] for figures in results.values()]
    over = f"mean of {len(trained)} seeds" if len(trained) > 1 else first.name
    plot_confusion(out / f"{args.split}_confusion_matrix.png", confusions, first.class_names, f"{name}\n{over}")
    print(f"\nsaved in {out}: {args.split}.json, {args.split}_confusion_matrix.png", end="")
    if len(features) < 4:
        print(f"; no t-SNE of {len(features)} utterances")
        return
    embeddings = embed(first.model, data).cpu().numpy()
    title = f"{name}, {first.name}\nlast hidden layer of the classifier"
    plot_tsne(out / f"{args.split}_tsne.png", embeddings, features.label.numpy(), first.class_names, title)
    print(f", {args.split}_tsne.png")


def fetch_missing(trained: Trained, splits: list[str]) -> None:
    """Fetch the published features of the splits that are not where the training had them."""
    recorded = {split: trained.data.get(split, {}).get("path") for split in splits}
    absent = [split for split, path in recorded.items() if path is None or not Path(path).is_file()]
    if absent:
        fetch_features(Path(default_feature_dir()), trained.config.dataset, absent)


def show_overlap(features: Features, split: str) -> None:
    """What test shares with train, where extract_features.py wrote it down beside these features."""
    info = read_info(features.path)
    if info is None or split != "test":
        return
    with reading(info_path(features.path), "its overlap report is damaged"):
        print(overlap_lines(info["overlap"]))


def run_label(folder: Path, trained: Trained) -> str:
    """What tables and figures call it: the run, or the file of the published code."""
    if trained.seed is None:
        return trained.path.name
    folder = folder.resolve()
    if folder.name == SEED_FOLDER.format(trained.seed):
        folder = folder.parent
    return f"run {folder.name}"


def compare_with_training(trained: list[Trained], results: dict[str, dict], features: Features, split: str) -> None:
    """Say whether the figures are those in ``metrics.json``, where the data is the same."""
    for each in trained:
        path = each.path.parent / "metrics.json"
        if each.path.name != "best.pt" or not path.is_file() or split == "train":
            continue
        if each.data[split]["sha256"] != features.sha256:
            continue
        before = read_json(path)[split]
        for name, label in METRICS.items():
            if before[name] != results[each.name][name]:
                print(
                    f"note: {each.name}: {label} was {100 * before[name]:.2f} in training, "
                    f"is {100 * results[each.name][name]:.2f} here (another device or library version?)"
                )


if __name__ == "__main__":
    run_main(main)
