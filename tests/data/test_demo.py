import pickle
from itertools import product
from math import erf, sqrt
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from tests.conftest import make_rows, write_pickle
from utils.config import SPLITS
from utils.data import demo as demo_module
from utils.data.demo import (
    AGREEMENT,
    AMBIENT,
    BITS,
    MARGIN,
    SCENE_SIZE,
    SCENES,
    bayes_optimal_wa,
    demo_note,
    scene_posterior,
    write_demo,
)
from utils.data.features import load_splits
from utils.errors import InputError
from utils.training.graph import build_graph, edge_homophily, neighbor_lists


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
    """As another machine made it, and where nothing can be written."""
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
    with pytest.raises(InputError, match=r"DEMO_BERT_WAV2VEC_test\.pkl: not this version's DEMO; move it elsewhere"):
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
    """Agreement 0: the scene is uninformative. Agreement 1: the evidence of all members adds up."""
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
