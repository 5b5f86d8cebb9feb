"""Recordings of phones, browsers and cameras. The tests create the files with PyAV's encoders."""

import os
import sys
import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

from tests.conftest import SHARED
from utils.data import containers
from utils.data.audio import SUFFIXES, Segment, load_segment, probe, split
from utils.errors import InputError
from utils.prediction.answers import requests_of_paths

try:
    import av
except ImportError:
    av = None
needs_av = pytest.mark.skipif(av is None, reason="PyAV is not installed")

FORMATS = {  # suffix: container, codec, rate
    "m4a": ("ipod", "aac", 44_100),
    "mp4": ("mp4", "libopus", 48_000),
    "mov": ("mov", "aac", 48_000),
    "3gp": ("3gp", "aac", 16_000),
    "webm": ("webm", "libopus", 48_000),
    "mka": ("matroska", "flac", 44_100),
}
LIVE = {"live": "1"}  # like browser recordings: no length in the header
FIRST = {"movflags": "faststart"}  # the header before the samples


@pytest.fixture(autouse=True)
def _nothing_kept():
    containers._decoded.cache_clear()


def sweep(rate, seconds=2.3, channels=1):
    """A tone [channels, T] that rises from 200 Hz. Channel 1 is louder than channel 0."""
    time = np.arange(round(seconds * rate)) / rate
    tone = np.sin(2 * np.pi * (200 + 300 * time) * time)
    return np.stack([0.2 * (1 + channel) * tone for channel in range(channels)]).astype(np.float32)


def make(path, *streams, suffix="m4a", default=None, shift=lambda time: 0.0, **options):
    """Write streams [channels, T] to a container in a format of FORMATS. ``shift`` adds seconds at a time."""
    name, codec, rate = FORMATS[suffix]
    with av.open(str(path), "w", format=name, options=options) as file:
        encoders = []
        for samples in streams:
            layout = "stereo" if len(samples) == 2 else "mono"
            encoder = file.add_stream(codec, rate=rate, layout=layout)
            if default == len(encoders):
                encoder.disposition = av.stream.Disposition.default.value
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
            encoders.append((encoder, frame))
        for encoder, frame in encoders:
            resampler = av.AudioResampler(encoder.codec_context.format.name, layout=frame.layout.name, rate=rate)
            frames = [*resampler.resample(frame), *resampler.resample(None)]
            for packet in [*(p for each in frames for p in encoder.encode(each)), *encoder.encode(None)]:
                later = round(shift(float(packet.pts * packet.time_base)) / packet.time_base)
                packet.pts, packet.dts = packet.pts + later, packet.dts + later
                file.mux(packet)
    return path


def load(path):
    """All samples of a recording at its original rate."""
    recording = probe(path)
    return load_segment(Segment(recording, 0, recording.frames), recording.rate).numpy()


def correlation(one, other):
    return np.corrcoef(one, other)[0, 1]


@needs_av
@pytest.mark.parametrize("suffix", FORMATS)
def test_the_samples_are_those_that_were_encoded_and_as_many(tmp_path, suffix):
    """The encoder's delay, which would shift the samples, and its padding are both removed."""
    rate = FORMATS[suffix][2]
    samples = sweep(rate)
    found = load(make(tmp_path / f"a.{suffix}", samples, suffix=suffix))
    assert found.shape == samples[0].shape
    assert correlation(found, samples[0]) > 0.99
    assert np.abs(found - samples[0])[2000:-2000].max() < 0.05


@needs_av
@pytest.mark.parametrize("suffix", ["m4a", "webm", "mka"])
def test_channels_are_averaged(tmp_path, suffix):
    """FLAC's samples are interleaved integers; those of AAC are not."""
    samples = sweep(FORMATS[suffix][2], channels=2)
    found = load(make(tmp_path / f"a.{suffix}", samples, suffix=suffix))
    assert found.std() == pytest.approx(samples.mean(axis=0).std(), rel=0.02)


@needs_av
def test_the_integers_of_a_lossless_codec_have_full_scale_1(tmp_path):
    samples = sweep(44_100)
    assert np.abs(load(make(tmp_path / "a.mka", samples, suffix="mka")) - samples[0]).max() < 1e-4


@needs_av
def test_real_speech(tmp_path):
    path = SHARED / "data" / "ravdess" / "Actor_01" / "03-01-05-01-01-01-01.wav"
    if not path.is_file():
        pytest.skip(f"no recording at {path}")
    recording = probe(path)
    original = load_segment(Segment(recording, 0, recording.frames), 44_100).numpy()
    found = load(make(tmp_path / "a.m4a", original[None]))
    assert abs(len(found) - len(original)) <= 45  # the encoder writes the length in milliseconds
    length = min(len(found), len(original))
    assert correlation(found[:length], original[:length]) > 0.99


@needs_av
@pytest.mark.parametrize("suffix", ["m4a", "webm"])
@pytest.mark.parametrize("kept", [True, False])
def test_the_pieces_are_the_whole_to_the_last_bit(tmp_path, suffix, kept):
    recording = probe(make(tmp_path / f"a.{suffix}", sweep(FORMATS[suffix][2]), suffix=suffix))
    whole = load_segment(Segment(recording, 0, recording.frames), recording.rate)
    pieces = []
    for segment in split(recording.whole, 0.2, recording.rate):
        if not kept:
            containers._decoded.cache_clear()
        pieces.append(load_segment(segment, recording.rate))
    assert len(pieces) > 10
    assert torch.equal(torch.cat(pieces), whole)


@needs_av
def test_a_file_is_decoded_once_however_many_its_pieces(tmp_path):
    recording = probe(make(tmp_path / "a.m4a", sweep(44_100)))
    for segment in split(recording.whole, 0.2, 16_000):
        load_segment(segment, 16_000)
    assert containers._decoded.cache_info().misses == 1


@needs_av
def test_worker_processes_inherit_what_was_decoded(tmp_path, monkeypatch):
    recording = probe(make(tmp_path / "a.m4a", sweep(44_100)))
    segments = split(recording.whole, 0.2, 16_000)
    here = torch.cat([load_segment(segment, 16_000) for segment in segments])

    def again(*_):
        raise AssertionError("decoded again")

    monkeypatch.setattr(containers, "_decode", again)
    loader = DataLoader(
        segments,
        batch_size=None,
        collate_fn=lambda segment: load_segment(segment, 16_000),
        num_workers=2,
        multiprocessing_context="fork",
    )
    assert torch.equal(torch.cat(list(loader)), here)


@needs_av
def test_worker_processes_decode_what_is_no_longer_kept(tmp_path):
    recordings = [probe(make(tmp_path / f"{i}.webm", sweep(48_000, 0.5 + i / 10), suffix="webm")) for i in range(6)]
    segments = [Segment(each, 0, each.frames) for each in recordings]
    here = [load_segment(segment, 16_000) for segment in segments]
    containers._decoded.cache_clear()
    load = DataLoader(
        segments,
        batch_size=None,
        collate_fn=lambda segment: load_segment(segment, 16_000),
        num_workers=2,
        multiprocessing_context="fork",
    )
    assert all(torch.equal(one, other) for one, other in zip(load, here, strict=True))


# ---- streams and timestamps ------------------------------------------------------------------------------------------


@needs_av
def test_a_browsers_recording_states_no_length(tmp_path):
    path = make(tmp_path / "a.webm", sweep(48_000), suffix="webm", **LIVE)
    with av.open(str(path)) as file:
        assert file.duration is None
    assert len(load(path)) == round(2.3 * 48_000)


@needs_av
def test_a_gap_between_timestamps_is_silence(tmp_path):
    samples = sweep(48_000)
    path = make(tmp_path / "a.webm", samples, suffix="webm", shift=lambda time: 0.5 * (time > 1))
    found = load(path)
    assert abs(len(found) - 2.8 * 48_000) < 1000
    assert not found[54_000:70_000].any()
    around = [correlation(found[i : i + 25_000], samples[0, 51_000:76_000]) for i in range(74_900, 75_100)]
    assert max(around) > 0.99  # timestamps are in milliseconds


@needs_av
def test_timestamps_that_are_a_little_late_are_no_gap(tmp_path):
    samples = sweep(48_000)
    late = make(tmp_path / "a.webm", samples, suffix="webm", shift=lambda time: 0.03 * (time > 1))
    assert len(load(late)) == samples.shape[1]


@needs_av
def test_a_gap_beyond_a_day_is_refused(tmp_path):
    path = make(tmp_path / "a.webm", sweep(48_000), suffix="webm", shift=lambda time: 1e5 * (time > 1))
    with pytest.raises(InputError, match=rf"^{path}: longer than 24 h$"):
        probe(path)


@needs_av
@pytest.mark.parametrize("suffix", ["m4a", "webm"])
@pytest.mark.parametrize("default", [None, 0, 1])
def test_of_several_audio_streams_the_default_or_the_first_is_read(tmp_path, suffix, default):
    streams = [sweep(FORMATS[suffix][2]), 0 * sweep(FORMATS[suffix][2])]
    path = make(tmp_path / f"a.{suffix}", *streams, suffix=suffix, default=default)
    assert (load(path).std() > 0.1) == (default != 1)


@needs_av
def test_the_sound_of_a_video_is_read(tmp_path):
    path = video(tmp_path / "a.mp4", sweep(44_100))
    assert correlation(load(path), sweep(44_100)[0]) > 0.99


def video(path, samples=None):
    with av.open(str(path), "w") as file:
        pictures = file.add_stream("mpeg4", rate=10)
        pictures.width = pictures.height = 32
        sound = file.add_stream("aac", rate=44_100, layout="mono") if samples is not None else None
        for i in range(23):
            picture = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 10 * i, np.uint8))
            picture.pts, picture.time_base = i, Fraction(1, 10)
            file.mux(pictures.encode(picture))
        file.mux(pictures.encode(None))
        if sound is not None:
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 44_100, 0
            file.mux([*sound.encode(frame), *sound.encode(None)])
    return path


@needs_av
def test_another_rate_in_mid_stream_is_refused(tmp_path, monkeypatch):
    path, parts = tmp_path / "a.aac", []
    for rate in (16_000, 44_100):
        monkeypatch.setitem(FORMATS, "aac", ("adts", "aac", rate))
        parts.append(make(path, sweep(rate, 1.0), suffix="aac").read_bytes())
    path.write_bytes(b"".join(parts))
    match = rf"^{path}: its sampling rate changes from 16000 to 44100 Hz after 1\.\d\d s; convert it to WAV$"
    with pytest.raises(InputError, match=match):
        probe(path)


# ---- bad files -------------------------------------------------------------------------------------------------------


@needs_av
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
@pytest.mark.parametrize(("suffix", "options"), [("m4a", {}), ("m4a", FIRST), ("webm", {}), ("mov", FIRST)])
def test_a_truncated_file_is_refused(tmp_path, suffix, options, kept):
    path = make(tmp_path / f"a.{suffix}", sweep(FORMATS[suffix][2]), suffix=suffix, **options)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(
        InputError, match=rf"^{path}: truncated: its header states \d+ bytes, but only \d+ are present$"
    ):
        probe(path)


@needs_av
@pytest.mark.parametrize("suffix", ["m4a", "webm"])
def test_joined_files_are_refused(tmp_path, suffix):
    path = make(tmp_path / f"a.{suffix}", sweep(FORMATS[suffix][2]), suffix=suffix)
    path.write_bytes(2 * path.read_bytes())
    with pytest.raises(InputError, match=rf"^{path}: several joined files; convert it to WAV$"):
        probe(path)


@needs_av
def test_what_follows_the_last_part_of_a_file_is_no_truncation(tmp_path):
    path = make(tmp_path / "a.m4a", sweep(44_100))
    path.write_bytes(path.read_bytes() + b"TAG" + b"title".ljust(125, b"\0"))
    assert len(load(path)) == round(2.3 * 44_100)


@needs_av
def test_damaged_samples_are_refused(tmp_path):
    path = make(tmp_path / "a.m4a", sweep(44_100))
    data = bytearray(path.read_bytes())
    data[len(data) // 2 :][:200] = data[len(data) // 2 : len(data) // 2 + 200] = np.random.default_rng(0).bytes(200)
    path.write_bytes(data)
    with pytest.raises(InputError, match=rf"^{path}: cannot be read as audio \(Invalid data found"):
        probe(path)


@needs_av
def test_a_video_without_sound_is_refused(tmp_path):
    path = video(tmp_path / "a.mp4")
    with pytest.raises(InputError, match=rf"^{path}: no audio stream$"):
        probe(path)


@needs_av
def test_an_unknown_codec_is_refused(tmp_path):
    path = make(tmp_path / "a.mp4", sweep(48_000), suffix="mp4")
    path.write_bytes(path.read_bytes().replace(b"Opus", b"xxxx"))
    with pytest.raises(InputError, match=rf"^{path}: PyAV cannot decode its audio format$"):
        probe(path)


@needs_av
@pytest.mark.parametrize("content", [b"this is no audio\n" * 50, bytes(5000), b"#!AMR\n"])
def test_another_file_that_is_named_m4a_is_refused(tmp_path, content):
    path = tmp_path / "a.m4a"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"^{path}: (cannot be read as audio \(.*\)|its audio stream is empty)$"):
        probe(path)


@needs_av
@pytest.mark.parametrize("content", ["ffconcat version 1.0\nfile inner.m4a\n", "#EXTM3U\n#EXTINF:2,\ninner.m4a\n"])
def test_a_file_that_names_other_files_is_not_followed(tmp_path, content):
    make(tmp_path / "inner.m4a", sweep(44_100))
    path = tmp_path / "a.m4a"
    path.write_text(content)
    with pytest.raises(InputError, match=rf"^{path}: cannot be read as audio \(Inval"):
        probe(path)


def test_a_folder_that_is_named_m4a_is_refused(tmp_path):
    (tmp_path / "a.m4a").mkdir()
    with pytest.raises(InputError, match=r"a.m4a: no such file$"):
        probe(tmp_path / "a.m4a")


def test_without_pyav_a_file_says_what_to_install_and_others_are_read(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    path = tmp_path / "a.m4a"
    path.write_bytes(b"\0\0\0\x1cftypM4A " + bytes(500))
    advice = "libsndfile cannot read it as audio; for m4a, webm and similar formats: pip install av"
    with pytest.raises(InputError, match=rf"^{path}: {advice}$"):
        probe(path)
    soundfile.write(tmp_path / "a.wav", sweep(16_000)[0], 16_000)
    assert len(load(tmp_path / "a.wav")) == round(2.3 * 16_000)


@needs_av
def test_a_full_disk_is_named(tmp_path, monkeypatch):
    path = make(tmp_path / "a.m4a", sweep(44_100))
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: Path("/dev/full").open("wb"))  # noqa: SIM115
    with pytest.raises(
        InputError, match=rf"^{path}: not enough space for its samples in {tempfile.gettempdir()} \(set by TMPDIR\)$"
    ):
        probe(path)


def test_recordings_of_phones_are_found_in_a_folder(tmp_path):
    for name in ("a.M4A", "b.webm", "c.3gp", "d.wma", "e.txt"):
        (tmp_path / name).touch()
    found = [Path(request.given).name for request in requests_of_paths([str(tmp_path)], None)]
    assert found == ["a.M4A", "b.webm", "c.3gp", "d.wma"]
    assert {f".{suffix}" for suffix in FORMATS} <= SUFFIXES


# ---- files that change -----------------------------------------------------------------------------------------------


@needs_av
def test_a_file_that_changes_while_it_is_decoded_is_refused(tmp_path, monkeypatch):
    path = make(tmp_path / "a.webm", sweep(48_000), suffix="webm", **LIVE)
    decode = containers._decode

    def slow(*args):
        with path.open("ab") as file:
            file.write(bytes(100))
        return decode(*args)

    monkeypatch.setattr(containers, "_decode", slow)
    with pytest.raises(InputError, match=rf"^{path}: the file changed while it was read$"):
        probe(path)


def recorded(path, seconds, rate=16_000):
    if path.suffix == ".webm":
        return make(path, sweep(48_000, seconds), suffix="webm", **LIVE)
    soundfile.write(path, sweep(rate, seconds)[0], rate)
    return path


@pytest.mark.parametrize("suffix", ["wav", pytest.param("webm", marks=needs_av)])
def test_of_a_recording_that_grows_after_its_header_was_read_what_was_there_is_read(tmp_path, suffix):
    recording = probe(recorded(tmp_path / f"a.{suffix}", 1.0))
    before = load_segment(Segment(recording, 0, recording.frames), 16_000)
    recorded(recording.path, 2.0)
    os.utime(recording.path, ns=(0, 0))
    after = load_segment(Segment(recording, 0, recording.frames), 16_000)
    assert after.shape == before.shape == (16_000,)
    assert correlation(before, after) > 0.99


@pytest.mark.parametrize("suffix", ["wav", pytest.param("webm", marks=needs_av)])
def test_a_recording_that_is_shorter_after_its_header_was_read_is_refused(tmp_path, suffix):
    recording = probe(recorded(tmp_path / f"a.{suffix}", 2.0))
    recorded(recording.path, 1.0)
    for start in (0, 30_000):
        message = rf"^{recording.path}: truncated after \d+ of {recording.frames} frames$"
        with pytest.raises(InputError, match=message):
            load_segment(Segment(recording, start, recording.frames), 16_000)


def test_a_recording_of_another_rate_after_its_header_was_read_is_refused(tmp_path):
    recording = probe(recorded(tmp_path / "a.wav", 1.0))
    recorded(recording.path, 1.0, 44_100)
    with pytest.raises(
        InputError, match=r"a.wav: the file changed: its sampling rate was 16000 Hz and is now 44100 Hz$"
    ):
        load_segment(Segment(recording, 0, recording.frames), 16_000)
