"""CemoBAM: two projections, CH-GAT in parallel with xCBAM, and a classifier (Fig. 1 of the paper)."""

import torch
from torch import Tensor, nn

from models.ch_gat import CHGAT
from models.config import ModelConfig
from models.ops import Dropout, NeighborGraph
from models.xcbam import XCBAM


class CemoBAM(nn.Module):
    """The complete network.

    Args:
        config: hyper-parameters.
        text_dim, audio_dim: widths of the two embeddings.
        num_classes: number of emotions.

    Shapes: text [N, text_dim], audio [N, audio_dim], graph over the same N nodes; result: logits [N, num_classes].
    """

    def __init__(self, config: ModelConfig, text_dim: int, audio_dim: int, num_classes: int):
        super().__init__()
        dim = config.hidden_dim
        self.text_projection = _projection(text_dim, config)
        self.audio_projection = _projection(audio_dim, config)
        self.ch_gat = CHGAT(config) if config.has("ch_gat") else None
        self.xcbam = XCBAM(config) if config.has("xcbam") else None
        self.classifier = nn.Sequential(
            nn.Linear((config.has("ch_gat") + config.has("xcbam")) * dim, dim),
            nn.LayerNorm(dim),
            nn.ReLU(inplace=True),
            Dropout(config.dropout),
            nn.Linear(dim, num_classes),
        )

    def forward(self, text: Tensor, audio: Tensor, graph: NeighborGraph) -> Tensor:
        return self.classifier(self.branches(text, audio, graph))

    def embed(self, text: Tensor, audio: Tensor, graph: NeighborGraph) -> Tensor:
        """The input of the last linear layer, [N, hidden_dim]: the vectors of the t-SNE figure."""
        return self.classifier[:-1](self.branches(text, audio, graph))

    def branches(self, text: Tensor, audio: Tensor, graph: NeighborGraph) -> Tensor:
        """The concatenated outputs of CH-GAT and xCBAM, [N, hidden_dim * branches]."""
        text, audio = self.text_projection(text), self.audio_projection(audio)  # [N, D] each
        nodes = None if self.ch_gat is None else self.ch_gat(_nodes(text, audio), graph)
        return self._concat(nodes, text, audio)

    def layer_inputs(self, text: Tensor, audio: Tensor, graph: NeighborGraph) -> list[Tensor]:
        """The layer inputs of the N nodes of a graph, as :meth:`attach` needs them; see :meth:`CHGAT.layer_inputs`.

        The list is empty without CH-GAT.
        """
        if self.ch_gat is None:
            return []
        return self.ch_gat.layer_inputs(_nodes(self.text_projection(text), self.audio_projection(audio)), graph)

    def attach(self, text: Tensor, audio: Tensor, inputs: list[Tensor], graph: NeighborGraph) -> Tensor:
        """Inductive inference: the logits [B, num_classes] of new nodes; see :meth:`CHGAT.attach`."""
        text, audio = self.text_projection(text), self.audio_projection(audio)  # [B, D] each
        nodes = None if self.ch_gat is None else self.ch_gat.attach(_nodes(text, audio), inputs, graph)
        return self.classifier(self._concat(nodes, text, audio))

    def attached_attention(self, text: Tensor, audio: Tensor, inputs: list[Tensor], graph: NeighborGraph) -> Tensor:
        """See :meth:`CHGAT.attached_attention`; [0, E] without CH-GAT."""
        if self.ch_gat is None:
            return text.new_empty(0, graph.num_edges)
        nodes = _nodes(self.text_projection(text), self.audio_projection(audio))
        return self.ch_gat.attached_attention(nodes, inputs, graph)

    def _concat(self, nodes: Tensor | None, text: Tensor, audio: Tensor) -> Tensor:
        fused = None if self.xcbam is None else self.xcbam(text, audio)
        return torch.cat([part for part in (nodes, fused) if part is not None], dim=1)


def _nodes(text: Tensor, audio: Tensor) -> Tensor:
    """Eq. (1): ``V = [F_text || F_audio]``, [N, 2D]."""
    return torch.cat([text, audio], dim=1)


def _projection(in_dim: int, config: ModelConfig) -> nn.Sequential:
    dim = config.hidden_dim
    return nn.Sequential(nn.Linear(in_dim, dim), nn.BatchNorm1d(dim), nn.ReLU(inplace=True), Dropout(config.dropout))
