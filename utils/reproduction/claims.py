"""The paper's claims, each held against our runs: reproduced, not reproduced, or undecided at this sample size."""

from collections.abc import Iterator
from dataclasses import dataclass

from utils.paper import BEST_OTHER, PRINTED, UTTERANCES, accuracy
from utils.reproduction.fig2 import Sweep
from utils.reproduction.results import MISSING, Result, Rows
from utils.reproduction.statistics import Estimate, bounds, interval, points

REPRODUCED, SMALLER, NOT_REPRODUCED = "reproduced", "reproduced, but smaller", "not reproduced"
UNDECIDED, NOT_TESTED = "undecided", "not tested"
MARGIN = 1.0  # points: a level within it is the paper's
WHOLE = 0.9  # of the paper's utterances: with fewer, its level is another question


@dataclass(frozen=True)
class Verdict:
    claim: str
    paper: str
    ours: str
    verdict: str


def difference(ours: Estimate, paper: float) -> str:
    """Of a claim "A is ``paper`` points better than B", from our A - B.

    Not reproduced: our interval excludes so large a difference, and does not show that there is one at all.
    """
    if ours.over_both is None:
        return UNDECIDED
    if ours.low > 0:
        return REPRODUCED if ours.high >= paper else SMALLER
    return NOT_REPRODUCED if ours.high < paper else UNDECIDED


def level(ours: Estimate, least: float, same_utterances: bool) -> str:
    """Of a claim "it reaches at least ``least`` percent".

    Args:
        same_utterances: our test split is the paper's, so that only the seeds are left to chance.
    """
    half = ours.over_seeds if same_utterances else ours.over_both
    if half is None:
        return UNDECIDED
    if ours.mean - half > least:
        return REPRODUCED
    return NOT_REPRODUCED if ours.mean + half < least else UNDECIDED


def all_of(verdicts: list[str]) -> str:
    """Of a claim that holds only if each of several does."""
    return next(worst for worst in (NOT_REPRODUCED, MISSING, UNDECIDED, SMALLER, REPRODUCED) if worst in verdicts)


def claims(dataset: str, fusions: Rows, ablations: Rows, sweep: Sweep, same_utterances: bool) -> Iterator[Verdict]:
    """Every claim of the paper about a dataset of its own, for one profile; arguments as of :func:`level`."""
    main = fusions["MIN"]
    paper, best_other = accuracy(main.row.config), BEST_OTHER[dataset]
    as_printed = f"{PRINTED[dataset]['min'][0]:.2f} > {best_other:.2f}"
    found = [
        _level("CemoBAM reaches this accuracy (Tables I-IV)", main, f"{paper:.2f}", paper - MARGIN, same_utterances),
        _level(
            "it surpasses the best other method's WA (Tables III, IV)", main, as_printed, best_other, same_utterances
        ),
        _best("MIN is the best fusion by so much (Table I)", fusions),
        _better("xCBAM adds so much to CH-GAT alone (Table II)", ablations, "w/o xCBAM"),
        _better("CH-GAT adds so much to xCBAM alone (Table II)", ablations, "w/o CH-GAT"),
        _topk(sweep),
    ]
    for each, of in zip(found, 5 * [main.sizes] + [sweep.sizes], strict=True):
        part = _part(of, dataset)
        decided = part and each.verdict in (REPRODUCED, SMALLER, NOT_REPRODUCED)
        yield Verdict(each.claim, each.paper, each.ours, f"{each.verdict}, on {part}") if decided else each


def _part(sizes: dict[str, int], dataset: str) -> str | None:
    """``331 of 4407 training utterances`` where the features are but a part of the paper's.

    ``sizes``: utterances by split; empty where nothing is trained.
    """
    wanted = UTTERANCES[dataset]
    if not sizes or all(sizes[split] >= WHOLE * wanted[split] for split in ("train", "test")):
        return None
    return f"{sizes['train']} of {wanted['train']} training utterances"


def _level(claim: str, result: Result, paper: str, least: float, same_utterances: bool) -> Verdict:
    if not result.complete:
        return Verdict(claim, paper, "–", MISSING)
    ours = result.estimate("wa")
    text = points(ours.mean) + bounds(ours, ours.over_seeds if same_utterances else ours.over_both)
    part = _part(result.sizes, result.row.dataset)
    return Verdict(claim, paper, text, f"{NOT_TESTED}: {part}" if part else level(ours, least, same_utterances))


def _better(claim: str, rows: Rows, without: str) -> Verdict:
    """The first row of a table is better than the row ``without`` something."""
    full, result = next(iter(rows.values())), rows[without]
    paper = accuracy(full.row.config) - accuracy(result.row.config)
    if not (full.complete and result.complete):
        return Verdict(claim, f"{paper:+.2f}", "–", MISSING)
    ours = full.minus(result)
    return Verdict(claim, f"{paper:+.2f}", interval(ours, sign=True), difference(ours, paper))


def _best(claim: str, rows: Rows) -> Verdict:
    """The first row of a table is better than every other."""
    each = {title: _better(claim, rows, title) for title in list(rows)[1:]}
    paper = ", ".join(f"{verdict.paper} to {title}" for title, verdict in each.items())
    ours = ", ".join(f"{verdict.ours} to {title}" for title, verdict in each.items())
    return Verdict(claim, paper, ours, all_of([verdict.verdict for verdict in each.values()]))


def _topk(sweep: Sweep) -> Verdict:
    claim = f"k_text {sweep.papers[0]}, k_audio {sweep.papers[1]} is the best of the 100 (Fig. 2)"
    if not sweep.complete:
        return Verdict(claim, "–", "–", f"{MISSING}: {sweep.progress}")
    if len(sweep.seeds) < 2:
        return Verdict(claim, "–", f"k_text {sweep.best[0]}, k_audio {sweep.best[1]} on validation", UNDECIDED)
    if sweep.best == sweep.papers:
        return Verdict(claim, "–", "the same cell is best on validation", REPRODUCED)
    ours = sweep.best_minus_papers
    text = f"k_text {sweep.best[0]}, k_audio {sweep.best[1]} on validation, test w-F1 {points(ours.mean, sign=True)}"
    text += f"{bounds(ours, ours.over_seeds)} (seeds alone)"
    return Verdict(claim, "–", text, NOT_REPRODUCED if ours.mean > ours.over_seeds else UNDECIDED)
