"""What extract_features.py prepares before it computes anything: utterances, labels, splits."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from utils.classes import Classes, classes_of_labels, give_labels, parse_classes
from utils.corpora import CORPORA, known_classes
from utils.errors import InputError
from utils.features import SPLITS
from utils.metadata import read_metadata, utterances_of
from utils.splits import GROUPED, SEED, check_split_column, group_split, random_split


@dataclass(frozen=True)
class Request:
    """What the command asks for (options of extract_features.py)."""

    corpus: str
    corpus_dir: Path | None
    metadata: list[Path]
    classes: list[str] | None
    split: str | None
    fold: int | None
    folds: int | None
    seed: int | None
    allow_partial: bool


@dataclass(frozen=True)
class Prepared:
    """Utterances with ``label``, ``split`` and ``problem`` ("" for a good one), and how they came about."""

    table: pd.DataFrame
    class_names: list[str]
    split: dict
    sha256: str  # of the recordings' names, transcripts, labels and splits


def prepare_utterances(request: Request) -> Prepared:
    """Read the corpus or the CSVs, give labels, divide; print the counts.

    Rows with a problem are divided with the others, so that mending a file moves no other utterance.

    Raises:
        InputError: as the readers; a label of no class; another number of utterances than the corpus has.
    """
    if request.metadata:
        table, classes = _from_metadata(request)
    else:
        table = _from_corpus(request)
        default = CORPORA[request.corpus].classes
        _check_count(request, give_labels(table, default)[0])
        classes = parse_classes(request.classes, default) if request.classes else default
    table, left_out = give_labels(table, classes)
    if table.empty:
        raise InputError(f"no utterance is of the classes {', '.join(classes)}; found: {', '.join(left_out)}")
    for path in table["audio_file"]:
        if not path.isprintable():
            raise InputError(f"{path!a}: a recording whose name cannot be written down; rename it")
    names = list(classes)
    counts = Counter(table["label"])
    print(
        f"{request.corpus}: {len(table)} utterances: {', '.join(f'{counts[i]} {name}' for i, name in enumerate(names))}"
    )
    if left_out:
        print(f"left out, of no class: {', '.join(f'{count} {emotion}' for emotion, count in left_out.most_common())}")
    table["problem"] = [
        problem or ("" if text else "no transcript")
        for problem, text in zip(table["problem"], table["raw_text"], strict=True)
    ]
    table["split"], split = _divide(request, table)
    digest = hashlib.sha256()
    for row in table[["given", "raw_text", "label", "split"]].itertuples(index=False):
        digest.update(json.dumps(row, default=int).encode())
    return Prepared(table, names, split, digest.hexdigest())


def _from_corpus(request: Request) -> pd.DataFrame:
    if request.corpus not in CORPORA:
        raise InputError(
            f"{request.corpus}: no reader for this corpus (there are {', '.join(CORPORA)}); "
            "give its utterances with --metadata, a CSV with audio_file,raw_text,label"
        )
    if request.corpus_dir is None:
        raise InputError(f"--corpus_dir: needed, the folder of {request.corpus}")
    table = CORPORA[request.corpus].read(request.corpus_dir)
    if table.empty:
        raise InputError(f"--corpus_dir {request.corpus_dir}: not one utterance of {request.corpus} in it")
    twice = table[table["audio_file"].map(lambda path: Path(path).name).duplicated()]
    if len(twice):
        raise InputError(f"{twice['audio_file'].iloc[0]}: a second recording of this name in {request.corpus_dir}")
    table["problem"] = ["" if Path(path).is_file() else "no such recording" for path in table["audio_file"]]
    table["given"] = table["audio_file"].map(lambda path: Path(path).name)
    return table


def _from_metadata(request: Request) -> tuple[pd.DataFrame, Classes]:
    given = parse_classes(request.classes, known_classes(request.corpus)) if request.classes else None
    return labelled_metadata(request.metadata, request.corpus, request.corpus_dir, given)


def labelled_metadata(
    paths: Sequence[Path], corpus: str, corpus_dir: Path | None, given: Classes | None
) -> tuple[pd.DataFrame, Classes]:
    """The utterances of metadata CSVs, and the classes that their labels are of.

    Args:
        paths: one file, or those of train and val, or of train, val and test, whose rows get that ``split``.
        corpus: a name of :data:`~utils.corpora.CORPORA`, or any other.
        given: the classes, where the user names them.

    Returns:
        The table of :func:`~utils.metadata.utterances_of`.
    """
    if corpus_dir is not None and not corpus_dir.is_dir():
        raise InputError(f"--corpus_dir {corpus_dir}: no such folder")
    tables = [read_metadata(path) for path in paths]
    if len(tables) > 1:
        tables = [table.assign(split=split) for table, split in zip(tables, SPLITS, strict=False)]
    table = utterances_of(tables, corpus, corpus_dir, paths[0].parent)
    known = known_classes(corpus)
    if not known:
        return table, classes_of_labels(table, given)
    classes = given or known
    if given is None:  # with --classes, leaving out the others is what was asked for
        kept, _ = give_labels(table, classes)
        odd = table[~table["where"].isin(kept["where"])]
        if len(odd):
            row = odd.iloc[0]
            raise InputError(f"{row['where']}: label {row['emotion']!r} is none of {', '.join(classes)}")
    return table, classes


def _check_count(request: Request, table: pd.DataFrame) -> None:
    """Of the corpus's own classes; prints it.

    Raises:
        InputError: it is not what the corpus has, and ``allow_partial`` is off.
    """
    expected = CORPORA[request.corpus].expected(table)
    if len(table) == expected:
        print(f"{request.corpus}: complete, {len(table)} utterances of {', '.join(CORPORA[request.corpus].classes)}")
        return
    groups = Counter(table["session"] + table["speaker"].where(table["session"] == "", ""))
    found = ", ".join(f"{count} of {group}" for group, count in sorted(groups.items()))
    message = f"{request.corpus_dir}: {len(table)} utterances, {request.corpus} has {expected} ({found})"
    if not request.allow_partial:
        raise InputError(f"{message}; --allow_partial takes what is there")
    print(f"note: {message}")


def _divide(request: Request, table: pd.DataFrame) -> tuple[pd.Series, dict]:
    """The split of each row, and a description of how it was made."""
    kind = request.split or ("official" if "split" in table else "random")
    for option, value, kinds in (
        ("--fold", request.fold, GROUPED),
        ("--folds", request.folds, GROUPED),
        ("--seed", request.seed, ("random",)),
    ):
        if value is not None and kind not in kinds:
            raise InputError(f"{option} {value}: only for --split {' or '.join(kinds)}; this split is {kind}")
    if kind == "official":
        if "split" not in table:
            raise InputError(
                "--split official: the split is that of metadata files; give --metadata TRAIN.csv VAL.csv TEST.csv "
                "(the published ones are in the authors' repository), or one CSV with a column split"
            )
        check_split_column(table)
        return table["split"], {"kind": kind, "metadata": [str(path.absolute()) for path in request.metadata]}
    if kind == "random":
        seed = SEED if request.seed is None else request.seed
        return random_split(table, seed), {"kind": kind, "seed": seed}
    fold = 1 if request.fold is None else request.fold
    splits, members = group_split(table, kind, fold, request.folds)
    print(f"fold {fold}: " + "; ".join(f"{split} {kind} {', '.join(members[split])}" for split in SPLITS))
    return splits, {"kind": kind, "fold": fold, "members": members}
