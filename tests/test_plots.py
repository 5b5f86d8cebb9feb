import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from utils import plots


@pytest.fixture
def figures(monkeypatch):
    """The figures that were saved, kept open for a look at what they hold."""
    saved = []
    monkeypatch.setattr(plots.plt, "close", saved.append)
    yield saved
    monkeypatch.undo()
    plt.close("all")


def is_png(path) -> bool:
    return path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_confusion_shows_shares_of_the_true_class_and_counts(tmp_path, figures):
    path = tmp_path / "c.png"
    plots.plot_confusion(path, [[[3, 1], [0, 0]], [[1, 3], [0, 0]]], ("anger", "joy"), "title")
    axes = figures[0].axes[0]
    assert [t.get_text() for t in axes.texts] == ["50.0%\n(2)", "50.0%\n(2)", "0.0%\n(0)", "0.0%\n(0)"]
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
