"""Pretrained encoders: one embedding for each transcript or recording (Section II.A of the paper).

A batch of inputs of different lengths gives the same embeddings as encoding each input alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import FeatureExtractionMixin, PreTrainedModel, PreTrainedTokenizerBase

from models.config import POOLINGS

CONVOLUTIONAL = ("wav2vec2", "hubert", "wavlm")  # model types with a convolutional front end over the waveform
AUDIO_TYPES = (*CONVOLUTIONAL, "whisper")
TEXT_TYPES = ("albert", "bert", "camembert", "deberta", "deberta-v2", "distilbert", "electra", "mpnet", "roberta")
TEXT_TYPES += ("xlm-roberta",)


@dataclass(frozen=True)
class AudioInput:
    """The model input of one recording, and the number of encoder output frames that contain speech."""

    values: np.ndarray  # not a tensor: workers pass tensors in shared memory, which containers limit
    frames: int


def masked_mean(hidden: Tensor, frames: Sequence[int]) -> Tensor:
    """Mean over the first ``frames[i]`` time steps of row i. Shapes: [B, T, D] to [B, D]."""
    lengths = torch.tensor(frames, device=hidden.device)
    mask = torch.arange(hidden.size(1), device=hidden.device) < lengths[:, None]
    return hidden.mul(mask[..., None]).sum(1) / lengths[:, None]


class TextEncoder(nn.Module):
    """A BERT-family encoder.

    Args:
        pooling: ``pooler`` for the pooler output (as in the published features), ``mean`` for the mean over tokens,
            ``cls`` for the last hidden state of the first token.

    Raises:
        ValueError: The pooling is unknown, or it is ``pooler`` and the model has no pooler.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, pooling: str = "pooler"):
        super().__init__()
        if pooling not in POOLINGS:
            raise ValueError(f"unknown pooling {pooling!r}")
        if pooling == "pooler" and getattr(model, "pooler", None) is None:
            raise ValueError(f"this {model.config.model_type} model has no pooler")
        self.model = model
        self.tokenizer = tokenizer
        self.tokenizer.padding_side = "right"  # pooler, cls and masked_mean read from the first token on
        self.pooling = pooling
        self.dim = model.config.hidden_size
        # RoBERTa's position ids start after the padding index
        padding = getattr(getattr(model.embeddings, "position_embeddings", None), "padding_idx", None)
        positions = model.config.max_position_embeddings - (0 if padding is None else padding + 1)
        self.max_tokens = min(tokenizer.model_max_length, positions)

    def tokenize(self, text: str) -> list[int]:
        """Token ids with [CLS] and [SEP]. There may be more than ``max_tokens``; :meth:`forward` truncates them."""
        return self.tokenizer(text, verbose=False)["input_ids"]

    def forward(self, tokens: list[list[int]]) -> Tensor:
        """Embeddings [B, dim] of B lists of token ids of any lengths."""
        last = self.max_tokens - 1
        ids = [each if len(each) <= self.max_tokens else [*each[:last], each[-1]] for each in tokens]  # keeps [SEP]
        batch = self.tokenizer.pad({"input_ids": ids}, return_tensors="pt").to(self.model.device)
        output = self.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        if self.pooling == "pooler":
            return output.pooler_output
        if self.pooling == "cls":
            return output.last_hidden_state[:, 0]
        return masked_mean(output.last_hidden_state, [len(each) for each in ids])

    def parts(self) -> tuple[nn.ModuleList, list[nn.Module]]:
        """The transformer layers, lowest first, and the modules above them.

        Raises:
            ValueError: All layers share one set of weights (ALBERT).
        """
        transformer = getattr(self.model, "encoder", None) or self.model.transformer  # DistilBERT's name
        if not hasattr(transformer, "layer"):
            raise ValueError(f"all layers of {self.model.config.model_type} models share their weights")
        return transformer.layer, [self.model.pooler] if self.pooling == "pooler" else []


class AudioEncoder(nn.Module):
    """Mean over time of the last hidden state of a speech encoder.

    Subclasses define three methods:

    - ``prepare`` converts a mono waveform [T] at ``sampling_rate`` to an :class:`AudioInput`. It runs on the CPU, also
      in worker processes.
    - ``hidden`` takes a list of B inputs and returns the last hidden state [B, T, dim]. The first ``frames`` time steps
      of each row contain speech.
    - ``parts`` works like :meth:`TextEncoder.parts`.
    """

    max_seconds: float | None = None  # longest input; None means no limit

    def __init__(self, model: PreTrainedModel, feature_extractor: FeatureExtractionMixin):
        super().__init__()
        self.model = model
        self.feature_extractor = feature_extractor
        self.dim = model.config.hidden_size
        self.sampling_rate = feature_extractor.sampling_rate

    def cost(self, seconds: float) -> float:
        """The compute and memory cost of an input of this length, in seconds of speech."""
        return seconds

    def forward(self, inputs: list[AudioInput]) -> Tensor:
        """Embeddings [B, dim]."""
        return masked_mean(self.hidden(inputs), [each.frames for each in inputs])

    def _extract(self, waveform: Tensor, name: str) -> np.ndarray:
        return self.feature_extractor(waveform.numpy(), sampling_rate=self.sampling_rate, return_tensors="np")[name][0]


class ConvTransformerEncoder(AudioEncoder):
    """Wav2Vec2, HuBERT and WavLM: strided convolutions over the waveform, then a transformer.

    The convolutions run on one recording at a time, because the base models use group normalisation over time, where
    padding would change every frame. The transformer runs on the padded batch with an attention mask.

    Raises:
        ValueError: The model has an adapter after its transformer.
    """

    def __init__(self, model: PreTrainedModel, feature_extractor: FeatureExtractionMixin):
        if getattr(model.config, "add_adapter", False):
            raise ValueError("models with an adapter after the transformer are not supported")
        super().__init__(model, feature_extractor)

    def prepare(self, waveform: Tensor) -> AudioInput:
        values = self._extract(waveform, "input_values")
        frames = values.size
        for kernel, stride in zip(self.model.config.conv_kernel, self.model.config.conv_stride, strict=True):
            frames = (frames - kernel) // stride + 1
        return AudioInput(values, frames)

    def hidden(self, inputs: list[AudioInput]) -> Tensor:
        device = self.model.device
        waveforms = [torch.from_numpy(each.values)[None].to(device) for each in inputs]
        convolved = [self.model.feature_extractor(waveform)[0].T for waveform in waveforms]  # [T_i, C]
        frames = [each.frames for each in inputs]
        mask = torch.arange(max(frames), device=device) < torch.tensor(frames, device=device)[:, None]
        projected = self.model.feature_projection(pad_sequence(convolved, batch_first=True))
        hidden = projected[0] if isinstance(projected, tuple) else projected  # HuBERT returns a tensor
        return self.model.encoder(hidden, attention_mask=mask).last_hidden_state

    def parts(self) -> tuple[nn.ModuleList, list[nn.Module]]:
        transformer = self.model.encoder  # in the base models, its layer norm comes before the layers
        return transformer.layers, [transformer.layer_norm] if self.model.config.do_stable_layer_norm else []


class WhisperEncoder(AudioEncoder):
    """Whisper's encoder. Its input window is always 30 s; the mean is over the frames that hold speech."""

    def __init__(self, model: PreTrainedModel, feature_extractor: FeatureExtractionMixin):
        super().__init__(model.get_encoder() if hasattr(model, "get_encoder") else model, feature_extractor)
        self.max_seconds = feature_extractor.chunk_length
        self._samples_per_frame = feature_extractor.n_samples // self.model.config.max_source_positions

    def prepare(self, waveform: Tensor) -> AudioInput:
        frames = min(math.ceil(waveform.numel() / self._samples_per_frame), self.model.config.max_source_positions)
        return AudioInput(self._extract(waveform, "input_features"), frames)

    def cost(self, seconds: float) -> float:
        return self.max_seconds

    def hidden(self, inputs: list[AudioInput]) -> Tensor:
        mel = torch.from_numpy(np.stack([each.values for each in inputs])).to(self.model.device)
        return self.model(mel).last_hidden_state

    def parts(self) -> tuple[nn.ModuleList, list[nn.Module]]:
        return self.model.layers, [self.model.layer_norm]


def unfreeze_upper(encoder: TextEncoder | AudioEncoder, count: int) -> list[nn.Module]:
    """Freeze an encoder except its upper ``count`` transformer layers and the modules above them (Section II.A).

    Convolutional front ends and word embeddings are always frozen.

    Returns:
        The trainable modules.

    Raises:
        ValueError: The encoder has fewer layers, or its layers share their weights.
    """
    layers, above = encoder.parts()
    if not 1 <= count <= len(layers):
        raise ValueError(f"must be from 1 to {len(layers)}, the number of transformer layers")
    upper = [*layers[-count:], *above]
    encoder.requires_grad_(False)
    for module in upper:
        module.requires_grad_(True)
    return upper
