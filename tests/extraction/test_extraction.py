import multiprocessing
import os
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from transformers import BertConfig, BertModel, Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

from models.encoders import ConvTransformerEncoder, TextEncoder
from tests.tiny_models import TINY_AUDIO, TINY_TEXT, tiny_tokenizer
from utils.data.audio import probe, split
from utils.errors import InputError
from utils.extraction import encoding
from utils.extraction.embedding import embed_recordings, embed_texts, probe_all
from utils.extraction.embedding_cache import EmbeddingCache

RATE = 16_000


class Counted(ConvTransformerEncoder):
    """Records the frames of every batch."""

    def forward(self, inputs):
        self.batches = [*getattr(self, "batches", []), [each.frames for each in inputs]]
        return super().forward(inputs)


@pytest.fixture
def encoder():
    return Counted(Wav2Vec2Model(Wav2Vec2Config(**TINY_AUDIO)), Wav2Vec2FeatureExtractor(do_normalize=True)).eval()


@pytest.fixture
def paths(tmp_path):
    """Recordings of 0.5 to 2 s, not sorted by length."""
    rng = np.random.default_rng(0)
    names = []
    for i, seconds in enumerate((1.0, 2.0, 0.5, 1.5, 0.7)):
        names.append(str(tmp_path / f"{i}.wav"))
        soundfile.write(names[-1], 0.1 * rng.standard_normal(int(seconds * RATE)), RATE)
    return names


def stop(path, error):
    raise error


def embed(encoder, paths, cache, batch_seconds=3.0, on_bad=stop):
    return embed_recordings(encoder, probe_all(paths, on_bad), cache, batch_seconds, on_bad)


@pytest.fixture(params=["workers", "no workers"])
def workers(request, monkeypatch):
    """Test both ways of decoding, regardless of the number of segments."""
    monkeypatch.setattr(encoding, "MIN_SEGMENTS", 0 if request.param == "workers" else 1000)


def log_decoding(monkeypatch, path, before=lambda segment: None):
    """Append the recording of each decoded segment to a file, also from worker processes."""
    load = encoding.load_segment
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def logged(segment, rate):
        before(segment)
        waveform = load(segment, rate)
        os.write(log, f"{segment.recording.path} {os.getpid()}\n".encode())
        return waveform

    monkeypatch.setattr(encoding, "load_segment", logged)


def single_batches(paths):
    return [split(probe(Path(path)).whole, 30.0, RATE) for path in paths]


def alone(encoder, path):
    samples = torch.from_numpy(soundfile.read(path, dtype="float32")[0])
    with torch.inference_mode():
        return encoder([encoder.prepare(samples)])[0].numpy()


def test_every_recording_gets_its_own_embedding_whatever_the_batches(encoder, paths, tmp_path, workers):
    embeddings = embed(encoder, paths, EmbeddingCache(tmp_path / "cache", encoder.dim))
    assert list(embeddings) == paths
    assert [len(batch) for batch in encoder.batches] == [1, 2, 2]  # 2 | 1.5 + 1 | 0.7 + 0.5 s
    for path in paths:
        assert np.abs(embeddings[path] - alone(encoder, path)).max() < 1e-5


def test_a_long_recording_is_the_mean_of_its_segments_by_length(encoder, paths, tmp_path, monkeypatch):
    monkeypatch.setattr(encoding, "SEGMENT_SECONDS", 0.8)
    embeddings = embed(encoder, paths[1:2], EmbeddingCache(tmp_path / "cache", encoder.dim))
    samples = torch.from_numpy(soundfile.read(paths[1], dtype="float32")[0])
    frames, vectors = [], []
    for part in samples.tensor_split([10_667, 21_333]):
        prepared = encoder.prepare(part)
        frames.append(prepared.frames)
        with torch.inference_mode():
            vectors.append(encoder([prepared])[0].numpy())
    assert np.abs(embeddings[paths[1]] - np.average(vectors, axis=0, weights=frames)).max() < 1e-5


def test_segments_of_other_recordings_do_not_mix(encoder, paths, tmp_path, monkeypatch):
    monkeypatch.setattr(encoding, "SEGMENT_SECONDS", 0.6)
    together = embed(encoder, paths, EmbeddingCache(tmp_path / "a", encoder.dim), batch_seconds=100)
    for i, path in enumerate(paths):
        single = embed(encoder, [path], EmbeddingCache(tmp_path / f"b{i}", encoder.dim), batch_seconds=0.6)
        assert np.abs(together[path] - single[path]).max() < 1e-5


def test_a_budget_of_memory_holds_for_any_recording(encoder, tmp_path, monkeypatch):
    """Of a ten-minute recording, only one segment with its margins is decoded at a time."""
    path = str(tmp_path / "long.wav")
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(600 * 8000), 8000)
    log = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)  # also for worker processes
    read = soundfile.SoundFile.read

    def watched(self, frames=-1, *args, **kwargs):
        os.write(log, f"{frames}\n".encode())
        return read(self, frames, *args, **kwargs)

    monkeypatch.setattr(soundfile.SoundFile, "read", watched)
    embed(encoder, [path], EmbeddingCache(tmp_path / "cache", encoder.dim), batch_seconds=30)
    frames = [int(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert len(frames) == 21  # twenty pieces of 30 s would leave no room for cuts between samples
    assert max(frames) <= 30.1 * 8000


def test_the_next_batches_are_decoded_while_the_encoder_works(encoder, paths, tmp_path, monkeypatch):
    """The first batch ends only after the third is decoded. The fourth waits for its turn."""
    monkeypatch.setattr(encoding, "MIN_SEGMENTS", 0)
    monkeypatch.setattr(encoding, "MAX_WORKERS", 1)
    log_decoding(monkeypatch, tmp_path / "log")
    by_length = sorted(paths, key=lambda path: -Path(path).stat().st_size)
    forward = Counted.forward

    def decoded():
        return [line.split()[0] for line in (tmp_path / "log").read_text().splitlines()]

    def waiting(self, inputs):
        if not getattr(self, "batches", []):
            waited = time.monotonic()
            while by_length[2] not in decoded():
                assert time.monotonic() - waited < 20
                time.sleep(0.01)
            time.sleep(0.2)
            assert by_length[3] not in decoded()
        return forward(self, inputs)

    monkeypatch.setattr(Counted, "forward", waiting)
    embed(encoder, paths, EmbeddingCache(tmp_path / "cache", encoder.dim), batch_seconds=0.1)
    assert len(encoder.batches) == len(paths)
    assert decoded() == by_length


def test_workers_decode_and_batches_keep_their_order(encoder, paths, tmp_path, monkeypatch):
    """Even if the first batch takes longest. The random numbers of torch equal those of a run without workers."""
    monkeypatch.setattr(encoding, "MIN_SEGMENTS", 0)
    log_decoding(monkeypatch, tmp_path / "log", lambda segment: time.sleep(segment.recording.path.stem == "0"))
    state = torch.get_rng_state()
    batches = list(encoding.decode_batches(encoder, single_batches(paths), stop))
    assert torch.equal(torch.get_rng_state(), state)
    assert [str(segment.recording.path) for _, ((segment, _, _),) in batches] == paths
    assert [seconds for seconds, _ in batches] == [1.0, 2.0, 0.5, 1.5, 0.7]
    decoded = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    workers = {pid for _, pid in decoded}
    assert str(os.getpid()) not in workers
    assert len(workers) == min(len(os.sched_getaffinity(0)), encoding.MAX_WORKERS)
    assert len(workers) == 1 or decoded[0][0] != paths[0]


def test_a_handful_of_segments_needs_no_workers(encoder, paths, tmp_path, monkeypatch):
    log_decoding(monkeypatch, tmp_path / "log")
    embed(encoder, paths, EmbeddingCache(None, encoder.dim))
    assert {line.split()[1] for line in (tmp_path / "log").read_text().splitlines()} == {str(os.getpid())}


def test_a_closed_stream_ends_its_workers_at_once(encoder, paths, monkeypatch, capfd):
    monkeypatch.setattr(encoding, "MIN_SEGMENTS", 0)
    with closing(encoding.stream_embeddings(encoder, single_batches(paths * 20), stop)) as stream:
        next(stream)
        assert multiprocessing.active_children()
        begin = time.monotonic()
    assert not multiprocessing.active_children()
    assert time.monotonic() - begin < 4  # killing a worker takes 5 s
    assert capfd.readouterr().err == ""


def test_a_failure_in_a_worker_stops_with_its_reason(encoder, paths, monkeypatch):
    """An error that is not caused by a damaged recording."""
    monkeypatch.setattr(encoding, "MIN_SEGMENTS", 0)
    monkeypatch.setattr(encoder, "prepare", lambda waveform: {}["no such key"])
    with pytest.raises(KeyError, match="no such key"):
        list(encoding.decode_batches(encoder, single_batches(paths), stop))


def test_what_is_in_the_cache_is_not_computed_again(encoder, paths, tmp_path):
    first = embed(encoder, paths[:3], EmbeddingCache(tmp_path / "cache", encoder.dim))
    encoder.batches = []
    second = embed(encoder, paths, EmbeddingCache(tmp_path / "cache", encoder.dim))
    assert sum(map(len, encoder.batches)) == 2
    assert all(np.array_equal(first[path], second[path]) for path in paths[:3])


def test_a_recording_that_was_changed_is_computed_again(encoder, paths, tmp_path):
    before = embed(encoder, paths, EmbeddingCache(tmp_path / "cache", encoder.dim))
    soundfile.write(paths[0], 0.1 * np.random.default_rng(9).standard_normal(RATE), RATE)
    encoder.batches = []
    after = embed(encoder, paths, EmbeddingCache(tmp_path / "cache", encoder.dim))
    assert sum(map(len, encoder.batches)) == 1
    assert not np.allclose(before[paths[0]], after[paths[0]])


def test_a_change_of_equal_size_and_time_is_computed_again(encoder, paths, tmp_path):
    before = embed(encoder, paths, EmbeddingCache(tmp_path / "cache", encoder.dim))
    status = Path(paths[0]).stat()
    soundfile.write(paths[0], 0.1 * np.random.default_rng(9).standard_normal(RATE), RATE)
    os.utime(paths[0], ns=(status.st_atime_ns, status.st_mtime_ns))
    assert Path(paths[0]).stat().st_size == status.st_size
    after = embed(encoder, paths, EmbeddingCache(tmp_path / "cache", encoder.dim))
    assert not np.allclose(before[paths[0]], after[paths[0]])


def test_a_moved_corpus_keeps_its_cache(encoder, paths, tmp_path):
    before = embed(encoder, paths, EmbeddingCache(tmp_path / "cache", encoder.dim))
    encoder.batches = []
    moved = [str(Path(path).replace(tmp_path / f"moved{i}.wav")) for i, path in enumerate(paths)]
    after = embed(encoder, moved, EmbeddingCache(tmp_path / "cache", encoder.dim))
    assert encoder.batches == []
    assert all(np.array_equal(before[a], after[b]) for a, b in zip(paths, moved, strict=True))


def test_a_recording_that_vanishes_after_its_header_was_read_is_a_bad_one(encoder, paths):
    recordings = probe_all(paths, stop)
    Path(paths[2]).unlink()
    bad = []
    cache = EmbeddingCache(None, encoder.dim)
    found = embed_recordings(encoder, recordings, cache, 3.0, lambda path, error: bad.append(str(error)))
    assert bad == [f"{paths[2]}: cannot be read (No such file or directory)"]
    assert list(found) == [path for path in paths if path != paths[2]]


def test_an_interruption_keeps_what_was_computed(encoder, paths, tmp_path, monkeypatch):
    forward = Counted.forward

    def interrupted(self, inputs):
        if len(getattr(self, "batches", [])) == 2:
            raise KeyboardInterrupt
        return forward(self, inputs)

    monkeypatch.setattr(Counted, "forward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        embed(encoder, paths, EmbeddingCache(tmp_path / "cache", encoder.dim))
    assert len(EmbeddingCache(tmp_path / "cache", encoder.dim)) == 3
    monkeypatch.setattr(Counted, "forward", forward)
    encoder.batches = []
    embed(encoder, paths, EmbeddingCache(tmp_path / "cache", encoder.dim))
    assert [len(batch) for batch in encoder.batches] == [2]


def damage(path):
    """The header stays intact."""
    soundfile.write(path, np.where(np.arange(RATE) >= 900, np.inf, 0.1), RATE, subtype="FLOAT")


def test_a_damaged_recording_stops_with_its_name(encoder, paths, tmp_path, workers):
    damage(paths[3])
    with pytest.raises(InputError, match=rf"^{paths[3]}: invalid sample inf at frame 900"):
        embed(encoder, paths, EmbeddingCache(tmp_path / "cache", encoder.dim))
    assert not multiprocessing.active_children()


def test_a_damaged_recording_is_skipped_on_request(encoder, paths, tmp_path, monkeypatch, workers):
    """It is named once, although each of its segments fails. The other recordings keep their embeddings."""
    monkeypatch.setattr(encoding, "SEGMENT_SECONDS", 0.3)
    expected = embed(encoder, paths, EmbeddingCache(tmp_path / "whole", encoder.dim))
    damage(paths[3])
    Path(paths[0]).write_bytes(b"")
    named = []
    embeddings = embed(
        encoder, paths, EmbeddingCache(tmp_path / "cache", encoder.dim), on_bad=lambda path, error: named.append(path)
    )
    assert named == [paths[0], paths[3]]
    assert list(embeddings) == [paths[1], paths[2], paths[4]]
    assert all(np.abs(embeddings[path] - expected[path]).max() < 1e-5 for path in embeddings)


@pytest.mark.parametrize("limit", [30.0, 0.4])
def test_silence_is_an_error_however_long(encoder, paths, tmp_path, monkeypatch, limit):
    """One second of zeros is an error. Half a second of zeros within another recording is not."""
    monkeypatch.setattr(encoding, "SEGMENT_SECONDS", limit)
    soundfile.write(paths[0], np.zeros(RATE), RATE)
    soundfile.write(paths[1], np.where(np.arange(RATE) < RATE // 2, 0, 0.1), RATE)
    with pytest.raises(InputError, match=f"^{paths[0]}: contains only silence "):
        embed(encoder, paths[:2], EmbeddingCache(tmp_path / "cache", encoder.dim))
    assert list(embed(encoder, paths[1:2], EmbeddingCache(tmp_path / "cache", encoder.dim))) == [paths[1]]


def test_an_embedding_that_is_not_finite_is_an_error(encoder, paths, tmp_path):
    with torch.no_grad():
        encoder.model.encoder.layer_norm.weight.fill_(float("nan"))
    with pytest.raises(InputError, match=rf"^{paths[1]}: its embedding is not finite"):
        embed(encoder, paths, EmbeddingCache(tmp_path / "cache", encoder.dim))


def test_texts_are_computed_once_each_in_batches_of_tokens(tmp_path, monkeypatch):
    encoder = TextEncoder(BertModel(BertConfig(**TINY_TEXT)), tiny_tokenizer()).eval()
    batches = []
    forward = TextEncoder.forward
    monkeypatch.setattr(
        TextEncoder, "forward", lambda self, tokens: (batches.append([*map(len, tokens)]), forward(self, tokens))[1]
    )
    texts = ["no", "yes we can", "no", "x" * 500, "never", "no"]
    cache = EmbeddingCache(tmp_path, encoder.dim)
    assert embed_texts(encoder, texts, cache, 24) == 1  # longer than the 128 tokens it reads
    assert batches == [[502], [10, 7], [4]]
    assert len(cache) == 4
    with torch.inference_mode():
        for text in texts:
            assert np.abs(cache[text] - forward(encoder, [encoder.tokenize(text)])[0].numpy()).max() < 1e-5
    embed_texts(encoder, [*texts, "new"], EmbeddingCache(tmp_path, encoder.dim), 24)
    assert batches[3:] == [[5]]
