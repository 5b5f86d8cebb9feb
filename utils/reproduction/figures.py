"""The report's figures that no single run has: the walk between the profiles, and CH-GAT's gain over homophily."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from utils.plots import COLORS, save_figure
from utils.reproduction.statistics import Estimate


def plot_walk(path: Path, steps: dict[str, tuple[Estimate, Estimate | None]], title: str) -> None:
    """WA of each row of the walk and its change to the row before, with 95 % intervals.

    ``steps``: by title, the row's WA and its change; None for the first row.
    """
    figure, (level, change) = plt.subplots(
        1, 2, figsize=(13, 1.6 + 0.42 * len(steps)), sharey=True, layout="constrained"
    )
    place = np.arange(len(steps))
    for axes, column in ((level, 0), (change, 1)):
        for y, estimates in zip(place, steps.values(), strict=True):
            shown = estimates[column]
            if shown is None:
                continue
            axes.errorbar(shown.mean, y, xerr=shown.over_both, color=COLORS[0], alpha=0.45, capsize=3)
            axes.errorbar(shown.mean, y, xerr=shown.over_seeds, fmt="o", color=COLORS[0], linewidth=3)
        axes.grid(alpha=0.3)
    change.axvline(0, color="black", linewidth=1)
    level.set_yticks(place, steps)
    level.invert_yaxis()
    level.set(xlabel="test WA (%)", title="after the step")
    change.set(xlabel="change in test WA (points)", title="what the step changed")
    save_figure(figure, path, f"{title}\n95 % intervals: thick over seeds, thin over seeds and test utterances")


def plot_homophily(
    path: Path,
    gains: dict[str, Sequence[tuple[float, Estimate]]],
    possible: Sequence[tuple[float, float]],
    real: dict[str, float],
    title: str,
) -> None:
    """CH-GAT's gain in WA over the homophily of DEMO's test graph.

    Args:
        gains: by profile, (homophily, gain) of each agreement.
        possible: (homophily, what a scene tells beyond an utterance) of each agreement, in points.
        real: homophily of the real test graphs, by dataset.
    """
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for color, (profile, points) in zip(COLORS, gains.items(), strict=False):
        x, gain = zip(*points, strict=True)
        y, error = [g.mean for g in gain], [g.over_both or 0 for g in gain]
        axes.errorbar(x, y, yerr=error, fmt="o-", color=color, capsize=3, label=f"profile {profile}")
    axes.plot(*zip(*possible, strict=True), "k--", label="Bayes-optimal: whole scene, to utterance alone")
    axes.axhline(0, color="black", linewidth=1)
    for color, (dataset, value) in zip(COLORS[4:], real.items(), strict=False):
        axes.axvline(value, color=color, linestyle=":", label=f"homophily of {dataset}'s test graph")
    axes.set(xlabel="homophily of the test graph (share of edges that join one class)", ylabel="gain in WA (points)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    save_figure(figure, path, title)
