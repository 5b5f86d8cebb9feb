"""Folds: which utterances are train, val and test in each fold, as data for training runs."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from utils.config import SPLITS, class_names, feature_path, known_class_names
from utils.data.config import SEED
from utils.data.features import Features, check_described, check_sizes, load_features, read_info
from utils.data.identity import ATTRIBUTES, ID, write_csv
from utils.data.published import fetch_features, find_features
from utils.data.splits import divide_groups
from utils.errors import InputError, shown
from utils.folds.config import POOLED, RANDOM_FOLDS, VALIDATION
from utils.io import atomic_write, read_file
from utils.training.graph import TrainingData

TRAIN, VAL, TEST = range(len(SPLITS))


@dataclass(frozen=True)
class Pool:
    """All utterances of a dataset."""

    dataset: str
    features: Features
    class_names: tuple[str, ...]

    def groups(self, name: str) -> np.ndarray:
        """``speaker`` or ``session`` of each utterance, [N]."""
        return np.array(self.features.identity[name], dtype=object)


def read_pool(dataset: str, feature_dir: Path, splits: Sequence[str] = (), download: bool = False) -> Pool:
    """Pool the feature pickles of a dataset, each with the CSV of the same name.

    Args:
        splits: names from :data:`POOLED`; empty for all that exist.
        download: fetch the published features first.

    Raises:
        InputError: there are no pickles, they do not fit each other, or an utterance occurs twice.
    """
    if download:
        fetch_features(feature_dir, dataset, splits or SPLITS)
    elif dataset == "DEMO":
        find_features(dataset, feature_dir, {}, download)
    paths = {split: feature_path(feature_dir, dataset, split) for split in splits or POOLED}
    if not splits:
        paths = {split: path for split, path in paths.items() if path.is_file()}
        if not paths:
            names = ", ".join(feature_path(feature_dir, dataset, split).name for split in POOLED)
            raise InputError(f"{feature_dir}: no features of {dataset} (none of {names} exists)")
    info = read_info(feature_path(feature_dir, dataset, "train"))
    names = known_class_names(dataset, info)
    parts = [load_features(path) for path in paths.values()]
    for split, part in zip(paths, parts, strict=True):
        check_described(part, split, names)
    classes = len(names) if names else 1 + max(int(part.label.max()) for part in parts)
    where: dict[str, Path] = {}
    for part in parts:
        check_sizes(part, parts[0].dims, classes, parts[0].path)
        for recording in part.identity[ID]:
            if where.setdefault(recording, part.path) != part.path:
                raise InputError(
                    f"{part.path}: {shown(recording)} is also in {where[recording]}; select pickles with --splits"
                )
    text, audio, label = (torch.cat([getattr(part, name) for part in parts]) for name in ("text", "audio", "label"))
    identity = {name: sum((part.identity[name] for part in parts), ()) for name in parts[0].identity}
    sha256 = parts[0].sha256 if len(parts) == 1 else _digest(text, audio, label)
    pooled = Features(parts[0].path, text, audio, label, identity, sha256)
    return Pool(dataset, pooled, class_names(dataset, classes, names))


def _digest(*tensors: torch.Tensor) -> str:
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in tensors)).hexdigest()


@dataclass(frozen=True)
class Protocol:
    """One way to divide a pool into folds.

    Attributes:
        folder: the folder of the runs. Its ``folds.csv`` has the split of every utterance in every fold.
        split: TRAIN, VAL or TEST, [folds, N]. Every utterance is TEST in exactly one fold.
    """

    pool: Pool
    by: str
    val: str
    folder: Path
    split: np.ndarray

    @property
    def title(self) -> str:
        by = {"random": "at random", "files": "from the fold files"}.get(self.by, f"by {self.by}")
        return f"{by} (validation: {VALIDATION[self.val]})"

    @property
    def folds(self) -> range:
        return range(1, len(self.split) + 1)

    @property
    def fold(self) -> np.ndarray:
        """The fold in which each utterance is tested, from 1, [N]."""
        return (self.split == TEST).argmax(0) + 1

    @cached_property
    def data(self) -> dict[int, TrainingData]:
        """The data of each fold."""
        return {fold: self._data(of_fold) for fold, of_fold in zip(self.folds, self.split, strict=True)}

    def rows(self, fold: int, split: int = TEST) -> np.ndarray:
        return np.flatnonzero(self.split[fold - 1] == split)

    def _data(self, of_fold: np.ndarray) -> TrainingData:
        splits = {}
        for number, name in enumerate(SPLITS):
            rows = np.flatnonzero(of_fold == number)
            text, audio, label = (getattr(self.pool.features, each)[rows] for each in ("text", "audio", "label"))
            identity = {
                each: tuple(values[row] for row in rows) for each, values in self.pool.features.identity.items()
            }
            splits[name] = Features(self.path, text, audio, label, identity, _digest(text, audio, label))
        return TrainingData(splits, self.pool.class_names)

    @property
    def path(self) -> Path:
        return self.folder / "folds.csv"

    def write(self) -> None:
        """Write ``folds.csv``.

        Raises:
            InputError: the file exists with other utterances or folds.
        """
        identity = self.pool.features.identity
        rows = [(ID, *ATTRIBUTES, "label", *(f"fold{fold}" for fold in self.folds))]
        rows += zip(
            *(identity[name] for name in (ID, *ATTRIBUTES)),
            self.pool.features.label.tolist(),
            *([SPLITS[number] for number in of_fold] for of_fold in self.split),
            strict=True,
        )
        data = write_csv(rows)
        if not self.path.exists():
            atomic_write(self.path, data)
        elif read_file(self.path) != data:
            raise InputError(
                f"{self.path}: contains other utterances or folds; choose another --save_path, or remove the folder"
            )


# ---- dividing --------------------------------------------------------------------------------------------------------


def choose_by(pool: Pool) -> str:
    """``session`` or ``speaker`` if every utterance has one and there are at least 3; otherwise ``random``."""
    for name in ("session", "speaker"):
        groups = set(pool.groups(name))
        if "" not in groups and len(groups) >= 3:
            return name
    return "random"


def divide(
    pool: Pool, root: Path, by: str, val: str, folds: int | None = None, given: dict[str, int] | None = None
) -> Protocol:
    """Divide a pool into folds.

    Args:
        by: one of :data:`~utils.folds.config.BY`. Sessions or speakers are sorted by name and divided into ``folds``
            parts with nearly equal numbers of them. Random folds are stratified by class.
        val: one of :data:`~utils.folds.config.VALIDATION`. If folds are random, ``speaker`` means the next fold.
        folds: the number of folds; None for one per group, or :data:`~utils.folds.config.RANDOM_FOLDS`.
        given: the fold of each utterance by the name of its recording, instead of ``by``.

    Raises:
        InputError: an utterance has no group, a speaker is in two folds, or a part of a fold lacks a class.
    """
    default = RANDOM_FOLDS
    if given is not None:
        fold, by = _given_folds(pool, given), "files"
        default = int(fold.max())
    elif by == "random":
        fold = _random_folds(pool, default if folds is None else folds)
        val = "random" if val == "random" else "group"
    else:
        fold = _group_folds(pool, by, folds)
        default = len(set(pool.groups(by)))
    count = int(fold.max())
    split = np.full((count, len(fold)), TRAIN)
    for number, of_fold in enumerate(split, 1):
        of_fold[fold == number] = TEST
        of_fold[_validation(pool, fold, number, val)] = VAL
    _check(pool, by, fold, split)
    parts = ["folds", by, *[f"val={val}"] * (val != "group"), *[f"folds={count}"] * (count != default)]
    return Protocol(pool, by, val, root / "-".join(parts), split)


def _group_folds(pool: Pool, by: str, folds: int | None) -> np.ndarray:
    groups, ids = pool.groups(by), pool.features.identity[ID]
    if "" in groups:
        first = int((groups == "").argmax())
        raise InputError(f"--by {by}: {(groups == '').sum()} utterances have no {by}, the first is {shown(ids[first])}")
    parts = divide_groups(sorted(set(groups)), folds, f"--by {by}")
    of_name = {name: number for number, part in enumerate(parts, 1) for name in part}
    return np.array([of_name[name] for name in groups])


def _random_folds(pool: Pool, count: int) -> np.ndarray:
    from sklearn.model_selection import StratifiedKFold  # takes a second to import

    label = pool.features.label.numpy()
    smallest = int(np.bincount(label, minlength=len(pool.class_names)).min())
    if not 3 <= count <= smallest:
        raise InputError(f"--by random: {count} folds; must be from 3 to {smallest}, the size of the smallest class")
    fold = np.zeros(len(label), dtype=int)
    parts = StratifiedKFold(count, shuffle=True, random_state=SEED).split(label, label)
    for number, (_, test) in enumerate(parts, 1):
        fold[test] = number
    return fold


def _given_folds(pool: Pool, given: dict[str, int]) -> np.ndarray:
    names = [Path(recording.replace("\\", "/")).stem for recording in pool.features.identity[ID]]
    absent = [name for name in names if name not in given]
    if absent:
        raise InputError(
            f"--fold_files: {len(absent)} of {len(names)} utterances are in no fold, the first is {absent[0]}"
        )
    numbers = np.array([given[name] for name in names])
    found = sorted(set(numbers))
    if len(found) < 3:
        raise InputError(f"--fold_files: the utterances are in {len(found)} folds; at least 3 are required")
    return np.searchsorted(found, numbers) + 1


def _validation(pool: Pool, fold: np.ndarray, number: int, val: str) -> np.ndarray:
    """The rows of the validation part of a fold."""
    rest = np.flatnonzero(fold != number)
    if val == "group":
        return np.flatnonzero(fold == number % fold.max() + 1)
    if val == "speaker":
        speakers = pool.groups("speaker")
        if "" in speakers:
            raise InputError(f"--val speaker: {(speakers == '').sum()} utterances have no speaker")
        names = sorted(set(speakers[rest]))
        # the speakers after the tested ones come first
        after = sorted(names, key=lambda name: (name < max(speakers[fold == number]), name))
        return rest[np.isin(speakers[rest], after[: max(1, len(names) // 5)])]
    from sklearn.model_selection import train_test_split  # takes a second to import

    label = pool.features.label.numpy()[rest]
    return train_test_split(rest, test_size=0.2, stratify=label, random_state=SEED)[1]


def _check(pool: Pool, by: str, fold: np.ndarray, split: np.ndarray) -> None:
    label = pool.features.label.numpy()
    for number, of_fold in enumerate(split, 1):
        for part, name in enumerate(SPLITS):
            counts = np.bincount(label[of_fold == part], minlength=len(pool.class_names))
            if not counts.all():
                lacking = pool.class_names[int(counts.argmin())]
                raise InputError(
                    f"fold {number}: its {name} part has no utterance of {lacking}; use fewer --folds, or --by random"
                )
    if by == "random":
        return
    first: dict[str, int] = {}
    for speaker, number in zip(pool.groups("speaker"), fold, strict=True):
        if speaker and first.setdefault(speaker, number) != number:
            raise InputError(f"speaker {speaker} is in fold {first[speaker]} and in fold {number}; use --by speaker")
