"""What the test split shares with train."""

from collections import Counter

import pandas as pd
import torch

from utils.corpora import GROUPS
from utils.metrics import compute_metrics


def overlap_report(table: pd.DataFrame, num_classes: int) -> dict:
    """What test shares with train, and what a lookup of the transcript alone would score on test.

    The lookup answers the most frequent label that the same transcript has in train, and train's most frequent class
    for a transcript that is new.

    Returns:
        ``shared``: for speaker, session, dialogue and transcript (None where the corpus has none) the number of values
        in test, of those also in train, and of test utterances with these; ``lookup`` and ``majority``: WA and UA, as
        fractions, of the lookup and of always answering the most frequent class.
    """
    train, test = (table[table["split"] == split] for split in ("train", "test"))
    shared = {}
    for name, column in [(group, group) for group in GROUPS] + [("transcript", "raw_text")]:
        known = set(train[column]) - {""}
        values = set(test[column]) - {""}
        shared[name] = {
            "in_test": len(values),
            "also_in_train": len(values & known),
            "test_utterances": int(test[column].isin(known).sum()),
        }
        if not values and not known:
            shared[name] = None
    frequency = Counter(train["label"])
    most_frequent = max(frequency, key=lambda label: (frequency[label], -label))
    labels_of = train.groupby("raw_text")["label"].agg(Counter)

    def answer(text: str) -> int:
        counts = labels_of.get(text)
        if counts is None:
            return most_frequent
        return max(counts, key=lambda label: (counts[label], frequency[label], -label))

    truth = torch.tensor(test["label"].tolist())
    guesses = {"lookup": [answer(text) for text in test["raw_text"]], "majority": [most_frequent] * len(test)}
    scores = {name: compute_metrics(truth, torch.tensor(guess), num_classes) for name, guess in guesses.items()}
    scores = {name: {figure: score[figure] for figure in ("wa", "ua")} for name, score in scores.items()}
    return {"test_utterances": len(test), "shared": shared, **scores}


def overlap_lines(report: dict) -> str:
    """The report in words, a line each."""
    lines = ["overlap of test with train"]
    total = report["test_utterances"]
    for name, shared in report["shared"].items():
        if shared is None:
            lines.append(f"  {name + 's':<12} not known")
            continue
        share = 100 * shared["test_utterances"] / total
        lines.append(
            f"  {name + 's':<12} {shared['also_in_train']} of {shared['in_test']} also in train, "
            f"with {shared['test_utterances']} of {total} test utterances ({share:.1f} %)"
        )
    lookup, majority = ({k: f"{100 * v:.2f}" for k, v in report[name].items()} for name in ("lookup", "majority"))
    lines.append(
        f"  a lookup of the transcript alone: WA {lookup['wa']}, UA {lookup['ua']} percent "
        f"(always the most frequent class: {majority['wa']}, {majority['ua']})"
    )
    return "\n".join(lines)
