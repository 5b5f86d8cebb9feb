"""Train every k_text x k_audio x seed and choose the best cell on validation (the paper's Fig. 2).

Finished cells are kept: the same command goes on where the last one ended, and two at once share the cells.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from utils.cli import PATH_OPTIONS, Setup, add_shared_options, parse, read_setup
from utils.config import (
    ROOT,
    SEEDS,
    add_config_options,
    display_name,
    profile_defaults,
    run_name,
)
from utils.device import describe
from utils.errors import InputError, run_main
from utils.graph_data import find_neighbors
from utils.plots import plot_topk_grid
from utils.report import config_lines
from utils.runs import describe_run
from utils.sweep.folder import SweepFolder
from utils.sweep.grid import K_VALUES, Cell, SweepData, grid
from utils.sweep.local import run_local
from utils.sweep.progress import Progress
from utils.sweep.ray_backend import check_address, run_on_ray
from utils.sweep.results import (
    best_cell,
    cell_table,
    papers_cell,
    report,
    summary_table,
    training_command,
    write_tables,
)


def parse_args(argv: Sequence[str] | None) -> tuple[argparse.Namespace, dict]:
    parser = argparse.ArgumentParser(
        prog="selected_topK.sh",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    values = parser.add_argument_group("grid (with --seeds)")
    for name in ("k_text", "k_audio"):
        values.add_argument(f"--{name}", dest=f"{name}s", type=int, nargs="+", default=list(K_VALUES), metavar="K")
    add_shared_options(parser)
    cluster = parser.add_argument_group("Ray cluster")
    cluster.add_argument("--ray", metavar="ADDRESS", help="train on the cluster with this head (host:port, or auto)")
    cluster.add_argument("--cpus_per_cell", type=int, help="default: 1")
    cluster.add_argument("--gpus_per_cell", type=float, help="a fraction shares a GPU (default: 1 if there are GPUs)")
    add_config_options(parser.add_argument_group("configuration"), leave_out=("k_text", "k_audio"))
    args, options = parse(parser, argv)
    for name in ("k_text", "k_audio"):
        values = getattr(args, f"{name}s")
        if min(values) < 1 or len(set(values)) < len(values):
            raise InputError(f"--{name} {' '.join(map(str, values))}: must be distinct, from 1 on")
        options[name] = max(values)
    check_cluster_options(args)
    return args, options


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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sweep that ``argv`` asks for, by default the command line. Returns the exit code."""
    args, options = parse_args(argv)
    setup = read_setup(args, options, elsewhere=bool(args.ray))
    config = setup.config
    cells = grid(args.k_texts, args.k_audios, args.seeds)
    path = Path(args.save_path) / config.dataset / (args.model_name or sweep_name(setup))
    folder = SweepFolder(path, describe_sweep(setup))
    print(f"sweep folder {path}\ndevice {'Ray ' + args.ray if args.ray else describe(setup.device)}\nconfiguration")
    print(config_lines(config, leave_out=("k_text", "k_audio")))
    kept = {cell for cell in cells if folder.is_done(cell)}
    size = f"{len(args.k_texts)} x {len(args.k_audios)} values of k, {len(args.seeds)} seeds: {len(cells)} cells"
    print(size + (f", {len(kept)} of them finished before" if kept else ""))
    try:
        train_cells(args, setup, folder, cells, kept)
    except KeyboardInterrupt:
        finished = sum("error" not in result for result in folder.results(cells))
        print(f"{finished} of {len(cells)} cells are done and kept; the same command goes on", file=sys.stderr)
        raise
    with folder.exclusive():
        return conclude(args, setup, folder.results(cells), path)


def train_cells(
    args: argparse.Namespace, setup: Setup, folder: SweepFolder, cells: list[Cell], kept: set[Cell]
) -> None:
    """Train what is left, here or on the cluster, under a progress bar."""
    config, splits = setup.config, setup.splits
    left = [cell for cell in cells if cell not in kept]
    if not left:
        return
    nodes = {s: find_neighbors(f, config, splits["train"] if s != "train" else None) for s, f in splits.items()}
    data = SweepData(config, nodes, len(setup.class_names))
    progress = Progress(config.epochs, len(cells), folder.results(kept))
    try:
        if args.ray:
            run_on_ray(args.ray, data, folder, left, progress, args.cpus_per_cell or 1, args.gpus_per_cell)
        else:
            run_local(data, folder, left, progress, setup.device)
    finally:
        progress.close()


def sweep_name(setup: Setup) -> str:
    """``topk-`` and the name of a run, in which k has no part."""
    own = profile_defaults(setup.config.profile, setup.config.dataset)
    return "topk-" + run_name(dataclasses.replace(setup.config, k_text=own["k_text"], k_audio=own["k_audio"]))


def describe_sweep(setup: Setup) -> dict:
    """As of a run; the folder may take any k and seed."""
    config = {k: v for k, v in dataclasses.asdict(setup.config).items() if k not in ("k_text", "k_audio")}
    return describe_run(config, setup.splits, setup.splits["train"].dims, setup.class_names)


def conclude(args: argparse.Namespace, setup: Setup, results: list[dict], path: Path) -> int:
    """Write the tables and the figure, print the report. Returns the exit code, 1 where a cell failed."""
    dataset, seeds = setup.config.dataset, len(args.seeds)
    cells = cell_table(results)
    summary = summary_table(cells)
    write_tables(path, cells, summary)
    best = best_cell(summary, seeds)
    title = f"{display_name(dataset)}, {path.name}, {seeds} seed{'s' * (seeds > 1)}"
    plot_topk_grid(path / "topk_grid.png", summary, best, papers_cell(summary, dataset), title)
    print(f"\n{title} (percent)\n{report(summary, dataset, seeds)}")
    print(f"saved in {path}: sweep.csv, sweep_summary.csv, topk_grid.png")
    if best is not None:
        print(f"train the chosen cell with: {training_command(best, dataset, given_options(args, setup))}")
    failed = [r for r in results if "error" in r]
    for r in failed:
        print(f"failed: {Cell(r['k_text'], r['k_audio'], r['seed'])}: {r['error']}")
    if failed:
        print(f"{len(failed)} of {len(results)} cells failed; the same command tries them again")
    return 1 if failed else 0


def given_options(args: argparse.Namespace, setup: Setup) -> dict:
    """The options that a training needs besides k to be this sweep's."""
    defaults = profile_defaults(setup.config.profile, setup.config.dataset)
    config = dataclasses.asdict(setup.config)
    options = {n: v for n, v in config.items() if n not in ("k_text", "k_audio", "dataset") and v != defaults[n]}
    if setup.config.profile != "paper":
        options = {"profile": setup.config.profile, **options}
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
