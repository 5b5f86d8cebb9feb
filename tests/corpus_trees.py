"""Corpus folders in their official layout, including irregularities of the releases. Recordings are empty files."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import SHARED

METADATA = SHARED / "data" / "metadata"
EMOBOX = METADATA / "emobox_iemocap"
ESD_EMOTIONS = ("Neutral", "Angry", "Happy", "Sad", "Surprise")
ESD_SPEAKERS = tuple(f"{number:04d}" for number in range(11, 21))
# a macOS resource file; its turn would appear if the file were read
_JUNK = b"\0\5\x16\7\0\2\0\0" + "\n[1.0 - 2.0]\tSes01F_junk01_F000\tneu\t[2, 2, 2]\n".encode("utf-16-be")

Turn = tuple[str, str, str]  # name, emotion as the corpus writes it, text


def _write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def _touch(folder: Path, names: Iterable[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


# ---- IEMOCAP ---------------------------------------------------------------------------------------------------------


def write_iemocap(root: Path, turns: Iterable[Turn]) -> Path:
    """Write ``Session*`` folders below ``root`` for turns in any order."""
    for dialogue, group in groupby(sorted(turns), key=lambda turn: turn[0].rsplit("_", 1)[0]):
        session = root / f"Session{int(dialogue[3:5])}"
        members = list(group)
        evaluation = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n" + "\n".join(
            f"[{6 + i}.2901 - {8 + i}.2357]\t{turn}\t{emotion}\t[2.5000, 2.5000, 2.5000]\n"
            "C-E2:\tNeutral;\t()\nC-E3:\tNeutral;\t()\nC-F1:\tNeutral;\t(curious)\n"
            "A-E3:\tval 3; act 2; dom  2;\t()\nA-F1:\tval 3; act 2; dom  1;\t()\n"
            for i, (turn, emotion, _) in enumerate(members)
        )
        spoken = "".join(
            f"{turn} [{6 + i:03d}.2901-{8 + i:03d}.2357]: {text}\n" for i, (turn, _, text) in enumerate(members)
        )
        # words of the other speaker within a turn have no name; breaths have a name, but are in no evaluation
        spoken = f"M: [LAUGHTER]\n{spoken}{dialogue}_FXX0 [001.0000-002.0000]: [BREATHING]\nF: Mmhmm.\n"
        for kind, text in (("EmoEvaluation", evaluation), ("transcriptions", spoken)):
            _write(session / "dialog" / kind / f"{dialogue}.txt", text.encode())
            _write(session / "dialog" / kind / f"._{dialogue}.txt", _JUNK)
        _write(
            session / "dialog" / "EmoEvaluation" / "Categorical" / f"{dialogue}_e2_cat.txt",
            "".join(f"{turn} :Neutral; ()\n" for turn, *_ in members).encode(),
        )
        wavs = session / "sentences" / "wav" / dialogue
        _touch(wavs, [f"{turn}.wav" for turn, *_ in members])
        _touch(wavs, [f"._{members[0][0]}.wav", f"{dialogue}.pk"])
    return root


def evaluation_of(root: Path, turn: str) -> Path:
    """The file that contains the label of a turn."""
    return root / f"Session{int(turn[3:5])}" / "dialog" / "EmoEvaluation" / f"{turn.rsplit('_', 1)[0]}.txt"


def emobox_emotions() -> dict[str, str]:
    """The 5531 turns that are commonly used, and their labels."""
    return _emobox(EMOBOX / "iemocap.jsonl")


def emobox_test_fold(fold: int) -> set[str]:
    return set(_emobox(EMOBOX / "folds" / f"test_fold_{fold}.jsonl"))


def _emobox(path: Path) -> dict[str, str]:
    if not path.is_file():
        pytest.skip(f"EmoBox's list of IEMOCAP is not at {path}")
    rows = map(json.loads, path.read_text().splitlines())
    return {row["key"].removeprefix("iemocap-"): row["emo"] for row in rows}


def full_iemocap(root: Path) -> Path:
    """All 5531 turns with the published texts, and some turns without a class."""
    texts = {Path(path).stem: text for path, text in _published_texts("IEMOCAP").items()}
    turns = [(turn, emotion, texts.get(turn, "Not in the CSVs.")) for turn, emotion in emobox_emotions().items()]
    others = [
        (f"Ses0{i}F_impro01_M9{k:02d}", ("xxx", "fru", "sur", "oth")[k % 4], "Hm.")
        for i in range(1, 6)
        for k in range(8)
    ]
    return write_iemocap(root, turns + others)


# ---- ESD -------------------------------------------------------------------------------------------------------------


def esd_line(name: str, text: str, emotion: str = "", first: str = "\t", second: str = "\t") -> str:
    return f"{name}{first}{text}" + (f"{second}{emotion}" if emotion else "")


def write_esd_speaker(root: Path, speaker: str, recordings: dict[str, str], transcript: bytes) -> Path:
    """``recordings``: name to folder below the speaker's, like ``Angry`` or ``Angry/train``."""
    _write(root / speaker / f"{speaker}.txt", transcript)
    by_folder: dict[str, list[str]] = {}
    for name, folder in recordings.items():
        by_folder.setdefault(folder, []).append(f"{name}.wav")
    for folder, names in by_folder.items():
        _touch(root / speaker / folder, names)
    return root


def esd_emotion(number: int) -> str:
    """The emotion of a recording. A speaker's 1750 recordings are numbered by emotion, 350 each."""
    return ESD_EMOTIONS[(number - 1) // 350]


def full_esd(root: Path) -> Path:
    """17 500 recordings with the published texts. The format of the transcripts differs between speakers."""
    texts = {Path(path).stem: text for path, text in _published_texts("ESD").items()}
    _touch(root / "0001" / "Angry", ["0001_000351.wav"])  # the Chinese half, which has emotions of its own language
    _write(root / "0001" / "0001.txt", "0001_000351\t打远一看，它们的确很是美丽，\t生气\n".encode("gb18030"))
    for speaker in ESD_SPEAKERS:
        names = {f"{speaker}_{number:06d}": esd_emotion(number) for number in range(1, 1751)}
        # two speakers' full-width comma, in GBK, became two letters in the published CSVs
        said = {name: texts.get(name, "Not in the CSVs.").replace("£¬", "，") for name in names}
        separators, encoding, below = _ESD_STYLES.get(speaker, (("\t", "\t"), "utf-8", ""))
        lines = [esd_line(name, said[name], names[name], *separators) for name in names]
        folders = {
            name: f"{emotion}/{('train', 'evaluation', 'test')[i % 3]}" if below else emotion
            for i, (name, emotion) in enumerate(names.items())
        }
        write_esd_speaker(root, speaker, folders, "\r\n".join([*lines, ""]).encode(encoding))
    return root


_ESD_STYLES = {
    "0012": ((" ", "\t"), "utf-8-sig", ""),
    "0013": (("\t", " "), "utf-16", ""),
    "0014": (("   ", "   "), "utf-16-le", "splits"),
    "0015": (("\t", " \t "), "utf-8", "splits"),
    "0016": (("\t", "\t"), "gbk", ""),
    "0017": ((" ", " "), "gbk", ""),
}


# ----------------------------------------------------------------------------------------------------------------------


def published_csvs(dataset: str) -> list[Path]:
    """The authors' train, val and test manifests. The audio paths are those of their machine."""
    paths = [METADATA / f"{dataset}_metadata_{split}.csv" for split in ("train", "val", "test")]
    for path in paths:
        if not path.is_file():
            pytest.skip(f"the published metadata is not at {path}")
    return paths


def _published_texts(dataset: str) -> dict[str, str]:
    tables = [pd.read_csv(path, dtype=str, keep_default_na=False) for path in published_csvs(dataset)]
    return {path: text for table in tables for path, text in zip(table["audio_file"], table["raw_text"], strict=True)}


def write_ravdess(root: Path, actors: Iterable[int]) -> Path:
    """Write 60 speech recordings per actor, and other files of the release: songs, videos, a macOS file."""
    for actor in actors:
        speech = [
            f"03-01-{emotion:02d}-{intensity:02d}-{statement:02d}-{repetition:02d}-{actor:02d}.wav"
            for emotion in range(1, 9)
            for intensity in ((1,) if emotion == 1 else (1, 2))
            for statement in (1, 2)
            for repetition in (1, 2)
        ]
        others = ["03-02-05-01-01-01-{:02d}.wav", "01-01-05-01-01-01-{:02d}.mp4", "02-01-05-01-01-01-{:02d}.wav"]
        _touch(root / f"Actor_{actor:02d}", [*speech, *(name.format(actor) for name in others), f"._{speech[0]}"])
    return root


@contextmanager
def away(path: Path) -> Iterator[None]:
    """Remove the file temporarily, because many tests share a full tree."""
    aside = path.with_name(f"{path.name}.away")
    path.rename(aside)
    try:
        yield
    finally:
        aside.rename(path)


@contextmanager
def edited(path: Path, old: str, new: str) -> Iterator[None]:
    """Replace a text in the file temporarily."""
    data = path.read_bytes()
    assert data.count(old.encode()) == 1, f"{path}: {old!r}"
    path.write_bytes(data.replace(old.encode(), new.encode()))
    try:
        yield
    finally:
        path.write_bytes(data)
