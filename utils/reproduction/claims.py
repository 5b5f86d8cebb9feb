"""The paper's claims, each held against our runs: reproduced, not reproduced, or undecided at this sample size."""

from collections.abc import Iterator
from dataclasses import dataclass

from utils.paper import BEST_OTHER, UTTERANCES, accuracy
from utils.reproduction.fig2 import Sweep
from utils.reproduction.results import Result
from utils.reproduction.rows import Row
from utils.reproduction.statistics import Estimate

REPRODUCED, NOT_REPRODUCED, UNDECIDED = "reproduced", "not reproduced", "undecided"
NOT_TESTED, MISSING = "not tested", "missing"
MARGIN = 1.0  # points: a level within it is the paper's
WHOLE = 0.9  # of the paper's utterances: with fewer, its level is another question


@dataclass(frozen=True)
class Verdict:
    claim: str
    paper: str
    ours: str
    verdict: str


Rows = dict[str, tuple[Row, Result]]  # of a table: by title


def difference(ours: Estimate, paper: float) -> str:
    """Of a claim "A is better than B by ``paper`` points", from our A - B."""
    if ours.over_both is None:
        return UNDECIDED
    if ours.low > 0:
        return REPRODUCED if ours.high >= paper else f"{REPRODUCED}, but smaller"
    return NOT_REPRODUCED if ours.high < paper else UNDECIDED


def level(ours: Estimate, paper: float, margin: float = MARGIN) -> str:
    """Of a claim "it reaches ``paper`` percent"."""
    if ours.over_both is None:
        return UNDECIDED
    if ours.low > paper - margin:
        return REPRODUCED
    return NOT_REPRODUCED if ours.high < paper - margin else UNDECIDED


def all_of(verdicts: list[str]) -> str:
    """A claim that holds only if each of several does."""
    for worst in (NOT_REPRODUCED, MISSING, UNDECIDED):
        if worst in verdicts:
            return worst
    return REPRODUCED if REPRODUCED in verdicts else verdicts[0]


def interval(estimate: Estimate, sign: bool = False) -> str:
    """``1.26 [−2.81, 5.33]``, with the interval over seeds and utterances."""
    mean = round(estimate.mean, 2) + 0.0  # no "-0.00"
    number = f"{mean:+.2f}" if sign else f"{mean:.2f}"
    if estimate.over_both is None:
        return number
    return f"{number} [{estimate.low:.2f}, {estimate.high:.2f}]"


def claims(dataset: str, fusions: Rows, ablations: Rows, sweep: Sweep) -> Iterator[Verdict]:
    """Every claim of the paper about a dataset of its own, for one profile."""
    main = fusions["MIN"]
    yield _level("CemoBAM reaches this accuracy (Tables I-IV)", main, accuracy(main[0].config), MARGIN)
    yield _level("it surpasses the best other method's WA (Tables III, IV)", main, BEST_OTHER[dataset], 0.0)
    yield _best("MIN is the best fusion (Table I)", fusions)
    yield _better("xCBAM adds to CH-GAT alone (Table II)", ablations, "w/o xCBAM")
    yield _better("CH-GAT adds to xCBAM alone (Table II)", ablations, "w/o CH-GAT")
    yield _topk(sweep)


def _level(claim: str, row: tuple[Row, Result], paper: float, margin: float) -> Verdict:
    config, result = row[0].config, row[1]
    if not result.complete:
        return Verdict(claim, f"{paper:.2f}", "–", MISSING)
    ours = result.estimate("wa")
    wanted = UTTERANCES[config.dataset]
    found = {split: result.description["data"][split]["utterances"] for split in wanted}
    if any(found[split] < WHOLE * wanted[split] for split in ("train", "test")):
        return Verdict(claim, f"{paper:.2f}", interval(ours), f"{NOT_TESTED}: {_share(found, wanted)}")
    return Verdict(claim, f"{paper:.2f}", interval(ours), level(ours, paper, margin))


def _share(found: dict[str, int], wanted: dict[str, int]) -> str:
    return f"{found['train']} of {wanted['train']} training utterances"


def _better(claim: str, rows: Rows, without: str) -> Verdict:
    """The first row of a table is better than the row ``without`` something."""
    (full_row, full), (row, result) = next(iter(rows.values())), rows[without]
    paper = accuracy(full_row.config) - accuracy(row.config)
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
    if sweep.best == sweep.papers:
        return Verdict(claim, "–", "the same cell is best on validation", REPRODUCED)
    ours = sweep.best_minus_papers
    text = f"k_text {sweep.best[0]}, k_audio {sweep.best[1]} on validation, test w-F1 {ours.mean:+.2f}"
    if ours.over_seeds is None:
        return Verdict(claim, "–", text, UNDECIDED)
    low = ours.mean - ours.over_seeds
    text += f" [{low:.2f}, {ours.mean + ours.over_seeds:.2f}] (seeds alone)"
    return Verdict(claim, "–", text, NOT_REPRODUCED if low > 0 else UNDECIDED)
