"""What commands print and reports hold: the configuration, the graphs, tables in text and in Markdown."""

import dataclasses
from collections.abc import Sequence

import torch

from models.ch_gat import NeighborGraph
from utils.config import OFFICIAL, Config
from utils.demo import bayes_optimal_wa
from utils.graph import homophily
from utils.metrics import METRICS, mean_and_std
from utils.paper import SWAPPED, printed


def config_lines(config: Config, leave_out: Sequence[str] = ()) -> str:
    """One field a line; those in which the two profiles differ are marked."""
    values = {name: value for name, value in dataclasses.asdict(config).items() if name not in leave_out}
    width = max(map(len, values))
    lines = [f"  {name:<{width}}  {value}{' *' if name in OFFICIAL else ''}" for name, value in values.items()]
    return "\n".join([*lines, "  (* the profiles paper and official differ here)"])


def graph_line(name: str, graph: NeighborGraph, label: torch.Tensor) -> str:
    between = graph.num_edges - graph.num_nodes
    return (
        f"graph {name}: {graph.num_nodes} nodes, {graph.num_edges} edges with self-loops "
        f"({between / graph.num_nodes:.1f} neighbours a node), homophily {homophily(graph, label):.3f}"
    )


def results_table(config: Config, split: str, per_seed: dict[str, dict], title: str) -> str:
    """Figures in percent, a row a seed, then mean ± sample std and, of test, the paper's; with the notes they need."""
    rows = [("", *METRICS.values())]
    rows += [(row, *(f"{100 * figures[name]:.2f}" for name in METRICS)) for row, figures in per_seed.items()]
    mean, std = mean_and_std(list(per_seed.values()))
    if std:
        rows.append(("mean ± std", *(f"{100 * mean[name]:.2f} ± {100 * std[name]:.2f}" for name in METRICS)))
    paper = printed(config) if split == "test" else None
    if paper:
        rows.append(("paper, as printed", *(f"{paper[name]:.2f}" if name in paper else "–" for name in METRICS)))
    notes = []
    if paper and config.dataset == "IEMOCAP":
        notes.append(SWAPPED)
    if config.dataset == "DEMO":
        notes.append(demo_note())
    return "\n".join([title, *align(rows), *notes])


def demo_note() -> str:
    bound = {name: f"{100 * wa:.1f}" for name, wa in bayes_optimal_wa().items()}
    return (
        "DEMO is synthetic: these figures say that the code works, nothing about speech.\n"
        f"Bayes-optimal WA: {bound['scene']} with the utterance's whole scene, {bound['utterance']} from the utterance "
        f"alone,\n{bound['text']} from its text alone, {bound['audio']} from its audio alone."
    )


def recall_table(class_names: Sequence[str], per_seed: dict[str, dict]) -> str:
    """Per-class recall in percent, a row a seed; a class that the split lacks shows –."""
    rows = [("recall", *class_names)]
    for row, figures in per_seed.items():
        rows.append((row, *("–" if r is None else f"{100 * r:.2f}" for r in figures["recall"])))
    return "\n".join(align(rows))


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns side by side, the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
