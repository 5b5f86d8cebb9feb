import csv
from itertools import pairwise

import numpy as np
import pytest
import silero_vad
import soundfile
import torch

from tests.conftest import SHARED
from utils.data.audio import MIN_SECONDS, Segment, load_segment, probe, resampling_step
from utils.errors import InputError
from utils.timeline import voice
from utils.timeline.envelope import Envelope
from utils.timeline.rttm import Turn
from utils.timeline.segments import _with_margins, utterances
from utils.timeline.voice import RATE, WINDOW, blocks

LONGEST = 6.0
TOLERANCE = 0.1  # seconds: the padding, and two windows


@pytest.fixture
def recording(tmp_path):
    """A function that writes a recording of noise and probes it."""

    def write(seconds, rate=RATE, suffix="wav"):
        samples = 0.1 * np.random.default_rng(0).standard_normal(int(seconds * rate))
        soundfile.write(tmp_path / f"a.{suffix}", samples, rate)
        return probe(tmp_path / f"a.{suffix}")

    return write


class Scripted:
    """Replaces Silero's model: the probability is 0.9 in the given seconds, and 0 elsewhere."""

    def __init__(self, regions):
        self.regions, self.at = regions, 0

    def reset_states(self):
        self.at = 0

    def __call__(self, window, rate):
        assert (window.shape, rate) == ((WINDOW,), RATE)
        middle, self.at = (self.at + 0.5) * WINDOW / RATE, self.at + 1
        return torch.tensor([[0.9 if any(start <= middle < stop for start, stop in self.regions) else 0.0]])


@pytest.fixture
def find(recording, monkeypatch):
    """A function that sets the times of speech and returns the utterances: start, stop (seconds), speaker, short."""

    def find(regions, seconds=20.0, turns=None, rate=RATE, longest=LONGEST):
        monkeypatch.setattr(silero_vad, "load_silero_vad", lambda: Scripted(regions))
        source = recording(seconds, rate)
        found = list(utterances(source, longest, RATE, Envelope(), turns))
        step, _ = resampling_step(source.rate, RATE)
        assert all(each.segment.start % step == 0 for each in found)
        assert all(MIN_SECONDS <= each.segment.seconds <= longest for each in found)
        assert all(each.segment.stop <= source.frames for each in found)
        bounds = [(each.segment.start / rate, each.segment.stop / rate) for each in found]
        assert bounds == sorted(bounds)
        return [(*times, each.speaker, each.short) for times, each in zip(bounds, found, strict=True)]

    return find


def near(*expected):
    return [
        (pytest.approx(a, abs=TOLERANCE), pytest.approx(b, abs=TOLERANCE), who, short) for a, b, who, short in expected
    ]


# ---- decoding --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "suffix"), [(16_000, "wav"), (44_100, "wav"), (8_000, "flac"), (48_000, "flac")])
def test_the_blocks_are_the_whole(recording, monkeypatch, rate, suffix):
    monkeypatch.setattr(voice, "BLOCK_SECONDS", 0.7003)
    source = recording(5.03, rate, suffix)
    found = list(blocks(source, RATE))
    whole = load_segment(Segment(source, 0, source.frames), RATE)
    assert len(found) == 8
    assert torch.allclose(torch.cat(found), whole, atol=1e-6)


def test_a_block_is_all_that_is_decoded_at_once_and_utterances_come_before_the_end(recording, monkeypatch):
    decoded = []

    def watched(segment, rate):
        decoded.append(segment.seconds)
        return load_segment(segment, rate)

    monkeypatch.setattr(voice, "load_segment", watched)
    monkeypatch.setattr(voice, "BLOCK_SECONDS", 2)
    monkeypatch.setattr(silero_vad, "load_silero_vad", lambda: Scripted([(1, 3), (4, 6), (30, 55)]))
    stream = utterances(recording(60.0), LONGEST, RATE, Envelope())
    next(stream)
    assert len(decoded) == 4  # the next one might be joined with it
    next(stream)
    assert len(decoded) == 18  # and this one is cut before its end is decoded
    assert len(list(stream)) > 2
    assert sum(decoded) == 60
    assert max(decoded) == 2


def test_a_recording_that_is_damaged_later_on_is_named(recording, monkeypatch):
    source = recording(70.0, suffix="flac")
    data = source.path.read_bytes()
    source.path.write_bytes(data[: len(data) * 3 // 4])
    monkeypatch.setattr(silero_vad, "load_silero_vad", lambda: Scripted([(1, 3), (4, 6)]))
    stream = utterances(source, LONGEST, RATE, Envelope())
    next(stream)
    with pytest.raises(InputError, match=rf"^{source.path}: "):
        list(stream)


# ---- speech ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    """Five consecutive utterances of RAVDESS with their silence, 16 s in total."""
    folder = SHARED / "data" / "ravdess"
    if not folder.is_dir():
        pytest.skip(f"recordings of speech are not at {folder}")
    with (folder / "metadata.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["emotion"] in ("angry", "happy", "surprised")]
    path = tmp_path_factory.mktemp("spoken") / "a.wav"
    with soundfile.SoundFile(path, "w", RATE, 1) as file:
        for row in rows[:5]:
            file.write(soundfile.read(folder / row["path"])[0])
    return probe(path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("seconds", [1.7, 32])
def test_a_stream_finds_what_silero_finds_in_the_whole(spoken, monkeypatch, seconds):
    """Silero drops speech of less than 0.25 s."""
    monkeypatch.setattr(voice, "BLOCK_SECONDS", seconds)
    found = [each for each in voice.speech(spoken, 30.0, 1.0) if each[1] - each[0] > 0.31]
    whole = load_segment(Segment(spoken, 0, spoken.frames), RATE)
    expected = silero_vad.get_speech_timestamps(whole, silero_vad.load_silero_vad())
    assert len(expected) >= 5
    assert np.allclose(found, [(each["start"] / RATE, each["end"] / RATE) for each in expected])


def test_the_utterances_of_speech_at_another_rate(spoken, tmp_path):
    whole = load_segment(Segment(spoken, 0, spoken.frames), 44_100).numpy()
    soundfile.write(tmp_path / "b.flac", np.stack([whole, whole], 1), 44_100)
    both = [list(utterances(each, 30.0, RATE, Envelope())) for each in (spoken, probe(tmp_path / "b.flac"))]
    assert len(both[0]) == len(both[1]) == 5
    times = [[(u.segment.start / u.segment.recording.rate, u.segment.seconds) for u in found] for found in both]
    assert np.allclose(*times, atol=0.1)


def test_silence_noise_and_music_have_no_utterances(tmp_path):
    time = np.arange(8 * RATE) / RATE
    rng = np.random.default_rng(0)
    chords = sum(np.sin(2 * np.pi * f * 2 ** (np.floor(time) % 5 / 12) * time) for f in (220, 277, 330)) / 10
    for samples in (np.zeros_like(time), 0.05 * rng.standard_normal(len(time)), chords):
        soundfile.write(tmp_path / "a.wav", samples, RATE)
        envelope = Envelope()
        assert list(utterances(probe(tmp_path / "a.wav"), 30.0, RATE, envelope)) == []
        assert envelope.samples == len(time)


def test_the_threads_of_torch_stay_as_they_were(recording):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        list(utterances(recording(1.0), LONGEST, RATE, Envelope()))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("rate", [16_000, 44_100, 8_000])
def test_each_region_is_an_utterance(find, rate):
    found = find([(1, 3), (3.2, 5), (18, 20)], rate=rate)
    assert found == near((1, 3, None, False), (3.2, 5, None, False), (18, 20, None, False))


def test_times_are_those_of_a_recording_whose_rate_is_rounded(find):
    """1001 Hz is resampled as 1000 Hz, so that the samples are 0.1 % late."""
    (start, stop, *_), *_ = find([(500.5, 502.502)], seconds=510.0, rate=1001)
    assert (start, stop) == (pytest.approx(500, abs=TOLERANCE), pytest.approx(502, abs=TOLERANCE))


def test_a_short_region_is_joined_with_a_near_one(find):
    assert find([(1, 3), (3.3, 3.8)]) == near((1, 3.8, None, False))
    assert find([(1, 1.5), (1.8, 4)]) == near((1, 4, None, False))
    assert find([(1, 1.4), (1.7, 2), (2.3, 2.8)]) == near((1, 2.8, None, False))


def test_a_short_region_far_from_others_is_marked(find):
    assert find([(1, 3), (3.8, 4.3), (5, 7)]) == near((1, 3, None, False), (3.8, 4.3, None, True), (5, 7, None, False))


def test_nothing_is_joined_that_would_be_too_long(find):
    assert find([(1, 6.5), (6.8, 7.4)]) == near((1, 6.5, None, False), (6.8, 7.4, None, True))


def test_a_click_is_no_speech_unless_it_is_near_some(find):
    assert find([(1, 1.1), (5, 7), (7.2, 7.3)]) == near((5, 7.3, None, False))


def test_a_long_region_is_cut_at_its_longest_pause(find):
    """The pauses are 32 ms at 3 s and 96 ms at 5 s. Both are too short to end the speech."""
    found = find([(1, 3), (3.032, 4.98), (5.056, 9)])
    assert found == near((1, 5, None, False), (5, 9, None, False))
    assert found[0][1] == found[1][0]


def test_a_long_region_without_a_pause_is_cut_into_contiguous_utterances(find):
    found = find([(0, 20)])
    assert [before[1] for before in found[:-1]] == [after[0] for after in found[1:]]
    assert (found[0][0], found[-1][1]) == (0, 20)
    assert all(stop - start >= 1 for start, stop, *_ in found)


# ---- turns -----------------------------------------------------------------------------------------------------------


def test_turns_are_utterances_as_they_are_also_overlapping(find):
    turns = [Turn(1, 4, "a"), Turn(2, 3.5, "b"), Turn(10, 12.5, "a")]
    assert find([], turns=turns) == near((1, 4, "a", False), (2, 3.5, "b", False), (10, 12.5, "a", False))


def test_a_short_turn_is_joined_with_one_of_the_same_speaker_only(find):
    turns = [Turn(1, 4, "a"), Turn(4.1, 4.6, "b"), Turn(4.2, 4.8, "a")]
    assert find([], turns=turns) == near((1, 4.8, "a", False), (4.1, 4.6, "b", True))


def test_a_long_turn_is_cut_at_its_pauses_while_another_speaks(find):
    turns = [Turn(0, 15, "a"), Turn(5, 7, "b")]
    found = find([(0, 4), (4.5, 9), (9.2, 15)], turns=turns)
    expected = [(0, 4.25, "a", False), (4.25, 9.1, "a", False), (5, 7, "b", False), (9.1, 15, "a", False)]
    assert found == near(*expected)


def test_a_turn_too_short_to_encode_is_extended(find):
    found = find([], turns=[Turn(1, 1.01, "a"), Turn(19.99, 20, "a")])
    assert found == [(1, pytest.approx(1.1), "a", True), (pytest.approx(19.9), 20, "a", True)]


def test_the_envelope_is_of_the_whole_recording_also_after_the_last_turn(recording):
    envelope = Envelope()
    (only,) = utterances(recording(40.0), LONGEST, RATE, envelope, [Turn(1, 3, "a")])
    assert (only.speaker, envelope.samples) == ("a", 40 * RATE)


def test_consecutive_utterances_are_the_samples_of_the_whole(find, recording):
    source = recording(12.0, 44_100)
    turns = [Turn(a, b, "a") for a, b in pairwise((0, 2.0034, 5.1, 9.77, 12))]
    found = [each.segment for each in utterances(source, LONGEST, RATE, Envelope(), turns)]
    together = torch.cat([load_segment(segment, RATE) for segment in found])
    assert torch.allclose(together, load_segment(Segment(source, 0, source.frames), RATE), atol=1e-6)


def test_margins_are_of_the_pauses_and_never_overlap():
    """It is at most half of a pause, stays inside the recording, and is not longer than what can be encoded."""
    regions = [Turn(0.3, 2.0, None), Turn(2.4, 5.0, None), Turn(9.0, 38.0, None), Turn(40.0, 41.0, None)]
    found = list(_with_margins(iter(regions), 1.0, 30.0, 41.5))
    assert [each for each, _ in found] == regions
    around = [(turn.start, turn.stop) for _, turn in found]
    assert around == [
        (0.0, pytest.approx(2.2)),
        (pytest.approx(2.2), 6.0),
        (8.5, 38.5),
        (39.0, 41.5),
    ]
