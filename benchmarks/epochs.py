"""Print the validation w-F1 over the epochs, which selected the number of epochs of DEMO (4 minutes on 2 cores).

    python -m benchmarks.epochs --profile paper

Trains the five seeds, and prints the mean ± std of their validation w-F1 and the epoch with the best mean. The metrics
of the test split are not used. Finished seeds are kept in ``checkpoints/<dataset>/epochs-<profile>``. The same command
resumes.
"""

import argparse
from pathlib import Path

import numpy as np

from utils.cli import add_device_option, add_feature_options
from utils.config import PROFILES, SEEDS, default_save_path, display_name, make_config
from utils.device import open_device
from utils.errors import run_main
from utils.io import align
from utils.training.folder import read_curves
from utils.training.graph import TrainingData
from utils.training.jobs import train_here
from utils.training.run import Progress, Run, Trial, open_runs

ROWS = 12  # approximate number of printed epochs


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="DEMO")
    parser.add_argument("--profile", choices=PROFILES, default="paper")
    parser.add_argument("--epochs", type=int, default=60)
    add_feature_options(parser)
    add_device_option(parser)
    args = parser.parse_args()
    config = make_config({"dataset": args.dataset, "profile": args.profile, "epochs": args.epochs})
    data = TrainingData.find(config, Path(args.feature_dir), {}, args.download)
    device = open_device(args.device, config.matmul_precision)
    trial = Trial(config, Path(default_save_path()) / args.dataset / f"epochs-{args.profile}", keep_weights=False)
    runs = [Run(trial, seed, data) for seed in SEEDS]
    open_runs(runs)
    with Progress(runs) as progress:
        train_here(runs, progress, device)
    failed = [run for run in runs if not run.finished]
    for run in failed:
        print(f"failed: {run}: {run.error()}")
    if not failed:
        curves = np.array([[line["val_w_f1"] for line in read_curves(run.folder, args.epochs)] for run in runs])
        print(f"{display_name(args.dataset)}, profile {args.profile}, {len(runs)} seeds (percent of validation)")
        print("\n".join(align(rows_of(100 * curves))))
    return 1 if failed else 0


def rows_of(curves: np.ndarray) -> list[tuple[str, ...]]:
    """The rows to print. ``curves`` [seeds, epochs] is the validation w-F1 in percent."""
    mean, std = curves.mean(0), curves.std(0, ddof=1)
    best, last = int(mean.argmax()) + 1, len(mean)
    step = -(-last // ROWS)
    epochs = sorted({1, best, last, *range(step, last, step)})
    rows = [(str(epoch), f"{mean[epoch - 1]:.2f} ± {std[epoch - 1]:.2f}") for epoch in epochs]
    return [("epoch", "val w-F1"), *rows, ("best", str(best))]


if __name__ == "__main__":
    run_main(main)
