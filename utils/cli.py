"""Options that the commands share. Does not import torch, so that a wrong option is reported at once."""

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
    """Add the options for features, run folder, seeds and device."""
    files = parser.add_argument_group("files")
    files.add_argument("--train_path", help="train features (default: <feature_dir>/<dataset>_BERT_WAV2VEC_train.pkl)")
    files.add_argument("--valid_path", help="val features (default: <feature_dir>/<dataset>_BERT_WAV2VEC_val.pkl)")
    files.add_argument("--test_path", help="test features (default: <feature_dir>/<dataset>_BERT_WAV2VEC_test.pkl)")
    add_feature_options(files)
    files.add_argument(
        "--save_path", default=default_save_path(), help="parent folder of the run folders (default: %(default)s)"
    )
    files.add_argument(
        "--model_name", help="name of the run folder (default: from the profile and the options that differ from it)"
    )
    run = parser.add_argument_group("run")
    seeds = f"one training per seed (default: {' '.join(map(str, SEEDS))})"
    run.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help=seeds)
    classes = "number of classes (default: that of a known dataset, otherwise the greatest train label + 1)"
    run.add_argument("--num_classes", type=int, help=classes)
    add_device_option(run)


def add_feature_options(group) -> None:
    folder = "folder of the features (default: $FEATURE_DIR, or feature)"
    group.add_argument("--feature_dir", default=default_feature_dir(), help=folder)
    group.add_argument("--download", action="store_true", help="download the published features of IEMOCAP or ESD")


def add_device_option(group) -> None:
    device = "device to use; auto selects CUDA if it is available (default: auto)"
    group.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help=device)


def add_run_encoder_options(group) -> None:
    """Add the options for the folders of a run's encoders."""
    for name in ("text", "audio"):
        folder = f"folder of the run's {name} encoder on this machine (default: as in training)"
        group.add_argument(f"--{name}_model", help=folder)


def add_jobs_option(group) -> None:
    group.add_argument(
        "--jobs", type=int, default=1, help="number of parallel trainings, one process each (default: 1)"
    )


def add_config_options(parser: argparse.ArgumentParser, exclude: Sequence[str] = ()) -> None:
    """Add one option per field of the configuration and its model. Options that are not given are not in the result."""
    for name, f in OPTIONS.items():
        if name not in exclude:
            add_option(parser, f, _default_help(name))


def add_option(parser: argparse.ArgumentParser, f: Field, default: str) -> None:
    """Add the option of a field from :func:`models.config.option`. If it is not given, it is not in the result."""
    parser.add_argument(
        f"--{f.name}",
        type=type(f.default),
        choices=f.metadata["choices"] or None,
        default=argparse.SUPPRESS,
        help=f"{f.metadata['doc']} (default: {default})",
    )


def _default_help(name: str) -> str:
    """Describe the default of an option, by profile or dataset if these differ."""
    default = OPTIONS[name].default
    by_profile = {profile: values.get(name, default) for profile, values in PROFILES.items()}
    if name == "epochs":
        return f"{_by_profile(by_profile)}; DEMO: {_by_profile(DATASETS['DEMO'].epochs)}"
    if len(set(by_profile.values())) > 1:
        return _by_profile(by_profile)
    if name in ("k_text", "k_audio"):
        by_dataset = [f"{dataset} {getattr(known, name)}" for dataset, known in DATASETS.items()]
        return ", ".join([*by_dataset, f"otherwise {default}"])
    return str(default)


def _by_profile(values: dict[str, object]) -> str:
    return ", ".join(f"{profile} {value}" for profile, value in values.items())


def check_above_zero(args: argparse.Namespace, *names: str) -> None:
    """Raise an InputError for the first given option that is not above 0 and at most 1e9."""
    for name in names:
        if (value := getattr(args, name)) is not None and not 0 < value <= 1e9:
            raise InputError(f"--{name} {value}: must be above 0 and at most 1e9")


def check_seeds(seeds: Sequence[int]) -> None:
    """Raise an InputError unless the seeds are distinct and in the range that every generator accepts."""
    if len(set(seeds)) < len(seeds) or not all(0 <= seed < 2**32 for seed in seeds):
        raise InputError(f"--seeds {' '.join(map(str, seeds))}: must be distinct, from 0 to 2^32 - 1")


def parse_options(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, dict]:
    """Parse the command line, and check the options ``--seeds`` and ``--jobs`` if the command has them.

    Returns:
        The options of the command, and the given options of the configuration.
    """
    args = vars(parser.parse_args())
    options = {name: args.pop(name) for name in OPTIONS if name in args}
    args = argparse.Namespace(**args)
    check_seeds(getattr(args, "seeds", None) or ())
    if "jobs" in args:
        check_above_zero(args, "jobs")
    return args, options


def parse_shared_options(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, dict]:
    """:func:`parse_options` plus checks of :func:`add_shared_options`. --train_path gives the default dataset name."""
    args, options = parse_options(parser)
    if args.model_name is not None and not re.fullmatch(NAME, args.model_name):
        raise InputError(f"--model_name {args.model_name}: must consist of letters, digits and . _ - + =")
    if args.num_classes is not None and not 2 <= args.num_classes <= MAX_CLASSES:
        raise InputError(f"--num_classes {args.num_classes}: must be at least 2 and at most {MAX_CLASSES}")
    if "dataset" not in options and args.train_path:
        options = {"dataset": Path(args.train_path).stem.split("_BERT_WAV2VEC")[0].removesuffix("_train"), **options}
    return args, options


def given_paths(args: argparse.Namespace) -> dict[str, str | None]:
    """The paths given with :func:`add_shared_options`, by split; None for the default."""
    return {split: getattr(args, option) for split, option in PATH_OPTIONS.items()}


def config_lines(config: Config, exclude: Sequence[str] = ()) -> str:
    """Format one option per line. Options in which the profiles differ are marked."""
    values = {name: value for name, value in config.to_dict().items() if name not in exclude}
    width = max(map(len, values))
    marked = {"profile"}.union(*PROFILES.values())
    lines = [f"  {name:<{width}}  {value}{' *' if name in marked else ''}" for name, value in values.items()]
    return "\n".join([*lines, f"  (* differs between the profiles {', '.join(PROFILES)})"])
