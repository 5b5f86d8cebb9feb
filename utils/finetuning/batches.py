"""The order of an epoch: steps of utterances of like length, cut into batches that the memory holds."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from models.encoders import AudioEncoder, AudioInput, TextEncoder
from utils.audio import Recording, Segment, random_crop, split_into_segments
from utils.errors import InputError
from utils.extraction.embedding import embed_recordings, embed_texts
from utils.extraction.embedding_cache import EmbeddingCache
from utils.extraction.encoding import batches_by_length, decode_ahead, longest_segment, stop_at_bad

CROP_SECONDS = 1.0  # of the published code, for NT-Xent
WORD_DROPOUT = 0.15  # likewise
_POOL = 16  # steps within which utterances are sorted by length


@dataclass(frozen=True)
class Batch:
    """What goes through the encoder at once; ``share`` is its weight in the step's loss, all shares adding to 1."""

    items: list
    labels: list[int]
    share: float


class Recordings:
    """Train or val for an audio encoder. An item is a segment; long recordings have several, each with the label."""

    def __init__(self, encoder: AudioEncoder, table: pd.DataFrame, recordings: dict[str, Recording], budget: float):
        self.encoder = encoder
        self.budget = budget
        self.recordings = {path: recordings[path] for path in table["audio_file"]}
        self.target = torch.tensor(table["label"].tolist())
        pairs = [
            (segment, label)
            for path, label in zip(table["audio_file"], table["label"], strict=True)
            for segment in split_into_segments(recordings[path], longest_segment(encoder), encoder.sampling_rate)
        ]
        self.items = [segment for segment, _ in pairs]
        self.labels = [label for _, label in pairs]
        self.lengths = [encoder.cost(segment.seconds) for segment in self.items]

    def distinct(self) -> list[Segment]:
        """What views are taken of: whole recordings."""
        return [Segment(recording, 0, recording.frames) for recording in self.recordings.values()]

    def view(self, item: Segment, rng: np.random.Generator) -> Segment:
        """A random second of it."""
        return random_crop(item, CROP_SECONDS, self.encoder.sampling_rate, rng)

    def inputs(self, batches: list[list[Segment]]) -> Iterator[list[AudioInput]]:
        """Decoded and prepared ahead of their use."""
        with closing(decode_ahead(self.encoder, batches, set(), stop_at_bad)) as decoded:
            for _, good in decoded:
                yield [each for _, each, _ in good]

    def embed(self, desc: str) -> Tensor:
        """Embeddings [N, dim] of the utterances, those that extract_features.py would write."""
        cache = EmbeddingCache(None, self.encoder.dim)
        found = embed_recordings(self.encoder, self.recordings, cache, self.budget, stop_at_bad, desc)
        return torch.from_numpy(np.stack(list(found.values())))


class Transcripts:
    """Train or val for a text encoder. An item is a transcript."""

    def __init__(self, encoder: TextEncoder, table: pd.DataFrame, budget: int):
        self.encoder = encoder
        self.budget = budget
        self.items = list(table["raw_text"])
        self.labels = table["label"].tolist()
        self.target = torch.tensor(self.labels)
        self.lengths = [min(len(encoder.tokenize(text)), encoder.max_tokens) for text in self.items]

    def distinct(self) -> list[str]:
        """What views are taken of: equal transcripts once, since nothing could tell them apart."""
        return list(dict.fromkeys(self.items))

    def view(self, item: str, rng: np.random.Generator) -> str:
        """The transcript without 15 % of its words, but for one."""
        words = item.split()
        kept = rng.random(len(words)) >= WORD_DROPOUT
        kept[rng.integers(len(words))] = True
        return " ".join(word for word, keep in zip(words, kept, strict=True) if keep)

    def inputs(self, batches: list[list[str]]) -> Iterator[list[list[int]]]:
        for batch in batches:
            yield [self.encoder.tokenize(text) for text in batch]

    def embed(self, desc: str) -> Tensor:
        """Embeddings [N, dim] of the utterances, those that extract_features.py would write."""
        cache = EmbeddingCache(None, self.encoder.dim)
        embed_texts(self.encoder, self.items, cache, self.budget, desc)
        return torch.from_numpy(np.stack([cache[text] for text in self.items]))


def plan_epoch(data: Recordings | Transcripts, batch_size: int, rng: np.random.Generator) -> list[list[Batch]]:
    """The steps of a supervised epoch, each a list of batches whose gradients are added.

    Args:
        batch_size: items a step.
    """
    steps = []
    for rows in steps_by_length(data.lengths, batch_size, rng):
        runs = batches_by_length([data.lengths[i] for i in rows], data.budget)
        parts = [[rows[i] for i in run] for run in runs]
        steps.append(
            [
                Batch([data.items[i] for i in part], [data.labels[i] for i in part], len(part) / len(rows))
                for part in parts
            ]
        )
    return steps


def plan_contrastive_epoch(
    data: Recordings | Transcripts, batch_size: int, rng: np.random.Generator
) -> list[list[Batch]]:
    """The steps of an epoch with NT-Xent, each one batch: first views of some utterances, then second ones.

    A view is told from the others of its batch, so that a batch is neither cut nor of a single utterance.

    Args:
        batch_size: utterances a step.

    Raises:
        InputError: there is nothing to tell an utterance from.
    """
    distinct = data.distinct()
    if len(distinct) < 2:
        raise InputError("--objective ntxent: all utterances of train are the same, and cannot be told apart")
    order = rng.permutation(len(distinct)).tolist()
    groups = [[distinct[i] for i in order[start : start + batch_size]] for start in range(0, len(order), batch_size)]
    views = [[data.view(item, rng) for _ in range(2) for item in group] for group in groups if len(group) > 1]
    return [[Batch(batch, [], 1.0)] for batch in views]


def steps_by_length(lengths: Sequence[float], batch_size: int, rng: np.random.Generator) -> list[list[int]]:
    """Every index once, in steps of ``batch_size`` of like length: shuffled, sorted within pools of some steps (longest
    first), and the steps shuffled.
    """
    order = rng.permutation(len(lengths))
    steps = []
    for start in range(0, len(order), _POOL * batch_size):
        pool = sorted(order[start : start + _POOL * batch_size].tolist(), key=lambda i: -lengths[i])
        steps += [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
    return [steps[i] for i in rng.permutation(len(steps))]
