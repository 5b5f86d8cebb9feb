"""The published manifests and EmoBox's folds on full-size corpus trees, and every error."""

import re
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from tests.corpus_trees import (
    away,
    edited,
    emobox_emotions,
    emobox_test_fold,
    evaluation_of,
    full_esd,
    full_iemocap,
    published_csvs,
    write_esd_speaker,
    write_iemocap,
    write_ravdess,
)
from utils.data.leakage import leakage_report
from utils.data.preparation import read_utterances
from utils.data.splits import check_splits, split_utterances
from utils.errors import InputError

SPLITS = ("train", "val", "test")
IEMOCAP_LABELS = {"ang": 0, "hap": 1, "exc": 1, "neu": 2, "sad": 3}


@pytest.fixture(scope="module")
def iemocap(tmp_path_factory) -> Path:
    return full_iemocap(tmp_path_factory.mktemp("iemocap") / "IEMOCAP_full_release")


@pytest.fixture(scope="module")
def esd(tmp_path_factory) -> Path:
    return full_esd(tmp_path_factory.mktemp("esd") / "Emotion Speech Dataset")


def read_csv(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


@dataclass
class Prepared:
    table: pd.DataFrame
    class_names: list[str]
    split: dict


def prepare(
    corpus: str,
    corpus_dir: Path | None,
    metadata: list[Path] = (),
    classes: list[str] | None = None,
    allow_partial: bool = False,
    **split_options,
) -> Prepared:
    table, class_names = read_utterances(corpus, corpus_dir, metadata, classes, allow_partial)
    options = dict.fromkeys(("split", "fold", "folds", "seed")) | split_options
    table["split"], split = split_utterances(table, metadata, *options.values())
    return Prepared(table, class_names, split)


def by_name(prepared: Prepared, column: str) -> dict[str, object]:
    table = prepared.table
    return {Path(path).stem: value for path, value in zip(table["audio_file"], table[column], strict=True)}


def problems(prepared: Prepared) -> dict[str, str]:
    return {name: problem for name, problem in by_name(prepared, "problem").items() if problem}


# ---- the published CSVs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("corpus, counts", [("IEMOCAP", [4407, 551, 551]), ("ESD", [13_996, 1749, 1750])])
def test_published_manifests_are_used_unchanged(request, corpus, counts):
    tree = request.getfixturevalue(corpus.lower())
    paths = published_csvs(corpus)
    prepared = prepare(corpus, tree, paths)
    published = pd.concat(map(read_csv, paths), ignore_index=True)
    table = prepared.table
    assert len(table) == sum(counts)
    assert [sum(table["split"] == split) for split in SPLITS] == counts
    assert problems(prepared) == {}
    assert table["audio_file"].is_unique
    for ours, theirs in zip(table["audio_file"], published["audio_file"], strict=True):
        # for some speakers the tree has splits below the emotion; the published paths do not
        parts = [part for part in Path(ours).relative_to(tree).parts if part not in ("train", "evaluation", "test")]
        assert theirs.endswith("/" + "/".join(parts))
    assert table["split"].tolist() == [s for s, count in zip(SPLITS, counts, strict=True) for _ in range(count)]
    assert table["label"].tolist() == published["label"].astype(int).tolist()
    assert table["raw_text"].tolist() == published["raw_text"].str.strip().tolist()
    assert prepared.split == {"kind": "official", "manifests": [str(path) for path in paths]}
    check_splits(table, prepared.class_names, "official")


@pytest.mark.parametrize("corpus", ["IEMOCAP", "ESD"])
def test_published_rows_agree_with_the_corpus_reader(request, corpus):
    tree = request.getfixturevalue(corpus.lower())
    published, own = prepare(corpus, tree, published_csvs(corpus)), prepare(corpus, tree)
    for column in ("audio_file", "label", "speaker", "session", "dialogue"):
        values, expected = by_name(published, column), by_name(own, column)
        assert values == {name: expected[name] for name in values}
    assert published.class_names == own.class_names
    expected = by_name(own, "raw_text")
    for name, text in by_name(published, "raw_text").items():
        # only the ESD reader normalises; £¬ is a full-width comma that the authors decoded wrongly
        mended = " ".join(text.replace("£¬", ",").replace("，", ",").split()) if corpus == "ESD" else text
        assert expected[name] == mended


@pytest.mark.parametrize("corpus", ["IEMOCAP", "ESD"])
def test_a_missing_recording_is_named_with_its_line(request, corpus):
    tree = request.getfixturevalue(corpus.lower())
    paths = published_csvs(corpus)
    whole = prepare(corpus, tree, paths)
    row = whole.table.index[whole.table["split"] == "val"][100]
    with away(Path(whole.table["audio_file"][row])):
        table = prepare(corpus, tree, paths).table
    bad = table[table["problem"] != ""]
    assert bad.index.tolist() == [row]
    assert bad["where"].item() == f"{paths[1]}: line 102"
    assert bad["problem"].item() == f"no such recording in {tree}"
    assert bad["audio_file"].item() == read_csv(paths[1])["audio_file"][100]
    others = table.index != row
    assert table[others].equals(whole.table[others])
    assert table["split"].equals(whole.table["split"])


def test_without_the_recordings_every_row_is_a_problem():
    prepared = prepare("IEMOCAP", None, published_csvs("IEMOCAP"))
    assert set(prepared.table["problem"]) == {"no such recording; use --corpus_dir to name the folder to search"}
    assert len(prepared.table) == 5509


def test_published_split_of_iemocap_shares_speakers_and_dialogues(iemocap):
    prepared = prepare("IEMOCAP", iemocap, published_csvs("IEMOCAP"))
    shared = leakage_report(prepared.table)["shared"]
    assert shared["speaker"] == {"in_test": 10, "also_in_train": 10, "test_utterances": 551}
    assert shared["session"] == {"in_test": 5, "also_in_train": 5, "test_utterances": 551}
    assert shared["dialogue"]["also_in_train"] > 100
    ours = leakage_report(prepare("IEMOCAP", iemocap, split="session").table)["shared"]
    assert all(ours[group]["also_in_train"] == 0 for group in ("speaker", "session", "dialogue"))


@pytest.mark.parametrize("split, turns", [("session", r"Ses03\w+"), ("speaker", r"Ses02\w+_F\d+")])
def test_published_manifests_can_be_split_otherwise(iemocap, split, turns):
    paths = published_csvs("IEMOCAP")
    splits = by_name(prepare("IEMOCAP", iemocap, paths, split=split, fold=3), "split")
    published = [Path(path).stem for csv in paths for path in read_csv(csv)["audio_file"]]
    tested = {name for name in published if re.fullmatch(turns, name)}
    assert {name for name, s in splits.items() if s == "test"} == tested
    assert len(splits) == len(published) == 5509


# ---- the corpora themselves ------------------------------------------------------------------------------------------


def test_iemocap_is_complete(iemocap, capsys):
    prepared = prepare("IEMOCAP", iemocap, split="random")
    assert len(prepared.table) == 5531
    assert by_name(prepared, "label") == {turn: IEMOCAP_LABELS[emotion] for turn, emotion in emobox_emotions().items()}
    assert prepared.class_names == ["anger", "happiness", "neutral", "sadness"]
    assert problems(prepared) == {}
    assert capsys.readouterr().out.splitlines() == [
        "IEMOCAP: complete, 5531 utterances of anger, happiness, neutral, sadness",
        "IEMOCAP: 5531 utterances: 1103 anger, 1636 happiness, 1708 neutral, 1084 sadness",
        "excluded, in no class: 10 xxx, 10 fru, 10 sur, 10 oth",
    ]


def test_esd_is_complete(esd, capsys):
    prepared = prepare("ESD", esd)
    assert Counter(prepared.table["label"]) == dict.fromkeys(range(5), 3500)
    assert all((int(name[5:]) - 1) // 350 == label for name, label in by_name(prepared, "label").items())
    assert problems(prepared) == {}
    assert capsys.readouterr().out.splitlines()[:2] == [
        "ESD: complete, 17500 utterances of neutral, angry, happy, sad, surprise",
        "ESD: 17500 utterances: 3500 neutral, 3500 angry, 3500 happy, 3500 sad, 3500 surprise",
    ]


@pytest.mark.parametrize("fold", range(1, 6))
def test_session_folds_are_those_of_emobox(iemocap, fold):
    prepared = prepare("IEMOCAP", iemocap, split="session", fold=fold)
    splits = by_name(prepared, "split")
    for split, number in (("test", fold), ("val", fold % 5 + 1)):
        assert {name for name, s in splits.items() if s == split} == emobox_test_fold(number)
    assert Counter(splits.values()).total() == 5531
    members = prepared.split.pop("members")
    assert prepared.split == {"kind": "session", "fold": fold}
    assert members["test"] == [f"Ses0{fold}"]
    assert len(members["train"]) == 3


def test_folds_of_speakers(esd, capsys):
    prepared = prepare("ESD", esd, split="speaker", fold=5, folds=5)
    assert prepared.split["members"]["test"] == ["0019", "0020"]
    assert Counter(prepared.table["split"]) == {"train": 10_500, "val": 3500, "test": 3500}
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("fold 5: train speaker 0013, 0014, ")
    assert line.endswith("; val speaker 0011, 0012; test speaker 0019, 0020")


def test_an_incomplete_iemocap_is_refused_unless_partial(iemocap, capsys):
    turn = "Ses03M_impro04_F001"
    with edited(evaluation_of(iemocap, turn), f"{turn}\tneu", f"{turn}\txxx"):
        with pytest.raises(
            InputError, match=r"5530 utterances, but IEMOCAP has 5531 \(1085 of Ses01, 1023 of Ses02, 1150 "
        ):
            prepare("IEMOCAP", iemocap)
        capsys.readouterr()
        prepared = prepare("IEMOCAP", iemocap, allow_partial=True)
    assert len(prepared.table) == 5530
    assert turn not in by_name(prepared, "label")
    out = capsys.readouterr().out
    assert out.startswith(f"note: {iemocap}: 5530 utterances, but IEMOCAP has 5531 (")
    assert "complete" not in out
    assert "11 xxx" in out


def test_an_extra_utterance_is_refused(iemocap):
    with (
        edited(evaluation_of(iemocap, "Ses01F_impro01_M900"), "Ses01F_impro01_M900\txxx", "Ses01F_impro01_M900\tsad"),
        pytest.raises(InputError, match="5532 utterances, but IEMOCAP has 5531"),
    ):
        prepare("IEMOCAP", iemocap)


def test_an_incomplete_esd_is_refused_unless_partial(esd):
    with away(esd / "0012" / "Sad" / "0012_001051.wav"):
        with pytest.raises(
            InputError, match=r"17499 utterances, but ESD has 17500 \(1750 of 0011, 1749 of 0012, .*; use --allow_p"
        ):
            prepare("ESD", esd)
        assert len(prepare("ESD", esd, allow_partial=True).table) == 17_499


def test_a_corpus_that_holds_a_recording_twice_is_refused(tmp_path):
    """For example, ESD with splits unpacked over a copy without splits: one recording would be in train and test."""
    write_esd_speaker(tmp_path, "0011", {"0011_001051": "Sad"}, b"")
    write_esd_speaker(tmp_path, "0011", {"0011_001051": "Sad/test"}, b"")
    with pytest.raises(InputError, match=r"Sad/test/0011_001051\.wav: has the same file name as "):
        prepare("ESD", tmp_path, allow_partial=True)


def test_ravdess_is_counted_by_whole_actors(tmp_path, capsys):
    write_ravdess(tmp_path, [1, 2, 3])
    prepared = prepare("RAVDESS", tmp_path)
    assert "RAVDESS: complete, 180 utterances of neutral, calm, " in capsys.readouterr().out
    assert len(prepared.class_names) == 8
    with (
        away(tmp_path / "Actor_02" / "03-01-05-02-01-02-02.wav"),
        pytest.raises(InputError, match=r"179 utterances, but RAVDESS has 180 \(60 of 01, 59 of 02, 60 of 03\)"),
    ):
        prepare("RAVDESS", tmp_path)


def test_ravdess_without_speech_is_not_called_complete(tmp_path, capsys):
    (tmp_path / "Actor_01").mkdir()
    (tmp_path / "Actor_01" / "03-02-05-01-01-01-01.wav").touch()
    with pytest.raises(InputError):
        prepare("RAVDESS", tmp_path)
    assert "complete" not in capsys.readouterr().out


def test_repairing_a_file_moves_no_other_utterance(iemocap):
    gone = ("Ses01F_impro01_F000", "Ses03M_impro04_F001", "Ses05F_script02_2_F013")
    mute = "Ses02F_impro07_F001"
    whole = {split: prepare("IEMOCAP", iemocap, split=split) for split in ("random", "session", "speaker")}
    files = by_name(whole["random"], "audio_file")
    transcript = iemocap / "Session2/dialog/transcriptions/Ses02F_impro07.txt"
    with ExitStack() as stack:
        for name in gone:
            stack.enter_context(away(Path(files[name])))
        stack.enter_context(edited(transcript, f"{mute} [", f"{mute}? ["))
        for split, before in whole.items():
            after = prepare("IEMOCAP", iemocap, split=split)
            assert problems(after) == {**dict.fromkeys(gone, "no such recording"), mute: "no transcript"}
            assert by_name(after, "split") == by_name(before, "split")


def test_random_split_depends_on_the_seed(iemocap):
    first = prepare("IEMOCAP", iemocap, split="random")
    assert first.split == {"kind": "random", "seed": 42}
    assert Counter(first.table["split"]) == {"train": 4424, "val": 553, "test": 554}
    assert prepare("IEMOCAP", iemocap, split="random", seed=42).table.equals(first.table)
    other = prepare("IEMOCAP", iemocap, split="random", seed=43)
    assert (other.table["split"] != first.table["split"]).sum() > 1000


def test_the_default_is_speaker_independent_where_the_corpus_names_speakers(iemocap, esd):
    assert prepare("IEMOCAP", iemocap).split == prepare("IEMOCAP", iemocap, split="session").split
    assert prepare("IEMOCAP", iemocap, fold=4).split["members"]["test"] == ["Ses04"]
    assert prepare("ESD", esd).split == prepare("ESD", esd, split="speaker").split
    assert prepare("IEMOCAP", iemocap, published_csvs("IEMOCAP")).split["kind"] == "official"


def test_classes_can_be_chosen_of_a_corpus_that_is_complete(iemocap, capsys):
    prepared = prepare("IEMOCAP", iemocap, classes=["sad", "frustration=fru", "joy=exc+hap"])
    assert prepared.class_names == ["sad", "frustration", "joy"]
    assert Counter(prepared.table["label"]) == {0: 1084, 1: 10, 2: 1636}
    out = capsys.readouterr().out
    assert "IEMOCAP: complete, 5531 utterances" in out  # counted over the classes of the corpus
    assert "excluded, in no class: 1708 neu, 1103 ang, 10 xxx" in out


# ---- small CSVs ------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_csv(tmp_path):
    """Write rows of name, label and further columns to a manifest, next to empty recordings."""

    def write(*rows: tuple, columns: str = "audio_file,raw_text,label") -> Path:
        for name, *_ in rows:
            (tmp_path / name).touch()
        lines = [columns, *(",".join([name, f"Text of {name}", *map(str, rest)]) for name, *rest in rows)]
        (tmp_path / "m.csv").write_text("\n".join(lines) + "\n")
        return tmp_path / "m.csv"

    return write


def test_manifest_with_a_column_split_is_official(small_csv):
    rows = [("a.wav", "sad", "train"), ("b.wav", "joy", "train"), ("c.wav", "joy", "val"), ("d.wav", "sad", "test")]
    path = small_csv(*rows, columns="audio_file,raw_text,label,split")
    prepared = prepare("MINE", None, [path])
    assert prepared.table["split"].tolist() == ["train", "train", "val", "test"]
    assert prepared.table["label"].tolist() == [1, 0, 0, 1]
    assert prepared.class_names == ["joy", "sad"]
    assert problems(prepared) == {}
    assert prepared.split == {"kind": "official", "manifests": [str(path)]}


def test_manifest_with_an_invalid_split_is_refused(small_csv):
    rows = [("a.wav", "sad", "train"), ("b.wav", "joy", "valid")]
    with pytest.raises(InputError, match=r"m\.csv: line 3: split 'valid': expected train, val, test"):
        prepare("MINE", None, [small_csv(*rows, columns="audio_file,raw_text,label,split")])


def test_the_column_split_of_three_manifests_must_agree_with_them(tmp_path):
    paths = []
    for name, split in (("x", "train"), ("y", "val"), ("z", "test")):
        rows = [f"{name}{i}.wav,Hi,{('sad', 'joy')[i]},{split}\n" for i in range(2)]
        (tmp_path / f"{name}.csv").write_text("audio_file,raw_text,label,split\n" + "".join(rows))
        paths.append(tmp_path / f"{name}.csv")
    prepared = prepare("MINE", tmp_path, paths)
    assert prepared.table["split"].tolist() == ["train"] * 2 + ["val"] * 2 + ["test"] * 2
    assert prepared.table["where"].tolist() == [f"{path}: line {line}" for path in paths for line in (2, 3)]
    paths[1].write_text(paths[1].read_text().replace("y1.wav,Hi,joy,val", "y1.wav,Hi,joy,test"))
    with pytest.raises(InputError, match=r"y\.csv: line 3: split 'test' in the manifest of val; remove the column"):
        prepare("MINE", tmp_path, paths)


def test_blank_transcript_is_a_problem(small_csv):
    path = small_csv(*((f"{i}.wav", i % 2) for i in range(20)))
    path.write_text(path.read_text().replace("Text of 7.wav", "  "))
    assert problems(prepare("MINE", None, [path])) == {"7": "no transcript"}


def test_manifest_without_groups_cannot_be_split_by_them(small_csv):
    path = small_csv(*((f"{i}.wav", i % 2) for i in range(20)))
    with pytest.raises(InputError, match=r"--split speaker: 20 utterances have no speaker, the first is .*/0\.wav$"):
        prepare("MINE", None, [path], split="speaker")


def test_label_of_no_class_is_refused_unless_classes_are_chosen(small_csv, capsys):
    path = small_csv(
        *((f"{i}.wav", "hap") for i in range(10)), ("x.wav", "fru"), *((f"n{i}.wav", "neu") for i in range(10))
    )
    with pytest.raises(
        InputError, match=r"m\.csv: line 12: label 'fru' is not one of anger, happiness, neutral, sadness"
    ):
        prepare("IEMOCAP", None, [path])
    prepared = prepare("IEMOCAP", None, [path], classes=["neu", "hap"])
    assert prepared.class_names == ["neu", "hap"]
    assert len(prepared.table) == 20
    assert "excluded, in no class: 1 fru" in capsys.readouterr().out


def test_label_of_no_class_is_refused_if_its_recording_has_another_row(small_csv):
    rows = [(f"{i}.wav", ("hap", "neu")[i % 2]) for i in range(20)]
    with pytest.raises(
        InputError, match=r"m\.csv: line 22: (label 'fru' is not one of anger|.*the same recording as .*line 5)"
    ):
        prepare("IEMOCAP", None, [small_csv(*rows, ("3.wav", "fru"))])


def test_a_name_that_cannot_be_printed_is_refused(small_csv):
    path = small_csv(("a.wav", "sad"), ("b\u200b.wav", "joy"))
    with pytest.raises(InputError, match=r"b\\u200b\.wav': the file name is not printable; rename the file$"):
        prepare("MINE", None, [path])


def test_classes_without_utterances(small_csv):
    path = small_csv(("a.wav", "sad"), ("b.wav", "joy"))
    with pytest.raises(InputError, match="no utterance belongs to the classes x, y; found: sad, joy"):
        prepare("MINE", None, [path], classes=["x", "y"])


@pytest.mark.parametrize(
    "corpus, options, message",
    [
        (
            "MINE",
            {},
            r"MINE: no reader for this corpus \(there are IEMOCAP, ESD, RAVDESS\); list its utterances with --m",
        ),
        ("ESD", {}, "--corpus_dir: required; give the folder of ESD"),
        ("ESD", {"corpus_dir": Path("nowhere")}, "--corpus_dir nowhere: no such folder"),
        (
            "MINE",
            {"corpus_dir": Path("nowhere"), "metadata": [Path("one.csv")]},
            "--corpus_dir nowhere: no such folder",
        ),
        ("MINE", {"metadata": [Path("m.csv")]}, "m.csv: no such file"),
    ],
)
def test_missing_input_is_named(tmp_path, monkeypatch, corpus, options, message):
    monkeypatch.chdir(tmp_path)
    Path("one.csv").write_text("audio_file,raw_text,label\na.wav,Hi,sad\n")
    with pytest.raises(InputError, match=message):
        prepare(corpus, **{"corpus_dir": None, **options})


def test_official_split_needs_manifests(tmp_path):
    write_iemocap(tmp_path, [(f"Ses01F_impro01_F{i:03d}", "neu", "Hi.") for i in range(3)])
    with pytest.raises(InputError, match=r"--split official: needs manifests; give --metadata TRAIN"):
        prepare("IEMOCAP", tmp_path, split="official", allow_partial=True)
