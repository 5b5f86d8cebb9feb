import pickle
from itertools import product
from math import erf, sqrt
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import rel_entr
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression

from models.cemobam import CemoBAM
from tests.conftest import make_rows, write_pickle
from utils.config import PROFILES, SPLITS, make_config
from utils.data import demo as demo_module
from utils.data.demo import (
    AGREEMENT,
    AMBIENT,
    BITS,
    DIM,
    MARGIN,
    SCENE_SIZE,
    SCENES,
    bayes_optimal_wa,
    demo_note,
    demo_posterior,
    scene_posterior,
    write_demo,
)
from utils.data.features import load_splits
from utils.errors import InputError
from utils.training.calibration import (
    brier_score,
    cross_entropy,
    expected_calibration_error,
    fit_temperature,
    probabilities,
)
from utils.training.graph import build_graph, edge_homophily, neighbor_lists, prepare
from utils.training.loop import evaluate_selected, fit, start_training


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    write_demo(folder)
    splits, classes = load_splits({s: folder / f"DEMO_BERT_WAV2VEC_{s}.pkl" for s in SPLITS}, None)
    assert classes == 4
    return splits


def test_same_bytes_at_every_call(tmp_path):
    for name in ("a", "b"):
        write_demo(tmp_path / name)
    for path in sorted((tmp_path / "a").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_ino, path.read_bytes()) for path in folder.iterdir()}


def test_a_demo_that_is_there_is_kept(tmp_path, monkeypatch):
    """The files come from another machine, and the folder is not writable."""
    write_demo(tmp_path)
    path = tmp_path / "DEMO_BERT_WAV2VEC_val.pkl"
    rows = pickle.loads(path.read_bytes())
    write_pickle(path, [{**row, "text_embed": row["text_embed"] * np.float32(1 + 1e-6)} for row in rows])
    before = contents(tmp_path)
    monkeypatch.setattr(demo_module, "atomic_write", None)
    write_demo(tmp_path)
    assert contents(tmp_path) == before


def test_a_missing_split_is_made_beside_the_others(tmp_path):
    write_demo(tmp_path)
    before = contents(tmp_path)
    (tmp_path / "DEMO_BERT_WAV2VEC_val.pkl").unlink()
    write_demo(tmp_path)
    after = contents(tmp_path)
    assert {name: data for name, (_, data) in after.items()} == {name: data for name, (_, data) in before.items()}


def test_each_utterance_has_a_name_and_its_scene(demo):
    identity = demo["test"].identity
    assert identity["audio_file"][9 * 12 + 3] == "test/scene012/3"
    assert identity["dialogue"] == tuple(f"test/scene{i // SCENE_SIZE:03d}" for i in range(360))
    assert set(identity["speaker"] + identity["session"] + identity["gender"]) == {""}
    table = (demo["test"].path.with_suffix(".csv")).read_text().splitlines()
    assert table[:2] == [
        "audio_file,raw_text,label,speaker,session,dialogue",
        f"test/scene000/0,,{demo['test'].label[0]},,,test/scene000",
    ]


def test_a_folder_of_pickles_alone_gets_the_csvs(tmp_path):
    write_demo(tmp_path)
    before = contents(tmp_path)
    for path in tmp_path.glob("*.csv"):
        path.unlink()
    write_demo(tmp_path)
    after = contents(tmp_path)
    assert {name: data for name, (_, data) in after.items()} == {name: data for name, (_, data) in before.items()}
    assert all(after[name] == before[name] for name in before if name.endswith(".pkl"))


@pytest.mark.parametrize("content", ["audio_file\nmine.wav\n", "", None], ids=["mine", "empty", "dangling link"])
def test_another_csv_of_a_demo_name_is_kept_and_nothing_is_written(tmp_path, content):
    write_demo(tmp_path)
    path = tmp_path / "DEMO_BERT_WAV2VEC_val.csv"
    path.unlink()
    (tmp_path / "DEMO_BERT_WAV2VEC_test.pkl").unlink()
    if content is None:
        path.symlink_to(tmp_path / "unmounted")
    else:
        path.write_text(content)
    with pytest.raises(
        InputError, match=r"DEMO_BERT_WAV2VEC_val\.csv: not the DEMO data of this version; move it elsewhere"
    ):
        write_demo(tmp_path)
    assert path.is_symlink() if content is None else path.read_text() == content
    assert not (tmp_path / "DEMO_BERT_WAV2VEC_test.pkl").exists()


def changed_embedding(rows):
    return [{**rows[0], "audio_embed": rows[0]["audio_embed"] + np.float32(1e-3)}, *rows[1:]]


@pytest.mark.parametrize(
    "change",
    [
        changed_embedding,
        lambda rows: [{**rows[0], "label": 3 - rows[0]["label"]}, *rows[1:]],
        lambda rows: rows[1:],
        lambda rows: make_rows(24),
        lambda rows: "mine",
        None,
    ],
    ids=["embedding", "label", "a row less", "dimensions", "something else", "dangling link"],
)
def test_another_file_of_a_demo_name_is_kept_and_nothing_is_written(tmp_path, change):
    path = tmp_path / "DEMO_BERT_WAV2VEC_test.pkl"
    if change is None:
        path.symlink_to(tmp_path / "unmounted")
    else:
        write_demo(tmp_path / "made")
        write_pickle(path, change(pickle.loads((tmp_path / "made" / path.name).read_bytes())))
    before = None if change is None else path.read_bytes()
    with pytest.raises(
        InputError, match=r"DEMO_BERT_WAV2VEC_test\.pkl: not the DEMO data of this version; move it elsewhere"
    ):
        write_demo(tmp_path)
    assert [each.name for each in tmp_path.glob("*.pkl")] == [path.name]
    assert path.is_symlink() if change is None else path.read_bytes() == before


def test_bounds_of_one_utterance_in_closed_form():
    bound = bayes_optimal_wa(scenes=100)
    phi = {name: (1 + erf(margin / sqrt(1 + AMBIENT**2) / sqrt(2))) / 2 for name, margin in MARGIN.items()}
    assert bound["utterance"] == pytest.approx(phi["text"] * phi["audio"])
    assert bound["text"] == pytest.approx(phi["text"] / 2)
    assert bound["audio"] == pytest.approx(phi["audio"] / 2)
    assert max(bound["text"], bound["audio"]) < 0.6 * bound["utterance"]


def test_scene_bound_in_two_known_cases():
    """With agreement 0, the scene has no information. With agreement 1, the evidence of all members adds up."""
    alone = bayes_optimal_wa(scenes=100)["utterance"]
    assert bayes_optimal_wa(agreement=0.0)["scene"] == pytest.approx(alone, abs=0.003)
    margins = [m / sqrt(1 + AMBIENT**2) * sqrt(SCENE_SIZE) for m in MARGIN.values()]
    pooled = np.prod([(1 + erf(m / sqrt(2))) / 2 for m in margins])
    assert bayes_optimal_wa(agreement=1.0)["scene"] == pytest.approx(pooled, abs=0.001)
    assert alone + 0.1 < bayes_optimal_wa()["scene"] < pooled


def test_posterior_of_a_small_scene_by_enumeration():
    """The product form of the posterior equals the sum over all labels of the members."""
    rng = np.random.default_rng(0)
    likelihood = rng.random((3, 4))
    p = AGREEMENT * np.eye(4) + (1 - AGREEMENT) / 4
    joint = np.zeros((3, 4))
    for labels in product(range(4), repeat=3):
        weight = sum(np.prod([p[s, y] for y in labels]) / 4 for s in range(4))
        weight *= np.prod([likelihood[i, y] for i, y in enumerate(labels)])
        for i, y in enumerate(labels):
            joint[i, y] += weight
    posterior = scene_posterior(likelihood[None], AGREEMENT)[0]
    assert np.allclose(posterior / posterior.sum(1, keepdims=True), joint / joint.sum(1, keepdims=True))


def posterior(demo, split: str) -> np.ndarray:
    return demo_posterior(demo[split].text.numpy(), demo[split].audio.numpy())


def test_the_posterior_of_an_embedding_is_that_of_its_density(demo):
    """With agreement 0, the posterior follows from Bayes' rule on the two axes of the bits."""
    features = demo["test"]
    found = demo_posterior(features.text.numpy(), features.audio.numpy(), agreement=0.0)
    bases = demo_module._bases(np.random.default_rng(demo_module.SEED))
    density = np.ones((len(features), 4))
    for bit, (name, basis) in enumerate(zip(MARGIN, bases, strict=True)):
        seen = getattr(features, name).numpy() @ basis[0]
        density *= norm.pdf(seen[:, None], MARGIN[name] * BITS[:, bit], sqrt(1 + AMBIENT**2))
    assert np.allclose(found, density / density.sum(1, keepdims=True), atol=1e-6)


def test_the_posterior_reaches_the_bound_and_is_calibrated(demo):
    """Over all 1080 utterances, the posterior predicts its own error rate within three standard errors."""
    found = np.concatenate([posterior(demo, split) for split in SPLITS])
    label = np.concatenate([demo[split].label for split in SPLITS])
    assert np.allclose(found.sum(1), 1)
    assert expected_calibration_error(found[None], label)[0] < 0.02
    right = (found.argmax(1) == label).mean()
    assert right == pytest.approx(bayes_optimal_wa()["scene"], abs=3 * sqrt(0.96 * 0.04 / 1080))
    by_itself = np.square(found - np.eye(4)[label]).sum(1)
    assert by_itself.mean() == pytest.approx((1 - np.square(found).sum(1)).mean(), abs=0.02)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_temperature_brings_a_model_nearer_to_the_truth(demo, profile):
    config = make_config({"dataset": "DEMO", "profile": profile, "hidden_dim": 32, "epochs": 30, "lr": 1e-3})
    graphs = {split: prepare(demo[split], config, torch.device("cpu"), demo["train"]) for split in SPLITS}
    state = start_training(CemoBAM(config.model, DIM, DIM, 4), config)
    fit(state, graphs["train"], graphs["val"], config, lambda line: None)
    _, logits = evaluate_selected(state, graphs["val"], graphs["test"])
    fitted = fit_temperature(logits["val"], demo["val"].label)
    both = np.stack([probabilities(logits["test"]), probabilities(logits["test"], fitted)])
    truth, label = posterior(demo, "test"), demo["test"].label.numpy()
    plain, scaled = np.abs(both - truth).mean((1, 2))
    assert scaled < plain
    plain, scaled = (rel_entr(truth, each).sum(1).mean() for each in both)
    assert scaled < plain
    assert brier_score(truth[None], label) < brier_score(both, label).min()
    assert cross_entropy(truth[None], label) < cross_entropy(both, label).min()


def test_the_note_names_every_bound():
    text = demo_note()
    assert text.startswith("DEMO is synthetic")
    assert all(f"{100 * bound:.1f}" in text for bound in bayes_optimal_wa().values())


def test_each_modality_carries_only_its_own_bit(demo):
    scores = {}
    for name in ("text", "audio"):
        x = {split: getattr(f, name).numpy() for split, f in demo.items()}
        for bit in (0, 1):
            y = {split: BITS[f.label.numpy(), bit] for split, f in demo.items()}
            model = LogisticRegression(C=0.1, max_iter=500).fit(x["train"], y["train"])
            scores[name, bit] = model.score(x["test"], y["test"])
    assert scores["text", 0] > 0.8
    assert scores["audio", 1] > 0.78
    assert scores["text", 1] < 0.62
    assert scores["audio", 0] < 0.62


def test_neighbours_share_labels_as_in_a_useful_graph(demo):
    features = demo["test"]
    graph = build_graph(neighbor_lists(features.text, features.audio, 7, 8), 7, 8)
    assert edge_homophily(graph, features.label) > 0.6
    assert len(features) == SCENES["test"] * SCENE_SIZE
    assert torch.bincount(features.label).min() > 60
