"""Train everything in the paper's tables and figures, and the ablation steps between the profiles; write a report.

Finished runs are kept: the same command resumes, and two at once share the runs.
"""

import argparse
import dataclasses
from collections.abc import Collection
from functools import partial
from itertools import chain, product
from pathlib import Path

import torch

from utils.cli import (
    add_config_options,
    add_device_option,
    add_feature_options,
    check_seeds,
    open_device,
    parse_options,
)
from utils.config import DATASETS, PROFILES, SEEDS, default_save_path, feature_path
from utils.data.demo import AGREEMENT, write_demo
from utils.data.features import SPLITS
from utils.data.published import find_features
from utils.device import describe
from utils.errors import InputError, run_main
from utils.reproduction.report import write_report
from utils.reproduction.results import Results
from utils.reproduction.sections import draw_tsne
from utils.reproduction.trials import AGREEMENTS, PARTS, Plan
from utils.sweep.run import K_VALUES, run_sweep, train_here
from utils.training.graph import TrainingData
from utils.training.metrics import PRINTED
from utils.training.run import Progress, Run, claim, open_runs, summarise, train_run

QUICK = {"seeds": SEEDS[:2], "k_values": (1, 8), "agreements": (0.0, 0.9)}
# The options in which the trials differ
OF_TRIALS = {"dataset", "profile", "k_text", "k_audio", "fusion_type", "ablation"}.union(*PROFILES.values())


def parse_args() -> tuple[argparse.Namespace, Plan]:
    parser = argparse.ArgumentParser(
        prog="reproduce.sh",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("datasets", nargs="*", metavar="DATASET", help=f"default: {' '.join(DATASETS)}")
    parser.add_argument("--quick", action="store_true", help="a test run: 2 seeds, 10 epochs, a 2 x 2 grid")
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=PARTS,
        help="train only: Tables I to IV, the ablation steps between the profiles, DEMO over homophily, or the grid of "
        "Fig. 2 (default: all)",
    )
    parser.add_argument("--report_only", action="store_true", help="train nothing, report what is finished")
    parser.add_argument("--profiles", nargs="+", choices=PROFILES, default=list(PROFILES), help="default: all three")
    parser.add_argument("--seeds", type=int, nargs="+", help=f"default: {' '.join(map(str, SEEDS))}")
    parser.add_argument("--k_values", type=int, nargs="+", metavar="K", help="grid of Fig. 2 (default: 1 to 10)")
    parser.add_argument("--save_path", help="runs and report (default: checkpoints/reproduction)")
    add_feature_options(parser)
    add_device_option(parser)
    add_config_options(parser.add_argument_group("configuration of every trial"), exclude=OF_TRIALS)
    args, shared = parse_options(parser)
    quick = QUICK if args.quick else {}
    folder = "reproduction-quick" if args.quick else "reproduction"
    plan = Plan(
        root=Path(args.save_path or Path(default_save_path()) / folder),
        feature_dir=Path(args.feature_dir),
        datasets=tuple(dict.fromkeys(args.datasets or DATASETS)),
        seeds=tuple(args.seeds or quick.get("seeds", SEEDS)),
        profiles=tuple(profile for profile in PROFILES if profile in args.profiles),
        shared={"epochs": 10, **shared} if args.quick else shared,
        k_values=tuple(sorted(set(args.k_values or quick.get("k_values", K_VALUES)))),
        agreements=quick.get("agreements", AGREEMENTS),
    )
    check_seeds(plan.seeds)
    if plan.k_values[0] < 1:
        raise InputError(f"--k_values {plan.k_values[0]}: must be at least 1")
    return args, plan


def main() -> int:
    args, plan = parse_args()
    configs = [plan.config(dataset, profile) for dataset in plan.datasets for profile in plan.profiles]
    if args.report_only:
        print(f"report: {write_report(plan)}")
        return 0
    device = open_device(args.device, configs[0])
    print(f"reproduction in {plan.root}\ndevice {describe(device)}")
    try:
        failed = train(plan, args, device)
    except KeyboardInterrupt:
        try:
            print(f"\nreport of what is finished: {write_report(plan)}; the same command resumes")
        except InputError as error:
            print(f"\nno report: {error}")
        raise
    print(f"\nreport: {write_report(plan)}")
    for line in failed:
        print(f"failed: {line}")
    return 1 if failed else 0


def train(plan: Plan, args: argparse.Namespace, device: torch.device) -> list[str]:
    """Train all parts: the tables of all datasets first, the grid, which takes longest, last.

    Returns:
        The failed runs, each with its error.
    """
    parts = args.parts or PARTS
    data = read_features(plan, args, parts)
    datasets = [dataset for dataset in plan.datasets if plan.folder(dataset) in data]
    all_profiles = Results(dataclasses.replace(plan, profiles=tuple(PROFILES)))
    for dataset in datasets:
        all_profiles.check_data(dataset, data[plan.folder(dataset)].splits)
    trials = plan.trials(datasets, parts)
    runs = [Run(trial, seed, data[trial.folder.parent]) for trial in trials for seed in plan.seeds]
    grids = [
        plan.grid_runs(dataset, profile, plan.k_values, data[plan.folder(dataset)])
        for dataset, profile in product(datasets, plan.profiles)
        if "grid" in parts and dataset in PRINTED
    ]
    for part in args.parts or ():
        if not (grids if part == "grid" else plan.trials(datasets, [part])):
            print(f"{part}: nothing to train; it needs {PARTS[part]}")
    everything = [*runs, *chain(*grids)]
    for run in everything:
        run.data.check(run.config)
    open_runs(everything)

    print(f"{len(everything)} runs, {sum(run.finished for run in everything)} of them finished before")
    with Progress(runs) as progress:
        for run in claim(runs, progress):
            train_run(run, device, progress)
            summarise(run.trial, run.data.class_names)
    for run in runs:
        if run.trial.keep_weights and run.seed == plan.seeds[0]:
            draw_tsne(run, device)
    for grid in grids:
        run_sweep(grid, grid[0].trial.folder.parent, partial(train_here, device=device))
    return [f"{run.config.dataset}, {run}: {run.error()}" for run in everything if not run.finished]


def read_features(plan: Plan, args: argparse.Namespace, parts: Collection[str]) -> dict[Path, TrainingData]:
    """The features of each dataset by the folder of its trials; DEMO is made for each agreement.

    A dataset that was not named is skipped if its features do not exist.

    Raises:
        InputError: as :func:`~utils.data.published.find_features` and :meth:`TrainingData.read`.
    """
    data = {}
    for dataset in plan.datasets:
        missing = plan.missing_features(dataset)
        if dataset == "DEMO":
            for agreement in dict.fromkeys([AGREEMENT, *(plan.agreements if "homophily" in parts else ())]):
                folder = plan.folder(dataset, agreement)
                write_demo(folder / "feature", agreement)
                paths = {split: feature_path(folder / "feature", dataset, split) for split in SPLITS}
                data[folder] = TrainingData.read(paths, dataset)
        elif missing and not (args.download or args.datasets):
            print(f"{dataset}: skipped, {missing[0]} does not exist (--download fetches the published features)")
        else:
            paths = find_features(dataset, plan.feature_dir, {}, args.download)
            data[plan.folder(dataset)] = TrainingData.read(paths, dataset)
    return data


if __name__ == "__main__":
    run_main(main)
