"""Cross-validate by session, by speaker or at random: every utterance is tested once.

The report compares the network with simple classifiers (probes) and gives 95 % intervals.
Finished runs are kept. Repeat the command to resume. Several commands at once share the runs.
"""

import argparse
from pathlib import Path

from utils.cli import (
    add_config_options,
    add_device_option,
    add_feature_options,
    add_jobs_option,
    config_lines,
    parse_options,
)
from utils.config import SEEDS, Config, default_save_path, make_config
from utils.errors import InputError, run_main
from utils.folds.config import BY, POOLED, RANDOM_FOLDS, VALIDATION


def parse_args() -> tuple[argparse.Namespace, Config]:
    parser = argparse.ArgumentParser(
        prog="run_folds.sh",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    folds = parser.add_argument_group("folds")
    folds.add_argument(
        "--by",
        choices=BY,
        help="the groups that no two folds share (default: session or speaker if the CSVs name it, otherwise random)",
    )
    folds.add_argument(
        "--folds", type=int, help=f"number of folds (default: one per session or speaker; random: {RANDOM_FOLDS})"
    )
    folds.add_argument("--fold_files", type=Path, metavar="FOLDER", help="use the folds of EmoBox (test_fold_*.jsonl)")
    validation = "; ".join(f"{name}: {what}" for name, what in VALIDATION.items())
    folds.add_argument(
        "--val",
        choices=VALIDATION,
        help=f"validation part, taken from the training folds (default: group). {validation}",
    )
    folds.add_argument("--splits", nargs="+", choices=POOLED, help="pickles to pool (default: all that exist)")
    folds.add_argument("--no_probes", action="store_true", help="train only the network on both modalities")
    run = parser.add_argument_group("run")
    add_feature_options(run)
    run.add_argument("--save_path", default=default_save_path(), help="root of the run folders")
    run.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help=f"default: {' '.join(map(str, SEEDS))}")
    add_device_option(run)
    add_jobs_option(run)
    add_config_options(parser.add_argument_group("configuration"))
    args, options = parse_options(parser)
    if args.fold_files and (args.by or args.folds is not None):
        raise InputError("--fold_files: the files define the folds; omit --by and --folds")
    args.val = args.val or ("random" if args.fold_files else "group")
    return args, make_config(options)


def main() -> int:
    args, config = parse_args()
    # torch and its dependents take seconds to import; --help and option errors do not wait for them
    from utils.data.emobox import read_folds
    from utils.device import describe, open_device
    from utils.folds.protocol import choose_by, divide, read_pool
    from utils.folds.report import write_report
    from utils.folds.run import cross_validate, rows_of

    pool = read_pool(config.dataset, Path(args.feature_dir), args.splits or (), args.download)
    given = read_folds(args.fold_files) if args.fold_files else None
    by = args.by or choose_by(pool)
    if given is None and by == "random" and args.val == "speaker":
        raise InputError("--val speaker: not with random folds, which share the speakers; use --val group or random")
    root = Path(args.save_path) / config.dataset
    protocols = [divide(pool, root, by, args.val, args.folds, given)]
    if given is not None or by != "random":  # as many random folds, to show how much they overestimate
        protocols.append(divide(pool, root, "random", args.val, len(protocols[0].folds)))
    device = open_device(args.device, config.matmul_precision)
    print(f"{len(pool.features)} utterances, {len(protocols[0].folds)} folds, {protocols[0].title}")
    print(f"folder {protocols[0].folder}\ndevice {describe(device)}\nconfiguration\n{config_lines(config)}")
    rows = rows_of(config, with_probes=not args.no_probes)
    failed = cross_validate(protocols, rows, args.seeds, device, args.jobs)
    print(write_report(protocols, rows, args.seeds))
    for line in failed:
        print(f"failed: {line}")
    return 1 if failed else 0


if __name__ == "__main__":
    run_main(main)
