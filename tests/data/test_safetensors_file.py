import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import ROOT, environment
from utils.data.safe_pickle import load_tensors, save_tensors
from utils.errors import InputError

DATA = {
    "weights": {"bias": torch.arange(6.0), "steps": torch.tensor(3), "half": torch.ones(2, 3).bfloat16()},
    "empty": torch.zeros(4, 0, dtype=torch.int32),
    "encoders": {},
    "utterances": {"audio_file": ["a/\u00fc.wav", "b\udcff.wav"], "label": [3, 0], "speaker": None},
    "temperature": 1.0,
    "lr": 1e-4,
    "epoch": 7,
}


def same(one: object, other: object) -> bool:
    if isinstance(one, dict):
        return isinstance(other, dict) and list(one) == list(other) and all(same(one[k], other[k]) for k in one)
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    return (type(one), one) == (type(other), other)


def sorted_by_name(data: object) -> object:
    return {name: sorted_by_name(data[name]) for name in sorted(data)} if isinstance(data, dict) else data


def test_what_is_written_is_read(tmp_path):
    """Includes tensors that share memory and tensors that are not contiguous."""
    whole = torch.arange(12.0).view(3, 4)
    data = {**DATA, "column": whole[:, 1], "turned": whole.T, "same": whole}
    save_tensors(tmp_path / "x.safetensors", data)
    assert same(sorted_by_name(load_tensors(tmp_path / "x.safetensors")), sorted_by_name(data))
    assert load_file(tmp_path / "x.safetensors").keys() == {
        *(f"weights/{name}" for name in DATA["weights"]),
        *("empty", "column", "turned", "same"),
    }


def test_every_process_writes_the_same_bytes(tmp_path):
    script = (
        "import sys, torch; from pathlib import Path; from utils.data.safe_pickle import save_tensors\n"
        "save_tensors(Path(sys.argv[1]), {'a': torch.ones(2), 'b': {'c': torch.ones(3)}, 'd': 1, 'e': [2]})"
    )
    found = set()
    for i in range(4):
        path = tmp_path / f"{i}.safetensors"
        subprocess.run([sys.executable, "-c", script, path], cwd=ROOT, env=environment(), check=True)
        found.add(path.read_bytes())
    assert len(found) == 1


def test_every_flipped_bit_is_found_or_changes_nothing(tmp_path):
    save_tensors(tmp_path / "x.safetensors", DATA)
    whole, rng, found = (tmp_path / "x.safetensors").read_bytes(), np.random.default_rng(0), 0
    for position in range(len(whole)):
        content = bytearray(whole)
        content[position] ^= 1 << int(rng.integers(8))
        (tmp_path / "y.safetensors").write_bytes(content)
        try:
            loaded = load_tensors(tmp_path / "y.safetensors")
        except InputError as error:
            assert str(error).startswith(f"{tmp_path / 'y.safetensors'}: ")
            assert "\n" not in str(error)
            found += 1
            continue
        assert same(sorted_by_name(loaded), sorted_by_name(DATA)), position
    assert found > 0.9 * len(whole)
    content = bytearray(whole)
    content[whole.index(np.float32(5).tobytes())] ^= 1
    (tmp_path / "y.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=r"y\.safetensors: damaged: its checksum is wrong"):
        load_tensors(tmp_path / "y.safetensors")


def test_truncated_at_any_byte_is_one_line(tmp_path):
    save_tensors(tmp_path / "x.safetensors", DATA)
    whole = (tmp_path / "x.safetensors").read_bytes()
    for length in range(len(whole)):
        (tmp_path / "y.safetensors").write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"y\.safetensors: not a complete checkpoint") as caught:
            load_tensors(tmp_path / "y.safetensors")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "metadata, message",
    [
        (None, "its metadata has no entry cemobam; not a file of predict.py --export"),
        ({"format": "pt"}, "its metadata has no entry cemobam; not a file of predict.py --export"),
        ({"cemobam": "{'data'"}, r"its metadata: not JSON \("),
        ({"cemobam": "[" * 10**5}, r"its metadata: not JSON \("),
        ({"cemobam": '{"data": {"a": NaN}}'}, r"its metadata: not JSON \(the number NaN is not finite"),
        ({"cemobam": "[1]"}, "its metadata: expected a JSON object, found a list"),
        ({"cemobam": '{"data": [1]}'}, "damaged: its checksum is wrong"),
        ({"cemobam": '{"data": {}, "sha256": "0"}'}, "damaged: its checksum is wrong"),
    ],
)
def test_other_metadata_is_one_line(tmp_path, metadata, message):
    save_file({"x": torch.ones(3)}, tmp_path / "x.safetensors", metadata)
    with pytest.raises(InputError, match=rf"x\.safetensors: {message}"):
        load_tensors(tmp_path / "x.safetensors")


@pytest.mark.parametrize("names", [("x", {"x": 1}), ("x/y", {"x": {"y": 1}}), ("x/y", {"x": 1}), ("x/y", {})])
def test_a_tensor_in_the_place_of_something_else_is_refused(tmp_path, monkeypatch, names):
    name, data = names
    monkeypatch.setattr("utils.data.safetensors_file._digest", lambda *args: "0")
    text = json.dumps({"data": data, "sha256": "0"})
    save_file({name: torch.ones(3)}, tmp_path / "x.safetensors", {"cemobam": text})
    with pytest.raises(InputError, match=r"x\.safetensors: (x(/y)? is both a tensor and in|not a complete checkpoint)"):
        load_tensors(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    "data", [{"x": [torch.ones(1)]}, {"x/y": 1}, {"x": {1: 2}}, {"x": float("nan")}, {"x": {1, 2}}]
)
def test_what_would_not_come_back_is_not_written(tmp_path, data):
    with pytest.raises((TypeError, ValueError)):
        save_tensors(tmp_path / "x.safetensors", data)
    assert not (tmp_path / "x.safetensors").exists()


def test_a_pickle_with_the_name_of_a_safetensors_file_is_not_unpickled(tmp_path):
    torch.save({"x": torch.ones(1)}, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match=r"x\.safetensors: not a complete checkpoint"):
        load_tensors(tmp_path / "x.safetensors")
