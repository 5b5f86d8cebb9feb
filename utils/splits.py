"""How utterances are divided into train, val and test."""

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from utils.errors import InputError
from utils.features import SPLITS

GROUPED = ("session", "speaker")
KINDS = ("official", "random", *GROUPED)
SEED = 42  # of a random split, where none is given


def random_split(table: pd.DataFrame, seed: int) -> pd.Series:
    """80 / 10 / 10 percent, each class in these shares, utterances shuffled by ``seed``.

    Raises:
        InputError: a class has too few utterances.
    """
    counts = table["label"].value_counts()
    if counts.min() < 10:
        raise InputError(f"--split random: a class of {counts.min()} utterances; at least 10 are needed")
    train, rest = train_test_split(table.index, test_size=0.2, stratify=table["label"], random_state=seed)
    val, test = train_test_split(rest, test_size=0.5, stratify=table.loc[rest, "label"], random_state=seed)
    return _assign(table, {"train": train, "val": val, "test": test})


def group_split(table: pd.DataFrame, group: str, fold: int, folds: int | None) -> tuple[pd.Series, dict]:
    """Leave speakers or sessions out: the groups, in order of their names, make ``folds`` folds as equal as can be.

    Fold ``fold`` is test, the next (after the last, the first) val, the others train; so no group is in two splits.

    Args:
        group: ``speaker`` or ``session``.
        fold: from 1.
        folds: None for a fold for each group.

    Returns:
        The split of each row, and the groups of each split.

    Raises:
        InputError: an utterance (a good one) without a group, fewer than three folds, more folds than groups, or no
            such fold.
    """
    unknown = table[(table[group] == "") & (table["problem"] == "")]
    if len(unknown):
        first = unknown["audio_file"].iloc[0]
        raise InputError(f"--split {group}: {len(unknown)} utterances have no {group}, the first is {first}")
    groups = sorted(set(table[group]) - {""})
    folds = len(groups) if folds is None else folds
    if not 3 <= folds <= len(groups):
        raise InputError(f"--split {group}: {folds} folds of {len(groups)} {group}s; at least 3 of each are needed")
    if not 1 <= fold <= folds:
        raise InputError(f"--fold {fold}: there are folds 1 to {folds}")
    parts = [list(part) for part in np.array_split(np.array(groups, dtype=object), folds)]
    test, val = parts[fold - 1], parts[fold % folds]
    train = [name for name in groups if name not in (*test, *val)]
    members = {"train": train, "val": val, "test": test}
    return _assign(table, {s: table.index[table[group].isin(names)] for s, names in members.items()}), members


def check_split_column(table: pd.DataFrame) -> None:
    """Raise an InputError where ``split`` holds anything but the three names."""
    odd = table[~table["split"].isin(SPLITS)]
    if len(odd):
        raise InputError(f"{odd['where'].iloc[0]}: split {odd['split'].iloc[0]!r}: expected {', '.join(SPLITS)}")


def check_splits(table: pd.DataFrame, class_names: list[str]) -> None:
    """Raise an InputError where a split is empty, or train lacks a class."""
    for split in SPLITS:
        if not (table["split"] == split).any():
            raise InputError(f"the {split} split is empty")
    present = set(table.loc[table["split"] == "train", "label"])
    for label, name in enumerate(class_names):
        if label not in present:
            raise InputError(f"the train split has no utterance of class {label}, {name}")


def _assign(table: pd.DataFrame, rows: dict) -> pd.Series:
    split = pd.Series("", index=table.index)
    for name, index in rows.items():
        split.loc[index] = name
    return split
