"""The same code on a GPU. Skipped where there is none."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from torch.nn import functional as F
from transformers import BertConfig, BertModel, Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

from models.encoders import ConvTransformerEncoder, TextEncoder
from tests.tiny_models import TINY_AUDIO, TINY_TEXT, tiny_tokenizer
from utils.checkpoints import Trained
from utils.device import set_matmul_precision
from utils.engine import build_model, evaluate_selected, fit, start_training
from utils.finetuning.batches import Batch, Transcripts
from utils.finetuning.trainer import Trainer, TuneConfig
from utils.graph_data import GraphData, find_neighbors, prepare
from utils.prediction.joining import Predictor, TrainingGraph
from utils.runs import set_seed

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
DEVICES = (torch.device("cpu"), torch.device("cuda"))


@pytest.fixture(autouse=True)
def _float32():
    set_matmul_precision("fp32", DEVICES[1])
    yield
    set_matmul_precision("fp32", DEVICES[1])


def logits_and_gradients(model, data: GraphData) -> list[torch.Tensor]:
    model = model.to(data.text.device)
    model.zero_grad()
    logits = model(data.text, data.audio, data.graph)
    F.cross_entropy(logits, data.label).backward()
    return [logits.detach().cpu(), *(p.grad.cpu() for p in model.parameters())]


def relative_error(here: list[torch.Tensor], there: list[torch.Tensor]) -> float:
    return max((a - b).norm().item() / (a.norm().item() + 1e-6) for a, b in zip(here, there, strict=True))


@pytest.mark.parametrize("profile", ["paper", "official"])
@pytest.mark.parametrize("precision, tolerance", [("fp32", 1e-4), ("tf32", 2e-2)])
def test_logits_and_gradients_agree_with_the_cpu(toy_splits, small_config, profile, precision, tolerance):
    config = small_config(profile=profile, hidden_dim=64)
    model = build_model(config, 6, 5, 4).eval()  # without dropout, whose random numbers differ by device
    set_matmul_precision(precision, DEVICES[1])
    both = [logits_and_gradients(model, prepare(toy_splits["train"], config, device)) for device in DEVICES]
    assert relative_error(*both) < tolerance


def test_training_learns(toy_splits, small_config):
    config = small_config(hidden_dim=64, epochs=30)
    train, val, test = (prepare(toy_splits[s], config, DEVICES[1]) for s in ("train", "val", "test"))
    set_seed(1)
    state = start_training(build_model(config, 6, 5, 4).to(DEVICES[1]), config)
    fit(state, train, val, config, lambda line: None)
    assert evaluate_selected(state, val, test)["test"]["wa"] > 0.8


def test_encoders_agree_with_the_cpu():
    """Also in their convolutions, which cuDNN computes in TF32 where nothing is said."""
    torch.manual_seed(0)
    encoder = ConvTransformerEncoder(
        Wav2Vec2Model(Wav2Vec2Config(**TINY_AUDIO)), Wav2Vec2FeatureExtractor(do_normalize=True)
    ).eval()
    inputs = [encoder.prepare(0.1 * torch.randn(samples)) for samples in (16_000, 9_000)]
    with torch.inference_mode():
        here, there = (encoder.to(device)(inputs).cpu() for device in DEVICES)
    assert relative_error([here], [there]) < 1e-4


def tuned(precision, device, steps=1):
    """Loss of a few steps, and the state behind them."""
    torch.manual_seed(0)
    options = {**TINY_TEXT, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    encoder = TextEncoder(BertModel(BertConfig(**options)), tiny_tokenizer()).to(device).eval()
    trainer = Trainer(encoder, 2, TuneConfig("T", "text", "", "pooler", precision=precision))
    trainer.objective.head[0].p = 0.0
    table = pd.DataFrame({"raw_text": [f"text {'x' * i}" for i in range(16)], "label": [0, 1] * 8})
    data = Transcripts(encoder, table, 10_000)
    losses = [trainer._take([Batch(data.items, data.labels, 1.0)], data.inputs([data.items])) for _ in range(steps)]
    return losses, trainer, data


@pytest.mark.parametrize("precision, tolerance", [("fp32", 1e-4), ("bf16", 2e-2), ("fp16", 2e-2)])
def test_fine_tuning_agrees_with_the_cpu(precision, tolerance):
    losses, trainer, data = tuned(precision, DEVICES[1], steps=3)
    assert losses == pytest.approx(tuned("fp32", DEVICES[0], steps=3)[0], rel=tolerance)
    again = tuned(precision, DEVICES[1])[1]
    again.restore(trainer.state())
    assert again.scaler.get_scale() == trainer.scaler.get_scale()
    step = [Batch(data.items, data.labels, 1.0)]
    one, other = (each._take(step, data.inputs([data.items])) for each in (trainer, again))
    assert one == pytest.approx(other, rel=1e-5)
    figures = trainer.validate(data, data)
    assert 0 <= figures["ua"] <= 1


@pytest.mark.parametrize("message_flow", ["neighbors_to_node", "node_to_neighbors"])
def test_joining_agrees_with_the_cpu(toy_splits, small_config, message_flow):
    config = small_config(message_flow=message_flow)
    train, test = toy_splits["train"], toy_splits["test"]
    graph = TrainingGraph(train.text, train.audio, find_neighbors(train, config).lists, {}, "")
    model = build_model(config, 6, 5, 4)
    trained = [Trained(Path("run/seed1/best.pt"), model, config, tuple("abcd"), train.dims, 1, {})]
    here, there = (Predictor(trained, graph, device)(test.text, test.audio) for device in DEVICES)
    assert torch.allclose(here, there, atol=1e-4)
