"""finetune.py on the command line, with tiny encoders and a corpus whose emotions are tones."""

import errno
import json
import os
import signal
import sys
from pathlib import Path

import pandas as pd
import pytest
import soundfile
import torch
from safetensors.torch import load_file

import extract_features
import finetune
from tests.pretend_cuda import PretendCuda
from utils.finetuning import folder as finetuning_folder
from utils.finetuning.trainer import Trainer
from utils.io import lock

SHORT = ["--epochs", 2, "--unfreeze_layers", 1, "--lr", 1e-2, "--model_name", "tuned"]
_opened: int | None = None  # file descriptor to which the audit hook writes; the hook cannot be removed


def _audit(event, args):
    if _opened is not None and event == "open" and isinstance(args[0], str | bytes | Path):
        os.write(_opened, f"{args[0]}\n".encode())


@pytest.fixture(autouse=True)
def _ctrl_c():
    """Handle SIGINT as in a terminal. A shell's background jobs, which may include pytest, ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def tune(tones, run, *options, modality="audio"):
    arguments = ["TONES", "--modality", modality, "--save_path", tones / "runs", "--device", "cpu", *SHORT, *options]
    code, out, err = run(finetune.main, *arguments)
    return code, out, err.splitlines()[-1] if err else ""


def tuned(tones, name="tuned"):
    return tones / "runs" / "TONES" / name


def weights(folder):
    return load_file(folder / "encoder" / "model.safetensors")


def extract(tones, *options):
    paths = ["--metadata", tones / "tones.csv", "--corpus_dir", tones / "corpus"]
    output = ["--feature_dir", tones / "feature", "--cache_dir", tones / "cache", "--device", "cpu"]
    return ["TONES", *paths, *output, *options]


SPLIT = ["--split", "speaker", "--folds", 3]


@pytest.mark.parametrize("modality", ["audio", "text"])
@pytest.mark.parametrize("objective", ["supervised", "ntxent"])
def test_only_the_upper_layers_change(tones, run, encoders, modality, objective):
    code, out, err = tune(tones, run, "--objective", objective, modality=modality)
    assert code == 0, err
    before = load_file(Path(encoders[3 if modality == "audio" else 1]) / "model.safetensors")
    after = weights(tuned(tones))
    assert before.keys() == after.keys()
    upper = ("encoder.layers.1.",) if modality == "audio" else ("encoder.layer.1.", "pooler.")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith(upper) for name in changed)
    inert = ("key.bias", "k_proj.bias")  # softmax ignores them
    assert {name for name in before if name.startswith(upper) and not name.endswith(inert)} <= changed
    assert f"{sum(v.numel() for k, v in before.items() if k.startswith(upper)):,} of" in out


@pytest.mark.drawn
def test_it_learns_what_frozen_features_do_not_say(tones, run):
    """The last layer of a random encoder is tuned until the classifier recognises the tones of unseen speakers."""
    code, out, _ = tune(tones, run, "--epochs", 12, "--patience", 12)
    log = [json.loads(line) for line in (tuned(tones) / "log.jsonl").read_text().splitlines()]
    metrics = json.loads((tuned(tones) / "metrics.json").read_text())
    best = max(log, key=lambda line: line["val_ua"])
    assert code == 0
    assert metrics["selected_epoch"] == best["epoch"]  # the first of equal epochs
    assert metrics["val"]["ua"] == best["val_ua"] > 0.9
    assert log[-1]["train_loss"] < 0.5 * log[0]["train_loss"]
    assert f"UA {100 * best['val_ua']:.2f} percent" in out
    assert (tuned(tones) / "training_curves.png").stat().st_size > 10_000
    assert not (tuned(tones) / "last.pt").exists()


@pytest.mark.parametrize("modality", ["audio", "text"])
def test_the_best_encoder_is_what_extraction_takes(tones, run, encoders, modality):
    assert tune(tones, run, modality=modality)[0] == 0
    option = f"--{modality}_model"
    others = [each for i in (0, 2) if encoders[i] != option for each in encoders[i : i + 2]]
    options = [*SPLIT, *others, option, tuned(tones) / "encoder", "--dataset", "TUNED"]
    code, _, err = run(extract_features.main, *extract(tones, *options))
    assert code == 0, err
    frozen, new = (
        json.loads((tones / "feature" / f"{name}_BERT_WAV2VEC.json").read_text())["encoders"]
        for name in ("TONES", "TUNED")
    )
    other = "text" if modality == "audio" else "audio"
    assert new[other] == frozen[other]
    assert new[modality]["weights_sha256"] != frozen[modality]["weights_sha256"]
    same = ("type", "pooling", "dim", "tokenizer_sha256" if modality == "text" else "feature_extractor_sha256")
    assert [new[modality][key] for key in same] == [frozen[modality][key] for key in same]


def test_the_test_split_is_never_read(tones, run, monkeypatch):
    """Neither its CSV nor its recordings are opened. Without them, the weights are bitwise equal."""
    global _opened
    sys.addaudithook(_audit)
    listened = os.open(tones / "listened", os.O_WRONLY | os.O_CREAT | os.O_APPEND)  # also by worker processes
    for name in ("info", "SoundFile"):
        original = getattr(soundfile, name)
        monkeypatch.setattr(
            soundfile,
            name,
            lambda path, *a, _name=name, _original=original, **k: (
                os.write(listened, f"{_name} {path}\n".encode()),
                _original(path, *a, **k),
            )[1],
        )
    _opened = os.open(tones / "opened", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        assert tune(tones, run)[0] == 0
    finally:
        _opened = None
    calls = [line.split(" ", 1) for line in (tones / "listened").read_text().splitlines()]
    probed, decoded = ({path for name, path in calls if name == each} for each in ("info", "SoundFile"))
    opened = [*(tones / "opened").read_text().splitlines(), *probed, *decoded]
    train, val, test = (
        pd.read_csv(tones / "feature" / f"TONES_BERT_WAV2VEC_{s}.csv") for s in ("train", "val", "test")
    )
    assert {Path(path).name for path in opened} >= {"TONES_BERT_WAV2VEC_train.csv", "TONES_BERT_WAV2VEC_val.csv"}
    assert probed == decoded == {*train["audio_file"], *val["audio_file"]}
    assert not {"TONES_BERT_WAV2VEC_test.csv", "TONES_BERT_WAV2VEC_test.pkl"} & {Path(path).name for path in opened}
    assert not set(test["audio_file"]) & set(opened)

    for path in (*test["audio_file"], *(tones / "feature").glob("*_test.*")):
        Path(path).unlink()
    assert tune(tones, run, "--model_name", "again")[0] == 0
    first, second = weights(tuned(tones)), weights(tuned(tones, "again"))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("objective", ["supervised", "ntxent"])
@pytest.mark.parametrize("when", ["a step", "the last step", "validation"])
def test_a_resumed_fine_tuning_equals_an_uninterrupted_one(tones, run, monkeypatch, objective, when):
    """There are three epochs of three steps. Ctrl-C comes in the fifth or sixth step, or in the second validation."""
    options = ["--objective", objective, "--batch_size", 4, "--epochs", 3, "--patience", 3]
    assert tune(tones, run, *options, "--model_name", "whole")[0] == 0
    stop_in, stop_at = {"a step": ("_take", 5), "the last step": ("_take", 6), "validation": ("validate", 2)}[when]
    calls = {"_take": 0, "validate": 0}

    def counted(name, stock):
        def method(self, *args):
            calls[name] += 1
            if name == stop_in and calls[name] == stop_at:
                signal.raise_signal(signal.SIGINT)
            return stock(self, *args)

        return method

    for name in calls:
        monkeypatch.setattr(Trainer, name, counted(name, getattr(Trainer, name)))
    code, _, err = tune(tones, run, *options)
    assert (code, err) == (130, "interrupted")
    assert not (tuned(tones) / "metrics.json").exists()
    code, _, err = tune(tones, run, *options)
    assert code == 2
    assert err.endswith("unfinished fine-tuning; add --resume, or --overwrite to start from scratch")
    assert tune(tones, run, *options, "--resume")[0] == 0
    assert calls == {"_take": 9, "validate": 4 if when == "validation" else 3}  # no finished work is repeated
    first, second = weights(tuned(tones, "whole")), weights(tuned(tones))
    assert all(torch.equal(first[name], second[name]) for name in first)
    logs = [
        [{**json.loads(line), "seconds": 0} for line in (tuned(tones, name) / "log.jsonl").read_text().splitlines()]
        for name in ("whole", "tuned")
    ]
    assert logs[0] == logs[1]


def test_it_stops_when_validation_does_not_get_better_and_keeps_the_best(tones, run, monkeypatch):
    scores = iter([0.5, 0.7, 0.7, 0.6, 0.9])
    stock = Trainer.validate
    monkeypatch.setattr(Trainer, "validate", lambda self, *args: {**stock(self, *args), "ua": next(scores)})
    saved = []
    save = finetuning_folder.save_best
    monkeypatch.setattr(finetuning_folder, "save_best", lambda *args: (saved.append(len(saved)), save(*args))[1])
    code, out, _ = tune(tones, run, "--epochs", 9, "--patience", 2)
    assert code == 0
    assert len((tuned(tones) / "log.jsonl").read_text().splitlines()) == 4
    assert json.loads((tuned(tones) / "metrics.json").read_text())["selected_epoch"] == 2
    assert len(saved) == 2
    assert out.count("best so far") == 2


def test_a_full_disk_leaves_the_best_encoder_as_it_was(tones, run, monkeypatch):
    """Writing the second encoder fails. The first one stays intact, no other file is left, and --resume works."""
    scores = iter([0.5, 0.7])
    stock = Trainer.validate
    monkeypatch.setattr(Trainer, "validate", lambda self, *args: {**stock(self, *args), "ua": next(scores)})
    save, kept = finetuning_folder.save_pretrained, {}

    def full(encoder, folder):
        if (tuned(tones) / "encoder").exists():
            kept.update(weights(tuned(tones)))
            folder.mkdir()
            (folder / "model.safetensors").write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(encoder, folder)

    monkeypatch.setattr(finetuning_folder, "save_pretrained", full)
    code, _, err = tune(tones, run)
    assert (code, err) == (2, f"error: {tuned(tones) / 'encoder'}: No space left on device")
    assert all(torch.equal(tensor, kept[name]) for name, tensor in weights(tuned(tones)).items())
    assert [path.name for path in tuned(tones).iterdir() if path.name.startswith(".")] == []
    monkeypatch.setattr(finetuning_folder, "save_pretrained", save)
    scores = iter([0.7])
    assert tune(tones, run, "--resume")[0] == 0
    assert any(not torch.equal(tensor, kept[name]) for name, tensor in weights(tuned(tones)).items())


def test_a_folder_that_is_a_link_to_itself_is_one_line(tones, run):
    (tones / "runs").symlink_to(tones / "runs")
    code, _, err = tune(tones, run)
    assert (code, err) == (2, f"error: {tuned(tones).parent}: Too many levels of symbolic links")


def test_a_finished_tuning_is_kept_and_another_one_refused(tones, run):
    assert tune(tones, run)[0] == 0
    before = (tuned(tones) / "encoder" / "model.safetensors").stat().st_mtime_ns
    code, out, _ = tune(tones, run)
    assert code == 0
    assert "already finished, kept" in out
    code, _, err = tune(tones, run, "--lr", 1e-4)
    assert code == 2
    assert "contains a run with another configuration (lr was 0.01, now 0.0001)" in err
    assert (tuned(tones) / "encoder" / "model.safetensors").stat().st_mtime_ns == before
    assert tune(tones, run, "--lr", 1e-4, "--overwrite")[0] == 0
    assert (tuned(tones) / "encoder" / "model.safetensors").stat().st_mtime_ns != before


def test_what_a_kill_leaves_is_removed_by_the_next_command(tones, run, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *args, **options: None)  # killed before the state is removed
        assert tune(tones, run)[0] == 0
    assert (tuned(tones) / "last.pt").exists()
    assert tune(tones, run)[0] == 0
    assert not (tuned(tones) / "last.pt").exists()
    with monkeypatch.context() as patch:
        patch.setattr(finetuning_folder.shutil, "rmtree", lambda *args, **options: None)  # killed before this
        assert tune(tones, run, "--overwrite")[0] == 0
    assert len(list(tuned(tones).parent.iterdir())) == 3  # with the lock
    assert tune(tones, run)[0] == 0
    assert {path.name for path in tuned(tones).parent.iterdir()} == {"tuned", ".tuned.lock"}


@pytest.mark.parametrize(
    "name, contents, message",
    [
        ("log.jsonl", None, "0 epochs, but last.pt has 1; use --overwrite"),
        ("log.jsonl", '{"epo', "line 1: not JSON"),
        ("log.jsonl", "[]", "line 1: not the log line of an epoch"),
        ("last.pt", {"upper": None}, "damaged (upper: None); --overwrite starts from scratch"),
        ("last.pt", {"best_epoch": 2}, "damaged (epoch 1, step 2, best epoch 2); --overwrite starts from scratch"),
        ("last.pt", {"schedule": {}}, "damaged (schedule: {}); --overwrite starts from scratch"),
        ("last.pt", "half", "not a complete checkpoint"),
        ("config.json", None, "contains encoder but no config.json; remove the folder"),
    ],
)
def test_damaged_files_are_found_before_anything_is_tuned(tones, run, monkeypatch, name, contents, message):
    """The fine-tuning is interrupted in the second epoch, and then the folder is damaged."""
    stock = Trainer.validate
    monkeypatch.setattr(
        Trainer, "validate", lambda self, *args: stock(self, *args) if not self.epoch else signal.raise_signal(2)
    )
    assert tune(tones, run)[0] == 130
    path = tuned(tones) / name
    if contents is None:
        path.unlink()
    elif isinstance(contents, dict):
        saved = torch.load(path, weights_only=True)
        torch.save({**saved, "state": saved["state"] | contents}, path)
    elif contents == "half":
        path.write_bytes(path.read_bytes()[:1000])
    else:
        path.write_text(contents)
    taken = []
    monkeypatch.setattr(Trainer, "_take", lambda *args: taken.append(1))
    code, _, err = tune(tones, run, "--resume")
    assert (code, taken) == (2, [])
    assert message in err


def test_a_finished_fine_tuning_without_its_results_is_an_error(tones, run):
    assert tune(tones, run)[0] == 0
    metrics = tuned(tones) / "metrics.json"
    whole = metrics.read_text()
    metrics.write_text('{"selected_epoch": 1}')
    code, _, err = tune(tones, run)
    assert (code, err) == (2, f"error: {metrics}: not written by finetune.py; --overwrite starts from scratch")
    metrics.write_text(whole)
    (tuned(tones) / "encoder" / "finetuning.json").unlink()
    code, _, err = tune(tones, run)
    assert code == 2
    assert err.endswith("encoder: finetuning.json is missing; --overwrite starts from scratch")
    assert tune(tones, run, "--overwrite")[0] == 0
    assert {path.name for path in (tones / "runs" / "TONES").iterdir()} == {"tuned", ".tuned.lock"}


def test_only_a_fine_tuning_is_overwritten(tones, run):
    """The folder of a sweep also has a config.json with a configuration."""
    claimed = tones / "runs" / "TONES" / "topk-paper" / "config.json"
    claimed.parent.mkdir(parents=True)
    claimed.write_text('{"config": {"dataset": "TONES"}, "data": {}, "class_names": []}')
    code, _, err = tune(tones, run, "--model_name", "topk-paper", "--overwrite")
    assert code == 2
    assert err.startswith(f"error: {claimed.parent}: not a fine-tuning folder")
    assert claimed.exists()


def test_an_encoder_is_not_tested_on_what_it_was_tuned_on(tones, run, encoders):
    """Fold 2 tests the speakers that stopped the tuning of fold 1, even if their recordings have moved."""
    assert tune(tones, run)[0] == 0
    moved = tones / "elsewhere"
    (tones / "corpus").rename(moved)
    for path in sorted(moved.rglob("*.wav")):
        path.rename(path.with_stem(f"{path.stem}_renamed"))
    table = pd.read_csv(tones / "tones.csv")
    table["audio_file"] = table["audio_file"].str.replace(".wav", "_renamed.wav")
    table.to_csv(tones / "tones.csv", index=False)
    options = [*encoders[:2], "--audio_model", tuned(tones) / "encoder", "--corpus_dir", moved, "--dataset", "TUNED"]
    code, _, err = run(extract_features.main, *extract(tones, *SPLIT, "--fold", 2, *options))
    assert code == 2
    assert f"--audio_model {tuned(tones) / 'encoder'}: was fine-tuned on 12 of the 12 test recordings" in err
    assert not (tones / "feature" / "TUNED_BERT_WAV2VEC_train.pkl").exists()
    code, _, err = run(extract_features.main, *extract(tones, *SPLIT, "--fold", 1, *options))
    assert code == 0, err


def test_an_encoder_that_is_tuned_twice_remembers_both(tones, run, encoders):
    """The encoder is tuned on fold 1, then on fold 3. The test speakers of fold 3 are in train of fold 1."""
    assert tune(tones, run)[0] == 0
    shared = [*encoders, "--dataset", "THIRD"]
    assert run(extract_features.main, *extract(tones, *SPLIT, "--fold", 3, *shared))[0] == 0
    code, _, err = run(
        *(finetune.main, "THIRD", "--modality", "audio", "--save_path", tones / "runs", *SHORT),
        *("--model", tuned(tones) / "encoder"),
    )
    assert code == 0, err
    twice = tones / "runs" / "THIRD" / "tuned" / "encoder"
    options = [*encoders[:2], "--audio_model", twice, "--dataset", "TUNED"]
    code, _, err = run(extract_features.main, *extract(tones, *SPLIT, "--fold", 3, *options))
    assert code == 2
    assert "was fine-tuned on 12 of the 12 test recordings" in err


def test_recordings_may_have_moved_and_audio_needs_no_transcript(tones, run, encoders):
    train = tones / "feature" / "TONES_BERT_WAV2VEC_train.csv"
    assert tune(tones, run)[0] == 0
    (tones / "corpus").rename(tones / "elsewhere")
    options = ["--corpus_dir", tones / "elsewhere", "--model_name", "moved"]
    assert tune(tones, run, *options)[0] == 0
    first, second = weights(tuned(tones)), weights(tuned(tones, "moved"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    table = pd.read_csv(train).assign(raw_text="")
    table.to_csv(tones / "train.csv", index=False)
    own = ["--metadata", tones / "train.csv", tones / "feature" / "TONES_BERT_WAV2VEC_val.csv", *options]
    own += ["--model", encoders[3]]
    assert tune(tones, run, *own, "--overwrite")[0] == 0
    code, _, err = tune(tones, run, *own, modality="text")
    assert code == 2
    assert "train.csv: line 2:" in err
    assert err.endswith("no transcript")


def test_the_initial_encoder_is_not_overwritten(tones, run):
    assert tune(tones, run)[0] == 0
    code, _, err = tune(tones, run, "--model", tuned(tones) / "encoder", "--overwrite")
    assert code == 2
    assert err.endswith(f"is inside the output folder {tuned(tones)}; use another --model_name")
    assert weights(tuned(tones))


def test_manifests_of_the_user_need_no_extraction(tones, run, encoders):
    table = pd.read_csv(tones / "tones.csv")
    table[table["speaker"].isin(["s4", "s5"])].to_csv(tones / "train.csv", index=False)
    table[table["speaker"].isin(["s2", "s3"])].to_csv(tones / "val.csv", index=False)
    options = ["--metadata", tones / "train.csv", tones / "val.csv", "--corpus_dir", tones / "corpus"]
    assert tune(tones, run, *options, "--model", encoders[3], "--model_name", "own")[0] == 0
    assert tune(tones, run)[0] == 0
    first, second = weights(tuned(tones)), weights(tuned(tones, "own"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    options[2] = options[1]
    code, _, err = tune(tones, run, *options, "--model", encoders[3], "--model_name", "own")
    assert code == 2
    assert err.endswith(f"is also in {options[1]}; validation needs other recordings")


@pytest.mark.parametrize(
    "options, message",
    [
        (["--unfreeze_layers", 3], "--unfreeze_layers 3: must be from 1 to 2, the number of transformer layers"),
        (["--unfreeze_layers", 0], "--unfreeze_layers 0: must be at least 1"),
        (["--lr", "nan"], "--lr nan: must be above 0"),
        (["--lr", "1e30", "--batch_size", 4], "epoch 1: the loss is nan; try a smaller --lr"),
        (["--classes", "a", "b"], "--classes: only with --metadata"),
        (["--seed", 2**32], f"--seed {2**32}: must be in [0, {2**32})"),
        (["--text_pooling", "mean"], "--text_pooling: only with --modality text"),
        (["--batch_tokens", 20], "--batch_tokens: only with --modality text"),
        (["--objective", "ntxent", "--batch_size", 1], "--batch_size 1: must be at least 2 with ntxent"),
        (["--precision", "fp16"], "--precision fp16: needs a CUDA device; a CPU supports fp32 and bf16"),
        (
            ["--model", "no/such/model"],
            "--model no/such/model: neither a folder nor a valid model name on the Hugging Face hub",
        ),
        (["--model_name", "../x"], "--model_name ../x: must be a name of letters, digits and . _ - + ="),
        (["--metadata", "no.csv", "no.csv"], "no.csv: no such file"),
        (["--feature_dir", "nowhere"], "nowhere/TONES_BERT_WAV2VEC.json: no such file; run extract_features.py first"),
    ],
)
def test_what_cannot_be_tuned_is_said_in_one_line(tones, run, options, message):
    code, _, err = tune(tones, run, *options)
    assert code == 2
    assert err.startswith(f"error: {message}")


def test_a_validation_loss_that_is_not_finite_ends_the_fine_tuning(tones, run, monkeypatch):
    def diverge(trainer, on_step):
        torch.nn.init.constant_(trainer.objective.head[1].bias, torch.inf)
        return 0.0

    monkeypatch.setattr(Trainer, "train_epoch", diverge)
    code, _, err = tune(tones, run)
    assert (code, err) == (2, "error: epoch 1: the validation loss is nan; try a smaller --head_lr")


def test_files_that_are_not_what_they_should_be_are_named(tones, run):
    val = tones / "feature" / "TONES_BERT_WAV2VEC_val.csv"
    good = val.read_text()
    val.write_text(good.replace("s2", "s9"))
    code, _, err = tune(tones, run)
    assert code == 2
    assert err.startswith(f"error: {val}: not the file that TONES_BERT_WAV2VEC.json describes")
    val.write_text(good)
    recording = tones / "corpus" / "s4" / "04.wav"
    whole = recording.read_bytes()
    recording.unlink()
    code, _, err = tune(tones, run)
    assert code == 2
    assert f"TONES_BERT_WAV2VEC_train.csv: line 2: {recording}: no such recording" in err
    recording.write_bytes(whole[:2000])
    code, _, err = tune(tones, run)
    assert code == 2
    assert err.startswith(f"error: {recording}: truncated")
    assert not (tones / "runs").exists()


def test_two_fine_tunings_do_not_share_a_folder(tones, run):
    with lock(tuned(tones)):
        code, _, err = tune(tones, run)
    assert (code, err) == (2, f"error: {tuned(tones)}: another command is writing it")
    assert not tuned(tones).exists()


def test_a_fine_tuning_may_go_on_on_another_device_and_says_so(tones, run, monkeypatch):
    """--precision is given, because its default differs on a GPU."""
    options = ["--precision", "fp32", "--device"]
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "validate", lambda self: signal.raise_signal(signal.SIGINT))
        with PretendCuda():
            code, out, _ = tune(tones, run, *options, "cuda", modality="text")
    assert code == 130
    assert "device cuda (Pretended GPU, fp32 products), training in fp32" in out
    arguments = ["TONES", "--modality", "text", "--save_path", tones / "runs", *SHORT, *options, "cpu", "--resume"]
    code, _, err = run(finetune.main, *arguments)
    assert code == 0, err
    assert "note: begun on cuda (Pretended GPU), continues on cpu: " in err
    described, metrics = (json.loads((tuned(tones) / name).read_text()) for name in ("config.json", "metrics.json"))
    assert described["device"] == "cuda (Pretended GPU)"
    assert metrics["device"].startswith("cpu")
