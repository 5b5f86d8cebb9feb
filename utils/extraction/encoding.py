"""Encodes recordings in batches: plans batches, decodes in worker processes, pools segments."""

import ctypes
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from models.encoders import AudioEncoder, AudioInput, TextEncoder, masked_mean
from utils.data.audio import Piece, Segment, load_segment
from utils.errors import InputError, fitting_into_memory, printable

SEGMENT_SECONDS = 30.0  # Whisper's window; IEMOCAP's longest turn is 34 s
MAX_WORKERS = 4
MIN_SEGMENTS = 8  # below this, decoding is faster than starting worker processes
_PR_SET_PDEATHSIG = 1  # from <linux/prctl.h>

DecodedSegment = tuple[Segment, AudioInput, bool]  # the model's input, and whether any sample is not 0
OnBad = Callable[[str, InputError], None]  # takes the path of a recording and its error; may raise the error
OnBadSegment = Callable[[Segment, InputError], None]


def stop_at_bad(what: str | Segment, error: InputError) -> None:
    """An :data:`OnBad` that raises the first error."""
    raise error


class Heard(NamedTuple):
    """The output for a segment: its embedding [D] and, with a recogniser, its transcript."""

    embedding: np.ndarray
    text: str | None


def longest_segment(encoder: AudioEncoder) -> float:
    """The length in seconds above which a recording is split into segments."""
    return min(SEGMENT_SECONDS, encoder.max_seconds or SEGMENT_SECONDS)


@dataclass
class PieceMean:
    """The running mean of the embeddings of a segment's pieces, weighted by frames, and their transcripts."""

    missing: int
    frames: int = 0
    audible: bool = False
    total: np.ndarray | float = 0.0
    texts: dict[int, str] = field(default_factory=dict)

    def add(self, vector: np.ndarray, frames: int, text: str | None = None, start: int = 0) -> Heard | None:
        """Add a piece, in any order. Returns the result with the last piece, otherwise None. ``start`` orders texts."""
        self.missing -= 1
        self.frames += frames
        self.total = self.total + vector * np.float32(frames)
        if text:
            self.texts[start] = text
        if self.missing:
            return None
        said = " ".join(self.texts[each] for each in sorted(self.texts))
        return Heard(self.total / np.float32(self.frames), None if text is None else said)


def stream_embeddings(
    encoder: AudioEncoder, batches: list[list[Piece]], on_bad: OnBadSegment, head: nn.Module | None = None
) -> Iterator[tuple[float, dict[Segment, Heard]]]:
    """Encode batches in order. Calls ``on_bad`` once for each bad segment.

    Args:
        head: A head of :mod:`models.recognizers`, for transcripts.

    Yields:
        For each batch, its seconds of speech and the segments that it completes.
    """
    counts = Counter(piece.whole for batch in batches for piece in batch)
    means = {whole: PieceMean(count) for whole, count in counts.items()}
    bad: set[Segment] = set()

    def report(whole: Segment, error: InputError) -> None:
        if whole not in bad:
            bad.add(whole)
            on_bad(whole, error)

    with closing(decode_batches(encoder, batches, lambda piece, error: report(piece.whole, error))) as decoded:
        for seconds, pieces in decoded:
            good = [each for each in pieces if each[0].whole not in bad]
            inputs = [each for _, each, _ in good]
            if head is None or not good:
                vectors, texts = encode(encoder, inputs, "--batch_seconds") if good else [], [None] * len(good)
            else:
                vectors, texts = recognize(encoder, head, inputs)
            completed = {}
            for (piece, each, audible), vector, text in zip(good, vectors, texts, strict=True):
                whole = piece.whole
                means[whole].audible |= audible
                heard = means[whole].add(vector, each.frames, text, piece.start)
                if heard is None:
                    continue
                try:
                    path = whole.recording.path
                    check_finite(heard.embedding, str(path))
                    if not means[whole].audible:
                        raise InputError(f"{path}: contains only silence (every sample is 0 after mixing to mono)")
                except InputError as error:
                    report(whole, error)
                else:
                    completed[whole] = heard
            yield seconds, completed


def batches_by_length(lengths: Sequence[float], budget: float) -> Iterator[range]:
    """Yield consecutive ranges of items whose padded size (count times greatest length) is within the budget.

    Args:
        lengths: In descending order. An item longer than the budget forms a separate batch.
    """
    start = 0
    while start < len(lengths):
        stop = min(start + max(1, int(budget // lengths[start])), len(lengths))
        yield range(start, stop)
        start = stop


def batches_in_order(segments: Sequence[Piece], encoder: AudioEncoder, batch_seconds: float) -> list[list[Piece]]:
    """Batches of consecutive segments. Each has at most ``batch_seconds`` including padding, or one segment."""
    batches: list[list[Piece]] = []
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
    encoder: AudioEncoder, batches: list[list[Segment]], on_bad: OnBadSegment
) -> Iterator[tuple[float, list[DecodedSegment]]]:
    """Decode batches in order and prepare them for the encoder. Worker processes decode ahead of use.

    Yields:
        For each batch, its seconds of speech and its good segments. ``on_bad`` is called for each bad segment.
    """

    def decode(segment: Segment) -> tuple[AudioInput, bool] | InputError:
        try:
            waveform = load_segment(segment, encoder.sampling_rate)
        except InputError as error:
            return error
        return encoder.prepare(waveform), bool(waveform.any())

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # otherwise the tokenizers library warns about every fork
    # forking a process with threads is safe only on Linux
    few = sum(map(len, batches)) < MIN_SEGMENTS or sys.platform != "linux"
    loader = DataLoader(
        batches,
        batch_size=None,
        collate_fn=lambda batch: [decode(segment) for segment in batch],
        num_workers=0 if few else min(MAX_WORKERS, os.cpu_count() or 1),
        multiprocessing_context=None if few else "fork",  # nothing is imported again; workers never use CUDA
        worker_init_fn=_start_worker,
        generator=torch.Generator(),  # the global generator's state belongs to the training
    )
    for batch, results in zip(batches, loader, strict=True):
        good = []
        for segment, result in zip(batch, results, strict=True):
            if isinstance(result, InputError):
                on_bad(segment, result)
            else:
                good.append((segment, *result))
        yield sum(segment.seconds for segment in batch), good


def _start_worker(_: int) -> None:
    """Make a worker end with the main process. Only the main process handles Ctrl-C."""
    os.setpgid(0, 0)  # the terminal sends Ctrl-C to the process group of the main process
    # Otherwise, if the main process is killed, a worker with a batch in its pipe waits forever for a reader.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@torch.inference_mode()
def recognize(encoder: AudioEncoder, head: nn.Module, inputs: list[AudioInput]) -> tuple[np.ndarray, list[str]]:
    """Compute embeddings [B, D] in float32 and B transcripts in one pass through the encoder.

    Raises:
        InputError: The batch does not fit into memory.
    """
    frames = [each.frames for each in inputs]
    with fitting_into_memory("a batch", "lower --batch_seconds"):
        hidden = encoder.hidden(inputs)
        texts = [printable(text) for text in head(hidden, frames)]
    return masked_mean(hidden, frames).float().cpu().numpy(), texts


@torch.inference_mode()
def encode(encoder: TextEncoder | AudioEncoder, batch: list, budget_option: str) -> np.ndarray:
    """Compute embeddings [B, D] in float32.

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
