"""Train one configuration over several seeds and print mean ± std beside the paper's numbers."""

import argparse
import re
from pathlib import Path

from utils.config import (
    DATASETS,
    NAME,
    SEEDS,
    add_config_options,
    class_names,
    default_feature_dir,
    default_save_path,
    display_name,
    feature_path,
    make_config,
    run_name,
)
from utils.demo import write_demo
from utils.device import describe, pick_device
from utils.engine import build_model
from utils.errors import InputError, run_main
from utils.experiment import Experiment, finished_seeds, open_run, read_curves, run_seed, summarise
from utils.features import SPLITS, load_splits
from utils.graph_data import check_neighbors, prepare
from utils.plots import plot_training_curves
from utils.report import config_lines, graph_line, results_table

PATH_OPTIONS = {"train": "train_path", "val": "valid_path", "test": "test_path"}


def parse_args() -> tuple[argparse.Namespace, dict]:
    """The options of the run, and those of the configuration that were given."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    files = parser.add_argument_group("files")
    files.add_argument("--train_path", help="default: <feature_dir>/<dataset>_BERT_WAV2VEC_train.pkl")
    files.add_argument("--valid_path", help="likewise, ..._val.pkl")
    files.add_argument("--test_path", help="likewise, ..._test.pkl")
    files.add_argument("--feature_dir", default=default_feature_dir(), help="default: $FEATURE_DIR, or feature")
    files.add_argument("--save_path", default=default_save_path(), help="root of the run folders")
    files.add_argument("--model_name", help="default: the profile and every option that differs from it")
    run = parser.add_argument_group("run")
    run.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    run.add_argument("--num_classes", type=int, help="default: the dataset's, else the greatest train label + 1")
    run.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    existing = run.add_mutually_exclusive_group()
    existing.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    existing.add_argument("--overwrite", action="store_true", help="train again where the run folder exists")
    add_config_options(parser.add_argument_group("configuration"))
    args = vars(parser.parse_args())
    runtime = {a.dest: args.pop(a.dest) for group in (files, run) for a in group._group_actions}
    return argparse.Namespace(**runtime), args


def dataset_of(args: argparse.Namespace, options: dict) -> str:
    """The dataset's name: as given, else what stands before ``_BERT_WAV2VEC`` in the train file's name."""
    if "dataset" in options or args.train_path is None:
        return options.get("dataset", "DEMO")
    return Path(args.train_path).stem.split("_BERT_WAV2VEC")[0].removesuffix("_train")


def feature_paths(args: argparse.Namespace, dataset: str) -> dict[str, Path]:
    """The file of each split; DEMO's are made anew, so that they are always those of this version."""
    given = {split: getattr(args, option) for split, option in PATH_OPTIONS.items()}
    paths = {split: Path(given[split] or feature_path(args.feature_dir, dataset, split)) for split in SPLITS}
    if dataset == "DEMO" and not any(given.values()):
        print(f"making the synthetic DEMO features in {args.feature_dir}")
        write_demo(Path(args.feature_dir))
    for split, path in paths.items():
        if not path.is_file():
            raise InputError(f"{path}: no such file; it should hold the {split} features of {dataset}")
    return paths


def main() -> None:
    args, options = parse_args()
    check_runtime(args)
    options["dataset"] = dataset_of(args, options)
    config = make_config(options)
    device = pick_device(args.device)

    known = DATASETS.get(config.dataset)
    num_classes = args.num_classes or (len(known.class_names) if known else None)
    splits, num_classes = load_splits(feature_paths(args, config.dataset), num_classes)
    names = class_names(config.dataset, num_classes)
    folder = Path(args.save_path) / config.dataset / (args.model_name or run_name(config))
    experiment = Experiment(config, folder, splits, names, device)

    print(f"run folder {folder}\ndevice {describe(device)}\nconfiguration")
    print(config_lines(config))
    parameters = sum(p.numel() for p in build_model(config, *experiment.dims, num_classes).parameters())
    print(f"classes {', '.join(names)}\nembeddings text {experiment.dims[0]}, audio {experiment.dims[1]}")
    print(f"parameters {parameters:,}")
    for split, features in splits.items():
        check_neighbors(features, config, splits["train"] if split != "train" else None)
    open_run(experiment, args.seeds, args.resume, args.overwrite)
    train = prepare(splits["train"], config, device)
    val = prepare(splits["val"], config, device, splits["train"])
    print(graph_line("train", train.graph, train.label))
    print(graph_line("val", val.graph, val.label))

    for i, seed in enumerate(args.seeds, 1):
        run_seed(experiment, seed, train, val, title=f"seed {seed} ({i}/{len(args.seeds)})")
    per_seed = finished_seeds(folder)  # those of earlier commands too, as in run_eval.sh
    summarise(experiment, per_seed)
    plot_training_curves(
        folder / "training_curves.png",
        read_curves(folder, list(per_seed)),
        {seed: metrics["selected_epoch"] for seed, metrics in per_seed.items()},
        title=f"{display_name(config.dataset)}, run {folder.name}",
    )
    title = f"\n{display_name(config.dataset)} test, {len(splits['test'])} utterances, run {folder.name} (percent)"
    print(results_table(config, {f"seed {seed}": metrics["test"] for seed, metrics in per_seed.items()}, title))
    print(f"\nsaved in {folder}: a folder a seed, summary.json, training_curves.png")
    print(f"evaluate with: bash run_eval.sh {folder}")


def check_runtime(args: argparse.Namespace) -> None:
    if args.model_name is not None and not re.fullmatch(NAME, args.model_name):
        raise InputError(f"--model_name {args.model_name}: a folder name of letters, digits and . _ - + =")
    if args.num_classes is not None and args.num_classes < 2:
        raise InputError(f"--num_classes {args.num_classes}: must be at least 2")
    if len(set(args.seeds)) < len(args.seeds) or not all(0 <= seed < 2**63 for seed in args.seeds):
        raise InputError(f"--seeds {' '.join(map(str, args.seeds))}: must be distinct, from 0 to 2^63 - 1")


if __name__ == "__main__":
    run_main(main)
