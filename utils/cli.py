"""The options that commands share, and what they name: configuration, features, device."""

import argparse
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch

from utils.config import (
    DATASETS,
    NAME,
    OFFICIAL,
    SEEDS,
    Config,
    class_names,
    default_feature_dir,
    default_save_path,
    feature_path,
    known_class_names,
    make_config,
)
from utils.demo import write_demo
from utils.device import pick_device, set_matmul_precision
from utils.errors import InputError
from utils.feature_info import check_described, read_info
from utils.features import SPLITS, Features, load_splits
from utils.graph_data import check_neighbors_of_splits
from utils.paper import UTTERANCES
from utils.published import features_missing_error, fetch_features

PATH_OPTIONS = {"train": "train_path", "val": "valid_path", "test": "test_path"}


@dataclass(frozen=True)
class Setup:
    """What every training of a command shares."""

    config: Config
    splits: dict[str, Features]
    class_names: tuple[str, ...]
    device: torch.device


def add_shared_options(parser: argparse.ArgumentParser) -> None:
    files = parser.add_argument_group("files")
    files.add_argument("--train_path", help="default: <feature_dir>/<dataset>_BERT_WAV2VEC_train.pkl")
    files.add_argument("--valid_path", help="likewise, ..._val.pkl")
    files.add_argument("--test_path", help="likewise, ..._test.pkl")
    add_feature_options(files)
    files.add_argument("--save_path", default=default_save_path(), help="root of the run folders")
    files.add_argument("--model_name", help="default: the profile and every option that differs from it")
    run = parser.add_argument_group("run")
    run.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help=f"default: {' '.join(map(str, SEEDS))}")
    run.add_argument("--num_classes", type=int, help="default: the dataset's, else the greatest train label + 1")
    add_device_option(run)


def add_feature_options(group) -> None:
    group.add_argument("--feature_dir", default=default_feature_dir(), help="default: $FEATURE_DIR, or feature")
    group.add_argument("--download", action="store_true", help="fetch the published features of IEMOCAP or ESD")


def add_device_option(group) -> None:
    group.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: CUDA where there is")


def add_config_options(parser: argparse.ArgumentParser, leave_out: Sequence[str] = ()) -> None:
    """One option for each field; what is not given is left out of the namespace, for the profile to decide."""
    for f in fields(Config):
        if f.name in leave_out:
            continue
        doc = f.metadata["doc"]
        if f.name in OFFICIAL and f.name != "profile":
            doc += f" (default: {f.default}; official: {OFFICIAL[f.name]})"
        elif f.name in ("k_text", "k_audio", "epochs"):
            of = (f"{name} {value}" for name, each in DATASETS.items() if (value := getattr(each, f.name)) is not None)
            doc += f" (default: {', '.join(of)}, else {f.default})"
        else:
            doc += f" (default: {f.default})"
        parser.add_argument(
            f"--{f.name}",
            type=type(f.default),
            choices=f.metadata.get("choices"),
            default=argparse.SUPPRESS,
            help=doc,
        )


def check_above_zero(args: argparse.Namespace, *names: str) -> None:
    """Raise an InputError for the first of these options that was given and is not a finite number above 0."""
    for name in names:
        if (value := getattr(args, name)) is not None and not 0 < value < math.inf:
            raise InputError(f"--{name} {value}: must be above 0")


def parse_options(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, dict]:
    """The options of the command, and those of the configuration that were given."""
    args = vars(parser.parse_args())
    options = {f.name: args.pop(f.name) for f in fields(Config) if f.name in args}
    return argparse.Namespace(**args), options


def parse_shared_options(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, dict]:
    """:func:`parse_options` of a parser with :func:`add_shared_options`, checked."""
    args, options = parse_options(parser)
    if args.model_name is not None and not re.fullmatch(NAME, args.model_name):
        raise InputError(f"--model_name {args.model_name}: a folder name of letters, digits and . _ - + =")
    if args.num_classes is not None and args.num_classes < 2:
        raise InputError(f"--num_classes {args.num_classes}: must be at least 2")
    check_seeds(args.seeds)
    return args, options


def check_seeds(seeds: Sequence[int]) -> None:
    if len(set(seeds)) < len(seeds) or not all(0 <= seed < 2**63 for seed in seeds):
        raise InputError(f"--seeds {' '.join(map(str, seeds))}: must be distinct, from 0 to 2^63 - 1")


def read_setup(args: argparse.Namespace, options: dict, elsewhere: bool = False) -> Setup:
    """Make the configuration, pick the device, read and check the features.

    Args:
        elsewhere: other machines train, so that this one's device need not be able to.
    """
    config = make_config({**options, "dataset": _dataset(args, options)})
    device = pick_device(args.device)
    if not elsewhere:
        set_matmul_precision(config.matmul_precision, device)
    paths = _feature_paths(args, config.dataset)
    info = read_info(paths["train"])
    names = known_class_names(config.dataset, info)
    splits, num_classes = load_splits(paths, args.num_classes or (len(names) if names else None))
    for split, features in splits.items():
        check_described(features, split, names)
    check_neighbors_of_splits(splits, config)
    return Setup(config, splits, class_names(config.dataset, num_classes, names), device)


def _dataset(args: argparse.Namespace, options: dict) -> str:
    """The dataset's name: as given, else what stands before ``_BERT_WAV2VEC`` in the train file's name."""
    if "dataset" in options or args.train_path is None:
        return options.get("dataset", "DEMO")
    return Path(args.train_path).stem.split("_BERT_WAV2VEC")[0].removesuffix("_train")


def _feature_paths(args: argparse.Namespace, dataset: str) -> dict[str, Path]:
    """The file of each split; DEMO's are made anew, so that they are always those of this version."""
    given = {split: getattr(args, option) for split, option in PATH_OPTIONS.items()}
    paths = {split: Path(given[split] or feature_path(args.feature_dir, dataset, split)) for split in SPLITS}
    if dataset == "DEMO" and not any(given.values()):
        print(f"making the synthetic DEMO features in {args.feature_dir}")
        write_demo(Path(args.feature_dir))
    if args.download:
        if any(given.values()):
            raise InputError("--download: fetches into --feature_dir; leave the paths of the splits out")
        fetch_features(Path(args.feature_dir), dataset)
    missing = [path for split, path in paths.items() if not path.is_file()]
    if missing and dataset in UTTERANCES and not any(given.values()):
        raise features_missing_error(dataset, missing)
    for split, path in paths.items():
        if path in missing:
            raise InputError(f"{path}: no such file; it should hold the {split} features of {dataset}")
    return paths
