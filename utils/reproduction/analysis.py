"""The report's sections beyond the paper: the walk between the profiles, and CH-GAT's gain over homophily."""

from utils.demo import bayes_optimal_wa
from utils.report import markdown_table
from utils.reproduction.figures import plot_homophily, plot_walk
from utils.reproduction.results import MISSING, Result
from utils.reproduction.rows import WALKED
from utils.reproduction.statistics import bounds, interval, points
from utils.reproduction.study import Study
from utils.reproduction.tables import figures


def walks(study: Study, dataset: str) -> str:
    """From profile official to profile paper: what each difference changes."""
    head = (
        f"### {dataset}: what the differences between code and paper are worth\n\n"
        "Each row has one difference more than the row above it, down to profile `paper`. What a step changes depends "
        "on those before it; of so many intervals one may miss zero by chance."
    )
    return "\n\n".join([head, *(_walk(study, dataset, of) for of in study.walks[dataset])])


def _walk(study: Study, dataset: str, of: str) -> str:
    rows = study.results(study.walks[dataset][of])
    lines, steps, before = [], {}, None
    for title, result in rows.items():
        lines.append([title, *figures(result)[:2], *_changes(result, before)])
        if result.complete and (before is None or before.complete):
            change = result.minus(before) if before else None
            steps[title] = result.estimate("wa"), change
        before = result
    header = (
        "after the step",
        "WA [seeds]",
        "UA [seeds]",
        "change in WA [seeds and utterances]",
        "change in UA [seeds]",
    )
    ends = [list(rows.values())[i] for i in (0, -1)]
    total = ""
    if all(result.complete for result in ends):
        total = f"\n\nFrom end to end WA changes by {interval(ends[1].minus(ends[0]), sign=True)}."
    image = ""
    if len(steps) == len(rows) and len(study.seeds) > 1:
        name = f"{dataset}-{WALKED[of]}.png"
        plot_walk(study.root / "figures" / name, steps, f"{dataset}, {of}: from profile official to profile paper")
        image = f"\n\n![The walk](figures/{name})"
    return f"**{of}**\n\n{markdown_table(header, lines)}{total}{image}"


def _changes(result: Result, before: Result | None) -> list[str]:
    if before is None or not (result.complete and before.complete):
        return ["", ""]
    ua = result.minus(before, "ua")
    return [interval(result.minus(before), sign=True), points(ua.mean, sign=True) + bounds(ua, ua.over_seeds)]


def homophily(study: Study) -> str:
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
            share = _homophily_of_test(results[0])
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
        title = "DEMO (synthetic): what CH-GAT adds"
        if len(study.seeds) > 1:
            title += "\n95 % intervals over seeds and test utterances"
        plot_homophily(study.root / "figures" / name, gains, possible, _real_homophily(study), title)
        image = f"\n\n![Gain over homophily](figures/{name})"
    return (
        "### CH-GAT's gain over homophily\n\n"
        "DEMO's neighbours are the utterances of a scene, and how many of them share an emotion can be set. The "
        "Bayes-optimal gain is what a scene tells beyond the utterance alone.\n\n"
        f"{markdown_table(header, lines)}{image}"
    )


def _real_homophily(study: Study) -> dict[str, float]:
    """Of the test graph of each real dataset, as the run of the first profile found it."""
    mains = {d: study.result(study.tables[d, study.profiles[0]][0]["MIN"]) for d in study.datasets if d != "DEMO"}
    return {dataset: _homophily_of_test(result) for dataset, result in mains.items() if result.complete}


def _homophily_of_test(result: Result) -> float:
    return result.summary["graphs"]["test"]["homophily"]
