import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch_geometric.nn import GATConv

from models.ch_gat import CHGAT, CSRGATConv, NeighborGraph, aggregate
from utils.graph import build_graph, neighbor_lists


@pytest.fixture(params=["neighbors_to_node", "node_to_neighbors"])
def graph(request) -> NeighborGraph:
    return build_graph(neighbor_lists(torch.randn(50, 6), torch.randn(50, 6), 6, 3), 6, 3, request.param)


def copy_gat(stock: GATConv, concat: bool) -> CSRGATConv:
    ours = CSRGATConv(stock.in_channels, stock.out_channels, stock.heads, concat)
    ours.load_state_dict(stock.state_dict())
    return ours


@pytest.mark.parametrize("heads, concat", [(1, False), (4, True), (4, False)])
def test_layer_equals_stock_gatconv_in_values_and_gradients(graph, heads, concat):
    stock = GATConv(10, 8, heads=heads, concat=concat)
    nn.init.normal_(stock.bias)
    ours = copy_gat(stock, concat)
    x = torch.randn(50, 10)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    outputs = [ours(inputs[0], graph), stock(inputs[1], graph.edge_index)]
    weight = torch.randn_like(outputs[1])
    for out in outputs:
        (out * weight).sum().backward()
    assert torch.allclose(outputs[0], outputs[1], atol=1e-5)
    assert torch.allclose(inputs[0].grad, inputs[1].grad, atol=1e-5)
    for (name, mine), theirs in zip(ours.named_parameters(), stock.parameters(), strict=True):
        assert torch.allclose(mine.grad, theirs.grad, atol=1e-5), name


def test_aggregate_is_the_weighted_sum_over_incoming_edges():
    graph = NeighborGraph(torch.tensor([1, 2, 0, 1, 2]), torch.tensor([0, 0, 1, 2, 2]), torch.tensor([0, 2, 3, 5]))
    values = torch.randn(3, 2, 4)
    weights = torch.randn(5, 2)
    expected = torch.zeros(3, 2, 4)
    for edge in range(5):
        for head in range(2):
            expected[graph.target[edge], head] += weights[edge, head] * values[graph.source[edge], head]
    assert torch.allclose(aggregate(values, weights, graph), expected, atol=1e-6)
    assert torch.allclose(aggregate(values, weights, graph, average=True), expected.mean(1), atol=1e-6)


def test_attention_aggregates_from_the_neighbours_and_not_from_who_points_here():
    """4 nodes in a ring: node i lists node i + 1. Only a change of what i lists may change i's output."""
    source, target = torch.tensor([0, 1, 1, 2, 2, 3, 3, 0]), torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    graph = NeighborGraph(source, target, torch.tensor([0, 2, 4, 6, 8]))
    conv = CSRGATConv(5, 3, 2, concat=True)
    x = torch.randn(4, 5)
    moved = x.clone()
    moved[2] += 1
    changed = (conv(x, graph) != conv(moved, graph)).any(1)
    assert changed.tolist() == [False, True, True, False]  # node 1 lists 2; node 3, which 2 lists, sees nothing


def run_by_hand(model: CHGAT, x: torch.Tensor, graph: NeighborGraph, layer) -> torch.Tensor:
    """The stack with stock layers; ``layer(i, x, h)`` makes a layer's result from its input and GATConv output."""
    for i, conv in enumerate(model.convs):
        stock = GATConv(conv.in_channels, conv.out_channels, heads=conv.heads, concat=conv.concat)
        stock.load_state_dict(conv.state_dict())
        x = layer(i, x, stock(x, graph.edge_index))
    return x


def test_stack_of_profile_paper(graph):
    model = CHGAT(
        12, 8, heads=2, num_layers=3, norm="layer", last_heads="average", residual="projection", layer_scale=0.1
    )
    model.eval()
    x = torch.randn(50, 12)

    def layer(i, x, h):
        if i < 2:
            h = F.leaky_relu(F.layer_norm(h, (16,)), 0.01)
        kept = x if i == 1 else x @ model.skips[i].weight.T  # 12 -> 16 -> 16 -> 8
        return kept + 0.1 * h

    assert torch.allclose(model(x, graph), run_by_hand(model, x, graph, layer), atol=1e-5)
    assert [conv.concat for conv in model.convs] == [True, True, False]
    assert [conv.heads for conv in model.convs] == [2, 2, 2]


def test_stack_of_profile_official_shares_one_batch_norm(graph):
    model = CHGAT(
        12, 8, heads=2, num_layers=4, norm="shared_batch", last_heads="single", residual="middle", layer_scale=0
    ).train()
    model.dropout.p = 0.0
    x = torch.randn(50, 12)
    norm = nn.BatchNorm1d(16)

    def layer(i, x, h):
        if i == 3:
            return h
        h = F.leaky_relu(norm(h), 0.01)
        return h if i == 0 else h + x

    expected = run_by_hand(model, x, graph, layer)
    assert torch.allclose(model(x, graph), expected, atol=1e-5)
    assert len({id(n) for n in model.norms}) == 1
    assert torch.allclose(model.norms[0].running_mean, norm.running_mean, atol=1e-6)  # three layers mixed in it
    assert model.norms[0].num_batches_tracked == 3
    assert model.convs[-1].heads == 1


def test_each_layer_has_a_norm_of_its_own_in_profile_paper():
    assert len({id(n) for n in CHGAT(12, 8, num_layers=4).norms}) == 3


def test_last_layer_averages_its_heads(graph):
    model = CHGAT(12, 8, heads=3, residual="none", layer_scale=0).eval()
    seen = []
    model.convs[-1].register_forward_hook(lambda module, args, out: seen.append((args[0], out)))
    model(torch.randn(50, 12), graph)
    x, out = seen[0]
    concatenated = CSRGATConv(24, 8, 3, concat=True)
    state = model.convs[-1].state_dict()
    concatenated.load_state_dict({**state, "bias": torch.zeros(24)})
    assert torch.allclose(out, concatenated(x, graph).view(50, 3, 8).mean(1) + state["bias"], atol=1e-6)


def test_gradients_are_the_same_at_every_run_on_several_threads():
    """Large enough (edges x heads > 32 768) for torch to spread the sums over threads."""
    graph = build_graph(neighbor_lists(torch.randn(1500, 4), torch.randn(1500, 4), 7, 8), 7, 8)
    assert graph.num_edges * 4 > 1 << 15
    conv = CSRGATConv(8, 16, 4, concat=True)
    x = torch.randn(1500, 8)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        runs = []
        for _ in range(6):
            conv.zero_grad()
            conv(x, graph).square().sum().backward()
            runs.append([p.grad.clone() for p in conv.parameters()])
    finally:
        torch.set_num_threads(threads)
    for run in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(run, runs[0], strict=True))


def test_a_stack_of_one_layer_is_refused():
    with pytest.raises(ValueError, match="num_layers must be at least 2, not 1"):
        CHGAT(12, 8, num_layers=1)
