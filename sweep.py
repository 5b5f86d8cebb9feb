"""Train every k_text x k_audio x seed, and select the best trial on validation (the paper's Fig. 2).

Finished runs are kept. Repeat the command to resume. Several commands at once share the runs.
"""

import argparse
import os
from functools import partial
from pathlib import Path

from utils.cli import (
    PATH_OPTIONS,
    add_config_options,
    add_jobs_option,
    add_shared_options,
    config_lines,
    given_paths,
    parse_shared_options,
)
from utils.config import ROOT, SEEDS, Config, default_save_path, make_config
from utils.errors import InputError, run_main
from utils.sweep.config import K_VALUES, K, as_published, check_address, sweep_name


def parse_args() -> tuple[argparse.Namespace, Config]:
    """The options of the command, and the configuration with the largest k."""
    parser = argparse.ArgumentParser(
        prog="selected_topK.sh",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    grid = parser.add_argument_group("grid (with --seeds)")
    doc = "values to try (default: 1 to 10)"
    grid_option = {"type": int, "nargs": "+", "default": list(K_VALUES), "metavar": "K", "help": doc}
    grid.add_argument("--k_text", dest="k_texts", **grid_option)
    grid.add_argument("--k_audio", dest="k_audios", **grid_option)
    add_shared_options(parser)
    add_jobs_option(parser)
    cluster = parser.add_argument_group("Ray cluster")
    cluster.add_argument("--ray", metavar="ADDRESS", help="address of the head node (host:port, or auto)")
    cluster.add_argument("--cpus_per_run", type=int, help="CPUs per run (default: 1)")
    cluster.add_argument("--gpus_per_run", type=float, help="GPUs per run, or a fraction (default: 1 if any)")
    add_config_options(parser.add_argument_group("configuration"), exclude=K)
    args, options = parse_shared_options(parser)
    for name in K:
        values = getattr(args, f"{name}s")
        if min(values) < 1 or len(set(values)) < len(values):
            raise InputError(f"--{name} {' '.join(map(str, values))}: must be distinct and at least 1")
        options[name] = max(values)
    check_cluster_options(args)
    config = make_config(as_published(options))
    for name, neighbors in zip(K, config.neighbors, strict=True):
        values = getattr(args, f"{name}s")
        if len(values) > 1 and not (config.model.has("ch_gat") and neighbors):  # every trial would be the same
            given = " ".join(map(str, values))
            raise InputError(f"--{name} {given}: has no effect with --ablation {config.model.ablation}; give one value")
    return args, config


def check_cluster_options(args: argparse.Namespace) -> None:
    """Raise an InputError for options that contradict each other, before anything is read or trained."""
    gpus = args.gpus_per_run
    if not args.ray and (args.cpus_per_run is not None or gpus is not None):
        raise InputError("--cpus_per_run and --gpus_per_run: only with --ray")
    if args.cpus_per_run is not None and args.cpus_per_run < 1:
        raise InputError(f"--cpus_per_run {args.cpus_per_run}: must be at least 1")
    if gpus is not None and not (0 <= gpus <= 1 or (gpus > 1 and gpus.is_integer())):
        raise InputError(f"--gpus_per_run {gpus:g}: must be a fraction from 0 to 1, or a whole number")
    if args.ray and args.device != "auto":
        raise InputError(f"--device {args.device}: with --ray, use --gpus_per_run (0 for CPUs only)")
    if args.ray and args.jobs > 1:
        raise InputError(f"--jobs {args.jobs}: with --ray, use --cpus_per_run")
    if args.ray:
        check_address(args.ray)


def main() -> int:
    args, config = parse_args()
    # torch and its dependents take seconds to import; --help and option errors do not wait for them
    from utils.device import describe, open_device
    from utils.sweep.ray_backend import train_on_ray
    from utils.sweep.results import training_command
    from utils.sweep.run import grid_runs, run_sweep
    from utils.training.graph import TrainingData
    from utils.training.jobs import train_here

    data = TrainingData.find(config, Path(args.feature_dir), given_paths(args), args.download, args.num_classes)
    folder = Path(args.save_path) / config.dataset / (args.model_name or sweep_name(config))
    if args.ray:
        train_all = partial(train_on_ray, address=args.ray, cpus=args.cpus_per_run or 1, gpus=args.gpus_per_run)
        where = f"Ray {args.ray}"
    else:
        device = open_device(args.device, config.matmul_precision)
        train_all, where = partial(train_here, device=device, jobs=args.jobs), describe(device)
    print(f"device {where}\nconfiguration\n{config_lines(config, exclude=('k_text', 'k_audio'))}")
    runs = grid_runs(config, folder, args.k_texts, args.k_audios, args.seeds, data)
    failed, selected = run_sweep(runs, folder, train_all)
    if selected:
        print(f"train the selected trial with: {training_command(selected, given_arguments(args))}")
    return 1 if failed else 0


def given_arguments(args: argparse.Namespace) -> dict[str, object]:
    """The features, folders, seeds and device, where they are not the defaults of train.py."""
    defaults = {
        **dict.fromkeys((*PATH_OPTIONS.values(), "num_classes")),
        "seeds": list(SEEDS),
        "device": "auto",
        "feature_dir": os.path.relpath(ROOT / "feature"),  # even if FEATURE_DIR names another folder here
        "save_path": default_save_path(),
    }
    return {name: getattr(args, name) for name, default in defaults.items() if getattr(args, name) != default}


if __name__ == "__main__":
    run_main(main)
