"""Readers of IEMOCAP, ESD and RAVDESS in the layout of their official releases.

A reader returns one row per utterance, sorted by file name, with the text columns :data:`COLUMNS`:

- ``audio_file``, ``given``: absolute path of the recording, and its name in the source;
- ``raw_text``, ``emotion``: transcript, and emotion as the corpus spells it;
- ``speaker``, ``session``, ``dialogue``: "" if the corpus has none;
- ``gender``: F, M or "";
- ``problem``: why the recording cannot be used, "" if it can.
"""

import os
import re
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from utils.config import DATASETS
from utils.errors import InputError, is_printable

if TYPE_CHECKING:
    import pandas as pd

Classes = dict[str, tuple[str, ...]]  # class names in label order, each with its emotions other than its own name
GROUPS = ("speaker", "session", "dialogue")
COLUMNS = ("audio_file", "given", "raw_text", "emotion", *GROUPS, "gender", "problem")


@dataclass(frozen=True)
class Corpus:
    """How to find the utterances of a corpus, and what it is expected to contain."""

    find: Callable[[Path], Iterator[tuple[Path, str, str]]]  # folder -> recording, transcript, emotion
    groups: Callable[[str], tuple[str, str, str]]  # file name without suffix -> speaker, session, dialogue
    gender: Callable[[str], str]  # speaker -> F, M or ""
    classes: Classes
    expected: Callable[["pd.DataFrame"], int]  # number of utterances of these classes

    def read(self, folder: Path) -> "pd.DataFrame":
        """Read the table of all utterances, sorted by file name.

        Raises:
            InputError: ``folder`` does not contain the corpus, two recordings have the same name, or a name is not
                printable.
            OSError: a folder cannot be read.
        """
        import pandas as pd  # not needed for the corpus names that --help prints

        rows = []
        for path, text, emotion in sorted(self.find(folder), key=lambda found: (found[0].name, found[0])):
            if rows and path.name == rows[-1][1]:
                raise InputError(f"{path}: has the same file name as {rows[-1][0]}")
            path = path.absolute()
            check_printable(str(path))
            try:
                problem = "" if path.is_file() else "no such recording"
            except OSError as error:
                problem = f"cannot be read ({error.strerror})"
            rows.append((str(path), path.name, text, emotion, *self.groups_and_gender(path.stem), problem))
        return pd.DataFrame(rows, columns=COLUMNS, dtype=str)

    def groups_and_gender(self, stem: str) -> tuple[str, str, str, str]:
        """Get speaker, session, dialogue and gender from a file name without suffix; "" if unknown."""
        groups = self.groups(stem)
        return *groups, self.gender(groups[0])


# ---- IEMOCAP ---------------------------------------------------------------------------------------------------------

_EVALUATION = re.compile(r"^\[[\d.]+ - [\d.]+\]\s+(Ses\S+)\s+(\w+)\s+\[", re.MULTILINE)
_TRANSCRIPT = re.compile(r"^(Ses\S+)\s*\[[^\]]*\]\s*:[ \t]*(.*)$", re.MULTILINE)
_TURN = re.compile(r"(Ses\d\d)[FM]_.*_([FM])\w+")


def find_iemocap(folder: Path) -> Iterator[tuple[Path, str, str]]:
    """Find every labelled turn in ``Session*/dialog/{EmoEvaluation,transcriptions}/Ses*.txt`` and ``sentences/wav``."""
    for session in sorted(_find_root(folder, "Session[1-5]", "IEMOCAP_full_release").glob("Session[1-5]")):
        # "Ses*" excludes the "._Ses*" files of macOS, which the release contains
        evaluations = sorted((session / "dialog" / "EmoEvaluation").glob("Ses*.txt"))
        if not evaluations:
            raise InputError(f"{session / 'dialog' / 'EmoEvaluation'}: no Ses*.txt files")
        texts = {}
        for path in sorted((session / "dialog" / "transcriptions").glob("Ses*.txt")):
            texts |= dict(_TRANSCRIPT.findall(decode_text(path)))
        for path in evaluations:
            for turn, emotion in _EVALUATION.findall(decode_text(path)):
                wav = session / "sentences" / "wav" / turn.rsplit("_", 1)[0] / f"{turn}.wav"
                yield wav, texts.get(turn, "").strip(), emotion


def iemocap_groups(turn: str) -> tuple[str, str, str]:
    """``Ses01F_impro04_M012``: speaker Ses01M, session Ses01, dialogue Ses01F_impro04."""
    match = _TURN.fullmatch(turn)
    return (match[1] + match[2], match[1], turn.rsplit("_", 1)[0]) if match else ("", "", "")


# ---- ESD -------------------------------------------------------------------------------------------------------------

_ESD_EMOTIONS = ("Neutral", "Angry", "Happy", "Sad", "Surprise")
_ESD_GENDERS = {f"{number:04d}": "F" if 15 <= number <= 19 else "M" for number in range(11, 21)}
# name and text separated by tabs or spaces, usually followed by the emotion
_ESD_LINE = re.compile(rf"^\s*(\d{{4}}_\d{{6}})(.*?)(?:\s+(?:{'|'.join(_ESD_EMOTIONS)}))?\s*$")


def find_esd(folder: Path) -> Iterator[tuple[Path, str, str]]:
    """Find the English speakers in ``0011/0011.txt`` and ``0011/Angry/**/0011_000351.wav``; some copies nest splits."""
    root = _find_root(folder, "00[12][0-9]", "ESD")
    for speaker in (f"{number:04d}" for number in range(11, 21)):
        if not (root / speaker).is_dir():
            continue
        texts = {}
        for line in decode_text(root / speaker / f"{speaker}.txt").splitlines():
            if match := _ESD_LINE.match(line):
                texts[match[1]] = normalize(match[2])
        for emotion in _ESD_EMOTIONS:
            if not (root / speaker / emotion).is_dir():
                continue
            for wav in files_below(root / speaker / emotion, _fail):
                if wav.name.startswith(f"{speaker}_") and wav.suffix == ".wav":
                    yield wav, texts.get(wav.stem, ""), emotion.lower()


def esd_groups(name: str) -> tuple[str, str, str]:
    """``0011_000351``: speaker 0011; ESD has no sessions or dialogues."""
    return (name[:4] if re.fullmatch(r"\d{4}_\d{6}", name) else ""), "", ""


# ---- RAVDESS ---------------------------------------------------------------------------------------------------------

_RAVDESS_EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
_RAVDESS_STATEMENTS = {"01": "Kids are talking by the door.", "02": "Dogs are sitting by the door."}
_RAVDESS_NAME = re.compile(r"03-01-(0[1-8])-0[12]-(0[12])-0[12]-(\d\d)")  # audio only, speech


def find_ravdess(folder: Path) -> Iterator[tuple[Path, str, str]]:
    """Find the speech recordings ``Actor_*/03-01-*.wav``. Their names encode emotion, statement and actor."""
    for actor in _find_root(folder, "Actor_*", "RAVDESS").glob("Actor_*"):
        for wav in actor.iterdir() if actor.is_dir() else ():
            if wav.suffix == ".wav" and (match := _RAVDESS_NAME.fullmatch(wav.stem)):
                yield wav, _RAVDESS_STATEMENTS[match[2]], _RAVDESS_EMOTIONS[int(match[1]) - 1]


def ravdess_groups(name: str) -> tuple[str, str, str]:
    """The actor is the speaker; RAVDESS has no sessions or dialogues."""
    match = _RAVDESS_NAME.fullmatch(name)
    return (match[3] if match else ""), "", ""


# ----------------------------------------------------------------------------------------------------------------------

_IEMOCAP_EMOTIONS = (("ang",), ("hap", "exc"), ("neu",), ("sad",))
_IEMOCAP_CLASSES = dict(zip(DATASETS["IEMOCAP"].class_names, _IEMOCAP_EMOTIONS, strict=True))
_ESD_CLASSES = dict.fromkeys(DATASETS["ESD"].class_names, ())
_RAVDESS_CLASSES = dict.fromkeys(_RAVDESS_EMOTIONS, ())
CORPORA = {
    "IEMOCAP": Corpus(find_iemocap, iemocap_groups, lambda name: name[-1:], _IEMOCAP_CLASSES, lambda table: 5531),
    "ESD": Corpus(find_esd, esd_groups, lambda name: _ESD_GENDERS.get(name, ""), _ESD_CLASSES, lambda table: 17_500),
    "RAVDESS": Corpus(
        find_ravdess,
        ravdess_groups,
        lambda name: name and "FM"[int(name) % 2],
        _RAVDESS_CLASSES,
        lambda table: 60 * table["speaker"].nunique(),  # the release has 24 actors
    ),
}


def known_classes(corpus: str) -> Classes:
    """The classes of a corpus; {} for an unknown one."""
    return CORPORA[corpus].classes if corpus in CORPORA else {}


def groups_of_recording(stem: str) -> tuple[str, str, str, str]:
    """Get speaker, session, dialogue and gender from a file name without suffix, if it follows one of the corpora.

    Unknown values are "". All four are "" for any other name.
    """
    found = (corpus.groups_and_gender(stem) for corpus in CORPORA.values())
    return next((groups for groups in found if groups[0]), ("", "", "", ""))


def check_printable(path: str, where: str = "") -> None:
    """Raise an InputError if the name of a recording is not printable. The message begins with ``where``."""
    if not is_printable(path):
        raise InputError(f"{where}'{path}': the file name is not printable; rename the file")


def files_below(folder: Path, on_error: Callable[[OSError], None]) -> Iterator[Path]:
    """All files below a folder, in no particular order. Follows symbolic links and visits each folder once.

    If a link leads to a folder below ``folder``, that folder is visited under its own name. A link to a folder above
    ``folder`` is ignored.

    Args:
        on_error: called for each folder that cannot be read.
    """
    seen, links, above = set(), [folder], folder.resolve().parents
    while links:
        for parent, subfolders, names in os.walk(links.pop(0), onerror=on_error):
            real = os.path.realpath(parent)
            if real in seen or Path(real) in above:
                subfolders.clear()
                continue
            seen.add(real)
            links += [path for name in subfolders if (path := Path(parent, name)).is_symlink()]
            yield from (Path(parent, name) for name in names)


def _fail(error: OSError) -> None:
    raise error


def normalize(text: str) -> str:
    """Normalise text that looks the same to one form: NFKC with single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


def decode_text(path: Path) -> str:
    """Read an English text file in UTF-16 (with or without BOM), UTF-8, GBK or Windows-1252.

    GBK is rejected if the text then has Chinese characters. Full-width punctuation is expected, Chinese characters are
    not.

    Raises:
        InputError: the file is missing.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    data = path.read_bytes()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", errors="replace")
    if b"\0" in data[:200]:
        return data.decode("utf-16-be" if data[0] == 0 else "utf-16-le", errors="replace")
    with suppress(UnicodeDecodeError):
        return data.decode("utf-8-sig")
    with suppress(UnicodeDecodeError):
        text = data.decode("gbk")
        if not re.search("[\u3400-\u9fff]", text):
            return text
    return data.decode("cp1252", errors="replace")


def _find_root(folder: Path, mark: str, name: str) -> Path:
    """Find the folder that contains ``mark``: ``folder`` itself, or a folder up to two levels below it."""
    if not folder.is_dir():
        raise InputError(f"--corpus_dir {folder}: no such folder")
    for pattern in (mark, f"*/{mark}", f"*/*/{mark}"):
        found = sorted({path.parent for path in folder.glob(pattern) if path.is_dir()})
        if len(found) > 1:
            raise InputError(f"--corpus_dir {folder}: contains {name} twice, in {found[0]} and {found[1]}")
        if found:
            return found[0]
    raise InputError(f"--corpus_dir {folder}: does not contain {name} (no {mark} found)")
