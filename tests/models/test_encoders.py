"""A batch gives the same embeddings as each of its members alone, and as the transformers model."""

import pytest
import torch
from transformers import (
    AlbertConfig,
    AlbertModel,
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    HubertConfig,
    HubertModel,
    RobertaConfig,
    RobertaModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

from models.encoders import ConvTransformerEncoder, TextEncoder, WhisperEncoder, masked_mean, unfreeze_upper
from tests.pretend_cuda import PretendCuda
from tests.tiny_models import TINY_AUDIO, TINY_TEXT, tiny_tokenizer

SECONDS = (1.7, 0.4, 1.0, 0.1, 0.73)
LAYER_NORM = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}


def wav2vec2_like(model_class, config_class, do_normalize=True, **options):
    model = model_class(config_class(**TINY_AUDIO, **options))
    extractor = Wav2Vec2FeatureExtractor(do_normalize=do_normalize, return_attention_mask=False)
    return ConvTransformerEncoder(model, extractor).eval()


AUDIO = {
    "wav2vec2 (group norm)": lambda: wav2vec2_like(Wav2Vec2Model, Wav2Vec2Config),
    "wav2vec2 (layer norm)": lambda: wav2vec2_like(Wav2Vec2Model, Wav2Vec2Config, **LAYER_NORM),
    "hubert (group norm)": lambda: wav2vec2_like(HubertModel, HubertConfig),
    "hubert (layer norm)": lambda: wav2vec2_like(HubertModel, HubertConfig, **LAYER_NORM),
    "wavlm (group norm)": lambda: wav2vec2_like(WavLMModel, WavLMConfig, do_normalize=False),
    "wavlm (layer norm)": lambda: wav2vec2_like(WavLMModel, WavLMConfig, **LAYER_NORM),
}


def waveforms():
    """Different loudness and offset make normalisation visible."""
    torch.manual_seed(1)
    return [(i + 1) * 0.05 * torch.randn(int(s * 16_000)) + 0.01 * i for i, s in enumerate(SECONDS)]


def embed(encoder, batch):
    with torch.inference_mode():
        return encoder([encoder.prepare(waveform) for waveform in batch])


def relative_difference(a, b):
    return ((a - b).norm(dim=1) / b.norm(dim=1)).max()


@pytest.mark.parametrize("family", AUDIO)
def test_a_batch_of_recordings_is_each_alone_and_the_reference_model(family):
    encoder = AUDIO[family]()
    together = embed(encoder, waveforms())
    alone = torch.cat([embed(encoder, [waveform]) for waveform in waveforms()])
    assert together.shape == (len(SECONDS), TINY_AUDIO["hidden_size"])
    assert relative_difference(together, alone) < 1e-5
    with torch.inference_mode():
        reference = []
        for waveform in waveforms():
            inputs = encoder.feature_extractor(waveform.numpy(), sampling_rate=16_000, return_tensors="pt")
            reference.append(encoder.model(inputs["input_values"]).last_hidden_state.mean(1))
    assert relative_difference(together, torch.cat(reference)) < 1e-5
    assert relative_difference(alone[[1, 0]], alone[[0, 1]]) > 1e-3  # the embeddings of the recordings differ


def test_naive_padding_changes_the_embedding():
    """Why the convolutions run on one recording at a time: the group norm of the base models sees the padding."""
    encoder = AUDIO["wav2vec2 (group norm)"]()
    long, short = waveforms()[:2]
    padded = torch.zeros(2, len(long))
    padded[0], padded[1, : len(short)] = long, short
    mask = torch.arange(len(long)) < torch.tensor([[len(long)], [len(short)]])
    with torch.inference_mode():
        hidden = encoder.model(padded, attention_mask=mask.long()).last_hidden_state[1]
        reference = encoder.model(short[None]).last_hidden_state
    naive = hidden[: reference.size(1)].mean(0, keepdim=True)
    assert relative_difference(naive, reference.mean(1)) > 1e-3


def tiny_whisper():
    config = WhisperConfig(
        d_model=32, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=64, decoder_layers=0, num_mel_bins=80
    )
    return WhisperEncoder(WhisperModel(config), WhisperFeatureExtractor()).eval()


def test_whisper_averages_the_frames_that_hold_the_recording():
    encoder = tiny_whisper()
    together = embed(encoder, waveforms())
    alone = torch.cat([embed(encoder, [waveform]) for waveform in waveforms()])
    assert relative_difference(together, alone) < 1e-5
    with torch.inference_mode():
        for i, waveform in enumerate(waveforms()):
            mel = encoder.feature_extractor(waveform.numpy(), sampling_rate=16_000, return_tensors="pt")
            hidden = encoder.model(mel["input_features"]).last_hidden_state
            assert hidden.shape[1] == 1500
            frames = -(-len(waveform) // 320)  # 50 frames per second
            assert relative_difference(together[i : i + 1], hidden[:, :frames].mean(1)) < 1e-5


def test_whisper_reads_30_seconds():
    encoder = tiny_whisper()
    assert encoder.max_seconds == 30
    assert encoder.cost(1.0) == 30
    assert encoder.prepare(torch.randn(480_000)).frames == 1500


def test_masked_mean():
    hidden = torch.arange(12.0).view(2, 3, 2)
    assert torch.equal(masked_mean(hidden, [1, 3]), torch.tensor([[0.0, 1.0], [8.0, 9.0]]))


TEXTS = ["so happy today", "no", "what a long day it was and now it is over " * 3, "why not"]
TEXT = {
    "bert": lambda pooling: TextEncoder(BertModel(BertConfig(**TINY_TEXT)), tiny_tokenizer(), pooling).eval(),
    "roberta": lambda pooling: TextEncoder(
        RobertaModel(RobertaConfig(**TINY_TEXT, pad_token_id=0)), tiny_tokenizer(), pooling
    ).eval(),
}


@pytest.mark.parametrize("family", TEXT)
@pytest.mark.parametrize("pooling", ["pooler", "mean"])
def test_a_batch_of_texts_is_each_alone_and_the_reference_model(family, pooling):
    encoder = TEXT[family](pooling)
    with torch.inference_mode():
        together = encoder([encoder.tokenize(text) for text in TEXTS])
        outputs = [encoder.model(**encoder.tokenizer(text, return_tensors="pt")) for text in TEXTS]
    reference = [o.pooler_output if pooling == "pooler" else o.last_hidden_state.mean(1) for o in outputs]
    assert relative_difference(together, torch.cat(reference)) < 1e-5
    assert relative_difference(together[[1, 0]], together[[0, 1]]) > 1e-3


@pytest.mark.parametrize(("family", "positions"), [("bert", 128), ("roberta", 127)])
def test_a_text_is_cut_at_what_the_model_reads_and_keeps_its_end_mark(family, positions):
    """RoBERTa reserves the first positions for padding."""
    encoder = TEXT[family]("mean")
    ids = encoder.tokenize("whynot" * 100)
    assert len(ids) == 602
    assert encoder.max_tokens == positions
    with torch.inference_mode():
        cut = encoder.model(torch.tensor([[*ids[: positions - 1], ids[-1]]])).last_hidden_state.mean(1)
        assert relative_difference(encoder([ids]), cut) < 1e-5


def test_a_model_without_a_pooler_is_refused():
    model = DistilBertModel(DistilBertConfig(dim=32, n_layers=1, n_heads=2, hidden_dim=64, vocab_size=100))
    with pytest.raises(ValueError, match="this distilbert model has no pooler"):
        TextEncoder(model, tiny_tokenizer(), "pooler")
    assert TextEncoder(model, tiny_tokenizer(), "mean").dim == 32


def test_a_model_with_an_adapter_is_refused():
    with pytest.raises(ValueError, match="adapter"):
        wav2vec2_like(Wav2Vec2Model, Wav2Vec2Config, add_adapter=True)


def bert_like(model_class, config_class, pooling="mean", **options):
    return TextEncoder(model_class(config_class(**options)), tiny_tokenizer(), pooling)


TINY_DISTIL = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "vocab_size": 300}
UPPER = {
    "bert": (lambda: bert_like(BertModel, BertConfig, "pooler", **TINY_TEXT), ("encoder.layer.1.", "pooler.")),
    "bert, mean": (lambda: bert_like(BertModel, BertConfig, **TINY_TEXT), ("encoder.layer.1.",)),
    "roberta": (lambda: bert_like(RobertaModel, RobertaConfig, **TINY_TEXT), ("encoder.layer.1.",)),
    "distilbert": (lambda: bert_like(DistilBertModel, DistilBertConfig, **TINY_DISTIL), ("transformer.layer.1.",)),
    "wav2vec2 (group norm)": (AUDIO["wav2vec2 (group norm)"], ("encoder.layers.1.",)),
    "hubert (layer norm)": (AUDIO["hubert (layer norm)"], ("encoder.layers.1.", "encoder.layer_norm.")),
    "wavlm (layer norm)": (AUDIO["wavlm (layer norm)"], ("encoder.layers.1.", "encoder.layer_norm.")),
    "whisper": (tiny_whisper, ("layers.1.", "layer_norm.")),
}


@pytest.mark.parametrize("family", UPPER)
def test_the_upper_layers_and_what_lies_above_them_are_unfrozen(family):
    """Only these modules get a gradient from the embedding."""
    make, upper = UPPER[family]
    encoder = make().eval()
    unfreeze_upper(encoder, 2)  # the second call replaces the first
    modules = unfreeze_upper(encoder, 1)
    assert not {id(p) for m in modules for p in m.parameters()} ^ {
        id(p) for p in encoder.parameters() if p.requires_grad
    }
    names = {name for name, p in encoder.model.named_parameters() if p.requires_grad}
    assert names == {name for name, _ in encoder.model.named_parameters() if name.startswith(upper)}
    text = isinstance(encoder, TextEncoder)
    inputs = [encoder.tokenize("so what")] if text else [encoder.prepare(waveforms()[1])]
    torch.manual_seed(0)
    (encoder(inputs) * torch.randn(encoder.dim)).sum().backward()
    with_gradient = {name for name, p in encoder.model.named_parameters() if p.grad is not None}
    assert with_gradient == names


def test_layers_that_share_their_weights_cannot_be_unfrozen():
    config = AlbertConfig(**TINY_TEXT, embedding_size=16)
    with pytest.raises(ValueError, match="all layers of albert models share their weights"):
        unfreeze_upper(TextEncoder(AlbertModel(config), tiny_tokenizer(), "mean"), 1)


@pytest.mark.parametrize("family", UPPER)
def test_embeddings_and_gradients_of_a_pretended_gpu_are_those_of_the_cpu(family):
    def embeddings_and_gradients(device: str) -> list[torch.Tensor]:
        torch.manual_seed(0)
        encoder = UPPER[family][0]().to(device).eval()
        unfreeze_upper(encoder, 2)
        text = isinstance(encoder, TextEncoder)
        found = encoder(
            [encoder.tokenize(t) for t in TEXTS] if text else [encoder.prepare(w) for w in waveforms()[1:4]]
        )
        found.square().sum().backward()
        assert found.device.type == device
        return [found.detach().cpu(), *(p.grad.cpu() for p in encoder.parameters() if p.requires_grad)]

    expected = embeddings_and_gradients("cpu")
    with PretendCuda():
        found = embeddings_and_gradients("cuda")
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
