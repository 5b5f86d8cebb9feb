"""Timelines, explanations and the Python interface, compared with predict.py on the same recordings."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

import cemobam
from tests.conftest import ROOT, SHARED
from tests.prediction.conftest import answers, ask
from utils.timeline.output import Moment

RATE = 16_000


@pytest.fixture
def joined(tones) -> tuple[Path, list[tuple[float, float, Path]]]:
    """Consecutive recordings of TONES with pauses between them, and the seconds and file of each."""
    parts, spoken, at = [], [], 0
    for path in sorted((tones / "corpus" / "s0").iterdir()):
        samples = soundfile.read(path)[0]
        parts += [np.zeros(8000), samples]
        spoken.append(((at + 8000) / RATE, (at + 8000 + len(samples)) / RATE, path))
        at += 8000 + len(samples)
    soundfile.write(tones / "long.wav", np.concatenate([*parts, np.zeros(8000)]), RATE)
    return tones / "long.wav", spoken


def write_rttm(path: Path, spoken, name: str = "long") -> Path:
    lines = [
        f"SPEAKER {name} 1 {start:.7f} {stop - start:.7f} <NA> <NA> s{i % 2} <NA> <NA>"
        for i, (start, stop, _) in enumerate(spoken)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_turns_get_the_answers_of_the_same_utterances_alone(tones, run, trained, joined):
    wav, spoken = joined
    rttm = write_rttm(tones / "turns.rttm", spoken)
    code, out, err = ask(run, trained, "--wav", wav, "--timeline", tones / "out", "--rttm", rttm)
    assert code == 0, err
    assert out.splitlines()[-1].endswith(
        f"6 utterances; written to {tones / 'out' / 'long'}.csv, .jsonl, .srt, .png, .pdf"
    )
    assert {path.name for path in (tones / "out").iterdir() if path.name[0] != "."} == {
        f"long.{suffix}" for suffix in ("csv", "jsonl", "srt", "png", "pdf")
    }
    found = [json.loads(line) for line in (tones / "out" / "long.jsonl").read_text().splitlines()]
    alone = answers(ask(run, trained, "--wav", *(path for _, _, path in spoken), "--json")[1])
    for (start, stop, _), moment, answer in zip(spoken, found, alone, strict=True):
        assert (moment["start"], moment["stop"]) == pytest.approx((start, stop), abs=1e-3)
        assert moment["emotion"] == answer["emotion"]
        assert moment["probabilities"] == pytest.approx(answer["probabilities"], abs=1e-5)
        assert moment["short"] is True
    assert [moment["speaker"] for moment in found] == ["s0", "s1"] * 3
    with (tones / "out" / "long.csv").open() as file:
        assert [row["emotion"] for row in csv.DictReader(file)] == [moment["emotion"] for moment in found]
    printed = answers(ask(run, trained, "--wav", wav, "--timeline", tones / "out", "--rttm", rttm, "--json")[1])
    assert printed == [{"audio_file": str(wav), **moment} for moment in found]


def test_what_cannot_be_a_timeline_is_said_and_the_others_go_on(tones, run, trained, joined):
    wav, spoken = joined
    soundfile.write(tones / "silence.wav", np.zeros(5 * RATE), RATE)
    (tones / "broken.wav").write_bytes(wav.read_bytes()[:5000])
    chord = sum(np.sin(2 * np.pi * hertz * np.arange(4 * RATE) / RATE) for hertz in (262, 330, 392))
    soundfile.write(tones / "music.wav", 0.1 * chord, RATE)
    wavs = [tones / name for name in ("silence.wav", "broken.wav", "music.wav", "none.wav")]
    code, out, err = ask(run, trained, "--wav", *wavs, "--timeline", tones / "out")
    assert code == 1
    assert out.count("no speech; written to") == 2
    assert f"error: {wavs[1]}: truncated" in err
    assert f"error: {wavs[3]}: no such file" in err
    assert err.splitlines()[-1] == "2 of 4 recordings failed"
    assert sorted(path.name for path in (tones / "out").glob("*.csv")) == ["music.csv", "silence.csv"]
    other = write_rttm(tones / "other.rttm", spoken, "meeting")
    code, _, err = ask(run, trained, "--wav", wav, "--timeline", tones / "out", "--rttm", other)
    assert code == 1
    assert f"error: {wav}: {other}: has turns of meeting, but none of long ({wav})" in err
    zeros = write_rttm(tones / "zeros.rttm", [(0.0, 0.4, wav), *spoken[:1]])
    code, _, err = ask(run, trained, "--wav", tones / "corpus" / "s0", "--timeline", tones / "out", "--rttm", zeros)
    assert (code, err.splitlines()[-1]) == (2, "error: --rttm: only with --timeline of one recording")
    code, out, err = ask(run, trained, "--wav", wav, "--timeline", tones / "out", "--rttm", zeros)
    assert code == 0
    assert f"note: {wav}: at 0.0 s: contains only silence" in err
    assert "1 utterances" in out


@pytest.mark.parametrize(
    "options, message",
    [
        (
            ["--timeline", "out", "--text", "aaa"],
            "--timeline: needs --wav, and cannot be combined with --text or --explain",
        ),
        (
            ["--timeline", "out", "--explain"],
            "--timeline: needs --wav, and cannot be combined with --text or --explain",
        ),
        (["--rttm", "x.rttm"], "--rttm: only with --timeline of one recording"),
        (["--timeline", "out", "--margin", "-1"], "--margin -1.0: must be from 0 to 10 seconds"),
        (["--timeline", "out", "--margin", "nan"], "--margin nan: must be from 0 to 10 seconds"),
        (["--margin", 1], "--margin: needs --timeline, and cannot be combined with --rttm"),
        (["--transcripts", "x.csv"], "--transcripts: only with --transcribe"),
    ],
)
def test_options_that_exclude_each_other(run, trained, options, message):
    code, _, err = ask(run, trained, "--wav", "a.wav", *options)
    assert (code, err.splitlines()[-1]) == (2, f"error: {message}")


def test_answers_keep_the_order_of_the_rows_where_a_recording_comes_twice(tones, run, trained):
    wavs = sorted((tones / "corpus" / "s0").iterdir())
    rows = [(wavs[0], "aaa 0"), (wavs[1], ""), (wavs[0], "eee 1"), (wavs[0], "aaa 0")]
    (tones / "rows.csv").write_text("audio_file,raw_text\n" + "".join(f"{path},{text}\n" for path, text in rows))
    code, out, _ = ask(run, trained, "--csv", tones / "rows.csv", "--json")
    assert code == 0
    assert [(each["audio_file"], each["raw_text"] or "") for each in answers(out)] == [(str(p), t) for p, t in rows]


def test_recordings_of_one_name_do_not_replace_each_other(tones, run, trained):
    wavs = [tones / "corpus" / "s0" / "00.wav", tones / "copy" / "00.wav"]
    wavs[1].parent.mkdir()
    shutil.copy(*wavs)
    for option in ("--timeline", "--explain"):
        code, _, err = ask(run, trained, "--wav", *wavs, option, tones / "out")
        assert code == 2
        assert err.splitlines()[-1].startswith(f"error: {wavs[1]}: its files in {tones / 'out'} would replace those of")
    assert not (tones / "out").exists()


def test_a_long_recording_without_a_timeline_says_so(tones, run, trained):
    soundfile.write(tones / "long.wav", 0.1 * np.random.default_rng(0).standard_normal(40 * RATE), RATE)
    wavs = [tones / "long.wav", tones / "corpus" / "s0" / "00.wav"]
    _, out, _ = ask(run, trained, "--wav", *wavs)
    assert "note: 1 of 2 recordings are longer than 30 s, the longest 40 s; each gets one emotion (--timeline" in out
    assert "longer than" not in ask(run, trained, "--wav", wavs[1])[1]


def test_an_explanation_goes_with_the_answer(tones, run, trained):
    wav, options = tones / "corpus" / "s0" / "00.wav", ["--text", "aaa 0"]
    plain = answers(ask(run, trained, "--wav", wav, *options, "--json")[1])[0]
    found = answers(ask(run, trained, "--wav", wav, *options, "--json", "--explain", tones / "why")[1])[0]
    why = found.pop("explanation")
    assert found == plain
    assert why["probabilities"] == plain["probabilities"]
    without = answers(ask(run, trained, "--wav", wav, "--json")[1])[0]
    assert why["without_text"] == pytest.approx(without["probabilities"], abs=1e-5)
    train = pd.read_csv(tones / "feature" / "TONES_BERT_WAV2VEC_train.csv").set_index("audio_file")
    assert 3 <= len(why["neighbors"]) <= 6
    for each in why["neighbors"]:
        row = train.loc[each["audio_file"]]
        assert (each["raw_text"], each["emotion"]) == (row["raw_text"], ["high", "low", "middle"][row["label"]])
    assert {path.name for path in (tones / "why").iterdir()} == {"00.png", "00.pdf"}
    table = ask(run, trained, "--wav", wav, *options, "--explain")[1]
    assert "without graph" in table
    assert "(the utterance itself)" in table


@pytest.fixture
def model(trained, tones, monkeypatch):
    return cemobam.load(trained, device="cpu", transcripts=tones / "transcripts.csv")


def test_python_says_what_predict_py_says(tones, run, trained, model):
    wav = tones / "corpus" / "s0" / "00.wav"
    (expected,) = answers(ask(run, trained, "--wav", wav, "--text", "aaa 0", "--json")[1])
    found = model.predict(wav, "aaa 0")
    assert found.emotion == expected["emotion"]
    assert found.probabilities == pytest.approx(expected["probabilities"], abs=1e-6)
    assert found.confidence == max(found.probabilities.values())
    assert (found.text, found.recognized) == ("aaa 0", False)
    assert model.class_names == ("high", "low", "middle")
    assert model.predict(str(wav)).text is None
    samples, rate = soundfile.read(wav, dtype="float32")
    assert model.predict(samples, "aaa 0", rate) == found
    integers = soundfile.read(wav, dtype="int16")[0]
    assert model.predict(integers, "aaa 0", rate).probabilities == pytest.approx(found.probabilities, abs=1e-5)
    stereo = np.stack([samples, samples], axis=1)
    assert model.predict(stereo, "aaa 0", rate).probabilities == pytest.approx(found.probabilities, abs=1e-5)
    why = model.explain(wav, "aaa 0")
    assert why.probabilities == pytest.approx(list(found.probabilities.values()), abs=1e-6)


def test_a_timeline_in_python_is_that_of_predict_py(tones, run, trained, joined, model):
    wav, spoken = joined
    rttm = write_rttm(tones / "turns.rttm", spoken)
    assert ask(run, trained, "--wav", wav, "--timeline", tones / "out", "--rttm", rttm)[0] == 0
    expected = [json.loads(line) for line in (tones / "out" / "long.jsonl").read_text().splitlines()]
    found = list(model.timeline(wav, rttm))
    assert all(isinstance(moment, Moment) for moment in found)
    assert [moment.emotion for moment in found] == [each["emotion"] for each in expected]
    assert [moment.start for moment in found] == pytest.approx([each["start"] for each in expected], abs=1e-3)


def test_what_python_cannot_read_raises_one_error(tones, model, trained):
    with pytest.raises(cemobam.InputError, match=r"none.wav: no such file"):
        model.predict(tones / "none.wav")
    for rate in (None, 0, -5, 16_000.0):
        with pytest.raises(cemobam.InputError, match=rf"rate {rate}: an array needs its sampling rate"):
            model.predict(np.zeros(RATE), rate=rate)
    for array in (np.zeros(RATE, complex), np.zeros((2, RATE)), np.zeros(RATE, np.uint8), np.float64(1)):
        with pytest.raises(cemobam.InputError, match=rf"an array of {array.dtype} "):
            model.predict(array, rate=RATE)
    with pytest.raises(cemobam.InputError, match="contains only silence"):
        model.predict(np.zeros(RATE), rate=RATE)
    with pytest.raises(cemobam.InputError, match="invalid sample nan at frame 3"):
        model.predict(np.where(np.arange(RATE) == 3, np.nan, 0.1), rate=RATE)
    with pytest.raises(cemobam.InputError, match="neither a file or folder, nor a dataset"):
        cemobam.load(tones / "nothing")


EXAMPLE = re.compile(r"```python\n(import cemobam\n.*?)```", re.DOTALL)
PAGES = sorted(path for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")) if EXAMPLE.search(path.read_text()))


def test_the_page_about_python_has_an_example():
    assert ROOT / "docs" / "python.md" in PAGES


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_the_lines_of_the_documentation_run(tones, trained, ctc, page, monkeypatch, capsys):
    (code,) = EXAMPLE.findall(page.read_text())
    assert len([line for line in code.splitlines() if line]) == 5
    (tones / "checkpoints" / "CALLS").mkdir(parents=True)
    trained.rename(tones / "checkpoints" / "CALLS" / "paper")
    shutil.copy(tones / "corpus" / "s0" / "00.wav", tones / "hello.wav")
    speech = SHARED / "data" / "ravdess" / "Actor_01" / "03-01-01-01-01-01-01.wav"
    if not speech.is_file():
        pytest.skip(f"no speech at {speech}")
    shutil.copy(speech, tones / "meeting.wav")
    monkeypatch.chdir(tones)
    load = cemobam.load
    options = {"device": "cpu", "transcripts": tones / "transcripts.csv"}

    def with_tiny_models(checkpoint, transcribe=False):
        return load(checkpoint, transcribe=str(ctc) if transcribe else False, **options)

    monkeypatch.setattr(cemobam, "load", with_tiny_models)
    exec(code, {})
    answer, *moments = capsys.readouterr().out.splitlines()
    assert answer in ("high", "low", "middle")
    assert moments[0].split()[2] in ("high", "low", "middle")


@pytest.mark.slow
def test_real_speech_is_cut_transcribed_and_answered(tones, run, trained):
    """Two sentences of RAVDESS with a pause between them. The emotions of TONES have no meaning here."""
    corpus, whisper = SHARED / "data" / "ravdess", SHARED / "models" / "whisper-tiny.en"
    if not corpus.is_dir() or not whisper.is_dir():
        pytest.skip(f"no recordings at {corpus}, or no recogniser at {whisper}")
    names = ("03-01-01-01-01-01-01.wav", "03-01-01-01-02-01-01.wav")
    parts = [soundfile.read(corpus / "Actor_01" / name)[0] for name in names]
    pause = 0.001 * np.random.default_rng(0).standard_normal(RATE)
    soundfile.write(tones / "talk.flac", np.concatenate([pause, parts[0], pause, parts[1], pause]), RATE)
    options = ["--transcribe", whisper, "--transcripts", tones / "transcripts.csv", "--margin", 0.5]
    code, out, err = ask(run, trained, "--wav", tones / "talk.flac", "--timeline", tones / "out", *options)
    assert code == 0, err
    found = [json.loads(line) for line in (tones / "out" / "talk.jsonl").read_text().splitlines()]
    assert [each["raw_text"].lower() for each in found] == [
        f"{x} by the door." for x in ("kids are talking", "dogs are sitting")
    ]
    assert all(each["recognized"] for each in found)
    assert f'recognised: "{found[0]["raw_text"]}"' in out
    kept = pd.read_csv(tones / "transcripts.csv")
    assert kept["start"].to_numpy() == pytest.approx([each["start"] - 0.5 for each in found], abs=1e-3)
    assert kept["stop"].to_numpy() == pytest.approx([each["stop"] + 0.5 for each in found], abs=1e-3)
    kept.assign(raw_text=["edited", "by hand"]).to_csv(tones / "transcripts.csv", index=False)
    torch.manual_seed(0)
    assert ask(run, trained, "--wav", tones / "talk.flac", "--timeline", tones / "out", *options)[0] == 0
    found = [json.loads(line) for line in (tones / "out" / "talk.jsonl").read_text().splitlines()]
    assert [each["raw_text"] for each in found] == ["edited", "by hand"]
