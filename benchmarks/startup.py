"""Measure the startup time of each script with ``--help``, and of ``train.py`` until its first epoch (2 minutes).

    python -m benchmarks.startup
    python -m benchmarks.startup --against ../other    # another checkout, in turns with this one

Every measurement runs in a separate process. Prints the medians, the ratios to the other checkout, and the packages
whose import takes most time in ``train.py``, including what they import.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from utils.config import ROOT
from utils.errors import InputError, run_main
from utils.io import align

SCRIPTS = ("train", "eval", "sweep", "reproduce", "predict", "finetune", "extract_features")
TURNS = 3
MOST = 5  # printed packages
# train.py up to its first epoch, which begins with a call of Module.train
UNTIL_TRAINING = """
import os, runpy, sys, torch
torch.nn.Module.train = lambda *args: os._exit(0)
sys.argv[0] = "train.py"
runpy.run_path("train.py", run_name="__main__")
"""


def seconds_of(root: Path, *arguments: str) -> float:
    """Wall-clock time of Python with these arguments in a checkout."""
    begin = time.perf_counter()
    python(root, *arguments)
    return time.perf_counter() - begin


def python(root: Path, *arguments: str) -> str:
    """Run Python in a checkout, and return its error output."""
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, *arguments], cwd=root, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"{root}: {' '.join(arguments[-2:])} failed", *done.stderr.splitlines()[-3:])
    return done.stderr


def packages(report: str) -> list[tuple[str, str]]:
    """The packages of ``-X importtime`` with the most cumulative seconds, each counted where it is first imported."""
    seconds = {}
    for line in report.splitlines():
        if match := re.fullmatch(r"import time:\s+\d+ \|\s+(\d+) \|\s+(\w+)", line):
            seconds[match[2]] = int(match[1]) / 1e6
    return [(name, f"{value:.2f}") for name, value in sorted(seconds.items(), key=lambda item: -item[1])[:MOST]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, help="another checkout to compare with")
    against = parser.parse_args().against
    if against is not None and not (against / "train.py").is_file():
        raise InputError(f"--against {against}: not a checkout; it has no train.py")
    roots = [ROOT] if against is None else [ROOT, against.resolve()]
    with TemporaryDirectory() as folder:
        places = ["--feature_dir", folder, "--save_path", f"{folder}/runs", "--seeds", "1", "--overwrite"]
        training = ["-c", UNTIL_TRAINING, "--dataset", "DEMO", *places]
        python(ROOT, *training)  # makes the features of DEMO
        rows = [("", "here", *(("there", "ratio") if against else ()))]
        tasks = {f"{name} --help": (f"{name}.py", "--help") for name in SCRIPTS} | {"train, first epoch": training}
        for name, arguments in tasks.items():
            turns = [[seconds_of(root, *arguments) for root in roots] for _ in range(TURNS)]
            medians = [median(of_root) for of_root in zip(*turns, strict=True)]
            ratio = [f"{medians[0] / medians[1]:.2f}"] if against else []
            rows.append((name, *(f"{value:.2f}" for value in medians), *ratio))
        print("\n".join(align(rows)))
        slowest = packages(python(ROOT, "-X", "importtime", *training))
        print("\n".join(["", *align([("train.py imports", "seconds"), *slowest])]))


if __name__ == "__main__":
    run_main(main)
