"""Each operation against the plain formulation that it replaces."""

import pytest
import torch
import torch.nn.functional as F

from models.ops import Dropout, NeighborGraph, aggregate, attention_scores, shifted_conv1d


def test_edges_are_sorted_by_target_and_keep_their_order():
    source, target = torch.tensor([3, 1, 0, 2, 1]), torch.tensor([2, 0, 2, 0, 3])
    graph = NeighborGraph.from_edges(source, target, num_nodes=4)
    assert graph.source.tolist() == [1, 2, 3, 0, 1]
    assert graph.target.tolist() == [0, 0, 2, 2, 3]
    assert graph.rowptr.tolist() == [0, 2, 2, 4, 5]


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
    x = torch.full((1001, 999), 2.0, requires_grad=True)  # a count that is no multiple of four
    out = Dropout(p)(x)
    dropped = out == 0
    assert dropped.float().mean().item() == pytest.approx(p, abs=4 * (p * (1 - p) / x.numel()) ** 0.5 + 2**-17)
    assert torch.allclose(out[~dropped], torch.tensor(2 / (1 - p)), rtol=2e-3)
    out.sum().backward()
    assert torch.allclose(x.grad, out.detach() / 2)


def test_every_lane_of_a_draw_is_uniform_and_its_own():
    """Four elements share a 64-bit draw: each must drop at the same rate, and none must follow another."""
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
