"""Options that commands share. Needs no torch, so that a wrong option is reported at once."""

import argparse
import re
from collections.abc import Sequence
from dataclasses import Field
from pathlib import Path

from utils.config import (
    DATASETS,
    MAX_CLASSES,
    NAME,
    OPTIONS,
    PROFILES,
    SEEDS,
    Config,
    default_feature_dir,
    default_save_path,
)
from utils.errors import InputError

PATH_OPTIONS = {"train": "train_path", "val": "valid_path", "test": "test_path"}


def add_shared_options(parser: argparse.ArgumentParser) -> None:
    """Features, run folder, seeds and device."""
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
    group.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: CUDA if available")


def add_jobs_option(group) -> None:
    group.add_argument("--jobs", type=int, default=1, help="trainings at once, in processes of their own (default: 1)")


def add_config_options(parser: argparse.ArgumentParser, exclude: Sequence[str] = ()) -> None:
    """One option per field of the configuration and its model. Options that are not given leave no trace."""
    for name, f in OPTIONS.items():
        if name not in exclude:
            add_option(parser, f, _default_help(name))


def add_option(parser: argparse.ArgumentParser, f: Field, default: str) -> None:
    """The option of a field of :func:`models.config.option`; not given, it leaves no trace."""
    parser.add_argument(
        f"--{f.name}",
        type=type(f.default),
        choices=f.metadata["choices"] or None,
        default=argparse.SUPPRESS,
        help=f"{f.metadata['doc']} (default: {default})",
    )


def _default_help(name: str) -> str:
    """The default of an option: by profile or dataset where it differs."""
    default = OPTIONS[name].default
    by_profile = {profile: values.get(name, default) for profile, values in PROFILES.items()}
    if name == "epochs":
        return f"{_by_profile(by_profile)}; DEMO: {_by_profile(DATASETS['DEMO'].epochs)}"
    if len(set(by_profile.values())) > 1:
        return _by_profile(by_profile)
    if name in ("k_text", "k_audio"):
        by_dataset = [f"{dataset} {getattr(known, name)}" for dataset, known in DATASETS.items()]
        return ", ".join([*by_dataset, f"else {default}"])
    return str(default)


def _by_profile(values: dict[str, object]) -> str:
    return ", ".join(f"{profile} {value}" for profile, value in values.items())


def check_above_zero(args: argparse.Namespace, *names: str) -> None:
    """Raise an InputError for the first of these options that was given and is not above 0, or above a billion."""
    for name in names:
        if (value := getattr(args, name)) is not None and not 0 < value <= 1e9:
            raise InputError(f"--{name} {value}: must be above 0 and at most 1e9")


def check_seeds(seeds: Sequence[int]) -> None:
    """Raise an InputError unless the seeds are distinct and in the range that every generator takes."""
    if len(set(seeds)) < len(seeds) or not all(0 <= seed < 2**32 for seed in seeds):
        raise InputError(f"--seeds {' '.join(map(str, seeds))}: must be distinct, from 0 to 2^32 - 1")


def parse_options(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, dict]:
    """The options of the command, and the given ones of the configuration."""
    args = vars(parser.parse_args())
    options = {name: args.pop(name) for name in OPTIONS if name in args}
    return argparse.Namespace(**args), options


def parse_shared_options(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, dict]:
    """:func:`parse_options` of a parser with :func:`add_shared_options`, checked; the path of train names a dataset."""
    args, options = parse_options(parser)
    if args.model_name is not None and not re.fullmatch(NAME, args.model_name):
        raise InputError(f"--model_name {args.model_name}: must be a folder name of letters, digits and . _ - + =")
    if args.num_classes is not None and not 2 <= args.num_classes <= MAX_CLASSES:
        raise InputError(f"--num_classes {args.num_classes}: must be at least 2 and at most {MAX_CLASSES}")
    check_seeds(args.seeds)
    if "dataset" not in options and args.train_path:
        options = {"dataset": Path(args.train_path).stem.split("_BERT_WAV2VEC")[0].removesuffix("_train"), **options}
    return args, options


def given_paths(args: argparse.Namespace) -> dict[str, str | None]:
    """The features of :func:`add_shared_options` by split; None for the default."""
    return {split: getattr(args, option) for split, option in PATH_OPTIONS.items()}


def config_lines(config: Config, exclude: Sequence[str] = ()) -> str:
    """One option per line; those in which the profiles differ are marked."""
    values = {name: value for name, value in config.to_dict().items() if name not in exclude}
    width = max(map(len, values))
    marked = {"profile"}.union(*PROFILES.values())
    lines = [f"  {name:<{width}}  {value}{' *' if name in marked else ''}" for name, value in values.items()]
    return "\n".join([*lines, f"  (* differs between the profiles {', '.join(PROFILES)})"])
