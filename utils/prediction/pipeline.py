"""Predict the emotions of segments: recognise missing transcripts, encode, attach to the graph, classify."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, takewhile
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from models.encoders import TextEncoder
from utils.data.audio import Segment, split
from utils.errors import InputError
from utils.extraction.config import BATCH_SECONDS, BATCH_TOKENS
from utils.extraction.embedding import embed_texts
from utils.extraction.embedding_cache import EmbeddingCache
from utils.extraction.encoding import Heard, OnBadSegment, batches_in_order, longest_segment, stream_embeddings
from utils.prediction.inductive import Predictor, TrainingGraph
from utils.prediction.run_encoders import load_run_encoder, run_encoder_name
from utils.training.trained import Trained
from utils.transcription.recognizer import COMPARED, Recognizer

GROUP_BATCHES = 4  # batches that are transcribed before the first of them is answered
Key = TypeVar("Key")
Asked = tuple[Key, Segment, str | None]


@dataclass(frozen=True)
class Answer:
    """The answer of a run to a segment.

    Attributes:
        text: the transcript used. If it is None, the mean text embedding of train is used instead.
        recognized: whether the transcript comes from a recogniser.
        probabilities: [num_classes].
        embeddings: of text [D_text] and audio [D_audio].
    """

    text: str | None
    recognized: bool
    probabilities: Tensor
    embeddings: tuple[Tensor, Tensor]


class Pipeline:
    """A trained run with its encoders and an optional recogniser.

    Args:
        trained: the models of the run, one per seed.
        models: folders of the run's ``text`` and ``audio`` encoders on this machine, if the user gives them.
        transcribe: a recogniser as in :class:`~utils.transcription.recognizer.Recognizer`; None for none.
        transcripts: the CSV of recognised transcripts.
        texts: load the text encoder now. Otherwise, it is loaded when the first transcript is encoded.
        batch_seconds, batch_tokens: size of a batch; None for the device's default.

    Raises:
        InputError: an encoder or the recogniser cannot be loaded, or is not the run's.
    """

    def __init__(
        self,
        trained: list[Trained],
        graph: TrainingGraph,
        device: torch.device,
        models: dict[str, str | None],
        transcribe: str | None,
        transcripts: Path,
        texts: bool = False,
        batch_seconds: float | None = None,
        batch_tokens: int | None = None,
    ):
        self.class_names = trained[0].class_names
        self.device = device
        self.compared: list[tuple[str, str]] = []  # given and recognised transcripts
        self._graph, self._run, self._models = graph, trained[0].run_folder, models
        self._batch_seconds = batch_seconds or BATCH_SECONDS[device.type]
        self._batch_tokens = batch_tokens or BATCH_TOKENS[device.type]
        if texts or transcribe is not None:
            self._text_encoder  # noqa: B018 (loaded here, so that it does not fail hours later)
        self.encoder = load_run_encoder("audio", graph, self._run, models.get("audio"), device)
        self.recognizer = None
        if transcribe is not None:
            name = run_encoder_name("audio", graph, self._run, models.get("audio"))
            self.recognizer = Recognizer(transcribe, name, transcripts, device)
            if self.recognizer.is_encoder(graph.encoders["audio"]):
                self.encoder = self.recognizer.encoder  # one pass gives transcript and embedding
        self.predictor = Predictor(trained, graph, device)

    def answers(
        self,
        asked: Iterable[Asked],
        on_bad: Callable[[Key, InputError], None],
        compare: bool = False,
    ) -> Iterator[tuple[Key, Answer]]:
        """Answer segments in the order in which they are asked.

        Without a recogniser, a list is answered batch by batch. Otherwise, :data:`GROUP_BATCHES` are collected first.

        Args:
            asked: tuples of a key chosen by the caller, a segment, and its transcript or None.
            on_bad: called for each key whose segment cannot be decoded.
            compare: also recognise the first segments that have a transcript, for :attr:`compared`.
        """
        if self.recognizer is None and isinstance(asked, list):
            yield from self._answer(asked, on_bad, compare)
            return
        group, seconds = [], 0.0
        encoder = self.recognizer.encoder if self.recognizer else self.encoder
        for item in asked:
            group.append(item)
            seconds += encoder.cost(item[1].seconds)
            if seconds >= GROUP_BATCHES * self._batch_seconds:
                yield from self._answer(group, on_bad, compare)
                group, seconds = [], 0.0
        if group:
            yield from self._answer(group, on_bad, compare)

    def _answer(
        self, group: list[Asked], on_bad: Callable[[Key, InputError], None], compare: bool
    ) -> Iterator[tuple[Key, Answer]]:
        given: dict[Segment, list[str | None]] = {}
        for _, segment, text in group:
            given.setdefault(segment, []).append(text)
        bad: set[Segment] = set()

        def fail(segment: Segment, error: InputError) -> None:
            bad.add(segment)
            for key, other, _ in group:
                if other == segment:
                    on_bad(key, error)

        recognized, heard = self._recognize(given, fail, compare) if self.recognizer else ({}, {})
        texts = [text or recognized.get(segment) or None for _, segment, text in group]
        embeddings = self._embed([text for text in texts if text])
        rows = [(*item, text) for item, text in zip(group, texts, strict=True)]
        rest = [segment for segment in given if segment not in heard and segment not in bad]
        with closing(self._stream(rest, fail)) as stream:
            for completed in chain([heard], stream):
                heard |= completed
                # keep the order of the request, although a later segment may already have been encoded
                done = bad | heard.keys()
                ready = list(takewhile(lambda row, done=done: row[1] in done, rows))
                del rows[: len(ready)]
                yield from self._classify([row for row in ready if row[1] not in bad], heard, embeddings)

    def _recognize(
        self, given: dict[Segment, list[str | None]], fail: OnBadSegment, compare: bool
    ) -> tuple[dict[Segment, str], dict[Segment, Heard]]:
        """Recognise missing transcripts. Also returns what the run's encoder computed in the same pass."""
        recognizer, heard = self.recognizer, {}
        compared = {segment: texts[0] for segment, texts in given.items() if compare and all(texts)}
        compared = dict(list(compared.items())[: COMPARED - len(self.compared)])
        found: dict[Segment, str | None] = {}
        for segment, texts in given.items():
            if segment in compared or not all(texts):
                try:
                    found[segment] = recognizer.transcripts.get(segment)
                except OSError as error:
                    path = segment.recording.path
                    fail(segment, InputError(f"{path}: cannot be read ({error.strerror})"))
        fresh = [segment for segment, text in found.items() if text is None]
        with recognizer.transcripts, closing(self._stream(fresh, fail, recognizer)) as stream:
            for completed in stream:
                for segment, each in completed.items():
                    recognizer.transcripts.add(segment, each.text)
                    found[segment] = each.text
                heard |= completed
        known = {segment: text for segment, text in found.items() if text is not None}  # without the bad ones
        self.compared += [(text, known[segment]) for segment, text in compared.items() if segment in known]
        return known, heard if recognizer.encoder is self.encoder else {}

    def _stream(
        self, segments: list[Segment], fail: OnBadSegment, recognizer: Recognizer | None = None
    ) -> Iterator[dict[Segment, Heard]]:
        """Pass segments through the audio encoder or the recogniser."""
        encoder = recognizer.encoder if recognizer else self.encoder
        longest, rate = longest_segment(encoder), encoder.sampling_rate
        batches = batches_in_order(
            [piece for segment in segments for piece in split(segment, longest, rate)], encoder, self._batch_seconds
        )
        with closing(stream_embeddings(encoder, batches, fail, recognizer and recognizer.head)) as stream:
            for _, completed in stream:
                yield completed

    @cached_property
    def _text_encoder(self) -> TextEncoder:
        return load_run_encoder("text", self._graph, self._run, self._models.get("text"), self.device)

    def _embed(self, texts: list[str]) -> dict[str | None, Tensor]:
        """Text embeddings [D_text] by transcript. The key None holds the one that replaces a missing transcript."""
        embeddings = {None: self.predictor.means[0]}
        if texts:
            encoder = self._text_encoder
            cache = EmbeddingCache(None, encoder.dim)
            if cut := embed_texts(encoder, texts, cache, self._batch_tokens, desc=None):
                print(f"note: {cut} transcripts exceed {encoder.max_tokens} tokens and were truncated", file=sys.stderr)
            embeddings |= {text: torch.from_numpy(cache[text]) for text in texts}
        return embeddings

    def _classify(
        self,
        ready: list[tuple[Key, Segment, str | None, str | None]],
        heard: dict[Segment, Heard],
        embeddings: dict[str | None, Tensor],
    ) -> Iterator[tuple[Key, Answer]]:
        """Answer encoded segments. Each item has a key, a segment, the given transcript, and the one to use."""
        if not ready:
            return
        text = torch.stack([embeddings[used] for *_, used in ready])
        audio = torch.stack([torch.from_numpy(heard[segment].embedding) for _, segment, _, _ in ready])
        for (key, _, given, used), probabilities, *pair in zip(
            ready, self.predictor(text, audio), text, audio, strict=True
        ):
            yield key, Answer(used, bool(used) and not given, probabilities, tuple(pair))
