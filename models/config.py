"""The hyper-parameters of the network: defaults, choices and checks, each in one place. Needs no torch."""

import dataclasses
import math
import reprlib
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields

FUSIONS = ("min", "max", "mean", "cls")  # of the two streams of xCBAM, see models.xcbam.FUSE
POOLINGS = ("pooler", "mean", "cls")  # of a text encoder, see models.encoders.TextEncoder

# Parts of the network that each ablation removes (Table II). Without CBAM the head is HemoGAT's, without CBAM and
# CH-GAT it is MemoCMT's. A removed modality has no neighbours, and its embeddings are replaced by their training mean.
ABLATIONS = {
    "none": (),
    "no_xcbam": ("xcbam",),
    "no_chgat": ("ch_gat",),
    "no_cbam": ("cbam",),
    "no_chgat_no_cbam": ("ch_gat", "cbam"),
    "text_only": ("audio",),
    "audio_only": ("text",),
}

CBAM_REDUCTION = 16  # of the channel attention, as in the published code

Rule = tuple[Callable[[float], bool], str]  # a predicate, and the range that it stands for


def within(low: float, high: float = math.inf, ends: str = "[)") -> Rule:
    """The range of an option; the brackets of ``ends`` say which ends belong to it."""

    def holds(value: float) -> bool:
        above = value > low or (value == low and ends[0] == "[")
        below = value < high or (value == high and ends[1] == "]")
        return above and below and value <= sys.float_info.max  # no greater integer is a number of torch

    if high == math.inf:
        return holds, f"at least {low}" if ends[0] == "[" else f"above {low}"
    if ends == "[]":
        return holds, f"at least {low} and at most {high}"
    return holds, f"in {ends[0]}{low}, {high}{ends[1]}"


def option(default: object, doc: str, choices: Iterable[str] = (), rule: Rule | None = None):
    """A field that is also a command-line option: its help text, choices, and the range of its values."""
    return field(default=default, metadata={"doc": doc, "choices": tuple(choices), "rule": rule})


def check_options(config: object) -> None:
    """Check every :func:`option` of a dataclass.

    Raises:
        ValueError: names the first field whose value has another type, is none of the choices, or is out of range.
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
        ValueError: names the field whose value is not possible.
    """

    hidden_dim: int = option(
        512, "width D of the projections and of both branches", rule=within(CBAM_REDUCTION, 16384, "[]")
    )
    heads: int = option(4, "attention heads, in CH-GAT and in xCBAM", rule=within(1, 1024, "[]"))
    num_layers: int = option(3, "GAT layers", rule=within(2, 100, "[]"))
    dropout: float = option(0.3, "dropout of projections, CH-GAT, xCBAM and classifier", rule=within(0, 1))
    fusion_type: str = option("min", "fusion of the two streams of xCBAM", FUSIONS)
    ablation: str = option("none", "remove a part of the network", ABLATIONS)
    gat_norm: str = option(
        "shared_batch",
        "normalisation of the hidden GAT layers: one LayerNorm or BatchNorm per layer, or one BatchNorm for all",
        ("layer", "batch", "shared_batch"),
    )
    gat_last_heads: str = option("average", "heads of the last GAT layer", ("average", "single"))
    gat_residual: str = option(
        "middle",
        "residual connections of CH-GAT: none, around the middle layers, or around every layer (with a learned "
        "projection where the width changes)",
        ("none", "middle", "projection"),
    )
    gat_layer_scale: float = option(
        0.0, "initial value of LayerScale (ours) on each GAT layer, 0 for none", rule=within(0)
    )
    channel_gate: str = option(
        "sum_then_sigmoid",
        "channel attention: Eq. (3), or the sum of two sigmoids",
        ("sum_then_sigmoid", "sum_of_sigmoids"),
    )

    def __post_init__(self):
        check_options(self)
        if self.hidden_dim % self.heads:
            raise ValueError(f"hidden_dim {self.hidden_dim}: must be a multiple of the {self.heads} heads")

    def has(self, part: str) -> bool:
        """Whether the network has ``ch_gat``, ``xcbam`` or, inside xCBAM, ``cbam``; or is given ``text``, ``audio``."""
        return part not in ABLATIONS[self.ablation]

    def replace(self, **changes: object) -> "ModelConfig":
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)
