"""What a run folder says of all its seeds together."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from utils.config import Config, display_name
from utils.device import describe
from utils.graph import homophily
from utils.graph_data import GraphData
from utils.metrics import mean_and_std
from utils.runs import read_json, read_log, seed_folders, write_json


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


def finished_seeds(folder: Path) -> dict[int, dict]:
    """What ``metrics.json`` holds of each finished seed of a run folder, in order of the seeds."""
    finished = {seed: path / "metrics.json" for seed, path in seed_folders(folder).items()}
    return {seed: read_json(path) for seed, path in finished.items() if path.is_file()}


def read_curves(folder: Path, seeds: Sequence[int]) -> dict[int, list[dict]]:
    """The logs of the seeds, for the training curves."""
    folders = seed_folders(folder)
    return {seed: read_log(folders[seed] / "log.jsonl") for seed in seeds}
