"""Train the cells as tasks on a Ray cluster; this process keeps the folder, so the workers need no shared disk."""

import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Sequence

import torch

from utils.config import ROOT
from utils.device import ALLOCATOR_SETTINGS, set_matmul_precision
from utils.errors import InputError
from utils.sweep.folder import SweepFolder
from utils.sweep.grid import Cell, SweepData, attempt_cell, failure
from utils.sweep.local import POLL_SECONDS
from utils.sweep.progress import Progress

RETRIES = 3  # of a cell whose node or process died
AHEAD = 2  # cells that wait at the cluster beyond those that it can train at once


def check_address(address: str) -> None:
    """See that Ray is installed and that something listens there; Ray itself would try for minutes.

    Raises:
        InputError: no Ray, a malformed address, or nobody answers.
    """
    try:
        import ray  # noqa: F401
    except ImportError as error:
        install = f"{sys.executable} -m pip install -r requirements-ray.txt"
        raise InputError(f"--ray: Ray is not installed here; {install}") from error
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise InputError(f"--ray {address}: expected host:port of the head node, or auto")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"--ray {address}: no Ray cluster there ({error})") from error


def run_on_ray(
    address: str,
    data: SweepData,
    folder: SweepFolder,
    cells: Sequence[Cell],
    progress: Progress,
    cpus: int,
    gpus: float | None,
) -> None:
    """Claim cells, a few more than the cluster can train at once, and write down what comes back.

    Args:
        address: of the head node (``host:port``), or ``auto`` for the cluster that runs on this machine.
        cpus, gpus: what a cell takes of a node, a fraction of a GPU included; by default a whole GPU where the cluster
            has any.

    Raises:
        InputError: there is no such cluster, or no node has what a cell takes.
    """
    import ray

    environment = {
        "py_modules": [str(ROOT / "models"), str(ROOT / "utils")],  # so that every node runs this code
        "env_vars": {name: os.environ[name] for name in ALLOCATOR_SETTINGS if name in os.environ},
    }
    try:
        ray.init(address, runtime_env=environment, log_to_driver=False, logging_level="warning")
    except (ConnectionError, RuntimeError) as error:  # no cluster, or one with other versions of Ray or Python
        raise InputError(f"--ray {address}: {' '.join(str(error).split())}") from error
    try:
        if gpus is None:
            gpus = 1.0 if ray.cluster_resources().get("GPU") else 0.0
        if gpus == 0:
            set_matmul_precision(data.config.matmul_precision, torch.device("cpu"))  # refuses what no CPU has
        if not _slots(cpus, gpus):
            raise InputError(f"--ray {address}: no node of the cluster has {cpus} CPUs and {gpus:g} GPUs for a cell")
        _run(data, folder, cells, progress, cpus, gpus)
    finally:
        ray.shutdown()


def _run(
    data: SweepData, folder: SweepFolder, cells: Sequence[Cell], progress: Progress, cpus: int, gpus: float
) -> None:
    import ray
    from ray.exceptions import RayError, RayTaskError, RuntimeEnvSetupError

    # deaths are counted here: Ray would try for ever what takes more memory than a node has
    train = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(_train)
    shared = ray.put(data)
    left, running, deaths = list(cells), {}, Counter()
    while left or running:
        while len(running) < _slots(cpus, gpus) + AHEAD and (cell := folder.claim_one(left)):
            left.remove(cell)
            if folder.is_done(cell):  # by another sweep
                progress.cell_done(cell, folder.read(cell))
                folder.release(cell)
            else:
                running[train.remote(shared, cell, cpus, gpus > 0)] = cell
        if not running:
            time.sleep(POLL_SECONDS)  # other sweeps have what is left
            continue
        for task in ray.wait(list(running), timeout=POLL_SECONDS)[0]:
            cell = running.pop(task)
            try:
                result = ray.get(task)
            except (RayTaskError, RuntimeEnvSetupError):  # an error of the program or of a node's installation
                raise
            except RayError as error:  # its node or its process died
                deaths[cell] += 1
                if deaths[cell] <= RETRIES:
                    progress.write(f"again: {cell}: {type(error).__name__}")
                    running[train.remote(shared, cell, cpus, gpus > 0)] = cell
                    continue
                result = failure(cell, error)
            folder.write(cell, result)
            folder.release(cell)
            progress.cell_done(cell, result)


def _slots(cpus: int, gpus: float) -> int:
    """How many cells the cluster as it is now can train at once."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return sum(
        int(min(node.get("CPU", 0) // cpus, node.get("GPU", 0) / gpus if gpus else float("inf"))) for node in nodes
    )


def _train(data: SweepData, cell: Cell, threads: int, cuda: bool) -> dict:
    device = torch.device("cuda" if cuda else "cpu")
    torch.set_num_threads(threads)
    set_matmul_precision(data.config.matmul_precision, device)
    return attempt_cell(data, cell, device)
