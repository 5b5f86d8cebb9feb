"""What is there for speed alone. Each operation names its plain formulation; a test holds the two equal."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LEVELS = 1 << 16  # of a 16-bit random number


@dataclass(frozen=True)
class NeighborGraph:
    """The edges of a graph sorted by target node (compressed sparse rows). Messages flow source -> target, as in PyG.

    Shapes: ``source`` [E] and ``target`` [E] are node indices; ``rowptr`` [N + 1]: the edges into node ``i`` are
    ``rowptr[i]:rowptr[i + 1]``.
    """

    source: Tensor
    target: Tensor
    rowptr: Tensor
    _by_head: dict[int, tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def from_edges(cls, source: Tensor, target: Tensor, num_nodes: int) -> "NeighborGraph":
        """Sort edges [E] by target. The edges into one node keep their order."""
        order = target.argsort(stable=True)
        rowptr = torch.zeros(num_nodes + 1, dtype=torch.long, device=target.device)
        rowptr[1:] = torch.bincount(target, minlength=num_nodes).cumsum(0)
        return cls(source[order], target[order], rowptr)

    @property
    def num_nodes(self) -> int:
        return self.rowptr.numel() - 1

    @property
    def num_edges(self) -> int:
        return self.source.numel()

    @property
    def edge_index(self) -> Tensor:
        """The same edges in PyG's format, [2, E]."""
        return torch.stack([self.source, self.target])

    def by_head(self, heads: int) -> tuple[Tensor, Tensor, Tensor]:
        """The bags of :func:`aggregate` for H heads, computed once per graph.

        Returns:
            rows [E * H]: ``source * H + head`` of each (edge, head) pair; order [E * H]: the pairs sorted by target,
            then head; starts [N * H]: where the pairs of each (target, head) begin in that order.
        """
        if heads not in self._by_head:
            head = torch.arange(heads, device=self.source.device)
            rows, bags = ((node.unsqueeze(1) * heads + head).flatten() for node in (self.source, self.target))
            starts = self.rowptr[:-1].unsqueeze(1) * heads + self.rowptr.diff().unsqueeze(1) * head
            self._by_head[heads] = rows, bags.argsort(stable=True), starts.flatten()
        return self._by_head[heads]

    def to(self, device: torch.device | str) -> "NeighborGraph":
        return NeighborGraph(self.source.to(device), self.target.to(device), self.rowptr.to(device))


def aggregate(values: Tensor, weights: Tensor, graph: NeighborGraph, average: bool = False) -> Tensor:
    """Weighted sum over incoming edges: ``out[i, h] = sum_e weights[e, h] * values[source[e], h]``.

    Plain formulation: gather messages [E, H, C], multiply, ``scatter_add``. ``embedding_bag`` sums as it reads, without
    the messages.

    Args:
        average: return the mean over the heads, [N, C].

    Shapes: values [N, H, C], weights [E, H], result [N, H, C].
    """
    _, heads, channels = values.shape
    rows, order, starts = graph.by_head(heads)
    weights = weights.flatten()
    if average:
        starts, weights = graph.rowptr[:-1] * heads, weights / heads
    else:
        rows, weights = rows.index_select(0, order), weights.index_select(0, order)
    out = F.embedding_bag(rows, values.reshape(-1, channels), starts, mode="sum", per_sample_weights=weights)
    return out if average else out.view(-1, heads, channels)


def attention_scores(x: Tensor, weight: Tensor, att_src: Tensor, att_dst: Tensor) -> tuple[Tensor, Tensor]:
    """The two terms of GAT's attention logits, ``a_src^T W x`` and ``a_dst^T W x``, of every node and head.

    Plain formulation: ``h = (x @ weight.T).view(N, H, C)``, then ``(h * att).sum(-1)``. Folding the attention vectors
    into the weight, ``(W^T a)^T x``, replaces both sums over [N, H, C] by products with 2H vectors.

    Shapes: x [N, F], weight [H * C, F], att_src and att_dst [1, H, C], results [N, H] each.
    """
    weight = weight.view(att_src.size(1), att_src.size(2), -1)
    vectors = torch.einsum("shc,hcf->shf", torch.cat([att_src, att_dst]), weight)
    as_source, as_target = F.linear(x, vectors.flatten(0, 1)).chunk(2, dim=1)
    return as_source, as_target


def shifted_conv1d(x: Tensor, kernel: Tensor) -> Tensor:
    """Convolution along each row with zero padding, ``out[n, i] = sum_j kernel[j] * x[n, i + j - K // 2]``.

    Plain formulation: ``F.conv1d(x[:, None], kernel[None, None], padding=K // 2)[:, 0]``. One channel gives the library
    no matrix product to use, and it is slow on CPUs.

    Shapes: x [N, D], kernel [K] with odd K, result [N, D].
    """
    width = x.size(1)
    padded = F.pad(x, (kernel.numel() // 2,) * 2)
    out = padded[:, :width] * kernel[0]
    for j in range(1, kernel.numel()):
        out = torch.addcmul(out, padded[:, j : j + width], kernel[j])
    return out


class Dropout(nn.Dropout):
    """:class:`torch.nn.Dropout` (the plain formulation) with 16 random bits per element on a CPU.

    There ``nn.Dropout`` draws one Bernoulli variable per element on a single thread, which takes longer than some
    matrix products of a full batch. Here one 64-bit draw serves four elements. ``p`` is rounded to a multiple of
    1/65536, and the kept values are scaled by the rounded rate, which keeps the expectation exact.
    """

    def forward(self, x: Tensor) -> Tensor:
        dropped = min(round(self.p * _LEVELS), _LEVELS - 1)
        if not self.training or dropped == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p)
        draws = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(1 << 63), None)
        level = draws.view(torch.int16)[: x.numel()].view(x.shape)  # -32768 .. 32767
        keep = (level >= dropped - _LEVELS // 2).to(x.dtype)
        return x * keep.mul_(_LEVELS / (_LEVELS - dropped))
