import re
from pathlib import Path

import pytest

from utils.data.audio import Recording
from utils.errors import InputError
from utils.timeline.rttm import Turn, read_turns

TALK = Recording(Path("corpus/talk.wav"), 160_000, 16_000)


@pytest.fixture
def read(tmp_path):
    def read(*lines, recording=TALK, encoding="utf-8"):
        path = tmp_path / "a.rttm"
        path.write_bytes("\n".join(lines).encode(encoding))
        return read_turns(path, recording)

    return read


def line(start="1.5", duration="2.25", speaker="anna", file="talk"):
    return f"SPEAKER {file} 1 {start} {duration} <NA> <NA> {speaker} <NA> <NA>"


def test_turns_are_in_order_of_their_start(read):
    assert read(line(), line("0", "3", "李")) == [Turn(0, 3, "李"), Turn(1.5, 3.75, "anna")]


def test_other_lines_comments_and_recordings_are_not_read(read):
    others = (
        ";; by hand",
        "",
        "SPKR-INFO talk 1 <NA> <NA> <NA> unknown anna <NA> <NA>",
        line(file="lecture", start="99"),
    )
    assert read(*others, line() + " ;; sure\r", "LEXEME talk 1 1.5 0.2 yes lex anna 0.9 <NA>") == [
        Turn(1.5, 3.75, "anna")
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_nine_fields_tabs_and_a_byte_order_mark(read, encoding):
    assert read("SPEAKER\ttalk\t1\t1.5\t2.25\t<NA>\t<NA>\tanna\t<NA>", encoding=encoding) == [Turn(1.5, 3.75, "anna")]


def test_a_space_in_a_recordings_name_is_an_underscore(read):
    recording = Recording(Path("my talk (1).wav"), 160_000, 16_000)
    assert len(read(line(file="my_talk_(1)"), recording=recording)) == 1


def test_a_turn_slightly_past_the_end_ends_there(read):
    assert read(line("9", "1.4")) == [Turn(9, 10, "anna")]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (line(duration="-1"), "line 2: the duration -1 is not above 0"),
        (line(duration="0.000"), "line 2: the duration 0.000 is not above 0"),
        (line("-0.1"), "line 2: the onset -0.1 is negative"),
        (line("1,5"), "line 2: the onset '1,5' is not a number of seconds"),
        (line(duration="nan"), "line 2: the duration 'nan' is not a number of seconds"),
        (line("9", "1.6"), "line 2: the turn is from 9 s to 10.600 s, but corpus/talk.wav ends at 10.000 s"),
        (line("10.1", "0.1"), "line 2: the turn is from 10.1 s to 10.200 s, but corpus/talk.wav ends at 10.000 s"),
        ("SPEAKER talk 1 1.5 2", "line 2: 5 fields; a SPEAKER line has at least 8"),
    ],
)
def test_a_bad_turn_is_named_in_one_line(read, tmp_path, bad, message):
    with pytest.raises(InputError, match=re.escape(f"{tmp_path / 'a.rttm'}: {message}") + "$"):
        read(line(), bad)


def test_turns_of_other_recordings_are_refused(read):
    with pytest.raises(
        InputError, match=r"a\.rttm: has turns of lecture, lesson, but none of talk \(corpus/talk\.wav\)$"
    ):
        read(line(file="lesson"), line(file="lecture"))
    with pytest.raises(InputError, match=r"turns of 0, 1, 2, 3, 4 and 3 more, but none of talk"):
        read(*(line(file=str(i)) for i in range(8)))


@pytest.mark.parametrize("lines", [[""], [";; SPEAKER"], ["SPKR-INFO talk 1 <NA> <NA> <NA> unknown anna <NA> <NA>"]])
def test_a_file_without_turns_is_refused(read, lines):
    with pytest.raises(InputError, match=r"a\.rttm: no SPEAKER lines$"):
        read(*lines)


def test_a_file_in_another_encoding_is_refused(read, tmp_path):
    with pytest.raises(InputError, match=r"a\.rttm: line 2: the byte 0xfc is not UTF-8$"):
        read(line(), line(speaker="Jürgen"), encoding="latin-1")
    with pytest.raises(InputError, match="no such file"):
        read_turns(tmp_path / "b.rttm", TALK)
