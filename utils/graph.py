"""Top-K cosine neighbours and the edge set of Eq. (2)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from models.ch_gat import NeighborGraph
from utils.errors import InputError

TOPK_SELF = ("mask", "drop_first")
GRAPH_SCOPES = ("split", "with_train")
MESSAGE_FLOWS = ("neighbors_to_node", "node_to_neighbors")
_BLOCK_VALUES = 1 << 20  # similarities of a block: 8 MiB in float64, about what a cache holds
_LEAST_ROWS = 64  # of a block, so that a product reads all N embeddings for more than a few rows
_SIMILARITY_STEPS = 1 << 40  # cosines nearer than 1e-12 count as equal: below it float64 products differ by machine


@dataclass(frozen=True)
class NeighborLists:
    """Neighbours of each node, best first; a smaller k is a slice. Shapes: text [N, K_text], audio [N, K_audio]."""

    text: Tensor
    audio: Tensor


def top_k_neighbors(embeddings: Tensor, k: int, self_rule: str = "mask") -> Tensor:
    """The k most cosine-similar rows of each row, best first, ties by lower index (II.B.1).

    Exact: float64 products in blocks of rows (never N x N), equal rows computed once, so that duplicates tie to the
    last bit. A similarity and an index share one integer key, so the order does not depend on the device or the sort.

    Args:
        embeddings: [N, D], no zero rows.
        k: neighbours, 1 <= k <= N - 1.
        self_rule: ``mask``: a row is never its own neighbour. ``drop_first``: the published code, which drops
            whatever ranks first; among duplicates that is another row, and the row then keeps itself.

    Returns:
        [N, k] indices in int64.

    Raises:
        InputError: k is below 1 or above N - 1.
    """
    if self_rule not in TOPK_SELF:
        raise ValueError(f"unknown self_rule {self_rule!r}")
    n = embeddings.size(0)
    if not 1 <= k <= n - 1:
        raise InputError(f"k = {k}: each of {n} utterances has 1 to {n - 1} neighbours")
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
    """Rows of length 1 in float64. Shapes: [N, D], no zero rows, to [N, D]."""
    units = embeddings.double()
    return units / units.norm(dim=1, keepdim=True)


def similarity_steps(queries: Tensor, units: Tensor) -> Tensor:
    """Cosine similarities as whole numbers of steps, so that their order does not depend on the machine.

    Shapes: queries [B, D] and units [N, D] of :func:`unit_rows`, result [B, N].
    """
    return (queries @ units.T).mul_(_SIMILARITY_STEPS).round_().long()


def rank_keys(steps: Tensor) -> Tensor:
    """In place of similarities [B, N], whole numbers that also rank equal ones: the lower index first."""
    n = steps.size(1)
    return steps.mul_(n).add_(torch.arange(n - 1, -1, -1, device=steps.device))


def neighbor_lists(text: Tensor, audio: Tensor, k_text: int, k_audio: int, self_rule: str = "mask") -> NeighborLists:
    """Top-K lists of both modalities. Shapes: text [N, D_text], audio [N, D_audio]."""
    return NeighborLists(top_k_neighbors(text, k_text, self_rule), top_k_neighbors(audio, k_audio, self_rule))


def build_graph(
    lists: NeighborLists, k_text: int, k_audio: int, message_flow: str = "neighbors_to_node"
) -> NeighborGraph:
    """Eq. (2): each node joined to itself and to the union of its Top-K text and audio neighbours.

    Args:
        lists: neighbours, at least ``k_text`` and ``k_audio`` of them a node.
        message_flow: ``neighbors_to_node``, Eq. (2): node i aggregates from its neighbours;
            ``node_to_neighbors``, the published code: its neighbours aggregate from node i.
    """
    if message_flow not in MESSAGE_FLOWS:
        raise ValueError(f"unknown message_flow {message_flow!r}")
    n = lists.text.size(0)
    if k_text > lists.text.size(1) or k_audio > lists.audio.size(1):
        raise ValueError(f"k_text {k_text} or k_audio {k_audio} is longer than the lists")
    itself = torch.arange(n, device=lists.text.device).unsqueeze(1)
    members = torch.cat([itself, lists.text[:, :k_text], lists.audio[:, :k_audio]], dim=1).sort(dim=1).values
    fresh = torch.ones_like(members, dtype=torch.bool)
    fresh[:, 1:] = members[:, 1:] != members[:, :-1]
    node = itself.expand_as(members)[fresh]
    neighbor = members[fresh]
    source, target = neighbor, node
    if message_flow == "node_to_neighbors":
        order = neighbor.argsort(stable=True)
        source, target = node[order], neighbor[order]
    offsets = torch.zeros(n + 1, dtype=torch.long, device=node.device)
    offsets[1:] = torch.bincount(target, minlength=n).cumsum(0)
    return NeighborGraph(source, target, offsets)


def homophily(graph: NeighborGraph, label: Tensor) -> float:
    """Share of the edges between different nodes that join equal labels (self-loops say nothing). NaN without edges."""
    between = graph.source != graph.target
    return (label[graph.source] == label[graph.target])[between].float().mean().item()
