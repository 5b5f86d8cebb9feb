"""The report: one Markdown file with its PNGs, from the files of runs alone."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from utils.config import display_name
from utils.demo import bayes_optimal_wa
from utils.paper import OTHER_METHODS, PRINTED, SWAPPED, UTTERANCES, printed
from utils.plots import plot_topk_grid
from utils.report import demo_note, markdown_table
from utils.reproduction.claims import MISSING, Rows, claims, interval
from utils.reproduction.figures import plot_homophily, plot_walk
from utils.reproduction.results import Result
from utils.reproduction.rows import Row
from utils.reproduction.statistics import Estimate
from utils.reproduction.study import Study
from utils.runs import atomic_write, read_json

FIGURES = {"wa": "WA", "ua": "UA", "w_f1": "w-F1"}  # those that the paper reports
HEADLINE_FIGURES = {
    "training_curves.png": "Training curves",
    "test_confusion_matrix.png": "Confusion matrix of the test split",
    "test_tsne.png": "t-SNE of the test split",
}
READING = """\
Figures are percent of the test split: mean ± sample standard deviation over the seeds, and in brackets the 95 %
interval of the mean over the seeds (Student's t). Differences are paired over the seeds; their interval also counts the
chance of the test utterances (paired utterance by utterance), since a handful of them can be all that tells two rows
apart. **Reproduced**: the interval lies on the paper's side of zero. **Not reproduced**: it excludes a difference as
large as the paper's, and does not lie on the paper's side. **Undecided**: neither, at this sample size. A row that is
not finished is shown as missing."""


def write_report(study: Study) -> Path:
    """Write ``report.md`` and ``figures/`` below the study's root; returns the report's path."""
    path = study.root / "report.md"
    sections = [_head(study), _verdicts(study)]
    for dataset in study.datasets:
        sections.append("\n\n".join(_dataset(study, dataset)))
    sections.append(_missing(study))
    atomic_write(path, ("\n\n".join(section for section in sections if section) + "\n").encode())
    return path


def _head(study: Study) -> str:
    quick = (
        f"**Quick: {len(study.seeds)} seeds, {study.shared['epochs']} epochs. This shows that everything runs; its "
        "figures say nothing.**\n\n"
        if study.quick
        else ""
    )
    seeds = ", ".join(map(str, study.seeds))
    return f"# CemoBAM: what was reproduced\n\n{quick}Seeds {seeds}. {READING}"


def _verdicts(study: Study) -> str:
    """Every claim, with the paper's figure and ours."""
    rows = []
    for dataset in (d for d in study.datasets if d in PRINTED):
        by_profile = []
        for profile in study.profiles:
            tables = (study.results(rows) for rows in study.tables[dataset, profile])
            by_profile.append(list(claims(dataset, *tables, study.sweeps[dataset, profile])))
        for same_claim in zip(*by_profile, strict=True):
            found = (f"**{each.verdict}**<br>{each.ours}" for each in same_claim)
            rows.append((f"{dataset}: {same_claim[0].claim}", same_claim[0].paper, *found))
    if not rows:
        return ""
    header = ("claim of the paper", "paper", *(f"here, profile `{profile}`" for profile in study.profiles))
    note = "Accuracies are over all utterances (for IEMOCAP what the paper prints as UA)."
    return f"## In half a minute\n\n{markdown_table(header, rows)}\n\n{note}"


def _dataset(study: Study, dataset: str) -> Iterator[str]:
    yield f"## {display_name(dataset)}"
    if dataset == "DEMO":
        yield demo_note()
    if dataset == "IEMOCAP":
        yield SWAPPED
    for profile in study.profiles:
        fusions, ablations = (study.results(rows) for rows in study.tables[dataset, profile])
        yield f"### {dataset}, profile `{profile}`"
        yield _facts(fusions["MIN"][1], dataset)
        yield f"**Table I, fusion**\n\n{_table(fusions)}"
        yield f"**Table II, what each part adds**\n\n{_table(ablations)}"
        if dataset in PRINTED:
            yield _fig2(study, dataset, profile)
        yield _headline(study, fusions["MIN"][0])
    if dataset in PRINTED:
        yield _other_methods(study, dataset)
    if dataset in study.walks:
        yield _walk(study, dataset)
    if dataset == "DEMO":
        yield _homophily(study)


def _facts(result: Result, dataset: str) -> str:
    """Sizes, graph, machine and time of the profile's own run."""
    if not result.seeds:
        return f"{MISSING}: no seed is finished"
    description, summary = result.description, read_json(result.folder / "summary.json")
    sizes = {split: data["utterances"] for split, data in description["data"].items()}
    text = f"{' / '.join(map(str, sizes.values()))} utterances (train / val / test)"
    wanted = UTTERANCES.get(dataset)
    if wanted and sizes != wanted:
        text += f", where the paper has {' / '.join(map(str, wanted.values()))}"
    graphs = ", ".join(f"{split} {100 * graph['homophily']:.1f}" for split, graph in summary["graphs"].items())
    versions = ", ".join(f"{name} {version}" for name, version in description["versions"].items())
    return (
        f"{text}. Homophily of the Top-K graphs (percent of the edges that join one class): {graphs}. "
        f"{len(result.seeds)} seeds took {result.training_seconds / 60:.1f} min on {summary['device']}; {versions}."
    )


def _table(rows: Rows) -> str:
    """A row a configuration, with the difference in WA to the first, and the paper's figures as printed."""
    reference = next(iter(rows.values()))[1]
    papers = any(printed(row.config) for row, _ in rows.values())
    header = ["", *FIGURES.values(), "WA, to the first", *(["paper: WA / UA / w-F1"] if papers else [])]
    lines = []
    for title, (row, result) in rows.items():
        line = [title, *_figures(result), _change(result, reference)]
        if papers:
            values = printed(row.config)
            line.append(" / ".join(f"{value:.2f}" for value in values.values()) if values else "–")
        lines.append(line)
    return markdown_table(header, lines)


def _figures(result: Result) -> list[str]:
    if not result.complete:
        return [f"{MISSING} ({len(result.seeds)} of {result.asked} seeds)", *[""] * (len(FIGURES) - 1)]
    return [_with_std(result.estimate(name)) for name in FIGURES]


def _with_std(figure: Estimate) -> str:
    if figure.std is None:
        return f"{figure.mean:.2f}"
    low, high = figure.mean - figure.over_seeds, figure.mean + figure.over_seeds
    return f"{figure.mean:.2f} ± {figure.std:.2f} [{low:.2f}, {high:.2f}]"


def _change(result: Result, reference: Result) -> str:
    if result is reference or not (result.complete and reference.complete):
        return ""
    return interval(result.minus(reference), sign=True)


def _fig2(study: Study, dataset: str, profile: str) -> str:
    sweep = study.sweeps[dataset, profile]
    title = "**Fig. 2, k_text x k_audio**"
    if not sweep.results:
        return f"{title}\n\n{MISSING}: {sweep.progress}"
    note = "" if sweep.complete else f"\n\n{sweep.progress} of the paper's grid are there."
    name = f"{dataset}-{profile}-topk_grid.png"
    plot_topk_grid(study.root / "figures" / name, sweep.summary, *sweep.marked, f"{dataset}, profile {profile}")
    return f"{title}{note}\n\n```\n{sweep.report}\n```\n\n![Top-K grid](figures/{name})"


def _headline(study: Study, row: Row) -> str:
    """The PNGs of the profile's own run."""
    images = []
    for name, title in HEADLINE_FIGURES.items():
        source, target = row.folder / name, f"{row.dataset}-{row.config.profile}-{name}"
        if not source.is_file() or not study.result(row).complete:
            images.append(f"{title}: {MISSING}")
            continue
        (study.root / "figures").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, study.root / "figures" / target)
        images.append(f"![{title}](figures/{target})")
    return "\n\n".join(images)


def _other_methods(study: Study, dataset: str) -> str:
    """Table III or IV, as printed, with our rows in place of nothing but beside the paper's."""
    rows = [(name, str(year), modality, wa, ua) for name, year, modality, wa, ua in OTHER_METHODS[dataset]]
    wa, ua, _ = PRINTED[dataset]["min"]
    rows.append(("CemoBAM, as printed", "2025", "audio + text", f"{wa:.2f}", f"{ua:.2f}"))
    for profile in study.profiles:
        result = study.result(study.tables[dataset, profile][0]["MIN"])
        figures = [_with_std(result.estimate(name)) for name in ("wa", "ua")] if result.complete else [MISSING, ""]
        rows.append((f"CemoBAM, here, profile `{profile}`", "", "audio + text", *figures))
    table = markdown_table(("method", "year", "modality", "WA", "UA"), rows)
    number = "III" if dataset == "IEMOCAP" else "IV"
    note = "The other methods' splits and classes differ from paper to paper; our rows are on the data named above."
    return f"### {dataset}, Table {number}: other methods\n\n{table}\n\n{note}"


def _walk(study: Study, dataset: str) -> str:
    """From profile official to profile paper: what each difference changes."""
    rows = study.results(study.walks[dataset])
    lines, steps, before = [], {}, None
    for title, (_, result) in rows.items():
        lines.append([title, *_figures(result)[:2], *_changes(result, before)])
        if result.complete and (before is None or before.complete):
            change = result.minus(before) if before else None
            steps[title] = result.estimate("wa"), change
        before = result
    header = ("after the step", "WA", "UA", "change in WA [95 %]", "change in UA [95 %, seeds]")
    ends = [rows[title][1] for title in (next(iter(rows)), list(rows)[-1])]
    total = ""
    if all(result.complete for result in ends):
        total = f"\n\nFrom end to end WA changes by {interval(ends[1].minus(ends[0]), sign=True)}."
    image = ""
    if len(steps) == len(rows) and len(study.seeds) > 1:
        name = f"{dataset}-walk.png"
        plot_walk(study.root / "figures" / name, steps, f"{dataset}: from profile official to profile paper")
        image = f"\n\n![The walk](figures/{name})"
    return (
        f"### {dataset}: what the differences between code and paper are worth\n\n"
        "Each row has one difference more than the row above it, down to profile `paper`.\n\n"
        f"{markdown_table(header, lines)}{total}{image}"
    )


def _changes(result: Result, before: Result | None) -> list[str]:
    if before is None or not (result.complete and before.complete):
        return ["", ""]
    ua = result.minus(before, "ua")
    of_ua = f"{ua.mean:+.2f}"
    if ua.over_seeds is not None:
        of_ua += f" [{ua.mean - ua.over_seeds:.2f}, {ua.mean + ua.over_seeds:.2f}]"
    return [interval(result.minus(before), sign=True), of_ua]


def _homophily(study: Study) -> str:
    """CH-GAT's gain as DEMO's scenes agree more and more."""
    lines, gains, possible = [], {profile: [] for profile in study.profiles}, []
    for agreement in study.agreements:
        bound = bayes_optimal_wa(agreement)
        worth = 100 * (bound["scene"] - bound["utterance"])
        line, share = [f"{agreement:g}"], None
        for profile in study.profiles:
            results = [study.result(study.homophily[profile, agreement, with_chgat]) for with_chgat in (True, False)]
            if not all(result.complete for result in results):
                line.append(MISSING)
                continue
            share = read_json(results[0].folder / "summary.json")["graphs"]["test"]["homophily"]
            gain = results[0].minus(results[1])
            with_it, without = (result.values("wa").mean() for result in results)
            gains[profile].append((share, gain))
            line.append(f"{without:.2f} → {with_it:.2f}: {interval(gain, sign=True)}")
        if share is not None:
            possible.append((share, worth))
        lines.append([line[0], "–" if share is None else f"{100 * share:.1f}", f"{worth:+.2f}", *line[1:]])
    header = ["agreement of a scene", "homophily of test (%)", "Bayes-optimal gain"]
    header += [f"profile {profile}: WA without → with CH-GAT, gain" for profile in study.profiles]
    image = ""
    gains = {profile: points for profile, points in gains.items() if points}
    if gains:
        name = "homophily.png"
        title = "DEMO (synthetic): what CH-GAT adds\n95 % intervals over seeds and test utterances"
        plot_homophily(study.root / "figures" / name, gains, possible, _real_homophily(study), title)
        image = f"\n\n![Gain over homophily](figures/{name})"
    return (
        "### CH-GAT's gain depends on homophily\n\n"
        "DEMO's neighbours are the utterances of a scene, and how many of them share an emotion can be set. The "
        "Bayes-optimal gain is what a scene tells beyond the utterance alone.\n\n"
        f"{markdown_table(header, lines)}{image}"
    )


def _real_homophily(study: Study) -> dict[str, float]:
    """Of the test graph of each real dataset, as its run with profile paper found it."""
    found = {}
    for dataset in (d for d in study.datasets if d != "DEMO"):
        path = study.tables[dataset, study.profiles[0]][0]["MIN"].folder / "summary.json"
        if path.is_file():
            found[dataset] = read_json(path)["graphs"]["test"]["homophily"]
    return found


def _missing(study: Study) -> str:
    """What is not finished, row by row."""
    lines = []
    for dataset in study.datasets:
        absent = study.missing_features(dataset)
        if absent:
            lines.append(f"- {dataset}: no features ({absent[0]} is not there)")
        rows = study.table_rows(dataset) + study.walk_rows(dataset)
        lines += [line for row in rows if (line := _unfinished(study, row))]
    lines += [line for row in study.homophily.values() if (line := _unfinished(study, row))]
    for (dataset, profile), sweep in study.sweeps.items():
        if not sweep.complete:
            lines.append(f"- {dataset}, {profile}, Fig. 2: {sweep.progress}")
    return "## Missing\n\n" + "\n".join(lines) if lines else ""


def _unfinished(study: Study, row: Row) -> str:
    result = study.result(row)
    return "" if result.complete else f"- {row.dataset}, {row.title}: {len(result.seeds)} of {result.asked} seeds"
