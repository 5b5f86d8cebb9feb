"""Compare each operation with the plain formulation that it replaces."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch_geometric.utils import softmax

from models.ops import (
    Dropout,
    NeighborGraph,
    aggregate,
    attention_scores,
    edge_softmax,
    gather,
    shifted_conv1d,
)


def test_edges_are_sorted_by_target_and_keep_their_order():
    source, target = torch.tensor([3, 1, 0, 2, 1]), torch.tensor([2, 0, 2, 0, 3])
    graph = NeighborGraph.from_edges(source, target, num_nodes=4)
    assert graph.source.tolist() == [1, 2, 3, 0, 1]
    assert graph.target.tolist() == [0, 0, 2, 2, 3]
    assert graph.rowptr.tolist() == [0, 2, 2, 4, 5]


def uneven_graph(heads: int = 1) -> NeighborGraph:
    """7 nodes: 2 and 5 receive nothing, 6 sends nothing, 0 receives from all others, 4 and itself twice."""
    source = torch.tensor([0, 1, 2, 3, 4, 4, 5, 0, 1, 1, 3, 0])
    target = torch.tensor([0, 0, 0, 0, 0, 0, 0, 0, 1, 3, 4, 6])
    return NeighborGraph.from_edges(source, target, num_nodes=7).with_heads(heads)


def test_a_graph_with_heads_joins_equal_heads_of_the_same_nodes():
    graph, of_heads = uneven_graph(), uneven_graph(heads=3)
    edges = list(zip(graph.source.tolist(), graph.target.tolist(), strict=True))
    expected = sorted(((3 * s + h, 3 * t + h) for s, t in edges for h in range(3)), key=lambda edge: edge[1])
    assert list(zip(of_heads.source.tolist(), of_heads.target.tolist(), strict=True)) == expected
    assert of_heads.num_nodes == 21
    assert graph.with_heads(3) is graph.with_heads(3)


def test_edges_in_transposed_order():
    graph = uneven_graph()
    order, colptr = graph.by_source
    assert graph.source[order].tolist() == sorted(graph.source.tolist())
    assert colptr.diff().tolist() == torch.bincount(graph.source, minlength=7).tolist()


def test_gather_is_the_sum_of_both_ends():
    graph = uneven_graph()
    as_source, as_target = torch.randn(2, 7)
    assert torch.equal(gather(as_source, as_target, graph), as_source[graph.source] + as_target[graph.target])


def test_edge_softmax_is_that_of_pyg():
    graph = uneven_graph()
    for scores in (torch.randn(12), 1e4 * torch.randn(12), torch.full((12,), -1e30)):
        assert torch.allclose(edge_softmax(scores, graph), softmax(scores, graph.target, num_nodes=7), atol=1e-6)


def test_aggregate_is_the_weighted_sum_over_incoming_edges():
    graph = uneven_graph(heads=2)
    values, weights = torch.randn(14, 4), torch.randn(24)
    expected = torch.zeros(14, 4)
    for edge in range(24):
        expected[graph.target[edge]] += weights[edge] * values[graph.source[edge]]
    assert torch.allclose(aggregate(values, weights, graph), expected, atol=1e-6)
    assert torch.allclose(aggregate(values, weights, graph, group=2), expected.view(7, 2, 4).sum(1), atol=1e-6)


@pytest.mark.parametrize(
    "operation, shapes",
    [
        (gather, [(14,), (14,)]),
        (edge_softmax, [(24,)]),
        (aggregate, [(14, 3), (24,)]),
        (partial(aggregate, group=2), [(14, 3), (24,)]),
    ],
)
def test_gradients_of_operations_on_edges(operation, shapes):
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    assert torch.autograd.gradcheck(lambda *inputs: operation(*inputs, graph=uneven_graph(heads=2)), inputs)


@pytest.mark.parametrize("size", [1, 7])
def test_gradients_of_the_convolution_by_shifts(size):
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in ((3, 9), (size,))]
    assert torch.autograd.gradcheck(shifted_conv1d, inputs)


def test_attention_scores_are_the_sums_over_the_projected_features():
    x, weight = torch.randn(7, 5), torch.randn(6, 5)
    att = [torch.randn(1, 2, 3) for _ in range(2)]
    h = (x @ weight.T).view(7, 2, 3)
    for scores, vector in zip(attention_scores(x, weight, *att), att, strict=True):
        assert torch.allclose(scores, (h * vector).sum(-1), atol=1e-5)


def test_convolution_by_shifts_equals_conv1d_in_values_and_gradients():
    x, kernel = torch.randn(5, 20, requires_grad=True), torch.randn(7, requires_grad=True)
    weight = torch.randn(5, 20)
    results = []
    for out in (shifted_conv1d(x, kernel), F.conv1d(x.unsqueeze(1), kernel.view(1, 1, 7), padding=3).squeeze(1)):
        results.append((out, *torch.autograd.grad((out * weight).sum(), (x, kernel))))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.97])
def test_rate_scale_and_gradient(p):
    x = torch.full((1001, 999), 2.0, requires_grad=True)  # a count that is not a multiple of four
    out = Dropout(p)(x)
    dropped = out == 0
    assert dropped.float().mean().item() == pytest.approx(p, abs=4 * (p * (1 - p) / x.numel()) ** 0.5 + 2**-17)
    assert torch.allclose(out[~dropped], torch.tensor(2 / (1 - p)), rtol=2e-3)
    out.sum().backward()
    assert torch.allclose(x.grad, out.detach() / 2)


def test_every_lane_of_a_draw_is_uniform_and_its_own():
    """Four elements share a 64-bit draw. Each must drop at the same rate, and all must be independent."""
    kept = (Dropout(0.3)(torch.ones(400_000)) > 0).float().view(-1, 4)
    assert torch.allclose(kept.mean(0), torch.tensor(0.7), atol=0.006)
    assert (torch.corrcoef(kept.T) - torch.eye(4)).abs().max() < 0.015


def test_follows_the_seed_and_is_off_in_evaluation():
    x = torch.ones(100)
    runs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        runs.append(Dropout(0.5)(x))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x
