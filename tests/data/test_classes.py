from collections import Counter

import pandas as pd
import pytest

from utils.data.classes import Classes, classes_of_manifest, give_labels, parse_classes
from utils.errors import InputError


def labelled(*labels: str) -> pd.DataFrame:
    where = [f"m.csv: line {i + 2}" for i in range(len(labels))]
    return pd.DataFrame({"emotion": labels, "where": where, "audio_file": [f"{i}.wav" for i in range(len(labels))]})


def classes_of_unknown(table: pd.DataFrame, given: Classes | None) -> Classes:
    return classes_of_manifest(table, {}, given)


def test_parse_classes():
    classes = parse_classes(["angry", "happy=hap+exc", "sad"], {})
    assert classes == {"angry": (), "happy": ("hap", "exc"), "sad": ()}
    assert list(classes) == ["angry", "happy", "sad"]


@pytest.mark.parametrize(
    "given, message",
    [
        (["angry"], "--classes angry: at least two classes are required"),
        (["angry", "angry"], r"--classes angry: expected NAME or NAME=EMOTION\+EMOTION, with each name once"),
        (["angry", "happy="], "--classes happy=: expected NAME"),
        (["angry", "=hap"], "--classes =hap: expected NAME"),
        (["angry", "happy=hap+"], r"--classes happy=hap\+: expected NAME"),
        (["angry=ang+fru", "bad=dis+fru"], r"--classes angry=ang\+fru bad=dis\+fru: fru is in two classes"),
        (["happy=sad", "sad"], "sad is in two classes"),
        (["happy=SAD+exc", "low=sad"], "sad is in two classes"),
        (["Sad", "sad"], "sad is in two classes"),
    ],
)
def test_bad_classes(given, message):
    with pytest.raises(InputError, match=message):
        parse_classes(given, {})


def test_class_words_are_normalised_as_labels_are():
    given = ["Zoe\u0301", "joy=ｈａｐ+very\u00a0 glad"]
    assert parse_classes(given, {}) == {"Zoé": (), "joy": ("hap", "very glad")}
    with pytest.raises(InputError, match=r"^--classes a\\x1b\[m: expected NAME"):
        parse_classes(["a\x1b[m", "b"], {})


def test_labels_merge_emotions_and_excluded_emotions_are_counted():
    table = labelled("exc", "Happy", "neu", "xxx", "HAP", "fru", "xxx", "anger")
    table.index = range(10, 18)
    kept, excluded = give_labels(table, parse_classes(["neutral=neu", "happy=hap+exc", "anger"], {}))
    assert kept["label"].tolist() == [1, 1, 0, 1, 2]
    assert kept["emotion"].tolist() == ["exc", "Happy", "neu", "HAP", "anger"]
    assert kept.index.tolist() == [0, 1, 2, 3, 4]
    assert excluded == Counter(xxx=2, fru=1)
    assert "label" not in table


def test_classes_of_an_unknown_dataset():
    assert list(classes_of_unknown(labelled("sad", "angry", "sad"), None)) == ["angry", "sad"]
    numbers = classes_of_unknown(labelled(*map(str, (10, 2, 0, 9, 1, 3, 4, 8, 5, 7, 6, 6))), None)
    assert list(numbers) == [f"class {i}" for i in range(11)]
    kept, _ = give_labels(labelled("10", "2", "0"), numbers)
    assert kept["label"].tolist() == [10, 2, 0]


@pytest.mark.parametrize(
    "labels, message",
    [
        (("0", "1", "sad", "1"), r"m\.csv: line 4: label 'sad' is not a class number, unlike other labels"),
        (("sad", "1"), r"m\.csv: line 2: label 'sad' is not a class number, unlike other labels"),
        (("0", "-1"), r"m\.csv: line 3: label '-1' is not a class number, unlike other labels"),
        (("3", "0", "2"), r"m\.csv: label 1 is missing \(the greatest is 3\); number the classes from 0 without gaps"),
        (("1", "2"), r"m\.csv: label 0 is missing \(the greatest is 2\)"),
        (("sad", "sad"), r"m\.csv: line 2: every label is 'sad'; at least two classes are required"),
        (("0", "0"), r"m\.csv: line 2: every label is '0'"),
    ],
)
def test_invalid_labels_of_an_unknown_dataset(labels, message):
    with pytest.raises(InputError, match=message):
        classes_of_unknown(labelled(*labels), None)


def test_given_names_stand_for_numbers_in_order():
    given = parse_classes(["sad", "angry"], {})
    kept, _ = give_labels(labelled("1", "0"), classes_of_unknown(labelled("1", "0"), given))
    assert kept["label"].tolist() == [1, 0]
    # explicit emotions are kept, as are names that equal the labels
    assert classes_of_unknown(labelled("1", "0"), parse_classes(["sad=1", "angry=0"], {})) == {
        "sad": ("1",),
        "angry": ("0",),
    }
    assert classes_of_unknown(labelled("sad", "angry"), given) == {"sad": (), "angry": ()}


def test_two_spellings_of_one_name_are_refused():
    with pytest.raises(InputError, match=r"m\.csv: line 4: label 'happy' is spelled 'Happy' in .*m\.csv: line 2$"):
        classes_of_unknown(labelled("Happy", "sad", "happy"), None)


def test_digits_are_the_labels_themselves():
    table = labelled("0", "1", "2")
    for given, expected in ((["1", "2"], [0, 1]), (["2", "1"], [1, 0])):
        kept, excluded = give_labels(table, classes_of_unknown(table, parse_classes(given, {})))
        assert kept["emotion"].tolist() == ["1", "2"]
        assert kept["label"].tolist() == expected
        assert excluded == Counter({"0": 1})


def test_names_and_numbers_do_not_mix():
    table = labelled("0", "1", "2", "3")
    with pytest.raises(InputError, match=r"--classes angry happy neutral: the labels are numbers; give one name per"):
        classes_of_unknown(table, parse_classes(["angry", "happy", "neutral=2+3"], {}))


def test_the_names_of_a_corpus_stand_for_their_emotions():
    known = {"anger": ("ang",), "happiness": ("hap", "exc"), "sadness": ("sad",)}
    assert parse_classes(["sadness", "happiness", "ang"], known) == {
        "sadness": ("sad", "sadness"),
        "happiness": ("hap", "exc", "happiness"),
        "ang": (),
    }
    merged = parse_classes(["low=sadness+neu", "high=anger+happiness"], known)
    assert merged["high"] == ("ang", "anger", "hap", "exc", "happiness")
