"""Runs in several parallel processes. The data sent to the processes says what must happen in them."""

import json
import multiprocessing
import os
import signal

import pytest
import torch

from tests.whole_trainings import left_by
from utils.errors import InputError, Interrupted
from utils.training import jobs
from utils.training.graph import TrainingData
from utils.training.jobs import train_here
from utils.training.run import Progress, Run, Trial, open_runs

CPU = torch.device("cpu")
DEADLY, BROKEN, LARGE = 5, 6, 1e30  # k_text of runs that kill or break their process; lr of a run that fails


class Trap(TrainingData):
    def graph(self, split, config, device):
        if config.k_text == DEADLY:
            os.kill(os.getpid(), signal.SIGKILL)
        if config.k_text == BROKEN:
            raise torch.AcceleratorError("CUDA error: an illegal memory access")
        return super().graph(split, config, device)


@pytest.fixture(autouse=True)
def _one_thread(quick_jobs):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    assert multiprocessing.active_children() == []


@pytest.fixture
def make_runs(tmp_path, toy_splits, small_config):
    """Opened runs, one per dictionary of options."""
    data = Trap(toy_splits, ("a", "b", "c", "d"))

    def make(folder: str, *options: dict) -> list[Run]:
        configs = [small_config(**{"dataset": "TOY", "epochs": 20, **each}) for each in options]
        runs = [Run(Trial(config, tmp_path / folder / str(i)), 1, data) for i, config in enumerate(configs)]
        open_runs(runs)
        return runs

    return make


class Told(Progress):
    """Calls ``then`` once, after this many epochs of all runs."""

    def __init__(self, runs, after: int = 0, then=lambda: None):
        super().__init__(runs)
        self.left, self.then = after, then

    def epoch(self, run, line):
        super().epoch(run, line)
        self.left -= 1
        if self.left == 0:
            self.then()

    @property
    def shown(self) -> tuple[int, int]:
        return self._bar.n, self._bar.total


def results(runs: list[Run]) -> list[dict | str | None]:
    """Everything that runs write: metrics, log without times, predictions, weights; or the error."""
    return [run.error() or left_by(run) if run.finished or run.error() else None for run in runs]


def train(runs: list[Run], count: int, **options) -> Told:
    with Told(runs, **options) as progress:
        train_here(runs, progress, CPU, count)
    return progress


def log_length(run: Run) -> int:
    path = run.folder / "log.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_several_jobs_end_at_the_bits_of_one(make_runs, capsys):
    options = [{}, {"k_text": 1}, {"lr": LARGE}, {"k_audio": 4}, {"dropout": 0.5}]
    alone, together = (make_runs(name, *options) for name in ("alone", "together"))
    train(alone, 1)
    capsys.readouterr()
    progress = train(together, 2)
    assert results(together) == results(alone)
    assert results(alone)[2].startswith("epoch ")  # the failed run, which is named once
    assert capsys.readouterr().err.count("failed: 2, seed 1: epoch ") == 1
    assert progress.shown == (100, 100)


def test_the_run_of_a_killed_process_is_trained_by_another(make_runs, capsys):
    alone, together = (make_runs(name, {}, {"k_text": 1}, {"k_audio": 4}) for name in ("alone", "together"))
    train(alone, 1)
    progress = train(together, 2, after=10, then=lambda: multiprocessing.active_children()[0].kill())
    assert results(together) == results(alone)
    assert capsys.readouterr().err.count("its process died (SIGKILL)") == 1
    assert progress.shown == (60, 60)


def test_a_run_that_kills_every_process_is_a_failed_one(make_runs, capsys, monkeypatch):
    """Both jobs are dead when the first run fails. One continues with as many threads."""
    monkeypatch.setattr(jobs, "RETRIES", 1)
    runs = make_runs("runs", {"k_text": DEADLY}, {"epochs": 2}, {"epochs": 3})
    train(runs, 2)
    assert [run.finished for run in runs] == [False, True, True]
    assert runs[0].error() == "its process died 2 times (SIGKILL)"
    assert "failed: 0, seed 1: its process died 2 times (SIGKILL)" in capsys.readouterr().err


def test_interrupted_and_resumed_is_uninterrupted(make_runs, python_interrupts, capsys):
    """Only this process gets the signal."""
    options = {"epochs": 100}, {"epochs": 100, "k_text": 1}
    alone, together = (make_runs(name, *options) for name in ("alone", "together"))
    with pytest.raises(Interrupted):
        train(together, 2, after=10, then=lambda: signal.raise_signal(signal.SIGINT))
    assert not any(run.finished for run in together)
    begun = [run for run in together if log_length(run)]
    assert capsys.readouterr().err.count(": saved after epoch ") == len(begun) >= 1
    for run in begun:  # nothing is lost
        assert torch.load(run.folder / "last.pt", weights_only=True)["epoch"] == log_length(run)
    progress = train(together, 2)
    train(alone, 1)
    assert results(together) == results(alone)
    assert progress.shown == (200, 200)


def test_a_second_interrupt_waits_for_no_epoch(make_runs, python_interrupts):
    def twice():
        for process in multiprocessing.active_children():
            os.kill(process.pid, signal.SIGSTOP)  # so that its epoch does not end
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as caught:
        train(make_runs("runs", {"epochs": 1000}, {"epochs": 1000, "k_text": 1}), 2, after=1, then=twice)
    assert caught.type is KeyboardInterrupt


def test_an_error_in_one_process_ends_all_after_their_epochs(make_runs):
    runs = make_runs("runs", {"k_text": BROKEN}, {"epochs": 100_000})
    with pytest.raises(torch.AcceleratorError, match="an illegal memory access"):
        train(runs, 2)
    assert not any(run.finished or run.error() for run in runs)


def test_bad_input_found_in_a_process_is_one_line_here(make_runs):
    runs = make_runs("runs", {}, {"k_text": 1})
    path = runs[0].folder / "config.json"
    path.write_text(path.read_text().replace('"lr": 0.01', '"lr": 0.5'))
    with pytest.raises(
        InputError, match=r"^.*0/seed1: contains a run with another configuration \(lr was 0\.5, now 0\.01"
    ):
        train(runs, 2)


def test_an_error_here_ends_all_after_their_epochs(make_runs):
    def full():
        raise OSError(28, "No space left on device")

    runs = make_runs("runs", {"epochs": 100_000}, {"epochs": 100_000, "k_text": 1})
    with pytest.raises(OSError, match="No space left"):
        train(runs, 2, after=5, then=full)
    for run in runs:
        assert not log_length(run) or (run.folder / "last.pt").exists()


def test_no_more_processes_than_runs_are_started_and_the_threads_are_shared(make_runs, monkeypatch):
    torch.set_num_threads(2)
    counts = []
    runs = make_runs("runs", {"epochs": 1}, {"epochs": 1, "k_text": 1})
    train(runs, 100, after=1, then=lambda: counts.append(len(multiprocessing.active_children())))
    assert counts == [2]
    assert {json.loads((run.folder / "metrics.json").read_text())["device"] for run in runs} == {"cpu (1 threads)"}
    monkeypatch.setattr(multiprocessing, "get_context", None)
    train(runs, 2)  # all are finished: nothing to start
