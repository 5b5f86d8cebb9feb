"""Measure ratios of speed and memory, each within one run on this machine (25 minutes on 2 cores).

    python -m benchmarks.speed

Training step and peak memory: Our step on random features is compared with the PyG reference and with the GEMM lower
bound. The reference (``benchmarks/pyg_reference.py``) is the formulation of the published code, with ``GATConv``,
two-channel ``Conv1d``, full attention, plain Adam, and the allocator's defaults. The lower bound is the dense matrix
products alone. The networks are those of the profiles official, the published model, and refined, the largest. The
three variants run in turns, each in a separate process. A ratio is the median over the turns.

Operations and waits: These are counted in one step on a pretended GPU (``tests/pretend_cuda.py``).
Metrics: The metrics of one epoch are computed by scikit-learn and by our code.
Graphs: All 100 graphs of the grid are compared with a loop over the nodes for each graph.
Sweep: Two runs on DEMO are compared with their training steps and validations.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, f1_score, recall_score
from torch import Tensor
from tqdm import tqdm

from benchmarks.steps import CLASSES, DIM, prepare_steps, profile_step, timed
from models.ops import NeighborGraph
from tests.pretend_cuda import PretendCuda
from utils.config import ROOT
from utils.device import ALLOCATOR_SETTINGS, describe, pick_device
from utils.errors import InputError, run_main
from utils.io import align
from utils.training.graph import build_graph, neighbor_lists
from utils.training.metrics import compute_metrics

# Profile, number of utterances (that of the train split of IEMOCAP or ESD), and timed steps per turn
STEPS = (("official", 4407, 3), ("refined", 4407, 3), ("refined", 13996, 1))


def take_turn(variant: str, profile: str, nodes: int, steps: int, device: str) -> dict:
    """Run ``benchmarks.steps`` in a separate process: ours with the shell scripts' settings, the reference without."""
    arguments = ["-m", "benchmarks.steps", variant, profile, str(nodes), str(steps), device]
    environment = {name: value for name, value in os.environ.items() if name not in ALLOCATOR_SETTINGS}
    if variant != "pyg":
        environment |= script_settings()
    process = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    if process.returncode:
        raise InputError(f"{variant} at {nodes} utterances failed with exit code {process.returncode}")
    return json.loads(process.stdout.splitlines()[-1])


def script_settings() -> dict[str, str]:
    """The variables that ``utils/environment.sh`` exports."""
    lines = [
        line for line in (ROOT / "utils" / "environment.sh").read_text().splitlines() if line.startswith("export ")
    ]
    command = "\n".join([*lines, *(f'echo "{name}=${name}"' for name in ALLOCATOR_SETTINGS)])
    environment = {name: value for name, value in os.environ.items() if name not in ALLOCATOR_SETTINGS}
    output = subprocess.run(["bash", "-c", command], env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return dict(line.split("=", 1) for line in output.stdout.splitlines())


def step_rows(profile: str, nodes: int, steps: int, turns: int, device: str) -> list[tuple[str, ...]]:
    """The rows of one profile and size, and the rate of matrix products."""
    results: dict[str, list[dict]] = {"pyg": [], "ours": [], "products": []}
    for _ in tqdm(range(turns), desc=f"steps of {profile} at {nodes} on {device}", unit="turn"):
        for variant, of_variant in results.items():
            of_variant.append(take_turn(variant, profile, nodes, steps, device))
    pyg, ours, products = ({name: [turn[name] for turn in of] for name in of[0]} for of in results.values())
    where = f"{profile}, {nodes} utterances, {device}"
    return [
        row(f"step, {where}: PyG reference / ours", pyg["seconds"], ours["seconds"], "s"),
        row(f"step, {where}: ours / GEMM lower bound", ours["seconds"], products["seconds"], "s"),
        row(f"peak memory, {where}: PyG reference / ours", pyg["peak"], ours["peak"], "MiB"),
        (f"  matrix products: {median(products['gflops']):.0f} GFLOP/s", "", "", ""),
    ]


def gpu_rows() -> list[tuple[str, ...]]:
    """Operations and waits of a step on a pretended GPU. They do not depend on the number of utterances."""
    rows = []
    for profile in ("official", "refined"):
        counts: dict[str, list[int]] = {"pyg": [], "ours": []}
        for variant, of_variant in counts.items():
            with PretendCuda() as cuda:
                _, step = prepare_steps(variant, profile, 100, torch.device("cuda"))
                step()
                cuda.kernels.clear()
                cuda.waits.clear()
                step()
            of_variant += [sum(cuda.kernels.values()), sum(cuda.waits.values())]
        for i, what in enumerate(("operations", "waits")):
            values = (of_variant[i] for of_variant in counts.values())
            rows.append((f"{what} of a step, {profile}, pretended GPU: PyG reference, ours", *map(str, values), ""))
    return rows


def row(title: str, first: list[float], second: list[float], unit: str) -> tuple[str, ...]:
    ratio = median(a / b for a, b in zip(first, second, strict=True))
    middle = (f"{median(values):{'.2f' if unit == 's' else '.0f'}} {unit}" for values in (first, second))
    return title, *middle, f"{ratio:.2f}"


def graph_by_loop(text: Tensor, audio: Tensor, k_text: int, k_audio: int) -> set[tuple[int, int]]:
    """Eq. (2) implemented directly: all similarities, then one sort per node."""
    edges = set()
    for embeddings, k in ((text, k_text), (audio, k_audio)):
        units = embeddings / embeddings.norm(dim=1, keepdim=True)
        similarity = units @ units.T
        for i in range(len(units)):
            ranked = [j for j in similarity[i].argsort(descending=True)[: k + 1].tolist() if j != i]
            edges.add((i, i))
            edges.update((i, j) for j in ranked[:k])
    return edges


def graph_rows(turns: int, nodes: int = 4407) -> list[tuple[str, ...]]:
    """All graphs of the grid, compared with 100 times the time of the loop, which runs once."""
    torch.manual_seed(0)
    text, audio = torch.randn(nodes, DIM), torch.randn(nodes, DIM)
    loops, grids, slices = [], [], []
    for _ in tqdm(range(turns), desc="graphs of the grid", unit="turn"):
        expected = []
        loops.append(100 * timed(lambda found=expected: found.append(graph_by_loop(text, audio, 7, 8))))
        graphs: dict[tuple[int, int], NeighborGraph] = {}

        def whole_grid(graphs=graphs) -> None:
            lists = neighbor_lists(text, audio, 10, 10)
            begin = time.perf_counter()
            for k in ((t, a) for t in range(1, 11) for a in range(1, 11)):
                graphs[k] = build_graph(lists, *k)
            slices.append((time.perf_counter() - begin) / 100)

        grids.append(timed(whole_grid))
        graph = graphs[7, 8]
        if set(zip(graph.target.tolist(), graph.source.tolist(), strict=True)) != expected[0]:
            raise InputError("the graph of k_text 7, k_audio 8 differs from the loop's")
    return [
        row(f"all 100 graphs, {nodes} utterances: loop / ours", loops, grids, "s"),
        (f"  one graph from the lists: {1000 * median(slices):.1f} ms", "", "", ""),
    ]


def metric_rows(turns: int, utterances: int = 551) -> list[tuple[str, ...]]:
    """The metrics of one epoch."""
    rng = np.random.default_rng(0)
    label, prediction = rng.integers(0, CLASSES, (2, utterances))
    tensors = torch.from_numpy(label), torch.from_numpy(prediction)

    def by_sklearn() -> None:
        accuracy_score(label, prediction)
        recall_score(label, prediction, average=None)
        balanced_accuracy_score(label, prediction)
        for average in ("weighted", "macro"):
            f1_score(label, prediction, average=average)
        confusion_matrix(label, prediction)

    sklearn, ours = [], []
    for _ in range(turns):
        sklearn.append(timed(lambda: [by_sklearn() for _ in range(100)]))
        ours.append(timed(lambda: [compute_metrics(*tensors, CLASSES) for _ in range(100)]))
    return [row(f"metrics of {utterances} utterances, 100 times: scikit-learn / ours", sklearn, ours, "s")]


def sweep_rows(turns: int) -> list[tuple[str, ...]]:
    """A sweep of two trials on DEMO: the whole process, its runs, and their training steps and validations."""
    training, runs, once = [], [], []
    for _ in range(turns):
        with TemporaryDirectory() as folder:
            grid = ["--k_text", "7", "--k_audio", "6", "8", "--seeds", "42", "--profile", "refined"]
            command = [sys.executable, "-m", "benchmarks.speed", "--sweep", *grid, "--save_path", folder]
            command += ["--feature_dir", folder]
            environment = {**os.environ, **script_settings()}
            begin = time.perf_counter()
            subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, check=True)
            whole = time.perf_counter() - begin
            inside = json.loads((Path(folder) / "seconds.json").read_text())
        training.append(inside["training"])
        runs.append(inside["runs"])
        once.append(whole - inside["runs"])
    return [
        row("sweep of DEMO, 2 runs: runs / training in them", runs, training, "s"),
        (f"  once per sweep: {median(once):.1f} s of start, neighbour lists, tables and figure", "", "", ""),
    ]


def run_timed_sweep(arguments: list[str]) -> None:
    """Run ``sweep.py``, time each run and its epochs, and write ``seconds.json``."""
    import sweep
    from utils.training import jobs
    from utils.training import run as training_run

    seconds = {"training": 0.0, "runs": 0.0}

    def clocked(name: str, work: Callable) -> Callable:
        def run(*args):
            begin = time.perf_counter()
            result = work(*args)
            seconds[name] += time.perf_counter() - begin
            return result

        return run

    training_run.fit = clocked("training", training_run.fit)
    jobs.train_run = clocked("runs", jobs.train_run)
    sys.argv = ["sweep.py", *arguments]
    sweep.main()
    folder = Path(arguments[arguments.index("--save_path") + 1])
    (folder / "seconds.json").write_text(json.dumps(seconds))


def main() -> None:
    if sys.argv[1:2] == ["--sweep"]:
        return run_timed_sweep(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--profile", action="store_true", help="only print the share of each operation in a step")
    args = parser.parse_args()
    if args.profile:
        for variant in ("pyg", "ours"):
            print(f"{variant}, share of each operation\n{profile_step(variant)}\n")
        return None
    rows = [("", "first", "second", "ratio")]
    for device in ["cpu"] + ["cuda"] * torch.cuda.is_available():
        for profile, nodes, steps in STEPS:
            rows += step_rows(profile, nodes, steps, args.turns, device)
    rows += gpu_rows() + metric_rows(args.turns) + graph_rows(args.turns) + sweep_rows(args.turns)
    print(f"{describe(pick_device('auto'))}, torch {torch.__version__}, medians of {args.turns} turns")
    print("\n".join(align(rows)))
    return None


if __name__ == "__main__":
    run_main(main)
