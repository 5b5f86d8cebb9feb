"""The timeline as a figure, with the waveform and below it the emotions of each speaker."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MultipleLocator

from utils import plots
from utils.plots import COLORS, ENTRIES, short_name
from utils.timeline.envelope import Envelope
from utils.timeline.output import Moment

ROW_SECONDS = (300, 600, 900, 1200, 1800, 3600, 7200, 14_400)  # possible lengths of a row
TICKS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200)  # possible distances between ticks, in seconds
ROWS = 6
LANES = 8  # maximum; if there are more speakers, those who speak least share the last lane
WIDTH, WAVEFORM, LANE = 15, 0.8, 0.3  # inches
NARROW, SHORT = 8, 60  # width in inches of the figure of a recording of at most so many seconds
PALE = 0.25  # opacity where the confidence is 0
_HATCHES = ("", "//", "..", "xx", "\\\\", "++")  # one per ten classes
_LINES = {"edgecolor": "0.3", "linewidth": 0}  # lines of the hatches
_OTHER = {"facecolor": (0.85, 0.85, 0.85), "hatch": "////", **_LINES}  # not a class, such as "uncertain"


def plot_timeline(
    path: Path,
    envelope: Envelope,
    seconds: float,
    moments: Sequence[Moment],
    class_names: Sequence[str],
    title: str,
) -> None:
    """Draw the waveform and the emotions over time, one lane per speaker, in rows of 5 minutes or more.

    The colour of a bar shows the emotion of an utterance. The opacity and height of the bar show the confidence.

    Args:
        envelope: of the whole recording.
        seconds: length of the recording.
    """
    lanes, lane_names = _lanes(moments)
    length = next((each for each in ROW_SECONDS if seconds <= ROWS * each), ROW_SECONDS[-1])
    length = min(length, seconds)
    count = math.ceil(seconds / length - 1e-9)
    styles = _styles(moments, class_names)
    width = NARROW if seconds <= SHORT else WIDTH
    size = (width, 1.3 + count * (0.45 + WAVEFORM + LANE * len(lane_names)))
    figure, rows = plt.subplots(count, 1, figsize=size, layout="constrained", squeeze=False)
    for i, axes in enumerate(rows[:, 0]):
        start, stop = i * length, (i + 1) * length
        _draw_waveform(axes, envelope, seconds, start, stop)
        inside = [moment for moment in moments if moment.start < stop and moment.stop > start]
        for emotion, style in styles.items():
            _draw_bars(axes, [moment for moment in inside if moment.emotion == emotion], lanes, style)
        for lane in range(1, len(lane_names)):
            axes.axhline(-LANE * lane / WAVEFORM, color="0.8", linewidth=0.5)
        axes.axhline(0, color="black", linewidth=0.5)
        axes.set(xlim=(start, stop), ylim=(-LANE * len(lane_names) / WAVEFORM, 1))
        ticks = [-LANE * (lane + 0.5) / WAVEFORM for lane in range(len(lane_names))]
        axes.set_yticks([0.5, *ticks], ["waveform", *lane_names])
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_locator(MultipleLocator(next(step for step in TICKS if length <= 15 * step)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: _clock(at, seconds)))
    axes.set_xlabel(f"time ({_unit(seconds)})")
    handles = [Patch(label=short_name(name), **style) for name, style in list(styles.items())[:ENTRIES]]
    if handles:
        figure.legend(
            handles=handles, loc="outside lower center", ncols=min(len(handles), 4 if seconds <= SHORT else 8)
        )
    plots.save_figure(figure, path, f"{title}\nemotions; a higher and darker bar means more confidence")


def _lanes(moments: Sequence[Moment]) -> tuple[dict[str | None, int], list[str]]:
    """The lane of each speaker, in order of appearance, and the names of the lanes."""
    spoken = Counter()
    for moment in moments:
        spoken[moment.speaker] += moment.stop - moment.start
    if len(spoken) <= LANES:
        kept, others = list(spoken), []
    else:
        most = dict(spoken.most_common(LANES - 1))
        kept, others = [each for each in spoken if each in most], [each for each in spoken if each not in most]
    lanes = {speaker: i for i, speaker in enumerate(kept)} | dict.fromkeys(others, len(kept))
    names = ["emotion" if speaker is None else short_name(speaker) for speaker in kept]
    return lanes, (names or ["emotion"]) + ([f"{len(others)} others"] if others else [])


def _styles(moments: Sequence[Moment], class_names: Sequence[str]) -> dict[str, dict]:
    """Colour and hatch of each emotion that occurs, in the order of the classes."""
    used = {moment.emotion for moment in moments}
    styles = {}
    for i, name in enumerate(class_names):
        tens, ones = divmod(i, len(COLORS))
        if name in used:
            styles[name] = {"facecolor": COLORS[ones], "hatch": _HATCHES[tens % len(_HATCHES)], **_LINES}
    return styles | dict.fromkeys(sorted(used - styles.keys()), _OTHER)


def _draw_waveform(axes: plt.Axes, envelope: Envelope, seconds: float, start: float, stop: float) -> None:
    low, high = envelope.bounds()
    times = seconds * np.minimum(np.arange(len(low)) * envelope.width / envelope.samples, 1)
    inside = (times >= start) & (times < stop)
    loudest = max(np.abs([low, high]).max(), 1e-9)  # of the whole recording, so that all rows have the same scale
    bounds = [0.5 + 0.48 * side[inside] / loudest for side in (low, high)]
    axes.fill_between(times[inside], *bounds, step="post", color="0.4", linewidth=0.3)


def _draw_bars(axes: plt.Axes, moments: Sequence[Moment], lanes: dict[str | None, int], style: dict) -> None:
    """Draw the moments of one emotion."""
    bars, colors = [], []
    for moment in moments:
        bottom = -LANE * (lanes[moment.speaker] + 1) / WAVEFORM
        top = bottom + 0.9 * LANE / WAVEFORM * max(moment.confidence, 0.15)
        bars.append([(moment.start, bottom), (moment.start, top), (moment.stop, top), (moment.stop, bottom)])
        colors.append((*style["facecolor"], PALE + (1 - PALE) * moment.confidence))
    axes.add_collection(PolyCollection(bars, **style | {"facecolor": colors}), autolim=False)


def _unit(seconds: float) -> str:
    """The unit of the time axis of a recording."""
    return "s" if seconds <= 60 else "minutes:seconds" if seconds <= 5400 else "hours:minutes:seconds"


def _clock(at: float, seconds: float) -> str:
    minutes, rest = divmod(round(at), 60)
    return {
        "s": f"{at:g}",
        "minutes:seconds": f"{minutes}:{rest:02d}",
        "hours:minutes:seconds": f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}",
    }[_unit(seconds)]
