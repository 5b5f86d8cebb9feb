"""Training on a pretended GPU: the numbers of the CPU, nothing on two devices, a fixed number of waits per epoch."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models.cemobam import CemoBAM
from models.ops import NeighborGraph
from tests.pretend_cuda import PretendCuda
from tests.whole_trainings import Killed, train, train_in_two, trained
from utils.data.safe_pickle import load_tensors
from utils.training import loop
from utils.training.graph import prepare
from utils.training.loop import fit, start_training
from utils.training.run import Run, Trial, open_runs, summarise

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
WAITS_PER_EPOCH = 1  # the losses and the confusion counts, together


# ---- the pretended device itself -------------------------------------------------------------------------------------


def test_tensors_say_where_they_are_and_compute_real_numbers():
    with PretendCuda():
        here = torch.arange(4.0)
        there = here.to("cuda")
        assert (here.device, there.device) == (CPU, torch.device("cuda:0"))
        assert there.is_cuda and (2 * there)[1:].view(3, 1).is_cuda and torch.ones(2, device=CUDA).is_cuda
        assert torch.zeros_like(there, device="cpu").device == there.cpu().device == CPU
        assert there.new_tensor([1]).is_cuda and torch.ones(2, dtype=torch.double).to(there).is_cuda
        weight = torch.ones(4, device=CUDA, requires_grad=True)
        (weight * there).sum().backward()
        assert weight.grad.is_cuda and weight.grad.cpu().tolist() == [0, 1, 2, 3]
        assert there.to("cuda") is there


@pytest.mark.parametrize(
    "mix",
    [
        lambda here, there: here + there,
        lambda here, there: F.linear(there, here),
        lambda here, there: torch.cat([here, there]),
        lambda here, there: here.index_select(0, there.long().flatten()),
        lambda here, there: here[there.long()],
        lambda here, there: torch.add(here, here, out=there),
    ],
)
def test_two_devices_in_one_operation_are_an_error(mix):
    with PretendCuda(), pytest.raises(RuntimeError, match="on the same device, but found cpu, cuda:0"):
        mix(torch.ones(3, 3), torch.ones(3, 3).to(CUDA))


def test_what_a_gpu_takes_of_the_cpu_is_taken():
    """Single numbers, indices, and copies."""
    with PretendCuda(2) as cuda:
        there = torch.ones(3).to(CUDA)
        there += torch.tensor(2.0)
        there[torch.tensor([0])] = 5
        there[1:].copy_(torch.zeros(2))
        assert there.tolist() == [5, 0, 0]
        with pytest.raises(RuntimeError, match="cuda:0, cuda:1"):
            there + there.to("cuda:1")
        with pytest.raises(TypeError, match="cuda:0 device type tensor to numpy"):
            np.asarray(there)
    assert cuda.waits == {"to the GPU": 3, "to the CPU": 1}  # the tensor, the index, the copy


@pytest.mark.parametrize(
    "work, waits",
    [
        (lambda x: x.sum().item(), 1),
        (lambda x: bool(x.isfinite().all()), 1),
        (lambda x: x.nonzero(), 1),
        (lambda x: x[x > 0], 1),
        (lambda x: x.masked_fill(x > 0, 0), 0),
        (lambda x: torch.bincount(x.long(), minlength=9), 2),
        (lambda x: x.cpu(), 1),
        (lambda x: x.tolist(), 1),
        (lambda x: torch.tensor([1.0]).to(x.device, non_blocking=True), 0),
        (lambda x: (2 * x).view(2, 2).argmax(1), 0),
    ],
)
def test_what_waits_for_the_gpu_is_counted(work, waits):
    with PretendCuda() as cuda:
        x = torch.ones(4, device=CUDA)
        work(x)
    assert sum(cuda.waits.values()) == waits


def test_kernels_are_counted_without_views():
    with PretendCuda() as cuda:
        x = torch.empty(4, device=CUDA).fill_(1)
        x.view(2, 2).T.detach()[0].cpu()
        x.add_(1).mul(2)
        torch.ones(3).mul(2)
    assert cuda.kernels == {"fill_": 1, "add_": 1, "mul": 1}


def test_each_device_has_its_own_random_numbers():
    with PretendCuda(2):
        torch.manual_seed(1)
        state, of_cpu = torch.cuda.get_rng_state("cuda:1"), torch.get_rng_state()
        draws = [F.dropout(torch.ones(64, device="cuda:1"), 0.5).cpu() for _ in range(2)]
        assert torch.equal(of_cpu, torch.get_rng_state())
        assert torch.equal(state, torch.cuda.get_rng_state("cuda:0"))
        torch.cuda.set_rng_state(state, "cuda:1")
        again = F.dropout(torch.ones(64, device="cuda:1"), 0.5).cpu()
        assert torch.equal(draws[0], again) and not torch.equal(*draws)
        with pytest.raises(RuntimeError, match="wrong size"):
            torch.cuda.set_rng_state(of_cpu)


def test_everything_is_as_before_after_an_exception():
    before = dict(vars(torch.cuda)), torch.accelerator.current_accelerator
    with pytest.raises(ZeroDivisionError), PretendCuda():
        torch.ones(2, device=CUDA)
        raise ZeroDivisionError
    assert (dict(vars(torch.cuda)), torch.accelerator.current_accelerator) == before
    assert torch.overrides._get_current_function_mode_stack() == []
    assert torch.utils._python_dispatch._get_current_dispatch_mode() is None


# ---- training --------------------------------------------------------------------------------------------------------


OPTIONS = [
    {},
    {"profile": "official"},
    {"profile": "refined"},
    {"ablation": "no_chgat"},
    {"ablation": "no_xcbam"},
    {"graph_scope": "with_train", "lr_schedule": "plateau"},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_training_and_evaluation_are_those_of_the_cpu(toy_splits, small_config, tmp_path, options):
    config = small_config(dropout=0.0, **options)  # a GPU draws other dropout masks
    expected = trained(CPU, toy_splits, config, tmp_path)
    with PretendCuda():
        assert trained(CUDA, toy_splits, config, tmp_path) == expected


@pytest.mark.parametrize("device", ["cuda:0", "cuda:1"])
def test_a_resumed_training_with_dropout_is_the_uninterrupted_one(toy_splits, small_config, tmp_path, device):
    """Also on a GPU that is not the first one, whose generator has its own state."""
    config = small_config(profile="refined", dropout=0.5)
    with PretendCuda(2):
        uninterrupted, resumed = (trained(device, toy_splits, config, tmp_path, stop) for stop in (4, 2))
    assert resumed == uninterrupted


def counted(splits, config, epochs: int) -> PretendCuda:
    with PretendCuda() as cuda:
        train, val = (prepare(splits[split], config, CUDA) for split in ("train", "val"))
        state = start_training(CemoBAM(config.model, 6, 5, 4).to(CUDA), config)
        fit(state, train, val, config.replace(epochs=epochs), lambda line: None)
    return cuda


def waits_per_epoch(splits, config) -> float:
    few, more = (sum(counted(splits, config, epochs).waits.values()) for epochs in (2, 5))
    return (more - few) / 3


@pytest.mark.parametrize("options", OPTIONS[:3])
def test_the_cpu_waits_so_often_an_epoch(toy_splits, small_config, options):
    assert waits_per_epoch(toy_splits, small_config(**options)) == WAITS_PER_EPOCH


@pytest.fixture
def make_run(tmp_path, toy_data, small_config):
    """A run in its own folder; further options are those of the configuration."""

    def make(folder: str, seed: int = 3, **options) -> Run:
        config = small_config(**{"dataset": "TOY", "epochs": 5, **options})
        return Run(Trial(config, tmp_path / folder), seed, toy_data)

    return make


def test_a_run_folder_is_that_of_the_cpu(make_run):
    expected = train(make_run("cpu", dropout=0.0), CPU)
    with PretendCuda():
        assert train(make_run("cuda", dropout=0.0), CUDA) == expected


def test_a_resumed_run_folder_is_that_of_an_uninterrupted_run(make_run, monkeypatch):
    with PretendCuda():
        expected = train(make_run("whole", dropout=0.4), CUDA)
        assert train_in_two(make_run("resumed", dropout=0.4), monkeypatch, CUDA, CUDA) == expected


@pytest.mark.parametrize("first, second", [("cuda", "cpu"), ("cpu", "cuda")])
def test_a_run_may_go_on_on_another_device_and_says_so(make_run, monkeypatch, capsys, first, second):
    """Without dropout, whose masks differ by device, it ends at the same numbers."""
    names = {"cpu": "cpu", "cuda": "cuda (Pretended GPU)"}
    expected = train(make_run("whole", dropout=0.0), CPU)
    run, other = make_run("moved", dropout=0.0), make_run("moved", seed=4, dropout=0.0)
    with PretendCuda():
        open_runs([run, other])  # as a sweep does, and again below
        assert train_in_two(run, monkeypatch, torch.device(first), torch.device(second)) == expected
        assert (
            f"note: moved, seed 3: begun on {names[first]}, continues on {names[second]}: " in capsys.readouterr().err
        )
        open_runs([run, other])
        train(other, torch.device(first))
    assert "note" not in capsys.readouterr().err
    metrics, last = (json.loads((each.folder / "metrics.json").read_text())["device"] for each in (run, other))
    assert metrics.startswith(second) and last.startswith(first)
    described = [json.loads((run.folder / "config.json").read_text()), load_tensors(run.folder / "best.pt")]
    assert [each["device"] for each in described] == 2 * [names[first]]
    summarise(run.trial, "abcd")
    assert json.loads((run.trial.folder / "summary.json").read_text())["device"] == f"{metrics}; {last}"


def test_a_run_that_is_killed_before_its_first_save_begins_where_it_is_trained(make_run, monkeypatch, capsys):
    run = make_run("moved")
    with PretendCuda():
        monkeypatch.setattr("utils.training.run.fit", lambda *args: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            train(run, CUDA)
        monkeypatch.undo()
        train(run, CPU)
    assert json.loads((run.folder / "config.json").read_text())["device"] == "cpu"
    assert "note" not in capsys.readouterr().err


# ---- planted bugs: each of them would be caught ----------------------------------------------------------------------


def _cpu_tensor_in_forward(patch):
    forward = CemoBAM.forward
    patch.setattr(CemoBAM, "forward", lambda self, *args: forward(self, *args) + torch.zeros(4))


def _graph_not_moved(patch):
    patch.setattr(NeighborGraph, "to", lambda self, device: self)


def _labels_not_moved(patch):
    patch.setattr(F, "cross_entropy", lambda a, b, _of=F.cross_entropy, **options: _of(a, b.cpu(), **options))


def _random_state_of_the_first_gpu(patch):
    patch.setattr(torch.cuda, "get_rng_state", lambda device, _of=torch.cuda.get_rng_state: _of("cuda:0"))


def _numpy_of_a_device_tensor(patch):
    patch.setattr(loop, "confusion", lambda y, p, n, _of=loop.confusion: _of(y, torch.tensor(p.numpy()).to(p), n))


def _predictions_left_on_the_gpu(patch):
    patch.setattr(torch.Tensor, "cpu", lambda self: self)


@pytest.mark.parametrize(
    "plant, error",
    [
        (_cpu_tensor_in_forward, "same device"),
        (_graph_not_moved, "same device"),
        (_labels_not_moved, "same device"),
        (_numpy_of_a_device_tensor, "to numpy"),
        (_predictions_left_on_the_gpu, "to numpy"),
    ],
)
def test_a_tensor_in_the_wrong_place_is_caught(toy_splits, small_config, tmp_path, monkeypatch, plant, error):
    plant(monkeypatch)
    trained(CPU, toy_splits, small_config(), tmp_path)  # on a CPU, the bug is invisible
    with PretendCuda(), pytest.raises((RuntimeError, TypeError), match=error):
        trained(CUDA, toy_splits, small_config(), tmp_path)


def test_a_random_state_of_the_wrong_device_is_caught(toy_splits, small_config, tmp_path, monkeypatch):
    config = small_config(profile="refined", dropout=0.5)
    with PretendCuda(2):
        expected = trained("cuda:1", toy_splits, config, tmp_path, stop=4)
        _random_state_of_the_first_gpu(monkeypatch)
        assert trained("cuda:1", toy_splits, config, tmp_path) != expected


def test_a_further_wait_in_the_step_is_caught(toy_splits, small_config, monkeypatch):
    step = loop.train_step
    monkeypatch.setattr(
        loop, "train_step", lambda state, *args: (step(state, *args), next(state.model.parameters()).sum().item())[0]
    )
    assert waits_per_epoch(toy_splits, small_config()) == WAITS_PER_EPOCH + 1
