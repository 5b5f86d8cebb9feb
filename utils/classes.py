"""From the emotions of a corpus or a CSV to labels: which emotion is of which class."""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations

import pandas as pd

from utils.errors import InputError

Classes = dict[str, tuple[str, ...]]  # class names in label order, and the emotions that each joins beside its own name


def parse_classes(given: Sequence[str], known: Classes) -> Classes:
    """``angry happy neutral=neutral+calm``: class names in label order, some joining several emotions.

    Args:
        known: the corpus's own classes, whose names may be used for the emotions that they join.

    Raises:
        InputError: fewer than two, or a name or an emotion twice.
    """
    classes: Classes = {}
    for word in given:
        name, _, members = word.partition("=")
        if not name or name in classes or ("=" in word and not all(members.split("+"))):
            raise InputError(f"--classes {word}: expected NAME or NAME=EMOTION+EMOTION, each name once")
        emotions = members.split("+") if members else [name] if name in known else []
        classes[name] = tuple(each for emotion in emotions for each in (*known.get(emotion, ()), emotion))
    if len(classes) < 2:
        raise InputError(f"--classes {' '.join(given)}: at least two are needed")
    counts = Counter(emotion for members in _lookup(classes).values() for emotion in members)
    twice = [emotion for emotion, count in counts.items() if count > 1]
    if twice:
        raise InputError(f"--classes {' '.join(given)}: {twice[0]} is in two classes")
    return classes


def classes_of_labels(table: pd.DataFrame, given: Classes | None) -> Classes:
    """The classes of a CSV of an unknown dataset: its numbers in order from 0, or its names in the alphabet's.

    Args:
        given: what ``--classes`` says. Where the labels are numbers, plain names stand for 0, 1, ... in their order.

    Raises:
        InputError: numbers and names mixed, a number left out, or one class alone.
    """
    emotions = sorted(table["emotion"].unique())
    numbers = [emotion for emotion in emotions if emotion.isdecimal()]
    if given is not None:
        return _named(given) if len(numbers) == len(emotions) else given
    if numbers and len(numbers) < len(emotions):
        odd = next(emotion for emotion in emotions if emotion not in numbers)
        row = table[table["emotion"] == odd].iloc[0]
        raise InputError(f"{row['where']}: label {odd!r}, where others are numbers")
    if len(emotions) < 2:
        raise InputError(f"{table['where'].iloc[0]}: every label is {emotions[0]!r}; at least two are needed")
    if not numbers:
        alike = next((pair for pair in combinations(emotions, 2) if pair[0].casefold() == pair[1].casefold()), None)
        if alike:
            where = table.loc[table["emotion"] == alike[1], "where"].iloc[0]
            raise InputError(f"{where}: label {alike[1]!r}, which others write {alike[0]!r}")
        return dict.fromkeys(emotions, ())
    greatest = max(map(int, numbers))
    missing = next((i for i in range(greatest) if str(i) not in numbers), None)
    if missing is not None:
        raise InputError(
            f"{table['where'].iloc[0].rsplit(':', 1)[0]}: labels go to {greatest}, but none is {missing}; "
            "numbers count from 0 without a gap, or --classes names them"
        )
    return {f"class {i}": (str(i),) for i in range(greatest + 1)}


def _named(given: Classes) -> Classes:
    """The classes of labels that are numbers."""
    if all(members or name.isdecimal() for name, members in given.items()):
        return given
    if any(given.values()) or any(name.isdecimal() for name in given):
        raise InputError(
            f"--classes {' '.join(given)}: the labels are numbers; give a name for each, in order from 0, "
            "or numbers to every name (angry=0 happy=1+2)"
        )
    return {name: (str(i),) for i, name in enumerate(given)}


def give_labels(table: pd.DataFrame, classes: Classes) -> tuple[pd.DataFrame, Counter]:
    """Add the column ``label``; utterances of no class are left out.

    Returns:
        The rest, and how many utterances of each emotion were left out.
    """
    label_of = {emotion: label for label, emotions in enumerate(_lookup(classes).values()) for emotion in emotions}
    labels = table["emotion"].str.casefold().map(label_of)
    left_out = Counter(table.loc[labels.isna(), "emotion"])
    kept = table[labels.notna()].copy()
    kept["label"] = labels[labels.notna()].astype(int)
    return kept.reset_index(drop=True), left_out


def _lookup(classes: Classes) -> dict[str, set[str]]:
    """Every spelling of a class: its name alone, or the emotions that it joins and its name."""
    return {name: {name.casefold(), *(member.casefold() for member in members)} for name, members in classes.items()}
