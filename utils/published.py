"""What the authors publish: feature pickles and checkpoints of github.com/nhut-ngnn/CemoBAM, fetched and verified.

A file counts by its git blob id, the SHA-1 of its length and contents, as it stood at commit :data:`COMMIT`; so
a mirror (``$CEMOBAM_MIRROR``, the URL of a folder with ``feature/`` and ``saved_models/`` in it) need not be trusted.
"""

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from utils.config import feature_path
from utils.errors import InputError, one_line
from utils.features import SPLITS
from utils.locks import try_lock
from utils.paper import UTTERANCES

COMMIT = "06df0ae705215361fa151acb2d573602b9d771c3"
REPOSITORY = "github.com/nhut-ngnn/CemoBAM"
CHECKPOINTS = "saved_models/{}"
BLOBS = {
    "feature/IEMOCAP_BERT_WAV2VEC_train.pkl": "5d141f1c3e5bc4dbb08956da0440cd1fc0580149",
    "feature/IEMOCAP_BERT_WAV2VEC_val.pkl": "cb1dfeef503749525a47c0e261569b59a476f211",
    "feature/IEMOCAP_BERT_WAV2VEC_test.pkl": "dd3599077eed0d3e564c815239fbf6627aa1cd06",
    "feature/ESD_BERT_WAV2VEC_train.pkl": "fcd98ce31371719f44edbc2e38eb66e3ddc25e44",
    "feature/ESD_BERT_WAV2VEC_val.pkl": "458f7dfd7d7706eb170bbf4b7f6202efd355fe92",
    "feature/ESD_BERT_WAV2VEC_test.pkl": "4532d54ccec08fcec760f8f45b036531f0630ca3",
    "saved_models/ESD_HemoGAT_cls.pt": "6b89b78e4eecab25d268e71444e0c36692f0ea5d",
    "saved_models/ESD_HemoGAT_max.pt": "89b4853a4ed4f3b6e7dd9e4a5597e716403e71fc",
    "saved_models/ESD_HemoGAT_mean.pt": "1bd06475025580c693e6f98d3763149d5f2a44ac",
    "saved_models/ESD_HemoGAT_min.pt": "9e28c0bf74eb2f1008e87cb2672ec1b0faad4839",
    "saved_models/IEMOCAP_HemoGAT_min.pt": "243ff1bdd9c8498b51adecba8de2e56342689f51",
}
KILOBYTES = 7.0  # of an utterance in a published pickle
LARGEST = 1 << 30  # bytes; no published file is near it
TIMEOUT = 30  # seconds without an answer
_CHUNK = 1 << 20


def features_missing_error(dataset: str, missing: list[Path]) -> InputError:
    """Said where a published dataset's pickles are not there, in three lines: what is missing, and two ways to it."""
    size = sum(UTTERANCES[dataset].values()) * KILOBYTES / 1000
    others = f" (nor {', '.join(path.name for path in missing[1:])})" if missing[1:] else ""
    return InputError(
        f"{missing[0]}: no such file{others}: the features of {dataset} are missing\n"
        f"  the published ones: --download (run_training.sh, run_eval.sh) fetches {size:.0f} MB from {REPOSITORY}\n"
        f"  from the corpus:    python extract_features.py {dataset} --corpus_dir FOLDER "
        f"--feature_dir {missing[0].parent}"
    )


def fetch_features(feature_dir: Path, dataset: str, splits: Sequence[str] = SPLITS) -> None:
    """The published pickles of a dataset in ``feature_dir``: those there are verified, the others fetched.

    Raises:
        InputError: as :func:`fetch`; or the authors publish no features of this dataset.
    """
    if dataset not in UTTERANCES:
        raise InputError(f"--download: the authors publish features of {' and '.join(UTTERANCES)}, not of {dataset}")
    files = {
        feature_path("feature", dataset, split).as_posix(): feature_path(feature_dir, dataset, split)
        for split in splits
    }
    for name, path in files.items():
        if os.path.lexists(path):  # before the first is fetched: a mixture of two extractions is worse than none
            _check_present(name, path)
    for name, path in files.items():
        fetch(name, path)


def published_checkpoint(target: str, save_path: Path, download: bool) -> Path | None:
    """Where the published checkpoint of that name lies; None where ``target`` is no such name, or a file here.

    Raises:
        InputError: it is not there, and ``download`` does not ask for it; or as :func:`fetch`.
    """
    name = CHECKPOINTS.format(target)
    if name not in BLOBS or Path(target).exists():
        return None
    path = save_path / "published" / target
    if not path.is_file() and not download:
        raise InputError(
            f"{target}: no such file, nor {path}; it is one of the checkpoints that the authors publish\n"
            f"  fetch it: add --download (about 45 MB from {REPOSITORY}, verified)\n"
            f"  or give the path of a copy, with --profile official"
        )
    fetch(name, path)
    return path


def fetch(name: str, path: Path) -> None:
    """The published file ``name`` at ``path``, whole and verified; what was fetched before is not fetched again.

    An interrupted transfer is kept as ``<path>.part``, and goes on where it ended.

    Raises:
        InputError: another file is at ``path`` (it is left there); the transfer fails; or what came is not the
            published file (it is removed).
    """
    if os.path.lexists(path):
        _check_present(name, path)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    with part.open("ab") as file, try_lock(file) as mine:
        if not mine:
            raise InputError(f"{part}: another command is fetching this file")
        if path.is_file():  # that of a command that ended just now
            part.unlink(missing_ok=True)
            _check_present(name, path)
            return
        url = f"{os.environ.get('CEMOBAM_MIRROR') or _github()}/{name}"
        begun = part.stat().st_size > 0
        try:
            _transfer(url, file, path.name)
            found = blob_id(part)
            if begun and found != BLOBS[name]:  # what lay there was the beginning of something else
                file.truncate(0)
                _transfer(url, file, path.name)
                found = blob_id(part)
        except (OSError, http.client.HTTPException, ValueError) as error:
            if not part.stat().st_size:
                part.unlink()
            raise _failure(url, part, error) from error
        if found != BLOBS[name]:
            part.unlink()
            raise InputError(f"{url}: not the published file (git blob {found}, not {BLOBS[name]}); removed")
        part.replace(path)


def _check_present(name: str, path: Path) -> None:
    if not path.is_file():
        raise InputError(f"{path}: no file, but a folder, or a link to what is not there; move it elsewhere")
    found = blob_id(path)
    if found != BLOBS[name]:
        raise InputError(f"{path}: not the published file (git blob {found}, not {BLOBS[name]}); move it elsewhere")


def _failure(url: str, part: Path, error: Exception) -> Exception:
    """What to raise of a transfer that failed: the disk's error as it is, in one line the network's or the server's."""
    if getattr(error, "filename", None) == str(part):
        return error
    kept = "; what came is kept, the same command goes on" if part.exists() else ""
    status = f"HTTP {error.code} " if isinstance(error, urllib.error.HTTPError) else ""
    return InputError(f"{url}: {status}{one_line(getattr(error, 'reason', None) or error)}{kept}")


def blob_id(path: Path) -> str:
    """The id that git gives a file's contents."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def is_published(path: Path) -> bool:
    """Whether a feature pickle is the authors' of that name."""
    wanted = BLOBS.get(f"feature/{path.name}")
    return wanted is not None and path.is_file() and blob_id(path) == wanted


def _github() -> str:
    return f"https://raw.githubusercontent.com/{REPOSITORY.removeprefix('github.com/')}/{COMMIT}"


def _transfer(url: str, file: BinaryIO, title: str) -> None:
    """Append what ``file`` lacks of the contents of ``url``; from the start where the server cannot go on."""
    have = file.seek(0, os.SEEK_END)
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # there is no more: what is there is whole, or the blob id will tell
        raise
    with response:
        length = response.headers.get("Content-Length")
        length = int(length) if length and length.isdigit() else None
        if response.status == http.HTTPStatus.PARTIAL_CONTENT:
            if not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                raise http.client.HTTPException(f"the server sent another part than that from byte {have} on")
        elif have:
            if response.status != http.HTTPStatus.OK or (length is not None and length < have):
                raise http.client.HTTPException(
                    f"HTTP {response.status} with {length} bytes, less than is here already"
                )
            file.truncate(0)
            have = 0
        total = have + length if length is not None else None
        with tqdm(total=total, initial=have, desc=title, unit="B", unit_scale=True, dynamic_ncols=True) as bar:
            while chunk := response.read1(_CHUNK):
                have += len(chunk)
                if have > LARGEST:
                    file.truncate(0)
                    raise http.client.HTTPException(f"more than {LARGEST >> 20} MiB came")
                _write(file, chunk)
                bar.update(len(chunk))
    if total is not None and have < total:
        raise http.client.HTTPException(f"the connection ended after {have} of {total} bytes")


def _write(file: BinaryIO, chunk: bytes) -> None:
    try:
        file.write(chunk)
        file.flush()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file.name)) from error
