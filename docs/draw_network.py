"""Draw the figure of the network at the top of README.md.

    python docs/draw_network.py            # writes docs/images/network.svg

Text stays text, so the file is small. No number in it depends on a font or on the machine: the same matplotlib writes
the same bytes.
"""

import argparse
import io
import math
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch

WIDTH, HEIGHT = 800, 606  # in points; all positions are in points from the top left corner
INK, GREY, PANEL = "#1f2328", "#59636e", "#ffffff"
TEXT, AUDIO = ("#0969da", "#ddf4ff"), ("#bc4c00", "#fff1e5")  # line and fill of each modality
CH_GAT, XCBAM = ("#1a7f37", "#f0fbf2"), ("#8250df", "#faf5ff")
NEUTRAL = ("#6e7781", "#f6f8fa")
SIZE, SMALL, LARGE = 14.5, 13, 17
LINE = 2.0
FONT = "DejaVu Sans"
FONTS = f"'{FONT}', Verdana, sans-serif"  # Verdana is as wide, others are narrower
WAVE = (4, 9, 5, 13, 20, 12, 24, 15, 22, 10, 16, 7, 12, 5, 8, 3)  # heights of the bars of the recording
SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "network",
    "font.family": FONT,
    "text.parse_math": False,
    "path.simplify": False,
}


class Drawing:
    """Boxes, labels and arrows on a canvas whose y axis points down."""

    def __init__(self):
        self.figure = plt.figure(figsize=(WIDTH / 72, HEIGHT / 72))
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, WIDTH), ylim=(HEIGHT, 0))
        self.axes.axis("off")

    def box(self, left: float, top: float, right: float, bottom: float, colors: tuple[str, str], radius: float = 8):
        """A rounded box; ``colors`` are those of its line and of its inside."""
        style = f"round,pad=0,rounding_size={radius}"
        patch = FancyBboxPatch((left, top), right - left, bottom - top, boxstyle=style, linewidth=1.6, zorder=1)
        patch.set(edgecolor=colors[0], facecolor=colors[1], clip_on=False)
        self.axes.add_artist(patch)

    def label(self, x: float, y: float, text: str, size: float = SIZE, color: str = INK, **options):
        """One line of text, centred unless ``ha`` says otherwise."""
        options = {"ha": "center", "va": "baseline", "zorder": 4} | options
        self.axes.text(x, y + 0.38 * size, text, fontsize=size, color=color, **options)

    def line(self, *points: tuple[float, float], color: str, width: float = LINE, bridge: bool = False):
        """A line through points; a ``bridge`` passes over the lines that it crosses."""
        if bridge:
            self.line(*points, color=PANEL, width=width + 5)
        (drawn,) = self.axes.plot(*zip(*points, strict=True), color=color, linewidth=width, zorder=2)
        drawn.set(solid_capstyle="butt", solid_joinstyle="round", clip_on=False)

    def arrow(self, start: tuple[float, float], stop: tuple[float, float], color: str = GREY, head: float = 13):
        """An arrow whose tip touches ``stop``."""
        style = {"arrowstyle": "-|>", "mutation_scale": head, "shrinkA": 0, "shrinkB": 0}
        arrow = FancyArrowPatch(start, stop, color=color, linewidth=LINE, zorder=3, **style)
        arrow.set(joinstyle="miter", capstyle="butt", clip_on=False)
        self.axes.add_artist(arrow)

    def dot(self, x: float, y: float, radius: float, colors: tuple[str, str], text: str = ""):
        """A filled circle with a letter in it."""
        patch = Circle((x, y), radius, edgecolor=colors[0], facecolor=colors[1], linewidth=1.6, zorder=3)
        patch.set_clip_on(False)
        self.axes.add_artist(patch)
        if text:
            self.label(x, y, text, fontweight="bold", color=INK if colors[1] != colors[0] else "white")


def draw() -> plt.Figure:
    """The figure."""
    drawing = Drawing()
    drawing.box(1.5, 1.5, WIDTH - 1.5, HEIGHT - 1.5, ("#d0d7de", PANEL), radius=16)
    _encoders(drawing)
    _ch_gat(drawing)
    _xcbam(drawing)
    _buses(drawing)
    _classifier(drawing)
    return drawing.figure


def _encoders(drawing: Drawing) -> None:
    """From the transcript and the recording to T and A."""
    for middle, colors, encoder, vector in ((206, TEXT, "BERT", "text"), (594, AUDIO, "Wav2Vec2", "audio")):
        left, right = middle - 160, middle + 160
        drawing.box(left, 18, right, 56, (colors[0], PANEL), radius=19)
        drawing.arrow((middle, 56), (middle, 78), colors[0])
        drawing.box(left, 78, right, 114, colors)
        drawing.label(middle, 96, encoder, LARGE, fontweight="bold")
        drawing.arrow((middle, 114), (middle, 144), colors[0])
        drawing.label(middle + 12, 128, f"{vector} vector, 768", SMALL, GREY, ha="left")
        drawing.box(left, 144, right, 180, colors)
        drawing.label(middle, 162, "Linear · BatchNorm · ReLU · Dropout")
    drawing.label(206, 37, "transcript: “Well, that was awesome.”")
    drawing.label(498, 37, "recording", ha="left")
    x = [at for i in range(len(WAVE)) for at in 3 * [590 + 8 * i]]
    y = [at for height in WAVE for at in (37 - height / 2, 37 + height / 2, math.nan)]
    drawing.line(*zip(x, y, strict=True), color=AUDIO[0], width=4)


def _buses(drawing: Drawing) -> None:
    """T and A to both branches."""
    of_text, of_audio = 206, 234  # y of the lines that lead to the branches
    drawing.line((206, of_text), (658, of_text), color=TEXT[0])
    drawing.line((270, of_audio), (712, of_audio), color=AUDIO[0])
    drawing.line((594, 180), (594, of_audio), color=AUDIO[0], bridge=True)
    drawing.line((206, 180), (206, of_text), color=TEXT[0])
    for x in (505, 658):
        drawing.line((x, of_audio - 8), (x, of_audio + 8), color=TEXT[0], bridge=True)
    for x in (206, 505, 658):
        drawing.arrow((x, of_text - LINE / 2), (x, 304), TEXT[0])
    for x in (270, 559, 712):
        drawing.arrow((x, of_audio - LINE / 2), (x, 304), AUDIO[0])
    for x, y, (color, _) in ((505, of_text, TEXT), (559, of_audio, AUDIO)):
        drawing.dot(x, y, 3.2, (color, color))
    drawing.dot(206, of_text, 13, (TEXT[0], TEXT[0]), "T")
    drawing.dot(594, of_audio, 13, (AUDIO[0], AUDIO[0]), "A")
    drawing.label(186, of_text, "512", SMALL, GREY, ha="right")
    drawing.label(614, of_audio - 14, "512", SMALL, GREY, ha="left")


def _ch_gat(drawing: Drawing) -> None:
    """The graph branch."""
    drawing.box(20, 262, 392, 506, CH_GAT, radius=12)
    drawing.label(34, 283, "CH-GAT", LARGE, CH_GAT[0], ha="left", fontweight="bold")
    drawing.box(36, 304, 376, 336, (CH_GAT[0], PANEL))
    drawing.label(206, 320, "nodes: V = [T ‖ A], Eq. (1)")
    middle, y = 206, 384
    for side, (color, _), name in ((-1, TEXT, "text"), (1, AUDIO, "audio")):
        for step in (-1, 0, 1):
            start = (middle + side * (62 - 5 * abs(step)), y + 25 * step)
            drawing.arrow(start, _toward(start, (middle, y), 14), color, head=11)
            drawing.dot(*start, 7, (color, color))
        x = 84 if side < 0 else 328
        drawing.label(x, y - 9, f"Top-K {name}", SMALL)
        drawing.label(x, y + 9, "neighbours", SMALL)
    drawing.arrow((middle, 336), (middle, y - 14), CH_GAT[0])
    drawing.dot(middle, y, 14, (CH_GAT[0], PANEL), "i")
    drawing.arrow((middle, y + 14), (middle, 456), CH_GAT[0])
    drawing.label(middle - 14, 436, "edges, self-loops", ha="right")
    drawing.label(middle + 14, 436, "Eq. (2)", ha="left")
    drawing.box(36, 456, 376, 490, (CH_GAT[0], PANEL))
    drawing.label(206, 473, "3 GAT layers, 4 heads each")


def _toward(start: tuple[float, float], stop: tuple[float, float], gap: float) -> tuple[float, float]:
    """The point at a distance of ``gap`` before ``stop``."""
    dx, dy = stop[0] - start[0], stop[1] - start[1]
    share = 1 - gap / (dx * dx + dy * dy) ** 0.5
    return start[0] + share * dx, start[1] + share * dy


def _xcbam(drawing: Drawing) -> None:
    """The cross-modal branch."""
    drawing.box(408, 262, 780, 506, XCBAM, radius=12)
    drawing.label(422, 283, "xCBAM", LARGE, XCBAM[0], ha="left", fontweight="bold")
    for left, name, reads in ((424, "A→T", "query A, reads T"), (602, "T→A", "query T, reads A")):
        right, middle = left + 162, left + 81
        drawing.box(left, 304, right, 352, (XCBAM[0], PANEL))
        drawing.label(middle, 318, f"{name} cross-attention", SMALL)
        drawing.label(middle, 337, reads, SMALL, GREY)
        drawing.arrow((middle, 352), (middle, 370), XCBAM[0])
        drawing.box(left, 370, right, 438, (XCBAM[0], PANEL))
        drawing.label(middle, 384, "1D-CBAM")
        drawing.label(middle, 404, "channel gate Eq. (3)", SMALL, GREY)
        drawing.label(middle, 423, "spatial gate Eq. (4)", SMALL, GREY)
        drawing.arrow((middle, 438), (middle, 456), XCBAM[0])
    drawing.box(424, 456, 764, 490, (XCBAM[0], PANEL))
    drawing.label(594, 473, "MIN fusion")


def _classifier(drawing: Drawing) -> None:
    """From both branches to the emotion."""
    y = 525
    for x, color, side in ((206, CH_GAT[0], -1), (594, XCBAM[0], 1)):
        drawing.line((x, 490), (x, y), (400 + side * 26, y), color=color)
        drawing.arrow((400 + side * 30, y), (400 + side * 12, y), color)
    drawing.dot(400, y, 12, (NEUTRAL[0], PANEL), "‖")
    drawing.label(416, y + 16, "concatenation, 1024", SMALL, GREY, ha="left")
    drawing.label(203, 573, "classifier", SMALL, GREY, ha="right")
    drawing.arrow((400, y + 12), (400, 555), GREY)
    drawing.box(215, 555, 585, 591, NEUTRAL)
    drawing.label(400, 573, "Linear · LayerNorm · ReLU · Dropout · Linear")
    drawing.arrow((585, 573), (630, 573), GREY)
    drawing.box(630, 555, 770, 591, (INK, INK), radius=18)
    drawing.label(700, 573, "emotion", LARGE, "white", fontweight="bold")


def write(path: Path) -> None:
    """Write the figure as SVG, without a date and without the version of matplotlib."""
    metadata = {"Date": None, "Creator": None, "Title": "The network of CemoBAM"}
    with plt.rc_context(SETTINGS):
        figure = draw()
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", transparent=True, metadata=metadata)
        plt.close(figure)
    path.write_text(drawn.getvalue().replace(f"'{FONT}'", FONTS), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "images" / "network.svg")
    write(parser.parse_args().output)


if __name__ == "__main__":
    main()
