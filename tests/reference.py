"""The published model built from standard modules, with the names of its state dict. It is the reference of our models.

It is slow and simple on purpose: ``GATConv`` with an edge list, ``nn.MultiheadAttention`` with sequences of length 1,
and a two-channel ``Conv1d``.
"""

import torch
from torch import Tensor, nn
from torch_geometric.nn import GATConv


def _cbam(dim: int) -> nn.ModuleDict:
    mlp = nn.Sequential(nn.Linear(dim, dim // 16, bias=False), nn.ReLU(), nn.Linear(dim // 16, dim, bias=False))
    return nn.ModuleDict(
        {
            "channel_attention_mlp": mlp,
            "spatial_attention": nn.Sequential(nn.Conv1d(2, 1, 7, padding=3, bias=False)),
        }
    )


def apply_cbam(cbam: nn.ModuleDict, x: Tensor, one_sigmoid: bool) -> Tensor:
    """Eq. (3) then Eq. (4) on [N, D], every pool taken over an axis of length 1."""
    sequence = x.unsqueeze(-1)  # [N, D, 1]
    pooled = sequence.mean(-1), sequence.max(-1).values
    first, second = (cbam["channel_attention_mlp"](p) for p in pooled)
    x = x * (torch.sigmoid(first + second) if one_sigmoid else torch.sigmoid(first) + torch.sigmoid(second))
    sequence = x.unsqueeze(1)  # [N, 1, D]
    pooled = sequence.mean(1, keepdim=True), sequence.max(1, keepdim=True).values
    return x * torch.sigmoid(cbam["spatial_attention"](torch.cat(pooled, dim=1))).squeeze(1)


class OfficialReference(nn.Module):
    def __init__(self, text_dim=768, audio_dim=768, dim=512, classes=4, heads=4, layers=3, fusion="min"):
        super().__init__()
        self.fusion = fusion
        self.text_projection = nn.Sequential(nn.Linear(text_dim, dim), nn.BatchNorm1d(dim), nn.ReLU())
        self.audio_projection = nn.Sequential(nn.Linear(audio_dim, dim), nn.BatchNorm1d(dim), nn.ReLU())
        self.cross_fusion = nn.ModuleDict()
        for name in ("text", "audio"):
            self.cross_fusion[f"{name}_attention"] = nn.MultiheadAttention(dim, heads, batch_first=True)
            self.cross_fusion[f"{name}_linear"] = nn.Linear(dim, dim)
            self.cross_fusion[f"{name}_layer_norm"] = nn.LayerNorm(dim)
            self.cross_fusion[f"cbam_{name}"] = _cbam(dim)
        self.gnn = nn.ModuleDict(
            {
                "conv1": GATConv(2 * dim, dim, heads=heads),
                "convs": nn.ModuleList(GATConv(heads * dim, dim, heads=heads) for _ in range(layers - 2)),
                "conv_last": GATConv(heads * dim, dim, heads=1, concat=False),
                "batch_norm": nn.BatchNorm1d(heads * dim),
            }
        )
        self.mlp = nn.Sequential(
            nn.Linear(2 * dim, dim), nn.LayerNorm(dim), nn.ReLU(), nn.Identity(), nn.Linear(dim, classes)
        )

    def stream(self, name: str, query: Tensor, key_value: Tensor) -> Tensor:
        part = self.cross_fusion
        query, key_value = query.unsqueeze(1), key_value.unsqueeze(1)  # sequences of length 1
        attended, _ = part[f"{name}_attention"](query, key_value, key_value)
        x = part[f"{name}_layer_norm"](part[f"{name}_linear"](attended) + query).squeeze(1)
        return apply_cbam(part[f"cbam_{name}"], x, one_sigmoid=False)

    def graph_branch(self, x: Tensor, edge_index: Tensor) -> Tensor:
        activate = nn.LeakyReLU(0.01)
        x = activate(self.gnn["batch_norm"](self.gnn["conv1"](x, edge_index)))
        for conv in self.gnn["convs"]:
            x = activate(self.gnn["batch_norm"](conv(x, edge_index))) + x
        return self.gnn["conv_last"](x, edge_index)

    def forward(self, text: Tensor, audio: Tensor, edge_index: Tensor) -> Tensor:
        """``edge_index`` [2, E] in PyG's source-to-target order."""
        text, audio = self.text_projection(text), self.audio_projection(audio)
        graph = self.graph_branch(torch.cat([text, audio], dim=1), edge_index)
        streams = torch.stack([self.stream("text", audio, text), self.stream("audio", text, audio)])
        fused = {
            "cls": lambda s: s[0],
            "mean": lambda s: s.mean(0),
            "max": lambda s: s.max(0).values,
            "min": lambda s: s.min(0).values,
        }[self.fusion](streams)
        return self.mlp(torch.cat([graph, fused], dim=1))


def randomised(model: nn.Module) -> nn.Module:
    """Change every weight and running statistic from its initial value, so that a mix-up is noticed."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.randn_like(tensor) * 0.1
            tensor.add_(noise.abs() if name.endswith("running_var") else noise)
    return model.eval()


def edges_by_loop(text: Tensor, audio: Tensor, k_text: int, k_audio: int) -> set[tuple[int, int]]:
    """Eq. (2) as a loop: pairs (i, j) where j is i itself or one of its Top-K neighbours; lower index wins ties."""
    pairs = set()
    for embeddings, k in ((text, k_text), (audio, k_audio)):
        unit = embeddings.double() / embeddings.double().norm(dim=1, keepdim=True)
        for i in range(len(unit)):
            others = [j for j in range(len(unit)) if j != i]
            similarity = {j: round(float((unit[i] * unit[j]).sum()), 12) for j in others}
            ranked = sorted(others, key=lambda j: (-similarity[j], j))
            pairs |= {(i, i)} | {(i, j) for j in ranked[:k]}
    return pairs
