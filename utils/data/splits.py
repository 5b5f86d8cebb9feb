"""Train, val and test splits of a table of utterances."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from utils.config import SPLITS
from utils.data.config import GROUPED, SEED
from utils.errors import InputError


def split_utterances(
    table: pd.DataFrame,
    manifests: Sequence[Path],
    kind: str | None,
    fold: int | None,
    folds: int | None,
    seed: int | None,
) -> tuple[pd.Series, dict]:
    """Split a table of utterances.

    Args:
        manifests: the files that the table was read from.
        kind: one of :data:`~utils.data.config.KINDS`; None for official if the table has a column ``split``, otherwise
            random.
        fold, folds: of a split by group, see :func:`group_split`; ``fold`` is 1 by default.
        seed: of a random split, :data:`~utils.data.config.SEED` by default.

    Returns:
        The split of each row, and the description for the features' JSON.
    """
    kind = kind or ("official" if "split" in table else "random")
    for option, value, kinds in (("fold", fold, GROUPED), ("folds", folds, GROUPED), ("seed", seed, ("random",))):
        if value is not None and kind not in kinds:
            raise InputError(f"--{option} {value}: only for --split {' or '.join(kinds)}; this split is {kind}")
    if kind == "official":
        return _official_split(table), {"kind": kind, "manifests": [str(path.absolute()) for path in manifests]}
    if kind == "random":
        seed = SEED if seed is None else seed
        return random_split(table, seed), {"kind": kind, "seed": seed}
    fold = 1 if fold is None else fold
    split, members = group_split(table, kind, fold, folds)
    print(f"fold {fold}: " + "; ".join(f"{name} {kind} {', '.join(members[name])}" for name in SPLITS))
    return split, {"kind": kind, "fold": fold, "members": members}


def _official_split(table: pd.DataFrame) -> pd.Series:
    if "split" not in table:
        raise InputError(
            "--split official: needs manifests; give --metadata TRAIN.csv VAL.csv TEST.csv "
            "(the published ones are in the authors' repository), or one CSV with a column split"
        )
    invalid = table[~table["split"].isin(SPLITS)]
    if len(invalid):
        where, split = invalid[["where", "split"]].iloc[0]
        raise InputError(f"{where}: split {split!r}: expected {', '.join(SPLITS)}")
    return table["split"]


def random_split(table: pd.DataFrame, seed: int) -> pd.Series:
    """Stratified random split, 80 / 10 / 10 percent of each class.

    Raises:
        InputError: a class has fewer than 10 utterances.
    """
    from sklearn.model_selection import train_test_split  # scikit-learn takes a second to import

    smallest = table["label"].value_counts().min()
    if smallest < 10:
        raise InputError(f"--split random: a class has {smallest} utterances; at least 10 are required")
    _, rest = train_test_split(table["label"], test_size=0.2, stratify=table["label"], random_state=seed)
    val, test = train_test_split(rest, test_size=0.5, stratify=rest, random_state=seed)
    split = pd.Series("train", index=table.index)
    split[val.index], split[test.index] = "val", "test"
    return split


def group_split(table: pd.DataFrame, group: str, fold: int, folds: int | None) -> tuple[pd.Series, dict]:
    """Split by speaker or session: no group is in two splits.

    The groups, sorted by name, are divided into ``folds`` folds of nearly equal size (None: one fold per group). Fold
    ``fold``, counted from 1, is test, the next one (cyclically) val, the others are train.

    Returns:
        The split of each row, and the groups of each split.
    """
    unknown = table.loc[(table[group] == "") & (table["problem"] == ""), "audio_file"]
    if len(unknown):
        raise InputError(f"--split {group}: {len(unknown)} utterances have no {group}, the first is {unknown.iloc[0]}")
    groups = sorted(set(table[group]) - {""})
    folds = len(groups) if folds is None else folds
    if not 3 <= folds <= len(groups):
        raise InputError(f"--split {group}: {folds} folds of {len(groups)} {group}s; at least 3 of each are required")
    if not 1 <= fold <= folds:
        raise InputError(f"--fold {fold}: must be from 1 to {folds}")
    parts = [list(part) for part in np.array_split(np.array(groups, dtype=object), folds)]
    test, val = parts[fold - 1], parts[fold % folds]
    members = {"train": [name for name in groups if name not in (*test, *val)], "val": val, "test": test}
    split_of = {name: split for split, names in members.items() for name in names}
    return table[group].map(split_of).fillna(""), members


def check_splits(table: pd.DataFrame, class_names: list[str]) -> None:
    """Raise an InputError if a split is empty or train lacks a class."""
    for split in SPLITS:
        if not (table["split"] == split).any():
            raise InputError(f"the {split} split is empty")
    present = set(table.loc[table["split"] == "train", "label"])
    for label, name in enumerate(class_names):
        if label not in present:
            raise InputError(f"the train split has no utterance of class {label}, {name}")
