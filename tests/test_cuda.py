"""The same code on a GPU. Skipped where there is none."""

import pytest
import torch
from torch.nn import functional as F
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

from models.encoders import ConvTransformerEncoder
from tests.tiny_models import TINY_AUDIO
from utils.device import set_matmul_precision
from utils.engine import build_model, evaluate_selected, fit, start_training
from utils.graph_data import GraphData, prepare
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
