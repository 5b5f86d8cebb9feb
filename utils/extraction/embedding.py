"""Computes embeddings of transcripts and recordings in batches of similar length, with a cache."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from torch import nn
from tqdm import tqdm

from models.encoders import AudioEncoder, TextEncoder
from utils.data.audio import Recording, Segment, probe, split
from utils.errors import InputError
from utils.extraction.embedding_cache import EmbeddingCache
from utils.extraction.encoding import (
    Heard,
    OnBad,
    batches_by_length,
    check_finite,
    encode,
    longest_segment,
    stream_embeddings,
)


def embed_texts(
    encoder: TextEncoder, texts: Sequence[str], cache: EmbeddingCache, batch_tokens: int, desc: str | None = "text"
) -> int:
    """Compute the embedding [D] of every text that is not in the cache. The text is the cache key.

    Args:
        batch_tokens: Tokens per batch, including padding.
        desc: Title of the progress bar. None shows no bar.

    Returns:
        The number of texts that are truncated to ``max_tokens`` of the encoder.
    """
    tokens = {text: encoder.tokenize(text) for text in dict.fromkeys(texts)}
    fresh = sorted((text for text in tokens if text not in cache), key=lambda text: -len(tokens[text]))
    lengths = [min(len(tokens[text]), encoder.max_tokens) for text in fresh]
    with cache, tqdm(total=len(fresh), desc=desc, unit="text", disable=not fresh or desc is None) as bar:
        for rows in batches_by_length(lengths, batch_tokens):
            batch = [fresh[i] for i in rows]
            vectors = encode(encoder, [tokens[text] for text in batch], "--batch_tokens")
            for text, vector in zip(batch, vectors, strict=True):
                check_finite(vector, f"the transcript {text[:60]!r}")
                cache.add(text, vector)
            bar.update(len(batch))
    return sum(len(ids) > encoder.max_tokens for ids in tokens.values())


def probe_all(paths: Sequence[str], on_bad: OnBad) -> dict[str, Recording]:
    """Read the headers of all recordings, to find missing and unreadable files before any computation."""
    recordings = {}
    for path in tqdm(paths, desc="headers", unit="file", leave=False):
        try:
            recordings[path] = probe(Path(path))
        except InputError as error:
            on_bad(path, error)
    return recordings


def hash_all(recordings: dict[str, Recording], on_bad: OnBad) -> dict[str, str]:
    """SHA-256 of the contents of each recording. Calls ``on_bad`` for each recording that cannot be read."""
    digests = {}
    for path, recording in tqdm(recordings.items(), desc="contents", unit="file", leave=False, delay=1):
        try:
            digests[path] = recording.sha256
        except OSError as error:
            on_bad(path, InputError(f"{path}: cannot be read ({error.strerror})"))
    return digests


def embed_recordings(
    encoder: AudioEncoder,
    recordings: dict[str, Recording],
    cache: EmbeddingCache,
    batch_seconds: float,
    on_bad: OnBad,
    desc: str = "audio",
) -> dict[str, np.ndarray]:
    """Compute embeddings of recordings: the mean over time, for a long recording over all its segments.

    The cache key is the SHA-256 of a recording, so a moved recording is found again and a changed one is not.

    Args:
        batch_seconds: Seconds of speech per batch, including padding. A longer segment forms a separate batch.
        on_bad: Called for each recording that cannot be read or decoded.
        desc: Title of the progress bar.

    Returns:
        Embeddings [D] by path, without the bad recordings.
    """
    keys = hash_all(recordings, on_bad)
    fresh = [path for path, key in keys.items() if key not in cache]
    bad: set[str] = set()

    def report(path: str, error: InputError) -> None:
        bad.add(path)
        on_bad(path, error)

    with cache:
        for path, heard in hear_all(encoder, {path: recordings[path] for path in fresh}, batch_seconds, report, desc):
            cache.add(keys[path], heard.embedding)
    return {path: cache[key] for path, key in keys.items() if path not in bad}


def hear_all(
    encoder: AudioEncoder,
    recordings: dict[str, Recording],
    batch_seconds: float,
    on_bad: OnBad,
    desc: str,
    head: nn.Module | None = None,
) -> Iterator[tuple[str, Heard]]:
    """Yield the path and the :class:`Heard` of each recording, in batches of similar length, with a progress bar.

    Args:
        head: A head of :mod:`models.recognizers`, for transcripts.
    """
    longest = longest_segment(encoder)
    paths = {recording.whole: path for path, recording in recordings.items()}
    pieces = [piece for whole in paths for piece in split(whole, longest, encoder.sampling_rate)]
    pieces.sort(key=lambda piece: -piece.seconds)  # the batch that needs the most memory comes first
    ranges = batches_by_length([encoder.cost(piece.seconds) for piece in pieces], batch_seconds)
    batches = [pieces[rows.start : rows.stop] for rows in ranges]

    def report(whole: Segment, error: InputError) -> None:
        on_bad(paths[whole], error)

    total, done = sum(piece.seconds for piece in pieces), 0.0
    bar = tqdm(total=round(total), desc=desc, unit="s of speech", disable=not pieces)
    with bar, closing(stream_embeddings(encoder, batches, report, head)) as stream:
        for seconds, completed in stream:
            for whole, heard in completed.items():
                yield paths[whole], heard
            done += seconds
            bar.update(round(done) - bar.n)
