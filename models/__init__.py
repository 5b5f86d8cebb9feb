"""The CemoBAM network.

from models import CemoBAM, ModelConfig, NeighborGraph

graph = NeighborGraph.from_edges(source, target, num_nodes)  # or utils.training.graph.build_graph, Eq. (2)
logits = CemoBAM(ModelConfig(fusion_type="max"), text_dim=768, audio_dim=768, num_classes=4)(text, audio, graph)
"""

import warnings

# PyG compiles helpers with torch.jit.script on import, which torch >= 2.10 deprecates: nothing a user can act on
warnings.filterwarnings("ignore", message=r".*torch\.jit\.script.* is deprecated", category=FutureWarning)
warnings.filterwarnings("ignore", message=r".*torch\.jit\.script.* is deprecated", category=DeprecationWarning)

from models.cemobam import CemoBAM  # noqa: E402
from models.config import FUSIONS, ModelConfig  # noqa: E402
from models.ops import NeighborGraph  # noqa: E402

__all__ = ["FUSIONS", "CemoBAM", "ModelConfig", "NeighborGraph"]
