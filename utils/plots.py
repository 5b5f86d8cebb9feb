"""Figures as PNG and PDF: training curves, confusion matrix, t-SNE, calibration, the Top-K grid, effects,
explanations."""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib

matplotlib.use("Agg")  # no display is needed

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.image import AxesImage
from matplotlib.patheffects import withStroke

from utils.io import atomic_write

if TYPE_CHECKING:
    import pandas as pd

    from utils.statistics import Clustered

matplotlib.rcParams.update({"text.parse_math": False, "text.usetex": False})  # a name with $ or \ is not a formula
matplotlib.rcParams["pdf.fonttype"] = 42  # keep text as text in PDFs

COLORS = plt.get_cmap("tab10").colors
MARKERS = "osD^vP*Xph"
# Limits that keep a figure readable, and its pixels in memory, for any number of classes, seeds or cells
LARGEST_SIDE = 22.0  # inches
NUMBERED = 20  # rows or columns of a heat map with numbers in its cells, and curves with names
TICKS = 100  # labels of an axis that do not overlap
CELLS = 1000  # cells along a side that can be told apart
ENTRIES = 60  # of a legend of classes
TSNE_LEAST = 100  # utterances; with fewer, the picture shows the method and its seed more than the embeddings


def plot_training_curves(
    path: Path, curves: dict[str, list[dict]], selected: dict[str, int], title: str, metric: str = "w_f1"
) -> None:
    """Losses, and a validation metric with the selected epochs marked.

    Args:
        curves: the log of each seed, or of a fine-tuning, by name. The validation loss may be None.
        selected: the selected epoch by name.
        metric: a key of the logs without ``val_``.
    """
    figure, (loss, score) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for i, (name, log) in enumerate(curves.items()):
        color, epoch = COLORS[i % len(COLORS)], [line["epoch"] for line in log]
        values = [100 * line[f"val_{metric}"] for line in log]
        loss.plot(epoch, [line["train_loss"] for line in log], color=color)
        if log[0]["val_loss"] is not None:
            loss.plot(epoch, [line["val_loss"] for line in log], color=color, linestyle="--")
        score.plot(epoch, values, color=color, label=short_name(name) if i < NUMBERED else None)
        score.plot(selected[name], values[selected[name] - 1], "o", color=color, markeredgecolor="black")
    if len(curves) > NUMBERED:
        score.plot([], [], " ", label=f"and {len(curves) - NUMBERED} more")
    loss.plot([], [], color="grey", label="train (dropout and label smoothing as configured)")
    loss.plot([], [], color="grey", linestyle="--", label="val (plain)")
    label = {"w_f1": "w-F1", "ua": "UA"}[metric]
    _label(loss, "epoch", "cross entropy (nats)", "Loss")
    _label(score, "epoch", f"validation {label} (%)", f"Validation {label}, evaluated epoch marked")
    for axes in (loss, score):
        axes.xaxis.get_major_locator().set_params(integer=True)
    save_figure(figure, path, title)


def plot_confusion(path: Path, confusions: Sequence[Sequence], class_names: Sequence[str], title: str) -> None:
    """Shares of each true class and counts of utterances, both pooled over the seeds.

    Above :data:`NUMBERED` classes, there are only colours. Above :data:`CELLS`, each cell covers several classes.
    """
    pool = math.ceil(len(class_names) / CELLS)
    first = np.arange(0, len(class_names), pool)  # class of each cell
    counts = np.sum([_pooled(confusion, first) for confusion in confusions], axis=0)
    support = counts.sum(1, keepdims=True)
    shares = 100 * counts / np.where(support > 0, support, 1)
    numbered = len(first) <= NUMBERED
    side = min(2.6 + (0.95 if numbered else 0.2) * len(first), LARGEST_SIDE)
    figure, axes = plt.subplots(figsize=(side + 0.8, side), layout="constrained")
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    ticks = range(0, len(first), math.ceil(len(first) / TICKS))
    names = [short_name(class_names[first[tick]]) for tick in ticks]
    axes.set_xticks(ticks, names, rotation=30 if numbered else 90, ha="right" if numbered else "center")
    axes.set_yticks(ticks, names)
    for i, j in np.ndindex(shares.shape if numbered else (0, 0)):
        color = "white" if shares[i, j] > 55 else "black"
        axes.text(j, i, f"{shares[i, j]:.1f}%\n({counts[i, j]})", ha="center", va="center", color=color)
    note = "" if pool == 1 else f" (cells of {pool} classes, each named after its first)"
    axes.set(xlabel=f"predicted emotion{note}", ylabel=f"true emotion{note}")
    figure.colorbar(image, fraction=0.046, label="share of the true class (%)")
    save_figure(figure, path, title)


def _pooled(confusion: Sequence[Sequence], first: np.ndarray) -> np.ndarray:
    """Sums over cells of classes, row by row to avoid copying a large matrix. ``first``: first class of each cell."""
    return np.add.reduceat([np.add.reduceat(row, first) for row in confusion], first)


def plot_tsne(path: Path, embeddings: np.ndarray, labels: np.ndarray, class_names: Sequence[str], title: str) -> None:
    """t-SNE of the classifier's last hidden layer [N, D], N at least 4, coloured by true class.

    Above :data:`ENTRIES` classes, those with the fewest utterances are grey. Equal embeddings are one point.
    """
    from sklearn.manifold import TSNE  # takes a second to import, which no other figure needs

    offsets = embeddings.astype(float) - embeddings[0]
    spread = np.abs(offsets).max()
    points = np.zeros((len(embeddings), 2))
    if spread > 0:  # sklearn crashes without spread, and squares overflow float32 at 1e20
        perplexity = min(30, (len(embeddings) - 1) / 3)
        points = TSNE(perplexity=perplexity, init="pca", random_state=42).fit_transform(offsets / spread)
    counts = np.bincount(labels, minlength=len(class_names))
    shown = np.sort(np.argsort(-counts, kind="stable")[:ENTRIES])
    handles, names = [], [f"{short_name(class_names[i])} ({counts[i]})" for i in shown]
    rows = math.ceil((len(shown) + 1) / 3)
    figure, axes = plt.subplots(figsize=(7, 6.4 + 0.22 * rows), layout="constrained")
    if len(shown) < len(counts):
        others = ~np.isin(labels, shown)
        handles.append(axes.scatter(*points[others].T, s=12, color="lightgrey"))
        names.insert(0, f"{len(counts) - len(shown)} other classes ({others.sum()})")
    for i, label in enumerate(shown):
        tens, ones = divmod(i, len(COLORS))  # no two classes share both colour and marker
        style = {"color": COLORS[ones], "marker": MARKERS[(ones + tens) % len(MARKERS)], "edgecolor": "white"}
        handles.append(axes.scatter(*points[labels == label].T, s=28, alpha=0.8, linewidth=0.4, **style))
    axes.set(xlabel="t-SNE 1 (no unit)", ylabel="t-SNE 2 (no unit)")
    axes.legend(
        handles, names, title="true emotion (utterances)", loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3
    )
    note = "" if spread > 0 else ", the same for every utterance"
    save_figure(figure, path, f"{title}\nlast hidden layer of the classifier{note}")


def plot_reliability(path: Path, diagrams: dict[str, np.ndarray], title: str) -> None:
    """Accuracy over confidence, and below it the share of utterances in each bin.

    Args:
        diagrams: by name, utterances, summed confidence and correct predictions in each of B equal-width bins, [3, B].
    """
    size = (1.2 + 4.4 * len(diagrams), 5.6)
    layout = {"sharex": True, "sharey": "row", "squeeze": False, "height_ratios": (3, 1), "layout": "constrained"}
    figure, panels = plt.subplots(2, len(diagrams), figsize=size, **layout)
    for (name, (count, confidence, correct)), top, bottom in zip(diagrams.items(), *panels, strict=True):
        width, filled = 100 / len(count), count > 0
        middle = width * (np.arange(len(count)) + 0.5)
        x, y = (100 * each[filled] / count[filled] for each in (confidence, correct))
        bars = {"width": width, "edgecolor": "white"}
        top.bar(middle[filled], y, color=COLORS[0], alpha=0.45, label="accuracy of the bin", **bars)
        top.plot([0, 100], [0, 100], "k--", linewidth=1, label="calibrated: accuracy = confidence")
        top.plot(x, y, "o", color=COLORS[3], clip_on=False, label="accuracy at the bin's mean confidence")
        bottom.bar(middle, 100 * count / count.sum(), color="grey", **bars)
        top.set(ylabel="accuracy (%)", title=name)
        bottom.set(xlabel="confidence: highest probability (%)", ylabel="utterances (%)")
        top.set(xlim=(0, 100), ylim=(0, 100))
    for axes in panels.flat:
        axes.grid(alpha=0.3)
        axes.label_outer()
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(diagrams))
    save_figure(figure, path, title)


def plot_risk_coverage(path: Path, risks: dict[str, np.ndarray], title: str) -> None:
    """Error rate of the most confident utterances over their share, next to the error rate of random ones.

    Args:
        risks: by name, the error rates of the 1, 2, ... N most confident utterances, [N].
    """
    figure, axes = plt.subplots(figsize=(7, 4.8), layout="constrained")
    for i, (name, risk) in enumerate(risks.items()):
        color, coverage = COLORS[i % len(COLORS)], 100 * np.arange(1, len(risk) + 1) / len(risk)
        label = f"{short_name(name, 40)}: area {100 * risk.mean():.2f} %" if i < NUMBERED else None
        axes.plot(coverage, 100 * risk, color=color, label=label)
        axes.axhline(100 * risk[-1], color=color, linestyle=":", linewidth=1)
        axes.plot(100, 100 * risk[-1], "o", color=color, clip_on=False)
    axes.plot([], [], "o", color="grey", label="every utterance is answered")
    axes.plot([], [], ":", color="grey", label="the same share, chosen at random")
    _label(axes, "coverage: share of utterances, the most confident first (%)", "error rate (%)")
    axes.set(xlim=(0, 100), ylim=(0, None))
    save_figure(figure, path, title)


def plot_explanation(
    path: Path,
    answers: dict[str, Sequence[float]],
    attention: Sequence[tuple[str, float, int | None]],
    class_names: Sequence[str],
    title: str,
) -> None:
    """The probabilities of each answer, stacked, and the attention to each neighbour in the colour of its emotion.

    Args:
        answers: class probabilities by name.
        attention: name, weight and class index (None for the utterance itself), largest first. Empty without graph.
    """
    styles = [{"color": COLORS[i % len(COLORS)], "hatch": "/" * (i // len(COLORS))} for i in range(len(class_names))]
    height = 1.8 + 0.26 * max(len(attention), 2 * len(answers))
    figure, panels = plt.subplots(1, 1 + bool(attention), figsize=(12, height), squeeze=False, layout="constrained")
    shares = 100 * np.array(list(answers.values()))
    names, starts = list(answers), shares.cumsum(1) - shares
    for i, (style, width) in enumerate(zip(styles, shares.T, strict=True)):
        panels[0, 0].barh(names, width, left=starts[:, i], edgecolor="white", **style)
    _label(panels[0, 0], "probability (%)", title="answer, with and without a part")
    panels[0, 0].set_xlim(0, 100)
    for axes in panels[0, 1:]:
        for row, (_, weight, label) in enumerate(attention):
            axes.barh(row, 100 * weight, **({"color": "black"} if label is None else styles[label]))
        axes.set_yticks(range(len(attention)), [short_name(name, 40) for name, *_ in attention])
        _label(axes, "attention, mean over layers (%)", title="neighbours, in the colour of their emotion")
    for axes in panels.flat:
        axes.invert_yaxis()
    handles = [plt.Rectangle((0, 0), 1, 1, label=short_name(n), **s) for n, s in zip(class_names, styles, strict=True)]
    figure.legend(handles=handles[:ENTRIES], loc="outside lower center", ncols=min(len(handles), 8))
    save_figure(figure, path, title)


def plot_topk_grid(
    path: Path, summary: "pd.DataFrame", seeds: int, best: "pd.Series | None", paper: "pd.Series | None", title: str
) -> None:
    """Heat maps over k_text x k_audio (Fig. 2): validation w-F1, which selects the trial, and test w-F1.

    Args:
        summary: one row per trial, indexed by k, from :func:`utils.sweep.results.summary_table`.
        seeds: trials with fewer are shown as missing.
        best, paper: rows of ``summary``.
    """
    k_texts, k_audios = (list(level) for level in summary.index.levels)
    marks = (("best on validation", best, "red", "-", 0.92), ("the paper's best", paper, "black", "--", 0.78))
    size = 4.5 + 1.05 * max(len(k_audios), 3), 2.4 + 0.42 * max(len(k_texts), 3)
    size = [min(side, LARGEST_SIDE) for side in size]
    figure, both = plt.subplots(1, 2, figsize=size, sharey=True, layout="constrained")
    for axes, (split, name) in zip(both, (("val", "validation"), ("test", "test")), strict=True):
        means = summary[f"{split}_w_f1_mean"].where(summary["seeds"] >= seeds)
        image = _heat_map(axes, 100 * means.unstack().to_numpy(float))
        figure.colorbar(image, ax=axes)
        for axis, values in ((axes.xaxis, k_audios), (axes.yaxis, k_texts)):
            step = math.ceil(len(values) / NUMBERED)
            axis.set_ticks(range(0, len(values), step), values[::step])
        axes.set(xlabel="k_audio (neighbours)", ylabel="k_text (neighbours)", title=f"{name} w-F1 (%)")
        for of_trial, trial, color, style, side in marks:
            if trial is None:
                continue
            k_text, k_audio = trial.name
            corner = (k_audios.index(k_audio) - side / 2, k_texts.index(k_text) - side / 2)
            frame = plt.Rectangle(corner, side, side, fill=False, edgecolor=color, linestyle=style, linewidth=2.5)
            frame.set(label=f"{of_trial}: k_text {k_text}, k_audio {k_audio}")
            frame.set_path_effects([withStroke(linewidth=5, foreground="white")])  # visible on every colour
            axes.add_patch(frame)
    columns = 1 if len(k_audios) < 4 else 2
    figure.legend(handles=list(both[0].patches), loc="outside lower center", ncols=columns)
    save_figure(figure, path, title if seeds == 1 else f"{title}, mean over seeds")


def _heat_map(axes: plt.Axes, values: np.ndarray) -> AxesImage:
    """Numbers on colours; a dash on grey for NaN. Above :data:`NUMBERED` rows or columns, only colours."""
    axes.set_facecolor("lightgrey")
    image = axes.imshow(values, cmap="viridis", origin="lower", aspect="auto")
    for (i, j), value in np.ndenumerate(values if max(values.shape) <= NUMBERED else []):
        color = "white" if image.norm(value) < 0.6 else "black"
        axes.text(j, i, f"{value:.1f}" if np.isfinite(value) else "–", ha="center", va="center", color=color)
    return image


def plot_steps(path: Path, levels: "pd.DataFrame", changes: "pd.DataFrame", title: str) -> None:
    """WA after each ablation step and its change by the step, with 95 % intervals.

    Args:
        levels, changes: one row per step, indexed by title: ``mean`` and the half widths ``over_seeds`` and
            ``over_both``, in points. A change may be NaN.
    """
    size = (13, 1.6 + 0.42 * len(levels))
    figure, panels = plt.subplots(1, 2, figsize=size, sharey=True, layout="constrained")
    for axes, shown in zip(panels, (levels, changes), strict=True):
        y = range(len(shown))
        axes.errorbar(shown["mean"], y, xerr=shown["over_both"], fmt="none", color=COLORS[0], alpha=0.45, capsize=3)
        axes.errorbar(shown["mean"], y, xerr=shown["over_seeds"], fmt="o", color=COLORS[0], linewidth=3)
    level, change = panels
    _label(level, "test WA (%)", title="after the step")
    _label(change, "change in test WA (points)", title="change by the step")
    change.axvline(0, color="black", linewidth=1)
    left, right = level.get_xlim()
    level.set_xlim(max(left, 0), min(right, 100))  # the limits of an accuracy; a half width may exceed them
    level.set_yticks(range(len(levels)), levels.index)
    level.invert_yaxis()
    save_figure(figure, path, f"{title}\n95 % intervals: thick over seeds, thin over seeds and test set")


def plot_homophily(
    path: Path, gains: dict[str, "pd.DataFrame"], possible: dict[float, float], real: dict[str, float], title: str
) -> None:
    """CH-GAT's gain in WA over the homophily of DEMO's test graph.

    Args:
        gains: by profile, indexed by homophily: ``mean`` and the half width ``over_both``, in points.
        possible: Bayes-optimal gain in points by homophily.
        real: homophily of the real test graphs, by dataset.
    """
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for i, (profile, shown) in enumerate(gains.items()):
        x = shown.index + 0.004 * (i - (len(gains) - 1) / 2)  # so that intervals do not overlap
        style = {"fmt": "o-", "color": COLORS[i], "capsize": 3, "label": f"profile {profile}"}
        axes.errorbar(x, shown["mean"], yerr=shown["over_both"], **style)
    axes.plot(possible.keys(), possible.values(), "k--", label="Bayes-optimal: whole scene over utterance alone")
    axes.axhline(0, color="black", linewidth=1)
    for color, (dataset, value) in zip(COLORS[4:], real.items(), strict=False):
        axes.axvline(value, color=color, linestyle=":", label=f"homophily of {short_name(dataset)}'s test graph")
    _label(axes, "homophily of the test graph (share of edges between equal labels)", "gain in WA (points)")
    save_figure(figure, path, title)


def plot_folds(path: Path, levels: dict[str, dict[str, "Clustered"]], rows: Sequence[str], title: str) -> None:
    """WA of the rows of a cross-validation with their 95 % intervals, one colour per protocol.

    Args:
        levels: WA in percent by protocol and row; a row may be missing.
        rows: titles from top to bottom.
    """
    figure, axes = plt.subplots(figsize=(9, 1.8 + 0.42 * len(rows)), layout="constrained")
    for i, (protocol, of_protocol) in enumerate(levels.items()):
        for row, level in of_protocol.items():
            y = rows.index(row) + 0.16 * (i - (len(levels) - 1) / 2)
            sides = None if level.low is None else [[level.value - level.low], [level.high - level.value]]
            style = {"fmt": MARKERS[i], "color": COLORS[i], "capsize": 3}
            label = protocol if row == next(iter(of_protocol)) else None
            axes.errorbar(level.value, y, xerr=sides, label=label, **style)
    axes.set(xlabel="WA (%), 95 % intervals")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center")
    axes.set_yticks(range(len(rows)), [short_name(row, 40) for row in rows])
    axes.invert_yaxis()
    save_figure(figure, path, title)


def _label(axes: plt.Axes, xlabel: str, ylabel: str = "", title: str = "") -> None:
    """Name the axes of a panel, and add its grid and its legend, if any."""
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    axes.grid(alpha=0.3)
    if handles := axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, ncols=math.ceil(len(handles) / 12))


def save_figure(figure: plt.Figure, path: Path, title: str) -> None:
    """Write a figure atomically as the PNG ``path`` and as a PDF next to it, and close it."""
    figure.suptitle("\n".join(short_name(line, 120) for line in title.split("\n")))
    figure.draw_without_rendering()  # computes the layout once for both files
    figure.set_layout_engine("none")
    box = figure.get_tightbbox().padded(0.1)
    drawn = {}
    for suffix, metadata in ((".pdf", {"CreationDate": None}), (".png", {})):  # if the PNG exists, both do
        buffer = io.BytesIO()
        figure.savefig(buffer, format=suffix[1:], dpi=150, bbox_inches=box, metadata=metadata)
        drawn[path.with_suffix(suffix)] = buffer.getvalue()
    plt.close(figure)
    for file, data in drawn.items():
        atomic_write(file, data)


def short_name(name: str, most: int = 24) -> str:
    """A name as a figure shows it: one line of at most ``most`` characters. A longer name keeps both ends."""
    half = (most - 1) // 2
    name = name if len(name) <= most else f"{name[:half]}…{name[-half:]}"
    return "".join(c if c.isprintable() else "?" for c in name)
