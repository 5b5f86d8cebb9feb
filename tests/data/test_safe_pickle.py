import io
import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from utils.data.safe_pickle import load_pickle
from utils.errors import InputError


class Trap:
    """Calls ``call`` when unpickled by plain pickle; os.mkdir stands for any code."""

    def __init__(self, call, *args):
        self.call, self.args = call, args

    def __reduce__(self):
        return self.call, self.args


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_of_every_protocol(tmp_path, protocol):
    data = [
        {
            "list": [1.0, 2.0],
            "array": np.arange(3, dtype=np.float32),
            "scalar": np.int64(3),
            "tensor": torch.arange(4.0),
            "half": torch.arange(4).half(),
            "label": torch.tensor(2),
        },
        OrderedDict(a=(True, None, "x")),
    ]
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(data, protocol))
    loaded = load_pickle(path)
    assert loaded[0]["list"] == [1.0, 2.0]
    assert loaded[0]["scalar"] == 3
    assert np.array_equal(loaded[0]["array"], data[0]["array"])
    for name in ("tensor", "half", "label"):
        assert torch.equal(loaded[0][name], data[0][name])
    assert loaded[1] == data[1]


@pytest.mark.parametrize(
    "call, name",
    [(os.mkdir, "mkdir"), (os.system, "system"), (eval, "eval"), (exec, "exec"), (getattr, "getattr")],
)
def test_code_is_refused_by_name_and_does_not_run(tmp_path, call, name):
    witness = tmp_path / "ran"
    args = {"mkdir": (str(witness),), "getattr": ("x", "upper")}.get(name, (f"mkdir {witness}",))
    if name in ("eval", "exec"):
        args = (f"__import__('os').mkdir({str(witness)!r})",)
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps([{"text_embed": Trap(call, *args)}]))
    with pytest.raises(InputError, match=rf"{path}: refused: it asks for \w+\.{name}.*nothing in it was run"):
        load_pickle(path)
    assert not witness.exists()
    pickle.loads(path.read_bytes())  # the trap works
    assert witness.exists() or name == "getattr"


def test_code_inside_a_tensor_storage_does_not_run(tmp_path):
    """torch pickles a storage as torch.save bytes and loads them with weights_only=False."""
    witness = tmp_path / "ran"
    inner = io.BytesIO()
    torch.save(Trap(os.mkdir, str(witness)), inner)
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps([Trap(torch.storage._load_from_bytes, inner.getvalue())]))
    with pytest.raises(InputError, match=r"evil\.pkl"):
        load_pickle(path)
    assert not witness.exists()
    pickle.loads(path.read_bytes())
    assert witness.exists()


def test_code_inside_an_object_array_does_not_run(tmp_path):
    witness = tmp_path / "ran"
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps(np.array([Trap(os.mkdir, str(witness))], dtype=object)))
    with pytest.raises(InputError, match=r"evil\.pkl: refused: (an array of 'O8'|it asks for \w+\.mkdir)"):
        load_pickle(path)
    assert not witness.exists()


def test_a_dtype_does_not_take_flags_from_the_file(tmp_path):
    """With a real dtype, this file creates an array of arbitrary pointers and crashes the process."""
    rebuild, (_, _, shape, order), *_ = np.zeros(1).__reduce_ex__(5)
    for code in ("O", "V8"):
        dtype = Trap(np.dtype, code, False, True)
        dtype.__class__ = type("Stateful", (Trap,), {"__reduce__": lambda self: (*Trap.__reduce__(self), STATE)})
        path = tmp_path / "evil.pkl"
        path.write_bytes(pickle.dumps([Trap(rebuild, b"A" * 8, dtype, shape, order)]))
        with pytest.raises(InputError, match=rf"evil\.pkl: refused: an array of '{code}' is not allowed"):
            load_pickle(path)


STATE = (3, "|", None, None, None, -1, -1, 0)


@pytest.mark.parametrize(
    "array", [np.arange(6, dtype=">f4").reshape(2, 3), np.asfortranarray(np.arange(6.0).reshape(2, 3))]
)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_byte_order_and_memory_order_survive(tmp_path, array, protocol):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps((array,), protocol))
    assert np.array_equal(load_pickle(tmp_path / "x.pkl")[0], array)


def test_tensors_that_were_pickled_on_a_gpu_come_to_the_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.serialization.location_tag", lambda storage: "cuda:0")
    data = pickle.dumps([torch.arange(3.0)])
    assert b"cuda:0" in data
    (tmp_path / "gpu.pkl").write_bytes(data)
    assert load_pickle(tmp_path / "gpu.pkl")[0].tolist() == [0.0, 1.0, 2.0]


def test_other_codecs_are_refused(tmp_path):
    path = tmp_path / "evil.pkl"
    path.write_bytes(b"c_codecs\nencode\n(Vabc\nVrot13\ntR.")
    with pytest.raises(InputError, match=r"codec 'rot13' is not allowed"):
        load_pickle(path)


def test_truncated_at_any_byte_is_one_line(tmp_path):
    whole = pickle.dumps([{"text_embed": torch.arange(3.0), "audio_embed": np.ones(2), "label": 1}])
    path = tmp_path / "cut.pkl"
    for length in range(len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"cut\.pkl: not a complete pickle") as caught:
            load_pickle(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not a pickle", b"PK\x03\x04", bytes(range(256))])
def test_other_files_are_one_line(tmp_path, content):
    path = tmp_path / "other.pkl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"other\.pkl: (not a complete pickle|refused)"):
        load_pickle(path)


def test_a_memory_bomb_is_one_line(tmp_path):
    path = tmp_path / "bomb.pkl"
    rebuild, args, _ = np.zeros(1).__reduce__()
    bomb = Trap(rebuild, args[0], (1 << 60,), args[2])
    path.write_bytes(pickle.dumps([bomb]))
    with pytest.raises(InputError, match=r"bomb\.pkl: not a complete pickle"):
        load_pickle(path)


def test_missing_file():
    with pytest.raises(InputError, match=r"nowhere\.pkl: no such file"):
        load_pickle(Path("nowhere.pkl"))
