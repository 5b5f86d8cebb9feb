"""Loads transformers checkpoints from a folder or the Hugging Face hub. Every failure is a one-line error."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
import torch
import transformers
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedModel

from utils.errors import InputError, one_line

# the smallest Whisper decoder that the configuration allows
NO_DECODER = {"decoder_layers": 0, "vocab_size": 8, "max_target_positions": 1, "pad_token_id": 0}
NO_DECODER |= {"bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
NETWORK_SECONDS = 10
_HTTPError = HfHubHTTPError.__bases__[0]  # from the HTTP library, which depends on the version of the hub client
_TRAINING_ONLY = ("masked_spec_embed",)  # weights that a checkpoint may lack
_IRRELEVANT = ("_name_or_path", "transformers_version", "dtype", "architectures")  # configuration keys
_NO_CODE = {"trust_remote_code": False}  # otherwise transformers asks whether to run code from the folder


@dataclass(frozen=True)
class Checkpoint:
    """A model as the user names it (``option``, ``name``), and where ``from_pretrained`` finds it.

    ``source`` is a folder and ``revision`` is None, or ``source`` is a hub name and ``revision`` a commit.
    """

    option: str
    name: str
    source: str
    revision: str | None

    def error(self, message: str) -> InputError:
        return InputError(f"{self.option} {self.name}: {message}")

    def load(self, kind: type, **options):
        """Call ``kind.from_pretrained`` on the folder or the local hub cache, and if both fail on the hub.

        Raises:
            InputError: The files are missing or damaged, or the hub cannot be reached.
        """
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        options |= {"revision": self.revision, **_NO_CODE}
        try:
            try:
                return kind.from_pretrained(self.source, local_files_only=True, **options)
            except OSError:
                if self.revision is None:
                    raise
                # unlike from_pretrained, fails at once without a network
                huggingface_hub.model_info(self.source, revision=self.revision, timeout=NETWORK_SECONDS)
                transformers.logging.enable_progress_bar()  # for the downloads
                return kind.from_pretrained(self.source, **options)
        except (_HTTPError, OSError) as error:
            raise self.error(_how_to_fetch(self.name) if self.revision else one_line(error)) from error
        except Exception as error:  # transformers raises many types on a damaged folder
            raise self.error(f"cannot be loaded ({one_line(error)})") from error

    def file(self, name: str) -> Path | None:
        """The path of another file of the model; None if there is none.

        For a model that is already in the hub cache, nothing is downloaded.

        Raises:
            InputError: The hub is not reachable.
        """
        if self.revision is None:
            path = Path(self.source) / name
            return path if path.is_file() else None
        where = {"repo_id": self.source, "revision": self.revision}
        cached = huggingface_hub.try_to_load_from_cache(filename=name, **where)
        if isinstance(cached, str):
            return Path(cached)
        if isinstance(huggingface_hub.try_to_load_from_cache(filename="config.json", **where), str):
            return None
        try:
            return Path(huggingface_hub.hf_hub_download(filename=name, etag_timeout=NETWORK_SECONDS, **where))
        except RemoteEntryNotFoundError:
            return None
        except (_HTTPError, OSError) as error:
            raise self.error(_how_to_fetch(self.name)) from error

    def load_model(
        self, types: tuple[str, ...], untrained: tuple[str, ...] = (), kind: type = AutoModel
    ) -> PreTrainedModel:
        """Load the model in float32, regardless of the precision of its file.

        Args:
            types: Accepted model types.
            untrained: Prefixes of weights that the checkpoint may lack.
            kind: The auto class, with or without a head.

        Raises:
            InputError: The model has another type, or its checkpoint has more layers than the configuration or lacks a
                weight, which would be random.
        """
        config = self.load(AutoConfig)
        if config.model_type not in types:
            raise self.error(f"is a {config.model_type} model; expected one of {', '.join(types)}")
        model, info = self.load(kind, config=config, dtype=torch.float32, output_loading_info=True)
        surplus = sorted(key for key in info["unexpected_keys"] if re.search(r"(^|\.)encoder\.", key))
        if surplus:
            raise self.error(f"its checkpoint has {surplus[0]}, for which its config.json has no layer")
        allowed = (key.startswith(untrained) or key.endswith(_TRAINING_ONLY) for key in info["missing_keys"])
        absent = sorted(key for key, may in zip(info["missing_keys"], allowed, strict=True) if not may)
        if absent:
            hint = "; use --text_pooling mean" if absent[0].startswith("pooler.") else ""
            raise self.error(f"its checkpoint lacks {absent[0]}, which would be random{hint}")
        return model

    @torch.inference_mode()
    def check_usable(self, embed: Callable[[], torch.Tensor]) -> None:
        """Raise an InputError if the files of the checkpoint do not fit together."""
        try:
            embed()
        except Exception as error:
            raise self.error(f"cannot be used ({type(error).__name__}: {one_line(error)})") from error

    def describe(self, model: nn.Module, unused: tuple[str, ...] = ()) -> dict:
        """Describe the identity of the model. Models with equal ``weights_sha256`` give equal embeddings.

        Args:
            unused: Prefixes of weights that do not affect the embeddings. They are random if the checkpoint lacks them.
        """
        ignored = (*_IRRELEVANT, *(NO_DECODER if model.config.model_type == "whisper" else ()))
        digest = hashlib.sha256(
            digest_of({k: v for k, v in model.config.to_dict().items() if k not in ignored}).encode()
        )
        for key, tensor in sorted(model.state_dict().items()):
            if not key.startswith((*_TRAINING_ONLY, *unused)):
                digest.update(key.encode())
                digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return {
            "name": self.name if self.revision else str(Path(self.name).resolve()),
            "revision": self.revision,
            "type": model.config.model_type,
            "weights_sha256": digest.hexdigest(),
        }


def find_checkpoint(name: str, option: str) -> Checkpoint:
    """Locate a model. A model in the hub cache needs no network."""
    if Path(name).is_dir():
        if not (Path(name) / "config.json").is_file():
            raise InputError(f"{option} {name}: no config.json in this folder; expected a transformers model")
        return Checkpoint(option, name, name, None)
    repository, _, revision = name.partition("@")
    with asking_the_hub(name, option):
        cached = huggingface_hub.try_to_load_from_cache(repository, "config.json", revision=revision or None)
        if isinstance(cached, str):
            return Checkpoint(option, name, repository, Path(cached).parent.name)
        found = huggingface_hub.model_info(repository, revision=revision or None, timeout=NETWORK_SECONDS)
    return Checkpoint(option, name, repository, found.sha)


@contextmanager
def asking_the_hub(name: str, option: str) -> Iterator[None]:
    """Convert errors of the hub client to an InputError about ``name``, the value of ``option``."""
    try:
        yield
    except HFValidationError as error:
        raise InputError(f"{option} {name}: neither a folder nor a valid model name on the Hugging Face hub") from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise InputError(f"{option} {name}: no such model on the Hugging Face hub (or it is private)") from error
    except (_HTTPError, OSError) as error:
        raise InputError(f"{option} {name}: {_how_to_fetch(name)}") from error


def _how_to_fetch(name: str) -> str:
    repository, _, revision = name.partition("@")
    fetch = f"hf download {repository}" + (f" --revision {revision}" if revision else "")
    return (
        "not on this machine, and the Hugging Face hub cannot be reached; "
        f"run '{fetch}' on a machine with network access and copy its cache, or give the folder of a copy"
    )


def digest_of(settings: dict) -> str:
    """SHA-256 of settings, as hexadecimal digits."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()
