import os
from pathlib import Path

import numpy as np
import pytest
import torch

from utils.errors import InputError
from utils.extraction import embedding_cache
from utils.extraction.embedding_cache import EmbeddingCache


def vector(value):
    return np.full(3, value, dtype=np.float32)


def test_what_was_saved_is_there_again(tmp_path):
    cache = EmbeddingCache(tmp_path / "cache", 3)
    cache.add("a", vector(1))
    cache.add("ü|7", vector(2))
    cache.save()
    again = EmbeddingCache(tmp_path / "cache", 3)
    assert len(again) == 2
    assert "a" in again
    assert "b" not in again
    assert np.array_equal(again["ü|7"], vector(2))


def test_two_processes_add_to_one_folder(tmp_path):
    first, second = EmbeddingCache(tmp_path, 3), EmbeddingCache(tmp_path, 3)
    first.add("a", vector(1))
    second.add("b", vector(2))
    first.save()
    second.save()
    both = EmbeddingCache(tmp_path, 3)
    assert np.array_equal(both["a"], vector(1))
    assert np.array_equal(both["b"], vector(2))


def test_it_saves_by_itself_now_and_then(tmp_path, monkeypatch):
    monkeypatch.setattr(embedding_cache, "SAVE_SECONDS", 0)
    EmbeddingCache(tmp_path, 3).add("a", vector(1))
    assert "a" in EmbeddingCache(tmp_path, 3)


def test_nothing_new_writes_no_file(tmp_path):
    cache = EmbeddingCache(tmp_path, 3)
    cache.save()
    assert not list(tmp_path.iterdir())
    cache.add("a", vector(1))
    cache.save()
    cache.save()
    assert len(list(tmp_path.iterdir())) == 1


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_nothing_in_a_file_of_the_cache_is_run(tmp_path):
    (tmp_path / "cache").mkdir()
    torch.save({"keys": [Evil(tmp_path / "ran")], "vectors": torch.zeros(1, 3)}, tmp_path / "cache" / "a.pt")
    with pytest.raises(InputError, match=r"a\.pt: refused.*nothing in it was executed; remove this file"):
        EmbeddingCache(tmp_path / "cache", 3)
    assert not (tmp_path / "ran").exists()


def test_a_flipped_bit_is_found(tmp_path):
    cache = EmbeddingCache(tmp_path, 3)
    cache.add("a", np.array([1, 2, 3], np.float32))
    cache.save()
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[content.index(np.float32(3).tobytes())] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"damaged: its record .*data/0 has a wrong checksum; remove this file"):
        EmbeddingCache(tmp_path, 3)


def test_a_pipe_in_the_cache_is_named_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.pt")
    with pytest.raises(InputError, match=r"a\.pt: not a regular file; remove this file"):
        EmbeddingCache(tmp_path, 3)


def test_a_long_key_does_not_make_the_others_wide(tmp_path):
    """A transcript may have 100 000 characters."""
    cache = EmbeddingCache(tmp_path, 3)
    cache.add("x" * 100_000, vector(0))
    for i in range(1000):
        cache.add(str(i), vector(i))
    cache.save()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 1_000_000
    assert np.array_equal(EmbeddingCache(tmp_path, 3)["x" * 100_000], vector(0))


@pytest.mark.parametrize("damage", ["truncated", "empty", "npy", "keys", "type", "width"])
def test_a_damaged_file_is_named(tmp_path, damage):
    cache = EmbeddingCache(tmp_path, 3)
    cache.add("a", vector(1))
    cache.save()
    (path,) = tmp_path.iterdir()
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:100])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "npy":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    elif damage == "keys":
        torch.save({"keys": [["a"]], "vectors": torch.zeros(1, 3)}, path)
    elif damage == "type":
        torch.save({"keys": ["a"], "vectors": torch.zeros(1, 3, dtype=torch.float64)}, path)
    with pytest.raises(InputError, match=f"^{path}: .*; remove this file of the embedding cache"):
        EmbeddingCache(tmp_path, 4 if damage == "width" else 3)
