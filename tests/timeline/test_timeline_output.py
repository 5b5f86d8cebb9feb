import csv
import json
import stat
from pathlib import Path

import pytest

from utils.errors import InputError
from utils.timeline.output import Moment, writing

NAMES = ("anger", "joy")
FIRST = Moment(0.5, 2.0004, "anna", "Well, hello.", False, False, "joy", [0.17, 0.83])
SECOND = Moment(3661.2, 3661.9999, None, "one\ntwo\r\n\r\n00:00 --> 1 ---> 2", True, True, "uncertain", [0.5, 0.5])


def names(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


@pytest.fixture
def stem(tmp_path):
    with writing(tmp_path / "new" / "talk.v2", NAMES) as add:
        add(FIRST)
        add(SECOND)
    assert names(tmp_path / "new") == ["talk.v2.csv", "talk.v2.jsonl", "talk.v2.srt"]
    return tmp_path / "new" / "talk.v2"


def test_the_table(stem):
    with Path(f"{stem}.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == [
        *("start", "stop", "speaker", "emotion", "confidence", "p_anger", "p_joy", "raw_text", "recognized", "short"),
    ]
    assert rows == [
        ["0.500", "2.000", "anna", "joy", "0.83", "0.17", "0.83", "Well, hello.", "false", "false"],
        ["3661.200", "3662.000", "", "uncertain", "0.5", "0.5", "0.5", SECOND.text, "true", "true"],
    ]


def test_the_lines_of_json(stem):
    first, second = (json.loads(line) for line in Path(f"{stem}.jsonl").read_text().splitlines())
    assert first == {
        "start": 0.5,
        "stop": 2.0,
        "speaker": "anna",
        "emotion": "joy",
        "confidence": 0.83,
        "probabilities": {"anger": 0.17, "joy": 0.83},
        "raw_text": "Well, hello.",
        "recognized": False,
        "short": False,
    }
    assert (second["speaker"], second["raw_text"], second["short"]) == (None, SECOND.text, True)


def test_the_subtitles(stem):
    """A line break or an arrow in a transcript would begin another subtitle."""
    assert stem.with_name("talk.v2.srt").read_bytes().decode() == (
        "1\n00:00:00,500 --> 00:00:02,000\nanna: joy 83 %\nWell, hello.\n\n"
        "2\n01:01:01,200 --> 01:01:02,000\nuncertain 50 %\none two 00:00 → 1 -→ 2\n\n"
    )


@pytest.mark.parametrize("text", ["", " \n"])
def test_without_a_transcript_a_subtitle_is_one_line(tmp_path, text):
    with writing(tmp_path / "a", NAMES) as add:
        add(Moment(0, 1, "a\nb\u2028c\0", text, False, False, "joy", [0, 1]))
    assert (tmp_path / "a.srt").read_text() == "1\n00:00:00,000 --> 00:00:01,000\na b c\\x00: joy 100 %\n\n"


def test_a_text_that_no_encoding_has_is_written(tmp_path):
    with writing(tmp_path / "a", NAMES) as add:
        add(Moment(0, 1, None, "\udc80 李", False, False, "joy", [0, 1]))
    assert "\\udc80 李" in (tmp_path / "a.csv").read_text() and "\\udc80 李" in (tmp_path / "a.srt").read_text()
    assert json.loads((tmp_path / "a.jsonl").read_text())["raw_text"] == "\udc80 李"


def test_without_moments_the_files_are_there(tmp_path):
    with writing(tmp_path / "a", NAMES):
        pass
    assert [(tmp_path / f"a.{suffix}").read_text().count("\n") for suffix in ("csv", "jsonl", "srt")] == [1, 0, 0]


def test_each_moment_is_readable_at_once_and_an_interrupt_leaves_no_final_file(tmp_path):
    with pytest.raises(KeyboardInterrupt), writing(tmp_path / "a", NAMES) as add:
        add(FIRST)
        assert [(tmp_path / f"a.{each}.part").read_text().count("joy 83") for each in ("srt",)] == [1]
        assert len((tmp_path / "a.csv.part").read_text().splitlines()) == 2
        assert len((tmp_path / "a.jsonl.part").read_text().splitlines()) == 1
        raise KeyboardInterrupt
    assert names(tmp_path) == ["a.csv.part", "a.jsonl.part", "a.srt.part"]
    with writing(tmp_path / "a", NAMES) as add:
        add(SECOND)
    assert names(tmp_path) == ["a.csv", "a.jsonl", "a.srt"]
    assert "anna" not in (tmp_path / "a.csv").read_text()


def test_a_failure_keeps_the_files_of_before(tmp_path):
    with writing(tmp_path / "a", NAMES) as add:
        add(FIRST)
    before = (tmp_path / "a.csv").read_bytes()
    with pytest.raises(InputError, match="damaged"), writing(tmp_path / "a", NAMES):
        raise InputError("damaged")
    assert (tmp_path / "a.csv").read_bytes() == before
    assert stat.S_IMODE((tmp_path / "a.csv").stat().st_mode) & 0o400


def test_a_full_disk_is_named(tmp_path):
    full = tmp_path / "a.csv.part"
    full.symlink_to("/dev/full")
    with (
        pytest.raises(OSError, match=r"No space left on device: .*a\.csv\.part"),
        writing(tmp_path / "a", NAMES) as add,
    ):
        add(FIRST)
    assert not (tmp_path / "a.csv").exists()


def test_two_commands_do_not_write_the_same_files(tmp_path):
    with writing(tmp_path / "a", NAMES) as add:
        add(FIRST)
        with pytest.raises(InputError, match="another command is writing it"), writing(tmp_path / "a", NAMES):
            pass
    assert "anna" in (tmp_path / "a.csv").read_text()
