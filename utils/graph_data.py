"""A split and its graph, on the device: what the engine trains on and evaluates."""

from dataclasses import dataclass

import torch
from torch import Tensor

from models.ch_gat import NeighborGraph
from utils.config import Config
from utils.errors import InputError
from utils.features import Features
from utils.graph import build_graph, neighbor_lists


@dataclass(frozen=True)
class GraphData:
    """One graph on the device. Shapes: text [N, D_text], audio [N, D_audio], label [N], graph over the N nodes.

    The first ``context`` nodes are neighbours only: they are not scored.
    """

    text: Tensor
    audio: Tensor
    label: Tensor
    graph: NeighborGraph
    context: int = 0

    @property
    def scored_label(self) -> Tensor:
        return self.label[self.context :]


def check_neighbors(features: Features, config: Config, train: Features | None = None) -> None:
    """Raise an InputError where the graph of :func:`prepare` is too small for ``k_text`` or ``k_audio``."""
    most = len(features) + _context(config, train) - 1
    for name in ("k_text", "k_audio"):
        if getattr(config, name) > most:
            raise InputError(
                f"--{name} {getattr(config, name)}: {features.path} has {len(features)} utterances, "
                f"so that each has {most} neighbours at most"
            )


def prepare(features: Features, config: Config, device: torch.device, train: Features | None = None) -> GraphData:
    """Build the graph of a split, always on the CPU so that it is the same for every device, and move it there.

    Args:
        features: the split.
        train: for val and test, the training split, whose utterances join the graph if ``graph_scope`` says so.
    """
    context = _context(config, train)
    parts = [train, features] if context else [features]
    text, audio, label = (torch.cat([getattr(part, name) for part in parts]) for name in ("text", "audio", "label"))
    lists = neighbor_lists(text, audio, config.k_text, config.k_audio, config.topk_self)
    graph = build_graph(lists, config.k_text, config.k_audio, config.message_flow)
    return GraphData(text.to(device), audio.to(device), label.to(device), graph.to(device), context)


def _context(config: Config, train: Features | None) -> int:
    return len(train) if config.graph_scope == "with_train" and train is not None else 0
