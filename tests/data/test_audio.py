import struct

import numpy as np
import pytest
import soundfile
import torch
from torchaudio.functional import resample

from utils.data import audio, mp3
from utils.data.audio import Piece, Segment, load_segment, probe, resampling_step, split
from utils.errors import InputError

RATE = 16_000


def write(path, samples, rate=RATE, **options):
    soundfile.write(path, samples, rate, **options)
    return path


def noise(seconds, rate=RATE, channels=1):
    samples = 0.1 * np.random.default_rng(0).standard_normal((int(seconds * rate), channels))
    return samples[:, 0] if channels == 1 else samples


def load(path):
    recording = probe(path)
    return load_segment(Segment(recording, 0, recording.frames), RATE)


def test_float_samples_are_unchanged(tmp_path):
    samples = noise(0.5).astype(np.float32)
    path = write(tmp_path / "a.wav", samples, subtype="FLOAT")
    assert torch.equal(load(path), torch.from_numpy(samples))


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "aiff", "au", "caf"])
def test_every_format_and_rate_is_16_khz_mono(tmp_path, suffix):
    """A tone of 440 Hz in two channels of different amplitude."""
    rate = 44_100
    tone = np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    waveform = load(write(tmp_path / f"a.{suffix}", np.stack([0.2 * tone, 0.4 * tone], axis=1), rate))
    assert waveform.shape == (RATE,)
    expected = 0.3 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    assert np.abs(waveform.numpy() - expected)[1000:-1000].max() < 0.01


def test_channels_are_mixed_by_their_mean(tmp_path):
    samples = noise(0.5, channels=6).astype(np.float32)
    path = write(tmp_path / "a.wav", samples, subtype="FLOAT")
    assert torch.allclose(load(path), torch.from_numpy(samples.mean(axis=1)))


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000])
def test_concatenated_segments_equal_the_whole_resampled_at_once(tmp_path, rate):
    samples = noise(7.3, rate).astype(np.float32)
    recording = probe(write(tmp_path / "a.wav", samples, rate, subtype="FLOAT"))
    segments = split(recording.whole, 2.0, RATE)
    assert [s.start for s in segments[1:]] == [s.stop for s in segments[:-1]]
    assert len(segments) == 4
    assert all(segment.seconds <= 2.0 for segment in segments)
    whole = resample(torch.from_numpy(samples), rate, RATE)
    together = torch.cat([load_segment(segment, RATE) for segment in segments])
    assert together.shape == whole.shape
    assert (together - whole).abs().max() < 1e-6


def test_a_recording_just_over_the_limit_is_cut_into_two_equal_segments(tmp_path):
    recording = probe(write(tmp_path / "a.wav", noise(2.001)))
    assert [segment.stop - segment.start for segment in split(recording.whole, 2.0, RATE)] == [16_008, 16_008]


@pytest.mark.parametrize("seconds", [3.99, 5.0, 7.98, 12.3])
def test_no_segment_is_longer_than_the_limit_at_any_boundary(tmp_path, seconds):
    """At 22 050 Hz, cuts are at multiples of 441 frames (20 ms)."""
    recording = probe(write(tmp_path / "a.wav", noise(seconds, 22_050), 22_050))
    assert all(segment.seconds <= 1.995 for segment in split(recording.whole, 1.995, RATE))


def test_a_recording_of_exactly_the_limit_is_not_cut(tmp_path):
    recording = probe(write(tmp_path / "a.wav", noise(2.0, 44_100), 44_100))
    assert len(split(recording.whole, 2.0, RATE)) == 1


def test_a_short_recording_is_one_segment(tmp_path):
    recording = probe(write(tmp_path / "a.wav", noise(1.0)))
    assert split(recording.whole, 30.0, RATE) == [Piece(recording, 0, 16_000, Segment(recording, 0, 16_000))]


@pytest.mark.parametrize("rate", [1_001, 4_409, 44_101, 767_990])
def test_a_rate_with_a_small_common_divisor_is_rounded(tmp_path, rate):
    """The exact kernel would need gigabytes."""
    old, new = resampling_step(rate, RATE)
    assert old * new <= 2_000_000
    assert abs(old / new * RATE - rate) <= 50
    waveform = load(write(tmp_path / "a.wav", noise(1.0, rate), rate))
    assert abs(len(waveform) - RATE) <= 16_000 * 10 / rate


def broken(folder, kind):
    path = folder / f"{kind}.wav"
    if kind == "missing":
        return path
    if kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("this is no audio" * 20)
    elif kind == "short":
        write(path, noise(0.05))
    elif kind == "nan":
        write(path, np.where(np.arange(RATE) == 700, np.nan, 0.1), subtype="FLOAT")
    elif kind == "loud":
        write(path, np.where(np.arange(RATE) == 700, 1e20, 0.1), subtype="FLOAT")
    elif kind == "raw":
        path = path.with_suffix(".raw")
        path.write_bytes(bytes(RATE))
    elif kind == "truncated":
        write(path, noise(1.0))
        path.write_bytes(path.read_bytes()[:20_000])
    elif kind == "header":
        write(path, noise(1.0))
        path.write_bytes(path.read_bytes()[:44])
    elif kind == "slow":
        write(path, noise(1.0, 500), 500)
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "no such file"),
        ("folder", "no such file"),
        ("empty", "the file is empty"),
        ("text", "cannot be read as audio"),
        ("short", r"0\.050 s long, shorter than 0\.1 s"),
        ("nan", "invalid sample nan at frame 700"),
        ("loud", r"invalid sample 1\.0.*e\+20 at frame 700"),
        ("raw", "cannot be read as audio"),
        ("truncated", "truncated: its header states 32036 bytes, but only 19992 are present"),
        ("header", "truncated"),
        ("slow", "unsupported sampling rate of 500 Hz"),
    ],
)
def test_unusable_files_are_named_in_one_line(tmp_path, kind, message):
    path = broken(tmp_path, kind)
    with pytest.raises(InputError, match=rf"^{path}: {message}"):
        load(path)


@pytest.mark.parametrize("suffix", ["flac", "ogg", "mp3", "aiff", "au", "voc"])
@pytest.mark.parametrize("kept", [0.5, 0.7])
def test_a_truncated_file_of_another_format_is_refused(tmp_path, suffix, kept):
    path = write(tmp_path / f"a.{suffix}", noise(2.0))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(InputError, match=rf"^{path}: "):
        load(path)


def test_a_flac_of_unknown_length_is_refused(tmp_path):
    """When writing to a pipe, encoders put 0 samples in the header. libsndfile reads this as the greatest number."""
    path = write(tmp_path / "a.flac", noise(1.0))
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0  # the low 36 bits of bytes 18 to 25 are the number of samples
    data[22:26] = bytes(4)
    path.write_bytes(data)
    with pytest.raises(InputError, match=rf"^{path}: its header states no length, .*; convert it to WAV"):
        probe(path)


def test_a_codec_without_seek_is_read_from_its_beginning(tmp_path):
    path = write(tmp_path / "a.wav", noise(1.0, 8_000), 8_000, subtype="GSM610")
    assert abs(len(load(path)) - RATE) < 1000


def test_a_stream_of_unknown_size_is_complete(tmp_path):
    """ffmpeg writes 0xFFFFFFFF for the sizes when its output is a pipe."""
    path = write(tmp_path / "a.wav", noise(1.0))
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = b"\xff" * 4
    path.write_bytes(data)
    assert len(load(path)) == RATE


# ---- memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("suffix", "subtype"), [("wav", "FLOAT"), ("flac", None), ("wav", "GSM610")])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_a_recording_decoded_in_blocks_is_the_same_to_the_last_bit(tmp_path, monkeypatch, suffix, subtype, channels):
    """GSM files cannot seek and are read from the beginning."""
    channels = 1 if subtype == "GSM610" else channels
    recording = probe(write(tmp_path / f"a.{suffix}", noise(3.0, 8_000, channels), 8_000, subtype=subtype))
    segments = [Segment(recording, 0, recording.frames), Segment(recording, 9_000, 20_000)]
    at_once = [load_segment(segment, RATE) for segment in segments]
    monkeypatch.setattr(audio, "_BLOCK", 5_001)
    assert all(torch.equal(load_segment(s, RATE), one) for s, one in zip(segments, at_once, strict=True))


def sparse(path, channels, rate=768_000, seconds=3600):
    """A W64 whose header claims one hour, followed by a hole in the file."""
    data = bytearray(write(path, np.zeros((8, channels)), rate, format="W64", subtype="PCM_16").read_bytes())
    begin, size = data.index(b"data") + 24, rate * channels * 2 * seconds
    data[16:24] = struct.pack("<Q", begin + size)
    data[begin - 8 : begin] = struct.pack("<Q", size + 24)
    path.write_bytes(data[:begin])
    with path.open("r+b") as file:
        file.truncate(begin + size)
    return path


def test_what_is_decoded_at_once_is_bounded(tmp_path, monkeypatch):
    asked, read = [], soundfile.SoundFile.read

    def watched(self, frames=-1, *args, **kwargs):
        asked.append(frames * self.channels)
        return read(self, frames, *args, **kwargs)

    recording = probe(sparse(tmp_path / "a.w64", audio.MAX_CHANNELS))
    monkeypatch.setattr(soundfile.SoundFile, "read", watched)
    load_segment(Segment(recording, 0, recording.rate), RATE)
    assert len(asked) == 2
    assert max(asked) <= audio._BLOCK


def test_more_channels_than_any_microphone_array_are_refused(tmp_path):
    path = sparse(tmp_path / "a.w64", 1024)
    with pytest.raises(InputError, match=rf"^{path}: has 1024 channels; at most 64 are supported$"):
        probe(path)


def test_a_recording_that_does_not_fit_into_memory_is_named(tmp_path, monkeypatch):
    def full(*_, **__):
        raise MemoryError

    path = write(tmp_path / "a.wav", noise(1.0))
    monkeypatch.setattr(soundfile.SoundFile, "read", full)
    with pytest.raises(InputError, match=rf"^{path}: a segment of 1\.0 s does not fit into memory$"):
        load(path)


# ---- joined files ----------------------------------------------------------------------------------------------------

ID3V1 = b"TAG" + b"title".ljust(125, b"\0")
APE = b"APETAGEX" + struct.pack("<IIIIQ", 2000, 532, 1, 0x80000000, 0) + b"x" * 500
# contains a JPEG, whose FF E0 and FF E2 look like the sync word of a frame
PICTURE = b"\xff\xd8\xff\xe0\0\x10JFIF" + np.random.default_rng(0).bytes(5000) + b"\xff\xe2\x0cX" * 3
ID3V2 = b"ID3\3\0\0" + bytes((len(PICTURE) + 600 >> shift & 127) for shift in (21, 14, 7, 0)) + PICTURE + bytes(600)


def mp3_bytes(folder, seconds, mode="VARIABLE", rate=RATE):
    loud = np.linspace(0, 0.3, int(seconds * rate)) ** 4  # frames of many sizes
    path = write(folder / "part.mp3", loud * noise(seconds, rate), rate, bitrate_mode=mode, compression_level=0.5)
    return path.read_bytes()


def without_header(data):
    """As written by encoders that add no header: libsndfile estimates the length."""
    return data[mp3._frame(data, 0)[0] :]


def joined(path, *parts):
    path.write_bytes(b"".join(parts))
    return path


@pytest.mark.parametrize("mode", ["CONSTANT", "AVERAGE", "VARIABLE"])
@pytest.mark.parametrize("between", [b"", ID3V1 + ID3V2], ids=["bare", "tags"])
@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_joined_mp3s_are_refused(tmp_path, mode, between, rate):
    first = mp3_bytes(tmp_path, 2.0, mode)
    path = joined(tmp_path / "a.mp3", ID3V2, first, between, mp3_bytes(tmp_path, 0.5, mode, rate))
    message = rf"^{path}: only 2\.00 s of its 2\.[5-9]\d s can be read \(several joined files, or no header\); convert"
    with pytest.raises(InputError, match=message):
        probe(path)
    with pytest.raises(InputError, match=message):
        probe(joined(path, first, without_header(mp3_bytes(tmp_path, 0.5, mode, rate))))


@pytest.mark.parametrize("mode", ["CONSTANT", "AVERAGE", "VARIABLE"])
@pytest.mark.parametrize("rate", [8_000, 22_050, 48_000])
@pytest.mark.parametrize(
    ("before", "after"),
    [(b"", b""), (ID3V2, b""), (b"", ID3V1), (b"", APE + ID3V1), (b"", ID3V2), (bytes(700), bytes(9000)), (ID3V2, APE)],
)
def test_tags_and_padding_of_an_mp3_are_no_audio(tmp_path, mode, rate, before, after):
    assert len(load(joined(tmp_path / "a.mp3", before, mp3_bytes(tmp_path, 0.7, mode, rate), after))) == 0.7 * RATE


@pytest.mark.parametrize("rate", [16_000, 44_100])
@pytest.mark.parametrize("after", [b"", ID3V1, ID3V2], ids=["bare", "ID3v1", "ID3v2"])
def test_an_mp3_without_header_is_read_whole(tmp_path, rate, after):
    data = without_header(mp3_bytes(tmp_path, 3.0, "CONSTANT", rate))
    recording = probe(joined(tmp_path / "a.mp3", data, after))
    assert recording.frames == mp3.mp3_frames(recording.path, 10**9, rate)
    assert 3.0 <= recording.seconds < 3.2
    load_segment(Segment(recording, 0, recording.frames), RATE)
    twice = probe(joined(tmp_path / "b.mp3", data, data))
    assert twice.frames == 2 * recording.frames


def test_an_mp3_without_header_whose_first_frame_is_large_is_refused(tmp_path):
    """Its length is estimated from the first frame and is too short."""
    data = without_header(mp3_bytes(tmp_path, 3.0))
    loud = without_header(write(tmp_path / "loud.mp3", noise(0.2), bitrate_mode="CONSTANT").read_bytes())
    with pytest.raises(InputError, match=r"a\.mp3: only \d\.\d\d s of its 3\.\d\d s can be read"):
        probe(joined(tmp_path / "a.mp3", loud, data))


@pytest.mark.parametrize("suffix, subtype", [("ogg", "VORBIS"), ("ogg", "OPUS"), ("flac", "PCM_16")])
def test_joined_files_of_another_format_are_refused(tmp_path, suffix, subtype):
    parts = [
        write(tmp_path / f"{i}.{suffix}", noise(seconds), subtype=subtype).read_bytes()
        for i, seconds in enumerate((2.0, 0.5))
    ]
    for data in ((parts[0], parts[1]), (parts[0], parts[0])):
        path = joined(tmp_path / f"a.{suffix}", *data)
        with pytest.raises(InputError, match=rf"^{path}: several joined files; only 2\.00 s can be read; convert it"):
            probe(path)
    assert len(load(joined(tmp_path / f"b.{suffix}", parts[0], ID3V1))) == 2 * RATE
