"""Transcripts by a recogniser: one forward pass, the CSV that keeps them, extraction and prediction without texts."""

import csv
import json
import shutil
from pathlib import Path

import jiwer
import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from transformers import AutoProcessor, AutoTokenizer, Wav2Vec2ForCTC, WhisperForConditionalGeneration

import extract_features
import train
from tests.conftest import SHARED
from tests.prediction.conftest import answers
from tests.prediction.conftest import ask as predict_alone
from utils.data.audio import Segment, load_segment, probe, split
from utils.data.features import load_features
from utils.errors import InputError
from utils.extraction import encoding
from utils.extraction.encoding import stop_at_bad, stream_embeddings
from utils.extraction.hub import load_audio_encoder, load_recognizer
from utils.transcription import recognizer as recognizers
from utils.transcription.recognizer import Recognizer, transcribe, word_error_rate
from utils.transcription.transcripts import COLUMNS, Transcripts

CPU = torch.device("cpu")
RATE = 16_000


@pytest.fixture
def wavs(tmp_path) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{i}.wav" for i in range(4)]
    for path, seconds in zip(paths, (0.9, 2.0, 1.4, 3.1), strict=True):
        soundfile.write(path, 0.1 * rng.standard_normal(int(seconds * RATE)), RATE)
    return paths


def heard_in_batches(encoder, head, paths, longest=30.0):
    wholes = [probe(path).whole for path in paths]
    batches = [[piece for whole in wholes for piece in split(whole, longest, RATE)]]
    ((_, completed),) = stream_embeddings(encoder, batches, stop_at_bad, head)
    return [completed[whole] for whole in wholes]


def heard_in_one_pass(folder, paths):
    """The encoder of a recogniser, and its results: its embeddings are bit-identical to those of the encoder alone."""
    encoder, head, description, _ = load_recognizer(str(folder), CPU, "--transcribe")
    alone, described = load_audio_encoder(str(folder), CPU)
    assert description == described
    both = heard_in_batches(encoder, head, paths)
    for one, other in zip(both, heard_in_batches(alone, None, paths), strict=True):
        assert np.array_equal(one.embedding, other.embedding)
        assert other.text is None
    return encoder, both


def test_one_pass_of_a_ctc_model_gives_what_two_give(ctc, wavs):
    """The words equal those of the transformers model, one recording at a time."""
    _, both = heard_in_one_pass(ctc, wavs)
    model, processor = Wav2Vec2ForCTC.from_pretrained(ctc).eval(), AutoProcessor.from_pretrained(ctc)
    for path, each in zip(wavs, both, strict=True):
        inputs = processor(soundfile.read(path, dtype="float32")[0], sampling_rate=RATE, return_tensors="pt")
        with torch.inference_mode():
            (text,) = processor.batch_decode(model(**inputs).logits.argmax(-1))
        assert each.text == text.strip().lower()
    assert len({each.text for each in both}) == len(wavs)


def test_one_pass_of_whisper_gives_what_two_give(wavs):
    folder = SHARED / "models" / "whisper-tiny.en"
    corpus = SHARED / "data" / "ravdess"
    if not folder.is_dir() or not corpus.is_dir():
        pytest.skip(f"no real recogniser at {folder}, or no recordings at {corpus}")
    paths = sorted(corpus.rglob("*.wav"))[:2]
    encoder, both = heard_in_one_pass(folder, paths)
    model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    features = [encoder.prepare(load_segment(probe(path).whole, RATE)).values for path in paths]
    tokens = model.generate(torch.from_numpy(np.stack(features)), do_sample=False)
    texts = AutoTokenizer.from_pretrained(folder).batch_decode(tokens, skip_special_tokens=True)
    assert [each.text for each in both] == [text.strip() for text in texts]
    assert both[0].text == "Kids are talking by the door."


def test_the_pieces_of_a_long_recording_are_joined_in_turn(ctc, wavs):
    encoder, head, *_ = load_recognizer(str(ctc), CPU, "--transcribe")
    (whole,) = heard_in_batches(encoder, head, wavs[3:], longest=1.0)
    pieces = split(probe(wavs[3]).whole, 1.0, RATE)
    assert len(pieces) == 4
    texts = []
    for piece in pieces:
        with torch.inference_mode():
            inputs = encoder.prepare(load_segment(piece, RATE))
            texts += head(encoder.hidden([inputs]), [inputs.frames])
    assert whole.text == " ".join(texts)


def test_pieces_are_joined_in_turn_also_where_the_longest_is_encoded_first(ctc, tmp_path):
    """Of 100 s and one sample, the third of four pieces is the longest."""
    soundfile.write(tmp_path / "long.wav", 0.1 * np.random.default_rng(0).standard_normal(100 * RATE + 1), RATE)
    recording = probe(tmp_path / "long.wav")
    pieces = split(recording.whole, 30.0, RATE)
    assert [piece.stop - piece.start for piece in pieces] == [400_000, 400_000, 400_001, 400_000]
    recognizer = open_recognizer(ctc, tmp_path)
    (text,) = transcribe(recognizer, {"long": recording}, 15.0, stop_at_bad, None).values()
    texts = []
    for piece in pieces:
        with torch.inference_mode():
            inputs = recognizer.encoder.prepare(load_segment(piece, RATE))
            texts += recognizer.head(recognizer.encoder.hidden([inputs]), [inputs.frames])
    assert text == " ".join(texts)


def test_another_head_over_the_same_encoder_is_another_recogniser(ctc, wavs, tmp_path):
    other = tmp_path / "other" / "model"
    shutil.copytree(ctc, other)
    model = Wav2Vec2ForCTC.from_pretrained(other)
    torch.nn.init.normal_(model.lm_head.weight)
    model.save_pretrained(other)
    one, two = open_recognizer(ctc, tmp_path), open_recognizer(other, tmp_path)
    assert one.name != two.name
    recordings = {"0": probe(wavs[0])}
    assert transcribe(one, recordings, 5.0, stop_at_bad, None) != transcribe(two, recordings, 5.0, stop_at_bad, None)


def test_models_that_recognise_nothing_are_refused(encoders, tmp_path, ctc):
    with pytest.raises(InputError, match=r"^--transcribe .*: its checkpoint lacks lm_head"):
        load_recognizer(str(encoders[3]), CPU, "--transcribe")
    with pytest.raises(InputError, match="is a bert model; expected one of"):
        load_recognizer(str(encoders[1]), CPU, "--transcribe")
    broken = tmp_path / "broken"
    shutil.copytree(ctc, broken)
    (broken / "vocab.json").unlink()
    (broken / "tokenizer_config.json").unlink()
    with pytest.raises(InputError, match=f"^--transcribe {broken}: "):
        load_recognizer(str(broken), CPU, "--transcribe")


def open_recognizer(ctc, tmp_path, **options):
    return Recognizer(str(ctc), "", tmp_path / "transcripts.csv", CPU, **options)


def test_transcripts_are_kept_and_an_edited_one_is_used_as_it_is(ctc, wavs, tmp_path, monkeypatch):
    recordings = {str(path): probe(path) for path in wavs}
    recognizer = open_recognizer(ctc, tmp_path)
    first = transcribe(recognizer, recordings, 5.0, stop_at_bad, None)
    with (tmp_path / "transcripts.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert {row["audio_file"]: row["raw_text"] for row in rows} == first
    assert {(row["recognizer"], row["start"], row["stop"]) for row in rows} == {(recognizer.name, "", "")}
    assert recognizer.name.startswith("model-")

    rows[0]["raw_text"] = 'what I heard, "really"'
    pd.DataFrame(rows).to_csv(tmp_path / "transcripts.csv", index=False)
    moved = {str(path): path.rename(path.with_name(f"moved{path.name}")) for path in wavs}
    monkeypatch.setattr(encoding, "recognize", None)  # nothing is recognised again
    second = transcribe(
        open_recognizer(ctc, tmp_path), {str(p): probe(p) for p in moved.values()}, 5.0, stop_at_bad, None
    )
    edited = rows[0]["audio_file"]
    assert second == {str(new): first[old] for old, new in moved.items()} | {
        str(moved[edited]): 'what I heard, "really"'
    }


def test_another_recogniser_or_another_part_has_transcripts_of_its_own(wavs, tmp_path):
    recording = probe(wavs[0])
    part = Segment(recording, 1600, 8000)
    with Transcripts(tmp_path / "t.csv", "a") as one:
        one.add(recording.whole, "whole")
        one.add(part, "часть 部分")
    other = Transcripts(tmp_path / "t.csv", "b")
    assert other.get(recording.whole) is None
    again = Transcripts(tmp_path / "t.csv", "a")
    assert (again.get(recording.whole), again.get(part)) == ("whole", "часть 部分")
    assert again.get(Segment(recording, 1600, 8160)) is None
    pd.read_csv(tmp_path / "t.csv").to_csv(tmp_path / "t.csv", index=False)  # 0.100 becomes 0.1
    assert Transcripts(tmp_path / "t.csv", "a").get(part) == "часть 部分"
    again.add(Segment(recording, 0, 8160), "x" * 200_000)
    again.save()
    assert Transcripts(tmp_path / "t.csv", "a").get(Segment(recording, 0, 8160)) == "x" * 200_000
    rows = pd.read_csv(tmp_path / "t.csv", dtype=str, keep_default_na=False)
    assert rows[["start", "stop"]].to_numpy().tolist() == [["", ""], ["0.100", "0.500"], ["0.000", "0.510"]]


def test_what_somebody_wrote_in_the_meantime_is_kept(wavs, tmp_path):
    """A manual edit, or the transcripts of another process."""
    first, second = (probe(path).whole for path in wavs[:2])
    mine = Transcripts(tmp_path / "t.csv", "a")
    with Transcripts(tmp_path / "t.csv", "a") as other:
        other.add(first, "edited")
    mine.add(first, "mine")
    mine.add(second, "second")
    mine.save()
    found = Transcripts(tmp_path / "t.csv", "a")
    assert (found.get(first), found.get(second)) == ("edited", "second")


def test_new_transcripts_are_not_lost_where_the_file_was_damaged_meanwhile(wavs, tmp_path):
    mine = Transcripts(tmp_path / "t.csv", "a")
    mine.add(probe(wavs[0]).whole, "mine")
    (tmp_path / "t.csv").write_text("audio_file;raw_text\n")
    aside = tmp_path / "t.unsaved.csv"
    with pytest.raises(InputError, match=rf"t.csv: expected the columns .*; the new transcripts are in {aside}$"):
        mine.save()
    assert Transcripts(aside, "a").get(probe(wavs[0]).whole) == "mine"


@pytest.mark.parametrize(
    "content, message",
    [
        ("{header}x,a,s,r,soon,\n", r"line 2: start and stop \['soon', ''\] are not seconds"),
        ("a,b\n", r"expected the columns audio_file, raw_text, sha256, recognizer, start, stop \(it has a, b\)"),
        ("", r"expected the columns .*\(it has no rows\)"),
        ("{header}x,a text, with a comma,s,r,,\n", r"line 2: 7 values for 6 columns"),
        ("{header}x,a,s,r,,\ny,b,s,r,,\n", r"line 3: has the same segment and recogniser as .*line 2"),
        ('{header}x,"a,s,r,,\n', r"line 2: not CSV"),
    ],
)
def test_a_damaged_csv_of_transcripts_is_named(tmp_path, content, message):
    path = tmp_path / "t.csv"
    path.write_text(content.format(header=",".join(COLUMNS) + "\n"))
    with pytest.raises(InputError, match=f"^{path}: {message}"):
        Transcripts(path, "a")


def test_the_word_error_rate_is_that_of_words():
    assert word_error_rate([("Kids are talking.", "kids ARE talking"), ("by the door", "by a floor")]) == 2 / 6
    assert word_error_rate([("it's", "its")]) == 0
    assert word_error_rate([("...", "words"), ("yes", "")]) == 1
    assert word_error_rate([]) is word_error_rate([("?", "x")]) is None
    assert word_error_rate([("a b c", "a c d e")]) == jiwer.wer("a b c", "a c d e")


@pytest.fixture
def untranscribed(tones):
    """The manifest of TONES, in which every third transcript is known."""
    table = pd.read_csv(tones / "tones.csv")
    table.loc[table.index % 3 > 0, "raw_text"] = ""
    table.to_csv(tones / "some.csv", index=False)
    table.drop(columns="raw_text").to_csv(tones / "none.csv", index=False)
    return tones


def extract(run, tones, encoders, manifest, *options):
    paths = ["--metadata", tones / manifest, "--corpus_dir", tones / "corpus", "--split", "speaker", "--folds", 3]
    output = ["--feature_dir", tones / "new", "--cache_dir", tones / "cache", "--device", "cpu"]
    output += ["--transcripts", tones / "transcripts.csv"] * ("--transcribe" in options)
    return run(extract_features.main, "TONES", *paths, *output, *encoders, *options)


def test_an_extraction_recognises_what_is_missing_only(untranscribed, run, encoders, ctc):
    tones = untranscribed
    code, out, err = extract(run, tones, encoders, "some.csv")
    assert code == 2
    assert "24 of 36 utterances cannot be used" in err
    code, out, err = extract(run, tones, encoders, "some.csv", "--transcribe", ctc)
    assert code == 0, err
    assert "24 of 36 transcripts were recognised by model-" in out
    assert f"they are stored in {tones / 'transcripts.csv'}" in out
    assert "on 12 given transcripts" in out
    assert "train/test leakage" in out
    given = pd.read_csv(tones / "some.csv", keep_default_na=False).set_index("audio_file")["raw_text"]
    kept = pd.read_csv(tones / "transcripts.csv", keep_default_na=False).set_index("audio_file")["raw_text"]
    rows = pd.concat(pd.read_csv(path, keep_default_na=False) for path in sorted((tones / "new").glob("TONES_*.csv")))
    assert len(rows) == 36
    for path, text, recognizer in rows[["audio_file", "raw_text", "recognizer"]].to_numpy():
        true = given["/".join(path.split("/")[-2:])]
        assert (text, bool(recognizer)) == (true or kept[path], not true)
    described = json.loads((tones / "new" / "TONES_BERT_WAV2VEC.json").read_text())["transcripts"]
    assert described["recognized"] == 24
    assert described["word_error_rate"] > 0


def test_transcripts_and_embeddings_of_an_extraction_come_from_one_pass(untranscribed, run, ctc, encoders, monkeypatch):
    """The audio encoder is the recogniser. Its embeddings equal those of an extraction with the same transcripts."""
    tones = untranscribed
    passes = []
    hidden = encoding.AudioEncoder.forward
    monkeypatch.setattr(encoding.AudioEncoder, "forward", lambda *args: (passes.append(1), hidden(*args))[1])
    models = [*encoders[:2], "--audio_model", ctc]
    code, out, err = extract(run, tones, models, "none.csv", "--transcribe")
    assert code == 0, err
    assert "36 of 36 transcripts were recognised" in out
    assert len(passes) == 2  # trial runs after loading; no recording went through the encoder alone
    rows = pd.concat(pd.read_csv(path) for path in (tones / "new").glob("TONES_*.csv"))
    table = pd.read_csv(tones / "none.csv")
    texts = {"/".join(path.split("/")[-2:]): text for path, text in rows[["audio_file", "raw_text"]].to_numpy()}
    table.assign(raw_text=table["audio_file"].map(texts)).to_csv(tones / "all.csv", index=False)
    shutil.move(tones / "new", tones / "recognized")
    shutil.rmtree(tones / "cache")
    assert extract(run, tones, models, "all.csv")[0] == 0
    assert len(passes) > 3
    for path in (tones / "new").glob("*.pkl"):
        one, other = load_features(path), load_features(tones / "recognized" / path.name)
        assert torch.equal(one.text, other.text)
        assert torch.allclose(one.audio, other.audio, atol=1e-6)  # the order of the batches differs
        assert torch.equal(one.label, other.label)


def test_recordings_without_a_word_are_bad_ones(untranscribed, run, encoders, ctc, monkeypatch):
    tones = untranscribed
    silent = str(tones / "corpus" / "s0" / "00.wav")
    original = recognizers.hear_all
    monkeypatch.setattr(
        recognizers,
        "hear_all",
        lambda *args: ((path, each._replace(text="") if path == silent else each) for path, each in original(*args)),
    )
    code, _, err = extract(run, tones, encoders, "none.csv", "--transcribe", ctc)
    assert (code, err.splitlines()[-1]) == (2, f"error: {silent}: no words were recognised")
    code, out, err = extract(run, tones, encoders, "none.csv", "--transcribe", ctc, "--skip_bad")
    assert code == 0, err
    assert "35 of 36 transcripts were recognised" in out
    assert "1 recordings were skipped" in out
    report = pd.read_csv(tones / "new" / "TONES_bad_recordings.csv")
    assert report.to_numpy().tolist() == [[silent, "no words were recognised"]]


def ask(run, checkpoint, tones, *options):
    return predict_alone(
        run, checkpoint, *options, *["--transcripts", tones / "transcripts.csv"] * ("--transcribe" in options)
    )


def test_predictions_use_the_recognised_transcript_and_say_so(tones, run, trained, ctc):
    wavs = sorted((tones / "corpus" / "s0").iterdir())
    (tones / "some.csv").write_text(f"audio_file,raw_text\n{wavs[0]},aaa 0\n{wavs[1]},\n{wavs[2]},eee 1\n{wavs[3]},\n")
    code, out, err = ask(run, trained, tones, "--csv", tones / "some.csv", "--transcribe", ctc, "--json")
    assert code == 0, err
    found = answers(out)
    assert [each["audio_file"] for each in found] == [str(path) for path in wavs[:4]]
    assert [each["recognized"] for each in found] == [False, True, False, True]
    assert [each["raw_text"] for each in found[::2]] == ["aaa 0", "eee 1"]
    assert "no transcript" not in err
    assert "on 2 given transcripts" in err
    # the same words, given by the user, get the same answer
    texts = [each["raw_text"] for each in found]
    code, again, _ = ask(run, trained, tones, "--wav", *wavs[:4], "--text", *texts, "--json")
    for one, other in zip(found, answers(again), strict=True):
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-5)
        assert other["recognized"] is False
    table = ask(run, trained, tones, "--csv", tones / "some.csv", "--transcribe", ctc)[1]
    said = [line.partition("recognised: ")[2] for line in table.splitlines()[-5:-1]]
    assert said == ["", f'"{texts[1]}"', "", f'"{texts[3]}"']


def test_a_prediction_by_the_audio_encoder_itself_needs_one_pass(tones, run, ctc, encoders, monkeypatch):
    """The answers also keep their order if the transcript of one is already known."""
    assert extract(run, tones, [*encoders[:2], "--audio_model", ctc], "tones.csv")[0] == 0
    options = ["--feature_dir", tones / "new", "--save_path", tones / "runs", "--model_name", "r", "--hidden_dim", 16]
    assert run(train.main, "--dataset", "TONES", *options, "--epochs", 2, "--seeds", 1)[0] == 0
    trained = tones / "runs" / "TONES" / "r"
    wavs = sorted((tones / "corpus" / "s0").iterdir())
    first = answers(ask(run, trained, tones, "--wav", wavs[1], "--transcribe", "--json")[1])
    calls = []
    encode = encoding.encode
    monkeypatch.setattr(encoding, "encode", lambda *args: (calls.append(len(args[1])), encode(*args))[1])
    code, out, err = ask(run, trained, tones, "--wav", *wavs, "--transcribe", "--json")
    assert code == 0, err
    found = answers(out)
    assert [each["audio_file"] for each in found] == [str(path) for path in wavs]
    assert found[1] == {**first[0], "probabilities": pytest.approx(first[0]["probabilities"], abs=1e-5)}
    assert calls == [1]  # the recording whose transcript was stored


def test_bad_recordings_do_not_stop_the_transcripts_of_others(tones, run, trained, ctc):
    folder = tones / "mixed"
    shutil.copytree(tones / "corpus" / "s0", folder)
    soundfile.write(folder / "silence.wav", np.zeros(RATE), RATE)
    data = (folder / "00.wav").read_bytes()
    (folder / "03bad.wav").write_bytes(data[:100])
    code, out, err = ask(run, trained, tones, "--wav", folder, "--transcribe", ctc, "--json")
    found = {Path(each["audio_file"]).name: each for each in answers(out)}
    assert code == 1
    assert len(found) == 8
    assert found["silence.wav"]["error"].startswith("contains only silence")
    assert sum("emotion" in each for each in found.values()) == 6
    assert err.splitlines()[-1] == "2 of 8 recordings failed"
