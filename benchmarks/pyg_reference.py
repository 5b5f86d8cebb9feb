"""The PyG reference of ``benchmarks.speed``: the same network built from standard modules, as in the published code.

It uses ``GATConv`` with an edge list, ``nn.Dropout``, ``nn.MultiheadAttention`` with sequences of length 1, and both
pools and the two-channel ``Conv1d`` of the 1D-CBAM. Values and gradients equal ours
(``tests/models/test_pyg_reference.py``).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import GATConv

from models.cemobam import CemoBAM
from models.ch_gat import CSRGATConv
from models.ops import Dropout, NeighborGraph
from models.xcbam import CBAM1D, SingleTokenAttention
from utils.config import Config
from utils.training.graph import GraphData


class ReferenceGATConv(GATConv):
    def __init__(self, ours: CSRGATConv):
        super().__init__(ours.in_channels, ours.out_channels, ours.heads, concat=ours.concat, add_self_loops=False)
        self.load_state_dict(ours.state_dict())

    def forward(self, x: Tensor, graph: NeighborGraph) -> Tensor:
        return super().forward(x, graph.edge_index)


class ReferenceAttention(nn.Module):
    """Multi-head attention of one token to one token, including query and key projections."""

    def __init__(self, ours: SingleTokenAttention):
        super().__init__()
        dim = ours.out_proj.in_features
        self.attention = nn.MultiheadAttention(dim, ours.heads, ours.dropout, batch_first=True)
        with torch.no_grad():
            self.attention.in_proj_weight[2 * dim :] = ours.value_proj.weight
            self.attention.in_proj_bias[2 * dim :] = ours.value_proj.bias
        self.attention.out_proj.load_state_dict(ours.out_proj.state_dict())

    def forward(self, query: Tensor, key_value: Tensor) -> Tensor:
        query, key_value = query.unsqueeze(1), key_value.unsqueeze(1)  # [N, 1, D]
        return self.attention(query, key_value, key_value)[0].squeeze(1)


class ReferenceCBAM(nn.Module):
    def __init__(self, ours: CBAM1D):
        super().__init__()
        self.channel_gate = ours.channel_gate
        self.mlp = ours.mlp
        self.conv = ours.conv

    def forward(self, x: Tensor) -> Tensor:
        sequence = x.unsqueeze(-1)  # [N, D, 1]
        average, maximum = self.mlp(sequence.mean(-1)), self.mlp(sequence.max(-1).values)
        if self.channel_gate == "sum_then_sigmoid":
            x = x * torch.sigmoid(average + maximum)
        else:
            x = x * (torch.sigmoid(average) + torch.sigmoid(maximum))
        channel = x.unsqueeze(1)  # [N, 1, D]
        pooled = torch.cat([channel.mean(1, keepdim=True), channel.max(1, keepdim=True).values], dim=1)
        return x * torch.sigmoid(self.conv(pooled)).squeeze(1)


class ReferenceCrossModalLayer(nn.Module):
    def __init__(self, ours: nn.Module):
        super().__init__()
        self.attention = ReferenceAttention(ours.attention)
        self.linear, self.norm, self.dropout = ours.linear, ours.norm, ours.dropout
        self.cbam = None if ours.cbam is None else ReferenceCBAM(ours.cbam)

    def forward(self, query: Tensor, key_value: Tensor) -> Tensor:
        x = self.dropout(self.norm(self.linear(self.attention(query, key_value)) + query))
        return x if self.cbam is None else self.cbam(x)


def with_reference_parts(model: CemoBAM) -> CemoBAM:
    """Replace the modules of ``model`` in place, and keep the weights."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, Dropout):
                setattr(parent, name, nn.Dropout(child.p))
    if model.ch_gat is not None:
        for block in model.ch_gat.blocks:
            block.conv = ReferenceGATConv(block.conv)
    if model.xcbam is not None:
        for name in ("audio_to_text", "text_to_audio"):
            setattr(model.xcbam, name, ReferenceCrossModalLayer(getattr(model.xcbam, name)))
    return model


def reference_step(model: CemoBAM, optimizer: torch.optim.Optimizer, data: GraphData, config: Config) -> float:
    """The training step of the published code; returns the loss."""
    optimizer.zero_grad()
    logits = model(data.text, data.audio, data.graph)
    loss = F.cross_entropy(logits, data.label, label_smoothing=config.label_smoothing)
    loss.backward()
    optimizer.step()
    return loss.item()
