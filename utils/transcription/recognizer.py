"""Speech recognition for recordings without a transcript."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import jiwer
import torch

from utils.data.audio import Recording
from utils.extraction.embedding import hash_all, hear_all
from utils.extraction.embedding_cache import EmbeddingCache
from utils.extraction.encoding import OnBad
from utils.extraction.hub import load_recognizer, recognizes_speech
from utils.transcription.config import RECOGNIZER
from utils.transcription.transcripts import Transcripts

COMPARED = 50  # number of given transcripts that are also recognised, for the word error rate
_WORDS = jiwer.Compose(
    [
        jiwer.ToLowerCase(),
        jiwer.RemovePunctuation(),
        jiwer.RemoveMultipleSpaces(),
        jiwer.Strip(),
        jiwer.ReduceToListOfListOfWords(),
    ]
)


class Recognizer:
    """A speech recogniser of transformers, and the transcripts that it or a person has written so far.

    Args:
        model: Folder, hub name or ``NAME@REVISION`` of a Whisper or CTC model. "" selects the audio encoder of the run
            if it is such a model, otherwise :data:`RECOGNIZER`.
        audio_model: The audio encoder of the run.
        transcripts: The CSV that stores the transcripts.

    Raises:
        InputError: The model cannot be loaded, or the CSV cannot be read.
    """

    def __init__(self, model: str, audio_model: str, transcripts: Path, device: torch.device):
        model = model or (audio_model if recognizes_speech(audio_model) else RECOGNIZER)
        self.encoder, self.head, self._description, digest = load_recognizer(model, device, "--transcribe")
        self.name = f"{Path(model.partition('@')[0]).resolve().name}-{digest[:8]}"
        self.transcripts = Transcripts(transcripts, self.name)

    def is_encoder(self, description: dict) -> bool:
        """Whether its encoder is the described one, so that its embeddings can be used as features."""
        return all(description.get(k) == v for k, v in self._description.items() if k not in ("name", "revision"))


def transcribe(
    recognizer: Recognizer,
    recordings: dict[str, Recording],
    batch_seconds: float,
    on_bad: OnBad,
    cache: EmbeddingCache | None,
) -> dict[str, str]:
    """Transcribe recordings.

    Args:
        batch_seconds: Seconds of speech per batch, including padding.
        on_bad: Called for each recording that cannot be read or decoded.
        cache: The cache of the run's audio encoder, if the recogniser has the same encoder. It receives the embeddings,
            which are computed anyway.

    Returns:
        Transcripts by path, without the bad recordings; "" where no words are recognised.
    """
    keys = hash_all(recordings, on_bad)
    known = {path: recognizer.transcripts.get(recordings[path].whole) for path in keys}
    fresh = {path: recordings[path] for path, text in known.items() if text is None}
    heard = hear_all(recognizer.encoder, fresh, batch_seconds, on_bad, "transcripts", recognizer.head)
    with recognizer.transcripts, nullcontext() if cache is None else cache:
        for path, (embedding, text) in heard:
            recognizer.transcripts.add(recordings[path].whole, text)
            if cache is not None:
                cache.add(keys[path], embedding)
            known[path] = text
    return {path: text for path, text in known.items() if text is not None}


def word_error_rate(pairs: Sequence[tuple[str, str]]) -> float | None:
    """Word error rate as a fraction, ignoring case and punctuation.

    Args:
        pairs: True and recognised transcripts. Pairs whose true transcript has no words are ignored.

    Returns:
        The rate; None if no pair is left.
    """
    pairs = [pair for pair in pairs if _WORDS([pair[0]])[0]]
    if not pairs:
        return None
    return jiwer.wer(*map(list, zip(*pairs, strict=True)), reference_transform=_WORDS, hypothesis_transform=_WORDS)
