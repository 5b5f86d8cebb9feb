"""Top-K cosine neighbours, the edge set of Eq. (2), and a split with its graph (section II.B.1 of the paper)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from models.config import ModelConfig
from models.ops import NeighborGraph
from utils.config import SPLITS, Config, class_names, known_class_names
from utils.data.features import Features, check_described, check_disjoint, load_splits, read_info
from utils.data.published import find_features
from utils.errors import InputError

_BLOCK_VALUES = 1 << 20  # similarities per block: 8 MiB in float64, about the size of a cache
_LEAST_ROWS = 64  # rows per block, so that each pass over all N embeddings serves many rows
_SIMILARITY_STEPS = 1 << 40  # cosines closer than 1e-12 count as equal: float64 products differ by machine


@dataclass(frozen=True)
class NeighborLists:
    """Neighbours of each node, best first; slice them for a smaller k. Shapes: text [N, K_text], audio [N, K_audio]."""

    text: Tensor
    audio: Tensor


def top_k_neighbors(embeddings: Tensor, k: int, self_rule: str = "mask") -> Tensor:
    """The k most cosine-similar rows of each row, best first; the lower index wins ties (II.B.1).

    The result is exact. Products are computed in float64 and in blocks of rows, never as an N x N matrix. Equal rows
    are computed once, so duplicates have identical similarities. Similarity and index form one integer key, so the
    order does not depend on the device or the sort.

    Args:
        embeddings: [N, D], no zero rows.
        k: number of neighbours, 1 <= k <= N - 1.
        self_rule: ``mask``: a row is never its own neighbour. ``drop_first``: as in the published code, the
            first-ranked row is dropped. Among duplicates, this can be another row; the row then keeps itself.

    Returns:
        Indices [N, k] in int64.

    Raises:
        InputError: k is below 1 or above N - 1.
    """
    n = embeddings.size(0)
    if not 1 <= k <= n - 1:
        raise InputError(f"k = {k}: must be from 1 to {n - 1} for {n} utterances")
    distinct, inverse = torch.unique(embeddings, dim=0, return_inverse=True)
    duplicates = distinct.size(0) < n
    units = unit_rows(distinct if duplicates else embeddings)
    block = max(_LEAST_ROWS, _BLOCK_VALUES // n)
    result = torch.empty(n, k, dtype=torch.long, device=embeddings.device)
    for start in range(0, n, block):
        rows = torch.arange(start, min(start + block, n), device=embeddings.device)
        steps = similarity_steps(units[inverse[rows]] if duplicates else units[rows], units)
        keys = rank_keys(steps[:, inverse] if duplicates else steps)
        if self_rule == "mask":
            keys[rows - start, rows] = torch.iinfo(torch.long).min
            result[rows] = keys.topk(k).indices
        else:
            result[rows] = keys.topk(k + 1).indices[:, 1:]
    return result


def unit_rows(embeddings: Tensor) -> Tensor:
    """L2-normalised rows in float64. Shapes: [N, D] without zero rows to [N, D]."""
    units = embeddings.double()
    return units / units.norm(dim=1, keepdim=True)


def similarity_steps(queries: Tensor, units: Tensor) -> Tensor:
    """Cosine similarities as integers that have the same order on every machine.

    Shapes: queries [B, D] and units [N, D] of :func:`unit_rows`, result [B, N].
    """
    return (queries @ units.T).mul_(_SIMILARITY_STEPS).round_().long()


def rank_keys(steps: Tensor) -> Tensor:
    """Convert similarities [B, N] in place to integers that also rank ties: the lower index first."""
    n = steps.size(1)
    return steps.mul_(n).add_(torch.arange(n - 1, -1, -1, device=steps.device))


def neighbor_lists(text: Tensor, audio: Tensor, k_text: int, k_audio: int, self_rule: str = "mask") -> NeighborLists:
    """Top-K lists of both modalities; an empty list for k = 0. Shapes: text [N, D_text], audio [N, D_audio]."""
    found = (
        top_k_neighbors(embeddings, k, self_rule) if k else torch.empty(len(embeddings), 0, dtype=torch.long)
        for embeddings, k in ((text, k_text), (audio, k_audio))
    )
    return NeighborLists(*found)


def build_graph(
    lists: NeighborLists, k_text: int, k_audio: int, message_flow: str = "neighbors_to_node"
) -> NeighborGraph:
    """The edge set of Eq. (2), with N_i^(t) and N_i^(a) the Top-K text and audio neighbours of node i:

    .. math:: E = \\bigcup_{i=1}^N \\{(i, i)\\} \\cup \\{(i, j) \\mid j \\in N_i^{(t)} \\cup N_i^{(a)}\\}

    Args:
        lists: at least ``k_text`` and ``k_audio`` neighbours per node.
        message_flow: ``neighbors_to_node``, Eq. (2): node i aggregates from j. ``node_to_neighbors``, the published
            code: j aggregates from node i.
    """
    n = lists.text.size(0)
    if k_text > lists.text.size(1) or k_audio > lists.audio.size(1):
        raise ValueError(f"k_text {k_text} or k_audio {k_audio} is longer than the lists")
    itself = torch.arange(n, device=lists.text.device).unsqueeze(1)
    members = torch.cat([itself, lists.text[:, :k_text], lists.audio[:, :k_audio]], dim=1).sort(dim=1).values
    fresh = torch.ones_like(members, dtype=torch.bool)
    fresh[:, 1:] = members[:, 1:] != members[:, :-1]
    node, neighbor = itself.expand_as(members)[fresh], members[fresh]
    source, target = (neighbor, node) if message_flow == "neighbors_to_node" else (node, neighbor)
    return NeighborGraph.from_edges(source, target, n)


def edge_homophily(graph: NeighborGraph, label: Tensor) -> float:
    """Share of the edges between different nodes that join equal labels; NaN without such edges."""
    source, target = graph.edge_index[:, graph.source != graph.target]
    return (label[source] == label[target]).float().mean().item()


@dataclass(frozen=True)
class GraphData:
    """A graph on a device. Shapes: text [N, D_text], audio [N, D_audio], label [N], graph over the N nodes.

    The first ``context`` nodes are neighbours only and are not scored.
    """

    text: Tensor
    audio: Tensor
    label: Tensor
    graph: NeighborGraph
    context: int = 0

    @property
    def scored_label(self) -> Tensor:
        return self.label[self.context :]

    def describe(self) -> dict[str, float]:
        """Number of nodes and edges, and the edge homophily."""
        graph = self.graph
        return {"nodes": graph.num_nodes, "edges": graph.num_edges, "homophily": edge_homophily(graph, self.label)}

    def line(self, name: str) -> str:
        """The description as one line of text."""
        nodes, edges, share = self.describe().values()
        return (
            f"graph {name}: {nodes} nodes, {edges} edges with self-loops "
            f"({(edges - nodes) / nodes:.1f} neighbours per node), homophily {share:.3f}"
        )


def prepare(
    features: Features,
    config: Config,
    device: torch.device,
    train: Features | None = None,
    lists: NeighborLists | None = None,
) -> GraphData:
    """The graph of a split for one configuration. It is built on the CPU, so it is the same for every device.

    Args:
        train: for val and test, the training split. Its utterances join the graph with ``graph_scope="with_train"``,
            and its mean replaces the embeddings of a modality that the ablation removes.
        lists: prepared neighbours, at least ``k_text`` and ``k_audio`` of them.
    """
    text, audio, label, context = _nodes(features, config, train)
    lists = lists or neighbor_lists(text, audio, *config.neighbors, config.topk_self)
    graph = build_graph(lists, *config.neighbors, config.message_flow)
    return GraphData(text.to(device), audio.to(device), label.to(device), graph.to(device), context)


def _nodes(features: Features, config: Config, train: Features | None) -> tuple[Tensor, Tensor, Tensor, int]:
    """Text, audio and label of the nodes of a split's graph, and how many of them are context."""
    context = _context(config, train)
    parts = [train, features] if context else [features]
    text, audio, label = (torch.cat([getattr(part, name) for part in parts]) for name in ("text", "audio", "label"))
    seen = train or features
    return *only_present(config.model, text, audio, seen.text.mean(0), seen.audio.mean(0)), label, context


def only_present(
    model: ModelConfig, text: Tensor, audio: Tensor, text_mean: Tensor, audio_mean: Tensor
) -> tuple[Tensor, Tensor]:
    """The embeddings that the network receives; the mean replaces a modality that the ablation removes.

    Shapes: text [N, D_text], audio [N, D_audio], their means over the training utterances [D_text] and [D_audio].
    """
    return (
        text if model.has("text") else text_mean.expand_as(text),
        audio if model.has("audio") else audio_mean.expand_as(audio),
    )


def check_neighbors(features: Features, config: Config, train: Features | None = None) -> None:
    """Raise an InputError if the graph of :func:`prepare` is too small for ``k_text`` or ``k_audio``."""
    most = len(features) + _context(config, train) - 1
    for name, k in zip(("k_text", "k_audio"), config.neighbors, strict=True):
        if k > most:
            raise InputError(
                f"--{name} {k}: {features.path} has {len(features)} utterances, so each has at most {most} neighbours"
            )


def _context(config: Config, train: Features | None) -> int:
    return len(train) if config.graph_scope == "with_train" and train is not None else 0


@dataclass(frozen=True)
class TrainingData:
    """Features that several runs share. Neighbour lists are computed once and sliced for every smaller k."""

    splits: dict[str, Features]
    class_names: tuple[str, ...]
    _lists: dict[tuple, NeighborLists] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def read(cls, paths: dict[str, Path], dataset: str, num_classes: int | None = None) -> "TrainingData":
        """Read the feature pickles of all splits, and check them against each other and their JSON."""
        names = known_class_names(dataset, read_info(paths["train"]))
        splits, num_classes = load_splits(paths, num_classes or (len(names) if names else None))
        for split, features in splits.items():
            check_described(features, split, names)
        check_disjoint(splits)
        return cls(splits, class_names(dataset, num_classes, names))

    @classmethod
    def find(
        cls,
        config: Config,
        feature_dir: Path,
        given: Mapping[str, str | Path | None],
        download: bool,
        num_classes: int | None = None,
    ) -> "TrainingData":
        """Find the pickles with :func:`~utils.data.published.find_features`, :meth:`read` and :meth:`check` them."""
        paths = find_features(config.dataset, feature_dir, given, download)
        data = cls.read(paths, config.dataset, num_classes)
        data.check(config)
        return data

    @property
    def dims(self) -> tuple[int, int]:
        return self.splits["train"].dims

    def lists(self, split: str, config: Config) -> NeighborLists:
        """The neighbours of a split's nodes; there may be more than the configuration needs."""
        key = split, config.topk_self, config.graph_scope
        known = self._lists.get(key)
        have = (known.text.size(1), known.audio.size(1)) if known else (0, 0)
        if any(k > longest for k, longest in zip(config.neighbors, have, strict=True)):
            text, audio, _, _ = _nodes(self.splits[split], config, self._train(split))
            self._lists[key] = neighbor_lists(text, audio, *config.neighbors, config.topk_self)
        return self._lists[key]

    def graph(self, split: str, config: Config, device: torch.device) -> GraphData:
        """The graph of a split, from the shared neighbours."""
        return prepare(self.splits[split], config, device, self._train(split), self.lists(split, config))

    def check(self, config: Config) -> None:
        """Call :func:`check_neighbors` for every split."""
        for split in SPLITS:
            check_neighbors(self.splits[split], config, self._train(split))

    def prepare(self, configs: Sequence[Config]) -> None:
        """Compute the neighbour lists of all configurations before the first training."""
        groups: dict[tuple, list[Config]] = {}
        for config in configs:
            groups.setdefault((config.topk_self, config.graph_scope), []).append(config)
        for group in groups.values():
            longest = {name: max(getattr(config, name) for config in group) for name in ("k_text", "k_audio")}
            for split in SPLITS:
                self.lists(split, group[0].replace(ablation="none", **longest))

    def _train(self, split: str) -> Features | None:
        return None if split == "train" else self.splits["train"]
