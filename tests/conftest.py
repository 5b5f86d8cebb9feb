"""Shared fixtures: small feature files, a small configuration, and real data if it is next to the checkout."""

import hashlib
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

import extract_features
import train
from utils import plots
from utils.config import SPLITS, make_config
from utils.data.features import Features, load_splits
from utils.errors import run_main
from utils.io import atomic_write
from utils.training.graph import TrainingData

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
TONES = {"high": 2500, "low": 300, "middle": 900}  # Hz
TRAINING = ["--hidden_dim", 16, "--epochs", 3, "--lr", 1e-2, "--k_text", 3, "--k_audio", 3, "--seeds", 1, 2]  # on TONES
SMALL = {"hidden_dim": 16, "epochs": 4, "k_text": 3, "k_audio": 2, "lr": 1e-2}


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: "slow" not in item.keywords)  # at the end, a long test would leave other workers idle


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _undrawn(request, monkeypatch):
    """Skip drawing figures, which saves a second each, unless the test is marked ``drawn``."""

    def save_empty(figure: plots.plt.Figure, path: Path, title: str) -> None:
        plots.plt.close(figure)
        for suffix in (".pdf", ".png"):
            atomic_write(path.with_suffix(suffix), b"")

    if "drawn" not in request.keywords:
        monkeypatch.setattr(plots, "save_figure", save_empty)


@pytest.fixture
def small_config():
    """make_config with few epochs and a narrow network."""
    return lambda **options: make_config({**SMALL, **options})


def make_rows(n: int = 24, dims: tuple[int, int] = (6, 5), classes: int = 4, seed: int = 0) -> list[dict]:
    """Rows of a feature pickle with every class, learnable from both embeddings."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    centres = [np.random.default_rng(99).standard_normal((classes, dim)) for dim in dims]
    text, audio = (c[labels] + 0.5 * rng.standard_normal((n, c.shape[1])) for c in centres)
    return [
        {"text_embed": t.astype(np.float32), "audio_embed": a.astype(np.float32), "label": int(y)}
        for t, a, y in zip(text, audio, labels, strict=True)
    ]


def write_pickle(path: Path, data: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(data, protocol=4))
    return path


def write_toy(folder: Path) -> Path:
    """The three pickles of a dataset named TOY (4 classes, text 6, audio 5)."""
    for seed, (split, n) in enumerate((("train", 40), ("val", 24), ("test", 24))):
        write_pickle(folder / f"TOY_BERT_WAV2VEC_{split}.pkl", make_rows(n, seed=seed))
    return folder


@pytest.fixture
def feature_dir(tmp_path):
    """A folder with the features of TOY."""
    return write_toy(tmp_path / "feature")


@pytest.fixture
def toy_splits(feature_dir) -> dict[str, Features]:
    """The loaded features of TOY."""
    paths = {split: feature_dir / f"TOY_BERT_WAV2VEC_{split}.pkl" for split in SPLITS}
    return load_splits(paths, None)[0]


@pytest.fixture
def toy_data(toy_splits) -> TrainingData:
    """The features of TOY as training data."""
    return TrainingData(toy_splits, ("a", "b", "c", "d"))


@pytest.fixture(scope="session")
def iemocap_small() -> Path:
    """Real published features; ``../shared`` is not part of the repository."""
    folder = SHARED / "data" / "iemocap_small"
    if not folder.is_dir():
        pytest.skip(f"real IEMOCAP features are not at {folder}")
    return folder


@pytest.fixture(scope="session")
def encoders(tmp_path_factory) -> list:
    """Options of extract_features.py that name two tiny encoders."""
    from tests.tiny_models import (  # imports transformers, which takes seconds
        save_tiny_audio_model,
        save_tiny_text_model,
    )

    folder = tmp_path_factory.mktemp("encoders")
    return [
        "--text_model",
        save_tiny_text_model(folder / "text"),
        "--audio_model",
        save_tiny_audio_model(folder / "audio"),
    ]


@pytest.fixture(scope="session")
def ctc(tmp_path_factory) -> Path:
    """A recogniser with random weights. Its words mean nothing, but they differ between recordings."""
    from tests.tiny_models import save_tiny_ctc_model  # imports transformers, which takes seconds

    return save_tiny_ctc_model(tmp_path_factory.mktemp("ctc") / "model")


@pytest.fixture(scope="session")
def _tones(tmp_path_factory, encoders) -> Path:
    folder = tmp_path_factory.mktemp("tones")
    rng = np.random.default_rng(0)
    rows = []
    for i in range(36):
        speaker, emotion = f"s{i % 6}", i // 6 % len(TONES)
        seconds = np.arange(int(16_000 * rng.uniform(0.3, 0.6))) / 16_000
        samples = 0.3 * np.sin(2 * np.pi * list(TONES.values())[emotion] * seconds)
        path = folder / "corpus" / speaker / f"{i:02d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples + 0.05 * rng.standard_normal(len(seconds)), 16_000)
        rows.append((f"{speaker}/{i:02d}.wav", f"{'aeo'[emotion] * 3} {i}", list(TONES)[emotion], speaker))
    table = pd.DataFrame(rows, columns=["audio_file", "raw_text", "label", "speaker"])
    table.to_csv(folder / "tones.csv", index=False)
    paths = ["--metadata", folder / "tones.csv", "--corpus_dir", folder / "corpus", "--split", "speaker", "--folds", 3]
    output = ["--feature_dir", folder / "feature", "--cache_dir", folder / "cache", "--device", "cpu"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["extract_features.py", "TONES", *map(str, [*paths, *output, *encoders])])
        assert not extract_features.main()
    return folder


@pytest.fixture
def tones(_tones, tmp_path, monkeypatch) -> Path:
    """A copy of a corpus whose emotions are tones: ``corpus/``, ``tones.csv``, and ``feature/`` with dataset TONES.

    It has six speakers. s4 and s5 are train, s2 and s3 val, s0 and s1 test, with 12 utterances per split.
    """
    for name in ("corpus", "feature"):
        shutil.copytree(_tones / name, tmp_path / name)
    shutil.copy(_tones / "tones.csv", tmp_path)
    for path in (tmp_path / "feature").glob("*.csv"):  # name the recordings of this copy, as an extraction would
        path.write_text(path.read_text().replace(str(_tones), str(tmp_path)))
    info = json.loads((tmp_path / "feature" / "TONES_BERT_WAV2VEC.json").read_text())
    for split, described in info["files"].items():
        data = (tmp_path / "feature" / f"TONES_BERT_WAV2VEC_{split}.csv").read_bytes()
        described["metadata_sha256"] = hashlib.sha256(data).hexdigest()
    (tmp_path / "feature" / "TONES_BERT_WAV2VEC.json").write_text(json.dumps(info))
    monkeypatch.setenv("FEATURE_DIR", str(tmp_path / "feature"))
    return tmp_path


@pytest.fixture
def python_interrupts():
    """Install Python's own SIGINT handler, which is missing in a job that a shell started in the background."""
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, inherited)


@pytest.fixture
def quick_jobs(monkeypatch):
    """Fork jobs from one process that has imported torch, so that they do not import it one by one."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch"])
    monkeypatch.setattr(multiprocessing, "get_context", lambda method=None: context)


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a script's main in this process, which avoids importing torch. Returns exit code, output, error output."""

    def run(main, *args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [main.__module__, *map(str, args)])
        with pytest.raises(SystemExit) as caught:
            run_main(main)
        captured = capsys.readouterr()
        return caught.value.code or 0, captured.out, captured.err

    return run


@pytest.fixture
def trained(tones, run):
    """The run folder of a training on TONES."""
    options = ["--dataset", "TONES", "--save_path", tones / "runs", "--model_name", "r", *TRAINING]
    code, _, err = run(train.main, *options)
    assert code == 0, err
    return tones / "runs" / "TONES" / "r"


@pytest.fixture
def call(run):
    """Like :func:`run`, but returns exit code and last error line."""

    def call(main, *args: object) -> tuple[int, str]:
        code, _, err = run(main, *args)
        return code, err.splitlines()[-1] if err else ""

    return call


def environment(**variables: str) -> dict[str, str]:
    """Environment variables that make this interpreter's environment active, so that the scripts install nothing."""
    active = {"VIRTUAL_ENV": sys.prefix} if sys.prefix != sys.base_prefix else {}
    return {**os.environ, **active, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2"), **variables}


def sweep_tables(folder: Path) -> list[pd.DataFrame]:
    """Both CSVs of a sweep without the times, which differ between sweeps."""
    files = [pd.read_csv(folder / name) for name in ("sweep.csv", "sweep_summary.csv")]
    return [table.drop(columns=[c for c in table if c.startswith("seconds")]) for table in files]
