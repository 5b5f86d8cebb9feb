import json
import resource
import sys

import numpy as np
import pytest
import torch

from tests.conftest import make_rows, write_pickle
from utils.config import SPLITS
from utils.data import features
from utils.data.features import check_disjoint, load_features, load_splits, read_info
from utils.errors import InputError
from utils.io import file_sha256


def broken(row: int, **changes) -> list[dict]:
    rows = make_rows(8)
    rows[row].update(changes)
    return rows


def write_splits(folder, **rows) -> dict:
    """Write three different feature files, or the given rows instead."""
    plain = {split: make_rows(20 - 5 * seed, seed=seed) for seed, split in enumerate(SPLITS)}
    return {split: write_pickle(folder / f"{split}.pkl", each) for split, each in {**plain, **rows}.items()}


def without(row: int, key: str) -> list[dict]:
    rows = make_rows(8)
    del rows[row][key]
    return rows


def filled(value: float, place: int = 2) -> np.ndarray:
    vector = np.ones(6, dtype=np.float32)
    vector[place] = value
    return vector


BAD = {
    "not a list": ({"a": 1}, "expected a list of dicts, found a dict"),
    "empty": ([], "the list is empty"),
    "row not a dict": ([*make_rows(4), 7], "row 4 is a int, expected a dict"),
    "missing key": (without(3, "audio_embed"), "row 3 has no 'audio_embed'"),
    "missing label": (without(1, "label"), "row 1 has no 'label'"),
    "None": (broken(2, text_embed=None), "row 2: text_embed is not a vector of numbers but a NoneType of object"),
    "label None": (broken(2, label=None), "row 2: label None is not an integer"),
    "NaN": (broken(5, text_embed=filled(np.nan)), "row 5: text_embed has the invalid value nan at position 2"),
    "infinity": (
        broken(5, text_embed=filled(-np.inf, 4)),
        "row 5: text_embed has the invalid value -inf at position 4",
    ),
    "too large for float32": (
        broken(0, text_embed=[1e39] * 6),
        "row 0: text_embed has the invalid value inf at position 0",
    ),
    "would overflow": (
        broken(1, text_embed=filled(1e37)),
        r"row 1: text_embed has the invalid value 9\.9\d+e\+36 at position 2",
    ),
    "zero vector": (broken(6, audio_embed=np.zeros(5)), "row 6: audio_embed is a zero vector"),
    "mixed dimensions": (broken(3, audio_embed=np.ones(4)), "row 3: audio_embed has 4 values, row 0 has 5"),
    "matrix": (broken(3, audio_embed=np.ones((2, 5))), r"row 3: audio_embed has shape \[2, 5\]"),
    "scalar": (broken(3, audio_embed=1.0), r"row 3: audio_embed has shape \[\]"),
    "empty vector": (broken(3, audio_embed=[]), r"row 3: audio_embed has shape \[0\]"),
    "words": (broken(3, audio_embed="abc"), "row 3: audio_embed is not a vector of numbers but a str"),
    "numbers as words": (
        broken(3, audio_embed=["1"] * 5),
        "row 3: audio_embed is not a vector of numbers but a list of",
    ),
    "complex": (
        broken(3, audio_embed=torch.ones(5) * 1j),
        "row 3: audio_embed is not a vector of numbers but a ndarray",
    ),
    "booleans": (broken(3, audio_embed=[True] * 5), "row 3: audio_embed is not a vector of numbers but a list of bool"),
    "ragged": (broken(3, audio_embed=[[1.0], [1.0, 2.0]]), "row 3: audio_embed is not a vector of numbers but a list"),
    "float label": (broken(4, label=1.0), r"row 4: label 1\.0 is not an integer"),
    "text label": (broken(4, label="anger"), "row 4: label 'anger' is not an integer"),
    "boolean label": (broken(4, label=True), "row 4: label True is not an integer"),
    "boolean tensor label": (broken(4, label=torch.tensor(True)), "row 4: label True is not an integer"),
    "huge label": (broken(4, label=2**70), rf"row 4: label {2**70} is out of range \(0 to 9999\)"),
    "negative label": (broken(4, label=-1), r"row 4: label -1 is out of range \(0 to 9999\)"),
}


@pytest.mark.parametrize("data, message", BAD.values(), ids=BAD)
def test_bad_rows_are_named(tmp_path, data, message):
    path = write_pickle(tmp_path / "bad.pkl", data)
    with pytest.raises(InputError, match=rf"bad\.pkl: {message}") as caught:
        load_features(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "convert",
    [
        torch.from_numpy,
        lambda v: torch.from_numpy(v)[None].requires_grad_(),
        lambda v: torch.from_numpy(v).to(torch.bfloat16).float(),
        lambda v: v[None],
        lambda v: v.astype(np.float64),
        lambda v: v.tolist(),
        lambda v: [v.tolist()],
    ],
)
def test_every_form_of_vector_gives_the_same_floats(tmp_path, convert):
    rows = make_rows(8)
    for row in rows:
        row["text_embed"] = torch.from_numpy(row["text_embed"]).to(torch.bfloat16).float().numpy()
    plain = load_features(write_pickle(tmp_path / "plain.pkl", rows))
    changed = [{**row, "text_embed": convert(row["text_embed"])} for row in rows]
    other = load_features(write_pickle(tmp_path / "other.pkl", changed))
    assert other.text.dtype == torch.float32
    assert torch.equal(plain.text, other.text)
    assert plain.text.shape == (8, 6)
    assert plain.dims == (6, 5)


@pytest.mark.parametrize("convert", [np.int64, np.uint8, torch.tensor, np.array, lambda y: torch.tensor([y])])
def test_every_form_of_label(tmp_path, convert):
    rows = make_rows(8)
    path = write_pickle(tmp_path / "x.pkl", [{**row, "label": convert(row["label"])} for row in rows])
    assert load_features(path).label.tolist() == [row["label"] for row in rows]


def splits(tmp_path, train, val):
    return {"train": write_pickle(tmp_path / "a.pkl", train), "val": write_pickle(tmp_path / "b.pkl", val)}


def test_splits_agree_on_dimensions(tmp_path):
    with pytest.raises(InputError, match=r"b\.pkl: dimensions are text 6, audio 4, but text 6, audio 5 in .*a\.pkl$"):
        load_splits(splits(tmp_path, make_rows(8), make_rows(8, dims=(6, 4))), None)


def test_swapped_embeddings_are_recognised(tmp_path):
    with pytest.raises(InputError, match=r"b\.pkl: .*; text and audio seem to be swapped"):
        load_splits(splits(tmp_path, make_rows(8), make_rows(8, dims=(5, 6))), None)


def test_label_out_of_range(tmp_path):
    with pytest.raises(InputError, match=r"b\.pkl: row 3: label 3 is out of range \(3 classes, 0 to 2\)"):
        load_splits(splits(tmp_path, make_rows(9, classes=3), make_rows(8, classes=4)), None)


def test_class_missing_from_train(tmp_path):
    rows = [row for row in make_rows(12) if row["label"] != 2]
    with pytest.raises(InputError, match=r"a\.pkl: class 2 of 4 has no utterance in train"):
        load_splits(splits(tmp_path, rows, make_rows(8)), None)
    with pytest.raises(InputError, match=r"a\.pkl: class 4 of 5 has no utterance in train"):
        load_splits(splits(tmp_path, make_rows(12), make_rows(8)), 5)


def test_real_features(iemocap_small):
    paths = {name: iemocap_small / f"IEMOCAP_BERT_WAV2VEC_{name}.pkl" for name in ("train", "val", "test")}
    loaded, classes = load_splits(paths, None)
    assert classes == 4
    assert {name: len(f) for name, f in loaded.items()} == {"train": 331, "val": 109, "test": 111}
    assert all(f.dims == (768, 768) for f in loaded.values())
    assert loaded["train"].label.bincount().tolist() == [61, 98, 104, 68]


def test_the_sha256_is_that_of_what_was_read(tmp_path, monkeypatch):
    """The file is replaced while it is being read."""
    path = write_pickle(tmp_path / "x.pkl", make_rows(8))
    read, expected = features.read_file, file_sha256(path)

    def replaced(path):
        data = read(path)
        write_pickle(path, make_rows(9))
        return data

    monkeypatch.setattr(features, "read_file", replaced)
    loaded = load_features(path)
    assert (len(loaded), loaded.sha256) == (8, expected)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded on Linux only")
@pytest.mark.parametrize("content", [b"\x80\x04Nr\xff\xff\xff\xff.", b"\x80\x04K\x01p99999999999\n."])
def test_a_pickle_that_asks_for_any_amount_of_memory_is_one_line(tmp_path, content):
    """The memo of the unpickler is as long as the largest index in the file."""
    (tmp_path / "x.pkl").write_bytes(content)
    with pytest.raises(
        InputError, match=r"x\.pkl: needs more memory than is available, or more than a file of \d+ bytes should need"
    ):
        load_features(tmp_path / "x.pkl")


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded on Linux only")
def test_rows_that_share_one_long_vector_are_not_multiplied(tmp_path, monkeypatch):
    monkeypatch.setattr(features, "MEMORY", 100 << 20)
    vector = np.ones(1_000_000, np.float32)
    rows = [{"text_embed": vector, "audio_embed": vector, "label": i % 2} for i in range(1000)]
    with pytest.raises(
        InputError, match=r"x\.pkl: needs more memory than is available, or more than a file of \d+ bytes should need"
    ):
        load_features(write_pickle(tmp_path / "x.pkl", rows))
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY


def test_labels_that_cannot_be_printed_are_named(tmp_path):
    for label in (10**5000, -(10**5000), ["\x1b[2J" * 100], "\x1b[2J"):
        with pytest.raises(InputError, match=r"x\.pkl: row 3: label .*(out of range|not an integer)") as caught:
            load_features(write_pickle(tmp_path / "x.pkl", broken(3, label=label)))
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 300


def test_one_class_is_no_classification(tmp_path):
    paths = write_splits(tmp_path, train=[{**row, "label": 0} for row in make_rows(8)])
    with pytest.raises(InputError, match=r"train\.pkl: every label is 0; at least two classes are required"):
        load_splits(paths, None)


def test_one_file_as_two_splits_is_refused(tmp_path):
    paths = write_splits(tmp_path)
    with pytest.raises(InputError, match=r"train\.pkl: the test split has the same utterances as train \(.*train\.pkl"):
        check_disjoint(load_splits({**paths, "test": paths["train"]}, None)[0])
    again = [{**row, "audio_embed": torch.from_numpy(row["audio_embed"])} for row in make_rows(20, seed=0)[::-1]]
    with pytest.raises(InputError, match=r"val\.pkl: the val split has the same utterances as train \(.*train\.pkl"):
        check_disjoint(load_splits(write_splits(tmp_path, val=again), None)[0])


def test_utterances_in_two_splits_are_counted(tmp_path, capsys):
    paths = write_splits(tmp_path, test=[*make_rows(8, seed=7), *make_rows(20, seed=0)[:3]])
    check_disjoint(load_splits(paths, None)[0])
    assert capsys.readouterr().out == f"note: 3 of 11 utterances of {paths['test']} are also in {paths['train']}\n"


def info_of(**changes) -> dict:
    """The part of the JSON next to feature pickles that is checked."""
    encoder = {"name": "x", "revision": None, "pooling": "mean", "weights_sha256": "0"}
    info = {"class_names": ["a", "b"], "encoders": {"text": encoder, "audio": encoder}, "leakage": {}}
    return info | {"files": {split: {} for split in SPLITS}} | changes


@pytest.mark.parametrize(
    "encoders", [None, {}, {"text": {}, "audio": {}}, {"text": info_of()["encoders"]["text"]}, {"text": 1, "audio": 2}]
)
def test_encoders_that_are_not_described_are_refused(tmp_path, encoders):
    path = tmp_path / "TOY_BERT_WAV2VEC.json"
    path.write_text(json.dumps(info_of()))
    assert read_info(tmp_path / "TOY_BERT_WAV2VEC_train.pkl") == info_of()
    path.write_text(json.dumps(info_of(encoders=encoders)))
    with pytest.raises(
        InputError, match=r"TOY_BERT_WAV2VEC\.json: (not written by|the description of its encoders is invalid)"
    ):
        read_info(tmp_path / "TOY_BERT_WAV2VEC_train.pkl")


@pytest.mark.parametrize("names", [["a"], ["a", "a"], ["a", 1], "ab", ["a", "b\x1b[2J"], [["a"], "b"], None])
def test_class_names_that_are_not_texts_are_refused(tmp_path, names):
    (tmp_path / "TOY_BERT_WAV2VEC.json").write_text(json.dumps(info_of(class_names=names)))
    with pytest.raises(InputError, match=r"TOY_BERT_WAV2VEC\.json: invalid class names: ") as caught:
        read_info(tmp_path / "TOY_BERT_WAV2VEC_train.pkl")
    assert str(caught.value).isprintable()
