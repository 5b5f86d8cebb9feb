from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from utils.data.splits import check_splits, group_split, random_split, split_utterances
from utils.errors import InputError


def labelled(*counts: int) -> pd.DataFrame:
    """Shuffled utterances, with one class per count."""
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
    manifest = Path("m.csv").absolute()
    split, description = split_utterances(table[:2], [manifest], None, None, None, None)
    assert split.tolist() == ["train", "test"]
    assert description == {"kind": "official", "manifests": [str(manifest)]}
    with pytest.raises(InputError, match=r"m\.csv: line 4: split 'dev': expected train, val, test$"):
        split_utterances(table, [manifest], "official", None, None, None)


# ---- the default -----------------------------------------------------------------------------------------------------


def grouped(*pairs: tuple[str, str], unusable: Sequence[int] = ()) -> pd.DataFrame:
    """Ten utterances of each class by every speaker, with the speaker's session."""
    table = spoken(*(speaker for speaker, _ in pairs), times=20)
    table.loc[list(unusable), "problem"] = "no such recording"
    return table.assign(
        session=[session for _, session in pairs] * 20, label=[i // len(pairs) % 2 for i in table.index]
    )


def by_default(table: pd.DataFrame, fold: int | None = None, folds: int | None = None) -> dict:
    return split_utterances(table, [], None, fold, folds, None)[1]


def test_named_speakers_are_split_by_default():
    table = grouped(("a", ""), ("b", ""), ("c", ""), ("d", ""))
    assert by_default(table) == {
        "kind": "speaker",
        "fold": 1,
        "members": {"train": ["c", "d"], "val": ["b"], "test": ["a"]},
    }
    assert by_default(table, 2, 3)["members"] == {"train": ["a", "b"], "val": ["d"], "test": ["c"]}


def test_sessions_are_split_by_default_where_no_speaker_is_in_two():
    pairs = [("1F", "1"), ("1M", "1"), ("2F", "2"), ("2M", "2"), ("3F", "3"), ("3M", "3")]
    assert by_default(grouped(*pairs))["members"] == {"train": ["3"], "val": ["2"], "test": ["1"]}
    assert by_default(grouped(*pairs, ("1F", "2")))["kind"] == "speaker"
    assert by_default(grouped(*pairs, ("4F", "")))["kind"] == "speaker"
    assert by_default(grouped(*pairs[:4]))["kind"] == "speaker"  # two sessions


def test_many_speakers_are_tested_in_ten_folds_by_default():
    table = grouped(*((f"{i:02d}", "") for i in range(24)))
    assert by_default(table)["members"]["test"] == ["00", "01", "02"]
    assert by_default(table, folds=24)["members"]["test"] == ["00"]
    assert split_utterances(table, [], "speaker", None, None, None)[1]["members"]["test"] == ["00"]


@pytest.mark.parametrize(
    "speakers, why",
    [
        (["", "", "", ""], "80 of 80 utterances name no speaker"),
        (["a", "b", "c", ""], "20 of 80 utterances name no speaker"),
        (["a", "b", "a", "b"], "there are only 2 speakers"),
    ],
)
def test_unknown_or_few_speakers_are_split_at_random_by_default_and_it_is_said(capsys, speakers, why):
    assert by_default(grouped(*((speaker, "") for speaker in speakers))) == {"kind": "random", "seed": 42}
    line = f"note: {why}, so the split is random: speakers in test may also be in train\n"
    assert capsys.readouterr().out == line


def test_an_utterance_that_cannot_be_used_need_not_name_its_speaker():
    table = grouped(("a", ""), ("b", ""), ("c", ""), unusable=[1])
    table.loc[1, "speaker"] = ""
    assert by_default(table)["kind"] == "speaker"


# ---- random ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 42, 2**32 - 1])
def test_random_split_is_stratified(seed):
    table = labelled(100, 50, 30)
    split = random_split(table, seed)
    assert shares(table, split) == {"train": [80, 40, 24], "val": [10, 5, 3], "test": [10, 5, 3]}
    assert split.index.equals(table.index)


def test_random_split_of_uneven_counts_covers_every_utterance():
    table = labelled(10, 37, 113, 11)
    split = random_split(table, 1)
    assert set(split) == {"train", "val", "test"}
    for name, share in (("train", 0.8), ("val", 0.1), ("test", 0.1)):
        assert np.abs(np.array(shares(table, split)[name]) - share * np.array([10, 37, 113, 11])).max() < 1


def test_split_depends_only_on_the_seed():
    table = labelled(100, 50)
    split = random_split(table, 7)
    assert random_split(table, 7).equals(split)
    for seed in (8, 9):
        assert (random_split(table, seed) != split).sum() > 20


def test_val_and_test_are_spread_over_the_table():
    table = labelled(200, 200)
    for name in ("val", "test"):
        rows = np.flatnonzero(random_split(table, 3) == name)
        assert rows.min() < 100
        assert rows.max() >= 300
        assert len(set(np.diff(rows))) > 5


def test_class_too_small_for_a_random_split():
    with pytest.raises(
        InputError, match=r"--split random: at least 10 utterances per class are required; utterances of class \d: 9"
    ):
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
    assert list(chain.from_iterable(tested)) == sorted(SPEAKERS)  # each once, sorted by name
    assert validated == [*tested[1:], tested[0]]  # val is the next test fold
    assert max(sizes) - min(sizes) <= 1


def test_groups_of_a_fold():
    table = spoken(*SPEAKERS)
    _, members = group_split(table, "speaker", 5, 5)
    assert members == {
        "train": ["0013", "0014", "0015", "0016", "0017", "0018"],
        "val": ["0011", "0012"],
        "test": ["0019", "0020"],
    }


def test_folds_do_not_depend_on_the_rows():
    table = spoken(*SPEAKERS)
    _, members = group_split(table, "speaker", 2, 4)
    assert group_split(table[::-1].reset_index(drop=True), "speaker", 2, 4)[1] == members
    assert group_split(pd.concat([table, table[:7]], ignore_index=True), "speaker", 2, 4)[1] == members


def test_group_column_is_selected():
    table = spoken("a", "b", "c", "d").assign(session=["s1", "s1", "s2", "s3"] * 3)
    split, members = group_split(table, "session", 1, None)
    assert members == {"train": ["s3"], "val": ["s2"], "test": ["s1"]}
    assert split.tolist() == ["test", "test", "val", "train"] * 3


@pytest.mark.parametrize(
    "fold, folds, message",
    [
        (0, None, "--fold 0: must be from 1 to 4"),
        (5, None, "--fold 5: must be from 1 to 4"),
        (4, 3, "--fold 4: must be from 1 to 3"),
        (1, 2, "--split speaker: 2 folds of 4 speakers; at least 3 folds, each with a speaker, are required"),
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


def test_an_unusable_utterance_without_a_group_is_ignored():
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
def test_unusable_splits(rows, message):
    with pytest.raises(InputError, match=message):
        check_splits(divided(*rows), ["anger", "joy"], "random")


@pytest.mark.parametrize("kind", ["speaker", "session"])
def test_a_split_by_group_that_cannot_be_used_names_the_way_out(kind):
    with pytest.raises(InputError, match=rf"class 0, anger \(split by {kind}; try another --fold or --split random"):
        check_splits(divided(*GOOD[1:]), ["anger", "joy"], kind)


def test_val_and_test_may_lack_a_class_and_a_note_names_it(capsys):
    check_splits(divided(*GOOD), ["anger", "joy"], "random")
    notes = "note: the {} split has no utterance of class {}"
    expected = [notes.format("val", "1, joy"), notes.format("test", "0, anger")]
    assert capsys.readouterr().out.splitlines() == expected
