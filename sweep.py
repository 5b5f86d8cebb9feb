"""Train every k_text x k_audio x seed and choose the best cell on validation (the paper's Fig. 2).

Finished cells are kept: the same command goes on where the last one ended, and two at once share the cells.
"""

import argparse
from functools import partial
from pathlib import Path

from utils.cli import PATH_OPTIONS, add_config_options, add_shared_options, parse_shared_options, read_setup
from utils.config import ROOT, SEEDS, Config, profile_defaults
from utils.device import describe
from utils.errors import InputError, run_main
from utils.sweep.grid import K_VALUES, as_published, grid, sweep_name, without_k
from utils.sweep.local import run_local
from utils.sweep.ray_backend import check_address, run_on_ray
from utils.sweep.results import training_command
from utils.sweep.run import run_sweep


def parse_args() -> tuple[argparse.Namespace, dict]:
    parser = argparse.ArgumentParser(
        prog="selected_topK.sh",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    values = parser.add_argument_group("grid (with --seeds)")
    for name in ("k_text", "k_audio"):
        values.add_argument(
            f"--{name}",
            dest=f"{name}s",
            type=int,
            nargs="+",
            default=list(K_VALUES),
            metavar="K",
            help="default: 1 to 10",
        )
    add_shared_options(parser)
    cluster = parser.add_argument_group("Ray cluster")
    cluster.add_argument("--ray", metavar="ADDRESS", help="train on the cluster with this head (host:port, or auto)")
    cluster.add_argument("--cpus_per_cell", type=int, help="default: 1")
    cluster.add_argument("--gpus_per_cell", type=float, help="a fraction shares a GPU (default: 1 if there are GPUs)")
    add_config_options(parser.add_argument_group("configuration"), leave_out=("k_text", "k_audio"))
    args, options = parse_shared_options(parser)
    for name in ("k_text", "k_audio"):
        values = getattr(args, f"{name}s")
        if min(values) < 1 or len(set(values)) < len(values):
            raise InputError(f"--{name} {' '.join(map(str, values))}: must be distinct, from 1 on")
        options[name] = max(values)
    check_cluster_options(args)
    return args, as_published(options)


def check_cluster_options(args: argparse.Namespace) -> None:
    """Raise an InputError for what contradicts itself or cannot be; nothing is trained yet."""
    gpus = args.gpus_per_cell
    if not args.ray and (args.cpus_per_cell is not None or gpus is not None):
        raise InputError("--cpus_per_cell and --gpus_per_cell: only with --ray")
    if args.cpus_per_cell is not None and args.cpus_per_cell < 1:
        raise InputError(f"--cpus_per_cell {args.cpus_per_cell}: must be at least 1")
    if gpus is not None and not (0 <= gpus <= 1 or (gpus > 1 and gpus.is_integer())):
        raise InputError(f"--gpus_per_cell {gpus:g}: a fraction of 1, or a whole number")
    if args.ray and args.device != "auto":
        raise InputError(f"--device {args.device}: with --ray, --gpus_per_cell says it (0: CPUs alone)")
    if args.ray:
        check_address(args.ray)


def main() -> int:
    args, options = parse_args()
    setup = read_setup(args, options, elsewhere=bool(args.ray))
    cells = grid(args.k_texts, args.k_audios, args.seeds)
    path = Path(args.save_path) / setup.config.dataset / (args.model_name or sweep_name(setup.config))
    if args.ray:
        train = partial(run_on_ray, args.ray, cpus=args.cpus_per_cell or 1, gpus=args.gpus_per_cell)
        where = f"Ray {args.ray}"
    else:
        train, where = partial(run_local, device=setup.device), describe(setup.device)
    failed, best = run_sweep(setup, path, cells, train, where)
    if best is not None:
        command = training_command(best, setup.config.dataset, given_options(args, setup.config))
        print(f"train the chosen cell with: {command}")
    return 1 if failed else 0


def given_options(args: argparse.Namespace, config: Config) -> dict:
    """The options that a training needs besides k to be this sweep's."""
    defaults = profile_defaults(config.profile, config.dataset)
    options = {n: v for n, v in without_k(config).items() if n != "dataset" and v != defaults[n]}
    if config.profile != "paper":
        options = {"profile": config.profile, **options}
    if args.seeds != list(SEEDS):
        options["seeds"] = args.seeds
    options |= {name: getattr(args, name) for name in (*PATH_OPTIONS.values(), "num_classes") if getattr(args, name)}
    if args.device != "auto":
        options["device"] = args.device
    for name, default in (("feature_dir", "feature"), ("save_path", "checkpoints")):
        if Path(getattr(args, name)).resolve() != ROOT / default:
            options[name] = getattr(args, name)
    return options


if __name__ == "__main__":
    run_main(main)
