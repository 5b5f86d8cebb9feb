"""Batches, objectives and the trainer of utils/finetuning."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from transformers import BertConfig, BertModel, Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

from models.encoders import ConvTransformerEncoder, TextEncoder
from tests.pretend_cuda import PretendCuda
from tests.tiny_models import TINY_AUDIO, TINY_TEXT, tiny_tokenizer
from utils.data.audio import load_segment, probe
from utils.data.safe_pickle import load_tensors, save_tensors
from utils.errors import InputError
from utils.finetuning.batches import (
    CROP_SECONDS,
    WORD_DROPOUT,
    Recordings,
    Transcripts,
    plan_contrastive_epoch,
    plan_epoch,
    steps_by_length,
)
from utils.finetuning.config import TuneConfig
from utils.finetuning.objectives import TEMPERATURE, Classification, NTXent
from utils.finetuning.objectives import probe as probe_embeddings
from utils.finetuning.trainer import Trainer

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
NO_AUDIO_DROPOUT = dict.fromkeys(("hidden_dropout", "attention_dropout", "activation_dropout"), 0.0)


def text_encoder(**options):
    return TextEncoder(BertModel(BertConfig(**{**TINY_TEXT, **options})), tiny_tokenizer()).eval()


def audio_encoder(**options):
    model = Wav2Vec2Model(Wav2Vec2Config(**TINY_AUDIO, **options))
    return ConvTransformerEncoder(model, Wav2Vec2FeatureExtractor()).eval()


def transcripts(encoder, count=40, budget=10_000):
    rng = np.random.default_rng(0)
    texts = [f"{i} " + "x" * int(length) for i, length in enumerate(rng.integers(1, 60, count))]
    return Transcripts(encoder, pd.DataFrame({"raw_text": texts, "label": np.arange(count) % 2}), budget)


def noises(folder, encoder, count=6):
    """Noise recordings of 0.2 s and longer."""
    rng = np.random.default_rng(0)
    paths = [str(folder / f"{i}.wav") for i in range(count)]
    for i, path in enumerate(paths):
        soundfile.write(path, 0.1 * rng.standard_normal(3200 + 500 * i), 16_000)
    table = pd.DataFrame({"audio_file": paths, "label": [0, 1] * (count // 2)})
    return Recordings(encoder, table, {path: probe(Path(path)) for path in paths}, budget=0.5)


@pytest.fixture
def recordings(tmp_path):
    """Noise of 0.5, 2.5 and 70 s, the last in three segments. Every crop is different."""
    rng = np.random.default_rng(0)
    table = []
    for label, (seconds, rate) in enumerate(((0.5, 16_000), (2.5, 44_100), (70, 8_000))):
        path = tmp_path / f"{label}.wav"
        soundfile.write(path, 0.1 * rng.standard_normal(int(seconds * rate)), rate)
        table.append((str(path), label))
    table = pd.DataFrame(table, columns=["audio_file", "label"])
    found = {path: probe(tmp_path / f"{label}.wav") for path, label in table.itertuples(index=False)}
    return Recordings(audio_encoder(), table, found, budget=60.0)


def test_an_epoch_has_every_utterance_once_in_steps_of_like_length():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 300, 203)
    steps = steps_by_length(lengths, 8, np.random.default_rng(1))
    assert sorted(i for step in steps for i in step) == list(range(203))
    assert [len(step) for step in steps].count(8) == 25
    padded = sum(len(step) * max(lengths[i] for i in step) for step in steps)
    shuffled = rng.permutation(203)
    at_random = sum(len(c) * max(lengths[i] for i in c) for c in np.array_split(shuffled, 26))
    assert padded < 1.2 * lengths.sum() < at_random
    one_pool = steps_by_length(lengths[:100], 8, np.random.default_rng(1))
    first = [lengths[step[0]] for step in one_pool]
    assert first != sorted(first)  # neither ascending nor descending
    assert first != sorted(first, reverse=True)
    assert steps != steps_by_length(lengths, 8, np.random.default_rng(2))


def test_a_step_is_split_into_batches_within_the_budget():
    data = transcripts(text_encoder(), budget=100)
    steps = plan_epoch(data, 8, np.random.default_rng(0))
    batches = [batch for step in steps for batch in step]
    assert len(batches) > len(steps)
    for batch in batches:
        tokens = [len(data.encoder.tokenize(text)) for text in batch.items]
        assert len(tokens) == 1 or len(tokens) * max(tokens) <= 100
    for step in steps:
        assert sum(batch.share for batch in step) == pytest.approx(1)
    label_of = dict(zip(data.items, data.labels, strict=True))
    assert all(label_of[text] == y for batch in batches for text, y in zip(batch.items, batch.labels, strict=True))


def test_accumulated_gradients_equal_those_of_the_whole_step():
    """This holds for any budget, however small."""
    found = []
    for budget in (10_000, 70):
        torch.manual_seed(0)
        data = transcripts(text_encoder(**NO_DROPOUT), budget=budget)
        trainer = Trainer(data, data, TuneConfig("T", "text", "", "pooler", batch_size=8))
        trainer.objective.head[0].p = 0.0
        step = plan_epoch(data, 8, np.random.default_rng(0))[0]
        loss = trainer._take(step, data.inputs([batch.items for batch in step]))
        parameters = [p for group in trainer.optimizer.param_groups for p in group["params"]]
        found.append((len(step), loss, [p.grad for p in parameters]))
    (whole, loss, gradients), (cut, loss_cut, gradients_cut) = found
    assert (whole, loss) == (1, pytest.approx(loss_cut, rel=1e-5))
    assert cut > 1
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(gradients, gradients_cut, strict=True))
    assert max(gradient.abs().max() for gradient in gradients) > 1e-2


def test_nt_xent_is_the_cross_entropy_of_finding_ones_other_view():
    views = torch.randn(6, 5)  # of three utterances: 0 with 3, 1 with 4, 2 with 5
    expected = 0.0
    for i in range(6):
        cosine = [torch.cosine_similarity(views[i], views[j], dim=0) / TEMPERATURE for j in range(6)]
        others = sum(torch.exp(c) for j, c in enumerate(cosine) if j != i)
        expected -= torch.log(torch.exp(cosine[(i + 3) % 6]) / others) / 6
    assert NTXent()(views).item() == pytest.approx(expected.item(), rel=1e-5)
    alike = torch.eye(3).repeat(2, 1)
    assert NTXent()(alike) < 1e-4 < NTXent()(alike[[0, 1, 2, 1, 2, 0]])


def test_two_views_of_a_recording_are_a_second_of_it(recordings):
    lengths = [round(item.seconds, 2) for item in recordings.items]
    assert lengths == [0.5, 2.5, 23.33, 23.33, 23.33]
    assert recordings.labels == [0, 1, 2, 2, 2]
    assert recordings.target.tolist() == [0, 1, 2]
    (step,) = plan_contrastive_epoch(recordings, 5, np.random.default_rng(0))
    (batch,) = step
    first, second = batch.items[:3], batch.items[3:]  # each recording once, whatever its length
    starts = set()
    for a, b in zip(first, second, strict=True):
        assert a.recording == b.recording
        for crop in (a, b):
            assert crop.seconds == pytest.approx(min(CROP_SECONDS, crop.recording.seconds))
            assert 0 <= crop.start < crop.stop <= crop.recording.frames
        starts.add((a.start, b.start))
    assert len(starts - {(0, 0)}) == 2  # except for the recording that is shorter than a crop
    assert all(a != b for a, b in starts - {(0, 0)})
    crop = next(crop for crop in first if crop.recording.rate == 44_100)
    heard = load_segment(crop, 16_000)
    whole = load_segment(next(item for item in recordings.items if item.recording == crop.recording), 16_000)
    start = round(crop.start * 16_000 / 44_100)
    assert torch.allclose(heard, whole[start : start + 16_000], atol=1e-6)
    (inputs,) = list(recordings.inputs([batch.items]))
    assert [each.frames for each in inputs].count(49) == 4


def test_equal_transcripts_are_one_utterance_to_nt_xent():
    """A last batch of a single utterance is skipped."""
    encoder = text_encoder()
    data = Transcripts(encoder, pd.DataFrame({"raw_text": ["a", "b", "a", "c", "b"], "label": [0, 1, 1, 0, 0]}), 100)
    steps = plan_contrastive_epoch(data, 2, np.random.default_rng(0))
    assert [len(batch.items) for step in steps for batch in step] == [4]  # two of the three, twice
    steps = plan_contrastive_epoch(data, 3, np.random.default_rng(0))
    ((batch,),) = steps
    assert batch.items[:3] == batch.items[3:]
    assert sorted(batch.items[:3]) == ["a", "b", "c"]
    same = Transcripts(encoder, pd.DataFrame({"raw_text": ["a", "a"], "label": [0, 1]}), 100)
    with pytest.raises(InputError, match="--objective ntxent: all utterances of train are equal"):
        plan_contrastive_epoch(same, 2, np.random.default_rng(0))


def test_two_views_of_a_transcript_lack_some_of_its_words():
    data = Transcripts(text_encoder(), pd.DataFrame({"raw_text": ["a b c d e f g h", "alone"], "label": [0, 1]}), 100)
    rng = np.random.default_rng(0)
    views = [data.view("a b c d e f g h", rng).split() for _ in range(2000)]
    assert all(view == sorted(view) and set(view) <= set("abcdefgh") for view in views)
    kept = sum(map(len, views)) / (8 * 2000)
    assert kept == pytest.approx(1 - WORD_DROPOUT * 7 / 8, abs=0.01)  # one of the eight words is always kept
    assert {data.view("alone", rng) for _ in range(50)} == {"alone"}


def test_embeddings_of_val_are_those_of_an_extraction(recordings):
    found = recordings.embed("val")
    with torch.inference_mode():
        segments = [load_segment(item, 16_000) for item in recordings.items]
        alone = [recordings.encoder([recordings.encoder.prepare(each)])[0] for each in segments]
    assert torch.allclose(found[:2], torch.stack(alone[:2]), atol=1e-5)
    assert torch.allclose(found[2], torch.stack(alone[2:]).mean(0), atol=1e-4)


def test_the_probe_reads_what_is_there():
    centres = 5 * torch.randn(3, 8)
    label = torch.arange(60) % 3
    embeddings = centres[label] + torch.randn(60, 8)
    assert (probe_embeddings(embeddings[:30], label[:30], embeddings[30:]) == label[30:]).float().mean() > 0.9


def test_what_is_frozen_stays_in_evaluation_mode(monkeypatch):
    """Dropout is off in frozen modules, as in feature extraction, and on in unfrozen layers."""
    data = transcripts(text_encoder())
    trainer = Trainer(data, data, TuneConfig("T", "text", "", "pooler", unfreeze_layers=1))
    modes = []
    layers, above = trainer.encoder.parts()
    monkeypatch.setattr(
        trainer,
        "_take",
        lambda step, stream: modes.append([m.training for m in (trainer.encoder, *layers, *above)]) or 0,
    )
    trainer.train_epoch(lambda last: None)
    assert modes
    assert all(mode == [False, False, True, True] for mode in modes)


def test_the_learning_rate_rises_and_falls(monkeypatch, tmp_path):
    """It has 20 steps, 2 of them warm-up. A trainer that is restored from a file of plain weights continues it."""
    data = transcripts(text_encoder(), count=40)
    config = TuneConfig("T", "text", "", "pooler", batch_size=8, epochs=4)
    trainer, rates, take = Trainer(data, data, config), [], Trainer._take
    monkeypatch.setattr(
        Trainer,
        "_take",
        lambda self, *args: (rates.append([group["lr"] for group in self.optimizer.param_groups]), take(self, *args))[
            1
        ],
    )
    for epoch in range(4):
        if epoch == 2:
            torch.save(trainer.state(), tmp_path / "state.pt")
            trainer = Trainer(data, data, config)
            trainer.restore(torch.load(tmp_path / "state.pt", weights_only=True))
        trainer.train_epoch(lambda last: None)
        trainer.epoch, trainer.best_epoch, trainer.step, trainer.loss = epoch + 1, 1, 0, 0.0
    assert len(rates) == 20
    assert rates[0] == [0, 0]
    assert rates[1] == [pytest.approx(TuneConfig.lr / 2), pytest.approx(TuneConfig.head_lr / 2)]
    assert rates[2] == [pytest.approx(TuneConfig.lr), pytest.approx(TuneConfig.head_lr)]
    assert [rate[0] for rate in rates[2:]] == [pytest.approx(TuneConfig.lr * (20 - step) / 18) for step in range(2, 20)]


def test_bf16_learns_what_fp32_learns():
    losses = []
    for precision in ("fp32", "bf16"):
        torch.manual_seed(0)
        data = transcripts(text_encoder(**NO_DROPOUT))
        trainer = Trainer(data, data, TuneConfig("T", "text", "", "pooler", precision=precision))
        losses.append(trainer.train_epoch(lambda last: None))
        assert all(p.dtype == torch.float32 for p in trainer.encoder.parameters())
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert losses[0] != losses[1]


def test_supervised_loss_is_the_mean_over_utterances():
    objective = Classification(4, 3).eval()
    embeddings, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])
    expected = -objective.head(embeddings).log_softmax(1)[torch.arange(5), labels].mean()
    assert objective(embeddings, labels).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("objective, option", [("supervised", "--batch_tokens"), ("ntxent", "--batch_size")])
def test_a_step_that_does_not_fit_names_the_option_to_lower(monkeypatch, objective, option):
    def full(*args):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(torch.optim.AdamW, "step", full)  # its state is created in the first step
    data = transcripts(text_encoder(), 8)
    trainer = Trainer(data, data, TuneConfig("T", "text", "", "pooler", objective=objective))
    with pytest.raises(InputError, match=f"^a step does not fit into memory; lower {option} or --unfreeze_layers$"):
        trainer.train_epoch(lambda last: None)


def tuned(make_data, config, device: str, tmp_path, stop: int | None = None) -> tuple[list, list]:
    """Fine-tune, and change the process after step ``stop`` of epoch 2. Returns the log and the weights."""

    class Stopped(Exception):
        pass

    def on_step(last: bool) -> None:
        if (trainer.epoch, trainer.step) == (1, stop):
            raise Stopped

    def fresh() -> Trainer:
        torch.manual_seed(0)
        data = make_data()
        data.encoder.to(device)
        return Trainer(data, data, config)

    trainer, log = fresh(), []
    try:
        for line, _ in trainer.fit(on_step):
            log.append(line)
    except Stopped:
        save_tensors(tmp_path / "state.pt", trainer.state())
        trainer = fresh()
        trainer.restore(load_tensors(tmp_path / "state.pt"))
        log += [line for line, _ in trainer.fit(lambda last: None)]
    for line in log:
        del line["seconds"]
    return log, [p.detach().cpu() for p in trainer.encoder.parameters()]


def assert_equal(here: tuple[list, list], there: tuple[list, list]) -> None:
    assert here[0] == there[0]
    assert all(torch.equal(a, b) for a, b in zip(here[1], there[1], strict=True))


@pytest.mark.parametrize("modality", ["text", "audio"])
@pytest.mark.parametrize("objective", ["supervised", "ntxent"])
def test_fine_tuning_on_a_pretended_gpu_is_that_on_the_cpu(tmp_path, monkeypatch, modality, objective):
    monkeypatch.setattr("utils.finetuning.objectives.HEAD_DROPOUT", 0.0)  # its masks differ on a GPU

    def make_data():
        if modality == "text":
            return transcripts(text_encoder(**NO_DROPOUT), 12)
        return noises(tmp_path, audio_encoder(**NO_AUDIO_DROPOUT))

    config = TuneConfig("T", modality, "", "mean", objective=objective, batch_size=4, epochs=2, unfreeze_layers=1)
    expected = tuned(make_data, config, "cpu", tmp_path, stop=1)
    with PretendCuda() as cuda:
        assert_equal(tuned(make_data, config, "cuda", tmp_path, stop=1), expected)
    assert cuda.kernels


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_resumed_fine_tuning_on_a_pretended_gpu_is_the_uninterrupted_one(tmp_path, precision):
    """This uses dropout, and a GPU that is not the first one."""
    config = TuneConfig("T", "text", "", "mean", precision=precision, batch_size=4, epochs=2)
    with PretendCuda(2):
        whole, resumed = (
            tuned(lambda: transcripts(text_encoder(), 12), config, "cuda:1", tmp_path, stop) for stop in (None, 1)
        )
    assert_equal(resumed, whole)
