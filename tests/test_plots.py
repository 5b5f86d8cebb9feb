import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from tests.conftest import ROOT
from utils import plots

pytestmark = pytest.mark.drawn


@pytest.fixture
def figures(monkeypatch):
    """The saved figures, kept open so that their contents can be checked."""
    saved = []
    monkeypatch.setattr(plots.plt, "close", saved.append)
    yield saved
    monkeypatch.undo()
    plt.close("all")


def is_png(path) -> bool:
    """Whether a figure exists as a PNG and, next to it, as a PDF."""
    pdf = path.with_suffix(".pdf").read_bytes()
    return path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n") and pdf.startswith(b"%PDF-")


def test_a_pdf_holds_its_text_as_text_and_no_date(tmp_path):
    for name in ("a", "b"):
        plots.plot_confusion(tmp_path / f"{name}.png", [[[3, 1], [0, 0]]], ("anger", "joy"), "title")
        pdf = (tmp_path / f"{name}.pdf").read_bytes()
        assert b"/FontFile2" in pdf and b"/Type3" not in pdf and b"/CreationDate" not in pdf
        assert sorted(path.name for path in tmp_path.glob(f"{name}*")) == [f"{name}.pdf", f"{name}.png"]
    assert pdf == (tmp_path / "a.pdf").read_bytes()


def test_confusion_shows_shares_of_the_true_class_and_counts(tmp_path, figures):
    path = tmp_path / "c.png"
    plots.plot_confusion(path, [[[3, 1], [0, 0]], [[1, 3], [0, 0]]], ("anger", "joy"), "title")
    axes = figures[0].axes[0]
    assert [t.get_text() for t in axes.texts] == ["50.0%\n(4)", "50.0%\n(4)", "0.0%\n(0)", "0.0%\n(0)"]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["anger", "joy"]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["anger", "joy"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted emotion", "true emotion")
    assert is_png(path)


def test_tsne_has_every_utterance_under_its_class_name(tmp_path, figures):
    path = tmp_path / "t.png"
    rng = np.random.default_rng(0)
    labels = np.array([0] * 5 + [1] * 7)
    plots.plot_tsne(path, rng.standard_normal((12, 8)).astype(np.float32), labels, ("anger", "joy"), "title")
    axes = figures[0].axes[0]
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["anger (5)", "joy (7)"]
    assert [len(c.get_offsets()) for c in axes.collections] == [5, 7]
    assert is_png(path)


@pytest.mark.parametrize("classes, ticks", [(21, 21), (150, 75), (2500, 93)])
def test_confusion_of_many_classes_is_bounded(tmp_path, figures, classes, ticks):
    """With 2500 classes, three share a cell."""
    confusion = np.eye(classes, dtype=int)
    names = [f"class {i} {'x' * 5000}" for i in range(classes)]
    plots.plot_confusion(tmp_path / "c.png", [confusion, 3 * confusion], names, "title")
    axes, _ = figures[0].axes
    shares = axes.images[0].get_array()
    assert (shares.diagonal() == 100).all() and shares.sum() == 100 * len(shares)
    assert len(shares) == (834 if classes == 2500 else classes)
    assert not axes.texts
    assert ("3 classes" in axes.get_xlabel()) == ("3 classes" in axes.get_ylabel()) == (classes == 2500)
    second = {21: "class 1 xxx…", 150: "class 2 xxx…", 2500: "class 27 xx…"}[classes] + "x" * 11
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert (len(labels), labels[1].get_text()) == (ticks, second)
    assert max(plt.imread(tmp_path / "c.png").shape) < 3800  # pixels


NAMES = ("x_$", "cost$ and $ more", "\\frac{$\\frac{$", "_first", "two\nlines\0", "\udc80")
LITERAL = ["x_$", "cost$ and $ more", "\\frac{$\\frac{$", "_first", "two?lines?", "?"]


def test_names_are_literal_in_every_text(tmp_path, figures):
    rng, labels = np.random.default_rng(0), np.arange(12) % 6
    log = [{"epoch": 1, "train_loss": 1.0, "val_loss": 1.0, "val_w_f1": 0.5}]
    title = "$x_$ \\frac{$\nsecond"
    plots.plot_confusion(tmp_path / "c.png", [np.eye(6, dtype=int)], NAMES, title)
    plots.plot_tsne(tmp_path / "t.png", rng.standard_normal((12, 8)), labels, NAMES, title)
    plots.plot_training_curves(tmp_path / "l.png", {"$x_$": log}, {"$x_$": 1}, title)
    confusion, tsne, curves = (figure.axes for figure in figures)
    assert [t.get_text() for t in confusion[0].get_xticklabels()] == LITERAL
    assert [t.get_text() for t in tsne[0].get_legend().get_texts()] == [f"{name} (2)" for name in LITERAL]
    assert [t.get_text() for t in curves[1].get_legend().get_texts()] == ["$x_$"]
    assert not any(text.get_parse_math() for figure in figures for text in figure.findobj(plt.Text))
    assert figures[2].get_suptitle() == title


def test_a_long_title_does_not_widen_the_figure(tmp_path, figures):
    log = [{"epoch": 1, "train_loss": 1.0, "val_loss": 1.0, "val_w_f1": 0.5}]
    plots.plot_training_curves(tmp_path / "l.png", {"a": log}, {"a": 1}, "DEMO, run " + "x" * 2000 + "\nlast")
    assert plt.imread(tmp_path / "l.png").shape[1] < 2500
    first, last = figures[0].get_suptitle().split("\n")
    assert first.startswith("DEMO, run xxx") and len(first) <= 120 and last == "last"


def test_curves_of_many_seeds_have_a_legend_that_fits(tmp_path, figures):
    log = [{"epoch": 1, "train_loss": 1.0, "val_loss": 1.0, "val_w_f1": 0.5}]
    curves = {f"seed {i}": log for i in range(100)}
    plots.plot_training_curves(tmp_path / "l.png", curves, dict.fromkeys(curves, 1), "title")
    entries = [t.get_text() for t in figures[0].axes[1].get_legend().get_texts()]
    assert (len(entries), entries[0], entries[-1]) == (21, "seed 0", "and 80 more")
    assert plt.imread(tmp_path / "l.png").shape[0] < 700


def test_tsne_of_many_classes_names_the_most_frequent(tmp_path, figures):
    labels = np.concatenate([np.arange(100), np.arange(30, 90)])
    embeddings = np.random.default_rng(0).standard_normal((len(labels), 8))
    plots.plot_tsne(tmp_path / "t.png", embeddings, labels, [f"c{i}" for i in range(3000)], "title")
    axes = figures[0].axes[0]
    entries = [t.get_text() for t in axes.get_legend().get_texts()]
    assert entries == ["2940 other classes (40)", *(f"c{i} (2)" for i in range(30, 90))]
    looks = {(tuple(c.get_facecolor()[0]), c.get_paths()[0].vertices.tobytes()) for c in axes.collections}
    assert len(looks) == 61


def test_tsne_of_equal_tiny_or_huge_embeddings(tmp_path):
    """In a separate process, since a crash in sklearn would end this one."""
    code = (
        "import sys, numpy as np\nfrom pathlib import Path\nfrom utils import plots\n"
        "offsets = lambda figure: figure.axes[0].collections[0].get_offsets()\n"
        "plots.plt.close = lambda figure: print(np.ptp(offsets(figure), axis=0).max() > 0)\n"
        "x = np.arange(32.0).reshape(8, 4) ** 1.5\n"
        "for each in (1.1 + 0 * x, 1e-30 * x, 1e36 * x):\n"
        "    plots.plot_tsne(Path(sys.argv[1]), each.astype(np.float32), np.zeros(8, int), ['a', 'b'], 't')\n"
    )
    path = tmp_path / "t.png"
    result = subprocess.run([sys.executable, "-c", code, path], cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "False\nTrue\nTrue\n", "")
    assert is_png(path)


def test_topk_grid_of_many_k_is_bounded(tmp_path, figures):
    index = pd.MultiIndex.from_product([range(1, 25), range(1, 23)], names=["k_text", "k_audio"])
    summary = pd.DataFrame({"seeds": 1, "val_w_f1_mean": 0.5, "test_w_f1_mean": 0.4}, index=index)
    plots.plot_topk_grid(tmp_path / "g.png", summary, 1, summary.loc[7, 8], None, "title")
    axes = figures[0].axes[0]
    assert axes.images[0].get_array().shape == (24, 22) and not axes.texts
    assert [t.get_text() for t in axes.get_xticklabels()] == [str(k) for k in range(1, 23, 2)]
    assert max(plt.imread(tmp_path / "g.png").shape) < 3800


def test_an_explanation_shows_answers_and_neighbours_in_the_colours_of_the_classes(tmp_path, figures):
    answers = {"answer": (0.7, 0.1, 0.2), "without text": (0.2, 0.5, 0.3)}
    attention = [("itself", 0.6, None), ("a.wav", 0.3, 2), ("b.wav", 0.1, 0)]
    plots.plot_explanation(tmp_path / "e.png", answers, attention, ("x", "y", "z"), "title")
    shares, neighbors = figures[0].axes
    bars = [(bar.get_y() + 0.4, bar.get_x(), bar.get_width(), bar.get_facecolor()) for bar in shares.patches]
    colors = [(*color, 1.0) for color in plots.COLORS[:3]]
    expected = [
        (row, 100 * sum(values[:label]), 100 * values[label], color)
        for label, color in enumerate(colors)
        for row, values in enumerate(answers.values())
    ]
    for found, wanted in zip(bars, expected, strict=True):
        assert found[:3] == pytest.approx(wanted[:3])
        assert found[3] == wanted[3]
    assert [round(bar.get_width(), 6) for bar in neighbors.patches] == [60, 30, 10]
    assert [bar.get_facecolor() for bar in neighbors.patches[1:]] == [colors[2], colors[0]]
    assert [tick.get_text() for tick in neighbors.get_yticklabels()] == ["itself", "a.wav", "b.wav"]
    assert [text.get_text() for text in figures[0].legends[0].get_texts()] == ["x", "y", "z"]
    assert is_png(tmp_path / "e.png")


def test_reliability_shows_accuracy_and_utterances_of_each_bin(tmp_path, figures):
    of_bins = np.array([[0, 6, 0, 2], [0, 2.4, 0, 2.0], [0, 3, 0, 2]])  # utterances, confidence, correct
    plots.plot_reliability(tmp_path / "r.png", {"plain": of_bins, "at T": of_bins}, "title")
    top, other, bottom, _ = figures[0].axes
    assert [(round(bar.get_x() + bar.get_width() / 2, 1), bar.get_height()) for bar in top.patches] == [
        (37.5, 50.0),
        (87.5, 100.0),
    ]
    assert np.allclose(top.lines[1].get_xydata(), [[40, 50], [100, 100]])
    assert [bar.get_height() for bar in bottom.patches] == [0, 75, 0, 25]
    assert (top.get_title(), other.get_title()) == ("plain", "at T")
    assert [axes.get_ylabel() for axes in (top, bottom)] == ["accuracy (%)", "utterances (%)"]
    assert bottom.get_xlabel() == "confidence: highest probability (%)"
    assert is_png(tmp_path / "r.png")


def test_risk_over_coverage_ends_at_the_error_rate_of_all(tmp_path, figures):
    risks = {"seed 1": np.array([0, 0.5, 1 / 3, 0.5]), "seed 2": np.zeros(4)}
    plots.plot_risk_coverage(tmp_path / "r.png", risks, "title")
    (axes,) = figures[0].axes
    curve, random, end = axes.lines[:3]
    assert np.allclose(curve.get_xydata(), [[25, 0], [50, 50], [75, 100 / 3], [100, 50]])
    assert random.get_ydata() == [50, 50] and random.get_linestyle() == ":"
    assert end.get_xydata().tolist() == [[100, 50]]
    entries = [t.get_text() for t in axes.get_legend().get_texts()]
    assert entries[:2] == ["seed 1: area 33.33 %", "seed 2: area 0.00 %"]
    assert is_png(tmp_path / "r.png")


def test_training_curves_mark_the_selected_epoch(tmp_path, figures):
    path = tmp_path / "l.png"
    log = [
        {"epoch": e, "train_loss": 1 / e, "val_loss": 2 / e, "val_w_f1": s} for e, s in ((1, 0.2), (2, 0.6), (3, 0.4))
    ]
    plots.plot_training_curves(path, {"seed 42": log, "seed 7": log}, {"seed 42": 2, "seed 7": 2}, "title")
    loss, score = figures[0].axes
    marked = [line.get_xydata().tolist() for line in score.lines if line.get_marker() == "o"]
    assert marked == [[[2.0, 60.0]], [[2.0, 60.0]]]
    assert [t.get_text() for t in score.get_legend().get_texts()] == ["seed 42", "seed 7"]
    assert loss.get_xlabel() == "epoch"
    assert "nats" in loss.get_ylabel()
    assert is_png(path)


def test_topk_grid_shows_no_cell_that_lacks_a_seed(tmp_path, figures):
    summary = pd.DataFrame({"k_text": [1, 1], "k_audio": [2, 8], "seeds": [3, 2]})
    summary = summary.assign(val_w_f1_mean=[0.5, 0.9], test_w_f1_mean=[0.4, 0.9]).set_index(["k_text", "k_audio"])
    plots.plot_topk_grid(tmp_path / "g.png", summary, 3, None, None, "title")
    assert [[t.get_text() for t in axes.texts] for axes in figures[0].axes[:2]] == [["50.0", "–"], ["40.0", "–"]]


def test_topk_grid_shows_every_cell_and_marks_two(tmp_path, figures):
    cells = [(1, 2, 0.5, 0.1), (1, 8, 0.6, 0.2), (7, 2, 0.7, np.nan), (7, 8, 0.8, 0.4)]
    summary = pd.DataFrame(cells, columns=["k_text", "k_audio", "val_w_f1_mean", "test_w_f1_mean"]).assign(seeds=3)
    summary = summary.set_index(["k_text", "k_audio"])
    path = tmp_path / "g.png"
    plots.plot_topk_grid(path, summary, 3, summary.loc[1, 8], summary.loc[7, 8], "title")
    validation, test = figures[0].axes[:2]
    assert [(*t.get_position(), t.get_text()) for t in validation.texts] == [
        (0, 0, "50.0"),
        (1, 0, "60.0"),
        (0, 1, "70.0"),
        (1, 1, "80.0"),
    ]
    assert [t.get_text() for t in validation.get_yticklabels()] == ["1", "7"]
    assert [t.get_text() for t in test.texts] == ["10.0", "20.0", "–", "40.0"]
    for axes in (validation, test):
        assert [t.get_text() for t in axes.get_xticklabels()] == ["2", "8"]
        middles = [(round(p.get_x() + p.get_width() / 2), round(p.get_y() + p.get_height() / 2)) for p in axes.patches]
        assert middles == [(1, 0), (1, 1)]
    assert [t.get_text() for t in figures[0].legends[0].get_texts()] == [
        "best on validation: k_text 1, k_audio 8",
        "the paper's best: k_text 7, k_audio 8",
    ]
    assert is_png(path)


def test_the_interval_of_an_accuracy_ends_at_100_and_that_of_a_change_need_not(tmp_path, figures):
    table = pd.DataFrame({"mean": [98.0, 99.0], "over_seeds": [1.0, 4.0], "over_both": [2.0, 5.0]}, index=["a", "b"])
    plots.plot_steps(tmp_path / "s.png", table, table - [98, 0, 0], "title")
    level, change = (axes.get_xlim() for axes in figures[0].axes)
    assert 90 < level[0] < 94 and level[1] == 100
    assert change[0] < -4
