"""CH-GAT: graph attention over the Top-K text and audio neighbours (section II.B of the paper)."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.config import ModelConfig
from models.ops import Dropout, NeighborGraph, aggregate, attention_scores, edge_softmax, gather

NEGATIVE_SLOPE = 0.2  # LeakyReLU of the attention scores, as in PyG


class CSRGATConv(nn.Module):
    """PyG's ``GATConv`` on a :class:`NeighborGraph`, with the same parameters, names, initial values and results.

    The graph already contains the self-loops of Eq. (2). Node ``i`` aggregates over its edges ``j -> i``:

    .. math::
        \\alpha_{ij} &= \\mathrm{softmax}_j\\,\\mathrm{LeakyReLU}_{0.2}(a_{src}^T W x_j + a_{dst}^T W x_i) \\\\
        x_i' &= \\textstyle\\sum_j \\alpha_{ij} W x_j + b

    for each head; the heads are concatenated in a hidden layer and averaged in the last one (II.B.2).

    Shapes: x [N, F_in], result [N, H * C] with concatenated heads, otherwise [N, C].
    """

    def __init__(self, in_channels: int, out_channels: int, heads: int, concat: bool):
        super().__init__()
        self.in_channels, self.out_channels, self.heads, self.concat = in_channels, out_channels, heads, concat
        self.lin = nn.Linear(in_channels, heads * out_channels, bias=False)
        self.att_src = nn.Parameter(torch.empty(1, heads, out_channels))
        self.att_dst = nn.Parameter(torch.empty(1, heads, out_channels))
        self.bias = nn.Parameter(torch.zeros(heads * out_channels if concat else out_channels))
        for weight in (self.lin.weight, self.att_src[0], self.att_dst[0]):
            nn.init.xavier_uniform_(weight)

    def forward(self, x: Tensor, graph: NeighborGraph) -> Tensor:
        graph = graph.with_heads(self.heads)
        alpha = self._alpha(x, graph)
        values = self.lin(x).view(-1, self.out_channels)  # [N * H, C]
        if self.concat:
            return aggregate(values, alpha, graph).view(-1, self.heads * self.out_channels) + self.bias
        return aggregate(values, alpha / self.heads, graph, group=self.heads) + self.bias

    def attention(self, x: Tensor, graph: NeighborGraph) -> Tensor:
        """The attention weights of :meth:`forward`, [E, H]. For each head, the weights into one node sum to 1."""
        head = torch.arange(self.heads, device=x.device)
        order = (graph.target.unsqueeze(1) * self.heads + head).flatten().sort(stable=True).indices  # as in with_heads
        alpha = self._alpha(x, graph.with_heads(self.heads))
        return torch.empty_like(alpha).index_copy(0, order, alpha).view(-1, self.heads)

    def _alpha(self, x: Tensor, graph: NeighborGraph) -> Tensor:
        """The attention weight of each edge in the graph of all heads, [E * H]."""
        as_source, as_target = attention_scores(x, self.lin.weight, self.att_src, self.att_dst)  # [N, H] each
        scores = F.leaky_relu(gather(as_source.flatten(), as_target.flatten(), graph), NEGATIVE_SLOPE)
        return edge_softmax(scores, graph)


class GATBlock(nn.Module):
    """One layer of CH-GAT: ``skip(x) + dropout(scale * activation(norm(GAT(x))))``.

    Args:
        conv: the attention layer.
        norm, activation: identities in the last layer.
        skip: the residual connection; None for no residual.
        layer_scale: initial value of LayerScale, one learned factor per channel. 0 disables it.

    Shapes: x [N, F_in], result [N, width].
    """

    def __init__(
        self,
        conv: CSRGATConv,
        norm: nn.Module,
        activation: nn.Module,
        skip: nn.Module | None,
        layer_scale: float,
        dropout: float,
    ):
        super().__init__()
        self.conv, self.norm, self.activation, self.skip = conv, norm, activation, skip
        width = conv.out_channels * (conv.heads if conv.concat else 1)
        self.scale = nn.Parameter(torch.full((width,), layer_scale)) if layer_scale else None
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, graph: NeighborGraph) -> Tensor:
        h = self.activation(self.norm(self.conv(x, graph)))
        if self.scale is not None:
            h = h * self.scale
        h = self.dropout(h)
        return h if self.skip is None else self.skip(x) + h


class CHGAT(nn.Module):
    """A stack of graph attention layers (II.B.2).

    Shapes: x [N, 2 * hidden_dim], text and audio side by side (Eq. 1); result [N, hidden_dim].
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        dim, heads, hidden_layers = config.hidden_dim, config.heads, config.num_layers - 1
        widths = [2 * dim] + [dim * heads] * hidden_layers + [dim]  # input of each layer, then the output
        convs = [CSRGATConv(width, dim, heads, concat=True) for width in widths[:hidden_layers]]
        convs.append(CSRGATConv(dim * heads, dim, heads if config.gat_last_heads == "average" else 1, concat=False))
        norms = _norms(config.gat_norm, dim * heads, hidden_layers)
        skips = _skips(config.gat_residual, widths)
        # as in the published code, a layer without a residual has no dropout
        rates = [config.dropout if skip is not None else 0.0 for skip in skips[:-1]] + [0.0]
        activations = [nn.LeakyReLU(inplace=True) for _ in range(hidden_layers)] + [nn.Identity()]
        self.blocks = nn.ModuleList(
            GATBlock(conv, norm, activation, skip, config.gat_layer_scale, rate)
            for conv, norm, activation, skip, rate in zip(convs, norms, activations, skips, rates, strict=True)
        )

    def forward(self, x: Tensor, graph: NeighborGraph) -> Tensor:
        for block in self.blocks:
            x = block(x, graph)
        return x

    def layer_inputs(self, x: Tensor, graph: NeighborGraph) -> list[Tensor]:
        """The input of each layer: x itself [N, 2 * hidden_dim], then the hidden layers' outputs."""
        inputs = [x]
        for block in self.blocks[:-1]:
            inputs.append(block(inputs[-1], graph))
        return inputs

    def attach(self, x: Tensor, inputs: list[Tensor], graph: NeighborGraph) -> Tensor:
        """Inductive inference: new nodes aggregate from known nodes, whose values do not change.

        Args:
            x: the new nodes, [B, 2 * hidden_dim].
            inputs: :meth:`layer_inputs` of the M known nodes.
            graph: a graph over the M known nodes, then the B new ones. Every edge ends at a new node.

        Returns:
            [B, hidden_dim].
        """
        for block, known in zip(self.blocks, inputs, strict=True):
            x = block(torch.cat([known, x]), graph)[len(known) :]
        return x

    def attached_attention(self, x: Tensor, inputs: list[Tensor], graph: NeighborGraph) -> Tensor:
        """The attention weight of each edge in each layer of :meth:`attach`, averaged over heads: [num_layers, E]."""
        weights = []
        for block, known in zip(self.blocks, inputs, strict=True):
            nodes = torch.cat([known, x])
            weights.append(block.conv.attention(nodes, graph).mean(1))
            x = block(nodes, graph)[len(known) :]
        return torch.stack(weights)


def _norms(kind: str, width: int, hidden_layers: int) -> list[nn.Module]:
    """The norm of each layer. The last layer has none."""
    if kind == "shared_batch":
        hidden = [nn.BatchNorm1d(width)] * hidden_layers
    else:
        norm = nn.LayerNorm if kind == "layer" else nn.BatchNorm1d
        hidden = [norm(width) for _ in range(hidden_layers)]
    return [*hidden, nn.Identity()]


def _skips(kind: str, widths: list[int]) -> list[nn.Module | None]:
    """The residual connection of each layer."""
    layers = len(widths) - 1
    if kind == "projection":
        return [nn.Identity() if i == o else nn.Linear(i, o, bias=False) for i, o in pairwise(widths)]
    middle = [nn.Identity() if kind == "middle" else None for _ in range(layers - 2)]
    return [None, *middle, None]
