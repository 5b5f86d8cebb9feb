"""The PyG reference of the benchmark must equal our network, otherwise its ratios are meaningless."""

import copy

import pytest
import torch
from torch.nn import functional as F

from benchmarks.pyg_reference import with_reference_parts
from models.cemobam import CemoBAM
from models.ch_gat import CSRGATConv
from models.ops import Dropout
from models.xcbam import CBAM1D, SingleTokenAttention
from tests.reference import randomised
from utils.training.graph import build_graph, neighbor_lists


@pytest.mark.parametrize("profile", ["official", "paper", "refined"])
def test_equal_in_values_and_gradients(profile, small_config):
    ours = randomised(CemoBAM(small_config(profile=profile, hidden_dim=32).model, 12, 10, 4))
    reference = with_reference_parts(copy.deepcopy(ours)).eval()
    assert not any(
        isinstance(module, CSRGATConv | SingleTokenAttention | CBAM1D | Dropout) for module in reference.modules()
    )
    text, audio, label = torch.randn(60, 12), torch.randn(60, 10), torch.arange(60) % 4
    graph = build_graph(neighbor_lists(text, audio, 5, 4), 5, 4)
    inputs = []
    for model in (ours, reference):
        inputs.append([text.clone().requires_grad_(), audio.clone().requires_grad_()])
        logits = model(*inputs[-1], graph)
        F.cross_entropy(logits, label).backward()
        inputs[-1].append(logits)
    for mine, theirs in zip(*inputs, strict=True):
        a, b = (mine.grad, theirs.grad) if mine.is_leaf else (mine, theirs)
        assert torch.allclose(a, b, atol=1e-5)
    assert torch.allclose(
        ours.ch_gat.blocks[0].conv.lin.weight.grad, reference.ch_gat.blocks[0].conv.lin.weight.grad, atol=1e-5
    )
