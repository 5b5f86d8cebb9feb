"""Figures, as PNGs: training curves, fine-tuning curves, confusion matrix, t-SNE, the Top-K grid."""

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # no display is needed, or looked for

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.patheffects import withStroke
from sklearn.manifold import TSNE

from utils.files import atomic_write

COLORS = plt.get_cmap("tab10").colors
MARKERS = "osD^vP*Xph"


def plot_training_curves(path: Path, curves: dict[int, list[dict]], selected: dict[int, int], title: str) -> None:
    """Loss, and validation w-F1 with each seed's chosen epoch marked. ``curves``: the log of each seed."""
    figure, (loss, score) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for color, (seed, log) in zip(_cycle(COLORS, len(curves)), curves.items(), strict=True):
        epoch = [line["epoch"] for line in log]
        w_f1 = [100 * line["val_w_f1"] for line in log]
        loss.plot(epoch, [line["train_loss"] for line in log], color=color)
        loss.plot(epoch, [line["val_loss"] for line in log], color=color, linestyle="--")
        score.plot(epoch, w_f1, color=color, label=f"seed {seed}")
        score.plot(selected[seed], w_f1[selected[seed] - 1], "o", color=color, markeredgecolor="black")
    loss.plot([], [], color="grey", label="train (dropout and label smoothing as configured)")
    loss.plot([], [], color="grey", linestyle="--", label="val (plain)")
    loss.set(xlabel="epoch", ylabel="cross entropy (nats)", title="Loss")
    score.set(xlabel="epoch", ylabel="validation w-F1 (%)", title="Validation w-F1, evaluated epoch marked")
    for axes in (loss, score):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    save_figure(figure, path, title)


def plot_finetuning(path: Path, log: list[dict], selected: int, title: str) -> None:
    """Loss, and validation WA and UA with the chosen epoch marked."""
    figure, (loss, score) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    epoch = [line["epoch"] for line in log]
    loss.plot(epoch, [line["train_loss"] for line in log], "o-", markersize=3, label="train")
    if log[0]["val_loss"] is not None:
        loss.plot(epoch, [line["val_loss"] for line in log], "o--", markersize=3, label="val")
    for name, style in (("ua", "-"), ("wa", ":")):
        score.plot(epoch, [100 * line[f"val_{name}"] for line in log], style, label=f"val {name.upper()}")
    score.plot(selected, 100 * log[selected - 1]["val_ua"], "o", color=COLORS[0], markeredgecolor="black")
    loss.set(xlabel="epoch", ylabel="loss (nats)", title="Loss (training: with dropout)")
    score.set(xlabel="epoch", ylabel="percent", title="Validation, chosen epoch marked")
    for axes in (loss, score):
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    save_figure(figure, path, title)


def plot_confusion(path: Path, confusions: Sequence[Sequence], class_names: Sequence[str], title: str) -> None:
    """Shares of each true class, over all seeds, with the mean count of utterances a seed below them."""
    counts = np.mean(confusions, axis=0)
    support = counts.sum(1, keepdims=True)
    shares = 100 * counts / np.where(support > 0, support, 1)
    side = 2.6 + 0.95 * len(class_names)
    figure, axes = plt.subplots(figsize=(side + 0.8, side), layout="constrained")
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    ticks = range(len(class_names))
    axes.set_xticks(ticks, class_names, rotation=30, ha="right")
    axes.set_yticks(ticks, class_names)
    for i in ticks:
        for j in ticks:
            color = "white" if shares[i, j] > 55 else "black"
            axes.text(j, i, f"{shares[i, j]:.1f}%\n({counts[i, j]:.4g})", ha="center", va="center", color=color)
    axes.set(xlabel="predicted emotion", ylabel="true emotion")
    figure.colorbar(image, fraction=0.046, label="share of the true class (%)")
    save_figure(figure, path, title)


def plot_tsne(path: Path, embeddings: np.ndarray, labels: np.ndarray, class_names: Sequence[str], title: str) -> None:
    """t-SNE of [N, D] vectors, N at least 4 (perplexity 30, or less where there are few), coloured by true class."""
    perplexity = min(30, (len(embeddings) - 1) / 3)
    points = TSNE(perplexity=perplexity, init="pca", random_state=42).fit_transform(embeddings)
    figure, axes = plt.subplots(figsize=(7, 7), layout="constrained")
    for i, name in enumerate(class_names):
        of_class = points[labels == i]
        axes.scatter(
            *of_class.T,
            s=28,
            alpha=0.8,
            color=COLORS[i % len(COLORS)],
            marker=MARKERS[i % len(MARKERS)],
            edgecolor="white",
            linewidth=0.4,
            label=f"{name} ({len(of_class)})",
        )
    axes.set(xlabel="t-SNE 1 (no unit)", ylabel="t-SNE 2 (no unit)")
    axes.legend(title="true emotion (utterances)", loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3)
    save_figure(figure, path, title)


def plot_topk_grid(
    path: Path, summary: pd.DataFrame, seeds: int, best: pd.Series | None, paper: pd.Series | None, title: str
) -> None:
    """Heat maps over k_text x k_audio (Fig. 2): validation w-F1, which chooses the cell, and test w-F1.

    Args:
        summary: a row a cell, from :func:`utils.sweep.results.summary_table`.
        seeds: those with fewer are shown as not there.
        best, paper: rows of ``summary``.
    """
    k_texts, k_audios = (sorted(summary[name].unique()) for name in ("k_text", "k_audio"))
    marks = [
        (name, (int(cell["k_text"]), int(cell["k_audio"])), color, style, side)
        for name, cell, color, style, side in (
            ("best on validation", best, "red", "-", 0.92),
            ("the paper's best", paper, "black", "--", 0.78),
        )
        if cell is not None
    ]
    size = 4.5 + 1.05 * max(len(k_audios), 3), 2.4 + 0.42 * max(len(k_texts), 3)
    figure, both = plt.subplots(1, 2, figsize=size, sharey=True, layout="constrained")
    for axes, (split, name) in zip(both, (("val", "validation"), ("test", "test")), strict=True):
        means = summary.pivot(index="k_text", columns="k_audio", values=f"{split}_w_f1_mean")
        finished = summary.pivot(index="k_text", columns="k_audio", values="seeds") >= seeds
        values = 100 * means.where(finished).to_numpy(float)
        axes.set_facecolor("lightgrey")  # where a seed failed, or is missing
        image = axes.imshow(values, cmap="viridis", origin="lower", aspect="auto")
        for (i, j), value in np.ndenumerate(values):
            color = "white" if image.norm(value) < 0.6 else "black"
            axes.text(j, i, f"{value:.1f}" if np.isfinite(value) else "–", ha="center", va="center", color=color)
        for _, (k_text, k_audio), color, style, side in marks:
            corner = (k_audios.index(k_audio) - side / 2, k_texts.index(k_text) - side / 2)
            frame = plt.Rectangle(corner, side, side, fill=False, edgecolor=color, linestyle=style, linewidth=2.5)
            frame.set_path_effects([withStroke(linewidth=5, foreground="white")])  # seen on every colour
            axes.add_patch(frame)
        axes.set_xticks(range(len(k_audios)), k_audios)
        axes.set_yticks(range(len(k_texts)), k_texts)
        axes.set(xlabel="k_audio (neighbours)", ylabel="k_text (neighbours)", title=f"{name} w-F1 (%)")
        figure.colorbar(image, ax=axes)
    lines = [
        plt.Line2D(
            [], [], color=color, linestyle=style, linewidth=2.5, label=f"{name}: k_text {k_text}, k_audio {k_audio}"
        )
        for name, (k_text, k_audio), color, style, _ in marks
    ]
    figure.legend(handles=lines, loc="outside lower center", ncols=1 if len(k_audios) < 4 else 2)
    save_figure(figure, path, f"{title}, mean over seeds")


def _cycle(colors: Sequence, count: int) -> list:
    return [colors[i % len(colors)] for i in range(count)]


def save_figure(figure: plt.Figure, path: Path, title: str) -> None:
    """Close a figure, and write it whole or not at all."""
    figure.suptitle(title)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, bbox_inches="tight")
    plt.close(figure)
    atomic_write(path, buffer.getvalue())
