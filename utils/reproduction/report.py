"""The report: one Markdown file with PNGs, computed only from the files of runs."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path

from utils.config import PROFILES, display_name
from utils.data.demo import demo_note
from utils.io import atomic_write, markdown_table
from utils.reproduction.claims import MARGIN, claims
from utils.reproduction.folds import folds
from utils.reproduction.results import Results
from utils.reproduction.sections import (
    ablation_steps,
    facts,
    fig2,
    homophily,
    other_methods,
    probes,
    profile_figures,
    table,
)
from utils.reproduction.trials import ABLATIONS, FUSIONS, Plan
from utils.statistics import FEWEST
from utils.training.metrics import PRINTED, SWAPPED
from utils.training.run import Run, Trial

READING = f"""\
Profile `official` does what the published code does. Profile `paper` follows the paper's text. Where the paper is
silent, it follows the published code. Profile `refined` is `paper` with settings that validation data or good practice
support where the paper is silent. LayerScale and label smoothing are ours.

WA is the accuracy over all utterances, UA the mean of the per-class recalls, and w-F1 the F1 weighted by support. All
are in percent of the test split. Metrics are mean ± sample standard deviation over the seeds, with the 95 % interval of
the mean over the seeds (Student's t). Differences are paired over the seeds and the test utterances. Their 95 %
interval covers the seeds and the test set: a jackknife leaves out one speaker at a time. If the speakers are unknown,
it leaves out one dialogue (in DEMO, one scene) or one utterance. With fewer than {FEWEST} seeds or {FEWEST} speakers,
there is no interval. Intervals are cut off at the limits of a metric or a difference. They do not cover the choice of
the training utterances. Verdicts are based on these intervals; the verdict on Fig. 2 is based on the seeds alone.

**Reproduced**: the interval lies on the paper's side of zero. **Reproduced, but smaller**: in addition, the whole
interval is below the paper's difference. **Not reproduced**: the interval excludes a difference as large as the
paper's, and does not show any difference. **Undecided**: neither, at this sample size. An accuracy is reproduced if the
interval lies above the paper's minus {MARGIN:g} point. This interval covers the seeds alone if the test split is the
published one. Unfinished trials are missing."""


def write_report(plan: Plan) -> Path:
    """Write ``report.md`` and ``figures/`` below the plan's root. Returns the report's path.

    Raises:
        InputError: a file of a run is damaged, or its configuration or features differ from the other runs.
    """
    results, path = Results(plan), plan.root / "report.md"
    sections = [_head(plan), _verdicts(results)]
    for dataset in plan.datasets:
        results.check_data(dataset)
        sections += _dataset(results, dataset)
    sections.append(_missing(results))
    atomic_write(path, ("\n\n".join(section for section in sections if section) + "\n").encode())
    return path


def _head(plan: Plan) -> str:
    lines = [f"Seeds {', '.join(map(str, plan.seeds))}."]
    if not plan.is_of_the_profiles:
        options = ", ".join(f"{name} {value}" for name, value in plan.shared.items())
        lines.append(f"**Every trial uses {options}. These are not the profiles, so there are no verdicts.**")
    return "\n\n".join(["# Reproduction of CemoBAM", *lines, READING])


def _verdicts(results: Results) -> str:
    """Every claim, with the paper's value and ours."""
    plan, rows = results.plan, []
    if not plan.is_of_the_profiles:
        return ""
    for dataset in (dataset for dataset in plan.datasets if dataset in PRINTED):
        by_profile = [claims(results, dataset, profile) for profile in plan.profiles]
        for verdicts in zip(*by_profile, strict=True):
            found = (f"**{each.verdict}**<br>{each.ours}" for each in verdicts)
            rows.append((f"{dataset}: {verdicts[0].claim}", verdicts[0].paper, *found))
    if not rows:
        return ""
    header = ("claim of the paper", "paper", *(f"here, profile `{profile}`" for profile in plan.profiles))
    note = (
        "Our values are accuracies over all utterances. The paper's are the values that most likely are accuracies "
        "(for IEMOCAP, its UA), except the WA that it claims to surpass, which is as printed."
    )
    return f"## Verdicts\n\n{markdown_table(header, rows)}\n\n{note}"


def _dataset(results: Results, dataset: str) -> Iterator[str]:
    yield f"## {display_name(dataset)}"
    if dataset == "DEMO":
        yield demo_note()
    if dataset == "IEMOCAP":
        yield SWAPPED
    yield facts(results, dataset)
    yield f"### {dataset}, Table I: fusion\n\n{table(results, dataset, FUSIONS)}"
    yield f"### {dataset}, Table II: ablation\n\n{table(results, dataset, ABLATIONS)}"
    yield probes(results, dataset)
    yield folds(results.plan, dataset)
    if dataset in PRINTED:
        yield other_methods(results, dataset)
    if results.plan.steps_between(dataset):
        yield ablation_steps(results, dataset)
    if dataset == "DEMO":
        yield homophily(results)
    for profile in (profile for profile in PROFILES if profile in results.plan.profiles):
        yield f"### {dataset}, profile `{profile}`"
        if dataset in PRINTED:
            yield fig2(results, dataset, profile)
        yield profile_figures(results, dataset, profile)


def _missing(results: Results) -> str:
    """The unfinished trials, one line each, with their recorded failures."""
    plan, lines = results.plan, []
    for dataset in plan.datasets:
        if absent := plan.missing_features(dataset):
            lines.append(f"- {dataset}: no features ({absent[0]} does not exist)")
    lines += [_progress(results, trial) for trial in plan.trials(plan.datasets) if not results[trial].complete]
    for dataset, profile in product(plan.datasets, plan.profiles):
        if dataset in PRINTED and not (grid := results.grid(dataset, profile)).complete:
            lines.append(f"- {dataset}, {profile}, Fig. 2: {grid.progress}")
    return "## Missing\n\n" + "\n".join(lines) if lines else ""


def _progress(results: Results, trial: Trial) -> str:
    result = results[trial]
    line = f"- {trial.folder.relative_to(results.plan.root)}: {result.progress}"
    runs = [Run(trial, seed) for seed in results.plan.seeds if seed not in result.seeds]
    failed = [f"seed {run.seed} failed: {error}" for run in runs if (error := run.error())]
    return f"{line} ({'; '.join(failed)})" if failed else line
