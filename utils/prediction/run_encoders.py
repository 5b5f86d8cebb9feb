"""Load the encoders of a run. SHA-256 checks that they are those of its training features."""

from pathlib import Path

import torch

from models.encoders import AudioEncoder, TextEncoder
from utils.data.features import encoder_name
from utils.errors import InputError
from utils.extraction.encoding import SEGMENT_SECONDS
from utils.extraction.hub import load_audio_encoder, load_text_encoder
from utils.prediction.inductive import TrainingGraph
from utils.training.trained import graph_file

EXPORTED = {"text": "text_encoder", "audio": "audio_encoder"}  # folders next to the training graph
# two encoders that agree in these give the same embeddings
_IDENTITY = ("weights_sha256", "pooling", "tokenizer_sha256", "feature_extractor_sha256")


def run_encoder_name(modality: str, graph: TrainingGraph, run: Path, given: str | None) -> str:
    """Folder or hub name of a modality's encoder: the ``given`` one, the exported one, or the one used in training.

    Raises:
        InputError: the features of the run do not name it.
    """
    known = graph.encoders.get(modality)
    if known is None:
        raise InputError(
            f"{graph_file(run)}: the features of this run do not name their {modality} encoder, so new recordings "
            "cannot be encoded; train on features from extract_features.py"
        )
    exported = run / EXPORTED[modality]
    return given or (str(exported) if exported.is_dir() else encoder_name(known))


def load_run_encoder(
    modality: str, graph: TrainingGraph, run: Path, given: str | None, device: torch.device
) -> TextEncoder | AudioEncoder:
    """Load the encoder that :func:`run_encoder_name` names.

    Raises:
        InputError: the encoder is unknown, not found, or not the one used in training.
    """
    option, name = f"--{modality}_model", run_encoder_name(modality, graph, run, given)
    known = graph.encoders[modality]
    if given is None and known["revision"] is None and not Path(name).is_dir():
        raise InputError(
            f"{name}: the run's {modality} encoder is not on this machine; give its folder with {option}, "
            f"or export the run on the machine that has the encoder (predict.py --export)"
        )
    if modality == "text":
        encoder, found = load_text_encoder(name, known["pooling"], device, option)
    else:
        encoder, found = load_audio_encoder(name, device, option)
        if known.get("segment_seconds") != SEGMENT_SECONDS:
            raise InputError(f"{graph_file(run)}: its recordings were cut into segments of a different length")
    for key in _IDENTITY:
        if known.get(key) != found.get(key):
            what = key.removesuffix("_sha256").replace("_", " ")
            raise InputError(f"{option} {name}: not the encoder of this run (different {what})")
    return encoder
