"""The benchmark's stock network must be ours in other words, or the ratios mean nothing."""

import copy

import pytest
import torch
from torch.nn import functional as F

from benchmarks.stock import with_stock_parts
from models.ch_gat import CSRGATConv
from models.dropout import Dropout
from models.xcbam import CBAM1D, SingleTokenAttention
from tests.reference import randomised
from utils.engine import build_model
from utils.graph import build_graph, neighbor_lists


@pytest.mark.parametrize("profile", ["paper", "official"])
def test_equal_in_values_and_gradients(profile, small_config):
    ours = randomised(build_model(small_config(profile=profile, hidden_dim=32), 12, 10, 4))
    stock = with_stock_parts(copy.deepcopy(ours)).eval()
    assert not any(
        isinstance(module, CSRGATConv | SingleTokenAttention | CBAM1D | Dropout) for module in stock.modules()
    )
    text, audio, label = torch.randn(60, 12), torch.randn(60, 10), torch.arange(60) % 4
    graph = build_graph(neighbor_lists(text, audio, 5, 4), 5, 4)
    inputs = []
    for model in (ours, stock):
        inputs.append([text.clone().requires_grad_(), audio.clone().requires_grad_()])
        logits = model(*inputs[-1], graph)
        F.cross_entropy(logits, label).backward()
        inputs[-1].append(logits)
    for mine, theirs in zip(*inputs, strict=True):
        a, b = (mine.grad, theirs.grad) if mine.is_leaf else (mine, theirs)
        assert torch.allclose(a, b, atol=1e-5)
    assert torch.allclose(ours.ch_gat.convs[0].lin.weight.grad, stock.ch_gat.convs[0].lin.weight.grad, atol=1e-5)
