"""Compare a sweep by two jobs with one thread each and a sweep by one job with two threads, on two cores.

    python -m benchmarks.jobs

The sweep has random features, by default as many training utterances as IEMOCAP, four grid cells and one seed. Both
variants run in turns. The time is that of the whole command, from start to figure. The ratio is two jobs / one job.
"""

import argparse
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.speed import script_settings
from utils.config import ROOT, feature_path
from utils.errors import run_main
from utils.io import align

GRID = ["--k_text", "4", "8", "--k_audio", "4", "8", "--seeds", "42"]
CLASSES = 4
DIM = 768  # of both embeddings


def write_features(folder: Path, nodes: int) -> None:
    rng = np.random.default_rng(0)
    for split, n in (("train", nodes), ("val", nodes // 8), ("test", nodes // 8)):
        embeddings = rng.standard_normal((n, 2, DIM), dtype=np.float32)
        rows = [{"text_embed": t, "audio_embed": a, "label": i % CLASSES} for i, (t, a) in enumerate(embeddings)]
        feature_path(folder, "RANDOM", split).write_bytes(pickle.dumps(rows))


def seconds(features: str, jobs: int, epochs: int) -> float:
    with TemporaryDirectory() as folder:
        files = ["--dataset", "RANDOM", "--feature_dir", features, "--save_path", folder]
        options = [*files, *GRID, "--epochs", str(epochs), "--device", "cpu", "--jobs", str(jobs)]
        command = [sys.executable, "sweep.py", *options]
        environment = {**os.environ, **script_settings(), "OMP_NUM_THREADS": "2"}
        begin = time.perf_counter()
        subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=4407, help="training utterances (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=20, help="epochs of each run (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=3)
    args = parser.parse_args()
    one, two = [], []
    with TemporaryDirectory() as features:
        write_features(Path(features), args.nodes)
        for _ in range(args.turns):
            one.append(seconds(features, 1, args.epochs))
            two.append(seconds(features, 2, args.epochs))
    ratios = [b / a for a, b in zip(one, two, strict=True)]
    rows = [("turn", "one job", "two jobs", "ratio")]
    rows += [(str(i), *(f"{x:.2f}" for x in row)) for i, row in enumerate(zip(one, two, ratios, strict=True), 1)]
    rows.append(("median", *(f"{median(each):.2f}" for each in (one, two, ratios))))
    print("\n".join(align(rows)))


if __name__ == "__main__":
    run_main(main)
