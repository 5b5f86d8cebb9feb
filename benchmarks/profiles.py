"""Profile paper, profile official and each ablation over five seeds: the results table of the README, in Markdown.

    FEATURE_DIR=../shared/data/iemocap_small python -m benchmarks.profiles IEMOCAP

Runs that are finished are kept, an interrupted one goes on. The last column is the difference in WA to profile paper,
paired over the seeds, ± its standard error; it speaks of this test split alone.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np

from models.cemobam import ABLATIONS
from utils.config import ROOT, default_save_path, display_name, make_config, run_name
from utils.errors import InputError, run_main
from utils.metrics import METRICS
from utils.runs import read_json

ROWS = {
    "profile paper": {},
    **{f"paper, {ablation}": {"ablation": ablation} for ablation in ABLATIONS[1:]},
    "profile official": {"profile": "official"},
}


def train(options: dict) -> dict:
    """Train one row, or find it finished; its ``summary.json``."""
    command = [sys.executable, str(ROOT / "train.py"), "--resume"]
    command += [f"--{name}={value}" for name, value in options.items()]
    if subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
        raise InputError(f"{' '.join(command[1:])}: failed")
    folder = Path(default_save_path()) / options["dataset"] / run_name(make_config(options))
    return read_json(folder / "summary.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", nargs="?", default="DEMO")
    dataset = parser.parse_args().dataset
    summaries = {}
    for row, options in ROWS.items():
        print(f"{display_name(dataset)}: {row}", file=sys.stderr)
        summaries[row] = train({"dataset": dataset, **options})["test"]

    header = [f"{display_name(dataset)}, test (%)", *METRICS.values(), "WA - paper's"]
    print(f"| {' | '.join(header)} |\n|{'---|' * len(header)}")
    reference = wa_of(summaries["profile paper"])
    for row, test in summaries.items():
        cells = [f"{100 * test['mean'][name]:.2f} ± {100 * test['std'][name]:.2f}" for name in METRICS]
        difference = wa_of(test) - reference
        error = difference.std(ddof=1) / len(difference) ** 0.5
        cells.append("" if row == "profile paper" else f"{difference.mean():+.2f} ± {error:.2f}")
        print(f"| {row} | {' | '.join(cells)} |")


def wa_of(test: dict) -> np.ndarray:
    return np.array([100 * figures["wa"] for figures in test["seeds"].values()])


if __name__ == "__main__":
    run_main(main)
