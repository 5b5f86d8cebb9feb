"""Train the cells as tasks on a Ray cluster; this process keeps the folder, so the workers need no shared disk."""

import socket
from collections.abc import Sequence

import torch

from utils.config import ROOT
from utils.device import set_matmul_precision
from utils.errors import InputError
from utils.sweep.folder import SweepFolder
from utils.sweep.grid import Cell, SweepData, attempt_cell, failure
from utils.sweep.progress import Progress

RETRIES = 3  # of a cell whose node or process died


def run_on_ray(
    address: str,
    data: SweepData,
    folder: SweepFolder,
    cells: Sequence[Cell],
    progress: Progress,
    cpus: int,
    gpus: float | None,
) -> None:
    """Claim the cells, hand them to the cluster, write down what comes back.

    Args:
        address: of the head node (``host:port``), or ``auto`` for the cluster that runs on this machine.
        cpus, gpus: what a cell takes of a node, a fraction of a GPU included; by default a whole GPU where the cluster
            has any.

    Raises:
        InputError: Ray is not installed, there is no such cluster, or no node has what a cell takes.
    """
    try:
        import ray
    except ImportError as error:
        raise InputError("--ray: Ray is not installed here; pip install -r requirements-ray.txt") from error
    _check_reachable(address)
    packages = [str(ROOT / "models"), str(ROOT / "utils")]  # so that every node runs this code
    try:
        ray.init(address, runtime_env={"py_modules": packages}, log_to_driver=False, logging_level="warning")
    except ConnectionError as error:
        raise InputError(f"--ray {address}: no Ray cluster there ({' '.join(str(error).split())})") from error
    try:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if gpus is None:
            gpus = 1.0 if any(node.get("GPU") for node in nodes) else 0.0
        if gpus == 0:
            set_matmul_precision(data.config.matmul_precision, torch.device("cpu"))  # refuses what no CPU has
        if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
            raise InputError(
                f"--ray {address}: none of {len(nodes)} nodes has {cpus} CPUs and {gpus:g} GPUs for a cell"
            )
        train = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES)(_train)
        shared = ray.put(data)
        left = list(cells)
        for wait in (False, True):  # as in run_local; each pass ends when its cells have
            running = {}
            for cell in list(left):
                if not folder.claim(cell, wait):
                    continue
                left.remove(cell)
                if folder.is_done(cell):
                    folder.release(cell)
                    progress.cell_done(cell, folder.read(cell))
                else:
                    running[train.remote(shared, cell, cpus, gpus > 0)] = cell
            while running:
                for task in ray.wait(list(running))[0]:
                    cell = running.pop(task)
                    try:
                        result = ray.get(task)
                    except ray.exceptions.RayError as error:  # its node or process died again and again
                        result = failure(cell, error)
                    folder.write(cell, result)
                    folder.release(cell)
                    progress.cell_done(cell, result)
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """At once, where Ray itself tries for minutes."""
    host, _, port = address.rpartition(":")
    if address == "auto":
        return
    if not host or not port.isdigit():
        raise InputError(f"--ray {address}: expected host:port of the head node, or auto")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"--ray {address}: no Ray cluster there ({error})") from error


def _train(data: SweepData, cell: Cell, threads: int, cuda: bool) -> dict:
    device = torch.device("cuda" if cuda else "cpu")
    torch.set_num_threads(threads)
    set_matmul_precision(data.config.matmul_precision, device)
    return attempt_cell(data.to(device), cell)
