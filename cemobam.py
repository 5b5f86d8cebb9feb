"""Python interface of CemoBAM: predict the emotions of recordings with a trained run.

Example::

    import cemobam

    model = cemobam.load("checkpoints/MINE/paper", transcribe=True)
    print(model.predict("hello.wav").emotion)
    for moment in model.timeline("meeting.wav"):
        print(moment.start, moment.stop, moment.emotion, moment.text)
"""

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from utils.config import default_save_path
from utils.data.audio import MAX_CHANNELS, SOURCE_RATES, Recording, probe
from utils.device import open_device
from utils.errors import InputError, shown
from utils.extraction.encoding import stop_at_bad
from utils.prediction.answers import emotion_of
from utils.prediction.explanation import Explanation, explain
from utils.prediction.hub_runs import find_run
from utils.prediction.inductive import load_training_graph
from utils.prediction.pipeline import Pipeline
from utils.prediction.timelines import timeline
from utils.timeline.output import Moment
from utils.timeline.rttm import read_turns
from utils.timeline.segments import MARGIN, Utterance
from utils.training.trained import load_run
from utils.transcription.config import TRANSCRIPTS

__all__ = ["Explanation", "InputError", "Model", "Moment", "Prediction", "load"]

Audio = str | Path | np.ndarray  # a file, or samples [T] or [T, channels]: signed integers, or floats of full scale 1


@dataclass(frozen=True)
class Prediction:
    """The emotion of a recording.

    Attributes:
        probabilities: by class name.
        text: the transcript used. If it is None, the mean text embedding of the training utterances is used instead.
        recognized: whether the transcript comes from a recogniser.
        explanation: None unless requested.
    """

    emotion: str
    probabilities: dict[str, float]
    text: str | None
    recognized: bool
    explanation: Explanation | None

    @property
    def confidence(self) -> float:
        return max(self.probabilities.values())


class Model:
    """A trained run with its encoders, returned by :func:`load`.

    Recordings are files, or arrays with their sampling ``rate`` in Hz. A recording that cannot be read raises an
    :class:`InputError`.
    """

    def __init__(self, pipeline: Pipeline):
        self._pipeline = pipeline

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self._pipeline.class_names)

    def predict(
        self, wav: Audio, text: str | None = None, rate: int | None = None, explained: bool = False
    ) -> Prediction:
        """Predict the emotion of a recording and its transcript, if given. ``explained`` adds the explanation."""
        with _recording(wav, rate) as recording:
            ((_, answer),) = self._pipeline.answers([(None, recording.whole, text)], stop_at_bad)
        probabilities = answer.probabilities.tolist()
        return Prediction(
            emotion_of(probabilities, self.class_names),
            dict(zip(self.class_names, probabilities, strict=True)),
            answer.text,
            answer.recognized,
            explain(self._pipeline.predictor, *answer.embeddings) if explained else None,
        )

    def timeline(
        self,
        wav: Audio,
        rttm: str | Path | None = None,
        rate: int | None = None,
        files: str | Path | None = None,
        margin: float = MARGIN,
    ) -> Iterator[Moment]:
        """Yield the utterances of a recording of any length and their emotions, as they are found.

        An utterance that cannot be predicted, such as one whose samples are all zero, is skipped with a warning.

        Args:
            rttm: a file of speaker turns, which are then used as the utterances.
            files: path without suffix of a CSV, JSON lines, subtitles and a figure. They are complete when the
                iterator ends.
            margin: seconds of the pauses around an utterance that are encoded with it. It has no effect with ``rttm``.
        """
        with _recording(wav, rate) as recording:
            turns = None if rttm is None else read_turns(Path(rttm), recording)
            stem = None if files is None else Path(files)
            yield from timeline(self._pipeline, recording, turns, _warn, 0.0, margin, stem)

    def explain(self, wav: Audio, text: str | None = None, rate: int | None = None) -> Explanation:
        """Explain the answer of :meth:`predict`: neighbours, their attention, and the answer without each part."""
        return self.predict(wav, text, rate, explained=True).explanation


def load(
    checkpoint: str | Path,
    *,
    transcribe: bool | str | Path = False,
    device: str = "auto",
    text_model: str | None = None,
    audio_model: str | None = None,
    transcripts: str | Path = TRANSCRIPTS,
) -> Model:
    """Load a run.

    Args:
        checkpoint: run folder or export (averages its seeds), seed folder, dataset, or name on the hub.
        transcribe: recognise missing transcripts with this Whisper or CTC model. True uses the run's audio encoder if
            it is such a model, otherwise Whisper.
        device: ``auto``, ``cpu`` or ``cuda``.
        text_model, audio_model: folders of the run's encoders on this machine, if they differ from those of training.
        transcripts: the CSV that stores recognised transcripts.

    Raises:
        InputError: something is missing or damaged.
    """
    trained = load_run(find_run(str(checkpoint), Path(default_save_path())))
    recognizer = {True: "", False: None}.get(transcribe, str(transcribe))
    models = {"text": text_model, "audio": audio_model}
    graph = load_training_graph(trained[0])
    return Model(Pipeline(trained, graph, open_device(device), models, recognizer, Path(transcripts)))


@contextmanager
def _recording(wav: Audio, rate: int | None) -> Iterator[Recording]:
    """Open a recording by its path. Samples are written to a temporary file, so that both are read in the same way."""
    if isinstance(wav, (str, Path)):
        yield probe(Path(wav))
        return
    samples = np.asarray(wav)
    if not isinstance(rate, int) or not SOURCE_RATES[0] <= rate <= SOURCE_RATES[1]:
        raise InputError(f"rate {shown(rate)}: an array needs its sampling rate, an integer in Hz")
    if samples.dtype.kind == "i":
        samples = samples / -float(np.iinfo(samples.dtype).min)
    channels = samples.shape[1] if samples.ndim == 2 else samples.ndim
    if samples.dtype.kind != "f" or not 1 <= channels <= MAX_CHANNELS or samples.ndim > 2:
        expected = "signed integers or floats, [T] or [T, channels]"
        raise InputError(f"an array of {samples.dtype} {list(samples.shape)}; expected {expected}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "array.wav"
        try:
            soundfile.write(path, samples.astype(np.float32), rate, format="RF64", subtype="FLOAT")
        except soundfile.SoundFileError as error:
            raise InputError(f"an array of {list(samples.shape)}: {path}: cannot be written ({error})") from error
        yield probe(path)


def _warn(utterance: Utterance, error: InputError) -> None:
    warnings.warn(f"utterance at {utterance.start:.1f} s skipped: {error}", stacklevel=2)
