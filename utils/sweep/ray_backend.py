"""Train runs as tasks on a Ray cluster. This process writes the folders, so the workers need no shared disk."""

import os
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from utils.config import ROOT
from utils.device import ALLOCATOR_SETTINGS, open_device
from utils.errors import InputError
from utils.io import atomic_write, lock, write_json
from utils.training.folder import claim_folder
from utils.training.graph import TrainingData
from utils.training.jobs import RETRIES
from utils.training.run import POLL_SECONDS, Progress, Run, train_run

AHEAD = 2  # runs that wait on the cluster in addition to those that it can train at once


def train_on_ray(runs: Sequence[Run], progress: Progress, address: str, cpus: int, gpus: float | None) -> None:
    """Claim runs, a few more than the cluster can train at once, and write the files that the workers return.

    Args:
        address: the address of the head node (``host:port``), or ``auto`` for the cluster of this machine.
        cpus, gpus: resources per run. ``gpus`` can be a fraction; by default, 1 if the cluster has GPUs.

    Raises:
        InputError: there is no such cluster, or no node has these resources.
    """
    import ray

    environment = {
        "py_modules": [str(ROOT / "models"), str(ROOT / "utils")],  # every node runs this code
        "env_vars": {name: os.environ[name] for name in ALLOCATOR_SETTINGS if name in os.environ},
    }
    try:
        ray.init(address, runtime_env=environment, log_to_driver=False, logging_level="warning")
    except (ConnectionError, RuntimeError) as error:  # no cluster, or other versions of Ray or Python
        raise InputError(f"--ray {address}: {' '.join(str(error).split())}") from error
    try:
        if gpus is None:
            gpus = 1.0 if ray.cluster_resources().get("GPU") else 0.0
        if gpus == 0:
            open_device("cpu", runs[0].config.matmul_precision)  # refuses TF32
        if not _slots(cpus, gpus):
            raise InputError(f"--ray {address}: no node of the cluster has {cpus} CPUs and {gpus:g} GPUs for a run")
        _train_all(runs, progress, cpus, gpus)
    finally:
        ray.shutdown()


def _train_all(runs: Sequence[Run], progress: Progress, cpus: int, gpus: float) -> None:
    import ray
    from ray.exceptions import RayError, RayTaskError, RuntimeEnvSetupError

    # deaths are counted here, because Ray retries forever if a run needs more memory than a node has
    remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(_train)
    shared = ray.put(runs[0].data)

    def start(run: Run) -> object:
        return remote.remote(replace(run, data=None), shared, cpus, gpus > 0)

    left = [run for run in runs if not run.finished]
    running: dict[object, tuple[Run, ExitStack]] = {}
    deaths: Counter[Path] = Counter()
    while left or running:
        while len(running) < _slots(cpus, gpus) + AHEAD and (claimed := _claim_one(left)):
            run, held = claimed
            claim_folder(run.folder, run.describe())
            if run.finished:  # by another sweep
                progress.finish(run)
                held.close()
            else:
                running[start(run)] = run, held
        if not running:
            time.sleep(POLL_SECONDS)  # other sweeps train the remaining runs
            continue
        for task in ray.wait(list(running), timeout=POLL_SECONDS)[0]:
            run, held = running.pop(task)
            try:
                files = ray.get(task)
            except (RayTaskError, RuntimeEnvSetupError):  # an error of the program or of a node's installation
                raise
            except RayError as error:  # its node or its process died
                deaths[run.folder] += 1
                if deaths[run.folder] <= RETRIES:
                    progress.write(f"retrying: {run}: {type(error).__name__}")
                    running[start(run)] = run, held
                    continue
                write_json(run.folder / "error.json", {"error": f"{type(error).__name__}: its node or process died"})
            else:
                _keep(run, files)
            progress.finish(run)
            held.close()


def _claim_one(left: list[Run]) -> tuple[Run, ExitStack] | None:
    """Lock the first run that no other process trains, and remove it from the list."""
    for run in left:
        held = ExitStack()
        if held.enter_context(lock(run.folder)):
            left.remove(run)
            return run, held
        held.close()
    return None


def _keep(run: Run, files: dict[str, bytes]) -> None:
    """Write the files of a run that a worker trained. ``metrics.json``, which marks it as finished, comes last."""
    (run.folder / "error.json").unlink(missing_ok=True)
    for name in sorted(files, key=lambda name: name == "metrics.json"):
        atomic_write(run.folder / name, files[name])


def _slots(cpus: int, gpus: float) -> int:
    """How many runs the cluster can train at once now."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return sum(
        int(min(node.get("CPU", 0) // cpus, node.get("GPU", 0) / gpus if gpus else float("inf"))) for node in nodes
    )


def _train(run: Run, data: TrainingData, threads: int, cuda: bool) -> dict[str, bytes]:
    """Train a run in a temporary folder of the worker and return its files."""
    device = open_device("cuda" if cuda else "cpu", run.config.matmul_precision)
    torch.set_num_threads(threads)
    with TemporaryDirectory() as folder:
        run = replace(run, trial=replace(run.trial, folder=Path(folder)), data=data)
        with Progress([run], note=lambda run: "") as progress:
            train_run(run, device, progress)
        return {path.name: path.read_bytes() for path in run.folder.iterdir()}
