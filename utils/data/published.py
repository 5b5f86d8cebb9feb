"""The authors' feature pickles and checkpoints (github.com/nhut-ngnn/CemoBAM): download and verification.

Every file is verified by its git blob id at commit :data:`COMMIT`, so a mirror does not need to be trusted. Set
``$CEMOBAM_MIRROR`` to the URL of a folder that contains ``feature/``, ``metadata/`` and ``saved_models/``.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from utils.config import SPLITS, feature_path
from utils.errors import InputError
from utils.io import blob_id, read_file

COMMIT = "06df0ae705215361fa151acb2d573602b9d771c3"
REPOSITORY = "github.com/nhut-ngnn/CemoBAM"
_GITHUB = f"https://raw.githubusercontent.com/nhut-ngnn/CemoBAM/{COMMIT}"
BLOBS = {
    "feature/IEMOCAP_BERT_WAV2VEC_train.pkl": "5d141f1c3e5bc4dbb08956da0440cd1fc0580149",
    "feature/IEMOCAP_BERT_WAV2VEC_val.pkl": "cb1dfeef503749525a47c0e261569b59a476f211",
    "feature/IEMOCAP_BERT_WAV2VEC_test.pkl": "dd3599077eed0d3e564c815239fbf6627aa1cd06",
    "feature/ESD_BERT_WAV2VEC_train.pkl": "fcd98ce31371719f44edbc2e38eb66e3ddc25e44",
    "feature/ESD_BERT_WAV2VEC_val.pkl": "458f7dfd7d7706eb170bbf4b7f6202efd355fe92",
    "feature/ESD_BERT_WAV2VEC_test.pkl": "4532d54ccec08fcec760f8f45b036531f0630ca3",
    "metadata/IEMOCAP_metadata_train.csv": "88ef5bdb2327a9b6563af2f4556e79a1577fd17f",
    "metadata/IEMOCAP_metadata_val.csv": "bf72f7c64151bc8728a2f50da5161ca96624d7d0",
    "metadata/IEMOCAP_metadata_test.csv": "cc107bd00c87afc475b6951df6f25bd11429c44e",
    "metadata/ESD_metadata_train.csv": "3bb87d69a7da59c5ce0386a2590762eb4a790ffd",
    "metadata/ESD_metadata_val.csv": "d7f709d2df5ab58ceb21ba6864ef2076e0662c8c",
    "metadata/ESD_metadata_test.csv": "84b47c9ae1c92e64f84541713ecaccec987cc63a",
    "saved_models/ESD_HemoGAT_cls.pt": "6b89b78e4eecab25d268e71444e0c36692f0ea5d",
    "saved_models/ESD_HemoGAT_max.pt": "89b4853a4ed4f3b6e7dd9e4a5597e716403e71fc",
    "saved_models/ESD_HemoGAT_mean.pt": "1bd06475025580c693e6f98d3763149d5f2a44ac",
    "saved_models/ESD_HemoGAT_min.pt": "9e28c0bf74eb2f1008e87cb2672ec1b0faad4839",
    "saved_models/IEMOCAP_HemoGAT_min.pt": "243ff1bdd9c8498b51adecba8de2e56342689f51",
}
UTTERANCES = {"IEMOCAP": {"train": 4407, "val": 551, "test": 551}, "ESD": {"train": 13996, "val": 1749, "test": 1750}}
_KILOBYTES = 7.0  # per utterance in a published pickle


def find_features(
    dataset: str, feature_dir: Path, given: Mapping[str, str | Path | None], download: bool
) -> dict[str, Path]:
    """Locate the feature pickle of each split. Generate the synthetic DEMO first, unless a split is given.

    Args:
        given: path of each split. None selects the default in ``feature_dir``.
        download: download the published features to ``feature_dir``.

    Raises:
        InputError: a file is missing, or ``download`` is combined with a given path. See also :func:`write_demo` and
            :func:`fetch_features`.
    """
    paths = {split: Path(given.get(split) or feature_path(feature_dir, dataset, split)) for split in SPLITS}
    defaults = not any(given.values())
    if dataset == "DEMO" and defaults:
        if not all(map(os.path.lexists, paths.values())):
            print(f"generating the synthetic DEMO features in {feature_dir}")
        from utils.data.demo import write_demo  # only DEMO needs this module

        write_demo(feature_dir)
    if download:
        if not defaults:
            raise InputError("--download: downloads to --feature_dir; omit --train_path, --valid_path and --test_path")
        fetch_features(feature_dir, dataset)
    for split, path in paths.items():
        if not path.is_file():
            if defaults and dataset in UTTERANCES:
                raise features_missing_error(dataset, path)
            raise InputError(f"{path}: no such file; expected the {split} features of {dataset}")
    return paths


def features_missing_error(dataset: str, path: Path) -> InputError:
    """The error for missing features of a published dataset: three lines, which include two ways to get them."""
    size = sum(UTTERANCES[dataset].values()) * _KILOBYTES / 1000
    return InputError(
        f"{path}: no such file: the features of {dataset} are missing",
        f"published features: --download (of run_eval.sh and all trainings) fetches {size:.0f} MB from {REPOSITORY}",
        f"from the corpus:    python extract_features.py {dataset} --corpus_dir FOLDER --feature_dir {path.parent}",
    )


def fetch_features(feature_dir: Path, dataset: str, splits: Sequence[str] = SPLITS) -> None:
    """Download the published pickles of a dataset and the CSVs that name their rows to ``feature_dir``.

    Existing files are only verified.

    Raises:
        InputError: no features of this dataset are published. See also :func:`~utils.data.download.download_verified`.
    """
    if dataset not in UTTERANCES:
        raise InputError(f"--download: the authors publish features of {' and '.join(UTTERANCES)}, not of {dataset}")
    if absent := set(splits) - set(SPLITS):
        raise InputError(f"--download: the authors publish {', '.join(SPLITS)}, not {min(absent)}")
    files = {}
    for split in splits:
        path = feature_path(feature_dir, dataset, split)
        files[path] = f"feature/{path.name}"
        files[path.with_suffix(".csv")] = f"metadata/{dataset}_metadata_{split}.csv"
    # existing files first, so that nothing is mixed with wrong ones
    for path in sorted(files, key=lambda path: not path.exists()):
        fetch(files[path], path)


def published_checkpoint(target: str, save_path: Path, download: bool) -> Path | None:
    """Locate or download the published checkpoint named ``target``, in ``save_path/published``.

    Returns:
        Its path; None if ``target`` is an existing path or not the name of a published checkpoint.
    """
    name = f"saved_models/{target}"
    if name not in BLOBS or Path(target).exists():
        return None
    path = save_path / "published" / target
    if not path.is_file() and not download:
        raise InputError(
            f"{target}: a published checkpoint, but neither this file nor {path} exists",
            f"download it: add --download (about 45 MB from {REPOSITORY}, verified)",
            "or give the path of a copy, with --profile official",
        )
    fetch(name, path)
    return path


def is_published(path: Path) -> bool:
    """Whether a feature pickle is the authors' file of the same name."""
    blob = BLOBS.get(f"feature/{path.name}")
    return blob is not None and path.is_file() and blob_id(read_file(path)) == blob


def fetch(name: str, path: Path) -> None:
    """Download the published file ``name`` (a key of :data:`BLOBS`) to ``path``. See :func:`download_verified`."""
    from utils.data.download import download_verified  # network code, loaded only to download

    download_verified(f"{os.environ.get('CEMOBAM_MIRROR') or _GITHUB}/{name}", path, BLOBS[name])
