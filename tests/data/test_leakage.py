import pandas as pd
import pytest

from utils.data.leakage import leakage_lines, leakage_report


def utterances(train: list, test: list, val: list = ()) -> pd.DataFrame:
    """Shuffled rows of text, label, speaker and session; no dialogues."""
    rows = [(split, *row) for split, part in (("train", train), ("test", test), ("val", val)) for row in part]
    table = pd.DataFrame(rows, columns=["split", "raw_text", "label", "speaker", "session"]).assign(dialogue="")
    return table.sample(frac=1, random_state=0).reset_index(drop=True)


@pytest.fixture
def report():
    """Small enough to verify by hand; train has 3, 3 and 4 utterances of classes 0, 1 and 2."""
    train = [
        ("yes", 0, "A", "s1"),
        ("yes", 0, "A", "s1"),
        ("yes", 1, "A", "s1"),
        ("no", 1, "A", ""),  # a tie of 1 and 2; 2 is more frequent
        ("no", 2, "B", "s1"),
        ("hm", 0, "B", "s2"),  # a tie of 0 and 1, equally frequent: 0
        ("hm", 1, "B", "s2"),
        ("oh", 2, "B", "s2"),
        ("why", 2, "B", "s2"),
        ("why", 2, "B", "s2"),
    ]
    test = [
        ("yes", 0, "A", "s3"),  # predicted 0
        ("yes", 1, "A", "s3"),  # 0
        ("no", 2, "A", "s1"),  # 2
        ("hm", 1, "C", "s3"),  # 0
        ("hm", 0, "C", "s3"),  # 0
        ("new", 2, "C", "s3"),  # 2
        ("new", 0, "C", ""),  # 2
        ("why", 1, "D", "s3"),  # 2
    ]
    # if val counted as train, "new" would be known and D shared
    val = [("new", 0, "D", "s3"), ("new", 0, "D", "s3"), ("yes", 1, "D", "s3"), ("yes", 1, "D", "s3")]
    return leakage_report(utterances(train, test, val))


def test_shared_values_are_counted(report):
    assert report["test_utterances"] == 8
    assert report["shared"] == {
        "speaker": {"in_test": 3, "also_in_train": 1, "test_utterances": 3},
        "session": {"in_test": 2, "also_in_train": 1, "test_utterances": 1},
        "dialogue": None,
        "transcript": {"in_test": 5, "also_in_train": 4, "test_utterances": 6},
    }


def test_scores_of_lookup_and_majority(report):
    assert report["lookup"] == {"wa": pytest.approx(4 / 8), "ua": pytest.approx((2 / 3 + 0 / 3 + 2 / 2) / 3)}
    assert report["majority"] == {"wa": pytest.approx(2 / 8), "ua": pytest.approx(1 / 3)}


def test_a_transcripts_own_label_comes_before_the_frequent_one():
    train = [("a", 0, "A", "s"), ("a", 0, "A", "s"), ("a", 1, "A", "s"), *[("b", 1, "A", "s")] * 3]
    report = leakage_report(utterances(train, [("a", 0, "A", "s"), ("new", 1, "A", "s")]))
    assert report["lookup"]["wa"] == 1
    assert report["majority"]["wa"] == pytest.approx(1 / 2)


def test_ties_are_broken_by_the_lowest_class():
    train = [("a", 2, "A", "s"), ("b", 1, "A", "s"), ("b", 2, "A", "s"), ("c", 1, "A", "s"), ("c", 0, "A", "s")]
    test = [("b", 1, "A", "s"), ("new", 1, "A", "s"), ("new", 2, "A", "s")]
    report = leakage_report(utterances(train, test))
    assert report["lookup"]["wa"] == pytest.approx(2 / 3)
    assert report["majority"]["wa"] == pytest.approx(2 / 3)


def test_groups_in_one_split_only_are_counted():
    report = leakage_report(utterances([("a", 0, "A", "")], [("a", 0, "", "s1"), ("b", 0, "", "s2")]))
    assert report["shared"]["speaker"] == {"in_test": 0, "also_in_train": 0, "test_utterances": 0}
    assert report["shared"]["session"] == {"in_test": 2, "also_in_train": 0, "test_utterances": 0}


def test_report_as_text(report):
    assert leakage_lines(report).splitlines() == [
        "train/test leakage",
        "  speakers     1 of 3 also in train, with 3 of 8 test utterances (37.5 %)",
        "  sessions     1 of 2 also in train, with 1 of 8 test utterances (12.5 %)",
        "  dialogues    unknown",
        "  transcripts  4 of 5 also in train, with 6 of 8 test utterances (75.0 %)",
        "  a lookup of the transcript alone: WA 50.00, UA 55.56 percent (always the most frequent class: 25.00, 33.33)",
    ]
