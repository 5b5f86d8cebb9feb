import io
import os
import pickle
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from utils.data import safe_pickle
from utils.data.safe_pickle import load_tensors
from utils.errors import InputError
from utils.io import read_file


def load_pickle(path: Path) -> object:
    return safe_pickle.load_pickle(read_file(path), path)


class Trap:
    """Calls ``call`` when plain pickle loads it. os.mkdir represents any code."""

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
    with pytest.raises(InputError, match=rf"{path}: refused: it requests \w+\.{name}.*nothing in it was executed"):
        load_pickle(path)
    assert not witness.exists()
    pickle.loads(path.read_bytes())  # plain pickle runs the code
    assert witness.exists() or name == "getattr"


def test_code_inside_a_tensor_storage_does_not_run(tmp_path):
    """torch pickles a storage as torch.save bytes, and loads them with weights_only=False."""
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
    with pytest.raises(InputError, match=r"evil\.pkl: refused: (an array of 'O8'|it requests \w+\.mkdir)"):
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


def test_checkpoint_that_would_run_code_is_refused(tmp_path):
    path, witness = tmp_path / "evil.pt", tmp_path / "ran"
    torch.save({"weights": Trap(os.mkdir, str(witness))}, path)
    with pytest.raises(InputError, match=r"evil\.pt: refused.*nothing in it was executed"):
        load_tensors(path)
    assert not witness.exists()
    torch.load(path, weights_only=False)
    assert witness.exists()


def test_plain_pickle_as_checkpoint_is_refused(tmp_path):
    path, witness = tmp_path / "evil.pt", tmp_path / "ran"
    path.write_bytes(pickle.dumps({"weights": Trap(os.mkdir, str(witness))}, protocol=2))
    with pytest.raises(InputError, match=r"evil\.pt"):
        load_tensors(path)
    assert not witness.exists()


def test_damaged_checkpoints_are_one_line(tmp_path):
    path = tmp_path / "cut.pt"
    torch.save({"weights": torch.ones(1000)}, path)
    whole = path.read_bytes()
    for length in (0, 1, 10, len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"cut\.pt: (not a complete|refused)") as caught:
            load_tensors(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"nowhere\.pt: no such file"):
        load_tensors(tmp_path / "nowhere.pt")


def of_storage(count: int, offset: object, size: tuple, stride: tuple) -> Trap:
    """A tensor with this geometry in a storage of ``count`` values."""
    return Trap(
        torch._utils._rebuild_tensor_v2, torch.arange(count).storage(), offset, size, stride, False, OrderedDict()
    )


GEOMETRIES = {
    "longer": (3, 0, (1000,), (1,)),
    "behind": (3, 2, (2,), (1,)),
    "stride": (3, 0, (2,), (5,)),
    "expanded": (3, 0, (1 << 40,), (0,)),
    "negative": (3, -1, (2,), (1,)),
}


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_a_tensor_beyond_its_storage_is_refused_in_both_formats(tmp_path, geometry):
    """torch would enlarge the storage with the contents of uninitialised memory."""
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps([of_storage(*geometry)]))
    with pytest.raises(
        InputError, match=r"x\.pkl: not a complete pickle \(a tensor of shape .* in a storage of 3 values"
    ):
        load_pickle(path)
    torch.save({"x": of_storage(*geometry)}, tmp_path / "x.pt")
    with pytest.raises(
        InputError, match=r"x\.pt: (contains a tensor .*larger than its contents|not a complete checkpoint)"
    ):
        load_tensors(tmp_path / "x.pt")


def test_views_and_empty_tensors_are_read(tmp_path):
    whole = torch.arange(12.0).view(3, 4)
    data = {"column": whole[:, 1], "turned": whole.T, "empty": whole[:0], "single": torch.tensor(2.0)}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(data))
    torch.save(data, tmp_path / "x.pt")
    for loaded in (load_pickle(tmp_path / "x.pkl"), load_tensors(tmp_path / "x.pt")):
        assert all(torch.equal(loaded[name], data[name]) for name in data)


def test_an_array_with_a_number_for_contents_is_refused(tmp_path):
    """``bytes(10**12)`` would create a terabyte of zeros."""
    for call in (np._core.numeric._frombuffer, np.frombuffer):
        rebuild, args, state = np.zeros(1).__reduce__()
        bomb = Trap(call, 10**12, np.dtype("f8"), (1,), "C")
        (tmp_path / "x.pkl").write_bytes(pickle.dumps([bomb], protocol=5))
        with pytest.raises(InputError, match=r"x\.pkl: (not a complete pickle|refused)"):
            load_pickle(tmp_path / "x.pkl")

    class Array(np.ndarray):
        def __reduce__(self):
            return rebuild, args, (*state[:-1], 10**12)

    bomb = pickle.dumps(np.zeros(1).view(Array), protocol=2)
    (tmp_path / "x.pkl").write_bytes(bomb)
    with pytest.raises(InputError, match=r"an array with the contents 1000000000000"):
        load_pickle(tmp_path / "x.pkl")


def test_names_that_a_file_asks_for_reach_the_terminal_escaped(tmp_path):
    (tmp_path / "x.pkl").write_bytes(b"c\x1b[2Jmodule\nname\n.")
    with pytest.raises(InputError, match=r"it requests \\x1b\[2Jmodule\.name"):
        load_pickle(tmp_path / "x.pkl")


def test_every_flipped_bit_of_a_checkpoint_is_found_or_changes_nothing(tmp_path):
    data = {"weights": {"bias": torch.arange(6.0), "steps": torch.tensor(3)}, "epoch": 7}
    torch.save(data, tmp_path / "x.pt")
    whole, rng, named = (tmp_path / "x.pt").read_bytes(), np.random.default_rng(0), 0
    for position in range(0, len(whole), 3):
        content = bytearray(whole)
        content[position] ^= 16 if position % 2 else 1 << int(rng.integers(8))  # 16 can turn a record into a folder
        (tmp_path / "y.pt").write_bytes(content)
        try:
            loaded = load_tensors(tmp_path / "y.pt")
        except InputError as error:
            named += "has a wrong checksum" in str(error)
            continue
        assert loaded["epoch"] == 7
        assert all(torch.equal(loaded["weights"][name], tensor) for name, tensor in data["weights"].items())
    assert named > 100
    content = bytearray(whole)
    content[whole.index(np.float32(5).tobytes())] ^= 1
    (tmp_path / "y.pt").write_bytes(content)
    with pytest.raises(InputError, match=r"y\.pt: damaged: its record x/data/0 has a wrong checksum"):
        load_tensors(tmp_path / "y.pt")


def test_a_compressed_record_is_refused_before_it_is_unpacked(tmp_path):
    torch.save({"x": torch.zeros(10**6)}, tmp_path / "x.pt")
    with (
        zipfile.ZipFile(tmp_path / "x.pt") as old,
        zipfile.ZipFile(tmp_path / "y.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert (tmp_path / "y.pt").stat().st_size < 10_000
    with pytest.raises(InputError, match=r"y\.pt: not a file of torch\.save: its record x/data\.pkl is compressed"):
        load_tensors(tmp_path / "y.pt")


def test_the_format_before_torch_1_6_which_has_no_checksums_is_refused(tmp_path):
    torch.save({"x": torch.zeros(3)}, tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(InputError, match=r"x\.pt: not a complete checkpoint \(not a zip file"):
        load_tensors(tmp_path / "x.pt")


NOT_DENSE = {
    "sparse": lambda: torch.eye(3).to_sparse(),
    "meta": lambda: torch.zeros(3, device="meta"),
    "quantised": lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
}


@pytest.mark.filterwarnings("error")
def test_a_sparse_tensor_is_refused_without_a_warning_of_torch(tmp_path):
    torch.save({"x": torch.eye(3).to_sparse()}, tmp_path / "x.pt")
    with pytest.raises(InputError, match=r"x\.pt: contains a tensor that is not dense"):
        load_tensors(tmp_path / "x.pt")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("make", NOT_DENSE.values(), ids=NOT_DENSE)
def test_tensors_that_are_not_dense_are_refused(tmp_path, make):
    torch.save({"x": [({"y": make()},)]}, tmp_path / "x.pt")
    with pytest.raises(InputError, match=r"x\.pt: (contains a tensor that is not dense|refused|not a complete)"):
        load_tensors(tmp_path / "x.pt")


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded on Linux only")
def test_a_checkpoint_that_asks_for_any_amount_of_memory_is_one_line(tmp_path):
    torch.save({"x": Trap(bytearray, 1 << 45)}, tmp_path / "x.pt")
    with pytest.raises(
        InputError, match=r"x\.pt: needs more memory than is available, or more than a file of \d+ bytes should need"
    ):
        load_tensors(tmp_path / "x.pt")


def test_a_deeply_nested_checkpoint_with_a_circle_is_read(tmp_path):
    nested = [torch.ones(1)]
    nested.append(nested)
    for _ in range(300):
        nested = [nested]
    torch.save({"x": nested}, tmp_path / "x.pt")
    assert len(load_tensors(tmp_path / "x.pt")) == 1


def test_keys_that_are_no_names_are_refused(tmp_path):
    torch.save({1: torch.ones(1)}, tmp_path / "x.pt")
    with pytest.raises(InputError, match=r"x\.pt: expected strings as keys, found 1"):
        load_tensors(tmp_path / "x.pt")
