"""The Top-K grid: runs, tables, and the command as a user runs it."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

import sweep
import train
from tests.conftest import ROOT, environment, make_rows, sweep_tables, write_pickle
from tests.pretend_cuda import PretendCuda
from utils.config import make_config, read_config
from utils.errors import InputError
from utils.sweep.results import best_so_far, best_trial, outcomes, report, run_table, summary_table, training_command
from utils.sweep.run import grid_runs
from utils.training import jobs, loop
from utils.training import run as training_run
from utils.training.graph import TrainingData, neighbor_lists, prepare
from utils.training.run import Progress, open_runs

GRID = ["--k_text", "1", "3", "--k_audio", "2", "4", "--seeds", "1", "2"]
TINY = ["--hidden_dim", "16", "--epochs", "3", "--lr", "0.01"]
RUNS = 8


def result(k_text: int, k_audio: int, seed: int, val: float, test: float) -> dict:
    metrics = {split: dict.fromkeys(("wa", "ua", "w_f1"), v) for split, v in (("val", val), ("test", test))}
    return {"k_text": k_text, "k_audio": k_audio, "seed": seed, "selected_epoch": 3, "seconds": 1.5, **metrics}


@pytest.fixture
def options(tmp_path, feature_dir):
    """Arguments of a small sweep of TOY in ``tmp_path / "runs"``."""
    return ["--dataset", "TOY", *GRID, *TINY, "--feature_dir", feature_dir, "--save_path", tmp_path / "runs"]


@pytest.fixture
def run_sweep(monkeypatch, capsys):
    """Run the sweep in this process. Returns the exit code and what it printed."""

    def run(options: list) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["sweep.py", *map(str, options)])
        code = sweep.main()
        return code, capsys.readouterr().out

    return run


def folder_of(tmp_path: Path) -> Path:
    return next((tmp_path / "runs" / "TOY").glob("topk-*"))


def folder_of_run(sweep_folder: Path, row: dict) -> Path:
    return sweep_folder / f"k{row['k_text']}_{row['k_audio']}" / f"seed{row['seed']}"


def finished_runs(folder: Path) -> dict[Path, int]:
    """The time at which each finished run of a sweep was finished."""
    return {path: path.stat().st_mtime_ns for path in folder.glob("k*/seed*/metrics.json")}


def test_grid_goes_seed_by_seed():
    runs = grid_runs(make_config({}), Path("sweep"), [1, 2], [3, 4], [5, 6])
    assert [str(run.folder) for run in runs] == [
        *("sweep/k1_3/seed5", "sweep/k1_4/seed5", "sweep/k2_3/seed5", "sweep/k2_4/seed5"),
        *("sweep/k1_3/seed6", "sweep/k1_4/seed6", "sweep/k2_3/seed6", "sweep/k2_4/seed6"),
    ]
    assert {(run.config.k_text, run.config.k_audio) for run in runs} == {(1, 3), (1, 4), (2, 3), (2, 4)}


@pytest.mark.parametrize("scope", ["split", "with_train"])
def test_every_graph_is_a_slice_of_the_same_lists(toy_splits, small_config, scope):
    data = TrainingData(toy_splits, ("a", "b", "c", "d"))
    data.lists("val", small_config(k_text=9, k_audio=7, graph_scope=scope))
    for k_text, k_audio in ((1, 1), (4, 7), (9, 2)):
        config = small_config(k_text=k_text, k_audio=k_audio, graph_scope=scope)
        sliced = data.graph("val", config, torch.device("cpu"))
        direct = prepare(toy_splits["val"], config, torch.device("cpu"), toy_splits["train"])
        assert torch.equal(sliced.graph.edge_index, direct.graph.edge_index)
        assert torch.equal(sliced.graph.rowptr, direct.graph.rowptr)
        assert sliced.context == direct.context == (40 if scope == "with_train" else 0)


@pytest.mark.drawn
def test_the_whole_sweep(tmp_path, options, run_sweep, monkeypatch):
    lists = []
    monkeypatch.setattr(
        "utils.training.graph.neighbor_lists",
        lambda *args: lists.append(args) or neighbor_lists(*args),
    )
    code, output = run_sweep(options)
    assert code == 0
    assert len(lists) == 3  # once per split, not per run
    folder = folder_of(tmp_path)
    assert folder.name == "topk-paper-hidden_dim=16-epochs=3-lr=0.01"
    expected = {"k1_2", "k1_4", "k3_2", "k3_4", "sweep.csv", "sweep_summary.csv", "topk_grid.png", "topk_grid.pdf"}
    assert {path.name for path in folder.iterdir()} == expected
    assert not list(folder.rglob("*.pt"))  # no weights are kept

    runs = pd.read_csv(folder / "sweep.csv", float_precision="round_trip")
    assert [tuple(row) for row in runs[["k_text", "k_audio", "seed"]].to_numpy()] == [
        (t, a, s) for t in (1, 3) for a in (2, 4) for s in (1, 2)
    ]
    for row in runs.to_dict("records"):
        found = json.loads((folder_of_run(folder, row) / "metrics.json").read_text())
        for split in ("val", "test"):
            for name in ("wa", "ua", "w_f1"):
                assert row[f"{split}_{name}"] == found[split][name]
        assert row["seconds"] > 0
    summary = pd.read_csv(folder / "sweep_summary.csv")
    first = runs[:2]
    assert (summary["seeds"] == 2).all()
    assert summary["test_ua_mean"][0] == pytest.approx(first["test_ua"].mean())
    assert summary["test_ua_std"][0] == pytest.approx(abs(first["test_ua"].diff()[1]) / 2**0.5)
    best = summary.sort_values(["val_w_f1_mean"], ascending=False, kind="stable").iloc[0]
    line = next(line for line in output.splitlines() if line.startswith("best on validation"))
    assert line.split()[3:5] == [str(int(best["k_text"])), str(int(best["k_audio"]))]
    assert f"{100 * best['test_wa_mean']:.2f}" in line


def test_the_grid_on_a_pretended_gpu_is_that_on_the_cpu(tmp_path, toy_data, small_config):
    def trained(device: str) -> list[dict]:
        config = small_config(dataset="TOY", dropout=0.0)
        runs = grid_runs(config, tmp_path / device, [1, 3], [2, 4], [1], toy_data)
        open_runs(runs)
        with Progress(runs) as progress:
            jobs.train_here(runs, progress, torch.device(device))
        return [
            {name: result[name] for name in result if name not in ("device", "seconds")} for result in outcomes(runs)
        ]

    expected = trained("cpu")
    with PretendCuda():
        assert trained("cuda") == expected
    assert len(expected) == 4


def test_the_printed_line_trains_the_selected_trial_to_the_same_metrics(tmp_path, options, run_sweep, monkeypatch):
    _, output = run_sweep([*options, "--profile", "official", "--dropout", "0.1"])
    words = shlex.split(output.split("train the selected trial with: ")[1].splitlines()[0])
    assert words[:3] == ["bash", "run_training.sh", "TOY"]
    monkeypatch.setattr(sys, "argv", ["train.py", "--dataset", *words[2:]])
    train.main()
    run = next(p for p in (tmp_path / "runs" / "TOY").iterdir() if p.name.startswith("official"))
    k = [int(words[words.index(name) + 1]) for name in ("--k_text", "--k_audio")]
    assert run.name.startswith(f"official-k_text={k[0]}-k_audio={k[1]}-")
    for seed in (1, 2):
        swept = folder_of_run(folder_of(tmp_path), {"k_text": k[0], "k_audio": k[1], "seed": seed})
        trained = json.loads((run / f"seed{seed}" / "metrics.json").read_text())
        assert json.loads((swept / "metrics.json").read_text()) == trained


def test_profile_official_decays_as_the_published_sweep(tmp_path, options, run_sweep):
    """The factor is 0.3 in its training and 0.5 in its sweep."""
    _, output = run_sweep([*options, "--profile", "official"])
    (folder,) = (path for path in (tmp_path / "runs" / "TOY").iterdir() if path.name.startswith("topk-official"))
    assert json.loads((folder / "k1_2" / "seed1" / "config.json").read_text())["config"]["lr_decay"] == 0.5
    assert "--lr_decay 0.5" in output
    _, output = run_sweep([*options, "--profile", "official", "--lr_decay", "0.3"])
    assert "--lr_decay" not in output.split("train the selected trial with")[1]


def test_validation_selects_and_the_optimism_of_the_test_split_is_reported():
    results = [result(1, 1, s, 0.7, 0.5) for s in (1, 2)] + [result(1, 2, s, 0.6, 0.9) for s in (1, 2)]
    summary = summary_table(run_table(results))
    assert best_trial(summary, 2).name == (1, 1)
    text = report(summary, "IEMOCAP", 2)
    assert "warning: selection on the test split would choose k_text 1, k_audio 2" in text
    assert "too optimistic by 40.00 points" in text
    assert "the paper's best" not in text  # not in this grid
    half = [*results, result(7, 8, 1, 0.1, 0.1)]
    assert "the paper's best" not in report(summary_table(run_table(half)), "IEMOCAP", 2)
    whole = summary_table(run_table([*half, result(7, 8, 2, 0.1, 0.1)]))
    assert re.search("the paper's best +7 +8 +10\\.00", report(whole, "IEMOCAP", 2))
    assert "the paper's best" not in report(whole, "DEMO", 2)  # DEMO is not in the paper


def test_equal_trials_and_incomplete_ones():
    tied = [result(t, a, 1, 0.5, 0.5) for t, a in ((3, 1), (1, 3), (2, 1), (9, 9))]
    selected = best_trial(summary_table(run_table(tied)), 1)
    assert selected.name == (2, 1)  # the fewest neighbours
    failed = {"k_text": 5, "k_audio": 5, "seed": 2, "error": "InputError: loss"}
    results = [result(5, 5, 1, 0.9, 0.9), failed, *(result(1, 1, s, 0.5, 0.5) for s in (1, 2))]
    summary = summary_table(run_table(results))
    assert best_trial(summary, 2).name == (1, 1)  # a lucky half is not selected
    assert summary["seeds"].tolist() == [2, 1]
    assert "no trial has all 3 seeds" in report(summary, "TOY", 3)


def test_best_so_far_compares_by_the_seeds_that_every_trial_has():
    results = [result(1, 1, 1, 0.5, 0), result(2, 2, 1, 0.9, 0), result(1, 1, 2, 1.0, 0)]
    assert best_so_far(results) == "best k 2, 2: val w-F1 90.0 (1 seed)"  # the second seed has only begun
    results.append(result(2, 2, 2, 0.8, 0))
    assert best_so_far(results) == "best k 2, 2: val w-F1 85.0 (2 seeds)"
    assert best_so_far([]) == ""


def test_training_command_is_quoted():
    config = make_config({"dataset": "MY", "k_text": 3, "k_audio": 4, "lr": 0.01})
    line = training_command(config, {"seeds": [1, 2], "feature_dir": "my files"})
    assert line == "bash run_training.sh MY --k_text 3 --k_audio 4 --lr 0.01 --seeds 1 2 --feature_dir 'my files'"


def fail_on(monkeypatch, error: Exception, k_audio: int) -> None:
    """Every run with this k_audio and seed 1 fails in its second epoch."""
    step = loop.train_step

    def failing_step(state, data, config):
        if state.epoch == 1 and config.k_audio == k_audio and torch.initial_seed() == 1:
            raise error
        return step(state, data, config)

    monkeypatch.setattr(loop, "train_step", failing_step)


@pytest.mark.parametrize(
    "error, message",
    [
        (InputError("epoch 2: the training loss is nan; try a smaller --lr"), "epoch 2: the training loss"),
        (
            torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate"),
            "OutOfMemoryError: CUDA out of memory. T",
        ),
        (MemoryError(), "MemoryError: no message"),
    ],
)
def test_a_failed_run_is_named_the_others_are_trained_and_it_is_tried_again(
    tmp_path, options, run_sweep, monkeypatch, error, message
):
    fail_on(monkeypatch, error, k_audio=4)
    code, output = run_sweep(options)
    assert code == 1
    assert f"failed: k_text 1, k_audio 4, seed 1: {message}" in output
    assert "2 of 8 runs failed" in output
    runs = pd.read_csv(folder_of(tmp_path) / "sweep.csv")
    failed = runs[runs["error"].notna()]
    assert failed[["k_text", "k_audio", "seed"]].to_numpy().tolist() == [[1, 4, 1], [3, 4, 1]]
    assert failed["error"].str.startswith(message).all()
    assert failed[["val_wa", "test_w_f1", "seconds"]].isna().all(axis=None)
    assert runs.loc[runs["error"].isna(), "test_wa"].notna().all()
    monkeypatch.undo()
    kept = finished_runs(folder_of(tmp_path))
    monkeypatch.setattr(sys, "argv", ["sweep.py", *map(str, options)])
    assert sweep.main() == 0
    now = finished_runs(folder_of(tmp_path))
    assert all(now[path] == at for path, at in kept.items())
    again = {str(path.parent.relative_to(folder_of(tmp_path))) for path in now.keys() - kept.keys()}
    assert again == {"k1_4/seed1", "k3_4/seed1"}


def test_a_loss_that_is_not_finite_ends_the_sweep_with_every_run_named(options, run_sweep):
    code, output = run_sweep([*options, "--lr", "1e30"])
    assert code == 1
    assert "no trial has all 2 seeds" in output
    assert "8 of 8 runs failed" in output
    assert re.search(r"failed: k_text 3, k_audio 4, seed 2: epoch \d: the (training|validation) loss", output)


def test_a_test_loss_that_is_not_finite_is_a_failed_run_too(tmp_path, options, run_sweep, monkeypatch):
    original = loop.tally

    def tally(logits, data):
        values = original(logits, data)
        return values.index_fill(0, torch.tensor(0), float("inf")) if data is tested[-1] else values

    tested = [None]
    evaluate_selected = training_run.evaluate_selected
    monkeypatch.setattr(loop, "tally", tally)
    monkeypatch.setattr(
        training_run,
        "evaluate_selected",
        lambda state, val, test: tested.append(test) or evaluate_selected(state, val, test),
    )
    code, output = run_sweep(options)
    assert code == 1
    assert re.search(r"failed: k_text 1, k_audio 2, seed 1: epoch \d: the test loss is inf", output)


def test_a_second_command_trains_only_what_is_new(tmp_path, options, run_sweep, monkeypatch):
    run_sweep(options)
    trained = []
    original = jobs.train_run
    monkeypatch.setattr(jobs, "train_run", lambda run, *args: trained.append(run.config) or original(run, *args))
    code, output = run_sweep([*options, "--k_text", "3", "2"])
    assert code == 0
    assert {config.k_text for config in trained} == {2}
    assert "8 runs, 4 of them already finished" in output
    assert set(pd.read_csv(folder_of(tmp_path) / "sweep.csv")["k_text"]) == {2, 3}  # only the requested values


BAD = {
    "k of 0": (["--k_text", "0"], "--k_text 0: must be distinct and at least 1"),
    "k twice": (["--k_audio", "2", "2"], "--k_audio 2 2: must be distinct"),
    "k too large": (["--k_text", "1", "24"], r"--k_text 24: .*_val\.pkl has 24 utterances, so each has at most 23"),
    "k without a graph": (["--ablation", "no_chgat"], "--k_text 1 3: has no effect with --ablation no_chgat"),
    "k of no audio": (["--ablation", "text_only"], "--k_audio 2 4: has no effect with --ablation text_only"),
    "missing file": (["--test_path", "nowhere.pkl"], r"nowhere\.pkl: no such file"),
    "same seed twice": (["--seeds", "1", "1"], "--seeds 1 1: must be distinct"),
    "no cluster": (["--gpus_per_run", "0.5"], "--cpus_per_run and --gpus_per_run: only with --ray"),
    "no CPU": (["--ray", "auto", "--cpus_per_run", "0"], "--cpus_per_run 0: must be at least 1"),
    "GPU and a half": (
        ["--ray", "auto", "--gpus_per_run", "1.5"],
        "--gpus_per_run 1.5: must be a fraction from 0 to 1, or",
    ),
    "no job": (["--jobs", "0"], "--jobs 0: must be above 0"),
    "jobs of a cluster": (["--ray", "auto", "--jobs", "2"], "--jobs 2: with --ray, use --cpus_per_run"),
    "device of a cluster": (["--ray", "auto", "--device", "cpu"], "--device cpu: with --ray, use --gpus_per_run"),
}


@pytest.mark.parametrize("extra, message", BAD.values(), ids=BAD)
def test_bad_options_end_in_one_line_and_leave_nothing(tmp_path, options, call, extra, message):
    code, line = call(sweep.main, *options, *extra)
    assert code == 2
    assert re.search(message, line)
    assert not (tmp_path / "runs").exists()


def test_another_configuration_or_data_is_refused(tmp_path, options, run_sweep, call):
    run_sweep([*options, "--model_name", "mine"])
    other = write_pickle(tmp_path / "other.pkl", make_rows(12, seed=9))
    for extra, message in (
        (["--dropout", "0.5"], r"seed\d: contains a run with another configuration \(dropout was 0\.3, now 0\.5\)"),
        (["--train_path", other], "the train data"),
    ):
        code, line = call(sweep.main, *options, "--model_name", "mine", *extra)
        assert code == 2
        assert re.search(message, line)


@pytest.mark.parametrize("content", ["{", "{}", '{"seed": 1, "selected_epoch": 1}'])
def test_a_damaged_run_is_named(tmp_path, options, run_sweep, call, content):
    run_sweep(options)
    (folder_of(tmp_path) / "k1_2" / "seed2" / "metrics.json").write_text(content)
    code, line = call(sweep.main, *options)
    assert code == 2
    assert re.search(r"k1_2/seed2/metrics\.json: not ", line)


def test_outcomes_are_sorted_and_hold_what_runs_have(tmp_path, options, run_sweep, toy_data):
    run_sweep(options)
    folder = folder_of(tmp_path)
    config = read_config(json.loads((folder / "k1_2/seed1/config.json").read_text())["config"], "")
    runs = grid_runs(config, folder, [3, 1, 9], [2], [2, 1])
    found = run_table(outcomes(runs)).to_dict("records")
    assert [(each["k_text"], each["seed"]) for each in found] == [(1, 1), (1, 2), (3, 1), (3, 2)]  # none of k_text 9
    assert all(each["seconds"] > 0 for each in found)


# A sweep whose runs take no time and write a line to a file. One run of one process never ends.
STUB = """
import json, sys, time
sys.path.insert(0, {root!r})
import sweep
from utils.training import jobs
from utils.training.run import Run
def train_run(run, device, progress):
    with open({log!r}, "a") as log:
        log.write(f"{{run.trial.folder.name}}/{{run.folder.name}} {{name}}\\n")
    while name == "hung" and str(run.folder).endswith("k1_4/seed1"):
        time.sleep(0.1)
    metrics = dict.fromkeys(("wa", "ua", "w_f1", "macro_f1"), run.config.k_text / 10)
    metrics |= {{"recall": [1.0], "confusion": [[1]]}}
    graphs = {{split: {{"homophily": 0.5}} for split in ("train", "val", "test")}}
    found = {{"seed": run.seed, "selected_epoch": 1, "device": "cpu", "temperature": 1.0, "graphs": graphs}}
    found |= {{"val": metrics, "test": metrics}}
    line = {{"epoch": 1, "train_loss": 1.0, "val_loss": 1.0, "val_w_f1": 1.0, "seconds": 1.0}}
    (run.folder / "log.jsonl").write_text(3 * (json.dumps(line) + "\\n"))
    (run.folder / "metrics.json").write_text(json.dumps(found))
jobs.train_run = train_run
name = sys.argv.pop(1)
sys.exit(sweep.main())
"""


def wait_for(condition, process: subprocess.Popen, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_killed_at_any_moment_and_resumed(tmp_path, options, run_sweep):
    """SIGKILL in the middle of a run: finished runs stay, and the CSVs become those of an undisturbed sweep."""
    options = [*options, "--epochs", "30", "--model_name"]
    whole, stopped = (tmp_path / "runs" / "TOY" / name for name in ("whole", "stopped"))
    process = subprocess.Popen(
        ["bash", ROOT / "selected_topK.sh", *options[1:], "stopped"],
        env=environment(OMP_NUM_THREADS=str(torch.get_num_threads())),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    wait_for(lambda: len(finished_runs(stopped)) >= 2, process)
    process.kill()
    process.communicate()
    finished = finished_runs(stopped)
    assert 2 <= len(finished) < RUNS
    code, output = run_sweep([*options, "stopped"])
    assert code == 0
    assert f"{RUNS} runs, {len(finished)} of them already finished" in output
    assert finished.items() <= finished_runs(stopped).items()
    assert run_sweep([*options, "whole"])[0] == 0
    assert all(a.equals(b) for a, b in zip(sweep_tables(whole), sweep_tables(stopped), strict=True))
    assert not [path for path in stopped.rglob(".*") if path.suffix != ".lock"]  # no half-written file


def test_interrupt_says_what_is_kept(tmp_path, options):
    command = [sys.executable, ROOT / "sweep.py", *options, "--epochs", "60"]
    process = subprocess.Popen(
        command,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job ignores it
    )
    wait_for(lambda: len(list((tmp_path / "runs").glob("TOY/*/k*/seed*/metrics.json"))) >= 1, process)
    process.send_signal(signal.SIGINT)
    error = process.communicate()[1].decode()
    assert process.returncode == 130
    assert re.search(r"\d of 8 runs are finished; repeat the command to resume", error)


def test_two_at_once_share_the_runs_and_take_over_from_the_killed(tmp_path, options):
    """The first hangs in a run. The second trains all others, waits, and trains that run when the first is killed."""
    log = tmp_path / "log"
    script = STUB.format(root=str(ROOT), log=str(log))

    def start(name: str) -> subprocess.Popen:
        command = [sys.executable, "-c", script, name, *map(str, options)]
        return subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def lines() -> list[str]:
        return log.read_text().splitlines() if log.exists() else []

    hung = start("hung")
    wait_for(lambda: "k1_4/seed1 hung" in lines(), hung)
    second = start("second")
    wait_for(lambda: len(lines()) == RUNS, second)
    time.sleep(0.5)
    assert second.poll() is None  # it waits for the run of the other process
    assert len(lines()) == RUNS
    hung.kill()
    hung.communicate()
    assert second.wait(60) == 0
    runs = {f"k{t}_{a}/seed{s}" for t in (1, 3) for a in (2, 4) for s in (1, 2)}
    by_second = [f"{run} second" for run in runs - {"k1_2/seed1"}]
    assert sorted(lines()) == sorted([*by_second, "k1_2/seed1 hung", "k1_4/seed1 hung"])
    assert len(pd.read_csv(folder_of(tmp_path) / "sweep.csv")) == RUNS


def start_jobs(options: list) -> subprocess.Popen:
    """A sweep with two jobs of one thread, the leader of a process group as in a terminal."""
    return subprocess.Popen(
        [sys.executable, ROOT / "sweep.py", *options, "--jobs", "2"],
        env=environment(OMP_NUM_THREADS="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def unfinished(folder: Path) -> list[Path]:
    """The folders of runs that have begun, with their saved state."""
    runs = [path.parent for path in folder.rglob("log.jsonl") if not path.with_name("metrics.json").exists()]
    for run in runs:
        epochs = len((run / "log.jsonl").read_text().splitlines())
        assert not epochs or torch.load(run / "last.pt", weights_only=True)["epoch"] == epochs
    return runs


@pytest.mark.slow
def test_jobs_interrupted_in_a_terminal_and_resumed(tmp_path, options, run_sweep, quick_jobs):
    """Every process of the command gets the signal: first while the jobs start, then while they train."""
    options = [*options, "--epochs", "60", "--model_name"]
    folder = tmp_path / "runs" / "TOY" / "jobs"
    moments = (lambda: len(list(folder.rglob("config.json"))) == RUNS, lambda: finished_runs(folder))
    for signum, moment in zip((signal.SIGINT, signal.SIGTERM), moments, strict=True):
        process = start_jobs([*options, "jobs"])
        wait_for(moment, process)
        os.killpg(process.pid, signum)
        error = process.communicate(timeout=60)[1]
        assert process.returncode == 130
        assert error.endswith("of 8 runs are finished; repeat the command to resume\ninterrupted\n")
        assert "Traceback" not in error
        assert len(finished_runs(folder)) < RUNS
    assert error.count(": saved after epoch ") == len(unfinished(folder)) >= 1
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert run_sweep([*options, "jobs", "--jobs", "2"])[0] == 0
        run_sweep([*options, "alone"])
    finally:
        torch.set_num_threads(threads)
    tables = (sweep_tables(folder.with_name(name)) for name in ("jobs", "alone"))
    assert all(a.equals(b) for a, b in zip(*tables, strict=True))


def test_jobs_end_after_their_epochs_where_the_command_is_killed(tmp_path, options):
    process = start_jobs([*options, "--epochs", "100000"])
    wait_for(lambda: len(list((tmp_path / "runs").rglob("log.jsonl"))) == 2, process)
    process.kill()
    error = process.communicate(timeout=60)[1]  # which waits for the jobs
    assert "Traceback" not in error
    assert len(unfinished(tmp_path / "runs")) == 2
