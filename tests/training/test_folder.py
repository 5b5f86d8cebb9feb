import pytest
import torch

from utils.errors import InputError
from utils.io import read_json
from utils.training.folder import claim_folder, load_checkpoint

OTHER = {"path": "u.pkl", "sha256": "1", "utterances": 9}


def describe(**changes) -> dict:
    run = {
        "config": {"lr": 0.1, "epochs": 5},
        "seed": 3,
        "class_names": ["a", "b"],
        "data": {"train": {"path": "t.pkl", "sha256": "0", "utterances": 9}},
    }
    return run | changes


def test_the_same_run_is_let_in_and_its_file_stays(tmp_path):
    claim_folder(tmp_path, describe(command="first"))
    claim_folder(tmp_path, describe(command="second"))
    assert read_json(tmp_path / "config.json")["command"] == "first"


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"config": {"lr": 0.2, "epochs": 5}}, r"lr was 0\.1, now 0\.2"),
        ({"config": {"lr": 0.1}}, r"epochs was 5, now \(missing\)"),
        ({"data": {"train": OTHER}}, r"the train data is different \(u\.pkl\)"),
        ({"class_names": ["b", "a"]}, "the classes were a, b, now b, a"),
        ({"seed": 4}, "the seed was 3, now 4"),
    ],
)
def test_another_run_is_refused_and_nothing_is_changed(tmp_path, changes, message):
    claim_folder(tmp_path, describe())
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(InputError, match=rf"{tmp_path}: contains a run with another configuration \({message}\)"):
        claim_folder(tmp_path, describe(**changes))
    assert (tmp_path / "config.json").read_bytes() == before


@pytest.mark.parametrize("content", ["{", "[]", '{"x": 1}'])
def test_a_foreign_config_is_refused(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match=r"config\.json"):
        claim_folder(tmp_path, describe())


def test_what_is_not_our_checkpoint_is_said(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"layer.weight": torch.ones(2)}, path)
    with pytest.raises(InputError, match=r"x\.pt: a plain state dict; .*--profile official"):
        load_checkpoint(path)
    torch.save({"weights": {}, "config": {}}, path)
    with pytest.raises(InputError, match=r"x\.pt: not a checkpoint of train\.py, 'seed' is missing"):
        load_checkpoint(path)
    torch.save([1], path)
    with pytest.raises(InputError, match=r"x\.pt: expected a dict, found a list"):
        load_checkpoint(path)
