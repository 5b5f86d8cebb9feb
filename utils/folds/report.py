"""The report of a cross-validation: tables with intervals clustered by speaker, figures, pooled predictions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.config import Config, display_name
from utils.folds.protocol import Pool, Protocol
from utils.folds.run import Row, pooled
from utils.io import align, atomic_write, markdown_table, write_json
from utils.plots import plot_confusion, plot_folds
from utils.statistics import Clustered, cluster_counts, clusters_of, with_interval
from utils.training.graph import top_k_neighbors
from utils.training.groups import group_lines, group_results, write_groups
from utils.training.metrics import METRICS, metric_over_seeds
from utils.training.predictions import write_pooled
from utils.training.scores import Scored

MISSING = "missing"
FEW = 10  # with fewer speakers, the report adds a warning


@dataclass(frozen=True)
class RowResult(Scored):
    """The predictions of one table row for all utterances of a protocol."""

    row: Row
    protocol: Protocol
    seeds: tuple[int, ...]

    def over_folds(self, metric: str) -> tuple[float, float]:
        """Mean and sample standard deviation in percent over the folds; each fold has its mean over the seeds."""
        found, of_fold = self.predictions, self.protocol.fold - 1
        counts = cluster_counts(found.label, found.prediction, of_fold, len(found.class_names))
        values = [100 * metric_over_seeds(metric)(each) for each in counts]
        return float(np.mean(values)), float(np.std(values, ddof=1))

    def to_dict(self) -> dict:
        """All values of the tables, for ``results.json``."""
        folds = {name: dict(zip(("mean", "std"), self.over_folds(name), strict=True)) for name in METRICS}
        kind, _ = self.clusters
        return {
            "row": self.row.title,
            "protocol": self.protocol.title,
            "seeds": list(self.seeds),
            "utterances": len(self.predictions),
            "clusters": kind,
            "class_names": list(self.predictions.class_names),
            "pooled": {name: vars(self.estimate(name)) for name in METRICS},
            "over_folds": folds,
            "confusion": self.counts.sum((0, 1)).tolist(),
        }


Results = dict[str, dict[str, RowResult]]  # by protocol.by, then by the row's title


def collect(protocols: Sequence[Protocol], rows: Sequence[Row], seeds: Sequence[int]) -> Results:
    """Collect the finished rows of each protocol, and write their ``results.json`` and ``predictions.csv``."""
    results: Results = {}
    for protocol in protocols:
        results[protocol.by] = {}
        for row in rows:
            if (found := pooled(row, protocol, seeds)) is not None:
                result = RowResult(found, row, protocol, tuple(row.seeds(seeds)))
                write_json(found.path / "results.json", result.to_dict())
                write_pooled(found.path / "predictions.csv", found, result.seeds, protocol.fold)
                results[protocol.by][row.title] = result
    return results


def write_report(protocols: Sequence[Protocol], rows: Sequence[Row], seeds: Sequence[int]) -> str:
    """Write ``report.md`` with its figures, and the results of every row. Returns the text to print."""
    results, folder = collect(protocols, rows, seeds), rows[0].folder(protocols[0])
    name = display_name(protocols[0].pool.dataset)
    sections = [
        f"# {name}: cross-validation",
        reading(protocols, seeds),
        *tables(protocols, rows, results, rows[0].title),
    ]
    near = neighbors(protocols[0].pool, rows[0].source)
    printed = ["", *tables(protocols, rows, results, rows[0].title, as_text=True), near]
    figures = draw(protocols, rows, results, folder)
    sections.append(near)
    sections += [f"![{each.stem}]({each.name})" for each in figures]
    if main := results[protocols[0].by].get(rows[0].title):
        found = main.predictions
        groups = group_results(found.identity, found.label, found.prediction, found.class_names)
        write_groups(folder / "groups.csv", groups)
        lines = "\n".join(group_lines(groups, "groups.csv")).strip()
        sections.append(f"## Results by group: {main.row.title}, {main.protocol.title}\n\n```\n{lines}\n```")
        printed.append(lines)
    atomic_write(folder / "report.md", ("\n\n".join(sections) + "\n").encode())
    printed.append(
        f"saved in {folder}: report.md, results.json, predictions.csv, figures; folds.csv in its parent folder"
    )
    return "\n\n".join(printed)


def reading(protocols: Sequence[Protocol], seeds: Sequence[int]) -> str:
    """Explain how to read the numbers."""
    kind, cluster = clusters_of(protocols[0].pool.features.identity)
    count = int(cluster.max()) + 1
    text = (
        f"Each of the {len(cluster)} utterances is tested once. WA, UA and F1 are computed over all utterances and "
        f"averaged over the seeds ({', '.join(map(str, seeds))}). The 95 % intervals come from a jackknife that leaves "
        f"out one of {count} {kind}s at a time, and Student's t with {count - 1} degrees of freedom. They hold for "
        "these seeds. The tables also show the other convention, mean ± sample standard deviation over the folds."
    )
    if len(protocols) > 1:
        text += " Random folds divide the same utterances. The optimism is the amount by which they overestimate a row."
    if kind == "speaker" and count < FEW:
        text += f" There are only {count} speakers. Other speakers may differ by more than the intervals suggest."
    return text


def neighbors(pool: Pool, config: Config) -> str:
    """How often an utterance and its Top-K neighbours among all utterances have the same speaker or label."""
    known = {"speaker": pool.groups("speaker"), "label": pool.features.label.numpy()}
    if "" in known["speaker"]:
        del known["speaker"]
    lines = []
    for modality, k in (("text", config.k_text), ("audio", config.k_audio)):
        k = min(k, len(pool.features) - 1)
        nearest = top_k_neighbors(getattr(pool.features, modality), k, config.topk_self).numpy()
        shares = []
        for name, values in known.items():
            _, counts = np.unique(values, return_counts=True)
            same, chance = (values[nearest] == values[:, None]).mean(), ((counts / len(values)) ** 2).sum()
            shares.append(f"{100 * same:.0f} % have the same {name} (by chance: {100 * chance:.0f} %)")
        lines.append(f"Of the {k} nearest neighbours by {modality}, {', '.join(shares)}.")
    return "\n".join(lines)


def tables(
    protocols: Sequence[Protocol], rows: Sequence[Row], results: Results, reference: str, as_text: bool = False
) -> Iterator[str]:
    """The table of the first protocol and, if there is a second one, the table of random folds.

    Args:
        reference: title of the row with which the others are compared.
    """
    first, *others = protocols
    lines = _pooled_table(rows, results[first.by], reference)
    yield _render(f"{first.title}, percent", lines, as_text, best=(1, 2, 3, 4))
    for other in others:
        title = f"{other.title}, percent; optimism of random folds"
        yield _render(title, _optimism_table(rows, results[first.by], results[other.by]), as_text, best=(1,))


def _pooled_table(rows: Sequence[Row], results: dict[str, RowResult], reference: str) -> list[list[str]]:
    lines, first = (
        [["", *METRICS.values(), "WA over folds", "UA over folds", f"Δ WA vs {reference}"]],
        results.get(reference),
    )
    for row in rows:
        if (result := results.get(row.title)) is None:
            lines.append([row.title, MISSING, *[""] * (len(lines[0]) - 2)])
            continue
        over_folds = ("{:.2f} ± {:.2f}".format(*result.over_folds(name)) for name in ("wa", "ua"))
        change = with_interval(result.minus(first, "wa"), sign=True) if first and result is not first else ""
        lines.append([row.title, *(with_interval(result.estimate(name)) for name in METRICS), *over_folds, change])
    return lines


def _optimism_table(rows: Sequence[Row], honest: dict[str, RowResult], random: dict[str, RowResult]) -> list[list[str]]:
    lines = [["", "WA", "UA", "optimism in WA", "optimism in UA"]]
    for row in rows:
        one, other = honest.get(row.title), random.get(row.title)
        if other is None:
            lines.append([row.title, MISSING, "", "", ""])
            continue
        cells = [with_interval(other.estimate(name)) for name in ("wa", "ua")]
        cells += [with_interval(other.minus(one, name), sign=True) if one else MISSING for name in ("wa", "ua")]
        lines.append([row.title, *cells])
    return lines


def _render(title: str, lines: list[list[str]], as_text: bool, best: Sequence[int]) -> str:
    """A table as text or as Markdown. In Markdown, the best value of each column in ``best`` is bold."""
    if as_text:
        return "\n".join([title, *align(lines)])
    header, *body = lines
    for column in best:
        values = [float(line[column].split()[0]) if line[column][:1].isdigit() else -1.0 for line in body]
        if max(values) >= 0:
            body[values.index(max(values))][column] = f"**{body[values.index(max(values))][column]}**"
    return f"## {title}\n\n{markdown_table(header, body)}"


def wa_levels(protocols: Sequence[Protocol], results: Results) -> dict[str, dict[str, Clustered]]:
    """WA of every finished row, by protocol, for :func:`~utils.plots.plot_folds`."""
    return {
        protocol.title: {title: result.estimate("wa") for title, result in results[protocol.by].items()}
        for protocol in protocols
    }


def draw(protocols: Sequence[Protocol], rows: Sequence[Row], results: Results, folder: Path) -> list[Path]:
    """The figures: WA of every row with its interval, and the confusion matrix of the first row."""
    name = display_name(protocols[0].pool.dataset)
    levels = wa_levels(protocols, results)
    figures = []
    if any(levels.values()):
        figures.append(folder / "folds.png")
        plot_folds(figures[-1], levels, [row.title for row in rows], f"{name}: test WA of all utterances")
    if main := results[protocols[0].by].get(rows[0].title):
        figures.append(folder / "confusion_matrix.png")
        title = f"{name}, {main.protocol.title}\n{main.row.title}"
        plot_confusion(figures[-1], main.counts.sum(0), main.predictions.class_names, title)
    return figures
