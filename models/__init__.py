"""The CemoBAM network.

from models import CemoBAM, ModelConfig, NeighborGraph

graph = NeighborGraph.from_edges(source, target, num_nodes)  # or utils.training.graph.build_graph, Eq. (2)
logits = CemoBAM(ModelConfig(fusion_type="max"), text_dim=768, audio_dim=768, num_classes=4)(text, audio, graph)
"""

from importlib import import_module

_HOMES = {
    "CemoBAM": "models.cemobam",
    "FUSIONS": "models.config",
    "ModelConfig": "models.config",
    "NeighborGraph": "models.ops",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> object:
    """Import a name on first use, so that commands can read ``models.config`` without importing torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
