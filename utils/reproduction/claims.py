"""The paper's claims and the verdict on each: reproduced, not reproduced, or undecided at this sample size."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from utils.config import Config
from utils.data.published import UTTERANCES
from utils.reproduction.results import MISSING, Result, Results, TopKGrid
from utils.reproduction.trials import FUSIONS, MAIN, NO_CHGAT, NO_XCBAM
from utils.statistics import FEWEST, Estimate, bounds, interval, points
from utils.training.metrics import PRINTED, printed

REPRODUCED, SMALLER, NOT_REPRODUCED = "reproduced", "reproduced, but smaller", "not reproduced"
UNDECIDED, NOT_TESTED = "undecided", "not tested"
MARGIN = 1.0  # points below the paper's accuracy that still count as reaching it
WHOLE = 0.9  # smallest share of the paper's utterances for which its accuracy is tested

# dataset -> reference, year, modality, WA, UA as printed (Tables III and IV, without the paper's own row)
OTHER_METHODS = {
    "IEMOCAP": (
        ("Padi et al.", 2022, "audio + text", "75.76", "76.07"),
        ("Priyasad et al.", 2023, "audio + text", "76.80", "77.30"),
        ("Pham et al.", 2023, "audio + text", "63.10", "63.00"),
        ("Naderi et al.", 2023, "audio", "74.16", "75.63"),
        ("Khan et al.", 2023, "audio", "72.75", "–"),
        ("Kyung et al.", 2024, "audio + text", "77.16", "76.11"),
        ("Nguyen et al.", 2024, "audio + text", "–", "77.22"),
        ("Khan et al.", 2025, "audio + text", "81.85", "81.33"),
    ),
    "ESD": (
        ("Zhou et al.", 2022, "audio", "–", "89.00"),
        ("Pham et al. (without surprise)", 2023, "audio + text", "90.47", "90.46"),
        ("Yang et al.", 2024, "audio", "88.50", "88.50"),
        ("Khan et al.", 2025, "audio + text", "91.84", "91.93"),
    ),
}
# The WA that the paper claims to surpass in its abstract and in IV.D
BEST_OTHER = {dataset: max(float(wa) for *_, wa, _ in rows if wa != "–") for dataset, rows in OTHER_METHODS.items()}


def accuracy(config: Config) -> float | None:
    """The paper's accuracy over all utterances in percent: most likely its UA of IEMOCAP, see ``SWAPPED``."""
    values = printed(config)
    return values and values["ua" if config.dataset == "IEMOCAP" else "wa"]


# ---- the rules -------------------------------------------------------------------------------------------------------


def difference(ours: Estimate, paper: float) -> str:
    """The verdict on a claim "A is ``paper`` points better than B", from our A - B.

    Not reproduced: our interval excludes a difference this large and does not show any difference.
    """
    if ours.over_both is None:
        return UNDECIDED
    if ours.low > 0:
        return REPRODUCED if ours.high >= paper else SMALLER
    return NOT_REPRODUCED if ours.high < paper else UNDECIDED


def level(ours: Estimate, least: float, same_utterances: bool) -> str:
    """The verdict on a claim "it reaches at least ``least`` percent".

    Args:
        same_utterances: our test split is the paper's, so only the seeds are random.
    """
    half = ours.over_seeds if same_utterances else ours.over_both
    if half is None:
        return UNDECIDED
    if ours.mean - half > least:
        return REPRODUCED
    return NOT_REPRODUCED if ours.mean + half < least else UNDECIDED


def all_of(verdicts: Sequence[str]) -> str:
    """The verdict on a claim that holds only if each of several claims holds."""
    return next(worst for worst in (NOT_REPRODUCED, MISSING, UNDECIDED, SMALLER, REPRODUCED) if worst in verdicts)


# ---- the claims ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    claim: str
    paper: str
    ours: str
    verdict: str


def claims(results: Results, dataset: str, profile: str) -> Iterator[Verdict]:
    """Every claim of the paper about a dataset, tested with one profile."""
    main, without_xcbam, without_chgat = (results.row(dataset, profile, row) for row in (MAIN, NO_XCBAM, NO_CHGAT))
    fusions = {title: results.row(dataset, profile, row) for row, title in FUSIONS.items()}
    grid = results.grid(dataset, profile)
    same = main.complete and results.of_published_test(main)
    paper, best_other = accuracy(main.trial.config), BEST_OTHER[dataset]
    as_printed = f"{PRINTED[dataset][MAIN][0]:.2f} > {best_other:.2f}"
    found = [
        _level("CemoBAM reaches this accuracy (Tables I-IV)", main, f"{paper:.2f}", paper - MARGIN, same),
        _level("it surpasses the best other method's WA (Tables III, IV)", main, as_printed, best_other, same),
        _best("MIN is better than each other fusion (Table I)", fusions),
        _better("xCBAM adds to CH-GAT alone (Table II)", main, without_xcbam),
        _better("CH-GAT adds to xCBAM alone (Table II)", main, without_chgat),
        _topk(grid),
    ]
    for each, sizes in zip(found, [main.sizes] * 5 + [grid.sizes], strict=True):
        part = _part(sizes, dataset)
        decided = part and each.verdict in (REPRODUCED, SMALLER, NOT_REPRODUCED)
        yield Verdict(each.claim, each.paper, each.ours, f"{each.verdict}, on {part}") if decided else each


def _part(sizes: dict[str, int], dataset: str) -> str | None:
    """``331 of 4407 training utterances`` if the features are only a part of the paper's; None otherwise."""
    of_paper = UTTERANCES[dataset]
    if not sizes or all(sizes[split] >= WHOLE * of_paper[split] for split in ("train", "test")):
        return None
    return f"{sizes['train']} of {of_paper['train']} training utterances"


def _level(claim: str, result: Result, paper: str, least: float, same_utterances: bool) -> Verdict:
    if not result.complete:
        return Verdict(claim, paper, "–", MISSING)
    ours = result.estimate("wa")
    text = points(ours.mean) + bounds(ours, ours.over_seeds if same_utterances else ours.over_both)
    part = _part(result.sizes, result.trial.config.dataset)
    return Verdict(claim, paper, text, f"{NOT_TESTED}: {part}" if part else level(ours, least, same_utterances))


def _better(claim: str, full: Result, without: Result) -> Verdict:
    paper = accuracy(full.trial.config) - accuracy(without.trial.config)
    ours = full.minus(without)
    if ours is None:
        return Verdict(claim, f"{paper:+.2f}", "–", MISSING)
    return Verdict(claim, f"{paper:+.2f}", interval(ours), difference(ours, paper))


def _best(claim: str, fusions: dict[str, Result]) -> Verdict:
    """The verdict on the claim that the first fusion is better than every other one; ``fusions`` is by title."""
    first, *others = fusions
    each = {title: _better(claim, fusions[first], fusions[title]) for title in others}
    paper, ours = (
        ", ".join(f"{getattr(verdict, name)} vs {title}" for title, verdict in each.items())
        for name in ("paper", "ours")
    )
    return Verdict(claim, paper, ours, all_of([verdict.verdict for verdict in each.values()]))


def _topk(grid: TopKGrid) -> Verdict:
    claim = f"k_text {grid.papers[0]}, k_audio {grid.papers[1]} is the best of the 100 (Fig. 2)"
    if not grid.complete:
        return Verdict(claim, "–", "–", f"{MISSING}: {grid.progress}")
    best = f"k_text {grid.best[0]}, k_audio {grid.best[1]} on validation"
    if len(grid.seeds) < FEWEST:
        return Verdict(claim, "–", best, UNDECIDED)
    if grid.best == grid.papers:
        return Verdict(claim, "–", "the same trial is best on validation", REPRODUCED)
    ours = grid.best_minus_papers
    text = f"{best}, test w-F1 {points(ours.mean, sign=True)}{bounds(ours, ours.over_seeds, -100)} (over seeds)"
    return Verdict(claim, "–", text, NOT_REPRODUCED if ours.mean > ours.over_seeds else UNDECIDED)
