"""Read the requests of predict.py, and print its answers as a table or as JSON lines."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from utils.data.audio import SUFFIXES, Segment
from utils.data.corpora import files_below
from utils.data.manifest import locate, read_manifest
from utils.errors import InputError, printable, problem_of
from utils.extraction.embedding import probe_all
from utils.extraction.encoding import SEGMENT_SECONDS
from utils.io import check_writable
from utils.prediction.explanation import Explanation, as_dict, explain, lines, plot
from utils.prediction.pipeline import Answer, Pipeline
from utils.transcription.recognizer import word_error_rate

UNCERTAIN = "uncertain"  # the emotion if no class is probable enough


@dataclass(frozen=True)
class Request:
    """A recording and its transcript. ``given`` is the path as the user wrote it; ``problem`` is why it is unusable."""

    given: str
    path: str
    text: str | None
    problem: str = ""


def requests_of_csv(csv: Path, corpus_dir: Path | None) -> list[Request]:
    """Read requests from a CSV with ``audio_file`` and optionally ``raw_text``. An empty cell means no transcript."""
    table = read_manifest(csv, required=("audio_file",), optional=("raw_text",))
    found = locate(list(table["audio_file"]), corpus_dir, csv.parent)
    texts = table["raw_text"] if "raw_text" in table else [""] * len(table)
    return [
        Request(given, str(path), text or None, problem)
        for given, text, (path, problem) in zip(table["audio_file"], texts, found, strict=True)
    ]


def requests_of_paths(paths: Sequence[str], texts: Sequence[str] | None) -> list[Request]:
    """Make requests from paths of recordings and folders. A subfolder that cannot be read becomes a failed request.

    Raises:
        InputError: a path is empty, a transcript is not UTF-8, or a folder has no recordings or is given a transcript.
    """
    rows = []
    for given, text in zip(paths, texts or [None] * len(paths), strict=True):
        if not given:
            raise InputError("--wav: one of the paths is empty")
        if text is not None and not text.isascii() and text != text.encode(errors="replace").decode():
            raise InputError(f"--text {text!a}: not valid UTF-8")
        if not _is_folder(given):
            rows.append(Request(given, str(Path(given)), (text and text.strip()) or None))
            continue
        if text is not None:
            raise InputError(f"--text: {given} is a folder; use --csv to give a transcript for each recording")
        # macOS writes a ._x.wav next to each x.wav on disks of other systems
        unread: list[OSError] = []
        files = sorted(path for path in files_below(Path(given), unread.append) if not path.name.startswith("._"))
        inside = [path for path in files if path.suffix.lower() in SUFFIXES]
        if not inside and not unread:
            raise InputError(f"{given}: no recordings in this folder")
        if len(inside) < len(files):
            others = ", ".join(sorted({path.suffix or path.name for path in files} - {p.suffix for p in inside}))
            note = f"note: {len(files) - len(inside)} other files in {given} were skipped ({others})"
            print(printable(note), file=sys.stderr)
        rows += [Request(str(path), str(path), None) for path in inside]
        rows += [Request(each.filename, each.filename, None, f"cannot be read ({each.strerror})") for each in unread]
    return rows


def emotion_of(probabilities: Sequence[float], class_names: Sequence[str], min_confidence: float = 0.0) -> str:
    """The most probable class, or :data:`UNCERTAIN` if its probability is below ``min_confidence``."""
    confidence = max(probabilities)
    return UNCERTAIN if confidence < min_confidence else class_names[list(probabilities).index(confidence)]


def segments_of(
    requests: Sequence[Request], on_bad: Callable[[Request, InputError | str], None]
) -> list[tuple[Request, Segment, str | None]]:
    """Each readable request with its recording and transcript. ``on_bad`` is called for each unreadable one."""
    problems: dict[str, InputError | str] = {request.path: request.problem for request in requests if request.problem}
    paths = dict.fromkeys(request.path for request in requests)
    recordings = probe_all([path for path in paths if path not in problems], problems.__setitem__)
    for request in requests:
        if request.path in problems:
            on_bad(request, problems[request.path])
    return [(each, recordings[each.path].whole, each.text) for each in requests if each.path in recordings]


def check_stems(requests: Sequence[Request], folder: Path) -> None:
    """Create a folder, and check that files named after the recordings can be written to it.

    Raises:
        InputError: two recordings have the same file name.
        OSError: the folder cannot be written.
    """
    first: dict[str, Request] = {}
    for request in requests:
        other = first.setdefault(Path(request.path).stem, request)
        if other is not request:
            message = f"its files in {folder} would replace those of {other.given}; run one at a time"
            raise InputError(f"{request.given}: {message}")
    check_writable(folder)


def answer_all(
    requests: Sequence[Request], pipeline: Pipeline, as_json: bool, min_confidence: float, explained: str | None
) -> int:
    """Print the answer to each request as soon as it is known.

    Args:
        explained: print explanations, and write their figures to this folder; "" for no figures, None for neither.

    Returns:
        The number of recordings that failed; the reason is printed.
    """
    notes = sys.stderr if as_json else sys.stdout
    if explained:
        check_stems(requests, Path(explained))
    with Answers(requests, pipeline.class_names, as_json, min_confidence) as answers:
        segments = segments_of(requests, answers.fail)
        lengthy = [segment.seconds for _, segment, _ in segments if segment.seconds > SEGMENT_SECONDS]
        if lengthy:
            message = f"{len(lengthy)} of {len(requests)} recordings are longer than {SEGMENT_SECONDS:g} s, the longest"
            way_out = "each gets one emotion (--timeline gives one per utterance)"
            tqdm.write(f"note: {message} {max(lengthy):.0f} s; {way_out}", file=notes)
        wordless = 0
        for request, answer in pipeline.answers(segments, answers.fail, compare=True):
            wordless += answer.text is None
            why = None if explained is None else explain(pipeline.predictor, *answer.embeddings)
            answers.add(request, answer, why)
            if explained:
                path = Path(explained) / f"{Path(request.path).stem}.png"
                plot(why, pipeline.class_names, path, printable(request.given))
    if pipeline.recognizer and wordless:
        message = f"no words were recognised in {wordless} of {len(requests)} recordings"
        print(f"note: {message}; the mean text embedding of the training utterances is used instead", file=notes)
    if (rate := word_error_rate(pipeline.compared)) is not None:
        print(f"word error rate {100 * rate:.1f} % on {len(pipeline.compared)} given transcripts", file=notes)
    return answers.failed


def _is_folder(path: str) -> bool:
    try:
        return Path(path).is_dir()
    except OSError:  # the name is too long
        return False


class Answers:
    """Print results as they arrive, above a progress bar inside the ``with`` block, and count the failures.

    Args:
        min_confidence: as in :func:`emotion_of`.
    """

    def __init__(
        self, requests: Sequence[Request], class_names: Sequence[str], as_json: bool, min_confidence: float = 0.0
    ):
        self.failed = 0
        self._min_confidence = min_confidence
        self._class_names = class_names
        self._as_json = as_json
        self._width = max(len(printable(request.given)) for request in requests)
        self._emotion = max(len(name) for name in (*class_names, "emotion", UNCERTAIN if min_confidence else ""))
        self._count = len(requests)

    def __enter__(self) -> "Answers":
        self._bar = tqdm(total=self._count, unit="file", disable=self._count < 2, dynamic_ncols=True)
        if not self._as_json:
            self._row("recording", "emotion", self._class_names)
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def add(self, request: Request, answer: Answer, explanation: Explanation | None = None) -> None:
        probabilities = answer.probabilities.tolist()
        by_class = dict(zip(self._class_names, probabilities, strict=True))
        emotion = emotion_of(probabilities, self._class_names, self._min_confidence)
        if self._as_json:
            rounded = {name: round(value, 6) for name, value in by_class.items()}
            found = {"recognized": answer.recognized, "emotion": emotion, "probabilities": rounded}
            if explanation:
                found["explanation"] = as_dict(explanation, self._class_names)
            self._object(request.given, answer.text, **found)
        else:
            numbers = [f"{100 * value:.1f}" for value in probabilities]
            self._row(printable(request.given), emotion, numbers, answer.text if answer.recognized else None)
            if explanation:
                self._write("\n".join(["", *lines(explanation, self._class_names), ""]))
        self._bar.update()

    def fail(self, request: Request, error: InputError | str) -> None:
        self.failed += 1
        reason = problem_of(request.path, error)
        tqdm.write(printable(f"error: {request.given}: {reason}"), file=sys.stderr)
        if self._as_json:
            self._object(request.given, request.text, error=reason)
        self._bar.update()

    def _object(self, given: str, text: str | None, **found: object) -> None:
        self._write(json.dumps({"audio_file": given, "raw_text": text, **found}, allow_nan=False))

    def _row(self, recording: str, emotion: str, cells: Sequence[str], recognized: str | None = None) -> None:
        numbers = [cell.rjust(max(len(name), 5)) for cell, name in zip(cells, self._class_names, strict=True)]
        said = [f'recognised: "{printable(recognized)}"'] if recognized else []
        self._write("  ".join([recording.ljust(self._width), emotion.ljust(self._emotion), *numbers, *said]))

    def _write(self, line: str) -> None:
        tqdm.write(line)
        sys.stdout.flush()
