import signal
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models.cemobam import CemoBAM
from tests.conftest import make_rows, write_pickle
from utils.config import make_config
from utils.data.features import load_features
from utils.errors import InputError, deferred_interrupt
from utils.training import loop
from utils.training.graph import GraphData, check_neighbors, prepare
from utils.training.loop import (
    build_scheduler,
    embed,
    evaluate,
    fit,
    predict,
    read_tally,
    start_training,
    train_step,
)

CPU = torch.device("cpu")


@pytest.fixture
def data(tmp_path, small_config) -> tuple[GraphData, GraphData]:
    files = [write_pickle(tmp_path / f"{seed}.pkl", make_rows(32, seed=seed)) for seed in (0, 1)]
    return tuple(prepare(load_features(file), small_config(), CPU) for file in files)


def fresh(config, seed=0):
    torch.manual_seed(seed)
    return start_training(CemoBAM(config.model, 6, 5, 4), config)


@pytest.mark.parametrize("schedule", ["step", "plateau"])
def test_adam_is_that_of_torch_to_the_bit(data, small_config, schedule):
    """Also with a learning rate that decays, and from a state that was saved and loaded."""
    config, found = small_config(lr_schedule=schedule, lr_patience=1, lr=1.0), []
    for kind in (loop.Adam, torch.optim.Adam):
        state, log = fresh(config), []
        for _ in range(2):
            optimizer = kind(state.model.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True)
            if state.epoch:
                optimizer.load_state_dict(state.optimizer.state_dict())
            state.optimizer, state.scheduler = optimizer, build_scheduler(optimizer, config)
            log += fit_epochs(state, data, config, 10)
        rates = [line["lr"] for line in log]
        assert len(set(rates)) > 1
        found.append((rates, state.model.state_dict(), state.optimizer.state_dict()["state"]))
    torch.testing.assert_close(*found, rtol=0, atol=0)


def fit_epochs(state, data, config, epochs: int) -> list[dict]:
    """Train for some more epochs. Returns the lines of the log."""
    log = []
    fit(state, *data, config.replace(epochs=state.epoch + epochs), log.append)
    return log


def train_modes(config, data) -> list[bool]:
    """model.training at each training forward (those with gradients)."""
    state, modes = fresh(config), []
    state.model.register_forward_hook(
        lambda model, args, out: modes.append(model.training) if torch.is_grad_enabled() else None
    )
    fit(state, *data, config, lambda line: None)
    return modes


def test_profile_refined_trains_in_train_mode_at_every_step(small_config, data):
    assert train_modes(small_config(profile="refined"), data) == [True] * 4


@pytest.mark.parametrize("profile", ["official", "paper"])
def test_profiles_official_and_paper_do_so_at_the_first_step_only(small_config, data, profile):
    assert train_modes(small_config(profile=profile), data) == [True, False, False, False]


def test_batch_norm_is_frozen_after_the_first_step_of_profiles_official_and_paper(small_config, data):
    for profile, tracked in (("refined", 4), ("paper", 1), ("official", 1)):
        config = small_config(profile=profile)
        state = fresh(config)
        fit(state, *data, config, lambda line: None)
        assert state.model.text_projection[1].num_batches_tracked == tracked


def test_a_step_is_adam_on_the_smoothed_cross_entropy(small_config, data):
    config = small_config(profile="refined", dropout=0.0, label_smoothing=0.2, weight_decay=0.01)
    state, other = fresh(config), fresh(config)
    optimizer = torch.optim.Adam(other.model.parameters(), lr=config.lr, weight_decay=0.01)
    for _ in range(3):
        loss = train_step(state, data[0], config)
        optimizer.zero_grad()
        logits = other.model(data[0].text, data[0].audio, data[0].graph)
        log_p = F.log_softmax(logits, dim=1)
        right = log_p.gather(1, data[0].label[:, None]).squeeze(1)
        expected = -(0.8 * right + 0.2 * log_p.mean(1)).mean()
        expected.backward()
        optimizer.step()
        assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    for mine, theirs in zip(state.model.parameters(), other.model.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-4)


def test_learning_rate_decays_every_30_epochs_in_profiles_paper_and_refined(small_config, data):
    config = small_config(epochs=62, lr_decay=0.25, lr=1e-3)
    rates = []
    fit(fresh(config), *data, config, lambda line: rates.append(line["lr"]))
    expected = [1e-3] * 30 + [2.5e-4] * 30 + [6.25e-5] * 2
    assert rates == pytest.approx(expected)


def test_plateau_schedule_of_profile_official():
    config = make_config({"profile": "official"})
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=config.lr)
    scheduler = build_scheduler(optimizer, config)
    rates = []
    for _ in range(18):
        scheduler.step(1.0)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([1e-4] * 16 + [3e-5] * 2)  # 15 epochs of patience after the first


SCORES = [0.2, 0.9, 0.3, 0.7, 0.9, 0.8]  # validation w-F1 of six epochs


@pytest.mark.parametrize(("selection", "selected"), [("best_val_wf1", 2), ("last", 6)])
def test_selected_weights(small_config, data, monkeypatch, selection, selected):
    scores = iter(SCORES)
    monkeypatch.setattr(loop, "read_tally", lambda values: {**read_tally(values), "w_f1": next(scores)})
    config = small_config(selection=selection, epochs=len(SCORES), lr=0.05)
    state, weights = fresh(config), []

    def remember(line):
        weights.append({name: tensor.clone() for name, tensor in state.model.state_dict().items()})

    fit(state, *data, config, remember)
    assert state.best_epoch == selected
    for name, tensor in state.best_weights.items():
        assert torch.equal(tensor, weights[selected - 1][name]), name


def test_logged_metrics_are_those_of_the_epoch(small_config, data):
    config = small_config()
    state = fresh(config)
    (line,) = fit_epochs(state, data, config, 1)
    metrics, _ = evaluate(state.model, data[1])
    assert line["epoch"] == 1
    for name in ("loss", "wa", "ua", "w_f1", "macro_f1"):
        assert line[f"val_{name}"] == metrics[name]


def test_evaluation_leaves_the_model_as_it_was(small_config, data):
    state = fresh(small_config())
    before = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
    (first, _), (second, _) = evaluate(state.model, data[1]), evaluate(state.model, data[1])
    assert first == second  # no dropout
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.model.state_dict().items())


def test_it_learns(small_config, data):
    config = small_config(epochs=40)
    state = fresh(config)
    fit(state, *data, config, lambda line: None)
    assert evaluate(state.model, data[1])[0]["wa"] > 0.8  # chance is 0.25


def test_same_seed_same_numbers(small_config, data):
    config = small_config()
    logs = []
    for seed in (5, 5, 6):
        log = []
        fit(fresh(config, seed), *data, config, log.append)
        logs.append([{name: value for name, value in line.items() if name != "seconds"} for line in log])
    assert logs[0] == logs[1]
    assert logs[0] != logs[2]


@pytest.mark.parametrize("profile", ["official", "paper", "refined"])
def test_restored_state_ends_at_the_same_weights(small_config, data, profile):
    config = small_config(profile=profile, epochs=9, lr_patience=2, lr_decay=0.5)
    whole = fresh(config)
    fit(whole, *data, config, lambda line: None)
    first = fresh(config)
    fit_epochs(first, data, config, 3)  # between two decays, so that the scheduler's position matters
    saved = first.state_dict()
    second = fresh(config, seed=77)
    second.load_state_dict({**saved, "model": {n: t.clone() for n, t in saved["model"].items()}})
    fit(second, *data, config, lambda line: None)
    assert (second.best_epoch, second.best_score) == (whole.best_epoch, whole.best_score)
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[name]), name
    for name, tensor in whole.best_weights.items():
        assert torch.equal(tensor, second.best_weights[name]), name


def test_a_loss_that_is_not_finite_stops_before_the_weights_change(small_config, data):
    config = small_config()
    state = fresh(config)
    fit(state, *data, config.replace(epochs=1), lambda line: None)  # the optimiser now has a state
    before = [p.clone() for p in state.model.parameters()]
    moments = [t.clone() for of_parameter in state.optimizer.state.values() for t in of_parameter.values()]
    bad = replace(data[0], text=data[0].text * float("inf"))
    with pytest.raises(InputError, match="epoch 2: the training loss is nan; try a smaller --lr"):
        fit(state, bad, data[1], config, lambda line: None)
    assert all(torch.equal(a, b) for a, b in zip(before, state.model.parameters(), strict=True))
    after = [t for of_parameter in state.optimizer.state.values() for t in of_parameter.values()]
    assert all(torch.equal(a, b) for a, b in zip(moments, after, strict=True))


def test_weights_that_diverged_are_not_scored(small_config, data):
    config = small_config(lr=1e38)
    with pytest.raises(InputError, match=r"epoch \d: the (validation|training) loss is (nan|inf); try a smaller --lr"):
        fit(fresh(config), *data, config, lambda line: None)


def test_second_interrupt_is_not_held_back(python_interrupts):
    with pytest.raises(KeyboardInterrupt), deferred_interrupt() as interrupted:
        signal.raise_signal(signal.SIGINT)
        assert interrupted()
        signal.raise_signal(signal.SIGINT)


def test_an_interrupt_after_the_last_check_is_not_lost(python_interrupts):
    with pytest.raises(KeyboardInterrupt), deferred_interrupt() as interrupted:
        assert not interrupted()
        signal.raise_signal(signal.SIGINT)


def test_training_utterances_join_the_graph_of_a_split_and_are_not_scored(tmp_path, small_config):
    train, val = (load_features(write_pickle(tmp_path / f"{n}.pkl", make_rows(n, seed=n))) for n in (32, 12))
    alone = prepare(val, small_config(), CPU, train)
    joined = prepare(val, small_config(graph_scope="with_train"), CPU, train)
    assert (alone.graph.num_nodes, alone.context) == (12, 0)
    assert (joined.graph.num_nodes, joined.context) == (44, 32)
    assert torch.equal(joined.scored_label, val.label)
    assert (joined.graph.source[joined.graph.target >= 32] < 32).any()  # a val node aggregates from train nodes
    model = fresh(small_config()).model.eval()
    logits = model(joined.text, joined.audio, joined.graph)[32:]
    assert torch.equal(predict(model, joined), logits)
    metrics, _ = evaluate(model, joined)
    assert metrics["wa"] == pytest.approx((logits.argmax(1) == val.label).float().mean().item())
    assert metrics["loss"] == F.cross_entropy(logits, val.label).item()
    assert embed(model, joined).shape == (12, 16)
    with pytest.raises(InputError, match=r"--k_text 40: .* has 12 utterances, so each has at most 11"):
        check_neighbors(val, small_config(k_text=40), train)
    check_neighbors(val, small_config(k_text=40, graph_scope="with_train"), train)


def test_graph_of_each_direction_reaches_the_model(tmp_path, small_config):
    features = load_features(write_pickle(tmp_path / "x.pkl", make_rows(32)))
    there = prepare(features, small_config(), CPU).graph
    back = prepare(features, small_config(message_flow="node_to_neighbors"), CPU).graph
    pairs = {tuple(e) for e in there.edge_index.T.tolist()}
    assert {(j, i) for i, j in pairs} == {tuple(e) for e in back.edge_index.T.tolist()} != pairs
