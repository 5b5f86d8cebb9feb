"""Timelines: the utterances of long recordings, each with its emotion."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

from tqdm import tqdm

from utils.data.audio import Recording, probe
from utils.errors import InputError, printable, problem_of
from utils.extraction.encoding import SEGMENT_SECONDS
from utils.prediction.answers import Request, check_stems, emotion_of
from utils.prediction.pipeline import Pipeline
from utils.timeline.envelope import Envelope
from utils.timeline.output import Moment, as_dict, writing
from utils.timeline.rttm import Turn, read_turns
from utils.timeline.segments import Utterance, utterances


def timeline(
    pipeline: Pipeline,
    recording: Recording,
    turns: list[Turn] | None,
    on_bad: Callable[[Utterance, InputError], None],
    min_confidence: float,
    margin: float,
    stem: Path | None = None,
) -> Iterator[Moment]:
    """Yield the utterances of a recording, or its speaker turns, with their emotions, in order and as they are found.

    Args:
        on_bad: called for each utterance that cannot be decoded, such as one whose samples are all zero.
        margin: as in :func:`~utils.timeline.segments.utterances`.
        stem: path without suffix of the files and the figure to write, if any.

    Raises:
        InputError: the recording is damaged.
        OSError: a file cannot be written.
    """
    envelope, moments, names = Envelope(), [], pipeline.class_names
    found = utterances(recording, SEGMENT_SECONDS, pipeline.encoder.sampling_rate, envelope, turns, margin)
    asked = ((each, each.segment, None) for each in found)
    with nullcontext() if stem is None else writing(stem, names) as add:
        for utterance, answer in pipeline.answers(asked, on_bad):
            probabilities = answer.probabilities.tolist()
            moment = Moment(
                utterance.start,
                utterance.stop,
                utterance.speaker,
                answer.text or "",
                answer.recognized,
                utterance.short,
                emotion_of(probabilities, names, min_confidence),
                tuple(probabilities),
            )
            if add is not None:
                add(moment)
                moments.append(moment)
            yield moment
    if stem is not None:
        from utils.timeline.figure import plot_timeline  # imports matplotlib, which only this needs

        title = f"{recording.path.name}: {len(moments)} utterances"
        plot_timeline(stem.with_name(f"{stem.name}.png"), envelope, recording.seconds, moments, names, title)


def write_timelines(
    requests: Sequence[Request],
    pipeline: Pipeline,
    folder: Path,
    rttm: Path | None,
    as_json: bool,
    min_confidence: float,
    margin: float,
) -> int:
    """Write the files and figure of each recording's timeline to ``folder``, and print each utterance as it is found.

    Returns:
        The number of recordings that failed; the reason is printed.

    Raises:
        InputError: two recordings would be written to the same files, or share one RTTM file.
        OSError: a file cannot be written.
    """
    if rttm and len(requests) > 1:
        raise InputError("--rttm: only with --timeline of one recording")
    check_stems(requests, folder)
    failed = 0
    for request in requests:
        try:
            if request.problem:
                raise InputError(request.problem)
            stem = folder / Path(request.path).stem
            _write(request, pipeline, stem, rttm, as_json, min_confidence, margin)
        except InputError as error:
            failed += 1
            print(printable(f"error: {request.given}: {problem_of(request.path, error)}"), file=sys.stderr)
    return failed


def _write(
    request: Request,
    pipeline: Pipeline,
    stem: Path,
    rttm: Path | None,
    as_json: bool,
    min_confidence: float,
    margin: float,
) -> None:
    recording = probe(Path(request.path))
    turns = read_turns(rttm, recording) if rttm else None
    count = 0

    def skip(utterance: Utterance, error: InputError) -> None:
        reason = problem_of(request.path, error)
        tqdm.write(printable(f"note: {request.given}: at {utterance.start:.1f} s: {reason}"), sys.stderr)

    if not as_json:
        print(f"{'start (s)':>9}  {'stop (s)':>9}  {'emotion':<10}  percent")
    with tqdm(total=round(recording.seconds), unit="s", desc=stem.name, leave=False, dynamic_ncols=True) as bar:
        for moment in timeline(pipeline, recording, turns, skip, min_confidence, margin, stem):
            count += 1
            if as_json:
                found = {"audio_file": request.given, **as_dict(moment, pipeline.class_names)}
                tqdm.write(json.dumps(found, allow_nan=False))
            else:
                tqdm.write(_line(moment))
            sys.stdout.flush()
            bar.update(max(0, min(round(moment.stop), bar.total) - bar.n))
    what = f"{count} utterances" if count else "no speech"
    notes = sys.stderr if as_json else sys.stdout
    print(
        f"{request.given}: {recording.seconds:.1f} s, {what}; written to {stem}.csv, .jsonl, .srt, .png, .pdf",
        file=notes,
    )


def _line(moment: Moment) -> str:
    """An utterance as a printed line: times in seconds, emotion, confidence in percent, speaker, and transcript."""
    cells = [f"{moment.start:9.1f}  {moment.stop:9.1f}  {moment.emotion:<10}  {100 * moment.confidence:7.1f}"]
    cells += [moment.speaker] if moment.speaker else []
    cells += [f'recognised: "{moment.text}"'] if moment.recognized else []
    cells += ["short"] if moment.short else []
    return printable("  ".join(cells))
