"""Train, val and test splits of a table of utterances.

Without ``--split``, the first rule that applies selects the kind of split:

1. ``official``: the manifest has a column ``split``, or three manifests are given.
2. By group, in at most 10 folds of whole groups: every usable utterance names its speaker, and there are at least 3
   speakers. The group is ``session`` if every usable utterance also names its session, there are at least 3 sessions
   and no speaker is in two of them; otherwise it is ``speaker``.
3. ``random``: a note explains why.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from utils.config import SPLITS
from utils.data.config import FEWEST_GROUPS, GROUPED, MOST_FOLDS, SEED
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
        kind: one of :data:`~utils.data.config.KINDS`. None applies the rules above.
        fold, folds: for a split by group; see :func:`group_split`. ``fold`` is 1 by default.
        seed: for a random split; :data:`~utils.data.config.SEED` by default.

    Returns:
        The split of each row, and a description for the JSON of the features.
    """
    default = kind is None
    if default:
        kind = _default_kind(table)
    for option, value, kinds in (("fold", fold, GROUPED), ("folds", folds, GROUPED), ("seed", seed, ("random",))):
        if value is not None and kind not in kinds:
            raise InputError(f"--{option} {value}: only for --split {' or '.join(kinds)}; this split is {kind}")
    if kind == "official":
        return _official_split(table), {"kind": kind, "manifests": [str(path.absolute()) for path in manifests]}
    if kind == "random":
        seed = SEED if seed is None else seed
        return random_split(table, seed), {"kind": kind, "seed": seed}
    fold = 1 if fold is None else fold
    if default and folds is None:
        folds = min(MOST_FOLDS, len(_names(table, kind)))
    split, members = group_split(table, kind, fold, folds)
    print(f"fold {fold}: " + "; ".join(f"{name} {kind} {', '.join(members[name])}" for name in SPLITS))
    return split, {"kind": kind, "fold": fold, "members": members}


def _default_kind(table: pd.DataFrame) -> str:
    """The kind of split without ``--split``. If it is random, print why."""
    if "split" in table:
        return "official"
    unnamed = {group: int(((table[group] == "") & (table["problem"] == "")).sum()) for group in GROUPED}
    counts = {group: len(_names(table, group)) for group in GROUPED}
    if unnamed["speaker"] or counts["speaker"] < FEWEST_GROUPS:
        if unnamed["speaker"]:
            why = f"{unnamed['speaker']} of {len(table)} utterances name no speaker"
        else:
            why = f"there are only {counts['speaker']} speakers"
        print(f"note: {why}, so the split is random: speakers in test may also be in train")
        return "random"
    if unnamed["session"] or counts["session"] < FEWEST_GROUPS:
        return "speaker"
    pairs = table.loc[table[list(GROUPED)].ne("").all(axis=1), list(GROUPED)].drop_duplicates()
    return "session" if pairs["speaker"].is_unique else "speaker"


def _names(table: pd.DataFrame, group: str) -> list[str]:
    """The names of the groups in a column, sorted."""
    return sorted(set(table[group]) - {""})


def _official_split(table: pd.DataFrame) -> pd.Series:
    if "split" not in table:
        raise InputError(
            "--split official: needs manifests; give --metadata TRAIN.csv VAL.csv TEST.csv "
            "(the authors' repository has the published ones), or one CSV with a column split"
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
    from sklearn.model_selection import train_test_split  # takes a second to import

    counts = table["label"].value_counts()
    if counts.min() < 10:
        smallest = f"utterances of class {counts.idxmin()}: {counts.min()}"
        raise InputError(f"--split random: at least 10 utterances per class are required; {smallest}")
    _, rest = train_test_split(table["label"], test_size=0.2, stratify=table["label"], random_state=seed)
    val, test = train_test_split(rest, test_size=0.5, stratify=rest, random_state=seed)
    split = pd.Series("train", index=table.index)
    split[val.index], split[test.index] = "val", "test"
    return split


def divide_groups(names: Sequence[str], folds: int | None, option: str) -> list[list[str]]:
    """Divide speakers or sessions, sorted by name, into folds of nearly equal size; None: one fold per group.

    Raises:
        InputError: there are fewer than 3 folds, or more folds than groups; ``option`` names the kind of group.
    """
    folds = len(names) if folds is None else folds
    if not FEWEST_GROUPS <= folds <= len(names):
        kind = option.split()[-1]
        required = f"at least {FEWEST_GROUPS} folds, each with a {kind}, are required"
        raise InputError(f"{option}: {folds} folds of {len(names)} {kind}s; {required}")
    return [list(part) for part in np.array_split(np.array(names, dtype=object), folds)]


def group_split(table: pd.DataFrame, group: str, fold: int, folds: int | None) -> tuple[pd.Series, dict]:
    """Split by speaker or session into the folds of :func:`divide_groups`: no group is in two splits.

    Fold number ``fold``, counted from 1, is test. The next fold (cyclically) is val. The others are train.

    Returns:
        The split of each row, and the groups of each split.
    """
    unknown = table.loc[(table[group] == "") & (table["problem"] == ""), "audio_file"]
    if len(unknown):
        raise InputError(f"--split {group}: {len(unknown)} utterances have no {group}, the first is {unknown.iloc[0]}")
    groups = _names(table, group)
    parts = divide_groups(groups, folds, f"--split {group}")
    if not 1 <= fold <= len(parts):
        raise InputError(f"--fold {fold}: must be from 1 to {len(parts)}")
    test, val = parts[fold - 1], parts[fold % len(parts)]
    members = {"train": [name for name in groups if name not in (*test, *val)], "val": val, "test": test}
    split_of = {name: split for split, names in members.items() for name in names}
    return table[group].map(split_of).fillna(""), members


def check_splits(table: pd.DataFrame, class_names: list[str], kind: str) -> None:
    """Raise an InputError if a split is empty or train lacks a class; print a note if val or test does.

    Args:
        kind: the kind of split.
    """
    way_out = f" (split by {kind}; try another --fold or --split random)" if kind in GROUPED else ""
    for split in SPLITS:
        if not (table["split"] == split).any():
            raise InputError(f"the {split} split is empty{way_out}")
    for split in SPLITS:
        present = set(table.loc[table["split"] == split, "label"])
        lacking = [f"class {label}, {name}" for label, name in enumerate(class_names) if label not in present]
        if lacking and split == "train":
            raise InputError(f"the train split has no utterance of {lacking[0]}{way_out}")
        if lacking:
            print(f"note: the {split} split has no utterance of {'; '.join(lacking)}")
