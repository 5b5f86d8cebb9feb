"""Transcripts and recordings to embeddings: batches by length, decoding beside the encoder, nothing computed twice."""

import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from models.encoders import AudioEncoder, AudioInput, TextEncoder
from utils.audio import Recording, Segment, load_segment, probe, split_into_segments
from utils.embedding_cache import EmbeddingCache
from utils.errors import InputError

SEGMENT_SECONDS = 30.0  # Whisper's window; IEMOCAP's longest turn is 34 s
BATCH_SECONDS = {"cpu": 15.0, "cuda": 240.0}  # a CPU gains nothing by large batches (benchmarks/extraction.py)
BATCH_TOKENS = {"cpu": 256, "cuda": 16_384}
_BATCHES_AHEAD = 2

_Decoded = tuple[str, AudioInput, bool]  # of a segment: its recording's path, and whether it is more than silence
OnBad = Callable[[str, InputError], None]  # takes a recording's path and what is wrong with it; may raise it


def stop_at_bad(path: str, error: InputError) -> None:
    """An :data:`OnBad` that stops at the first bad recording."""
    raise error


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
            vectors = _encode(encoder, [tokens[text] for text in batch], "--batch_tokens")
            for text, vector in zip(batch, vectors, strict=True):
                _check_finite(vector, f"the transcript {text[:60]!r}")
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


def longest_segment(encoder: AudioEncoder) -> float:
    """Seconds; what is longer is cut."""
    return min(SEGMENT_SECONDS, encoder.max_seconds or SEGMENT_SECONDS)


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


@dataclass
class SegmentMean:
    """A recording's embedding in the making: its segments' means, weighted by their lengths."""

    missing: int
    frames: int = 0
    heard: bool = False
    total: np.ndarray | float = 0.0

    def add(self, vector: np.ndarray, frames: int) -> np.ndarray | None:
        """The mean, with the last segment; None before."""
        self.missing -= 1
        self.frames += frames
        self.total = self.total + vector * np.float32(frames)
        return self.total / np.float32(self.frames) if self.missing == 0 else None


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


def stream_embeddings(
    encoder: AudioEncoder, batches: list[list[Segment]], on_bad: OnBad
) -> Iterator[tuple[float, dict[str, np.ndarray]]]:
    """Encode batch after batch; ``on_bad`` is told of a bad recording once.

    Returns:
        For each batch its seconds, and the embeddings [D], by path, of the recordings whose last segment it held.
    """
    sums = {
        path: SegmentMean(count) for path, count in Counter(str(s.recording.path) for b in batches for s in b).items()
    }
    bad: set[str] = set()

    def note_bad(path: str, error: InputError) -> None:
        if path not in bad:
            bad.add(path)
            on_bad(path, error)

    with closing(decode_ahead(encoder, batches, bad, note_bad)) as decoded:
        for seconds, good in decoded:
            finished = {}
            vectors = _encode(encoder, [each for _, each, _ in good], "--batch_seconds") if good else []
            for (path, each, heard), vector in zip(good, vectors, strict=True):
                sums[path].heard |= heard
                mean = sums[path].add(vector, each.frames)
                if mean is None or path in bad:
                    continue
                try:
                    _check_finite(mean, path)
                    if not sums[path].heard:
                        raise InputError(f"{path}: silence, every sample of its mix to mono is 0")
                except InputError as error:
                    note_bad(path, error)
                else:
                    finished[path] = mean
            yield seconds, finished


def batches_by_length(lengths: Sequence[float], budget: float) -> Iterator[range]:
    """Runs of items, longest first, whose number times their greatest length keeps to the budget.

    Args:
        lengths: in falling order.
    """
    start = 0
    while start < len(lengths):
        count = max(1, int(budget // lengths[start]))
        yield range(start, min(start + count, len(lengths)))
        start += count


def batches_in_order(segments: Sequence[Segment], encoder: AudioEncoder, batch_seconds: float) -> list[list[Segment]]:
    """Runs of segments as they come, each of at most ``batch_seconds`` with its padding, or of one segment."""
    batches: list[list[Segment]] = []
    longest = 0.0
    for segment in segments:
        longest = max(longest, cost := encoder.cost(segment.seconds))
        if batches and longest * (len(batches[-1]) + 1) <= batch_seconds:
            batches[-1].append(segment)
        else:
            batches.append([segment])
            longest = cost
    return batches


def decode_ahead(
    encoder: AudioEncoder, batches: list[list[Segment]], bad: set[str], note_bad: OnBad
) -> Iterator[tuple[float, list[_Decoded]]]:
    """Batches decoded in other threads, at most :data:`_BATCHES_AHEAD` ahead of their use.

    Segments of recordings that are ``bad`` by then are not decoded.

    Returns:
        For each batch its seconds, and the good segments in it.
    """

    def prepare(segment: Segment) -> _Decoded:
        if str(segment.recording.path) in bad:
            raise InputError(f"{segment.recording.path}: another segment is bad")
        waveform = load_segment(segment, encoder.sampling_rate)
        return str(segment.recording.path), encoder.prepare(waveform), bool(waveform.any())

    def finished(batch: list[tuple[Segment, Future[_Decoded]]]) -> tuple[float, list[_Decoded]]:
        good = []
        for segment, future in batch:
            try:
                good.append(future.result())
            except InputError as error:
                note_bad(str(segment.recording.path), error)
        return sum(segment.seconds for segment, _ in batch), good

    waiting: deque[list[tuple[Segment, Future[_Decoded]]]] = deque()
    pool = ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1), thread_name_prefix="decode")
    try:
        for batch in batches:
            waiting.append([(segment, pool.submit(prepare, segment)) for segment in batch])
            if len(waiting) > _BATCHES_AHEAD:
                yield finished(waiting.popleft())
        while waiting:
            yield finished(waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


@torch.inference_mode()
def _encode(encoder: TextEncoder | AudioEncoder, batch: list, budget_option: str) -> np.ndarray:
    """Embeddings [B, D] in float32."""
    try:
        embeddings: Tensor = encoder(batch)
    except torch.OutOfMemoryError as error:
        raise InputError(f"the GPU's memory does not hold a batch; lower {budget_option}") from error
    return embeddings.float().cpu().numpy()


def _check_finite(vector: np.ndarray, of: str) -> None:
    if not np.isfinite(vector).all():
        raise InputError(f"{of}: its embedding is not finite; is the encoder's checkpoint damaged?")
