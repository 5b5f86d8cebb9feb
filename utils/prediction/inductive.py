"""Inductive inference: new utterances are attached to the graph of a run's training utterances.

A new utterance aggregates from itself and from its Top-K text and audio neighbours among the training utterances, as in
Eq. (2). Training utterances keep the neighbours of the training, and new utterances are not neighbours of each other. A
prediction therefore depends on its recording and transcript only, not on the other requests.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.ops import NeighborGraph
from utils.config import Config
from utils.data.features import check_encoders
from utils.data.safe_pickle import load_tensors
from utils.errors import InputError, fitting_into_memory
from utils.training.folder import GRAPH_FILE
from utils.training.graph import NeighborLists, build_graph, only_present, rank_keys, similarity_steps, unit_rows
from utils.training.trained import Trained

_TENSORS = {
    "text": torch.float32,
    "audio": torch.float32,
    "text_neighbors": torch.int32,
    "audio_neighbors": torch.int32,
}


@dataclass(frozen=True)
class TrainingGraph:
    """The training utterances of a run, their neighbours, and their encoders.

    Attributes:
        text, audio: embeddings [N, D_text] and [N, D_audio].
        lists: neighbours [N, k_text] and [N, k_audio].
        encoders: ``text`` and ``audio`` as in the features' JSON; {} where there is none.
        sha256: of the training features.
    """

    text: Tensor
    audio: Tensor
    lists: NeighborLists
    encoders: dict
    sha256: str


def load_training_graph(trained: Trained) -> TrainingGraph:
    """Read ``training_graph.pt`` of a checkpoint's run.

    Raises:
        InputError: it is missing, damaged, or of another training.
    """
    path = trained.run_folder / GRAPH_FILE
    if not path.is_file():
        raise InputError(
            f"{path}: no such file; train.py writes it into the run folder, and it must be copied along with the "
            "checkpoints (train.py --resume writes it again)"
        )
    saved = load_tensors(path)
    for name, dtype in _TENSORS.items():
        value = saved.get(name)
        if not isinstance(value, Tensor) or value.dtype != dtype:
            raise InputError(f"{path}: its {name} is not a matrix of {dtype}; not a file of train.py")
        if value.ndim != 2 or not value.isfinite().all() or not len(value):
            raise InputError(f"{path}: its {name} is not a finite matrix; not a file of train.py")
    count = len(saved["text"])
    lists = NeighborLists(saved["text_neighbors"].long(), saved["audio_neighbors"].long())
    config = trained.config
    if (
        (saved["text"].size(1), saved["audio"].size(1)) != trained.dims
        or saved["audio"].size(0) != count
        or tuple(each.shape for each in vars(lists).values()) != tuple((count, k) for k in config.neighbors)
        or not all(((each >= 0) & (each < count)).all() for each in vars(lists).values())
        or saved.get("sha256") != trained.data.get("train", {}).get("sha256")
    ):
        raise InputError(f"{path}: of another training than {trained.path}")
    check_encoders(saved.get("encoders"), path)
    return TrainingGraph(saved["text"], saved["audio"], lists, saved["encoders"], saved["sha256"])


class Predictor:
    """Class probabilities of new utterances, each model's at its temperature, averaged over the models of a run.

    Args:
        trained: models of one configuration, one per seed.
        graph: the graph of their training.

    Raises:
        InputError: the graph does not fit into memory.
    """

    def __init__(self, trained: Sequence[Trained], graph: TrainingGraph, device: torch.device):
        config = trained[0].config
        self.device = device
        self.models = [each.model.to(device).eval() for each in trained]
        self._paths = [each.path for each in trained]
        self._temperatures = [each.temperature for each in trained]
        self._attachment = Attachment(graph, config)
        self._model, self._means = config.model, (graph.text.mean(0), graph.audio.mean(0))
        whole = build_graph(graph.lists, *config.neighbors, config.message_flow).to(device)
        with torch.inference_mode(), fitting_into_memory("the training graph", "use --device cpu"):
            seen = only_present(self._model, graph.text, graph.audio, *self._means)
            text, audio = (each.to(device) for each in seen)
            self._inputs = [model.layer_inputs(text, audio, whole) for model in self.models]

    @torch.inference_mode()
    def __call__(self, text: Tensor, audio: Tensor) -> Tensor:
        """Shapes: text [B, D_text], audio [B, D_audio], result [B, num_classes], on the CPU."""
        return self.each(text, audio).mean(0)

    @torch.inference_mode()
    def each(self, text: Tensor, audio: Tensor) -> Tensor:
        """The probabilities of each model, [models, B, num_classes], on the CPU.

        Raises:
            InputError: they are not finite, or do not fit into memory.
        """
        nodes, graph = self._attachment(text, audio)
        text, audio = only_present(self._model, text, audio, *self._means)
        with fitting_into_memory("a batch", "lower --batch_seconds"):
            nodes, graph = nodes.to(self.device), graph.to(self.device)
            text, audio = text.to(self.device), audio.to(self.device)
            logits = [
                model.attach(text, audio, [layer[nodes] for layer in inputs], graph) / temperature
                for model, inputs, temperature in zip(self.models, self._inputs, self._temperatures, strict=True)
            ]
        probabilities = torch.stack(logits).softmax(-1).cpu()
        for path, of_model in zip(self._paths, probabilities, strict=True):
            if not of_model.isfinite().all():
                raise InputError(f"{path}: its probabilities are not finite; is the checkpoint damaged?")
        return probabilities


class Attachment:
    """The edges from training utterances to new ones.

    With ``neighbors_to_node``, Eq. (2), a new node aggregates from its Top-K. With ``node_to_neighbors`` it aggregates
    from the nodes that have it among their Top-K: from the training utterances to which it is more similar than their
    last neighbour.
    """

    def __init__(self, graph: TrainingGraph, config: Config):
        self._modalities = []
        for embeddings, lists in ((graph.text, graph.lists.text), (graph.audio, graph.lists.audio)):
            units, least = unit_rows(embeddings), None
            if config.message_flow == "node_to_neighbors" and lists.numel():
                pairs = zip(units.split(1), units[lists[:, -1]].split(1), strict=True)
                least = torch.cat([similarity_steps(one, last)[0] for one, last in pairs])
            self._modalities.append((units, lists.size(1), least))

    def __call__(self, text: Tensor, audio: Tensor) -> tuple[Tensor, NeighborGraph]:
        """Shapes: text [B, D_text], audio [B, D_audio].

        Returns:
            Indices [M] of the training utterances with an edge, and the graph over these and then the B new ones.
        """
        member = torch.zeros(len(text), len(self._modalities[0][0]), dtype=torch.bool)
        for new, (units, k, least) in zip((text, audio), self._modalities, strict=True):
            steps = similarity_steps(unit_rows(new), units)
            if least is None:
                member.scatter_(1, rank_keys(steps).topk(k).indices, True)
            else:
                member |= steps > least
        nodes = member.any(0).nonzero().flatten()
        itself = torch.eye(len(text), dtype=torch.bool)
        target, source = torch.cat([member[:, nodes], itself], dim=1).nonzero(as_tuple=True)
        return nodes, NeighborGraph.from_edges(source, target + len(nodes), len(nodes) + len(text))
