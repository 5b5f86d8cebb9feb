"""Which utterances are train, val and test in each fold."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest

from tests.conftest import make_rows, write_pickle
from utils.errors import InputError
from utils.folds.protocol import TEST, TRAIN, VAL, choose_by, divide, read_pool


def write(folder, split: str, rows: range, speakers: int = 6, dataset: str = "TOY") -> None:
    """Utterances of speakers s0, s1, ...: two speakers per session, every class for each speaker."""
    path = folder / f"{dataset}_BERT_WAV2VEC_{split}.pkl"
    write_pickle(path, [make_rows(96)[row] for row in rows])
    who = [(f"u{row}.wav", row % 4, row // 4 % speakers) for row in rows]
    table = [(name, label, f"s{speaker}", f"d{speaker // 2}") for name, label, speaker in who]
    columns = ["audio_file", "label", "speaker", "session"]
    pd.DataFrame(table, columns=columns).to_csv(path.with_suffix(".csv"), index=False)


@pytest.fixture
def pool(tmp_path):
    write(tmp_path, "train", range(64))
    write(tmp_path, "test", range(64, 96))
    return read_pool("TOY", tmp_path)


def test_the_pickles_that_exist_are_pooled_in_order(pool):
    assert pool.features.identity["audio_file"] == tuple(f"u{row}.wav" for row in range(96))
    assert pool.features.label.tolist() == [row % 4 for row in range(96)]
    assert pool.class_names == ("class 0", "class 1", "class 2", "class 3")


def test_named_pickles_alone_are_pooled(pool, tmp_path):
    write(tmp_path, "all", range(96))
    assert len(read_pool("TOY", tmp_path, ["all"]).features) == 96
    with pytest.raises(InputError, match=r"_all.pkl: 'u0.wav' is also in .*_train.pkl; select pickles with --splits"):
        read_pool("TOY", tmp_path)


def test_no_features_are_one_line(tmp_path):
    with pytest.raises(InputError, match=r"no features of TOY \(none of TOY_BERT_WAV2VEC_train.pkl, "):
        read_pool("TOY", tmp_path)


@pytest.mark.parametrize("val", ["group", "speaker", "random"])
@pytest.mark.parametrize(("by", "folds", "count"), [("session", None, 3), ("speaker", None, 6), ("speaker", 4, 4)])
def test_every_utterance_is_tested_once_and_its_speaker_only_then(pool, tmp_path, by, folds, count, val):
    protocol = divide(pool, tmp_path, by, val, folds)
    assert len(protocol.folds) == count
    assert ((protocol.split == TEST).sum(0) == 1).all()
    speaker, label = pool.groups("speaker"), pool.features.label.numpy()
    for fold in protocol.folds:
        train, valid, test = (protocol.rows(fold, part) for part in (TRAIN, VAL, TEST))
        assert len(train) + len(valid) + len(test) == 96
        assert not set(speaker[test]) & set(speaker[np.concatenate([train, valid])])
        assert set(label[train]) == set(label[valid]) == {0, 1, 2, 3}
        if val == "random":
            assert len(valid) == round(0.2 * (len(train) + len(valid)))
        else:
            assert not set(speaker[valid]) & set(speaker[train])
        if val == "group":
            assert set(valid) == set(protocol.rows(fold % count + 1))
        data = protocol.data[fold]
        assert data.splits["test"].identity["audio_file"] == tuple(f"u{row}.wav" for row in test)
        assert data.splits["train"].label.tolist() == label[train].tolist()


def test_validation_speakers_are_a_fifth_and_each_is_one_in_some_fold(pool, tmp_path):
    protocol = divide(pool, tmp_path, "speaker", "speaker")
    found = [set(pool.groups("speaker")[protocol.rows(fold, VAL)]) for fold in protocol.folds]
    assert [len(names) for names in found] == [1] * 6  # of 5 training speakers
    assert set.union(*found) == {f"s{i}" for i in range(6)}


def test_random_folds_are_stratified_and_the_same_each_time(pool, tmp_path):
    protocol = divide(pool, tmp_path, "random", "group", 4)
    for fold in protocol.folds:
        assert Counter(pool.features.label[protocol.rows(fold)].tolist()) == dict.fromkeys(range(4), 6)
    assert np.array_equal(protocol.split, divide(pool, tmp_path, "random", "speaker", 4).split)
    assert protocol.folder.name == "folds-random-folds=4"


def test_given_folds_are_found_by_the_recording_without_its_suffix(pool, tmp_path):
    given = {f"u{row}": row // 24 + 1 for row in range(96)} | {"elsewhere": 9}
    with pytest.raises(InputError, match="speaker s0 is in fold 1 and in fold 2"):
        divide(pool, tmp_path, "session", "random", given=given)
    by_session = {f"u{row}": 2 * (row // 8 % 3) + 1 for row in range(96)}  # numbered 1, 3 and 5
    protocol = divide(pool, tmp_path, "session", "random", given=by_session)
    assert np.array_equal(protocol.fold, divide(pool, tmp_path, "session", "random").fold)
    with pytest.raises(InputError, match="95 of 96 utterances are in no fold, the first is u1"):
        divide(pool, tmp_path, "session", "random", given={"u0": 1})


def test_folds_are_by_session_where_it_is_named_else_by_speaker_else_random(pool, tmp_path):
    assert choose_by(pool) == "session"
    path = tmp_path / "TOY_BERT_WAV2VEC_train.csv"
    table = pd.read_csv(path)
    for column, by in (("session", "speaker"), ("speaker", "random")):
        table.loc[3, column] = None
        table.to_csv(path, index=False)
        found = read_pool("TOY", tmp_path)
        assert choose_by(found) == by
        with pytest.raises(InputError, match=f"--by {column}: 1 utterances have no {column}, the first is 'u3.wav'"):
            divide(found, tmp_path, column, "group")


def test_a_speaker_in_two_sessions_is_refused(tmp_path):
    write(tmp_path, "all", range(96))
    path = tmp_path / "TOY_BERT_WAV2VEC_all.csv"
    path.write_text(path.read_text().replace("s5,", "s0,"))
    with pytest.raises(InputError, match="speaker s0 is in fold 1 and in fold 3; use --by speaker"):
        divide(read_pool("TOY", tmp_path), tmp_path, "session", "group")


def test_a_fold_without_a_class_is_refused(tmp_path):
    write(tmp_path, "all", range(0, 96))
    path = tmp_path / "TOY_BERT_WAV2VEC_all.csv"
    lines = path.read_text().splitlines()
    moved = [line.replace(",s1,d0", ",s2,d1") if ",3,s1" in line or ",3,s0" in line else line for line in lines]
    moved = [line.replace(",s0,d0", ",s2,d1") if ",3,s0" in line else line for line in moved]
    path.write_text("\n".join(moved))
    with pytest.raises(
        InputError, match="fold 1: its test part has no utterance of class 3; use fewer --folds, or --by random"
    ):
        divide(read_pool("TOY", tmp_path), tmp_path, "session", "group")


@pytest.mark.parametrize(
    ("by", "folds", "message"),
    [
        ("session", 4, "--by session: 4 folds of 3 sessions; at least 3 folds, each with a session"),
        ("speaker", 2, "--by speaker: 2 folds of 6 speakers"),
        ("random", 25, "--by random: 25 folds; must be from 3 to 24"),
    ],
)
def test_impossible_numbers_of_folds_are_named(pool, tmp_path, by, folds, message):
    with pytest.raises(InputError, match=message):
        divide(pool, tmp_path, by, "group", folds)


def test_folds_csv_names_every_part_and_guards_its_folder(pool, tmp_path):
    protocol = divide(pool, tmp_path, "session", "group")
    protocol.write()
    protocol.write()  # the same
    table = pd.read_csv(protocol.path)
    assert table.loc[8, ["audio_file", "speaker", "fold1", "fold2", "fold3"]].tolist() == [
        "u8.wav",
        "s2",
        "val",
        "test",
        "train",
    ]
    write(tmp_path, "test", range(64, 95))
    with pytest.raises(InputError, match=r"folds.csv: contains other utterances or folds; choose another --save_path"):
        divide(read_pool("TOY", tmp_path), tmp_path, "session", "group").write()
