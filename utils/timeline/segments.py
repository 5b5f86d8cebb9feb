"""The utterances of a long recording: the speech that Silero VAD detects, or the turns of an RTTM file."""

import heapq
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, pairwise

from utils.data.audio import MIN_SECONDS, Recording, Segment, resampling_step
from utils.timeline.envelope import Envelope
from utils.timeline.rttm import Turn
from utils.timeline.voice import RATE, SpeechDetector, blocks, speech

SHORT = 1.0  # seconds; the emotion of less speech is unreliable
PAUSE = 0.5  # seconds; a short region is joined with another one across a shorter pause
MARGIN = 1.0  # seconds of the pauses around an utterance that are encoded with it (docs/timeline.md)
LEAST = 0.3  # seconds of speech, padding included; a shorter region with none near it is regarded as a click


@dataclass(frozen=True)
class Utterance:
    """Speech from ``start`` to ``stop`` in seconds, and the segment to encode. ``short`` means below :data:`SHORT`.

    Without turns, ``speaker`` is None, and the segment includes part of the pauses around the speech.
    """

    start: float
    stop: float
    segment: Segment
    speaker: str | None
    short: bool


def utterances(
    recording: Recording,
    longest: float,
    rate: int,
    envelope: Envelope,
    turns: list[Turn] | None = None,
    margin: float = 0.0,
) -> Iterator[Utterance]:
    """Yield a recording's utterances in order of their start, as soon as each is known.

    The recording is decoded in blocks. A region shorter than :data:`SHORT` is joined with one of the same speaker that
    is nearer than :data:`PAUSE`, unless the result is too long. Turns of different speakers may overlap.

    Args:
        longest: maximum seconds of an utterance, at least 2. A longer region is cut at its longest pauses.
        rate: sampling rate at which :func:`utils.data.audio.load_segment` will read the segments.
        envelope: holds the whole recording once the last utterance has been taken.
        margin: seconds of the pauses before and after an utterance that its segment includes, at most half of the
            pause between two utterances. Turns have no margin.

    Raises:
        InputError: as :func:`utils.data.audio.load_segment`.
    """
    if turns is None:
        regions = (Turn(start, stop, None) for start, stop in speech(recording, longest, SHORT, envelope))
        joined = (region for region in _joined(regions, longest) if region.seconds >= LEAST)
        # a margin depends on the next utterance
        found = _with_margins(joined, margin, longest, recording.seconds) if margin else ((r, r) for r in joined)
    else:
        speakers = dict.fromkeys(turn.speaker for turn in turns)
        joined = [each for name in speakers for each in _joined((t for t in turns if t.speaker == name), longest)]
        found = ((turn, turn) for turn in _cut(recording, joined, longest, envelope))
    for each, around in found:
        segment = _segment(recording, around, longest, rate)
        # without a margin, the utterance has the bounds of the segment, which is long enough to be encoded
        first, last = (segment.start / recording.rate, segment.stop / recording.rate)
        start, stop = (first, last) if around is each else (each.start, each.stop)
        yield Utterance(start, stop, segment, each.speaker, stop - start < SHORT)


def _with_margins(regions: Iterable[Turn], margin: float, longest: float, end: float) -> Iterator[tuple[Turn, Turn]]:
    """Yield each region, and the same region with a margin on both sides."""
    before = -math.inf
    for region, after in pairwise(chain(regions, [None])):
        spare = max(0.0, (longest - region.seconds) / 2)
        start = max(0.0, region.start - min(margin, spare, (region.start - before) / 2))
        following = math.inf if after is None else after.start
        stop = min(end, region.stop + min(margin, spare, (following - region.stop) / 2))
        yield region, Turn(start, stop, None)
        before = region.stop


def _joined(regions: Iterable[Turn], longest: float) -> Iterator[Turn]:
    """Join each short region of a speaker with the region before it, or otherwise with the one after it."""
    before = None
    for region in regions:
        if before is not None:
            both = Turn(before.start, max(before.stop, region.stop), before.speaker)
            near = region.start - before.stop < PAUSE and both.seconds <= longest
            if near and min(before.seconds, region.seconds) < SHORT:
                before = both
                continue
            yield before
        before = region
    if before is not None:
        yield before


def _cut(recording: Recording, turns: list[Turn], longest: float, envelope: Envelope) -> Iterator[Turn]:
    """Cut the turns that are too long at their longest pauses; yield all in order of their start."""
    heap = [(turn.start, turn.stop, turn.speaker) for turn in turns]
    heapq.heapify(heap)
    stream = blocks(recording, RATE, envelope)
    detector = SpeechDetector(recording) if any(turn.seconds > longest for turn in turns) else None
    while heap:
        start, stop, speaker = heapq.heappop(heap)
        if stop - start > longest:
            while detector.seconds < start + longest and (waveform := next(stream, None)) is not None:
                detector.add(waveform)
            middle = detector.pause(start + SHORT, start + longest - SHORT)
            heapq.heappush(heap, (middle, stop, speaker))
            stop = middle
        yield Turn(start, stop, speaker)
    for _ in stream:  # for the envelope
        pass


def _segment(recording: Recording, region: Turn, longest: float, rate: int) -> Segment:
    """The segment of a region, in whole steps of the resampling, and long enough to be encoded."""
    step, _ = resampling_step(recording.rate, rate)
    per_second = recording.rate / step
    least, most = -int(-MIN_SECONDS * per_second // 1), int(longest * per_second)
    start = max(0, min(round(region.start * per_second), recording.frames // step - least))
    count = min(max(round(region.stop * per_second) - start, least), most)
    return Segment(recording, start * step, min((start + count) * step, recording.frames))
