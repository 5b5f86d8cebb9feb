"""From requests to answers: encode the recordings in order, attach them to the training graph, classify."""

import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.encoders import AudioEncoder
from utils.data.audio import split_into_segments
from utils.errors import InputError, problem_of
from utils.extraction.config import BATCH_TOKENS
from utils.extraction.embedding import embed_texts, probe_all
from utils.extraction.embedding_cache import EmbeddingCache
from utils.extraction.encoding import batches_in_order, longest_segment, stream_embeddings
from utils.prediction.answers import Answers, Request
from utils.prediction.inductive import Predictor, TrainingGraph
from utils.prediction.run_encoders import load_run_encoder


def embed_transcripts(
    requests: Sequence[Request],
    graph: TrainingGraph,
    run: Path,
    text_model: str | None,
    batch_tokens: int | None,
    device: torch.device,
) -> dict[str | None, Tensor]:
    """The text embedding [D_text] of each transcript; for None, the mean over the training utterances.

    Args:
        text_model: folder of the run's text encoder on this machine, if the user gives it.
    """
    embeddings = {None: graph.text.mean(0)}
    texts = list(dict.fromkeys(request.text for request in requests if request.text is not None))
    if texts:
        encoder = load_run_encoder("text", graph, run, text_model, device)
        cache = EmbeddingCache(None, encoder.dim)
        cut = embed_texts(encoder, texts, cache, batch_tokens or BATCH_TOKENS[device.type])
        if cut:
            print(f"note: {cut} transcripts exceed {encoder.max_tokens} tokens and were truncated", file=sys.stderr)
        embeddings |= {text: torch.from_numpy(cache[text]) for text in texts}
    return embeddings


def answer(
    requests: Sequence[Request],
    texts: dict[str | None, Tensor],
    encoder: AudioEncoder,
    predictor: Predictor,
    batch_seconds: float,
    answers: Answers,
) -> None:
    """Encode the recordings in order, and answer each one as soon as its last segment is encoded."""
    requests_of: dict[str, list[Request]] = {}  # a recording may be requested with several transcripts
    for request in requests:
        requests_of.setdefault(request.path, []).append(request)
    problems: dict[str, InputError | str] = {request.path: request.problem for request in requests if request.problem}
    recordings = probe_all([path for path in requests_of if path not in problems], problems.__setitem__)
    longest = longest_segment(encoder)
    segments = [
        segment for each in recordings.values() for segment in split_into_segments(each, longest, encoder.sampling_rate)
    ]

    def on_bad(path: str, error: InputError | str) -> None:
        for request in requests_of[path]:
            answers.fail(request, problem_of(path, error))

    batches = batches_in_order(segments, encoder, batch_seconds)
    with answers, closing(stream_embeddings(encoder, batches, on_bad)) as stream:
        for path, problem in problems.items():
            on_bad(path, problem)
        for _, embeddings in stream:
            ready = [(request, embedding) for path, embedding in embeddings.items() for request in requests_of[path]]
            if ready:
                text = torch.stack([texts[request.text] for request, _ in ready])
                audio = torch.from_numpy(np.stack([embedding for _, embedding in ready]))
                for (request, _), probabilities in zip(ready, predictor(text, audio), strict=True):
                    answers.add(request, probabilities.tolist())
