"""The report of ``compare.py``: WA and UA of two systems, their difference, and whether chance can explain it."""

from dataclasses import asdict, dataclass

import numpy as np

from utils.data.identity import ID
from utils.errors import InputError, printable, shown
from utils.io import align, environment_info
from utils.statistics import (
    FEWEST,
    LEVEL,
    Clustered,
    Swaps,
    cluster_counts,
    clustered,
    clusters_of,
    detectable,
    points,
    swap_test,
    with_interval,
)
from utils.training.matching import Answers, Pair
from utils.training.metrics import METRICS, metric_over_seeds

COMPARED = ("wa", "ua")  # given the labels, they are sums over clusters, which the test requires
FEW = 10  # with fewer clusters, a warning is printed


@dataclass(frozen=True)
class Compared:
    """A metric for A, B and B - A, with the test of the difference."""

    a: Clustered
    b: Clustered
    difference: Clustered
    test: Swaps

    @property
    def is_shown(self) -> bool:
        """Whether both the interval and the test show a difference."""
        low, high = self.difference.low, self.difference.high
        return low is not None and (low > 0 or high < 0) and self.test.p <= 1 - LEVEL


@dataclass(frozen=True)
class Comparison:
    """The metrics of a pair, from the counts [clusters, 2, C, C] of A and B, which are summed over the seeds."""

    pair: Pair
    kind: str  # of the clusters
    names: tuple[str, ...]  # of the clusters
    counts: np.ndarray
    metrics: dict[str, Compared]

    @property
    def clusters(self) -> str:
        return f"{len(self.names)} {self.kind}{'s' * (len(self.names) != 1)}"

    @property
    def warnings(self) -> list[str]:
        found = []
        if self.kind == "utterance":
            found.append("utterances of one speaker are treated as independent, but are not; add a column speaker")
        elif len(self.names) < FEW:
            found.append(f"only {self.clusters}: intervals are wide (t with {len(self.names) - 1} degrees of freedom)")
        if (smallest := self.metrics["wa"].test.smallest) > 1 - LEVEL:
            found.append(f"p cannot be below {smallest:.2g}, so no difference can be shown at the 5 % level")
        return found

    @property
    def conclusion(self) -> str:
        """One sentence."""
        if len(self.names) < FEWEST:
            return f"No conclusion: {self.clusters} are too few for an interval."
        values = {METRICS[name]: each for name, each in self.metrics.items()}
        found = {name: each.difference.value for name, each in values.items() if each.is_shown}
        if not found:
            least = {name: detectable(each.difference) for name, each in values.items()}
            text = " or ".join(f"{points(size)} points in {name}" for name, size in least.items() if size)
            power = f"; a true difference of {text} would be shown with 80 % probability" if text else ""
            return f"No difference between A and B is shown{power}."
        better = []
        for side, sign in (("A", -1), ("B", 1)):
            if by := [f"in {name} by {points(abs(d))} points" for name, d in found.items() if d * sign > 0]:
                better.append(f"{side} is better {' and '.join(by)}")
        rest = "".join(f"; in {name}, no difference is shown" for name in values if name not in found)
        return f"{' and '.join(better)}, more than random variation between {self.kind}s explains{rest}."

    def text(self) -> str:
        pair, test, kind = self.pair, self.metrics["wa"].test, self.kind
        lines = [f"{name}  {_described(answers)}" for name, answers in (("A", pair.a), ("B", pair.b))]
        lines.append(f"{len(pair.label)} utterances, matched by {pair.matched_by}; clusters: {self.clusters}")
        if any(pair.left_out):
            lines.append(f"left out: {pair.left_out[0]} utterances that only A has, {pair.left_out[1]} that only B has")
        rows = [("percent", "A", "B", "B - A", "p", "detectable")]
        for name, each in self.metrics.items():
            least = detectable(each.difference)
            values = (with_interval(each.a), with_interval(each.b), with_interval(each.difference, sign=True))
            rows.append((METRICS[name], *values, f"{each.test.p:.2g}", "–" if least is None else points(least)))
        lines += ["", *align(rows), "", "B - A  above 0, B is better; below 0, A is better"]
        if len(self.names) >= FEWEST:
            degrees = len(self.names) - 1
            method = f"jackknife, t with {degrees} degrees of freedom"
            lines.append(f"[ ]  95 % interval over {kind}s, for these seeds: {method}")
        swaps = f"{f'all {test.swaps}' if test.exact else f'{test.swaps} random'} swaps of A and B by whole {kind}s"
        lines += [
            f"p  share of {swaps} with a difference at least as large; at least {test.smallest:.2g}",
            "detectable  the smallest true difference that such a test set shows with 80 % probability",
        ]
        return "\n".join([*lines, *(f"warning: {each}" for each in self.warnings), "", self.conclusion])

    def to_dict(self) -> dict:
        """Everything for a JSON file, with WA by cluster unless each utterance is its own cluster."""
        pair, by_cluster = self.pair, []
        if self.kind != "utterance":
            number = self.counts.sum((2, 3))
            accuracy = 100 * self.counts.trace(axis1=2, axis2=3) / number
            for name, n, (a, b) in zip(self.names, number[:, 0].tolist(), accuracy.tolist(), strict=True):
                by_cluster.append({"name": name, "utterances": n // len(pair.a.seeds), "wa_a": a, "wa_b": b})
        return {
            "a": {"path": str(pair.a.path), "seeds": list(pair.a.seeds)},
            "b": {"path": str(pair.b.path), "seeds": list(pair.b.seeds)},
            "utterances": len(pair.label),
            "matched_by": pair.matched_by,
            "left_out": {"a": pair.left_out[0], "b": pair.left_out[1]},
            "class_names": list(pair.class_names),
            "clusters": {"kind": self.kind, "number": len(self.names), "wa": by_cluster},
            "metrics": {
                name: {**asdict(each), "detectable": detectable(each.difference)} for name, each in self.metrics.items()
            },
            "warnings": self.warnings,
            "conclusion": self.conclusion,
            **environment_info("numpy", "scipy"),
        }


def compare(pair: Pair, by: str | None = None) -> Comparison:
    """Compare two systems.

    Args:
        by: ``speaker``, ``session``, ``dialogue`` or ``utterance``; None to use :func:`~utils.statistics.clusters_of`.

    Raises:
        InputError: an utterance has no value for ``by``.
    """
    identity = pair.identity
    if by not in (None, "utterance") and not all(identity[by]):
        raise InputError(f"--by {by}: {shown(identity[ID][identity[by].index('')])} has no {by}")
    kind = by or clusters_of(identity)[0]
    names, codes = np.unique(identity[ID if kind == "utterance" else kind], return_inverse=True)
    size = len(pair.class_names)
    # Sums over the seeds give the mean WA and UA, and integers have no rounding error if a class is left out
    counts = np.stack([cluster_counts(pair.label, each, codes, size).sum(1) for each in pair.predictions], 1)
    found = {}
    for name, share in zip(COMPARED, _shares(counts), strict=True):
        metric = metric_over_seeds(name)
        a, b = (clustered(counts[:, [side]], metric) for side in range(2))
        difference = clustered(counts[:, :, None], metric, (-100, 100))
        found[name] = Compared(a, b, difference, swap_test(share))
    return Comparison(pair, kind, tuple(names.tolist()), counts, found)


def _shares(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The contribution of each cluster to B - A in WA and in UA, as fractions that sum to the difference."""
    hits, support = np.diagonal(counts, axis1=2, axis2=3), counts.sum((0, 3))  # [clusters, 2, C], [2, C]
    occurs = support[0] > 0
    wa = hits.sum(2) / support.sum(1)
    ua = (hits[..., occurs] / support[:, occurs]).mean(2)
    return wa[:, 1] - wa[:, 0], ua[:, 1] - ua[:, 0]


def _described(answers: Answers) -> str:
    seeds = [seed for seed in answers.seeds if seed]
    named = f", mean of seeds {', '.join(seeds)}" if len(seeds) > 1 else f", seed {seeds[0]}" if seeds else ""
    return printable(f"{answers.path}{named}")
