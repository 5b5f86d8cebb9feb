import os
from pathlib import Path

import pytest

from tests.corpus_trees import esd_line, write_esd_speaker, write_iemocap, write_ravdess
from utils.data.corpora import (
    CORPORA,
    decode_text,
    esd_groups,
    files_below,
    groups_of_recording,
    iemocap_groups,
    ravdess_groups,
)
from utils.errors import InputError

read_iemocap, read_esd, read_ravdess = (CORPORA[name].read for name in ("IEMOCAP", "ESD", "RAVDESS"))

TURNS = [
    ("Ses01F_impro01_F000", "neu", "Excuse me."),
    ("Ses01F_impro01_M000", "xxx", "Do you have your forms?  [LAUGHTER] It's 8:30, sir."),
    ("Ses01M_script01_1_F003", "exc", "“Quoted”, she said -- twice."),
    ("Ses02F_script03_2_M041", "fru", "No."),
    ("Ses05M_impro05a_M010", "hap", "Okay."),
]


def rows_by_name(table) -> dict[str, dict]:
    return {Path(row["audio_file"]).stem: row for row in table.to_dict("records")}


def write_esd(root: Path, lines: list[str], speaker: str = "0011", encoding: str = "utf-8", end: str = "\n") -> Path:
    """Write one speaker with the recordings named in ``lines``, all in one folder."""
    names = [line.split()[0] for line in lines]
    transcript = "".join(line + end for line in lines).encode(encoding)
    return write_esd_speaker(root, speaker, dict.fromkeys(names, "Sad"), transcript)


# ---- IEMOCAP ---------------------------------------------------------------------------------------------------------


def test_iemocap_reads_exactly_the_labelled_turns(tmp_path):
    table = read_iemocap(write_iemocap(tmp_path, TURNS))
    found = [(Path(row.audio_file).stem, row.emotion, row.raw_text) for row in table.itertuples()]
    assert found == TURNS
    assert all(Path(path).is_file() and Path(path).is_absolute() for path in table["audio_file"])


def test_iemocap_speaker_is_that_of_the_turn_not_of_the_dialogue(tmp_path):
    table = rows_by_name(read_iemocap(write_iemocap(tmp_path, TURNS)))
    groups = {name: (row["speaker"], row["session"], row["dialogue"]) for name, row in table.items()}
    assert groups == {
        "Ses01F_impro01_F000": ("Ses01F", "Ses01", "Ses01F_impro01"),
        "Ses01F_impro01_M000": ("Ses01M", "Ses01", "Ses01F_impro01"),
        "Ses01M_script01_1_F003": ("Ses01F", "Ses01", "Ses01M_script01_1"),
        "Ses02F_script03_2_M041": ("Ses02M", "Ses02", "Ses02F_script03_2"),
        "Ses05M_impro05a_M010": ("Ses05M", "Ses05", "Ses05M_impro05a"),
    }


def test_iemocap_with_windows_line_ends(tmp_path):
    root = write_iemocap(tmp_path, TURNS)
    plain = read_iemocap(root)
    for path in root.glob("Session*/dialog/*/Ses*.txt"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert read_iemocap(root).equals(plain)


def test_iemocap_turn_without_transcript_or_recording_stays_in_the_table(tmp_path):
    root = write_iemocap(tmp_path, TURNS)
    (root / "Session1/dialog/transcriptions/Ses01F_impro01.txt").unlink()
    (root / "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav").unlink()
    table = rows_by_name(read_iemocap(root))
    assert len(table) == len(TURNS)
    assert table["Ses01F_impro01_F000"]["raw_text"] == ""
    assert table["Ses01M_script01_1_F003"]["raw_text"] == TURNS[2][2]


def test_iemocap_session_without_evaluations_is_named(tmp_path):
    root = write_iemocap(tmp_path, TURNS)
    (root / "Session2/dialog/EmoEvaluation/Ses02F_script03_2.txt").unlink()
    with pytest.raises(InputError, match=r"Session2/dialog/EmoEvaluation: no Ses\*\.txt files$"):
        read_iemocap(root)


# ---- ESD -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line, text",
    [
        (esd_line("0011_000001", "The nine the eggs, I keep.", "Sad"), "The nine the eggs, I keep."),
        (esd_line("0011_000001", "The nine eggs.", "Sad", " ", " "), "The nine eggs."),
        (esd_line("0011_000001", "The nine eggs.", "Sad", " ", "\t"), "The nine eggs."),
        (esd_line("0011_000001", "The nine eggs.", "Sad", "\t\t", " \t "), "The nine eggs."),
        (esd_line("0011_000001", "The nine eggs."), "The nine eggs."),
        (esd_line("0011_000001", "He was feeling sad"), "He was feeling sad"),
        (esd_line("0011_000001", "What a surprise", "Surprise", " ", " "), "What a surprise"),
        (esd_line("0011_000001", "Sad Angry people.", "Neutral"), "Sad Angry people."),
        (esd_line("0011_000001", "MySad", ""), "MySad"),
        (esd_line("0011_000001", "The nine eggs. ", "Sad") + "  \t", "The nine eggs."),
        ("  " + esd_line("0011_000001", "Confess  you opened it.", "Sad"), "Confess you opened it."),
        (esd_line("0011_000001", "The happier，the　better .", "Sad"), "The happier,the better ."),
        (esd_line("0011_000001", "", "Sad"), ""),
    ],
)
def test_esd_line(tmp_path, line, text):
    assert read_esd(write_esd(tmp_path, [line]))["raw_text"].tolist() == [text]


@pytest.mark.parametrize(
    "encoding", ["ascii", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "gbk", "cp1252"]
)
def test_esd_transcripts_in_every_encoding_of_the_release(tmp_path, encoding):
    second = {"ascii": "It's so", "cp1252": "It’s so"}.get(encoding, "It is，so")
    lines = [esd_line("0011_000001", "Yes, sir.", "Sad"), esd_line("0011_000002", second, "Sad")]
    table = read_esd(write_esd(tmp_path, lines, encoding=encoding, end="\r\n"))
    assert table["raw_text"].tolist() == ["Yes, sir.", second.replace("，", ",")]


def test_esd_emotion_is_the_folder_and_nested_splits_are_read(tmp_path):
    names = [f"0012_{number:06d}" for number in (1, 351, 701, 1051, 1401)]
    places = ["Neutral/train", "Angry", "Happy/evaluation", "Sad/test", "Surprise"]
    # the emotion in the transcript is ignored
    transcript = "".join(esd_line(name, f"Text {name}.", "Neutral") + "\n" for name in names).encode()
    write_esd(tmp_path, [esd_line("0011_000001", "First.")])
    write_esd_speaker(tmp_path, "0012", dict(zip(names, places, strict=True)), transcript)
    table = read_esd(tmp_path)
    assert [Path(path).stem for path in table["audio_file"]] == ["0011_000001", *names]
    assert table["emotion"].tolist() == ["sad", "neutral", "angry", "happy", "sad", "surprise"]
    assert table["raw_text"].tolist() == ["First.", *(f"Text {name}." for name in names)]
    assert table["speaker"].tolist() == ["0011"] + ["0012"] * 5
    assert set(table["session"]) | set(table["dialogue"]) == {""}


def test_esd_in_linked_folders_is_read_once(tmp_path):
    write_esd(tmp_path / "corpus", [esd_line("0011_000001", "Yes.")])
    write_esd(tmp_path / "moved", [esd_line("0011_000002", "No.")])
    sad = tmp_path / "corpus" / "0011" / "Sad"
    (sad / "more").symlink_to(tmp_path / "moved" / "0011" / "Sad")
    (sad / "again").symlink_to(sad)
    assert [Path(path).name for path in read_esd(tmp_path / "corpus")["audio_file"]] == [
        "0011_000001.wav",
        "0011_000002.wav",
    ]


@pytest.mark.parametrize("name", ["ESD", "RAVDESS"])
def test_a_folder_that_cannot_be_read_is_an_error(tmp_path, monkeypatch, name):
    if name == "ESD":
        refused = write_esd(tmp_path, [esd_line("0011_000001", "Yes.")]) / "0011" / "Sad"
    else:
        refused = write_ravdess(tmp_path, [1, 2]) / "Actor_02"
    for module, function in ((os, "scandir"), (os, "listdir")):
        call = getattr(module, function)

        def refusing(path, call=call):
            if Path(path) == refused:
                raise PermissionError(13, "Permission denied", str(path))
            return call(path)

        monkeypatch.setattr(module, function, refusing)
    with pytest.raises(PermissionError, match=str(refused)):
        CORPORA[name].read(tmp_path)


def test_a_recording_that_may_not_be_looked_up_is_a_problem(tmp_path, monkeypatch):
    root = write_iemocap(tmp_path, TURNS)
    is_file = Path.is_file

    def refusing(path):
        if path.name == "Ses02F_script03_2_M041.wav":
            raise PermissionError(13, "Permission denied", str(path))
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", refusing)
    table = read_iemocap(root)
    assert table["problem"].tolist() == ["", "", "", "cannot be read (Permission denied)", ""]


def test_a_recording_of_a_corpus_that_cannot_be_printed_is_refused(tmp_path):
    root = write_iemocap(tmp_path / "a\x1b[2J", TURNS)
    with pytest.raises(InputError, match=r"^'.*a\\x1b\[2J/.*': the file name is not printable; rename the file$"):
        read_iemocap(root)


def test_esd_ignores_chinese_speakers_and_other_files(tmp_path):
    write_esd(tmp_path, [esd_line("0011_000001", "Yes.")])
    write_esd(tmp_path, [esd_line("0001_000001", "是的")], "0001")
    write_esd(tmp_path, [esd_line("0010_000001", "是的")], "0010")
    for name in ("._0011_000001.wav", "0011_000001.txt", "0012_000001.wav"):
        (tmp_path / "0011/Sad" / name).touch()
    assert [Path(path).name for path in read_esd(tmp_path)["audio_file"]] == ["0011_000001.wav"]


def test_esd_recording_without_a_line_stays_in_the_table(tmp_path):
    root = write_esd(tmp_path, [esd_line("0011_000001", "Yes.")])
    (root / "0011/Sad/0011_000002.wav").touch()
    assert read_esd(root)["raw_text"].tolist() == ["Yes.", ""]


def test_esd_speaker_without_transcript_is_named(tmp_path):
    root = write_esd(tmp_path, [esd_line("0011_000001", "Yes.")])
    (root / "0011/0011.txt").unlink()
    with pytest.raises(InputError, match=r"0011/0011\.txt: no such file$"):
        read_esd(root)


# ---- RAVDESS ---------------------------------------------------------------------------------------------------------


def test_ravdess_reads_only_speech(tmp_path):
    table = read_ravdess(write_ravdess(tmp_path, [1, 24]))
    assert len(table) == 120
    assert table["speaker"].value_counts().to_dict() == {"01": 60, "24": 60}
    assert table["emotion"].value_counts().to_dict() == {"neutral": 8} | dict.fromkeys(
        ("calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"), 16
    )
    rows = rows_by_name(table)
    assert all(name.startswith("03-01-") for name in rows)
    row = rows["03-01-05-02-01-02-24"]
    assert (row["emotion"], row["raw_text"], row["speaker"]) == ("angry", "Kids are talking by the door.", "24")
    assert rows["03-01-08-01-02-01-01"]["emotion"] == "surprised"
    assert rows["03-01-08-01-02-01-01"]["raw_text"] == "Dogs are sitting by the door."


def test_ravdess_is_complete_with_every_recording_of_its_actors(tmp_path):
    table = read_ravdess(write_ravdess(tmp_path, [1, 2, 3]))
    assert CORPORA["RAVDESS"].expected(table) == len(table)
    assert CORPORA["RAVDESS"].expected(table[1:]) == len(table)


# ---- all -------------------------------------------------------------------------------------------------------------


def write_small(corpus: str, root: Path) -> Path:
    if corpus == "IEMOCAP":
        return write_iemocap(root, TURNS)
    return write_ravdess(root, [1, 2]) if corpus == "RAVDESS" else write_esd(root, [esd_line("0011_000001", "Yes.")])


@pytest.mark.parametrize("corpus", CORPORA)
@pytest.mark.parametrize("below", [".", "release", "download/release"])
def test_corpus_is_found_up_to_two_levels_below(tmp_path, corpus, below):
    write_small(corpus, tmp_path / below)
    assert len(CORPORA[corpus].read(tmp_path)) > 0


@pytest.mark.parametrize("corpus", CORPORA)
def test_a_folder_without_the_corpus_is_refused(tmp_path, corpus):
    read = CORPORA[corpus].read
    with pytest.raises(InputError, match=r"--corpus_dir .*/nowhere: no such folder$"):
        read(tmp_path / "nowhere")
    write_small(corpus, tmp_path / "a" / "b" / "c")
    with pytest.raises(InputError, match=rf"--corpus_dir .*: does not contain {corpus}\w* \(no \S+ found\)"):
        read(tmp_path)


@pytest.mark.parametrize("corpus", CORPORA)
def test_two_copies_side_by_side_are_refused_and_named(tmp_path, corpus):
    write_small(corpus, tmp_path / "one")
    write_small(corpus, tmp_path / "two")
    with pytest.raises(InputError, match=rf"contains {corpus}\w* twice, in \S+/one and \S+/two$"):
        CORPORA[corpus].read(tmp_path)


@pytest.mark.parametrize("corpus", CORPORA)
def test_the_copy_at_the_higher_level_is_read(tmp_path, corpus):
    # a common copy of RAVDESS contains itself again one level below
    write_small(corpus, tmp_path)
    write_small(corpus, tmp_path / "again")
    assert not any("/again/" in path for path in CORPORA[corpus].read(tmp_path)["audio_file"])


def test_rows_are_sorted_by_name_independent_of_folders(tmp_path):
    # Angry sorts before Neutral, and "away" before "release", but 0011_000001 before 0011_000351
    lines = "".join(esd_line(f"0011_{number:06d}", "Yes.") + "\n" for number in (1, 2, 351))
    places = {"0011_000351": "Angry", "0011_000002": "Neutral/evaluation", "0011_000001": "Neutral/train"}
    table = read_esd(write_esd_speaker(tmp_path, "0011", places, lines.encode()))
    assert [Path(path).stem for path in table["audio_file"]] == ["0011_000001", "0011_000002", "0011_000351"]


def test_other_names_have_no_groups():
    nothing = ("", "", "")
    assert iemocap_groups("clip_0001") == esd_groups("0011_1") == ravdess_groups("03-02-01-01-01-01-24") == nothing
    assert esd_groups("0011_000351") == ("0011", "", "")
    assert ravdess_groups("03-01-01-01-01-01-24") == ("24", "", "")
    assert iemocap_groups("Ses03M_script01_2_F012") == ("Ses03F", "Ses03", "Ses03M_script01_2")


@pytest.mark.parametrize(
    "name, groups",
    [
        ("Ses03M_script01_2_F012", ("Ses03F", "Ses03", "Ses03M_script01_2", "F")),
        ("Ses01F_impro04_M012", ("Ses01M", "Ses01", "Ses01F_impro04", "M")),
        ("0014_000351", ("0014", "", "", "M")),
        ("0015_000351", ("0015", "", "", "F")),
        ("0019_000351", ("0019", "", "", "F")),
        ("0020_000351", ("0020", "", "", "M")),
        ("0001_000351", ("0001", "", "", "")),  # Chinese
        ("03-01-01-01-01-01-24", ("24", "", "", "F")),
        ("03-01-01-01-01-01-01", ("01", "", "", "M")),
        ("clip_0001", ("", "", "", "")),
        ("", ("", "", "", "")),
    ],
)
def test_groups_and_gender_of_a_recording_of_any_corpus(name, groups):
    assert groups_of_recording(name) == groups


def test_readers_tell_the_gender(tmp_path):
    table = rows_by_name(read_iemocap(write_iemocap(tmp_path, TURNS)))
    assert {name: row["gender"] for name, row in table.items()} == {
        "Ses01F_impro01_F000": "F",
        "Ses01F_impro01_M000": "M",
        "Ses01M_script01_1_F003": "F",
        "Ses02F_script03_2_M041": "M",
        "Ses05M_impro05a_M010": "M",
    }


TEXTS = {
    "ASCII": (b"It's", "It's"),
    "UTF-8": ("It’s，打".encode(), "It’s，打"),
    "UTF-8 with mark": ("It’s".encode("utf-8-sig"), "It’s"),
    "UTF-16 little with mark": ("\ufeffIt’s".encode("utf-16-le"), "It’s"),
    "UTF-16 big with mark": ("\ufeffIt’s".encode("utf-16-be"), "It’s"),
    "UTF-16 little": ("It’s".encode("utf-16-le"), "It’s"),
    "UTF-16 big": ("It’s".encode("utf-16-be"), "It’s"),
    "GBK comma": (b"happier\xa3\xacthe more", "happier，the more"),
    "GBK apostrophe": (b"It\xa1\xafs", "It’s"),
    "Windows apostrophe before a letter, which GBK takes for Chinese": (b"It\x92s", "It’s"),
    "Windows apostrophe before a space, which GBK refuses": (b"the boys\x92 room", "the boys’ room"),
    "Windows accent": (b"a caf\xe9, two", "a café, two"),
    "nothing": (b"", ""),
}


@pytest.mark.parametrize("data, text", TEXTS.values(), ids=TEXTS)
def test_decode_text(tmp_path, data, text):
    path = tmp_path / "0011.txt"
    path.write_bytes(data)
    assert decode_text(path) == text


def test_decode_text_names_a_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"/0011\.txt: no such file$"):
        decode_text(tmp_path / "0011.txt")


def test_a_link_to_a_folder_above_is_not_followed(tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    (tmp_path / "other.wav").touch()
    (folder / "a.wav").touch()
    (folder / "up").symlink_to("..")
    assert [path.name for path in files_below(folder, pytest.fail)] == ["a.wav"]
