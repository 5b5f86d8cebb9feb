"""EmoBox's metadata: the real files of IEMOCAP on a full-size tree, and small artificial files for every error."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import ROOT, environment
from tests.corpus_trees import EMOBOX, full_iemocap
from utils.data.emobox import read_emobox, read_folds
from utils.data.preparation import read_utterances
from utils.data.splits import split_utterances
from utils.errors import InputError

LABEL_MAP = {"neu": "Neutral", "hap": "Happy", "exc": "Happy", "sad": "Sad", "rare": "Rare"}


def line(name: str, emotion: str = "neu", **more) -> dict:
    wav = f"downloads/mine/anna/{name}.wav"
    return {"key": f"mine-{name}", "dataset": "mine", "wav": wav, "length": 1.5, "emo": emotion, "channel": 1, **more}


def write(path: Path, *rows: dict | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\n".join(row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows))
    return path


def recordings(folder: Path, *names: str) -> Path:
    (folder / "anna").mkdir(parents=True)
    for name in names:
        (folder / "anna" / f"{name}.wav").touch()
    return folder


@pytest.fixture
def real() -> Path:
    if not EMOBOX.is_dir():
        pytest.skip(f"EmoBox's list of IEMOCAP is not at {EMOBOX}")
    return EMOBOX


# ---- utterances ------------------------------------------------------------------------------------------------------


def test_the_list_of_iemocap_is_what_its_reader_finds(tmp_path, real):
    tree = full_iemocap(tmp_path / "IEMOCAP_full_release")
    table, names = read_utterances("IEMOCAP", tree, [real / "iemocap.jsonl"], None, False)
    own, own_names = read_utterances("IEMOCAP", tree, [], None, False)
    assert (len(table), names) == (5531, own_names)
    columns = ["audio_file", "raw_text", "label", "speaker", "session", "dialogue", "gender", "problem"]
    assert table[columns].sort_values("audio_file", ignore_index=True).equals(own[columns])
    folds = read_folds(real)
    split, _ = split_utterances(table, [], None, 3, None, None)
    assert {Path(path).stem for path in table.loc[split == "test", "audio_file"]} == {
        name for name, fold in folds.items() if fold == 3
    }


def test_a_corpus_without_a_reader_has_the_classes_of_the_label_map_in_its_order(tmp_path):
    rows = [line("a", "sad", raw_text="Oh."), line("b", "exc", text="Yes!"), line("c", "hap", raw_text="Great.")]
    path = write(tmp_path / "mine.jsonl", *rows, line("d", "neu", raw_text="So.", spk="ben"), b"", b"  ")
    (tmp_path / "label_map.json").write_text(json.dumps(LABEL_MAP))
    folder = recordings(tmp_path / "corpus", "a", "b", "c", "d")
    table, names = read_utterances("MINE", folder, [path], None, False)
    assert names == ["Neutral", "Happy", "Sad"]  # no utterance is rare
    assert table["label"].tolist() == [2, 1, 1, 0]
    assert table["raw_text"].tolist() == ["Oh.", "Yes!", "Great.", "So."]
    assert table["speaker"].tolist() == ["", "", "", "ben"]
    assert table["audio_file"].tolist() == [str(folder / "anna" / f"{name}.wav") for name in "abcd"]
    assert table["where"].iloc[3] == f"{path}: line 4"
    assert read_utterances("MINE", folder, [path], ["Sad", "Happy"], False)[1] == ["Sad", "Happy"]
    (tmp_path / "label_map.json").unlink()
    assert read_utterances("MINE", folder, [path], None, False)[1] == ["exc", "hap", "neu", "sad"]


def test_the_label_map_may_be_in_the_folder_above(tmp_path):
    (tmp_path / "label_map.json").write_text(json.dumps(LABEL_MAP))
    path = write(tmp_path / "fold_1" / "mine_train_fold_1.jsonl", line("a", "exc"))
    assert read_emobox(path, "MINE", None)[0]["label"] == "Happy"


def test_without_transcripts_one_line_says_what_may_be_added(tmp_path):
    path = write(tmp_path / "mine.jsonl", line("a"), line("b", "sad"))
    way_out = "add a key raw_text to its lines, or use --transcribe"
    message = rf"^{path}: no transcripts \(EmoBox has none\); {way_out}$"
    with pytest.raises(InputError, match=message):
        read_utterances("MINE", recordings(tmp_path / "corpus", "a", "b"), [path], None, False)


def test_a_line_without_a_transcript_among_others_is_a_problem(tmp_path):
    path = write(tmp_path / "mine.jsonl", line("a", raw_text="Oh."), line("b", "sad", raw_text=" "))
    table, _ = read_utterances("MINE", recordings(tmp_path / "corpus", "a", "b"), [path], None, False)
    assert table["problem"].tolist() == ["", "no transcript"]


BAD = {
    "not JSON": (b'{"key": ', r"line 2: not JSON \("),
    "not UTF-8": (b'{"key": "\xff"}', r"line 2: not JSON \("),
    "a list": (b"[1]", r"line 2: expected a JSON object, found \[1\]"),
    "no key": ({"wav": "b.wav", "emo": "neu"}, r"line 2: has no key key \(it has wav, emo\)"),
    "no emotion": ({"key": "b", "wav": "b.wav"}, r"line 2: has no key emo \(it has key, wav\)"),
    "an empty emotion": (line("b", " "), "line 2: emo is empty"),
    "a list of recordings": (line("b", wav=["b.wav"]), r"line 2: wav \['b.wav'\]: expected a string"),
    "half a character": (line("b", raw_text="\ud800"), r"line 2: raw_text .*: expected a string"),
    "another emotion": (line("b", "joy"), r"line 2: emo 'joy' is not in label_map\.json \(neu, hap, exc, sad, rare\)"),
    "the same key": (line("b", key="mine-a"), r"line 2: key 'mine-a' is also in .*mine\.jsonl: line 1"),
    "the same recording": (line("b", wav=line("a")["wav"]), r"line 2: wav '\S+/a\.wav' is also in .*: line 1"),
    "a part of a recording": (line("b", start_time=1.5), r"line 2: start_time 1\.5: this is a part of a recording"),
}


@pytest.mark.parametrize("bad, message", BAD.values(), ids=BAD)
def test_a_bad_line_is_named(tmp_path, bad, message):
    (tmp_path / "label_map.json").write_text(json.dumps(LABEL_MAP))
    path = write(tmp_path / "mine.jsonl", line("a"), bad)
    with pytest.raises(InputError, match=rf"^{path}: {message}") as caught:
        read_emobox(path, "MINE", None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "label_map, message",
    [
        ({"neu": 5.0}, r"label_map\.json: neu 5\.0: expected a string"),
        ({"neu": ""}, r"label_map\.json: neu is empty"),
        ({"neu": "Calm", "hap": "calm"}, r"label_map\.json: class 'calm' is spelled 'Calm' elsewhere"),
    ],
)
def test_a_bad_label_map_is_named(tmp_path, label_map, message):
    (tmp_path / "label_map.json").write_text(json.dumps(label_map))
    with pytest.raises(InputError, match=message):
        read_emobox(write(tmp_path / "mine.jsonl", line("a")), "MINE", None)


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_a_file_without_utterances_is_refused(tmp_path, content):
    with pytest.raises(InputError, match=r"mine\.jsonl: no utterances"):
        read_emobox(write(tmp_path / "mine.jsonl", content), "MINE", None)


# ---- folds -----------------------------------------------------------------------------------------------------------


def test_the_folds_of_iemocap_are_its_sessions(real):
    folds = read_folds(real)
    assert Counter(folds.values()) == {1: 1085, 2: 1023, 3: 1151, 4: 1031, 5: 1241}
    assert all(name[:5] == f"Ses0{fold}" for name, fold in folds.items())
    assert read_folds(real / "folds") == folds


def test_folds_of_the_published_layout(tmp_path):
    write(tmp_path / "mine.jsonl", line("a"), line("b"))
    write(tmp_path / "fold_1" / "mine_test_fold_1.jsonl", line("a"))
    write(tmp_path / "fold_1" / "mine_train_fold_1.jsonl", line("b"))
    write(tmp_path / "fold_2" / "mine_test_fold_2.jsonl", {"key": "mine-b-1"})  # only a key
    assert read_folds(tmp_path) == {"a": 1, "b-1": 2}


def test_bad_folds_are_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere: no such folder$"):
        read_folds(tmp_path / "nowhere")
    with pytest.raises(InputError, match=rf"^{tmp_path}: no fold files found \(test_fold_1"):
        read_folds(tmp_path)
    first, third = tmp_path / "test_fold_1.jsonl", tmp_path / "test_fold_3.jsonl"
    write(first, line("a"))
    write(third, line("b"), line("a"))
    with pytest.raises(InputError, match=rf"^{tmp_path}: fold 2 of 3 has no file$"):
        read_folds(tmp_path)
    second = third.rename(tmp_path / "test_fold_2.jsonl")
    with pytest.raises(InputError, match=rf"^{second}: line 2: utterance 'a' is also in {first}: line 1$"):
        read_folds(tmp_path)
    write(second, line("b"), b"{")
    with pytest.raises(InputError, match=rf"^{second}: line 2: not JSON"):
        read_folds(tmp_path)
    write(second, {"emo": "neu"})
    with pytest.raises(InputError, match=rf"^{second}: line 1: has no key key"):
        read_folds(tmp_path)
    write(tmp_path / "fold_2" / "mine_test_fold_2.jsonl", line("b"))
    with pytest.raises(InputError, match=rf"^{second}: fold 2 is also in {tmp_path}/fold_2/mine_test_fold_2\.jsonl$"):
        read_folds(tmp_path)


def test_nothing_heavy_is_imported_for_it():
    code = "import sys, utils.data.emobox; print(*{'numpy', 'pandas', 'torch', 'transformers'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("\n", "")
