"""Time a training step alone and next to a process at full load, for settings of OpenMP (13 minutes on 2 cores).

    python -m benchmarks.busy

On a shared machine, one thread of the step often waits for a core. A setting of OpenMP decides whether the other
threads spin or sleep in the meantime. ``utils/environment.sh`` sets none of these, because each one that helps on a
shared machine costs time on an idle one.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

import torch
from tqdm import tqdm

from benchmarks.speed import script_settings
from utils.config import ROOT
from utils.errors import InputError, run_main
from utils.io import align

OPENMP = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")
SETTINGS: dict[str, dict[str, str]] = {
    "OpenMP's default": {},
    "OMP_WAIT_POLICY=passive": {"OMP_WAIT_POLICY": "passive"},
    **{f"GOMP_SPINCOUNT={count}": {"GOMP_SPINCOUNT": str(count)} for count in (1000, 10_000, 50_000)},
    "one thread less": {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() - 1))},
    "the allocator's default": {"MALLOC_MMAP_THRESHOLD_": "", "MALLOC_TRIM_THRESHOLD_": "", "GLIBC_TUNABLES": ""},
}
LOAD = "import torch; torch.set_num_threads(1); a = torch.randn(512, 512)\nwhile True: a @ a"


@contextmanager
def load() -> Iterator[None]:
    """Run a second process that multiplies matrices with one thread."""
    process = subprocess.Popen([sys.executable, "-c", LOAD])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def seconds(setting: dict[str, str], nodes: int) -> float:
    """Median seconds of a step in a process with the scripts' environment and a setting; "" unsets a variable."""
    environment = {name: value for name, value in os.environ.items() if name not in OPENMP}
    environment |= {name: value for name, value in script_settings().items() if name not in OPENMP} | setting
    environment = {name: value for name, value in environment.items() if value}
    command = [sys.executable, "-m", "benchmarks.steps", "ours", "refined", str(nodes), "3", "cpu"]
    process = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    if process.returncode:
        raise InputError(f"benchmarks.steps failed with exit code {process.returncode}")
    return json.loads(process.stdout.splitlines()[-1])["seconds"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--nodes", type=int, default=4407)
    args = parser.parse_args()
    alone: dict[str, list[float]] = {name: [] for name in SETTINGS}
    beside: dict[str, list[float]] = {name: [] for name in SETTINGS}
    with tqdm(total=args.turns * len(SETTINGS), unit="setting") as bar:
        for name, setting in args.turns * [*SETTINGS.items()]:
            alone[name].append(seconds(setting, args.nodes))
            with load():
                beside[name].append(seconds(setting, args.nodes))
            bar.write(f"{name}: {alone[name][-1]:.2f} s alone, {beside[name][-1]:.2f} s beside a load")
            bar.update()
    print(f"{args.nodes} utterances, {torch.get_num_threads()} threads, torch {torch.__version__}")
    rows = [("seconds of a training step", "alone", "beside a load", "ratio")]
    for name in SETTINGS:
        both = median(alone[name]), median(beside[name])
        rows.append((name, *(f"{each:.2f}" for each in both), f"{both[1] / both[0]:.2f}"))
    print("\n".join(align(rows)))


if __name__ == "__main__":
    run_main(main)
