"""The report's sections that the paper has too: Tables I to IV, Fig. 2, and the figures of a profile's own run."""

from pathlib import Path

from utils.config import display_name
from utils.features import SPLITS
from utils.files import atomic_write
from utils.metrics import REPORTED
from utils.paper import OTHER_METHODS, PRINTED, UTTERANCES, printed
from utils.plots import plot_confusion, plot_topk_grid, plot_training_curves
from utils.report import markdown_table
from utils.reproduction.results import MISSING, Result, Rows
from utils.reproduction.statistics import Estimate, bounds, interval, points
from utils.reproduction.study import Study
from utils.runs import SEED_FOLDER


def facts(result: Result, dataset: str) -> str:
    """Sizes, graph, machine and time of the profile's own run."""
    if not result.seeds:
        return f"{MISSING}: no seed is finished"
    description, sizes = result.description, result.sizes
    text = f"{' / '.join(map(str, sizes.values()))} utterances (train / val / test)"
    wanted = UTTERANCES.get(dataset)
    if wanted and sizes != wanted:
        text += f", where the paper has {' / '.join(map(str, wanted.values()))}"
    device = ""
    if result.summary:
        graphs = (f"{split} {100 * result.summary['graphs'][split]['homophily']:.1f}" for split in SPLITS)
        text += f". Homophily of the Top-K graphs (percent of the edges that join one class): {', '.join(graphs)}"
        device = f" on {result.summary['device']}"
    versions = ", ".join(f"{name} {version}" for name, version in description["versions"].items())
    minutes = result.training_seconds / 60
    return f"{text}. {len(result.seeds)} seeds took {minutes:.1f} min{device}; {versions}."


def table(rows: Rows) -> str:
    """A row a configuration, with the difference in WA to the first, and the paper's figures as printed."""
    reference = next(iter(rows.values()))
    papers = {title: printed(result.row.config) for title, result in rows.items()}
    header = ["", *(f"{name} [seeds]" for name in REPORTED.values()), "WA, to the first [seeds and utterances]"]
    lines = [[title, *figures(result), _change(result, reference)] for title, result in rows.items()]
    if any(papers.values()):
        header.append("paper: WA / UA / w-F1")
        for line, values in zip(lines, papers.values(), strict=True):
            line.append(" / ".join(f"{value:.2f}" for value in values.values()) if values else "–")
    return markdown_table(header, lines)


def figures(result: Result) -> list[str]:
    """Mean ± std and interval of each reported figure; the first says so where the row is not finished."""
    if not result.complete:
        return [f"{MISSING} ({len(result.seeds)} of {result.asked} seeds)", *[""] * (len(REPORTED) - 1)]
    return [_with_std(result.estimate(name)) for name in REPORTED]


def _with_std(figure: Estimate) -> str:
    std = "" if figure.std is None else f" ± {figure.std:.2f}"
    return points(figure.mean) + std + bounds(figure, figure.over_seeds)


def _change(result: Result, reference: Result) -> str:
    if result is reference or not (result.complete and reference.complete):
        return ""
    return interval(result.minus(reference), sign=True)


def fig2(study: Study, dataset: str, profile: str) -> str:
    sweep = study.sweeps[dataset, profile]
    title = "**Fig. 2, k_text x k_audio**"
    if not sweep.results:
        return f"{title}\n\n{MISSING}: {sweep.progress}"
    note = f"{' / '.join(map(str, sweep.sizes.values()))} utterances (train / val / test)"
    if not sweep.complete:
        note += f"; {sweep.progress} of the paper's grid are there"
    name = f"{dataset}-{profile}-topk_grid.png"
    plot_topk_grid(
        study.root / "figures" / name, sweep.summary, len(study.seeds), *sweep.marked, f"{dataset}, profile {profile}"
    )
    return f"{title}, {note}\n\n```\n{sweep.report}\n```\n\n![Top-K grid](figures/{name})"


def headline(study: Study, result: Result) -> str:
    """Training curves and confusion matrix of the profile's own run, over the seeds; t-SNE of the first."""
    if not result.complete:
        return f"Training curves, confusion matrix, t-SNE: {MISSING}"
    row, description = result.row, result.description
    begin = f"{row.dataset}-{row.config.profile}"
    curves, confusion, tsne = (f"{begin}-{name}.png" for name in ("training_curves", "confusion_matrix", "tsne"))
    folder, seeds = study.root / "figures", result.seeds
    name = f"{display_name(row.dataset)}, profile {row.config.profile}"
    selected = {seed: metrics["selected_epoch"] for seed, metrics in zip(seeds, result.metrics, strict=True)}
    plot_training_curves(folder / curves, result.curves, selected, name)
    confusions = [metrics["test"]["confusion"] for metrics in result.metrics]
    over = f"mean of {len(seeds)} seeds" if len(seeds) > 1 else f"seed {seeds[0]}"
    plot_confusion(folder / confusion, confusions, description["class_names"], f"{name}, test\n{over}")
    images = [f"![Training curves](figures/{curves})", f"![Confusion matrix](figures/{confusion})"]
    source = tsne_path(row.folder, seeds[0])
    if source.is_file():
        atomic_write(folder / tsne, source.read_bytes())
        images.append(f"![t-SNE](figures/{tsne})")
    else:
        images.append(f"t-SNE: {MISSING}")
    return "\n\n".join(images)


def tsne_path(folder: Path, seed: int) -> Path:
    """Where the t-SNE of a seed is kept in its run folder: with what it shows, so that it goes when that goes."""
    return folder / SEED_FOLDER.format(seed) / "test_tsne.png"


def other_methods(study: Study, dataset: str) -> str:
    """Table III or IV as printed, with our rows after the paper's own."""
    rows = [(name, str(year), modality, wa, ua) for name, year, modality, wa, ua in OTHER_METHODS[dataset]]
    wa, ua, _ = PRINTED[dataset]["min"]
    rows.append(("CemoBAM, as printed", "2025", "audio + text", f"{wa:.2f}", f"{ua:.2f}"))
    for profile in study.profiles:
        result = study.result(study.tables[dataset, profile][0]["MIN"])
        rows.append((f"CemoBAM, here, profile `{profile}`", "", "audio + text", *figures(result)[:2]))
    methods = markdown_table(("method", "year", "modality", "WA", "UA"), rows)
    number = "III" if dataset == "IEMOCAP" else "IV"
    note = "The other methods' splits and classes differ from paper to paper; our rows are on the data named above."
    return f"### {dataset}, Table {number}: other methods\n\n{methods}\n\n{note}"
