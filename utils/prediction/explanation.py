"""Explain an answer: the neighbours of the utterance, their attention, and the answer without each part.

Attention is the weight of a neighbour in a layer. It does not measure the effect of the neighbour on the answer. The
effect is measured separately: the answer is computed again without the neighbour.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.errors import InputError, printable
from utils.io import align
from utils.prediction.inductive import Predictor
from utils.training.folder import GRAPH_FILE

Probabilities = tuple[float, ...]  # one per class, averaged over the models of a run

EDGES = 1 << 20  # per batch of answers that each lack one neighbour; about 200 MB
SHOWN = 20  # maximum number of neighbours in a table or figure; those with the most attention are shown


@dataclass(frozen=True)
class Neighbor:
    """A training utterance from which the explained utterance aggregates.

    Attributes:
        id, text, label: recording, transcript ("" if unknown), class index.
        text_similarity, audio_similarity: cosines of the embeddings.
        by: the modalities in which it is a neighbour: ``text``, ``audio`` or ``both``.
        attention: the weight of its edge in each layer, averaged over heads and models.
        without: the answer without this neighbour.
    """

    id: str
    text: str
    label: int
    text_similarity: float
    audio_similarity: float
    by: str
    attention: tuple[float, ...]
    without: Probabilities

    @property
    def mean_attention(self) -> float:
        return _mean(self.attention)


@dataclass(frozen=True)
class Explanation:
    """An answer and the effect of each part on it.

    Attributes:
        probabilities: the answer of :class:`~utils.prediction.inductive.Predictor`.
        without_text, without_audio: the answer if the embedding of that modality is missing. The mean embedding of the
            training utterances replaces it and has other neighbours.
        without_graph: the answer if the utterance attends only to itself; None for a model without CH-GAT.
        self_attention: the weight of the utterance itself in each layer. It and the neighbours' weights sum to 1.
        neighbors: sorted by mean attention, highest first. Without CH-GAT there are no neighbours and no layers.
    """

    probabilities: Probabilities
    without_text: Probabilities
    without_audio: Probabilities
    without_graph: Probabilities | None
    self_attention: tuple[float, ...]
    neighbors: tuple[Neighbor, ...]

    @property
    def prediction(self) -> int:
        return _top(self.probabilities)

    @property
    def answers(self) -> dict[str, Probabilities]:
        """The answer, and the answers without each part, by name."""
        named = {
            "answer": self.probabilities,
            "without text": self.without_text,
            "without audio": self.without_audio,
            "without graph": self.without_graph,
        }
        return {name: each for name, each in named.items() if each is not None}

    def change(self, without: Probabilities) -> float:
        """Change in the probability of the predicted class from the answer to the answer ``without`` a part."""
        return without[self.prediction] - self.probabilities[self.prediction]


@torch.inference_mode()
def explain(predictor: Predictor, text: Tensor, audio: Tensor) -> Explanation:
    """Explain the answer to one utterance. Shapes: text [D_text], audio [D_audio].

    Raises:
        InputError: the run's training graph does not name its utterances; see also :meth:`Predictor.each`.
    """
    utterances = predictor.graph.utterances
    if utterances is None:
        path = predictor.trained[0].run_folder / GRAPH_FILE
        raise InputError(f"{path}: does not name the training utterances (train.py --resume writes it again)")
    text, audio = text[None], audio[None]
    text_mean, audio_mean = (mean[None] for mean in predictor.means)
    attends = predictor.trained[0].config.model.has("ch_gat")
    by_text, by_audio = predictor.attachment(text, audio)[:, 0] & attends  # [N] each
    member = by_text | by_audio
    attention = predictor.attention(text, audio, member[None]).mean(0)  # [layers, M + 1]
    nodes = member.nonzero().flatten()
    *removed, alone = _answers_without_each(predictor, text, audio, member, nodes)
    cosines = [
        F.cosine_similarity(new.double(), known[nodes].double()).tolist()
        for new, known in ((text, predictor.graph.text), (audio, predictor.graph.audio))
    ]
    neighbors = [
        Neighbor(
            utterances.ids[node],
            utterances.texts[node],
            utterances.labels[node],
            *similarity,
            "both" if by_text[node] and by_audio[node] else "text" if by_text[node] else "audio",
            tuple(weights),
            without,
        )
        for node, similarity, weights, without in zip(
            nodes.tolist(), zip(*cosines, strict=True), attention.T[:-1].tolist(), removed, strict=True
        )
    ]
    return Explanation(
        *(
            tuple(predictor(*pair)[0].tolist())
            for pair in ((text, audio), (text_mean, audio), (text, audio_mean))  # as predict.py calls it
        ),
        alone if attends else None,
        tuple(attention[:, -1].tolist()),
        tuple(sorted(neighbors, key=lambda each: each.mean_attention, reverse=True)),
    )


def _answers_without_each(
    predictor: Predictor, text: Tensor, audio: Tensor, member: Tensor, nodes: Tensor
) -> list[Probabilities]:
    """The answers without each of M neighbours, and without all of them. Each answer uses a copy of the utterance."""
    removed = [*nodes.unbind(), nodes]
    found, rows = [], max(1, EDGES // len(removed))
    for start in range(0, len(removed), rows):
        part = removed[start : start + rows]
        members = member.repeat(len(part), 1)
        for of_copy, left_out in zip(members, part, strict=True):
            of_copy[left_out] = False
        copies = (each.expand(len(part), -1) for each in (text, audio))
        found += predictor.attached(*copies, members).mean(0).tolist()
    return [tuple(each) for each in found]


def _top(probabilities: Probabilities) -> int:
    return max(range(len(probabilities)), key=probabilities.__getitem__)


# ---- output ----------------------------------------------------------------------------------------------------------


def lines(explanation: Explanation, class_names: Sequence[str], most: int = SHOWN) -> list[str]:
    """A table of the answers and one of up to ``most`` neighbours, in percent; changes are in percentage points."""
    predicted = class_names[explanation.prediction]
    answers = [("percent", "emotion", *class_names, f"change of {predicted}")]
    for name, each in explanation.answers.items():
        change = "" if name == "answer" else _points(explanation.change(each))
        answers.append((name, class_names[_top(each)], *(f"{100 * value:.1f}" for value in each), change))
    if not explanation.self_attention:
        return [*align(answers), "no neighbours: the model has no CH-GAT"]
    shown = explanation.neighbors[:most]
    rows = [("neighbour", "emotion", "by", "text", "audio", "attention", "removed")]
    rows.append(("(the utterance itself)", *[""] * 4, f"{100 * _mean(explanation.self_attention):.1f}", ""))
    for each in shown:
        cosines = f"{each.text_similarity:.3f}", f"{each.audio_similarity:.3f}"
        weights = f"{100 * each.mean_attention:.1f}", _points(explanation.change(each.without))
        rows.append((_end(each.id), class_names[each.label], each.by, *cosines, *weights))
    texts = ["transcript", "", *(_beginning(each.text) for each in shown)]
    even, more = 100 / (len(explanation.neighbors) + 1), len(explanation.neighbors) - len(shown)
    return [
        *align(answers),
        "",
        f"text, audio: cosine; attention: percent, mean over the layers (an equal share: {even:.1f}); "
        "removed: change without it, points",
        *(f"{row}  {text}".rstrip() for row, text in zip(align(rows), texts, strict=True)),
        *([f"and {more} more"] if more else []),
    ]


def as_dict(explanation: Explanation, class_names: Sequence[str]) -> dict:
    """The explanation as a dict for JSON, with class names, and fractions rounded to six digits."""

    def by_class(probabilities: Probabilities | None) -> dict[str, float] | None:
        return probabilities and dict(zip(class_names, _rounded(probabilities), strict=True))

    return {
        "emotion": class_names[explanation.prediction],
        "probabilities": by_class(explanation.probabilities),
        "without_text": by_class(explanation.without_text),
        "without_audio": by_class(explanation.without_audio),
        "without_graph": by_class(explanation.without_graph),
        "self_attention": _rounded(explanation.self_attention),
        "neighbors": [
            {
                "audio_file": each.id,
                "raw_text": each.text,
                "emotion": class_names[each.label],
                "text_similarity": round(each.text_similarity, 6),
                "audio_similarity": round(each.audio_similarity, 6),
                "by": each.by,
                "attention": _rounded(each.attention),
                "without": by_class(each.without),
            }
            for each in explanation.neighbors
        ],
    }


def plot(explanation: Explanation, class_names: Sequence[str], path: Path, title: str) -> None:
    """Draw the answers and the attention to each neighbour as the PNG ``path``, and as a PDF next to it."""
    from utils.plots import plot_explanation  # takes a second to import

    bars = [(_end(each.id), each.mean_attention, each.label) for each in explanation.neighbors[:SHOWN]]
    if explanation.self_attention:
        bars.insert(0, ("(the utterance itself)", _mean(explanation.self_attention), None))
    plot_explanation(path, explanation.answers, bars, class_names, title)


def _mean(of_layers: Sequence[float]) -> float:
    return sum(of_layers) / len(of_layers)


def _points(change: float) -> str:
    """A change in percentage points, never -0.0."""
    return f"{round(100 * change, 1) + 0.0:+.1f}"


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 6) for value in values]


def _beginning(text: str, most: int = 60) -> str:
    text = printable(text)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _end(name: str, most: int = 32) -> str:
    """The last characters of a path, which distinguish recordings."""
    name = printable(name)
    return name if len(name) <= most else f"…{name[1 - most :]}"
