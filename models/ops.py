"""Operations that exist only for speed. Each one names an equivalent plain formulation; tests compare the two.

Sums over edges need no sorting and no atomic additions, forward or backward, because the edges are already in the order
of the nodes that are summed over. Two runs on one device give bit-identical sums.
"""

from dataclasses import dataclass, field
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import FunctionCtx, once_differentiable

_LEVELS = 1 << 16  # values of a 16-bit random number


@dataclass(frozen=True)
class NeighborGraph:
    """The edges of a graph, sorted by target node (compressed sparse rows). Messages flow source -> target, as in PyG.

    Shapes: ``source`` [E] and ``target`` [E] are node indices; ``rowptr`` [N + 1]: the edges into node ``i`` are
    ``rowptr[i]:rowptr[i + 1]``.
    """

    source: Tensor
    target: Tensor
    rowptr: Tensor
    _with_heads: dict[int, "NeighborGraph"] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def from_edges(cls, source: Tensor, target: Tensor, num_nodes: int) -> "NeighborGraph":
        """Sort edges [E] by target. Edges into the same node keep their order."""
        target, order = target.sort(stable=True)
        return cls(source[order], target, _pointers(target, num_nodes))

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

    @cached_property
    def by_source(self) -> tuple[Tensor, Tensor]:
        """The edges sorted by source, for summing gradients. Computed once.

        Returns:
            order [E]: the edges sorted by source; colptr [N + 1]: the edges out of node ``j`` are
            ``order[colptr[j]:colptr[j + 1]]``.
        """
        source, order = self.source.sort(stable=True)
        return order, _pointers(source, self.num_nodes)

    def with_heads(self, heads: int) -> "NeighborGraph":
        """The graph of H attention heads, in which node ``i * H + h`` is head ``h`` of node ``i``. Computed once.

        Each edge of this graph becomes H edges there, one per head.
        """
        if heads not in self._with_heads:
            head = torch.arange(heads, device=self.source.device)
            ends = ((node.unsqueeze(1) * heads + head).flatten() for node in (self.source, self.target))
            self._with_heads[heads] = NeighborGraph.from_edges(*ends, self.num_nodes * heads)
        return self._with_heads[heads]

    def to(self, device: torch.device | str) -> "NeighborGraph":
        return NeighborGraph(self.source.to(device), self.target.to(device), self.rowptr.to(device))


def _pointers(nodes: Tensor, num_nodes: int) -> Tensor:
    """The position at which each node's edges begin in a sorted list of nodes [E], followed by E: [N + 1]."""
    return torch.searchsorted(nodes, torch.arange(num_nodes + 1, device=nodes.device))


def _sums(of_edges: Tensor, pointers: Tensor) -> Tensor:
    """Sum over the edges of each node, [E] to [N]. The sum of a node without edges is 0."""
    return torch.segment_reduce(of_edges, "sum", offsets=pointers)


class _Gather(Function):
    @staticmethod
    def forward(ctx: FunctionCtx, as_source: Tensor, as_target: Tensor, graph: NeighborGraph) -> Tensor:
        ctx.graph = graph
        return as_source.index_select(0, graph.source).add_(as_target.index_select(0, graph.target))

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        order, colptr = ctx.graph.by_source
        return _sums(grad.index_select(0, order), colptr), _sums(grad, ctx.graph.rowptr), None


def gather(as_source: Tensor, as_target: Tensor, graph: NeighborGraph) -> Tensor:
    """Compute one value per edge from its two nodes: ``out[e] = as_source[source[e]] + as_target[target[e]]``.

    Plain formulation: ``as_source[source] + as_target[target]``. Its gradient needs atomic additions or sorting.

    Shapes: as_source and as_target [N], result [E].
    """
    return _Gather.apply(as_source, as_target, graph)


class _EdgeSoftmax(Function):
    @staticmethod
    def forward(ctx: FunctionCtx, scores: Tensor, graph: NeighborGraph) -> Tensor:
        highest = torch.segment_reduce(scores, "max", offsets=graph.rowptr)
        out = (scores - highest.index_select(0, graph.target)).exp_()
        out.div_(_sums(out, graph.rowptr).index_select(0, graph.target))
        ctx.save_for_backward(out)
        ctx.graph = graph
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        (out,) = ctx.saved_tensors
        grad = grad * out
        means = _sums(grad, ctx.graph.rowptr).index_select(0, ctx.graph.target)
        return torch.addcmul(grad, out, means, value=-1), None


def edge_softmax(scores: Tensor, graph: NeighborGraph) -> Tensor:
    """Softmax over the edges into each node.

    Plain formulation: ``torch_geometric.utils.softmax(scores, graph.target)``.

    Shapes: scores [E], result [E].
    """
    return _EdgeSoftmax.apply(scores, graph)


class _Aggregate(Function):
    @staticmethod
    def forward(ctx: FunctionCtx, values: Tensor, weights: Tensor, graph: NeighborGraph, group: int) -> Tensor:
        ctx.save_for_backward(values, weights)
        ctx.graph, ctx.group = graph, group
        return _bags(values, graph.source, graph.rowptr[::group], weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        values, weights = ctx.saved_tensors
        graph, grad = ctx.graph, grad.contiguous()
        order, colptr = graph.by_source
        target = graph.target if ctx.group == 1 else graph.target.div(ctx.group, rounding_mode="floor")
        of_values = _bags(grad, target.index_select(0, order), colptr, weights.index_select(0, order))
        # <grad[target], values[source]> for each edge, without storing [E, C] matrices
        of_weights = torch.ops.aten._embedding_bag_per_sample_weights_backward(
            grad, values, graph.source, graph.rowptr[:: ctx.group], target, mode=0
        )
        return of_values, of_weights, None, None


def _bags(values: Tensor, rows: Tensor, pointers: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums over bags of rows: [R, C] to [N, C]."""
    values, weights = values.detach(), weights.detach()
    return F.embedding_bag(rows, values, pointers[:-1].contiguous(), mode="sum", per_sample_weights=weights)


def aggregate(values: Tensor, weights: Tensor, graph: NeighborGraph, group: int = 1) -> Tensor:
    """Weighted sum over incoming edges: ``out[i] = sum_e weights[e] * values[source[e]]``.

    Plain formulation: gather messages [E, C], multiply, ``scatter_add``. ``embedding_bag`` needs no storage for the
    messages. Its built-in gradient sorts; the gradient here is the same sum over the transposed edges.

    Args:
        group: the number of consecutive nodes to sum over, for example the heads of a node.

    Shapes: values [N, C], weights [E], result [N / group, C].
    """
    return _Aggregate.apply(values, weights, graph, group)


def attention_scores(x: Tensor, weight: Tensor, att_src: Tensor, att_dst: Tensor) -> tuple[Tensor, Tensor]:
    """The two terms of GAT's attention logits, ``a_src^T W x`` and ``a_dst^T W x``, for every node and head.

    Plain formulation: ``h = (x @ weight.T).view(N, H, C)``, then ``(h * att).sum(-1)``. Folding the attention vectors
    into the weight, ``(W^T a)^T x``, replaces both sums over [N, H, C] with products with 2H vectors.

    Shapes: x [N, F], weight [H * C, F], att_src and att_dst [1, H, C], results [N, H] each.
    """
    weight = weight.view(att_src.size(1), att_src.size(2), -1)
    vectors = torch.einsum("shc,hcf->shf", torch.cat([att_src, att_dst]), weight)
    as_source, as_target = F.linear(x, vectors.flatten(0, 1)).chunk(2, dim=1)
    return as_source, as_target


class _ShiftedConv1d(Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, kernel: Tensor) -> Tensor:
        ctx.save_for_backward(x, kernel)
        return _weighted_shifts(x, kernel)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, kernel = ctx.saved_tensors
        of_kernel = torch.stack([(grad * shifted).sum() for shifted in _shifts(x, kernel.numel())])
        return _weighted_shifts(grad, kernel.flip(0)), of_kernel


def _shifts(x: Tensor, size: int) -> list[Tensor]:
    """``x[:, i + j - size // 2]`` for each ``j`` below ``size``; zeros beyond the ends. Views of one tensor."""
    padded = F.pad(x, (size // 2, size // 2))
    return [padded[:, j : j + x.size(1)] for j in range(size)]


def _weighted_shifts(x: Tensor, kernel: Tensor) -> Tensor:
    first, *others = _shifts(x, kernel.numel())
    out = first * kernel[0]
    for shifted, weight in zip(others, kernel[1:], strict=True):
        out.addcmul_(shifted, weight)
    return out


def shifted_conv1d(x: Tensor, kernel: Tensor) -> Tensor:
    """Convolution along each row with zero padding, ``out[n, i] = sum_j kernel[j] * x[n, i + j - K // 2]``.

    Plain formulation: ``F.conv1d(x[:, None], kernel[None, None], padding=K // 2)[:, 0]``. That is slow on CPUs,
    because with a single channel the library cannot use a matrix product.

    Shapes: x [N, D], kernel [K] with odd K, result [N, D].
    """
    return _ShiftedConv1d.apply(x, kernel)


class Dropout(nn.Dropout):
    """:class:`torch.nn.Dropout` (the plain formulation) with 16 random bits per element on a CPU.

    On a CPU, ``nn.Dropout`` draws one Bernoulli variable per element on a single thread, which takes longer than some
    matrix products of a full batch. This class uses one 64-bit draw for four elements. It rounds ``p`` to a multiple of
    1/65536 and scales the kept values by the rounded rate, which keeps the expectation exact.
    """

    def forward(self, x: Tensor) -> Tensor:
        dropped = min(round(self.p * _LEVELS), _LEVELS - 1)
        if not self.training or dropped == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p)
        draws = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(1 << 63), None)
        level = draws.view(torch.int16)[: x.numel()].view(x.shape)  # -32768 .. 32767
        keep = torch.ge(level, dropped - _LEVELS // 2, out=torch.empty_like(x, requires_grad=False))
        return x * keep.mul_(_LEVELS / (_LEVELS - dropped))
