"""The same code on a GPU. Skipped without a GPU; test_pretend_cuda.py needs none."""

from pathlib import Path

import pandas as pd
import pytest
import soundfile
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import BertConfig, BertModel, Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

from models.cemobam import CemoBAM
from models.encoders import ConvTransformerEncoder, TextEncoder
from tests.pretend_cuda import kept_switches
from tests.tiny_models import TINY_AUDIO, TINY_TEXT, tiny_tokenizer
from tests.whole_trainings import train, train_in_two, trained
from utils.data.audio import probe
from utils.data.safe_pickle import load_tensors, save_tensors
from utils.device import pick_device, set_matmul_precision
from utils.errors import out_of_memory
from utils.finetuning.batches import Batch, Recordings, Transcripts
from utils.finetuning.config import TuneConfig
from utils.finetuning.trainer import Trainer
from utils.prediction.inductive import Predictor, TrainingGraph
from utils.sweep.run import grid_runs
from utils.training.graph import GraphData, neighbor_lists, prepare
from utils.training.jobs import train_here
from utils.training.loop import evaluate_selected, fit, start_training
from utils.training.run import Progress, Run, Trial, open_runs
from utils.training.trained import Trained

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
DEVICES = (torch.device("cpu"), torch.device("cuda"))
PROFILES = ("official", "paper", "refined")


@pytest.fixture(autouse=True)
def _as_the_commands_do():
    with kept_switches():
        set_matmul_precision("fp32", pick_device("cuda"))
        yield


def logits_and_gradients(model: CemoBAM, data: GraphData) -> tuple[Tensor, Tensor]:
    """The logits, and the gradients of all parameters in one vector."""
    model = model.to(data.text.device)
    model.zero_grad()
    logits = model(data.text, data.audio, data.graph)
    F.cross_entropy(logits, data.label).backward()
    return logits.detach().cpu(), torch.cat([p.grad.flatten() for p in model.parameters()]).cpu()


def relative_error(here: Tensor, there: Tensor) -> float:
    return ((here - there).norm() / here.norm()).item()


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("precision, tolerance", [("fp32", 1e-4), ("tf32", 2e-2)])
def test_logits_and_gradients_agree_with_the_cpu(toy_splits, small_config, profile, precision, tolerance):
    """Compares all gradients together: in TF32, those of a single bias may be smaller than their errors."""
    config = small_config(profile=profile, hidden_dim=64)
    model = CemoBAM(config.model, 6, 5, 4).eval()  # without dropout, whose random numbers differ by device
    set_matmul_precision(precision, DEVICES[1])
    here, there = (logits_and_gradients(model, prepare(toy_splits["train"], config, device)) for device in DEVICES)
    for of_cpu, of_gpu in zip(here, there, strict=True):
        assert relative_error(of_cpu, of_gpu) < tolerance


def test_training_learns(toy_splits, small_config):
    config = small_config(hidden_dim=64, epochs=30)
    train, val, test = (prepare(toy_splits[s], config, DEVICES[1]) for s in ("train", "val", "test"))
    torch.manual_seed(1)
    state = start_training(CemoBAM(config.model, 6, 5, 4).to(DEVICES[1]), config)
    fit(state, train, val, config, lambda line: None)
    metrics, logits = evaluate_selected(state, val, test)
    assert metrics["test"]["wa"] > 0.8
    assert logits["test"].shape == (24, 4)


@pytest.mark.parametrize("profile", PROFILES)
def test_equal_and_resumed_trainings_are_equal_to_the_bit(toy_splits, small_config, tmp_path, profile):
    """With dropout, whose generator is restored."""
    config = small_config(profile=profile, hidden_dim=64, dropout=0.5, epochs=6)
    first, again, resumed = (trained("cuda", toy_splits, config, tmp_path, stop) for stop in (6, 6, 3))
    assert first == again == resumed


def test_the_generator_is_restored(toy_splits, small_config):
    config = small_config(profile="refined", dropout=0.5)
    train = prepare(toy_splits["train"], config, DEVICES[1])
    state = start_training(CemoBAM(config.model, 6, 5, 4).to(DEVICES[1]), config)
    fit(state, train, train, config, lambda line: None)
    saved = state.state_dict()
    expected = torch.rand(5, device="cuda")
    assert not torch.equal(torch.rand(5, device="cuda"), expected)
    state.load_state_dict(saved)
    assert torch.equal(torch.rand(5, device="cuda"), expected)


@pytest.fixture
def make_run(tmp_path, toy_data, small_config):
    def make(folder: str, **options) -> Run:
        return Run(Trial(small_config(**{"dataset": "TOY", "epochs": 5, **options}), tmp_path / folder), 3, toy_data)

    return make


@pytest.mark.parametrize("first, second", [("cuda", "cuda"), ("cuda", "cpu"), ("cpu", "cuda")])
def test_a_run_is_resumed_on_any_device(make_run, monkeypatch, first, second):
    options = {"profile": "refined", "hidden_dim": 64, "dropout": 0.3 * (first == second)}
    resumed = train_in_two(make_run("resumed", **options), monkeypatch, torch.device(first), torch.device(second))
    whole = train(make_run("whole", **options), torch.device(second))
    if first == second:
        assert resumed == whole
    losses = [[line["train_loss"] for line in each["log"]] for each in (resumed, whole)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_cells_of_a_sweep_are_runs_of_train_py(tmp_path, toy_data, make_run, small_config):
    config = small_config(dataset="TOY", epochs=5, hidden_dim=64)
    runs = grid_runs(config, tmp_path / "grid", [1, 3], [2, 4], [3], toy_data)
    open_runs(runs)
    with Progress(runs) as progress:
        train_here(runs, progress, DEVICES[1])
    for run in runs:
        k = {name: getattr(run.config, name) for name in ("k_text", "k_audio")}
        alone = make_run(run.trial.folder.name, hidden_dim=64, **k)
        train(alone, DEVICES[1])
        of_cell, of_run = (each.outcome() | {"seconds": 0} for each in (run, alone))
        assert of_cell == of_run


def test_a_lack_of_memory_is_recognised():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50, dtype=torch.uint8, device="cuda")
    assert out_of_memory(caught.value)


# ---- encoders --------------------------------------------------------------------------------------------------------


def audio_encoder(**options) -> ConvTransformerEncoder:
    model = Wav2Vec2Model(Wav2Vec2Config(**TINY_AUDIO, **options))
    return ConvTransformerEncoder(model, Wav2Vec2FeatureExtractor(do_normalize=True)).eval()


def text_encoder(**options) -> TextEncoder:
    return TextEncoder(BertModel(BertConfig(**TINY_TEXT, **options)), tiny_tokenizer()).eval()


@pytest.mark.parametrize("modality", ["text", "audio"])
def test_encoders_agree_with_the_cpu(modality):
    """Also in their convolutions, which cuDNN computes in TF32 by default."""
    encoder = audio_encoder() if modality == "audio" else text_encoder()
    if modality == "audio":
        inputs = [encoder.prepare(0.1 * torch.randn(samples)) for samples in (16_000, 9_000)]
    else:
        inputs = [encoder.tokenize(text) for text in ("so happy today", "no")]
    with torch.inference_mode():
        here, there = (encoder.to(device)(inputs).cpu() for device in DEVICES)
    assert relative_error(here, there) < 1e-4


TEXT_DROPOUT = ("hidden_dropout_prob", "attention_probs_dropout_prob")
AUDIO_DROPOUT = ("hidden_dropout", "attention_dropout", "activation_dropout")


def tuned(folder: Path, modality: str, precision: str, device: torch.device, dropout: float = 0.0, steps: int = 3):
    """Losses of a few steps, and the state after them."""
    torch.manual_seed(0)
    if modality == "text":
        encoder = text_encoder(**dict.fromkeys(TEXT_DROPOUT, dropout)).to(device)
        table = pd.DataFrame({"raw_text": [f"text {'x' * i}" for i in range(16)], "label": [0, 1] * 8})
        data = Transcripts(encoder, table, 10_000)
    else:
        encoder = audio_encoder(**dict.fromkeys(AUDIO_DROPOUT, dropout)).to(device)
        paths = [folder / f"{i}.wav" for i in range(6)]
        for i, path in enumerate(paths):
            samples = 0.1 * torch.randn(4000 + 500 * i, generator=torch.Generator().manual_seed(i))
            soundfile.write(path, samples.numpy(), 16_000)
        table = pd.DataFrame({"audio_file": list(map(str, paths)), "label": [0, 1] * 3})
        data = Recordings(encoder, table, {str(path): probe(path) for path in paths}, 60.0)
    trainer = Trainer(data, data, TuneConfig("T", modality, "", "pooler", precision=precision))
    trainer.objective.head[0].p = dropout
    trainer.encoder.eval()
    for module in (*trainer.upper, trainer.objective):
        module.train()
    return [take(trainer) for _ in range(steps)], trainer


def take(trainer: Trainer) -> float:
    data = trainer.train
    return trainer._take([Batch(data.items, data.labels, 1.0)], data.inputs([data.items]))


@pytest.mark.parametrize("modality", ["text", "audio"])
@pytest.mark.parametrize("precision, tolerance", [("fp32", 1e-4), ("bf16", 2e-2), ("fp16", 2e-2)])
def test_fine_tuning_agrees_with_the_cpu(tmp_path, modality, precision, tolerance):
    pick_device("cuda", strict=True)  # as finetune.py does
    losses, trainer = tuned(tmp_path, modality, precision, DEVICES[1])
    assert losses == pytest.approx(tuned(tmp_path, modality, "fp32", DEVICES[0])[0], rel=tolerance)
    assert all(p.grad.isfinite().all() for p in trainer.encoder.parameters() if p.requires_grad)
    assert 0 <= trainer.validate()["ua"] <= 1


@pytest.mark.parametrize("modality", ["text", "audio"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_equal_and_resumed_fine_tunings_are_equal_to_the_bit(tmp_path, modality, precision):
    """With dropout, and with the gradient of torch's attention."""
    pick_device("cuda", strict=True)
    (losses, trainer), (again, _) = (tuned(tmp_path, modality, precision, DEVICES[1], dropout=0.3) for _ in range(2))
    assert losses == again
    _, resumed = tuned(tmp_path, modality, precision, DEVICES[1], dropout=0.3, steps=1)
    save_tensors(tmp_path / "state.pt", trainer.state())
    expected, saved = take(trainer), load_tensors(tmp_path / "state.pt")
    resumed.restore(saved)
    assert resumed.scaler.get_scale() == saved["scaler"].get("scale", 1.0)
    assert take(resumed) == expected
    for one, other in zip(trainer.encoder.parameters(), resumed.encoder.parameters(), strict=True):
        assert torch.equal(one, other)


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
