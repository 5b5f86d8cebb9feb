"""The encoders of a run: those of its training features, checked by SHA-256."""

import shutil
from pathlib import Path

import torch

from models.encoders import AudioEncoder, TextEncoder
from utils.data.features import encoder_name
from utils.data.provenance import PROVENANCE_FILE
from utils.errors import InputError
from utils.extraction.encoding import SEGMENT_SECONDS
from utils.extraction.hub import load_audio_encoder, load_text_encoder, save_pretrained
from utils.io import exclusive
from utils.prediction.inductive import TrainingGraph
from utils.training.folder import GRAPH_FILE, SEED_FOLDER
from utils.training.trained import Trained

UNFINISHED = ".unfinished_export"  # a file in the folder of an export, until it is whole
EXPORTED = {"text": "text_encoder", "audio": "audio_encoder"}  # folders beside the training graph
# two encoders that agree in these give the same embeddings
_IDENTITY = ("weights_sha256", "pooling", "tokenizer_sha256", "feature_extractor_sha256")


def load_run_encoder(
    modality: str, graph: TrainingGraph, run: Path, given: str | None, device: torch.device
) -> TextEncoder | AudioEncoder:
    """Load the encoder of a modality: the ``given`` one, that of an export, or that of the training.

    Raises:
        InputError: the encoder is unknown, not found, or another one than that of the training.
    """
    option = f"--{modality}_model"
    known = graph.encoders.get(modality)
    if known is None:
        raise InputError(
            f"{run / GRAPH_FILE}: the features of this run do not name their {modality} encoder, so new recordings "
            "cannot be encoded; train on features of extract_features.py"
        )
    exported = run / EXPORTED[modality]
    name = given or (str(exported) if exported.is_dir() else encoder_name(known))
    if given is None and known["revision"] is None and not Path(name).is_dir():
        raise InputError(
            f"{name}: the run's {modality} encoder is not on this machine; give its folder with {option}, "
            f"or export the run where the encoder is (predict.py --export)"
        )
    if modality == "text":
        encoder, found = load_text_encoder(name, known["pooling"], device, option)
    else:
        encoder, found = load_audio_encoder(name, device, option)
        if known.get("segment_seconds") != SEGMENT_SECONDS:
            raise InputError(f"{run / GRAPH_FILE}: its recordings were cut into segments of a different length")
    for key in _IDENTITY:
        if known.get(key) != found.get(key):
            what = key.removesuffix("_sha256").replace("_", " ")
            raise InputError(f"{option} {name}: not the encoder of this run (different {what})")
    return encoder


def export_run(trained: list[Trained], graph: TrainingGraph, encoders: dict[str, str | None], to: Path) -> int:
    """Write a new folder with all that predict.py needs: checkpoints, training graph and both encoders.

    Args:
        encoders: by modality, the folder that the user gives, or None.

    Returns:
        The size of the folder in bytes.

    Raises:
        InputError: the folder exists, a checkpoint is not of a finished seed, or an encoder is not the run's.
    """
    for each in trained:
        if each.path.name != "best.pt" or not each.path.with_name("metrics.json").is_file():
            raise InputError(f"{each.path}: not the best.pt of a finished seed; only these are exported")
    part = to.absolute().with_name(f"{to.absolute().name}.part")
    with exclusive(to.absolute()):
        if to.exists():
            raise InputError(f"--export {to}: exists already; give another folder, or remove it")
        if part.exists() and not (part / UNFINISHED).is_file():
            raise InputError(f"{part}: in the way of --export; move it elsewhere")
        shutil.rmtree(part, ignore_errors=True)  # left by a kill -9
        part.mkdir()
        try:
            (part / UNFINISHED).touch()
            _write_export(trained, graph, encoders, part)
            (part / UNFINISHED).unlink()
            part.replace(to)
        except BaseException:  # Ctrl-C, too
            shutil.rmtree(part)
            raise
    return sum(path.stat().st_size for path in to.rglob("*") if path.is_file())


def _write_export(trained: list[Trained], graph: TrainingGraph, encoders: dict[str, str | None], to: Path) -> None:
    run = trained[0].run_folder
    for each in trained:
        seed = to / SEED_FOLDER.format(each.seed)
        seed.mkdir()
        for name in ("best.pt", "metrics.json"):
            shutil.copy(each.path.with_name(name), seed)
    shutil.copy(run / GRAPH_FILE, to)
    for modality, given in encoders.items():
        encoder = load_run_encoder(modality, graph, run, given, torch.device("cpu"))
        save_pretrained(encoder, to / EXPORTED[modality])
        tuned = Path(encoder.model.name_or_path) / PROVENANCE_FILE
        if tuned.is_file():
            shutil.copy(tuned, to / EXPORTED[modality])
        load_run_encoder(modality, graph, to, None, torch.device("cpu"))  # check that it is the same encoder
