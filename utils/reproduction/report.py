"""The report: one Markdown file with its PNGs, from the files of runs alone."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from utils.config import display_name
from utils.demo import SCENE_SIZE
from utils.files import atomic_write
from utils.paper import PRINTED, SWAPPED
from utils.report import demo_note, markdown_table
from utils.reproduction.analysis import homophily, walks
from utils.reproduction.claims import MARGIN, claims
from utils.reproduction.rows import Row
from utils.reproduction.study import Study
from utils.reproduction.tables import facts, fig2, headline, other_methods, table

READING = f"""\
Profile `official` does what the authors' published code does, profile `paper` what the paper says. WA is the accuracy
over all utterances, UA the mean of the classes' recalls, w-F1 the F1 weighted by support; percent of the test split.

Figures are mean ± sample standard deviation over the seeds, then the 95 % interval of the mean over the seeds
(Student's t). Differences are paired over the seeds, and their 95 % interval also counts the chance of the test
utterances (paired, too), since a handful can be all that tells two rows apart; DEMO's scenes of {SCENE_SIZE} utterances
count as one. The chance of the training utterances is not counted. Verdicts rest on these intervals; that on Fig. 2,
whose trainings keep no predictions, on the seeds alone.

**Reproduced**: the interval lies on the paper's side of zero; **but smaller**: all of it below the paper's difference.
**Not reproduced**: it excludes so large a difference as the paper's, and does not show that there is one at all.
**Undecided**: neither, at this sample size. An accuracy is reproduced where the interval lies above the paper's less
{MARGIN:g} point; over the seeds alone where the published test split itself is at hand. A row that is not finished is
missing."""


def write_report(study: Study) -> Path:
    """Write ``report.md`` and ``figures/`` below the study's root; returns the report's path.

    Raises:
        InputError: a file of a run is damaged, of another configuration, or of other features than the rows beside it.
    """
    study = dataclasses.replace(study)  # what an earlier report read may be of yesterday
    path = study.root / "report.md"
    sections = [_head(study), _verdicts(study)]
    for dataset in study.datasets:
        study.check_data(dataset)
        sections.append("\n\n".join(_dataset(study, dataset)))
    sections.append(_missing(study))
    atomic_write(path, ("\n\n".join(section for section in sections if section) + "\n").encode())
    return path


def _head(study: Study) -> str:
    lines = [f"Seeds {', '.join(map(str, study.seeds))}."]
    if not study.is_of_the_profiles:
        options = ", ".join(f"{name} {value}" for name, value in study.shared.items())
        lines.append(f"**Every row with {options}: not the profiles as they are, so that there are no verdicts.**")
    return "\n\n".join(["# CemoBAM: what was reproduced", *lines, READING])


def _verdicts(study: Study) -> str:
    """Every claim, with the paper's figure and ours."""
    if not study.is_of_the_profiles:
        return ""
    rows = []
    for dataset in (d for d in study.datasets if d in PRINTED):
        by_profile = []
        for profile in study.profiles:
            fusions, ablations = (study.results(rows) for rows in study.tables[dataset, profile])
            same = fusions["MIN"].complete and study.of_published_test(fusions["MIN"])
            by_profile.append(list(claims(dataset, fusions, ablations, study.sweeps[dataset, profile], same)))
        for same_claim in zip(*by_profile, strict=True):
            found = (f"**{each.verdict}**<br>{each.ours}" for each in same_claim)
            rows.append((f"{dataset}: {same_claim[0].claim}", same_claim[0].paper, *found))
    if not rows:
        return ""
    header = ("claim of the paper", "paper", *(f"here, profile `{profile}`" for profile in study.profiles))
    note = (
        "Ours are accuracies over all utterances; the paper's are what most likely are (of IEMOCAP what it prints as "
        "UA), but for what it claims to surpass, which is as printed."
    )
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
        yield facts(fusions["MIN"], dataset)
        yield f"**Table I, fusion**\n\n{table(fusions)}"
        yield f"**Table II, what each part adds**\n\n{table(ablations)}"
        if dataset in PRINTED:
            yield fig2(study, dataset, profile)
        yield headline(study, fusions["MIN"])
    if dataset in PRINTED:
        yield other_methods(study, dataset)
    if dataset in study.walks:
        yield walks(study, dataset)
    if dataset == "DEMO":
        yield homophily(study)


def _missing(study: Study) -> str:
    """What is not finished, row by row."""
    lines, rows = [], {}
    for dataset in study.datasets:
        absent = study.missing_features(dataset)
        if absent:
            lines.append(f"- {dataset}: no features ({absent[0]} is not there)")
        rows |= {row.folder: row for row in study.table_rows(dataset) + study.walk_rows(dataset)}
    rows |= {row.folder: row for row in study.homophily.values()}  # DEMO as it is is in its tables, too
    lines += [line for row in rows.values() if (line := _unfinished(study, row))]
    for (dataset, profile), sweep in study.sweeps.items():
        if not sweep.complete:
            lines.append(f"- {dataset}, {profile}, Fig. 2: {sweep.progress}")
    return "## Missing\n\n" + "\n".join(lines) if lines else ""


def _unfinished(study: Study, row: Row) -> str:
    result = study.result(row)
    return "" if result.complete else f"- {row.dataset}, {row.title}: {len(result.seeds)} of {result.asked} seeds"
