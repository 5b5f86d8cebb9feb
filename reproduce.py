"""Train every row of the paper's tables, its Top-K grid and the walk between the profiles; write a report of them.

Finished runs are kept: the same command goes on where the last one ended, and two at once share the rows.
"""

import argparse
import dataclasses
from functools import partial
from pathlib import Path

import torch

from utils.cli import (
    PATH_OPTIONS,
    Setup,
    add_config_options,
    add_device_option,
    add_feature_options,
    check_seeds,
    parse_options,
    read_setup,
)
from utils.config import (
    DATASETS,
    OFFICIAL,
    PROFILES,
    SEEDS,
    default_save_path,
)
from utils.demo import AGREEMENT
from utils.device import describe, pick_device, set_matmul_precision
from utils.errors import InputError, run_main
from utils.graph_data import check_neighbors_of_splits
from utils.reproduction.fig2 import Sweep
from utils.reproduction.report import write_report
from utils.reproduction.rows import AGREEMENTS
from utils.reproduction.study import Study
from utils.reproduction.training import demo_setup, draw_tsne, train_rows
from utils.sweep.grid import K_VALUES, grid
from utils.sweep.local import run_local
from utils.sweep.run import run_sweep

PARTS = ("tables", "walk", "homophily", "grid")
# What a part needs, where it is not in every study
NEEDS = {
    "walk": (lambda study: study.walks, "both profiles and a dataset that is not synthetic"),
    "homophily": (lambda study: study.homophily, "DEMO"),
    "grid": (lambda study: study.sweeps, "IEMOCAP or ESD"),
}
QUICK = {"seeds": SEEDS[:2], "epochs": 10, "k_values": (1, 8), "agreements": (0.0, 0.9)}
# What tells the rows apart, so that it cannot be the same for all of them
OF_ROWS = ("dataset", "profile", "k_text", "k_audio", "fusion_type", "ablation", *OFFICIAL)


def parse_args() -> tuple[argparse.Namespace, dict]:
    """The options of the study, and those that every configuration shares."""
    parser = argparse.ArgumentParser(
        prog="reproduce.sh",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("datasets", nargs="*", metavar="DATASET", help=f"default: {' '.join(DATASETS)}")
    parser.add_argument("--quick", action="store_true", help="2 seeds, 10 epochs, a 2 x 2 grid: does everything run?")
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=PARTS,
        help="train these alone: Tables I to IV, the walks, DEMO over homophily, Fig. 2 (default: all)",
    )
    parser.add_argument("--report_only", action="store_true", help="train nothing, report what is finished")
    parser.add_argument("--profiles", nargs="+", choices=PROFILES, default=PROFILES, help="default: both")
    parser.add_argument("--seeds", type=int, nargs="+", help=f"default: {' '.join(map(str, SEEDS))}")
    parser.add_argument("--k_values", type=int, nargs="+", metavar="K", help="grid of Fig. 2 (default: 1 to 10)")
    parser.add_argument("--save_path", type=Path, help="runs and report (default: checkpoints/reproduction)")
    add_feature_options(parser)
    add_device_option(parser)
    add_config_options(parser.add_argument_group("configuration of every row"), leave_out=OF_ROWS)
    args, shared = parse_options(parser)
    quick = QUICK if args.quick else {}
    if args.quick:
        shared.setdefault("epochs", QUICK["epochs"])
    args.seeds = tuple(args.seeds or quick.get("seeds", SEEDS))
    args.k_values = tuple(sorted(set(args.k_values or quick.get("k_values", K_VALUES))))
    args.agreements = quick.get("agreements", AGREEMENTS)
    check_seeds(args.seeds)
    if args.k_values[0] < 1:
        raise InputError(f"--k_values {args.k_values[0]}: must be at least 1")
    if args.save_path is None:
        args.save_path = Path(default_save_path()) / ("reproduction-quick" if args.quick else "reproduction")
    return args, shared


def main() -> int:
    args, shared = parse_args()
    study = Study(
        root=args.save_path,
        feature_dir=Path(args.feature_dir),
        datasets=tuple(dict.fromkeys(args.datasets or DATASETS)),
        seeds=args.seeds,
        profiles=tuple(profile for profile in PROFILES if profile in args.profiles),
        shared=shared,
        k_values=args.k_values,
        agreements=args.agreements,
    )
    if args.report_only:
        print(f"report: {write_report(study)}")
        return 0
    device = pick_device(args.device)
    set_matmul_precision(shared.get("matmul_precision", "fp32"), device)
    print(f"reproduction in {study.root}\ndevice {describe(device)}")
    try:
        failed = train(study, args, device)
    except KeyboardInterrupt:
        try:
            print(f"\nreport of what is finished: {write_report(study)}; the same command goes on")
        except InputError as error:
            print(f"\nno report: {error}")
        raise
    print(f"\nreport: {write_report(study)}")
    for each in failed:
        print(f"failed: {each}")
    return 1 if failed else 0


def train(study: Study, args: argparse.Namespace, device: torch.device) -> list[str]:
    """Everything that ``--parts`` asks for: the tables of all datasets first, the grid, which takes longest, last.

    Returns:
        What failed, with its error.
    """
    setups = {dataset: setup for dataset in study.datasets if (setup := read_features(study, args, dataset, device))}
    parts = args.parts or PARTS
    for dataset, setup in setups.items():
        study.check_data(dataset, {split: features.sha256 for split, features in setup.splits.items()})
    if "grid" in parts:
        check_grid(study, setups)
    for part, (work, needs) in NEEDS.items():
        if part in (args.parts or ()) and not work(study):
            print(f"{part}: nothing to train, it needs {needs}")
    failed = []
    for part, rows_of in (("tables", study.table_rows), ("walk", study.walk_rows)):
        if part in parts:
            work = [(row, setup) for dataset, setup in setups.items() for row in rows_of(dataset)]
            failed += train_rows(work, study.seeds)
    if "homophily" in parts and study.homophily:
        demos = {agreement: demo_setup(study.root, agreement, device) for agreement in study.agreements}
        failed += train_rows([(row, demos[key[1]]) for key, row in study.homophily.items()], study.seeds)
    for dataset, setup in setups.items():
        for row in study.table_rows(dataset):
            if row.headline:
                draw_tsne(row, setup, study.seeds)
    if "grid" in parts:
        for (dataset, profile), each in study.sweeps.items():
            if dataset in setups and train_grid(each, setups[dataset]):
                failed.append(f"{dataset}, {profile}, Fig. 2: cells failed, named above")
    return failed


def check_grid(study: Study, setups: dict[str, Setup]) -> None:
    """Raise an InputError where Fig. 2 asks for more neighbours than there are, before anything is trained."""
    most = max(study.k_values)
    for (dataset, _), each in study.sweeps.items():
        if dataset in setups:
            check_neighbors_of_splits(
                setups[dataset].splits, dataclasses.replace(each.config, k_text=most, k_audio=most)
            )


def train_grid(each: Sweep, setup: Setup) -> bool:
    """Fig. 2 of a dataset and profile. Returns whether a cell failed."""
    cells = grid(each.k_values, each.k_values, each.seeds)
    setup = dataclasses.replace(setup, config=each.config)
    train = partial(run_local, device=setup.device)
    failed, _ = run_sweep(setup, each.folder, cells, train, describe(setup.device))
    return failed > 0


def read_features(study: Study, args: argparse.Namespace, dataset: str, device: torch.device) -> Setup | None:
    """The features of a dataset; None, with a word of it, where they are not there and the dataset was not asked for.

    Raises:
        InputError: as :func:`utils.cli.read_setup`.
    """
    if dataset == "DEMO":
        return demo_setup(study.root, AGREEMENT, device)
    options = argparse.Namespace(**vars(args), num_classes=None, **dict.fromkeys(PATH_OPTIONS.values()))
    missing = study.missing_features(dataset)
    if missing and not (args.download or args.datasets):
        print(f"{dataset}: left out, {missing[0]} is not there (--download fetches what the authors publish)")
        return None
    return read_setup(options, {"dataset": dataset, **study.shared})


if __name__ == "__main__":
    run_main(main)
