import os
import pickle

import pytest
import torch

from utils.errors import InputError
from utils.io import read_json
from utils.training.folder import claim_folder, load_checkpoint, load_weights_file


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def describe(**changes) -> dict:
    run = {
        "config": {"lr": 0.1, "epochs": 5},
        "seed": 3,
        "class_names": ["a", "b"],
        "data": {"train": {"path": "t.pkl", "sha256": "0"}},
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
        ({"config": {"lr": 0.1}}, r"epochs was 5, now \(not there\)"),
        ({"data": {"train": {"path": "u.pkl", "sha256": "1"}}}, r"the train data is another \(u\.pkl\)"),
        ({"class_names": ["b", "a"]}, "the classes were a, b, now b, a"),
        ({"seed": 4}, "the seed was 3, now 4"),
    ],
)
def test_another_run_is_refused_and_nothing_is_changed(tmp_path, changes, message):
    claim_folder(tmp_path, describe())
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(InputError, match=rf"{tmp_path}: holds a run of another configuration \({message}\)"):
        claim_folder(tmp_path, describe(**changes))
    assert (tmp_path / "config.json").read_bytes() == before


@pytest.mark.parametrize("content", ["{", "[]", '{"x": 1}'])
def test_a_foreign_config_is_refused(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match=r"config\.json"):
        claim_folder(tmp_path, describe())


def test_checkpoint_that_would_run_code_is_refused(tmp_path):
    path, witness = tmp_path / "evil.pt", tmp_path / "ran"
    torch.save({"weights": Trap(witness)}, path)
    with pytest.raises(InputError, match=r"evil\.pt: refused.*nothing in it was run"):
        load_weights_file(path)
    assert not witness.exists()
    torch.load(path, weights_only=False)
    assert witness.exists()


def test_plain_pickle_as_checkpoint_is_refused(tmp_path):
    path, witness = tmp_path / "evil.pt", tmp_path / "ran"
    path.write_bytes(pickle.dumps({"weights": Trap(witness)}, protocol=2))
    with pytest.raises(InputError, match=r"evil\.pt"):
        load_weights_file(path)
    assert not witness.exists()


def test_damaged_checkpoints_are_one_line(tmp_path):
    path = tmp_path / "cut.pt"
    torch.save({"weights": torch.ones(1000)}, path)
    whole = path.read_bytes()
    for length in (0, 1, 10, len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"cut\.pt: (not a complete|refused)") as caught:
            load_weights_file(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"nowhere\.pt: no such file"):
        load_weights_file(tmp_path / "nowhere.pt")


def test_what_is_not_our_checkpoint_is_said(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"layer.weight": torch.ones(2)}, path)
    with pytest.raises(InputError, match=r"x\.pt: a plain state dict; .*--profile official"):
        load_checkpoint(path)
    torch.save({"weights": {}, "config": {}}, path)
    with pytest.raises(InputError, match=r"x\.pt: not a checkpoint of train\.py, 'class_names' is missing"):
        load_checkpoint(path)
    torch.save([1], path)
    with pytest.raises(InputError, match=r"x\.pt: expected a dict, found a list"):
        load_checkpoint(path)
