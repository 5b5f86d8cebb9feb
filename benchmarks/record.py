"""Run a command and record what it prints in ``docs/results/NAME.json``, from which README and docs are generated.

    python -m benchmarks.record demo-training --data "DEMO (built in)" -- bash run_training.sh

The file also contains the commit, the date, the machine, the versions, the duration, and the files given with
``--files``. Run ``python -m docs.generate`` afterwards to update the pages. If the command fails, nothing is recorded.
"""

import argparse
import os
import platform
import shlex
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import torch

from utils.errors import InputError, run_main
from utils.io import environment_info, read_file, read_json, write_json

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs/results"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="name of the result file, without .json")
    parser.add_argument("--data", required=True, help="what the command read, in words")
    parser.add_argument("--note", default="", help="what a reader must know about this run")
    parser.add_argument("--folder", type=Path, default=Path(), help="folder of --files")
    parser.add_argument(
        "--files", nargs="+", default=[], metavar="PATTERN", help="files to keep, such as '*/summary.json'"
    )
    parser.add_argument("command", nargs="+", help="after --")
    args = parser.parse_args()
    start = time.perf_counter()
    done = subprocess.run(args.command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    seconds = time.perf_counter() - start
    print(done.stdout, end="")
    if done.returncode:
        raise InputError(f"{shlex.join(args.command)}: exit code {done.returncode}, nothing is recorded")
    found = {pattern: sorted(args.folder.glob(pattern)) for pattern in args.files}
    for pattern, paths in found.items():
        if not paths:
            raise InputError(f"{args.folder}: no file matches {pattern}, nothing is recorded")
    result = {
        "command": shlex.join(args.command),
        "data": args.data,
        "note": args.note,
        "commit": commit(),
        "date": date.today().isoformat(),
        "machine": machine(),
        "versions": environment_info("torch")["versions"],
        "seconds": round(seconds, 1),
        "output": done.stdout.replace(f"{ROOT}/", "").splitlines(),
        "files": {
            path.relative_to(args.folder).as_posix(): content(path) for paths in found.values() for path in paths
        },
    }
    write_json(RESULTS / f"{args.name}.json", result)
    print(f"recorded in docs/results/{args.name}.json", file=sys.stderr)
    return 0


def content(path: Path) -> dict | list[str]:
    return read_json(path) if path.suffix == ".json" else read_file(path).decode().splitlines()


def commit() -> str:
    """The short hash of the commit; with ``+`` where the working tree differs from it."""
    git = ["git", "-C", str(ROOT)]
    short = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    changed = subprocess.run(
        [*git, "status", "--porcelain", "--", "*.py", "*.sh"], capture_output=True, text=True, check=True
    )
    return short.stdout.strip() + "+" * bool(changed.stdout)


def machine() -> str:
    """``2 cores of AMD EPYC, no GPU``."""
    cpu = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        cpu = next((line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line), cpu)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{os.cpu_count()} cores of {cpu}, {gpu}"


if __name__ == "__main__":
    run_main(main)
