import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from utils import plots
from utils.timeline.envelope import BINS, Envelope
from utils.timeline.figure import LANES, plot_timeline
from utils.timeline.output import Moment

pytestmark = pytest.mark.drawn

NAMES = ("anger", "joy", "sadness")


@pytest.fixture
def draw(tmp_path, monkeypatch):
    """A function that draws a timeline and returns the figure and the file."""
    saved = []
    monkeypatch.setattr(plots.plt, "close", saved.append)

    def draw(seconds, moments, names=NAMES):
        envelope = Envelope()
        envelope.add(torch.full((int(100 * seconds),), 0.5))
        plot_timeline(tmp_path / "t.png", envelope, seconds, moments, names, "talk")
        assert (tmp_path / "t.pdf").read_bytes().startswith(b"%PDF-")
        assert max(plt.imread(tmp_path / "t.png").shape) < 3500
        return saved[-1]

    yield draw
    monkeypatch.undo()
    plt.close("all")


def moment(start, stop, speaker=None, emotion="joy", confidence=0.8):
    rest = (1 - confidence) / 2
    probabilities = [rest, rest, rest]
    probabilities[NAMES.index(emotion) if emotion in NAMES else 0] = confidence
    return Moment(start, stop, speaker, "text", False, False, emotion, probabilities)


def bars(axes):
    """Start, stop, height and opacity of each bar."""
    found = []
    for collection in axes.collections[1:]:  # the first is the waveform
        for path, color in zip(collection.get_paths(), collection.get_facecolor(), strict=True):
            (start, bottom), (stop, top) = path.vertices.min(0), path.vertices.max(0)
            found.append((start, stop, top - bottom, color[3]))
    return sorted(found)


def test_bars_are_at_their_time_and_as_high_as_their_confidence(draw):
    figure = draw(
        20.0, [moment(1, 3), moment(4, 9, emotion="anger", confidence=0.4), moment(10, 11, emotion="uncertain")]
    )
    (axes,) = figure.axes
    first, second, third = bars(axes)
    assert (first[:2], second[:2], third[:2]) == ((1, 3), (4, 9), (10, 11))
    assert first[2] == pytest.approx(2 * second[2])
    assert first[3] > second[3]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["anger", "joy", "uncertain"]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["waveform", "emotion"]
    assert axes.get_xlabel() == "time (s)"


def test_an_hour_is_drawn_in_rows(draw):
    figure = draw(3600.0, [moment(595, 605), moment(3590, 3600)])
    assert [axes.get_xlim() for axes in figure.axes] == [(600 * i, 600 * (i + 1)) for i in range(6)]
    assert [len(bars(axes)) for axes in figure.axes] == [1, 1, 0, 0, 0, 1]
    assert figure.axes[1].xaxis.get_major_formatter()(660) == "11:00"


@pytest.mark.parametrize(("seconds", "rows"), [(0.1, 1), (300.0, 1), (301.0, 2), (86_400.0, 6)])
def test_the_rows_of_any_length(draw, seconds, rows):
    figure = draw(seconds, [moment(0, seconds)])
    assert len(figure.axes) == rows


def test_a_recording_of_up_to_a_minute_has_a_narrow_figure(draw):
    assert [draw(seconds, [moment(0, 1)]).get_figwidth() for seconds in (60.0, 61.0)] == [8, 15]


def test_each_speaker_has_a_lane_and_the_last_is_shared(draw):
    two = draw(20.0, [moment(1, 3, "b"), moment(2, 4, "a")])
    assert [tick.get_text() for tick in two.axes[0].get_yticklabels()] == ["waveform", "b", "a"]
    many = draw(100.0, [moment(i, i + 1 - i / 100, f"s{i}") for i in range(20)])
    names = [tick.get_text() for tick in many.axes[0].get_yticklabels()]
    assert names == ["waveform", *(f"s{i}" for i in range(LANES - 1)), "13 others"]
    assert len(bars(many.axes[0])) == 20
    paths = [path for collection in many.axes[0].collections[1:] for path in collection.get_paths()]
    assert len({path.vertices[:, 1].min() for path in paths}) == LANES


@pytest.mark.filterwarnings("ignore:Glyph")  # for characters that the font lacks
@pytest.mark.parametrize("name", ["李小龙", "مريم", "$x_", "\udc80\n\0", "n" * 5000, "\u200b", "_a"])
def test_unusual_names_of_speakers_and_classes(draw, name):
    (axes,) = draw(20.0, [moment(1, 3, name, emotion=name)], (name, *NAMES[1:])).axes
    assert len(axes.get_yticklabels()[1].get_text()) <= 24


def test_a_silent_recording_without_speech(draw):
    figure = draw(20.0, [])
    assert bars(figure.axes[0]) == [] and not figure.legends


# ---- the envelope ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [10, 64, 100_000, 64 * BINS + 1, 64 * BINS * 5 + 77])
def test_the_envelope_in_parts_holds_the_extremes_of_all_samples(count):
    samples = np.random.default_rng(0).standard_normal(count).astype(np.float32)
    envelope = Envelope()
    for part in np.array_split(samples, 7):
        envelope.add(torch.from_numpy(part))
    low, high = envelope.bounds()
    assert envelope.samples == count
    assert len(low) <= BINS + 1
    starts = range(0, count, envelope.width)
    assert len(low) == len(starts)
    assert np.array_equal(low, [samples[i : i + envelope.width].min() for i in starts])
    assert np.array_equal(high, [samples[i : i + envelope.width].max() for i in starts])
