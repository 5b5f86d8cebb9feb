"""The train/test leakage report: what the test split shares with train."""

from collections import Counter

import pandas as pd

from utils.data.corpora import GROUPS


def leakage_report(table: pd.DataFrame) -> dict:
    """Count what test shares with train, and score a transcript lookup on test.

    The lookup predicts the most frequent train label of the same transcript. For an unseen transcript, it predicts the
    most frequent train class.

    Args:
        table: utterances with ``split``, ``label``, ``raw_text`` and the columns :data:`~utils.data.corpora.GROUPS`.

    Returns:
        - ``test_utterances``: the number of test utterances.
        - ``shared``: for speaker, session, dialogue and transcript (None if unknown), the number of values in test, how
          many of these are also in train, and the number of test utterances that have one of the shared values.
        - ``lookup`` and ``majority``: WA and UA, as fractions, of the lookup and of the most frequent class.
    """
    train, test = (table[table["split"] == split] for split in ("train", "test"))
    shared = {group: _shared(train[group], test[group]) for group in GROUPS}
    shared["transcript"] = _shared(train["raw_text"], test["raw_text"])
    frequency = Counter(train["label"])

    def most_frequent(labels: pd.Series) -> int:
        counts = Counter(labels)
        return max(counts, key=lambda label: (counts[label], frequency[label], -label))

    majority = most_frequent(train["label"])
    lookup = test["raw_text"].map(train.groupby("raw_text")["label"].agg(most_frequent)).fillna(majority)
    scores = {
        "lookup": _scores(test["label"], lookup.astype(int)),
        "majority": _scores(test["label"], pd.Series(majority, index=test.index)),
    }
    return {"test_utterances": len(test), "shared": shared, **scores}


def _shared(train: pd.Series, test: pd.Series) -> dict[str, int] | None:
    known, values = set(train) - {""}, set(test) - {""}
    if not known and not values:
        return None
    return {
        "in_test": len(values),
        "also_in_train": len(values & known),
        "test_utterances": int(test.isin(known).sum()),
    }


def _scores(label: pd.Series, predicted: pd.Series) -> dict[str, float]:
    from sklearn.metrics import accuracy_score, recall_score  # takes a second to import

    # balanced_accuracy_score warns about predicted classes that test lacks
    recall = recall_score(label, predicted, labels=label.unique(), average="macro")
    return {"wa": float(accuracy_score(label, predicted)), "ua": float(recall)}


def leakage_lines(report: dict) -> str:
    """Format a leakage report, one line per item."""
    lines = ["train/test leakage"]
    total = report["test_utterances"]
    for name, shared in report["shared"].items():
        if shared is None:
            lines.append(f"  {name + 's':<12} unknown")
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
