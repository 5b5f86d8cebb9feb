"""Batches through an encoder: batch planning, decoding in worker processes, pooling of segments."""

import ctypes
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from models.encoders import AudioEncoder, AudioInput, TextEncoder
from utils.data.audio import Segment, load_segment
from utils.errors import InputError, fitting_into_memory

SEGMENT_SECONDS = 30.0  # Whisper's window; IEMOCAP's longest turn is 34 s
MAX_WORKERS = 4
MIN_SEGMENTS = 8  # fewer are decoded faster than worker processes start
_PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>

DecodedSegment = tuple[str, AudioInput, bool]  # path of the recording, model input, whether any sample is not 0
OnBad = Callable[[str, InputError], None]  # takes the path of a recording and its error; may raise the error


def stop_at_bad(path: str, error: InputError) -> None:
    """An :data:`OnBad` that raises the first error."""
    raise error


def longest_segment(encoder: AudioEncoder) -> float:
    """Seconds above which a recording is split into segments."""
    return min(SEGMENT_SECONDS, encoder.max_seconds or SEGMENT_SECONDS)


@dataclass
class SegmentMean:
    """Running mean of the embeddings of a recording's segments, weighted by their frames."""

    missing: int
    frames: int = 0
    heard: bool = False
    total: np.ndarray | float = 0.0

    def add(self, vector: np.ndarray, frames: int) -> np.ndarray | None:
        """Add a segment; returns the mean [D] with the last one, None before."""
        self.missing -= 1
        self.frames += frames
        self.total = self.total + vector * np.float32(frames)
        return self.total / np.float32(self.frames) if self.missing == 0 else None


def stream_embeddings(
    encoder: AudioEncoder, batches: list[list[Segment]], on_bad: OnBad
) -> Iterator[tuple[float, dict[str, np.ndarray]]]:
    """Encode batches in order. ``on_bad`` is called once for each bad recording.

    Yields:
        For each batch, its seconds of speech and the embeddings [D], by path, of the recordings completed in it.
    """
    counts = Counter(str(segment.recording.path) for batch in batches for segment in batch)
    means = {path: SegmentMean(count) for path, count in counts.items()}
    bad: set[str] = set()

    def report(path: str, error: InputError) -> None:
        if path not in bad:
            bad.add(path)
            on_bad(path, error)

    with closing(decode_batches(encoder, batches, report)) as decoded:
        for seconds, segments in decoded:
            good = [segment for segment in segments if segment[0] not in bad]
            vectors = encode(encoder, [each for _, each, _ in good], "--batch_seconds") if good else []
            completed = {}
            for (path, each, heard), vector in zip(good, vectors, strict=True):
                means[path].heard |= heard
                mean = means[path].add(vector, each.frames)
                if mean is None:
                    continue
                try:
                    check_finite(mean, path)
                    if not means[path].heard:
                        raise InputError(f"{path}: silence, every sample of its mix to mono is 0")
                except InputError as error:
                    report(path, error)
                else:
                    completed[path] = mean
            yield seconds, completed


def batches_by_length(lengths: Sequence[float], budget: float) -> Iterator[range]:
    """Consecutive ranges of items whose padded size (number times greatest length) is within the budget.

    Args:
        lengths: In descending order. An item longer than the budget is a batch of its own.
    """
    start = 0
    while start < len(lengths):
        stop = min(start + max(1, int(budget // lengths[start])), len(lengths))
        yield range(start, stop)
        start = stop


def batches_in_order(segments: Sequence[Segment], encoder: AudioEncoder, batch_seconds: float) -> list[list[Segment]]:
    """Batches of consecutive segments, each of at most ``batch_seconds`` with its padding, or of one segment."""
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


def decode_batches(
    encoder: AudioEncoder, batches: list[list[Segment]], on_bad: OnBad
) -> Iterator[tuple[float, list[DecodedSegment]]]:
    """Decode batches in order and prepare them for the encoder, ahead of their use in worker processes.

    Yields:
        For each batch, its seconds of speech and its good segments. ``on_bad`` is called for each of the others.
    """

    def decode(segment: Segment) -> DecodedSegment | InputError:
        try:
            waveform = load_segment(segment, encoder.sampling_rate)
        except InputError as error:
            return error
        return str(segment.recording.path), encoder.prepare(waveform), bool(waveform.any())

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # else the tokenizers library warns about every fork
    # elsewhere than on Linux, forking a process with threads is not safe
    few = sum(map(len, batches)) < MIN_SEGMENTS or sys.platform != "linux"
    loader = DataLoader(
        batches,
        batch_size=None,
        collate_fn=lambda batch: [decode(segment) for segment in batch],
        num_workers=0 if few else min(MAX_WORKERS, os.cpu_count() or 1),
        multiprocessing_context=None if few else "fork",  # nothing is imported again; the workers never touch CUDA
        worker_init_fn=_start_worker,
        generator=torch.Generator(),  # the global generator's state belongs to the training
    )
    for batch, results in zip(batches, loader, strict=True):
        good = []
        for segment, result in zip(batch, results, strict=True):
            if isinstance(result, InputError):
                on_bad(str(segment.recording.path), result)
            else:
                good.append(result)
        yield sum(segment.seconds for segment in batch), good


def _start_worker(_: int) -> None:
    """Tie the life of a worker to the main process, which alone handles Ctrl-C."""
    os.setpgid(0, 0)  # the terminal sends Ctrl-C to the group of the main process
    # If the main process is killed, a worker with a batch in its pipe would wait for a reader forever.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@torch.inference_mode()
def encode(encoder: TextEncoder | AudioEncoder, batch: list, budget_option: str) -> np.ndarray:
    """Embeddings [B, D] in float32.

    Raises:
        InputError: The batch does not fit into memory.
    """
    with fitting_into_memory("a batch", f"lower {budget_option}"):
        embeddings: Tensor = encoder(batch)
    return embeddings.float().cpu().numpy()


def check_finite(vector: np.ndarray, source: str) -> None:
    """Raise an InputError that names ``source`` if its embedding is not finite."""
    if not np.isfinite(vector).all():
        raise InputError(f"{source}: its embedding is not finite; is the encoder's checkpoint damaged?")
