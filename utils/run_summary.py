"""What a run folder says of all its seeds together."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from utils.config import Config, display_name
from utils.device import describe
from utils.errors import reading
from utils.files import read_json, write_json
from utils.graph import homophily
from utils.graph_data import GraphData
from utils.metrics import METRICS, mean_and_std
from utils.runs import SEED_FOLDER, read_log, seed_folders

DRAWN = ("train_loss", "val_loss", "val_w_f1", "seconds")  # what a line of a log must have


def summarise(
    folder: Path, config: Config, class_names: Sequence[str], per_seed: dict[int, dict], graphs: dict[str, GraphData]
) -> dict:
    """Write and return ``summary.json``: the device, the graph of each split; the test figures of each seed, their mean
    and sample std; so for val.
    """
    summary = {
        "dataset": display_name(config.dataset),
        "config": dataclasses.asdict(config),
        "class_names": list(class_names),
        "device": describe(graphs["train"].label.device),
        "graphs": {split: describe_graph(data) for split, data in graphs.items()},
    }
    for split in ("val", "test"):
        mean, std = mean_and_std([metrics[split] for metrics in per_seed.values()])
        summary[split] = {
            "seeds": {str(seed): metrics[split] for seed, metrics in per_seed.items()},
            "mean": mean,
            "std": std,
        }
    write_json(folder / "summary.json", summary)
    return summary


def describe_graph(data: GraphData) -> dict:
    """Size of a graph, and the share of its edges between different nodes that join two of one class."""
    graph = data.graph
    return {"nodes": graph.num_nodes, "edges": graph.num_edges, "homophily": homophily(graph, data.label)}


def finished_seeds(folder: Path, epochs: int) -> dict[int, dict]:
    """What each finished seed of a run folder found, in order of the seeds; arguments and errors as of
    :func:`read_metrics`.
    """
    finished = {seed: path / "metrics.json" for seed, path in seed_folders(folder).items()}
    return {seed: read_metrics(path, seed, epochs) for seed, path in finished.items() if path.is_file()}


def read_metrics(path: Path, seed: int, epochs: int) -> dict:
    """A ``metrics.json``: ``seed``, ``selected_epoch``, and the figures of ``val`` and ``test``.

    Raises:
        InputError: it is damaged, of another seed, or its epoch is beyond the run's ``epochs``.
    """
    metrics = read_json(path)
    with reading(path, "not the figures of a run"):
        epoch = metrics["selected_epoch"]
        if metrics["seed"] != seed:
            raise ValueError(f"of seed {metrics['seed']}")
        if not (isinstance(epoch, int) and 1 <= epoch <= epochs):
            raise ValueError(f"selected epoch {epoch} of {epochs}")
        for split in ("val", "test"):
            for name in METRICS:
                if not 0 <= metrics[split][name] <= 1:  # also where it is no number at all
                    raise ValueError(f"{split} {name} {metrics[split][name]}")
            confusion = np.array(metrics[split]["confusion"])
            if confusion.dtype.kind != "i" or confusion.shape != 2 * (len(metrics[split]["recall"]),):
                raise ValueError(f"{split} confusion")
    return metrics


def read_curves(folder: Path, seeds: Sequence[int], epochs: int) -> dict[int, list[dict]]:
    """The logs of finished seeds.

    Raises:
        InputError: a log is damaged, or not of so many epochs.
    """
    curves = {}
    for seed in seeds:
        path = folder / SEED_FOLDER.format(seed) / "log.jsonl"
        curves[seed] = read_log(path)
        with reading(path, "not the log of a run"):
            if len(curves[seed]) != epochs:
                raise ValueError(f"{len(curves[seed])} epochs of {epochs}")
            for line in curves[seed]:
                odd = [name for name in DRAWN if not math.isfinite(line[name])]
                if odd:
                    raise ValueError(f"{odd[0]} {line[odd[0]]}")
    return curves
