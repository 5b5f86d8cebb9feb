import csv

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from utils.training.groups import group_lines, group_results, write_groups

NAMES = ("a", "b", "c")


def identity(speaker, gender=None, session=None) -> dict:
    unknown = ("",) * len(speaker)
    return {"speaker": tuple(speaker), "gender": gender or unknown, "session": session or unknown}


@pytest.fixture
def drawn():
    """Identity, labels and predictions of 120 utterances by two seeds."""
    rng = np.random.default_rng(0)
    label, prediction = rng.integers(3, size=120), rng.integers(3, size=(2, 120))
    speakers = tuple(f"s{i}" for i in rng.integers(5, size=120))
    return identity(speakers, tuple("fm"[int(name[1]) % 2] for name in speakers)), label, prediction


def test_each_group_has_its_own_results_worst_first(drawn):
    who, label, prediction = drawn
    rows = group_results(who, label, prediction, NAMES)
    assert [row["kind"] for row in rows] == ["speaker"] * 5 + ["gender"] * 2 + ["class"] * 3  # no session is known
    for row in rows:
        values = np.array(NAMES)[label] if row["kind"] == "class" else np.array(who[row["kind"]])
        inside = values == row["group"]
        assert row["utterances"] == inside.sum()
        for name, score in (("wa", accuracy_score), ("ua", balanced_accuracy_score)):
            if row["kind"] == "class":
                score = accuracy_score  # both are its recall
            expected = np.mean([score(label[inside], of_seed[inside]) for of_seed in prediction])
            assert row[name] == pytest.approx(expected)
    for kind in ("speaker", "gender", "class"):
        scores = [row["wa"] for row in rows if row["kind"] == kind]
        assert scores == sorted(scores)


def test_the_worst_large_group_is_named_with_its_count():
    speaker = ["few"] * 9 + ["bad"] * 12 + ["good"] * 20
    right = np.array([0] * 9 + [1] * 6 + [0] * 6 + [1] * 20)
    rows = group_results(identity(speaker), np.zeros(41, int), 1 - right[None], NAMES)
    lines = group_lines(rows, "f.csv")
    assert [line.split()[0] for line in lines[1:5]] == ["speaker", "few", "bad", "good"]
    assert lines[5:7] == [
        "worst speaker: bad, WA 50.0, 12 utterances",
        "not named as the worst: 1 with fewer than 10 utterances",
    ]
    assert lines[8:] == ["class  utterances  recall", "a              41    63.4"]  # a single class is not the worst


def test_utterances_of_nobody_known_are_a_group_that_is_not_named():
    rows = group_results(identity([""] * 30 + ["x"] * 10 + ["y"] * 10), np.zeros(50, int), np.ones((1, 50)), NAMES)
    assert {row["group"]: row["utterances"] for row in rows[:3]} == {"": 30, "x": 10, "y": 10}
    lines = group_lines(rows, "f.csv")
    assert "(unknown)          30  0.0  0.0" in lines
    assert "worst speaker: x, WA 0.0, 10 utterances" in lines


def test_of_many_groups_the_worst_are_printed_and_all_are_written(tmp_path):
    """With 13 groups. With 12, all are printed."""
    for count in (12, 13):
        speaker = [f"s{i:02d}" for i in range(count) for _ in range(20)]
        prediction = np.array([[int(j >= i) for i in range(count) for j in range(20)]])  # s00 is never correct
        rows = group_results(identity(speaker), np.zeros(20 * count, int), prediction, NAMES)
        write_groups(tmp_path / "g.csv", rows)
        written = list(csv.DictReader((tmp_path / "g.csv").read_text().splitlines()))
        assert [row["group"] for row in written] == [f"s{i:02d}" for i in range(count)] + ["a"]
        assert [float(row["wa"]) for row in written[:3]] == [0, 0.05, 0.1]
        lines = group_lines(rows, "g.csv")
        printed = [line.split()[0] for line in lines if line.startswith("s0") or line.startswith("s1")]
        assert len(printed) == {12: 12, 13: 5}[count]
        assert ("and 8 more in g.csv" in lines) == (count == 13)
