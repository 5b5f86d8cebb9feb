import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch_geometric.nn import GATConv

from models.ch_gat import CHGAT, CSRGATConv
from models.config import ModelConfig
from models.ops import NeighborGraph
from utils.training.graph import build_graph, neighbor_lists


@pytest.fixture(params=["neighbors_to_node", "node_to_neighbors", "uneven"])
def graph(request) -> NeighborGraph:
    """50 nodes with self-loops. ``uneven``: no self-loops, degrees 0 to 50, some nodes send or receive nothing."""
    if request.param == "uneven":
        target = torch.cat([torch.full((50,), 7), torch.randint(0, 40, (60,))])
        return NeighborGraph.from_edges(torch.cat([torch.arange(50), torch.randint(0, 30, (60,))]), target, 50)
    return build_graph(neighbor_lists(torch.randn(50, 6), torch.randn(50, 6), 6, 3), 6, 3, request.param)


def copy_gat(pyg: GATConv, concat: bool) -> CSRGATConv:
    ours = CSRGATConv(pyg.in_channels, pyg.out_channels, pyg.heads, concat).to(pyg.att_src.dtype)
    ours.load_state_dict(pyg.state_dict())
    return ours


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("heads, concat", [(1, False), (4, True), (4, False)])
def test_layer_equals_pyg_gatconv_in_values_and_gradients(graph, heads, concat, dtype, tolerance):
    pyg = GATConv(10, 8, heads=heads, concat=concat, add_self_loops=False).to(dtype)
    nn.init.normal_(pyg.bias)
    ours = copy_gat(pyg, concat)
    x = torch.randn(50, 10, dtype=dtype)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    outputs = [ours(inputs[0], graph), pyg(inputs[1], graph.edge_index)]
    weight = torch.randn_like(outputs[1])
    for out in outputs:
        (out * weight).sum().backward()
    assert torch.allclose(outputs[0], outputs[1], rtol=0, atol=tolerance)
    assert torch.allclose(inputs[0].grad, inputs[1].grad, rtol=tolerance, atol=tolerance)
    for (name, mine), theirs in zip(ours.named_parameters(), pyg.parameters(), strict=True):
        assert torch.allclose(mine.grad, theirs.grad, rtol=tolerance, atol=tolerance), name


@pytest.mark.parametrize("heads", [1, 3])
def test_attention_is_that_of_pyg_gatconv(graph, heads):
    pyg = GATConv(10, 8, heads=heads, add_self_loops=False)
    x = torch.randn(50, 10)
    _, (edges, expected) = pyg(x, graph.edge_index, return_attention_weights=True)
    assert torch.equal(edges, graph.edge_index)
    assert torch.allclose(copy_gat(pyg, True).attention(x, graph), expected, atol=1e-6)


def test_layer_begins_with_the_values_of_pyg_gatconv():
    states = []
    for layer in (GATConv, CSRGATConv):
        torch.manual_seed(3)
        states.append(layer(10, 8, heads=4, concat=True).state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


FORBIDDEN = ("sort", "topk", "unique", "scatter", "index_add", "index_put", "dense_backward", "select_backward")


class Recorder(TorchDispatchMode):
    """The names of all operations, including those of the backward pass."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("residual", ["middle", "projection"])
def test_no_sort_and_no_atomic_sum_once_the_graph_is_known(graph, residual):
    """``index_select`` and ``x[index]`` are allowed in forward; only their gradients add atomically or sort."""
    model = CHGAT(ModelConfig(16, heads=2, gat_residual=residual))
    x = torch.randn(50, 32, requires_grad=True)
    model(x, graph).sum().backward()
    with Recorder() as recorder:
        model(x, graph).sum().backward()
    assert [name for name in recorder.names if any(part in name for part in FORBIDDEN)] == []
    assert sum("embedding_bag" in name for name in recorder.names) == 9  # per layer: the values and both gradients


def test_attention_aggregates_from_the_neighbours_and_not_from_who_points_here():
    """4 nodes in a ring: node i lists node i + 1. Only a change of a node that i lists may change the output of i."""
    source, target = torch.tensor([0, 1, 1, 2, 2, 3, 3, 0]), torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    graph = NeighborGraph(source, target, torch.tensor([0, 2, 4, 6, 8]))
    conv = CSRGATConv(5, 3, 2, concat=True)
    x = torch.randn(4, 5)
    moved = x.clone()
    moved[2] += 1
    changed = (conv(x, graph) != conv(moved, graph)).any(1)
    # node 1 lists node 2; node 3, which node 2 lists, does not change
    assert changed.tolist() == [False, True, True, False]


def run_by_hand(model: CHGAT, x: torch.Tensor, graph: NeighborGraph, layer) -> torch.Tensor:
    """The stack of PyG layers. ``layer(i, x, h)`` computes the result of a layer from its input and GATConv output."""
    for i, block in enumerate(model.blocks):
        conv = block.conv
        pyg = GATConv(conv.in_channels, conv.out_channels, conv.heads, concat=conv.concat, add_self_loops=False)
        pyg.load_state_dict(conv.state_dict())
        x = layer(i, x, pyg(x, graph.edge_index))
    return x


def test_stack_of_profile_refined(graph):
    config = ModelConfig(16, heads=2, gat_norm="layer", gat_residual="projection", gat_layer_scale=0.1)
    model = CHGAT(config).eval()
    x = torch.randn(50, 32)

    def layer(i, x, h):
        if i < 2:
            h = F.leaky_relu(F.layer_norm(h, (32,)), 0.01)
        kept = x @ model.blocks[i].skip.weight.T if i == 2 else x  # 32 -> 32 -> 32 -> 16
        return kept + 0.1 * h

    assert torch.allclose(model(x, graph), run_by_hand(model, x, graph, layer), atol=1e-5)
    assert [block.conv.concat for block in model.blocks] == [True, True, False]
    assert [block.conv.heads for block in model.blocks] == [2, 2, 2]
    wide = CHGAT(config.replace(heads=4))  # 32 -> 64 -> 64 -> 16
    shapes = [getattr(block.skip, "weight", torch.empty(0)).shape for block in wide.blocks]
    assert shapes == [(64, 32), (0,), (16, 64)]


@pytest.mark.parametrize("last_heads, heads", [("average", 2), ("single", 1)])
def test_stack_of_profiles_paper_and_official_shares_one_batch_norm(graph, last_heads, heads):
    model = CHGAT(ModelConfig(16, heads=2, num_layers=4, gat_last_heads=last_heads, dropout=0.0)).train()
    x = torch.randn(50, 32)
    norm = nn.BatchNorm1d(32)

    def layer(i, x, h):
        if i == 3:
            return h
        h = F.leaky_relu(norm(h), 0.01)
        return h if i == 0 else h + x

    expected = run_by_hand(model, x, graph, layer)
    assert torch.allclose(model(x, graph), expected, atol=1e-5)
    norms = [block.norm for block in model.blocks[:3]]
    assert len({id(n) for n in norms}) == 1
    assert torch.allclose(norms[0].running_mean, norm.running_mean, atol=1e-6)  # three layers mixed it
    assert norms[0].num_batches_tracked == 3
    assert model.blocks[-1].conv.heads == heads


def test_each_layer_has_a_norm_of_its_own_in_profile_refined():
    model = CHGAT(ModelConfig(16, num_layers=4, gat_norm="layer"))
    assert len({id(block.norm) for block in model.blocks[:3]}) == 3


@pytest.mark.parametrize(
    "residual, rates", [("none", [0, 0, 0, 0]), ("middle", [0, 1, 1, 0]), ("projection", [1, 1, 1, 0])]
)
def test_dropout_is_on_hidden_layers_with_a_residual(residual, rates):
    model = CHGAT(ModelConfig(16, num_layers=4, gat_residual=residual, dropout=0.5))
    assert [2 * block.dropout.p for block in model.blocks] == rates


def test_last_layer_averages_its_heads(graph):
    model = CHGAT(ModelConfig(18, heads=3, gat_residual="none")).eval()
    seen = []
    last = model.blocks[-1].conv
    last.register_forward_hook(lambda module, args, out: seen.append((args[0], out)))
    model(torch.randn(50, 36), graph)
    x, out = seen[0]
    concatenated = CSRGATConv(54, 18, 3, concat=True)
    state = last.state_dict()
    concatenated.load_state_dict({**state, "bias": torch.zeros(54)})
    assert torch.allclose(out, concatenated(x, graph).view(50, 3, 18).mean(1) + state["bias"], atol=1e-6)


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
    with pytest.raises(ValueError, match="num_layers 1: must be at least 2"):
        ModelConfig(num_layers=1)
