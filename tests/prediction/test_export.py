"""predict.py --export as a user calls it: the contents of the folder, their completeness, and the model card."""

import json
import os
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from huggingface_hub import ModelCard
from scipy.stats import t
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

import eval as evaluate
import train
from tests.conftest import TRAINING
from tests.prediction.conftest import ask
from utils.data.features import load_features
from utils.data.safe_pickle import load_tensors, save_tensors
from utils.io import lock
from utils.prediction.inductive import Predictor, load_training_graph
from utils.training.trained import find_checkpoints, load_run

CPU = torch.device("cpu")
SHA = "a" * 40


@pytest.fixture
def exported(tones, run, trained):
    """An export of the run."""
    code, _, err = ask(run, trained, "--export", tones / "out")
    assert code == 0, err
    return tones / "out"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache of the hub, and no connection to the hub."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    return tmp_path / "hub"


def put_into(hub: Path, name: str, folder: Path) -> None:
    """Cache the files of a folder as the hub's client does: blobs, and a snapshot with links to them."""
    place = hub / f"models--{name.replace('/', '--')}"
    for number, path in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
        blob, link = place / "blobs" / str(number), place / "snapshots" / SHA / path.relative_to(folder)
        for each in (blob, link):
            each.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, blob)
        link.symlink_to(os.path.relpath(blob, link.parent))
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(SHA)


def first_wav(tones) -> list:
    return ["--wav", tones / "corpus" / "s0" / "00.wav", "--text", "aaa", "--json"]


def test_an_export_takes_the_encoders_along(tones, run, encoders, monkeypatch):
    """These are then in no other place. The answers are the same."""
    local = tones / "local"
    shutil.copytree(encoders[1], local / "text")
    shutil.copytree(encoders[3], local / "audio")
    info = tones / "feature" / "TONES_BERT_WAV2VEC.json"
    info.write_text(
        info.read_text().replace(str(encoders[1]), str(local / "text")).replace(str(encoders[3]), str(local / "audio"))
    )
    assert run(train.main, "--dataset", "TONES", "--save_path", tones / "runs", "--model_name", "r", *TRAINING)[0] == 0
    trained = tones / "runs" / "TONES" / "r"
    options = ["--wav", tones / "corpus" / "s0" / "00.wav", "--text", "aaa", "--json"]
    before = ask(run, trained, *options)[1]
    code, out, err = ask(run, trained, "--export", tones / "out")
    assert code == 0, err
    size = sum(path.stat().st_size for path in (tones / "out").rglob("*") if path.is_file())
    assert f"exported to {tones / 'out'}, {size / 1e6:.1f} MB" in out
    assert {path.name for path in tones.glob("*out*")} == {"out", ".out.lock"}
    code, _, err = ask(run, trained, "--export", tones / "out")
    assert (code, err.splitlines()[-1]) == (
        2,
        f"error: --export {tones / 'out'}: already exists; choose another folder, or remove it",
    )

    code, _, err = ask(run, trained / "seed1" / "last.pt", "--export", tones / "last")
    assert (code, (tones / "last").exists()) == (2, False)
    assert "last.pt: not the best.pt of a finished seed" in err

    local.rename(tones / "gone")
    code, _, err = ask(run, trained, *options)
    assert code == 2
    assert err.splitlines()[-1].startswith(f"error: {local / 'text'}: the run's text encoder is not on this machine")
    there = ["--text_model", tones / "gone" / "text", "--audio_model", tones / "gone" / "audio"]
    assert ask(run, trained, *options, *there)[1] == before
    shutil.rmtree(tones / "gone")
    shutil.rmtree(tones / "runs")
    shutil.rmtree(tones / "feature")
    assert ask(run, tones / "out", *options)[1] == before


def test_a_killed_export_is_in_nobodys_way(tones, run, trained):
    """A kill -9 leaves a partial folder, which the next export replaces. A user's folder of the same name is kept."""
    part = tones / "out.part"
    (part / "seed1").mkdir(parents=True)
    (part / "seed1" / "best.pt").write_bytes(b"cut")
    code, _, err = ask(run, trained, "--export", tones / "out")
    assert (code, err.splitlines()[-1]) == (
        2,
        f"error: {part}: --export needs this path; move the existing file or folder elsewhere",
    )
    assert (part / "seed1" / "best.pt").read_bytes() == b"cut"
    (part / ".unfinished_export").touch()
    with lock(tones / "out"):
        code, _, err = ask(run, trained, "--export", tones / "out")
        assert (code, err.splitlines()[-1]) == (2, f"error: {tones / 'out'}: another command is writing it")
    code, _, err = ask(run, trained, "--export", tones / "out")
    assert code == 0, err
    assert not part.exists()
    assert {path.name for path in (tones / "out").iterdir()} == {
        "seed1",
        "seed2",
        "training_graph.safetensors",
        "README.md",
        "test_groups.csv",
        "text_encoder",
        "audio_encoder",
    }


def test_predictions_are_those_of_the_run_to_the_bit(tones, run, trained, exported):
    features = load_features(tones / "feature" / "TONES_BERT_WAV2VEC_test.pkl")
    found = []
    for folder in (trained, exported, exported / "seed1", exported / "seed1" / "model.safetensors"):
        models = load_run(find_checkpoints(str(folder), tones)[1])
        found.append(Predictor(models, load_training_graph(models[0]), CPU).each(features.text, features.audio))
    assert torch.equal(found[1], found[0])
    assert torch.equal(found[2], found[0][:1])
    assert torch.equal(found[3], found[0][:1])
    for seed in ("seed1", "seed2"):
        saved, ours = load_tensors(trained / seed / "best.pt"), load_tensors(exported / seed / "model.safetensors")
        weights, others = saved.pop("weights"), ours.pop("weights")
        assert ours == saved
        assert {name: (each.dtype, each.tolist()) for name, each in others.items()} == {
            name: (each.dtype, each.tolist()) for name, each in weights.items()
        }
    assert ask(run, exported, *first_wav(tones))[1] == ask(run, trained, *first_wav(tones))[1]


def test_no_file_of_an_export_is_a_pickle(exported):
    files = [path for path in exported.rglob("*") if path.is_file()]
    assert len(files) > 10
    for path in files:
        assert not zipfile.is_zipfile(path)  # torch.save writes zip files
        assert path.read_bytes()[:1] != b"\x80", path
    assert {path.suffix for path in files} == {".json", ".safetensors", ".md", ".csv"}


def test_two_exports_of_a_run_are_the_same_bytes(tones, run, trained, exported):
    assert ask(run, trained, "--export", tones / "again")[0] == 0
    one, other = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (exported, tones / "again")
    )
    odd = [path for path in one.keys() | other.keys() if one.get(path) != other.get(path)]
    assert odd == []
    assert ask(run, exported, "--export", tones / "of_export")[0] == 0  # its test predictions are not known
    for name in ("seed1/model.safetensors", "training_graph.safetensors", "text_encoder/model.safetensors"):
        assert (tones / "of_export" / name).read_bytes() == one[Path(name)]


def test_an_export_is_evaluated_like_a_run(tones, run, trained, exported):
    results = []
    for folder in (trained, exported):
        code, out, err = run(evaluate.main, folder, "--device", "cpu")
        assert code == 0, err
        assert "note:" not in out
        results.append(json.loads((folder / "eval" / "test.json").read_text()))
    assert results[0] == results[1]
    metrics = exported / "seed1" / "metrics.json"
    metrics.write_text(metrics.read_text().replace(f'"wa": {results[0]["seed 1"]["wa"]}', '"wa": 0.125'))
    assert "note: seed 1: WA was 12.50 in training" in run(evaluate.main, exported, "--device", "cpu")[1]


def hub_encoders(tones, run, hub, encoders) -> Path:
    """A run whose encoders are from the hub and in its cache."""
    info = tones / "feature" / "TONES_BERT_WAV2VEC.json"
    described = json.loads(info.read_text())
    for modality, folder in (("text", encoders[1]), ("audio", encoders[3])):
        put_into(hub, f"tiny/{modality}", folder)
        described["encoders"][modality] |= {"name": f"tiny/{modality}", "revision": SHA}
    info.write_text(json.dumps(described))
    assert run(train.main, "--dataset", "TONES", "--save_path", tones / "runs", "--model_name", "r", *TRAINING)[0] == 0
    return tones / "runs" / "TONES" / "r"


def test_encoders_of_the_hub_are_named_and_not_copied(tones, run, hub, encoders):
    trained = hub_encoders(tones, run, hub, encoders)
    before = ask(run, trained, *first_wav(tones))[1]
    code, _, err = ask(run, trained, "--export", tones / "out")
    assert code == 0, err
    assert {path.name for path in (tones / "out").iterdir()} == {
        *("README.md", "seed1", "seed2", "test_groups.csv", "training_graph.safetensors")
    }
    card = ModelCard.load(tones / "out" / "README.md")
    assert card.data.base_model == ["tiny/text", "tiny/audio"]
    assert f"| text | tiny/text@{SHA} | pooler |" in card.text
    shutil.rmtree(tones / "runs")
    assert ask(run, tones / "out", *first_wav(tones))[1] == before

    given = ["--text_model", encoders[1]]
    assert ask(run, tones / "out", *given, "--export", tones / "whole")[0] == 0
    assert (tones / "whole" / "text_encoder" / "model.safetensors").is_file()
    assert not (tones / "whole" / "audio_encoder").exists()
    shutil.rmtree(hub / "models--tiny--text")
    assert ask(run, tones / "whole", *first_wav(tones))[1] == before
    code, _, err = ask(run, tones / "out", *first_wav(tones))
    assert code == 2
    assert err.splitlines()[-1].startswith(f"error: --text_model tiny/text@{SHA}: not on this machine")


def test_a_run_of_the_hub_by_its_name(tones, run, exported, hub, monkeypatch):
    before = ask(run, exported, *first_wav(tones))[1]
    put_into(hub, "user/tones", exported)
    shutil.rmtree(exported)
    shutil.rmtree(tones / "runs")
    shutil.rmtree(tones / "feature")
    monkeypatch.chdir(tones)
    for offline in (False, True):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
        for name in ("user/tones", "user/tones@main", f"user/tones@{SHA}"):
            code, out, err = ask(run, name, *first_wav(tones))
            assert (code, out) == (0, before), err
        for name, fetch in (("user/other", "'hf download user/other'"), ("user/tones@v2", "--revision v2")):
            code, _, err = ask(run, name, *first_wav(tones))
            assert (code, len(err.splitlines())) == (2, 1)
            assert err.startswith(
                f"error: --checkpoint {name}: not on this machine, and the Hugging Face hub cannot be"
            )
            assert fetch in err


def test_what_is_here_goes_before_the_hub(tones, run, trained, exported, hub, monkeypatch):
    put_into(hub, "user/tones", exported)
    monkeypatch.chdir(tones)
    shutil.copytree(trained / "seed2", tones / "user" / "tones" / "seed2")
    shutil.copy(trained / "training_graph.pt", tones / "user" / "tones")
    _, out, err = ask(run, "user/tones", *first_wav(tones))
    assert out == ask(run, trained / "seed2", *first_wav(tones))[1]
    assert err.startswith(f"run {tones / 'user' / 'tones'}, seed 2")
    shutil.rmtree(tones / "user" / "tones" / "seed2")  # the hub is also not asked for a folder without a run
    code, _, err = ask(run, "user/tones", *first_wav(tones))
    assert (code, err.splitlines()[-1]) == (2, "error: user/tones: no finished seed in this folder")
    (tones / "other" / "user" / "tones").mkdir(parents=True)
    shutil.rmtree(tones / "user")
    code, _, err = ask(run, "user/tones", "--save_path", tones / "other", *first_wav(tones))
    assert code == 2
    assert err.splitlines()[-1].startswith("error: user/tones: neither a file or folder, nor a dataset")


@pytest.mark.parametrize("name", ["nowhere", "a/b/c", "./user/x", "/no/where", "us er/x", "user/"])
def test_what_is_no_name_of_the_hub_is_one_line(run, hub, name, monkeypatch):
    def ask_nobody(*args, **options):
        raise AssertionError

    monkeypatch.setattr("huggingface_hub.model_info", ask_nobody)
    code, _, err = ask(run, name, "--wav", "a.wav")
    assert (code, len(err.splitlines())) == (2, 1)
    assert re.search("neither a (file or folder|folder nor a valid model name on the Hugging Face hub)", err)


def test_an_interrupted_export_leaves_nothing(tones, run, trained, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("utils.prediction.export.save_pretrained", interrupted)
    assert ask(run, trained, "--export", tones / "out")[0] == 130
    assert {path.name for path in tones.glob("*out*")} == {".out.lock"}


def test_damaged_exports_are_one_line(tones, run, exported):
    model, graph = exported / "seed2" / "model.safetensors", exported / "training_graph.safetensors"
    whole = {path: path.read_bytes() for path in (model, graph)}

    def error() -> str:
        code, _, err = ask(run, exported, *first_wav(tones))
        assert (code, err.count("error: ")) == (2, 1)
        return err.splitlines()[-1].removeprefix("error: ")

    for path, content in whole.items():
        for damaged, message in (
            (content[:1000], "not a complete checkpoint"),
            (content[:-4] + b"\0\0\0\1", "damaged: its checksum is wrong"),
            (b"", "not a complete checkpoint"),
            (content.replace(b"cemobam", b"another", 1), "its metadata has no entry cemobam"),
        ):
            path.write_bytes(damaged)
            assert error().startswith(f"{path}: {message}")
        path.write_bytes(content)

    saved = load_tensors(model)
    name = next(iter(saved["weights"]))
    save_tensors(model, {**saved, "weights": {**saved["weights"], name: torch.ones(2, 2)}})
    assert error().startswith(f"{model}: the weights do not fit their configuration ({name} is [2, 2]")
    save_tensors(model, {key: value for key, value in saved.items() if key != "class_names"})
    assert error() == f"{model}: not a checkpoint of train.py, 'class_names' is missing"
    save_tensors(model, {**saved, "class_names": "abc"})
    assert error() == f"{model}: invalid class names: 'abc'"
    model.write_bytes(whole[model])
    saved = load_tensors(graph)
    save_tensors(graph, {**saved, "text": saved["text"][:, :3]})
    assert error() == f"{graph}: belongs to another training than {exported / 'seed1' / 'model.safetensors'}"
    graph.unlink()
    assert error().startswith(f"{exported / 'training_graph.pt'}: no such file")


def test_missing_seeds_are_said(tones, run, exported):
    (exported / "seed2" / "model.safetensors").unlink()
    code, out, err = ask(run, exported, *first_wav(tones))
    assert code == 0
    assert "not finished, skipped: seed2" in err
    assert out == ask(run, exported / "seed1", *first_wav(tones))[1]
    (exported / "seed1" / "metrics.json").unlink()
    code, _, err = ask(run, exported, *first_wav(tones))
    assert code == 2
    assert err.splitlines()[-1].startswith(f"error: {exported}: its seeds have no weights")


class Trap:
    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_a_pickle_in_a_fetched_run_does_not_run(tones, run, exported, hub, monkeypatch):
    for seed in ("seed1", "seed2"):
        (exported / seed / "model.safetensors").unlink()
        torch.save({"weights": Trap(tones / "ran")}, exported / seed / "best.pt")
    put_into(hub, "user/evil", exported)
    monkeypatch.chdir(tones)
    code, _, err = ask(run, "user/evil", *first_wav(tones))
    assert code == 2
    assert err.splitlines()[-1].endswith("best.pt: refused: not a file of plain weights; nothing in it was executed")
    assert not (tones / "ran").exists()
    torch.load(exported / "seed1" / "best.pt", weights_only=False)
    assert (tones / "ran").exists()


# ---- the model card --------------------------------------------------------------------------------------------------


def retrain(run, tones, *seeds) -> Path:
    options = ["--dataset", "TONES", "--save_path", tones / "runs", "--model_name", "m", *TRAINING, "--seeds", *seeds]
    assert run(train.main, *options)[0] == 0
    return tones / "runs" / "TONES" / "m"


def card_of(run, trained, to) -> ModelCard:
    code, _, err = ask(run, trained, "--export", to)
    assert code == 0, err
    return ModelCard.load(to / "README.md")


def section(card: ModelCard, title: str) -> str:
    return card.text.split(f"## {title}\n")[1].split("\n## ")[0]


def cells(text: str, first: str) -> list[str]:
    """The other cells of the table row with this first cell."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.split("|")[2:-1]]


def scores(label, prediction) -> list[float]:
    weighted, macro = (f1_score(label, prediction, average=kind, zero_division=0) for kind in ("weighted", "macro"))
    return [accuracy_score(label, prediction), balanced_accuracy_score(label, prediction), weighted, macro]


def numbers(data: object) -> list[float]:
    """Every number in nested containers."""
    if isinstance(data, dict | list):
        return [number for each in (data.values() if isinstance(data, dict) else data) for number in numbers(each)]
    return [data] if isinstance(data, int | float) and not isinstance(data, bool) else []


def test_each_number_of_the_card_is_in_the_files(tones, run):
    trained = retrain(run, tones, 1, 2, 3)
    tables = []
    for seed in (1, 2, 3):  # four speakers, so that there is an interval
        path = trained / f"seed{seed}" / "test_predictions.csv"
        table = pd.read_csv(path, keep_default_na=False)
        table["speaker"] = [f"s{row % 4}" for row in range(len(table))]
        table.to_csv(path, index=False)
        tables.append(table)
    card = card_of(run, trained, tones / "out")
    metrics = [json.loads((trained / f"seed{seed}" / "metrics.json").read_text()) for seed in (1, 2, 3)]
    names = ("wa", "ua", "w_f1", "macro_f1")
    values = 100 * np.array([[each["test"][name] for name in names] for each in metrics])

    data = card.data.to_dict()
    assert (data["library_name"], data["pipeline_tag"]) == ("cemobam", "audio-classification")
    assert "license" not in data
    (model,) = data["model-index"]
    (result,) = model["results"]
    assert (model["name"], result["dataset"]) == ("m", {"name": "TONES", "type": "TONES", "split": "test"})
    assert [each["value"] for each in result["metrics"]] == pytest.approx(values.mean(0), abs=0.005)

    text = section(card, "Metrics")
    for seed, row in zip((1, 2, 3), values, strict=True):
        assert cells(text, f"seed {seed}") == [f"{value:.2f}" for value in row]
    mean, std = values.mean(0), values.std(0, ddof=1)
    assert cells(text, "mean ± std") == [f"{m:.2f} ± {s:.2f}" for m, s in zip(mean, std, strict=True)]
    halves = [half := t.ppf(0.975, 2) * std / 3**0.5]
    assert cells(text, "95 % interval over seeds") == [
        f"[{max(m - h, 0):.2f}, {min(m + h, 100):.2f}]" for m, h in zip(mean, half, strict=True)
    ]
    without = 100 * np.array(
        [
            np.mean(
                [scores(*each.loc[each["speaker"] != left, ["label", "prediction"]].T.values) for each in tables], 0
            )
            for left in ("s0", "s1", "s2", "s3")
        ]
    )
    error = (3 / 4 * ((without - without.mean(0)) ** 2).sum(0)) ** 0.5
    halves.append(half := t.ppf(0.975, 3) * error)
    assert cells(text, "95 % interval over 4 speakers") == [
        f"[{max(m - h, 0):.2f}, {min(m + h, 100):.2f}]" for m, h in zip(mean, half, strict=True)
    ]

    text, eces = section(card, "Calibration"), []
    for seed, table, each in zip((1, 2, 3), tables, metrics, strict=True):
        probability = table[["p_high", "p_low", "p_middle"]].to_numpy()
        confidence, right = probability.max(1), probability.argmax(1) == table["label"]
        bins = np.ceil(confidence * 15).astype(int)
        ece = sum(abs((right[bins == b].astype(float) - confidence[bins == b]).sum()) for b in set(bins)) / len(table)
        eces.append(100 * ece)
        assert cells(text, f"seed {seed}") == [str(each["temperature"]), f"{100 * ece:.2f}"]

    text = section(card, "Results by group")
    pooled = pd.concat(tables)
    right = pooled["label"] == pooled["prediction"]
    groups = [(name, each) for name in ("speaker", "label") for each in sorted(set(pooled[name]))]
    for speaker, value in right.groupby(pooled["speaker"]).mean().items():
        assert re.search(rf"^{speaker} +3 +{100 * value:.1f} ", text, re.M)
    for label, value in right.groupby(pooled["label"]).mean().items():
        assert re.search(rf"^{('high', 'low', 'middle')[label]} +4 +{100 * value:.1f}$", text, re.M)
    assert (tones / "out" / "test_groups.csv").read_text().count("speaker,") == 4

    text = section(card, "Data and protocol")
    for split in ("train", "val", "test"):
        assert cells(text, split) == ["12", "4", "4", "4"]
    assert "- Split: by speaker, fold 1 (speakers: 2 in train, 2 in val, 2 in test)" in text
    assert "- Test speakers: 4\n- Seeds: 1, 2, 3\n- Profile: paper, with k_text 3, k_audio 3, hidden_dim 16" in text
    info = json.loads((tones / "feature" / "TONES_BERT_WAV2VEC.json").read_text())
    assert "0 of 2 also in train, with 0 of 12 test utterances (0.0 %)" in section(
        card, "Leakage between train and test"
    )
    assert f"WA {100 * info['leakage']['lookup']['wa']:.2f}" in section(card, "Leakage between train and test")
    assert info["encoders"]["text"]["weights_sha256"][:16] in card.text
    assert "3 nearest audio neighbours among the 12 training utterances" in card.text
    assert str(tones) not in card.content  # no path of this machine

    files = [*metrics, info, json.loads((trained / "seed1" / "config.json").read_text())]
    known = {form for value in numbers(files) for form in (str(value), f"{100 * value:.2f}", f"{100 * value:.1f}")}
    computed = [values, mean, std, *(mean - each for each in halves), *(mean + each for each in halves), eces]
    known |= {f"{value:.2f}" for value in np.concatenate([np.ravel(each) for each in computed])} | {"0.00", "100.00"}
    known |= {f"{100 * right.groupby(pooled[name]).mean().loc[each]:.1f}" for name, each in groups}
    constants = {"95", "15", "10", "1"}  # of the intervals, of the bins, of small groups, in F1
    counts = {"2", "3", "4", "6", "12"}  # seeds, speakers, classes, utterances
    text = re.sub(r"\b[0-9a-f]{16}\b|SHA-256|`[\w./]+`|\bs\d\b", "", card.text)
    shown = re.findall(r"\d+(?:\.\d+)?", text)
    assert len(shown) > 100
    assert set(shown) - known - constants - counts == set()


def test_a_card_of_one_seed_has_no_interval(tones, run, trained):
    card = card_of(run, trained / "seed1", tones / "out")
    assert {path.name for path in (tones / "out").glob("seed*")} == {"seed1"}
    assert "±" not in card.text
    assert "interval over seeds |" not in card.text
    for groups in ("seeds", "speakers"):
        message = f"There is no interval over {groups} because there are fewer than 3."
        assert message in section(card, "Metrics")
    assert "- Seeds: 1\n" in card.text
    assert "The probabilities are those of one model." in card.text


def test_a_card_says_what_the_files_lack(tones, run, trained, encoders):
    """There are no test predictions, and no JSON next to the features."""
    (trained / "seed2" / "test_predictions.csv").unlink()
    (tones / "feature" / "TONES_BERT_WAV2VEC.json").unlink()
    card = card_of(run, trained, tones / "out")
    assert not (tones / "out" / "test_groups.csv").exists()
    assert "There is no interval over speakers because the predictions are not recorded." in section(card, "Metrics")
    assert "Test predictions: not recorded." in section(card, "Results by group")
    assert cells(section(card, "Calibration"), "seed 1")[1] == "not recorded"
    assert section(card, "Leakage between train and test").strip() == "Not recorded."
    text = section(card, "Data and protocol")
    assert "- Split: not recorded\n- Test speakers: not recorded\n" in text
    assert cells(text, "train") == ["12", *["not recorded"] * 3]
    assert cells(text, "test") == ["12", "4", "4", "4"]
    assert "- Whether test speakers are also in train is not recorded." in section(card, "Limits")


def test_a_card_of_a_run_without_speakers(tones, run, trained):
    for path in trained.glob("seed*/test_predictions.csv"):
        table = pd.read_csv(path, keep_default_na=False)
        for name in ("speaker", "session", "dialogue"):
            table[name] = ""
        table.to_csv(path, index=False)
    card = card_of(run, trained, tones / "out")
    assert len(cells(section(card, "Metrics"), "95 % interval over 12 utterances")) == 4
    assert "- Test speakers: not recorded\n" in card.text
    assert "speaker" not in section(card, "Results by group")
    assert "worst class" not in section(card, "Results by group")  # each has fewer than ten utterances


def test_features_made_anew_are_not_taken_for_those_of_the_training(tones, run, trained):
    path = tones / "feature" / "TONES_BERT_WAV2VEC.json"
    info = json.loads(path.read_text())
    info["files"]["val"]["sha256"] = "0" * 64
    path.write_text(json.dumps(info))
    assert "- Split: not recorded\n" in card_of(run, trained, tones / "out").text


def test_files_that_contradict_each_other_are_refused(tones, run, trained):
    path = trained / "seed2" / "test_predictions.csv"
    before = path.read_text()
    table = pd.read_csv(path, keep_default_na=False)
    table.loc[0, "prediction"] = (table.loc[0, "prediction"] + 1) % 3
    table.to_csv(path, index=False)
    code, _, err = ask(run, trained, "--export", tones / "out")
    assert (code, err.splitlines()[-1]) == (
        2,
        f"error: {path}: does not match the metrics.json next to it",
    )
    assert not (tones / "out").exists()
    path.write_text(before)
    info = tones / "feature" / "TONES_BERT_WAV2VEC.json"
    info.write_text(info.read_text().replace('"also_in_train"', '"also"'))
    code, _, err = ask(run, trained, "--export", tones / "out")
    assert code == 2
    assert err.splitlines()[-1].startswith(f"error: {info}: not the description of these features")
    assert not (tones / "out").exists()
