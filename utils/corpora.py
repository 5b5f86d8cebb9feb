"""IEMOCAP, ESD and RAVDESS as their owners distribute them: a folder to a table of utterances.

A table is a DataFrame with the columns :data:`COLUMNS`, all text: a recording's path, its transcript, the emotion as
the corpus writes it, and its speaker, session and dialogue ("" where the corpus has none).
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from utils.config import DATASETS
from utils.errors import InputError

GROUPS = ("speaker", "session", "dialogue")
COLUMNS = ("audio_file", "raw_text", "emotion", *GROUPS)


@dataclass(frozen=True)
class Corpus:
    """How a corpus is read and what it must hold."""

    read: Callable[[Path], pd.DataFrame]
    groups: Callable[[str], tuple[str, str, str]]  # a recording's name without suffix to speaker, session, dialogue
    classes: dict[str, tuple[str, ...]]  # class names in label order, and the emotions of the corpus that each joins
    expected: Callable[[pd.DataFrame], int]  # utterances of these classes


# ---- IEMOCAP ---------------------------------------------------------------------------------------------------------

_EVALUATION = re.compile(r"^\[[\d.]+ - [\d.]+\]\s+(Ses\S+)\s+(\w+)\s+\[", re.MULTILINE)
_TRANSCRIPT = re.compile(r"^(Ses\S+)\s*\[[^\]]*\]\s*:[ \t]*(.*)$", re.MULTILINE)
_TURN = re.compile(r"(Ses\d\d)[FM]_.*_([FM])\w+")


def read_iemocap(folder: Path) -> pd.DataFrame:
    """``Session*/dialog/{EmoEvaluation,transcriptions}/Ses*.txt`` and ``sentences/wav``; every turn with a label."""
    root = _find_root(folder, "Session[1-5]", "IEMOCAP_full_release")
    rows = []
    for session in sorted(root.glob("Session[1-5]")):
        # "Ses*" passes over the "._Ses*" files that the release holds for macOS
        evaluations = sorted((session / "dialog" / "EmoEvaluation").glob("Ses*.txt"))
        if not evaluations:
            raise InputError(f"{session / 'dialog' / 'EmoEvaluation'}: no Ses*.txt files")
        texts = {}
        for path in sorted((session / "dialog" / "transcriptions").glob("Ses*.txt")):
            texts |= dict(_TRANSCRIPT.findall(decode_text(path)))
        for path in evaluations:
            for turn, emotion in _EVALUATION.findall(decode_text(path)):
                wav = session / "sentences" / "wav" / turn.rsplit("_", 1)[0] / f"{turn}.wav"
                rows.append((wav, texts.get(turn, "").strip(), emotion, *iemocap_groups(turn)))
    return _table(rows)


def iemocap_groups(turn: str) -> tuple[str, str, str]:
    """``Ses01F_impro04_M012``: in session Ses01, dialogue Ses01F_impro04, its man speaks."""
    match = _TURN.fullmatch(turn)
    if not match:
        return "", "", ""
    return match[1] + match[2], match[1], turn.rsplit("_", 1)[0]


# ---- ESD -------------------------------------------------------------------------------------------------------------

ESD_ENGLISH = tuple(f"{speaker:04d}" for speaker in range(11, 21))
_ESD_EMOTIONS = ("Neutral", "Angry", "Happy", "Sad", "Surprise")
# name and text with tabs or spaces between, then, not always, the emotion
_ESD_LINE = re.compile(rf"^\s*(\d{{4}}_\d{{6}})(.*?)(?:\s+(?:{'|'.join(_ESD_EMOTIONS)}))?\s*$")


def read_esd(folder: Path) -> pd.DataFrame:
    """English speakers: ``0011/0011.txt`` and ``0011/Angry/**/0011_000351.wav``, some releases with splits below."""
    root = _find_root(folder, "00[12][0-9]", "ESD")
    rows = []
    for speaker in ESD_ENGLISH:
        if not (root / speaker).is_dir():
            continue
        texts = {}
        for line in decode_text(root / speaker / f"{speaker}.txt").splitlines():
            if match := _ESD_LINE.match(line):
                texts[match[1]] = " ".join(unicodedata.normalize("NFKC", match[2]).split())
        for emotion in _ESD_EMOTIONS:
            for wav in (root / speaker / emotion).rglob(f"{speaker}_*.wav"):
                rows.append((wav, texts.get(wav.stem, ""), emotion.lower(), *esd_groups(wav.stem)))
    return _table(rows)


def esd_groups(name: str) -> tuple[str, str, str]:
    """``0011_000351``: speaker 0011; ESD has neither sessions nor dialogues."""
    return (name[:4] if re.fullmatch(r"\d{4}_\d{6}", name) else ""), "", ""


# ---- RAVDESS ---------------------------------------------------------------------------------------------------------

_RAVDESS_EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
_RAVDESS_STATEMENTS = {"01": "Kids are talking by the door.", "02": "Dogs are sitting by the door."}
_RAVDESS_NAME = re.compile(r"03-01-(0[1-8])-0[12]-(0[12])-0[12]-(\d\d)")  # audio only, speech


def read_ravdess(folder: Path) -> pd.DataFrame:
    """Speech recordings ``Actor_*/03-01-*.wav``; emotion, statement and actor are in the name."""
    root = _find_root(folder, "Actor_*", "RAVDESS")
    rows = []
    for wav in root.glob("Actor_*/*.wav"):
        if match := _RAVDESS_NAME.fullmatch(wav.stem):
            emotion = _RAVDESS_EMOTIONS[int(match[1]) - 1]
            rows.append((wav, _RAVDESS_STATEMENTS[match[2]], emotion, *ravdess_groups(wav.stem)))
    return _table(rows)


def ravdess_groups(name: str) -> tuple[str, str, str]:
    """The actor; RAVDESS has neither sessions nor dialogues."""
    match = _RAVDESS_NAME.fullmatch(name)
    return (match[3] if match else ""), "", ""


# ----------------------------------------------------------------------------------------------------------------------

_IEMOCAP_CODES = (("ang",), ("hap", "exc"), ("neu",), ("sad",))
_IEMOCAP_CLASSES = dict(zip(DATASETS["IEMOCAP"].class_names, _IEMOCAP_CODES, strict=True))

CORPORA = {
    "IEMOCAP": Corpus(read_iemocap, iemocap_groups, _IEMOCAP_CLASSES, lambda table: 5531),
    "ESD": Corpus(read_esd, esd_groups, dict.fromkeys(DATASETS["ESD"].class_names, ()), lambda table: 17_500),
    "RAVDESS": Corpus(
        read_ravdess,
        ravdess_groups,
        dict.fromkeys(_RAVDESS_EMOTIONS, ()),
        lambda table: 60 * table["speaker"].nunique(),  # whole actors; the release has 24
    ),
}


def known_classes(corpus: str) -> dict[str, tuple[str, ...]]:
    """The classes of a corpus; {} of one that is not known."""
    return CORPORA[corpus].classes if corpus in CORPORA else {}


def decode_text(path: Path) -> str:
    """A text file of unknown encoding: UTF-16 with or without its mark, UTF-8, GBK, Windows-1252.

    English text is meant: GBK is believed only where it holds no Chinese characters (full-width commas, for example).

    Raises:
        InputError: the file is missing.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    data = path.read_bytes()
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace")
    if b"\0" in data[:200]:
        return data.decode("utf-16-be" if data[0] == 0 else "utf-16-le", errors="replace")
    for encoding in ("utf-8-sig", "gbk"):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if encoding != "gbk" or not re.search("[\u3400-\u9fff]", text):
            return text
    return data.decode("cp1252", errors="replace")


def _find_root(folder: Path, mark: str, name: str) -> Path:
    """The folder that holds ``mark``: the one given, or one or two levels below it."""
    if not folder.is_dir():
        raise InputError(f"--corpus_dir {folder}: no such folder")
    for pattern in (mark, f"*/{mark}", f"*/*/{mark}"):
        found = sorted({path.parent for path in folder.glob(pattern) if path.is_dir()})
        if len(found) > 1:
            raise InputError(f"--corpus_dir {folder}: holds {name} twice, in {found[0]} and {found[1]}")
        if found:
            return found[0]
    raise InputError(f"--corpus_dir {folder}: there is no {mark} in it, so it is not {name}")


def _table(rows: Iterable[Sequence]) -> pd.DataFrame:
    """Rows in order of the recordings' names, so that no listing order of a file system shows."""
    rows = sorted(rows, key=lambda row: (row[0].name, row[0]))
    return pd.DataFrame([(str(path.absolute()), *rest) for path, *rest in rows], columns=COLUMNS, dtype=str)
