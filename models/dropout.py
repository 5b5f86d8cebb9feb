"""Dropout whose masks are cheap to draw on a CPU."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LEVELS = 1 << 16  # of a 16-bit random number


class Dropout(nn.Dropout):
    """:class:`torch.nn.Dropout`, with 16 random bits an element on a CPU.

    There ``nn.Dropout`` draws each element's Bernoulli variable on one thread, which at full batch takes longer than
    some matrix products. Here one 64-bit draw serves four elements. ``p`` is rounded to a multiple of 1/65536; the kept
    values are scaled by that rounded rate, so that the expectation is exact.
    """

    def forward(self, x: Tensor) -> Tensor:
        dropped = min(round(self.p * _LEVELS), _LEVELS - 1)
        if not self.training or dropped == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p)
        draws = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(1 << 63), None)
        level = draws.view(torch.int16)[: x.numel()].view(x.shape)  # -32768 .. 32767
        keep = (level >= dropped - _LEVELS // 2).to(x.dtype)
        return x * keep.mul_(_LEVELS / (_LEVELS - dropped))
