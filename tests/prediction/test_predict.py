"""predict.py as a user calls it, with a trained run, tiny encoders, and recordings whose emotions are tones."""

import io
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

import train
from tests.conftest import TRAINING
from tests.prediction.conftest import answers, ask
from tests.tiny_models import save_tiny_audio_model
from utils.data.audio import load_segment, probe, split
from utils.data.features import load_features
from utils.extraction import encoding
from utils.extraction.hub import load_audio_encoder
from utils.prediction import pipeline
from utils.prediction.answers import Answers
from utils.prediction.inductive import Predictor, load_training_graph
from utils.training.folder import GRAPH_FILE
from utils.training.trained import find_checkpoints, load_run

CPU = torch.device("cpu")


def test_answers_are_those_of_the_features(tones, run, trained):
    """Test recordings that are encoded again get the same answers as their rows of the pickle."""
    table = pd.read_csv(tones / "feature" / "TONES_BERT_WAV2VEC_test.csv")
    table["audio_file"] = [f"/home/somebody/corpus/{'/'.join(path.split('/')[-2:])}" for path in table["audio_file"]]
    table[["audio_file", "raw_text"]].to_csv(tones / "requests.csv", index=False)
    features = load_features(tones / "feature" / "TONES_BERT_WAV2VEC_test.pkl")
    models = load_run(find_checkpoints(str(trained), tones)[1])
    expected = Predictor(models, load_training_graph(models[0]), CPU)(features.text, features.audio)

    code, out, err = ask(run, trained, "--csv", tones / "requests.csv", "--corpus_dir", tones / "corpus", "--json")
    assert code == 0, err
    found = answers(out)
    assert [each["audio_file"] for each in found] == table["audio_file"].tolist()
    assert [each["raw_text"] for each in found] == table["raw_text"].tolist()
    names = ["high", "low", "middle"]
    assert [list(each["probabilities"]) for each in found] == [names] * 12
    probabilities = torch.tensor([list(each["probabilities"].values()) for each in found])
    assert (probabilities - expected).abs().max() < 1e-5
    assert [each["emotion"] for each in found] == [names[i] for i in expected.argmax(1)]
    assert len({each["emotion"] for each in found}) > 1


def test_the_table_says_the_same_as_json(tones, run, trained):
    wavs = [tones / "corpus" / "s0" / "00.wav", tones / "corpus" / "s1" / "01.wav"]
    options = ["--wav", *wavs, "--text", "aaa 0", "aaa 1"]
    code, out, _ = ask(run, trained, *options)
    assert code == 0
    first, header, *rows = out.splitlines()
    assert first.startswith(f"run {trained}, mean of 2 seeds; device cpu")
    assert header.split() == ["recording", "emotion", "high", "low", "middle"]
    objects = answers(ask(run, trained, *options, "--json")[1])
    for row, wav, each in zip(rows, wavs, objects, strict=True):
        percents = [f"{100 * value:.1f}" for value in each["probabilities"].values()]
        assert row.split() == [str(wav), each["emotion"], *percents]
    assert len({len(line) for line in (header, *rows)}) == 1


def test_an_answer_below_the_confidence_asked_for_is_uncertain(tones, run, trained):
    options = ["--wav", *sorted((tones / "corpus" / "s0").iterdir())]
    plain = answers(ask(run, trained, *options, "--json")[1])
    highest = sorted(max(each["probabilities"].values()) for each in plain)
    options += ["--min_confidence", (highest[2] + highest[3]) / 2]
    cautious = answers(ask(run, trained, *options, "--json")[1])
    assert [each["emotion"] for each in cautious].count("uncertain") == 3
    for one, other in zip(plain, cautious, strict=True):
        sure = max(one["probabilities"].values()) > highest[2]
        assert other == one | ({} if sure else {"emotion": "uncertain"})
    _, header, *rows = ask(run, trained, *options)[1].splitlines()[-len(plain) - 2 :]
    assert [row.split()[1] for row in rows] == [each["emotion"] for each in cautious]
    assert len({len(line) for line in (header, *rows)}) == 1


def test_a_class_named_uncertain_is_not_mistaken_for_no_answer(tones, run, trained):
    for path in trained.glob("seed*/best.pt"):
        saved = torch.load(path, weights_only=True)
        torch.save({**saved, "class_names": ["high", "low", "uncertain"]}, path)
    wav = ["--wav", tones / "corpus" / "s0" / "00.wav"]
    assert ask(run, trained, *wav)[0] == 0
    code, _, err = ask(run, trained, *wav, "--min_confidence", 0.5)
    assert (code, err) == (2, "error: --min_confidence: the run already has a class named uncertain\n")


def test_json_is_all_that_is_on_standard_output(tones, run, trained):
    """A dataset may have several runs, and a run may have an unfinished seed."""
    shutil.copytree(trained, trained.with_name("other"))
    (trained.with_name("other") / "seed2" / "metrics.json").unlink()
    os.utime(trained.with_name("other") / "summary.json")
    options = ["--save_path", tones / "runs", "--wav", tones / "corpus" / "s0" / "00.wav", "--json"]
    code, out, err = ask(run, "TONES", *options)
    assert code == 0
    assert len(answers(out)) == 1
    assert "2 runs in" in err
    assert "not finished, skipped: seed2" in err


def test_one_seed_answers_alone(tones, run, trained):
    wav = tones / "corpus" / "s0" / "00.wav"
    each = [answers(ask(run, trained / f"seed{s}", "--wav", wav, "--text", "aaa", "--json")[1])[0] for s in (1, 2)]
    both = answers(ask(run, trained, "--wav", wav, "--text", "aaa", "--json")[1])[0]
    for name, value in both["probabilities"].items():
        assert value == pytest.approx(sum(one["probabilities"][name] for one in each) / 2, abs=2e-6)
    assert each[0] != each[1]


def test_a_folder_is_answered_and_bad_files_do_not_stop_the_rest(tones, run, trained):
    folder = tones / "mixed"
    shutil.copytree(tones / "corpus" / "s0", folder / "inside")
    soundfile.write(folder / "silence.FLAC", [0.0] * 16_000, 16_000)
    (folder / "broken.wav").write_bytes((folder / "inside" / "00.wav").read_bytes()[:3000])
    (folder / "empty.wav").touch()
    (folder / "notes.txt").write_text("no recording")
    (folder / "inside" / "._00.wav").write_bytes(b"macOS")
    code, out, err = ask(run, trained, "--wav", folder, folder / "none.wav", "--json")
    found = {each["audio_file"].removeprefix(f"{folder}/"): each for each in answers(out)}
    good = {f"inside/{i:02d}.wav" for i in range(0, 36, 6)}
    assert code == 1
    assert {name for name, each in found.items() if "emotion" in each} == good
    assert found["empty.wav"]["error"] == "the file is empty"
    assert found["none.wav"]["error"] == "no such file"
    assert found["broken.wav"]["error"].startswith("truncated")
    assert found["silence.FLAC"]["error"].startswith("contains only silence")
    assert len(found) == 10
    assert err.splitlines()[-1] == "4 of 10 recordings failed"
    assert f"error: {folder}/empty.wav: the file is empty" in err
    assert f"note: 1 other files in {folder} were skipped (.txt)" in err
    order = [name for name in found if name in good]
    assert order == sorted(order)
    code, out, _ = ask(run, trained, "--wav", folder)
    assert code == 1
    assert sum("inside" in line for line in out.splitlines()) == 6


def test_names_that_no_encoding_or_file_system_takes_are_failed_recordings(tones, run, trained):
    good = tones / "corpus" / "s0" / "00.wav"
    folder = tones / "odd"
    folder.mkdir()
    shutil.copy(good, folder / "\udcff.wav")
    (folder / "gone.wav").symlink_to(tones / "nowhere.wav")
    wavs = [folder, "x" * 300 + ".wav", good]
    code, out, err = ask(run, trained, "--wav", *wavs, "--json")
    assert code == 1
    assert [("error" in each, each["audio_file"].split("/")[-1][:8]) for each in answers(out)] == [
        (True, "gone.wav"),
        (True, "\udcff.wav"),
        (True, "xxxxxxxx"),
        (False, "00.wav"),
    ]
    assert err.splitlines()[-1] == "3 of 4 recordings failed"
    assert ask(run, trained, "--wav", *wavs)[0] == 1


def test_names_with_escape_sequences_are_shown_escaped(tones, run, trained):
    folder = tones / "odd"
    folder.mkdir()
    shutil.copy(tones / "corpus" / "s0" / "00.wav", folder / "a\x1b[2J.wav")
    (folder / "b\x1b]0;x\x07.wav").touch()
    (folder / "c.t\x1bxt").touch()
    code, out, err = ask(run, trained, "--wav", folder)
    assert code == 1
    assert out.splitlines()[-1].startswith(f"{folder}/a\\x1b[2J.wav  ")
    assert f"error: {folder}/b\\x1b]0;x\\x07.wav: the file is empty" in err
    assert "were skipped (.t\\x1bxt)" in err
    assert "\x1b" not in out + err.replace("\x1b[A", "")  # tqdm writes it
    found = answers(ask(run, trained, "--wav", folder, "--json")[1])
    assert {each["audio_file"] for each in found} == {f"{folder}/a\x1b[2J.wav", f"{folder}/b\x1b]0;x\x07.wav"}


def test_linked_folders_are_answered_once(tones, run, trained):
    folder = tones / "linked"
    folder.mkdir()
    for name, target in (("one", "s0"), ("two", "s0"), ("three", "s1")):
        (folder / name).symlink_to(tones / "corpus" / target)
    (folder / "round").symlink_to(folder)
    code, out, _ = ask(run, trained, "--wav", folder, "--json")
    found = [each["audio_file"] for each in answers(out)]
    assert code == 0
    assert found == sorted(found)
    assert sorted(os.path.realpath(path) for path in found) == sorted(
        str(path) for name in ("s0", "s1") for path in (tones / "corpus" / name).iterdir()
    )


def test_a_folder_that_cannot_be_read_is_a_failed_request(tones, run, trained, monkeypatch):
    secret, scandir = tones / "corpus" / "s1", os.scandir

    def refusing(path):
        if str(path) == str(secret):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    code, out, err = ask(run, trained, "--wav", tones / "corpus", "--json")
    failed = [each for each in answers(out) if "error" in each]
    assert code == 1
    assert failed == [{"audio_file": str(secret), "raw_text": None, "error": "cannot be read (Permission denied)"}]
    assert err.splitlines()[-1] == "1 of 31 recordings failed"


def test_a_row_in_a_folder_that_cannot_be_read_does_not_stop_the_rest(tones, run, trained, monkeypatch):
    secret, is_file = tones / "corpus" / "s1", Path.is_file

    def refusing(path):
        if secret in path.parents:
            raise PermissionError(13, "Permission denied", str(path))
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", refusing)
    (tones / "loop.wav").symlink_to("loop.wav")
    rows = ["corpus/s1/01.wav", "loop.wav", f"{'x' * 300}.wav", "corpus/s0/00.wav"]
    (tones / "requests.csv").write_text("\n".join(["audio_file", *rows]) + "\n")
    code, out, _ = ask(run, trained, "--csv", tones / "requests.csv", "--json")
    found = {each["audio_file"]: each for each in answers(out)}
    assert code == 1
    assert found[rows[0]]["error"].endswith(f"({secret / '01.wav'}: Permission denied)")
    assert all(found[row]["error"].startswith("no such recording") for row in rows[:3])
    assert "emotion" in found[rows[3]]


def test_what_stands_in_for_a_missing_transcript_is_said(tones, run, trained):
    """A transcript whose embedding is the mean of train gives the same answer."""
    wav = tones / "corpus" / "s0" / "00.wav"
    note = (
        "note: 1 of 1 recordings have no transcript; the mean text embedding of the training utterances is used "
        "instead (--transcribe recognises transcripts)"
    )
    code, out, _ = ask(run, trained, "--wav", wav)
    assert (code, note in out) == (0, True)
    _, out, err = ask(run, trained, "--wav", wav, "--json")
    assert note in err
    (found,) = answers(out)
    assert found["raw_text"] is None
    models = load_run(find_checkpoints(str(trained), tones)[1])
    graph = load_training_graph(models[0])
    features = load_features(tones / "feature" / "TONES_BERT_WAV2VEC_test.pkl")
    files = pd.read_csv(tones / "feature" / "TONES_BERT_WAV2VEC_test.csv")["audio_file"].tolist()
    row = files.index(str(wav))
    expected = Predictor(models, graph, CPU)(graph.text.mean(0)[None], features.audio[row : row + 1])
    assert list(found["probabilities"].values()) == pytest.approx(expected[0].tolist(), abs=1e-5)
    (tones / "requests.csv").write_text(f"audio_file,raw_text\n{wav},\n{wav},aaa 0\n")
    code, out, err = ask(run, trained, "--csv", tones / "requests.csv", "--json")
    assert code == 0
    assert "note: 1 of 2 recordings have no transcript" in err
    without, with_text = answers(out)
    probabilities = [answer.pop("probabilities") for answer in (without, found)]
    assert probabilities[0] == pytest.approx(probabilities[1], abs=1e-5)  # rounded, and computed in another batch
    assert without == {**found, "audio_file": str(wav)}
    assert with_text["raw_text"] == "aaa 0"
    assert with_text["probabilities"] != pytest.approx(probabilities[0], abs=1e-5)


def test_answers_come_while_others_are_still_encoded(tones, run, trained, monkeypatch):
    events = []
    encode, add = encoding.encode, Answers.add
    monkeypatch.setattr(encoding, "encode", lambda *args: (events.append("encode"), encode(*args))[1])
    monkeypatch.setattr(Answers, "add", lambda *args: (events.append("answer"), add(*args))[1])
    monkeypatch.setattr(pipeline, "BATCH_SECONDS", {"cpu": 0.6})
    assert ask(run, trained, "--wav", tones / "corpus" / "s0")[0] == 0
    assert events == ["encode", "answer"] * 6


def test_a_long_recording_is_answered_by_the_mean_of_its_segments(tones, run, trained, encoders):
    """It has 75 s in three segments, each in a separate batch. Later recordings are answered after it."""
    rng = np.random.default_rng(0)
    soundfile.write(tones / "long.wav", 0.1 * rng.standard_normal(75 * 16_000), 16_000)
    wavs = [tones / "long.wav", tones / "corpus" / "s0" / "06.wav"]
    code, out, _ = ask(run, trained, "--wav", *wavs, "--json", "--batch_seconds", 5)
    found = answers(out)
    assert code == 0
    assert [each["audio_file"] for each in found] == list(map(str, wavs))
    encoder, _ = load_audio_encoder(str(encoders[3]), CPU)
    segments = split(probe(wavs[0]).whole, 30, 16_000)
    assert len(segments) == 3
    with torch.inference_mode():
        parts = [encoder([encoder.prepare(load_segment(segment, 16_000))])[0] for segment in segments]
    models = load_run(find_checkpoints(str(trained), tones)[1])
    graph = load_training_graph(models[0])
    expected = Predictor(models, graph, CPU)(graph.text.mean(0)[None], torch.stack(parts).mean(0)[None])
    assert list(found[0]["probabilities"].values()) == pytest.approx(expected[0].tolist(), abs=1e-4)


def test_the_run_folder_is_enough(tones, run, trained):
    """It is in another place without features. Its encoders are in the same place."""
    wav = tones / "corpus" / "s0" / "00.wav"
    before = ask(run, trained, "--wav", wav, "--text", "aaa", "--json")[1]
    shutil.rmtree(tones / "feature")
    trained.rename(tones / "handed_on")
    code, after, _ = ask(run, tones / "handed_on", "--wav", wav, "--text", "aaa", "--json")
    assert (code, after) == (0, before)


def test_another_encoder_is_refused(tones, run, trained, encoders):
    other = save_tiny_audio_model(tones / "other", seed=1)
    options = ["--wav", tones / "corpus" / "s0" / "00.wav", "--text", "aaa"]
    code, _, err = ask(run, trained, *options, "--audio_model", other)
    assert (code, err.splitlines()[-1]) == (
        2,
        f"error: --audio_model {other}: not the encoder of this run (different weights)",
    )
    settings = tones / "copy"
    shutil.copytree(encoders[3], settings)
    extractor = settings / "preprocessor_config.json"
    extractor.write_text(extractor.read_text().replace('"do_normalize": true', '"do_normalize": false'))
    code, _, err = ask(run, trained, *options, "--audio_model", settings)
    assert code == 2
    assert err.splitlines()[-1].endswith("not the encoder of this run (different feature extractor)")


def test_features_that_do_not_name_their_encoders_cannot_be_used(tones, run, feature_dir):
    options = ["--dataset", "TOY", "--feature_dir", feature_dir, "--save_path", tones / "runs", "--model_name", "r"]
    assert run(train.main, *options, *TRAINING)[0] == 0
    trained = tones / "runs" / "TOY" / "r"
    code, _, err = ask(run, trained, "--wav", tones / "corpus" / "s0" / "00.wav")
    assert code == 2
    assert f"{trained / GRAPH_FILE}: the features of this run do not name their audio encoder" in err


@pytest.mark.parametrize(
    "options, message",
    [
        ([], "give exactly one of --wav, --csv and --export"),
        (["--wav", "a.wav", "--csv", "a.csv"], "give exactly one of --wav, --csv and --export"),
        (["--wav", "a.wav", "--text", "x", "y"], "--text: 2 transcripts for 1 recordings of --wav"),
        (["--export", "x", "--json"], "--export: cannot be combined with --json"),
        (["--export", "x", "--explain"], "--export: cannot be combined with --explain"),
        (["--csv", "none.csv"], "none.csv: no such file"),
        (["--wav", "a.wav", "--corpus_dir", "x"], "--corpus_dir: only with --csv"),
        (["--csv", "a.csv", "--corpus_dir", "none"], "--corpus_dir none: no such folder"),
        (["--wav", "a.wav", ""], "--wav: one of the paths is empty"),
        (["--wav", "a.wav", "--text", "\udcff"], "--text '\\udcff': not valid UTF-8"),
        (["--wav", "a.wav", "--batch_seconds", 0], "--batch_seconds 0.0: must be above 0 and at most 1e9"),
        (["--wav", "a.wav", "--min_confidence", 0], "--min_confidence 0.0: must be above 0 and below 1"),
        (["--wav", "a.wav", "--min_confidence", "nan"], "--min_confidence nan: must be above 0 and below 1"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(run, trained, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("audio_file\na.wav\n")
    code, _, err = ask(run, trained, *options)
    assert (code, err.splitlines()[-1]) == (2, f"error: {message}")


def test_folders_that_cannot_be_used(tones, run, trained):
    (tones / "nothing").mkdir()
    code, _, err = ask(run, trained, "--wav", tones / "nothing")
    assert (code, err.splitlines()[-1]) == (2, f"error: {tones / 'nothing'}: no recordings in this folder")
    code, _, err = ask(run, trained, "--wav", tones / "corpus", "--text", "aaa")
    assert code == 2
    assert "is a folder; use --csv to give a transcript for each recording" in err


def test_resuming_a_finished_run_writes_its_training_graph_again(tones, run, trained):
    kept = (trained / GRAPH_FILE).read_bytes()
    (trained / GRAPH_FILE).unlink()
    code, _, err = ask(run, trained, "--wav", tones / "corpus" / "s0" / "00.wav")
    assert code == 2
    assert "train.py --resume writes it again" in err
    options = ["--dataset", "TONES", "--save_path", tones / "runs", "--model_name", "r", *TRAINING]
    assert run(train.main, *options, "--resume")[0] == 0
    first, second = (
        torch.load(trained / GRAPH_FILE, weights_only=True),
        torch.load(io.BytesIO(kept), weights_only=True),
    )
    assert torch.equal(first["text"], second["text"])
    assert torch.equal(first["audio_neighbors"], second["audio_neighbors"])
