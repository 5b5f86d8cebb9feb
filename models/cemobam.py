"""CemoBAM: projections, CH-GAT beside xCBAM, classifier (Fig. 1 of the paper)."""

import torch
from torch import Tensor, nn

from models.ch_gat import CHGAT, NeighborGraph
from models.dropout import Dropout
from models.xcbam import XCBAM

ABLATIONS = ("none", "no_xcbam", "no_chgat", "no_cbam", "no_chgat_no_cbam")


class CemoBAM(nn.Module):
    """The whole network.

    Args:
        text_dim, audio_dim: widths of the two embeddings.
        num_classes: emotions.
        hidden_dim: width D of the projections and of both branches.
        ablation: ``no_xcbam`` and ``no_chgat`` leave a branch out (Table II); ``no_cbam`` leaves the 1D-CBAM out
            (HemoGAT's head), ``no_chgat_no_cbam`` both (MemoCMT's head).
        gat_norm, gat_last_heads, gat_residual, gat_layer_scale: see :class:`models.ch_gat.CHGAT`.
        fusion_type, channel_gate: see :class:`models.xcbam.XCBAM`.

    Shapes: text [N, text_dim], audio [N, audio_dim], graph over the same N nodes, result: logits [N, num_classes].
    """

    def __init__(
        self,
        text_dim: int,
        audio_dim: int,
        num_classes: int,
        hidden_dim: int = 512,
        heads: int = 4,
        num_layers: int = 3,
        dropout: float = 0.3,
        fusion_type: str = "min",
        ablation: str = "none",
        gat_norm: str = "layer",
        gat_last_heads: str = "average",
        gat_residual: str = "projection",
        gat_layer_scale: float = 0.1,
        channel_gate: str = "sum_then_sigmoid",
    ):
        super().__init__()
        if ablation not in ABLATIONS:
            raise ValueError(f"unknown ablation {ablation!r}, expected one of {', '.join(ABLATIONS)}")
        self.text_projection = _projection(text_dim, hidden_dim, dropout)
        self.audio_projection = _projection(audio_dim, hidden_dim, dropout)
        self.ch_gat = self.xcbam = None
        if not ablation.startswith("no_chgat"):
            self.ch_gat = CHGAT(
                2 * hidden_dim,
                hidden_dim,
                heads,
                num_layers,
                dropout,
                norm=gat_norm,
                last_heads=gat_last_heads,
                residual=gat_residual,
                layer_scale=gat_layer_scale,
            )
        if ablation != "no_xcbam":
            self.xcbam = XCBAM(
                hidden_dim, heads, dropout, fusion_type, channel_gate, cbam=not ablation.endswith("no_cbam")
            )
        branches = (self.ch_gat is not None) + (self.xcbam is not None)
        self.classifier = nn.Sequential(
            nn.Linear(branches * hidden_dim, hidden_dim),
            nn.LayerNorm(hidden_dim),
            nn.ReLU(),
            Dropout(dropout),
            nn.Linear(hidden_dim, num_classes),
        )

    def forward(self, text: Tensor, audio: Tensor, graph: NeighborGraph) -> Tensor:
        return self.classifier(self.branches(text, audio, graph))

    def embed(self, text: Tensor, audio: Tensor, graph: NeighborGraph) -> Tensor:
        """What the last linear layer sees, [N, hidden_dim]: the vectors that the t-SNE figure shows."""
        return self.classifier[:-1](self.branches(text, audio, graph))

    def branches(self, text: Tensor, audio: Tensor, graph: NeighborGraph) -> Tensor:
        """CH-GAT's node embedding beside xCBAM's fused vector, [N, hidden_dim * branches]."""
        text, audio = self.text_projection(text), self.audio_projection(audio)  # [N, D] each
        nodes = None if self.ch_gat is None else self.ch_gat(torch.cat([text, audio], dim=1), graph)  # Eq. (1)
        return self._beside(nodes, text, audio)

    def layer_inputs(self, text: Tensor, audio: Tensor, graph: NeighborGraph) -> list[Tensor]:
        """What :meth:`join` reads of the N nodes of a graph, see :meth:`CHGAT.layer_inputs`; [] without CH-GAT."""
        if self.ch_gat is None:
            return []
        nodes = torch.cat([self.text_projection(text), self.audio_projection(audio)], dim=1)
        return self.ch_gat.layer_inputs(nodes, graph)

    def join(self, text: Tensor, audio: Tensor, inputs: list[Tensor], graph: NeighborGraph) -> Tensor:
        """Logits [B, num_classes] of new nodes that read from those of another graph, see :meth:`CHGAT.join`."""
        text, audio = self.text_projection(text), self.audio_projection(audio)  # [B, D] each
        nodes = None if self.ch_gat is None else self.ch_gat.join(torch.cat([text, audio], dim=1), inputs, graph)
        return self.classifier(self._beside(nodes, text, audio))

    def _beside(self, nodes: Tensor | None, text: Tensor, audio: Tensor) -> Tensor:
        parts = [] if nodes is None else [nodes]
        if self.xcbam is not None:
            parts.append(self.xcbam(text, audio))
        return torch.cat(parts, dim=1)


def _projection(in_dim: int, hidden_dim: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(in_dim, hidden_dim), nn.BatchNorm1d(hidden_dim), nn.ReLU(), Dropout(dropout))
