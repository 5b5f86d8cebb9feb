"""Match the predictions of two systems for the same utterances, from run folders or any CSV."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

import numpy as np

from utils.data.corpora import groups_of_recording
from utils.data.identity import ATTRIBUTES, ID, Identity, read_rows
from utils.errors import InputError, shown
from utils.training.folder import PREDICTIONS, seed_folders
from utils.training.predictions import PROBABILITY

FOLDS = "predictions.csv"  # of a cross-validation: every utterance once per seed
OTHER_ID = "id"  # replaces ID in files that other programs wrote
MATCHED_BY = {"id": str, "file name without folder and suffix": lambda name: PureWindowsPath(name).stem}
COUNTED = 3  # number of ids that a message names


@dataclass(frozen=True)
class Answer:
    """One row of a file: its position, and its classes by name or number, as written."""

    where: str
    label: str
    prediction: str


@dataclass(frozen=True)
class Answers:
    """The answers of one system.

    Attributes:
        class_names: () if the file does not name them (in the header of its probabilities).
        groups: :data:`~utils.data.identity.ATTRIBUTES` of each utterance.
        seeds: the answer to each utterance, by seed. The seed is "" if the file names none.
    """

    path: Path
    class_names: tuple[str, ...]
    groups: dict[str, tuple[str, ...]]
    seeds: dict[str, dict[str, Answer]]

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self.groups)


@dataclass(frozen=True)
class Pair:
    """The answers of two systems to the same N utterances.

    Shapes: label [N], each prediction [seeds, N].

    Attributes:
        matched_by: the part of the id by which the utterances are matched.
        left_out: number of utterances that only A has, and that only B has.
    """

    a: Answers
    b: Answers
    class_names: tuple[str, ...]
    identity: Identity
    label: np.ndarray
    predictions: tuple[np.ndarray, np.ndarray]
    matched_by: str
    left_out: tuple[int, int]


def read_answers(path: Path, split: str) -> Answers:
    """Read a run folder (its finished seeds), a seed folder, the folder of a cross-validation, or a CSV.

    Raises:
        InputError: there are no predictions, a column or a value is missing, an utterance repeats within a seed, or the
            seeds differ in utterances, labels or classes. The message names file, line and value.
    """
    seeds: dict[str, dict[str, Answer]] = {}
    class_names, groups = None, {}
    for of_folder, file in _files(path, split):
        found, rows = _read(file)
        if class_names not in (None, found):
            raise InputError(f"{file}: classes {', '.join(found)}, but another seed has {', '.join(class_names)}")
        class_names = found
        for where, cells in rows:
            of_seed, recording = seeds.setdefault(cells.get("seed", of_folder), {}), cells[ID]
            if recording in of_seed:
                raise InputError(f"{where}: {shown(recording)} is also in {of_seed[recording].where}")
            of_seed[recording] = Answer(where, cells["label"], cells["prediction"])
            derived = zip(ATTRIBUTES, groups_of_recording(PureWindowsPath(recording).stem), strict=True)
            groups.setdefault(recording, tuple(cells.get(name) or known for name, known in derived))
    for seed, of_seed in seeds.items():
        if missing := [recording for recording in groups if recording not in of_seed]:
            raise InputError(f"{path}: seed {seed} has no {_named(missing)}, which another seed has")
    first = next(iter(seeds.values()))
    for of_seed in seeds.values():
        for recording, answer in of_seed.items():
            if answer.label != first[recording].label:
                other = first[recording]
                raise InputError(
                    f"{answer.where}: label {shown(answer.label)}, but {shown(other.label)} in {other.where}"
                )
    return Answers(path, class_names, groups, seeds)


def _files(path: Path, split: str) -> list[tuple[str, Path]]:
    """The prediction files of a path, each with its seed."""
    if not path.is_dir():
        return [("", path)]
    for name in (PREDICTIONS.format(split), FOLDS):
        if (path / name).exists():
            return [("", path / name)]
    finished = {seed: folder for seed, folder in seed_folders(path).items() if (folder / "metrics.json").exists()}
    if not finished:
        raise InputError(f"{path}: contains no {PREDICTIONS.format(split)}, no {FOLDS} and no finished seed")
    return [(str(seed), folder / PREDICTIONS.format(split)) for seed, folder in finished.items()]


def _read(path: Path) -> tuple[tuple[str, ...], list[tuple[str, dict[str, str]]]]:
    """The class names of a file, and its rows, each with its file and first line."""
    (_, header), *rows = read_rows(path) or [("", [])]
    identifier = ID if ID in header else OTHER_ID
    columns = (identifier, "label", "prediction")
    if len(set(header)) < len(header) or not {*columns} <= {*header} or not rows:
        has = ", ".join(header) if rows else "no rows"
        raise InputError(f"{path}: needs {ID} or {OTHER_ID}, label and prediction, one column each (it has {has})")
    table = [(where, {**dict(zip(header, row, strict=True)), ID: row[header.index(identifier)]}) for where, row in rows]
    for where, cells in table:
        if empty := [name for name in (*columns, "seed") if cells.get(name) == ""]:
            raise InputError(f"{where}: no {empty[0]}")
    return tuple(name.removeprefix(PROBABILITY) for name in header if name.startswith(PROBABILITY)), table


def match(a: Answers, b: Answers, common: bool = False) -> Pair:
    """Match the answers of two systems by id or, if they share no id, by file name without folder and suffix.

    Args:
        common: leave out the utterances that only one system has.

    Raises:
        InputError: they share no utterance, one has more utterances without ``common``, or labels or classes differ.
    """
    matched_by, first, second = _keys(a, b)
    shared = [name for name in first if name in second]
    only_a, only_b = ([name for name in one if name not in other] for one, other in ((first, second), (second, first)))
    if (only_a or only_b) and not common:
        parts = [f"only {each.path} has {_named(only)}" for each, only in ((a, only_a), (b, only_b)) if only]
        raise InputError(f"{'; '.join(parts)}; use --common to compare the {len(shared)} utterances that both have")
    classes = _classes(a, b)
    answers_a, answers_b = (
        [[of_seed[ids[name]] for name in shared] for of_seed in each.seeds.values()]
        for each, ids in ((a, first), (b, second))
    )
    label, other_label = (
        _numbers(each, seeds[:1], "label", classes)[0] for each, seeds in ((a, answers_a), (b, answers_b))
    )
    if (other := label != other_label).any():
        of_a, of_b = (seeds[0][int(other.argmax())] for seeds in (answers_a, answers_b))
        raise InputError(f"{of_b.where}: label {shown(of_b.label)}, but {shown(of_a.label)} in {of_a.where}")
    predictions = (_numbers(a, answers_a, "prediction", classes), _numbers(b, answers_b, "prediction", classes))
    identity = {ID: tuple(first[name] for name in shared)}
    for i, attribute in enumerate(ATTRIBUTES):
        of_both = (tuple(each.groups[ids[name]][i] for name in shared) for each, ids in ((a, first), (b, second)))
        identity[attribute] = max(of_both, key=all)  # from A, unless only B has all of them
    left_out = len(only_a), len(only_b)
    return Pair(a, b, classes, identity, label, predictions, matched_by, left_out)


def _keys(a: Answers, b: Answers) -> tuple[str, dict[str, str], dict[str, str]]:
    """How the ids are matched, and the ids of A and of B by the part that matches."""
    for matched_by, key in MATCHED_BY.items():
        first, second = ({key(recording): recording for recording in each.ids} for each in (a, b))
        if len(first) == len(a.ids) and len(second) == len(b.ids) and first.keys() & second.keys():
            return matched_by, first, second
    raise InputError(f"{b.path}: shares no utterance with {a.path} (first ids {shown(b.ids[0])} and {shown(a.ids[0])})")


def _numbers(answers: Answers, seeds: Sequence[Sequence[Answer]], column: str, classes: tuple[str, ...]) -> np.ndarray:
    """The classes in a column as numbers, [seeds, N]. A number in a file refers to its own classes, if it names any."""
    by_name = {name: i for i, name in enumerate(classes)}
    by_number = {str(i): by_name[name] for i, name in enumerate(answers.class_names or classes)}
    known = by_name | by_number if answers.class_names else by_number | by_name
    for answer in (answer for of_seed in seeds for answer in of_seed):
        if (text := getattr(answer, column)) not in known:
            raise InputError(f"{answer.where}: {column} {shown(text)} is not one of the classes {', '.join(classes)}")
    return np.array([[known[getattr(answer, column)] for answer in of_seed] for of_seed in seeds])


def _classes(a: Answers, b: Answers) -> tuple[str, ...]:
    """The class names that a file has; otherwise, all that occur in the files."""
    if a.class_names and b.class_names and set(a.class_names) != set(b.class_names):
        raise InputError(f"{b.path}: classes {', '.join(b.class_names)}, but {a.path} has {', '.join(a.class_names)}")
    if named := a.class_names or b.class_names:
        return named
    rows = (answer for each in (a, b) for of_seed in each.seeds.values() for answer in of_seed.values())
    return tuple(sorted({name for answer in rows for name in (answer.label, answer.prediction)}))


def _named(names: Sequence[str]) -> str:
    """``'a', 'b', 'c' and 7 others``."""
    text, others = ", ".join(map(shown, names[:COUNTED])), len(names) - COUNTED
    return f"{text} and {others} other{'s' * (others > 1)}" if others > 0 else text
