"""CH-GAT: graph attention over the Top-K text and audio neighbours (section II.B of the paper)."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import GATConv
from torch_geometric.utils import softmax

from models.dropout import Dropout

NORMS = ("layer", "batch", "shared_batch")
RESIDUALS = ("none", "middle", "projection")
LAST_HEADS = ("average", "single")


@dataclass(frozen=True)
class NeighborGraph:
    """The edge set of Eq. (2), sorted by the node that receives (compressed sparse rows).

    Shapes: ``source`` [E] and ``target`` [E] are node indices, ``offsets`` [N + 1] says that the edges
    ``offsets[i]:offsets[i + 1]`` are those into node ``i``. Messages flow source -> target, as in PyG.
    """

    source: Tensor
    target: Tensor
    offsets: Tensor
    _by_head: dict[int, tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict, init=False, repr=False)

    @property
    def num_nodes(self) -> int:
        return self.offsets.numel() - 1

    @property
    def num_edges(self) -> int:
        return self.source.numel()

    @property
    def edge_index(self) -> Tensor:
        """PyG's form of the same edges, [2, E]."""
        return torch.stack([self.source, self.target])

    def by_head(self, heads: int) -> tuple[Tensor, Tensor, Tensor]:
        """What :func:`aggregate` needs of H heads, made once a graph.

        Returns:
            rows [E * H]: ``source * H + head`` of each (edge, head) pair; order [E * H]: those pairs by target, then
            head; starts [N * H]: where the pairs of each (target, head) begin in that order.
        """
        if heads not in self._by_head:
            head = torch.arange(heads, device=self.source.device)
            rows, bags = ((node.unsqueeze(1) * heads + head).flatten() for node in (self.source, self.target))
            starts = self.offsets[:-1].unsqueeze(1) * heads + self.offsets.diff().unsqueeze(1) * head
            self._by_head[heads] = rows, bags.argsort(stable=True), starts.flatten()
        return self._by_head[heads]

    def to(self, device: torch.device | str) -> "NeighborGraph":
        return NeighborGraph(self.source.to(device), self.target.to(device), self.offsets.to(device))


def aggregate(values: Tensor, weights: Tensor, graph: NeighborGraph, average: bool = False) -> Tensor:
    """Weighted sum over the edges into each node: out[i, h] = sum_e weights[e, h] * values[source[e], h].

    Stock message passing builds the [E, H, C] messages first; ``embedding_bag`` sums them as it reads them.

    Args:
        average: return the mean over the heads, [N, C], summed as one bag a node.

    Shapes: values [N, H, C], weights [E, H], result [N, H, C].
    """
    _, heads, channels = values.shape
    rows, order, starts = graph.by_head(heads)
    weights = weights.flatten()
    if average:
        starts, weights = graph.offsets[:-1] * heads, weights / heads
    else:
        rows, weights = rows.index_select(0, order), weights.index_select(0, order)
    out = F.embedding_bag(rows, values.reshape(-1, channels), starts, mode="sum", per_sample_weights=weights)
    return out if average else out.view(-1, heads, channels)


class CSRGATConv(GATConv):
    """PyG's :class:`GATConv` (same parameters, same names, same result) that aggregates with :func:`aggregate`.

    The graph must already hold the self-loops, as Eq. (2) says; none are added here.
    Shapes: x [N, F_in], result [N, H * C] where heads are concatenated, else their mean [N, C].
    """

    def __init__(self, in_channels: int, out_channels: int, heads: int, concat: bool):
        super().__init__(in_channels, out_channels, heads=heads, concat=concat, add_self_loops=False)

    def forward(self, x: Tensor, graph: NeighborGraph) -> Tensor:
        h = self.lin(x).view(-1, self.heads, self.out_channels)
        # a^T (W x) = (W^T a)^T x: products with 2H vectors in place of sums over the [N, H, C] of each score
        weight = self.lin.weight.view(self.heads, self.out_channels, -1)
        vectors = torch.einsum("shc,hcf->shf", torch.cat([self.att_src, self.att_dst]), weight)
        as_source, as_target = F.linear(x, vectors.flatten(0, 1)).chunk(2, dim=1)  # [N, H] each
        # index_select, whose gradient is summed in order: that of x[index] is summed atomically on several threads
        score = as_source.index_select(0, graph.source) + as_target.index_select(0, graph.target)
        alpha = softmax(F.leaky_relu(score, self.negative_slope), graph.target, num_nodes=graph.num_nodes)
        return aggregate(h, alpha, graph, average=not self.concat).flatten(1) + self.bias


class CHGAT(nn.Module):
    """A stack of graph attention layers: heads concatenated in the hidden layers, averaged in the last (II.B.2).

    Args:
        in_channels: width of a node, text and audio together (Eq. 1).
        hidden_dim: channels of one head, and of the result.
        heads: attention heads of a hidden layer.
        num_layers: GAT layers in all, at least 2.
        dropout: on the middle layers (``residual="middle"``) or on each hidden layer (``"projection"``).
        norm: after a hidden layer: ``layer`` or ``batch``, one for each layer, or ``shared_batch``, one for all.
        last_heads: the last layer has ``heads`` heads that are averaged, or a ``single`` one.
        residual: ``projection``, around every layer, a learned projection where the width changes; ``middle``, around
            the middle layers alone; ``none``.
        layer_scale: initial value of a learned gate on each layer's output, one a channel; 0 for no gate.

    Shapes: x [N, in_channels], result [N, hidden_dim].
    """

    def __init__(
        self,
        in_channels: int,
        hidden_dim: int,
        heads: int = 4,
        num_layers: int = 3,
        dropout: float = 0.3,
        norm: str = "layer",
        last_heads: str = "average",
        residual: str = "projection",
        layer_scale: float = 0.1,
    ):
        super().__init__()
        if num_layers < 2:
            raise ValueError(f"num_layers must be at least 2, not {num_layers}")
        if norm not in NORMS or residual not in RESIDUALS or last_heads not in LAST_HEADS:
            raise ValueError(f"unknown norm {norm!r}, residual {residual!r} or last_heads {last_heads!r}")
        hidden = hidden_dim * heads
        widths = [in_channels] + [hidden] * (num_layers - 1)
        self.residual = residual
        self.convs = nn.ModuleList(CSRGATConv(width, hidden_dim, heads, concat=True) for width in widths[:-1])
        self.convs.append(CSRGATConv(hidden, hidden_dim, heads if last_heads == "average" else 1, concat=False))
        self.norms = nn.ModuleList(_norms(norm, hidden, num_layers - 1))
        self.dropout = Dropout(dropout)
        outs = [hidden] * (num_layers - 1) + [hidden_dim]
        self.skips = nn.ModuleList(
            nn.Identity() if i == o else nn.Linear(i, o, bias=False)
            for i, o in zip(widths, outs, strict=True)
            if residual == "projection"
        )
        self.scales = nn.ParameterList(torch.full((o,), layer_scale) for o in outs if layer_scale)

    def forward(self, x: Tensor, graph: NeighborGraph) -> Tensor:
        return self._layer(len(self.convs) - 1, self.layer_inputs(x, graph)[-1], graph)

    def layer_inputs(self, x: Tensor, graph: NeighborGraph) -> list[Tensor]:
        """What each layer reads: x itself [N, in_channels], then the hidden layers' outputs [N, hidden_dim * heads]."""
        inputs = [x]
        for i in range(len(self.convs) - 1):
            inputs.append(self._layer(i, inputs[-1], graph))
        return inputs

    def join(self, x: Tensor, inputs: list[Tensor], graph: NeighborGraph) -> Tensor:
        """New nodes that read from those of another graph, whose values stay as they are.

        Args:
            x: the new nodes, [B, in_channels].
            inputs: :meth:`layer_inputs` of the M nodes that they read from.
            graph: over the M nodes and then the B new ones, with edges into the new ones alone.

        Returns:
            [B, hidden_dim].
        """
        for i, known in enumerate(inputs):
            x = self._layer(i, torch.cat([known, x]), graph)[len(known) :]
        return x

    def _layer(self, i: int, x: Tensor, graph: NeighborGraph) -> Tensor:
        last = len(self.convs) - 1
        h = self.convs[i](x, graph)
        if i < last:
            h = F.leaky_relu(self.norms[i](h))
        if self.scales:
            h = h * self.scales[i]
        if self.skips:
            h = self.skips[i](x) + (self.dropout(h) if i < last else h)
        elif self.residual == "middle" and 0 < i < last:
            h = x + self.dropout(h)
        return h


def _norms(kind: str, width: int, count: int) -> list[nn.Module]:
    if kind == "shared_batch":
        return [nn.BatchNorm1d(width)] * count
    make = nn.LayerNorm if kind == "layer" else nn.BatchNorm1d
    return [make(width) for _ in range(count)]
