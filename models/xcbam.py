"""xCBAM: cross-attention both ways, 1D-CBAM on each stream, fusion (section II.C of the paper)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.dropout import Dropout

FUSIONS = ("min", "max", "mean", "cls")
CHANNEL_GATES = ("sum_then_sigmoid", "sum_of_sigmoids")


class SingleTokenAttention(nn.Module):
    """Multi-head attention from one query token to one key/value token.

    The softmax over a single key is 1 whatever the query and the key are, so their products are left
    out: ``nn.MultiheadAttention`` gives the same result with its value and output projections alone.
    What the query adds reaches the output through the residual of :class:`CrossModalLayer`.
    Dropout on the attention weights leaves out whole heads, as it does in ``nn.MultiheadAttention``.

    Shapes: value [N, D], result [N, D].
    """

    def __init__(self, dim: int, heads: int, dropout: float):
        super().__init__()
        if dim % heads:
            raise ValueError(f"hidden_dim {dim} is not a multiple of the {heads} attention heads")
        self.heads = heads
        self.dropout = dropout
        self.value_proj = nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, dim)
        # the bound that nn.MultiheadAttention's stacked [3D, D] projection gets
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
    """Channel attention, Eq. (3), then spatial attention, Eq. (4).

    An utterance is one vector, so both pools run over an axis of length 1 and F_avg = F_max = F; the
    convolution of kernel 7 runs along the features, as in the published code.

    Args:
        channel_gate: ``sum_then_sigmoid`` is Eq. (3); ``sum_of_sigmoids`` the published code, a gate in (0, 2).

    Shapes: x [N, D], result [N, D].
    """

    def __init__(self, dim: int, reduction: int = 16, channel_gate: str = "sum_then_sigmoid"):
        super().__init__()
        if channel_gate not in CHANNEL_GATES:
            raise ValueError(f"unknown channel_gate {channel_gate!r}")
        if dim < reduction:
            raise ValueError(f"hidden_dim {dim} is smaller than the reduction {reduction} of the channel attention")
        self.channel_gate = channel_gate
        self.mlp = nn.Sequential(
            nn.Linear(dim, dim // reduction, bias=False), nn.ReLU(), nn.Linear(dim // reduction, dim, bias=False)
        )
        self.conv = nn.Conv1d(2, 1, kernel_size=7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.mlp(x)  # of F_avg and of F_max alike
        gate = torch.sigmoid(2 * pooled) if self.channel_gate == "sum_then_sigmoid" else 2 * torch.sigmoid(pooled)
        x = x * gate
        # a two-channel convolution of [x; x] is a one-channel convolution with the two kernels added
        return x * torch.sigmoid(convolve(x, self.conv.weight.sum((0, 1))))


def convolve(x: Tensor, kernel: Tensor) -> Tensor:
    """Each row's convolution with zero padding, out[n, i] = sum_j kernel[j] * x[n, i + j - K // 2], by shifted rows.

    ``F.conv1d`` with one channel has no matrix product to use and is slow on CPUs.
    Shapes: x [N, D], kernel [K], K odd, result [N, D].
    """
    width = x.size(1)
    padded = F.pad(x, (kernel.numel() // 2,) * 2)
    out = padded[:, :width] * kernel[0]
    for j in range(1, kernel.numel()):
        out = torch.addcmul(out, padded[:, j : j + width], kernel[j])
    return out


class CrossModalLayer(nn.Module):
    """One direction of the cross-modal transformer: attention, Linear, query residual, LayerNorm, Dropout, 1D-CBAM.

    Shapes: query [N, D], key_value [N, D], result [N, D].
    """

    def __init__(self, dim: int, heads: int, dropout: float, cbam: CBAM1D | None):
        super().__init__()
        self.attention = SingleTokenAttention(dim, heads, dropout)
        self.linear = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)
        self.cbam = cbam

    def forward(self, query: Tensor, key_value: Tensor) -> Tensor:
        x = self.dropout(self.norm(self.linear(self.attention(key_value)) + query))
        return x if self.cbam is None else self.cbam(x)


class XCBAM(nn.Module):
    """Both streams and their fusion.

    Args:
        fusion: element-wise ``min``, ``max`` or ``mean`` of the two streams, or ``cls``, the A->T stream alone.
        cbam: False leaves the 1D-CBAM out (the ablation "no_cbam").

    Shapes: text [N, D], audio [N, D], result [N, D].
    """

    def __init__(
        self,
        dim: int,
        heads: int = 4,
        dropout: float = 0.3,
        fusion: str = "min",
        channel_gate: str = "sum_then_sigmoid",
        cbam: bool = True,
    ):
        super().__init__()
        if fusion not in FUSIONS:
            raise ValueError(f"unknown fusion {fusion!r}, expected one of {', '.join(FUSIONS)}")
        self.fusion = fusion
        self.audio_to_text, self.text_to_audio = (
            CrossModalLayer(dim, heads, dropout, CBAM1D(dim, channel_gate=channel_gate) if cbam else None)
            for _ in range(2)
        )

    def forward(self, text: Tensor, audio: Tensor) -> Tensor:
        a2t = self.audio_to_text(query=audio, key_value=text)
        t2a = self.text_to_audio(query=text, key_value=audio)
        return fuse(a2t, t2a, self.fusion)


def fuse(a2t: Tensor, t2a: Tensor, fusion: str) -> Tensor:
    """Element-wise fusion of the streams A->T and T->A (II.C.3). Shapes: both [N, D], result [N, D]."""
    if fusion == "cls":
        return a2t
    if fusion == "mean":
        return (a2t + t2a) / 2
    return torch.minimum(a2t, t2a) if fusion == "min" else torch.maximum(a2t, t2a)
