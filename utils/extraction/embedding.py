"""Transcripts and recordings to embeddings in a cache: long before short, nothing computed twice."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from tqdm import tqdm

from models.encoders import AudioEncoder, TextEncoder
from utils.audio import Recording, Segment, probe, split_into_segments
from utils.errors import InputError
from utils.extraction.embedding_cache import EmbeddingCache
from utils.extraction.encoding import OnBad, batches_by_length, check_finite, encode, longest_segment, stream_embeddings


def embed_texts(
    encoder: TextEncoder, texts: Sequence[str], cache: EmbeddingCache, batch_tokens: int, desc: str = "text"
) -> int:
    """Put the embedding of every text into the cache, with the text as its key; equal texts are computed once.

    Args:
        batch_tokens: of a batch, padding included.
        desc: what the progress bar is called.

    Returns:
        How many texts were longer than the encoder reads.
    """
    tokens = {text: encoder.tokenize(text) for text in dict.fromkeys(texts)}
    fresh = sorted((text for text in tokens if text not in cache), key=lambda text: -len(tokens[text]))
    lengths = [min(len(tokens[text]), encoder.max_tokens) for text in fresh]
    bar = tqdm(total=len(fresh), desc=desc, unit="text", disable=not fresh)
    try:
        for rows in batches_by_length(lengths, batch_tokens):
            batch = [fresh[i] for i in rows]
            vectors = encode(encoder, [tokens[text] for text in batch], "--batch_tokens")
            for text, vector in zip(batch, vectors, strict=True):
                check_finite(vector, f"the transcript {text[:60]!r}")
                cache.add(text, vector)
            bar.update(len(batch))
    finally:
        bar.close()
        cache.save()
    return sum(len(ids) > encoder.max_tokens for ids in tokens.values())


def recording_key(recording: Recording) -> str:
    """A recording's key in the cache: a file of another size or time of change has another."""
    return f"{recording.path.resolve()}|{recording.size}|{recording.mtime_ns}"


def probe_all(paths: Sequence[str], on_bad: OnBad) -> dict[str, Recording]:
    """Read the headers of all recordings, so that what is missing or no audio shows before anything is computed."""
    recordings = {}
    for path in tqdm(paths, desc="headers", unit="file", leave=False):
        try:
            recordings[path] = probe(Path(path))
        except InputError as error:
            on_bad(path, error)
    return recordings


def embed_recordings(
    encoder: AudioEncoder,
    recordings: dict[str, Recording],
    cache: EmbeddingCache,
    batch_seconds: float,
    on_bad: OnBad,
    desc: str = "audio",
) -> dict[str, np.ndarray]:
    """The embedding of every recording: the mean over time, of long ones over all their segments.

    Args:
        batch_seconds: of a batch, padding included; at least one segment is taken.
        on_bad: what to do with a recording that cannot be decoded.
        desc: what the progress bar is called.

    Returns:
        Embeddings [D] by path, without the bad recordings.
    """
    longest = longest_segment(encoder)
    keys = {path: recording_key(recording) for path, recording in recordings.items()}
    fresh = [recording for path, recording in recordings.items() if keys[path] not in cache]
    segments = [segment for each in fresh for segment in split_into_segments(each, longest, encoder.sampling_rate)]
    bad = _embed_segments(encoder, segments, keys, cache, batch_seconds, on_bad, desc)
    return {path: cache[key] for path, key in keys.items() if path not in bad}


def _embed_segments(
    encoder: AudioEncoder,
    segments: list[Segment],
    keys: dict[str, str],
    cache: EmbeddingCache,
    batch_seconds: float,
    on_bad: OnBad,
    desc: str,
) -> set[str]:
    """Put the embeddings of the segments' recordings into the cache; return the paths of those that are bad."""
    segments = sorted(segments, key=lambda segment: -segment.seconds)  # the batch that needs most memory comes first
    plan = batches_by_length([encoder.cost(segment.seconds) for segment in segments], batch_seconds)
    batches = [[segments[i] for i in rows] for rows in plan]
    bad: set[str] = set()

    def note_bad(path: str, error: InputError) -> None:
        bad.add(path)
        on_bad(path, error)

    total, done = sum(segment.seconds for segment in segments), 0.0
    bar = tqdm(total=round(total), desc=desc, unit="s of speech", disable=not segments)
    try:
        with closing(stream_embeddings(encoder, batches, note_bad)) as stream:
            for seconds, embeddings in stream:
                for path, embedding in embeddings.items():
                    cache.add(keys[path], embedding)
                done += seconds
                bar.update(round(done) - bar.n)
    finally:
        bar.close()
        cache.save()
    return bad
