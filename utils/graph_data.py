"""A split and its graph, on the device: what the engine trains on and evaluates."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from models.ch_gat import NeighborGraph
from utils.config import Config
from utils.errors import InputError
from utils.features import Features
from utils.graph import NeighborLists, build_graph, neighbor_lists


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


def check_neighbors_of_splits(splits: dict[str, Features], config: Config) -> None:
    """:func:`check_neighbors` of every split."""
    for split, features in splits.items():
        check_neighbors(features, config, None if split == "train" else splits["train"])


@dataclass(frozen=True)
class SplitNodes:
    """The nodes of a split's graph and their neighbour lists, of which every graph with smaller k is a slice."""

    text: Tensor
    audio: Tensor
    label: Tensor
    context: int
    lists: NeighborLists  # on the CPU: a graph is built there, so that it is the same for every device

    def to(self, device: torch.device) -> "SplitNodes":
        return replace(self, **{name: getattr(self, name).to(device) for name in ("text", "audio", "label")})

    def graph_data(self, config: Config) -> GraphData:
        """The graph of ``config``'s k and direction, on the device of the nodes."""
        graph = build_graph(self.lists, config.k_text, config.k_audio, config.message_flow)
        return GraphData(self.text, self.audio, self.label, graph.to(self.text.device), self.context)


def find_neighbors(features: Features, config: Config, train: Features | None = None) -> SplitNodes:
    """The nodes of a split, with lists as long as ``config``'s k.

    Args:
        features: the split.
        train: for val and test, the training split, whose utterances join the graph if ``graph_scope`` says so.
    """
    context = _context(config, train)
    parts = [train, features] if context else [features]
    text, audio, label = (torch.cat([getattr(part, name) for part in parts]) for name in ("text", "audio", "label"))
    lists = neighbor_lists(text, audio, config.k_text, config.k_audio, config.topk_self)
    return SplitNodes(text, audio, label, context, lists)


def prepare(features: Features, config: Config, device: torch.device, train: Features | None = None) -> GraphData:
    """The nodes and the graph of a split for one configuration; arguments as in :func:`find_neighbors`."""
    return find_neighbors(features, config, train).to(device).graph_data(config)


def _context(config: Config, train: Features | None) -> int:
    return len(train) if config.graph_scope == "with_train" and train is not None else 0
