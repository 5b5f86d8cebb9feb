"""Profile paper, profile official and each ablation over five seeds: the results table of the README, in Markdown.

    FEATURE_DIR=../shared/data/iemocap_small python benchmarks/profiles.py IEMOCAP

Runs that are finished are kept, an interrupted one goes on. The p of a row is a paired t-test over the seeds, its WA
against that of profile paper; five seeds on one test split say nothing about other splits.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from scipy.stats import ttest_rel

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from models.cemobam import ABLATIONS
from utils.config import default_save_path, display_name, make_config, run_name
from utils.errors import InputError, run_main
from utils.metrics import METRICS

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
    return json.loads((folder / "summary.json").read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", nargs="?", default="DEMO")
    dataset = parser.parse_args().dataset
    summaries = {}
    for row, options in ROWS.items():
        print(f"{display_name(dataset)}: {row}", file=sys.stderr)
        summaries[row] = train({"dataset": dataset, **options})["test"]

    print(
        f"| {display_name(dataset)}, test (%) | {' | '.join(METRICS.values())} | p of WA |\n|---|---|---|---|---|---|"
    )
    reference = [figures["wa"] for figures in summaries["profile paper"]["seeds"].values()]
    for row, test in summaries.items():
        cells = [f"{100 * test['mean'][name]:.2f} ± {100 * test['std'][name]:.2f}" for name in METRICS]
        of_row = [figures["wa"] for figures in test["seeds"].values()]
        p = "–" if of_row == reference else f"{ttest_rel(of_row, reference).pvalue:.2f}"
        print(f"| {row} | {' | '.join(cells)} | {p} |")


if __name__ == "__main__":
    run_main(main)
