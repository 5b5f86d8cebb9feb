"""Training data for fine-tuning: items, views for NT-Xent, and the steps of an epoch."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from models.encoders import AudioEncoder, AudioInput, TextEncoder
from utils.data.audio import Recording, Segment, random_crop, split
from utils.data.features import encoder_name
from utils.errors import InputError
from utils.extraction.config import AUDIO_MODEL, BATCH_SECONDS, BATCH_TOKENS, TEXT_MODEL
from utils.extraction.embedding import embed_recordings, embed_texts
from utils.extraction.embedding_cache import EmbeddingCache
from utils.extraction.encoding import batches_by_length, decode_batches, longest_segment, stop_at_bad
from utils.extraction.hub import load_audio_encoder, load_text_encoder
from utils.finetuning.source import Source

CROP_SECONDS = 1.0  # as in the published code, for NT-Xent
WORD_DROPOUT = 0.15  # as in the published code, for NT-Xent
_POOL = 16  # steps within which utterances are sorted by length


@dataclass(frozen=True)
class Batch:
    """One forward pass. ``share`` is its weight in the step's loss; the shares of a step add up to 1."""

    items: list
    labels: list[int]
    share: float


class Recordings:
    """One split for an audio encoder. Items are segments, several for a long recording, each with its label.

    Args:
        table: ``audio_file`` and ``label``.
        budget: Seconds of speech per batch, padding included.
    """

    budget_option = "--batch_seconds"

    def __init__(self, encoder: AudioEncoder, table: pd.DataFrame, recordings: dict[str, Recording], budget: float):
        self.encoder = encoder
        self.budget = budget
        self.recordings = {path: recordings[path] for path in table["audio_file"]}
        self.target = torch.tensor(table["label"].tolist())  # [N], one label per utterance
        self.items, self.labels = [], []
        for recording, label in zip(self.recordings.values(), table["label"], strict=True):
            segments = split(recording.whole, longest_segment(encoder), encoder.sampling_rate)
            self.items += segments
            self.labels += [label] * len(segments)
        self.lengths = [encoder.cost(segment.seconds) for segment in self.items]

    def distinct(self) -> list[Segment]:
        """Whole recordings, from which views are taken."""
        return [recording.whole for recording in self.recordings.values()]

    def view(self, item: Segment, rng: np.random.Generator) -> Segment:
        """A random crop of one second."""
        return random_crop(item, CROP_SECONDS, self.encoder.sampling_rate, rng)

    def inputs(self, batches: list[list[Segment]]) -> Iterator[list[AudioInput]]:
        """Encoder inputs of each batch, decoded in advance."""
        with closing(decode_batches(self.encoder, batches, stop_at_bad)) as decoded:
            for _, segments in decoded:
                yield [each for _, each, _ in segments]

    def embed(self, desc: str) -> Tensor:
        """Embeddings [N, dim] of the utterances, as extract_features.py computes them."""
        cache = EmbeddingCache(None, self.encoder.dim)
        found = embed_recordings(self.encoder, self.recordings, cache, self.budget, stop_at_bad, desc)
        return torch.from_numpy(np.stack(list(found.values())))


class Transcripts:
    """One split for a text encoder. Items are transcripts.

    Args:
        table: ``raw_text`` and ``label``.
        budget: Tokens per batch, padding included.
    """

    budget_option = "--batch_tokens"

    def __init__(self, encoder: TextEncoder, table: pd.DataFrame, budget: int):
        self.encoder = encoder
        self.budget = budget
        self.items = list(table["raw_text"])
        self.labels = table["label"].tolist()
        self.target = torch.tensor(self.labels)
        self.lengths = [min(len(encoder.tokenize(text)), encoder.max_tokens) for text in self.items]

    def distinct(self) -> list[str]:
        """The transcripts without duplicates, which NT-Xent could not distinguish."""
        return list(dict.fromkeys(self.items))

    def view(self, item: str, rng: np.random.Generator) -> str:
        """The transcript with each word dropped with probability :data:`WORD_DROPOUT`; at least one is kept."""
        words = item.split()
        kept = rng.random(len(words)) >= WORD_DROPOUT
        kept[rng.integers(len(words))] = True
        return " ".join(word for word, keep in zip(words, kept, strict=True) if keep)

    def inputs(self, batches: list[list[str]]) -> Iterator[list[list[int]]]:
        """Token ids of each batch."""
        for batch in batches:
            yield [self.encoder.tokenize(text) for text in batch]

    def embed(self, desc: str) -> Tensor:
        """Embeddings [N, dim] of the utterances, as extract_features.py computes them."""
        cache = EmbeddingCache(None, self.encoder.dim)
        embed_texts(self.encoder, self.items, cache, self.budget, desc)
        return torch.from_numpy(np.stack([cache[text] for text in self.items]))


def load_recordings(
    source: Source, model: str | None, known: dict, budget: float | None, device: torch.device
) -> tuple[AudioEncoder, dict, list[Recordings]]:
    """Load the initial audio encoder, its description, and its data of train and val.

    Args:
        model: the encoder that the user gives, if any.
        known: the features' description of their encoder; {} if there are no extracted features.
    """
    name = model or (encoder_name(known) if known else AUDIO_MODEL)
    encoder, description = load_audio_encoder(name, device, "--model")
    budget = budget or BATCH_SECONDS[device.type]
    data = [Recordings(encoder, table, source.recordings, budget) for table in source.splits.values()]
    return encoder, description, data


def load_transcripts(
    source: Source, model: str | None, pooling: str | None, known: dict, budget: int | None, device: torch.device
) -> tuple[TextEncoder, dict, list[Transcripts]]:
    """Like :func:`load_recordings`, for a text encoder. ``pooling`` is the one that the user gives, if any."""
    name = model or (encoder_name(known) if known else TEXT_MODEL)
    pooling = pooling or known.get("pooling")
    encoder, description = load_text_encoder(name, pooling, device, "--model")
    budget = budget or BATCH_TOKENS[device.type]
    return encoder, description, [Transcripts(encoder, table, budget) for table in source.splits.values()]


def plan_epoch(data: Recordings | Transcripts, batch_size: int, rng: np.random.Generator) -> list[list[Batch]]:
    """The steps of a supervised epoch, each of ``batch_size`` items in batches whose gradients are accumulated."""
    steps = []
    for rows in steps_by_length(data.lengths, batch_size, rng):
        step = []
        for run in batches_by_length([data.lengths[i] for i in rows], data.budget):
            part = [rows[i] for i in run]
            items, labels = [data.items[i] for i in part], [data.labels[i] for i in part]
            step.append(Batch(items, labels, len(part) / len(rows)))
        steps.append(step)
    return steps


def plan_contrastive_epoch(
    data: Recordings | Transcripts, batch_size: int, rng: np.random.Generator
) -> list[list[Batch]]:
    """The steps of an NT-Xent epoch. Each is one batch: the first views of ``batch_size`` utterances, then the second.

    The other views of a batch are the negatives, so a batch is never split, and a last single utterance is skipped.

    Raises:
        InputError: All utterances are equal.
    """
    distinct = data.distinct()
    if len(distinct) < 2:
        raise InputError("--objective ntxent: all utterances of train are equal, so there are no negatives")
    order = rng.permutation(len(distinct)).tolist()
    groups = [[distinct[i] for i in order[start : start + batch_size]] for start in range(0, len(order), batch_size)]
    views = [[data.view(item, rng) for _ in range(2) for item in group] for group in groups if len(group) > 1]
    return [[Batch(batch, [], 1.0)] for batch in views]


def steps_by_length(lengths: Sequence[float], batch_size: int, rng: np.random.Generator) -> list[list[int]]:
    """All indices in random steps of ``batch_size`` items of similar length, longest first within a step.

    Indices are shuffled and sorted by length within pools of :data:`_POOL` steps. Then the steps are shuffled.
    """
    order = rng.permutation(len(lengths))
    steps = []
    for start in range(0, len(order), _POOL * batch_size):
        pool = sorted(order[start : start + _POOL * batch_size].tolist(), key=lambda i: -lengths[i])
        steps += [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
    return [steps[i] for i in rng.permutation(len(steps))]
