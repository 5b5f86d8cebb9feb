"""Predictions with identity: written files can be read, and all others are refused."""

import numpy as np
import pytest

from utils.data.identity import ATTRIBUTES
from utils.errors import InputError
from utils.training.predictions import read_predictions, write_predictions

CLASSES = ("anger", "joy, of a kind", "neutral")
IDENTITY = {"audio_file": ("a.wav", "b.wav"), **dict.fromkeys(ATTRIBUTES, ("", "")), "speaker": ("Ann", "Ben")}
PROBABILITY = np.array([[0.7, 0.2, 0.1], [1 / 3, 1 / 3 - 1e-4, 1 / 3 + 1e-4]])


@pytest.fixture
def paths(tmp_path):
    """The predictions of two seeds; the second has the classes in reverse."""
    for seed, probability in enumerate((PROBABILITY, PROBABILITY[:, ::-1])):
        write_predictions(tmp_path / f"seed{seed}.csv", IDENTITY, CLASSES, np.array([0, 1]), probability)
    return [tmp_path / "seed0.csv", tmp_path / "seed1.csv"]


def test_what_is_written_is_read(paths):
    found = read_predictions(paths)
    assert found.class_names == CLASSES
    assert found.identity == IDENTITY
    assert found.label.tolist() == [0, 1]
    assert found.prediction.tolist() == [[0, 2], [2, 0]]
    assert np.allclose(found.probability, [PROBABILITY, PROBABILITY[:, ::-1]], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("0.700000", "0.800000", "line 2: its probabilities sum to 1.1000"),
        ("0.700000,0.200000", "1.700000,-0.800000", "line 2: .* one is negative"),
        ("0.700000", "nan", "line 2: its probabilities"),
        ("0.700000", "much", "a probability is not a number"),
        (",,0,0,", ",,3,0,", "line 2: label '3' is not one of the 3 classes"),
        (",,0,0,", ",,0,-1,", "line 2: prediction '-1' is not one of the 3 classes"),
        ("b.wav", "a.wav", "line 3: audio_file 'a.wav' occurs twice"),
        (",0.100000", "", "line 2: 9 values for 10 columns"),
        ("label,prediction", "prediction,label", "not the predictions of a run"),
        (",p_neutral", "", "line 2: 10 values for 9 columns"),
    ],
)
def test_a_damaged_file_is_refused_by_line(paths, old, new, message):
    text = paths[0].read_text()
    assert old in text
    paths[0].write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=message) as caught:
        read_predictions(paths)
    assert str(paths[0]) in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new"), [("b.wav", "c.wav"), ("Ben", "Bob"), ("p_neutral", "p_calm"), (",,1,", ",,2,")]
)
def test_seeds_of_other_utterances_are_not_mixed(paths, old, new):
    text = paths[1].read_text()
    assert old in text
    paths[1].write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=rf"{paths[1]}: (utterances|labels)"):
        read_predictions(paths)
