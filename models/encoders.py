"""Pretrained encoders: a transcript or a recording to one vector (II.A of the paper).

They work on batches of different lengths, and a batch gives the vectors that its members give alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import FeatureExtractionMixin, PreTrainedModel, PreTrainedTokenizerBase

POOLINGS = ("pooler", "mean")
CONVOLUTIONAL = ("wav2vec2", "hubert", "wavlm")  # model types whose front end reads the waveform
AUDIO_TYPES = (*CONVOLUTIONAL, "whisper")
TEXT_TYPES = ("albert", "bert", "camembert", "deberta", "deberta-v2", "distilbert", "electra", "mpnet", "roberta")
TEXT_TYPES += ("xlm-roberta",)


@dataclass(frozen=True)
class AudioInput:
    """What a model takes of one recording, made on the CPU; ``frames`` of the output are speech."""

    values: Tensor
    frames: int


def masked_mean(hidden: Tensor, frames: Sequence[int]) -> Tensor:
    """Mean of the first ``frames[i]`` steps of each row. Shapes: [B, T, D] to [B, D]."""
    lengths = torch.tensor(frames, device=hidden.device)
    mask = torch.arange(hidden.size(1), device=hidden.device) < lengths[:, None]
    return hidden.mul(mask[..., None]).sum(1) / lengths[:, None]


class TextEncoder(nn.Module):
    """A BERT-family encoder.

    Args:
        pooling: ``pooler``, its pooler output (the published features); or ``mean`` over the tokens.

    Raises:
        ValueError: the model has no pooler.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, pooling: str = "pooler"):
        super().__init__()
        if pooling not in POOLINGS:
            raise ValueError(f"unknown pooling {pooling!r}")
        if pooling == "pooler" and getattr(model, "pooler", None) is None:
            raise ValueError(f"a {model.config.model_type} model without a pooler")
        self.model = model
        self.tokenizer = tokenizer
        self.tokenizer.padding_side = "right"  # the pooler reads the first token, the mean the first ones
        self.pooling = pooling
        self.dim = model.config.hidden_size
        self.max_tokens = min(tokenizer.model_max_length, _positions(model))

    def tokenize(self, text: str) -> list[int]:
        """Token ids with [CLS] and [SEP]; may be longer than ``max_tokens``, which :meth:`forward` cuts off."""
        return self.tokenizer(text, verbose=False)["input_ids"]

    def forward(self, tokens: list[list[int]]) -> Tensor:
        """Embeddings [B, dim] of token id lists of any lengths."""
        ids = [self._truncate(each) for each in tokens]
        batch = self.tokenizer.pad({"input_ids": ids}, return_tensors="pt").to(self.model.device)
        output = self.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        if self.pooling == "pooler":
            return output.pooler_output
        return masked_mean(output.last_hidden_state, [len(each) for each in ids])

    def parts(self) -> tuple[nn.ModuleList, list[nn.Module]]:
        """The transformer layers, lowest first, and what lies above them.

        Raises:
            ValueError: the model has no layers of their own weights (ALBERT).
        """
        transformer = getattr(self.model, "encoder", None) or self.model.transformer  # DistilBERT's name
        if not hasattr(transformer, "layer"):
            raise ValueError(f"all layers of {self.model.config.model_type} models share their weights")
        return transformer.layer, [self.model.pooler] if self.pooling == "pooler" else []

    def _truncate(self, ids: list[int]) -> list[int]:
        return ids if len(ids) <= self.max_tokens else [*ids[: self.max_tokens - 1], ids[-1]]  # keeps [SEP]


def _positions(model: PreTrainedModel) -> int:
    """Tokens that a model has positions for; RoBERTa and its kin begin to count after the padding's."""
    embeddings = getattr(model.embeddings, "position_embeddings", None)
    first = getattr(embeddings, "padding_idx", None)
    return model.config.max_position_embeddings - (0 if first is None else first + 1)


class AudioEncoder(nn.Module):
    """Mean over time of an encoder's last hidden state.

    ``prepare`` turns one recording into the model's input on the CPU, as the checkpoint's own feature extractor says,
    and may run in another thread; ``forward`` takes a list of these.
    """

    max_seconds: float | None = None  # of an input

    def __init__(self, model: PreTrainedModel, feature_extractor: FeatureExtractionMixin):
        super().__init__()
        self.model = model
        self.feature_extractor = feature_extractor
        self.dim = model.config.hidden_size
        self.sampling_rate = feature_extractor.sampling_rate

    def prepare(self, waveform: Tensor) -> AudioInput:
        """Input of a mono waveform [T] at ``sampling_rate``."""
        raise NotImplementedError

    def cost(self, seconds: float) -> float:
        """Seconds of speech that an input of this length takes as much work and memory as."""
        raise NotImplementedError

    def forward(self, inputs: list[AudioInput]) -> Tensor:
        """Embeddings [B, dim]."""
        raise NotImplementedError

    def parts(self) -> tuple[nn.ModuleList, list[nn.Module]]:
        """The transformer layers, lowest first, and what lies above them."""
        raise NotImplementedError

    def _extract(self, waveform: Tensor, name: str) -> Tensor:
        extracted = self.feature_extractor(waveform.numpy(), sampling_rate=self.sampling_rate, return_tensors="pt")
        return extracted[name][0]


class ConvTransformerEncoder(AudioEncoder):
    """Wav2Vec2, HuBERT, WavLM: strided convolutions over the waveform, then a transformer.

    The convolutions run over one recording at a time: where their first layer normalises over time (group norm, the
    base models), padding would change every frame. The transformer runs over the batch, with a mask.
    """

    def __init__(self, model: PreTrainedModel, feature_extractor: FeatureExtractionMixin):
        if getattr(model.config, "add_adapter", False):
            raise ValueError("a model with an adapter after its transformer")
        super().__init__(model, feature_extractor)

    def prepare(self, waveform: Tensor) -> AudioInput:
        values = self._extract(waveform, "input_values")
        frames = values.numel()
        for kernel, stride in zip(self.model.config.conv_kernel, self.model.config.conv_stride, strict=True):
            frames = (frames - kernel) // stride + 1
        return AudioInput(values, frames)

    def cost(self, seconds: float) -> float:
        return seconds

    def forward(self, inputs: list[AudioInput]) -> Tensor:
        device = self.model.device
        convolved = [self.model.feature_extractor(each.values[None].to(device))[0].T for each in inputs]  # [T_i, C]
        frames = [each.frames for each in inputs]
        mask = torch.arange(max(frames), device=device) < torch.tensor(frames, device=device)[:, None]
        projected = self.model.feature_projection(pad_sequence(convolved, batch_first=True))
        hidden = projected[0] if isinstance(projected, tuple) else projected  # HuBERT returns no second value
        return masked_mean(self.model.encoder(hidden, attention_mask=mask).last_hidden_state, frames)

    def parts(self) -> tuple[nn.ModuleList, list[nn.Module]]:
        transformer = self.model.encoder  # the base models have their layer norm below the layers
        return transformer.layers, [transformer.layer_norm] if self.model.config.do_stable_layer_norm else []


class WhisperEncoder(AudioEncoder):
    """Whisper's encoder. Its input is always a window of 30 s; the mean is over the frames that hold the recording."""

    def __init__(self, model: PreTrainedModel, feature_extractor: FeatureExtractionMixin):
        super().__init__(model.get_encoder() if hasattr(model, "get_encoder") else model, feature_extractor)
        self.max_seconds = feature_extractor.chunk_length
        self._samples_a_frame = feature_extractor.n_samples // self.model.config.max_source_positions

    def prepare(self, waveform: Tensor) -> AudioInput:
        frames = min(math.ceil(waveform.numel() / self._samples_a_frame), self.model.config.max_source_positions)
        return AudioInput(self._extract(waveform, "input_features"), frames)

    def cost(self, seconds: float) -> float:
        return self.max_seconds

    def forward(self, inputs: list[AudioInput]) -> Tensor:
        mel = torch.stack([each.values for each in inputs]).to(self.model.device)
        return masked_mean(self.model(mel).last_hidden_state, [each.frames for each in inputs])

    def parts(self) -> tuple[nn.ModuleList, list[nn.Module]]:
        return self.model.layers, [self.model.layer_norm]


def unfreeze_upper(encoder: TextEncoder | AudioEncoder, count: int) -> list[nn.Module]:
    """Freeze an encoder but for its ``count`` upper transformer layers and what lies above them (II.A of the paper).

    A convolutional front end, or the embeddings of words, are always frozen.

    Returns:
        What is not frozen.

    Raises:
        ValueError: the encoder has fewer layers, or none of their own weights.
    """
    layers, above = encoder.parts()
    if not 1 <= count <= len(layers):
        raise ValueError(f"the model has 1 to {len(layers)} layers to unfreeze, not {count}")
    upper = [*layers[-count:], *above]
    encoder.requires_grad_(False)
    for module in upper:
        module.requires_grad_(True)
    return upper
