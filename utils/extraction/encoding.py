"""Batches through an encoder: how they are cut, decoding beside the encoder, segments put together."""

import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.encoders import AudioEncoder, AudioInput, TextEncoder
from utils.audio import Segment, load_segment
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


def longest_segment(encoder: AudioEncoder) -> float:
    """Seconds; what is longer is cut."""
    return min(SEGMENT_SECONDS, encoder.max_seconds or SEGMENT_SECONDS)


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
            vectors = encode(encoder, [each for _, each, _ in good], "--batch_seconds") if good else []
            for (path, each, heard), vector in zip(good, vectors, strict=True):
                sums[path].heard |= heard
                mean = sums[path].add(vector, each.frames)
                if mean is None or path in bad:
                    continue
                try:
                    check_finite(mean, path)
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
def encode(encoder: TextEncoder | AudioEncoder, batch: list, budget_option: str) -> np.ndarray:
    """Embeddings [B, D] in float32."""
    try:
        embeddings: Tensor = encoder(batch)
    except torch.OutOfMemoryError as error:
        raise InputError(f"the GPU's memory does not hold a batch; lower {budget_option}") from error
    return embeddings.float().cpu().numpy()


def check_finite(vector: np.ndarray, of: str) -> None:
    """Raise an InputError where an embedding is not finite; ``of`` names what it is of."""
    if not np.isfinite(vector).all():
        raise InputError(f"{of}: its embedding is not finite; is the encoder's checkpoint damaged?")
