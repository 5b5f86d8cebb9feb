"""Classes: the label of each emotion in a corpus or manifest."""

from collections import Counter
from collections.abc import Sequence

import pandas as pd

from utils.data.corpora import Classes, normalize
from utils.data.manifest import check_spelling
from utils.errors import InputError, is_printable


def parse_classes(given: Sequence[str], known: Classes) -> Classes:
    """Parse ``--classes``, for example ``angry happy neutral=neutral+calm``: names in label order, or merged emotions.

    Args:
        known: the classes of the corpus. The name of such a class means all its emotions.

    Raises:
        InputError: a malformed or repeated name, fewer than two classes, or an emotion in two classes.
    """
    given = [normalize(word) for word in given]  # like the labels of a manifest
    classes: Classes = {}
    for word in given:
        name, equals, members = word.partition("=")
        emotions = members.split("+") if equals else [name] if name in known else []
        if not name or name in classes or "" in emotions or not is_printable(word):
            raise InputError(f"--classes {word}: expected NAME or NAME=EMOTION+EMOTION, with each name once")
        classes[name] = tuple(each for emotion in emotions for each in (*known.get(emotion, ()), emotion))
    option = f"--classes {' '.join(given)}"
    if len(classes) < 2:
        raise InputError(f"{option}: at least two classes are required")
    counts = Counter(emotion for spellings in _spellings(classes).values() for emotion in spellings)
    for emotion, count in counts.items():
        if count > 1:
            raise InputError(f"{option}: {emotion} is in two classes")
    return classes


def classes_of_manifest(table: pd.DataFrame, known: Classes, given: Classes | None) -> Classes:
    """Choose the classes of the utterances of a manifest.

    The ``given`` classes come first, then those of a known corpus. Otherwise the classes are derived from the labels:
    numbers in order from 0, or names in alphabetical order. In an unknown corpus with numeric labels, the given names
    refer to the labels 0, 1, ....

    Args:
        table: utterances with ``emotion`` (the label in the manifest) and ``where``.
        known: the classes of the corpus; {} for an unknown corpus.
        given: parsed ``--classes``. Other emotions are excluded on purpose.

    Raises:
        InputError: a label is not in ``known``, or the labels of an unknown corpus do not define classes.
    """
    first = table.drop_duplicates("emotion").set_index("emotion")["where"]  # where each label occurs first
    if given is not None:
        return _numbered(given) if not known and all(map(str.isdecimal, first.index)) else given
    if known:
        unknown = table[_labels(table, known).isna()]
        if len(unknown):
            emotion, where = unknown[["emotion", "where"]].iloc[0]
            raise InputError(f"{where}: label {emotion!r} is not one of {', '.join(known)}")
        return known
    return _derived(first)


def _derived(first: pd.Series) -> Classes:
    """Derive the classes of an unknown corpus. ``first`` says where each label occurs first."""
    names = [emotion for emotion in first.index if not emotion.isdecimal()]
    if names and len(names) < len(first):
        raise InputError(f"{first[names[0]]}: label {names[0]!r} is not a class number, unlike other labels")
    if len(first) < 2:
        raise InputError(f"{first.iloc[0]}: every label is {first.index[0]!r}; at least two classes are required")
    check_spelling(first[names], "label")
    if names:
        return dict.fromkeys(sorted(names), ())
    numbers = sorted(map(int, first.index))
    for i, number in enumerate(numbers):
        if i != number:
            raise InputError(
                f"{first.iloc[0].rsplit(':', 1)[0]}: label {i} is missing (the greatest is {numbers[-1]}); "
                "number the classes from 0 without gaps, or name them with --classes"
            )
    return {f"class {i}": (str(i),) for i in numbers}


def _numbered(given: Classes) -> Classes:
    """Apply the given classes to numeric labels."""
    if all(members or name.isdecimal() for name, members in given.items()):
        return given
    if any(given.values()) or any(name.isdecimal() for name in given):
        raise InputError(
            f"--classes {' '.join(given)}: the labels are numbers; give one name per number, in order from 0, "
            "or numbers for every name (angry=0 happy=1+2)"
        )
    return {name: (str(i),) for i, name in enumerate(given)}


def give_labels(table: pd.DataFrame, classes: Classes) -> tuple[pd.DataFrame, Counter]:
    """Add the column ``label`` and drop utterances that belong to no class.

    Returns:
        The labelled utterances, and the number of dropped utterances by emotion.
    """
    labels = _labels(table, classes)
    kept = table[labels.notna()].assign(label=labels.dropna().astype(int))
    return kept.reset_index(drop=True), Counter(table.loc[labels.isna(), "emotion"])


def _labels(table: pd.DataFrame, classes: Classes) -> pd.Series:
    """The label of each utterance; NaN if its emotion belongs to no class."""
    label_of = {emotion: i for i, spellings in enumerate(_spellings(classes).values()) for emotion in spellings}
    return table["emotion"].str.casefold().map(label_of)


def _spellings(classes: Classes) -> dict[str, set[str]]:
    """The case-folded names of each class and its emotions."""
    return {name: {each.casefold() for each in (name, *members)} for name, members in classes.items()}
