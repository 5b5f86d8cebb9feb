"""The sections of the report: Tables I to IV, Fig. 2, ablation steps, CH-GAT's gain over homophily, and figures."""

from collections.abc import Iterable
from pathlib import Path

from utils.config import display_name
from utils.data.demo import bayes_optimal_wa
from utils.data.published import UTTERANCES
from utils.errors import InputError
from utils.io import atomic_write, markdown_table
from utils.plots import TSNE_LEAST, plot_confusion, plot_homophily, plot_steps, plot_topk_grid, plot_training_curves
from utils.reproduction.claims import OTHER_METHODS
from utils.reproduction.results import MISSING, TEST_PREDICTIONS, Result, Results
from utils.reproduction.trials import ABLATIONS, MAIN, NO_CHGAT, STEPPED, tsne_path
from utils.statistics import FEWEST, bounds, interval, over_seeds, points, table_of, with_interval
from utils.sweep.results import best_trial, papers_trial, report, summary_table
from utils.training.folder import read_curves
from utils.training.groups import group_lines, group_results, write_groups
from utils.training.metrics import PRINTED, REPORTED, plus_minus, printed
from utils.training.predictions import read_predictions
from utils.training.probes import PROBE_FILE
from utils.training.scores import Scored

# ---- Tables I to IV --------------------------------------------------------------------------------------------------


def facts(results: Results, dataset: str) -> str:
    """Sizes, graphs, device and time of each profile's own runs."""
    return "\n".join(
        f"- `{profile}`: {_facts(results.row(dataset, profile, MAIN))}" for profile in results.plan.profiles
    )


def _facts(result: Result) -> str:
    if not result.runs:
        return f"{MISSING}, no run is finished."
    sizes, of_paper = result.sizes, UTTERANCES.get(result.trial.config.dataset)
    text = f"{' / '.join(map(str, sizes.values()))} utterances (train / val / test)"
    kind, cluster = result.scored.clusters
    if kind != "utterance":
        text += f", {cluster.max() + 1} {kind}s in test"
    if of_paper and sizes != of_paper:
        text += f", where the paper has {' / '.join(map(str, of_paper.values()))}"
    shares = ", ".join(f"{split} {100 * share:.1f}" for split, share in result.homophily.items())
    seconds = sum(outcome["seconds"] for outcome in result.outcomes)
    devices = "; ".join(dict.fromkeys(outcome["device"] for outcome in result.outcomes))
    versions = ", ".join(f"{name} {version}" for name, version in result.description["versions"].items())
    return (
        f"{text}. Homophily of the Top-K graphs (percent of edges between equal labels): {shares}. "
        f"{len(result.runs)} seed{'s' * (len(result.runs) > 1)} took {seconds / 60:.1f} min on {devices}; "
        f"{versions}."
    )


def table(results: Results, dataset: str, rows: dict[tuple[str, str], str]) -> str:
    """Table I or II: the metrics of each row and its difference to the first one, one column per profile.

    Args:
        rows: :data:`~utils.reproduction.trials.FUSIONS` or :data:`~utils.reproduction.trials.ABLATIONS`.
    """
    profiles, first = results.plan.profiles, next(iter(rows))
    references = [results.row(dataset, profile, first) for profile in profiles]
    best = [_best(results, dataset, profile, rows) for profile in profiles]
    lines = []
    for row, title in rows.items():
        found = [results.row(dataset, profile, row) for profile in profiles]
        paper = printed(found[0].trial.config)
        columns = [
            [
                f"**{cell}**" if row == best_row else cell
                for cell, best_row in zip(metric_cells(result), of_column, strict=True)
            ]
            for result, of_column in zip(found, best, strict=True)
        ]
        for i, (name, label) in enumerate(REPORTED.items()):
            of_paper = f"{paper[name]:.2f}" if paper else "–"
            lines.append((title if i == 0 else "", label, *(column[i] for column in columns), of_paper))
        if row != first:
            changes = (result.minus(reference) for result, reference in zip(found, references, strict=True))
            lines.append(("", f"Δ WA vs {rows[first]}", *map(interval, changes), ""))
    header = ("", "percent of test", *(f"`{profile}`" for profile in profiles), "paper, as printed")
    if dataset not in PRINTED:
        header, lines = header[:-1], [line[:-1] for line in lines]
    return markdown_table(header, lines)


def _best(
    results: Results, dataset: str, profile: str, rows: Iterable[tuple[str, str]]
) -> list[tuple[str, str] | None]:
    """The complete row with the greatest mean of each reported metric; None with fewer than two rows."""
    found = {row: result for row in rows if (result := results.row(dataset, profile, row)).complete}
    if len(found) < 2:
        return [None] * len(REPORTED)
    return [max(found, key=lambda row: found[row].values(name).mean()) for name in REPORTED]


def metric_cells(result: Result) -> list[str]:
    """Mean ± std and interval over seeds of each reported metric."""
    if not result.complete:
        return [f"{MISSING} ({result.progress})", *[""] * (len(REPORTED) - 1)]
    estimates = [over_seeds(result.values(name)) for name in REPORTED]
    return [plus_minus(value.mean, value.std) + bounds(value, value.over_seeds) for value in estimates]


def probes(results: Results, dataset: str) -> str:
    """The results of simple classifiers on the same embeddings; "" if they were not fitted."""
    plan = results.plan
    found: dict[str, list[Path]] = {}
    for probe, seed in plan.probes():
        folder = plan.probe_folder(dataset, probe, seed)
        if (folder / PROBE_FILE).is_file():
            found.setdefault(probe.title, []).append(folder / TEST_PREDICTIONS)
    networks = {profile: results.row(dataset, profile, MAIN) for profile in plan.profiles}
    networks = {profile: result.scored for profile, result in networks.items() if result.complete}
    lines = []
    for title, paths in found.items():
        probe = Scored(read_predictions(paths))
        for profile, network in networks.items():
            if probe.predictions.ids != network.predictions.ids:
                raise InputError(f"{paths[0]}: utterances differ from those of the runs of profile {profile}")
        cells = (with_interval(probe.estimate(name)) for name in REPORTED)
        lines.append(
            (title, *cells, *(with_interval(probe.minus(each, "wa"), sign=True) for each in networks.values()))
        )
    if not lines:
        return ""
    header = ("", *REPORTED.values(), *(f"Δ WA vs CemoBAM, `{profile}`" for profile in networks))
    kind, _ = probe.clusters
    note = f"Percent of test, with 95 % jackknife intervals over {kind}s."
    return f"### {dataset}: probes on the same embeddings\n\n{markdown_table(header, lines)}\n\n{note}"


def other_methods(results: Results, dataset: str) -> str:
    """Table III or IV as printed, then one row per profile."""
    rows = [(name, str(year), modality, wa, ua) for name, year, modality, wa, ua in OTHER_METHODS[dataset]]
    wa, ua, _ = PRINTED[dataset][MAIN]
    rows.append(("CemoBAM, as printed", "2025", "audio + text", f"{wa:.2f}", f"{ua:.2f}"))
    for profile in results.plan.profiles:
        cells = metric_cells(results.row(dataset, profile, MAIN))
        rows.append((f"CemoBAM, here, profile `{profile}`", "", "audio + text", *cells[:2]))
    methods = markdown_table(("method", "year", "modality", "WA", "UA"), rows)
    number = "III" if dataset == "IEMOCAP" else "IV"
    note = "Splits and classes of the other methods differ from paper to paper. Our rows use the data named above."
    return f"### {dataset}, Table {number}: other methods\n\n{methods}\n\n{note}"


# ---- figures of one profile ------------------------------------------------------------------------------------------


def fig2(results: Results, dataset: str, profile: str) -> str:
    grid, title = results.grid(dataset, profile), "**Fig. 2, k_text x k_audio**"
    if not grid.sizes:
        return f"{title}\n\n{MISSING}: {grid.progress}"
    note = f"{' / '.join(map(str, grid.sizes.values()))} utterances (train / val / test)"
    if not grid.complete:
        note += f"; {grid.progress} of the paper's grid are finished"
    seeds, summary, name = len(grid.seeds), summary_table(grid.runs), f"figures/{dataset}-{profile}-topk_grid.png"
    marked = best_trial(summary, seeds), papers_trial(summary, dataset)
    plot_topk_grid(results.plan.root / name, summary, seeds, *marked, f"{dataset}, profile {profile}")
    return f"{title}, {note}\n\n```\n{report(summary, dataset, seeds)}\n```\n\n![Top-K grid]({name})"


def profile_figures(results: Results, dataset: str, profile: str) -> str:
    """Training curves, confusion matrix and results by group over the seeds, and the t-SNE of the first seed."""
    result = results.row(dataset, profile, MAIN)
    if not result.complete:
        return f"Training curves, confusion matrix, t-SNE: {MISSING}"
    root, title = results.plan.root, f"{display_name(dataset)}, profile {profile}"
    curves, confusion, tsne = (
        f"figures/{dataset}-{profile}-{name}.png" for name in ("training_curves", "confusion_matrix", "tsne")
    )
    seeds = [f"seed {run.seed}" for run in result.runs]
    logs = [read_curves(run.folder, run.config.epochs) for run in result.runs]
    selected = [outcome["selected_epoch"] for outcome in result.outcomes]
    named = (dict(zip(seeds, each, strict=True)) for each in (logs, selected))
    plot_training_curves(root / curves, *named, title)
    confusions = [outcome["test"]["confusion"] for outcome in result.outcomes]
    over = f"pooled over {len(seeds)} seeds" if len(seeds) > 1 else seeds[0]
    plot_confusion(root / confusion, confusions, result.description["class_names"], f"{title}, test\n{over}")
    found = result.predictions
    groups = group_results(found.identity, found.label, found.prediction, found.class_names)
    write_groups((root / confusion).with_name(f"{dataset}-{profile}-groups.csv"), groups)
    lines = "\n".join(group_lines(groups, f"figures/{dataset}-{profile}-groups.csv")).strip()
    images = [f"![Training curves]({curves})", f"![Confusion matrix]({confusion})", f"```\n{lines}\n```"]
    if (source := tsne_path(result.runs[0])).is_file():
        for file in source.parent.glob(f"{source.stem}.*"):  # PNG and PDF
            atomic_write((root / tsne).with_suffix(file.suffix), file.read_bytes())
        return "\n\n".join([*images, f"![t-SNE]({tsne})"])
    few = result.description["data"]["test"]["utterances"] < TSNE_LEAST
    return "\n\n".join([*images, f"t-SNE: {f'needs at least {TSNE_LEAST} utterances' if few else MISSING}"])


# ---- ablation steps --------------------------------------------------------------------------------------------------


def ablation_steps(results: Results, dataset: str) -> str:
    """The effect of each difference between the profiles, for the whole network and for CH-GAT alone."""
    head = (
        f"### {dataset}: ablation steps between the profiles\n\n"
        "Each row adds one difference to the row above it, from profile `official` through `paper` to `refined`. The "
        "effect of a step depends on the steps before it. With this many intervals, one may exclude zero by chance."
    )
    return "\n\n".join([head, *(_steps(results, dataset, row) for row in STEPPED)])


def _steps(results: Results, dataset: str, row: tuple[str, str]) -> str:
    chain = [(title, results[trial]) for title, trial in results.plan.ablation_steps(dataset, row)]
    lines, levels, changes, before = [], {}, {}, None
    for title, result in chain:
        change, ua = (result.minus(before, metric) if before else None for metric in ("wa", "ua"))
        lines.append([title, *metric_cells(result)[:2], interval(change), interval(ua)])
        if result.complete:
            levels[title] = result.estimate("wa")
        if change:
            changes[title] = change
        before = result
    header = ("after the step", "WA", "UA", "change in WA", "change in UA")
    parts = [f"**{ABLATIONS[row]}**", markdown_table(header, lines)]
    official, paper, refined = (results.row(dataset, profile, row) for profile in results.plan.profiles)
    if official.complete and paper.complete and refined.complete:
        parts.append(
            f"WA changes by {interval(paper.minus(official))} from official to paper, by "
            f"{interval(refined.minus(paper))} from paper to refined, and by {interval(refined.minus(official))} from "
            "official to refined."
        )
    if len(levels) == len(chain) and len(results.plan.seeds) >= FEWEST:
        name = "-".join([f"figures/{dataset}-ablation_steps", *(row[1:] if row != MAIN else ())]) + ".png"
        title = f"{dataset}, {ABLATIONS[row]}: ablation steps between the profiles"
        plot_steps(results.plan.root / name, table_of(levels), table_of(changes).reindex(levels), title)
        parts.append(f"![Ablation steps]({name})")
    return "\n\n".join(parts)


# ---- CH-GAT's gain over homophily ------------------------------------------------------------------------------------


def homophily(results: Results) -> str:
    """CH-GAT's gain on DEMO for increasing agreement of the scenes."""
    plan, trials = results.plan, results.plan.homophily()
    lines, gains, possible = [], {profile: {} for profile in plan.profiles}, {}
    for agreement in plan.agreements:
        bound = bayes_optimal_wa(agreement)
        optimal = 100 * (bound["scene"] - bound["utterance"])
        cells, share = [], None
        for profile in plan.profiles:
            full, without = (results[trials[profile, agreement, row]] for row in (MAIN, NO_CHGAT))
            gain = full.minus(without)
            if gain is None:
                cells.append(MISSING)
                continue
            share = full.homophily["test"]
            gains[profile][share], possible[share] = gain, optimal
            means = (points(result.values("wa").mean()) for result in (without, full))
            cells.append(f"{' → '.join(means)}: {interval(gain)}")
        lines.append((f"{agreement:g}", "–" if share is None else f"{100 * share:.1f}", f"{optimal:+.2f}", *cells))
    header = ["agreement of a scene", "homophily of test (%)", "Bayes-optimal gain"]
    header += [f"`{profile}`: WA without → with CH-GAT, gain" for profile in plan.profiles]
    head = (
        "### CH-GAT's gain over homophily\n\nIn DEMO, neighbours are the utterances of the same scene. The "
        "agreement of a scene sets how many of them share an emotion. The Bayes-optimal gain is the gain from knowing "
        "the whole scene instead of the utterance alone."
    )
    text = f"{head}\n\n{markdown_table(header, lines)}"
    if not possible:
        return text
    shown = {profile: table_of(of_profile) for profile, of_profile in gains.items() if of_profile}
    title = "DEMO (synthetic): gain from CH-GAT"
    title += "\n95 % intervals over seeds and test scenes" if len(plan.seeds) >= FEWEST else ""
    plot_homophily(plan.root / "figures/homophily.png", shown, possible, _real_homophily(results), title)
    return f"{text}\n\n![Gain over homophily](figures/homophily.png)"


def _real_homophily(results: Results) -> dict[str, float]:
    """Homophily of the test graph of each real dataset, in the runs of the first profile."""
    plan = results.plan
    found = {dataset: results.row(dataset, plan.profiles[0], MAIN) for dataset in plan.datasets if dataset != "DEMO"}
    return {dataset: result.homophily["test"] for dataset, result in found.items() if result.complete}
