import errno
import hashlib
import json
import os
import resource
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from utils.config import ROOT
from utils.errors import InputError
from utils.io import atomic_write, bounded_memory, exclusive, file_sha256, lock, read_file, read_json


def test_atomic_write_replaces_whole(tmp_path):
    path = tmp_path / "new" / "x.bin"
    atomic_write(path, b"one")
    atomic_write(path, b"two")
    assert path.read_bytes() == b"two"
    assert [p.name for p in path.parent.iterdir()] == ["x.bin"]
    assert stat.S_IMODE(path.stat().st_mode) & 0o400


def test_atomic_write_that_fails_leaves_the_old_file_and_no_scrap(tmp_path):
    path = tmp_path / "x.bin"
    atomic_write(path, b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OSError, match=r"File too large: .*/x\.bin'"):
            atomic_write(path, bytes(200_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.bin"]


def test_what_a_killed_write_leaves_is_used_by_the_next(tmp_path):
    path = tmp_path / "x.bin"
    script = "import os, sys; from utils import io; io.os.path.samestat = lambda *_: os.kill(os.getpid(), 9)"
    script += f"; io.atomic_write(io.Path({str(path)!r}), b'new')"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT).returncode == -9
    (left,) = tmp_path.iterdir()
    left.write_bytes(b"the half of something longer")
    atomic_write(tmp_path / "y.bin", b"new")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("y.bin", b"new")]


def test_several_writers_of_one_folder_do_not_mix(tmp_path):
    contents = [bytes([i]) * 50_000 for i in range(8)]

    def write(data: bytes) -> None:
        for _ in range(20):
            atomic_write(tmp_path / "shared.bin", data)
            atomic_write(tmp_path / f"{data[0]}.bin", data)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, contents))
    assert (tmp_path / "shared.bin").read_bytes() in contents
    assert [(tmp_path / f"{i}.bin").read_bytes() for i in range(8)] == contents
    assert len(list(tmp_path.iterdir())) == 9


def test_json_without_an_object(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps([1]))
    with pytest.raises(InputError, match="expected a JSON object, found a list"):
        read_json(tmp_path / "x.json")


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999", "1" + "0" * 400, "9" * 5000])
def test_json_with_a_number_that_is_not_finite(tmp_path, number):
    (tmp_path / "x.json").write_text(f'{{"a": [{number}]}}')
    with pytest.raises(InputError, match=f"the number {number[:20]} is not finite"):
        read_json(tmp_path / "x.json")


def test_json_numbers_keep_their_type(tmp_path):
    (tmp_path / "x.json").write_text('{"a": [1, -2, 3.0, 1e3]}')
    assert list(map(repr, read_json(tmp_path / "x.json")["a"])) == ["1", "-2", "3.0", "1000.0"]


def test_what_is_no_regular_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(InputError, match=f"^{path}: not a regular file$"):
            read_file(path)
    with pytest.raises(InputError, match="nowhere: no such file"):
        read_file(tmp_path / "nowhere")


def test_an_error_of_the_disk_names_the_file(tmp_path, monkeypatch):
    def broken(self):
        raise OSError(errno.EIO, "Input/output error")

    (tmp_path / "x").write_bytes(b"x")
    monkeypatch.setattr("pathlib.Path.read_bytes", broken)
    with pytest.raises(OSError, match="Input/output error") as caught:
        read_file(tmp_path / "x")
    assert caught.value.filename == str(tmp_path / "x")


def test_a_file_of_several_blocks_has_the_hash_of_its_contents(tmp_path):
    (tmp_path / "x").write_bytes(b"abc" * 10**6)
    assert file_sha256(tmp_path / "x") == hashlib.sha256(b"abc" * 10**6).hexdigest()


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[" * 10**5, b"1" * 10_000, b""])
def test_damaged_json_is_one_line(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.json: not JSON"):
        read_json(tmp_path / "x.json")


def test_one_process_at_a_time(tmp_path):
    path = tmp_path / "new" / "run"
    with exclusive(path):
        with lock(path) as mine:
            assert not mine
        with pytest.raises(InputError, match=f"^{path}: another command is writing it$"), exclusive(path):
            pass
    with lock(path) as mine:
        assert mine


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded on Linux only")
def test_memory_is_bounded_inside_the_block_alone():
    with pytest.raises(MemoryError), bounded_memory(1 << 28):
        bytearray(1 << 29)
    assert len(bytearray(1 << 29)) == 1 << 29
