"""The identity of the rows of a feature pickle."""

import pytest

from tests.conftest import make_rows, write_pickle
from utils.data.features import load_features
from utils.errors import InputError

HEADER = "audio_file,raw_text,label,speaker\n"


@pytest.fixture
def pickle(tmp_path):
    """Three rows with the labels 0, 1, 2."""
    return write_pickle(tmp_path / "TOY_BERT_WAV2VEC_train.pkl", make_rows(3))


def test_without_a_csv_a_row_is_named_by_its_place(pickle):
    identity = load_features(pickle).identity
    assert identity["audio_file"] == tuple(f"TOY_BERT_WAV2VEC_train:{row}" for row in range(3))
    assert identity["speaker"] == identity["raw_text"] == ("", "", "")


def test_the_csv_of_the_same_name_says_who_speaks(pickle):
    rows = 'b/x.wav,"a, text",0,Ann\nb/y.wav,,1,Ben\nb/z.wav,,2,Ann\n'
    pickle.with_suffix(".csv").write_text(HEADER + rows)
    identity = load_features(pickle).identity
    assert identity["audio_file"] == ("b/x.wav", "b/y.wav", "b/z.wav")
    assert identity["speaker"] == ("Ann", "Ben", "Ann")
    assert identity["session"] == ("", "", "")
    assert identity["raw_text"] == ("a, text", "", "")


def test_what_the_csv_does_not_say_is_read_from_names_of_known_corpora(pickle):
    """As in the published CSVs: paths of another machine, and no speaker."""
    names = "/home/a/Ses02M_script01_1_F026.wav", "C:\\data\\03-01-05-01-01-01-02.wav", "0011_000351.wav"
    lines = [f"{name},{label}\n" for label, name in enumerate(names)]
    pickle.with_suffix(".csv").write_text("audio_file,label\n" + "".join(lines))
    identity = load_features(pickle).identity
    assert identity["speaker"] == ("Ses02F", "02", "0011")
    assert identity["session"] == ("Ses02", "", "")
    assert identity["gender"] == ("F", "F", "M")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "needs exactly one column audio_file"),
        ("path,label\na,0\nb,1\nc,2\n", r"needs exactly one column audio_file \(it has path, label\)"),
        ("audio_file,speaker,speaker\na,x,x\n", "needs exactly one column speaker"),
        ("audio_file,raw_text,raw_text\na,x,x\n", "needs exactly one column raw_text"),
        ("audio_file\na\nb\n", "2 rows, but TOY_BERT_WAV2VEC_train.pkl has 3"),
        ("audio_file\na\nb\na\n", r"line 4: 'a' is also in .*line 2"),
        ('audio_file,label\na,0\n"",1\nc,2\n', "line 3: audio_file is empty"),
        ("audio_file,label\na,0\nb,3\nc,2\n", "line 3: label '3', but 1 in TOY_BERT_WAV2VEC_train.pkl"),
        ("audio_file,label\na,0\nb\nc,2\n", "line 3: 1 values for 2 columns"),
        ("audio_file,speaker\na,A\nb,\x1b[31m\nc,C\n", "line 3: speaker .* is not printable"),
        ("audio_file\na\n\xff\nc\n", "not UTF-8"),
        ('audio_file\na\n"b\nc\n', "not CSV"),
    ],
)
def test_a_csv_that_does_not_fit_is_refused_by_line(pickle, text, message):
    pickle.with_suffix(".csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=message) as caught:
        load_features(pickle)
    assert "\n" not in str(caught.value)
    assert "TOY_BERT_WAV2VEC_train.csv" in str(caught.value)


def test_labels_by_name_are_not_compared(pickle):
    pickle.with_suffix(".csv").write_text("audio_file,label\na,anger\nb,joy\nc,fear\n")
    assert load_features(pickle).identity["audio_file"] == ("a", "b", "c")


def test_a_transcript_may_have_any_signs(pickle):
    pickle.with_suffix(".csv").write_text('audio_file,raw_text\na,"two\nlines"\nb,\x1b[31m\nc,\n')
    assert load_features(pickle).identity["raw_text"] == ("two\nlines", "\x1b[31m", "")
