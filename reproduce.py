"""Train the paper's tables and figures and the ablation steps between the profiles, and write a report.

Finished runs are kept. Repeat the command to resume. Several commands at once share the runs.
"""

import argparse
from itertools import product
from pathlib import Path

from utils.cli import (
    add_config_options,
    add_device_option,
    add_feature_options,
    add_jobs_option,
    parse_options,
)
from utils.config import DATASETS, PARTS, PROFILES, SEEDS, default_save_path, make_config
from utils.errors import InputError, run_main
from utils.folds.config import POOLED
from utils.sweep.config import K_VALUES

QUICK = {"seeds": SEEDS[:2], "k_values": (1, 8), "agreements": (0.0, 0.9)}
# The options in which the trials differ, except those that make every trial shorter
OF_TRIALS = {"dataset", "profile", "k_text", "k_audio", "fusion_type", "ablation"}.union(*PROFILES.values())
OF_TRIALS -= {"epochs", "hidden_dim"}


def parse_args() -> tuple[argparse.Namespace, dict]:
    """The options of the command, and the arguments of its :class:`~utils.reproduction.trials.Plan`."""
    parser = argparse.ArgumentParser(
        prog="reproduce.sh",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "datasets", nargs="*", metavar="DATASET", help=f"dataset to train (default: {' '.join(DATASETS)})"
    )
    parser.add_argument("--quick", action="store_true", help="a test run: 2 seeds, 10 epochs, a 2 x 2 grid")
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=PARTS,
        help="train only these parts. tables: Tables I to IV; folds: cross-validation by session or speaker; "
        "ablation: the steps between the profiles; homophily: DEMO over homophily; grid: Fig. 2 (default: all)",
    )
    parser.add_argument(
        "--splits", nargs="+", choices=POOLED, default=[], help="pickles that the folds pool (default: all that exist)"
    )
    parser.add_argument("--folds", type=int, help="number of folds (default: one per session or speaker)")
    parser.add_argument("--report_only", action="store_true", help="report the finished runs without training")
    parser.add_argument("--profiles", nargs="+", choices=PROFILES, default=list(PROFILES), help="default: all three")
    parser.add_argument("--seeds", type=int, nargs="+", help=f"default: {' '.join(map(str, SEEDS))}")
    parser.add_argument("--k_values", type=int, nargs="+", metavar="K", help="grid of Fig. 2 (default: 1 to 10)")
    parser.add_argument(
        "--save_path",
        help="folder of runs and report (default: checkpoints/reproduction, or reproduction-quick with --quick)",
    )
    add_feature_options(parser)
    add_device_option(parser)
    add_jobs_option(parser)
    add_config_options(parser.add_argument_group("configuration of every trial"), exclude=OF_TRIALS)
    args, shared = parse_options(parser)
    if args.report_only and (args.parts or args.download):
        raise InputError("--report_only: reports all finished runs; cannot be combined with --parts or --download")
    quick = QUICK if args.quick else {}
    folder = "reproduction-quick" if args.quick else "reproduction"
    plan = {
        "root": Path(args.save_path or Path(default_save_path()) / folder),
        "feature_dir": Path(args.feature_dir),
        "datasets": tuple(dict.fromkeys(args.datasets or DATASETS)),
        "seeds": tuple(args.seeds or quick.get("seeds", SEEDS)),
        "profiles": tuple(profile for profile in PROFILES if profile in args.profiles),
        "splits": tuple(args.splits),
        "folds": args.folds,
        "shared": {"epochs": 10, **shared} if args.quick else shared,
        "k_values": tuple(sorted(set(args.k_values or quick.get("k_values", K_VALUES)))),
    }
    if args.quick:
        plan["agreements"] = QUICK["agreements"]
    if plan["k_values"][0] < 1:
        raise InputError(f"--k_values {plan['k_values'][0]}: must be at least 1")
    for dataset, profile in product(plan["datasets"], plan["profiles"]):
        make_config({"dataset": dataset, "profile": profile, **plan["shared"]})  # reports invalid options
    return args, plan


def main() -> int:
    args, arguments = parse_args()
    # torch and its dependents take seconds to import; --help and option errors do not wait for them
    from utils.device import describe, open_device
    from utils.reproduction.folds import train_folds
    from utils.reproduction.report import write_report
    from utils.reproduction.results import check_finished
    from utils.reproduction.trials import Plan, read_features, train

    plan = Plan(**arguments)
    if args.report_only:
        print(f"report: {write_report(plan)}")
        return 0
    device = open_device(args.device, plan.config(plan.datasets[0], plan.profiles[0]).matmul_precision)
    print(f"reproduction in {plan.root}\ndevice {describe(device)}")
    try:
        failed, parts = [], args.parts or PARTS
        if set(parts) != {"folds"}:
            data = read_features(plan, parts, args.download, named=bool(args.datasets))
            check_finished(plan, data)
            failed += train(plan, args.parts, data, device, args.jobs)
        if "folds" in parts:
            failed += train_folds(plan, args.download, device, args.jobs)
    except KeyboardInterrupt:
        try:
            print(f"\nreport of the finished runs: {write_report(plan)}; repeat the command to resume")
        except InputError as error:
            print(f"\nno report: {error}")
        raise
    print(f"\nreport: {write_report(plan)}")
    for line in failed:
        print(f"failed: {line}")
    return 1 if failed else 0


if __name__ == "__main__":
    run_main(main)
