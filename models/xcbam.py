"""xCBAM: cross-attention in both directions, 1D-CBAM on each stream, and fusion (section II.C of the paper)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.config import CBAM_REDUCTION, ModelConfig
from models.ops import Dropout, shifted_conv1d

# Element-wise fusions of the refined streams A->T and T->A (II.C.3). Shapes: [N, D], [N, D] -> [N, D].
FUSE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "min": torch.minimum,
    "max": torch.maximum,
    "mean": lambda a2t, t2a: (a2t + t2a) / 2,
    "cls": lambda a2t, t2a: a2t,
}


class SingleTokenAttention(nn.Module):
    """Multi-head attention from one query token to one key/value token.

    The softmax over a single key is always 1, so the query and key projections have no effect and are omitted. The
    result equals that of ``nn.MultiheadAttention``. The query reaches the output through the residual of
    :class:`CrossModalLayer`. Dropout on the attention weights drops whole heads, as in ``nn.MultiheadAttention``.

    Shapes: value [N, D], result [N, D].
    """

    def __init__(self, dim: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.value_proj = nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, dim)
        # the same bound as that of the stacked [3D, D] projection in nn.MultiheadAttention
        nn.init.xavier_uniform_(self.value_proj.weight, gain=2**-0.5)
        nn.init.zeros_(self.value_proj.bias)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, value: Tensor) -> Tensor:
        v = self.value_proj(value)
        if self.training and self.dropout > 0:
            weights = F.dropout(v.new_ones(v.size(0), self.heads, 1), self.dropout)
            v = (v.view(v.size(0), self.heads, -1) * weights).flatten(1)
        return self.out_proj(v)


class CBAM1D(nn.Module):
    """Channel attention, then spatial attention: ``F' = M_c(F) * F``, ``F'' = M_s(F') * F'`` (II.C.2).

    An utterance is a single vector. Average and max pooling run over an axis of length 1, so both return F.

    Args:
        channel_gate: ``sum_then_sigmoid`` follows Eq. (3), ``sum_of_sigmoids`` the published code.

    Shapes: x [N, D], result [N, D].
    """

    def __init__(self, dim: int, channel_gate: str = "sum_then_sigmoid"):
        super().__init__()
        self.channel_gate = channel_gate
        inner = dim // CBAM_REDUCTION
        self.mlp = nn.Sequential(nn.Linear(dim, inner, bias=False), nn.ReLU(), nn.Linear(inner, dim, bias=False))
        self.conv = nn.Conv1d(2, 1, kernel_size=7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.channel_attention(x)
        return x * self.spatial_attention(x)

    def channel_attention(self, x: Tensor) -> Tensor:
        """Eq. (3): ``M_c(F) = sigma(MLP(F_avg) + MLP(F_max))`` with ``F_avg = F_max = F``, values in (0, 1).

        The published code computes ``sigma(MLP(F_avg)) + sigma(MLP(F_max))``, values in (0, 2).
        """
        pooled = self.mlp(x)  # the MLP of F_avg and of F_max, which are equal
        if self.channel_gate == "sum_then_sigmoid":
            return torch.sigmoid(pooled + pooled)
        return 2 * torch.sigmoid(pooled)

    def spatial_attention(self, x: Tensor) -> Tensor:
        """Eq. (4): ``M_s(F) = sigma(f7([F_avg; F_max]))``. f7 is a convolution of size 7 along the features.

        Both pools equal F, so a two-channel convolution of [F; F] equals a one-channel convolution with summed kernels.
        """
        return torch.sigmoid(shifted_conv1d(x, self.conv.weight.sum((0, 1))))


class CrossModalLayer(nn.Module):
    """One direction of the cross-modal transformer: attention, Linear, query residual, LayerNorm, Dropout, 1D-CBAM.

    Shapes: query [N, D], key_value [N, D], result [N, D].
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        dim = config.hidden_dim
        cbam = CBAM1D(dim, config.channel_gate) if config.has("cbam") else None
        self.attention = SingleTokenAttention(dim, config.heads, config.dropout)
        self.linear = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.dropout = Dropout(config.dropout)
        self.cbam = cbam

    def forward(self, query: Tensor, key_value: Tensor) -> Tensor:
        x = self.dropout(self.norm(self.linear(self.attention(key_value)) + query))
        return x if self.cbam is None else self.cbam(x)


class XCBAM(nn.Module):
    """Both streams of the cross-modal transformer (II.C.1) and their fusion (II.C.3).

    Shapes: text [N, D], audio [N, D], result [N, D].
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.audio_to_text = CrossModalLayer(config)
        self.text_to_audio = CrossModalLayer(config)
        self.fusion = FUSE[config.fusion_type]

    def forward(self, text: Tensor, audio: Tensor) -> Tensor:
        a2t = self.audio_to_text(query=audio, key_value=text)
        t2a = self.text_to_audio(query=text, key_value=audio)
        return self.fusion(a2t, t2a)
