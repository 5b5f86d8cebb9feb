"""Inductive inference: new utterances are attached to the graph of a run's training utterances.

A new utterance aggregates from itself and from its Top-K text and audio neighbours among the training utterances, as in
Eq. (2). Training utterances keep the neighbours from training, and new utterances are not neighbours of each other. A
prediction therefore depends only on its recording and transcript, not on the other requests.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from models.cemobam import CemoBAM
from models.ops import NeighborGraph
from utils.config import Config
from utils.data.features import check_encoders
from utils.data.safe_pickle import load_tensors
from utils.errors import InputError, fitting_into_memory
from utils.training.graph import NeighborLists, build_graph, only_present, rank_keys, similarity_steps, unit_rows
from utils.training.trained import Trained, graph_file

_TENSORS = {
    "text": torch.float32,
    "audio": torch.float32,
    "text_neighbors": torch.int32,
    "audio_neighbors": torch.int32,
}


@dataclass(frozen=True)
class Utterances:
    """Recordings, transcripts ("" if unknown) and class indices of N training utterances.

    If the features have no CSV, a recording is named by its row, ``<pickle>:<row>``.
    """

    ids: list[str]
    texts: list[str]
    labels: list[int]


@dataclass(frozen=True)
class TrainingGraph:
    """The training utterances of a run, their neighbours, and their encoders.

    Attributes:
        text, audio: embeddings [N, D_text] and [N, D_audio].
        lists: neighbours [N, k_text] and [N, k_audio].
        encoders: ``text`` and ``audio`` as in the features' JSON; {} if there is none.
        sha256: of the training features.
        utterances: their recordings, transcripts and classes; None if the file does not contain them.
    """

    text: Tensor
    audio: Tensor
    lists: NeighborLists
    encoders: dict
    sha256: str
    utterances: Utterances | None = None


def load_training_graph(trained: Trained) -> TrainingGraph:
    """Read the training graph of a checkpoint's run, or of its export.

    Raises:
        InputError: it is missing, damaged, or belongs to another training.
    """
    path = graph_file(trained.run_folder)
    if not path.is_file():
        raise InputError(
            f"{path}: no such file; train.py writes it into the run folder, and it must be copied along with the "
            "checkpoints (train.py --resume writes it again)"
        )
    saved = load_tensors(path)
    for name, dtype in _TENSORS.items():
        value = saved.get(name)
        if not isinstance(value, Tensor) or value.dtype != dtype:
            raise InputError(f"{path}: its {name} is not a matrix of {dtype}; not written by train.py")
        if value.ndim != 2 or not value.isfinite().all() or not len(value):
            raise InputError(f"{path}: its {name} is not a finite matrix; not written by train.py")
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
        raise InputError(f"{path}: belongs to another training than {trained.path}")
    check_encoders(saved.get("encoders"), path)
    utterances = _utterances(saved, len(trained.class_names), path)
    return TrainingGraph(saved["text"], saved["audio"], lists, saved["encoders"], saved["sha256"], utterances)


def _utterances(saved: dict, num_classes: int, path: Path) -> Utterances | None:
    kinds = {"ids": str, "texts": str, "labels": int}
    if not saved.keys() & kinds:
        return None
    count = len(saved["text"])
    for name, kind in kinds.items():
        values = saved.get(name)
        if not (isinstance(values, list) and len(values) == count and all(type(each) is kind for each in values)):
            raise InputError(f"{path}: its {name} are not a valid list of {count} values; not written by train.py")
    for row, label in enumerate(saved["labels"]):
        if not 0 <= label < num_classes:
            raise InputError(f"{path}: row {row}: label {label} is not one of the {num_classes} classes")
    return Utterances(*(saved[name] for name in kinds))


class Predictor:
    """Class probabilities of new utterances, averaged over the models of a run. Each model has its own temperature.

    Args:
        trained: models of one configuration, one per seed.
        graph: the graph of their training.

    Attributes:
        attachment: finds the neighbours of new utterances.
        means: the mean training embeddings [D_text] and [D_audio], which replace a missing modality.

    Raises:
        InputError: the graph does not fit into memory.
    """

    def __init__(self, trained: Sequence[Trained], graph: TrainingGraph, device: torch.device):
        config = trained[0].config
        self.device, self.trained, self.graph = device, trained, graph
        self.models = [each.model.to(device).eval() for each in trained]
        self.attachment = Attachment(graph, config)
        self.means = graph.text.mean(0), graph.audio.mean(0)
        whole = build_graph(graph.lists, *config.neighbors, config.message_flow).to(device)
        with torch.inference_mode(), fitting_into_memory("the training graph", "use --device cpu"):
            seen = only_present(config.model, graph.text, graph.audio, *self.means)
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
            InputError: the probabilities are not finite, or the batch does not fit into memory.
        """
        return self.attached(text, audio, self.attachment(text, audio).any(0))

    @torch.inference_mode()
    def attached(self, text: Tensor, audio: Tensor, member: Tensor) -> Tensor:
        """:meth:`each` with given neighbours: ``member`` [B, N] in bool, B new and N training utterances."""
        with fitting_into_memory("a batch", "lower --batch_seconds"):
            of_models = self._of_models(CemoBAM.attach, text, audio, member)
            logits = [each / trained.temperature for each, trained in zip(of_models, self.trained, strict=True)]
        probabilities = torch.stack(logits).softmax(-1).cpu()
        for trained, of_model in zip(self.trained, probabilities, strict=True):
            if not of_model.isfinite().all():
                raise InputError(f"{trained.path}: the probabilities are not finite; the checkpoint may be damaged")
        return probabilities

    @torch.inference_mode()
    def attention(self, text: Tensor, audio: Tensor, member: Tensor) -> Tensor:
        """The attention weights of one new utterance, averaged over the heads, on the CPU.

        Shapes: text [1, D_text], audio [1, D_audio], member [1, N]; result [models, layers, M + 1]: the M members in
        order, then the utterance itself. Without CH-GAT there are no layers.
        """
        return torch.stack(self._of_models(CemoBAM.attached_attention, text, audio, member)).cpu()

    def _of_models(self, method: Callable[..., Tensor], text: Tensor, audio: Tensor, member: Tensor) -> list[Tensor]:
        """Call a method of each model on the graph of new utterances and their neighbours."""
        nodes, graph = edges_into_new(member)
        text, audio = only_present(self.trained[0].config.model, text, audio, *self.means)
        nodes, graph = nodes.to(self.device), graph.to(self.device)
        text, audio = text.to(self.device), audio.to(self.device)
        return [
            method(model, text, audio, [layer[nodes] for layer in inputs], graph)
            for model, inputs in zip(self.models, self._inputs, strict=True)
        ]


class Attachment:
    """Finds the training utterances from which new utterances aggregate.

    With ``neighbors_to_node``, Eq. (2), a new node aggregates from its Top-K neighbours. With ``node_to_neighbors``, it
    aggregates from the nodes that have it among their Top-K neighbours. These are the training utterances to which it
    is more similar than their last neighbour is.
    """

    def __init__(self, graph: TrainingGraph, config: Config):
        self._modalities = []
        for embeddings, lists in ((graph.text, graph.lists.text), (graph.audio, graph.lists.audio)):
            units, least = unit_rows(embeddings), None
            if config.message_flow == "node_to_neighbors" and lists.numel():
                pairs = zip(units.split(1), units[lists[:, -1]].split(1), strict=True)
                least = torch.cat([similarity_steps(one, last)[0] for one, last in pairs])
            self._modalities.append((units, lists.size(1), least))

    def __call__(self, text: Tensor, audio: Tensor) -> Tensor:
        """Shapes: text [B, D_text], audio [B, D_audio].

        Returns:
            Which of the N training utterances are neighbours by text, and which by audio, [2, B, N] in bool.
        """
        members = torch.zeros(2, len(text), len(self._modalities[0][0]), dtype=torch.bool)
        for member, new, (units, k, least) in zip(members, (text, audio), self._modalities, strict=True):
            steps = similarity_steps(unit_rows(new), units)
            if least is None:
                member.scatter_(1, rank_keys(steps).topk(k).indices, True)
            else:
                member |= steps > least
        return members


def edges_into_new(member: Tensor) -> tuple[Tensor, NeighborGraph]:
    """The edges into B new utterances, from their neighbours among N training utterances and from themselves.

    Args:
        member: [B, N] in bool.

    Returns:
        Indices [M] of the training utterances with an edge, and the graph over these and then the B new ones.
    """
    nodes = member.any(0).nonzero().flatten()
    itself = torch.eye(len(member), dtype=torch.bool)
    target, source = torch.cat([member[:, nodes], itself], dim=1).nonzero(as_tuple=True)
    return nodes, NeighborGraph.from_edges(source, target + len(nodes), len(nodes) + len(member))
