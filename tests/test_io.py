import json
import stat

import pytest

from utils.errors import InputError
from utils.io import atomic_write, read_json


def test_atomic_write_replaces_whole(tmp_path):
    path = tmp_path / "new" / "x.bin"
    atomic_write(path, b"one")
    atomic_write(path, b"two")
    assert path.read_bytes() == b"two"
    assert [p.name for p in path.parent.iterdir()] == ["x.bin"]
    assert stat.S_IMODE(path.stat().st_mode) & 0o400


def test_atomic_write_that_fails_leaves_the_old_file_and_no_scrap(tmp_path, monkeypatch):
    path = tmp_path / "x.bin"
    atomic_write(path, b"old")

    def full(self, data):
        with self.open("wb") as file:
            file.write(data[:2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OSError, match=r"No space left on device: .*x\.bin"):
        atomic_write(path, b"newer")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.bin"]


def test_json_without_an_object(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps([1]))
    with pytest.raises(InputError, match="expected a JSON object, found a list"):
        read_json(tmp_path / "x.json")
