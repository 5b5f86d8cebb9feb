"""Runs in their folders: layout, resuming, locks, failures, refusals."""

import dataclasses
import json
import re
import shutil
import signal
import threading
import time

import pytest
import torch

from utils.config import Config
from utils.errors import InputError, Interrupted
from utils.io import lock, write_json
from utils.training import graph
from utils.training import run as training_run
from utils.training.graph import neighbor_lists
from utils.training.loop import evaluate, fit
from utils.training.predictions import read_predictions
from utils.training.run import (
    Progress,
    Run,
    Trial,
    claim,
    failures,
    finished_seeds,
    open_runs,
    summarise,
    train_run,
)
from utils.training.trained import find_checkpoints, load_run, load_trained

CPU = torch.device("cpu")
LOWER = "lower --hidden_dim or --heads, or the --jobs of a sweep"
KEPT = {"config.json", "log.jsonl", "metrics.json", "val_predictions.csv", "test_predictions.csv"}


@pytest.fixture
def make_run(tmp_path, toy_data, small_config):
    """A run in its own folder; further options are those of the configuration."""

    def make(folder: str = "run", seed: int = 3, keep_weights: bool = True, **options) -> Run:
        config = small_config(**{"dataset": "TOY", "epochs": 8, **options})
        return Run(Trial(config, tmp_path / folder, keep_weights), seed, toy_data)

    return make


def train(*runs: Run) -> dict | None:
    """Train runs as a command does. Returns the metrics of the first run, if it is finished."""
    with Progress(runs) as progress:
        for run in claim(runs, progress):
            train_run(run, CPU, progress)
    return json.loads((runs[0].folder / "metrics.json").read_text()) if runs[0].finished else None


def log_of(run: Run) -> list[dict]:
    lines = (run.folder / "log.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def weights_of(run: Run, name: str) -> dict:
    return torch.load(run.folder / name, weights_only=True)["weights"]


def train_interrupted(run: Run, monkeypatch, epochs: int, signum: int = signal.SIGINT) -> None:
    """Train until a signal arrives in the epoch with this number."""

    def interrupted_fit(state, train, val, config, on_epoch):
        def after(line):
            if line["epoch"] == epochs:
                signal.raise_signal(signum)
            on_epoch(line)

        fit(state, train, val, config, after)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(training_run, "fit", interrupted_fit)
        train(run)


def test_without_weights_the_metrics_are_the_same(make_run):
    run, light = make_run("with"), make_run("without", keep_weights=False)
    assert train(run) == train(light)
    assert {p.name for p in light.folder.iterdir()} == KEPT
    assert train(light) == train(run)  # finished before
    train(make_run("with", keep_weights=False))
    assert (run.folder / "best.pt").is_file()  # weights that another command kept remain
    (light.trial.folder / "summary.json").write_text("{}")
    with pytest.raises(InputError, match="its seeds have no weights"):
        find_checkpoints(str(light.trial.folder), light.trial.folder)
    with pytest.raises(InputError, match="nor a dataset with a finished run"):
        find_checkpoints(light.trial.folder.parent.name, light.trial.folder.parent.parent)  # nor is it a latest run


def test_run_folder_holds_what_the_layout_promises(make_run):
    run = make_run()
    metrics = train(run)
    assert {p.name for p in run.folder.iterdir()} == {*KEPT, "best.pt", "last.pt"}
    for split in ("val", "test"):
        found = read_predictions([run.folder / f"{split}_predictions.csv"])
        assert found.label.tolist() == run.data.splits[split].label.tolist()
        assert (found.prediction[0] == found.label).mean() == metrics[split]["wa"]
        assert (found.probability[0].argmax(1) == found.prediction[0]).all()
        assert found.ids[3] == f"TOY_BERT_WAV2VEC_{split}:3"  # no CSV names the recordings
    description = json.loads((run.folder / "config.json").read_text())
    assert description["config"] == run.config.to_dict()
    assert description["seed"] == 3
    assert description["class_names"] == ["a", "b", "c", "d"]
    assert (description["text_dim"], description["audio_dim"]) == (6, 5)
    assert description["data"]["test"]["sha256"] == run.data.splits["test"].sha256
    assert {"python", "torch", "torch-geometric", "numpy"} <= description["versions"].keys()
    assert description["command"]
    assert [line["epoch"] for line in log_of(run)] == list(range(1, 9))
    for name, epoch in (("best.pt", metrics["selected_epoch"]), ("last.pt", 8)):
        saved = torch.load(run.folder / name, weights_only=True)
        assert saved["epoch"] == epoch
        assert saved["config"] == description["config"]
        assert "training" not in saved
    graph = run.data.graph("val", run.config, CPU)
    assert metrics["graphs"]["val"] == graph.describe()
    assert metrics["device"].startswith("cpu")


def test_metrics_are_those_of_the_best_validation_epoch(make_run):
    run = make_run(selection="best_val_wf1")
    metrics = train(run)
    scores = [line["val_w_f1"] for line in log_of(run)]
    assert metrics["selected_epoch"] == 1 + scores.index(max(scores))
    assert metrics["val"]["w_f1"] == max(scores)
    trained = load_trained(run.folder / "best.pt")
    assert evaluate(trained.model, run.data.graph("test", run.config, CPU))[0] == metrics["test"]


def test_test_split_is_used_once_and_last(make_run, monkeypatch):
    run = make_run()
    used = []
    graph = type(run.data).graph
    monkeypatch.setattr(
        type(run.data), "graph", lambda self, split, *args: used.append((split, epochs())) or graph(self, split, *args)
    )

    def epochs() -> int:
        return len(log_of(run)) if (run.folder / "log.jsonl").exists() else 0

    train(run)
    assert used == [("train", 0), ("val", 0), ("test", 8)]


def test_same_seed_writes_the_same_metrics(make_run):
    first, second, other = make_run("a"), make_run("b"), make_run("c", seed=4)
    train(first, second, other)
    assert (first.folder / "metrics.json").read_bytes() == (second.folder / "metrics.json").read_bytes()
    assert log_of(first) == log_of(second) != log_of(other)


@pytest.mark.parametrize("keep_weights", [True, False])
@pytest.mark.parametrize("profile", ["official", "paper", "refined"])
def test_interrupted_and_resumed_is_uninterrupted(make_run, monkeypatch, python_interrupts, profile, keep_weights):
    whole, stopped = (make_run(name, profile=profile, keep_weights=keep_weights) for name in ("whole", "stopped"))
    expected = train(whole)
    train_interrupted(stopped, monkeypatch, 5)
    assert len(log_of(stopped)) == 5  # the current epoch was finished
    assert not stopped.finished
    load_trained(stopped.folder / "best.pt")  # the best weights so far can be evaluated
    path = stopped.folder / "log.jsonl"
    with path.open("a") as log:
        log.write('{"epoch": 6, "val')  # a kill in the middle of a line, after the last save
    assert train(stopped) == expected
    assert log_of(stopped) == log_of(whole)
    if keep_weights:
        for name in ("best.pt", "last.pt"):
            assert all(torch.equal(t, weights_of(whole, name)[n]) for n, t in weights_of(stopped, name).items())
    else:
        assert {p.name for p in stopped.folder.iterdir()} == KEPT


def test_a_log_shorter_than_the_checkpoint_is_a_failure(make_run, monkeypatch, python_interrupts):
    run = make_run()
    train_interrupted(run, monkeypatch, 5)
    path = run.folder / "log.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:3]))
    assert train(run) is None
    assert re.search(r"log\.jsonl: 3 epochs, but last\.pt has 5; use --overwrite to start again", run.error())
    assert (run.folder / "last.pt").is_file()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_finishes_the_epoch_and_restores_the_handler(make_run, monkeypatch, signum):
    handler = signal.getsignal(signum)
    run = make_run()
    train_interrupted(run, monkeypatch, 3, signum)
    assert len(log_of(run)) == 3
    assert signal.getsignal(signum) == handler


def test_an_interrupt_while_the_last_epoch_is_saved_stops(make_run, monkeypatch, python_interrupts):
    run, save, sent = make_run(), training_run.save_state, []

    def save_and_interrupt(state, *args, **options):
        save(state, *args, **options)
        if state.epoch == run.config.epochs and not sent:
            sent.append(signal.raise_signal(signal.SIGINT))

    monkeypatch.setattr(training_run, "SAVE_SECONDS", -1)
    monkeypatch.setattr(training_run, "save_state", save_and_interrupt)
    with pytest.raises(Interrupted):
        train(run)
    assert len(log_of(run)) == run.config.epochs
    assert not run.finished


def test_killed_before_the_first_save_starts_again(make_run):
    whole, killed = make_run("whole"), make_run("killed")
    expected = train(whole)
    train(killed)
    for name in ("metrics.json", "last.pt", "best.pt"):
        (killed.folder / name).unlink()
    assert train(killed) == expected
    assert log_of(killed) == log_of(whole)


def test_killed_after_training_only_evaluates(make_run, monkeypatch):
    run = make_run()

    def disk_full(path, data):
        if path.name == "metrics.json":
            raise OSError(28, "No space left on device")
        write_json(path, data)

    monkeypatch.setattr(training_run, "write_json", disk_full)
    with pytest.raises(OSError, match="No space left"):
        train(run)
    monkeypatch.undo()
    monkeypatch.setattr("utils.training.loop.train_step", lambda *args: pytest.fail("an epoch was trained again"))
    assert train(run)["test"]["wa"] > 0


def test_a_finished_run_is_kept(make_run, monkeypatch):
    run = make_run()
    expected = train(run)
    monkeypatch.setattr(training_run, "fit", lambda *args: pytest.fail("trained again"))
    assert train(run) == expected


def test_open_runs_asks_what_to_do_with_an_unfinished_run(make_run):
    run = make_run()
    open_runs([run], resume=False)
    train(run)
    open_runs([run, make_run(seed=4)], resume=False)  # finished
    (run.folder / "metrics.json").unlink()
    with pytest.raises(InputError, match="holds an unfinished run; add --resume to resume it, or --overwrite"):
        open_runs([run], resume=False)
    assert (run.folder / "best.pt").exists()
    open_runs([run], resume=True)
    for name in ("summary.json", "training_curves.png", "training_curves.pdf"):
        (run.trial.folder / name).touch()
    open_runs([run], overwrite=True)
    assert [path.name for path in run.folder.iterdir()] == ["config.json"]
    assert [path.name for path in run.trial.folder.iterdir() if path.is_file() and path.suffix != ".lock"] == []


def test_what_a_killed_overwriting_leaves_is_removed_by_the_next_command(make_run, monkeypatch):
    run = make_run()
    train(run)
    for overwrite in (False, True):
        with monkeypatch.context() as patch:
            patch.setattr(training_run.shutil, "rmtree", lambda *args, **options: None)  # killed before this
            open_runs([run], overwrite=True)
        assert any(path.is_dir() and path != run.folder for path in run.trial.folder.iterdir())
        open_runs([run], overwrite=overwrite)
        assert [path for path in run.trial.folder.iterdir() if path.suffix != ".lock"] == [run.folder]


def test_open_runs_refuses_another_configuration_before_anything_is_written(make_run):
    train(make_run())
    others = [make_run(seed=seed, lr=0.5) for seed in (1, 3)]
    for resume in (False, True):
        with pytest.raises(InputError, match=r"another configuration \(lr was 0\.01, now 0\.5\).*--model_name"):
            open_runs(others, resume)
    assert not others[0].folder.exists()


def test_open_runs_looks_at_every_seed_of_the_trial(make_run):
    train(make_run())
    for overwrite in (False, True):
        with pytest.raises(
            InputError, match=r"seed3: contains a run with another configuration \(lr was 0\.01, now 0\.5\)"
        ):
            open_runs([make_run(seed=4, lr=0.5)], resume=False, overwrite=overwrite)
    open_runs([make_run(lr=0.5)], resume=False, overwrite=True)  # there is no other run


def test_overwriting_a_run_that_another_process_trains_is_refused(make_run):
    run = make_run()
    train(run)
    with lock(run.folder) as mine:
        assert mine
        with pytest.raises(InputError, match="seed3: another command is writing it"):
            open_runs([run], overwrite=True)
    assert run.finished


def test_a_second_interrupt_saves_no_torn_state(make_run, monkeypatch):
    run = make_run()

    def torn(state, *args):
        raise KeyboardInterrupt  # in the middle of a step

    monkeypatch.setattr(training_run, "fit", torn)
    with pytest.raises(KeyboardInterrupt):
        train(run)
    assert not (run.folder / "last.pt").exists()
    assert not (run.folder / "best.pt").exists()


@pytest.mark.parametrize(
    "error, message",
    [
        (InputError("epoch 2: the training loss is nan; try a smaller --lr"), "epoch 2: the training loss is nan"),
        (
            torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 9 GiB. GPU 0 has a total capacity of 8 GiB"),
            f"OutOfMemoryError: CUDA out of memory. Tried to allocate 9 GiB; {LOWER}",
        ),
        (torch.AcceleratorError("CUDA error: out of memory"), f"AcceleratorError: CUDA error: out of memory; {LOWER}"),
        (MemoryError(), f"MemoryError: no message; {LOWER}"),
    ],
)
def test_a_failure_is_recorded_and_the_other_runs_are_trained(make_run, monkeypatch, capsys, error, message):
    runs = [make_run(seed=seed) for seed in (3, 4)]
    monkeypatch.setattr(
        training_run, "fit", lambda state, *args: fail_once(error) if torch.initial_seed() == 3 else fit(state, *args)
    )

    def fail_once(error):
        raise error

    train(*runs)
    assert [run.finished for run in runs] == [False, True]
    assert runs[0].error().startswith(message)
    assert runs[0].outcome() == {"seed": 3, "error": runs[0].error()}
    assert f"failed: run, seed 3: {message}" in capsys.readouterr().err
    monkeypatch.undo()
    open_runs(runs, resume=False)  # a failed run is tried again without --resume
    train(*runs)
    assert runs[0].finished
    assert runs[0].error() is None


def test_a_gpu_in_error_stops_everything_and_fails_no_run(make_run, monkeypatch):
    def broken(*args):
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(training_run, "fit", broken)
    run = make_run()
    with pytest.raises(torch.AcceleratorError):
        train(run)
    assert run.outcome() is None


def test_errors_of_the_program_are_not_taken_for_failed_runs(make_run, monkeypatch):
    monkeypatch.setattr(training_run, "fit", lambda *args: {}["no such key"])
    with pytest.raises(KeyError):
        train(make_run())


def test_a_run_of_another_process_is_left_to_it_and_taken_over(make_run, monkeypatch):
    monkeypatch.setattr(training_run, "POLL_SECONDS", 0.01)
    runs = [make_run(seed=seed) for seed in (3, 4)]
    order = []
    with lock(runs[0].folder):
        thread = threading.Thread(target=lambda: order.extend(run.seed for run in claim(runs, Progress(runs))))
        thread.start()
        deadline = time.monotonic() + 10
        while order != [4] and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        assert order == [4]  # it waits for the other
    thread.join(10)
    assert order == [4, 3]


def test_a_failure_of_another_process_is_not_tried_again(make_run, monkeypatch):
    runs = [make_run(seed=seed) for seed in (3, 4)]
    claimed = []
    with Progress(runs) as progress:
        for run in claim(runs, progress):
            claimed.append(run.seed)
            write_json(runs[1].folder / "error.json", {"error": "elsewhere"})
    assert claimed == [3]


def test_a_failed_run_whose_next_attempt_was_killed_is_trained(make_run):
    """The attempt removes error.json. If it is then killed, it leaves neither a failure nor metrics."""
    runs = [make_run(seed=seed) for seed in (3, 4)]
    write_json(runs[1].folder / "error.json", {"error": "before this command"})
    claimed = []
    with Progress(runs) as progress:
        for run in claim(runs, progress):
            claimed.append(run.seed)
            (runs[1].folder / "error.json").unlink(missing_ok=True)
    assert claimed == [3, 4]


def test_what_failed_since_an_earlier_moment_is_not_tried_again(make_run):
    runs = [make_run(seed=seed) for seed in (3, 4)]
    write_json(runs[0].folder / "error.json", {"error": "before"})
    before = failures(runs)
    write_json(runs[1].folder / "error.json", {"error": "since"})
    with Progress(runs) as progress:
        assert [run.seed for run in claim(runs, progress, before)] == [3]


def test_finished_seeds_are_those_of_every_command(make_run):
    runs = [make_run(seed=seed) for seed in (10, 3)]
    expected = {run.seed: train(run) for run in runs}
    trial = runs[0].trial
    (trial.folder / "seed3_copy").mkdir()
    assert finished_seeds(trial) == expected
    assert list(finished_seeds(trial)) == [3, 10]
    (runs[1].folder / "metrics.json").write_text('{"seed": 3}')
    with pytest.raises(InputError, match=r"seed3/metrics.json: not the metrics of a run \(KeyError"):
        finished_seeds(trial)
    (runs[1].folder / "metrics.json").write_text(json.dumps(expected[3] | {"val": expected[3]["val"] | {"wa": True}}))
    with pytest.raises(InputError, match=r"seed3/metrics.json: not the metrics of a run \(ValueError: val wa True"):
        finished_seeds(trial)


@pytest.mark.parametrize("other", [{"folder": "other", "lr": 0.5}, {"folder": "other", "seed": 4}])
def test_last_checkpoint_of_another_run_is_refused(make_run, other):
    run, other = make_run(), make_run(**other)
    train(run, other)
    (run.folder / "metrics.json").unlink()
    (run.folder / "last.pt").write_bytes((other.folder / "last.pt").read_bytes())
    train(run)
    assert re.search(r"last\.pt: its configuration differs .*(lr was 0\.5|seed was 4)", run.error())


def test_summary(make_run):
    runs = [make_run(seed=seed) for seed in (3, 4)]
    per_seed = {run.seed: train(run) for run in runs}
    trial = runs[0].trial
    assert summarise(trial, runs[0].data.class_names) == per_seed
    summary = json.loads((trial.folder / "summary.json").read_text())
    values = [per_seed[seed]["test"]["wa"] for seed in (3, 4)]
    assert summary["test"]["seeds"]["4"] == per_seed[4]["test"]
    assert summary["test"]["mean"]["wa"] == pytest.approx(sum(values) / 2)
    assert summary["test"]["std"]["wa"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
    assert summary["config"] == trial.config.to_dict()


def test_find_checkpoints(make_run, tmp_path, capsys):
    runs = [make_run("TOY/first", seed) for seed in (3, 10)]
    train(*runs)
    trial = runs[0].trial
    summarise(trial, "abcd")
    best = [run.folder / "best.pt" for run in runs]
    assert find_checkpoints(str(best[0]), tmp_path) == (best[0].parent, [best[0]])
    assert find_checkpoints(str(best[0].parent), tmp_path) == (best[0].parent, [best[0]])
    assert find_checkpoints(str(trial.folder), tmp_path) == (trial.folder, best)
    assert find_checkpoints("TOY", tmp_path) == (trial.folder, best)
    (runs[1].folder / "metrics.json").unlink()
    assert find_checkpoints("TOY", tmp_path) == (trial.folder, best[:1])
    assert "not finished, skipped: seed10" in capsys.readouterr().err
    with pytest.raises(InputError, match="NOTHING: neither a file or folder, nor a dataset with a finished run"):
        find_checkpoints("NOTHING", tmp_path)
    (runs[0].folder / "metrics.json").unlink()
    with pytest.raises(InputError, match="no finished seed"):
        find_checkpoints(str(trial.folder), tmp_path)


def test_latest_run_of_a_dataset_is_taken_and_said(make_run, tmp_path, capsys):
    for name in ("TOY/b", "TOY/a"):
        run = make_run(name)
        train(run)
        summarise(run.trial, "abcd")
    assert find_checkpoints("TOY", tmp_path)[0] == tmp_path / "TOY" / "a"
    assert "2 runs in" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: s["weights"].popitem(), "the weights do not fit their configuration"),
        (lambda s: s.update(text_dim="x"), "invalid text_dim 'x'"),
        (lambda s: s.update(text_dim=2**63), "invalid text_dim 9223372036854775808"),
        (lambda s: s.update(text_dim=7), "the weights do not fit their configuration"),
        (lambda s: s["config"].update(heads=2), "the weights do not fit their configuration"),
        (lambda s: s["config"].pop("heads"), "written by another version"),
        (lambda s: s["config"].update(lr=-1.0), "--lr -1.0"),
        *(
            (lambda s, value=value: s.update(temperature=value), f"invalid temperature {value!r}")
            for value in (0.0, -1.5, float("nan"), float("inf"), 2, None, "2")
        ),
    ],
)
def test_checkpoint_whose_parts_do_not_agree(make_run, change, message):
    run = make_run()
    train(run)
    path = run.folder / "best.pt"
    saved = torch.load(path, weights_only=True)
    change(saved)
    torch.save(saved, path)
    with pytest.raises(InputError, match=rf"best\.pt: {message}"):
        load_trained(path)


def test_the_temperature_of_a_checkpoint_is_1_until_one_is_fitted(make_run):
    run = make_run()
    fitted = train(run)["temperature"]
    assert load_trained(run.folder / "best.pt").temperature == fitted != 1
    saved = torch.load(run.folder / "best.pt", weights_only=True)
    del saved["temperature"]
    torch.save(saved, run.folder / "best.pt")
    assert load_trained(run.folder / "best.pt").temperature == 1


def test_neighbour_lists_are_computed_once_for_every_smaller_k(toy_data, small_config, monkeypatch):
    computed = []
    monkeypatch.setattr(graph, "neighbor_lists", lambda *args: computed.append(args[2]) or neighbor_lists(*args))
    configs: list[Config] = [small_config(k_text=k, k_audio=12 - k) for k in (2, 9, 5)]
    toy_data.prepare(configs)
    for config in configs:
        toy_data.graph("train", config, CPU)
    assert computed == [9, 9, 9]  # once per split
    toy_data.graph("train", small_config(k_text=10, k_audio=1), CPU)
    assert computed == [9, 9, 9, 10]


@pytest.mark.parametrize("name", ["metrics.json", "log.jsonl", "best.pt"])
def test_what_is_in_a_folder_without_a_configuration_is_not_trusted(make_run, name):
    """The state that an interrupted removal leaves."""
    run = make_run()
    train(run)
    content = (run.folder / name).read_bytes()
    for path in run.folder.iterdir():
        path.unlink()
    (run.folder / name).write_bytes(content)
    assert not run.finished
    assert finished_seeds(run.trial) == {}
    with pytest.raises(InputError, match=r"seed3/config\.json: no such file"):
        open_runs([run])
    open_runs([run], overwrite=True)
    assert [path.name for path in run.folder.iterdir()] == ["config.json"]


def test_of_two_commands_with_other_options_the_second_is_refused_at_once(make_run):
    """Neither has trained anything yet."""
    open_runs([make_run(seed=seed) for seed in (3, 4)], resume=False)
    for seed in (3, 4, 5):
        with pytest.raises(InputError, match=r"another configuration \(lr was 0\.01, now 0\.5\)"):
            open_runs([make_run(seed=seed, lr=0.5)], resume=False)
    open_runs([make_run(seed=seed) for seed in (3, 4)], resume=False)  # claimed, not begun: nothing to resume


def test_a_run_that_another_command_finished_with_other_options_is_not_taken_for_its_own(make_run):
    runs, other = [make_run(seed=seed) for seed in (3, 4)], make_run(seed=4, lr=0.5)
    open_runs(runs)
    with Progress(runs) as progress:
        mine = claim(runs, progress)
        next(mine)
        shutil.rmtree(runs[1].folder)
        train(other)
        with pytest.raises(
            InputError, match=r"seed4: contains a run with another configuration \(lr was 0\.5, now 0\.01\)"
        ):
            next(mine)


def test_overwriting_is_refused_as_a_whole(make_run):
    runs = [make_run(seed=seed) for seed in (3, 4)]
    train(*runs)
    with lock(runs[1].folder), pytest.raises(InputError, match="seed4: another command is writing it"):
        open_runs(runs, overwrite=True)
    assert all(run.finished for run in runs)


def test_seeds_of_one_run_must_be_of_one_training(make_run, toy_data):
    runs = [make_run(seed=seed) for seed in (3, 4)]
    train(*runs)
    paths = [run.folder / "best.pt" for run in runs]
    assert [each.seed for each in load_run(paths)] == [3, 4]
    copy = runs[0].folder.with_name("seed5")
    shutil.copytree(runs[0].folder, copy)
    with pytest.raises(InputError, match=r"seed5/best\.pt: contains seed 3, but is in the folder of another seed"):
        load_run([*paths, copy / "best.pt"])
    test = dataclasses.replace(toy_data.splits["test"], sha256="another")
    other_data = dataclasses.replace(toy_data, splits={**toy_data.splits, "test": test})
    narrow = {name: dataclasses.replace(each, text=each.text[:, :3]) for name, each in toy_data.splits.items()}
    for data, message in (
        (other_data, "trained on other test data than"),
        (dataclasses.replace(toy_data, splits=narrow), "its configuration differs from"),
    ):
        shutil.rmtree(copy)
        train(dataclasses.replace(make_run(seed=5), data=data))
        with pytest.raises(InputError, match=rf"seed5/best\.pt: {message} .*seed3/best\.pt"):
            load_run([*paths, copy / "best.pt"])


def test_folders_of_one_seed_are_counted_once(make_run):
    run = make_run()
    train(run)
    for name in ("seed03", "seed٣", "seed3 (copy)", "seed"):
        shutil.copytree(run.folder, run.folder.with_name(name))
    assert list(finished_seeds(run.trial)) == [3]


STATES = {
    "epoch is a text": lambda s: s.update(epoch="5"),
    "epoch is 0": lambda s: s.update(epoch=0),
    "no best weights": lambda s: s.update(best_weights=None),
    "best weights of another network": lambda s: s["best_weights"].popitem(),
    "schedule of texts": lambda s: s["scheduler"].update(last_epoch="3"),
    "no schedule": lambda s: s.pop("scheduler"),
    "no optimizer": lambda s: s.pop("optimizer"),
    "generator": lambda s: s.update(rng=torch.zeros(3)),
    "betas": lambda s: s["optimizer"]["param_groups"][0].update(betas=b"x"),
    "other betas": lambda s: s["optimizer"]["param_groups"][0].update(betas=(0.5, 0.9)),
    "no learning rate": lambda s: s["optimizer"]["param_groups"][0].update(lr=torch.nan),
    "moment of a number": lambda s: s["optimizer"]["state"][0].update(exp_avg=1.0),
    "moment of booleans": lambda s: s["optimizer"]["state"][0].update(exp_avg=s["model"]["classifier.4.bias"] > 0),
    "infinite moment": lambda s: s["optimizer"]["state"][0]["exp_avg_sq"].fill_(torch.inf),
    "moments of another parameter": lambda s: s["optimizer"]["state"].update({999: s["optimizer"]["state"][0]}),
    "complex weights": lambda s: s["model"].update({n: t.cfloat() for n, t in s["model"].items()}),
    "best weights": lambda s: s.update(best_weights=None),
    "best epoch to come": lambda s: s.update(best_epoch=s["epoch"] + 1),
    "score": lambda s: s.update(best_score=torch.nan),
}


@pytest.mark.parametrize("change", STATES.values(), ids=STATES)
def test_a_state_of_another_kind_is_a_failure_and_not_a_traceback(make_run, monkeypatch, python_interrupts, change):
    run = make_run()
    train_interrupted(run, monkeypatch, 3)
    saved = torch.load(run.folder / "last.pt", weights_only=True)
    change(saved["training"])
    torch.save(saved, run.folder / "last.pt")
    assert train(run) is None
    assert re.search(r"last\.pt: not a state of this training \(\w+: ", run.error())


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: s.update(seed=3.0), r"invalid seed 3\.0"),
        (lambda s: s.update(class_names=["a", ["b"] * 99]), "invalid class names: "),
        (lambda s: s["data"].update(train=None), "invalid entry for the 'train' data"),
        (lambda s: s["data"].update(x={}), "invalid entry for the 'x' data"),
        (lambda s: s.update(data=[]), "not the description of a run"),
        (lambda s: s["config"].update(epochs=8.0), "--epochs 8.0: must be of type int"),
        (lambda s: s.update(weights=[]), "its weights are not a dict of tensors"),
        (
            lambda s: s["weights"].update({"classifier.4.bias": torch.zeros(4, dtype=torch.int8)}),
            "the weights do not fit",
        ),
        (lambda s: s["weights"].update({3: torch.zeros(1)}), r"the weights do not fit their configuration \(3\)"),
        (lambda s: s["weights"].update(x=1), "its weights are not a dict of tensors"),
        (
            lambda s: s["weights"]["classifier.4.bias"].fill_(torch.nan),
            "classifier.4.bias holds a value that is",
        ),
    ],
)
def test_checkpoint_of_other_types(make_run, change, message):
    run = make_run()
    train(run)
    saved = torch.load(run.folder / "best.pt", weights_only=True)
    change(saved)
    torch.save(saved, run.folder / "best.pt")
    with pytest.raises(InputError, match=rf"best\.pt: {message}"):
        load_trained(run.folder / "best.pt")


def test_a_checkpoint_that_claims_a_giant_network_allocates_none(make_run):
    run = make_run()
    train(run)
    saved = torch.load(run.folder / "best.pt", weights_only=True)
    saved.update(text_dim=1 << 40)
    torch.save(saved, run.folder / "best.pt")
    with pytest.raises(
        InputError, match=r"best\.pt: the weights do not fit .* not \[16, 1099511627776\] of torch.float32"
    ):
        load_trained(run.folder / "best.pt")


@pytest.mark.parametrize("content", [b"[[", b"\xff", b'{"epoch": 1}\n7', b"[" * 10**5])
def test_a_damaged_log_is_a_failure(make_run, monkeypatch, python_interrupts, content):
    run = make_run()
    train_interrupted(run, monkeypatch, 3)
    (run.folder / "log.jsonl").write_bytes(content)
    assert train(run) is None
    assert re.search(r"log\.jsonl: line \d: not ", run.error())


@pytest.mark.parametrize(
    "content", ['{"config": 1}', '{"config": {}, "data": {"train": 3}, "class_names": ["a", "b"]}']
)
def test_a_configuration_of_other_types_is_refused(make_run, content):
    run = make_run()
    train(run)
    (run.folder / "config.json").write_text(content)
    with pytest.raises(
        InputError, match=r"config\.json: (not the description of a run|invalid entry for the 'train' data)"
    ):
        open_runs([run])


def test_a_full_disk_names_the_log(make_run, monkeypatch):
    run = make_run()
    open_runs([run])
    (run.folder / "log.jsonl").symlink_to("/dev/full")
    monkeypatch.setattr(training_run, "read_log", lambda *args: [])
    monkeypatch.setattr(training_run, "write_log", lambda *args: None)
    with pytest.raises(OSError, match="No space left") as caught:
        train(run)
    assert caught.value.filename == str(run.folder / "log.jsonl")


def test_finished_runs_in_a_folder_that_cannot_be_written_are_kept(make_run, monkeypatch):
    run = make_run()
    train(run)
    monkeypatch.setattr(training_run, "lock", lambda *args, **kwargs: pytest.fail("a lock file was written"))
    open_runs([run])
    assert train(run)


def test_a_run_folder_is_opened_by_one_command_at_a_time(make_run):
    """Otherwise, two commands with --overwrite could each claim some of the seeds."""
    run = make_run()
    with lock(run.trial.folder / "open"):
        other = threading.Thread(target=open_runs, args=([run],))
        other.start()
        other.join(0.3)
        assert not (run.folder / "config.json").exists()
    other.join()
    assert (run.folder / "config.json").exists()
