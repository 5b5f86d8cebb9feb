"""Encoders by folder or hub name, in one-line errors."""

import errno
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import torch
import transformers
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoTokenizer,
    PreTrainedModel,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
    WhisperModel,
)

from models.encoders import (
    AUDIO_TYPES,
    CONVOLUTIONAL,
    TEXT_TYPES,
    AudioEncoder,
    ConvTransformerEncoder,
    TextEncoder,
    WhisperEncoder,
)
from utils.audio import SOURCE_RATES
from utils.errors import InputError, one_line

TEXT_MODEL = "google-bert/bert-base-uncased"  # the paper's
AUDIO_MODEL = "facebook/wav2vec2-base-960h"
WEIGHTS = "model.safetensors"  # in the folder of a model
_NETWORK_SECONDS = 10
_HTTPError = HfHubHTTPError.__bases__[0]  # of the HTTP library, which is another one from version to version
_TRAINING_ONLY = ("masked_spec_embed",)  # weights that a checkpoint may lack
_NO_DECODER = {"decoder_layers": 0, "vocab_size": 8, "max_target_positions": 1, "pad_token_id": 0}
_NO_DECODER |= {"bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
_NOT_OF_IT = ("_name_or_path", "transformers_version", "dtype", "architectures")  # in a model's configuration
_NO_CODE = {"trust_remote_code": False}  # else transformers asks whether it may run what the folder holds
_TOKENIZER_TRIAL = ("Oh God, it's awesome...", "NAÏVE  [LAUGHTER] über-cool", "12 o'clock\t– “so what?”")


def load_text_encoder(
    name: str, pooling: str, device: torch.device, option: str = "--text_model"
) -> tuple[TextEncoder, dict]:
    """A BERT-family model and its description.

    Args:
        name: a folder, a hub name, or ``NAME@REVISION``.
        pooling: see :class:`TextEncoder`.
        option: what errors call it.

    Raises:
        InputError: there is no such model, it is of another kind, or it has no (trained) pooler.
    """
    source, revision = _find(name, option)
    untrained = () if pooling == "pooler" else ("pooler.",)
    model = _load_model(name, source, revision, TEXT_TYPES, option, untrained)
    tokenizer = _load(AutoTokenizer, name, source, revision, option)
    if not len(tokenizer.all_special_tokens) < len(tokenizer) <= model.config.vocab_size:
        raise InputError(
            f"{option} {name}: its tokenizer has {len(tokenizer)} tokens, the model {model.config.vocab_size}; "
            "are the tokenizer's files there (tokenizer.json or a vocabulary)?"
        )
    try:
        encoder = TextEncoder(model, tokenizer, pooling).to(device).eval()
    except ValueError as error:
        raise InputError(f"{option} {name}: {error}; use --text_pooling mean") from error
    _try(name, option, lambda: encoder([encoder.tokenize("yes"), encoder.tokenize("no")]))
    trial = [encoder.tokenize(text) for text in _TOKENIZER_TRIAL]  # lower case, accents, punctuation: settings
    settings = {"vocabulary": tokenizer.get_vocab(), "trial": trial, "max_tokens": encoder.max_tokens}
    description = _describe(name, revision, model, untrained) | {"pooling": pooling, "dim": encoder.dim}
    return encoder, description | {"tokenizer_sha256": _digest(settings)}


def load_audio_encoder(name: str, device: torch.device, option: str = "--audio_model") -> tuple[AudioEncoder, dict]:
    """A Wav2Vec2, HuBERT, WavLM or Whisper encoder and its description; arguments as :func:`load_text_encoder`.

    Raises:
        InputError: there is no such model, or it is of another kind.
    """
    source, revision = _find(name, option)
    model = _load_model(name, source, revision, AUDIO_TYPES, option)
    extractor = _load(AutoFeatureExtractor, name, source, revision, option)
    kind = ConvTransformerEncoder if model.config.model_type in CONVOLUTIONAL else WhisperEncoder
    expected = WhisperFeatureExtractor if kind is WhisperEncoder else Wav2Vec2FeatureExtractor
    if not isinstance(extractor, expected):
        raise InputError(f"{option} {name}: its feature extractor is no {expected.__name__}")
    rate = extractor.sampling_rate
    if not isinstance(rate, int) or not SOURCE_RATES[0] <= rate <= SOURCE_RATES[1]:
        raise InputError(f"{option} {name}: its feature extractor has a sampling rate of {rate!r}")
    try:
        encoder = kind(model, extractor).to(device).eval()
    except ValueError as error:
        raise InputError(f"{option} {name}: {error}") from error
    _try(name, option, lambda: encoder([encoder.prepare(torch.randn(encoder.sampling_rate))]))
    description = _describe(name, revision, encoder.model) | {"pooling": "mean", "dim": encoder.dim}
    return encoder, description | {"feature_extractor_sha256": _digest(extractor.to_dict())}


def save_pretrained(encoder: TextEncoder | AudioEncoder, folder: Path) -> None:
    """Write an encoder as a folder that ``--text_model`` or ``--audio_model`` takes, its weights in one file.

    Raises:
        OSError: it cannot be written.
    """
    model = encoder.model
    if isinstance(encoder, WhisperEncoder):  # AutoModel loads no Whisper encoder alone
        model = WhisperModel(type(model.config)(**{**model.config.to_dict(), **_NO_DECODER}))
        model.encoder.load_state_dict(encoder.model.state_dict())
    try:
        model.save_pretrained(folder, max_shard_size="1TB")
    except SafetensorError as error:  # what becomes of an OSError in safetensors, without its number
        raise OSError(errno.EIO, one_line(error), str(folder)) from error
    mode = (folder / "config.json").stat().st_mode
    (folder / WEIGHTS).chmod(mode)  # safetensors gives it to its owner alone
    (encoder.tokenizer if isinstance(encoder, TextEncoder) else encoder.feature_extractor).save_pretrained(folder)


@torch.inference_mode()
def _try(name: str, option: str, embed: Callable[[], torch.Tensor]) -> None:
    """Raise an InputError where the files of a checkpoint do not fit together, in whichever way that comes out."""
    try:
        embed()
    except Exception as error:
        raise InputError(f"{option} {name}: cannot be used ({type(error).__name__}: {one_line(error)})") from error


def _digest(settings: dict) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()


def _find(name: str, option: str) -> tuple[str, str | None]:
    """Where ``from_pretrained`` finds a model: a folder and None, or a hub name and the commit that it stands for.

    What is in the hub's cache is used without asking the network.
    """
    folder = Path(name)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise InputError(f"{option} {name}: no config.json in this folder; it should hold a transformers model")
        return str(folder), None
    repository, _, revision = name.partition("@")
    try:
        cached = huggingface_hub.try_to_load_from_cache(repository, "config.json", revision=revision or None)
        if isinstance(cached, str):
            return repository, Path(cached).parent.name
        found = huggingface_hub.model_info(repository, revision=revision or None, timeout=_NETWORK_SECONDS)
    except HFValidationError as error:
        raise InputError(f"{option} {name}: neither a folder nor a name of the Hugging Face hub") from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise InputError(f"{option} {name}: the Hugging Face hub has no such model (or it is private)") from error
    except (_HTTPError, OSError) as error:
        raise InputError(_missing(name, option)) from error
    return repository, found.sha


def _missing(name: str, option: str) -> str:
    repository, _, revision = name.partition("@")
    fetch = f"hf download {repository}" + (f" --revision {revision}" if revision else "")
    return (
        f"{option} {name}: not on this machine, and the Hugging Face hub cannot be reached; "
        f"fetch it where there is a network ('{fetch}' fills the cache), or give the folder of a copy"
    )


def _load(kind: type, name: str, source: str, revision: str | None, option: str, **options):
    """``kind.from_pretrained``: from the folder or the hub's cache, else from the hub."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        try:
            return kind.from_pretrained(source, revision=revision, local_files_only=True, **_NO_CODE, **options)
        except OSError:
            if revision is None:
                raise
            huggingface_hub.model_info(
                source, revision=revision, timeout=_NETWORK_SECONDS
            )  # without a network, at once
            transformers.logging.enable_progress_bar()  # those of the downloads
            return kind.from_pretrained(source, revision=revision, **_NO_CODE, **options)
    except (_HTTPError, OSError) as error:
        raise InputError(_missing(name, option) if revision else f"{option} {name}: {one_line(error)}") from error
    except Exception as error:  # transformers raises what it likes on a damaged folder
        raise InputError(f"{option} {name}: cannot be loaded ({one_line(error)})") from error


def _load_model(
    name: str, source: str, revision: str | None, types: tuple[str, ...], option: str, untrained: tuple[str, ...] = ()
) -> PreTrainedModel:
    """The model in float32, whatever its file holds.

    Args:
        types: the model types that will do.
        untrained: beginnings of the names of weights that the checkpoint may lack.

    Raises:
        InputError: another type, or a weight is not in the checkpoint, which would leave it random.
    """
    config = _load(AutoConfig, name, source, revision, option)
    if config.model_type not in types:
        raise InputError(f"{option} {name}: a {config.model_type} model; expected one of {', '.join(types)}")
    model, info = _load(
        AutoModel, name, source, revision, option, config=config, dtype=torch.float32, output_loading_info=True
    )
    cut = sorted(key for key in info["unexpected_keys"] if re.search(r"(^|\.)encoder\.", key))
    if cut:
        raise InputError(f"{option} {name}: its checkpoint has {cut[0]}, for which its config.json leaves no place")
    absent = sorted(key for key in info["missing_keys"] if not key.startswith((*_TRAINING_ONLY, *untrained)))
    if absent:
        hint = "; use --text_pooling mean" if absent[0].startswith("pooler.") else ""
        raise InputError(f"{option} {name}: its checkpoint has no {absent[0]}, which would stay random{hint}")
    return model


def _describe(name: str, revision: str | None, model: nn.Module, unused: tuple[str, ...] = ()) -> dict:
    """Which model it is: two of the same ``weights_sha256`` give the same embeddings.

    Weights whose names begin with ``unused`` have no part in these, and are random where the checkpoint lacks them.
    """
    left_out = (*_NOT_OF_IT, *(_NO_DECODER if model.config.model_type == "whisper" else ()))
    digest = hashlib.sha256(_digest({k: v for k, v in model.config.to_dict().items() if k not in left_out}).encode())
    for key, tensor in sorted(model.state_dict().items()):
        if key.startswith((*_TRAINING_ONLY, *unused)):
            continue
        digest.update(key.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return {
        "name": name if revision else str(Path(name).resolve()),
        "revision": revision,
        "type": model.config.model_type,
        "weights_sha256": digest.hexdigest(),
    }
