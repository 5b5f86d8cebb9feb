"""Converts state dicts of the published code (github.com/nhut-ngnn/CemoBAM) to our modules' names.

In the published code, ``text_attention`` is the A->T stream (audio query, text key and value), and all hidden GAT
layers share one BatchNorm. The weight of a GATConv is ``lin.weight``. Older PyG saves it twice, as ``lin_src.weight``
and ``lin_dst.weight``.
"""

import re

import torch
from torch import Tensor

_RENAMES = [
    (r"(text|audio)_projection\.(.+)", r"\1_projection.\2"),
    (r"mlp\.(.+)", r"classifier.\1"),
    (r"cross_fusion\.text_(?=attention|linear|layer_norm)(.+)", r"xcbam.audio_to_text.\1"),
    (r"cross_fusion\.audio_(?=attention|linear|layer_norm)(.+)", r"xcbam.text_to_audio.\1"),
    (r"cross_fusion\.cbam_text\.(.+)", r"xcbam.audio_to_text.cbam.\1"),
    (r"cross_fusion\.cbam_audio\.(.+)", r"xcbam.text_to_audio.cbam.\1"),
    (r"gnn\.(.+)", r"ch_gat.\1"),
]
_PARTS = [
    ("layer_norm.", "norm."),
    ("channel_attention_mlp.", "mlp."),
    ("spatial_attention.0.", "conv."),
    ("lin_src.", "lin."),
]


_RANKS = {"text_projection.0.weight": 2, "audio_projection.0.weight": 2, "mlp.4.weight": 2, "gnn.conv1.att_src": 3}


def infer_dimensions(state: dict[str, Tensor]) -> dict[str, int]:
    """Infer arguments of :class:`models.cemobam.CemoBAM` from the shapes in a published state dict.

    Raises:
        ValueError: names an entry that is missing or has the wrong number of dimensions.
    """
    try:
        for name, rank in _RANKS.items():
            if state[name].ndim != rank:
                raise ValueError(f"{name!r} has shape {list(state[name].shape)}, expected {rank} dimensions")
        hidden_dim, text_dim = state["text_projection.0.weight"].shape
        return {
            "text_dim": text_dim,
            "audio_dim": state["audio_projection.0.weight"].shape[1],
            "num_classes": state["mlp.4.weight"].shape[0],
            "hidden_dim": hidden_dim,
            "heads": state["gnn.conv1.att_src"].shape[1],
            "num_layers": 2 + len({m[1] for name in state if (m := re.match(r"gnn\.convs\.(\d+)\.", name))}),
        }
    except KeyError as error:
        raise ValueError(f"not a state dict of the published code ({error} is missing)") from error


def from_official(state: dict[str, Tensor], num_layers: int) -> dict[str, Tensor]:
    """Rename the weights of a published state dict.

    The query and key thirds of ``in_proj`` are dropped, because attention to a single token does not depend on them.

    Raises:
        ValueError: names an entry that the published code does not have.
    """
    ours = {}
    for name, tensor in state.items():
        new = _rename(name)
        if new is None:
            raise ValueError(f"{name!r} is not an entry of the published code's state dict")
        if ".lin_dst." in new:
            if not torch.equal(tensor, state.get(name.replace("lin_dst", "lin_src"), tensor)):
                raise ValueError(f"{name!r} differs from its lin_src; only a GATConv with one node type is supported")
            continue
        if ".in_proj_" in new:
            new = new.replace("in_proj_", "value_proj.")
            tensor = tensor.chunk(3)[2]
        new = re.sub(r"ch_gat\.convs\.(\d+)\.", lambda m: f"ch_gat.blocks.{int(m[1]) + 1}.conv.", new)
        new = new.replace("ch_gat.conv1.", "ch_gat.blocks.0.conv.")
        new = new.replace("ch_gat.conv_last.", f"ch_gat.blocks.{num_layers - 1}.conv.")
        if new.startswith("ch_gat.batch_norm."):
            for i in range(num_layers - 1):
                ours[new.replace("batch_norm", f"blocks.{i}.norm")] = tensor
        else:
            ours[new] = tensor
    return ours


def _rename(name: str) -> str | None:
    for pattern, replacement in _RENAMES:
        if re.fullmatch(pattern, name):
            new = re.sub(pattern, replacement, name)
            for old_part, new_part in _PARTS:
                new = new.replace(old_part, new_part)
            return new
    return None
