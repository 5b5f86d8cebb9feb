import hashlib
import json
import os
import pickle
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain, repeat
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer

import pytest
import torch

import eval as eval_script
import folds
import train
from tests.conftest import make_rows
from tests.corpus_trees import published_csvs
from tests.reference import OfficialReference
from utils.config import SPLITS
from utils.data import download, published
from utils.data.manifest import read_manifest
from utils.errors import InputError
from utils.io import blob_id
from utils.training.predictions import read_predictions

NAME = "feature/ESD_BERT_WAV2VEC_train.pkl"
CONTENT = bytes(range(256)) * 9000  # 2.2 MiB: several chunks


class Handler(BaseHTTPRequestHandler):
    """Serves ``files`` with range requests; closes the connection after ``limit`` bytes of a response."""

    def __init__(self, server, *args):
        self.shared = server
        super().__init__(*args)

    def do_GET(self):
        content = self.shared.files.get(self.path.lstrip("/"))
        asked = self.headers.get("Range") if self.shared.ranges else None
        begin = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        self.shared.asked.append((self.path.lstrip("/"), begin))
        if content is None:
            return self.send_error(404, self.shared.reason)
        if begin >= len(content):
            return self.send_error(416)
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {begin + self.shared.shift}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - begin))
        self.end_headers()
        self.wfile.write(content[begin : begin + self.shared.limit])
        return None

    def log_message(self, *args):
        pass


class Server:
    def __init__(self):
        self.files, self.asked, self.ranges, self.limit = {}, [], True, 1 << 40
        self.shift, self.reason = 0, None


@pytest.fixture
def server(monkeypatch):
    """A local mirror of the authors' repository."""
    shared = Server()
    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, shared))
    threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("CEMOBAM_MIRROR", f"http://127.0.0.1:{http.server_port}")
    yield shared
    http.shutdown()
    http.server_close()


@pytest.fixture
def publish(server, tmp_path, monkeypatch):
    def publish(name: str, content: bytes) -> None:
        server.files[name] = content
        (tmp_path / "blob").write_bytes(content)
        monkeypatch.setitem(published.BLOBS, name, blob_id((tmp_path / "blob").read_bytes()))

    return publish


def test_blob_id_is_that_of_git(tmp_path):
    (tmp_path / "a").write_bytes(b"hello\n")
    assert blob_id((tmp_path / "a").read_bytes()) == "ce013625030ba8dba906f756967f9e9ca394464a"  # git hash-object


def test_the_published_ids_are_unchanged():
    """Guards the table against accidental edits."""
    digest = hashlib.sha256(json.dumps(published.BLOBS, sort_keys=True).encode()).hexdigest()
    assert digest == "79940f0dd831e298ccff7bb487a0a484c78366121e8c47fbee1f0ceea2cc0a97"
    features = {f"feature/{dataset}_BERT_WAV2VEC_{split}.pkl" for dataset in published.UTTERANCES for split in SPLITS}
    assert features == {name for name in published.BLOBS if name.startswith("feature/")}


@pytest.mark.parametrize("dataset", published.UTTERANCES)
def test_the_published_manifests_have_their_ids(dataset):
    for split, path in zip(SPLITS, published_csvs(dataset), strict=True):
        assert blob_id(path.read_bytes()) == published.BLOBS[f"metadata/{dataset}_metadata_{split}.csv"]


@pytest.mark.parametrize("dataset", published.UTTERANCES)
def test_utterance_counts_are_those_of_the_published_manifests(dataset):
    sizes = [len(read_manifest(path)) for path in published_csvs(dataset)]
    assert dict(zip(SPLITS, sizes, strict=True)) == published.UTTERANCES[dataset]


def test_a_complete_file_is_not_fetched_again(server, publish, tmp_path):
    publish(NAME, CONTENT)
    for _ in range(2):
        published.fetch(NAME, tmp_path / "f.pkl")
    assert (tmp_path / "f.pkl").read_bytes() == CONTENT
    assert server.asked == [(NAME, 0)]
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_transfer_is_resumed(server, publish, tmp_path, ranges):
    publish(NAME, CONTENT)
    server.limit, server.ranges = 1_500_000, ranges
    with pytest.raises(InputError, match=r"ended after 1500000 of 2304000 bytes; the partial file is kept"):
        published.fetch(NAME, tmp_path / "f.pkl")
    assert not (tmp_path / "f.pkl").exists()
    server.limit = 1 << 40
    published.fetch(NAME, tmp_path / "f.pkl")
    assert (tmp_path / "f.pkl").read_bytes() == CONTENT
    assert server.asked[1] == (NAME, 1_500_000 if ranges else 0)


def test_a_complete_part_is_accepted(server, publish, tmp_path):
    publish(NAME, CONTENT)
    (tmp_path / "f.pkl.part").write_bytes(CONTENT)
    published.fetch(NAME, tmp_path / "f.pkl")
    assert (tmp_path / "f.pkl").read_bytes() == CONTENT


@pytest.mark.parametrize("old", [b"of something else", CONTENT + b"and more"])
def test_a_part_of_another_file_is_replaced(server, publish, tmp_path, old):
    publish(NAME, CONTENT)
    (tmp_path / "f.pkl.part").write_bytes(old)
    published.fetch(NAME, tmp_path / "f.pkl")
    assert (tmp_path / "f.pkl").read_bytes() == CONTENT
    assert server.asked == [(NAME, len(old)), (NAME, 0)]


def test_a_part_is_kept_if_the_response_is_not_its_rest(server, publish, tmp_path):
    publish(NAME, CONTENT)
    part = tmp_path / "f.pkl.part"
    part.write_bytes(CONTENT[:5000])
    server.shift = 7
    with pytest.raises(InputError, match="did not send the range from byte 5000; the partial file is kept"):
        published.fetch(NAME, tmp_path / "f.pkl")
    server.shift, server.ranges = 0, False
    server.files[NAME] = b"<html>log in to this network</html>"
    with pytest.raises(InputError, match="HTTP 200 with 35 bytes, fewer than already received; the partial"):
        published.fetch(NAME, tmp_path / "f.pkl")
    assert part.read_bytes() == CONTENT[:5000]


@pytest.mark.parametrize("wrong", [CONTENT[:-1], CONTENT + b"x", b"<html>moved</html>", CONTENT[:-1] + b"x"])
def test_a_wrong_file_is_refused_and_removed(server, publish, tmp_path, wrong):
    publish(NAME, CONTENT)
    server.files[NAME] = wrong
    with pytest.raises(InputError, match=rf"{NAME}: not the published file \(git blob [0-9a-f]{{40}}, not .*; removed"):
        published.fetch(NAME, tmp_path / "f.pkl")
    assert [path.name for path in tmp_path.iterdir()] == ["blob"]


def test_another_file_at_the_path_is_kept(server, publish, tmp_path):
    publish(NAME, CONTENT)
    (tmp_path / "f.pkl").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"f\.pkl: not the published file .* move it elsewhere"):
        published.fetch(NAME, tmp_path / "f.pkl")
    assert (tmp_path / "f.pkl").read_bytes() == b"mine"
    assert server.asked == []


def test_a_broken_link_is_kept(server, publish, tmp_path):
    publish(NAME, CONTENT)
    (tmp_path / "f.pkl").symlink_to(tmp_path / "unmounted" / "f.pkl")
    with pytest.raises(InputError, match=r"f\.pkl: is a folder or a broken link"):
        published.fetch(NAME, tmp_path / "f.pkl")
    assert (tmp_path / "f.pkl").is_symlink()


def test_server_and_network_errors_are_one_line(server, tmp_path, monkeypatch):
    server.reason = ""
    with pytest.raises(InputError, match=rf"{NAME}: HTTP Error 404"):
        published.fetch(NAME, tmp_path / "f.pkl")
    server.reason = None
    with pytest.raises(InputError, match=rf"{NAME}: HTTP Error 404: Not Found") as caught:
        published.fetch(NAME, tmp_path / "f.pkl")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("CEMOBAM_MIRROR", "no/url")
    with pytest.raises(InputError, match=r"no/url/.*unknown url type"):
        published.fetch(NAME, tmp_path / "f.pkl")
    monkeypatch.setenv("CEMOBAM_MIRROR", "http://127.0.0.1:9")
    with pytest.raises(InputError, match=r"127\.0\.0\.1:9/.*Connection refused") as caught:
        published.fetch(NAME, tmp_path / "f.pkl")
    assert "\n" not in str(caught.value)


def test_an_endless_response_is_stopped(server, publish, tmp_path, monkeypatch):
    publish(NAME, CONTENT)
    monkeypatch.setattr(download, "LARGEST", 1 << 20)
    with pytest.raises(InputError, match=r"more than 1 MiB received$"):
        published.fetch(NAME, tmp_path / "f.pkl")
    assert not list(tmp_path.glob("f.pkl*"))


def test_two_commands_do_not_fetch_one_file(server, publish, tmp_path):
    publish(NAME, CONTENT)
    part = tmp_path / "f.pkl.part"
    holder = "import fcntl, sys\nf = open(sys.argv[1], 'ab')\nfcntl.flock(f, 2)\nprint('mine', flush=True)\ninput()"
    command, pipe = [sys.executable, "-c", holder, part], subprocess.PIPE
    other = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
    assert other.stdout.readline() == "mine\n"
    with pytest.raises(InputError, match=r"f\.pkl\.part: another command is downloading this file"):
        published.fetch(NAME, tmp_path / "f.pkl")
    other.communicate("\n")
    published.fetch(NAME, tmp_path / "f.pkl")
    assert (tmp_path / "f.pkl").read_bytes() == CONTENT


def test_a_full_disk_is_named(server, publish, tmp_path, monkeypatch):
    publish(NAME, CONTENT)

    def full(file, chunk):
        raise OSError(28, "No space left on device", str(file.name))

    monkeypatch.setattr(download, "_write", full)
    with pytest.raises(OSError, match="No space left") as caught:
        published.fetch(NAME, tmp_path / "f.pkl")
    assert caught.value.filename == str(tmp_path / "f.pkl.part")


@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "folder"])
def test_a_part_that_is_no_regular_file_is_refused(server, publish, tmp_path, kind):
    publish(NAME, CONTENT)
    part, other = tmp_path / "f.pkl.part", tmp_path / "mine"
    if kind == "link":
        other.write_bytes(CONTENT[:9])
    if "link" in kind:
        part.symlink_to(other)
    elif kind == "pipe":
        os.mkfifo(part)
    else:
        part.mkdir()
    with pytest.raises(InputError, match=r"f\.pkl\.part: not a regular file; remove it$"):
        published.fetch(NAME, tmp_path / "f.pkl")
    assert other.exists() == (kind == "link")
    assert kind != "link" or other.read_bytes() == CONTENT[:9]
    assert server.asked == []


def test_a_part_longer_than_the_file_is_replaced_without_ranges(server, publish, tmp_path):
    publish(NAME, CONTENT)
    server.ranges = False
    (tmp_path / "f.pkl.part").write_bytes(CONTENT + b"and more")
    published.fetch(NAME, tmp_path / "f.pkl")
    assert (tmp_path / "f.pkl").read_bytes() == CONTENT
    assert len(server.asked) == 1


OK = b"HTTP/1.1 200 OK\r\n"
ENDLESS = {
    "drip": (chain([OK, b"Content-Length: 9999\r\n\r\n", b"x" * 99], repeat(b"x")), "bytes per second"),
    "drip of headers": (chain([OK], repeat(b"A")), "bytes per second"),
    "continues": (repeat(b"HTTP/1.1 100 Continue\r\n\r\n" * 9999), "more than 1 MiB received"),
    "headers": (chain([OK], repeat(b"A: b\r\n" * 99)), "got more than 100 headers"),
    "one header": (chain([OK], repeat(b"A" * 9999)), "got more than 65536 bytes when reading header line"),
    "trailers": (
        chain([OK, b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n0\r\n"], repeat(b"A: b\r\n" * 9999)),
        "more than 1 MiB received|[Tt]railer",
    ),
    "body of a redirect": (
        chain([b"HTTP/1.1 302 Found\r\nLocation: ftp://127.0.0.1/x\r\n\r\n"], repeat(b"x" * 9999)),
        "more than 1 MiB received",
    ),
    "redirects": (repeat(b"HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n" * 999), "more than 1 MiB received"),
    "claim": ([OK, b"Content-Length: " + b"9" * 4000 + b"\r\n\r\n", b"x" * 99], "not the published file"),
}


@pytest.mark.parametrize("pieces, message", ENDLESS.values(), ids=ENDLESS)
def test_whatever_a_server_sends_without_end_ends_in_one_line(publish, tmp_path, monkeypatch, pieces, message):
    publish(NAME, CONTENT)
    for name, value in {"LARGEST": 1 << 20, "PATIENCE": 0.3, "_CHUNK": 1 << 10, "SLOWEST": 1 << 12}.items():
        monkeypatch.setattr(download, name, value)

    class Endless(BaseRequestHandler):
        def handle(self):
            self.request.recv(9999)
            with suppress(OSError):
                for piece in pieces:
                    self.request.sendall(piece)
                    time.sleep(0.02 if len(piece) == 1 else 0)

    with ThreadingTCPServer(("127.0.0.1", 0), Endless) as tcp:
        tcp.daemon_threads = True  # a client that gives up may leave its connection open until it exits
        threading.Thread(target=tcp.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("CEMOBAM_MIRROR", f"http://127.0.0.1:{tcp.server_address[1]}")
        began = time.monotonic()
        with pytest.raises(InputError, match=message) as caught:
            published.fetch(NAME, tmp_path / "f.pkl")
        tcp.shutdown()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    assert time.monotonic() - began < 60
    kept = [path.name for path in tmp_path.glob("f.pkl*")]
    assert kept == (["f.pkl.part"] if "the partial file is kept" in str(caught.value) else [])


def test_training_names_missing_features_in_three_lines_then_fetches_them(server, publish, run, tmp_path):
    folder = tmp_path / "feature"
    options = ["--dataset", "IEMOCAP", "--feature_dir", folder, "--save_path", tmp_path / "runs", "--seeds", 1]
    options += ["--epochs", 2, "--hidden_dim", 16, "--device", "cpu"]
    code, _, error = run(train.main, *options)
    assert code == 2
    lines = error.strip().splitlines()
    assert len(lines) == 3
    assert str(folder / "IEMOCAP_BERT_WAV2VEC_train.pkl") in lines[0]
    assert "--download" in lines[1] and "39 MB" in lines[1]
    assert f"extract_features.py IEMOCAP --corpus_dir FOLDER --feature_dir {folder}" in lines[2]

    for seed, split in enumerate(SPLITS):
        publish(f"feature/IEMOCAP_BERT_WAV2VEC_{split}.pkl", pickle.dumps(make_rows(24, seed=seed), protocol=4))
        publish(f"metadata/IEMOCAP_metadata_{split}.csv", manifest(24, f"Ses0{seed + 1}"))
    code, output, error = run(train.main, *options, "--download")
    assert code == 0, error
    assert "WA" in output
    assert len(server.asked) == 6
    found = read_predictions(list((tmp_path / "runs").rglob("test_predictions.csv"))[:1])
    assert set(found.identity["speaker"]) == {"Ses03F"}


def manifest(rows: int, session: str) -> bytes:
    """As in the authors' files: paths of their machine, and no speakers."""
    name = "/home/a/{0}F_impro0{1}_F{2:03d}.wav"
    lines = [f"{name.format(session, 1 + row % 4, row)},a text,{row % 4}\n" for row in range(rows)]
    return ("audio_file,raw_text,label\n" + "".join(lines)).encode()


def test_the_published_validation_file_alone_is_cross_validated(server, publish, run, tmp_path):
    rows = make_rows(60)
    publish("feature/IEMOCAP_BERT_WAV2VEC_val.pkl", pickle.dumps(rows, protocol=4))
    lines = [manifest(60, f"Ses0{session}").decode().splitlines() for session in (1, 2, 3)]
    merged = [lines[0][0], *(lines[row // 4 % 3][row + 1] for row in range(60))]
    publish("metadata/IEMOCAP_metadata_val.csv", "\n".join(merged).encode())
    options = ["--dataset", "IEMOCAP", "--splits", "val", "--download", "--feature_dir", tmp_path / "feature"]
    options += ["--save_path", tmp_path / "runs", "--seeds", 1, "--epochs", 1, "--hidden_dim", 16, "--no_probes"]
    code, output, error = run(folds.main, *options, "--device", "cpu")
    assert code == 0, error
    assert "60 utterances, 3 folds, by session" in output
    assert sorted(name for name, _ in server.asked) == [
        "feature/IEMOCAP_BERT_WAV2VEC_val.pkl",
        "metadata/IEMOCAP_metadata_val.csv",
    ]


def test_nothing_is_fetched_beside_other_features(server, publish, tmp_path):
    for split in SPLITS:
        publish(f"feature/ESD_BERT_WAV2VEC_{split}.pkl", CONTENT)
    (tmp_path / "ESD_BERT_WAV2VEC_test.pkl").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"ESD_BERT_WAV2VEC_test.pkl: not the published file"):
        published.fetch_features(tmp_path, "ESD")
    assert server.asked == []


def test_demo_is_written_unless_a_split_is_given(tmp_path, capsys):
    paths = published.find_features("DEMO", tmp_path, dict.fromkeys(SPLITS), False)
    assert paths == {split: tmp_path / f"DEMO_BERT_WAV2VEC_{split}.pkl" for split in SPLITS}
    assert all(path.is_file() for path in paths.values())
    assert capsys.readouterr().out == f"generating the synthetic DEMO features in {tmp_path}\n"
    assert published.find_features("DEMO", tmp_path, dict.fromkeys(SPLITS), False) == paths
    assert capsys.readouterr().out == ""
    given = {"train": str(paths["train"]), "val": None, "test": None}
    paths["val"].write_bytes(b"mine")
    assert published.find_features("DEMO", tmp_path, given, False) == paths
    with pytest.raises(InputError, match=r"DEMO_BERT_WAV2VEC_val\.pkl: not the DEMO data of this version"):
        published.find_features("DEMO", tmp_path, dict.fromkeys(SPLITS), False)
    assert paths["val"].read_bytes() == b"mine"
    assert capsys.readouterr().out == ""


def test_a_given_path_replaces_the_default_and_a_missing_file_is_named_with_its_split(tmp_path):
    given = {"train": tmp_path / "a.pkl", "val": tmp_path / "b.pkl", "test": None}
    for path in (given["train"], tmp_path / "ESD_BERT_WAV2VEC_test.pkl"):
        path.touch()
    message = rf"^{tmp_path}/b\.pkl: no such file; expected the val features of ESD$"
    with pytest.raises(InputError, match=message):
        published.find_features("ESD", tmp_path, given, False)
    given["val"].touch()
    found = published.find_features("ESD", tmp_path, given, False)
    assert found == {**given, "test": tmp_path / "ESD_BERT_WAV2VEC_test.pkl"}
    with pytest.raises(InputError, match=rf"^{tmp_path}/TOY_BERT_WAV2VEC_train\.pkl: no such file; expected the train"):
        published.find_features("TOY", tmp_path, {}, False)


def test_a_download_does_not_combine_with_given_paths(server, tmp_path):
    with pytest.raises(InputError, match="--download: downloads to --feature_dir; omit --train_path"):
        published.find_features("ESD", tmp_path, {"val": tmp_path / "b.pkl"}, True)
    assert server.asked == []


def test_find_features_downloads_all_splits(server, publish, tmp_path):
    for split in SPLITS:
        publish(f"feature/ESD_BERT_WAV2VEC_{split}.pkl", CONTENT)
        publish(f"metadata/ESD_metadata_{split}.csv", split.encode())
    paths = published.find_features("ESD", tmp_path, dict.fromkeys(SPLITS), True)
    assert [path.read_bytes() for path in paths.values()] == [CONTENT] * 3
    assert [path.with_suffix(".csv").read_text() for path in paths.values()] == list(SPLITS)


def test_unpublished_datasets_are_refused(server, run, feature_dir):
    code, _, error = run(train.main, "--dataset", "TOY", "--feature_dir", feature_dir, "--download")
    assert code == 2
    assert "publish features of IEMOCAP and ESD, not of TOY" in error


def test_a_published_checkpoint_is_fetched_with_its_test_features(server, publish, run, tmp_path, monkeypatch):
    monkeypatch.setenv("FEATURE_DIR", str(tmp_path / "feature"))
    options = ["ESD_HemoGAT_max.pt", "--save_path", tmp_path / "runs", "--device", "cpu"]
    code, _, error = run(eval_script.main, *options)
    assert code == 2
    assert len(error.strip().splitlines()) == 3
    assert "--download" in error

    path = tmp_path / "state.pt"
    torch.save(OfficialReference(6, 5, dim=16, classes=5).state_dict(), path)
    publish("saved_models/ESD_HemoGAT_max.pt", path.read_bytes())
    publish("feature/ESD_BERT_WAV2VEC_test.pkl", pickle.dumps(make_rows(30, classes=5), protocol=4))
    names = "".join(f"/a/00{11 + row % 10}_{row:06d}.wav,{row % 5}\n" for row in range(30))
    publish("metadata/ESD_metadata_test.csv", f"audio_file,label\n{names}".encode())
    code, output, error = run(eval_script.main, *options, "--download")
    assert code == 0, error
    assert "surprise" in output
    assert (tmp_path / "runs" / "published" / "ESD_HemoGAT_max.pt").is_file()
    assert [name for name, _ in server.asked] == [
        "saved_models/ESD_HemoGAT_max.pt",
        "feature/ESD_BERT_WAV2VEC_test.pkl",
        "metadata/ESD_metadata_test.csv",
    ]


def test_existing_paths_and_other_names_are_not_published_checkpoints(tmp_path):
    (tmp_path / "ESD_HemoGAT_min.pt").write_bytes(b"")
    assert published.published_checkpoint(str(tmp_path / "ESD_HemoGAT_min.pt"), Path("runs"), False) is None
    assert published.published_checkpoint("IEMOCAP", Path("runs"), True) is None
