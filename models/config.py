"""Hyper-parameters of the network: defaults, choices and checks. Does not import torch."""

import dataclasses
import math
import reprlib
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields

FUSIONS = ("min", "max", "mean", "cls")  # of the two xCBAM streams; see models.xcbam.FUSE
POOLINGS = ("pooler", "mean", "cls")  # of a text encoder; see models.encoders.TextEncoder

# The parts of the network that each ablation removes (Table II). Without CBAM, the head is that of HemoGAT. Without
# CBAM and CH-GAT, it is that of MemoCMT. A removed modality has no neighbours, and its embeddings are replaced by their
# training mean.
ABLATIONS = {
    "none": (),
    "no_xcbam": ("xcbam",),
    "no_chgat": ("ch_gat",),
    "no_cbam": ("cbam",),
    "no_chgat_no_cbam": ("ch_gat", "cbam"),
    "text_only": ("audio",),
    "audio_only": ("text",),
}

CBAM_REDUCTION = 16  # reduction ratio of the channel attention, as in the published code

Rule = tuple[Callable[[float], bool], str]  # a predicate, and the text that describes it


def within(low: float, high: float = math.inf, ends: str = "[)") -> Rule:
    """The valid range of an option. In ``ends``, a square bracket includes the end, a round one excludes it."""

    def holds(value: float) -> bool:
        above = value > low or (value == low and ends[0] == "[")
        below = value < high or (value == high and ends[1] == "]")
        return above and below and value <= sys.float_info.max  # torch cannot represent a greater integer

    if high == math.inf:
        return holds, f"at least {low}" if ends[0] == "[" else f"above {low}"
    if ends == "[]":
        return holds, f"at least {low} and at most {high}"
    return holds, f"in {ends[0]}{low}, {high}{ends[1]}"


def option(default: object, doc: str, choices: Iterable[str] = (), rule: Rule | None = None):
    """A dataclass field that is also a command-line option, with its help text, choices and valid range."""
    return field(default=default, metadata={"doc": doc, "choices": tuple(choices), "rule": rule})


def check_options(config: object) -> None:
    """Check every :func:`option` of a dataclass.

    Raises:
        ValueError: names the first field whose value has the wrong type, is not one of the choices, or is out of range.
    """
    for f in fields(config):
        if not f.metadata:
            continue
        value, choices, rule = getattr(config, f.name), f.metadata["choices"], f.metadata["rule"]
        allowed = (int, float) if isinstance(f.default, float) else type(f.default)
        shown = reprlib.repr(value)
        if not isinstance(value, allowed) or isinstance(value, bool):
            raise ValueError(f"{f.name} {shown}: must be of type {type(f.default).__name__}")
        if choices and value not in choices:
            raise ValueError(f"{f.name} {shown[1:-1]}: expected one of {', '.join(choices)}")
        if rule and not rule[0](value):
            raise ValueError(f"{f.name} {shown}: must be {rule[1]}")


@dataclass(frozen=True)
class ModelConfig:
    """Hyper-parameters of :class:`models.cemobam.CemoBAM`. The defaults are those of the profile ``paper``.

    Raises:
        ValueError: names the field that has an invalid value.
    """

    hidden_dim: int = option(
        512, "width D of the projections and of both branches", rule=within(CBAM_REDUCTION, 16384, "[]")
    )
    heads: int = option(4, "number of attention heads in CH-GAT and xCBAM", rule=within(1, 1024, "[]"))
    num_layers: int = option(3, "number of GAT layers", rule=within(2, 100, "[]"))
    dropout: float = option(0.3, "dropout rate of the projections, CH-GAT, xCBAM and the classifier", rule=within(0, 1))
    fusion_type: str = option("min", "how to fuse the two streams of xCBAM", FUSIONS)
    ablation: str = option("none", "part of the network to remove", ABLATIONS)
    gat_norm: str = option(
        "shared_batch",
        "normalisation of the hidden GAT layers: one LayerNorm or BatchNorm per layer, or one BatchNorm shared by all",
        ("layer", "batch", "shared_batch"),
    )
    gat_last_heads: str = option(
        "average", "last GAT layer: average several heads, or use a single head", ("average", "single")
    )
    gat_residual: str = option(
        "middle",
        "residual connections of CH-GAT: none, around the middle layers, or around every layer (with a learned "
        "projection where the width changes)",
        ("none", "middle", "projection"),
    )
    gat_layer_scale: float = option(
        0.0, "initial value of LayerScale (ours) in each GAT layer; 0 disables it", rule=within(0)
    )
    channel_gate: str = option(
        "sum_then_sigmoid",
        "channel attention: Eq. (3) (sum_then_sigmoid), or the sum of two sigmoids",
        ("sum_then_sigmoid", "sum_of_sigmoids"),
    )

    def __post_init__(self):
        check_options(self)
        if self.hidden_dim % self.heads:
            raise ValueError(f"hidden_dim {self.hidden_dim}: must be a multiple of the {self.heads} heads")

    def has(self, part: str) -> bool:
        """Whether the network has a part (``ch_gat``, ``xcbam``, ``cbam``) or an input (``text``, ``audio``)."""
        return part not in ABLATIONS[self.ablation]

    def replace(self, **changes: object) -> "ModelConfig":
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)
