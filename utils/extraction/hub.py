"""Loads and saves pretrained encoders as transformers models."""

import errno
import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForCTC,
    AutoTokenizer,
    PreTrainedModel,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperModel,
)

from models.config import POOLINGS
from models.encoders import (
    AUDIO_TYPES,
    CONVOLUTIONAL,
    TEXT_TYPES,
    AudioEncoder,
    ConvTransformerEncoder,
    TextEncoder,
    WhisperEncoder,
)
from models.recognizers import CTCHead, WhisperHead
from utils.data.audio import SOURCE_RATES
from utils.errors import InputError, one_line, reading, shown
from utils.extraction.checkpoint import NO_DECODER, Checkpoint, digest_of, find_checkpoint
from utils.io import naming, read_file, read_json, write_json

WEIGHTS = "model.safetensors"
POOLING_FOLDER = "1_Pooling"  # name in sentence-transformers
# both spellings of sentence-transformers
_MODES = {"cls": "cls", "cls_token": "cls", "mean": "mean", "mean_tokens": "mean"}
_CHOICE = f"set --text_pooling to one of {', '.join(POOLINGS)}"
_TOKENIZER_TRIAL = ("Oh God, it's awesome...", "NAÏVE  [LAUGHTER] über-cool", "12 o'clock\t– “so what?”")


def load_text_encoder(
    name: str, pooling: str | None, device: torch.device, option: str = "--text_model"
) -> tuple[TextEncoder, dict]:
    """Load a BERT-family encoder in evaluation mode, and describe it.

    Args:
        name: Folder, hub name, or ``NAME@REVISION``.
        pooling: One of :data:`models.config.POOLINGS`. None selects :func:`own_pooling`.
        option: The option that error messages name.

    Raises:
        InputError: The model does not exist, is damaged, has another type, or has no (trained) pooler. See also
            :func:`own_pooling`.
    """
    checkpoint = find_checkpoint(name, option)
    pooling = pooling or own_pooling(checkpoint)
    untrained = () if pooling == "pooler" else ("pooler.",)
    model = checkpoint.load_model(TEXT_TYPES, untrained)
    tokenizer = checkpoint.load(AutoTokenizer)
    if not len(tokenizer.all_special_tokens) < len(tokenizer) <= model.config.vocab_size:
        raise checkpoint.error(
            f"its tokenizer has {len(tokenizer)} tokens, but the model has {model.config.vocab_size}; "
            "a tokenizer file (tokenizer.json or a vocabulary) may be missing"
        )
    try:
        encoder = TextEncoder(model, tokenizer, pooling).to(device).eval()
    except ValueError as error:
        raise checkpoint.error(f"{error}; use --text_pooling mean") from error
    checkpoint.check_usable(lambda: encoder([encoder.tokenize("yes"), encoder.tokenize("no")]))
    trial = [encoder.tokenize(text) for text in _TOKENIZER_TRIAL]  # shows how case, accents, punctuation are handled
    settings = {"vocabulary": tokenizer.get_vocab(), "trial": trial, "max_tokens": encoder.max_tokens}
    description = checkpoint.describe(model, untrained) | {"pooling": pooling, "dim": encoder.dim}
    return encoder, description | {"tokenizer_sha256": digest_of(settings)}


def own_pooling(checkpoint: Checkpoint) -> str:
    """The pooling that a sentence-transformers model requests; ``pooler`` for any other model.

    Modules after the pooling are not applied. One of them, Normalize, would not change any cosine similarity or
    neighbour.

    Raises:
        InputError: The model requests a pooling that is not supported, or a file is damaged.
    """
    folder, listed = POOLING_FOLDER, checkpoint.file("modules.json")
    if listed:
        with reading(listed, "not a list of sentence-transformers modules"):
            modules = json.loads(read_file(listed))
            poolings = [(each["type"].rpartition(".")[2], each["path"].strip("/")) for each in modules]
        poolings = [each for each in poolings if each[0].endswith("Pooling")]
        kind, folder = poolings[0] if poolings else ("Pooling", folder)
        if kind != "Pooling":
            raise InputError(f"{listed}: requests {kind}, which is not supported; {_CHOICE}")
    path = checkpoint.file(f"{folder}/config.json")
    if path is None:
        if listed and poolings:
            raise InputError(f"{listed}: its {folder}/config.json is missing; {_CHOICE}")
        return "pooler"
    config = read_json(path)
    flags = [key.removeprefix("pooling_mode_") for key, on in config.items() if key.startswith("pooling_mode_") and on]
    asked = config.get("pooling_mode", flags or "mean")  # sentence-transformers' default
    match [asked] if isinstance(asked, str) else asked:
        case [str(mode)] if mode in _MODES:
            return _MODES[mode]
    raise InputError(f"{path}: requests the pooling {shown(asked)}, which is not supported; {_CHOICE}")


def load_audio_encoder(name: str, device: torch.device, option: str = "--audio_model") -> tuple[AudioEncoder, dict]:
    """Load a Wav2Vec2, HuBERT, WavLM or Whisper encoder in evaluation mode, and describe it.

    Arguments and errors are those of :func:`load_text_encoder`.
    """
    checkpoint = find_checkpoint(name, option)
    return _audio_encoder(checkpoint, checkpoint.load_model(AUDIO_TYPES), device)


def recognizes_speech(name: str) -> bool:
    """Whether a model can transcribe: its configuration names a Whisper model or a CTC head.

    Raises:
        InputError: The model does not exist.
    """
    named = find_checkpoint(name, "--audio_model").load(AutoConfig).architectures or [""]
    return named[0].endswith(("ForCTC", "WhisperForConditionalGeneration"))


def load_recognizer(name: str, device: torch.device, option: str) -> tuple[AudioEncoder, nn.Module, dict, str]:
    """Load a speech recogniser.

    Returns:
        Its encoder, its head (:mod:`models.recognizers`), the description of the encoder, and a SHA-256 of everything
        that the transcripts depend on.

    Arguments and errors are those of :func:`load_text_encoder`.
    """
    checkpoint = find_checkpoint(name, option)
    whisper = checkpoint.load(AutoConfig).model_type not in CONVOLUTIONAL
    kind = WhisperForConditionalGeneration if whisper else AutoModelForCTC
    model = checkpoint.load_model(AUDIO_TYPES, kind=kind).to(device).eval()
    tokenizer = checkpoint.load(AutoTokenizer)
    encoder, description = _audio_encoder(checkpoint, model.get_encoder() if whisper else model.base_model, device)
    head = WhisperHead(model, tokenizer) if whisper else CTCHead(model, tokenizer)
    second = encoder.prepare(torch.randn(encoder.sampling_rate))
    checkpoint.check_usable(lambda: head(encoder.hidden([second]), [second.frames]))
    settings = {"weights": checkpoint.describe(model)["weights_sha256"], "vocabulary": tokenizer.get_vocab()}
    if whisper:
        settings |= {k: v for k, v in model.generation_config.to_dict().items() if k != "transformers_version"}
    return encoder, head, description, digest_of(settings | {"encoder": description["feature_extractor_sha256"]})


def _audio_encoder(checkpoint: Checkpoint, model: PreTrainedModel, device: torch.device) -> tuple[AudioEncoder, dict]:
    """Combine a loaded model with its feature extractor, and describe the encoder."""
    extractor = checkpoint.load(AutoFeatureExtractor)
    kind = ConvTransformerEncoder if model.config.model_type in CONVOLUTIONAL else WhisperEncoder
    expected = WhisperFeatureExtractor if kind is WhisperEncoder else Wav2Vec2FeatureExtractor
    if not isinstance(extractor, expected):
        raise checkpoint.error(f"its feature extractor is not a {expected.__name__}")
    rate = extractor.sampling_rate
    if not isinstance(rate, int) or not SOURCE_RATES[0] <= rate <= SOURCE_RATES[1]:
        raise checkpoint.error(f"its feature extractor has the unsupported sampling rate {rate!r}")
    try:
        encoder = kind(model, extractor).to(device).eval()
    except ValueError as error:
        raise checkpoint.error(str(error)) from error
    checkpoint.check_usable(lambda: encoder([encoder.prepare(torch.randn(encoder.sampling_rate))]))
    description = checkpoint.describe(encoder.model) | {"pooling": "mean", "dim": encoder.dim}
    return encoder, description | {"feature_extractor_sha256": digest_of(extractor.to_dict())}


def save_pretrained(encoder: TextEncoder | AudioEncoder, folder: Path) -> None:
    """Save an encoder to a folder for ``--text_model`` or ``--audio_model``, with all weights in one file.

    Raises:
        OSError: The folder cannot be written.
    """
    model = encoder.model
    if isinstance(encoder, WhisperEncoder):  # AutoModel cannot load a Whisper encoder alone
        model = WhisperModel(type(model.config)(**{**model.config.to_dict(), **NO_DECODER}))
        model.encoder.load_state_dict(encoder.model.state_dict())
    preprocessor = encoder.tokenizer if isinstance(encoder, TextEncoder) else encoder.feature_extractor
    with naming(folder):
        try:
            model.save_pretrained(folder, max_shard_size="1TB")
            preprocessor.save_pretrained(folder)
        except Exception as error:  # safetensors and tokenizers raise errors of their own instead of an OSError
            if not isinstance(error, SafetensorError) and type(error) is not Exception:
                raise
            raise OSError(errno.EIO, one_line(error)) from error
        mode = (folder / "config.json").stat().st_mode
        (folder / WEIGHTS).chmod(mode)  # safetensors makes the file readable only by its owner
    if isinstance(encoder, TextEncoder) and encoder.pooling != "pooler":  # otherwise pooler would be assumed
        asked = {f"pooling_mode_{mode}": _MODES[mode] == encoder.pooling for mode in ("cls_token", "mean_tokens")}
        write_json(folder / POOLING_FOLDER / "config.json", {"word_embedding_dimension": encoder.dim, **asked})
