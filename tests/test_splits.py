from itertools import chain

import numpy as np
import pandas as pd
import pytest

from utils.errors import InputError
from utils.overlap import overlap_lines, overlap_report
from utils.splits import check_split_column, check_splits, group_split, random_split


def labelled(*counts: int) -> pd.DataFrame:
    """Utterances of as many classes, in no order."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    return pd.DataFrame({"label": labels, "audio_file": [f"{i}.wav" for i in range(len(labels))]})


def spoken(*speakers: str, times: int = 3) -> pd.DataFrame:
    table = pd.DataFrame({"speaker": list(speakers) * times, "problem": ""})
    return table.assign(audio_file=[f"{i}.wav" for i in range(len(table))])


def shares(table: pd.DataFrame, split: pd.Series) -> dict:
    return {name: np.bincount(table["label"][split == name]).tolist() for name in ("train", "val", "test")}


def test_split_names():
    where = ["m.csv: line 2", "m.csv: line 3", "m.csv: line 4"]
    table = pd.DataFrame({"split": ["train", "test", "dev"], "where": where})
    check_split_column(table[:2])
    with pytest.raises(InputError, match=r"m\.csv: line 4: split 'dev': expected train, val, test$"):
        check_split_column(table)


# ---- random ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 42, 2**32 - 1])
def test_random_split_takes_the_shares_of_each_class(seed):
    table = labelled(100, 50, 30)
    split = random_split(table, seed)
    assert shares(table, split) == {"train": [80, 40, 24], "val": [10, 5, 3], "test": [10, 5, 3]}
    assert split.index.equals(table.index)


def test_random_split_of_uneven_numbers_leaves_nobody_out():
    table = labelled(10, 37, 113, 11)
    split = random_split(table, 1)
    assert set(split) == {"train", "val", "test"}
    for name, share in (("train", 0.8), ("val", 0.1), ("test", 0.1)):
        assert np.abs(np.array(shares(table, split)[name]) - share * np.array([10, 37, 113, 11])).max() < 1


def test_seed_decides_the_split():
    table = labelled(100, 50)
    split = random_split(table, 7)
    assert random_split(table, 7).equals(split)
    for seed in (8, 9):
        assert (random_split(table, seed) != split).sum() > 20


def test_val_and_test_are_a_draw_not_a_stretch():
    table = labelled(200, 200)
    for name in ("val", "test"):
        rows = np.flatnonzero(random_split(table, 3) == name)
        assert rows.min() < 100
        assert rows.max() >= 300
        assert len(set(np.diff(rows))) > 5


def test_class_too_small_for_a_random_split():
    with pytest.raises(InputError, match="--split random: a class of 9 utterances; at least 10 are needed"):
        random_split(labelled(100, 9), 0)
    assert shares(labelled(10, 10), random_split(labelled(10, 10), 0))["test"] == [1, 1]


# ---- speakers and sessions -------------------------------------------------------------------------------------------

SPEAKERS = [f"{number:04d}" for number in (15, 11, 20, 12, 19, 13, 18, 14, 17, 16)]


@pytest.mark.parametrize("folds", [None, 10, 5, 4, 3])
def test_every_group_is_tested_once_and_is_in_no_two_splits(folds):
    table = spoken(*SPEAKERS)
    tested, validated, sizes = [], [], []
    for fold in range(1, (folds or 10) + 1):
        split, members = group_split(table, "speaker", fold, folds)
        assert sorted(chain.from_iterable(members.values())) == sorted(SPEAKERS)
        assert all(speaker in members[row] for speaker, row in zip(table["speaker"], split, strict=True))
        tested.append(members["test"])
        validated.append(members["val"])
        sizes.append(len(members["test"]))
    assert list(chain.from_iterable(tested)) == sorted(SPEAKERS)  # each once, in order of names
    assert validated == [*tested[1:], tested[0]]  # val is the fold that is tested next
    assert max(sizes) - min(sizes) <= 1


def test_groups_of_a_fold():
    table = spoken(*SPEAKERS)
    _, members = group_split(table, "speaker", 5, 5)
    assert members == {
        "train": ["0013", "0014", "0015", "0016", "0017", "0018"],
        "val": ["0011", "0012"],
        "test": ["0019", "0020"],
    }


def test_rows_do_not_decide_the_groups_of_a_fold():
    table = spoken(*SPEAKERS)
    _, members = group_split(table, "speaker", 2, 4)
    assert group_split(table[::-1].reset_index(drop=True), "speaker", 2, 4)[1] == members
    assert group_split(pd.concat([table, table[:7]], ignore_index=True), "speaker", 2, 4)[1] == members


def test_group_column_is_the_one_asked_for():
    table = spoken("a", "b", "c", "d").assign(session=["s1", "s1", "s2", "s3"] * 3)
    split, members = group_split(table, "session", 1, None)
    assert members == {"train": ["s3"], "val": ["s2"], "test": ["s1"]}
    assert split.tolist() == ["test", "test", "val", "train"] * 3


@pytest.mark.parametrize(
    "fold, folds, message",
    [
        (0, None, "--fold 0: there are folds 1 to 4"),
        (5, None, "--fold 5: there are folds 1 to 4"),
        (4, 3, "--fold 4: there are folds 1 to 3"),
        (1, 2, "--split speaker: 2 folds of 4 speakers; at least 3 of each are needed"),
        (1, 5, "--split speaker: 5 folds of 4 speakers"),
        (1, 0, "--split speaker: 0 folds of 4 speakers"),
    ],
)
def test_bad_folds(fold, folds, message):
    with pytest.raises(InputError, match=message):
        group_split(spoken("a", "b", "c", "d"), "speaker", fold, folds)


def test_utterances_without_a_group_are_counted_and_the_first_named():
    table = spoken("a", "", "c", "d")
    with pytest.raises(InputError, match=r"--split speaker: 3 utterances have no speaker, the first is 1\.wav$"):
        group_split(table, "speaker", 1, None)


def test_a_bad_utterance_without_a_group_stops_nothing_and_makes_no_group():
    table = spoken("a", "", "c", "d")
    table.loc[table["speaker"] == "", "problem"] = "no such recording"
    assert group_split(table, "speaker", 1, None)[1] == {"train": ["d"], "val": ["c"], "test": ["a"]}


# ---- check_splits ----------------------------------------------------------------------------------------------------


def divided(*rows: tuple[str, int, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["split", "label", "audio_file"])


GOOD = [("train", 0, "a"), ("train", 1, "b"), ("val", 0, "c"), ("test", 1, "d")]


@pytest.mark.parametrize(
    "rows, message",
    [
        (GOOD[:3], "the test split is empty"),
        (GOOD[2:], "the train split is empty"),
        ([*GOOD[:2], GOOD[3]], "the val split is empty"),
        (GOOD[1:], "the train split has no utterance of class 0, anger"),
        ([GOOD[0], *GOOD[2:]], "the train split has no utterance of class 1, joy"),
    ],
)
def test_splits_that_cannot_be_used(rows, message):
    with pytest.raises(InputError, match=message):
        check_splits(divided(*rows), ["anger", "joy"])


def test_val_and_test_may_lack_a_class():
    check_splits(divided(*GOOD), ["anger", "joy"])


# ---- overlap ---------------------------------------------------------------------------------------------------------


def overlapping(train: list, test: list, val: list = ()) -> pd.DataFrame:
    """Rows of text, label, speaker and session; no dialogues."""
    rows = [(split, *row) for split, part in (("train", train), ("test", test), ("val", val)) for row in part]
    table = pd.DataFrame(rows, columns=["split", "raw_text", "label", "speaker", "session"]).assign(dialogue="")
    return table.sample(frac=1, random_state=0).reset_index(drop=True)


@pytest.fixture
def report():
    """By hand: train has 3, 3 and 4 of classes 0, 1 and 2."""
    train = [
        ("yes", 0, "A", "s1"),
        ("yes", 0, "A", "s1"),
        ("yes", 1, "A", "s1"),
        ("no", 1, "A", ""),  # a tie of 1 and 2, of which 2 is more frequent
        ("no", 2, "B", "s1"),
        ("hm", 0, "B", "s2"),  # a tie of 0 and 1, as frequent, so 0
        ("hm", 1, "B", "s2"),
        ("oh", 2, "B", "s2"),
        ("why", 2, "B", "s2"),
        ("why", 2, "B", "s2"),
    ]
    test = [
        ("yes", 0, "A", "s3"),  # answered 0
        ("yes", 1, "A", "s3"),  # 0
        ("no", 2, "A", "s1"),  # 2
        ("hm", 1, "C", "s3"),  # 0
        ("hm", 0, "C", "s3"),  # 0
        ("new", 2, "C", "s3"),  # 2
        ("new", 0, "C", ""),  # 2
        ("why", 1, "D", "s3"),  # 2
    ]
    # val would answer "new" and make D known, were it taken for train
    val = [("new", 0, "D", "s3"), ("new", 0, "D", "s3"), ("yes", 1, "D", "s3"), ("yes", 1, "D", "s3")]
    return overlap_report(overlapping(train, test, val), 4)


def test_what_test_shares_with_train(report):
    assert report["test_utterances"] == 8
    assert report["shared"] == {
        "speaker": {"in_test": 3, "also_in_train": 1, "test_utterances": 3},
        "session": {"in_test": 2, "also_in_train": 1, "test_utterances": 1},
        "dialogue": None,
        "transcript": {"in_test": 5, "also_in_train": 4, "test_utterances": 6},
    }


def test_a_lookup_of_the_transcript_scores(report):
    assert report["lookup"] == {"wa": pytest.approx(4 / 8), "ua": pytest.approx((2 / 3 + 0 / 3 + 2 / 2) / 3)}
    assert report["majority"] == {"wa": pytest.approx(2 / 8), "ua": pytest.approx(1 / 3)}


def test_a_transcripts_own_label_comes_before_the_frequent_one():
    train = [("a", 0, "A", "s"), ("a", 0, "A", "s"), ("a", 1, "A", "s"), *[("b", 1, "A", "s")] * 3]
    report = overlap_report(overlapping(train, [("a", 0, "A", "s"), ("new", 1, "A", "s")]), 2)
    assert report["lookup"]["wa"] == 1
    assert report["majority"]["wa"] == pytest.approx(1 / 2)


def test_equally_frequent_classes_are_answered_by_the_first():
    train = [("a", 2, "A", "s"), ("b", 1, "A", "s"), ("b", 2, "A", "s"), ("c", 1, "A", "s"), ("c", 0, "A", "s")]
    test = [("b", 1, "A", "s"), ("new", 1, "A", "s"), ("new", 2, "A", "s")]
    report = overlap_report(overlapping(train, test), 3)
    assert report["lookup"]["wa"] == pytest.approx(2 / 3)
    assert report["majority"]["wa"] == pytest.approx(2 / 3)


def test_groups_that_one_split_alone_has_are_known():
    report = overlap_report(overlapping([("a", 0, "A", "")], [("a", 0, "", "s1"), ("b", 0, "", "s2")]), 2)
    assert report["shared"]["speaker"] == {"in_test": 0, "also_in_train": 0, "test_utterances": 0}
    assert report["shared"]["session"] == {"in_test": 2, "also_in_train": 0, "test_utterances": 0}


def test_overlap_in_words(report):
    assert overlap_lines(report).splitlines() == [
        "overlap of test with train",
        "  speakers     1 of 3 also in train, with 3 of 8 test utterances (37.5 %)",
        "  sessions     1 of 2 also in train, with 1 of 8 test utterances (12.5 %)",
        "  dialogues    not known",
        "  transcripts  4 of 5 also in train, with 6 of 8 test utterances (75.0 %)",
        "  a lookup of the transcript alone: WA 50.00, UA 55.56 percent (always the most frequent class: 25.00, 33.33)",
    ]
