"""The same code on a GPU. Skipped where there is none."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from torch.nn import functional as F
from transformers import BertConfig, BertModel, Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

from models.cemobam import CemoBAM
from models.encoders import ConvTransformerEncoder, TextEncoder
from tests.tiny_models import TINY_AUDIO, TINY_TEXT, tiny_tokenizer
from utils.device import set_matmul_precision
from utils.finetuning.batches import Batch, Transcripts
from utils.finetuning.trainer import Trainer, TuneConfig
from utils.prediction.inductive import Predictor, TrainingGraph
from utils.training.graph import GraphData, neighbor_lists, prepare
from utils.training.loop import evaluate_selected, fit, start_training
from utils.training.trained import Trained

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


@pytest.mark.parametrize("profile", ["official", "paper", "refined"])
@pytest.mark.parametrize("precision, tolerance", [("fp32", 1e-4), ("tf32", 2e-2)])
def test_logits_and_gradients_agree_with_the_cpu(toy_splits, small_config, profile, precision, tolerance):
    config = small_config(profile=profile, hidden_dim=64)
    model = CemoBAM(config.model, 6, 5, 4).eval()  # without dropout, whose random numbers differ by device
    set_matmul_precision(precision, DEVICES[1])
    both = [logits_and_gradients(model, prepare(toy_splits["train"], config, device)) for device in DEVICES]
    assert relative_error(*both) < tolerance


def test_training_learns(toy_splits, small_config):
    config = small_config(hidden_dim=64, epochs=30)
    train, val, test = (prepare(toy_splits[s], config, DEVICES[1]) for s in ("train", "val", "test"))
    torch.manual_seed(1)
    state = start_training(CemoBAM(config.model, 6, 5, 4).to(DEVICES[1]), config)
    fit(state, train, val, config, lambda line: None)
    assert evaluate_selected(state, val, test)[0]["test"]["wa"] > 0.8


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
    table = pd.DataFrame({"raw_text": [f"text {'x' * i}" for i in range(16)], "label": [0, 1] * 8})
    data = Transcripts(encoder, table, 10_000)
    trainer = Trainer(data, data, TuneConfig("T", "text", "", "pooler", precision=precision))
    trainer.objective.head[0].p = 0.0
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
    metrics = trainer.validate()
    assert 0 <= metrics["ua"] <= 1


@pytest.mark.parametrize("message_flow", ["neighbors_to_node", "node_to_neighbors"])
def test_inductive_inference_agrees_with_the_cpu(toy_splits, small_config, message_flow):
    config = small_config(message_flow=message_flow)
    train, test = toy_splits["train"], toy_splits["test"]
    graph = TrainingGraph(
        train.text, train.audio, neighbor_lists(train.text, train.audio, config.k_text, config.k_audio), {}, ""
    )
    model = CemoBAM(config.model, 6, 5, 4)
    trained = [Trained(Path("run/seed1/best.pt"), model, config, tuple("abcd"), train.dims, 1, {})]
    here, there = (Predictor(trained, graph, device)(test.text, test.audio) for device in DEVICES)
    assert torch.allclose(here, there, atol=1e-4)
